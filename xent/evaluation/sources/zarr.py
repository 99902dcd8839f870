"""Zarr arrays, version 2 or 3, alone or in groups.

Chunks are read whole, and each is decoded by one task. zarr reads a chunk that was never written as the fill value, so
chunks are counted before any work. A codec that unpickles is refused.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.messages import check_chunk_count, reading, refusal
from xent.evaluation.sources.source import FileSource, nearest_multiple
from xent.evaluation.sources.storage import (
    Stamp,
    check_unchanged,
    exists,
    is_url,
    join,
    open_file,
    status,
    suffix,
)
from xent.optional import require

ZARR_MARKERS = ("zarr.json", ".zarray", ".zgroup")
CONNECTIONS = 16
NEVER_WRITTEN = 2**64 - 1  # the length of such a chunk in the index of its shard
ZARR_REMEDY = "if those are to hold the fill value, with write_empty_chunks=True in zarr's config"


@dataclass(frozen=True, eq=False)
class ZarrSource(FileSource):
    """A Zarr array, opened by each task; ``file`` is the one in its folder that describes it.

    ``chunk_rows`` are the rows of a chunk, ``shard_rows`` those of a shard, or of a chunk if there are no shards.
    ``is_complete`` is true once :meth:`check_complete` has passed.
    """

    chunk_rows: int
    shard_rows: int
    is_complete: bool = False

    def bounds(self, chunk_bytes: int) -> list[int]:
        # a shard that is too large for a task can be read in parts, a chunk cannot
        whole = self.shard_rows * self.row_bytes <= chunk_bytes
        return self.bounds_by(self.shard_rows if whole else self.chunk_rows, chunk_bytes)

    def edge(self, start: int, stop: int) -> int | None:
        return nearest_multiple(self.chunk_rows, start, stop)

    def files(self) -> list[str]:
        return [] if is_url(self.path) else [self.path]

    def check_complete(self) -> None:
        """Raise ReadError if a chunk or a shard has no file, or a shard lacks a chunk; :meth:`read` then checks too."""
        files = self.chunk_files()
        stored = sum(self.for_each(files, exists))
        check_chunk_count(self.path, stored, len(files), "chunk files are missing", ZARR_REMEDY)
        check_shards(self.path, files)
        object.__setattr__(self, "is_complete", True)

    def missing(self) -> int:
        """How many of its chunk files do not exist, and are read as the fill value."""
        files = self.chunk_files()
        stored: int = sum(self.for_each(files, exists))
        return len(files) - stored

    def fingerprint(self) -> Any:
        """With the size and the time, or the tag, of every chunk file in one digest."""
        of_metadata = super().fingerprint()
        if of_metadata is None:
            return None
        stamps = self.for_each(self.chunk_files(), stamp_of)
        return [*of_metadata, hashlib.sha256(repr(list(stamps)).encode()).hexdigest()]

    def chunk_files(self, start: int = 0, stop: int | None = None) -> list[str]:
        """The paths of the chunks, or shards, in which these rows are, whether they exist or not."""
        array = require("zarr", "zarr", "a Zarr array").open_array(self.path, mode="r")
        stored = getattr(array, "shards", None) or array.chunks
        grid = [range(-(-size // step)) for size, step in zip(array.shape, stored, strict=True)]
        if stop is not None:
            grid[0] = range(start // stored[0], -(-stop // stored[0]))
        # subtle: zarr's nchunks_initialized is quadratic in the chunks, and counts past nchunks where shards are ragged
        return [join(self.path, array.metadata.encode_chunk_key(index)) for index in product(*grid)]

    def for_each(self, files: list[str], function: Callable[[str], Any]) -> Iterable[Any]:
        """What the function returns for each file, called in several threads for files at a URL."""
        if not is_url(self.path):
            return map(function, files)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return list(pool.map(function, files))

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """All classes of these rows, however the classes are chunked."""
        check_unchanged(self.file, self.stamp)
        with reading(self.path, start, stop):
            files = self.chunk_files(start, stop)
            for file, stamp in zip(files, self.for_each(files, stamp_of), strict=True):
                if stamp[0] == 0 if stamp is not None else self.is_complete:  # zarr reads both as the fill value
                    raise ValueError(f"{file} is {'not there' if stamp is None else 'empty'}")
            array = require("zarr", "zarr", "a Zarr array").open_array(self.path, mode="r")
            return np.ascontiguousarray(array[start:stop], self.dtype.newbyteorder("="))


def check_shards(path: str, files: list[str]) -> None:
    """Raise ReadError if a chunk inside a shard was never written, by the shard's index.

    An index in another encoding than zarr's default is not checked.
    """
    array = require("zarr", "zarr", "a Zarr array").open_array(path, mode="r")
    codecs = array.metadata.to_dict().get("codecs") or ()
    sharding = next((codec["configuration"] for codec in codecs if codec.get("name") == "sharding_indexed"), None)
    if sharding is None or [codec["name"] for codec in sharding["index_codecs"]] != ["bytes", "crc32c"]:
        return
    checksum = require("google_crc32c", "zarr", "a sharded Zarr array").value
    inner, outer = tuple(sharding["chunk_shape"]), array.shards
    grid = [-(-size // step) for size, step in zip(array.shape, outer, strict=True)]
    size = 16 * math.prod(size // step for size, step in zip(outer, inner, strict=True))
    for file, index_in_grid in zip(files, product(*map(range, grid)), strict=True):
        with open_file(file) as opened:
            opened.seek(0 if sharding.get("index_location") == "start" else max(0, status(file).size - size - 4))
            data = opened.read(size + 4)
        if len(data) < size + 4 or data[size:] != checksum(data[:size]).to_bytes(4, "little"):
            continue  # the shard is truncated or corrupt: reading it says so
        index = np.frombuffer(data[:size], "<u8")
        sizes = zip(index_in_grid, outer, array.shape, strict=True)
        lengths = [min(step, length - i * step) for i, step, length in sizes]
        expected = math.prod(-(-length // step) for length, step in zip(lengths, inner, strict=True))
        written = int(np.count_nonzero(index[1::2] != NEVER_WRITTEN))
        check_chunk_count(path, written, expected, f"chunks in {file} were never written", ZARR_REMEDY)


def stamp_of(path: str) -> Stamp | None:
    """The stamp of a file, None if it does not exist."""
    try:
        return status(path).stamp
    except FileNotFoundError:
        return None


def is_zarr(path: str) -> bool:
    """Whether a folder is a Zarr array or group; on a web server, which has no folders, whether it is named so."""
    if path.startswith(("http://", "https://")):
        return ".zarr" in path
    return suffix(path) == ".zarr" or any(exists(join(path, marker)) for marker in ZARR_MARKERS)


def open_zarr(path: str, name: str, argument: str) -> ZarrSource:
    """A Zarr array, of which only the metadata has been read."""
    zarr = require("zarr", "zarr", "a Zarr array")
    path = join(path, name) if name else path
    try:
        array = zarr.open(path, mode="r")
    except ModuleNotFoundError:
        raise
    except Exception as error:  # what zarr raises if nothing is there differs between its versions
        remedy = "Pass the directory that holds zarr.json or .zarray."
        raise ValueError(refusal(argument, "be the path of a Zarr array", f"{path} ({error})", remedy)) from error
    if not hasattr(array, "dtype"):
        inside = ", ".join(sorted(array.array_keys())) or "no arrays"
        remedy = "Pass the path of one array."
        raise ValueError(refusal(argument, "be one Zarr array", f"the group {path} of {inside}", remedy))
    check_codecs(array, path, argument)
    chunk_rows = array.chunks[0] if array.chunks else 1
    shards = getattr(array, "shards", None)
    shard_rows = shards[0] if shards else chunk_rows
    file = join(path, "zarr.json" if array.metadata.zarr_format == 3 else ".zarray")
    return ZarrSource(path, tuple(array.shape), np.dtype(array.dtype), file, status(file).stamp, chunk_rows, shard_rows)


def check_codecs(array: Any, path: str, argument: str) -> None:
    """Raise TypeError if a codec would unpickle what the file holds, which can run any program."""
    metadata = array.metadata.to_dict()
    codecs = str([metadata.get(key) for key in ("codecs", "compressor", "filters")])
    if "pickle" in codecs.lower():
        remedy = "They are never unpickled: save numbers, without that codec."
        raise TypeError(refusal(argument, "hold no pickled objects", f"a pickle codec in {path}", remedy))
