"""What is promised of every kernel: one function a promise; its name is the check's, its first line the sentence.

A promise takes a :class:`~xent.testing.kernel_under_test.KernelUnderTest` and generates an outcome for each case.
``declaration.py`` has the promises about what a kernel declares, ``accuracy.py`` those about its numbers,
``probability_sums.py`` that about its numbers of probabilities,
``memory_use.py`` those about what it reads, writes and allocates, ``overwriting.py`` those about arrays of the caller's
that its gradients are written into, ``reproducibility.py`` and ``whole_calls.py`` those about its bits.
"""

from ..kernel_under_test import Promise
from .accuracy import ACCURACY, infinities, masked_tiles, not_numbers, strange_labels, ties, tiny_losses
from .declaration import DECLARATION, declaration, import_light, plan_pickles, selected
from .memory_use import MEMORY_USE, many_elements
from .overwriting import OVERWRITING
from .probability_sums import PROBABILITY_SUMS
from .reproducibility import REPRODUCIBILITY
from .whole_calls import WHOLE_CALLS

PROMISES: dict[str, Promise] = {
    promise.__name__: promise
    for promise in (
        *DECLARATION,
        *ACCURACY,
        *PROBABILITY_SUMS,
        *MEMORY_USE,
        *OVERWRITING,
        *REPRODUCIBILITY,
        *WHOLE_CALLS,
    )
}
"""Every promise by its name, in the order in which they are tried."""
QUICK = (declaration, selected, tiny_losses, ties, infinities, not_numbers, masked_tiles, strange_labels)
"""The promises that ``check_kernel(quick=True)`` tries."""
ONCE = (declaration, import_light, plan_pickles, many_elements)
"""The promises that are the same in every dtype."""

__all__ = ["ONCE", "PROMISES", "QUICK"]
