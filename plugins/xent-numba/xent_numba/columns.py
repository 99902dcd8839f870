r"""The fold with rows side by side, one to a lane: for few classes, along any axis.

A vector holds the same class of 16 rows (8 of float64), so no sum goes across lanes. The classes of a vector's rows are
brought to a tile in the computing dtype, so memory is read once; the exponentials then replace them there. A row's
numbers are computed by its own lane, class after class, whatever the other lanes hold; the lanes past the last row
repeat it. A row with NaN or an infinite maximum is folded again, class by class.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from .by_type import by_type
from .column_targets import gaps_and_masses, grid_targets_of, lane_targets, row_target
from .exponential import biased_exp, log1p, one_over_bias
from .fields import FIELDS, GAP, MASS, MAX, REST, STATISTICS_FIELDS
from .grids import (
    DOUBLE,
    LINE,
    grid_of,
    lines_ahead,
    load_tile,
    row_address,
    store_row_addresses,
)
from .lanes import DOUBLE as DOUBLE_LANES
from .lanes import count_lanes, equal, fill, fma, larger, logical_and, where
from .memory import (
    itemsize,
    keep_alive,
    load,
    load_scalar,
    prefetch,
    prefetch_to_write,
    store,
    store_scalar,
    width,
)
from .rows import fold_nonfinite, log1p_of
from .segments import CHUNK
from .totals import add_lanes, by_row, rounded_rows, widened_rows, zero_total
from .values import store_values, values_of


class Workspace(NamedTuple):
    """A thread's memory by address, each part on lines of its own."""

    addresses: int  # of a vector's rows
    output: int  # of the output's rows
    scratch: int
    numbers: int  # a line of float64 for each field
    tile: int
    targets: int  # a tile of soft targets


@njit
def workspace_of(memory, classes):
    """The parts of an array of ``workspace_bytes``."""
    start = memory.ctypes.data
    start += -start % 64
    tile = start + (3 + STATISTICS_FIELDS) * LINE
    return Workspace(start, start + LINE, start + 2 * LINE, start + 3 * LINE, tile, tile + classes * 64)


@njit
def workspace_bytes(classes):
    """The size of a workspace, with room to align it."""
    return (3 + STATISTICS_FIELDS) * LINE + 64 + 2 * classes * 64


