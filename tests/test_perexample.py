"""The loss of every row, in a file that is there whole or not at all."""

import os
import resource
import signal

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zarr

import xent
from xent.evaluation.engine import row_losses
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.evaluations import evaluate
from xent.evaluation.options import Keys, Outputs
from xent.evaluation.outputs import WriteError
from xent.evaluation.sources.topk import TopK

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


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk_bytes", [1, 28 * 50, 10**6])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_the_file_holds_the_losses_that_were_averaged(logits, labels, name, chunk_bytes, dtype, monkeypatch):
    monkeypatch.setattr(row_losses, "BLOCK_ROWS", 100)
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
        plan(-logits, labels, outputs=Outputs(name))

    np.testing.assert_array_equal(read(name), before)
    evaluate(-logits, labels, per_example=name, overwrite=True)
    np.testing.assert_array_equal(read(name), xent.row_statistics(-logits, labels).loss)
    assert os.listdir() == [name]


def full(draft, _, **options):
    """In the place of a writer: the disk is full when half is written."""
    if not draft.exists():
        draft.write_bytes(b"half")
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("step", ["write", "move"])
@pytest.mark.parametrize("name", NAMES)
def test_an_output_that_cannot_be_finished_leaves_what_was_there(logits, labels, name, step, monkeypatch):
    evaluate(logits, labels, per_example=name)
    if step == "move" or name == "loss.npy":  # which is only given its name
        monkeypatch.setattr(row_losses, "move", full)
    else:
        monkeypatch.setitem(row_losses.WRITERS, os.path.splitext(name)[1], full)
    with pytest.raises(WriteError, match=rf"evaluate: .*/{name} could not be written \(No space left on device\)"):
        evaluate(-logits, labels, per_example=name, overwrite=True)

    assert os.listdir() == [name]
    np.testing.assert_array_equal(read(name), xent.row_statistics(logits, labels).loss)


@pytest.fixture
def inputs(logits, labels):
    """Predictions of many formats, their labels, slices and clusters, and the largest log-probabilities of each row."""
    np.save("x.npy", logits)
    np.save("y.npy", labels)
    np.save("slices.npy", labels % 2)
    np.save("clusters.npy", labels // 2)
    columns = {"logits": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(logits.ravel()), CLASSES)}
    pyarrow.parquet.write_table(pyarrow.table(columns), "x.parquet")
    zarr.open_group("g.zarr", mode="w").create_array("logits", data=logits, chunks=(100, CLASSES))
    os.mkdir("parts")
    for i, part in enumerate(np.array_split(logits, 3)):
        np.save(f"parts/{i}.npy", part)
    np.save("ids.npy", np.tile([0, 1], (ROWS, 1)))
    np.save("values.npy", np.full((ROWS, 2), -1.0))
    os.symlink("x.npy", "link.npy")
    return TopK("ids.npy", "values.npy", CLASSES, "uniform")


@pytest.mark.parametrize(
    ("predictions", "output"),
    [
        ("x.npy", "x.npy"),
        ("x.npy", "link.npy"),
        ("link.npy", "x.npy"),
        ("x.npy", "y.npy"),
        ("x.npy", "slices.npy"),
        ("x.npy", "clusters.npy"),
        ("x.parquet", "x.parquet"),
        ("x.parquet#logits", "x.parquet"),
        ("g.zarr#logits", "g.zarr/logits/loss.npy"),
        ("parts", "parts/1.npy"),
        ("parts/*.npy", "parts/1.npy"),
        ("top", "ids.npy"),
        ("top", "values.npy"),
        ("mapped", "x.npy"),
    ],
)
def test_what_is_read_is_never_overwritten(inputs, predictions, output):
    taken = {"top": inputs, "mapped": np.load("x.npy", mmap_mode="r")}.get(predictions, predictions)
    with pytest.raises(ValueError, match=r"`per_example` must be another path than the inputs, got .* is read"):
        plan(taken, "y.npy", keys=Keys("slices.npy", "clusters.npy"), outputs=Outputs(output, overwrite=True))


def test_a_zarr_array_that_is_read_is_never_overwritten(logits, labels):
    zarr.create_array("x.zarr", data=logits)
    with pytest.raises(ValueError, match="must be another path than the inputs"):
        plan("x.zarr", labels, outputs=Outputs("x.zarr", overwrite=True))


@pytest.mark.parametrize("name", [*NAMES, "group.zarr", "file.zarr"])
def test_nothing_but_an_output_is_overwritten(logits, labels, name):
    if name == "group.zarr":
        zarr.open_group(name, mode="w").create_array("precious", shape=(3,), dtype="int32")
    elif name == "file.zarr":
        open(name, "w").close()
    else:
        os.mkdir(name)
    with pytest.raises(ValueError, match=r"`per_example` must be (the path of a file|new, or a Zarr array)"):
        plan(logits, labels, outputs=Outputs(name, overwrite=True))


def test_an_output_at_a_link_is_where_that_leads(logits, labels):
    np.save("there.npy", labels)
    os.symlink("there.npy", "link.npy")
    evaluate(logits, labels, per_example="link.npy", overwrite=True)

    assert os.path.islink("link.npy") and sorted(os.listdir()) == ["link.npy", "there.npy"]
    np.testing.assert_array_equal(np.load("there.npy"), xent.row_statistics(logits, labels).loss)


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(logits, labels, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # a test may be run by root, who may write anywhere
    with pytest.raises(PermissionError, match="`per_example` must lie in a folder that can be written to"):
        plan(logits, labels, outputs=Outputs("loss.npy"))


def test_a_full_disk_is_found_before_any_work(logits, labels, monkeypatch):
    asked = []

    def allocate(_, offset, size):
        asked.append((offset, size))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", allocate, raising=False)
    planned = plan(logits, labels, outputs=Outputs("loss.npy"))
    monkeypatch.setattr(planned.predictions.__class__, "parts", lambda *_: pytest.fail("a graph is made"))
    with pytest.raises(WriteError, match=r"loss\.npy could not be written \(No space left on device\)"):
        planned.run()

    assert asked == [(0, 128 + 4 * ROWS)] and os.listdir() == []


def test_a_row_that_no_task_has_written_is_nan_and_has_its_place_on_the_disk(logits, labels):
    losses = plan(logits, labels, outputs=Outputs("loss.npy")).losses
    losses.prepare()
    row_losses.write_losses(losses.scratch, 3, np.asarray([1.0, 2.0]), 2)
    written = np.load(losses.scratch)

    assert written[3:5].tolist() == [1, 2] and np.isnan(written).sum() == ROWS - 2
    assert os.stat(losses.scratch).st_blocks * 512 >= ROWS * 4


def test_a_task_whose_loss_cannot_be_written_has_an_error_and_no_signal(logits, labels):
    losses = plan(logits, labels, outputs=Outputs("loss.npy")).losses
    losses.prepare()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
        with pytest.raises(OSError, match="File too large"):
            row_losses.write_losses(losses.scratch, 100, np.ones(300), 300)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("loss.csv", ValueError, r"`per_example` must be the path of a .npy or .parquet or .zarr file, got loss\.csv"),
        ("nowhere/loss.npy", FileNotFoundError, r"`per_example` must lie in a folder that is there, got .*nowhere"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_any_work(logits, labels, name, error, message):
    with pytest.raises(error, match=message):
        plan(logits, labels, outputs=Outputs(name))
