"""torch: what autograd, its transforms and its compiler make of the losses, and what the forward pass keeps in memory.

That the functions are right on plain tensors is part of the tests that run on the variant ``torch``.
"""

import functools
import importlib
import math
import subprocess
import sys
import textwrap

import ml_dtypes
import numpy as np
import pytest
import toy_kernels
from expected import gradient_is_off, one_hot, same_bits, smooth

import xent
from xent import arrays

torch = pytest.importorskip("torch", reason="torch is not installed")
forward_ad = importlib.import_module("torch.autograd.forward_ad")
func = importlib.import_module("torch.func")

# torch's own code, met at the first forward-mode derivative of a process.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

inf, nan = math.inf, math.nan
sparse, dense, binary = xent.sparse_cross_entropy, xent.cross_entropy, xent.binary_cross_entropy
LABELS = torch.tensor([0, 2, 1, 1, 2])
EDGES = {
    "plain": [0.3, -1.0, 2.0],
    "tie": [1.0, 1.0, 0.0],
    "all-equal": [2.0, 2.0, 2.0],
    "masked": [-inf, 0.0, 1.0],
    "one-infinite": [0.0, inf, 1.0],
    "two-infinite": [inf, inf, 1.0],
    "all-masked": [-inf, -inf, -inf],
    "nan": [0.0, nan, 1.0],
}
PIECES = {"softmax": xent.softmax, "log_softmax": xent.log_softmax, "logsumexp": xent.logsumexp}


def leaf(values, dtype=torch.float64):
    return torch.tensor(np.asarray(values), dtype=dtype, requires_grad=True)


def gradient(value, *inputs, **keywords):
    found = torch.autograd.grad(value.sum(), inputs, **keywords)
    return found[0] if len(inputs) == 1 else found


def to_numpy(tensor):
    return tensor.detach().numpy()


@pytest.fixture
def x(rng):
    return leaf(rng.standard_normal((5, 3)) * 2)


@pytest.fixture
def t(rng):
    return leaf(rng.random((5, 3)))


# -------------------- backwards


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_gradient_by_autograd_is_p_minus_the_target(rng, dtype, smoothing):
    logits = leaf(rng.standard_normal((7, 123)) * 3, dtype)
    labels = torch.tensor(rng.integers(0, 123, 7))
    slope = gradient(sparse(logits, labels, label_smoothing=smoothing), logits)
    values = logits.detach()
    seen = values.view(torch.uint16).numpy().view(ml_dtypes.bfloat16) if dtype is torch.bfloat16 else values.numpy()
    found = slope.view(torch.uint16).numpy().view(ml_dtypes.bfloat16) if dtype is torch.bfloat16 else slope.numpy()

    assert slope.dtype == dtype
    assert not gradient_is_off(found, seen, smooth(one_hot(labels, 123), smoothing), is_sparse=not smoothing)


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("row", EDGES.values(), ids=EDGES)
@pytest.mark.parametrize("way", ["eager", "create_graph", "func"])
def test_the_gradient_is_right_at_the_edges_of_the_logits_in_every_way(way, row, label):
    logits = leaf([row], torch.float32)
    labels = torch.tensor([label])
    if way == "func":
        slope = func.grad(lambda x: sparse(x, labels).sum())(logits.detach())
    else:
        slope = gradient(sparse(logits, labels), logits, create_graph=way == "create_graph")

    assert not gradient_is_off(to_numpy(slope), to_numpy(logits), one_hot([label], 3))


def test_it_is_that_of_value_and_grad_to_the_bit(rng):
    logits, labels = leaf(rng.standard_normal((7, 123)), torch.float32), torch.tensor(rng.integers(0, 123, 7))
    weight = torch.tensor(rng.random(7), dtype=torch.float32)
    told = {"reduction": "mean", "sample_weight": weight, "label_smoothing": 0.1}
    value, slope = xent.value_and_grad(sparse)(logits, labels, **told)
    by_autograd = sparse(logits, labels, **told)

    assert same_bits(value, to_numpy(by_autograd))
    assert same_bits(slope, gradient(by_autograd, logits))


OPTIONS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1},
    "ignored": {"ignore_index": 0},
    "mean": {"reduction": "mean"},
    "weighted mean": {"reduction": "mean", "sample_weight": True},
}


def seeds_whose_bits_differ(function, options):
    """Of twenty sets, those where a graph changes a bit of the loss, or autograd gives another gradient."""
    different = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = torch.tensor(rng.standard_normal((7, 49)) * 3, dtype=torch.float32)
        targets = torch.tensor(rng.integers(0, 49, 7) if function is sparse else rng.random((7, 49)))
        weight = torch.tensor(rng.random((7, 49) if function is binary else 7))
        told = {**options, "sample_weight": weight} if "sample_weight" in options else options
        with_graph = function(x.requires_grad_(), targets, **told)
        alone = function(x.detach(), targets, **told)
        value, slope = xent.value_and_grad(function)(x.detach(), targets, **told)
        if not (same_bits(to_numpy(with_graph), alone) and same_bits(value, alone)):
            different.add(seed)
        if not same_bits(gradient(with_graph, x), slope):
            different.add(seed)
    return different


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_a_graph_changes_no_bit_of_a_loss_of_labels(options, forced):
    with xent.using(kernel=forced):
        assert seeds_whose_bits_differ(sparse, options) == set()


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "ignored"])
def test_a_graph_changes_no_bit_of_a_loss_of_soft_targets(name, forced):
    with xent.using(kernel=forced):
        assert seeds_whose_bits_differ(dense, OPTIONS[name]) == set()


@pytest.mark.parametrize("name", ["plain", "mean", "weighted mean"])
def test_a_graph_changes_no_bit_of_a_binary_loss(name):
    assert seeds_whose_bits_differ(binary, OPTIONS[name]) == set()


