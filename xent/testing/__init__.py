"""The conformance kit: whether a kernel keeps what is promised of every kernel. See ``docs/plugins.md``.

``check_kernel(spec)`` needs no pytest; ``KernelConformance`` and ``parametrize_with_checks`` are for it, and so is
``pytest -p xent.testing.plugin --kernel NAME``.
"""

from ..contract.plan import resolve as load
from .calls import Answer, Bench, Call, to_block
from .conformance import PROMISES, check_kernel
from .edges import Case, case, case_of, cases, odd_neighbours
from .memory import ArrayLibrary, array_library, lay
from .parametrization import KernelConformance, parametrize_with_checks
from .registration import Deviation, registered_specs
from .reports import Report, Result
from .subject import Failure

__all__ = [
    "PROMISES",
    "Answer",
    "ArrayLibrary",
    "Bench",
    "Call",
    "Case",
    "Deviation",
    "Failure",
    "KernelConformance",
    "Report",
    "Result",
    "array_library",
    "case",
    "case_of",
    "cases",
    "check_kernel",
    "lay",
    "load",
    "odd_neighbours",
    "parametrize_with_checks",
    "registered_specs",
    "to_block",
]
