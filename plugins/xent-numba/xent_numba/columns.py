r"""The fold and its gradient with rows side by side, one to a lane: for few classes, along any axis.

A vector holds the same class of 16 rows (8 of float64), so no sum goes across lanes. The classes of a vector's rows are
copied to a tile in the computing dtype, so memory is read once; the exponentials then replace them there. A row's
numbers are computed by its own lane, class after class, whatever the other lanes hold. A row with NaN or an infinite
maximum is folded again, class by class.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from .column_targets import (
    MASSES,
    MOMENTS,
    OTHERS,
    SCALES,
    TOTAL,
    class_targets,
    grid_targets_of,
    lane_targets,
    row_target,
    store_gaps_and_masses,
)
from .exponential import biased_exp, one_over_bias
from .grids import DOUBLE, LINE, grid_of, load_tile, row_address, store_class, store_row_addresses
from .lanes import count_lanes, equal, fill, fma, greater, greater_equal, logical_and, not_equal, where
from .memory import itemsize, keep_alive, load, load_float64, load_scalar, store, store_scalar, width
from .row_gradients import Row, write_nonfinite
from .rows import FIELDS, GAP, MASS, MAX, RANK, REST, SPREAD, SQUARES, STATISTICS_FIELDS, fold_nonfinite, write_losses
from .segments import CHUNK, unbiased
from .totals import add_lanes, store_total, zero_total

GROUP = 64  # rows whose numbers are finished together


@njit
def exponentiate_tile(wide, tile, classes, level):
    """Replaces the tile's logits by biased exponentials; returns their total, and that of those not at the maximum."""
    zero = fill(wide, 0.0)
    total, rest = zero_total(), zero_total()
    index = 0
    while index < classes:
        stop = min(classes, index + CHUNK)
        lanes, others = zero, zero
        while index < stop:
            logits = load(wide, tile + index * 64)
            exps = biased_exp(logits - level)
            store(wide, tile + index * 64, exps)
            lanes = lanes + exps
            others = others + where(not_equal(logits, level), exps, zero)
            index += 1
        total, rest = add_lanes(total, lanes), add_lanes(rest, others)
    return total, rest


@njit
def store_statistics(wide, tile, classes, level, sums, label_logits, labels):
    """Writes the totals of ``exponentiate_tile``, Σ e², Σ (level − x) e, and how many logits rank before the label's.

    The tile stays as it is.
    """
    zero, one, far = fill(wide, 0.0), fill(wide, 1.0), fill(wide, 1e4)
    total, rest, squares, spread, rank = zero_total(), zero_total(), zero_total(), zero_total(), zero_total()
    index = 0
    while index < classes:
        stop = min(classes, index + CHUNK)
        lanes, others, squared, spreads, ranks = zero, zero, zero, zero, zero
        while index < stop:
            logits = load(wide, tile + index * 64)
            gap = level - logits
            exps = biased_exp(zero - gap)
            lanes = lanes + exps
            others = others + where(not_equal(logits, level), exps, zero)
            squared = fma(exps, exps, squared)
            # subtle: 0 · inf is NaN; beyond 1e4 the exponential is 0 in every dtype
            spreads = spreads + where(greater(gap, far), zero, gap * exps)
            ties = logical_and(equal(logits, label_logits), greater(labels, fill(wide, np.float64(index))))
            ranks = ranks + where(greater(logits, label_logits), one, where(ties, one, zero))
            index += 1
        total, rest, squares = add_lanes(total, lanes), add_lanes(rest, others), add_lanes(squares, squared)
        spread, rank = add_lanes(spread, spreads), add_lanes(rank, ranks)
    store_total(total, wide, sums + TOTAL)
    store_total(rest, wide, sums + OTHERS)
    store_total(squares, wide, sums + MOMENTS)
    store_total(spread, wide, sums + MOMENTS + LINE)
    store_total(rank, wide, sums + MOMENTS + 2 * LINE)


