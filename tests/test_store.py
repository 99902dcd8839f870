"""Finished chunks, kept in a directory: they are taken for this very run, and for no other."""

import json
import os
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from xent.evaluation.engine import tasks
from xent.evaluation.engine.checkpoint import digest, from_plain, to_plain
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.evaluations import compare, evaluate
from xent.evaluation.options import Keys, Options, Outputs
from xent.evaluation.outputs import WriteError
from xent.evaluation.sources.messages import ReadError
from xent.evaluation.sources.npy import MappedSource
from xent.evaluation.sources.opening import open_source
from xent.evaluation.sources.shards import joined
from xent.evaluation.statistics.exact_sums import Moments
from xent.evaluation.statistics.state import State

ROWS, CLASSES = 300, 7
CALL = {"chunk_bytes": 28 * 40, "state": "kept"}
OPTIONS, OUTPUTS = Options(chunk_bytes=28 * 40), Outputs(state="kept")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(8)
    for name in ("a", "b"):
        np.save(f"{name}.npy", rng.normal(size=(ROWS, CLASSES)).astype(np.float32))
    np.save("y.npy", rng.integers(0, CLASSES, ROWS))
    np.save("slices.npy", rng.choice(["ä", "b<c", "10"], ROWS))
    np.save("clusters.npy", rng.integers(-5, 5, ROWS))
    stored = zarr.create_array("a.zarr", shape=(ROWS, CLASSES), dtype="f4", chunks=(50, CLASSES))
    stored[:] = np.load("a.npy")
    return tmp_path


ASKED = {"classwise": True, "confusion": True, "auc": True}


def everything(**call):
    keys = {"slices": "slices.npy", "clusters": "clusters.npy"}
    return evaluate("a.npy", "y.npy", **keys, by_class=True, top_k=(1, 3), ignore_index=2, **ASKED, **call)


def test_what_is_kept_leaves_the_same_bits(folder, monkeypatch):
    expected = everything()
    first = everything(**CALL)
    monkeypatch.setattr(tasks, "measure_rows", None)  # nothing is computed again
    again = everything(**CALL)

    assert first == again == expected
    assert len(list((folder / "kept").glob("rows-*.json"))) == 8


def test_a_comparison_is_kept_too(folder, monkeypatch):
    first = compare("a.npy", "b.npy", "y.npy", slices="slices.npy", **CALL)
    monkeypatch.setattr(tasks, "measure_rows", None)

    assert compare("a.npy", "b.npy", "y.npy", slices="slices.npy", **CALL) == first


def test_a_state_is_the_same_after_it_was_kept():
    state = State(rows=3, loss=Moments(1, -(2**2200), 2**4399), slices={"1": (), 1: ()}, labels={0: 1})
    plain = json.loads(json.dumps(to_plain(replace(state, slices={}))))

    assert from_plain(plain) == replace(state, slices={})
    assert from_plain(to_plain({"1": 2, 1: 3})) == {"1": 2, 1: 3}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda: np.save("a.npy", np.load("b.npy")), "predictions"),
        (lambda: np.save("y.npy", np.load("y.npy")[::-1]), "labels"),
        (lambda: np.save("slices.npy", np.load("slices.npy")[::-1]), "slices"),
    ],
)
def test_inputs_that_have_changed_are_refused_by_their_name(folder, change, named):
    evaluate("a.npy", "y.npy", slices="slices.npy", **CALL)
    change()

    with pytest.raises(
        ValueError, match=rf"`state` must be .* of this very run, got .*kept, whose {named} have changed"
    ):
        plan("a.npy", "y.npy", OPTIONS, keys=Keys("slices.npy"), outputs=OUTPUTS)


def test_a_chunk_of_a_zarr_array_that_has_changed_is_refused(folder):
    evaluate("a.zarr", "y.npy", **CALL)
    zarr.open_array("a.zarr")[120] = 0

    with pytest.raises(ValueError, match="whose predictions have changed since"):
        plan("a.zarr", "y.npy", OPTIONS, outputs=OUTPUTS)


@pytest.mark.parametrize("change", [{"chunk_bytes": 28 * 41}, {"ignore_index": (3,)}, {"kind": "log_probabilities"}])
def test_another_option_is_refused(folder, change):
    evaluate("a.npy", "y.npy", **CALL)

    with pytest.raises(ValueError, match="whose options have changed since"):
        plan("a.npy", "y.npy", replace(OPTIONS, **change), outputs=OUTPUTS)


def test_arrays_in_hand_are_refused_for_nothing_tells_whether_they_change(folder):
    with pytest.raises(ValueError, match=r"of files alone, .* got float32\[300, 7\] as `predictions`\. Save it"):
        plan(np.load("a.npy"), "y.npy", OPTIONS, outputs=OUTPUTS)


