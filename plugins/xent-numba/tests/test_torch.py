"""The kernels as torch calls them: small calls by addresses, and operators in compiled graphs."""

import functools
import importlib

import numpy as np
import pytest

import xent

torch = pytest.importorskip("torch")

sparse = xent.sparse_cross_entropy
OPTIONS = {
    "none": {},
    "mean": {"reduction": "mean"},
    "counted": {"reduction": xent.Mean("counted"), "ignore_index": 3},
    "smoothed": {"reduction": "sum", "label_smoothing": 0.1},
    "weighted": {"reduction": "mean", "sample_weight": torch.arange(8) / 7.0},
    "class weights": {"reduction": "mean", "class_weight": torch.arange(33) + 0.5},
    "listed": {"class_weight": [0.5] * 33},
}


def batch(rows=8, classes=33, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.randn(rows, classes).mul(3).to(dtype).requires_grad_(), torch.randint(0, classes, (rows,))


@pytest.fixture
def declined(monkeypatch):
    """A function that has every small call take the many steps from here on."""
    small_calls = importlib.import_module("xent.backends.torch.small_calls")

    def decline():
        monkeypatch.setattr(small_calls.SmallCalls, "addresses", lambda *arguments: None)
        numpy_schedule = importlib.import_module("xent.backends.numpy.schedule")
        monkeypatch.setattr(numpy_schedule, "small_call_of", lambda plan: None)
        for plans in importlib.import_module("xent.dispatch.settings").scopes.caches.values():
            plans.clear()

    return decline


@pytest.mark.parametrize("told", OPTIONS.values(), ids=list(OPTIONS))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("in_forward", [False, True])
def test_a_small_call_has_the_bits_of_the_many_steps(declined, told, dtype, in_forward):
    x, y = batch(dtype=dtype)
    cotangent = torch.rand((8,) if told.get("reduction", "none") == "none" else ())
    cotangent = cotangent.to(torch.float64 if dtype is torch.float64 else torch.float32)

    def results():
        with xent.using(gradient_in_forward=in_forward):
            loss = sparse(x, y, **told)
            return [sparse(x.detach(), y, **told), loss.detach(), torch.autograd.grad(loss, x, cotangent)[0]]

    found = results()
    declined()

    assert all(torch.equal(a, b) for a, b in zip(found, results(), strict=True))
    assert torch.equal(found[0], found[1])


def test_a_small_call_is_one_call_of_the_kernel_each_way(monkeypatch):
    kernels = importlib.import_module("xent_numba.kernels")
    x, y = batch()
    sparse(x, y, reduction="mean").backward()
    expected, x.grad = x.grad, None

    def refuse(*arguments, **options):
        raise AssertionError("a small call went the long way")

    for method in ("loss", "loss_and_partial", "gradient", "loss_and_gradient", "partial"):
        monkeypatch.setattr(kernels.Sparse, method, refuse)
    sparse(x, y, reduction="mean").backward()

    assert torch.equal(x.grad, expected)


@pytest.mark.parametrize("change", [lambda x, y: (x.T.contiguous().T, y), lambda x, y: (x, y.repeat(2, 1).T[:, 0])])
def test_tensors_that_do_not_lie_side_by_side_take_the_many_steps(change):
    x, y = batch()
    other = change(x.detach(), y)

    assert torch.allclose(sparse(*other), sparse(x.detach(), y), rtol=1e-6)


def test_a_bad_label_raises_and_a_changed_weight_is_noticed():
    x, y = batch()
    weight = torch.rand(8)
    loss = sparse(x, y, sample_weight=weight, reduction="mean")
    weight += 1

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    with pytest.raises(xent.LabelError, match="got 1 outside"):
        sparse(x, torch.cat([y[:-1], torch.tensor([33])]), reduction="mean")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("function", [sparse, xent.cross_entropy])
def test_a_compiled_graph_has_the_bits_of_an_eager_call(function, dtype):
    x, labels = batch(700, 100, dtype)
    targets = labels if function is sparse else torch.rand(700, 100)
    compiled = torch.compile(functools.partial(function), fullgraph=True, backend="aot_eager")
    loss = compiled(x, targets)
    (slope,) = torch.autograd.grad(loss.sum(), x)

    assert xent.explain(torch.compile(function), x, targets).kernel == "numba"
    assert torch.equal(loss, function(x.detach(), targets))
    assert torch.equal(slope, xent.value_and_grad(function)(x.detach(), targets)[1])


def test_torch_finds_nothing_wrong_with_the_operators():
    importlib.import_module("xent.backends.torch.operators")
    x, y = batch(300, 70)
    told = 1.0, 0.0, "xent_numba.kernels:sparse", 2
    for operator, tensors in (("loss", (x, y)), ("loss_and_gradient", (x, y, torch.rand(300)))):
        found = torch.library.opcheck(getattr(torch.ops.xent, operator).default, (*tensors, *told))

        assert set(found.values()) == {"SUCCESS"}


def test_numpy_and_torch_agree_to_the_bit():
    x, y = batch()

    assert np.array_equal(sparse(x.detach(), y), sparse(x.detach().numpy(), y.numpy()))