def test_value_and_grad_builds_no_graph(x):
    value, slope = xent.value_and_grad(sparse)(x, LABELS)

    assert not value.requires_grad and not slope.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_out_is_a_tensor_that_autograd_is_told_of(dtype):
    x = torch.randn(len(LABELS), 3).to(dtype)
    expected = xent.value_and_grad(sparse)(x, LABELS)[1]
    leaf = x.float().requires_grad_()
    logits = (leaf * 1).to(dtype)  # of a graph that keeps the cube's argument
    cube = logits**3
    _, slope = xent.value_and_grad(sparse)(logits.detach(), LABELS, out=(over := logits.detach()))

    assert slope is over and torch.equal(over, expected) and torch.equal(logits, expected)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        cube.sum().backward()


def test_out_may_require_a_gradient_where_torch_records_none():
    leaf = torch.zeros(len(LABELS), 3, requires_grad=True)
    with torch.no_grad():
        xent.value_and_grad(sparse)(leaf, LABELS, out=leaf)
    with torch.inference_mode():
        told = torch.zeros(len(LABELS), 3)
        xent.value_and_grad(sparse)(told, LABELS, out=told)

    assert torch.equal(leaf, told) and leaf.abs().sum() > 0


def test_out_is_refused_in_a_trace_and_under_a_transform():
    x, out = torch.zeros(2, len(LABELS), 3), torch.zeros(len(LABELS), 3)
    both = functools.partial(xent.value_and_grad(sparse), out=out)
    compiled = torch.compile(lambda x: both(x, LABELS), fullgraph=True, backend="eager")
    calls = [lambda: torch.vmap(lambda x: both(x, LABELS)[0])(x), lambda: by_make_fx(lambda x: both(x, LABELS), x[0])]
    for call in (*calls, lambda: compiled(x[0])):
        with pytest.raises(Exception, match="`out` must be None where torch traces or transforms the call"):
            call()

    assert torch.equal(out, torch.zeros_like(out))


@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean", xent.Mean("all")], ids=str)
def test_gradcheck_passes_for_every_kind_and_reduction(x, kind, reduction):
    given = {"logits": x, "probabilities": torch.softmax(x, -1), "log_probabilities": torch.log_softmax(x, -1)}[kind]
    given = given.detach().requires_grad_()
    told = {"kind": kind, "reduction": reduction, "ignore_index": 1, "label_smoothing": 0.1}

    assert torch.autograd.gradcheck(lambda x: sparse(x, LABELS, **told), given, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: sparse(x, LABELS, **told), given)


