"""scikit-learn's scores of probabilities, on any array: names, signatures, defaults, answers, warnings and errors.

An array keeps its library and its dtype, as in scikit-learn under ``array_api_dispatch=True``; without it scikit-learn
converts other libraries' arrays to float64 on the host. Concrete arrays give a float, Dask arrays a lazy 0-d array: a
call computes no chunk, values are checked in the tasks, and the mean is over all rows, never a mean of the chunks'
means. Where scikit-learn and xent disagree:

| case | xent | scikit-learn, and here |
|---|---|---|
| probability 0 or 1 | +inf or 0 | clipped to [ε, 1 − ε], ε that of the dtype: 36.0, 15.9 or 6.9 for a wrong one |
| labels | integers in [0, C) | any type that sorts; the columns follow their order |
| ``labels`` in another order | | sorted, with a warning |
| lists, data frames | TypeError | taken |
| weights that sum to 0, not all 0 | ±inf or NaN | ZeroDivisionError |
| probabilities outside [0, 1], NaN, nothing at all | computed | ValueError |
| rows that do not sum to 1 | computed | UserWarning, and computed |
| result | 0-d array | float |
| all weights 0 | NaN | ValueError |

Not followed:

| case | scikit-learn | here |
|---|---|---|
| Dask | computed at once, as NumPy | lazy; ``labels`` and ``pos_label`` are found by a pass over ``y_true`` alone |
| all weights 0, or a weight of NaN, on Dask | ValueError | NaN |
| weights that sum to 0, on Dask | ZeroDivisionError | ±inf or NaN |
| ``labels`` as a Dask array | taken | ValueError: they are read when the function is called |
| an ``xarray.DataArray`` | NumPy's array of it | the array inside, lazy if it is Dask's |
| a collection of dask.dataframe | computed | an error, or computed |
| strings for weights | TypeError | the numbers in them |
| lists of lists of one label | TypeError | taken as labels |
| labels that mix strings and numbers | ValueError | converted as NumPy does |
| float16, bfloat16 | rounded in it; bfloat16 refused without dispatch | float32 inside |
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import xent

from .operands import (
    array_namespace,
    beside,
    device,
    is_array_api_obj,
    is_dask_array,
    is_label,
    is_numpy_array,
    unwrap,
    wide_dtype,
)

__all__ = ["brier_score_loss", "d2_log_loss_score", "log_loss"]

Array = Any


class InvalidParameterError(ValueError, TypeError):
    """An argument is of no type that the function takes."""


def log_loss(
    y_true: Any,
    y_proba: Any = None,
    *,
    normalize: bool = True,
    sample_weight: Any = None,
    labels: Any = None,
    y_pred: Any = "deprecated",
) -> Any:
    r"""``sklearn.metrics.log_loss``: the mean cross entropy of probabilities, in nats.

    .. math:: -\frac{1}{\sum_n w_n} \sum_n w_n \log \operatorname{clip}(p_{n y_n}, \varepsilon, 1 - \varepsilon)

    Parameters
    ----------
    y_true : array-like, shape (N,), or (N, C) of 0 and 1
        Labels of any type that sorts, or a matrix that marks them.
    y_proba : array-like, shape (N, C), or (N,) or (N, 1) for the greater one of two labels
    normalize : bool, default True
        Whether to divide by the sum of the weights.
    sample_weight : array-like, shape (N,), optional
    labels : array-like, shape (C,), optional
        All labels, if some are not in ``y_true``.
    y_pred : array-like
        The old name of ``y_proba``.

    Returns
    -------
    float
        A lazy 0-d array if ``y_true`` or ``y_proba`` is a Dask array.

    Raises
    ------
    ValueError
        If values, shapes or labels do not fit; on Dask, values when they are computed.
    ZeroDivisionError
        If the weights sum to 0 without being 0.
    TypeError
        If an argument is no array, or has no axis.

    References
    ----------
    .. [1] https://scikit-learn.org/stable/modules/generated/sklearn.metrics.log_loss.html

    Examples
    --------
    >>> from xent.compat.sklearn import log_loss
    >>> log_loss(["ham", "spam"], [[0.5, 0.5], [0.5, 0.5]])
    0.6931471805599453
    """
    return mean_log_loss("log_loss", y_true, renamed(y_proba, y_pred), normalize, sample_weight, labels)


def brier_score_loss(
    y_true: Any,
    y_proba: Any,
    *,
    sample_weight: Any = None,
    pos_label: Any = None,
    labels: Any = None,
    scale_by_half: Any = "auto",
) -> Any:
    r"""``sklearn.metrics.brier_score_loss``: the mean squared distance from the one-hot of the label.

    .. math:: \frac{1}{\sum_n w_n} \sum_n w_n \sum_c (t_{nc} - p_{nc})^2

    Parameters
    ----------
    y_true, y_proba, sample_weight, labels
        As in :func:`log_loss`.
    pos_label : int, float, bool or str, optional
        The label that probabilities of shape (N,) are of.
    scale_by_half : bool or "auto", default "auto"
        Whether to halve the score; "auto" does for two labels.

    Returns
    -------
    float
        A lazy 0-d array if ``y_true`` or ``y_proba`` is a Dask array.

    Raises
    ------
    ValueError
        As in :func:`log_loss`.

    References
    ----------
    .. [1] Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78(1), 1950.

    Examples
    --------
    >>> from xent.compat.sklearn import brier_score_loss
    >>> brier_score_loss([0, 1], [0.5, 1.0])
    0.125
    """
    require_array_likes("brier_score_loss", y_true=y_true, y_proba=y_proba, sample_weight=sample_weight, labels=labels)
    if not isinstance(scale_by_half, bool | np.bool) and scale_by_half != "auto":
        raise invalid_parameter("brier_score_loss", "scale_by_half", "a bool or 'auto'", scale_by_half)
    if not isinstance(pos_label, int | float | str | bool | np.bool | np.number | None):
        raise invalid_parameter("brier_score_loss", "pos_label", "a number, a str, a bool or None", pos_label)
    y_proba = checked_probabilities(y_proba, y_true)
    if y_proba.ndim == 1 or y_proba.shape[1] == 1:
        scored = binary_problem(y_true, y_proba, sample_weight, pos_label)
    else:
        scored = multiclass_problem(y_true, y_proba, sample_weight, labels)
    xp = array_namespace(scored.p)
    p = xp.astype(scored.p, wide_dtype(xp, scored.p), copy=False)
    score = average(scored, xp.sum((xp.astype(indicators(scored), p.dtype) - p) ** 2, axis=1))
    halved = p.shape[1] < 3 if isinstance(scale_by_half, str) else scale_by_half
    return concrete(score * 0.5 if halved else score)


def d2_log_loss_score(
    y_true: Any, y_proba: Any = None, *, sample_weight: Any = None, labels: Any = None, y_pred: Any = "deprecated"
) -> Any:
    r"""``sklearn.metrics.d2_log_loss_score``: the fraction of the label frequencies' log loss that is explained.

    .. math:: 1 - \frac{\text{log loss of } p}{\text{log loss of } q}, \qquad q_c = \sum_n w_n t_{nc} / \sum_n w_n

    Parameters
    ----------
    y_true, y_proba, sample_weight, labels, y_pred
        As in :func:`log_loss`.

    Returns
    -------
    float
        NaN, with a warning, for less than two rows. A lazy 0-d array if ``y_true`` or ``y_proba`` is a Dask array.

    Raises
    ------
    ValueError
        As in :func:`log_loss`.

    References
    ----------
    .. [1] Hastie, Tibshirani & Wainwright, "Statistical Learning with Sparsity", 2015, equation (3.11).

    Examples
    --------
    >>> from xent.compat.sklearn import d2_log_loss_score
    >>> d2_log_loss_score([0, 1], [0.5, 0.5])
    0.0
    """
    y_proba = renamed(y_proba, y_pred)
    require_array_likes("d2_log_loss_score", y_true=y_true, y_proba=y_proba, sample_weight=sample_weight, labels=labels)
    require_same_length(y_proba, y_true, sample_weight)
    if length(y_proba) < 2:
        warnings.warn("D^2 score is not well-defined with less than two samples.", undefined_metric(), stacklevel=2)
        return math.nan
    scored = multiclass_problem(y_true, checked_probabilities(y_proba, y_true), sample_weight, labels)
    xp = array_namespace(scored.p)
    wide = widest_float(xp)
    one_hot = xp.astype(indicators(scored), wide)
    weights = xp.ones_like(one_hot[:, 0]) if scored.weight is None else xp.astype(scored.weight, wide)
    counts, total = xp.sum(one_hot * weights[:, None], axis=0), total_weight(weights)
    baseline = -xp.sum(counts * xp.log(clipped(xp, counts / total, wide)))
    return concrete(1 - average(scored, log_losses(scored), normalize=False) / baseline)


# -------------------- scores


class Scored(NamedTuple):
    """The arrays of a score: labels, columns (N,) or indicators (N, C); probabilities (N, C); weights (N,) or None."""

    truth: Array
    p: Array
    weight: Array | None


def mean_log_loss(
    function: str,
    y_true: Any,
    y_proba: Any,
    normalize: Any,
    sample_weight: Any,
    labels: Any,
    eps: float | None = None,
) -> Any:
    """The log loss of probabilities clipped at ``eps``; None is the ε of their dtype."""
    require_array_likes(function, y_true=y_true, y_proba=y_proba, sample_weight=sample_weight, labels=labels)
    if not isinstance(normalize, bool | np.bool):
        raise invalid_parameter(function, "normalize", "a bool", normalize)
    scored = multiclass_problem(y_true, checked_probabilities(y_proba, y_true), sample_weight, labels)
    return concrete(average(scored, log_losses(scored, eps), bool(normalize)))


def log_losses(scored: Scored, eps: float | None = None) -> Array:
    """The cross entropy of each row, of probabilities clipped to [ε, 1 − ε]."""
    xp, dtype = array_namespace(scored.p), scored.p.dtype
    if scored.truth.ndim == 1:
        losses = xent.sparse_cross_entropy(scored.p, scored.truth, kind="probabilities")
        return clipped_losses(xp, losses, dtype, eps)
    return xent.cross_entropy(clipped(xp, scored.p, dtype, eps), scored.truth, kind="probabilities")


def epsilon(xp: Any, dtype: Any) -> float:
    """The machine epsilon of the dtype."""
    return float(xp.finfo(dtype).eps)


def clipped(xp: Any, p: Array, dtype: Any, eps: float | None = None) -> Array:
    """The probabilities in [ε, 1 − ε]."""
    eps = epsilon(xp, dtype) if eps is None else eps
    return xp.where(p < eps, eps, xp.where(p > 1 - eps, 1 - eps, p))


def clipped_losses(xp: Any, losses: Array, dtype: Any, eps: float | None = None) -> Array:
    """The labels' losses as if their probabilities were clipped: O(rows)."""
    eps = epsilon(xp, dtype) if eps is None else eps
    least, most = -math.log1p(-eps), -math.log(eps) if eps > 0 else math.inf
    return xp.where(losses > most, most, xp.where(losses < least, least, losses))


