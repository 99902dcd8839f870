"""xent.compat.optax against optax itself, in one process: values, gradients, dtypes and quirks."""

import inspect
import itertools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax.losses as peer
import pytest
from cases import Case, gradients, labels, outcome, targets, values
from grid import Edge, compared, inf, nan, textbook

import xent
from xent.compat import optax as compat

NAMES = (
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "safe_softmax_cross_entropy",
    "poly_loss_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
)
SOFT, INTEGER, SAFE, POLY, SIGMOID, FOCAL = NAMES


def called(name: str, *names: str, **options: Any) -> dict[str, Any]:
    """Both sides' calls of one function with the arrays of those names; an option may be one too."""

    def call(functions: Any, a: SimpleNamespace) -> Any:
        named = {key: getattr(a, value[1:]) if str(value).startswith("@") else value for key, value in options.items()}
        return getattr(functions, name)(*(getattr(a, array) for array in names), **named)

    return {"theirs": lambda p, a: call(p.optax.losses, a), "ours": lambda a: call(compat, a)}


# -------------------- the grid


def some_classes(a: SimpleNamespace) -> None:
    """A mask that leaves out two classes of each row but not the label's, and one row."""
    rows = np.arange(len(a.y))[:, None]
    a.m = ((np.arange(a.classes) + rows) % 4 != 1) | (np.arange(a.classes) == a.y[:, None])
    a.m[3] = False


def some_rows(a: SimpleNamespace) -> None:
    a.m = a.w > 1


def shown(a: SimpleNamespace) -> SimpleNamespace:
    """What takes part: the rest far below, and without a target."""
    mask = np.broadcast_to(a.m if a.m.ndim == 2 else a.m[:, None], a.x.shape)
    return SimpleNamespace(**{**vars(a), "x": np.where(mask, a.x, -1e3), "t": np.where(mask, a.t, 0)})


def of_shown(bound: Any) -> Any:
    return lambda a, u: bound(shown(a), u)


def one_row(a: SimpleNamespace) -> SimpleNamespace:
    """All axes as one: a row of all classes."""
    flat = {name: getattr(a, name).reshape(1, -1) for name in ("x", "t")}
    return SimpleNamespace(**{**vars(a), **flat, "y": np.zeros(1, int), "axis": -1, "classes": a.x.size})


def over_all(bound: Any, a_row: bool) -> Any:
    """The bound of one row that is all of the array, in the answer's shape."""
    return lambda a, u: bound(one_row(a), u).reshape(() if a_row else a.x.shape)


def poly(bound: Any) -> Any:
    """Of 1 − p beside the loss: 2 Σt times p's error, and C + 8 units of that."""

    def bound_of_reduction(a: SimpleNamespace, u: float) -> np.ndarray:
        book, t = textbook.Textbook(textbook.rows(a, "x"), u), targets(a)
        return bound(a, u) + 4 * (t * (book.p * book.error + (a.classes + 8) * u)).sum(axis=-1)

    return bound_of_reduction


def poly_gradient(a: SimpleNamespace, u: float) -> np.ndarray:
    """Of (1 + 2 p) ((Σt) p − t), with sums over the classes of p t."""
    total = targets(a).sum(axis=-1, keepdims=True)
    return 16 * textbook.gradient_of(targets)(a, u) + 4 * (a.classes + 8) * u * total


def focal(a: SimpleNamespace, u: float) -> np.ndarray:
    """Of the binary loss; and of its weight's logarithm, 8 FUNCTION units and those of x, times γ = 2 and the loss."""
    size = np.abs(a.x.astype(np.float64)) + np.log(2)
    return textbook.binary(a, u) + 2 * size * u * (8 * textbook.FUNCTION + 2 * size)


