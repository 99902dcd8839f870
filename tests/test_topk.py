"""The k largest log-probabilities with their ids: the dense block that they stand for, and what they may not be."""

from dataclasses import astuple

import cloudpickle
import dask.array as da
import numpy as np
import pytest

import xent
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.evaluations import evaluate
from xent.evaluation.options import Options
from xent.evaluation.sources.messages import ReadError
from xent.evaluation.sources.topk import TopK

ROWS, CLASSES, K = 123, 11, 4


@pytest.fixture
def full():
    """Log-probabilities whose tail is shared equally, as if by the formula."""
    return spread_tail(3 * np.random.default_rng(1).normal(size=(ROWS, CLASSES)), K)


def spread_tail(logits, k):
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    for row, ids in enumerate(np.argsort(-log_p, axis=1)):
        log_p[row, ids[k:]] = np.log1p(-np.exp(log_p[row, ids[:k]]).sum()) - np.log(CLASSES - k)
    return log_p


@pytest.fixture
def labels():
    return np.random.default_rng(2).integers(0, CLASSES, ROWS)


def uniform(ids, log_probabilities, classes):
    return TopK(ids, log_probabilities, classes, tail="uniform")


def top(full, k=K):
    ids = np.argsort(-full, axis=1)[:, :k]
    return ids, np.take_along_axis(full, ids, axis=1)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("chunk_bytes", [1, 1000, 10**6])
def test_a_uniform_tail_is_that_of_the_formula(full, labels, dtype, chunk_bytes):
    ids, values = top(full)
    made = evaluate(
        uniform(ids, values.astype(dtype), CLASSES), labels, kind="log_probabilities", chunk_bytes=chunk_bytes
    )
    loss = -full[np.arange(ROWS), labels]

    assert made.mean_loss == pytest.approx(loss.mean(), rel=1e-13 if dtype is np.float64 else 1e-6)
    assert made == evaluate(uniform(ids, values.astype(dtype), CLASSES), labels, kind="log_probabilities")


def test_two_classes_beside_one_half_have_a_quarter_each():
    made = evaluate(uniform(np.asarray([[1]]), np.log([[0.5]]), 3), np.asarray([2]), kind="log_probabilities")

    assert made.mean_loss == pytest.approx(np.log(4), rel=1e-15)


def test_all_classes_leave_no_tail(full, labels):
    made = evaluate(uniform(*top(full, CLASSES), CLASSES), labels, top_k=(1, 3))

    assert_same_numbers(made, evaluate(full, labels, kind="log_probabilities", top_k=(1, 3)))


def assert_same_numbers(made, expected):
    assert (made.counted, made.nan_rows, made.worst[0].row) == (
        expected.counted,
        expected.nan_rows,
        expected.worst[0].row,
    )
    assert [one.predicted for one in made.worst] == [one.predicted for one in expected.worst]
    for name, metric in expected.metrics.items():
        assert astuple(made.metrics[name]) == pytest.approx(astuple(metric), rel=1e-11), name
    np.testing.assert_allclose(made.reliability, expected.reliability, rtol=1e-11)


@pytest.mark.parametrize("k", [1, K, CLASSES - 1])
def test_the_numbers_are_those_of_the_dense_log_probabilities(k, labels):
    full = spread_tail(3 * np.random.default_rng(5).normal(size=(ROWS, CLASSES)), k)
    made = evaluate(uniform(*top(full, k), CLASSES), labels, top_k=(1, 2, 9))

    assert_same_numbers(made, evaluate(full, labels, kind="log_probabilities", top_k=(1, 2, 9)))


def test_equal_log_probabilities_are_ranked_by_their_class():
    full = np.log(np.full((6, 6), 1 / 6))
    ids = np.asarray([[4, 1]] * 6)
    made = evaluate(uniform(ids, np.take_along_axis(full, ids, axis=1), 6), np.arange(6), top_k=range(1, 7))

    assert made.top_k_accuracy == pytest.approx({k: k / 6 for k in range(1, 7)})
    assert {one.predicted for one in made.worst} == {0}  # no id, and the first of the equal ones


