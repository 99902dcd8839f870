"""xarray in, xarray out: dimensions by name, coordinates kept, arguments brought into the order of the predictions."""

import subprocess
import sys

import dask
import numpy as np
import pytest

import xent

xr = pytest.importorskip("xarray", reason="xarray is not installed")

TIMES, SITES, CLASSES = np.arange(5) * 10, ["a", "b", "c"], ["x", "y", "z", "w"]
RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 4, 3)).astype(np.float32)  # (time, class, site)
Y = RNG.integers(0, 4, (5, 3))
COORDS = {
    "time": TIMES,
    "class": CLASSES,
    "site": SITES,
    "height": ("site", [1.0, 2.0, 3.0]),
    "seen": (("time", "class"), np.zeros((5, 4))),
    "run": 7,
}
KEPT = {"time", "site", "height", "run"}
LOGITS = xr.DataArray(X, dims=("time", "class", "site"), coords=COORDS, name="logits", attrs={"units": "1"})
LABELS = xr.DataArray(Y, dims=("time", "site"), coords={"time": TIMES, "site": SITES})
WEIGHTS = xr.DataArray(RNG.random((5, 3)).astype(np.float32), dims=("time", "site"))
LOSS = xent.sparse_cross_entropy(X, Y, axis=1)


def is_named(result, values, dims, coordinates):
    """Whether a DataArray has these values, dimensions and coordinates, those of the logits."""
    same = all(result.coords[name].equals(LOGITS.coords[name]) for name in coordinates)
    return (
        type(result) is xr.DataArray
        and result.dims == dims
        and set(result.coords) == set(coordinates)
        and same
        and np.array_equal(result.data, values)
    )


@pytest.mark.parametrize("axis", ["class", 1, -2])
@pytest.mark.parametrize("labels", [LABELS, LABELS.transpose("site", "time"), Y], ids=["named", "turned", "plain"])
def test_a_loss_has_the_dimensions_and_the_coordinates_that_are_left(axis, labels):
    assert is_named(xent.sparse_cross_entropy(LOGITS, labels, axis=axis), LOSS, ("time", "site"), KEPT)


def test_a_reduction_leaves_a_number_and_the_coordinates_without_a_dimension():
    mean = xent.sparse_cross_entropy(LOGITS, LABELS, axis="class", reduction="mean")

    assert is_named(mean, xent.sparse_cross_entropy(X, Y, axis=1, reduction="mean"), (), {"run"})


def test_weights_are_brought_into_order_by_their_names():
    of_classes = xr.DataArray([1.0, 0.5, 2.0, 1.5], dims=("class",), coords={"class": CLASSES})
    turned = WEIGHTS.transpose("site", "time")
    loss = xent.sparse_cross_entropy(LOGITS, LABELS, axis="class", sample_weight=turned, class_weight=of_classes)
    expected = xent.sparse_cross_entropy(X, Y, axis=1, sample_weight=WEIGHTS.data, class_weight=of_classes.data)

    assert is_named(loss, expected, ("time", "site"), KEPT)


def test_soft_and_binary_targets_are_brought_into_order_too():
    targets = xent.one_hot(LABELS, 4, axis="class").assign_coords({"class": CLASSES})
    binary = xent.binary_cross_entropy(LOGITS, targets, sample_weight=LOGITS.transpose() * 0 + 1)

    assert targets.dims == ("time", "site", "class")
    loss = xent.cross_entropy(LOGITS, targets, axis="class")
    assert is_named(loss, xent.cross_entropy(X, xent.one_hot(Y, 4, axis=1), axis=1), ("time", "site"), KEPT)
    assert is_named(binary, xent.binary_cross_entropy(X, xent.one_hot(Y, 4, axis=1)), LOGITS.dims, COORDS)


def test_a_positive_weight_is_one_for_each_element_of_the_last_dimension():
    weight = xr.DataArray([1.0, 2.0, 3.0], dims=("site",))
    loss = xent.binary_cross_entropy(LOGITS, LOGITS * 0, pos_weight=weight)

    assert is_named(loss, xent.binary_cross_entropy(X, X * 0, pos_weight=weight.data), LOGITS.dims, COORDS)
    with pytest.raises(ValueError, match=r"`pos_weight` must have the dimensions \('site',\)"):
        xent.binary_cross_entropy(LOGITS, LOGITS * 0, pos_weight=weight.rename(site="time"))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_probabilities_keep_every_dimension_and_coordinate(name):
    function = getattr(xent, name)

    assert is_named(function(LOGITS, axis="class"), function(X, axis=1), LOGITS.dims, COORDS)


def test_a_log_sum_exp_may_keep_the_class_axis():
    kept = xent.logsumexp(LOGITS, axis="class", keepdims=True)

    assert is_named(xent.logsumexp(LOGITS, axis="class"), xent.logsumexp(X, axis=1), ("time", "site"), KEPT)
    assert is_named(kept, xent.logsumexp(X, axis=1, keepdims=True), LOGITS.dims, KEPT)


def test_statistics_are_a_tuple_of_named_arrays():
    ours, theirs = xent.row_statistics(LOGITS, LABELS, axis="class"), xent.row_statistics(X, Y, axis=1)

    assert type(ours) is xent.RowStatistics
    assert all(is_named(a, b, ("time", "site"), KEPT) for a, b in zip(ours, theirs, strict=True))


def test_a_gradient_has_the_dimensions_of_the_predictions():
    loss, gradient = xent.value_and_grad(xent.sparse_cross_entropy)(LOGITS, LABELS, axis="class")
    _, expected = xent.value_and_grad(xent.sparse_cross_entropy)(X, Y, axis=1)

    assert is_named(loss, LOSS, ("time", "site"), KEPT) and is_named(gradient, expected, LOGITS.dims, COORDS)