CASES = [
    Case(
        "targets",
        bound=textbook.loss_of(targets),
        gradients={"x": textbook.gradient_of(targets), "t": textbook.log_softmax},
        **called(SOFT, "x", "t"),
    ),
    Case(
        "targets along a middle axis",
        bound=textbook.loss_of(targets),
        gradients={"x": textbook.gradient_of(targets)},
        **called(SOFT, "x", "t", axis=1),
        inputs={"shape": (2, 7, 3, 5), "axis": 1},
    ),
    Case(
        "targets that sum to 3",
        bound=textbook.loss_of(targets),
        gradients={"x": textbook.gradient_of(targets)},
        **called(SOFT, "x", "t"),
        inputs={"target_sum": 3.0},
    ),
    Case(
        "targets along all axes",
        bound=over_all(textbook.loss_of(targets), True),
        gradients={"x": over_all(textbook.gradient_of(targets), False)},
        **called(SOFT, "x", "t", axis=None),
        inputs={"shape": (3, 4)},
    ),
    Case(
        "targets along two axes",
        bound=over_all(textbook.loss_of(targets), True),
        gradients={"x": over_all(textbook.gradient_of(targets), False)},
        **called(SOFT, "x", "t", axis=(1, 0)),
        inputs={"shape": (3, 4)},
    ),
    Case(
        "targets of some classes",
        bound=of_shown(textbook.loss_of(targets)),
        gradients={"x": of_shown(textbook.gradient_of(targets))},
        **called(SOFT, "x", "t", where="@m"),
        inputs={"change": some_classes},
    ),
    Case(
        "targets of some rows",
        bound=of_shown(textbook.loss_of(targets)),
        gradients={"x": of_shown(textbook.gradient_of(targets))},
        **called(SOFT, "x", "t", where="@m"),
        inputs={"change": some_rows},
    ),
    Case(
        "labels",
        bound=textbook.loss_of(labels, unshifted=True),
        gradients={"x": textbook.gradient_of(labels)},
        **called(INTEGER, "x", "y"),
    ),
    Case(
        "labels along a middle axis",
        bound=textbook.loss_of(labels, unshifted=True),
        gradients={"x": textbook.gradient_of(labels)},
        **called(INTEGER, "x", "y", axis=1),
        inputs={"shape": (2, 7, 3, 5), "axis": 1},
    ),
    Case(
        "labels of some classes",
        bound=of_shown(textbook.loss_of(labels, unshifted=True)),
        gradients={"x": of_shown(textbook.gradient_of(labels))},
        **called(INTEGER, "x", "y", where="@m"),
        inputs={"change": some_classes},
    ),
    Case(
        "labels of some rows",
        bound=of_shown(textbook.loss_of(labels, unshifted=True)),
        gradients={"x": of_shown(textbook.gradient_of(labels))},
        **called(INTEGER, "x", "y", where="@m"),
        inputs={"change": some_rows},
    ),
    Case(
        "no rows",
        bound=textbook.exactly,
        gradients={"x": textbook.exactly},
        **called(INTEGER, "x", "y"),
        inputs={"shape": (0, 7)},
    ),
    Case(
        "safe targets",
        bound=textbook.loss_of(targets),
        gradients={"x": textbook.gradient_of(targets), "t": textbook.log_softmax},
        **called(SAFE, "x", "t"),
    ),
    Case(
        "poly",
        bound=poly(textbook.loss_of(targets)),
        gradients={"x": poly_gradient},
        **called(POLY, "x", "t"),
    ),
    Case(
        "poly of some classes",
        bound=of_shown(poly(textbook.loss_of(targets))),
        gradients={"x": of_shown(poly_gradient)},
        **called(POLY, "x", "t", where="@m", epsilon=-1.0),
        inputs={"change": some_classes},
    ),
    Case(
        "yes or no",
        bound=textbook.binary,
        gradients={"x": textbook.binary_gradient, "z": lambda a, u: 2 * textbook.binary(a, u)},
        **called(SIGMOID, "x", "z"),
    ),
    Case(
        "focal",
        bound=focal,
        gradients={"x": lambda a, u: 4 * focal(a, u) + 4 * textbook.binary_gradient(a, u)},
        **called(FOCAL, "x", "z"),
    ),
    Case(
        "focal with α",
        bound=focal,
        gradients={"x": lambda a, u: 4 * focal(a, u) + 4 * textbook.binary_gradient(a, u)},
        **called(FOCAL, "x", "z", alpha=0.25),
    ),
]


