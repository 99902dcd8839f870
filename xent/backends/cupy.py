"""The schedule for CuPy arrays: the generic one, on the GPU that has the array. Only a product waits for the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..arrays import Array
from ..contract.hooks import hookimpl
from ..contract.plan import Plan
from ..contract.problem import Weights
from ..contract.specs import BackendSpec
from .generic import linear
from .generic import schedule as generic


@hookimpl
def xent_register_backends() -> Iterator[BackendSpec]:
    yield BackendSpec(name="cupy", load="xent.backends.cupy:run", arrays=frozenset({"cupy"}), takes_out=True)


def run(plan: Plan, predictions: Array, targets: Array | None, weights: Weights, out: Array | None = None) -> Any:
    """The result of one call on one CuPy array."""
    with gpu_of(predictions):  # another GPU may be the current one, with another stream and other memory
        return generic.run(plan, predictions, targets, weights, out)


def run_product(plan: Plan, predictions: Any, targets: Array | None, weights: Weights) -> Any:
    """The result of one call on a product; the host waits for which rows are ignored, and which classes masked."""
    with gpu_of(predictions.hidden):
        return linear.run(plan, predictions, targets, weights)


def gpu_of(array: Array) -> Any:
    """A context in which CuPy's work goes to the GPU that has the array."""
    return array.device
