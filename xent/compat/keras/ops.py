"""``keras.ops``: the losses that ``keras.losses`` calls, without smoothing, ignored labels and means."""

from __future__ import annotations

from typing import Any

import xent

from .. import tensorflow as tf
from ..operands import array_namespace, cast_like, widen, without_fp_warnings
from .arguments import class_indices, floating_pair
from .probabilities import binary_loss, clipped_probabilities

Array = Any


@without_fp_warnings
def categorical_crossentropy(target: Array, output: Array, from_logits: bool = False, axis: int = -1) -> Array:
    r"""``keras.ops.categorical_crossentropy``: see :func:`categorical_crossentropy`.

    Parameters
    ----------
    target : array, shape (\*batch, C), real
    output : array, shape (\*batch, C), real floating
    from_logits : bool, default False
    axis : int, default -1

    Returns
    -------
    array, shape (\*batch,), dtype of the output

    Raises
    ------
    TypeError, ValueError
        As :func:`xent.cross_entropy`.
    """
    target, output = floating_pair("categorical_crossentropy", target, output, same_shape=True)
    if from_logits:
        return tf.softmax_cross_entropy_with_logits(target, output, axis)
    p = clipped_probabilities(output / array_namespace(output).sum(output, axis=axis, keepdims=True))
    return cast_like(xent.cross_entropy(p, target, axis=axis, kind="probabilities"), output)


@without_fp_warnings
def sparse_categorical_crossentropy(target: Array, output: Array, from_logits: bool = False, axis: int = -1) -> Array:
    r"""``keras.ops.sparse_categorical_crossentropy``: see :func:`sparse_categorical_crossentropy`.

    Parameters
    ----------
    target : array, shape (\*batch,) or with the class axis of size 1, real
    output : array, shape (\*batch, C), real floating
    from_logits : bool, default False
    axis : int, default -1

    Returns
    -------
    array, shape (\*batch,), dtype of the output

    Raises
    ------
    LabelError, TypeError, ValueError
        As :func:`xent.sparse_cross_entropy`.
    """
    target, output = floating_pair("sparse_categorical_crossentropy", target, output)
    labels = class_indices(target, output, axis)
    logits = output if from_logits else array_namespace(output).log(widen(clipped_probabilities(output)))
    return cast_like(tf.sparse_loss(labels, logits, axis), output)


@without_fp_warnings
def binary_crossentropy(target: Array, output: Array, from_logits: bool = False) -> Array:
    r"""``keras.ops.binary_crossentropy``: element by element, see :func:`binary_crossentropy`.

    Parameters
    ----------
    target : array, any shape, real
    output : array, the same shape, real floating
    from_logits : bool, default False

    Returns
    -------
    array, shape and dtype of the output

    Raises
    ------
    TypeError, ValueError
        As :func:`xent.binary_cross_entropy`.
    """
    target, output = floating_pair("binary_crossentropy", target, output, same_shape=True)
    return cast_like(binary_loss(target, output, from_logits), output)
