"""Tables in text, by lines: what CSV files and JSON lines share.

Columns are named as those of Parquet files are, and read by pyarrow, some megabytes of lines at a time. The types are
those that pyarrow finds in the first lines: numbers are float64, and integers int64 where they are no predictions.
Leaves out how a line of either is read.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.arrow import TableSource
from xent.evaluation.sources.columns import (
    KEYS,
    arrow,
    choose,
    dtype_of,
    is_list,
    number_type,
    rows_of,
    shape_of,
)
from xent.evaluation.sources.lines import Lines, line_index, lines_of
from xent.evaluation.sources.messages import MalformedError, ReadError, reading, refusal
from xent.evaluation.sources.source import TEXT
from xent.evaluation.sources.storage import Stamp, check_unchanged

HEAD_ROWS = 1000
"""Rows of which the types are found."""


class Head(NamedTuple):
    """What the first lines of a file tell: the names of its columns, the first row after a header, and their schema."""

    names: tuple[str, ...]
    header_rows: int
    schema: Any


@dataclass(frozen=True, eq=False)
class TextTableSource(TableSource):
    """Columns of a text file; a row that cannot be read is lost alone."""

    def edge(self, start: int, stop: int) -> int | None:
        return (start + stop) // 2 if stop - start > 1 else None

    def bounds(self, chunk_bytes: int) -> list[int]:
        return self.bounds_by(1, chunk_bytes)

    def held(self) -> list[str]:
        return [*self.head().schema.names]

    def table(self, start: int, stop: int) -> tuple[Any, int, list[str]]:
        """These rows alone."""
        return self.joined(start, stop, self.parsed), start, self.columns()

    def read_with_nulls(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """The rows, and which of them are null, or no rows of the table."""
        check_unchanged(self.file, self.stamp)
        with reading(self.path, start, stop):
            rows = rows_of(self.joined(start, stop, self.salvaged), self.columns(), self.shape, start)
            return np.ascontiguousarray(rows.values), rows.is_null

    def joined(self, start: int, stop: int, read: Callable[[Lines, Head, Any], Any]) -> Any:
        """These rows as a table, of what `read` makes of pieces of lines, given the head and the columns' schema."""
        head = self.head()
        found = dict(zip(head.schema.names, head.schema.types, strict=True))
        schema = arrow().schema([(name, kind_to_read(found[name], self.dtype)) for name in self.columns()])
        first, last = start + head.header_rows, stop + head.header_rows
        lines = lines_of(self.file, self.stamp, first, last, quoted=self.is_quoted)
        table = arrow().concat_tables([schema.empty_table(), *(read(each, head, schema) for each in lines)])
        return table.combine_chunks()  # a wide table is of many pieces, of each column

    def parsed(self, lines: Lines, head: Head, schema: Any) -> Any:
        """The lines as a table of the schema; ReadError that names the first line that is no row of it."""

        def read(text: bytes, rows: int) -> Any:
            return self.whole_table(text, rows, head, schema)

        return read_or_name(read, lines, self.path, head.header_rows)

    def salvaged(self, lines: Lines, head: Head, schema: Any) -> Any:
        """The lines as a table of the schema, in which a line that is no row of it is null."""
        tables, pending = [], [(0, len(lines.ends))]
        while pending:
            first, last = pending.pop()
            text = lines.text[lines.ends[first - 1] if first else 0 : lines.ends[last - 1]]
            try:
                tables.append(self.whole_table(text, last - first, head, schema))
            except (arrow().ArrowInvalid, ValueError):
                middle = (first + last) // 2
                if last - first > 1:
                    pending += [(middle, last), (first, middle)]
                else:
                    nulls = [arrow().nulls(1, field.type) for field in schema]
                    tables.append(arrow().Table.from_arrays(nulls, schema=schema))
        return arrow().concat_tables(tables)

    def whole_table(self, text: bytes, rows: int, head: Head, schema: Any) -> Any:
        """Whole lines as a table of so many rows; ValueError if they have others."""
        table = self.table_of(text, head.names, schema)
        if table.num_rows != rows:
            raise ValueError("its quotation marks enclose no whole fields")
        return table

    def head(self) -> Head:
        """What the first lines tell."""
        raise NotImplementedError

    def table_of(self, text: bytes, names: Sequence[str], schema: Any) -> Any:
        """Whole lines as a table."""
        raise NotImplementedError

    @property
    def is_quoted(self) -> bool:
        """Whether a line feed may be part of a field."""
        raise NotImplementedError


def read_or_name(read: Callable[[bytes, int], Any], lines: Lines, path: str, header_rows: int = 0) -> Any:
    """What `read` makes of the text of some lines and the number of their rows.

    Raises
    ------
    ReadError
        If it raises an error: the first line at which it does is named, with its row after those of a header.
    """
    errors = (arrow().ArrowInvalid, ValueError)
    try:
        return read(lines.text, len(lines.ends))
    except errors as error:
        good, bad, reason = 0, len(lines.ends), said(error)
    while bad - good > 1:  # the first `good` rows can be read, the first `bad` cannot
        middle = (good + bad) // 2
        try:
            read(lines.text[: lines.ends[middle - 1]], middle)
            good = middle
        except errors as error:
            bad, reason = middle, said(error)
    where = f"line {lines.numbers[good] + 1} of {path}, row {lines.row + good - header_rows}"
    raise ReadError(f"evaluate: {where}, could not be read ({reason}).")


