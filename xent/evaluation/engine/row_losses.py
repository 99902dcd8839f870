"""The loss of every row, written by the tasks as they go.

All tasks write into one scratch file, each its own rows; when the pass is done it becomes a .npy or .parquet file or a
.zarr array, written under another name and renamed, so that an output is there whole or not at all.
"""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.engine.checkpoint import Store, digest
from xent.evaluation.outputs import Target, check_no_input, draft_of, move, output_path, remove, written
from xent.evaluation.sources.messages import ReadError
from xent.evaluation.sources.npy import PARSING
from xent.evaluation.sources.source import Source
from xent.optional import require

SUFFIXES = (".npy", ".parquet", ".zarr")
BLOCK_ROWS = 2**20
SCRATCH = "losses.npy"


@dataclass(frozen=True)
class LossFile:
    """The `scratch` file into which tasks write the losses, and the `target` that it becomes."""

    target: Target
    scratch: str
    rows: int
    dtype: np.dtype[Any]
    store: Store | None
    overwrite: bool

    @classmethod
    def plan(cls, path: Any, sources: Mapping[str, Source], store: Store | None, *, overwrite: bool) -> LossFile:
        """The file at a path, for a pass that reads the sources.

        Raises
        ------
        FileExistsError, FileNotFoundError, PermissionError, ValueError
            If it cannot be written there.
        """
        predictions = sources["predictions"]
        target = output_path("per_example", path, SUFFIXES, overwrite=overwrite)
        check_no_input("per_example", target, sources.values())
        is_wide = predictions.dtype.itemsize == 8 or not predictions.has_whole_rows
        scratch = Path(store.directory, SCRATCH) if store else scratch_of(target)
        dtype = np.dtype(np.float64 if is_wide else np.float32)
        return cls(target, str(scratch), predictions.shape[0], dtype, store, overwrite)

    def prepare(self) -> None:
        """Make the scratch file, of NaN and with its space on the disk reserved, unless an earlier run has made it.

        Raises
        ------
        ReadError
            If states are kept whose losses are gone.
        WriteError
            If it cannot be made.
        """
        if self.store is not None and (os.path.lexists(self.scratch) or self.store.has_parts()):
            self.check_kept()
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

    def check_kept(self) -> None:
        """Raise ReadError unless the scratch file of an earlier run is there, and as it was made."""
        try:
            if os.path.islink(self.scratch) or not os.path.isfile(self.scratch):  # it is written to
                raise ValueError("it is no file")
            losses = np.load(self.scratch, mmap_mode="r" if self.rows else None, allow_pickle=False)
            if (losses.shape, losses.dtype) != ((self.rows,), self.dtype):
                raise ValueError("it is of another shape or dtype")
        except (ValueError, OSError, EOFError) as error:
            lost = f"{self.scratch}, where the losses of finished chunks are kept, is gone or corrupt ({error})"
            remedy = f"Delete {os.path.dirname(self.scratch)}, and all rows are read again."
            raise ReadError(f"evaluate: {lost}. {remedy}") from error

    def publish(self) -> None:
        """Make the target from the scratch file; WriteError if it cannot be made."""
        if self.target.suffix == ".npy" and self.store is None:  # the scratch file is one already
            with written(self.target):
                move(Path(self.scratch), self.target, overwrite=self.overwrite)
            return
        losses = np.load(self.scratch, mmap_mode="r") if self.rows else np.zeros(0, self.dtype)
        with written(self.target), draft_of(self.target) as draft:
            WRITERS[self.target.suffix](draft, losses)
            move(draft, self.target, overwrite=self.overwrite)

    def discard(self) -> None:
        """Remove the scratch file, unless the next run goes on with it."""
        if self.store is None:
            remove(Path(self.scratch))


def scratch_of(target: Target) -> Path:
    """A new path for the scratch file of an output: beside it, or with the temporary files for one at a URL."""
    name = uuid.uuid4().hex
    return target.with_name(f".{target.name}.{name}") if isinstance(target, Path) else Path(tempfile.gettempdir(), name)


@contextmanager
def writing(losses: LossFile | None) -> Iterator[None]:
    """Have the scratch file in the with block."""
    if losses is None:
        yield
        return
    losses.prepare()
    try:
        yield
    finally:
        losses.discard()


def write_losses(scratch: str, first_row: int, losses: NDArray[Any] | float, rows: int) -> None:
    """Write the losses of some rows into the scratch file."""
    if not rows:
        return
    # subtle: not mapped, for on a full disk a mapped page is a SIGBUS and a write an error
    with written(Path(scratch)), open(scratch, "r+b") as file:
        np.lib.format.read_magic(file)
        with PARSING:
            _, _, dtype = np.lib.format.read_array_header_1_0(file)
        file.seek(first_row * dtype.itemsize, os.SEEK_CUR)
        file.write(np.ascontiguousarray(np.broadcast_to(np.asarray(losses, dtype), rows)).data)


def digest_of_losses(scratch: str, start: int, stop: int) -> str:
    """The digest of the losses of rows start to stop in the scratch file."""
    with open(scratch, "rb") as file:
        np.lib.format.read_magic(file)
        with PARSING:
            _, _, dtype = np.lib.format.read_array_header_1_0(file)
        file.seek(start * dtype.itemsize, os.SEEK_CUR)
        return digest(file.read((stop - start) * dtype.itemsize))


def allocate(file: int, size: int) -> None:
    """Reserve so many bytes on the disk, if the system can; OSError if it is full."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that cannot reserve
            raise


def write_npy(path: Path, losses: NDArray[Any]) -> None:
    """A .npy file."""
    np.save(path, losses, allow_pickle=False)


def write_zarr(path: Path, losses: NDArray[Any]) -> None:
    """A Zarr array."""
    zarr = require("zarr", "zarr", "a Zarr array")
    array = zarr.create_array(
        path, shape=losses.shape, dtype=losses.dtype, chunks=(min(BLOCK_ROWS, max(1, losses.size)),)
    )
    for start in range(0, len(losses), BLOCK_ROWS):
        array[start : start + BLOCK_ROWS] = losses[start : start + BLOCK_ROWS]


def write_parquet(path: Path, losses: NDArray[Any]) -> None:
    """A Parquet file of one column, ``loss``."""
    pyarrow, parquet = require("pyarrow", "parquet", "a Parquet file"), require("pyarrow.parquet", "parquet", "it")
    schema = pyarrow.schema([("loss", pyarrow.from_numpy_dtype(losses.dtype))])
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(losses), BLOCK_ROWS):
            block = pyarrow.array(np.ascontiguousarray(losses[start : start + BLOCK_ROWS]))
            writer.write_table(pyarrow.table([block], schema))


WRITERS = {".npy": write_npy, ".parquet": write_parquet, ".zarr": write_zarr}
