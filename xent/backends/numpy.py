"""Schedule for NumPy arrays: small plain calls in few steps, all others block by block.

Its kernel (``inplace.py``) serves torch tensors on the CPU too, and the chunks of Dask arrays.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..arrays import Array
from ..hookspecs import hookimpl
from ..kernels import BackendSpec, KernelSpec, Plan, Weights
from ..numerics import reduction
from ..numerics.targets import Rows
from ..problem import NO_WEIGHTS
from . import generic
from .inplace import FEW_CLASSES, Look, row_sums, sum_exp_rest

SMALL = 1 << 14
NO_ROWS = Rows(None, None, None)
INT64, UINT64 = np.dtype(np.int64), np.dtype(np.uint64)
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
            load=f"xent.backends.inplace:{op}",
            arrays=frozenset({"numpy"}),
            devices=frozenset({"cpu"}),
            dtypes=frozenset({"float16", "bfloat16", "float32", "float64"}),
            methods=METHODS[op],
            priority=-500,
            block_elements=1 << 16,
        )


@hookimpl
def xent_register_backends() -> Iterator[BackendSpec]:
    yield BackendSpec(name="numpy", load="xent.backends.numpy:run", arrays=frozenset({"numpy"}))


def run(plan: Plan, predictions: Array, targets: Array | None, weights: Weights) -> Any:
    """Carries out one call: small plain ones in few steps, all others as the generic schedule does."""
    if type(predictions) is not np.ndarray:  # a memory map, say: what comes back is none
        predictions = np.asarray(predictions)
    if weights is NO_WEIGHTS and plan.problem.is_plain and plan.kernel == "numpy" and predictions.size <= SMALL:
        loss, wanted = small_loss(predictions, targets), plan.problem.options.reduction
        if loss is not None:
            return loss if wanted == "none" else reduction.reduce(np, loss, NO_ROWS, wanted)
    return generic.run(plan, predictions, targets, weights)


def small_loss(logits: Array, labels: Array) -> Array | None:
    """The losses of labels (rows,), bit for bit those of the kernel; None where anything is unusual.

    Unusual is what the kernel and the checks are there for: a bad label, a row without a finite maximum, a narrow or
    strided array, floating-point errors set to raise.
    """
    rows, classes = logits.shape
    if labels.dtype is not INT64 or logits.dtype.char not in "fd" or not logits.flags.c_contiguous or rows == 0:
        return None
    unsigned = labels.view(UINT64)  # a negative label is a very large one
    if unsigned[unsigned.argmax()] >= classes:
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
