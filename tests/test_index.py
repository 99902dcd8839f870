"""Sets in many files: the first is opened before a run, and the others by the tasks that read them."""

import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import xent
from xent.cli import main
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.options import Options
from xent.evaluation.sources import npy, opening, unopened
from xent.evaluation.sources.messages import ReadError
from xent.evaluation.sources.opening import open_source

SHARDS, CLASSES = 70, 3
SIZES = [1 + i % 4 for i in range(SHARDS)]
ENDS = np.cumsum([0, *SIZES])
ROWS = int(ENDS[-1])
LOGITS = np.random.default_rng(0).standard_normal((ROWS, CLASSES)).astype(np.float32)
LABELS = np.arange(ROWS) % CLASSES
EXPECTED = xent.evaluate(LOGITS, LABELS)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("x", "y", "t"):
        Path(name).mkdir()
    for i in range(SHARDS):
        rows = slice(ENDS[i], ENDS[i + 1])
        np.save(f"x/part-{i}.npy", LOGITS[rows])
        np.save(f"y/part-{i}.npy", LABELS[rows])
    return tmp_path


@pytest.fixture
def tables(folder):
    for i in range(SHARDS):
        rows = slice(ENDS[i], ENDS[i + 1])
        columns = {f"p{c}": LOGITS[rows, c] for c in range(CLASSES)}
        pq.write_table(pa.table({**columns, "label": LABELS[rows]}), f"t/part-{i}.parquet")
    return folder


@pytest.fixture
def opened(monkeypatch):
    """The files that have been opened, in this process."""
    seen = []
    open_path = opening.open_path

    def seeing(text, *arguments):
        if os.path.isfile(text.partition("#")[0]):
            seen.append(text)
        return open_path(text, *arguments)

    monkeypatch.setattr(opening, "open_path", seeing)
    return seen


def command(*arguments):
    return CliRunner().invoke(main, [*arguments])


def test_of_many_files_only_the_first_is_opened_before_the_run(folder, opened):
    planned = plan("x", "y", Options(chunk_bytes=100))

    assert opened == [str(folder / "x/part-0.npy"), str(folder / "y/part-0.npy")]
    assert planned.rows == ROWS and {*planned.bounds} <= {*ENDS.tolist()}
    assert planned.run().mean_loss == EXPECTED.mean_loss and len(opened) >= 2 * SHARDS


def test_all_are_opened_where_they_are_few_or_it_is_asked(folder, opened, monkeypatch):
    with unopened.shards_checked(True):
        plan("x", "y")
    assert len(opened) == 2 * SHARDS
    opened.clear()
    monkeypatch.setattr(unopened, "FEW", SHARDS)
    plan("x", "y")

    assert len(opened) == 2 * SHARDS


@pytest.mark.parametrize("chunk_bytes", [12, 100, 2**26])
@pytest.mark.parametrize("scheduler", ["threads", "sync"])
def test_any_chunks_of_unopened_files_leave_the_same_bits(folder, chunk_bytes, scheduler):
    assert xent.evaluate("x", "y/*.npy", chunk_bytes=chunk_bytes, scheduler=scheduler) == EXPECTED
    assert xent.compare("x", LOGITS, LABELS, chunk_bytes=chunk_bytes).a == EXPECTED


def test_a_cluster_opens_them_too(folder):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    with (
        distributed.LocalCluster(1, processes=False, dashboard_address="127.0.0.1:0") as local,
        distributed.Client(local, set_as_default=False) as client,
    ):
        assert xent.evaluate("x", "y", chunk_bytes=100, scheduler=client) == EXPECTED


def test_raw_files_of_one_shape_are_known_by_their_sizes(folder, opened):
    for i in range(SHARDS):
        LOGITS[2 * i : 2 * i + 2].tofile(f"t/{i}.bin")
    expected = xent.evaluate(LOGITS[: 2 * SHARDS], LABELS[: 2 * SHARDS])
    name = "t/*.bin#float32,2,3"

    assert xent.evaluate(name, LABELS[: 2 * SHARDS]) == expected
    opened.clear()
    Path("t/50.bin").write_bytes(bytes(48))
    with pytest.raises(ValueError, match=r"whole rows of the first, got .*50\.bin of 48 bytes beside"):
        plan(name, LABELS[: 2 * SHARDS])
    assert len(opened) == 1


