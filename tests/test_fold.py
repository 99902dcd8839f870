"""The fold: every edge value in every split, order and tree; a row's bits whatever is around it; any split that
Hypothesis draws.

A tree is an int, the number of a block of classes, or a pair of trees, to be merged in that order.
"""

import functools
import itertools
import math

import array_api_compat.numpy as xp
import mpmath
import numpy as np
import pytest
from expected import near, one_hot, same, same_bits, smooth
from hypothesis import given
from hypothesis import strategies as st

import xent
from xent.contract.plan import resolve
from xent.dispatch.registry import registry
from xent.numerics import fold
from xent.numerics import statistics as numbers
from xent.testing.budget import k_of, loss_budget, lse_budget

inf, nan = math.inf, math.nan
EDGES = (-inf, -1.0, 0.0, 2.0, inf, nan)
NOTHING = (-inf, -1.0, 0.0, 0.0)  # the partial of no class at all
quietly = np.errstate(all="ignore")  # a kernel is called here without the schedule, which sees to that


class Kernel:
    """What xent's kernel of that name does with labels and with soft targets."""

    def __init__(self, name):
        registry.load()
        loads = {spec.op: spec.load for spec in registry.kernels if spec.name == name}
        self.sparse, self.dense = resolve(loads["sparse"]), resolve(loads["dense"])


@pytest.fixture
def kernel(forced):
    return Kernel(forced)


# -------------------- what is right, written plainly


def is_lost(x):
    """Whether a row has no softmax."""
    return any(math.isnan(one) for one in x) or all(one == -inf for one in x) or sum(one == inf for one in x) > 1


def plain_loss(x, t):
    """Σ t (log Σ exp x − x) of one row, by selection, with the limits at one +inf."""
    if is_lost(x):
        return nan
    if inf in x:
        return inf if any(one > 0 for one, at in zip(t, x, strict=True) if at != inf) else 0.0
    highest = max(x)
    lse = highest + math.log(sum(math.exp(one - highest) for one in x))
    return sum(one * (lse - at) for one, at in zip(t, x, strict=True) if one != 0)


def plain_softmax(x):
    if is_lost(x):
        return [nan] * len(x)
    if inf in x:
        return [float(one == inf) for one in x]
    exps = [math.exp(one - max(x)) for one in x]
    return [one / sum(exps) for one in exps]


def plain_gradient(x, t):
    return [sum(t) * p - one for p, one in zip(plain_softmax(x), t, strict=True)]


