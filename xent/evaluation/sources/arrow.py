"""Tables: Parquet files, and Arrow's own (IPC files and streams, Feather).

Predictions are a column of lists, all of one length, or as many plain columns as there are classes, chosen by a glob
(``scores.parquet#p_*``). Labels are a plain column. Rows are counted in the footers of Parquet files and in the heads
of Arrow's batches; a task reads row groups, or batches.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.columns import (
    Rows,
    arrow,
    choose,
    dtype_of,
    is_list,
    list_sizes,
    matching,
    rows_of,
    shape_of,
)
from xent.evaluation.sources.messages import ReadError, reading, refusal
from xent.evaluation.sources.source import FileSource, Source, nearest_edge
from xent.evaluation.sources.storage import Stamp, check_unchanged, header_of, is_url, path_or_file, status
from xent.optional import require

ARROW_MAGIC = b"ARROW1\0\0"
STREAM_MAGIC = b"\xff\xff\xff\xff"
WIDTH_ROWS = 64


@dataclass(frozen=True, eq=False)
class TableSource(FileSource):
    """Columns of a table: ``name``, or those that it stands for.

    ``edges`` are the rows at which its pieces begin, and the end. A row that is null is lost alone; a piece that cannot
    be read is lost whole.
    """

    name: str
    edges: tuple[int, ...]

    def for_tasks(self) -> Source:
        return replace(self, edges=())

    @property
    def has_nulls(self) -> bool:
        return True

    def read(self, start: int, stop: int) -> NDArray[Any]:
        rows = self.rows(start, stop)
        if rows.flaw:
            raise ReadError(f"evaluate: rows {start} to {stop} of {self.path} could not be read ({rows.flaw}).")
        return rows.values

    def read_with_nulls(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        rows = self.rows(start, stop)
        return rows.values, rows.is_null

    def rows(self, start: int, stop: int) -> Rows:
        """Rows start to stop."""
        check_unchanged(self.file, self.stamp)
        with reading(self.path, start, stop):
            table, first, columns = self.table(start, stop)
            rows = rows_of(table.slice(start - first, stop - start), columns, self.shape, start)
            return rows._replace(values=np.ascontiguousarray(rows.values))

    def columns(self) -> list[str]:
        return matching(self.held(), self.name)

    def held(self) -> list[str]:
        """The names of all columns of the file, of its header alone."""
        raise NotImplementedError

    def table(self, start: int, stop: int) -> tuple[Any, int, list[str]]:
        """The pieces in which these rows are, as a table, the row at which it begins, and the names of the columns."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class ParquetSource(TableSource):
    """Columns of a Parquet file, which is read by row groups."""

    def bounds(self, chunk_bytes: int) -> list[int]:
        return self.bounds_along(self.edges, chunk_bytes)

    def edge(self, start: int, stop: int) -> int | None:
        return nearest_edge(group_edges(parquet_footer(self.file, self.stamp)), start, stop)

    def held(self) -> list[str]:
        return [*parquet_footer(self.file, self.stamp).schema.to_arrow_schema().names]

    def table(self, start: int, stop: int) -> tuple[Any, int, list[str]]:
        """Row groups that have been read whole."""
        with path_or_file(self.file) as file:
            footer = parquet_footer(self.file, self.stamp)
            # a request for each column of each group is what pre_buffer spares
            options = {"page_checksum_verification": True, "pre_buffer": is_url(self.file)}
            opened = parquet().ParquetFile(file, metadata=footer, **options)
            edges = group_edges(footer)
            first, last = bisect_right(edges, start) - 1, bisect_left(edges, stop)
            columns = matching(opened.schema_arrow.names, self.name)
            return opened.read_row_groups(range(first, last), columns, use_threads=False), edges[first], columns


