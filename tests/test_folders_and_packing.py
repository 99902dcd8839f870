"""Hive folders, zipped Zarr, netCDF, packed numbers, lists of lists and columns by list."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from click.testing import CliRunner
from scipy.special import softmax
from sklearn.metrics import log_loss

from xent.cli import main
from xent.evaluation.evaluations import evaluate
from xent.evaluation.sources.messages import MalformedError, ReadError
from xent.evaluation.sources.opening import open_source

h5py = pytest.importorskip("h5py", reason="h5py is not installed")
xarray = pytest.importorskip("xarray", reason="xarray is not installed")

ROWS, CLASSES = 123, 7


@pytest.fixture
def logits():
    return 5 * np.random.default_rng(2).normal(size=(ROWS, CLASSES))


@pytest.fixture
def labels():
    return np.random.default_rng(3).integers(0, CLASSES, ROWS)


@pytest.fixture
def loss(logits, labels):
    return log_loss(labels, softmax(logits, axis=1), labels=range(CLASSES))


def hive(folder, logits, labels, keys=("lang", "year")):
    """Four partitions; the language of each row."""
    bounds = [0, 30, 31, 100, ROWS]
    values = [("de", "9"), ("de", "10"), ("gr%C3%B6%C3%9Fer", "9"), ("__HIVE_DEFAULT_PARTITION__", "10")]
    of_rows = []
    for (lang, year), start, stop in zip(values, bounds, bounds[1:], strict=False):
        place = folder / f"{keys[0]}={lang}" / f"{keys[1]}={year}"
        place.mkdir(parents=True)
        table = pa.table(
            {"logits": logits[start:stop].tolist(), "text": ["a"] * (stop - start), "label": labels[start:stop]}
        )
        pq.write_table(table, place / "part-0.parquet")
        of_rows += [{"gr%C3%B6%C3%9Fer": "größer"}.get(lang, "" if lang[0] == "_" else lang)] * (stop - start)
    return np.array(of_rows)


def test_a_hive_folder_gives_the_loss_of_scikit_learn_and_its_keys_are_slices(tmp_path, logits, labels, loss):
    languages = hive(tmp_path, logits, labels)
    made = evaluate(
        f"{tmp_path}#logits",
        f"{tmp_path}#label",
        slices=f"{tmp_path}#lang",
        clusters=f"{tmp_path}#year",
        chunk_bytes=56 * 10,
    )

    assert made.mean_loss == pytest.approx(loss, rel=1e-12)
    assert {name: each.counted for name, each in made.slices.items()} == {"": 23, "de": 31, "größer": 69}
    assert made.clusters == 2
    for lang, each in made.slices.items():
        rows = languages == lang
        assert each.mean_loss == pytest.approx(evaluate(logits[rows], labels[rows]).mean_loss, rel=1e-12)
    years = open_source(f"{tmp_path}#year", "slices")
    assert years.dtype == np.int64 and sorted({*years.read(0, ROWS).tolist()}) == [9, 10]


def test_a_hive_folder_goes_on_where_it_was_and_notices_a_change(tmp_path, logits, labels):
    hive(tmp_path / "set", logits, labels)
    given = {"slices": f"{tmp_path}/set#lang", "state": tmp_path / "state"}
    made = evaluate(f"{tmp_path}/set#logits", f"{tmp_path}/set#label", **given)
    assert evaluate(f"{tmp_path}/set#logits", f"{tmp_path}/set#label", **given) == made

    hive(tmp_path / "other", logits, labels, ("long", "year"))
    with pytest.raises(ValueError, match="must name one array of its file"):
        evaluate(f"{tmp_path}/other#logits", f"{tmp_path}/other#label", slices=f"{tmp_path}/other#lang")


def test_what_is_no_hive_folder_is_refused(tmp_path, logits, labels):
    hive(tmp_path / "a", logits, labels)
    pq.write_table(pa.table({"label": labels}), tmp_path / "a" / "more.parquet")
    with pytest.raises(
        ValueError, match=r"must hold its files in partitions where it has any, got .*more\.parquet beside"
    ):
        open_source(f"{tmp_path}/a#label", "labels")
    hive(tmp_path / "b", logits, labels)
    (tmp_path / "b" / "lang=de" / "lang=de").mkdir()
    with pytest.raises(MalformedError, match=r"must have each key of its partitions once"):
        open_source(f"{tmp_path}/b#label", "labels")
    hive(tmp_path / "c", logits, labels)
    (tmp_path / "c" / "lang=en").symlink_to(tmp_path / "b" / "lang=de")
    with pytest.raises(MalformedError, match=r"must lie in files of its own, got the link .*lang=en"):
        open_source(f"{tmp_path}/c#label", "labels")
    hive(tmp_path / "d", logits, labels)
    (tmp_path / "d" / "split=x").mkdir()
    with pytest.raises(ValueError, match=r"must be a key of every partition, got lang, which .*split=x lacks"):
        open_source(f"{tmp_path}/d#lang", "slices")


def test_files_with_an_equals_sign_in_their_names_are_shards(tmp_path, logits, labels, loss):
    for i, rows in enumerate((slice(0, 60), slice(60, ROWS))):
        zarr.create_array(tmp_path / f"part={i}.zarr", data=logits[rows], chunks=(20, 7))

    assert evaluate(tmp_path, labels).mean_loss == pytest.approx(loss, rel=1e-12)


# ---------------------------------------------------------------------------------------------------------------------
# Zipped Zarr


def zip_zarr(path, arrays, **options):
    with zarr.storage.ZipStore(path, mode="w") as store:
        if isinstance(arrays, dict):
            group = zarr.create_group(store, zarr_format=options.pop("zarr_format", 3))
            for name, array in arrays.items():
                group.create_array(name, data=array, chunks=(20,) * array.ndim, **options)
        else:
            zarr.create_array(store, data=arrays, chunks=(20,) * arrays.ndim, **options)
    return path


@pytest.mark.parametrize("options", [{}, {"zarr_format": 2}, {"shards": (60, 20)}], ids=str)
def test_a_zipped_zarr_array_gives_the_loss_of_scikit_learn(tmp_path, logits, labels, loss, options):
    zip_zarr(tmp_path / "x.zarr.zip", logits, **options)
    options.pop("shards", None)
    zip_zarr(tmp_path / "y.zarr.zip", {"labels": labels, "logits": logits}, **options)

    for path in ("x.zarr.zip", "y.zarr.zip#logits"):
        made = evaluate(f"{tmp_path}/{path}", f"{tmp_path}/y.zarr.zip#labels", chunk_bytes=56 * 20)
        assert made.mean_loss == pytest.approx(loss, rel=1e-12)


def test_hive_folders_and_zipped_zarr_arrays_are_read_at_a_url(tmp_path, logits, labels, loss):
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    memory = fsspec.filesystem("memory")
    hive(tmp_path / "set", logits, labels)
    zip_zarr(tmp_path / "x.zarr.zip", logits)
    memory.pipe("/zipped/x.zarr.zip", (tmp_path / "x.zarr.zip").read_bytes())
    for path in (tmp_path / "set").rglob("*.parquet"):
        memory.pipe(f"/hive/{path.relative_to(tmp_path / 'set')}", path.read_bytes())
    made = evaluate("memory://hive#logits", "memory://hive#label", slices="memory://hive#lang")

    assert made.mean_loss == pytest.approx(loss, rel=1e-12) and [*made.slices] == ["", "de", "größer"]
    assert evaluate("memory://zipped/x.zarr.zip", labels).mean_loss == pytest.approx(loss, rel=1e-12)


def test_a_zip_of_a_zarr_folder_is_read(tmp_path, logits, labels, loss):
    import shutil

    zarr.create_array(tmp_path / "in" / "x.zarr", data=logits, chunks=(20, 7))
    shutil.make_archive(str(tmp_path / "x.zarr"), "zip", tmp_path / "in")

    assert evaluate(tmp_path / "x.zarr.zip", labels).mean_loss == pytest.approx(loss, rel=1e-12)


def test_a_zipped_zarr_array_that_is_not_whole_is_refused(tmp_path, logits):
    import zipfile

    whole = zip_zarr(tmp_path / "x.zarr.zip", logits)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(tmp_path / "less.zarr.zip", "w") as new:
        for name in old.namelist():
            if name != "c/3/0":
                new.writestr(name, old.read(name))
    with pytest.raises(
        ReadError, match=r"less\.zarr\.zip is incomplete: 1 of its 7 chunk files are missing, the first .*c/3/0"
    ):
        open_source(tmp_path / "less.zarr.zip", "predictions").check_complete()
    (tmp_path / "cut.zarr.zip").write_bytes(whole.read_bytes()[:500])
    with pytest.raises(ReadError, match=r"cut\.zarr\.zip is truncated or corrupt"):
        open_source(tmp_path / "cut.zarr.zip", "predictions")
    (tmp_path / "no.zarr.zip").write_bytes(b"spam" * 50)
    with pytest.raises(MalformedError, match=r"must be a zip archive where its name says so, got .*no\.zarr\.zip"):
        open_source(tmp_path / "no.zarr.zip", "predictions")
    zip_zarr(tmp_path / "g.zarr.zip", {"a": logits, "b": logits})
    with pytest.raises(
        ValueError, match=r"must be one Zarr array, got the group .*g\.zarr\.zip of a, b\. Pass .*g\.zarr\.zip#a"
    ):
        open_source(tmp_path / "g.zarr.zip", "predictions")


def test_a_zipped_zarr_array_that_is_written_anew_is_read_anew(tmp_path, logits):
    source = open_source(zip_zarr(tmp_path / "x.zarr.zip", logits), "predictions")
    (tmp_path / "x.zarr.zip").unlink()
    again = open_source(zip_zarr(tmp_path / "x.zarr.zip", -logits), "predictions")

    np.testing.assert_array_equal(again.read(0, 40), -logits[:40])
    with pytest.raises(ReadError, match=r"x\.zarr\.zip has changed since it was opened"):
        source.read(0, 40)


# ---------------------------------------------------------------------------------------------------------------------
# netCDF, and what xarray packs


def data_set(logits, labels):
    return xarray.Dataset({"logits": (("row", "label_class"), logits), "labels": (("row",), labels)})


def write_netcdf(path, logits, labels, attributes):
    """What xarray's writers leave in a netCDF-4 file, by h5py: dimensions are scales, attributes arrays of one."""
    with h5py.File(path, "w") as file:
        for name, data in (("logits", logits), ("labels", labels)):
            file[name] = data
            for key, value in attributes.get(name, {}).items():
                file[name].attrs[key] = value if isinstance(value, str) else np.atleast_1d(np.asarray(value))


