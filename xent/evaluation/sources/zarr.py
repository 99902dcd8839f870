"""Zarr arrays, version 2 or 3, alone or in groups.

Chunks are read whole, and each is decoded by one task. zarr reads a chunk that was never written, or is lost, as the
fill value, so chunks are counted before any work. Codecs that unpickle are refused, and links out of the folder.
"""

from __future__ import annotations

import hashlib
import math
import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources import zarr_remote, zarr_zip
from xent.evaluation.sources.boundary import check_tree
from xent.evaluation.sources.messages import (
    MalformedError,
    ReadError,
    ServerError,
    SeveralArrays,
    is_of_a_network,
    reading,
    refusal,
)
from xent.evaluation.sources.packing import Packing, packing_of, whole_rows
from xent.evaluation.sources.servers import unreachable
from xent.evaluation.sources.source import MOST_CHUNKS, TEXT, FileSource, check_piece, ends, native, nearest_multiple
from xent.evaluation.sources.storage import (
    Stamp,
    check_unchanged,
    is_url,
    join,
    listed,
    status,
    suffix,
)
from xent.evaluation.sources.storage_options import options_of, reading_threads
from xent.evaluation.sources.zarr_remote import files_below
from xent.evaluation.sources.zarr_shards import chunk_grid, chunks_never_written, sharding_of
from xent.optional import require

ZARR_MARKERS = ("zarr.json", ".zarray", ".zgroup")
CONNECTIONS = 16
SLACK_BYTES = 2**16
"""By how much the file of a chunk may be larger than what it holds, beside an eighth."""


