"""Where predictions and labels come from: .npy files, Zarr arrays, and NumPy or Dask arrays in hand.

A source of a file knows its path, shape and dtype and holds no data: each task opens the file itself and reads its own
rows, so a task graph stays small whatever the size of the set. Only the header is read when a source is opened, and
whatever is wrong with it is said there, before any work. Nothing is ever unpickled.
Leaves out other formats and remote stores.
"""

from __future__ import annotations

import importlib
import math
import os
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np

FORMATS = "the path of a .npy file or of a Zarr array"


class ReadError(OSError):
    """A file is missing, truncated, corrupt, or has changed; the message names it, and the rows if they are known."""


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
        step = together * max(1, chunk_bytes // max(1, together * self.row_bytes))
        return [*range(0, rows, step), rows]

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        """A graph, empty but for Dask, and what the task of each chunk is given.

        That is an array, the key of a Dask block, or ``(read, start, stop)`` for the task to call.
        """
        return {}, [(self.read, start, stop) for start, stop in pairwise(bounds)]

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Rows start to stop, in native byte order and C order."""
        raise NotImplementedError

    def check_complete(self) -> None:
        """Raise ReadError where files of it are missing."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def __str__(self) -> str:
        text = f"{self.dtype}[{', '.join(map(str, self.shape))}]"
        return f"{text} in {self.path}" if self.path else text


@dataclass(frozen=True, eq=False)
class NpySource(Source):
    """A .npy file, memory-mapped by each task for its own rows."""

    path: str
    offset: int
    order: str
    stamp: tuple[int, int]

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """A read-only view of the file's pages, or a copy where they need converting."""
        if file_stamp(self.path) != self.stamp:
            raise ReadError(f"evaluate: {self.path} has changed since it was opened. Run it again.")
        shape, offset = self.shape, self.offset
        if self.order == "C":  # map these rows only, so that their pages are given back when the task is done
            shape, offset = (stop - start, *shape[1:]), offset + start * self.row_bytes
            start, stop = 0, stop - start
        mapped: Any = np.memmap(self.path, self.dtype, "r", offset, shape, self.order)  # type: ignore[call-overload]  # order is a plain str
        return np.ascontiguousarray(mapped[start:stop], self.dtype.newbyteorder("="))


@dataclass(frozen=True, eq=False)
class ZarrSource(Source):
    """A Zarr array, version 2 or 3, opened by each task.

    ``chunk_rows`` are the rows of a chunk, ``shard_rows`` those of a shard, or of a chunk where there are no shards.
    """

    path: str
    chunk_rows: int
    shard_rows: int

    def bounds(self, chunk_bytes: int) -> list[int]:
        # a shard that is too large for a task can be read in parts, a chunk cannot
        whole = self.shard_rows * self.row_bytes <= chunk_bytes
        return self.bounds_by(self.shard_rows if whole else self.chunk_rows, chunk_bytes)

    def check_complete(self) -> None:
        """Raise ReadError where a chunk, or a shard, has no file: zarr would read it as the fill value."""
        array = require("zarr", "zarr", "a Zarr array").open_array(self.path, mode="r")
        stored = getattr(array, "shards", None) or array.chunks
        grid = [range(-(-size // step)) for size, step in zip(array.shape, stored, strict=True)]
        # subtle: zarr's nchunks_initialized is quadratic in the chunks, and counts past nchunks where shards are ragged
        files = (os.path.join(self.path, array.metadata.encode_chunk_key(place)) for place in product(*grid))
        missing = sum(not os.path.exists(file) for file in files)
        if missing:
            found = f"{missing} of its {math.prod(map(len, grid))} chunk files are missing"
            remedy = "Copy or write it again; if those are to hold the fill value, with write_empty_chunks=True"
            raise ReadError(f"evaluate: {self.path} is incomplete: {found}. {remedy} in zarr's config.")

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """All classes of these rows, however the classes are chunked."""
        try:
            array = require("zarr", "zarr", "a Zarr array").open_array(self.path, mode="r")
            if (array.shape, array.dtype) != (self.shape, self.dtype):
                raise ReadError(f"evaluate: {self.path} has changed since it was opened. Run it again.")
            return np.ascontiguousarray(array[start:stop], self.dtype.newbyteorder("="))
        except (ReadError, ModuleNotFoundError):
            raise
        except Exception as error:  # each codec has its own way to say that bytes are corrupt
            what = f"{type(error).__name__}: {error}"
            raise ReadError(f"evaluate: rows {start} to {stop} of {self.path} could not be read ({what}).") from error


@dataclass(frozen=True, eq=False)
class NumpySource(Source):
    """A NumPy array in hand; each task gets a view of its rows."""

    array: np.ndarray[Any, Any]

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        return {}, [self.array[start:stop] for start, stop in pairwise(bounds)]


@dataclass(frozen=True, eq=False)
class DaskSource(Source):
    """A Dask array; as predictions it keeps its row chunks, as labels it is rechunked to the predictions' rows."""

    array: Any

    def bounds(self, chunk_bytes: int) -> list[int]:
        return [0, *np.cumsum(self.array.chunks[0], dtype=np.int64).tolist()]

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        chunks = (tuple(stop - start for start, stop in pairwise(bounds)), *((size,) for size in self.shape[1:]))
        array = self.array if self.array.chunks == chunks else self.array.rechunk(chunks)
        (array,) = importlib.import_module("dask").optimize(array)
        return dict(array.__dask_graph__()), [
            (array.name, i, *(0 for _ in self.shape[1:])) for i in range(len(chunks[0]))
        ]


def open_source(source: object, argument: str) -> Source:
    """The source behind a path or an array.

    Parameters
    ----------
    source : str, os.PathLike, numpy.ndarray or dask.array.Array
        A path is that of a .npy file, or of the directory of a Zarr array.
    argument : str
        What a message calls it: "predictions" or "labels".

    Raises
    ------
    FileNotFoundError
        If nothing is at the path.
    TypeError, ValueError
        If it is no such file or array, or holds Python objects.
    ReadError
        If a .npy file is shorter than its header says.
    ModuleNotFoundError
        If it is a Zarr array and zarr is not installed.
    """
    if isinstance(source, str | os.PathLike):
        return open_path(os.path.abspath(os.fspath(source)), argument)
    if type(source) in (np.ndarray, np.memmap):
        array = np.asarray(source)
        return NumpySource(None, array.shape, array.dtype, array)
    if hasattr(source, "__dask_graph__") and hasattr(source, "chunks"):
        lazy: Any = source
        if any(math.isnan(size) for size in lazy.shape):
            remedy = "Call its compute_chunk_sizes() first."
            raise ValueError(refusal(argument, "know the sizes of its chunks", "a Dask array of unknown sizes", remedy))
        return DaskSource(None, tuple(lazy.shape), np.dtype(lazy.dtype), lazy)
    kind = f"{type(source).__module__}.{type(source).__name__}"
    remedy = "Convert it with numpy.asarray, or save it."
    raise TypeError(refusal(argument, f"be {FORMATS}, or a NumPy or Dask array", kind, remedy))


def check_pair(predictions: Source, labels: Source) -> None:
    """Raise TypeError or ValueError unless they are (rows, classes) floats and (rows,) integers of as many rows."""
    shape, dtype = predictions.shape, predictions.dtype
    if len(shape) != 2 or shape[1] == 0:
        rule = "have shape (rows, classes), with at least one class"
        raise ValueError(refusal("predictions", rule, predictions, "Reshape it."))
    if not (dtype.kind == "f" and dtype.itemsize <= 8) and dtype.name != "bfloat16":
        rule, remedy = "be float16, bfloat16, float32 or float64", "Save predictions.astype(numpy.float32)."
        raise TypeError(refusal("predictions", rule, predictions, remedy))
    if len(labels.shape) != 1:
        remedy = "Save labels[:, 0]." if labels.shape[1:] == (1,) else "Save one class index per row."
        raise ValueError(refusal("labels", f"have shape ({shape[0]},)", labels, remedy))
    if labels.dtype.kind not in "iu":
        raise TypeError(refusal("labels", "be integers", labels, "Save labels.astype(numpy.int64)."))
    if labels.shape[0] != shape[0]:
        rule, remedy = f"have shape ({shape[0]},), one for each row", "Pass the labels of these predictions."
        raise ValueError(refusal("labels", rule, labels, remedy))


def refusal(argument: str, rule: str, got: object, remedy: str) -> str:
    """The message of an input that cannot be evaluated."""
    return f"evaluate: `{argument}` must {rule}, got {got}. {remedy}"


def open_path(path: str, argument: str) -> Source:
    """The source at an absolute path."""
    if not os.path.exists(path):
        raise FileNotFoundError(refusal(argument, f"be {FORMATS}", f"{path}, where nothing is", "Check the spelling."))
    source = open_zarr(path, argument) if os.path.isdir(path) else open_npy(path, argument)
    if source.dtype.hasobject:
        remedy = "They are never unpickled: save numbers."
        raise TypeError(refusal(argument, "hold no Python objects", source, remedy))
    return source


def open_npy(path: str, argument: str) -> NpySource:
    """A .npy file, of which only the header has been read."""
    with Path(path).open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"its format version is {version}")
            first = version == (1, 0)
            header = (np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0)(file)
        except ValueError as error:
            raise ValueError(refusal(argument, f"be {FORMATS}", f"{path} ({error})", "Use numpy.save.")) from error
        offset = file.tell()
    shape, fortran, dtype = header
    source = NpySource(path, shape, dtype, offset, "F" if fortran else "C", file_stamp(path))
    promised, found = offset + math.prod(shape) * dtype.itemsize, source.stamp[0]
    if found < promised and not dtype.hasobject:
        sizes = f"its header promises {promised} bytes and it has {found}"
        raise ReadError(f"evaluate: {path} is truncated: {sizes}. Copy or write it again.")
    return source


def open_zarr(path: str, argument: str) -> ZarrSource:
    """A Zarr array, of which only the metadata has been read."""
    zarr = require("zarr", "zarr", "a Zarr array")
    try:
        array = zarr.open(path, mode="r")
    except Exception as error:  # what zarr raises where nothing is differs between its versions
        remedy = "Pass the directory that holds zarr.json or .zarray."
        raise ValueError(refusal(argument, f"be {FORMATS}", f"{path} ({error})", remedy)) from error
    if not hasattr(array, "dtype"):
        inside = ", ".join(sorted(array.array_keys())) or "no arrays"
        remedy = "Pass the path of one array."
        raise ValueError(refusal(argument, "be one Zarr array", f"the group {path} of {inside}", remedy))
    chunk_rows = array.chunks[0] if array.chunks else 1
    shards = getattr(array, "shards", None)
    shard_rows = shards[0] if shards else chunk_rows
    return ZarrSource(path, tuple(array.shape), np.dtype(array.dtype), chunk_rows, shard_rows)


def require(module: str, extra: str, what: str) -> Any:
    """The module, or a ModuleNotFoundError that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        message = (
            f"evaluate: {what} needs {module}, which is not installed. Install it with: pip install 'xent[{extra}]'"
        )
        raise ModuleNotFoundError(message, name=module) from error


def file_stamp(path: str) -> tuple[int, int]:
    """The size and time of a file, by which a change is noticed."""
    try:
        status = Path(path).stat()
    except OSError as error:
        message = f"evaluate: {path} could not be opened ({error.strerror}). Every worker must see it at this path."
        raise ReadError(message) from error
    return status.st_size, status.st_mtime_ns
