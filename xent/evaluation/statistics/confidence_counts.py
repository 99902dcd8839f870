r"""The calibration of the highest probability where each is kept, or nearly: in bins of equal mass, and without bins.

The counts of confidences (``score_counts.py``) are exact up to 65,536 different ones; else each is known to within half
the width of a key, which bounds the error of both numbers. With the residuals :math:`r_i = y_i - p_i` and the Gaussian
kernel of width σ that is reflected at 0 and 1, the smooth calibration error [1]_ is the one σ for which

.. math:: \int_0^1 \Big| \frac1n \sum_i r_i K_\sigma(t, p_i) \Big| dt = \sigma

Reflection makes K the kernel of the heat equation on [0, 1], which multiplies the cosine transform of the residuals by
:math:`\exp(-\pi^2 k^2 \sigma^2 / 2)`. They lie on a grid, shared between the two points around each: for that and for
the integral the bound is :math:`0.968\,\overline{|r|} (\delta / \sigma)^2 / 4` with the distance δ of points, for
:math:`\int |\partial^2 K| = 0.968 / \sigma^2`.

.. [1] Błasiok & Nakkiran, "Smooth ECE: principled reliability diagrams via kernel smoothing", ICLR 2024
   (arXiv:2309.12236), definitions 5 and 6.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.statistics.bin_gaps import BinGaps
from xent.evaluation.statistics.score_counts import ScoreCounts, scores_of_keys

CELLS = 2**14
"""Of the grid of the smooth calibration error."""
STEPS = 40
"""How often the interval of its width is halved."""
SECOND_DERIVATIVE = 4 * math.exp(-0.5) / math.sqrt(2 * math.pi)
FIRST_DERIVATIVE = math.sqrt(2 / math.pi)
"""The integrals of the size of the kernel's second and first derivative, at σ = 1."""


class EqualMassBin(NamedTuple):
    """Rows of neighbouring confidences, from the least to the greatest of them, and their share of all rows."""

    low: float
    high: float
    share: float
    confidence: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


class EqualMassCalibration(NamedTuple):
    """The calibration error over bins of as many rows each, or of as much weight.

    Rows of one confidence are in one bin. ``bound`` is how far the error may be from that of the confidences
    themselves, 0 where each was kept. The others are as those of bins of equal width; of weighted rows the effective
    rows are taken to be shared among bins as the weight is.
    """

    error: float
    debiased_error: float
    noise_floor: float
    noise_deviation: float
    bound: float
    bins: tuple[EqualMassBin, ...]


class SmoothCalibration(NamedTuple):
    """The smooth calibration error, and how far it may be from that of the confidences themselves."""

    error: float
    bound: float


class Confidences(NamedTuple):
    """The different confidences: between which numbers each lies; shares of all rows, and of those that are right."""

    low: NDArray[Any]
    high: NDArray[Any]
    share: NDArray[Any]
    right: NDArray[Any]

    @property
    def value(self) -> NDArray[Any]:
        """The number that each is taken for."""
        return np.asarray(self.low + (self.high - self.low) / 2)

    @property
    def margin(self) -> NDArray[Any]:
        """How far it may be from it."""
        return np.asarray((self.high - self.low) / 2)


def confidences_of(counts: ScoreCounts) -> Confidences:
    """The confidences of some counts, the lowest first."""
    both = counts.positives + counts.negatives
    total = np.asarray([max(1, both.sum())] * len(both))
    share, right = (quotients(amount, total) for amount in (both, counts.positives))
    return Confidences(*scores_of_keys(counts.keys, counts.shift), share, right)


def quotients(amounts: NDArray[Any], wholes: NDArray[Any]) -> NDArray[Any]:
    """The quotients of integers of any length, each rounded once."""
    return np.asarray([part / whole for part, whole in zip(amounts.tolist(), wholes.tolist(), strict=True)])


