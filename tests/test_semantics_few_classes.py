"""docs/semantics.md, "Soft targets of a few classes": ids and weights for each row, and a tail of all other classes."""

import functools
import itertools
import re
import tracemalloc

import numpy as np
import pytest
from expected import near, same, same_bits
from libraries import Library

import xent
from xent.numerics import fold, listed

ROWS, CLASSES, COUNT, DEPTH = 5, 19, 3, 7
NUMPY = Library("numpy")
EAGER = ("numpy", "numpy-generic", "array-api-strict", "torch", "dask")


def told(rng, rows=ROWS, classes=CLASSES, count=COUNT):
    """Logits, and the ids, the weights and the tails of soft targets that sum to 1."""
    logits = rng.standard_normal((rows, classes)).astype(np.float32) * 3
    ids = np.stack([rng.permutation(classes)[:count] for _ in range(rows)]) if rows else np.zeros((0, count), int)
    weights = rng.random((rows, count + 1)).astype(np.float32)
    weights /= weights.sum(axis=-1, keepdims=True)
    return logits, ids, weights[:, :-1].copy(), weights[:, -1].copy()


def scattered(ids, weights, classes):
    """The same targets of all classes, in float64."""
    soft = np.zeros((len(ids), classes))
    for row, (places, values) in enumerate(zip(ids, weights, strict=True)):
        for place, value in zip(places, values, strict=True):
            if value:
                soft[row, place] += value
    return soft


def expected(logits, ids, weights, tail=None):
    """The losses and their gradient in float64."""
    x = np.asarray(logits, np.float64)
    log_z = np.logaddexp.reduce(x, axis=-1, keepdims=True)
    soft = scattered(ids, weights, x.shape[-1])
    loss = np.where(soft == 0, 0, soft * (log_z - np.where(soft == 0, 0, x))).sum(axis=-1)
    if tail is not None:
        is_listed = np.zeros(x.shape, bool)
        for row, places in enumerate(ids):
            is_listed[row, places[(places >= 0) & (places < x.shape[-1])]] = True
        others = np.where(is_listed, -np.inf, x)
        log_tail = np.logaddexp.reduce(others, axis=-1, keepdims=True)
        tail = np.asarray(tail, np.float64)
        loss = loss + np.where(tail == 0, 0, tail * (log_z - log_tail)[:, 0])
        soft = soft + np.where(is_listed, 0, np.exp(others - log_tail)) * tail[:, None]
    return loss, soft.sum(axis=-1, keepdims=True) * np.exp(x - log_z) - soft


def of_few(function, predictions, ids, weights, tail=None, **options):
    """The function of soft targets of a few classes."""
    return function(predictions, xent.SparseTargets(ids, weights, tail=tail), **options)


loss_of = functools.partial(of_few, xent.cross_entropy)
both_of = functools.partial(of_few, xent.value_and_grad(xent.cross_entropy))


def of_product(hidden, classifier, *more, **options):
    return both_of(xent.Linear(hidden, classifier), *more, **options)


# -------------------- the loss and its gradient


@pytest.mark.parametrize("has_tail", [False, True])
def test_the_loss_is_that_of_the_targets_of_all_classes(lib, rng, has_tail):
    logits, ids, weights, tail = told(rng)
    of_tail = (tail,) if has_tail else ()
    loss, gradient = lib.call(both_of, logits, ids, weights, *of_tail)
    right, slope = expected(logits, ids, weights, *of_tail)

    assert loss.dtype == gradient.dtype == np.float32
    assert near(loss, right, ulps=8) and np.allclose(gradient, slope, atol=1e-6)


@pytest.mark.variants(*EAGER, "dask-split", "jax")
@pytest.mark.parametrize("has_tail", [False, True])
def test_a_product_has_the_loss_and_the_gradient_of_its_logits(lib, rng, has_tail):
    _, ids, weights, tail = told(rng)
    hidden, classifier = (rng.standard_normal((size, DEPTH)).astype(np.float32) for size in (ROWS, CLASSES))
    sample = np.asarray([1, 0, 2, 1, 0.5], np.float32)
    hidden[1] = np.nan
    told_more = (tail,) if has_tail else ()
    loss, gradient = lib.call(of_product, hidden, classifier, ids, weights, *told_more, sample_weight=sample)
    wide = np.where(np.isnan(hidden), 0, hidden).astype(np.float64)
    right, slope = expected(wide @ classifier.T, ids, weights, *told_more)

    assert np.allclose(loss, right * sample, rtol=1e-5)
    assert np.allclose(gradient.hidden, (slope * sample[:, None]) @ classifier, atol=1e-5)
    assert np.allclose(gradient.classifier, (slope * sample[:, None]).T @ wide, atol=1e-5)


