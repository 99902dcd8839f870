"""The error budget itself: worked by hand, and shown to catch what it is there to catch."""

import array_api_compat.numpy as xp
import ml_dtypes
import numpy as np
import pytest
from budget import budget_of, needed, within_budget
from golden_cases import Case, case_named, cases

from xent.testing import reference
from xent.testing.budget import (
    compute_dtype,
    distance,
    gradient_budget,
    k_of,
    loss_budget,
    lse_budget,
    smallest,
    ulp,
)

single, double = np.dtype(np.float32), np.dtype(np.float64)
half, bfloat = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)


def row(*values: float, dtype: np.dtype = single) -> np.ndarray:
    return np.asarray([values], dtype)


# -------------------- ulp


@pytest.mark.parametrize(("dtype", "digits"), [(half, 10), (bfloat, 7), (single, 23), (double, 52)], ids=str)
def test_the_ulp_of_one_is_two_to_the_minus_stored_digits(dtype, digits):
    assert ulp(np.asarray(1.0), dtype) == 2.0**-digits


def test_the_ulp_halves_under_a_power_of_two():
    assert ulp(np.asarray(np.nextafter(2.0, 0.0)), single) == 2.0**-23


@pytest.mark.parametrize(("dtype", "power"), [(half, -24), (bfloat, -133), (single, -149), (double, -1074)], ids=str)
def test_the_ulp_of_zero_is_the_smallest_subnormal(dtype, power):
    assert ulp(np.asarray(0.0), dtype) == 2.0**power


def test_the_ulp_of_a_subnormal_is_the_smallest_subnormal():
    assert ulp(np.asarray(1e-40), single) == 2.0**-149


def test_nothing_under_the_smallest_normal_is_told_apart_where_subnormals_are_flushed():
    assert ulp(np.asarray(1e-40), single, flushes=True) == 2.0**-126


# -------------------- budgets by hand


def test_the_unit_of_a_loss_is_its_own_ulp():
    budget = loss_budget(row(0.0, 0.0), row(1.0, 0.0))  # the loss is log 2, between 1/2 and 1

    assert budget.unit == 2.0**-24


def test_equal_logits_cost_a_loss_nothing_beyond_underflow():
    budget = loss_budget(row(0.0, 0.0), row(1.0, 0.0))  # |g| is 1/2 twice, ulp(m - x) is s; then C s

    assert budget.constant == (0.5 + 0.5 + 2) * 2.0**-149


def test_a_loss_may_be_off_by_what_the_subtraction_rounds():
    budget = loss_budget(row(0.0, -20.0), row(0.0, 1.0))  # |g| is 1 - 2e-9 at -20, where ulp(20) is 2**-19

    assert budget.constant[0] == pytest.approx(2.0**-19, rel=1e-8)


def test_opposite_signs_pay_for_the_larger_logit_not_for_the_larger_difference():
    budget = loss_budget(row(9.0, -9.0), row(0.0, 1.0))  # m - x is 18, of ulp 2**-19; the logits' is 2**-20

    assert budget.constant[0] == pytest.approx(2.0**-20, rel=1e-7)


def test_a_common_offset_buys_a_loss_nothing():
    near, far = row(6.0, 3.0, 1.5), row(6.0, 3.0, 1.5) + np.float32(2**20)
    targets = row(0.0, 1.0, 0.0)

    assert loss_budget(far, targets) == loss_budget(near, targets)


def test_a_masked_class_adds_nothing_to_the_budget_of_a_loss():
    budget = loss_budget(row(0.0, 0.0, -np.inf), row(1.0, 0.0, 0.0))

    assert budget.constant == (0.5 + 0.5 + 3) * 2.0**-149  # as with two equal logits, but for its share of C s


def test_flushing_allows_a_smallest_normal_for_each_class():
    budget = loss_budget(row(0.0, 0.0, 0.0), row(2.0, 0.0, 0.0), flushes=True)  # w C s

    assert budget.constant[0] == pytest.approx(6 * 2.0**-126, rel=1e-6)


def test_the_unit_of_an_lse_is_the_ulp_of_the_maximum_where_the_two_terms_cancel():
    budget = lse_budget(row(*[-np.log(507.0)] * 507))  # the lse is all but 0, m is -6.2

    assert budget.unit == 2.0**-21


def test_a_sparse_gradient_is_measured_by_its_row_s_largest_entry():
    budget = gradient_budget(row(0.0, -1.0, -20.0), row(1.0, 0.0, 0.0), is_sparse=True)  # the largest is 0.27

    assert np.all(budget.unit == 2.0**-25)


