"""xent.compat.sklearn and xent.compat.dask_ml without the peers beside them: every library, laziness, and errors."""

import math

import numpy as np
import pytest
from libraries import Library

from xent.compat import dask_ml
from xent.compat import sklearn as compat

SCORES = ("brier_score_loss", "d2_log_loss_score", "log_loss")

P = np.asarray([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.0, 0.5, 0.5], [0.25, 0.25, 0.5], [1.0, 0.0, 0.0]])
Y = np.asarray([0, 1, 2, 1, 0])
W = np.asarray([1.0, 2.0, 0.5, 0.0, 4.0])
ROWS = -np.log([0.5, 0.75, 0.5, 0.25, 1 - np.finfo(float).eps])
SQUARES = np.sum((np.eye(3)[Y] - P) ** 2, axis=1)
FREQUENCIES = np.asarray([5.0, 2.0, 0.5]) / 7.5  # of the labels, weighed
DASK = ("dask", "dask-split")


def score(lib: Library, call, *arrays: np.ndarray) -> float:
    """The float that comes back, at once or when it is computed."""
    result = lib.apply(call, *arrays)
    assert isinstance(result, lib.array_type if lib.lazy else float)
    return float(lib.numpy(result) if lib.lazy else result)


@pytest.mark.variants("numpy", "torch", "jax", "cupy", *DASK)
def test_log_loss_is_over_all_rows_on_every_library(lib: Library) -> None:
    result = score(lib, lambda p, y, w: compat.log_loss(y, p, sample_weight=w), P, Y, W)

    assert result == pytest.approx(np.average(ROWS, weights=W), rel=1e-13)


@pytest.mark.variants("numpy", "torch", "jax", "cupy", *DASK)
def test_the_brier_score_is_too(lib: Library) -> None:
    result = score(lib, lambda p, y, w: compat.brier_score_loss(y, p, sample_weight=w), P, Y, W)

    assert result == pytest.approx(np.average(SQUARES, weights=W), rel=1e-13)


@pytest.mark.variants("numpy", "torch", "jax", "cupy", *DASK)
def test_the_share_that_is_explained_is_too(lib: Library) -> None:
    result = score(lib, lambda p, y, w: compat.d2_log_loss_score(y, p, sample_weight=w), P, Y, W)
    expected = 1 - np.sum(ROWS * W) / np.sum(-np.log(FREQUENCIES[Y]) * W)

    assert result == pytest.approx(expected, rel=1e-13)


def test_an_array_of_the_standard_is_scored() -> None:
    xp = pytest.importorskip("array_api_strict")

    assert compat.log_loss(xp.asarray(Y), xp.asarray(P)) == pytest.approx(ROWS.mean(), rel=1e-13)


@pytest.mark.variants(*DASK)
@pytest.mark.parametrize("labels", [Y, np.asarray(["no", "perhaps", "yes"])[Y], Y * 1.5e9 - 3e9], ids=str)
def test_lazy_labels_of_any_type_are_found_when_they_are_needed(lib: Library, labels: np.ndarray) -> None:
    result = lib.call(lambda p, y: compat.log_loss(y, p), P, labels)

    assert result.shape == ()
    assert float(result) == pytest.approx(ROWS.mean(), rel=1e-13)


@pytest.mark.variants(*DASK)
def test_what_is_concrete_may_stand_beside_what_is_lazy(lib: Library) -> None:
    lazy_p = lib.call(lambda p: compat.log_loss(Y.tolist(), p, sample_weight=W), P)
    lazy_y = lib.call(lambda y: compat.log_loss(y, P, sample_weight=W.tolist()), Y)

    assert float(lazy_p) == float(lazy_y) == pytest.approx(np.average(ROWS, weights=W), rel=1e-13)


@pytest.mark.variants(*DASK)
def test_one_column_is_scored_lazily(lib: Library) -> None:
    answers = np.asarray(["a", "b", "b", "a", "b"])
    result = lib.call(lambda p, y: compat.brier_score_loss(y, p, pos_label="a"), P[:, 0], answers)

    assert float(result) == pytest.approx(np.mean((P[:, 0] - (answers == "a")) ** 2), rel=1e-13)


@pytest.mark.variants(*DASK)
def test_marks_are_scored_lazily(lib: Library) -> None:
    result = lib.call(lambda p, y: compat.log_loss(y, p), P, np.eye(3, dtype=int)[Y])

    assert float(result) == pytest.approx(ROWS.mean(), rel=1e-13)


@pytest.mark.variants("dask")
@pytest.mark.parametrize("weighed", [False, True], ids=["plain", "weighed"])
@pytest.mark.parametrize("name", SCORES)
def test_a_number_of_rows_may_be_unknown(lib: Library, name: str, weighed: bool) -> None:
    def kept(p, y, w):
        return getattr(compat, name)(y[w > 0], p[w > 0], **({"sample_weight": w[w > 0]} if weighed else {}))

    assert float(lib.call(kept, P, Y, W)) == pytest.approx(kept(P, Y, W), rel=1e-13)


@pytest.mark.variants("numpy", "dask")
@pytest.mark.parametrize("name", SCORES)
def test_a_data_array_of_xarray_is_its_array(lib: Library, name: str) -> None:
    xarray = pytest.importorskip("xarray")

    def call(p, y, w):
        return getattr(compat, name)(*map(xarray.DataArray, (y, p)), sample_weight=xarray.DataArray(w))

    assert score(lib, call, P, Y, W) == pytest.approx(getattr(compat, name)(Y, P, sample_weight=W), rel=1e-13)


