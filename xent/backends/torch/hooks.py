"""torch, as it is registered, and its way into a graph that TorchDynamo captures. Nothing here imports torch before a
tensor is at hand; the schedule is in ``schedule.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ... import arrays, checks
from ...arrays import Array
from ...contract.hooks import hookimpl
from ...contract.problem import Options, Problem, Route, Weights
from ...contract.specs import BackendSpec


@hookimpl
def xent_register_backends() -> Iterator[BackendSpec]:
    yield BackendSpec(name="torch", load="xent.backends.torch.schedule:run", arrays=frozenset({"torch"}), inner="view")


def compiled(route: Route, predictions: Array, targets: Array | None, options: Options, weights: Weights) -> Any:
    """One call inside a graph: checked by what the graph is made for, without a key, a lock or a ContextVar."""
    from . import schedule

    function, op, method = route.function, route.op, route.method
    checks.metadata(function, op, predictions, targets, options, weights)
    axis = predictions.ndim - 1 if op == "binary" else checks.class_axis(function, options.axis, predictions.ndim)
    problem = Problem(
        function=function,
        op=op,
        method=method,
        array="torch",
        dtype=arrays.dtype_name(predictions.dtype),
        device="traced",
        ndim=predictions.ndim,
        axis=axis,
        target_array="torch",
        target_dtype="" if targets is None else arrays.dtype_name(targets.dtype),
        options=options._replace(ignore_index=checks.ignore_index(function, options.ignore_index) or None),
    )
    checks.shapes(problem, predictions, targets)
    checks.weight_shapes(problem, predictions, weights)
    return schedule.traced(problem, predictions, targets, weights)
