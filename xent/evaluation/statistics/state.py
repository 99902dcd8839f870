"""The sums of a prediction set, merged exactly: what a pass keeps of some rows.

A state is of a size that does not grow with its rows; with the tables that are asked for it grows with the classes,
slices and clusters that it has met. Leaves out how a row's numbers are made, where the rows come from, and the means
and errors that are made of the sums (``metrics.py``).
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
from xent.evaluation.statistics.classwise import Classwise
from xent.evaluation.statistics.exact_sums import Moments, grouped_moments, moments_of

NORMALISED_WITHIN = 1e-3
"""How far log Σp may lie from 0 in a row that is a distribution; float16 probabilities come within half of it."""
SEGMENTS = 100
"""Into how many parts the rows are cut, for the loss over their position."""
WORST = 10
"""How many rows of the highest loss are kept."""
OCTAVES = (-24, 12)
"""Losses under 2**-24 nats and over 2**12 share a bin of the histogram each; there are four bins in an octave."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many rows share a flaw, the first such row of the whole set, and its label where that is the flaw."""

    count: int = 0
    first_row: int | None = None
    label: int | None = None

    def merge(self, other: Tally) -> Tally:
        """The tally of both."""
        seen = [tally for tally in (self, other) if tally.first_row is not None]
        first = min(seen, key=lambda tally: tally.first_row or 0, default=Tally())
        return Tally(self.count + other.count, first.first_row, first.label)


class Group(NamedTuple):
    """The rows of one class, slice or cluster: how many count and are right, and the moments of finite losses."""

    counted: int = 0
    correct: int = 0
    loss: Moments = Moments()

    def merge(self, other: Group) -> Group:
        """The group of both."""
        return Group(self.counted + other.counted, self.correct + other.correct, self.loss.merge(other.loss))


class Bin(NamedTuple):
    """The rows whose highest probability lies in one bin: how many are right, and the moments of that probability."""

    correct: int = 0
    confidence: Moments = Moments()

    def merge(self, other: Bin) -> Bin:
        """The bin of both."""
        return Bin(self.correct + other.correct, self.confidence.merge(other.confidence))


class Example(NamedTuple):
    """A row of high loss; `predicted` is the class of its highest prediction, None where the classes are cut."""

    row: int
    label: int
    predicted: int | None
    loss: float


@dataclass(frozen=True, slots=True)
class Worst:
    """The rows of the highest loss, the highest first; of equal ones those that come first."""

    examples: tuple[Example, ...] = ()

    def merge(self, other: Worst) -> Worst:
        """The worst of both."""
        return Worst(tuple(sorted(self.examples + other.examples, key=lambda one: (-one.loss, one.row))[:WORST]))


