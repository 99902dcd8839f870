"""The evaluation of a prediction set in one pass, and the plan that is made first.

A task opens the files, takes its own rows with every class, and returns a
:class:`~xent.evaluation.statistics.state.State`. The states merge exactly, so the numbers are the same bits for any
chunking over rows, any scheduler and any number of workers.
Leaves out what a task does (``tasks.py``), the public function (:func:`xent.evaluate`) and how the result is shown.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import xent
from xent.checks import flag
from xent.evaluation.engine.checkpoint import Store, fingerprints_of, held, open_store
from xent.evaluation.engine.kinds import check_kind_of_rows
from xent.evaluation.engine.labels import LABEL_REMEDY, check_labels
from xent.evaluation.engine.memory import check_fits, largest_chunk, most_apart
from xent.evaluation.engine.parts import PartFile, part_file
from xent.evaluation.engine.prediction_sets import open_set, prediction_bytes
from xent.evaluation.engine.row_losses import LossFile, writing
from xent.evaluation.engine.schedulers import engine
from xent.evaluation.engine.tasks import Job, chunk_state, cut_statistics, unreadable_state
from xent.evaluation.engine.weights import check_weights
from xent.evaluation.engine.work import Compute, Progress, Work
from xent.evaluation.options import Keys, Options, Outputs, Rows, checked_rows
from xent.evaluation.outputs import WriteError
from xent.evaluation.sources.hidden_states import Head
from xent.evaluation.sources.messages import refusal
from xent.evaluation.sources.opening import check_still_stored, unstored_of
from xent.evaluation.sources.source import Source
from xent.evaluation.sources.storage import is_url, without_file_protocol
from xent.evaluation.sources.topk import TopKSource
from xent.evaluation.statistics.cluster_sums import ClustersApart, TooManyClusters
from xent.evaluation.statistics.evaluation import Evaluation, Temperature
from xent.evaluation.statistics.metrics import finish
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
        The rows at which chunks begin, and the end; of all rows, or of a range of them.
    all_bounds : list of int
        Those of all rows.
    sources : mapping of str to Source
        All that is read, by the name of the argument: predictions, labels, slices, clusters.
    unstored_chunks : mapping of str to int
        How many chunks of a source are not stored, of those that lack any.
    names : tuple of str
        Of the classes; empty if they have none.
    part : PartFile or None
        Where the sums are kept for :func:`xent.merge_parts`.
    command : str
        What makes such a pass, by the name that a part of it has.
    """

    command: ClassVar[str]
    job: Job
    bounds: list[int]
    all_bounds: list[int]
    sources: Mapping[str, Source]
    unstored_chunks: Mapping[str, int]
    names: tuple[str, ...] = ()
    part: PartFile | None = None

    @property
    def predictions(self) -> Source:
        return self.sources["predictions"]

    @property
    def labels(self) -> Source:
        return self.sources["labels"]

    @property
    def keys(self) -> Keys:
        """The sources of slices, clusters and weights, None where there are none."""
        return Keys(*map(self.sources.get, Keys._fields))

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of the predictions."""
        return self.predictions.row_bytes

    @property
    def options(self) -> Options:
        return self.job.options

    @property
    def rows(self) -> int:
        """The number of rows that are read."""
        return self.bounds[-1] - self.bounds[0]

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
        """Bytes of the predictions that are read."""
        return self.rows * self.row_bytes

    def shared_bytes(self, threads: int) -> int:
        """Bytes that a process of so many threads takes beside its chunks, such as a classifier."""
        return sum(source.memory(threads) for source in self.sources.values())

    def work(self) -> Work:
        """All chunks, whose state is the sums of all rows."""
        raise NotImplementedError

    def sums(self, compute: Compute) -> Any:
        """The sums of all rows; they are made anew where rows of a cluster lie apart, and clusters kept one by one.

        Raises
        ------
        ValueError
            If those are too many.
        """
        try:
            return compute(self.work())
        except ClustersApart:
            job = replace(self.job, most_apart=most_apart(self), store=None)
        try:
            return compute(replace(self, job=job).work())
        except TooManyClusters:
            rule = f"have the rows of each beside each other, or be at most {job.most_apart:,}, which fit into memory"
            got = "more, with rows that lie apart"
            raise ValueError(refusal("clusters", rule, got, "Sort the rows of all inputs by cluster.")) from None

    @property
    def options_of_rows(self) -> Options:
        """The options without those that are of the whole set, where these are some of its rows, to be merged."""
        if self.part is None or self.rows == self.job.rows:
            return self.options
        return replace(self.options, strict_kind=False, predicted_bytes=None)

    @property
    def kept_rows(self) -> int:
        """Rows of the chunks that an earlier run has finished."""
        store = self.job.store
        return 0 if store is None else store.rows_kept(self.bounds)


@dataclass(frozen=True, eq=False)
class Pass(Planned):
    """A planned evaluation.

    Attributes
    ----------
    losses : LossFile or None
        Where the loss of every row is written.
    fits_temperature : bool
    """

    command = "evaluate"
    losses: LossFile | None = None
    fits_temperature: bool = False

    def work(self) -> Work:
        """All chunks, whose state is that of the whole set."""
        job = self.job
        predictions = cut_statistics(self.predictions, self.labels, self.bounds, self.options.kind, job.ignored)
        return Work(job, self.bounds, [predictions, self.labels, *self.keys])

    def run(
        self,
        *,
        scheduler: Any = None,
        progress: Progress | None = None,
        label_remedy: str = LABEL_REMEDY,
        keep: Callable[[Any], None] | None = None,
    ) -> Evaluation:
        """Do the work; parameters, result and errors are those of :func:`xent.evaluate`.

        `label_remedy` is what the error of bad labels advises, in the words of the caller; ``{label}`` is the first.
        `keep` is called with the sums when they have been checked.
        """
        failure = None
        with held(self.job.store), engine(scheduler, progress) as compute, writing(self.losses):
            state: State = self.sums(compute)
            check_labels(state, self.options, self.predictions, self.labels, label_remedy)
            check_weights(state, self.options)
            check_kind_of_rows(state, self.options_of_rows)
            check_still_stored(self.sources, self.unstored_chunks)
            evaluation = finish(state, self.options_of_rows, self.names, self.job.rows)
            evaluation = replace(evaluation, unstored_chunks=self.unstored_chunks)
            try:
                if keep is not None:
                    keep(state)
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
        options = replace(
            self.options, by_class=False, confusion=False, auc=False, calibration=False, on_bad_label="skip"
        )

        def evaluate_at(inverse: float) -> Evaluation:
            job = replace(self.job, options=options, inverse_temperature=inverse, store=None, losses=None)
            sources = [self.predictions, self.labels, *Keys(weights=self.keys.weights, mask=self.keys.mask)]
            return finish(compute(Work(job, self.bounds, sources)), options)

        return fit(evaluate_at, evaluation)


def plan(
    predictions: Any,
    labels: Any,
    options: Options = Options(),  # noqa: B008  # it cannot be changed
    *,
    keys: Keys = Keys(),  # noqa: B008  # the same
    outputs: Outputs = Outputs(),  # noqa: B008  # the same
    class_names: Any = None,
    fit_temperature: bool = False,
    head: Head = Head(),  # noqa: B008  # the same
    rows: Rows | None = None,
) -> Pass:
    """The plan of :func:`xent.evaluate`; only headers are read, and errors are those of before any work."""
    fit_temperature = flag("evaluate", "fit_temperature", fit_temperature)
    heads = {"predictions": head}
    given = open_set({"predictions": predictions}, labels, options, keys=keys, class_names=class_names, heads=heads)
    sources, opened = given.sources, given.sources["predictions"]
    check_kind(opened, options)
    check_whole_rows(opened, options, fit_temperature=fit_temperature)
    check_fits(opened.shape[1], options)
    unstored = unstored_of(sources, zeros_ok=options.zeros_ok)
    all_bounds = opened.bounds(prediction_bytes(opened, sources["labels"], options))
    bounds = bounds_within(all_bounds, checked_rows(rows, opened.shape[0]))
    for name, argument, is_given in (
        ("per_example", "rows", outputs.per_example is not None and rows is not None),
        ("fit_temperature", "state_out", fit_temperature and outputs.state_out is not None),
    ):
        if is_given:
            raise ValueError(refusal(name, f"be left out where `{argument}` is given", "both", f"Leave out {name}."))
    if (
        outputs.per_example is not None
        and outputs.state is not None
        and is_url(without_file_protocol(f"{outputs.state}"))
    ):
        rule, remedy = "be on a disk where `per_example` is given, whose losses are kept there", "Name a local folder."
        raise ValueError(refusal("state", rule, outputs.state, remedy))
    store = store_of(outputs.state, sources, options, per_example=outputs.per_example is not None)
    losses = None
    if outputs.per_example is not None:
        losses = LossFile.plan(outputs.per_example, sources, store, overwrite=outputs.overwrite)
    part = part_file(outputs, sources)
    scratch = None if losses is None else losses.scratch
    count, classes = opened.shape
    job = Job(chunk_state, unreadable_state, options, count, classes, given.ignored, store=store, losses=scratch)
    return Pass(job, bounds, all_bounds, sources, unstored, given.names, part, losses, fit_temperature)


def bounds_within(bounds: list[int], rows: tuple[int, int]) -> list[int]:
    """The bounds of the chunks of a range of rows, those at its ends cut."""
    start, stop = rows
    inside = bounds[bisect_right(bounds, start) : bisect_left(bounds, stop)]
    return [start, *inside, stop] if start < stop else [start]


def store_of(
    directory: Any, sources: Mapping[str, Source], options: Options, *, per_example: bool = False
) -> Store | None:
    """The store of finished chunks in a directory, None for None.

    A store of other inputs or options is refused; if losses are to be written, so is that of a run that wrote none.
    """
    if directory is None:
        return None
    fingerprints = fingerprints_of("state", sources)
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
    needs = {"classwise": options.classwise, "auc": options.auc, "fit_temperature": fit_temperature}
    if not isinstance(predictions, TopKSource):  # a row's k largest tell its predicted class
        needs["confusion"] = options.confusion
    for name, needs_whole_rows in needs.items():
        if needs_whole_rows and not predictions.has_whole_rows:
            rule = "have every class of a row in one piece"
            remedy = f"Call rechunk({{1: -1}}) of a Dask array, or leave out {name}."
            raise ValueError(refusal("predictions", rule, predictions, remedy))
