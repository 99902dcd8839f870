"""The targets of a vector's rows, one row to a lane: labels, or soft targets in a tile of their own.

The targets of a whole block are ``LabelTargets`` or, if soft, a ``Grid``. Those of a vector's rows are ``LaneLabels``
or ``LaneTargets``. Every function here but ``sum_of_gaps`` has a body for either kind.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from .by_type import by_type
from .grids import grid_of, load_tile, row_address, store_row_addresses
from .lanes import equal, fill, fma, greater, greater_equal, logical_and, where
from .memory import (
    load,
    load_from_tile,
    load_int64,
    load_int64_lanes,
    store,
    store_int64,
    store_to_tile,
    width,
)
from .segments import SHORT_CHUNK, SHRINK, unbiased, without_bias
from .targets import LabelTargets, SegmentLabel, SegmentTargets, are_labels
from .totals import add_lanes, by_row, widened_rows, zero_total


class LaneLabels(NamedTuple):
    """The labels of a vector's rows."""

    labels: Any  # lanes
    classes: Any  # lanes: the labels, 0 for those that are no class
    inside: Any  # lanes: 1 where a label is a class, else 0
    on: float
    off: float


class LaneTargets(NamedTuple):
    """The soft targets of a vector's rows."""

    tile: int


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
def lane_targets(wide, classes, row, stop, scratch, tile, targets):
    """The targets of a vector's rows; soft ones are brought to the tile."""

    def of_labels(wide, classes, row, stop, scratch, tile, targets):
        address = targets.address + row * targets.stride
        if row + width(wide) > stop or targets.stride != 8:
            for lane in range(width(wide)):
                label = load_int64(targets.address + min(row + lane, stop - 1) * targets.stride)
                store_int64(scratch + lane * 8, label)
            address = scratch
        labels, zero = load_int64_lanes(wide, address), fill(wide, 0.0)
        is_class = logical_and(greater_equal(labels, zero), greater(fill(wide, np.float64(classes)), labels))
        inside = where(is_class, fill(wide, 1.0), zero)
        return LaneLabels(labels, where(is_class, labels, zero), inside, targets.on, targets.off)

    def of_soft_targets(wide, classes, row, stop, scratch, tile, targets):
        adjacent = store_row_addresses(targets, row, stop, scratch)
        load_tile(targets, adjacent, scratch, wide, tile)
        return LaneTargets(tile)

    return of_labels if are_labels(targets) else of_soft_targets


@njit
def sum_of_gaps(wide, tile, classes, level):
    """Of each row 2⁻³² Σ (level − x) over the tile's logits, float64."""
    total, shrink = zero_total(), fill(wide, SHRINK)
    index = 0
    while index < classes:
        stop = min(classes, index + SHORT_CHUNK)
        lanes = fill(wide, 0.0)
        while index < stop:
            lanes = lanes + (level - load(wide, tile + index * 64)) * shrink
            index += 1
        total = add_lanes(total, lanes)
    return by_row(total, wide)


@by_type
def gaps_and_masses(wide, tile, classes, level, target):
    """(target_gap, target_sum) of a vector's rows, float64, from the logits in the tile."""

    def of_labels(wide, tile, classes, level, target):
        on, off, zero = target.on, target.off, fill(wide, 0.0)
        is_class = equal(target.inside, fill(wide, 1.0))
        inside, label_logits = widened_rows(target.inside), load_from_tile(tile, target.classes)
        top = widened_rows(where(is_class, level, zero))
        at = widened_rows(where(is_class, label_logits, zero))
        low, high = top[0] - at[0], top[1] - at[1]
        if off == 0.0 and on == 1.0:
            return (low, high), inside
        # subtle: at on = 0 the label's term is dropped, for 0 · inf is NaN
        on_lanes, off_sum = fill(low, on), fill(low, off * classes)
        low, high = (on_lanes * low, on_lanes * high) if on != 0.0 else (fill(low, 0.0), fill(low, 0.0))
        if off != 0.0:
            gaps, factor = sum_of_gaps(wide, tile, classes, level), fill(low, off / SHRINK)
            low, high = low + factor * gaps[0], high + factor * gaps[1]
        return (low, high), (fma(on_lanes, inside[0], off_sum), fma(on_lanes, inside[1], off_sum))

    def of_soft_targets(wide, tile, classes, level, target):
        zero = fill(wide, 0.0)
        gap, mass = zero_total(), zero_total()
        index = 0
        while index < classes:
            stop = min(classes, index + SHORT_CHUNK)
            gap_lanes, mass_lanes = zero, zero
            while index < stop:
                t = load(wide, target.tile + index * 64)
                # subtle: select, never multiply: a −inf logit with target 0 costs nothing, and 0 · inf is NaN
                distance = level - load(wide, tile + index * 64)
                gap_lanes = gap_lanes + where(equal(t, zero), zero, t * distance)
                mass_lanes = mass_lanes + t
                index += 1
            gap, mass = add_lanes(gap, gap_lanes), add_lanes(mass, mass_lanes)
        return by_row(gap, wide), by_row(mass, wide)

    return of_labels if are_labels(target) else of_soft_targets


class LaneFactors(NamedTuple):
    """What turns the exponentials of a vector's rows into their gradients: lanes."""

    softmax: Any  # the gradient is softmax · e − scale · t
    minus_scale: Any
    mass: Any
    rest: Any
    row_scale: Any  # scale / (1 + rest)


@njit(forceinline=True)
def residual_of(exps, t, factors):
    """Entries of the gradient, from their unbiased exponentials and their targets."""
    at_maximum = ((factors.mass - t) - t * factors.rest) * factors.row_scale
    return where(equal(exps, fill(exps, 1.0)), at_maximum, fma(exps, factors.softmax, factors.minus_scale * t))


@by_type
def gradients_to_tile(wide, tile, classes, factors, target):
    """Replaces the exponentials in the tile by the gradients of a vector's rows."""

    def of_labels(wide, tile, classes, factors, target):
        on, off = target.on, target.off
        zero, is_zero = fill(wide, 0.0), equal(factors.minus_scale, fill(wide, 0.0))
        is_class = equal(target.inside, fill(wide, 1.0))
        t = where(is_class, fill(wide, on + off), fill(wide, off))
        at_label = residual_of(without_bias(wide, load_from_tile(tile, target.classes)), t, factors)
        if off == 0.0:
            for index in range(classes):
                store(wide, tile + index * 64, unbiased(wide, tile + index * 64) * factors.softmax)
        else:
            for index in range(classes):
                residual = residual_of(unbiased(wide, tile + index * 64), fill(wide, off), factors)
                store(wide, tile + index * 64, where(is_zero, zero, residual))
        store_to_tile(tile, target.classes, where(is_zero, zero, at_label))

    def of_soft_targets(wide, tile, classes, factors, target):
        zero, is_zero = fill(wide, 0.0), equal(factors.minus_scale, fill(wide, 0.0))
        for index in range(classes):
            t = load(wide, target.tile + index * 64)
            residual = residual_of(unbiased(wide, tile + index * 64), t, factors)
            store(wide, tile + index * 64, where(is_zero, zero, residual))

    return of_labels if are_labels(target) else of_soft_targets