def test_a_tail_above_what_is_stored_is_ranked_above_it():
    made = evaluate(uniform(np.asarray([[0, 2]]), np.log([[0.1, 0.1]]), 4), np.asarray([2]), top_k=(3, 4))

    assert made.top_k_accuracy == {3: 0.0, 4: 1.0}
    assert (made.worst[0].predicted, made.confidence) == (1, pytest.approx(0.4))


def test_a_label_of_which_nothing_is_known_is_an_error_that_names_the_first_row(full, labels):
    ids, values = top(full)
    outside = ~(ids == labels[:, None]).any(axis=1)
    message = rf"must be among the ids of their rows, got {outside.sum()} that are not, .* row {outside.argmax()}\."

    with pytest.raises(xent.LabelError, match=message):
        evaluate(TopK(ids, values, CLASSES, tail="error"), labels, chunk_bytes=700)


def test_a_label_of_which_nothing_is_known_may_be_counted_and_left_out(full, labels):
    ids, values = top(full)
    outside = ~(ids == labels[:, None]).any(axis=1)
    made = evaluate(TopK(ids, values, CLASSES, tail="skip"), labels, top_k=K, chunk_bytes=700)
    rows = np.flatnonzero(~outside)

    assert (made.beyond_rows, made.first_beyond, made.counted) == (outside.sum(), outside.argmax(), len(rows))
    assert made.mean_loss == pytest.approx(-full[rows, labels[rows]].mean(), rel=1e-13)
    assert made.top_k_accuracy[K] == 1 and np.isnan(made.entropy) and np.isnan(made.brier)


def test_an_ignored_row_may_hold_anything(full, labels):
    ids, values = top(full)
    ids[5], labels = -1, np.where(np.arange(ROWS) == 5, -1, labels)

    assert evaluate(uniform(ids, values, CLASSES), labels, ignore_index=-1).counted == ROWS - 1


def test_log_probabilities_are_not_taken_for_probabilities(full, labels):
    with pytest.raises(ValueError, match="must be log-probabilities, of the largest classes, got probabilities"):
        evaluate(uniform(*top(full), CLASSES), labels, kind="probabilities")


def test_a_row_whose_log_probabilities_are_nan_is_nan(full, labels):
    ids, values = top(full)
    values[7, 0 if labels[7] != ids[7, 0] else 1] = np.nan  # beside the label
    made = evaluate(uniform(ids, values, CLASSES), labels)

    assert (made.nan_rows, made.first_nan) == (1, 7) and np.isnan(made.mean_loss)


def test_nothing_left_for_the_tail_is_an_infinite_loss():
    made = evaluate(uniform(np.asarray([[1]]), np.zeros((1, 1)), 3), np.asarray([2]), kind="log_probabilities")

    assert (made.mean_loss, made.first_infinite) == (np.inf, 0)


@pytest.mark.parametrize("stored", ["npy", "npz", "dask"])
def test_ids_and_values_come_from_any_source(tmp_path, full, labels, stored):
    ids, values = top(full)
    np.save(tmp_path / "ids.npy", ids.astype(np.int32))
    np.save(tmp_path / "values.npy", values)
    np.savez(tmp_path / "x.npz", ids=ids, values=values)
    source = {
        "npy": uniform(tmp_path / "ids.npy", tmp_path / "values.npy", CLASSES),
        "npz": uniform(f"{tmp_path}/x.npz#ids", f"{tmp_path}/x.npz#values", CLASSES),
        "dask": uniform(da.from_array(ids, chunks=(7, 2)), da.from_array(values, chunks=(50, 3)), CLASSES),
    }[stored]
    made = evaluate(source, labels, kind="log_probabilities", chunk_bytes=700)

    assert made == evaluate(uniform(ids, values, CLASSES), labels, kind="log_probabilities")


