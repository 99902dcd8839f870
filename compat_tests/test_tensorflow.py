"""xent.compat.tensorflow against TensorFlow itself, in one process: its values, gradients, dtypes and quirks."""

import dataclasses
import inspect
from types import SimpleNamespace
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
from cases import (
    HALVES,
    Case,
    answer,
    binary_target,
    dtype_of,
    gradients,
    labels,
    library,
    outcome,
    p_minus_t,
    targets,
    textbook,
    values,
)
from expected import same

import xent
from xent.compat import tensorflow as compat

inf, nan = np.inf, np.nan


@pytest.fixture(scope="module")
def tf() -> Any:
    return textbook.peer_named("tensorflow").tf


# -------------------- the grid


def dense(name: str, axis: int = -1, **inputs: Any) -> Case:
    return Case(
        name,
        lambda p, a: p.nn.softmax_cross_entropy_with_logits(a.t, a.x, axis=axis),
        lambda a: compat.softmax_cross_entropy_with_logits(a.t, a.x, axis=axis),
        textbook.loss_of(targets),
        {"x": p_minus_t, "t": textbook.log_softmax},
        {"axis": axis, **inputs},
        computed=HALVES,
    )


def sparse(name: str, dtypes: tuple[str, ...], computed: dict[str, str], **inputs: Any) -> Case:
    return Case(
        name,
        lambda p, a: p.nn.sparse_softmax_cross_entropy_with_logits(a.y, a.x),
        lambda a: compat.sparse_softmax_cross_entropy_with_logits(a.y, a.x),
        textbook.loss_of(labels),
        {"x": textbook.gradient_of(labels)},
        inputs,
        dtypes,
        computed,
    )


def sigmoid(name: str, **inputs: Any) -> Case:
    return Case(
        name,
        lambda p, a: p.nn.sigmoid_cross_entropy_with_logits(labels=a.z, logits=a.x),
        lambda a: compat.sigmoid_cross_entropy_with_logits(labels=a.z, logits=a.x),
        textbook.binary,
        {"x": textbook.binary_gradient, "z": binary_target},
        inputs,
    )


def weighted(name: str, factor: Any, most: float, **inputs: Any) -> Case:
    return Case(
        name,
        lambda p, a: p.nn.weighted_cross_entropy_with_logits(a.z, a.x, factor(a)),
        lambda a: compat.weighted_cross_entropy_with_logits(a.z, a.x, factor(a)),
        lambda a, u: textbook.binary(a, u, most),
        {"x": lambda a, u: textbook.binary_gradient(a, u, most), "z": lambda a, u: 2 * textbook.binary(a, u, most)},
        inputs,
    )


def backprop(name: str, **inputs: Any) -> Case:
    """The raw operations' second output, as a value."""
    of, argument = (labels, "y") if name == "labels" else (targets, "t")
    operation = ("Sparse" if argument == "y" else "") + "SoftmaxCrossEntropyWithLogits"
    return Case(
        f"backprop of {name}",
        lambda p, a: getattr(p.tf.raw_ops, operation)(features=a.x, labels=getattr(a, argument)).backprop,
        lambda a: getattr(compat.raw_ops, operation)(features=a.x, labels=getattr(a, argument)).backprop,
        textbook.gradient_of(of) if argument == "y" else p_minus_t,
        {},
        inputs,
    )


def halve_labels(a: SimpleNamespace) -> None:
    a.y = a.y.astype(np.int32)


def one_class(a: SimpleNamespace) -> None:
    a.y[:] = 0


def no_target(a: SimpleNamespace) -> None:
    a.t[::3] = 0


def mask_some(a: SimpleNamespace) -> None:
    a.x[(np.arange(a.classes) % 3 == 1) & (np.arange(a.classes) != a.y[:, None])] = -inf


def some_at_zero(a: SimpleNamespace) -> None:
    a.x[::3], a.x[1::3] = 0.0, -0.0


