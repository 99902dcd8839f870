"""Labels that are distributions: the dense loss, and what becomes of every other statistic."""

import dask.array as da
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from click.testing import CliRunner

import xent
from xent.cli.commands import main

ROWS, CLASSES = 123, 7
RNG = np.random.default_rng(7)
LOGITS = 2 * RNG.standard_normal((ROWS, CLASSES))
TARGETS = RNG.dirichlet(np.full(CLASSES, 0.3), ROWS)
TARGETS[::5] = np.eye(CLASSES)[RNG.integers(0, CLASSES, len(TARGETS[::5]))]
P = xent.softmax(LOGITS)
LOSSES = -(TARGETS * np.log(P)).sum(axis=1)
GIVEN = {"logits": LOGITS, "probabilities": P, "log_probabilities": np.log(P)}
FOUND = xent.evaluate(LOGITS, TARGETS, top_k=2, by_class=True, bins=10)


@pytest.mark.parametrize("kind", GIVEN)
def test_the_loss_is_that_of_the_distribution_and_no_less_than_its_entropy(kind):
    found = xent.evaluate(GIVEN[kind], TARGETS, kind=kind)
    entropy = scipy.stats.entropy(TARGETS, axis=1)
    divergence = scipy.stats.entropy(TARGETS, P, axis=1)

    assert found.mean_loss == pytest.approx(LOSSES.mean(), rel=1e-13)
    assert found.standard_error == pytest.approx(scipy.stats.sem(LOSSES), rel=1e-12)
    assert found.metrics["target entropy"].value == pytest.approx(entropy.mean(), rel=1e-12)
    assert found.mean_loss - found.metrics["target entropy"].value == pytest.approx(divergence.mean(), rel=1e-12)


def test_the_brier_score_is_the_squared_distance():
    assert FOUND.brier == pytest.approx(((P - TARGETS) ** 2).sum(axis=1).mean(), rel=1e-12)


def test_what_needs_one_label_takes_the_class_of_the_largest():
    hard = xent.evaluate(LOGITS, TARGETS.argmax(axis=1), top_k=2, by_class=True, bins=10)

    assert FOUND.accuracy == sklearn.metrics.accuracy_score(TARGETS.argmax(axis=1), P.argmax(axis=1))
    assert FOUND.top_k_accuracy == hard.top_k_accuracy and FOUND.calibration_error == hard.calibration_error
    assert {k: group.counted for k, group in FOUND.classes.items()} == {k: g.counted for k, g in hard.classes.items()}
    rows = TARGETS.argmax(axis=1) == 3
    assert FOUND.classes[3].mean_loss == pytest.approx(LOSSES[rows].mean(), rel=1e-12)
    assert np.isnan(FOUND.prior_loss) and np.isnan(FOUND.skill)
    assert (FOUND.confidence, FOUND.entropy) == (hard.confidence, hard.entropy)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int8, bool])
def test_one_hot_labels_have_the_numbers_of_the_labels(dtype):
    labels = RNG.integers(0, CLASSES, ROWS)
    found, expected = xent.evaluate(LOGITS, np.eye(CLASSES, dtype=dtype)[labels]), xent.evaluate(LOGITS, labels)

    for name, metric in expected.metrics.items():
        assert found.metrics[name].value == pytest.approx(metric.value, rel=1e-13), name
    assert found.mean_loss == pytest.approx(sklearn.metrics.log_loss(labels, P, labels=range(CLASSES)), rel=1e-13)
    assert found.metrics["target entropy"].value == 0


def test_any_chunks_formats_and_blocks_leave_the_same_bits(tmp_path):
    np.save(tmp_path / "t.npy", TARGETS)
    some = {"top_k": 2, "by_class": True, "bins": 10}
    for x, t, options in (
        (LOGITS, TARGETS, {"chunk_bytes": 1000}),
        (LOGITS, tmp_path / "t.npy", {"chunk_bytes": 5000, "scheduler": "sync"}),
        (da.from_array(LOGITS, chunks=(50, -1)), da.from_array(TARGETS, chunks=(20, 3)), {}),
    ):
        assert xent.evaluate(x, t, **some, **options) == FOUND
    blocks = ((LOGITS[i : i + 50], TARGETS[i : i + 50]) for i in range(0, ROWS, 50))
    assert xent.evaluate(blocks, **some).metrics == FOUND.metrics


def test_distributions_go_along_the_axis_of_the_predictions():
    x, t = (array[:120].reshape(4, 5, 6, CLASSES) for array in (LOGITS, TARGETS))
    expected = xent.evaluate(LOGITS[:120], TARGETS[:120])

    assert xent.evaluate(x, t) == expected
    assert xent.evaluate(np.moveaxis(x, -1, 1), np.moveaxis(t, -1, 1), axis=1, chunk_bytes=2000) == expected


