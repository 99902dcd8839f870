"""The work of a pass: chunks of rows, in groups that follow each other, and the fold of their states.

No group is made before it is handed to a scheduler, and none is kept after: what a pass takes beside its chunks does
not grow with their number. Rows that a graph of Dask's makes are the exception, for that graph is there as a whole.
Leaves out what runs the groups (``schedulers.py``), and what is done with the rows of a chunk (``tasks.py``).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from xent.evaluation.engine.memory import MERGED_AT_ONCE
from xent.evaluation.engine.tasks import Job, run_chunks
from xent.evaluation.sources.source import Source
from xent.evaluation.statistics.state import merge_all

CHUNK = "xent-chunk"
GROUP_CHUNKS, GROUP_BYTES = 16, 2**26
"""The most chunks of a group, and the bytes of predictions over which it has one chunk."""
GROUPS_OF_A_THREAD = 4
"""How many groups a thread gets at the least, so that all end at the same time; those of few chunks have one each."""

Graph = dict[Any, Any]
Progress = Callable[[int], None]
"""Called with the number of rows of each chunk as it finishes."""


class Group(NamedTuple):
    """Chunks that follow each other: the rows at which they begin, and the end; and the part of each source in all."""

    bounds: Sequence[int]
    parts: list[Any]


@dataclass(frozen=True, eq=False)
class Work:
    """The chunks of rows between ``bounds``, each of a part of every source, None for no source.

    ``shared`` is what all groups share, such as a classifier, by names that stand for it in their parts.
    """

    job: Job
    bounds: Sequence[int]
    sources: Sequence[Source | None]
    shared: dict[str, Any] = field(default_factory=dict, init=False)

    @property
    def is_of_dask(self) -> bool:
        """Whether a graph of Dask's makes rows of a source."""
        return any(source is not None and source.is_of_dask for source in self.sources)

    @property
    def is_remote(self) -> bool:
        """Whether rows are read from a server."""
        return any(source is not None and source.is_remote for source in self.sources)

    @property
    def tasks(self) -> int:
        """The number of chunks."""
        return len(self.bounds) - 1

    def groups(self, threads: int) -> Iterator[Group]:
        """The groups in their order, for so many threads."""
        largest = max(1, min(GROUP_CHUNKS, self.tasks // (GROUPS_OF_A_THREAD * threads)))
        source = self.sources[0]
        most_rows = 0 if source is None else GROUP_BYTES // max(1, source.row_bytes)
        first = 0
        while first < self.tasks:
            last = first + 1
            while last < min(first + largest, self.tasks) and self.bounds[last + 1] - self.bounds[first] <= most_rows:
                last += 1
            bounds = self.bounds[first : last + 1]
            yield Group(bounds, self.parts([bounds[0], bounds[-1]]))
            first = last

    def parts(self, ends: list[int]) -> list[Any]:
        """The part of each source that has the rows between two ends."""
        parts: list[Any] = []
        for source in self.sources:
            graph, (part,) = ({}, [None]) if source is None else source.parts(ends)
            for name in graph.keys() - self.shared.keys():
                self.shared[name] = resolved(graph[name], self.shared)
            parts.append(part)
        return parts

    def graph(self, first: int = 0, last: int | None = None) -> tuple[Graph, Any]:
        """A Dask graph of the chunks from `first` to `last`, a task each, and its root: their merged state."""
        bounds = [*self.bounds[first : None if last is None else last + 1]]
        graph: Graph = {}
        columns = []
        run = uuid.uuid4().hex  # subtle: a cluster takes equal keys for the same task, whoever sends them
        for source in self.sources:
            own_graph, parts = ({}, [None] * (len(bounds) - 1)) if source is None else source.parts(bounds)
            graph |= own_graph
            columns.append(parts)
        keys = [(CHUNK, run, index) for index in range(first, first + len(bounds) - 1)]
        for key, rows, *parts in zip(keys, pairwise(bounds), *columns, strict=True):
            graph[key] = (run_chunks, self.job, [*rows], *parts)
        level = 0
        while len(keys) > 1 or level == 0:
            groups = [keys[i : i + MERGED_AT_ONCE] for i in range(0, len(keys), MERGED_AT_ONCE)] or [[]]
            keys = [(f"xent-merge-{level}", run, i) for i in range(len(groups))]
            graph |= {key: (merge_all, group) for key, group in zip(keys, groups, strict=True)}
            level += 1
        return graph, keys[0]

    def rows_of(self, key: Any) -> int:
        """The rows of a chunk by the key of its task in the graph; 0 for that of another task."""
        if not (isinstance(key, tuple) and key[0] == CHUNK):
            return 0
        start, stop = self.bounds[key[-1] : key[-1] + 2]
        return stop - start


Compute = Callable[[Work], Any]
"""Does the work of a pass: it returns the merged state."""


class Fold:
    """The state of all groups, in a tree: so many of one size are merged at once that none is merged often."""

    def __init__(self) -> None:
        self.levels: list[list[Any]] = [[]]

    def add(self, state: Any) -> None:
        """Add the state of a group, in any order."""
        for level in self.levels:
            level.append(state)
            if len(level) < MERGED_AT_ONCE:
                return
            state = merge_all(level)
            level.clear()
        self.levels.append([state])

    def state(self) -> Any:
        """The merged state."""
        return merge_all(state for level in self.levels for state in level)


def run_group(
    bounds: Sequence[int], parts: Sequence[Any], shared: tuple[Job, dict[str, Any]], tell: Progress | None = None
) -> Any:
    """The state of a group; ``shared`` are the job and what the parts share."""
    job, known = shared
    return run_chunks(job, bounds, *(resolved(part, known) for part in parts), tell=tell)


def resolved(part: Any, shared: dict[str, Any]) -> Any:
    """What a task of Dask's, or a name of what is shared, stands for; anything else as it is."""
    if isinstance(part, tuple) and part and callable(part[0]):
        return part[0](*(resolved(each, shared) for each in part[1:]))
    return shared.get(part, part) if isinstance(part, str) else part
