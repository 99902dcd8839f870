"""Outputs: where one may be written, drafts and renames, and that none replaces what is read."""

from __future__ import annotations

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
from xent.optional import require


class WriteError(OSError):
    """An output could not be written; the message names it."""


@contextmanager
def written(target: Path) -> Iterator[None]:
    """Name the output in what the system says of a disk that is full, or of a folder that cannot be written to."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"evaluate: {target} could not be written ({error.strerror or error}).") from error


def output_path(argument: str, path: Any, suffixes: tuple[str, ...], *, overwrite: bool) -> Path:
    """The path of an output, of links that to which they lead, checked: suffix, folder, whether it is there already.

    What is there and may be overwritten is a file, or a Zarr array where that is to be written; a folder of tables has
    no suffix here, and is checked by who writes it.
    """
    target = Path(os.path.realpath(path))
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
    """Whether a folder is one Zarr array, and no group, which may hold others."""
    if (folder / ".zarray").is_file():
        return True
    try:
        found = json.loads((folder / "zarr.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("node_type") == "array"


def check_no_input(argument: str, target: Path, sources: Iterable[Source]) -> None:
    """Raise ValueError if an output would replace an input: if it is, holds or lies in one of the sources' files."""
    for path in (path for source in sources for path in source.files()):
        file = Path(os.path.realpath(path))
        is_same = target.exists() and file.exists() and target.samefile(file)
        if is_same or target in (file, *file.parents) or file in target.parents:
            rule, got = "be another path than the inputs", f"{target}, where {path} is read"
            raise ValueError(refusal(argument, rule, got, "Choose another name."))


def move(draft: Path, target: Path) -> None:
    """Give the draft its name, in the place of what bears it; a file never takes the place of a folder."""
    if draft.is_dir() and target.is_dir():  # a folder is not replaced by a rename
        old = target.with_name(f".{uuid.uuid4().hex}")
        target.rename(old)
        draft.rename(target)
        shutil.rmtree(old)
    else:
        draft.replace(target)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
