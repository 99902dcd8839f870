"""The engine of a pass: one task per chunk, a tree that merges their states, and the scheduler that runs both.

Dask is the engine and nothing more: the tasks and the tree are written down as a plain graph, which any of its
schedulers runs. Leaves out what a task computes.
"""

from __future__ import annotations

import _thread
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from queue import SimpleQueue
from typing import Any

from xent.dispatch.settings import affinity, current
from xent.evaluation.engine.memory import MERGED_AT_ONCE
from xent.evaluation.engine.scheduler_choice import chosen, configured
from xent.evaluation.engine.tasks import Job, run_chunk
from xent.evaluation.sources.in_memory import is_future
from xent.evaluation.sources.source import Source
from xent.evaluation.statistics.state import merge_all
from xent.optional import require
from xent.text import shown_path, shown_text

CONNECT_SECONDS = 10
RETRIES = 2
"""How many times a cluster runs a failed task again."""
CHUNK = "xent-chunk"
PROCESSES = "processes"
SCHEDULERS = (
    'None, "threads", "sync", "processes", "processes:4", an address such as "tcp://host:8786", '
    "the path of a scheduler file, a distributed.Client, or a get of a scheduler of Dask's"
)

Progress = Callable[[int], None]
"""Called with the number of rows of each chunk as it finishes."""
Graph = dict[Any, Any]
Compute = Callable[[Graph, Any, list[int]], Any]
"""Computes the root of a graph of chunks with these bounds."""


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


def local_threads() -> int:
    """How many threads of this process work on chunks: by xent.using, XENT_THREADS or Dask's configuration, or all."""
    return current().settings.threads or configured("num_workers") or affinity()


def threads_of(scheduler: Any) -> int | None:
    """How many chunks `scheduler` works on at once; None for a cluster, which decides itself."""
    if scheduler is None or scheduler == "threads":
        return local_threads()
    if isinstance(scheduler, str) and scheduler.partition(":")[0] == PROCESSES:
        return process_count(scheduler)
    return 1 if scheduler == "sync" else None


@contextmanager
def engine(scheduler: Any, progress: Progress | None) -> Iterator[Compute]:
    """A function that computes a graph of chunks with these bounds on `scheduler`, inside the with block.

    Raises
    ------
    ConnectionError
        If a scheduler does not answer, or is gone before the work is done.
    ValueError
        If it is none, or data are on another cluster.
    """
    scheduler = chosen(scheduler)
    with ExitStack() as stack:
        if scheduler == "threads":
            compute = thread_compute(progress)
        elif scheduler == "sync":
            compute = get_compute(require("dask", "dask", "an evaluation").get, progress)
        elif callable(scheduler) or isinstance(scheduler, Executor):
            get_scheduler = require("dask.base", "dask", "an evaluation").get_scheduler
            compute = get_compute(get_scheduler(scheduler=scheduler), progress)
        else:
            client = scheduler if hasattr(scheduler, "scheduler_info") else stack.enter_context(connect(scheduler))
            compute = cluster_compute(client, progress)
        yield compute


def rows_of(key: Any, graph: Graph, bounds: list[int]) -> int:
    """The rows of a chunk by the key of its task; 0 for that of another task."""
    is_chunk = isinstance(key, tuple) and key[0] == CHUNK and key in graph
    return bounds[key[-1] + 1] - bounds[key[-1]] if is_chunk else 0


def thread_compute(progress: Progress | None) -> Compute:
    """A function that computes a graph in threads of this process."""
    threaded = require("dask.threaded", "dask", "an evaluation")
    callback = require("dask.callbacks", "dask", "an evaluation").Callback

    def compute(graph: Graph, root: Any, bounds: list[int]) -> Any:
        def tell(rows: int) -> None:
            if progress is not None and rows:
                progress(rows)

        def run(tell_caller: Callable[[int], None], check_wanted: Callable[[], None]) -> Any:
            told = callback(
                pretask=lambda *_: check_wanted(), posttask=lambda key, *_: tell_caller(rows_of(key, graph, bounds))
            )
            with ThreadPoolExecutor(threads) as pool, told:
                return threaded.get(graph, root, pool=pool)

        check_no_futures(graph)
        threads = local_threads()
        return run_aside(run, tell)

    return compute


