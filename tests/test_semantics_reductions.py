"""docs/semantics.md, "Targets, weights, reductions", conventions: what counts, its weight, and the denominator."""

import functools
import math

import numpy as np
import pytest
from expected import gradient_is_off, loss_is_off, near, one_hot, same, same_bits, smooth

import xent

inf, nan = math.inf, math.nan
log = math.log
sparse = xent.value_and_grad(xent.sparse_cross_entropy)
dense = xent.value_and_grad(xent.cross_entropy)

LABELS = np.asarray([0, 2, -100, 1, 2, 0, 1])
WEIGHT = np.asarray([1.0, 0.5, 2.0, 0.0, 3.0, 1.5, 1.0], np.float32)
CLASS_WEIGHT = np.asarray([1.0, 4.0, 0.25], np.float32)
COUNTED = (LABELS != -100) & (WEIGHT != 0)
SAFE = np.where(LABELS < 0, 0, LABELS)
MEANS = {
    "sum": lambda w, n: 1.0,
    "mean": lambda w, n: w.sum(),
    xent.Mean(): lambda w, n: w.sum(),
    xent.Mean("weights"): lambda w, n: w.sum(),
    xent.Mean("counted"): lambda w, n: COUNTED.sum(),
    xent.Mean("all"): lambda w, n: n,
    xent.Mean(2.5): lambda w, n: 2.5,
    xent.Mean(denominator=11, empty=0.0): lambda w, n: 11,
}


@pytest.fixture
def logits(rng):
    return (rng.standard_normal((7, 3)) * 2).astype(np.float32)


def exact(logits, targets):
    """The losses of rows, in float64."""
    x = logits.astype(np.float64)
    return (targets * (np.log(np.exp(x).sum(-1, keepdims=True)) - x)).sum(-1)


# -------------------- ignored rows


@pytest.mark.parametrize("held", [[nan, 0, 0], [inf, inf, 0], [-inf] * 3, [1e38, -1e38, 0]], ids=str)
def test_an_ignored_row_has_loss_and_gradient_zero_whatever_it_holds(lib, logits, held):
    logits[2] = held
    loss, gradient = lib.call(sparse, logits, LABELS, ignore_index=-100)

    assert same_bits(loss[2], np.float32(0))
    assert same(gradient[2], [0, 0, 0])
    assert not loss_is_off(
        np.delete(loss, 2), np.delete(logits, 2, 0), one_hot(np.delete(LABELS, 2), 3), flushes=lib.flushes
    )


@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
def test_an_ignored_row_of_any_kind_has_loss_and_gradient_zero(lib, kind):
    predictions = np.asarray([[0.5, 0.25], [nan, 0.0]], np.float32)
    loss, gradient = lib.call(sparse, predictions, np.asarray([0, -1]), ignore_index=-1, kind=kind)

    assert same(loss[1], 0.0)
    assert same(gradient[1], [0, 0])


@pytest.mark.parametrize("dtype", ["float32", "bool", "int64"])
@pytest.mark.parametrize("function", [sparse, dense], ids=["sparse", "dense"])
def test_a_row_of_weight_zero_has_loss_and_gradient_zero_whatever_it_holds(lib, logits, dtype, function):
    logits[3] = nan
    targets = SAFE if function is sparse else one_hot(SAFE, 3).astype(np.float32)
    loss, gradient = lib.call(function, logits, targets, sample_weight=(WEIGHT != 0).astype(dtype))

    assert same(loss[3], 0.0)
    assert same(gradient[3], [0, 0, 0])
    assert np.all(np.isfinite(np.delete(loss, 3)))


def test_a_binary_element_of_weight_zero_has_loss_and_gradient_zero_whatever_it_holds(lib):
    x, y, weight = np.asarray([nan, 0.0]), np.asarray([1.0, 1.0]), np.asarray([0.0, 2.0])
    loss, gradient = lib.call(xent.value_and_grad(xent.binary_cross_entropy), x, y, sample_weight=weight)

    assert near(loss, [0, 2 * log(2)])
    assert same(gradient, [0, -1])


