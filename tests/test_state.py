"""The sums of a prediction set: exact, so that no split and no order of merges can show."""

import math
import pickle
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xent
from xent.evaluation.options import Options
from xent.evaluation.statistics.blocks import state_of
from xent.evaluation.statistics.exact_sums import BLOCK_ROWS, UNIT_BITS, moments_of
from xent.evaluation.statistics.metrics import finish
from xent.evaluation.statistics.state import State, merge, merge_all

losses = st.floats(allow_nan=False, allow_infinity=False)
any_losses = st.one_of(losses, st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 5e-324, 1.7976931348623157e308]))


@st.composite
def prediction_sets(draw):
    """Rows of every sort, and a way to cut them."""
    rows = draw(st.lists(st.tuples(any_losses, st.integers(-1, 2), st.integers(-3, 9), st.integers(0, 2)), max_size=40))
    cuts = draw(st.lists(st.integers(0, len(rows)), max_size=6))
    return rows, [0, *sorted(cuts), len(rows)]


def found_of(loss, rank=None):
    """Statistics of rows with these losses and ranks; the rest of them is made of the loss."""
    loss = np.asarray(loss, float)
    rank = np.zeros(loss.shape, int) if rank is None else np.asarray(rank, int)
    with np.errstate(all="ignore"):
        probability = np.exp(-np.abs(loss))
        return xent.RowStatistics(loss, 0 * loss, probability, 1 - probability / 2, rank, np.abs(loss), probability**2)


def state_of_losses(loss, **facts):
    return state_of(found_of(loss), np.zeros(len(loss), int), **facts)


def state_of_rows(rows, first_row=0):
    loss, rank, labels, fate = (np.asarray(column) for column in zip(*rows, strict=True)) if rows else [np.zeros(0)] * 4
    keys = {"slices": labels.astype(int) % 2, "clusters": (labels.astype(int) // 3).astype(str)}
    options = Options(kind="probabilities", top_k=(3,), bins=4, by_class=True)
    facts = {"first_row": first_row, "ignored": fate == 1, "bad": fate == 2, "options": options}
    return state_of(found_of(loss, rank), labels.astype(int), **facts, **keys)


@given(prediction_sets(), st.randoms())
def test_any_split_and_any_order_of_merges_give_the_same_state(prediction_set, random):
    rows, cuts = prediction_set
    states = [state_of_rows(rows[a:b], a) for a, b in pairwise(cuts)]
    while len(states) > 1:
        a, b = (states.pop(random.randrange(len(states))) for _ in range(2))
        states.append(merge(a, b))

    assert states[0] == state_of_rows(rows)


@pytest.mark.slow
def test_plain_sums_of_floats_would_not_pass_the_test_of_splits():
    loss = np.random.default_rng(0).exponential(size=1000)
    plain = {float(sum(loss[i : i + rows].sum() for i in range(0, 1000, rows))) for rows in (1, 7, 123, 1000)}
    parts = {rows: [loss[i : i + rows] for i in range(0, 1000, rows)] for rows in (1, 7, 123, 1000)}
    exact = {merge_all(state_of_losses(part) for part in cut).loss.total for cut in parts.values()}

    assert len(plain) > 1 and len(exact) == 1


@given(st.lists(losses, max_size=30))
def test_the_sums_are_those_of_exact_fractions(values):
    _, total, squares, *_ = moments_of(np.asarray(values, float))

    assert Fraction(total, 2**UNIT_BITS) == sum(map(Fraction, values))
    assert Fraction(squares, 4**UNIT_BITS) == sum(Fraction(value) ** 2 for value in values)


@pytest.mark.parametrize("rows", [BLOCK_ROWS - 1, BLOCK_ROWS + 1])
def test_the_largest_limbs_fill_a_block_without_rounding(rows):
    value = float(2**53 - 1)
    _, total, squares, *_ = moments_of(np.full(rows, value))

    assert (total >> UNIT_BITS, squares >> 2 * UNIT_BITS) == (rows * int(value), rows * int(value) ** 2)


def test_float32_losses_are_summed_as_they_are():
    loss = np.asarray([0.1, 0.2, 0.3], np.float32)

    assert Fraction(moments_of(loss).total, 2**UNIT_BITS) == sum(Fraction(float(value)) for value in loss)


def test_mean_and_standard_error_are_those_worked_by_hand():
    result = finish(state_of(found_of([1.0, 3.0], [0, 5]), np.zeros(2, int)))

    assert (result.mean_loss, result.standard_error, result.accuracy) == (2.0, 1.0, 0.5)
    assert result.confidence_interval == pytest.approx((2 - 12.706204736174694, 2 + 12.706204736174694), rel=1e-13)
    assert (result.perplexity, result.bits) == (math.exp(2), 2 / math.log(2))
    assert result.metrics["accuracy"].stderr == 0.5 and result.metrics["loss"].n == 2


def test_the_standard_error_does_not_cancel():
    loss = 1e8 + np.asarray([0.0, 2.0**-20])
    result = finish(state_of_losses(loss))

    assert result.standard_error == 2.0**-21
    assert np.mean(loss**2) - np.mean(loss) ** 2 != 2.0**-42  # the textbook's formula in float64 does


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e200, 1e308])
def test_the_standard_error_neither_underflows_nor_overflows(scale):
    loss = np.asarray([0.0, scale])

    assert finish(state_of_losses(loss)).standard_error == pytest.approx(scale / 2, rel=1e-12)


