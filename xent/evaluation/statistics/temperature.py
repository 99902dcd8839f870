r"""The temperature of the least loss, found from the mean loss and the mean entropy of a few passes.

With the inverse temperature b the loss of a row is log Σ exp(b x_j) − b x_y, and

.. math:: b \frac{d}{db} \bar\ell(b) = \bar\ell(b) - \bar H(b)

so the loss is least where its mean is the mean entropy. The loss is convex in b [1]_: there is one such b, or none.

.. [1] Guo et al., "On calibration of modern neural networks", ICML 2017, section 4.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from xent.evaluation.statistics.evaluation import Evaluation, Temperature

STEP = math.log(2)
END = 10 * STEP
"""Temperatures from 2**-10 to 2**10 are searched."""
PRECISION = 1e-4
"""How far log T may be from the best one; the loss is then off by about its square."""


def fit(evaluate_at: Callable[[float], Evaluation], unscaled: Evaluation) -> Temperature:
    """The temperature of the least loss.

    Parameters
    ----------
    evaluate_at : callable
        Returns the numbers of the set with its logits multiplied by an inverse temperature.
    unscaled : Evaluation
        Those at 1.
    """
    passes = 1
    evaluations = {0.0: unscaled}  # by log b

    def slope(log_b: float) -> float:
        nonlocal passes
        if log_b not in evaluations:
            evaluations[log_b] = evaluate_at(math.exp(log_b))
            passes += 1
        return evaluations[log_b].mean_loss - evaluations[log_b].entropy

    low = high = 0.0
    while slope(high) < 0 and high < END:
        low, high = high, high + STEP
    while slope(low) > 0 and low > -END:
        low, high = low - STEP, low
    # at the ends a loss that falls for ever may underflow to 0, where its slope is 0
    is_bounded = slope(low) < 0 < slope(high) or (slope(low) <= 0 <= slope(high) and -END < low <= high < END)
    log_b = find_zero(slope, low, high) if is_bounded else high if slope(high) <= 0 else low
    best = evaluations[log_b]
    return Temperature(math.exp(-log_b), best.mean_loss, best.calibration_error, passes, is_bounded)


def find_zero(slope: Callable[[float], float], low: float, high: float) -> float:
    """The zero of a slope that rises from `low` to `high`, within the precision; the slope has been called there."""
    at_low, at_high, before, side = slope(low), slope(high), math.inf, 0.0
    while True:
        x = high - at_high * (high - low) / (at_high - at_low) if at_high > at_low else low
        value = slope(x)
        if value == 0 or abs(x - before) < PRECISION / 2:
            return x
        # Illinois: an end that stays twice gives way by half, so that both ends close in
        keeps_end, before, side = value * side > 0, x, value
        if value < 0:
            low, at_low, at_high = x, value, at_high / 2 if keeps_end else at_high
        else:
            high, at_high, at_low = x, value, at_low / 2 if keeps_end else at_low
