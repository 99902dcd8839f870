"""Labels of any type that sorts, as columns of the probabilities; of Dask's arrays in the tasks."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..operands import array_namespace, is_dask_array
from .arguments import (
    InvalidParameterError,
    Scored,
    array_of,
    from_any_library,
    in_tasks,
    label_in_tasks,
    require_same_length,
)
from .probabilities import checked_weights, require_finite, two_columns

Array = Any


def multiclass_problem(y_true: Any, p: Array, sample_weight: Any, labels: Any) -> Scored:
    """The arrays of a score, with the labels as columns of the probabilities."""
    require_same_length(p, y_true, sample_weight)
    weight, p, y = checked_weights(sample_weight, p), two_columns(p), array_of(y_true)
    if y.ndim == 2 and y.shape[1] > 1:
        if labels is not None:
            raise ValueError("`labels` must be None where `y_true` marks them in columns.")
        return Scored(from_any_library(in_tasks(checked_indicators, y, columns=p.shape[1]), p), p, weight)
    known = unique_labels(y) if labels is None else sorted_labels(labels)
    truth = label_in_tasks(label_columns, one_axis(y), known, columns=p.shape[1], labels=labels)
    return Scored(from_any_library(truth, p), p, weight)


def binary_problem(y_true: Any, p: Array, sample_weight: Any, pos_label: Any) -> Scored:
    """The arrays of a score, with the positive label as column 1."""
    require_same_length(p, y_true, sample_weight)
    y = array_of(y_true)
    truth = label_in_tasks(is_positive, one_axis(y), unique_labels(y), pos_label=pos_label)
    return Scored(from_any_library(truth, p), two_columns(p), checked_weights(sample_weight, p))


def one_axis(y: Array) -> Array:
    """The labels, (N,), from shape (N,) or (N, 1)."""
    if y.ndim == 2 and y.shape[1] == 1:
        return y[:, 0]
    if y.ndim != 1:
        raise ValueError(f"Unknown label type: `y_true` must have shape (N,), got {tuple(y.shape)}.")
    return y


def unique_labels(y: Array) -> Array:
    """The labels in ``y``, sorted; of a Dask array they are lazy too."""
    try:
        return array_namespace(y).unique_values(one_axis(y))
    except TypeError as error:
        raise ValueError(f"Unknown label type: {error}") from error


def sorted_labels(labels: Any) -> Array:
    """The ``labels`` argument, sorted, with a warning if it was not."""
    labels_array = array_of(labels)
    if is_dask_array(labels_array):
        raise InvalidParameterError("`labels` must be known at the call, got a Dask array. Pass labels.compute().")
    known = array_namespace(labels_array).unique_values(labels_array)
    if known.shape != labels_array.shape:
        raise ValueError(f"`labels` must be one list without repetitions, got {labels}.")
    if array_namespace(labels_array).any(known != labels_array):
        warnings.warn(
            f"Labels passed were {labels}. But this function assumes labels are ordered lexicographically. "
            f"Pass the ordered labels={as_list(known)} and ensure that the columns of y_prob correspond to this "
            "ordering.",
            UserWarning,
            stacklevel=4,
        )
    return known


def as_list(labels: Array) -> list[Any]:
    """The labels as Python's strings and numbers."""
    if isinstance(labels, np.ndarray):
        return list(labels.reshape(-1).tolist())
    kind = float if array_namespace(labels).isdtype(labels.dtype, "real floating") else int
    return [kind(labels[index]) for index in range(labels.shape[0])]


def require_labels(y: Array) -> None:
    """Raises ValueError for NaN, infinities and fractions, which are measurements and no labels."""
    xp = array_namespace(y)
    if xp.isdtype(y.dtype, "real floating"):
        require_finite(y, "y ")
        if xp.any(y != xp.floor(y)):
            raise ValueError(f"Unknown label type: `y_true` must hold labels, got fractions of {y.dtype}.")


def label_columns(y: Array, known: Array, columns: int, labels: Any) -> Array:
    """The column of each label."""
    require_labels(y)
    xp, known = array_namespace(y), known.reshape(-1) if known.ndim == 2 else known
    count = known.shape[0]
    if count < 2 and labels is None:
        raise ValueError(
            f"y_true contains only one label ({known[0]}). Please provide the list of all expected class labels "
            "explicitly through the labels argument."
        )
    if count < 2:
        raise ValueError(f"The labels array needs to contain at least two labels, got {known}.")
    if count != columns:
        raise ValueError(
            mismatch(count, columns, known)
            if labels is None
            else f"The number of classes in labels is different from that in y_prob. Classes found in labels: {known}"
        )
    known = from_any_library(known, y)
    column = xp.searchsorted(known, y)
    column = xp.where(column == count, count - 1, column)
    if xp.any(xp.take(known, column) != y):
        unknown = set(as_list(y)) - set(as_list(known))
        raise ValueError(f"y_true contains values {unknown} not belonging to the passed labels {labels}.")
    return column


def checked_indicators(y: Array, columns: int) -> Array:
    """The same matrix of 0 and 1; raises ValueError for other values or too few columns."""
    xp = array_namespace(y)
    if xp.any((y != 0) & (y != 1)):
        raise ValueError("Multioutput target data is not supported with label binarization")
    if y.shape[1] != columns:
        raise ValueError(mismatch(y.shape[1], columns, np.arange(y.shape[1])))
    return y


def mismatch(count: int, columns: int, known: Array) -> str:
    """The message for another number of labels than of columns."""
    return (
        f"y_true and y_prob contain different number of classes: {count} vs {columns}. Please provide the true labels "
        f"explicitly through the labels argument. Classes found in y_true: {known}"
    )


def is_positive(y: Array, known: Array, pos_label: Any) -> Array:
    """1 for the positive label: ``pos_label``, or 1 among 0 and ±1, or the greater one of two numbers; else 0."""
    require_labels(y)
    values = as_list(known)
    if len(values) > 2:
        raise ValueError(
            "The type of the target inferred from y_true is multiclass but should be binary according to the shape of "
            "y_prob."
        )
    if pos_label is None and any(isinstance(value, str) for value in values):
        raise ValueError(
            f"y_true takes value in {{{', '.join(map(repr, values))}}} and pos_label is not specified: either make "
            "y_true take value in {0, 1} or {-1, 1} or pass pos_label explicitly."
        )
    if pos_label is None:
        pos_label = 1 if set(values) <= {0, 1} or set(values) <= {-1, 1} else values[-1]
    xp = array_namespace(y)
    if isinstance(pos_label, str) != (not xp.isdtype(y.dtype, ("bool", "numeric"))):
        return xp.zeros(y.shape, dtype=xp.int64)  # a string is no number
    return xp.astype(y == pos_label, xp.int64)
