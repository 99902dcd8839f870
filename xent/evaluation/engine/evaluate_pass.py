"""One pass over a prediction set: what is asked for, and what comes of it.

A task opens the files, takes its own rows with every class, and returns a
:class:`~xent.evaluation.statistics.state.State`. The states merge exactly, so the numbers are the same bits for any
chunking over rows, any scheduler and any number of workers.
Leaves out what a task does (``tasks.py``) and how the result is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import xent
from xent.evaluation.engine.checkpoint import Store, open_store
from xent.evaluation.engine.labels import LABEL_REMEDY, check_labels
from xent.evaluation.engine.row_losses import LossFile, writing
from xent.evaluation.engine.schedulers import Graph, Progress, engine, graph_of, largest_chunk
from xent.evaluation.engine.stream import evaluate_blocks
from xent.evaluation.engine.tasks import Work, chunk_state, cut_statistics, unread_state
from xent.evaluation.options import CHUNK_BYTES, Options, options_of
from xent.evaluation.sources.opening import check_pair, open_keys, open_source
from xent.evaluation.sources.source import Source, refusal
from xent.evaluation.sources.topk import TopKSource
from xent.evaluation.statistics.metrics import Evaluation, Temperature, finish
from xent.evaluation.statistics.state import State
from xent.evaluation.statistics.temperature import fit

SAME_STATES = ("on_bad_label", "on_error", "predicted_bytes")
"""Options that leave the state of a chunk as it is."""


@dataclass(frozen=True, eq=False)
class Planned:
    """A pass over the rows of which nothing has been read but headers.

    Attributes
    ----------
    work : Work
    bounds : list of int
        The rows at which chunks begin, and the end.
    predictions, labels : Source
    keys : the sources of slices and clusters, None where there are none
    """

    work: Work
    bounds: list[int]
    predictions: Source
    labels: Source
    keys: Sequence[Source | None]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of the predictions."""
        return self.predictions.row_bytes

    @property
    def options(self) -> Options:
        return self.work.options

    @property
    def tasks(self) -> int:
        """The number of chunks."""
        return len(self.bounds) - 1

    @property
    def chunk_bytes(self) -> int:
        """Bytes of the largest chunk's predictions."""
        return largest_chunk(self.bounds) * self.row_bytes

    @property
    def bytes(self) -> int:
        """Bytes of all predictions."""
        return self.work.rows * self.row_bytes

    @property
    def kept_rows(self) -> int:
        """Rows of the chunks that an earlier run has finished."""
        store = self.work.store
        return 0 if store is None else sum(b - a for a, b in pairwise(self.bounds) if store.path(a, b).exists())


@dataclass(frozen=True, eq=False)
class Pass(Planned):
    """A planned evaluation.

    Attributes
    ----------
    losses : LossFile or None
        Where the loss of every row goes.
    fits_temperature : bool
    """

    losses: LossFile | None = None
    fits_temperature: bool = False

    def graph(self) -> tuple[Graph, Any]:
        """A Dask graph and the key of its root, the state of the whole set."""
        source = cut_statistics(self.predictions, self.labels, self.bounds, self.options)
        return graph_of(self.work, self.bounds, [source, self.labels, *self.keys])

    def run(
        self, *, scheduler: Any = None, progress: Progress | None = None, label_remedy: str = LABEL_REMEDY
    ) -> Evaluation:
        """Compute the graph; parameters, result and errors are those of :func:`evaluate`.

        `label_remedy` is what the error of bad labels advises, in the words of the caller; ``{label}`` is the first.
        """
        with engine(scheduler, progress) as compute, writing(self.losses):
            state: State = compute(*self.graph(), self.bounds)
            check_labels(state, self.options, self.predictions, label_remedy)
        found = finish(state, self.options)
        if not self.fits_temperature:
            return found
        with engine(scheduler, None) as compute:
            return replace(found, temperature=self.temperature(compute, found))

    def temperature(self, compute: Any, found: Evaluation) -> Temperature:
        """The temperature of the least loss, and the numbers at it."""
        plain = replace(self.options, by_class=False, on_bad_label="skip")

        def at(inverse: float) -> Evaluation:
            work = replace(self.work, options=plain, inverse_temperature=inverse, store=None, losses=None)
            return finish(compute(*graph_of(work, self.bounds, [self.predictions, self.labels]), self.bounds), plain)

        return fit(at, found)


