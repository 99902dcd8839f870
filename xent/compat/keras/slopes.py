"""The derivatives of the three crossentropies in the predictions, of NumPy's arrays: TensorFlow asks for them."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

import xent

from ..operands import widen, without_fp_warnings
from . import tensors
from .arguments import binary_targets, class_indices, soft_targets
from .probabilities import EPSILON, clipped_probabilities, mean

Array = Any


def of_tensors(function: Any, slope: Any, y_true: Any, y_pred: Any, **options: Any) -> Any:
    """The losses of a function whose derivative in the predictions is ``slope``, of tensors."""
    loss, slope = (functools.partial(rule, **options) for rule in (function, slope))
    return tensors.rows(loss, slope, y_true, y_pred, options["axis"])


@without_fp_warnings
def slope_of_targets(y_true: Array, y_pred: Array, from_logits: bool, label_smoothing: float, axis: int) -> Array:
    """The derivative of :func:`categorical_crossentropy`."""
    t, y_pred = soft_targets("categorical_crossentropy", y_true, y_pred, label_smoothing, axis)
    if from_logits:
        infinite = np.any(y_pred == math.inf, axis=axis, keepdims=True)
        return np.where(infinite, math.nan, xent.softmax(y_pred, axis=axis) - t)
    total = np.sum(y_pred, axis=axis, keepdims=True)
    p = y_pred / total
    of_p = slope_of_clipped(p, -t / clipped_probabilities(p))
    return (of_p - np.sum(of_p * p, axis=axis, keepdims=True)) / total


@without_fp_warnings
def slope_of_labels(y_true: Array, y_pred: Array, from_logits: bool, ignore_class: int | None, axis: int) -> Array:
    """The derivative of :func:`sparse_categorical_crossentropy`."""
    labels = class_indices(y_true, y_pred, axis)
    p = y_pred if from_logits else clipped_probabilities(y_pred)
    logits = y_pred if from_logits else np.log(widen(p))
    both = xent.value_and_grad(xent.sparse_cross_entropy)
    slope = both(logits, labels, axis=axis, ignore_index=ignore_class)[1]
    if not from_logits:
        return slope_of_clipped(y_pred, slope / p)
    infinite = np.any(logits == math.inf, axis=axis) & (labels != ignore_class)
    return np.where(np.expand_dims(infinite, axis), math.nan, slope)


@without_fp_warnings
def slope_of_binary_targets(
    y_true: Array, y_pred: Array, from_logits: bool, label_smoothing: float, axis: Any
) -> Array:
    """The derivative of :func:`binary_crossentropy`."""
    z, y_pred = binary_targets("binary_crossentropy", y_true, y_pred, label_smoothing)
    both = xent.value_and_grad(xent.binary_cross_entropy)
    if from_logits:
        slope = both(y_pred, z)[1]
    else:
        slope = slope_of_clipped(y_pred, both(clipped_probabilities(y_pred), z, kind="probabilities")[1])
    rows = mean(slope, axis, slope).size
    return slope * (rows / slope.size if slope.size else 1.0)


def slope_of_clipped(p: Array, slope: Array) -> Array:
    """The derivative in the probabilities before they were clipped: 0 outside."""
    return np.where((p >= EPSILON) & (p <= 1 - EPSILON), slope, 0)
