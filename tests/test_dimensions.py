"""Predictions of any number of dimensions: their rows in C order, wherever the classes are, in every format."""

import json
from itertools import pairwise

import dask.array as da
import formats
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from click.testing import CliRunner
from sklearn.metrics import accuracy_score, log_loss

import xent
from xent.cli.commands import main
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.options import Keys, Options
from xent.evaluation.sources.flat_rows import flat, rectangles
from xent.evaluation.sources.opening import open_source
from xent.evaluation.sources.source import read_rows

SHAPES = {
    "text": ((5, 7, 3), 2),
    "images": ((4, 3, 5, 7), 1),
    "classes first": ((3, 123), 0),
    "deep": ((2, 3, 2, 3, 5), 3),
}
SOME = {"by_class": True, "top_k": 2, "classwise": True}
cases = pytest.mark.parametrize("case", SHAPES)


def made(case, dtype=np.float64):
    """Logits, labels, and the class axis."""
    shape, axis = SHAPES[case]
    rng = np.random.default_rng(3)
    logits = (3 * rng.standard_normal(shape)).astype(dtype)
    return logits, rng.integers(0, shape[axis], shape[:axis] + shape[axis + 1 :]), axis


def rows_of(logits, labels, axis):
    """The rows and the labels, as they are defined."""
    return np.moveaxis(logits, axis, -1).reshape(-1, logits.shape[axis]).copy(), labels.reshape(-1)


@cases
def test_the_numbers_are_those_of_the_rows_in_c_order_and_of_scikit_learn(case):
    logits, labels, axis = made(case)
    rows, flat_labels = rows_of(logits, labels, axis)
    found = xent.evaluate(logits, labels, axis=axis, **SOME)

    assert found == xent.evaluate(rows, flat_labels, **SOME)
    assert found.mean_loss == pytest.approx(log_loss(flat_labels, xent.softmax(rows), labels=range(rows.shape[1])))
    assert found.accuracy == accuracy_score(flat_labels, rows.argmax(axis=1))


@cases
@pytest.mark.parametrize("chunk_bytes", [1, 100, 1000, 10**6])
def test_any_chunks_leave_the_same_bits_and_slices_and_clusters_have_the_shape_of_the_labels(
    case, chunk_bytes, tmp_path
):
    logits, labels, axis = made(case, np.float32)
    clusters = np.arange(labels.size).reshape(labels.shape) // 4
    rows, flat_labels = rows_of(logits, labels, axis)
    expected = xent.evaluate(rows, flat_labels, clusters=clusters.ravel(), slices=clusters.ravel() % 3)
    np.save(tmp_path / "x.npy", logits)
    for given in (logits, tmp_path / "x.npy"):
        found = xent.evaluate(given, labels, axis=axis, clusters=clusters, slices=clusters % 3, chunk_bytes=chunk_bytes)
        assert found == expected


