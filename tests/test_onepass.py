"""One pass over a prediction set: the graph is small, and no schedule shows in the numbers."""

import math
import pickle
import subprocess
import sys
import threading
from dataclasses import astuple, replace
from itertools import pairwise
from types import SimpleNamespace

import cloudpickle
import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import xent
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.evaluations import compare, evaluate
from xent.evaluation.options import Options
from xent.evaluation.report.running import run_pass
from xent.evaluation.sources.messages import MalformedError, ReadError
from xent.evaluation.sources.source import MOST_ROWS, Source

ROWS, CLASSES = 507, 7


@pytest.fixture(scope="module")
def logits():
    return (5 * np.random.default_rng(2).normal(size=(ROWS, CLASSES))).astype(np.float16)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(3).integers(0, CLASSES, ROWS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, logits, labels):
    """The same set in every format."""
    folder = tmp_path_factory.mktemp("set")
    np.save(folder / "x.npy", logits)
    np.save(folder / "y.npy", labels)
    stored = zarr.create_array(folder / "x.zarr", shape=logits.shape, dtype="f2", chunks=(20, 3), shards=(60, 9))
    stored[:] = logits
    stored = zarr.create_array(folder / "y.zarr", shape=labels.shape, dtype="i8", chunks=(33,))
    stored[:] = labels
    return folder


@pytest.fixture(scope="module")
def expected(logits, labels):
    """From the definition, in float64."""
    x = logits.astype(float)
    loss = np.log(np.exp(x).sum(axis=1)) - x[np.arange(ROWS), labels]
    error = loss.std(ddof=1) / np.sqrt(len(loss))
    return SimpleNamespace(mean_loss=loss.mean(), standard_error=error, accuracy=np.mean(x.argmax(axis=1) == labels))


def test_the_numbers_are_those_of_the_definition(logits, labels, expected):
    result = evaluate(logits, labels)

    assert result.mean_loss == pytest.approx(expected.mean_loss, rel=1e-6)
    assert result.standard_error == pytest.approx(expected.standard_error, rel=1e-6)
    assert (result.accuracy, result.counted) == (expected.accuracy, ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("predictions", ["x.npy", "x.zarr"])
@pytest.mark.parametrize("truth", ["y.npy", "y.zarr"])
@pytest.mark.parametrize("scheduler", [None, "threads", "sync"])
@pytest.mark.parametrize("chunk_bytes", [1, 500, 10**6])
def test_chunk_size_scheduler_and_format_leave_the_same_bits(
    folder, logits, labels, predictions, truth, scheduler, chunk_bytes
):
    result = evaluate(folder / predictions, folder / truth, chunk_bytes=chunk_bytes, scheduler=scheduler)

    assert result == evaluate(logits, labels)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, ROWS), max_size=5), st.integers(1, ROWS))
def test_any_chunks_of_rows_of_a_dask_array_leave_the_same_bits(logits, labels, cuts, label_rows):
    edges = [0, *sorted(cuts), ROWS]
    rows = tuple(b - a for a, b in pairwise(edges))
    lazy = da.from_array(logits, chunks=(rows, -1))
    result = evaluate(lazy, da.from_array(labels, chunks=label_rows), scheduler="sync")

    assert result == evaluate(logits, labels)


@pytest.mark.parametrize("classes", [1, 3, CLASSES - 1])
@pytest.mark.parametrize("kind", ["logits", "log_probabilities"])
def test_predictions_cut_along_their_classes_are_folded_and_never_joined(logits, labels, classes, kind, monkeypatch):
    if kind == "log_probabilities":
        logits = np.log(xent.softmax(logits))
    whole = evaluate(logits, labels, kind=kind, ignore_index=2, top_k=3)
    lazy = da.from_array(logits, chunks=(100, classes))
    if kind == "logits":
        monkeypatch.setattr(da.Array, "rechunk", None)
    cut = evaluate(lazy, labels, kind=kind, ignore_index=2, top_k=3)

    assert (cut.counted, cut.accuracy, cut.top_k_accuracy) == (whole.counted, whole.accuracy, whole.top_k_accuracy)
    for name, metric in whole.metrics.items():
        assert astuple(cut.metrics[name]) == pytest.approx(astuple(metric), rel=1e-6), name
    assert [one._replace(predicted=None) for one in whole.worst] == [
        one._replace(loss=pytest.approx(one.loss, rel=1e-6)) for one in cut.worst
    ]


