"""The loss of every row, written by the tasks as they go.

All tasks write into one scratch file, each its own rows; when the pass is done it becomes a .npy or .parquet file or a
.zarr array, under another name that is then changed, so that an output is there whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xent.evaluation.source import Source, refusal, require
from xent.evaluation.store import Store

Array = np.ndarray[Any, Any]
SUFFIXES = (".npy", ".parquet", ".zarr")
BLOCK_ROWS = 2**20
SCRATCH = "losses.npy"


@dataclass(frozen=True)
class LossFile:
    """Where the losses go: the `scratch` file of the tasks, and the `target` that it becomes."""

    target: Path
    scratch: str
    rows: int
    dtype: np.dtype[Any]
    is_kept: bool

    @classmethod
    def plan(cls, path: Any, predictions: Source, store: Store | None, *, overwrite: bool) -> LossFile | None:
        """The file at a path; None for None. FileExistsError, ValueError or FileNotFoundError if it cannot be."""
        if path is None:
            return None
        target = output_path("per_example", path, SUFFIXES, overwrite=overwrite)
        if predictions.path and os.path.realpath(target) == os.path.realpath(predictions.path):
            raise ValueError(refusal("per_example", "be another file than the predictions", target, "Rename it."))
        wide = predictions.dtype.itemsize == 8 or not predictions.has_whole_rows
        scratch = Path(store.directory, SCRATCH) if store else target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        dtype = np.dtype(np.float64 if wide else np.float32)
        return cls(target, str(scratch), predictions.shape[0], dtype, store is not None)

    def prepare(self) -> None:
        """Make the scratch file, unless a run that is gone on with has made it."""
        if not (self.is_kept and os.path.exists(self.scratch)):
            np.lib.format.open_memmap(self.scratch, "w+", self.dtype, (self.rows,)).flush()

    def publish(self) -> None:
        """Make the target of what the tasks have written."""
        losses = np.load(self.scratch, mmap_mode="r") if self.rows else np.zeros(0, self.dtype)
        draft = self.target.with_name(f".{uuid.uuid4().hex}{self.target.suffix}")
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


def write_losses(scratch: str, first_row: int, losses: Array | float, rows: int) -> None:
    """Write the losses of some rows into the scratch file."""
    if rows:
        np.load(scratch, mmap_mode="r+")[first_row : first_row + rows] = losses


def output_path(argument: str, path: Any, suffixes: tuple[str, ...], *, overwrite: bool) -> Path:
    """The path of an output, checked: its suffix, its folder, and whether it is there already."""
    target = Path(os.path.abspath(path))
    if suffixes and target.suffix not in suffixes:
        got, remedy = f"{path}", "Its suffix says the format."
        raise ValueError(refusal(argument, f"be the path of a {' or '.join(suffixes)} file", got, remedy))
    if target.suffix == ".parquet":
        require("pyarrow.parquet", "parquet", "a Parquet file")
    if target.suffix == ".zarr":
        require("zarr", "zarr", "a Zarr array")
    if not target.parent.is_dir():
        rule, remedy = "lie in a folder that is there", "Make the folder."
        raise FileNotFoundError(refusal(argument, rule, f"{target}", remedy))
    if target.exists() and not overwrite:
        rule, remedy = "be a new file", "Choose another name, or say that it may be overwritten."
        raise FileExistsError(refusal(argument, rule, f"{target}, which is there", remedy))
    return target


def move(draft: Path, target: Path) -> None:
    """Give the draft its name, in the place of what bears it."""
    if target.is_dir():  # a folder is not replaced by a rename
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
