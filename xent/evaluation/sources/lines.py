"""Lines of text files, plain or gzipped: where in a file they are, so that a task reads its own.

A file is read once, in blocks, when it is opened: rows can be counted in no other way. What is kept of it are the
places of some lines, megabytes apart, and of a gzipped one the states of its decompressor there. A row is a line that
is not blank; where fields may be quoted, a line feed within quotation marks ends no row.
Leaves out what a line says.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.messages import MalformedError, ReadError
from xent.evaluation.sources.storage import Stamp, open_file, suffix

BLOCK_BYTES, PIECE_BYTES, PIECE_LINES = 2**20, 2**24, 64
"""What is read at once; a piece has one block at least, and as many as have so many lines or bytes."""
LONGEST_LINE = 2**26
STATES_APART = 2**23
"""Bytes of text between two states of a decompressor, each of which takes some 50 kB."""
LINE_FEED, RETURN, QUOTE = b'\n\r"'


class Lines(NamedTuple):
    """Whole lines: their bytes, and the number of the first row in them, from 0."""

    text: bytes
    row: int
    ends: NDArray[Any]
    """Where each row ends, beyond its line feed, counted from the first byte."""
    numbers: NDArray[Any]
    """The number of each row's line."""


@dataclass(frozen=True)
class LineIndex:
    """Where pieces of whole lines begin, and the end: in bytes of text, in rows and in lines.

    ``states`` are decompressors of a gzipped file as they were at some place of it: the byte of the text, that of the
    file, and the decompressor itself, which may only be copied.
    """

    offsets: tuple[int, ...]
    rows: tuple[int, ...]
    lines: tuple[int, ...]
    is_quoted: bool
    states: tuple[tuple[int, int, Any], ...] = field(default=(), repr=False)


def lines_of(path: str, stamp: Stamp, start: int, stop: int, *, quoted: bool) -> Iterator[Lines]:
    """Rows start to stop, in pieces of some megabytes."""
    index = line_index(path, stamp, quoted=quoted)
    pieces = range(bisect_right(index.rows, start) - 1, bisect_left(index.rows, stop))
    if not pieces:
        return
    with text_of(path, index, index.offsets[pieces[0]]) as text:
        for piece in pieces:
            size = index.offsets[piece + 1] - index.offsets[piece]
            data = text.read(size)
            if len(data) != size:
                raise ReadError(
                    f"evaluate: {path} is truncated: it ends {size - len(data)} bytes early. Copy it again."
                )
            first, last = max(start - index.rows[piece], 0), stop - index.rows[piece]
            starts, ends, numbers = (each[first:last] for each in row_places(data, quoted=index.is_quoted))
            if len(ends):
                begin, numbers = int(starts[0]), index.lines[piece] + numbers
                yield Lines(data[begin : int(ends[-1])], index.rows[piece] + first, ends - begin, numbers)


