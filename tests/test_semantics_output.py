"""docs/semantics.md, "Derivatives": ``value_and_grad(...)(..., out=)``, the gradient in an array of the caller's.

The kit's ``gradient_out`` and ``in_place`` try every form of memory on every kernel; here are the libraries and doors.
"""

import functools
import itertools

import numpy as np
import pytest
from toy_kernels import watched

import xent

MUTABLE = pytest.mark.variants("numpy", "numpy-generic", "array-api-strict", "torch", "cupy")
LOSSES = [xent.sparse_cross_entropy, xent.cross_entropy, xent.binary_cross_entropy]
LABELS = np.asarray([0, 2, 1, 1, 6])
OPTIONS = {
    "plain": {},
    "mean": {"reduction": "mean"},
    "weighted": {"reduction": "mean", "sample_weight": np.asarray([1.0, 0.0, 2.0, 1.0, 0.5], np.float32)},
}


def writable(lib, array):
    """The library's own array with these values, to write to."""
    return np.array(array) if lib.array_type is np.ndarray else lib.asarray(array)


def drawn(rng, function, dtype=np.float32):
    """Predictions (5, 7), one of their rows NaN where rows are apart, and what the function compares them with."""
    x = rng.standard_normal((5, 7)).astype(dtype)
    if function is xent.sparse_cross_entropy:
        x[1], x[2, 3] = np.nan, np.inf
        return x, LABELS
    return x, rng.random((5, 7)).astype(dtype)


def called(lib, function, x, targets, out, options):
    """Loss and gradient as NumPy's, for ``out`` as it is."""
    told, named = lib.arguments((targets,), dict(options))
    if function is xent.binary_cross_entropy and "sample_weight" in named:
        named["sample_weight"] = lib.asarray(np.ones((5, 7), np.float32))
    with lib.strictly():
        loss, gradient = xent.value_and_grad(function)(x, *told, **named, out=out)
    assert out is None or gradient is out
    return [lib.numpy(value) for value in (loss, gradient)]


def same_bits(a, b):
    return all(one.tobytes() == other.tobytes() for one, other in zip(a, b, strict=True))


@MUTABLE
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("function", LOSSES, ids=lambda function: function.__name__)
def test_out_is_filled_with_the_bits_of_a_new_gradient_and_returned(lib, rng, function, options):
    x, targets = drawn(rng, function)
    before = x.tobytes()
    expected = called(lib, function, writable(lib, x), targets, None, OPTIONS[options])
    predictions, out = writable(lib, x), writable(lib, np.full_like(x, np.nan))
    found = called(lib, function, predictions, targets, out, OPTIONS[options])

    assert same_bits(found, expected) and lib.numpy(predictions).tobytes() == before


@MUTABLE
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("function", LOSSES, ids=lambda function: function.__name__)
def test_out_may_be_the_predictions_which_it_overwrites(lib, rng, function, options):
    x, targets = drawn(rng, function)
    expected = called(lib, function, writable(lib, x), targets, None, OPTIONS[options])
    predictions = writable(lib, x)
    found = called(lib, function, predictions, targets, predictions, OPTIONS[options])

    assert same_bits(found, expected)


@MUTABLE
@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
@pytest.mark.parametrize("function", LOSSES, ids=lambda function: function.__name__)
def test_out_may_be_probabilities(lib, rng, function, kind):
    p = rng.dirichlet(np.ones(7), 5).astype(np.float32)
    x, targets = (p if kind == "probabilities" else np.log(p)), drawn(rng, function)[1]
    expected = called(lib, function, writable(lib, x), targets, None, {"kind": kind})
    predictions = writable(lib, x)

    assert same_bits(called(lib, function, predictions, targets, predictions, {"kind": kind}), expected)


@MUTABLE
@pytest.mark.parametrize(("shape", "axis"), [((7,), 0), ((3, 7, 5), 1), ((7, 3), 0), ((2, 3, 7), -1)], ids=str)
def test_out_may_have_any_rank_and_class_axis(lib, rng, shape, axis):
    x = rng.standard_normal(shape).astype(np.float32)
    labels = rng.integers(0, 7, tuple(np.delete(shape, axis)))
    expected = called(lib, xent.sparse_cross_entropy, writable(lib, x), labels, None, {"axis": axis})
    own, predictions = writable(lib, np.full_like(x, np.nan)), writable(lib, x)
    over = called(lib, xent.sparse_cross_entropy, predictions, labels, predictions, {"axis": axis})

    assert same_bits(called(lib, xent.sparse_cross_entropy, writable(lib, x), labels, own, {"axis": axis}), expected)
    assert same_bits(over, expected)


@pytest.mark.variants("dask", "dask-split", "jax", "jax-jit")
def test_out_is_refused_where_arrays_are_not_written_to(lib):
    x = lib.asarray(np.zeros((5, 7), np.float32), classes=-1)
    function = functools.partial(xent.value_and_grad(xent.sparse_cross_entropy), out=x)
    with pytest.raises(TypeError, match=r"`out` must be None on (dask|jax), whose arrays are not written to"):
        lib.apply(function, np.zeros((5, 7)), LABELS)


@MUTABLE
@pytest.mark.parametrize("is_last", [False, True], ids=["first", "last"])
def test_a_bad_label_leaves_the_predictions_as_they_were(lib, rng, is_last):
    if not lib.raises_labels:
        pytest.skip("a bad label makes its row NaN there, and nothing waits for it")
    x, labels = drawn(rng, xent.sparse_cross_entropy)
    predictions, bad = writable(lib, x), np.where(np.arange(5) == (4 if is_last else 0), 7, labels)
    with pytest.raises(xent.LabelError):
        called(lib, xent.sparse_cross_entropy, predictions, bad, predictions, {"reduction": "mean"})

    assert lib.numpy(predictions).tobytes() == x.tobytes()