def test_an_ignored_row_is_not_counted_in_the_mean(lib, logits):
    logits[2] = nan
    mean = lib.call(xent.sparse_cross_entropy, logits, LABELS, ignore_index=-100, reduction="mean")
    rows = exact(np.delete(logits, 2, 0), one_hot(np.delete(LABELS, 2), 3))

    assert near(mean, rows.mean(), ulps=32)


@pytest.mark.parametrize("how", ["ignore_index", "sample_weight"])
@pytest.mark.parametrize(
    ("reduction", "expected"), [("mean", nan), ("sum", 0.0), (xent.Mean(empty=0.0), 0.0), (xent.Mean("all"), nan)]
)
def test_where_every_row_is_ignored_the_reduction_is_its_convention_and_the_gradient_zero(
    lib, logits, how, reduction, expected
):
    keywords = {"ignore_index": 0} if how == "ignore_index" else {"sample_weight": np.zeros(7, np.float32)}
    loss, gradient = lib.call(sparse, logits, np.zeros(7, np.int64), reduction=reduction, **keywords)

    assert same(loss, expected)
    assert same(gradient, np.zeros((7, 3)))


# -------------------- weights


def test_sample_weights_multiply_the_rows(lib, logits):
    loss, gradient = lib.call(sparse, logits, SAFE, sample_weight=WEIGHT)

    assert not loss_is_off(loss, logits, one_hot(SAFE, 3), weight=WEIGHT, flushes=lib.flushes)
    assert not gradient_is_off(gradient, logits, one_hot(SAFE, 3), share=WEIGHT, is_sparse=True, flushes=lib.flushes)


def test_a_class_weight_multiplies_the_whole_loss_of_its_label(lib, logits):
    loss, gradient = lib.call(sparse, logits, SAFE, class_weight=CLASS_WEIGHT)
    weight = CLASS_WEIGHT[SAFE]

    assert not loss_is_off(loss, logits, one_hot(SAFE, 3), weight=weight, flushes=lib.flushes)
    assert not gradient_is_off(gradient, logits, one_hot(SAFE, 3), share=weight, is_sparse=True, flushes=lib.flushes)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_class_weight_of_soft_targets_is_their_mean_weight_before_smoothing(lib, logits, rng, smoothing):
    targets = rng.random((7, 3)).astype(np.float32)
    weight = targets.astype(np.float64) @ CLASS_WEIGHT
    loss, gradient = lib.call(dense, logits, targets, class_weight=CLASS_WEIGHT, label_smoothing=smoothing)
    rounded = weight.astype(np.float32)

    assert np.all(np.abs(loss - weight * exact(logits, smooth(targets, smoothing))) <= 1e-6 * np.abs(loss) + 1e-7)
    assert not gradient_is_off(gradient, logits, smooth(targets, smoothing), share=rounded, flushes=lib.flushes)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_class_weight_of_a_label_is_taken_before_smoothing(lib, logits, smoothing):
    loss, _ = lib.call(sparse, logits, SAFE, class_weight=CLASS_WEIGHT, label_smoothing=smoothing)

    assert not loss_is_off(
        loss, logits, smooth(one_hot(SAFE, 3), smoothing), weight=CLASS_WEIGHT[SAFE], flushes=lib.flushes
    )


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("held", [[0, -inf, 0], [nan, 0, 0]], ids=str)
@pytest.mark.parametrize("function", [sparse, dense], ids=["sparse", "dense"])
def test_a_row_of_class_weight_zero_has_loss_and_gradient_zero_whatever_it_holds(lib, function, held, kind):
    predictions = np.asarray([held, [1, 2, 0.5]], np.float32)
    labels = np.asarray([1, 0])
    targets = labels if function is sparse else one_hot(labels, 3).astype(np.float32)
    weight = np.asarray([1.0, 0.0, 1.0], np.float32)
    loss, gradient = lib.call(function, predictions, targets, class_weight=weight, kind=kind)

    assert same_bits(loss[0], np.float32(0))
    assert same(gradient[0], [0, 0, 0])
    assert np.isfinite(loss[1]) and np.any(gradient[1] != 0)