WRONG = {
    "another dtype": (lambda: np.zeros((2, 3), np.int32), "like its first, .* got int32"),
    "other classes": (lambda: np.zeros((1, 6), np.float32), r"like its first, .* got float32\[1, 6\]"),
    "another number of dimensions": (
        lambda: np.zeros((2, 1, 3), np.float32),
        r"like its first, .* got float32\[2, 1, 3\]",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("on_error", ["error", "skip"])
def test_a_file_that_is_not_like_the_first_is_named_by_its_task(folder, wrong, on_error):
    make, message = WRONG[wrong]
    np.save("x/part-33.npy", make())
    labels = np.resize(LABELS, ROWS + 2 - SIZES[33])
    message = rf"`predictions` must have shards that are {message}.*part-33\.npy.*check_shards=True"

    plan("x", labels)
    with pytest.raises(ValueError, match=message):
        xent.evaluate("x", labels, on_error=on_error)
    with pytest.raises(ValueError, match=r"part-33\.npy"):
        xent.evaluate("x", labels, check_shards=True)
    refused = command("evaluate", "x", "y", "-q", "--check-shards")
    assert refused.exit_code == 2 and "part-33.npy" in refused.stderr and refused.stderr.count("\n") == 1


def test_a_size_of_no_whole_rows_is_found_before_the_run(folder):
    np.save("x/part-33.npy", np.zeros((1, 7), np.float32))

    with pytest.raises(ValueError, match=r"whole rows of the first, got .*part-33\.npy of 156 bytes .*check_shards"):
        plan("x", LABELS)


def test_a_file_that_is_lost_or_cut_during_the_run_is_an_error_or_skipped(folder):
    planned = plan("x", "y", Options(on_error="skip"))
    os.remove("x/part-33.npy")
    found = planned.run()

    assert found.rows == ROWS and found.counted == ROWS - SIZES[33]
    with pytest.raises(ReadError, match=r"part-34\.npy is not there"):
        planned = plan("x", np.resize(LABELS, ROWS - SIZES[33]))
        os.remove("x/part-34.npy")
        planned.run()


def test_an_index_tells_the_rows_of_files_that_no_listing_tells(tables, opened):
    for array in ("p*", "label"):
        assert xent.index_shards(f"t#{array}") == str(tables / "t/_xent_index.parquet")
    opened.clear()
    planned = plan("t#p*", "t#label", Options(chunk_bytes=100))

    assert len(opened) == 2 and planned.rows == ROWS
    assert planned.run().mean_loss == EXPECTED.mean_loss
    assert xent.evaluate("t/part-*.parquet#p*", "t#label") == EXPECTED
    assert xent.evaluate("t#p*", "t#label", class_names="columns", on_error="skip").mean_loss == EXPECTED.mean_loss


def test_an_index_is_a_table_of_the_files(tables):
    xent.index_shards("t#p*")
    xent.index_shards("t#label", checksums=False)
    table = pq.read_table("t/_xent_index.parquet").to_pylist()

    assert len(table) == 2 * SHARDS
    assert table[1] == {
        "file": "part-1.parquet",
        "array": "p*",
        "rows": 2,
        "dtype": "float32",
        "row_shape": [3],
        "bytes": os.path.getsize("t/part-1.parquet"),
        "checksum": table[1]["checksum"],
    }
    assert re.fullmatch("sha256:[0-9a-f]{64}", table[1]["checksum"])
    assert table[-1]["checksum"] == "" and table[-1]["row_shape"] == []


def test_without_an_index_or_sizes_files_are_opened_and_too_many_refused(tables, opened, monkeypatch):
    assert xent.evaluate("t#p*", "t#label") == EXPECTED and len(opened) >= 2 * SHARDS
    monkeypatch.setattr(unopened, "MANY", SHARDS - 1)
    message = r"tell the lengths of its shards where they are more than 69, got 70 in .*t#p\*\. Make an index"
    with pytest.raises(ValueError, match=message) as refused:
        plan("t#p*", "t#label")
    (line,) = re.findall("xent (index '[^']*')", str(refused.value))
    written = command(*line.replace("'", "").split())
    assert written.exit_code == 0 and written.stdout.strip().endswith("_xent_index.parquet")
    xent.index_shards("t#label")

    assert plan("t#p*", "t#label").rows == ROWS
    assert command("evaluate", "t#p*", "t#label", "-q", "--check-shards").exit_code == 0


def test_an_index_that_is_not_of_the_files_is_refused(tables):
    xent.index_shards("t#label")
    os.rename("t/part-5.parquet", "t/part-500.parquet")
    with pytest.raises(ValueError, match=r"all its shards in its index, got .*part-500\.parquet, .*xent index"):
        plan(LOGITS, "t#label")
    os.remove("t/part-500.parquet")
    with pytest.raises(ValueError, match=r"the shards that its index names, got .*part-5\.parquet, which is gone"):
        plan(LOGITS, "t#label")
    xent.index_shards("t#label")
    assert open_source("t#label", "labels").shape == (ROWS - SIZES[5],)
    pq.write_table(pa.table({"label": np.arange(9)}), "t/part-7.parquet")
    with pytest.raises(ValueError, match=r"got int64\[9\] in .*part-7\.parquet#label, and not int64\[4\]"):
        xent.evaluate(LOGITS[: ROWS - SIZES[5]], "t#label")
    Path("t/_xent_index.parquet").write_bytes(b"PAR1")
    with pytest.raises(ReadError, match=r"_xent_index\.parquet is no index"):
        plan(LOGITS, "t#label")


UNLIKE = {
    "other rows": pa.table({"label": np.arange(9)}),
    "text": pa.table({"label": ["a"] * SIZES[60]}),
    "another column": pa.table({"other": np.arange(SIZES[60])}),
    "a folder": None,
}


@pytest.mark.parametrize("unlike", UNLIKE)
@pytest.mark.parametrize("on_error", ["error", "skip"])
def test_a_file_that_is_not_as_its_index_tells_ends_the_command_with_a_remedy(tables, unlike, on_error):
    np.save("x.npy", LOGITS)
    xent.index_shards("t#label")
    os.remove("t/part-60.parquet")
    if UNLIKE[unlike] is None:
        os.mkdir("t/part-60.parquet")
    else:
        pq.write_table(UNLIKE[unlike], "t/part-60.parquet")
    refused = command("evaluate", "x.npy", "t/*.parquet#label", "-q", "--on-error", on_error)

    assert refused.exit_code == 2 and refused.stderr.count("\n") == 1
    assert "part-60.parquet" in refused.stderr
    assert f"make the index anew, with: xent index '{tables}/t/*.parquet#label'" in refused.stderr


def test_an_index_is_no_file_of_a_glob_and_is_read_without_threads_of_arrow(tables, monkeypatch):
    xent.index_shards("t/*.parquet#label")
    read, seen = pq.ParquetFile.read, []
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *a, **how: seen.append(how) or read(*a, **how))

    assert plan(LOGITS, "t/*.parquet#label").rows == ROWS
    assert seen == [{"use_threads": False}]


@pytest.mark.parametrize("rows", [-1, None, 1.5])
def test_an_index_of_no_numbers_of_rows_is_refused_before_the_run(tables, rows):
    xent.index_shards("t#label")
    table = pq.read_table("t/_xent_index.parquet").to_pydict()
    table["rows"] = [*table["rows"][:9], rows, *table["rows"][10:]]
    pq.write_table(pa.table(table), "t/_xent_index.parquet")

    with pytest.raises(ValueError, match=r"index of numbers of rows, got .* of .*part-[09]\.parquet\. .*xent index"):
        plan(LOGITS, "t#label")


@pytest.mark.parametrize("checksums", [True, False])
def test_states_of_a_set_with_an_index_see_that_a_file_has_changed(tables, checksums):
    np.save("x.npy", LOGITS)
    xent.index_shards("t#label", checksums=checksums)
    assert xent.evaluate("x.npy", "t#label", state="kept") == xent.evaluate("x.npy", "t#label", state="kept")
    os.utime("t/part-40.parquet", ns=(0, 1))

    with pytest.raises(ValueError, match="whose labels have changed since"):
        xent.evaluate("x.npy", "t#label", state="kept")


def test_what_is_no_set_of_files_has_no_index(folder):
    for path, message in (("x/part-0.npy", "several files"), (".", "shards")):
        with pytest.raises(ValueError, match=message):
            xent.index_shards(path)
    refused = command("index", "x/part-0.npy")

    assert refused.exit_code == 2 and refused.stderr.count("\n") == 1


def test_states_of_unopened_files_see_that_one_has_changed(folder):
    xent.evaluate("x", "y", state="kept")
    os.utime("x/part-40.npy", ns=(0, 1))

    with pytest.raises(ValueError, match="whose predictions have changed since"):
        xent.evaluate("x", "y", state="kept")


def test_inspect_opens_the_first_and_checks_all_where_it_is_asked(folder, opened):
    shown = command("inspect", "x")
    assert shown.exit_code == 0 and f"{ROWS:,}" in shown.stdout and len(opened) == 1
    np.save("x/part-33.npy", np.zeros((2, 3), np.int32))
    assert command("inspect", "x").exit_code == 0
    checked = command("inspect", "x", "--check-shards")

    assert checked.exit_code == 2 and "part-33.npy" in checked.stderr


def test_a_link_out_of_the_set_is_refused_unopened(folder):
    np.save("outside.npy", LOGITS[:2])
    os.remove("x/part-33.npy")
    os.symlink(folder / "outside.npy", "x/part-33.npy")

    with pytest.raises(ReadError, match="files of its own"):
        plan("x", LABELS)


def test_a_header_of_another_length_is_not_taken_for_rows(folder):
    with open("x/part-33.npy", "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2, 3)}
        npy.np.lib.format.write_array_header_2_0(file, header)
        file.write(bytes(12 * 11))
    size = os.path.getsize("x/part-33.npy")

    assert (size - 128) % 12 == 0
    with pytest.raises(ValueError, match=r"got float32\[2, 3\] in .*part-33"):
        xent.evaluate("x", np.resize(LABELS, ROWS - SIZES[33] + (size - 128) // 12))


def test_a_set_at_a_url_has_its_index_there(tables):
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    memory = fsspec.filesystem("memory")
    try:
        memory.put(str(tables / "t"), "/many", recursive=True)
        for array in ("p*", "label"):
            assert xent.index_shards(f"memory://many/*.parquet#{array}") == xent.index_shards(f"memory://many#{array}")
            assert xent.index_shards(f"memory://many#{array}") == "memory://many/_xent_index.parquet"
        assert xent.evaluate("memory://many#p*", "memory://many/part-*#label", chunk_bytes=2000) == EXPECTED
        memory.rm("/many/part-9.parquet")
        with pytest.raises(ValueError, match=r"that its index names, got memory://many/part-9\.parquet"):
            plan("memory://many#p*", LABELS)
    finally:
        memory.rm("/many", recursive=True)
