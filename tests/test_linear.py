"""Products under autodiff, and what they take: docs/semantics.md, "Products", for what each library has by itself."""

import functools
import tracemalloc

import numpy as np
import pytest

import xent
from xent.backends.generic import panels, products, tiles
from xent.backends.generic import threads as own

ROWS, DEPTH, CLASSES = 5, 3, 6


def operands(rng, dtype=np.float64, rows=ROWS, depth=DEPTH, classes=CLASSES):
    shapes = ((rows, depth), (classes, depth), (classes,))
    return *(rng.standard_normal(shape).astype(dtype) for shape in shapes), rng.integers(0, classes, rows)


# -------------------- torch


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def leaves(torch, rng):
    *arrays, labels = operands(rng)
    return [torch.tensor(one, requires_grad=True) for one in arrays], torch.tensor(labels)


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_autograd_has_the_derivatives_of_a_product_of_first_and_second_order(torch, rng, reduction):
    tensors, labels = leaves(torch, rng)

    def loss(hidden, classifier, bias):
        told = {"bias": bias, "softcap": 3.0, "reduction": reduction, "label_smoothing": 0.1}
        return xent.linear_cross_entropy(hidden, classifier, labels, **told)

    assert torch.autograd.gradcheck(loss, tensors)
    assert torch.autograd.gradgradcheck(loss, tensors)


@pytest.mark.slow
def test_autograd_has_the_derivatives_of_a_log_sum_exp_and_of_statistics(torch, rng):
    (hidden, classifier, bias), labels = leaves(torch, rng)

    def lse(hidden, classifier, bias):
        return xent.logsumexp(xent.Linear(hidden, classifier, bias=bias))

    def entropy(hidden, classifier):
        return xent.row_statistics(xent.Linear(hidden, classifier), labels).entropy

    assert torch.autograd.gradcheck(lse, (hidden, classifier, bias))
    assert torch.autograd.gradgradcheck(lse, (hidden, classifier, bias))
    assert torch.autograd.gradcheck(entropy, (hidden, classifier))


def test_autograd_has_the_derivatives_of_weights_and_soft_targets_of_a_product(torch, rng):
    (hidden, classifier, _), labels = leaves(torch, rng)
    weight, targets = (torch.rand(*shape, dtype=torch.float64, requires_grad=True) for shape in ((5,), (5, 6)))

    def weighted(hidden, classifier, weight):
        return xent.linear_cross_entropy(hidden, classifier, labels, sample_weight=weight, reduction="mean")

    def dense(hidden, targets):
        return xent.cross_entropy(xent.Linear(hidden, classifier.detach()), targets)

    assert torch.autograd.gradcheck(weighted, (hidden, classifier, weight))
    assert torch.autograd.gradcheck(dense, (hidden, targets))


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_autograd_makes_the_gradient_of_what_needs_one_and_of_nothing_else(torch, monkeypatch, rng, reduction):
    def recorded(call):
        asked.append(call.call.plan.problem.of)
        return sums_of(call)

    asked, sums_of = [], panels.sums_of
    monkeypatch.setattr(panels, "sums_of", recorded)
    (hidden, classifier, _), labels = leaves(torch, rng)
    xent.linear_cross_entropy(hidden, classifier.detach(), labels, reduction=reduction).sum().backward()

    assert asked == [("hidden",)]
    assert hidden.grad is not None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own code
def test_transforms_of_torch_take_a_product(torch, rng):
    (hidden, classifier, _), labels = leaves(torch, rng)
    hidden, classifier = hidden.detach(), classifier.detach()
    loss = functools.partial(xent.linear_cross_entropy, reduction="sum")
    expected = xent.value_and_grad(loss)(hidden, classifier, labels)[1]
    by_row = torch.func.vmap(torch.func.grad(xent.linear_cross_entropy), (0, None, 0))(hidden, classifier, labels)
    _, change = torch.func.jvp(lambda h: loss(h, classifier, labels), (hidden,), (torch.ones_like(hidden),))

    assert torch.allclose(torch.func.grad(loss)(hidden, classifier, labels), expected.hidden)
    assert torch.allclose(by_row, expected.hidden)
    assert torch.allclose(change, expected.hidden.sum())


