r"""The fold and its gradient with rows side by side, one to a lane: for few classes, along any axis.

A vector holds the same class of 16 rows (8 of float64), so the sums need nothing across lanes. Predictions come as
(outer, classes, inner) of any strides, as an image's (N, C, H, W) is; rows are counted flat, in C order, over outer
and inner. Where 16 rows lie side by side in memory they are read as a vector, else one by one. Where classes are many
and do not follow each other, tiles of rows are brought from here to the loops along rows (``bring_rows``).

The classes of a vector's rows are brought to a tile in the computing dtype, so memory is read once; the exponentials
take their place there. A row's numbers are made by its own lane, class after class, whatever the others hold; a row
with NaN or an infinite maximum is taken again by the fold's own text.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numba.extending import overload

from .exponential import biased_exp, one_over_bias
from .lanes import (
    above,
    add_to,
    both,
    choose,
    counted,
    differs,
    element,
    equal,
    fill,
    fma,
    gather,
    integer,
    keep_alive,
    larger,
    load,
    load_doubles,
    nothing,
    prefetch,
    put,
    put_integer,
    reaches,
    scatter,
    size,
    store,
    store_total,
    width,
)
from .rows import (
    FIELDS,
    GAP,
    MASS,
    MAX,
    RANK,
    REST,
    SPREAD,
    SQUARES,
    STATISTICS_FIELDS,
    block_of,
    unusual,
    write_losses,
)
from .segments import CHUNK, PREFETCH, TARGET_CHUNK, unbiased
from .slopes import write_unusual
from .targets import by_target, told_labels

GROUP = 64  # rows whose numbers are finished together
LINE = 128  # bytes of a number for each row of a vector: at most 16 float64
DOUBLE = np.dtype(np.float64)
GAPS, DISTANCES, MASSES, TOTAL, OTHERS, MOMENTS, SCALES = (LINE * number for number in (0, 1, 2, 3, 4, 5, 8))
"""Where in a thread's work the numbers of a vector's rows are, in bytes; MOMENTS are three."""


@njit
def grid_of(x):
    """An array (outer, classes, inner) as the loops take it: (dtype, address, strides, classes, inner)."""
    return x.dtype, x.ctypes.data, (x.strides[0], x.strides[1], x.strides[2]), x.shape[1], x.shape[2]


@njit
def row_address(grid, row):
    """Where the first class of a row is."""
    _, address, strides, _, inner = grid
    if inner == 1:
        return address + row * strides[0]
    return address + row // inner * strides[0] + row % inner * strides[2]


@njit
def line_up(grid, row, stop, place):
    """Writes the addresses of a vector's rows, the last one for those past ``stop``; True where they are neighbours."""
    x, rows = grid[0], width(grid[0])
    adjacent = row + rows <= stop
    first = row_address(grid, row)
    for lane in range(rows):
        address = row_address(grid, min(row + lane, stop - 1))
        put_integer(place + lane * 8, address)
        adjacent &= address == first + lane * size(x)
    return adjacent


@njit
def read(x, adjacent, place, offset):
    """One class of a vector's rows, whose addresses are at ``place``."""
    if adjacent:
        return load(x, integer(place) + offset)
    return gather(x, place, offset)


@njit
def write(x, adjacent, place, offset, value, count):
    """The same, written; only the first ``count`` rows."""
    if adjacent:
        store(x, integer(place) + offset, value)
    else:
        scatter(x, place, offset, value, count)


@njit
def bring(grid, adjacent, place, wide, tile):
    """Fills the tile with the classes of a vector's rows; returns their maxima, of no meaning where one is NaN."""
    x, _, strides, classes, _ = grid
    top = read(x, adjacent, place, 0)
    # what comes next is what follows in memory, and in each class where rows are neighbours
    ahead, pace = integer(place) + PREFETCH, width(x) * size(x)
    if adjacent:
        ahead, pace = integer(place) + 256, strides[1]
    for index in range(classes):
        prefetch(ahead + index * pace)
        logits = read(x, adjacent, place, index * strides[1])
        store(wide, tile + index * 64, logits)
        top = larger(logits, top)
    return top


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


# -------------------- targets
# Of a vector's rows: (the label of each lane as a number, −1 before the first class or ``classes`` after the last; the
# addresses of their logits; on, off), or (dtype, whether the rows are neighbours, where their addresses are, bytes from
# class to class).


def rows_told(on, off, array):
    """What a loop is told of labels (rows,) or of soft targets (outer, classes, inner)."""
    raise NotImplementedError("only compiled code calls this")


@overload(rows_told)
def overloaded_rows_told(on, off, array):
    if array.ndim == 1:
        return lambda on, off, array: told_labels(on, off, array)
    return lambda on, off, array: grid_of(array)


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
        store_total(distances(wide, tile, classes, level), wide, gaps + LINE)
        for lane in range(width(wide)):
            at, far = element(DOUBLE, gaps + lane * 8), element(DOUBLE, gaps + LINE + lane * 8)
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


# -------------------- one vector


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


# -------------------- loops


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


def bring_rows(x, first, stop, rows):
    """Copies the rows in [first, stop) to an array (rows, classes), the classes of a row one after the other."""
    grid, block = grid_of(x), block_of(rows)
    memory = np.empty(4 * LINE, np.uint8)
    place, to = memory.ctypes.data, memory.ctypes.data + LINE
    y, address, stride, classes = block
    for row in range(first, stop, width(y)):
        adjacent = line_up(grid, row, stop, place)
        for lane in range(width(y)):
            put_integer(to + lane * 8, address + (row - first + lane) * stride)
        for index in range(classes):
            prefetch(integer(place) + (index + 8) * grid[2][1])
            write(y, False, to, index * size(y), read(y, adjacent, place, index * grid[2][1]), stop - row)
    keep_alive(memory)


def put_rows(rows, first, stop, out):
    """Copies an array (rows, classes) to the rows in [first, stop) of another."""
    grid, block = grid_of(out), block_of(rows)
    memory = np.empty(4 * LINE, np.uint8)
    place, start = memory.ctypes.data, memory.ctypes.data + LINE
    y, address, stride, classes = block
    for row in range(first, stop, width(y)):
        adjacent = line_up(grid, row, stop, place)
        for lane in range(width(y)):
            put_integer(start + lane * 8, address + (min(row + lane, stop - 1) - first) * stride)
        for index in range(classes):
            write(y, adjacent, place, index * grid[2][1], gather(y, start, index * size(y)), stop - row)
    keep_alive(memory)
