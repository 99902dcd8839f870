"""torch.compile: which kernel a graph calls, and that its operators are as torch wants them.

What compiled calls return, with every option, is in ``test_torch.py``.
"""

import functools
import importlib
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import toy_kernels
from expected import gradient_is_off, loss_is_off, near, one_hot, smooth

import xent

torch = pytest.importorskip("torch", reason="torch is not installed")

sparse = xent.sparse_cross_entropy
LARGE, SMALL = (700, 50), (7, 50)
EAGER = {"fullgraph": True, "backend": "aot_eager"}


@pytest.fixture(autouse=True)
def kernel():
    """The toy kernel that graphs may call, its counts at nothing."""
    torch.compiler.reset()
    toy_kernels.graphs.calls.clear()
    xent.register(toy_kernels.Plugin(toy_kernels.spec(**toy_kernels.GRAPHS)), "toy")
    yield toy_kernels.graphs
    xent.unregister("toy")
    torch.compiler.reset()


def batch(shape, requires_grad=False, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.randn(shape, dtype=dtype).mul(3).requires_grad_(requires_grad), torch.randint(0, shape[-1], shape[:1])


def reasons_against(name, *arguments, **options):
    """Why a compiled call does not take a kernel."""
    inner = xent.explain(torch.compile(sparse), *arguments, **options).inner
    return "; ".join(next(verdict.reasons for verdict in inner.verdicts if verdict.kernel == name))


@pytest.mark.slow
def test_a_graph_calls_the_kernel_and_reads_the_logits_once_each_way(kernel):
    x, y = batch(LARGE, requires_grad=True)
    loss = torch.compile(functools.partial(sparse, reduction="mean"), **EAGER)
    (slope,) = torch.autograd.grad(loss(x, y), x)

    assert kernel.calls == ["loss", "loss_and_gradient"]
    with xent.using(kernel="generic"):
        assert torch.equal(slope, xent.value_and_grad(sparse)(x, y, reduction="mean")[1])


@pytest.mark.slow
def test_a_graph_computes_a_small_call_by_itself_and_explain_says_so(kernel):
    x, y = batch(SMALL)
    found = torch.compile(sparse, **EAGER)(x, y)

    assert kernel.calls == [] and torch.allclose(found, sparse(x, y), rtol=1e-6)
    assert xent.explain(torch.compile(sparse), x, y).kernel == "generic"
    assert "size: of fewer than 32768 predictions" in reasons_against("graphs", x, y)
    assert xent.explain(torch.compile(sparse), *batch(LARGE)).kernel == "graphs"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"devices": {"cpu"}}, "device: traced is not among cpu"),
        ({"methods": {"partial", "gradient"}}, "method: a compiled graph calls loss and loss_and_gradient"),
        ({"block_elements": 4096}, "block_elements: a compiled graph hands over whole arrays"),
        ({"guard": lambda shape, strides: shape[0] > 1000}, "guard: declines the shape of this call"),
    ],
)
def test_a_kernel_that_a_graph_cannot_call_is_declined_with_the_reason(facts, reason):
    told = {**toy_kernels.GRAPHS, "name": "other", "priority": 1, **facts}
    xent.register(toy_kernels.Plugin(toy_kernels.spec(**told)), "other")
    try:
        assert reason in reasons_against("other", *batch(LARGE))
    finally:
        xent.unregister("other")


def test_explain_of_a_compiled_function_is_of_its_call_in_a_graph():
    x, y = batch(LARGE)
    compiled = torch.compile(sparse), torch.compile(xent.value_and_grad(sparse))

    assert [xent.explain(one, x, y).kernel for one in compiled] == ["graphs", "graphs"]
    assert xent.explain(functools.partial(compiled[0], reduction="mean"), x, y).problem.options.reduction == "mean"
    assert str(xent.explain(compiled[0], x, y)).startswith("sparse loss on torch/traced/float32")
    assert "has no partition function" not in reasons_against("graphs", x, y)
    assert "kind: probabilities have no" in reasons_against("graphs", torch.softmax(x, -1), y, kind="probabilities")


@pytest.mark.slow
def test_what_a_kernel_has_no_method_for_is_computed_by_the_graph(kernel):
    x, y = batch(LARGE)
    for function, arguments in ((xent.softmax, (x,)), (xent.row_statistics, (x, y))):
        found, expected = torch.compile(function, **EAGER)(*arguments), function(*arguments)
        pairs = [(found, expected)] if isinstance(found, torch.Tensor) else zip(found, expected, strict=True)

        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in pairs)
    assert kernel.calls == []