@pytest.mark.variants(*EAGER, "dask-split", "jax-jit")
def test_options_are_those_of_soft_targets(lib, rng):
    logits, ids, weights, _ = told(rng)
    told_more = {
        "reduction": "mean",
        "sample_weight": np.asarray([1, 0, 2, 1, 0.5], np.float32),
        "class_weight": rng.random(CLASSES).astype(np.float32),
        "label_smoothing": 0.1,
    }
    loss, gradient = lib.call(both_of, logits, ids, weights, **told_more)
    soft = scattered(ids, weights, CLASSES).astype(np.float32)
    right, slope = xent.value_and_grad(xent.cross_entropy)(logits, soft, **told_more)

    assert np.allclose(loss, right, rtol=1e-6) and np.allclose(gradient, slope, atol=1e-7)


@pytest.mark.variants("numpy", "torch", "dask-split")
@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
def test_probabilities_have_the_loss_of_soft_targets(lib, rng, kind):
    logits, ids, weights, _ = told(rng)
    given = xent.softmax(logits) if kind == "probabilities" else xent.log_softmax(logits)
    loss, gradient = lib.call(both_of, given, ids, weights, kind=kind)
    right, slope = xent.value_and_grad(xent.cross_entropy)(given, scattered(ids, weights, CLASSES), kind=kind)

    assert np.allclose(loss, right, rtol=1e-6) and np.allclose(gradient, slope, rtol=1e-5)


@pytest.mark.variants("numpy", "array-api-strict", "torch", "dask", "jax")
@pytest.mark.parametrize("has_tail", [False, True])
def test_the_classes_may_lie_along_any_axis_of_a_batch(lib, rng, has_tail):
    logits, ids, weights, tail = told(rng, rows=6)
    of_tail = (tail.reshape(2, 3),) if has_tail else ()
    turned = np.moveaxis(logits.reshape(2, 3, CLASSES), -1, 1)
    several = ids.reshape(2, 3, COUNT), weights.reshape(2, 3, COUNT), *of_tail
    loss, gradient = lib.call(both_of, turned, *several, axis=1)
    right, slope = expected(logits, ids, weights, *((tail,) if has_tail else ()))

    assert near(loss, right.reshape(2, 3), ulps=8)
    assert np.allclose(np.moveaxis(gradient, 1, -1).reshape(6, CLASSES), slope, atol=1e-6)


# -------------------- ids


@pytest.mark.variants(*EAGER, "jax")
def test_the_weights_of_a_class_that_is_listed_twice_add_up(lib, rng):
    logits, ids, weights, tail = told(rng)
    ids[:, 2] = ids[:, 0]

    assert near(lib.call(loss_of, logits, ids, weights, tail), expected(logits, ids, weights, tail)[0], ulps=8)


@pytest.mark.variants(*EAGER, "dask-split", "jax-jit")
def test_an_id_outside_is_padding_if_its_weight_is_zero(lib, rng):
    logits, ids, weights, tail = told(rng)
    ids[0, 1], ids[2, 2], weights[0, 1], weights[2, 2] = -1, CLASSES, 0, 0

    assert near(lib.call(loss_of, logits, ids, weights, tail), expected(logits, ids, weights, tail)[0], ulps=8)


@pytest.mark.variants(*EAGER, "dask-split", "jax")
@pytest.mark.parametrize("value", [CLASSES, -1])
def test_a_bad_id_raises_and_says_which(lib, rng, value):
    logits, ids, weights, _ = told(rng)
    ids[3, 1] = value

    with pytest.raises(xent.LabelError, match=rf"`targets\.ids`.* 19\).* got 1 outside.*position \(3, 1\), is {value}"):
        lib.call(loss_of, logits, ids, weights)


@pytest.mark.variants("numpy", "torch", "dask", "dask-split", "jax")
def test_a_bad_id_beside_class_weights_raises_though_its_row_has_no_other_weight(lib, rng):
    logits, ids, weights, _ = told(rng)
    ids[3], weights[3] = (CLASSES, 0, 1), (1, 0, 0)

    with pytest.raises(xent.LabelError, match=r"got 1 outside.*position \(3, 0\), is 19"):
        lib.call(loss_of, logits, ids, weights, class_weight=np.ones(CLASSES, np.float32))
    with xent.using(validate="never"):
        loss = lib.call(loss_of, logits, ids, weights, class_weight=np.ones(CLASSES, np.float32), reduction="mean")

    assert np.isnan(loss)


