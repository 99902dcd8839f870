r"""Sigmoid cross entropy of independent yes-or-no predictions, element by element.

.. math:: \ell = t\, c\, \operatorname{softplus}(-x) + (1 - t) \operatorname{softplus}(x), \qquad
          \operatorname{softplus}(x) = \max(x, 0) + \log(1 + e^{-|x|})

where :math:`c` is ``pos_weight``. Infinite logits take their limits, 0 or +inf, as cross_entropy([0, x]) does.
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array


def softplus(xp: Any, logits: Array) -> Array:
    """log(1 + e^x), to full relative accuracy on both sides."""
    return xp.where(logits > 0, logits, 0.0) + xp.log1p(xp.exp(-xp.abs(logits)))


def weighted(xp: Any, mass: Array, value: Array) -> Array:
    """mass · value: 0 where the mass is 0 and the value infinite, NaN where one of them is."""
    # subtle: selected before the product, so that no NaN is made on the way
    return mass * xp.where((mass == 0) & xp.isinf(value), 0.0, value)


def product(xp: Any, a: Array, b: Array) -> Array:
    """a · b, where 0 · ±∞ is 0 whichever is which, as a derivative of :func:`weighted` asks for."""
    return weighted(xp, xp.where((b == 0) & xp.isinf(a), 0.0, a), b)


def costs(xp: Any, predictions: Array, kind: str) -> tuple[Array, Array]:
    """What a certain yes and a certain no would cost: −log p and −log(1 − p)."""
    if kind == "logits":
        return softplus(xp, -predictions), softplus(xp, predictions)
    if kind == "probabilities":
        return 0.0 - xp.log(predictions), 0.0 - xp.log1p(-predictions)
    # log(1 − e^l): log(−expm1(l)) near 0, log1p(−e^l) below, each where it is accurate
    near = predictions > -math.log(2)
    return 0.0 - predictions, 0.0 - xp.where(near, xp.log(-xp.expm1(predictions)), xp.log1p(-xp.exp(predictions)))


def slopes(xp: Any, predictions: Array, kind: str) -> tuple[Array, Array]:
    """The derivatives of :func:`costs`."""
    if kind == "logits":
        small = xp.exp(-xp.abs(predictions))
        high, low = 1 / (1 + small), small / (1 + small)  # sigmoid(|x|) and sigmoid(−|x|), neither by 1 − p
        return -xp.where(predictions > 0, low, high), xp.where(predictions > 0, high, low)
    if kind == "probabilities":
        return -1 / predictions, 1 / (1 - predictions)
    return xp.where(xp.isnan(predictions), predictions, -1.0), xp.exp(predictions) / (0.0 - xp.expm1(predictions))
