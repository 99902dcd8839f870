"""A source: rows that can be read in parts.

A source of a file knows its path, shape and dtype and holds no data: each task opens the file itself and reads its own
rows, so a task graph stays small whatever the size of the set.
Leaves out the formats, and which of them a path has.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

import xent
from xent.evaluation.sources.messages import MalformedError, ReadError
from xent.evaluation.sources.storage import Stamp, is_url, remembering
from xent.evaluation.sources.storage_options import CURRENT, StorageOptions, storage_options_set
from xent.text import shown_path

TEXT = np.dtypes.StringDType()
"""The dtype of text of any length."""
MOST_CHUNKS = 2**21
LEAST_PIECE_BYTES, MOST_PIECE_BYTES = 2**26, 2**32
MOST_ROWS = 2**18
"""Of a chunk: the statistics of a row are some hundred bytes, more than its predictions if there are few classes."""


@dataclass(frozen=True, eq=False)
class Source:
    """Rows that can be read in parts; ``path`` is how messages name it, None for an array in memory."""

    path: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    storage_options: StorageOptions | None = field(default_factory=CURRENT.get, kw_only=True, repr=False)

    def columns(self) -> list[str]:
        """The names of the columns of a table, in the order of the classes; none of anything else."""
        return []

    def bounds(self, chunk_bytes: int) -> list[int]:
        """The rows at which its chunks begin, and the end; each chunk has at most `chunk_bytes`."""
        return self.bounds_by(1, chunk_bytes)

    def bounds_by(self, step: int, chunk_bytes: int) -> list[int]:
        """The same for rows that are stored, and so read, `step` at a time."""
        rows = self.shape[0]
        most = min(chunk_bytes // max(1, self.row_bytes), MOST_ROWS)
        starts = range(0, rows, step * max(1, most // step))
        if len(starts) > MOST_CHUNKS:
            message = f"{self} would be read in {len(starts):,} chunks, which is more than the {MOST_CHUNKS:,} of a run"
            raise MalformedError(f"evaluate: {message}. Ask for larger chunks, or cut it into several sets.")
        return [*starts, rows]

    def bounds_along(self, edges: Sequence[int], chunk_bytes: int) -> list[int]:
        """The same for rows that are stored in pieces between `edges`, the first 0 and the last the end."""
        most = min(chunk_bytes // max(1, self.row_bytes), MOST_ROWS)
        bounds = [0]
        for start, stop in pairwise(edges):
            if stop - bounds[-1] > most and start > bounds[-1]:
                bounds.append(start)
        return bounds if bounds[-1] == edges[-1] else [*bounds, edges[-1]]

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        """A Dask graph, and for each chunk what :func:`read_rows` takes: a Part, an array, or a task that makes it.

        The graph is empty, or holds by its names what all chunks share, for all sources but Dask's.
        """
        source = self.for_tasks()
        return {}, [SourcePart(source, start) for start in bounds[:-1]]

    def for_tasks(self) -> Source:
        """The source without what only its bounds need, so that a graph of many tasks stays small."""
        return self

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows start to stop, in native byte order and C order."""
        raise NotImplementedError

    def take(self, index: tuple[int | slice, ...]) -> Any:
        """A part of an array of several dimensions, by an index of each of the first of them."""
        first, *rest = index
        block = self.read(*ends(first, self.shape[0]))
        return block[(0 if isinstance(first, int) else slice(None), *rest)]

    def piece(self, axis: int) -> int:
        """How many indices of an axis are read at once, at the least; of the first :meth:`bounds` knows."""
        return self.shape[axis]

    def edge(self, start: int, stop: int) -> int | None:
        """A row between the two, near the middle, at which one stored piece ends and the next begins; None if none."""
        return None

    def files(self) -> list[str]:
        """The files and folders that it reads, by paths and URLs; none of an array in memory."""
        return []

    def fingerprint(self) -> Any:
        """A value for JSON that changes when the rows change; None if that cannot be noticed."""
        return None

    def read_with_nulls(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """The rows, and which of them are null, if that can be: those hold any number."""
        return self.read(start, stop), None

    def memory(self, threads: int) -> int:
        """Bytes that a process of so many threads takes for it beside the chunks."""
        return 0

    def check_complete(self, *, zeros_ok: bool = False) -> int:
        """How many of its chunks are not stored, and are read as the fill value.

        Raises
        ------
        ReadError
            If chunks of it were never written, or are lost, unless `zeros_ok` says that they hold the fill value.
        """
        return 0

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def has_whole_rows(self) -> bool:
        """Whether a task gets every class of a row at once."""
        return True

    @property
    def is_of_dask(self) -> bool:
        """Whether a graph of Dask's makes its rows, or those of a source that it is made of."""
        return any(part.is_of_dask for part in vars(self).values() if isinstance(part, Source))

    @property
    def has_nulls(self) -> bool:
        """Whether rows may be null."""
        return False

    @property
    def is_remote(self) -> bool:
        """Whether it is read from a server."""
        return self.path is not None and is_url(self.path)

    @property
    def shown_shape(self) -> tuple[int, ...]:
        """The shape as it is stored."""
        return self.shape

    @property
    def shown(self) -> str | None:
        """The path as it may be printed."""
        return None if self.path is None else shown_path(self.path)

    @property
    def shown_dtype(self) -> str:
        """The dtype as it is printed."""
        return "text" if self.dtype == TEXT else str(self.dtype)

    def facts(self) -> dict[str, Any]:
        """The path, the shape, the dtype and the bytes of its rows, as plain data."""
        size = self.shape[0] * self.row_bytes
        return {"path": self.shown, "shape": list(self.shown_shape), "dtype": self.shown_dtype, "bytes": size}

    def __str__(self) -> str:
        text = f"{self.shown_dtype}[{', '.join(map(str, self.shape))}]"
        return f"{text} in {self.shown}" if self.path else text


@dataclass(frozen=True, eq=False)
class FileSource(Source):
    """Rows of one file.

    ``path`` has after a # the name of the array, if the file holds several; ``file`` is the path of the file alone,
    and ``stamp`` that file's.
    """

    path: str
    file: str
    stamp: Stamp

    def files(self) -> list[str]:
        return [self.file]

    def fingerprint(self) -> Any:
        if self.stamp[1] == "":  # of a server that tells of no changes
            return None
        return [self.shown, list(self.shape), self.shown_dtype, *self.stamp]


class Part:
    """The rows of a chunk, which its task reads."""

    def read(self, start: int, stop: int) -> Any:
        """Rows start to stop, counted from the first of the chunk."""
        raise NotImplementedError

    def read_with_nulls(self, start: int, stop: int) -> tuple[Any, NDArray[np.bool_] | None]:
        """As :meth:`Source.read_with_nulls`, counted from the first row of the chunk."""
        return self.read(start, stop), None

    def edge(self, start: int, stop: int) -> int | None:
        """As :meth:`Source.edge`, counted from the first row of the chunk."""
        raise NotImplementedError


@dataclass(frozen=True)
class SourcePart(Part):
    """The rows of a source from `first` on."""

    source: Source
    first: int

    def read(self, start: int, stop: int) -> NDArray[Any]:
        with storage_options_set(self.source.storage_options), remembering():
            block = self.source.read(self.first + start, self.first + stop)
        return self.checked(block, start, stop)

    def read_with_nulls(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        with storage_options_set(self.source.storage_options), remembering():
            block, is_null = self.source.read_with_nulls(self.first + start, self.first + stop)
        return self.checked(block, start, stop), is_null

    def checked(self, block: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
        """The rows, bytes as text; ReadError if they are not those that the header promises."""
        shape = (stop - start, *self.source.shape[1:])
        rows = f"rows {self.first + start} to {self.first + stop} of {self.source.path}"
        if block.shape != shape:
            raise ReadError(f"evaluate: {rows} are not there: the file has {block.shape} of {shape}.")
        checked: NDArray[Any] = as_text(block, rows)
        return checked

    def edge(self, start: int, stop: int) -> int | None:
        with storage_options_set(self.source.storage_options):
            edge = self.source.edge(self.first + start, self.first + stop)
        return None if edge is None else edge - self.first


def read_rows(part: Any, start: int, stop: int) -> Any:
    """Rows of a chunk: read from a Part, or cut from an array; statistics, and None, are returned whole."""
    if isinstance(part, Part):
        return part.read(start, stop)
    if part is None or isinstance(part, xent.RowStatistics):
        return part
    return as_text(part[start:stop], f"rows {start} to {stop} of a chunk")


def read_rows_and_nulls(part: Any, start: int, stop: int) -> tuple[Any, NDArray[np.bool_] | None]:
    """As :func:`read_rows`, and which of the rows are null: those hold any number."""
    return part.read_with_nulls(start, stop) if isinstance(part, Part) else (read_rows(part, start, stop), None)


def as_text(block: Any, rows: str) -> Any:
    """The rows; bytes are decoded, and what is no text is a ReadError that names the `rows`."""
    kind = block.dtype.kind if isinstance(block, np.ndarray) else ""
    if kind == "S":  # what is not UTF-8 is shown by its numbers
        return np.strings.decode(block, "utf-8", "backslashreplace")
    if kind == "U" and block.size and (np.ascontiguousarray(block).view(np.uint32) > sys.maxunicode).any():
        raise ReadError(f"evaluate: {rows} hold text of characters that do not exist.")
    return block


def ends(index: int | slice, size: int) -> tuple[int, int]:
    """The first of some indices of an axis of this size, and the one after the last."""
    return (index, index + 1) if isinstance(index, int) else index.indices(size)[:2]


def check_piece(path: str, piece_bytes: int, array_bytes: int) -> None:
    """Raise MalformedError for a stored chunk of more bytes than its array, or than a reader takes at once."""
    if piece_bytes > min(max(array_bytes, LEAST_PIECE_BYTES), MOST_PIECE_BYTES):
        message = f"{path} is stored in chunks of {piece_bytes:,} bytes, each of which is read whole"
        raise MalformedError(f"evaluate: {message}. Write it in smaller ones.")


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in this machine's byte order."""
    return dtype if dtype == TEXT else dtype.newbyteorder("=")


def nearest_multiple(step: int, start: int, stop: int) -> int | None:
    """The multiple of `step` between the two that is nearest to the middle; None if there is none."""
    low, high = (start // step + 1) * step, (stop - 1) // step * step
    return min(max((start + stop) // 2 // step * step, low), high) if low <= high else None


def nearest_edge(edges: Sequence[int], start: int, stop: int) -> int | None:
    """The edge between the two that is nearest to the middle; None if there is none."""
    inside = edges[bisect_right(edges, start) : bisect_left(edges, stop)]
    return min(inside, key=lambda edge: abs(2 * edge - start - stop), default=None)
