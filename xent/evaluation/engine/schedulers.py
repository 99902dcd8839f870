"""The engine of a pass: one task per chunk, a tree that merges their states, and the scheduler that runs both.

Dask is the engine and nothing more: the tasks and the tree are written down as a plain graph, which any of its
schedulers runs. Leaves out what a task computes.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from typing import Any

from xent.dispatch.settings import affinity, current
from xent.evaluation.engine.tasks import Job, run_chunk
from xent.evaluation.sources.source import Source
from xent.evaluation.statistics.state import merge_all
from xent.optional import require

MERGED_AT_ONCE = 16
CONNECT_SECONDS = 10
RETRIES = 2
"""How many times a cluster runs a failed task again."""
CHUNK = "xent-chunk"
PROCESSES = "processes"
SCHEDULERS = (
    'None, "threads", "sync", "processes", "processes:4", an address such as "tcp://host:8786", '
    "the path of a scheduler file, or a distributed.Client"
)

Progress = Callable[[int], None]
"""Called with the number of rows of each chunk as it finishes."""
Graph = dict[Any, Any]


def graph_of(job: Job, bounds: list[int], sources: Sequence[Source | None]) -> tuple[Graph, Any]:
    """A Dask graph and the key of its root: the merged states of all chunks.

    The chunks begin at ``bounds``; a task gets the part of each source that has its rows, None for no source.
    """
    graph: Graph = {}
    columns = []
    run = uuid.uuid4().hex  # subtle: a cluster takes equal keys for the same task, whoever sends them
    for source in sources:
        own_graph, parts = ({}, [None] * (len(bounds) - 1)) if source is None else source.parts(bounds)
        graph |= own_graph
        columns.append(parts)
    keys = [(CHUNK, run, index) for index in range(len(bounds) - 1)]
    for key, rows, *parts in zip(keys, pairwise(bounds), *columns, strict=True):
        graph[key] = (run_chunk, job, *rows, *parts)
    level = 0
    while len(keys) > 1 or level == 0:
        groups = [keys[i : i + MERGED_AT_ONCE] for i in range(0, len(keys), MERGED_AT_ONCE)] or [[]]
        keys = [(f"xent-merge-{level}", run, i) for i in range(len(groups))]
        graph |= {key: (merge_all, group) for key, group in zip(keys, groups, strict=True)}
        level += 1
    return graph, keys[0]


def largest_chunk(bounds: list[int]) -> int:
    """The rows of the largest chunk."""
    return max((stop - start for start, stop in pairwise(bounds)), default=0)


def local_threads() -> int:
    """How many threads of this process work on chunks: by xent.using, XENT_THREADS or Dask's configuration, or all."""
    threads = current().settings.threads or require("dask", "dask", "an evaluation").config.get("num_workers", None)
    return threads or affinity()


def threads_of(scheduler: Any) -> int | None:
    """How many chunks `scheduler` works on at once; None for a cluster, which decides itself."""
    if scheduler is None or scheduler == "threads":
        return local_threads()
    if isinstance(scheduler, str) and scheduler.partition(":")[0] == PROCESSES:
        return process_count(scheduler)
    return 1 if scheduler == "sync" else None


@contextmanager
def engine(scheduler: Any, progress: Progress | None) -> Iterator[Callable[[Graph, Any, list[int]], Any]]:
    """A function that computes a graph of chunks with these bounds on `scheduler`, inside the with block.

    Raises
    ------
    ConnectionError
        If a scheduler does not answer, or is gone before the work is done.
    """
    with ExitStack() as stack:
        if scheduler is None or scheduler in ("threads", "sync"):
            compute = local_compute(scheduler, progress)
        else:
            client = scheduler if hasattr(scheduler, "scheduler_info") else stack.enter_context(connect(scheduler))
            compute = cluster_compute(client, progress)
        yield compute