def test_a_netcdf_file_gives_the_loss_of_scikit_learn(tmp_path, logits, labels, loss):
    write_netcdf(tmp_path / "x.nc", logits, labels, {"logits": {"_FillValue": np.nan}})

    made = evaluate(f"{tmp_path}/x.nc#logits", f"{tmp_path}/x.nc#labels")
    assert made.mean_loss == pytest.approx(loss, rel=1e-12)


def test_what_xarray_writes_by_h5netcdf_is_what_it_reads(tmp_path, logits, labels):
    pytest.importorskip("h5netcdf", reason="h5netcdf is not installed")
    encoding = {
        "logits": {"dtype": "int16", "scale_factor": 0.001, "add_offset": 1.0, "_FillValue": -32768},
        "labels": {"dtype": "int8", "scale_factor": 2.0, "add_offset": -3.0, "_FillValue": -99},
    }
    data_set(logits, labels * 1.0).to_netcdf(tmp_path / "x.nc", engine="h5netcdf", encoding=encoding)
    read = xarray.open_dataset(tmp_path / "x.nc", engine="h5netcdf")

    np.testing.assert_array_equal(open_source(f"{tmp_path}/x.nc#logits", "predictions").read(0, ROWS), read.logits)
    np.testing.assert_array_equal(open_source(f"{tmp_path}/x.nc#labels", "labels").read(0, ROWS), read.labels)


