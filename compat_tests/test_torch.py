"""xent.compat.torch against torch itself, in one process: values, gradients, dtypes and quirks."""

import inspect
import itertools
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as peer
from cases import Case, gradients, labels, outcome, targets, values
from grid import Edge, class_weight, compared, inf, nan, reduction_bound, textbook, weighed

import xent
from xent.compat import torch as compat

NAMES = ("cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits")
REDUCTIONS = ("none", "sum", "mean")
smoothed = textbook.smoothed


def called(name: str, *names: str, **options: Any) -> dict[str, Any]:
    """Both sides' calls of one function with the arrays of those names; an option may be one too."""

    def call(functions: Any, a: SimpleNamespace) -> Any:
        named = {key: getattr(a, value[1:]) if str(value).startswith("@") else value for key, value in options.items()}
        return getattr(functions, name)(*(getattr(a, array) for array in names), **named)

    return {"theirs": lambda p, a: call(p.F, a), "ours": lambda a: call(compat, a)}


def some_ignored(a: SimpleNamespace) -> None:
    a.y[::4] = -100


def counted(a: SimpleNamespace) -> np.ndarray:
    return a.y >= 0


def bytes_for_labels(a: SimpleNamespace) -> None:
    a.y = a.y.astype(np.uint8)


# -------------------- the grid

CASES: list[Case] = []
SHAPES = {"rows": {}, "an image": {"shape": (3, 7, 2, 5), "axis": 1}}
for where, reduction in itertools.product(SHAPES, REDUCTIONS):
    inputs = {"inputs": SHAPES[where]}
    held = {"change": some_ignored, **SHAPES[where]}

    def title(words: str, reduction: str = reduction, where: str = where) -> str:
        return f"{words}, {where}, {reduction}"

    CASES += [
        Case(
            title("labels"),
            bound=textbook.loss_of(labels, reduction=reduction),
            gradients={"x": textbook.gradient_of(labels, reduction=reduction)},
            **called("cross_entropy", "x", "y", reduction=reduction),
            **inputs,
        ),
        Case(
            title("labels, some ignored"),
            bound=textbook.loss_of(labels, reduction=reduction, weight=counted),
            gradients={"x": textbook.gradient_of(labels, reduction=reduction, weight=counted)},
            **called("cross_entropy", "x", "y", reduction=reduction),
            inputs=held,
        ),
        Case(
            title("weighed labels, some ignored"),
            bound=textbook.loss_of(labels, reduction=reduction, weight=class_weight),
            gradients={"x": textbook.gradient_of(labels, reduction=reduction, weight=class_weight)},
            **called("cross_entropy", "x", "y", weight="@c", reduction=reduction),
            inputs=held,
        ),
        Case(
            title("smoothed labels, some ignored"),
            bound=textbook.loss_of(smoothed(labels, 0.3), reduction=reduction, weight=counted),
            gradients={"x": textbook.gradient_of(smoothed(labels, 0.3), reduction=reduction, weight=counted)},
            **called("cross_entropy", "x", "y", reduction=reduction, label_smoothing=0.3),
            inputs=held,
        ),
        Case(
            title("weighed and smoothed labels"),
            bound=reduction_bound(
                textbook.loss_of(weighed(smoothed(labels, 0.3)), reduction="none" if reduction == "none" else "sum"),
                lambda a: class_weight(a).sum(),
                reduction,
            ),
            gradients={
                "x": reduction_bound(
                    textbook.gradient_of(weighed(smoothed(labels, 0.3))), lambda a: class_weight(a).sum(), reduction
                )
            },
            **called("cross_entropy", "x", "y", weight="@c", reduction=reduction, label_smoothing=0.3),
        ),
        Case(
            title("probabilities"),
            bound=textbook.loss_of(targets, reduction=reduction),
            gradients={
                "x": textbook.gradient_of(targets, reduction=reduction),
                "t": reduction_bound(textbook.log_softmax, lambda a: a.y.size, reduction),
            },
            **called("cross_entropy", "x", "t", reduction=reduction),
            **inputs,
        ),
        Case(
            title("probabilities that sum to 3"),
            bound=textbook.loss_of(targets, reduction=reduction),
            gradients={"x": textbook.gradient_of(targets, reduction=reduction)},
            **called("cross_entropy", "x", "t", reduction=reduction),
            inputs={"target_sum": 3.0, **SHAPES[where]},
        ),
        Case(
            title("weighed and smoothed probabilities"),
            bound=textbook.loss_of(weighed(smoothed(targets, 0.3)), reduction=reduction),
            gradients={"x": textbook.gradient_of(weighed(smoothed(targets, 0.3)), reduction=reduction)},
            **called("cross_entropy", "x", "t", weight="@c", reduction=reduction, label_smoothing=0.3),
        ),
        Case(
            title("log-probabilities, some ignored"),
            bound=textbook.from_log_probabilities(labels, reduction=reduction, weight=class_weight),
            gradients={"log_p": lambda a, u: 2 * a.y.size * u * np.ones(a.x.shape)},
            **called("nll_loss", "log_p", "y", weight="@c", reduction=reduction),
            inputs=held,
        ),
        Case(
            title("binary logits"),
            bound=textbook.binary if reduction == "none" else textbook.binary_reduced(reduction),
            gradients={"x": lambda a, u: 2 * textbook.binary_gradient(a, u)},
            **called("binary_cross_entropy_with_logits", "x", "z", reduction=reduction),
            **inputs,
        ),
    ]
