"""Shards that their tasks open: before, only the path, the rows, the size and the stamp of each are known.

The rows are those that an index tells (``shard_index.py``), or for arrays without a header of their own length in the
middle, .npy and raw numbers, those that the sizes of a listing tell. Each task finds out whether they are so.
Leaves out sets whose lengths neither tells, whose shards are all opened (``shards.py``).
"""

from __future__ import annotations

import importlib
import os
import stat
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from xent.checks import flag
from xent.evaluation.sources.messages import InputError, ReadError, refusal
from xent.evaluation.sources.npy import MappedSource
from xent.evaluation.sources.shard_index import Entry, entries_of, index_command
from xent.evaluation.sources.source import Source, native
from xent.evaluation.sources.storage import TOLD, Status, is_url, status

ALL_CHECKED: ContextVar[bool] = ContextVar("check_shards", default=False)
FEW = 64
"""How many shards a set may have for all of them to be opened before its run, which takes a moment."""
MANY = 10_000
"""How many shards are opened before a run, where nothing tells their lengths."""
UNALIKE = "Save them alike, or pass check_shards=True, which opens all shards before the run."


@contextmanager
def shards_checked(is_wanted: bool) -> Iterator[None]:
    """Open every shard of the sets that are opened in the with block, if it is wanted; TypeError unless a bool."""
    token = ALL_CHECKED.set(flag("evaluate", "check_shards", is_wanted) or ALL_CHECKED.get())
    try:
        yield
    finally:
        ALL_CHECKED.reset(token)


