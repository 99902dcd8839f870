"""The key under which a plan is kept: types, dtypes, devices, rank and options; no array is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import arrays
from ..arrays import Array
from ..contract.problem import NO_WEIGHTS, Route, Weights

homes: dict[type, Callable[[Array], Any]] = {}
"""For the array types whose device or state is part of a plan's key: what tells one from another."""


def torch_home(tensor: Array) -> Any:
    return tensor.device, tensor.requires_grad


def jax_home(array: Array) -> Any:
    return array.sharding


def cupy_home(array: Array) -> Any:
    return array.device.id  # subtle: cupy.cuda.Device is not hashable


def dask_home(array: Array) -> Any:
    home = HOMES.get(arrays.library(array._meta))  # what its chunks are, and where
    return type(array._meta), home and home(array._meta)


def device_home(array: Array) -> Any:
    return str(array.device)  # of a library that xent has never heard of


HOMES = {"torch": torch_home, "jax": jax_home, "cupy": cupy_home, "dask": dask_home}


def key_of(route: Route, predictions: Any, targets: Any, options: Any, weights: Weights) -> Any:
    """The key of a call's plan; plain numbers among the weights count by their type alone."""
    given = (predictions, targets, *(() if weights is NO_WEIGHTS else weights))
    key: tuple[Any, ...] = (route, options, predictions.ndim)
    for array in given:
        key += (type(array), array.dtype) if hasattr(array, "dtype") else (type(array),)
    where = tuple((home := homes.get(type(array))) and home(array) for array in given)
    return key + where if any(type(array) in homes for array in given) else key
