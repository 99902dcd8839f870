"""docs/semantics.md, "Derivatives": by value_and_grad, without a library's autodiff, which is tested by library."""

import math

import numpy as np
import pytest
from expected import gradient_is_off, near, one_hot, same

import xent

inf, nan = math.inf, math.nan
sparse = xent.value_and_grad(xent.sparse_cross_entropy)
dense = xent.value_and_grad(xent.cross_entropy)
binary = xent.value_and_grad(xent.binary_cross_entropy)

LABELS = np.asarray([0, 2, 1, 1, 2])
WEIGHT = np.asarray([1.0, 0.5, 2.0, 0.0, 3.0])
SHARES = {
    "none": 1.0,
    "sum": 1.0,
    "mean": 1 / 6.5,
    xent.Mean("counted"): 1 / 4,
    xent.Mean("all"): 1 / 5,
    xent.Mean(8): 1 / 8,
}


@pytest.fixture
def p(rng):
    return rng.random((5, 3)) + 0.1


@pytest.mark.parametrize("reduction", SHARES, ids=str)
def test_of_logits_it_is_p_minus_the_target_times_the_weight_and_the_share(lib, p, reduction):
    logits = np.log(p).astype(np.float32)
    _, gradient = lib.call(sparse, logits, LABELS, sample_weight=WEIGHT.astype(np.float32), reduction=reduction)
    share = WEIGHT * SHARES[reduction]

    assert not gradient_is_off(gradient, logits, one_hot(LABELS, 3), share=share, is_sparse=True, flushes=lib.flushes)


def test_of_logits_it_is_the_sum_of_the_targets_times_p_minus_them(lib):
    _, gradient = lib.call(dense, np.zeros((1, 4)), np.asarray([[2.0, 1.0, 0.0, 1.0]]))

    assert same(gradient, [[-1.0, 0.0, 1.0, 0.0]])


@pytest.mark.parametrize("reduction", SHARES, ids=str)
@pytest.mark.parametrize("is_dense", [False, True], ids=["sparse", "dense"])
def test_of_probabilities_it_is_minus_the_target_over_p_times_the_weight_and_the_share(lib, p, reduction, is_dense):
    function, target = (dense, one_hot(LABELS, 3)) if is_dense else (sparse, LABELS)
    _, gradient = lib.call(function, p, target, kind="probabilities", sample_weight=WEIGHT, reduction=reduction)
    share = (WEIGHT * SHARES[reduction])[:, None]

    assert near(gradient, -one_hot(LABELS, 3) / p * share)


@pytest.mark.parametrize("reduction", SHARES, ids=str)
@pytest.mark.parametrize("is_dense", [False, True], ids=["sparse", "dense"])
def test_of_log_probabilities_it_is_minus_the_target_times_the_weight_and_the_share(lib, p, reduction, is_dense):
    function, target = (dense, one_hot(LABELS, 3)) if is_dense else (sparse, LABELS)
    told = {"kind": "log_probabilities", "sample_weight": WEIGHT, "reduction": reduction}
    _, gradient = lib.call(function, np.log(p), target, **told)

    assert near(gradient, -one_hot(LABELS, 3) * (WEIGHT * SHARES[reduction])[:, None])


@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
def test_smoothing_of_probabilities_goes_into_the_target(lib, p, kind):
    predictions = p if kind == "probabilities" else np.log(p)
    _, gradient = lib.call(sparse, predictions, LABELS, kind=kind, label_smoothing=0.3)
    targets = 0.7 * one_hot(LABELS, 3) + 0.1

    assert near(gradient, -targets / (p if kind == "probabilities" else 1))


def test_a_probability_of_zero_has_slope_minus_infinity_under_a_target_and_zero_elsewhere(lib):
    _, gradient = lib.call(dense, np.asarray([[0.0, 0.0, 1.0]]), np.asarray([[1.0, 0.0, 0.0]]), kind="probabilities")

    assert same(gradient, [[-inf, 0, 0]])