def indicators(scored: Scored) -> Array:
    """Whether each class is the label of its row, (N, C)."""
    return is_label(scored.truth, scored.p.shape[1], 1) if scored.truth.ndim == 1 else scored.truth


def average(scored: Scored, rows: Array, normalize: bool = True) -> Array:
    """The weighted mean or sum of the rows."""
    xp = array_namespace(rows)
    if scored.weight is None:
        return xp.mean(rows) if normalize else xp.sum(rows)
    total = xp.sum(rows * scored.weight)
    return total / total_weight(scored.weight) if normalize else total


def total_weight(weight: Array) -> Array:
    """The sum of the weights; raises ZeroDivisionError, as NumPy's average does, if it is known to be 0."""
    total = array_namespace(weight).sum(weight)
    if not is_dask_array(total) and total == 0:
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    return total


def concrete(score: Array) -> Any:
    """The score as a float; a lazy one as it is."""
    return score if is_dask_array(score) else float(score)


# -------------------- the arguments


def renamed(y_proba: Any, y_pred: Any) -> Any:
    """The probabilities, by their new name or their old one."""
    if isinstance(y_pred, str) and y_pred == "deprecated":
        return y_proba
    if y_proba is not None:
        raise ValueError("Cannot use both `y_pred` and `y_proba`. `y_pred` is deprecated, use `y_proba` instead.")
    text = "`y_pred` was renamed to `y_proba` in version 1.9 and will be removed in 1.11. Use `y_proba` instead."
    warnings.warn(text, FutureWarning, stacklevel=3)
    return y_pred