CASES = [
    dense("targets"),
    dense("targets of one row", shape=(7,)),
    dense("targets of sequences", shape=(3, 5, 7)),
    dense("targets, classes in the middle", axis=1, shape=(2, 7, 3)),
    dense("targets, classes first", axis=0, shape=(7, 23)),
    dense("targets that sum to 3", target_sum=3.0),
    dense("targets that are nothing in some rows", change=no_target),
    dense("targets of one class", shape=(5, 1)),
    dense("targets of no row", shape=(0, 7)),
    dense("targets far apart", scale=30.0),
    dense("targets of many classes", shape=(3, 1031)),
    sparse("labels", ("float16", "float32", "float64"), HALVES),
    sparse("labels of bfloat16 logits", ("bfloat16",), {}),
    sparse("labels of 32 bits", ("float32",), {}, change=halve_labels),
    sparse("labels of one row", ("float32",), {}, shape=(7,)),
    sparse("labels of sequences", ("float32", "float64"), {}, shape=(3, 5, 7)),
    sparse("labels of one class", ("float32",), {}, shape=(5, 1), change=one_class),
    sparse("labels of no row", ("float16", "float32"), {}, shape=(0, 7)),
    sparse("labels beside logits of −inf", ("float32", "float64"), {}, change=mask_some),
    sparse("labels far apart", ("float32", "float64"), {}, scale=300.0),
    sigmoid("yes or no"),
    sigmoid("yes or no of sequences", shape=(3, 5, 7)),
    sigmoid("yes or no of nothing", shape=(0, 7)),
    sigmoid("yes or no far apart", scale=30.0),
    weighted("weighted by a number", lambda a: 3.0, 3.0),
    weighted("weighted by a number, logits of 0", lambda a: 3.0, 3.0, change=some_at_zero),
    weighted("weighted by output", lambda a: a.c, 1.5),
    weighted("weighted by row", lambda a: a.w[:, None], 1.5),
    weighted("weighted by element, logits of 0", lambda a: 1 + a.t, 2.0, change=some_at_zero),
    backprop("targets"),
    backprop("targets that sum to 2", target_sum=2.0),
    backprop("labels"),
]


@pytest.mark.parametrize(("case", "dtype", "on"), values(CASES))
def test_the_loss_is_tensorflows(case, dtype, on):
    assert not outcome(case, "tensorflow", dtype, on)


@pytest.mark.parametrize(("case", "dtype", "on", "at"), gradients(CASES))
def test_the_gradient_is_tensorflows(case, dtype, on, at):
    assert not outcome(case, "tensorflow", dtype, on, at)


def test_a_loss_that_is_off_is_found_out():
    true = CASES[0]
    false = Case(true.name, true.theirs, lambda a: true.ours(a) * (1 + 1e-5), true.bound, inputs=true.inputs)

    assert outcome(false, "tensorflow", "float32", "numpy")


def test_a_gradient_that_is_xents_own_is_found_out():
    true = next(case for case in CASES if case.name == "targets that sum to 3")
    false = Case(
        true.name, true.theirs, lambda a: xent.cross_entropy(a.x, a.t), true.bound, true.gradients, true.inputs
    )

    assert not outcome(false, "tensorflow", "float32", "torch")
    assert outcome(false, "tensorflow", "float32", "torch", "x")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("case", [case for case in CASES if not case.inputs and "float16" in case.dtypes], ids=str)
def test_half_precision_that_is_off_by_a_twentieth_is_found_out(case, dtype):
    off = dataclasses.replace(case, ours=lambda a: case.ours(a) * 1.05)

    for at in (None, *case.gradients):
        assert outcome(off, "tensorflow", dtype, "torch", at)


# -------------------- signatures


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("nn.softmax_cross_entropy_with_logits", compat.softmax_cross_entropy_with_logits),
        ("compat.v1.nn.softmax_cross_entropy_with_logits", compat.softmax_cross_entropy_with_logits_v1),
        ("nn.sparse_softmax_cross_entropy_with_logits", compat.sparse_softmax_cross_entropy_with_logits),
        ("nn.sigmoid_cross_entropy_with_logits", compat.sigmoid_cross_entropy_with_logits),
        ("nn.weighted_cross_entropy_with_logits", compat.weighted_cross_entropy_with_logits),
        ("one_hot", compat.one_hot),
    ],
)
def test_names_order_and_defaults_are_tensorflows(tf, path, ours):
    theirs = tf
    for name in path.split("."):
        theirs = getattr(theirs, name)
    expected = [(parameter.name, parameter.default) for parameter in inspect.signature(theirs).parameters.values()]

    assert [
        (parameter.name, parameter.default) for parameter in inspect.signature(ours).parameters.values()
    ] == expected


@pytest.mark.parametrize("name", ["SoftmaxCrossEntropyWithLogits", "SparseSoftmaxCrossEntropyWithLogits"])
def test_the_raw_operations_take_arguments_by_name_only(tf, name):
    x, y = np.zeros((1, 3), np.float32), np.asarray([1])
    expected = inspect.signature(getattr(tf.raw_ops, name)).parameters

    assert [*inspect.signature(getattr(compat.raw_ops, name)).parameters] == [*expected]
    for operations in (tf.raw_ops, compat.raw_ops):
        with pytest.raises(TypeError):
            getattr(operations, name)(x, y)


# -------------------- quirks: what is not finite


X = [
    [0, -inf, 1],
    [0, -inf, 1],
    [0, inf, 1],
    [-inf, -inf, -inf],
    [0, nan, 1],
    [inf, inf, 0],
    [-inf, inf, 0],
    [0, 1, 2],
]
T = [[0, 0, 1], [0.2, 0.3, 0.5], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 0]]


