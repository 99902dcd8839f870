"""The clusters that a pass runs on: a scheduler of Dask's that is there, or processes that are started for it.

Leaves out the work itself (``work.py``).
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice, pairwise
from typing import Any

from xent.dispatch.settings import affinity
from xent.evaluation.engine.work import CHUNK, Compute, Fold, Graph, Group, Progress, Work, run_group
from xent.evaluation.sources.in_memory import is_future
from xent.optional import require
from xent.text import shown_path, shown_text

CONNECT_SECONDS = 10
RETRIES = 2
"""How many times a cluster runs a failed task again."""
LEAST_WINDOW, WINDOW_OF_A_THREAD = 32, 2
"""How many groups a cluster has at once, at the least, and for each of its threads."""
PROCESSES = "processes"
SCHEDULERS = (
    'None, "threads", "sync", "processes", "processes:4", an address such as "tcp://host:8786", '
    "the path of a scheduler file, a distributed.Client, or a get of a scheduler of Dask's"
)


def cluster_compute(client: Any, progress: Progress) -> Compute:
    """A function that does the work on a cluster."""
    library = require("distributed", "distributed", "a cluster")

    def compute(work: Work) -> Any:
        try:
            return (run_graph if work.is_of_dask else run_window)(client, work, progress)
        except (library.client.FutureCancelledError, library.scheduler.KilledWorker, OSError, TimeoutError) as error:
            if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
                raise  # of the task itself: a file that could not be read
            raise cluster_lost(error) from error

    return compute


def run_window(client: Any, work: Work, progress: Progress) -> Any:
    """The state of all groups, of which a cluster has so many at once that no thread waits for one."""
    run, fold, running = uuid.uuid4().hex, Fold(), dict[Any, tuple[Any, Group]]()
    finished = require("distributed", "distributed", "a cluster").as_completed(loop=client.loop)
    groups, shared, window = enumerate(work.groups(threads_of_cluster(client))), None, 0
    try:
        while True:
            if len(running) <= window // 2:
                window = max(LEAST_WINDOW, WINDOW_OF_A_THREAD * threads_of_cluster(client))
                batch = [*islice(groups, window - len(running))]
                if batch and shared is None:  # a task, which is run again where its worker is lost
                    shared = client.submit(tuple, [work.job, work.shared], key=f"xent-job-{run}", retries=RETRIES)
                for future, (_, group) in zip(submitted(client, run, batch, shared), batch, strict=True):
                    running[future.key] = future, group
                    finished.add(future)
            if not running:
                return fold.state()
            done = finished.next_batch()
            for future, state in zip(done, client.gather(done), strict=True):
                _, group = running.pop(future.key)
                fold.add(state)
                for start, stop in pairwise(group.bounds):
                    progress(stop - start)
    finally:
        client.cancel([future for future, _ in running.values()])


def submitted(client: Any, run: str, batch: list[tuple[int, Group]], shared: Any) -> list[Any]:
    """The futures of some groups with their numbers."""
    if not batch:
        return []
    keys = [(CHUNK, run, number) for number, _ in batch]
    bounds, parts = ([group[i] for _, group in batch] for i in range(2))
    futures: list[Any] = client.map(run_group, bounds, parts, shared=shared, key=keys, retries=RETRIES, pure=False)
    return futures


def threads_of_cluster(client: Any) -> int:
    """How many threads its workers have now; 1 of none."""
    threads: int = sum(client.nthreads().values())
    return max(1, threads)


def run_graph(client: Any, work: Work, progress: Progress) -> Any:
    """The state of all chunks, which are sent as one graph."""
    graph, root = work.graph()
    check_no_futures(graph, client)
    keys = [key for key in graph if work.rows_of(key)]
    total, chunks = client.get(graph, [root, keys], sync=False, retries=RETRIES)
    try:
        rows = {chunk.key: work.rows_of(key) for chunk, key in zip(chunks, keys, strict=True)}
        finished = require("distributed", "distributed", "a cluster").as_completed(chunks, loop=client.loop)
        del chunks  # a state is let go when it has been merged
        for future in finished:
            if future.status == "finished":
                progress(rows[future.key])
        return total.result()
    finally:
        total.cancel()


def check_no_futures(graph: Graph, client: Any = None) -> None:
    """Raise ValueError if data are on a cluster, but on that of `client`."""
    if any(
        is_future(value) and (client is None or getattr(value, "client", client) is not client)
        for value in graph.values()
    ):
        rule = "must be the Client of the cluster that holds the arrays, which were persisted there"
        raise ValueError(f"evaluate: `scheduler` {rule}. Pass that Client.")


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
