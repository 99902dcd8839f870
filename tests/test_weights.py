"""Rows of different weights: every mean, share and error against scikit-learn, statsmodels or its definition."""

import json
from fractions import Fraction

import dask.array as da
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats
import sklearn.metrics
import statsmodels.api
from click.testing import CliRunner

import xent
from xent.cli.commands import main
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.options import Keys, Options
from xent.evaluation.statistics.exact_sums import UNIT_BITS, Moments, grouped_moments, moments_of
from xent.evaluation.statistics.grid_sums import GridSums, grid_sums

ROWS, CLASSES = 507, 7
RNG = np.random.default_rng(5)
LOGITS = 2 * RNG.standard_normal((ROWS, CLASSES))
LABELS = np.where(RNG.random(ROWS) < 0.4, LOGITS.argmax(axis=1), RNG.integers(0, CLASSES, ROWS))
WEIGHTS = RNG.exponential(size=ROWS)
CLUSTERS, SLICES = RNG.integers(0, 40, ROWS), np.asarray(["b", "a", "ü"])[np.arange(ROWS) % 3]
P = xent.softmax(LOGITS)
LOSSES = -np.log(P[np.arange(ROWS), LABELS])
CORRECT = LOGITS.argmax(axis=1) == LABELS
SOME = {"by_class": True, "top_k": (1, 2, 3), "bins": 10, "slices": SLICES, "clusters": CLUSTERS}


def evaluated(weights=WEIGHTS, **options):
    return xent.evaluate(LOGITS, LABELS, weights=weights, **{**SOME, **options})


FOUND = evaluated()


def of_regression(values, rows=slice(None), **covariance):
    """The weighted mean and its error, as of a regression on a constant."""
    fitted = statsmodels.api.WLS(values[rows], np.ones(len(values[rows])), WEIGHTS[rows]).fit(**covariance)
    return pytest.approx(fitted.params[0], rel=1e-12), pytest.approx(fitted.bse[0], rel=1e-10)


def test_the_loss_is_that_of_scikit_learn():
    expected = sklearn.metrics.log_loss(LABELS, P, sample_weight=WEIGHTS)

    assert FOUND.mean_loss == pytest.approx(expected, rel=1e-13)
    assert FOUND.metrics["loss"].n == ROWS and FOUND.denominator.startswith("the weights of rows")


@pytest.mark.parametrize("k", [1, 2, 3])
def test_accuracies_are_those_of_scikit_learn(k):
    expected = sklearn.metrics.top_k_accuracy_score(LABELS, P, k=k, labels=range(CLASSES), sample_weight=WEIGHTS)

    assert FOUND.top_k_accuracy[k] == pytest.approx(expected, rel=1e-13)


def test_the_brier_score_is_that_of_scikit_learn():
    some = {"labels": range(CLASSES), "scale_by_half": False, "sample_weight": WEIGHTS}

    assert FOUND.brier == pytest.approx(sklearn.metrics.brier_score_loss(LABELS, P, **some), rel=1e-13)


def test_errors_of_means_are_those_of_a_weighted_regression():
    found = xent.evaluate(LOGITS, LABELS, weights=WEIGHTS)
    entropy, confidence = -(P * np.log(P)).sum(axis=1), P.max(axis=1)
    for name, values in {
        "loss": LOSSES,
        "accuracy": CORRECT.astype(float),
        "entropy": entropy,
        "confidence": confidence,
    }.items():
        assert (found.metrics[name].value, found.metrics[name].stderr) == of_regression(values, cov_type="HC1"), name


def test_the_error_of_clusters_is_that_of_a_weighted_regression():
    clustered = {"cov_type": "cluster", "cov_kwds": {"groups": CLUSTERS, "use_correction": True}}
    value, error = of_regression(LOSSES, **clustered)
    # statsmodels has (n − 1) / (n − 1) G / (G − 1) of one parameter, as here
    assert (FOUND.mean_loss, FOUND.standard_error) == (value, error)


def test_slices_and_classes_are_weighted():
    for key, group in [*FOUND.slices.items(), *FOUND.classes.items()]:
        rows = np.flatnonzero((SLICES if isinstance(key, str) else LABELS) == key)
        assert group.mean_loss == pytest.approx(np.average(LOSSES[rows], weights=WEIGHTS[rows]), rel=1e-12)
        share = group.accuracy if isinstance(key, str) else group.recall
        assert share == pytest.approx(np.average(CORRECT[rows], weights=WEIGHTS[rows]), rel=1e-12)
        assert group.counted == len(rows)
    rows = np.flatnonzero(LABELS == 3)
    assert FOUND.classes[3].standard_error == of_regression(LOSSES, rows, cov_type="HC1")[1]


