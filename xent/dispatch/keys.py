"""The key of a plan: types, dtypes, placements, rank and options; no array is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import arrays
from ..arrays import Array
from ..contract.problem import NO_WEIGHTS, Route, Weights

placements: dict[type, Callable[[Array], Any]] = {}
"""The array types whose device or state is a part of the key, with the function that returns it."""


def torch_placement(tensor: Array) -> Any:
    return tensor.device, tensor.requires_grad, tensor.layout, tensor.is_nested


def jax_placement(array: Array) -> Any:
    return array.sharding


def cupy_placement(array: Array) -> Any:
    return array.device.id  # subtle: cupy.cuda.Device is not hashable


def dask_placement(array: Array) -> Any:
    placement = PLACEMENTS.get(arrays.library(array._meta))  # of the chunks
    return type(array._meta), placement and placement(array._meta)


def product_placement(product: Array) -> Any:
    operands = (product.hidden, product.classifier, product.bias)
    return tuple(None if one is None else (type(one), one.dtype, placement_of(one)) for one in operands)


def device_name(array: Array) -> Any:
    return str(array.device)  # of a library that xent does not know


PLACEMENTS = {"torch": torch_placement, "jax": jax_placement, "cupy": cupy_placement, "dask": dask_placement}


def learn_placement(array: Any) -> None:
    """Makes the placement of arrays of this type a part of the key, if it can differ."""
    if arrays.is_product(array):
        placements[type(array)] = product_placement
        for operand in array.operands:
            learn_placement(operand)
        return
    library = arrays.library(array)
    is_unknown = library not in arrays.COMPAT and hasattr(array, "device")
    placement = PLACEMENTS.get(library, device_name if is_unknown else None)
    if placement is not None and not arrays.is_traced(array):
        placements[type(array)] = placement


def key_of(route: Route, predictions: Any, targets: Any, options: Any, weights: Weights) -> Any:
    """The key of a call's plan; a number among the weights counts by its type alone.

    Raises AttributeError if the predictions or the targets are no arrays.
    """
    kind, targets_kind = type(predictions), type(targets)
    targets_dtype = None if targets is None else targets.dtype
    # subtle: 1, 1.0 and True are equal, and only one of them is an axis or a label
    axis, _, _, ignored, smoothing, _, _ = options
    types = type(axis), tuple(map(type, ignored)) if type(ignored) is tuple else type(ignored), type(smoothing)
    dtype = predictions.dtype
    key: tuple[Any, ...] = (route, options, types, predictions.ndim, kind, dtype, targets_kind, targets_dtype)
    placement = placements.get(kind)
    if targets_kind is not kind:
        key += (placement_of(predictions), placement_of(targets))
    elif placement is not None:
        key += (placement(predictions), placement(targets))
    if weights is not NO_WEIGHTS:
        sample, classes, positive, _, ids = weights
        key += (key_of_weight(sample), key_of_weight(classes), key_of_weight(positive), key_of_weight(ids))
    return key


def key_of_weight(weight: Any) -> Any:
    """What the key has of one weight; None if there is none."""
    return None if weight is None else (type(weight), getattr(weight, "dtype", None), placement_of(weight))


def placement_of(array: Any) -> Any:
    """The placement of an array; None for a type without one."""
    placement = placements.get(type(array))
    return None if placement is None else placement(array)