def test_a_graph_holds_no_data_and_a_task_no_more_than_its_chunk(tmp_path, full, labels):
    ids, values = top(full)
    np.save(tmp_path / "ids.npy", ids)
    np.save(tmp_path / "values.npy", values)
    np.save(tmp_path / "y.npy", labels)
    source = uniform(tmp_path / "ids.npy", tmp_path / "values.npy", CLASSES)
    planned = plan(source, tmp_path / "y.npy", Options(chunk_bytes=16 * K))

    np.savez_compressed(tmp_path / "x.npz", values)  # stored as one chunk
    stored_as_one = uniform(tmp_path / "ids.npy", tmp_path / "x.npz", CLASSES)

    assert planned.tasks == ROWS and planned.chunk_bytes == 16 * K
    assert plan(stored_as_one, tmp_path / "y.npy", Options(chunk_bytes=16 * K)).tasks == 1
    assert len(cloudpickle.dumps(planned.work().graph()[0])) <= 10_000 + 500 * planned.tasks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": (5, 0, CLASSES)}, "row 5 of the ids has an id outside its classes"),
        ({"ids": (100, 2, -1)}, "row 100 of the ids has an id outside its classes"),
        ({"values": (77, 0, 3.0)}, "row 77 of the ids has log-probabilities of more than 1 together"),
    ],
)
def test_rows_that_cannot_be_are_named(full, labels, change, message):
    ids, values = (array.copy() for array in top(full))
    for name, (row, column, value) in change.items():
        {"ids": ids, "values": values}[name][row, column] = value

    with pytest.raises(ReadError, match=message):
        evaluate(uniform(ids, values, CLASSES), labels, chunk_bytes=700)


def test_a_row_may_have_fewer_than_k(full, labels):
    ids, values = top(full)
    shorter, rest = ids.copy(), values.copy()
    shorter[5, 1:], rest[5, 1:] = -1, -np.inf
    made = evaluate(uniform(shorter, rest, CLASSES), labels, top_k=(1, 3))
    dense = full.copy()
    left = np.log1p(-np.exp(values[5, 0])) - np.log(CLASSES - 1)
    dense[5] = np.where(np.arange(CLASSES) == ids[5, 0], values[5, 0], left)

    assert_same_numbers(made, evaluate(dense, labels, kind="log_probabilities", top_k=(1, 3)))
    one = TopK(np.array([[3, 0, -1]]), np.array([[0.0, -np.inf, -np.inf]]), 4)
    assert evaluate(one, np.array([0]), top_k=(1, 2)).top_k_accuracy == {1: 0.0, 2: 1.0}


def test_an_id_twice_in_a_row_is_named(full, labels):
    ids, values = top(full)
    ids[50, 3] = ids[50, 1]

    with pytest.raises(ReadError, match="row 50 of the ids has an id twice"):
        evaluate(uniform(ids, values, CLASSES), labels, chunk_bytes=700)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tail": "none"}, ValueError, r"`predictions` must have the tail 'uniform', 'error' or 'skip', got 'none'"),
        ({"ids": np.zeros((ROWS, 0), int), "log_probabilities": np.zeros((ROWS, 0))}, ValueError, r"at least one id"),
        ({"classes": 3}, ValueError, r"must have at least 4 classes, as many as ids in a row, got 3"),
        ({"ids": np.zeros((ROWS, K))}, TypeError, r"must have ids that are integers, got float64\[123, 4\]"),
        ({"ids": np.zeros((ROWS, 3), int)}, ValueError, r"must have ids and log-probabilities of one shape"),
        ({"log_probabilities": np.zeros((ROWS, K), int)}, TypeError, r"must have real log-probabilities, got int64"),
        ({"log_probabilities": "nope.npy"}, FileNotFoundError, r"`predictions` must be the path of"),
    ],
)
def test_what_does_not_fit_is_refused(full, labels, change, error, message):
    ids, values = top(full)

    with pytest.raises(error, match=message):
        evaluate(TopK(**{"ids": ids, "log_probabilities": values, "classes": CLASSES, **change}), labels)
