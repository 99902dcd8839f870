"""xent.compat.sklearn against scikit-learn itself, and xent.compat.dask_ml against it too: answers, warnings, errors.

scikit-learn adds up N terms of at most log 1/ε each in the dtype of its inputs; the bound is that of tests/peers.py,
with N + 8 units of the largest term.
"""

import inspect
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as peer
from cases import library, unit_roundoff
from golden_cases import named_dtype

from xent.compat import dask_ml
from xent.compat import sklearn as compat

NAMES = ("log_loss", "brier_score_loss", "d2_log_loss_score")
P = np.asarray([[0.3, 0.7], [0.6, 0.4], [0.4, 0.6]])
Y = [0, 1, 1]

# -------------------- the grid


def random_scores(dtype: str, rows: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, labels among which are all, and weights."""
    rng = np.random.default_rng(seed)
    p = rng.random((rows, classes)) + 0.01
    p[0] = np.eye(classes)[0]  # a certain mistake among them: label 1 is first
    p = (p / p.sum(axis=1, keepdims=True)).astype(named_dtype(dtype))
    labels = np.concatenate([np.arange(1, classes), [0], rng.integers(0, classes, rows - classes)])
    return p, labels, rng.random(rows) + 0.5


def bound(p: np.ndarray) -> float:
    """Of the mean: N + 8 units of the largest term."""
    u = unit_roundoff(p.dtype)
    return (len(p) + 8) * u * max(1.0, -np.log(2 * u))


@pytest.mark.parametrize("on", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("weighed", [False, True], ids=["plain", "weighed"])
@pytest.mark.parametrize(("rows", "classes"), [(2, 2), (3, 3), (7, 2), (123, 5)], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_a_score_is_scikit_learn_s(name: str, dtype: str, rows: int, classes: int, weighed: bool, on: str) -> None:
    p, labels, weight = random_scores(dtype, rows, classes, seed=rows)
    options = {"sample_weight": weight} if weighed else {}
    expected = getattr(peer, name)(labels, p, **options)
    own = library(on)
    with own.precision(p.dtype), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Explicitly requested dtype float64", UserWarning)
        result = getattr(compat, name)(labels, own.asarray(p), **options)

    assert isinstance(result, float)
    allowed = bound(p) * (1 + abs(expected)) ** (2 if name.startswith("d2") else 1)
    assert abs(result - expected) <= allowed


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("p", [P, P[:, 1], P[:, 1:], P.tolist(), pd.DataFrame(P), P.astype(object)], ids=type)
def test_probabilities_come_in_many_shapes(p: Any, normalize: bool) -> None:
    expected = peer.log_loss(Y, p, normalize=normalize)

    assert compat.log_loss(Y, p, normalize=normalize) == pytest.approx(expected, rel=1e-14)


LABELS = {
    "ints": Y,
    "strings": ["a", "b", "b"],
    "objects": np.asarray(["a", "b", "b"], object),
    "floats": [0.0, 1.0, 1.0],
    "bools": [False, True, True],
    "negative": [-1, 1, 1],
    "bytes": np.uint8([3, 200, 200]),
    "a series": pd.Series(["x", "y", "y"]),
    "categories": pd.Series(["x", "y", "y"], dtype="category"),
    "marks": [[0, 1], [1, 0], [1, 0]],
    "marks of two and of none": [[1, 1], [1, 0], [0, 0]],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("name", NAMES)
def test_labels_come_in_many_types(name: str, labels: Any) -> None:
    expected = getattr(peer, name)(labels, P)

    assert getattr(compat, name)(labels, P) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_certain_mistake_costs_what_the_dtype_can_tell_from_0(dtype: str) -> None:
    p = np.asarray([[0, 1], [1, 0]], dtype)
    expected = {"float16": 6.931472, "float32": 15.942385, "float64": 36.043653}[dtype]

    assert compat.log_loss([0, 1], p) == pytest.approx(expected, rel=1e-6)
    assert peer.log_loss([0, 1], p) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_an_array_of_another_library_keeps_its_dtype_as_under_dispatch(name: str) -> None:
    p, labels, _ = random_scores("float32", 7, 3, seed=1)
    torch = library("torch")

    assert getattr(compat, name)(labels, torch.asarray(p)) == pytest.approx(getattr(compat, name)(labels, p), rel=1e-6)


# -------------------- warnings and errors, as they are said

SAID: dict[str, Callable[[Any], Any]] = {
    "certain predictions that are right": lambda f: f([0, 1, 1], [[1, 0], [0, 1], [0, 1]]),
    "weights of another length": lambda f: f(Y, P, sample_weight=[1, 2]),
    "weights of 0": lambda f: f(Y, P, sample_weight=[0, 0, 0]),
    "weights that sum to 0": lambda f: f(Y, P, sample_weight=[1, -1, 0.0]),
    "a weight without an axis": lambda f: f(Y, P, sample_weight=np.asarray(2.0)),
    "a probability without an axis": lambda f: f(Y, np.asarray(0.5)),
    "a label without an axis": lambda f: f(np.asarray(1), P),
    "weights of NaN": lambda f: f(Y, P, sample_weight=[1, np.nan, 3]),
    "negative weights": lambda f: f(Y, P, sample_weight=[1, -2, 3]),
    "probabilities above 1": lambda f: f(Y, P + 0.5),
    "probabilities below 0": lambda f: f(Y, P - 0.5),
    "probabilities of NaN": lambda f: f(Y, P * np.nan),
    "no columns": lambda f: f(Y, np.zeros((3, 0))),
    "rows that do not sum to 1": lambda f: f(Y, P * 0.9),
    "rows that nearly do": lambda f: f(Y, P * (1 - 1e-7)),
    "rows that do but for rounding": lambda f: f(Y, P * (1 - 1e-9)),
    "labels of another length": lambda f: f([0, 1], P),
    "labels of NaN": lambda f: f(np.asarray([0, np.nan, 1]), P),
    "one label": lambda f: f([1, 1, 1], P),
    "one label of `labels`": lambda f: f([1, 1, 1], P, labels=[1]),
    "a label that is not there": lambda f: f([1, 1, 1], P, labels=[0, 1]),
    "three labels for two columns": lambda f: f([0, 1, 2], P),
    "three of `labels` for two columns": lambda f: f(Y, P, labels=[0, 1, 2]),
    "labels in another order": lambda f: f(["a", "b", "b"], P, labels=["b", "a"]),
    "a label that `labels` does not name": lambda f: f([0, 1, 5], P, labels=[0, 1]),
    "numbers that `labels` names as strings": lambda f: f(Y, P, labels=["a", "b"]),
    "three marks for two columns": lambda f: f([[0, 1, 0], [1, 0, 0], [1, 0, 0]], P),
    "marks of numbers": lambda f: f([[0, 2], [1, 0], [1, 0]], P),
    "soft labels": lambda f: f([[0.2, 0.8], [1, 0], [0, 1]], P),
}
BINARY: dict[str, Callable[[Any], Any]] = {
    "a positive label": lambda f: f(Y, P[:, 1], pos_label=0),
    "a positive label that is not there": lambda f: f(Y, P[:, 1], pos_label=5),
    "a positive label of another type": lambda f: f(Y, P[:, 1], pos_label="1"),
    "a positive string": lambda f: f(["a", "b", "b"], P[:, 1], pos_label="a"),
    "no positive string": lambda f: f(["a", "b", "b"], P[:, 1]),
    "the greater of two numbers": lambda f: f([3, 7, 7], P[:, 1]),
    "one number": lambda f: f([1, 1, 1], P[:, 1]),
    "the number −1": lambda f: f([-1, -1, -1], P[:, 1]),
    "three numbers": lambda f: f([0, 1, 2], P[:, 1]),
    "not halved": lambda f: f(Y, P, scale_by_half=False),
    "three classes": lambda f: f([0, 1, 2], [[0.2, 0.3, 0.5]] * 3),
    "three classes, halved": lambda f: f([0, 1, 2], [[0.2, 0.3, 0.5]] * 3, scale_by_half=True),
    "`labels` beside one column": lambda f: f(Y, P[:, 1], labels=[5, 6]),
    "NaN": lambda f: f(Y, P[:, 1] * np.nan),
}
SAME = [
    *((f"{name}: {words}", name, call) for name, (words, call) in itertools.product(NAMES, SAID.items())),
    *((f"brier_score_loss: {words}", "brier_score_loss", call) for words, call in BINARY.items()),
    ("log_loss: no rows", "log_loss", lambda f: f([], np.zeros((0, 2)))),
    ("log_loss: a sum", "log_loss", lambda f: f(Y, P, normalize=False, sample_weight=[1, 2, 3])),
    ("log_loss: the old name", "log_loss", lambda f: f(Y, y_pred=P)),
    ("log_loss: both names", "log_loss", lambda f: f(Y, P, y_pred=P)),
    ("d2_log_loss_score: the old name", "d2_log_loss_score", lambda f: f(Y, y_pred=P)),
    ("d2_log_loss_score: one row", "d2_log_loss_score", lambda f: f([1], P[:1])),
    ("d2_log_loss_score: no rows", "d2_log_loss_score", lambda f: f([], np.zeros((0, 2)))),
]


def said(call: Callable[[Any], Any], function: Any) -> tuple[Any, str, list[tuple[type, str]]]:
    """The score or the type of the error, its text, and the warnings; of NaN in labels NumPy's own apart."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "invalid value encountered in cast")
        try:
            score, text = call(function), ""
        except Exception as error:
            score, text = type(error), str(error)
    return score, text, [(one.category, str(one.message)) for one in caught]


@pytest.mark.parametrize(("name", "call"), [one[1:] for one in SAME], ids=[one[0] for one in SAME])
def test_warnings_and_errors_are_scikit_learn_s(name: str, call: Callable[[Any], Any]) -> None:
    expected, their_text, their_warnings = said(call, getattr(peer, name))
    result, text, our_warnings = said(call, getattr(compat, name))

    if isinstance(expected, float):
        assert result == pytest.approx(expected, rel=1e-12, abs=0, nan_ok=True)
    else:
        assert result is expected
        assert text.startswith(their_text[:24])  # the rest may name the value otherwise
    assert our_warnings == their_warnings


NO_ARRAY = {
    "probabilities": lambda f: f(Y, "abc"),
    "a number for probabilities": lambda f: f(Y, 0.5),
    "weights": lambda f: f(Y, P, sample_weight="abc"),
    "labels": lambda f: f(1, P),
    "all labels": lambda f: f(Y, P, labels="ab"),
}


@pytest.mark.parametrize("call", NO_ARRAY.values(), ids=NO_ARRAY)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_array_is_a_value_error_and_a_type_error(name: str, call: Callable[[Any], Any]) -> None:
    texts = []
    for functions in (peer, compat):
        with pytest.raises(ValueError, match="must be an array-like") as caught:
            call(getattr(functions, name))
        assert isinstance(caught.value, TypeError)
        texts.append(str(caught.value).partition(" must ")[0])

    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_signature_is_scikit_learn_s(name: str) -> None:
    def plain(function: Any) -> list[tuple[str, Any, Any]]:
        return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]

    assert plain(getattr(compat, name)) == plain(getattr(peer, name))


