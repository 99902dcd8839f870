"""Small calls of labels by xent's own kernel, as a whole: the steps of the generic schedule in few operations.

The bits are those of the generic schedule. Declined are large calls, bad labels, memory that is given by its address,
which NumPy does not make an array of in little time, and losses of rows that are not finite: the schedule takes these.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...arrays import Array
from ...contract.problem import Problem
from ...numerics import fold
from ...numerics.reduction import Mean, Reducer, pairwise_sum, weighted
from ...numerics.targets import NO_ROWS, Rows, holdable, smoothing
from .kernel import FEW_CLASSES, ShiftedLogits, SparseNumpy, row_sums, sum_exp_rest

SMALL = 1 << 14
"""The most elements of a small call."""
FEW_ROWS = 64
INT64, UINT64 = np.dtype(np.int64), np.dtype(np.uint64)
SERVED, DECLINED = 0, 1


class SmallSparse(SparseNumpy):
    """The kernel for labels, with whole calls."""

    def whole_call(self, problem: Problem) -> Callable[..., int] | None:
        """The function for small calls of a kind, as the contract of kernels has it; None if it has none."""
        options = problem.options
        if not (options.reduction in ("none", "sum", "mean") or isinstance(options.reduction, Mean)):
            return None
        ignored_labels = holdable(problem.target_dtype, options.ignore_index or ())
        reducer, by_row = Reducer(options.reduction, sum_of_rows), options.reduction == "none"
        is_plain = by_row and problem.method == "loss" and options.label_smoothing == 0 and not ignored_labels

        def call(
            logits: Any,
            labels: Any,
            count: int,
            classes: int,
            sample: Any,
            class_weight: Any,
            cotangent: Any,
            losses: Any,
            gradient: Any,
        ) -> int:
            if type(logits) is int or logits.size > SMALL:
                return DECLINED
            if logits.ndim != 2:
                logits, labels, losses = logits.reshape(count, classes), labels.reshape(-1), losses.reshape(-1)
            labels = labels if labels.dtype is INT64 else labels.astype(INT64)
            if is_plain and sample is None and class_weight is None:
                loss = small_loss(logits, labels) if all_inside(labels, classes) else None
                if loss is None:
                    return DECLINED
                losses[...] = loss
                return SERVED
            with np.errstate(all="ignore"):
                labels, rows = rows_of(labels, classes, ignored_labels, sample, class_weight, losses.dtype)
                if not all_inside(labels, classes):
                    return DECLINED
                on, off = smoothing(options.label_smoothing, classes)
                if gradient is not None:
                    scale = reducer.scale(np, rows, np.empty(count, losses.dtype))
                    scale = scale if cotangent is None else scale * cotangent
                    out = gradient.reshape(count, classes)
                    loss, _ = self.loss_and_gradient(logits, labels, on, off, scale, threads=1, out=out)
                else:
                    loss = small_loss(logits, labels) if off == 0.0 else None
                    if loss is None:
                        loss = fold.finish(np, self.partial(logits, labels, on, off, threads=1))
                loss = weighted(np, loss, rows)
                losses[...] = loss if by_row else reducer.value(np, reducer.sums(np, loss, rows))
            return SERVED

        return call


sparse = SmallSparse()


def rows_of(
    labels: Array, classes: int, ignored_labels: tuple[int, ...], sample: Any, class_weight: Any, wide: Any
) -> tuple[Array, Rows]:
    """The labels, with 0 for those of ignored rows that are no class, and what is said of the rows."""
    if sample is None and class_weight is None and not ignored_labels:
        return labels, NO_ROWS
    ignored = weight = None
    if sample is not None:
        sample = sample.reshape(-1)
        ignored, weight = sample == 0, sample.astype(wide, copy=False)
    for label in ignored_labels:
        hit = labels == label
        ignored = hit if ignored is None else ignored | hit
    if ignored is not None and not all_inside(labels, classes):
        labels = np.where(ignored & ((labels < 0) | (labels >= classes)), 0, labels)
    if class_weight is not None and all_inside(labels, classes):
        of_label = class_weight[labels]
        ignored = of_label == 0 if ignored is None else ignored | (of_label == 0)
        weight = of_label if weight is None else weight * of_label
    return labels, Rows(ignored if ignored is not None and ignored.any() else None, None, weight)


def sum_of_rows(xp: Any, values: Array) -> Array:
    """``pairwise_sum``, in Python's own numbers for few rows: at eight rows a third of the time."""
    count = values.size
    if not 1 < count <= FEW_ROWS:
        return pairwise_sum(xp, values)
    numbers, odd = values.tolist(), None
    while count > 1:
        half = count // 2
        if count % 2:
            odd = numbers[-1] if odd is None else odd + numbers[-1]
        numbers = [a + b for a, b in zip(numbers[:half], numbers[half : 2 * half], strict=True)]
        count = half
    return np.float64(numbers[0] if odd is None else numbers[0] + odd)


def all_inside(labels: Array, classes: int) -> bool:
    """Whether every label, int64, is a class; True if there are none."""
    if labels.size == 0:
        return True
    unsigned = labels.view(UINT64)  # a negative label is a very large one
    return bool(unsigned[unsigned.argmax()] < classes)


def small_loss(logits: Array, labels: Array) -> Array | None:
    """The losses of labels (rows,), all of them classes, bit for bit those of the kernel.

    None if there is no row, a row has no finite maximum, the array is narrow, or floating-point errors are set to
    raise: the kernel is there for these.
    """
    rows, classes = logits.shape
    if logits.dtype.char not in "fd" or rows == 0:
        return None
    first, flat = row_starts(rows, classes), logits.reshape(-1)
    argmax = logits.argmax(1) + first if classes > FEW_CLASSES else None  # in the flat array
    highest = logits.max(1) if argmax is None else flat[argmax]
    if not are_finite(highest):
        return None
    try:
        exps = logits - highest[:, None]
        if argmax is None:
            rest, _ = sum_exp_rest(ShiftedLogits(logits, highest, exps, None, None))
        else:
            np.exp(exps, out=exps)
            exps.reshape(-1)[argmax] = 0
            rest = row_sums(exps)
        loss: Array = (highest - flat[first + labels]) + np.log1p(rest.astype(logits.dtype))
    except FloatingPointError:
        return None
    return loss


def are_finite(values: Array) -> bool:
    """Whether all values are finite; False too if their sum is not."""
    if len(values) <= FEW_ROWS:
        return math.isfinite(sum(values.tolist()))
    return math.isfinite(values[values.argmax()]) and math.isfinite(values[values.argmin()])


@functools.lru_cache(maxsize=64)
def row_starts(rows: int, classes: int) -> Array:
    """The position of each row's first class in the flat array; read-only, for it is shared."""
    starts = np.arange(0, rows * classes, classes)
    starts.flags.writeable = False
    return starts