def test_calibration_prior_and_positions_are_their_definitions():
    top = P.max(axis=1)
    index = np.ceil(top * 10).astype(int)
    shares = [WEIGHTS[index == i].sum() / WEIGHTS.sum() for i in range(11)]
    gaps = [
        abs(np.average(CORRECT[index == i] - top[index == i], weights=WEIGHTS[index == i])) if share else 0
        for i, share in enumerate(shares)
    ]
    prior = np.bincount(LABELS, WEIGHTS) / WEIGHTS.sum()

    assert FOUND.calibration_error == pytest.approx(np.dot(shares, gaps), rel=1e-11)
    first = index == np.ceil(FOUND.reliability[0].high * 10 - 0.5)
    assert FOUND.reliability[0].accuracy == pytest.approx(np.average(CORRECT[first], weights=WEIGHTS[first]), rel=1e-12)
    assert FOUND.prior_loss == pytest.approx(-(prior * np.log(prior)).sum(), rel=1e-13)
    part = slice(FOUND.positions[3].first_row, FOUND.positions[3].stop_row)
    assert FOUND.positions[3].mean_loss == pytest.approx(np.average(LOSSES[part], weights=WEIGHTS[part]), rel=1e-13)


def test_the_total_weight_and_the_effective_rows_are_told():
    assert FOUND.total_weight == pytest.approx(WEIGHTS.sum(), rel=1e-14)
    assert FOUND.effective_rows == pytest.approx(WEIGHTS.sum() ** 2 / (WEIGHTS**2).sum(), rel=1e-14)
    found = evaluated(np.full(ROWS, 0.3))
    assert found.effective_rows == ROWS
    assert evaluated(None).effective_rows is None and evaluated(None).total_weight is None
    assert evaluated(predicted_bytes=1000).bits_per_byte == pytest.approx(
        np.dot(WEIGHTS, LOSSES) / np.log(2) / 1000, rel=1e-13
    )


def test_the_interval_has_as_many_degrees_of_freedom_as_effective_rows_less_one():
    found = xent.evaluate(LOGITS, LABELS, weights=WEIGHTS, slices=SLICES)
    low, high = scipy.stats.t.interval(0.95, int(found.effective_rows) - 1, found.mean_loss, found.standard_error)

    assert found.confidence_interval == (pytest.approx(low, rel=1e-12), pytest.approx(high, rel=1e-12))
    assert FOUND.degrees_of_freedom == len(np.unique(CLUSTERS)) - 1
    rows = WEIGHTS[SLICES == "a"]
    assert found.slices["a"].degrees_of_freedom == int(rows.sum() ** 2 / (rows**2).sum()) - 1


def plain(evaluation):
    """Its numbers, without what only weights have."""
    metrics = {name: (metric.value, metric.n) for name, metric in evaluation.metrics.items()}
    return metrics, evaluation.confidence_interval, evaluation.slices, evaluation.positions, evaluation.reliability


@pytest.mark.parametrize("weight", [1, 0.25, 2**40, True], ids=str)
def test_equal_weights_change_no_bit(weight):
    assert plain(evaluated(np.full(ROWS, weight))) == plain(evaluated(None))


def test_a_weight_of_two_is_a_row_twice_in_every_mean():
    weights = RNG.integers(1, 4, ROWS)
    times = np.repeat(np.arange(ROWS), weights)
    found, expected = xent.evaluate(LOGITS, LABELS, weights=weights), xent.evaluate(LOGITS[times], LABELS[times])

    assert {name: metric.value for name, metric in found.metrics.items()} == pytest.approx(
        {name: metric.value for name, metric in expected.metrics.items()}, rel=1e-14
    )
    assert found.calibration_error == pytest.approx(expected.calibration_error, rel=1e-13)
    assert found.counted == ROWS and expected.counted == weights.sum()