def test_weights_names_comparisons_and_temperatures_go_with_distributions():
    weights = RNG.exponential(size=ROWS)
    found = xent.evaluate(LOGITS, TARGETS, weights=weights, class_names=[*"abcdefg"], by_class=True)
    half = -(TARGETS * np.log(xent.softmax(LOGITS / 2))).sum(axis=1)

    assert found.mean_loss == pytest.approx(np.average(LOSSES, weights=weights), rel=1e-12)
    assert {*found.classes} <= {*"abcdefg"}
    compared = xent.compare(LOGITS, LOGITS / 2, TARGETS, chunk_bytes=1000)
    assert compared.mean_difference == pytest.approx((LOSSES - half).mean(), rel=1e-11)
    assert compared.a == xent.evaluate(LOGITS, TARGETS)
    softer = xent.softmax(LOGITS / 2)
    best = xent.evaluate(LOGITS, softer, fit_temperature=True).temperature
    assert best.value == pytest.approx(2, rel=1e-4)
    assert best.mean_loss == pytest.approx(scipy.stats.entropy(softer, axis=1).mean(), rel=1e-7)


def test_binary_labels_may_be_the_probability_of_class_1():
    z, t = LOGITS[:, 0], TARGETS[:, 0]
    found = xent.evaluate(z, t, binary=True)

    assert found.mean_loss == pytest.approx((np.logaddexp(0, z) - t * z).mean(), rel=1e-12)
    assert found.accuracy == ((z > 0) == (t > 0.5)).mean()


def test_a_masked_class_without_target_costs_nothing():
    x, t = LOGITS.copy(), np.eye(CLASSES)[np.full(ROWS, 2)]
    x[:, 5] = -np.inf
    found = xent.evaluate(x, t)

    assert found.mean_loss == pytest.approx(xent.evaluate(x, np.full(ROWS, 2)).mean_loss, rel=1e-13)


@pytest.mark.parametrize("wrong", ["another sum", "a negative number", "a NaN"])
def test_a_label_that_is_no_distribution_is_named_with_its_row(wrong):
    t = TARGETS.copy()
    t[[77, 99]] = {"another sum": 0.2, "a negative number": np.eye(CLASSES)[0] * 2 - np.eye(CLASSES)[1]}.get(
        wrong, np.nan
    )
    message = (
        r"must lie in \[0, 1\] and sum to 1 in each row, got 2 rows that do not, the first is row 77\. Pass on_bad"
    )
    with pytest.raises(xent.LabelError, match=message) as caught:
        xent.evaluate(LOGITS, t, chunk_bytes=1000)
    kept = ~np.isin(np.arange(ROWS), [77, 99])
    found = xent.evaluate(LOGITS, t, on_bad_label="skip")

    assert caught.value.position == (77,) and (found.bad_labels, found.first_bad_label) == (2, 77)
    assert found.metrics == xent.evaluate(LOGITS[kept], TARGETS[kept]).metrics
    assert xent.evaluate(LOGITS, t, weights=kept).metrics == found.metrics


def test_a_sum_that_is_1_but_for_rounding_is_a_distribution():
    narrow = TARGETS.astype(np.float16)

    assert xent.evaluate(LOGITS, narrow).mean_loss == pytest.approx(
        -(narrow.astype(np.float64) * np.log(P)).sum(axis=1).mean(), rel=1e-6
    )


REFUSED = {
    "an ignored label": (lambda: xent.evaluate(LOGITS, TARGETS, ignore_index=3), "`ignore_index` must be left out"),
    "classwise": (lambda: xent.evaluate(LOGITS, TARGETS, classwise=True), "Leave out classwise=True"),
    "cut classes": (
        lambda: xent.evaluate(da.from_array(LOGITS, chunks=(50, 3)), TARGETS),
        "must have every class of a row in one piece where labels are distributions",
    ),
    "text": (lambda: xent.evaluate(LOGITS, TARGETS.astype(str)), "must be real numbers where each is a distribution"),
    "another shape": (lambda: xent.evaluate(LOGITS, TARGETS[:, :3]), r"must have shape \(123,\)"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_with_distributions_is_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_the_command_line_says_that_labels_are_distributions(tmp_path):
    np.save(tmp_path / "x.npy", LOGITS)
    np.save(tmp_path / "t.npy", TARGETS)
    files = [f"{tmp_path}/x.npy", f"{tmp_path}/t.npy"]
    shown = CliRunner().invoke(main, ["evaluate", *files, "-q"]).stdout

    assert "target entropy" in shown and "take the class of the largest" in shown and "Always predicting" not in shown
    some = {"state": tmp_path / "state", "chunk_bytes": 2000}
    assert xent.evaluate(*files, **some) == xent.evaluate(*files, **some) == xent.evaluate(LOGITS, TARGETS)


@pytest.mark.parametrize("binary", [False, True])
def test_distributions_in_bfloat16_are_those_of_float32(binary):
    dtype = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed").bfloat16
    logits = np.random.default_rng(1).standard_normal((20,) if binary else (20, 2))
    targets = np.full(logits.shape, 0.5, np.float32)

    assert xent.evaluate(logits, targets.astype(dtype), binary=binary) == xent.evaluate(logits, targets, binary=binary)
