"""Calibration: errors with and without bias, the noise floor, Murphy's decomposition, equal mass, the smooth error.

Each is held against its definition in plain NumPy, exact fractions, simulations with a seed, scikit-learn or SciPy. The
smooth error was compared with relplot 1.0.3 too, whose number stands in its test.
"""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
import sklearn.calibration
from click.testing import CliRunner
from pages import evaluated, read

import xent
from xent.cli.commands import main
from xent.evaluation.report.page import evaluation_page
from xent.evaluation.statistics import blocks
from xent.evaluation.statistics.bin_gaps import BinGaps, deviation_quotient

ROWS, CLASSES, BINS = 507, 3, 12
RNG = np.random.default_rng(5)
LOGITS = RNG.normal(size=(ROWS, CLASSES)) * 2
LABELS = (0.6 * LOGITS + RNG.gumbel(size=(ROWS, CLASSES))).argmax(axis=1)
WEIGHTS = RNG.random(ROWS) * 3
P = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
TOP, RIGHT = P.max(axis=1), P.argmax(axis=1) == LABELS
INDEX = np.ceil(TOP * BINS).astype(int) - 1
OPTIONS = {"bins": BINS, "calibration": True, "classwise": True}
FOUND = xent.evaluate(P, LABELS, kind="probabilities", **OPTIONS)
WEIGHTED = xent.evaluate(P, LABELS, kind="probabilities", bins=BINS, calibration=True, weights=WEIGHTS)


def masks():
    return [b == INDEX for b in np.unique(INDEX)]


def mean(values):
    return sum(values) / len(values)


def test_every_part_of_the_brier_score_is_its_definition_in_fractions_and_they_sum_to_it():
    p, y = [Fraction(each) for each in TOP.tolist()], [Fraction(int(each)) for each in RIGHT]
    share, parts = mean(y), {"reliability": 0, "resolution": 0, "within_variance": 0, "within_covariance": 0}
    bias = 0
    for rows in masks():
        (of_p, of_y), n = ([[each[i] for i in np.flatnonzero(rows)] for each in (p, y)]), int(rows.sum())
        parts["reliability"] += n * (mean(of_p) - mean(of_y)) ** 2
        parts["resolution"] += n * (mean(of_y) - share) ** 2
        parts["within_variance"] += sum((each - mean(of_p)) ** 2 for each in of_p)
        parts["within_covariance"] += 2 * sum(
            (a - mean(of_p)) * (b - mean(of_y)) for a, b in zip(of_p, of_y, strict=True)
        )
        bias += n * mean(of_y) * (1 - mean(of_y)) / (n - 1) if n > 1 else 0
    parts = {name: part / ROWS for name, part in parts.items()}
    brier, uncertainty = mean([(a - b) ** 2 for a, b in zip(p, y, strict=True)]), share * (1 - share)
    found = FOUND.calibration.decomposition

    within = parts["within_variance"] - parts["within_covariance"]
    assert brier == parts["reliability"] - parts["resolution"] + uncertainty + within
    assert found.brier == float(brier) and found.uncertainty == float(uncertainty)
    for name, part in parts.items():
        assert getattr(found, name) == pytest.approx(float(part), rel=1e-15, abs=1e-18)
    of_all = uncertainty / (ROWS - 1)
    assert found.debiased_reliability == pytest.approx(float(parts["reliability"] - bias / ROWS), rel=1e-13)
    assert found.debiased_resolution == pytest.approx(float(parts["resolution"] - bias / ROWS + of_all), rel=1e-13)
    assert found.debiased_uncertainty == pytest.approx(float(uncertainty + of_all), rel=1e-15)


def test_the_parts_of_weighted_rows_are_those_of_their_weights():
    w, found, n = WEIGHTS / WEIGHTS.sum(), WEIGHTED.calibration.decomposition, {}
    share = w @ RIGHT
    parts = np.zeros(4)
    for rows in masks():
        whole = w[rows].sum()
        p, y = (w[rows] @ each[rows] / whole for each in (TOP, RIGHT))
        covariance = w[rows] @ ((TOP[rows] - p) * (RIGHT[rows] - y))
        parts += (whole * (p - y) ** 2, whole * (y - share) ** 2, w[rows] @ (TOP[rows] - p) ** 2, 2 * covariance)
        n[p] = whole * y * (1 - y) / (WEIGHTS[rows].sum() ** 2 / (WEIGHTS[rows] ** 2).sum() - 1)

    assert found.brier == pytest.approx(w @ (TOP - RIGHT) ** 2, rel=1e-13)
    expected = (parts[0], parts[1], share * (1 - share), parts[2], parts[3], parts[0] - sum(n.values()))
    np.testing.assert_allclose(found[1:7], expected, rtol=1e-11, atol=1e-16)


