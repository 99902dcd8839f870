"""xent.compat.keras against Keras on TensorFlow, in one process: its values, gradients, dtypes, reductions, quirks.

Keras on its other backends answers otherwise in places: those are named, and run in a process of their own.
"""

import dataclasses
import inspect
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cases import (
    HALVES,
    Case,
    answer,
    binary_focal,
    binary_slope,
    focal,
    from_clipped,
    generalised,
    gradients,
    labels,
    library,
    mean_of,
    normalised_clipped,
    outcome,
    p_minus_t,
    share_of,
    targets,
    textbook,
    values,
)
from expected import same

import xent
from xent.compat import keras as compat

inf, nan = np.inf, np.nan
FUNCTIONS = [
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "binary_crossentropy",
    "categorical_focal_crossentropy",
    "binary_focal_crossentropy",
    "categorical_generalized_cross_entropy",
]
CLASSES = [
    "CategoricalCrossentropy",
    "SparseCategoricalCrossentropy",
    "BinaryCrossentropy",
    "CategoricalFocalCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalGeneralizedCrossEntropy",
]
OPS = ["categorical_crossentropy", "sparse_categorical_crossentropy", "binary_crossentropy"]


@pytest.fixture(scope="module")
def keras() -> Any:
    return textbook.peer_named("keras")


# -------------------- the grid


def case(
    name: str, call: Callable, bound: Any, gradients: dict[str, Any], inputs: dict[str, Any] | None = None, **more: Any
) -> Case:
    """The same call on Keras' losses and on ours."""
    return Case(name, lambda p, a: call(p.losses, a), lambda a: call(compat, a), bound, gradients, inputs or {}, **more)


def size_of_binary(a: SimpleNamespace) -> np.ndarray:
    return np.abs(a.x.astype(np.float64)) + 1


def size_of_cost(a: SimpleNamespace) -> np.ndarray:
    p = a.p.astype(np.float64)
    return -np.log(p * (1 - p))


def smooth_yes(a: SimpleNamespace) -> None:
    a.z = (0.8 * a.z + 0.1).astype(a.z.dtype)


def some_ignored(a: SimpleNamespace) -> None:
    a.y[::4] = -1


def label_column(a: SimpleNamespace) -> None:
    a.y = a.y[:, None]


def of_column(bound: Any) -> Any:
    return lambda a, u: bound(SimpleNamespace(**{**vars(a), "y": a.y[:, 0]}), u)


clipped = textbook.from_probabilities(targets, renormalised=True)
SINGLE = ("float32", "float64")
LOG1P = {("jax", "float64"): 16.0}  # XLA's log1p is off by up to 240 units between −1/2 and −1/5

