"""Arrays that lie in a file as they lie in memory: .npy files, and raw ones whose dtype and shape are named.

On a local disk each task maps its own rows; of a URL it reads the range of them. Nothing is ever unpickled.
"""

from __future__ import annotations

import io
import math
import tokenize
from dataclasses import dataclass
from threading import Lock
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.messages import MalformedError, ReadError, reading, refusal
from xent.evaluation.sources.source import FileSource
from xent.evaluation.sources.storage import Stamp, check_unchanged, is_url, open_file, read_range, status
from xent.optional import require

MALFORMED = (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError, OverflowError)
"""What NumPy raises for a header that it cannot parse."""
HEADER_BYTES = 10_000  # the limit of NumPy itself
PARSING = Lock()
"""Held where NumPy parses a header: Python 3.11 counts the depth of its parser for all threads together."""
RAW_FORM = "dtype and shape after a #, as in logits.bin#float16,1000,256"


@dataclass(frozen=True, eq=False)
class MappedSource(FileSource):
    """An array at an offset of a file: ``order`` is "C", or "F" if its columns lie one after the other."""

    offset: int
    order: str

    def take(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        if is_url(self.file):
            return super().take(index)  # type: ignore[no-any-return]  # of what read returns
        check_unchanged(self.file, self.stamp)
        with reading(self.path, 0, self.shape[0]):
            mapped: Any = np.memmap(self.file, self.dtype, "r", self.offset, self.shape, self.order)  # type: ignore[call-overload]  # order is a plain str
            return np.asarray(mapped[index], self.dtype.newbyteorder("="))

    def piece(self, axis: int) -> int:
        return self.shape[axis] if is_url(self.file) else 1

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """A read-only view of the file's pages; a copy of a URL's, or of those in another byte or row order."""
        if not is_url(self.file):
            check_unchanged(self.file, self.stamp)
        native = self.dtype.newbyteorder("=")
        shape, offset = self.shape, self.offset
        with reading(self.path, start, stop):
            if self.order == "C":  # map these rows only, so that their pages are given back when the task is done
                shape, offset = (stop - start, *shape[1:]), offset + start * self.row_bytes
                start, stop = 0, stop - start
            if is_url(self.file):
                data = read_range(self.file, offset, offset + stop * self.row_bytes, self.stamp)
                return np.ascontiguousarray(np.frombuffer(data, self.dtype).reshape(shape), native)
            mapped: Any = np.memmap(self.file, self.dtype, "r", offset, shape, self.order)  # type: ignore[call-overload]  # order is a plain str
            return np.ascontiguousarray(mapped[start:stop], native)


def open_npy(path: str, name: str, argument: str) -> MappedSource:
    """A .npy file, of which only the header has been read."""
    if name:
        rule = "name no array of a .npy file, which has one"
        raise ValueError(refusal(argument, rule, f"{path}#{name}", f"Pass {path}."))
    stamp = status(path).stamp
    with open_file(path) as file:
        source = npy_at(file, path, path, argument, stamp)
    if not source.dtype.hasobject:
        check_size(path, source.offset + source.shape[0] * source.row_bytes if source.shape else 0, stamp[0])
    return source


def is_npy(path: str) -> bool:
    """Whether the first bytes of a file are those of a .npy file."""
    with open_file(path) as file:
        return file.read(6) == np.lib.format.MAGIC_PREFIX


def npy_at(
    stream: IO[bytes], path: str, file: str, argument: str, stamp: Stamp, remedy: str = "Use numpy.save."
) -> MappedSource:
    """The array whose .npy header begins where the `stream` of a `file` stands; `path` is how messages name it."""
    try:
        shape, is_fortran, dtype = npy_header(stream)
    except MALFORMED as error:
        raise MalformedError(refusal(argument, "be the path of a .npy file", f"{path} ({error})", remedy)) from error
    source = MappedSource(path, shape, dtype, file, stamp, stream.tell(), "F" if is_fortran else "C")
    check_order(source, argument)
    return source


def npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape, whether columns lie one after the other, and the dtype; any of MALFORMED if the header is no such."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its format version is {version}")
    size = stream.read(2 * version[0])
    length = int.from_bytes(size, "little")
    if length > HEADER_BYTES:  # NumPy would read it before it looks how long it is
        raise ValueError(f"its header has {length} bytes")
    header = io.BytesIO(size + stream.read(length))
    read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
    with PARSING:
        shape, is_fortran, dtype = read_header(header, max_header_size=HEADER_BYTES)
    if any(size < 0 for size in shape):
        raise ValueError(f"its shape is {shape}")
    return shape, is_fortran, dtype


def open_raw(path: str, name: str, argument: str) -> MappedSource:
    """A file of nothing but numbers in C order; `name` is their dtype and shape, such as ``float16,1000,256``."""
    dtype_name, *sizes = name.split(",")
    try:
        shape = tuple(int(size) for size in sizes)
        dtype = named_dtype(dtype_name)
    except (TypeError, ValueError):
        shape, dtype = (), np.dtype(object)
    if not shape or min(shape) < 0 or (dtype.kind not in "fiu" and dtype.name != "bfloat16"):
        rule, remedy = f"name the {RAW_FORM}", "Files of other formats have their own suffix."
        raise ValueError(refusal(argument, rule, f"{path}#{name}", remedy))
    file, size = status(path), math.prod(shape) * dtype.itemsize
    source = MappedSource(f"{path}#{name}", shape, dtype, path, file.stamp, 0, "C")
    if file.size != size:
        got = f"{file.size} bytes in {path}"
        remedy = "Correct the dtype and the shape, or write the file again."
        raise ValueError(refusal(argument, f"have the {size} bytes of {dtype}[{', '.join(sizes)}]", got, remedy))
    return source


def named_dtype(name: str) -> np.dtype[Any]:
    """The dtype of a name; bfloat16 is that of ml_dtypes."""
    if name == "bfloat16":
        name = require("ml_dtypes", "bfloat16", "bfloat16").bfloat16
    dtype: np.dtype[Any] = np.dtype(name)
    return dtype


def check_size(path: str, promised: int, size: int) -> None:
    """Raise ReadError if a file is shorter than its header says."""
    if size < promised:
        sizes = f"its header promises {promised} bytes and it has {size}"
        raise ReadError(f"evaluate: {path} is truncated: {sizes}. Copy or write it again.")


def check_order(source: MappedSource, argument: str) -> None:
    """Raise ValueError if the file is at a URL and its rows are not stored one after the other."""
    if source.order == "F" and is_url(source.file) and len(source.shape) > 1:
        remedy = "Download it, or save numpy.ascontiguousarray of it."
        raise ValueError(refusal(argument, "be stored by rows (in C order) at a URL", source, remedy))