def test_a_weight_of_zero_leaves_a_row_out_whatever_it_holds():
    weights, logits, labels = WEIGHTS.copy(), LOGITS.copy(), LABELS.copy()
    rows = np.arange(ROWS) % 3 > 0
    weights[~rows], logits[0], labels[3] = 0, np.nan, 99
    found = xent.evaluate(logits, labels, weights=weights)
    expected = xent.evaluate(LOGITS[rows], LABELS[rows], weights=WEIGHTS[rows])

    assert found.metrics == expected.metrics and found.ignored == 169 and found.bad_labels == 0
    assert xent.evaluate(logits, labels, weights=rows).metrics == xent.evaluate(LOGITS[rows], LABELS[rows]).metrics


def test_a_comparison_is_weighted():
    found = xent.compare(LOGITS, LOGITS / 2, LABELS, weights=WEIGHTS, slices=SLICES)
    half = -np.log(xent.softmax(LOGITS / 2)[np.arange(ROWS), LABELS])

    assert (found.mean_difference, found.standard_error) == of_regression(LOSSES - half, cov_type="HC1")
    assert found.a == xent.evaluate(LOGITS, LABELS, weights=WEIGHTS)
    rows = SLICES == "a"
    share = np.average((half > LOSSES)[rows], weights=WEIGHTS[rows])
    assert found.slices["a"].share_better == pytest.approx(share, rel=1e-12)
    assert found.better == (half > LOSSES).sum()


def test_the_temperature_is_that_of_the_weighted_loss():
    weights = RNG.integers(1, 4, ROWS)
    times = np.repeat(np.arange(ROWS), weights)
    found = xent.evaluate(LOGITS, LABELS, weights=weights, fit_temperature=True).temperature
    expected = xent.evaluate(LOGITS[times], LABELS[times], fit_temperature=True).temperature

    assert found.value == pytest.approx(expected.value, rel=1e-9)
    assert found.mean_loss == pytest.approx(expected.mean_loss, rel=1e-13)


# ---------------------------------------------------------------------------------------------------------------------
# Exact, in any chunks, formats, states


def test_any_chunks_formats_and_schedulers_leave_the_same_bits(tmp_path):
    np.save(tmp_path / "x.npy", LOGITS)
    pq.write_table(pa.table({"w": WEIGHTS}), tmp_path / "w.parquet", row_group_size=60)
    lazy = da.from_array(WEIGHTS, chunks=100)
    for x, w, options in (
        (LOGITS, WEIGHTS, {"chunk_bytes": 1000}),
        (tmp_path / "x.npy", f"{tmp_path}/w.parquet#w", {"chunk_bytes": 5000, "scheduler": "sync"}),
        (da.from_array(LOGITS, chunks=(77, -1)), lazy, {}),
    ):
        assert xent.evaluate(x, LABELS, weights=w, **SOME, **options) == FOUND
    cut = xent.evaluate(da.from_array(LOGITS, chunks=(77, 3)), LABELS, weights=lazy, **SOME)
    assert cut.mean_loss == pytest.approx(FOUND.mean_loss, rel=1e-14)


def test_weights_of_many_dimensions_have_the_shape_of_the_labels():
    shape = (3, 13, 13)
    found = xent.evaluate(
        LOGITS.reshape(*shape, CLASSES), LABELS.reshape(shape), weights=WEIGHTS.reshape(shape), chunk_bytes=900
    )

    assert found == xent.evaluate(LOGITS, LABELS, weights=WEIGHTS)


def test_a_state_is_kept_with_its_weights(tmp_path):
    for name, array in (("x", LOGITS), ("y", LABELS), ("w", WEIGHTS)):
        np.save(tmp_path / f"{name}.npy", array)
    x, y, w = (tmp_path / f"{name}.npy" for name in "xyw")
    some = {"state": tmp_path / "state", "chunk_bytes": 3000, **SOME}
    some |= {"slices": None, "clusters": None}
    first = xent.evaluate(x, y, weights=w, **some)

    assert xent.evaluate(x, y, weights=w, **some) == first == evaluated(slices=None, clusters=None)
    with pytest.raises(ValueError, match="weights have changed since"):
        xent.evaluate(x, y, **some)


