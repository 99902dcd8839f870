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


def arrays_of(result):
    """The arrays of a result: one, or loss and backprop."""
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.variants(but=("jax",))  # as jax-jit, and slower
@pytest.mark.parametrize("name", CALLS)
def test_every_library_gives_numpys_answer_and_dask_computes_nothing_before_it_is_asked(lib, name):
    call, targets = CALLS[name]
    expected, result = call(X, targets), lib.call(call, X, targets)

    for array, other in zip(result, expected, strict=True):
        assert np.asarray(array).dtype == other.dtype and near(array, other, ulps=8)


@pytest.mark.variants("dask", "dask-split")
@pytest.mark.parametrize("name", CALLS)
def test_what_is_lazy_stays_lazy(lib, name):
    call, targets = CALLS[name]
    result = lib.apply(call, X, targets)

    assert all(isinstance(array, lib.array_type) for array in arrays_of(result))


@pytest.mark.variants("dask")
def test_numpys_labels_go_with_dasks_logits_and_unknown_rows_stay_unknown(lib):
    x = lib.asarray(X)
    unknown = x[x[:, 3] > -1]

    assert same(lib.to_numpy(tf.softmax_cross_entropy_with_logits(T, x)), tf.softmax_cross_entropy_with_logits(T, X))
    loss = tf.softmax_cross_entropy_with_logits(lib.asarray(T)[x[:, 3] > -1], unknown)
    assert same(lib.to_numpy(loss), tf.softmax_cross_entropy_with_logits(T, X))


UNKNOWN = {
    **{name: case for name, case in CALLS.items() if name not in ("softmax, version 1", "one-hot")},
    "weighted by row": (lambda x, z: tf.weighted_cross_entropy_with_logits(z, x, z[:, 1:2] + 1), Z),
    "raw, one row of labels": (lambda x, t: tf.raw_ops.SoftmaxCrossEntropyWithLogits(features=x, labels=t), T[:1]),
}


@pytest.mark.variants("dask")
@pytest.mark.parametrize("name", UNKNOWN)
def test_a_number_of_rows_that_is_not_known_is_no_error(lib, name):
    call, targets = UNKNOWN[name]
    x, kept = lib.asarray(X), X[:, 3] < 2.5
    rows = "one row" not in name
    expected = call(X[kept], targets[kept] if rows else targets)
    result = call(x[x[:, 3] < 2.5], lib.asarray(targets)[x[:, 3] < 2.5] if rows else targets)

    for array, other in zip(arrays_of(result), arrays_of(expected), strict=True):
        assert near(lib.to_numpy(array), other, ulps=8)


@pytest.mark.variants("dask")
def test_numpys_logits_beside_dasks_labels_are_refused_as_in_xents_own(lib):
    for call in (tf.sparse_softmax_cross_entropy_with_logits, lambda y, x: xent.sparse_cross_entropy(x, y)):
        with pytest.raises(TypeError, match="Nothing is moved between libraries"):
            call(lib.asarray(Y), X)


@pytest.mark.variants("torch", "jax", "dask")
@pytest.mark.parametrize("name", CALLS)
def test_numpys_targets_go_with_every_librarys_logits(lib, name):
    call, targets = CALLS[name]
    if name == "one-hot":
        return
    targets = targets[::-1]  # which torch does not take as it is
    targets.flags.writeable = False
    result, expected = call(lib.asarray(X), targets), call(X, targets)

    for array, other in zip(arrays_of(result), arrays_of(expected), strict=True):
        assert isinstance(array, lib.array_type) and near(lib.to_numpy(array), other, ulps=8)


@pytest.mark.variants("torch", "jax")
def test_a_weight_may_be_a_number_of_numpy(lib):
    for weight in (np.float32(3), np.float64(3), np.float32([1, 2, 3, 4]), True):
        result = tf.weighted_cross_entropy_with_logits(Z, lib.asarray(X), weight)

        assert near(lib.to_numpy(result), tf.weighted_cross_entropy_with_logits(Z, X, weight), ulps=8)


@pytest.mark.variants("torch", "jax")
@pytest.mark.parametrize("label", [2**32 + 1, -(2**32) + 1])
def test_a_label_that_jax_would_cut_to_another_is_out_of_range(lib, label):
    for targets in (np.asarray([0, label, 0, 0]), [0, label, 0, 0]):
        with pytest.raises(xent.LabelError):
            tf.sparse_softmax_cross_entropy_with_logits(targets, lib.asarray(X))


def test_float64_stays_where_it_is_not_pythons_own():
    pandas, xarray = pytest.importorskip("pandas"), pytest.importorskip("xarray")
    x = np.float64(X)
    for array in (x, [*x], [list(row) for row in x], pandas.DataFrame(x), xarray.DataArray(x)):
        loss = tf.softmax_cross_entropy_with_logits(T, array)
        assert loss.dtype == np.float64 and same(loss, tf.softmax_cross_entropy_with_logits(T, x))

    assert tf.softmax_cross_entropy_with_logits(T, x.tolist()).dtype == np.float32


