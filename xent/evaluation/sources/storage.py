"""Where files are: local paths, and the URLs that fsspec knows.

A URL has ``://`` in it; options and credentials are those of fsspec's own configuration. Every request for bytes is
for a range, and one that is answered with other bytes is an error.
Leaves out what the bytes mean.
"""

from __future__ import annotations

import glob
import os
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from xent.evaluation.sources.source import ReadError
from xent.optional import require
from xent.text import shown_path, shown_text

Stamp = tuple[int, int | str]
"""The size and time, or tag, of a file, by which a change is noticed."""

AHEAD_BYTES = 2**16
MARKS = ("ETag", "etag", "LastModified", "last_modified", "Last-Modified", "mtime", "updated", "created")


@dataclass(frozen=True)
class Entry:
    """What is at a place."""

    stamp: Stamp
    is_folder: bool

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.stamp[0]


def is_url(path: str) -> bool:
    """Whether the path is one that fsspec is asked for."""
    return "://" in path or "::" in path


def look(path: str) -> Entry:
    """What is there; FileNotFoundError where nothing is."""
    if not is_url(path):
        status = Path(path).stat()
        return Entry((status.st_size, status.st_mtime_ns), os.path.isdir(path))
    system, place = filesystem(path)
    info = system.info(place)
    is_folder = info.get("type") == "directory"
    if info.get("size") is None and not is_folder:
        raise ReadError(f"evaluate: {path} could not be opened (its server does not tell the size). Download it.")
    mark = next((str(info[mark]) for mark in MARKS if info.get(mark)), "")
    return Entry((info.get("size") or 0, mark), is_folder)


def exists(path: str) -> bool:
    """Whether something is there."""
    if not is_url(path):
        return os.path.exists(path)
    system, place = filesystem(path)
    return bool(system.exists(place))


def check_unchanged(path: str, stamp: Stamp) -> None:
    """Raise ReadError where the file is not as it was when its header was read."""
    try:
        found = look(path).stamp
    except ReadError:
        raise
    except OSError as error:
        reason = error.strerror or "it is not there"
        message = f"evaluate: {path} could not be opened ({reason}). Every worker must see it at this path."
        raise ReadError(message) from error
    if found != stamp:
        raise ReadError(f"evaluate: {path} has changed since it was opened. Run it again.")


def open_file(path: str) -> BinaryIO:
    """The file, open for reading at any place."""
    if not is_url(path):
        return Path(path).open("rb")
    system, place = filesystem(path)
    file: BinaryIO = system.open(place, "rb", block_size=AHEAD_BYTES)
    return file


@contextmanager
def native(path: str) -> Iterator[str | BinaryIO]:
    """What a library of C opens best: the path itself, or the open file where it is a URL."""
    if not is_url(path):
        yield path
        return
    with open_file(path) as file:
        yield file


def read_range(path: str, start: int, stop: int) -> bytes:
    """Bytes start to stop of the file at a URL; ReadError where they are not all there."""
    system, place = filesystem(path)
    # subtle: fsspec's cat_file takes whatever an HTTP server sends, its files check that it is the range asked for
    with system.open(place, "rb", cache_type="none") as file:
        file.seek(start)
        data: bytes = file.read(stop - start)
    if len(data) != stop - start:
        raise ReadError(f"evaluate: {path} is truncated: it ended {stop - start - len(data)} bytes before byte {stop}.")
    return data


def check_ranges(path: str, size: int) -> None:
    """Raise ReadError where the server of a URL sends files whole, for it would send all of it to each task."""
    if not is_url(path) or not size:
        return
    try:
        read_range(path, size - 1, size)
    except ValueError as error:
        reason = f"its server sends files whole: {error}"
        raise ReadError(f"evaluate: {path} could not be read in parts ({reason}). Download it.") from error


def members(folder: str) -> list[str]:
    """The paths in a folder, in natural order; not those that begin with a dot or an underscore, which hold no rows."""
    if is_url(folder):
        system, place = filesystem(folder)
        found = [system.unstrip_protocol(name.rstrip("/")) for name in system.ls(place, detail=False)]
    else:
        found = [os.path.join(folder, name) for name in os.listdir(folder)]
    return sorted((path for path in found if posixpath.basename(path)[:1] not in "._"), key=natural_order)


def matches(pattern: str) -> list[str]:
    """The paths that a glob matches, in natural order."""
    if is_url(pattern):
        system, place = filesystem(pattern)
        found = [system.unstrip_protocol(name) for name in system.glob(place)]
    else:
        found = glob.glob(pattern, recursive=True)
    return sorted(found, key=natural_order)


def is_glob(path: str) -> bool:
    """Whether the path stands for several; a question mark in a URL asks nothing of a glob."""
    if is_url(path):
        return "*" in path
    return glob.has_magic(path) and not os.path.exists(path)


def natural_order(text: str) -> list[Any]:
    """A key that sorts as people count: part-2 before part-10."""
    return [int(run) if run.isdigit() else run for run in re.split("([0-9]+)", text)]


def suffix(path: str) -> str:
    """The suffix of a file's name, without the query of a URL."""
    plain = path.partition("?")[0] if is_url(path) else path
    return posixpath.splitext(plain)[1].lower()


def join(folder: str, name: str) -> str:
    """A path in the folder."""
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else os.path.join(folder, name)


def filesystem(path: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it."""
    core = require("fsspec.core", "remote", f"the URL {shown_path(path)}")
    try:
        system, place = core.url_to_fs(path)
    except ImportError as error:  # s3fs for s3://, gcsfs for gs://
        message = f"evaluate: {path} needs a package that is not installed ({error})."
        raise ModuleNotFoundError(shown_text(message)) from error
    except ValueError as error:
        raise ValueError(
            shown_text(f"evaluate: {path} is not a URL that fsspec knows ({error}). Correct it.")
        ) from error
    return system, place