def invalid_parameter(function: str, name: str, rule: str, value: Any) -> InvalidParameterError:
    """The error for an argument of a type that the function does not take."""
    return InvalidParameterError(f"The {name!r} parameter of {function} must be {rule}. Got {value!r} instead.")


def require_array_likes(function: str, **arguments: Any) -> None:
    """Raises unless every argument is array-like; weights and ``labels`` may be None."""
    for name, value in arguments.items():
        array_like = any(hasattr(value, attribute) for attribute in ("__len__", "shape", "__array__"))
        if not (array_like and not isinstance(value, str)) and (value is not None or name in ("y_true", "y_proba")):
            raise invalid_parameter(function, name, "an array-like", value)
        if name != "labels" and tuple(getattr(value, "shape", (1,))) == ():
            raise TypeError(
                f"Input should have at least 1 dimension i.e. satisfy `len(x.shape) > 0`, "
                f"got scalar `{value!r}` instead."
            )


def undefined_metric() -> type[Warning]:
    """scikit-learn's own category if it is installed, else UserWarning."""
    try:
        category: type[Warning] = importlib.import_module("sklearn.exceptions").UndefinedMetricWarning
    except ImportError:
        return UserWarning
    return category


def array_of(value: Any) -> Array:
    """The array itself, or the one inside xarray's, or NumPy's array of a list or a data frame."""
    value = unwrap(value)
    return value if is_array_api_obj(value) and not np.isscalar(value) else np.asarray(value)


