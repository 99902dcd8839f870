"""Every statistic of a prediction set, against scikit-learn, statsmodels, or its definition written out in NumPy."""

import math
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics
import statsmodels.api

import xent
from xent.evaluation.evaluations import compare, evaluate
from xent.evaluation.statistics.bins import bin_of, histogram_bin, histogram_edges

ROWS, CLASSES = 507, 7


@pytest.fixture(scope="module")
def logits():
    return np.random.default_rng(1).standard_normal((ROWS, CLASSES)) * 2


@pytest.fixture(scope="module")
def labels(logits):
    rng = np.random.default_rng(2)
    return np.where(rng.random(ROWS) < 0.4, logits.argmax(axis=1), rng.integers(0, CLASSES, ROWS))


@pytest.fixture(scope="module")
def clusters():
    return np.random.default_rng(3).integers(0, 40, ROWS)


@pytest.fixture(scope="module")
def probabilities(logits):
    return scipy.special.softmax(logits, axis=1)


@pytest.fixture(scope="module")
def losses(probabilities, labels):
    return -np.log(probabilities[np.arange(ROWS), labels])


@pytest.fixture(scope="module")
def found(logits, labels, clusters):
    keys = {"clusters": clusters, "slices": np.array(["b", "a", "ü"])[np.arange(ROWS) % 3]}
    return evaluate(logits, labels, by_class=True, top_k=(1, 2, 3), bins=10, predicted_bytes=1000, **keys)


def test_the_loss_is_that_of_scikit_learn(found, probabilities, labels):
    assert found.mean_loss == pytest.approx(sklearn.metrics.log_loss(labels, probabilities), rel=1e-13)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k_accuracies_are_those_of_scikit_learn(found, probabilities, labels, k):
    expected = sklearn.metrics.top_k_accuracy_score(labels, probabilities, k=k, labels=range(CLASSES))

    assert found.top_k_accuracy[k] == expected
    assert found.metrics[f"top-{k} accuracy"].value == expected and found.top_k_accuracy[1] == found.accuracy


def test_the_brier_score_is_that_of_scikit_learn(found, probabilities, labels):
    expected = sklearn.metrics.brier_score_loss(labels, probabilities, labels=range(CLASSES), scale_by_half=False)

    assert found.brier == pytest.approx(expected, rel=1e-13)


def test_entropy_and_confidence_are_those_of_scipy(found, probabilities):
    entropy = scipy.stats.entropy(probabilities, axis=1)

    assert found.entropy == pytest.approx(entropy.mean(), rel=1e-13)
    assert found.confidence == pytest.approx(probabilities.max(axis=1).mean(), rel=1e-13)


def test_the_calibration_error_is_its_definition(found, probabilities, labels):
    top, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges, gaps = np.linspace(0, 1, 11), []
    for low, high in pairwise(edges):
        inside = (top > low) & (top <= high)
        if inside.any():
            gaps.append(inside.mean() * abs(right[inside].mean() - top[inside].mean()))

    assert found.calibration_error == pytest.approx(sum(gaps), rel=1e-12)
    assert [one.counted for one in found.reliability] == [
        n for n in np.histogram(top, edges)[0].tolist() if n
    ]  # no probability lies on an edge


@pytest.mark.parametrize(
    "dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64], ids=lambda dtype: dtype.__name__
)
def test_a_probability_on_an_edge_is_in_the_bin_that_ends_there(dtype):
    p = np.array([[0.6875, 0.3125]] * 16 + [[0.75, 0.25]] * 16, dtype)  # log and exp of 0.75 in float32 are over 0.75
    labels = np.array([0] * 16 + [0] * 7 + [1] * 9)
    found = evaluate(p, labels, kind="probabilities", bins=16)

    assert found.calibration_error == 0.3125  # (1 − 0.6875 + 0.75 − 0.4375) / 2
    assert [(one.low, one.high, one.confidence) for one in found.reliability] == [
        (0.625, 0.6875, 0.6875),
        (0.6875, 0.75, 0.75),
    ]
    assert found.brier == np.mean([0.1953125] * 16 + [0.125] * 7 + [1.125] * 9)


