r"""The calibration of the highest probabilities, from bins of them: errors, noise floor, and Murphy's decomposition.

Of rows that weigh w let p be the highest probability, the confidence, and y be 1 where it is right, else 0. The Brier
score of the confidence is exactly

.. math::
    \overline{(p - y)^2} = \underbrace{\sum_b w_b (p_b - y_b)^2}_{\text{reliability}}
    - \underbrace{\sum_b w_b (y_b - \bar y)^2}_{\text{resolution}}
    + \underbrace{\bar y (1 - \bar y)}_{\text{uncertainty}}
    + \underbrace{\sum_b w_b \mathrm{Var}_b(p)}_{\text{within\_variance}}
    - \underbrace{2 \sum_b w_b \mathrm{Cov}_b(p, y)}_{\text{within\_covariance}}

over bins b, a share :math:`w_b` of all with the means :math:`p_b` and :math:`y_b` [1]_; the last two, within bins, are
what the first three lack where confidences in a bin differ [2]_. Each term of a sum is a quotient of integers that is
rounded once. The reliability of few rows is too high, and so is the resolution; both are told without that bias too,
:math:`\sum_b w_b y_b (1 - y_b) / (n_b - 1)` [3]_.

.. [1] Murphy, "A new vector partition of the probability score", Journal of Applied Meteorology 12(4), 1973.
.. [2] Stephenson, Coelho & Jolliffe, "Two extra components in the Brier score decomposition", Weather and Forecasting
   23(4), 2008.
.. [3] Ferro & Fricker, "A bias-corrected decomposition of the Brier score", Quarterly Journal of the Royal
   Meteorological Society 138(668), 2012. The squared calibration error of Kumar et al. (NeurIPS 2019) is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from xent.evaluation.statistics.bin_gaps import BinGaps
from xent.evaluation.statistics.classwise import ClasswiseCalibration
from xent.evaluation.statistics.confidence_counts import EqualMassCalibration, SmoothCalibration, equal_mass, smooth
from xent.evaluation.statistics.exact_sums import UNIT_BITS, ratio
from xent.evaluation.statistics.score_counts import ScoreCounts
from xent.evaluation.statistics.state import Bin


class ReliabilityBin(NamedTuple):
    """The rows whose highest probability lies in (low, high], and the 95 % interval of their accuracy, by Wilson."""

    low: float
    high: float
    counted: int
    confidence: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


class BrierDecomposition(NamedTuple):
    """The Brier score of the confidence: reliability − resolution + uncertainty + within_variance − within_covariance.

    The last three are reliability, resolution and uncertainty without the bias of few rows, whose sum is the same.
    """

    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within_variance: float
    within_covariance: float
    debiased_reliability: float
    debiased_resolution: float
    debiased_uncertainty: float


@dataclass(frozen=True)
class Calibration:
    """How far the highest probability, the confidence, is from how often it is right.

    Rows are taken as independent. All numbers are NaN where no row counts, or a counted row has no confidence.

    Attributes
    ----------
    error : float
        Σ_b (n_b / n) abs(accuracy_b − confidence_b) over the bins (the expected calibration error).
    debiased_error : float
        The same less its bias, estimated as Kumar, Liang & Ma have it; under 0 where chance may explain more than all.
    noise_floor, noise_deviation : float
        The mean and the standard deviation of the error of a calibrated model with these confidences: how large an
        error tells nothing.
    decomposition : BrierDecomposition
        Murphy's, of the Brier score of the confidence.
    equal_mass : EqualMassCalibration or None
        The same in bins of as many rows each; None unless asked for.
    smooth : SmoothCalibration or None
        The calibration error without bins; None unless asked for.
    classwise : ClasswiseCalibration or None
        That of the probability of each class in every row; None unless asked for.
    """

    error: float
    debiased_error: float
    noise_floor: float
    noise_deviation: float
    decomposition: BrierDecomposition
    equal_mass: EqualMassCalibration | None = None
    smooth: SmoothCalibration | None = None
    classwise: ClasswiseCalibration | None = None


class BinSums(NamedTuple):
    """The sums of one bin as integers: of w, w y, w p and w p y in units of 2**-1126, of the others squared.

    The others are Σ w p², Σ w², and Σ w² p (1 − p). Rows without weights have the weight 1.
    """

    counted: int
    weight: int
    hits: int
    confidence: int
    right_confidence: int
    squares: int
    weight_squares: int
    variance: int


def sums_of(rows: Bin) -> BinSums:
    """The sums of a bin."""
    all_rows, right = rows.all, rows.right
    n, total, squares = all_rows.n, all_rows.total, all_rows.squares
    if all_rows.weight:  # `squares` are those of w p, and `products` Σ w² p
        variance, of_p = all_rows.products - squares, rows.squares.total << UNIT_BITS
        weights = all_rows.weight, right.weight, total, right.total, of_p, all_rows.weight_squares
        return BinSums(n, *weights, variance)
    weight, hits = n << UNIT_BITS, right.n << UNIT_BITS
    return BinSums(n, weight, hits, total, right.total, squares, n << 2 * UNIT_BITS, (total << UNIT_BITS) - squares)


def gaps_of(bins: Sequence[BinSums]) -> BinGaps:
    """The gaps of bins with rows."""
    weight = sum(each.weight for each in bins)
    columns = (
        [ratio(each.weight, weight) for each in bins],
        [ratio(each.confidence, each.weight) for each in bins],
        [ratio(each.hits, each.weight) for each in bins],
        [ratio(each.weight**2, each.weight_squares) for each in bins],
        [ratio(each.variance, each.weight**2) for each in bins],
    )
    return BinGaps(*map(np.asarray, columns))


def calibration_error(bins: Sequence[BinSums]) -> float:
    """The calibration error, exact until the last division; NaN of no rows."""
    gaps = sum(abs(each.hits - each.confidence) for each in bins)
    return ratio(gaps, sum(each.weight for each in bins))


def decomposed(bins: Sequence[BinSums], gaps: BinGaps) -> BrierDecomposition:
    """Murphy's decomposition; NaN of no rows."""
    weight, hits = (sum(each[field] for each in bins) for field in (1, 2))
    if not bins:
        return BrierDecomposition(*[math.nan] * len(BrierDecomposition._fields))
    reliability, resolution, variance, covariance = (
        math.fsum(ratio(*term) for term in terms)
        for terms in (
            [((each.confidence - each.hits) ** 2, each.weight * weight) for each in bins],
            [((each.hits * weight - hits * each.weight) ** 2, each.weight * weight**3) for each in bins],
            [
                (each.squares * each.weight - (each.confidence**2 << UNIT_BITS), each.weight * weight << UNIT_BITS)
                for each in bins
            ],
            [
                (2 * (each.right_confidence * each.weight - each.confidence * each.hits), each.weight * weight)
                for each in bins
            ],
        )
    )
    brier = sum(each.squares - (2 * each.right_confidence - each.hits << UNIT_BITS) for each in bins)
    rows = ratio(weight**2, sum(each.weight_squares for each in bins))
    uncertainty = ratio(hits * (weight - hits), weight**2)
    bias, of_all = float(gaps.accuracy_variance()), uncertainty / (rows - 1) if rows > 1 else 0.0
    return BrierDecomposition(
        ratio(brier, weight << UNIT_BITS),
        reliability,
        resolution,
        uncertainty,
        variance,
        covariance,
        reliability - bias,
        resolution - bias + of_all,
        uncertainty + of_all,
    )


