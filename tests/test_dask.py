"""Dask: the graph that is built, what its tasks do, and that no cut of the arrays shows in the numbers.

That the functions are right on Dask arrays, and compute nothing while a graph is built, is part of the tests that run
on the variants ``dask`` and ``dask-split``. Here is what only chunks can get wrong. The whole file runs twice: once
more in a process where ``array.query-planning`` is on.
"""

import functools
import importlib
import os
import pickle
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import cloudpickle
import numpy as np
import pytest
import toy_kernels
from expected import far, gradient_is_off, loss_is_off, near, one_hot, same, same_bits, smooth
from hypothesis import given, settings
from hypothesis import strategies as st

import xent
from xent.testing.budget import gradient_budget, loss_budget

dask = pytest.importorskip("dask", reason="dask is not installed")
da = importlib.import_module("dask.array")

PLANNED = bool(dask.config.get("array.query-planning", False))
fused_only = pytest.mark.skipif(
    PLANNED, reason="with query planning Dask does not fuse tasks yet: there is nothing to count"
)
gradient_of = xent.value_and_grad(xent.sparse_cross_entropy)


@pytest.fixture(autouse=True)
def synchronous():
    """One thread, unless a test asks otherwise."""
    with dask.config.set(scheduler="synchronous"):
        yield


def refuse(*_, **__):
    raise AssertionError("something was computed while the graph was built")


nothing_computed = functools.partial(dask.config.set, scheduler=refuse)


def logits_of(rng, *shape, dtype=np.float32):
    return (4 * rng.standard_normal(shape)).astype(dtype)


def example(rng, rows=23, classes=7):
    return logits_of(rng, rows, classes), rng.integers(0, classes, rows)


def alike(actual, expected):
    """Equal in shape and kind, and within 16 ulp of the largest entry: how a cut may change a gradient's digits."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    finite = np.isfinite(expected)
    if actual.shape != expected.shape or actual.dtype != expected.dtype or not same(actual[~finite], expected[~finite]):
        return False
    if expected.dtype.kind != "f" or not finite.any():
        return same(actual, expected)
    allowed = 16 * np.spacing(np.abs(expected[finite]).max())
    return bool(np.all(np.abs(actual[finite] - expected[finite]) <= allowed))


def lazily(array, chunks):
    """A Dask array that is blockwise from the start, as what reads a file is, and has a task for each chunk."""
    return da.from_array(array, chunks=chunks).map_blocks(np.copy, dtype=array.dtype)


def unknown(array, chunks):
    """A Dask array whose first axis is cut as said, and of whose lengths Dask knows nothing."""
    if PLANNED:
        pytest.skip("with query planning Dask has no arrays of unknown length yet")
    edges = np.cumsum([0, *chunks])
    parts = [
        da.from_delayed(dask.delayed(array[a:b]), shape=(np.nan, *array.shape[1:]), dtype=array.dtype)
        for a, b in pairwise(edges)
    ]
    return da.concatenate(parts)


class registered:
    """A context in which kernels are registered."""

    def __init__(self, *specs):
        self.specs = specs

    def __enter__(self):
        xent.register(toy_kernels.Plugin(*self.specs), "toy")

    def __exit__(self, *_):
        xent.unregister("toy")


# -------------------- the graph


def tasks_of(*results):
    """The tasks that computing the results takes, after Dask's optimisation; another name of a result is no task."""
    graph = {}
    for one in dask.optimize(*results):
        graph.update(dict(one.__dask_graph__()))
    return {key: task for key, task in graph.items() if type(task).__name__ != "Alias"}


def names_of(*results):
    """How many tasks there are of each name."""
    return Counter(str(key[0] if isinstance(key, tuple) else key).rpartition("-")[0] for key in tasks_of(*results))


EVERY = {
    "loss": lambda x, y: xent.sparse_cross_entropy(x, y),
    "mean": lambda x, y: xent.sparse_cross_entropy(x, y, reduction="mean", ignore_index=0),
    "weighted": lambda x, y: xent.sparse_cross_entropy(x, y, sample_weight=y % 3, class_weight=[1.0] * x.shape[1]),
    "smooth": lambda x, y: xent.sparse_cross_entropy(x, y, label_smoothing=0.1),
    "dense": lambda x, y: xent.cross_entropy(x, x * x, class_weight=[1.0] * x.shape[1], reduction="mean"),
    "probabilities": lambda x, y: xent.sparse_cross_entropy(x * x, y, kind="probabilities"),
    "binary": lambda x, y: xent.binary_cross_entropy(x, x * x, pos_weight=2.0, reduction="sum"),
    "gradient": lambda x, y: gradient_of(x, y),
    "mean gradient": lambda x, y: gradient_of(x, y, reduction="mean", ignore_index=0),
    "dense gradient": lambda x, y: xent.value_and_grad(xent.cross_entropy)(
        x, x * x, class_weight=[1.0] * x.shape[1], reduction="mean"
    ),
    "binary gradient": lambda x, y: xent.value_and_grad(xent.binary_cross_entropy)(x, x * x, reduction="mean"),
    "statistics": lambda x, y: xent.row_statistics(x, y),
    "statistics of probabilities": lambda x, y: xent.row_statistics(x * x, y, kind="probabilities"),
    "partial": lambda x, y: xent.partial(x, labels=y),
    "softmax": lambda x, y: xent.softmax(x),
    "log_softmax": lambda x, y: xent.log_softmax(x),
    "logsumexp": lambda x, y: xent.logsumexp(x),
}
every_function = pytest.mark.parametrize("name", EVERY)
cut_classes = pytest.mark.parametrize("classes", [-1, 3], ids=["whole", "cut"])