@pytest.mark.variants("numpy", "torch", "dask-split", "jax", "jax-jit")
def test_a_bad_id_in_an_ignored_row_is_not_looked_at(lib, rng):
    logits, ids, weights, tail = told(rng)
    counted = np.asarray([1, 1, 1, 0, 1], np.float32)
    ids[3, 1], logits[3] = CLASSES, np.nan
    loss, gradient = lib.call(both_of, logits, ids, weights, tail, sample_weight=counted)

    assert loss[3] == 0 and same(gradient[3], np.zeros(CLASSES)) and np.all(loss[:3] > 0)


def test_a_bad_id_in_a_trace_makes_its_row_nan(rng):
    jax = pytest.importorskip("jax")
    logits, ids, weights, tail = told(rng)
    ids[3, 1] = CLASSES
    for more in ((), (jax.numpy.asarray(tail),)):
        loss = jax.jit(loss_of)(*map(jax.numpy.asarray, (logits, ids, weights)), *more)

        assert np.isnan(loss).tolist() == [False, False, False, True, False]


# -------------------- the tail


def small_tail(rng):
    """Rows whose other classes together have probabilities down to 1e-12, with the tail that a teacher had for them."""
    logits, ids, weights, tail = told(rng)
    for row, places in enumerate(ids):
        logits[row, places] += 5 + 5 * row
    return logits, ids, weights, tail


@pytest.mark.variants(*EAGER, "dask-split", "jax-jit")
def test_a_small_tail_keeps_its_digits(lib, rng):
    logits, ids, weights, tail = small_tail(rng)
    tail[:] = 1
    loss = lib.call(loss_of, logits, ids, np.zeros_like(weights), tail)

    assert near(loss, expected(logits, ids, weights * 0, tail)[0], ulps=8)


def test_a_tail_of_one_less_the_others_is_found_out(monkeypatch, rng):
    def one_less(xp, others):
        whole = xp.zeros_like(others.max)
        logit = xp.log1p(-(1 - xp.exp(fold.log_partition(xp, others) - 20)))
        return fold.Partial(logit, whole, whole, others.target_sum)

    monkeypatch.setattr(listed, "tail_as_class", one_less)
    with pytest.raises(AssertionError):
        test_a_small_tail_keeps_its_digits(NUMPY, rng)


@pytest.mark.variants("numpy", "array-api-strict", "torch", "dask-split", "jax")
def test_without_other_classes_a_tail_costs_nothing_or_everything(lib, rng):
    logits, ids, weights, tail = told(rng, rows=2, classes=COUNT)
    tail[:] = 0, 0.5
    loss, gradient = lib.call(both_of, logits, ids, weights, tail)
    right, slope = expected(logits, ids, weights)
    log_z = np.logaddexp.reduce(logits.astype(np.float64), axis=-1, keepdims=True)
    slope += tail[:, None] * np.exp(logits - log_z)  # the sum of all targets has that of the tail

    assert near(loss[:1], right[:1], ulps=8) and loss[1] == np.inf
    assert np.allclose(gradient, slope, atol=1e-6)


@pytest.mark.variants("numpy", "torch", "dask-split", "jax")
def test_a_masked_class_is_in_no_tail_and_costs_nothing_without_a_weight(lib, rng):
    logits, ids, weights, tail = told(rng)
    others = [next(c for c in range(CLASSES) if c not in row) for row in ids]
    logits[np.arange(ROWS), others] = -np.inf
    logits[0, ids[0, 0]], weights[0, 0] = -np.inf, 0
    loss, gradient = lib.call(both_of, logits, ids, weights, tail)
    right, slope = expected(logits, ids, weights, tail)

    assert near(loss, right, ulps=8) and np.allclose(gradient, slope, atol=1e-6)


@pytest.mark.variants("numpy", "torch", "jax")
def test_a_tail_of_masked_classes_alone_has_the_gradient_of_none(lib, rng):
    logits, ids, weights, tail = told(rng)
    few, listed_alone = logits.copy(), np.take_along_axis(logits, ids, axis=-1)
    few[:] = -np.inf
    np.put_along_axis(few, ids, listed_alone, axis=-1)
    loss, gradient = lib.call(both_of, few, ids, weights, tail)
    alone = lib.call(both_of, listed_alone, np.broadcast_to(np.arange(COUNT), ids.shape), weights, tail)

    assert np.all(loss == np.inf) and np.allclose(np.take_along_axis(gradient, ids, axis=-1), alone[1], atol=1e-6)
    assert np.count_nonzero(gradient) == ids.size


