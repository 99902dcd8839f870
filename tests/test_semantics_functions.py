"""docs/semantics.md, "The functions": what each takes and what it returns."""

import functools
import inspect
import math

import numpy as np
import pytest
from expected import far, gradient_is_off, loss_is_off, near, one_hot, same, smooth

import xent
from xent.testing import reference
from xent.testing.budget import Budget, loss_budget, lse_budget

np_xp = pytest.importorskip("array_api_compat.numpy")
log = math.log

SIGNATURES = {
    "cross_entropy": "(predictions, targets, /, *, axis=-1, kind='logits', reduction='none', sample_weight=None, "
    "class_weight=None, label_smoothing=0.0)",
    "sparse_cross_entropy": "(predictions, labels, /, *, axis=-1, kind='logits', reduction='none', sample_weight=None, "
    "class_weight=None, ignore_index=None, label_smoothing=0.0)",
    "binary_cross_entropy": "(predictions, targets, /, *, kind='logits', reduction='none', sample_weight=None, "
    "pos_weight=None)",
    "linear_cross_entropy": "(hidden, classifier, labels, /, *, bias=None, softcap=None, reduction='none', "
    "sample_weight=None, class_weight=None, ignore_index=None, label_smoothing=0.0)",
    "Linear": "(hidden, classifier, /, *, bias=None, softcap=None)",
    "SparseTargets": "(ids, weights, /, *, tail=None)",
    "value_and_grad": "(loss, *, of=None)",
    "row_statistics": "(predictions, labels, /, *, axis=-1, kind='logits', ignore_index=None)",
    "explain": "(loss, /, *arrays, **options)",
    "softmax": "(logits, /, *, axis=-1)",
    "log_softmax": "(logits, /, *, axis=-1)",
    "logsumexp": "(logits, /, *, axis=-1, keepdims=False)",
    "one_hot": "(labels, num_classes, /, *, on_value=1.0, off_value=0.0, axis=-1, dtype=None)",
    "merge": "(first, /, *others)",
    "finish": "(partial, /)",
}


@pytest.mark.parametrize(("name", "expected"), SIGNATURES.items(), ids=list(SIGNATURES))
def test_the_signature_is_the_promised_one(name, expected):
    signature = inspect.signature(getattr(xent, name))
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]

    assert str(inspect.Signature(bare)) == expected


def normal(rng, *shape, dtype=np.float32):
    return rng.standard_normal(shape).astype(dtype) * 3


# -------------------- shapes


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_dense_losses_have_the_shape_of_the_batch_whatever_the_class_axis(lib, rng, axis):
    logits, targets = normal(rng, 3, 5, 7), np.abs(normal(rng, 3, 5, 7))
    loss = lib.call(xent.cross_entropy, logits, targets, axis=axis)
    last = [np.moveaxis(one, axis, -1) for one in (logits, targets)]
    flat = [one.reshape(-1, one.shape[-1]) for one in last]

    assert loss.shape == last[0].shape[:-1]
    assert not loss_is_off(loss.reshape(-1), *flat, flushes=lib.flushes)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_sparse_losses_have_the_shape_of_the_labels_whatever_the_class_axis(lib, rng, axis):
    logits = normal(rng, 3, 5, 7)
    last = np.moveaxis(logits, axis, -1)
    labels = rng.integers(0, last.shape[-1], last.shape[:-1])
    loss = lib.call(xent.sparse_cross_entropy, logits, labels, axis=axis)
    flat = last.reshape(-1, last.shape[-1])

    assert loss.shape == labels.shape
    assert not loss_is_off(loss.reshape(-1), flat, one_hot(labels.reshape(-1), flat.shape[-1]), flushes=lib.flushes)


@pytest.mark.parametrize("shape", [(), (7,), (3, 1, 5)], ids=str)
def test_binary_losses_have_the_shape_of_the_predictions(lib, rng, shape):
    loss = lib.call(xent.binary_cross_entropy, np.zeros(shape, np.float32), rng.random(shape).astype(np.float32))

    assert near(loss, np.full(shape, log(2)))


def test_one_row_of_classes_and_one_label_give_a_loss_without_axes(lib):
    loss = lib.call(xent.sparse_cross_entropy, np.zeros(5, np.float64), np.asarray(3))

    assert near(loss, log(5))