def test_a_run_that_writes_losses_does_not_take_what_one_kept_that_wrote_none(folder):
    evaluate("a.npy", "y.npy", **CALL)

    with pytest.raises(ValueError, match="whose per_example have changed since"):
        evaluate("a.npy", "y.npy", **CALL, per_example="loss.npy")
    assert not (folder / "loss.npy").exists()


def test_what_was_kept_is_gone_on_with_where_faults_are_now_skipped(folder, monkeypatch):
    first = evaluate("a.npy", "y.npy", **CALL)
    monkeypatch.setattr(tasks, "measure_rows", None)

    assert evaluate("a.npy", "y.npy", **CALL, on_error="skip", on_bad_label="skip") == first
    assert evaluate("a.npy", "y.npy", **CALL, predicted_bytes=np.int64(5)).bits_per_byte > 0


def test_rows_that_could_not_be_read_are_read_again(folder, monkeypatch):
    whole = evaluate("a.npy", "y.npy")
    with monkeypatch.context() as patch:

        def broken(self, start, stop, read=MappedSource.read):
            if self.path.endswith("a.npy") and start == 40:
                raise ReadError("evaluate: for once.")
            return read(self, start, stop)

        patch.setattr(MappedSource, "read", broken)
        assert evaluate("a.npy", "y.npy", **CALL, on_error="skip").unread_rows == 40

    assert evaluate("a.npy", "y.npy", **CALL) == whole


def test_a_server_that_does_not_tell_of_changes_is_refused(folder):
    source = open_source("a.npy", "predictions")

    assert source.fingerprint() is not None
    assert replace(source, stamp=(source.stamp[0], "")).fingerprint() is None


def test_a_directory_of_other_files_is_refused_and_left_alone(folder):
    (folder / "kept").mkdir()
    (folder / "kept" / "thesis.tex").write_text("…")

    with pytest.raises(ValueError, match=r"which holds other files\. Choose another one"):
        plan("a.npy", "y.npy", OPTIONS, outputs=OUTPUTS)
    assert [path.name for path in (folder / "kept").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("text", ["", "{", '{"State": [1]', '{"os": ["system"]}', '{"Store": ["x"]}', "[1, 2]"])
def test_a_part_that_is_broken_is_an_error_that_names_it_and_runs_nothing(folder, text):
    evaluate("a.npy", "y.npy", **CALL)
    broken = folder / "kept" / "rows-40-80.json"
    broken.write_text(text)

    with pytest.raises(ReadError, match=r"rows-40-80\.json is corrupt .* Delete it, and its rows are read again"):
        evaluate("a.npy", "y.npy", **CALL)
    broken.unlink()
    assert evaluate("a.npy", "y.npy", **CALL) == evaluate("a.npy", "y.npy")


def forged(path, change):
    """Changes what a part holds, its checksum with it: whoever wrote it knows how they are made."""
    part = json.loads(path.read_text("utf-8"))
    del part["sha256"]
    change(part)
    path.write_text(json.dumps(part | {"sha256": digest(json.dumps(part).encode())}), "utf-8")


def set_state(**values):
    def change(part):
        ((_, listed),) = part["state"].items()
        for name, value in values.items():
            listed[[field.name for field in fields(State)].index(name)] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda part: part.update(state={"State": []}),
        lambda part: part.update(state={"Pair": []}),
        lambda part: part.update(rows=[0, 40]),
        set_state(rows=39),
        set_state(rows=40.0),
        set_state(rows=True),
        set_state(labels=[]),
        set_state(labels={"": [["a", 1]]}),
        set_state(loss={"Moments": [40, "1", 1]}),
        set_state(worst={"Worst": [[{"Example": [0, 0, 0, 1]}]]}),
        set_state(classwise={"array": [[2], [1, 2]]}),
        set_state(confusion={"": [[[0, 1], 1.0]]}),
        set_state(score_counts={"": [[0, {"ScoreCounts": [0, 1, 0, 1, 1, 1]}]]}),
    ],
)
def test_a_part_that_somebody_else_made_is_refused_for_its_rows_or_types(folder, change):
    evaluate("a.npy", "y.npy", **CALL)
    forged(folder / "kept" / "rows-40-80.json", change)

    with pytest.raises(ReadError, match=r"rows-40-80\.json is corrupt .*\. Delete it, and its rows are read again"):
        evaluate("a.npy", "y.npy", **CALL)


def test_what_is_forged_without_a_change_is_taken(folder, monkeypatch):
    first = evaluate("a.npy", "y.npy", **CALL)
    forged(folder / "kept" / "rows-40-80.json", lambda part: None)
    monkeypatch.setattr(tasks, "measure_rows", None)

    assert evaluate("a.npy", "y.npy", **CALL) == first


