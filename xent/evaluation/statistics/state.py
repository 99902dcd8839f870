"""The sums of a prediction set, merged exactly: what a pass keeps of some rows.

The size of a state does not grow with its rows; with the tables that are asked for it grows with the classes,
slices and clusters that it has met. Leaves out how a row's numbers are computed, where the rows come from, and the
means and errors that follow from the sums (``metrics.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import xent
from xent.evaluation.options import Options
from xent.evaluation.statistics.bins import bin_of
from xent.evaluation.statistics.classwise import Classwise
from xent.evaluation.statistics.exact_sums import Moments, grouped_moments, moments_of

NORMALISED_WITHIN = 1e-3
"""How far log Σp may lie from 0 in a row that is a distribution; float16 probabilities come within half of it."""
ONE_WITHIN = 1e-2
"""How far a probability may lie above 1; a softmax in bfloat16 comes within half of it."""
SEGMENTS = 100
"""Into how many parts the rows are cut, for the loss over their position."""
WORST = 10
"""How many rows of the highest loss are kept."""
OCTAVES = (-24, 12)
"""The histogram of losses has four bins in an octave; losses under 2**-24 nats, and over 2**12, are in one bin each."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many rows share a flaw, the first such row of the whole set, and its label if that is the flaw."""

    count: int = 0
    first_row: int | None = None
    label: int | None = None

    def merge(self, other: Tally) -> Tally:
        """The tally of both."""
        seen = [tally for tally in (self, other) if tally.first_row is not None]
        first = min(seen, key=lambda tally: tally.first_row or 0, default=Tally())
        return Tally(self.count + other.count, first.first_row, first.label)


class Group(NamedTuple):
    """The rows of one class, slice or cluster: how many count and are right, and the moments of finite losses.

    ``weight`` and ``correct_weight`` are the moments of the weights of these rows, if rows have weights.
    """

    counted: int = 0
    correct: int = 0
    loss: Moments = Moments()
    weight: Moments = Moments()
    correct_weight: Moments = Moments()

    def merge(self, other: Group) -> Group:
        """The group of both."""
        return Group(*map(merge, self, other))


class Bin(NamedTuple):
    """The rows whose highest probability lies in one bin: how many are right, and the moments of that probability.

    ``correct_weight`` are the moments of the weights of those that are right, if rows have weights.
    """

    correct: int = 0
    confidence: Moments = Moments()
    correct_weight: Moments = Moments()

    def merge(self, other: Bin) -> Bin:
        """The bin of both."""
        return Bin(*map(merge, self, other))


class Example(NamedTuple):
    """A row of high loss; `predicted` is the class of its highest prediction, None if it is not known.

    In a state they are numbers; in a result they are names where the classes have names.
    """

    row: int
    label: int | str
    predicted: int | str | None
    loss: float


@dataclass(frozen=True, slots=True)
class Worst:
    """The rows of the highest loss, the highest first; of equal ones the first."""

    examples: tuple[Example, ...] = ()

    def merge(self, other: Worst) -> Worst:
        """The worst of both."""
        return Worst(
            tuple(sorted(self.examples + other.examples, key=lambda example: (-example.loss, example.row))[:WORST])
        )