@pytest.mark.slow
@pytest.mark.parametrize("told", [{"ignore_index": 3}, {"weighted": True}, {"label_smoothing": 0.1}], ids=str)
def test_options_stay_around_the_kernel(kernel, told):
    x, y = batch(LARGE)
    x[y == 3] = float("nan")
    weight = (y != 3).float() * torch.rand(len(y))
    told = {"sample_weight": weight} if "weighted" in told else {"sample_weight": y != 3, **told}
    x.requires_grad_()
    loss = functools.partial(sparse, reduction="mean", **told)
    found = torch.compile(loss, **EAGER)(x, y)
    slope = torch.autograd.grad(found, x)[0]
    with xent.using(kernel="generic"):
        expected = loss(x, y)

    assert kernel.calls == ["loss", "loss_and_gradient"]
    assert torch.allclose(found, expected, rtol=1e-6) and torch.isfinite(found)
    assert torch.allclose(slope, torch.autograd.grad(expected, x)[0], rtol=1e-5, atol=1e-9)
    assert (slope[y == 3] == 0).all()


@pytest.mark.slow
def test_a_bad_label_is_nan_in_its_row_alone(kernel):
    x, y = batch(LARGE, requires_grad=True)
    y[5] = 50
    loss = torch.compile(sparse, **EAGER)(x, y)
    slope = torch.autograd.grad(loss.sum(), x)[0]

    assert kernel.calls == ["loss", "loss_and_gradient"]
    assert loss.isnan().nonzero().tolist() == [[5]] and slope.isnan().any(-1).nonzero().tolist() == [[5]]


@pytest.mark.slow
def test_targets_with_a_gradient_are_left_to_the_graph():
    specs = [toy_kernels.spec(**{**toy_kernels.GRAPHS, "op": "dense", "load": "toy_kernels:failing"})]
    xent.register(toy_kernels.Plugin(*specs), "other")
    try:
        x, _ = batch(LARGE, requires_grad=True)
        targets = torch.rand(LARGE, requires_grad=True)
        loss = functools.partial(xent.cross_entropy, reduction="mean")
        slopes = torch.autograd.grad(torch.compile(loss, **EAGER)(x, targets), (x, targets))
    finally:
        xent.unregister("other")

    expected = torch.autograd.grad(loss(x, targets), (x, targets))
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-8) for a, b in zip(slopes, expected, strict=True))


@pytest.mark.slow
def test_two_graphs_serve_every_number_of_rows_on_one_side_of_the_size(kernel):
    config = importlib.import_module("torch._dynamo.config")
    step = torch.compile(functools.partial(sparse, reduction="mean"), **EAGER)
    with config.patch(recompile_limit=2):  # more raise, under fullgraph
        for rows in (700, 701, 800, 999, 1200):
            x, y = batch((rows, 50), requires_grad=True)
            torch.autograd.grad(step(x, y), x)

    assert kernel.calls == ["loss", "loss_and_gradient"] * 5


