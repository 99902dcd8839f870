"""Predictions of class 1 of two alone, one number for each label."""

import json

import dask.array as da
import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

import xent
from xent.cli.commands import main
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.options import Options

ROWS = 123
LOGITS = 3 * np.random.default_rng(0).standard_normal(ROWS)
LABELS = np.random.default_rng(1).integers(0, 2, ROWS)
P = 1 / (1 + np.exp(-LOGITS))
GIVEN = {"logits": LOGITS, "probabilities": P, "log_probabilities": np.log(P)}
kinds = pytest.mark.parametrize("kind", GIVEN)


@kinds
def test_the_numbers_are_those_of_scikit_learn(kind):
    found = xent.evaluate(GIVEN[kind], LABELS, kind=kind, binary=True)

    assert found.mean_loss == pytest.approx(log_loss(LABELS, P), rel=1e-13)
    assert found.accuracy == accuracy_score(LABELS, P > 0.5)
    assert found.brier == pytest.approx(2 * brier_score_loss(LABELS, P), rel=1e-12)
    assert found.metrics["loss"].n == ROWS and found.kind == kind


@kinds
@pytest.mark.parametrize("shape", [(123,), (123, 1), (3, 41), (3, 1, 41)])
@pytest.mark.parametrize("how", ["array", "dask", "file"])
def test_any_shape_and_any_chunks_leave_the_same_bits(tmp_path, kind, shape, how):
    given, axis = GIVEN[kind].reshape(shape), 1 if len(shape) == 3 else -1
    labels = LABELS.reshape((3, 41) if len(shape) == 3 else shape if shape[-1] == 41 else -1)
    if how == "dask":
        given = da.from_array(given, chunks=50)
    if how == "file":
        np.save(tmp_path / "x.npy", given)
        given = tmp_path / "x.npy"
    some = {"kind": kind, "binary": True, "by_class": True, "classwise": True}

    assert xent.evaluate(given, labels, axis=axis, chunk_bytes=300, **some) == xent.evaluate(
        GIVEN[kind], LABELS, **some
    )


@pytest.mark.parametrize("kind", ["logits", "log_probabilities"])
def test_a_tiny_loss_keeps_its_digits(kind):
    sure = np.asarray([-50.0, 50.0] if kind == "logits" else [-50.0, -np.exp(-50.0)])
    found = xent.evaluate(sure, np.asarray([0, 1]), kind=kind, binary=True)

    assert found.mean_loss == pytest.approx(np.exp(-50.0), rel=1e-12, abs=0)
    if kind == "log_probabilities":  # of the other class a large one
        found = xent.evaluate(sure[1:], np.asarray([0]), kind=kind, binary=True)
        assert found.mean_loss == pytest.approx(50.0, rel=1e-14)


def test_labels_may_be_false_and_true_or_names():
    expected = xent.evaluate(LOGITS, LABELS, binary=True)
    names = np.asarray(["ham", "spam"])

    assert xent.evaluate(LOGITS, LABELS == 1, binary=True) == expected
    found = xent.evaluate(LOGITS, names[LABELS], binary=True, class_names=names, by_class=True)
    assert found.metrics == expected.metrics and [*found.classes] == [*names]


def test_infinite_numbers_are_certain_and_nan_stays_in_its_row():
    found = xent.evaluate(np.asarray([np.inf, -np.inf, np.inf]), np.asarray([1, 0, 0]), binary=True)
    assert (found.infinite_rows, found.first_infinite, found.accuracy) == (1, 2, 2 / 3)
    found = xent.evaluate(np.asarray([0.0, np.nan]), np.asarray([0, 1]), binary=True)
    assert (found.nan_rows, found.first_nan) == (1, 1)
    sure = xent.evaluate(np.asarray([1.0, 0.0]), np.asarray([1, 0]), binary=True, kind="probabilities")
    assert sure.mean_loss == 0 and sure.counted == 2


