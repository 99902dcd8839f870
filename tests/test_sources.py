"""Opening predictions and labels: what can be read, in which parts, and what is said of what cannot."""

import pickle
from itertools import pairwise

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
import zarr

from xent.evaluation.evaluations import compare, evaluate
from xent.evaluation.sources.messages import MalformedError, ReadError
from xent.evaluation.sources.npy import MappedSource
from xent.evaluation.sources.opening import check_pair, open_source
from xent.evaluation.sources.source import read_rows


@pytest.fixture
def logits():
    return np.random.default_rng(1).normal(size=(507, 7)).astype(np.float16)


def read_whole(source, chunk_bytes=1000):
    bounds = source.bounds(chunk_bytes)
    _, parts = source.parts(bounds)
    sizes = [stop - start for start, stop in pairwise(bounds)]
    return np.concatenate([read_rows(part, 0, size) for part, size in zip(parts, sizes, strict=True)])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_an_npy_file_is_read_in_any_order_and_byte_order(tmp_path, logits, order, dtype, version):
    written = np.asarray(logits, dtype, order=order)
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, written, version)
    source = open_source(tmp_path / "x.npy", "predictions")
    part = source.read(10, 20)

    assert part.dtype.isnative and part.flags.c_contiguous
    np.testing.assert_array_equal(read_whole(source), logits)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("chunks", [(100, 7), (64, 3), (1000, 1)])
def test_a_zarr_array_is_read_with_all_its_classes(tmp_path, logits, zarr_format, chunks):
    stored = zarr.create_array(
        tmp_path / "x.zarr", shape=logits.shape, dtype="f2", chunks=chunks, zarr_format=zarr_format
    )
    stored[:] = logits
    read = read_whole(open_source(str(tmp_path / "x.zarr"), "predictions"))

    np.testing.assert_array_equal(read, logits)


def test_a_chunk_of_a_task_is_whole_shards_where_they_fit(tmp_path, logits):
    zarr.create_array(tmp_path / "x.zarr", shape=logits.shape, dtype="f2", chunks=(10, 7), shards=(50, 7))
    source = open_source(tmp_path / "x.zarr", "predictions")

    assert source.bounds(2 * 50 * 14 + 13) == [0, 100, 200, 300, 400, 500, 507]
    assert source.bounds(3 * 10 * 14) == [*range(0, 507, 30), 507]  # a shard does not fit, its inner chunks do
    assert source.bounds(1) == [*range(0, 507, 10), 507]  # at least one chunk


def test_a_chunk_of_an_npy_file_is_at_least_a_row_and_at_most_the_bytes_asked_for(tmp_path, logits):
    np.save(tmp_path / "x.npy", logits)
    source = open_source(tmp_path / "x.npy", "predictions")

    assert source.bounds(14 * 200 + 13) == [0, 200, 400, 507]
    assert source.bounds(1) == list(range(508))


def test_a_source_holds_no_data(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((100_000, 10)))

    assert len(pickle.dumps(open_source(tmp_path / "x.npy", "predictions"))) < 1000


def test_labels_in_dask_are_brought_to_the_rows_of_the_predictions():
    labels = np.arange(20)
    graph, keys = open_source(da.from_array(labels, chunks=6), "labels").parts([0, 7, 20])

    np.testing.assert_array_equal(np.concatenate(dask.get(graph, keys)), labels)
    assert len(keys) == 2


def test_a_memory_map_in_hand_is_taken_as_an_array(tmp_path, logits):
    np.save(tmp_path / "x.npy", logits)
    source = open_source(np.load(tmp_path / "x.npy", mmap_mode="r"), "predictions")

    np.testing.assert_array_equal(read_whole(source), logits)


