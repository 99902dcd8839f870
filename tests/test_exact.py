"""The conformance kit's exact numbers, against those of mpmath and against sums written out."""

import math

import numpy as np
import pytest
from golden_cases import cases

from xent.testing.exact import exact

GOLDEN = cases(most_classes=1200)


def apart(pair, hi, lo):
    """How far a pair lies from another, relative to it; 0 where both are the same infinity, or NaN."""
    with np.errstate(all="ignore"):
        distance = np.abs((pair[0] - hi) + (pair[1] - lo)) / np.maximum(np.abs(hi), 5e-324)
    same = (pair[0] == hi) | (np.isnan(pair[0]) & np.isnan(hi))
    return np.where(same & ~np.isfinite(hi), 0.0, distance)


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_losses_and_gradients_are_those_of_mpmath_to_thirty_digits(case):
    numbers = exact(case.logits, case.dense_targets)
    gradient = tuple(np.take_along_axis(part, case.columns, axis=1) for part in numbers.gradient)

    smoothed = case.label_smoothing != 0  # the targets themselves are rounded once here, and not there
    digits = 1e-15 if smoothed else 1e-30
    assert np.all(apart(numbers.loss, case.loss_hi, case.loss_lo) <= digits)
    assert np.all(apart(numbers.lse, case.lse_hi, case.lse_lo) <= 1e-30)
    scale = np.maximum(np.abs(case.gradient_hi), 1e-30)
    assert np.all(apart(gradient, case.gradient_hi, case.gradient_lo) * np.abs(case.gradient_hi) <= digits * scale)


def test_the_sums_of_a_row_are_those_written_out():
    x = np.array([[1.0, -1.0, 0.0, -math.inf, 1.0]])
    numbers = exact(x, np.array([[0.0, 0.0, 1.0, 0.0, 0.0]]))
    e = math.e

    assert numbers.squares[0][0] == pytest.approx(2 + e**-4 + e**-2, rel=1e-15)
    assert numbers.spread[0][0] == pytest.approx(2 * e**-2 + e**-1, rel=1e-15)
    assert numbers.rest[0][0] == pytest.approx(math.log(2 + e**-2 + e**-1), rel=1e-15)
