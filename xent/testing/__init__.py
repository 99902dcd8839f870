"""The conformance kit: whether a kernel keeps the promises made of every kernel. See ``docs/plugins.md``.

``check_kernel(spec)`` needs no pytest; ``KernelConformance``, ``parametrize_with_checks`` and
``pytest -p xent.testing.plugin --kernel NAME`` are for pytest.
"""

from .calls import Answer, Call, to_block
from .conformance import check_kernel
from .edge_cases import Case, case, case_of, cases, odd_neighbours
from .execution import Bench, load
from .memory import ArrayLibrary, array_library, lay
from .parametrization import KernelConformance, parametrize_with_checks
from .promises import PROMISES
from .registration import Deviation, registered_specs
from .reports import Failure, Report, Result

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
