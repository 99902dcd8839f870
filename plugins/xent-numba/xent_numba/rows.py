r"""The fold along contiguous rows, segment by segment.

A row of many classes is cut into segments whose ends depend on the number of classes alone. An *item* is one segment of
one row. A table has the numbers of each item, and they are merged in one order, so the threads that took them make no
difference to a single bit. The numbers of an item are float64:

    MAX, REST, GAP, MASS    the fold's, as in xent.Partial
    SQUARES, SPREAD, RANK   those that ``statistics`` needs as well

An ordinary segment is read once from memory. One with NaN or an infinite maximum is folded again, class by class. A row
whose maximum has more than half of the probability needs its rest summed without the maximum. The row before it is the
guess whether it does; a wrong guess costs a second pass, and changes no bit.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from . import segments
from .exponential import log1p, one_over_bias
from .fields import GAP, MASS, MAX, RANK, REST, SEGMENT, SPREAD, SQUARES
from .memory import itemsize, keep_alive, load, load_scalar, store
from .targets import gap_and_mass, segment_target, target_of, targets_of


class Matrix(NamedTuple):
    """An array (rows, classes) whose classes are contiguous."""

    dtype: Any
    address: int
    stride: int  # bytes from row to row
    classes: int


@njit
def matrix_of(x):
    """An array (rows, classes) as a ``Matrix``."""
    return Matrix(x.dtype, x.ctypes.data, x.strides[0], x.shape[1])


@njit
def parts_of(classes):
    """How many segments a row has."""
    return (classes + SEGMENT - 1) // SEGMENT


@njit
def bounds_of(item, classes):
    """(row, first class, number of classes) of an item."""
    parts = parts_of(classes)
    if parts == 1:  # a division costs as much as the exponentials of thirty classes
        return item, 0, classes
    row, part = item // parts, item % parts
    begin = classes * part // parts // 64 * 64
    end = classes if part + 1 == parts else classes * (part + 1) // parts // 64 * 64
    return row, begin, end - begin


@njit
def address_of(matrix, item):
    """(address, number of classes) of an item."""
    row, begin, count = bounds_of(item, matrix.classes)
    return matrix.address + row * matrix.stride + begin * itemsize(matrix.dtype), count


@njit
def item_target(matrix, targets, item):
    """The target of one item."""
    row, begin, _ = bounds_of(item, matrix.classes)
    return segment_target(row, begin, targets)


@njit
def item_max(matrix, item):
    """The largest logit of an item, float64."""
    start, count = address_of(matrix, item)
    return np.float64(segments.max_of(matrix.dtype, start, count))


@njit
def plus(total, term):
    """A compensated total, (sum, rounding errors), plus one more term."""
    value, error = total
    result = value + term
    rounded = (value - result) + term if abs(value) >= abs(term) else (term - result) + value
    return result, error + (rounded if math.isfinite(rounded) else 0.0)


@njit
def value_of(total):
    """The value of a compensated total."""
    return total[0] + total[1]


@njit
def fold_nonfinite(x, start, stride, count, target):
    """(MAX, REST, GAP, MASS, SQUARES, SPREAD) of classes ``stride`` bytes apart, class by class by the definition.

    This is the way for NaN and infinite maxima.
    """
    peak, first, has_nan = -np.inf, -1, False
    for index in range(count):
        logit = np.float64(load_scalar(x, start + index * stride))
        has_nan |= math.isnan(logit)
        if logit > peak or first < 0:
            peak, first = logit, index
    if has_nan:
        peak = np.nan
    rest, gap, mass, squares, spread = (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)
    for index in range(count):
        logit = np.float64(load_scalar(x, start + index * stride))
        distance = peak - logit
        if not has_nan and (index == first or logit == -np.inf):
            distance = np.inf if logit == -np.inf else 0.0
        exp = math.exp(-distance)
        rest = plus(rest, 0.0 if index == first and not has_nan else exp)
        squares = plus(squares, exp * exp)
        spread = plus(spread, 0.0 if exp == 0.0 else distance * exp)
        t = target_of(index, target)
        gap = plus(gap, 0.0 if t == 0.0 else t * distance)
        mass = plus(mass, t)
    rest_value = -1.0 if peak == -np.inf else value_of(rest)
    return peak, rest_value, value_of(gap), value_of(mass), value_of(squares), value_of(spread)


@njit
def is_confident(x, total):
    """Whether a biased sum of exponentials says that the maximum has more than half of the probability."""
    return total * one_over_bias(x) < 2.0


@njit
def rest_of(x, start, count, peak, total, others, buffer, address):
    """Σ e^(x − peak) without one logit at the maximum, from the sums with and without all logits there."""
    unbias = one_over_bias(x)
    if not is_confident(x, total):
        return total * unbias - 1.0
    if others < 0.0:  # not summed yet
        if buffer is not None:
            others = segments.sum_not_equal(buffer, address, count, 1.0 / unbias)
        else:
            _, others, _ = segments.sum_exp(x, start, count, peak, start, count, True, None, 0)
    ties = np.rint((total - others) * unbias)
    return others * unbias + (ties - 1.0)


@njit
def fold_item(matrix, item, next_item, peak, guess, target, buffer, address):
    """((MAX, REST, GAP, MASS, SQUARES, SPREAD) of one item, the largest logit of the next item, confident or not).

    ``peak`` is the item's largest logit, and ``guess`` whether it is expected to be confident. The exponentials are
    written to ``buffer`` unless it is None. SQUARES and SPREAD are those of a non-finite segment; else SQUARES is −1.
    """
    x = matrix.dtype
    start, count = address_of(matrix, item)
    next_start, next_count = address_of(matrix, next_item)
    level = peak if math.isfinite(peak) else 0.0
    if buffer is not None:
        total, others, next_peak = segments.sum_exp(
            x, start, count, level, next_start, next_count, None, buffer, address
        )
    elif guess:
        total, others, next_peak = segments.sum_exp(x, start, count, level, next_start, next_count, True, None, 0)
    else:
        total, others, next_peak = segments.sum_exp(x, start, count, level, next_start, next_count, None, None, 0)
    if not math.isfinite(peak) or math.isnan(total):
        return fold_nonfinite(x, start, itemsize(x), count, target), np.float64(next_peak), False
    rest = rest_of(x, start, count, peak, total, others, buffer, address)
    gap, mass = gap_and_mass(x, start, count, peak, target)
    return (peak, rest, gap, mass, -1.0, 0.0), np.float64(next_peak), is_confident(x, total)


def fold(x, array, on, off, first, stop, table):
    """Writes the numbers of the items in [first, stop) to a table (FIELDS, items)."""
    matrix, targets = matrix_of(x), targets_of(on, off, array)
    peak, confident = item_max(matrix, first), False
    for item in range(first, stop):
        target, next_item = item_target(matrix, targets, item), min(item + 1, stop - 1)
        numbers, peak, confident = fold_item(matrix, item, next_item, peak, confident, target, None, 0)
        table[MAX, item], table[REST, item], table[GAP, item], table[MASS, item] = numbers[:4]


def fold_with_statistics(x, labels, label_logits, first, stop, table):
    """The same with SQUARES, SPREAD and RANK; ``label_logits`` (rows,) are in the computing dtype."""
    matrix, targets = matrix_of(x), targets_of(1.0, 0.0, labels)
    exps = np.empty(min(SEGMENT, x.shape[1]) + 128, label_logits.dtype)
    buffer, address = exps.dtype, exps.ctypes.data
    peak = item_max(matrix, first)
    for item in range(first, stop):
        start, count = address_of(matrix, item)
        target, next_item = item_target(matrix, targets, item), min(item + 1, stop - 1)
        numbers, next_peak, _ = fold_item(matrix, item, next_item, peak, False, target, buffer, address)
        table[MAX, item], table[REST, item], table[GAP, item], table[MASS, item] = numbers[:4]
        squares, spread = numbers[4], numbers[5]
        if squares == -1.0:
            squares, spread = segments.moments_of(matrix.dtype, start, count, peak, buffer, address)
        table[SQUARES, item], table[SPREAD, item] = squares, spread
        level = label_logits[bounds_of(item, x.shape[1])[0]]
        table[RANK, item] = segments.count_ranked_before(matrix.dtype, start, count, level, target.label)
        peak = next_peak
    keep_alive(exps)


@njit
def gap_to(peak, table, item):
    """How far an item's maximum is below the row's; +inf if the item is all −inf."""
    return np.inf if table[MAX, item] == -np.inf else peak - table[MAX, item]


@njit
def merge(table, begin, parts):
    """(max, rest, gap, mass) of a row, from those of its items: the fold's merge, all at once and compensated."""
    main = begin
    for item in range(begin, begin + parts):
        if table[MAX, item] > table[MAX, main] or math.isnan(table[MAX, item]):
            main = item
    peak, gap, mass = table[MAX, main], 0.0, 0.0
    rest = table[REST, main], 0.0
    for item in range(begin, begin + parts):
        gap += table[GAP, item]
        mass += table[MASS, item]
        if item != main:
            distance = gap_to(peak, table, item)
            rest = plus(rest, (1.0 + table[REST, item]) * math.exp(-distance))
            gap += 0.0 if table[MASS, item] == 0.0 else table[MASS, item] * distance
    return peak, value_of(rest), gap, mass


