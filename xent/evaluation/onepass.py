"""One pass over a prediction set: what is asked for, what a task does, and what comes of it.

A task opens the files, takes its own rows with every class, and returns a
:class:`~xent.evaluation.state.State`. The states merge exactly, so the numbers are the same bits for any chunking over
rows, any scheduler and any number of workers.
Leaves out how the result is shown.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

import xent
from xent.evaluation.engine import Progress, engine, graph_of, largest_chunk
from xent.evaluation.metrics import Evaluation, finish
from xent.evaluation.sources import Source, check_pair, open_keys, open_source, refusal
from xent.evaluation.state import State, Wanted, state_of

Array = np.ndarray[Any, Any]
KINDS = ("logits", "probabilities", "log_probabilities")
POLICIES = ("error", "skip")
CHUNK_BYTES = 64 * 2**20
LABEL_REMEDY = "Pass on_bad_label='skip' to leave such rows out, or ignore_index={label} if that marks rows to ignore."


@dataclass(frozen=True)
class Options:
    """What travels to every task."""

    kind: str = "logits"
    ignore_index: tuple[int, ...] = ()
    on_bad_label: str = "error"
    top_k: tuple[int, ...] = ()
    bins: int = 15
    by_class: bool = False
    predicted_bytes: int | None = None

    @property
    def wanted(self) -> Wanted:
        """What each chunk's state keeps."""
        return Wanted(max(self.top_k, default=1), self.bins, self.by_class, self.kind != "logits")


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
        with engine(scheduler, progress) as get:
            state: State = get(self.graph, self.root)
        if state.bad_label.count and self.options.on_bad_label == "error":
            raise label_error(state, self.predictions.shape[1], label_remedy)
        options = self.options
        return finish(state, top_k=options.top_k, bins=options.bins, predicted_bytes=options.predicted_bytes)


def evaluate(
    predictions: Any,
    labels: Any,
    *,
    kind: str = "logits",
    ignore_index: int | Iterable[int] | None = None,
    on_bad_label: str = "error",
    clusters: Any = None,
    slices: Any = None,
    by_class: bool = False,
    top_k: int | Iterable[int] = (),
    bins: int = 15,
    predicted_bytes: int | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    scheduler: Any = None,
    progress: Progress | None = None,
) -> Evaluation:
    r"""Loss, accuracy, calibration and their errors of a prediction set of any size, in one pass.

    .. math:: \bar\ell = \frac1n \sum_i \ell_i, \qquad
              s^2 = \frac{1}{n (n-1)} \sum_i (\ell_i - \bar\ell)^2

    over the n counted rows; s is the standard error. The sums are exact, so the result is the same bits for any
    `chunk_bytes`, any scheduler and any number of workers.

    Parameters
    ----------
    predictions : str, os.PathLike, numpy.ndarray or dask.array.Array, shape (rows, C), real floating
        A path or URL is that of a .npy, .npz, safetensors, Parquet, Arrow, HDF5 or raw file, of a Zarr array (version
        2 or 3), of a folder of such files or a glob of them, opened by each task for its own rows; what it does not
        say itself comes after a ``#``: docs/evaluation.md.
    labels : the same, shape (rows,), integer, in ``[0, C)``
    kind : {"logits", "probabilities", "log_probabilities"}
        What the predictions are. Rows of probabilities that do not sum to 1 are counted, and taken as they are.
    ignore_index : int, iterable of int, or None
        Labels of rows to leave out, whatever their predictions hold.
    on_bad_label : {"error", "skip"}
        Whether a label outside ``[0, C)`` that is not ignored is an error, or a row to count and leave out.
    clusters : as the labels, integers or text, optional
        The cluster of each row, the document of a token for instance: the standard error of the loss then takes
        clusters as independent in the place of rows.
    slices : as the labels, integers or text, optional
        The slice of each row, for a table of them.
    by_class : bool
        Whether to make a table of the labels.
    top_k : int or iterable of int
        The k of top-k accuracies.
    bins : int
        How many bins of equal width the calibration has.
    predicted_bytes : int, optional
        How many bytes the counted rows stand for, for bits per byte.
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
        clusters=clusters,
        slices=slices,
        by_class=by_class,
        top_k=top_k,
        bins=bins,
        predicted_bytes=predicted_bytes,
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
    clusters: Any = None,
    slices: Any = None,
    by_class: bool = False,
    top_k: int | Iterable[int] = (),
    bins: int = 15,
    predicted_bytes: int | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Pass:
    """The graph of :func:`evaluate`, with the same parameters; only headers are read, and the names of Zarr chunks."""
    options = options_of(
        kind=kind,
        ignore_index=ignore_index,
        on_bad_label=on_bad_label,
        by_class=by_class,
        top_k=top_k,
        bins=bins,
        predicted_bytes=predicted_bytes,
        chunk_bytes=chunk_bytes,
    )
    opened, truth = open_source(predictions, "predictions"), open_source(labels, "labels")
    check_pair(opened, truth)
    keys = open_keys(opened, slices=slices, clusters=clusters)
    opened.check_complete()  # not the labels: zarr leaves out a chunk of nothing but class 0, and may
    bounds = opened.bounds(chunk_bytes)
    graph, root = graph_of(chunk_state, options, bounds, [opened, truth, *keys])
    total_bytes, chunk = opened.shape[0] * opened.row_bytes, largest_chunk(bounds) * opened.row_bytes
    return Pass(opened, truth, options, graph, root, len(bounds) - 1, chunk, total_bytes)


def options_of(
    *,
    kind: str = "logits",
    ignore_index: int | Iterable[int] | None = None,
    on_bad_label: str = "error",
    by_class: bool = False,
    top_k: int | Iterable[int] = (),
    bins: int = 15,
    predicted_bytes: int | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Options:
    """The options of a pass, checked."""
    _check_choice("kind", kind, KINDS)
    _check_choice("on_bad_label", on_bad_label, POLICIES)
    _check_count("chunk_bytes", chunk_bytes, CHUNK_BYTES, "Pass 64 * 2**20 for 64 MiB.")
    _check_count("bins", bins, 15, "Pass a number of bins.")
    if predicted_bytes is not None:
        _check_count("predicted_bytes", predicted_bytes, None, "Pass the number of bytes of the text.")
    ranks = tuple(sorted(set(_integers("top_k", top_k, "Pass 5, or (1, 5)."))))
    for k in ranks:
        _check_count("top_k", k, (), "Pass 5, or (1, 5).")
    return Options(kind, _ignored_labels(ignore_index), on_bad_label, ranks, bins, bool(by_class), predicted_bytes)


def chunk_state(
    options: Options, first_row: int, predictions: Any, labels: Any, slices: Any = None, clusters: Any = None
) -> State:
    """The state of one chunk: predictions (rows, C) and labels (rows,), the first being row `first_row` of the set."""
    labels = np.asarray(labels)
    ignored, bad = left_out(options, labels, predictions.shape[1])
    keys = {"slices": in_hand(slices), "clusters": in_hand(clusters)}
    found = statistics_of(options, predictions, labels)
    return state_of(found, labels, first_row=first_row, ignored=ignored, bad=bad, wanted=options.wanted, **keys)


def statistics_of(options: Options, predictions: Any, labels: Array) -> xent.RowStatistics:
    """The numbers of the rows of a chunk, as NumPy's arrays."""
    with xent.using(threads=1, validate="never"):
        found = xent.row_statistics(predictions, labels, kind=options.kind, ignore_index=options.ignore_index or None)
    return xent.RowStatistics(*map(np.asarray, found))