@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
def test_targets_have_a_gradient_of_any_order(x, t, kind):
    given = {"logits": x, "probabilities": torch.softmax(x, -1), "log_probabilities": torch.log_softmax(x, -1)}[kind]
    given = given.detach().requires_grad_()

    def loss(x, t):
        return dense(x, t, kind=kind, label_smoothing=0.1)

    assert torch.autograd.gradcheck(loss, (given, t), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(loss, (given, t), check_fwd_over_rev=True)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
def test_a_prediction_of_nan_has_slope_nan_in_every_way(kind, label):
    given, told = leaf([[nan, 0.5 if kind == "probabilities" else -0.5]]), torch.tensor([label])
    loss = lambda x: sparse(x, told, kind=kind, reduction="sum")  # noqa: E731  # one line is enough
    expected = xent.value_and_grad(sparse)(to_numpy(given), to_numpy(told), kind=kind)[1]
    again = gradient(loss(given), given, create_graph=True)

    for found in (gradient(loss(given), given), again, func.grad(loss)(given.detach())):
        assert np.array_equal(to_numpy(found), expected, equal_nan=True)


def test_the_gradient_of_targets_is_infinite_at_a_masked_logit():
    logits, targets = leaf([[-inf, 0.0, 0.0]]), leaf([[0.0, 0.5, 0.5]])
    slope = gradient(dense(logits, targets), targets)

    assert torch.allclose(slope, torch.tensor([[inf, math.log(2), math.log(2)]], dtype=torch.float64))


@pytest.mark.parametrize("reduction", ["none", "sum", "mean", xent.Mean("counted")], ids=str)
@pytest.mark.parametrize("function", [sparse, dense], ids=["sparse", "dense"])
def test_weights_have_a_gradient_by_torchs_own_autodiff(x, t, rng, function, reduction):
    sample, classes = leaf(rng.random(5) + 0.5), leaf(rng.random(3) + 0.5)
    target = LABELS if function is sparse else t.detach()

    def loss(x, sample, classes):
        return function(x, target, sample_weight=sample, class_weight=classes, reduction=reduction)

    assert torch.autograd.gradcheck(loss, (x, sample, classes))
    assert torch.autograd.gradgradcheck(loss, (x, sample, classes))


def test_an_ignored_row_gives_its_weight_no_gradient_whatever_it_holds(x):
    logits = torch.cat([x.detach(), torch.full((1, 3), nan, dtype=torch.float64)]).requires_grad_()
    weight = leaf([1.0, 2.0, 1.0, 1.0, 3.0, 1.0])
    labels = torch.cat([LABELS, torch.tensor([-100])])
    slopes = gradient(sparse(logits, labels, sample_weight=weight, ignore_index=-100, reduction="mean"), logits, weight)

    assert all(torch.isfinite(one).all() for one in slopes)
    assert (slopes[0][-1] == 0).all() and slopes[1][-1] == 0


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("function", [sparse, dense], ids=["sparse", "dense"])
def test_a_row_of_class_weight_zero_gives_no_gradient_whatever_it_holds(function, requires_grad, create_graph):
    logits, labels = leaf([[0.0, 1.0, 2.0], [nan, 0.0, 1.0], [0.0, -inf, 1.0]]), torch.tensor([0, 1, 1])
    targets = labels if function is sparse else torch.nn.functional.one_hot(labels, 3).to(logits.dtype)
    weight = torch.tensor([2.0, 0.0, 1.0], dtype=logits.dtype, requires_grad=requires_grad)
    leaves = (logits, weight) if requires_grad else (logits,)
    loss = function(logits, targets, class_weight=weight, reduction="sum")
    slopes = gradient(loss, *leaves, create_graph=create_graph)
    slope, *of_weight = slopes if requires_grad else (slopes,)

    assert torch.allclose(slope[0], 2 * torch.softmax(logits[0], -1) - 2 * torch.eye(3, dtype=logits.dtype)[0])
    assert (slope[1:] == 0).all()
    assert all(torch.isfinite(one).all() and one[1] == 0 for one in of_weight)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
def test_a_binary_nan_has_a_slope_of_nan_though_a_yes_weighs_nothing(kind, create_graph):
    logits, targets = leaf([nan, -0.5]), torch.ones(2, dtype=torch.float64)
    slope = gradient(
        binary(logits.abs() if kind == "probabilities" else logits, targets, kind=kind, pos_weight=0.0),
        logits,
        create_graph=create_graph,
    )

    assert slope.isnan().tolist() == [True, False]


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_row_that_is_weighed_away_outside_has_gradient_zero_though_it_holds_nan(create_graph):
    logits = leaf([[0.0, 1.0, 2.0], [nan, 0.0, 1.0]])
    loss = torch.where(torch.tensor([True, False]), sparse(logits, torch.tensor([0, 1])), 0.0)
    slope = gradient(loss, logits, create_graph=create_graph)

    assert torch.isfinite(slope[0]).all() and (slope[1] == 0).all()


def test_a_row_that_is_weighed_away_outside_stays_out_of_second_derivatives():
    logits = leaf([[0.0, 1.0, 2.0], [nan, 0.0, 1.0]])
    loss = torch.where(torch.tensor([True, False]), sparse(logits, torch.tensor([0, 1])), 0.0)
    curvature = gradient(gradient(loss, logits, create_graph=True) ** 2, logits)

    assert torch.isfinite(curvature[0]).all() and (curvature[1] == 0).all()


def test_ignored_rows_stay_out_of_second_derivatives():
    logits = leaf([[0.0, 1.0, 2.0], [nan, inf, -inf]])
    slope = gradient(sparse(logits, torch.tensor([0, -1]), ignore_index=-1), logits, create_graph=True)
    curvature = gradient(slope**2, logits)

    assert torch.isfinite(curvature[0]).all() and (curvature[1] == 0).all()


@pytest.mark.parametrize("name", PIECES)
def test_gradcheck_passes_for_softmax_and_its_companions(x, name):
    assert torch.autograd.gradcheck(PIECES[name], x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(PIECES[name], x, check_fwd_over_rev=True)


@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
def test_gradcheck_passes_for_binary_targets(rng, kind):
    given = rng.standard_normal(7) if kind == "logits" else rng.random(7) * 0.8 + 0.1
    given, targets = leaf(np.log(given) if kind.startswith("log_") else given), leaf(rng.random(7))

    def loss(x, t):
        return binary(x, t, kind=kind, pos_weight=2.0)

    assert torch.autograd.gradcheck(loss, (given, targets), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(loss, (given, targets), check_fwd_over_rev=True)


@pytest.mark.parametrize(("logit", "expected"), [(0.0, -0.5), (inf, 0.0), (-inf, -1.0)])
def test_a_binary_logit_has_the_slope_of_the_sigmoid_at_zero_and_at_infinity(logit, expected):
    logits = leaf([logit])

    assert gradient(binary(logits, torch.ones(1, dtype=torch.float64)), logits).item() == expected


@pytest.mark.parametrize("inner", [func.jacfwd, func.jacrev], ids=["forward", "reverse"])
@pytest.mark.parametrize("outer", [func.jacfwd, func.jacrev], ids=["forward", "reverse"])
def test_a_binary_logit_has_no_curvature_at_infinity(outer, inner):
    logits, targets = torch.tensor([inf, inf, -inf, -inf, 0.0]), torch.tensor([1.0, 0.0, 1.0, 0.0, 0.5])
    hessian = outer(inner(lambda x: binary(x, targets, reduction="sum")))(logits)

    assert torch.equal(hessian, torch.diag(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.25])))


def test_row_statistics_have_derivatives_where_they_are_smooth(x):
    def statistics(x):
        return [value for name, value in xent.row_statistics(x, LABELS)._asdict().items() if name != "label_rank"]

    assert torch.autograd.gradcheck(statistics, x)
    assert torch.autograd.gradgradcheck(statistics, x)


def test_row_statistics_have_the_same_values_with_a_graph_and_without(x):
    with_graph, without = xent.row_statistics(x, LABELS), xent.row_statistics(x.detach(), LABELS)

    assert all(torch.allclose(a, b, rtol=1e-14) for a, b in zip(with_graph, without, strict=True))


def test_an_ignored_row_has_the_same_statistics_with_a_graph_and_without(x):
    labels = torch.tensor([0, -1, 1, 1, 2])
    with_graph, without = (xent.row_statistics(one, labels, ignore_index=-1) for one in (x, x.detach()))

    assert all(torch.allclose(a, b, rtol=1e-14, equal_nan=True) for a, b in zip(with_graph, without, strict=True))


def test_a_bad_label_raises_with_a_graph_too(x):
    for function in (sparse, xent.row_statistics):
        with pytest.raises(xent.LabelError, match="got 1 outside"):
            function(x, torch.tensor([0, 1, 2, 3, 0]))


def test_a_bad_label_that_may_not_raise_is_nan_in_its_rows_loss_and_gradient(x):
    with xent.using(validate="never"):
        loss = sparse(x, torch.tensor([0, 1, 2, 3, 0]))
    slope = gradient(loss, x)
    bad = torch.tensor([False, False, False, True, False])

    assert (loss.isnan() == bad).all() and (slope.isnan().all(-1) == bad).all()


@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_forced_kernel_whose_guard_declines_the_tensor_raises(requires_grad):
    logits, labels = torch.zeros((7, 5), requires_grad=requires_grad), torch.zeros(7, dtype=torch.int64)
    xent.register(toy_kernels.Plugin(toy_kernels.spec(guard=lambda shape, strides: False)), "toy")
    try:
        with xent.using(kernel="loopback"), pytest.raises(ValueError, match=r"whose guard declines float32\[7, 5\] on"):
            sparse(logits, labels)
    finally:
        xent.unregister("toy")


def test_where_no_gradient_is_wanted_there_is_no_graph(x):
    with torch.no_grad():
        loss = sparse(x, LABELS)

    assert not loss.requires_grad


def test_a_kernel_from_outside_works_forwards_and_backwards(x):
    xent.register(toy_kernels.Plugin(toy_kernels.spec(dtypes=frozenset({"float64"}))), "toy")
    before = toy_kernels.loopback.calls
    try:
        with xent.using(kernel="loopback"):
            slope = gradient(sparse(x, LABELS), x)
    finally:
        xent.unregister("toy")

    assert toy_kernels.loopback.calls == before + 2
    assert torch.allclose(slope, gradient(sparse(x, LABELS), x))


# -------------------- tensors as they come


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_labels_of_every_integer_dtype_are_taken(x, dtype, requires_grad):
    logits = x.detach().requires_grad_(requires_grad)

    assert same_bits(to_numpy(sparse(logits, LABELS.to(getattr(torch, dtype)))), to_numpy(sparse(logits, LABELS)))


@pytest.mark.parametrize(
    "relayout",
    [lambda a: a.to(memory_format=torch.channels_last), lambda a: a.transpose(2, 3).contiguous().transpose(2, 3)],
    ids=["channels-last", "transposed"],
)
def test_an_image_of_any_layout_has_its_gradient_in_that_layout(rng, relayout):
    image = torch.tensor(rng.standard_normal((2, 7, 3, 4)), dtype=torch.float32)
    labels = torch.tensor(rng.integers(0, 7, (2, 3, 4)))
    told = relayout(image).requires_grad_()
    slope = gradient(sparse(told, labels, axis=1), told)
    rows = torch.tensor(image.permute(0, 2, 3, 1).reshape(-1, 7).numpy(), requires_grad=True)
    expected = gradient(sparse(rows, labels.reshape(-1)), rows).reshape(2, 3, 4, 7).permute(0, 3, 1, 2)

    assert slope.stride() == told.stride()
    assert same_bits(slope, expected)


def test_one_row_without_a_batch_has_a_loss_without_axes():
    logits = leaf([0.0, 0.0])
    loss = sparse(logits, torch.tensor(1))

    assert loss.shape == () and gradient(loss, logits).tolist() == [0.5, -0.5]


def test_no_rows_have_an_empty_gradient_and_a_mean_of_nan():
    logits = torch.zeros((0, 3), requires_grad=True)
    labels = torch.zeros((0,), dtype=torch.int64)

    assert gradient(sparse(logits, labels), logits).shape == (0, 3)
    assert sparse(logits, labels, reduction="mean").isnan()


class Scaled(torch.nn.Parameter):
    """A subclass of torch's own."""


def test_no_elements_have_a_binary_mean_that_can_be_differentiated():
    logits = torch.zeros((0, 3), requires_grad=True)

    assert gradient(binary(logits, torch.zeros(0, 3), reduction="mean"), logits).shape == (0, 3)


def test_parameters_and_their_subclasses_are_tensors(rng):
    values = torch.tensor(rng.standard_normal((5, 3)))
    expected = gradient(sparse(held := leaf(values), LABELS), held)
    parameters = torch.nn.Parameter(values), Scaled(values)

    assert all(same_bits(gradient(sparse(one, LABELS), one), expected) for one in parameters)


def test_the_result_shares_no_memory_with_the_predictions_and_changes_nothing(x):
    before = x.detach().clone()
    gradient(sparse(x, LABELS), x)

    assert torch.equal(x.detach(), before)


def test_a_tensor_changed_between_forwards_and_backwards_is_noticed():
    logits = torch.zeros((1, 3), requires_grad=True)
    held = logits * 1
    loss = sparse(held, torch.tensor([0]))
    held += 1

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradient(loss, logits)


def test_tensors_without_values_keep_their_shapes():
    logits, labels = torch.zeros((5, 3), device="meta"), torch.zeros((5,), dtype=torch.int64, device="meta")
    fake_mode = importlib.import_module("torch._subclasses.fake_tensor").FakeTensorMode

    assert sparse(logits, labels).shape == (5,) and sparse(logits, labels, reduction="mean").device.type == "meta"
    with fake_mode():
        assert sparse(torch.zeros((5, 3), requires_grad=True), torch.zeros((5,), dtype=torch.int64)).shape == (5,)


def test_where_numpy_cannot_see_the_memory_torch_itself_computes(rng, monkeypatch):
    monkeypatch.setattr(arrays, "views", lambda array: ())
    logits, labels = (
        torch.tensor(rng.standard_normal((7, 123)), dtype=torch.bfloat16),
        torch.tensor(rng.integers(0, 123, 7)),
    )
    logits.requires_grad_()
    with xent.using(threads=7):  # other settings have plans of their own
        loss = sparse(logits, labels)
        slope = gradient(loss, logits)
    expected = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")

    assert torch.allclose(loss, expected, rtol=1e-5)
    assert torch.allclose(slope, gradient(expected, logits), rtol=0.01, atol=1e-5)


def test_a_linear_layer_learns():
    torch.manual_seed(0)
    layer, inputs = torch.nn.Linear(4, 3), torch.randn(30, 4)
    labels = inputs[:, :3].argmax(-1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = sparse(layer(inputs), labels, reduction="mean")
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < losses[0] / 3


# -------------------- transforms


def test_vmap_gives_the_rows_their_losses(x):
    assert torch.allclose(func.vmap(sparse)(x.detach(), LABELS), sparse(x, LABELS), rtol=1e-14)


def test_vmap_of_grad_gives_each_example_its_gradient(x):
    assert torch.allclose(func.vmap(func.grad(sparse))(x.detach(), LABELS), gradient(sparse(x, LABELS), x))


def test_grad_through_a_closed_over_tensor_is_right(x):
    slope = func.grad(lambda scale: sparse(x.detach() * scale, LABELS).sum())(torch.ones((), dtype=torch.float64))

    assert torch.allclose(slope, (gradient(sparse(x, LABELS), x) * x.detach()).sum())


@pytest.mark.parametrize("row", [EDGES[name] for name in ("plain", "tie", "all-equal", "masked")])
@pytest.mark.parametrize(
    "transform", [func.hessian, lambda f: func.jacfwd(func.jacfwd(f)), lambda f: func.jacrev(func.jacrev(f))]
)
def test_the_hessian_is_that_of_the_softmax_at_ties_and_masks_too(transform, row):
    logits = torch.tensor(row, dtype=torch.float64)
    p = torch.softmax(logits, -1)

    assert torch.allclose(transform(lambda x: sparse(x, torch.tensor(1)))(logits), torch.diag(p) - p[:, None] * p)


def test_the_hessian_of_torch_autograd_is_the_same(x):
    p = torch.softmax(x.detach()[0], -1)
    for vectorize in (False, True):
        found = torch.autograd.functional.hessian(lambda x: sparse(x, LABELS[0]), x.detach()[0], vectorize=vectorize)

        assert torch.allclose(found, torch.diag(p) - p[:, None] * p)


def test_many_gradients_at_once_are_those_one_by_one(x):
    loss, seeds = sparse(x, LABELS), torch.eye(5, dtype=torch.float64)
    (together,) = torch.autograd.grad(loss, x, seeds, is_grads_batched=True, retain_graph=True)
    one_by_one = [torch.autograd.grad(loss, x, seed, retain_graph=True)[0] for seed in seeds]

    assert torch.allclose(together, torch.stack(one_by_one))


def test_forward_mode_and_jvp_agree_with_the_gradient(x, rng):
    change = torch.tensor(rng.standard_normal((5, 3)))
    expected = (gradient(sparse(x, LABELS), x) * change).sum(-1)
    with forward_ad.dual_level():
        by_dual = forward_ad.unpack_dual(sparse(forward_ad.make_dual(x.detach(), change), LABELS)).tangent

    assert torch.allclose(by_dual, expected)
    assert torch.allclose(func.jvp(lambda x: sparse(x, LABELS), (x.detach(),), (change,))[1], expected)


WEIGHTS = {"sample_weight": torch.tensor([2.0]), "class_weight": [1, 2, 3], "reduction": "mean"}


@pytest.mark.slow
@pytest.mark.parametrize("told", [{}, WEIGHTS, {"label_smoothing": 0.1}], ids=["plain", "weighted", "smoothed"])
@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
def test_forward_mode_in_the_targets_agrees_with_their_gradient_at_a_masked_class(kind, told):
    p, targets = torch.tensor([[0.0, 0.4, 0.6]]), torch.tensor([[0.0, 0.25, 0.75]])
    predictions = p if kind == "probabilities" else torch.log(p)
    loss = lambda t: dense(predictions, t, kind=kind, **told).sum()  # noqa: E731  # one line is enough
    forwards = func.jacfwd(loss)(targets)

    assert torch.allclose(forwards, func.jacrev(loss)(targets))
    assert torch.isposinf(forwards[0, 0]) and torch.isfinite(forwards[0, 1:]).all()
    assert func.jvp(loss, (targets,), (torch.zeros_like(targets),))[1] == 0


@pytest.mark.parametrize("way", [func.jacfwd, func.jacrev], ids=["forward", "reverse"])
def test_a_binary_target_has_an_infinite_slope_at_a_certain_prediction_in_every_mode(way):
    logits, targets = torch.tensor([inf, inf, -inf, -inf, 0.0]), torch.tensor([1.0, 0.0, 1.0, 0.0, 0.5])
    expected = torch.diag(torch.tensor([-inf, -inf, inf, inf, 0.0]))

    for kind, given in (("logits", logits), ("probabilities", torch.sigmoid(logits))):
        assert torch.equal(way(functools.partial(binary, kind=kind), 1)(given, targets), expected)


@pytest.mark.parametrize("way", [func.jacfwd, func.jacrev], ids=["forward", "reverse"])
@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
def test_the_slope_at_a_certain_binary_prediction_is_that_of_value_and_grad_in_every_mode(way, kind):
    p, targets = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.5]), torch.tensor([0.0, 1.0, 1.0, 0.0, 0.5])
    given = p if kind == "probabilities" else torch.log(p)
    _, expected = xent.value_and_grad(binary)(given, targets, kind=kind)

    assert torch.equal(way(functools.partial(binary, kind=kind))(given, targets).diagonal(), expected)