@pytest.mark.parametrize(("case", "dtype", "on"), values(CASES))
def test_a_value_is_that_of_optax_in_its_dtype(case: Case, dtype: str, on: str) -> None:
    difference = outcome(case, "optax", dtype, on)

    assert not difference, difference


@pytest.mark.parametrize(("case", "dtype", "on", "at"), gradients(CASES))
def test_a_gradient_is_that_of_optax_in_its_dtype(case: Case, dtype: str, on: str, at: str) -> None:
    difference = outcome(case, "optax", dtype, on, at)

    assert not difference, difference


# -------------------- quirks that are kept

# Finite logits, −inf, −inf first, only −inf, NaN; +inf by itself.
ROWS = [[0.0, 1, 2], [0, -inf, 1.0], [-inf, 0, 1.0], [-inf, -inf, -inf], [0, nan, 1.0]]
INFINITE = [[0, inf, 1.0]]
TARGETS = {"a one-hot": [1.0, 0, 0], "a half": [0.5, 0.5, 0], "no target": [0.0, 0, 0], "two targets": [1.0, 1, 0]}
CLASSES = [[True, False, True], [False, False, False], [True, True, True]]
MASKED = [[0.0, 1, 2], [nan, 1, 2.0], [1, 2, 3.0]]
GRID = np.sqrt(np.arange(12.0)).reshape(2, 2, 3)
HELD = (np.arange(12) % 5 != 2).reshape(2, 2, 3)


def edge(words: str, name: str, *arrays: Any, gradient: bool = True, **options: Any) -> Edge:
    def call(functions: Any, *arrays: Any) -> Any:
        named = {key: like(arrays[0], value) if isinstance(value, list) else value for key, value in options.items()}
        return getattr(functions, name)(*arrays, **named)

    return Edge(words, call, arrays, gradient=gradient)


def one_number(name: str, value: Any) -> Any:
    return lambda functions, x: getattr(functions, name)(x, value)


def like(array: Any, values: Any) -> Any:
    """The values in the library of an array."""
    return textbook.peer_named("torch").asarray(np.asarray(values)) if type(array).__module__ == "torch" else (
        np.asarray(values) if isinstance(array, np.ndarray) else jnp.asarray(values)
    )  # fmt: skip