@njit(inline="always")
def row_numbers(table, row, parts):
    """(max, rest, gap, mass) of a row of one item or several."""
    if parts > 1:
        numbers = merge(table, row * parts, parts)
    else:
        numbers = table[MAX, row], table[REST, row], table[GAP, row], table[MASS, row]
    return numbers


@njit
def log1p_of(rest):
    """log(1 + rest); NaN if every logit is −inf."""
    return math.log1p(rest) if rest >= 0.0 else np.nan


@njit
def write_losses(table, parts, first, stop, out):
    """Writes the losses of the rows in [first, stop), from the numbers of all their items."""
    if parts > 1 or out.itemsize == 8:
        for row in range(first, stop):
            _, rest, gap, mass = row_numbers(table, row, parts)
            out[row] = gap + mass * log1p_of(rest)
        return
    logs = np.zeros(8)
    address = logs.ctypes.data
    for row in range(first, stop, 8):
        few = min(8, stop - row)  # subtle: the last rows take their logarithms as lanes too, for the same bits
        for lane in range(few):
            logs[lane] = table[REST, row + lane]
        store(logs.dtype, address, log1p(load(logs.dtype, address)))
        for lane in range(few):
            out[row + lane] = table[GAP, row + lane] + table[MASS, row + lane] * logs[lane]
    keep_alive(logs)


def finish_loss(table, parts, first, stop, out):
    """``write_losses`` as a loop of its own."""
    write_losses(table, parts, first, stop, out)


def finish_partial(table, parts, first, stop, out):
    """Writes the fold's four numbers of the rows in [first, stop) to a table (FIELDS, rows)."""
    for row in range(first, stop):
        out[MAX, row], out[REST, row], out[GAP, row], out[MASS, row] = row_numbers(table, row, parts)


def finish_statistics(table, parts, first, stop, ranks, squares, spreads):
    """Writes the rank, squares and spread of the rows in [first, stop)."""
    for row in range(first, stop):
        peak, _, _, _ = row_numbers(table, row, parts)
        rank, square, spread = 0, 0.0, 0.0
        for item in range(row * parts, (row + 1) * parts):
            distance = 0.0 if table[MAX, item] == peak else gap_to(peak, table, item)
            shrink = math.exp(-distance)
            rank += np.int64(table[RANK, item])
            square += table[SQUARES, item] * shrink * shrink
            if shrink != 0.0:
                spread += (table[SPREAD, item] + (1.0 + table[REST, item]) * distance) * shrink
        ranks[row], squares[row], spreads[row] = rank, square, spread
