"""Columns of an Arrow table as an array: which ones, in which order, and what they may hold.

A name is that of one column, or a glob of plain ones. If the names of a glob differ in a number only, the
columns are the classes in the order of that number, which has no gaps; else they are in the file's order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.messages import refusal, select_array
from xent.optional import require


def arrow() -> Any:
    """The module pyarrow."""
    return require("pyarrow", "parquet", "a Parquet or Arrow file")


def matching(names: Sequence[str], name: str) -> list[str]:
    """The columns of a name or of a glob, in the order of the classes."""
    if not is_several(names, name):
        return [name]
    columns = [column for column in names if fnmatchcase(column, name)]
    numbers = [re.findall("[0-9]+", column) for column in columns]
    stems = {re.sub("[0-9]+", "#", column) for column in columns}
    if len(stems) == 1 and all(len(number) == 1 for number in numbers):
        return sorted(columns, key=lambda column: int(numbers[columns.index(column)][0]))
    return columns


def is_several(names: Sequence[str], name: str) -> bool:
    """Whether the name is a glob of several columns and not a column's own."""
    return name not in names and any(sign in name for sign in "*?[")


def choose(schema: Any, name: str, path: str, argument: str) -> tuple[str, list[str]]:
    """The name, or that of the only column if it is empty, and the columns that it stands for."""
    names = schema.names
    if not is_several(names, name):
        name = select_array(names, name, path, argument)
    columns = matching(names, name)
    if not columns:
        select_array(names, name, path, argument)
    if len(set(columns)) < len(columns) or names.count(columns[0]) > 1:
        raise ValueError(refusal(argument, "name columns that are there once", f"{path}#{name}", "Rename them."))
    numbers = [int(number) for column in columns for number in re.findall("[0-9]+", column)]
    if len(numbers) == len(columns) > 1 and numbers != list(range(numbers[0], numbers[0] + len(columns))):
        rule, got = "have columns that are numbered without a gap", f"{columns[0]} to {columns[-1]} in {path}"
        raise ValueError(refusal(argument, rule, got, "Name the columns anew."))
    return name, columns


def shape_of(schema: Any, rows: int, name: str, columns: Sequence[str], width: int) -> tuple[int, ...]:
    """The shape of the columns; `width` is the length of the lists, if they are lists."""
    if is_list(schema.field(columns[0]).type):
        return rows, width
    return (rows, len(columns)) if is_several(schema.names, name) else (rows,)


def dtype_of(schema: Any, columns: Sequence[str], path: str, argument: str) -> np.dtype[Any]:
    """The one dtype of the columns, or of the lists' values."""
    types = arrow().types
    kinds = {name: schema.field(name).type for name in columns}
    values = {name: kind.value_type if is_list(kind) and len(columns) == 1 else kind for name, kind in kinds.items()}
    for name, kind in values.items():
        if not (types.is_floating(kind) or types.is_integer(kind)) or kind != values[columns[0]]:
            rule = "be columns of one type of number, or one column of lists of numbers"
            raise TypeError(refusal(argument, rule, f"{name} of type {kinds[name]} in {path}", "Cast it."))
    dtype: np.dtype[Any] = np.dtype(values[columns[0]].to_pandas_dtype())
    return dtype


def is_list(kind: Any) -> bool:
    """Whether the values of an Arrow type are lists."""
    types = arrow().types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def array_of(table: Any, columns: Sequence[str], shape: tuple[int, ...], first: int) -> NDArray[Any]:
    """The columns as an array of this shape but for its rows; the table's first row is row `first` of the file."""
    kind = table.schema.field(columns[0]).type
    if is_list(kind):
        return joined([list_values(chunk, row, shape[1]) for chunk, row in chunks_of(table, columns[0], first)])
    if len(shape) == 1:
        return joined([plain_values(chunk, row) for chunk, row in chunks_of(table, columns[0], first)])
    array = np.empty((table.num_rows, len(columns)), kind.to_pandas_dtype())
    for index, name in enumerate(columns):
        for chunk, row in chunks_of(table, name, first):
            array[row - first : row - first + len(chunk), index] = plain_values(chunk, row)
    return array


def check_no_nulls(table: Any, columns: Sequence[str], shape: tuple[int, ...], first: int) -> None:
    """Raise ValueError for a null anywhere in whole row groups or batches: the same rows fail for any chunks."""
    for name in columns:
        for chunk, row in chunks_of(table, name, first):
            if is_list(chunk.type):
                list_values(chunk, row, shape[1])
            else:
                plain_values(chunk, row)


def chunks_of(table: Any, name: str, first: int) -> list[tuple[Any, int]]:
    """The chunks of one column, each with the row at which it begins."""
    chunks = table.column(name).chunks
    return list(zip(chunks, accumulate(map(len, chunks), initial=first), strict=False))


def joined(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """The arrays, one after the other; a single array is not copied."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def plain_values(chunk: Any, first: int) -> NDArray[Any]:
    """The numbers of a chunk; ValueError for a null."""
    if chunk.null_count:
        missing = int(np.argmax(chunk.is_null().to_numpy(zero_copy_only=False)))
        raise ValueError(f"row {first + missing} is null")
    return np.asarray(chunk.to_numpy(zero_copy_only=False))


def list_values(chunk: Any, first: int, classes: int) -> NDArray[Any]:
    """The numbers of a chunk of lists, shape (rows, classes); ValueError for a null, or a list of another length."""
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