def simulated(rows, p, weights, draws=4000, seed=3):
    """The gaps of calibrated rows with these confidences, each drawn anew."""
    hits = np.random.default_rng(seed).random((draws, int(rows.sum()))) < p[rows]
    return np.abs(((hits - p[rows]) * weights[rows]).sum(axis=1))


@pytest.mark.parametrize(("found", "weights"), [(FOUND, np.ones(ROWS)), (WEIGHTED, WEIGHTS)], ids=["plain", "weighted"])
def test_the_noise_floor_is_the_error_that_calibrated_rows_show(found, weights):
    draws = sum(simulated(rows, TOP, weights, seed=seed) for seed, rows in enumerate(masks())) / weights.sum()
    calibration = found.calibration

    sampling = draws.std() / math.sqrt(len(draws))
    assert abs(calibration.noise_floor - draws.mean()) < 4 * sampling + 0.01 * draws.mean()
    assert calibration.noise_deviation == pytest.approx(draws.std(), rel=0.05)
    assert calibration.noise_floor < calibration.error  # these are too sure


@pytest.mark.parametrize("n", [1, 2, 7, 60])
@pytest.mark.parametrize("ends", [(0.5, 0.5), (0.93, 1.0), (0.0, 0.07), (0.5, 1.0)])
def test_the_mean_deviation_of_hits_is_within_two_percent_of_the_exact_one(n, ends):
    p = ends[0] + (ends[1] - ends[0]) * np.random.default_rng(n).random(n)
    chances = np.ones(1)
    for each in p:  # of each number of hits
        chances = np.convolve(chances, (1 - each, each))
    exact = np.abs(np.arange(n + 1) - p.sum()) @ chances
    close = deviation_quotient(np.asarray([float(n)]), np.asarray([p.mean()]))[0] * math.sqrt((p * (1 - p)).sum())

    assert close == pytest.approx(exact, rel=1e-12 if ends[0] == ends[1] else 0.02)


@pytest.mark.parametrize(("n", "p"), [(16, 0.3), (1234, 0.5), (10**6, 1e-4), (10**6, 1 - 1e-6), (10**8, 0.77)])
def test_the_mean_deviation_of_many_rows_is_that_of_a_binomial_distribution(n, p):
    hits = math.floor(n * p) + 1
    exact = 2 * hits * (1 - p) * scipy.stats.binom.pmf(hits, n, p) / math.sqrt(n * p * (1 - p))

    assert deviation_quotient(np.asarray([float(n)]), np.asarray([p]))[0] == pytest.approx(exact, rel=1e-6)


def test_certain_predictions_have_no_noise():
    found = xent.evaluate(np.eye(3)[[0, 1, 2, 0]], np.asarray([0, 1, 2, 1]), kind="probabilities").calibration

    assert (found.error, found.noise_floor, found.noise_deviation) == (0.25, 0.0, 0.0)
    assert found.decomposition[:6] == (0.25, 0.0625, 0.0, 0.1875, 0.0, 0.0)


def test_the_bias_of_the_error_is_that_of_normal_accuracies():
    bias, draws = 0, np.random.default_rng(8)
    for rows in masks():
        gap, y = abs(TOP[rows].mean() - RIGHT[rows].mean()), RIGHT[rows].mean()
        drawn = TOP[rows].mean() - draws.normal(y, math.sqrt(y * (1 - y) / rows.sum()), 200_000)
        bias += rows.mean() * (np.abs(drawn).mean() - gap)
    found = FOUND.calibration

    assert found.error - found.debiased_error == pytest.approx(bias, abs=2e-4) and bias > 1e-3


def test_without_its_bias_the_error_of_calibrated_predictions_is_less():
    plain, debiased = [], []
    for seed in range(20):
        draws = np.random.default_rng(seed)
        labels = (LOGITS + draws.gumbel(size=LOGITS.shape)).argmax(axis=1)
        calibration = xent.evaluate(LOGITS, labels).calibration
        plain.append(calibration.error)
        debiased.append(calibration.debiased_error)

    assert np.mean(debiased) < 0.7 * np.mean(plain)
    assert np.mean(plain) == pytest.approx(calibration.noise_floor, rel=0.1)