def test_a_bin_holds_the_probabilities_between_the_edges_that_are_reported():
    for bins in (1, 3, 10, 15, 49, 100, 1000):
        edges = np.arange(bins + 1) / bins
        p = np.concatenate([edges, np.nextafter(edges, 1), np.nextafter(edges, 0)])  # 0.29 · 100 is 28.999999999999996
        index = bin_of(p, bins)

        assert np.all((p > edges[index]) | (p == 0)) and np.all(p <= edges[index + 1])


def test_a_confidence_of_zero_has_a_bin():
    found = evaluate(np.full((2, 4), 0.0), np.array([0, 1]), kind="probabilities")

    assert found.reliability[0].low == 0.0 and found.reliability[0].counted == 2


def test_prior_and_skill_are_those_of_the_labels(found, labels):
    share = np.bincount(labels) / ROWS
    prior = scipy.stats.entropy(share)

    assert found.prior_loss == pytest.approx(prior, rel=1e-13)
    assert found.skill == pytest.approx(1 - found.mean_loss / prior, rel=1e-13)


def test_bits_per_byte_divide_the_whole_loss_by_the_bytes(found, losses):
    assert found.bits_per_byte == pytest.approx(losses.sum() / math.log(2) / 1000, rel=1e-13)


def test_the_clustered_error_is_that_of_statsmodels(found, losses, clusters):
    groups = {"groups": clusters, "use_correction": True}
    fit = statsmodels.api.OLS(losses, np.ones(ROWS)).fit(cov_type="cluster", cov_kwds=groups, use_t=True)

    assert found.standard_error == pytest.approx(fit.bse[0], rel=1e-10) and found.clusters == 40
    assert found.confidence_interval == pytest.approx(tuple(fit.conf_int()[0]), rel=1e-9)


@pytest.mark.parametrize("name", ["brier", "entropy", "confidence", "accuracy", "top-2 accuracy"])
@pytest.mark.parametrize("given", ["all", "slice"])
def test_the_clustered_error_of_every_mean_is_that_of_statsmodels(found, probabilities, labels, clusters, name, given):
    right = np.argsort(-probabilities, axis=1, kind="stable") == labels[:, None]
    values = {
        "brier": ((probabilities - np.eye(CLASSES)[labels]) ** 2).sum(axis=1),
        "entropy": scipy.stats.entropy(probabilities, axis=1),
        "confidence": probabilities.max(axis=1),
        "accuracy": right[:, 0].astype(float),
        "top-2 accuracy": right[:, :2].any(axis=1).astype(float),
    }[name]
    rows = slice(1, None, 3) if given == "slice" else slice(None)
    fit = statsmodels.api.OLS(values[rows], np.ones(len(values[rows])))
    error = fit.fit(cov_type="cluster", cov_kwds={"groups": clusters[rows], "use_correction": True}).bse[0]

    if given == "all":
        assert found.metrics[name].stderr == pytest.approx(error, rel=1e-10)
    elif name == "accuracy":
        assert found.slices["a"].accuracy_error == pytest.approx(error, rel=1e-10)


def test_clusters_of_one_row_are_rows(logits, labels):
    alone, none = evaluate(logits, labels, clusters=np.arange(ROWS)), evaluate(logits, labels)

    for name, metric in none.metrics.items():
        assert alone.metrics[name].stderr == pytest.approx(metric.stderr, rel=1e-13), name


def test_one_cluster_has_no_error(logits, labels):
    assert math.isnan(evaluate(logits, labels, clusters=np.zeros(ROWS, int)).standard_error)


def test_tables_of_classes_and_slices_are_those_of_their_rows(found, logits, labels, losses, clusters):
    for label, group in found.classes.items():
        mine = losses[labels == label]

        assert (group.counted, group.mean_loss) == (len(mine), pytest.approx(mine.mean(), rel=1e-13))
        assert group.standard_error == pytest.approx(scipy.stats.sem(mine), rel=1e-12)
        right = logits[labels == label].argmax(axis=1) == label
        assert group.recall_error == pytest.approx(scipy.stats.sem(right), rel=1e-12)
    part = evaluate(logits[1::3], labels[1::3], clusters=clusters[1::3])

    assert found.slices["a"][:8] == (
        part.counted,
        part.mean_loss,
        part.standard_error,
        part.accuracy,
        part.degrees_of_freedom,
        part.metrics["accuracy"].stderr,
        None,
        part.brier,
    )
    assert list(found.slices) == ["a", "b", "ü"] and list(found.classes) == sorted(set(labels.tolist()))


