"""Columns of Parquet and Arrow files: which ones they are, what they may not hold, and text in any format."""

import pickle
import subprocess
import sys

import formats
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from formats import CLASSES, ROWS

from xent.evaluation.evaluations import compare, evaluate
from xent.evaluation.sources.arrow import ArrowSource, ParquetSource
from xent.evaluation.sources.messages import ReadError
from xent.evaluation.sources.opening import open_source
from xent.evaluation.sources.topk import TopK


@pytest.fixture
def logits():
    return formats.some_logits()


@pytest.fixture
def labels():
    return formats.some_labels()


def write(folder, table, suffix, **options):
    """The table in a file, in groups of 60 rows."""
    path = folder / f"x{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path, row_group_size=60, **options)
    else:
        formats.write_arrow(path, table, **options)
    return path


both = pytest.mark.parametrize("suffix", [".parquet", ".arrow"])


@both
def test_columns_that_are_numbered_are_classes_in_the_order_of_their_numbers(tmp_path, logits, labels, suffix):
    wide = np.tile(logits, 2)  # twelve and more: p_10 comes after p_9
    path = write(tmp_path, formats.wide_table(wide, labels), suffix)

    assert evaluate(f"{path}#p_*", f"{path}#label") == evaluate(wide, labels)


@both
def test_columns_without_numbers_are_classes_in_the_order_of_the_file(tmp_path, suffix):
    path = write(tmp_path, pa.table({"p_dog": [1.0], "p_ant": [2.0], "p_cat": [3.0]}), suffix)

    np.testing.assert_array_equal(open_source(f"{path}#p_*", "predictions").read(0, 1), [[1.0, 2.0, 3.0]])


@both
def test_a_gap_in_the_numbers_of_columns_is_refused(tmp_path, suffix):
    path = write(tmp_path, pa.table({"p_0": [1.0], "p_1": [2.0], "p_3": [3.0]}), suffix)

    with pytest.raises(ValueError, match=r"must have columns that are numbered without a gap, got p_0 to p_3 in .*x\."):
        open_source(f"{path}#p_*", "predictions")


@both
def test_one_column_of_a_glob_is_one_class(tmp_path, suffix):
    path = write(tmp_path, pa.table({"p_0": [1.0, 2.0]}), suffix)

    assert open_source(f"{path}#p_*", "predictions").shape == (2, 1)


@both
def test_a_column_whose_own_name_is_a_glob_is_found(tmp_path, suffix):
    path = write(tmp_path, pa.table({"p*": [1, 2], "p.1": [3, 4]}), suffix)

    assert open_source(f"{path}#p*", "labels").read(0, 2).tolist() == [1, 2]
    assert open_source(f"{path}#p.1", "labels").read(0, 2).tolist() == [3, 4]


@both
@pytest.mark.parametrize(
    ("column", "message"),
    [
        (["a", "b"], "got x of type string"),
        ([True, False], "got x of type bool"),
        ([{"a": 1}, {"a": 2}], r"got x of type struct<a: int64>"),
        ([["a"], ["b"]], r"got x of type list<.*string>"),
        ([None, None], "got x of type null"),
    ],
)
def test_a_column_of_anything_but_numbers_is_refused(tmp_path, suffix, column, message):
    path = write(tmp_path, pa.table({"x": column}), suffix)

    with pytest.raises(TypeError, match=rf"must be columns of one type of number, or one column of lists.*{message}"):
        open_source(path, "predictions")


@both
def test_columns_of_different_types_are_refused_by_name(tmp_path, suffix):
    path = write(tmp_path, pa.table({"p_0": [1.0], "p_1": pa.array([2.0], pa.float32())}), suffix)

    with pytest.raises(TypeError, match=r"one type of number.* got p_1 of type float in .*Cast it"):
        open_source(f"{path}#p_*", "predictions")


