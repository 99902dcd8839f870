"""Columns of an Arrow table as an array: which ones, in which order, and what they may hold.

A name is that of one column, or stands for several plain ones: a list of names and globs, as in ``a,b`` or ``p_*``,
of which those with a ``!`` before them leave columns out, as in ``p_*,!p_total``. The classes are in the order of the
list. If the names of a glob differ in a number only, they are in the order of that number, which has no gaps; else in
the file's order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.messages import refusal, select_array
from xent.evaluation.sources.source import TEXT
from xent.optional import require

KEYS = ("labels", "slices", "clusters")
"""The arguments that may be text."""
CACHED_ELEMENTS = 2**18
"""Columns are put side by side so many numbers at a time."""


def arrow() -> Any:
    """The module pyarrow."""
    return require("pyarrow", "parquet", "a Parquet or Arrow file")


def matching(names: Sequence[str], name: str) -> list[str]:
    """The columns of a name, or of a list of names and globs, in the order of the classes."""
    if not is_several(names, name):
        return [name]
    terms = name.split(",")
    left_out = [term[1:] for term in terms if term.startswith("!")]
    kept = [column for column in names if not any(fnmatchcase(column, term) for term in left_out)]
    wanted = [term for term in terms if not term.startswith("!")] or ["*"]
    return [column for term in wanted for column in ([term] if term in kept else of_glob(kept, term))]


def of_glob(names: Sequence[str], pattern: str) -> list[str]:
    """The columns that a glob matches: in the order of the one number in which they differ, else in the file's."""
    columns = [column for column in names if fnmatchcase(column, pattern)]
    numbers = [re.findall("[0-9]+", column) for column in columns]
    stems = {re.sub("[0-9]+", "#", column) for column in columns}
    if len(stems) == 1 and all(len(number) == 1 for number in numbers):
        return [column for _, column in sorted(zip((int(number) for (number,) in numbers), columns, strict=True))]
    return columns


def is_several(names: Sequence[str], name: str) -> bool:
    """Whether the name stands for several columns and is not a column's own."""
    return name not in names and any(sign in name for sign in "*?[,!")


def choose(schema: Any, name: str, path: str, argument: str) -> tuple[str, list[str]]:
    """The name, or that of the only column if it is empty, and the columns that it stands for."""
    names = schema.names
    if not is_several(names, name):
        name = select_array(names, name, path, argument, are_columns=True)
    columns, terms = matching(names, name), name.split(",") if is_several(names, name) else []
    for term in terms:
        if term not in names and not any(fnmatchcase(column, term.removeprefix("!")) for column in names):
            select_array(names, term.removeprefix("!"), path, argument, are_columns=True)
    if not columns:
        select_array(names, name, path, argument, are_columns=True)
    counts = Counter(names)
    if len(set(columns)) < len(columns) or any(counts[column] > 1 for column in columns):
        raise ValueError(refusal(argument, "name columns that are there once", f"{path}#{name}", "Name each once."))
    numbers = [int(number) for column in columns for number in re.findall("[0-9]+", column)]
    is_one_glob = len(columns) > 1 and sum(not term.startswith("!") for term in terms) == 1
    if is_one_glob and len(numbers) == len(columns) and numbers != [*range(numbers[0], numbers[0] + len(columns))]:
        rule, got = "have columns that are numbered without a gap", f"{columns[0]} to {columns[-1]} in {path}"
        raise ValueError(refusal(argument, rule, got, "List the columns, as in #a,b,c, or name them anew."))
    return name, columns