@dataclass(frozen=True, slots=True)
class State:
    """The sums of some rows of a prediction set; ``State()`` is that of no rows.

    Attributes
    ----------
    rows, ignored : int
    unread : Tally
        Rows that could not be read and were passed over; nothing else of them is known.
    beyond : Tally
        Rows whose label is not among the k classes that are known of a row, and its label where that is an error.
    bad_label, nan, infinite, unnormalised : Tally
        A row whose loss is NaN or −inf (no distribution has one) is in ``nan``, one of loss +inf in ``infinite``, one
        of probabilities that do not sum to 1 in ``unnormalised``; all these are counted rows. Rows ignored or of a bad
        label are not.
    loss, brier, entropy, confidence : Moments
        Over counted rows in which the number is finite.
    ranks : mapping of int to int
        How many counted rows have their label at each rank that is asked for.
    labels : mapping of int to int
        How many counted rows have each label.
    bins : mapping of int to Bin
        The rows by their highest probability.
    histogram : mapping of int to int
        The rows of a finite loss by :func:`place_of`.
    segments : mapping of int to Group
        The rows by the part of the set that they lie in.
    worst : Worst
    classes, slices, clusters : mapping to Group
        The tables that are asked for.
    slice_clusters : mapping to Group
        The rows by (slice, cluster), where both are given.
    classwise : Classwise or None
        Where it is asked for.
    """

    rows: int = 0
    ignored: int = 0
    unread: Tally = field(default_factory=Tally)
    bad_label: Tally = field(default_factory=Tally)
    beyond: Tally = field(default_factory=Tally)
    nan: Tally = field(default_factory=Tally)
    infinite: Tally = field(default_factory=Tally)
    unnormalised: Tally = field(default_factory=Tally)
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

    @property
    def counted(self) -> int:
        """The denominator of every mean: all rows but those ignored, of a bad label, beyond the k, or not read."""
        return self.rows - self.ignored - self.bad_label.count - self.beyond.count - self.unread.count

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
    return type(a)(**{one.name: merge(getattr(a, one.name), getattr(b, one.name)) for one in fields(a)})


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
    beyond: NDArray[Any] | None = None,
    slices: NDArray[Any] | None = None,
    clusters: NDArray[Any] | None = None,
    classwise: Classwise | None = None,
    predicted: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
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
    ignored, bad, beyond : array, shape (rows,), bool, or None
        The rows to leave out; no row is two of them. None is none.
    slices, clusters : array, shape (rows,), or None
        The slice and the cluster of each row, integers or text.
    classwise : Classwise, optional
        Theirs.
    predicted : callable, optional
        Given the indices of some rows of the block, the classes of their highest predictions.
    """
    loss = np.asarray(statistics.loss)
    ignored, bad, beyond = (np.zeros(len(loss), bool) if rows is None else rows for rows in (ignored, bad, beyond))
    counted = ~(ignored | bad | beyond)
    infinite, finite = counted & np.isposinf(loss), counted & np.isfinite(loss)
    unnormalised = counted & ~(np.abs(statistics.lse) <= NORMALISED_WITHIN) & options.are_probabilities
    rank, top = np.asarray(statistics.label_rank), np.asarray(statistics.top_probability, np.float64)
    label_probability = np.asarray(statistics.label_probability, np.float64)
    sum_p_squared = np.asarray(statistics.sum_p_squared, np.float64)
    table = Table(loss, counted, finite, rank == 0)
    bins = bins_of(top, rank == 0, counted & np.isfinite(top), options.bins)
    return State(
        rows=len(loss),
        ignored=int(np.count_nonzero(ignored)),
        bad_label=tally_of(bad, first_row, labels),
        beyond=tally_of(beyond, first_row, labels),
        nan=tally_of(counted & ~finite & ~infinite, first_row),
        infinite=tally_of(infinite, first_row),
        unnormalised=tally_of(unnormalised, first_row),
        loss=moments_of(loss[finite]),
        brier=finite_moments((1 - 2 * label_probability + sum_p_squared)[counted]),
        entropy=finite_moments(np.asarray(statistics.entropy)[counted]),
        confidence=reduce(Moments.merge, (one.confidence for one in bins.values()), Moments()),
        ranks=counts_of(rank[counted & (rank >= 0) & (rank < options.ranks)]),
        labels=counts_of(labels[counted]),
        bins=bins,
        histogram=counts_of(place_of(loss[finite])),
        segments=table.by_segment(first_row, all_rows),
        worst=worst_of(np.where(finite | infinite, loss, -np.inf), labels, first_row, predicted),
        classes=table.by(labels) if options.by_class else {},
        slices=table.by(slices),
        clusters=table.by(clusters),
        slice_clusters=table.by_both(slices, clusters),
        classwise=classwise,
    )


def tally_of(flawed: NDArray[Any], first_row: int, labels: NDArray[Any] | None = None) -> Tally:
    """The tally of the rows where `flawed` is true, with the label of the first where labels are given."""
    count = int(np.count_nonzero(flawed))
    if not count:
        return Tally()
    first = int(flawed.argmax())
    return Tally(count, first_row + first, None if labels is None else int(labels[first]))


def finite_moments(values: NDArray[Any]) -> Moments:
    """The moments of those that are finite."""
    return moments_of(values[np.isfinite(values)])


def counts_of(values: NDArray[Any]) -> dict[int, int]:
    """How often each integer occurs."""
    if not values.size:
        return {}
    low = int(values.min())
    if int(values.max()) - low < 4 * len(values):  # quicker than sorting them
        counts = np.bincount((values - values.dtype.type(low)).astype(np.intp, copy=False))
        keys = np.flatnonzero(counts)
        return dict(zip((keys + low).tolist(), counts[keys].tolist(), strict=True))
    names, times = np.unique(values, return_counts=True)
    return dict(zip(names.tolist(), times.tolist(), strict=True))


def place_of(loss: NDArray[Any]) -> NDArray[Any]:
    """The bin of each loss in the histogram, four to the octave: exact, so the same on every machine."""
    fraction, exponent = np.frexp(loss)  # a fraction is in [1/2, 1)
    lowest, highest = OCTAVES
    place = 4 * exponent + np.floor(8 * fraction - 4).astype(np.int64)
    return np.clip(np.where(loss > 0, place, 4 * lowest), 4 * lowest, 4 * highest + 3)


def edges_of(place: int) -> tuple[float, float]:
    """The losses between which a bin of the histogram lies; those at the ends take whatever is beyond them."""
    low, high = (math.ldexp(4 + one % 4, one // 4 - 3) for one in (place, place + 1))
    lowest, highest = OCTAVES
    return (0.0 if place <= 4 * lowest else low), (math.inf if place >= 4 * highest + 3 else high)


def worst_of(
    loss: NDArray[Any], labels: NDArray[Any], first_row: int, predicted: Callable[[NDArray[Any]], NDArray[Any]] | None
) -> Worst:
    """The rows of the highest loss; one of −inf is none."""
    count = min(WORST, len(loss))
    if not count:
        return Worst()
    least = np.partition(loss, -count)[-count]
    high, equal = np.flatnonzero(loss > least), np.flatnonzero(loss == least)
    rows = np.concatenate([high, equal[: count - len(high)]])  # of equal losses the first
    rows = rows[loss[rows] > -np.inf]
    classes = [None] * len(rows) if predicted is None else predicted(rows).tolist()
    columns = ((rows + first_row).tolist(), labels[rows].tolist(), classes, loss[rows].tolist())
    return Worst(tuple(Example(*one) for one in zip(*columns, strict=True))).merge(Worst())


def bins_of(top: NDArray[Any], correct: NDArray[Any], counted: NDArray[Any], bins: int) -> dict[int, Bin]:
    """The rows by their highest probability, in bins (i / n, (i + 1) / n]; a probability of 0 is in the first."""
    top, correct = top[counted], correct[counted]
    place = np.clip(np.ceil(top * bins).astype(np.int64) - 1, 0, bins - 1)
    right = np.bincount(place, correct, minlength=bins)
    found = (Bin(int(hits), one) for hits, one in zip(right, grouped_moments(top, place, bins), strict=True))
    return {index: one for index, one in enumerate(found) if one.confidence.n}


class Table(NamedTuple):
    """The rows of a block, to be grouped: their losses, and which of them count, are finite and are right."""

    loss: NDArray[Any]
    counted: NDArray[Any]
    finite: NDArray[Any]
    correct: NDArray[Any]

    def by(self, keys: NDArray[Any] | None) -> dict[Any, Group]:
        """The counted rows by their key; no groups where there are no keys."""
        if keys is None:
            return {}
        names, place = np.unique(keys[self.counted], return_inverse=True)
        return dict(zip(names.tolist(), self.groups(place, len(names)), strict=True))

    def by_both(self, first: NDArray[Any] | None, second: NDArray[Any] | None) -> dict[Any, Group]:
        """The counted rows by their pair of keys; no groups where there is only one key."""
        if first is None or second is None:
            return {}
        (ones, one), (others, other) = (np.unique(keys[self.counted], return_inverse=True) for keys in (first, second))
        if not len(others):
            return {}
        pairs, place = np.unique(one * len(others) + other, return_inverse=True)
        names = zip(*(keys.tolist() for keys in (ones[pairs // len(others)], others[pairs % len(others)])), strict=True)
        return dict(zip(names, self.groups(place, len(pairs)), strict=True))

    def by_segment(self, first_row: int, rows: int) -> dict[int, Group]:
        """The counted rows by the part of the whole set that they lie in."""
        if not rows:
            return {}
        where = (np.flatnonzero(self.counted) + first_row) * min(SEGMENTS, rows) // rows
        first = int(where[0]) if where.size else 0
        found = self.groups(where - first, int(where[-1]) - first + 1) if where.size else []
        return {first + i: one for i, one in enumerate(found) if one.counted}

    def groups(self, place: NDArray[Any], groups: int) -> list[Group]:
        """The groups of the counted rows; `place` says in which each of them is."""
        finite = self.finite[self.counted]
        sums = grouped_moments(self.loss[self.finite], place[finite], groups)
        counted = np.bincount(place, minlength=groups)
        correct = np.bincount(place, self.correct[self.counted], minlength=groups)
        return [Group(int(n), int(right), one) for n, right, one in zip(counted, correct, sums, strict=True)]