@both
def test_two_columns_of_one_name_are_refused(tmp_path, suffix):
    path = write(tmp_path, pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"]), suffix)

    with pytest.raises(ValueError, match=r"must name columns that are there once, got .*#x"):
        open_source(f"{path}#x", "predictions")


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("stream", [False, True])
def test_any_arrow_file_gives_the_same_bits(tmp_path, logits, labels, compression, stream):
    table = formats.list_table(logits, labels, "variable").append_column(
        "text", pa.array(["a"] * ROWS).dictionary_encode()
    )
    path = write(tmp_path, table, ".arrow", compression=compression, stream=stream)

    assert evaluate(f"{path}#logits", f"{path}#label", chunk_bytes=500) == evaluate(logits, labels)


def test_an_arrow_file_is_read_by_its_footer(tmp_path, logits, labels):
    path = write(tmp_path, formats.list_table(logits, labels), ".arrow")
    data = path.read_bytes()
    first = data.index(b"\xff\xff\xff\xff", 8)  # the schema, as a stream has it; that of polars is written otherwise
    path.write_bytes(data[:first] + b"\x04\0\0\0" + data[first + 4 :])

    assert evaluate(f"{path}#logits", f"{path}#label", chunk_bytes=500) == evaluate(logits, labels)


@both
def test_lists_of_other_lengths_are_named_by_file_and_row(tmp_path, logits, labels, suffix):
    lists = [*logits.tolist()]
    lists[123], lists[124] = lists[123][:-1], lists[124] + [0.0]  # subtle: a footer cannot see it, the sum is the same
    path = write(tmp_path, pa.table({"x": pa.array(lists, pa.list_(pa.float32()))}), suffix)

    with pytest.raises(
        ReadError, match=r"rows \d+ to \d+ of .*#x could not be read .*row 123 is a list of 6 where others have 7"
    ):
        evaluate(path, labels, chunk_bytes=28 * 60)


@both
@pytest.mark.parametrize("kind", ["fixed", "variable"])
@pytest.mark.parametrize("level", ["a list", "a number"])
def test_nulls_in_lists_are_named_by_file_and_row(tmp_path, logits, labels, suffix, kind, level):
    lists = [*logits.tolist()]
    lists[123] = None if level == "a list" else [*lists[123][:-1], None]
    column = pa.array(lists, pa.list_(pa.float32(), CLASSES) if kind == "fixed" else pa.list_(pa.float32()))
    path = write(tmp_path, pa.table({"x": column}), suffix)

    with pytest.raises(ReadError, match=r"rows \d+ to \d+ of .*#x could not be read \(row 123 (is|holds a) null\)"):
        evaluate(path, labels, chunk_bytes=28 * 60)


@both
def test_nulls_in_plain_columns_are_named_by_file_and_row(tmp_path, logits, labels, suffix):
    path = write(tmp_path, pa.table({"y": [None if i == 123 else int(y) for i, y in enumerate(labels)]}), suffix)

    with pytest.raises(ReadError, match=r"of .*#y could not be read .*row 123 is null"):
        evaluate(logits, path)


BAD_ROWS = {
    "a null": lambda row: None,
    "a null in it": lambda row: [*row[:-1], None],
    "a list that is too short": lambda row: row[:-1],
    "a list that is too long": lambda row: [*row, 0.0],
    "an empty list": lambda row: [],
}


@both
@pytest.mark.parametrize("chunk_bytes", [28 * 7, 10**6])
@pytest.mark.parametrize("bad", BAD_ROWS)
def test_a_row_that_is_null_or_of_another_length_is_lost_alone(tmp_path, logits, labels, suffix, bad, chunk_bytes):
    lost = np.zeros(ROWS, bool)
    lost[[0, 121, 122, 506]] = True  # the first of all, which tells no length, among others
    lists = [BAD_ROWS[bad](row) if lost[i] and i else None if lost[i] else row for i, row in enumerate(logits.tolist())]
    column = pa.array(lists, pa.list_(pa.from_numpy_dtype(logits.dtype)))
    path = write(tmp_path, pa.table({"x": column}), suffix)
    made = evaluate(path, labels, on_error="skip", chunk_bytes=chunk_bytes, per_example=tmp_path / "losses.npy")

    assert (made.unread_rows, made.first_unread, made.counted) == (4, 0, ROWS - 4)
    assert made.mean_loss == evaluate(logits[~lost], labels[~lost]).mean_loss
    np.testing.assert_array_equal(np.isnan(np.load(tmp_path / "losses.npy")), lost)


@both
@pytest.mark.parametrize("argument", ["labels", "slices", "clusters"])
def test_a_null_beside_a_row_loses_the_row(tmp_path, logits, labels, suffix, argument):
    numbers = [None if i in (3, 250) else int(y) for i, y in enumerate(labels)]
    path = write(tmp_path, pa.table({"y": pa.array(numbers, pa.int64())}), suffix)
    made = evaluate(logits, **{"labels": labels, argument: path}, on_error="skip", chunk_bytes=28 * 60)
    kept = np.delete(np.arange(ROWS), [3, 250])

    assert (made.unread_rows, made.first_unread) == (2, 3)
    assert made.mean_loss == evaluate(logits[kept], labels[kept]).mean_loss
    assert sum(each.counted for each in made.slices.values()) in (0, len(kept))


@both
def test_nulls_of_half_of_all_rows_are_lost_in_one_reading(tmp_path, logits, labels, suffix, monkeypatch):
    numbers = pa.array([None if i % 2 else int(y) for i, y in enumerate(labels)], pa.int64())
    path = write(tmp_path, pa.table({"y": numbers}), suffix)
    calls, kind = [], ParquetSource if suffix == ".parquet" else ArrowSource
    monkeypatch.setattr(kind, "table", lambda *rows, table=kind.table: calls.append(rows) or table(*rows))
    made = evaluate(logits, path, on_error="skip")

    assert made.unread_rows == ROWS // 2 and len(calls) == 1


def test_top_k_rows_with_a_null_are_lost_alone(tmp_path):
    ids = pa.array([[0, 1], [None, 1], [2, 0]], pa.list_(pa.int64()))
    values = pa.array([[-1.0, -2.0], [-1.0, -2.0], [-1.0, None]], pa.list_(pa.float32()))
    path = write(tmp_path, pa.table({"ids": ids, "values": values}), ".parquet")
    made = evaluate(TopK(f"{path}#ids", f"{path}#values", 3, "uniform"), np.array([0, 1, 2]), on_error="skip")

    assert (made.unread_rows, made.mean_loss) == (2, 1.0)


def test_a_comparison_leaves_out_the_rows_that_are_null_in_either_set(tmp_path, logits, labels):
    lists = [None if i in (5, 300) else row for i, row in enumerate(logits.tolist())]
    path = write(tmp_path, pa.table({"x": pa.array(lists, pa.list_(pa.from_numpy_dtype(logits.dtype)))}), ".parquet")
    made = compare(logits, path, labels, on_error="skip")

    assert (made.counted, made.ties, made.a.unread_rows, made.b.unread_rows) == (ROWS - 2, ROWS - 2, 2, 2)
    assert made.mean_difference == 0


# ---------------------------------------------------------------------------------------------------------------------
# Text


TEXT_TYPES = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "binary": pa.binary(),
}


