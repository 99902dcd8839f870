"""The numbers of a prediction set, made of its sums; each mean is rounded once, so nothing cancels.

Leaves out the sums (``state.py``) and how they are shown (``report/``).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from xent.evaluation.options import Options
from xent.evaluation.statistics.exact_sums import UNIT_BITS, Moments, ratio, root
from xent.evaluation.statistics.state import SEGMENTS, Example, Group, State, edges_of

NORMAL_95 = 1.959963984540054  # the 97.5 % point of the normal distribution
LARGEST_EXPONENT = 709.78


@dataclass(frozen=True, slots=True)
class Metric:
    """A mean over rows: its value, its standard error, and its denominator."""

    value: float
    stderr: float
    n: int


class GroupMetrics(NamedTuple):
    """The rows of one class or slice."""

    counted: int
    mean_loss: float
    standard_error: float
    accuracy: float


class ReliabilityBin(NamedTuple):
    """The rows whose highest probability lies in (low, high]."""

    low: float
    high: float
    counted: int
    confidence: float
    accuracy: float


class LossBin(NamedTuple):
    """The rows whose loss lies in [low, high), in nats."""

    low: float
    high: float
    counted: int


class Segment(NamedTuple):
    """The rows from `first_row` to the one before `stop_row`: how many count, and their mean loss."""

    first_row: int
    stop_row: int
    counted: int
    mean_loss: float


class Temperature(NamedTuple):
    """The temperature T of logits / T with the least mean loss, and the numbers at it.

    `is_bounded` is false where the loss still fell at the end of the range that was searched, 2**-10 to 2**10.
    """

    value: float
    mean_loss: float
    calibration_error: float
    passes: int
    is_bounded: bool


@dataclass(frozen=True)
class Evaluation:
    """The numbers of a prediction set.

    Attributes
    ----------
    mean_loss : float
        Mean negative log-probability of the label over counted rows, in nats, rounded once. NaN where `nan_rows` is
        not 0, or no row counts.
    standard_error : float
        Of `mean_loss`, in nats. Rows are taken as independent, sqrt(sample variance / counted), or clusters where they
        are given: sqrt(G / (G − 1) Σ_g (Σ_{i∈g} (ℓ_i − mean))²) / counted [1]_. NaN under two of them.
    confidence_interval : tuple of float
        95 %, in nats: mean_loss ± 1.96 standard errors.
    perplexity, bits : float
        exp(mean_loss), and mean_loss / log 2.
    bits_per_byte : float or None
        The loss of all counted rows in bits, divided by the bytes that were said to be predicted.
    accuracy : float
        Share of counted rows whose label has the highest prediction; of equal ones the first class wins. A NaN row is
        not right.
    top_k_accuracy : mapping of int to float
        Share of counted rows whose label is among the k highest.
    brier : float
        Mean of 1 − 2 p_label + Σ p², in [0, 2].
    entropy, confidence : float
        Mean −Σ p log p, in nats, and mean of the highest probability.
    calibration_error : float
        Σ_b (n_b / n) |accuracy_b − confidence_b| over the bins of `reliability` (the expected calibration error).
    classwise_calibration_error : float or None
        The same gap for the probability of each class in every row, and their mean over classes, where asked for.
    reliability : tuple of ReliabilityBin
        The bins of equal width in which there are rows.
    prior_loss, skill : float
        The loss of always predicting how often each label occurs in this set, and 1 − mean_loss / prior_loss: 0 for
        a model that knows no more than that, 1 for one that is certain and right.
    histogram : tuple of LossBin
        The bins of finite losses in which there are rows, four to the octave.
    positions : tuple of Segment
        The mean loss over the rows' position, in up to 100 parts of the set.
    worst : tuple of Example
        The rows of the highest loss, the highest first.
    rows, counted, ignored, bad_labels, beyond_rows, unread_rows, nan_rows, infinite_rows, unnormalised_rows : int
        counted = rows − ignored − bad_labels − beyond_rows − unread_rows is the denominator of every mean. Beyond are
        rows whose label is not among the k classes that are known of a row. NaN and infinite rows are counted, and so
        are those whose probabilities do not sum to 1.
    first_bad_label, first_beyond, first_unread, first_nan, first_infinite, first_unnormalised : int or None
        The row of the first one.
    clusters : int or None
        How many clusters of counted rows there are, where they are given.
    classes, slices : mapping to GroupMetrics
        The tables that were asked for, by label and by slice.
    temperature : Temperature or None
        The temperature of the least loss, where asked for.
    denominator : str
        What the means divide by, in words.

    References
    ----------
    .. [1] Cameron & Miller, "A practitioner's guide to cluster-robust inference", Journal of Human Resources 50(2),
       2015, section II.
    """

    mean_loss: float
    standard_error: float
    confidence_interval: tuple[float, float]
    perplexity: float
    bits: float
    bits_per_byte: float | None
    accuracy: float
    top_k_accuracy: Mapping[int, float]
    brier: float
    entropy: float
    confidence: float
    calibration_error: float
    classwise_calibration_error: float | None
    reliability: tuple[ReliabilityBin, ...]
    prior_loss: float
    skill: float
    histogram: tuple[LossBin, ...]
    positions: tuple[Segment, ...]
    worst: tuple[Example, ...]
    rows: int
    counted: int
    ignored: int
    bad_labels: int
    beyond_rows: int
    unread_rows: int
    nan_rows: int
    infinite_rows: int
    unnormalised_rows: int
    first_bad_label: int | None
    first_beyond: int | None
    first_unread: int | None
    first_nan: int | None
    first_infinite: int | None
    first_unnormalised: int | None
    clusters: int | None
    classes: Mapping[int, GroupMetrics]
    slices: Mapping[Any, GroupMetrics]
    metrics: Mapping[str, Metric]
    temperature: Temperature | None = None
    denominator: str = "rows that were read, are not ignored, and have a label with a loss"


def finish(state: State, options: Options = Options()) -> Evaluation:  # noqa: B008  # it cannot be changed
    """The numbers of a prediction set, from its sums, which were made with the same options.

    Examples
    --------
    >>> import numpy as np
    >>> from xent.evaluation.statistics.exact_sums import moments_of
    >>> finish(State(rows=2, loss=moments_of(np.asarray([1.0, 3.0])))).standard_error
    1.0
    """
    n, mean, predicted_bytes = state.counted, mean_loss(state), options.predicted_bytes
    groups = state.clusters.values()
    error = clustered_error(state.loss, state.counted, groups) if groups else independent_error(state)
    prior = prior_loss(state.labels, n)
    accuracy = share(state.correct, n)
    per_byte = None if predicted_bytes is None else mean * n / math.log(2) / predicted_bytes
    perplexity = math.exp(mean) if not mean > LARGEST_EXPONENT else math.inf
    brier, entropy, confidence = (mean_of(one, n) for one in (state.brier, state.entropy, state.confidence))
    metrics = {
        "loss": Metric(mean, error, n),
        "bits": Metric(mean / math.log(2), error / math.log(2), n),
        "perplexity": Metric(perplexity, perplexity * error, n),
        "accuracy": Metric(accuracy.value, accuracy.stderr, n),
        **{f"top-{k} accuracy": share(sum(state.ranks.get(rank, 0) for rank in range(k)), n) for k in options.top_k},
        "brier": brier,
        "entropy": entropy,
        "confidence": confidence,
    }
    return Evaluation(
        mean_loss=mean,
        standard_error=error,
        confidence_interval=(mean - NORMAL_95 * error, mean + NORMAL_95 * error),
        perplexity=perplexity,
        bits=mean / math.log(2),
        bits_per_byte=per_byte,
        accuracy=accuracy.value,
        top_k_accuracy={k: metrics[f"top-{k} accuracy"].value for k in options.top_k},
        brier=brier.value,
        entropy=entropy.value,
        confidence=confidence.value,
        calibration_error=calibration_error(state),
        classwise_calibration_error=classwise_error(state),
        reliability=reliability(state, options.bins),
        prior_loss=prior,
        skill=1 - mean / prior if prior else math.nan,
        histogram=tuple(LossBin(*edges_of(place), count) for place, count in sorted(state.histogram.items())),
        positions=positions(state),
        worst=state.worst.examples,
        rows=state.rows,
        counted=n,
        ignored=state.ignored,
        bad_labels=state.bad_label.count,
        beyond_rows=state.beyond.count,
        unread_rows=state.unread.count,
        nan_rows=state.nan.count,
        infinite_rows=state.infinite.count,
        unnormalised_rows=state.unnormalised.count,
        first_bad_label=state.bad_label.first_row,
        first_beyond=state.beyond.first_row,
        first_unread=state.unread.first_row,
        first_nan=state.nan.first_row,
        first_infinite=state.infinite.first_row,
        first_unnormalised=state.unnormalised.first_row,
        clusters=len(state.clusters) if state.clusters else None,
        classes=group_metrics(state.classes),
        slices=group_metrics(state.slices, clusters_by_slice(state)),
        metrics=metrics,
    )


def mean_loss(state: State) -> float:
    """NaN with a NaN row, infinite with a row of probability 0."""
    if state.nan.count or not state.counted:
        return math.nan
    return math.inf if state.infinite.count else state.loss.mean


def independent_error(state: State) -> float:
    """The standard error of the mean loss, rows taken as independent; NaN where a loss is not finite."""
    return state.loss.standard_error if state.loss.n == state.counted else math.nan


def clustered_error(loss: Moments, n: int, clusters: Collection[Group]) -> float:
    """The standard error of the mean of n losses, their clusters taken as independent."""
    groups, total = len(clusters), loss.total
    if groups < 2 or loss.n != n:
        return math.nan
    # exactly: the sum of a cluster less its share of the mean is (n S_g − n_g S) / n
    scatter = sum((n * one.loss.total - one.counted * total) ** 2 for one in clusters)
    return root(groups * scatter, (groups - 1) * n**4 << 2 * UNIT_BITS)


def mean_of(moments: Moments, counted: int) -> Metric:
    """The mean of a number of every counted row; NaN where one of them has none."""
    if moments.n != counted:
        return Metric(math.nan, math.nan, counted)
    return Metric(moments.mean, moments.standard_error, counted)


def share(hits: int, counted: int) -> Metric:
    """A share of the counted rows, and its standard error with rows taken as independent."""
    value = ratio(hits, counted)
    return Metric(value, math.sqrt(value * (1 - value) / (counted - 1)) if counted > 1 else math.nan, counted)


def prior_loss(labels: Mapping[int, int], counted: int) -> float:
    """−Σ (n_c / n) log(n_c / n): what predicting the share of each label costs."""
    terms = sorted(ratio(count, counted) * math.log(counted / count) for count in labels.values() if count)
    return math.fsum(terms) if counted else math.nan


def reliability(state: State, bins: int) -> tuple[ReliabilityBin, ...]:
    """The bins in which there are rows, the lowest first."""
    return tuple(
        ReliabilityBin(index / bins, (index + 1) / bins, n := one.confidence.n, one.confidence.mean, one.correct / n)
        for index, one in sorted(state.bins.items())
    )


def positions(state: State) -> tuple[Segment, ...]:
    """The mean loss of each part of the set in which rows count."""
    parts = min(SEGMENTS, state.rows)
    told = []
    for part, one in sorted(state.segments.items()):
        first, stop = (-(-at * state.rows // parts) for at in (part, part + 1))
        told.append(Segment(first, stop, one.counted, metrics_of(one).mean_loss))
    return tuple(told)


def calibration_error(state: State) -> float:
    """The gap between confidence and accuracy, bin by bin, weighted by their rows; exact until the last division."""
    rows = sum(one.confidence.n for one in state.bins.values())
    gaps = sum(abs((one.correct << UNIT_BITS) - one.confidence.total) for one in state.bins.values())
    return ratio(gaps, rows << UNIT_BITS) if rows == state.counted else math.nan


def classwise_error(state: State) -> float | None:
    """NaN where a counted row has no probabilities."""
    if state.classwise is None:
        return None
    return state.classwise.error() if state.classwise.rows == state.counted else math.nan


def clusters_by_slice(state: State) -> dict[Any, list[Group]]:
    """The clusters of each slice, where there are both."""
    found: dict[Any, list[Group]] = {}
    for (key, _), group in state.slice_clusters.items():
        found.setdefault(key, []).append(group)
    return found


def group_metrics(
    groups: Mapping[Any, Group], clusters: Mapping[Any, Sequence[Group]] | None = None
) -> dict[Any, GroupMetrics]:
    """The numbers of each group, in the order of its keys; of slices with the clusters of each."""
    return {key: metrics_of(groups[key], (clusters or {}).get(key)) for key in sorted(groups)}


def metrics_of(group: Group, clusters: Sequence[Group] | None = None) -> GroupMetrics:
    """The numbers of one group; NaN where one of its losses is not finite."""
    is_whole = group.loss.n == group.counted
    mean, error = (group.loss.mean, group.loss.standard_error) if is_whole else (math.nan, math.nan)
    if clusters is not None:
        error = clustered_error(group.loss, group.counted, clusters)
    return GroupMetrics(group.counted, mean, error, ratio(group.correct, group.counted))