CASES += [
    Case(
        "labels in bytes",
        bound=textbook.loss_of(labels),
        **called("cross_entropy", "x", "y", reduction="none"),
        inputs={"change": bytes_for_labels},
    ),
    Case(
        "a common offset of 1e6",
        bound=textbook.loss_of(labels),
        **called("cross_entropy", "x", "y", reduction="none"),
        inputs={"offset": 1e6},
        dtypes=("float32", "float64"),
    ),
    Case(
        "four thousand classes",
        bound=textbook.loss_of(labels),
        gradients={"x": textbook.gradient_of(labels)},
        **called("cross_entropy", "x", "y", reduction="none"),
        inputs={"shape": (5, 4099)},
        dtypes=("float32", "float64"),
    ),
    Case(
        "no rows",
        bound=textbook.exactly,
        gradients={"x": textbook.exactly},
        **called("cross_entropy", "x", "y"),
        inputs={"shape": (0, 7)},
    ),
    Case(
        "binary logits with a positive weight for each output",
        bound=lambda a, u: textbook.binary(a, u, float(a.c.max())),
        gradients={"x": lambda a, u: textbook.binary_gradient(a, u, float(a.c.max()))},
        **called("binary_cross_entropy_with_logits", "x", "z", pos_weight="@c", reduction="none"),
    ),
    Case(
        "binary logits with a weight for each output",
        bound=lambda a, u: 2 * textbook.binary(a, u),
        gradients={"x": lambda a, u: 2 * textbook.binary_gradient(a, u)},
        **called("binary_cross_entropy_with_logits", "x", "z", weight="@c", reduction="none"),
    ),
    Case(
        "binary probabilities",
        # XLA's log1p is off by 241 units in float64.
        bound=lambda a, u: textbook.binary_from_probabilities(a, u) - 256 * u * np.log1p(-a.p.astype(np.float64)),
        gradients={"p": lambda a, u: 16 * u / (a.p * (1.0 - a.p)).astype(np.float64)},
        **called("binary_cross_entropy", "p", "z", reduction="none"),
    ),
]


@pytest.mark.parametrize(("case", "dtype", "on"), values(CASES))
def test_a_value_is_that_of_torch_in_its_dtype(case: Case, dtype: str, on: str) -> None:
    difference = outcome(case, "torch", dtype, on)

    assert not difference, difference


@pytest.mark.parametrize(("case", "dtype", "on", "at"), gradients(CASES))
def test_a_gradient_is_that_of_torch_in_its_dtype(case: Case, dtype: str, on: str, at: str) -> None:
    difference = outcome(case, "torch", dtype, on, at)

    assert not difference, difference


# -------------------- quirks that are kept


