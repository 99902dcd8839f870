"""Labels as indices, and the weights of their rows.

Leaves out whether they fit (``arguments.py``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import xent

from ..operands import (
    array_namespace,
    is_dask_array,
    is_readable,
    nan_where,
    wide_dtype,
    widen_labels,
)
from .arguments import (
    class_axis,
)

Array = Any


class LabelIndices(NamedTuple):
    """Labels to gather by: in range, and which rows are ignored or have a bad label that could not be read."""

    index: Array
    ignored: Array
    bad: Array


def label_indices(function: str, classes: int, labels: Array, ignore_index: int) -> LabelIndices:
    """The labels as indices; raises LabelError for a bad one if it can be read."""
    xp = array_namespace(labels)
    ignored = is_ignored(xp, labels, ignore_index)
    wide = widen_labels(labels, classes)
    inside = (wide >= 0) & (wide < classes)
    bad = ~inside & ~ignored
    if is_readable(bad) and bool(xp.any(bad)):
        raise label_error(function, classes, labels, bad)
    return LabelIndices(xp.where(inside & ~ignored, wide, 0), ignored, bad)


def label_error(function: str, classes: int, labels: Array, bad: Array) -> xent.LabelError:
    """The error for bad labels: their number, and the position and value of the first one."""
    xp = array_namespace(labels)
    flags = xp.astype(xp.reshape(bad, (-1,)), xp.int32)
    count, first = int(xp.sum(flags)), int(xp.argmax(flags))
    value = int(xp.reshape(labels, (-1,))[first])
    position = tuple(int(index) for index in np.unravel_index(first, tuple(bad.shape)))
    message = (
        f"{function}: `labels` must lie in [0, {classes}), got {count} outside; "
        f"the first, at position {position[0] if len(position) == 1 else position}, is {value}. "
        "Mend them, name them in ignore_index, or give them sample_weight 0."
    )
    return xent.LabelError(message, count, position, value)


def is_ignored(xp: Any, labels: Array, ignore_index: int) -> Array:
    """Whether each row has the ignored label: none has it if the labels' dtype cannot hold it."""
    held = xp.iinfo(labels.dtype)
    return labels == ignore_index if held.min <= ignore_index <= held.max else xp.zeros_like(labels, dtype=xp.bool)


def where_valid(xp: Any, gathered: Array, labels: LabelIndices) -> Array:
    """The values gathered at the labels: 0 for ignored rows, NaN for bad labels."""
    return xp.where(labels.ignored, 0.0, xp.where(labels.bad, nan_where(xp, labels.bad, gathered), gathered))


def class_weights(weight: Array, input: Array) -> Array:
    """The weight of each class, (C,), with the axes that follow the class axis."""
    following = input.ndim - class_axis(input) - 1
    return weight[(slice(None), *[None] * following)]


def label_weights(function: str, input: Array, labels: Array, weight: Array | None, ignore_index: int) -> Array:
    """The weight of each row in a mean: that of its label, 0 if the label is ignored."""
    xp = array_namespace(input)
    if weight is None:
        ones = xp.ones_like(labels, dtype=wide_dtype(xp, input))
        return xp.where(is_ignored(xp, labels, ignore_index), 0.0, ones)
    if is_dask_array(input):  # subtle: it gathers along no axis, and broadcasts to no shape that it does not know
        return xent.sparse_cross_entropy(  # minus the "log-probability" of the label is its weight
            xp.zeros_like(input) - class_weights(weight, input),
            labels,
            axis=class_axis(input),
            kind="log_probabilities",
            ignore_index=ignore_index,
        )
    indices = label_indices(function, input.shape[class_axis(input)], labels, ignore_index)
    wide = xp.astype(weight, wide_dtype(xp, weight), copy=False)
    gathered = xp.reshape(xp.take(wide, xp.reshape(indices.index, (-1,)), axis=0), tuple(labels.shape))
    return where_valid(xp, gathered, indices)
