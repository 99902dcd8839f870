r"""Two prediction sets of the same rows, compared row by row, in one pass.

.. math:: d_i = \ell^A_i - \ell^B_i, \qquad \bar d = \frac1n \sum_i d_i

The rows of two models are right and wrong together, so the error of the mean difference is far smaller than the errors
of the two means suggest. Leaves out how the result is shown.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import xent
from xent.evaluation.engine.checkpoint import held
from xent.evaluation.engine.class_values import predicted_classes
from xent.evaluation.engine.evaluate_pass import Planned, bounds_within, store_of
from xent.evaluation.engine.kinds import check_kind_of_rows, counter_of_probabilities
from xent.evaluation.engine.labels import LABEL_REMEDY, check_labels, outside_top_k
from xent.evaluation.engine.parts import part_file
from xent.evaluation.engine.prediction_sets import open_set, prediction_bytes
from xent.evaluation.engine.schedulers import engine
from xent.evaluation.engine.soft_labels import targets_of
from xent.evaluation.engine.tasks import (
    Job,
    cut_statistics,
    rows_left_out,
    statistics_of,
    unreadable_state,
    with_targets,
)
from xent.evaluation.engine.weights import check_weights, row_weights
from xent.evaluation.engine.work import Progress, Work
from xent.evaluation.options import Keys, Options, Outputs, Rows, checked_rows
from xent.evaluation.outputs import WriteError
from xent.evaluation.sources.hidden_states import Head
from xent.evaluation.sources.in_memory import to_numpy
from xent.evaluation.sources.opening import check_still_stored, unstored_of
from xent.evaluation.sources.source import Source
from xent.evaluation.statistics.blocks import Grouper, state_of, tally_of
from xent.evaluation.statistics.cluster_sums import Clusters, clusters_of
from xent.evaluation.statistics.evaluation import Evaluation, Metric, short_repr
from xent.evaluation.statistics.exact_sums import Moments, moments_of
from xent.evaluation.statistics.metrics import (
    cluster_count,
    degrees_of_freedom,
    finish,
    independent_error,
    interval,
    mean_loss,
    metrics_by_key,
    with_clusters,
    with_whole_clusters,
)
from xent.evaluation.statistics.paired_tests import McNemar, holm, mcnemar, rows_needed
from xent.evaluation.statistics.state import Group, State, Tally
from xent.evaluation.statistics.student import p_value

SETS = string.ascii_lowercase
"""The names of the sets of a comparison."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The sums of some rows of two sets, A and B, and those of the difference of their losses.

    ``difference`` is a state whose loss is d, ``above`` and ``below`` are the rows in which d is +inf or −inf;
    ``better``, ``worse`` and ``ties`` count the rows in which A's loss is under B's, over it, and the same;
    ``right_in_a`` and ``right_in_b`` those that A alone has right, or B. A group's "correct" rows are those in which
    A's loss is under.
    """

    a: State = field(default_factory=State)
    b: State = field(default_factory=State)
    difference: State = field(default_factory=State)
    above: Tally = field(default_factory=Tally)
    below: Tally = field(default_factory=Tally)
    better: int = 0
    worse: int = 0
    ties: int = 0
    right_in_a: int = 0
    right_in_b: int = 0

    @property
    def rows(self) -> int:
        return self.difference.rows

    @property
    def unreadable(self) -> Tally:
        """The rows that could not be read in one of the sets."""
        return self.difference.unreadable

    @property
    def sets(self) -> tuple[State, ...]:
        """The sums of each set."""
        return self.a, self.b


class SliceDifference(NamedTuple):
    """The rows of one slice: the mean of A's loss less B's, its standard error, and the share in which A's is less.

    The degrees of freedom are those of the error. The adjusted p-value is that for as many tests as there are slices,
    by Holm's correction.
    """

    counted: int
    mean_difference: float
    standard_error: float
    share_better: float
    degrees_of_freedom: int
    p_value: float
    adjusted_p_value: float


@dataclass(frozen=True, repr=False)
class Comparison:
    """The difference of the losses of two prediction sets of the same rows.

    Attributes
    ----------
    mean_difference : float
        Mean of A's loss less B's over counted rows, in nats: negative where A is better. NaN if a difference is.
    standard_error : float
        Of mean_difference: rows, or clusters if they are given, taken as independent.
    confidence_interval : tuple of float
        95 %: mean_difference ± t standard errors, where t is the 97.5 % point of Student's distribution.
    p_value : float
        Of a difference at least so large, either way, if there were none: by Student's distribution.
    degrees_of_freedom : int
        Of that distribution: one less than the clusters, or than the counted rows without them; 0 of none.
    better, worse, ties : int
        The counted rows in which A's loss is under B's, over it, the same.
    counted, rows : int
        Rows neither ignored nor of a bad label; all rows.
    clusters : int or None
    slices : mapping to SliceDifference
    mcnemar : McNemar
        Whether one set has more rows right than chance tells: rows that A alone has right, and B, and their p-value.
    rows_needed : int or None
        Rows like these in which a difference like this one is told from 0 with 80 % power, at 5 %; None of no
        difference.
    a, b : Evaluation
        The numbers of each set by itself.
    unstored_chunks : mapping of str to int
        As in an evaluation.
    """

    mean_difference: float
    standard_error: float
    confidence_interval: tuple[float, float]
    p_value: float
    degrees_of_freedom: int
    better: int
    worse: int
    ties: int
    counted: int
    rows: int
    clusters: int | None
    slices: Mapping[Any, SliceDifference]
    mcnemar: McNemar
    rows_needed: int | None
    a: Evaluation
    b: Evaluation
    unstored_chunks: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        shown = ("mean_difference", "standard_error", "p_value", "counted", "rows")
        return short_repr("Comparison", self, shown)


@dataclass(frozen=True, eq=False)
class SetsPass(Planned):
    """A planned comparison; the sources are a, b, … of as many sets, labels, slices, clusters, weights and mask."""

    @property
    def predictions(self) -> Source:
        """Those of A."""
        return self.sources["a"]

    @property
    def sets(self) -> dict[str, Source]:
        """The predictions of each set, by its letter."""
        return {name: source for name, source in self.sources.items() if name in SETS}

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of all sets."""
        return sum(source.row_bytes for source in self.sets.values())

    def work(self) -> Work:
        """All chunks, whose state is the sums of all sets."""
        cut = [
            cut_statistics(source, self.labels, self.bounds, options_of(self.options, name).kind, self.job.ignored)
            for name, source in self.sets.items()
        ]
        return Work(self.job, self.bounds, [*cut, self.labels, *self.keys])

    def run(
        self,
        *,
        scheduler: Any = None,
        progress: Progress | None = None,
        label_remedy: str = LABEL_REMEDY,
        keep: Callable[[Any], None] | None = None,
    ) -> Any:
        """Do the work; parameters, result and errors are those of :func:`xent.compare`.

        `keep` is called with the sums when they have been checked.
        """
        with held(self.job.store), engine(scheduler, progress) as compute:
            state = self.sums(compute)
        sums = self.empty if isinstance(state, State) else state  # of no chunks
        for (name, source), own in zip(self.sets.items(), sums.sets, strict=True):
            options = options_of(self.options_of_rows, name)
            check_labels(own, options, source, self.labels, label_remedy)
            check_weights(own, options)
            check_kind_of_rows(own, options, name)
        check_still_stored(self.sources, self.unstored_chunks)
        result = replace(self.finish(sums), unstored_chunks=self.unstored_chunks)
        try:
            if keep is not None:
                keep(sums)
        except WriteError as error:
            error.result = result
            raise
        return result

    @property
    def empty(self) -> Any:
        """The sums of no rows."""
        raise NotImplementedError

    def finish(self, sums: Any) -> Any:
        """The result of the sums."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class PairPass(SetsPass):
    """A planned comparison of two sets."""

    command = "compare"

    @property
    def empty(self) -> Pair:
        return Pair()

    def finish(self, sums: Pair) -> Comparison:
        return comparison(sums, self.options, self.names, self.job.rows)


def options_of(options: Options, name: str) -> Options:
    """The options of a set of a comparison, by its letter."""
    return options if name == "a" else options.of_b()


def plan_pair(
    a: Any,
    b: Any,
    labels: Any,
    options: Options = Options(),  # noqa: B008  # it cannot be changed
    *,
    keys: Keys = Keys(),  # noqa: B008  # the same
    outputs: Outputs = Outputs(),  # noqa: B008  # the same
    class_names: Any = None,
    heads: tuple[Head, Head] = (Head(), Head()),
    rows: Rows | None = None,
) -> PairPass:
    """The plan of :func:`xent.compare`; only headers are read, and errors are those of before any work.

    B has the head of A where it has none of its own.
    """
    heads[1].check_has_classifier()
    own = {"a": heads[0], "b": heads[1] if heads[1].classifier is not None else heads[0]}
    wanted: dict[str, Any] = {"class_names": class_names, "heads": own, "rows": rows}
    measures = chunk_pair, unreadable_pair
    return PairPass(**planned_sets({"a": a, "b": b}, labels, options, *measures, keys=keys, outputs=outputs, **wanted))


def planned_sets(
    sets: Mapping[str, Any],
    labels: Any,
    options: Options,
    measure: Callable[..., Any],
    skip: Callable[[int, int], Any],
    *,
    keys: Keys,
    outputs: Outputs,
    class_names: Any,
    heads: Mapping[str, Head],
    rows: Rows | None,
) -> dict[str, Any]:
    """The attributes of the plan of a comparison of these sets; `measure` and `skip` are as in a :class:`Job`."""
    given = open_set(sets, labels, options, keys=keys, class_names=class_names, heads=heads)
    sources, first = given.sources, given.sources["a"]
    unstored = unstored_of(sources, zeros_ok=options.zeros_ok)
    store = store_of(outputs.state, sources, options)
    count, classes = first.shape
    all_bounds = first.bounds(prediction_bytes(first, sources["labels"], options))
    return {
        "job": Job(measure, skip, options, count, classes, given.ignored, store=store),
        "bounds": bounds_within(all_bounds, checked_rows(rows, count)),
        "all_bounds": all_bounds,
        "sources": sources,
        "unstored_chunks": unstored,
        "names": given.names,
        "part": part_file(outputs, sources),
    }


def chunk_pair(job: Job, first_row: int, *blocks: Any, unread: NDArray[np.bool_] | None = None) -> Pair:
    """The sums of some rows of both sets; the blocks are those of A, B, labels, slices, clusters, weights and mask.

    `unread` marks the rows that could not be read.
    """
    (a, b), ((_, pair),) = chunk_sets(job, first_row, *blocks, unread=unread)
    return replace(pair, a=a, b=b)


def chunk_sets(
    job: Job, first_row: int, *blocks: Any, unread: NDArray[np.bool_] | None = None
) -> tuple[list[State], list[tuple[tuple[int, int], Pair]]]:
    """The sums of some rows of each set, and the differences of every two of them, by their numbers.

    A row counts where it counts in all sets.
    """
    *sets, labels, slices, clusters, weights, mask, _ = blocks
    targets = targets_of(labels)
    labels = to_numpy(labels) if targets is None else targets.labels
    slices, clusters = to_numpy(slices), to_numpy(clusters)
    unread, ignored, bad = rows_left_out(job, labels, unread, mask)
    weights, bad_weight = row_weights(weights, unread, ignored, bad)
    no_weight = np.zeros(labels.shape, bool) if bad_weight is None else bad_weight
    beyond = np.logical_or.reduce([outside_top_k(rows, labels) for rows in sets])
    outside = beyond & ~(unread | ignored | bad | no_weight)
    jobs = [replace(job, options=options_of(job.options, name)) for name in SETS[: len(sets)]]
    statistics = [statistics_of(each, rows, labels, unread | ignored) for each, rows in zip(jobs, sets, strict=True)]
    if targets is not None:
        statistics = [
            with_targets(each, own, rows, targets) for own, each, rows in zip(statistics, jobs, sets, strict=True)
        ]
    states = [
        state_of(
            row_statistics,
            labels,
            each.options,
            first_row=first_row,
            all_rows=job.rows,
            ignored=ignored,
            bad=bad,
            outside_top_k=outside,
            unread=unread,
            clusters=clusters,
            like_probabilities=counter_of_probabilities(each.options, predictions, row_statistics),
            predicted=predicted_classes(predictions),
            weights=weights,
            bad_weight=bad_weight,
            target_entropy=None if targets is None else targets.entropy,
            most_apart=job.most_apart,
        )
        for each, row_statistics, predictions in zip(jobs, statistics, sets, strict=True)
    ]
    left_out = LeftOut(first_row, ignored, bad, outside, unread, no_weight)
    pairs = [
        (pair, difference_of(left_out, [statistics[i] for i in pair], slices, clusters, weights, job.most_apart))
        for pair in combinations(range(len(sets)), 2)
    ]
    return states, pairs


class LeftOut(NamedTuple):
    """The first of some rows, and which of them do not count, and why."""

    first_row: int
    ignored: NDArray[np.bool_]
    bad: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    unread: NDArray[np.bool_]
    no_weight: NDArray[np.bool_]


def difference_of(
    left_out: LeftOut,
    statistics: Sequence[xent.RowStatistics],
    slices: NDArray[Any] | None,
    clusters: NDArray[Any] | None,
    weights: NDArray[np.float64] | None,
    most_apart: int,
) -> Pair:
    """The sums of the differences of the rows of two sets, without those of the sets."""
    first_row, ignored, bad, outside, unread, no_weight = left_out
    counted = ~(unread | ignored | bad | outside | no_weight)
    loss_a, loss_b = (np.asarray(row_statistics.loss, np.float64) for row_statistics in statistics)
    with np.errstate(invalid="ignore", over="ignore"):  # inf − inf
        difference = loss_a - loss_b
        finite = counted & np.isfinite(difference if weights is None else difference * weights)
    grouper = Grouper(difference, counted, finite, loss_a < loss_b, weights)
    groups = None
    if clusters is not None:
        columns = {"loss": difference, "accuracy": loss_a < loss_b}
        groups = clusters_of(clusters, slices, counted, columns, weights, first_row, most_apart)
    sums = State(
        rows=len(counted),
        ignored=int(np.count_nonzero(ignored)),
        unreadable=tally_of(unread, first_row),
        bad_label=tally_of(bad, first_row),
        outside_top_k=tally_of(outside, first_row),
        nan=tally_of(counted & np.isnan(difference), first_row),
        bad_weight=tally_of(no_weight, first_row),
        weight=Moments() if weights is None else moments_of(weights[counted]),
        loss=moments_of(difference[finite], None if weights is None else weights[finite]),
        slices=grouper.by(slices),
        clusters=groups,
    )
    above, below = (tally_of(counted & (difference == end), first_row) for end in (np.inf, -np.inf))
    orders = (loss_a < loss_b, loss_a > loss_b, loss_a == loss_b)
    better, worse, ties = (int(np.count_nonzero(counted & order)) for order in orders)
    right_a, right_b = (np.asarray(row_statistics.label_rank) == 0 for row_statistics in statistics)
    alone = (int(np.count_nonzero(counted & own & ~other)) for own, other in ((right_a, right_b), (right_b, right_a)))
    return Pair(State(), State(), sums, above, below, better, worse, ties, *alone)


def unreadable_pair(first_row: int, rows: int) -> Pair:
    """The sums of rows that could not be read in one of the sets."""
    state = unreadable_state(first_row, rows)
    return Pair(state, state, state)


def comparison(pair: Pair, options: Options, names: Sequence[str] = (), all_rows: int | None = None) -> Comparison:
    """The comparison of two sets, from their sums; `names` and `all_rows` are as :func:`finish` takes them."""
    sums = with_whole_clusters(pair.difference)
    mean, degrees = mean_difference(pair), degrees_of_freedom(sums)
    error = with_clusters("loss", Metric(mean, independent_error(sums), sums.counted), sums.clusters).stderr
    return Comparison(
        mean_difference=mean,
        standard_error=error,
        confidence_interval=interval(mean, error, degrees),
        p_value=p_value(mean, error, degrees),
        degrees_of_freedom=degrees,
        better=pair.better,
        worse=pair.worse,
        ties=pair.ties,
        counted=sums.counted,
        rows=sums.rows,
        clusters=cluster_count(sums),
        slices=slice_differences(sums.slices, sums.clusters),
        mcnemar=mcnemar(pair.right_in_a, pair.right_in_b),
        rows_needed=rows_needed(mean, error, sums.counted),
        a=finish(pair.a, options, names, all_rows),
        b=finish(pair.b, options.of_b(), names, all_rows),
    )


def mean_difference(pair: Pair) -> float:
    """The mean difference; NaN if a row's is, or if one is +inf and another −inf."""
    if pair.difference.nan.count:
        return math.nan
    ends = (math.inf if pair.above.count else 0.0) - (math.inf if pair.below.count else 0.0)
    return ends or mean_loss(pair.difference)


def slice_differences(slices: Mapping[Any, Group], clusters: Clusters | None) -> dict[Any, SliceDifference]:
    """The numbers of each slice, in the order of their keys; NaN if one of its differences is not finite."""
    numbers = metrics_by_key(slices, clusters)
    chances = [p_value(each.mean_loss, each.standard_error, each.degrees_of_freedom) for each in numbers.values()]
    return {
        key: SliceDifference(*each[:5], chance, adjusted)
        for (key, each), chance, adjusted in zip(numbers.items(), chances, holm(chances), strict=True)
    }