def get_compute(get: Callable[..., Any], progress: Progress | None) -> Compute:
    """A function that computes a graph by the ``get`` of one of Dask's schedulers."""
    callback = require("dask.callbacks", "dask", "an evaluation").Callback

    def compute(graph: Graph, root: Any, bounds: list[int]) -> Any:
        untold = {key: rows for key in graph if (rows := rows_of(key, graph, bounds))}

        def tell(key: Any, *_: Any) -> None:
            rows = untold.pop(key, 0)
            if progress is not None and rows:
                progress(rows)

        check_no_futures(graph)
        with callback(posttask=tell):
            result = get(graph, root)
        for key in [*untold]:  # of a scheduler that tells nothing
            tell(key)
        return result

    return compute


def check_no_futures(graph: Graph, client: Any = None) -> None:
    """Raise ValueError if data are on a cluster, but on that of `client`."""
    if any(
        is_future(value) and (client is None or getattr(value, "client", client) is not client)
        for value in graph.values()
    ):
        rule = "must be the Client of the cluster that holds the arrays, which were persisted there"
        raise ValueError(f"evaluate: `scheduler` {rule}. Pass that Client.")


class Unwanted(BaseException):
    """The caller of a run was interrupted."""


def run_aside(run: Callable[[Callable[[int], None], Callable[[], None]], Any], tell: Callable[[int], None]) -> Any:
    """The result of run(tell_caller, check_wanted), which is called in a thread of its own, that no signal reaches.

    An interrupt of a thread that schedules others may leave a lock held for which they then wait for ever. So the
    calling thread only waits and calls ``tell`` with what is told; once it is interrupted ``check_wanted`` raises, and
    the interrupt is raised when the run has ended, a second one at once.
    """
    told: SimpleQueue[int] = SimpleQueue()
    results: list[Any] = []
    errors: list[BaseException] = []
    interrupts: list[None] = []

    def check_wanted() -> None:
        if interrupts:
            raise Unwanted

    def run_here() -> None:
        try:
            results.append(run(told.put, check_wanted))
        except BaseException as error:  # whatever it is, it is the caller's
            errors.append(error)
        told.put(0)

    def wait() -> None:
        while not (results or errors):
            tell(told.get())

    _thread.start_new_thread(run_here, ())
    try:
        wait()
        while not told.empty():
            tell(told.get())
    except BaseException:  # of ``tell`` too
        interrupts.append(None)
        tell = ignore
        wait()
        raise
    if errors:
        raise errors[0]
    return results[0]


def ignore(rows: int) -> None:
    """What is told to a caller that was interrupted."""


def cluster_compute(client: Any, progress: Progress | None) -> Compute:
    """A function that computes a graph on a cluster."""
    library = require("distributed", "distributed", "a cluster")

    def compute(graph: Graph, root: Any, bounds: list[int]) -> Any:
        check_no_futures(graph, client)
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
        raise ValueError(f"evaluate: `scheduler` must be {SCHEDULERS}, got {scheduler!r}. Pass 'threads' for those.")
    text = os.fspath(scheduler)
    library = require("distributed", "distributed", "a cluster")
    if text.partition(":")[0] == PROCESSES:
        # a dashboard at any port: the usual one may be taken, of which distributed would warn; no log: a worker that
        # loses its scheduler as both are closed would write there, and what goes wrong in the run is raised
        options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
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
        raise ValueError(f"evaluate: `scheduler` must be {SCHEDULERS}, got {text!r}. Pass 'threads' for those.")
    client = library.Client.__new__(library.Client)
    try:
        # subtle: a client whose start fails is not handed over, and is open still; its __del__ would wait for the loop
        client.__init__(**target, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TypeError, ValueError) as error:
        client.close()
        # the text of a ValueError holds the address in parts, of which none can be told to be a secret
        reason = "its address is malformed" if isinstance(error, ValueError) else shown_text(str(error))
        rule = f"must be the address or the file of a running scheduler, got {shown_path(text)} ({reason})"
        raise ConnectionError(f"evaluate: `scheduler` {rule}. Start one with: dask scheduler") from None
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
