r"""The gaps between confidence and accuracy in bins, and what part of them is chance.

Of the rows in bin b, a share :math:`w_b` of all, let :math:`p_b` be the mean confidence and :math:`y_b` the share that
is right, :math:`\hat s_b^2 = y_b (1 - y_b) / n_b` its estimated variance. Then

.. math::
    \mathrm{ECE} = \sum_b w_b |y_b - p_b|, \qquad
    \mathrm{ECE} - \sum_b w_b \big(E|p_b - N(y_b, \hat s_b^2)| - |p_b - y_b|\big)

are the calibration error and the same without its bias [1]_. Were the confidences calibrated, the hits of a bin would
have the mean :math:`n_b p_b` and the variance :math:`\sum p (1 - p)`, and their mean deviation would be

.. math:: E\,|h_b - n_b p_b| = 2 \nu (1 - p_b) \binom{n_b}{\nu} p_b^\nu (1 - p_b)^{n_b - \nu},
          \qquad \nu = \lfloor n_b p_b \rfloor + 1

exactly [2]_ where all confidences of the bin are one; else it is taken times the quotient of both standard deviations,
which is within 2 % of the exact number. Weighted by :math:`w_b` and summed it is the noise floor: the calibration error
that a calibrated model of this size shows. Leaves out where the bins come from.

.. [1] Kumar, Liang & Ma, "Verified uncertainty calibration", NeurIPS 2019, section 5 and appendix E.
.. [2] Diaconis & Zabell, "Closed form summation for classical distributions: variations on a theme of de Moivre",
   Statistical Science 6(3), 1991.
.. [3] Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
   Statistical Association 22(158), 1927.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NORMAL_QUANTILE = 1.959963984540054
"""Beyond which lie 5 % on both sides together."""
NORMAL_DEVIATION = math.sqrt(2 / math.pi)
"""The mean deviation of the normal distribution, in standard deviations."""
MANY = 1e6
"""The variance of hits from which a binomial distribution is taken as a normal one."""


class BinGaps(NamedTuple):
    """Bins as arrays of shape (..., bins); one without rows has the share 0, and any other numbers.

    Attributes
    ----------
    share : array
        Of all rows, or of all weight.
    confidence, accuracy : array
        The mean confidence, and the share that is right.
    rows : array
        How many; of weighted rows (Σw)² / Σw².
    variance : array
        Of the accuracy of a calibrated model, Σ w² p (1 − p) / (Σw)².
    """

    share: NDArray[Any]
    confidence: NDArray[Any]
    accuracy: NDArray[Any]
    rows: NDArray[Any]
    variance: NDArray[Any]

    def error(self) -> NDArray[Any]:
        """The calibration error."""
        return self.total(np.abs(self.accuracy - self.confidence))

    def debiased_error(self) -> NDArray[Any]:
        """The calibration error less its bias; it may be negative, as an estimate of a small number must."""
        gap = np.abs(self.accuracy - self.confidence)
        return self.total(2 * gap - mean_size(gap, np.sqrt(self.accuracy * (1 - self.accuracy) / self.rows)))

    def noise(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The mean and the standard deviation of the calibration error of a calibrated model with these confidences."""
        variance = np.maximum(self.variance, 0)
        rows, p = np.maximum(np.rint(self.rows), 1), np.clip(self.confidence, 0, 1)
        mean = deviation_quotient(rows, p) * np.sqrt(variance)
        spread = self.share**2 * np.maximum(variance - mean**2, 0)
        return self.total(mean), np.sqrt(spread.sum(axis=-1))

    def accuracy_variance(self) -> NDArray[Any]:
        """The mean of the variance of each accuracy, as it is estimated without bias: y (1 − y) / (n − 1)."""
        return self.total(self.accuracy * (1 - self.accuracy) / np.where(self.rows > 1, self.rows - 1, np.inf))

    def wilson(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The ends of the 95 % interval of each accuracy [3]_, the rows taken as independent."""
        z2 = NORMAL_QUANTILE**2 / self.rows
        middle = (self.accuracy + z2 / 2) / (1 + z2)
        half = np.sqrt(z2 * (self.accuracy * (1 - self.accuracy) + z2 / 4)) / (1 + z2)
        return np.maximum(middle - half, 0), np.minimum(middle + half, 1)

    def total(self, number: NDArray[Any]) -> NDArray[Any]:
        """The mean of a number of each bin over all rows."""
        return np.asarray((self.share * number).sum(axis=-1))


def mean_size(mean: NDArray[Any], deviation: NDArray[Any]) -> NDArray[Any]:
    """E|N(mean, deviation²)|, of means that are not negative."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        ratio = np.where(deviation > 0, mean / deviation, np.inf)
        tail = np.asarray([math.erfc(each / math.sqrt(2)) for each in ratio.ravel().tolist()]).reshape(ratio.shape)
        bell = deviation * NORMAL_DEVIATION * np.exp(-(ratio**2) / 2)
    return np.asarray(bell + mean * (1 - tail))


def deviation_quotient(rows: NDArray[Any], p: NDArray[Any]) -> NDArray[Any]:
    """The mean deviation of a binomial distribution in units of its standard deviation; 0 where that is 0.

    Examples
    --------
    >>> deviation_quotient(np.asarray([1.0, 4.0]), np.asarray([0.5, 0.5])).round(9).tolist()  # 0.5 / 0.5, and 0.75 / 1
    [1.0, 0.75]
    """
    variance = rows * p * (1 - p)
    hits = np.minimum(np.floor(rows * p) + 1, rows)
    with np.errstate(divide="ignore", invalid="ignore", under="ignore"):
        exact = 2 * hits * (1 - p) * np.exp(log_binomial(rows, hits, p)) / np.sqrt(variance)
    return np.asarray(np.where(variance > 0, np.where(variance > MANY, NORMAL_DEVIATION, exact), 0.0))


def log_binomial(rows: NDArray[Any], hits: NDArray[Any], p: NDArray[Any]) -> NDArray[Any]:
    """The logarithm of the chance of so many hits, at least one; NaN or infinite where p is 0 or 1.

    By Stirling's series and the deviances of both sides, so that nothing cancels of many rows: Loader, "Fast and
    accurate computation of binomial probabilities", 2000.
    """
    misses = rows - hits
    of_hits, of_misses = (
        x * np.log(np.where(x > 0, x, 1) / mean) + mean - x for x, mean in ((hits, rows * p), (misses, rows * (1 - p)))
    )
    size = np.log(rows / (2 * math.pi * hits * np.where(misses > 0, misses, 1))) / 2
    series = stirling_rest(rows) - stirling_rest(hits) - stirling_rest(misses)
    return np.asarray(np.where(misses > 0, series - of_hits - of_misses + size, rows * np.log(p)))


SMALL_RESTS = np.asarray(
    [0.0] + [math.lgamma(n + 1) - (n + 0.5) * math.log(n) + n - math.log(2 * math.pi) / 2 for n in range(1, 16)]
)


def stirling_rest(n: NDArray[Any]) -> NDArray[Any]:
    """log n! less Stirling's formula, of whole numbers."""
    large = np.maximum(n, len(SMALL_RESTS))
    series = (1 / 12 - (1 / 360 - 1 / (1260 * large**2)) / large**2) / large
    small = SMALL_RESTS[np.minimum(n, len(SMALL_RESTS) - 1).astype(np.int64)]
    return np.asarray(np.where(n < len(SMALL_RESTS), small, series))