def test_a_bad_label_that_is_not_looked_for_makes_its_row_nan_in_out(rng):
    x = rng.standard_normal((5, 7))
    with xent.using(validate="never"):
        _, gradient = xent.value_and_grad(xent.sparse_cross_entropy)(x, np.asarray([0, 7, 1, 1, 2]), out=x)

    assert gradient is x and np.isnan(x[1]).all() and np.isfinite(np.delete(x, 1, 0)).all()


def test_views_that_lie_between_each_other_share_no_memory(rng):
    memory = rng.standard_normal((5, 2, 7))
    x, out = memory[:, 0], memory[:, 1]
    expected = xent.value_and_grad(xent.sparse_cross_entropy)(np.array(x), LABELS)[1]
    xent.value_and_grad(xent.sparse_cross_entropy)(x, LABELS, out=out)

    assert out.tobytes() == expected.tobytes()


def test_what_is_bound_ahead_is_found(rng):
    x = rng.standard_normal((5, 7))
    into = functools.partial(xent.value_and_grad(functools.partial(xent.sparse_cross_entropy, reduction="sum")), out=x)
    decision = xent.explain(into, x, LABELS)

    assert decision.problem.method == "loss_and_gradient" and into(x, LABELS)[1] is x
    with pytest.raises(ValueError, match="`out` must have shape"):
        xent.explain(into, x[:3], LABELS[:3])


def test_only_a_gradient_has_an_out():
    x = np.zeros((5, 7))
    with pytest.raises(TypeError, match="`out` must be a keyword of it"):
        xent.explain(xent.sparse_cross_entropy, x, LABELS, out=x)


def test_a_memory_map_can_be_filled(rng, tmp_path):
    x = rng.standard_normal((5, 7))
    out = np.memmap(tmp_path / "gradient", x.dtype, "w+", shape=x.shape)
    _, gradient = xent.value_and_grad(xent.sparse_cross_entropy)(x, LABELS, out=out)

    assert gradient is out and np.array_equal(out, xent.value_and_grad(xent.sparse_cross_entropy)(x, LABELS)[1])


def test_an_xarray_is_filled_and_returned(rng):
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    x = xarray.DataArray(rng.standard_normal((5, 7)))
    expected = xent.value_and_grad(xent.sparse_cross_entropy)(np.array(x.data), LABELS)[1]
    _, gradient = xent.value_and_grad(xent.sparse_cross_entropy)(x, LABELS, out=x)

    assert gradient is x and np.array_equal(x.data, expected)


def test_an_xarray_of_other_order_is_filled_by_its_names(rng):
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    x = xarray.DataArray(rng.standard_normal((5, 7)), dims=("row", "class"))
    out = xarray.DataArray(np.empty((7, 5)), dims=("class", "row"))
    loss, gradient = xent.value_and_grad(xent.sparse_cross_entropy)(x, LABELS, axis="class", out=out)

    assert gradient is out and loss.dims == ("row",)
    assert np.array_equal(out.data.T, xent.value_and_grad(xent.sparse_cross_entropy)(x.data, LABELS)[1])


# -------------------- what a kernel is given


def only_by_row(shape, strides):
    return strides[1] == 8


@pytest.fixture
def kernel():
    """Registers a kernel that notes what it is given, for one test."""

    def register(**facts):
        methods = frozenset({"partial", "gradient", "loss_and_gradient"})
        spec = xent.KernelSpec(
            name="watched", op="sparse", load="toy_kernels:watched", methods=methods, priority=10, **facts
        )

        class Plugin:
            @xent.hookimpl
            def xent_register_kernels(self):
                return [spec]

        watched.given.clear()
        xent.register(Plugin(), "watched")

    yield register
    xent.unregister("watched")


def misaligned(array):
    memory = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    memory[...] = array
    return memory


def by_column(array):
    return np.full_like(array, np.nan, order="F")


FACTS = {
    "a whole array": ({}, np.empty_like, True),
    "over the logits": ({}, lambda x: x, False),
    "over the logits, which it can": ({"in_place": True}, lambda x: x, True),
    "by column": ({}, by_column, True),
    "by column, declined by its guard": ({"guard": only_by_row}, by_column, False),
    "by column, where rows must be contiguous": ({"contiguous": True}, by_column, False),
    "misaligned": ({"in_place": True}, misaligned, False),
}


@pytest.mark.parametrize(("is_plain", "case"), [*itertools.product((True, False), FACTS)])
def test_a_kernel_is_given_out_only_where_it_may_fill_it(rng, kernel, case, is_plain):
    facts, make, is_given = FACTS[case]
    kernel(**facts)
    x, options = rng.standard_normal((300, 700)), {} if is_plain else {"label_smoothing": 0.1}
    labels, function = rng.integers(0, 700, 300), xent.value_and_grad(xent.sparse_cross_entropy)
    expected = function(x, labels, **options)[1]
    watched.given.clear()
    out = make(x)
    function(x, labels, out=out, **options)

    assert np.array_equal(out, expected)
    assert watched.given[0][0].shape == ((300, 700) if is_given else (93, 700))
    assert all((given is not None) is is_given for _, given in watched.given)