@pytest.mark.variants("dask")
def test_lazy_labels_of_all_classes_are_refused(lib: Library) -> None:
    with pytest.raises(ValueError, match="must be known at the call"):
        lib.apply(lambda p, y, every: compat.log_loss(y, p, labels=every), P, Y, np.arange(3))


WRONG = {
    "probabilities above 1": (ValueError, "greater than 1: 1.5", lambda p, y: compat.log_loss(y, p + 0.5)),
    "probabilities of NaN": (ValueError, "contains NaN", lambda p, y: compat.log_loss(y, p * math.nan)),
    "one label": (ValueError, "only one label", lambda p, y: compat.log_loss(y * 0, p)),
    "two labels for three columns": (ValueError, "2 vs 3", lambda p, y: compat.d2_log_loss_score(y % 2, p)),
    "a label that is not named": (ValueError, r"values \{2", lambda p, y: compat.log_loss(y, p, labels=[0, 1, 3])),
    "labels that are fractions": (ValueError, "Unknown label type", lambda p, y: compat.log_loss(y * 0.3, p)),
    "marks of numbers": (ValueError, "Multioutput", lambda p, y: compat.log_loss((p * 8).astype(int), p)),
    "three labels for one column": (ValueError, "should be binary", lambda p, y: compat.brier_score_loss(y, p[:, 0])),
}


@pytest.mark.variants("numpy", *DASK)
@pytest.mark.parametrize(("error", "words", "call"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_an_error_of_the_task_where_it_is_lazy(lib: Library, error, words: str, call) -> None:
    with lib.strictly():
        arrays, _ = lib.arguments((P, Y), {})
    with pytest.raises(error, match=words):
        lib.numpy(call(*arrays))


@pytest.mark.variants("numpy", *DASK)
def test_rows_that_do_not_sum_to_1_are_warned_of(lib: Library) -> None:
    arrays, _ = lib.arguments((P * 0.5, Y), {})
    with pytest.warns(UserWarning, match="do not sum to one"):
        lib.numpy(compat.log_loss(arrays[1], arrays[0]))


ERRORS = {
    "no array": (TypeError, "must be an array-like", lambda: compat.log_loss(Y, "abc")),
    "lengths": (ValueError, r"numbers of samples: \[5, 4\]", lambda: compat.log_loss(Y[:4], P)),
    "three axes": (ValueError, "dim 3", lambda: compat.log_loss(Y, P[None])),
    "no rows": (ValueError, "minimum of 1", lambda: compat.log_loss(Y[:0], P[:0])),
    "complex numbers": (ValueError, "Complex", lambda: compat.log_loss(Y, P + 0j)),
    "weights of 0": (ValueError, "non-zero", lambda: compat.log_loss(Y, P, sample_weight=W * 0)),
    "weights that sum to 0": (
        ZeroDivisionError,
        "sum to zero",
        lambda: compat.log_loss(Y, P, sample_weight=[1, -1, 0, 0, 0]),
    ),
    "weights that sum to 0, of shares": (
        ZeroDivisionError,
        "sum to zero",
        lambda: compat.d2_log_loss_score(Y, P, sample_weight=[1, -1, 0, 0, 0]),
    ),
    "a probability without an axis": (TypeError, "at least 1 dimension", lambda: compat.log_loss(Y, np.asarray(0.5))),
    "eps of a string": (TypeError, "'eps'", lambda: dask_ml.log_loss(Y, P, eps="auto")),
    "weights of two axes": (ValueError, "must be 1D", lambda: compat.log_loss(Y, P, sample_weight=W[:, None])),
    "weights of NaN": (
        ValueError,
        "sample_weight contains NaN",
        lambda: compat.log_loss(Y, P, sample_weight=W * math.nan),
    ),
    "normalize": (TypeError, "'normalize'", lambda: compat.log_loss(Y, P, normalize=1)),
    "scale_by_half": (TypeError, "'scale_by_half'", lambda: compat.brier_score_loss(Y, P, scale_by_half="no")),
    "pos_label": (TypeError, "'pos_label'", lambda: compat.brier_score_loss(Y, P[:, 0], pos_label=[1])),
    "no positive string": (ValueError, "pos_label is not", lambda: compat.brier_score_loss(["a"], [0.5])),
    "one of `labels`": (ValueError, "at least two", lambda: compat.log_loss(Y, P, labels=[0])),
    "`labels` twice": (ValueError, "without repetitions", lambda: compat.log_loss(Y, P, labels=[0, 0, 1])),
    "`labels` beside marks": (ValueError, "must be None", lambda: compat.log_loss(np.eye(3)[Y], P, labels=[0, 1, 2])),
    "labels of three axes": (ValueError, "must have shape", lambda: compat.log_loss(Y[:, None, None], P)),
    "labels that do not sort": (ValueError, "Unknown label", lambda: compat.log_loss([None, 1, 2, 1, 1], P)),
}


@pytest.mark.parametrize(("error", "words", "call"), ERRORS.values(), ids=ERRORS)
def test_bad_input_has_its_message(error: type[Exception], words: str, call) -> None:
    with pytest.raises(error, match=words):
        call()


@pytest.mark.variants("numpy", *DASK)
def test_dask_ml_s_function_clips_to_what_it_is_told(lib: Library) -> None:
    result = score(lib, lambda p, y: dask_ml.log_loss(y, p, 0.25, normalize=False), P, Y)

    assert result == pytest.approx(np.sum(-np.log([0.5, 0.75, 0.5, 0.25, 0.75])), rel=1e-13)


def test_dask_ml_s_function_clips_nothing_at_0() -> None:
    assert dask_ml.log_loss([1, 0], np.eye(2), 0.0) == math.inf
    assert dask_ml.log_loss(Y[:4], P[:4], 0) == pytest.approx(ROWS[:4].mean(), rel=1e-13)