EDGES = [
    *(
        edge(f"{name}: {words}, rows of every kind", name, ROWS + INFINITE, [target] * 6)
        for name, (words, target) in itertools.product((SOFT, SAFE), TARGETS.items())
        if (name, words) != (SAFE, "no target")
    ),
    edge(f"{SAFE}: no target costs 0 whatever the row", SAFE, ROWS + INFINITE, [[0.0, 0, 0]] * 6, gradient=False),
    *(
        edge(f"label {label}, rows of every kind", INTEGER, ROWS, np.asarray([label] * 5))
        for label in (0, 1, -1, -3, 3, -4, -100, 100)
    ),
    *(
        edge(f"label {label} on +inf", INTEGER, INFINITE, np.asarray([label]), gradient=False)
        for label in (0, 1, -1, 3)
    ),
    edge("a narrow label counts from the end of many classes", INTEGER, np.zeros((1, 300)), np.int8([-1])),
    edge("label 255 in bytes is out of range", INTEGER, [[0.0, 1, 2]], np.uint8([255])),
    edge("−inf among the classes left out", SOFT, [[0.0, -inf, 2]] * 3, [[0.5, 0, 0.5]] * 3, where=CLASSES),
    edge("classes left out", SOFT, MASKED, [[0.2, 0.3, 0.5]] * 3, where=CLASSES),
    edge("examples left out", SOFT, MASKED, [[0.2, 0.3, 0.5]] * 3, where=[True, False, True]),
    edge(
        "−inf under a target, beside what is left out",
        SOFT,
        [[0.0, nan, 2], [1, 1, 2.0], [1, -inf, 3.0]],
        [[0.2, 0.3, 0.5]] * 3,
        where=CLASSES,
    ),
    edge(
        "the label's class left out makes a loss that may be negative",
        INTEGER,
        MASKED,
        np.asarray([1, 1, 1]),
        where=CLASSES,
    ),
    edge("bad labels beside classes left out", INTEGER, MASKED, np.asarray([0, -1, 3]), where=CLASSES),
    edge(
        "NaN that is left out", INTEGER, [[0, nan, 1.0], [1, 1, 1], [1, 1, 1.0]], np.asarray([0, -1, 2]), where=CLASSES
    ),
    edge("labels of examples left out", INTEGER, MASKED, np.asarray([0, 1, 2]), where=[True, False, True]),
    edge("poly with classes left out", POLY, MASKED, [[0.2, 0.3, 0.5]] * 3, where=CLASSES),
    edge("poly with −inf at target 0", POLY, [[0.0, -inf, 2]], [[1.0, 0, 0]]),
    edge("poly with +inf", POLY, [[0.0, inf, 2]], [[1.0, 0, 0]]),
    edge("a label counts along two axes, in their order", INTEGER, GRID, np.asarray([5, 2]), axis=(2, 0)),
    edge("or in the other order", INTEGER, GRID, np.asarray([5, 2]), axis=(0, 2)),
    edge("two axes with classes left out", INTEGER, GRID, np.asarray([5, 2]), axis=(0, 2), where=HELD.tolist()),
    edge(
        "targets along two axes with classes left out",
        SOFT,
        GRID,
        np.full((2, 2, 3), 1 / 6),
        axis=(0, 2),
        where=HELD.tolist(),
    ),
    edge(
        "targets along two axes with examples left out",
        SOFT,
        GRID,
        np.full((2, 2, 3), 1 / 6),
        axis=(0, 2),
        where=[True, False],
    ),
    edge("targets along no axis", SOFT, GRID, np.full((2, 2, 3), 1 / 6), axis=()),
    edge("labels along no axis", INTEGER, GRID[0], np.asarray([[0, -1, 0], [1, -2, 0]]), axis=()),
    *(
        Edge(
            f"{name}: {value} for all",
            one_number(name, value),
            ([[0.0, 1, 2], [3, 1, 2]],),
            gradient=name != SAFE or isinstance(value, float),  # optax's own fails
        )
        for name, value in itertools.product((SOFT, SAFE, POLY, SIGMOID, FOCAL), (1.0, 0.5, 1, True))
        if name != POLY or isinstance(value, float)
    ),
    Edge("an int for a label", one_number(INTEGER, -1), ([0.0, 1, 2],)),
    edge("labels along the first axis", INTEGER, GRID[0], np.asarray([0, 1, 1]), axis=0),
    edge("targets spread over the rows", SOFT, [[0.0, 1, 2]] * 3, [0.2, 0.3, 0.5]),
    edge("logits spread over the targets", SOFT, [0.0, 1, 2], [[0.2, 0.3, 0.5]] * 3),
    edge("a label spread over the rows", INTEGER, [[0.0, 1, 2]] * 2, np.asarray([0])),
    edge("logits spread over the labels", INTEGER, [[0.0, 1, 2]], np.asarray([0, 1])),
    edge("targets of integers", SOFT, [[0.0, 1, 2]], np.asarray([[0, 0, 1]])),
    edge("targets of bools", SOFT, [[0.0, 1, 2]], np.asarray([[False, False, True]])),
    *(
        edge(f"yes or no at infinities, target {t}", SIGMOID, [0.0, 3, -50, inf, -inf, nan], np.float64(t))
        for t in (0, 0.3, 1, 2, -1)
    ),
    edge("logits spread over yes and no", SIGMOID, [1.0, 2], np.asarray([[0, 1], [1, 1]])),
    *(
        edge(f"focal at infinities, target {t}", FOCAL, [0.0, inf, -inf, nan], np.float64(t), gradient=False)
        for t in (0, 0.3, 1)
    ),
    *(
        edge(f"focal far out, target {t}", FOCAL, [0.0, 3, -50, 200, -200], np.float64(t), alpha=0.25, gamma=0.5)
        for t in (0, 0.3, 1)
    ),
    *(
        edge(f"focal with γ = 0, target {t}", FOCAL, [0.0, 3, -50, 200, -200], np.float64(t), gamma=0.0)
        for t in (0, 0.3, 1)
    ),
    edge("focal with α for each", FOCAL, [1.0, 2], [0.0, 1], alpha=[0.2, 0.3]),
]


