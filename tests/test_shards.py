"""Sets in many files."""

import pickle
from itertools import pairwise

import cloudpickle
import formats
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from formats import CLASSES, ROWS

from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.evaluations import evaluate
from xent.evaluation.options import Options
from xent.evaluation.sources.messages import ReadError
from xent.evaluation.sources.opening import open_source

EDGES = [0, 60, 61, 61, 200, 330, 331, 400, 401, 450, 500, 505, ROWS]  # one shard is empty; there are more than ten


@pytest.fixture
def logits():
    return formats.some_logits()


@pytest.fixture
def labels():
    return formats.some_labels()


def parts(array):
    return [array[start:stop] for start, stop in pairwise(EDGES)]


def write_zarr(path, array):
    zarr.create_array(path, shape=array.shape, dtype=array.dtype, chunks=(max(1, min(17, len(array))), 3))[:] = array


def write_hdf(path, array):
    with h5py.File(path, "w") as file:
        file["x"] = array


WRITERS = {
    ".npy": np.save,
    ".npz": lambda path, array: np.savez(path, x=array),
    ".safetensors": lambda path, array: formats.write_safetensors(path, x=array),
    ".parquet": lambda path, array: pq.write_table(
        formats.list_table(array, array[:, 0]).select(["logits"]), path, row_group_size=50
    ),
    ".arrow": lambda path, array: formats.write_arrow(
        path, formats.list_table(array, array[:, 0]).select(["logits"]), compression="lz4"
    ),
    ".h5": write_hdf,
    ".zarr": write_zarr,
}


def write(folder, suffix, array, name="part"):
    for i, part in enumerate(parts(array)):
        WRITERS[suffix](folder / f"{name}-{i}{suffix}", part)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("chunk_bytes", [14, 14 * 61, 10**6])
def test_a_folder_of_shards_gives_the_same_bits(tmp_path, logits, labels, suffix, chunk_bytes):
    write(tmp_path, suffix, logits)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".hidden.npy").touch()
    (tmp_path / "README.md").write_text("twelve parts")

    assert evaluate(tmp_path, labels, chunk_bytes=chunk_bytes) == evaluate(logits, labels)


def test_globs_of_predictions_and_labels_give_the_same_bits(tmp_path, logits, labels):
    write(tmp_path, ".npy", logits, "x")
    for i, part in enumerate(np.array_split(labels, 11)):
        np.savez(tmp_path / f"y-{i}.npz", labels=part, other=part)
    made = evaluate(f"{tmp_path}/x-*.npy", f"{tmp_path}/y-*.npz#labels", chunk_bytes=14 * 100)

    assert made == evaluate(logits, labels)


def test_raw_shards_give_the_same_bits(tmp_path, logits, labels):
    for i, part in enumerate(np.split(logits, 3)):
        part.tofile(tmp_path / f"x{i}.bin")

    assert evaluate(f"{tmp_path}/x*.bin#float16,169,7", labels) == evaluate(logits, labels)


def test_rows_of_several_shards_are_read_in_one_task_where_they_fit(tmp_path, logits):
    write(tmp_path, ".npy", logits)
    source = open_source(tmp_path, "predictions")

    assert source.bounds(14 * 140) == [0, 61, 200, 331, 450, ROWS]
    assert source.bounds(14 * 50) == [0, 50, 61, 111, 161, 200, 250, 300, 331, 381, 401, 450, 500, ROWS]


def test_a_task_knows_its_own_shards_only(tmp_path, logits, labels):
    write(tmp_path, ".npy", logits)
    planned = plan(tmp_path, labels[:ROWS], Options(chunk_bytes=14 * 20))
    source = open_source(tmp_path, "predictions")
    _, tasks = source.parts(source.bounds(14 * 20))

    files = [pickle.dumps(task).replace(b"sources.npy", b"") for task in tasks]  # but for the module's own name
    assert all(task.count(b".npy") <= 3 for task in files)
    assert planned.tasks == len(tasks)


