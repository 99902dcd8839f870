r"""The sums of probabilities that an evaluation asks for: one read of them, and one logarithm of each.

A row's sums do not depend on the others. Along contiguous rows they are taken segment by segment, as in ``rows.py``;
with few classes rows lie side by side, as in ``columns.py``. A row with a NaN or a negative number has an entropy of
NaN, and its other numbers are not looked at.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .column_targets import grid_targets_of
from .columns import largest, load_vector, store_numbers, workspace_bytes, workspace_of
from .exponential import log
from .fields import BEFORE, ENTROPY, PROBABILITY_FIELDS, SQUARED, TOP, TOTAL
from .grids import DOUBLE, LINE, grid_of
from .lanes import equal, fill, fma, greater, greater_equal, larger, last_lanes, logical_and, max_lane, where
from .memory import itemsize, keep_alive, load, load_from_tile, load_scalar, prefetch, width
from .rows import address_of, bounds_of, item_target, matrix_of
from .segments import CHUNK, PREFETCH, count_ranked_before
from .targets import targets_of
from .totals import add_lanes, by_row, reduce_total, widened_rows, zero_total
from .values import store_values, values_of


@njit(forceinline=True)
def term_of(p):
    """p log p of lanes; 0 of 0, NaN of a negative number."""
    zero = fill(p, 0.0)
    return where(greater_equal(p, zero), p * log(p), fill(p, np.nan))


@njit
def sums_of(x, start, count):
    """(Σ p, the largest p, Σ p², Σ p log p) of a segment, in the order of ``segments.sum_exp``."""
    step, zero = width(x) * itemsize(x), fill(x, 0.0)
    end, full = start + count * itemsize(x), start + count // width(x) * step
    total, squares, terms = zero_total(), zero_total(), zero_total()
    top = load(x, start)
    at = start
    while at < full:
        stop = min(full, at + CHUNK * step)
        lanes, squared, logs = zero, zero, zero
        while at < stop:
            p = load(x, at)
            prefetch(at + PREFETCH)
            top = larger(p, top)
            lanes = lanes + p
            squared = fma(p, p, squared)
            logs = logs + term_of(p)
            at += step
        total, squares, terms = add_lanes(total, lanes), add_lanes(squares, squared), add_lanes(terms, logs)
    if at < end:
        p = where(last_lanes(x, (end - at) // itemsize(x)), load(x, end - step), zero)
        top = larger(p, top)
        total, squares, terms = add_lanes(total, p), add_lanes(squares, p * p), add_lanes(terms, term_of(p))
    return reduce_total(total, x), max_lane(top), reduce_total(squares, x), reduce_total(terms, x)


@njit
def label_p_of(matrix, row, label):
    """The probability of a row's label; NaN of a label that is no class."""
    if label < 0 or label >= matrix.classes:
        return np.nan
    return np.float64(load_scalar(matrix.dtype, matrix.address + row * matrix.stride + label * itemsize(matrix.dtype)))


def row_sums(x, labels, first, stop, table, label_p):
    """Writes the numbers of the items in [first, stop) to a table (fields, items), and the labels' p (rows,)."""
    matrix, targets = matrix_of(x), targets_of(1.0, 0.0, labels)
    for item in range(first, stop):
        start, count = address_of(matrix, item)
        total, top, squares, terms = sums_of(matrix.dtype, start, count)
        row, begin, _ = bounds_of(item, matrix.classes)
        label = item_target(matrix, targets, item).label
        level = label_p_of(matrix, row, label + begin)  # read when it is in the cache
        table[TOTAL, item], table[TOP, item], table[SQUARED, item] = total, top, squares
        table[ENTROPY, item], label_p[row] = 0.0 - terms, level
        table[BEFORE, item] = count_ranked_before(matrix.dtype, start, count, level, label)


@njit(forceinline=True)
def sum_tile(wide, tile, classes, label_p, labels, ahead):
    """(Σ p, Σ p², Σ p log p, how many classes rank before the label) of each row of a tile, float64."""
    zero, one = fill(wide, 0.0), fill(wide, 1.0)
    total, squares, terms, rank = zero_total(), zero_total(), zero_total(), zero
    index = 0
    while index < classes:
        stop = min(classes, index + CHUNK)
        lanes, squared, logs = zero, zero, zero
        while index < stop:
            p = load(wide, tile + index * 64)
            prefetch(ahead.address + index * ahead.step)
            lanes = lanes + p
            squared = fma(p, p, squared)
            logs = logs + term_of(p)
            is_before = logical_and(equal(p, label_p), greater(labels, fill(wide, np.float64(index))))
            rank = rank + where(greater(p, label_p), one, where(is_before, one, zero))
            index += 1
        total, squares, terms = add_lanes(total, lanes), add_lanes(squares, squared), add_lanes(terms, logs)
    return by_row(total, wide), by_row(squares, wide), by_row(terms, wide), widened_rows(rank)


def column_sums(x, labels, first, stop, table, label_p):
    """Writes the numbers of the rows in [first, stop) to a table (fields, rows), and the labels' p (rows,)."""
    grid, targets, levels = grid_of(x), grid_targets_of(1.0, 0.0, labels), values_of(label_p)
    memory = np.empty(workspace_bytes(x.shape[1]), np.uint8)
    work, wide, classes = workspace_of(memory, x.shape[1]), label_p.dtype, x.shape[1]
    for row in range(first, stop, width(wide)):
        target, ahead = load_vector(grid, targets, row, stop, work, wide)
        top, level = largest(wide, work.tile, classes), load_from_tile(work.tile, target.classes)
        total, squares, terms, rank = sum_tile(wide, work.tile, classes, level, target.labels, ahead)
        store_values(levels, row, stop, level, work.scratch)
        store_numbers(total, TOTAL, work.numbers)
        store_numbers(widened_rows(top), TOP, work.numbers)
        store_numbers(squares, SQUARED, work.numbers)
        store_numbers(terms, ENTROPY, work.numbers)
        store_numbers(rank, BEFORE, work.numbers)
        for lane in range(min(width(wide), stop - row)):
            at = work.numbers + lane * 8
            for field in range(PROBABILITY_FIELDS):
                table[field, row + lane] = load_scalar(DOUBLE, at + field * LINE)
            table[ENTROPY, row + lane] = 0.0 - table[ENTROPY, row + lane]
    keep_alive(memory)