@pytest.mark.variants("dask")
def test_dasks_array_inside_xarrays_stays_lazy(lib):
    xarray = pytest.importorskip("xarray")
    arrays = (xarray.DataArray(lib.asarray(array)) for array in (T, X))
    loss = tf.softmax_cross_entropy_with_logits(*arrays)

    assert isinstance(loss, lib.array_type)
    assert same(lib.to_numpy(loss), tf.softmax_cross_entropy_with_logits(T, X))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch makes an instance of its own Function
@pytest.mark.parametrize("name", CALLS)
def test_torch_compiles_it_as_one_graph(name):
    torch = pytest.importorskip("torch")
    call, targets = CALLS[name]
    x, targets = torch.from_numpy(X.copy()), torch.from_numpy(targets.copy())
    result = torch.compile(call, backend="eager", fullgraph=True)(x, targets)

    expected = call(x, targets)
    for array, other in zip(arrays_of(result), arrays_of(expected), strict=True):
        assert near(array.numpy(), other.numpy(), ulps=8)


def test_logits_may_be_read_only_and_stay_as_they_are():
    x = X.copy()
    x.flags.writeable = False

    for call, targets in CALLS.values():
        call(x, targets)

    assert same(x, X)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_losses_and_backprop_have_the_dtype_of_the_logits(dtype):
    for name, (call, targets) in CALLS.items():
        if name != "one-hot":
            result = call(X.astype(dtype), targets)
            assert {array.dtype for array in arrays_of(result)} == {np.dtype(dtype)}


def test_a_loss_that_its_dtype_cannot_hold_is_infinite_and_no_warning():
    assert tf.sigmoid_cross_entropy_with_logits(np.float16([3.0]), np.float16([-60000.0])) == np.inf


@pytest.mark.variants("numpy", "array-api-strict", "torch", "jax", "dask")
@pytest.mark.parametrize(
    ("labels", "logits", "axis"),
    [
        (T[:2], X, -1),
        (T[:, :2], X, -1),
        (T, X[:1], -1),
        (np.asarray(T[0, 0]), X, -1),
        (T[0], np.asarray(X[0, 0]), -1),
        (T[0], X, 0),
        (T[:0], X, 1),
    ],
    ids=["rows", "classes", "rows of logits", "a number", "logits of no axis", "other axes", "none"],
)
def test_targets_that_do_not_broadcast_are_a_value_error(lib, labels, logits, axis):
    words = r"`labels` must broadcast to the rows and the classes of the logits, \(.*\), got \(.*\)\. Give them"
    with pytest.raises(ValueError, match=words):
        lib.apply(lambda x, t: tf.softmax_cross_entropy_with_logits(t, x, axis=axis), logits, labels)


@pytest.mark.variants("numpy", "torch", "jax")
@pytest.mark.parametrize(
    ("labels", "logits", "axis"),
    [((0, 4), (0, 4), -1), ((1, 4), (0, 4), -1), ((4,), (2, 0, 4), -1), ((1, 0), (4, 0), 0)],
)
def test_no_rows_have_no_losses(lib, labels, logits, axis):
    result = lib.call(
        lambda x, t: tf.softmax_cross_entropy_with_logits(t, x, axis=axis),
        np.zeros(logits, np.float32),
        np.zeros(labels, np.float32),
    )

    assert result.shape == tuple(np.delete(logits, axis))


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
    with pytest.raises(TypeError, match=r"`depth` must be an int, got 2\.0\. Pass int\(depth\)"):
        tf.one_hot([1], 2.0)
    for value in ([1, 2], np.ones(2)):
        with pytest.raises(ValueError, match="`on_value` and `off_value` must be numbers"):
            tf.one_hot([1], 2, value)
    with pytest.raises(TypeError, match="the values must fit the dtype, got a float for int32"):
        tf.one_hot([0, 2], 3, on_value=2.5, dtype="int32")
    with pytest.raises(ValueError, match=r"`labels` must have the shape of the logits, \(4, 4\), got \(1, 4\)"):
        tf.weighted_cross_entropy_with_logits(Z[:1], X, Z + 1)
    with pytest.raises(ValueError, match=r"`features` must have shape \(N, C\), got \(4,\)"):
        tf.raw_ops.SoftmaxCrossEntropyWithLogits(features=X[0], labels=T[0])
    with pytest.raises(ValueError, match=r"`features` must have shape \(N, C\), got \(1, 4, 4\)"):
        tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=X[None], labels=Y[None])
    with pytest.raises(ValueError, match="`labels` and `logits` must be given"):
        tf.sigmoid_cross_entropy_with_logits(logits=X)
    with pytest.raises(TypeError, match="arrays must be of one library"):
        tf.softmax_cross_entropy_with_logits(np.ma.masked_array(T), strict.asarray(X))
