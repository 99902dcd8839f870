"""A source: rows that can be read in parts, and the messages of one that cannot.

A source of a file knows its path, shape and dtype and holds no data: each task opens the file itself and reads its own
rows, so a task graph stays small whatever the size of the set.
Leaves out the formats, and how one is told from another.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from xent.text import shown_path, shown_text

FORMATS = "the path of a .npy file, of a .npz, safetensors, Parquet, Arrow or HDF5 file, or of a Zarr array"
SHOWN_NAMES = 10
MOST_ROWS = 2**18
"""Of a chunk: what is found of a row takes some hundred bytes, which of few classes is more than the predictions."""


class ReadError(OSError):
    """A file is missing, truncated, corrupt, or has changed; the message names it, and the rows if they are known.

    What a URL keeps secret is not in the message, whatever the error was made of.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shown_text(message))


@dataclass(frozen=True, eq=False)
class Source:
    """Rows that can be read in parts; ``path`` is None for an array in hand."""

    path: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def bounds(self, chunk_bytes: int) -> list[int]:
        """The rows at which its chunks begin, when each has at most `chunk_bytes`, and the end."""
        return self.bounds_by(1, chunk_bytes)

    def bounds_by(self, together: int, chunk_bytes: int) -> list[int]:
        """The same, where rows are stored `together` and at least so many are read at once."""
        rows = self.shape[0]
        most = min(chunk_bytes // max(1, self.row_bytes), MOST_ROWS)
        step = together * max(1, most // together)
        return [*range(0, rows, step), rows]

    def bounds_along(self, edges: Sequence[int], chunk_bytes: int) -> list[int]:
        """The same, where rows are stored between `edges`, of which the first is 0 and the last the end."""
        most = min(chunk_bytes // max(1, self.row_bytes), MOST_ROWS)
        kept = [0]
        for start, stop in pairwise(edges):
            if stop - kept[-1] > most and start > kept[-1]:
                kept.append(start)
        return kept if kept[-1] == edges[-1] else [*kept, edges[-1]]

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        """A graph, empty but for Dask, and what the task of each chunk is given.

        That is a :class:`Part`, an array, or the key of a Dask block.
        """
        carried = self.carried()
        return {}, [Part(carried, start) for start in bounds[:-1]]

    def carried(self) -> Source:
        """The source as a task carries it: without what only its bounds need."""
        return self

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Rows start to stop, in native byte order and C order."""
        raise NotImplementedError

    def edge(self, start: int, stop: int) -> int | None:
        """The row between the two, near the middle, at which one part of what is stored ends and the next begins."""
        return None

    def fingerprint(self) -> Any:
        """What tells whether it is the set that it was, for JSON; None for an array in hand, of which nothing tells."""
        stamp = getattr(self, "stamp", None)
        if stamp is None or stamp[1] == "":  # a server need not tell of changes
            return None
        return [self.shown, list(self.shape), str(self.dtype), *stamp]

    def check_complete(self) -> None:
        """Raise ReadError where parts of it were never written, or are lost."""

    def missing(self) -> int:
        """How many parts of it are not stored, and are read as a fill value."""
        return 0

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def has_whole_rows(self) -> bool:
        """Whether a task is given every class of a row at once."""
        return True

    @property
    def shown(self) -> str | None:
        """The path as it may be printed."""
        return None if self.path is None else shown_path(self.path)

    def __str__(self) -> str:
        text = f"{self.dtype}[{', '.join(map(str, self.shape))}]"
        return f"{text} in {self.shown}" if self.path else text


@dataclass(frozen=True)
class Part:
    """The rows of a source from `first` on, as a task is given them."""

    source: Source
    first: int

    def rows(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Rows start to stop, counted from the first."""
        return self.source.read(self.first + start, self.first + stop)

    def edge(self, start: int, stop: int) -> int | None:
        """Where :meth:`Source.edge` cuts these rows, counted from the first."""
        edge = self.source.edge(self.first + start, self.first + stop)
        return None if edge is None else edge - self.first


def take(part: Any, start: int, stop: int) -> Any:
    """Rows of what a task is given: they are read, or cut from those in hand; of statistics all are taken."""
    if hasattr(part, "rows"):
        return part.rows(start, stop)
    return part[start:stop] if hasattr(part, "shape") else part


def is_on_a_gpu(array: Any) -> bool:
    """Whether it is an array of CuPy, or a tensor on a GPU."""
    return hasattr(array, "__cuda_array_interface__")


def nearest_multiple(step: int, start: int, stop: int) -> int | None:
    """The multiple of `step` between the two that is nearest to the middle, if there is one."""
    low, high = (start // step + 1) * step, (stop - 1) // step * step
    return min(max((start + stop) // 2 // step * step, low), high) if low <= high else None


def nearest_edge(edges: Sequence[int], start: int, stop: int) -> int | None:
    """That of `edges` between the two that is nearest to the middle, if there is one."""
    inside = edges[bisect_right(edges, start) : bisect_left(edges, stop)]
    return min(inside, key=lambda edge: abs(2 * edge - start - stop), default=None)


def refusal(argument: str, rule: str, got: object, remedy: str) -> str:
    """The message of an input that cannot be evaluated; what a URL keeps secret is not in it."""
    return shown_text(f"evaluate: `{argument}` must {rule}, got {got}. {remedy}")


def chosen(names: Collection[str], name: str, path: str, argument: str) -> str:
    """The array of a file that `name` asks for, or the only one."""
    if name in names:
        return name
    if not name and len(names) == 1:
        return next(iter(names))
    shown = [*names][:SHOWN_NAMES] + ["…"] * (len(names) > SHOWN_NAMES)
    got = f"{name!r} of {path}, which holds {', '.join(shown) or 'none'}"
    remedy = f"Pass {path}#{shown[0]}" if shown else "Write it again"
    raise ValueError(refusal(argument, "name one array of its file after a #", got, f"{remedy}."))


def broken(path: str, argument: str, error: Exception, *, known: bool, what: str) -> Exception:
    """The error of a file that its reader refuses: a ReadError if its first bytes are those of its format (`known`)."""
    if known:
        return ReadError(f"evaluate: {path} is truncated or corrupt ({error}). Copy or write it again.")
    return ValueError(refusal(argument, f"be {what} where its name says so", f"{path} ({error})", "Rename it."))


@contextmanager
def reading(path: str, start: int, stop: int) -> Iterator[None]:
    """Name the file and the rows in what a reader raises: each codec has its own way to say that bytes are bad."""
    try:
        yield
    except (ReadError, ModuleNotFoundError):
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise ReadError(f"evaluate: rows {start} to {stop} of {path} could not be read ({what}).") from error


def check_count(path: str, found: int, expected: int, flaw: str, remedy: str) -> None:
    """Raise ReadError where fewer chunks are found than expected."""
    if found < expected:
        message = f"{path} is incomplete: {expected - found} of its {expected} {flaw}"
        raise ReadError(f"evaluate: {message}. Copy or write it again; {remedy}.")
