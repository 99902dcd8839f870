"""xent: cross entropy on any array, exact, fused and out of core.

Importing it imports no array library and looks for no plugin; every name below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
import os.path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what __getattr__ loads, for type checkers and editors
    from .contract.hooks import hookimpl as hookimpl
    from .contract.plan import Decision as Decision
    from .contract.problem import Problem as Problem
    from .contract.specs import API_VERSION as API_VERSION
    from .contract.specs import BackendSpec as BackendSpec
    from .contract.specs import KernelSpec as KernelSpec
    from .derivatives import explain as explain
    from .derivatives import value_and_grad as value_and_grad
    from .dispatch.registry import plugins as plugins
    from .dispatch.registry import register as register
    from .dispatch.registry import unregister as unregister
    from .dispatch.settings import using as using
    from .errors import KindError as KindError
    from .errors import LabelError as LabelError
    from .errors import PluginWarning as PluginWarning
    from .evaluation.evaluations import compare as compare
    from .evaluation.evaluations import compare_all as compare_all
    from .evaluation.evaluations import evaluate as evaluate
    from .evaluation.evaluations import merge_parts as merge_parts
    from .evaluation.indexing import index_shards as index_shards
    from .linear import Linear as Linear
    from .linear import LinearGradient as LinearGradient
    from .losses import (
        binary_cross_entropy as binary_cross_entropy,
    )
    from .losses import (
        cross_entropy as cross_entropy,
    )
    from .losses import (
        linear_cross_entropy as linear_cross_entropy,
    )
    from .losses import (
        sparse_cross_entropy as sparse_cross_entropy,
    )
    from .normalisation import (
        log_softmax as log_softmax,
    )
    from .normalisation import (
        logsumexp as logsumexp,
    )
    from .normalisation import (
        one_hot as one_hot,
    )
    from .normalisation import (
        softmax as softmax,
    )
    from .numerics.fold import Partial as Partial
    from .numerics.reduction import Mean as Mean
    from .numerics.statistics import RowStatistics as RowStatistics
    from .numerics.statistics import Statistics as Statistics
    from .rows import finish as finish
    from .rows import gradient as gradient
    from .rows import merge as merge
    from .rows import partial as partial
    from .rows import row_statistics as row_statistics
    from .sparse_targets import SparseTargets as SparseTargets

    __version__: str

PUBLIC = {
    "cross_entropy": "losses",
    "sparse_cross_entropy": "losses",
    "binary_cross_entropy": "losses",
    "linear_cross_entropy": "losses",
    "Linear": "linear",
    "LinearGradient": "linear",
    "SparseTargets": "sparse_targets",
    "value_and_grad": "derivatives",
    "explain": "derivatives",
    "row_statistics": "rows",
    "RowStatistics": "numerics.statistics",
    "partial": "rows",
    "merge": "rows",
    "finish": "rows",
    "gradient": "rows",
    "softmax": "normalisation",
    "log_softmax": "normalisation",
    "logsumexp": "normalisation",
    "one_hot": "normalisation",
    "Mean": "numerics.reduction",
    "Partial": "numerics.fold",
    "Statistics": "numerics.statistics",
    "KindError": "errors",
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
    "evaluate": "evaluation.evaluations",
    "compare": "evaluation.evaluations",
    "compare_all": "evaluation.evaluations",
    "merge_parts": "evaluation.evaluations",
    "index_shards": "evaluation.indexing",
}

__all__ = [*PUBLIC]


if not TYPE_CHECKING:  # a name that is not there is an error for type checkers, too

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
