"""docs/semantics.md, "Numbers": what every call returns where others return 0, NaN or a wrong digit."""

import functools
import math

import ml_dtypes
import numpy as np
import pytest
from expected import gradient_is_off, loss_is_off, near, one_hot, same, same_bits, smooth

import xent

inf, nan = math.inf, math.nan
DTYPES = ("float16", "bfloat16", "float32", "float64")


def row(*values, dtype=np.float32):
    return np.asarray([values], dtype)


def loss_and_gradient(lib, *arrays, **keywords):
    return lib.call(xent.value_and_grad(xent.sparse_cross_entropy), *arrays, **keywords)


def dense_loss_and_gradient(lib, *arrays, **keywords):
    return lib.call(xent.value_and_grad(xent.cross_entropy), *arrays, **keywords)


# -------------------- the size of the numbers


def test_a_tiny_loss_has_all_its_digits(lib):
    loss = lib.call(xent.sparse_cross_entropy, row(0, -20), np.asarray([0]))

    assert near(loss, [math.log1p(math.exp(-20))])


@pytest.mark.parametrize("gap", [30.0, 60.0, 80.0, 87.0], ids=str)
def test_a_loss_has_all_its_digits_down_to_the_smallest_normal_number(lib, gap):
    loss = lib.call(xent.sparse_cross_entropy, row(0, -gap), np.asarray([0]))

    assert near(loss, [math.log1p(math.exp(-gap))])


@pytest.mark.parametrize("gap", [88.0, 96.0, 103.0, 104.0, 110.0, 1e4], ids=str)
def test_a_loss_under_the_smallest_normal_number_goes_to_zero_and_not_to_a_clamped_exponential(lib, gap):
    loss = lib.call(xent.sparse_cross_entropy, row(0, -gap), np.asarray([0]))
    exact, smallest = math.exp(-gap), 2.0**-126 if lib.flushes else 2.0**-149

    assert abs(float(loss[0]) - exact) <= 6 * smallest


@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
def test_a_loss_of_nothing_is_never_minus_zero(lib, kind):
    predictions = {"logits": row(0, -inf), "probabilities": row(1, 0), "log_probabilities": row(0, -inf)}[kind]
    sparse = lib.call(xent.sparse_cross_entropy, predictions, np.asarray([0]), kind=kind)
    dense = lib.call(xent.cross_entropy, predictions, row(1, 0), kind=kind)

    assert same_bits(sparse, np.zeros(1, np.float32))
    assert same_bits(dense, np.zeros(1, np.float32))


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_a_binary_loss_of_nothing_is_never_minus_zero(lib, target):
    sign = 1 if target else -1
    loss = lib.call(xent.binary_cross_entropy, row(sign * inf, sign * 200), row(target, target))

    assert same_bits(loss, np.zeros((1, 2), np.float32))


