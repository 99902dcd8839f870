"""Errors of clusters: the sums in place of clusters, the order of rows, and what takes the place of an order."""

import json
import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

import xent
from xent.evaluation.engine.checkpoint import from_plain, has_type, to_plain
from xent.evaluation.statistics import cluster_sums as module
from xent.evaluation.statistics.cluster_sums import Clusters, ClusterSums, clusters_of, sums_of
from xent.evaluation.statistics.exact_sums import UNIT_BITS
from xent.evaluation.statistics.key_spans import KeyAgain, KeySpans, spans_of

ROWS, GROUPS = 507, 123
RNG = np.random.default_rng(4)
LOGITS = RNG.standard_normal((ROWS, 3)).astype(np.float32)
LABELS, SLICES = RNG.integers(0, 3, ROWS), RNG.integers(0, 2, ROWS)
WEIGHTS = RNG.integers(0, 4, ROWS) * 0.7
DOCUMENTS = np.sort(RNG.integers(0, GROUPS, ROWS))
ORDERS = {
    "numbered": DOCUMENTS,
    "with gaps": DOCUMENTS * 1000 - 7,
    "text": np.char.add("document ", DOCUMENTS.astype(str)),
    "shuffled names": RNG.permutation(GROUPS)[DOCUMENTS],
    "large": DOCUMENTS.astype(np.uint64) + np.uint64(2**63 - 50),
}
APART = {"in turn": np.arange(ROWS) % GROUPS, "at random": RNG.integers(0, GROUPS, ROWS)}


def evaluated(keys, **options):
    return xent.evaluate(LOGITS, LABELS, clusters=keys, slices=SLICES, top_k=2, **options)


@pytest.fixture
def few(monkeypatch):
    """States that keep a few clusters one by one, and chunks of rows that are grouped a few at a time."""
    monkeypatch.setattr(module, "KEPT", 9)
    monkeypatch.setattr(module, "BLOCK_ROWS", 50)


def test_the_error_is_that_of_fractions_over_whole_clusters():
    weights = WEIGHTS.tolist()
    losses = xent.sparse_cross_entropy(LOGITS, LABELS).astype(np.float64).tolist()
    found = evaluated(DOCUMENTS, weights=WEIGHTS)

    products = [Fraction(weight * loss) for weight, loss in zip(weights, losses, strict=True)]
    whole, total = sum(map(Fraction, weights)), sum(products)
    names = sorted(set(DOCUMENTS[WEIGHTS > 0].tolist()))
    scatter = Fraction(0)
    for name in names:
        mine = np.flatnonzero(name == DOCUMENTS).tolist()
        own = sum(products[i] for i in mine) - sum(Fraction(weights[i]) for i in mine) * total / whole
        scatter += own**2
    expected = math.sqrt(Fraction(len(names), len(names) - 1) * scatter / whole**2)
    assert found.standard_error == pytest.approx(expected, rel=1e-15) and found.clusters == len(names)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("order", [*ORDERS, *APART])
def test_clusters_that_are_added_up_leave_the_bits_of_clusters_kept_one_by_one(monkeypatch, order, weights):
    keys = {**ORDERS, **APART}[order]
    kept = evaluated(keys, weights=weights)
    monkeypatch.setattr(module, "KEPT", 9)
    monkeypatch.setattr(module, "BLOCK_ROWS", 50)

    for chunk_bytes in (300, 10**6):
        assert evaluated(keys, weights=weights, chunk_bytes=chunk_bytes) == kept


@pytest.mark.parametrize("order", ORDERS)
def test_a_state_of_ordered_clusters_is_small_and_travels_as_json(few, order):
    keys = ORDERS[order]
    state = clusters_of(keys, SLICES, np.ones(ROWS, bool), {"loss": LOGITS[:, 0]}, None, 0)

    assert len(state.totals) <= 11 and state.whole().complete.clusters == len(set(keys.tolist()))
    back = from_plain(json.loads(json.dumps(to_plain(state))))
    assert back == state and has_type(back, Clusters)
    if order == "numbered":
        assert sum(map(len, state.complete_keys.arrays)) <= 2 + GROUPS - len(set(keys.tolist()))


def test_states_merge_in_any_order_of_their_rows(few):
    cuts = [0, 3, 90, 90, 91, 300, ROWS]
    columns = {"loss": LOGITS[:, 0], "accuracy": LOGITS[:, 1] > 0}
    counted, keys = np.arange(ROWS) % 7 > 0, ORDERS["text"]

    def of(start, stop):
        rows = slice(start, stop)
        own = {name: values[rows] for name, values in columns.items()}
        return clusters_of(keys[rows], SLICES[rows], counted[rows], own, None, start)

    whole = of(0, ROWS).whole()
    for seed in range(8):
        states = [of(*rows) for rows in pairwise(cuts)]
        random = np.random.default_rng(seed)
        while len(states) > 1:
            a, b = (states.pop(random.integers(len(states))) for _ in range(2))
            states.append(a.merge(b))
        (found,) = states
        assert found.runs == (module.Run(0, ROWS, (keys[counted][0].item(), keys[counted][-1].item())),)
        assert found.whole().complete == whole.complete
        assert found.whole().complete_in_slices == whole.complete_in_slices