def both(theirs: Any, ours: Any, on: str, at: str | None, dtype: str = "float32", **arrays: Any) -> tuple[Any, Any]:
    """The peer's answer and ours on the same arrays."""
    inputs = SimpleNamespace(**{name: np.asarray(value, dtype) for name, value in arrays.items()})
    peer = textbook.peer_named("tensorflow")
    return answer(peer, theirs, inputs, at)[0], answer(library(on), ours, inputs, at)[0]


def close(first: np.ndarray, second: np.ndarray) -> bool:
    """To four roundings of float32 in numbers of order one; what is not finite, alike."""
    return first.shape == second.shape and np.allclose(first, second, rtol=5e-7, atol=5e-7, equal_nan=True)


@pytest.mark.parametrize(("on", "at"), [("numpy", None), ("torch", "x"), ("jax", "x"), ("torch", "t"), ("jax", "t")])
def test_infinite_logits_of_targets_give_nan_and_its_gradients(tf, on, at):
    theirs, ours = both(
        lambda a: tf.nn.softmax_cross_entropy_with_logits(a.t, a.x),
        lambda a: compat.softmax_cross_entropy_with_logits(a.t, a.x),
        on,
        at,
        x=X,
        t=T,
    )

    assert close(ours, theirs), (ours, theirs)


def test_a_logit_of_minus_infinity_without_a_target_costs_nan_and_has_a_finite_gradient(tf):
    x = torch.tensor([[0.0, -inf, 1.0]], requires_grad=True)
    loss = compat.softmax_cross_entropy_with_logits(torch.tensor([[0.0, 0.0, 1.0]]), x)
    loss.sum().backward()

    assert torch.isnan(loss).all() and torch.isfinite(x.grad).all()


@pytest.mark.parametrize(("on", "at"), [("numpy", None), ("torch", "x"), ("jax", "x")])
def test_infinite_logits_of_labels_give_tensorflows_answer(tf, on, at):
    y = [2, 1, 1, 2, 2, 2, 1, 0]
    theirs, ours = both(
        lambda a: tf.nn.sparse_softmax_cross_entropy_with_logits(y, a.x),
        lambda a: compat.sparse_softmax_cross_entropy_with_logits(y, a.x),
        on,
        at,
        x=X,
    )

    assert close(ours, theirs), (ours, theirs)


EDGES = [-inf, -200.0, -1.0, -0.0, 0.0, 1.0, 100.0, inf, nan]
SHARES = [-1.0, 0.0, 0.3, 1.0, 2.0]


@pytest.mark.parametrize("name", ["sigmoid", "weighted", "weighted by element"])
@pytest.mark.parametrize(("on", "at"), [("numpy", None), ("torch", "x"), ("jax", "x")])
def test_infinite_logits_of_yes_or_no_give_tensorflows_answer(tf, name, on, at):
    x, z = (one.astype(np.float32) for one in np.meshgrid(EDGES, SHARES))

    def run(module: Any) -> Any:
        if name == "sigmoid":
            return lambda a: module.sigmoid_cross_entropy_with_logits(a.z, a.x)
        if name == "weighted":
            return lambda a: module.weighted_cross_entropy_with_logits(a.z, a.x, 3.0)
        return lambda a: module.weighted_cross_entropy_with_logits(a.z, a.x, a.c)

    theirs, ours = both(run(tf.nn), run(compat), on, at, x=x, z=z, c=np.full((5, 1), 3.0))

    assert np.allclose(ours, theirs, rtol=1e-6, atol=1e-6, equal_nan=True), (ours, theirs)


@pytest.mark.parametrize("on", ["torch", "jax"])
def test_the_gradient_of_a_yes_or_no_at_an_infinite_logit_is_tensorflows(tf, on):
    x, z = (one.astype(np.float32) for one in np.meshgrid([-inf, -200.0, 0.5, inf], [0.0, 0.5, 1.0]))
    theirs, ours = both(
        lambda a: tf.nn.sigmoid_cross_entropy_with_logits(a.z, a.x),
        lambda a: compat.sigmoid_cross_entropy_with_logits(a.z, a.x),
        on,
        "z",
        x=x,
        z=z,
    )

    assert close(ours, theirs) and np.isinf(ours[:, [0, 3]]).all()


# -------------------- quirks: derivatives


