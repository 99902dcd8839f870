"""HDF5 datasets. A chunk that was never written reads as the fill value, so chunks are counted before any work."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.messages import check_chunk_count, reader_error, reading, select_array
from xent.evaluation.sources.source import FileSource, nearest_multiple
from xent.evaluation.sources.storage import check_unchanged, open_file, path_or_file, status
from xent.optional import require

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True, eq=False)
class HdfSource(FileSource):
    """A dataset of an HDF5 file, opened by each task; ``chunk_rows`` is 1 if it is not chunked."""

    name: str
    chunk_rows: int

    def bounds(self, chunk_bytes: int) -> list[int]:
        return self.bounds_by(self.chunk_rows, chunk_bytes)

    def edge(self, start: int, stop: int) -> int | None:
        return nearest_multiple(self.chunk_rows, start, stop) if self.chunk_rows > 1 else None

    def check_complete(self) -> None:
        """Raise ReadError if a chunk was never written."""
        h5py = require("h5py", "hdf5", "an HDF5 file")
        with path_or_file(self.file) as file, h5py.File(file, "r") as hierarchy:
            dataset = hierarchy[self.name]
            chunks = dataset.chunks or self.shape
            sizes = zip(self.shape, chunks, strict=True)
            expected = math.prod(-(-size // step) if size else 0 for size, step in sizes)
            if dataset.chunks:
                count = dataset.id.get_num_chunks()
            else:
                count = int(expected == 0 or dataset.id.get_storage_size() > 0)
        check_chunk_count(self.path, count, expected, "chunks were never written", "with all its rows")

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """All classes of these rows."""
        check_unchanged(self.file, self.stamp)
        with reading(self.path, start, stop):
            h5py = require("h5py", "hdf5", "an HDF5 file")
            with path_or_file(self.file) as file, h5py.File(file, "r") as hierarchy:
                return np.ascontiguousarray(hierarchy[self.name][start:stop], self.dtype.newbyteorder("="))


def open_hdf(path: str, name: str, argument: str) -> HdfSource:
    """A dataset of an HDF5 file, of which only the metadata has been read."""
    h5py = require("h5py", "hdf5", "an HDF5 file")
    stamp = status(path).stamp
    with open_file(path) as file:
        known = file.read(8) == HDF5_MAGIC
    with path_or_file(path) as file:
        try:
            hierarchy = h5py.File(file, "r")
        except Exception as error:  # OSError, and what a truncated tree makes h5py raise
            raise reader_error(path, argument, error, known=known, what="an HDF5 file") from error
        with hierarchy:
            if not isinstance(hierarchy.get(name) if name else None, h5py.Dataset):
                names: list[str] = []
                hierarchy.visititems(lambda key, item: names.append(key) if isinstance(item, h5py.Dataset) else None)
                name = select_array(names, name, path, argument)
            dataset = hierarchy[name]
            chunk_rows = dataset.chunks[0] if dataset.chunks else 1
            return HdfSource(f"{path}#{name}", dataset.shape or (), dataset.dtype, path, stamp, name, chunk_rows)
