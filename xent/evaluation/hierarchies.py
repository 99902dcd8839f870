"""Chunked arrays in hierarchies of groups: Zarr, version 2 or 3, and HDF5.

Chunks are read whole, and each is decoded by one task. Both libraries read a chunk that was never written as the fill
value, so that chunks are counted before any work. A codec that unpickles is refused.
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

from xent.evaluation.places import Stamp, check_unchanged, exists, is_url, join, look, native, open_file, suffix
from xent.evaluation.source import ReadError, Source, broken, chosen, nearest_multiple, reading, refusal
from xent.optional import require

ZARR_MARKERS = ("zarr.json", ".zarray", ".zgroup")
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
CONNECTIONS = 16
NEVER_WRITTEN = 2**64 - 1  # the length of such a chunk in the index of its shard
ZARR_REMEDY = "if those are to hold the fill value, with write_empty_chunks=True in zarr's config"


@dataclass(frozen=True, eq=False)
class ZarrSource(Source):
    """A Zarr array, opened by each task.

    ``chunk_rows`` are the rows of a chunk, ``shard_rows`` those of a shard, or of a chunk where there are no shards.
    ``marker`` is the file that describes the array, ``stamp`` that file's. ``is_complete`` once it was found to be so.
    """

    path: str
    chunk_rows: int
    shard_rows: int
    marker: str
    stamp: Stamp
    is_complete: bool = False

    def bounds(self, chunk_bytes: int) -> list[int]:
        # a shard that is too large for a task can be read in parts, a chunk cannot
        whole = self.shard_rows * self.row_bytes <= chunk_bytes
        return self.bounds_by(self.shard_rows if whole else self.chunk_rows, chunk_bytes)

    def edge(self, start: int, stop: int) -> int | None:
        return nearest_multiple(self.chunk_rows, start, stop)

    def check_complete(self) -> None:
        """Raise ReadError where a chunk, or a shard, has no file, or a shard lacks a chunk; and from now on so too."""
        files = self.files()
        found = sum(self.of_each(files, exists))
        check_count(self.path, found, len(files), "chunk files are missing", ZARR_REMEDY)
        check_shards(self.path, files)
        object.__setattr__(self, "is_complete", True)

    def missing(self) -> int:
        """How many of its chunk files are not there, and are read as the fill value."""
        files = self.files()
        found: int = sum(self.of_each(files, exists))
        return len(files) - found

    def fingerprint(self) -> Any:
        """With the size and the time, or the tag, of every chunk file in one digest."""
        stamps = self.of_each(self.files(), stamp_of)
        digest = hashlib.sha256(repr(list(stamps)).encode()).hexdigest()
        return [*super().fingerprint(), digest]

    def files(self, start: int = 0, stop: int | None = None) -> list[str]:
        """The paths of the chunks, or shards, in which these rows are, whether they are there or not."""
        array = require("zarr", "zarr", "a Zarr array").open_array(self.path, mode="r")
        stored = getattr(array, "shards", None) or array.chunks
        grid = [range(-(-size // step)) for size, step in zip(array.shape, stored, strict=True)]
        if stop is not None:
            grid[0] = range(start // stored[0], -(-stop // stored[0]))
        # subtle: zarr's nchunks_initialized is quadratic in the chunks, and counts past nchunks where shards are ragged
        return [join(self.path, array.metadata.encode_chunk_key(place)) for place in product(*grid)]

    def of_each(self, files: list[str], ask: Callable[[str], Any]) -> Iterable[Any]:
        """What `ask` says of each file, several at a time where they are far."""
        if not is_url(self.path):
            return map(ask, files)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return list(pool.map(ask, files))

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """All classes of these rows, however the classes are chunked."""
        check_unchanged(join(self.path, self.marker), self.stamp)
        with reading(self.path, start, stop):
            for file, stamp in zip(files := self.files(start, stop), self.of_each(files, stamp_of), strict=True):
                if stamp[0] == 0 if stamp is not None else self.is_complete:  # zarr reads both as the fill value
                    raise ValueError(f"{file} is {'not there' if stamp is None else 'empty'}")
            array = require("zarr", "zarr", "a Zarr array").open_array(self.path, mode="r")
            return np.ascontiguousarray(array[start:stop], self.dtype.newbyteorder("="))


@dataclass(frozen=True, eq=False)
class HdfSource(Source):
    """A dataset of an HDF5 file, opened by each task; ``chunk_rows`` is 1 where it is not chunked."""

    path: str
    file: str
    name: str
    chunk_rows: int
    stamp: Stamp

    def bounds(self, chunk_bytes: int) -> list[int]:
        return self.bounds_by(self.chunk_rows, chunk_bytes)

    def edge(self, start: int, stop: int) -> int | None:
        return nearest_multiple(self.chunk_rows, start, stop) if self.chunk_rows > 1 else None

    def check_complete(self) -> None:
        """Raise ReadError where a chunk was never written."""
        h5py = require("h5py", "hdf5", "an HDF5 file")
        with native(self.file) as file, h5py.File(file, "r") as hierarchy:
            dataset = hierarchy[self.name]
            chunks = dataset.chunks or self.shape
            sizes = zip(self.shape, chunks, strict=True)
            expected = math.prod(-(-size // step) if size else 0 for size, step in sizes)
            if dataset.chunks:
                found = dataset.id.get_num_chunks()
            else:
                found = int(expected == 0 or dataset.id.get_storage_size() > 0)
        check_count(self.path, found, expected, "chunks were never written", "with all its rows")

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """All classes of these rows."""
        check_unchanged(self.file, self.stamp)
        with reading(self.path, start, stop):
            h5py = require("h5py", "hdf5", "an HDF5 file")
            with native(self.file) as file, h5py.File(file, "r") as hierarchy:
                return np.ascontiguousarray(hierarchy[self.name][start:stop], self.dtype.newbyteorder("="))


def check_shards(path: str, files: list[str]) -> None:
    """Raise ReadError where a chunk inside a shard was never written: the shard's index says so.

    An index that its array encodes otherwise than zarr does by default is not looked at.
    """
    array = require("zarr", "zarr", "a Zarr array").open_array(path, mode="r")
    codecs = array.metadata.to_dict().get("codecs") or ()
    shard = next((one for one in codecs if one.get("name") == "sharding_indexed"), None)
    if shard is None:
        return
    told = shard["configuration"]
    if [one["name"] for one in told["index_codecs"]] != ["bytes", "crc32c"]:
        return
    checksum = require("google_crc32c", "zarr", "a sharded Zarr array").value
    inner, outer = tuple(told["chunk_shape"]), array.shards
    grid = [-(-size // step) for size, step in zip(array.shape, outer, strict=True)]
    size = 16 * math.prod(size // step for size, step in zip(outer, inner, strict=True))
    for file, place in zip(files, product(*map(range, grid)), strict=True):
        with open_file(file) as opened:
            opened.seek(0 if told.get("index_location") == "start" else max(0, look(file).size - size - 4))
            data = opened.read(size + 4)
        if len(data) < size + 4 or data[size:] != checksum(data[:size]).to_bytes(4, "little"):
            continue  # the shard is truncated or corrupt: reading it says so
        index = np.frombuffer(data[:size], "<u8")
        lengths = [min(step, whole - at * step) for at, step, whole in zip(place, outer, array.shape, strict=True)]
        expected = math.prod(-(-length // step) for length, step in zip(lengths, inner, strict=True))
        found = int(np.count_nonzero(index[1::2] != NEVER_WRITTEN))
        check_count(path, found, expected, f"chunks in {file} were never written", ZARR_REMEDY)


def stamp_of(path: str) -> Stamp | None:
    """The stamp of a file, None where there is none."""
    try:
        return look(path).stamp
    except FileNotFoundError:
        return None


def check_count(path: str, found: int, expected: int, flaw: str, remedy: str) -> None:
    """Raise ReadError where fewer chunks are found than expected."""
    if found < expected:
        message = f"{path} is incomplete: {expected - found} of its {expected} {flaw}"
        raise ReadError(f"evaluate: {message}. Copy or write it again; {remedy}.")


def is_zarr(path: str) -> bool:
    """Whether a folder is a Zarr array or group; on a web server, which has no folders, whether its path says so."""
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
    except Exception as error:  # what zarr raises where nothing is differs between its versions
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
    marker = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray"
    stamp = look(join(path, marker)).stamp
    return ZarrSource(path, tuple(array.shape), np.dtype(array.dtype), chunk_rows, shard_rows, marker, stamp)


def check_codecs(array: Any, path: str, argument: str) -> None:
    """Raise TypeError where a codec would unpickle what the file holds, which can be any program."""
    metadata = array.metadata.to_dict()
    codecs = str([metadata.get(key) for key in ("codecs", "compressor", "filters")])
    if "pickle" in codecs.lower():
        remedy = "They are never unpickled: save numbers, without that codec."
        raise TypeError(refusal(argument, "hold no pickled objects", f"a pickle codec in {path}", remedy))


def open_hdf(path: str, name: str, argument: str) -> HdfSource:
    """A dataset of an HDF5 file, of which only the metadata has been read."""
    h5py = require("h5py", "hdf5", "an HDF5 file")
    stamp = look(path).stamp
    with open_file(path) as file:
        known = file.read(8) == HDF5_MAGIC
    with native(path) as file:
        try:
            hierarchy = h5py.File(file, "r")
        except Exception as error:  # OSError, and what a truncated tree makes h5py raise
            raise broken(path, argument, error, known=known, what="an HDF5 file") from error
        with hierarchy:
            if not isinstance(hierarchy.get(name) if name else None, h5py.Dataset):
                found: list[str] = []
                hierarchy.visititems(lambda key, item: found.append(key) if isinstance(item, h5py.Dataset) else None)
                name = chosen(found, name, path, argument)
            dataset = hierarchy[name]
            chunk_rows = dataset.chunks[0] if dataset.chunks else 1
            return HdfSource(f"{path}#{name}", dataset.shape or (), dataset.dtype, path, name, chunk_rows, stamp)