def leaves(result):
    return result if isinstance(result, tuple) else (result,)


@every_function
@cut_classes
def test_building_a_graph_computes_nothing(rng, name, classes):
    logits, labels = example(rng)
    x, y = da.from_array(logits, chunks=(8, classes)), da.from_array(labels, chunks=8)
    with nothing_computed():
        results = leaves(EVERY[name](x, y))

    assert all(isinstance(one, da.Array) for one in results)


@cut_classes
@pytest.mark.parametrize("function", [xent.sparse_cross_entropy, gradient_of])
def test_building_a_graph_calls_no_kernel_and_computing_it_does(rng, function, classes):
    logits, labels = example(rng)
    x = da.from_array(logits, chunks=(8, classes))
    with registered(toy_kernels.spec("failing", "toy_kernels:failing")), xent.using(kernel="failing"):
        results = leaves(function(x, labels, reduction="mean"))
    with pytest.raises(ArithmeticError, match="the kernel broke"):
        dask.compute(*results)


@every_function
@cut_classes
def test_what_was_said_of_the_result_is_so(rng, name, classes):
    logits, labels = example(rng)
    results = leaves(EVERY[name](da.from_array(logits, chunks=(8, classes)), da.from_array(labels, chunks=5)))
    for one, value in zip(results, dask.compute(*results), strict=True):
        assert (one.shape, one.dtype) == (value.shape, value.dtype)
        assert isinstance(value, np.ndarray)


@every_function
@cut_classes
def test_every_function_gives_what_it_gives_on_numpy(rng, name, classes):
    logits, labels = example(rng)
    results = EVERY[name](da.from_array(logits, chunks=(8, classes)), da.from_array(labels, chunks=5))
    expected = EVERY[name](logits, labels)
    exactly = classes == -1 and "mean" not in name and name not in ("dense", "dense gradient", "binary")
    for value, other in zip(dask.compute(*leaves(results)), leaves(expected), strict=True):
        assert same_bits(value, other) if exactly else alike(value, other)


@fused_only
@pytest.mark.parametrize("chunks", [1, 9, 64])
def test_a_loss_takes_one_task_for_each_chunk_with_the_reading_in_it(chunks):
    x = da.ones((chunks * 5, 7), chunks=(5, 7), dtype=np.float32)
    y = da.zeros(chunks * 5, chunks=5, dtype=np.int64)

    assert len(tasks_of(xent.sparse_cross_entropy(x, y))) == chunks
    assert len(tasks_of(xent.softmax(x))) == chunks
    assert len(tasks_of(xent.binary_cross_entropy(x, x))) == chunks


@fused_only
def test_a_mean_takes_one_task_for_each_chunk_and_a_tree(rng):
    x = da.ones((64 * 5, 7), chunks=(5, 7), dtype=np.float32)
    y = da.zeros(64 * 5, chunks=5, dtype=np.int64)

    assert len(tasks_of(xent.sparse_cross_entropy(x, y, reduction="mean"))) <= 64 + 8 + 1 + 1


@fused_only
def test_where_the_classes_are_cut_there_is_one_task_for_each_chunk_and_a_tree(rng):
    x = da.ones((12, 40), chunks=(4, 2), dtype=np.float32)
    y = da.zeros(12, chunks=4, dtype=np.int64)
    names = names_of(xent.sparse_cross_entropy(x, y))

    assert sum(names.values()) == 3 * (20 + 3 + 1 + 1 + 1)  # chunks, a tree of two levels, its end, labels
    assert max(names.values()) == 3 * 20


@cut_classes
def test_loss_and_gradient_take_one_task_for_each_chunk_together(rng, classes):
    logits, labels = example(rng, rows=20)
    x, y = da.from_array(logits, chunks=(5, classes)), da.from_array(labels, chunks=5)
    toy_kernels.loopback.calls = 0
    with registered(toy_kernels.spec("counting")), xent.using(kernel="counting"):
        dask.compute(*gradient_of(x, y, reduction="mean"))

    assert toy_kernels.loopback.calls == 2 * 4 * (
        1 if classes == -1 else 3
    )  # a partial and a gradient for each chunk, none twice


