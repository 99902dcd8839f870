"""Every format: the same bits as the arrays in hand, a small graph, and an error that names what cannot be read."""

import os
import pickle
from itertools import pairwise
from pathlib import Path

import cloudpickle
import dask
import formats
import numpy as np
import pytest
from formats import CLASSES, NAMES, ROWS

from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.evaluations import evaluate
from xent.evaluation.options import Options
from xent.evaluation.sources.messages import ReadError
from xent.evaluation.sources.opening import open_source
from xent.evaluation.sources.source import read_rows


@pytest.fixture(scope="module")
def logits():
    return formats.some_logits()


@pytest.fixture(scope="module")
def labels():
    return formats.some_labels()


@pytest.fixture(scope="module")
def paths(tmp_path_factory, logits, labels):
    folder = tmp_path_factory.mktemp("set")
    written = formats.write_all(folder, logits, labels)
    return {name: tuple(f"{folder}/{path}" for path in pair) for name, pair in written.items()}


def read(source, bounds):
    graph, parts = source.parts(bounds)
    sizes = [stop - start for start, stop in pairwise(bounds)]
    tasks = [(read_rows, part, 0, size) for part, size in zip(parts, sizes, strict=True)]
    return np.concatenate(dask.get(graph | {"whole": tasks}, "whole"))


def test_every_format_is_tested(paths):
    assert list(paths) == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk_bytes", [1, 14 * 61, 10**6])
def test_a_format_leaves_the_same_bits_as_the_arrays_in_hand(paths, logits, labels, name, chunk_bytes):
    predictions, truth = paths[name]

    assert evaluate(predictions, truth, chunk_bytes=chunk_bytes) == evaluate(logits, labels)


@pytest.mark.slow
def test_a_cluster_of_processes_leaves_the_same_bits_from_every_format(paths, logits, labels):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    cluster = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(**cluster) as local, distributed.Client(local) as client:
        made = {name: evaluate(*paths[name], chunk_bytes=14 * 200, scheduler=client) for name in NAMES}

    assert [name for name, one in made.items() if one != evaluate(logits, labels)] == []


@pytest.mark.parametrize("name", NAMES)
def test_any_rows_can_be_read(paths, logits, labels, name):
    for path, expected in zip(paths[name], (logits, labels), strict=True):
        source = open_source(path, "predictions")
        made = read(source, [0, 1, 12, 14, 59, 61, 300, ROWS - 1, ROWS])

        assert made.dtype == source.dtype == expected.dtype and made.flags.c_contiguous
        np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_read_by_the_rows_of_the_predictions(paths, logits, labels, name):
    assert evaluate(logits, paths[name][1], chunk_bytes=14 * 7) == evaluate(logits, labels)


@pytest.mark.parametrize("name", NAMES)
def test_no_graph_holds_data(paths, name):
    planned = plan(*paths[name], Options(chunk_bytes=1))

    assert len(cloudpickle.dumps(planned.work().graph()[0])) <= 10_000 + 500 * planned.tasks
    assert all(len(pickle.dumps(task)) < 2000 for task in planned.work().graph()[0].values())


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("npy", [*range(0, ROWS, 61), ROWS]),
        ("compressed npz", [0, ROWS]),
        ("parquet of columns", [*range(0, ROWS, 60), ROWS]),
        ("compressed arrow", [0, 13, *range(73, ROWS, 60), ROWS]),
        ("arrow", [*range(0, ROWS, 61), ROWS]),
        ("hdf5", [*range(0, ROWS, 60), ROWS]),
        ("zarr", [*range(0, ROWS, 60), ROWS]),
    ],
)
def test_chunks_follow_how_the_rows_are_stored(paths, name, bounds):
    assert open_source(paths[name][0], "predictions").bounds(14 * 61) == bounds


@pytest.mark.parametrize("name", NAMES)
def test_a_message_names_the_file_and_the_array(paths, name):
    path, _, array = paths[name][0].partition("#")
    told = str(open_source(paths[name][0], "predictions"))

    assert told == f"float16[{ROWS}, {CLASSES}] in {path}{'/' if name == 'zarr' else '#' * bool(array)}{array}"


@pytest.fixture
def own(tmp_path, logits, labels):
    """Files that a test may spoil."""
    written = formats.write_all(tmp_path, logits, labels)
    return {name: f"{tmp_path}/{pair[0]}" for name, pair in written.items()}


