"""Where files are: local paths, and the URLs that fsspec knows.

A URL has ``://`` in it; options and credentials are those of ``storage_options.py``, and of fsspec's own
configuration. What a server has told of a file is remembered while a set is opened or a task reads.
Leaves out how bytes are asked for (``ranges.py``), and what they mean.
"""

from __future__ import annotations

import glob
import io
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from xent.evaluation.sources.boundary import check_regular
from xent.evaluation.sources.messages import ReadError, reader_error
from xent.evaluation.sources.ranges import RemoteFile, is_conditional, read_ranges, request, small_file
from xent.evaluation.sources.servers import asked, changed, filesystem

Stamp = tuple[int, int | str]
"""The size of a file and the time of its last change, or its tag on a server; the tag "" tells of no changes."""

INDEX_NAME = "_xent_index.parquet"
"""The file in the folder of a set that tells what is in the others (``shard_index.py``)."""
PACKED = (".gz", ".zip")
TAG_FIELDS = ("ETag", "etag", "LastModified", "last_modified", "Last-Modified", "mtime", "updated", "created")


@dataclass(frozen=True)
class Status:
    """What is at a path: the stamp of a file, or a folder."""

    stamp: Stamp
    is_folder: bool

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.stamp[0]


def is_url(path: str) -> bool:
    """Whether fsspec opens the path."""
    return "://" in path or "::" in path


def without_file_protocol(path: str) -> str:
    """The path of a local file, if it is written as a URL; any other path as it is."""
    return path.removeprefix("file://").removeprefix("local://")


def status(path: str) -> Status:
    """What is at the path; FileNotFoundError if nothing is, MalformedError if it is neither a file nor a folder."""
    if not is_url(path):
        try:
            file = os.stat(path)
        except NotADirectoryError as error:
            raise FileNotFoundError(*error.args) from error
        except FileNotFoundError:
            raise
        except OSError as error:  # a link to itself, or a folder that may not be searched
            raise ReadError(f"evaluate: {path} could not be opened ({error.strerror}).") from error
        check_regular(path, file.st_mode)
        return Status((file.st_size, file.st_mtime_ns), os.path.isdir(path))
    told = TOLD.get() or Told()
    if path in told.files:
        return told.files[path]
    if told.folders.get(path):
        return Status((0, ""), True)
    system, remote_path = filesystem(path)
    system.invalidate_cache(remote_path)
    return told_of(path, asked(path, lambda: system.info(remote_path)), told.files)


def check_unchanged(path: str, stamp: Stamp) -> None:
    """Raise ReadError if the file has changed since its header was read, or see to it that its server does."""
    if is_conditional(path) and stamp[1]:
        if (told := TOLD.get()) is not None:
            told.files[path] = Status(stamp, False)  # what is asked for by this stamp
        return
    try:
        if status(path).stamp == stamp:
            return
        told, folder = Told(), posixpath.dirname(path)
        if is_url(path) and listed(folder, told) and told.files.get(path) == Status(stamp, False):
            return  # some file systems tell another tag of a file than of one in a listing
    except ReadError:
        raise
    except OSError as error:
        reason = error.strerror or "it is not there"
        message = f"evaluate: {path} could not be opened ({reason}). Every worker must see it at this path."
        raise ReadError(message) from error
    raise ReadError(changed(path))


@contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """The file, open for reading and seeking."""
    if not is_url(path):
        with Path(path).open("rb") as local:
            yield local
        return
    stamp = status(path).stamp
    whole = small_file(path, stamp)
    with io.BytesIO(whole) if whole is not None else RemoteFile(path, stamp) as file:
        yield file  # type: ignore[misc]  # it has the methods that are used


@contextmanager
def path_or_file(path: str) -> Iterator[str | BinaryIO]:
    """The path itself for a library of C to open, or the open file of a URL."""
    if not is_url(path):
        yield path
        return
    with open_file(path) as file:
        yield file


def read_range(path: str, start: int, stop: int, stamp: Stamp) -> bytes | bytearray:
    """Bytes start to stop of the file at a URL; ReadError if it ends before, or is another one than at `stamp`."""
    whole = small_file(path, stamp, lambda: check_unchanged(path, stamp))
    if whole is not None:
        return whole[start:stop]
    check_unchanged(path, stamp)
    return read_ranges(path, start, stop, stamp)


def check_ranges(path: str, stamp: Stamp) -> None:
    """Raise ReadError if the web server of a URL sends only whole files, of which each task would get all."""
    size = stamp[0]
    if not path.startswith(("http://", "https://")) or not size or small_file(path, stamp) is not None:
        return
    try:
        request(path, size - 1, size, stamp)
    except ValueError as error:
        reason = f"its server sends files whole: {error}"
        raise ReadError(f"evaluate: {path} could not be read in parts ({reason}). Download it.") from error


@dataclass(frozen=True)
class Told:
    """What servers have told of files, by their URLs, and of what is in folders."""

    files: dict[str, Status] = field(default_factory=dict)
    folders: dict[str, list[str]] = field(default_factory=dict)


TOLD: ContextVar[Told | None] = ContextVar("told", default=None)