def test_targets_that_do_not_sum_to_one_have_the_gradient_p_minus_t(tf):
    t = [[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    theirs, ours = both(
        lambda a: tf.nn.softmax_cross_entropy_with_logits(a.t, a.x),
        lambda a: compat.softmax_cross_entropy_with_logits(a.t, a.x),
        "torch",
        "x",
        x=np.zeros((2, 3)),
        t=t,
    )

    assert close(ours, theirs) and close(ours, 1 / 3 - np.asarray(t))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own forward mode
@pytest.mark.parametrize("transform", ["torch.func.grad", "torch.func.jvp", "torch.func.vmap", "jax.jvp", "jax.vmap"])
def test_the_gradient_is_p_minus_t_in_every_mode_of_autodiff(transform):
    x, t, e = np.float32([0.1, 0.7]), np.float32([2.0, 3.0]), np.float32([1.0, 0.0])
    want = (xent.softmax(x) - t)[0]

    def loss(x: Any, t: Any) -> Any:
        return compat.softmax_cross_entropy_with_logits(t, x)

    if transform.startswith("torch"):
        x, t, e = (torch.from_numpy(one) for one in (x, t, e))
        result = {
            "torch.func.grad": lambda: torch.func.grad(loss)(x, t)[0],
            "torch.func.jvp": lambda: torch.func.jvp(lambda x: loss(x, t), (x,), (e,))[1],
            "torch.func.vmap": lambda: torch.func.vmap(torch.func.grad(loss))(x[None], t[None])[0, 0],
        }[transform]()
    else:
        x, t, e = (jax.numpy.asarray(one) for one in (x, t, e))
        result = {
            "jax.jvp": lambda: jax.jvp(lambda x: loss(x, t), (x,), (e,))[1],
            "jax.vmap": lambda: jax.vmap(jax.grad(loss))(x[None], t[None])[0, 0],
        }[transform]()

    assert abs(float(result) - want) < 1e-6


@pytest.mark.parametrize("on", ["torch", "jax"])
@pytest.mark.parametrize("t", [[[0.2, 0.3, 0.5]], [[1.0, 1.0, 1.0]]], ids=["of sum 1", "of sum 3"])
def test_the_second_derivative_of_targets_is_tensorflows(tf, on, t):
    x = np.float32([[0.3, -0.2, 1.1]])
    at = tf.constant(x)
    with tf.GradientTape() as outer:
        outer.watch(at)
        with tf.GradientTape() as inner:
            inner.watch(at)
            loss = tf.reduce_sum(tf.nn.softmax_cross_entropy_with_logits(t, at))
        gradient = inner.gradient(loss, at)
    theirs = outer.jacobian(gradient, at).numpy()
    there = library(on)
    truth = there.asarray(np.float32(t))
    ours = there.hessian(lambda x: compat.softmax_cross_entropy_with_logits(truth, x), there.asarray(x))

    assert close(np.asarray(there.numpy(ours), np.float64), theirs.astype(np.float64))


@pytest.mark.parametrize("on", ["torch", "jax"])
def test_the_derivative_in_the_logits_of_the_gradient_in_the_targets_is_tensorflows(tf, on):
    x, t, there = np.float32([[0.3, -0.2, 1.1]]), np.float32([[2.0, 0.5, 0.5]]), library(on)
    at, truth = tf.constant(x), tf.constant(t)
    with tf.GradientTape() as outer:
        outer.watch(at)
        with tf.GradientTape() as inner:
            inner.watch(truth)
            loss = tf.nn.softmax_cross_entropy_with_logits(truth, at)
        first = inner.gradient(loss, truth)[0, 0]
    theirs = outer.gradient(first, at).numpy()

    if on == "torch":
        at, truth = (torch.from_numpy(one).requires_grad_() for one in (x, t))
        (first,) = torch.autograd.grad(compat.softmax_cross_entropy_with_logits(truth, at), truth, create_graph=True)
        (ours,) = torch.autograd.grad(first[0, 0], at)
    else:
        in_t = jax.grad(lambda t, x: compat.softmax_cross_entropy_with_logits(t, x).sum())
        ours = jax.grad(lambda x: in_t(t, x)[0, 0])(x)

    assert close(np.asarray(there.numpy(ours)), theirs)


@pytest.mark.parametrize("on", ["torch", "jax"])
def test_version_one_stops_the_gradient_into_the_targets(tf, on):
    x, t = np.float32([[0.3, -0.2, 1.1]]), np.float32([[0.2, 0.3, 0.5]])
    there, v1 = library(on), compat.softmax_cross_entropy_with_logits_v1
    at, truth = tf.constant(x), tf.constant(t)
    with tf.GradientTape() as tape:
        tape.watch([at, truth])
        loss = tf.compat.v1.nn.softmax_cross_entropy_with_logits(labels=truth, logits=at)
    in_x, in_t = tape.gradient(loss, [at, truth])
    x, t = there.asarray(x), there.asarray(t)
    ours_in_x = there.gradient(lambda x: v1(labels=t, logits=x), x)
    ours_in_t = there.gradient(lambda t: v1(labels=t, logits=x) + 0 * t.sum(), t)

    assert in_t is None and same(there.numpy(ours_in_t), np.zeros((1, 3)))
    assert close(np.asarray(there.numpy(ours_in_x)), in_x.numpy())


def test_the_weighted_gradient_at_a_logit_of_zero_is_tensorflows_own(tf):
    x = torch.zeros(1, requires_grad=True)
    compat.weighted_cross_entropy_with_logits(torch.tensor([0.25]), x, 3.0).sum().backward()
    at = tf.constant([0.0])
    with tf.GradientTape() as tape:
        tape.watch(at)
        loss = tf.nn.weighted_cross_entropy_with_logits([0.25], at, 3.0)

    assert x.grad.tolist() == tape.gradient(loss, at).numpy().tolist() == [0.75]  # the derivative of the loss is 0


# -------------------- quirks: shapes, dtypes, defaults


@pytest.mark.parametrize(
    ("labels_shape", "logits_shape"),
    [((3,), (2, 3)), ((1, 3), (2, 3)), ((2, 1), (2, 3)), ((1, 1), (2, 3)), ((2, 1, 3), (2, 3)), ((2, 3), (1, 2, 3)),
     ((3,), (2, 2, 3)), ((2, 3), (2, 1)), ((3,), (3,))],
)  # fmt: skip
@pytest.mark.parametrize("on", ["numpy", "torch", "jax"])
def test_labels_spread_over_rows_or_classes_as_tensorflow_spreads_them(tf, on, labels_shape, logits_shape):
    rng = np.random.default_rng(1)
    theirs, ours = both(
        lambda a: tf.nn.softmax_cross_entropy_with_logits(a.t, a.x),
        lambda a: compat.softmax_cross_entropy_with_logits(a.t, a.x),
        on,
        None,
        x=rng.standard_normal(logits_shape),
        t=rng.random(labels_shape),
    )

    assert close(ours, theirs)


def test_labels_of_one_row_spread_beside_a_class_axis_that_is_not_the_last(tf):
    rng = np.random.default_rng(1)
    x, t = rng.standard_normal((3, 2, 4), np.float32), rng.random((3, 1, 1), np.float32)
    theirs, ours = (module.softmax_cross_entropy_with_logits(t, x, axis=0) for module in (tf.nn, compat))

    assert close(ours, theirs.numpy())


@pytest.mark.parametrize(
    ("labels_shape", "logits_shape", "axis"),
    [((2, 3), (1, 3), -1), ((4, 3), (2, 3), -1), ((2, 2), (2, 3), -1), ((), (2, 3), -1), ((3,), (), -1),
     ((2,), (2, 3), 0), ((1, 2, 3), (2, 3), 0), ((2, 3), (2,), 0), ((0, 3), (2, 3), -1)],
)  # fmt: skip
@pytest.mark.parametrize("on", ["numpy", "torch", "jax"])
def test_logits_do_not_spread_over_rows_and_neither_does_what_does_not_fit(tf, labels_shape, logits_shape, axis, on):
    t, x, there = np.ones(labels_shape, np.float32), np.ones(logits_shape, np.float32), library(on)

    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.nn.softmax_cross_entropy_with_logits(t, x, axis=axis)
    with pytest.raises(ValueError, match="`labels` must broadcast"):
        compat.softmax_cross_entropy_with_logits(there.asarray(t), there.asarray(x), axis=axis)


@pytest.mark.parametrize(
    ("labels_shape", "logits_shape", "axis"),
    [((0, 3), (0, 3), -1), ((1, 3), (0, 3), -1), ((3,), (2, 0, 3), -1), ((3, 0), (3, 0), 0), ((1, 1), (0, 3), -1)],
)
def test_no_rows_have_no_losses(tf, labels_shape, logits_shape, axis):
    t, x = np.ones(labels_shape, np.float32), np.ones(logits_shape, np.float32)
    theirs, ours = (m.softmax_cross_entropy_with_logits(t, x, axis=axis) for m in (tf.nn, compat))

    assert ours.shape == tuple(theirs.shape)


@pytest.mark.parametrize(("labels", "logits"), [([0, 0, 0], [[1.0], [-1.0], [0.0]]), (0, [1.0]), (2, [1.0, 0.0, 3.0])])
def test_one_class_and_one_row_of_labels_are_tensorflows(tf, labels, logits):
    theirs, ours = (m.sparse_softmax_cross_entropy_with_logits(labels, logits) for m in (tf.nn, compat))

    assert close(np.asarray(ours), theirs.numpy())


def test_one_class_of_targets_has_tensorflows_gradient(tf):
    theirs, ours = both(
        lambda a: tf.nn.softmax_cross_entropy_with_logits(a.t, a.x),
        lambda a: compat.softmax_cross_entropy_with_logits(a.t, a.x),
        "torch",
        "x",
        x=[[1.0], [-1.0], [0.0], [1.0]],
        t=[[-1.0], [0.0], [1.0], [1.0]],
    )

    assert close(ours, theirs) and same(ours, [[2.0], [1.0], [0.0], [0.0]])


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool", "float64", "float16"])
def test_targets_of_any_dtype_are_cast_to_that_of_the_logits(tf, dtype):
    x, t = np.float32([[1, 2, 3], [0, 0, 0]]), np.asarray([[0, 1, 0], [1, 0, 1]], dtype)

    theirs, ours = (module.softmax_cross_entropy_with_logits(t, x) for module in (tf.nn, compat))

    assert ours.dtype == np.float32 and close(ours, theirs.numpy())


def test_lists_are_taken_with_float32_for_pythons_floats(tf):
    calls = [
        lambda module: module.softmax_cross_entropy_with_logits([[0, 1, 0]], [[1.0, 2.0, 3.0]]),
        lambda module: module.sparse_softmax_cross_entropy_with_logits([1], [[1.0, 2.0, 3.0]]),
        lambda module: module.sigmoid_cross_entropy_with_logits([1.0], [2.0]),
        lambda module: module.weighted_cross_entropy_with_logits([1.0], [2.0], 3),
    ]

    for call in calls:
        theirs, ours = call(tf.nn), call(compat)
        assert ours.dtype == theirs.dtype.as_numpy_dtype == np.float32 and close(ours, theirs.numpy())


def test_tensors_are_refused_and_numpys_float64_stays(tf):
    pandas = pytest.importorskip("pandas")
    t, x = np.float64([[0.1, 0.2, 0.7]]), np.float64([[1, 2, 3]])
    for inputs in (x, [x[0]], [[*x[0]]], pandas.DataFrame(x)):
        theirs, ours = (module.softmax_cross_entropy_with_logits(t, inputs) for module in (tf.nn, compat))
        assert ours.dtype == theirs.dtype.as_numpy_dtype == np.float64 and close(ours, theirs.numpy())
    for inputs in (tf.constant(x), tf.Variable(x), [tf.constant(x[0])]):
        with pytest.raises(TypeError, match=r"TensorFlow tensor, .*\.numpy\(\)"):
            compat.softmax_cross_entropy_with_logits(t, inputs)


def test_no_axis_is_the_last_and_a_weight_may_be_a_bool(tf):
    x, t = np.float32([[1, 2, 3], [0, 0, 0]]), np.float32([[0, 1, 0], [0.2, 0.3, 0.5]])
    calls = [
        lambda nn, v1: nn.softmax_cross_entropy_with_logits(t, x, axis=None),
        lambda nn, v1: v1(labels=t, logits=x, dim=None),
        lambda nn, v1: nn.weighted_cross_entropy_with_logits(t, x, True),
    ]
    for call in calls:
        theirs = call(tf.nn, tf.compat.v1.nn.softmax_cross_entropy_with_logits)
        assert close(call(compat, compat.softmax_cross_entropy_with_logits_v1), theirs.numpy())


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_version_one_calls_its_axis_dim(tf, dim):
    x, t = np.float32([[1, 2, 3], [0, 0, 0]]), np.float32([[0, 1, 0], [0.2, 0.3, 0.5]])
    theirs = tf.compat.v1.nn.softmax_cross_entropy_with_logits(labels=t, logits=x, dim=dim)
    again = compat.softmax_cross_entropy_with_logits_v1(labels=t, logits=x, dim=None, axis=dim)

    assert close(compat.softmax_cross_entropy_with_logits_v1(labels=t, logits=x, dim=dim), theirs.numpy())
    assert close(again, theirs.numpy())


def test_version_one_refuses_an_axis_beside_its_dim_and_missing_labels(tf):
    x = np.zeros((1, 3), np.float32)

    for theirs in (tf.compat.v1.nn.softmax_cross_entropy_with_logits, compat.softmax_cross_entropy_with_logits_v1):
        with pytest.raises(ValueError):
            theirs(labels=x, logits=x, axis=1)
        with pytest.raises(ValueError):
            theirs(logits=x)


@pytest.mark.parametrize(
    ("indices", "depth", "keywords"),
    [
        ([0, 2, -1, 5], 3, {}),
        ([0, 2], 3, {"axis": 0}),
        (1, 3, {}),
        ([[0, 2]], 3, {"axis": 1}),
        ([0, 2], 3, {"on_value": 5, "off_value": 1}),
        ([0, 2], 3, {"off_value": 7}),
        ([0, 2], 3, {"on_value": 2.5, "off_value": -1.0}),
        ([0, 2], 3, {"on_value": True, "off_value": False}),
        ([0, 2], 3, {"on_value": np.float64(2)}),
        ([0, 2], 3, {"on_value": 5, "dtype": "float64"}),
        ([0, 2], 3, {"on_value": 2.5, "off_value": 1.0, "dtype": "float16"}),
        (np.asarray([0, 2, 255], np.uint8), 3, {}),
        (np.asarray([0, -128], np.int8), 200, {}),
        (np.asarray([], np.int64), 3, {}),
        ([0, 2], 3, {"dtype": float}),
        ([0, 2], 3, {"dtype": np.float32}),
        ([0, 2], 3, {"on_value": 2**40}),
        ([0, 2], 3, {"on_value": True, "dtype": "float32"}),
        ([True, False], 3, {}),
    ],
)
def test_one_hot_is_tensorflows_dtype_included(tf, indices, depth, keywords):
    theirs, ours = tf.one_hot(indices, depth, **keywords).numpy(), compat.one_hot(indices, depth, **keywords)

    assert ours.dtype == theirs.dtype and same(ours, theirs)


def test_one_hot_refuses_a_float_for_an_integer(tf):
    for module in (tf, compat):
        with pytest.raises(TypeError, match="float"):
            module.one_hot([0, 2], 3, on_value=2.5, dtype="int32")


def test_one_hot_refuses_a_fraction_for_its_depth_and_several_values(tf):
    for module in (tf, compat):
        with pytest.raises(TypeError):
            module.one_hot([0, 2], 2.0)
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
            module.one_hot([0, 2], 3, [1, 2])


def test_one_hot_cuts_numpys_floats_in_tensorflow_only(tf):
    indices = np.float32([0, 2.5])

    assert same(tf.one_hot(indices, 3).numpy(), [[1, 0, 0], [0, 0, 1]])
    with pytest.raises(TypeError, match="must be integers"):
        compat.one_hot(indices, 3)


def test_one_hot_refuses_two_values_of_different_dtypes(tf):
    for module in (tf, compat):
        with pytest.raises(TypeError, match="on_value"):
            module.one_hot([0, 2], 3, 5.0, 1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_raw_operations_return_both_in_the_dtype_of_the_features(tf, dtype):
    x, t = np.zeros((2, 3), ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype), np.eye(3)[:2]
    theirs = tf.raw_ops.SoftmaxCrossEntropyWithLogits(features=x, labels=t.astype(x.dtype))
    ours = compat.raw_ops.SoftmaxCrossEntropyWithLogits(features=x, labels=t.astype(x.dtype))
    labelled = compat.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=x, labels=[0, 1])

    assert ours._fields == theirs._fields == ("loss", "backprop")
    for one in (*theirs, *ours, *labelled):
        assert dtype_of(one) == dtype


@pytest.mark.parametrize(("features", "labels_"), [((1, 3), (2, 3)), ((2, 3), (1, 3)), ((2, 1), (2, 3))])
def test_the_raw_operation_spreads_features_and_labels_alike(tf, features, labels_):
    x, t = np.random.default_rng(2).random(features, np.float32), np.random.default_rng(3).random(labels_, np.float32)
    theirs = tf.raw_ops.SoftmaxCrossEntropyWithLogits(features=x, labels=t)
    ours = compat.raw_ops.SoftmaxCrossEntropyWithLogits(features=x, labels=t)

    assert all(close(mine, its.numpy()) for mine, its in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("on", ["numpy", "torch", "jax"])
def test_the_raw_operations_have_a_row_of_nan_for_an_infinite_logit(tf, on):
    x, t, y = np.float32([[0, inf, 1], [0, 1, 2]]), np.float32([[0, 1, 0], [0, 0, 1]]), np.asarray([1, 2])
    for name, truth in (("SoftmaxCrossEntropyWithLogits", t), ("SparseSoftmaxCrossEntropyWithLogits", y)):
        theirs = getattr(tf.raw_ops, name)(features=x, labels=truth)
        there = library(on)
        ours = getattr(compat.raw_ops, name)(features=there.asarray(x), labels=there.asarray(truth))

        assert all(close(np.asarray(there.numpy(a)), b.numpy()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("on", ["torch", "jax"])
def test_the_raw_operation_of_labels_is_differentiable_in_its_loss(on):
    x, y = np.float32([[0.1, 0.5, 1], [0, 1, 2]]), np.asarray([1, 2])
    there = library(on)
    truth, at = there.asarray(y), there.asarray(x)
    result = there.gradient(
        lambda x: compat.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=x, labels=truth).loss, at
    )
    pair = compat.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=at, labels=truth)

    assert close(np.asarray(there.numpy(result)), np.asarray(there.numpy(pair.backprop)))


# -------------------- labels out of range


@pytest.mark.parametrize("label", [3, -1])
@pytest.mark.parametrize("on", ["numpy", "torch", "jax"])
def test_a_label_out_of_range_is_an_error_on_the_cpu(tf, label, on):
    x, y, there = np.zeros((2, 3), np.float32), np.asarray([1, label]), library(on)

    with pytest.raises(tf.errors.InvalidArgumentError, match=str(label)):
        tf.nn.sparse_softmax_cross_entropy_with_logits(y, x)
    with pytest.raises(xent.LabelError, match=str(label)):
        compat.sparse_softmax_cross_entropy_with_logits(there.asarray(y), there.asarray(x))


def test_a_label_out_of_range_is_nan_where_it_is_compiled(tf):
    x, y = np.zeros((2, 3), np.float32), np.asarray([1, 3])

    def run(module: Any) -> Any:
        return lambda x, y: module.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=x, labels=y)

    theirs, ours = tf.function(run(tf), jit_compile=True)(x, y), jax.jit(run(compat))(x, y)

    assert all(close(np.asarray(mine), its.numpy()) for mine, its in zip(ours, theirs, strict=True))


# -------------------- what one of the two refuses


@pytest.mark.parametrize(
    ("name", "truth", "x", "want"),
    [
        *(("sparse_softmax", np.asarray([1], one), np.float32([[0, 0]]), [np.log(2)]) for one in
          ("int8", "uint8", "int16", "uint16", "uint32", "uint64")),
        ("sigmoid", np.asarray([1, 0]), np.float32([0, 0]), [np.log(2), np.log(2)]),
        ("sigmoid", np.float64([1, 0]), np.float32([0, 0]), [np.log(2), np.log(2)]),
    ],
)  # fmt: skip
def test_what_tensorflow_refuses_and_xent_takes(tf, name, truth, x, want):
    with pytest.raises(tf.errors.InvalidArgumentError):
        getattr(tf.nn, f"{name}_cross_entropy_with_logits")(truth, x)

    assert close(getattr(compat, f"{name}_cross_entropy_with_logits")(truth, x), np.float32(want))


def test_a_class_axis_counted_from_the_end_is_taken(tf):
    x, t = np.float32([[1, 2, 3], [0, 0, 0]]), np.float32([[0, 1, 0], [0.2, 0.3, 0.5]])
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.nn.softmax_cross_entropy_with_logits(t, x, axis=-2)

    theirs = tf.nn.softmax_cross_entropy_with_logits(t, x, axis=0)

    assert close(compat.softmax_cross_entropy_with_logits(t, x, axis=-2), theirs.numpy())


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda module: module.softmax_cross_entropy_with_logits(np.eye(3), np.eye(3, dtype=int)), TypeError),
        (lambda module: module.sparse_softmax_cross_entropy_with_logits([1.0], np.float32([[0, 0]])), TypeError),
        (lambda module: module.sparse_softmax_cross_entropy_with_logits([[1]], np.float32([[0, 0]])), ValueError),
        (lambda module: module.sparse_softmax_cross_entropy_with_logits([1, 1], np.float32([[0, 0]])), ValueError),
        (lambda module: module.sparse_softmax_cross_entropy_with_logits([0], np.zeros((1, 0), "float32")), ValueError),
        (lambda module: module.sparse_softmax_cross_entropy_with_logits(0, np.float32(1)), ValueError),
        (lambda module: module.sparse_softmax_cross_entropy_with_logits(0, np.float32([[7]])), ValueError),
        (lambda module: module.sparse_softmax_cross_entropy_with_logits([[0, 2]], np.zeros((3, 2), "f4")), ValueError),
        (lambda module: module.sigmoid_cross_entropy_with_logits(np.float32([[1]]), np.float32([[0, 0]])), ValueError),
        (lambda module: module.sigmoid_cross_entropy_with_logits(np.float32([1]), np.asarray([2])), TypeError),
        (lambda module: module.sigmoid_cross_entropy_with_logits(logits=np.float32([1])), ValueError),
        (lambda module: module.weighted_cross_entropy_with_logits(
            np.float32([[1, 1]]), np.float32([[0, 0]] * 2), np.float32([[1], [2]])), ValueError),
    ],
)  # fmt: skip
def test_what_both_refuse(tf, call, error):
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        call(tf.nn)
    with pytest.raises(error, match=r"must .*, got .*\. "):
        call(compat)


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3)])
@pytest.mark.parametrize("name", ["SoftmaxCrossEntropyWithLogits", "SparseSoftmaxCrossEntropyWithLogits"])
def test_the_raw_operations_take_matrices_only(tf, name, shape):
    x = np.zeros(shape, np.float32)
    truth = x if name.startswith("Softmax") else np.zeros(shape[:-1], int)

    with pytest.raises(tf.errors.InvalidArgumentError):
        getattr(tf.raw_ops, name)(features=x, labels=truth)
    with pytest.raises(ValueError, match=r"must have shape \(N, C\)"):
        getattr(compat.raw_ops, name)(features=x, labels=truth)


def test_what_xent_alone_refuses(tf):
    """No classes cost 0 in TensorFlow, and a depth of 0 is an empty array: neither is a loss or a target of any."""
    none = np.zeros((2, 0), np.float32)

    assert same(tf.nn.softmax_cross_entropy_with_logits(none, none), [0, 0]) and tf.one_hot([0], 0).shape == (1, 0)
    with pytest.raises(ValueError, match="at least one class"):
        compat.softmax_cross_entropy_with_logits(none, none)
    with pytest.raises(ValueError, match="num_classes"):
        compat.one_hot([0], 0)