def length(value: Any) -> Any:
    """The number of rows."""
    return value.shape[0] if hasattr(value, "shape") else len(value)


def require_same_length(*values: Any) -> None:
    """Raises ValueError unless all have as many rows; a number of rows that Dask does not know fits any."""
    sizes = [length(value) for value in values if value is not None]
    if len({size for size in sizes if size == size}) > 1:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: {sizes}")


def widest_float(xp: Any) -> Any:
    """float64, or float32 if the library has no float64."""
    dtypes = xp.__array_namespace_info__().dtypes(kind="real floating")
    return dtypes.get("float64", dtypes["float32"])


def from_any_library(array: Array, like: Array) -> Array:
    """The array in the library and on the device of ``like``; as it is beside Dask's, or if it is Dask's."""
    xp = array_namespace(like)
    if is_dask_array(like) or is_dask_array(array) or array_namespace(array) is xp:
        return array
    return beside(array, like) if is_numpy_array(array) else xp.from_dlpack(array, device=device(like))


def in_tasks(function: Callable[..., Array], array: Array, **keywords: Any) -> Array:
    """The function of the array; for Dask, lazily of each chunk of its rows."""
    if not is_dask_array(array):
        return function(array, **keywords)
    array = array if array.ndim == 1 else array.rechunk({1: -1})
    return array.map_blocks(function, dtype=array.dtype, meta=array._meta, **keywords)


