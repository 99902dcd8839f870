r"""The confusion of labels and predicted classes, and its scores: precision, recall, F1, kappa and their like.

Of n rows let :math:`n_{yc}` have the label y and the predicted class c, :math:`r_c` the label c, :math:`q_c` the
predicted class c. Then

.. math::
    P_c = \frac{n_{cc}}{q_c}, \qquad R_c = \frac{n_{cc}}{r_c}, \qquad F_c = \frac{2 n_{cc}}{q_c + r_c}

    \kappa = \frac{n \sum_c n_{cc} - \sum_c r_c q_c}{n^2 - \sum_c r_c q_c}, \qquad
    \mathrm{MCC} = \frac{n \sum_c n_{cc} - \sum_c r_c q_c}{\sqrt{(n^2 - \sum_c r_c^2) (n^2 - \sum_c q_c^2)}}

[1]_ [2]_ [3]_; with weights the n, r and q are sums of weights. All of these are integers, and a quotient of them is
rounded once; a mean over classes adds the rounded numbers of the classes without rounding.

.. [1] van Rijsbergen, "Information retrieval", 2nd edition, 1979, chapter 7.
.. [2] Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20(1), 1960.
.. [3] Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient", Computational Biology
   and Chemistry 28(5-6), 2004.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from xent.evaluation.statistics.exact_sums import UNIT_BITS, ratio, sqrt_ratio

NO_CLASS = -1
"""Stands for the predicted class of a row in which none is the highest: one of NaN, or all −inf."""
SCORES = range(2, 5)
"""Where precision, recall and F1 are in :class:`ClassScores`."""


class ClassScores(NamedTuple):
    """The scores of one class, NaN where they are 0 / 0; the rows that have it as their label, and as their prediction.

    Of weighted rows the counts are those of rows, and the scores those of weights.
    """

    label_rows: int
    predicted_rows: int
    precision: float
    recall: float
    f1: float


class AverageScores(NamedTuple):
    """Means of the scores of classes."""

    precision: float
    recall: float
    f1: float


class Cell(NamedTuple):
    """How many rows of a label have a predicted class, and what they weigh; None where rows have no weights.

    The predicted class is None where none is the highest: in a row of NaN, or all −inf.
    """

    label: int | str
    predicted: int | str | None
    rows: int
    weight: float | None


@dataclass(frozen=True, repr=False)
class Confusion:
    """Which class was predicted for which label, and the scores that follow.

    Attributes
    ----------
    cells : tuple of Cell
        The pairs that occur, in the order of their classes.
    classes : mapping to ClassScores
        The classes that occur as a label or as a prediction, by their numbers or names.
    macro, micro, weighted : AverageScores
        The means over those classes, in which a score of 0 / 0 counts as 0; the scores of all rows together; the means
        weighted by the rows of each label.
    balanced_accuracy : float
        The mean recall of the classes that occur as labels.
    kappa, mcc : float
        Cohen's kappa and Matthews's correlation coefficient, of any number of classes: 0 for predictions that know
        nothing of the labels, 1 for perfect ones; NaN where they are 0 / 0.
    """

    cells: tuple[Cell, ...]
    classes: Mapping[Any, ClassScores]
    macro: AverageScores
    micro: AverageScores
    weighted: AverageScores
    balanced_accuracy: float
    kappa: float
    mcc: float

    def __repr__(self) -> str:
        return f"Confusion(macro={self.macro}, kappa={self.kappa:.6g}, mcc={self.mcc:.6g}, cells={len(self.cells)})"


def confusion_of(
    rows: Mapping[tuple[int, int], int], weights: Mapping[tuple[int, int], int], names: Sequence[str] = ()
) -> Confusion:
    """The confusion of pairs (label, predicted class), which is :data:`NO_CLASS` where there is none.

    `rows` are those of each pair, `weights` what they weigh in units of 2**-1126, empty where they have no weights;
    `names` are those of the classes, if they have any.

    Examples
    --------
    >>> confusion = confusion_of({(0, 0): 2, (1, 0): 1, (1, 1): 1}, {})
    >>> confusion.macro.recall, confusion.classes[0].f1, confusion.kappa
    (0.75, 0.8, 0.5)
    """
    amounts = weights or rows
    labels, predicted = sums_by(0, amounts), sums_by(1, amounts)
    hits = Counter({label: amount for (label, top), amount in amounts.items() if label == top})
    numbers = sorted((labels.keys() | predicted.keys()) - {NO_CLASS})
    total, right, missed = sum(labels.values()), sum(hits.values()), predicted[NO_CLASS]
    label_rows, predicted_rows = sums_by(0, rows), sums_by(1, rows)
    classes = {}
    for c in numbers:
        scores = (ratio(hits[c], predicted[c]), ratio(hits[c], labels[c]), ratio(2 * hits[c], predicted[c] + labels[c]))
        classes[c] = ClassScores(label_rows[c], predicted_rows[c], *scores)
    chance = sum(amount * predicted[c] for c, amount in labels.items())
    agreement = total * right - chance
    scatter = math.prod(total**2 - sum(amount**2 for amount in sums.values()) for sums in (labels, predicted))

    def named(number: int) -> Any:
        return None if number == NO_CLASS else names[number] if names else number

    def weighted(counts: Counter[int], factor: int) -> float:
        terms = (ratio(factor * labels[c] * hits[c], total * counts[c]) for c in numbers)
        return total_of(terms) if total else math.nan

    return Confusion(
        cells=tuple(
            Cell(named(label), named(top), count, unscaled(weights, (label, top)))
            for (label, top), count in sorted(rows.items())
        ),
        classes={named(c): scores for c, scores in classes.items()},
        macro=AverageScores(*(mean_of([scores[i] for scores in classes.values()]) for i in SCORES)),
        micro=AverageScores(ratio(right, total - missed), ratio(right, total), ratio(2 * right, 2 * total - missed)),
        weighted=AverageScores(weighted(predicted, 1), ratio(right, total), weighted(predicted + labels, 2)),
        balanced_accuracy=mean_of([classes[c].recall for c in numbers if labels[c]]),
        kappa=ratio(agreement, total**2 - chance),
        mcc=(-1 if agreement < 0 else 1) * sqrt_ratio(agreement**2, scatter) if scatter else math.nan,
    )


def unscaled(weights: Mapping[tuple[int, int], int], pair: tuple[int, int]) -> float | None:
    """What the rows of a pair weigh; None where rows have no weights."""
    return weights[pair] / (1 << UNIT_BITS) if weights else None


def sums_by(side: int, amounts: Mapping[tuple[int, int], int]) -> Counter[int]:
    """The sums over all pairs of the same label (side 0), or of the same predicted class (side 1)."""
    sums: Counter[int] = Counter()
    for pair, amount in amounts.items():
        sums[pair[side]] += amount
    return sums


def total_of(shares: Iterable[float]) -> float:
    """The sum, rounded once; 0 / 0 counts as 0."""
    return math.fsum(share for share in shares if not math.isnan(share))


def mean_of(scores: Sequence[float]) -> float:
    """The mean, in which 0 / 0 counts as 0; NaN of no scores."""
    return total_of(scores) / len(scores) if scores else math.nan
