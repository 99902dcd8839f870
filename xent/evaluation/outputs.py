"""Outputs: the checks of their paths, drafts and renames, and that none replaces an input.

An output at a URL is made in the folder of temporary files and sent when it is whole: a file appears there at once, or
not at all. Of a folder the file that names the others is sent last.
"""

from __future__ import annotations

import errno
import json
import os
import posixpath
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xent.evaluation.sources.messages import refusal
from xent.evaluation.sources.objects import check_bucket, delete, is_there, read_whole, upload
from xent.evaluation.sources.source import Source
from xent.evaluation.sources.storage import is_url, join, listed, status, suffix, without_file_protocol
from xent.evaluation.sources.storage_options import CURRENT, StorageOptions, storage_options_set
from xent.optional import require
from xent.text import shown_path, shown_text

METADATA = ("zarr.json", ".zarray", ".zattrs", "metrics.parquet")
"""The files of a folder without which it is none, and which are sent last."""
READ_ONLY = ("http", "https", "zip", "tar", "data", "github", "git")
"""Protocols of what cannot be written to, or not whole."""


class WriteError(OSError):
    """An output could not be written; the message names it.

    ``result`` is that of the pass where it was done by then: the numbers are not lost with the output.
    """

    result: Any = None


@dataclass(frozen=True)
class Destination(os.PathLike[str]):
    """The URL of an output, and the options of its file system."""

    url: str
    options: StorageOptions | None = field(default_factory=CURRENT.get, repr=False)

    def __fspath__(self) -> str:
        return self.url

    def __str__(self) -> str:
        return shown_path(self.url)

    @property
    def suffix(self) -> str:
        """The suffix of its name."""
        return suffix(self.url)

    def exists(self) -> bool:
        """Whether something is there."""
        with storage_options_set(self.options):
            return is_there(self.url)

    def names(self) -> list[str]:
        """The names in the folder that is there; none of a file."""
        with storage_options_set(self.options):
            return [posixpath.basename(url) for url in listed(self.url)]

    def send(self, draft: Path) -> None:
        """Write a local file, or a folder, there; what lay in the folder before is deleted then."""
        with storage_options_set(self.options):
            if not draft.is_dir():
                upload(draft, self.url)
                return
            names = [file.relative_to(draft).as_posix() for file in draft.rglob("*") if file.is_file()]
            before = below(self.url)
            for name in sorted(names, key=lambda name: (posixpath.basename(name) in METADATA, name)):
                upload(draft / name, join(self.url, name))
            for name in before - {*names}:
                delete(join(self.url, name))


Target = Path | Destination


def below(url: str) -> set[str]:
    """The names of the files in a folder at a URL, however deep, from it on."""
    names = set()
    for member in listed(url):
        name = posixpath.basename(member)
        names |= {f"{name}/{inner}" for inner in below(member)} if status(member).is_folder else {name}
    return names


@contextmanager
def written(target: Target) -> Iterator[None]:
    """Raise WriteError, which names the output, for an OSError of the with block, such as a full disk."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        if isinstance(target, Destination) and str(error).startswith("evaluate: "):  # it names the URL already
            raise WriteError(str(error)) from error
        raise WriteError(shown_text(f"evaluate: {target} could not be written ({error.strerror or error}).")) from error


@contextmanager
def draft_of(target: Target) -> Iterator[Path]:
    """A local path at which the output is made: beside it, or with the temporary files; removed at the end."""
    name = f".{uuid.uuid4().hex}{target.suffix}"
    draft = target.with_name(name) if isinstance(target, Path) else Path(tempfile.gettempdir(), name)
    try:
        yield draft
    finally:
        remove(draft)


def output_text(argument: str, path: Any) -> str:
    """The path or the URL of an output, without ``file://``; TypeError or ValueError for what is none."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(refusal(argument, "be a path", repr(path), "Name one."))
    text: str = os.fspath(path)
    if not text:
        raise ValueError(refusal(argument, "be a path", "an empty one", "Leave it out, or name a path."))
    if isinstance(text, str) and is_url(text := without_file_protocol(text)):
        protocol, _, rest = text.partition("://")
        if "::" in text or protocol in READ_ONLY or not rest.strip("/"):
            rule, remedy = "be a local path, or the URL of what can be written, such as s3://", "Choose another one."
            raise ValueError(refusal(argument, rule, text, remedy))
    return text


def local_path(argument: str, path: Any) -> str:
    """The path of an output without ``file://``; ValueError for an empty one, and for any other URL."""
    text = output_text(argument, path)
    if is_url(text):
        remedy = "Write it to a local one, and copy it there."
        raise ValueError(refusal(argument, "be a local path", text, remedy))
    return text


