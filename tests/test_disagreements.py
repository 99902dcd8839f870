"""Where docs/semantics.md says that a peer answers otherwise: its answer as measured, beside ours.

When a peer changes its mind, a test here fails, and it is the table's last column that is to be mended. Fused kernels,
and libraries that need a GPU or that no test installs, are not here. Where the peers agree: test_peers.py.
"""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from expected import near, same
from peers import peer_named

import xent

sparse, dense, binary = xent.sparse_cross_entropy, xent.cross_entropy, xent.binary_cross_entropy
inf, nan = math.inf, math.nan

# Each peer's loss of labels from logits, row by row, and of soft targets.
BY_LABELS = {
    "tensorflow": lambda p, x, y: p.nn.sparse_softmax_cross_entropy_with_logits(y, x),
    "keras": lambda p, x, y: p.ops.sparse_categorical_crossentropy(y, x, from_logits=True),
    "torch": lambda p, x, y: p.F.cross_entropy(x, y, reduction="none"),
    "optax": lambda p, x, y: p.optax.softmax_cross_entropy_with_integer_labels(x, y),
    "sklearn": lambda p, x, y: p.loss.HalfMultinomialLoss(n_classes=x.shape[-1]).loss(y.astype(x.dtype), x),
    "scipy": lambda p, x, y: -p.special.log_softmax(x, axis=-1)[np.arange(len(y)), y],
}
BY_TARGETS = {
    "tensorflow": lambda p, x, t: p.nn.softmax_cross_entropy_with_logits(t, x),
    "keras": lambda p, x, t: p.ops.categorical_crossentropy(t, x, from_logits=True),
    "torch": lambda p, x, t: p.F.cross_entropy(x, t, reduction="none"),
    "optax": lambda p, x, t: p.optax.softmax_cross_entropy(x, t),
}
BINARY = {
    "tensorflow": lambda p, x, t: p.nn.sigmoid_cross_entropy_with_logits(t, x),
    "torch": lambda p, x, t: p.F.binary_cross_entropy_with_logits(x, t, reduction="none"),
    "optax": lambda p, x, t: p.optax.sigmoid_binary_cross_entropy(x, t),
}


def floats(*values, dtype=np.float32):
    return np.asarray(values, dtype)


def answer(calls, name, *arrays):
    """What the peer answers, as a NumPy array."""
    peer = peer_named(name)
    return peer.numpy(calls[name](peer, *(peer.asarray(one) for one in arrays)))


def of_row(*values, dtype=np.float32):
    """One row of logits."""
    return floats(values, dtype=dtype)


LABEL_0 = np.asarray([0])
ONE_HOT_0 = floats([1, 0, 0])


