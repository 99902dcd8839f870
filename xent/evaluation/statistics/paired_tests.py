r"""Tests of two sets of the same rows beside Student's: McNemar's, Holm's correction, and how many rows it takes.

Of the rows that one set alone has right let A have b and B have c. Were both as often right, b would be binomial [1]_:

.. math:: p = \min\Big(1, 2 \sum_{i \le \min(b, c)} \binom{b + c}{i} 2^{-(b + c)}\Big)

exactly up to :data:`MOST_EXACT` such rows, and beyond from :math:`\chi^2 = (b - c)^2 / (b + c)` of one degree.

.. [1] McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
   Psychometrika 12(2), 1947; the exact form is the sign test.
.. [2] Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6(2), 1979.
.. [3] Chow, Shao, Wang & Lokhnygina, "Sample size calculations in clinical research", 3rd edition, 2017, section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

MOST_EXACT = 1000
SIGNIFICANCE = 1.959963984540054
"""The normal quantile of a two-sided 5 %."""
POWER = 0.8416212335729143
"""The normal quantile of 80 %."""


class McNemar(NamedTuple):
    """The rows that A alone has right and those that B alone has, and the p-value of as many each.

    Rows are taken as independent, without weights. ``is_exact`` tells whether the p-value is the binomial one.
    """

    right_in_a: int
    right_in_b: int
    p_value: float
    is_exact: bool


def mcnemar(right_in_a: int, right_in_b: int) -> McNemar:
    """McNemar's test of two counts, two-sided; the p-value is 1 of no rows.

    Examples
    --------
    >>> mcnemar(1, 4).p_value  # 2 (1 + 5) / 32
    0.375
    """
    rows, few = right_in_a + right_in_b, min(right_in_a, right_in_b)
    if rows > MOST_EXACT:
        p = math.erfc(abs(right_in_a - right_in_b) / math.sqrt(2 * rows))
        return McNemar(right_in_a, right_in_b, p, is_exact=False)
    tail = sum(math.comb(rows, i) for i in range(few + 1))
    return McNemar(right_in_a, right_in_b, min(1.0, 2 * tail / 2**rows), is_exact=True)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for their number, by Holm's steps [2]_; a NaN is of no test, and stays.

    Examples
    --------
    >>> holm([0.25, 0.0625, 0.5])
    [0.5, 0.1875, 0.5]
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, highest = list(p_values), 0.0
    for step, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - step) * p))
        adjusted[i] = highest
    return adjusted


def rows_needed(mean: float, error: float, rows: int) -> int | None:
    """The rows in which a mean like that of these rows is told from 0 with 80 % power, at 5 %, two-sided.

    That is n ((1.96 + 0.84) s / d)² [3]_, of the error s of the mean d of n rows; rows in clusters like these, if the
    error is theirs. None where there is no difference, or no error.

    Examples
    --------
    >>> rows_needed(1.0, 0.5, 100)  # 7.849 / 4 as many
    197
    """
    if not mean or not math.isfinite(mean) or not math.isfinite(error):
        return None
    return max(1, math.ceil(rows * ((SIGNIFICANCE + POWER) * error / mean) ** 2))
