"""Probabilities and weights, checked; of Dask's arrays in the tasks."""

from __future__ import annotations

import math
import warnings
from typing import Any

from ..operands import array_namespace, is_dask_array
from .arguments import array_of, epsilon, from_any_library, in_tasks, widest_float

Array = Any


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