@pytest.mark.variants("numpy", "numpy-generic", "torch", "dask-split", "jax")
def test_two_infinite_logits_in_a_tail_have_no_loss(lib, rng):
    logits, ids, weights, tail = told(rng, rows=1)
    logits[0, [c for c in range(CLASSES) if c not in ids[0]][:2]] = np.inf

    assert np.isnan(lib.call(loss_of, logits, ids, weights, tail)).all()


def test_whole_weights_beside_a_narrow_tail_keep_their_digits():
    targets = xent.SparseTargets(np.zeros((1, 1), int), np.asarray([[70001]]), tail=np.ones(1, np.float16))

    assert targets.columns.dtype == np.float32 and targets.columns.tolist() == [[70001, 1]]


def test_dask_takes_a_tail_of_unknown_chunks_and_numpy_no_lazy_ids(rng):
    da = pytest.importorskip("dask.array")
    given = told(rng)
    lazy = [da.from_array(one, chunks=(2, *one.shape[1:])) for one in given]
    unknown = [one[da.from_array(np.ones(ROWS, bool), chunks=2)] for one in lazy]

    assert near(loss_of(*unknown).compute(), loss_of(*given), ulps=0)
    with pytest.raises(TypeError, match=r"`targets\.ids` must be of the library of `predictions` \(numpy\)"):
        loss_of(given[0], lazy[1], given[2])


@pytest.mark.variants("numpy", "array-api-strict", "torch", "dask", "jax")
def test_no_class_may_be_listed(lib, rng):
    logits, ids, weights, tail = told(rng, count=0)

    assert same(lib.call(loss_of, logits, ids, weights), np.zeros(ROWS))
    assert np.allclose(lib.call(loss_of, logits, ids, weights, tail), 0, atol=1e-6)


@pytest.mark.variants("numpy", "array-api-strict", "torch", "dask", "jax")
def test_without_rows_there_are_no_losses_of_a_few_classes(lib, rng):
    logits, ids, weights, tail = told(rng, rows=0)

    assert lib.call(loss_of, logits, ids, weights, tail).shape == (0,)


# -------------------- slices, bits and memory


@pytest.mark.variants("numpy", "array-api-strict", "torch", "dask-split")
def test_slices_of_the_classes_merge_to_the_whole(lib, rng):
    logits, ids, weights, _ = told(rng)
    edges = [0, 8, CLASSES]

    def slices(function, logits, *more, **keywords):
        return [
            function(logits[:, a:b], *more, first_class=a, num_classes=CLASSES, **keywords)
            for a, b in itertools.pairwise(edges)
        ]

    def by_slices(logits, ids, weights):
        targets = xent.SparseTargets(ids, weights)
        whole = xent.merge(*slices(xent.partial, logits, targets=targets))
        return xent.finish(whole), *slices(xent.gradient, logits, whole, targets=targets)

    loss, *gradients = lib.call(by_slices, logits, ids, weights)
    right, slope = expected(logits, ids, weights)

    assert near(loss, right, ulps=8) and np.allclose(np.concatenate(gradients, axis=-1), slope, atol=1e-6)


@pytest.mark.variants("numpy", "torch", "dask")
@pytest.mark.parametrize("has_tail", [False, True])
def test_a_row_has_the_same_bits_without_its_neighbours(lib, rng, has_tail):
    logits, ids, weights, tail = told(rng, rows=7)
    of_tail = (tail,) if has_tail else ()
    whole = lib.call(both_of, logits, ids, weights, *of_tail)
    for row in range(7):
        rows = slice(row, row + 1)
        alone = both_of(logits[rows], ids[rows], weights[rows], *(one[rows] for one in of_tail))

        assert same_bits(alone[0], whole[0][rows]) and same_bits(alone[1], whole[1][rows])


def test_targets_of_all_classes_are_never_whole(rng):
    rows, classes = 256, 8192
    logits = np.zeros((rows, classes), np.float32)
    ids, weights = rng.integers(0, classes, (rows, COUNT)), np.full((rows, COUNT), 0.25, np.float32)
    tail, hidden = np.full(rows, 0.25, np.float32), np.ones((rows, 4), np.float32)
    for predictions in (logits, xent.Linear(hidden, np.ones((classes, 4), np.float32))):
        loss_of(predictions, ids, weights, tail)
        tracemalloc.start()
        loss_of(predictions, ids, weights, tail)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

        assert peak < 0.9 * logits.nbytes


