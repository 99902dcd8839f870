"""What scikit-learn's scores take: arrays of any library, lists and data frames, and the errors for the rest."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..operands import array_namespace, beside, device, is_array_api_obj, is_dask_array, is_numpy_array, unwrap

Array = Any


class InvalidParameterError(ValueError, TypeError):
    """An argument is of no type that the function takes."""


class Scored(NamedTuple):
    """The arrays of a score: labels, columns (N,) or indicators (N, C); probabilities (N, C); weights (N,) or None."""

    truth: Array
    p: Array
    weight: Array | None


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


def epsilon(xp: Any, dtype: Any) -> float:
    """The machine epsilon of the dtype."""
    return float(xp.finfo(dtype).eps)