@njit
def store_rests(wide, totals, others, rests):
    """Writes sum_exp_rest of a vector's rows from the sums with and without those at the maximum, all float64."""
    for half in range(0, width(wide), 8):
        unbias = fill(DOUBLE, one_over_bias(wide))
        one, rounder = fill(DOUBLE, 1.0), fill(DOUBLE, 1.5 * 2.0**52)
        total = load(DOUBLE, totals + half * 8) * unbias
        other = load(DOUBLE, others + half * 8) * unbias
        ties = ((total - other) + rounder) - rounder
        confident = other + (ties - one)
        store(DOUBLE, rests + half * 8, where(greater_equal(total, one + one), total - one, confident))


class Workspace(NamedTuple):
    """A thread's memory by address, each part on a line of its own."""

    addresses: int  # of a vector's rows
    targets: int  # what their targets point to
    extra: int  # addresses of the output's rows, or the labels' logits
    sums: int  # float64
    flags: int  # a vector
    tile: int


@njit
def workspace_of(memory):
    """The parts of an array of ``workspace_bytes``."""
    start = memory.ctypes.data
    start += -start % 64
    sums = start + 4 * LINE
    return Workspace(start, start + LINE, start + 3 * LINE, sums, sums + 10 * LINE, sums + 11 * LINE)


@njit
def workspace_bytes(classes):
    """The size of a workspace, with room to align it."""
    return 15 * LINE + 64 + classes * 64


@njit
def fold_vector(grid, targets, row, stop, work, wide, table, column):
    """Folds a vector's rows: writes their numbers to a table from ``column`` on, and their exponentials to the tile.

    Returns their targets, and whether all rows are finite.
    """
    x, classes, sums, zero = grid.dtype, grid.classes, work.sums, fill(wide, 0.0)
    adjacent = store_row_addresses(grid, row, stop, work.addresses)
    level = load_tile(grid, adjacent, work.addresses, wide, work.tile)
    finite = equal(level - level, zero)
    level = where(finite, level, zero)
    target = lane_targets(grid, work.addresses, wide, row, stop, work.targets, targets)
    store_gaps_and_masses(x, wide, work.tile, classes, level, sums, target)
    at, field = table.ctypes.data + column * 8, table.strides[0]
    if len(table) == STATISTICS_FIELDS:
        label_logits, labels = load(wide, work.extra), load(wide, work.targets + LINE)
        store_statistics(wide, work.tile, classes, level, sums, label_logits, labels)
        unbias = one_over_bias(wide)
        for half in range(0, width(wide), 8):
            for moment, factor in ((0, unbias * unbias), (1, unbias), (2, 1.0)):
                value = load(DOUBLE, sums + MOMENTS + moment * LINE + half * 8) * fill(DOUBLE, factor)
                store(DOUBLE, at + (SQUARES + moment) * field + half * 8, value)
    else:
        total, rest = exponentiate_tile(wide, work.tile, classes, level)
        store_total(total, wide, sums + TOTAL)
        store_total(rest, wide, sums + OTHERS)
    store_rests(wide, sums + TOTAL, sums + OTHERS, at + REST * field)
    store_total(add_lanes(zero_total(), level), wide, at + MAX * field)
    all_finite = count_lanes(finite) == width(wide)
    for half in range(0, width(wide), 8):
        store(DOUBLE, at + GAP * field + half * 8, load(DOUBLE, sums + half * 8))
        store(DOUBLE, at + MASS * field + half * 8, load(DOUBLE, sums + MASSES + half * 8))
        total_lanes = load(DOUBLE, sums + TOTAL + half * 8)
        all_finite &= count_lanes(equal(total_lanes, total_lanes)) == 8
    if not all_finite:
        store(wide, work.flags, where(finite, zero, fill(wide, 1.0)))
        for lane in range(min(width(wide), stop - row)):
            has_nan = math.isnan(load_scalar(DOUBLE, sums + TOTAL + lane * 8))
            if has_nan or load_scalar(wide, work.flags + lane * itemsize(wide)) != 0:
                start = row_address(grid, row + lane)
                numbers = fold_nonfinite(x, start, grid.class_stride, classes, row_target(row + lane, targets))
                for number in range(min(len(table), 6)):
                    table[number, column + lane] = numbers[number]
    return target, all_finite


@njit
def is_nonfinite(table, column):
    """Whether the row in a column of the table has no softmax, or an infinite maximum."""
    return math.isinf(table[MAX, column]) or math.isnan(table[REST, column])


