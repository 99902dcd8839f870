"""Tests of two models on the same rows: McNemar's, Holm's, the rows it takes, and the errors of clusters."""

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels
from statsmodels.stats.multitest import multipletests

import xent
from xent.evaluation.statistics.paired_tests import MOST_EXACT, holm, mcnemar, rows_needed


@pytest.mark.parametrize("counts", [(0, 0), (0, 1), (5, 5), (3, 14), (40, 61), (480, 520), (1000, 0)])
def test_mcnemars_p_of_few_rows_is_the_binomial_one(counts):
    found = mcnemar(*counts)

    assert found.is_exact and found[:2] == counts
    expected = scipy.stats.binomtest(counts[0], sum(counts)).pvalue if sum(counts) else 1.0
    assert found.p_value == pytest.approx(expected, rel=1e-9) == pytest.approx(mcnemar(*counts[::-1]).p_value)


def test_mcnemars_p_of_many_rows_is_that_of_chi_square():
    found = mcnemar(480, MOST_EXACT - 479)
    expected = scipy.stats.chi2.sf((480 - 521) ** 2 / 1001, 1)

    assert not found.is_exact and found.p_value == pytest.approx(expected, rel=1e-12)
    assert found.p_value == pytest.approx(
        mcnemar_of_statsmodels([[0, 480], [521, 0]], exact=False, correction=False).pvalue, rel=1e-12
    )


def test_holms_p_values_reject_what_the_steps_by_hand_reject():
    p_values = np.random.default_rng(2).uniform(0, 0.2, 7).tolist()
    adjusted = holm(p_values)
    for level in np.linspace(0.005, 0.999, 200):
        rejected = set()
        for step, i in enumerate(np.argsort(p_values).tolist()):  # as long as p <= level / (tests that are left)
            if p_values[i] > level / (7 - step):
                break
            rejected.add(i)

        assert {i for i, p in enumerate(adjusted) if p <= level} == rejected


def test_holms_p_values_are_those_of_statsmodels():
    p_values = np.random.default_rng(3).uniform(0, 0.3, 9).tolist()

    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], rel=1e-12)


def test_holm_leaves_out_what_is_no_number():
    assert holm([]) == []
    found = holm([0.03, math.nan, 0.01])

    assert found[::2] == [0.03, 0.02] and math.isnan(found[1])


def test_as_many_rows_as_are_needed_tell_the_difference_in_80_of_100_samples():
    mean, deviation = 0.1, 1.0
    needed = rows_needed(mean, deviation / math.sqrt(50), 50)
    power = scipy.stats.norm.sf(1.959963984540054 - mean * math.sqrt(needed) / deviation)

    assert needed == 785  # (1.959964 + 0.841621)**2 * 100 = 784.89
    assert power == pytest.approx(0.8, abs=1e-3)
    assert rows_needed(0.0, 1.0, 9) is rows_needed(math.nan, 1.0, 9) is rows_needed(0.1, math.nan, 1) is None


@pytest.fixture
def pair():
    """Logits of two models, labels, slices and clusters, in which rows of a cluster are right and wrong together."""
    rng = np.random.default_rng(5)
    labels, clusters = rng.integers(0, 3, 123), np.arange(123) // 6
    common = rng.normal(size=(21, 1))[clusters]
    sharpness = 1 + common
    a, b = (rng.normal(size=(123, 3)) + each * np.eye(3)[labels] for each in (sharpness, sharpness - 0.4))
    return a, b, labels, np.array(["de", "en", "fr"])[np.arange(123) % 3], clusters


def test_a_comparison_counts_what_one_set_alone_has_right_in_any_chunks(pair):
    a, b, labels, slices, _ = pair
    weights = np.arange(123) % 4  # 0 leaves a row out
    found = xent.compare(a, b, labels, slices=slices, weights=weights, ignore_index=2, chunk_bytes=999)
    right_a, right_b = (each.argmax(-1) == labels for each in (a, b))
    counted = (labels != 2) & (weights > 0)

    alone = (int((counted & right_a & ~right_b).sum()), int((counted & right_b & ~right_a).sum()))
    assert found.mcnemar == mcnemar(*alone) and min(alone) > 0
    assert found.to_dict()["mcnemar"]["right_in_a"] == alone[0]
    assert f"A alone is right in {alone[0]}, B alone in {alone[1]}" in str(found) and "80 % power" in str(found)


def test_slices_of_a_comparison_have_students_p_and_holms(pair):
    a, b, labels, slices, _ = pair
    found = xent.compare(a, b, labels, slices=slices)
    losses = [xent.sparse_cross_entropy(each, labels) for each in (a, b)]
    expected = [scipy.stats.ttest_rel(*(each[slices == name] for each in losses)).pvalue for name in ("de", "en", "fr")]

    assert [each.p_value for each in found.slices.values()] == pytest.approx(expected, rel=1e-9)
    assert [each.adjusted_p_value for each in found.slices.values()] == pytest.approx(holm(expected), rel=1e-9)
    assert found.rows_needed == rows_needed(found.mean_difference, found.standard_error, 123)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_error_of_accuracy_takes_clusters_as_independent(pair, weighted):
    a, _, labels, _, clusters = pair
    weights = np.random.default_rng(1).integers(1, 5, 123).astype(float) if weighted else np.ones(123)
    found = xent.evaluate(a, labels, clusters=clusters, weights=weights if weighted else None, chunk_bytes=999)
    right = a.argmax(-1) == labels

    whole = sum(map(Fraction, weights.tolist()))
    mean = sum(map(Fraction, (weights * right).tolist())) / whole
    sums = [
        sum(Fraction(w) * (int(hit) - mean) for w, hit in zip(weights[own].tolist(), right[own].tolist(), strict=True))
        for own in (clusters == each for each in range(21))
    ]
    expected = math.sqrt(Fraction(21, 20) * sum(each**2 for each in sums) / whole**2)
    independent = xent.evaluate(a, labels, weights=weights if weighted else None)
    assert found.metrics["accuracy"].stderr == pytest.approx(expected, rel=1e-14)
    assert "standard errors take 21 clusters as independent" in str(found)
    assert found.metrics["accuracy"].value == independent.metrics["accuracy"].value
    assert expected > 1.1 * independent.metrics["accuracy"].stderr


def test_each_row_a_cluster_is_the_error_of_independent_rows_and_one_cluster_has_none(pair):
    a, _, labels, *_ = pair
    alone = xent.evaluate(a, labels).metrics["accuracy"].stderr

    rows, one = (xent.evaluate(a, labels, clusters=each) for each in (np.arange(123), np.zeros(123, int)))
    assert rows.metrics["accuracy"].stderr == pytest.approx(alone, rel=1e-14)
    assert math.isnan(one.metrics["accuracy"].stderr)