@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
def test_a_binary_nan_has_slope_nan_though_neither_answer_counts(kind):
    prediction, yes = leaf([nan]), torch.ones(1, dtype=torch.float64)

    assert gradient(binary(prediction, yes, kind=kind, pos_weight=0.0), prediction).isnan().all()


def test_forward_mode_skips_an_ignored_row_of_nan():
    logits = torch.tensor([[0.0, 1.0, 2.0], [nan, 0.0, 1.0]])
    _, change = func.jvp(
        lambda x: sparse(x, torch.tensor([0, -1]), ignore_index=-1), (logits,), (torch.ones_like(logits),)
    )

    assert torch.isfinite(change).all() and change[1] == 0


def test_the_third_derivative_is_right(x):
    row, step = x.detach()[0], 1e-5
    third = func.jacfwd(func.hessian(lambda x: sparse(x, LABELS[0])))(row)
    shift = torch.eye(3, dtype=torch.float64)[1] * step
    hessian = func.hessian(lambda x: sparse(x, LABELS[0]))

    assert torch.allclose(third[:, :, 1], (hessian(row + shift) - hessian(row - shift)) / (2 * step), atol=1e-8)


TRACED = {
    "sparse": lambda x: sparse(x, LABELS, sample_weight=x[:, 0].abs(), reduction="mean"),
    "dense": lambda x: dense(x, torch.softmax(x, -1), class_weight=[1, 2, 3]),
    "probabilities": lambda x: sparse(torch.softmax(x, -1), LABELS, kind="probabilities"),
    "labels": lambda x: sparse(x, x.argmax(-1)),
    "binary": lambda x: binary(x, torch.sigmoid(x)),
    "value_and_grad": lambda x: xent.value_and_grad(sparse)(x, LABELS)[1],
    "autograd": lambda x: gradient(sparse(held := x.detach().requires_grad_(), LABELS), held),
    "row_statistics": lambda x: xent.row_statistics(x, LABELS).entropy,
    "partial": lambda x: xent.finish(xent.partial(x, labels=LABELS)),
    "softmax": lambda x: xent.softmax(x),
    "log_softmax": lambda x: xent.log_softmax(x),
    "logsumexp": lambda x: xent.logsumexp(x),
    "one_hot": lambda x: xent.one_hot(x.argmax(-1), 3) * x,
}


