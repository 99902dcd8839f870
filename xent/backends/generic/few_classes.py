"""Soft targets of a few classes for each row, as an expression over whole arrays, to be traced or transformed.

What is traced is the call with an array of all targets; a tail has a cost of its own beside it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ...arrays import Array
from ...contract.problem import Problem, Weights
from ...numerics import fold, listed
from ...numerics.targets import Rows
from . import traced
from .blocks import ListedTargets
from .rows import rows_of_ids
from .schedule import listed_targets
from .traced import Pieces


def run(xp: Any, pieces: Pieces, problem: Problem, predictions: Array, targets: Any, weights: Weights) -> Any:
    """The result of one call."""
    shape, axis, last = tuple(predictions.shape), problem.axis, problem.ndim - 1
    few = listed_targets(xp, problem, targets, weights.ids, fold.compute_dtype(xp, predictions.dtype))
    soft = marked(xp, problem, few, listed.scattered(xp, few.ids, few.weights, shape[axis]))
    soft = xp.reshape(soft, (*shape[:axis], *shape[axis + 1 :], shape[axis]))
    soft = xp.permute_dims(soft, (*range(axis), last, *range(axis, last)))
    pieces = pieces if few.tail is None else with_tail(xp, pieces, few)
    return traced.run(xp, pieces, replace(problem, tail=""), predictions, soft, weights._replace(ids=None))


def marked(xp: Any, problem: Problem, few: ListedTargets, soft: Array) -> Array:
    """Targets (rows, classes) with NaN in the rows of bad ids; not of a slice, where other slices may have them."""
    if problem.method in ("partial", "gradient"):
        return soft
    bad = xp.any(listed.bad_ids(few.ids, few.weights, soft.shape[-1]), axis=-1)
    return xp.where(bad[:, None], math.nan, soft)


def rows_of_call(xp: Any, problem: Problem, few: ListedTargets, classes: int, weights: Weights) -> Rows:
    """What the caller says of each row."""
    class_weight = None if weights.classes is None else xp.astype(weights.classes, few.weights.dtype, copy=False)
    return rows_of_ids(xp, problem, few, classes, weights.sample, class_weight)


def with_tail(xp: Any, pieces: Pieces, few: ListedTargets) -> Pieces:
    """The pieces of a call with a tail: the loss has its cost, and w p − t its targets."""

    def apart(x: Array, chosen: Array) -> tuple[Array, Array, Array]:
        """The logits of the chosen classes beside −inf, which they are, and their log-sum-exp."""
        chosen = chosen & (x != -math.inf)
        has_any = xp.any(chosen, axis=-1)
        # subtle: a row without any has 0 for all logits, or its derivative would be NaN
        logits = xp.where(chosen, x, xp.where(has_any[:, None], -math.inf, 0.0))
        return logits, chosen, xp.where(has_any, pieces.logsumexp(logits), -math.inf)

    def is_listed(x: Array) -> Array:
        return listed.is_listed(xp, few.ids, x.shape[-1], x.dtype)

    def loss(x: Array, soft: Array, on: float, off: float) -> Array:
        chosen = is_listed(x)
        odds = apart(x, ~chosen)[2] - apart(x, chosen)[2]  # of the tail, as a logit
        cost, _ = pieces.binary.costs(xp, odds, "logits")
        return pieces.loss(x, soft, on, off) + pieces.binary.product(xp, few.tail, cost)

    def residual(x: Array, soft: Array, on: float, off: float) -> Array:
        assert few.tail is not None
        others, chosen, _ = apart(x, ~is_listed(x))
        shares, tail = xp.where(chosen, pieces.softmax(others), 0.0), few.tail[:, None]
        slope = pieces.residual(x, soft + tail * shares, on, off)
        # without other classes no target has its share, and the sum of all targets has it all the same
        return xp.where(xp.any(chosen, axis=-1)[:, None], slope, slope + tail * pieces.softmax(x))

    return pieces._replace(loss=loss, residual=residual, loss_and_residual=None, fused=None)