@dataclass(frozen=True, eq=False)
class ArrowSource(TableSource):
    """Columns of an Arrow IPC file or stream on a local disk, in batches.

    There are ``edges`` only if the batches are compressed; else any rows can be mapped.
    """

    def bounds(self, chunk_bytes: int) -> list[int]:
        return self.bounds_along(self.edges, chunk_bytes) if self.edges else self.bounds_by(1, chunk_bytes)

    def edge(self, start: int, stop: int) -> int | None:
        return nearest_edge(batch_edges(self.file, self.stamp)[0], start, stop)

    def held(self) -> list[str]:
        with arrow().memory_map(self.file) as mapped:
            return [*open_batches(mapped).schema.names]

    def table(self, start: int, stop: int) -> tuple[Any, int, list[str]]:
        """Views of the file's pages, or batches that have been decompressed whole."""
        pyarrow = arrow()
        with pyarrow.memory_map(self.file) as mapped:
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
            table.validate(full=True)  # offsets of lists and of text, which may lead anywhere
            return table, edges[first], columns


def open_parquet(path: str, name: str, argument: str) -> ParquetSource:
    """Columns of a Parquet file, of which only the footer has been read."""
    arrow()
    stamp = status(path).stamp
    with header_of(path, argument, b"PAR1", "a Parquet file"):
        footer = parquet_footer(path, stamp)
        schema = footer.schema.to_arrow_schema()
        if any(footer.row_group(i).num_rows < 0 for i in range(footer.num_row_groups)):
            raise ValueError("a row group of fewer than no rows")
    name, columns = choose(schema, name, path, argument)
    edges = group_edges(footer)
    kind = schema.field(columns[0]).type
    sizes: tuple[int, ...] = ()
    if is_list(kind):
        with header_of(path, argument, b"PAR1", "a Parquet file"):
            sizes = sizes_of(kind, group_batches(path, footer, columns[0]), columns[0])
    shape, dtype = shape_of(schema, edges[-1], name, columns, sizes), dtype_of(schema, columns, path, argument)
    return ParquetSource(f"{path}#{name}", shape, dtype, path, stamp, name, edges)


def open_arrow(path: str, name: str, argument: str) -> ArrowSource:
    """Columns of an Arrow file or stream, of which only the batches' heads have been read, and one batch for lists."""
    pyarrow = arrow()
    if is_url(path):
        remedy = "Download it, or save it as Parquet."
        raise ValueError(refusal(argument, "lie on a local disk where it is an Arrow file", path, remedy))
    stamp = status(path).stamp
    with header_of(path, argument, (ARROW_MAGIC, STREAM_MAGIC), "an Arrow file or stream"):
        edges, compressed = batch_edges(path, stamp)
        with pyarrow.memory_map(path) as mapped:
            schema = open_batches(mapped).schema
    name, columns = choose(schema, name, path, argument)
    sizes: tuple[int, ...] = ()
    if is_list(kind := schema.field(columns[0]).type):
        with header_of(path, argument, (ARROW_MAGIC, STREAM_MAGIC), "an Arrow file or stream"):
            sizes = sizes_of(kind, file_batches(path, columns[0]), columns[0])
    shape, dtype = shape_of(schema, edges[-1], name, columns, sizes), dtype_of(schema, columns, path, argument)
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
    """The rows at which row groups begin, and the end; of columns nothing is asked, for pyarrow aborts at odd ones."""
    return tuple(accumulate((footer.row_group(i).num_rows for i in range(footer.num_row_groups)), initial=0))


def sizes_of(kind: Any, batches: Iterable[Any], name: str) -> tuple[int, ...]:
    """The lengths of a column's lists, and of the lists in them: those of the first row that is not null, or 0."""
    sizes: tuple[int, ...] = ()
    if arrow().types.is_fixed_size_list(kind) and not is_list(kind.value_type):
        return (kind.list_size,)
    for batch in batches:
        for value in batch.column(batch.schema.get_field_index(name)):
            sizes = list_sizes(value) if value.is_valid or not sizes else sizes
            if all(sizes):
                return sizes
    return sizes or list_sizes(arrow().scalar(None, kind))  # of no rows