def test_the_intervals_of_the_accuracies_are_wilsons():
    for each in FOUND.reliability:
        hits = round(each.accuracy * each.counted)
        expected = scipy.stats.binomtest(hits, each.counted).proportion_ci(0.95, method="wilson")
        assert (each.accuracy_low, each.accuracy_high) == pytest.approx(expected, abs=1e-13)
    rows = masks()[0]
    n, z = WEIGHTS[rows].sum() ** 2 / (WEIGHTS[rows] ** 2).sum(), scipy.stats.norm.ppf(0.975)
    first = WEIGHTED.reliability[0]
    middle, half = (first.accuracy_high + first.accuracy_low) / 2, (first.accuracy_high - first.accuracy_low) / 2
    assert middle == pytest.approx((first.accuracy + z * z / (2 * n)) / (1 + z * z / n), rel=1e-12)
    assert half == pytest.approx(
        z * math.sqrt(first.accuracy * (1 - first.accuracy) / n + z * z / (4 * n * n)) / (1 + z * z / n), rel=1e-12
    )


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_the_bins_are_scikit_learns(strategy):
    rows = slice(0, 504)  # so that each of the bins has 42 of them
    found = xent.evaluate(P[rows], LABELS[rows], kind="probabilities", bins=BINS, calibration=True)
    accuracy, confidence = sklearn.calibration.calibration_curve(RIGHT[rows], TOP[rows], n_bins=BINS, strategy=strategy)
    bins = found.reliability if strategy == "uniform" else found.calibration.equal_mass.bins

    np.testing.assert_allclose([each.accuracy for each in bins], accuracy, rtol=1e-14)
    np.testing.assert_allclose([each.confidence for each in bins], confidence, rtol=1e-14)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_bins_of_equal_mass_have_rows_of_one_weight_each(weights):
    found = (FOUND if weights is None else WEIGHTED).calibration.equal_mass
    order, w = np.argsort(TOP), np.ones(ROWS) if weights is None else weights
    before = np.cumsum(w[order]) - w[order]
    index = np.floor(before * BINS / w.sum() + 1e-12).astype(int)
    error = sum(abs((w[order] * (RIGHT - TOP)[order])[index == b].sum()) for b in range(BINS)) / w.sum()

    assert found.error == pytest.approx(error, rel=1e-12) and found.bound == 0 and len(found.bins) == BINS
    assert [each.low for each in found.bins] == [TOP[order][index == b][0] for b in range(BINS)]
    assert [each.high for each in found.bins] == [TOP[order][index == b][-1] for b in range(BINS)]
    np.testing.assert_allclose(
        [each.share for each in found.bins], [w[order][index == b].sum() / w.sum() for b in range(BINS)]
    )


def test_the_noise_floor_of_bins_of_equal_mass_is_that_of_calibrated_rows():
    order = np.argsort(TOP)
    index = np.empty(ROWS, int)
    index[order] = np.arange(ROWS) * BINS // ROWS
    draws = sum(simulated(index == b, TOP, np.ones(ROWS), seed=b) for b in range(BINS)) / ROWS
    found = FOUND.calibration.equal_mass

    assert found.noise_floor == pytest.approx(draws.mean(), rel=0.02)
    assert found.noise_deviation == pytest.approx(draws.std(), rel=0.05)


def test_rows_of_one_confidence_are_in_one_bin_of_equal_mass():
    p = np.tile([[0.5, 0.25, 0.25]], (9, 1))
    p[7:] = [0.75, 0.125, 0.125]
    bins = xent.evaluate(
        p, np.zeros(9, int), kind="probabilities", bins=3, calibration=True
    ).calibration.equal_mass.bins

    assert [(each.low, each.high, each.share) for each in bins] == [(0.5, 0.5, 7 / 9), (0.75, 0.75, 2 / 9)]


def test_what_is_binned_is_the_number_that_was_given():
    p = np.asarray([[0.6875, 0.3125]] * 16 + [[0.75, 0.25]] * 16, np.float32)
    labels = np.zeros(32, int)
    labels[16:25] = 1
    bins = xent.evaluate(p, labels, kind="probabilities", bins=2, calibration=True).calibration.equal_mass.bins

    assert [(each.low, each.confidence, each.accuracy) for each in bins] == [
        (0.6875, 0.6875, 1.0),
        (0.75, 0.75, 0.4375),
    ]