def graph_and_gradients(torch, step, *operands, backend="aot_eager"):
    """The gradients of a step in one graph of torch.compile's, and of the step itself."""
    torch.compiler.reset()
    compiled = torch.compile(step, backend=backend, fullgraph=True)
    leaves = [one for one in operands if one.requires_grad]
    return (torch.autograd.grad(one(*operands), leaves) for one in (compiled, step))


OPTIONS = {
    "mean": {"reduction": "mean", "softcap": 3.0, "label_smoothing": 0.1, "ignore_index": 3},
    "none": {"ignore_index": (1, 2)},
}


@pytest.mark.slow
@pytest.mark.parametrize("reduction", OPTIONS)
def test_a_compiled_step_with_a_product_is_one_graph_and_right(torch, rng, reduction):
    (hidden, classifier, bias), labels = leaves(torch, rng)
    told = {**OPTIONS[reduction], "sample_weight": torch.arange(ROWS) % 3, "class_weight": torch.rand(CLASSES)}

    def step(hidden, classifier, bias):
        return (xent.linear_cross_entropy(torch.relu(hidden), classifier.T, labels, bias=bias, **told) * 3).sum()

    turned = classifier.detach().T.contiguous().requires_grad_()
    for operands in ((hidden, turned, bias), (hidden, turned.detach(), bias.detach())):
        found, expected = graph_and_gradients(torch, step, *operands)

        assert all(torch.allclose(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.slow
def test_a_program_of_a_product_is_exported(torch, rng):
    (hidden, classifier, _), labels = leaves(torch, rng)

    class Head(torch.nn.Module):
        def forward(self, hidden, classifier, labels):
            return xent.sparse_cross_entropy(xent.Linear(hidden, classifier), labels, reduction="mean")

    program = torch.export.export(Head(), (hidden, classifier, labels), strict=True).module()

    assert torch.equal(program(hidden, classifier, labels), Head()(hidden, classifier, labels))


@pytest.mark.slow
def test_the_operator_of_a_product_keeps_what_torch_asks_of_one(torch, rng):
    (hidden, classifier, bias), labels = leaves(torch, rng)
    torch.compiler.reset()
    torch.compile(xent.linear_cross_entropy, backend="eager")(hidden, classifier, labels)  # defines it
    for reduction in ("mean", "none"):
        told = None, None, 3.0, reduction, [3], 0.1, [True, False, True]
        tests = "test_schema", "test_autograd_registration", "test_faketensor"
        torch.library.opcheck(
            torch.ops.xent.linear_loss.default, (hidden, classifier, bias, labels, *told), test_utils=tests
        )


@pytest.mark.slow
def test_a_compiled_product_has_second_derivatives_where_the_compiler_has(torch, rng):
    (hidden, classifier, _), labels = leaves(torch, rng)
    torch.compiler.reset()

    def curvature(loss):
        (slope,) = torch.autograd.grad(loss(hidden, classifier, labels, reduction="sum"), hidden, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), (hidden, classifier))

    found = curvature(torch.compile(xent.linear_cross_entropy, backend="eager", fullgraph=True))
    expected = curvature(xent.linear_cross_entropy)

    assert all(torch.allclose(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.slow
def test_a_bad_label_of_a_compiled_product_raises(torch, rng):
    (hidden, classifier, _), labels = leaves(torch, rng)
    torch.compiler.reset()
    labels[1] = CLASSES

    with pytest.raises(xent.LabelError, match="position 1, is 6"):
        torch.compile(xent.linear_cross_entropy, backend="eager", fullgraph=True)(hidden, classifier, labels)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of TorchDynamo, beyond a break
def test_what_the_operator_of_a_product_does_not_take_breaks_the_graph_and_is_right(torch, rng):
    (hidden, classifier, _), labels = leaves(torch, rng)
    torch.compiler.reset()

    def step(hidden, classifier):
        return xent.linear_cross_entropy(hidden, classifier, labels, reduction=xent.Mean("counted")) * 3

    found = torch.autograd.grad(torch.compile(step, backend="eager")(hidden, classifier), (hidden, classifier))
    expected = torch.autograd.grad(step(hidden, classifier), (hidden, classifier))

    assert all(torch.allclose(one, other) for one, other in zip(found, expected, strict=True))
    torch.compiler.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(step, backend="eager", fullgraph=True)(hidden, classifier)


# -------------------- JAX


@pytest.fixture
def jax():
    module = pytest.importorskip("jax")
    with module.enable_x64(True):
        yield module


@pytest.mark.slow
def test_grad_and_hessian_of_jax_are_those_of_the_whole_logits(jax, monkeypatch, rng):
    from xent.backends.jax import tiles

    monkeypatch.setattr(tiles, "TILE_ELEMENTS", 1)
    monkeypatch.setattr(tiles, "LEAST_CLASSES", 4)  # a tile, and two classes left over
    *arrays, labels = operands(rng)
    arrays = [jax.numpy.asarray(one) for one in arrays]

    def loss(hidden, classifier, bias):
        return xent.linear_cross_entropy(hidden, classifier, labels, bias=bias, softcap=3.0).sum()

    def of_logits(hidden, classifier, bias):
        logits = 3 * jax.numpy.tanh((hidden @ classifier.T + bias) / 3)
        return xent.sparse_cross_entropy(logits, labels).sum()

    labels = jax.numpy.asarray(labels)
    every = (0, 1, 2)
    found, expected = (jax.grad(one, every)(*arrays) for one in (loss, of_logits))
    curvature = jax.jacfwd(jax.grad(loss))(*arrays)

    assert all(np.allclose(one, other, atol=1e-12) for one, other in zip(found, expected, strict=True))
    assert np.allclose(curvature, jax.jacfwd(jax.grad(of_logits))(*arrays), atol=1e-12)


def shapes_in(jaxpr) -> set:
    """The shapes of all values of a program, those of its loops and calls among them."""
    found = {tuple(getattr(one.aval, "shape", ())) for equation in jaxpr.eqns for one in equation.outvars}
    for equation in jaxpr.eqns:
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                found |= shapes_in(inner) if hasattr(inner, "eqns") else set()
    return found


def test_no_program_of_jax_has_the_logits_of_all_classes(jax, rng):
    hidden, classifier, _, labels = (jax.numpy.asarray(one) for one in operands(rng, rows=1 << 12, classes=3000))

    def loss(hidden, classifier):
        return xent.linear_cross_entropy(hidden, classifier, labels, reduction="mean")

    program = shapes_in(jax.make_jaxpr(jax.grad(loss, (0, 1)))(hidden, classifier).jaxpr)
    whole = shapes_in(jax.make_jaxpr(lambda hidden, classifier: hidden @ classifier.T)(hidden, classifier).jaxpr)

    assert (1 << 12, 3000) in whole and (1 << 12, 3000) not in program
    assert (1 << 12, 1024) in program


def test_a_product_is_a_tree_of_its_operands(jax, rng):
    *arrays, labels = operands(rng, np.float32)
    hidden, classifier, bias = map(jax.numpy.asarray, arrays)
    logits = xent.Linear(hidden, classifier, bias=bias, softcap=3.0)
    loss = functools.partial(xent.sparse_cross_entropy, reduction="sum")
    slope = jax.jit(jax.grad(loss))(logits, jax.numpy.asarray(labels))
    expected = xent.value_and_grad(xent.sparse_cross_entropy)(
        xent.Linear(*arrays[:2], bias=arrays[2], softcap=3.0), labels
    )
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(logits)[0]]

    assert paths == [".hidden", ".classifier", ".bias"] and type(slope) is xent.Linear and slope.softcap == 3.0
    for name, one in expected[1]._asdict().items():
        np.testing.assert_allclose(getattr(slope, name), one, atol=1e-5)
    narrow = jax.tree.map(lambda one: one.astype(jax.numpy.bfloat16), xent.Linear(hidden, classifier))
    assert narrow.bias is None and narrow.hidden.dtype == "bfloat16" and narrow.shape == logits.shape


def test_vmap_of_jax_takes_a_product(jax, rng):
    hidden, classifier, _, labels = (jax.numpy.asarray(one) for one in operands(rng))
    by_row = jax.vmap(jax.grad(xent.linear_cross_entropy), (0, None, 0))(hidden, classifier, labels)

    assert np.allclose(by_row, xent.value_and_grad(xent.linear_cross_entropy)(hidden, classifier, labels)[1].hidden)


# -------------------- memory


def mebibytes(call) -> float:
    """The most memory of NumPy's arrays during a call, what it returns included."""
    call()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


@xent.using(threads=1)
def test_a_loss_takes_one_tile_whatever_the_numbers_of_rows_and_classes(rng):
    hidden, classifier, _, labels = operands(rng, np.float32, rows=1500, depth=8, classes=9000)
    logits = hidden.shape[0] * classifier.shape[0] * 4 / 2**20

    assert mebibytes(lambda: xent.linear_cross_entropy(hidden, classifier, labels)) < 6 < logits / 8


@xent.using(threads=1)
def test_the_extra_memory_of_a_gradient_is_three_fifths_of_that_of_the_classifier(rng):
    rows, depth, classes = 300, 512, 16 * 2048
    hidden, classifier, _, labels = operands(rng, np.float32, rows=rows, depth=depth, classes=classes)
    used = mebibytes(lambda: xent.value_and_grad(xent.linear_cross_entropy)(hidden, classifier, labels))

    assert used - (rows + classes) * depth * 4 / 2**20 < 0.6 * classes * depth * 4 / 2**20


@xent.using(threads=1)
def test_a_gradient_takes_one_panel_whatever_the_number_of_rows(rng):
    rows, depth, classes = 1100, 256, 2200
    hidden, classifier, _, labels = operands(rng, np.float32, rows=rows, depth=depth, classes=classes)
    results = (rows + classes) * depth * 4 / 2**20
    panel, tile = panels.panel_rows(depth) * classes * 4 / 2**20, 6
    used = mebibytes(lambda: xent.value_and_grad(xent.linear_cross_entropy)(hidden, classifier, labels))

    assert used < results + panel + tile < results + rows * classes * 4 / 2**20


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("rows", [1, 40, 123])
def test_statistics_of_few_rows_have_the_bias_of_their_labels(rows, softcap, rng):
    hidden = rng.standard_normal((rows, 7)).astype(np.float32)
    classifier = rng.standard_normal((37, 7)).astype(np.float32)
    bias = rng.standard_normal(37).astype(np.float32)
    bias[3] = -np.inf
    labels = rng.integers(0, 37, rows)
    found = xent.row_statistics(xent.Linear(hidden, classifier, bias=bias, softcap=softcap), labels)
    logits = hidden @ classifier.T + np.where(np.isinf(bias), 0, bias)
    logits = logits if softcap is None else softcap * np.tanh(logits / softcap)
    expected = xent.row_statistics(np.where(np.isinf(bias), -np.inf, logits).astype(np.float32), labels)

    assert np.array_equal(found.label_rank, expected.label_rank)
    assert np.allclose(found.label_probability, expected.label_probability, rtol=1e-4)


# -------------------- threads


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_share_the_rows_while_blas_has_one(monkeypatch, rng, threads):
    def observed(self, hidden, tile):
        seen.append(max(info["num_threads"] for info in own.controller().info() if info["user_api"] == "blas"))
        return partials_of_tile(self, hidden, tile)

    hidden, classifier, _, labels = operands(rng, np.float32, rows=4 * products.ROWS + 3, depth=20, classes=70)
    with xent.using(threads=1):
        expected = xent.linear_cross_entropy(hidden, classifier, labels)
    seen, partials_of_tile = [], tiles.ProductCall.partials_of_tile
    monkeypatch.setattr(tiles.ProductCall, "partials_of_tile", observed)
    with own.controller().limit(limits=2, user_api="blas"):
        with xent.using(threads=threads):
            found = xent.linear_cross_entropy(hidden, classifier, labels)
        after = [info["num_threads"] for info in own.controller().info() if info["user_api"] == "blas"]

    assert found.tobytes() == expected.tobytes()
    assert set(seen) == {1} and len(seen) >= 5 and set(after) == {2} and not own.holders


def test_an_error_of_one_thread_is_raised_and_stops_the_others():
    def work(item):
        done.append(item)
        if item == 3:
            raise ValueError("3")
        return item

    done = []
    with pytest.raises(ValueError, match="3"):
        own.in_threads(work, range(1000), 3)

    assert len(done) < 1000
    assert own.in_threads(lambda item: -item, range(40), 3) == [-item for item in range(40)]
