"""The schedule for NumPy arrays: small calls in one step, all others block by block.

Its kernel (``kernel.py``) serves torch tensors on the CPU and the chunks of Dask arrays, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ... import arrays
from ...arrays import Array
from ...contract.hooks import hookimpl
from ...contract.plan import Plan
from ...contract.problem import Weights
from ...contract.specs import BackendSpec, KernelSpec
from ...numerics.reduction import PartialReduction
from ..generic import blocks
from ..generic import schedule as generic
from . import recycling

SmallCall = Callable[[Array, Array, Weights, Array | None], Any]
"""(predictions, labels, weights, out) to the result; None if a label, a row or an array needs more care."""
LARGE = 1 << 17
"""Elements from which on the few microseconds do not matter, and threads do."""
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
METHODS = {
    "sparse": frozenset({"partial", "gradient", "loss_and_gradient", "statistics", "probability_sums", "whole_call"}),
    "dense": frozenset({"partial", "gradient"}),
}
LOADS = {"sparse": "xent.backends.numpy.whole_calls:sparse", "dense": "xent.backends.numpy.kernel:dense"}


@hookimpl
def xent_register_kernels() -> Iterator[KernelSpec]:
    for op in ("sparse", "dense"):
        yield KernelSpec(
            name="numpy",
            op=op,
            load=LOADS[op],
            arrays=frozenset({"numpy"}),
            devices=frozenset({"cpu"}),
            dtypes=frozenset({"float16", "bfloat16", "float32", "float64"}),
            methods=METHODS[op],
            priority=-500,
            block_elements=1 << 16,
        )


@hookimpl
def xent_register_backends() -> Iterator[BackendSpec]:
    yield BackendSpec(
        name="numpy", load="xent.backends.numpy.schedule:run", arrays=frozenset({"numpy"}), takes_out=True
    )


def run(plan: Plan, predictions: Array, targets: Array | None, weights: Weights, out: Array | None = None) -> Any:
    """The result of one call: small ones by the kernel as a whole, all others as in the generic schedule."""
    if type(predictions) is not np.ndarray:  # the result of a memory map, say, is an ordinary array
        predictions = np.asarray(predictions)
    if out is not None:
        out = np.asarray(out)
    small_call = plan.prepare(small_call_of)
    if small_call is not None:
        result = small_call(predictions, targets, weights, out)
        if result is not None:
            return result
    if out is None and plan.problem.method == "loss_and_gradient" and plan.problem.op != "binary":
        out = recycling.empty_like(predictions)
    return generic.run(plan, predictions, targets, weights, out)


def small_call_of(plan: Plan) -> SmallCall | None:
    """The short way of the calls of a plan, with the bits of the generic schedule; None if there is none.

    ``benchmarks/bench_plain_numba.py`` shows what is gained.
    """
    problem = plan.problem
    is_loss = problem.op == "sparse" and problem.method in ("loss", "loss_and_gradient")
    is_loss &= not isinstance(problem.options.reduction, PartialReduction)  # of a chunk: no kernel knows of it
    if "whole_call" in plan.methods and is_loss and problem.layout == "last" and problem.raises:
        served, kernel = plan.with_kernel()
        function = kernel.whole_call(problem) if served is plan else None
        return None if function is None else whole_call(plan, function)
    return None


def whole_call(plan: Plan, function: Callable[..., int]) -> SmallCall:
    """The calls of one kind by a kernel's ``whole_call``: all is known but the arrays."""
    problem = plan.problem
    dtype, labels_dtype = np.dtype(problem.dtype), np.dtype(problem.target_dtype)
    wide = FLOAT64 if problem.dtype == "float64" else FLOAT32
    by_row, has_gradient = problem.options.reduction == "none", problem.method == "loss_and_gradient"
    sample_dtype = np.dtype(problem.sample_weight_dtype) if problem.sample_weight_dtype else None
    is_row, empty = problem.ndim == 1, np.empty

    def call(logits: Array, labels: Array, weights: Weights, out: Array | None) -> Any:
        if logits.size >= LARGE or logits.dtype is not dtype or labels.dtype is not labels_dtype:
            return None
        sample, classes = weights[:2]
        if is_row:  # NumPy's numbers have dtypes and flags, but no memory that a kernel could read
            labels, sample = np.asarray(labels), None if sample is None else np.asarray(sample)
        if not (logits.flags.c_contiguous and labels.flags.c_contiguous):
            return None
        if sample is not None and (sample.dtype is not sample_dtype or not sample.flags.c_contiguous):
            return None
        if out is not None and not (out.flags.c_contiguous and blocks.may_fill(plan, logits, out)):
            return None
        if classes is not None and getattr(classes, "dtype", None) is wide:
            classes = np.ascontiguousarray(classes)
        elif classes is not None:
            with arrays.without_fp_warnings():
                classes = np.ascontiguousarray(classes, wide)
        loss = empty(labels.shape if by_row else (), wide)
        gradient = empty(logits.shape, dtype) if has_gradient and out is None else out
        if function(logits, labels, labels.size, logits.shape[-1], sample, classes, None, loss, gradient):
            return None
        return (loss, gradient) if has_gradient else loss

    return call