def agree(actual, expected) -> bool:
    """Equal to six digits, infinities and NaN alike: what is looked for here are wrong selections, not digits."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    with np.errstate(invalid="ignore"):
        close = np.abs(actual - expected) <= 3e-6 * np.maximum(1, np.abs(expected))
    return bool(np.all(close | (actual == expected) | (np.isnan(actual) & np.isnan(expected))))


# -------------------- every split, order and tree


def trees(blocks):
    """Every tree over the blocks, in both orders of each pair."""
    if len(blocks) == 1:
        yield blocks[0]
        return
    *others, last = blocks
    for chosen in itertools.product((False, True), repeat=len(others)):
        left = [one for one, is_left in zip(others, chosen, strict=True) if is_left]
        if left:
            right = [one for one in others if one not in left] + [last]
            for a, b in itertools.product(list(trees(left)), list(trees(right))):
                yield a, b
                yield b, a


def cuts(classes, most):
    """Every way to cut the classes into up to ``most`` blocks, of which some may be empty."""
    for inner in range(most):
        for edges in itertools.combinations_with_replacement(range(classes + 1), inner):
            yield list(itertools.pairwise((0, *edges, classes)))


def merged(tree, leaves, merge):
    return leaves[tree] if isinstance(tree, int) else merge(*(merged(one, leaves, merge) for one in tree))


def rows_of(classes, targets):
    """Every row of edge values beside every one of the targets: logits and targets, both (rows, classes)."""
    pairs = itertools.product(itertools.product(EDGES, repeat=classes), targets)
    x, t = (np.asarray(column, np.float32) for column in zip(*pairs, strict=True))
    return x, t


def empty(rows):
    return fold.Partial(*(np.full(rows, one, np.float32) for one in NOTHING))


def schedules(classes, rng):
    """Cuts with trees: all of up to three blocks, and some of four."""
    for blocks in cuts(classes, 3):
        for tree in trees(range(len(blocks))):
            yield blocks, tree
    of_four = [blocks for blocks in cuts(classes, 4) if len(blocks) == 4]
    every = list(trees(range(4)))
    for _ in range(60):
        yield of_four[rng.integers(len(of_four))], every[rng.integers(len(every))]


@functools.cache
def plain(classes, smoothing, is_sparse):
    """Rows, their targets before smoothing, and the plain loss and gradient of each."""
    few = classes < 4
    soft = (
        [*itertools.product((0.0, 1.0, 0.5), repeat=classes)] if few else [(0, 0, 0, 1), (0.5, 0, 1, 0), (0, 0, 0, 0)]
    )
    x, t = rows_of(classes, np.eye(classes).tolist() if is_sparse else soft)
    smoothed = smooth(t, smoothing)
    told = list(zip(x.tolist(), smoothed.tolist(), strict=True))
    return x, t, np.asarray([plain_loss(*one) for one in told]), np.asarray([plain_gradient(*one) for one in told])


@quietly
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("classes", [1, 2, 3, 4])
def test_labels_fold_right_over_every_edge_value_in_every_split_order_and_tree(kernel, classes, smoothing, rng):
    x, t, loss, _ = plain(classes, smoothing, True)
    labels, on, off = t.argmax(-1), 1.0 - smoothing, smoothing / classes
    found = {}
    for blocks, tree in schedules(classes, rng):
        leaves = [
            kernel.sparse.partial(x[:, a:b], labels - a, on, off, threads=1) if b > a else empty(len(x))
            for a, b in blocks
        ]
        value = fold.finish(xp, merged(tree, leaves, functools.partial(fold.merge, xp)))
        found[str((blocks, tree))] = agree(value, loss)

    assert [schedule for schedule, is_right in found.items() if not is_right] == []


@quietly
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("classes", [1, 2, 3, 4])
def test_soft_targets_fold_right_over_every_edge_value_in_every_split_order_and_tree(kernel, classes, smoothing, rng):
    x, t, loss, _ = plain(classes, smoothing, False)
    t = smooth(t, smoothing).astype(np.float32)
    found = {}
    for blocks, tree in schedules(classes, rng):
        leaves = [kernel.dense.partial(x[:, a:b], t[:, a:b], threads=1) if b > a else empty(len(x)) for a, b in blocks]
        value = fold.finish(xp, merged(tree, leaves, functools.partial(fold.merge, xp)))
        found[str((blocks, tree))] = agree(value, loss)

    assert [schedule for schedule, is_right in found.items() if not is_right] == []


@quietly
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("is_sparse", [True, False], ids=["sparse", "dense"])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_gradients_are_right_at_every_edge_value_in_every_split(kernel, classes, is_sparse, smoothing):
    x, t, _, gradient = plain(classes, smoothing, is_sparse)
    labels, on, off = t.argmax(-1), 1.0 - smoothing, smoothing / classes
    soft, scale = smooth(t, smoothing).astype(np.float32), np.ones(len(x), np.float32)
    found = {}
    for blocks in cuts(classes, 3):
        blocks = [(a, b) for a, b in blocks if b > a]
        told = [
            (kernel.sparse, (x[:, a:b], labels - a, on, off))
            if is_sparse
            else (kernel.dense, (x[:, a:b], soft[:, a:b]))
            for a, b in blocks
        ]
        whole = fold.merge_tree(xp, [one.partial(*arrays, threads=1) for one, arrays in told])
        parts = [one.gradient(*arrays, whole, scale, threads=1) for one, arrays in told]
        found[str(blocks)] = agree(np.concatenate(parts, axis=-1), gradient)

    assert [split for split, is_right in found.items() if not is_right] == []


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 123])
def test_a_tree_of_parts_pairs_neighbours_level_by_level_and_keeps_few_of_them(count):
    def parts():
        for number in range(count):
            alive.add(str(number))
            most.append(len(alive))
            yield str(number)

    def merge(_, a, b):
        alive.difference_update((a, b))
        alive.add(f"({a} {b})")
        return f"({a} {b})"

    alive, most, level = set(), [], [str(number) for number in range(count)]
    while len(level) > 1:  # the last one of an odd number waits for the next level
        level = [
            f"({' '.join(level[at : at + 2])})" if at + 1 < len(level) else level[at] for at in range(0, len(level), 2)
        ]

    assert fold.merge_tree(None, parts(), merge) == level[0]
    assert max(most) <= count.bit_length()


@quietly
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_statistics_are_right_at_every_edge_value_in_every_split_order_and_tree(kernel, classes, rng):
    x, t, *_ = plain(classes, 0.0, True)
    labels = t.argmax(-1)
    at_label = x[np.arange(len(x)), labels]
    p = np.asarray([plain_softmax(one) for one in x.tolist()])
    entropy = np.where(np.isnan(p), nan, np.where(p == 0, 0.0, -p * np.log(p))).sum(-1)
    before = (x > at_label[:, None]) | ((x == at_label[:, None]) & (np.arange(classes) < labels[:, None]))
    rank = np.where(np.isnan(p[:, 0]), -1, before.sum(-1))
    rows = numbers.Rows(None, None, None)
    found = {}
    for blocks in cuts(classes, 3):
        blocks = [(a, b) for a, b in blocks if b > a]
        leaves = [kernel.sparse.statistics(x[:, a:b], labels - a, at_label, threads=1) for a, b in blocks]
        for tree in trees(range(len(blocks))):
            whole = merged(tree, leaves, functools.partial(numbers.merge_statistics, xp))
            got = numbers.finish_statistics(xp, whole, rows)
            right = agree(got.entropy, entropy), agree(got.sum_p_squared, (p * p).sum(-1)), same(got.label_rank, rank)
            found[str((blocks, tree))] = right

    assert {schedule: right for schedule, right in found.items() if not all(right)} == {}


@quietly
def test_a_fold_that_multiplies_where_it_should_select_is_found_out():
    """The negative control of the tests above: a merge whose label part multiplies a step of +inf by no mass."""

    def careless(a, b):
        _, step = fold.step_between(xp, a, b)
        right = fold.merge(xp, a, b)
        low = xp.where(b.max > a.max, a.target_sum, b.target_sum)
        return right._replace(target_gap=a.target_gap + b.target_gap + low * step)

    x, t, loss, _ = plain(2, 0.0, True)
    leaves = [fold.partial_sparse(xp, x[:, j : j + 1], t.argmax(-1) - j) for j in range(2)]
    value = fold.finish(xp, careless(*leaves))

    assert not agree(value, loss)


# -------------------- merge


def random_partials(rng, count, classes=7):
    logits = (rng.standard_normal((11, count * classes)) * 5).astype(np.float32)
    labels = rng.integers(0, count * classes, 11)
    told = {"labels": labels, "num_classes": count * classes}
    return [
        xent.partial(logits[:, k * classes : (k + 1) * classes], first_class=k * classes, **told) for k in range(count)
    ]


def close_partials(a, b):
    return all(near(one, other.astype(np.float64), ulps=8) for one, other in zip(a, b, strict=True))


def test_merge_is_commutative(rng):
    a, b = random_partials(rng, 2)

    assert close_partials(xent.merge(a, b), xent.merge(b, a))


def test_merge_is_associative(rng):
    a, b, c = random_partials(rng, 3)

    assert close_partials(xent.merge(xent.merge(a, b), c), xent.merge(a, xent.merge(b, c)))


def test_merging_with_nothing_changes_no_bit(rng):
    (a,) = random_partials(rng, 1)

    assert all(same_bits(one, other) for one, other in zip(xent.merge(a, empty(11)), a, strict=True))
    assert all(same_bits(one, other) for one, other in zip(xent.merge(empty(11), a), a, strict=True))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["infinity first", "NaN first"])
def test_a_nan_is_the_maximum_of_both_whichever_side_it_is_on(order):
    parts = [
        xent.partial(np.asarray([[one]], np.float32), labels=np.asarray([-1]), num_classes=2) for one in (inf, nan)
    ]
    whole = xent.merge(*(parts[one] for one in order))

    assert np.isnan(whole.max[0]) and np.isnan(whole.sum_exp_rest[0])


@pytest.mark.variants("numpy", "array-api-strict", "torch")
def test_many_merges_lose_no_digit(lib):
    one = lib.apply(xent.partial, np.zeros((1, 1), np.float32), labels=np.asarray([-1]), num_classes=1001)
    with lib.strictly():
        whole = xent.merge(*[one] * 1001)

    assert same(lib.numpy(whole.sum_exp_rest), [1000.0])


# -------------------- a row's bits


SIZES = {"few": 5, "medium": 123, "vocabulary": 32_003, "more than a block": 70_001}
LAYOUTS = ("last", "strided", "fortran", "middle", "first")


def laid_out(rows, layout):
    """The same rows (rows, classes) in another layout, the class axis, and how to cut a run of rows from it."""
    if layout == "last":
        return rows, -1, lambda x, a, b: x[a:b]
    if layout == "strided":
        wide = np.zeros((rows.shape[0], 2 * rows.shape[1]), rows.dtype)
        wide[:, ::2] = rows
        return wide[:, ::2], -1, lambda x, a, b: x[a:b]
    if layout == "fortran":
        return np.asfortranarray(rows), -1, lambda x, a, b: x[a:b]
    if layout == "middle":
        return np.ascontiguousarray(rows.T)[None], 1, lambda x, a, b: x[:, :, a:b]
    return np.ascontiguousarray(rows.T), 0, lambda x, a, b: x[:, a:b]


def runs(count, is_large):
    """Where blocks of 1 to 33 rows begin and end; few of them where rows are large."""
    for size in (1, 2, 7, 33) if is_large else range(1, 34):
        for first in sorted({0, 1, 5, count - size}):
            if first + size <= count:
                yield first, first + size


def numbers_of_rows(x, labels, targets, axis):
    """Every number of each row, the rows first."""
    loss, gradient = xent.value_and_grad(xent.sparse_cross_entropy)(x, labels, axis=axis)
    dense, slope = xent.value_and_grad(xent.cross_entropy)(x, targets, axis=axis)
    plain, lse = xent.sparse_cross_entropy(x, labels, axis=axis), xent.logsumexp(x, axis=axis)
    statistics = xent.row_statistics(x, labels, axis=axis)
    rows = [one.reshape(-1) for one in (loss, dense, plain, lse, *statistics)]
    return [*rows, *(np.moveaxis(one, axis, -1).reshape(len(rows[0]), -1) for one in (gradient, slope))]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", ["few", "medium"])
@pytest.mark.parametrize("is_fresh", [False, True], ids=["a view", "an array of its own"])
def test_a_rows_bits_do_not_depend_on_its_block_or_its_place_in_it(forced, layout, size, is_fresh, rng):
    classes = SIZES[size]
    logits = (rng.standard_normal((41, classes)) * 3).astype(np.float32)
    labels, targets = rng.integers(0, classes, 41), rng.random((41, classes)).astype(np.float32)
    x, axis, cut = laid_out(logits, layout)
    t, *_ = laid_out(targets, layout)
    y = labels[None] if layout == "middle" else labels
    with xent.using(kernel=forced):
        whole = numbers_of_rows(x, y, t, axis)
        different = set()
        for a, b in runs(41, False):
            block = [cut(x, a, b), y[..., a:b], cut(t, a, b)]
            if is_fresh:
                block = [np.array(one, order="K") for one in block]
            for k, (one, part) in enumerate(zip(whole, numbers_of_rows(*block, axis), strict=True)):
                if not same_bits(one[a:b], part):
                    different.add((a, b, k))

    assert different == set()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", ["vocabulary", "more than a block"])
def test_a_large_rows_bits_do_not_depend_on_its_block_or_its_place_in_it(forced, layout, size, rng):
    classes = SIZES[size]
    logits = (rng.standard_normal((8, classes)) * 3).astype(np.float32)
    labels = rng.integers(0, classes, 8)
    x, axis, cut = laid_out(logits, layout)
    y = labels[None] if layout == "middle" else labels
    function = xent.value_and_grad(xent.sparse_cross_entropy)
    with xent.using(kernel=forced):
        loss, gradient = function(x, y, axis=axis)
        different = set()
        for a, b in ((0, 1), (3, 5), (1, 8)):
            part, slope = function(cut(x, a, b), y[..., a:b], axis=axis)
            if not (same_bits(loss[..., a:b], part) and same_bits(np.array(cut(gradient, a, b)), np.array(slope))):
                different.add((a, b))

    assert different == set()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("classes", [2, 7, 48, 49])
def test_a_small_call_has_the_bits_of_a_large_one(dtype, classes, rng):
    logits = (rng.standard_normal((20_011, classes)) * 3).astype(dtype)
    labels = rng.integers(0, classes, 20_011)
    whole = xent.sparse_cross_entropy(logits, labels)
    part = xent.sparse_cross_entropy(logits[300:317], labels[300:317])

    assert same_bits(whole[300:317], part)


# -------------------- any split


finite = st.floats(-1e4, 1e4, width=32)
logit = st.one_of(finite, st.sampled_from([0.0, -1.0, 1.0, 1e4]), st.just(-inf))


@st.composite
def split_rows(draw):
    """Logits (rows, classes), labels, the blocks of a cut of the classes, and an order to merge them in."""
    classes, rows = draw(st.integers(1, 24)), draw(st.integers(1, 3))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    x = np.asarray(draw(st.lists(logit, min_size=rows * classes, max_size=rows * classes)), dtype).reshape(
        rows, classes
    )
    labels = np.asarray(draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows)))
    edges = draw(st.lists(st.integers(1, classes - 1), max_size=5, unique=True)) if classes > 1 else []
    blocks = list(itertools.pairwise((0, *sorted(edges), classes)))
    return x, labels, draw(st.permutations(blocks))


def exact(x, label):
    """The loss of one row of finite and −inf logits, to fifty digits."""
    if x[label] == -inf:
        return nan if np.all(x == -inf) else inf
    with mpmath.workdps(50):
        others = [mpmath.exp(mpmath.mpf(float(one)) - float(x[label])) for one in np.delete(x, label) if one != -inf]
        return float(mpmath.log1p(mpmath.fsum(others)))


def within(actual, expected, budget, k):
    with np.errstate(invalid="ignore"):
        close = np.abs(actual.astype(np.float64) - expected) <= budget.allowed(k)
        same_edge = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    return bool(np.all(np.where(np.isfinite(expected), close, same_edge)))


@pytest.mark.slow("torch", "array-api-strict")
@given(split=split_rows())
@pytest.mark.variants("numpy", "numpy-generic", "array-api-strict", "torch")
def test_any_split_of_the_classes_has_the_loss_within_its_budget(lib, split):
    x, labels, blocks = split
    told = {"labels": labels, "num_classes": x.shape[1]}
    parts = [lib.apply(xent.partial, x[:, a:b], first_class=a, **told) for a, b in blocks]
    with lib.strictly():
        loss = lib.numpy(xent.finish(xent.merge(*parts)))
    expected = np.asarray([exact(row, label) for row, label in zip(x, labels, strict=True)])
    budget = loss_budget(x, one_hot(labels, x.shape[1]), flushes=lib.flushes)

    assert within(loss, expected, budget, k_of["loss"])


@pytest.mark.slow("torch", "array-api-strict")
@given(split=split_rows())
@pytest.mark.variants("numpy", "numpy-generic", "torch")
def test_any_split_of_the_classes_has_the_log_sum_exp_within_its_budget(lib, split):
    x, labels, blocks = split
    told = {"labels": labels, "num_classes": x.shape[1]}
    parts = [lib.apply(xent.partial, x[:, a:b], first_class=a, **told) for a, b in blocks]
    whole = lib.numpy(xent.merge(*parts))
    with np.errstate(invalid="ignore"):
        lse = fold.log_partition(xp, whole)
    expected = lib.call(xent.logsumexp, x).astype(np.float64)
    allowed = lse_budget(x, flushes=lib.flushes)

    assert within(lse, expected, allowed._replace(constant=2 * allowed.constant), 2 * k_of["lse"])


@given(split=split_rows(), smoothing=st.sampled_from([0.0, 0.1, 1.0]))
@pytest.mark.variants("numpy", "numpy-generic")
def test_any_split_of_smoothed_labels_is_the_split_of_their_targets(lib, split, smoothing):
    x, labels, blocks = split
    classes = x.shape[1]
    told = {"labels": labels, "num_classes": classes, "label_smoothing": smoothing}
    targets = smooth(one_hot(labels, classes), smoothing).astype(x.dtype)
    sparse = [lib.apply(xent.partial, x[:, a:b], first_class=a, **told) for a, b in blocks]
    dense = [lib.apply(xent.partial, x[:, a:b], targets=targets[:, a:b]) for a, b in blocks]
    one, other = (xent.finish(xent.merge(*parts)) for parts in (sparse, dense))
    budget = loss_budget(x, targets)

    assert within(one, other.astype(np.float64), budget._replace(constant=2 * budget.constant), 4 * k_of["loss"])


# -------------------- what a partial is made of


@pytest.mark.parametrize("name", ["sparse", "dense"])
def test_the_numbers_of_a_partial_are_arrays_of_their_own(forced, name):
    x, t = np.zeros((3, 1), np.float32), np.ones((3, 1), np.float32)
    told = {"labels": np.zeros(3, np.int64)} if name == "sparse" else {"targets": t}
    with xent.using(kernel=forced):
        found = xent.partial(x, **told)

    assert not any(np.shares_memory(one, array) for one in found for array in (x, t))


@pytest.mark.parametrize("name", ["sparse", "dense"])
def test_no_number_of_a_partial_is_minus_zero(forced, name):
    x, t = np.zeros((3, 2), np.float32), one_hot([0, 0, 0], 2).astype(np.float32)
    told = {"labels": np.zeros(3, np.int64)} if name == "sparse" else {"targets": t}
    with xent.using(kernel=forced):
        found = xent.partial(x - 0.0, **told)

    assert not any(np.any(np.signbit(one)) for one in (found.sum_exp_rest, found.target_gap, found.target_sum))
