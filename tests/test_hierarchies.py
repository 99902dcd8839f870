"""Zarr and HDF5: chunks that are not there, chunks that are corrupt, and a codec that would run a program."""

import json
import pickle

import formats
import h5py
import numcodecs
import numpy as np
import pytest
import zarr
from formats import CLASSES, ROWS

from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.evaluations import evaluate
from xent.evaluation.options import Keys
from xent.evaluation.sources.messages import MalformedError, ReadError
from xent.evaluation.sources.opening import open_source


@pytest.fixture
def logits():
    return formats.some_logits()


@pytest.fixture
def labels():
    return formats.some_labels()


# ---------------------------------------------------------------------------------------------------------------------
# HDF5


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"chunks": (60, CLASSES)},
        {"chunks": (64, 3), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (64, 3), "maxshape": (None, CLASSES)},
    ],
)
@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
def test_any_layout_of_an_hdf5_file_gives_the_same_bits(tmp_path, logits, labels, layout, dtype):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=logits.astype(dtype), **layout)

    native = np.dtype(dtype).newbyteorder("=")
    assert evaluate(tmp_path / "x.h5", labels, chunk_bytes=2000) == evaluate(logits.astype(native), labels)


def test_chunks_of_an_hdf5_file_that_were_never_written_are_refused_before_any_work(tmp_path, logits, labels):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("chunked", logits.shape, "f2", chunks=(60, 3))[:420] = logits[:420]
        file.create_dataset("whole", logits.shape, "f2")

    with pytest.raises(ReadError, match=r"x\.h5#chunked is incomplete: 6 of its 27 chunks were never written"):
        plan(f"{tmp_path}/x.h5#chunked", labels)
    with pytest.raises(ReadError, match=r"x\.h5#whole is incomplete: 1 of its 1 chunks"):
        plan(f"{tmp_path}/x.h5#whole", labels)


def test_a_corrupt_chunk_of_an_hdf5_file_is_named_by_file_and_rows(tmp_path, logits, labels):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        stored = file.create_dataset("x", data=logits, chunks=(60, CLASSES), fletcher32=True)
        place = stored.id.get_chunk_info(3).byte_offset
    data = bytearray((tmp_path / "x.h5").read_bytes())
    data[place + 100] ^= 1
    (tmp_path / "x.h5").write_bytes(data)

    with pytest.raises(ReadError, match=r"rows 180 to 240 of .*x\.h5#x could not be read"):
        evaluate(tmp_path / "x.h5", labels, chunk_bytes=60 * 14)


def damaged(path, place, data):
    """Other bytes at a place of the file at a path."""
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + data + whole[place + len(data) :])


def test_a_chunk_of_no_bytes_which_hdf5_does_not_survive_is_refused_before_any_work(tmp_path, logits, labels):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        stored = file.create_dataset("x", data=logits, chunks=(60, CLASSES), fletcher32=True)
        size = stored.id.get_chunk_info(0).size.to_bytes(4, "little") + bytes(4)
    damaged(tmp_path / "x.h5", (tmp_path / "x.h5").read_bytes().index(size, 1000), bytes(8))

    with pytest.raises(ReadError, match=r"x\.h5#x is corrupt: a chunk of 840 bytes takes 0"):
        plan(tmp_path / "x.h5", labels)


def test_a_heap_at_which_hdf5_never_ends_is_refused_before_any_work(tmp_path, logits, labels):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["text"] = ["de", "en", "größer"] * 169
    heap = (tmp_path / "x.h5").read_bytes().index(b"GCOL")
    damaged(tmp_path / "x.h5", heap + 16 + 24, bytes(16))  # the second object is free space of no size

    with pytest.raises(ReadError, match=rf"x\.h5 is corrupt: its heap at {heap} leads astray"):
        plan(logits, labels, keys=Keys(slices=tmp_path / "x.h5"))


@pytest.mark.parametrize("chunks", [None, (60,)])
def test_a_text_longer_than_its_file_is_refused_before_any_work(tmp_path, logits, labels, chunks):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        stored = file.create_dataset("text", data=["größer"] * 507, dtype=h5py.string_dtype(), chunks=chunks)
        place = stored.id.get_chunk_info(2).byte_offset if chunks else stored.id.get_offset()
    damaged(tmp_path / "x.h5", place + 16 * 5, (2**31).to_bytes(4, "little"))

    with pytest.raises(ReadError, match=r"x\.h5 is corrupt: a text of 2147483648 bytes"):
        plan(logits, labels, keys=Keys(slices=tmp_path / "x.h5"))


def test_a_group_of_an_hdf5_file_is_refused_with_the_datasets(tmp_path, logits):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["run/logits"], file["run/labels"] = logits, 1

    with pytest.raises(ValueError, match=r"got 'run' of .*x\.h5, which holds run/labels, run/logits"):
        open_source(f"{tmp_path}/x.h5#run", "predictions")


def test_text_in_an_hdf5_file_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = ["a", "b"]

    with pytest.raises(TypeError, match="must hold no Python objects"):
        open_source(tmp_path / "x.h5", "predictions")


# ---------------------------------------------------------------------------------------------------------------------
# Zarr


def explode(word):
    EXPLODED.append(word)
    return np.zeros((ROWS, CLASSES), np.float32)


EXPLODED = []


class Program:
    def __reduce__(self):
        return explode, ("unpickled",)