@dataclass(frozen=True, slots=True)
class State:
    """The sums of some rows of a prediction set; ``State()`` is that of no rows.

    Attributes
    ----------
    rows, ignored : int
    unreadable : Tally
        Rows that could not be read and were skipped; nothing else of them is known.
    outside_top_k : Tally
        Rows whose label is not among the k classes that are known of a row, and the first one's label.
    bad_label, nan, infinite, unnormalised : Tally
        A row whose loss is NaN or −inf (no distribution has one) is in ``nan``, one of loss +inf in ``infinite``, one
        of probabilities that do not sum to 1 in ``unnormalised``; all these are counted rows. Rows ignored or of a bad
        label are not.
    above_one : Tally
        Counted rows with a probability above 1, beyond rounding.
    like_probabilities : int
        How many counted rows of logits lie in [0, 1] and sum to 1.
    loss, brier, entropy, confidence : Moments
        Over counted rows in which the number is finite.
    ranks : mapping of int to int
        How many counted rows have their label at each of the first ``options.ranks`` ranks.
    labels : mapping of int to int
        How many counted rows have each label.
    bins : mapping of int to Bin
        The rows by their highest probability.
    histogram : mapping of int to int
        The rows of a finite loss by :func:`histogram_bin`.
    segments : mapping of int to Group
        The rows by the part of the set in which they are.
    worst : Worst
    classes, slices, clusters : mapping to Group
        The tables, each empty unless it is asked for.
    slice_clusters : mapping to Group
        The rows by (slice, cluster), if both are given.
    classwise : Classwise or None
        If it is asked for.
    bad_weight : Tally
        Rows of a weight that is negative or no finite number, which do not count.
    weight : Moments
        Of the weights of counted rows, if rows have weights.
    target_entropy : Moments
        Over counted rows, if labels are distributions.
    rank_weights, label_weights : mapping of int to Moments
        Of the weights of the rows of ``ranks`` and ``labels``.
    """

    rows: int = 0
    ignored: int = 0
    unreadable: Tally = field(default_factory=Tally)
    bad_label: Tally = field(default_factory=Tally)
    outside_top_k: Tally = field(default_factory=Tally)
    nan: Tally = field(default_factory=Tally)
    infinite: Tally = field(default_factory=Tally)
    unnormalised: Tally = field(default_factory=Tally)
    above_one: Tally = field(default_factory=Tally)
    like_probabilities: int = 0
    loss: Moments = field(default_factory=Moments)
    brier: Moments = field(default_factory=Moments)
    entropy: Moments = field(default_factory=Moments)
    confidence: Moments = field(default_factory=Moments)
    ranks: Mapping[int, int] = field(default_factory=dict)
    labels: Mapping[int, int] = field(default_factory=dict)
    bins: Mapping[int, Bin] = field(default_factory=dict)
    histogram: Mapping[int, int] = field(default_factory=dict)
    segments: Mapping[int, Group] = field(default_factory=dict)
    worst: Worst = field(default_factory=Worst)
    classes: Mapping[int, Group] = field(default_factory=dict)
    slices: Mapping[Any, Group] = field(default_factory=dict)
    clusters: Mapping[Any, Group] = field(default_factory=dict)
    slice_clusters: Mapping[Any, Group] = field(default_factory=dict)
    classwise: Classwise | None = None
    bad_weight: Tally = field(default_factory=Tally)
    weight: Moments = field(default_factory=Moments)
    rank_weights: Mapping[int, Moments] = field(default_factory=dict)
    label_weights: Mapping[int, Moments] = field(default_factory=dict)
    target_entropy: Moments = field(default_factory=Moments)

    @property
    def counted(self) -> int:
        """The rows in every mean: neither ignored nor unreadable, of a weight, and of a label that has a loss."""
        flawed = (self.bad_label, self.outside_top_k, self.unreadable, self.bad_weight)
        return self.rows - self.ignored - sum(tally.count for tally in flawed)

    @property
    def correct(self) -> int:
        """How many counted rows have the highest prediction at their label."""
        return self.ranks.get(0, 0)


def merge(a: Any, b: Any) -> Any:
    """The sum of two states, or of two fields of them: exactly associative and commutative.

    Examples
    --------
    >>> small, large = (State(rows=1, loss=moments_of(np.asarray([loss]))) for loss in (2.0**-60, 2.0**60))
    >>> merge(small, large).loss.total == small.loss.total + large.loss.total != large.loss.total
    True
    """
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, int):
        return a + b
    if isinstance(a, Mapping):
        return {**a, **b, **{key: merge(a[key], b[key]) for key in a.keys() & b.keys()}}
    if hasattr(a, "merge"):
        return a.merge(b)
    return type(a)(**{each.name: merge(getattr(a, each.name), getattr(b, each.name)) for each in fields(a)})


