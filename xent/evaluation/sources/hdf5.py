"""HDF5 datasets, alone or made of several (virtual), and variables of netCDF-4 files, which are HDF5 files.

What was never written reads as the fill value, and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.hdf5_parts import Walk, check_written, opened
from xent.evaluation.sources.messages import reading, refusal, select_array
from xent.evaluation.sources.packing import FILLS, SCALES, Packing, packing_of, whole_rows
from xent.evaluation.sources.source import TEXT, FileSource, check_piece, ends, nearest_multiple
from xent.evaluation.sources.storage import Stamp, check_unchanged, header_of, open_file, status
from xent.optional import require

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
NETCDF_3_MAGIC = b"CDF"


@dataclass(frozen=True, eq=False)
class HdfSource(FileSource):
    """A dataset of an HDF5 file, opened by each task; ``chunk_rows`` is 1 if it is not chunked.

    ``name`` leads to it without a link; ``others`` are the other files in which its numbers lie, with their stamps, and
    ``allowed`` the folders in which they may lie.
    """

    name: str
    chunk_rows: int
    others: tuple[tuple[str, Stamp], ...]
    allowed: tuple[str, ...]
    packing: Packing | None = None

    def bounds(self, chunk_bytes: int) -> list[int]:
        return self.bounds_by(self.chunk_rows, chunk_bytes)

    def edge(self, start: int, stop: int) -> int | None:
        return nearest_multiple(self.chunk_rows, start, stop) if self.chunk_rows > 1 else None

    def files(self) -> list[str]:
        return [*super().files(), *(file for file, _ in self.others)]

    def fingerprint(self) -> Any:
        own = super().fingerprint()
        return own if own is None or not self.others else [*own, *(stamp for _, stamp in self.others)]

    def check_complete(self, *, zeros_ok: bool = False) -> int:
        """Raise ReadError if a part was never written: unlike zarr, HDF5 leaves out no chunk of zeros by itself."""
        with header_of(self.file, "hdf5", HDF5_MAGIC, "an HDF5 file"):
            for part in Walk("hdf5", self.allowed).parts(self.file, self.name):
                check_written(part, self.path if part.path == self.file else f"{part.path}#{part.name}")
        return 0

    def piece(self, axis: int) -> int:
        with reading(self.path, 0, self.shape[0]), opened(self.file) as hierarchy:
            chunks = hierarchy[self.name].chunks
            return int(chunks[axis]) if chunks else 1

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """All classes of these rows."""
        return self.take((slice(start, stop),))

    def take(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        return whole_rows(self.stored(index), self.packing, self.path, *ends(index[0], self.shape[0]))

    @property
    def has_nulls(self) -> bool:
        return self.packing is not None

    def read_with_nulls(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        block = self.stored((slice(start, stop),))
        return (block, None) if self.packing is None else self.packing.unpacked(block)

    def stored(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        """This part as it is stored."""
        for file, stamp in ((self.file, self.stamp), *self.others):
            check_unchanged(file, stamp)
        with reading(self.path, *ends(index[0], self.shape[0])), opened(self.file) as hierarchy:
            dataset = hierarchy[self.name]
            if self.dtype == TEXT:
                return np.asarray(dataset.asstr()[index], self.dtype)
            return np.ascontiguousarray(dataset[index], dataset.dtype.newbyteorder("="))


def open_hdf(path: str, name: str, argument: str, allowed: Sequence[str] = ()) -> HdfSource:
    """A dataset of an HDF5 file, of which only the metadata has been read; its parts may lie in `allowed` too."""
    h5py = require("h5py", "hdf5", "an HDF5 file")
    names: list[str] = []
    check_version(path, argument)
    with header_of(path, argument, HDF5_MAGIC, "an HDF5 file"):
        parts = [*facts_of(Walk(argument, allowed), path, name)] if name else []
        if not parts:
            with opened(path) as hierarchy:
                hierarchy.visititems(lambda key, item: names.append(key) if isinstance(item, h5py.Dataset) else None)
    if not parts:
        name = select_array(names, name, path, argument)
        with header_of(path, argument, HDF5_MAGIC, "an HDF5 file"):
            parts = [*facts_of(Walk(argument, allowed), path, name)]
    file, found, shape, dtype, chunks, attributes = parts[0]
    if chunks:
        check_piece(f"{path}#{name}", math.prod(chunks) * dtype.itemsize, math.prod(shape) * dtype.itemsize)
    others = {part[0]: status(part[0]).stamp for part in parts if part[0] != file}
    stamp, chunk_rows = status(file).stamp, chunks[0] if chunks else 1
    packing, shown, parts_of_it = (
        packing_of(attributes, dtype, f"{path}#{name}", argument),
        f"{path}#{name}",
        (*others.items(),),
    )
    dtype = packing.dtype(dtype) if packing else dtype
    return HdfSource(shown, shape, dtype, file, stamp, found, chunk_rows, parts_of_it, (*allowed,), packing)


def check_version(path: str, argument: str) -> None:
    """Raise ValueError for a netCDF file of a version that is no HDF5 file."""
    with open_file(path) as file:
        if file.read(3) == NETCDF_3_MAGIC:
            rule, remedy = (
                "be netCDF-4",
                "Write it again: xarray.open_dataset(path).to_netcdf(other, format='NETCDF4').",
            )
            raise ValueError(refusal(argument, rule, f"{path}, which is netCDF-3", remedy))


def facts_of(walk: Walk, path: str, name: str) -> Iterator[tuple[str, str, tuple[int, ...], np.dtype[Any], Any, Any]]:
    """The file, the name in it, the shape, the dtype, the chunks and the packing of a dataset, then of its parts."""
    h5py = require("h5py", "hdf5", "an HDF5 file")
    for part in walk.parts(path, name):
        dataset = part.dataset
        is_text = h5py.check_string_dtype(dataset.dtype) is not None and dataset.dtype.hasobject
        attributes = {name: dataset.attrs[name] for name in (*SCALES, *FILLS) if name in dataset.attrs}
        dtype = TEXT if is_text else dataset.dtype
        yield part.path, part.name, dataset.shape or (), dtype, dataset.chunks, attributes