def smoothed(width, p, y, w, points=4000):
    """The integral of the size of the residuals under a Gaussian kernel that is reflected at 0 and 1."""
    t = (np.arange(points) + 0.5) / points
    density = sum(scipy.stats.norm.pdf(t[:, None], centre, width) for centre in (p, -p, 2 - p))
    return np.abs(density @ (w * (y - p))).mean() / w.sum()


@pytest.mark.parametrize(("found", "weights"), [(FOUND, np.ones(ROWS)), (WEIGHTED, WEIGHTS)], ids=["plain", "weighted"])
def test_the_smooth_error_is_the_width_at_which_it_is_the_residuals_smoothed(found, weights):
    error, bound = found.calibration.smooth

    assert abs(smoothed(error, TOP, RIGHT, weights) - error) < bound + 1e-7 and bound < 1e-5
    assert smoothed(1.1 * error, TOP, RIGHT, weights) < 1.1 * error  # it is the only one
    assert smoothed(0.9 * error, TOP, RIGHT, weights) > 0.9 * error


def test_the_smooth_error_is_relplots():
    draws = np.random.default_rng(5)
    logits = draws.normal(size=(3000, 3)) * 2
    labels = (0.9 * logits + draws.gumbel(size=(3000, 3))).argmax(axis=1)
    found = xent.evaluate(logits, labels, calibration=True).calibration.smooth

    # relplot.smECE(top, right, eps=1e-6) of its reflected kernel, whose width is a multiple of 2**-10
    assert found.error == pytest.approx(0.031124207311781275, abs=2**-10)


def test_the_smooth_error_is_that_of_residuals_of_both_signs():
    labels = (0.9 * LOGITS + np.random.default_rng(2).gumbel(size=LOGITS.shape)).argmax(axis=1)
    error, bound = xent.evaluate(P, labels, kind="probabilities", calibration=True).calibration.smooth
    right = P.argmax(axis=1) == labels

    assert abs(smoothed(error, TOP, right, np.ones(ROWS)) - error) < bound + 1e-7 and bound < 1e-5
    assert smoothed(0.99 * error, TOP, right, np.ones(ROWS)) > 1.001 * error  # where the width shows


def test_predictions_that_are_right_as_often_as_they_say_have_no_smooth_error():
    p = np.tile([[0.75, 0.25]], (4, 1))
    found = xent.evaluate(p, np.asarray([0, 0, 0, 1]), kind="probabilities", calibration=True).calibration

    assert found.error == 0 and found.smooth.error < 1e-9 and found.smooth.bound >= found.smooth.error


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_where_confidences_share_bins_the_errors_are_within_their_bounds(monkeypatch, weights):
    monkeypatch.setattr(blocks, "MOST_KEYS", 100)
    found = xent.evaluate(P, LABELS, kind="probabilities", bins=BINS, calibration=True, weights=weights)
    again = xent.evaluate(
        P, LABELS, kind="probabilities", bins=BINS, calibration=True, weights=weights, chunk_bytes=777
    )
    exact = (FOUND if weights is None else WEIGHTED).calibration

    assert found == again and again.run.chunks > 10
    assert 0 < abs(found.calibration.smooth.error - exact.smooth.error) < found.calibration.smooth.bound < 0.1
    # its bins are of whole keys: the error of exactly these rows
    w, equal = np.ones(ROWS) if weights is None else weights, found.calibration.equal_mass
    inside = [(each.low <= TOP) & (each.high >= TOP) for each in equal.bins]
    assert np.sum(inside) == ROWS
    error = sum(abs((w * (RIGHT - TOP))[rows].sum()) for rows in inside) / w.sum()
    assert 0 < abs(equal.error - error) < equal.bound < 0.01


def test_no_chunking_shows(tmp_path):
    cut = xent.evaluate(P, LABELS, kind="probabilities", **OPTIONS, chunk_bytes=777)
    np.save(tmp_path / "p.npy", P)
    np.save(tmp_path / "y.npy", LABELS)
    parts = []
    for i, rows in enumerate([(0, 100), (100, 101), (101, None)]):
        parts.append(tmp_path / f"{i}.json")
        inputs = (tmp_path / "p.npy", tmp_path / "y.npy")
        xent.evaluate(*inputs, kind="probabilities", **OPTIONS, rows=rows, state_out=parts[-1])

    assert cut == FOUND and cut.run.chunks > 10
    assert xent.evaluation.evaluations.merge_parts(parts[::-1]) == FOUND


