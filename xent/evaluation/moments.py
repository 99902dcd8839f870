r"""Sums of numbers and of their squares without any rounding, so that no order of additions can show.

A sum of floating-point numbers depends on the order of its additions; a sum of integers does not. Each number is an
integer times a power of two, so its sum and the sum of its squares are kept as integers:

.. math:: \sum_n v_n = S \cdot 2^{-1126}, \qquad \sum_n v_n^2 = Q \cdot 2^{-2252}

which no split of the rows and no order of the merges can change, and from which mean and variance follow without
cancellation, rounded once. S never passes 2200 bits and Q 4400, for up to 2**64 numbers.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
UNIT_BITS = 1126  # a number is an integer times 2**-1126: frexp's lowest exponent, -1073, less 53 bits of mantissa
ROOT_BITS = 1138  # a standard error is rounded at 2**-1138, below the smallest subnormal
LIMB_BITS = 18
LIMB_MASK = 2**LIMB_BITS - 1
BLOCK_ROWS = 2**14  # 16384 products of two limbs, 2**37 at most, add up in a float64 without rounding


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
        return root(n * self.squares - self.total**2, n * n * (n - 1) << 2 * UNIT_BITS)


def ratio(numerator: int, denominator: int) -> float:
    """The quotient of two integers, rounded once, however long they are; NaN over 0."""
    return numerator / denominator if denominator else math.nan


def root(numerator: int, denominator: int) -> float:
    """The square root of a quotient of integers; it neither underflows nor overflows."""
    return math.isqrt((numerator << 2 * ROOT_BITS) // denominator) / (1 << ROOT_BITS)


def moments_of(values: Array) -> Moments:
    """The moments of finite numbers."""
    return grouped_moments(values, np.zeros(len(values), np.int64), 1)[0]


def grouped_moments(values: Array, group: Array, groups: int) -> list[Moments]:
    """The moments of each group of finite numbers.

    Parameters
    ----------
    values : array, shape (rows,), float32 or float64
    group : array, shape (rows,), integer, in [0, groups)
    groups : int

    Notes
    -----
    Each number is cut into three limbs of 18 bits. The limbs, and the products of two limbs, are added per group and
    exponent in float64, where so few of them leave no rounding, and the totals are shifted into place as integers.
    """
    totals, squares = [0] * groups, [0] * groups
    for start in range(0, len(values), BLOCK_ROWS):
        fraction, exponent = np.frexp(values[start : start + BLOCK_ROWS].astype(np.float64))
        mantissa = np.ldexp(fraction, 53).astype(np.int64)  # value = mantissa * 2**(exponent - 53)
        lowest = int(exponent.min())
        places = int(exponent.max()) - lowest + 1
        place = group[start : start + BLOCK_ROWS] * places + (exponent - lowest)
        # subtle: >> rounds a negative mantissa down, so `high` alone carries the sign and the sum of the limbs is exact
        high, middle, low = (
            (limb & mask).astype(np.float64)
            for limb, mask in (
                (mantissa >> 2 * LIMB_BITS, -1),
                (mantissa >> LIMB_BITS, LIMB_MASK),
                (mantissa, LIMB_MASK),
            )
        )
        add_placed(totals, place, places, (low, middle, high), lowest - 53 + UNIT_BITS, 1)
        products = (low * low, 2 * (low * middle), 2 * (low * high) + middle * middle, 2 * (middle * high), high * high)
        add_placed(squares, place, places, products, lowest - 53 + UNIT_BITS, 2)
    counts = np.bincount(group, minlength=groups).tolist()
    return [Moments(*one) for one in zip(counts, totals, squares, strict=True)]


def add_placed(sums: list[int], place: Array, places: int, limbs: tuple[Array, ...], shift: int, power: int) -> None:
    """Adds to each group's sum, exactly, that over its rows and the limbs i of
    limbs[i] · 2**(18 i) · 2**(power · (place + shift))."""
    for i, limb in enumerate(limbs):
        added = np.bincount(place, weights=limb)
        where = np.flatnonzero(added)
        for at, value in zip(where.tolist(), added[where].tolist(), strict=True):
            group, exponent = divmod(at, places)
            sums[group] += int(value) << (LIMB_BITS * i + power * (exponent + shift))