CASES = [
    case(
        "targets from logits",
        lambda m, a: m.categorical_crossentropy(a.t, a.x, from_logits=True),
        textbook.loss_of(targets),
        {"x": p_minus_t},
        computed=HALVES,
    ),
    case(
        "smoothed targets from logits",
        lambda m, a: m.categorical_crossentropy(a.t, a.x, from_logits=True, label_smoothing=0.1),
        textbook.loss_of(textbook.smoothed(targets, 0.1)),
        {"x": p_minus_t},
    ),
    case(
        "targets from logits, classes in the middle",
        lambda m, a: m.categorical_crossentropy(a.t, a.x, from_logits=True, axis=1),
        textbook.loss_of(targets),
        {"x": p_minus_t},
        {"shape": (2, 7, 3), "axis": 1},
        dtypes=SINGLE,
    ),
    case(
        "targets from probabilities",
        lambda m, a: m.categorical_crossentropy(a.t, a.p),
        clipped,
        {"p": from_clipped(targets, renormalised=True)},
    ),
    case(
        "smoothed targets from probabilities",
        lambda m, a: m.categorical_crossentropy(a.t, a.p, label_smoothing=0.3),
        textbook.from_probabilities(textbook.smoothed(targets, 0.3), renormalised=True),
        {"p": from_clipped(textbook.smoothed(targets, 0.3), renormalised=True)},
    ),
    case(
        "targets from probabilities, classes first",
        lambda m, a: m.categorical_crossentropy(a.t, a.p, axis=0),
        clipped,
        {"p": from_clipped(targets, renormalised=True)},
        {"shape": (7, 23), "axis": 0},
        dtypes=SINGLE,
    ),
    case(
        "targets that sum to 3, from probabilities of sequences",
        lambda m, a: m.categorical_crossentropy(a.t, a.p),
        clipped,
        {"p": from_clipped(targets, renormalised=True)},
        {"shape": (3, 5, 7), "target_sum": 3.0},
        dtypes=SINGLE,
    ),
    case(
        "targets of no row",
        lambda m, a: m.categorical_crossentropy(a.t, a.p),
        clipped,
        {},
        {"shape": (0, 7)},
    ),
    case(
        "labels from logits",
        lambda m, a: m.sparse_categorical_crossentropy(a.y, a.x, from_logits=True),
        textbook.loss_of(labels),
        {"x": textbook.gradient_of(labels)},
    ),
    case(
        "labels from logits, some ignored",
        lambda m, a: m.sparse_categorical_crossentropy(a.y, a.x, from_logits=True, ignore_class=-1),
        textbook.loss_of(labels),
        {"x": textbook.gradient_of(labels)},
        {"change": some_ignored},
    ),
    case(
        "labels from probabilities",
        lambda m, a: m.sparse_categorical_crossentropy(a.y, a.p),
        normalised_clipped,
        {"p": from_clipped(labels, renormalised=True)},
    ),
    case(
        "labels from probabilities, some ignored",
        lambda m, a: m.sparse_categorical_crossentropy(a.y, a.p, ignore_class=-1),
        normalised_clipped,
        {"p": from_clipped(labels, renormalised=True)},
        {"change": some_ignored, "shape": (3, 5, 7)},
        dtypes=SINGLE,
    ),
    case(
        "labels in a column",
        lambda m, a: m.sparse_categorical_crossentropy(a.y, a.x, from_logits=True),
        of_column(textbook.loss_of(labels)),
        {"x": of_column(textbook.gradient_of(labels))},
        {"change": label_column},
        dtypes=("float32",),
    ),
    case(
        "yes or no from logits",
        lambda m, a: m.binary_crossentropy(a.z, a.x, from_logits=True),
        mean_of(textbook.binary, size_of_binary),
        {"x": share_of(textbook.binary_gradient)},
    ),
    case(
        "yes or no from probabilities",
        lambda m, a: m.binary_crossentropy(a.z, a.p),
        mean_of(textbook.binary_from_probabilities, size_of_cost),
        {"p": share_of(binary_slope)},
        ours_off=LOG1P,
    ),
    case(
        "yes or no smoothed, the mean over all axes",
        lambda m, a: m.binary_crossentropy(a.z, a.p, label_smoothing=0.2, axis=None),
        lambda a, u: (textbook.binary_from_probabilities(a, u) + 170 * u * size_of_cost(a)).mean(),
        {"p": lambda a, u: (a.classes + 4) * binary_slope(a, u) / a.x.size},
        dtypes=SINGLE,
        ours_off=LOG1P,
    ),
    case(
        "focal, from probabilities",
        lambda m, a: m.categorical_focal_crossentropy(a.t, a.p),
        focal(targets, 2.0, False)[0],
        {"p": focal(targets, 2.0, False)[1]},
    ),
    case(
        "focal, from logits, smoothed, with a factor for each class",
        lambda m, a: m.categorical_focal_crossentropy(a.t, a.x, a.c, 1.5, from_logits=True, label_smoothing=0.1),
        lambda a, u: 1.5 * focal(textbook.smoothed(targets, 0.1), 1.5, True)[0](a, u),
        {"x": lambda a, u: 1.5 * focal(textbook.smoothed(targets, 0.1), 1.5, True)[1](a, u)},
        {"scale": 1.0},  # a float16 p under 1e-5 overflows its own 1 / p in TensorFlow
    ),
    case(
        "binary focal, from probabilities",
        lambda m, a: m.binary_focal_crossentropy(a.z, a.p),
        mean_of(binary_focal(2.0, False)[0], size_of_cost),
        {"p": share_of(binary_focal(2.0, False)[1])},
        ours_off=LOG1P,
    ),
    case(
        "binary focal, from logits, balanced",
        lambda m, a: m.binary_focal_crossentropy(a.z, a.x, True, 0.4, 3.0, from_logits=True),
        mean_of(binary_focal(3.0, True)[0], size_of_binary),
        {"x": share_of(binary_focal(3.0, True)[1])},
        {"scale": 1.5},
        ours_off=LOG1P,
    ),
    case(
        "generalised",
        lambda m, a: m.categorical_generalized_cross_entropy(a.y, a.p, 0.7),
        generalised(0.7)[0],
        {"p": generalised(0.7)[1]},
    ),
    Case(
        "ops: targets from probabilities",
        lambda p, a: p.ops.categorical_crossentropy(a.t, a.p),
        lambda a: compat.ops.categorical_crossentropy(a.t, a.p),
        clipped,
    ),
    Case(
        "Keras 1: the output first",
        lambda p, a: p.ops.categorical_crossentropy(a.t, a.p),
        lambda a: compat.keras1_categorical_crossentropy(a.p, a.t),
        clipped,
    ),
    Case(
        "ops: labels from logits",
        lambda p, a: p.ops.sparse_categorical_crossentropy(a.y, a.x, from_logits=True),
        lambda a: compat.ops.sparse_categorical_crossentropy(a.y, a.x, from_logits=True),
        textbook.loss_of(labels),
    ),
    Case(
        "ops: yes or no, element by element",
        lambda p, a: p.ops.binary_crossentropy(a.z, a.p),
        lambda a: compat.ops.binary_crossentropy(a.z, a.p),
        textbook.binary_from_probabilities,
        ours_off=LOG1P,
    ),
]


@pytest.mark.parametrize(("case", "dtype", "on"), values(CASES))
def test_the_loss_is_keras(case, dtype, on):
    assert not outcome(case, "keras", dtype, on)


@pytest.mark.parametrize(("case", "dtype", "on", "at"), gradients(CASES))
def test_the_gradient_is_keras(case, dtype, on, at):
    assert not outcome(case, "keras", dtype, on, at)


def test_a_gradient_without_the_division_by_the_sum_is_found_out():
    true = next(one for one in CASES if one.name == "targets from probabilities")
    false = Case(
        true.name,
        true.theirs,
        lambda a: xent.cross_entropy(a.p, a.t, kind="probabilities"),
        true.bound,
        true.gradients,
    )

    assert not outcome(false, "keras", "float32", "torch")
    assert outcome(false, "keras", "float32", "torch", "p")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("case", [case for case in CASES if not case.inputs and "float16" in case.dtypes], ids=str)
