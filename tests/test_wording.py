"""Numbers and sentences as a reader sees them."""

import math

import numpy as np
import pytest
from pages import compared, random_set

from xent.evaluation.report.json_document import comparison_document
from xent.evaluation.report.page import comparison_page
from xent.evaluation.report.terminal import comparison_text
from xent.evaluation.report.wording import format_p_value, format_short_estimate, verdict


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


def test_a_p_value_that_is_no_number_worth_printing_is_the_same_words_everywhere():
    logits, labels = np.random.default_rng(0).standard_normal((900, 5)), np.arange(900) % 5
    found, run = compared(logits, logits - 9 * np.eye(5)[labels], labels)
    shown, document, page = (show(found, run) for show in (comparison_text, comparison_document, comparison_page))

    assert found.p_value == 0.0 == document["difference"]["p_value"]
    assert document["difference"]["p_value_text"] == "p under 1e-300"
    assert "nats (t of 899 degrees of freedom), p under 1e-300, rows taken as independent" in shown
    assert "under 1e-300" in page


@pytest.mark.parametrize(("p", "words"), [(0.0123, "p = 0.0123"), (1e-300, "p = 1e-300"), (math.nan, "p = nan")])
def test_another_p_value_is_a_number(p, words):
    assert format_p_value(p) == words
