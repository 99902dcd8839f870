"""Tables: Parquet files, and Arrow's own (IPC files and streams, Feather).

Predictions are a column of lists, all of one length, or as many plain columns as there are classes, chosen by a glob
(``scores.parquet#p_*``). Labels are a plain column. Rows are counted in the footers of Parquet files and in the heads
of Arrow's batches; a task reads row groups, or batches.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.columns import (
    array_of,
    arrow,
    check_no_nulls,
    choose,
    dtype_of,
    is_list,
    matching,
    shape_of,
)
from xent.evaluation.sources.messages import reader_error, reading, refusal
from xent.evaluation.sources.source import FileSource, Source, nearest_edge
from xent.evaluation.sources.storage import Stamp, check_unchanged, is_url, open_file, path_or_file, status
from xent.optional import require

ARROW_MAGIC = b"ARROW1\0\0"
STREAM_MAGIC = b"\xff\xff\xff\xff"


@dataclass(frozen=True, eq=False)
class ParquetSource(FileSource):
    """Columns of a Parquet file; ``edges`` are the rows at which its row groups begin, and the end."""

    name: str
    edges: tuple[int, ...]

    def bounds(self, chunk_bytes: int) -> list[int]:
        return self.bounds_along(self.edges, chunk_bytes)

    def for_tasks(self) -> Source:
        return replace(self, edges=())

    def edge(self, start: int, stop: int) -> int | None:
        return nearest_edge(group_edges(parquet_footer(self.file, self.stamp)), start, stop)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """The rows, of row groups that have been read whole."""
        check_unchanged(self.file, self.stamp)
        with reading(self.path, start, stop), path_or_file(self.file) as file:
            footer = parquet_footer(self.file, self.stamp)
            # a request for each column of each group is what pre_buffer spares
            options = {"page_checksum_verification": True, "pre_buffer": is_url(self.file)}
            opened = parquet().ParquetFile(file, metadata=footer, **options)
            edges = group_edges(footer)
            first, last = bisect_right(edges, start) - 1, bisect_left(edges, stop)
            columns = matching(opened.schema_arrow.names, self.name)
            table = opened.read_row_groups(range(first, last), columns, use_threads=False)
            check_no_nulls(table, columns, self.shape, edges[first])
            table = table.slice(start - edges[first], stop - start)
            return np.ascontiguousarray(array_of(table, columns, self.shape, start))


@dataclass(frozen=True, eq=False)
class ArrowSource(FileSource):
    """Columns of an Arrow IPC file or stream on a local disk.

    ``edges`` are the rows at which its batches begin, and the end, if they are compressed; else any rows can be mapped.
    """

    name: str
    edges: tuple[int, ...]

    def bounds(self, chunk_bytes: int) -> list[int]:
        return self.bounds_along(self.edges, chunk_bytes) if self.edges else self.bounds_by(1, chunk_bytes)

    def for_tasks(self) -> Source:
        return replace(self, edges=())

    def edge(self, start: int, stop: int) -> int | None:
        return nearest_edge(batch_edges(self.file, self.stamp)[0], start, stop)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """The rows: views of the file's pages, or of batches that have been decompressed whole."""
        check_unchanged(self.file, self.stamp)
        pyarrow = arrow()
        with reading(self.path, start, stop), pyarrow.memory_map(self.file) as mapped:
            edges, _ = batch_edges(self.file, self.stamp)
            first, last = bisect_right(edges, start) - 1, bisect_left(edges, stop)
            schema = open_batches(mapped).schema
            columns = matching(schema.names, self.name)
            indices = [schema.get_field_index(name) for name in columns]
            reader = open_batches(mapped, pyarrow.ipc.IpcReadOptions(included_fields=indices))
            if hasattr(reader, "get_batch"):
                batches = [reader.get_batch(i) for i in range(first, last)]
            else:
                batches = [batch for _, batch in zip(range(last), reader, strict=False)][first:]
            table = pyarrow.Table.from_batches(batches)
            check_no_nulls(table, columns, self.shape, edges[first])
            table = table.slice(start - edges[first], stop - start)
            return np.ascontiguousarray(array_of(table, columns, self.shape, start))


def open_parquet(path: str, name: str, argument: str) -> ParquetSource:
    """Columns of a Parquet file, of which only the footer has been read."""
    parquet()
    stamp = status(path).stamp
    try:
        footer = parquet_footer(path, stamp)
        schema = footer.schema.to_arrow_schema()
    except (arrow().ArrowException, OSError) as error:
        with open_file(path) as file:
            known = file.read(4) == b"PAR1"
        raise reader_error(path, argument, error, known=known, what="a Parquet file") from error
    name, columns = choose(schema, name, path, argument)
    edges = group_edges(footer)
    kind = schema.field(columns[0]).type
    width = 0
    if is_list(kind):
        width = kind.list_size if arrow().types.is_fixed_size_list(kind) else footer_width(footer, name, path, argument)
    shape, dtype = shape_of(schema, edges[-1], name, columns, width), dtype_of(schema, columns, path, argument)
    return ParquetSource(f"{path}#{name}", shape, dtype, path, stamp, name, edges)


