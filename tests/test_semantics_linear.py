"""docs/semantics.md, "Products": logits that are hidden @ classifier.T, and never whole."""

import functools
import itertools
import math
import re

import ml_dtypes
import numpy as np
import pytest
from expected import near, same, same_bits

import xent
from xent.backends.generic import products, tiles

ROWS, DEPTH, CLASSES = 5, 7, 19
BAD = -100


def operands(rng, rows=ROWS, depth=DEPTH, classes=CLASSES, dtype=np.float32):
    """Hidden states, a classifier, a bias and labels."""
    hidden, classifier, bias = (rng.standard_normal(shape) for shape in ((rows, depth), (classes, depth), (classes,)))
    return *(one.astype(dtype) for one in (hidden, classifier, bias)), rng.integers(0, classes, rows)


def logits_of(hidden, classifier, bias=None, softcap=None):
    """The logits in float64, and how far those of float32 may be from them: the rounding of a sum of D terms."""
    hidden, classifier = (np.asarray(one, np.float64) for one in (hidden, classifier))
    x = hidden @ classifier.T
    size = np.abs(hidden) @ np.abs(classifier).T
    if bias is not None:
        bias = np.asarray(bias, np.float64)
        x, size = x + bias, size + np.where(np.isinf(bias), 0, np.abs(bias))
    capped = x if softcap is None else np.where(np.isneginf(x), x, softcap * np.tanh(x / softcap))
    return capped, (hidden.shape[-1] + 4) * np.finfo(np.float32).eps * size.max(axis=-1)


def loss_of(logits, labels):
    """The losses in float64."""
    highest = logits.max(axis=-1)
    lse = highest + np.log(np.exp(logits - highest[..., None]).sum(axis=-1))
    return lse - np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]


def slope_of(logits, labels, softcap=None):
    """p − t of the logits before the softcap, in float64."""
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    slope = p - (np.arange(logits.shape[-1]) == labels[..., None])
    return slope if softcap is None else np.where(np.isinf(logits), 0, slope * (1 - (logits / softcap) ** 2))


def within(actual, expected, error) -> bool:
    """Within what the rounding of the logits may do to a loss, or to a sum of slopes."""
    return bool(np.all(np.abs(np.asarray(actual, np.float64) - expected) <= 4 * np.asarray(error)))


def on_product(function, hidden, classifier, *more, bias=None, softcap=None, **options):
    """The function of the product."""
    return function(xent.Linear(hidden, classifier, bias=bias, softcap=softcap), *more, **options)


sparse, dense, statistics, lse, part = (
    functools.partial(on_product, function)
    for function in (
        xent.sparse_cross_entropy,
        xent.cross_entropy,
        xent.row_statistics,
        xent.logsumexp,
        lambda logits, labels: xent.partial(logits, labels=labels),
    )
)
both = xent.value_and_grad(xent.linear_cross_entropy)
of_hidden = xent.value_and_grad(xent.linear_cross_entropy, of="hidden")


# -------------------- the loss


@pytest.mark.variants(but=("jax", "jax-jit"))  # the gradient comes with it there
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_the_loss_is_that_of_the_product(lib, rng, softcap):
    hidden, classifier, bias, labels = operands(rng)
    loss = lib.call(xent.linear_cross_entropy, hidden, classifier, labels, bias=bias, softcap=softcap)
    logits, error = logits_of(hidden, classifier, bias, softcap)

    assert loss.shape == labels.shape and loss.dtype == np.float32
    assert within(loss, loss_of(logits, labels), error)


@pytest.mark.variants("numpy", "numpy-generic", "torch")
@pytest.mark.parametrize("classes", [1, 2, 15, 16, 17, 1023, 1024, 1025, 4097])
def test_no_number_of_classes_has_more_classes_than_it_has(lib, rng, classes):
    hidden, classifier = np.abs(rng.standard_normal((3, DEPTH))), -np.abs(rng.standard_normal((classes, DEPTH)))
    hidden, classifier = hidden.astype(np.float32) + 2, classifier.astype(np.float32) - 2
    labels = rng.integers(0, classes, 3)
    logits, error = logits_of(hidden, classifier)

    assert logits.max() < -20  # a class of zeros would have all of the probability
    assert within(lib.call(xent.linear_cross_entropy, hidden, classifier, labels), loss_of(logits, labels), error)
    assert within(lib.call(lse, hidden, classifier), loss_of(logits, labels) + logits[range(3), labels], error)


