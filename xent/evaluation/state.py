"""The sums of a prediction set, merged exactly: what a pass keeps of some rows.

A state is of a size that does not grow with its rows; with the tables that are asked for it grows with the classes,
slices and clusters that it has met. Leaves out how a row's numbers are made, where the rows come from, and the means
and errors that are made of the sums (``metrics.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

import xent
from xent.evaluation.moments import Moments, grouped_moments, moments_of

Array = np.ndarray[Any, Any]
NORMALISED_WITHIN = 1e-3
"""How far log Σp may lie from 0 in a row that is a distribution; float16 probabilities come within half of it."""


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


@dataclass(frozen=True, slots=True)
class State:
    """The sums of some rows of a prediction set; ``State()`` is that of no rows.

    Attributes
    ----------
    rows, ignored : int
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
    classes, slices, clusters : mapping to Group
        The tables that are asked for.
    """

    rows: int = 0
    ignored: int = 0
    bad_label: Tally = field(default_factory=Tally)
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
    classes: Mapping[int, Group] = field(default_factory=dict)
    slices: Mapping[Any, Group] = field(default_factory=dict)
    clusters: Mapping[Any, Group] = field(default_factory=dict)

    @property
    def counted(self) -> int:
        """The denominator of every mean: all rows but the ignored ones and those of a bad label."""
        return self.rows - self.ignored - self.bad_label.count

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


class Wanted(NamedTuple):
    """What a state keeps beside the sums of whole numbers of rows.

    Attributes
    ----------
    ranks : int
        How many ranks of the label are counted, from 0.
    bins : int
        How many bins of equal width the highest probability has.
    by_class : bool
        Whether there is a table of the classes.
    are_probabilities : bool
        Whether rows must sum to 1.
    """

    ranks: int = 1
    bins: int = 15
    by_class: bool = False
    are_probabilities: bool = False


def state_of(
    found: xent.RowStatistics,
    labels: Array,
    *,
    first_row: int = 0,
    ignored: Array | None = None,
    bad: Array | None = None,
    wanted: Wanted = Wanted(),  # noqa: B008  # a NamedTuple cannot be changed
    slices: Array | None = None,
    clusters: Array | None = None,
) -> State:
    """The state of one block of rows.

    Parameters
    ----------
    found : RowStatistics
        What :func:`xent.row_statistics` says of them; the loss is read only where a row is neither ignored nor bad.
    labels : array, shape (rows,), integer
    first_row : int
        Where the block begins in the whole set.
    ignored, bad : array, shape (rows,), bool, or None
        The rows to leave out; no row is both. None is none.
    wanted : Wanted
    slices, clusters : array, shape (rows,), or None
        The slice and the cluster of each row, integers or text.
    """
    loss = np.asarray(found.loss)
    ignored = np.zeros(len(loss), bool) if ignored is None else ignored
    bad = np.zeros(len(loss), bool) if bad is None else bad
    counted = ~(ignored | bad)
    infinite, finite = counted & np.isposinf(loss), counted & np.isfinite(loss)
    tally = tally_of(bad, first_row)
    if tally.first_row is not None:
        tally = Tally(tally.count, tally.first_row, int(labels[tally.first_row - first_row]))
    strange = counted & ~(np.abs(found.lse) <= NORMALISED_WITHIN) if wanted.are_probabilities else np.zeros_like(bad)
    rank, top = np.asarray(found.label_rank), np.asarray(found.top_probability, np.float64)
    probability, squares = (np.asarray(one, np.float64) for one in (found.label_probability, found.sum_p_squared))
    table = Table(loss, counted, finite, rank == 0)
    return State(
        rows=len(loss),
        ignored=int(np.count_nonzero(ignored)),
        bad_label=tally,
        nan=tally_of(counted & ~finite & ~infinite, first_row),
        infinite=tally_of(infinite, first_row),
        unnormalised=tally_of(strange, first_row),
        loss=moments_of(loss[finite]),
        brier=finite_moments((1 - 2 * probability + squares)[counted]),
        entropy=finite_moments(np.asarray(found.entropy)[counted]),
        confidence=finite_moments(top[counted]),
        ranks=counts_of(rank[counted & (rank >= 0) & (rank < wanted.ranks)]),
        labels=counts_of(labels[counted]),
        bins=bins_of(top, rank == 0, counted & np.isfinite(top), wanted.bins),
        classes=table.by(labels) if wanted.by_class else {},
        slices=table.by(slices),
        clusters=table.by(clusters),
    )


def tally_of(flawed: Array, first_row: int) -> Tally:
    """The tally of the rows where `flawed` is true."""
    count = int(np.count_nonzero(flawed))
    return Tally(count, first_row + int(flawed.argmax())) if count else Tally()


def finite_moments(values: Array) -> Moments:
    """The moments of those that are finite."""
    return moments_of(values[np.isfinite(values)])


def counts_of(values: Array) -> dict[int, int]:
    """How often each integer occurs."""
    keys, counts = np.unique(values, return_counts=True)
    return dict(zip(keys.tolist(), counts.tolist(), strict=True))


def bins_of(top: Array, correct: Array, counted: Array, bins: int) -> dict[int, Bin]:
    """The rows by their highest probability, in bins (i / n, (i + 1) / n]; a probability of 0 is in the first."""
    top, correct = top[counted], correct[counted]
    place = np.clip(np.ceil(top * bins).astype(np.int64) - 1, 0, bins - 1)
    right = np.bincount(place, correct, minlength=bins)
    found = (Bin(int(hits), one) for hits, one in zip(right, grouped_moments(top, place, bins), strict=True))
    return {index: one for index, one in enumerate(found) if one.confidence.n}


class Table(NamedTuple):
    """The rows of a block, to be grouped: their losses, and which of them count, are finite and are right."""

    loss: Array
    counted: Array
    finite: Array
    correct: Array

    def by(self, keys: Array | None) -> dict[Any, Group]:
        """The counted rows by their key; no groups where there are no keys."""
        if keys is None:
            return {}
        names, place = np.unique(keys[self.counted], return_inverse=True)
        finite = self.finite[self.counted]
        sums = grouped_moments(self.loss[self.finite], place[finite], len(names))
        counted = np.bincount(place, minlength=len(names))
        correct = np.bincount(place, self.correct[self.counted], minlength=len(names))
        groups = (Group(int(n), int(right), one) for n, right, one in zip(counted, correct, sums, strict=True))
        return dict(zip(names.tolist(), groups, strict=True))
