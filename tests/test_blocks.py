"""A stream of blocks has the numbers of the same rows in one piece."""

from dataclasses import replace

import numpy as np
import pytest

import xent
from xent.evaluation.evaluations import evaluate
from xent.evaluation.sources.messages import ReadError
from xent.evaluation.statistics import cluster_sums

ROWS, CLASSES = 507, 7


@pytest.fixture(scope="module")
def logits():
    return np.random.default_rng(2).normal(size=(ROWS, CLASSES)).astype(np.float32)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(3).integers(0, CLASSES, ROWS)


def blocks(logits, labels, rows, of=lambda array: array):
    for start in range(0, ROWS, rows):
        yield of(logits[start : start + rows]), of(labels[start : start + rows])


@pytest.mark.parametrize("rows", [1, 50, ROWS])
def test_a_stream_leaves_the_same_bits_but_for_positions_which_it_does_not_know(logits, labels, rows):
    asked = {"by_class": True, "top_k": (2, 3), "bins": 7, "classwise": True, "ignore_index": 4, "predicted_bytes": 999}
    made, told = evaluate(blocks(logits, labels, rows), **asked, progress=(told := []).append), told

    assert made == replace(evaluate(logits, labels, **asked), positions=())
    assert sum(told) == ROWS and len(told) == -(-ROWS // rows)


@pytest.mark.parametrize("library", ["torch", "jax.numpy"])
def test_the_blocks_may_be_of_any_library(logits, labels, library):
    made = pytest.importorskip(library, reason=f"{library} is not installed")

    found = evaluate(blocks(logits, labels, 100, made.asarray))

    assert found == replace(evaluate(logits, labels), positions=())


def test_the_blocks_may_be_lazy(logits, labels):
    import dask.array as da

    lazy = blocks(logits, labels, 100, lambda array: da.from_array(array, chunks=40))

    assert evaluate(lazy).mean_loss == pytest.approx(evaluate(logits, labels).mean_loss, rel=1e-6)


def test_a_block_is_let_go_before_the_next_is_made(logits, labels):
    import weakref

    living = []

    def made():
        for start in range(0, ROWS, 100):
            assert not any(one() is not None for one in living)
            block = logits[start : start + 100].copy()
            living.append(weakref.ref(block))
            pair = block, labels[start : start + 100]
            del block
            yield pair
            del pair

    assert evaluate(made()).rows == ROWS


def test_an_empty_stream_has_no_mean():
    assert np.isnan(evaluate(iter(())).mean_loss) and evaluate([]).rows == 0


def test_a_bad_label_stops_the_stream_at_its_block(logits, labels):
    marked = labels.copy()
    marked[[120, 400]] = CLASSES
    stream = blocks(logits, marked, 100)

    with pytest.raises(xent.LabelError, match=r"got 1 that do not, the first 7 in row 120"):
        evaluate(stream)
    assert next(stream)[0].shape == (100, CLASSES)  # the third block was never asked for
    assert evaluate(blocks(logits, marked, 100), on_bad_label="skip").bad_labels == 2


@pytest.mark.parametrize(
    ("stream", "error", "message"),
    [
        (
            [np.zeros((3, 2))],
            TypeError,
            r"must be an iterable of pairs \(predictions, labels\), .*, got ndarray at row 0",
        ),
        (
            [{"predictions": np.zeros((3, 2)), "label": np.zeros(3, int)}],
            TypeError,
            r"got dict of predictions, label at row 0\. Yield pairs, or mappings of predictions, labels, slices",
        ),
        (
            [
                {"predictions": np.zeros((3, 2)), "labels": np.zeros(3, int), "slices": np.arange(3)},
                (np.zeros((3, 2)), np.zeros(3, int)),
            ],
            ValueError,
            r"must have predictions and labels and slices in every block, got predictions and labels at row 3",
        ),
        (
            [{"predictions": np.zeros((3, 2)), "labels": np.zeros(3, int), "weights": np.array([1.0, -1, 2])}],
            ReadError,
            r"`weights` must lie in .*, got 1 rows of another, the first is row 1",
        ),
        ([(np.zeros((3, 2)), np.zeros(4, int))], ValueError, r"`labels` must have shape \(3,\)"),
        (
            [(np.zeros((3, 2)), np.zeros(3, int)), (np.zeros((3, 5)), np.zeros(3, int))],
            ValueError,
            r"as many classes in every block, 2, got float64\[3, 5\] at row 3",
        ),
        (np.zeros((3, 2)), TypeError, r"`labels` must be given, got None"),
        ("x.npy", TypeError, r"`labels` must be given, got None"),
    ],
)
def test_a_stream_that_cannot_be_is_refused(stream, error, message):
    with pytest.raises(error, match=message):
        evaluate(stream)


@pytest.mark.parametrize(
    "asked", [{"rows": (0, 1)}, {"state": "x"}, {"per_example": "x.npy"}, {"fit_temperature": True}]
)
def test_what_a_stream_cannot_tell_is_refused_before_it_is_begun(asked):
    with pytest.raises(ValueError, match=rf"must be stored, or in hand, where `{next(iter(asked))}` is given"):
        evaluate(iter(()), **asked)


@pytest.fixture(scope="module")
def keys():
    rng = np.random.default_rng(5)
    return {
        "slices": np.array(["de", "en", "français"])[rng.integers(0, 3, ROWS)],
        "clusters": np.arange(ROWS) // 6,
        "weights": rng.integers(0, 4, ROWS) * 0.3,
        "mask": rng.random(ROWS) < 0.8,
    }


def mappings(rows, **arrays):
    for start in range(0, ROWS, rows):
        yield {name: array[start : start + rows] for name, array in arrays.items()}


@pytest.mark.parametrize("rows", [40, ROWS])
@pytest.mark.parametrize("names", [("slices", "clusters"), ("weights",), ("slices", "clusters", "weights", "mask")])
def test_a_stream_of_blocks_with_keys_leaves_the_same_bits(monkeypatch, logits, labels, keys, rows, names):
    own = {name: keys[name] for name in names}
    whole = evaluate(logits, labels, top_k=2, **own)
    monkeypatch.setattr(cluster_sums, "KEPT", 9)
    made = evaluate(mappings(rows, predictions=logits, labels=labels, **own), top_k=2)

    assert made == replace(whole, positions=()) and [*made.run.inputs] == ["predictions", "labels", *names]
    assert made.run.inputs[names[0]]["shape"] == [ROWS]


def test_blocks_of_sequences_have_keys_of_sequences(logits, labels):
    batch = {"predictions": logits[:504].reshape(63, 8, 7), "labels": labels[:504].reshape(63, 8)}
    documents = np.arange(63) // 2
    made = evaluate(mappings(10, **batch, clusters=documents))

    assert made == replace(evaluate(logits[:504], labels[:504], clusters=np.repeat(documents, 8)), positions=())


def test_a_stream_of_clusters_that_lie_apart_is_refused_and_in_their_order_it_is_right(monkeypatch, logits, labels):
    documents = np.arange(ROWS) % 50
    whole = evaluate(logits, labels, clusters=documents)
    monkeypatch.setattr(cluster_sums, "KEPT", 9)
    arrays = {"predictions": logits, "labels": labels, "clusters": documents}
    message = r"`clusters` must have the rows of each beside each other in a stream, .*block at row 40 .*in the order"
    with pytest.raises(ValueError, match=message):
        evaluate(mappings(20, **{name: np.concatenate([array, array]) for name, array in arrays.items()}))

    order = np.argsort(documents, kind="stable")
    found = evaluate(mappings(20, **{name: array[order] for name, array in arrays.items()}))
    assert (found.standard_error, found.clusters) == (whole.standard_error, 50)


@pytest.mark.parametrize("name", ["clusters", "slices", "weights", "mask"])
def test_a_key_beside_a_stream_is_refused_with_where_it_belongs(logits, labels, name):
    with pytest.raises(ValueError, match=rf'`{name}` must be in the blocks of a stream.*"{name}": …\}} of each'):
        evaluate(blocks(logits, labels, 50), **{name: np.ones(ROWS, int)})
