"""The engine of a pass: one task per chunk, a tree that merges what they return, and whatever runs the two.

Dask is the engine and nothing more: the tasks and the tree are written down as a plain graph, which any of its
schedulers runs. Leaves out what a task computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from xent.evaluation.sources import Source, require
from xent.evaluation.state import merge_all

MERGED_AT_ONCE = 16
CONNECT_SECONDS = 10
CHUNK = "xent-chunk"

Progress = Callable[[int], None]
"""Called with the number of rows of each chunk as it finishes."""
Graph = dict[Any, Any]


def graph_of(
    task: Callable[..., Any], options: Any, bounds: list[int], sources: Sequence[Source | None]
) -> tuple[Graph, Any]:
    """A Dask graph and the key of its root: the sum of ``task(options, first_row, *parts)`` over all chunks.

    The chunks begin at ``bounds``; a part is what a source gives of the rows of one, None where there is no source.
    """
    graph: Graph = {}
    columns = []
    for source in sources:
        needed, parts = ({}, [None] * (len(bounds) - 1)) if source is None else source.parts(bounds)
        graph |= needed
        columns.append(parts)
    keys = [(CHUNK, index) for index in range(len(bounds) - 1)]
    for key, first_row, *parts in zip(keys, bounds[:-1], *columns, strict=True):
        graph[key] = (task, options, first_row, *parts)
    level = 0
    while len(keys) > 1 or level == 0:
        groups = [keys[i : i + MERGED_AT_ONCE] for i in range(0, len(keys), MERGED_AT_ONCE)] or [[]]
        keys = [(f"xent-merge-{level}", i) for i in range(len(groups))]
        graph |= {key: (merge_all, group) for key, group in zip(keys, groups, strict=True)}
        level += 1
    return graph, keys[0]


def largest_chunk(bounds: list[int]) -> int:
    """The rows of the largest chunk."""
    return max((stop - start for start, stop in pairwise(bounds)), default=0)


@contextmanager
def engine(scheduler: Any, progress: Progress | None) -> Iterator[Callable[[Any, Any], Any]]:
    """The function that computes a graph on `scheduler`, for the time of the with block."""
    dask = require("dask", "dask", "an evaluation")
    if scheduler is None or scheduler in ("threads", "sync"):
        get = dask.get if scheduler == "sync" else require("dask.threaded", "dask", "an evaluation").get
        with require("dask.callbacks", "dask", "an evaluation").Callback(posttask=on_chunk(progress)):
            yield get
    elif isinstance(scheduler, str) and "://" in scheduler:
        distributed = require("distributed", "distributed", "a scheduler's address")
        try:
            client = distributed.Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        except OSError as error:
            rule = f"must be the address of a running scheduler, got {scheduler} ({error})"
            raise ConnectionError(f"evaluate: `scheduler` {rule}. Start one with: dask scheduler") from error
        with client:
            yield client.get
    elif hasattr(scheduler, "get"):
        yield scheduler.get
    else:
        choices = '"threads", "sync", an address such as "tcp://host:8786", or a distributed.Client'
        raise ValueError(f"evaluate: `scheduler` must be {choices}, got {scheduler!r}. None is threads.")


def on_chunk(progress: Progress | None) -> Callable[..., None] | None:
    """Dask's hook for a finished task, for those that are chunks."""
    if progress is None:
        return None

    def finished(key: Any, result: Any, *_: Any) -> None:
        if isinstance(key, tuple) and key[0] == CHUNK:
            progress(result.rows)

    return finished
