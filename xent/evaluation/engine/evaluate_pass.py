"""The evaluation of a prediction set in one pass: :func:`evaluate`, and the plan that it makes first.

A task opens the files, takes its own rows with every class, and returns a
:class:`~xent.evaluation.statistics.state.State`. The states merge exactly, so the numbers are the same bits for any
chunking over rows, any scheduler and any number of workers.
Leaves out what a task does (``tasks.py``) and how the result is shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import xent
from xent.checks import Kind, flag
from xent.evaluation.engine.checkpoint import Store, held, open_store
from xent.evaluation.engine.kinds import check_kind_of_rows, warn_of_kind
from xent.evaluation.engine.labels import LABEL_REMEDY, check_labels
from xent.evaluation.engine.memory import check_fits, largest_chunk
from xent.evaluation.engine.prediction_sets import open_set
from xent.evaluation.engine.row_losses import LossFile, writing
from xent.evaluation.engine.schedulers import Graph, Progress, engine, graph_of
from xent.evaluation.engine.stream import check_stream, evaluate_blocks
from xent.evaluation.engine.tasks import Job, chunk_state, cut_statistics, unreadable_state
from xent.evaluation.options import (
    CHUNK_BYTES,
    Ignored,
    Keys,
    Options,
    Outputs,
    Policy,
    folders_of,
    ignored_labels,
    ranks_of,
)
from xent.evaluation.outputs import WriteError
from xent.evaluation.sources.messages import refusal
from xent.evaluation.sources.opening import check_still_stored, open_keys, unstored_of
from xent.evaluation.sources.source import Source
from xent.evaluation.sources.topk import TopKSource
from xent.evaluation.statistics.metrics import Evaluation, Temperature, finish
from xent.evaluation.statistics.state import State
from xent.evaluation.statistics.temperature import fit

STATELESS_OPTIONS = ("on_bad_label", "on_error", "strict_kind", "predicted_bytes", "zeros_ok", "allow_outside")
"""Options on which the state of a chunk does not depend."""


@dataclass(frozen=True, eq=False)
class Planned:
    """A pass over rows of which only headers have been read.

    Attributes
    ----------
    job : Job
    bounds : list of int
        The rows at which chunks begin, and the end.
    sources : mapping of str to Source
        All that is read, by the name of the argument: predictions, labels, slices, clusters.
    unstored_chunks : mapping of str to int
        How many chunks of a source are not stored, of those that lack any.
    names : tuple of str
        Of the classes; empty if they have none.
    """

    job: Job
    bounds: list[int]
    sources: Mapping[str, Source]
    unstored_chunks: Mapping[str, int]
    names: tuple[str, ...] = ()

    @property
    def predictions(self) -> Source:
        return self.sources["predictions"]

    @property
    def labels(self) -> Source:
        return self.sources["labels"]

    @property
    def keys(self) -> Keys:
        """The sources of slices and clusters, None where there are none."""
        return Keys(self.sources.get("slices"), self.sources.get("clusters"))

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of the predictions."""
        return self.predictions.row_bytes

    @property
    def options(self) -> Options:
        return self.job.options

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
        return self.job.rows * self.row_bytes

    @property
    def kept_rows(self) -> int:
        """Rows of the chunks that an earlier run has finished."""
        store = self.job.store
        return 0 if store is None else sum(b - a for a, b in pairwise(self.bounds) if store.path(a, b).exists())


