"""What only NumPy's arrays can be: of the other byte order, subject to the caller's floating-point settings."""

import numpy as np
import pytest

import xent

X, Y = np.asarray([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]), np.asarray([0, 1])
CALLS = {
    "sparse": lambda x: xent.sparse_cross_entropy(x, Y),
    "generic": lambda x: xent.using(kernel="generic")(xent.sparse_cross_entropy)(x, Y),
    "weighted": lambda x: xent.sparse_cross_entropy(x, Y, sample_weight=np.asarray([0.1, 0.3])),
    "dense": lambda x: xent.cross_entropy(x, np.full((2, 3), 0.1)),
    "probabilities": lambda x: xent.sparse_cross_entropy(x / 6, Y, kind="probabilities"),
    "binary": lambda x: xent.binary_cross_entropy(x, np.full((2, 3), 0.1)),
    "softmax": xent.softmax,
    "log_softmax": xent.log_softmax,
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", [">f8", "<f8", ">f4", "<f4", ">f2", "<f2"])
def test_the_byte_order_of_the_predictions_changes_nothing(name, dtype):
    found = CALLS[name](X.astype(dtype))
    native = CALLS[name](X.astype(np.dtype(dtype).newbyteorder("=")))

    assert found.dtype == native.dtype and (found == native).all()


@pytest.mark.parametrize("largest", [2e19, 3e38])
def test_large_finite_logits_warn_of_nothing(largest):
    loss = xent.sparse_cross_entropy(np.asarray([[largest, 0.0]], "f4"), np.asarray([0]))

    assert loss.tolist() == [0.0]


def test_a_caller_who_lets_floating_point_errors_raise_gets_the_same_answer():
    x = np.asarray([[0.0, -1000.0, np.inf], [0.0, -1000.0, 1.0]], "f4")
    with np.errstate(all="raise"):
        found = xent.sparse_cross_entropy(x, Y)

    np.testing.assert_array_equal(found, xent.sparse_cross_entropy(x, Y))


def test_a_weight_is_zero_as_it_was_given_and_not_as_the_predictions_would_round_it():
    loss = xent.sparse_cross_entropy(X.astype("f4"), Y, sample_weight=np.asarray([1e-50, 0.0]), reduction="sum")
    counted = xent.Mean("counted")
    mean = xent.sparse_cross_entropy(X.astype("f4"), Y, sample_weight=np.asarray([1e-50, 1.0]), reduction=counted)

    assert float(loss) == 0.0 and float(mean) == pytest.approx(1.4076059 / 2, rel=1e-6)


def test_the_gradient_of_a_certain_no_that_was_wrong_points_up():
    loss, gradient = xent.value_and_grad(xent.binary_cross_entropy)(
        np.asarray([0.0]), np.asarray([0.0]), kind="log_probabilities"
    )

    assert (loss.tolist(), gradient.tolist()) == ([np.inf], [np.inf])


@pytest.mark.parametrize("make", [iter, np.asarray, set, tuple, lambda labels: map(int, labels)], ids=list("abcde"))
def test_ignored_labels_come_as_any_iterable(make):
    loss = xent.sparse_cross_entropy(X, Y, ignore_index=make([0]))

    assert (loss == 0).tolist() == [True, False]


def test_the_largest_unsigned_label_can_be_ignored():
    loss = xent.sparse_cross_entropy(X, np.asarray([0, 2**64 - 1], "u8"), ignore_index=2**64 - 1)

    assert (loss == 0).tolist() == [False, True]