@fused_only
@every_function
@cut_classes
def test_a_graph_holds_no_data(name, classes):
    x = da.ones((40 * 100, 7), chunks=(100, classes), dtype=np.float32)
    y = da.zeros(40 * 100, chunks=100, dtype=np.int64)
    results = leaves(EVERY[name](x, y))
    tasks = tasks_of(*results)
    for one in results:
        assert len(cloudpickle.dumps(one.__dask_graph__())) <= 10_000 + 500 * len(tasks)
    assert len(cloudpickle.dumps(tasks)) <= 10_000 + 500 * len(tasks)
    assert max(len(cloudpickle.dumps(task)) for task in tasks.values()) <= 8_000
    assert b"Decision" not in cloudpickle.dumps(tasks)  # the reasons for a plan stay here


def test_a_graph_does_not_grow_with_its_chunks(rng):
    def size(rows):
        x, y = da.ones((16 * rows, 7), chunks=(rows, 7)), da.zeros(16 * rows, chunks=rows, dtype=np.int64)
        return len(cloudpickle.dumps(dict(xent.sparse_cross_entropy(x, y).__dask_graph__())))

    assert size(10) <= 1.05 * size(1_000_000) <= 1.1 * size(10)


def test_the_same_call_has_the_same_keys_and_another_has_others(rng):
    x, y = da.ones((12, 7), chunks=(4, 3)), da.zeros(12, chunks=4, dtype=np.int64)

    def name(**options):
        return xent.sparse_cross_entropy(x, y, **options).name

    assert name() == name()
    with xent.using(validate="never"):
        never = name()
    assert len({name(), never, name(ignore_index=1), name(label_smoothing=0.1), name(reduction=xent.Mean("all"))}) == 5


# -------------------- cuts


@st.composite
def cuts(draw, size, most=5):
    """A way to cut an axis, empty chunks among the pieces."""
    edges = sorted(draw(st.lists(st.integers(0, size), max_size=most)))
    return tuple(b - a for a, b in pairwise([0, *edges, size]))


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=60)
def test_no_cut_of_the_rows_changes_a_bit_of_a_rows_numbers(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows = data.draw(st.integers(int(PLANNED), 40))  # with query planning Dask loses an axis of what is empty
    classes = data.draw(st.sampled_from([1, 2, 7, 50, 123]))
    logits, labels = logits_of(rng, rows, classes), rng.integers(0, classes, rows)
    chunks = data.draw(cuts(rows))
    x = da.from_array(logits, chunks=(chunks, classes))
    y = da.from_array(labels, chunks=(data.draw(cuts(rows)),))
    loss, gradient = dask.compute(*gradient_of(x, y, label_smoothing=0.1))
    expected = gradient_of(logits, labels, label_smoothing=0.1)
    statistics = dask.compute(*xent.row_statistics(x, y))

    assert same_bits(xent.sparse_cross_entropy(x, y).compute(), xent.sparse_cross_entropy(logits, labels))
    assert same_bits(loss, expected[0])
    assert same_bits(gradient, expected[1])
    assert all(same_bits(a, b) for a, b in zip(statistics, xent.row_statistics(logits, labels), strict=True))


@given(data=st.data())
@settings(max_examples=60)
def test_no_cut_of_the_classes_takes_a_loss_or_gradient_out_of_its_budget(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows, classes = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 60))
    dtype = data.draw(st.sampled_from([np.float16, np.float32, np.float64]))
    offset = data.draw(st.sampled_from([0, 100, -1000]))
    logits = logits_of(rng, rows, classes, dtype=dtype) + dtype(offset)
    logits[rng.random(logits.shape) < 0.1] -= dtype(90)
    labels = rng.integers(0, classes, rows).astype(data.draw(st.sampled_from([np.uint8, np.int64])))
    x = da.from_array(logits, chunks=(data.draw(cuts(rows, 2)), data.draw(cuts(classes))))
    smoothing = data.draw(st.sampled_from([0.0, 0.2]))
    loss, gradient = dask.compute(*gradient_of(x, labels, label_smoothing=smoothing))
    targets, is_sparse = smooth(one_hot(labels, classes), smoothing), smoothing == 0
    unrounded = logits.astype(np.float32) if logits.dtype == np.float16 else logits  # a float16 is rounded once only
    expected = gradient_of(unrounded, labels, label_smoothing=smoothing)

    assert not far(loss, expected[0], loss_budget(logits, targets), k=4)
    assert not far(gradient, expected[1], gradient_budget(logits, targets, is_sparse=is_sparse), k=8)


