r"""The fold along contiguous rows, segment by segment.

A row of many classes is cut into segments whose ends depend on the number of classes alone, and an *item* is one
segment of one row. Each item's numbers stand in a table, and are put together in one order; so it makes no difference
to a single bit which thread took which item, or whether a thread had all of a row. The numbers of an item are float64:

    MAX, REST, GAP, MASS    the fold's, as xent.Partial has them
    SQUARES, SPREAD, RANK   what ``statistics`` asks for beside

The ordinary segment is read once from memory. One that holds NaN or an infinite maximum is taken again, class by class.
A row whose maximum has more than half of the probability needs its rest summed apart; the row before it tells whether
to expect that, and it is seen to afterwards where the guess was wrong: which changes no bit.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from . import segments
from .exponential import log1p, one_over_bias
from .memory import element, keep_alive, load, size, store
from .targets import gap_of, target_at, target_of, told_of

MAX, REST, GAP, MASS, SQUARES, SPREAD, RANK = range(7)
FIELDS, STATISTICS_FIELDS = 4, 7
SEGMENT = 1 << 15


@njit
def parts_of(classes):
    """How many segments a row has."""
    return (classes + SEGMENT - 1) // SEGMENT


@njit
def block_of(x):
    """An array (rows, classes) as the loops take it: (dtype, address, bytes from row to row, classes)."""
    return x.dtype, x.ctypes.data, x.strides[0], x.shape[1]


@njit
def bounds_of(item, classes):
    """(row, first class, classes) of an item."""
    parts = parts_of(classes)
    if parts == 1:  # a division costs as much as the exponentials of thirty classes
        return item, 0, classes
    row, part = item // parts, item % parts
    begin = classes * part // parts // 64 * 64
    end = classes if part + 1 == parts else classes * (part + 1) // parts // 64 * 64
    return row, begin, end - begin


@njit
def place_of(block, item):
    """(address, classes) of an item."""
    x, address, stride, classes = block
    row, begin, count = bounds_of(item, classes)
    return address + row * stride + begin * size(x), count


@njit
def target_of_item(block, told, item):
    """The target of one item."""
    row, begin, _ = bounds_of(item, block[3])
    return target_at(row, begin, told)


@njit
def first_peak(block, item):
    """The largest logit of an item, float64."""
    start, count = place_of(block, item)
    return np.float64(segments.peak_of(block[0], start, count))


@njit
def plus(total, term):
    """A compensated total, (sum, what was rounded off), and one more term."""
    value, lost = total
    found = value + term
    rounded = (value - found) + term if abs(value) >= abs(term) else (term - found) + value
    return found, lost + (rounded if math.isfinite(rounded) else 0.0)


@njit
def added(total):
    """The number that a compensated total stands for."""
    return total[0] + total[1]


@njit
def unusual(x, start, stride, count, target):
    """(MAX, REST, GAP, MASS, SQUARES, SPREAD) of classes ``stride`` bytes apart by the fold's own text, class by class:
    for NaN and infinite maxima.
    """
    peak, first, lost = -np.inf, -1, False
    for index in range(count):
        logit = np.float64(element(x, start + index * stride))
        lost |= math.isnan(logit)
        if logit > peak or first < 0:
            peak, first = logit, index
    if lost:
        peak = np.nan
    rest, gap, mass, squares, spread = (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)
    for index in range(count):
        logit = np.float64(element(x, start + index * stride))
        below = peak - logit
        if not lost and (index == first or logit == -np.inf):
            below = np.inf if logit == -np.inf else 0.0
        exp = math.exp(-below)
        rest = plus(rest, 0.0 if index == first and not lost else exp)
        squares = plus(squares, exp * exp)
        spread = plus(spread, 0.0 if exp == 0.0 else below * exp)
        t = target_of(index, target)
        gap = plus(gap, 0.0 if t == 0.0 else t * below)
        mass = plus(mass, t)
    sums = -1.0 if peak == -np.inf else added(rest), added(gap), added(mass), added(squares), added(spread)
    return peak, sums[0], sums[1], sums[2], sums[3], sums[4]


@njit
def is_confident(x, total):
    """Whether a biased sum of exponentials says that the maximum has more than half of the probability."""
    return total * one_over_bias(x) < 2.0


@njit
def rest_of(x, start, count, peak, total, others, kept, place):
    """Σ e^(x − peak) but for one logit at the maximum, from the sums with and without all of those."""
    unbias = one_over_bias(x)
    if not is_confident(x, total):
        return total * unbias - 1.0
    if others < 0.0:  # not taken yet
        if kept is not None:
            others = segments.sum_unlike(kept, place, count, 1.0 / unbias)
        else:
            _, others, _ = segments.sum_exp(x, start, count, peak, start, count, True, None, 0)
    ties = np.rint((total - others) * unbias)
    return others * unbias + (ties - 1.0)


@njit
def fold_item(block, item, ahead, peak, careful, target, kept, place):
    """((MAX, REST, GAP, MASS, SQUARES, SPREAD) of one item, the largest logit of the item ahead, confident or not).

    ``peak`` is the item's largest logit, ``careful`` the guess that it will be confident, and ``kept`` receives the
    exponentials where it is not None. SQUARES and SPREAD are there only for an unusual segment, else SQUARES is −1.
    """
    x = block[0]
    start, count = place_of(block, item)
    look, look_count = place_of(block, ahead)
    level = peak if math.isfinite(peak) else 0.0
    if kept is not None:
        total, others, next_peak = segments.sum_exp(x, start, count, level, look, look_count, None, kept, place)
    elif careful:
        total, others, next_peak = segments.sum_exp(x, start, count, level, look, look_count, True, None, 0)
    else:
        total, others, next_peak = segments.sum_exp(x, start, count, level, look, look_count, None, None, 0)
    if not math.isfinite(peak) or math.isnan(total):
        return unusual(x, start, size(x), count, target), np.float64(next_peak), False
    rest = rest_of(x, start, count, peak, total, others, kept, place)
    gap, mass = gap_of(x, start, count, peak, target)
    return (peak, rest, gap, mass, -1.0, 0.0), np.float64(next_peak), is_confident(x, total)


def fold(x, array, on, off, first, stop, numbers):
    """Writes the numbers of the items in [first, stop): ``numbers`` is (FIELDS, items)."""
    block, told = block_of(x), told_of(on, off, array)
    peak, careful = first_peak(block, first), False
    for item in range(first, stop):
        target, ahead = target_of_item(block, told, item), min(item + 1, stop - 1)
        found, peak, careful = fold_item(block, item, ahead, peak, careful, target, None, 0)
        numbers[MAX, item], numbers[REST, item], numbers[GAP, item], numbers[MASS, item] = found[:4]


def fold_with_statistics(x, labels, label_logits, first, stop, numbers):
    """The same with SQUARES, SPREAD and RANK; ``label_logits`` (rows,) are in the computing dtype."""
    block, told = block_of(x), told_of(1.0, 0.0, labels)
    kept = np.empty(min(SEGMENT, x.shape[1]) + 128, label_logits.dtype)
    wide, place = kept.dtype, kept.ctypes.data
    peak = first_peak(block, first)
    for item in range(first, stop):
        start, count = place_of(block, item)
        target, ahead = target_of_item(block, told, item), min(item + 1, stop - 1)
        found, next_peak, _ = fold_item(block, item, ahead, peak, False, target, wide, place)
        numbers[MAX, item], numbers[REST, item], numbers[GAP, item], numbers[MASS, item] = found[:4]
        squares, spread = found[4], found[5]
        if squares == -1.0:
            squares, spread = segments.moments_of(block[0], start, count, peak, wide, place)
        numbers[SQUARES, item], numbers[SPREAD, item] = squares, spread
        level = label_logits[bounds_of(item, x.shape[1])[0]]
        numbers[RANK, item] = segments.count_before(block[0], start, count, level, target[0])
        peak = next_peak
    keep_alive(kept)


@njit
def step_under(numbers, item, peak):
    """How far an item's maximum lies under the row's; +inf where the item is all −inf."""
    return np.inf if numbers[MAX, item] == -np.inf else peak - numbers[MAX, item]


@njit
def merge(numbers, begin, parts):
    """(max, rest, gap, mass) of a row, from those of its items: the fold's merge, all at once and compensated."""
    main = begin
    for item in range(begin, begin + parts):
        if numbers[MAX, item] > numbers[MAX, main] or math.isnan(numbers[MAX, item]):
            main = item
    peak, gap, mass = numbers[MAX, main], 0.0, 0.0
    rest = numbers[REST, main], 0.0
    for item in range(begin, begin + parts):
        gap += numbers[GAP, item]
        mass += numbers[MASS, item]
        if item != main:
            step = step_under(numbers, item, peak)
            rest = plus(rest, (1.0 + numbers[REST, item]) * math.exp(-step))
            gap += 0.0 if numbers[MASS, item] == 0.0 else numbers[MASS, item] * step
    return peak, added(rest), gap, mass