def cross(*arrays: Any, labels: Any = (0,), **options: Any) -> tuple[Any, tuple[Any, ...]]:
    """A call of cross_entropy, row by row, and its arrays: logits and labels."""
    return lambda f, x, y: f.cross_entropy(x, y, **{"reduction": "none", **options}), (arrays, np.asarray(labels))


def weighing(rows: Any, labels: Any, weight: Any, name: str = "cross_entropy", **options: Any) -> tuple[Any, Any]:
    def call(f: Any, x: Any, y: Any, w: Any) -> Any:
        return getattr(f, name)(x, y, w, **{"reduction": "none", **options})

    return call, (rows, np.asarray(labels), weight)


def soft(rows: Any, probabilities: Any, **options: Any) -> tuple[Any, Any]:
    return lambda f, x, t: f.cross_entropy(x, t, **{"reduction": "none", **options}), (rows, probabilities)


def on_elements(name: str, first: Any, second: Any, **options: Any) -> tuple[Any, Any]:
    return lambda f, x, t: getattr(f, name)(x, t, **{"reduction": "none", **options}), (first, second)


BCE, LOGITS = "binary_cross_entropy", "binary_cross_entropy_with_logits"
EDGES = [
    Edge("a +inf logit at the label makes loss and gradient NaN", *cross([inf, 0, 1.0])),
    Edge("a +inf logit elsewhere does too", *cross([inf, 0, 1.0], labels=[1])),
    Edge("it does so in its own row alone", *cross([inf, 0, 1.0], [0, 1.0, 2.0], labels=[1, 1])),
    Edge(
        "in a mean it leaves the other rows' gradients whole",
        *cross([inf, 0.0], [0, 1.0], labels=[1, 1], reduction="mean"),
    ),
    Edge("two +inf logits do too", *cross([inf, inf, 1.0])),
    Edge("−inf at the label costs +inf, with a finite gradient", *cross([-inf, 0, 1.0])),
    Edge("−inf elsewhere costs nothing", *cross([0, -inf, 1.0])),
    Edge("only −inf is NaN", *cross([-inf, -inf, -inf])),
    Edge("NaN is NaN", *cross([0, nan, 1.0])),
    Edge("a smoothed label with −inf anywhere costs +inf", *cross([0, -inf, 1.0], label_smoothing=0.1)),
    Edge("all of the target may be smoothed away", *cross([0, 2.0, 1.0], label_smoothing=1.0)),
    Edge("negative smoothing is none", *cross([0, 2.0, 1.0], label_smoothing=-1.0)),
    Edge(
        "all rows ignored have a mean of NaN, and gradient 0",
        *cross([0, 2.0], [1, 1.0], labels=[-100, -100], reduction="mean"),
    ),
    Edge("smoothed too", *cross([0, 2.0], [1, 1.0], labels=[-100, -100], reduction="mean", label_smoothing=0.1)),
    Edge("an ignored class keeps its share of the softmax", *cross([0, 2.0], [1, 1.0], labels=[0, 1], ignore_index=1)),
    Edge("weight 0 at a loss of +inf is NaN", *weighing([[-inf, 0, 1.0]], [0], [0.0, 1, 1])),
    Edge(
        "weight 0 and −inf elsewhere, smoothed, is NaN",
        *weighing([[0, -inf, 1.0]], [0], [1.0, 0, 1], label_smoothing=0.1),
    ),
    Edge(
        "an ignored row of −inf costs 0, weighed and smoothed too",
        *weighing([[0, -inf, 1.0], [0, 1, 2]], [-100, 1], [1.0, 0, 1], label_smoothing=0.1),
    ),
    Edge("label 156 in bytes is not −100", *cross(np.zeros(200), labels=np.uint8([156]))),
    Edge("a NaN among the weights is its label's alone", *weighing([[0, 1.0], [2, 1.0]], [0, 1], [nan, 1])),
    Edge(
        "of log-probabilities too, in a mean",
        *weighing([[0, 1.0], [2, 1.0]], [1, 1], [nan, 1], "nll_loss", reduction="mean"),
    ),
    Edge("negative weights are weights", *weighing([[0, 1.0], [2, 1.0]], [0, 1], [-1.0, 3], reduction="mean")),
    Edge(
        "a single row of logits has a single label",
        lambda f, x, y: f.cross_entropy(x, y),
        ([0, 2.0, 1.0], np.asarray(1)),
    ),
    *(
        Edge(
            f"a single row of {name} has a single label in an array of one, {reduction}",
            lambda f, x, y, name=name, reduction=reduction: getattr(f, name)(x, y, reduction=reduction),
            ([0, 2.0, 1.0], np.asarray([1])),
            gradient=False,  # torch itself refuses the backward pass: a size mismatch
        )
        for name, reduction in itertools.product(("cross_entropy", "nll_loss"), REDUCTIONS)
    ),
    Edge("or probabilities of its shape", *soft([0, 2.0, 1.0], [0.1, 0.2, 0.3], reduction="mean")),
    Edge("−inf at probability 0 is NaN with a finite gradient", *soft([[0, -inf, 1.0]], [[1.0, 0, 0]])),
    Edge("−inf at a probability costs +inf", *soft([[0, -inf, 1.0]], [[0.5, 0.5, 0]])),
    Edge("+inf with probabilities is NaN", *soft([[0, inf, 1.0]], [[0.5, 0.5, 0]])),
    Edge("negative probabilities are taken", *soft([[0, 1.0, 1.0]], [[-1.0, 0, 0.5]])),
    Edge(
        "a mean of weighed probabilities is over the rows",
        lambda f, x, t, w: f.cross_entropy(x, t, w),
        ([[0, 1.0], [3, 1.0]], [[0.5, 0.5], [1.0, 0]], [2.0, 5.0]),
    ),
    Edge("nll_loss looks at no class but the label's", *weighing([[-1.0, nan, -inf]], [0], [2.0, 1, 1], "nll_loss")),
    Edge(
        "nll_loss has no gradient in ignored rows", *weighing([[nan, nan], [-1.0, -2]], [-100, 0], [1.0, 1], "nll_loss")
    ),
    Edge("nll_loss of +inf is −inf", *weighing([[inf, 0.0]], [0], [1.0, 1], "nll_loss")),
    Edge("nll_loss of weight 0 at −inf is NaN", *weighing([[-inf, 0.0]], [0], [0.0, 1], "nll_loss")),
    Edge("a certain mistake costs 100", *on_elements(BCE, [0.0, 0, 1, 1, 0.5], [0.0, 1, 0, 1, 0.3])),
    Edge(
        "its slope is at most 1e12",
        *on_elements(
            BCE,
            [1e-30, 1e-30, 1e-13, 0.999],
            [0.0, 1, 1, 1],
        ),
    ),
    Edge(
        "a weight may spread over rows or columns",
        lambda f, p, t, w: f.binary_cross_entropy(p, t, weight=w),
        ([[0.5, 0.4], [0.3, 0.2]], [[0, 1.0], [1, 1]], [[2.0], [3]]),
    ),
    Edge("binary logits of +inf", *on_elements(LOGITS, [inf] * 5, [0, 0.5, 1, 2, -1.0])),
    Edge("binary logits of −inf", *on_elements(LOGITS, [-inf] * 5, [0, 0.5, 1, 2, -1.0])),
    *(
        Edge(
            f"the gradient of a binary target {target} at {logit} is infinite",
            lambda f, t, x: f.binary_cross_entropy_with_logits(x, t, reduction="none"),
            ([target], [logit]),
        )
        for target in (0.0, 0.5, 1.0)
        for logit in (inf, -inf)
    ),
    Edge(
        "a positive weight may have any shape",
        lambda f, x, t, c: f.binary_cross_entropy_with_logits(x, t, pos_weight=c),
        ([[0.5, 0.4], [0.3, 0.2]], [[0, 1.0], [1, 1]], [[2.0], [3]]),
    ),
    Edge(
        "weight 0 at infinite logits is NaN",
        lambda f, x, t, w: f.binary_cross_entropy_with_logits(x, t, w, reduction="none"),
        ([inf, -inf, 1], [0.0, 0, 0], [0.0, 0, 0]),
    ),
    Edge(
        "binary logits of no elements have a mean of NaN",
        *on_elements(LOGITS, np.zeros(0), np.zeros(0), reduction="mean"),
    ),
]


