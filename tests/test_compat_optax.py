"""xent.compat.optax without optax beside it: every library, laziness, and errors."""

import math

import numpy as np
import pytest
from libraries import Library

from xent.compat import optax as compat

LOGITS = np.asarray([[0.0, 1, -1], [2, 0, -np.inf], [0, np.inf, 1], [1, 1, 1]], np.float32)
SOFT = np.asarray([[0.5, 0.5, 0], [1, 0, 0], [0, 0, 1], [0.2, 0.3, 0.5]], np.float32)
FINITE = np.where(np.isfinite(LOGITS), LOGITS, 0.5).astype(np.float32)
HELD = np.asarray([[True, True, False], [False, False, False], [True, True, True], [True, False, True]])


def costs(rows: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """−log of the softmax over what is not masked, in float64."""
    shown = np.exp(rows.astype(np.float64)) * (1 if mask is None else mask)
    return np.log(shown.sum(axis=-1, keepdims=True)) - rows


def test_targets_meet_infinities_as_in_optax(lib: Library) -> None:
    result = lib.call(compat.softmax_cross_entropy, LOGITS, SOFT)
    expected = [costs(LOGITS[:1])[0, :2].mean(), np.nan, np.nan, math.log(3)]

    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_the_safe_loss_takes_nothing_times_infinity_for_nothing(lib: Library) -> None:
    result = lib.call(compat.safe_softmax_cross_entropy, LOGITS[:2], SOFT[:2])

    np.testing.assert_allclose(result, [costs(LOGITS[:1])[0, :2].mean(), math.log1p(math.exp(-2))], rtol=1e-6)


def test_negative_labels_count_from_the_end_and_others_are_nan(lib: Library) -> None:
    result = lib.call(compat.softmax_cross_entropy_with_integer_labels, FINITE, np.asarray([-1, 3, 0, -4]))
    every = costs(FINITE)

    np.testing.assert_allclose(result, [every[0, 2], np.nan, every[2, 0], np.nan], rtol=1e-6)


def test_what_is_left_out_takes_no_part(lib: Library) -> None:
    result = lib.call(lambda x, t, m: compat.softmax_cross_entropy(x, t, where=m), FINITE, SOFT, HELD)
    terms = SOFT * np.where(HELD, costs(FINITE, HELD + (HELD.sum(axis=1) == 0)[:, None]), 0)

    np.testing.assert_allclose(result, terms.sum(axis=1), rtol=1e-6)


def test_a_label_that_is_left_out_still_counts(lib: Library) -> None:
    labels = np.asarray([2, 0, 1, 0])
    result = lib.call(
        lambda x, y, m: compat.softmax_cross_entropy_with_integer_labels(x, y, where=m), FINITE, labels, HELD
    )
    every = costs(FINITE, HELD + (HELD.sum(axis=1) == 0)[:, None])

    np.testing.assert_allclose(result, [every[0, 2], 0, every[2, 1], every[3, 0]], rtol=1e-5)


@pytest.mark.parametrize("axis", [(0, 1), (1, 0), None], ids=str)
def test_several_axes_are_one(lib: Library, axis) -> None:
    result = lib.call(lambda x, t: compat.softmax_cross_entropy(x, t, axis=axis), FINITE, SOFT)
    whole = costs(FINITE.reshape(1, -1))[0]

    np.testing.assert_allclose(result, (whole * SOFT.ravel()).sum(), rtol=1e-6)


def test_poly_adds_what_is_missed(lib: Library) -> None:
    result = lib.call(lambda x, t: compat.poly_loss_cross_entropy(x, t, epsilon=3.0), FINITE, SOFT)
    every = costs(FINITE)
    expected = (SOFT * (every + 3 * (1 - np.exp(-every)))).sum(axis=1)

    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_focal_weighs_by_what_is_wrong(lib: Library) -> None:
    result = lib.call(lambda x, t: compat.sigmoid_focal_loss(x, t, alpha=0.25), FINITE, SOFT)
    yes, no = np.log1p(np.exp(-FINITE.astype(np.float64))), np.log1p(np.exp(FINITE.astype(np.float64)))
    wrong = (1 - SOFT) * np.exp(-yes) + SOFT * np.exp(-no)
    expected = (0.25 * SOFT + 0.75 * (1 - SOFT)) * wrong**2 * (SOFT * yes + (1 - SOFT) * no)

    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_yes_or_no_at_infinities_is_nan_where_it_is_right(lib: Library) -> None:
    logits, answers = np.asarray([np.inf, np.inf, -np.inf, -np.inf]), np.asarray([0, 1, 0, 1])
    result = lib.call(compat.sigmoid_binary_cross_entropy, logits, answers)

    np.testing.assert_array_equal(result, [np.inf, np.nan, np.nan, np.inf])


CALLS = {
    "targets": (compat.softmax_cross_entropy, (FINITE, SOFT)),
    "targets of some classes": (lambda x, t, m: compat.softmax_cross_entropy(x, t, where=m), (FINITE, SOFT, HELD)),
    "targets of some rows": (lambda x, t, m: compat.softmax_cross_entropy(x, t, where=m), (FINITE, SOFT, HELD[:, 0])),
    "one target": (lambda x, t: compat.softmax_cross_entropy(x, t[0]), (FINITE, SOFT)),
    "labels": (compat.softmax_cross_entropy_with_integer_labels, (FINITE, np.asarray([0, -1, 7, 1]))),
    "labels of some classes": (
        lambda x, y, m: compat.softmax_cross_entropy_with_integer_labels(x, y, where=m),
        (FINITE, np.asarray([0, -1, 7, 1]), HELD),
    ),
    "labels of some rows": (
        lambda x, y, m: compat.softmax_cross_entropy_with_integer_labels(x, y, where=m),
        (FINITE, np.asarray([0, -1, 7, 1]), HELD[:, 0]),
    ),
    "safe": (compat.safe_softmax_cross_entropy, (FINITE, SOFT)),
    "poly": (compat.poly_loss_cross_entropy, (FINITE, SOFT)),
    "yes or no": (compat.sigmoid_binary_cross_entropy, (FINITE, SOFT)),
    "focal": (compat.sigmoid_focal_loss, (FINITE, SOFT)),
}


@pytest.mark.variants("dask")
@pytest.mark.parametrize("words", CALLS)
def test_a_number_of_rows_may_be_unknown(lib: Library, words: str) -> None:
    call, arrays = CALLS[words]
    single = words == "one target"
    rows = np.asarray([True, False, True, True])

    def kept(x, t, *others):
        *masks, keep = others
        return call(x[keep], t if single else t[keep], *(mask[keep] for mask in masks))

    result = lib.call(kept, *arrays, rows)
    arguments = [arrays[0][rows], arrays[1] if single else arrays[1][rows], *(mask[rows] for mask in arrays[2:])]

    np.testing.assert_allclose(result, call(*arguments), rtol=1e-6)


@pytest.mark.variants("torch")
def test_numpy_s_array_may_be_a_view_that_torch_cannot_take(lib: Library) -> None:
    result = lib.call(lambda x: compat.softmax_cross_entropy(x, SOFT[::-1]), FINITE)

    np.testing.assert_allclose(result, compat.softmax_cross_entropy(FINITE, SOFT[::-1]), rtol=1e-6)


@pytest.mark.variants("numpy", "torch", "jax", "dask")
@pytest.mark.parametrize("words", CALLS)
def test_numpy_s_arrays_may_stand_beside_the_logits(lib: Library, words: str) -> None:
    call, (logits, *others) = CALLS[words]
    result = lib.call(lambda x: call(x, *others), logits)

    np.testing.assert_allclose(result, call(logits, *others), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("words", CALLS)
def test_healthy_rows_meet_no_nan_on_the_way(words: str) -> None:
    jax = pytest.importorskip("jax")
    call, (logits, *others) = CALLS[words]
    others = [jax.numpy.asarray(np.minimum(array, 2) if array.dtype.kind == "i" else array) for array in others]
    with jax.debug_nans(True):
        slope = jax.grad(lambda logits: call(logits, *others).sum())(jax.numpy.asarray(logits))

    assert np.isfinite(slope).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch makes an instance of its own Function
@pytest.mark.slow
@pytest.mark.parametrize("words", CALLS)
def test_torch_compiles_it_as_one_graph(words: str) -> None:
    torch = pytest.importorskip("torch")
    call, arrays = CALLS[words]
    tensors = [torch.from_numpy(array.copy()) for array in arrays]
    result = torch.compile(call, backend="eager", fullgraph=True)(*tensors)

    np.testing.assert_allclose(result.numpy(), call(*tensors).numpy(), rtol=1e-6)


@pytest.mark.parametrize("words", CALLS)
def test_a_data_array_of_xarray_is_its_array(words: str) -> None:
    xarray = pytest.importorskip("xarray")
    call, arrays = CALLS[words]
    if words == "one target":
        arrays = (arrays[0], arrays[1][:1])

    np.testing.assert_array_equal(call(*map(xarray.DataArray, arrays)), call(*arrays))


def test_a_number_stands_for_all_targets(lib: Library) -> None:
    result = lib.call(lambda x: compat.sigmoid_binary_cross_entropy(x, 1.0), FINITE)

    np.testing.assert_allclose(result, np.log1p(np.exp(-FINITE.astype(np.float64))), rtol=1e-6)


@pytest.mark.parametrize("axis", [2, -3, (0, 2), (1, -3)], ids=str)
def test_an_axis_that_is_not_there_is_no_other_axis(lib: Library, axis) -> None:
    with pytest.raises(ValueError, match=r"softmax_cross_entropy: `axis` must lie in \[-2, 2\)"):
        lib.apply(lambda x, t: compat.softmax_cross_entropy(x, t, axis=axis), FINITE, SOFT)


def test_the_axes_of_more_targets_count_from_the_end() -> None:
    more = np.stack([SOFT, SOFT[::-1]])
    with pytest.raises(ValueError, match="must count from the end"):
        compat.softmax_cross_entropy(FINITE, more, axis=1)

    np.testing.assert_allclose(
        compat.softmax_cross_entropy(FINITE, more, axis=-1)[1], compat.softmax_cross_entropy(FINITE, SOFT[::-1])
    )


@pytest.mark.variants("torch", "jax")
@pytest.mark.parametrize("words", ["targets", "labels", "yes or no"])
def test_numpy_s_logits_may_stand_beside_labels(lib: Library, words: str) -> None:
    call, (logits, labels) = CALLS[words]
    result = call(logits, lib.asarray(labels))

    assert isinstance(result, lib.array_type)
    np.testing.assert_allclose(lib.to_numpy(result), call(logits, labels), rtol=1e-6)


@pytest.mark.variants("numpy", "array-api-strict", "torch", "jax", "dask")
@pytest.mark.parametrize("name", [name for name in compat.__all__ if "integer" not in name])
def test_shapes_that_do_not_fit_are_jax_s_type_of_error(lib: Library, name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name}: shapes must broadcast, got \(4, 3\) and \(3, 3\)\. Reshape one"):
        lib.apply(getattr(compat, name), FINITE, SOFT[:3])


@pytest.mark.variants("numpy", "torch", "jax")
def test_a_mask_that_does_not_fit_is_a_value_error(lib: Library) -> None:
    def call(x, t, m):
        return compat.softmax_cross_entropy(x, t, where=m)

    with pytest.raises(ValueError, match=r"shapes must broadcast, got \(4, 3\) and \(4, 3\) and \(3, 1\)"):
        lib.apply(call, FINITE, SOFT, HELD[:3, 0])
    with pytest.raises(ValueError, match=r"`where` must have the axes of the logits or of the examples, got \(4, 3\)"):
        lib.apply(call, FINITE[0], SOFT[0], HELD)
    with pytest.raises(ValueError, match=r"`where` must have the axes of the logits or of the examples, got \(3,\)"):
        lib.apply(call, FINITE[None], SOFT[None], HELD[0])


ERRORS = {
    **{
        f"no classes, {words}": (
            ValueError,
            r"`logits` must have at least one class, got \(4, 0\)",
            lambda name=name, labels=labels: getattr(compat, name)(FINITE[:, :0], labels),
        )
        for words, name, labels in (
            ("targets", "softmax_cross_entropy", SOFT[:, :0]),
            ("labels", "softmax_cross_entropy_with_integer_labels", np.zeros(4, int)),
            ("one label", "softmax_cross_entropy_with_integer_labels", np.zeros(1, int)),
        )
    },
    "an axis twice": (
        ValueError,
        "softmax_cross_entropy: .* each axis once",
        lambda: compat.softmax_cross_entropy(FINITE, SOFT, axis=(1, -1)),
    ),
    "a mask of integers": (
        ValueError,
        "softmax_cross_entropy: `where` must be of bools",
        lambda: compat.softmax_cross_entropy(FINITE, SOFT, where=np.ones(4, int)),
    ),
    "targets in a list": (
        TypeError,
        "softmax_cross_entropy: `labels` must be an array, got list",
        lambda: compat.softmax_cross_entropy(FINITE, SOFT.tolist()),
    ),
    "labels of floats": (TypeError, "must be integers", lambda: integer(FINITE, SOFT[:, 0])),
    "labels of bools": (TypeError, "must be integers", lambda: integer(FINITE, SOFT[:, 0] > 0)),
    "all axes for labels": (ValueError, "an int or a tuple", lambda: integer(FINITE, np.zeros((), int), axis=None)),
    "labels with a class axis": (ValueError, "one label an example", lambda: integer(FINITE, np.zeros((4, 1), int))),
    "labels of other examples": (
        ValueError,
        r"`labels` must have shape \(4,\), got \(3,\)\. Pass one label an example",
        lambda: integer(FINITE, np.zeros(3, int)),
    ),
    "poly targets of integers": (TypeError, "must be floating", lambda: poly(FINITE, SOFT > 0)),
    "logits of one class": (ValueError, "as many classes", lambda: compat.softmax_cross_entropy(FINITE[:, :1], SOFT)),
    "logits of integers": (TypeError, "real floating", lambda: compat.softmax_cross_entropy(SOFT > 0, SOFT)),
    "logits of int16": (TypeError, "real floating", lambda: compat.sigmoid_focal_loss(SOFT.astype("i2"), SOFT)),
}
integer, poly = compat.softmax_cross_entropy_with_integer_labels, compat.poly_loss_cross_entropy


@pytest.mark.parametrize(("error", "words", "call"), ERRORS.values(), ids=ERRORS)
def test_bad_input_has_its_message(error: type[Exception], words: str, call) -> None:
    with pytest.raises(error, match=words):
        call()


def test_a_bad_label_beside_a_logit_of_minus_infinity_warns_of_nothing() -> None:
    with np.errstate(all="raise"):
        losses = compat.softmax_cross_entropy_with_integer_labels(np.array([[-np.inf, 0.0]]), np.array([5]))

    assert np.isnan(losses).all()