def test_the_calibration_of_each_class_is_its_definition():
    found, hot = FOUND.calibration.classwise, np.eye(CLASSES)[LABELS]
    index = np.clip(np.ceil(P * BINS).astype(int) - 1, 0, None)
    expected = []
    for c in range(CLASSES):
        groups = [index[:, c] == b for b in np.unique(index[:, c])]
        n = np.asarray([rows.sum() for rows in groups])
        p, y = (np.asarray([each[rows, c].mean() for rows in groups]) for each in (P, hot))
        share = hot[:, c].mean()
        sizes = (n @ np.abs(p - y), n @ (p - y) ** 2, n @ (y - share) ** 2)
        gaps = BinGaps(n / ROWS, p, y, n, p * (1 - p) / n)
        error, reliability, resolution = (size / ROWS for size in sizes)
        rest = (float(gaps.debiased_error()), float(gaps.noise()[0]), reliability, resolution, share * (1 - share))
        expected.append((error, *rest))
        assert found.classes[c] == pytest.approx(expected[-1], abs=1e-11)

    assert found.error == FOUND.classwise_calibration_error == pytest.approx(np.mean(expected, axis=0)[0], abs=1e-11)
    np.testing.assert_allclose(found.uncertainty, np.sum(expected, axis=0)[5], atol=1e-11)
    assert FOUND.brier == pytest.approx(
        found.reliability - found.resolution + found.uncertainty + found.within_bins, rel=1e-14
    )
    within = ((P - hot) ** 2).sum(axis=1).mean() - sum(each[3] - each[4] + each[5] for each in expected)
    assert found.within_bins == pytest.approx(within, abs=1e-11)


def test_classes_have_their_names_in_a_calibration():
    found = xent.evaluate(P, LABELS, kind="probabilities", classwise=True, class_names=["a", "b", "c"])

    assert [*found.calibration.classwise.classes] == ["a", "b", "c"]


@pytest.mark.parametrize("of", ["a NaN row", "no rows"])
def test_where_a_confidence_is_not_known_there_is_no_number(of):
    spoilt = P.copy()
    spoilt[3, 1] = np.nan
    rows = slice(0, ROWS if of == "a NaN row" else 0)
    found = xent.evaluate(spoilt[rows], LABELS[rows], kind="probabilities", calibration=True).calibration

    numbers = (found.error, found.debiased_error, found.noise_floor, found.noise_deviation, *found.decomposition)
    assert all(map(math.isnan, (*numbers, *found.equal_mass[:5], *found.smooth)))


def test_the_command_tells_what_the_result_holds(tmp_path):
    np.save(tmp_path / "p.npy", P)
    np.save(tmp_path / "y.npy", LABELS)
    files = (str(tmp_path / "p.npy"), str(tmp_path / "y.npy"), "--kind", "probabilities", "-q")
    options = ("--bins", str(BINS), "--calibration", "--classwise")
    shown = CliRunner().invoke(main, ["evaluate", *files, *options]).stdout
    document = json.loads(CliRunner().invoke(main, ["evaluate", *files, *options, "--json"]).stdout)["calibration"]
    found = FOUND.calibration

    assert f"({found.debiased_error:.4f} without bias; calibrated predictions" in shown
    assert f"show {found.noise_floor:.4f} ± {found.noise_deviation:.4f})." in shown
    assert f"smoothed, without bins, {found.smooth.error:.4f}." in shown
    assert document["confidence"] == found.decomposition._asdict()
    assert (
        document["equal_mass"]["error"] == found.equal_mass.error and document["smooth"]["error"] == found.smooth.error
    )
    assert document["classwise"]["classes"]["1"] == found.classwise.classes[1]._asdict()
    assert document["bins"][0]["accuracy_low"] == FOUND.reliability[0].accuracy_low


def test_the_page_has_the_bins_and_the_calibration_of_each_class():
    html = read(evaluation_page(*evaluated(P, LABELS, kind="probabilities", **OPTIONS)))

    assert "Bins of as many rows each" in html.text and f"The calibration of all {CLASSES} classes" in html.text
    assert f"calibrated predictions show {FOUND.calibration.noise_floor:.4f}" in html.text


def test_a_chunk_without_a_row_that_counts_is_in_no_bin_of_a_slice():
    mask, slices = np.arange(ROWS) >= ROWS // 2, np.arange(ROWS) % 2
    found = xent.evaluate(LOGITS, LABELS, slices=slices, mask=mask, calibration=True, chunk_bytes=100)

    assert found.slices == xent.evaluate(LOGITS, LABELS, slices=slices, mask=mask, calibration=True).slices