def left_out(options: Options, labels: Array, classes: int) -> tuple[Array, Array]:
    """The rows that are ignored, and those whose label is none; no row is both."""
    ignored = np.zeros(labels.shape, bool)
    for value in options.ignore_index:
        ignored |= labels == value  # false everywhere for a value that the labels' dtype cannot hold
    return ignored, ~ignored & ((labels < 0) | (labels >= classes))


def in_hand(keys: Any) -> Array | None:
    """The keys of a chunk as a NumPy array, where there are some."""
    return None if keys is None else np.asarray(keys)


def _ignored_labels(ignore_index: int | Iterable[int] | None) -> tuple[int, ...]:
    return () if ignore_index is None else _integers("ignore_index", ignore_index, "Labels are integers.")


def _integers(argument: str, given: Any, remedy: str) -> tuple[int, ...]:
    """One integer, or several."""
    try:
        return tuple(operator.index(value) for value in (given if isinstance(given, Iterable) else (given,)))
    except TypeError as error:
        none = ", or None" if argument == "ignore_index" else ""
        message = f"evaluate: `{argument}` must be an int, an iterable of ints{none}, got {given!r}."
        raise TypeError(f"{message} {remedy}") from error


def _check_choice(argument: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        rule = f"must be one of {', '.join(map(repr, choices))}, got {value!r}"
        raise ValueError(f"evaluate: `{argument}` {rule}. The default is {choices[0]!r}.")


def _check_count(argument: str, value: Any, default: Any, remedy: str) -> None:
    message = f"evaluate: `{argument}` must be a whole number, at least 1, got {value!r}."
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{message} {remedy}")
    if value < 1:
        raise ValueError(f"{message} The default is {default}.")


def label_error(state: State, classes: int, remedy: str) -> xent.LabelError:
    count, row, label = state.bad_label.count, state.bad_label.first_row, state.bad_label.label
    got = f"{count} that do not, the first {label} in row {row}"
    message = refusal("labels", f"lie in [0, {classes})", got, remedy.format(label=label))
    return xent.LabelError(message, count, () if row is None else (row,), label)
