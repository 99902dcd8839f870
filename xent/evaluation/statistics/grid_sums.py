r"""Exact sums of floating-point numbers by many groups at once, as arrays of digits: no order of additions can show.

.. math:: \sum_n v_n = \sum_k D_k 2^{30 k}

Each number is cut into digits of 30 bits on one grid, which are integers and add up in 64 bits. Where groups are few
and squares are wanted, ``exact_sums.py`` has one long integer of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

DIGIT_BITS = 30


@dataclass(frozen=True, eq=False)
class GridSums:
    """The sums of groups; ``digits`` are arrays of int64, shape (groups,), by their place k."""

    digits: Mapping[int, NDArray[np.int64]] = field(default_factory=dict)

    def merge(self, other: GridSums) -> GridSums:
        """The sums over both."""
        both = self.digits.keys() & other.digits.keys()
        summed = {place: self.digits[place] + other.digits[place] for place in both}
        return GridSums({**self.digits, **other.digits, **summed})

    def __eq__(self, other: object) -> bool:
        """Whether the sums are the same, however they are cut into digits."""
        return isinstance(other, GridSums) and self.integers() == other.integers()

    __hash__ = None  # type: ignore[assignment]  # it holds arrays

    def integers(self) -> list[int]:
        """The sum of each group, in units of 2**-1126; none without numbers."""
        total: list[int] = []
        for place, digits in self.digits.items():
            shift = DIGIT_BITS * place + 1126
            lifted = [digit << shift if shift >= 0 else digit >> -shift for digit in digits.tolist()]
            total = [mine + more for mine, more in zip(total, lifted, strict=True)] if total else lifted
        return total

    def values(self, groups: int) -> NDArray[np.float64]:
        """The sum of each of so many groups, rounded once."""
        integers = self.integers() or [0] * groups
        return np.asarray([each / (1 << 1126) for each in integers], np.float64)


def grid_sums(values: NDArray[np.float64], group: NDArray[np.integer], groups: int) -> GridSums:
    """The sums of finite numbers by their groups, each in [0, groups), of at most 2**22 numbers in one.

    Numbers lie under 2**900 in size, and what is under 2**-1050 is left out.
    """
    digits: dict[int, NDArray[np.int64]] = {}
    rest = values
    while (top := float(np.abs(rest).max(initial=0.0))) > 0:
        place = (math.frexp(top)[1] - 1) // DIGIT_BITS  # half a unit is of the next place
        if DIGIT_BITS * place < -1050:
            break
        unit = math.ldexp(1.0, DIGIT_BITS * place)
        cut = unit * 1.5 * 2.0**52
        piece = (rest + cut) - cut  # multiples of the unit
        rest = rest - piece
        sums = np.bincount(group, piece / unit, groups).astype(np.int64)
        digits[place] = digits[place] + sums if place in digits else sums
    return GridSums(digits)