def test_rows_ignored_or_of_a_bad_label_are_not_in_the_denominator():
    rows = [(1.0, 0, 0, 0), (math.nan, -1, 0, 1), (math.nan, -1, 77, 2), (3.0, 1, 0, 0), (math.nan, -1, 99, 2)]
    result = finish(state_of_rows(rows, first_row=100))

    assert (result.mean_loss, result.counted, result.ignored, result.bad_labels) == (2.0, 2, 1, 2)
    assert (result.first_bad_label, result.nan_rows) == (102, 0)
    assert state_of_rows(rows).bad_label.label == 77


def test_a_row_that_is_nan_makes_the_mean_nan_and_is_named():
    result = finish(state_of_rows([(1.0, 0, 0, 0), (math.nan, -1, 0, 0), (math.inf, 3, 0, 0)], first_row=10))

    assert math.isnan(result.mean_loss) and math.isnan(result.standard_error) and math.isnan(result.perplexity)
    assert (result.nan_rows, result.first_nan, result.infinite_rows, result.first_infinite) == (1, 11, 1, 12)
    assert result.accuracy == 1 / 3


def test_a_loss_of_minus_infinity_is_no_number_and_is_counted_as_nan():
    result = finish(state_of_rows([(1.0, 0, 0, 0), (-math.inf, 0, 0, 0)]))

    assert math.isnan(result.mean_loss) and result.first_nan == 1


def test_a_row_of_infinite_loss_makes_the_mean_infinite():
    result = finish(state_of_rows([(1.0, 0, 0, 0), (math.inf, 3, 0, 0)]))

    assert result.mean_loss == result.perplexity == result.bits == math.inf


def test_no_rows_have_no_mean():
    result = finish(State())

    assert math.isnan(result.mean_loss) and math.isnan(result.accuracy) and result.counted == 0


def test_one_row_has_no_standard_error():
    result = finish(state_of_rows([(1.5, 0, 0, 0)]))

    assert result.mean_loss == 1.5 and math.isnan(result.standard_error)


def test_a_perplexity_past_the_largest_float_is_infinite():
    assert finish(state_of_rows([(1e4, 0, 0, 0)])).perplexity == math.inf


def test_a_state_is_small_whatever_it_has_summed():
    loss = np.asarray([5e-324, 1.7976931348623157e308] * 5000)
    state = state_of_losses(loss)
    for _ in range(50):
        state = merge(state, state)

    assert len(pickle.dumps(state)) < 5000
