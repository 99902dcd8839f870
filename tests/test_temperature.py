"""The temperature of the least loss beside an optimiser's, the classwise calibration error beside its definition."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from xent.evaluation.evaluations import evaluate

ROWS, CLASSES = 2000, 5


@pytest.fixture(scope="module")
def logits():
    return 2 * np.random.default_rng(1).normal(size=(ROWS, CLASSES))


@pytest.fixture(scope="module")
def labels(logits):
    """Drawn from the distribution of the logits over 1.7."""
    p = scipy.special.softmax(logits / 1.7, axis=1)
    return (p.cumsum(axis=1) < np.random.default_rng(2).random((ROWS, 1))).sum(axis=1)


def loss_at(temperature, logits, labels):
    log_p = scipy.special.log_softmax(logits / temperature, axis=1)
    return -log_p[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_the_temperature_is_that_of_an_optimiser(logits, labels, scale):
    found = evaluate(scale * logits, labels, fit_temperature=True).temperature
    best = scipy.optimize.minimize_scalar(
        lambda log_t: loss_at(np.exp(log_t), scale * logits, labels),
        bounds=(-7, 7),
        method="bounded",
        options={"xatol": 1e-9},
    )

    assert found.is_bounded and found.passes <= 13
    assert np.log(found.value) == pytest.approx(best.x, abs=1e-4)
    assert found.mean_loss == pytest.approx(best.fun, rel=1e-7)
    again = evaluate(scale * logits / found.value, labels)
    assert found.calibration_error == pytest.approx(again.calibration_error, rel=1e-9)


def test_the_temperature_is_the_same_bits_for_any_chunks(logits, labels):
    narrow = logits.astype(np.float16)

    assert evaluate(narrow, labels, fit_temperature=True, chunk_bytes=999) == evaluate(
        narrow, labels, fit_temperature=True
    )


@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
def test_the_kinds_of_predictions_have_one_temperature(logits, labels, kind):
    log_p = scipy.special.log_softmax(logits, axis=1)
    predictions = np.exp(log_p) if kind == "probabilities" else log_p
    found = evaluate(predictions, labels, kind=kind, fit_temperature=True).temperature

    assert found.value == pytest.approx(evaluate(logits, labels, fit_temperature=True).temperature.value, rel=1e-4)


def test_a_set_that_is_always_right_has_no_best_temperature():
    with pytest.warns(UserWarning, match="must be logits"):
        found = evaluate(np.eye(3), np.arange(3), fit_temperature=True).temperature

    assert not found.is_bounded and found.value == pytest.approx(2.0**-10)


def test_a_set_that_is_always_wrong_has_no_best_temperature():
    with pytest.warns(UserWarning, match="must be logits"):
        found = evaluate(np.eye(3), (np.arange(3) + 1) % 3, fit_temperature=True).temperature

    assert not found.is_bounded and found.value == pytest.approx(2.0**10)


def test_a_set_that_is_nan_has_no_temperature():
    found = evaluate(np.full((3, 3), np.nan), np.arange(3), fit_temperature=True).temperature

    assert not found.is_bounded and np.isnan(found.mean_loss)


# ---------------------------------------------------------------------------------------------------------------------
# Classwise calibration


def definition(p, labels, bins):
    gaps = []
    for c in range(p.shape[1]):
        for b in range(bins):
            inside = (p[:, c] > b / bins) & (p[:, c] <= (b + 1) / bins) | ((p[:, c] == 0) & (b == 0))
            gaps.append(abs((labels[inside] == c).sum() - p[inside, c].sum()) / len(p))
    return sum(gaps) / p.shape[1]


@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
@pytest.mark.parametrize("bins", [1, 15])
def test_the_classwise_calibration_error_is_its_definition(logits, labels, kind, bins):
    p = scipy.special.softmax(logits, axis=1)
    predictions = {"logits": logits, "probabilities": p, "log_probabilities": np.log(p)}[kind]
    found = evaluate(predictions, labels, kind=kind, classwise=True, bins=bins)

    assert found.classwise_calibration_error == pytest.approx(definition(p, labels, bins), rel=1e-9)
    assert evaluate(predictions, labels, kind=kind).classwise_calibration_error is None


def test_the_classwise_calibration_error_is_the_same_bits_for_any_chunks(logits, labels):
    assert evaluate(logits, labels, classwise=True, chunk_bytes=777) == evaluate(logits, labels, classwise=True)


def test_rows_that_do_not_count_are_in_no_bin(logits, labels):
    marked = labels.copy()
    marked[::7] = -1
    found = evaluate(logits, marked, classwise=True, ignore_index=-1)

    assert found.classwise_calibration_error == pytest.approx(
        definition(scipy.special.softmax(logits[marked >= 0], axis=1), marked[marked >= 0], 15), rel=1e-9
    )


def test_what_is_no_probability_has_no_classwise_calibration_error(labels):
    found = evaluate(np.full((ROWS, CLASSES), 1e6), labels, kind="probabilities", classwise=True, on_error="skip")

    assert np.isnan(found.classwise_calibration_error) and found.unnormalised_rows == ROWS


def test_a_row_that_is_nan_has_no_classwise_calibration_error(logits, labels):
    spoilt = logits.copy()
    spoilt[5] = np.nan

    assert np.isnan(evaluate(spoilt, labels, classwise=True).classwise_calibration_error)