def write_pickled_chunk(folder, place):
    """A Zarr array of floats, the chunk of which is a pickled program, as its metadata say."""
    codecs = {"filters": None, "compressor": None, place: {"id": "pickle"}}
    if place == "filters":
        codecs["filters"] = [{"id": "pickle"}]
    shape = {"shape": [ROWS, CLASSES], "chunks": [ROWS, CLASSES], "dtype": "<f4", "order": "C", "fill_value": 0}
    folder.mkdir()
    (folder / ".zarray").write_text(json.dumps({"zarr_format": 2, **shape, **codecs}))
    (folder / "0.0").write_bytes(pickle.dumps(Program()))


@pytest.fixture
def unpickling_allowed(monkeypatch):
    """As in versions of numcodecs that do not refuse it themselves."""
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)


def test_the_program_would_run_if_it_were_unpickled(tmp_path, unpickling_allowed):
    write_pickled_chunk(tmp_path / "x.zarr", "filters")
    EXPLODED.clear()
    numcodecs.Pickle().decode((tmp_path / "x.zarr" / "0.0").read_bytes())

    assert EXPLODED == ["unpickled"]


@pytest.mark.parametrize("place", ["filters", "compressor"])
def test_a_zarr_array_whose_codec_unpickles_is_refused(tmp_path, labels, place, unpickling_allowed):
    write_pickled_chunk(tmp_path / "x.zarr", place)
    EXPLODED.clear()

    with pytest.raises((TypeError, ValueError), match=r"evaluate: `predictions` must .*x\.zarr"):  # by zarr 3.1 already
        evaluate(tmp_path / "x.zarr", labels)
    assert not EXPLODED


@pytest.mark.parametrize("place", ["filters", "compressor", "codecs"])
def test_a_pickle_codec_that_zarr_lets_pass_is_refused(tmp_path, logits, monkeypatch, place):
    class Metadata:
        zarr_format = 2

        def to_dict(self):
            return {"shape": [3], place: [numcodecs.Pickle()], "attributes": {}}

    class Array:
        metadata, dtype, shape, chunks = Metadata(), logits.dtype, logits.shape, logits.shape

    zarr.create_array(tmp_path / "x.zarr", data=logits, zarr_format=2)
    monkeypatch.setattr(zarr, "open", lambda *_, **__: Array())

    with pytest.raises(TypeError, match=r"must hold no pickled objects, got a pickle codec in .*x\.zarr"):
        open_source(tmp_path / "x.zarr", "predictions")


def test_an_array_may_speak_of_pickles(tmp_path, logits, labels):
    zarr.create_array(tmp_path / "x.zarr", data=logits, attributes={"note": "made from a pickle"})

    assert evaluate(tmp_path / "x.zarr", labels) == evaluate(logits, labels)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("shape", "chunks", "message"),
    [
        ((ROWS, CLASSES), (0, CLASSES), r"its chunks are of shape \(0, 7\)"),
        ((ROWS, CLASSES), (60, -1), r"must be the path of a Zarr array|its chunks are of shape"),
        ((-1, CLASSES), (60, CLASSES), r"must be the path of a Zarr array"),
        ((10**14, CLASSES), (60, CLASSES), r"is said to have 1,666,666,666,667 chunk files"),
        ((ROWS, CLASSES), (10**9, CLASSES), r"is stored in chunks of 14,000,000,000 bytes"),
    ],
)
def test_sizes_of_a_zarr_array_that_cannot_be_are_refused(tmp_path, logits, zarr_format, shape, chunks, message):
    zarr.create_array(tmp_path / "x.zarr", data=logits, chunks=(60, CLASSES), zarr_format=zarr_format)
    file = tmp_path / "x.zarr" / (".zarray" if zarr_format == 2 else "zarr.json")
    metadata = json.loads(file.read_text())
    metadata["shape"] = shape
    if zarr_format == 2:
        metadata["chunks"] = chunks
    else:
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = chunks
    file.write_text(json.dumps(metadata))

    with pytest.raises(MalformedError, match=rf"{message}.*"):
        open_source(tmp_path / "x.zarr", "predictions")


def test_a_chunk_file_that_is_far_larger_than_its_chunk_is_not_unpacked(tmp_path, logits, labels):
    zarr.create_array(tmp_path / "x.zarr", data=logits, chunks=(60, CLASSES))
    (tmp_path / "x.zarr" / "c" / "1" / "0").write_bytes(bytes(100_000))

    with pytest.raises(ReadError, match=r"rows \d+ to \d+ of .*c/1/0 has 100000 bytes, and a chunk \d+ at most"):
        evaluate(tmp_path / "x.zarr", labels)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_array_of_a_zarr_group_is_found_by_its_name(tmp_path, logits, zarr_format):
    zarr.create_group(tmp_path / "run.zarr", zarr_format=zarr_format).create_array("test/logits", data=logits)

    for path in (f"{tmp_path}/run.zarr#test/logits", f"{tmp_path}/run.zarr/test/logits"):
        np.testing.assert_array_equal(open_source(path, "predictions").read(0, ROWS), logits)


def test_a_zarr_array_that_is_written_anew_is_not_read(tmp_path, logits):
    zarr.create_array(tmp_path / "x.zarr", data=logits)
    source = open_source(tmp_path / "x.zarr", "predictions")
    zarr.create_array(tmp_path / "x.zarr", data=logits + 1, overwrite=True)

    with pytest.raises(ReadError, match=r"x\.zarr/zarr\.json has changed"):
        source.read(0, 10)


def test_a_name_that_no_array_of_a_zarr_group_has_is_refused(tmp_path):
    zarr.create_group(tmp_path / "run.zarr")

    with pytest.raises(ValueError, match=r"must be the path of a Zarr array, got .*run\.zarr/nope"):
        open_source(f"{tmp_path}/run.zarr#nope", "predictions")