@pytest.mark.parametrize("reduction", ["sum", "mean", xent.Mean("counted"), xent.Mean("all")], ids=str)
@pytest.mark.parametrize("function", [sparse, dense], ids=["sparse", "dense"])
def test_a_row_of_class_weight_zero_is_not_counted(lib, logits, function, reduction):
    logits[1] = nan
    targets = SAFE if function is sparse else one_hot(SAFE, 3).astype(np.float32)
    class_weight = np.asarray([1.0, 4.0, 0.0], np.float32)
    weight = class_weight[SAFE].astype(np.float64)
    below = {"counted": (weight != 0).sum()}.get(getattr(reduction, "denominator", None)) or MEANS[reduction](weight, 7)
    loss, gradient = lib.call(function, logits, targets, class_weight=class_weight, reduction=reduction)

    healthy = np.where(np.isnan(logits), 0, logits)
    assert near(loss, (weight * exact(healthy, one_hot(SAFE, 3))).sum() / below, ulps=32)
    assert not gradient_is_off(gradient, healthy, one_hot(SAFE, 3), share=weight / below, flushes=lib.flushes)


@pytest.mark.parametrize("empty", [nan, 0.0, 2.0])
def test_where_every_class_weighs_nothing_the_mean_is_empty(lib, logits, empty):
    weight = np.zeros(3, np.float32)
    loss, gradient = lib.call(sparse, logits, SAFE, class_weight=weight, reduction=xent.Mean(empty=empty))

    assert same(loss, empty)
    assert same(gradient, np.zeros((7, 3)))


def test_a_bad_label_has_no_class_weight(lib, logits):
    labels, weight = np.asarray([0, 3, 2, 1, -1, 0, 1]), np.asarray([0.0, 1.0, 0.0], np.float32)
    if lib.raises_labels:
        with pytest.raises(xent.LabelError, match=r"got [12] outside"):
            lib.call(xent.sparse_cross_entropy, logits, labels, class_weight=weight)
    else:
        loss, gradient = lib.call(sparse, logits, labels, class_weight=weight)

        assert same(np.isnan(loss), [False, True, False, False, True, False, False])
        assert same(np.isnan(gradient).any(-1), np.isnan(loss))


# -------------------- means


@pytest.mark.parametrize("reduction", MEANS, ids=str)
def test_a_reduction_divides_the_weighted_sum_by_its_denominator(lib, logits, reduction):
    keywords = {"sample_weight": WEIGHT, "class_weight": CLASS_WEIGHT, "ignore_index": -100}
    weight = np.where(COUNTED, WEIGHT * CLASS_WEIGHT[SAFE], 0).astype(np.float64)
    below = MEANS[reduction](weight, len(weight))
    loss, gradient = lib.call(sparse, logits, LABELS, reduction=reduction, **keywords)

    assert near(loss, (weight * exact(logits, one_hot(SAFE, 3))).sum() / below, ulps=32)
    assert not gradient_is_off(
        gradient, logits, one_hot(SAFE, 3), share=weight / below, is_sparse=True, flushes=lib.flushes
    )


def test_the_mean_of_soft_targets_is_divided_by_the_weights_and_not_by_the_rows(lib, logits, rng):
    targets = rng.random((7, 3)).astype(np.float32)
    mean = lib.call(xent.cross_entropy, logits, targets, sample_weight=WEIGHT, reduction="mean")
    weight = WEIGHT.astype(np.float64)

    assert near(mean, (weight * exact(logits, targets)).sum() / weight.sum(), ulps=32)


def test_a_binary_mean_is_over_the_elements(lib):
    weight = np.asarray([[1.0, 2.0], [0.0, 5.0]])
    loss, gradient = lib.call(
        xent.value_and_grad(xent.binary_cross_entropy),
        np.zeros((2, 2)),
        np.ones((2, 2)),
        sample_weight=weight,
        reduction="mean",
    )

    assert near(loss, log(2))
    assert near(gradient, weight / -16)