def merge_all(states: Iterable[Any]) -> Any:
    """The state of the rows of all of them; ``State()`` of none."""
    return reduce(merge, states) if (states := list(states)) else State()


def state_of(
    statistics: xent.RowStatistics,
    labels: NDArray[Any],
    options: Options = Options(),  # noqa: B008  # it cannot be changed
    *,
    first_row: int = 0,
    all_rows: int = 0,
    ignored: NDArray[Any] | None = None,
    bad: NDArray[Any] | None = None,
    outside_top_k: NDArray[Any] | None = None,
    unread: NDArray[Any] | None = None,
    slices: NDArray[Any] | None = None,
    clusters: NDArray[Any] | None = None,
    classwise: Classwise | None = None,
    like_probabilities: Callable[[NDArray[Any]], int] | None = None,
    predicted: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
    weights: NDArray[Any] | None = None,
    bad_weight: NDArray[Any] | None = None,
    target_entropy: NDArray[Any] | None = None,
) -> State:
    """The state of one block of rows.

    Parameters
    ----------
    statistics : RowStatistics
        Of these rows; the loss is read only where a row is neither ignored nor bad.
    labels : array, shape (rows,), integer
    options : Options
        They say which ranks, bins and tables the state has.
    first_row : int
        Where the block begins in the whole set.
    all_rows : int
        The rows of the whole set, which are cut into :data:`SEGMENTS`; 0 if they are not known, and not cut.
    ignored, bad, outside_top_k, unread : array, shape (rows,), bool, or None
        The rows to leave out; no row is two of them. None is none.
    slices, clusters : array, shape (rows,), or None
        The slice and the cluster of each row, integers or text.
    classwise : Classwise, optional
        The sums of these rows.
    like_probabilities : callable, optional
        Returns how many of the rows that a mask names look like probabilities.
    predicted : callable, optional
        Returns the classes of the highest predictions of some rows of the block, given their indices.
    weights : array, shape (rows,), float64, optional
        Positive where a row counts.
    bad_weight : array, shape (rows,), bool, or None
        More rows to leave out.
    target_entropy : array, shape (rows,), or None
        That of labels which are distributions, of which `labels` are the classes of the largest.
    """
    loss = np.asarray(statistics.loss)
    ignored, bad, outside_top_k, unread, bad_weight = (
        np.zeros(len(loss), bool) if rows is None else rows
        for rows in (ignored, bad, outside_top_k, unread, bad_weight)
    )
    counted = ~(ignored | bad | outside_top_k | unread | bad_weight)
    with np.errstate(over="ignore", invalid="ignore"):
        weighted = loss if weights is None else loss * weights
    infinite, finite = counted & np.isposinf(weighted), counted & np.isfinite(weighted)
    unnormalised = counted & ~(np.abs(statistics.lse) <= NORMALISED_WITHIN) & options.are_probabilities
    rank, top = np.asarray(statistics.label_rank), np.asarray(statistics.top_probability, np.float64)
    label_probability = np.asarray(statistics.label_probability, np.float64)
    sum_p_squared = np.asarray(statistics.sum_p_squared, np.float64)
    above_one = counted & (top > 1 + ONE_WITHIN) & options.are_probabilities
    grouper = Grouper(loss, counted, finite, rank == 0, weights)
    bins = bins_of(top, rank == 0, counted & np.isfinite(top), options.bins, weights)
    is_ranked = counted & (rank >= 0) & (rank < options.ranks)

    def moments(values: NDArray[Any]) -> Moments:
        rows = counted & np.isfinite(values)
        return moments_of(values[rows], None if weights is None else weights[rows])

    return State(
        rows=len(loss),
        ignored=int(np.count_nonzero(ignored)),
        unreadable=tally_of(unread, first_row),
        bad_label=tally_of(bad, first_row, labels),
        outside_top_k=tally_of(outside_top_k, first_row, labels),
        nan=tally_of(counted & ~finite & ~infinite, first_row),
        infinite=tally_of(infinite, first_row),
        unnormalised=tally_of(unnormalised, first_row),
        above_one=tally_of(above_one, first_row),
        like_probabilities=0 if like_probabilities is None else like_probabilities(counted),
        loss=moments_of(loss[finite], None if weights is None else weights[finite]),
        brier=moments(1 - 2 * label_probability + sum_p_squared),
        entropy=moments(np.asarray(statistics.entropy)),
        confidence=reduce(Moments.merge, (each.confidence for each in bins.values()), Moments()),
        ranks=counts_of(rank[is_ranked]),
        labels=counts_of(labels[counted]),
        bins=bins,
        histogram=counts_of(histogram_bin(loss[finite])),
        segments=grouper.by_segment(first_row, all_rows),
        worst=worst_of(np.where(finite | infinite, loss, -np.inf), labels, first_row, predicted),
        classes=grouper.by(labels) if options.by_class else {},
        slices=grouper.by(slices),
        clusters=grouper.by(clusters),
        slice_clusters=grouper.by_both(slices, clusters),
        classwise=classwise,
        bad_weight=tally_of(bad_weight, first_row),
        target_entropy=Moments() if target_entropy is None else moments(target_entropy),
        weight=Moments() if weights is None else moments_of(weights[counted]),
        rank_weights={} if weights is None else moments_by(rank[is_ranked], weights[is_ranked]),
        label_weights={} if weights is None else moments_by(labels[counted], weights[counted]),
    )