def test_a_dense_gradient_is_measured_entry_by_entry():
    budget = gradient_budget(row(0.0, -20.0), row(1.0, 0.0), is_sparse=False)  # t = 1 and p = 2.06e-9

    assert budget.unit.tolist() == [[2.0**-23, 2.0**-52]]


def test_a_gradient_may_be_off_by_what_its_own_derivative_makes_of_the_rounding():
    budget = gradient_budget(row(0.0, -2.0), row(0.0, 1.0), is_sparse=True)
    p = np.exp(-2.0) / (1 + np.exp(-2.0))

    assert budget.constant[0] == pytest.approx([p * (1 - p) * 2.0**-22] * 2, rel=1e-12)  # ulp(2) on x_1 alone


@pytest.mark.parametrize(("dtype", "digits"), [(half, 10), (bfloat, 7)], ids=str)
def test_a_narrow_gradient_may_be_rounded_once_more(dtype, digits):
    logits, targets = row(0.0, 0.0, dtype=dtype), row(1.0, 0.0)
    wide = gradient_budget(logits.astype(np.float32), targets, is_sparse=True)
    narrow = gradient_budget(logits, targets, is_sparse=True)

    assert np.all(narrow.constant - wide.constant == 0.5 * 2.0 ** (-1 - digits))  # half an ulp of 1/2


def test_float16_logits_are_held_to_float32():
    narrow = loss_budget(row(0.0, -1.0, dtype=half), row(1.0, 0.0))
    wide = loss_budget(row(0.0, -1.0), row(1.0, 0.0))

    assert narrow == wide


# -------------------- distances


def test_a_distance_sees_what_a_double_cannot_hold():
    assert distance(np.asarray(1.0), np.asarray(1.0), np.asarray(2.0**-54)) == 2.0**-54


def test_a_distance_is_zero_between_equal_infinities():
    assert distance(np.asarray(np.inf), np.asarray(np.inf), np.asarray(0.0)) == 0


@pytest.mark.parametrize("actual", [np.nan, -np.inf, np.finfo(np.float64).max], ids=str)
def test_an_infinite_value_must_be_met_exactly(actual):
    assert distance(np.asarray(actual), np.asarray(np.inf), np.asarray(0.0)) == np.inf


@pytest.mark.parametrize("actual", [np.nan, np.inf], ids=str)
def test_what_is_not_finite_is_never_near_a_finite_value(actual):
    assert distance(np.asarray(actual), np.asarray(1.0), np.asarray(0.0)) == np.inf


# -------------------- the report


def test_an_answer_over_its_budget_is_shown_with_its_row_error_and_budget():
    case = case_named("ties-float32")
    actual = case.loss_hi.astype(np.float32)
    actual[2] *= 1 + 2.0**-13

    with pytest.raises(AssertionError, match=r"over its budget in 1 of 4 places, worst at row 2: .* ulp .* budget"):
        within_budget(actual, case, kind="loss")


def test_a_gradient_over_its_budget_is_shown_with_its_class():
    case = case_named("plain-7-float32")
    actual = case.gradient_hi.astype(np.float32)
    actual[3, 5] += 1

    with pytest.raises(AssertionError, match="row 3, class 5"):
        within_budget(actual, case, kind="gradient")


def test_a_loss_of_another_shape_is_refused():
    case = case_named("ties-float32")

    with pytest.raises(AssertionError, match="must have shape"):
        within_budget(case.loss_hi[:, None], case, kind="loss")


# -------------------- what it catches
# Each of these is how some library computes cross entropy; all in float32.


def log_sum_exp(x: np.ndarray) -> np.ndarray:
    highest = x.max(axis=-1, keepdims=True)
    return highest + np.log(np.exp(x - highest).sum(axis=-1, keepdims=True))


def lse_minus_logit(case: Case) -> np.ndarray:
    x = case.logits.astype(np.float32)
    return (log_sum_exp(x) - np.take_along_axis(x, case.labels[:, None], axis=-1))[:, 0]


def shifted_log_softmax(case: Case) -> np.ndarray:
    x = case.logits.astype(np.float32)
    shifted = x - x.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return -np.take_along_axis(log_p, case.labels[:, None], axis=-1)[:, 0]


def naive_gradient(case: Case, total: np.ndarray | float) -> np.ndarray:
    x, t = case.logits.astype(np.float32), case.dense_targets.astype(np.float32)
    return np.asarray(total * np.exp(x - log_sum_exp(x)) - t, np.float32)


def one_by_one(case: Case) -> np.ndarray:
    x = case.logits.astype(np.float32)
    highest = x.max(axis=-1)
    return highest + np.log(np.cumsum(np.exp(x - highest[:, None]), axis=-1, dtype=np.float32)[:, -1])