@pytest.mark.parametrize("reduction", ["sum", "mean", xent.Mean("all")], ids=str)
def test_a_reduction_has_no_axes(lib, reduction):
    loss = lib.call(xent.sparse_cross_entropy, np.zeros((3, 5), np.float32), np.asarray([1, 0, 4]), reduction=reduction)

    assert loss.shape == ()


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool], ids=lambda one: np.dtype(one).name)
def test_a_one_hot_of_integers_or_bools_is_a_dense_target(lib, rng, dtype):
    logits, targets = normal(rng, 5, 3), one_hot([0, 2, 1, 1, 0], 3)
    loss = lib.call(xent.cross_entropy, logits, targets.astype(dtype))

    assert not loss_is_off(loss, logits, targets, flushes=lib.flushes)


def test_the_loss_is_in_nats(lib):
    assert near(lib.call(xent.cross_entropy, np.zeros((1, 4)), np.asarray([[0.5, 0.5, 0, 0]])), [log(4)])


# -------------------- kinds


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_labels_on_probabilities_cost_minus_the_sum_of_t_log_p(lib, rng, smoothing):
    p = rng.random((5, 3)) + 0.1
    labels = np.asarray([0, 2, 1, 1, 0])
    expected = -(smooth(one_hot(labels, 3), smoothing) * np.log(p)).sum(-1)
    loss = lib.call(xent.sparse_cross_entropy, p, labels, kind="probabilities", label_smoothing=smoothing)

    assert np.all(np.abs(loss - expected) <= 8 * np.finfo(np.float64).eps * (1 + np.abs(expected)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_labels_on_log_probabilities_cost_minus_the_sum_of_t_log_p(lib, rng, smoothing):
    log_p = np.log(rng.random((5, 3)) + 0.1)
    labels = np.asarray([0, 2, 1, 1, 0])
    expected = -(smooth(one_hot(labels, 3), smoothing) * log_p).sum(-1)
    loss = lib.call(xent.sparse_cross_entropy, log_p, labels, kind="log_probabilities", label_smoothing=smoothing)

    assert np.all(np.abs(loss - expected) <= 8 * np.finfo(np.float64).eps * (1 + np.abs(expected)))


@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
def test_soft_targets_cost_minus_the_sum_of_t_log_p(lib, rng, kind):
    p, targets = rng.random((5, 3)) + 0.1, rng.random((5, 3))
    expected = -(targets * np.log(p)).sum(-1)
    loss = lib.call(xent.cross_entropy, p if kind == "probabilities" else np.log(p), targets, kind=kind)

    assert np.all(np.abs(loss - expected) <= 8 * np.finfo(np.float64).eps * (1 + np.abs(expected)))


@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
def test_binary_losses_take_all_three_kinds(lib, rng, kind):
    logits, targets = normal(rng, 11, dtype=np.float64), rng.random(11)
    p = 1 / (1 + np.exp(-logits))
    predictions = {"logits": logits, "probabilities": p, "log_probabilities": np.log(p)}[kind]
    if kind == "logits":  # subtle: of a p near 1, rounded, log1p(-p) is no longer the logits' own
        yes, no = np.logaddexp(0, -logits), np.logaddexp(0, logits)
    else:
        yes, no = -np.log(p), -np.log1p(-p)
    expected = targets * yes + (1 - targets) * no
    loss = lib.call(xent.binary_cross_entropy, predictions, targets, kind=kind)
    units = 8 if kind == "logits" else 64  # XLA's own log1p of -p is 30 units off where p is near 1
    bound = units * np.finfo(np.float64).eps * (1 + np.abs(logits)) * (1 + np.abs(expected))

    assert np.all(np.abs(loss - expected) <= bound)


def test_a_positive_weight_multiplies_the_cost_of_a_yes(lib):
    x, yes = np.asarray([[0.0, 0.0]]), np.asarray([[1.0, 0.0]])
    loss = lib.call(xent.binary_cross_entropy, x, yes, pos_weight=3.0)

    assert near(loss, [[3 * log(2), log(2)]])


def test_a_positive_weight_may_be_one_for_each_output(lib):
    x, yes = np.zeros((2, 3)), np.ones((2, 3))
    loss = lib.call(xent.binary_cross_entropy, x, yes, pos_weight=np.asarray([1.0, 2.0, 4.0]))

    assert near(loss, [[log(2), 2 * log(2), 4 * log(2)]] * 2)


# -------------------- value_and_grad


def test_value_and_grad_returns_the_loss_and_its_gradient(lib, rng):
    logits, targets = normal(rng, 7, 5), np.abs(normal(rng, 7, 5))
    loss, gradient = lib.call(xent.value_and_grad(xent.cross_entropy), logits, targets)

    assert not loss_is_off(loss, logits, targets, flushes=lib.flushes)
    assert not gradient_is_off(gradient, logits, targets, flushes=lib.flushes)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_value_and_grad_keeps_the_class_axis_where_it_is(lib, rng, axis):
    logits = normal(rng, 3, 4, 5)
    last = np.moveaxis(logits, axis, -1)
    labels = rng.integers(0, last.shape[-1], last.shape[:-1])
    _, gradient = lib.call(xent.value_and_grad(xent.sparse_cross_entropy), logits, labels, axis=axis)
    flat = last.reshape(-1, last.shape[-1])
    got = np.moveaxis(gradient, axis, -1).reshape(flat.shape)

    assert not gradient_is_off(
        got, flat, one_hot(labels.reshape(-1), flat.shape[-1]), is_sparse=True, flushes=lib.flushes
    )


def test_value_and_grad_takes_a_partial_of_a_loss(lib):
    loss = functools.partial(xent.sparse_cross_entropy, reduction="sum")
    value, gradient = lib.call(xent.value_and_grad(loss), np.zeros((2, 2)), np.asarray([0, 1]))

    assert near(value, 2 * log(2))
    assert same(gradient, [[-0.5, 0.5], [0.5, -0.5]])


def test_value_and_grad_of_binary_targets_is_sigmoid_minus_target(lib):
    loss, gradient = lib.call(xent.value_and_grad(xent.binary_cross_entropy), np.zeros(2), np.asarray([1.0, 0.25]))

    assert near(loss, [log(2), log(2)])
    assert same(gradient, [-0.5, 0.25])


@pytest.mark.parametrize(
    "loss",
    [np.mean, "cross_entropy", xent.softmax, functools.partial(np.mean)],
    ids=["numpy's", "a name", "softmax", "a partial of numpy's"],
)
def test_value_and_grad_takes_no_other_loss(loss):
    with pytest.raises(TypeError, match="value_and_grad: `loss` must be"):
        xent.value_and_grad(loss)


# -------------------- row_statistics


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(5)
    logits = (rng.standard_normal((11, 7)) * 3).astype(np.float32)
    return logits, rng.integers(0, 7, 11)


def test_row_statistics_are_a_tuple_of_these_names(lib, rows):
    names = ("loss", "lse", "label_probability", "top_probability", "label_rank", "entropy", "sum_p_squared")
    found = lib.call(xent.row_statistics, *rows)

    assert isinstance(found, xent.RowStatistics)
    assert found._fields == names


def test_the_loss_of_row_statistics_is_the_loss(lib, rows):
    found = lib.call(xent.row_statistics, *rows)

    assert not loss_is_off(found.loss, rows[0], one_hot(rows[1], 7), flushes=lib.flushes)


def test_the_lse_of_row_statistics_is_the_log_sum_exp(lib, rows):
    found = lib.call(xent.row_statistics, *rows)

    assert not far(found.lse, reference.logsumexp(np_xp, rows[0]), lse_budget(rows[0], flushes=lib.flushes), 4)


def test_the_probabilities_of_row_statistics_are_the_labels_and_the_largest(lib, rows):
    p = reference.softmax(np_xp, rows[0])
    found = lib.call(xent.row_statistics, *rows)
    allowed = Budget(np.spacing(np.float32(1)) * p[np.arange(11), rows[1]], np.float64(1e-6))

    assert not far(found.label_probability, p[np.arange(11), rows[1]], allowed, 8)
    assert not far(found.top_probability, p.max(-1), allowed, 8)


def test_the_probabilities_of_probabilities_are_the_numbers_that_were_given(lib):
    p = np.array([[0.75, 0.25], [0.3125, 0.6875], [0.1, 0.9]], np.float32)
    found = lib.call(xent.row_statistics, p, np.array([0, 0, 1]), kind="probabilities")

    assert np.array_equal(found.label_probability, p[[0, 1, 2], [0, 0, 1]])
    assert np.array_equal(found.top_probability, p.max(-1))
    assert np.array_equal(found.sum_p_squared[:2], np.array([0.625, 0.5703125], np.float32))


def test_the_entropy_of_row_statistics_is_minus_the_sum_of_p_log_p(lib, rows):
    found = lib.call(xent.row_statistics, *rows)
    budget = Budget(np.spacing(np.float32(1)), np.float64(1e-6))

    assert not far(found.entropy, reference.entropy(np_xp, rows[0]), budget, 8)


def test_the_sum_of_squares_of_row_statistics_is_that_of_the_probabilities(lib, rows):
    found = lib.call(xent.row_statistics, *rows)
    budget = Budget(np.spacing(np.float32(1)), np.float64(1e-6))

    assert not far(found.sum_p_squared, reference.sum_p_squared(np_xp, rows[0]), budget, 8)


def test_the_label_rank_counts_the_logits_above_the_labels(lib, rows):
    assert same(lib.call(xent.row_statistics, *rows).label_rank, reference.label_rank(np_xp, *rows))


def test_a_constant_predictor_is_right_for_the_first_class_alone(lib):
    found = lib.call(xent.row_statistics, np.zeros((3, 3), np.float32), np.asarray([0, 1, 2]))

    assert same(found.label_rank, [0, 1, 2])


@pytest.mark.parametrize("row", [[math.nan, 0.0, 0.0], [-math.inf] * 3], ids=str)
def test_a_row_without_an_order_has_rank_minus_one(lib, row):
    found = lib.call(xent.row_statistics, np.asarray([row, [0.0, 1.0, 2.0]], np.float32), np.asarray([1, 1]))

    assert same(found.label_rank, [-1, 1])


def test_an_ignored_row_has_loss_zero_and_no_rank(lib):
    found = lib.call(xent.row_statistics, np.zeros((2, 3), np.float32), np.asarray([-1, 0]), ignore_index=-1)

    assert same(found.loss[0], 0.0)
    assert same(found.label_rank, [-1, 0])
    assert np.isnan(found.label_probability[0])


@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
def test_row_statistics_take_all_three_kinds(lib, rows, kind):
    p = reference.softmax(np_xp, rows[0])
    found = lib.call(xent.row_statistics, p if kind == "probabilities" else np.log(p), rows[1], kind=kind)

    assert np.all(np.abs(found.loss + np.log(p[np.arange(11), rows[1]])) <= 1e-14)
    assert np.all(np.abs(found.entropy + (p * np.log(p)).sum(-1)) <= 1e-14)
    assert same(found.label_rank, reference.label_rank(np_xp, *rows))


def test_probabilities_are_ranked_by_themselves_and_not_by_their_logarithms(lib):
    low = np.float32(1e-5)
    p = np.asarray([[low, np.nextafter(low, np.float32(1)), 0.5]], np.float32)
    found = lib.call(xent.row_statistics, p, np.asarray([0]), kind="probabilities")

    assert np.log(p[0, 0]) == np.log(p[0, 1])
    assert same(found.label_rank, [2])


@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
def test_a_nan_beside_the_label_spoils_the_statistics_of_its_row(lib, kind):
    p = np.asarray([[0.5, np.nan, 0.25], [0.5, 0.25, 0.25]])
    found = lib.call(xent.row_statistics, p if kind == "probabilities" else np.log(p), np.asarray([0, 0]), kind=kind)

    assert np.isnan(found.loss).tolist() == [True, False]
    assert same(found.label_rank, [-1, 0]) and np.isnan(found.entropy[0]) and not np.isnan(found.entropy[1])


@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
def test_a_row_without_probability_has_no_rank_and_an_infinite_loss(lib, kind):
    p = np.zeros((1, 3))
    with np.errstate(divide="ignore"):
        given = p if kind == "probabilities" else np.log(p)
    found = lib.call(xent.row_statistics, given, np.asarray([1]), kind=kind)

    assert same(found.loss, [np.inf]) and same(found.label_rank, [-1])
    assert same(found.entropy, [0.0]) and same(found.sum_p_squared, [0.0]) and same(found.top_probability, [0.0])


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4)])
@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
def test_no_rows_of_probabilities_have_no_statistics(lib, kind, shape):
    found = lib.call(xent.row_statistics, np.zeros(shape, np.float32), np.zeros(shape[:-1], np.int64), kind=kind)

    assert all(field.shape == shape[:-1] for field in found)