@pytest.mark.parametrize("on", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_an_edge_is_torch_s(edge: Edge, on: str) -> None:
    agreed = compared(edge, "torch", peer, compat, on)

    assert all(agreed), agreed


# -------------------- derivatives, transforms and compilation

P, Z, Y = (
    torch.tensor([[0.3, 0.2, 0.9], [0.1, 0.5, 0.8]]),
    torch.tensor([[1.0, 0, 0.4], [0.1, 0.5, 1]]),
    torch.tensor([2, 0]),
)


@pytest.mark.parametrize("of", ["input", "target"])
@pytest.mark.parametrize("p", [[0.3, 0.2, 0.9], [1e-9, 0.5, 1 - 1e-9], [1e-14, 1e-30, 0.0, 1.0]], ids=str)
def test_the_second_derivatives_of_probabilities_are_torch_s(p: list[float], of: str) -> None:
    results = []
    for functions in (peer, compat):
        arrays = [torch.tensor(p, dtype=torch.float64), torch.linspace(0, 1, len(p), dtype=torch.float64)]
        arrays = [one.requires_grad_() for one in arrays]
        value = functions.binary_cross_entropy(*arrays, reduction="sum")
        (slope,) = torch.autograd.grad(value, arrays[0], create_graph=True)
        results.append(torch.autograd.grad(slope.sum(), arrays[0 if of == "input" else 1])[0])

    # Of 1e-12 that torch adds to p and to 1 − p, and of p² − 2 p t + t in its numerator: 4 units, where p = t = 1 too.
    theirs, ours = results
    variance = torch.tensor(p, dtype=torch.float64) * (1 - torch.tensor(p, dtype=torch.float64))
    added = 4e-12 / torch.where(variance < 1e-12, 1.0, variance)
    rounded = 4 * torch.finfo(torch.float64).eps / (variance + 1e-12) ** 2
    assert torch.all((ours - theirs).abs() <= added * theirs.abs() + rounded)


def test_a_hessian_through_a_sigmoid_is_torch_s() -> None:
    def hessian(functions: Any) -> torch.Tensor:
        def loss(x: torch.Tensor) -> torch.Tensor:
            return functions.binary_cross_entropy(torch.sigmoid(x), torch.tensor([1.0, 0.0]))

        return torch.autograd.functional.hessian(loss, torch.tensor([0.3, -0.2]))

    torch.testing.assert_close(hessian(compat), hessian(peer))


TRANSFORMED = {
    "vmap": lambda f, *arrays: torch.func.vmap(f)(*arrays),
    "vmap of grad": lambda f, *arrays: torch.func.vmap(torch.func.grad(f))(*arrays),
    "hessian": lambda f, *arrays: torch.func.hessian(f)(*arrays),
    "compiled": lambda f, *arrays: torch.compile(f, backend="eager", fullgraph=True)(*arrays),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Dynamo detected a call:UserWarning")  # torch's
@pytest.mark.parametrize("transform", TRANSFORMED.values(), ids=TRANSFORMED)
@pytest.mark.parametrize("name", NAMES)
def test_a_transform_of_torch_s_goes_through(name: str, transform: Any) -> None:
    arrays = (P, Z) if name.startswith("binary") else (P, Y)
    torch._dynamo.reset()
    theirs, ours = (transform(getattr(functions, name), *arrays) for functions in (peer, compat))

    torch.testing.assert_close(ours, theirs)


def test_probabilities_out_of_range_are_nan_under_a_transform() -> None:
    result = torch.func.vmap(compat.binary_cross_entropy)(torch.tensor([[0.5], [1.5]]), torch.ones((2, 1)))

    assert result.isnan().tolist() == [False, True]


# -------------------- what is not followed

NOT_FOLLOWED = [
    (
        Edge("an ignored row of NaN has a gradient of NaN", *cross([nan, 0.0], [0, 1.0], labels=[-100, 0])),
        [True, False],
    ),
    (Edge("a row of weight 0 and NaN has a gradient of NaN", *weighing([[nan, 0.0]], [0], [0.0, 1])), [True, False]),
    (
        Edge(
            "label 156 is −100 in bytes, where it is smoothed",
            *cross(np.zeros(200), labels=np.uint8([156]), label_smoothing=0.1),
            gradient=False,
        ),
        [False],
    ),
    (Edge("smoothing 1 at a label of −inf is NaN", *cross([-inf, 2.0, 1.0], label_smoothing=1.0)), [False, True]),
    (
        Edge(
            "a mean over weights that sum to 0 is −inf",
            *weighing([[0, 1.0], [3, 1.0]], [0, 1], [-1.0, 1], reduction="mean"),
            gradient=False,
        ),
        [False],
    ),
    (
        Edge("the gradient of a mean over weights of 0 is NaN", *weighing([[0, 1.0]], [0], [0.0, 1], reduction="mean")),
        [True, False],
    ),
    (
        Edge(
            "the gradient of a binary target at probability 0 is infinite",
            lambda f, t, p: f.binary_cross_entropy(p, t, reduction="none"),
            ([0.5], [0.0]),
        ),
        [True, False],
    ),
]


@pytest.mark.parametrize(("edge", "expected"), NOT_FOLLOWED, ids=[edge.name for edge, _ in NOT_FOLLOWED])
def test_what_is_not_followed_is_still_otherwise(edge: Edge, expected: list[bool]) -> None:
    agreed = compared(edge, "torch", peer, compat, "torch")

    assert agreed == expected


def test_a_tiny_loss_is_0_in_torch_only() -> None:
    logits, label = torch.tensor([[0.0, -20.0]]), torch.tensor([0])

    assert float(peer.cross_entropy(logits, label)) == 0
    assert float(compat.cross_entropy(logits, label)) == pytest.approx(2.0611536e-9, rel=1e-6)


def test_many_classes_overflow_in_torch_s_float16_only() -> None:
    logits, label = torch.zeros((1, 100_000), dtype=torch.float16), torch.tensor([0])

    assert torch.isinf(peer.cross_entropy(logits, label))
    assert compat.cross_entropy(logits, label).item() == np.float16(np.log(100_000))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8])
