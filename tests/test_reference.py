"""The reference: against the golden values, as far as a plain formula in float64 reaches, and on the edges by hand."""

import json
import math
import subprocess
import sys
from pathlib import Path

import array_api_compat.numpy
import array_api_strict
import golden_cases
import numpy as np
import pytest
from golden_cases import Case, case_named, cases

from xent.testing import reference
from xent.testing.budget import distance

inf, nan = math.inf, math.nan


@pytest.fixture(params=[array_api_compat.numpy, array_api_strict], ids=["numpy", "array-api-strict"])
def xp(request):
    return request.param


def same(actual, expected) -> bool:
    """Equal value for value, NaN to NaN, the sign of a zero included."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    return (
        actual.shape == expected.shape
        and np.array_equal(actual, expected, equal_nan=True)
        and np.array_equal(np.signbit(actual[actual == 0]), np.signbit(expected[expected == 0]))
    )


def near(actual, expected) -> bool:
    """Equal to fifteen digits of a number around 1."""
    return np.allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=1e-15)


def floats(xp, values):
    return xp.asarray(values, dtype=xp.float64)


# -------------------- against the golden values


def targets_of(case: Case) -> np.ndarray:
    if case.is_sparse:
        return reference.sparse_targets(array_api_compat.numpy, case.labels, case.classes, case.label_smoothing)
    return case.targets


def plain_budget(case: Case) -> np.ndarray:
    """What the textbook formula costs in float64, (rows, 1): sixteen roundings of each term, none cancelling.

    It is absolute. A tiny loss, or the gradient at a confident maximum, comes out of it with no digit right.
    """
    x, t = case.logits.astype(np.float64), case.dense_targets
    highest = x.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        terms = np.where(t == 0, 0.0, t * (highest - x + 1 + math.log(case.classes)))
    return 16 * 2.0**-53 * np.maximum(terms.sum(axis=-1, keepdims=True), 1 + math.log(case.classes))


@pytest.mark.parametrize("case", cases(), ids=str)
def test_losses_are_the_golden_ones_as_far_as_a_plain_formula_reaches(case):
    loss = reference.cross_entropy(array_api_compat.numpy, case.logits, targets_of(case))
    budget = plain_budget(case)[:, 0]

    assert np.all(distance(loss, case.loss_hi, case.loss_lo) <= budget)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_gradients_are_the_golden_ones_as_far_as_a_plain_formula_reaches(case):
    whole = reference.gradient(array_api_compat.numpy, case.logits, targets_of(case))
    gradient = np.take_along_axis(whole, case.columns, axis=-1)
    total = case.dense_targets.sum(axis=-1, keepdims=True)
    budget = 16 * 2.0**-53 * np.maximum(total, 1) * (1 + math.log(case.classes))

    assert np.all(distance(gradient, case.gradient_hi, case.gradient_lo) <= budget)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_log_sum_exps_are_the_golden_ones_as_far_as_a_plain_formula_reaches(case):
    lse = reference.logsumexp(array_api_compat.numpy, case.logits)
    budget = 16 * 2.0**-53 * (np.abs(case.lse_hi) + 1 + math.log(case.classes))

    assert np.all(distance(lse, case.lse_hi, case.lse_lo) <= budget)


def test_a_tiny_loss_is_left_out():
    tiny = case_named("tiny-float64")

    assert reference.cross_entropy(array_api_compat.numpy, tiny.logits, targets_of(tiny))[-1] == 0


def test_golden_values_are_those_known_by_hand():
    tiny = case_named("tiny-float64")

    assert tiny.loss_hi[0] == math.log1p(math.exp(-20)) == 2.061153620314381e-09


def test_golden_values_go_on_past_a_double():
    uniform = case_named("uniform-7-float64")

    assert uniform.loss_lo[0] == pytest.approx(float(np.log(np.longdouble(7)) - np.longdouble(math.log(7))), rel=0.01)


def test_a_recipe_that_gives_other_arrays_is_refused():
    entry = dict(golden_cases.entries()[0])
    entry["logits"] = entry["logits"] | {"seed": 5}

    with pytest.raises(ValueError, match="gives other arrays"):
        golden_cases.case_of(entry)


def test_golden_arrays_cannot_be_written():
    assert not cases()[0].logits.flags.writeable


@pytest.mark.slow
def test_the_golden_file_is_what_its_script_makes():
    script = Path(__file__).parent / "golden" / "make.py"
    made = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)

    assert made.returncode == 0, made.stderr


def test_the_golden_file_has_every_dtype_with_one_class_and_with_262144():
    entries = json.loads(golden_cases.path.read_text(encoding="utf-8"))
    widths = {dtype: {e["classes"] for e in entries if e["dtype"] == dtype} for dtype in {e["dtype"] for e in entries}}

    assert all({1, 262144} <= widths[dtype] for dtype in ("float16", "bfloat16", "float32", "float64"))


# -------------------- by hand: losses and gradients of logits


def loss_of(xp, logits, targets):
    return reference.cross_entropy(xp, floats(xp, logits), floats(xp, targets))


def gradient_of(xp, logits, targets):
    return reference.gradient(xp, floats(xp, logits), floats(xp, targets))


def test_uniform_logits_over_four_classes_cost_log_four(xp):
    assert near(loss_of(xp, [[7.0] * 4], [[0, 0, 1, 0]]), [math.log(4)])


def test_one_class_costs_exactly_zero_and_never_minus_zero(xp):
    assert same(loss_of(xp, [[5.0]], [[1]]), [0.0])


def test_targets_that_sum_to_two_cost_twice_as_much(xp):
    assert near(loss_of(xp, [[0.0, 0.0]], [[2, 0]]), [2 * math.log(2)])


def test_the_gradient_is_the_sum_of_the_targets_times_p_minus_them(xp):
    assert near(gradient_of(xp, [[0.0, 0.0]], [[2, 0]]), [[-1.0, 1.0]])


def test_a_masked_class_without_target_contributes_nothing(xp):
    assert near(loss_of(xp, [[0.0, -inf, 0.0]], [[1, 0, 0]]), [math.log(2)])


def test_a_masked_label_costs_infinity(xp):
    assert same(loss_of(xp, [[0.0, -inf]], [[0, 1]]), [inf])


def test_the_gradient_at_a_masked_label_is_finite(xp):
    assert same(gradient_of(xp, [[0.0, -inf]], [[0, 1]]), [[1.0, -1.0]])


def test_a_row_of_minus_infinity_alone_costs_nan(xp):
    assert same(loss_of(xp, [[-inf, -inf]], [[1, 0]]), [nan])


def test_the_gradient_of_a_row_of_minus_infinity_alone_is_nan(xp):
    assert same(gradient_of(xp, [[-inf, -inf]], [[1, 0]]), [[nan, nan]])


@pytest.mark.parametrize(("target", "loss"), [([0, 1, 0], 0.0), ([1, 0, 0], inf), ([0, 0.5, 0.5], inf)], ids=str)
def test_at_one_infinite_logit_the_loss_is_the_limit(xp, target, loss):
    assert same(loss_of(xp, [[0.0, inf, -inf]], [target]), [loss])


def test_at_one_infinite_logit_p_is_its_one_hot(xp):
    assert same(gradient_of(xp, [[0.0, inf, -inf]], [[1, 0, 0]]), [[-1.0, 1.0, 0.0]])


def test_two_infinite_logits_cost_nan(xp):
    assert same(loss_of(xp, [[inf, inf, 0.0]], [[1, 0, 0]]), [nan])


def test_a_nan_logit_is_nan_in_its_row_alone(xp):
    assert same(loss_of(xp, [[nan, 0.0], [5.0, -inf]], [[0, 1], [1, 0]]), [nan, 0.0])


def test_the_gradient_of_a_nan_logit_is_nan_in_its_row_alone(xp):
    assert same(gradient_of(xp, [[nan, 0.0], [5.0, -inf]], [[0, 1], [1, 0]]), [[nan, nan], [0.0, 0.0]])


def test_a_nan_row_without_targets_costs_nan(xp):
    assert same(loss_of(xp, [[nan, 0.0]], [[0, 0]]), [nan])


def test_a_common_offset_of_a_million_changes_nothing(xp):
    near_zero, far = loss_of(xp, [[0.0, 1.0, 3.0]], [[1, 0, 0]]), loss_of(xp, [[1e6, 1e6 + 1, 1e6 + 3]], [[1, 0, 0]])

    assert same(near_zero, far)


def test_no_row_is_left_without_an_answer(xp):
    assert loss_of(xp, np.zeros((0, 7)), np.zeros((0, 7))).shape == (0,)


# -------------------- by hand: targets


def test_one_hot_is_all_zero_for_a_label_outside(xp):
    assert same(reference.one_hot(xp, xp.asarray([1, -1, 3]), 3), [[0.0, 1.0, 0.0], [0.0] * 3, [0.0] * 3])


def test_a_label_outside_costs_nan_in_its_row_alone(xp):
    targets = reference.sparse_targets(xp, xp.asarray([1, -1, 2]), 2)

    assert same(loss_of(xp, [[-inf, 0.0]] * 3, targets), [0.0, nan, nan])


def test_smoothing_spreads_a_share_over_all_classes(xp):
    assert near(reference.smooth(xp, floats(xp, [[0, 0, 0, 1]]), 0.2), [[0.05, 0.05, 0.05, 0.85]])


def test_full_smoothing_forgets_the_label(xp):
    assert same(reference.sparse_targets(xp, xp.asarray([3]), 4, 1.0), [[0.25] * 4])


def test_smoothing_over_a_masked_class_costs_infinity(xp):
    assert same(loss_of(xp, [[0.0, -inf]], reference.sparse_targets(xp, xp.asarray([0]), 2, 0.1)), [inf])


# -------------------- by hand: log-sum-exp, probabilities, binary, statistics


@pytest.mark.parametrize(
    ("row", "lse"), [([inf, inf], inf), ([0.0, inf], inf), ([-inf, -inf], -inf), ([nan, 0.0], nan)], ids=str
)
def test_log_sum_exp_has_a_limit_where_the_softmax_has_none(xp, row, lse):
    assert same(reference.logsumexp(xp, floats(xp, [row])), [lse])


@pytest.mark.parametrize(
    ("p", "t", "loss"),
    [
        ([0.5, 0.5], [1, 0], math.log(2)),
        ([2.0, 0.5], [0, 1], math.log(2)),
        ([0.5, 0.0], [0, 1], inf),
        ([0.5, nan], [1, 0], nan),
    ],
    ids=str,
)
def test_probabilities_are_neither_clipped_nor_normalised(xp, p, t, loss):
    assert same(reference.probabilities_loss(xp, floats(xp, [p]), floats(xp, [t])), [loss])


def test_a_certain_probability_costs_zero_and_never_minus_zero(xp):
    assert same(reference.probabilities_loss(xp, floats(xp, [[1.0, 0.0]]), floats(xp, [[1, 0]])), [0.0])


def test_the_gradient_of_probabilities_is_minus_target_over_p(xp):
    gradient = reference.probabilities_gradient(xp, floats(xp, [[0.5, 0.0, 0.0]]), floats(xp, [[1, 0, 1]]))

    assert np.array_equal(np.asarray(gradient), [[-2.0, 0.0, -inf]])


def test_log_probabilities_cost_minus_their_sum_over_the_targets(xp):
    assert same(reference.log_probabilities_loss(xp, floats(xp, [[-3.0, -inf]]), floats(xp, [[0.5, 0]])), [1.5])


def test_the_gradient_of_log_probabilities_is_minus_the_target(xp):
    gradient = reference.log_probabilities_gradient(
        xp, floats(xp, [[-3.0, nan], [-1.0, -2.0]]), floats(xp, [[0.5, 0.25]] * 2)
    )

    assert same(gradient, [[nan, nan], [-0.5, -0.25]])


def test_a_binary_logit_of_zero_costs_log_two_for_either_target(xp):
    assert near(reference.binary_cross_entropy(xp, floats(xp, [0.0, 0.0]), floats(xp, [0.0, 1.0])), [math.log(2)] * 2)


def test_infinite_binary_logits_cost_the_limit(xp):
    loss = reference.binary_cross_entropy(xp, floats(xp, [inf, -inf, inf, -inf]), floats(xp, [1.0, 0.0, 0.0, 1.0]))

    assert same(loss, [0.0, 0.0, inf, inf])


def test_a_positive_weight_multiplies_the_positive_term(xp):
    loss = reference.binary_cross_entropy(xp, floats(xp, [0.0]), floats(xp, [0.5]), pos_weight=3.0)

    assert near(loss, [2 * math.log(2)])


def test_the_binary_gradient_is_sigmoid_minus_target(xp):
    assert near(reference.binary_gradient(xp, floats(xp, [0.0, inf]), floats(xp, [1.0, 1.0])), [-0.5, 0.0])


def test_a_constant_row_is_a_hit_for_the_first_class_only(xp):
    assert same(reference.label_rank(xp, floats(xp, [[2.0] * 3] * 3), xp.asarray([0, 1, 2])), [0, 1, 2])


@pytest.mark.parametrize("row", [[nan, 1.0], [-inf, -inf], [inf, inf]], ids=str)
def test_a_row_without_softmax_has_no_rank(xp, row):
    assert same(reference.label_rank(xp, floats(xp, [row]), xp.asarray([1])), [-1])


def test_a_label_outside_has_no_rank(xp):
    assert same(reference.label_rank(xp, floats(xp, [[1.0, 2.0]]), xp.asarray([2])), [-1])


def test_the_entropy_of_a_uniform_row_is_the_logarithm_of_its_classes(xp):
    assert near(reference.entropy(xp, floats(xp, [[0.0] * 7, [-inf, 0.0, *[-inf] * 5]])), [math.log(7), 0.0])


def test_the_sum_of_squared_probabilities_is_one_over_the_classes_of_a_uniform_row(xp):
    assert near(reference.sum_p_squared(xp, floats(xp, [[0.0] * 7, [0.0, inf, *[0.0] * 5]])), [1 / 7, 1.0])
