"""The targets of one segment, as the loops are told of them: of a label, or in memory.

What a loop is *told* is ``(address, stride, on, off)`` of labels, int64, with t_j = on · [j = label] + off; or
``(dtype, address, stride, class stride)`` of soft targets. A *target* is what of it is one segment's: ``(label, on,
off)``, with the label counted from the segment's first class, or ``(dtype, address, class stride)`` of its targets.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numba.extending import overload

from . import segments
from .memory import element, integer, size


def by_target(of_label, of_memory):
    """A function of the loops whose last argument is a target, or what is told: one text for each kind."""

    def chosen(*arguments):
        raise NotImplementedError("only compiled code calls this")

    @overload(chosen)
    def overloaded(*arguments):
        function = of_memory if isinstance(arguments[-1][0], types.DType) else of_label
        return lambda *arguments: function(*arguments)

    return chosen


@njit
def told_labels(on, off, labels):
    return labels.ctypes.data, labels.strides[0], on, off


@njit
def told_targets(on, off, targets):
    return targets.dtype, targets.ctypes.data, targets.strides[0], targets.strides[1]


def told_of(on, off, array):
    """What a loop is told of labels (rows,) or of soft targets (rows, classes)."""
    raise NotImplementedError("only compiled code calls this")


@overload(told_of)
def overloaded_told_of(on, off, array):
    function = told_labels if array.ndim == 1 else told_targets
    return lambda on, off, array: function(on, off, array)


@njit
def label_at(row, begin, told):
    address, stride, on, off = told
    return integer(address + row * stride) - begin, on, off


@njit
def memory_at(row, begin, told):
    targets, address, stride, class_stride = told
    return targets, address + row * stride + begin * class_stride, class_stride


target_at = by_target(label_at, memory_at)
"""target_at(row, begin, told): the target of the segment of a row that begins at a class."""


@njit
def from_label(index, target):
    label, on, off = target
    return (on if index == label and on != 0.0 else 0.0) + off


@njit
def from_memory(index, target):
    targets, place, class_stride = target
    return np.float64(element(targets, place + index * class_stride))


target_of = by_target(from_label, from_memory)
"""target_of(index, target): the target of one class."""


@njit
def label_moved(index, target):
    return target[0] - index, target[1], target[2]


@njit
def memory_moved(index, target):
    return target[0], target[1] + index * target[2], target[2]


moved = by_target(label_moved, memory_moved)
"""moved(index, target): the target of the classes from an index on."""


@njit
def gap_of_label(x, start, count, peak, target):
    label, on, off = target
    gap = mass = 0.0
    if 0 <= label < count and on != 0.0:  # subtle: at on = 0 the label's term is dropped, for 0 · inf is NaN
        gap = on * (peak - np.float64(element(x, start + label * size(x))))
        mass = on
    if off != 0.0:
        gap += off * segments.distance_of(x, start, count, peak)
        mass += off * count
    return gap, mass


@njit
def gap_of_memory(x, start, count, peak, target):
    return segments.target_gap_of(x, start, count, peak, target[0], target[1])


gap_of = by_target(gap_of_label, gap_of_memory)
"""gap_of(x, start, count, peak, target): (target_gap, target_sum) of a segment whose maximum is finite."""


@njit
def write_around_label(kept, place, count, numbers, out, to, target):
    off = target[2]
    if off != 0.0:
        segments.write_residual(kept, place, count, numbers, off, 0, out, to)
    else:
        segments.write_scaled(kept, place, count, numbers[0], out, to)


@njit
def write_from_memory(kept, place, count, numbers, out, to, target):
    segments.write_residual(kept, place, count, numbers, target[0], target[1], out, to)


write_slopes = by_target(write_around_label, write_from_memory)
"""write_slopes(kept, place, count, numbers, out, to, target): the gradient of some classes, but for the label's own."""


@njit
def label_of(count, target):
    return target[0] if 0 <= target[0] < count and target[1] != 0.0 else -1


@njit
def no_label(count, target):
    return -1


label_in = by_target(label_of, no_label)
"""label_in(count, target): the class whose target stands out, −1 where none of the segment's does."""
