r"""Sums of numbers and of their squares without rounding, and their mean and standard error: no order can show.

A sum of floating-point numbers depends on the order of its additions; a sum of integers does not. Each number is an
integer times a power of two, so its sum and the sum of its squares are kept as integers:

.. math:: \sum_n v_n = S \cdot 2^{-1126}, \qquad \sum_n v_n^2 = Q \cdot 2^{-2252}

which no split of the rows and no order of the merges can change, and from which mean and variance follow without
cancellation, rounded once. S never passes 2200 bits and Q 4400, for up to 2**64 numbers.

All numbers of a block are cut at the same bits, as ExtractVector [1]_ does, so that the pieces of one cut add up in
float64 without rounding.

.. [1] Rump, Ogita & Oishi, "Accurate floating-point summation, part I: faithful rounding", SIAM J. Sci. Comput. 31(1),
   2008, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

UNIT_BITS = 1126  # a number is an integer times 2**-1126: frexp's lowest exponent, -1073, less 53 bits of mantissa
ROOT_BITS = 1138  # a standard error is rounded at 2**-1138, below the smallest subnormal
BLOCK_ROWS = 2**14
PIECE_BITS = 38  # a float64 adds up 2**14 pieces of 38 bits and a sign without rounding
SPLITTER = 2.0**27 + 1  # Veltkamp's, which cuts 53 bits into two halves
ORDINARY = 2.0**400  # the squares of numbers between this and its inverse are far from the ends of float64
RESCALE = 600


class Moments(NamedTuple):
    """How many numbers, their sum in units of 2**-1126, and that of their squares in units of 2**-2252."""

    n: int = 0
    total: int = 0
    squares: int = 0

    def merge(self, other: Moments) -> Moments:
        """The moments of both; exactly associative and commutative."""
        return Moments(self.n + other.n, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """The mean, rounded once; NaN of no numbers."""
        return ratio(self.total, self.n << UNIT_BITS)

    @property
    def standard_error(self) -> float:
        """Of the mean, sqrt(sample variance / count), the numbers taken as independent; NaN under two."""
        n = self.n
        if n < 2:
            return math.nan
        # n Q - S**2 = n (n - 1) * sample variance, exactly
        return sqrt_ratio(n * self.squares - self.total**2, n * n * (n - 1) << 2 * UNIT_BITS)


def ratio(numerator: int, denominator: int) -> float:
    """The quotient of two integers, rounded once, however long they are; NaN over 0."""
    return numerator / denominator if denominator else math.nan


def sqrt_ratio(numerator: int, denominator: int) -> float:
    """The square root of a quotient of integers; it neither underflows nor overflows."""
    return math.isqrt((numerator << 2 * ROOT_BITS) // denominator) / (1 << ROOT_BITS)


def moments_of(values: NDArray[Any]) -> Moments:
    """The moments of finite numbers."""
    return grouped_moments(values, None, 1)[0]


def grouped_moments(values: NDArray[Any], group: NDArray[Any] | None, groups: int) -> list[Moments]:
    """The moments of each group of finite numbers.

    Parameters
    ----------
    values : array, shape (rows,), float32 or float64
    group : array, shape (rows,), integer, in [0, groups), or None for a single group
    groups : int
    """
    totals, squares = [0] * groups, [0] * groups
    for start in range(0, len(values), BLOCK_ROWS):
        block = values[start : start + BLOCK_ROWS]
        present, index = present_groups(group, start)
        for part, scale in ordinary_parts(block.astype(np.float64)):
            add_exactly(totals, part, present, index, scale + UNIT_BITS)
            for product in square(part, is_short=values.dtype.itemsize < 8):
                add_exactly(squares, product, present, index, 2 * (scale + UNIT_BITS))
    counts = [len(values)] if group is None else np.bincount(group, minlength=groups).tolist()
    return [Moments(*sums) for sums in zip(counts, totals, squares, strict=True)]


def present_groups(group: NDArray[Any] | None, start: int) -> tuple[Sequence[int], NDArray[Any] | None]:
    """The groups that may occur in the block of rows from `start` on, and the index of each row's among them."""
    if group is None:
        return (0,), None
    block = group[start : start + BLOCK_ROWS]
    low, high = int(block.min()), int(block.max())
    if high - low < BLOCK_ROWS:
        return range(low, high + 1), block - low
    groups, index = np.unique(block, return_inverse=True)
    return groups.tolist(), index


def ordinary_parts(block: NDArray[Any]) -> Iterator[tuple[NDArray[Any], int]]:
    """Pairs (part, scale) of which the parts times 2**scale sum to the block, each number being in one part only.

    The squares of the parts neither overflow nor lose bits; there is one part unless a number is far larger or smaller
    than losses are.
    """
    size = np.abs(block)
    small, large = (size < 1 / ORDINARY) & (size > 0), size > ORDINARY
    if not (small.any() or large.any()):
        yield block, 0
        return
    for scale, rows in ((-RESCALE, small), (0, ~(small | large)), (RESCALE, large)):
        yield np.ldexp(np.where(rows, block, 0.0), -scale), scale


def square(part: NDArray[Any], *, is_short: bool) -> tuple[NDArray[Any], ...]:
    """Products that sum to the squares exactly; the numbers have 24 bits where `is_short`, else 53."""
    if is_short:
        return (part * part,)
    scaled = SPLITTER * part
    high = scaled - (scaled - part)
    low = part - high
    return high * high, 2 * (high * low), low * low


def add_exactly(
    sums: list[int], part: NDArray[Any], present: Sequence[int], index: NDArray[Any] | None, shift: int
) -> None:
    """Add the sum of a block over each of its groups, times 2**shift, to that group's."""
    while (top := max(part.max(), -part.min())) > 0:
        exponent = math.frexp(top)[1]  # nothing is over 2**exponent
        cut = math.ldexp(1.0, exponent + 15)
        piece = (part + cut) - cut  # multiples of 2**(exponent - 38)
        part = part - piece
        group_sums = piece.sum(keepdims=True) if index is None else np.bincount(index, weights=piece)
        lift, units = shift + exponent - PIECE_BITS, np.ldexp(group_sums, PIECE_BITS - exponent).astype(np.int64)
        for group in np.flatnonzero(units).tolist():
            sums[present[group]] += int(units[group]) << lift