def file_batches(path: str, name: str) -> Iterator[Any]:
    """The batches of an Arrow file or stream, of which one column is taken."""
    pyarrow = arrow()
    with pyarrow.memory_map(path) as mapped:
        index = open_batches(mapped).schema.get_field_index(name)
        reader = open_batches(mapped, pyarrow.ipc.IpcReadOptions(included_fields=[index]))
        has_index = hasattr(reader, "get_batch")
        for batch in map(reader.get_batch, range(reader.num_record_batches)) if has_index else reader:
            batch.validate(full=True)
            yield batch


def group_batches(path: str, footer: Any, name: str) -> Iterator[Any]:
    """The rows of one column of a Parquet file, a few at a time."""
    with path_or_file(path) as file:
        opened = parquet().ParquetFile(file, metadata=footer, buffer_size=2**16, pre_buffer=False)
        yield from opened.iter_batches(WIDTH_ROWS, columns=[name], use_threads=False)


def open_batches(mapped: Any, options: Any = None) -> Any:
    """The reader of an Arrow IPC file or stream, which its first bytes tell apart."""
    mapped.seek(0)
    is_file = mapped.read(8) == ARROW_MAGIC
    mapped.seek(0)
    return (arrow().ipc.open_file if is_file else arrow().ipc.open_stream)(mapped, options=options)


@lru_cache(maxsize=8)
def batch_edges(path: str, stamp: Stamp) -> tuple[tuple[int, ...], bool]:
    """The rows at which batches begin, and the end, and whether any batch is compressed; no batch is read."""
    rows, compressed = [0], False
    with arrow().memory_map(path) as mapped:
        for message in batch_messages(mapped):
            count, packed = batch_head(message)
            if count < 0:
                raise ValueError(f"a batch of {count} rows")
            rows.append(rows[-1] + count)
            compressed |= packed
    return tuple(rows), compressed


def batch_messages(mapped: Any) -> Iterator[bytes]:
    """The head of each record batch, a flatbuffer: of a file those that its footer names, of a stream all."""
    ipc = arrow().ipc
    if mapped.read(8) != ARROW_MAGIC:
        mapped.seek(0)
        messages = ipc.MessageReader.open_stream(mapped)
        yield from (message.metadata.to_pybytes() for message in messages if message.type == "record batch")
        return
    open_batches(mapped)  # verifies the footer
    mapped.seek(mapped.size() - 10)
    (length,) = struct.unpack("<i", mapped.read(4))
    mapped.seek(mapped.size() - 10 - length)
    footer = mapped.read(length)
    blocks = follow(footer, field(footer, follow(footer, 0), 3))  # of the table Footer the fourth field
    (count,) = struct.unpack_from("<I", footer, blocks)
    for i in range(count):
        mapped.seek(struct.unpack_from("<q", footer, blocks + 4 + 24 * i)[0])
        yield ipc.read_message(mapped).metadata.to_pybytes()


def field(table: bytes, at: int, number: int) -> int:
    """The offset of a field of a flatbuffer's table, or the table's own if it has no such field."""
    (back,) = struct.unpack_from("<i", table, at)
    (size,) = struct.unpack_from("<H", table, at - back)
    entry = 4 + 2 * number
    offset: int = struct.unpack_from("<H", table, at - back + entry)[0] if entry < size else 0
    return at + offset


def follow(table: bytes, at: int) -> int:
    """The offset to which the one at this place of a flatbuffer leads."""
    return at + int(struct.unpack_from("<I", table, at)[0])


def batch_head(message: bytes) -> tuple[int, bool]:
    """The rows of a record batch and whether its buffers are compressed, from its message, a flatbuffer.

    pyarrow has verified the message but says neither without reading the batch. Of the table Message the third field
    is the header, of the table RecordBatch the first is the length, and the fourth exists if it is compressed.
    """
    batch = follow(message, field(message, follow(message, 0), 2))
    length = field(message, batch, 0)
    count = struct.unpack_from("<q", message, length)[0] if length != batch else 0
    return count, field(message, batch, 3) != batch
