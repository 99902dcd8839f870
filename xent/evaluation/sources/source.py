"""A source: rows that can be read in parts.

A source of a file knows its path, shape and dtype and holds no data: each task opens the file itself and reads its own
rows, so a task graph stays small whatever the size of the set.
Leaves out the formats, and which of them a path has.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

import xent
from xent.evaluation.sources.storage import Stamp, is_url
from xent.text import shown_path

MOST_ROWS = 2**18
"""Of a chunk: the statistics of a row are some hundred bytes, more than its predictions if there are few classes."""


@dataclass(frozen=True, eq=False)
class Source:
    """Rows that can be read in parts; ``path`` is how messages name it, None for an array in memory."""

    path: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def bounds(self, chunk_bytes: int) -> list[int]:
        """The rows at which its chunks begin, and the end; each chunk has at most `chunk_bytes`."""
        return self.bounds_by(1, chunk_bytes)

    def bounds_by(self, step: int, chunk_bytes: int) -> list[int]:
        """The same for rows that are stored, and so read, `step` at a time."""
        rows = self.shape[0]
        most = min(chunk_bytes // max(1, self.row_bytes), MOST_ROWS)
        return [*range(0, rows, step * max(1, most // step)), rows]

    def bounds_along(self, edges: Sequence[int], chunk_bytes: int) -> list[int]:
        """The same for rows that are stored in pieces between `edges`, the first 0 and the last the end."""
        most = min(chunk_bytes // max(1, self.row_bytes), MOST_ROWS)
        bounds = [0]
        for start, stop in pairwise(edges):
            if stop - bounds[-1] > most and start > bounds[-1]:
                bounds.append(start)
        return bounds if bounds[-1] == edges[-1] else [*bounds, edges[-1]]

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        """A Dask graph, and for each chunk what :func:`read_rows` takes: a :class:`Part`, an array, or a graph's key.

        The graph is empty for all sources but Dask's.
        """
        source = self.for_tasks()
        return {}, [SourcePart(source, start) for start in bounds[:-1]]

    def for_tasks(self) -> Source:
        """The source without what only its bounds need, so that a graph of many tasks stays small."""
        return self

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows start to stop, in native byte order and C order."""
        raise NotImplementedError

    def edge(self, start: int, stop: int) -> int | None:
        """A row between the two, near the middle, at which one stored piece ends and the next begins; None if none."""
        return None

    def files(self) -> list[str]:
        """The local files and folders that it reads; none of an array in memory, or at a URL."""
        return []

    def fingerprint(self) -> Any:
        """A value for JSON that changes when the rows change; None if that cannot be noticed."""
        return None

    def check_complete(self) -> None:
        """Raise ReadError if parts of it were never written, or are lost."""

    def missing(self) -> int:
        """How many parts of it are not stored, and are read as a fill value."""
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
    def shown(self) -> str | None:
        """The path as it may be printed."""
        return None if self.path is None else shown_path(self.path)

    def __str__(self) -> str:
        text = f"{self.dtype}[{', '.join(map(str, self.shape))}]"
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
        return [] if is_url(self.file) else [self.file]

    def fingerprint(self) -> Any:
        if self.stamp[1] == "":  # of a server that tells of no changes
            return None
        return [self.shown, list(self.shape), str(self.dtype), *self.stamp]


class Part:
    """The rows of a chunk, which its task reads."""

    def read(self, start: int, stop: int) -> Any:
        """Rows start to stop, counted from the first of the chunk."""
        raise NotImplementedError

    def edge(self, start: int, stop: int) -> int | None:
        """As :meth:`Source.edge`, counted from the first row of the chunk."""
        raise NotImplementedError


@dataclass(frozen=True)
class SourcePart(Part):
    """The rows of a source from `first` on."""

    source: Source
    first: int

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self.source.read(self.first + start, self.first + stop)

    def edge(self, start: int, stop: int) -> int | None:
        edge = self.source.edge(self.first + start, self.first + stop)
        return None if edge is None else edge - self.first


def read_rows(part: Any, start: int, stop: int) -> Any:
    """Rows of a chunk: read from a Part, or cut from an array; statistics, and None, are returned whole."""
    if isinstance(part, Part):
        return part.read(start, stop)
    return part if part is None or isinstance(part, xent.RowStatistics) else part[start:stop]


def nearest_multiple(step: int, start: int, stop: int) -> int | None:
    """The multiple of `step` between the two that is nearest to the middle; None if there is none."""
    low, high = (start // step + 1) * step, (stop - 1) // step * step
    return min(max((start + stop) // 2 // step * step, low), high) if low <= high else None


def nearest_edge(edges: Sequence[int], start: int, stop: int) -> int | None:
    """The edge between the two that is nearest to the middle; None if there is none."""
    inside = edges[bisect_right(edges, start) : bisect_left(edges, stop)]
    return min(inside, key=lambda edge: abs(2 * edge - start - stop), default=None)
