"""Losses of elements, and probabilities as Keras clips them."""

from __future__ import annotations

import math
import warnings
from typing import Any

import xent

from .. import tensorflow as tf
from ..operands import array_namespace, cast_like, nan_where, nan_where_invalid, scalar_like

Array = Any
EPSILON = 1e-7


def binary_loss(target: Array, output: Array, from_logits: bool) -> Array:
    """The loss of every yes-or-no target."""
    if from_logits:
        return tf.sigmoid_loss(target, output)
    p = clipped_probabilities(output)
    loss = xent.binary_cross_entropy(p, target, kind="probabilities")
    return nan_where_invalid(array_namespace(p), loss, (p == 1) & (target == 1), gradient=True)


def mean(loss: Array, axis: Any, like: Array) -> Array:
    """The mean over an axis, or several, in the dtype of ``like``."""
    return cast_like(array_namespace(loss).mean(loss, axis=tuple(axis) if isinstance(axis, list) else axis), like)


def sigmoid(logits: Array) -> Array:
    """The probability of yes, in the dtype of the logits: the loss of a certain yes is −log of it."""
    xp = array_namespace(logits)
    return cast_like(xp.exp(-xent.binary_cross_entropy(logits, xp.ones_like(logits))), logits)


def softmax(logits: Array, axis: int) -> Array:
    """The probabilities of the classes, in the dtype of the logits: NaN, and of gradient NaN, beside a +inf logit."""
    xp, p = array_namespace(logits), xent.softmax(logits, axis=axis)
    if logits.shape[axis] == 1:
        text = f"softmax: one class is always sure, got axis {axis} of {tuple(logits.shape)}. Is it a sigmoid?"
        warnings.warn(text, UserWarning, stacklevel=4)
    infinite = xp.any(logits == math.inf, axis=axis, keepdims=True)
    return cast_like(p * (1 + nan_where(xp, infinite, xp.sum(p, axis=axis, keepdims=True))), logits)


def clipped_probabilities(p: Array) -> Array:
    """The probabilities in [ε, 1 − ε], in their own dtype; the gradient is 0 outside, and for NaN."""
    xp = array_namespace(p)
    least, most = (scalar_like(value, p) for value in (EPSILON, 1 - EPSILON))
    outside = xp.where(p < least, least, xp.where(p > most, most, nan_where(xp, xp.isnan(p), p)))
    return xp.where((p >= least) & (p <= most), p, outside)
