"""Where files are: local paths, and the URLs that fsspec knows.

A URL has ``://`` in it; options and credentials are those of ``storage_options.py``, and of fsspec's own
configuration. Every request for bytes is
for a range, and an answer of other bytes is an error.
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

from xent.evaluation.sources.boundary import check_regular
from xent.evaluation.sources.messages import (
    MalformedError,
    ReadError,
    ServerError,
    is_of_a_network,
    reader_error,
    remedy_of_server,
    shown_error,
)
from xent.evaluation.sources.storage_options import options_of
from xent.optional import require
from xent.text import shown_path, shown_text

Stamp = tuple[int, int | str]
"""The size of a file and the time of its last change, or its tag on a server; the tag "" tells of no changes."""

AHEAD_BYTES = 2**16
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
            file = Path(path).stat()
        except NotADirectoryError as error:
            raise FileNotFoundError(*error.args) from error
        except FileNotFoundError:
            raise
        except OSError as error:  # a link to itself, or a folder that may not be searched
            raise ReadError(f"evaluate: {path} could not be opened ({error.strerror}).") from error
        check_regular(path, file.st_mode)
        return Status((file.st_size, file.st_mtime_ns), os.path.isdir(path))
    system, remote_path = filesystem(path)
    with served(path):
        info = system.info(remote_path)
    is_folder = info.get("type") == "directory"
    if info.get("size") is None and not is_folder:
        raise ReadError(f"evaluate: {path} could not be opened (its server does not tell the size). Download it.")
    tag = next((str(info[field]) for field in TAG_FIELDS if info.get(field)), "")
    return Status((info.get("size") or 0, tag), is_folder)


def exists(path: str) -> bool:
    """Whether something is at the path."""
    if not is_url(path):
        return os.path.exists(path)
    system, remote_path = filesystem(path)
    with served(path):
        return bool(system.exists(remote_path))


@contextmanager
def served(path: str) -> Iterator[None]:
    """Raise an error that names the URL, and says why, for whatever a file system of fsspec raises in the with block.

    fsspec says FileNotFoundError of an HTTP server that fails in any way: only one of a 404 stays so.
    """
    try:
        yield
    except FileNotFoundError as error:
        cause = error.__cause__
        if cause is None or not is_of_a_network(cause) or getattr(cause, "status", None) in (404, 410):
            raise
        raise ServerError(unreachable(path, cause)) from error
    except (ReadError, ModuleNotFoundError, ValueError):
        raise
    except Exception as error:
        raise (ServerError if is_of_a_network(error) else ReadError)(unreachable(path, error)) from error


@contextmanager
def answered(path: str) -> Iterator[None]:
    """Raise ServerError, which names the URL, for an error of its server in the with block; others as they are."""
    try:
        yield
    except ReadError:
        raise
    except Exception as error:
        if not is_of_a_network(error):
            raise
        raise ServerError(unreachable(path, error)) from error


def unreachable(path: str, error: BaseException) -> str:
    """The message of a URL whose file system raises this error."""
    return f"evaluate: {path} could not be opened ({shown_error(error)}). {remedy_of_server(error)}"


def check_unchanged(path: str, stamp: Stamp) -> None:
    """Raise ReadError if the file has changed since its header was read."""
    try:
        current = status(path).stamp
    except ReadError:
        raise
    except OSError as error:
        reason = error.strerror or "it is not there"
        message = f"evaluate: {path} could not be opened ({reason}). Every worker must see it at this path."
        raise ReadError(message) from error
    if current != stamp:
        raise ReadError(f"evaluate: {path} has changed since it was opened. Run it again.")


@contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """The file, open for reading and seeking."""
    if not is_url(path):
        with Path(path).open("rb") as local:
            yield local
        return
    system, remote_path = filesystem(path)  # kept to the end: an archive that is collected closes its files
    with served(path):
        remote = system.open(remote_path, "rb", block_size=AHEAD_BYTES)
    with answered(path), remote as file:
        yield file


@contextmanager
def path_or_file(path: str) -> Iterator[str | BinaryIO]:
    """The path itself for a library of C to open, or the open file of a URL."""
    if not is_url(path):
        yield path
        return
    with open_file(path) as file:
        yield file


def read_range(path: str, start: int, stop: int) -> bytes:
    """Bytes start to stop of the file at a URL; ReadError if it ends before."""
    system, remote_path = filesystem(path)
    # subtle: fsspec's cat_file takes whatever an HTTP server sends, its files check that it is the range asked for
    with served(path), system.open(remote_path, "rb", cache_type="none") as file:
        file.seek(start)
        data: bytes = file.read(stop - start)
    if len(data) != stop - start:
        raise ReadError(f"evaluate: {path} is truncated: it ended {stop - start - len(data)} bytes before byte {stop}.")
    return data


def check_ranges(path: str, size: int) -> None:
    """Raise ReadError if the server of a URL sends only whole files, of which each task would get all."""
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
        system, remote_path = filesystem(folder)
        with served(folder):
            paths = [system.unstrip_protocol(name.rstrip("/")) for name in system.ls(remote_path, detail=False)]
    else:
        paths = [os.path.join(folder, name) for name in os.listdir(folder)]
    return sorted((path for path in paths if posixpath.basename(path)[:1] not in "._"), key=natural_order)


def matches(pattern: str) -> list[str]:
    """The paths that a glob matches, in natural order."""
    if is_url(pattern):
        system, remote_path = filesystem(pattern)
        with served(pattern):
            paths = [system.unstrip_protocol(name) for name in system.glob(remote_path)]
    else:
        paths = glob.glob(pattern, recursive=True)
    return sorted(paths, key=natural_order)


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


def filesystem(path: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it."""
    core = require("fsspec.core", "remote", f"the URL {shown_path(path)}")
    if any(link.startswith("reference:") for link in path.split("::")):
        message = f"{path} is a list of references, which may name any file. Pass the paths of the files themselves"
        raise MalformedError(f"evaluate: {message}.")
    try:
        system, remote_path = core.url_to_fs(path, **options_of(path))
    except ImportError as error:  # s3fs for s3://, gcsfs for gs://
        message = f"evaluate: {path} needs a package that is not installed ({error})."
        raise ModuleNotFoundError(shown_text(message)) from error
    except FileNotFoundError:
        raise
    except ValueError as error:
        raise ValueError(
            shown_text(f"evaluate: {path} is not a URL that fsspec knows ({error}). Correct it.")
        ) from error
    except Exception as error:  # an archive inside which the path lies
        raise (ServerError if is_of_a_network(error) else ReadError)(unreachable(path, error)) from error
    check_system(system, path)
    return system, remote_path


def check_system(system: Any, path: str) -> None:
    """Raise MalformedError for local files behind a cache of fsspec, which would follow their links out of the set."""
    while system is not None:
        if "file" in ((system.protocol,) if isinstance(system.protocol, str) else system.protocol):
            raise MalformedError(f"evaluate: {path} is a local path, written as a URL. Pass it without its protocols.")
        system = getattr(system, "fs", None)


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