@pytest.fixture(scope="module")
def keras_on_numpy():
    """What Keras answers on its NumPy backend, which a process can choose only once."""
    peer_named("keras")
    script = """
import json, keras, numpy as np
loss = keras.ops.sparse_categorical_crossentropy
row = np.asarray([[0, 1, 2]], np.float32)
answers = {
    "label -1": loss(np.asarray([-1]), row, from_logits=True),
    "masked": loss(np.asarray([2]), np.asarray([[0, -np.inf, 1]], np.float32), from_logits=True),
    "integers": loss(np.asarray([0]), np.asarray([[1, 2]]), from_logits=True),
    "yes at 100": keras.ops.binary_crossentropy(np.zeros(1), np.full(1, 100.0), from_logits=True),
}
print(json.dumps({name: [str(np.asarray(one).dtype), np.asarray(one).tolist()] for name, one in answers.items()}))
"""
    environment = {**os.environ, "KERAS_BACKEND": "numpy", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return {name: np.asarray(value, dtype) for name, (dtype, value) in json.loads(done.stdout.splitlines()[-1]).items()}


# -------------------- numbers


@pytest.mark.parametrize("peer", BY_LABELS)
def test_a_tiny_loss_is_0_to_the_peers_and_keeps_its_digits_here(peer):
    x = of_row(0, -20)

    assert same(answer(BY_LABELS, peer, x, LABEL_0), [0.0])
    assert near(sparse(x, LABEL_0), [2.061153620314381e-09])


def test_a_tiny_loss_is_minus_0_to_torch_and_never_here():
    assert np.signbit(answer(BY_LABELS, "torch", of_row(0, -200), LABEL_0))
    assert not np.signbit(sparse(of_row(0, -200), LABEL_0))


def test_optax_loses_28_percent_of_a_loss_to_an_offset_of_1e6():
    x = of_row(1e6, 1e6 - 3)
    exact = math.log1p(math.exp(-3))

    assert same(answer(BY_LABELS, "optax", x, LABEL_0), [0.0625])
    assert 0.28 < 0.0625 / exact - 1 < 0.29
    assert near(sparse(x, LABEL_0), [exact])


@pytest.mark.parametrize("peer", BY_TARGETS)
def test_minus_infinity_under_a_target_of_0_is_nan_to_the_peers_and_costs_nothing_here(peer):
    x = of_row(0, -inf, 1)

    assert same(answer(BY_TARGETS, peer, x, ONE_HOT_0), [nan])
    assert near(dense(x, ONE_HOT_0), [math.log1p(math.e)])


def test_minus_infinity_beside_a_label_is_nan_to_keras_on_numpy_and_costs_nothing_here(keras_on_numpy):
    assert same(keras_on_numpy["masked"], [nan])
    assert near(sparse(of_row(0, -inf, 1), np.asarray([2])), [math.log1p(math.exp(-1))])


@pytest.mark.parametrize("peer", ["tensorflow", "keras", "torch"])
@pytest.mark.parametrize(("label", "ours"), [(0, 0.0), (1, inf)], ids=["at the label", "beside the label"])
def test_one_logit_of_plus_infinity_is_nan_to_the_peers_and_the_limit_here(peer, label, ours):
    x, y = of_row(inf, 0, 1), np.asarray([label])

    assert same(answer(BY_LABELS, peer, x, y), [nan])
    assert same(sparse(x, y), [ours])


def test_tensorflow_takes_the_sum_of_the_targets_for_1_in_the_gradient():
    peer = peer_named("tensorflow")
    x, t = of_row(0, 1, 2), floats([1, 1, 0])
    theirs = peer.gradient(lambda at: BY_TARGETS["tensorflow"](peer, at, t), peer.asarray(x)).numpy()
    p = np.exp([[0.0, 1.0, 2.0]]) / np.exp([0, 1, 2]).sum()

    assert np.allclose(theirs, p - t, rtol=0, atol=1e-6)
    assert np.allclose(xent.value_and_grad(dense)(x, t)[1], 2 * p - t, rtol=0, atol=1e-6)


def test_a_dense_one_hot_costs_torch_more_than_the_label_under_class_weights_and_the_same_here():
    p = peer_named("torch")
    x, y, c = floats([0, 1, 2], [2, 0, 1]), np.asarray([0, 1]), floats(1, 2, 3)
    t = np.eye(3, dtype=np.float32)[y]
    by_label = p.F.cross_entropy(p.asarray(x), p.asarray(y), p.asarray(c))
    by_target = p.F.cross_entropy(p.asarray(x), p.asarray(t), p.asarray(c))
    ours = [sparse(x, y, class_weight=c, reduction="mean"), dense(x, t, class_weight=c, reduction="mean")]

    assert near(p.numpy(by_target / by_label), 1.5, ulps=8)  # Σ w = 3, N = 2
    assert near(ours, [p.numpy(by_label)] * 2)


@pytest.mark.parametrize("peer", ["torch", "optax", "scipy"])
def test_a_hundred_thousand_classes_in_float16_are_infinite_to_the_peers_and_log_c_here(peer):
    x = np.zeros((1, 100_000), np.float16)
    with np.errstate(over="ignore"):
        theirs = answer(BY_LABELS, peer, x, LABEL_0)
    ours = sparse(x, LABEL_0)

    assert same(theirs, [inf])
    assert ours.dtype == np.float32
    assert near(ours, [math.log(100_000)])


def test_keras_returns_float32_for_float64_and_we_float64():
    p = peer_named("keras")
    x, t = of_row(1, 2, dtype=np.float64), floats([1, 0], dtype=np.float64)

    assert p.numpy(p.losses.CategoricalCrossentropy(from_logits=True)(t, x)).dtype == np.float32
    assert dense(x, t, reduction="mean").dtype == np.float64


def test_a_probability_of_0_costs_16_118_to_keras_and_infinity_here():
    p = peer_named("keras")
    x = of_row(0, 0.5, 0.5)
    theirs = p.numpy(p.ops.categorical_crossentropy(p.asarray(ONE_HOT_0), p.asarray(x)))

    assert np.abs(theirs - -math.log(1e-7)) < 1e-5
    assert same(sparse(x, LABEL_0, kind="probabilities"), [inf])


@pytest.mark.parametrize(("dtype", "cost"), [("float64", 36.04), ("float32", 15.94), ("float16", 6.93)])
def test_a_probability_of_0_costs_scikit_learn_what_the_dtype_says_and_infinity_here(dtype, cost):
    p = peer_named("sklearn")
    x = of_row(0, 0.5, 0.5, dtype=dtype)
    theirs = p.metrics.log_loss(LABEL_0, x, labels=[0, 1, 2])

    assert round(theirs, 2) == cost
    assert same(sparse(x, LABEL_0, kind="probabilities"), [inf])


@pytest.mark.parametrize("peer", BINARY)
def test_infinite_logits_of_yes_or_no_are_nan_to_the_peers_and_the_limit_here(peer):
    x, z = floats(inf, -inf), floats(1, 0)

    assert same(answer(BINARY, peer, x, z), [nan, nan])
    assert same(binary(x, z), [0, 0])
    assert same(binary(x, 1 - z), [inf, inf])


def test_a_certain_no_that_is_wrong_costs_keras_on_numpy_16_and_us_what_it_should(keras_on_numpy):
    assert near(np.floor(keras_on_numpy["yes at 100"]), [15.0])
    assert near(binary(floats(100), floats(0)), [100.0])


def test_no_classes_cost_optax_minus_infinity_and_are_an_error_here():
    x = np.zeros((2, 0), np.float32)

    assert same(answer(BY_LABELS, "optax", x, np.asarray([0, 0])), [-inf, -inf])
    with pytest.raises(ValueError, match="class"):
        sparse(x, np.asarray([0, 0]))


def test_the_mean_of_no_rows_is_an_empty_array_to_keras_and_nan_here():
    p = peer_named("keras")
    x, y = np.zeros((0, 3), np.float32), np.zeros(0, np.int64)

    assert p.numpy(p.losses.SparseCategoricalCrossentropy(from_logits=True)(y, x)).shape == (0,)
    assert same(sparse(x, y, reduction="mean"), nan)


# -------------------- targets, weights, reductions


def test_a_label_of_minus_1_wraps_around_in_optax_and_is_an_error_here():
    x, y = of_row(0, 1, 2), np.asarray([-1])

    assert same(answer(BY_LABELS, "optax", x, y), answer(BY_LABELS, "optax", x, np.asarray([2])))
    with pytest.raises(xent.LabelError):
        sparse(x, y)


def test_a_label_of_minus_1_costs_keras_on_numpy_minus_0_and_is_an_error_here(keras_on_numpy):
    assert same(keras_on_numpy["label -1"], [0.0])
    assert np.signbit(keras_on_numpy["label -1"])
    with pytest.raises(xent.LabelError):
        sparse(of_row(0, 1, 2), np.asarray([-1]))


def test_a_label_past_the_last_has_a_finite_gradient_in_optax_and_is_an_error_here():
    p = peer_named("optax")
    x, y = of_row(0, 1, 2), np.asarray([3])
    theirs = p.numpy(p.gradient(lambda at: BY_LABELS["optax"](p, at, p.asarray(y)), p.asarray(x)))

    assert same(answer(BY_LABELS, "optax", x, y), [nan])
    assert np.allclose(theirs, xent.softmax(x), rtol=0, atol=1e-6)
    with pytest.raises(xent.LabelError):
        xent.value_and_grad(sparse)(x, y)


def test_labels_of_floats_lose_their_parity_in_keras_and_are_an_error_here():
    p = peer_named("keras")
    x = 16 * np.eye(2050, dtype=np.float16)[2049:]
    theirs = p.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float16", reduction=None)
    exact = math.log1p(2049 * math.exp(-16))

    assert same(p.numpy(theirs(np.asarray([2049]), x)), [16.0])  # float16 has no 2049: this is the loss of 2048
    assert near(sparse(x, np.asarray([2049])), [exact])
    with pytest.raises(TypeError, match="labels"):
        sparse(x, np.asarray([2049.0]))


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint8", "uint16", "uint32", "uint64"])
def test_tensorflow_refuses_most_dtypes_of_labels_and_we_none(dtype):
    p = peer_named("tensorflow")
    x, y = of_row(0, 0, 0), np.asarray([2], dtype)

    with pytest.raises(p.tf.errors.InvalidArgumentError, match="not in the list of allowed values"):
        answer(BY_LABELS, "tensorflow", x, y)
    assert near(sparse(x, y), [math.log(3)])


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint16", "uint32", "uint64"])
def test_torch_refuses_most_dtypes_of_labels_and_we_none(dtype):
    x, y = of_row(0, 0, 0), np.asarray([2], dtype)

    with pytest.raises(RuntimeError, match="expected target dtype to be Long or Byte"):
        answer(BY_LABELS, "torch", x, y)
    assert near(sparse(x, y), [math.log(3)])


@pytest.mark.parametrize("peer", ["torch", "optax"])
def test_a_byte_of_156_equals_minus_100_to_the_peers_and_is_a_label_here(peer):
    p = peer_named(peer)
    y = np.asarray([156], np.uint8)

    assert p.numpy(p.asarray(y) == -100).all()
    assert near(sparse(np.zeros((1, 200), np.float32), y, ignore_index=-100), [math.log(200)])


def test_a_column_of_labels_is_squeezed_by_keras_and_an_error_here():
    x, y = np.zeros((2, 3), np.float32), np.asarray([[0], [1]])

    assert answer(BY_LABELS, "keras", x, y).shape == (2,)
    with pytest.raises(ValueError, match=r"labels\[:, 0\]"):
        sparse(x, y)


def test_an_ignored_row_of_nan_has_a_gradient_of_nan_in_torch_and_of_0_here():
    p = peer_named("torch")
    x, y = floats([nan, 0], [0, 1]), np.asarray([-100, 1])
    theirs = p.numpy(p.gradient(lambda at: p.F.cross_entropy(at, p.asarray(y)), p.asarray(x)))
    ours = xent.value_and_grad(sparse)(x, y, ignore_index=-100, reduction="mean")[1]

    assert same(theirs[0], [nan, nan])
    assert same(ours[0], [0, 0])
    assert np.allclose(ours[1], theirs[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("peer", ["keras", "sklearn"])
def test_a_row_of_nan_with_weight_0_is_nan_to_the_peers_and_ignored_here(peer):
    p = peer_named(peer)
    x, y, w = floats([nan, 0], [0, 0]), np.asarray([0, 1]), floats(0, 1)
    theirs = {
        "keras": lambda: p.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)(y, x, w),
        "sklearn": lambda: p.loss.HalfMultinomialLoss(n_classes=2).loss(y.astype(x.dtype), x, w),
    }

    assert same(np.isnan(p.numpy(theirs[peer]())), [True, False])
    assert near(sparse(x, y, sample_weight=w), [0, math.log(2)])


def test_a_weighted_mean_is_divided_by_the_rows_in_keras_and_by_the_weights_here():
    p = peer_named("keras")
    x, y, w = np.zeros((2, 4), np.float32), np.asarray([0, 1]), floats(1, 3)
    theirs = p.losses.SparseCategoricalCrossentropy(from_logits=True)(y, x, w)

    assert near(p.numpy(theirs), 2 * math.log(4))
    assert near(sparse(x, y, sample_weight=w, reduction="mean"), math.log(4))


def test_a_mean_by_class_weight_is_divided_by_the_rows_in_torch_where_targets_are_dense_and_by_the_weights_here():
    p = peer_named("torch")
    x, t, c = np.zeros((2, 4), np.float32), np.eye(4, dtype=np.float32)[:2], floats(1, 3, 1, 1)
    theirs = p.F.cross_entropy(p.asarray(x), p.asarray(t), p.asarray(c))

    assert near(p.numpy(theirs), 2 * math.log(4))
    assert near(dense(x, t, class_weight=c, reduction="mean"), math.log(4))


def test_a_mean_over_ignored_rows_alone_is_0_to_keras_and_nan_here():
    p = peer_named("keras")
    x, y = np.zeros((2, 3), np.float32), np.asarray([0, 0])
    theirs = p.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)(y, x)

    assert same(p.numpy(theirs), 0)
    assert same(sparse(x, y, ignore_index=0, reduction="mean"), nan)


def test_class_weights_go_into_the_smoothed_sum_in_torch_and_onto_the_whole_loss_here():
    p = peer_named("torch")
    x, y, c = of_row(0, 1, 2), LABEL_0, floats(1, 2, 3)
    minus_log_p = np.log(np.exp([0, 1, 2]).sum()) - np.asarray([0, 1, 2])
    t = np.asarray([0.8, 0.1, 0.1])
    theirs = p.F.cross_entropy(p.asarray(x), p.asarray(y), p.asarray(c), label_smoothing=0.3, reduction="none")

    assert near(p.numpy(theirs), [(c * t * minus_log_p).sum()], ulps=8)
    assert near(sparse(x, y, class_weight=c, label_smoothing=0.3), [c[0] * (t * minus_log_p).sum()], ulps=8)


def test_a_negative_smoothing_is_no_smoothing_to_torch_and_an_error_here():
    p = peer_named("torch")
    x, y = of_row(0, 1, 2), LABEL_0
    theirs = p.F.cross_entropy(p.asarray(x), p.asarray(y), label_smoothing=-0.5, reduction="none")

    assert same(p.numpy(theirs), answer(BY_LABELS, "torch", x, y))
    with pytest.raises(ValueError, match="label_smoothing"):
        sparse(x, y, label_smoothing=-0.5)


def test_integer_predictions_become_float64_or_fail_in_keras_by_its_backend_and_are_an_error_here(keras_on_numpy):
    p = peer_named("keras")
    x = np.asarray([[1, 2]])

    assert keras_on_numpy["integers"].dtype == np.float64
    with pytest.raises(p.tf.errors.InvalidArgumentError, match="not in the list of allowed values"):
        answer(BY_TARGETS, "keras", x, np.asarray([[1, 0]]))
    with pytest.raises(TypeError, match="predictions"):
        sparse(x, LABEL_0)