@dataclass(frozen=True, eq=False)
class Pass(Planned):
    """A planned evaluation.

    Attributes
    ----------
    losses : LossFile or None
        Where the loss of every row is written.
    fits_temperature : bool
    """

    losses: LossFile | None = None
    fits_temperature: bool = False

    def graph(self) -> tuple[Graph, Any]:
        """A Dask graph and the key of its root, the state of the whole set."""
        job = self.job
        predictions = cut_statistics(self.predictions, self.labels, self.bounds, self.options.kind, job.ignored)
        return graph_of(job, self.bounds, [predictions, self.labels, *self.keys])

    def run(
        self, *, scheduler: Any = None, progress: Progress | None = None, label_remedy: str = LABEL_REMEDY
    ) -> Evaluation:
        """Compute the graph; parameters, result and errors are those of :func:`evaluate`.

        `label_remedy` is what the error of bad labels advises, in the words of the caller; ``{label}`` is the first.
        """
        failure = None
        with held(self.job.store), engine(scheduler, progress) as compute, writing(self.losses):
            state: State = compute(*self.graph(), self.bounds)
            check_labels(state, self.options, self.predictions, self.labels, label_remedy)
            check_kind_of_rows(state, self.options)
            check_still_stored(self.sources, self.unstored_chunks)
            evaluation = replace(finish(state, self.options, self.names), unstored_chunks=self.unstored_chunks)
            try:
                if self.losses is not None:
                    self.losses.publish()
            except WriteError as error:  # it is raised when all numbers are there
                failure = error
        if self.fits_temperature:
            with engine(scheduler, None) as compute:
                evaluation = replace(evaluation, temperature=self.temperature(compute, evaluation))
        if failure is not None:
            failure.result = evaluation
            raise failure
        return evaluation

    def temperature(self, compute: Any, evaluation: Evaluation) -> Temperature:
        """The temperature of the least loss, and the numbers at it; `evaluation` has those at 1."""
        options = replace(self.options, by_class=False, on_bad_label="skip")

        def evaluate_at(inverse: float) -> Evaluation:
            job = replace(self.job, options=options, inverse_temperature=inverse, store=None, losses=None)
            return finish(compute(*graph_of(job, self.bounds, [self.predictions, self.labels]), self.bounds), options)

        return fit(evaluate_at, evaluation)