PACKED = {
    "logits": {"scale_factor": 0.001, "add_offset": 1.0, "_FillValue": np.int16(-32768)},
    "labels": {"scale_factor": 2.0, "add_offset": -3.0, "missing_value": np.int16(99)},
}


def packed(folder, kind, stored):
    """The paths of stored arrays with the attributes of PACKED."""
    if kind == "netcdf":
        write_netcdf(folder / "x.nc", stored["logits"], stored["labels"], PACKED)
        return f"{folder}/x.nc#logits", f"{folder}/x.nc#labels"
    for name, array in stored.items():
        made = zarr.create_array(
            folder / f"{name}.zarr", data=array, chunks=(20,) * array.ndim, zarr_format=int(kind[-1])
        )
        made.attrs.update({key: np.asarray(value).item() for key, value in PACKED[name].items()})
    return f"{folder}/logits.zarr", f"{folder}/labels.zarr"


@pytest.mark.parametrize("kind", ["netcdf", "zarr 2", "zarr 3"])
def test_packed_numbers_are_unpacked(tmp_path, logits, labels, kind):
    stored = {
        "logits": np.round((logits - 1) / 0.001).astype(np.int16),
        "labels": ((2 * labels + 6) // 2).astype(np.int16),
    }
    unpacked = stored["logits"] * 0.001 + 1
    truth = 2 * stored["labels"].astype(int) - 3
    paths = packed(tmp_path, kind, stored)
    source = open_source(paths[1], "labels")

    np.testing.assert_array_equal(open_source(paths[0], "predictions").read(0, ROWS), unpacked)
    assert source.dtype == np.int64
    np.testing.assert_array_equal(source.read(0, ROWS), truth)
    made = evaluate(*paths, on_bad_label="skip")
    good = truth < CLASSES
    expected = log_loss(truth[good], softmax(unpacked[good], axis=1), labels=range(CLASSES))
    assert made.mean_loss == pytest.approx(expected, rel=1e-12) and made.bad_labels == (~good).sum() > 0


@pytest.mark.parametrize("kind", ["netcdf", "zarr 2", "zarr 3"])
def test_missing_values_are_nan_in_predictions_and_lose_a_label_alone(tmp_path, logits, labels, kind):
    stored = {"logits": np.full((ROWS, CLASSES), 1, np.int16), "labels": np.full(ROWS, 2, np.int16)}
    stored["logits"][5, 3], stored["labels"][8] = -32768, 99
    paths = packed(tmp_path, kind, stored)

    with pytest.raises(ReadError, match=r"rows 0 to \d+ of .*labels could not be read|row 8 has a missing value, 99"):
        evaluate(*paths)
    made = evaluate(*paths, on_error="skip")
    assert (made.unread_rows, made.first_unread, made.nan_rows, made.first_nan) == (1, 8, 1, 5)


def test_a_zarr_array_of_xarray_has_the_fill_value_of_its_attributes(tmp_path, logits, labels):
    for zarr_format in (2, 3):
        path = tmp_path / f"x{zarr_format}.zarr"
        encoding = {"labels": {"_FillValue": 3}, "logits": {"dtype": "float32", "_FillValue": 1e20}}
        data_set(logits, labels).to_zarr(path, zarr_format=zarr_format, encoding=encoding, consolidated=False)
        made = evaluate(f"{path}#logits", f"{path}#labels", on_error="skip")

        assert made.unread_rows == (labels == 3).sum() > 0, zarr_format
        assert open_source(f"{path}#logits", "predictions").packing.fills == (np.float32(1e20).item(),)


def test_labels_that_are_unpacked_to_fractions_and_attributes_that_are_no_numbers_are_refused(tmp_path, logits, labels):
    write_netcdf(tmp_path / "x.nc", logits, labels, {"labels": {"scale_factor": 0.5}})
    with pytest.raises(TypeError, match=r"`labels` must be integers, got float64\[123\] in .*x\.nc#labels"):
        evaluate(f"{tmp_path}/x.nc#logits", f"{tmp_path}/x.nc#labels")
    for value in ("spam", [1.0, 2.0], np.inf):
        write_netcdf(tmp_path / "x.nc", logits, labels, {"logits": {"scale_factor": value}})
        with pytest.raises(
            TypeError, match=r"`predictions` must be packed by numbers, got the scale_factor .* of .*x\.nc#logits"
        ):
            open_source(f"{tmp_path}/x.nc#logits", "predictions")


def test_a_netcdf_file_of_version_3_is_refused_with_what_to_write(tmp_path):
    (tmp_path / "x.nc").write_bytes(b"CDF\x02" + bytes(200))

    with pytest.raises(
        ValueError, match=r"must be netCDF-4, got .*x\.nc, which is netCDF-3\. Write it again: xarray\."
    ):
        open_source(tmp_path / "x.nc", "predictions")
    (tmp_path / "x.nc").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    made = CliRunner().invoke(main, ["inspect", f"{tmp_path}/x.nc"])
    assert made.exit_code == 3 and made.stderr.count("\n") == 1 and "x.nc is truncated or corrupt" in made.stderr


# ---------------------------------------------------------------------------------------------------------------------
# Columns


COLUMNS = {"a": 0, "p_0": 1, "p_2": 2, "p_10": 3, "p_total": 4, "q": 5, "x,y": 6}


def columns(path, name):
    return open_source(f"{path}#{name}", "predictions").read(0, 1)[0].tolist()


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "csv", "jsonl"])
def test_columns_are_named_by_lists_and_patterns_with_exclusions(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    table = pa.table({name: [float(value)] for name, value in COLUMNS.items()})
    if suffix == "parquet":
        pq.write_table(table, path)
    elif suffix == "arrow":
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    elif suffix == "csv":
        table.to_pandas().to_csv(path, index=False)
    else:
        table.to_pandas().to_json(path, orient="records", lines=True)

    for name, expected in {
        "q,a": [5, 0],
        "a,": None,
        "p_*,!p_total,!p_10,!p_2": [1],
        "*,!*_*,!x*": [0, 5],
        "q,p_?": [5, 1, 2],
        "!p_*,!x*": [0, 5],
    }.items():
        if expected is not None:
            assert columns(path, name) == expected, name
    assert open_source(f"{path}#x,y", "predictions").shape == (1,)
    assert open_source(f"{path}#p_0,p_2,p_10", "predictions").shape == (1, 3)
    for name, message in {
        "q,spam": r"must name one array of its file after a #, got 'spam' of .*x",
        "p_*,!spam": r"got 'spam' of",
        "a,q,a": r"must name columns that are there once, got .*#a,q,a",
        "p_*,!p_total": r"numbered without a gap, got p_0 to p_10.*List the columns, as in #a,b,c",
        "!*": r"must name one array",
    }.items():
        with pytest.raises(ValueError, match=message):
            open_source(f"{path}#{name}", "predictions")


@pytest.mark.parametrize("layout", ["folder", "hive"])
@pytest.mark.parametrize("suffix", ["parquet", "arrow", "csv"])
def test_shards_whose_columns_are_in_another_order_are_refused(tmp_path, suffix, layout):
    table = pa.table({"p_a": [1.0, 0.0], "p_b": [0.0, 3.0], "label": [0, 1]})
    for number, order in enumerate((["p_a", "p_b", "label"], ["p_b", "p_a", "label"])):
        folder = tmp_path / "set" / (f"part={number}" if layout == "hive" else ".")
        folder.mkdir(parents=True, exist_ok=True)
        part, path = table.select(order), folder / f"{number}.{suffix}"
        if suffix == "parquet":
            pq.write_table(part, path)
        elif suffix == "arrow":
            with pa.ipc.new_file(str(path), part.schema) as writer:
                writer.write_table(part)
        else:
            part.to_pandas().to_csv(path, index=False)

    with pytest.raises(ValueError, match="the same columns in one order") as refused:
        evaluate(f"{tmp_path}/set#p_*", f"{tmp_path}/set#label")
    remedy = re.search(r"Pass (\S+)\.$", str(refused.value))[1]

    expected = log_loss([0, 1], softmax([[1.0, 0.0], [0.0, 3.0]], axis=1))
    assert evaluate(remedy, f"{tmp_path}/set#label").mean_loss == pytest.approx(expected)


@pytest.mark.parametrize("number", [0, 5])
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_shard_of_no_rows_need_not_tell_types_and_lengths(tmp_path, suffix, number):
    names = ["ant", "bee"]
    for shard in range(6):
        logits, text = ([], []) if shard == number else ([[1.0, 0.0], [0.0, 3.0]], names)
        if suffix == "parquet":
            table = {"z": pa.array(logits, pa.list_(pa.float64())), "label": pa.array(text, pa.string())}
            pq.write_table(pa.table(table), tmp_path / f"{shard}.parquet")
        else:
            lines = ["p_0,p_1,label", *(f"{a},{b},{name}" for (a, b), name in zip(logits, text, strict=True))]
            (tmp_path / f"{shard}.csv").write_text("\n".join(lines) + "\n")
    found = evaluate(f"{tmp_path}#{'z' if suffix == 'parquet' else 'p_*'}", f"{tmp_path}#label", class_names=names)

    assert found.counted == 10
    assert found.mean_loss == pytest.approx(log_loss([0, 1], softmax([[1.0, 0.0], [0.0, 3.0]], axis=1)))


@pytest.mark.parametrize("suffix", [".ZARR.ZIP", ".Zarr.zip"])
def test_a_zipped_zarr_array_may_be_named_in_capitals(tmp_path, logits, labels, loss, suffix):
    zip_zarr(tmp_path / "x.zarr.zip", {"logits": logits})
    (tmp_path / "x.zarr.zip").rename(tmp_path / f"y{suffix}")

    assert evaluate(f"{tmp_path}/y{suffix}#logits", labels).mean_loss == pytest.approx(loss)


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_arrays_that_are_numbered_are_no_columns(tmp_path, logits, labels, loss, suffix):
    path = tmp_path / f"x.{suffix}"
    if suffix == "npz":
        np.savez(path, logits, labels)
    else:
        with h5py.File(path, "w") as file:
            file.update({"arr_0": logits, "arr_1": labels})

    with pytest.raises(ValueError, match=r"which holds arr_0, arr_1") as refused:
        evaluate(path, labels)
    assert evaluate(re.search(r"Pass (\S+)\.$", str(refused.value))[1], labels).mean_loss == pytest.approx(loss)
    shown = CliRunner().invoke(main, ["inspect", str(path)]).stdout
    assert f"arr_0  {ROWS} × {CLASSES}  float64" in shown and f"arr_1  {ROWS}  int64" in shown


def test_inspect_shows_text_beside_numbers(tmp_path, logits):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.update({"logits": logits, "label": ["ant"] * ROWS})

    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "x.h5")]).stdout
    assert f"label  {ROWS}  text" in shown and f"logits  {ROWS} × {CLASSES}  float64" in shown


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl"])
def test_lists_of_lists_are_arrays_of_more_dimensions(tmp_path, suffix, logits):
    block = logits[:120].reshape(20, 6, CLASSES)
    rows = block.tolist()
    rows[7], rows[8], rows[9] = None, [*rows[8][:-1], rows[8][0][:-1]], rows[9][:-1]
    path, table = tmp_path / f"x.{suffix}", pa.table({"x": rows})
    if suffix == "jsonl":
        table.to_pandas().to_json(path, orient="records", lines=True, double_precision=15)
    elif suffix == "parquet":
        pq.write_table(table, path, row_group_size=6)
    else:
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=6)
    source = open_source(f"{path}#x", "predictions")

    assert source.shape == (20, 6, CLASSES)
    np.testing.assert_allclose(source.read(10, 20), block[10:], rtol=1e-12)
    assert np.flatnonzero(source.read_with_nulls(0, 20)[1]).tolist() == [7, 8, 9]
    for row, flaw in (
        (7, "is null"),
        (8, "holds a null, or lists of other lengths"),
        (9, "is a list of 5 where others have 6"),
    ):
        with pytest.raises(ReadError, match=rf"row {row} {flaw}"):
            source.read(row, row + 1)


@pytest.mark.parametrize("suffix", [".ipc", ".arrows", ".feather"])
def test_arrow_files_go_by_any_of_their_suffixes(tmp_path, suffix, logits, labels, loss):
    table = pa.table({"logits": logits.tolist(), "label": labels})
    with (pa.ipc.new_stream if suffix == ".arrows" else pa.ipc.new_file)(
        str(tmp_path / f"x{suffix}"), table.schema
    ) as writer:
        writer.write_table(table, max_chunksize=50)
    made = evaluate(f"{tmp_path}/x{suffix}#logits", f"{tmp_path}/x{suffix}#label")

    assert made.mean_loss == pytest.approx(loss, rel=1e-12)