@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
def test_a_nan_beside_the_label_leaves_it_no_probability(lib, kind):
    p = np.asarray([[0.5, np.nan, 0.25], [0.5, 0.25, 0.25]])
    found = lib.call(xent.row_statistics, p if kind == "probabilities" else np.log(p), np.asarray([0, 0]), kind=kind)

    assert same(np.isnan(found.label_probability), [True, False])


def test_an_ignored_row_keeps_the_numbers_that_do_not_look_at_its_label(lib):
    logits, labels = np.asarray([[1.0, 2.0, 3.0], [4.0, 0.0, 1.0]], np.float32), np.asarray([-1, 0])
    found = lib.call(xent.row_statistics, logits, labels, ignore_index=-1)

    assert near(found.lse, np.log(np.exp(logits.astype(np.float64)).sum(-1)))


def test_statistics_of_probabilities_are_a_kernels_work_too():
    p, labels = np.full((2, 4), 0.25, np.float16), np.asarray([0, 1])

    with xent.using(trace=True) as decisions:
        xent.row_statistics(p, labels, kind="probabilities")
        xent.sparse_cross_entropy(p, labels, kind="probabilities")

    assert [one.kernel for one in decisions] == ["numpy", "generic"]


# -------------------- explain


def test_explain_names_every_kernel_and_the_winner(lib):
    logits, labels = np.zeros((2, 3), np.float32), np.asarray([0, 1])
    told, _ = lib.arguments((logits, labels), {})
    decision = xent.explain(xent.sparse_cross_entropy, *told)
    inner = decision
    while inner.inner is not None:
        inner = inner.inner

    names = [one.kernel for one in inner.verdicts]
    ahead, chosen = inner.verdicts[: names.index(decision.kernel)], inner.verdicts[names.index(decision.kernel)]

    assert [one.kernel for one in inner.verdicts if one.chosen] == [chosen.kernel]
    assert {"generic", "numpy"} <= set(names)
    assert all(one.reasons for one in ahead)


