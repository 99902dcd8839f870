"""The schedule for NumPy arrays: small plain calls in few steps, all others block by block.

Its kernel (``kernel.py``) serves torch tensors on the CPU and the chunks of Dask arrays, too.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ... import arrays
from ...arrays import Array
from ...contract.hooks import hookimpl
from ...contract.plan import Plan
from ...contract.problem import Weights
from ...contract.specs import BackendSpec, KernelSpec
from ...numerics.reduction import Reducer
from ...numerics.targets import NO_ROWS
from ..generic import blocks
from ..generic import schedule as generic
from . import recycling
from .kernel import FEW_CLASSES, ShiftedLogits, row_sums, sum_exp_rest

SmallCall = Callable[[Array, Array, Weights, Array | None], Any]
"""(predictions, labels, weights, out) to the result; None if a label, a row or an array needs more care."""
SMALL = 1 << 14
INT64, UINT64 = np.dtype(np.int64), np.dtype(np.uint64)
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
METHODS = {
    "sparse": frozenset({"partial", "gradient", "loss_and_gradient", "statistics"}),
    "dense": frozenset({"partial", "gradient"}),
}


@hookimpl
def xent_register_kernels() -> Iterator[KernelSpec]:
    for op in ("sparse", "dense"):
        yield KernelSpec(
            name="numpy",
            op=op,
            load=f"xent.backends.numpy.kernel:{op}",
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
    """The result of one call: plain calls in few steps, all others as in the generic schedule."""
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
    if problem.is_plain and plan.kernel == "numpy" and problem.method == "loss":
        return functools.partial(plain_call, problem.options.reduction)
    is_loss = problem.op == "sparse" and problem.method in ("loss", "loss_and_gradient")
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
        if logits.dtype is not dtype or labels.dtype is not labels_dtype:
            return None
        sample, classes, _ = weights
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


def plain_call(reduction: Any, logits: Array, labels: Array, weights: Weights, out: None) -> Any:
    """The loss of a small call with no option but a reduction, with the bits of xent's own kernel."""
    loss = small_loss(logits, labels) if logits.size <= SMALL else None
    return None if loss is None else reduced(loss, reduction)


def reduced(loss: Array, reduction: Any) -> Any:
    """The losses of rows without weights, reduced."""
    return loss if reduction == "none" else Reducer(reduction).reduce(np, loss, NO_ROWS)


def all_inside(logits: Array, labels: Array) -> bool:
    """Whether every label is a class; False if there are no labels, or they are not int64."""
    if labels.dtype is not INT64 or labels.size == 0:
        return False
    unsigned = labels.view(UINT64)  # a negative label is a very large one
    return bool(unsigned[unsigned.argmax()] < logits.shape[1])


def small_loss(logits: Array, labels: Array) -> Array | None:
    """The losses of labels (rows,), bit for bit those of the kernel.

    None if a label is bad, a row has no finite maximum, the array is narrow or strided, or floating-point errors are
    set to raise: the kernel and the checks are there for these.
    """
    rows, classes = logits.shape
    if logits.dtype.char not in "fd" or not logits.flags.c_contiguous or not all_inside(logits, labels):
        return None
    first, flat = row_starts(rows, classes), logits.reshape(-1)
    argmax = logits.argmax(1) + first if classes > FEW_CLASSES else None  # in the flat array
    highest = logits.max(1) if argmax is None else flat[argmax]
    if not (math.isfinite(highest[highest.argmax()]) and math.isfinite(highest[highest.argmin()])):
        return None
    try:
        exps = logits - highest[:, None]
        if argmax is None:
            rest, _ = sum_exp_rest(ShiftedLogits(logits, highest, exps, None, None))
        else:
            np.exp(exps, out=exps)
            exps.reshape(-1)[argmax] = 0
            rest = row_sums(exps)
        return (highest - flat[first + labels]) + np.log1p(rest.astype(logits.dtype))
    except FloatingPointError:
        return None


@functools.lru_cache(maxsize=64)
def row_starts(rows: int, classes: int) -> Array:
    """The position of each row's first class in the flat array; read-only, for it is shared."""
    starts = np.arange(0, rows * classes, classes)
    starts.flags.writeable = False
    return starts