@given(data=st.data())
@settings(max_examples=30)
def test_no_cut_changes_a_mean_by_more_than_its_last_bit(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows, classes = data.draw(st.integers(1, 200)), 5
    logits, labels = logits_of(rng, rows, classes), rng.integers(0, classes, rows)
    weights = rng.random(rows) * (rng.random(rows) < 0.7)
    reduction = data.draw(st.sampled_from(["sum", "mean", xent.Mean("counted"), xent.Mean("all"), xent.Mean(3.0)]))
    options = {"reduction": reduction, "sample_weight": weights, "ignore_index": 1, "class_weight": [1, 2, 0, 4, 5]}
    x = da.from_array(logits, chunks=(data.draw(cuts(rows)), classes))

    assert near(
        xent.sparse_cross_entropy(x, labels, **options).compute(),
        xent.sparse_cross_entropy(logits, labels, **options),
        ulps=1,
    )


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=30)
def test_the_class_axis_may_be_any_and_every_axis_may_be_cut(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    axis = data.draw(st.integers(0, 3))
    shape = (3, 2, 4)
    logits = np.moveaxis(logits_of(rng, *shape, 6), -1, axis)
    labels, targets = rng.integers(0, 6, shape), rng.random(logits.shape).astype(np.float32)
    chunks = tuple(data.draw(cuts(size, 2)) for size in logits.shape)
    x = da.from_array(logits, chunks=chunks)
    for function, told in ((xent.sparse_cross_entropy, labels), (xent.cross_entropy, targets)):
        loss, gradient = dask.compute(*xent.value_and_grad(function)(x, told, axis=axis, reduction="mean"))
        expected = xent.value_and_grad(function)(logits, told, axis=axis, reduction="mean")
        assert near(loss, expected[0])
        assert alike(gradient, expected[1])
        assert near(function(x, told, axis=axis).compute(), function(logits, told, axis=axis), ulps=8)


@given(data=st.data())
@settings(max_examples=30)
def test_no_cut_of_any_batch_axis_changes_a_bit(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    axis, classes = data.draw(st.integers(0, 3)), data.draw(st.sampled_from([3, 48, 49, 200]))
    shape = (2, 3, 4)
    logits = np.ascontiguousarray(np.moveaxis(logits_of(rng, *shape, classes), -1, axis))
    labels = rng.integers(0, classes, shape)
    chunks = [data.draw(cuts(size, 2)) for size in shape]
    chunks.insert(axis, (classes,))
    results = dask.compute(*gradient_of(lazily(logits, tuple(chunks)), labels, axis=axis))

    assert all(same_bits(a, b) for a, b in zip(results, gradient_of(logits, labels, axis=axis), strict=True))


@cut_classes
def test_images_with_the_class_axis_in_the_middle(rng, classes):
    logits, labels = logits_of(rng, 2, 7, 5, 4), rng.integers(0, 7, (2, 5, 4))
    x = da.from_array(logits, chunks=(1, classes, 3, 2))
    loss, gradient = dask.compute(*gradient_of(x, labels, axis=1))
    expected = gradient_of(logits, labels, axis=1)

    assert near(loss, expected[0], ulps=8)
    assert alike(gradient, expected[1])


@cut_classes
def test_a_single_row_has_a_result_without_axes(rng, classes):
    logits = logits_of(rng, 7)
    loss, gradient = dask.compute(*gradient_of(da.from_array(logits, chunks=classes), np.asarray(3), reduction="mean"))

    assert loss.shape == ()
    assert near(loss, xent.sparse_cross_entropy(logits, np.asarray(3)))
    assert gradient.shape == (7,)


@cut_classes
def test_no_rows_make_no_losses_and_the_mean_of_nothing(classes):
    x, y = da.zeros((0, 7), chunks=(1, classes), dtype=np.float32), da.zeros(0, dtype=np.int64, chunks=1)

    assert xent.sparse_cross_entropy(x, y).compute().shape == (0,)
    assert np.isnan(xent.sparse_cross_entropy(x, y, reduction="mean").compute())
    assert xent.sparse_cross_entropy(x, y, reduction="sum").compute() == 0
    assert xent.sparse_cross_entropy(x, y, reduction=xent.Mean(empty=0.0)).compute() == 0


@cut_classes
def test_no_rows_in_one_number_of_chunks_fit_no_rows_in_another(classes):
    x = da.from_array(np.zeros((0, 7), np.float32), chunks=((0, 0), classes))
    y = da.from_array(np.zeros(0, np.int64), chunks=((0, 0, 0),))
    loss, gradient = gradient_of(x, y, reduction="sum")

    assert loss.compute() == 0
    assert gradient.shape == (0, 7)


# -------------------- classes in several chunks


def test_narrow_labels_are_widened_before_the_first_class_of_a_chunk_is_taken_from_them(rng):
    logits = logits_of(rng, 6, 300)
    labels = np.asarray([0, 3, 44, 100, 199, 255], np.uint8)  # uint8(3) − 200 would be 59, within the last chunk
    loss = xent.sparse_cross_entropy(da.from_array(logits, chunks=(6, 100)), labels).compute()

    assert not loss_is_off(loss, logits, one_hot(labels, 300))


def test_smoothing_shares_among_all_classes_not_those_of_a_chunk(rng):
    logits, labels = example(rng)
    loss = xent.sparse_cross_entropy(da.from_array(logits, chunks=(9, 2)), labels, label_smoothing=0.3).compute()

    assert not loss_is_off(loss, logits, smooth(one_hot(labels, 7), 0.3))


@pytest.mark.parametrize("masked", [slice(0, 3), slice(3, 6), slice(6, 7)], ids=["first", "middle", "last"])
def test_a_chunk_of_masked_classes_is_as_if_it_were_not_there(rng, masked):
    logits, labels = example(rng)
    logits[:, masked] = -np.inf
    x = da.from_array(logits, chunks=(9, 3))
    loss, gradient = dask.compute(*gradient_of(x, labels))
    expected = gradient_of(logits, labels)

    assert near(loss, expected[0], ulps=8)
    assert np.all(np.isposinf(loss[np.isin(labels, np.arange(7)[masked])]))  # the masked chunk holds the label
    assert alike(gradient, expected[1])
    assert near(xent.softmax(x).compute(), xent.softmax(logits), ulps=8)


def test_a_row_of_nothing_but_masked_classes_is_nan_in_every_chunk(rng):
    logits, labels = example(rng)
    logits[4] = -np.inf
    logits[5, 6] = np.nan
    loss, gradient = dask.compute(*gradient_of(da.from_array(logits, chunks=(9, 3)), labels))

    assert np.flatnonzero(np.isnan(loss)).tolist() == [4, 5]
    assert np.flatnonzero(np.isnan(gradient).any(axis=1)).tolist() == [4, 5]


def test_classes_in_more_chunks_than_are_merged_at_once(rng):
    logits, labels = logits_of(rng, 3, 200), np.asarray([0, 77, 199])
    x = da.from_array(logits, chunks=(2, 1))

    assert not loss_is_off(xent.sparse_cross_entropy(x, labels).compute(), logits, one_hot(labels, 200))
    ranks = xent.row_statistics(x, labels).label_rank.compute()
    assert same(ranks, xent.row_statistics(logits, labels).label_rank)


def test_a_label_of_another_chunk_is_no_bad_label_and_one_of_none_is(rng):
    logits, labels = example(rng)
    labels[10] = 7
    x = da.from_array(logits, chunks=(9, 3))
    with pytest.raises(xent.LabelError, match=r"lie in \[0, 7\), got 1 outside.*position 10, is 7"):
        xent.sparse_cross_entropy(x, labels).compute()
    loss = xent.sparse_cross_entropy(x, labels, ignore_index=7).compute()

    assert loss[10] == 0
    assert np.count_nonzero(loss) == 22


@pytest.mark.skipif(PLANNED, reason="with query planning Dask has no where yet")
def test_partials_of_dask_arrays_merge_as_numbers_do(rng):
    logits, labels = example(rng)
    x, y = da.from_array(logits, chunks=(9, 3)), da.from_array(labels, chunks=9)
    left = xent.partial(x[:, :4], labels=y, num_classes=7)
    right = xent.partial(x[:, 4:], labels=y, first_class=4, num_classes=7)
    with nothing_computed():
        loss = xent.finish(xent.merge(left, right))

    assert not loss_is_off(loss.compute(), logits, one_hot(labels, 7))


def test_partials_that_are_merged_when_they_are_computed_warn_of_no_infinity():
    x = np.asarray([[np.inf, 0.0, np.inf, 1.0], [-np.inf] * 4, [0.0, -np.inf, np.inf, 1.0]])
    y = np.asarray([0, 1, 3])
    cut = [da.from_array(x, chunks=(rows, 4)) for rows in (1, 2)]
    left = xent.partial(cut[0][:, :2], labels=y, num_classes=4)
    right = xent.partial(cut[1][:, 2:], labels=y, first_class=2, num_classes=4)
    loss = xent.finish(xent.merge(left, right)).compute()  # a warning is an error here

    assert same(loss, [np.nan, np.nan, np.inf])


# -------------------- labels and weights that are cut otherwise, or not at all


@cut_classes
@pytest.mark.parametrize("cut", [None, 4, 23], ids=["numpy", "small", "one"])
def test_labels_targets_and_weights_are_cut_as_the_predictions_are(rng, classes, cut):
    logits, labels = example(rng)
    targets, weight = rng.random(logits.shape).astype(np.float32), rng.random(23)
    x = da.from_array(logits, chunks=(9, classes))

    def told(array):
        return array if cut is None else da.from_array(array, chunks=cut)

    loss = xent.sparse_cross_entropy(x, told(labels), sample_weight=told(weight), class_weight=told(np.arange(7.0)))
    assert near(
        loss.compute(),
        xent.sparse_cross_entropy(logits, labels, sample_weight=weight, class_weight=list(range(7))),
        ulps=8,
    )
    loss = xent.cross_entropy(x, told(targets), sample_weight=told(weight), class_weight=list(range(7)))
    expected = xent.cross_entropy(logits, targets, sample_weight=weight, class_weight=np.arange(7))
    assert near(loss.compute(), expected, ulps=8)


@pytest.mark.parametrize("shape", [(), (7,)], ids=str)
def test_the_weight_of_a_yes_is_an_array_of_any_fitting_shape(rng, shape):
    logits, targets = logits_of(rng, 23, 7), rng.random((23, 7))
    weight = rng.random(shape)
    expected = xent.binary_cross_entropy(logits, targets, pos_weight=weight)
    for told in (weight, da.from_array(weight, chunks=2)):
        loss = xent.binary_cross_entropy(da.from_array(logits, chunks=(9, 3)), targets, pos_weight=told)
        assert same_bits(loss.compute(), expected)


@cut_classes
def test_a_sample_weight_of_zero_and_a_label_that_is_ignored_leave_the_row_out(rng, classes):
    logits, labels = example(rng)
    logits[3], logits[5] = np.nan, np.inf
    labels[5], labels[7] = -100, 99
    weight = np.ones(23)
    weight[[3, 7]] = 0
    x = da.from_array(logits, chunks=(9, classes))
    options = {"sample_weight": weight, "ignore_index": -100, "reduction": "mean"}
    loss, gradient = dask.compute(*gradient_of(x, labels, **options))
    expected = gradient_of(logits, labels, **options)

    assert near(loss, expected[0])
    assert np.all(gradient[[3, 5, 7]] == 0)
    assert alike(gradient, expected[1])


# -------------------- reductions


def test_a_mean_over_uneven_chunks_is_that_of_the_rows_not_of_the_chunks(rng):
    logits, labels = example(rng, rows=101)
    x = da.from_array(logits, chunks=((1, 97, 3), 7))

    assert near(
        xent.sparse_cross_entropy(x, labels, reduction="mean").compute(),
        xent.sparse_cross_entropy(logits, labels).mean(dtype=float),
        ulps=1,
    )


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_sums_are_taken_in_float64(chunk):
    costs = np.asarray([2.0**24, 1, 1, 1], np.float32)  # in float32, 2²⁴ + 1 is 2²⁴
    x = da.from_array(-costs[:, None], chunks=(chunk, 1))
    total = xent.sparse_cross_entropy(x, np.zeros(4, np.int64), kind="log_probabilities", reduction="sum").compute()

    assert total == np.float32(2**24 + 3)


@pytest.mark.parametrize("denominator", ["weights", "counted", "all", 2.5])
@cut_classes
def test_every_denominator_is_that_of_the_whole(rng, denominator, classes):
    logits, labels = example(rng)
    mean = xent.Mean(denominator, empty=-1.0)
    weight = rng.random(23) * (rng.random(23) < 0.7)
    x, y = da.from_array(logits, chunks=(9, classes)), da.from_array(labels, chunks=9)
    for options in ({}, {"sample_weight": weight}, {"ignore_index": 2}, {"class_weight": [1, 2, 3, 4, 5, 6, 7]}):
        loss, gradient = dask.compute(*gradient_of(x, y, reduction=mean, **options))
        expected = gradient_of(logits, labels, reduction=mean, **options)
        assert near(loss, expected[0])
        assert alike(gradient, expected[1])
    loss, gradient = dask.compute(*gradient_of(x, y, reduction=mean, ignore_index=range(7)))
    assert loss == -1.0
    assert not gradient.any()


def test_the_denominator_of_a_gradient_is_found_without_reading_a_prediction(rng):
    def unread(block):
        raise AssertionError("a prediction was read")

    x = da.map_blocks(unread, da.zeros((12, 7), chunks=(4, 7)), dtype=float, meta=np.empty((0, 0)))
    y = da.from_array(rng.integers(0, 7, 12), chunks=4)
    graph = dict(gradient_of(x, y, reduction="mean", ignore_index=3)[1].__dask_graph__())
    keys = [key for key in graph if str(key).startswith("('sparse_cross_entropy-merge_sums")]
    found = [sums.denominator for sums in dask.get(graph, keys)]

    assert max(found) == np.count_nonzero(y.compute() != 3)


# -------------------- unknown numbers of rows


@cut_classes
def test_rows_of_unknown_number_work_where_labels_are_cut_alike(rng, classes):
    logits, labels = example(rng)
    x = unknown(logits, (9, 9, 5)).rechunk({1: classes}) if classes != -1 else unknown(logits, (9, 9, 5))
    y, weight = unknown(labels, (9, 9, 5)), unknown(np.arange(23.0), (9, 9, 5))
    loss, gradient = dask.compute(*gradient_of(x, y, reduction="mean", sample_weight=weight))
    expected = gradient_of(logits, labels, reduction="mean", sample_weight=np.arange(23.0))

    assert near(loss, expected[0])
    assert alike(gradient, expected[1])
    assert near(xent.sparse_cross_entropy(x, y).compute(), xent.sparse_cross_entropy(logits, labels), ulps=8)
    for mean in ("mean", xent.Mean("all")):
        loss, gradient = dask.compute(*gradient_of(x, y, reduction=mean))
        assert alike(gradient, gradient_of(logits, labels, reduction=mean)[1])


@cut_classes
def test_soft_targets_of_unknown_number_work_too(rng, classes):
    logits, targets = logits_of(rng, 23, 7), rng.random((23, 7)).astype(np.float32)
    x, t = (unknown(one, (9, 9, 5)).rechunk({1: classes} if classes != -1 else {}) for one in (logits, targets))
    for weights in ({}, {"class_weight": [1, 2, 3, 4, 5, 6, 7]}):
        loss, gradient = dask.compute(*xent.value_and_grad(xent.cross_entropy)(x, t, reduction="mean", **weights))
        expected = xent.value_and_grad(xent.cross_entropy)(logits, targets, reduction="mean", **weights)
        assert near(loss, expected[0])
        assert alike(gradient, expected[1])


@pytest.mark.skipif(PLANNED, reason="with query planning Dask has no boolean indexing yet")
def test_rows_chosen_by_a_mask_have_their_losses(rng):
    logits, labels = example(rng)
    x, y = da.from_array(logits, chunks=(9, 7)), da.from_array(labels, chunks=9)
    chosen = y > 2
    loss = xent.sparse_cross_entropy(x[chosen], y[chosen])

    assert np.isnan(loss.shape[0])
    assert same_bits(loss.compute(), xent.sparse_cross_entropy(logits, labels)[labels > 2])


@cut_classes
@pytest.mark.parametrize("which", ["labels", "sample_weight"])
def test_chunks_of_other_lengths_are_an_error_that_names_the_chunk(rng, classes, which):
    logits, labels = example(rng)
    x = da.from_array(logits, chunks=(9, classes))
    y = unknown(labels[:22], (9, 8, 5)) if which == "labels" else labels
    weight = unknown(np.ones(22), (9, 8, 5)) if which == "sample_weight" else None
    loss = xent.sparse_cross_entropy(x, y, sample_weight=weight)
    with pytest.raises(ValueError, match=rf"`{which}` must have shape \(9,\) in chunk 1, .* got \(8,\)\. Cut both"):
        loss.compute()


def test_another_number_of_chunks_is_an_error_before_any_work(rng):
    logits, labels = example(rng)
    with nothing_computed():
        for y in (labels, da.from_array(labels, chunks=12), unknown(labels, (23,))):
            with pytest.raises(ValueError, match=r"`labels` must have 3 chunks, .* got [12]\. Pass a Dask array cut"):
                xent.sparse_cross_entropy(unknown(logits, (9, 9, 5)), y)


@pytest.mark.skipif(PLANNED, reason="with query planning Dask has no arrays of unknown length yet")
def test_classes_of_unknown_number_are_refused():
    x = da.from_delayed(dask.delayed(np.zeros((3, 4))), shape=(3, np.nan), dtype=float)
    with pytest.raises(ValueError, match="`predictions` must have a known number of classes"):
        xent.sparse_cross_entropy(x, np.zeros(3, np.int64))


# -------------------- what is bound when the call is made


@cut_classes
def test_a_bad_label_is_an_error_when_computed_with_its_global_row(rng, classes):
    logits, labels = example(rng)
    labels[13] = 7
    with nothing_computed():
        loss = xent.sparse_cross_entropy(da.from_array(logits, chunks=(9, classes)), labels, reduction="mean")
    with pytest.raises(xent.LabelError, match=r"got 1 outside in one chunk; the first, at position 13, is 7") as caught:
        loss.compute()

    assert (caught.value.count, caught.value.position, caught.value.value) == (1, (13,), 7)
    assert pickle.loads(pickle.dumps(caught.value)).position == (13,)


@cut_classes
def test_the_place_of_a_bad_label_counts_every_axis(rng, classes):
    labels = np.zeros((4, 6, 5), np.int64)
    labels[3, 2, 4] = 9
    x = da.from_array(logits_of(rng, 4, 7, 6, 5), chunks=(3, classes, 2, 2))
    with pytest.raises(xent.LabelError, match=r"position \(3, 2, 4\), is 9"):
        xent.sparse_cross_entropy(x, labels, axis=1).compute()


@cut_classes
def test_where_row_counts_are_unknown_the_error_names_the_row_of_the_chunk(rng, classes):
    logits, labels = example(rng)
    labels[13] = 7
    x = unknown(logits, (9, 9, 5)).rechunk({1: classes} if classes != -1 else {})
    with pytest.raises(xent.LabelError, match=r"row 4 of chunk 1, is 7"):
        xent.sparse_cross_entropy(x, unknown(labels, (9, 9, 5))).compute()


@cut_classes
def test_validation_is_that_of_the_call_not_of_the_computing(rng, classes):
    logits, labels = example(rng)
    labels[13] = 7
    x = da.from_array(logits, chunks=(9, classes))
    with xent.using(validate="never"):
        never = gradient_of(x, labels)
    auto = xent.sparse_cross_entropy(x, labels)
    loss, gradient = dask.compute(*never)
    with xent.using(validate="never"), pytest.raises(xent.LabelError):
        auto.compute()

    assert np.flatnonzero(np.isnan(loss)).tolist() == [13]
    assert np.flatnonzero(np.isnan(gradient).any(axis=1)).tolist() == [13]


def test_the_kernel_is_that_of_the_call_and_one_thread_is_what_it_gets(rng):
    logits, labels = example(rng)
    toy_kernels.threads.seen.clear()
    x = da.from_array(logits, chunks=(9, 3))
    with registered(toy_kernels.spec("threads", "toy_kernels:threads")):
        with xent.using(kernel="threads", threads=8):
            loss = xent.sparse_cross_entropy(x, labels)
        other = xent.sparse_cross_entropy(x, labels)
        assert xent.explain(xent.sparse_cross_entropy, x, labels).kernel == "threads"
        with xent.using(kernel="generic"):
            assert near(other.compute(), xent.sparse_cross_entropy(logits, labels), ulps=8)
    value = loss.compute()  # the plugin is gone: a task needs no registry

    assert set(toy_kernels.threads.seen) == {1}
    assert near(value, xent.sparse_cross_entropy(logits, labels), ulps=8)


def long(shape, strides):
    return shape[0] > 5


def broken(shape, strides):
    raise ArithmeticError("the guard broke")


@pytest.mark.parametrize("guard", [long, broken])
def test_a_kernels_guard_is_asked_of_every_chunk(rng, guard):
    logits, labels = example(rng)
    toy_kernels.threads.seen.clear()
    x = da.from_array(logits, chunks=((9, 9, 5), 7))
    with registered(toy_kernels.spec("threads", "toy_kernels:threads", guard=guard)):
        loss = xent.sparse_cross_entropy(x, labels).compute()

    assert near(loss, xent.sparse_cross_entropy(logits, labels), ulps=8)
    assert len(toy_kernels.threads.seen) == (2 if guard is long else 0)


def never(shape, strides):
    return False


@pytest.mark.parametrize("guard", [never, broken])
@pytest.mark.parametrize("classes", [7, 3], ids=["whole", "cut"])
def test_a_forced_kernel_whose_guard_declines_a_chunk_raises_when_computed(rng, guard, classes):
    logits, labels = example(rng)
    with registered(toy_kernels.spec(guard=guard)), xent.using(kernel="loopback"):
        loss = xent.sparse_cross_entropy(da.from_array(logits, chunks=(9, classes)), labels)

    with pytest.raises(ValueError, match=r"whose guard declines float32\[\d, \d\] on numpy"):
        loss.compute()


def test_a_kernel_with_a_gradient_of_whole_rows_only_serves_cut_classes_too(rng):
    logits, labels = example(rng)
    with (
        registered(toy_kernels.spec("whole", "toy_kernels:whole", methods=frozenset({"partial", "loss_and_gradient"}))),
        xent.using(kernel="whole"),
    ):
        loss, gradient = dask.compute(*gradient_of(da.from_array(logits, chunks=(9, 3)), labels))

    assert not loss_is_off(loss, logits, one_hot(labels, 7))
    assert not gradient_is_off(gradient, logits, one_hot(labels, 7), is_sparse=True)


def test_no_chunk_is_written_to(rng):
    logits, labels = example(rng)
    x = da.from_array(logits, chunks=(9, 3)).map_blocks(read_only, dtype=logits.dtype)
    y = da.from_array(labels, chunks=9).map_blocks(read_only, dtype=labels.dtype)
    for function in EVERY.values():
        dask.compute(*leaves(function(x, y)))


def read_only(block):
    block = block.copy()
    block.flags.writeable = False
    return block


# -------------------- schedulers


@cut_classes
def test_the_bits_are_the_same_on_many_threads(rng, classes):
    logits, labels = example(rng, rows=200)
    x = da.from_array(logits, chunks=(9, classes))
    results = gradient_of(x, labels, reduction="mean")
    alone = dask.compute(*results)
    for _ in range(5):
        together = dask.compute(*results, scheduler="threads", num_workers=8)
        assert all(same_bits(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.slow
@pytest.mark.skipif(PLANNED, reason="once is enough")
def test_a_cluster_of_processes_gives_the_same_bits_and_the_same_errors(rng):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    logits, labels = example(rng)
    x, y = da.from_array(logits, chunks=(9, 3)), da.from_array(labels, chunks=9)
    whole = da.from_array(logits, chunks=(9, 7))
    asked = [
        *gradient_of(x, y, reduction="mean", class_weight=[1, 2, 3, 4, 5, 6, 7]),
        *xent.row_statistics(whole, y),
        xent.cross_entropy(x, one_hot(labels, 7), label_smoothing=0.1),
        xent.binary_cross_entropy(x, one_hot(labels, 7), reduction="mean"),
    ]
    here = dask.compute(*asked)
    bad = xent.sparse_cross_entropy(x, np.where(np.arange(23) == 13, 9, labels))
    with (
        dask.config.set({"scheduler": None, "distributed.comm.timeouts.connect": "20s"}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        there = client.gather(client.compute(asked))
        with pytest.raises(xent.LabelError, match="position 13, is 9") as caught:
            client.compute(bad).result()

    assert all(same_bits(a, b) for a, b in zip(here, there, strict=True))
    assert caught.value.position == (13,)


@pytest.mark.slow
@pytest.mark.skipif(PLANNED, reason="this is the process that it starts")
def test_all_of_this_holds_with_query_planning():
    environment = {**os.environ, "DASK_ARRAY__QUERY_PLANNING": "True"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
