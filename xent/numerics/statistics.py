r"""What an evaluation asks of a row beside its loss, from the same read of the logits.

With :math:`s = \sum e^{2 (x_j - m)}` and :math:`u = \sum (m - x_j) e^{x_j - m}` beside the fold's numbers,

.. math::
    H = \log(1 + r) + \frac{u}{1 + r}, \qquad \sum_j p_j^2 = \frac{s}{(1 + r)^2}

and the rank of the label counts the classes that come before it. All of it merges over classes as the fold does.
"""

from __future__ import annotations

import math
from typing import Any, Generic, NamedTuple

from ..arrays import Array, FieldT
from .fold import Partial, finish, gather, log1p_rest, log_partition, merge, ordered, shifted_block, step_between, total
from .targets import Rows


class Statistics(NamedTuple):
    """A :class:`Partial` and what an evaluation asks of the same read of the logits.

    Attributes
    ----------
    partial : Partial
        The fold's numbers.
    label_rank : array, shape (rows,), int64
        How many classes come before the label: larger logits, and equal ones of a smaller index.
    sum_squares : array, shape (rows,)
        :math:`\\sum e^{2 (x_j - m)}`, the maximum's 1 included.
    spread : array, shape (rows,)
        :math:`\\sum (m - x_j) e^{x_j - m}`, 0 where the exponential is 0.
    """

    partial: Partial
    label_rank: Array
    sum_squares: Array
    spread: Array


class RowStatistics(NamedTuple, Generic[FieldT]):
    """What :func:`xent.row_statistics` returns; every array has the shape of the labels.

    Attributes
    ----------
    loss : array
        Nats; 0 where ignored, NaN where the label is out of range and that does not raise.
    lse : array
        log Σ exp of the logits.
    label_probability : array
        The probability of the label.
    top_probability : array
        The largest probability of the row: its confidence.
    label_rank : array, int64
        How many classes come before the label, 0 for a hit; −1 if there is no order (NaN, all −inf) or no label.
    entropy : array
        −Σ p log p, nats.
    sum_p_squared : array
        Σ p², from which the Brier score is 1 − 2 p_label + Σ p².
    """

    loss: FieldT
    lse: FieldT
    label_probability: FieldT
    top_probability: FieldT
    label_rank: FieldT
    entropy: FieldT
    sum_p_squared: FieldT


def statistics(xp: Any, logits: Array, labels: Array, label_logit: Array) -> Statistics:
    """The statistics of one block; ``label_logit`` (rows,) is the label's logit, whichever block has its class."""
    block = shifted_block(xp, logits)
    at_label, inside = gather(xp, block.gap, labels)
    partial = Partial(
        block.max, block.sum_exp_rest, xp.where(inside, at_label, 0.0), xp.astype(inside, block.max.dtype)
    )
    exps = xp.exp(-block.gap)
    spread = total(xp, xp.where(exps == 0, 0.0, block.gap * exps))
    squares, spread = (xp.astype(sums, block.max.dtype, copy=False) for sums in (total(xp, exps * exps), spread))
    return Statistics(partial, rank(xp, block.logits, labels, label_logit), squares, spread)


def rank(xp: Any, logits: Array, labels: Array, label_logit: Array) -> Array:
    """How many classes come before the label, (rows, classes) to (rows,): those above it, and equal ones before it."""
    label_logit = xp.astype(label_logit, logits.dtype, copy=False)[:, None]
    classes = xp.arange(logits.shape[-1], device=getattr(logits, "device", None))
    before = (logits > label_logit) | ((logits == label_logit) & (classes < labels[:, None]))
    return xp.sum(xp.astype(before, labels.dtype), axis=-1)


def merge_statistics(xp: Any, a: Statistics, b: Statistics) -> Statistics:
    """The statistics of two disjoint sets of classes, from theirs."""
    swap, step = step_between(xp, a.partial, b.partial)
    shrink = xp.exp(-step)
    rest_lo = xp.where(swap, a.partial.sum_exp_rest, b.partial.sum_exp_rest)
    squares_hi, squares_lo = ordered(xp, swap, a.sum_squares, b.sum_squares)
    spread_hi, spread_lo = ordered(xp, swap, a.spread, b.spread)
    return Statistics(
        merge(xp, a.partial, b.partial),
        a.label_rank + b.label_rank,
        squares_hi + squares_lo * shrink * shrink,
        spread_hi + xp.where(shrink == 0, 0.0, (spread_lo + (1 + rest_lo) * step) * shrink),
    )


def finish_statistics(xp: Any, statistics: Statistics, rows: Rows) -> RowStatistics:
    """The statistics of whole rows, from those of all their classes."""
    partial = statistics.partial
    loss, total_exp = finish(xp, partial), 1 + partial.sum_exp_rest
    invalid = (partial.max == -math.inf) | xp.isnan(partial.sum_exp_rest)
    top, entropy, squares = (
        xp.where(invalid, math.nan, value)
        for value in (
            1 / total_exp,
            log1p_rest(xp, partial) + statistics.spread / total_exp,
            statistics.sum_squares / (total_exp * total_exp),
        )
    )
    result = RowStatistics(
        loss,
        log_partition(xp, partial),
        xp.exp(-loss),
        top,
        xp.where(invalid, -1, statistics.label_rank),
        entropy,
        squares,
    )
    return without_label(xp, result, rows)


def without_label(xp: Any, statistics: RowStatistics, rows: Rows) -> RowStatistics:
    """The statistics with 0, NaN or −1 for what depends on the label, in ignored rows and those of bad labels."""
    loss, probability, rank = statistics.loss, statistics.label_probability, statistics.label_rank
    for mask, value in ((rows.bad, math.nan), (rows.ignored, 0.0)):
        if mask is not None:
            loss = xp.where(mask, value, loss)
            probability, rank = xp.where(mask, math.nan, probability), xp.where(mask, -1, rank)
    return statistics._replace(loss=loss, label_probability=probability, label_rank=rank)


def of_log_probabilities(xp: Any, statistics: Statistics, at_label: Array) -> RowStatistics:
    """The statistics of rows of log-probabilities, which are taken as they are, from theirs as logits.

    ``at_label`` (rows,) is the log-probability of the label.
    """
    partial, total_exp = statistics.partial, 1 + statistics.partial.sum_exp_rest
    has_nan, all_zero = xp.isnan(partial.sum_exp_rest), partial.max == -math.inf
    top = xp.exp(partial.max)
    # Σ p (−log p) with p = top · exp(−gap) and −log p = gap − max
    entropy = top * (statistics.spread - partial.max * total_exp)
    loss = xp.where(has_nan & (partial.max != math.inf), math.nan, 0.0 - at_label)
    return RowStatistics(
        loss,
        log_partition(xp, partial),
        xp.exp(-loss),
        top,
        xp.where(all_zero | has_nan, -1, statistics.label_rank),
        xp.where(all_zero, 0.0, entropy),
        xp.where(all_zero, 0.0, top * top * statistics.sum_squares),
    )