def test_clusters_apart_that_do_not_fit_are_refused_with_what_to_do(few, monkeypatch):
    monkeypatch.setattr("xent.evaluation.engine.memory.machine_bytes", lambda: 2 * 100 * 3008)
    expected = r"`clusters` must have the rows of each beside each other, or be at most 100, .* Sort the rows"
    with pytest.raises(ValueError, match=expected):
        xent.evaluate(LOGITS, LABELS, clusters=APART["in turn"], chunk_bytes=300)

    order = np.argsort(APART["in turn"], kind="stable")
    rows = LOGITS[order], LABELS[order]
    found = xent.evaluate(*rows, clusters=APART["in turn"][order], chunk_bytes=300)
    assert found.clusters == GROUPS
    monkeypatch.undo()
    assert found.standard_error == xent.evaluate(LOGITS, LABELS, clusters=APART["in turn"]).standard_error


def test_a_comparison_of_clusters_that_lie_apart_is_made_anew(few, monkeypatch):
    found = xent.compare(LOGITS, LOGITS / 2, LABELS, clusters=APART["at random"], chunk_bytes=300)
    monkeypatch.undo()

    assert found == xent.compare(LOGITS, LOGITS / 2, LABELS, clusters=APART["at random"])


def parts_of(folder, keys, cuts):
    for name, array in {"x": LOGITS, "y": LABELS, "c": keys, "s": SLICES}.items():
        np.save(folder / f"{name}.npy", array)
    whole = {"clusters": folder / "c.npy", "slices": folder / "s.npy", "overwrite": True, "chunk_bytes": 200}
    paths = [folder / f"{start}.json" for start in cuts[:-1]]
    for rows, path in zip(pairwise(cuts), paths, strict=True):
        xent.evaluate(folder / "x.npy", folder / "y.npy", rows=rows, state_out=path, **whole)
    return paths, lambda: xent.evaluate(folder / "x.npy", folder / "y.npy", **whole)


def test_parts_that_cut_clusters_become_the_bits_of_one_run(few, tmp_path):
    keys = ORDERS["shuffled names"]
    paths, whole = parts_of(tmp_path, keys, [0, 100, 101, 103, 350, ROWS])

    assert keys[99] == keys[100] or keys[100] == keys[101] or keys[102] == keys[103]
    assert xent.merge_parts(paths[::-1]) == whole()


def test_parts_with_a_complete_cluster_of_another_are_refused_and_one_run_is_right(few, tmp_path):
    keys = np.arange(ROWS) % GROUPS
    paths, whole = parts_of(tmp_path, keys, [0, 100, 250, ROWS])

    expected = r"`parts` must have the rows of each cluster .*Evaluate the set in one run, or sort it by cluster"
    with pytest.raises(ValueError, match=expected):
        xent.merge_parts(paths)
    assert whole().clusters == GROUPS


def test_sums_of_clusters_are_those_of_integers():
    totals = [(3 << UNIT_BITS, -(5 << 900), 0), (1 << UNIT_BITS, 7 << 901, 0), (0, 1 << 40, 0)]
    found = sums_of(totals)

    assert found.totals == tuple(map(sum, zip(*totals, strict=True)))
    assert found.squares == tuple(sum(each**2 for each in column) for column in zip(*totals, strict=True))
    assert found.products == tuple(sum(row[0] * row[i] for row in totals) for i in range(3))
    assert found.merge(ClusterSums()) == ClusterSums().merge(found) == found
    assert sums_of(totals[:1]).merge(sums_of(totals[1:])) == found


def test_spans_have_each_key_once_whatever_the_order_of_additions():
    numbers = np.random.default_rng(1).permutation(2000) - 1000
    spans = KeySpans()
    for start in range(0, 2000, 7):
        more = KeySpans((spans_of(numbers[start : start + 7].tolist()),))
        spans = spans.merge(more) if start % 2 else more.merge(spans)
        lengths = [len(array) for array in spans.arrays]
        assert all(longer > 2 * shorter for longer, shorter in pairwise(lengths))

    assert [array.tolist() for array in spans.arrays] == [[[-1000, 999]]]
    assert spans == KeySpans((np.array([[-1000, -3], [-2, 999]]),))
    for key in (-1000, 5, 999):
        with pytest.raises(KeyAgain):
            spans.check_new([key, 4000])
    spans.check_new([-1001, 1000, "5"])


@pytest.mark.parametrize("keys", [["a", "ü", "\udcff"], [b"a", b"b"], [2**64 - 1, 2**63, 0], [-(2**63), 2**63 - 1]])
def test_keys_of_every_sort_are_found_again(keys):
    spans = KeySpans((spans_of(keys[:-1]),))

    spans.check_new(keys[-1:])
    with pytest.raises(KeyAgain):
        spans.check_new(keys[:1])
    with pytest.raises(KeyAgain):
        spans.merge(KeySpans((spans_of(keys),)))