def by_make_fx(function, given, **keywords):
    make_fx = importlib.import_module("torch.fx.experimental.proxy_tensor").make_fx
    return make_fx(function, _allow_non_fake_inputs=True, **keywords)(given)


TRACERS = {
    "make_fx": by_make_fx,
    "make_fx fake": lambda function, given: by_make_fx(function, given, tracing_mode="fake"),
    "make_fx symbolic": lambda function, given: by_make_fx(function, given, tracing_mode="symbolic"),
    "make_fx pre_dispatch": lambda function, given: by_make_fx(function, given, pre_dispatch=True),
    "torch.jit.trace": lambda function, given: torch.jit.trace(function, given, check_trace=False),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")  # torch's own
@pytest.mark.parametrize("tracer", TRACERS)
@pytest.mark.parametrize("name", TRACED)
def test_a_traced_call_computes_with_what_it_is_given_and_not_with_what_it_was_traced_with(name, tracer, rng):
    first, second = torch.tensor(rng.standard_normal((2, 5, 3)))
    traced = TRACERS[tracer](TRACED[name], first)

    assert torch.allclose(traced(second), TRACED[name](second))
    assert not torch.allclose(traced(first), traced(second))


def test_a_default_device_leaves_a_call_to_its_kernel(x):
    with torch.device("cpu"), pytest.raises(xent.LabelError):
        sparse(x.detach(), LABELS + 3)


# -------------------- memory


def in_a_fresh_process(text):
    """Runs the text in a Python of its own, where warnings are errors; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of a process can be reset on Linux only")
@pytest.mark.parametrize("told", ["", "label_smoothing=0.1", "sample_weight=weight", "ignore_index=7"])
def test_the_forward_pass_keeps_nothing_of_the_predictions_size(told):
    printed = in_a_fresh_process(f"""
        import re, torch, xent

        def status(name):
            return int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

        x, y = torch.randn(4096, 8192, requires_grad=True), torch.randint(0, 8192, (4096,))
        weight = torch.rand(4096, requires_grad=True)
        xent.sparse_cross_entropy(x[:9], y[:9], reduction="mean")
        open("/proc/self/clear_refs", "w").write("5")
        before = status("VmRSS")
        loss = xent.sparse_cross_entropy(x, y, reduction="mean", {told})
        forwards = status("VmHWM") - before
        loss.backward()
        print(forwards, status("VmHWM") - before, x.nbytes)
    """)
    forwards, backwards, size = (int(one) for one in printed.split())

    assert forwards < size / 8
    assert size / 2 < backwards < size * 1.25  # the gradient itself, which shows that this measures


# -------------------- torch.compile


COMPILED = """
import math, numpy as np, torch, xent
torch.manual_seed(0)
x, y, t = torch.randn(6, 7), torch.tensor([0, 1, 2, 3, 6, -100]), torch.rand(6, 7)
w, cw, two, three = torch.rand(6), torch.rand(7), np.float32(2), xent.Mean(np.int64(3))

def check(function, *, backend="aot_eager"):
    torch.compiler.reset()
    eager, compiled = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = function(eager)
    found = torch.compile(function, fullgraph=True, backend=backend)(compiled)
    pairs = [(found, expected)] if isinstance(found, torch.Tensor) else list(zip(found, expected, strict=True))
    for a, b in pairs:
        assert a.dtype == b.dtype and a.shape == b.shape, (a, b)
        assert torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-6, equal_nan=True), (a, b)
    if pairs[0][1].requires_grad:
        sums = [sum(pair[side].nansum() for pair in pairs if pair[1].requires_grad) for side in (0, 1)]
        slopes = [torch.autograd.grad(value, leaf)[0] for value, leaf in zip(sums, (compiled, eager), strict=True)]
        assert torch.allclose(*slopes, rtol=1e-4, atol=1e-6), slopes