def test_one_hot_has_a_new_dimension_of_that_name():
    assert xent.one_hot(LABELS, 4, axis="kind").dims == ("time", "site", "kind")
    assert xent.one_hot(LABELS, 4, axis=0).dims == ("class", "time", "site")
    assert xent.one_hot(LABELS, 4).coords["site"].equals(LABELS.coords["site"])
    with pytest.raises(ValueError, match=r"`axis` must be a new dimension, got 'time' of \('time', 'site'\)"):
        xent.one_hot(LABELS, 4, axis="time")


@pytest.mark.parametrize("chunks", [{"time": 2}, {"time": 2, "class": 3}], ids=["rows", "classes"])
def test_what_is_lazy_stays_lazy(chunks):
    def refuse(*_, **__):
        raise AssertionError("something was computed while the graph was built")

    lazy = LOGITS.chunk(chunks)
    with dask.config.set(scheduler=refuse):
        loss = xent.sparse_cross_entropy(lazy, LABELS.chunk({"time": 3}).transpose(), axis="class")
        mean = xent.sparse_cross_entropy(lazy, LABELS, axis="class", reduction="mean")
        p = xent.softmax(lazy, axis="class")

    assert all(hasattr(each.data, "dask") for each in (loss, mean, p))
    assert set(loss.coords) == KEPT and loss.dims == ("time", "site")
    np.testing.assert_allclose(loss, LOSS, rtol=1e-6)
    np.testing.assert_allclose(p, xent.softmax(X, axis=1), rtol=1e-6)


def test_rows_that_are_stacked_keep_their_index():
    stacked, labels = LOGITS.stack(row=("time", "site")), LABELS.stack(row=("time", "site"))
    loss = xent.sparse_cross_entropy(stacked, labels, axis="class")

    assert loss.dims == ("row",) and loss.indexes["row"].equals(stacked.indexes["row"])
    np.testing.assert_allclose(loss.unstack("row").transpose("time", "site"), LOSS, rtol=1e-6)


def test_no_rows_and_one_row_have_names_too():
    none = xent.sparse_cross_entropy(LOGITS[:0], LABELS[:0], axis="class")
    mean = xent.sparse_cross_entropy(LOGITS[:0], LABELS[:0], axis="class", reduction="mean")
    row = LOGITS.isel(time=0, site=0)

    assert none.shape == (0, 3) and none.dims == ("time", "site") and np.isnan(mean) and mean.dims == ()
    assert xent.sparse_cross_entropy(row, LABELS.isel(time=0, site=0), axis="class").dims == ()


def test_an_explanation_takes_names():
    named = xent.explain(xent.sparse_cross_entropy, LOGITS, LABELS.transpose(), axis="class")
    plain = xent.explain(xent.sparse_cross_entropy, X, Y, axis=1)

    assert named.problem == plain.problem and named.kernel == plain.kernel


def test_slices_of_classes_are_plain_numbers_by_a_number_of_the_axis():
    parts = [
        xent.partial(LOGITS[:, :2], labels=LABELS, axis=1, num_classes=4),
        xent.partial(LOGITS[:, 2:], labels=LABELS, axis=1, first_class=2, num_classes=4),
    ]

    np.testing.assert_allclose(xent.finish(xent.merge(*parts)), LOSS, rtol=1e-6)


WRONG = {
    "no such axis": (
        lambda: xent.softmax(LOGITS, axis="clas"),
        r"`axis` must be a dimension of .*'class', 'site'",
    ),
    "a name of a plain array": (lambda: xent.softmax(X, axis="class"), r"a name is that of a dimension of an xarray"),
    "other dimensions": (
        lambda: xent.sparse_cross_entropy(LOGITS, LABELS.rename(site="place"), axis="class"),
        r"`labels` must have the dimensions \('time', 'site'\), in any order, got \('time', 'place'\)",
    ),
    "too few dimensions": (
        lambda: xent.sparse_cross_entropy(LOGITS, LABELS.isel(time=0), axis="class"),
        r"`labels` must have the dimensions \('time', 'site'\)",
    ),
    "other coordinates": (
        lambda: xent.sparse_cross_entropy(LOGITS, LABELS.assign_coords(time=TIMES + 1), axis="class"),
        r"`labels` must have the coordinates of `predictions` along 'time'.*xarray.align",
    ),
    "coordinates in another order": (
        lambda: xent.sparse_cross_entropy(LOGITS, LABELS[::-1], axis="class"),
        r"`labels` must have the coordinates of `predictions` along 'time'",
    ),
    "weights of other classes": (
        lambda: xent.sparse_cross_entropy(
            LOGITS, LABELS, axis="class", class_weight=xr.DataArray(np.ones(4), {"class": CLASSES[::-1]}, ["class"])
        ),
        r"`class_weight` must have the coordinates of `predictions` along 'class'",
    ),
    "a set": (lambda: xent.softmax(LOGITS.to_dataset()), r"got xarray\.Dataset\. Pass predictions\[name\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_by_name(case):
    call, message = WRONG[case]
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_the_remedy_for_other_coordinates_works():
    logits, labels = xr.align(LOGITS, LABELS[::-1].assign_coords(time=TIMES[::-1] + 10))

    assert xent.sparse_cross_entropy(logits, labels, axis="class").sizes == {"time": 4, "site": 3}


def test_xarray_is_loaded_by_no_call_of_ours():
    code = (
        "import sys, numpy as np, xent; xent.sparse_cross_entropy(np.zeros((2, 3)), np.zeros(2, int));"
        "xent.evaluate(np.zeros((2, 3)), np.zeros(2, int)); assert 'xarray' not in sys.modules"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
