"""One pass over a prediction set: one task per chunk, and a tree that merges their states.

Dask is the engine and nothing more: the tasks and the tree are written down as a plain graph, which any of its
schedulers runs. A task opens the files, takes its own rows with every class, and returns a
:class:`~xent.evaluation.state.State`. The states merge exactly, so the numbers are the same bits for any chunking over
rows, any scheduler and any number of workers.
Leaves out how the result is shown.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import Any

import numpy as np

import xent
from xent.evaluation.sources import Source, check_pair, open_source, refusal, require
from xent.evaluation.state import Evaluation, State, finish, merge_all, state_of

KINDS = ("logits", "probabilities", "log_probabilities")
POLICIES = ("error", "skip")
CHUNK_BYTES = 64 * 2**20
MERGED_AT_ONCE = 16
CONNECT_SECONDS = 10
LABEL_REMEDY = "Pass on_bad_label='skip' to leave such rows out, or ignore_index={label} if that marks rows to ignore."

Progress = Callable[[int], None]
"""Called with the number of rows of each chunk as it finishes."""


@dataclass(frozen=True)
class Options:
    """What travels to every task."""

    kind: str = "logits"
    ignore_index: tuple[int, ...] = ()
    on_bad_label: str = "error"


@dataclass(frozen=True, eq=False)
class Pass:
    """A planned evaluation: its graph is built and nothing has been read but the headers.

    ``graph`` is a Dask graph whose value at ``root`` is the state of the whole set; ``tasks`` is its number of chunks,
    ``chunk_bytes`` the size of the largest one's predictions, ``bytes`` that of all predictions.
    """

    predictions: Source
    labels: Source
    options: Options
    graph: dict[Any, Any]
    root: Any
    tasks: int
    chunk_bytes: int
    bytes: int

    def run(
        self, *, scheduler: Any = None, progress: Progress | None = None, label_remedy: str = LABEL_REMEDY
    ) -> Evaluation:
        """Compute the graph; parameters, result and errors are those of :func:`evaluate`.

        `label_remedy` is what the error of bad labels advises, in the words of the caller; ``{label}`` is the first.
        """
        with _engine(scheduler, progress) as get:
            state: State = get(self.graph, self.root)
        if state.bad_label.count and self.options.on_bad_label == "error":
            raise _label_error(state, self.predictions.shape[1], label_remedy)
        return finish(state)


def evaluate(
    predictions: Any,
    labels: Any,
    *,
    kind: str = "logits",
    ignore_index: int | Iterable[int] | None = None,
    on_bad_label: str = "error",
    chunk_bytes: int = CHUNK_BYTES,
    scheduler: Any = None,
    progress: Progress | None = None,
) -> Evaluation:
    r"""Mean cross entropy, its standard error, perplexity and accuracy of a prediction set of any size, in one pass.

    .. math:: \bar\ell = \frac1n \sum_i \ell_i, \qquad
              s^2 = \frac{1}{n (n-1)} \sum_i (\ell_i - \bar\ell)^2

    over the n counted rows; s is the standard error. The sums are exact, so the result is the same bits for any
    `chunk_bytes`, any scheduler and any number of workers.

    Parameters
    ----------
    predictions : str, os.PathLike, numpy.ndarray or dask.array.Array, shape (rows, C), real floating
        A path is a .npy file or a Zarr array (version 2 or 3), opened by each task for its own rows.
    labels : the same, shape (rows,), integer, in ``[0, C)``
    kind : {"logits", "probabilities", "log_probabilities"}
        What the predictions are. That probabilities sum to 1 is not checked.
    ignore_index : int, iterable of int, or None
        Labels of rows to leave out, whatever their predictions hold.
    on_bad_label : {"error", "skip"}
        Whether a label outside ``[0, C)`` that is not ignored is an error, or a row to count and leave out.
    chunk_bytes : int
        Bytes of predictions in a task, at most, unless a stored Zarr chunk is larger. Peak memory is about twice this
        for each thread. The chunks of a Dask array are kept as they are.
    scheduler : None, "threads", "sync", an address such as "tcp://host:8786", or a distributed.Client
        Where the tasks run. None is threads of this process, whatever Dask's configuration says; the command line
        takes the address of a scheduler from there (DASK_SCHEDULER_ADDRESS) where no option names one.
    progress : callable, optional
        Called with the number of rows of each chunk as it finishes, in the calling thread; not on a cluster.

    Returns
    -------
    Evaluation
        Losses in nats.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        Before any work: a missing file, or a shape, dtype or option that cannot be.
    LabelError
        After the pass, if labels are bad and `on_bad_label` is "error": how many, the first row and its label.
    ReadError
        If a file is truncated, corrupt, or changes while it is read, or, before any work, if a Zarr array lacks chunks.
    ConnectionError
        If no scheduler answers at the address.
    ModuleNotFoundError
        If dask, or zarr for a Zarr array, is not installed.

    Notes
    -----
    A row that is NaN makes the mean NaN; without one, a row of loss +inf makes it +inf. `nan_rows` and `infinite_rows`
    count them and `first_nan` and `first_infinite` name them. The standard error takes rows as independent, which the
    tokens of one text are not.

    zarr does not write a chunk of nothing but the fill value unless told to, so a chunk left out on purpose looks like
    one that was lost; both are refused.

    Examples
    --------
    Uniform logits over four classes cost log 4 nats, every time.

    >>> result = evaluate(np.zeros((3, 4), np.float32), np.asarray([0, 1, 2]))
    >>> round(result.perplexity, 6), result.standard_error, result.counted
    (4.0, 0.0, 3)
    """
    planned = plan(
        predictions,
        labels,
        kind=kind,
        ignore_index=ignore_index,
        on_bad_label=on_bad_label,
        chunk_bytes=chunk_bytes,
    )
    return planned.run(scheduler=scheduler, progress=progress)


def plan(
    predictions: Any,
    labels: Any,
    *,
    kind: str = "logits",
    ignore_index: int | Iterable[int] | None = None,
    on_bad_label: str = "error",
    chunk_bytes: int = CHUNK_BYTES,
) -> Pass:
    """The graph of :func:`evaluate`, with the same parameters; only headers are read, and the names of Zarr chunks."""
    _check_choice("kind", kind, KINDS)
    _check_choice("on_bad_label", on_bad_label, POLICIES)
    _check_bytes(chunk_bytes)
    options = Options(kind, _ignored_labels(ignore_index), on_bad_label)
    opened, truth = open_source(predictions, "predictions"), open_source(labels, "labels")
    check_pair(opened, truth)
    opened.check_complete()  # not the labels: zarr leaves out a chunk of nothing but class 0, and may
    bounds = opened.bounds(chunk_bytes)
    graph, blocks = opened.parts(bounds)
    label_graph, label_blocks = truth.parts(bounds)
    graph |= label_graph
    states = [("xent-chunk", i) for i in range(len(blocks))]
    for state, block, label_block, start in zip(states, blocks, label_blocks, bounds, strict=False):
        graph[state] = (chunk_state, options, block, label_block, start)
    root = _merge_tree(graph, states)
    largest = max((stop - start for start, stop in pairwise(bounds)), default=0)
    total_bytes = opened.shape[0] * opened.row_bytes
    return Pass(opened, truth, options, graph, root, len(blocks), largest * opened.row_bytes, total_bytes)


def chunk_state(options: Options, predictions: Any, labels: Any, first_row: int) -> State:
    """The state of one chunk: predictions (rows, C) and labels (rows,), the first being row `first_row` of the set."""
    labels = np.asarray(labels)
    ignored = np.zeros(labels.shape, bool)
    for value in options.ignore_index:
        ignored |= labels == value  # false everywhere for a value that the labels' dtype cannot hold
    bad = ~ignored & ((labels < 0) | (labels >= predictions.shape[1]))
    with xent.using(threads=1, validate="never"):
        rows = xent.row_statistics(predictions, labels, kind=options.kind, ignore_index=options.ignore_index or None)
    loss, rank = np.asarray(rows.loss), np.asarray(rows.label_rank)
    return state_of(loss, rank, labels, first_row=first_row, ignored=ignored, bad=bad)


def _merge_tree(graph: dict[Any, Any], keys: list[Any]) -> Any:
    """Add tasks that merge the states under `keys`, a few at a time; the key of the last one."""
    level = 0
    while len(keys) > 1 or level == 0:
        groups = [keys[i : i + MERGED_AT_ONCE] for i in range(0, len(keys), MERGED_AT_ONCE)] or [[]]
        keys = [(f"xent-merge-{level}", i) for i in range(len(groups))]
        graph |= {key: (merge_all, group) for key, group in zip(keys, groups, strict=True)}
        level += 1
    return keys[0]


@contextmanager
def _engine(scheduler: Any, progress: Progress | None) -> Iterator[Callable[[Any, Any], Any]]:
    """The function that computes a graph on `scheduler`, for the time of the with block."""
    dask = require("dask", "dask", "an evaluation")
    if scheduler is None or scheduler in ("threads", "sync"):
        get = dask.get if scheduler == "sync" else require("dask.threaded", "dask", "an evaluation").get
        with require("dask.callbacks", "dask", "an evaluation").Callback(posttask=_on_chunk(progress)):
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


def _on_chunk(progress: Progress | None) -> Callable[..., None] | None:
    """Dask's hook for a finished task, for those that are chunks."""
    if progress is None:
        return None

    def finished(key: Any, result: Any, *_: Any) -> None:
        if isinstance(key, tuple) and key[0] == "xent-chunk":
            progress(result.rows)

    return finished


