"""The targets of a vector's rows, one row to a lane: labels, or in memory.

A *target* is (the label of each lane as a number, −1 before the first class or ``classes`` after the last; addresses
of the labels' logits; on, off), or (dtype, whether the rows are neighbours, where their addresses are, bytes from class
to class).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numba.extending import overload

from .grids import DOUBLE, LINE, grid_of, line_up, read, row_address
from .lanes import above, both, choose, equal, fill, reaches
from .memory import element, gather, integer, load, put, put_integer, size, width
from .segments import TARGET_CHUNK
from .targets import by_target, told_labels
from .totals import add_to, nothing, store_total

GAPS, DISTANCES, MASSES, TOTAL, OTHERS, MOMENTS, SCALES = (LINE * number for number in (0, 1, 2, 3, 4, 5, 8))
"""Where in a thread's work the numbers of a vector's rows are, in bytes; MOMENTS are three."""


def rows_told(on, off, array):
    """What a loop is told of labels (rows,) or of soft targets (outer, classes, inner)."""
    raise NotImplementedError("only compiled code calls this")


@overload(rows_told)
def overloaded_rows_told(on, off, array):
    if array.ndim == 1:
        return lambda on, off, array: told_labels(on, off, array)
    return lambda on, off, array: grid_of(array)


@njit
def distances(wide, tile, classes, level):
    """The total of level − x over the tile's logits."""
    total = nothing()
    index = 0
    while index < classes:
        stop = min(classes, index + TARGET_CHUNK)
        lanes = fill(wide, 0.0)
        while index < stop:
            lanes = lanes + (level - load(wide, tile + index * 64))
            index += 1
        total = add_to(total, lanes)
    return total


@njit
def scalar_label(row, told):
    address, stride, on, off = told
    return integer(address + row * stride), on, off


@njit
def scalar_memory(row, told):
    return told[0], row_address(told, row), told[2][1]


target_of_row = by_target(scalar_label, scalar_memory)
"""target_of_row(row, told): the target of one row, as ``unusual`` takes it."""


@njit
def lane_labels(grid, place, wide, row, stop, work, told):
    address, stride, on, off = told
    x, _, strides, classes, _ = grid
    addresses, numbers = work, work + LINE
    for lane in range(width(x)):
        label = integer(address + min(row + lane, stop - 1) * stride)
        inside = 0 <= label < classes
        put_integer(addresses + lane * 8, integer(place + lane * 8) + (label * strides[1] if inside else 0))
        put(wide, numbers + lane * size(wide), np.float64(max(-1, min(label, classes))))
    return load(wide, numbers), addresses, on, off


@njit
def lane_memory(grid, place, wide, row, stop, work, told):
    adjacent = line_up(told, row, stop, work)
    return told[0], adjacent, work, told[2][1]


lane_targets = by_target(lane_labels, lane_memory)
"""lane_targets(grid, place, wide, row, stop, work, told): the targets of a vector's rows, made in memory ``work``."""


@njit
def gaps_of_labels(x, wide, tile, classes, level, gaps, masses, target):
    labels, addresses, on, off = target
    zero = fill(wide, 0.0)
    inside = both(reaches(labels, zero), above(fill(wide, np.float64(classes)), labels))
    # subtle: at on = 0 the label's term is dropped, for 0 · inf is NaN
    gap, mass = nothing(), choose(inside, fill(wide, on), zero)
    if on != 0.0:
        gap = add_to(add_to(gap, choose(inside, level, zero)), choose(inside, zero - gather(x, addresses, 0), zero))
    store_total(gap, wide, gaps)
    store_total(add_to(nothing(), mass), wide, masses)
    if off != 0.0 or on != 1.0:
        store_total(distances(wide, tile, classes, level), wide, gaps + DISTANCES)
        for lane in range(width(wide)):
            at, far = element(DOUBLE, gaps + lane * 8), element(DOUBLE, gaps + DISTANCES + lane * 8)
            there = element(DOUBLE, masses + lane * 8)
            put(DOUBLE, gaps + lane * 8, (on * at if there != 0.0 else 0.0) + (off * far if off != 0.0 else 0.0))
            put(DOUBLE, masses + lane * 8, there + off * classes)


@njit
def gaps_of_memory(x, wide, tile, classes, level, gaps, masses, target):
    targets, adjacent, place, stride = target
    zero = fill(wide, 0.0)
    gap, mass = nothing(), nothing()
    index = 0
    while index < classes:
        stop = min(classes, index + TARGET_CHUNK)
        distance, sums = zero, zero
        while index < stop:
            t = read(targets, adjacent, place, index * stride)
            # subtle: select, never multiply: a −inf logit with target 0 costs nothing, and 0 · inf is NaN
            below = level - load(wide, tile + index * 64)
            distance = distance + choose(equal(t, zero), zero, t * below)
            sums = sums + t
            index += 1
        gap, mass = add_to(gap, distance), add_to(mass, sums)
    store_total(gap, wide, gaps)
    store_total(mass, wide, masses)


gaps_of = by_target(gaps_of_labels, gaps_of_memory)
"""gaps_of(x, wide, tile, classes, level, gaps, masses, target): writes target_gap and target_sum of a vector's rows."""


@njit
def label_target(wide, index, target):
    labels, _, on, off = target
    return choose(equal(labels, fill(wide, np.float64(index))), fill(wide, on + off), fill(wide, off))


@njit
def memory_target(wide, index, target):
    targets, adjacent, place, stride = target
    return read(targets, adjacent, place, index * stride)


target_lanes = by_target(label_target, memory_target)
"""target_lanes(wide, index, target): the targets of one class."""
