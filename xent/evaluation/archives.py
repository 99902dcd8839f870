"""Files of several named arrays in one piece each: .npz and safetensors.

An array that is stored plainly is mapped, or asked for by ranges, as a .npy file is; a compressed one is read whole by
each task, up to a limit. Every length and offset is checked against the file's size before it is used.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from xent.evaluation.mapped import MappedSource, check_size, named_dtype, npy_at
from xent.evaluation.places import Stamp, check_unchanged, look, open_file
from xent.evaluation.source import ReadError, Source, broken, chosen, reading, refusal

COMPRESSED_BYTES = 2**28  # of an array that must be read whole
ENTRY_MAGIC = b"PK\x03\x04"
ENCRYPTED = 1
HEADER_BYTES = 100_000_000  # the limit of safetensors itself
SAFE_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "bfloat16",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
}


@dataclass(frozen=True, eq=False)
class CompressedSource(Source):
    """A compressed array of an .npz file."""

    path: str
    file: str
    member: str
    stamp: Stamp

    def bounds(self, chunk_bytes: int) -> list[int]:
        return self.bounds_by(max(1, self.shape[0]), chunk_bytes)  # all at once

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """The rows, of an array that has been read whole."""
        check_unchanged(self.file, self.stamp)
        with reading(self.path, start, stop), open_file(self.file) as file, zipfile.ZipFile(file) as archive:
            with archive.open(self.member) as stream:
                found = npy_at(stream, self.path, self.file, "npz", self.stamp)
                size = self.shape[0] * self.row_bytes
                data = stream.read(size + 1)  # the byte too many makes zipfile compare its checksum
            if (found.shape, found.dtype, len(data)) != (self.shape, self.dtype, size):
                raise ReadError(f"evaluate: {self.path} is corrupt: its array and its header differ in size.")
            array = np.frombuffer(data, self.dtype).reshape(self.shape, order=found.order)  # type: ignore[call-overload]  # a plain str
            return np.ascontiguousarray(array[start:stop], self.dtype.newbyteorder("="))


def open_npz(path: str, name: str, argument: str) -> Source:
    """One array of an .npz file, of which the directory and the array's header have been read."""
    stamp = look(path).stamp
    with open_file(path) as file:
        known = file.read(4) == ENTRY_MAGIC
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, OSError) as error:
            raise broken(path, argument, error, known=known, what="an .npz file") from error
        entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        entry = entries[chosen(entries, name.removesuffix(".npy"), path, argument)]
        shown = f"{path}#{entry.filename.removesuffix('.npy')}"
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & ENCRYPTED:
            with unpacking(shown, argument), archive.open(entry) as stream:
                header = npy_at(stream, shown, path, argument, stamp)
            check_compressed(header, argument)
            return CompressedSource(shown, header.shape, header.dtype, path, entry.filename, stamp)
        start = stored_at(file, entry, shown)
        source = npy_at(file, shown, path, argument, stamp)
        if not source.dtype.hasobject:
            check_size(shown, source.offset - start + math.prod(source.shape) * source.dtype.itemsize, entry.file_size)
            check_size(path, start + entry.file_size, stamp[0])
        return source


def stored_at(file: IO[bytes], entry: zipfile.ZipInfo, shown: str) -> int:
    """Where the bytes of a stored entry begin, at which `file` is left."""
    file.seek(entry.header_offset)
    head = file.read(30)  # the entry's own header, whose two last lengths may differ from the directory's
    if len(head) < 30 or head[:4] != ENTRY_MAGIC:
        raise ReadError(f"evaluate: {shown} is corrupt: the file's directory leads astray. Copy or write it again.")
    return file.seek(entry.header_offset + 30 + sum(struct.unpack("<HH", head[26:])))


@contextmanager
def unpacking(shown: str, argument: str) -> Iterator[None]:
    """Name the array in what zipfile raises: a RuntimeError where a password is asked for."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError) as error:
        raise broken(shown, argument, error, known=True, what="an .npz file") from error


def check_compressed(header: Source, argument: str) -> None:
    """Raise ValueError where an array is too large to be decompressed by each task."""
    size = math.prod(header.shape) * header.dtype.itemsize
    if size > COMPRESSED_BYTES:
        rule = f"have at most {COMPRESSED_BYTES} bytes where it is compressed, for each task reads them all"
        raise ValueError(refusal(argument, rule, f"{size} in {header.path}", "Convert it with numpy.save."))


def open_safetensors(path: str, name: str, argument: str) -> MappedSource:
    """One tensor of a safetensors file, of which the header has been read."""
    stamp = look(path).stamp
    tensors, data = safetensors_header(path, stamp[0], argument)
    name = chosen(tensors, name, path, argument)
    try:
        entry = tensors[name]
        shape, (start, stop) = entry["shape"], entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, start, stop)):
            raise ValueError("a size or an offset that is no natural number")
        code = str(entry["dtype"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(malformed(path, argument, f"{name} has {type(error).__name__}: {error}")) from error
    if code not in SAFE_DTYPES:
        rule, remedy = f"be one of {', '.join(SAFE_DTYPES)}", "Save it as one of them."
        raise TypeError(refusal(argument, rule, f"{code} in {path}#{name}", remedy))
    dtype = named_dtype(SAFE_DTYPES[code])
    if stop - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(malformed(path, argument, f"{name} has {stop - start} bytes for {code}{shape}"))
    check_size(path, data + max(stop, last_byte(tensors)), stamp[0])
    return MappedSource(f"{path}#{name}", tuple(shape), dtype, path, data + start, "C", stamp)


def safetensors_header(path: str, size: int, argument: str) -> tuple[dict[str, Any], int]:
    """What the header says of each tensor, and where the bytes begin that it counts from."""
    with open_file(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > HEADER_BYTES:
            raise ValueError(malformed(path, argument, f"a header of {length} bytes in a file of {size}"))
        check_size(path, 8 + length, size)
        text = file.read(length)
    try:
        header = json.loads(text.decode(), object_pairs_hook=without_repeats)
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
    except (ValueError, RecursionError) as error:
        raise ValueError(malformed(path, argument, error)) from error
    header.pop("__metadata__", None)
    return header, 8 + length


def last_byte(tensors: dict[str, Any]) -> int:
    """Where the last tensor ends, as far as the header can be understood."""
    ends = [entry.get("data_offsets") for entry in tensors.values() if isinstance(entry, dict)]
    return max(end[-1] for end in ends if isinstance(end, list) and end and type(end[-1]) is int)


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs as a dict; ValueError where a key comes twice, for then no two readers agree."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name comes twice")
    return dict(pairs)


def malformed(path: str, argument: str, error: object) -> str:
    """The message of a safetensors file whose header cannot be."""
    return refusal(argument, "be a safetensors file where its name says so", f"{path} ({error})", "Write it again.")