"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # TorchDynamo's own doing
def test_a_positive_weight_of_numpy_is_a_number_for_the_compiler_too():
    torch.compiler.reset()
    logits, targets = torch.tensor([[0.5, -1.0]]), torch.tensor([[1.0, 0.0]])
    compiled = torch.compile(
        lambda weight: binary(logits, targets, pos_weight=weight), fullgraph=True, backend="aot_eager"
    )

    for weight in (2.0, np.float32(2), np.float64(2), np.int64(2)):
        assert torch.allclose(compiled(weight), binary(logits, targets, pos_weight=2.0))


@pytest.mark.slow
def test_a_fresh_process_compiles_a_training_step_without_a_graph_break():
    in_a_fresh_process(COMPILED + "\n".join([
        "told = dict(reduction='mean', ignore_index=-100, label_smoothing=0.1, sample_weight=w, class_weight=cw)",
        "check(lambda x: xent.sparse_cross_entropy(x, y, **told), backend='inductor')",
        "check(lambda x: xent.cross_entropy(x, t, reduction='mean'), backend='inductor')",
    ]))  # fmt: skip


@pytest.mark.slow
def test_every_loss_option_and_reduction_compiles_without_a_graph_break():
    in_a_fresh_process(COMPILED + "\n".join([
        "loss = xent.sparse_cross_entropy",
        "check(lambda x: loss(x, y.clamp(0)))",
        "check(lambda x: loss(x, y.to(torch.int8), reduction='sum', ignore_index=[-100, 3]))",
        "check(lambda x: loss(x, y, reduction=xent.Mean('counted', empty=0.0), ignore_index=-100))",
        "check(lambda x: loss(x.reshape(2, 3, 7).permute(0, 2, 1), y.reshape(2, 3), axis=1, ignore_index=-100))",
        "check(lambda x: loss(torch.softmax(x, -1), y.clamp(0), kind='probabilities', reduction='mean'))",
        "check(lambda x: loss(x.half(), y.clamp(0), reduction='mean'))",
        "check(lambda x: xent.cross_entropy(x, t, label_smoothing=0.1, class_weight=[1, 2, 3, 4, 5, 6, 7]))",
        "check(lambda x: xent.cross_entropy(t, x.exp(), reduction='mean'))",
        "check(lambda x: xent.binary_cross_entropy(x, t, reduction='mean', pos_weight=2.0, sample_weight=t.round()))",
        "check(lambda x: xent.binary_cross_entropy(x, t, pos_weight=two))",
        "check(lambda x: xent.cross_entropy(x, t, class_weight=[two] * 7, reduction=three))",
    ]))  # fmt: skip


