"""Columns of an Arrow table as an array: which ones, in which order, and what they may hold.

A name is that of one column, or a glob of plain ones. If all that differs in the names of a glob is a number, the
columns are the classes in the order of that number, which has no gaps; else they are taken in the file's order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from xent.evaluation.sources.source import chosen, refusal
from xent.optional import require


def arrow() -> Any:
    """The module pyarrow."""
    return require("pyarrow", "parquet", "a Parquet or Arrow file")


def matching(names: Sequence[str], name: str) -> list[str]:
    """The columns of a name or of a glob, in the order of the classes."""
    if not is_several(names, name):
        return [name]
    found = [column for column in names if fnmatchcase(column, name)]
    numbers = [re.findall("[0-9]+", column) for column in found]
    stems = {re.sub("[0-9]+", "#", column) for column in found}
    if len(stems) == 1 and all(len(number) == 1 for number in numbers):
        return sorted(found, key=lambda column: int(numbers[found.index(column)][0]))
    return found


def is_several(names: Sequence[str], name: str) -> bool:
    """Whether the name is a glob of several columns and not a column's own."""
    return name not in names and any(sign in name for sign in "*?[")


def choose(schema: Any, name: str, path: str, argument: str) -> tuple[str, list[str]]:
    """The name that was asked for, or of the only column, and the columns that it stands for."""
    names = schema.names
    if not is_several(names, name):
        name = chosen(names, name, path, argument)
    found = matching(names, name)
    if not found:
        chosen(names, name, path, argument)
    if len(set(found)) < len(found) or names.count(found[0]) > 1:
        raise ValueError(refusal(argument, "name columns that are there once", f"{path}#{name}", "Rename them."))
    numbers = [int(number) for column in found for number in re.findall("[0-9]+", column)]
    if len(numbers) == len(found) > 1 and numbers != list(range(numbers[0], numbers[0] + len(found))):
        rule = "have columns that are numbered without a gap"
        raise ValueError(refusal(argument, rule, f"{found[0]} to {found[-1]} in {path}", "Name the columns anew."))
    return name, found


def shape_of(schema: Any, rows: int, name: str, found: Sequence[str], width: int) -> tuple[int, ...]:
    """The shape of the columns; `width` is the length of the lists, where they are lists."""
    if is_list(schema.field(found[0]).type):
        return rows, width
    return (rows, len(found)) if is_several(schema.names, name) else (rows,)


def dtype_of(schema: Any, found: Sequence[str], path: str, argument: str) -> np.dtype[Any]:
    """The one dtype of the columns, or of the lists' values."""
    types = arrow().types
    kinds = {column: schema.field(column).type for column in found}
    values = {column: kind.value_type if is_list(kind) and len(found) == 1 else kind for column, kind in kinds.items()}
    for column, kind in values.items():
        if not (types.is_floating(kind) or types.is_integer(kind)) or kind != values[found[0]]:
            rule = "be columns of one type of number, or one column of lists of numbers"
            raise TypeError(refusal(argument, rule, f"{column} of type {kinds[column]} in {path}", "Cast it."))
    dtype: np.dtype[Any] = np.dtype(values[found[0]].to_pandas_dtype())
    return dtype


def is_list(kind: Any) -> bool:
    """Whether the values of an Arrow type are lists."""
    types = arrow().types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def block(table: Any, found: Sequence[str], shape: tuple[int, ...], first: int) -> np.ndarray[Any, Any]:
    """The columns as an array of this shape but for its rows; the table's first row is row `first` of the file."""
    if is_list(table.schema.field(found[0]).type):
        return joined([lists(chunk, row, shape[1]) for chunk, row in pieces(table, found[0], first)])
    if len(shape) == 1:
        return joined([plain(chunk, row) for chunk, row in pieces(table, found[0], first)])
    made = np.empty((table.num_rows, len(found)), table.schema.field(found[0]).type.to_pandas_dtype())
    for column, name in enumerate(found):
        for chunk, row in pieces(table, name, first):
            made[row - first : row - first + len(chunk), column] = plain(chunk, row)
    return made


def check_whole(table: Any, found: Sequence[str], shape: tuple[int, ...], first: int) -> None:
    """Raise ValueError for a null anywhere in what is stored together, so that the same rows fail for any chunks."""
    for name in found:
        for chunk, row in pieces(table, name, first):
            if is_list(chunk.type):
                lists(chunk, row, shape[1])
            else:
                plain(chunk, row)


def pieces(table: Any, name: str, first: int) -> list[tuple[Any, int]]:
    """The pieces of one column, each with the row at which it begins."""
    made = []
    for chunk in table.column(name).chunks:
        made.append((chunk, first))
        first += len(chunk)
    return made


def joined(arrays: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """The arrays as one, without a copy if it is one."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def plain(chunk: Any, first: int) -> np.ndarray[Any, Any]:
    """Numbers, none of them missing."""
    if chunk.null_count:
        missing = int(np.argmax(chunk.is_null().to_numpy(zero_copy_only=False)))
        raise ValueError(f"row {first + missing} is null")
    return np.asarray(chunk.to_numpy(zero_copy_only=False))


def lists(chunk: Any, first: int, classes: int) -> np.ndarray[Any, Any]:
    """Lists of as many numbers as there are classes, shape (rows, classes)."""
    if chunk.null_count:
        missing = int(np.argmax(chunk.is_null().to_numpy(zero_copy_only=False)))
        raise ValueError(f"row {first + missing} is null")
    if not arrow().types.is_fixed_size_list(chunk.type):
        lengths = np.diff(chunk.offsets.to_numpy())
        wrong = np.flatnonzero(lengths != classes)
        if wrong.size:
            raise ValueError(f"row {first + wrong[0]} is a list of {lengths[wrong[0]]} where others have {classes}")
    values = chunk.flatten()
    if values.null_count:
        missing = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise ValueError(f"row {first + missing // classes} holds a null")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(chunk), classes)
