"""docs/semantics.md, "Laziness, memory, determinism"; memory is in test_numpy_memory.py, a row's bits in test_fold.py.

That a Dask array computes nothing while a graph is built, and that a traced array stays traced, is part of every test
that runs on ``dask`` and on ``jax-jit``: see tests/libraries.py.
"""

import functools

import numpy as np
import pytest
from expected import near, same_bits

import xent

FUNCTIONS = {
    "sparse": (xent.sparse_cross_entropy, "labels"),
    "sparse mean": (functools.partial(xent.sparse_cross_entropy, reduction="mean"), "labels"),
    "dense": (xent.cross_entropy, "targets"),
    "dense mean": (functools.partial(xent.cross_entropy, reduction="mean"), "targets"),
    "binary": (xent.binary_cross_entropy, "targets"),
    "sparse gradient": (xent.value_and_grad(xent.sparse_cross_entropy), "labels"),
    "dense gradient": (xent.value_and_grad(xent.cross_entropy), "targets"),
    "binary gradient": (xent.value_and_grad(xent.binary_cross_entropy), "targets"),
    "row_statistics": (xent.row_statistics, "labels"),
    "softmax": (xent.softmax, None),
    "log_softmax": (xent.log_softmax, None),
    "logsumexp": (xent.logsumexp, None),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)


def inputs(rng, kind, *, rows=7, classes=5):
    """Logits, and what goes with them."""
    logits = (rng.standard_normal((rows, classes)) * 3).astype(np.float32)
    if kind is None:
        return (logits,)
    return logits, rng.integers(0, classes, rows) if kind == "labels" else rng.random((rows, classes)).astype(
        np.float32
    )


def leaves(result):
    return result if isinstance(result, tuple) else (result,)


@every_function
def test_what_comes_back_is_of_the_library_that_went_in(lib, rng, name):
    function, kind = FUNCTIONS[name]
    result = lib.apply(function, *inputs(rng, kind))

    assert all(isinstance(one, lib.array_type) for one in leaves(result))


@pytest.mark.parametrize("reduction", ["sum", "mean", xent.Mean("counted")], ids=str)
@pytest.mark.parametrize("name", ["sparse", "dense", "binary", "sparse gradient"])
def test_a_reduction_is_an_array_without_axes_and_no_python_number(lib, rng, name, reduction):
    function, kind = FUNCTIONS[name]
    value = leaves(lib.apply(function, *inputs(rng, kind), reduction=reduction))[0]

    assert isinstance(value, lib.array_type)
    assert value.shape == ()


@every_function
@pytest.mark.variants(but=("dask", "dask-split", "jax", "jax-jit"))  # their arrays cannot be written
def test_no_input_is_written(lib, rng, name):
    function, kind = FUNCTIONS[name]
    originals = inputs(rng, kind)
    told = [lib.asarray(one) for one in originals]
    with lib.strictly():
        function(*told)

    assert all(same_bits(lib.to_numpy(one), original) for one, original in zip(told, originals, strict=True))


@pytest.mark.variants(but=("dask", "dask-split", "jax", "jax-jit"))
def test_no_weight_is_written(lib, rng):
    weights = {"sample_weight": rng.random(7).astype(np.float32), "class_weight": rng.random(5).astype(np.float32)}
    told, named = lib.arguments(inputs(rng, "labels"), weights)
    with lib.strictly():
        xent.value_and_grad(xent.sparse_cross_entropy)(*told, **named, ignore_index=2, reduction="mean")

    assert all(same_bits(lib.to_numpy(named[name]), weights[name]) for name in weights)


@every_function
def test_a_call_gives_the_same_bits_again(lib, rng, name):
    function, kind = FUNCTIONS[name]
    arrays = inputs(rng, kind, rows=23, classes=123)
    first, second = (leaves(lib.call(function, *arrays)) for _ in range(2))

    assert all(same_bits(a, b) for a, b in zip(first, second, strict=True))


