"""The state of one block of rows, from the numbers of each row.

Leaves out how a row's numbers are computed, and where the rows come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import xent
from xent.evaluation.options import Options
from xent.evaluation.statistics.bins import bin_of, histogram_bin
from xent.evaluation.statistics.classwise import Classwise
from xent.evaluation.statistics.cluster_sums import NOT_FINITE, clusters_of
from xent.evaluation.statistics.confusion import NO_CLASS
from xent.evaluation.statistics.exact_sums import Moments, grouped_moments, grouped_totals, moments_of
from xent.evaluation.statistics.score_counts import MOST_KEYS, ScoreCounts, amounts_of, scores_counted
from xent.evaluation.statistics.state import SEGMENTS, WORST, Bin, Example, Group, State, Tally, Worst

NORMALISED_WITHIN = 1e-3
"""How far log Σp may lie from 0 in a row that is a distribution; float16 probabilities come within half of it."""
ONE_WITHIN = 1e-2
"""How far a probability may lie above 1; a softmax in bfloat16 comes within half of it."""


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
    score_counts: Mapping[int, ScoreCounts] | None = None,
    most_apart: int = 0,
    predicted_bytes: NDArray[Any] | None = None,
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
    slices, clusters : array, shape (rows,), or None; slices (rows, columns) too
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
    score_counts : mapping of int to ScoreCounts, optional
        Those of these rows.
    most_apart : int
        As :func:`clusters_of` takes it.
    predicted_bytes : array, shape (rows,), integer, optional
        How many bytes each row stands for.
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
    rank, top = np.asarray(statistics.label_rank), np.asarray(statistics.top_probability)
    label_probability = np.asarray(statistics.label_probability, np.float64)
    sum_p_squared = np.asarray(statistics.sum_p_squared, np.float64)
    above_one = counted & (top > 1 + ONE_WITHIN) & options.are_probabilities
    grouper = Grouper(loss, counted, finite, rank == 0, weights)
    confusion, confusion_weights = dict[tuple[int, int], int](), dict[tuple[int, int], int]()
    if options.confusion and predicted is not None:
        confusion, confusion_weights = confusion_sums(labels, rank, counted, predicted, weights)
    has_confidence = counted & np.isfinite(top)
    bins = bins_of(top, rank == 0, has_confidence, options.bins, weights)
    confidence_counts = None
    if options.calibration:
        given, is_right = (take(each, has_confidence) for each in (top.astype(np.float64), rank == 0))
        amounts = amounts_of(len(given), None if weights is None else weights[has_confidence])
        confidence_counts = scores_counted(given, is_right, amounts, MOST_KEYS)
    is_ranked = counted & (rank >= 0) & (rank < options.ranks)

    def moments(values: NDArray[Any], rows: NDArray[Any]) -> Moments:
        return moments_of(take(values, rows), None if weights is None else take(weights, rows))

    segments = grouper.by_segment(first_row, all_rows)
    if segments:  # the same sum, which is exact: it is not taken again
        of_losses = reduce(Moments.merge, (group.loss for group in segments.values()))
    else:
        of_losses = moments(loss, finite)
    brier, entropy = 1 - 2 * label_probability + sum_p_squared, np.asarray(statistics.entropy)
    groups = None
    if clusters is not None:
        columns: dict[str, NDArray[Any]] = {"loss": loss, "brier": brier, "entropy": entropy, "confidence": top}
        columns |= {} if target_entropy is None else {"target entropy": target_entropy}
        columns |= {name: (rank >= 0) & (rank < k) for name, k in options.shares.items()}
        columns[NOT_FINITE] = ~finite
        groups = clusters_of(clusters, slices, counted, columns, weights, first_row, most_apart)

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
        loss=of_losses,
        brier=moments(brier, counted & np.isfinite(brier)),
        entropy=moments(entropy, counted & np.isfinite(entropy)),
        confidence=reduce(Moments.merge, (each.all for each in bins.values()), Moments()),
        ranks=counts_of(take(rank, is_ranked)),
        labels=counts_of(take(labels, counted)),
        bins=bins,
        histogram=counts_of(histogram_bin(take(loss, finite))),
        segments=segments,
        worst=worst_of(np.where(finite | infinite, loss, -np.inf), labels, first_row, predicted),
        classes=grouper.by(labels) if options.by_class else {},
        slices=grouper.by(slices),
        clusters=groups,
        classwise=classwise,
        bad_weight=tally_of(bad_weight, first_row),
        target_entropy=(
            Moments() if target_entropy is None else moments(target_entropy, counted & np.isfinite(target_entropy))
        ),
        weight=Moments() if weights is None else moments_of(weights[counted]),
        rank_weights={} if weights is None else moments_by(rank[is_ranked], weights[is_ranked]),
        label_weights={} if weights is None else moments_by(labels[counted], weights[counted]),
        predicted_bytes=byte_sums(predicted_bytes, None, counted, weights).get(0),
        slice_brier=brier_by_slice(slices, counted, brier, weights),
        slice_bins=bins_by_slice(slices, top, rank == 0, has_confidence, options.bins, weights)
        if options.calibration
        else {},
        slice_bytes=byte_sums(predicted_bytes, slices, counted, weights) if slices is not None else {},
        confusion=confusion,
        confusion_weights=confusion_weights,
        score_counts=score_counts or {},
        confidence_counts=confidence_counts,
    )


def take(values: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
    """The values of the rows of a mask; without a copy where these are all."""
    return values if rows.all() else values[rows]


def confusion_sums(
    labels: NDArray[Any],
    rank: NDArray[Any],
    counted: NDArray[Any],
    predicted: Callable[[NDArray[Any]], NDArray[Any]],
    weights: NDArray[Any] | None,
) -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], int]]:
    """The counted rows of each label and predicted class, and their weights; the first of equal predictions is it.

    The predictions are read again only where the label's is not the highest.
    """
    labels = labels.astype(np.int64)
    classes = np.where(rank == 0, labels, NO_CLASS)
    wrong = np.flatnonzero(counted & (rank > 0))
    classes[wrong] = predicted(wrong)
    labels, classes = labels[counted], classes[counted]
    width = int(classes.max(initial=0)) + 2
    codes = labels * width + classes - NO_CLASS

    def decoded(sums: Mapping[int, int]) -> dict[tuple[int, int], int]:
        return {(code // width, code % width + NO_CLASS): amount for code, amount in sums.items()}

    if weights is None:
        return decoded(counts_of(codes)), {}
    sums = {code: moments.total for code, moments in moments_by(codes, weights[counted]).items()}
    return decoded(counts_of(codes)), decoded(sums)


def moments_by(keys: NDArray[Any], values: NDArray[Any]) -> dict[int, Moments]:
    """The moments of the values of each key."""
    names, index = np.unique(keys, return_inverse=True)
    return dict(zip(names.tolist(), grouped_moments(values, index, len(names)), strict=True))


def byte_sums(
    counts: NDArray[Any] | None, keys: NDArray[Any] | None, counted: NDArray[Any], weights: NDArray[Any] | None
) -> dict[Any, int]:
    """The bytes of the counted rows of each key, times their weights, in units of 2**-1126; those of all by the key 0.

    None without counts.
    """
    if counts is None:
        return {}
    products = (counts.astype(np.float64) * (1.0 if weights is None else weights))[counted]
    found: dict[Any, int] = {}
    for names, index in slice_indices(np.zeros(len(counts), int) if keys is None else keys, counted):
        found |= zip(names, grouped_totals(products, index, len(names)), strict=True)
    return found


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
    top, correct = take(top, counted), take(correct, counted)
    weights = None if weights is None else weights[counted]
    index = bin_of(top, bins)
    moments = grouped_moments(top, index + bins * ~correct, 2 * bins, weights)
    squares = (
        [Moments()] * bins if weights is None else grouped_moments(top.astype(np.float64) ** 2, index, bins, weights)
    )
    found = enumerate(zip(moments[:bins], moments[bins:], squares, strict=True))
    return {i: Bin(*each) for i, each in found if each[0].n or each[1].n}


def slice_indices(slices: NDArray[Any] | None, rows: NDArray[Any]) -> Iterator[tuple[list[Any], NDArray[np.intp]]]:
    """Of each column of slices their names, and the index of that of each row of a mask; none if it has no rows."""
    for column in [] if slices is None or not rows.any() else np.atleast_2d(slices.T):
        names, index = np.unique(take(column, rows), return_inverse=True)
        yield names.tolist(), index


def brier_by_slice(
    slices: NDArray[Any] | None, counted: NDArray[Any], brier: NDArray[Any], weights: NDArray[Any] | None
) -> dict[Any, Moments]:
    """The Brier scores of the counted rows of each slice, those that are not finite left out."""
    found: dict[Any, Moments] = {}
    is_finite = np.isfinite(brier[counted])
    values, own = brier[counted][is_finite], None if weights is None else weights[counted][is_finite]
    for names, index in slice_indices(slices, counted):
        found |= zip(names, grouped_moments(values, index[is_finite], len(names), own), strict=True)
    return found


def bins_by_slice(
    slices: NDArray[Any] | None,
    top: NDArray[Any],
    correct: NDArray[Any],
    counted: NDArray[Any],
    bins: int,
    weights: NDArray[Any] | None,
) -> dict[Any, dict[int, Bin]]:
    """The bins of :func:`bins_of` of each slice."""
    found: dict[Any, dict[int, Bin]] = {}
    for names, index in slice_indices(slices, counted):
        order = np.argsort(index, kind="stable")
        rows = np.flatnonzero(counted)[order]
        for name, own in zip(names, np.split(rows, np.flatnonzero(np.diff(index[order])) + 1), strict=True):
            own_weights = None if weights is None else weights[own]
            found[name] = bins_of(top[own], correct[own], np.ones(len(own), bool), bins, own_weights)
    return found


class Grouper(NamedTuple):
    """The rows of a block, to be grouped: their losses, which of them count, are finite and are correct; weights."""

    loss: NDArray[Any]
    counted: NDArray[Any]
    finite: NDArray[Any]
    correct: NDArray[Any]
    weights: NDArray[Any] | None = None

    def by(self, keys: NDArray[Any] | None) -> dict[Any, Group]:
        """The counted rows by their key, or by those of each column; no groups without keys."""
        if keys is None:
            return {}
        if keys.ndim > 1:
            return {name: group for column in keys.T for name, group in self.by(column).items()}
        names, index = np.unique(take(keys, self.counted), return_inverse=True)
        return dict(zip(names.tolist(), self.groups(index, len(names)), strict=True))

    def by_segment(self, first_row: int, rows: int) -> dict[int, Group]:
        """The counted rows by the part of the whole set in which they are."""
        if not rows:
            return {}
        parts, groups, start = min(SEGMENTS, rows), dict[int, Group](), 0
        while start < len(self.loss):
            part = (first_row + start) * parts // rows
            stop = min(len(self.loss), -(-(part + 1) * rows // parts) - first_row)
            group = Grouper(*(None if field is None else field[start:stop] for field in self)).whole()  # type: ignore[arg-type]
            if group.counted:
                groups[part] = group
            start = stop
        return groups

    def whole(self) -> Group:
        """All rows as one group: numbers side by side add up in half the time of :meth:`groups`."""
        finite, counted, correct = self.finite, self.counted, self.correct & self.counted
        weights = self.weights
        loss = moments_of(take(self.loss, finite), None if weights is None else weights[finite])
        return Group(
            int(np.count_nonzero(counted)),
            int(np.count_nonzero(correct)),
            loss,
            *([] if weights is None else [moments_of(weights[counted]), moments_of(weights[correct])]),
        )

    def groups(self, index: NDArray[Any], groups: int) -> list[Group]:
        """The groups of the counted rows; `index` is the group of each of them."""
        finite, is_correct = take(self.finite, self.counted), take(self.correct, self.counted)
        weights, of_finite = self.weights, None if self.weights is None else self.weights[self.finite]
        moments = grouped_moments(take(self.loss, self.finite), take(index, finite), groups, of_finite)
        counted = np.bincount(index, minlength=groups)
        correct = np.bincount(index, is_correct, minlength=groups)
        weight = correct_weight = [Moments()] * groups
        if weights is not None:
            weights = weights[self.counted]
            weight = grouped_moments(weights, index, groups)
            correct_weight = grouped_moments(weights[is_correct], index[is_correct], groups)
        columns = zip(counted.tolist(), map(int, correct.tolist()), moments, weight, correct_weight, strict=True)
        return [Group(*column) for column in columns]
