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
.. [2] Cochran, "Sampling techniques", 3rd edition, 1977, section 6.3: the standard error of a ratio. It is that of a
   weighted regression on a constant with the covariance HC1.
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
    """How many numbers, their sum in units of 2**-1126, and that of their squares in units of 2**-2252.

    Where they have weights w, the numbers are w v, each rounded once to float64, and there are the sums of w, of its
    square, and of its product with w v, in the same units; else these are 0.
    """

    n: int = 0
    total: int = 0
    squares: int = 0
    weight: int = 0
    weight_squares: int = 0
    products: int = 0

    def merge(self, other: Moments) -> Moments:
        """The moments of both; exactly associative and commutative."""
        return Moments(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def mean(self) -> float:
        """The mean, rounded once; NaN of no numbers."""
        return ratio(self.total, self.weight or self.n << UNIT_BITS)

    @property
    def standard_error(self) -> float:
        """Of the mean, sqrt(sample variance / count), the numbers taken as independent; NaN under two.

        Of a weighted mean m, sqrt(n / (n − 1) Σ w² (v − m)²) / Σ w [2]_, which is the same where all weights are equal.
        """
        n, weight = self.n, self.weight
        if n < 2:
            return math.nan
        if weight:  # Σ (w v − w total / weight)², exactly
            scatter = weight**2 * self.squares - 2 * weight * self.total * self.products
            scatter += self.total**2 * self.weight_squares
            return sqrt_ratio(n * scatter, (n - 1) * weight**4)
        # n Q - S**2 = n (n - 1) * sample variance, exactly
        return sqrt_ratio(n * self.squares - self.total**2, n * n * (n - 1) << 2 * UNIT_BITS)


def ratio(numerator: int, denominator: int) -> float:
    """The quotient of two integers, rounded once, however long they are; NaN over 0."""
    return numerator / denominator if denominator else math.nan


def sqrt_ratio(numerator: int, denominator: int) -> float:
    """The square root of a quotient of integers; it neither underflows nor overflows."""
    return math.isqrt((numerator << 2 * ROOT_BITS) // denominator) / (1 << ROOT_BITS)


def moments_of(values: NDArray[Any], weights: NDArray[Any] | None = None) -> Moments:
    """The moments of finite numbers."""
    return grouped_moments(values, None, 1, weights)[0]


def grouped_moments(
    values: NDArray[Any], group: NDArray[Any] | None, groups: int, weights: NDArray[Any] | None = None
) -> list[Moments]:
    """The moments of each group of finite numbers.

    Parameters
    ----------
    values : array, shape (rows,), float32 or float64
    group : array, shape (rows,), integer, in [0, groups), or None for a single group
    groups : int
    weights : array, shape (rows,), float64, or None for none
        Positive, of a finite product with the number.
    """
    if weights is not None:
        return weighted_moments(values.astype(np.float64) * weights, weights, group, groups)
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


def grouped_totals(values: NDArray[Any], group: NDArray[Any], groups: int) -> list[int]:
    """The sum of each group of finite numbers, in units of 2**-1126; the group of each is in [0, groups)."""
    totals = [0] * groups
    for start in range(0, len(values), BLOCK_ROWS):
        present, index = present_groups(group, start)
        for part, scale in ordinary_parts(values[start : start + BLOCK_ROWS].astype(np.float64)):
            add_exactly(totals, part, present, index, scale + UNIT_BITS)
    return totals


def weighted_moments(
    values: NDArray[Any], weights: NDArray[Any], group: NDArray[Any] | None, groups: int
) -> list[Moments]:
    """The moments of each group of numbers that have been multiplied by their weights."""
    products = [0] * groups
    for start in range(0, len(values), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        present, index = present_groups(group, start)
        for value, scale in ordinary_parts(values[rows]):
            for weight, weight_scale in ordinary_parts(weights[rows]):
                for product in product_of(value, weight):
                    add_exactly(products, product, present, index, scale + weight_scale + 2 * UNIT_BITS)
    of_values, of_weights = (grouped_moments(each, group, groups) for each in (values, weights))
    return [
        Moments(own.n, own.total, own.squares, weight.total, weight.squares, both)
        for own, weight, both in zip(of_values, of_weights, products, strict=True)
    ]


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
    high, low = halves(part)
    return high * high, 2 * (high * low), low * low


def product_of(first: NDArray[Any], second: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Products that sum to the products of two blocks exactly."""
    (high, low), (other_high, other_low) = halves(first), halves(second)
    return high * other_high, high * other_low, low * other_high, low * other_low


def halves(part: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Two numbers of 26 bits and a sign that sum to each number."""
    scaled = SPLITTER * part
    high = scaled - (scaled - part)
    return high, part - high


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