def evaluate(
    predictions: Any,
    labels: Any = None,
    *,
    kind: Kind = "logits",
    strict_kind: bool = False,
    class_names: Any = None,
    ignore_index: Ignored = None,
    on_bad_label: Policy = "error",
    on_error: Policy = "error",
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
    zeros_ok: bool = False,
    allow_outside: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
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
        2 or 3), of a folder of such files or a glob of them, opened by each task for its own rows; after a ``#`` it
        may name an array of the file, or a dtype and shape: docs/evaluation.md. Also arrays of other libraries that
        NumPy can see, and :class:`~xent.evaluation.sources.TopK`. Without `labels` an iterable of blocks, pairs of
        predictions and labels that are evaluated in turn; arguments that need all rows first, or twice, are refused.
    labels : the same, shape (rows,), integer, in ``[0, C)``, or text, or true and false of two classes
        Text is the name of a class.
    kind : {"logits", "probabilities", "log_probabilities"}
        What the predictions are. Rows of probabilities that do not sum to 1 are counted, and taken as they are. Logits
        that look like probabilities, every row in [0, 1] with the sum 1, are warned of.
    strict_kind : bool
        Whether that is an error.
    class_names : iterable of str, mapping, path, or None
        The name of each class, in their order, or a mapping of names to numbers or of numbers to names; a file of
        either as JSON, or of one name in each line; or "columns", where the predictions are columns of a table that
        are named as the classes (of a glob such as ``#p_*`` what the star stands for). They stand in the result in
        place of numbers, and labels that are text are looked up in them; so are integers if every name is one.
    ignore_index : int, str, iterable of them, or None
        Labels of rows to leave out, whatever their predictions hold.
    on_bad_label : {"error", "skip"}
        Whether a label outside ``[0, C)`` that is not ignored is an error, or a row to count and leave out.
    on_error : {"error", "skip"}
        Whether rows that cannot be read are an error, or are counted and left out.
    clusters : as the labels, integers or text, optional
        The cluster of each row, the document of a token for instance: the standard error of the loss then takes
        clusters as independent instead of rows.
    slices : as the labels, integers or text, optional
        The slice of each row, for a table of them.
    by_class : bool
        Whether to make a table of the labels.
    top_k : int or iterable of int
        The k of top-k accuracies.
    bins : int
        How many bins of equal width the calibration has.
    classwise : bool
        Whether to compute the classwise calibration error too, which reads each probability a second time.
    fit_temperature : bool
        Whether to fit the temperature that minimises the loss, in some six to twelve more passes.
    predicted_bytes : int, optional
        How many bytes the counted rows stand for, for bits per byte.
    chunk_bytes : int
        Bytes of predictions in a task, at most, unless a stored Zarr chunk is larger. Peak memory is about twice this
        for each thread. The chunks of a Dask array are kept as they are.
    zeros_ok : bool
        Whether chunks of Zarr arrays that are not stored hold the fill value, as zarr leaves them out where they hold
        nothing else; they are counted in the result.
    allow_outside : path or iterable of paths
        Folders in which parts of a set may lie that it names itself (a symbolic link in a folder, a link, a virtual
        source or raw storage of an HDF5 file). Without them nothing outside of a set's own folder is read.
    per_example : path, optional
        Where to write the loss of every row, NaN where it is left out: a .npy or .parquet file, or a .zarr array.
    overwrite : bool
        Whether `per_example` may be there already.
    state : path, optional
        A directory in which finished chunks are kept, so that the same call goes on where an interrupted one was.
    scheduler : None, "threads", "sync", "processes", "tcp://host:8786", the path of a scheduler file, or a Client
        Where the tasks run. None is threads of this process, whatever Dask's configuration says; the command line
        takes the address of a scheduler from there (DASK_SCHEDULER_ADDRESS) if no option names one. "processes:2"
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
    KindError
        After the pass, if probabilities are above 1 beyond rounding and `on_error` is "error", or under `strict_kind`.
    ReadError
        If a file is truncated, corrupt, or changes while it is read, or, before any work, if an array lacks chunks or
        a set names files outside of its folder.
    ConnectionError
        If no scheduler answers, or the cluster is gone before the work is done.
    ModuleNotFoundError
        If dask, or zarr for a Zarr array, is not installed.
    WriteError
        If an output or a state cannot be written, or another run uses the state; where the pass was done by then, its
        ``result`` is the Evaluation. It is an OSError.

    Notes
    -----
    A row that is NaN makes the mean NaN; without one, a row of loss +inf makes it +inf. `nan_rows` and `infinite_rows`
    count them and `first_nan` and `first_infinite` name them. The standard error takes rows as independent, which the
    tokens of one text are not.

    zarr does not write a chunk of nothing but the fill value unless told to (``write_empty_chunks=True`` in its
    config), so a chunk left out on purpose looks like one that was lost. Both are refused, of predictions, labels,
    slices and clusters alike, unless `zeros_ok` says what they hold.

    Examples
    --------
    Uniform logits over four classes cost log 4 nats, every time.

    >>> import numpy as np
    >>> result = evaluate(np.zeros((3, 4), np.float32), np.asarray([0, 1, 2]))
    >>> round(result.perplexity, 6), result.standard_error, result.counted
    (4.0, 0.0, 3)
    """
    options = Options(
        kind=kind,
        strict_kind=strict_kind,
        ignore_index=ignored_labels(ignore_index),
        on_bad_label=on_bad_label,
        on_error=on_error,
        top_k=ranks_of(top_k),
        bins=bins,
        by_class=by_class,
        classwise=classwise,
        predicted_bytes=predicted_bytes,
        chunk_bytes=chunk_bytes,
        zeros_ok=zeros_ok,
        allow_outside=folders_of(allow_outside),
    )
    keys, outputs = Keys(slices, clusters), Outputs(per_example, overwrite, state)
    if labels is None:
        check_stream(predictions, keys, outputs, scheduler=scheduler, fit_temperature=fit_temperature)
        evaluation = evaluate_blocks(predictions, options, progress, class_names)
        warn_of_kind(predictions=evaluation)
        return evaluation
    wanted: dict[str, Any] = {"class_names": class_names, "fit_temperature": fit_temperature}
    planned = plan(predictions, labels, options, keys=keys, outputs=outputs, **wanted)
    evaluation = planned.run(scheduler=scheduler, progress=progress)
    warn_of_kind(predictions=evaluation)
    return evaluation


def plan(
    predictions: Any,
    labels: Any,
    options: Options = Options(),  # noqa: B008  # it cannot be changed
    *,
    keys: Keys = Keys(),  # noqa: B008  # the same
    outputs: Outputs = Outputs(),  # noqa: B008  # the same
    class_names: Any = None,
    fit_temperature: bool = False,
) -> Pass:
    """The plan of :func:`evaluate`; only headers are read, and errors are those of before any work."""
    fit_temperature = flag("evaluate", "fit_temperature", fit_temperature)
    allowed = options.allow_outside
    given = open_set({"predictions": predictions}, labels, options, class_names)
    opened = given.predictions["predictions"]
    check_kind(opened, options)
    check_whole_rows(opened, options, fit_temperature=fit_temperature)
    check_fits(opened.shape[1], options)
    sources = {"predictions": opened, "labels": given.labels, **open_keys(opened, keys._asdict(), allowed)}
    unstored = unstored_of(sources, zeros_ok=options.zeros_ok)
    bounds = opened.bounds(options.chunk_bytes)
    store = store_of(outputs.state, sources, options, per_example=outputs.per_example is not None)
    losses = None
    if outputs.per_example is not None:
        losses = LossFile.plan(outputs.per_example, sources, store, overwrite=outputs.overwrite)
    rows, classes = opened.shape
    scratch = None if losses is None else losses.scratch
    job = Job(chunk_state, unreadable_state, options, rows, classes, given.ignored, store=store, losses=scratch)
    return Pass(job, bounds, sources, unstored, given.names, losses, fit_temperature)


def store_of(
    directory: Any, sources: Mapping[str, Source], options: Options, *, per_example: bool = False
) -> Store | None:
    """The store of finished chunks in a directory, None for None.

    A store of other inputs or options is refused; if losses are to be written, so is that of a run that wrote none.
    """
    if directory is None:
        return None
    fingerprints = {name: source.fingerprint() for name, source in sources.items()}
    for name, fingerprint in fingerprints.items():
        if fingerprint is None:
            got, remedy = f"{sources[name]} as `{name}`", "Save it as a file, and pass its path."
            raise ValueError(refusal("state", "be of files alone, whose change is seen", got, remedy))
    chosen = {name: value for name, value in asdict(options).items() if name not in STATELESS_OPTIONS}
    run = {**fingerprints, "options": chosen, "per_example": per_example, "version": xent.__version__}
    return open_store(directory, run)


def check_kind(predictions: Source, options: Options) -> None:
    """Raise ValueError where log-probabilities are said to be something else."""
    if isinstance(predictions, TopKSource) and options.kind == "probabilities":
        rule, remedy = "be log-probabilities, of the largest classes", "Leave out the kind, and save logarithms."
        raise ValueError(refusal("predictions", rule, options.kind, remedy))


def check_whole_rows(predictions: Source, options: Options, *, fit_temperature: bool) -> None:
    """Raise ValueError where an option needs every class of a row at once and the classes are in several chunks."""
    for name, needs_whole_rows in (("classwise", options.classwise), ("fit_temperature", fit_temperature)):
        if needs_whole_rows and not predictions.has_whole_rows:
            rule = "have every class of a row in one piece"
            remedy = f"Call rechunk({{1: -1}}) of a Dask array, or leave out {name}."
            raise ValueError(refusal("predictions", rule, predictions, remedy))