@pytest.mark.parametrize("scale", [1.0, 2.0**-600, 2.0**60, 1e-310])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weighted_moments_are_exact(scale, dtype):
    values = (RNG.standard_normal(300) * 10.0 ** RNG.integers(-12, 12, 300)).astype(dtype)
    weights = RNG.exponential(size=300) * scale
    products = values.astype(np.float64) * weights
    group = RNG.integers(0, 3, 300)
    unit = Fraction(1, 2**UNIT_BITS)
    for g, found in enumerate(grouped_moments(values, group, 3, weights)):
        u, w = ([Fraction(x) for x in each[group == g].tolist()] for each in (products, weights))
        assert found.n == len(u) and found.total * unit == sum(u) and found.weight * unit == sum(w)
        assert found.squares * unit**2 == sum(x * x for x in u)
        assert found.weight_squares * unit**2 == sum(x * x for x in w)
        assert found.products * unit**2 == sum(x * y for x, y in zip(u, w, strict=True))


def test_constant_numbers_of_any_weights_have_no_error():
    weights = RNG.integers(1, 9, 100).astype(float)

    assert moments_of(np.full(100, 0.1), weights * 4).standard_error < 1e-17
    assert moments_of(np.full(100, 3.0), weights).standard_error == 0
    assert Moments().merge(moments_of(np.ones(1), weights[:1])).mean == 1


# ---------------------------------------------------------------------------------------------------------------------
# Weights that are none


@pytest.mark.parametrize("wrong", [-1.0, -1e-300, np.nan, np.inf, 1e300])
def test_a_weight_that_is_none_is_named_with_its_row(wrong):
    weights = WEIGHTS.copy()
    weights[[77, 99]] = wrong
    with pytest.raises(ValueError, match=r"`weights` must lie in .* got 2 rows of another, the first is row 77\. Pass"):
        xent.evaluate(LOGITS, LABELS, weights=weights, chunk_bytes=1000)
    with pytest.raises(ValueError, match="the first is row 77"):
        xent.compare(LOGITS, LOGITS, LABELS, weights=weights)
    rows = ~np.isin(np.arange(ROWS), [77, 99])
    found = xent.evaluate(LOGITS, LABELS, weights=weights, on_error="skip", chunk_bytes=1000)

    assert (found.bad_weights, found.first_bad_weight, found.counted) == (2, 77, ROWS - 2)
    assert found.metrics == xent.evaluate(LOGITS[rows], LABELS[rows], weights=WEIGHTS[rows]).metrics
    assert xent.compare(LOGITS, LOGITS, LABELS, weights=weights, on_error="skip").counted == ROWS - 2


def test_the_losses_of_rows_are_not_weighted_and_those_left_out_are_nan(tmp_path):
    weights = WEIGHTS.copy()
    weights[7], weights[9] = 0, -1
    xent.evaluate(LOGITS, LABELS, weights=weights, on_error="skip", per_example=tmp_path / "losses.npy")
    losses = np.load(tmp_path / "losses.npy")

    assert np.flatnonzero(np.isnan(losses)).tolist() == [7, 9]
    np.testing.assert_allclose(losses[10:], LOSSES[10:], rtol=1e-12)


def test_a_row_that_is_ignored_may_have_any_weight():
    weights = np.where(LABELS == 3, np.nan, WEIGHTS)

    assert xent.evaluate(LOGITS, LABELS, weights=weights, ignore_index=3).bad_weights == 0


def test_an_infinite_loss_makes_a_weighted_mean_infinite():
    masked = LOGITS.copy()
    masked[5, LABELS[5]] = -np.inf
    found = xent.evaluate(masked, LABELS, weights=WEIGHTS)

    assert found.mean_loss == np.inf and found.first_infinite == 5 and np.isnan(found.standard_error)


def test_no_rows_that_count_have_no_mean():
    found = xent.evaluate(LOGITS, LABELS, weights=np.zeros(ROWS))

    assert found.counted == 0 and np.isnan(found.mean_loss) and np.isnan(found.accuracy)


def test_classwise_calibration_is_that_of_its_definition():
    found = evaluated(classwise=True, bins=5)
    bins, whole = np.clip(np.ceil(P * 5).astype(int) - 1, 0, 4), WEIGHTS.sum()
    gaps = [
        abs(sum(WEIGHTS[own] * (LABELS[own] == c)) - sum(WEIGHTS[own] * P[own, c])) / whole
        for c in range(CLASSES)
        for own in (np.flatnonzero(bins[:, c] == b) for b in range(5))
    ]

    assert found.classwise_calibration_error == pytest.approx(sum(gaps) / CLASSES, rel=1e-9)
    parts = found.calibration.classwise
    assert parts.reliability - parts.resolution + parts.uncertainty + parts.within_bins == pytest.approx(found.brier)
    shares = [WEIGHTS[c == LABELS].sum() / whole for c in range(CLASSES)]
    assert parts.uncertainty == pytest.approx(sum(share * (1 - share) for share in shares), rel=1e-12)
    for chunk_bytes in (300, 10**6):
        assert evaluated(classwise=True, bins=5, chunk_bytes=chunk_bytes) == found


