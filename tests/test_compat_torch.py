"""xent.compat.torch without torch's own functions beside it: every library, laziness, and errors."""

import math
import tracemalloc

import numpy as np
import pytest
from libraries import Library

from xent.compat import torch as compat

LOGITS = np.asarray([[0.0, 1, -1], [2, 0, -np.inf], [0, np.inf, 1], [1, 1, 1]], np.float32)
LABELS = np.asarray([0, 1, -100, 2])
SOFT = np.asarray([[0.5, 0.5, 0], [1, 0, 0], [0, 0, 1], [0.2, 0.3, 0.5]], np.float32)
FINITE = np.where(np.isfinite(LOGITS), LOGITS, 0).astype(np.float32)
WEIGHT = np.asarray([2.0, 3.0, 5.0], np.float32)


def negative_log_softmax(values: list[float]) -> np.ndarray:
    """Minus the log-softmax of finite logits, in float64."""
    return np.log(np.sum(np.exp(values))) - np.asarray(values)


def test_labels_cost_the_same_on_every_library(lib: Library) -> None:
    result = lib.call(lambda x, y: compat.cross_entropy(x, y, reduction="none"), LOGITS, LABELS)
    expected = [negative_log_softmax([0, 1, -1])[0], negative_log_softmax([2, 0])[1], 0, math.log(3)]

    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_a_mean_is_over_the_weights_of_the_labels(lib: Library) -> None:
    result = lib.call(lambda x, y, w: compat.cross_entropy(x, y, w), LOGITS, LABELS, WEIGHT)
    expected = (2 * negative_log_softmax([0, 1, -1])[0] + 3 * negative_log_softmax([2, 0])[1] + 5 * math.log(3)) / 10

    assert result.shape == ()
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_probabilities_meet_infinities_as_in_torch(lib: Library) -> None:
    result = lib.call(lambda x, t: compat.cross_entropy(x, t, reduction="none"), LOGITS, SOFT)
    expected = [negative_log_softmax([0, 1, -1])[:2].mean(), np.nan, np.nan, math.log(3)]

    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_nll_loss_looks_at_the_label_alone(lib: Library) -> None:
    logits = np.asarray([[-1.0, np.nan], [-2.0, -3.0]], np.float32)
    result = lib.call(lambda x, y: compat.nll_loss(x, y, reduction="sum"), logits, np.asarray([0, 1]))

    assert float(result) == 4.0


def test_a_certain_mistake_costs_100(lib: Library) -> None:
    p, t = np.asarray([0.0, 1.0, 0.5], np.float32), np.asarray([1.0, 1.0, 0.0], np.float32)
    result = lib.call(lambda p, t: compat.binary_cross_entropy(p, t, reduction="none"), p, t)

    np.testing.assert_allclose(result, [100, 0, math.log(2)], rtol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (4, 1), ()], ids=str)
def test_a_positive_weight_may_have_any_shape(lib: Library, shape: tuple[int, ...]) -> None:
    logits = np.where(np.isfinite(LOGITS), LOGITS, 0)
    c = np.arange(1, 1 + math.prod(shape), dtype=np.float32).reshape(shape)
    result = lib.call(
        lambda x, t, c: compat.binary_cross_entropy_with_logits(x, t, pos_weight=c, reduction="none"), logits, SOFT, c
    )
    wide = logits.astype(np.float64)
    expected = SOFT * c * np.log1p(np.exp(-wide)) + (1 - SOFT) * np.log1p(np.exp(wide))

    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.variants("dask")
def test_probabilities_out_of_range_are_nan_where_they_are_lazy(lib: Library) -> None:
    result = lib.call(lambda p: compat.binary_cross_entropy(p, p, reduction="none"), np.asarray([0.5, 1.5]))

    assert result[0] == pytest.approx(math.log(2))
    assert np.isnan(result[1])


@pytest.mark.variants("dask")
def test_rows_may_be_unknown_where_they_are_lazy(lib: Library) -> None:
    def kept(x, y, w):
        mask = y >= 0
        return compat.cross_entropy(x[mask], y[mask], w)

    result = lib.call(kept, LOGITS, LABELS, WEIGHT)

    assert result == lib.call(lambda x, y, w: compat.cross_entropy(x, y, w), LOGITS, LABELS, WEIGHT)


