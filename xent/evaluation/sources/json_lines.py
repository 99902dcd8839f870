"""JSON lines, plain or gzipped: the fields of objects are columns, which may be lists."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from xent.evaluation.sources.columns import is_list, list_sizes
from xent.evaluation.sources.messages import MalformedError
from xent.evaluation.sources.storage import Stamp, status
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


def open_json(path: str, name: str, argument: str) -> JsonLinesSource:
    """Fields of a file of JSON lines, all of whose lines have been counted."""
    stamp = status(path).stamp
    return JsonLinesSource(
        *facts_of(path, name, argument, stamp, first_lines(path, argument, json_head, stamp), quoted=False)
    )


@lru_cache(maxsize=16)
def json_head(path: str, stamp: Stamp) -> Head:
    """The fields of JSON lines and the types that pyarrow finds in the first rows, with the sizes of lists."""
    lines = leading_lines(path, stamp, quoted=False)
    if lines is None:
        raise ValueError("it has no lines")
    if rows_of_lines(lines)[0].lstrip(b"\xef\xbb\xbf \t").startswith(b"["):
        remedy = "Write it again: pandas.read_json(path).to_json(path, orient='records', lines=True)"
        raise MalformedError(f"evaluate: {path} is one JSON array, not an object in each line. {remedy}.")
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
