r"""Sums over clusters: what the errors of means need that take clusters, such as documents, as independent.

.. math:: \sum_g (n S_g - n_g S)^2 = n^2 \sum_g S_g^2 - 2 n S \sum_g n_g S_g + S^2 \sum_g n_g^2

where cluster g has n_g rows of the sum S_g, and n and S are those of all [1]_: three sums in place of all clusters, of
integers, so that the number is the same to the bit. A cluster whose rows lie together is complete when rows before and
after it are known; it is added to these sums then, and only its key is kept (``key_spans.py``). Clusters are kept one
by one while they are few, so that rows of few clusters may come in any order.

.. [1] Cameron & Miller, "A practitioner's guide to cluster-robust inference", Journal of Human Resources 50(2), 2015,
   section II.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.statistics.cluster_losses import ClusterMeans, cluster_means
from xent.evaluation.statistics.exact_sums import UNIT_BITS, grouped_totals, ratio, sqrt_ratio
from xent.evaluation.statistics.key_spans import KeyAgain, KeySpans, spans_of

KEPT = 2**12
"""How many clusters, those of each slice apart, a state keeps one by one before complete ones are added up."""
BLOCK_ROWS = 2**16
"""How many rows of a chunk are grouped at once."""
NOT_FINITE = "rows of no finite loss"
"""The column of a state that tells the mean loss of each cluster too."""
Totals = tuple[int, ...]
"""Of one cluster: its rows, or their weight, and the sum of each column; in units of 2**-1126, but of rows 1."""


class ClustersApart(Exception):
    """The rows of a cluster do not lie together, though it has been taken as complete."""


class TooManyClusters(Exception):
    """Clusters whose rows do not lie together are more than may be kept."""


class ClusterSums(NamedTuple):
    """Sums over clusters: how many there are; by column n_g or S_g, its square, and its product with n_g.

    The first column is n_g itself.
    """

    clusters: int = 0
    totals: tuple[int, ...] = ()
    squares: tuple[int, ...] = ()
    products: tuple[int, ...] = ()

    def merge(self, other: ClusterSums) -> ClusterSums:
        """The sums over both."""
        if not (self.clusters and other.clusters):
            return self if self.clusters else other
        columns = (map(int.__add__, mine, its) for mine, its in zip(self[1:], other[1:], strict=True))
        return ClusterSums(self.clusters + other.clusters, *map(tuple, columns))

    def standard_error(self, column: int, lift: int = 0) -> float:
        """Of the mean of a column, √(G / (G − 1) Σ_g (S_g − n_g S / n)²) / n; NaN of under two clusters.

        The unit of the column is 2**-lift of that of the rows.
        """
        if self.clusters < 2 or not self.totals[0]:
            return math.nan
        n, total = self.totals[0], self.totals[column]
        scatter = n * n * self.squares[column] - 2 * n * total * self.products[column] + total**2 * self.squares[0]
        return sqrt_ratio(self.clusters * scatter, (self.clusters - 1) * n**4 << 2 * lift)


class Run(NamedTuple):
    """Rows that have been summed, start to stop, and the clusters of the first and the last of them that count."""

    start: int
    stop: int
    ends: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Clusters:
    """The clusters of some rows; all clusters of a slice by themselves too, if rows have slices.

    Attributes
    ----------
    columns : mapping of str to int
        The names of the means whose errors are wanted, in the order of the totals, and by how many bits the unit of
        each is finer than that of the rows.
    runs : tuple of Run
        In order, and not beside each other.
    totals : mapping to Totals
        The clusters that are kept, by their keys.
    slice_totals : mapping to Totals
        The same of each slice, by (slice, cluster).
    complete : ClusterSums
    complete_in_slices : mapping to ClusterSums
        By slice.
    means : ClusterMeans
        Of the mean loss of each, if there is a column :data:`NOT_FINITE`.
    complete_keys : KeySpans
        The keys of those.
    most_apart : int
        Where rows of clusters are known to lie apart: how many may be kept; none is taken as complete. Else 0.
    """

    columns: Mapping[str, int] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()
    totals: Mapping[Any, Totals] = field(default_factory=dict)
    slice_totals: Mapping[Any, Totals] = field(default_factory=dict)
    complete: ClusterSums = field(default_factory=ClusterSums)
    complete_in_slices: Mapping[Any, ClusterSums] = field(default_factory=dict)
    means: ClusterMeans = field(default_factory=ClusterMeans)
    complete_keys: KeySpans = field(default_factory=KeySpans)
    most_apart: int = 0

    def merge(self, other: Clusters) -> Clusters:
        """The clusters of both, in any order.

        Raises
        ------
        ClustersApart
            If a cluster that was complete has more rows.
        TooManyClusters
            If more are kept than ``most_apart``.
        """
        try:
            self.complete_keys.check_new([*other.totals])
            other.complete_keys.check_new([*self.totals])
            complete_keys = self.complete_keys.merge(other.complete_keys)
        except KeyAgain:
            raise ClustersApart from None
        return Clusters(
            self.columns,
            runs_of((*self.runs, *other.runs)),
            sum_by_key(self.totals, other.totals),
            sum_by_key(self.slice_totals, other.slice_totals),
            self.complete.merge(other.complete),
            merged(self.complete_in_slices, other.complete_in_slices),
            self.means.merge(other.means),
            complete_keys,
            max(self.most_apart, other.most_apart),
        ).settled()

    def settled(self) -> Clusters:
        """The same, with clusters added up that are complete, if many are kept."""
        kept = len(self.totals) + len(self.slice_totals)
        if self.most_apart:
            if kept > self.most_apart:
                raise TooManyClusters
            return self
        if kept <= KEPT:
            return self
        is_open = {key for run in self.runs for key in run.ends}
        done = [key for key in self.totals if key not in is_open]
        try:
            complete_keys = self.complete_keys.merge(KeySpans((spans_of(done),))) if done else self.complete_keys
        except KeyAgain:
            raise ClustersApart from None
        return replace(self.added_up(set(done)), complete_keys=complete_keys)

    def whole(self) -> Clusters:
        """The same, with all clusters added up: those of rows of which no more are to come."""
        return self.added_up(self.totals.keys())

    def added_up(self, done: Set[Any]) -> Clusters:
        """The same, with these clusters added up."""
        by_slice: dict[Any, list[Totals]] = {}
        for (name, key), totals in self.slice_totals.items():
            if key in done:
                by_slice.setdefault(name, []).append(totals)
        means = self.means.merge(cluster_means(self.means_of(done))) if NOT_FINITE in self.columns else self.means
        return replace(
            self,
            means=means,
            totals={key: totals for key, totals in self.totals.items() if key not in done},
            slice_totals={both: totals for both, totals in self.slice_totals.items() if both[1] not in done},
            complete=self.complete.merge(sums_of([totals for key, totals in self.totals.items() if key in done])),
            complete_in_slices=merged(
                self.complete_in_slices, {name: sums_of(totals) for name, totals in by_slice.items()}
            ),
        )

    def means_of(self, done: Set[Any]) -> Iterator[tuple[Any, float, float]]:
        """Of these clusters the key, the rows or their weight, and the mean loss, NaN where one is not finite."""
        loss, not_finite = ([*self.columns].index(name) + 1 for name in ("loss", NOT_FINITE))
        lift = self.columns["loss"]
        for key, totals in self.totals.items():
            if key in done:
                mean = math.nan if totals[not_finite] else ratio(totals[loss], totals[0] << lift)
                yield key, ratio(totals[0], 1 << UNIT_BITS - lift), mean

    def standard_error(self, column: str, sums: ClusterSums | None = None) -> float:
        """Of the mean of a column by its name, over the clusters that are added up; NaN of under two.

        With other `sums` it is over theirs.
        """
        sums = self.complete if sums is None else sums
        return sums.standard_error([*self.columns].index(column) + 1, self.columns[column])


def sums_of(clusters: Sequence[Totals]) -> ClusterSums:
    """The sums over these clusters."""
    if not clusters:
        return ClusterSums()
    columns = [*zip(*clusters, strict=True)]
    # the low bits that are 0 in a whole column are left out where it is multiplied
    zeros = [max((whole & -whole).bit_length() - 1, 0) for whole in (reduce(or_, column) for column in columns)]
    short = [[total >> bits for total in column] for column, bits in zip(columns, zeros, strict=True)]
    rows, of_rows = short[0], zeros[0]
    return ClusterSums(
        len(clusters),
        tuple(map(sum, columns)),
        tuple(sum(total * total for total in column) << 2 * bits for column, bits in zip(short, zeros, strict=True)),
        tuple(sum(map(int.__mul__, rows, column)) << of_rows + bits for column, bits in zip(short, zeros, strict=True)),
    )


def sum_by_key(mine: Mapping[Any, Totals], others: Mapping[Any, Totals]) -> dict[Any, Totals]:
    """The totals of each key in either."""
    both = mine.keys() & others.keys()
    return {**mine, **others, **{key: tuple(map(int.__add__, mine[key], others[key])) for key in both}}


def merged(mine: Mapping[Any, ClusterSums], others: Mapping[Any, ClusterSums]) -> dict[Any, ClusterSums]:
    """The sums over the clusters of each slice in either."""
    both = mine.keys() & others.keys()
    return {**mine, **others, **{key: mine[key].merge(others[key]) for key in both}}


def runs_of(runs: Iterable[Run]) -> tuple[Run, ...]:
    """Runs in order, those that follow each other as one; without those of no rows."""
    joined: list[Run] = []
    for run in sorted((run for run in runs if run.start < run.stop), key=lambda run: run.start):
        if joined and joined[-1].stop == run.start:
            before = joined.pop()
            ends = (*before.ends, *run.ends)
            run = Run(before.start, run.stop, (ends[0], ends[-1]) if ends else ())
        joined.append(run)
    return tuple(joined)


def clusters_of(
    keys: NDArray[Any],
    slices: NDArray[Any] | None,
    counted: NDArray[Any],
    columns: Mapping[str, NDArray[Any]],
    weights: NDArray[Any] | None,
    first_row: int,
    most_apart: int = 0,
) -> Clusters:
    """The clusters of some rows, which begin at `first_row` of the set.

    Parameters
    ----------
    keys, slices : array, shape (rows,), integers or text
        The cluster of each row, and its slice or None; of several slices, (rows, columns), it is in each.
    counted : array, shape (rows,), bool
    columns : mapping of str to array, shape (rows,), bool or floating
        What is averaged: whether a row is one of those whose share is wanted, or a number, of which those that are not
        finite are left out.
    weights : array, shape (rows,), float64, or None
    most_apart : int
        As :class:`Clusters` has it.
    """
    lifts = {name: 0 if values.dtype == bool or weights is not None else UNIT_BITS for name, values in columns.items()}
    found = Clusters(lifts, most_apart=most_apart)
    for start in range(0, len(keys), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        kept = np.flatnonzero(counted[rows]) + start
        names, index = numbered(keys[kept])
        own = {name: column[kept] for name, column in columns.items()}
        own_weights = None if weights is None else weights[kept]
        totals = dict(zip(names, totals_of(index, len(names), own, own_weights), strict=True))
        of_slices: dict[Any, Totals] = {}
        for column in [] if slices is None or not len(kept) else np.atleast_2d(slices.T):
            different, slice_index = np.unique(column[kept], return_inverse=True)
            slice_names = different.tolist()
            pairs, pair = np.unique(slice_index * len(names) + index, return_inverse=True)
            both = [(slice_names[each // len(names)], names[each % len(names)]) for each in pairs.tolist()]
            of_slices |= zip(both, totals_of(pair, len(pairs), own, own_weights), strict=True)
        ends = tuple(keys[kept[[0, -1]]].tolist()) if len(kept) else ()
        run = Run(first_row + start, first_row + min(start + BLOCK_ROWS, len(keys)), ends)
        found = found.merge(Clusters(lifts, (run,), totals, of_slices, most_apart=most_apart))
    return found


def numbered(keys: NDArray[Any]) -> tuple[list[Any], NDArray[np.intp]]:
    """The different keys, in the order in which they come, and which of them each row has."""
    begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))[: len(keys)]
    places: dict[Any, int] = {}
    of_runs = [places.setdefault(key, len(places)) for key in keys[begins].tolist()]
    return [*places], np.repeat(np.asarray(of_runs, np.intp), np.diff(begins, append=len(keys)))


def totals_of(
    index: NDArray[Any], groups: int, columns: Mapping[str, NDArray[Any]], weights: NDArray[Any] | None
) -> list[Totals]:
    """The totals of each group of rows; `index` is the group of each row."""
    sums: list[list[int]] = []
    for values in (np.ones(len(index), bool), *columns.values()):
        if values.dtype != bool:
            with np.errstate(over="ignore", invalid="ignore"):
                products = values if weights is None else values.astype(np.float64) * weights
            sums.append(grouped_totals(np.where(np.isfinite(products), products, 0), index, groups))
        elif weights is None:
            sums.append(np.bincount(index, values, groups).astype(np.int64).tolist())
        else:
            sums.append(grouped_totals(np.where(values, weights, 0), index, groups))
    return [*zip(*sums, strict=True)]