def test_whole_weights_are_rows_that_are_there_so_often():
    times = RNG.integers(0, 4, ROWS)
    weighted = evaluated(weights=times, classwise=True, clusters=None).calibration.classwise
    repeated = [np.repeat(each, times, axis=0) for each in (LOGITS, LABELS)]
    plain = xent.evaluate(*repeated, bins=10, classwise=True).calibration.classwise

    for name in ("error", "reliability", "resolution", "uncertainty"):
        assert getattr(weighted, name) == pytest.approx(getattr(plain, name), rel=1e-12), name
    ones = evaluated(weights=np.ones(ROWS), classwise=True).calibration.classwise
    assert ones == evaluated(weights=None, classwise=True).calibration.classwise


@pytest.mark.parametrize("scale", [1e-200, 1.0, 2.0**64])
def test_grid_sums_are_those_of_fractions_in_any_order(scale):
    values, group = RNG.standard_normal(300) * 10.0 ** RNG.integers(-9, 9, 300) * scale, RNG.integers(0, 5, 300)
    whole = grid_sums(values, group, 6)

    exact = [sum(map(Fraction, values[group == each].tolist())) for each in range(6)]
    assert [Fraction(each, 2**1126) for each in whole.integers()] == exact
    assert whole.values(6).tolist() == [float(each) for each in exact]
    order = RNG.permutation(300)
    parts = [grid_sums(values[rows], group[rows], 6) for rows in np.array_split(order, 7)]
    merged = GridSums()
    for part in parts:
        merged = part.merge(merged)
    assert merged == whole and merged.values(6).tolist() == whole.values(6).tolist()


REFUSED = {
    "another shape": ({"weights": WEIGHTS[:5]}, ValueError, r"`weights` must have shape \(507,\), one for each"),
    "text": ({"weights": SLICES}, TypeError, "`weights` must be real numbers"),
}


@pytest.mark.parametrize(("options", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_weights_cannot_be_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        xent.evaluate(LOGITS, LABELS, **options)


def test_weights_that_cannot_be_read_lose_their_rows(tmp_path):
    for number, start in enumerate(range(0, ROWS, 100)):
        np.save(tmp_path / f"{number}.npy", WEIGHTS[start : start + 100])
    planned = plan(LOGITS, LABELS, Options(on_error="skip"), keys=Keys(weights=tmp_path))
    (tmp_path / "1.npy").write_bytes(b"")

    assert planned.run().unread_rows == 100


def test_the_command_line_says_what_the_rows_weigh(tmp_path):
    for name, array in (("x", LOGITS), ("y", LABELS), ("w", WEIGHTS), ("bad", -WEIGHTS)):
        np.save(tmp_path / f"{name}.npy", array)
    x, y, w, bad = (f"{tmp_path}/{name}.npy" for name in ("x", "y", "w", "bad"))
    run = CliRunner().invoke
    document = json.loads(run(main, ["evaluate", x, y, "--weights", w, "--json", "-q"]).stdout)
    shown = run(main, ["evaluate", x, y, "--weights", w, "--html", f"{tmp_path}/x.html", "-q"]).stdout
    compared = run(main, ["compare", x, x, y, "--weights", w, "-q"]).stdout
    sentence = f"the rows weigh {WEIGHTS.sum():.6g}, and tell as much as {FOUND.effective_rows:,.1f} of one weight"

    assert document["weights"] == {"total": FOUND.total_weight, "effective_rows": FOUND.effective_rows}
    assert document["metrics"]["loss"]["value"] == FOUND.mean_loss and document["inputs"]["weights"]["path"] == w
    assert all(sentence in text for text in (shown, compared, (tmp_path / "x.html").read_text(encoding="utf-8")))
    refused = run(main, ["evaluate", x, y, "--weights", bad, "-q"])
    assert refused.exit_code == 3 and "the first is row 0. Pass --on-error skip to leave such rows" in refused.stderr