def test_a_common_offset_changes_nothing(lib, rng):
    logits = rng.integers(-80, 80, (7, 123)).astype(np.float32) / 16  # exact at the offset too
    labels = rng.integers(0, 123, 7)
    plain, offset = (loss_and_gradient(lib, one, labels) for one in (logits, logits + np.float32(1e6)))

    assert same_bits(plain[0], offset[0])
    assert same_bits(plain[1], offset[1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_predictions_are_computed_and_returned_in_float32(lib, dtype):
    if dtype not in lib.dtypes:
        pytest.skip(f"{lib} has no {dtype}")
    logits = np.zeros((2, 100_003), ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16)
    loss = lib.call(xent.sparse_cross_entropy, logits, np.asarray([5, 100_002]))

    assert loss.dtype == np.float32
    assert near(loss, [math.log(100_003)] * 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_has_the_dtype_of_the_predictions(lib, dtype):
    if dtype not in lib.dtypes:
        pytest.skip(f"{lib} has no {dtype}")
    logits = np.zeros((3, 5), ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    _, gradient = loss_and_gradient(lib, logits, np.asarray([0, 1, 2]))

    assert gradient.dtype == logits.dtype
    assert not gradient_is_off(gradient, logits, one_hot([0, 1, 2], 5), is_sparse=True, flushes=lib.flushes)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_wide_predictions_give_losses_of_their_own_dtype(lib, dtype, reduction):
    loss = lib.call(xent.sparse_cross_entropy, np.zeros((3, 5), dtype), np.asarray([0, 1, 2]), reduction=reduction)

    assert loss.dtype == dtype


@pytest.mark.parametrize("axis", [0, -1])
def test_many_equal_terms_keep_their_digits_along_any_axis(lib, axis):
    classes = 32_003
    logits = np.zeros((3, classes), np.float32)
    loss = lib.call(
        xent.sparse_cross_entropy, logits if axis else logits.T.copy(), np.asarray([0, 7, 32_002]), axis=axis
    )

    assert near(loss, [math.log(classes)] * 3)


# -------------------- infinities and NaN


def test_a_masked_class_without_target_contributes_nothing(lib):
    logits, targets = row(0, -inf, 0), row(0.5, 0, 0.5)
    loss, gradient = dense_loss_and_gradient(lib, logits, targets)

    assert near(loss, [math.log(2)])
    assert same(gradient, [[0, 0, 0]])


def test_a_masked_label_costs_infinity_and_has_a_finite_gradient(lib):
    loss, gradient = loss_and_gradient(lib, row(0, -inf, 0), np.asarray([1]))

    assert same(loss, [inf])
    assert same(gradient, [[0.5, -1, 0.5]])


def test_a_masked_soft_target_costs_infinity_and_has_a_finite_gradient(lib):
    loss, gradient = dense_loss_and_gradient(lib, row(0, -inf, 0), row(0.5, 0.25, 0.25))

    assert same(loss, [inf])
    assert same(gradient, [[0, -0.25, 0.25]])


def test_a_row_masked_whole_is_nan(lib):
    loss, gradient = loss_and_gradient(lib, row(-inf, -inf), np.asarray([1]))

    assert same(loss, [nan])
    assert same(gradient, [[nan, nan]])


@pytest.mark.parametrize(("label", "expected"), [(0, inf), (1, 0.0), (2, inf)])
def test_one_infinite_logit_costs_nothing_at_it_and_infinity_elsewhere(lib, label, expected):
    assert same(lib.call(xent.sparse_cross_entropy, row(0, inf, -inf), np.asarray([label])), [expected])


@pytest.mark.parametrize("label", [0, 1])
def test_two_infinite_logits_have_no_loss(lib, label):
    loss, gradient = loss_and_gradient(lib, row(0, inf, inf), np.asarray([label]))

    assert same(loss, [nan])
    assert same(gradient, [[nan] * 3])


def test_the_log_sum_exp_of_two_infinite_logits_is_infinite(lib):
    assert same(lib.call(xent.logsumexp, row(0, inf, inf)), [inf])


def test_the_log_sum_exp_of_a_masked_row_is_minus_infinity(lib):
    assert same(lib.call(xent.logsumexp, row(-inf, -inf)), [-inf])


@pytest.mark.parametrize("classes", [3, 123, 4_097])
def test_nan_stays_in_its_row(lib, rng, classes):
    logits = rng.standard_normal((5, classes)).astype(np.float32)
    labels = rng.integers(0, classes, 5)
    clean = loss_and_gradient(lib, logits, labels)
    logits[2, classes // 2] = nan
    loss, gradient = loss_and_gradient(lib, logits, labels)
    others = [0, 1, 3, 4]

    assert np.isnan(loss[2])
    assert np.all(np.isnan(gradient[2]))
    assert same_bits(loss[others], clean[0][others])
    assert same_bits(gradient[others], clean[1][others])


@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
def test_nan_among_probabilities_under_a_soft_target_stays_in_its_row(lib, kind):
    loss = lib.call(xent.cross_entropy, np.asarray([[nan, 0.5], [1.0, 1.0]]), np.asarray([[0.0, 1.0]] * 2), kind=kind)

    assert same(np.isnan(loss), [True, False])


@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
def test_nan_among_probabilities_beside_a_one_hot_of_bools_stays_in_its_row(lib, kind):
    loss = lib.call(
        xent.cross_entropy, np.asarray([[nan, 0.5], [1.0, 1.0]]), np.asarray([[False, True]] * 2), kind=kind
    )

    assert same(np.isnan(loss), [True, False])


@pytest.mark.parametrize("positive", [0.0, np.asarray([0.0, 2.0], np.float32)], ids=["number", "array"])
def test_a_binary_nan_has_a_slope_of_nan_though_a_yes_weighs_nothing(lib, positive):
    logits, targets = np.asarray([[nan, 0.0], [1.0, nan]], np.float32), np.ones((2, 2), np.float32)
    loss, gradient = lib.call(xent.value_and_grad(xent.binary_cross_entropy), logits, targets, pos_weight=positive)

    assert same(np.isnan(loss), np.isnan(logits))
    assert same(np.isnan(gradient), np.isnan(logits))


@pytest.mark.parametrize("classes", [9, 70_001])
def test_a_first_block_of_masked_classes_is_as_if_it_were_not_there(lib, rng, classes):
    logits = rng.standard_normal((2, classes)).astype(np.float32)
    masked = 2 * classes // 3
    logits[:, :masked] = -inf
    labels = np.asarray([classes - 1, masked])
    loss, gradient = loss_and_gradient(lib, logits, labels)

    assert not loss_is_off(loss, logits[:, masked:], one_hot(labels - masked, classes - masked), flushes=lib.flushes)
    assert same(gradient[:, :masked], np.zeros((2, masked)))


def test_a_masked_first_block_that_holds_the_label_costs_infinity(lib):
    logits = np.zeros((1, 70_001), np.float32)
    logits[:, :50_000] = -inf

    assert same(lib.call(xent.sparse_cross_entropy, logits, np.asarray([3])), [inf])


# -------------------- targets


@pytest.mark.parametrize("total", [0.0, 0.3, 1.0, 2.5])
def test_targets_that_do_not_sum_to_one_have_the_loss_of_the_formula(lib, rng, total):
    logits = rng.standard_normal((5, 7)).astype(np.float32)
    targets = rng.random((5, 7)).astype(np.float32)
    targets = (targets / targets.sum(-1, keepdims=True) * np.float32(total)).astype(np.float32)
    loss, gradient = dense_loss_and_gradient(lib, logits, targets)

    assert not loss_is_off(loss, logits, targets, flushes=lib.flushes)
    assert not gradient_is_off(gradient, logits, targets, flushes=lib.flushes)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_a_dense_one_hot_is_the_label(lib, rng, smoothing):
    logits, labels = rng.standard_normal((5, 7)).astype(np.float32) * 4, np.asarray([0, 6, 3, 3, 1])
    weights = {
        "sample_weight": np.asarray([1, 2, 0, 0.5, 3], np.float32),
        "class_weight": np.arange(1, 8, dtype=np.float32),
    }
    keywords = {**weights, "label_smoothing": smoothing}
    sparse = loss_and_gradient(lib, logits, labels, **keywords)
    dense = dense_loss_and_gradient(lib, logits, one_hot(labels, 7).astype(np.float32), **keywords)
    weight = weights["sample_weight"] * weights["class_weight"][labels]
    targets = smooth(one_hot(labels, 7), smoothing)

    assert not loss_is_off(sparse[0], logits, targets, weight=weight, flushes=lib.flushes)
    assert not loss_is_off(dense[0], logits, targets, weight=weight, flushes=lib.flushes)
    assert not gradient_is_off(sparse[1], logits, targets, share=weight, flushes=lib.flushes)
    assert not gradient_is_off(dense[1], logits, targets, share=weight, flushes=lib.flushes)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", [4, 60])
def test_smoothed_labels_of_far_logits_have_the_loss_of_their_one_hot(lib, classes, dtype):
    far, labels, smoothing = -float(np.finfo(dtype).max) / 3, np.asarray([0]), 0.1
    logits = np.full((1, classes), far, dtype)
    logits[0, 0] = 0
    loss = lib.call(xent.sparse_cross_entropy, logits, labels, label_smoothing=smoothing)
    of_one_hot = lib.call(xent.cross_entropy, logits, one_hot(labels, classes).astype(dtype), label_smoothing=smoothing)
    expected = [-far * (smoothing * (classes - 1) / classes)]

    assert near(loss, expected) and near(of_one_hot, expected)


# -------------------- probabilities


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_probability_of_zero_at_the_label_costs_infinity(lib, dtype):
    loss = lib.call(xent.sparse_cross_entropy, row(0, 1, dtype=dtype), np.asarray([0]), kind="probabilities")

    assert same(loss, [inf])


def test_probabilities_are_not_clipped(lib):
    loss = lib.call(xent.sparse_cross_entropy, row(1e-30, 1), np.asarray([0]), kind="probabilities")

    assert near(loss, [-math.log(np.float32(1e-30))])


def test_probabilities_are_not_renormalised(lib):
    loss = lib.call(xent.cross_entropy, row(2, 2), row(0.5, 0.5), kind="probabilities")

    assert near(loss, [-math.log(2)])


def test_a_binary_probability_of_zero_under_a_yes_costs_infinity(lib):
    loss = lib.call(xent.binary_cross_entropy, row(0, 1, 0, 1), row(1, 1, 0, 0), kind="probabilities")

    assert same(loss, [[inf, 0, 0, inf]])


# -------------------- binary


BINARY = [(x, y) for x in (-inf, -200.0, -1.5, 0.0, 3.0, inf) for y in (0.0, 0.25, 1.0)]


def test_binary_losses_are_the_losses_of_two_classes(lib):
    x, y = (np.asarray(column, np.float32) for column in zip(*BINARY, strict=True))
    binary = lib.call(xent.binary_cross_entropy, x, y)
    two = np.stack([np.zeros_like(x), x], -1), np.stack([1 - y, y], -1)

    assert not loss_is_off(binary, *two, flushes=lib.flushes)


@pytest.mark.parametrize(
    ("x", "y", "loss", "slope"), [(inf, 1, 0, 0), (inf, 0, inf, 1), (-inf, 1, inf, -1), (-inf, 0, 0, 0)]
)
def test_binary_infinite_logits_have_their_limits(lib, x, y, loss, slope):
    found = lib.call(xent.value_and_grad(xent.binary_cross_entropy), row(x), row(y))

    assert same(found[0], [[loss]])
    assert same(found[1], [[slope]])


def test_a_binary_nan_stays_where_it_is(lib):
    loss, gradient = lib.call(xent.value_and_grad(xent.binary_cross_entropy), row(nan, 0), row(1, 1))

    assert same(np.isnan(loss), [[True, False]])
    assert same(np.isnan(gradient), [[True, False]])


# -------------------- sizes at the edge


@pytest.mark.parametrize("logit", [0.0, 1e30, -1e30])
def test_one_class_costs_nothing(lib, logit):
    loss, gradient = loss_and_gradient(lib, np.full((3, 1), logit, np.float32), np.zeros(3, np.int64))

    assert same_bits(loss, np.zeros(3, np.float32))
    assert same(gradient, np.zeros((3, 1)))


@pytest.mark.parametrize(
    "function", [xent.sparse_cross_entropy, xent.logsumexp, xent.softmax], ids=lambda f: f.__name__
)
def test_no_class_at_all_is_an_error(lib, function):
    labels = (np.zeros(3, np.int64),) if function is xent.sparse_cross_entropy else ()

    with pytest.raises(ValueError, match="must have at least one class"):
        lib.apply(function, np.zeros((3, 0), np.float32), *labels)


@pytest.mark.parametrize(("shape", "axis"), [((0, 3), -1), ((2, 0, 3), -1), ((2, 3, 0), 1), ((2, 0, 3, 4), 2)], ids=str)
def test_no_rows_have_no_losses(lib, shape, axis):
    rows = tuple(np.delete(shape, axis))
    call = xent.value_and_grad(functools.partial(xent.sparse_cross_entropy, axis=axis))
    loss, gradient = lib.call(call, np.zeros(shape, np.float32), np.zeros(rows, np.int64))

    assert loss.shape == rows
    assert gradient.shape == shape


@pytest.mark.variants("array-api-strict")
@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3)], ids=str)
@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"class_weight": [1.0, 2.0, 3.0]}], ids=str)
def test_no_rows_stay_on_their_device(lib, shape, options):
    device = lib.xp.Device("device1")
    logits, labels = lib.xp.zeros(shape, device=device), lib.xp.zeros(shape[:-1], dtype=lib.xp.int64, device=device)
    loss, gradient = xent.value_and_grad(xent.sparse_cross_entropy)(logits, labels, **options)

    assert loss.device == gradient.device == xent.row_statistics(logits, labels).loss.device == device
    assert xent.logsumexp(logits).device == device


NOTHING = [("sum", 0.0), ("mean", nan), (xent.Mean(empty=0.0), 0.0), (xent.Mean("all", empty=7.0), 7.0)]


@pytest.mark.parametrize(("reduction", "expected"), NOTHING, ids=str)
@pytest.mark.parametrize("is_dense", [False, True], ids=["sparse", "dense"])
def test_a_reduction_of_no_rows_is_its_convention(lib, reduction, expected, is_dense):
    targets = np.zeros((0, 3), np.float32) if is_dense else np.zeros(0, np.int64)
    function = xent.cross_entropy if is_dense else xent.sparse_cross_entropy

    assert same(lib.call(function, np.zeros((0, 3), np.float32), targets, reduction=reduction), expected)


def test_no_elements_have_a_binary_mean_of_nan(lib):
    mean = functools.partial(xent.binary_cross_entropy, reduction="mean")

    assert same(lib.call(mean, np.zeros(0, np.float32), np.zeros(0, np.float32)), nan)