def test_labels_of_other_integers_are_taken_where_torch_refuses(dtype: torch.dtype) -> None:
    logits, label = torch.zeros((1, 3)), torch.tensor([1], dtype=dtype)

    assert float(compat.cross_entropy(logits, label)) == np.float32(np.log(3))
    with pytest.raises(RuntimeError, match="expected target dtype"):
        peer.cross_entropy(logits, label)


@pytest.mark.parametrize("labels", [torch.tensor([-100]), torch.zeros(0, dtype=torch.int64)], ids=["ignored", "none"])
def test_no_classes_have_a_mean_of_nan_in_torch_only(labels: torch.Tensor) -> None:
    logits = torch.zeros((len(labels), 0))

    assert peer.cross_entropy(logits, labels).isnan()
    with pytest.raises(IndexError, match="at least one class"):
        compat.cross_entropy(logits, labels)


def test_class_weights_with_an_axis_more_are_taken_by_torch_only() -> None:
    logits, labels, weight = torch.zeros((1, 2, 3)), torch.zeros((1, 3), dtype=torch.int64), torch.ones((1, 2))

    assert float(peer.nll_loss(logits, labels, weight)) == 0
    with pytest.raises(RuntimeError, match="one for each class"):
        compat.nll_loss(logits, labels, weight)


