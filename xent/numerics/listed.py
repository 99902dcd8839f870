r"""Soft targets of a few listed classes for each row, and of all its other classes together: the tail.

Listed are k ids and their weights; the tail is one class more, whose probability is that of the classes that are not
listed: a fold over these, for 1 − Σ p of the listed ones has no digits left where it is small.

.. math::
    \ell = \sum_{i \in \mathrm{listed}} t_i (\log Z - x_i) + q \Bigl(\log Z - \log \sum_{j \notin \mathrm{listed}}
    e^{x_j}\Bigr)

The partial of such a row is two partials side by side, (rows, 2): the listed classes, and the others, whose
``target_sum`` is q. Both merge like any other.
"""

from __future__ import annotations

import math
from typing import Any

from .. import arrays
from ..arrays import Array
from . import fold, gradient
from .fold import Partial


def scattered(xp: Any, ids: Array, weights: Array, classes: int) -> Array:
    """The weights (rows, k) added up at their ids (rows, k), wide, as (rows, classes); ids outside are left out."""
    inside = (ids >= 0) & (ids < classes)
    return arrays.added_at(xp, xp.where(inside, ids, 0), xp.where(inside, weights, 0.0), classes)


def is_listed(xp: Any, ids: Array, classes: int, dtype: Any) -> Array:
    """Which classes are listed, (rows, classes), whatever their weights."""
    return scattered(xp, ids, xp.ones_like(ids, dtype=dtype), classes) != 0


def class_weight(xp: Any, ids: Array, weights: Array, of_classes: Array) -> Array:
    """Σ t_c w_c of each row, from the weight of each class (classes,): NaN where an id outside has a target.

    So that the row counts, and its bad id is seen; padding is left out.
    """
    inside = (ids >= 0) & (ids < of_classes.shape[0])
    flat = xp.reshape(xp.where(inside, ids, 0), (-1,))
    found = xp.reshape(xp.take(of_classes, flat, axis=0), tuple(ids.shape))
    outside = xp.where(weights == 0, xp.zeros_like(weights), math.nan)
    return xp.sum(xp.where(inside, weights * found, outside), axis=-1)


def bad_ids(ids: Array, weights: Array, classes: int) -> Array:
    """Which ids (rows, k) are outside and have a weight: one without is padding."""
    return ((ids < 0) | (ids >= classes)) & (weights != 0)


# The two partials of a row with a tail.


def masked(xp: Any, logits: Array, listed: Array) -> tuple[Array, Array]:
    """The logits of the listed classes, and those of the others, each −inf elsewhere."""
    return xp.where(listed, logits, -math.inf), xp.where(listed, -math.inf, logits)


def both(xp: Any, listed: Partial, others: Partial) -> Partial:
    """Two partials of the same rows (rows,) side by side."""
    return Partial(*(xp.stack(pair, axis=-1) for pair in zip(listed, others, strict=True)))


def columns(partial: Partial) -> tuple[Partial, Partial]:
    """The partial of the listed classes and that of the others."""
    listed, others = (Partial(*(field[..., column] for field in partial)) for column in range(2))
    return listed, others


def tail_as_class(xp: Any, others: Partial) -> Partial:
    """The other classes as a single one, whose logit is their log-partition function."""
    # subtle: two of +inf have no log-partition function, for which their maximum stands
    logit = xp.where(xp.isnan(others.sum_exp_rest), math.nan, fold.log_partition(xp, others))
    rest = xp.where(logit == -math.inf, -1.0, xp.zeros_like(logit))
    return Partial(logit, rest, xp.zeros_like(logit), others.target_sum)


def tail_logit(xp: Any, partial: Partial) -> Array:
    """log Σ exp of the other classes of each row."""
    return fold.log_partition(xp, columns(partial)[1])


def finish(xp: Any, partial: Partial) -> Array:
    """The loss of each row, from a partial with or without a tail."""
    if partial.max.ndim == 1:
        return fold.finish(xp, partial)
    listed, others = columns(partial)
    return fold.finish(xp, fold.merge(xp, listed, tail_as_class(xp, others)))


def whole_of(xp: Any, partial: Partial) -> Partial:
    """The partial of all classes, as the gradient reads it."""
    return fold.merge(xp, *columns(partial))


def tail_targets(xp: Any, logits: Array, listed: Array, others: Partial) -> Array:
    """The tail's target, shared by the other classes (rows, classes) as the predictions share theirs."""
    shares = gradient.softmax(xp, xp.where(listed, -math.inf, logits), others)
    # subtle: without other classes, or without a tail, there is nothing to share, and no softmax
    nothing = (others.target_sum == 0) | (others.max == -math.inf)
    return xp.where(listed | nothing[:, None], 0.0, others.target_sum[:, None] * shares)