def refused(actual: np.ndarray, name: str, kind: str, **options: bool) -> None:
    with pytest.raises(AssertionError, match="over its budget"):
        within_budget(actual, case_named(name), kind=kind, **options)


def test_lse_minus_logit_breaks_the_budget_at_a_common_offset():
    refused(lse_minus_logit(case_named("offset+1e+06-float32")), "offset+1e+06-float32", "loss")


def test_lse_minus_logit_is_within_the_budget_without_an_offset():
    within_budget(lse_minus_logit(case_named("plain-123-float32")), case_named("plain-123-float32"), kind="loss")


def test_a_shifted_log_softmax_is_within_the_budget_at_a_common_offset():
    within_budget(
        shifted_log_softmax(case_named("offset+1e+06-float32")), case_named("offset+1e+06-float32"), kind="loss"
    )


def test_a_shifted_log_softmax_breaks_the_budget_of_a_tiny_loss():
    refused(shifted_log_softmax(case_named("tiny-float32")), "tiny-float32", "loss")


def test_a_naive_gradient_breaks_the_sparse_budget_at_a_confident_maximum():
    refused(naive_gradient(case_named("confident-float32"), 1), "confident-float32", "gradient")


def test_a_naive_gradient_is_within_the_sparse_budget_of_an_ordinary_row():
    within_budget(naive_gradient(case_named("plain-7-float32"), 1), case_named("plain-7-float32"), kind="gradient")


def test_softmax_minus_target_breaks_the_budget_where_the_targets_do_not_sum_to_one():
    refused(naive_gradient(case_named("dense-sum-2.5-float32"), 1), "dense-sum-2.5-float32", "gradient")


def test_a_sum_of_many_classes_one_by_one_breaks_the_budget():
    refused(one_by_one(case_named("all-but-one-equal-262144-float32")), "all-but-one-equal-262144-float32", "lse")


def test_an_infinite_target_term_times_zero_breaks_the_budget():
    case = case_named("dense-masked-float32")
    x, t = case.logits, case.targets
    with np.errstate(invalid="ignore"):
        actual = (t * (log_sum_exp(x) - x)).sum(axis=-1)  # 0 * inf

    refused(actual, "dense-masked-float32", "loss")


def test_a_flushed_loss_breaks_the_budget_of_a_library_that_keeps_subnormals():
    case = case_named("gap-80-to-110-float32")
    flushed = np.where(case.loss_hi < smallest(single, flushes=True), 0.0, case.loss_hi).astype(np.float32)

    refused(flushed, case.name, "loss")


def test_a_flushed_loss_is_within_the_budget_of_a_library_that_flushes():
    case = case_named("gap-80-to-110-float32")
    flushed = np.where(case.loss_hi < smallest(single, flushes=True), 0.0, case.loss_hi).astype(np.float32)

    within_budget(flushed, case, kind="loss", flushes=True)


# -------------------- what passes


def is_plain(case: Case) -> bool:
    """Whether the textbook formula in float64 is enough: narrower logits, and no loss or lse between 0 and 1e-8."""
    values = np.abs(np.concatenate([case.loss_hi, case.lse_hi]))
    return case.dtype != double and bool(np.all((values == 0) | (values > 1e-8)))


def reference_of(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if case.is_sparse:
        targets = reference.sparse_targets(xp, case.labels, case.classes, case.label_smoothing)
    else:
        targets = case.targets
    dtype = compute_dtype(case.dtype)
    loss, lse = reference.cross_entropy(xp, case.logits, targets), reference.logsumexp(xp, case.logits)
    return loss.astype(dtype), lse.astype(dtype), reference.gradient(xp, case.logits, targets).astype(case.dtype)


@pytest.mark.parametrize("case", [case for case in cases() if is_plain(case)], ids=str)
def test_the_reference_rounded_once_is_within_one_unit_where_nothing_is_tiny(case):
    within = {
        kind: needed(actual, case, kind).max()
        for kind, actual in zip(("loss", "lse", "gradient"), reference_of(case), strict=True)
    }

    assert max(within.values()) <= 1, within


@pytest.mark.slow
@pytest.mark.parametrize("kind", k_of)
def test_exact_values_rounded_once_are_within_every_budget(kind):
    for case in cases():
        dtype = case.dtype if kind == "gradient" else compute_dtype(case.dtype)
        rounded = getattr(case, kind + "_hi").astype(dtype)
        error = distance(rounded, getattr(case, kind + "_hi"), getattr(case, kind + "_lo"))

        assert np.all(error <= budget_of(case, kind).allowed(1)), case