def test_explain_computes_nothing(lib):
    told, _ = lib.arguments((np.zeros((2, 3), np.float32), np.asarray([0, 7])), {})  # 7 is no label
    with lib.strictly():
        decision = xent.explain(xent.sparse_cross_entropy, *told, reduction="mean")

    assert decision.problem.function == "sparse_cross_entropy"


# -------------------- softmax and its companions


def test_log_softmax_keeps_the_digits_of_a_probability_near_one(lib):
    found = lib.call(xent.log_softmax, np.asarray([[0.0, -20.0]], np.float32))

    assert abs(found[0, 0] + math.log1p(math.exp(-20))) <= 4 * np.spacing(np.float32(2e-9))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_sums_to_one_along_its_axis(lib, rng, axis):
    logits = normal(rng, 5, 7)
    p = lib.call(xent.softmax, logits, axis=axis)

    assert np.all(np.abs(p.astype(np.float64).sum(axis) - 1) <= 1e-6)
    assert not far(
        p, np.moveaxis(reference.softmax(np_xp, np.moveaxis(logits, axis, -1)), -1, axis), Budget(2e-7, 1e-8), 8
    )


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_log_softmax_is_the_references_along_its_axis(lib, rng, axis):
    logits = normal(rng, 5, 7)
    expected = np.moveaxis(reference.log_softmax(np_xp, np.moveaxis(logits, axis, -1)), -1, axis)
    budget = Budget(np.spacing(np.float32(np.abs(logits).max() * 2)), 0.0)

    assert not far(lib.call(xent.log_softmax, logits, axis=axis), expected, budget, 4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_beside_one_infinite_logit_the_largest_number_is_nothing(lib, dtype):
    largest = np.finfo(dtype).max
    logits = np.asarray([[np.inf, largest, largest, 0], [largest, np.inf, np.inf, 0]], dtype)

    assert same(lib.call(xent.softmax, logits), [[1, 0, 0, 0], [np.nan] * 4])
    assert same(lib.call(xent.log_softmax, logits), [[0, -np.inf, -np.inf, -np.inf], [np.nan] * 4])
    assert same(lib.call(xent.logsumexp, logits), [np.inf, np.inf])
    loss, gradient = lib.call(xent.value_and_grad(xent.sparse_cross_entropy), logits, np.asarray([0, 1]))
    assert same(loss, [0, np.nan]) and same(gradient, [[0, 0, 0, 0], [np.nan] * 4])


@pytest.mark.parametrize("function", [xent.softmax, xent.log_softmax], ids=["softmax", "log_softmax"])
@pytest.mark.parametrize("row", [[math.nan, 0.0], [-math.inf] * 2, [math.inf] * 2], ids=str)
def test_a_row_without_a_softmax_is_nan_alone(lib, function, row):
    found = lib.call(function, np.asarray([row, [0.0, 0.0]], np.float32))

    assert np.all(np.isnan(found[0]))
    assert np.all(np.isfinite(found[1]))


def test_softmax_at_one_infinite_logit_is_its_one_hot(lib):
    assert same(lib.call(xent.softmax, np.asarray([[0.0, math.inf, -math.inf]], np.float32)), [[0, 1, 0]])


def test_logsumexp_may_keep_the_class_axis(lib):
    found = lib.call(xent.logsumexp, np.zeros((3, 4)), axis=0, keepdims=True)

    assert near(found, np.full((1, 4), log(3)))


def test_one_hot_is_tensorflows(lib):
    expected = [[1, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]]

    assert same(lib.call(xent.one_hot, np.asarray([0, -1, 2, 3]), 3), expected)


def test_one_hot_is_float32_unless_it_is_told_otherwise(lib):
    assert lib.call(xent.one_hot, np.asarray([0, 1]), 3).dtype == np.float32


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_one_hot_puts_its_own_values_along_its_axis(lib, axis):
    found = lib.call(xent.one_hot, np.asarray([[0, 1, 1]]), 2, on_value=5.0, off_value=-1.0, axis=axis)
    expected = np.where(one_hot([[0, 1, 1]], 2) == 1, 5.0, -1.0)

    assert same(found, np.moveaxis(expected, -1, axis))


def test_one_hot_takes_narrow_labels_for_many_classes(lib):
    found = lib.call(xent.one_hot, np.asarray([200, 3], np.uint8), 300)

    assert same(found.argmax(-1), [200, 3])


@pytest.mark.variants("dask", "dask-split")
def test_one_hot_takes_labels_of_unknown_number(lib):
    labels = np.asarray([0, 1, 2, 0, 1])
    known = lib.asarray(labels)

    assert same(lib.numpy(xent.one_hot(known[known >= 0], 3)), one_hot(labels, 3))


# -------------------- partial, merge, finish


def test_halves_of_the_classes_merge_into_the_loss(lib, rng):
    logits, labels = normal(rng, 5, 9), np.asarray([0, 3, 4, 5, 8])
    left = lib.apply(xent.partial, logits[:, :4], labels=labels, num_classes=9)
    right = lib.apply(xent.partial, logits[:, 4:], labels=labels, first_class=4, num_classes=9)
    with lib.strictly():
        loss = xent.finish(xent.merge(left, right))

    assert not far(
        lib.numpy(loss),
        reference.cross_entropy(np_xp, logits, one_hot(labels, 9)),
        loss_budget(logits, one_hot(labels, 9), flushes=lib.flushes),
        4,
    )


@pytest.mark.parametrize("first", [0, 1, 3])
def test_a_slice_beyond_the_number_of_classes_is_refused(lib, first):
    told = {"labels": np.asarray([0, 1]), "first_class": first}
    lib.apply(xent.partial, np.zeros((2, 3), np.float32), num_classes=first + 3, **told)

    with pytest.raises(ValueError, match=rf"`num_classes` must be at least {first + 3} .* got {first + 2}"):
        lib.apply(xent.partial, np.zeros((2, 3), np.float32), num_classes=first + 2, **told)


@pytest.mark.parametrize("kind", ["labels", "targets"])
def test_a_smoothed_slice_takes_the_number_of_classes(lib, kind):
    told = {"labels": np.asarray([0, 1]), "targets": np.zeros((2, 3), np.float32)}

    for first in ({}, {"first_class": 0}, {"first_class": 1}):  # nothing tells the first slice from a whole row
        with pytest.raises(ValueError, match="`num_classes` must be given"):
            lib.apply(xent.partial, np.zeros((2, 3)), label_smoothing=0.1, **first, **{kind: told[kind]})


def test_a_label_in_no_slice_finishes_as_nan(lib):
    found = lib.apply(xent.partial, np.zeros((2, 3), np.float32), labels=np.asarray([1, 7]), num_classes=9)

    assert same(np.isnan(lib.numpy(xent.finish(found))), [False, True])
