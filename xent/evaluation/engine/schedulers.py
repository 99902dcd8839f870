"""The schedulers of a pass: threads of this process, the calling thread, a cluster, or a ``get`` of Dask's.

A bounded window of groups is under way, and a state is folded when it arrives. A graph of Dask's is made only for rows
that Dask makes, and a batch of chunks at a time for schedulers that take graphs alone.
Leaves out the work itself (``work.py``), and clusters (``clusters.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import Any

from xent.dispatch.settings import affinity, current
from xent.evaluation.engine.aside import ignore, run_aside
from xent.evaluation.engine.clusters import PROCESSES, check_no_futures, cluster_compute, connect, process_count
from xent.evaluation.engine.memory import BATCH_CHUNKS
from xent.evaluation.engine.scheduler_choice import chosen, configured
from xent.evaluation.engine.work import Compute, Fold, Group, Progress, Work, run_group
from xent.optional import require

WINDOW_OF_A_THREAD = 2
"""How many groups there are at once for each thread."""
READ_AT_ONCE = 2
"""How many chunks there are at once for each thread of those on a server: one is read while another is worked on."""


def local_threads() -> int:
    """How many threads of this process work on chunks: by xent.using, XENT_THREADS or Dask's configuration, or all."""
    return current().settings.threads or configured("num_workers") or affinity()


def threads_of(scheduler: Any, *, is_remote: bool = False) -> int | None:
    """How many chunks `scheduler` works on at once, of rows on a server or not; None for a cluster, which decides."""
    if scheduler is None or scheduler == "threads":
        return local_threads() * (READ_AT_ONCE if is_remote else 1)
    if isinstance(scheduler, str) and scheduler.partition(":")[0] == PROCESSES:
        return process_count(scheduler)
    return 1 if scheduler == "sync" else None


@contextmanager
def engine(scheduler: Any, progress: Progress | None) -> Iterator[Compute]:
    """A function that does the work of a pass on `scheduler`, inside the with block.

    Raises
    ------
    ConnectionError
        If a scheduler does not answer, or is gone before the work is done.
    ValueError
        If it is none, or data are on another cluster.
    """
    scheduler, tell = chosen(scheduler), progress or ignore
    with ExitStack() as stack:
        if scheduler == "threads":
            compute = thread_compute(tell)
        elif scheduler == "sync":
            compute = calling_compute(tell)
        elif callable(scheduler) or isinstance(scheduler, Executor):
            get_scheduler = require("dask.base", "dask", "an evaluation").get_scheduler
            compute = get_compute(get_scheduler(scheduler=scheduler), tell)
        else:
            client = scheduler if hasattr(scheduler, "scheduler_info") else stack.enter_context(connect(scheduler))
            compute = cluster_compute(client, tell)
        yield compute


def thread_compute(progress: Progress) -> Compute:
    """A function that does the work in threads of this process."""

    def tell(rows: int) -> None:
        if rows:
            progress(rows)

    def compute(work: Work) -> Any:
        threads = threads_of("threads", is_remote=work.is_remote) or 1
        run = graph_in_threads if work.is_of_dask else window_in_threads
        return run_aside(lambda tell_caller, check_wanted: run(work, threads, tell_caller, check_wanted), tell)

    return compute


def window_in_threads(work: Work, threads: int, tell: Progress, check_wanted: Callable[[], None]) -> Any:
    """The state of all groups; ``tell`` is called with the rows of each chunk, ``check_wanted`` raises to end."""
    fold, done, waiting = Fold(), SimpleQueue[Future[Any]](), 0

    def tell_and_check(rows: int) -> None:
        tell(rows)
        check_wanted()

    def run(group: Group) -> Any:
        check_wanted()
        return run_group(group.bounds, group.parts, (work.job, work.shared), tell_and_check)

    with ThreadPoolExecutor(threads) as pool:
        try:
            for group in work.groups(threads):
                if waiting == WINDOW_OF_A_THREAD * threads:
                    fold.add(done.get().result())
                    waiting -= 1
                pool.submit(run, group).add_done_callback(done.put)
                waiting += 1
            for _ in range(waiting):
                fold.add(done.get().result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return fold.state()


def graph_in_threads(work: Work, threads: int, tell: Progress, check_wanted: Callable[[], None]) -> Any:
    """The same by a graph of Dask's."""
    graph, root = work.graph()
    check_no_futures(graph)
    threaded = require("dask.threaded", "dask", "an evaluation")
    told = require("dask.callbacks", "dask", "an evaluation").Callback(
        pretask=lambda *_: check_wanted(), posttask=lambda key, *_: tell(work.rows_of(key))
    )
    with ThreadPoolExecutor(threads) as pool, told:
        return threaded.get(graph, root, pool=pool)


def calling_compute(progress: Progress) -> Compute:
    """A function that does the work in the thread that calls it."""

    def compute(work: Work) -> Any:
        if work.is_of_dask:
            return get_compute(require("dask", "dask", "an evaluation").get, progress)(work)
        fold = Fold()
        for group in work.groups(1):
            fold.add(run_group(group.bounds, group.parts, (work.job, work.shared), progress))
        return fold.state()

    return compute


def get_compute(get: Callable[..., Any], progress: Progress) -> Compute:
    """A function that does the work by the ``get`` of one of Dask's schedulers."""
    callback = require("dask.callbacks", "dask", "an evaluation").Callback

    def run_batch(work: Work, first: int, last: int) -> Any:
        graph, root = work.graph(first, last)
        check_no_futures(graph)
        untold = {key: rows for key in graph if (rows := work.rows_of(key))}

        def tell(key: Any, *_: Any) -> None:
            rows = untold.pop(key, 0)
            if rows:
                progress(rows)

        with callback(posttask=tell):
            state = get(graph, root)
        for key in [*untold]:  # of a scheduler that tells nothing
            tell(key)
        return state

    def compute(work: Work) -> Any:
        fold, step = Fold(), max(1, work.tasks) if work.is_of_dask else BATCH_CHUNKS
        for first in range(0, max(1, work.tasks), step):
            fold.add(run_batch(work, first, min(first + step, work.tasks)))
        return fold.state()

    return compute