def calibration_of(
    bins: Mapping[int, Bin],
    counted: int,
    confidences: ScoreCounts | None = None,
    classwise: ClasswiseCalibration | None = None,
    bin_count: int = 15,
) -> tuple[Calibration, tuple[ReliabilityBin, ...]]:
    """The calibration of so many counted rows, and the bins in which there are rows, the lowest first.

    `confidences` are the counts of their confidences, if they are kept.
    """
    sums = [sums_of(rows) for _, rows in sorted(bins.items())]
    is_whole = sum(each.counted for each in sums) == counted > 0
    gaps = gaps_of(sums)
    reliability = [
        ReliabilityBin(index / bin_count, (index + 1) / bin_count, each.counted, *numbers)
        for index, each, *numbers in zip(
            sorted(bins),
            sums,
            *(column.tolist() for column in (gaps.confidence, gaps.accuracy, *gaps.wilson())),
            strict=True,
        )
    ]
    if not is_whole:
        sums, gaps = [], gaps_of([])
    weight, squares = (sum(each[field] for each in sums) for field in (1, 6))
    rows = ratio(weight**2, squares)
    floor, deviation = map(float, gaps.noise()) if is_whole else (math.nan, math.nan)
    calibration = Calibration(
        error=calibration_error(sums),
        debiased_error=float(gaps.debiased_error()) if is_whole else math.nan,
        noise_floor=floor,
        noise_deviation=deviation,
        decomposition=decomposed(sums, gaps),
        equal_mass=None if confidences is None else equal_mass(confidences, rows, bin_count),
        smooth=None if confidences is None else smooth(confidences, is_whole),
        classwise=classwise,
    )
    return calibration, tuple(reliability)
