"""The loss of every row, in a file that is there whole or not at all."""

import os

import numpy as np
import pyarrow.parquet
import pytest
import zarr

import xent
from xent.evaluation import perexample
from xent.evaluation.onepass import evaluate, plan

ROWS, CLASSES = 507, 7
NAMES = ["loss.npy", "loss.zarr", "loss.parquet"]


@pytest.fixture
def logits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return np.random.default_rng(2).normal(size=(ROWS, CLASSES)).astype(np.float32)


@pytest.fixture
def labels():
    return np.random.default_rng(3).integers(0, CLASSES, ROWS)


def read(name):
    if name.endswith(".npy"):
        return np.load(name)
    if name.endswith(".zarr"):
        return zarr.open_array(name, mode="r")[:]
    return pyarrow.parquet.read_table(name)["loss"].to_numpy()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk_bytes", [1, 28 * 50, 10**6])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_the_file_holds_the_losses_that_were_averaged(logits, labels, name, chunk_bytes, dtype, monkeypatch):
    monkeypatch.setattr(perexample, "BLOCK_ROWS", 100)
    logits = logits.astype(dtype)
    found = evaluate(logits, labels, per_example=name, chunk_bytes=chunk_bytes)
    losses = read(name)

    assert losses.dtype == (np.float64 if dtype is np.float64 else np.float32)
    np.testing.assert_array_equal(losses, xent.row_statistics(logits, labels).loss)
    assert found == evaluate(logits, labels) and os.listdir() == [name]


def test_a_row_that_is_left_out_has_no_loss(logits, labels):
    labels[[3, 100]] = -1, CLASSES
    found = evaluate(logits, labels, ignore_index=-1, on_bad_label="skip", per_example="loss.npy", chunk_bytes=1000)
    losses = np.load("loss.npy")

    assert np.flatnonzero(np.isnan(losses)).tolist() == [3, 100]
    assert np.nanmean(losses, dtype=float) == pytest.approx(found.mean_loss, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_set_of_no_rows_has_a_file_of_no_rows(logits, name):
    evaluate(logits[:0], np.zeros(0, int), per_example=name)

    assert read(name).shape == (0,)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_fails_leaves_nothing(logits, labels, name):
    labels[77] = CLASSES
    with pytest.raises(xent.LabelError):
        evaluate(logits, labels, per_example=name, chunk_bytes=1000)

    assert os.listdir() == []


@pytest.mark.parametrize("name", NAMES)
def test_what_is_there_is_kept_unless_it_may_be_overwritten(logits, labels, name):
    evaluate(logits, labels, per_example=name)
    before = read(name)
    with pytest.raises(FileExistsError, match=r"`per_example` must be a new file, got .*, which is there"):
        plan(-logits, labels, per_example=name)

    np.testing.assert_array_equal(read(name), before)
    evaluate(-logits, labels, per_example=name, overwrite=True)
    np.testing.assert_array_equal(read(name), xent.row_statistics(-logits, labels).loss)
    assert os.listdir() == [name]


@pytest.mark.parametrize("name", NAMES)
def test_an_output_that_cannot_be_finished_leaves_what_was_there(logits, labels, name, monkeypatch):
    evaluate(logits, labels, per_example=name)

    def full(draft, _):
        draft.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(perexample.WRITERS, os.path.splitext(name)[1], full)
    with pytest.raises(OSError, match="No space left"):
        evaluate(-logits, labels, per_example=name, overwrite=True)

    assert os.listdir() == [name]
    np.testing.assert_array_equal(read(name), xent.row_statistics(logits, labels).loss)


def test_the_predictions_are_never_overwritten(logits, labels):
    np.save("x.npy", logits)
    with pytest.raises(ValueError, match="`per_example` must be another file than the predictions"):
        plan("x.npy", labels, per_example="x.npy", overwrite=True)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("loss.csv", ValueError, r"`per_example` must be the path of a .npy or .parquet or .zarr file, got loss\.csv"),
        ("nowhere/loss.npy", FileNotFoundError, r"`per_example` must lie in a folder that is there, got .*nowhere"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_any_work(logits, labels, name, error, message):
    with pytest.raises(error, match=message):
        plan(logits, labels, per_example=name)