@pytest.mark.variants("dask")
@pytest.mark.parametrize("name", ["nll_loss", "cross_entropy"])
def test_unknown_rows_may_be_weighed_and_smoothed(lib: Library, name: str) -> None:
    options = {"label_smoothing": 0.25} if name == "cross_entropy" else {}
    logits = np.where(np.isfinite(LOGITS), LOGITS, 0)

    def kept(x, y, w):
        return getattr(compat, name)(x[y >= 0], y[y >= 0], w, **options)

    assert lib.call(kept, logits, LABELS, WEIGHT) == pytest.approx(
        float(getattr(compat, name)(logits, LABELS, WEIGHT, **options)), rel=1e-6
    )


def test_nll_loss_costs_no_pass_over_the_classes() -> None:
    logits, labels, weight = np.zeros((64, 32000), np.float32), np.arange(64), np.ones(32000, np.float32)
    compat.nll_loss(logits, labels, weight)
    tracemalloc.start()
    compat.nll_loss(logits, labels, weight)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < logits.nbytes / 32


def test_a_data_array_of_xarray_is_its_array() -> None:
    xarray = pytest.importorskip("xarray")
    x, y, t = xarray.DataArray(FINITE), xarray.DataArray(LABELS), xarray.DataArray(SOFT)

    assert compat.cross_entropy(x, y, xarray.DataArray(WEIGHT)) == compat.cross_entropy(FINITE, LABELS, WEIGHT)
    assert compat.nll_loss(x, y) == compat.nll_loss(FINITE, LABELS)
    assert compat.binary_cross_entropy(t, t) == compat.binary_cross_entropy(SOFT, SOFT)
    assert compat.binary_cross_entropy_with_logits(x, t) == compat.binary_cross_entropy_with_logits(FINITE, SOFT)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch makes an instance of its own Function
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(compat.__all__) - set(compat.MODULES)))
def test_torch_compiles_it_as_one_graph(name: str) -> None:
    torch = pytest.importorskip("torch")
    call, targets = getattr(compat, name), SOFT if "binary" in name else LABELS
    arrays = [torch.from_numpy(array.copy()) for array in (SOFT, targets, *([] if "binary" in name else [WEIGHT]))]
    result = torch.compile(call, backend="eager", fullgraph=True)(*arrays)

    np.testing.assert_allclose(float(result), float(call(*arrays)), rtol=1e-6)


@pytest.mark.variants("numpy", "array-api-strict", "torch", "jax", "dask")
@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_every_library_has_torch_s_types_of_error(lib: Library, name: str) -> None:
    refused = [
        (ValueError, (SOFT, LABELS[:3])),
        (RuntimeError, (SOFT, LABELS[:, None])),
        (RuntimeError, (SOFT, SOFT[:, 0])),
        (RuntimeError, (SOFT, LABELS, WEIGHT[:2])),
        (NotImplementedError, (SOFT.astype(np.int32), LABELS)),
        (IndexError, (SOFT[:, :0], LABELS)),
    ]

    for error, arrays in refused:
        with pytest.raises(error, match=rf"{name}: `\w+` must .*, got .*\. (Pass|Cast) "):
            lib.apply(getattr(compat, name), *arrays)


@pytest.mark.variants("numpy", "array-api-strict", "torch", "jax", "dask")
@pytest.mark.parametrize("keyword", ["weight", "pos_weight"])
@pytest.mark.parametrize("shape", [(2,), (1, 4, 3)], ids=str)
def test_a_weight_that_does_not_fit_is_a_runtime_error(lib: Library, keyword: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeError, match=r"a weight must broadcast to the shape of `input`, \(4, 3\), got \("):
        lib.apply(
            lambda x, t, w: compat.binary_cross_entropy_with_logits(x, t, **{keyword: w}),
            FINITE,
            SOFT,
            np.ones(shape, np.float32),
        )


