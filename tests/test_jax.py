"""JAX: what its transforms make of the losses, and what it may not be asked to do.

That the functions are right on arrays, eagerly and under ``jax.jit``, is part of the tests that run on the variants
``jax`` and ``jax-jit``.
"""

import contextlib
import functools
import importlib
import math

import ml_dtypes
import numpy as np
import pytest
from expected import gradient_is_off, loss_is_off, near, one_hot, same, same_bits, smooth

import xent

jax = pytest.importorskip("jax", reason="jax is not installed")
jnp = importlib.import_module("jax.numpy")
check_grads = importlib.import_module("jax.test_util").check_grads

inf, nan = math.inf, math.nan
sparse, dense, binary = xent.sparse_cross_entropy, xent.cross_entropy, xent.binary_cross_entropy
LABELS = np.asarray([0, 2, 1, 1, 2], np.int32)
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


@pytest.fixture(params=[False, True], ids=["x32", "x64"])
def x64(request):
    """Without float64 and with it."""
    with jax.enable_x64(request.param):
        yield request.param


@pytest.fixture
def wide():
    """With float64, for derivatives that are compared with differences."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def x(rng):
    return rng.standard_normal((5, 3)) * 2


@pytest.fixture
def t(rng):
    return rng.random((5, 3))


def rightly_differentiated(function, *arrays):
    """JAX's own comparison with differences, twice, forwards and backwards; raises where they differ."""
    check_grads(lambda *given: function(*map(jnp.asarray, given)), arrays, order=2, atol=1e-4, rtol=1e-4)
    return True