# -------------------- what is not followed

OTHERWISE = {
    "lists of one label": (lambda f: f([[0], [1], [1]], P), TypeError),
    "all labels twice": (lambda f: f(Y, P, labels=[[0, 1], [1, 0]]), float),
    "strings beside numbers": (lambda f: f(["a", 0, 0], P), ValueError),
}


@pytest.mark.parametrize(("call", "expected"), OTHERWISE.values(), ids=OTHERWISE)
def test_what_is_not_followed_is_still_otherwise(call: Callable[[Any], Any], expected: type) -> None:
    theirs, ours = said(call, peer.log_loss)[0], said(call, compat.log_loss)[0]

    assert theirs is expected or type(theirs) is expected
    assert ours is not theirs and type(ours) is not type(theirs)


# -------------------- dask-ml


@pytest.mark.parametrize("chunks", [7, (1, 6), (5, 2), (3, 4)], ids=str)
@pytest.mark.parametrize("weighed", [False, True], ids=["plain", "weighed"])
@pytest.mark.parametrize("normalize", [True, False])
def test_dask_ml_s_log_loss_is_scikit_learn_s_whatever_the_chunks(chunks: Any, weighed: bool, normalize: bool) -> None:
    da = pytest.importorskip("dask.array")
    p, labels, weight = random_scores("float64", 7, 3, seed=2)
    lazy = {"sample_weight": da.from_array(weight, chunks=(chunks,))} if weighed else {}
    weights = {"sample_weight": weight} if weighed else {}
    result = dask_ml.log_loss(
        da.from_array(labels, chunks=(chunks,)), da.from_array(p, chunks=(chunks, 3)), normalize=normalize, **lazy
    )
    clipped = np.clip(p, 1e-15, 1 - 1e-15)
    rows = -np.log(clipped[np.arange(7), labels])
    expected = (
        np.average(rows, weights=weights.get("sample_weight"))
        if normalize
        else rows @ weights.get("sample_weight", np.ones(7))
    )

    assert float(result.compute()) == pytest.approx(expected, rel=1e-14)
