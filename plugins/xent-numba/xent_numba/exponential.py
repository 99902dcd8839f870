r"""The exponential and the logarithm, on lanes.

.. math:: e^x = 2^n \, p(f), \qquad n = \mathrm{round}(x \log_2 e), \quad f = x \log_2 e - n \in [-1/2, 1/2]

with a polynomial :math:`p` of least relative error among those with p(0) = 1 (Remez): 1.5e-8 for float32, a tenth of
an ulp, and 4.8e-17 for float64. Everywhere here x ≤ 0, and the result is biased by a power of two, so that no number
down to the smallest subnormal of the dtype is subnormal on the way: those are slow, and lose digits.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from .by_type import by_type
from .lanes import (
    SINGLE,
    at_least,
    fill,
    fma,
    greater,
    greater_equal,
    polynomial,
    scale_by_power,
    split_exponent,
    where,
)

LOG2_E = 1.4426950408889634074
SINGLE_BIAS, DOUBLE_BIAS = 50, 480  # the square of a biased 1, summed, must not overflow: `statistics` takes squares

SINGLE_LOG2_E = np.float32(LOG2_E)
SINGLE_LOG2_E_REST = np.float32(LOG2_E - float(SINGLE_LOG2_E))
# A number added to it is in the low bits as an integer, plus two biases: ours, and that of an exponent.
SINGLE_ROUNDER = np.float32(1.5 * 2**23 + SINGLE_BIAS + 127)
SINGLE_LEAST = np.float32(-120.0)  # e^-120 is far under the smallest subnormal; biased, it is still normal
single_power = polynomial(
    0.0001499173489680798,
    0.0013383386501766683,
    0.009619342239849784,
    0.05550371192138153,
    0.24022644018182512,
    0.6931471856456594,
    1.0,
)

DOUBLE_LOG2_E_REST = 2.0355273740931033e-17  # log2 e less its float64
DOUBLE_ROUNDER = 1.5 * 2.0**52 + DOUBLE_BIAS + 1023
DOUBLE_LEAST = -1000.0
double_power = polynomial(
    4.356750532400759e-10,
    7.070741234082744e-09,
    1.017863952150331e-07,
    1.3215451988548862e-06,
    1.5252732643642833e-05,
    0.000154035304260191,
    0.0013333558147419636,
    0.009618129107616407,
    0.05550410866481851,
    0.24022650695910083,
    0.6931471805599453,
    1.0,
)


@njit
def single_exp(x):
    x = at_least(x, fill(x, SINGLE_LEAST))
    rounded = fma(x, fill(x, SINGLE_LOG2_E), fill(x, SINGLE_ROUNDER))
    whole = rounded - fill(x, SINGLE_ROUNDER)
    fraction = fma(x, fill(x, SINGLE_LOG2_E), fill(x, np.float32(0)) - whole)
    fraction = fma(x, fill(x, SINGLE_LOG2_E_REST), fraction)
    return scale_by_power(single_power(fraction), rounded)


@njit
def double_exp(x):
    x = at_least(x, fill(x, DOUBLE_LEAST))
    rounded = fma(x, fill(x, LOG2_E), fill(x, DOUBLE_ROUNDER))
    whole = rounded - fill(x, DOUBLE_ROUNDER)
    fraction = fma(x, fill(x, LOG2_E), fill(x, 0.0) - whole)
    fraction = fma(x, fill(x, DOUBLE_LOG2_E_REST), fraction)
    return scale_by_power(double_power(fraction), rounded)


@by_type
def biased_exp(x):
    """2^bias · e^x, lane by lane, for x ≤ 0. NaN for NaN; under the smallest subnormal some smaller number."""
    return (lambda x: single_exp(x)) if x is SINGLE else (lambda x: double_exp(x))


@by_type
def one_over_bias(memory):
    """The factor that removes the bias from numbers computed in this memory's lanes, float64."""
    factor = 2.0**-DOUBLE_BIAS if memory.dtype is types.float64 else 2.0**-SINGLE_BIAS
    return lambda memory: factor


@by_type
def smallest_biased(memory):
    """The result of ``biased_exp`` at half the smallest subnormal, float64."""
    smallest = 2.0 ** (DOUBLE_BIAS - 1075) if memory.dtype is types.float64 else 2.0 ** (SINGLE_BIAS - 150)
    return lambda memory: smallest


log_series = polynomial(2 / 13, 2 / 11, 2 / 9, 2 / 7, 2 / 5, 2 / 3)


@njit(forceinline=True)
def log1p(r):
    """log(1 + r) of float64 lanes r ≥ 0, to 1e-11 of its value down to the smallest r; NaN where r is NaN or negative.

    With u = 1 + r rounded and y = u / 2ⁿ in [√½, √2), log y = 2 artanh((y − 1) / (y + 1)). What u loses of r matters
    for a small r only, and the series of that is short.
    """
    one = fill(r, 1.0)
    power, y = split_exponent(one + r)
    s = (y - one) / (y + one)
    z = s * s
    log_y = fma(s * z, log_series(z), s + s)
    large = fma(power, fill(r, 0.6931471805599453), log_y)
    small = r * fma(r, fma(r, fill(r, 1 / 3), fill(r, -0.5)), one)
    value = where(greater(fill(r, 2.0**-12), r), small, large)
    return where(greater_equal(r, fill(r, 0.0)), value, fill(r, np.nan))


LOG_2 = 0.6931471805599453
SINGLE_LOG_2 = float(np.float32(LOG_2))
SINGLE_LOG_2_REST, DOUBLE_LOG_2_REST = LOG_2 - SINGLE_LOG_2, 2.3190468138462996e-17  # log 2 less its float64
single_series = polynomial(2 / 11, 2 / 9, 2 / 7, 2 / 5, 2 / 3)
double_series = polynomial(2 / 21, 2 / 19, 2 / 17, 2 / 15, 2 / 13, 2 / 11, 2 / 9, 2 / 7, 2 / 5, 2 / 3)


@njit(forceinline=True)
def log_by_series(x, series, log_2, log_2_rest, least, lift, lifted):
    """log x of lanes x > 0: :func:`log1p` says how. What is under ``least`` is lifted by 2 to the power ``lifted``."""
    one, is_small = fill(x, 1.0), greater(fill(x, least), x)
    power, y = split_exponent(where(is_small, x * fill(x, lift), x))
    power = where(is_small, power - fill(x, lifted), power)
    s = (y - one) / (y + one)
    z = s * s
    log_y = fma(s * z, series(z), s + s)
    return fma(power, fill(x, log_2), fma(power, fill(x, log_2_rest), log_y))


@by_type
def log(x):
    """log x of lanes, to two ulps down to the smallest subnormal; some finite number where x is not positive."""
    if x is SINGLE:
        return lambda x: log_by_series(x, single_series, SINGLE_LOG_2, SINGLE_LOG_2_REST, 2.0**-126, 2.0**32, 32.0)
    return lambda x: log_by_series(x, double_series, LOG_2, DOUBLE_LOG_2_REST, 2.0**-1022, 2.0**64, 64.0)