@pytest.mark.parametrize("asked", [{"classwise": True}, {"auc": True}, {"fit_temperature": True}])
def test_what_needs_whole_rows_is_refused_where_classes_are_cut(logits, labels, asked):
    with pytest.raises(ValueError, match=r"must have every class of a row in one piece, .* Call rechunk\(\{1: -1\}\)"):
        evaluate(da.from_array(logits, chunks=(100, 3)), labels, **asked)


@pytest.mark.slow
def test_a_cluster_of_processes_leaves_the_same_bits(folder, logits, labels):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    cluster = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(**cluster) as local, distributed.Client(local) as client:
        by_address = evaluate(folder / "x.npy", folder / "y.npy", chunk_bytes=500, scheduler=local.scheduler_address)
        by_client = evaluate(folder / "x.zarr", folder / "y.zarr", chunk_bytes=500, scheduler=client)

    assert by_address == by_client == evaluate(logits, labels)


def test_two_runs_on_one_cluster_do_not_take_each_others_chunks(folder, logits, labels):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    graphs = [plan(folder / "x.npy", folder / "y.npy", Options(chunk_bytes=500)).work().graph()[0] for _ in range(2)]
    with (
        distributed.LocalCluster(1, processes=False, dashboard_address="127.0.0.1:0") as local,
        distributed.Client(local) as it,
    ):
        # another run's, still held
        kept = it.get(*plan(-logits, labels, Options(chunk_bytes=500)).work().graph(), sync=False)
        assert evaluate(logits, labels, chunk_bytes=500, scheduler=it) == evaluate(logits, labels)
        del kept

    assert not graphs[0].keys() & graphs[1].keys()


def test_a_forced_kernel_is_forced_on_a_cluster_too(folder):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    with (
        distributed.LocalCluster(1, processes=False, dashboard_address="127.0.0.1:0") as local,
        distributed.Client(local) as it,
    ):
        with xent.using(kernel="nope"), pytest.raises(ValueError, match="'nope', which is not registered"):
            evaluate(folder / "x.npy", folder / "y.npy", scheduler=it)
        with xent.using(kernel="generic"):
            assert evaluate(folder / "x.npy", folder / "y.npy", scheduler=it).rows == ROWS


def test_a_comparison_of_chunks_cut_otherwise_is_that_of_the_arrays(logits, labels):
    a, b = da.from_array(logits, chunks=(100, -1)), da.from_array(-logits, chunks=(77, 3))
    found, expected = (xent.compare(*pair, labels) for pair in ((a, b), (logits, -logits)))

    assert found.mean_difference == pytest.approx(expected.mean_difference, rel=1e-6)


def test_a_file_in_fortran_order_leaves_the_same_bits(logits, labels, tmp_path):
    np.save(tmp_path / "x.npy", np.asfortranarray(logits))

    assert evaluate(tmp_path / "x.npy", labels, chunk_bytes=100) == evaluate(logits, labels)


# ---------------------------------------------------------------------------------------------------------------------
# The graph


