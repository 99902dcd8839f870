"""Outputs: the checks of their paths, drafts and renames, and that none replaces an input."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xent.evaluation.sources.messages import refusal
from xent.evaluation.sources.source import Source
from xent.evaluation.sources.storage import is_url, without_file_protocol
from xent.optional import require


class WriteError(OSError):
    """An output could not be written; the message names it.

    ``result`` is that of the pass where it was done by then: the numbers are not lost with the output.
    """

    result: Any = None


@contextmanager
def written(target: Path) -> Iterator[None]:
    """Raise WriteError, which names the output, for an OSError of the with block, such as a full disk."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"evaluate: {target} could not be written ({error.strerror or error}).") from error


def local_path(argument: str, path: Any) -> str:
    """The path of an output without ``file://``; ValueError for an empty one, and for any other URL."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(refusal(argument, "be a path", repr(path), "Name one."))
    text: str = os.fspath(path)
    if not text:
        raise ValueError(refusal(argument, "be a path", "an empty one", "Leave it out, or name a path."))
    if isinstance(text, str) and is_url(text := without_file_protocol(text)):
        remedy = "Write it to a local one, and copy it there."
        raise ValueError(refusal(argument, "be a local path, for outputs are not written to URLs", text, remedy))
    return text


def output_path(argument: str, path: Any, suffixes: tuple[str, ...], *, overwrite: bool) -> Path:
    """The path of an output with its links resolved, checked: its suffix, its folder, whether it exists.

    With `overwrite` it may be a file, or a Zarr array if its suffix is ``.zarr``. Without `suffixes` it is a folder,
    whose contents the caller checks.
    """
    target = Path(os.path.realpath(local_path(argument, path)))
    if suffixes and target.suffix not in suffixes:
        got, remedy = f"{path}", "Its suffix says the format."
        raise ValueError(refusal(argument, f"be the path of a {' or '.join(suffixes)} file", got, remedy))
    if suffixes and target.suffix == ".parquet":
        require("pyarrow.parquet", "parquet", "a Parquet file")
    if suffixes and target.suffix == ".zarr":
        require("zarr", "zarr", "a Zarr array")
    if not target.parent.is_dir():
        rule, remedy = "lie in a folder that is there", "Make the folder."
        raise FileNotFoundError(refusal(argument, rule, f"{target}", remedy))
    if not os.access(target.parent, os.W_OK | os.X_OK):
        rule, remedy = "lie in a folder that can be written to", "Choose another one."
        raise PermissionError(refusal(argument, rule, f"{target}", remedy))
    if not target.exists():
        return target
    if not overwrite:
        rule, remedy = "be a new file", "Choose another name, or say that it may be overwritten."
        raise FileExistsError(refusal(argument, rule, f"{target}, which is there", remedy))
    if suffixes and target.suffix == ".zarr" and not is_zarr_array(target):
        rule = "be new, or a Zarr array that may be overwritten"
        raise ValueError(refusal(argument, rule, f"{target}, which is something else", "Choose another name."))
    if suffixes and target.suffix != ".zarr" and target.is_dir():
        raise ValueError(refusal(argument, "be the path of a file", f"the folder {target}", "Choose another name."))
    return target


def is_zarr_array(folder: Path) -> bool:
    """Whether a folder is one Zarr array, and not a group, which may hold others."""
    if (folder / ".zarray").is_file():
        return True
    try:
        metadata = json.loads((folder / "zarr.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(metadata, dict) and metadata.get("node_type") == "array"


def check_no_input(argument: str, target: Path, sources: Iterable[Source]) -> None:
    """Raise ValueError if an output would replace an input: if it is, holds or lies in one of the sources' files."""
    for path in (path for source in sources for path in source.files()):
        file = Path(os.path.realpath(path))
        is_same = target.exists() and file.exists() and target.samefile(file)
        if is_same or target in (file, *file.parents) or file in target.parents:
            rule, got = "be another path than the inputs", f"{target}, where {path} is read"
            raise ValueError(refusal(argument, rule, got, "Choose another name."))


def write_text(target: Path, text: str, *, overwrite: bool) -> None:
    """Write a file of text, whole or not at all; WriteError if it cannot be written."""
    draft = target.with_name(f".{uuid.uuid4().hex}{target.suffix}")
    with written(target):
        try:
            draft.write_text(text, "utf-8")
            move(draft, target, overwrite=overwrite)
        finally:
            remove(draft)


def move(draft: Path, target: Path, *, overwrite: bool) -> None:
    """Move the draft to its final path; only with `overwrite` it replaces a file or a folder that is there by now.

    A file never replaces a folder.
    """
    if not overwrite and target.exists():
        raise FileExistsError(errno.EEXIST, "it is there now, and was not before the run; name another one")
    if draft.is_dir() and target.is_dir():  # a rename does not replace a folder
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
