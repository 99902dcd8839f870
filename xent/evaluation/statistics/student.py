r"""Student's t distribution: the intervals and p-values of a mean whose error is estimated from few rows or clusters.

.. math:: P(|T| \ge t) = I_x(\nu/2, 1/2), \qquad x = \frac{\nu}{\nu + t^2}

with ν degrees of freedom and the regularised incomplete beta function I, by its continued fraction [1]_; from
:data:`MANY` degrees on by the normal distribution, of a t that Hill's expansion has transformed [2]_.

.. [1] NIST Digital Library of Mathematical Functions, 8.17.22.
.. [2] Hill, "Algorithm 395: Student's t-distribution", Communications of the ACM 13(10), 1970.
"""

from __future__ import annotations

import math
from functools import cache

EPSILON = 2.0**-53
MANY = 10**5


def two_sided(t: float, degrees: int) -> float:
    """The chance of a |T| of at least |t|; NaN without a degree of freedom, or where t is NaN."""
    if degrees < 1 or math.isnan(t):
        return math.nan
    if math.isinf(t):
        return 0.0
    if degrees >= MANY:
        wide = degrees - 0.5
        z = math.sqrt(wide * math.log1p(t * t / degrees))
        return math.erfc((z + (z**3 + 3 * z) / (48 * wide * wide)) / math.sqrt(2))
    ratio = t * t / degrees
    x, y = 1 / (1 + ratio), ratio / (1 + ratio)
    # x**a y**b / B(a, b), with a of half the degrees and b of 1/2
    scale = math.exp(-degrees / 2 * math.log1p(ratio)) * math.sqrt(y / math.pi) * gamma_ratio(degrees / 2)
    # the fraction converges quickly where its argument is under the mean of the beta distribution
    if x * (degrees + 5) < degrees + 2:
        return scale / (degrees / 2) * continued_fraction(x, degrees / 2, 0.5)
    return 1 - scale * 2 * continued_fraction(y, 0.5, degrees / 2)


def p_value(difference: float, error: float, degrees: int) -> float:
    """The chance of a difference so far from 0 if it were 0; 1 or 0 if its standard error is 0."""
    return two_sided(difference / error, degrees) if error else float(difference == 0)


@cache
def quantile(degrees: int) -> float:
    """The t beyond which lie 5 % on both sides together; NaN without a degree of freedom.

    Examples
    --------
    >>> round(quantile(2), 4), round(quantile(9), 4), round(quantile(10**9), 4)
    (4.3027, 2.2622, 1.96)
    """
    if degrees < 1:
        return math.nan
    norm, t, step = gamma_ratio(degrees / 2) / math.sqrt(math.pi * degrees), 1.9, 1.0
    while step > 1e-13 * t:  # Newton's steps from below, where the chance is convex
        density = norm * math.exp(-(degrees + 1) / 2 * math.log1p(t * t / degrees))
        step = (two_sided(t, degrees) - 0.05) / (2 * density)
        t += step
    return t


def margin(error: float, degrees: int) -> float:
    """Half the width of the 95 % interval of a mean with this standard error."""
    return quantile(degrees) * error


def gamma_ratio(a: float) -> float:
    """Γ(a + 1/2) / Γ(a)."""
    if a < 100:
        return math.gamma(a + 0.5) / math.gamma(a)
    series = (1.0, -1 / 8, 1 / 128, 5 / 1024, -21 / 32768, -399 / 262144)
    return math.sqrt(a) * math.fsum(c / a**i for i, c in enumerate(series))


def continued_fraction(x: float, a: float, b: float) -> float:
    """1 / (1 + d₁ / (1 + d₂ / …)) of the incomplete beta function, from its front by Lentz's rule."""
    value, numerators, denominators, change, n = 1.0, 1.0, 0.0, 0.0, 0
    while abs(change - 1) > 2 * EPSILON:
        n += 1
        m = n // 2
        if n % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        numerators, denominators = 1 + term / numerators, 1 / (1 + term * denominators)
        change = numerators * denominators
        value *= change
    return 1 / value
