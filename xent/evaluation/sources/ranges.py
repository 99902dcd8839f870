"""Bytes of files at URLs: a small file in one request, a large range in several at once.

Of an object of S3's the server is asked for the bytes of the tag that was opened, so that nobody asks whether it has
changed; of other servers that is one request more for each file and task.
Leaves out where files are, and what the bytes mean.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextvars import copy_context
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from xent.evaluation.sources.messages import ReadError
from xent.evaluation.sources.servers import asked, filesystem, protocols_of
from xent.evaluation.sources.storage_options import options_of, reading_threads
from xent.optional import require

if TYPE_CHECKING:
    from xent.evaluation.sources.storage import Stamp

SMALL_BYTES = 2**18
"""A file of at most so many bytes is asked for whole, and kept for who reads it next."""
KEPT_BYTES = 2**26
PIECE_BYTES = 2**23
"""Of a larger range so many bytes are one request."""
REQUESTS = 16
"""How many requests one task has under way."""
AHEAD_BYTES = 2**16


class Kept:
    """The bytes of small files, by what names them; those that were used last, up to KEPT_BYTES together."""

    def __init__(self) -> None:
        self.files: OrderedDict[Any, bytes] = OrderedDict()
        self.size, self.lock = 0, threading.Lock()

    def get(self, key: Any) -> bytes | None:
        """The bytes, None if they are not kept."""
        with self.lock:
            if key in self.files:
                self.files.move_to_end(key)
            return self.files.get(key)

    def put(self, key: Any, data: bytes) -> None:
        """Keep the bytes, and let go of others."""
        with self.lock:
            self.size += len(data) - len(self.files.pop(key, b""))
            self.files[key] = data
            while self.size > KEPT_BYTES:
                self.size -= len(self.files.popitem(last=False)[1])


KEPT = Kept()


def small_file(path: str, stamp: Stamp, check: Callable[[], None] | None = None) -> bytes | None:
    """All bytes of the file at a URL as it was at `stamp`, None if it is not small; `check` comes before a request."""
    if stamp[0] > SMALL_BYTES or stamp[1] == "":
        return None
    key = path, stamp, repr(options_of(path))
    data = KEPT.get(key)
    if data is None:
        if check is not None:
            check()
        data = request(path, 0, stamp[0], stamp)
        KEPT.put(key, data)
    return data


def read_ranges(path: str, start: int, stop: int, stamp: Stamp) -> bytes | bytearray:
    """Bytes start to stop of the file at a URL, asked for in pieces at once; ReadError if it ends before."""
    count = -(-(stop - start) // PIECE_BYTES)
    if count <= 1:
        return request(path, start, stop, stamp)
    data = bytearray(stop - start)
    edges = [start + len(data) * i // count for i in range(count + 1)]

    def read_piece(ends: tuple[int, int]) -> None:
        data[ends[0] - start : ends[1] - start] = request(path, *ends, stamp)

    with reading_threads(min(count, REQUESTS)) as pool:
        [*pool.map(read_piece, pairwise(edges))]  # an error is raised here
    return data


def request(path: str, start: int, stop: int, stamp: Stamp) -> bytes:
    """Bytes start to stop of the file at a URL, in one request; ReadError if it ends before."""
    if start == stop:
        return b""
    system, remote_path = filesystem(path)
    protocols = protocols_of(system)

    def ask() -> bytes:
        if is_conditional(path):
            return read_of(s3_file(system, remote_path, stamp), start, stop)
        if "http" in protocols:
            # subtle: fsspec's cat_file takes whatever an HTTP server sends, its files check that it is the range
            return read_of(system.open(remote_path, "rb", cache_type="none", size=stamp[0]), start, stop)
        data: bytes = system.cat_file(remote_path, start=start, end=stop)
        return data

    data = asked(path, ask)
    if len(data) != stop - start:
        raise ReadError(f"evaluate: {path} is truncated: it ended {stop - start - len(data)} bytes before byte {stop}.")
    return data


def is_conditional(path: str) -> bool:
    """Whether the server of a URL sends the bytes of the tag that it is asked for, or none."""
    return path.startswith(("s3://", "s3a://")) and "::" not in path


def s3_file(system: Any, remote_path: str, stamp: Stamp) -> Any:
    """s3fs's file of an object, which asks neither for its size nor its tag, as it is told them."""
    file = system.open(remote_path, "rb", cache_type="none", size=stamp[0])
    file.details = {"name": remote_path, "size": stamp[0], "ETag": stamp[1]}
    name = "read_kw" if hasattr(file, "read_kw") else "req_kw"  # of older versions
    setattr(file, name, {**getattr(file, name, {}), "IfMatch": stamp[1]})
    return file


def read_of(file: Any, start: int, stop: int) -> bytes:
    """Bytes start to stop of an open file, which is closed."""
    with file:
        file.seek(start)
        data: bytes = file.read(stop - start)
        return data


class RemoteFile(io.RawIOBase):
    """A file at a URL, as it was at `stamp`, for readers that seek; a request has AHEAD_BYTES at the least."""

    def __init__(self, path: str, stamp: Stamp) -> None:
        super().__init__()
        caching = require("fsspec.caching", "remote", "a URL")
        self.size, self.place = stamp[0], 0
        context = copy_context()  # a reader may read in threads of its own, which know no options

        def fetch(start: int, stop: int) -> bytes:
            return bytes(context.copy().run(read_ranges, path, start, min(stop, stamp[0]), stamp))

        self.cache = caching.ReadAheadCache(AHEAD_BYTES, fetch, stamp[0])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + (0, self.place, self.size)[whence]
        if self.place < 0:
            raise ValueError(f"a seek to byte {self.place}")
        return self.place

    def read(self, size: int | None = -1) -> bytes:
        """So many bytes, fewer at the end of the file."""
        stop = self.size if size is None or size < 0 else min(self.place + size, self.size)
        data: bytes = self.cache._fetch(self.place, stop) if stop > self.place else b""
        self.place += len(data)
        return data

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
