"""The targets of a vector's rows, one row to a lane: labels, or soft targets in memory.

The targets of a whole block are ``LabelTargets`` or, if soft, a ``Grid``. Those of a vector's rows are ``LaneLabels``
or ``LaneTargets``. Every function here but ``gap_total`` has a body for either kind.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from .by_type import by_type
from .grids import DOUBLE, LINE, grid_of, load_class, row_address, store_row_addresses
from .lanes import equal, fill, greater, greater_equal, logical_and, where
from .memory import gather, itemsize, load, load_int64, load_scalar, store_int64, store_scalar, width
from .segments import SHRINK, TARGET_CHUNK
from .targets import LabelTargets, SegmentLabel, SegmentTargets, are_labels
from .totals import add_lanes, store_total, zero_total

DISTANCES, MASSES, TOTAL, OTHERS, MOMENTS, SCALES = (LINE * number for number in (1, 2, 3, 4, 5, 8))
"""Where in a thread's sums the numbers of a vector's rows are, in bytes after their gaps; MOMENTS are three."""


class LaneLabels(NamedTuple):
    """The labels of a vector's rows."""

    labels: Any  # lanes; −1 before the first class, the number of classes after the last
    addresses: int  # where the addresses of the labels' logits are
    on: float
    off: float


class LaneTargets(NamedTuple):
    """The soft targets of a vector's rows."""

    dtype: Any
    adjacent: bool
    addresses: int  # where the addresses of the rows are
    class_stride: int


@by_type
def grid_targets_of(on, off, array):
    """The targets of a block, from labels (rows,) or soft targets (outer, classes, inner)."""
    if array.ndim == 1:
        return lambda on, off, array: LabelTargets(array.ctypes.data, array.strides[0], on, off)
    return lambda on, off, array: grid_of(array)


@by_type
def row_target(row, targets):
    """The target of one row, as ``fold_nonfinite`` takes it."""

    def of_labels(row, targets):
        return SegmentLabel(load_int64(targets.address + row * targets.stride), targets.on, targets.off)

    def of_soft_targets(row, targets):
        return SegmentTargets(targets.dtype, row_address(targets, row), targets.class_stride)

    return of_labels if are_labels(targets) else of_soft_targets


@by_type
def lane_targets(grid, addresses, wide, row, stop, work, targets):
    """The targets of a vector's rows; ``work`` is memory for what they point to."""

    def of_labels(grid, addresses, wide, row, stop, work, targets):
        numbers = work + LINE
        for lane in range(width(grid.dtype)):
            label = load_int64(targets.address + min(row + lane, stop - 1) * targets.stride)
            is_inside = 0 <= label < grid.classes
            offset = label * grid.class_stride if is_inside else 0
            store_int64(work + lane * 8, load_int64(addresses + lane * 8) + offset)
            store_scalar(wide, numbers + lane * itemsize(wide), np.float64(max(-1, min(label, grid.classes))))
        return LaneLabels(load(wide, numbers), work, targets.on, targets.off)

    def of_soft_targets(grid, addresses, wide, row, stop, work, targets):
        adjacent = store_row_addresses(targets, row, stop, work)
        return LaneTargets(targets.dtype, adjacent, work, targets.class_stride)

    return of_labels if are_labels(targets) else of_soft_targets


@njit
def gap_total(wide, tile, classes, level):
    """The total of 2⁻³² (level − x) over the tile's logits."""
    total, shrink = zero_total(), fill(wide, SHRINK)
    index = 0
    while index < classes:
        stop = min(classes, index + TARGET_CHUNK)
        lanes = fill(wide, 0.0)
        while index < stop:
            lanes = lanes + (level - load(wide, tile + index * 64)) * shrink
            index += 1
        total = add_lanes(total, lanes)
    return total


@by_type
def store_gaps_and_masses(x, wide, tile, classes, level, gaps, target):
    """Writes target_gap and target_sum of a vector's rows, from the logits in the tile."""

    def of_labels(x, wide, tile, classes, level, gaps, target):
        labels, addresses, on, off = target
        masses, zero = gaps + MASSES, fill(wide, 0.0)
        inside = logical_and(greater_equal(labels, zero), greater(fill(wide, np.float64(classes)), labels))
        # subtle: at on = 0 the label's term is dropped, for 0 · inf is NaN
        gap, mass = zero_total(), where(inside, fill(wide, on), zero)
        if on != 0.0:
            label_logits = gather(x, addresses, 0)
            gap = add_lanes(add_lanes(gap, where(inside, level, zero)), where(inside, zero - label_logits, zero))
        store_total(gap, wide, gaps)
        store_total(add_lanes(zero_total(), mass), wide, masses)
        if off != 0.0 or on != 1.0:
            store_total(gap_total(wide, tile, classes, level), wide, gaps + DISTANCES)
            for lane in range(width(wide)):
                label_gap = load_scalar(DOUBLE, gaps + lane * 8)
                all_gaps = load_scalar(DOUBLE, gaps + DISTANCES + lane * 8)
                label_mass = load_scalar(DOUBLE, masses + lane * 8)
                label_part = on * label_gap if label_mass != 0.0 else 0.0
                store_scalar(DOUBLE, gaps + lane * 8, label_part + (off / SHRINK * all_gaps if off != 0.0 else 0.0))
                store_scalar(DOUBLE, masses + lane * 8, label_mass + off * classes)

    def of_soft_targets(x, wide, tile, classes, level, gaps, target):
        zero = fill(wide, 0.0)
        gap, mass = zero_total(), zero_total()
        index = 0
        while index < classes:
            stop = min(classes, index + TARGET_CHUNK)
            gap_lanes, mass_lanes = zero, zero
            while index < stop:
                t = load_class(target.dtype, target.adjacent, target.addresses, index * target.class_stride)
                # subtle: select, never multiply: a −inf logit with target 0 costs nothing, and 0 · inf is NaN
                distance = level - load(wide, tile + index * 64)
                gap_lanes = gap_lanes + where(equal(t, zero), zero, t * distance)
                mass_lanes = mass_lanes + t
                index += 1
            gap, mass = add_lanes(gap, gap_lanes), add_lanes(mass, mass_lanes)
        store_total(gap, wide, gaps)
        store_total(mass, wide, gaps + MASSES)

    return of_labels if are_labels(target) else of_soft_targets


@by_type
def class_targets(wide, index, target):
    """The targets of one class, as lanes."""

    def of_labels(wide, index, target):
        is_label = equal(target.labels, fill(wide, np.float64(index)))
        return where(is_label, fill(wide, target.on + target.off), fill(wide, target.off))

    def of_soft_targets(wide, index, target):
        return load_class(target.dtype, target.adjacent, target.addresses, index * target.class_stride)

    return of_labels if are_labels(target) else of_soft_targets