def test_half_precision_that_is_off_by_a_twentieth_is_found_out(case, dtype):
    off = dataclasses.replace(case, ours=lambda a: case.ours(a) * 1.05)

    for at in (None, *case.gradients):
        assert outcome(off, "keras", dtype, "torch", at)


# -------------------- signatures


def parameters(function: Any) -> list[tuple[str, Any]]:
    return [(one.name, one.default) for one in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_names_order_and_defaults_of_the_losses_are_keras(keras, name):
    assert parameters(getattr(compat, name)) == parameters(getattr(keras.losses, name))


@pytest.mark.parametrize("name", OPS)
def test_names_order_and_defaults_of_the_operations_are_keras(keras, name):
    assert parameters(getattr(compat.ops, name)) == parameters(getattr(keras.ops, name))


@pytest.mark.parametrize("name", CLASSES)
def test_a_loss_object_has_keras_name_reduction_dtype_and_configuration(keras, name):
    theirs, ours = (getattr(module, name)(reduction="sum") for module in (keras.losses, compat))
    axis = {"axis": -1} if name.startswith("Sparse") else {}  # which Keras forgets

    assert (ours.name, ours.reduction, ours.dtype) == (theirs.name, theirs.reduction, theirs.dtype)
    assert ours.get_config() == {**theirs.get_config(), **axis}
    assert type(ours).from_config(ours.get_config()).get_config() == ours.get_config()


# -------------------- the classes and their reductions

CALLS = {
    "CategoricalCrossentropy": (lambda a: (a.t, a.p), {"label_smoothing": 0.1}),
    "SparseCategoricalCrossentropy": (lambda a: (a.y, a.x), {"from_logits": True}),
    "BinaryCrossentropy": (lambda a: (a.z, a.x), {"from_logits": True, "axis": 0}),
    "CategoricalFocalCrossentropy": (lambda a: (a.t, a.p), {"gamma": 1.0}),
    "BinaryFocalCrossentropy": (lambda a: (a.z, a.p), {"apply_class_balancing": True}),
    "CategoricalGeneralizedCrossEntropy": (lambda a: (a.y, a.p), {"q": 0.3}),
}
REDUCTIONS = ["sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", "none", None]


def close(ours: Any, theirs: Any, units: int = 64) -> bool:
    """To so many roundings of float32 in the larger of the answer and 1; what is not finite, alike."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    room = units * 2.0**-24
    return ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=room, atol=room, equal_nan=True)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_a_loss_object_reduces_as_keras_does(keras, name, reduction, weighted):
    arrays = textbook.inputs(np.random.default_rng(3), shape=(7, 7))
    of, options = CALLS[name]
    weight = {"sample_weight": arrays.w} if weighted else {}
    theirs, ours = (
        getattr(module, name)(**options, reduction=reduction)(*of(arrays), **weight)
        for module in (keras.losses, compat)
    )

    assert close(ours, theirs)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weight", [2.0, np.ones(7) * 2, np.arange(7.0)[:, None], np.zeros(7), [1, 0, 1, 0, 1, 0, 1]])
def test_weights_of_every_shape_are_spread_as_keras_spreads_them(keras, reduction, weight):
    arrays = textbook.inputs(np.random.default_rng(4), shape=(7, 5))
    theirs, ours = (
        module.CategoricalCrossentropy(from_logits=True, reduction=reduction)(arrays.t, arrays.x, sample_weight=weight)
        for module in (keras.losses, compat)
    )

    assert close(ours, theirs, units=256)  # up to 42 rows' worth


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("ignored", ["none", "some", "all"])
def test_means_are_over_the_rows_that_ignore_class_leaves(keras, reduction, weighted, ignored):
    arrays = textbook.inputs(np.random.default_rng(5), shape=(9, 5))
    arrays.y[{"none": slice(0), "some": slice(None, None, 3), "all": slice(None)}[ignored]] = -1
    arrays.x[arrays.y == -1] = nan
    weight = {"sample_weight": arrays.w} if weighted else {}
    theirs, ours = (
        module.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1, reduction=reduction)(
            arrays.y, arrays.x, **weight
        )
        for module in (keras.losses, compat)
    )

    assert close(ours, theirs)


@pytest.mark.parametrize("name", ["CategoricalCrossentropy", "BinaryCrossentropy"])
def test_the_mean_of_no_row_is_an_empty_array(keras, name):
    none = np.zeros((0, 3), np.float32)

    for module in (keras.losses, compat):
        assert np.shape(getattr(module, name)()(none, none)) == (0,)


def test_the_mean_of_an_empty_batch_of_sequences_is_0(keras):
    none = np.zeros((2, 0, 3), np.float32)

    for module in (keras.losses, compat):
        assert same(module.CategoricalCrossentropy(from_logits=True)(none, none), 0.0)


def test_the_mean_divides_by_the_rows_and_not_by_their_weights(keras):
    y, x, w = np.asarray([0, 1]), np.zeros((2, 4), np.float32), np.float32([1, 3])

    for module in (keras.losses, compat):
        assert close(module.SparseCategoricalCrossentropy(from_logits=True)(y, x, w), 2 * np.log(np.float32(4)))


def test_a_mean_over_weights_that_cancel_is_0(keras):
    t, x, w = np.eye(2, dtype=np.float32), np.float32([[3, 0], [0, 0]]), np.float32([1, -1])

    for module in (keras.losses, compat):
        mean = module.CategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
        assert same(mean(t, x, w), 0.0)


def test_a_weight_of_0_does_not_hide_a_loss_that_is_not_finite(keras):
    t, x, w = np.eye(2, dtype=np.float32), np.float32([[-np.inf, 0], [0, 0]]), np.float32([0, 1])

    for module in (keras.losses, compat):
        assert np.isnan(module.CategoricalCrossentropy(from_logits=True)(t, x, w))


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("on", ["torch", "jax"])
def test_the_gradient_of_an_ignored_row_is_0_whatever_it_holds(keras, on, from_logits):
    x = np.float32([[nan, 0.5, inf], [0.2, 0.3, 0.5]])
    arrays = SimpleNamespace(x=x, y=np.asarray([-1, 2]))

    def loss(module: Any) -> Callable:
        return lambda a: module.sparse_categorical_crossentropy(a.y, a.x, from_logits, ignore_class=-1)

    theirs, ours = answer(keras, loss(keras.losses), arrays, "x")[0], answer(library(on), loss(compat), arrays, "x")[0]

    assert close(ours, theirs) and same(ours[0], [0, 0, 0])


@pytest.mark.parametrize("on", ["torch", "jax"])
def test_the_gradient_of_a_loss_object_is_keras(keras, on):
    arrays = textbook.inputs(np.random.default_rng(6), shape=(5, 4))
    arrays.y[0] = -1

    def loss(module: Any) -> Callable:
        instance = module.SparseCategoricalCrossentropy(ignore_class=-1)
        return lambda a: instance(a.y, a.p, sample_weight=a.w)

    theirs, ours = answer(keras, loss(keras.losses), arrays, "p")[0], answer(library(on), loss(compat), arrays, "p")[0]

    assert close(ours, theirs)


# -------------------- quirks: probabilities

P = [[0, 1, 0], [0.2, 0.3, 0.5], [0, 0, 0], [1, -1, 0], [1, -1, 2], [2, 3, 5], [nan, 0.5, 0.5], [1e-7, 0.5, 0.5]]
T = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]
Y = [0, 1, 2, 0, 0, 2, 1, 0]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("on", "at"), [("numpy", None), ("torch", None), ("jax", None), ("torch", "p"), ("jax", "p")])
@pytest.mark.parametrize(
    ("name", "value", "options"),
    [
        ("categorical_crossentropy", T, {}),
        ("sparse_categorical_crossentropy", np.asarray(Y), {}),
        ("sparse_categorical_crossentropy", np.asarray(Y), {"ignore_class": 1}),
        ("binary_crossentropy", T, {}),
        ("categorical_focal_crossentropy", T, {}),
        ("categorical_generalized_cross_entropy", np.asarray(Y), {"q": 0.5}),
        ("categorical_generalized_cross_entropy", np.asarray([0, 1, 3, -1, 0, 99, 0, 0]), {"q": 0.5}),
    ],
)
def test_probabilities_of_0_and_1_and_beside_are_clipped_as_keras_clips_them(
    keras, name, value, options, on, at, dtype
):
    arrays = SimpleNamespace(p=np.asarray(P, dtype), x=np.zeros(1, dtype))

    def loss(module: Any) -> Callable:
        def told_to(a: SimpleNamespace) -> Any:
            like = np.asarray(value) if module is compat and on == "numpy" else value
            return library(on).asarray(np.asarray(like)) if module is compat else np.asarray(like)

        return lambda a: getattr(module, name)(told_to(a), a.p, **options)

    theirs = answer(keras, loss(keras.losses), arrays, at)[0]
    ours = answer(library(on), loss(compat), arrays, at)[0]
    room = 8 * 2.0 ** (-24 if dtype == "float32" else -11)

    assert np.allclose(ours, theirs, rtol=8 * room, atol=room, equal_nan=True), (ours, theirs)


def test_a_perfect_prediction_costs_epsilon_and_a_wrong_one_16(keras):
    y, p = np.eye(2, dtype=np.float32), np.float32([[1, 0], [1, 0]])

    for module in (keras.losses, compat):
        assert close(module.categorical_crossentropy(y, p), [1.1920929e-07, 16.118095])


def test_the_gradient_is_0_where_the_probability_is_clipped(keras):
    torch = library("torch").torch
    p = torch.tensor([[1.0, 0.0]], requires_grad=True)
    compat.binary_crossentropy(torch.tensor([[0.0, 1.0]]), p).sum().backward()

    assert p.grad.tolist() == [[0.0, 0.0]]


def test_labels_from_probabilities_are_clipped_and_not_divided_by_their_sum(keras):
    y, p = np.asarray([2]), np.float32([[2, 3, 5]])

    for module in (keras.losses, compat):
        assert close(module.sparse_categorical_crossentropy(y, p), np.log(np.float32([3])))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_sure_yes_costs_nan_in_half_precision(keras, dtype):
    p = np.ones((1, 1), ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)

    for module in (keras.ops, compat.ops):
        assert np.isnan(np.asarray(module.binary_crossentropy(p, p)).astype(np.float32)).all()


# -------------------- quirks: logits


@pytest.mark.parametrize(("on", "at"), [("numpy", None), ("torch", "x"), ("jax", "x")])
@pytest.mark.parametrize("name", ["categorical_crossentropy", "binary_crossentropy", "sparse_categorical_crossentropy"])
def test_infinite_logits_give_the_answer_of_keras_on_tensorflow(keras, name, on, at):
    x = np.float32([[0, -inf, 1], [0, inf, 1], [0, nan, 1], [-inf] * 3, [0, 1, 2]])
    t = np.asarray([2, 1, 0, 0, 1]) if name.startswith("sparse") else np.eye(3, dtype=np.float32)[[2, 1, 0, 0, 1]]
    arrays = SimpleNamespace(x=x, t=t)

    def loss(module: Any) -> Callable:
        return lambda a: getattr(module, name)(a.t, a.x, from_logits=True)

    theirs = answer(keras, loss(keras.losses), arrays, at)[0]
    ours = answer(library(on), loss(compat), arrays, at)[0]

    assert close(ours, theirs), (ours, theirs)


def test_targets_that_do_not_sum_to_one_have_the_gradient_p_minus_t(keras):
    arrays = SimpleNamespace(x=np.zeros((1, 2), np.float32), t=np.float32([[3, 1]]))

    def loss(module: Any) -> Callable:
        return lambda a: module.categorical_crossentropy(a.t, a.x, from_logits=True)

    theirs = answer(keras, loss(keras.losses), arrays, "x")[0]

    assert same(theirs, [[-2.5, -0.5]])
    assert same(answer(library("torch"), loss(compat), arrays, "x")[0], theirs)


HARD = [-inf, -100.0, -20.0, -12.0, -1.0, 0.0, 12.0, 20.0, 100.0, inf, nan]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(("on", "at"), [("numpy", None), ("torch", None), ("jax", None), ("torch", "x"), ("jax", "x")])
@pytest.mark.parametrize("balanced", [False, True])
def test_hard_examples_of_the_binary_focal_loss_from_logits_cost_what_keras_charges(keras, balanced, on, at, dtype):
    x, z = np.meshgrid(np.asarray(HARD, dtype), np.asarray([0.0, 0.3, 1.0], dtype))
    arrays = SimpleNamespace(x=x[..., None], z=z[..., None])

    def loss(module: Any) -> Callable:
        return lambda a: module.binary_focal_crossentropy(a.z, a.x, balanced, from_logits=True)

    theirs = answer(keras, loss(keras.losses), arrays, at)[0]
    ours = answer(library(on), loss(compat), arrays, at)[0]
    room = {"float16": 2.0**-8, "float32": 2.0**-20, "float64": 2.0**-48}[dtype]

    assert np.allclose(ours, theirs, rtol=room, atol=room / 64, equal_nan=True), (ours, theirs)


def test_the_objects_of_the_binary_focal_loss_do_not_saturate_from_logits(keras):
    for module in (keras.losses, compat):
        loss = module.BinaryFocalCrossentropy(from_logits=True, reduction=None)
        assert close(loss([[1.0], [0.0]], [[-100.0], [20.0]]), [100, 20])


def test_the_gradient_without_a_factor_is_torchs_where_keras_has_none(keras):
    arrays = SimpleNamespace(x=np.float32([[20.0]]), z=np.float32([[1.0]]))

    def loss(module: Any) -> Callable:
        return lambda a: module.binary_focal_crossentropy(a.z, a.x, gamma=0.0, from_logits=True)

    assert np.isnan(answer(keras, loss(keras.losses), arrays, "x")[0])
    assert np.isnan(answer(library("jax"), loss(compat), arrays, "x")[0])
    assert abs(answer(library("torch"), loss(compat), arrays, "x")[0]) < 1e-8


@pytest.mark.parametrize(("on", "at"), [("numpy", None), ("torch", None), ("jax", None), ("torch", "x"), ("jax", "x")])
def test_infinite_logits_of_the_categorical_focal_loss_give_keras_answer(keras, on, at):
    x = [[0, -inf, 1], [0, inf, 1], [0, inf, 1], [0, nan, 1], [-inf] * 3, [inf, inf, 0], [20, -20, 0], [-100, 100, 0]]
    arrays = SimpleNamespace(x=np.float32(x), t=np.eye(3, dtype=np.float32)[[2, 1, 0, 0, 1, 2, 1, 0]])

    def loss(module: Any) -> Callable:
        return lambda a: module.categorical_focal_crossentropy(a.t, a.x, from_logits=True)

    theirs = answer(keras, loss(keras.losses), arrays, at)[0]
    ours = answer(library(on), loss(compat), arrays, at)[0]

    assert close(ours, theirs), (ours, theirs)


@pytest.mark.parametrize(("dtype", "most"), [("float32", 16.118095), ("float16", 15.945)])
def test_the_categorical_focal_loss_from_logits_saturates(keras, dtype, most):
    y, x = np.asarray([[1, 0]], dtype), np.asarray([[-1000, 1000]], dtype)

    for module in (keras.losses, compat):
        loss = np.asarray(module.categorical_focal_crossentropy(y, x, from_logits=True))
        assert np.allclose(loss, 0.25 * most, rtol=4 * np.finfo(dtype).eps)


# -------------------- quirks: targets, smoothing, dtypes


def test_smoothing_is_spread_over_the_last_axis_whatever_the_class_axis_is(keras):
    arrays = textbook.inputs(np.random.default_rng(7), shape=(2, 5), axis=0)

    for from_logits in (True, False):
        theirs, ours = (
            module.categorical_crossentropy(arrays.t, arrays.p, from_logits, label_smoothing=0.3, axis=0)
            for module in (keras.losses, compat)
        )
        assert close(ours, theirs)
        assert not close(ours, xent.cross_entropy(arrays.p, arrays.t, axis=0, label_smoothing=0.3))


@pytest.mark.parametrize("a", [-0.5, 1.0, 1.7])
def test_smoothing_may_be_any_number(keras, a):
    arrays = textbook.inputs(np.random.default_rng(8), shape=(4, 3))
    theirs, ours = (
        module.categorical_crossentropy(arrays.t, arrays.x, True, label_smoothing=a)
        for module in (keras.losses, compat)
    )

    assert close(ours, theirs)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "int64", "float32", "float64"])
def test_labels_of_any_dtype_are_cast_to_integers(keras, dtype):
    y, x = np.asarray([2, 0, 1], dtype), np.random.default_rng(9).standard_normal((3, 3)).astype(np.float32)
    y = y + 0.7 if y.dtype.kind == "f" else y
    theirs, ours = (module.sparse_categorical_crossentropy(y, x, True) for module in (keras.losses, compat))

    assert close(ours, theirs)


@pytest.mark.parametrize("on", ["numpy", "torch", "jax"])
def test_an_ignored_class_that_labels_of_one_byte_cannot_hold_ignores_nothing(keras, on):
    x, there = np.zeros((2, 3), np.float32), library(on)
    theirs = keras.losses.sparse_categorical_crossentropy(np.asarray([0, 2], np.uint8), x, True, ignore_class=-254)
    ours = compat.sparse_categorical_crossentropy(
        there.asarray(np.asarray([0, 2], np.uint8)), there.asarray(x), True, ignore_class=-254
    )

    assert close(there.numpy(ours), theirs) and np.all(there.numpy(ours) > 1)


def test_the_objects_round_labels_to_float32(keras):
    y, x = np.asarray([2**24 + 1]), np.zeros((1, 2**24 + 2), np.float16)
    x[0, 2**24] = 20  # the label that 2²⁴ + 1 becomes
    theirs, ours = (module.SparseCategoricalCrossentropy(from_logits=True)(y, x) for module in (keras.losses, compat))

    assert close(ours, theirs) and float(ours) < 1 < compat.sparse_categorical_crossentropy(y, x, True)[0]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_functions_keep_the_dtype_and_the_objects_return_their_own(keras, dtype):
    p, t = np.full((2, 2), 0.5, ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype), np.eye(2)

    for name in ("categorical_crossentropy", "binary_crossentropy", "categorical_focal_crossentropy"):
        theirs, ours = (getattr(module, name)(t, p) for module in (keras.losses, compat))
        assert np.asarray(ours).dtype.name == theirs.dtype.name == dtype
    for value in (None, dtype):
        theirs, ours = (module.CategoricalCrossentropy(dtype=value)(t, p) for module in (keras.losses, compat))
        assert np.asarray(ours).dtype.name == theirs.dtype.name == (value or "float32")


def test_lists_are_taken_with_float32_for_pythons_floats(keras):
    for name in ("categorical_crossentropy", "binary_crossentropy", "CategoricalCrossentropy"):
        theirs, ours = (
            (getattr(module, name)() if name[0] == "C" else getattr(module, name))([[0, 1, 0]], [[0.1, 0.8, 0.1]])
            for module in (keras.losses, compat)
        )
        assert ours.dtype == np.float32 and close(ours, theirs)


def test_tensors_are_refused_by_others_than_the_crossentropies_and_numpys_float64_stays(keras):
    t, p = np.eye(3)[:1], np.float64([[0.1, 0.2, 0.7]])
    theirs = keras.losses.categorical_crossentropy(t, keras.tf.constant(p))
    ours = compat.categorical_crossentropy(t, keras.tf.constant(p))

    assert compat.categorical_crossentropy(t, p).dtype == theirs.dtype.as_numpy_dtype == np.float64
    assert ours.dtype == theirs.dtype and close(ours.numpy(), theirs.numpy())
    for predictions in (
        keras.tf.constant(p),
        keras.tf.Variable(p),
        keras.ops.convert_to_tensor(p),
        [keras.tf.constant(p[0])],
    ):
        with pytest.raises(TypeError, match=r"TensorFlow tensor, .*\.numpy\(\)"):
            compat.categorical_focal_crossentropy(t, predictions)
    with pytest.raises(TypeError, match=r"TensorFlow tensor, .*\.numpy\(\)"):
        compat.categorical_crossentropy(keras.tf.constant(t), p)


@pytest.mark.parametrize("shape", [(1, 3), (3,), (4, 1)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_targets_of_the_categorical_focal_loss_are_spread(keras, shape, smoothing):
    rng = np.random.default_rng(11)
    t, p = rng.random(shape, np.float32), rng.random((4, 3), np.float32)
    theirs, ours = (
        module.categorical_focal_crossentropy(t, p, label_smoothing=smoothing) for module in (keras.losses, compat)
    )

    assert close(ours, theirs)


def test_the_mean_of_yes_or_no_is_over_a_list_of_axes_too(keras):
    arrays = textbook.inputs(np.random.default_rng(12), shape=(4, 3))
    for name in ("binary_crossentropy", "binary_focal_crossentropy"):
        theirs, ours = (getattr(m, name)(arrays.z, arrays.p, axis=[0, 1]) for m in (keras.losses, compat))
        assert close(ours, theirs)


def test_the_generalised_loss_takes_integers_for_probabilities(keras):
    y, p = np.asarray([0, 1, 0]), np.eye(3, dtype=int)
    theirs, ours = (m.categorical_generalized_cross_entropy(y, p, 0.5) for m in (keras.losses, compat))

    assert ours.dtype == theirs.dtype.as_numpy_dtype and close(ours, theirs)


@pytest.mark.parametrize("name", CLASSES)
def test_a_loss_object_has_keras_attributes(keras, name):
    theirs, ours = (getattr(module, name)() for module in (keras.losses, compat))

    for key in set(theirs.get_config()) - {"dtype"}:
        assert getattr(ours, key) == getattr(theirs, key, getattr(ours, key))


def test_factors_of_float64_leave_the_dtype_of_the_predictions(keras):
    t, p, alpha = np.eye(3, dtype=np.float32), np.full((3, 3), 1 / 3, np.float32), np.float64([0.1, 0.2, 0.3])
    theirs, ours = (m.categorical_focal_crossentropy(t, p, alpha) for m in (keras.losses, compat))

    assert ours.dtype == np.float32 and theirs.dtype.as_numpy_dtype == np.float64 and close(ours, theirs)


def test_one_class_is_warned_about(keras):
    one = np.ones((2, 1), np.float32)

    for module in (keras.losses, compat):
        for name in ("categorical_crossentropy", "categorical_focal_crossentropy"):
            with pytest.warns(SyntaxWarning, match=name):
                getattr(module, name)(one, one)


@pytest.mark.parametrize(("shape", "axis"), [((2, 1), -1), ((1, 3), 0), ((2, 3), -1)])
def test_a_softmax_over_one_class_is_warned_about(keras, shape, axis):
    y, x, caught = np.ones(shape, np.float32), np.ones(shape, np.float32), []
    for module in (keras.losses, compat):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            module.categorical_focal_crossentropy(y, x, from_logits=True, axis=axis)
        caught.append(sorted(one.category.__name__ for one in found))

    assert caught[0] == caught[1]


@pytest.mark.parametrize("name", ["categorical_crossentropy", "categorical_focal_crossentropy"])
def test_predictions_without_an_axis_are_an_index_error(keras, name):
    for module in (keras.losses, compat):
        with pytest.raises(IndexError):
            getattr(module, name)(np.float32(1), np.float32(0.5))


@pytest.mark.parametrize("ignored", [None, -1])
@pytest.mark.parametrize("shape", [(1,), (3,), (4, 4), (), (4, 2)])
def test_labels_that_are_not_one_for_each_row_are_refused(keras, shape, ignored):
    y, x = np.zeros(shape, int), np.zeros((4, 5), np.float32)

    with pytest.raises((ValueError, keras.tf.errors.InvalidArgumentError)):
        keras.losses.sparse_categorical_crossentropy(y, x, True, ignore_class=ignored)
    with pytest.raises(ValueError, match="one label for each row"):
        compat.sparse_categorical_crossentropy(y, x, True, ignore_class=ignored)


def test_no_classes_cost_0_in_keras_only(keras):
    none = np.zeros((2, 0), np.float32)

    assert close(keras.losses.categorical_crossentropy(none, none, True), [0, 0])
    with pytest.raises(ValueError, match="at least one class"):
        compat.categorical_crossentropy(none, none, True)


def test_a_metric_of_keras_counts_the_ignored_rows_of_ours(keras, monkeypatch):
    y, p, w = np.asarray([0, 1]), np.float32([[0.5, 0.5], [0.75, 0.25]]), np.float32([3, 1])
    results = []
    for function in (keras.losses.sparse_categorical_crossentropy, compat.sparse_categorical_crossentropy):
        metric = keras.metrics.MeanMetricWrapper(function, ignore_class=0)
        metric.update_state(y, p, sample_weight=w)
        results.append(float(metric.result()))

    assert close(results, [np.log(np.float32(4)), np.log(np.float32(4)) / 4])


def test_objects_take_integer_predictions_and_functions_do_not(keras):
    y, p = np.float32([[0, 1, 0]]), np.asarray([[1, 2, 3]])
    theirs, ours = (module.CategoricalCrossentropy()(y, p) for module in (keras.losses, compat))

    assert close(ours, theirs)
    for name in ("categorical_crossentropy", "binary_crossentropy"):
        with pytest.raises((TypeError, keras.tf.errors.InvalidArgumentError)):
            getattr(keras.losses, name)(y, p)
        with pytest.raises(TypeError, match=f"{name}: the predictions must be real floating, got int64"):
            getattr(compat, name)(y, p)


# -------------------- what both refuse, and what one


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.categorical_crossentropy(np.eye(3)[:1], np.eye(3)),
        lambda m: m.categorical_crossentropy(np.eye(3)[:1], np.eye(3), from_logits=True),
        lambda m: m.categorical_crossentropy(np.eye(3), np.eye(3), axis=True),
        lambda m: m.binary_crossentropy(np.eye(3)[:1], np.eye(3)),
        lambda m: m.sparse_categorical_crossentropy(np.asarray([1, 2]), np.eye(3)),
        lambda m: m.CategoricalCrossentropy(reduction="median"),
        lambda m: m.CategoricalGeneralizedCrossEntropy(q=1.0),
    ],
)
def test_what_both_refuse(keras, call):
    for module in (keras.losses, compat):
        with pytest.raises(ValueError):
            call(module)


@pytest.mark.parametrize("label", [3, -1, nan])
def test_a_label_out_of_range_is_an_error(keras, label):
    y, x = np.asarray([0, label]), np.zeros((2, 3), np.float32)

    with pytest.raises(keras.tf.errors.InvalidArgumentError):
        keras.losses.sparse_categorical_crossentropy(y, x, True)
    with pytest.raises(xent.LabelError):
        compat.sparse_categorical_crossentropy(y, x, True)


def test_a_class_axis_in_the_middle_is_served_for_labels(keras):
    arrays = textbook.inputs(np.random.default_rng(10), shape=(2, 5, 3), axis=1)
    for from_logits in (True, False):
        with pytest.raises(ValueError, match="axis=-1"):
            keras.losses.sparse_categorical_crossentropy(arrays.y, arrays.p, from_logits, axis=1)
        theirs = keras.losses.sparse_categorical_crossentropy(arrays.y, np.moveaxis(arrays.p, 1, -1), from_logits)

        assert close(compat.sparse_categorical_crossentropy(arrays.y, arrays.p, from_logits, axis=1), theirs)


# -------------------- Keras' other backends

AGREED = """
import json
import numpy as np
from keras import losses, ops
tensor = ops.convert_to_tensor

x = np.float32([[0.1, 1.5, -2.0], [3.0, 0.0, 0.5]])
p = np.float32([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])
t = np.float32([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]])
y, w = np.asarray([2, 0]), np.float32([1.0, 3.0])
answers = [
    losses.categorical_crossentropy(t, x, True),
    losses.categorical_crossentropy(t, p, label_smoothing=0.1),
    losses.sparse_categorical_crossentropy(y, x, True),
    losses.sparse_categorical_crossentropy(y, p, ignore_class=0),
    losses.binary_crossentropy(t, x, True),
    losses.binary_crossentropy(t, p),
    losses.categorical_focal_crossentropy(t, x, from_logits=True),
    losses.binary_focal_crossentropy(t, p, True),
    losses.categorical_generalized_cross_entropy(y, tensor(p), 0.5),
    losses.CategoricalCrossentropy(reduction="mean_with_sample_weight")(t, p, w),
    losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)(y, x, w),
]
# Where the backends disagree: labels from probabilities that do not sum to 1; a sparse and a binary infinity.
apart = [
    losses.sparse_categorical_crossentropy(np.asarray([2]), np.float32([[2, 3, 5]])),
    losses.sparse_categorical_crossentropy(np.asarray([2]), np.float32([[0, -np.inf, 1]]), True),
    losses.binary_crossentropy(np.float32([[0.0]]), np.float32([[100.0]]), True),
]
print(json.dumps([[np.asarray(one).tolist() for one in part] for part in (answers, apart)]))
"""


@pytest.fixture(scope="module", params=["tensorflow", "torch", "jax", "numpy"])
def backend(request: pytest.FixtureRequest) -> tuple[str, list[Any], list[Any]]:
    """What Keras answers on one of its backends, in a process of its own: a process has one backend."""
    name = request.param
    environment = {**os.environ, "KERAS_BACKEND": name, "TF_CPP_MIN_LOG_LEVEL": "3"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", AGREED], env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return name, *json.loads(run.stdout.splitlines()[-1])


def ours_of() -> tuple[list[Any], list[Any]]:
    """The same calls of ours."""
    names: dict[str, Any] = {}
    ours = AGREED.replace("from keras import losses, ops", "from xent.compat import keras as losses")
    exec(ours.replace("ops.convert_to_tensor", "np.asarray"), names)
    return names["answers"], names["apart"]


def test_every_backend_of_keras_agrees_with_ours_on_ordinary_input(backend, capsys):
    _, theirs, _ = backend
    ours, _ = ours_of()

    assert all(close(mine, its) for mine, its in zip(ours, theirs, strict=True))


def test_where_the_backends_disagree_ours_is_tensorflows(backend, capsys):
    name, _, theirs = backend
    _, ours = ours_of()
    agreeing = [bool(close(mine, its)) for mine, its in zip(ours, theirs, strict=True)]

    assert (
        agreeing
        == {
            "tensorflow": [True, True, True],
            "torch": [False, True, True],
            "jax": [False, False, True],
            "numpy": [False, False, False],
        }[name]
    )


@pytest.mark.parametrize("name", CLASSES)
def test_an_object_is_keras_own_kind_of_loss_and_is_serialised(keras, name):
    ours = getattr(compat, name)(name="mine")
    described = keras.losses.serialize(ours)
    again = keras.losses.deserialize(described)

    assert isinstance(ours, keras.losses.Loss) and described["registered_name"] == f"xent>{name}"
    assert type(again) is type(ours) and again.get_config() == ours.get_config()
