r"""How well scores rank the rows of a class above the others: ROC AUC, average precision, KS and gains.

Of P rows of the class and N others let :math:`p_b` and :math:`n_b` have the score b, and :math:`T_b` and :math:`F_b` a
score of at least b. Then

.. math::
    \mathrm{AUC} = \frac{\sum_b n_b (2 T_b - p_b)}{2 P N}, \qquad
    \mathrm{AP} = \frac1P \sum_b p_b \frac{T_b}{T_b + F_b}, \qquad
    \mathrm{KS} = \max_b \left| \frac{T_b}{P} - \frac{F_b}{N} \right|

so that a pair of equal scores counts as one half [1]_, and precision is not interpolated [2]_; with weights rows are
what they weigh. The sums of the first and the third are integers, whose quotient is rounded once; each term of the
second is rounded once, and they are added without rounding.

Where scores share bins (``score_counts.py``) the order within a bin is not known. Any order is somewhere between all of
the class first and all of it last, which bounds each number.

.. [1] Hanley & McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC) curve",
   Radiology 143(1), 1982.
.. [2] Davis & Goadrich, "The relationship between precision-recall and ROC curves", ICML 2006, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from xent.evaluation.statistics.exact_sums import ratio
from xent.evaluation.statistics.score_counts import ScoreCounts

SHARES = 10
"""The gains are those of each tenth of the rows."""
NO_NUMBERS = (math.nan,) * 6


class Gain(NamedTuple):
    """Of the rows of the highest scores, a share of all, the share of the class that they hold, and its lift.

    The lift is how many times as many of the class they hold as rows chosen at random.
    """

    share: float
    captured: float
    lift: float


class RankingScores(NamedTuple):
    """How well the score of one class ranks its rows above the others; NaN unless there are both.

    The counts are those of rows, of weighted rows too; gains are then of shares of all weight.

    A bound is how far its number may be from that of the scores themselves, 0 where each score was kept.
    """

    positives: int
    negatives: int
    auc: float
    average_precision: float
    ks: float
    auc_bound: float
    average_precision_bound: float
    ks_bound: float
    gains: tuple[Gain, ...]


@dataclass(frozen=True, repr=False)
class Ranking:
    """How well scores rank the rows of each class above the others.

    Attributes
    ----------
    classes : mapping to RankingScores
        By the number or name of the class. Of two classes the second alone: the first has the same AUC and KS.
    macro_auc, weighted_auc, macro_average_precision, weighted_average_precision : float
        The means over the classes that have rows and are not all rows, of equal weight and by their rows.
    """

    classes: Mapping[Any, RankingScores]
    macro_auc: float
    weighted_auc: float
    macro_average_precision: float
    weighted_average_precision: float

    def __repr__(self) -> str:
        return f"Ranking(macro_auc={self.macro_auc:.6g}, classes={len(self.classes)})"


class Step(NamedTuple):
    """The rows of one score: of the class and of the others, and how many of each have a higher one."""

    positives: int
    negatives: int
    positives_above: int
    negatives_above: int


def ranking_of(counts: Mapping[int, ScoreCounts], labels: Mapping[int, int], names: Sequence[str] = ()) -> Ranking:
    """The ranking of each class, from the counts of its scores, and from how many rows have each label.

    `names` are those of the classes, if they have any.
    """
    rows = sum(labels.values())
    classes, ranked, sizes = {}, [], []
    for c, each in sorted(counts.items()):
        of_class = labels.get(c, 0)
        scores = ranking_scores(each)._replace(positives=of_class, negatives=rows - of_class)
        classes[names[c] if names else c] = scores
        if not math.isnan(scores.auc):
            positives = each.positives.sum()
            ranked.append(scores)
            sizes.append(ratio(positives, positives + each.negatives.sum()))
    numbers = [[scores.auc for scores in ranked], [scores.average_precision for scores in ranked]]
    if any(each.unranked for each in counts.values()):
        numbers = [[], []]
    means = [(mean(values, [1.0] * len(values)), mean(values, sizes)) for values in numbers]
    return Ranking(classes, *means[0], *means[1])


def mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """The mean by these weights; NaN of no values."""
    terms = [value * weight for value, weight in zip(values, weights, strict=False)]
    return math.fsum(terms) / math.fsum(weights) if terms else math.nan


def ranking_scores(counts: ScoreCounts) -> RankingScores:
    """The ranking of one class.

    Examples
    --------
    >>> import numpy as np
    >>> both = np.asarray([0, 1]), np.asarray([1, 1])
    >>> ranking_scores(ScoreCounts(0, 9, 0, np.asarray([3, 8]), *both)).auc
    0.75
    """
    steps = list(steps_of(counts))
    positives, negatives = int(counts.positives.sum()), int(counts.negatives.sum())
    if counts.unranked or not positives or not negatives:
        return RankingScores(positives, negatives, *NO_NUMBERS, ())
    pairs = sum(n * (2 * above + p) for p, n, above, _ in steps)
    precision = math.fsum(
        ratio(p * (above + p), positives * (above + p + others + n)) for p, n, above, others in steps if p
    )
    distance = max(abs((above + p) * negatives - (others + n) * positives) for p, n, above, others in steps)
    bounds = 0.0, 0.0, 0.0
    if counts.shift:
        bounds = (
            ratio(sum(p * n for p, n, _, _ in steps), 2 * positives * negatives),
            precision_bound(steps, positives),
            ratio(highest_distance(steps, positives, negatives) - distance, positives * negatives),
        )
    return RankingScores(
        positives,
        negatives,
        ratio(pairs, 2 * positives * negatives),
        precision,
        ratio(distance, positives * negatives),
        *bounds,
        gains(steps, positives, positives + negatives),
    )


def steps_of(counts: ScoreCounts) -> Iterator[Step]:
    """The rows of each score, the highest first."""
    above = others = 0
    for p, n in zip(counts.positives[::-1].tolist(), counts.negatives[::-1].tolist(), strict=True):
        yield Step(p, n, above, others)
        above, others = above + p, others + n


def precision_bound(steps: Sequence[Step], positives: int) -> float:
    """How far the average precision may be off, if the order of the rows within each step is any."""
    best, worst = [], []
    for p, n, above, others in steps:
        if p and others + n:  # else its precision is 1 in any order
            share, found = ratio(p, positives), ratio(above + p, above + p + others + n)
            best.append(share * (ratio(above + p, above + p + others) - found))
            worst.append(share * (found - ratio(above, above + others + n)))
    return max(math.fsum(best), math.fsum(worst))


def highest_distance(steps: Sequence[Step], positives: int, negatives: int) -> int:
    """The most that the distance of both distributions can be, in units of 1 / (P N), within any step."""
    return max(
        max((above + p) * negatives - others * positives, (others + n) * positives - above * negatives)
        for p, n, above, others in steps
    )


def gains(steps: Sequence[Step], positives: int, rows: int) -> tuple[Gain, ...]:
    """The gains; where a share ends within a score, rows of that score are taken in proportion."""
    found, ends = [], iter(range(1, SHARES + 1))
    end = next(ends, None)
    for p, n, above, others in steps:
        while end is not None and end * rows <= SHARES * (above + others + p + n):
            part = end * rows - SHARES * (above + others)
            captured, whole = SHARES * (p + n) * above + p * part, SHARES * (p + n) * positives
            found.append(Gain(end / SHARES, ratio(captured, whole), ratio(SHARES * captured, end * whole)))
            end = next(ends, None)
    return tuple(found)
