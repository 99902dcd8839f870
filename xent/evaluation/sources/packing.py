"""Numbers that are stored packed, as the CF conventions for netCDF have it and xarray writes them to HDF5 and Zarr.

.. math:: x = x_\\text{stored} \\cdot \\text{scale\\_factor} + \\text{add\\_offset}

and the stored ``_FillValue`` or ``missing_value`` stands for a number that is not there.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.messages import ReadError, refusal

SCALES = ("scale_factor", "add_offset")
FILLS = ("_FillValue", "missing_value")


@dataclass(frozen=True)
class Packing:
    """How stored numbers become those that are meant; ``fills`` are the stored ones that are not there."""

    scale: float = 1.0
    offset: float = 0.0
    fills: tuple[Any, ...] = ()

    def dtype(self, stored: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype of the numbers that are meant: int64 where nothing makes fractions of integers, else float64."""
        if (self.scale, self.offset) == (1, 0):
            return stored
        is_whole = stored.kind in "iu" and self.scale.is_integer() and self.offset.is_integer()
        return np.dtype(np.int64 if is_whole else np.float64)

    def unpacked(self, block: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """The numbers that are meant, and which rows lack one: those hold any. A float that is not there is NaN."""
        dtype, is_missing = self.dtype(block.dtype), None
        if self.fills:
            is_missing = np.isin(block, np.asarray(self.fills, block.dtype))
        values = block
        if (self.scale, self.offset) != (1, 0):
            values = block.astype(dtype) * dtype.type(self.scale) + dtype.type(self.offset)
        if is_missing is None or not is_missing.any():
            return values, None
        if dtype.kind == "f":
            return np.where(is_missing, dtype.type(np.nan), values), None
        rows: NDArray[np.bool_] = np.asarray(is_missing.reshape(len(block), -1).any(axis=1))
        return values, rows


def packing_of(attributes: Mapping[str, Any], stored: np.dtype[Any], path: str, argument: str) -> Packing | None:
    """How an array with these attributes is packed; None if it is not. TypeError if they are no numbers."""
    if stored.kind not in "iuf":
        return None
    numbers: dict[str, list[Any]] = {}
    for name in (*SCALES, *FILLS):
        value = attributes.get(name)
        if value is None:
            continue
        try:
            if isinstance(value, str) and name in FILLS and stored.kind == "f":  # as xarray writes floats to Zarr
                value = np.frombuffer(base64.b64decode(value), "<f8")
            numbers[name] = np.asarray(value).astype(np.float64 if name in SCALES else stored).ravel().tolist()
            if name in SCALES and not (len(numbers[name]) == 1 and math.isfinite(numbers[name][0])):
                raise ValueError
        except (TypeError, ValueError, OverflowError) as error:
            rule, remedy = "be packed by numbers", "Write it again with that attribute, or without it."
            raise TypeError(refusal(argument, rule, f"the {name} {value!r} of {path}", remedy)) from error
    fills = tuple(fill for name in FILLS for fill in numbers.get(name, ()) if fill == fill)  # a NaN stays one
    packing = Packing(numbers.get("scale_factor", [1.0])[0], numbers.get("add_offset", [0.0])[0], fills)
    return None if packing == Packing() else packing


def whole_rows(block: NDArray[Any], packing: Packing | None, path: str, start: int, stop: int) -> NDArray[Any]:
    """The rows that are meant, of those that are stored; ReadError if a number is not there that can be no NaN."""
    if packing is None:
        return block
    values, is_missing = packing.unpacked(block)
    if is_missing is not None:
        flaw = f"row {start + int(np.argmax(is_missing))} has a missing value, {packing.fills[0]}"
        raise ReadError(f"evaluate: rows {start} to {stop} of {path} could not be read ({flaw}).")
    return values