def output_path(argument: str, path: Any, suffixes: tuple[str, ...], *, overwrite: bool) -> Target:
    """The path of an output with its links resolved, or its URL, checked: its suffix, its folder, whether it exists.

    With `overwrite` it may be a file, or a Zarr array if its suffix is ``.zarr``. Without `suffixes` it is a folder,
    whose contents the caller checks.
    """
    text = output_text(argument, path)
    target: Target = Destination(text.rstrip("/")) if is_url(text) else Path(os.path.realpath(text))
    if suffixes and target.suffix not in suffixes:
        got, remedy = f"{path}", "Its suffix says the format."
        raise ValueError(refusal(argument, f"be the path of a {' or '.join(suffixes)} file", got, remedy))
    if suffixes and target.suffix == ".parquet":
        require("pyarrow.parquet", "parquet", "a Parquet file")
    if suffixes and target.suffix == ".zarr":
        require("zarr", "zarr", "a Zarr array")
    check_folder(argument, target)
    if not target.exists():
        return target
    if not overwrite:
        rule, remedy = "be a new file", "Choose another name, or say that it may be overwritten."
        raise FileExistsError(refusal(argument, rule, f"{target}, which is there", remedy))
    if suffixes and target.suffix == ".zarr" and not is_zarr_array(target):
        rule = "be new, or a Zarr array that may be overwritten"
        raise ValueError(refusal(argument, rule, f"{target}, which is something else", "Choose another name."))
    is_folder = target.is_dir() if isinstance(target, Path) else bool(target.names())
    if suffixes and target.suffix != ".zarr" and is_folder:
        raise ValueError(refusal(argument, "be the path of a file", f"the folder {target}", "Choose another name."))
    return target


def check_folder(argument: str, target: Target) -> None:
    """Raise FileNotFoundError or PermissionError if an output cannot be written where it is to lie."""
    if isinstance(target, Destination):
        try:
            check_bucket(target.url)
        except FileNotFoundError as error:
            rule, remedy = "lie in a bucket that is there", "Make the bucket."
            raise FileNotFoundError(refusal(argument, rule, f"{target}", remedy)) from error
        return
    if not target.parent.is_dir():
        rule, remedy = "lie in a folder that is there", "Make the folder."
        raise FileNotFoundError(refusal(argument, rule, f"{target}", remedy))
    if not os.access(target.parent, os.W_OK | os.X_OK):
        rule, remedy = "lie in a folder that can be written to", "Choose another one."
        raise PermissionError(refusal(argument, rule, f"{target}", remedy))


def is_zarr_array(folder: Target) -> bool:
    """Whether a folder is one Zarr array, and not a group, which may hold others."""
    try:
        if isinstance(folder, Destination):
            names = folder.names()
            text = b"{}" if "zarr.json" not in names else read_whole(join(folder.url, "zarr.json"))
        else:
            names = os.listdir(folder)
            text = b"{}" if "zarr.json" not in names else (folder / "zarr.json").read_bytes()
        metadata = json.loads(text)
    except (OSError, ValueError):
        return False
    if ".zarray" in names:
        return True
    return isinstance(metadata, dict) and metadata.get("node_type") == "array"


def check_no_input(argument: str, target: Target, sources: Iterable[Source]) -> None:
    """Raise ValueError if an output would replace an input: if it is, holds or lies in one of the sources' files."""
    for path in (path for source in sources for path in source.files()):
        if replaces_url(target, path) if is_url(path) else replaces_file(target, path):
            rule, got = "be another path than the inputs", f"{target}, where {path} is read"
            raise ValueError(refusal(argument, rule, got, "Choose another name."))


def replaces_url(target: Target, url: str) -> bool:
    """Whether an output is, holds or lies in the file at a URL."""
    if isinstance(target, Path):
        return False
    one, other = (f"{each.partition('://')[0]}://{each.partition('://')[2].strip('/')}/" for each in (target.url, url))
    return one.startswith(other) or other.startswith(one)


def replaces_file(target: Target, path: str) -> bool:
    """Whether an output is, holds or lies in a local file."""
    if isinstance(target, Destination):
        return False
    file = Path(os.path.realpath(path))
    is_same = target.exists() and file.exists() and target.samefile(file)
    return is_same or target in (file, *file.parents) or file in target.parents


def write_text(target: Target, text: str, *, overwrite: bool) -> None:
    """Write a file of text, whole or not at all; WriteError if it cannot be written."""
    with written(target), draft_of(target) as draft:
        draft.write_text(text, "utf-8")
        move(draft, target, overwrite=overwrite)


def move(draft: Path, target: Target, *, overwrite: bool) -> None:
    """Move the draft to its final path; only with `overwrite` it replaces a file or a folder that is there by now.

    A file never replaces a folder.
    """
    if not overwrite and target.exists():
        raise FileExistsError(errno.EEXIST, "it is there now, and was not before the run; name another one")
    if isinstance(target, Destination):
        target.send(draft)
    elif draft.is_dir() and target.is_dir():  # a rename does not replace a folder
        old = target.with_name(f".{uuid.uuid4().hex}")
        target.rename(old)
        draft.rename(target)
        shutil.rmtree(old)
    else:
        draft.replace(target)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