def local_compute(scheduler: Any, progress: Progress | None) -> Callable[[Graph, Any, list[int]], Any]:
    """A function that computes a graph in this process."""
    dask = require("dask", "dask", "an evaluation")
    get = dask.get if scheduler == "sync" else require("dask.threaded", "dask", "an evaluation").get
    callback = require("dask.callbacks", "dask", "an evaluation").Callback

    def compute(graph: Graph, root: Any, bounds: list[int]) -> Any:
        def finished(key: Any, *_: Any) -> None:
            if progress is not None and isinstance(key, tuple) and key[0] == CHUNK:
                progress(bounds[key[-1] + 1] - bounds[key[-1]])

        with callback(posttask=finished):
            return get(graph, root, num_workers=local_threads())

    return compute


def cluster_compute(client: Any, progress: Progress | None) -> Callable[[Graph, Any, list[int]], Any]:
    """A function that computes a graph on a cluster."""
    library = require("distributed", "distributed", "a cluster")

    def compute(graph: Graph, root: Any, bounds: list[int]) -> Any:
        keys = [key for key in graph if isinstance(key, tuple) and key[0] == CHUNK]
        total, chunks = client.get(graph, [root, keys], sync=False, retries=RETRIES)
        try:
            indices = [key[-1] for key in keys]
            rows = {chunk.key: bounds[i + 1] - bounds[i] for chunk, i in zip(chunks, indices, strict=True)}
            finished = library.as_completed(chunks, loop=client.loop)
            del chunks  # a state is let go when it has been merged
            for future in finished:
                if future.status == "finished" and progress is not None:
                    progress(rows[future.key])
            return total.result()
        except (library.client.FutureCancelledError, library.scheduler.KilledWorker, OSError, TimeoutError) as error:
            if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
                raise  # of the task itself: a file that could not be read
            raise cluster_lost(error) from error
        finally:
            total.cancel()

    return compute


def cluster_lost(error: Exception) -> ConnectionError:
    """The error of a cluster that went away."""
    what = str(error).splitlines()[0] if str(error) else type(error).__name__
    remedy = "Run it again; with a state directory it goes on where it was."
    return ConnectionError(f"evaluate: the cluster did not finish ({what}). {remedy}")


@contextmanager
def connect(scheduler: Any) -> Iterator[Any]:
    """A client of the scheduler at an address or of a scheduler file, or of processes started here."""
    if not isinstance(scheduler, str | os.PathLike):
        raise ValueError(f"evaluate: `scheduler` must be {SCHEDULERS}, got {scheduler!r}. None is threads.")
    text = os.fspath(scheduler)
    library = require("distributed", "distributed", "a cluster")
    if text.partition(":")[0] == PROCESSES:
        # no dashboard: its port may be taken, and the bar shows as much; no log: a worker that loses its scheduler as
        # both are closed would write there, and what goes wrong in the run is raised
        options = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": logging.CRITICAL}
        with (
            library.LocalCluster(process_count(text), **options) as cluster,
            library.Client(cluster, set_as_default=False) as client,
        ):
            yield client
        return
    if "://" in text:
        target = {"address": text}
    elif os.path.isfile(text):
        target = {"scheduler_file": text}
    else:
        raise ValueError(f"evaluate: `scheduler` must be {SCHEDULERS}, got {text!r}. None is threads.")
    try:
        client = library.Client(**target, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        rule = f"must be the address or the file of a running scheduler, got {text} ({error})"
        raise ConnectionError(f"evaluate: `scheduler` {rule}. Start one with: dask scheduler") from error
    try:
        yield client
    finally:
        with suppress(OSError):  # it may be gone
            client.close()


def process_count(text: str) -> int:
    """The number in "processes:4"; the number of processors for "processes"."""
    _, colon, number = text.partition(":")
    if not colon:
        return affinity()
    if not number.isdigit() or int(number) < 1:
        raise ValueError(f"evaluate: `scheduler` must be {SCHEDULERS}, got {text!r}. Pass processes:2 for two.")
    return int(number)


RESIDENT_BYTES = 300 * 10**6
"""The memory of a process beside its chunks: Python, NumPy, Dask, a kernel's code."""


def projected_peak(threads: int, chunk_bytes: int) -> int:
    """The most memory that a process takes, in bytes: each thread its chunk and as much again, beside the libraries."""
    return threads * chunk_bytes * 2 + RESIDENT_BYTES
