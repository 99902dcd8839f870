""".npz files: several named arrays, each in one piece.

An array that is stored plainly is mapped, or read by ranges, as a .npy file is; a compressed one is read whole by
each task, up to a limit. Every length and offset is checked against the file's size before it is used.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.messages import ReadError, reader_error, reading, refusal, select_array
from xent.evaluation.sources.npy import check_size, npy_at
from xent.evaluation.sources.source import FileSource, Source
from xent.evaluation.sources.storage import check_unchanged, open_file, status

COMPRESSED_BYTES = 2**28  # of an array that must be read whole
ENTRY_MAGIC = b"PK\x03\x04"
ENCRYPTED = 1


@dataclass(frozen=True, eq=False)
class CompressedSource(FileSource):
    """A compressed array of an .npz file."""

    member: str

    def bounds(self, chunk_bytes: int) -> list[int]:
        return self.bounds_by(max(1, self.shape[0]), chunk_bytes)  # all at once

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """The rows, of an array that has been read whole."""
        check_unchanged(self.file, self.stamp)
        with reading(self.path, start, stop), open_file(self.file) as file, zipfile.ZipFile(file) as archive:
            with archive.open(self.member) as stream:
                header = npy_at(stream, self.path, self.file, "npz", self.stamp)
                size = self.shape[0] * self.row_bytes
                data = stream.read(size + 1)  # the byte too many makes zipfile compare its checksum
            if (header.shape, header.dtype, len(data)) != (self.shape, self.dtype, size):
                raise ReadError(f"evaluate: {self.path} is corrupt: its array and its header differ in size.")
            array = np.frombuffer(data, self.dtype).reshape(self.shape, order=header.order)  # type: ignore[call-overload]  # a plain str
            return np.ascontiguousarray(array[start:stop], self.dtype.newbyteorder("="))


def open_npz(path: str, name: str, argument: str) -> Source:
    """One array of an .npz file, of which the directory and the array's header have been read."""
    stamp = status(path).stamp
    with open_file(path) as file:
        known = file.read(4) == ENTRY_MAGIC
        try:
            archive = zipfile.ZipFile(file)
        except Exception as error:  # zipfile raises whatever its parts do
            raise reader_error(path, argument, error, known=known, what="an .npz file") from error
        entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        entry = entries[select_array(entries, name.removesuffix(".npy"), path, argument)]
        shown = f"{path}#{entry.filename.removesuffix('.npy')}"
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & ENCRYPTED:
            with unpacking(shown, argument), archive.open(entry) as stream:
                header = npy_at(stream, shown, path, argument, stamp)
            check_compressed(header, argument)
            return CompressedSource(shown, header.shape, header.dtype, path, stamp, entry.filename)
        with unpacking(shown, argument):
            start = seek_entry(file, entry, shown)
            source = npy_at(file, shown, path, argument, stamp)
        if not source.dtype.hasobject:
            check_size(shown, source.offset - start + math.prod(source.shape) * source.dtype.itemsize, entry.file_size)
            check_size(path, start + entry.file_size, stamp[0])
        return source


def seek_entry(file: IO[bytes], entry: zipfile.ZipInfo, shown: str) -> int:
    """The offset at which the bytes of a stored entry begin; the file is left there."""
    file.seek(entry.header_offset)
    head = file.read(30)  # the entry's own header, whose two last lengths may differ from the directory's
    if len(head) < 30 or head[:4] != ENTRY_MAGIC:
        raise ReadError(f"evaluate: {shown} is corrupt: the file's directory leads astray. Copy or write it again.")
    return file.seek(entry.header_offset + 30 + sum(struct.unpack("<HH", head[26:])))


@contextmanager
def unpacking(shown: str, argument: str) -> Iterator[None]:
    """Raise an error that names the array for an error of zipfile, which is a RuntimeError if there is a password."""
    try:
        yield
    except (ReadError, ModuleNotFoundError):
        raise
    except Exception as error:  # of zipfile or of a codec
        raise reader_error(shown, argument, error, known=True, what="an .npz file") from error


def check_compressed(header: Source, argument: str) -> None:
    """Raise ValueError if an array is too large to be decompressed by each task."""
    size = math.prod(header.shape) * header.dtype.itemsize
    if size > COMPRESSED_BYTES:
        rule = f"have at most {COMPRESSED_BYTES} bytes where it is compressed, for each task reads them all"
        raise ValueError(refusal(argument, rule, f"{size} in {header.path}", "Convert it with numpy.save."))