def moments_by(keys: NDArray[Any], values: NDArray[Any]) -> dict[int, Moments]:
    """The moments of the values of each key."""
    names, index = np.unique(keys, return_inverse=True)
    return dict(zip(names.tolist(), grouped_moments(values, index, len(names)), strict=True))


def tally_of(flawed: NDArray[Any], first_row: int, labels: NDArray[Any] | None = None) -> Tally:
    """The tally of the rows for which `flawed` is true, with the label of the first if labels are given."""
    count = int(np.count_nonzero(flawed))
    if not count:
        return Tally()
    first = int(flawed.argmax())
    return Tally(count, first_row + first, None if labels is None else int(labels[first]))


def counts_of(values: NDArray[Any]) -> dict[int, int]:
    """How often each integer occurs."""
    if not values.size:
        return {}
    low = int(values.min())
    if int(values.max()) - low < 4 * len(values):  # quicker than sorting them
        counts = np.bincount((values - values.dtype.type(low)).astype(np.intp, copy=False))
        keys = np.flatnonzero(counts)
        return dict(zip((keys + low).tolist(), counts[keys].tolist(), strict=True))
    keys, counts = np.unique(values, return_counts=True)
    return dict(zip(keys.tolist(), counts.tolist(), strict=True))


def histogram_bin(loss: NDArray[Any]) -> NDArray[Any]:
    """The index of each loss's bin in the histogram, four to the octave: exact, so the same on every machine."""
    fraction, exponent = np.frexp(loss)  # a fraction is in [1/2, 1)
    lowest, highest = OCTAVES
    index = 4 * exponent + np.floor(8 * fraction - 4).astype(np.int64)
    return np.clip(np.where(loss > 0, index, 4 * lowest), 4 * lowest, 4 * highest + 3)


