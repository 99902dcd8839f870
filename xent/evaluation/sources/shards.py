"""Sets in many files: the rows of one follow those of the other.

Files are taken in natural order (part-2 before part-10). All have one dtype and one number of classes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from xent.evaluation.sources.source import Part, Source, nearest_edge, refusal

OPENED_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class ShardedSource(Source):
    """Sources whose rows follow each other; ``starts`` are the rows at which they begin, and the end."""

    shards: tuple[Source, ...]
    starts: tuple[int, ...]

    def bounds(self, chunk_bytes: int) -> list[int]:
        edges = [0]
        for shard, start in zip(self.shards, self.starts, strict=False):
            edges += [start + bound for bound in shard.bounds(chunk_bytes)[1:]]
        return self.bounds_along(edges, chunk_bytes)

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        carried = ShardedSource(self.path, self.shape, self.dtype, tuple(s.carried() for s in self.shards), self.starts)
        return {}, [carried.part(start, stop) for start, stop in pairwise(bounds)]

    def part(self, start: int, stop: int) -> Part:
        """These rows, as a source that knows the files that they are in and no others."""
        first = bisect_right(self.starts, start) - 1
        last = max(bisect_left(self.starts, stop), first + 1)
        shards = self.shards[first:last]
        return Part(shards[0] if len(shards) == 1 else together(self.path, shards), start - self.starts[first])

    def edge(self, start: int, stop: int) -> int | None:
        edge = nearest_edge(self.starts, start, stop)
        if edge is not None:
            return edge
        first = bisect_right(self.starts, start) - 1
        inside = self.shards[first].edge(start - self.starts[first], stop - self.starts[first])
        return None if inside is None else inside + self.starts[first]

    def fingerprint(self) -> Any:
        return [shard.fingerprint() for shard in self.shards]

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Rows of several files."""
        made = [
            shard.read(max(start - first, 0), min(stop, last) - first)
            for shard, (first, last) in zip(self.shards, pairwise(self.starts), strict=True)
            if max(start, first) < min(stop, last)
        ]
        return np.concatenate(made)

    def check_complete(self) -> None:
        """Raise ReadError where parts of a shard were never written, or are lost."""
        for shard in self.shards:
            shard.check_complete()


def together(path: str | None, shards: Sequence[Source]) -> ShardedSource:
    """The rows of all."""
    starts = tuple(accumulate((shard.shape[0] for shard in shards), initial=0))
    shape, dtype = (starts[-1], *shards[0].shape[1:]), shards[0].dtype.newbyteorder("=")
    return ShardedSource(path, shape, dtype, tuple(shards), starts)


def open_shards(path: str, paths: Sequence[str], argument: str, opened: Callable[[str, str], Source]) -> Source:
    """The shards at `paths`, all of them of one dtype and number of classes."""
    with ThreadPoolExecutor(OPENED_AT_ONCE) as pool:
        shards = list(pool.map(lambda shard: opened(shard, argument), paths))
    for shard in shards:
        if not shard.shape or kind(shard) != kind(shards[0]):
            rule = "have shards of one dtype and number of classes"
            raise ValueError(refusal(argument, rule, f"{shards[0]} and {shard}", "Save them alike."))
    return together(path, shards)


def kind(shard: Source) -> tuple[Any, ...]:
    """What the shards of a set have in common."""
    return shard.dtype.newbyteorder("="), *shard.shape[1:]
