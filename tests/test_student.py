"""Student's distribution beside SciPy's, and the intervals and p-values that it makes of few rows and few clusters."""

import math

import numpy as np
import pytest
import scipy.stats
import statsmodels.api

import xent
from xent.evaluation.statistics.student import MANY, quantile, two_sided

DEGREES = (1, 2, 3, 9, 40, 199, 200, 2500, MANY - 1, MANY, 10**9)


@pytest.mark.parametrize("degrees", DEGREES)
def test_a_chance_is_scipys(degrees):
    for t in (0.0, 0.01, 0.7, 1.5, 1.8, 1.96, 3.0, -12.0, 35.0, 1e5):
        expected = 2 * scipy.stats.t.sf(abs(t), degrees)

        assert two_sided(t, degrees) == pytest.approx(expected, rel=1e-11, abs=1e-290)


@pytest.mark.parametrize("degrees", DEGREES)
def test_a_quantile_is_scipys(degrees):
    assert quantile(degrees) == pytest.approx(scipy.stats.t.ppf(0.975, degrees), rel=1e-12)


def test_without_a_degree_of_freedom_there_is_no_number():
    assert math.isnan(quantile(0)) and math.isnan(two_sided(1.0, 0)) and math.isnan(two_sided(math.nan, 3))
    assert two_sided(math.inf, 3) == two_sided(1e300, MANY) == 0.0


def few(clusters):
    logits = np.random.default_rng(clusters).standard_normal((60, 4))
    return logits, np.arange(60) % 4, np.arange(60) // 2 % clusters


@pytest.mark.parametrize("clusters", [2, 3, 10])
def test_few_clusters_have_the_interval_and_the_p_value_of_t(clusters):
    logits, labels, groups = few(clusters)
    a, b = xent.sparse_cross_entropy(logits, labels), xent.sparse_cross_entropy(logits / 2, labels)
    found, pair = (
        xent.evaluate(logits, labels, clusters=groups),
        xent.compare(logits, logits / 2, labels, clusters=groups),
    )

    for losses, interval in ((a, found.confidence_interval), (a - b, pair.confidence_interval)):
        keywords = {"groups": groups, "use_correction": True}
        fit = statsmodels.api.OLS(losses, np.ones(60)).fit(cov_type="cluster", cov_kwds=keywords, use_t=True)
        assert interval == pytest.approx(tuple(fit.conf_int()[0]), rel=1e-9)
    assert pair.p_value == pytest.approx(fit.pvalues[0], rel=1e-9)
    assert found.degrees_of_freedom == pair.degrees_of_freedom == clusters - 1


def test_rows_without_clusters_are_those_of_the_t_test():
    logits, labels, _ = few(3)
    a, b = (xent.sparse_cross_entropy(x[:5], labels[:5]) for x in (logits, logits / 2))
    found, test = xent.compare(logits[:5], logits[:5] / 2, labels[:5]), scipy.stats.ttest_rel(a, b)

    assert found.p_value == pytest.approx(test.pvalue, rel=1e-9) and found.degrees_of_freedom == 4
    assert found.confidence_interval == pytest.approx(tuple(test.confidence_interval(0.95)), rel=1e-9)
    assert found.a.confidence_interval == pytest.approx(
        scipy.stats.t.interval(0.95, 4, a.mean(), scipy.stats.sem(a)), rel=1e-9
    )


def test_a_slice_has_the_degrees_of_its_own_clusters_or_rows():
    logits, labels, groups = few(3)
    slices = np.where((groups == 2) | (labels == 0), 1, 0)
    together = np.unique(groups[slices == 0]).size

    assert (
        xent.evaluate(logits, labels, slices=slices, clusters=groups).slices[0].degrees_of_freedom == together - 1 == 1
    )
    assert xent.compare(logits, logits, labels, slices=slices, clusters=groups).slices[0].degrees_of_freedom == 1
    assert xent.evaluate(logits, labels, slices=slices).slices[0].degrees_of_freedom == np.sum(slices == 0) - 1
    assert xent.evaluate(logits, labels, by_class=True).classes[1].degrees_of_freedom == 14


def test_no_row_and_one_row_have_no_degree_of_freedom():
    logits, labels, _ = few(3)

    for rows in (0, 1):
        found = xent.compare(logits[:rows], logits[:rows], labels[:rows])
        assert found.degrees_of_freedom == found.a.degrees_of_freedom == 0
        assert all(map(math.isnan, found.confidence_interval + found.a.confidence_interval))