def test_one_label_in_an_array_is_smoothed_where_torch_refuses() -> None:
    logits, label = torch.tensor([0.0, 2.0, 1.0]), torch.tensor([1])

    with pytest.raises(RuntimeError, match="shape"):
        peer.cross_entropy(logits, label, label_smoothing=0.1)
    torch.testing.assert_close(
        compat.cross_entropy(logits, label, label_smoothing=0.1),
        peer.cross_entropy(logits, label[0], label_smoothing=0.1),
    )


def test_the_linear_layer_is_in_torch_only() -> None:
    assert hasattr(peer, "linear_cross_entropy")
    assert not hasattr(compat, "linear_cross_entropy")


# -------------------- signatures, dtypes, warnings, errors


@pytest.mark.parametrize("name", NAMES)
def test_a_signature_is_torch_s(name: str) -> None:
    def plain(function: Any) -> list[tuple[str, Any, Any]]:
        return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]

    assert plain(getattr(compat, name)) == plain(getattr(peer, name))


FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize(("first", "second"), [*itertools.product(FLOATING, FLOATING)], ids=str)
@pytest.mark.parametrize("name", ["cross_entropy", LOGITS])
def test_the_dtype_of_the_answer_is_torch_s(name: str, first: torch.dtype, second: torch.dtype) -> None:
    arrays = torch.zeros((2, 3), dtype=first), torch.full((2, 3), 0.5, dtype=second)

    assert getattr(compat, name)(*arrays).dtype == getattr(peer, name)(*arrays).dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int64])
