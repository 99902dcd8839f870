r"""The gradient along contiguous rows: softmax minus target, without cancellation, one item after the other.

.. math::
    g_j = \Big(\frac{w\, e^{x_j - m}}{1 + r} - t_j\Big) s, \qquad
    g_j = \frac{(w - t_j) - t_j r}{1 + r}\, s \;\text{ where } x_j = m

with the maximum m, rest r and target mass w of the whole row, and its scale s. The exponentials are those that the fold
kept, or are taken again by the same instructions and from the same reference, to the same bits.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from . import segments
from .memory import element, keep_alive, put, rounded_to, size
from .rows import (
    GAP,
    MASS,
    MAX,
    REST,
    block_of,
    bounds_of,
    first_peak,
    fold_item,
    merged,
    parts_of,
    place_of,
    target_of_item,
)
from .targets import label_in, moved, target_of, told_of, write_slopes

TILE = 1024  # exponentials that are taken again before they are written
FAR = 20.0


@njit
def slope_at(x_j, t, whole):
    """One entry of the gradient, by the formula."""
    peak, rest, mass, scale = whole
    if x_j == peak:
        return ((mass - t) - t * rest) / (1.0 + rest) * scale
    return (mass * math.exp(x_j - peak) / (1.0 + rest) - t) * scale


@njit
def write_unusual(x, start, stride, count, target, whole, y, to, to_stride):
    """Writes the gradient of classes ``stride`` bytes apart where the row has no softmax, or an infinite maximum."""
    peak, rest, _, _ = whole
    for index in range(count):
        slope = np.nan
        if math.isinf(peak) and peak > 0 and not math.isnan(rest):
            logit = np.float64(element(x, start + index * stride))
            slope = slope_at(logit, target_of(index, target), whole)
        put(y, to + index * to_stride, slope)


@njit
def write_item(block, item, target, whole, reference, kept, place, again, out):
    """Writes the gradient of one item.

    ``whole`` is (max, rest, mass, scale) of the row, ``reference`` the item's own maximum, and ``kept`` at the address
    ``place`` has the exponentials relative to it, or room for a tile of them, where they are to be taken again.
    """
    peak, rest, _, scale = whole
    x, y = block[0], out[0]
    start, count = place_of(block, item)
    to = place_of(out, item)[0]
    if scale == 0.0:
        segments.write_zeros(y, to, count)
        return
    if math.isnan(rest) or math.isinf(peak):
        write_unusual(x, start, size(x), count, target, whole, y, to, size(y))
        return
    if peak - reference > FAR:  # a factor for what is relative to so low a maximum would lose digits
        reference, again = peak, True
    if not again:
        write_tile(kept, place, count, target, whole, reference, y, to)
    else:
        index = 0
        while index < count:
            few = count - index if count - index < 2 * TILE else TILE
            here = start + index * size(x)
            segments.sum_exp(x, here, few, reference, here, few, None, kept, place)
            write_tile(kept, place, few, moved(index, target), whole, reference, y, to + index * size(y))
            index += few
    label = label_in(count, target)
    if label >= 0:
        logit = np.float64(element(x, start + label * size(x)))
        put(y, to + label * size(y), slope_at(logit, target_of(label, target), whole))


@njit
def write_tile(kept, place, count, target, whole, reference, y, to):
    """Writes the gradient of some classes, but for the label's own, from their exponentials."""
    peak, rest, mass, scale = whole
    share = scale / (1.0 + rest)
    factor = mass * share
    if reference != peak:
        factor *= math.exp(reference - peak)
    top = 1.0 if reference == peak else np.nan
    write_slopes(kept, place, count, (factor, -scale, top, mass, rest, share), y, to, target)


def gradient(x, array, on, off, table, scales, first, stop, out):
    """Writes the gradient of the items in [first, stop); ``table`` has the fold's numbers of every row."""
    block, told, written = block_of(x), told_of(on, off, array), block_of(out)
    parts = parts_of(x.shape[1])
    kept = np.empty(2 * TILE + 64, scales.dtype)
    for item in range(first, stop):
        row = bounds_of(item, x.shape[1])[0]
        whole = table[MAX, row], table[REST, row], table[MASS, row], np.float64(scales[row])
        reference = first_peak(block, item) if parts > 1 else whole[0]
        target = target_of_item(block, told, item)
        write_item(block, item, target, whole, reference, kept.dtype, kept.ctypes.data, True, written)
    keep_alive(kept)


def fold_and_gradient(x, array, on, off, scales, first, stop, numbers, out):
    """Writes the numbers and the gradient of the rows in [first, stop): one read and one write of their size."""
    classes = x.shape[1]
    parts = parts_of(classes)
    block, told, written = block_of(x), told_of(on, off, array), block_of(out)
    kept = np.empty(classes + 128, scales.dtype)
    wide, place = kept.dtype, kept.ctypes.data
    place += -place % 64  # no vector of the kept ones lies across two lines
    peak, end = first_peak(block, first * parts), stop * parts - 1
    for row in range(first, stop):
        for item in range(row * parts, (row + 1) * parts):
            target, at = target_of_item(block, told, item), place + bounds_of(item, classes)[1] * size(wide)
            found, peak, _ = fold_item(block, item, min(item + 1, end), peak, False, target, wide, at)
            numbers[MAX, item], numbers[REST, item], numbers[GAP, item], numbers[MASS, item] = found[:4]
        highest, rest, _, mass = merged(numbers, row, parts)
        # rounded as a Partial has them, so that the gradient is that of `gradient` to the bit
        whole = highest, rounded_to(wide, rest), rounded_to(wide, mass), np.float64(scales[row])
        for item in range(row * parts, (row + 1) * parts):
            target, at = target_of_item(block, told, item), place + bounds_of(item, classes)[1] * size(wide)
            write_item(block, item, target, whole, numbers[MAX, item], wide, at, False, written)
    keep_alive(kept)
