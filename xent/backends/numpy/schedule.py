"""Schedule for NumPy arrays: small plain calls in few steps, all others block by block.

Its kernel (``kernel.py``) serves torch tensors on the CPU too, and the chunks of Dask arrays.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ... import arrays
from ...arrays import Array
from ...contract.hooks import hookimpl
from ...contract.plan import Plan
from ...contract.problem import NO_WEIGHTS, Weights
from ...contract.specs import BackendSpec, KernelSpec
from ...numerics import reduction
from ...numerics.targets import NO_ROWS
from ..generic import schedule as generic
from .kernel import FEW_CLASSES, Look, row_sums, sum_exp_rest

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
    yield BackendSpec(name="numpy", load="xent.backends.numpy.schedule:run", arrays=frozenset({"numpy"}))


def run(plan: Plan, predictions: Array, targets: Array | None, weights: Weights) -> Any:
    """Carries out one call: plain ones in few steps, all others as the generic schedule does."""
    if type(predictions) is not np.ndarray:  # a memory map, say: what comes back is none
        predictions = np.asarray(predictions)
    if weights is NO_WEIGHTS and plan.problem.is_plain:
        found = plain(plan, predictions, targets)
        if found is not None:
            return found
    return generic.run(plan, predictions, targets, weights)


def plain(plan: Plan, logits: Array, labels: Array) -> Any:
    """One call with no option but a reduction; None where the ordinary way has something to see to."""
    problem, wanted = plan.problem, plan.problem.options.reduction
    if plan.kernel == "numpy":
        loss = small_loss(logits, labels) if problem.method == "loss" and logits.size <= SMALL else None
        return None if loss is None else reduced(loss, wanted)
    if problem.method not in plan.methods or plan.block_elements is not None or not all_inside(logits, labels):
        return None
    kernel = plan.resolve_kernel()
    with arrays.quiet():
        if problem.method == "loss":
            return reduced(kernel.loss(logits, labels, 1.0, 0.0, threads=problem.threads), wanted)
        like = np.empty(len(labels), FLOAT64 if logits.dtype == FLOAT64 else FLOAT32)
        share = reduction.scale(np, NO_ROWS, wanted, like)
        loss, slope = kernel.loss_and_gradient(logits, labels, 1.0, 0.0, share, threads=problem.threads)
        return reduced(loss, wanted), slope


def reduced(loss: Array, wanted: Any) -> Any:
    """The losses of rows without weights, reduced."""
    return loss if wanted == "none" else reduction.reduce(np, loss, NO_ROWS, wanted)


def all_inside(logits: Array, labels: Array) -> bool:
    """Whether all labels are int64 and classes; False where there are none."""
    if labels.dtype is not INT64 or labels.size == 0:
        return False
    unsigned = labels.view(UINT64)  # a negative label is a very large one
    return bool(unsigned[unsigned.argmax()] < logits.shape[1])


def small_loss(logits: Array, labels: Array) -> Array | None:
    """The losses of labels (rows,), bit for bit those of the kernel; None where anything is unusual.

    Unusual is what the kernel and the checks are there for: a bad label, a row without a finite maximum, a narrow or
    strided array, floating-point errors set to raise.
    """
    rows, classes = logits.shape
    if logits.dtype.char not in "fd" or not logits.flags.c_contiguous or not all_inside(logits, labels):
        return None
    first, flat = row_starts(rows, classes), logits.reshape(-1)
    at = logits.argmax(1) + first if classes > FEW_CLASSES else None
    highest = logits.max(1) if at is None else flat[at]
    if not (math.isfinite(highest[highest.argmax()]) and math.isfinite(highest[highest.argmin()])):
        return None
    try:
        exps = logits - highest[:, None]
        if at is None:
            rest, _ = sum_exp_rest(Look(logits, highest, exps, None, None))
        else:
            np.exp(exps, out=exps)
            exps.reshape(-1)[at] = 0
            rest = row_sums(exps)
        return (highest - flat[first + labels]) + np.log1p(rest.astype(logits.dtype))
    except FloatingPointError:
        return None


@functools.lru_cache(maxsize=64)
def row_starts(rows: int, classes: int) -> Array:
    """Where each row begins in the flat array; read-only, for it is shared."""
    starts = np.arange(0, rows * classes, classes)
    starts.flags.writeable = False
    return starts
