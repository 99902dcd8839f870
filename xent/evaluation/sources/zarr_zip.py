"""Zarr arrays and groups in a zip archive on a local disk, as ``zarr.storage.ZipStore`` writes them.

A path leads on into the archive: ``x.zarr.zip/logits/c/0/0``. Its directory is read once for each state of the file.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import PurePath
from typing import IO, Any

from xent.evaluation.sources.messages import reader_error
from xent.evaluation.sources.storage import Stamp, is_url, open_file, status
from xent.evaluation.sources.storage_options import options_of
from xent.optional import require

SUFFIX = ".zarr.zip"
MARKERS = ("zarr.json", ".zarray", ".zgroup")


def split(path: str) -> tuple[str, str] | None:
    """The archive and the place in it of a path that leads into one; None of any other path."""
    if is_url(path):
        return None
    if path.lower().endswith(SUFFIX):
        return path, ""
    found = re.search(re.escape(f"{SUFFIX}/"), path, re.IGNORECASE)
    return (path[: found.end() - 1], path[found.end() :]) if found else None


def root_of(path: str, argument: str) -> str:
    """The path of the array or the group in an archive: that of its top, or of the one folder there."""
    try:
        names = entries(path, status(path).stamp)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        with open_file(path) as file:
            known = file.read(4) == b"PK\x03\x04"
        raise reader_error(path, argument, error, known=known, what="a zip archive") from error
    tops = {PurePath(name).parts[0] for name in names if name.strip("/")}
    return path if tops & {*MARKERS} or len(tops) != 1 else f"{path}/{tops.pop()}"


def open_store(path: str) -> dict[str, Any]:
    """What ``zarr.open`` takes for a path: the store and the path in it."""
    place = split(path)
    if place is None:
        return {"store": path, **({"storage_options": options_of(path)} if is_url(path) else {})}
    archive, inner = place
    return {"store": store(archive, status(archive).stamp), "path": inner}


@lru_cache(maxsize=8)
def store(archive: str, stamp: Stamp) -> Any:
    """zarr's store of the archive as it was at `stamp`."""
    return require("zarr", "zarr", "a Zarr array").storage.ZipStore(archive, mode="r")


@lru_cache(maxsize=8)
def entries(archive: str, stamp: Stamp) -> dict[str, Stamp]:
    """The stamp of each file in the archive as it was at `stamp`: its size, and its checksum."""
    with zipfile.ZipFile(archive) as opened:
        return {entry.filename: (entry.file_size, f"{entry.CRC:08x}") for entry in opened.infolist()}


@contextmanager
def open_entry(archive: str, name: str) -> Iterator[IO[bytes]]:
    """A file in the archive, open for reading and seeking."""
    with zipfile.ZipFile(archive) as opened, opened.open(name) as file:
        yield file
