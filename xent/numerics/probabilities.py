r"""The loss of probabilities and of log-probabilities.

.. math:: \ell = -\sum_j t_j \log p_j, \qquad
          \frac{\partial \ell}{\partial p_j} = -\frac{t_j}{p_j}, \qquad
          \frac{\partial \ell}{\partial \log p_j} = -t_j

There is no partition function, so nothing passes through the fold: blocks of classes merge by addition. Nothing is
clipped and nothing is renormalised: a probability of 0 under the target costs +inf.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..arrays import Array
from .fold import compute_dtype, gather, share_of_total, total
from .statistics import RowStatistics, rank


class ProbabilitySums(NamedTuple):
    """What an evaluation asks of probabilities beside the label's, from one read of them; rows side by side.

    A row with a NaN or a negative number has an ``entropy`` of NaN, and its other fields are not looked at.

    Attributes
    ----------
    total : array, shape (rows,)
        Σ p, wide.
    max : array, shape (rows,)
        The largest p, as it is given.
    sum_squares, entropy : array, shape (rows,)
        Σ p² and −Σ p log p, nats; 0 · log 0 is 0.
    label_p : array, shape (rows,)
        The probability of the label, as it is given.
    label_rank : array, shape (rows,), int64
        How many classes come before the label: larger probabilities, and equal ones of a smaller index. Of a label that
        is no class this and ``label_p`` are any numbers.
    """

    total: Array
    max: Array
    sum_squares: Array
    entropy: Array
    label_p: Array
    label_rank: Array


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


def sums(xp: Any, p: Array, labels: Array) -> ProbabilitySums:
    """The sums of one block, (rows, classes) to (rows,)."""
    p = xp.astype(p, compute_dtype(xp, p.dtype), copy=False)
    label_p, _ = gather(xp, p, labels)
    logs = xp.log(xp.where(p == 0, 1.0, p))  # subtle: so that 0 · log 0 has a derivative
    entropy, squares = (xp.astype(one, p.dtype, copy=False) for one in (total(xp, -(p * logs)), total(xp, p * p)))
    return ProbabilitySums(total(xp, p), xp.max(p, axis=-1), squares, entropy, label_p, rank(xp, p, labels, label_p))


def statistics_of_probabilities(xp: Any, sums: ProbabilitySums) -> RowStatistics:
    """The statistics of whole rows of probabilities, which are taken as they are given; any for a label of no class."""
    is_none, has_no_rank = xp.isnan(sums.entropy), sums.max == 0
    loss, label_p = cost(xp, sums.label_p, False), sums.label_p
    lse = xp.astype(xp.log(sums.total), loss.dtype, copy=False)
    fields = (loss, lse, label_p, sums.max, sums.entropy, sums.sum_squares)
    loss, lse, label_p, top, entropy, squares = (xp.where(is_none, math.nan, field) for field in fields)
    label_rank = xp.where(is_none | has_no_rank, -1, sums.label_rank)
    return RowStatistics(loss, lse, label_p, top, label_rank, entropy, squares)