def shape_of(schema: Any, rows: int, name: str, columns: Sequence[str], sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the columns; `sizes` are the lengths of the lists, and of the lists in them, if they are lists."""
    if is_list(schema.field(columns[0]).type):
        return rows, *sizes
    return (rows, len(columns)) if is_several(schema.names, name) else (rows,)


def dtype_of(schema: Any, columns: Sequence[str], path: str, argument: str) -> np.dtype[Any]:
    """The one dtype of the columns, or of the lists' values; a column of keys may hold text.

    Keys and weights may be true and false.
    """
    types = arrow().types
    kinds = {name: schema.field(name).type for name in columns}
    if argument in (*KEYS, "weights") and len(columns) == 1:
        kind = kinds[columns[0]]
        kind = kind.value_type if types.is_dictionary(kind) else kind
        if is_text(kind) and argument in KEYS:
            return TEXT
        if types.is_boolean(kind):
            return np.dtype(bool)
    values = {name: number_type(kind) if len(columns) == 1 else kind for name, kind in kinds.items()}
    for name, kind in values.items():
        if not (types.is_floating(kind) or types.is_integer(kind)) or kind != values[columns[0]]:
            rule = "be columns of one type of number, or one column of lists of numbers"
            rule += ", or of text" if argument in KEYS else ""
            raise TypeError(refusal(argument, rule, f"{name} of type {kinds[name]} in {path}", "Cast it."))
    dtype: np.dtype[Any] = np.dtype(values[columns[0]].to_pandas_dtype())
    return dtype


def number_type(kind: Any) -> Any:
    """The Arrow type of the values in lists, and in lists of lists; any other type itself."""
    return number_type(kind.value_type) if is_list(kind) else kind


def list_sizes(value: Any) -> tuple[int, ...]:
    """The length of a list, of the first list in it, and so on; 0 where there is none."""
    sizes: list[int] = []
    kind = value.type
    while is_list(kind):
        items = value.values if value is not None and value.is_valid else ()
        sizes.append(len(items))
        value, kind = next((item for item in items if item.is_valid), None), kind.value_type
    return tuple(sizes)


def is_text(kind: Any) -> bool:
    """Whether the values of an Arrow type are text."""
    types = arrow().types
    return any(
        getattr(types, f"is_{name}", lambda _: False)(kind)
        for name in ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
    )


def is_list(kind: Any) -> bool:
    """Whether the values of an Arrow type are lists."""
    types = arrow().types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


class Rows(NamedTuple):
    """Rows of a table: the numbers; which rows are null, if any are, whose numbers are any; what the first of them is.

    A row is null if it is, if a number in it is, or if it is a list of another length.
    """

    values: NDArray[Any]
    is_null: NDArray[np.bool_] | None = None
    flaw: str = ""


def rows_of(table: Any, columns: Sequence[str], shape: tuple[int, ...], first: int) -> Rows:
    """The columns as an array of this shape but for its rows; the table's first row is row `first` of the file."""
    held = dict(zip(table.schema.names, table.columns, strict=True))  # asked by name a wide table looks at all of them
    chunks = chunks_of(held[columns[0]], first)
    if is_list(held[columns[0]].type):
        return joined([list_rows(chunk, row, shape[1:]) for chunk, row in chunks])
    if len(shape) == 1:
        return joined([plain_rows(chunk, row) for chunk, row in chunks])
    pieces = [joined([plain_rows(chunk, row) for chunk, row in chunks_of(held[name], first)]) for name in columns]
    values = side_by_side([piece.values for piece in pieces])
    nulls = [piece.is_null for piece in pieces if piece.is_null is not None]
    if not nulls:
        return Rows(values)
    return Rows(values, np.logical_or.reduce(nulls), next(piece.flaw for piece in pieces if piece.flaw))


def side_by_side(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Columns (rows,) as an array (rows, columns), written as many rows at a time as stay in the processor's cache."""
    values = np.empty((len(columns[0]), len(columns)), columns[0].dtype)
    step = max(1, CACHED_ELEMENTS // len(columns))
    for start in range(0, len(values), step):
        block = values[start : start + step]
        for index, column in enumerate(columns):
            block[:, index] = column[start : start + step]
    return values


def chunks_of(column: Any, first: int) -> list[tuple[Any, int]]:
    """The chunks of a column, each with the row at which it begins."""
    chunks = column.chunks
    return list(zip(chunks, accumulate(map(len, chunks), initial=first), strict=False))


def joined(pieces: list[Rows]) -> Rows:
    """The rows, one piece after the other; a single piece is not copied."""
    if len(pieces) == 1:
        return pieces[0]
    values, flaws = np.concatenate([piece.values for piece in pieces]), [piece.flaw for piece in pieces if piece.flaw]
    if not flaws:
        return Rows(values)
    nulls = [np.zeros(len(piece.values), bool) if piece.is_null is None else piece.is_null for piece in pieces]
    return Rows(values, np.concatenate(nulls), flaws[0])


def plain_rows(chunk: Any, first: int) -> Rows:
    """The numbers, or the text, of a chunk."""
    types, kind = arrow().types, chunk.type
    if is_text(kind) or types.is_dictionary(kind):
        texts = ["" if text is None else text for text in chunk.to_pylist()]
        values = np.asarray([decoded(text) if isinstance(text, bytes) else text for text in texts], TEXT)
    elif (types.is_integer(kind) or types.is_floating(kind)) and not chunk.null_count:
        values = np.from_dlpack(chunk)  # to_numpy would import pandas, which takes 0.3 s of the processor
    else:
        # a float16 cannot be filled, and an integer beside a null would become a float
        filling = False if types.is_boolean(kind) else 0
        filled = chunk.fill_null(filling) if chunk.null_count and not types.is_floating(kind) else chunk
        values = np.asarray(filled.to_numpy(zero_copy_only=False))
    if not chunk.null_count:
        return Rows(values)
    is_null = chunk.is_null().to_numpy(zero_copy_only=False)
    return Rows(values, is_null, f"row {first + int(np.argmax(is_null))} is null")


def decoded(text: bytes) -> str:
    """Text of bytes, those that are not UTF-8 by their numbers."""
    return text.decode("utf-8", "backslashreplace")


def list_rows(chunk: Any, first: int, sizes: tuple[int, ...]) -> Rows:
    """The numbers of a chunk of lists, or of lists of lists, shape (rows, *sizes)."""
    size, is_null = sizes[0], np.zeros(len(chunk), bool)
    if chunk.null_count:
        is_null |= chunk.is_null().to_numpy(zero_copy_only=False)
    lengths = np.full(len(chunk), size)
    if not arrow().types.is_fixed_size_list(chunk.type):
        lengths = np.where(is_null, size, np.diff(np.from_dlpack(chunk.offsets)))
    is_whole = ~is_null & (lengths == size)
    values = (chunk if is_whole.all() else chunk.filter(arrow().array(is_whole))).flatten()
    held = list_rows(values, 0, sizes[1:]) if len(sizes) > 1 else plain_rows(values, 0)
    holds_null = np.zeros(len(chunk), bool)
    if held.is_null is not None:
        holds_null[is_whole] = held.is_null.reshape(-1, size).any(axis=1)
    block = held.values.reshape(-1, *sizes)
    bad = ~is_whole | holds_null
    if not bad.any():
        return Rows(block)
    filled = np.zeros((len(chunk), *sizes), block.dtype)
    filled[is_whole] = block
    row = int(np.argmax(bad))
    flaw = (
        "is null" if is_null[row] else "holds a null" if len(sizes) == 1 else "holds a null, or lists of other lengths"
    )
    flaw = flaw if lengths[row] == size else f"is a list of {lengths[row]} where others have {size}"
    return Rows(filled, bad, f"row {first + row} {flaw}")