def stored(folder, logits):
    """The logits in every format of several dimensions, by path."""
    np.save(folder / "c.npy", logits)
    np.save(folder / "f.npy", np.asfortranarray(logits))
    np.savez_compressed(folder / "x.npz", x=logits)
    formats.write_safetensors(folder / "x.safetensors", x=logits)
    logits.tofile(folder / "x.bin")
    chunks = tuple(max(1, size // 2) for size in logits.shape)
    zarr.create_array(folder / "x.zarr", data=logits, chunks=chunks)
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("chunked", data=logits, chunks=chunks)
        file.create_dataset("plain", data=logits)
    raw = f"x.bin#{logits.dtype},{','.join(map(str, logits.shape))}"
    names = ["c.npy", "f.npy", "x.npz#x", "x.safetensors#x", raw, "x.zarr", "x.h5#chunked", "x.h5#plain"]
    return [f"{folder}/{name}" for name in names]


@cases
def test_every_format_gives_the_same_bits(case, tmp_path):
    logits, labels, axis = made(case, np.float32)
    expected = xent.evaluate(*rows_of(logits, labels, axis))
    np.save(tmp_path / "y.npy", labels)
    for path in stored(tmp_path, logits):
        for chunk_bytes in (60, 1000):
            assert xent.evaluate(path, tmp_path / "y.npy", axis=axis, chunk_bytes=chunk_bytes) == expected, path


@cases
def test_dask_arrays_of_any_chunks_give_the_same_bits(case):
    logits, labels, axis = made(case)
    chunks = tuple(size if number == axis else max(1, size // 2) for number, size in enumerate(logits.shape))
    lazy, lazy_labels = da.from_array(logits, chunks=chunks), da.from_array(labels, chunks=2)

    assert xent.evaluate(lazy, lazy_labels, axis=axis) == xent.evaluate(*rows_of(logits, labels, axis))


def test_arrays_of_other_libraries_are_taken_with_their_axis():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    logits, labels, axis = made("images", np.float32)
    expected = xent.evaluate(*rows_of(logits, labels, axis))

    assert xent.evaluate(torch.asarray(logits), torch.asarray(labels), axis=1, chunk_bytes=100) == expected
    assert xent.evaluate(iter([(logits[:1], labels[:1]), (logits[1:], labels[1:])]), axis=1).metrics == expected.metrics


def test_shards_follow_each_other_along_their_first_axis(tmp_path):
    logits, labels, axis = made("images", np.float32)
    for number in range(4):
        np.save(tmp_path / f"{number}.npy", logits[number : number + 1])
    found = xent.evaluate(tmp_path, labels, axis=axis, chunk_bytes=200)

    assert found == xent.evaluate(*rows_of(logits, labels, axis))
    with pytest.raises(ValueError, match="must have every class of a row in one file, got 0 of float32"):
        xent.evaluate(tmp_path, np.zeros((3, 5, 7), int), axis=0)


def test_top_k_predictions_may_have_several_dimensions():
    logits, labels, _ = made("text")
    ids = np.argsort(-logits, axis=2)[..., :2]
    values = np.take_along_axis(xent.log_softmax(logits), ids, axis=2)
    top = xent.evaluation.sources.topk.TopK(ids, values, 3, "uniform")
    rows = xent.evaluation.sources.topk.TopK(ids.reshape(-1, 2), values.reshape(-1, 2), 3, "uniform")

    assert xent.evaluate(top, labels, chunk_bytes=100) == xent.evaluate(rows, labels.ravel())


def test_names_and_ignored_pixels_go_with_any_shape():
    logits, labels, axis = made("images")
    marked = np.where(np.arange(labels.size).reshape(labels.shape) % 5 == 0, -100, labels)
    text = np.where(marked < 0, "void", np.asarray(["cat", "dog", "road"])[labels])
    rows, flat_labels = rows_of(logits, marked, axis)
    expected = xent.evaluate(rows, flat_labels, ignore_index=-100, class_names=["cat", "dog", "road"], by_class=True)
    found = xent.evaluate(logits, text, axis=1, ignore_index="void", class_names=["cat", "dog", "road"], by_class=True)

    assert found == expected and found.ignored == 28


def test_a_comparison_has_an_axis():
    logits, labels, axis = made("images")
    rows, flat_labels = rows_of(logits, labels, axis)

    assert xent.compare(logits, logits / 2, labels, axis=1) == xent.compare(rows, rows / 2, flat_labels)


# ---------------------------------------------------------------------------------------------------------------------
# Chunks and memory


def test_a_chunk_has_no_more_bytes_than_asked_for_though_a_picture_has(tmp_path):
    zarr.create_array(tmp_path / "x.zarr", shape=(2, 4, 60, 50), dtype="f4", chunks=(1, 4, 20, 50))
    np.save(tmp_path / "x.npy", np.zeros((2, 4, 60, 50), np.float32))
    for path, step in ((tmp_path / "x.zarr", 20 * 50), (tmp_path / "x.npy", 25 * 50)):
        bounds = flat(open_source(path, "predictions"), 1).bounds(25 * 50 * 16 + 15)  # 25 lines of a picture, or 20
        assert bounds[:3] == [0, step, 2 * step] and bounds[-1] == 6000
        assert max(b - a for a, b in pairwise(bounds)) == step and 3000 in bounds


def test_a_chunk_in_hand_is_a_view():
    logits = np.zeros((4, 3, 50, 60), np.float32)
    source = flat(open_source(logits, "predictions"), 1)
    _, parts = source.parts(source.bounds(12 * 1000))

    assert len(parts) > 4 and all(np.shares_memory(view, logits) for part in parts for view in part.views)


def test_a_task_of_a_file_reads_its_own_part(tmp_path):
    array = zarr.create_array(tmp_path / "x.zarr", data=made("images")[0], chunks=(1, 3, 1, 7))
    source = flat(open_source(tmp_path / "x.zarr", "predictions"), 1)
    files = {str(path) for path in (tmp_path / "x.zarr" / "c").rglob("*") if path.is_file()}
    wanted = str(tmp_path / "x.zarr" / "c" / "2" / "0" / "3" / "0")
    for path in files - {wanted}:  # the others may be gone
        (tmp_path / path).unlink()
    line = read_rows(source.parts([0, 2 * 35 + 3 * 7, 2 * 35 + 4 * 7, 140])[1][1], 0, 7)

    np.testing.assert_array_equal(line, made("images")[0][2, :, 3].T)
    assert array.shape == (4, 3, 5, 7)


@pytest.mark.parametrize("sizes", [(3, 4), (2, 3, 2), (7,), (2, 1, 3)])
def test_rectangles_are_the_rows_in_their_order(sizes):
    whole = np.arange(np.prod(sizes)).reshape(sizes)
    for start in range(whole.size):
        for stop in range(start + 1, whole.size + 1):
            taken = [whole[index].ravel() for index in rectangles(sizes, start, stop)]
            assert np.concatenate(taken).tolist() == [*range(start, stop)]


@pytest.mark.parametrize("chunk_bytes", [1, 100, 10**6])
def test_a_stored_chunk_that_cannot_be_read_loses_its_own_rows_for_any_chunks(tmp_path, chunk_bytes):
    logits, labels, _ = made("text", np.float32)
    zarr.create_array(tmp_path / "x.zarr", data=logits, chunks=(2, 4, 3))
    planned = plan(tmp_path / "x.zarr", labels, Options(on_error="skip", chunk_bytes=chunk_bytes))
    (tmp_path / "x.zarr" / "c" / "1" / "1" / "0").write_bytes(b"no chunk")
    found = planned.run()

    assert (found.unread_rows, found.first_unread) == (2 * 3, 2 * 7 + 4)


def test_a_null_list_of_labels_loses_its_rows_alone(tmp_path):
    logits, labels, _ = made("text")
    listed = [None if i == 3 else row.tolist() for i, row in enumerate(labels)]
    pq.write_table(pa.table({"y": pa.array(listed, pa.list_(pa.int64()))}), tmp_path / "y.parquet", row_group_size=2)
    for chunk_bytes in (50, 10**6):
        found = xent.evaluate(logits, tmp_path / "y.parquet", on_error="skip", chunk_bytes=chunk_bytes)
        assert (found.unread_rows, found.first_unread) == (7, 21)


# ---------------------------------------------------------------------------------------------------------------------
# What does not fit, and the command line

REFUSED = {
    "labels of another axis": ({"axis": -1}, r"must have shape \(4, 3, 5\), got int64\[4, 5, 7\].*Pass axis=1 if"),
    "no such axis": ({"axis": 4}, r"`axis` must lie in \[-4, 4\), got 4 for float64\[4, 3, 5, 7\]"),
    "no axis": ({"axis": 1.5}, r"`axis` must be an int, got 1\.5"),
    "clusters of rows": (
        {"axis": 1, "clusters": np.zeros(140, int)},
        r"`clusters` must have shape \(4, 5, 7\)",
    ),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(options, message):
    logits, labels, _ = made("images")
    with pytest.raises((ValueError, TypeError), match=message):
        xent.evaluate(logits, labels, **options)


def test_labels_along_the_other_axis_of_a_table_are_told_of_it():
    logits, labels, _ = made("classes first")
    with pytest.raises(ValueError, match=r"must have shape \(3,\), got int64\[123\].*Pass axis=0"):
        xent.evaluate(logits, labels)
    with pytest.raises(ValueError, match=r"must have shape \(4, 5, 7\), got int64\[140\]"):
        xent.evaluate(made("images")[0], made("images")[1].ravel(), axis=1)


def test_the_command_line_has_an_axis(tmp_path):
    logits, labels, _ = made("images", np.float32)
    np.save(tmp_path / "x.npy", logits)
    np.save(tmp_path / "y.npy", labels)
    arguments = ["evaluate", f"{tmp_path}/x.npy", f"{tmp_path}/y.npy", "-q", "--json"]
    refused, followed = (CliRunner().invoke(main, [*arguments, *more]) for more in ([], ["--axis", "1"]))
    document = json.loads(followed.stdout)

    assert refused.exit_code == 2 and "Pass --axis 1 if the classes are along that axis" in refused.stderr
    assert document["metrics"]["loss"]["value"] == xent.evaluate(*rows_of(logits, labels, 1)).mean_loss
    assert document["inputs"]["predictions"]["shape"] == [4, 3, 5, 7] and document["options"]["axis"] == 1
    inspected = CliRunner().invoke(main, ["inspect", f"{tmp_path}/x.npy", "--axis", "1"])
    assert "140 rows of 3 classes, stored as 4 × 3 × 5 × 7" in inspected.stdout


def test_a_state_is_of_one_axis(tmp_path):
    square = np.random.default_rng(0).standard_normal((5, 5, 5)).astype(np.float32)
    np.save(tmp_path / "x.npy", square)
    np.save(tmp_path / "y.npy", np.zeros((5, 5), int))
    xent.evaluate(tmp_path / "x.npy", tmp_path / "y.npy", axis=0, state=tmp_path / "state")
    with pytest.raises(ValueError, match="have changed since"):
        xent.evaluate(tmp_path / "x.npy", tmp_path / "y.npy", axis=1, state=tmp_path / "state")


def test_no_rows_have_no_numbers():
    found = xent.evaluate(np.zeros((0, 4, 3)), np.zeros((0, 4), int))

    assert found.rows == 0 and np.isnan(found.mean_loss)
    assert plan(np.zeros((2, 0, 3)), np.zeros((2, 0), int), Options(), keys=Keys()).run().rows == 0


def test_named_dimensions_are_brought_into_order_by_their_names():
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    rng = np.random.default_rng(4)
    logits, labels, weights = rng.standard_normal((5, 5, 3)), rng.integers(0, 3, (5, 5)), rng.random((5, 5))
    expected = xent.evaluate(logits, labels, weights=weights, slices=labels.T)
    by_name = {
        "predictions": xarray.DataArray(logits, dims=("b", "s", "class")),
        "labels": xarray.DataArray(labels.T, dims=("s", "b")),
        "weights": xarray.DataArray(weights.T, dims=("s", "b")),
        "slices": xarray.DataArray(labels.T, dims=("b", "s")),
    }
    soft = xarray.DataArray(np.eye(3)[labels].transpose(2, 1, 0), dims=("class", "s", "b"))
    classes_first = by_name["predictions"].transpose("class", "b", "s")

    assert xent.evaluate(**by_name) == expected
    assert xent.evaluate(**{**by_name, "predictions": classes_first}, axis="class") == expected
    assert xent.evaluate(by_name["predictions"], soft).mean_loss == xent.evaluate(logits, labels).mean_loss
    assert xent.compare(classes_first, by_name["predictions"], by_name["labels"], axis="class").mean_difference == 0


def test_named_dimensions_that_do_not_fit_are_refused():
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    logits = xarray.DataArray(np.zeros((2, 3)), dims=("row", "class"), coords={"row": [7, 8]})
    labels = xarray.DataArray(np.zeros(2, int), dims="row", coords={"row": [8, 7]})
    for given, axis, message in (
        (labels, -1, "must have the coordinates of `predictions`"),
        (labels.rename(row="token"), -1, r"must have the dimensions \('row',\)"),
        (labels, "spam", "`axis` must be a dimension of the predictions"),
    ):
        with pytest.raises(ValueError, match=message):
            xent.evaluate(logits, given, axis=axis)
