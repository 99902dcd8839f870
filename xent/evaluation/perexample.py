"""The loss of every row, written by the tasks as they go.

All tasks write into one scratch file, each its own rows; when the pass is done it becomes a .npy or .parquet file or a
.zarr array, under another name that is then changed, so that an output is there whole or not at all.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from xent.evaluation.places import is_url
from xent.evaluation.source import Source, refusal, require
from xent.evaluation.store import Store

Array = np.ndarray[Any, Any]
SUFFIXES = (".npy", ".parquet", ".zarr")
BLOCK_ROWS = 2**20
SCRATCH = "losses.npy"


class WriteError(OSError):
    """An output could not be written; the message names it."""


@dataclass(frozen=True)
class LossFile:
    """Where the losses go: the `scratch` file of the tasks, and the `target` that it becomes."""

    target: Path
    scratch: str
    rows: int
    dtype: np.dtype[Any]
    is_kept: bool

    @classmethod
    def plan(
        cls, path: Any, sources: Sequence[Source | None], store: Store | None, *, overwrite: bool
    ) -> LossFile | None:
        """The file at a path; None for None. `sources` are all that is read, the predictions first.

        Raises
        ------
        FileExistsError, FileNotFoundError, PermissionError, ValueError
            If it cannot be there.
        """
        predictions = sources[0]
        if path is None or predictions is None:
            return None
        target = output_path("per_example", path, SUFFIXES, overwrite=overwrite)
        check_no_input("per_example", target, sources)
        wide = predictions.dtype.itemsize == 8 or not predictions.has_whole_rows
        scratch = Path(store.directory, SCRATCH) if store else target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        dtype = np.dtype(np.float64 if wide else np.float32)
        return cls(target, str(scratch), predictions.shape[0], dtype, store is not None)

    def prepare(self) -> None:
        """Make the scratch file, of NaN and with its place on the disk, unless an earlier run has made it."""
        if self.is_kept and os.path.exists(self.scratch):
            return
        draft = Path(f"{self.scratch}.{uuid.uuid4().hex}")
        with written(self.target):
            try:
                with draft.open("wb") as file:
                    facts = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows,)}
                    np.lib.format.write_array_header_1_0(file, facts)
                    file.flush()
                    allocate(file.fileno(), file.tell() + self.rows * self.dtype.itemsize)
                    for start in range(0, self.rows, BLOCK_ROWS):
                        file.write(np.full(min(BLOCK_ROWS, self.rows - start), np.nan, self.dtype).data)
                draft.replace(self.scratch)
            finally:
                remove(draft)

    def publish(self) -> None:
        """Make the target of what the tasks have written."""
        if self.target.suffix == ".npy" and not self.is_kept:  # which it is already
            with written(self.target):
                move(Path(self.scratch), self.target)
            return
        losses = np.load(self.scratch, mmap_mode="r") if self.rows else np.zeros(0, self.dtype)
        draft = self.target.with_name(f".{uuid.uuid4().hex}{self.target.suffix}")
        with written(self.target):
            try:
                WRITERS[self.target.suffix](draft, losses)
                move(draft, self.target)
            finally:
                remove(draft)

    def discard(self) -> None:
        """Remove the scratch file, unless the next run goes on with it."""
        if not self.is_kept:
            remove(Path(self.scratch))


@contextmanager
def writing(losses: LossFile | None) -> Iterator[None]:
    """The scratch file is there inside the with block, and becomes the target if that ends well."""
    if losses is None:
        yield
        return
    losses.prepare()
    try:
        yield
        losses.publish()
    finally:
        losses.discard()


@contextmanager
def written(target: Path) -> Iterator[None]:
    """Name the output in what the system says of a disk that is full, or of a folder that cannot be written to."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"evaluate: {target} could not be written ({error.strerror or error}).") from error


def write_losses(scratch: str, first_row: int, losses: Array | float, rows: int) -> None:
    """Write the losses of some rows into the scratch file."""
    if not rows:
        return
    # subtle: not mapped, for where a disk is full a mapped page is a SIGBUS and a write an error
    with open(scratch, "r+b") as file:
        np.lib.format.read_magic(file)
        _, _, dtype = np.lib.format.read_array_header_1_0(file)
        file.seek(first_row * dtype.itemsize, os.SEEK_CUR)
        file.write(np.ascontiguousarray(np.broadcast_to(np.asarray(losses, dtype), rows)).data)


def allocate(file: int, size: int) -> None:
    """Take the place of so many bytes on the disk, where the system knows how; OSError where it is full."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # of a file system that does not know how
            raise


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


def check_no_input(argument: str, target: Path, sources: Sequence[Source | None]) -> None:
    """Raise ValueError where an output would replace what is read: where it is, holds or lies in one of its files."""
    for path in (path for source in sources if source is not None for path in files_of(source)):
        place = Path(os.path.realpath(path))
        is_same = target.exists() and place.exists() and target.samefile(place)
        if is_same or target in (place, *place.parents) or place in target.parents:
            rule, got = "be another path than the inputs", f"{target}, where {path} is read"
            raise ValueError(refusal(argument, rule, got, "Choose another name."))


def read_by(planned: Any) -> list[Source | None]:
    """All sources of a planned pass."""
    return [planned.predictions, getattr(planned, "b", None), planned.labels, *planned.keys]


def files_of(source: Source) -> list[str]:
    """The local files and folders that a source reads, and those of the sources that it is made of."""
    values = [getattr(source, one.name) for one in fields(source)]
    items = [item for value in values for item in (value if isinstance(value, tuple) else (value,))]
    inner = [item for item in items if isinstance(item, Source)]
    if inner:
        return [path for one in inner for path in files_of(one)]
    mapped = getattr(getattr(source, "array", None), "base", None)  # a memory map in hand
    path = getattr(source, "file", None) or source.path or getattr(mapped, "filename", None)
    return [] if path is None or is_url(str(path)) else [str(path)]


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


def write_npy(path: Path, losses: Array) -> None:
    """A .npy file."""
    np.save(path, losses, allow_pickle=False)


def write_zarr(path: Path, losses: Array) -> None:
    """A Zarr array."""
    zarr = require("zarr", "zarr", "a Zarr array")
    array = zarr.create_array(
        path, shape=losses.shape, dtype=losses.dtype, chunks=(min(BLOCK_ROWS, max(1, losses.size)),)
    )
    for start in range(0, len(losses), BLOCK_ROWS):
        array[start : start + BLOCK_ROWS] = losses[start : start + BLOCK_ROWS]


def write_parquet(path: Path, losses: Array) -> None:
    """A Parquet file of one column, ``loss``."""
    pyarrow, parquet = require("pyarrow", "parquet", "a Parquet file"), require("pyarrow.parquet", "parquet", "it")
    schema = pyarrow.schema([("loss", pyarrow.from_numpy_dtype(losses.dtype))])
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(losses), BLOCK_ROWS):
            block = pyarrow.array(np.ascontiguousarray(losses[start : start + BLOCK_ROWS]))
            writer.write_table(pyarrow.table([block], schema))


WRITERS = {".npy": write_npy, ".parquet": write_parquet, ".zarr": write_zarr}