def evaluate(
    predictions: Any,
    labels: Any = None,
    *,
    kind: str = "logits",
    ignore_index: int | Iterable[int] | None = None,
    on_bad_label: str = "error",
    on_error: str = "error",
    clusters: Any = None,
    slices: Any = None,
    by_class: bool = False,
    top_k: int | Iterable[int] = (),
    bins: int = 15,
    classwise: bool = False,
    fit_temperature: bool = False,
    predicted_bytes: int | None = None,
    per_example: Any = None,
    overwrite: bool = False,
    state: Any = None,
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
        say itself comes after a ``#``: docs/evaluation.md. Also arrays of other libraries that NumPy can see, and
        :class:`~xent.evaluation.sources.TopK`. Without `labels` an iterable of blocks, pairs of predictions and labels
        that are taken as they come: what needs to know the rows beforehand, or to see them twice, cannot be asked.
    labels : the same, shape (rows,), integer, in ``[0, C)``
    kind : {"logits", "probabilities", "log_probabilities"}
        What the predictions are. Rows of probabilities that do not sum to 1 are counted, and taken as they are.
    ignore_index : int, iterable of int, or None
        Labels of rows to leave out, whatever their predictions hold.
    on_bad_label : {"error", "skip"}
        Whether a label outside ``[0, C)`` that is not ignored is an error, or a row to count and leave out.
    on_error : {"error", "skip"}
        Whether rows that cannot be read are an error, or are counted and left out.
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
    classwise : bool
        Whether to find the classwise calibration error too, which takes each probability a second time.
    fit_temperature : bool
        Whether to find the temperature that minimises the loss, in some six to twelve more passes.
    predicted_bytes : int, optional
        How many bytes the counted rows stand for, for bits per byte.
    chunk_bytes : int
        Bytes of predictions in a task, at most, unless a stored Zarr chunk is larger. Peak memory is about twice this
        for each thread. The chunks of a Dask array are kept as they are.
    per_example : path, optional
        Where to write the loss of every row, NaN where it is left out: a .npy or .parquet file, or a .zarr array.
    overwrite : bool
        Whether `per_example` may be there already.
    state : path, optional
        A directory in which finished chunks are kept, so that the same call goes on where an interrupted one was.
    scheduler : None, "threads", "sync", "processes", "tcp://host:8786", the path of a scheduler file, or a Client
        Where the tasks run. None is threads of this process, whatever Dask's configuration says; the command line
        takes the address of a scheduler from there (DASK_SCHEDULER_ADDRESS) where no option names one. "processes:2"
        starts two processes on this machine.
    progress : callable, optional
        Called with the number of rows of each chunk as it finishes, in the calling thread.

    Returns
    -------
    Evaluation
        Losses in nats.

    Raises
    ------
    FileNotFoundError, FileExistsError, TypeError, ValueError
        Before any work: a missing file, an output that is there, or a shape, dtype, option or state that cannot be.
    LabelError
        After the pass, if labels are bad and `on_bad_label` is "error": how many, the first row and its label.
    ReadError
        If a file is truncated, corrupt, or changes while it is read, or, before any work, if a Zarr array lacks chunks.
    ConnectionError
        If no scheduler answers, or the cluster is gone before the work is done.
    ModuleNotFoundError
        If dask, or zarr for a Zarr array, is not installed.

    Notes
    -----
    A row that is NaN makes the mean NaN; without one, a row of loss +inf makes it +inf. `nan_rows` and `infinite_rows`
    count them and `first_nan` and `first_infinite` name them. The standard error takes rows as independent, which the
    tokens of one text are not.

    zarr does not write a chunk of nothing but the fill value unless told to, so a chunk left out on purpose looks like
    one that was lost. Of predictions both are refused; of labels, slices and clusters both are read as the fill value,
    and the command line says how many there are.

    Examples
    --------
    Uniform logits over four classes cost log 4 nats, every time.

    >>> import numpy as np
    >>> result = evaluate(np.zeros((3, 4), np.float32), np.asarray([0, 1, 2]))
    >>> round(result.perplexity, 6), result.standard_error, result.counted
    (4.0, 0.0, 3)
    """
    asked: dict[str, Any] = {
        "kind": kind,
        "ignore_index": ignore_index,
        "on_bad_label": on_bad_label,
        "on_error": on_error,
        "by_class": by_class,
        "top_k": top_k,
        "bins": bins,
        "classwise": classwise,
        "predicted_bytes": predicted_bytes,
        "chunk_bytes": chunk_bytes,
    }
    if labels is None:
        keys = {"clusters": clusters, "slices": slices, "per_example": per_example, "state": state}
        check_stream(predictions, **keys, scheduler=scheduler, fit_temperature=fit_temperature or None)
        return evaluate_blocks(predictions, options_of(**asked), progress)
    planned = plan(
        predictions,
        labels,
        clusters=clusters,
        slices=slices,
        fit_temperature=fit_temperature,
        per_example=per_example,
        overwrite=overwrite,
        state=state,
        **asked,
    )
    return planned.run(scheduler=scheduler, progress=progress)


def plan(
    predictions: Any,
    labels: Any,
    *,
    clusters: Any = None,
    slices: Any = None,
    fit_temperature: bool = False,
    per_example: Any = None,
    overwrite: bool = False,
    state: Any = None,
    **asked: Any,
) -> Pass:
    """The plan of :func:`evaluate`, with the same parameters; only headers are read, and the names of Zarr chunks."""
    options = options_of(**asked)
    opened, truth = open_source(predictions, "predictions"), open_source(labels, "labels")
    check_pair(opened, truth)
    check_kind(opened, options)
    check_whole_rows(opened, options, fit_temperature=fit_temperature)
    keys = open_keys(opened, slices=slices, clusters=clusters)
    opened.check_complete()  # not the labels: zarr leaves out a chunk of nothing but class 0, and may
    bounds = opened.bounds(options.chunk_bytes)
    inputs = {"predictions": opened, "labels": truth, "slices": keys[0], "clusters": keys[1]}
    store = store_of(state, inputs, options, per_example=per_example is not None)
    losses = LossFile.plan(per_example, [opened, truth, *keys], store, overwrite=overwrite)
    rows, classes = opened.shape
    scratch = None if losses is None else losses.scratch
    work = Work(chunk_state, unread_state, options, rows, classes, store=store, losses=scratch)
    return Pass(work, bounds, opened, truth, keys, losses, fit_temperature)


def check_stream(blocks: Any, **asked: Any) -> None:
    """Raise TypeError or ValueError unless it is an iterable of blocks of which no more is asked than can be told."""
    if not isinstance(blocks, Iterable) or isinstance(blocks, str | bytes) or hasattr(blocks, "shape"):
        raise TypeError("evaluate: `labels` must be given, got None. Pass the labels of these predictions.")
    named = [name for name, one in asked.items() if one is not None]
    if named:
        rule = f"be stored, or in hand, where `{named[0]}` is given"
        raise ValueError(refusal("predictions", rule, "an iterable of blocks", f"Leave out {named[0]}."))


def store_of(
    directory: Any, sources: dict[str, Source | None], options: Options, *, per_example: bool = False
) -> Store | None:
    """Where finished chunks are kept, if they are to be; those of a run that wrote no losses are of another run."""
    if directory is None:
        return None
    inputs = {name: one.fingerprint() for name, one in sources.items() if one is not None}
    for name, mark in inputs.items():
        if mark is None:
            got, remedy = f"{sources[name]} as `{name}`", "Save it as a file, and pass its path."
            raise ValueError(refusal("state", "be of files alone, whose change is seen", got, remedy))
    asked = {key: one for key, one in asdict(options).items() if key not in SAME_STATES}
    return open_store(directory, {**inputs, "options": asked, "per_example": per_example, "version": xent.__version__})


def check_kind(predictions: Source, options: Options) -> None:
    """Raise ValueError where log-probabilities are said to be something else."""
    if isinstance(predictions, TopKSource) and options.kind == "probabilities":
        rule, remedy = "be log-probabilities, of the largest classes", "Leave out the kind, and save logarithms."
        raise ValueError(refusal("predictions", rule, options.kind, remedy))


def check_whole_rows(predictions: Source, options: Options, *, fit_temperature: bool) -> None:
    """Raise ValueError where something is asked for that needs every class of a row at once, and they are not."""
    for name, asked in (("classwise", options.classwise), ("fit_temperature", fit_temperature)):
        if asked and not predictions.has_whole_rows:
            rule = "have every class of a row in one piece"
            remedy = f"Call rechunk({{1: -1}}) of a Dask array, or leave out {name}."
            raise ValueError(refusal("predictions", rule, predictions, remedy))
