"""Tables in text: CSV and TSV files, and JSON lines, plain or gzipped.

Columns are named as those of Parquet files are, and read by pyarrow, a piece of lines at a time. The types are those
that pyarrow finds in the first lines: numbers are float64, and integers int64 where they are no predictions. A file
whose first line holds nothing but numbers has no header; its columns are then 0, 1, 2, ... Where the names of all
columns are numbers, and none is named, all of them are meant.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
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
    list_sizes,
    matching,
    number_type,
    rows_of,
    shape_of,
)
from xent.evaluation.sources.lines import Lines, line_index, lines_of
from xent.evaluation.sources.messages import MalformedError, ReadError, reading, refusal
from xent.evaluation.sources.source import TEXT
from xent.evaluation.sources.storage import Stamp, check_unchanged, status
from xent.optional import require

HEAD_ROWS = 1000
"""Rows of which the types are found."""
NULLS = ["", "null", "NULL", "NA", "N/A", "None", "#N/A"]
"""What is written for a number that is not there. A NaN is a number."""


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

    def columns(self) -> list[str]:
        return matching(self.head().schema.names, self.name)

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


@dataclass(frozen=True, eq=False)
class DelimitedSource(TextTableSource):
    """Columns of a CSV or TSV file."""

    def head(self) -> Head:
        return delimited_head(self.file, self.stamp)

    def table_of(self, text: bytes, names: Sequence[str], schema: Any) -> Any:
        return delimited_table(text, self.file, names, schema)

    @property
    def is_quoted(self) -> bool:
        return True


@dataclass(frozen=True, eq=False)
class JsonLinesSource(TextTableSource):
    """Fields of a file of JSON lines."""

    def head(self) -> Head:
        return json_head(self.file, self.stamp)

    def table_of(self, text: bytes, names: Sequence[str], schema: Any) -> Any:
        return json_table(text, schema)

    @property
    def is_quoted(self) -> bool:
        return False


def open_delimited(path: str, name: str, argument: str) -> DelimitedSource:
    """Columns of a CSV or TSV file, all of whose lines have been counted."""
    stamp = status(path).stamp
    head = first_lines(path, argument, delimited_head, stamp)
    if not name and len(head.schema) > 1 and all(map(str.isdigit, head.schema.names)):
        name = "*"
    return DelimitedSource(*facts_of(path, name, argument, stamp, head, quoted=True))


def open_json(path: str, name: str, argument: str) -> JsonLinesSource:
    """Fields of a file of JSON lines, all of whose lines have been counted."""
    stamp = status(path).stamp
    return JsonLinesSource(
        *facts_of(path, name, argument, stamp, first_lines(path, argument, json_head, stamp), quoted=False)
    )


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
        is_whole = argument in KEYS and all(map(types.is_integer, kinds))
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


# ---------------------------------------------------------------------------------------------------------------------
# CSV and TSV


def delimiter_of(path: str) -> str:
    """The character between the fields of a file, which its suffix tells."""
    return "\t" if re.search(r"\.tsv(\.gz)?$", path.lower()) else ","


@lru_cache(maxsize=16)
def delimited_head(path: str, stamp: Stamp) -> Head:
    """The columns of a CSV or TSV file: their names, and the types that pyarrow finds in the first rows."""
    lines = leading_lines(path, stamp, quoted=True)
    if lines is None:
        raise ValueError("it has no lines")
    first, *more = rows_of_lines(lines)
    if b"\r" in first.rstrip(b"\r\n"):
        raise ValueError("its lines end in a carriage return alone")
    fields = fields_of(first, path)
    header_rows = int(is_header(fields, fields_of(more[0], path) if more else ()))
    names = tuple(fields if header_rows else map(str, range(len(fields))))
    rows = [first, *more][header_rows:]
    kinds = [arrow().null()] * len(names)
    if rows:
        kinds = first_table(
            lines, lambda text: delimited_table(text, path, names, None), path, header_rows
        ).schema.types
    for i, value in enumerate(fields_of(rows[0], path)[: len(names)] if rows else ()):
        # a column whose first field is a number is one of numbers, in which a later one is wrong
        if value and is_number(value) and arrow().types.is_string(kinds[i]):
            kinds[i] = arrow().float64()
    named = [(name, kind) for name, kind in zip(names, kinds, strict=True) if name]  # that of pandas' index is empty
    return Head(names, header_rows, arrow().schema(named))


def rows_of_lines(lines: Lines) -> list[bytes]:
    """The text of each row, without blank lines before it."""
    return [lines.text[a:b].lstrip(b"\r\n") for a, b in pairwise([0, *lines.ends])]


def fields_of(line: bytes, path: str) -> list[str]:
    """The fields of a line."""
    text = line.decode("utf-8-sig", "backslashreplace")
    return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(path)), [])


def is_header(fields: Sequence[str], below: Sequence[str]) -> bool:
    """Whether the first line names the columns: not if all are numbers, unless they count them as pandas does."""
    if not all(map(is_number, fields)):
        return True
    counts = [field for field in fields if field] == [str(i) for i in range(sum(map(bool, fields)))]
    return counts and (len(fields) > 2 or (len(fields) == len(below) and not any(map(str.isdigit, below))))


def is_number(field: str) -> bool:
    """Whether a field is a number, or is empty, as one that is not there."""
    try:
        float(field or 0)
    except ValueError:
        return False
    return True


def delimited_table(text: bytes, path: str, names: Sequence[str], schema: Any) -> Any:
    """Whole lines of a CSV or TSV file as a table; of the columns of the schema if there is one."""
    module = require("pyarrow.csv", "parquet", "a CSV file")
    chosen = {} if schema is None else {"include_columns": schema.names, "column_types": schema}
    return module.read_csv(
        io.BytesIO(text),
        module.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=[*names]),
        module.ParseOptions(delimiter=delimiter_of(path), newlines_in_values=True),
        module.ConvertOptions(null_values=NULLS, strings_can_be_null=False, **chosen),
    )


# ---------------------------------------------------------------------------------------------------------------------
# JSON lines


@lru_cache(maxsize=16)
def json_head(path: str, stamp: Stamp) -> Head:
    """The fields of JSON lines and the types that pyarrow finds in the first rows, with the sizes of lists."""
    lines = leading_lines(path, stamp, quoted=False)
    if lines is None:
        raise ValueError("it has no lines")
    table = first_table(lines, lambda text: json_table(text, None), path)
    sizes = {}
    for name, column in zip(table.schema.names, table.columns, strict=True):
        if is_list(column.type):
            values = [list_sizes(value) for value in column if value.is_valid]
            best = next((size for size in values if all(size)), values[0] if values else (0,))
            sizes[f"sizes {name}"] = " ".join(map(str, best))
    return Head(tuple(table.schema.names), 0, table.schema.with_metadata(sizes))


def json_table(text: bytes, schema: Any) -> Any:
    """Whole JSON lines as a table; of the fields of the schema if there is one."""
    module = require("pyarrow.json", "parquet", "JSON lines")
    chosen = {} if schema is None else {"explicit_schema": schema, "unexpected_field_behavior": "ignore"}
    return module.read_json(
        io.BytesIO(text),
        module.ReadOptions(use_threads=False, block_size=len(text) + 1),
        module.ParseOptions(newlines_in_values=False, **chosen),
    )
