"""The numbers of a prediction set, computed from its sums; each mean is rounded once, so nothing cancels.

Leaves out the sums (``state.py``), the record of the numbers (``evaluation.py``), and how they are shown (``report/``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from xent.evaluation.options import Options, top_k_name
from xent.evaluation.statistics.bins import histogram_edges
from xent.evaluation.statistics.calibration import calibration_of
from xent.evaluation.statistics.classwise import classwise_calibration
from xent.evaluation.statistics.cluster_losses import perplexity_of
from xent.evaluation.statistics.cluster_sums import Clusters
from xent.evaluation.statistics.confusion import confusion_of
from xent.evaluation.statistics.evaluation import (
    COUNTED,
    FLAWS,
    ClassMetrics,
    Evaluation,
    GroupMetrics,
    LossBin,
    Metric,
    Segment,
)
from xent.evaluation.statistics.exact_sums import UNIT_BITS, Moments, ratio
from xent.evaluation.statistics.ranking import ranking_of
from xent.evaluation.statistics.score_counts import NO_SCORES
from xent.evaluation.statistics.slice_tests import tested_slices
from xent.evaluation.statistics.state import SEGMENTS, Example, Group, State, Tally
from xent.evaluation.statistics.student import margin


def finish(
    state: State,
    options: Options = Options(),  # noqa: B008  # it cannot be changed
    names: Sequence[str] = (),
    all_rows: int | None = None,
) -> Evaluation:
    """The numbers of a prediction set, from its sums, which were made with the same options.

    `names` are those of the classes, if they have any, and stand in place of their numbers. `all_rows` are the rows of
    the set where the sums are of some of them.

    Examples
    --------
    >>> import numpy as np
    >>> from xent.evaluation.statistics.exact_sums import moments_of
    >>> finish(State(rows=2, loss=moments_of(np.asarray([1.0, 3.0])))).standard_error
    1.0
    """
    state = with_whole_clusters(state)
    metrics = means(state, options)
    mean, error, n = metrics["loss"].value, metrics["loss"].stderr, state.counted
    degrees = degrees_of_freedom(state)
    classwise = None
    if state.classwise is not None:
        classwise = classwise_calibration(state.classwise, metrics["brier"].value, n, names)
    confidences = state.confidence_counts or NO_SCORES if options.calibration else None
    calibration, reliability = calibration_of(state.bins, n, confidences, classwise, options.bins)
    prior, weight = prior_loss(state), state.weight
    total = weight.total / (1 << UNIT_BITS) if weight.n else float(n)
    flaws: dict[str, Any] = {}
    for flaw in FLAWS:
        tally: Tally = getattr(state, flaw.tally)
        flaws |= {flaw.count: tally.count, flaw.first: tally.first_row}
    return Evaluation(
        mean_loss=mean,
        standard_error=error,
        confidence_interval=interval(mean, error, degrees),
        degrees_of_freedom=degrees,
        perplexity=metrics["perplexity"].value,
        bits=metrics["bits"].value,
        bits_per_byte=bits_per_byte(state, mean, options.predicted_bytes),
        accuracy=metrics["accuracy"].value,
        top_k_accuracy={k: metrics[top_k_name(k)].value for k in options.top_k},
        brier=metrics["brier"].value,
        entropy=metrics["entropy"].value,
        confidence=metrics["confidence"].value,
        calibration_error=calibration.error,
        classwise_calibration_error=None if classwise is None else classwise.error,
        reliability=reliability,
        calibration=calibration,
        prior_loss=prior,
        skill=1 - mean / prior if prior > 0 else math.nan,
        histogram=tuple(LossBin(*histogram_edges(i), count) for i, count in sorted(state.histogram.items())),
        positions=positions(state, state.rows if all_rows is None else all_rows),
        worst=tuple(named_example(example, names) for example in state.worst.examples),
        rows=state.rows,
        counted=n,
        ignored=state.ignored,
        **flaws,
        clusters=cluster_count(state),
        cluster_losses=None if state.clusters is None else state.clusters.means.losses(),
        classes={
            names[label] if names else label: ClassMetrics(*row[:5], row.accuracy_error)
            for label, row in metrics_by_key(state.classes).items()
        },
        slices=tested_slices(metrics_by_key(state.slices, state.clusters, state.slice_bytes), state),
        metrics=metrics,
        kind=options.kind,
        looks_like_probabilities=looks_like_probabilities(state),
        confusion=confusion_of(state.confusion, state.confusion_weights, names) if options.confusion else None,
        ranking=ranking_of(state.score_counts, state.labels, names) if options.auc else None,
        total_weight=total if weight.n else None,
        effective_rows=ratio(weight.total**2, weight.squares) if weight.n else None,
        denominator=f"the weights of {COUNTED}" if weight.n else COUNTED,
    )


def with_whole_clusters(state: State) -> State:
    """The state of all rows that are to come, so that all its clusters are complete."""
    return state if state.clusters is None else replace(state, clusters=state.clusters.whole())


def named_example(example: Example, names: Sequence[str]) -> Example:
    """The example with the names of its classes, if they have any."""
    if not names:
        return example
    predicted = None if example.predicted is None else names[int(example.predicted)]
    return example._replace(label=names[int(example.label)], predicted=predicted)


def looks_like_probabilities(state: State) -> bool:
    """Whether every counted row is one of logits that lie in [0, 1] and sum to 1."""
    return 0 < state.counted == state.like_probabilities


def means(state: State, options: Options) -> dict[str, Metric]:
    """The means over counted rows, by the names that the reports show."""
    n, mean = state.counted, mean_loss(state)
    perplexity = perplexity_of(mean)
    shares = {name: share_within(k, state) for name, k in options.shares.items()}
    plain = {
        "loss": Metric(mean, independent_error(state), n),
        **shares,
        "brier": mean_of(state.brier, n),
        "entropy": mean_of(state.entropy, n),
        "confidence": mean_of(state.confidence, n),
        **({"target entropy": mean_of(state.target_entropy, n)} if state.target_entropy.n else {}),
    }
    found = {name: with_clusters(name, metric, state.clusters) for name, metric in plain.items()}
    error = found["loss"].stderr
    made_of_loss = {
        "bits": Metric(mean / math.log(2), error / math.log(2), n),
        "perplexity": Metric(perplexity, perplexity * error, n),
    }
    return {"loss": found.pop("loss"), **made_of_loss, **found}


def share_within(k: int, state: State) -> Metric:
    """The share of counted rows whose label is among the k highest predictions."""
    hits = sum(rows for rank, rows in state.ranks.items() if rank < k)
    weights = (weight for rank, weight in state.rank_weights.items() if rank < k)
    return proportion(hits, state.counted, reduce(Moments.merge, weights, Moments()), state.weight)


def with_clusters(name: str, metric: Metric, clusters: Clusters | None) -> Metric:
    """The metric with the error that takes clusters as independent, if there are any and it has an error."""
    if clusters is None or math.isnan(metric.stderr):
        return metric
    return replace(metric, stderr=clusters.standard_error(name))


def bits_per_byte(state: State, mean: float, predicted_bytes: int | None) -> float | None:
    """The loss of all counted rows in bits, over their bytes or so many in all; None if neither is known."""
    weight = state.weight.total if state.weight.n else state.counted << UNIT_BITS
    if state.predicted_bytes is not None:
        return mean * ratio(weight, state.predicted_bytes) / math.log(2)
    return None if predicted_bytes is None else mean * (weight / (1 << UNIT_BITS)) / math.log(2) / predicted_bytes


def mean_loss(state: State) -> float:
    """The mean loss; NaN with a NaN row, infinite with a row of probability 0."""
    if state.nan.count or not state.counted:
        return math.nan
    return math.inf if state.infinite.count else state.loss.mean


def independent_error(state: State) -> float:
    """The standard error of the mean loss, rows taken as independent; NaN if a loss is not finite."""
    return state.loss.standard_error if state.loss.n == state.counted else math.nan


def degrees_of_freedom(state: State) -> int:
    """Those of the standard error of the mean loss: one less than what it takes as independent; 0 of none."""
    independent = cluster_count(state) or whole_rows(state.weight, state.counted)
    return max(independent, 1) - 1


def cluster_count(state: State) -> int | None:
    """How many clusters of counted rows there are; None where rows have none, or none counts."""
    return None if state.clusters is None else state.clusters.complete.clusters or None


def whole_rows(weight: Moments, counted: int) -> int:
    """The effective rows of these weights, (Σw)² / Σw², rounded down; all where rows have no weights."""
    return weight.total**2 // weight.squares if weight.n else counted


def interval(mean: float, error: float, degrees: int) -> tuple[float, float]:
    """The 95 % interval of a mean."""
    half = margin(error, degrees)
    return mean - half, mean + half


def mean_of(moments: Moments, counted: int) -> Metric:
    """The mean of a number of every counted row; NaN if one of them is not finite."""
    if moments.n != counted:
        return Metric(math.nan, math.nan, counted)
    return Metric(moments.mean, moments.standard_error, counted)


def proportion(hits: int, counted: int, hit_weight: Moments, weight: Moments) -> Metric:
    """The proportion of hits among the counted rows, and its standard error with rows taken as independent.

    The moments are those of the weights of both, if rows have weights.
    """
    if weight.n:
        return mean_of(hit_weight._replace(n=counted, **weights_of_hits(hit_weight, weight)), counted)
    value = ratio(hits, counted)
    return Metric(value, math.sqrt(value * (1 - value) / (counted - 1)) if counted > 1 else math.nan, counted)


def weights_of_hits(hit_weight: Moments, weight: Moments) -> dict[str, int]:
    """The other moments of the number that is 1 in a hit and else 0: w times it is w or 0."""
    return {"weight": weight.total, "weight_squares": weight.squares, "products": hit_weight.squares}


def prior_loss(state: State) -> float:
    """−Σ (n_c / n) log(n_c / n): the loss of predicting the frequency of each label; with weights, their shares."""
    if state.target_entropy.n:  # the labels are the largest of distributions, and no shares of them
        return math.nan
    shares: dict[int, int] = {label: weight.total for label, weight in state.label_weights.items()}
    shares, whole = (shares, state.weight.total) if shares else (dict(state.labels), state.counted)
    terms = sorted(ratio(share, whole) * math.log(ratio(whole, share)) for share in shares.values() if share)
    return math.fsum(terms) if whole else math.nan


def positions(state: State, rows: int) -> tuple[Segment, ...]:
    """The mean loss of each part of the set, of so many rows, in which rows count."""
    parts = min(SEGMENTS, rows)
    segments = []
    for part, group in sorted(state.segments.items()):
        first, stop = (-(-edge * rows // parts) for edge in (part, part + 1))
        segments.append(Segment(first, stop, group.counted, group_metrics(group).mean_loss))
    return tuple(segments)


def metrics_by_key(
    groups: Mapping[Any, Group], clusters: Clusters | None = None, predicted_bytes: Mapping[Any, int] | None = None
) -> dict[Any, GroupMetrics]:
    """The numbers of each group, in the order of its keys; of slices with the clusters and the bytes of each."""
    found = {key: group_metrics(groups[key], clusters, key) for key in sorted(groups)}
    for key, total in (predicted_bytes or {}).items():
        weight = groups[key].weight.total if groups[key].weight.n else groups[key].counted << UNIT_BITS
        bits = found[key].mean_loss * ratio(weight, total) / math.log(2)
        found[key] = found[key]._replace(bits_per_byte=bits)
    return found


def group_metrics(group: Group, clusters: Clusters | None = None, key: Any = None) -> GroupMetrics:
    """The numbers of one group; NaN if one of its losses is not finite.

    With `clusters` it is the slice of this key.
    """
    is_whole = group.loss.n == group.counted
    mean, error = (group.loss.mean, group.loss.standard_error) if is_whole else (math.nan, math.nan)
    right, independent = proportion(group.correct, group.counted, group.correct_weight, group.weight), None
    right_error = right.stderr
    if clusters is not None and (sums := clusters.complete_in_slices.get(key)) is not None:
        error = clusters.standard_error("loss", sums) if is_whole else math.nan
        right_error, independent = clusters.standard_error("accuracy", sums), sums.clusters
    independent = whole_rows(group.weight, group.counted) if independent is None else independent
    return GroupMetrics(group.counted, mean, error, right.value, max(independent, 1) - 1, right_error)
