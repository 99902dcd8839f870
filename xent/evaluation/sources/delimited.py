"""CSV and TSV files, plain or gzipped.

A file whose first line holds nothing but numbers has no header; its columns are then 0, 1, 2, ... Where the names of
all columns are numbers, and none is named, all of them are meant.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from xent.evaluation.sources.columns import arrow
from xent.evaluation.sources.messages import MalformedError
from xent.evaluation.sources.storage import Stamp, status, suffix
from xent.evaluation.sources.text_tables import (
    Head,
    TextTableSource,
    facts_of,
    first_lines,
    first_table,
    leading_lines,
    rows_of_lines,
)
from xent.optional import require

OTHER_DELIMITERS = (";", "\t", "|")
DELIMITED_ROWS = 10
"""Rows after the first in which another delimiter is looked for."""
NULLS = ["", "null", "NULL", "NA", "N/A", "None", "#N/A"]
"""What is written for a number that is not there. A NaN is a number."""


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


def open_delimited(path: str, name: str, argument: str) -> DelimitedSource:
    """Columns of a CSV or TSV file, all of whose lines have been counted."""
    stamp = status(path).stamp
    head = first_lines(path, argument, delimited_head, stamp)
    if not name and len(head.schema) > 1 and all(map(str.isdigit, head.schema.names)):
        name = "*"
    return DelimitedSource(*facts_of(path, name, argument, stamp, head, quoted=True))


def delimiter_of(path: str) -> str:
    """The character between the fields of a file, which its suffix tells."""
    return "\t" if suffix(path).startswith(".tsv") else ","


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
    check_delimiter(fields, [first, *more[:DELIMITED_ROWS]], path)
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


def check_delimiter(fields: Sequence[str], rows: Sequence[bytes], path: str) -> None:
    """Raise MalformedError if the first line is one field, and another delimiter is equally often in the first rows."""
    for delimiter in OTHER_DELIMITERS if len(fields) == 1 else ():
        counts = {row.count(delimiter.encode()) for row in rows}
        if counts != {0} and len(counts) == 1:
            decimal = ", decimal=','" if any(b"," in row for row in rows[1:]) else ""
            remedy = f"Write it again: pandas.read_csv(path, sep={delimiter!r}{decimal}).to_csv(path, index=False)"
            raise MalformedError(f"evaluate: {path} has {delimiter!r} between its fields, not a comma. {remedy}.")


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
