r"""The temperature of the least loss, found from means that a pass gives anyhow.

With the inverse temperature b the loss of a row is log Σ exp(b x_j) − b x_y, and

.. math:: b \frac{d}{db} \bar\ell(b) = \bar\ell(b) - \bar H(b)

so the loss is least where its mean is the mean entropy. The loss is convex in b [1]_: there is one such place, or none.

.. [1] Guo et al., "On calibration of modern neural networks", ICML 2017, section 4.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from xent.evaluation.statistics.metrics import Evaluation, Temperature

STEP = math.log(2)
END = 10 * STEP
"""Temperatures from 2**-10 to 2**10 are searched."""
PRECISION = 1e-4
"""How far log T may be from the best one; the loss is then off by about its square."""


def fit(at: Callable[[float], Evaluation], plain: Evaluation) -> Temperature:
    """The temperature of the least loss.

    Parameters
    ----------
    at : callable
        The numbers of the set with its logits multiplied by what is given.
    plain : Evaluation
        Those at 1.
    """
    passes = 1
    known = {0.0: plain}  # by log b

    def slope(place: float) -> float:
        nonlocal passes
        if place not in known:
            known[place] = at(math.exp(place))
            passes += 1
        return known[place].mean_loss - known[place].entropy

    low = high = 0.0
    while slope(high) < 0 and high < END:
        low, high = high, high + STEP
    while slope(low) > 0 and low > -END:
        low, high = low - STEP, low
    # at the ends a loss that falls for ever may underflow to 0, where its slope is 0
    is_bounded = slope(low) < 0 < slope(high) or (slope(low) <= 0 <= slope(high) and -END < low <= high < END)
    place = root(slope, low, high) if is_bounded else high if slope(high) <= 0 else low
    best = known[place]
    return Temperature(math.exp(-place), best.mean_loss, best.calibration_error, passes, is_bounded)


def root(slope: Callable[[float], float], low: float, high: float) -> float:
    """Where the slope, which rises from low to high, is 0 within the precision; the slope there is known."""
    below, above, before, side = slope(low), slope(high), math.inf, 0.0
    while True:
        place = high - above * (high - low) / (above - below) if above > below else low
        here = slope(place)
        if here == 0 or abs(place - before) < PRECISION / 2:
            return place
        # Illinois: an end that stays twice gives way by half, so that both ends close in
        keeps_end, before, side = here * side > 0, place, here
        if here < 0:
            low, below, above = place, here, above / 2 if keeps_end else above
        else:
            high, above, below = place, here, below / 2 if keeps_end else below
