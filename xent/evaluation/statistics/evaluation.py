"""The numbers of a prediction set as a record, and the records that it holds; all are results, which users read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xent.checks import Kind
from xent.evaluation.statistics.calibration import Calibration, ReliabilityBin
from xent.evaluation.statistics.cluster_losses import ClusterLosses
from xent.evaluation.statistics.confusion import Confusion
from xent.evaluation.statistics.ranking import Ranking
from xent.evaluation.statistics.state import Example

COUNTED = "rows that were read, are not ignored, and have a label with a loss"
"""What the means divide by."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A mean over rows: its value, its standard error, and its denominator."""

    value: float
    stderr: float
    n: int


class ClassMetrics(NamedTuple):
    """The rows of one label, and how many of them are predicted as such: the recall of the class, with its error."""

    counted: int
    mean_loss: float
    standard_error: float
    recall: float
    degrees_of_freedom: int
    recall_error: float


class GroupMetrics(NamedTuple):
    """The rows of one slice; the degrees of freedom are those of its standard errors, of the loss and the accuracy.

    The bits per byte are None where the bytes of rows are not known. The p-value is that of a loss as far from
    that of all other rows, by Welch's test, and adjusted for as many tests as there are slices, by Holm's steps.
    The calibration error and its noise floor are None unless `calibration` is asked for.
    """

    counted: int
    mean_loss: float
    standard_error: float
    accuracy: float
    degrees_of_freedom: int
    accuracy_error: float
    bits_per_byte: float | None = None
    brier: float = math.nan
    p_value: float = math.nan
    adjusted_p_value: float = math.nan
    calibration_error: float | None = None
    noise_floor: float | None = None


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

    `is_bounded` is false if the loss still fell at the end of the range that was searched, 2**-10 to 2**10.
    """

    value: float
    mean_loss: float
    calibration_error: float
    passes: int
    is_bounded: bool


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The numbers of a prediction set.

    Attributes
    ----------
    mean_loss : float
        Mean negative log-probability of the label over counted rows, in nats, rounded once. NaN if `nan_rows` is
        not 0, or no row counts.
    standard_error : float
        Of `mean_loss`, in nats. Rows are taken as independent, sqrt(sample variance / counted), or clusters if they
        are given: sqrt(G / (G − 1) Σ_g (Σ_{i∈g} (ℓ_i − mean))²) / counted [1]_. NaN under two of them.
    confidence_interval : tuple of float
        95 %, in nats: mean_loss ± t standard errors, where t is the 97.5 % point of Student's distribution [1]_.
    degrees_of_freedom : int
        Of that distribution: one less than the clusters, or than the counted rows without them; 0 of none.
    perplexity, bits : float
        exp(mean_loss), and mean_loss / log 2.
    bits_per_byte : float or None
        The loss of all counted rows in bits, divided by ``predicted_bytes``, of all or of each row; None without them.
    accuracy : float
        Proportion of counted rows whose label has the highest prediction; of equal ones the first class wins. A NaN row
        is not right.
    top_k_accuracy : mapping of int to float
        Proportion of counted rows whose label is among the k highest.
    brier : float
        Mean of 1 − 2 p_label + Σ p², in [0, 2].
    entropy, confidence : float
        Mean −Σ p log p, in nats, and mean of the highest probability.
    calibration_error : float
        Σ_b (n_b / n) abs(accuracy_b − confidence_b) over the bins of `reliability` (the expected calibration error).
    classwise_calibration_error : float or None
        The same gap for the probability of each class in every row, and their mean over classes; None unless asked for.
    reliability : tuple of ReliabilityBin
        The bins of equal width in which there are rows, with the 95 % interval of each accuracy.
    calibration : Calibration
        The calibration error without its bias, what a calibrated model of this size shows, Murphy's decomposition of
        the Brier score, and what was asked for beside.
    prior_loss, skill : float
        The loss of always predicting the frequencies of the labels in this set, and 1 − mean_loss / prior_loss: 0 for
        a model that knows no more than that, 1 for one that is certain and right. NaN where labels are distributions.
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
    kind : str
        What the predictions were taken for.
    looks_like_probabilities : bool
        Whether they were taken for logits, and every counted row lies in [0, 1] and sums to 1.
    clusters : int or None
        How many clusters of counted rows there are; None if they are not given.
    cluster_losses : ClusterLosses or None
        The mean loss and the perplexity of clusters, such as documents: their mean, their histogram and the highest of
        them; None if clusters are not given.
    classes : mapping to ClassMetrics
    slices : mapping to GroupMetrics
        The tables that were asked for, by label, or by its name if the classes have names, and by slice.
    confusion : Confusion or None
        Which class was predicted for which label, and the scores that follow; None unless asked for.
    ranking : Ranking or None
        How well predictions rank the rows of a class above the others; None unless asked for.
    temperature : Temperature or None
        The temperature of the least loss; None unless asked for.
    unstored_chunks : mapping of str to int
        How many chunks of the predictions, labels, slices or clusters are not stored, where there are any: with
        `zeros_ok` their rows are taken as the fill value, and counted.
    total_weight, effective_rows : float or None
        Σw and (Σw)² / Σw² [2]_ over counted rows: how many rows of one weight tell as much. None without weights.
    denominator : str
        What the means divide by, in words.

    References
    ----------
    .. [1] Cameron & Miller, "A practitioner's guide to cluster-robust inference", Journal of Human Resources 50(2),
       2015, section II.
    .. [2] Kish, "Survey sampling", 1965, section 8.2.
    """

    mean_loss: float
    standard_error: float
    confidence_interval: tuple[float, float]
    degrees_of_freedom: int
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
    calibration: Calibration
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
    bad_weights: int
    unread_rows: int
    nan_rows: int
    infinite_rows: int
    unnormalised_rows: int
    first_bad_label: int | None
    first_beyond: int | None
    first_bad_weight: int | None
    first_unread: int | None
    first_nan: int | None
    first_infinite: int | None
    first_unnormalised: int | None
    clusters: int | None
    classes: Mapping[Any, ClassMetrics]
    slices: Mapping[Any, GroupMetrics]
    metrics: Mapping[str, Metric]
    kind: Kind
    looks_like_probabilities: bool
    confusion: Confusion | None = None
    ranking: Ranking | None = None
    temperature: Temperature | None = None
    cluster_losses: ClusterLosses | None = None
    unstored_chunks: Mapping[str, int] = field(default_factory=dict)
    total_weight: float | None = None
    effective_rows: float | None = None
    denominator: str = COUNTED

    def __repr__(self) -> str:
        return short_repr("Evaluation", self, ("mean_loss", "standard_error", "accuracy", "counted", "rows"))


def short_repr(name: str, result: Any, fields: Sequence[str]) -> str:
    """A result in one line, with these of its fields."""
    values = {field: getattr(result, field) for field in fields}
    shown = (f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items())
    return f"{name}({', '.join(shown)})"


@dataclass(frozen=True)
class Flaw:
    """Rows that are left out, or counted though a number of them is not finite or not a probability.

    ``tally`` is the field of the state; ``count`` and ``first`` are the fields of the evaluation that are made of it.
    """

    tally: str
    count: str
    first: str
    description: str


FLAWS = (
    Flaw("bad_label", "bad_labels", "first_bad_label", "of a bad label"),
    Flaw("outside_top_k", "beyond_rows", "first_beyond", "of a label beyond the ids"),
    Flaw("bad_weight", "bad_weights", "first_bad_weight", "of a bad weight"),
    Flaw("unreadable", "unread_rows", "first_unread", "not read"),
    Flaw("nan", "nan_rows", "first_nan", "counted, loss NaN"),
    Flaw("infinite", "infinite_rows", "first_infinite", "counted, loss infinite"),
    Flaw("unnormalised", "unnormalised_rows", "first_unnormalised", "counted, not summing to 1"),
)
