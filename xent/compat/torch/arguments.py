"""The arguments of torch's losses: torch's own rules, in its order, with xent's words."""

from __future__ import annotations

import operator
import warnings
from typing import Any

import xent

from ..operands import (
    array_namespace,
    describe,
    fit_together,
    has_shape,
    is_dask_array,
    is_integer,
    is_numpy_array,
    is_readable,
    library,
    nan_where,
    require_array,
    unwrap,
)

Array = Any


def reduction_of(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction, from its name or from the two flags that it has replaced."""
    if size_average is not None or reduce is not None:
        summed = "sum" if size_average is False else "mean"
        reduction = "none" if reduce is False else summed
        text = f"size_average and reduce args will be deprecated, please use reduction={reduction!r} instead."
        warnings.warn(text, stacklevel=3)
    if reduction == "elementwise_mean":
        warnings.warn("reduction='elementwise_mean' is deprecated: pass reduction='mean'.", stacklevel=3)
        return "mean"
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"{reduction} is not a valid value for reduction: pass 'none', 'sum' or 'mean'.")
    return reduction


def class_axis(input: Array) -> int:
    """The class axis: 1, or 0 for an input of one axis."""
    return 0 if input.ndim == 1 else 1


def checked_arrays(function: str, input: Any, target: Any, **weights: Any) -> list[Any]:
    """The arguments without xarray's wrappers: arrays of one library, but NumPy's may stand beside Dask's."""
    arguments = {"input": unwrap(input), "target": unwrap(target)}
    arguments |= {name: unwrap(weight) for name, weight in weights.items()}
    input = arguments["input"]
    for name, value in arguments.items():
        if value is None and name in weights:
            continue
        require_array(function, name, value)
        if array_namespace(value) is not array_namespace(input) and not (
            is_numpy_array(value) and is_dask_array(input)
        ):
            raise TypeError(
                f"{function}: `{name}` must be of the library of `input` ({library(input)}), got {describe(value)}. "
                "Nothing is moved between libraries: convert one of the two."
            )
    return list(arguments.values())


def index_of(function: str, ignore_index: Any) -> int:
    """The ignored label as an int."""
    try:
        return operator.index(ignore_index)
    except TypeError:
        raise TypeError(
            f"{function}: `ignore_index` must be an int, got {ignore_index!r}. Pass -100, which is no label, for none."
        ) from None


def one_label(input: Array, target: Array) -> Array:
    """The target; for an input of one axis, the one label of a target of shape (1,)."""
    return target[0] if input.ndim == 1 and tuple(target.shape) == (1,) and is_integer(target) else target


def require_classes(function: str, input: Array, labels: Array | None, weight: Array | None) -> None:
    """Raises, in torch's order, unless input, labels, or None for probabilities, and weights of the classes fit."""
    axis = class_axis(input)
    if input.ndim == 0:
        raise no_class(function, input)
    require_floating(function, input)
    if labels is not None:
        batch = (*input.shape[:axis], *input.shape[axis + 1 :])
        if not has_shape(labels, batch):
            other_rows = labels.ndim == 1 if axis == 0 else tuple(labels.shape[:1]) != tuple(input.shape[:1])
            raise (ValueError if other_rows else RuntimeError)(
                f"{function}: `target` must have shape {batch}, got {tuple(labels.shape)}. Pass one label a row."
            )
        if not is_integer(labels) or "bool" in str(labels.dtype):
            raise RuntimeError(f"{function}: `target` must be integers, got {describe(labels)}. Cast them.")
        if weight is not None and is_integer(weight):
            raise RuntimeError(f"{function}: `weight` must be real floating, got {describe(weight)}. Cast it.")
    if weight is not None and tuple(weight.shape) != (input.shape[axis],):
        raise RuntimeError(
            f"{function}: `weight` must have shape {(input.shape[axis],)} (one for each class), "
            f"got {tuple(weight.shape)}. Pass all classes."
        )
    if input.shape[axis] == 0:
        raise no_class(function, input)


def no_class(function: str, input: Array) -> xent.LabelError:
    """The error for no class: a ValueError and an IndexError, of which torch raises one or the other."""
    return xent.LabelError(
        f"{function}: `input` must have at least one class, got shape {tuple(input.shape)}. "
        "Pass shape (C,) or (N, C, ...)."
    )


def require_floating(function: str, input: Array) -> None:
    """Raises NotImplementedError, a RuntimeError, for an input of integers."""
    if is_integer(input):
        raise NotImplementedError(
            f"{function}: `input` must be real floating, got {describe(input)}. Cast it to float32."
        )


def require_same_shape(function: str, input: Array, target: Array) -> None:
    """Raises ValueError unless the shapes are equal."""
    if not has_shape(target, input.shape):
        raise ValueError(
            f"{function}: `target` must have the shape of `input`, {tuple(input.shape)}, got {tuple(target.shape)}. "
            "Reshape one of the two."
        )


def broadcast_weight(function: str, xp: Any, weight: Array, input: Array) -> Array:
    """The weight of each element of the input."""
    elements = weight * xp.ones_like(input) if fit_together(weight, input) else weight
    if not has_shape(elements, input.shape):
        raise RuntimeError(
            f"{function}: a weight must broadcast to the shape of `input`, {tuple(input.shape)}, "
            f"got {tuple(weight.shape)}. Pass a smaller one."
        )
    return elements


def in_unit_interval(xp: Any, values: Array, name: str) -> Array:
    """The values; outside [0, 1] an error if they can be read, and else NaN."""
    inside = (values >= 0) & (values <= 1)
    if is_readable(values):
        if not bool(xp.all(inside)):
            raise RuntimeError(f"binary_cross_entropy: all elements of {name} should be between 0 and 1.")
        return values
    return xp.where(inside, values, nan_where(xp, ~inside, values))