def _ignored_labels(ignore_index: int | Iterable[int] | None) -> tuple[int, ...]:
    if ignore_index is None:
        return ()
    values = ignore_index if isinstance(ignore_index, Iterable) else (ignore_index,)
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError as error:
        message = f"evaluate: `ignore_index` must be an int, an iterable of ints, or None, got {ignore_index!r}."
        raise TypeError(f"{message} Labels are integers.") from error


def _check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        rule = f"must be one of {', '.join(map(repr, choices))}, got {value!r}"
        raise ValueError(f"evaluate: `{argument}` {rule}. The default is {choices[0]!r}.")


def _check_bytes(chunk_bytes: Any) -> None:
    message = f"evaluate: `chunk_bytes` must be a whole number, at least 1, got {chunk_bytes!r}."
    if isinstance(chunk_bytes, bool) or not isinstance(chunk_bytes, Integral):
        raise TypeError(f"{message} Pass 64 * 2**20 for 64 MiB.")
    if chunk_bytes < 1:
        raise ValueError(f"{message} The default is {CHUNK_BYTES}.")


def _label_error(state: State, classes: int, remedy: str) -> xent.LabelError:
    count, row, label = state.bad_label.count, state.bad_label.first_row, state.bad_label.label
    got = f"{count} that do not, the first {label} in row {row}"
    message = refusal("labels", f"lie in [0, {classes})", got, remedy.format(label=label))
    return xent.LabelError(message, count, () if row is None else (row,), label)
