"""TensorFlow's tensors in Keras' losses: NumPy computes the losses and their gradient, of one batch after the other.

They are what ``keras.Model.fit`` hands to a loss on its TensorFlow backend. TensorFlow calls Python back for each
batch, in a graph too (``tf.numpy_function``); XLA does not compile that: ``jit_compile=True`` is TensorFlow's own
error. Targets have no gradient, and there are no second derivatives.
"""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any
Tensor = Any
Rule = Callable[[Array, Array], Array]


def is_tensor(value: Any) -> bool:
    """Whether the value is a tensor of TensorFlow, eager or in a graph: neither a variable nor Keras' symbolic one."""
    tensorflow: Any = sys.modules.get("tensorflow")
    return hasattr(tensorflow, "Tensor") and isinstance(value, tensorflow.Tensor)


def rows(loss: Rule, slope: Rule, y_true: Any, y_pred: Tensor, axis: Any) -> Tensor:
    """The losses of the rows, loss(y_true, y_pred), differentiable in the predictions.

    ``slope(y_true, y_pred)``, of the shape of the predictions, is the derivative of each row's loss; both rules are
    called with NumPy's arrays, under the settings (``xent.using``) that hold here. The losses are without ``axis``.
    """
    tf = sys.modules["tensorflow"]
    axes = range(y_pred.ndim) if axis is None else axis if isinstance(axis, list | tuple) else (axis,)
    summed = sorted(one % y_pred.ndim for one in axes)
    shape = [size for place, size in enumerate(y_pred.shape) if place not in summed]
    context = contextvars.copy_context()

    def computed(rule: Rule, *arrays: Array) -> Array:
        return np.asarray(context.copy().run(rule, *arrays), dtype=y_pred.dtype.as_numpy_dtype)

    @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
    def losses(predictions: Tensor) -> Any:
        arrays = [y_true, predictions]
        values = tf.numpy_function(lambda *arrays: computed(loss, *arrays), arrays, y_pred.dtype)
        values.set_shape(shape)

        def gradient(change: Tensor) -> Tensor:
            for place in summed:
                change = tf.expand_dims(change, place)
            of_rows = tf.numpy_function(lambda *arrays: computed(slope, *arrays), arrays, y_pred.dtype)
            of_rows.set_shape(predictions.shape)
            return change * of_rows

        return values, gradient

    return losses(y_pred)


def cast(values: Any, dtype: Any) -> Tensor:
    """The values as a tensor of the dtype."""
    return sys.modules["tensorflow"].cast(values, dtype)


def is_counted(y_true: Tensor, ignored: int | None, values: Tensor) -> Tensor | None:
    """Whether each row's label is not the ignored one, 1 or 0; None if no label is ignored."""
    if ignored is None:
        return None
    tf = sys.modules["tensorflow"]
    labels = tf.cast(tf.reshape(y_true, tf.shape(values)), tf.int64)
    return tf.cast(labels != ignored, values.dtype)


def weighed_and_reduced(values: Tensor, sample_weight: Any, mask: Tensor | None, reduction: str | None) -> Tensor:
    """The losses times their weights and their mask, reduced as ``keras.weigh_and_reduce`` does."""
    tf = sys.modules["tensorflow"]
    weight = mask
    if sample_weight is not None:
        weight = tf.cast(sample_weight, values.dtype)
        if weight.ndim == values.ndim + 1 == 2:  # weights (N, 1)
            values, mask = tf.expand_dims(values, -1), None if mask is None else tf.expand_dims(mask, -1)
        weight = weight if mask is None else weight * mask
    if weight is not None:
        values = values * weight
    if reduction in (None, "none") or values.ndim == 0:
        return values
    if reduction == "mean_with_sample_weight" and weight is not None:
        return tf.math.divide_no_nan(tf.reduce_sum(values), tf.reduce_sum(weight))
    if reduction == "sum":
        return tf.reduce_sum(values)
    if mask is not None:
        return tf.math.divide_no_nan(tf.reduce_sum(values), tf.reduce_sum(mask))
    return tf.reduce_mean(values)