@both
@pytest.mark.parametrize("kind", TEXT_TYPES)
def test_a_column_of_text_tells_slices_and_clusters(tmp_path, logits, labels, suffix, kind):
    text = np.array(["de", "en", "größer"])[labels % 3]
    path = write(tmp_path, pa.table({"lang": pa.array(text.tolist()).cast(TEXT_TYPES[kind])}), suffix)
    expected = evaluate(logits, labels, slices=text, clusters=text)

    assert evaluate(logits, labels, slices=f"{path}#lang", clusters=path, chunk_bytes=28 * 60) == expected
    assert [*expected.slices] == ["de", "en", "größer"]


@both
def test_a_column_of_true_and_false_tells_slices(tmp_path, logits, labels, suffix):
    path = write(tmp_path, pa.table({"is_long": labels > 3}), suffix)

    assert evaluate(logits, labels, slices=path) == evaluate(logits, labels, slices=labels > 3)


def test_text_in_an_hdf5_file_tells_slices(tmp_path, logits, labels):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    text = np.array(["de", "en", "größer"])[labels % 3]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["any"] = text.tolist()
        file["bytes"] = np.strings.encode(text, "utf-8")

    for name in ("any", "bytes"):
        assert evaluate(logits, labels, slices=f"{tmp_path}/x.h5#{name}") == evaluate(logits, labels, slices=text)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_text_in_a_zarr_array_tells_slices(tmp_path, logits, labels, zarr_format):
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    text = np.array(["de", "en", "größer"])[labels % 3]
    stored = zarr.create_array(tmp_path / "x.zarr", shape=text.shape, dtype=str, chunks=(60,), zarr_format=zarr_format)
    stored[:] = text.astype("T")

    assert evaluate(logits, labels, slices=tmp_path / "x.zarr") == evaluate(logits, labels, slices=text)