def test_weights_have_a_say_in_the_dtype_of_a_loss_of_probabilities(dtype: torch.dtype) -> None:
    arrays = torch.zeros((2, 3)), torch.full((2, 3), 0.5), torch.ones(3, dtype=dtype)

    torch.testing.assert_close(compat.cross_entropy(*arrays), peer.cross_entropy(*arrays))


@pytest.mark.parametrize(("size_average", "reduce"), [*itertools.product((None, True, False), repeat=2)])
@pytest.mark.parametrize("name", NAMES)
def test_the_old_flags_choose_the_reduction_with_a_warning(name: str, size_average: Any, reduce: Any) -> None:
    first = torch.tensor([[0.2, 0.7], [0.4, 0.1]])
    second = first.flip(0) if name.startswith("binary") else torch.tensor([1, 0])
    results = []
    for functions in (peer, compat):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = getattr(functions, name)(first, second, size_average=size_average, reduce=reduce)
        results.append((value, [(one.category, str(one.message)) for one in caught]))

    (theirs, their_warnings), (ours, our_warnings) = results
    torch.testing.assert_close(ours, theirs)
    assert our_warnings == their_warnings


def test_the_old_name_of_the_mean_warns() -> None:
    for functions in (peer, compat):
        with pytest.warns(UserWarning, match="reduction='elementwise_mean' is deprecated"):
            functions.cross_entropy(torch.zeros((1, 2)), torch.tensor([0]), reduction="elementwise_mean")