@pytest.mark.slow
def test_an_option_that_is_a_number_of_numpy_is_refused_in_a_graph_with_what_to_write():
    smoothing, compiled = np.float32(0.1), importlib.import_module("torch._dynamo.exc")
    call = torch.compile(lambda x: sparse(x, LABELS, label_smoothing=smoothing), fullgraph=True, backend="eager")
    with pytest.raises(compiled.Unsupported, match="`label_smoothing` must be a number of Python under"):
        call(torch.zeros(5, 3))


@pytest.mark.slow
def test_the_other_functions_compile_without_a_graph_break():
    in_a_fresh_process(COMPILED + "\n".join([
        "check(lambda x: xent.one_hot(y, 7) * x)",
        "check(xent.softmax)",
        "check(xent.log_softmax)",
        "check(lambda x: xent.logsumexp(x, keepdims=True))",
        "check(lambda x: xent.row_statistics(x, y, ignore_index=-100))",
        "check(lambda x: xent.value_and_grad(xent.sparse_cross_entropy)(x, y, ignore_index=-100, reduction='mean'))",
        "check(lambda x: xent.finish(xent.partial(x, labels=y.clamp(0))))",
    ]))  # fmt: skip


@pytest.mark.slow
def test_a_prediction_of_nan_has_slope_nan_when_compiled():
    in_a_fresh_process("""
        import math, torch, xent
        loss = lambda x: xent.sparse_cross_entropy(x, torch.tensor([1]), kind='log_probabilities', reduction='sum')
        given = torch.tensor([[math.nan, -1.0]], requires_grad=True)
        value = torch.compile(loss, fullgraph=True, backend='aot_eager')(given)
        (slope,) = torch.autograd.grad(value, given)
        assert slope.isnan().tolist() == [[True, False]] and slope[0, 1] == -1, slope
    """)


@pytest.mark.slow
def test_one_graph_serves_any_number_of_rows_and_edges_of_the_logits():
    in_a_fresh_process(
        COMPILED
        + f"""
inf, nan = math.inf, math.nan
torch._dynamo.config.recompile_limit = 2
loss = lambda x, y: xent.sparse_cross_entropy(x, y, reduction='mean', ignore_index=-100)
step = torch.compile(loss, fullgraph=True, backend='aot_eager')
for rows in range(5, 30):
    given = torch.randn(rows, 7, requires_grad=True), torch.randint(0, 7, (rows,))
    assert torch.allclose(step(*given), loss(*given), rtol=1e-6)

edges = torch.tensor({list(EDGES.values())}, requires_grad=True)
for label in (0, 1, 2, 3):
    torch.compiler.reset()
    labels = torch.full((len(edges),), label)
    with xent.using(validate='never'):
        expected = xent.sparse_cross_entropy(edges, labels)
    found = torch.compile(xent.sparse_cross_entropy, fullgraph=True, backend='aot_eager')(edges, labels)
    slopes = [torch.autograd.grad(one.sum(), edges)[0] for one in (found, expected)]
    assert torch.allclose(found, expected, equal_nan=True), (found, expected)
    assert torch.allclose(*slopes, equal_nan=True), slopes
"""
    )


# -------------------- the gradient made in the forward pass


HELD = {"reduction": "mean", "ignore_index": 1}


@pytest.fixture
def in_forward():
    with xent.using(gradient_in_forward=True):
        yield


