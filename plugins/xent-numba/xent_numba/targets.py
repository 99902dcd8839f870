"""The targets of one segment: a label, or soft targets in memory.

The loops along rows get the targets of a whole block as ``LabelTargets`` or ``SoftTargets``. What they use at a time is
the part of one segment, ``SegmentLabel`` or ``SegmentTargets``. Every function here has a body for either kind.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import segments
from .by_type import by_type
from .memory import itemsize, load_int64, load_scalar


class LabelTargets(NamedTuple):
    """The labels of a block, int64, from an address on: t_j = on · [j = label] + off."""

    address: int
    stride: int
    on: float
    off: float


class SoftTargets(NamedTuple):
    """The soft targets of a block (rows, classes)."""

    dtype: Any
    address: int
    stride: int
    class_stride: int


class SegmentLabel(NamedTuple):
    """The label of one row, counted from the segment's first class; it may lie outside the segment."""

    label: int
    on: float
    off: float


class SegmentTargets(NamedTuple):
    """The soft targets of one segment."""

    dtype: Any
    address: int
    class_stride: int


def are_labels(targets: Any) -> bool:
    """Whether the type of some targets is one of labels; else it is one of soft targets."""
    return "on" in targets.fields


@by_type
def targets_of(on, off, array):
    """The targets of a block, from labels (rows,) or soft targets (rows, classes)."""
    if array.ndim == 1:
        return lambda on, off, array: LabelTargets(array.ctypes.data, array.strides[0], on, off)
    return lambda on, off, array: SoftTargets(array.dtype, array.ctypes.data, array.strides[0], array.strides[1])


@by_type
def segment_target(row, begin, targets):
    """The target of the segment of a row that begins at a class."""

    def of_labels(row, begin, targets):
        label = load_int64(targets.address + row * targets.stride)
        return SegmentLabel(label - begin, targets.on, targets.off)

    def of_soft_targets(row, begin, targets):
        address = targets.address + row * targets.stride + begin * targets.class_stride
        return SegmentTargets(targets.dtype, address, targets.class_stride)

    return of_labels if are_labels(targets) else of_soft_targets


@by_type
def target_of(index, target):
    """The target of one class of a segment, float64."""

    def of_label(index, target):
        return (target.on if index == target.label and target.on != 0.0 else 0.0) + target.off

    def of_soft_targets(index, target):
        return np.float64(load_scalar(target.dtype, target.address + index * target.class_stride))

    return of_label if are_labels(target) else of_soft_targets


@by_type
def from_class(index, target):
    """The target of a segment's classes from an index on."""

    def of_label(index, target):
        return SegmentLabel(target.label - index, target.on, target.off)

    def of_soft_targets(index, target):
        return SegmentTargets(target.dtype, target.address + index * target.class_stride, target.class_stride)

    return of_label if are_labels(target) else of_soft_targets


@by_type
def gap_and_mass(x, start, count, peak, target):
    """(target_gap, target_sum) of a segment whose maximum is finite."""

    def of_label(x, start, count, peak, target):
        label, on, off = target
        gap = mass = 0.0
        if 0 <= label < count and on != 0.0:  # subtle: at on = 0 the label's term is dropped, for 0 · inf is NaN
            gap = on * (peak - np.float64(load_scalar(x, start + label * itemsize(x))))
            mass = on
        if off != 0.0:
            gap += off / segments.SHRINK * segments.sum_gaps(x, start, count, peak)
            mass += off * count
        return gap, mass

    def of_soft_targets(x, start, count, peak, target):
        return segments.sum_target_gaps(x, start, count, peak, target.dtype, target.address)

    return of_label if are_labels(target) else of_soft_targets


@by_type
def write_gradient(buffer, address, count, factors, out, out_address, target):
    """Writes the gradient of some classes, but for the label's own, from the exponentials in a buffer."""

    def of_label(buffer, address, count, factors, out, out_address, target):
        if target.off != 0.0:
            segments.write_residual(buffer, address, count, factors, target.off, 0, out, out_address)
        else:
            segments.write_scaled(buffer, address, count, factors.softmax, out, out_address)

    def of_soft_targets(buffer, address, count, factors, out, out_address, target):
        segments.write_residual(buffer, address, count, factors, target.dtype, target.address, out, out_address)

    return of_label if are_labels(target) else of_soft_targets


@by_type
def label_in(count, target):
    """The label's class if it is in the segment and its target differs from the others; else −1."""

    def of_label(count, target):
        return target.label if 0 <= target.label < count and target.on != 0.0 else -1

    return of_label if are_labels(target) else (lambda count, target: -1)