def row_places(data: bytes, *, quoted: bool) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Where each row of whole lines begins and ends, and the number of its line, from 0."""
    feeds = line_feeds(data, quoted=quoted, inside=False)[0]
    ends = feeds + 1
    if not len(ends) or ends[-1] < len(data):
        ends = np.append(ends, len(data))  # the last line of a file may have no end
    starts = np.append(0, ends[:-1])
    codes = np.frombuffer(data, np.uint8)
    sizes = ends - starts
    first = codes[np.minimum(starts, len(codes) - 1)]
    blank = (sizes == 0) | ((sizes == 1) & ((first == LINE_FEED) | (first == RETURN)))
    blank |= (sizes == 2) & (first == RETURN) & (codes[np.minimum(starts + 1, len(codes) - 1)] == LINE_FEED)
    numbers = np.arange(len(ends))
    if quoted and QUOTE in data:  # a row of several lines
        numbers = np.searchsorted(np.flatnonzero(codes == LINE_FEED), starts)
    return starts[~blank], ends[~blank], numbers[~blank]


def line_feeds(data: bytes, *, quoted: bool, inside: bool) -> tuple[NDArray[Any], bool]:
    """Where lines end in some bytes, and whether these end inside quotation marks, as they began if `inside`."""
    codes = np.frombuffer(data, np.uint8)
    feeds = np.flatnonzero(codes == LINE_FEED)
    if not quoted or (not inside and QUOTE not in data):
        return feeds, inside
    marks = np.cumsum(codes == QUOTE) + inside
    return feeds[marks[feeds] % 2 == 0], bool(marks[-1] % 2) if len(marks) else inside


@lru_cache(maxsize=16)
def line_index(path: str, stamp: Stamp, *, quoted: bool) -> LineIndex:
    """The places of lines in the file as it was at `stamp`; MalformedError if it has none.

    A quotation mark that is never closed is one of the text.
    """
    offsets, rows, lines, inside = [0], [0], [0], False
    states: list[tuple[int, int, Any]] = []
    pending, whole, held = b"", 0, 0  # of the bytes that wait the first `whole` are so many lines
    with open_text(path, states) as text:
        while block := text.read(BLOCK_BYTES):
            feeds, inside = line_feeds(block, quoted=quoted, inside=inside)
            whole = len(pending) + int(feeds[-1]) + 1 if len(feeds) else whole
            pending, held = pending + block, held + len(feeds)
            if held >= PIECE_LINES or whole >= PIECE_BYTES:
                add_piece(pending[:whole], offsets, rows, lines, quoted=quoted)
                pending, whole, held = pending[whole:], 0, 0
            if len(pending) - whole > LONGEST_LINE:
                if quoted:
                    break
                message = f"{path} has a line of more than {LONGEST_LINE:,} bytes, line {lines[-1] + held + 1}"
                raise MalformedError(f"evaluate: {message}. Is it a file of text?")
    if quoted and (inside or len(pending) - whole > LONGEST_LINE):
        return line_index(path, stamp, quoted=False)
    if pending:
        add_piece(pending, offsets, rows, lines, quoted=quoted)
    return LineIndex(tuple(offsets), tuple(rows), tuple(lines), quoted, tuple(states))


def add_piece(data: bytes, offsets: list[int], rows: list[int], lines: list[int], *, quoted: bool) -> None:
    """Count the rows and the lines of some whole lines."""
    offsets.append(offsets[-1] + len(data))
    rows.append(rows[-1] + len(row_places(data, quoted=quoted)[0]))
    lines.append(lines[-1] + data.count(b"\n"))


# ---------------------------------------------------------------------------------------------------------------------
# Plain and gzipped text


@contextmanager
def open_text(path: str, states: list[tuple[int, int, Any]]) -> Iterator[Any]:
    """The bytes of the text from the first on; of a gzipped file states of the decompressor are added to `states`."""
    with open_file(path) as file:
        yield Inflated(file, path, states=states) if suffix(path).endswith(".gz") else file


@contextmanager
def text_of(path: str, index: LineIndex, offset: int) -> Iterator[Any]:
    """The bytes of the text from this one on."""
    with open_file(path) as file:
        if not suffix(path).endswith(".gz"):
            file.seek(offset)
            yield file
            return
        place = bisect_right(index.states, offset, key=lambda state: state[0]) - 1
        at, position, decompressor = index.states[place] if place >= 0 else (0, 0, None)
        file.seek(position)
        text = Inflated(file, path, decompressor.copy() if decompressor else None)
        text.skip(offset - at)
        yield text


class Inflated:
    """The text of a gzipped file from a place on, which may be several such files one after the other.

    zlib compares the checksum of each. ``states`` gets a copy of the decompressor now and then.
    """

    def __init__(
        self, file: BinaryIO, path: str, decompressor: Any = None, *, states: list[tuple[int, int, Any]] | None = None
    ) -> None:
        self.file, self.path, self.states = file, path, states
        self.decompressor = decompressor or zlib.decompressobj(wbits=31)
        self.is_between = decompressor is None
        self.ready, self.made = b"", 0

    def read(self, size: int) -> bytes:
        """So many bytes of text, fewer at its end."""
        while len(self.ready) < size and self.more():
            pass
        data, self.ready = self.ready[:size], self.ready[size:]
        return data

    def skip(self, size: int) -> None:
        """Leave out so many bytes of text."""
        while size:
            size -= len(self.read(min(size, BLOCK_BYTES))) or size

    def more(self) -> bool:
        """Whether there is more of the file, of which a little has been decompressed."""
        data = self.file.read(2**14)
        if not data:
            if not self.is_between:
                raise ReadError(f"evaluate: {self.path} is truncated: its compressed data has no end. Copy it again.")
            return False
        try:
            while data:
                self.ready += (made := self.decompressor.decompress(data))
                self.made += len(made)
                data, self.is_between = b"", False
                if self.decompressor.eof:
                    data, self.is_between = self.decompressor.unused_data.lstrip(b"\0"), True
                    self.decompressor = zlib.decompressobj(wbits=31)
        except zlib.error as error:
            message = f"evaluate: {self.path} is corrupt, or no gzipped file ({error}). Copy or write it again."
            raise ReadError(message) from error
        if self.states is not None and self.made - (self.states[-1][0] if self.states else 0) >= STATES_APART:
            self.states.append((self.made, self.file.tell(), self.decompressor.copy()))
        return True
