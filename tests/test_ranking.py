"""How well predictions rank the rows of a class above the others, beside scikit-learn's; and what is merged for it."""

import json
import math
from fractions import Fraction
from functools import reduce
from itertools import pairwise

import dask.array as da
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import xent
from xent.cli.commands import main
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.options import Options
from xent.evaluation.statistics import score_counts as module
from xent.evaluation.statistics.exact_sums import UNIT_BITS
from xent.evaluation.statistics.ranking import ranking_scores
from xent.evaluation.statistics.score_counts import counted_keys, keys_of, least_shift, units_of

ROWS, CLASSES = 507, 5
RNG = np.random.default_rng(12)
LABELS = RNG.integers(0, CLASSES, ROWS)
LOGITS = RNG.normal(size=(ROWS, CLASSES)) + np.eye(CLASSES)[LABELS]
TWO = RNG.integers(0, 2, ROWS)
# multiples of a quarter: many scores are equal
PAIRS = np.round(4 * (RNG.normal(size=(ROWS, 2)) + np.eye(2)[TWO])) / 4
SCORES = PAIRS[:, 1] - PAIRS[:, 0]


def ranking(predictions=PAIRS, labels=TWO, **options):
    return xent.evaluate(predictions, labels, auc=True, **options).ranking


def probabilities(logits):
    p = np.exp(logits)
    return p / p.sum(axis=1, keepdims=True)


def counts_of(scores, labels, limit=2**16):
    return counted_keys(0, limit, 0, keys_of(scores), *(np.asarray(rows, np.int64) for rows in (labels, 1 - labels)))


# -------------------- the numbers


def test_two_classes_are_ranked_as_scikit_learn_does_with_ties():
    (found,) = ranking().classes.values()
    false, true, _ = sklearn.metrics.roc_curve(TWO, SCORES, drop_intermediate=False)

    assert len(np.unique(SCORES)) < ROWS / 4
    assert found.auc == pytest.approx(sklearn.metrics.roc_auc_score(TWO, SCORES), rel=1e-15)
    assert found.average_precision == pytest.approx(sklearn.metrics.average_precision_score(TWO, SCORES), rel=1e-14)
    assert found.ks == pytest.approx(np.abs(true - false).max(), rel=1e-14)
    assert found.ks == pytest.approx(scipy.stats.ks_2samp(SCORES[TWO == 1], SCORES[TWO == 0]).statistic, rel=1e-14)
    assert (found.positives, found.negatives) == (TWO.sum(), ROWS - TWO.sum())
    assert found.auc_bound == found.average_precision_bound == found.ks_bound == 0


def test_several_classes_are_ranked_each_against_the_rest():
    found, p = ranking(LOGITS, LABELS), probabilities(LOGITS)

    for c, scores in found.classes.items():
        assert scores.auc == pytest.approx(sklearn.metrics.roc_auc_score(c == LABELS, p[:, c]), rel=1e-15)
        expected = sklearn.metrics.average_precision_score(c == LABELS, p[:, c])
        assert scores.average_precision == pytest.approx(expected, rel=1e-14)
    for mean in ("macro", "weighted"):
        expected = sklearn.metrics.roc_auc_score(LABELS, p, multi_class="ovr", average=mean)
        assert getattr(found, f"{mean}_auc") == pytest.approx(expected, rel=1e-14)
        expected = sklearn.metrics.average_precision_score(LABELS, p, average=mean)
        assert getattr(found, f"{mean}_average_precision") == pytest.approx(expected, rel=1e-14)
    assert list(found.classes) == list(range(CLASSES))


def test_gains_are_shares_of_the_rows_of_the_highest_scores():
    labels = np.asarray([1, 1, 0, 1, 0, 0, 0, 0, 0, 0])
    gains = ranking(np.stack([np.arange(10.0), np.zeros(10)], axis=1), labels).classes[1].gains
    captured = [1 / 3, 2 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1]

    assert [gain.share for gain in gains] == [i / 10 for i in range(1, 11)]
    assert [gain.captured for gain in gains] == captured
    assert [gain.lift for gain in gains] == pytest.approx([c / (i / 10) for i, c in enumerate(captured, 1)], rel=1e-15)


def test_equal_scores_are_taken_in_proportion_by_gains():
    gains = ranking(np.zeros((7, 2)), np.asarray([1, 0, 0, 1, 0, 0, 0])).classes[1].gains

    assert [gain.captured for gain in gains] == [i / 10 for i in range(1, 11)]
    assert {gain.lift for gain in gains} == {1.0}


