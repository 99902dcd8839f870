"""Losses of rows with torch's NaN, and their reductions.

Leaves out torch's signatures (``functions.py``).
"""

from __future__ import annotations

import math
from typing import Any

import xent

from ..operands import (
    nan_where,
    nan_where_invalid,
)
from .arguments import (
    class_axis,
)
from .labels import (
    class_weights,
)

Array = Any


def smoothed(targets: Array, smoothing: float, input: Array) -> Array:
    """The targets, smoothed evenly over the classes."""
    return targets if smoothing == 0 else (1 - smoothing) * targets + smoothing / input.shape[class_axis(input)]


def dense_losses(xp: Any, input: Array, targets: Array, weight: Array | None, ignored: Array | None = None) -> Array:
    """The losses of class-weighted targets, row by row, with torch's NaN for infinite logits."""
    axis = class_axis(input)
    targets = targets if weight is None else targets * class_weights(weight, input)
    counted = None if ignored is None else ~ignored
    losses = xent.cross_entropy(input, targets, axis=axis, sample_weight=counted)
    infinite = xp.any(input == math.inf, axis=axis)
    zero_times_infinity = xp.any((input == -math.inf) & (targets == 0), axis=axis)
    if counted is not None:
        infinite, zero_times_infinity = infinite & counted, zero_times_infinity & counted
    losses = nan_where_invalid(xp, losses, infinite, gradient=True)
    return nan_where_invalid(xp, losses, zero_times_infinity, gradient=False)


def weigh(xp: Any, losses: Array, weight: Array) -> Array:
    """The weighted losses; NaN, without NumPy's warning, for an infinite loss of weight 0."""
    invalid = (weight == 0) & xp.isinf(losses)
    return xp.where(invalid, nan_where(xp, invalid, losses), losses) * weight


def negative_log(xp: Any, logarithm: Any, value: Array, pole: float) -> Array:
    """Minus the logarithm, at most 100; the logarithm is infinite at the pole."""
    regular = ~(value <= pole)
    result = -logarithm(xp.where(regular, value, pole + 1))
    return xp.where(regular & ~(result > 100), result, 100.0)


def reduce_losses(xp: Any, losses: Array, weights: Array, reduction: str, dtype: Any) -> Array:
    """The losses, their sum, or their sum over that of the weights, in the dtype."""
    if reduction != "none":
        losses, denominator = xp.sum(losses), xp.sum(weights)
        if reduction == "mean":
            empty = denominator == 0
            losses = xp.where(empty, nan_where(xp, empty, losses), losses / xp.where(empty, 1.0, denominator))
    return xp.astype(losses[...], dtype, copy=False)
