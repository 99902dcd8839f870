"""Numbers and sentences as a reader sees them."""

import math

import numpy as np
import pytest
from pages import compared, random_set

from xent.evaluation.report.wording import format_short_estimate, verdict


@pytest.mark.parametrize(
    "value, error, expected",
    [
        (1.38629, 0.0123, ("1.386", "± 0.012")),
        (1.38629, 0.0, ("1.386290", "± 0.000000")),
        (5.18e21, 1e20, ("5.18e+21", "± 1e+20")),
        (1.38629, 1e-30, ("1.38629", "± 1e-30")),
        (math.inf, math.nan, ("inf", "± nan")),
    ],
)
def test_a_number_and_its_error_are_never_long(value, error, expected):
    assert format_short_estimate(value, error) == expected


def test_the_winner_is_named_only_where_the_interval_says_so():
    logits, labels = random_set()
    better = logits + np.eye(7)[labels]

    assert verdict(compared(better, logits, labels)[0]).startswith("A is better than B: its loss is lower by 0.")
    assert verdict(compared(logits, better, labels)[0]).startswith("B is better than A: its loss is lower by 0.")
    assert verdict(compared(logits, logits, labels)[0]).startswith("Neither set is shown to be better")
    assert verdict(compared(logits[:1], better[:1], labels[:1])[0]).startswith("Too few rows")
    assert verdict(compared(logits[:0], better[:0], labels[:0])[0]).startswith("No row counts")
    assert "NaN" in verdict(compared(logits * np.nan, better, labels)[0])