@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
@pytest.mark.parametrize("binary", [False, True])
def test_every_kind_of_two_classes_is_ranked(kind, binary):
    p = probabilities(PAIRS)
    given = {"logits": PAIRS, "probabilities": p, "log_probabilities": np.log(p)}[kind]
    if binary:
        given = SCORES if kind == "logits" else given[:, 1]
    (found,) = ranking(given, TWO, kind=kind, binary=binary).classes.values()
    scores = SCORES if kind == "logits" else given[:, 1] if not binary else given

    assert found.auc == pytest.approx(sklearn.metrics.roc_auc_score(TWO, scores), rel=1e-15)


def test_a_row_without_a_score_leaves_no_ranking():
    spoilt = PAIRS.copy()
    spoilt[5] = np.nan
    found = ranking(spoilt)

    assert math.isnan(found.classes[1].auc) and math.isnan(found.macro_auc) and found.classes[1].gains == ()
    assert "no ranking: a row has no score" in str(xent.evaluate(spoilt, TWO, auc=True))


def test_rows_that_do_not_count_are_not_ranked():
    labels = TWO.copy()
    labels[:100] = -100
    labels[100] = 7
    found = ranking(PAIRS, labels, ignore_index=-100, on_bad_label="skip").classes[1]

    assert found.auc == pytest.approx(sklearn.metrics.roc_auc_score(TWO[101:], SCORES[101:]), rel=1e-15)


def test_a_class_without_rows_has_no_ranking_and_is_in_no_mean():
    found = ranking(LOGITS, np.where(LABELS == 3, 0, LABELS))

    assert math.isnan(found.classes[3].auc) and found.classes[3].positives == 0
    assert found.macro_auc == pytest.approx(np.mean([found.classes[c].auc for c in (0, 1, 2, 4)]), rel=1e-15)


WEIGHTS = np.where(RNG.random(ROWS) < 0.1, 0.0, RNG.random(ROWS) * 10.0 ** RNG.integers(-9, 9, ROWS))


def test_weighted_rows_are_ranked_as_scikit_learn_does():
    (found,) = ranking(weights=WEIGHTS).classes.values()
    false, true, _ = sklearn.metrics.roc_curve(TWO, SCORES, sample_weight=WEIGHTS, drop_intermediate=False)
    precision = sklearn.metrics.average_precision_score(TWO, SCORES, sample_weight=WEIGHTS)

    assert found.auc == pytest.approx(sklearn.metrics.roc_auc_score(TWO, SCORES, sample_weight=WEIGHTS), rel=1e-13)
    assert found.average_precision == pytest.approx(precision, rel=1e-13)
    assert found.ks == pytest.approx(np.abs(true - false).max(), rel=1e-13)
    assert found.positives == np.sum(TWO[WEIGHTS > 0]) and found.negatives == np.sum(1 - TWO[WEIGHTS > 0])


def test_weighted_rows_of_several_classes_are_ranked_as_scikit_learn_does():
    weights = RNG.random(ROWS)
    found, p = ranking(LOGITS, LABELS, weights=weights), probabilities(LOGITS)

    for mean in ("macro", "weighted"):
        each = {"average": mean, "sample_weight": weights}
        expected = sklearn.metrics.roc_auc_score(LABELS, p, multi_class="ovr", **each)
        assert getattr(found, f"{mean}_auc") == pytest.approx(expected, rel=1e-13)
        expected = sklearn.metrics.average_precision_score(LABELS, p, **each)
        assert getattr(found, f"{mean}_average_precision") == pytest.approx(expected, rel=1e-13)


def test_equal_weights_leave_every_number_of_none():
    assert ranking(weights=np.full(ROWS, 0.3)) == ranking()


def test_a_row_of_weight_two_is_two_rows():
    twice = np.concatenate([np.arange(ROWS), np.arange(100)])
    weights = np.where(np.arange(ROWS) < 100, 2.0, 1.0)
    one, two = ranking(weights=weights).classes[1], ranking(PAIRS[twice], TWO[twice]).classes[1]

    assert one._replace(positives=0, negatives=0) == two._replace(positives=0, negatives=0)


