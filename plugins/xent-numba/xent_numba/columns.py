r"""The fold and its gradient with rows side by side, one to a lane: for few classes, along any axis.

A vector holds the same class of 16 rows (8 of float64), so the sums need nothing across lanes. The classes of a
vector's rows are brought to a tile in the computing dtype, so memory is read once; the exponentials take their place
there. A row's numbers are made by its own lane, class after class, whatever the others hold; a row with NaN or an
infinite maximum is taken again by the fold's own text.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .column_targets import (
    MASSES,
    MOMENTS,
    OTHERS,
    SCALES,
    TOTAL,
    gaps_of,
    lane_targets,
    rows_told,
    target_lanes,
    target_of_row,
)
from .exponential import biased_exp, one_over_bias
from .grids import DOUBLE, LINE, bring, grid_of, line_up, row_address, write
from .lanes import above, both, choose, counted, differs, equal, fill, fma, reaches
from .memory import element, keep_alive, load, load_doubles, put, size, store, width
from .rows import FIELDS, GAP, MASS, MAX, RANK, REST, SPREAD, SQUARES, STATISTICS_FIELDS, unusual, write_losses
from .segments import CHUNK, unbiased
from .slopes import write_unusual
from .totals import add_to, nothing, store_total

GROUP = 64  # rows whose numbers are finished together


@njit
def take_exponentials(wide, tile, classes, level):
    """Puts biased exponentials in the place of the tile's logits: (their total, that of those not at the maximum)."""
    zero = fill(wide, 0.0)
    total, rest = nothing(), nothing()
    index = 0
    while index < classes:
        stop = min(classes, index + CHUNK)
        lanes, others = zero, zero
        while index < stop:
            logits = load(wide, tile + index * 64)
            exps = biased_exp(logits - level)
            store(wide, tile + index * 64, exps)
            lanes = lanes + exps
            others = others + choose(differs(logits, level), exps, zero)
            index += 1
        total, rest = add_to(total, lanes), add_to(rest, others)
    return total, rest


@njit
def take_statistics(wide, tile, classes, level, sums, label_logits, labels):
    """The same as ``take_exponentials``, written to ``sums``: their total and that of those not at the maximum, Σ e²,
    Σ (level − x) e, and how many logits come before the label's. Leaves the tile as it is.
    """
    zero, one, far = fill(wide, 0.0), fill(wide, 1.0), fill(wide, 1e4)
    total, rest, squares, spread, rank = nothing(), nothing(), nothing(), nothing(), nothing()
    index = 0
    while index < classes:
        stop = min(classes, index + CHUNK)
        lanes, others, squared, spreads, ranks = zero, zero, zero, zero, zero
        while index < stop:
            logits = load(wide, tile + index * 64)
            below = level - logits
            exps = biased_exp(zero - below)
            lanes = lanes + exps
            others = others + choose(differs(logits, level), exps, zero)
            squared = fma(exps, exps, squared)
            # subtle: 0 · inf is NaN; beyond 1e4 the exponential is 0 in every dtype
            spreads = spreads + choose(above(below, far), zero, below * exps)
            ties = both(equal(logits, label_logits), above(labels, fill(wide, np.float64(index))))
            ranks = ranks + choose(above(logits, label_logits), one, choose(ties, one, zero))
            index += 1
        total, rest, squares = add_to(total, lanes), add_to(rest, others), add_to(squares, squared)
        spread, rank = add_to(spread, spreads), add_to(rank, ranks)
    store_total(total, wide, sums + TOTAL)
    store_total(rest, wide, sums + OTHERS)
    store_total(squares, wide, sums + MOMENTS)
    store_total(spread, wide, sums + MOMENTS + LINE)
    store_total(rank, wide, sums + MOMENTS + 2 * LINE)


@njit
def write_rests(wide, totals, others, rests):
    """Writes sum_exp_rest of a vector's rows from the sums with and without those at the maximum, all float64."""
    for half in range(0, width(wide), 8):
        unbias = fill(DOUBLE, one_over_bias(wide))
        one, rounder = fill(DOUBLE, 1.0), fill(DOUBLE, 1.5 * 2.0**52)
        total = load(DOUBLE, totals + half * 8) * unbias
        other = load(DOUBLE, others + half * 8) * unbias
        ties = ((total - other) + rounder) - rounder
        confident = other + (ties - one)
        store(DOUBLE, rests + half * 8, choose(reaches(total, one + one), total - one, confident))


@njit
def workplace(memory):
    """The addresses of a thread's work, each on a line of its own: of the rows' addresses, of what the targets need, of
    the output's addresses or the labels' logits, of float64 sums, of a vector for marks, and of the tile.
    """
    start = memory.ctypes.data
    start += -start % 64
    sums = start + 4 * LINE
    return start, start + LINE, start + 3 * LINE, sums, sums + 10 * LINE, sums + 11 * LINE


