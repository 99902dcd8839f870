"""Where the numbers of an HDF5 dataset lie: in its file, in those of a virtual dataset, or outside of the set.

HDF5 follows links, virtual sources and external storage to any file that they name. Here each is followed by hand, and
held against the set's own folder before anything of it is opened. The sources of a virtual dataset may lie there;
linked files and raw storage only in folders that the owner allows.
Leaves out how rows are read.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from xent.evaluation.sources.boundary import check_inside
from xent.evaluation.sources.messages import MalformedError, ReadError, refusal
from xent.evaluation.sources.storage import is_url, path_or_file, status
from xent.optional import require

MOST_LINKS, MOST_PARTS = 32, 2**12
PREFIXES = ("HDF5_VDS_PREFIX", "HDF5_EXTFILE_PREFIX")
"""Variables of the environment by which HDF5 looks for parts elsewhere first."""
TEXT_REFERENCE = np.dtype([("length", "<u4"), ("place", "V12")])
HEAP_MAGIC = b"GCOL\x01\0\0\0"
SLACK_BYTES = 2**16
"""By how much a compressed chunk may be larger than what it holds, beside an eighth."""


@dataclass(frozen=True)
class Part:
    """A dataset, open, in the file at ``path``; its ``name`` leads there without a link."""

    path: str
    name: str
    dataset: Any


@dataclass(frozen=True)
class Walk:
    """The way from a name to the datasets that hold the numbers; ``allowed`` are the folders that the owner allows.

    ``trail`` are the files and names passed on the way to a part, which must not come again; ``steps`` has one for each
    part of a part.
    """

    argument: str
    allowed: Sequence[str] = ()
    trail: tuple[tuple[str, str], ...] = ()
    steps: list[None] = field(default_factory=list)

    def parts(self, path: str, name: str) -> Iterator[Part]:
        """The dataset of that name, then those that it is made of; none if there is no such dataset.

        Raises
        ------
        MalformedError
            If a file lies outside of the set.
        ReadError
            If links go in a circle, or a part is not there.
        """
        if (path, name) in self.trail or len(self.trail) > MOST_LINKS:
            raise ReadError(f"evaluate: {path}#{name} is linked to itself. Write it again.")
        if len(self.trail) > 1:  # a part of a part, of which a small file can have more than can be counted
            self.steps.append(None)
            if len(self.steps) > MOST_PARTS:
                raise MalformedError(f"evaluate: {path}#{name} is one of more than {MOST_PARTS} parts of parts.")
        further = replace(self, trail=(*self.trail, (path, name)))
        with opened(path) as hierarchy:
            found = follow(hierarchy, name)
            if isinstance(found, tuple):
                file, name = found
                linked = self.located(path, file, self.allowed, f"the file that {path}#{name} links to")
                yield from further.parts(linked, name)
                return
            if found is None:
                return
            dataset = hierarchy[found]
            if prefix := next((name for name in PREFIXES if name in os.environ and not is_plain(dataset)), ""):
                raise MalformedError(f"evaluate: {path}#{found} has parts, which {prefix} leads elsewhere. Unset it.")
            for raw, *_ in dataset.external or ():
                check_inside(os.path.abspath(raw), self.allowed, self.argument, f"the raw storage of {path}#{found}")
            yield Part(path, found, dataset)
            own = [os.path.dirname(os.path.realpath(path)), *self.allowed]
            for (file, name), needs in sources_of(dataset).items():
                if "%" in file + name:
                    message = f"{path}#{found} is made of files named by a pattern, {file}. Name each file"
                    raise MalformedError(f"evaluate: {message}.")
                file = path if file == "." else self.located(path, file, own, f"the part {file} of {path}#{found}")
                parts = further.parts(file, name)
                source = next(parts, None)
                if source is None or not all(fits(source.dataset.shape or (), need) for need in needs):
                    raise ReadError(f"evaluate: {path}#{found} is incomplete: {file}#{name} lacks rows of it.")
                yield source
                yield from parts

    def located(self, path: str, file: str, folders: Sequence[str], what: str) -> str:
        """The real path of a file that the one at `path` names, checked to lie in the folders and to be there."""
        if is_url(path):
            rule, remedy = "lie in one file at a URL", "Download all of its files."
            raise MalformedError(refusal(self.argument, rule, f"{what}, {file}", remedy))
        beside = os.path.dirname(os.path.realpath(path))
        named = os.path.join(beside, file)
        if os.path.isabs(file) and not os.path.exists(file):  # as HDF5 does where a set has moved
            named = os.path.join(beside, os.path.basename(file))
        real = check_inside(named, folders, self.argument, what)
        try:
            status(real)
        except FileNotFoundError as error:
            raise ReadError(f"evaluate: {path} is incomplete: {real} is not there. Copy it too.") from error
        return real


def is_plain(dataset: Any) -> bool:
    """Whether the numbers of a dataset are in its own file."""
    return not (dataset.is_virtual or dataset.external)


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """The HDF5 file, open for reading."""
    h5py = require("h5py", "hdf5", "an HDF5 file")
    # subtle: HDF5 looks for the sources of a virtual dataset beside the path that it was given
    with path_or_file(path if is_url(path) else os.path.realpath(path)) as file, h5py.File(file, "r") as hierarchy:
        yield hierarchy


def follow(hierarchy: Any, name: str) -> str | tuple[str, str] | None:
    """The name of a dataset without links, or the file and the name that it links to; None if there is no dataset."""
    h5py = require("h5py", "hdf5", "an HDF5 file")
    item, ahead, links = hierarchy, [*reversed(name.split("/"))], 0
    while ahead:
        step = ahead.pop()
        if step in ("", "."):
            continue
        link = item.get(step, getlink=True) if isinstance(item, h5py.Group) else None
        if link is None:
            return None
        if isinstance(link, h5py.ExternalLink):
            return link.filename, "/".join((link.path, *reversed(ahead)))
        if isinstance(link, h5py.SoftLink):
            links += 1
            if links > MOST_LINKS:
                raise ReadError(f"evaluate: {hierarchy.filename}#{name} is linked to itself. Write it again.")
            item = hierarchy if link.path.startswith("/") else item
            ahead += reversed(link.path.split("/"))
        else:
            item = item[step]
    return str(item.name) if isinstance(item, h5py.Dataset) else None


def sources_of(dataset: Any) -> dict[tuple[str, str], list[tuple[int, ...] | int]]:
    """The files and names of which a virtual dataset is made, with what each use needs of it.

    A use needs a last index, or, of a whole source, as many numbers.
    """
    h5s = require("h5py", "hdf5", "an HDF5 file").h5s
    needs: dict[tuple[str, str], list[tuple[int, ...] | int]] = {}
    for source in dataset.virtual_sources() if dataset.is_virtual else ():
        for space in (source.vspace, source.src_space):
            is_regular = space.get_select_type() == h5s.SEL_HYPERSLABS and space.is_regular_hyperslab()
            if is_regular and h5s.UNLIMITED in (edge for edges in space.get_regular_hyperslab() for edge in edges):
                shown = f"{dataset.file.filename}#{dataset.name}"
                raise MalformedError(f"evaluate: {shown} has a part without an end. Write it with one.")
        whole = source.src_space.get_select_type() == h5s.SEL_ALL
        last = tuple(map(int, () if whole else source.src_space.get_select_bounds()[1]))
        need = needs.setdefault((source.file_name, source.dset_name), [])
        need.append(source.vspace.get_select_npoints() if whole else last)
    return needs


def fits(shape: tuple[int, ...], need: tuple[int, ...] | int) -> bool:
    """Whether a source of this shape has what is needed of it."""
    if isinstance(need, int):
        return math.prod(shape) == need
    return len(shape) == len(need) and all(index < size for index, size in zip(need, shape, strict=True))


def check_written(part: Part, shown: str) -> None:
    """Raise ReadError if a part of a dataset was never written, or cannot be in its file.

    HDF5 would read it as the fill value. Space that was set aside and never written to is not seen.
    """
    dataset, shape = part.dataset, part.dataset.shape or ()
    size = math.prod(shape) * dataset.dtype.itemsize
    if not size:
        return
    if dataset.dtype.hasobject:
        check_heaps(dataset, part.path)
    if dataset.is_virtual:
        check_mapped(dataset, shown)
    elif dataset.external:
        for raw, offset, length in dataset.external:
            needed = offset + min(length, size)
            if status(os.path.abspath(raw)).size < needed:
                raise ReadError(f"evaluate: {shown} is incomplete: {raw} has less than the {needed} bytes of it.")
    elif dataset.chunks:
        check_chunks(dataset, shown)
    else:
        stored, offset = dataset.id.get_storage_size(), dataset.id.get_offset()  # no offset: it is in the header
        if not stored:
            raise ReadError(f"evaluate: {shown} is incomplete: 1 of its 1 chunks were never written. Write it again.")
        if offset is not None and (end := offset + max(stored, size)) > (whole := status(part.path).size):
            raise ReadError(f"evaluate: {shown} is truncated: it ends at byte {end} of a file of {whole}.")


def check_heaps(dataset: Any, path: str) -> None:
    """Raise ReadError for a text longer than its file, or an object of the heap of texts that leads to no next one.

    HDF5 (1.14) would make room for the one, and never come to an end at the other. Not checked are a file at a URL, one
    with sizes of 4 bytes, and lengths in compressed chunks.
    """
    if is_url(path) or dataset.file.id.get_create_plist().get_sizes()[1] != 8 or not status(path).size:
        return
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for offset, texts in text_places(dataset):
            lengths = np.frombuffer(data[offset : offset + texts * TEXT_REFERENCE.itemsize], TEXT_REFERENCE)["length"]
            if lengths.size and lengths.max() > len(data):
                raise ReadError(f"evaluate: {path} is corrupt: a text of {lengths.max()} bytes. Write it again.")
        heap = data.find(HEAP_MAGIC)
        while heap >= 0:
            end, place = heap + int.from_bytes(data[heap + 8 : heap + 16], "little"), heap + 16
            while place + 16 <= min(end, len(data)):
                number, size = struct.unpack("<H6xQ", data[place : place + 16])
                step = 16 + -(-size // 8) * 8 if number else size  # free space counts itself
                place += step
                if step < 16 or place > end:
                    raise ReadError(f"evaluate: {path} is corrupt: its heap at {heap} leads astray. Write it again.")
            heap = data.find(HEAP_MAGIC, heap + 8)


def text_places(dataset: Any) -> list[tuple[int, int]]:
    """Where in a file references to texts lie, and how many; none of compressed ones."""
    if not dataset.chunks:
        offset = dataset.id.get_offset()
        return [] if offset is None else [(offset, dataset.size)]
    places: list[tuple[int, int]] = []
    if not dataset.id.get_create_plist().get_nfilters():
        dataset.id.chunk_iter(lambda chunk: places.append((chunk.byte_offset, math.prod(dataset.chunks))))
    return places


def check_chunks(dataset: Any, shown: str) -> None:
    """Raise ReadError for a chunk that was never written, or takes as many bytes as it cannot."""
    h5z = require("h5py", "hdf5", "an HDF5 file").h5z
    grid = [range(0, size, step) for size, step in zip(dataset.shape, dataset.chunks, strict=True)]
    chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    options = dataset.id.get_create_plist()
    filters = [options.get_filter(i)[0] for i in range(options.get_nfilters())]
    least = (1 + 4 * (h5z.FILTER_FLETCHER32 in filters)) if filters else chunk_bytes  # HDF5 (1.14) crashes at less
    most = chunk_bytes + chunk_bytes // 8 + SLACK_BYTES if filters else chunk_bytes
    written = set()

    def look(chunk: Any) -> None:
        if not least <= chunk.size <= most:
            raise ReadError(f"evaluate: {shown} is corrupt: a chunk of {chunk_bytes} bytes takes {chunk.size}.")
        if all(offset in edge for offset, edge in zip(chunk.chunk_offset, grid, strict=True)):
            written.add(chunk.chunk_offset)

    dataset.id.chunk_iter(look)
    expected = math.prod(map(len, grid))
    if len(written) < expected:
        first = next(corner for corner in product(*grid) if corner not in written)
        rows = f"rows {first[0]} to {min(first[0] + dataset.chunks[0], dataset.shape[0])}"
        flaw = f"{expected - len(written)} of its {expected} chunks were never written, the first that of {rows}"
        raise ReadError(f"evaluate: {shown} is incomplete: {flaw}. Copy or write it again, with all its rows.")


def check_mapped(dataset: Any, shown: str) -> None:
    """Raise ReadError if the sources of a virtual dataset leave out some of it."""
    h5s = require("h5py", "hdf5", "an HDF5 file").h5s
    mapped = h5s.create_simple(dataset.shape)
    mapped.select_none()
    for source in dataset.virtual_sources():
        space = source.vspace
        if space.get_select_type() == h5s.SEL_ALL:
            return
        for first, last in space.get_select_hyper_blocklist():
            count = tuple(b - a + 1 for a, b in zip(first, last, strict=True))
            mapped.select_hyperslab(tuple(map(int, first)), count, op=h5s.SELECT_OR)
    missing = math.prod(dataset.shape) - mapped.get_select_npoints()
    if missing:
        flaw = f"{missing} of its {math.prod(dataset.shape)} numbers are in none of its parts"
        raise ReadError(f"evaluate: {shown} is incomplete: {flaw}. Write it again with all its rows.")