def open_arrow(path: str, name: str, argument: str) -> ArrowSource:
    """Columns of an Arrow file or stream, of which only the batches' heads have been read, and one batch for lists."""
    pyarrow = arrow()
    if is_url(path):
        remedy = "Download it, or save it as Parquet."
        raise ValueError(refusal(argument, "lie on a local disk where it is an Arrow file", path, remedy))
    stamp = status(path).stamp
    try:
        edges, compressed = batch_edges(path, stamp)
        with pyarrow.memory_map(path) as mapped:
            reader = open_batches(mapped)
            schema = reader.schema
            name, columns = choose(schema, name, path, argument)
            width = 0
            if is_list(kind := schema.field(columns[0]).type):
                fixed = pyarrow.types.is_fixed_size_list(kind)
                width = kind.list_size if fixed else batch_width(reader, edges, name)
    except (pyarrow.ArrowException, OSError, struct.error) as error:
        if isinstance(error, ValueError) and not isinstance(error, pyarrow.ArrowException):
            raise
        with open_file(path) as file:
            known = file.read(8).startswith((ARROW_MAGIC, STREAM_MAGIC))
        raise reader_error(path, argument, error, known=known, what="an Arrow file or stream") from error
    shape, dtype = shape_of(schema, edges[-1], name, columns, width), dtype_of(schema, columns, path, argument)
    return ArrowSource(f"{path}#{name}", shape, dtype, path, stamp, name, edges if compressed else ())


def parquet() -> Any:
    """The module pyarrow.parquet."""
    return require("pyarrow.parquet", "parquet", "a Parquet file")


@lru_cache(maxsize=8)
def parquet_footer(path: str, stamp: Stamp) -> Any:
    """The footer of the file as it was at `stamp`; cached, as that of a wide table takes longer than its rows."""
    with path_or_file(path) as file:
        return parquet().read_metadata(file)


def group_edges(footer: Any) -> tuple[int, ...]:
    """The rows at which row groups begin, and the end."""
    return tuple(accumulate((footer.row_group(i).num_rows for i in range(footer.num_row_groups)), initial=0))


def footer_width(footer: Any, name: str, path: str, argument: str) -> int:
    """The length of the lists in a column: its values in each row group over the group's rows."""
    leaves = [i for i in range(footer.num_columns) if footer.schema.column(i).path.startswith(f"{name}.")]
    width, start = -1, 0
    for i in range(footer.num_row_groups):
        group = footer.row_group(i)
        rows, values = group.num_rows, group.column(leaves[0]).num_values
        width = values // rows if width < 0 and rows else width
        if values != width * rows:
            rule = f"have lists of one length, which is {width} in the first rows"
            got = f"{values} values in rows {start} to {start + rows} of {path}#{name}"
            raise ValueError(refusal(argument, rule, got, "Write lists of one length."))
        start += rows
    return max(width, 0)


def open_batches(mapped: Any, options: Any = None) -> Any:
    """The reader of an Arrow IPC file or stream, which its first bytes tell apart."""
    mapped.seek(0)
    is_file = mapped.read(8) == ARROW_MAGIC
    mapped.seek(0)
    return (arrow().ipc.open_file if is_file else arrow().ipc.open_stream)(mapped, options=options)


@lru_cache(maxsize=8)
def batch_edges(path: str, stamp: Stamp) -> tuple[tuple[int, ...], bool]:
    """The rows at which batches begin, and the end, and whether any batch is compressed; no batch is read."""
    pyarrow = arrow()
    rows, compressed = [0], False
    with pyarrow.memory_map(path) as mapped:
        mapped.seek(8 if mapped.read(8) == ARROW_MAGIC else 0)  # subtle: a file holds a stream after its first bytes
        for message in pyarrow.ipc.MessageReader.open_stream(mapped):
            if message.type == "record batch":
                count, packed = batch_head(message.metadata.to_pybytes())
                rows.append(rows[-1] + count)
                compressed |= packed
    return tuple(rows), compressed


def batch_head(message: bytes) -> tuple[int, bool]:
    """The rows of a record batch and whether its buffers are compressed, from its message, a flatbuffer.

    pyarrow has verified the message but says neither without reading the batch. Of the table Message the third field
    is the header, of the table RecordBatch the first is the length, and the fourth exists if it is compressed.
    """

    def field(table: int, number: int) -> int:  # the offset of a table's field, or the table's own if it has none
        (back,) = struct.unpack_from("<i", message, table)
        (size,) = struct.unpack_from("<H", message, table - back)
        entry = 4 + 2 * number
        return table + struct.unpack_from("<H", message, table - back + entry)[0] if entry < size else table

    def follow(offset: int) -> int:
        return offset + int(struct.unpack_from("<I", message, offset)[0])

    batch = follow(field(follow(0), 2))
    length = field(batch, 0)
    return struct.unpack_from("<q", message, length)[0] if length != batch else 0, field(batch, 3) != batch


def batch_width(reader: Any, edges: tuple[int, ...], name: str) -> int:
    """The length of the first list in a column."""
    first = bisect_right(edges, 0) - 1
    if first == len(edges) - 1:
        return 0
    if hasattr(reader, "get_batch"):
        batch = reader.get_batch(first)
    else:
        batch = [batch for _, batch in zip(range(first + 1), reader, strict=False)][first]
    value = batch.column(batch.schema.get_field_index(name))[0]
    return len(value) if value.is_valid else 0