REFUSED = {
    "an unknown reduction": lambda f: f.cross_entropy(torch.zeros((1, 2)), torch.tensor([0]), reduction="median"),
    "smoothing above 1": lambda f: f.cross_entropy(torch.zeros((1, 2)), torch.tensor([0]), label_smoothing=1.1),
    "a label out of range": lambda f: f.cross_entropy(torch.zeros((1, 2)), torch.tensor([2])),
    "a label out of range, smoothed": lambda f: f.cross_entropy(
        torch.zeros((1, 2)), torch.tensor([2]), torch.ones(2), label_smoothing=0.1
    ),
    "a negative label": lambda f: f.nll_loss(torch.zeros((1, 2)), torch.tensor([-1])),
    "another number of rows": lambda f: f.cross_entropy(torch.zeros((2, 3)), torch.tensor([0, 1, 1])),
    "another number of rows of log-probabilities": lambda f: f.nll_loss(torch.zeros((2, 3)), torch.tensor([0, 1, 1])),
    **{
        f"{words}, {name}": lambda f, name=name, arrays=arrays: getattr(f, name)(*arrays)
        for name in ("cross_entropy", "nll_loss")
        for words, arrays in {
            "labels of other pixels": (torch.zeros((2, 3, 5)), torch.zeros((2, 4), dtype=torch.int64)),
            "labels without pixels": (torch.zeros((2, 3, 5)), torch.tensor([0, 1])),
            "labels in a column": (torch.zeros((2, 3)), torch.tensor([[0], [1]])),
            "labels of other rows and more axes": (torch.zeros((2, 3)), torch.zeros((3, 2), dtype=torch.int64)),
            "one label of many rows": (torch.zeros((2, 3)), torch.tensor(0)),
            "two labels of one row": (torch.zeros(3), torch.tensor([0, 1])),
            "labels of one row in a matrix": (torch.zeros(3), torch.tensor([[0, 1]])),
            "labels of floats": (torch.zeros((2, 3)), torch.zeros(2)),
            "labels of bools": (torch.zeros((2, 3)), torch.zeros(2, dtype=torch.bool)),
            "logits of integers": (torch.zeros((2, 3), dtype=torch.int64), torch.tensor([0, 1])),
            "no class axis": (torch.tensor(0.0), torch.tensor([0])),
            "no classes": (torch.zeros((1, 0)), torch.tensor([0])),
            "no classes, weights of three": (torch.zeros((1, 0)), torch.tensor([0]), torch.ones(3)),
            "too few class weights": (torch.zeros((1, 3)), torch.tensor([0]), torch.ones(2)),
            "class weights of another shape": (torch.zeros((1, 3)), torch.tensor([0]), torch.ones((1, 3))),
        }.items()
    },
    "smoothing above 1, of other rows": lambda f: f.cross_entropy(
        torch.zeros((3, 4)), torch.arange(4), label_smoothing=1.2
    ),
    "smoothing above 1, of probabilities": lambda f: f.cross_entropy(*[torch.ones((1, 2))] * 2, label_smoothing=1.2),
    "too few class weights of probabilities": lambda f: f.cross_entropy(*[torch.ones((1, 3))] * 2, torch.ones(2)),
    "probabilities of integers": lambda f: f.cross_entropy(torch.zeros((1, 2)), torch.tensor([[0, 1]])),
    "probabilities with an ignored label": lambda f: f.cross_entropy(*[torch.ones((1, 2))] * 2, ignore_index=1),
    "too few class weights": lambda f: f.cross_entropy(torch.zeros((1, 3)), torch.tensor([0]), torch.ones(2)),
    "labels in a list": lambda f: f.cross_entropy(torch.zeros((1, 2)), [0]),
    "labels of NumPy": lambda f: f.cross_entropy(torch.zeros((1, 2)), np.asarray([0])),
    "weights in a list": lambda f: f.cross_entropy(torch.zeros((1, 2)), torch.tensor([0]), [1.0, 2.0]),
    "weights of NumPy": lambda f: f.cross_entropy(torch.zeros((1, 2)), torch.tensor([0]), np.ones(2, np.float32)),
    "weights of integers": lambda f: f.cross_entropy(torch.zeros((1, 2)), torch.tensor([0]), torch.tensor([1, 2])),
    "no ignored label": lambda f: f.cross_entropy(torch.zeros((1, 2)), torch.tensor([0]), ignore_index=None),
    "a number for the positive weight": lambda f: getattr(f, LOGITS)(*[torch.zeros(2)] * 2, pos_weight=2.0),
    "probabilities above 1": lambda f: f.binary_cross_entropy(torch.tensor([1.1]), torch.tensor([0.0])),
    "probabilities of NaN": lambda f: f.binary_cross_entropy(torch.tensor([nan]), torch.tensor([0.0])),
    "binary targets above 1": lambda f: f.binary_cross_entropy(torch.tensor([0.5]), torch.tensor([1.5])),
    "binary probabilities of integers": lambda f: f.binary_cross_entropy(*[torch.ones(2, dtype=torch.int64)] * 2),
    "binary logits of integers": lambda f: getattr(f, LOGITS)(torch.ones(2, dtype=torch.int64), torch.ones(2)),
    "binary targets of another shape": lambda f: f.binary_cross_entropy(torch.zeros(2), torch.zeros((1, 2))),
    "binary targets of another shape, from logits": lambda f: getattr(f, LOGITS)(torch.zeros(2), torch.zeros((1, 2))),
    "a weight larger than the input": lambda f: getattr(f, LOGITS)(*[torch.zeros((2, 2))] * 2, torch.ones((3, 2, 2))),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_what_torch_refuses_is_refused_with_its_type_of_error(call: Any) -> None:
    with pytest.raises(Exception) as theirs:
        call(peer)

    with pytest.raises(theirs.type):
        call(compat)


def test_a_label_error_is_an_index_error_too() -> None:
    with pytest.raises(xent.LabelError, match="the first, at position 0, is 2"):
        REFUSED["a label out of range"](compat)