@njit
def bytes_of_work(classes):
    """What ``workplace`` needs."""
    return 15 * LINE + 64 + classes * 64


@njit
def fold_vector(grid, told, row, stop, work, wide, numbers, column):
    """Writes the numbers of a vector's rows to the columns of a table from ``column`` on, and their exponentials to the
    tile; returns (whether the rows are neighbours, their targets, whether all are usual).
    """
    place, told_work, other, sums, marks, tile = work
    x, classes, zero = grid[0], grid[3], fill(wide, 0.0)
    adjacent = line_up(grid, row, stop, place)
    level = bring(grid, adjacent, place, wide, tile)
    finite = equal(level - level, zero)
    level = choose(finite, level, zero)
    target = lane_targets(grid, place, wide, row, stop, told_work, told)
    gaps_of(x, wide, tile, classes, level, sums, sums + MASSES, target)
    at, field = numbers.ctypes.data + column * 8, numbers.strides[0]
    if len(numbers) == STATISTICS_FIELDS:
        take_statistics(wide, tile, classes, level, sums, load(wide, other), load(wide, told_work + LINE))
        unbias = one_over_bias(wide)
        for half in range(0, width(wide), 8):
            for moment, factor in ((0, unbias * unbias), (1, unbias), (2, 1.0)):
                value = load(DOUBLE, sums + MOMENTS + moment * LINE + half * 8) * fill(DOUBLE, factor)
                store(DOUBLE, at + (SQUARES + moment) * field + half * 8, value)
    else:
        total, rest = take_exponentials(wide, tile, classes, level)
        store_total(total, wide, sums + TOTAL)
        store_total(rest, wide, sums + OTHERS)
    write_rests(wide, sums + TOTAL, sums + OTHERS, at + REST * field)
    store_total(add_to(nothing(), level), wide, at + MAX * field)
    is_usual = counted(finite) == width(wide)
    for half in range(0, width(wide), 8):
        store(DOUBLE, at + GAP * field + half * 8, load(DOUBLE, sums + half * 8))
        store(DOUBLE, at + MASS * field + half * 8, load(DOUBLE, sums + MASSES + half * 8))
        total_lanes = load(DOUBLE, sums + TOTAL + half * 8)
        is_usual &= counted(equal(total_lanes, total_lanes)) == 8
    if not is_usual:
        store(wide, marks, choose(finite, zero, fill(wide, 1.0)))
        for lane in range(min(width(wide), stop - row)):
            is_lost = math.isnan(element(DOUBLE, sums + TOTAL + lane * 8))
            if is_lost or element(wide, marks + lane * size(wide)) != 0:
                start = row_address(grid, row + lane)
                found = unusual(x, start, grid[2][1], classes, target_of_row(row + lane, told))
                for number in range(min(len(numbers), 6)):
                    numbers[number, column + lane] = found[number]
    return adjacent, target, is_usual


@njit
def write_vector(grid, told, row, stop, work, wide, numbers, column, scales, adjacent, target, is_usual, out):
    """Writes the gradient of a vector's rows, from their exponentials in the tile and their numbers in the table."""
    _, _, to, sums, _, tile = work
    x, y, classes, count = grid[0], out[0], grid[3], min(width(wide), stop - row)
    for lane in range(width(wide)):
        put(wide, sums + SCALES + lane * size(wide), np.float64(scales[min(row + lane, stop - 1)]))
    at, field = numbers.ctypes.data + column * 8, numbers.strides[0]
    rest, mass = load_doubles(wide, at + REST * field), load_doubles(wide, at + MASS * field)
    zero, one, scale = fill(wide, 0.0), fill(wide, 1.0), load(wide, sums + SCALES)
    share = scale / (one + rest)
    factor, minus_scale, nought = mass * share, zero - scale, equal(scale, zero)
    side_by_side = line_up(out, row, stop, to)
    for index in range(classes):
        t, exps = target_lanes(wide, index, target), unbiased(wide, tile + index * 64)
        residual = fma(exps, factor, minus_scale * t)
        slope = choose(equal(exps, one), ((mass - t) - t * rest) * share, residual)
        write(y, side_by_side, to, index * out[2][1], choose(nought, zero, slope), count)
    if not is_usual:
        for lane in range(count):
            peak, rest_here = numbers[MAX, column + lane], numbers[REST, column + lane]
            whole = peak, rest_here, numbers[MASS, column + lane], np.float64(scales[row + lane])
            if (math.isinf(peak) or math.isnan(rest_here)) and whole[3] != 0.0:
                start, place = row_address(grid, row + lane), row_address(out, row + lane)
                told_here = target_of_row(row + lane, told)
                write_unusual(x, start, grid[2][1], classes, told_here, whole, y, place, out[2][1])