@pytest.mark.parametrize("on", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_an_edge_is_optax_s(edge: Edge, on: str) -> None:
    agreed = compared(edge, "optax", peer, compat, on)

    assert all(agreed), agreed


# -------------------- what is not followed

NOT_FOLLOWED = [
    (edge("a label's gradient at +inf is NaN there alone", INTEGER, [[inf, 0, 1.0]], np.asarray([1])), [True, False]),
    (edge("a label beside two +inf costs +inf", INTEGER, [[inf, inf, 1.0]], np.asarray([2]), gradient=False), [False]),
    (
        edge(
            "an offset of 1e6 costs a third of a small loss", INTEGER, [[1e6 + 3, 1e6]], np.asarray([0]), gradient=False
        ),
        [False],
    ),
]


@pytest.mark.parametrize(("edge", "expected"), NOT_FOLLOWED, ids=[edge.name for edge, _ in NOT_FOLLOWED])
def test_what_is_not_followed_is_still_otherwise(edge: Edge, expected: list[bool]) -> None:
    agreed = compared(edge, "optax", peer, compat, "jax")

    assert agreed == expected


def test_a_tiny_loss_is_0_in_optax_only() -> None:
    logits, label = jnp.asarray([[0.0, -20.0]]), jnp.asarray([0])

    assert float(peer.softmax_cross_entropy_with_integer_labels(logits, label)[0]) == 0
    result = compat.softmax_cross_entropy_with_integer_labels(logits, label)
    assert float(result[0]) == pytest.approx(2.0611536e-9, rel=1e-6)


def test_many_classes_overflow_in_optax_s_float16_only() -> None:
    logits, label = jnp.zeros((1, 100_000), jnp.float16), jnp.asarray([0])

    assert jnp.isinf(peer.softmax_cross_entropy_with_integer_labels(logits, label)[0])
    result = compat.softmax_cross_entropy_with_integer_labels(logits, label)
    assert result[0] == np.float16(np.log(100_000))


def test_no_classes_are_an_error_here_only() -> None:
    logits, label = jnp.zeros((1, 0)), jnp.asarray([0])

    assert float(peer.softmax_cross_entropy_with_integer_labels(logits, label)[0]) == -inf
    with pytest.raises(ValueError, match="at least one class"):
        compat.softmax_cross_entropy_with_integer_labels(logits, label)


def test_logits_of_one_class_are_not_spread_over_the_classes() -> None:
    logits, target = jnp.zeros((1, 1)), jnp.asarray([[0.5, 0.5]])

    assert float(peer.softmax_cross_entropy(logits, target)[0]) == 0
    with pytest.raises(ValueError, match="as many classes"):
        compat.softmax_cross_entropy(logits, target)


def test_the_forward_mode_of_the_safe_loss_is_right_here_only() -> None:
    logits, target = jnp.asarray([0.0, -inf, 1.0]), jnp.asarray([1.0, 0, 0])
    tangents = [
        jax.jvp(lambda x, f=functions: f.safe_softmax_cross_entropy(x, target), (logits,), (jnp.ones(3),))[1]
        for functions in (peer, compat)
    ]

    assert np.isfinite(tangents[1])
    assert not np.isfinite(tangents[0])


def test_a_mask_of_more_axes_is_spread_by_optax_only() -> None:
    logits, target, mask = jnp.zeros(3), jnp.ones(3), jnp.ones((2, 3), bool)

    assert peer.softmax_cross_entropy(logits, target, where=mask).shape == (2, 3)
    with pytest.raises(ValueError, match="`where` must have the axes of the logits or of the examples"):
        compat.softmax_cross_entropy(logits, target, where=mask)


def test_an_axis_from_the_front_is_refused_where_the_targets_have_more() -> None:
    logits, target = jnp.zeros(3), jnp.full((2, 3), 1 / 3)

    assert peer.softmax_cross_entropy(logits, target, axis=0).shape == (3,)  # the sum over the two examples
    with pytest.raises(ValueError, match="must count from the end"):
        compat.softmax_cross_entropy(logits, target, axis=0)
    assert compat.softmax_cross_entropy(logits, target, axis=-1).shape == (2,)


# -------------------- signatures and errors


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", [SOFT, POLY, SIGMOID, FOCAL])
def test_a_python_number_has_no_say_in_the_dtype(name: str, dtype: str) -> None:
    logits = jnp.zeros((2, 3), dtype)

    assert getattr(compat, name)(logits, 0.5).dtype == getattr(peer, name)(logits, 0.5).dtype


@pytest.mark.parametrize("name", NAMES)
def test_a_signature_is_optax_s(name: str) -> None:
    def plain(function: Any) -> list[tuple[str, Any, Any]]:
        return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]

    assert plain(getattr(compat, name)) == plain(getattr(peer, name))