@pytest.mark.parametrize(("kind", "wrong"), [("probabilities", 1.5), ("log_probabilities", 0.5)])
def test_a_number_that_is_no_probability_is_named_with_its_row(kind, wrong):
    given = GIVEN[kind].copy()
    given[77] = wrong
    with pytest.raises(xent.KindError, match="the first is row 77"):
        xent.evaluate(given, LABELS, kind=kind, binary=True)


def test_probabilities_that_are_read_as_logits_are_warned_of():
    with pytest.warns(UserWarning, match="must be logits.*Pass kind='probabilities'"):
        assert xent.evaluate(P, LABELS, binary=True).looks_like_probabilities
    assert not xent.evaluate(np.append(P[1:], 1.5), LABELS, binary=True, strict_kind=True).looks_like_probabilities


def test_a_comparison_may_be_of_two_kinds():
    found = xent.compare(LOGITS / 2, P, LABELS, binary=True, kind_b="probabilities")

    assert found.b == xent.evaluate(P, LABELS, kind="probabilities", binary=True)
    assert found.a == xent.evaluate(LOGITS / 2, LABELS, binary=True)


def test_the_best_temperature_is_found():
    found = xent.evaluate(3 * LOGITS, LABELS, binary=True, fit_temperature=True)
    expected = xent.evaluate(np.stack([0 * LOGITS, 3 * LOGITS], 1), LABELS, fit_temperature=True)

    assert found.temperature == expected.temperature


def test_a_file_that_cannot_be_read_loses_its_own_rows_alone(tmp_path):
    for number, start in enumerate(range(0, ROWS, 50)):
        np.save(tmp_path / f"{number}.npy", LOGITS[start : start + 50])
    planned = plan(tmp_path, LABELS, Options(on_error="skip", binary=True))
    (tmp_path / "1.npy").write_bytes(b"")

    assert planned.run().unread_rows == 50


REFUSED = {
    "one number without the option": (
        lambda: xent.evaluate(LOGITS, LABELS),
        r"got float64\[123\]. Pass binary=True if",
    ),
    "one column without the option": (
        lambda: xent.evaluate(LOGITS[:, None], LABELS),
        r"must lie in \[0, 1\).*Pass binary=True if the predictions are those of class 1",
    ),
    "two columns": (
        lambda: xent.evaluate(np.zeros((3, 2)), LABELS[:3], binary=True),
        r"must have shape \(3, 2\), got int64\[3\].*Leave out binary=True: there are 2 classes",
    ),
    "too few labels": (lambda: xent.evaluate(LOGITS, LABELS[:3], binary=True), r"shape \(123,\), got int64\[3\]"),
    "labels of three": (lambda: xent.evaluate(LOGITS, LABELS + 1, binary=True), r"must lie in \[0, 2\)"),
    "integers": (lambda: xent.evaluate(LABELS, LABELS, binary=True), "`predictions` must be float16"),
    "integers as B": (lambda: xent.compare(LOGITS, LABELS, LABELS, binary=True), "`b` must be float16"),
    "no flag": (lambda: xent.evaluate(LOGITS, LABELS, binary="yes"), "`binary` must be"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_binary_set_is_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_the_remedy_on_the_command_line_is_one_to_follow(tmp_path):
    np.save(tmp_path / "p.npy", P)
    np.save(tmp_path / "y.npy", LABELS)
    arguments = ["evaluate", f"{tmp_path}/p.npy", f"{tmp_path}/y.npy", "--kind", "probabilities", "-q", "--json"]
    refused, followed = (CliRunner().invoke(main, [*arguments, *more]) for more in ([], ["--binary"]))

    assert refused.exit_code == 2 and "Pass --binary if they are the logits, or by `--kind` the" in refused.stderr
    assert json.loads(followed.stdout)["metrics"]["loss"]["value"] == pytest.approx(log_loss(LABELS, P), rel=1e-13)