@njit
def keep_nonfinite(grid, targets, row, count, tile, wide, table, column, scales):
    """Writes the gradient of a vector's rows that are not finite to their lanes of the tile."""
    for lane in range(count):
        if is_nonfinite(table, column + lane):
            index, at = row + lane, column + lane
            numbers = Row(table[MAX, at], table[REST, at], table[MASS, at], np.float64(scales[index]))
            start, kept = row_address(grid, index), tile + lane * itemsize(wide)
            row_targets = row_target(index, targets)
            write_nonfinite(grid.dtype, start, grid.class_stride, grid.classes, row_targets, numbers, wide, kept, 64)


@njit
def write_vector(grid, targets, row, stop, work, wide, table, column, scales, target, all_finite, output):
    """Writes the gradient of a vector's rows, from their exponentials in the tile and their numbers in the table."""
    out, classes, sums, count = output.dtype, grid.classes, work.sums, min(width(wide), stop - row)
    for lane in range(width(wide)):
        store_scalar(wide, sums + SCALES + lane * itemsize(wide), np.float64(scales[min(row + lane, stop - 1)]))
    at, field = table.ctypes.data + column * 8, table.strides[0]
    rest, mass = load_float64(wide, at + REST * field), load_float64(wide, at + MASS * field)
    zero, one, scale = fill(wide, 0.0), fill(wide, 1.0), load(wide, sums + SCALES)
    row_scale = scale / (one + rest)
    softmax, minus_scale, is_zero = mass * row_scale, zero - scale, equal(scale, zero)
    adjacent = store_row_addresses(output, row, stop, work.extra)
    if not all_finite:  # the logits are read again before the first write: the output may be the same memory
        keep_nonfinite(grid, targets, row, count, work.tile, wide, table, column, scales)
    for index in range(classes):
        t, exps = class_targets(wide, index, target), unbiased(wide, work.tile + index * 64)
        residual = fma(exps, softmax, minus_scale * t)
        value = where(equal(exps, one), ((mass - t) - t * rest) * row_scale, residual)
        store_class(out, adjacent, work.extra, index * output.class_stride, where(is_zero, zero, value), count)
    if not all_finite:
        for lane in range(count):
            if is_nonfinite(table, column + lane) and np.float64(scales[row + lane]) != 0.0:
                address, kept = row_address(output, row + lane), work.tile + lane * itemsize(wide)
                for index in range(classes):
                    value = np.float64(load_scalar(wide, kept + index * 64))
                    store_scalar(out, address + index * output.class_stride, value)


def loss(x, array, on, off, first, stop, out):
    """Writes the losses of the rows in [first, stop)."""
    grid, targets = grid_of(x), grid_targets_of(on, off, array)
    memory, table = np.empty(workspace_bytes(x.shape[1]), np.uint8), np.empty((FIELDS, GROUP))
    work = workspace_of(memory)
    for begin in range(first, stop, GROUP):
        end = min(stop, begin + GROUP)
        for row in range(begin, end, width(x.dtype)):
            fold_vector(grid, targets, row, end, work, out.dtype, table, row - begin)
        write_losses(table, 1, 0, end - begin, out[begin:end])
    keep_alive(memory)


def partial(x, array, on, off, first, stop, highest, rests, gaps, masses):
    """Writes the fold's four numbers of the rows in [first, stop)."""
    grid, targets = grid_of(x), grid_targets_of(on, off, array)
    memory, table = np.empty(workspace_bytes(x.shape[1]), np.uint8), np.empty((FIELDS, GROUP))
    work = workspace_of(memory)
    for row in range(first, stop, width(x.dtype)):
        fold_vector(grid, targets, row, stop, work, rests.dtype, table, 0)
        for lane in range(min(width(x.dtype), stop - row)):
            highest[row + lane], rests[row + lane] = table[MAX, lane], table[REST, lane]
            gaps[row + lane], masses[row + lane] = table[GAP, lane], table[MASS, lane]
    keep_alive(memory)


