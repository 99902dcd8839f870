"""Arrays with named dimensions, xarray's DataArrays: what is beside the predictions, in the order of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xent import checks
from xent.evaluation.options import Keys


def is_named(value: Any) -> bool:
    """Whether the value is an xarray.DataArray."""
    return type(value).__module__.startswith("xarray.") and hasattr(value, "indexes") and hasattr(value, "dims")


def class_axis(predictions: Any, axis: Any) -> Any:
    """The class axis of a DataArray that is given by its name, from the front; any other as it is."""
    is_name = isinstance(axis, str) and is_named(predictions)
    return checks.named_axis("evaluate", axis, predictions.dims) if is_name else axis


def in_order(predictions: Mapping[str, Any], labels: Any, keys: Keys, axis: int) -> tuple[dict[str, Any], Any, Keys]:
    """The predictions, the labels and the keys, of which DataArrays have the dimensions of the first predictions.

    Raises
    ------
    ValueError
        If they have other dimensions, or other coordinates along them.
    """
    first = next(iter(predictions.values()))
    if not is_named(first) or not -first.ndim <= axis < first.ndim:  # such an axis is refused where it is read
        return {**predictions}, labels, keys
    classes = first.dims[axis]
    batch = tuple(name for name in first.dims if name != classes)

    def ordered(name: str, value: Any) -> Any:
        if not is_named(value):
            return value
        # distributions have the classes, as the predictions; a key of a sequence lacks the dimensions of its tokens
        dims = first.dims if value.ndim == first.ndim else batch[: value.ndim] if name in Keys._fields else batch
        checks.dimensions("evaluate", name, value, dims)
        for dim in dims:
            ours, theirs = (array.indexes.get(dim) for array in (first, value))
            checks.coordinates("evaluate", name, dim, ours, theirs)
        return value.transpose(*dims)

    beside = {name: ordered(name, value) for name, value in keys._asdict().items()}
    return (
        {name: ordered(name, value) for name, value in predictions.items()},
        ordered("labels", labels),
        Keys(**beside),
    )