@dataclass(frozen=True, eq=False)
class ZarrSource(FileSource):
    """A Zarr array, opened by each task; ``file`` is the one in its folder that describes it.

    ``chunk_rows`` are the rows of a chunk, ``shard_rows`` those of a shard, or of a chunk if there are no shards.
    ``is_complete`` is true once :meth:`check_complete` has found every chunk; :meth:`read` then misses one.
    """

    chunk_rows: int
    shard_rows: int
    packing: Packing | None = None
    is_complete: bool = False

    def bounds(self, chunk_bytes: int) -> list[int]:
        # a shard that is too large for a task can be read in parts, a chunk cannot
        whole = self.shard_rows * self.row_bytes <= chunk_bytes
        return self.bounds_by(self.shard_rows if whole else self.chunk_rows, chunk_bytes)

    def edge(self, start: int, stop: int) -> int | None:
        return nearest_multiple(self.chunk_rows, start, stop)

    def files(self) -> list[str]:
        place = zarr_zip.split(self.path)
        return [place[0] if place else self.path]

    def check_complete(self, *, zeros_ok: bool = False) -> int:
        """How many chunk files do not exist, and chunks in shards; ReadError unless those hold the fill value."""
        missing, chunks, first = 0, 0, ""
        stamped = self.stamped(self.chunk_files())
        for chunks, (file, stamp) in enumerate(stamped, 1):  # noqa: B007  # the last is used
            missing += stamp is None
            first = first or (file if stamp is None else "")
        flaws = [(f"{missing} of its {chunks} chunk files are missing, the first {first}", missing)] if missing else []
        flaws += [
            (f"{count} of its {expected} chunks in {file} were never written", count)
            for file, count, expected in self.never_written(stamped if is_url(self.path) else None)
        ]
        if flaws and not zeros_ok:
            remedy = "If zarr left them out because they hold nothing but the fill value, pass zeros_ok=True"
            raise ReadError(f"evaluate: {self.path} is incomplete: {flaws[0][0]}. Copy or write it again. {remedy}.")
        object.__setattr__(self, "is_complete", not missing)
        return sum(count for _, count in flaws)

    def fingerprint(self) -> Any:
        """With the size and the time, or the tag, of every chunk file in one digest."""
        of_metadata = super().fingerprint()
        if of_metadata is None:
            return None
        digest = hashlib.sha256()
        for file, stamp in self.stamped(self.chunk_files()):
            digest.update(repr((file, stamp)).encode())
        return [*of_metadata, digest.hexdigest()]

    def piece(self, axis: int) -> int:
        return int(self.array().chunks[axis])

    def chunk_files(self, index: tuple[int | slice, ...] = ()) -> Iterator[str]:
        """The paths of the chunks, or shards, in which this part is, whether they exist or not."""
        array = self.array()
        grid = [range(count) for count in chunk_grid(array)]
        steps = getattr(array, "shards", None) or array.chunks
        for axis, (each, size, step) in enumerate(zip(index, array.shape, steps, strict=False)):
            start, stop = ends(each, size)
            grid[axis] = range(start // step, -(-stop // step))
        # subtle: zarr's nchunks_initialized is quadratic in the chunks, and counts past nchunks where shards are ragged
        return (join(self.path, array.metadata.encode_chunk_key(index)) for index in product(*grid))

    def stamped(self, files: Iterable[str]) -> Iterable[tuple[str, Stamp | None]]:
        """Each file with its stamp, None if it does not exist; a list of those at a URL, of which one listing tells."""
        if not is_url(self.path):
            return ((file, stamp_of(file)) for file in files)
        if lists_folders(self.path):
            found = dict(files_below(self.path))
            return [(file, found.get(file)) for file in files]
        with reading_threads(CONNECTIONS) as pool:
            return list(pool.map(lambda file: (file, stamp_of(file)), files))

    def never_written(self, stamped: Iterable[tuple[str, Stamp | None]] | None) -> Iterable[tuple[str, int, int]]:
        """The shards that lack chunks, how many, and of how many."""
        array = self.array()
        if (sharding := sharding_of(array)) is None:
            return []
        grid = product(*map(range, chunk_grid(array)))
        shards = zip(stamped or self.stamped(self.chunk_files()), grid, strict=True)

        def counted(shard: tuple[tuple[str, Stamp | None], tuple[int, ...]]) -> tuple[str, int, int] | None:
            (file, stamp), index = shard
            return None if stamp is None else chunks_never_written(array, sharding, file, stamp, index)

        if not is_url(self.path):
            return filter(None, map(counted, shards))
        with reading_threads(CONNECTIONS) as pool:
            return [*filter(None, pool.map(counted, shards))]

    def array(self) -> Any:
        """zarr's array, of which the metadata are read once in a process."""
        array = opened(self.path, self.file, self.stamp)
        if is_url(self.path):
            array.store.is_complete = self.is_complete
        return array

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """All classes of these rows, however the classes are chunked."""
        return self.take((slice(start, stop),))

    def take(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        return whole_rows(self.stored(index), self.packing, self.path, *ends(index[0], self.shape[0]))

    @property
    def has_nulls(self) -> bool:
        return self.packing is not None

    def read_with_nulls(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        block = self.stored((slice(start, stop),))
        return (block, None) if self.packing is None else self.packing.unpacked(block)

    def stored(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        """This part as it is stored."""
        if not is_url(self.path):
            check_unchanged(self.file, self.stamp)
        with reading(self.path, *ends(index[0], self.shape[0])):
            array = self.array()
            dtype = self.dtype if self.packing is None else np.dtype(array.dtype)
            if not is_url(self.path):
                self.check_chunks(index, most_bytes(array))
            return np.ascontiguousarray(array[index], native(dtype))

    def check_chunks(self, index: tuple[int | slice, ...], most: int) -> None:
        """Raise ValueError for a chunk of this part that is not there, is empty or too large; a URL's store does."""
        for file, stamp in self.stamped(self.chunk_files(index)):
            if stamp[0] == 0 if stamp is not None else self.is_complete:  # zarr reads both as the fill value
                raise ValueError(f"{file} is {'not there' if stamp is None else 'empty'}")
            if stamp is not None and stamp[0] > most and self.dtype != TEXT:
                raise ValueError(f"{file} has {stamp[0]} bytes, and a chunk {most} at most")


def opened(path: str, file: str, stamp: Stamp) -> Any:
    """The array at a path, which may lead into a zip archive, as it was at `stamp`."""
    kept = arrays(path, file, stamp, repr(options_of(path)) if is_url(path) else "")
    if not kept:
        zarr = require("zarr", "zarr", "a Zarr array")
        version: dict[str, int] = {}
        if is_url(path):
            check_unchanged(file, stamp)
            version["zarr_format"] = 3 if suffix(file) == ".json" else 2
        kept.append(checking(zarr.open_array(mode="r", **version, **store_of(path)), path))
    return kept[0]


@lru_cache(maxsize=64)
def arrays(path: str, file: str, stamp: Stamp, options: str) -> list[Any]:
    """A list for the array at a path as it was at `stamp`, with these options of its URL, once it is open."""
    return []


def store_of(path: str) -> dict[str, Any]:
    """What ``zarr.open`` takes for a path."""
    return {"store": zarr_remote.open_store(path)} if is_url(path) else zarr_zip.open_store(path)


def checking(array: Any, path: str) -> Any:
    """The array at a path, whose store looks at each chunk from now on, if it is at a URL."""
    if is_url(path):
        array.store.root, array.store.most = path, None if array.dtype.kind == "T" else most_bytes(array)
    return array


def most_bytes(array: Any) -> int:
    """The most bytes that a file of a chunk, or a shard, can have."""
    size: int = math.prod(getattr(array, "shards", None) or array.chunks) * array.dtype.itemsize
    return size + size // 8 + SLACK_BYTES


def lists_folders(path: str) -> bool:
    """Whether the file system of a URL lists what is in its folders."""
    return not path.startswith(("http://", "https://"))


def stamp_of(path: str) -> Stamp | None:
    """The stamp of a file, None if it does not exist; MalformedError if it is a folder, which zarr does not see."""
    if place := zarr_zip.split(path):
        archive, inner = place
        return zarr_zip.entries(archive, status(archive).stamp).get(inner)
    try:
        entry = status(path)
    except FileNotFoundError:
        return None
    if entry.is_folder:
        raise MalformedError(f"evaluate: {path} is a folder where a chunk must be. Copy or write it again.")
    return entry.stamp


def is_zarr(path: str) -> bool:
    """Whether a folder is a Zarr array or group; on a web server, which has no folders, whether it is named so."""
    if path.startswith(("http://", "https://")):
        return ".zarr" in path
    if suffix(path) == ".zarr" or not is_url(path):
        return suffix(path) == ".zarr" or any(os.path.exists(join(path, marker)) for marker in ZARR_MARKERS)
    return any(posixpath.basename(member) in ZARR_MARKERS for member in listed(path))


def open_zarr(path: str, name: str, argument: str, allowed: Sequence[str] = ()) -> ZarrSource:
    """A Zarr array, of which only the metadata has been read; links in its folder may lead into `allowed` too."""
    zarr = require("zarr", "zarr", "a Zarr array")
    if suffix(path) == zarr_zip.SUFFIX:
        path = f"zip://::{path}" if is_url(path) else zarr_zip.root_of(path, argument)
    root, path = path, join(path, name) if name else path
    if not is_url(path) and os.path.isdir(path):
        check_tree(path, (os.path.realpath(root), *allowed), argument)
    try:
        array = zarr.open(mode="r", **store_of(path))
        inside = None if hasattr(array, "dtype") else sorted(array.array_keys())
        facts = None if inside is not None else facts_of(array)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # what zarr raises if nothing is there differs between its versions
        if is_of_a_network(error) or (is_url(path) and isinstance(error, PermissionError)):
            raise (ServerError if is_of_a_network(error) else ReadError)(unreachable(path, error)) from error
        remedy = "Pass the directory that holds zarr.json or .zarray."
        message = refusal(argument, "be the path of a Zarr array", f"{path} ({type(error).__name__}: {error})", remedy)
        raise MalformedError(message) from error
    if facts is None:
        got = f"the group {path} of {', '.join(inside or ()) or 'no arrays'}"
        if not inside:
            raise ValueError(refusal(argument, "be one Zarr array", got, "Pass the path of one array."))
        remedy = f"Pass {path}#{inside[0]}."
        raise SeveralArrays(refusal(argument, "be one Zarr array", got, remedy), path, inside)
    check_codecs(array, path, argument)
    shape, dtype, chunks, shards = facts
    stored = shards or chunks
    if min(stored, default=1) < 1 or len(stored) != len(shape):
        raise MalformedError(f"evaluate: {path} is malformed: its chunks are of shape {stored}. Write it again.")
    check_piece(path, math.prod(chunks) * dtype.itemsize, math.prod(shape) * dtype.itemsize)
    if (chunk_files := math.prod(chunk_grid(array))) > MOST_CHUNKS:
        message = f"{path} is said to have {chunk_files:,} chunk files, which is more than {MOST_CHUNKS:,}"
        raise MalformedError(f"evaluate: {message}. Write it in larger chunks, or in shards.")
    place = zarr_zip.split(path)
    file = place[0] if place else join(path, "zarr.json" if array.metadata.zarr_format == 3 else ".zarray")
    rows = chunks[0] if chunks else 1, stored[0] if stored else 1
    packing = packing_of(attributes_of(array), dtype, path, argument)
    stamp = status(file).stamp
    if is_url(path):  # what has been read of it need not be read again
        arrays(path, file, stamp, repr(options_of(path))).append(checking(array, path))
    return ZarrSource(path, shape, packing.dtype(dtype) if packing else dtype, file, stamp, *rows, packing)


def attributes_of(array: Any) -> dict[str, Any]:
    """The attributes of an array that say how it is packed, as xarray has them; of version 2 the fill value is one."""
    attributes = dict(array.attrs)
    if array.metadata.zarr_format == 2 and "_ARRAY_DIMENSIONS" in attributes:
        attributes.setdefault("_FillValue", array.metadata.fill_value)
    return attributes


def facts_of(array: Any) -> tuple[tuple[int, ...], np.dtype[Any], tuple[int, ...], tuple[int, ...] | None]:
    """The shape, the dtype, the chunks and the shards of an array; sizes are whole numbers from 0 on."""
    sizes = tuple(array.shape), tuple(array.chunks), tuple(getattr(array, "shards", None) or ())
    if any(size < 0 for size in sizes[0]):
        raise ValueError(f"its shape is {sizes[0]}")
    dtype = np.dtype(array.dtype)
    return sizes[0], TEXT if dtype.kind == "T" else dtype, sizes[1], sizes[2] or None


def check_codecs(array: Any, path: str, argument: str) -> None:
    """Raise TypeError if a codec would unpickle what the file holds, which can run any program."""
    metadata = array.metadata.to_dict()
    codecs = str([metadata.get(key) for key in ("codecs", "compressor", "filters")])
    if "pickle" in codecs.lower():
        remedy = "They are never unpickled: save numbers, without that codec."
        raise TypeError(refusal(argument, "hold no pickled objects", f"a pickle codec in {path}", remedy))