def loss_and_partial(x, array, on, off, first, stop, out, highest, rests, gaps, masses):
    """Writes the losses of the rows in [first, stop), as ``loss`` does, and their numbers, as ``partial`` does."""
    grid, targets = grid_of(x), grid_targets_of(on, off, array)
    memory, table = np.empty(workspace_bytes(x.shape[1]), np.uint8), np.empty((FIELDS, GROUP))
    work = workspace_of(memory)
    for begin in range(first, stop, GROUP):
        end = min(stop, begin + GROUP)
        for row in range(begin, end, width(x.dtype)):
            fold_vector(grid, targets, row, end, work, out.dtype, table, row - begin)
        write_losses(table, 1, 0, end - begin, out[begin:end])
        for row in range(begin, end):
            column = row - begin
            highest[row], rests[row] = table[MAX, column], table[REST, column]
            gaps[row], masses[row] = table[GAP, column], table[MASS, column]
    keep_alive(memory)


def statistics(x, labels, label_logits, first, stop, partials, ranks, squares, spreads):
    """Writes the fold's numbers (4, rows), rank, squares and spread of the rows in [first, stop)."""
    grid, targets = grid_of(x), grid_targets_of(1.0, 0.0, labels)
    memory, table = np.empty(workspace_bytes(x.shape[1]), np.uint8), np.empty((STATISTICS_FIELDS, GROUP))
    work, wide = workspace_of(memory), label_logits.dtype
    for row in range(first, stop, width(x.dtype)):
        for lane in range(width(x.dtype)):
            label_logit = np.float64(label_logits[min(row + lane, stop - 1)])
            store_scalar(wide, work.extra + lane * itemsize(wide), label_logit)
        fold_vector(grid, targets, row, stop, work, wide, table, 0)
        for lane in range(min(width(x.dtype), stop - row)):
            for field in range(FIELDS):
                partials[field, row + lane] = table[field, lane]
            ranks[row + lane] = np.int64(table[RANK, lane])
            squares[row + lane], spreads[row + lane] = table[SQUARES, lane], table[SPREAD, lane]
    keep_alive(memory)


def gradient(x, array, on, off, partial, scales, first, stop, out):
    """Writes the gradient of the rows in [first, stop), from (max, sum_exp_rest, target_sum) of each."""
    grid, targets, output = grid_of(x), grid_targets_of(on, off, array), grid_of(out)
    highest, rests, masses = partial
    memory, table = np.empty(workspace_bytes(x.shape[1]), np.uint8), np.empty((FIELDS, GROUP))
    work, wide, classes = workspace_of(memory), scales.dtype, x.shape[1]
    for row in range(first, stop, width(x.dtype)):
        all_finite = True
        for lane in range(width(x.dtype)):
            at = min(row + lane, stop - 1)
            table[MAX, lane], table[REST, lane], table[MASS, lane] = highest[at], rests[at], masses[at]
            all_finite &= math.isfinite(highest[at]) and not math.isnan(rests[at])
        level = load_float64(wide, table.ctypes.data + MAX * table.strides[0])
        level = where(equal(level - level, fill(wide, 0.0)), level, fill(wide, 0.0))
        adjacent = store_row_addresses(grid, row, stop, work.addresses)
        load_tile(grid, adjacent, work.addresses, wide, work.tile)
        target = lane_targets(grid, work.addresses, wide, row, stop, work.targets, targets)
        exponentiate_tile(wide, work.tile, classes, level)
        write_vector(grid, targets, row, stop, work, wide, table, 0, scales, target, all_finite, output)
    keep_alive(memory)


def loss_and_gradient(x, array, on, off, scales, first, stop, losses, out):
    """Writes the losses and the gradient of the rows in [first, stop): one read and one write of their size."""
    grid, targets, output = grid_of(x), grid_targets_of(on, off, array), grid_of(out)
    memory, table = np.empty(workspace_bytes(x.shape[1]), np.uint8), np.empty((FIELDS, GROUP))
    work, wide = workspace_of(memory), scales.dtype
    for begin in range(first, stop, GROUP):
        end = min(stop, begin + GROUP)
        for row in range(begin, end, width(x.dtype)):
            column = row - begin
            target, all_finite = fold_vector(grid, targets, row, end, work, wide, table, column)
            write_vector(grid, targets, row, end, work, wide, table, column, scales, target, all_finite, output)
        write_losses(table, 1, 0, end - begin, losses[begin:end])
    keep_alive(memory)
