"""Independent jobs: parts of a set, each by a job of its own, whose merge is the document of one run."""

import json
import re
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zarr
from click.testing import CliRunner

import xent
from xent.cli.commands import main
from xent.evaluation.engine.checkpoint import digest
from xent.evaluation.evaluations import compare, evaluate, merge_parts
from xent.evaluation.outputs import WriteError
from xent.evaluation.sources.messages import ReadError

ROWS, CLASSES = 507, 7
NAMES = ["ant", "bee", "<b>", "dog", "eel", "fox", "gnu"]
KEYS = {"slices": "slices.npy", "clusters": "clusters.npy"}
CUTS = {"two": [0, 123, ROWS], "unequal": [0, 1, 2, 255, 256, 500, ROWS], "with no rows": [0, 0, 77, 77, ROWS, ROWS]}
CHUNK = 28 * 40  # 40 rows, which no cut is a multiple of


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two sets in the working directory, with every flaw that a row may have; the last rows of a.zarr are not read."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(19)
    for name in ("a", "b"):
        logits = rng.normal(size=(ROWS, CLASSES)).astype(np.float32)
        np.save(f"{name}.npy", logits)
    logits[[5, 200]] = np.nan
    logits[[130, 131], 1:] = -np.inf
    np.save("flawed.npy", logits)
    labels = rng.integers(0, CLASSES, ROWS)
    labels[[0, 60, 250, 506]] = 99
    labels[[1, 61, 255]] = -100
    np.save("y.npy", labels)
    np.save("slices.npy", rng.choice(["ä", "b<c", "10"], ROWS))
    np.save("clusters.npy", np.arange(ROWS) // 9)
    np.save("weights.npy", rng.choice([0.0, 0.5, 3.0], ROWS))
    stored = zarr.create_array("a.zarr", shape=(ROWS, CLASSES), dtype="f4", chunks=(50, CLASSES))
    stored[:] = np.load("a.npy")
    (tmp_path / "a.zarr" / "c" / "3" / "0").write_bytes(b"no chunk")
    return tmp_path


def parts_of(cut, command=evaluate, inputs=("a.npy", "y.npy"), **call):
    """The files of the parts between some rows."""
    files = []
    for start, stop in pairwise(cut):
        files.append(f"part-{len(files)}.json")
        command(*inputs, **call, rows=(start, stop), state_out=files[-1], overwrite=True)
    return files


def document(report):
    """The document but for its times, and for the folder, which is that of this test."""
    return json.loads(report.to_json()) | {"timing": None}


EVALUATIONS = {
    "every table": {
        **KEYS,
        "by_class": True,
        "classwise": True,
        "confusion": True,
        "auc": True,
        "top_k": (1, 3),
        "predicted_bytes": 9,
    },
    "weights": {**KEYS, "weights": "weights.npy", "by_class": True, "auc": True, "confusion": True},
    "names": {"class_names": NAMES, "by_class": True},
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("asked", EVALUATIONS.values(), ids=EVALUATIONS)
def test_parts_merge_to_the_document_of_one_run(folder, asked, cut):
    call = {"ignore_index": -100, "on_bad_label": "skip", "chunk_bytes": CHUNK, **asked}
    whole = evaluate("a.npy", "y.npy", **call)
    files = parts_of(cut, **call)
    merged = merge_parts(files[::-1])  # in any order

    assert document(merged) == document(whole) and merged == whole
    assert whole.counted < ROWS and whole.bad_labels >= 3 and len(whole.positions) == 100
    assert merged.tables() == whole.tables() and len(merged.worst) == 10


def test_rows_without_a_finite_loss_are_named_as_in_one_run(folder):
    call = {"ignore_index": -100, "on_bad_label": "skip", "chunk_bytes": CHUNK, **KEYS}
    inputs = ("flawed.npy", "y.npy")
    whole = evaluate(*inputs, **call)

    assert document(merge_parts(parts_of(CUTS["unequal"], inputs=inputs, **call))) == document(whole)
    assert (whole.nan_rows, whole.first_nan) == (2, 5) and whole.infinite_rows


def test_rows_that_could_not_be_read_are_counted_once(folder):
    call = {"ignore_index": -100, "on_bad_label": "skip", "on_error": "skip", "chunk_bytes": CHUNK, **KEYS}
    inputs = ("a.zarr", "y.npy")
    whole = evaluate(*inputs, **call)

    assert document(merge_parts(parts_of(CUTS["unequal"], inputs=inputs, **call))) == document(whole)
    assert (whole.unread_rows, whole.first_unread) == (50, 150)


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_parts_of_a_comparison_merge_too(folder, cut):
    call = {"ignore_index": -100, "on_bad_label": "skip", "chunk_bytes": CHUNK, "weights": "weights.npy", **KEYS}
    inputs = ("a.npy", "b.npy", "y.npy")
    merged, whole = merge_parts(parts_of(cut, compare, inputs, **call)), compare(*inputs, **call)

    assert document(merged) == document(whole) and merged == whole
    assert merged.better + merged.worse + merged.ties < merged.rows


def test_a_part_prints_the_numbers_of_its_own_rows(folder):
    np.save("some.npy", np.load("a.npy")[256:400])
    np.save("labels.npy", np.load("y.npy")[256:400])
    part = evaluate("a.npy", "y.npy", rows=(256, 400), state_out="part.json", predicted_bytes=9)
    alone = evaluate("some.npy", "labels.npy")
    shown = replace(part, positions=(), worst=())  # these are by the rows of the whole set

    assert shown == replace(alone, positions=(), worst=())
    assert [each.row - 256 for each in part.worst] == [each.row for each in alone.worst]
    assert part.run.rows == 144 and part.run.bytes == 144 * 28
    assert "Of the rows 256 to 400: 144 of 507." in str(part)
    assert part.to_dict()["options"]["rows"] == [[256, 400]]


def test_a_range_needs_no_part_and_may_have_open_ends(folder):
    call = {"ignore_index": -100, "on_bad_label": "skip"}
    first, last = (evaluate("a.npy", "y.npy", rows=rows, **call) for rows in ((0, 200), (200, None)))
    whole = evaluate("a.npy", "y.npy", rows=(0, None), **call)

    assert first.rows + last.rows == whole.rows == ROWS and first.counted + last.counted == whole.counted
    assert whole == evaluate("a.npy", "y.npy", **call)


@pytest.mark.parametrize("chunk", [3, 7])
def test_a_range_of_a_dask_array_is_that_of_the_array(folder, chunk):
    dask_array = pytest.importorskip("dask.array")
    logits, labels = np.load("b.npy"), np.load("y.npy")
    array = dask_array.from_array(logits, chunks=(100, chunk))
    call = {"on_bad_label": "skip", "ignore_index": -100}
    some = evaluate(array, labels, rows=(130, 333), **call)

    assert some.metrics == evaluate(array[130:333], labels[130:333], **call).metrics and some.rows == 203
    assert evaluate(array, labels, rows=(130, 130), **call).rows == 0


def test_rows_that_are_missing_are_named_and_may_be_allowed(folder):
    call = {"ignore_index": -100, "on_bad_label": "skip", "predicted_bytes": 999}
    files = parts_of([0, 100, 200, 300, ROWS], **call)
    some = [files[0], files[2]]
    rule = r"`parts` must have all 507 rows of the set, got none with rows 100:200 and 300:507"
    with pytest.raises(ValueError, match=rule):
        merge_parts(some)

    found, numbers = merge_parts(some, partial=True), [evaluate("a.npy", "y.npy", rows=(0, 100), **call)]
    assert found.rows == 200 and found.counted > numbers[0].counted and found.bits_per_byte is None
    assert found.to_dict()["options"]["rows"] == [[0, 100], [200, 300]]
    assert "Of the rows 0 to 100, 200 to 300: 200 of 507." in str(found)
    assert [each.first_row for each in found.positions if 100 < each.first_row < 198 or each.first_row > 300] == []


@pytest.mark.parametrize(("extra", "rows"), [((90, 110), "90:100"), ((0, 100), "0:100"), ((20, 30), "20:30")])
def test_rows_in_two_parts_are_refused(folder, extra, rows):
    files = parts_of([0, 100, ROWS], on_bad_label="skip")
    evaluate("a.npy", "y.npy", on_bad_label="skip", rows=extra, state_out="again.json")

    with pytest.raises(ValueError, match=rf"`parts` must have each row once, got rows {rows} in "):
        merge_parts([*files, "again.json"])


def change_labels():
    np.save("y.npy", np.load("y.npy")[::-1])
    return {}


OTHERS = {
    "labels": (change_labels, r"whose inputs \(labels\) are"),
    "option": (lambda: {"bins": 3}, r"whose options \(bins\) are"),
    "names": (lambda: {"class_names": NAMES}, "whose class_names are"),
    "slices": (lambda: {"slices": "slices.npy"}, r"whose inputs \(slices\) are"),
}


@pytest.mark.parametrize(("change", "named"), OTHERS.values(), ids=OTHERS)
def test_parts_of_another_set_or_of_other_options_are_refused_by_their_name(folder, change, named):
    first = parts_of([0, 100], on_bad_label="skip")
    evaluate("a.npy", "y.npy", on_bad_label="skip", rows=(100, None), state_out="rest.json", **change())

    with pytest.raises(ValueError, match=f"`parts` must be of one set, .* got .*rest.json, {named}"):
        merge_parts([*first, "rest.json"])


def test_parts_of_another_version_and_of_another_command_are_refused(folder, monkeypatch):
    files = parts_of([0, 100], on_bad_label="skip")
    compare("a.npy", "b.npy", "y.npy", on_bad_label="skip", rows=(100, None), state_out="pair.json")
    monkeypatch.setattr(xent, "__version__", "999")
    evaluate("a.npy", "y.npy", on_bad_label="skip", rows=(100, None), state_out="later.json")

    with pytest.raises(ValueError, match="whose xent are not those of"):
        merge_parts([*files, "later.json"])
    with pytest.raises(ValueError, match="whose command and inputs "):
        merge_parts([*files, "pair.json"])


def rewritten(change):
    """A part that was changed and given its checksum anew."""

    def damage(text):
        part = json.loads(text)
        del part["sha256"]
        change(part)
        return json.dumps(part | {"sha256": digest(json.dumps(part).encode())})

    return damage


DAMAGES = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "another document": lambda text: '{"schema_version": 1}',
    "a list": lambda text: "[1, 2]",
    "one digit": lambda text: text.replace('"rows": [100', '"rows": [101'),
    "later format": rewritten(lambda part: part.update(version=2)),
    "a class": rewritten(lambda part: part.update(state={"Path": ["/"]})),
    "other rows": rewritten(lambda part: part.update(rows=[100, 300])),
    "no state": rewritten(lambda part: part.update(state={"Tally": [1, 2, 3]})),
    "deep": lambda text: "[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_no_whole_part_is_refused_by_its_name(folder, damage):
    files = parts_of([100, 200], on_bad_label="skip")
    text = Path(files[0]).read_text("utf-8")
    Path(files[0]).write_text(damage(text), "utf-8")

    assert damage(text) != text
    with pytest.raises(ReadError, match=r"part-0.json is no whole part of an evaluation \("):
        merge_parts(files, partial=True)


def test_no_parts_and_parts_that_are_not_there_are_refused(folder):
    with pytest.raises(ValueError, match="`parts` must be the files of one part or more, got none"):
        merge_parts([])
    with pytest.raises(FileNotFoundError, match=r"`parts` must be files that are there, got nowhere\.json"):
        merge_parts(["nowhere.json"])
    with pytest.raises(TypeError, match=r"`parts` must be paths, got 'part\.json'\. Pass a list"):
        merge_parts("part.json")
    with pytest.raises(ReadError, match=r"no whole part of an evaluation \(it is no file"):
        merge_parts([folder])


UNFIT = [
    ({"rows": (5, 508)}, ValueError, "`rows` must be a range within the 507 rows of the set, got 5:508"),
    ({"rows": (-1, 5)}, ValueError, "`rows` must be a range within"),
    ({"rows": (6, 5)}, ValueError, "`rows` must be a range within"),
    ({"rows": 5}, TypeError, "`rows` must be a pair of whole numbers, .* got 5"),
    ({"rows": (0.0, 5)}, TypeError, "`rows` must be a pair of whole numbers"),
    ({"rows": (True, 5)}, TypeError, "`rows` must be a pair of whole numbers"),
    ({"rows": (None, 5)}, TypeError, "`rows` must be a pair of whole numbers"),
    ({"rows": (0, 5), "per_example": "losses.npy"}, ValueError, "`per_example` must be left out where `rows`"),
    ({"state_out": "p.json", "fit_temperature": True}, ValueError, "`fit_temperature` must be left out where `state_o"),
    ({"state_out": "p.txt"}, ValueError, "`state_out` must be the path of a .json file"),
    ({"state_out": "y.npy"}, ValueError, "`state_out` must be the path of a .json file"),
    (
        {"state_out": "https://lab/p.json"},
        ValueError,
        "`state_out` must be a local path, or the URL of what can",
    ),
    ({"state_out": "none/p.json"}, FileNotFoundError, "`state_out` must lie in a folder that is there"),
]


@pytest.mark.parametrize(("call", "error", "message"), UNFIT)
def test_what_cannot_be_is_refused_before_any_work(folder, monkeypatch, call, error, message):
    monkeypatch.setattr("xent.evaluation.engine.tasks.measure_rows", None)

    with pytest.raises(error, match=message):
        evaluate("a.npy", "y.npy", **call)


def test_arrays_in_hand_have_no_identity_and_make_no_part(folder):
    with pytest.raises(ValueError, match=r"`state_out` must be of files alone, .* got .* as `predictions`"):
        evaluate(np.load("a.npy"), "y.npy", state_out="part.json")
    with pytest.raises(ValueError, match="`predictions` must be stored, or in hand, where `rows` is given"):
        evaluate(iter([]), rows=(0, 5))


def test_a_part_is_there_already_only_where_that_is_said(folder):
    parts_of([0, 100], on_bad_label="skip")

    with pytest.raises(FileExistsError, match="`state_out` must be a new file"):
        evaluate("a.npy", "y.npy", on_bad_label="skip", rows=(0, 100), state_out="part-0.json")


@pytest.mark.parametrize(
    ("command", "inputs"), [(evaluate, ("a.npy", "y.npy")), (compare, ("a.npy", "b.npy", "y.npy"))]
)
def test_a_part_that_cannot_be_written_loses_no_numbers(folder, monkeypatch, command, inputs):
    def full(*_, **__):
        raise WriteError("the disk is full")

    monkeypatch.setattr("xent.evaluation.engine.parts.write_text", full)
    with pytest.raises(WriteError, match="full") as caught:
        command(*inputs, on_bad_label="skip", rows=(10, 50), state_out="part.json")

    assert caught.value.result.rows == 40


def test_bad_labels_stop_the_job_that_meets_them_and_leave_no_part(folder):
    evaluate("a.npy", "y.npy", ignore_index=-100, rows=(1, 60), state_out="sound.json")
    with pytest.raises(xent.LabelError, match="1 that do not, the first 99 in row 60"):
        evaluate("a.npy", "y.npy", ignore_index=-100, rows=(60, 100), state_out="bad.json")

    assert Path("sound.json").exists() and not Path("bad.json").exists()


def test_the_kind_of_logits_is_judged_by_all_rows(folder):
    logits = np.load("b.npy")
    logits[:200] = 1 / CLASSES
    np.save("b.npy", logits)
    call = {"on_bad_label": "skip", "inputs": ("b.npy", "y.npy"), "strict_kind": True}
    with pytest.warns(UserWarning, match="`predictions` must be logits"):
        files = parts_of([0, 200, ROWS], **call)

    assert not merge_parts(files).looks_like_probabilities
    with pytest.raises(xent.KindError, match="`predictions` must be logits"):
        merge_parts(files[:1], partial=True)


def test_a_set_without_rows_has_parts_too(folder):
    np.save("none.npy", np.zeros((0, 3), np.float32))
    np.save("no_labels.npy", np.zeros(0, np.int64))
    inputs = ("none.npy", "no_labels.npy")

    assert document(merge_parts(parts_of([0, 0, 0], inputs=inputs))) == document(evaluate(*inputs))
    pair = ("none.npy", "none.npy", "no_labels.npy")
    assert document(merge_parts(parts_of([0, 0], compare, pair))) == document(compare(*pair))


def test_what_jobs_ran_on_is_told_of_each(folder):
    first = parts_of([0, 100], on_bad_label="skip", scheduler="sync")
    evaluate("a.npy", "y.npy", on_bad_label="skip", rows=(100, None), state_out="rest.json", scheduler="threads")
    run = merge_parts([*first, "rest.json"]).run
    seconds = [json.loads(Path(file).read_text())["own"]["wall_seconds"] for file in (*first, "rest.json")]

    assert run.scheduler == "sync, threads" and run.wall_seconds == sum(seconds) > 0
    assert run.environment == evaluate("b.npy", "y.npy", on_bad_label="skip").run.environment


def command(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_the_commands_of_an_array_of_jobs_make_the_document_of_one(folder):
    call = ("a.npy", "y.npy", "--on-bad-label", "skip", "--ignore-index", -100, "--slices", "slices.npy")
    whole = json.loads(command("evaluate", *call, "--json").stdout)
    jobs = 4
    for job in range(jobs):  # what the script of docs/scale.md has each task of the array do
        rows = f"{ROWS * job // jobs}:{ROWS * (job + 1) // jobs}"
        made = command("evaluate", *call, "--rows", rows, "--state-out", f"part-{job}.json")
        assert made.exit_code == 0 and "The sums of rows" in made.stderr and "accuracy" in made.stdout
    result = command("merge", *sorted(folder.glob("part-*.json")), "--json", "--html", "x.html", "--tables", "tables")
    merged = json.loads(result.stdout)

    assert merged | {"timing": None} == whole | {"timing": None}
    assert (folder / "x.html").stat().st_size > 10_000 and (folder / "tables").is_dir()
    assert "507 × 7" in command("merge", *sorted(folder.glob("part-*.json"))).stdout
    of_a_glob = json.loads(command("merge", "part-*.json", "--json").stdout)
    assert of_a_glob | {"timing": None} == whole | {"timing": None}
    assert "none-*.json" in command("merge", "none-*.json").stderr


def test_the_script_of_the_scale_page_has_the_jobs_of_a_slurm_array_make_the_document_of_one_run(folder):
    page = (Path(__file__).parents[1] / "docs" / "scale.md").read_text("utf-8")
    (script,) = re.findall(r"```sh\n(#!/bin/bash\n#SBATCH.*?)```", page, re.DOTALL)
    shims = 'xent() { echo "$SLURM_ARRAY_TASK_ID $*"; }\n'  # in place of a process for each call
    rows = []
    for job in range(8):
        environment = {"SLURM_ARRAY_TASK_ID": str(job), "SLURM_ARRAY_TASK_COUNT": "8", "ROWS": str(ROWS)}
        done = subprocess.run(
            ["bash", "-c", shims + script], env=environment, capture_output=True, text=True, check=True
        )
        rows.append(re.search(r"--rows (\d+):(\d+) --state-out (\S+)", done.stdout).groups())

    assert [int(start) for start, _, _ in rows[1:]] == [int(stop) for _, stop, _ in rows[:-1]]
    assert (int(rows[0][0]), int(rows[-1][1])) == (0, ROWS) and len({file for *_, file in rows}) == 8


@pytest.mark.parametrize(("limit", "code"), [(100, 0), (0.5, 1)])
def test_a_gate_on_merged_parts_is_the_exit_code(folder, limit, code):
    files = parts_of([0, ROWS], on_bad_label="skip")
    result = command("merge", *files, "--fail-if", f"loss>{limit}")

    assert result.exit_code == code and ("gate failed: loss>0.5: loss is" in result.stderr) == bool(code)


def test_an_earlier_run_is_a_gate_of_an_evaluation(folder):
    files = parts_of([0, ROWS], compare, ("a.npy", "b.npy", "y.npy"), on_bad_label="skip")
    (folder / "before.json").write_text(
        command("evaluate", "a.npy", "y.npy", "--on-bad-label", "skip", "--json").stdout
    )
    result = command("merge", *files, "--fail-if-worse", "before.json")

    assert result.exit_code == 2 and "of a comparison" in result.stderr


REFUSED = [
    (("merge",), 2, "Missing argument"),
    (("merge", "nowhere.json"), 2, "`parts` must be files that are there"),
    (("merge", "y.npy"), 3, "is no whole part"),
    (("merge", "part-0.json"), 2, "got none with rows 0:100 and 200:507. Make parts of those, or pass --partial"),
    (("merge", "part-0.json", "--partial", "--html", "part-0.json"), 2, "`--html` must be"),
    (("evaluate", "a.npy", "y.npy", "--rows", "5"), 2, "must be a range of rows such as 0:1000, got 5"),
    (("evaluate", "a.npy", "y.npy", "--rows", "a:b"), 2, "must be a range of rows such as 0:1000, got a:b"),
    (("evaluate", "a.npy", "y.npy", "--rows", "0:999"), 2, "`--rows` must be a range within the 507 rows"),
    (("evaluate", "a.npy", "y.npy", "--state-out", "zip://x::p.zip"), 2, "`--state-out` must be a local path, or"),
    (("compare", "a.npy", "b.npy", "y.npy", "--state-out", "part-0.json"), 2, "`--state-out` must be a new file"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSED)
def test_the_commands_say_what_they_refuse(folder, arguments, code, message):
    parts_of([100, 200], on_bad_label="skip")
    result = command(*arguments)

    assert result.exit_code == code and message in result.stderr