@njit(forceinline=True)
def largest(wide, tile, classes):
    """The largest logit of each row in the tile, any number for a row with NaN."""
    top = load(wide, tile)
    other = top
    for index in range(classes // 2):
        top = larger(load(wide, tile + 2 * index * 64), top)
        other = larger(load(wide, tile + (2 * index + 1) * 64), other)
    return larger(load(wide, tile + (classes - 1) * 64), larger(other, top))


@njit(forceinline=True)
def rests_of(wide, others, ties):
    """sum_exp_rest of each row, float64, from the biased total of those not at the maximum and how many are at it."""
    sums, counts, unbias = by_row(others, wide), widened_rows(ties), fill(DOUBLE, one_over_bias(wide))
    one = fill(DOUBLE, 1.0)
    return fma(sums[0], unbias, counts[0] - one), fma(sums[1], unbias, counts[1] - one)


@njit(forceinline=True)
def exponentiate_tile(wide, tile, classes, level, ahead, output):
    """Replaces the tile's logits by biased exponentials; returns sum_exp_rest of each row, float64.

    Meanwhile memory is prefetched: the lines ahead, and those of the output unless it is None.
    """
    zero, one = fill(wide, 0.0), fill(wide, 1.0)
    others, ties = zero_total(), zero
    index = 0
    while index < classes:
        stop = min(classes, index + CHUNK)
        lanes = zero
        while index < stop:
            logits = load(wide, tile + index * 64)
            prefetch(ahead.address + index * ahead.step)
            exps = biased_exp(logits - level)
            if output is not None:
                prefetch_to_write(output.address + index * output.step)
                store(wide, tile + index * 64, exps)
            at_maximum = equal(logits, level)
            lanes = lanes + where(at_maximum, zero, exps)
            ties = ties + where(at_maximum, one, zero)
            index += 1
        others = add_lanes(others, lanes)
    return rests_of(wide, others, ties)


class Numbers(NamedTuple):
    """The fold's numbers of a vector's rows."""

    highest: Any  # lanes
    rest: Any  # float64
    gap: Any  # float64
    mass: Any  # float64
    finite: Any  # lanes: 1 where a row has no NaN and a finite maximum, else 0


@njit
def store_numbers(numbers, field, address):
    """Writes one field of the rows' numbers, float64."""
    store(DOUBLE, address + field * LINE, numbers[0])
    store(DOUBLE, address + field * LINE + 64, numbers[1])


@njit
def load_numbers(field, address):
    """One field of the rows' numbers, float64."""
    return load(DOUBLE, address + field * LINE), load(DOUBLE, address + field * LINE + 64)


@njit
def store_fold(numbers, address):
    """Writes the fold's four numbers of a vector's rows."""
    store_numbers(widened_rows(numbers.highest), MAX, address)
    store_numbers(numbers.rest, REST, address)
    store_numbers(numbers.gap, GAP, address)
    store_numbers(numbers.mass, MASS, address)


@njit(forceinline=True)
def all_finite(wide, finite):
    """Whether all rows of a vector are finite."""
    return count_lanes(equal(finite, fill(wide, 1.0))) == width(wide)


@njit(forceinline=True)
def is_finite(wide, level, rest):
    """1 where a row is finite, else 0."""
    is_number = logical_and(equal(level - level, fill(wide, 0.0)), equal(rest, rest))
    return where(is_number, fill(wide, 1.0), fill(wide, 0.0))


@njit(forceinline=True)
def fold_vector(grid, targets, row, stop, work, wide, output):
    """(the fold's numbers of a vector's rows, their targets).

    If there are lines of an output, they are prefetched, and the rows' exponentials replace them in the tile.
    """
    target, ahead = load_vector(grid, targets, row, stop, work, wide)
    highest = largest(wide, work.tile, grid.classes)
    level = level_of(wide, highest)
    gap, mass = gaps_and_masses(wide, work.tile, grid.classes, level, target)
    rest = exponentiate_tile(wide, work.tile, grid.classes, level, ahead, output)
    finite = is_finite(wide, highest, rounded_rows(rest, wide))
    numbers = Numbers(highest, rest, gap, mass, finite)
    if not all_finite(wide, finite):
        store_fold(numbers, work.numbers)
        fold_nonfinite_rows(grid, targets, row, stop, work, wide, finite, FIELDS)
        highest = rounded_rows(load_numbers(MAX, work.numbers), wide)
        rest, gap = load_numbers(REST, work.numbers), load_numbers(GAP, work.numbers)
        numbers = Numbers(highest, rest, gap, load_numbers(MASS, work.numbers), finite)
    return numbers, target


@njit(forceinline=True)
def load_vector(grid, targets, row, stop, work, wide):
    """Brings a vector's rows to the tile; returns (their targets, lines to prefetch)."""
    adjacent = store_row_addresses(grid, row, stop, work.addresses)
    load_tile(grid, adjacent, work.addresses, wide, work.tile)
    target = lane_targets(wide, grid.classes, row, stop, work.scratch, work.targets, targets)
    return target, lines_ahead(grid, adjacent, work.addresses)


@njit(forceinline=True)
def level_of(wide, highest):
    """The maxima, 0 for those that are not finite."""
    zero = fill(wide, 0.0)
    return where(equal(highest - highest, zero), highest, zero)


@njit
def fold_nonfinite_rows(grid, targets, row, stop, work, wide, finite, fields):
    """Writes the numbers of those rows of a vector that are not finite, folded class by class."""
    store(wide, work.scratch, finite)
    for lane in range(width(wide)):
        if load_scalar(wide, work.scratch + lane * itemsize(wide)) == 0:
            index = min(row + lane, stop - 1)
            start, target = row_address(grid, index), row_target(index, targets)
            numbers = fold_nonfinite(grid.dtype, start, grid.class_stride, grid.classes, target)
            for field in range(min(fields, 6)):
                store_scalar(DOUBLE, work.numbers + field * LINE + lane * 8, numbers[field])


@by_type
def losses_of(wide, numbers, scratch):
    """The losses of a vector's rows, as lanes."""

    def of_single(wide, numbers, scratch):
        rest, gap, mass = numbers.rest, numbers.gap, numbers.mass
        low, high = gap[0] + mass[0] * log1p(rest[0]), gap[1] + mass[1] * log1p(rest[1])
        return rounded_rows((low, high), wide)

    def of_double(wide, numbers, scratch):
        store(wide, scratch, numbers.rest[0])
        for lane in range(width(wide)):
            store_scalar(wide, scratch + lane * 8, log1p_of(load_scalar(wide, scratch + lane * 8)))
        return numbers.gap[0] + numbers.mass[0] * load(wide, scratch)

    return of_double if wide.dtype is DOUBLE_LANES.dtype else of_single


def loss(x, array, on, off, first, stop, out):
    """Writes the losses of the rows in [first, stop)."""
    grid, targets, losses = grid_of(x), grid_targets_of(on, off, array), values_of(out)
    memory = np.empty(workspace_bytes(x.shape[1]), np.uint8)
    work, wide = workspace_of(memory, x.shape[1]), out.dtype
    for row in range(first, stop, width(wide)):
        numbers, _ = fold_vector(grid, targets, row, stop, work, wide, None)
        store_values(losses, row, stop, losses_of(wide, numbers, work.scratch), work.scratch)
    keep_alive(memory)


class Fields(NamedTuple):
    """Where the fold's four numbers of all rows are written."""

    highest: Any
    rest: Any
    gap: Any
    mass: Any


@njit
def store_fields(fields, row, stop, numbers, wide, scratch):
    """Writes the fold's four numbers of a vector's rows."""
    store_values(fields.highest, row, stop, numbers.highest, scratch)
    store_values(fields.rest, row, stop, rounded_rows(numbers.rest, wide), scratch)
    store_values(fields.gap, row, stop, rounded_rows(numbers.gap, wide), scratch)
    store_values(fields.mass, row, stop, rounded_rows(numbers.mass, wide), scratch)


def loss_and_partial(x, array, on, off, first, stop, out, highest, rests, gaps, masses):
    """Writes the losses of the rows in [first, stop), as ``loss`` does, and the fold's four numbers of each."""
    grid, targets, losses = grid_of(x), grid_targets_of(on, off, array), values_of(out)
    fields = Fields(values_of(highest), values_of(rests), values_of(gaps), values_of(masses))
    memory = np.empty(workspace_bytes(x.shape[1]), np.uint8)
    work, wide = workspace_of(memory, x.shape[1]), out.dtype
    for row in range(first, stop, width(wide)):
        numbers, _ = fold_vector(grid, targets, row, stop, work, wide, None)
        store_values(losses, row, stop, losses_of(wide, numbers, work.scratch), work.scratch)
        store_fields(fields, row, stop, numbers, wide, work.scratch)
    keep_alive(memory)