def label_in_tasks(function: Callable[..., Array], y: Array, known: Array, **keywords: Any) -> Array:
    """The function of the labels and of the sorted set of labels, integers; for Dask, lazily of each chunk."""
    if not is_dask_array(y):
        return function(y, known, **keywords)
    # subtle: an axis of their own keeps all labels in every task, and is dropped there
    meta = y._meta.astype(np.int64)
    known = array_namespace(y).asarray(known)
    return y.map_blocks(function, known[:, None], drop_axis=[0], dtype=meta.dtype, meta=meta, **keywords)


# -------------------- probabilities and weights


def checked_probabilities(y_proba: Any, y_true: Any) -> Array:
    """Probabilities as a floating array of one axis or two, lazy if they or the labels are; their values checked."""
    p, y_true = array_of(y_proba), array_of(y_true)
    p = array_namespace(y_true).asarray(p) if is_dask_array(y_true) and not is_dask_array(p) else p
    xp = array_namespace(p)
    if xp.isdtype(p.dtype, "complex floating"):
        raise ValueError("Complex data not supported")
    if not xp.isdtype(p.dtype, "real floating"):
        p = xp.astype(p, widest_float(xp))
    if p.ndim not in (1, 2):
        raise ValueError(f"Found array with dim {p.ndim}, while dim 1 or 2 is required.")
    for size, kind in zip(p.shape, ("sample", "feature"), strict=False):
        if size == 0:
            raise ValueError(f"Found array with 0 {kind}(s) (shape={tuple(p.shape)}) while a minimum of 1 is required.")
    return in_tasks(checked_values, p)


def checked_values(p: Array) -> Array:
    """The same probabilities; raises ValueError outside [0, 1], warns of rows that do not sum to 1."""
    xp = array_namespace(p)
    if p.shape[0] == 0:  # a chunk may be empty
        return p
    require_finite(p, "")
    if xp.max(p) > 1:
        raise ValueError(f"y_prob contains values greater than 1: {float(xp.max(p))}")
    if xp.min(p) < 0:
        raise ValueError(f"y_prob contains values lower than 0: {float(xp.min(p))}")
    if p.ndim == 2 and p.shape[1] > 1 and xp.any(xp.abs(xp.sum(p, axis=1) - 1) > math.sqrt(epsilon(xp, p.dtype))):
        warnings.warn(
            "The y_prob values do not sum to one. Make sure to pass probabilities.", UserWarning, stacklevel=2
        )
    return p


def require_finite(values: Array, of: str) -> None:
    """Raises ValueError for NaN and infinities."""
    xp = array_namespace(values)
    if xp.any(xp.isnan(values)):
        raise ValueError(f"Input {of}contains NaN.")
    if xp.any(xp.isinf(values)):
        raise ValueError(f"Input {of}contains infinity or a value too large for {values.dtype}.")


def two_columns(p: Array) -> Array:
    """Probabilities of all classes, from one column: that of the greater of two labels."""
    xp, p = array_namespace(p), p[:, None] if p.ndim == 1 else p
    return xp.concat([1 - p, p], axis=1) if p.shape[1] == 1 else p


def checked_weights(sample_weight: Any, p: Array) -> Array | None:
    """Weights as a floating array of the probabilities' library; checked, unless they are lazy."""
    if sample_weight is None:
        return None
    weight = array_of(sample_weight)
    if weight.ndim != 1:
        raise ValueError(f"Sample weights must be 1D array or scalar, got {weight.ndim}D array.")
    xp = array_namespace(weight)
    if not xp.isdtype(weight.dtype, "real floating"):
        weight = xp.astype(weight, widest_float(xp))
    if not is_dask_array(weight):
        require_finite(weight, "sample_weight ")
        if xp.all(weight == 0):
            raise ValueError("Sample weights must contain at least one non-zero number.")
    return from_any_library(weight, p)


# -------------------- labels


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


def __dir__() -> list[str]:
    return [*__all__]