def test_of_binary_logits_it_is_the_sigmoid_minus_the_target(lib, rng):
    x, y = rng.standard_normal(11) * 3, rng.random(11)
    _, gradient = lib.call(binary, x, y)
    sigmoid = 1 / (1 + np.exp(-x))

    assert np.all(np.abs(gradient - (sigmoid - y)) <= 8 * np.finfo(np.float64).eps)


def test_of_binary_logits_the_positive_weight_multiplies_the_yes(lib, rng):
    x, y = rng.standard_normal(11) * 3, rng.random(11)
    _, gradient = lib.call(binary, x, y, pos_weight=2.0)
    sigmoid = 1 / (1 + np.exp(-x))

    assert np.all(np.abs(gradient - ((1 - y) * sigmoid - 2 * y * (1 - sigmoid))) <= 16 * np.finfo(np.float64).eps)


@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
def test_of_binary_probabilities_it_is_that_of_the_logarithms(lib, rng, kind):
    p, y = rng.random(11) * 0.8 + 0.1, rng.random(11)
    _, gradient = lib.call(binary, p if kind == "probabilities" else np.log(p), y, kind=kind)
    slope = -y / p + (1 - y) / (1 - p)

    assert np.all(np.abs(gradient - slope * (1 if kind == "probabilities" else p)) <= 1e-13 * (1 + np.abs(slope)))


@pytest.mark.parametrize("target", [1.0, 0.0])
def test_a_confident_binary_logit_keeps_the_digits_of_its_slope(lib, target):
    x = np.asarray([30.0 if target else -30.0], np.float32)
    _, gradient = lib.call(binary, x, np.asarray([target], np.float32))
    expected = math.exp(-30) / (1 + math.exp(-30))

    assert near(gradient, [-expected if target else expected])


def test_a_confident_logit_keeps_the_digits_of_its_slope(lib):
    _, gradient = lib.call(sparse, np.asarray([[30.0, 0.0]], np.float32), np.asarray([0]))
    expected = math.exp(-30) / (1 + math.exp(-30))

    assert near(gradient, [[-expected, expected]], ulps=8)


@pytest.mark.parametrize(("label", "expected"), [(0, [-1, 1, 0]), (1, [0, 0, 0]), (2, [0, 1, -1])])
def test_at_one_infinite_logit_p_is_its_one_hot(lib, label, expected):
    _, gradient = lib.call(sparse, np.asarray([[0.0, inf, -inf]], np.float32), np.asarray([label]))

    assert same(gradient, [expected])


def test_equal_maxima_share_the_gradient_as_their_probabilities_do(lib):
    _, gradient = lib.call(sparse, np.asarray([[1.0, 1.0, 1.0, 1.0]]), np.asarray([2]))

    assert same(gradient, [[0.25, 0.25, -0.75, 0.25]])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("function", [sparse, dense], ids=["sparse", "dense"])
def test_a_gradient_along_any_axis_is_that_of_the_rows(lib, rng, function, axis):
    logits = (rng.standard_normal((4, 5, 3)) * 2).astype(np.float32)
    last = np.moveaxis(logits, axis, -1)
    labels = rng.integers(0, last.shape[-1], last.shape[:-1])
    targets = one_hot(labels, last.shape[-1])
    told = labels if function is sparse else np.moveaxis(targets, -1, axis).astype(np.float32)
    _, gradient = lib.call(function, logits, told, axis=axis)
    rows = (one.reshape(-1, last.shape[-1]) for one in (np.moveaxis(gradient, axis, -1), last, targets))

    assert gradient.shape == logits.shape
    assert not gradient_is_off(*rows, flushes=lib.flushes)


def test_an_ignored_row_is_masked_at_its_input(lib):
    logits = np.asarray([[nan, inf], [0.0, 0.0]], np.float32)
    _, gradient = lib.call(sparse, logits, np.asarray([-1, 0]), ignore_index=-1, reduction="mean")

    assert same(gradient, [[0, 0], [-0.5, 0.5]])
