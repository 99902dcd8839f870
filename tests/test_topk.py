"""The k largest log-probabilities with their ids: the dense block that they stand for, and what they may not be."""

import cloudpickle
import dask.array as da
import numpy as np
import pytest

from xent.evaluation.onepass import evaluate, plan
from xent.evaluation.sources import ReadError, TopK

ROWS, CLASSES, K = 123, 11, 4


@pytest.fixture
def full():
    """Log-probabilities whose tail is shared equally, as if by the formula."""
    logits = 3 * np.random.default_rng(1).normal(size=(ROWS, CLASSES))
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    order = np.argsort(-log_p, axis=1)
    for row, ids in enumerate(order):
        tail = ids[K:]
        log_p[row, tail] = np.log1p(-np.exp(log_p[row, ids[:K]]).sum()) - np.log(CLASSES - K)
    return log_p


@pytest.fixture
def labels():
    return np.random.default_rng(2).integers(0, CLASSES, ROWS)


def top(full, k=K):
    ids = np.argsort(-full, axis=1)[:, :k]
    return ids, np.take_along_axis(full, ids, axis=1)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("chunk_bytes", [1, 1000, 10**6])
def test_a_uniform_tail_is_that_of_the_formula(full, labels, dtype, chunk_bytes):
    ids, values = top(full)
    made = evaluate(TopK(ids, values.astype(dtype), CLASSES), labels, kind="log_probabilities", chunk_bytes=chunk_bytes)
    loss = -full[np.arange(ROWS), labels]

    assert made.mean_loss == pytest.approx(loss.mean(), rel=1e-13 if dtype is np.float64 else 1e-6)
    assert made == evaluate(TopK(ids, values.astype(dtype), CLASSES), labels, kind="log_probabilities")


def test_two_classes_beside_one_half_have_a_quarter_each():
    made = evaluate(TopK(np.asarray([[1]]), np.log([[0.5]]), 3), np.asarray([2]), kind="log_probabilities")

    assert made.mean_loss == pytest.approx(np.log(4), rel=1e-15)


def test_all_classes_leave_no_tail(full, labels):
    made = evaluate(TopK(*top(full, CLASSES), CLASSES), labels, kind="log_probabilities")

    assert made == evaluate(full, labels, kind="log_probabilities")


def test_nothing_left_for_the_tail_is_an_infinite_loss():
    made = evaluate(TopK(np.asarray([[1]]), np.zeros((1, 1)), 3), np.asarray([2]), kind="log_probabilities")

    assert (made.mean_loss, made.first_infinite) == (np.inf, 0)


@pytest.mark.parametrize("stored", ["npy", "npz", "dask"])
def test_ids_and_values_come_from_any_source(tmp_path, full, labels, stored):
    ids, values = top(full)
    np.save(tmp_path / "ids.npy", ids.astype(np.int32))
    np.save(tmp_path / "values.npy", values)
    np.savez(tmp_path / "x.npz", ids=ids, values=values)
    source = {
        "npy": TopK(tmp_path / "ids.npy", tmp_path / "values.npy", CLASSES),
        "npz": TopK(f"{tmp_path}/x.npz#ids", f"{tmp_path}/x.npz#values", CLASSES),
        "dask": TopK(da.from_array(ids, chunks=(7, 2)), da.from_array(values, chunks=(50, 3)), CLASSES),
    }[stored]
    made = evaluate(source, labels, kind="log_probabilities", chunk_bytes=700)

    assert made == evaluate(TopK(ids, values, CLASSES), labels, kind="log_probabilities")


def test_a_graph_holds_no_data_and_a_task_no_more_than_its_chunk(tmp_path, full, labels):
    ids, values = top(full)
    np.save(tmp_path / "ids.npy", ids)
    np.save(tmp_path / "values.npy", values)
    np.save(tmp_path / "y.npy", labels)
    source = TopK(tmp_path / "ids.npy", tmp_path / "values.npy", CLASSES)
    planned = plan(source, tmp_path / "y.npy", chunk_bytes=8 * CLASSES)

    np.savez_compressed(tmp_path / "x.npz", values)  # stored as one chunk
    stored_as_one = TopK(tmp_path / "ids.npy", tmp_path / "x.npz", CLASSES)

    assert planned.tasks == ROWS and planned.chunk_bytes == 8 * CLASSES
    assert plan(stored_as_one, tmp_path / "y.npy", chunk_bytes=8 * CLASSES).tasks == ROWS
    assert len(cloudpickle.dumps(planned.graph)) <= 10_000 + 500 * planned.tasks


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
        evaluate(TopK(ids, values, CLASSES), labels, chunk_bytes=700)


def test_an_id_twice_in_a_row_is_named(full, labels):
    ids, values = top(full)
    ids[50, 3] = ids[50, 1]

    with pytest.raises(ReadError, match="row 50 of the ids has an id twice"):
        evaluate(TopK(ids, values, CLASSES), labels, chunk_bytes=700)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tail": "skip"}, ValueError, r"`predictions` must have the tail 'uniform', got 'skip'"),
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