@pytest.mark.slow
def test_a_transform_in_a_graph_is_served_by_the_expression(kernel):
    x, y = batch(LARGE)
    func = importlib.import_module("torch.func")
    slope = torch.compile(func.grad(lambda x: sparse(x, y, reduction="mean")), backend="aot_eager")(x)

    assert kernel.calls == []
    assert torch.allclose(slope, xent.value_and_grad(sparse)(x, y, reduction="mean")[1], atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
def test_what_is_exported_needs_no_plugin_and_takes_any_number_of_rows(strict, kernel):
    class Loss(torch.nn.Module):
        def forward(self, x, y):
            return sparse(x, y, reduction="mean")

    x, y = batch(LARGE)
    rows = torch.export.Dim("rows", min=2, max=10_000)
    program = torch.export.export(Loss(), (x, y), dynamic_shapes=({0: rows}, {0: rows}), strict=strict)
    again = program.module()(*batch(SMALL))

    assert "xent" not in str(program.graph_module.code) and kernel.calls == []
    assert torch.allclose(again, sparse(*batch(SMALL), reduction="mean"), rtol=1e-6)


# -------------------- the operators


def operator(name):
    importlib.import_module("xent.backends.torch.operators")
    return getattr(torch.ops.xent, name).default


TOLD = (0.9, 0.02, "toy_kernels:graphs", 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, in its checks
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_torch_finds_nothing_wrong_with_the_operators(dtype):
    x, y = batch((5, 7), requires_grad=True, dtype=dtype)
    scale = torch.rand(5, dtype=torch.float64 if dtype is torch.float64 else torch.float32)
    for name, arguments in (("loss", (x, y, *TOLD)), ("loss_and_gradient", (x, y, scale, *TOLD))):
        found = torch.library.opcheck(operator(name), arguments)

        assert set(found.values()) == {"SUCCESS"} and len(found) == 4


def test_the_operators_have_derivatives_of_any_order():
    x, y = batch((5, 7), requires_grad=True, dtype=torch.float64)
    scale = torch.rand(5, dtype=torch.float64, requires_grad=True)
    loss = lambda x: operator("loss")(x, y, *TOLD)  # noqa: E731  # one line is enough
    both = lambda x, scale: operator("loss_and_gradient")(x, y, scale, *TOLD)  # noqa: E731

    assert torch.autograd.gradcheck(loss, x) and torch.autograd.gradgradcheck(loss, x)
    assert torch.autograd.gradcheck(both, (x, scale)) and torch.autograd.gradgradcheck(both, (x, scale))


def test_a_gradient_of_its_targets_is_that_of_the_expression():
    class Dense:
        def loss(self, logits, targets, *, threads):
            return xent.cross_entropy(logits, targets)

        def loss_and_gradient(self, logits, targets, scale, *, threads, out):
            loss, out[...] = xent.value_and_grad(xent.cross_entropy)(logits, targets, sample_weight=scale)
            return loss, out

    toy_kernels.dense_graphs = Dense()
    x, _ = batch((5, 7), requires_grad=True, dtype=torch.float64)
    targets = torch.rand((5, 7), dtype=torch.float64, requires_grad=True)
    told = (1.0, 0.0, "toy_kernels:dense_graphs", 1)

    assert torch.autograd.gradcheck(lambda x, t: operator("loss")(x, t, *told), (x, targets))


# -------------------- the graph's own expression


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "classes"),
    [*((np.float32, classes) for classes in (2, 10, 100, 1031, 32771)), (np.float64, 10), (np.float64, 1031)],
)
def test_a_loss_and_gradient_of_the_compiler_keep_the_budget(dtype, classes):
    rng = np.random.default_rng(classes)
    equal = np.zeros((2, classes), dtype)
    equal[:, 1:] = -np.asarray([[2.6936614513397217], [0.123456789]], dtype)  # repeat one rounding
    x = np.concatenate([equal, (rng.standard_normal((2, classes)) * 3).astype(dtype)])
    y = np.asarray([0, 1, 1, classes - 1])
    for smoothing in (0.0, 0.1):
        logits = torch.tensor(x, requires_grad=True)
        loss = torch.compile(functools.partial(sparse, label_smoothing=smoothing), fullgraph=True)
        found = loss(logits, torch.tensor(y))
        (slope,) = torch.autograd.grad(found.sum(), logits)
        targets = smooth(one_hot(y, classes), smoothing)

        assert not loss_is_off(found.detach().numpy(), x, targets)
        assert not gradient_is_off(slope.numpy(), x, targets, is_sparse=not smoothing)


@pytest.mark.slow
def test_a_tiny_loss_of_the_compiler_keeps_its_digits():
    x, y = torch.tensor([[60.0, 0.0, 1.0], [60.0, 60.0, 1.0]]), torch.tensor([0, 1])
    found = torch.compile(sparse, fullgraph=True)(x, y)

    assert near(found.numpy(), np.log1p(np.exp([-60.0, 0.0]) + np.exp(-59.0)))


CACHED = """
import sys, torch, xent
from torch._dynamo.utils import counters
torch.manual_seed(0)
x, y = torch.randn(40, 30, requires_grad=True), torch.randint(0, 30, (40,))
torch.compile(lambda x: xent.sparse_cross_entropy(x, y, reduction="mean"), fullgraph=True)(x).backward()
print(counters["inductor"]["fxgraph_cache_miss"], counters["inductor"]["fxgraph_cache_hit"])
assert "xent.backends.torch.compiled" in sys.modules
"""


@pytest.mark.slow
def test_another_process_finds_the_compiled_code_on_disk(tmp_path):
    def run():
        search = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(CACHED)],
            capture_output=True,
            text=True,
            env={**os.environ, **search},
        )
        assert done.returncode == 0, done.stderr
        return [int(count) for count in done.stdout.split()]

    first, second = run(), run()

    assert first[0] > 0 and first[1] == 0
    assert second[0] == 0 and second[1] == first[0]


def test_an_eager_call_loads_no_compiler():
    text = """
    import sys, torch, xent
    x, y = torch.zeros((2, 3), requires_grad=True), torch.tensor([0, 1])
    xent.sparse_cross_entropy(x, y, reduction="mean").backward()
    assert "xent.dispatch.graphs" not in sys.modules and "torch._inductor" not in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(text)], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