def test_a_mean_of_one_million_rows_keeps_its_digits(lib):
    rows = 100_003 if lib.slow else 1_000_003
    logits = np.zeros((rows, 2), np.float32)
    mean = lib.call(xent.sparse_cross_entropy, logits, np.zeros(rows, np.int64), reduction="mean")

    assert near(mean, log(2))


@pytest.mark.parametrize("value", ["rows", 0, -1, nan, inf, True, None], ids=str)
def test_a_denominator_that_divides_nothing_is_refused(value):
    with pytest.raises(
        ValueError, match='Mean: `denominator` must be "weights", "counted" or "all", or a positive number'
    ):
        xent.Mean(value)


# -------------------- smoothing


@pytest.mark.parametrize("smoothing", [0.0, 1e-3, 0.1, 0.5, 1.0])
def test_smoothed_labels_are_on_times_one_hot_plus_off(lib, logits, smoothing):
    loss, gradient = lib.call(sparse, logits, SAFE, label_smoothing=smoothing)
    targets = smooth(one_hot(SAFE, 3), smoothing)

    assert not loss_is_off(loss, logits, targets, flushes=lib.flushes)
    assert not gradient_is_off(gradient, logits, targets, is_sparse=smoothing == 0, flushes=lib.flushes)


@pytest.mark.parametrize("smoothing", [0.1, 1.0])
def test_soft_targets_are_smoothed_the_same_way(lib, logits, rng, smoothing):
    targets = rng.random((7, 3)).astype(np.float32)
    loss, gradient = lib.call(dense, logits, targets, label_smoothing=smoothing)

    assert not loss_is_off(loss, logits, smooth(targets, smoothing), flushes=lib.flushes)
    assert not gradient_is_off(gradient, logits, smooth(targets, smoothing), flushes=lib.flushes)


@pytest.mark.parametrize("smoothing", [0.1, 1.0])
@pytest.mark.parametrize("function", [sparse, dense], ids=["sparse", "dense"])
def test_a_masked_class_under_a_smoothed_target_costs_infinity(lib, function, smoothing):
    logits = np.asarray([[0.0, 0.0, -inf]], np.float32)
    target = np.asarray([0]) if function is sparse else one_hot([0], 3).astype(np.float32)
    loss, gradient = lib.call(function, logits, target, label_smoothing=smoothing)

    assert same(loss, [inf])
    assert np.all(np.isfinite(gradient))


def test_smoothing_counts_the_classes_of_every_slice(lib, logits):
    told = {"labels": SAFE, "num_classes": 3, "label_smoothing": 0.1}
    left = lib.apply(xent.partial, logits[:, :1], **told)
    right = lib.apply(xent.partial, logits[:, 1:], first_class=1, **told)
    with lib.strictly():
        loss = xent.finish(xent.merge(left, right))

    assert not loss_is_off(lib.numpy(loss), logits, smooth(one_hot(SAFE, 3), 0.1), flushes=lib.flushes)


def test_an_ignored_row_stays_ignored_under_smoothing(lib, logits):
    loss, gradient = lib.call(sparse, logits, LABELS, ignore_index=-100, label_smoothing=0.1)

    assert same(loss[2], 0.0)
    assert same(gradient[2], [0, 0, 0])


def test_every_option_at_once_is_the_formula(lib, logits):
    told = functools.partial(xent.sparse_cross_entropy, label_smoothing=0.1, ignore_index=-100, reduction="mean")
    loss, gradient = lib.call(
        xent.value_and_grad(told), logits, LABELS, sample_weight=WEIGHT, class_weight=CLASS_WEIGHT
    )
    weight = np.where(COUNTED, WEIGHT * CLASS_WEIGHT[SAFE], 0).astype(np.float64)
    targets = smooth(one_hot(SAFE, 3), 0.1)

    assert near(loss, (weight * exact(logits, targets)).sum() / weight.sum(), ulps=32)
    assert not gradient_is_off(gradient, logits, targets, share=weight / weight.sum(), flushes=lib.flushes)