def test_a_row_of_a_bad_weight_is_not_ranked():
    bad = np.where(np.arange(ROWS) < 9, -1.0, 1.0)
    found = ranking(weights=bad, on_error="skip").classes[1]

    assert found.auc == pytest.approx(sklearn.metrics.roc_auc_score(TWO[9:], SCORES[9:]), rel=1e-15)


@pytest.mark.parametrize("weight", [5e-324, 2.0**64, 1.0, 0.1])
def test_a_weight_is_an_integer_of_its_units(weight):
    assert Fraction(units_of(np.asarray([weight]))[0], 2**UNIT_BITS) == Fraction(weight)


# -------------------- sums that merge


@pytest.mark.parametrize(("predictions", "labels"), [(PAIRS, TWO), (LOGITS, LABELS)], ids=["two", "several"])
@pytest.mark.parametrize("keys", [8, 2**16], ids=["bins", "every score"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_no_chunking_shows(monkeypatch, predictions, labels, keys, weights):
    monkeypatch.setattr(module, "MOST_KEYS", keys)
    monkeypatch.setattr(module, "LEAST_KEYS", 1)
    asked = {"auc": True, "weights": weights}
    whole = xent.evaluate(predictions, labels, **asked)
    lazy = da.from_array(predictions, chunks=(61, -1))

    assert whole.ranking.classes[1].auc_bound > 0 if keys == 8 else whole.ranking.classes[1].auc_bound == 0
    assert xent.evaluate(predictions, labels, **asked, chunk_bytes=999) == whole
    assert xent.evaluate(lazy, labels, **asked, scheduler="sync") == whole
    if weights is not None:
        return
    blocks = ((predictions[i : i + 50], labels[i : i + 50]) for i in range(0, ROWS, 50))
    assert xent.evaluate(blocks, auc=True).ranking == whole.ranking


@given(
    st.lists(
        st.tuples(st.floats(allow_nan=False) | st.sampled_from([-0.0, 0.0, 1.5]), st.booleans()),
        min_size=1,
        max_size=40,
    ),
    st.lists(st.integers(0, 40), max_size=4),
    st.integers(2, 50),
    st.randoms(),
)
def test_no_order_of_merges_shows(rows, cuts, limit, random):
    scores, labels = (np.asarray(column) for column in zip(*rows, strict=True))
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [counts_of(scores[a:b], labels[a:b].astype(int), limit) for a, b in pairwise(edges)]
    random.shuffle(parts)
    merged, whole = reduce(lambda a, b: a.merge(b), parts), counts_of(scores, labels.astype(int), limit)

    assert merged == whole and len(whole.keys) <= limit
    if len(np.unique(scores)) <= limit:
        assert whole.shift == 0 and len(whole.keys) == len(np.unique(scores))
    else:
        shorter = keys_of(np.unique(scores)) >> (whole.shift - 1)
        assert len(np.unique(shorter)) > limit  # no bit is left out without need


@given(st.lists(st.floats(allow_nan=False), min_size=2, max_size=20))
def test_keys_are_in_the_order_of_the_scores(scores):
    scores = np.asarray(scores)
    keys = keys_of(scores)

    assert (
        np.sign(np.subtract.outer(*[scipy.stats.rankdata(keys)] * 2))
        == np.sign(np.subtract.outer(*[scipy.stats.rankdata(scores)] * 2))
    ).all()


def test_the_fewest_bits_are_left_out():
    keys = np.asarray([0, 1, 2, 3, 8, 9, 16])

    assert [least_shift(keys, limit) for limit in (7, 6, 4, 3, 2, 1)] == [0, 1, 1, 2, 4, 5]
    assert least_shift(np.asarray([-(2**63), 2**63 - 1]), 2) == 0


@pytest.mark.parametrize("limit", [3, 10, 60, 300])
@pytest.mark.parametrize("seed", range(5))
def test_the_bounds_hold(limit, seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random(2000) < 0.1 + 0.2 * seed).astype(int)
    scores = (rng.normal(size=2000) + labels) * 10.0 ** rng.integers(-3, 3)
    exact, binned = (ranking_scores(counts_of(scores, labels, most)) for most in (2**16, limit))

    assert binned.auc_bound > 0 == exact.auc_bound
    for name in ("auc", "average_precision", "ks"):
        assert abs(getattr(exact, name) - getattr(binned, name)) <= getattr(binned, f"{name}_bound") * (1 + 1e-12)


@pytest.mark.parametrize("limit", [3, 10, 60])
def test_the_bounds_hold_with_weights(limit):
    rng = np.random.default_rng(limit)
    labels, units = rng.random(500) < 0.3, units_of(rng.random(500) * 10.0 ** rng.integers(-5, 5, 500))
    keys = keys_of(rng.normal(size=500) + labels)
    both = np.where(labels, units, 0), np.where(labels, 0, units)
    exact, binned = (ranking_scores(counted_keys(0, most, 0, keys, *both)) for most in (2**16, limit))

    for name in ("auc", "average_precision", "ks"):
        assert abs(getattr(exact, name) - getattr(binned, name)) <= getattr(binned, f"{name}_bound") * (1 + 1e-12)


@pytest.mark.parametrize("first", ["positives", "negatives"])
def test_the_bounds_are_reached_by_the_worst_orders(first):
    labels = np.repeat([1, 0] if first == "positives" else [0, 1], 20)
    scores = 1.0 + np.arange(40)[::-1] * 2.0**-50
    exact, binned = (ranking_scores(counts_of(scores, labels, most)) for most in (2**16, 1))

    assert abs(exact.auc - binned.auc) == binned.auc_bound == 0.5
    assert abs(exact.ks - binned.ks) == binned.ks_bound == 1
    assert abs(exact.average_precision - binned.average_precision) <= binned.average_precision_bound


def test_a_bin_of_the_class_alone_has_an_unknown_precision():
    scores = np.append(1.0 + np.arange(20) * 2.0**-50, 4.0)
    labels = np.append(np.ones(20, int), 0)
    exact, binned = (ranking_scores(counts_of(scores, labels, most)) for most in (2**16, 2))

    assert exact.auc == binned.auc and binned.auc_bound == 0
    assert 0 < binned.average_precision - exact.average_precision <= binned.average_precision_bound


# -------------------- what is shown, and what is refused


def test_every_output_has_the_ranking(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    np.save(tmp_path / "x.npy", PAIRS)
    np.save(tmp_path / "y.npy", TWO)
    arguments = ["evaluate", str(tmp_path / "x.npy"), str(tmp_path / "y.npy"), "--auc", "-q"]
    table = CliRunner().invoke(main, [*arguments, "--tables", str(tmp_path / "tables")]).stdout
    document = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)["ranking"]
    expected = ranking().classes[1]

    assert f"{expected.auc:.4f}" in table and "Every score was kept: the ranking is exact." in table
    assert f"hold {expected.gains[0].captured * 100:.1f} % of class 1" in table
    assert document["classes"]["1"]["auc"] == document["macro_auc"] == expected.auc
    assert document["classes"]["1"]["gains"][2]["lift"] == expected.gains[2].lift
    classes, gains, metrics = (
        pyarrow.parquet.read_table(tmp_path / "tables" / f"{name}.parquet").to_pydict()
        for name in ("ranking", "gains", "metrics")
    )
    assert classes["average_precision"] == [expected.average_precision]
    assert gains["captured"] == [gain.captured for gain in expected.gains]
    assert dict(zip(metrics["metric"], metrics["value"], strict=True))["ROC AUC"] == expected.auc


def test_an_error_of_bins_is_told(monkeypatch):
    monkeypatch.setattr(module, "MOST_KEYS", 9)
    found = xent.evaluate(PAIRS, TWO, auc=True, class_names=["no", "yes"])

    assert f"Scores share bins: ROC AUC is off by at most {found.ranking.classes['yes'].auc_bound:.1g}" in str(found)


def test_the_page_has_the_ranking():
    pytest.importorskip("matplotlib")
    page = xent.evaluate(LOGITS, LABELS, auc=True)._repr_html_()

    assert "The ranking of all 5 classes" in page and "Gains: all 50 shares" in page
    assert "Each class against the rest: ROC AUC" in page


def test_scores_that_no_memory_holds_are_refused_before_the_work(monkeypatch):
    monkeypatch.setattr("xent.evaluation.engine.memory.machine_bytes", lambda: 10**8)
    predictions, labels = np.broadcast_to(np.float32(0), (2, 50_000)), np.zeros(2, int)
    with pytest.raises(ValueError, match=r"`auc` must be left out .* of 50,000 classes, 0\.307 GB\. Leave out auc="):
        plan(predictions, labels, Options(auc=True))

    assert plan(predictions, labels, Options()).tasks