@pytest.mark.parametrize("function", [sparse, dense], ids=["sparse", "dense"])
@pytest.mark.parametrize("reduction", ["sum", "mean", xent.Mean("all"), "none"], ids=str)
def test_a_gradient_made_in_the_forward_pass_is_that_of_value_and_grad(in_forward, rng, function, reduction):
    logits = leaf(rng.standard_normal((7, 123)), torch.float32)
    targets = torch.tensor(rng.integers(0, 123, 7) if function is sparse else rng.random((7, 123)))
    loss = function(logits, targets, reduction=reduction)
    value, expected = xent.value_and_grad(function)(logits, targets, reduction=reduction)
    slope = gradient(loss, logits)

    assert same_bits(to_numpy(loss), value) and same_bits(slope, expected)


def test_it_is_held_from_the_forward_pass_on_and_the_predictions_are_read_once():
    logits, labels = torch.zeros((7, 5), requires_grad=True), torch.zeros(7, dtype=torch.int64)
    xent.register(toy_kernels.Plugin(toy_kernels.spec()), "toy")
    before = toy_kernels.loopback.calls
    try:
        with xent.using(kernel="loopback", gradient_in_forward=True):
            loss = sparse(logits, labels, reduction="mean")
        forwards = toy_kernels.loopback.calls - before
        slope = gradient(loss, logits)
    finally:
        xent.unregister("toy")

    assert forwards == 2 and toy_kernels.loopback.calls == before + 2  # the fold and the gradient, in one block
    assert torch.allclose(slope.sum(), torch.zeros(()))


def test_a_cotangent_multiplies_a_held_gradient(in_forward, x):
    loss = sparse(x, LABELS, **HELD)
    expected = gradient(loss, x, retain_graph=True)

    assert torch.allclose(torch.autograd.grad(loss, x, torch.tensor(3.0).double(), retain_graph=True)[0], 3 * expected)
    assert torch.allclose(torch.autograd.grad(loss, x, torch.tensor(2.0).double())[0], 2 * expected)


def test_a_held_gradient_serves_several_backward_passes_whatever_is_done_with_the_first(in_forward, x):
    loss = sparse(x, LABELS, **HELD)
    first = gradient(loss, x, retain_graph=True)
    expected = first.clone()
    first.mul_(7)
    loss.backward(retain_graph=True)
    x.grad.add_(1)
    x.grad = None
    loss.backward()

    assert torch.equal(x.grad, expected)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_second_derivatives_are_right_beside_a_held_gradient(in_forward, x):
    assert torch.autograd.gradgradcheck(lambda x: sparse(x, LABELS, **HELD), x)
    slope = gradient(sparse(x, LABELS, **HELD), x, create_graph=True)

    assert torch.allclose(slope, gradient(sparse(x, LABELS, **HELD), x))


def test_a_change_of_the_predictions_is_noticed_beside_a_held_gradient(in_forward):
    logits = torch.zeros((1, 3), requires_grad=True)
    held = logits * 1
    loss = sparse(held, torch.tensor([0]), reduction="mean")
    held += 1

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradient(loss, logits)


def test_a_held_gradient_times_zero_is_zero_though_a_row_holds_nan(in_forward):
    for keep in (True, False):
        logits = leaf([[0.0, nan, 1.0]])
        loss = sparse(logits, torch.tensor([0]), reduction="sum")
        slope = torch.autograd.grad(loss, logits, torch.zeros((), dtype=torch.float64), retain_graph=keep)[0]

        assert (slope == 0).all()


def test_the_flag_for_the_forward_pass_is_a_bool():
    with pytest.raises(TypeError, match="using: `gradient_in_forward` must be True or False, got 1"):
        xent.using(gradient_in_forward=1)


def test_a_tensor_kept_of_a_transform_that_has_ended_is_a_tensor():
    kept = []
    func.grad(lambda x: kept.append(x) or x.sum())(torch.ones(5, 3, dtype=torch.float64))
    loss = sparse(kept[0], LABELS, reduction="mean")

    assert torch.allclose(loss, torch.tensor(math.log(3), dtype=torch.float64))
    assert not loss.requires_grad  # as the tensor inside


def opposite(tensor):
    """The same numbers in memory that holds their opposites, as the imaginary parts of a conjugate do."""
    return torch._neg_view(-tensor)


@pytest.mark.parametrize("argument", ["predictions", "sample_weight", "class_weight"])
def test_a_tensor_that_holds_the_opposites_of_its_numbers_is_read_right(x, argument):
    logits, options = x.detach(), {"sample_weight": torch.arange(1.0, 6.0), "class_weight": torch.arange(1.0, 4.0)}
    expected = sparse(logits, LABELS, **options)
    given = {"predictions": logits, **options}
    given[argument] = opposite(given[argument])

    torch.testing.assert_close(sparse(given.pop("predictions"), LABELS, **given), expected)


@pytest.mark.parametrize("loss", [sparse, binary], ids=["sparse", "binary"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_a_cotangent_that_holds_its_opposite_keeps_its_sign(x, loss, reduction):
    targets = LABELS if loss is sparse else torch.full_like(x, 0.3)
    value = loss(x, targets, reduction=reduction)
    (found,) = torch.autograd.grad(value, x, opposite(torch.full_like(value, 0.5)), retain_graph=True)

    torch.testing.assert_close(found, torch.autograd.grad(value, x, torch.full_like(value, 0.5))[0])


def test_a_gradient_is_not_put_into_a_tensor_that_holds_opposites_but_may_take_the_place_of_their_numbers(x):
    call, logits = xent.value_and_grad(sparse), x.detach()
    _, expected = call(logits, LABELS)
    _, found = call(opposite(logits), LABELS, out=(out := torch.empty_like(logits)))

    assert found is out
    torch.testing.assert_close(found, expected)
    with pytest.raises(TypeError, match="whose memory can be seen"):
        call(logits, LABELS, out=opposite(logits))