@njit(inline="always")
def merged(numbers, row, parts):
    """The same; what stands in the table where a row is one item."""
    if parts > 1:
        whole = merge(numbers, row * parts, parts)
    else:
        whole = numbers[MAX, row], numbers[REST, row], numbers[GAP, row], numbers[MASS, row]
    return whole


@njit
def log1p_of(rest):
    """log(1 + r); NaN where nothing but −inf was seen."""
    return math.log1p(rest) if rest >= 0.0 else np.nan


@njit
def write_losses(numbers, parts, first, stop, out):
    """Writes the losses of the rows in [first, stop) of a table, from the numbers of all their items, to ``out``."""
    if parts > 1 or out.itemsize == 8:
        for row in range(first, stop):
            _, rest, gap, mass = merged(numbers, row, parts)
            out[row] = gap + mass * log1p_of(rest)
        return
    logs = np.zeros(8)
    place = logs.ctypes.data
    for row in range(first, stop, 8):
        few = min(8, stop - row)  # subtle: the last rows too take their logarithms as lanes, or their bits would tell
        for lane in range(few):
            logs[lane] = numbers[REST, row + lane]
        store(logs.dtype, place, log1p(load(logs.dtype, place)))
        for lane in range(few):
            out[row + lane] = numbers[GAP, row + lane] + numbers[MASS, row + lane] * logs[lane]
    keep_alive(logs)


def finish_loss(numbers, parts, first, stop, out):
    """Writes the losses of the rows in [first, stop), from the numbers of all their items."""
    write_losses(numbers, parts, first, stop, out)


def finish_partial(numbers, parts, first, stop, whole):
    """Writes the fold's four numbers of the rows in [first, stop) to a table of one column a row."""
    for row in range(first, stop):
        whole[MAX, row], whole[REST, row], whole[GAP, row], whole[MASS, row] = merged(numbers, row, parts)


def finish_statistics(numbers, parts, first, stop, ranks, squares, spreads):
    """Writes what ``statistics`` asks for beside the fold's numbers."""
    for row in range(first, stop):
        peak, _, _, _ = merged(numbers, row, parts)
        rank, square, spread = 0, 0.0, 0.0
        for item in range(row * parts, (row + 1) * parts):
            step = 0.0 if numbers[MAX, item] == peak else step_under(numbers, item, peak)
            shrink = math.exp(-step)
            rank += np.int64(numbers[RANK, item])
            square += numbers[SQUARES, item] * shrink * shrink
            if shrink != 0.0:
                spread += (numbers[SPREAD, item] + (1.0 + numbers[REST, item]) * step) * shrink
        ranks[row], squares[row], spreads[row] = rank, square, spread