@pytest.mark.parametrize("rows", [10_000, 1_000_000])
@pytest.mark.parametrize("tasks", [1, 100])
def test_a_graph_holds_no_data_whatever_the_size_of_the_file(tmp_path, rows, tasks):
    for name, shape, dtype in (("x.npy", (rows, 100), "f4"), ("y.npy", (rows,), "i8")):
        np.lib.format.open_memmap(tmp_path / name, "w+", dtype, shape)  # a hole in the disk until it is written
    planned = plan(tmp_path / "x.npy", tmp_path / "y.npy", Options(chunk_bytes=400 * rows // tasks))

    assert planned.tasks == max(tasks, -(-rows // MOST_ROWS))
    assert len(cloudpickle.dumps(planned.work().graph()[0])) <= 10_000 + 500 * tasks


def test_a_zarr_graph_holds_no_data(folder):
    planned = plan(folder / "x.zarr", folder / "y.zarr", Options(chunk_bytes=1))

    assert len(cloudpickle.dumps(planned.work().graph()[0])) <= 10_000 + 500 * planned.tasks


def test_arrays_embedded_in_the_graph_would_not_pass_the_test_of_its_size():
    planned = plan(np.zeros((10_000, 100), np.float32), np.zeros(10_000, int))

    assert len(cloudpickle.dumps(planned.work().graph()[0])) > 10_000 + 500 * planned.tasks


@pytest.mark.parametrize("tasks", [1, 2, 16, 17, 300])
def test_there_is_one_task_for_each_chunk_and_a_tree(tasks):
    planned = plan(np.zeros((tasks, 2)), np.zeros(tasks, int), Options(chunk_bytes=16))
    chunks = [key for key in planned.work().graph()[0] if key[0] == "xent-chunk"]

    assert len(chunks) == planned.tasks == tasks
    assert len(planned.work().graph()[0]) - tasks <= 1 + tasks // 15 + 2
    assert all(len(task[1]) <= 16 for key, task in planned.work().graph()[0].items() if key[0] != "xent-chunk")


def test_planning_reads_and_computes_nothing(folder, labels, monkeypatch):
    def touched(*_):
        raise AssertionError("something was computed")

    for source in Source.__subclasses__():
        if "read" in vars(source):
            monkeypatch.setattr(source, "read", touched)
    lazy = da.map_blocks(touched, da.from_array(labels, chunks=50), dtype=labels.dtype, meta=labels[:0])
    plan(folder / "x.npy", folder / "y.npy")
    plan(folder / "x.zarr", lazy)

    with pytest.raises(AssertionError, match="something was computed"):
        evaluate(folder / "x.zarr", lazy, scheduler="sync")


def test_a_plan_survives_pickling(folder, logits, labels):
    planned = pickle.loads(pickle.dumps(plan(folder / "x.npy", folder / "y.npy", Options(chunk_bytes=500))))

    assert run_pass(planned) == evaluate(logits, labels)


MEASURE = """
import resource, sys
import dask
from xent.evaluation.evaluations import evaluate

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

evaluate("small.npy", "small_labels.npy")
before = peak()
with dask.config.set(num_workers=2):
    evaluate("x.npy", "y.npy", chunk_bytes=2**23)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no resource module to measure with")
def test_memory_is_that_of_the_chunks_at_work_and_not_of_the_file(tmp_path):
    for rows, predictions, labels in ((100, "small.npy", "small_labels.npy"), (2_000_000, "x.npy", "y.npy")):
        np.save(tmp_path / predictions, np.zeros((rows, 128), np.float16))
        np.save(tmp_path / labels, np.zeros(rows, np.uint8))
    told = subprocess.run([sys.executable, "-c", MEASURE], cwd=tmp_path, capture_output=True, text=True, timeout=100)

    assert told.returncode == 0, told.stderr
    assert int(told.stdout) < 2 * 2**23 * 2 + 100e6 < (tmp_path / "x.npy").stat().st_size / 2


# ---------------------------------------------------------------------------------------------------------------------
# Rows that are not like the others


def spoilt(labels, **rows):
    """The labels with some replaced: spoilt(labels, row_3=-1)."""
    labels = labels.copy()
    for name, value in rows.items():
        labels[int(name.removeprefix("row_"))] = value
    return labels


@pytest.mark.parametrize("scheduler", ["threads", "sync"])
@pytest.mark.parametrize("chunk_bytes", [500, 10**6])
def test_bad_labels_are_an_error_that_names_how_many_and_the_first(logits, labels, scheduler, chunk_bytes):
    labels = spoilt(labels, row_400=CLASSES, row_123=-5, row_506=99)

    with pytest.raises(xent.LabelError, match=r"lie in \[0, 7\), got 3 that do not, the first -5 in row 123") as caught:
        evaluate(logits, labels, scheduler=scheduler, chunk_bytes=chunk_bytes)
    assert (caught.value.count, caught.value.position, caught.value.value) == (3, (123,), -5)


def test_bad_labels_may_be_counted_and_left_out(logits, labels):
    result = evaluate(logits, spoilt(labels, row_400=CLASSES, row_123=-5), on_bad_label="skip", chunk_bytes=500)
    kept = np.delete(np.arange(ROWS), [123, 400])
    without = evaluate(logits[kept], labels[kept])

    assert (result.bad_labels, result.first_bad_label, result.counted) == (2, 123, ROWS - 2)
    assert (result.mean_loss, result.standard_error) == (without.mean_loss, without.standard_error)


@pytest.mark.parametrize("ignore_index", [-100, [-100, 5], np.int64(-100), iter([-100])])
def test_ignored_rows_are_left_out_whatever_they_hold(logits, labels, ignore_index):
    logits, labels = logits.copy(), spoilt(labels, row_3=-100, row_200=-100)
    labels[labels == 5] = 4
    logits[3] = math.nan
    result = evaluate(logits, labels, ignore_index=ignore_index, chunk_bytes=500)
    kept = np.delete(np.arange(ROWS), [3, 200])

    assert (result.ignored, result.counted, result.nan_rows) == (2, ROWS - 2, 0)
    assert result.mean_loss == evaluate(logits[kept], labels[kept]).mean_loss


def test_an_ignored_label_that_the_dtype_cannot_hold_ignores_nothing(logits, labels):
    assert evaluate(logits, labels.astype(np.uint8), ignore_index=[-100, 256]).ignored == 0


@pytest.mark.parametrize("dtype", ["u1", "i1", ">i4", "u8", "i8"])
def test_labels_of_any_integer_dtype_give_the_same_bits(logits, labels, dtype):
    assert evaluate(logits, labels.astype(dtype)) == evaluate(logits, labels)


def test_an_unsigned_label_past_every_signed_one_is_bad(logits, labels):
    labels = spoilt(labels.astype(np.uint64), row_9=2**64 - 1)

    with pytest.raises(xent.LabelError, match="the first 18446744073709551615 in row 9"):
        evaluate(logits, labels)


def test_rows_that_are_nan_are_counted_and_named(logits, labels):
    logits = logits.copy()
    logits[77, 2], logits[300] = math.nan, -math.inf
    result = evaluate(logits, labels, chunk_bytes=500)

    assert math.isnan(result.mean_loss)
    assert (result.nan_rows, result.first_nan, result.counted) == (2, 77, ROWS)


def test_a_label_of_probability_zero_is_counted_and_named(logits, labels):
    logits = logits.copy()
    logits[77, labels[77]] = -math.inf
    result = evaluate(logits, labels, chunk_bytes=500)

    assert (result.mean_loss, result.infinite_rows, result.first_infinite) == (math.inf, 1, 77)


def test_the_three_kinds_of_predictions_agree(logits, labels):
    x = logits.astype(float)
    log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    by_logits = evaluate(x, labels).mean_loss

    assert evaluate(log_p, labels, kind="log_probabilities").mean_loss == pytest.approx(by_logits, rel=1e-13)
    assert evaluate(np.exp(log_p), labels, kind="probabilities").mean_loss == pytest.approx(by_logits, rel=1e-13)


def test_a_set_without_rows_has_no_mean(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((0, 3)))
    np.save(tmp_path / "y.npy", np.zeros(0, int))
    result = evaluate(tmp_path / "x.npy", tmp_path / "y.npy")

    assert result.rows == 0 and math.isnan(result.mean_loss)


# ---------------------------------------------------------------------------------------------------------------------
# Running


@pytest.mark.parametrize("scheduler", ["threads", "sync"])
def test_progress_is_told_the_rows_of_each_chunk_in_the_calling_thread(folder, scheduler):
    told = []

    def progress(rows):
        told.append((rows, threading.get_ident()))

    evaluate(folder / "x.npy", folder / "y.npy", chunk_bytes=14 * 100, scheduler=scheduler, progress=progress)

    assert sorted(rows for rows, _ in told) == [7, 100, 100, 100, 100, 100]
    assert {thread for _, thread in told} == {threading.get_ident()}


def test_a_file_that_changes_after_planning_is_an_error_that_names_it(tmp_path, logits, labels):
    np.save(tmp_path / "x.npy", logits)
    planned = plan(tmp_path / "x.npy", labels)
    np.save(tmp_path / "x.npy", logits[:-1])

    with pytest.raises(ReadError, match=r"x\.npy has changed"):
        planned.run()


def test_a_truncated_file_is_an_error_before_any_work(tmp_path, logits, labels):
    np.save(tmp_path / "x.npy", logits)
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-1])

    with pytest.raises(ReadError, match=r"x\.npy is truncated"):
        plan(tmp_path / "x.npy", labels)


def test_a_corrupt_chunk_is_an_error_that_names_its_rows(tmp_path, logits, labels):
    stored = zarr.create_array(tmp_path / "x.zarr", shape=logits.shape, dtype="f2", chunks=(100, CLASSES))
    stored[:] = logits
    (tmp_path / "x.zarr" / "c" / "3" / "0").write_bytes(b"nonsense")

    with pytest.raises(ReadError, match=r"rows 300 to 400 of .*x\.zarr"):
        evaluate(tmp_path / "x.zarr", labels, chunk_bytes=14 * 100)


@pytest.mark.parametrize(
    ("layout", "lost", "files"),
    [
        ({"chunks": (100, 3)}, "c/3/1", 18),
        ({"chunks": (20, 3), "shards": (60, 6)}, "c/3/1", 18),
        ({"chunks": (100, 3), "zarr_format": 2}, "3.1", 18),
    ],
    ids=["chunks", "shards that end past the array", "version 2"],
)
def test_a_zarr_array_that_lacks_a_chunk_is_refused_before_any_work(tmp_path, logits, labels, layout, lost, files):
    stored = zarr.create_array(tmp_path / "x.zarr", shape=logits.shape, dtype="f2", **layout)
    stored[:] = logits
    plan(tmp_path / "x.zarr", labels)
    (tmp_path / "x.zarr" / lost).unlink()

    with pytest.raises(
        ReadError, match=rf"x\.zarr is incomplete: 1 of its {files} chunk files are missing, the first .*{lost}"
    ):
        plan(tmp_path / "x.zarr", labels)


@pytest.mark.parametrize("argument", ["predictions", "labels"])
@pytest.mark.parametrize(
    ("layout", "chunk"),
    [({}, "c/1"), ({"zarr_format": 2}, "1"), ({"shards": True}, "c/1")],
    ids=["version 3", "version 2", "shards"],
)
def test_a_folder_in_the_place_of_a_chunk_is_an_error(tmp_path, logits, labels, argument, layout, chunk):
    inputs = {"predictions": logits, "labels": labels}
    array, path = inputs[argument], tmp_path / "x.zarr"
    layout = layout | ({"shards": (100, *array.shape[1:])} if "shards" in layout else {})
    rows = 20 if "shards" in layout else 100
    zarr.create_array(path, shape=array.shape, dtype=array.dtype, chunks=(rows, *array.shape[1:]), **layout)[:] = array
    if argument == "predictions":
        chunk += "/0" if chunk == "c/1" else ".0"
    (path / chunk).unlink()
    (path / chunk).mkdir()

    for zeros_ok in (False, True):
        with pytest.raises(MalformedError, match=rf"x\.zarr/{chunk} is a folder where a chunk must be"):
            evaluate(**inputs | {argument: path}, zeros_ok=zeros_ok)


@pytest.mark.parametrize("layout", [{"chunks": (100,)}, {"chunks": (20,), "shards": (100,)}])
@pytest.mark.parametrize("argument", ["labels", "slices", "clusters"])
def test_a_chunk_that_is_not_stored_is_an_error_unless_it_is_said_to_hold_zeros(
    tmp_path, logits, labels, argument, layout
):
    first = np.where(np.arange(len(labels)) < 100, 0, labels)
    stored = zarr.create_array(tmp_path / "y.zarr", shape=labels.shape, dtype=labels.dtype, **layout)
    stored[:] = first  # of a chunk of zeros zarr writes nothing
    inputs, expected = {"labels": first, argument: tmp_path / "y.zarr"}, {"labels": first, argument: first}

    assert not (tmp_path / "y.zarr" / "c" / "0").exists()
    with pytest.raises(ReadError, match=r"y\.zarr is incomplete: 1 of its 6 chunk files .*c/0\..* pass zeros_ok=True"):
        evaluate(logits, **inputs)
    made = evaluate(logits, **inputs, zeros_ok=True)
    assert made.unstored_chunks == {argument: 1}
    assert replace(made, unstored_chunks={}) == evaluate(logits, **expected)


def test_predictions_of_a_chunk_of_zeros_are_taken_where_they_are_said_to_be(tmp_path, logits, labels):
    logits = np.where(np.arange(len(labels))[:, None] < 100, 0, logits).astype(logits.dtype)
    for chunks, count in (((100, 3), 3), ((60, CLASSES), 1)):
        stored = zarr.create_array(tmp_path / "x.zarr", shape=logits.shape, dtype="f2", chunks=chunks, overwrite=True)
        stored[:] = logits

        assert evaluate(tmp_path / "x.zarr", labels, zeros_ok=True).unstored_chunks == {"predictions": count}
        made = compare(logits, tmp_path / "x.zarr", labels, zeros_ok=True)
        assert (made.unstored_chunks, made.ties) == ({"b": count}, len(labels))


def test_a_chunk_that_is_lost_in_the_run_is_seen_where_others_were_never_stored(tmp_path, logits, labels):
    stored = zarr.create_array(tmp_path / "y.zarr", shape=labels.shape, dtype=labels.dtype, chunks=(100,))
    stored[100:] = labels[100:]

    def progress(rows):
        (tmp_path / "y.zarr" / "c" / "4").unlink(missing_ok=True)

    with pytest.raises(ReadError, match=r"chunks of int64\[507\] in .*y\.zarr were lost or written during the run"):
        evaluate(logits, tmp_path / "y.zarr", zeros_ok=True, chunk_bytes=1400, scheduler="sync", progress=progress)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"kind": "odds"},
            ValueError,
            r"evaluate: `kind` must be one of 'logits', .* got 'odds'\. The default is 'logits'",
        ),
        ({"on_bad_label": "warn"}, ValueError, r"evaluate: `on_bad_label` must be one of 'error', 'skip', got 'warn'"),
        ({"chunk_bytes": 0}, ValueError, r"evaluate: `chunk_bytes` must be a whole number, at least 1, got 0\."),
        ({"on_error": "pass"}, ValueError, r"evaluate: `on_error` must be one of 'error', 'skip', got 'pass'"),
        ({"scheduler": "processes:0"}, ValueError, r"evaluate: `scheduler` must be None, .* got 'processes:0'"),
        ({"scheduler": 3}, ValueError, r"evaluate: `scheduler` must be None, .* got 3"),
        ({"ignore_index": 1.5}, TypeError, r"evaluate: `ignore_index` must be an int, .* got 1\.5"),
        ({"scheduler": "process"}, ValueError, r"evaluate: `scheduler` must be None, .* got 'process'"),
    ],
)
def test_an_option_that_cannot_be_is_refused(logits, labels, options, error, message):
    with pytest.raises(error, match=message):
        evaluate(logits, labels, **options)


@pytest.mark.parametrize("chunk_bytes", ["64MiB", True, 1e6, None])
def test_a_chunk_size_that_is_no_whole_number_is_refused_by_its_name(logits, labels, chunk_bytes):
    message = rf"evaluate: `chunk_bytes` must be a whole number, at least 1, got {chunk_bytes!r}\. Pass 64 \* 2\*\*20"

    with pytest.raises(TypeError, match=message):
        evaluate(logits, labels, chunk_bytes=chunk_bytes)


def test_a_scheduler_that_does_not_answer_is_a_connection_error(logits, labels, monkeypatch):
    pytest.importorskip("distributed", reason="distributed is not installed")
    monkeypatch.setattr("xent.evaluation.engine.clusters.CONNECT_SECONDS", 0.5)

    with pytest.raises(ConnectionError, match=r"evaluate: `scheduler` must be .* got tcp://127\.0\.0\.1:9"):
        evaluate(logits, labels, scheduler="tcp://127.0.0.1:9")


def test_the_losses_of_a_chunk_do_not_depend_on_its_neighbours(logits, labels):
    whole = xent.row_statistics(logits, labels).loss
    parts = [xent.row_statistics(logits[i : i + 11], labels[i : i + 11]).loss for i in range(0, ROWS, 11)]

    np.testing.assert_array_equal(whole, np.concatenate(parts))
