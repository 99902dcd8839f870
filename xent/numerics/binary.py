r"""Sigmoid cross entropy of independent yes-or-no predictions, element by element.

.. math:: \ell = t\, c\, \operatorname{softplus}(-x) + (1 - t) \operatorname{softplus}(x), \qquad
          \operatorname{softplus}(x) = \max(x, 0) + \log(1 + e^{-|x|})

where :math:`c` is ``pos_weight``. Infinite logits take their limits, 0 or +inf, as cross_entropy([0, x]) does.
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array
from .fold import compute_dtype


def softplus(xp: Any, logits: Array) -> Array:
    """log(1 + e^x), to full relative accuracy on both sides."""
    return xp.where(logits > 0, logits, 0.0) + xp.log1p(xp.exp(-xp.abs(logits)))


def costs(xp: Any, predictions: Array, kind: str) -> tuple[Array, Array]:
    """What a certain yes and a certain no would cost: −log p and −log(1 − p)."""
    if kind == "logits":
        return softplus(xp, -predictions), softplus(xp, predictions)
    if kind == "probabilities":
        return 0.0 - xp.log(predictions), 0.0 - xp.log1p(-predictions)
    # log(1 − e^l): log(−expm1(l)) near 0, log1p(−e^l) below, each where it is accurate
    near = predictions > -math.log(2)
    return 0.0 - predictions, 0.0 - xp.where(near, xp.log(-xp.expm1(predictions)), xp.log1p(-xp.exp(predictions)))


def weighted(xp: Any, shares: Array, values: Array) -> Array:
    """shares · values, 0 where the share is 0, NaN where the value is."""
    return xp.where((shares == 0) & ~xp.isnan(values), 0.0, shares * values)


def loss(xp: Any, predictions: Array, targets: Array, pos_weight: Any, kind: str) -> Array:
    """The loss of every element, in the compute dtype; targets in it already."""
    predictions = xp.astype(predictions, compute_dtype(xp, predictions.dtype), copy=False)
    yes, no = costs(xp, predictions, kind)
    positive = targets if pos_weight is None else targets * pos_weight
    return weighted(xp, positive, yes) + weighted(xp, 1 - targets, no)


def slopes(xp: Any, predictions: Array, kind: str) -> tuple[Array, Array]:
    """The derivatives of :func:`costs`."""
    if kind == "logits":
        small = xp.exp(-xp.abs(predictions))
        high, low = 1 / (1 + small), small / (1 + small)  # sigmoid(|x|) and sigmoid(−|x|), neither by 1 − p
        return -xp.where(predictions > 0, low, high), xp.where(predictions > 0, high, low)
    if kind == "probabilities":
        return -1 / predictions, 1 / (1 - predictions)
    return xp.where(xp.isnan(predictions), predictions, -1.0), xp.exp(predictions) / (0.0 - xp.expm1(predictions))


def gradient(xp: Any, predictions: Array, targets: Array, pos_weight: Any, scale: Array, kind: str) -> Array:
    """The derivative of every element's loss, times ``scale``, in the dtype of the predictions; 0 where scale is 0.

    For logits without ``pos_weight`` this is sigmoid(x) − t, taken as (1 − t) p − t (1 − p), which does not cancel.
    """
    wide = xp.astype(predictions, compute_dtype(xp, predictions.dtype), copy=False)
    yes, no = slopes(xp, wide, kind)
    positive = targets if pos_weight is None else targets * pos_weight
    both = weighted(xp, positive, yes) + weighted(xp, 1 - targets, no)
    return xp.astype(xp.where(scale == 0, 0.0, both * scale), predictions.dtype, copy=False)