@contextmanager
def remembering() -> Iterator[Told]:
    """Ask of no file at a URL twice in the with block, and of none of which a listing tells."""
    token = TOLD.set(told := Told())
    try:
        yield told
    finally:
        TOLD.reset(token)


def told_of(path: str, info: Mapping[str, Any], files: dict[str, Status]) -> Status:
    """The status of a URL, of which a file system tells this; which is added to `files`."""
    is_folder = info.get("type") == "directory"
    if info.get("size") is None and not is_folder:
        raise ReadError(f"evaluate: {path} could not be opened (its server does not tell the size). Download it.")
    tag = next((info[name] for name in TAG_FIELDS if info.get(name)), "")
    found = Status((info.get("size") or 0, str(tag.timestamp() if isinstance(tag, datetime) else tag)), is_folder)
    files[path] = found
    return found


def listed(folder: str, told: Told | None = None) -> list[str]:
    """The URLs in a folder at a URL; none if it is no folder."""
    told = told or TOLD.get() or Told()
    if folder not in told.folders:
        system, remote_path = filesystem(folder)
        system.invalidate_cache(remote_path)
        try:
            infos = asked(folder, lambda: system.ls(remote_path, detail=True))
        except (FileNotFoundError, NotADirectoryError):
            infos = []
        # what is listed of a file is itself, of which some file systems tell another time there
        inside = {info["name"]: info for info in infos if info["name"].rstrip("/") != remote_path.rstrip("/")}
        told.folders[folder] = urls_told_of(system, inside, told)
    return told.folders[folder]


def urls_told_of(system: Any, infos: Mapping[str, Mapping[str, Any]], told: Told) -> list[str]:
    """The URLs of what a listing has found; what it tells of them is remembered, if that has their sizes."""
    urls = []
    for name, info in infos.items():
        urls.append(url := system.unstrip_protocol(name.rstrip("/")))
        if info.get("type") == "directory" or info.get("size") is not None:
            told_of(url, info, told.files)
    return urls


def members(folder: str) -> list[str]:
    """The paths in a folder, in natural order; not those that begin with a dot or an underscore, which hold no rows."""
    if is_url(folder):
        paths = listed(folder)
    else:
        paths = [os.path.join(folder, name) for name in os.listdir(folder)]
    return sorted((path for path in paths if posixpath.basename(path)[:1] not in "._"), key=natural_order)


def matches(pattern: str) -> list[str]:
    """The paths that a glob matches, in natural order; not that of an index, which holds no rows."""
    if is_url(pattern):
        system, remote_path = filesystem(pattern)
        system.invalidate_cache(remote_path)
        infos = asked(pattern, lambda: system.glob(remote_path, detail=True))
        paths = urls_told_of(system, infos, TOLD.get() or Told())
    else:
        paths = glob.glob(pattern, recursive=True)
    return sorted((path for path in paths if posixpath.basename(path) != INDEX_NAME), key=natural_order)


def is_glob(path: str) -> bool:
    """Whether the path stands for several; a question mark in a URL is no part of a glob."""
    if is_url(path):
        return "*" in path
    return glob.has_magic(path) and not os.path.exists(path)


def folder_of(pattern: str) -> str:
    """The folder itself, or that in which everything lies that a glob matches."""
    while is_glob(pattern):
        pattern = os.path.dirname(pattern)
    return pattern


def natural_order(text: str) -> list[Any]:
    """A key that sorts as people count: part-2 before part-10."""
    return [int(run) if run.isdigit() else run for run in re.split("([0-9]+)", text)]


def suffix(path: str) -> str:
    """The suffix of a file's name, without the query of a URL; of a chain that of its first path.

    That of a packed file has the suffix before it too: .csv.gz, .zarr.zip.
    """
    plain = path if not is_url(path) else chain(path)[1].partition("?")[0]
    stem, last = posixpath.splitext(plain.lower())
    return posixpath.splitext(stem)[1] + last if last in PACKED else last


def join(folder: str, name: str) -> str:
    """A path in the folder."""
    if not is_url(folder):
        return os.path.join(folder, name)
    before, link, after = chain(folder)
    return f"{before}{link}{'' if link.endswith('/') else '/'}{name}{after}"


def chain(url: str) -> tuple[str, str, str]:
    """What stands before the link of a chain of URLs that has the path, as zip://x of zip://x::z.zip; it; the rest."""
    links = url.split("::")
    place = next((i for i, link in enumerate(links) if "://" in link), 0)
    before, after = links[:place], links[place + 1 :]
    return "".join(f"{link}::" for link in before), links[place], "".join(f"::{link}" for link in after)


@contextmanager
def header_of(path: str, argument: str, magic: bytes | tuple[bytes, ...], what: str) -> Iterator[None]:
    """Raise an error that names the file for whatever a reader raises at a header that is truncated or corrupt."""
    try:
        yield
    except (ReadError, ModuleNotFoundError):
        raise
    except Exception as error:
        with open_file(path) as file:
            known = file.read(8).startswith(magic)
        raise reader_error(path, argument, error, known=known, what=what) from error