# -------------------- gradients


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_grad_is_p_minus_the_target(x64, rng, dtype, smoothing):
    logits = (rng.standard_normal((7, 123)) * 3).astype(ml_dtypes.finfo(dtype).dtype)
    labels = rng.integers(0, 123, 7).astype(np.int32)
    loss = lambda x: sparse(x, jnp.asarray(labels), label_smoothing=smoothing).sum()  # noqa: E731  # one line is enough
    slope = np.asarray(jax.grad(loss)(jnp.asarray(logits)))

    assert slope.dtype == logits.dtype
    assert not gradient_is_off(
        slope, logits, smooth(one_hot(labels, 123), smoothing), is_sparse=not smoothing, flushes=True
    )


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("is_jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("form", ["sparse", "dense"])
def test_grad_is_right_at_the_edges_of_the_logits(form, is_jitted, label):
    logits = jnp.asarray(list(EDGES.values()), jnp.float32)
    target = one_hot([label] * len(EDGES), 3).astype(np.float32)
    told = (sparse, np.full(len(EDGES), label, np.int32)) if form == "sparse" else (dense, target)
    slope = jax.grad(lambda x: told[0](x, jnp.asarray(told[1])).sum())
    found = (jax.jit(slope) if is_jitted else slope)(logits)

    assert not gradient_is_off(np.asarray(found), np.asarray(logits), target, flushes=True)


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("form", ["sparse", "dense"])
def test_forward_mode_is_right_at_the_edges_of_the_logits(form, label):
    logits = jnp.asarray(list(EDGES.values()), jnp.float32)
    labels = np.full(len(EDGES), label)
    function, told = (
        (sparse, jnp.asarray(labels)) if form == "sparse" else (dense, xent.one_hot(jnp.asarray(labels), 3))
    )
    columns = [
        jax.jvp(lambda x: function(x, told), (logits,), (jnp.zeros_like(logits).at[:, one].set(1),))[1]
        for one in range(3)
    ]
    finite = np.asarray([name not in ("two-infinite", "all-masked", "nan") for name in EDGES])
    found, target = np.stack([np.asarray(column) for column in columns], -1), one_hot(labels, 3)

    assert not gradient_is_off(found[finite], np.asarray(logits)[finite], target[finite], flushes=True)
    assert np.isnan(found[~finite]).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean", xent.Mean("all")], ids=str)
def test_derivatives_of_every_kind_and_reduction_agree_with_differences(wide, x, kind, reduction):
    x = x / 4  # differences are poor where a probability is small
    log_p = x - np.log(np.exp(x).sum(-1, keepdims=True))
    given = {"logits": x, "probabilities": np.exp(log_p), "log_probabilities": log_p}[kind]
    told = {"kind": kind, "reduction": reduction, "ignore_index": 1, "label_smoothing": 0.1}

    assert rightly_differentiated(lambda x: sparse(x, jnp.asarray(LABELS), **told), given)


@pytest.mark.slow
@pytest.mark.parametrize("function", [sparse, dense], ids=["sparse", "dense"])
def test_weights_and_targets_have_derivatives_of_any_order(wide, x, t, rng, function):
    sample, classes = rng.random(5) + 0.5, rng.random(3) + 0.5

    def loss(x, t, sample, classes):
        target = jnp.asarray(LABELS) if function is sparse else t
        return function(x, target, sample_weight=sample, class_weight=classes, reduction="mean", label_smoothing=0.1)

    assert rightly_differentiated(loss, x, t, sample, classes)


def test_the_gradient_of_targets_is_infinite_at_a_masked_logit():
    logits, targets = jnp.asarray([[-inf, 0.0, 0.0]]), jnp.asarray([[0.0, 0.5, 0.5]])
    slope = jax.grad(lambda t: dense(logits, t).sum())(targets)

    assert np.allclose(slope, [[inf, math.log(2), math.log(2)]])


WEIGHTS = {"sample_weight": np.asarray([2.0]), "class_weight": [1, 2, 3], "reduction": "mean"}


@pytest.mark.slow
@pytest.mark.parametrize("told", [{}, WEIGHTS, {"label_smoothing": 0.1}], ids=["plain", "weighted", "smoothed"])
@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
def test_forward_mode_in_the_targets_agrees_with_their_gradient_at_a_masked_class(kind, told):
    p = np.asarray([[0.0, 0.4, 0.6]], np.float32)
    predictions = jnp.asarray(p) if kind == "probabilities" else jnp.log(p)
    targets = jnp.asarray([[0.0, 0.25, 0.75]])
    told = {name: jnp.asarray(one) if isinstance(one, np.ndarray) else one for name, one in told.items()}
    loss = lambda t: dense(predictions, t, kind=kind, **told).sum()  # noqa: E731  # one line is enough
    forwards, backwards = jax.jacfwd(loss)(targets), jax.jacrev(loss)(targets)

    assert np.allclose(forwards, backwards)
    assert np.isposinf(forwards[0, 0]) and np.isfinite(forwards[0, 1:]).all()
    assert jax.jvp(loss, (targets,), (jnp.zeros_like(targets),))[1] == 0


def test_a_binary_target_has_an_infinite_slope_at_a_certain_prediction_in_every_mode():
    logits, targets = jnp.asarray([inf, inf, -inf, -inf, 0.0]), jnp.asarray([1.0, 0.0, 1.0, 0.0, 0.5])
    expected = np.diag([-inf, -inf, inf, inf, 0.0])

    for kind, given in (("logits", logits), ("probabilities", jax.nn.sigmoid(logits))):
        loss = functools.partial(binary, kind=kind)
        assert same(jax.jacfwd(loss, 1)(given, targets), expected)
        assert same(jax.jacrev(loss, 1)(given, targets), expected)


def test_the_slope_of_binary_probabilities_is_that_of_the_cross_entropy_at_their_ends_too():
    p, targets = jnp.asarray([0.0, 1.0, 0.0, 1.0, 0.5]), jnp.asarray([0.0, 1.0, 1.0, 0.0, 0.5])
    expected = [1.0, -1.0, -inf, inf, 0.0]

    assert same(jax.grad(lambda p: binary(p, targets, kind="probabilities").sum())(p), expected)
    assert same(xent.value_and_grad(binary)(p, targets, kind="probabilities")[1], expected)


def test_constant_targets_leave_the_gradient_finite_at_a_masked_logit():
    logits, targets = jnp.asarray([[-inf, 0.0, 0.0]]), jnp.asarray([[0.0, 0.5, 0.5]])
    slope = jax.grad(lambda x: dense(x, jax.lax.stop_gradient(targets)).sum())(logits)

    assert same(slope, [[0, 0, 0]])


@pytest.mark.slow
@pytest.mark.parametrize("name", PIECES)
def test_softmax_and_its_companions_have_derivatives_of_any_order(wide, x, name):
    assert rightly_differentiated(PIECES[name], x)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
def test_binary_targets_have_derivatives_of_any_order(wide, rng, kind):
    given = rng.standard_normal(7) if kind == "logits" else rng.random(7) * 0.8 + 0.1
    given, targets = np.log(given) if kind.startswith("log_") else given, rng.random(7)

    assert rightly_differentiated(lambda x, t: binary(x, t, kind=kind, pos_weight=2.0), given, targets)


@pytest.mark.parametrize(("logit", "expected"), [(0.0, -0.5), (inf, 0.0), (-inf, -1.0)])
def test_a_binary_logit_has_the_slope_of_the_sigmoid_at_zero_and_at_infinity(logit, expected):
    assert jax.grad(lambda x: binary(x, jnp.ones(()), reduction="sum"))(jnp.asarray(logit)) == expected


@pytest.mark.slow
def test_row_statistics_have_derivatives_where_they_are_smooth(wide, x):
    def statistics(x):
        found = xent.row_statistics(x, jnp.asarray(LABELS))._asdict()
        return tuple(value for name, value in found.items() if name != "label_rank")

    assert rightly_differentiated(statistics, x)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
def test_a_prediction_of_nan_has_slope_nan(kind, label):
    given = np.asarray([[nan, 0.5 if kind == "probabilities" else -0.5]], np.float32)
    slope = jax.grad(lambda x: sparse(x, jnp.asarray([label]), kind=kind, reduction="sum"))(jnp.asarray(given))
    expected = xent.value_and_grad(sparse)(given, np.asarray([label]), kind=kind)[1]

    assert np.array_equal(slope, expected, equal_nan=True)


@pytest.mark.parametrize("name", ["top_probability", "entropy", "sum_p_squared"])
@pytest.mark.parametrize("row", ["nan", "all-masked"])
def test_a_row_without_a_softmax_has_nan_for_its_statistics(name, row):
    found = xent.row_statistics(jnp.asarray([EDGES[row], EDGES["plain"]]), jnp.asarray([0, 0]))

    assert same(np.isnan(getattr(found, name)), [True, False])


@pytest.mark.parametrize("function", [xent.softmax, xent.log_softmax])
@pytest.mark.parametrize("row", ["nan", "all-masked", "two-infinite"])
def test_what_a_caller_makes_of_a_row_without_a_softmax_is_nan_under_jit_too(function, row):
    logits = jnp.asarray([EDGES[row], EDGES["plain"]])
    found = np.asarray(jax.jit(lambda x: jnp.exp(function(x)))(logits))

    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()


# -------------------- ignored rows


@pytest.mark.slow
@pytest.mark.parametrize("told", ["ignore_index", "sample_weight", "class_weight"])
@pytest.mark.parametrize("is_jitted", [False, True], ids=["eager", "jit"])
def test_an_ignored_row_has_gradient_and_curvature_zero_though_it_holds_nan(told, is_jitted):
    logits, labels = jnp.asarray([[0.0, 1.0, 2.0], [nan, inf, -inf]]), jnp.asarray([0, 1])
    weights = {"sample_weight": jnp.asarray([1.0, 0.0]), "class_weight": jnp.asarray([1.0, 0.0, 1.0])}
    option = {told: {"ignore_index": 1, **weights}[told]}
    loss = lambda x: sparse(x, labels, reduction="mean", **option)  # noqa: E731  # one line is enough
    slope, hessian = jax.grad(loss), jax.hessian(loss)
    if is_jitted:
        slope, hessian = jax.jit(slope), jax.jit(hessian)

    assert np.isfinite(slope(logits)).all() and np.all(slope(logits)[1] == 0)
    assert np.isfinite(hessian(logits)).all() and np.all(hessian(logits)[1] == 0)


def test_an_ignored_row_gives_its_weight_no_gradient():
    logits, labels = jnp.asarray([[0.0, 1.0, 2.0], [nan, 0.0, 0.0]]), jnp.asarray([0, -1])
    slope = jax.grad(lambda w: sparse(logits, labels, sample_weight=w, ignore_index=-1, reduction="mean"))

    assert np.isfinite(slope(jnp.ones(2))).all() and slope(jnp.ones(2))[1] == 0


@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
def test_the_loss_of_an_ignored_row_has_no_gradient_in_its_statistics(kind):
    given, labels = jnp.asarray([[0.5, 0.25, 0.25], [nan, 0.5, 0.5]]), jnp.asarray([0, -1])
    slope = jax.grad(lambda x: xent.row_statistics(x, labels, kind=kind, ignore_index=-1).loss.sum())(given)

    assert np.isfinite(slope).all() and np.any(slope[0] != 0) and np.all(slope[1] == 0)


def test_a_row_of_class_weight_zero_gives_its_weight_no_gradient():
    logits, labels = jnp.asarray([[0.0, 1.0, 2.0], [nan, 0.0, 0.0]]), jnp.asarray([0, 1])
    slope = jax.grad(lambda w: sparse(logits, labels, class_weight=w, reduction="mean"))(jnp.asarray([1.0, 0.0, 1.0]))

    assert np.isfinite(slope).all() and slope[1] == 0


# -------------------- transforms


def test_vmap_gives_the_rows_their_losses(x64, x):
    logits, labels = jnp.asarray(x, jnp.float32), jnp.asarray(LABELS)

    assert np.allclose(jax.vmap(sparse)(logits, labels), sparse(logits, labels), rtol=1e-6)


@pytest.mark.slow
def test_vmap_of_grad_gives_each_example_its_gradient(x):
    logits, labels = jnp.asarray(x, jnp.float32), jnp.asarray(LABELS)
    whole = jax.grad(lambda x: sparse(x, labels).sum())(logits)

    assert np.allclose(jax.vmap(jax.grad(sparse))(logits, labels), whole, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("row", [EDGES[name] for name in ("plain", "tie", "all-equal", "masked")])
@pytest.mark.parametrize("outer", [jax.jacfwd, jax.jacrev], ids=["forward", "reverse"])
@pytest.mark.parametrize("inner", [jax.jacfwd, jax.jacrev], ids=["forward", "reverse"])
def test_the_hessian_is_that_of_the_softmax_at_ties_and_masks_too(wide, outer, inner, row):
    logits = jnp.asarray(row)
    p = jax.nn.softmax(logits)

    assert np.allclose(outer(inner(lambda x: sparse(x, jnp.asarray(1))))(logits), jnp.diag(p) - p[:, None] * p)


@pytest.mark.slow
def test_the_third_derivative_is_right(wide, x):
    hessian, row, step = jax.hessian(lambda x: sparse(x, jnp.asarray(1))), jnp.asarray(x[0]), 1e-5
    shift = jnp.eye(3)[1] * step

    assert np.allclose(
        jax.jacfwd(hessian)(row)[:, :, 1], (hessian(row + shift) - hessian(row - shift)) / (2 * step), atol=1e-8
    )


@pytest.mark.slow
def test_value_and_grad_works_eagerly_under_jit_and_under_vmap(x):
    logits, labels = jnp.asarray(x, jnp.float32), jnp.asarray(LABELS)
    both = xent.value_and_grad(sparse)
    value, slope = both(logits, labels)

    assert np.allclose(slope, jax.grad(lambda x: sparse(x, labels).sum())(logits), atol=1e-7)
    for again in (jax.jit(both), jax.vmap(both)):
        assert np.allclose(again(logits, labels)[0], value, rtol=1e-6)
        assert np.allclose(again(logits, labels)[1], slope, rtol=1e-5)


def seeds_whose_bits_differ(function, options, *, seeds=20, is_constant=False):
    """Of so many sets, those where jax.jit changes a bit of the loss; their weights may be constants of the trace."""

    def call(x, targets, weight):
        return function(x, targets, **{name: weight if name == "sample_weight" else options[name] for name in options})

    different, compiled = set(), jax.jit(call)
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        x = jnp.asarray(rng.standard_normal((7, 49)) * 3, jnp.float32)
        targets = jnp.asarray(rng.integers(0, 49, 7) if function is sparse else rng.random((7, 49)).astype(np.float32))
        weight = jnp.asarray(rng.random((7, 49) if function is binary else 7), jnp.float32)
        fixed = jax.jit(lambda x, targets, weight=weight: call(x, targets, weight)) if is_constant else None
        inside = fixed(x, targets) if fixed else compiled(x, targets, weight)
        if not same_bits(inside, call(x, targets, weight)):
            different.add(seed)
    return different


OPTIONS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1},
    "mean": {"reduction": "mean"},
    "weighted mean": {"reduction": "mean", "sample_weight": True},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("function", [sparse, dense])
def test_jit_changes_no_bit_of_a_loss(function, name):
    assert seeds_whose_bits_differ(function, OPTIONS[name]) == set()


@pytest.mark.parametrize("name", ["plain", "mean", "weighted mean"])
def test_jit_changes_no_bit_of_a_binary_loss(name):
    assert seeds_whose_bits_differ(binary, OPTIONS[name]) == set()


@pytest.mark.slow
@pytest.mark.parametrize("function", [sparse, dense, binary], ids=["sparse", "dense", "binary"])
def test_jit_changes_no_bit_of_a_mean_whose_weights_are_constants_of_the_trace(function):
    assert seeds_whose_bits_differ(function, OPTIONS["weighted mean"], seeds=4, is_constant=True) == set()


@pytest.mark.slow
@pytest.mark.parametrize("function", [sparse, dense, binary], ids=["sparse", "dense", "binary"])
def test_a_call_of_constants_alone_has_the_bits_of_an_eager_one(function, x, t):
    told = jnp.asarray(x, jnp.float32), jnp.asarray(LABELS if function is sparse else t)
    for call in (functools.partial(function, reduction="mean"), xent.value_and_grad(function)):
        constant = jax.jit(lambda call=call: call(*told))()

        assert all(map(same_bits, jax.tree.leaves(constant), jax.tree.leaves(call(*told))))


# -------------------- NaN on the way

HEALTHY = [EDGES[name] for name in ("plain", "tie", "all-equal", "masked", "one-infinite")] + [[0.0, 200.0, 0.0]]
PROBABLE = np.asarray([[0.5, 0.25, 0.25], [0, 1, 0], [0, 0.5, 0.5], [1, 0, 0], [0, 0, 1], [0, 1, 0]], np.float32)
LIKELY = [0, 1, 2, 0, 2, 1]
CALLS = {
    "sparse": (sparse, HEALTHY, LIKELY),
    "ignored": (functools.partial(sparse, ignore_index=1, reduction="mean"), HEALTHY, LIKELY),
    "smoothed": (functools.partial(sparse, label_smoothing=0.1), HEALTHY[:3], LIKELY[:3]),
    "dense": (functools.partial(dense, reduction=xent.Mean(empty=0.0)), HEALTHY, PROBABLE),
    "probabilities": (functools.partial(dense, kind="probabilities"), PROBABLE, PROBABLE),
    "log-probabilities": (functools.partial(sparse, kind="log_probabilities"), np.log(PROBABLE.clip(1e-9)), LIKELY),
    "binary": (functools.partial(binary, pos_weight=2.0, reduction="mean"), HEALTHY, PROBABLE),
    "binary probabilities": (functools.partial(binary, kind="probabilities"), PROBABLE, PROBABLE),
}


def told_of(name):
    """A function, and its arrays: of rows whose answer is no NaN."""
    function, predictions, targets = CALLS[name]
    weight = np.asarray([1.0, 2.0, 0.0, 1.0, 0.5, 3.0][: len(predictions)], np.float32)
    if name.startswith("binary"):
        weight = np.broadcast_to(weight[:, None], np.shape(predictions))
    weighted = functools.partial(function, sample_weight=jnp.asarray(weight))
    return weighted, jnp.asarray(predictions, jnp.float32), jnp.asarray(targets)


def forwards_and_backwards(function, x, y):
    """The loss, and its gradient in every way."""
    slope = jax.grad(lambda x: function(x, y).sum())(x)
    return (
        function(x, y),
        xent.value_and_grad(function)(x, y),
        slope,
        jax.jvp(lambda x: function(x, y), (x,), (jnp.ones_like(x),)),
    )


def other_functions(x, y):
    """What every function but the losses makes of them."""
    parts = [xent.partial(x[:, cut], labels=y, first_class=cut.start, num_classes=3) for cut in CUTS]
    whole = xent.finish(xent.merge(*parts))
    return whole, xent.row_statistics(x, y), xent.softmax(x), xent.log_softmax(x), xent.logsumexp(x), xent.one_hot(y, 3)


CUTS = slice(0, 1), slice(1, 2), slice(2, 3)


@pytest.mark.slow
@pytest.mark.parametrize("is_jitted", [False, True], ids=["disable_jit", "jit"])
@pytest.mark.parametrize("name", CALLS)
def test_healthy_rows_meet_no_nan_on_the_way_of_a_loss(name, is_jitted):
    told = told_of(name)
    with jax.debug_nans(True), contextlib.nullcontext() if is_jitted else jax.disable_jit():
        found = forwards_and_backwards(*told)

    assert not any(np.isnan(one).any() for one in jax.tree.leaves(found))


@pytest.mark.slow
@pytest.mark.parametrize("is_jitted", [False, True], ids=["disable_jit", "jit"])
def test_healthy_rows_meet_no_nan_on_the_way_of_the_other_functions(is_jitted):
    told = jnp.asarray(HEALTHY, jnp.float32), jnp.asarray(LIKELY)
    with jax.debug_nans(True), contextlib.nullcontext() if is_jitted else jax.disable_jit():
        found = other_functions(*told)

    assert not any(np.isnan(one).any() for one in jax.tree.leaves(found))


def test_jax_debug_nans_finds_a_row_without_a_softmax():
    logits = jnp.asarray([EDGES["plain"], EDGES["nan"]])
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        sparse(logits, jnp.asarray([0, 0]))


def test_finite_answers_of_compiled_calls_meet_jax_debug_infs():
    with jax.debug_infs(True):
        found = forwards_and_backwards(sparse, jnp.asarray(HEALTHY[:3], jnp.float32), jnp.asarray([0, 1, 2]))

    assert all(np.isfinite(one).all() for one in jax.tree.leaves(found))


# -------------------- the error budget


@pytest.mark.slow
@pytest.mark.parametrize("classes", [33, 47, 300, 4099])
def test_many_equal_terms_keep_the_budget_without_float64(classes):
    rng = np.random.default_rng(5)
    logits = -np.abs(rng.standard_normal((7, 1)) * np.asarray([[0.01], [1], [10]])[rng.integers(0, 3, 7)])
    logits = np.broadcast_to(logits, (7, classes)).astype(np.float32)
    logits[:, classes // 2] = 0
    targets = rng.random((7, classes)).astype(np.float32)
    targets /= targets.sum(-1, keepdims=True)
    loss, slope = xent.value_and_grad(dense)(jnp.asarray(logits), jnp.asarray(targets))

    assert not loss_is_off(loss, logits, targets, flushes=True)
    assert not gradient_is_off(slope, logits, targets, flushes=True)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [128, 129, 1000, 16500])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equal_terms_keep_the_budget_at_any_number_of_blocks_of_classes(classes, smoothing):
    logits = np.repeat(np.asarray([[-0.7], [-2.3], [-17.1], [0.0]], np.float32), classes, axis=1)
    logits[:, classes // 3] = 0
    labels = np.asarray([classes // 3, 0, classes // 3, classes - 1])
    targets = smooth(one_hot(labels, classes), smoothing)
    found = xent.value_and_grad(sparse)(jnp.asarray(logits), jnp.asarray(labels), label_smoothing=smoothing)

    assert not loss_is_off(np.asarray(found[0]), logits, targets, flushes=True)
    assert not gradient_is_off(np.asarray(found[1]), logits, targets, is_sparse=not smoothing, flushes=True)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [10, 49, 300])
def test_a_row_has_the_same_bits_in_a_batch_of_any_size_and_beside_its_gradient(classes, rng):
    logits = jnp.asarray(rng.standard_normal((64, classes)) * 3, jnp.float32)
    labels = jnp.asarray(rng.integers(0, classes, 64))
    batch = sparse(logits, labels)

    for rows in (1, 3):
        assert same_bits(sparse(logits[:rows], labels[:rows]), batch[:rows])
    assert same_bits(xent.value_and_grad(sparse)(logits, labels)[0], batch)
    assert same_bits(jax.jit(jax.vjp, static_argnums=0)(lambda x: sparse(x, labels), logits)[0], batch)


def test_the_largest_numbers_beside_one_infinity_have_no_probability():
    largest = float(np.finfo(np.float32).max)

    assert same(xent.softmax(jnp.asarray([inf, largest, largest, 0.0])), [1, 0, 0, 0])


def test_logits_whose_difference_is_flushed_to_zero_are_equal():
    logits, labels = jnp.asarray([[2.5e-38, 2.8e-38]], jnp.float32), jnp.asarray([0])

    for compiled in (lambda function: function, jax.jit):
        assert compiled(sparse)(logits, labels)[0] == np.float32(math.log(2))
        assert compiled(xent.logsumexp)(logits)[0] == np.float32(math.log(2))
        assert compiled(xent.softmax)(logits).tolist() == [[0.5, 0.5]]


def test_a_scan_over_masked_logits_has_a_finite_gradient():
    logits, targets = jnp.asarray([[-inf, 0.0, 1.0]] * 4), jnp.asarray([[0.0, 0.5, 0.5]])

    def total(scale):
        shift = scale * jnp.arange(3.0)
        return jax.lax.scan(lambda sum, row: (sum + dense((row + shift)[None], targets)[0], None), 0.0, logits)[0]

    assert np.isfinite(jax.grad(total)(2.0))


# -------------------- exported calls


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["sum", "mean", xent.Mean("all")], ids=str)
@pytest.mark.parametrize("function", [sparse, dense, binary], ids=["sparse", "dense", "binary"])
def test_a_call_is_exported_for_any_number_of_rows(function, reduction, rng):
    export = importlib.import_module("jax.export")
    call = functools.partial(function, reduction=reduction)
    targets_shape = "n" if function is sparse else "n, 3"
    scope = export.SymbolicScope()
    shapes = [export.symbolic_shape(shape, scope=scope) for shape in ("n, 3", targets_shape)]
    dtypes = jnp.float32, jnp.int32 if function is sparse else jnp.float32
    exported = export.export(jax.jit(call))(*map(jax.ShapeDtypeStruct, shapes, dtypes))
    for rows in (1, 5, 1000):
        logits = jnp.asarray(rng.standard_normal((rows, 3)), jnp.float32)
        targets = jnp.asarray(rng.integers(0, 3, rows) if function is sparse else rng.random((rows, 3)), dtypes[1])

        assert near(exported.call(logits, targets), call(logits, targets))


def test_a_symbolic_number_of_classes_is_refused():
    export = importlib.import_module("jax.export")
    logits = jax.ShapeDtypeStruct(export.symbolic_shape("5, c"), jnp.float32)
    with pytest.raises(ValueError, match=r"`predictions` must have a fixed number of classes, got shape \(5, c\)"):
        export.export(jax.jit(lambda x: sparse(x, jnp.asarray(LABELS))))(logits)


# -------------------- labels and traces


def test_a_bad_label_raises_outside_a_trace_and_is_nan_inside(x):
    logits, labels = jnp.asarray(x, jnp.float32), jnp.asarray([0, 1, 2, 3, 0])
    with pytest.raises(xent.LabelError, match="position 3, is 3"):
        sparse(logits, labels)
    loss, slope = jax.jit(lambda x: sparse(x, labels))(logits), jax.jit(xent.value_and_grad(sparse))(logits, labels)[1]
    bad = labels == 3

    assert same(np.isnan(loss), bad) and same(np.isnan(slope).all(-1), bad)
    assert same(np.isnan(jax.grad(lambda x: sparse(x, labels).sum())(logits)).all(-1), bad)


def test_validate_always_cannot_raise_in_a_trace(x):
    with xent.using(validate="always"):
        loss = jax.jit(sparse)(jnp.asarray(x, jnp.float32), jnp.asarray([0, 1, 2, 3, 0]))

    assert np.isnan(loss[3]) and np.isfinite(loss[:3]).all()


def test_a_label_that_int32_cannot_hold_is_bad():
    labels = jnp.asarray(np.asarray([2**32 - 1], np.uint32))
    with pytest.raises(xent.LabelError):
        sparse(jnp.zeros((1, 3)), labels)

    assert np.isnan(jax.jit(sparse)(jnp.zeros((1, 3)), labels)[0])


@pytest.mark.parametrize("function", [sparse, xent.value_and_grad(sparse), xent.row_statistics])
def test_nothing_is_brought_to_the_host_in_a_trace(x, function):
    told = jnp.asarray(x, jnp.float32), jnp.asarray(LABELS)
    compiled = jax.jit(function)
    compiled(*told)
    with jax.transfer_guard("disallow"):
        found = compiled(*told)

    assert jax.tree.leaves(found)


def test_a_call_leaves_nothing_but_its_result(x):
    """No array of the predictions' size outlives the call: what XLA needs on the way is its own."""
    told = jnp.asarray(x, jnp.float32), jnp.asarray(LABELS)
    sparse(*told)
    before = {id(one) for one in jax.live_arrays()}
    loss = sparse(*told)

    assert [one.shape for one in jax.live_arrays() if id(one) not in before] == [loss.shape]


def test_one_row_without_a_batch_has_a_loss_without_axes():
    assert same(jax.grad(lambda x: sparse(x, jnp.asarray(1)))(jnp.zeros(2)), [0.5, -0.5])


def test_no_rows_have_an_empty_gradient_and_a_mean_of_nan():
    logits, labels = jnp.zeros((0, 3)), jnp.zeros((0,), jnp.int32)

    assert jax.grad(lambda x: sparse(x, labels).sum())(logits).shape == (0, 3)
    assert np.isnan(sparse(logits, labels, reduction="mean"))


@pytest.mark.slow
def test_a_linear_model_learns(rng):
    inputs = jnp.asarray(rng.standard_normal((30, 4)), jnp.float32)
    labels = jnp.argmax(inputs[:, :3], -1)
    step = jax.jit(jax.value_and_grad(lambda weights: sparse(inputs @ weights, labels, reduction="mean")))
    weights, losses = jnp.zeros((4, 3)), []
    for _ in range(30):
        loss, slope = step(weights)
        weights, losses = weights - slope, [*losses, float(loss)]

    assert losses[-1] < losses[0] / 2