ERRORS = {
    "a label out of range, of an image": (
        IndexError,
        r"nll_loss: .* got 2 outside; the first, at position \(0, 1\), is 3\. Mend them",
        lambda: compat.nll_loss(np.zeros((1, 3, 3)), np.asarray([[0, 3, -1]])),
    ),
    "a masked array": (
        TypeError,
        r"got numpy\.MaskedArray\. Pass its \.data, and the mask",
        lambda: compat.nll_loss(np.ma.masked_array(SOFT), LABELS),
    ),
    "objects": (
        TypeError,
        r"must have a numeric dtype, got object\[4, 3\] on numpy",
        lambda: compat.nll_loss(SOFT.astype(object), LABELS),
    ),
    "arrays of two libraries": (
        TypeError,
        r"`target` must be of the library of `input` \(numpy\), got int64\[4\] on dask\. Nothing is moved",
        lambda: compat.nll_loss(SOFT, pytest.importorskip("dask.array").from_array(LABELS)),
    ),
    "an unknown reduction": (ValueError, "not a valid value", lambda: compat.nll_loss(LOGITS, LABELS, reduction="x")),
    **{
        f"no class axis, {error.__name__} in {name}": (
            error,
            rf"{name}: `input` must have at least one class, got shape \(\)\. Pass shape \(C,\)",
            lambda name=name: getattr(compat, name)(LOGITS[0, 0], LABELS),
        )
        for name, error in (("cross_entropy", IndexError), ("nll_loss", ValueError))
    },
    "smoothing above 1": (RuntimeError, "at most 1", lambda: compat.cross_entropy(LOGITS, LABELS, label_smoothing=2.0)),
    "integers for probabilities": (
        RuntimeError,
        "must be floating",
        lambda: compat.cross_entropy(SOFT, SOFT.astype(int)),
    ),
    "too few class weights": (
        RuntimeError,
        "one for each class",
        lambda: compat.cross_entropy(SOFT, LABELS, WEIGHT[:2]),
    ),
    "too few labels": (ValueError, "one label a row", lambda: compat.nll_loss(SOFT, LABELS[:1])),
    **{
        f"labels of other pixels in {name}": (
            RuntimeError,
            rf"{name}: `target` must have shape \(2, 5\), got \(2, 4\)\. Pass one label a row",
            lambda name=name: getattr(compat, name)(np.zeros((2, 3, 5)), np.zeros((2, 4), int)),
        )
        for name in ("cross_entropy", "nll_loss")
    },
    "targets of another shape": (ValueError, "shape of `input`", lambda: compat.binary_cross_entropy(SOFT, SOFT[0])),
    "a number out of range": (RuntimeError, "between 0 and 1", lambda: compat.binary_cross_entropy(SOFT + 1, SOFT)),
    **{
        f"integers for logits in {name}": (
            NotImplementedError,
            rf"{name}: `input` must be real floating, got bool\[4, 3\] on numpy\. Cast it to float32",
            lambda name=name, target=target: getattr(compat, name)(LOGITS > 0, target),
        )
        for name, target in {
            "binary_cross_entropy": SOFT,
            "binary_cross_entropy_with_logits": SOFT,
            "cross_entropy": LABELS,
            "nll_loss": LABELS,
        }.items()
    },
    "labels in a list": (
        TypeError,
        "cross_entropy: `target` must be an array, got list",
        lambda: compat.cross_entropy(SOFT, LABELS.tolist()),
    ),
    "weights in a list": (TypeError, "`weight` must be an array", lambda: compat.nll_loss(SOFT, LABELS, [1.0] * 3)),
    "weights of integers": (
        RuntimeError,
        "nll_loss: `weight` must be real floating",
        lambda: compat.nll_loss(SOFT, LABELS, WEIGHT.astype(int)),
    ),
    "no ignored label": (
        TypeError,
        "`ignore_index` must be an int, got None",
        lambda: compat.nll_loss(SOFT, LABELS, ignore_index=None),
    ),
    **{
        f"labels of floats in {name}": (
            RuntimeError,
            rf"{name}: `target` must be integers, got float32\[4\] on numpy\. Cast them",
            lambda name=name: getattr(compat, name)(SOFT, SOFT[:, 0]),
        )
        for name in ("cross_entropy", "nll_loss")
    },
    "no classes": (IndexError, "at least one class", lambda: compat.nll_loss(SOFT[:, :0], LABELS)),
    "no classes of probabilities": (
        IndexError,
        r"cross_entropy: .* at least one class, got shape \(4, 0\)",
        lambda: compat.cross_entropy(SOFT[:, :0], SOFT[:, :0], label_smoothing=0.5),
    ),
    "a label out of range": (
        IndexError,
        "nll_loss: .* the first, at position 1, is 3",
        lambda: compat.nll_loss(SOFT, LABELS + np.asarray([0, 2, 0, 0])),
    ),
    "a weight that is larger": (
        RuntimeError,
        "must broadcast",
        lambda: compat.binary_cross_entropy(SOFT, SOFT, SOFT[None]),
    ),
}


@pytest.mark.parametrize(("error", "words", "call"), ERRORS.values(), ids=ERRORS)
def test_bad_input_has_its_message(error: type[Exception], words: str, call) -> None:
    with pytest.raises(error, match=words):
        call()