def equal_mass(counts: ScoreCounts, rows: float, bins: int) -> EqualMassCalibration:
    """The calibration error over at most so many bins; `rows` are the effective ones, and NaN gives NaN."""
    if math.isnan(rows):
        return EqualMassCalibration(math.nan, math.nan, math.nan, math.nan, math.nan, ())
    found, both = confidences_of(counts), counts.positives + counts.negatives
    above = np.cumsum(both)
    index = ((above - both) * bins // above[-1]).astype(np.int64)
    first = np.flatnonzero(np.diff(index, prepend=-1))
    last = np.append(first[1:], len(index)) - 1
    weighted = (found.share * found.value, found.share, found.share * found.value * (1 - found.value))
    p, share, variance, of_bin, right = (np.add.reduceat(each, first) for each in (*weighted, both, counts.positives))
    confidence, accuracy = p / share, quotients(right, of_bin)
    variance = variance / share / (share * rows)
    gaps = BinGaps(share, confidence, accuracy, share * rows, variance)
    columns = (found.low[first], found.high[last], share, confidence, accuracy, *gaps.wilson())
    floor, deviation = gaps.noise()
    return EqualMassCalibration(
        error=float(gaps.error()),
        debiased_error=float(gaps.debiased_error()),
        noise_floor=float(floor),
        noise_deviation=float(deviation),
        bound=float(found.share @ found.margin),
        bins=tuple(map(EqualMassBin, *(column.tolist() for column in columns))),
    )


def smooth(counts: ScoreCounts, is_whole: bool = True) -> SmoothCalibration:
    """The smooth calibration error; NaN unless all rows have a confidence."""
    if not is_whole:
        return SmoothCalibration(math.nan, math.nan)
    found = confidences_of(counts)
    p, residual = np.clip(found.value, 0, 1), found.right - found.share * found.value
    spectrum = cosine_transform(on_grid(p, residual))
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        width = (low + high) / 2
        low, high = (width, high) if smoothed_size(spectrum, width) > width else (low, width)
    width = (low + high) / 2
    size = float(np.abs(residual).sum())
    spread = float(found.margin @ (found.right * (1 - p) + (found.share - found.right) * p))
    grid = SECOND_DERIVATIVE * size / (4 * CELLS**2 * width**2)
    bound = grid + float(found.share @ found.margin) + FIRST_DERIVATIVE * spread / width + 2.0**-STEPS
    return SmoothCalibration(width, min(bound, 1.0))


def on_grid(p: NDArray[Any], amount: NDArray[Any]) -> NDArray[Any]:
    """The amounts at the points of the grid, each shared between the two points around its place."""
    place = p * CELLS
    point = np.minimum(np.floor(place).astype(np.int64), CELLS - 1)
    part = place - point
    left = np.bincount(point, amount * (1 - part), minlength=CELLS + 1)
    return np.asarray(left + np.bincount(point + 1, amount * part, minlength=CELLS + 1))


def cosine_transform(amount: NDArray[Any]) -> NDArray[Any]:
    """The sums of the amounts times cos(π k t), for k up to the cells."""
    mirrored = np.concatenate([amount, amount[-2:0:-1]])
    mirrored[[0, CELLS]] *= 2
    return np.asarray(np.fft.rfft(mirrored).real / 2)


def smoothed_size(spectrum: NDArray[Any], width: float) -> float:
    """The integral of the size of the residuals smoothed by a kernel of this width."""
    decay = np.exp(-((math.pi * width * np.arange(CELLS + 1)) ** 2) / 2)
    smoothed = np.fft.irfft(2 * CELLS * spectrum * decay)[: CELLS + 1]
    left, right = smoothed[:-1], smoothed[1:]
    size = np.abs(left) + np.abs(right)
    # a line between two signs has a triangle on each side
    crossing = np.divide(left**2 + right**2, size, out=np.zeros(CELLS), where=size > 0)
    return float(np.where(left * right < 0, crossing, size).sum()) / (2 * CELLS)