def test_strings_of_python_in_hand_tell_slices(logits, labels):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    text = np.array(["de", "en", "größer"])[labels % 3]

    for given in (text.astype(object), text.astype("T"), pandas.Series(text.tolist()), pandas.Series(text).to_numpy()):
        assert evaluate(logits, labels, slices=given) == evaluate(logits, labels, slices=text)
    mixed = np.array(["de", None, 1.5], object)[labels % 3]
    with pytest.raises(TypeError, match=r"`slices` must be integers or text, got object\[507\]\. .*dtype=str"):
        evaluate(logits, labels, slices=mixed)
    assert [*evaluate(logits, labels, slices=np.asarray(mixed, dtype=str)).slices] == ["1.5", "None", "de"]


def test_bytes_are_shown_as_text(tmp_path, logits, labels):
    names = np.array([b"de", b"en", b"\xff"])[labels % 3]
    np.save(tmp_path / "names.npy", names)

    for slices in (names, tmp_path / "names.npy"):
        assert [*evaluate(logits, labels, slices=slices).slices] == [r"\xff", "de", "en"]


@pytest.mark.parametrize("code", [0x110000, 0xFFFFFFFF])
def test_text_of_characters_that_do_not_exist_is_an_error_that_names_its_rows(tmp_path, logits, labels, code):
    names = np.full(ROWS, "de")
    names.view(np.uint32).reshape(ROWS, 2)[400, 1] = code
    np.save(tmp_path / "names.npy", names)

    with pytest.raises(ReadError, match=r"rows 360 to 420 of .*names\.npy hold text of characters that do not exist"):
        evaluate(logits, labels, slices=tmp_path / "names.npy", chunk_bytes=14 * 60)
    with pytest.raises(ReadError, match="hold text of characters that do not exist"):
        evaluate(logits, labels, slices=names)


@both
def test_text_as_labels_is_refused(tmp_path, logits, suffix):
    path = write(tmp_path, pa.table({"y": ["a"] * ROWS}), suffix)

    with pytest.raises(TypeError, match=r"must be integers where the classes have no names, got text\[507\] in .*y"):
        evaluate(logits, path)


# ---------------------------------------------------------------------------------------------------------------------
# Files that are damaged


def test_a_corrupt_page_is_named_by_file_and_rows(tmp_path, logits, labels):
    table = formats.list_table(logits, labels)
    path = write(tmp_path, table, ".parquet", compression="none", write_page_checksum=True, use_dictionary=False)
    start = pq.read_metadata(path).row_group(3).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start + 300] ^= 0x01
    path.write_bytes(data)

    with pytest.raises(ReadError, match=r"rows 180 to 240 of .*x\.parquet#logits could not be read"):
        evaluate(f"{path}#logits", labels, chunk_bytes=14 * 60)


