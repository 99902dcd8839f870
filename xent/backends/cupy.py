"""Schedule for CuPy arrays: plain calls go to a fused kernel as they are, all others as the generic schedule has them.

A plain call has no option but a reduction. What the kernel answers is the answer: a bad label is NaN in its row, and
nothing of the size of the rows is made beside the losses. Nothing here waits for the GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .. import arrays
from ..arrays import Array
from ..contract.hooks import hookimpl
from ..contract.plan import Plan
from ..contract.problem import NO_WEIGHTS, Weights
from ..contract.specs import BackendSpec
from ..numerics import fold, reduction, targets
from ..numerics.targets import NO_ROWS
from .generic import schedule as generic


@hookimpl
def xent_register_backends() -> Iterator[BackendSpec]:
    yield BackendSpec(name="cupy", load="xent.backends.cupy:run", arrays=frozenset({"cupy"}))


def run(plan: Plan, predictions: Array, given: Array | None, weights: Weights) -> Any:
    """Carries out one call on one array of CuPy's."""
    problem = plan.problem
    is_fused = problem.method in plan.methods and plan.block_elements is None
    with gpu_of(predictions):  # whichever is the current one: its stream is another, and so would be the memory
        if is_fused and problem.is_plain and not problem.raises and weights is NO_WEIGHTS:
            return plain(plan, predictions, given)
        return generic.run(plan, predictions, given, weights)


def gpu_of(array: Array) -> Any:
    """A context in which CuPy's work goes to the GPU that has an array."""
    return array.device


def plain(plan: Plan, logits: Array, given: Any) -> Any:
    """One call on logits (rows, classes) and labels (rows,) with no option but a reduction."""
    xp, wanted, threads = arrays.namespace(logits), plan.problem.options.reduction, plan.problem.threads
    labels, kernel = targets.widen(xp, given), plan.resolve_kernel()
    if plan.problem.method == "loss":
        return reduction.reduce(xp, kernel.loss(logits, labels, 1.0, 0.0, threads=threads), NO_ROWS, wanted)
    scale = share(xp, logits, wanted)
    loss, slope = kernel.loss_and_gradient(logits, labels, 1.0, 0.0, scale, threads=threads)
    return reduction.reduce(xp, loss, NO_ROWS, wanted), slope


def share(xp: Any, logits: Array, wanted: Any) -> Array:
    """What every row has in the gradient (rows,): one number, which takes no memory for each."""
    import cupy

    mean, rows = reduction.as_mean(wanted), logits.shape[0]
    below = 1.0 if mean is None else reduction.denominator(xp, mean, NO_ROWS, logits[:, 0])
    number = single(1.0 / below if rows else 1.0, fold.compute_dtype(xp, logits.dtype))
    return cupy.broadcast_to(number, (rows,))


def single(value: float, dtype: Any) -> Array:
    """An array (1,) of one number, on the current GPU."""
    import cupy

    return cupy.full((1,), value, dtype=dtype)