def file_of(path):
    """The file behind a source's path, which for a Zarr array describes it."""
    file = Path(path.partition("#")[0])
    return file / "logits" / "zarr.json" if file.is_dir() else file


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_changes_after_it_was_opened_is_not_read(own, name):
    source, file = open_source(own[name], "predictions"), file_of(own[name])
    os.utime(file, ns=(0, 0))

    with pytest.raises(ReadError, match=rf"{file.name} has changed since it was opened\. Run it again"):
        source.read(0, 10)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_a_worker_cannot_see_is_named(own, name):
    source, file = open_source(own[name], "predictions"), file_of(own[name])
    file.unlink()

    with pytest.raises(ReadError, match=rf"{file.name} could not be opened .* Every worker must see it"):
        source.read(0, 10)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("raw", "zarr")])
@pytest.mark.parametrize("kept", [0.95, 0.5, 0.1])
def test_a_truncated_file_is_an_error_that_names_it(own, labels, name, kept):
    file = file_of(own[name])
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])

    with pytest.raises(ReadError, match=rf"{file.name}"):
        evaluate(own[name], labels)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_file_is_an_error_that_names_it(own, labels, name):
    file = file_of(own[name])
    file.write_bytes(b"")

    with pytest.raises((ReadError, ValueError), match=r"^evaluate: ") as caught:
        evaluate(own[name], labels)
    assert str(file if name != "zarr" else file.parent) in str(caught.value)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("npy", "raw", "zarr")])
def test_an_array_that_the_file_has_not_is_refused_with_those_that_it_has(paths, name):
    file = paths[name][0].partition("#")[0]

    with pytest.raises(ValueError, match=r"evaluate: `labels` must name one array .* got 'nope' of .*label") as caught:
        open_source(f"{file}#nope", "labels")
    assert f"Pass {file}#" in str(caught.value)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("npy", "raw", "zarr")])
def test_of_several_arrays_one_must_be_named(paths, name):
    with pytest.raises(ValueError, match=r"must name one array of its file after a #, got ''"):
        open_source(paths[name][0].partition("#")[0], "labels")


def test_the_only_array_of_a_file_needs_no_name(tmp_path, logits):
    formats.write_safetensors(tmp_path / "x.safetensors", logits=logits)

    np.testing.assert_array_equal(read(open_source(tmp_path / "x.safetensors", "predictions"), [0, ROWS]), logits)
    with pytest.raises(ValueError, match=r"got 'logit' of .*x\.safetensors, which holds logits"):  # a name is a name
        open_source(f"{tmp_path}/x.safetensors#logit", "predictions")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".parquet", ".arrow", ".h5"])
def test_a_file_of_another_format_than_its_name_says_is_refused(tmp_path, suffix):
    (tmp_path / f"x{suffix}").write_bytes(b"1,2,3\n4,5,6\n7,8,9\n")

    with pytest.raises(ValueError, match=rf"evaluate: `predictions` must be .*x\{suffix}"):
        open_source(tmp_path / f"x{suffix}", "predictions")


@pytest.mark.parametrize(
    ("suffix", "module", "extra"),
    [
        (".parquet", "pyarrow", "parquet"),
        (".arrow", "pyarrow", "parquet"),
        (".h5", "h5py", "hdf5"),
        (".zarr", "zarr", "zarr"),
    ],
)
def test_a_library_that_is_not_installed_is_named_with_the_extra(tmp_path, monkeypatch, suffix, module, extra):
    path = tmp_path / f"x{suffix}"
    if suffix == ".zarr":
        path.mkdir()
        (path / "zarr.json").write_text("{}")
    else:
        path.write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, module, None)

    with pytest.raises(ModuleNotFoundError, match=rf"{module}.*, which is not installed\. .*'xent-array\[{extra}\]'"):
        open_source(path, "predictions")


def test_a_file_whose_own_name_has_a_number_sign_is_found(tmp_path, logits):
    np.save(tmp_path / "run#2.npy", logits)
    np.savez(tmp_path / "run#3.npz", a=logits, b=logits[:3])

    assert open_source(tmp_path / "run#2.npy", "predictions").shape == (ROWS, CLASSES)
    assert open_source(f"{tmp_path}/run#3.npz#b", "predictions").shape == (3, CLASSES)