def test_a_corrupt_batch_is_named_by_file_and_rows(tmp_path, logits, labels):
    path = write(tmp_path, formats.list_table(logits, labels), ".arrow", compression="zstd")
    data = path.read_bytes()
    frames = [i for i in range(len(data)) if data.startswith(b"\x28\xb5\x2f\xfd", i)]  # of zstd
    spoilt = bytearray(data)
    spoilt[frames[6]] ^= 0xFF
    path.write_bytes(spoilt)

    with pytest.raises(ReadError, match=r"rows 133 to 193 of .*x\.arrow#logits could not be read"):
        evaluate(f"{path}#logits", labels, chunk_bytes=14 * 60)


@both
def test_a_table_without_rows_has_lists_of_no_length(tmp_path, suffix):
    fixed = pa.table({"x": pa.array([], pa.list_(pa.float32(), 5))})
    variable = pa.table({"x": pa.array([], pa.list_(pa.float32()))})

    assert open_source(write(tmp_path, fixed, suffix), "predictions").shape == (0, 5)
    assert open_source(write(tmp_path, variable, suffix), "predictions").shape == (0, 0)


def test_an_arrow_file_at_a_url_is_refused_with_the_remedy():
    with pytest.raises(
        ValueError, match=r"must lie on a local disk .* got memory://x\.arrow\. Download it, or save it as Parquet"
    ):
        import fsspec

        fsspec.filesystem("memory").pipe("/x.arrow", b"ARROW1\0\0")
        open_source("memory://x.arrow", "predictions")


@both
def test_a_task_does_not_carry_what_only_the_bounds_need(tmp_path, suffix):
    table = formats.list_table(np.zeros((30_000, 2), np.float16), np.zeros(30_000, int))
    path = write(tmp_path, table, suffix, compression="lz4")
    (tmp_path / "shards").mkdir()
    path.rename(tmp_path / "shards" / path.name)
    for source in (tmp_path / "shards" / path.name, tmp_path / "shards"):
        opened = open_source(f"{source}#logits", "predictions")
        bounds = opened.bounds(1)
        _, tasks = opened.parts(bounds)

        assert len(bounds) > 500 and max(len(pickle.dumps(task)) for task in tasks) < 700


def test_a_parquet_task_reads_its_own_row_groups_and_columns(tmp_path, logits, labels, monkeypatch):
    path = write(tmp_path, formats.wide_table(logits, labels), ".parquet")
    asked = []
    read = pq.ParquetFile.read_row_groups

    def spied(self, groups, columns, **options):
        asked.append(([*groups], sorted(columns)))
        return read(self, groups, columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", spied)
    open_source(f"{path}#p_*", "predictions").read(120, 240)

    assert asked == [([2, 3], [f"p_{i}" for i in range(CLASSES)])]


READ = """
import sys
from xent.evaluation.sources.opening import open_source
for name in sys.argv[2:]:
    print(open_source(f"{sys.argv[1]}#{name}", "predictions").read(1, 4).tolist())
print("pandas" in sys.modules)
"""


def test_numbers_are_read_without_pandas(tmp_path):
    """pyarrow's own conversion imports it, which takes 0.3 s of the processor."""
    numbers = np.arange(12, dtype=np.float32).reshape(4, 3)
    columns = {f"p{index}": numbers[:, index] for index in range(3)}
    lists = {"fixed": pa.FixedSizeListArray.from_arrays(numbers.reshape(-1), 3), "lists": pa.array(numbers.tolist())}
    path = write(tmp_path, pa.table({**columns, **lists}), ".parquet")
    command = [sys.executable, "-c", READ, str(path), "p0,p1,p2", "fixed", "lists"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    assert told == [*[str(numbers[1:].tolist())] * 3, "False"]