def histogram_edges(index: int) -> tuple[float, float]:
    """The losses between which a bin of the histogram lies; the first begins at 0, the last has no end."""
    low, high = (math.ldexp(4 + edge % 4, edge // 4 - 3) for edge in (index, index + 1))
    lowest, highest = OCTAVES
    return (0.0 if index <= 4 * lowest else low), (math.inf if index >= 4 * highest + 3 else high)


def worst_of(
    loss: NDArray[Any], labels: NDArray[Any], first_row: int, predicted: Callable[[NDArray[Any]], NDArray[Any]] | None
) -> Worst:
    """The rows of the highest loss; a loss of −inf is left out."""
    count = min(WORST, len(loss))
    if not count:
        return Worst()
    least = np.partition(loss, -count)[-count]
    high, equal = np.flatnonzero(loss > least), np.flatnonzero(loss == least)
    rows = np.concatenate([high, equal[: count - len(high)]])  # of equal losses the first
    rows = rows[loss[rows] > -np.inf]
    classes = [None] * len(rows) if predicted is None else predicted(rows).tolist()
    columns = ((rows + first_row).tolist(), labels[rows].tolist(), classes, loss[rows].tolist())
    return Worst(tuple(Example(*row) for row in zip(*columns, strict=True))).merge(Worst())


def bins_of(
    top: NDArray[Any], correct: NDArray[Any], counted: NDArray[Any], bins: int, weights: NDArray[Any] | None = None
) -> dict[int, Bin]:
    """The rows by their highest probability, in bins (i / n, (i + 1) / n]; a probability of 0 is in the first."""
    top, correct, weights = top[counted], correct[counted], None if weights is None else weights[counted]
    index = bin_of(top, bins)
    hits, confidence = np.bincount(index, correct, minlength=bins), grouped_moments(top, index, bins, weights)
    weight = [Moments()] * bins if weights is None else grouped_moments(weights[correct], index[correct], bins)
    return {i: Bin(int(hits[i]), confidence[i], weight[i]) for i in range(bins) if confidence[i].n}


class Grouper(NamedTuple):
    """The rows of a block, to be grouped: their losses, which of them count, are finite and are correct; weights."""

    loss: NDArray[Any]
    counted: NDArray[Any]
    finite: NDArray[Any]
    correct: NDArray[Any]
    weights: NDArray[Any] | None = None

    def by(self, keys: NDArray[Any] | None) -> dict[Any, Group]:
        """The counted rows by their key; no groups without keys."""
        if keys is None:
            return {}
        names, index = np.unique(keys[self.counted], return_inverse=True)
        return dict(zip(names.tolist(), self.groups(index, len(names)), strict=True))

    def by_both(self, first: NDArray[Any] | None, second: NDArray[Any] | None) -> dict[Any, Group]:
        """The counted rows by their pair of keys; no groups unless there are both."""
        if first is None or second is None:
            return {}
        first_names, first_index = np.unique(first[self.counted], return_inverse=True)
        second_names, second_index = np.unique(second[self.counted], return_inverse=True)
        width = len(second_names)
        if not width:
            return {}
        pairs, index = np.unique(first_index * width + second_index, return_inverse=True)
        names = zip(first_names[pairs // width].tolist(), second_names[pairs % width].tolist(), strict=True)
        return dict(zip(names, self.groups(index, len(pairs)), strict=True))

    def by_segment(self, first_row: int, rows: int) -> dict[int, Group]:
        """The counted rows by the part of the whole set in which they are."""
        if not rows:
            return {}
        segment = (np.flatnonzero(self.counted) + first_row) * min(SEGMENTS, rows) // rows
        if not segment.size:
            return {}
        first, last = int(segment[0]), int(segment[-1])
        groups = self.groups(segment - first, last - first + 1)
        return {first + i: group for i, group in enumerate(groups) if group.counted}

    def groups(self, index: NDArray[Any], groups: int) -> list[Group]:
        """The groups of the counted rows; `index` is the group of each of them."""
        finite, is_correct, weights = self.finite[self.counted], self.correct[self.counted], self.weights
        of_finite = None if weights is None else weights[self.finite]
        moments = grouped_moments(self.loss[self.finite], index[finite], groups, of_finite)
        counted = np.bincount(index, minlength=groups)
        correct = np.bincount(index, is_correct, minlength=groups)
        weight = correct_weight = [Moments()] * groups
        if weights is not None:
            weights = weights[self.counted]
            weight = grouped_moments(weights, index, groups)
            correct_weight = grouped_moments(weights[is_correct], index[is_correct], groups)
        columns = zip(counted.tolist(), map(int, correct.tolist()), moments, weight, correct_weight, strict=True)
        return [Group(*column) for column in columns]
