r"""The loss of probabilities and of log-probabilities.

.. math:: \ell = -\sum_j t_j \log p_j, \qquad
          \frac{\partial \ell}{\partial p_j} = -\frac{t_j}{p_j}, \qquad
          \frac{\partial \ell}{\partial \log p_j} = -t_j

There is no partition function, so nothing passes through the fold: blocks of classes merge by addition. Nothing is
clipped and nothing is renormalised: a probability of 0 under the target costs +inf.
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import Array
from .fold import compute_dtype, gather, share_of_total, total


def cost(xp: Any, predictions: Array, log: bool) -> Array:
    """−log p of every class, never −0.0; predictions are log p already where ``log``."""
    predictions = xp.astype(predictions, compute_dtype(xp, predictions.dtype), copy=False)
    return 0.0 - (predictions if log else xp.log(predictions))


def slope(xp: Any, predictions: Array, log: bool) -> Array:
    """The derivative of :func:`cost`: −1 / p, or −1 for log-probabilities."""
    predictions = xp.astype(predictions, compute_dtype(xp, predictions.dtype), copy=False)
    return xp.where(xp.isnan(predictions), predictions, -1.0) if log else -1.0 / predictions


def loss_dense(xp: Any, predictions: Array, targets: Array, log: bool) -> Array:
    """Σ t_j cost_j of one block, (rows, classes) to (rows,); 0 where the target is 0, but NaN where p is."""
    costs = cost(xp, predictions, log)
    terms = xp.where((targets == 0) & ~xp.isnan(costs), 0.0, targets * costs)
    return xp.astype(total(xp, terms), costs.dtype, copy=False)


def loss_sparse(xp: Any, predictions: Array, labels: Array, on: float, off: float, log: bool) -> Array:
    """on · cost at the label + off · Σ cost; a label outside the block adds nothing."""
    at_label, inside = gather(xp, predictions, labels)
    has_nan = xp.isnan(xp.max(predictions, axis=-1))  # the one read of the classes beside the label
    loss = xp.where(has_nan, math.nan, xp.where(inside, cost(xp, at_label, log), 0.0))
    if off == 0.0:
        return on * loss
    everywhere = share_of_total(xp, cost(xp, predictions, log), off)
    return everywhere if on == 0.0 else on * loss + everywhere


def gradient(xp: Any, predictions: Array, targets: Array, scale: Array, log: bool) -> Array:
    """targets · slope · scale of one block, in the dtype of the predictions; 0 where target or scale is 0."""
    slopes = slope(xp, predictions, log)
    dense = xp.where((targets == 0) & ~xp.isnan(slopes), 0.0, targets * slopes) * scale[:, None]
    return xp.astype(xp.where(scale[:, None] == 0, 0.0, dense), predictions.dtype, copy=False)