@pytest.mark.slow
@pytest.mark.parametrize("chunk_bytes", [1, 700, 10**6])
def test_any_chunks_leave_every_statistic_the_same_bits(found, logits, labels, clusters, chunk_bytes):
    keys = {"clusters": clusters, "slices": np.array(["b", "a", "ü"])[np.arange(ROWS) % 3]}
    options = {"by_class": True, "top_k": (1, 2, 3), "bins": 10, "predicted_bytes": 1000}

    assert evaluate(logits, labels, chunk_bytes=chunk_bytes, **options, **keys) == found


def test_rows_that_are_ignored_or_of_a_bad_label_are_in_no_statistic(logits, labels):
    marked = labels.copy()
    marked[::5], marked[1::5] = -100, 99
    keep = np.arange(ROWS) % 5 > 1
    some = {"by_class": True, "top_k": 2}
    found = evaluate(logits, marked, ignore_index=-100, on_bad_label="skip", clusters=labels, **some)
    part = evaluate(logits[keep], labels[keep], clusters=labels[keep], **some)

    for name in ("mean_loss", "standard_error", "brier", "entropy", "calibration_error", "classes", "prior_loss"):
        assert getattr(found, name) == getattr(part, name), name
    assert found.top_k_accuracy == part.top_k_accuracy


def test_rows_that_do_not_sum_to_one_are_counted_and_the_first_is_named(probabilities, labels):
    spoilt = probabilities.copy()
    spoilt[[17, 40]] *= 1.1
    found = evaluate(spoilt, labels, kind="probabilities", chunk_bytes=500)
    logs = evaluate(np.log(spoilt), labels, kind="log_probabilities")

    assert (found.unnormalised_rows, found.first_unnormalised) == (2, 17)
    assert (logs.unnormalised_rows, logs.first_unnormalised) == (2, 17)
    assert evaluate(probabilities.astype("f2"), labels, kind="probabilities").unnormalised_rows == 0


def test_a_row_that_is_nan_makes_every_mean_nan_that_it_is_in(logits, labels):
    spoilt = logits.copy()
    spoilt[3, 0] = np.nan
    found = evaluate(spoilt, labels, by_class=True)

    assert all(math.isnan(one) for one in (found.brier, found.entropy, found.calibration_error, found.confidence))
    assert math.isnan(found.classes[int(labels[3])].mean_loss) and found.nan_rows == 1
    assert not math.isnan(found.classes[int(labels[3] + 1) % CLASSES].mean_loss)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"top_k": 0}, ValueError, "`top_k` must be a whole number, at least 1, got 0"),
        ({"top_k": "ab"}, TypeError, "`top_k` must be an int, an iterable of ints, got 'ab'"),
        *[({name: True}, TypeError, f"`{name}` must be an int, an iterable") for name in ("top_k", "ignore_index")],
        ({"top_k": (1, True)}, TypeError, r"`top_k` must be an int, an iterable of ints, got \(1, True\)\. Pass 5,"),
        ({"ignore_index": b"5"}, TypeError, "`ignore_index` must be an int, an iterable of ints, or None, got b'5'"),
        *[
            ({name: "no"}, TypeError, f"evaluate: `{name}` must be True or False, got 'no'. Pass one of the two.")
            for name in ("by_class", "classwise", "confusion", "auc", "zeros_ok", "overwrite", "fit_temperature")
        ],
        *[
            ({"allow_outside": value}, TypeError, f"`allow_outside` must be folders, got {got}. Name a folder")
            for value, got in ((5, 5), (None, None), ((5,), 5))
        ],
        ({"bins": 0}, ValueError, "`bins` must be a whole number, at least 1, got 0"),
        ({"predicted_bytes": -1}, ValueError, "`predicted_bytes` must be a whole number, at least 1, got -1"),
        ({"clusters": np.zeros(3)}, ValueError, r"`clusters` must have shape \(507,\), one for each row, got float64"),
        ({"slices": np.zeros(ROWS)}, TypeError, r"`slices` must be integers or text, got float64\[507\]"),
    ],
)
def test_options_that_cannot_be_are_refused_before_any_work(logits, labels, options, kind, message):
    with pytest.raises(kind, match=message):
        evaluate(logits, labels, **options)


