"""Soft targets of a few classes for each row, as an expression over whole arrays, to be traced or transformed.

What is traced is the call with an array of all targets. A tail is a class more: its logit is the log-partition function
of the classes that are not listed, which the library differentiates.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

from ...arrays import Array
from ...contract.problem import Problem, Weights
from ...numerics import fold, listed
from ...numerics.targets import Rows
from . import traced
from .blocks import ListedTargets
from .rows import rows_of_ids
from .schedule import listed_targets
from .traced import Pieces, flat


def run(xp: Any, pieces: Pieces, problem: Problem, predictions: Array, targets: Any, weights: Weights) -> Any:
    """The result of one call."""
    shape, axis = tuple(predictions.shape), problem.axis
    dtype, classes = fold.compute_dtype(xp, predictions.dtype), shape[axis]
    few = listed_targets(xp, problem, targets, weights.ids, dtype)
    if few.tail is not None:
        return run_tail(xp, pieces, problem, predictions, few, weights)
    soft = marked(xp, problem, few, listed.scattered(xp, few.ids, few.weights, classes), classes)
    soft = unflattened(xp, soft, shape, axis)
    return traced.run(xp, pieces, replace(problem, tail=""), predictions, soft, weights._replace(ids=None))


def unflattened(xp: Any, rows: Array, shape: tuple[int, ...], axis: int) -> Array:
    """Values (rows, classes) in the shape of the predictions."""
    last = len(shape) - 1
    whole = xp.reshape(rows, (*shape[:axis], *shape[axis + 1 :], shape[axis]))
    return xp.permute_dims(whole, (*range(axis), last, *range(axis, last)))


def marked(xp: Any, problem: Problem, few: ListedTargets, soft: Array, classes: int) -> Array:
    """Targets of all classes, (rows, n), with NaN in the rows of bad ids; not of a slice, where others may have them."""
    if problem.method in ("partial", "gradient"):
        return soft
    bad = xp.any(listed.bad_ids(few.ids, few.weights, classes), axis=-1)
    return xp.where(bad[:, None], math.nan, soft)


def rows_of_call(xp: Any, problem: Problem, few: ListedTargets, classes: int, weights: Weights) -> Rows:
    """What the caller says of each row."""
    class_weight = None if weights.classes is None else xp.astype(weights.classes, few.weights.dtype, copy=False)
    return rows_of_ids(xp, problem, few, classes, weights.sample, class_weight)


class TailAsClass(NamedTuple):
    """Rows with one class for all that are not listed, after the others."""

    logits: Array  # (rows, classes + 1): −inf where a class is not listed
    targets: Array  # (rows, classes + 1)
    others: Array  # (rows, classes): the logits of the classes that are not listed
    is_other: Array  # (rows, classes)


def with_tail(xp: Any, pieces: Pieces, x: Array, few: ListedTargets) -> TailAsClass:
    """The rows of a call with a tail, from logits (rows, classes)."""
    assert few.tail is not None
    classes = x.shape[-1]
    is_listed = listed.is_listed(xp, few.ids, classes, x.dtype)
    is_other = ~is_listed & (x != -math.inf)
    has_others = xp.any(is_other, axis=-1)
    # subtle: a row without other classes has 0 for their logits, or its derivative would be NaN
    others = xp.where(is_other, x, xp.where(has_others[:, None], -math.inf, 0.0))
    of_tail = xp.where(has_others, pieces.logsumexp(others), -math.inf)
    head = xp.where(is_listed, x, -math.inf)
    targets = xp.concat([listed.scattered(xp, few.ids, few.weights, classes), few.tail[:, None]], axis=-1)
    return TailAsClass(xp.concat([head, of_tail[:, None]], axis=-1), targets, others, is_other)


def run_tail(
    xp: Any, pieces: Pieces, problem: Problem, predictions: Array, few: ListedTargets, weights: Weights
) -> Any:
    """The result of a call with a tail: that of the listed classes and one more."""
    shape, axis = tuple(predictions.shape), problem.axis
    x = flat(xp, predictions, axis, few.weights.dtype)
    rows = rows_of_call(xp, problem, few, x.shape[-1], weights)
    if rows.ignored is not None:
        x = xp.where(rows.ignored[:, None], 0.0, x)
    whole = with_tail(xp, pieces, x, few)
    soft = marked(xp, problem, few, whole.targets, x.shape[-1])
    sample = None if weights.sample is None else xp.reshape(weights.sample, (-1,))
    by_row = replace(problem, tail="", ndim=2, axis=1)
    result = traced.run(xp, pieces, by_row, whole.logits, soft, weights._replace(sample=sample, ids=None))
    loss = result if problem.method == "loss" else result[0]
    if problem.options.reduction == "none":
        loss = xp.reshape(loss, (*shape[:axis], *shape[axis + 1 :]))
    if problem.method == "loss":
        return loss
    slope = result[1]
    shares = xp.where(whole.is_other, pieces.softmax(whole.others), 0.0)
    slope = xp.where(whole.is_other, slope[:, -1:] * shares, slope[:, :-1])
    slope = unflattened(xp, slope, shape, axis)
    return loss, pieces.constant(xp.astype(slope, predictions.dtype, copy=False))