@every_function
@pytest.mark.variants("numpy", "numpy-generic", "dask", "dask-split", "torch")
def test_the_number_of_threads_changes_no_bit(lib, rng, name):
    function, kind = FUNCTIONS[name]
    arrays = inputs(rng, kind, rows=507, classes=123)
    with xent.using(threads=1):
        one = leaves(lib.call(function, *arrays))
    with xent.using(threads=3):
        three = leaves(lib.call(function, *arrays))

    assert all(same_bits(a, b) for a, b in zip(one, three, strict=True))


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if "mean" not in name])
@pytest.mark.parametrize("classes", [5, 123])
def test_a_row_gives_the_same_bits_without_its_neighbours(lib, rng, name, classes):
    function, kind = FUNCTIONS[name]
    arrays = inputs(rng, kind, rows=7, classes=classes)
    whole = leaves(lib.call(function, *arrays))
    alone = leaves(lib.call(function, *(one[4:5] for one in arrays)))

    assert all(same_bits(a[4:5], b) for a, b in zip(whole, alone, strict=True))


@pytest.mark.variants("dask", "dask-split")
@pytest.mark.parametrize("rows", [1, 2, 3, 7, (4, 3), (1, 5, 1)], ids=str)
def test_cutting_the_rows_otherwise_changes_no_bit(lib, rng, rows):
    logits, labels = inputs(rng, "labels")
    expected = lib.call(xent.sparse_cross_entropy, logits, labels)
    classes = -1 if lib.name == "dask" else (1, 2, 2)
    with lib.strictly():
        loss = xent.sparse_cross_entropy(lib.da.from_array(logits, chunks=(rows, classes)), labels)

    assert same_bits(lib.numpy(loss), expected)


@pytest.mark.variants("dask")
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_mean_of_a_lazy_array_is_that_of_the_whole(lib, rng, reduction):
    logits, labels = inputs(rng, "labels", rows=507)
    whole = xent.sparse_cross_entropy(logits, labels, reduction=reduction)

    assert near(lib.call(xent.sparse_cross_entropy, logits, labels, reduction=reduction), np.float64(whole))


@pytest.mark.parametrize("order", ["C", "F", "strided"])
@pytest.mark.parametrize("name", ["sparse gradient", "dense gradient", "logsumexp"])
@pytest.mark.variants("numpy", "numpy-generic", "torch")
def test_the_layout_in_memory_changes_nothing_but_the_last_digits(lib, rng, name, order):
    function, kind = FUNCTIONS[name]
    arrays = inputs(rng, kind, rows=23, classes=57)
    expected = leaves(lib.call(function, *arrays))
    told = [lib.asarray(one) for one in arrays]
    if order == "F":
        told[0] = lib.asarray(arrays[0].T).T
    if order == "strided":
        told[0] = lib.asarray(np.repeat(arrays[0], 2, axis=1))[:, ::2]
    with lib.strictly():
        found = leaves(lib.numpy(function(*told)))

    assert all(
        np.all(np.abs(a - b) <= 4 * np.spacing(np.maximum(np.abs(a), 0.25)))
        for a, b in zip(expected, found, strict=True)
    )


@pytest.mark.variants("dask")
def test_a_hidden_compute_is_found_out(lib):
    """The negative control of every test on Dask."""
    with lib.strictly(), pytest.raises(AssertionError, match="computed while the graph was built"):
        lib.asarray(np.zeros(3)).compute()


@pytest.mark.variants("numpy")
def test_a_written_input_is_found_out(lib):
    """The negative control of every test on NumPy."""
    with pytest.raises(ValueError, match="read-only"):
        lib.asarray(np.zeros(3))[:] = 1


@pytest.mark.variants("array-api-strict")
def test_a_boolean_index_is_found_out(lib):
    """The negative control of every test on array-api-strict."""
    x = lib.asarray(np.zeros(3))

    with lib.strictly(), pytest.raises(RuntimeError, match="boolean"):
        x[x > 0]
