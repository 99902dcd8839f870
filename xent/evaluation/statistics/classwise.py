r"""Classwise calibration: of each class, how its probability in all rows compares with how often it is the label.

.. math:: \frac1C \sum_c \sum_b \frac{n_{cb}}{n} \left| \frac{h_{cb}}{n_{cb}} - \bar p_{cb} \right|

over the bins b of the probability of class c, where n rows, of which h have the label c [1]_. Every probability is
rounded to a multiple of 2**-40 and added as an integer, so that no order of additions can show.

The Brier score is the sum of those of each class: reliability − resolution + uncertainty, each summed over classes, and
what is within bins (``calibration.py``).

.. [1] Kull et al., "Beyond temperature scaling: obtaining well-calibrated multiclass probabilities with Dirichlet
   calibration", NeurIPS 2019, section 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.statistics.bin_gaps import BinGaps
from xent.evaluation.statistics.bins import bin_of
from xent.evaluation.statistics.grid_sums import GridSums, grid_sums

UNIT = 2.0**40
LOW_BITS = 20
BLOCK_ELEMENTS = 2**18
LARGEST = 1 + 1e-3  # 1 with the rounding of float16; a larger number is no probability
LEAST_ROWS, MOST_ROWS = 8, 2**12  # 2**12 probabilities of 40 bits add up in a float64 without rounding


@dataclass(frozen=True, eq=False)
class Classwise:
    """Sums over rows, by class and bin, each of shape (C, bins).

    Attributes
    ----------
    rows : int
    counts, hits : array of int64
        The rows with the probability of the class in the bin, and those of them whose label is the class.
    high, low : array of int64
        The sum of those probabilities is (2**20 high + low) · 2**-40.
    weighted : mapping of str to GridSums
        Of rows with weights w the sums of w, of w² and of w p, and of w where the label is the class, which take the
        place of these; flat.
    """

    rows: int
    counts: NDArray[Any]
    hits: NDArray[Any]
    high: NDArray[Any]
    low: NDArray[Any]
    weighted: Mapping[str, GridSums] = field(default_factory=dict)

    def merge(self, other: Classwise) -> Classwise:
        """The sums of both."""
        rows, counts, hits, high, low = (getattr(self, name) + getattr(other, name) for name in SUMS)
        weighted = {name: sums.merge(other.weighted[name]) for name, sums in self.weighted.items()}
        return Classwise(rows, counts, hits, high, low, weighted)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Classwise)
            and all(np.array_equal(getattr(self, name), getattr(other, name)) for name in SUMS)
            and self.weighted == other.weighted
        )

    __hash__ = None  # type: ignore[assignment]  # it holds arrays

    def amounts(self) -> Amounts:
        """What the numbers are made of, rounded once."""
        if not self.weighted:
            rows, confidence = self.counts.astype(np.float64), (2.0**LOW_BITS * self.high + self.low) / UNIT
            return Amounts(float(self.rows), rows, self.hits.astype(np.float64), confidence, rows)
        weight, squares, confidence, hits = (
            self.weighted[name].values(self.counts.size).reshape(self.counts.shape) for name in WEIGHTED
        )
        rows = np.divide(weight**2, squares, out=np.zeros_like(weight), where=squares > 0)
        return Amounts(math.fsum(weight[0].tolist()), weight, hits, confidence, rows)

    def error(self) -> float:
        """The classwise calibration error; NaN of no rows."""
        found = self.amounts()
        gaps = np.abs(found.hits - found.confidence)
        return float(gaps.sum()) / found.total / len(gaps) if self.rows else math.nan


SUMS = ("rows", "counts", "hits", "high", "low")
WEIGHTED = ("weight", "squares", "confidence", "hits")


class Amounts(NamedTuple):
    """The rows by class and bin, or their weights, in arrays of shape (C, bins).

    Attributes
    ----------
    total : float
        Of all rows.
    weight, hits, confidence : array
        Of the rows in the bin, of those whose label is the class, and the sum of the probabilities.
    rows : array
        How many rows of one weight tell as much, (Σw)² / Σw².
    """

    total: float
    weight: NDArray[Any]
    hits: NDArray[Any]
    confidence: NDArray[Any]
    rows: NDArray[Any]


class ClassCalibration(NamedTuple):
    """How the probability of one class in every row compares with how often it is the label, over its bins.

    Confidences in a bin are taken as one for the noise floor, which is too high by 1 / (2 bins) of it at most. The last
    three are those of the Brier score of the class.
    """

    error: float
    debiased_error: float
    noise_floor: float
    reliability: float
    resolution: float
    uncertainty: float


@dataclass(frozen=True)
class ClasswiseCalibration:
    """The calibration of the probability of every class; NaN unless every counted row has probabilities.

    Attributes
    ----------
    error, debiased_error, noise_floor : float
        The means over classes.
    reliability, resolution, uncertainty, within_bins : float
        Murphy's decomposition of the Brier score, each the sum over classes:
        brier = reliability − resolution + uncertainty + within_bins, to 1e-12, for probabilities are rounded to 2**-40.
    classes : mapping to ClassCalibration
        By the number or name of the class.
    """

    error: float
    debiased_error: float
    noise_floor: float
    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float
    classes: Mapping[Any, ClassCalibration]


def classwise_calibration(
    sums: Classwise, brier: float, counted: int, names: Sequence[str] = ()
) -> ClasswiseCalibration:
    """The calibration of each class of so many counted rows, whose Brier score is given.

    `names` are those of the classes, if they have any.
    """
    if not sums.rows or sums.rows != counted:
        unknown = dict.fromkeys(ClasswiseCalibration.__dataclass_fields__, math.nan)
        return ClasswiseCalibration(**{**unknown, "classes": {}})  # type: ignore[arg-type]
    total, weight, hits, amount, rows = sums.amounts()
    weight, rows = np.where(weight > 0, weight, 1), np.where(rows > 0, rows, 1)
    share, accuracy, confidence = np.where(sums.counts > 0, weight, 0) / total, hits / weight, amount / weight
    gaps = BinGaps(share, confidence, accuracy, rows, confidence * (1 - confidence) / rows)
    right = hits.sum(axis=1) / total
    numbers = (
        np.abs(hits - amount).sum(axis=1) / total,
        gaps.debiased_error(),
        gaps.noise()[0],
        gaps.total((confidence - accuracy) ** 2),
        gaps.total((accuracy - right[:, None]) ** 2),
        right * (1 - right),
    )
    debiased, floor = (float(number.mean()) for number in numbers[1:3])
    reliability, resolution, uncertainty = (math.fsum(number.tolist()) for number in numbers[3:])
    by_class = map(ClassCalibration, *(number.tolist() for number in numbers))
    return ClasswiseCalibration(
        sums.error(),
        debiased,
        floor,
        reliability,
        resolution,
        uncertainty,
        brier - (reliability - resolution + uncertainty),
        {names[c] if names else c: each for c, each in enumerate(by_class)},
    )


def block_rows(classes: int) -> int:
    """How many rows are added up at once."""
    return min(max(LEAST_ROWS, BLOCK_ELEMENTS // classes), MOST_ROWS)


def classwise_of(
    probabilities: Callable[[slice], NDArray[Any]],
    labels: NDArray[Any],
    counted: NDArray[Any],
    classes: int,
    bins: int,
    weights: NDArray[Any] | None = None,
) -> Classwise:
    """The sums of the counted rows whose predictions are probabilities.

    Parameters
    ----------
    probabilities : callable
        Returns those of a slice of the rows: (rows, C) float64.
    labels : array, shape (rows,), integer, in [0, C) where counted
    counted : array, shape (rows,), bool
    classes, bins : int
    weights : array, shape (rows,), float64, optional
        Positive where a row counts.
    """
    rows, size = 0, classes * bins
    weighted = dict.fromkeys(() if weights is None else WEIGHTED, GridSums())
    counts, hits, high, low = np.zeros((4, size), np.int64)
    step = block_rows(classes)
    for start in range(0, len(labels), step):
        block = slice(start, start + step)
        p = probabilities(block)
        with np.errstate(invalid="ignore"):
            kept = counted[block] & ((p >= 0) & (p <= LARGEST)).all(axis=1)
        p, label = p[kept], labels[block][kept].astype(np.int64)
        bin_index = bin_of(p, bins) + np.arange(classes) * bins
        rounded = np.rint(p * UNIT)
        if weights is not None:
            own = weights[block][kept]
            of_rows = np.repeat(own, classes)
            at_label = bin_index[np.arange(len(label)), label]
            more = {
                "weight": grid_sums(of_rows, bin_index.ravel(), size),
                "squares": grid_sums(of_rows**2, bin_index.ravel(), size),
                "confidence": grid_sums((rounded / UNIT * own[:, None]).ravel(), bin_index.ravel(), size),
                "hits": grid_sums(own, at_label, size),
            }
            weighted = {name: sums.merge(more[name]) for name, sums in weighted.items()}
        units = np.bincount(bin_index.ravel(), rounded.ravel(), size).astype(np.int64)
        counts += np.bincount(bin_index.ravel(), minlength=size)
        hits += np.bincount(bin_index[np.arange(len(label)), label], minlength=size)
        high += units >> LOW_BITS
        low += units & (2**LOW_BITS - 1)
        rows += len(label)
    counts, hits, high, low = (sums.reshape(classes, bins) for sums in (counts, hits, high, low))
    return Classwise(rows, counts, hits, high, low, weighted)
