"""Predictions that are not of the kind that they are said to be: what is noticed, and what is said of it."""

import json
import subprocess
import sys
import warnings

import dask.array as da
import numpy as np
import pytest
from sklearn.metrics import log_loss

import xent

ROWS, CLASSES = 200, 10
LOGITS = np.random.default_rng(0).standard_normal((ROWS, CLASSES)).astype(np.float32)
PROBABILITIES = xent.softmax(LOGITS)
LABELS = np.arange(ROWS) % CLASSES
LOOKS = "must be logits, got nothing but rows in \\[0, 1\\] that sum to 1"


def cut(array, rows):
    return da.from_array(array, chunks=(rows, -1))


@pytest.mark.parametrize("rows", [ROWS, 7], ids=["whole", "chunks"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_that_are_read_as_logits_are_warned_of(rows, dtype):
    with pytest.warns(UserWarning, match=f"`predictions` {LOOKS}.*Pass kind='probabilities'"):
        found = xent.evaluate(cut(PROBABILITIES.astype(dtype), rows), LABELS)

    assert found.looks_like_probabilities and found.kind == "logits"


def test_the_remedy_gives_the_number_of_scikit_learn():
    found = xent.evaluate(PROBABILITIES, LABELS, kind="probabilities", strict_kind=True)

    assert found.mean_loss == pytest.approx(log_loss(LABELS, PROBABILITIES), rel=1e-6)
    assert not found.looks_like_probabilities and found.kind == "probabilities"


@pytest.mark.parametrize("change", ["one row", "a number above 1", "a negative number", "another sum"])
def test_one_row_that_no_distribution_has_makes_them_logits(change):
    x = PROBABILITIES.copy()
    x[77] = {"one row": LOGITS[77], "another sum": x[77] / 2}.get(change, x[77])
    x[77, :2] += {"a number above 1": (1.5, -0.5), "a negative number": (-0.5, 0.5)}.get(change, (0, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not xent.evaluate(x, LABELS, strict_kind=True).looks_like_probabilities


def test_rows_that_are_left_out_have_no_say():
    x, labels = PROBABILITIES.copy(), LABELS.copy()
    x[3], labels[3] = 5.0, -100
    with pytest.warns(UserWarning, match=LOOKS):
        assert xent.evaluate(x, labels, ignore_index=-100).looks_like_probabilities


def test_one_hot_rows_and_uniform_ones_are_at_the_ends_of_what_is_looked_at():
    for x in (np.eye(CLASSES), np.full((CLASSES, CLASSES), 1 / CLASSES)):
        with pytest.warns(UserWarning, match=LOOKS):
            xent.evaluate(x, np.arange(CLASSES))


def test_strict_kind_makes_an_error_of_it():
    with pytest.raises(xent.KindError, match=f"`predictions` {LOOKS}"):
        xent.evaluate(PROBABILITIES, LABELS, strict_kind=True)
    with pytest.raises(xent.KindError, match=f"`b` {LOOKS}.*kind_b='probabilities'"):
        xent.compare(LOGITS, PROBABILITIES, LABELS, strict_kind=True)


def test_a_stream_is_judged_as_a_whole():
    blocks = [(PROBABILITIES[:100], LABELS[:100]), (LOGITS[100:], LABELS[100:])]
    assert not xent.evaluate(iter(blocks), strict_kind=True).looks_like_probabilities
    with pytest.raises(xent.KindError, match=LOOKS):
        xent.evaluate(iter(blocks[:1]), strict_kind=True)


@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
def test_numbers_that_are_no_probabilities_are_named_with_the_first_row(kind):
    x = PROBABILITIES.astype(np.float64) if kind == "probabilities" else np.log(PROBABILITIES)
    x[77] = 1.5
    with pytest.raises(xent.KindError, match="got 1 rows with a larger one, the first is row 77\\. Pass kind='logits'"):
        xent.evaluate(cut(x, 50), LABELS, kind=kind)

    found = xent.evaluate(cut(x, 50), LABELS, kind=kind, on_error="skip")
    assert (found.unnormalised_rows, found.first_unnormalised, found.counted) == (1, 77, ROWS)


@pytest.mark.parametrize("over", [1 + 2**-7, 1 + 1e-6])
def test_rounding_is_no_probability_above_one(over):
    x = np.eye(CLASSES) * over
    xent.evaluate(x, np.arange(CLASSES), kind="probabilities")


def test_a_comparison_takes_a_kind_for_each_side():
    found = xent.compare(LOGITS, PROBABILITIES, LABELS, kind_b="probabilities")

    assert abs(found.mean_difference) < 1e-7 and (found.a.kind, found.b.kind) == ("logits", "probabilities")
    assert found.b == xent.evaluate(PROBABILITIES, LABELS, kind="probabilities")


def test_a_comparison_of_cut_classes_takes_a_kind_for_each_side():
    chunks = (50, 3)
    a, b = da.from_array(LOGITS, chunks=chunks), da.from_array(PROBABILITIES, chunks=chunks)

    assert abs(xent.compare(a, b, LABELS, kind_b="probabilities").mean_difference) < 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    for name, array in (("x", LOGITS), ("p", PROBABILITIES), ("y", LABELS)):
        np.save(folder / f"{name}.npy", array)
    return folder


def command(folder, *arguments):
    run = [sys.executable, "-m", "xent", *arguments, "-q"]
    return subprocess.run(run, cwd=folder, capture_output=True, text=True, timeout=100)


@pytest.mark.slow
def test_the_command_says_it_in_one_line_and_strictly_ends_with_3(folder):
    lenient = command(folder, "evaluate", "p.npy", "y.npy", "--json")
    strict = command(folder, "evaluate", "p.npy", "y.npy", "--strict-kind")

    document = json.loads(lenient.stdout)
    assert document["kind"] == "logits" and document["looks_like_probabilities"]
    assert (lenient.returncode, strict.returncode, strict.stdout) == (0, 3, "")
    assert lenient.stderr == strict.stderr and strict.stderr.count("\n") == 1
    assert "Pass --kind probabilities" in strict.stderr


@pytest.mark.slow
def test_the_table_and_the_page_say_what_the_predictions_were_taken_for(folder):
    one = command(folder, "evaluate", "x.npy", "y.npy", "--html", "page.html")
    two = command(folder, "compare", "x.npy", "p.npy", "y.npy", "--kind-b", "probabilities")

    assert "The predictions are taken for logits." in one.stdout
    assert "The predictions are taken for logits." in (folder / "page.html").read_text("utf-8")
    assert "A is taken for logits, B for probabilities." in two.stdout
