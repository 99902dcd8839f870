"""xent: cross entropy on any array, exact, fused and out of core.

Importing it imports no array library and looks for no plugin; every name below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
import os.path
from typing import Any

PUBLIC = {
    "cross_entropy": "losses",
    "sparse_cross_entropy": "losses",
    "binary_cross_entropy": "losses",
    "value_and_grad": "derivatives",
    "explain": "derivatives",
    "row_statistics": "rows",
    "RowStatistics": "numerics.statistics",
    "partial": "rows",
    "merge": "rows",
    "finish": "rows",
    "softmax": "normalisation",
    "log_softmax": "normalisation",
    "logsumexp": "normalisation",
    "one_hot": "normalisation",
    "Mean": "numerics.reduction",
    "Partial": "numerics.fold",
    "Statistics": "numerics.statistics",
    "LabelError": "errors",
    "PluginWarning": "errors",
    "using": "dispatch.settings",
    "plugins": "dispatch.registry",
    "register": "dispatch.registry",
    "unregister": "dispatch.registry",
    "hookimpl": "contract.hooks",
    "API_VERSION": "contract.specs",
    "KernelSpec": "contract.specs",
    "BackendSpec": "contract.specs",
    "Decision": "contract.plan",
    "Problem": "contract.problem",
    "evaluate": "evaluation.engine.evaluate_pass",
    "compare": "evaluation.engine.compare_pass",
}

__all__ = [*PUBLIC]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("xent.distribution").version()
    if name not in PUBLIC:
        raise AttributeError(f"module 'xent' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"xent.{PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*PUBLIC, "__version__"]


if os.path.exists(os.path.join(__path__[0], "games")):  # the folder of another project's package of this name
    importlib.import_module("warnings").warn(importlib.import_module("xent.distribution").conflict(), stacklevel=2)