def test_a_padded_class_in_the_fold_is_found_out(monkeypatch, rng):
    def whole(self, x, tile, part, span):
        return (x[part], *arguments(self, x, tile, part, span)[1:])

    arguments = tiles.ProductCall.arguments
    monkeypatch.setattr(tiles.ProductCall, "arguments", whole)
    with pytest.raises(AssertionError):
        test_no_number_of_classes_has_more_classes_than_it_has(NUMPY, rng, 15)


class Numpy:
    """The least of a library, for what is to fail."""

    @staticmethod
    def call(function, *arrays, **keywords):
        return function(*arrays, **keywords)


NUMPY = Numpy()


@pytest.mark.variants("numpy", "array-api-strict", "torch", "dask", "dask-split", "jax")
def test_every_function_of_logits_takes_a_product(lib, rng):
    hidden, classifier, bias, labels = operands(rng)
    logits, error = logits_of(hidden, classifier, bias)
    x, targets = logits.astype(np.float32), rng.random(logits.shape).astype(np.float32)
    expected = xent.row_statistics(x, labels)
    found = lib.call(statistics, hidden, classifier, labels, bias=bias)
    near_enough = functools.partial(np.allclose, rtol=1e-4, atol=float(4 * error.max()))

    assert all(near_enough(one, other) for one, other in zip(found, expected, strict=True))
    assert near_enough(lib.call(lse, hidden, classifier, bias=bias), expected.lse)
    assert near_enough(xent.finish(lib.call(part, hidden, classifier, labels, bias=bias)), expected.loss)
    soft = lib.call(dense, hidden, classifier, targets, bias=bias)
    assert near_enough(soft, xent.cross_entropy(x, targets))


@pytest.mark.variants("numpy", "array-api-strict", "torch", "dask-split", "jax")
def test_explain_of_a_product_is_of_its_tiles_and_computes_nothing(lib, rng):
    def decisions(hidden, classifier, labels):
        arrays = hidden, classifier, labels
        return (
            xent.explain(xent.sparse_cross_entropy, xent.Linear(hidden, classifier), labels),
            xent.explain(xent.linear_cross_entropy, *arrays),
            xent.explain(of_hidden, *arrays),
        )

    hidden, classifier, _, labels = operands(rng)
    found = lib.apply(decisions, hidden, classifier, labels + CLASSES)  # bad labels, at which a loss raises

    assert all(re.findall(r"(\w+)\s+chosen", str(decision)) == [decision.kernel] for decision in found)
    assert [decision.problem.is_product for decision in found] == [True] * 3
    assert [decision.problem.method for decision in found] == ["loss", "loss", "loss_and_gradient"]


@pytest.mark.variants("numpy", "array-api-strict", "torch", "dask-split", "jax")
def test_a_product_takes_every_option_of_the_losses(lib, rng):
    hidden, classifier, bias, labels = operands(rng, rows=11)
    labels[2], labels[5] = BAD, 3
    told = {
        "reduction": xent.Mean("weights"),
        "sample_weight": (np.arange(11) % 4).astype(np.float32),
        "class_weight": rng.random(CLASSES).astype(np.float32),
        "ignore_index": (BAD, 3),
        "label_smoothing": 0.1,
    }
    loss, gradient = lib.call(both, hidden, classifier, labels, bias=bias, **told)
    x = logits_of(hidden, classifier, bias)[0].astype(np.float32)
    expected, slope = xent.value_and_grad(xent.sparse_cross_entropy)(x, labels, **told)

    assert np.allclose(loss, expected, rtol=1e-5)
    assert np.allclose(gradient.hidden, slope @ classifier, atol=1e-6)
    assert np.allclose(gradient.classifier, slope.T @ hidden, atol=1e-6)
    assert np.allclose(gradient.bias, slope.sum(axis=0), atol=1e-6)


@pytest.mark.variants(but=("jax", "jax-jit"))
def test_a_batch_of_rows_has_a_batch_of_losses(lib, rng):
    hidden, classifier, _, labels = operands(rng, rows=6)
    loss, gradient = lib.call(of_hidden, hidden.reshape(2, 3, DEPTH), classifier, labels.reshape(2, 3))
    flat = lib.call(of_hidden, hidden, classifier, labels)

    assert loss.shape == (2, 3) and gradient.hidden.shape == (2, 3, DEPTH)
    assert np.allclose(loss.reshape(-1), flat[0], rtol=1e-5)
    assert np.allclose(gradient.hidden.reshape(6, DEPTH), flat[1].hidden, atol=1e-6)