def loss(x, array, on, off, first, stop, out):
    """Writes the losses of the rows in [first, stop)."""
    grid, told = grid_of(x), rows_told(on, off, array)
    memory, numbers = np.empty(bytes_of_work(x.shape[1]), np.uint8), np.empty((FIELDS, GROUP))
    work = workplace(memory)
    for begin in range(first, stop, GROUP):
        end = min(stop, begin + GROUP)
        for row in range(begin, end, width(x.dtype)):
            fold_vector(grid, told, row, end, work, out.dtype, numbers, row - begin)
        write_losses(numbers, 1, 0, end - begin, out[begin:end])
    keep_alive(memory)


def partial(x, array, on, off, first, stop, highest, rests, gaps, masses):
    """Writes the fold's four numbers of the rows in [first, stop)."""
    grid, told = grid_of(x), rows_told(on, off, array)
    memory, numbers = np.empty(bytes_of_work(x.shape[1]), np.uint8), np.empty((FIELDS, GROUP))
    work = workplace(memory)
    for row in range(first, stop, width(x.dtype)):
        fold_vector(grid, told, row, stop, work, rests.dtype, numbers, 0)
        for lane in range(min(width(x.dtype), stop - row)):
            highest[row + lane], rests[row + lane] = numbers[MAX, lane], numbers[REST, lane]
            gaps[row + lane], masses[row + lane] = numbers[GAP, lane], numbers[MASS, lane]
    keep_alive(memory)


def statistics(x, labels, label_logits, first, stop, partials, ranks, squares, spreads):
    """Writes the fold's numbers (4, rows) and what ``statistics`` asks for beside, of the rows in [first, stop)."""
    grid, told = grid_of(x), rows_told(1.0, 0.0, labels)
    memory, numbers = np.empty(bytes_of_work(x.shape[1]), np.uint8), np.empty((STATISTICS_FIELDS, GROUP))
    work = workplace(memory)
    wide = label_logits.dtype
    for row in range(first, stop, width(x.dtype)):
        for lane in range(width(x.dtype)):
            put(wide, work[2] + lane * size(wide), np.float64(label_logits[min(row + lane, stop - 1)]))
        fold_vector(grid, told, row, stop, work, wide, numbers, 0)
        for lane in range(min(width(x.dtype), stop - row)):
            for field in range(FIELDS):
                partials[field, row + lane] = numbers[field, lane]
            ranks[row + lane] = np.int64(numbers[RANK, lane])
            squares[row + lane], spreads[row + lane] = numbers[SQUARES, lane], numbers[SPREAD, lane]
    keep_alive(memory)


def gradient(x, array, on, off, partial, scales, first, stop, out):
    """Writes the gradient of the rows in [first, stop), from (max, sum_exp_rest, target_sum) of each."""
    grid, told, written = grid_of(x), rows_told(on, off, array), grid_of(out)
    highest, rests, masses = partial
    memory, numbers = np.empty(bytes_of_work(x.shape[1]), np.uint8), np.empty((FIELDS, GROUP))
    work, wide, classes = workplace(memory), scales.dtype, x.shape[1]
    for row in range(first, stop, width(x.dtype)):
        is_usual = True
        for lane in range(width(x.dtype)):
            at = min(row + lane, stop - 1)
            numbers[MAX, lane], numbers[REST, lane], numbers[MASS, lane] = highest[at], rests[at], masses[at]
            is_usual &= math.isfinite(highest[at]) and not math.isnan(rests[at])
        level = load_doubles(wide, numbers.ctypes.data + MAX * numbers.strides[0])
        level = choose(equal(level - level, fill(wide, 0.0)), level, fill(wide, 0.0))
        adjacent = line_up(grid, row, stop, work[0])
        bring(grid, adjacent, work[0], wide, work[5])
        target = lane_targets(grid, work[0], wide, row, stop, work[1], told)
        take_exponentials(wide, work[5], classes, level)
        write_vector(grid, told, row, stop, work, wide, numbers, 0, scales, adjacent, target, is_usual, written)
    keep_alive(memory)


def loss_and_gradient(x, array, on, off, scales, first, stop, losses, out):
    """Writes the losses and the gradient of the rows in [first, stop): one read and one write of their size."""
    grid, told, written = grid_of(x), rows_told(on, off, array), grid_of(out)
    memory, numbers = np.empty(bytes_of_work(x.shape[1]), np.uint8), np.empty((FIELDS, GROUP))
    work, wide = workplace(memory), scales.dtype
    for begin in range(first, stop, GROUP):
        end = min(stop, begin + GROUP)
        for row in range(begin, end, width(x.dtype)):
            column = row - begin
            adjacent, target, is_usual = fold_vector(grid, told, row, end, work, wide, numbers, column)
            write_vector(grid, told, row, end, work, wide, numbers, column, scales, adjacent, target, is_usual, written)
        write_losses(numbers, 1, 0, end - begin, losses[begin:end])
    keep_alive(memory)