def test_a_graph_of_shards_holds_no_data(tmp_path):
    for i in range(100):
        np.lib.format.open_memmap(tmp_path / f"x-{i}.npy", "w+", "f2", (1000, 100))
        np.lib.format.open_memmap(tmp_path / f"y-{i}.npy", "w+", "i8", (1000,))
    planned = plan(f"{tmp_path}/x-*.npy", f"{tmp_path}/y-*.npy", Options(chunk_bytes=200_000))

    assert planned.tasks == 100
    assert len(cloudpickle.dumps(planned.work().graph()[0])) <= 10_000 + 500 * planned.tasks


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".parquet", ".arrow", ".h5"])
def test_a_truncated_shard_in_the_middle_is_named(tmp_path, logits, labels, suffix):
    write(tmp_path, suffix, logits)
    file = tmp_path / f"part-4{suffix}"
    file.write_bytes(file.read_bytes()[:-90])

    with pytest.raises(ReadError, match=rf"part-4\{suffix}"):
        evaluate(tmp_path, labels)


def test_a_corrupt_shard_in_the_middle_is_named_with_its_rows(tmp_path, logits, labels):
    write(tmp_path, ".zarr", logits)
    (tmp_path / "part-3.zarr" / "c" / "2" / "0").write_bytes(b"nonsense")

    with pytest.raises(ReadError, match=r"rows 34 to 51 of .*part-3\.zarr could not be read"):
        evaluate(tmp_path, labels, chunk_bytes=14 * 17)


def test_a_shard_that_lacks_a_chunk_is_refused_before_any_work(tmp_path, logits, labels):
    write(tmp_path, ".zarr", logits)
    (tmp_path / "part-3.zarr" / "c" / "2" / "0").unlink()

    with pytest.raises(ReadError, match=r"part-3\.zarr is incomplete: 1 of its 27 chunk files"):
        plan(tmp_path, labels)


def test_a_shard_that_changes_after_it_was_opened_is_named(tmp_path, logits, labels):
    write(tmp_path, ".npy", logits)
    planned = plan(tmp_path, labels)
    np.save(tmp_path / "part-7.npy", logits)

    with pytest.raises(ReadError, match=r"part-7\.npy has changed"):
        planned.run()


@pytest.mark.parametrize(
    "other",
    [
        np.zeros((3, CLASSES), np.float32),
        np.zeros((3, CLASSES + 1), np.float16),
        np.zeros(3, np.float16),
        np.float16(1),
    ],
)
def test_a_shard_that_is_not_like_the_others_is_named(tmp_path, logits, other):
    write(tmp_path, ".npy", logits)
    np.save(tmp_path / "part-7.npy", other)

    with pytest.raises(
        ValueError,
        match=r"shards of one dtype and number of classes, got float16\[60, 7\] in .*part-0\.npy and .*part-7",
    ):
        open_source(tmp_path, "predictions")


def test_a_shard_of_labels_that_is_one_number_is_named(tmp_path, labels):
    np.save(tmp_path / "0.npy", labels)
    np.save(tmp_path / "1.npy", labels[0])

    with pytest.raises(
        ValueError, match=r"shards of one dtype and number of classes, got .* and int64\[\] in .*1\.npy"
    ):
        open_source(tmp_path, "labels")


def test_shards_may_differ_in_byte_order(tmp_path, logits, labels):
    np.save(tmp_path / "0.npy", logits[:100])
    np.save(tmp_path / "1.npy", logits[100:].astype(">f2"))

    assert evaluate(tmp_path, labels) == evaluate(logits, labels)


def test_a_folder_of_several_formats_is_refused(tmp_path, logits):
    write(tmp_path, ".npy", logits)
    write(tmp_path, ".npz", logits)

    with pytest.raises(
        ValueError, match=r"must have shards of one format, got \.npy, \.npz in .*Pass a glob such as .*/\*\.npy"
    ):
        open_source(tmp_path, "predictions")


@pytest.mark.parametrize("pattern", ["*.npy", "**/*.npy"])
def test_a_glob_that_matches_nothing_is_refused(tmp_path, pattern):
    with pytest.raises(
        ValueError, match=r"must be a folder of shards or a Zarr array, or a glob of shards, got .*which has none"
    ):
        open_source(tmp_path / pattern, "predictions")


def test_a_file_whose_own_name_is_a_glob_is_found(tmp_path, logits):
    np.save(tmp_path / "x[1].npy", logits)

    assert open_source(tmp_path / "x[1].npy", "predictions").shape == logits.shape


def test_shards_that_hold_no_rows_hold_none_together(tmp_path):
    for i in range(3):
        np.save(tmp_path / f"x{i}.npy", np.zeros((0, 5), np.float32))
    result = evaluate(tmp_path, np.zeros(0, int))

    assert result.rows == 0