def first_table(lines: Lines, read: Callable[[bytes], Any], path: str, header_rows: int = 0) -> Any:
    """What `read` makes of those of the first lines that are rows; ReadError that names a line if it makes nothing."""
    errors, rows = (arrow().ArrowInvalid, ValueError), rows_of_lines(lines)[header_rows:]

    def table(text: bytes) -> Any:
        try:
            return read(text)
        except errors:
            return None

    made = table(b"".join(rows))
    if made is None and (good := [row for row in rows if table(row) is not None]):
        made = table(b"".join(good))
    return read_or_name(lambda text, _: read(text), lines, path, header_rows) if made is None else made


def first_lines(path: str, argument: str, read_head: Any, stamp: Stamp) -> Head:
    """What the first lines tell; MalformedError if they are no table."""
    try:
        head: Head = read_head(path, stamp)
    except (arrow().ArrowException, ValueError, csv.Error, RecursionError) as error:
        if isinstance(error, ReadError):
            raise
        rule = "be a table of text where its name says so"
        raise MalformedError(refusal(argument, rule, f"{path} ({said(error)})", "Write it again.")) from error
    return head


def leading_lines(path: str, stamp: Stamp, *, quoted: bool) -> Lines | None:
    """The first lines, a megabyte or so and at least two rows if there are; None of a file without rows."""
    last = min(HEAD_ROWS, line_index(path, stamp, quoted=quoted).rows[-1])
    pieces = lines_of(path, stamp, 0, last, quoted=quoted)
    first = next(pieces, None)
    if first is not None and first.text.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise MalformedError(f"evaluate: {path} is text in UTF-16. Write it again in UTF-8.")
    if first is None or len(first.ends) > 1:
        return first
    more = next(pieces, None)
    if more is None:
        return first
    ends, numbers = (
        np.concatenate(both) for both in ((first.ends, more.ends + len(first.text)), (first.numbers, more.numbers))
    )
    return Lines(first.text + more.text, first.row, ends, numbers)


def facts_of(path: str, name: str, argument: str, stamp: Stamp, head: Head, *, quoted: bool) -> tuple[Any, ...]:
    """The fields of a source."""
    name, columns = choose(head.schema, name, path, argument)
    schema = as_numbers(head.schema, columns, argument)
    rows = line_index(path, stamp, quoted=quoted).rows[-1] - head.header_rows
    sizes: tuple[int, ...] = ()
    if is_list(schema.field(columns[0]).type):
        field = head.schema.metadata[b"sizes " + columns[0].encode()]
        sizes = tuple(int(size) for size in field.split())
    dtype = dtype_of(schema, columns, path, argument)
    return f"{path}#{name}", shape_of(schema, rows, name, columns, sizes), dtype, path, stamp, name, ()


def as_numbers(schema: Any, columns: Sequence[str], argument: str) -> Any:
    """The schema of the columns, with one type of number: float64 if any is, or if they are predictions."""
    types = arrow().types
    fields = [schema.field(index) for index in map({name: i for i, name in enumerate(schema.names)}.get, columns)]
    kinds = [number_type(field.type) for field in fields]
    if all(types.is_integer(kind) or types.is_floating(kind) or types.is_null(kind) for kind in kinds):
        is_whole = argument in KEYS and all(types.is_integer(kind) or types.is_null(kind) for kind in kinds)
        number = arrow().int64() if is_whole else arrow().float64()
        fields = [field.with_type(with_number(field.type, number)) for field in fields]
    elif argument in KEYS and len(columns) == 1 and not (types.is_boolean(kinds[0]) or types.is_nested(kinds[0])):
        fields = [fields[0].with_type(arrow().string())]  # a date for instance
    return arrow().schema(fields, schema.metadata)


def kind_to_read(kind: Any, dtype: np.dtype[Any]) -> Any:
    """The Arrow type as which a column is read, of what was found in the first lines and the dtype of the source."""
    return arrow().string() if dtype == TEXT else with_number(kind, arrow().from_numpy_dtype(dtype))


def with_number(kind: Any, number: Any) -> Any:
    """The type with another type of values in its lists, however deep."""
    return arrow().list_(with_number(kind.value_type, number)) if is_list(kind) else number


def said(error: Exception) -> str:
    """What pyarrow says of a line, without where it was in the piece."""
    text = str(error).partition("\n")[0].strip()
    return re.sub(r"Row #\d+: |In CSV column #\d+: | in row \d+$", "", text).rstrip(".")


def rows_of_lines(lines: Lines) -> list[bytes]:
    """The text of each row, without blank lines before it."""
    return [lines.text[a:b].lstrip(b"\r\n") for a, b in pairwise([0, *lines.ends])]
