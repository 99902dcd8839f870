"""Sets in many files: the rows of one follow those of the other.

Files are taken in natural order (part-2 before part-10). All have one dtype and one number of classes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.messages import SHOWN_NAMES, refusal
from xent.evaluation.sources.source import MOST_ROWS, Source, SourcePart, native, nearest_edge
from xent.evaluation.sources.storage_options import reading_threads
from xent.evaluation.sources.unopened import UnopenedShards

OPENED_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class ShardedSource(Source):
    """Sources whose rows follow each other; ``starts`` are the rows at which they begin, and the end."""

    shards: Sequence[Source]
    starts: Sequence[int]

    def bounds(self, chunk_bytes: int) -> list[int]:
        edges, most = [0], min(chunk_bytes // max(1, self.row_bytes), MOST_ROWS)
        for number, (start, stop) in enumerate(pairwise(self.starts)):
            if stop - start <= most:  # it is one chunk at the most, and need not be asked
                edges.append(stop)
            else:
                edges += [start + bound for bound in self.shards[number].bounds(chunk_bytes)[1:]]
        return self.bounds_along(edges, chunk_bytes)

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        return {}, [self.part(start, stop) for start, stop in pairwise(bounds)]

    def part(self, start: int, stop: int) -> SourcePart:
        """These rows, of a source that has the files that they are in and no others."""
        first = bisect_right(self.starts, start) - 1
        last = max(bisect_left(self.starts, stop), first + 1)
        shards = [shard.for_tasks() for shard in self.shards[first:last]]
        return SourcePart(shards[0] if len(shards) == 1 else joined(self.path, shards), start - self.starts[first])

    def edge(self, start: int, stop: int) -> int | None:
        edge = nearest_edge(self.starts, start, stop)
        if edge is not None:
            return edge
        first = bisect_right(self.starts, start) - 1
        inside = self.shards[first].edge(start - self.starts[first], stop - self.starts[first])
        return None if inside is None else inside + self.starts[first]

    def fingerprint(self) -> Any:
        fingerprints = [shard.fingerprint() for shard in self.shards]
        return None if None in fingerprints else fingerprints

    def columns(self) -> list[str]:
        return self.shards[0].columns() if self.shards else []

    def files(self) -> list[str]:
        return [path for shard in self.shards for path in shard.files()]

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows of several files."""
        return np.concatenate(self.each(self.parts_of(start, stop), SourcePart.read))

    def read_with_nulls(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        pieces = self.each(self.parts_of(start, stop), SourcePart.read_with_nulls)
        nulls = [np.zeros(len(block), bool) if is_null is None else is_null for block, is_null in pieces]
        return np.concatenate([block for block, _ in pieces]), np.concatenate(nulls)

    def each(self, parts: list[tuple[SourcePart, int]], read: Callable[[SourcePart, int, int], Any]) -> list[Any]:
        """What is read of each part; of several files on servers at once."""
        if len(parts) == 1 or not self.is_remote:
            return [read(part, 0, rows) for part, rows in parts]
        with reading_threads(min(len(parts), OPENED_AT_ONCE)) as pool:
            return list(pool.map(lambda each: read(each[0], 0, each[1]), parts))

    def parts_of(self, start: int, stop: int) -> list[tuple[SourcePart, int]]:
        """The parts in which these rows are, and how many are in each."""
        return [
            (SourcePart(shard, max(start - first, 0)), min(stop, last) - max(start, first))
            for shard, (first, last) in zip(self.shards, pairwise(self.starts), strict=True)
            if max(start, first) < min(stop, last)
        ]

    def check_complete(self, *, zeros_ok: bool = False) -> int:
        if isinstance(self.shards, UnopenedShards):  # of files that have no chunks of their own
            return 0
        return sum(shard.check_complete(zeros_ok=zeros_ok) for shard in self.shards)


def joined(path: str | None, shards: Sequence[Source]) -> ShardedSource:
    """The rows of all shards, one after the other."""
    starts = tuple(accumulate((shard.shape[0] for shard in shards), initial=0))
    shape, dtype = (starts[-1], *shards[0].shape[1:]), native(shards[0].dtype)
    return ShardedSource(path, shape, dtype, tuple(shards), starts)


def open_shards(path: str, paths: Sequence[str], argument: str, open_shard: Callable[[str], Source]) -> Source:
    """The shards at `paths` that have rows; ValueError unless all have one dtype, number of classes and columns."""

    def opened(shard_path: str) -> tuple[Source, list[str]]:
        shard = open_shard(shard_path)
        return shard, shard.columns() if len(shard.shape) > 1 else []

    with reading_threads(OPENED_AT_ONCE) as pool:
        all_opened = list(pool.map(opened, paths))
    # a file without rows may lack the types and the lengths of lists that rows would tell
    shards, columns = zip(*([one for one in all_opened if one[0].shape[:1] != (0,)] or all_opened), strict=True)
    for shard, names in zip(shards, columns, strict=True):
        if not shard.shape or row_type(shard) != row_type(shards[0]):
            rule = "have shards of one dtype and number of classes"
            raise ValueError(refusal(argument, rule, f"{shards[0]} and {shard}", "Save them alike."))
        if names != columns[0]:
            different = [name for name, first in zip(names, columns[0], strict=False) if name != first]
            got = f"{shard} with {different[0] if different else len(names)} in another place than {shards[0]}"
            remedy = f"Pass {path.rpartition('#')[0]}#{','.join(columns[0])}."
            remedy = remedy if len(columns[0]) <= SHOWN_NAMES else "List them in one order, as in #a,b,c."
            raise ValueError(refusal(argument, "have shards with the same columns in one order", got, remedy))
    return joined(path, shards)


def row_type(shard: Source) -> tuple[Any, ...]:
    """The dtype and the shape of a row."""
    return native(shard.dtype), *shard.shape[1:]