@dataclass(frozen=True, eq=False)
class UnopenedShard(Source):
    """Rows of a file that is opened when they are read.

    ``size`` is its bytes, ``tag`` what changes when it does, empty if nothing has told it, ``checksum`` that of its
    index, ``remedy`` what to do if it is not what is known of it.
    """

    path: str
    file: str
    size: int
    tag: int | str
    checksum: str
    names: tuple[str, ...]
    argument: str
    allowed: tuple[str, ...]
    remedy: str

    def opened(self) -> Source:
        """The source of the file.

        Raises
        ------
        ReadError
            If it cannot be opened.
        InputError
            If it is not what is known of it.
        """
        rule = "have shards that are like its first, and as its listing or its index tells"
        open_path = importlib.import_module("xent.evaluation.sources.opening").open_path
        told = TOLD.get()
        if told is not None and self.tag and is_url(self.file):  # its server is not asked what a listing has told
            told.files.setdefault(self.file, Status((self.size, self.tag), False))
        try:
            source: Source = open_path(self.path, self.argument, self.allowed)
            size = status(self.file).size
        except FileNotFoundError as error:
            raise ReadError(f"evaluate: {self.file} is not there. Every worker must see it at this path.") from error
        except ReadError:
            raise
        except (TypeError, ValueError) as error:  # text, no such column, a folder of that name
            got = f"{self.path} ({str(error).removeprefix('evaluate: ')})"
            raise InputError(refusal(self.argument, rule, got, self.remedy)) from error
        if source.shape != self.shape or native(source.dtype) != native(self.dtype):
            got = f"{source}, and not {self.shown_dtype}[{', '.join(map(str, self.shape))}]"
        elif size != self.size:
            got = f"{source} of {size:,} bytes, and not {self.size:,}"
        elif self.names and tuple(source.columns()) != self.names:
            got = f"{source} with other columns than the first, or in another order"
        else:
            return source
        raise InputError(refusal(self.argument, rule, got, self.remedy))

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self.opened().read(start, stop)

    def read_with_nulls(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        return self.opened().read_with_nulls(start, stop)

    @property
    def has_nulls(self) -> bool:
        return True

    def edge(self, start: int, stop: int) -> int | None:
        try:
            return self.opened().edge(start, stop)
        except ReadError:  # all its rows are lost
            return None

    def columns(self) -> list[str]:
        return [*self.names]

    def files(self) -> list[str]:
        return [] if is_url(self.file) else [self.file]

    def fingerprint(self) -> Any:
        if not (self.tag or self.checksum):
            return None
        return [self.shown, list(self.shape), self.shown_dtype, self.size, self.checksum, self.tag]


@dataclass(frozen=True, eq=False)
class UnopenedShards(Sequence[Source]):
    """The shards of a set, each made when it is asked for; the first is open.

    ``starts`` are the rows at which they begin, and the end; ``fragment`` is what comes after each path. ``remedy`` is
    that of a shard which is not what is known of it.
    """

    first: Source
    paths: Sequence[str]
    fragment: str
    starts: Sequence[int]
    sizes: Sequence[int]
    tags: Sequence[int | str]
    checksums: Sequence[str] | None
    argument: str
    allowed: tuple[str, ...]
    remedy: str

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Source: ...
    @overload
    def __getitem__(self, index: slice) -> list[Source]: ...

    def __getitem__(self, index: int | slice) -> Source | list[Source]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index == 0:
            return self.first
        shape = (self.starts[index + 1] - self.starts[index], *self.first.shape[1:])
        names = tuple(self.first.columns()) if len(shape) > 1 else ()
        path = self.paths[index]
        facts = path + self.fragment, shape, native(self.first.dtype), path, self.sizes[index], self.tags[index]
        told = "" if self.checksums is None else self.checksums[index], names, self.argument, self.allowed, self.remedy
        return UnopenedShard(*facts, *told, storage_options=self.first.storage_options)


def unopened_shards(
    path: str,
    paths: Sequence[str],
    name: str,
    argument: str,
    allowed: Sequence[str],
    open_shard: Callable[[str], Source],
) -> UnopenedShards | None:
    """The shards at some paths, of which only the first is opened; None if all have to be.

    Parameters
    ----------
    path : str
        What the user has named, a folder or a glob.
    paths : sequence of str
    name : str
        Of an array of each, after the #.
    argument, allowed, open_shard
        As :func:`open_shards` takes them.

    Raises
    ------
    ValueError
        If a shard is not in the index of the set, or its size is that of no whole number of rows; or shards are many
        and nothing tells their lengths.
    """
    if ALL_CHECKED.get() or len(paths) <= FEW:
        return None
    entries = entries_of(path, paths, name, argument)
    first, remedy, checksums = open_shard(paths[0]), UNALIKE, None
    fragment = f"#{name}" if name else ""
    if entries is not None:
        check_entries(first, paths, entries, argument, index_command(path, name))
        rows, sizes = (array("q", column) for column in ([each.rows for each in entries], [e.size for e in entries]))
        # the checksum is the index's: a file that is written again has another tag alone
        checksums = [entry.checksum for entry in entries]
        tags: Sequence[int | str] = [tag_of(shard, each.size) for shard, each in zip(paths, entries, strict=True)]
        remedy = f"{UNALIKE} If it has changed, make the index anew, with: {index_command(path, name)}."
    elif isinstance(first, MappedSource) and first.shape and first.row_bytes and not first.dtype.hasobject:
        sizes, tags = told_of(paths)
        rows = rows_by_size(first, paths, sizes, argument)
    elif len(paths) <= MANY:
        return None
    else:
        rule = f"tell the lengths of its shards where they are more than {MANY:,}"
        once = f"Make an index of it, once, with: {index_command(path, name)}"
        got = f"{len(paths):,} in {path}{fragment}"
        raise ValueError(refusal(argument, rule, got, f"{once}; or pass check_shards=True, which opens each."))
    starts = array("q", accumulate(rows, initial=0))
    if rows[0] != first.shape[0]:
        got = f"{first}, and not {rows[0]:,} rows"
        anew = f"Make its index anew, with: {index_command(path, name)}."
        raise ValueError(refusal(argument, "have shards as its index tells", got, anew))
    return UnopenedShards(first, paths, fragment, starts, sizes, tags, checksums, argument, tuple(allowed), remedy)


def tag_of(path: str, size: int) -> int | str:
    """The time of change of a local file, or the tag that a listing has told of a URL of this size; else empty."""
    if is_url(path):  # a server is not asked for each of many files
        told = TOLD.get()
        found = told.files.get(path) if told is not None else None
        return found.stamp[1] if found is not None and found.size == size else ""
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:  # a link to nowhere, which its task names
        return ""


def told_of(paths: Sequence[str]) -> tuple[array[int], list[int | str]]:
    """The sizes of some files, and their times of change or tags."""
    sizes, tags = array("q"), list[int | str]()
    for path in paths:
        if is_url(path):
            size, tag = status(path).stamp  # a listing has told
        else:
            facts = os.stat(path)
            if not stat.S_ISREG(facts.st_mode):
                status(path)  # it says what is wrong with a pipe
            size, tag = facts.st_size, facts.st_mtime_ns
        sizes.append(size)
        tags.append(tag)
    return sizes, tags


def rows_by_size(first: MappedSource, paths: Sequence[str], sizes: Sequence[int], argument: str) -> array[int]:
    """The rows of arrays that are stored as the first is, each behind a header of the same size."""
    body = np.asarray(sizes, np.int64) - first.offset
    rows, rest = np.divmod(body, first.row_bytes)
    wrong = np.flatnonzero((rest != 0) | (body < 0))
    if first.file == first.path.partition("#")[0] and "#" in first.path:  # raw, whose shape is that which is named
        wrong = np.flatnonzero(rows != first.shape[0]) if not wrong.size else wrong
    if wrong.size:
        shard = int(wrong[0])
        rule = "have shards whose sizes are those of whole rows of the first"
        got = f"{paths[shard]} of {sizes[shard]:,} bytes beside {first}"
        raise ValueError(refusal(argument, rule, got, UNALIKE))
    return array("q", rows.tolist())


def check_entries(first: Source, paths: Sequence[str], entries: Sequence[Entry], argument: str, command: str) -> None:
    """Raise ValueError unless all entries of an index that have rows are of the dtype and the classes of the first.

    Also if the rows of one are no number; `command` makes the index anew.
    """
    wanted = str(native(first.dtype)), list(first.shape[1:])
    for path, entry in zip(paths, entries, strict=True):
        if type(entry.rows) is not int or entry.rows < 0:
            rule, got = "have an index of numbers of rows", f"{entry.rows!r} of {path}"
            raise ValueError(refusal(argument, rule, got, f"Make it anew, with: {command}."))
        if entry.rows and (entry.dtype, entry.row_shape) != wanted:
            got = f"{first} and {path} of {entry.dtype}[{', '.join(map(str, [entry.rows, *entry.row_shape]))}]"
            rule = "have shards of one dtype and number of classes"
            raise ValueError(refusal(argument, rule, got, "Save them alike."))
