"""xent.compat.tensorflow without TensorFlow: every array library gives one answer, lazily where it is lazy.

That the answers are TensorFlow's: compat_tests/test_tensorflow.py.
"""

import numpy as np
import pytest
from expected import near, same

import xent
from xent.compat import tensorflow as tf

X = np.float32([[0.3, -1.2, 2.0, 0.1], [1.0, 0.0, -np.inf, 3.0], [np.inf, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
T = np.float32([[0.1, 0.2, 0.3, 0.4], [0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
Y = np.asarray([2, 1, 0, 3])
Z = np.float32([[0.0, 1.0, 0.5, 1.0], [1.0, 0.0, 0.0, 1.0], [1.0, 0.5, 0.0, 0.0], [0.0, 1.0, 0.2, 0.0]])

CALLS = {
    "softmax": (lambda x, t: tf.softmax_cross_entropy_with_logits(t, x), T),
    "softmax, one row of labels": (lambda x, t: tf.softmax_cross_entropy_with_logits(t, x), T[0]),
    "softmax, version 1": (lambda x, t: tf.softmax_cross_entropy_with_logits_v1(labels=t, logits=x, dim=0), T),
    "sparse": (lambda x, y: tf.sparse_softmax_cross_entropy_with_logits(y, x), Y),
    "sigmoid": (lambda x, z: tf.sigmoid_cross_entropy_with_logits(z, x), Z),
    "weighted": (lambda x, z: tf.weighted_cross_entropy_with_logits(z, x, 3.0), Z),
    "weighted by element": (lambda x, z: tf.weighted_cross_entropy_with_logits(z, x, z + 1), Z),
    "raw": (lambda x, t: tf.raw_ops.SoftmaxCrossEntropyWithLogits(features=x, labels=t), T),
    "raw, sparse": (lambda x, y: tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=x, labels=y), Y),
    "one-hot": (lambda x, y: tf.one_hot(y, 3, on_value=2, axis=0), Y),
}


@pytest.mark.variants(but=("jax",))  # as jax-jit, and slower
@pytest.mark.parametrize("name", CALLS)
def test_every_library_gives_numpys_answer_and_dask_computes_nothing_before_it_is_asked(lib, name):
    call, told = CALLS[name]
    expected, found = call(X, told), lib.call(call, X, told)

    for one, other in zip(found, expected, strict=True):
        assert np.asarray(one).dtype == other.dtype and near(one, other, ulps=8)


@pytest.mark.variants("dask", "dask-split")
@pytest.mark.parametrize("name", CALLS)
def test_what_is_lazy_stays_lazy(lib, name):
    call, told = CALLS[name]
    found = lib.apply(call, X, told)

    assert all(isinstance(one, lib.array_type) for one in (found if isinstance(found, tuple) else (found,)))


@pytest.mark.variants("dask")
def test_numpys_labels_go_with_dasks_logits_and_unknown_rows_stay_unknown(lib):
    x = lib.asarray(X)
    unknown = x[x[:, 3] > -1]

    assert same(lib.to_numpy(tf.softmax_cross_entropy_with_logits(T, x)), tf.softmax_cross_entropy_with_logits(T, X))
    loss = tf.softmax_cross_entropy_with_logits(lib.asarray(T)[x[:, 3] > -1], unknown)
    assert same(lib.to_numpy(loss), tf.softmax_cross_entropy_with_logits(T, X))


def test_logits_may_be_read_only_and_stay_as_they_are():
    x = X.copy()
    x.flags.writeable = False

    for call, told in CALLS.values():
        call(x, told)

    assert same(x, X)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_losses_and_backprop_have_the_dtype_of_the_logits(dtype):
    for name, (call, told) in CALLS.items():
        if name != "one-hot":
            found = call(X.astype(dtype), told)
            assert {one.dtype for one in (found if isinstance(found, tuple) else [found])} == {np.dtype(dtype)}


def test_a_loss_that_its_dtype_cannot_hold_is_infinite_and_no_warning():
    assert tf.sigmoid_cross_entropy_with_logits(np.float16([3.0]), np.float16([-60000.0])) == np.inf


def test_bad_input_gives_an_error_that_says_what_to_pass():
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(xent.LabelError, match=r"`labels` must lie in \[0, 4\), got 1 outside"):
        tf.sparse_softmax_cross_entropy_with_logits([0, 1, 2, 4], X)
    with pytest.raises(TypeError, match=r"`predictions` must be real floating, got int64\[2, 2\]"):
        tf.softmax_cross_entropy_with_logits(np.eye(2), np.eye(2, dtype=int))
    with pytest.raises(ValueError, match=r"`axis` must be given with dim=None, got dim=-1\. Pass dim=1"):
        tf.softmax_cross_entropy_with_logits_v1(labels=T, logits=X, axis=1)
    with pytest.raises(ValueError, match="`labels` and `logits` must be given"):
        tf.softmax_cross_entropy_with_logits_v1(labels=T)
    with pytest.raises(TypeError, match=r"arrays must be of one library, got .*\. Nothing is moved"):
        tf.weighted_cross_entropy_with_logits(strict.asarray(Z), X, 3.0)
    with pytest.raises(TypeError, match="`off_value` must have the dtype of `on_value`, got float32 and int32"):
        tf.one_hot([1], 2, 1.0, 0)