@pytest.mark.parametrize("change", [b"\xff\xfe{", b"[" * 100_000, None], ids=["no UTF-8", "nested", "one digit"])
def test_a_part_whose_bytes_are_others_is_refused(folder, change):
    evaluate("a.npy", "y.npy", **CALL)
    part = folder / "kept" / "rows-40-80.json"
    data = part.read_bytes()
    part.write_bytes(change or data.replace(b'"Moments": [40', b'"Moments": [41'))

    with pytest.raises(ReadError, match=r"rows-40-80\.json is corrupt .*\. Delete it, and its rows are read again"):
        evaluate("a.npy", "y.npy", **CALL)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "FIFO"])
def test_a_part_that_is_no_file_is_refused(folder, make):
    evaluate("a.npy", "y.npy", **CALL)
    (folder / "kept" / "rows-40-80.json").unlink()
    make(folder / "kept" / "rows-40-80.json")

    with pytest.raises(ReadError, match=r"rows-40-80\.json is corrupt \(it is no file\)"):
        evaluate("a.npy", "y.npy", **CALL)


@pytest.mark.parametrize("text", ["[]", "{", "\xff", '"a"', "[" * 10**5], ids=["list", "cut", "bytes", "text", "deep"])
def test_a_manifest_of_somebody_else_is_refused(folder, text):
    evaluate("a.npy", "y.npy", **CALL)
    (folder / "kept" / "manifest.json").write_bytes(text.encode("latin-1"))

    with pytest.raises(ValueError, match="`state` must be a directory of this very run"):
        evaluate("a.npy", "y.npy", **CALL)


def with_losses(**call):
    return evaluate("a.npy", "y.npy", **CALL, per_example="loss.npy", overwrite=True, **call)


def no_file(path):
    path.unlink()


def link(path):
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


@pytest.mark.parametrize(
    "change",
    [
        no_file,
        link,
        lambda path: path.write_bytes(path.read_bytes()[:-4]),
        lambda path: path.write_bytes(b""),
        lambda path: np.save(path, np.zeros(ROWS)),
        lambda path: np.save(path, np.zeros(ROWS - 1, np.float32)),
    ],
    ids=["gone", "link", "cut", "empty", "float64", "fewer rows"],
)
def test_losses_that_are_gone_or_others_are_refused_and_the_remedy_holds(folder, change):
    first = with_losses()
    expected = np.load("loss.npy")
    change(folder / "kept" / "losses.npy")

    with pytest.raises(ReadError, match=r"losses\.npy, .* is gone or corrupt .*Delete .*kept, and all rows are"):
        with_losses()
    shutil.rmtree("kept")
    assert with_losses() == first
    np.testing.assert_array_equal(np.load("loss.npy"), expected)


def test_losses_of_some_rows_that_are_others_are_refused_and_the_remedy_holds(folder):
    first = with_losses()
    expected = np.load("loss.npy")
    kept = np.load("kept/losses.npy", mmap_mode="r+")
    kept[50] = np.nan
    kept.flush()

    with pytest.raises(ReadError, match=r"rows-40-80\.json was kept with other losses .*\. Delete it"):
        with_losses()
    (folder / "kept" / "rows-40-80.json").unlink()
    assert with_losses() == first
    np.testing.assert_array_equal(np.load("loss.npy"), expected)


@pytest.mark.parametrize("kind", ["file", "pipe", "link to nothing"])
@pytest.mark.parametrize("place", ["kept", "kept/manifest.json"])
def test_a_state_that_is_no_directory_or_has_no_manifest_is_refused(folder, place, kind):
    (folder / place).parent.mkdir(exist_ok=True)
    make = {
        "file": Path.mkdir if place.endswith("json") else Path.touch,
        "pipe": os.mkfifo,
        "link to nothing": lambda path: path.symlink_to("nothing"),
    }
    make[kind](folder / place)

    got = r"(which is none|whose manifest\.json is no file)"
    with pytest.raises(ValueError, match=rf"`state` must be a directory.*kept, {got}"):
        plan("a.npy", "y.npy", OPTIONS, outputs=OUTPUTS)


def test_a_state_in_the_place_of_a_file_is_an_output_that_cannot_be_written(folder):
    (folder / "kept").touch()

    with pytest.raises(WriteError, match=r"kept/a could not be written"):
        plan("a.npy", "y.npy", OPTIONS, outputs=replace(OUTPUTS, state="kept/a"))


def test_a_directory_that_another_run_is_using_is_refused(folder):
    def second(rows):
        with pytest.raises(WriteError, match=r"`state` must be a directory that no other run is using, got .*kept"):
            evaluate("a.npy", "y.npy", **CALL)

    assert evaluate("a.npy", "y.npy", **CALL, progress=second) == evaluate("a.npy", "y.npy", **CALL)


def test_files_whose_server_tells_of_no_changes_have_no_fingerprint(folder):
    silent = [replace(source, stamp=(source.stamp[0], "")) for source in map(open_predictions, ("a.npy", "a.zarr"))]

    assert [source.fingerprint() for source in (*silent, joined("shards", silent))] == [None, None, None]


def open_predictions(path):
    return open_source(path, "predictions")