def test_every_cross_entropy_of_optax_is_here() -> None:
    names = {name for name in dir(peer) if "cross_entropy" in name or "focal" in name}

    assert names == set(NAMES)


REFUSED = {
    "logits of integers": lambda f: f.softmax_cross_entropy(jnp.asarray([[1, 2]]), jnp.asarray([[0.0, 1]])),
    "labels of floats": lambda f: getattr(f, INTEGER)(jnp.zeros((1, 2)), jnp.zeros(1)),
    "labels of bools": lambda f: getattr(f, INTEGER)(jnp.zeros((1, 2)), jnp.zeros(1, bool)),
    "labels with a class axis": lambda f: getattr(f, INTEGER)(jnp.zeros((2, 3)), jnp.zeros((2, 1), int)),
    "labels along all axes": lambda f: getattr(f, INTEGER)(jnp.zeros((2, 3)), jnp.zeros((), int), axis=None),
    "poly targets of integers": lambda f: f.poly_loss_cross_entropy(jnp.zeros((1, 2)), jnp.asarray([[0, 1]])),
    **{
        f"{words}, axis {axis}": lambda f, name=name, second=second, axis=axis: getattr(f, name)(
            jnp.zeros((2, 3)), second, axis=axis
        )
        for words, name, second, axes in (
            ("targets", SOFT, jnp.zeros((2, 3)), (2, -3, (0, 2), (0, 0), (1, -1))),
            ("poly", POLY, jnp.zeros((2, 3)), (2, -3, (0, 0))),
            ("labels", INTEGER, jnp.zeros(2, int), (2, 4, -3, (0, 4))),
        )
        for axis in axes
    },
    "a mask of integers": lambda f: getattr(f, SOFT)(*[jnp.zeros((2, 3))] * 2, where=jnp.asarray([1, 0])),
    **{
        f"{name}: {words}": lambda f, name=name, arrays=arrays: getattr(f, name)(*arrays)
        for name in (SOFT, SAFE, POLY, SIGMOID, FOCAL)
        for words, arrays in {
            "other rows": (jnp.zeros((2, 3)), jnp.zeros((4, 3))),
            "other classes": (jnp.zeros((2, 3)), jnp.zeros((2, 4))),
            "logits of integers": (jnp.zeros((2, 3), int), jnp.zeros((2, 3))),
        }.items()
    },
    "other labels than rows": lambda f: getattr(f, INTEGER)(jnp.zeros((2, 3)), jnp.zeros(3, int)),
    "labels of logits of integers": lambda f: getattr(f, INTEGER)(jnp.zeros((2, 3), int), jnp.zeros(2, int)),
    **{
        f"a mask of shape {shape}, {name}": lambda f, name=name, second=second, shape=shape: getattr(f, name)(
            jnp.zeros((2, 3)), second, where=jnp.ones(shape, bool)
        )
        for name, second in ((SOFT, jnp.zeros((2, 3))), (INTEGER, jnp.zeros(2, int)))
        for shape in ((3,), (4, 3), (2, 2))
    },
    "labels in a list": lambda f: getattr(f, INTEGER)(jnp.zeros((2, 3)), [0, 1]),
    "targets in a list": lambda f: getattr(f, SOFT)(jnp.zeros((1, 2)), [[0.0, 1.0]]),
    "yes or no from integers": lambda f: f.sigmoid_binary_cross_entropy(jnp.asarray([1]), jnp.asarray([1])),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_what_optax_refuses_is_refused_with_its_type_of_error(call: Any) -> None:
    with pytest.raises(Exception) as theirs:
        call(peer)

    with pytest.raises(theirs.type):
        call(compat)


def test_a_traced_call_is_that_of_optax() -> None:
    logits, label = jnp.asarray([[0.0, 1, 2], [3, 1, 2]]), jnp.asarray([1, -1])

    result = jax.jit(compat.softmax_cross_entropy_with_integer_labels)(logits, label)

    np.testing.assert_allclose(result, peer.softmax_cross_entropy_with_integer_labels(logits, label), rtol=1e-6)


# -------------------- JAX's own softmax: the remedies of docs/migrating.md

MASKED = {
    "softmax": lambda x, m: jnp.where(m, xent.softmax(jnp.where(m, x, -inf)), 0),
    "log_softmax": lambda x, m: jnp.where(m, xent.log_softmax(jnp.where(m, x, -inf)), -inf),
    "logsumexp": lambda x, m: xent.logsumexp(jnp.where(m, x, -inf)),
}


@pytest.mark.parametrize("name", MASKED)
def test_logits_of_minus_infinity_are_the_mask_of_jax_s_own_functions(name: str) -> None:
    logits = jnp.asarray([[5.5, 1.3, -4.2], [1.0, 2.0, 3.0], [0.5, nan, 0.1]])
    mask = jnp.asarray([[True, True, True], [False, False, False], [True, False, True]])

    def theirs(x: Any) -> Any:
        return getattr(jax.nn, name)(x, axis=-1, where=mask)

    def ours(x: Any) -> Any:
        return MASKED[name](x, mask)

    def slope(function: Any) -> Any:
        return jax.grad(lambda x: jnp.sum(jnp.where(jnp.isfinite(function(x)), function(x), 0) ** 2))(logits)

    np.testing.assert_allclose(ours(logits), theirs(logits), rtol=1e-6)
    np.testing.assert_allclose(slope(ours), slope(theirs), rtol=1e-5, atol=1e-6)


def test_a_one_hot_of_what_is_no_integer_is_deprecated_in_jax_and_refused_here() -> None:
    with pytest.warns(DeprecationWarning, match="integer-typed"):
        assert jax.nn.one_hot(jnp.asarray([1.5]), 3).sum() == 0
    with pytest.raises(TypeError, match="`labels` must be integers"):
        xent.one_hot(jnp.asarray([1.5]), 3)

    assert xent.one_hot(jnp.asarray([1.5]).astype(int), 3).tolist() == [[0, 1, 0]]
