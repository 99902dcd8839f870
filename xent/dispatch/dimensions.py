"""Arrays with named dimensions, xarray's DataArray: their arguments in one order, and their results named again.

The predictions say which dimensions there are: what is beside them is brought into their order by its names, and a
result has the names and the coordinates of the dimensions that are left. xarray is not imported; whoever has a
DataArray has imported it.
"""

from __future__ import annotations

import sys
from typing import Any

from .. import checks
from ..contract.problem import Options, Route, Weights, weights_of


def is_named(value: Any) -> bool:
    """Whether the value is an xarray.DataArray."""
    xarray = sys.modules.get("xarray")
    return xarray is not None and isinstance(value, getattr(xarray, "DataArray", ()))


def unwrap(value: Any) -> Any:
    """The array inside an xarray.DataArray or a Variable; anything else as it is."""
    is_variable = type(value).__module__.startswith("xarray.") and type(value).__name__.endswith("Variable")
    return value.data if is_variable or is_named(value) else value


class Dimensions:
    """The dimensions of one call's predictions.

    Attributes
    ----------
    predictions : xarray.DataArray
    classes : tuple of str
        The class axis; none of a binary loss.
    batch : tuple of str
        The dimensions of a loss without a reduction.
    axis : int
        The class axis, from the front; that of the options for a binary loss.
    """

    def __init__(self, route: Route, predictions: Any, options: Options) -> None:
        self.function, self.predictions = route.function, predictions
        self.axis, self.classes, self.batch = options.axis, tuple[Any, ...](), predictions.dims
        if route.op != "binary":
            self.axis = checks.named_axis(route.function, options.axis, predictions.dims)
            self.classes = (predictions.dims[self.axis],)
            self.batch = tuple(name for name in predictions.dims if name not in self.classes)

    def arguments(self, route: Route, targets: Any, weights: Weights) -> tuple[Any, Weights]:
        """The targets and the weights as arrays, each in the order of the predictions' dimensions."""
        name, of_targets = ("labels", self.batch) if route.op == "sparse" else ("targets", self.predictions.dims)
        last = self.predictions.dims[-1:] if getattr(weights.positive, "dims", ()) else ()
        return self.array(name, targets, of_targets), weights_of(
            self.array("sample_weight", weights.sample, self.batch),
            self.array("class_weight", weights.classes, self.classes),
            self.array("pos_weight", weights.positive, last),
            weights.whole,
            weights.ids,
        )

    def array(self, name: str, value: Any, dims: tuple[Any, ...]) -> Any:
        """The array of an argument with these dimensions in this order; one without names as it is."""
        if not is_named(value):
            return unwrap(value)
        checks.dimensions(self.function, name, value, dims)
        for dim in dims:
            ours, theirs = (array.indexes.get(dim) for array in (self.predictions, value))
            checks.coordinates(self.function, name, dim, ours, theirs)
        return value.transpose(*dims).data

    def named(self, result: Any) -> Any:
        """The arrays of a result with names and coordinates."""
        if isinstance(result, tuple):
            fields = [self.named(field) for field in result]
            return type(result)(*fields) if hasattr(result, "_fields") else tuple(fields)
        by_rank = {len(self.batch): self.batch, len(self.predictions.dims): self.predictions.dims}
        return labelled(self.predictions, result, by_rank.get(result.ndim, ()))


def keep_axis(values: Any, like: Any, axis: Any) -> Any:
    """The values, in which the class axis of ``like`` is missing, with that axis of length 1."""
    index = checks.named_axis("logsumexp", axis, like.dims)
    return values.expand_dims(like.dims[index], index)


def with_classes(values: Any, like: Any, name: str, place: int) -> Any:
    """The values, which have one dimension more than ``like``, of this name at this place."""
    checks.new_dimension("one_hot", name, like.dims)
    return labelled(like, values, (*like.dims[:place], name, *like.dims[place:]))


def labelled(like: Any, values: Any, dims: tuple[Any, ...]) -> Any:
    """The values as a DataArray of these dimensions, with the coordinates that lie along them."""
    lost = [name for name, coordinate in like.coords.items() if not set(coordinate.dims) <= set(dims)]
    return type(like)(values, coords=like.drop_vars(lost).coords, dims=dims)
