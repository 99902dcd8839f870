r"""The gradient along contiguous rows: softmax minus target, without cancellation, one item after the other.

.. math::
    g_j = \Big(\frac{w\, e^{x_j - m}}{1 + r} - t_j\Big) s, \qquad
    g_j = \frac{(w - t_j) - t_j r}{1 + r}\, s \;\text{ where } x_j = m

with the maximum m, rest r and target mass w of the whole row, and its scale s. The exponentials are those that the fold
left in a buffer, or are taken again by the same instructions and from the same reference, to the same bits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from . import segments
from .memory import itemsize, keep_alive, load_scalar, rounded_to, store_scalar
from .rows import (
    GAP,
    MASS,
    MAX,
    REST,
    address_of,
    bounds_of,
    fold_item,
    item_max,
    item_target,
    matrix_of,
    parts_of,
    row_numbers,
)
from .segments import Factors
from .targets import from_class, label_in, target_of, targets_of, write_gradient

TILE = 1024  # exponentials that are taken again before they are written
FAR = 20.0


class Row(NamedTuple):
    """What the gradient of a row depends on besides its logits and targets."""

    peak: float  # the largest logit
    rest: float
    mass: float
    scale: float


@njit
def gradient_at(logit, t, row):
    """One entry of the gradient, by the formula."""
    if logit == row.peak:
        return ((row.mass - t) - t * row.rest) / (1.0 + row.rest) * row.scale
    return (row.mass * math.exp(logit - row.peak) / (1.0 + row.rest) - t) * row.scale


@njit
def write_nonfinite(x, start, stride, count, target, row, out, out_address, out_stride):
    """Writes the gradient of classes ``stride`` bytes apart if the row has no softmax, or an infinite maximum."""
    for index in range(count):
        value = np.nan
        if math.isinf(row.peak) and row.peak > 0 and not math.isnan(row.rest):
            logit = np.float64(load_scalar(x, start + index * stride))
            value = gradient_at(logit, target_of(index, target), row)
        store_scalar(out, out_address + index * out_stride, value)


@njit
def write_item(matrix, item, target, row, reference, buffer, address, again, output):
    """Writes the gradient of one item.

    ``reference`` is the item's own maximum, and the buffer has the exponentials relative to it. If ``again``, they are
    taken again, and the buffer is room for a tile of them.
    """
    x, out = matrix.dtype, output.dtype
    start, count = address_of(matrix, item)
    out_address = address_of(output, item)[0]
    if row.scale == 0.0:
        segments.write_zeros(out, out_address, count)
        return
    if math.isnan(row.rest) or math.isinf(row.peak):
        write_nonfinite(x, start, itemsize(x), count, target, row, out, out_address, itemsize(out))
        return
    label, logit = label_in(count, target), 0.0
    if label >= 0:  # read before the first write: the output may be the logits
        logit = np.float64(load_scalar(x, start + label * itemsize(x)))
    if row.peak - reference > FAR:  # a factor for exponentials relative to so low a maximum would lose digits
        reference, again = row.peak, True
    if not again:
        write_tile(buffer, address, count, target, row, reference, out, out_address)
    else:
        index = 0
        while index < count:
            few = count - index if count - index < 2 * TILE else TILE
            at = start + index * itemsize(x)
            segments.sum_exp(x, at, few, reference, at, few, None, buffer, address)
            tile_target = from_class(index, target)
            write_tile(buffer, address, few, tile_target, row, reference, out, out_address + index * itemsize(out))
            index += few
    if label >= 0:
        store_scalar(out, out_address + label * itemsize(out), gradient_at(logit, target_of(label, target), row))


@njit
def write_tile(buffer, address, count, target, row, reference, out, out_address):
    """Writes the gradient of some classes, but for the label's own, from their exponentials."""
    row_scale = row.scale / (1.0 + row.rest)
    softmax = row.mass * row_scale
    if reference != row.peak:
        softmax *= math.exp(reference - row.peak)
    top = 1.0 if reference == row.peak else np.nan
    factors = Factors(softmax, -row.scale, top, row.mass, row.rest, row_scale)
    write_gradient(buffer, address, count, factors, out, out_address, target)


def gradient(x, array, on, off, table, scales, first, stop, out):
    """Writes the gradient of the items in [first, stop); the table has the fold's numbers of every row."""
    matrix, targets, output = matrix_of(x), targets_of(on, off, array), matrix_of(out)
    parts = parts_of(x.shape[1])
    exps = np.empty(2 * TILE + 64, scales.dtype)
    for item in range(first, stop):
        index = bounds_of(item, x.shape[1])[0]
        row = Row(table[MAX, index], table[REST, index], table[MASS, index], np.float64(scales[index]))
        reference = item_max(matrix, item) if parts > 1 else row.peak
        target = item_target(matrix, targets, item)
        write_item(matrix, item, target, row, reference, exps.dtype, exps.ctypes.data, True, output)
    keep_alive(exps)


def fold_and_gradient(x, array, on, off, scales, first, stop, table, out):
    """Writes the numbers and the gradient of the rows in [first, stop): one read and one write of their size."""
    classes = x.shape[1]
    parts = parts_of(classes)
    matrix, targets, output = matrix_of(x), targets_of(on, off, array), matrix_of(out)
    exps = np.empty(classes + 128, scales.dtype)
    buffer, address = exps.dtype, exps.ctypes.data
    address += -address % 64  # no vector of the buffer crosses a cache line
    peak, end = item_max(matrix, first * parts), stop * parts - 1
    for index in range(first, stop):
        for item in range(index * parts, (index + 1) * parts):
            target, at = item_target(matrix, targets, item), address + bounds_of(item, classes)[1] * itemsize(buffer)
            numbers, peak, _ = fold_item(matrix, item, min(item + 1, end), peak, False, target, buffer, at)
            table[MAX, item], table[REST, item], table[GAP, item], table[MASS, item] = numbers[:4]
        highest, rest, _, mass = row_numbers(table, index, parts)
        # rounded as in a Partial, so that the gradient is that of `gradient` to the bit
        row = Row(highest, rounded_to(buffer, rest), rounded_to(buffer, mass), np.float64(scales[index]))
        for item in range(index * parts, (index + 1) * parts):
            target, at = item_target(matrix, targets, item), address + bounds_of(item, classes)[1] * itemsize(buffer)
            write_item(matrix, item, target, row, table[MAX, item], buffer, at, False, output)
    keep_alive(exps)