# -------------------- two sets


@pytest.fixture(scope="module")
def other(logits):
    return logits + np.random.default_rng(4).standard_normal(logits.shape) * 0.3


def test_the_difference_is_that_of_the_rows(logits, other, labels):
    mine, theirs = (np.asarray(xent.sparse_cross_entropy(one, labels)) for one in (logits, other))
    found = compare(logits, other, labels)
    test = scipy.stats.ttest_rel(mine, theirs)

    assert found.mean_difference == pytest.approx((mine - theirs).mean(), rel=1e-12)
    assert found.standard_error == pytest.approx(scipy.stats.sem(mine - theirs), rel=1e-12)
    assert found.mean_difference / found.standard_error == pytest.approx(test.statistic, rel=1e-12)
    assert found.p_value == pytest.approx(test.pvalue, rel=1e-11)
    assert (found.better, found.worse, found.ties) == (
        np.sum(mine < theirs),
        np.sum(mine > theirs),
        np.sum(mine == theirs),
    )


def test_the_clustered_error_of_a_difference_is_that_of_statsmodels(logits, other, labels, clusters):
    mine, theirs = (np.asarray(xent.sparse_cross_entropy(one, labels)) for one in (logits, other))
    groups = {"groups": clusters, "use_correction": True}
    fit = statsmodels.api.OLS(mine - theirs, np.ones(ROWS)).fit(cov_type="cluster", cov_kwds=groups)

    assert compare(logits, other, labels, clusters=clusters).standard_error == pytest.approx(fit.bse[0], rel=1e-10)


def test_each_set_of_a_comparison_has_the_numbers_it_has_by_itself(logits, other, labels, clusters):
    found = compare(logits, other, labels, clusters=clusters, chunk_bytes=900)

    assert found.a == evaluate(logits, labels, clusters=clusters)
    assert found.b == evaluate(other, labels, clusters=clusters)


@pytest.mark.slow
def test_any_chunks_leave_a_comparison_the_same_bits(logits, other, labels):
    slices = np.arange(ROWS) % 4

    found = [compare(logits, other, labels, slices=slices, chunk_bytes=size) for size in (1, 800, 10**7)]

    assert found[0] == found[1] == found[2]


def test_slices_of_a_comparison_are_those_of_their_rows(logits, other, labels):
    found = compare(logits, other, labels, slices=np.arange(ROWS) % 4).slices[3]
    part = compare(logits[3::4], other[3::4], labels[3::4])

    assert found[:-1] == (
        part.counted,
        part.mean_difference,
        part.standard_error,
        part.better / part.counted,
        part.degrees_of_freedom,
        part.p_value,
    )


def test_a_set_against_itself_is_no_different(logits, labels):
    found = compare(logits, logits, labels)

    assert (found.mean_difference, found.standard_error, found.p_value, found.ties) == (0.0, 0.0, 1.0, ROWS)


def test_a_slice_of_a_comparison_has_the_clustered_error_of_its_rows(logits, other, labels, clusters):
    slices = np.arange(ROWS) % 2
    found = compare(logits, other, labels, clusters=clusters, slices=slices).slices[1]
    part = compare(logits[1::2], other[1::2], labels[1::2], clusters=clusters[1::2])

    assert (found.mean_difference, found.standard_error) == (part.mean_difference, part.standard_error)
    assert found.standard_error != compare(logits[1::2], other[1::2], labels[1::2]).standard_error


@pytest.mark.parametrize(("a", "b", "mean"), [(0, 1, -math.inf), (1, 0, math.inf), (1, 1, math.nan)])
def test_a_loss_that_is_infinite_makes_the_difference_infinite(logits, labels, a, b, mean):
    sets = []
    for is_infinite, row in ((a, 3), (b, 9)):
        one = logits.copy()
        one[row, labels[row]] = -math.inf if is_infinite else 0
        sets.append(one)

    assert compare(*sets, labels).mean_difference == pytest.approx(mean, nan_ok=True)