# -------------------- autodiff, trees and graphs


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_autograd_has_the_gradient_of_value_and_grad(rng, torch):
    given = told(rng)
    logits, *targets = (torch.tensor(one) for one in given)
    loss_of(logits.requires_grad_(), *targets, reduction="mean").backward()

    assert same_bits(logits.grad, both_of(*given, reduction="mean")[1])


@pytest.mark.slow
@pytest.mark.parametrize("has_tail", [False, True])
def test_autograd_has_the_derivatives_in_logits_weights_and_tail(torch, rng, has_tail):
    logits, ids, weights, tail = (torch.tensor(one) for one in told(rng, rows=2, classes=5, count=2))
    reals = [one.double().requires_grad_() for one in (logits, weights, *([tail] if has_tail else []))]

    def loss(logits, weights, *tail):
        return loss_of(logits, ids, weights, *tail, reduction="mean")

    assert torch.autograd.gradcheck(loss, reals)
    assert torch.autograd.gradgradcheck(loss, reals)


@pytest.mark.slow
def test_autograd_has_the_derivatives_of_a_product_with_a_tail(torch, rng):
    _, ids, weights, tail = (torch.tensor(one) for one in told(rng, rows=2, classes=5, count=2))
    operands = [torch.tensor(rng.standard_normal((size, 3))) for size in (2, 5)]
    reals = [one.double().requires_grad_() for one in (*operands, weights, tail)]

    def loss(hidden, classifier, weights, tail):
        return loss_of(xent.Linear(hidden, classifier, softcap=3.0), ids, weights, tail, reduction="sum")

    assert torch.autograd.gradcheck(loss, reals)
    assert torch.autograd.gradgradcheck(loss, reals)


@pytest.mark.slow
def test_a_compiled_loss_of_a_few_classes_is_one_graph_and_right(torch, rng):
    logits, ids, weights, tail = (torch.tensor(one) for one in told(rng))
    compiled = torch.compile(loss_of, fullgraph=True, backend="aot_eager")
    for more in ((), (tail,)):
        loss = compiled(logits, ids, weights, *more, reduction="mean")

        assert torch.allclose(loss, loss_of(logits, ids, weights, *more, reduction="mean"))


@pytest.mark.slow
@pytest.mark.parametrize("is_product", [False, True])
def test_jax_has_the_derivatives_of_targets_that_are_a_tree(rng, is_product):
    jax = pytest.importorskip("jax")
    logits, ids, weights, tail = (jax.numpy.asarray(one) for one in told(rng))
    hidden, classifier = (rng.standard_normal((size, DEPTH)).astype(np.float32) for size in (ROWS, CLASSES))
    logits = hidden @ classifier.T if is_product else np.asarray(logits)
    given = xent.Linear(*map(jax.numpy.asarray, (hidden, classifier))) if is_product else jax.numpy.asarray(logits)

    @jax.jit
    def loss(predictions, targets):
        return xent.cross_entropy(predictions, targets, reduction="sum")

    found = jax.grad(loss, argnums=(0, 1), allow_int=True)(given, xent.SparseTargets(ids, weights, tail=tail))
    slope = expected(logits, ids, weights, tail)[1]
    log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)

    assert np.allclose(found[1].weights, -np.take_along_axis(log_p, np.asarray(ids), axis=-1), atol=1e-5)
    of_first = found[0].hidden if is_product else found[0]
    assert np.allclose(of_first, slope @ classifier if is_product else slope, atol=1e-5)
    one_tail = np.zeros(ROWS, np.float32)
    assert np.allclose(found[1].tail, expected(logits, ids, np.asarray(weights) * 0, one_tail + 1)[0], atol=1e-5)


# -------------------- what they say


def test_explain_takes_a_few_classes_and_computes_nothing(rng):
    logits, ids, weights, tail = told(rng)
    ids[:] = CLASSES
    decision = xent.explain(xent.cross_entropy, logits, xent.SparseTargets(ids, weights, tail=tail))

    assert decision.problem.tail == "class" and decision.kernel == "numpy"


def test_a_few_classes_say_what_they_hold(rng):
    _, ids, weights, tail = told(rng)

    assert re.fullmatch(
        r"SparseTargets\(int64\[5, 3\] on numpy, float32\[5, 3\] on numpy, tail=float32\[5\] on numpy\)",
        repr(xent.SparseTargets(ids, weights, tail=tail)),
    )
