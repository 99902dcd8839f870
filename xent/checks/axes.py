"""Preconditions of the class axis, by its number or by the name of a dimension, and of named dimensions."""

from __future__ import annotations

from typing import Any

from .plain_values import integer, number_remedy, shown


def axis(function: str, value: Any) -> int:
    """The class axis is an integer."""
    try:
        return integer(value)
    except TypeError:
        otherwise = "Pass the one class axis"
        if isinstance(value, str):
            otherwise += " by its number; a name is that of a dimension of an xarray.DataArray"
        raise ValueError(
            f"{function}: `axis` must be an integer, got {shown(value)}. "
            f"{number_remedy('int', 'axis', value, otherwise)}."
        ) from None


def class_axis(function: str, value: Any, ndim: int, of: str = "predictions") -> int:
    """The class axis counted from the front."""
    index = axis(function, value)
    if ndim == 0:
        raise ValueError(f"{function}: `predictions` must have a class axis, got a 0-d array. Pass shape (*batch, C).")
    if not -ndim <= index < ndim:
        raise ValueError(
            f"{function}: `axis` must lie in [{-ndim}, {ndim}) for {of} of rank {ndim}, got {index}. "
            f"Pass the class axis of the {of.removeprefix('the ')}."
        )
    return index % ndim


def named_axis(function: str, value: Any, dims: tuple[Any, ...]) -> int:
    """The class axis counted from the front, by its number or by the name of a dimension."""
    if not isinstance(value, str):
        return class_axis(function, value, len(dims))
    if value not in dims:
        raise ValueError(
            f"{function}: `axis` must be a dimension of the predictions, {tuple(dims)}, got {value!r}. "
            "Pass one of them."
        )
    return dims.index(value)


def new_dimension(function: str, value: str, dims: tuple[Any, ...]) -> None:
    """The name of a dimension that is made is a new one."""
    if value in dims:
        raise ValueError(
            f"{function}: `axis` must be a new dimension, got {value!r} of {tuple(dims)}. Pass another name."
        )


def dimensions(function: str, name: str, value: Any, dims: tuple[Any, ...]) -> None:
    """The dimensions of a named array are these, in any order."""
    if len(value.dims) != len(dims) or set(value.dims) != set(dims):
        raise ValueError(
            f"{function}: `{name}` must have the dimensions {tuple(dims)}, in any order, got {tuple(value.dims)}. "
            f"Rename them, or pass {name}.data for their order alone."
        )


def coordinates(function: str, name: str, dim: Any, ours: Any, theirs: Any) -> None:
    """The coordinates along a dimension are those of the predictions, where both have any."""
    if ours is not None and theirs is not None and not ours.equals(theirs):
        raise ValueError(
            f"{function}: `{name}` must have the coordinates of `predictions` along {dim!r}, got others. "
            f"Call xarray.align(predictions, {name}, exclude=[...]) first, or pass {name}.data for their order alone."
        )