class Foreign:
    """An array of a library that NumPy can see by DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_an_array_that_speaks_dlpack_is_read_without_a_copy(logits):
    source = open_source(Foreign(logits), "predictions")

    np.testing.assert_array_equal(read_whole(source), logits)
    assert np.shares_memory(source.array, logits)


@pytest.mark.parametrize("library", ["torch", "jax.numpy", "array_api_strict", "pandas", "pyarrow"])
def test_an_array_of_any_library_in_hand_gives_the_same_bits(logits, library):
    made = pytest.importorskip(library, reason=f"{library} is not installed")
    logits, labels = logits.astype(np.float32), np.random.default_rng(4).integers(0, 7, len(logits))
    predictions, truth = {
        "pandas": lambda: (made.DataFrame(logits), made.Series(labels)),
        "pyarrow": lambda: (logits, made.array(labels)),  # an Arrow array has one dimension
    }.get(library, lambda: (made.asarray(logits), made.asarray(labels)))()

    assert evaluate(predictions, truth, chunk_bytes=1000) == evaluate(logits, labels)


def test_a_bfloat16_array_of_jax_gives_the_same_bits(logits):
    jnp = pytest.importorskip("jax.numpy", reason="jax is not installed")
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    labels = np.zeros(len(logits), int)
    narrow = logits.astype(ml_dtypes.bfloat16)

    assert evaluate(jnp.asarray(narrow), labels) == evaluate(narrow, labels)


@pytest.mark.parametrize("layout", ["in rows", "in columns", "with a graph"])
def test_a_bfloat16_tensor_of_torch_gives_the_same_bits_in_hand_and_in_a_stream(logits, layout):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    labels, narrow = torch.arange(len(logits)) % 7, torch.asarray(logits).bfloat16()
    tensor = narrow.T.contiguous().T if layout == "in columns" else narrow.requires_grad_(layout == "with a graph")
    expected = evaluate(logits.astype(ml_dtypes.bfloat16), labels.numpy(), classwise=True)

    assert evaluate(tensor, labels, classwise=True) == expected
    assert evaluate(iter([(tensor, labels)])).mean_loss == expected.mean_loss


@pytest.mark.parametrize("lazy", [False, True])
def test_an_xarray_is_what_is_in_it(logits, lazy):
    xr = pytest.importorskip("xarray", reason="xarray is not installed")
    inside = da.from_array(logits, chunks=(100, 7)) if lazy else logits
    source = open_source(xr.DataArray(inside, dims=("row", "class")), "predictions")

    assert type(source).__name__ == ("DaskSource" if lazy else "ArraySource")
    assert evaluate(source, np.zeros(507, int)) == evaluate(logits, np.zeros(507, int))


# ---------------------------------------------------------------------------------------------------------------------
# What cannot be evaluated


def test_a_tensor_that_numpy_cannot_see_is_refused_with_the_reason():
    torch = pytest.importorskip("torch", reason="torch is not installed")

    with pytest.raises(TypeError, match=r"or one that NumPy can see, got torch\.Tensor \(.*to_dense"):
        open_source(torch.zeros(3, 2).to_sparse(), "predictions")


def test_an_open_file_of_another_library_is_not_read_whole(tmp_path, logits):
    stored = zarr.create_array(tmp_path / "x.zarr", data=logits)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for source in (stored, file.create_dataset("x", data=logits)):
            with pytest.raises(TypeError, match=r"must be read in parts, got an open .*Pass its path"):
                open_source(source, "predictions")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("#float16,3,7", r"must have the 42 bytes of float16\[3, 7\], got 7098 bytes in .*x\.bin"),
        (
            "#float16",
            r"must name the dtype and shape after a #, as in logits\.bin#float16,1000,256, got .*x\.bin#float16",
        ),
        ("#float17,507,7", r"must name the dtype and shape"),
        ("#float16,-507,-7", r"must name the dtype and shape"),
        ("#float16,507,seven", r"must name the dtype and shape"),
        ("#O,507,7", r"must name the dtype and shape"),
        ("#complex64,507,7", r"must name the dtype and shape"),
        ("#V2,507,7", r"must name the dtype and shape"),
        ("", r"must be the path of a set in \.npy, .* or torch, got .*x\.bin\. Give it .* or name the dtype and shape"),
    ],
)
def test_a_raw_file_needs_its_dtype_and_shape(tmp_path, logits, name, message):
    logits.tofile(tmp_path / "x.bin")

    with pytest.raises(ValueError, match=message):
        open_source(f"{tmp_path}/x.bin{name}", "predictions")


def test_a_raw_file_of_bfloat16_gives_the_same_bits(tmp_path, logits):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    narrow = logits.astype(ml_dtypes.bfloat16)
    narrow.tofile(tmp_path / "x.bin")
    labels = np.zeros(507, int)

    assert evaluate(f"{tmp_path}/x.bin#bfloat16,507,7", labels) == evaluate(narrow, labels)


def test_an_npy_file_has_no_names(tmp_path, logits):
    np.save(tmp_path / "x.npy", logits)

    with pytest.raises(
        ValueError, match=r"must name no array of a \.npy file, which has one, got .*x\.npy#a\. Pass .*x\.npy"
    ):
        open_source(f"{tmp_path}/x.npy#a", "predictions")


def test_a_negative_shape_is_refused(tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (-5, 3)})

    with pytest.raises(ValueError, match=r"its shape is \(-5, 3\)"):
        open_source(tmp_path / "x.npy", "predictions")


def test_a_shape_of_more_rows_than_a_run_has_chunks_is_refused(tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**14, 0)})
    source = open_source(tmp_path / "x.npy", "predictions")

    with pytest.raises(MalformedError, match=r"float32\[100000000000000, 0\] in .*would be read in 381,469,727 chunks"):
        source.bounds(2**26)


def test_sets_of_unequal_rows_are_told_apart_before_the_labels_are_blamed(tmp_path, logits):
    labels = np.zeros(len(logits), int)
    for a, b in ((logits, logits[:-1]), (logits[:-1], logits)):
        with pytest.raises(ValueError, match=r"`b` must have the shape of a, \(50\d, 7\), got float16\[50\d, 7\]"):
            compare(a, b, labels)


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".hdf", ".he5", ".H5"])
def test_an_hdf5_file_goes_by_any_of_its_suffixes(tmp_path, logits, suffix):
    with h5py.File(tmp_path / f"x{suffix}", "w") as file:
        file["x"] = logits

    np.testing.assert_array_equal(open_source(tmp_path / f"x{suffix}", "predictions").read(0, 507), logits)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"evaluate: `labels` must be the path of .* got .*nope\.npy, where"):
        open_source(tmp_path / "nope.npy", "labels")


def test_a_file_that_is_no_npy_file_is_refused(tmp_path):
    (tmp_path / "x.npy").write_text("1,2,3")

    with pytest.raises(ValueError, match=r"evaluate: `predictions` must be the path of a \.npy file.*magic"):
        open_source(tmp_path / "x.npy", "predictions")


def test_an_unknown_version_of_the_npy_format_is_refused(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x09\x00" + b" " * 100)

    with pytest.raises(ValueError, match=r"format version is \(9, 0\)"):
        open_source(tmp_path / "x.npy", "predictions")


@pytest.mark.parametrize("text", ["{'descr': '<f4', 'shape': (9, 4", "{'descr': [('a', 0)], 'shape': ()}", "(" * 5000])
def test_a_header_that_cannot_be_parsed_is_refused(tmp_path, text):
    header = text.ljust(5117).encode() + b"\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(200))

    with pytest.raises(ValueError, match=r"`predictions` must be the path of a \.npy file, got .*x\.npy \("):
        open_source(tmp_path / "x.npy", "predictions")


def test_a_folder_that_is_no_zarr_array_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"evaluate: `labels` must be a folder of shards or a Zarr array, .* zarr\.json"
    ):
        open_source(tmp_path, "labels")


def test_a_zarr_group_is_refused_with_the_arrays_in_it(tmp_path):
    group = zarr.create_group(tmp_path / "run.zarr")
    group.create_array("logits", shape=(3, 2), dtype="f4")

    with pytest.raises(ValueError, match=r"must be one Zarr array, got the group .*run\.zarr of logits"):
        open_source(tmp_path / "run.zarr", "predictions")


def test_python_objects_are_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return exec, ("raise SystemExit('unpickled')",)

    np.save(tmp_path / "x.npy", np.asarray([Bomb()], object), allow_pickle=True)

    with pytest.raises(TypeError, match="must hold no Python objects, got object"):
        open_source(tmp_path / "x.npy", "predictions")


def test_a_truncated_npy_file_is_named_with_both_sizes(tmp_path, logits):
    np.save(tmp_path / "x.npy", logits)
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole[:-100])

    with pytest.raises(ReadError, match=rf"x\.npy is truncated: .* {len(whole)} bytes and it has {len(whole) - 100}"):
        open_source(tmp_path / "x.npy", "predictions")


def test_a_file_that_changes_after_it_was_opened_is_not_read(tmp_path, logits):
    np.save(tmp_path / "x.npy", logits)
    source = open_source(tmp_path / "x.npy", "predictions")
    np.save(tmp_path / "x.npy", logits[:-1])

    with pytest.raises(ReadError, match=r"x\.npy has changed"):
        source.read(0, 10)


def test_a_file_that_a_worker_cannot_see_is_named(tmp_path, logits):
    np.save(tmp_path / "x.npy", logits)
    source = open_source(tmp_path / "x.npy", "predictions")
    (tmp_path / "x.npy").unlink()

    with pytest.raises(ReadError, match=r"x\.npy could not be opened .* Every worker must see it"):
        source.read(0, 10)


def test_a_corrupt_zarr_chunk_is_named_by_file_and_rows(tmp_path, logits):
    stored = zarr.create_array(tmp_path / "x.zarr", shape=logits.shape, dtype="f2", chunks=(100, 7))
    stored[:] = logits
    (tmp_path / "x.zarr" / "c" / "1" / "0").write_bytes(b"nonsense")
    source = open_source(tmp_path / "x.zarr", "predictions")

    source.read(0, 100)
    with pytest.raises(ReadError, match=r"rows 100 to 200 of .*x\.zarr could not be read"):
        source.read(100, 200)


def test_dask_arrays_of_unknown_sizes_are_refused():
    unknown = da.from_array(np.arange(10), chunks=3)
    unknown = unknown[unknown > 4]

    with pytest.raises(ValueError, match=r"compute_chunk_sizes"):
        open_source(unknown, "labels")


@pytest.mark.parametrize("value", [[1, 2], np.rec.array([1.0]), None])
def test_what_is_neither_path_nor_array_is_refused(value):
    with pytest.raises(TypeError, match=r"evaluate: `labels` must be .* Convert it with numpy\.asarray"):
        open_source(value, "labels")


@pytest.mark.parametrize(
    ("predictions", "labels", "error", "message"),
    [
        (np.zeros(3), np.zeros(3, int), ValueError, r"`predictions` must have shape \(rows, classes\).* float64\[3\]"),
        (np.zeros((3, 0)), np.zeros(3, int), ValueError, r"`predictions` must have .* at least one class"),
        (np.zeros((3, 2), int), np.zeros(3, int), TypeError, r"`predictions` must be float16.*astype\(numpy.float32\)"),
        (np.zeros((3, 2), bool), np.zeros(3, int), TypeError, r"`predictions` must be float16"),
        (np.zeros((3, 2), object), np.zeros(3, int), TypeError, r"`predictions` must be float16"),
        (np.zeros((3, 2)), np.zeros((3, 1), int), ValueError, r"`labels` must have shape \(3,\).*Save labels\[:, 0\]"),
        (np.zeros((3, 2)), np.zeros((3, 3), int), ValueError, r"`labels` must have shape.*one class index per row"),
        (np.zeros((3, 2)), np.asarray(["a", "b", "a"]), TypeError, r"`labels` must be integers.*return_inverse=True"),
        (
            np.zeros((3, 2)),
            np.asarray([0, np.nan, 1]),
            TypeError,
            r"`labels` must be integers.*nan_to_num.*ignore_index",
        ),
        (np.zeros(3, int), np.zeros((3, 2)), ValueError, r"`predictions` must have shape.*predictions first"),
        (np.zeros(3), np.zeros(3, int), ValueError, r"`predictions` must have shape.*Pass binary=True if"),
        (
            np.zeros((3, 2)),
            np.zeros(3),
            TypeError,
            r"`labels` must be integers, got float64\[3\].*astype\(numpy.int64\)",
        ),
        (np.zeros((3, 2)), np.zeros(3, bool), TypeError, r"`labels` must be integers, got bool"),
        (np.zeros((3, 2)), np.zeros(4, int), ValueError, r"`labels` must have shape \(3,\), one for each.* int64\[4\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_the_remedy(predictions, labels, error, message):
    with pytest.raises(error, match=message):
        check_pair(open_source(predictions, "predictions"), open_source(labels, "labels"))


def test_a_message_names_the_file(tmp_path):
    np.save(tmp_path / "y.npy", np.zeros(3))
    labels = open_source(tmp_path / "y.npy", "labels")

    assert isinstance(labels, MappedSource)
    with pytest.raises(TypeError, match=r"float64\[3\] in .*y\.npy"):
        check_pair(open_source(np.zeros((3, 2)), "predictions"), labels)