def test_many_clusters_cost_no_more_than_they_are():
    labels, rng = np.zeros(60_000, int), np.random.default_rng(0)
    logits, clusters = rng.normal(size=(60_000, 2)), rng.permutation(60_000) // 2
    found = evaluate(logits, labels, clusters=clusters)
    sums = np.zeros(30_000)
    losses = np.log1p(np.exp(logits[:, 1] - logits[:, 0]))
    np.add.at(sums, clusters, losses - losses.mean())

    assert found.clusters == 30_000
    assert found.standard_error == pytest.approx(np.sqrt(30_000 / 29_999 * (sums**2).sum()) / 60_000, rel=1e-9)


def test_sets_of_other_shapes_are_refused(logits, labels):
    with pytest.raises(ValueError, match=r"`b` must have the shape of a, \(507, 7\), got float64\[507, 6\]"):
        compare(logits, logits[:, :6], labels)


def test_bad_labels_of_a_comparison_are_an_error_that_names_the_first(logits, other, labels):
    spoilt = labels.copy()
    spoilt[100] = 7
    with pytest.raises(xent.LabelError, match="the first 7 in row 100"):
        compare(logits, other, spoilt)

    assert compare(logits, other, spoilt, on_bad_label="skip").counted == ROWS - 1


def test_a_comparison_of_no_rows_has_no_numbers():
    found = compare(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, int))

    assert found.counted == 0 and math.isnan(found.mean_difference)


# ---------------------------------------------------------------------------------------------------------------------
# Where the loss is: histogram, position, worst rows


def test_the_histogram_counts_every_finite_loss_in_its_bin(found, losses):
    assert sum(one.counted for one in found.histogram) == len(losses)
    for one in found.histogram:
        assert one.counted == np.count_nonzero((losses >= one.low) & (losses < one.high))
        assert one.low == 0 or one.high in (math.inf, pytest.approx(one.low + 2 ** math.floor(math.log2(one.low)) / 4))


@pytest.mark.parametrize(
    ("loss", "low", "high"),
    [
        (0.0, 0, 1.25 * 2**-25),
        (5e-324, 0, 1.25 * 2**-25),
        (1.0, 1.0, 1.25),
        (1.9999, 1.75, 2.0),
        (2.0, 2.0, 2.5),
        (1e9, 1.75 * 2**11, math.inf),
    ],
)
def test_a_loss_is_in_a_bin_of_a_quarter_octave(loss, low, high):
    assert histogram_edges(int(histogram_bin(np.asarray([loss]))[0])) == (low, high)


@pytest.mark.parametrize("rows", [7, 100, 123, 507])
def test_the_loss_over_position_is_that_of_its_rows(logits, labels, losses, rows):
    found = evaluate(logits[:rows], labels[:rows], chunk_bytes=100)

    assert found.positions[0].first_row == 0 and found.positions[-1].stop_row == rows
    assert [a.stop_row for a in found.positions[:-1]] == [b.first_row for b in found.positions[1:]]
    assert len(found.positions) == min(rows, 100)
    for one in found.positions:
        assert one.counted == one.stop_row - one.first_row
        assert one.mean_loss == pytest.approx(losses[one.first_row : one.stop_row].mean(), rel=1e-6)


def test_the_worst_rows_are_those_of_the_highest_loss(found, logits, labels, losses):
    order = np.lexsort((np.arange(len(losses)), -losses))[:10]

    assert [one.row for one in found.worst] == order.tolist()
    assert [one.label for one in found.worst] == labels[order].tolist()
    assert [one.predicted for one in found.worst] == logits[order].argmax(axis=1).tolist()
    assert [one.loss for one in found.worst] == pytest.approx(losses[order], rel=1e-6)


def test_of_equal_losses_the_first_rows_are_the_worst():
    found = evaluate(np.zeros((100, 3)), np.zeros(100, int), chunk_bytes=24 * 40)

    assert [one.row for one in found.worst] == list(range(10))


def test_an_infinite_loss_is_worse_than_any_and_a_nan_is_none():
    logits = np.zeros((4, 2))
    logits[1], logits[2] = [-np.inf, 0], np.nan
    found = evaluate(logits, np.zeros(4, int))

    assert [one.row for one in found.worst] == [1, 0, 3]
