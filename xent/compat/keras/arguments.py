"""The targets and the predictions of Keras' losses, as arrays of one library and dtype."""

from __future__ import annotations

import warnings
from typing import Any

from .. import tensorflow as tf
from ..operands import array_namespace, as_arrays, fit_together, has_shape

Array = Any


def as_integers(labels: Array) -> Array:
    """The labels in the library's default integer dtype; floats are cut."""
    xp = array_namespace(labels)
    return xp.astype(labels, xp.arange(1).dtype, copy=False)


def class_indices(labels: Array, predictions: Array, axis: int) -> Array:
    """The labels as integers, without a class axis of size 1; raises ValueError unless there is one for each row."""
    if labels.ndim == predictions.ndim and predictions.ndim > 0 and labels.shape[axis] == 1:
        labels = array_namespace(labels).squeeze(labels, axis=axis)
    rows = list(predictions.shape)
    del rows[axis : axis + 1 or None]
    if not has_shape(labels, tuple(rows)) or predictions.ndim == 0:
        raise ValueError(
            f"sparse_categorical_crossentropy: the labels must have shape {tuple(rows)}, got {tuple(labels.shape)} for "
            f"predictions {tuple(predictions.shape)}. Pass one label for each row."
        )
    return as_integers(labels)


def soft_targets(
    function: str, y_true: Array, y_pred: Array, label_smoothing: float, axis: Any, same_shape: bool = True
) -> tuple[Array, Array]:
    """Soft targets in the dtype of the predictions, smoothed, and the predictions."""
    if isinstance(axis, bool):
        raise ValueError(f"{function}: `axis` must be an integer, got {axis}. Pass the one class axis.")
    y_true, y_pred = floating_pair(function, y_true, y_pred, same_shape)
    if y_pred.ndim == 0:
        raise IndexError(
            f"{function}: the predictions must have a class axis, got a 0-d array. Pass shape (C,) or (N, C)."
        )
    if y_pred.shape[-1] == 1:
        text = f"{function}: one class only, got y_pred of shape {tuple(y_pred.shape)}. Is it binary_crossentropy?"
        warnings.warn(text, SyntaxWarning, stacklevel=4)
    y_true = array_namespace(y_pred).astype(y_true, y_pred.dtype, copy=False)
    if label_smoothing:
        y_true = y_true * (1 - label_smoothing) + label_smoothing / y_true.shape[-1]
    return y_true, y_pred


def binary_targets(function: str, y_true: Array, y_pred: Array, label_smoothing: float) -> tuple[Array, Array]:
    """Yes-or-no targets in the dtype of the predictions, smoothed, and the predictions."""
    y_true, y_pred = floating_pair(function, y_true, y_pred, same_shape=True)
    y_true = array_namespace(y_pred).astype(y_true, y_pred.dtype, copy=False)
    return (y_true * (1 - label_smoothing) + 0.5 * label_smoothing if label_smoothing else y_true), y_pred


def floating_pair(function: str, targets: Array, predictions: Array, same_shape: bool = False) -> tuple[Array, Array]:
    """Both as arrays, the predictions floating; raises ValueError if they must have the same shape and do not."""
    targets, predictions = as_arrays(targets, predictions)
    if "float" not in str(predictions.dtype):
        raise TypeError(
            f"{function}: the predictions must be real floating, got {predictions.dtype}. Cast them to float32."
        )
    if same_shape and not tf.same_shape(targets, predictions):
        raise ValueError(
            f"{function}: the targets must have the same shape as the predictions, {tuple(predictions.shape)}, "
            f"got {tuple(targets.shape)}. For labels call sparse_categorical_crossentropy."
        )
    return targets, predictions


def require_fit(function: str, name: str, array: Array, like: Array) -> None:
    """Raises ValueError unless the array broadcasts with the other."""
    if not fit_together(array, like):
        raise ValueError(
            f"{function}: {name} must broadcast with shape {tuple(like.shape)}, got {tuple(array.shape)}. Reshape it."
        )