# -------------------- dtypes


@pytest.mark.variants(but=("jax-jit", "array-api-strict"))
@pytest.mark.parametrize("narrow", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_narrow_operands_are_widened_and_no_logit_is_rounded_to_them(lib, rng, narrow):
    hidden, classifier, _, labels = operands(rng, dtype=narrow)
    hidden *= np.asarray(8, narrow)
    loss, gradient = lib.call(both, hidden, classifier, labels)
    logits, error = logits_of(hidden, classifier)

    assert np.abs(logits - logits.astype(narrow).astype(np.float64)).max() > 10 * error.max()
    assert loss.dtype == np.float32 and within(loss, loss_of(logits, labels), error)
    assert gradient.hidden.dtype == narrow and gradient.classifier.dtype == narrow


@pytest.mark.variants(but=("jax-jit",))
def test_operands_may_differ_in_dtype_and_each_has_its_gradient_in_its_own(lib, rng):
    hidden, classifier, bias, labels = operands(rng)
    loss, gradient = lib.call(both, hidden, classifier.astype(np.float64), labels, bias=bias)
    logits, _ = logits_of(hidden, classifier, bias)

    assert loss.dtype == np.float64 and np.allclose(loss, loss_of(logits, labels), rtol=1e-13)
    assert [one.dtype for one in gradient] == [np.float32, np.float64, np.float32]


# -------------------- gradients


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_the_gradient_is_that_of_the_sum_of_the_losses_in_every_operand(lib, rng, softcap):
    hidden, classifier, bias, labels = operands(rng)
    loss, gradient = lib.call(both, hidden, classifier, labels, bias=bias, softcap=softcap)
    logits, error = logits_of(hidden, classifier, bias, softcap)
    slope = slope_of(logits, labels, softcap)

    assert within(loss, loss_of(logits, labels), error)
    assert within(gradient.hidden, slope @ classifier, error.max() * np.abs(classifier).sum(axis=0))
    assert within(gradient.classifier, slope.T @ hidden, error.max() * np.abs(hidden).sum(axis=0))
    assert within(gradient.bias, slope.sum(axis=0), error.max() * ROWS)


@pytest.mark.variants(but=("jax", "jax-jit"))
def test_what_is_not_asked_for_is_none(lib, rng):
    hidden, classifier, _, labels = operands(rng)
    gradient = lib.call(of_hidden, hidden, classifier, labels)[1]

    assert gradient.hidden.shape == hidden.shape and gradient.classifier is None and gradient.bias is None


@pytest.mark.parametrize(("of", "products_a_tile"), [("hidden", 2), ("classifier", 2), (("hidden", "classifier"), 3)])
def test_what_is_not_asked_for_is_not_computed(monkeypatch, rng, of, products_a_tile):
    def counted(self, a, b, out=None):
        count.append(1)
        return multiply(self, a, b, out)

    multiply, count = products.TiledProduct.multiply, []
    monkeypatch.setattr(products.TiledProduct, "multiply", counted)
    hidden, classifier, _, labels = operands(rng, classes=700)
    xent.value_and_grad(xent.linear_cross_entropy, of=of)(hidden, classifier, labels)

    assert len(count) == products_a_tile


@pytest.mark.variants(but=("jax-jit",))
def test_a_confident_row_keeps_the_digits_of_its_gradient(lib):
    hidden, classifier = np.eye(3, DEPTH, dtype=np.float32) * 20, np.eye(4, DEPTH, dtype=np.float32)
    labels = np.arange(3)
    loss, gradient = lib.call(both, hidden, classifier, labels)
    logits = np.eye(3, 4) * 20

    assert np.allclose(loss, np.log1p(3 * math.exp(-20)), rtol=1e-6, atol=0)
    assert np.allclose(gradient.hidden, slope_of(logits, labels) @ classifier, rtol=1e-5, atol=0)


# -------------------- ignored rows


@pytest.mark.variants(but=("jax-jit",))
def test_a_row_that_is_ignored_gives_nothing_of_what_it_holds(lib, rng):
    hidden, classifier, _, labels = operands(rng)
    hidden[1], hidden[3], labels[1], labels[3] = np.nan, np.inf, BAD, BAD
    loss, gradient = lib.call(both, hidden, classifier, labels, ignore_index=BAD)
    counted = labels != BAD
    alone = both(hidden[counted], classifier, labels[counted])

    assert same(loss[~counted], [0, 0]) and same(gradient.hidden[~counted], np.zeros((2, DEPTH)))
    assert np.allclose(loss[counted], alone[0], rtol=1e-5)
    assert np.allclose(gradient.hidden[counted], alone[1].hidden, atol=1e-6)
    assert np.allclose(gradient.classifier, alone[1].classifier, atol=1e-6)


def test_an_ignored_row_that_is_multiplied_is_found_out(monkeypatch, rng):
    from xent.backends.generic import linear

    monkeypatch.setattr(linear, "counted", lambda call, rows: (call, None))
    with pytest.raises(AssertionError):
        test_a_row_that_is_ignored_gives_nothing_of_what_it_holds(NUMPY, rng)


@pytest.mark.variants("numpy", "array-api-strict", "torch", "dask")
def test_where_every_row_is_ignored_the_gradient_is_zero(lib, rng):
    hidden, classifier, _, labels = operands(rng)
    loss, gradient = lib.call(both, hidden * np.nan, classifier, labels, sample_weight=np.zeros(ROWS, np.float32))

    assert same(loss, np.zeros(ROWS))
    assert same(gradient.hidden, np.zeros_like(hidden)) and same(gradient.classifier, np.zeros_like(classifier))


# -------------------- bias and softcap


@pytest.mark.variants("numpy", "array-api-strict", "torch")
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_statistics_take_the_bias_in_several_tiles(lib, rng, softcap):
    hidden, classifier, bias, labels = operands(rng, classes=4 * products.CLASSES + 1, dtype=np.float64)
    bias[labels[0]] = -np.inf  # a label that is masked
    logits, _ = logits_of(hidden, classifier, bias, softcap)
    found = lib.call(statistics, hidden, classifier, labels, bias=bias, softcap=softcap)

    assert all(np.allclose(one, other) for one, other in zip(found, xent.row_statistics(logits, labels), strict=True))
    assert np.isinf(found.loss[0]) and np.isfinite(found.loss[1:]).all()


@pytest.mark.variants(but=("jax-jit",))
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_a_masked_label_has_no_gradient_in_its_class(lib, rng, softcap):
    hidden, classifier, bias, _ = operands(rng)
    bias[4], labels = -np.inf, np.full(ROWS, 4)
    loss, gradient = lib.call(both, hidden, classifier, labels, bias=bias, softcap=softcap)

    assert np.isposinf(loss).all() and np.isfinite(gradient.hidden).all()
    assert same(gradient.classifier[4], np.zeros(DEPTH)) and gradient.bias[4] == 0
    assert np.abs(gradient.classifier).max() > 0


@pytest.mark.variants(but=("jax-jit",))
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_a_masked_class_is_masked_beside_an_infinite_hidden_state(lib, softcap):
    hidden, classifier = np.asarray([[np.inf]], np.float32), np.asarray([[1], [-2], [3]], np.float32)
    bias, labels = np.asarray([0, 0, -np.inf], np.float32), np.asarray([2])
    loss, gradient = lib.call(both, hidden, classifier, labels, bias=bias, softcap=softcap)

    assert same(loss, np.asarray([np.inf]))
    assert gradient.bias[2] == 0
    if softcap is not None:
        assert same(lib.call(lse, hidden, classifier[1:], bias=bias[1:], softcap=softcap), np.asarray([-softcap]))


@pytest.mark.variants(but=("jax-jit",))
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_a_class_whose_bias_is_minus_infinity_is_masked(lib, rng, softcap):
    hidden, classifier, bias, labels = operands(rng)
    bias[4], labels[labels == 4] = -np.inf, 5
    classifier[4] = np.nan  # and its row of the classifier is not looked at
    loss, gradient = lib.call(both, hidden, classifier, labels, bias=bias, softcap=softcap)
    rest = np.arange(CLASSES) != 4
    logits, error = logits_of(hidden, classifier[rest], bias[rest], softcap)
    without = labels - (labels > 4)
    slope = slope_of(logits, without, softcap)

    assert within(loss, loss_of(logits, without), error)
    assert within(gradient.hidden, slope @ classifier[rest], error.max() * np.abs(classifier[rest]).sum(axis=0))
    assert same(gradient.classifier[4], np.zeros(DEPTH)) and gradient.bias[4] == 0


@pytest.mark.variants(but=("jax-jit",))
def test_the_bias_is_added_before_the_softcap(lib):
    hidden, classifier = np.ones((1, 1), np.float32), np.asarray([[3.0], [0.0]], np.float32)
    bias, labels = np.asarray([1.0, 0.0], np.float32), np.asarray([1])
    loss = lib.call(xent.linear_cross_entropy, hidden, classifier, labels, bias=bias, softcap=2.0)

    assert near(loss, [math.log1p(math.exp(2 * math.tanh(2)))], ulps=8)


@pytest.mark.variants("numpy", "array-api-strict", "torch", "dask", "jax")
def test_a_classifier_that_is_not_finite_has_the_logits_of_the_formula(lib):
    hidden = np.asarray([[1.0], [-1.0]], np.float32)
    infinite, nan = (np.asarray([[value], [0.0]], np.float32) for value in (np.inf, np.nan))
    labels = np.asarray([0, 1])

    assert same(lib.call(xent.linear_cross_entropy, hidden, infinite, labels), [0, 0])
    assert same(lib.call(xent.linear_cross_entropy, hidden, infinite, 1 - labels), [np.inf, np.inf])
    assert same(lib.call(xent.linear_cross_entropy, hidden, nan, labels), [np.nan, np.nan])


# -------------------- bits


EAGER = ("numpy", "numpy-generic", "array-api-strict", "torch", "dask")
"""What multiplies by NumPy's BLAS; XLA has an order of its own for each shape."""


def rows_with_other_bits(call, rng, depth, classes) -> int:
    """How many rows have other bits alone than in a batch."""
    hidden, classifier, bias, labels = operands(rng, rows=5, depth=depth, classes=classes)
    loss, gradient = call(of_hidden, hidden, classifier, labels, bias=bias)
    alone = [call(of_hidden, hidden[row : row + 1], classifier, labels[row : row + 1], bias=bias) for row in range(5)]
    bits = [same_bits(one[0][0], loss[row]) for row, one in enumerate(alone)]
    return 10 - sum(bits) - sum(same_bits(one[1].hidden[0], gradient.hidden[row]) for row, one in enumerate(alone))


@pytest.mark.variants("numpy", "numpy-generic", "array-api-strict", "torch")
@pytest.mark.parametrize("depth", [1, 500])
def test_a_row_of_a_product_has_the_same_bits_without_its_neighbours(lib, rng, depth):
    assert rows_with_other_bits(lib.call, rng, depth, 300) == 0


@pytest.mark.variants("dask")
def test_no_cut_of_the_rows_changes_a_bit_of_the_loss_of_a_product(lib, rng):
    hidden, classifier, bias, labels = operands(rng, rows=9, depth=500, classes=30)
    chunks = lib.da.from_array(hidden, chunks=((1, 6, 2), (250, 250)))
    loss = xent.linear_cross_entropy(chunks, lib.da.from_array(classifier, chunks=-1), labels, bias=bias)

    assert same_bits(lib.numpy(loss), xent.linear_cross_entropy(hidden, classifier, labels, bias=bias))


def test_an_unpadded_tile_is_found_out(monkeypatch, rng):
    monkeypatch.setattr(products.TiledProduct, "height", lambda self, rows: rows)

    assert rows_with_other_bits(NUMPY.call, rng, 500, 300) > 0


@pytest.mark.parametrize("rows", [511, 512, 513])
def test_a_row_has_the_same_bits_in_every_tile(rng, rows):
    hidden, classifier, _, labels = operands(rng, rows=rows, depth=40, classes=150)
    loss = xent.linear_cross_entropy(hidden, classifier, labels)
    cuts = [0, 1, 17, 300, rows]
    parts = [xent.linear_cross_entropy(hidden[a:b], classifier, labels[a:b]) for a, b in itertools.pairwise(cuts)]

    assert same_bits(loss, np.concatenate(parts))


def ranks_of_the_first(rng) -> np.ndarray:
    """The ranks of the classes that have the largest logits, by the tiles themselves."""
    hidden, classifier, _, _ = operands(rng, rows=40, depth=300, classes=2500)
    product = products.product_of(xent.linear.arrays.namespace(hidden), xent.Linear(hidden, classifier))
    tile = product.hidden_tile(slice(0, 40))
    logits = [product.logits(tile, product.classifier_tile(span), span)[:40] for span in product.spans()]
    labels = np.concatenate(logits, axis=1).argmax(axis=1)
    return xent.row_statistics(xent.Linear(hidden, classifier), labels).label_rank


def test_the_largest_logit_has_rank_zero_whichever_tile_it_is_in(rng):
    assert same(ranks_of_the_first(rng), np.zeros(40))


def test_a_labels_logit_with_other_bits_is_found_out(monkeypatch, rng):
    def by_einsum(self, hidden, labels):
        return np.einsum("nd,nd->n", self.hidden, self.classifier[labels])

    monkeypatch.setattr(products.TiledProduct, "at_labels", by_einsum)

    assert np.any(ranks_of_the_first(rng) > 0)


# -------------------- shapes and what is refused


@pytest.mark.variants("numpy", "array-api-strict", "torch", "dask", "jax")
def test_without_features_the_logits_are_the_bias_or_zero(lib, rng):
    hidden, classifier, bias, labels = operands(rng, depth=0)

    assert near(lib.call(xent.linear_cross_entropy, hidden, classifier, labels), np.full(ROWS, math.log(CLASSES)))
    loss, gradient = lib.call(both, hidden, classifier, labels, bias=bias)
    expected = loss_of(np.broadcast_to(bias.astype(np.float64), (ROWS, CLASSES)), labels)
    assert np.allclose(loss, expected, rtol=1e-6) and gradient.classifier.shape == (CLASSES, 0)


@pytest.mark.variants("numpy", "array-api-strict", "torch", "dask", "jax")
def test_without_rows_there_are_no_losses_and_the_gradient_is_zero(lib, rng):
    hidden, classifier, _, labels = operands(rng, rows=0)
    loss, gradient = lib.call(both, hidden, classifier, labels)

    assert loss.shape == (0,) and gradient.hidden.shape == (0, DEPTH)
    assert same(gradient.classifier, np.zeros_like(classifier))


@pytest.mark.variants("numpy", "array-api-strict", "torch", "dask", "jax")
def test_without_classes_there_is_no_product(lib, rng):
    hidden, classifier, _, labels = operands(rng)

    with pytest.raises(ValueError, match=r"Linear: `classifier` must have at least one class, got shape \(0, 7\)"):
        lib.apply(xent.linear_cross_entropy, hidden, classifier[:0], labels)


@pytest.mark.variants("numpy", "array-api-strict", "torch", "dask", "jax")
def test_a_classifier_with_its_classes_along_the_columns_is_refused_with_its_transpose(lib, rng):
    hidden, classifier, _, labels = operands(rng)

    with pytest.raises(ValueError, match=r"must have shape \(C, 7\).*got \(7, 19\)\. Pass classifier\.T\."):
        lib.apply(xent.linear_cross_entropy, hidden, np.ascontiguousarray(classifier.T), labels)


@pytest.mark.variants("numpy", "torch")
def test_the_strides_of_an_operand_do_not_matter(lib, rng):
    hidden, classifier, _, labels = operands(rng)
    turned = np.asfortranarray(classifier)

    assert same_bits(
        lib.call(xent.linear_cross_entropy, np.asfortranarray(hidden), turned, labels),
        lib.call(xent.linear_cross_entropy, hidden, classifier, labels),
    )


@pytest.mark.variants("numpy", "array-api-strict", "torch", "dask", "jax")
@pytest.mark.parametrize("function", [xent.softmax, xent.log_softmax])
def test_the_softmax_of_a_product_is_refused_with_the_logits_to_write(lib, rng, function):
    hidden, classifier, bias, _ = operands(rng)

    with pytest.raises(TypeError, match=r"whose logits are never whole\. Pass hidden @ classifier\.T \+ bias\."):
        lib.apply(functools.partial(on_product, function), hidden, classifier, bias=bias)


WHOLE = r"whose logits are never whole\. Pass hidden @ classifier\.T \+ bias\."
ARRAY_ONLY = {
    "asarray": np.asarray,
    "exp": np.exp,
    "argmax": lambda logits: np.argmax(logits, axis=-1),
    "bool": bool,
    "float": float,
    "int": int,
    "len": len,
    "list": list,
    "in": lambda logits: 1 in logits,
    "index": lambda logits: logits[..., 0],
    "plus": lambda logits: logits + 1,
    "plus an array": lambda logits: np.ones((1, CLASSES), np.float32) + logits,
    "of an array": lambda logits: np.ones((1, CLASSES), np.float32) < logits,
    "times": lambda logits: 2 * logits,
    "over": lambda logits: logits / 2,
    "minus": lambda logits: -logits,
    "product": lambda logits: logits @ np.ones((CLASSES, 2)),
    "less": lambda logits: logits < 0,
}


@pytest.mark.parametrize("use", ARRAY_ONLY.values(), ids=ARRAY_ONLY)
def test_a_product_is_no_array_and_says_what_to_write(rng, use):
    hidden, classifier, bias, _ = operands(rng)

    with pytest.raises(TypeError, match=WHOLE):
        use(xent.Linear(hidden, classifier, bias=bias))


@pytest.mark.variants("torch", "dask", "jax")  # that of array-api-strict has a message of its own
def test_arithmetic_of_an_array_and_a_product_says_what_to_write(lib, rng):
    hidden, classifier, bias, _ = operands(rng)

    with pytest.raises(TypeError, match=WHOLE):
        lib.apply(functools.partial(on_product, lambda logits: logits.hidden + logits), hidden, classifier, bias=bias)


@pytest.mark.variants(*EAGER, "dask-split", "jax")
def test_a_bad_label_of_a_product_raises(lib, rng):
    hidden, classifier, _, labels = operands(rng)
    labels[3] = CLASSES

    with pytest.raises(xent.LabelError, match=r"must lie in \[0, 19\), got 1 outside.*position 3, is 19"):
        lib.call(xent.linear_cross_entropy, hidden, classifier, labels)


def test_operands_that_do_not_fit_are_refused(rng):
    hidden, classifier, bias, labels = operands(rng)
    for arguments, keywords, error, message in (
        ((hidden.astype(int), classifier), {}, TypeError, "`hidden` must be real floating"),
        (
            (hidden, classifier.tolist()),
            {},
            TypeError,
            r"`classifier` must be an array, got list\. Pass numpy\.asarray",
        ),
        ((hidden[0, 0], classifier), {}, ValueError, "`hidden` must have an axis of features"),
        ((hidden, classifier), {"bias": bias[1:]}, ValueError, r"`bias` must have shape \(19,\)"),
        ((hidden, classifier), {"softcap": 0}, ValueError, "`softcap` must be a positive number, got 0"),
        ((hidden, classifier), {"softcap": np.asarray(2.0)}, ValueError, r"Pass float\(softcap\)"),
    ):
        with pytest.raises(error, match=message):
            xent.Linear(*arguments, **keywords)
    product = xent.Linear(hidden, classifier)
    for call, error, message in (
        (lambda: xent.sparse_cross_entropy(product, labels, axis=0), ValueError, "`axis` must be the last"),
        (
            lambda: xent.sparse_cross_entropy(product, labels, kind="probabilities"),
            ValueError,
            '`kind` must be "logits"',
        ),
        (lambda: xent.binary_cross_entropy(product, labels), TypeError, "whose classes exclude each other"),
        (lambda: both(hidden, classifier), TypeError, "labels"),
        (lambda: xent.explain(xent.linear_cross_entropy, hidden, labels), TypeError, "must be given by position"),
        (lambda: xent.value_and_grad(xent.linear_cross_entropy, of="logits"), ValueError, "`of` must be"),
        (lambda: of_bias(hidden, classifier, labels), ValueError, '"bias" without one'),
        (
            lambda: xent.value_and_grad(xent.sparse_cross_entropy, of="hidden")(bias, np.asarray(1)),
            TypeError,
            "unless the predictions are a xent.Linear",
        ),
        (
            lambda: xent.value_and_grad(xent.sparse_cross_entropy)(product, labels, out=hidden),
            TypeError,
            "`out` must be None for a xent.Linear",
        ),
    ):
        with pytest.raises(error, match=message):
            call()


of_bias = xent.value_and_grad(xent.linear_cross_entropy, of="bias")


# -------------------- the gradient of a slice


def of_slices(make, labels, cuts, classes, **options):
    """The merged partial of slices of the classes, and the gradient of each."""
    spans = list(itertools.pairwise(cuts))
    parts = [
        xent.partial(make(a, b), labels=labels, first_class=a, num_classes=classes, label_smoothing=0.1)
        for a, b in spans
    ]
    whole = xent.merge(*parts)
    told = {"labels": labels, "num_classes": classes, "label_smoothing": 0.1, **options}
    return xent.finish(whole), tuple(xent.gradient(make(a, b), whole, first_class=a, **told) for a, b in spans)


def sliced_logits(logits, labels, *, scale=None):
    return of_slices(lambda a, b: logits[:, a:b], labels, (0, 6, CLASSES), CLASSES, scale=scale)


def sliced_product(hidden, classifier, labels, *, bias=None, scale=None):
    def make(a, b):
        return xent.Linear(hidden, classifier[a:b, :], bias=bias[a:b])

    return of_slices(make, labels, (0, 6, CLASSES), CLASSES, scale=scale)


@pytest.mark.variants(but=("jax-jit",))
def test_a_row_of_scale_zero_gives_nothing_of_what_it_holds(lib, rng):
    hidden, classifier, bias, labels = operands(rng)
    scale = np.ones(ROWS, np.float32)
    scale[2], hidden[2] = 0, np.nan
    _, slices = lib.call(sliced_product, hidden, classifier, labels, bias=bias, scale=scale)
    rest = scale != 0
    _, expected = both(hidden[rest], classifier, labels[rest], bias=bias, label_smoothing=0.1)

    assert all(same(one.hidden[2], np.zeros(DEPTH)) for one in slices)
    assert np.allclose(np.concatenate([one.classifier for one in slices]), expected.classifier, rtol=1e-4, atol=1e-5)


@pytest.mark.variants(but=("jax-jit",))
def test_the_gradient_of_a_slice_is_that_of_its_classes(lib, rng):
    hidden, classifier, bias, labels = operands(rng)
    logits, scale = (hidden @ classifier.T + bias).astype(np.float32), rng.random(ROWS).astype(np.float32)
    scale[2] = 0
    loss, slices = lib.call(sliced_logits, logits, labels, scale=scale)
    told = {"label_smoothing": 0.1, "sample_weight": scale}
    expected, slope = xent.value_and_grad(xent.sparse_cross_entropy)(logits, labels, **told)

    assert np.allclose(loss * (scale != 0), expected / np.where(scale == 0, 1, scale), rtol=1e-5)
    assert np.allclose(np.concatenate(slices, axis=1), slope, atol=1e-6)
    assert same(slices[0][2], np.zeros(6))


@pytest.mark.variants(but=("jax-jit",))
def test_the_gradient_of_a_slice_of_a_product_is_that_of_its_operands(lib, rng):
    hidden, classifier, bias, labels = operands(rng)
    scale = rng.random(ROWS).astype(np.float32)
    _, slices = lib.call(sliced_product, hidden, classifier, labels, bias=bias, scale=scale)
    told = {"label_smoothing": 0.1, "sample_weight": scale, "bias": bias}
    _, expected = both(hidden, classifier, labels, **told)

    assert np.allclose(sum(one.hidden for one in slices), expected.hidden, atol=2e-6)
    assert np.allclose(np.concatenate([one.classifier for one in slices]), expected.classifier, atol=2e-6)
    assert np.allclose(np.concatenate([one.bias for one in slices]), expected.bias, atol=2e-6)


@pytest.mark.variants("numpy", "numpy-generic", "array-api-strict", "torch")
def test_the_gradient_from_the_whole_partial_has_the_bits_of_value_and_grad(lib, rng):
    hidden, classifier, _, labels = operands(rng)
    logits = (hidden @ classifier.T).astype(np.float32)

    def of_whole(logits, labels):
        return xent.gradient(logits, xent.partial(logits, labels=labels), labels=labels)

    def of_product(hidden, classifier, labels):
        return of_whole(xent.Linear(hidden, classifier), labels)

    assert same_bits(lib.call(of_whole, logits, labels), lib.call(logits_both, logits, labels)[1])
    found, expected = lib.call(of_product, hidden, classifier, labels), lib.call(both, hidden, classifier, labels)[1]
    assert same_bits(found.hidden, expected.hidden) and same_bits(found.classifier, expected.classifier)


logits_both = xent.value_and_grad(xent.sparse_cross_entropy)


def with_penalty(logits, labels, penalty=0.01):
    """The gradient of the loss and of a penalty on the square of its log-sum-exp, whose slope is 2 · lse · p."""
    whole = xent.partial(logits, labels=labels)
    mass = whole.target_sum + 2 * penalty * xent.logsumexp(logits)
    return xent.gradient(logits, whole._replace(target_sum=mass), labels=labels)


@pytest.mark.variants("numpy", "numpy-generic", "array-api-strict", "torch", "dask", "jax")
def test_the_mass_of_the_target_is_that_of_the_partial_whatever_it_is(lib, rng):
    hidden, classifier, _, labels = operands(rng)
    logits = (hidden @ classifier.T).astype(np.float32)
    found = lib.call(with_penalty, logits, labels)
    wide = logits.astype(np.float64)
    lse = np.log(np.exp(wide).sum(axis=-1, keepdims=True))

    assert np.allclose(found, slope_of(wide, labels) + 0.02 * lse * np.exp(wide - lse), atol=1e-6)
