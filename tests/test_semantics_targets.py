"""docs/semantics.md, "Targets, weights, reductions", arguments: what is taken, what is refused, and in which words."""

import math
import pickle

import ml_dtypes
import numpy as np
import pytest
from expected import loss_is_off, near, one_hot, same, same_bits

import xent

inf, nan = math.inf, math.nan
log = math.log
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
TRACED = ("jax-jit",)


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def bad_labels(lib, labels, *, shape=(5, 3), **keywords):
    """The LabelError of these labels."""
    with pytest.raises(xent.LabelError) as caught:
        lib.call(xent.sparse_cross_entropy, zeros(*shape), np.asarray(labels), **keywords)
    return caught.value


# -------------------- bad labels


@pytest.mark.variants(but=TRACED)
@pytest.mark.parametrize("bad", [-1, 3, 300, -(2**30)])
def test_a_label_out_of_range_is_a_label_error(lib, bad):
    error = bad_labels(lib, [0, 1, bad, 2, 0])

    assert isinstance(error, ValueError)
    assert isinstance(error, IndexError)


@pytest.mark.variants(but=(*TRACED, "dask", "dask-split"))
def test_a_label_error_counts_the_bad_labels_and_tells_the_first(lib):
    error = bad_labels(lib, [0, 7, 2, -3, 0])

    assert (error.count, error.position, error.value) == (2, (1,), 7)
    assert "2 outside; the first, at position 1, is 7" in str(error)


@pytest.mark.variants(but=(*TRACED, "dask", "dask-split"))
def test_the_position_of_a_bad_label_is_in_the_shape_of_the_labels(lib):
    error = bad_labels(lib, [[0, 1], [2, 0], [1, 9]], shape=(3, 2, 5))

    assert error.position == (2, 1)


@pytest.mark.variants("dask", "dask-split")
@pytest.mark.parametrize("at", range(7))
def test_a_label_error_of_a_chunk_tells_the_row_of_the_whole_array(lib, at):
    labels = np.zeros(7, np.int64)
    labels[at] = 4
    error = bad_labels(lib, labels, shape=(7, 3))

    assert (error.position, error.value) == ((at,), 4)


@pytest.mark.variants("dask", "dask-split")
def test_a_label_error_of_a_lazy_array_comes_when_it_is_computed(lib):
    loss = lib.apply(xent.sparse_cross_entropy, zeros(3, 2), np.asarray([0, 5, 1]))

    with pytest.raises(xent.LabelError):
        lib.numpy(loss)


@pytest.mark.variants("dask")
def test_where_row_counts_are_unknown_a_label_error_names_the_chunk_and_the_row_in_it(lib):
    logits, labels = lib.asarray(zeros(5, 3), classes=-1), lib.asarray(np.asarray([0, 1, 2, 9, 0]))
    whole = lib.asarray(np.ones(5, bool))
    logits, labels = logits[whole], labels[whole]
    loss = xent.sparse_cross_entropy(logits, labels)

    with pytest.raises(xent.LabelError, match=r"row 0 of chunk 2, is 9"):
        lib.numpy(loss)


@pytest.mark.variants(but=TRACED)
def test_a_label_error_survives_pickling(lib):
    error = pickle.loads(pickle.dumps(bad_labels(lib, [0, 1, 7, 2, 0])))

    assert isinstance(error, xent.LabelError)
    assert (error.count, error.position, error.value) == (1, (2,), 7)
    assert "got 1 outside" in str(error)


@pytest.mark.variants(but=TRACED)
@pytest.mark.parametrize("kind", ["probabilities", "log_probabilities"])
def test_a_bad_label_of_probabilities_is_an_error_too(lib, kind):
    assert bad_labels(lib, [0, 1, 7, 2, 0], kind=kind).value == 7


@pytest.mark.variants(but=TRACED)
@pytest.mark.parametrize(
    "function", [xent.value_and_grad(xent.sparse_cross_entropy), xent.row_statistics], ids=["grad", "rows"]
)
def test_a_bad_label_is_an_error_of_every_function_of_labels(lib, function):
    with pytest.raises(xent.LabelError):
        lib.call(function, zeros(3, 2), np.asarray([0, 5, 1]))


@pytest.mark.variants(*TRACED)
def test_a_bad_label_in_a_trace_makes_its_row_nan(lib):
    loss, gradient = lib.call(xent.value_and_grad(xent.sparse_cross_entropy), zeros(3, 2), np.asarray([0, 5, 1]))

    assert same(np.isnan(loss), [False, True, False])
    assert same(np.isnan(gradient), [[False] * 2, [True] * 2, [False] * 2])


@pytest.mark.variants("cupy")
def test_a_bad_label_on_a_gpu_makes_its_row_nan(lib):
    loss, gradient = lib.call(xent.value_and_grad(xent.sparse_cross_entropy), zeros(3, 2), np.asarray([0, 5, 1]))

    assert same(np.isnan(loss), [False, True, False])
    assert same(np.isnan(gradient), [[False] * 2, [True] * 2, [False] * 2])


@pytest.mark.variants("cupy")
def test_a_bad_label_on_a_gpu_raises_where_it_is_asked_to(lib):
    with xent.using(validate="always"), pytest.raises(xent.LabelError):
        lib.call(xent.sparse_cross_entropy, zeros(3, 2), np.asarray([0, 5, 1]))


@pytest.mark.parametrize("bad", [-1, 2, 250])
def test_a_bad_label_without_validation_makes_its_row_nan(lib, bad):
    with xent.using(validate="never"):
        told = xent.value_and_grad(xent.sparse_cross_entropy), zeros(3, 2), np.asarray([0, bad, 1])
        loss, gradient = lib.call(*told)

    assert same(np.isnan(loss), [False, True, False])
    assert same(np.isnan(gradient), [[False] * 2, [True] * 2, [False] * 2])


@pytest.mark.variants("dask", "dask-split")
@pytest.mark.parametrize("validate", ["never", "always"])
def test_validation_is_bound_when_the_call_is_made(lib, validate):
    with xent.using(validate=validate):
        loss = lib.apply(xent.sparse_cross_entropy, zeros(3, 2), np.asarray([0, 5, 1]))
    with xent.using(validate="always" if validate == "never" else "never"):
        try:
            outcome = "never" if same(np.isnan(lib.numpy(loss)), [False, True, False]) else "neither"
        except xent.LabelError:
            outcome = "always"

    assert outcome == validate


@pytest.mark.parametrize(
    "weight", [np.asarray([1, 0, 1], np.float32), np.asarray([True, False, True])], ids=["0", "False"]
)
def test_a_bad_label_of_weight_zero_is_ignored(lib, weight):
    loss, gradient = lib.call(
        xent.value_and_grad(xent.sparse_cross_entropy), zeros(3, 2), np.asarray([0, 5, 1]), sample_weight=weight
    )

    assert near(loss, [log(2), 0, log(2)])
    assert same(gradient[1], [0, 0])


# -------------------- dtypes of labels


@pytest.mark.parametrize("dtype", INTEGERS)
def test_labels_of_every_integer_dtype_are_taken(lib, dtype):
    assert near(lib.call(xent.sparse_cross_entropy, zeros(3, 5), np.asarray([0, 4, 2], dtype)), [log(5)] * 3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bool"])
def test_labels_that_are_not_integers_are_refused_with_the_cast_to_write(lib, dtype):
    with pytest.raises(TypeError, match=rf"`labels` must be integers, got {dtype}\[3\].*Pass \w+\.(astype|to)\("):
        lib.apply(xent.sparse_cross_entropy, zeros(3, 5), np.asarray([0, 1, 0], dtype))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16"])
def test_narrow_labels_are_widened_before_they_are_compared_or_moved(lib, dtype):
    logits = np.tile(np.arange(700, dtype=np.float32), (3, 1))
    labels = np.asarray([0, 100, 255], dtype)
    loss = lib.call(xent.sparse_cross_entropy, logits, labels)

    assert not loss_is_off(loss, logits, one_hot(labels.astype(np.int64), 700), flushes=lib.flushes)


@pytest.mark.parametrize("first", [0, 200, 256, 444])
def test_narrow_labels_are_widened_before_a_slice_of_classes_moves_them(lib, first):
    found = lib.call(
        xent.partial, zeros(3, 256), labels=np.asarray([0, 201, 255], np.uint8), first_class=first, num_classes=700
    )

    assert same(found.target_sum, [float(first <= label < first + 256) for label in (0, 201, 255)])


@pytest.mark.variants(but=TRACED)
def test_an_unsigned_label_past_every_signed_one_is_out_of_range_and_does_not_wrap(lib):
    with pytest.raises(xent.LabelError):
        lib.call(xent.sparse_cross_entropy, zeros(2, 3), np.asarray([0, 2**64 - 3], np.uint64))


@pytest.mark.variants("numpy")
@pytest.mark.slow
def test_labels_reach_every_row_of_more_than_two_to_the_31_logits(lib):
    classes = 46_345  # its square is past 2³¹
    logits = np.broadcast_to(np.float32([[1.0] + [-inf] * (classes - 2) + [1.0]]), (classes, classes))
    labels = np.where(np.arange(classes) % 2 == 0, 0, classes - 1).astype(np.int32)
    loss = xent.sparse_cross_entropy(logits, labels)

    assert near(loss, np.full(classes, log(2)))


# -------------------- ignored labels


def test_an_ignored_label_that_the_dtype_cannot_hold_ignores_nothing(lib):
    labels = np.asarray([156, 3], np.uint8)  # 156 is −100 in eight bits
    loss = lib.call(xent.sparse_cross_entropy, zeros(2, 200), labels, ignore_index=-100)

    assert near(loss, [log(200)] * 2)


@pytest.mark.variants(but=TRACED)
def test_an_unsigned_label_that_wraps_to_an_ignored_one_is_not_ignored(lib):
    labels = np.asarray([0, 2**64 - 100], np.uint64)

    with pytest.raises(xent.LabelError):
        lib.call(xent.sparse_cross_entropy, zeros(2, 3), labels, ignore_index=-100)


@pytest.mark.variants(but=TRACED)
def test_nothing_is_ignored_unless_it_is_asked_for(lib):
    assert bad_labels(lib, [0, 1, -100, 2, 0]).value == -100


@pytest.mark.parametrize("ignore", [-100, [-100], (-100, 7), {-100}, range(-100, -98), np.int64(-100)], ids=str)
def test_ignored_labels_are_an_int_or_any_iterable_of_ints(lib, ignore):
    loss = lib.call(xent.sparse_cross_entropy, zeros(3, 2), np.asarray([0, -100, 1]), ignore_index=ignore)

    assert near(loss, [log(2), 0, log(2)])


def test_several_labels_may_be_ignored(lib):
    loss = lib.call(xent.sparse_cross_entropy, zeros(4, 2), np.asarray([0, -100, 9, 1]), ignore_index=[9, -100])

    assert near(loss, [log(2), 0, 0, log(2)])


def test_a_class_may_be_ignored(lib):
    loss = lib.call(xent.sparse_cross_entropy, zeros(3, 2), np.asarray([0, 1, 1]), ignore_index=0)

    assert near(loss, [0, log(2), log(2)])


# -------------------- shapes


def test_labels_with_an_axis_too_many_are_refused_with_the_squeeze_to_write(lib):
    with pytest.raises(ValueError, match=r"must have shape \(3,\).*\(3, 5\).*got \(3, 1\)\. Pass labels\[:, 0\]"):
        lib.apply(xent.sparse_cross_entropy, zeros(3, 5), np.zeros((3, 1), np.int64))


def test_a_one_hot_for_labels_is_refused_with_the_function_to_call(lib):
    with pytest.raises(ValueError, match="call cross_entropy"):
        lib.apply(xent.sparse_cross_entropy, zeros(3, 5), np.zeros((3, 5), np.int64))


@pytest.mark.parametrize("shape", [(4,), (), (3, 2)], ids=str)
def test_labels_of_another_shape_are_refused(lib, shape):
    with pytest.raises(ValueError, match=r"`labels` must have shape \(3,\)"):
        lib.apply(xent.sparse_cross_entropy, zeros(3, 5), np.zeros(shape, np.int64))


def test_targets_are_never_broadcast(lib):
    with pytest.raises(ValueError, match=r"`targets` must have shape \(3, 5\).*got \(1, 5\)"):
        lib.apply(xent.cross_entropy, zeros(3, 5), zeros(1, 5))


def test_what_does_not_fit_is_refused_on_a_second_call_too(lib):
    lib.call(xent.sparse_cross_entropy, zeros(3, 5), np.zeros(3, np.int64))

    with pytest.raises(ValueError, match="`labels` must have shape"):
        lib.apply(xent.sparse_cross_entropy, zeros(3, 5), np.zeros(4, np.int64))


@pytest.mark.parametrize("axis", [2, -3, 7])
def test_an_axis_that_is_not_there_is_refused(lib, axis):
    with pytest.raises(ValueError, match=r"`axis` must lie in \[-2, 2\)"):
        lib.apply(xent.sparse_cross_entropy, zeros(3, 5), np.zeros(3, np.int64), axis=axis)


KEYWORDS = {
    "kind": "softmax",
    "reduction": "average",
    "label_smoothing": -0.1,
    "axis": None,
    "ignore_index": 0.5,
}


@pytest.mark.parametrize(("name", "value"), KEYWORDS.items(), ids=list(KEYWORDS))
def test_a_keyword_of_an_unknown_value_is_refused(lib, name, value):
    with pytest.raises(ValueError, match=rf"sparse_cross_entropy: `{name}` must .*, got {value!r}\. [A-Z]"):
        lib.apply(xent.sparse_cross_entropy, zeros(3, 5), np.zeros(3, np.int64), **{name: value})


@pytest.mark.parametrize("value", [5, True, np.int64(5), 0.5], ids=repr)
def test_a_number_is_no_reduction(lib, value):
    with pytest.raises(ValueError, match="`reduction` must"):
        lib.apply(xent.sparse_cross_entropy, zeros(3, 5), np.zeros(3, np.int64), reduction=value)


EQUAL = {"axis": (1, 1.0, True), "ignore_index": (1, 1.0, True), "label_smoothing": (1, True)}
EQUAL_LABELS = {"ignore_index": ((1, 2), (1.0, 2), (True, 2))}


@pytest.mark.parametrize(
    ("name", "valid", "value"),
    [
        (name, valid, value)
        for told in (EQUAL, EQUAL_LABELS)
        for name, (valid, *others) in told.items()
        for value in others
    ],
    ids=repr,
)
def test_an_option_that_is_equal_to_a_valid_one_is_refused_after_a_valid_call_too(lib, name, valid, value):
    told, _ = lib.arguments((zeros(3, 5), np.zeros(3, np.int64)), {})
    with lib.strictly():
        lib.numpy(lib.run(xent.sparse_cross_entropy, told, {name: valid}))

        with pytest.raises(ValueError, match=f"`{name}` must"):
            lib.run(xent.sparse_cross_entropy, told, {name: value})


SPELLINGS = {
    "axis": (1, np.int64(1), np.asarray(1)),
    "ignore_index": (1, np.int8(1), np.asarray(1), (1,), [1], {1}, range(1, 2), np.asarray([1])),
    "label_smoothing": (0.25, np.float32(0.25), np.float64(0.25)),
    "reduction": (xent.Mean(2), xent.Mean(2.0), xent.Mean(np.float32(2)), xent.Mean(np.uint8(2))),
}


@pytest.mark.variants("numpy", "torch")
@pytest.mark.parametrize(
    ("name", "one", "other"),
    [(name, one, other) for name, (one, *more) in SPELLINGS.items() for other in more],
    ids=repr,
)
def test_every_spelling_of_an_option_is_the_same_option(lib, name, one, other):
    logits, labels = np.arange(15, dtype=np.float32).reshape(3, 5) ** 0.5, np.asarray([0, 1, 4])
    expected, found = (lib.call(xent.sparse_cross_entropy, logits, labels, **{name: told}) for told in (one, other))

    assert same_bits(expected, found)


@pytest.mark.parametrize("value", [-0.1, 1.1, -1e-9, nan, "0.1", None], ids=str)
def test_smoothing_outside_zero_to_one_is_refused(lib, value):
    with pytest.raises(ValueError, match=r"`label_smoothing` must lie in \[0, 1\]"):
        lib.apply(xent.cross_entropy, zeros(3, 5), zeros(3, 5), label_smoothing=value)


# -------------------- dtypes and types


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int32", "bool"])
def test_dense_targets_are_brought_to_the_dtype_of_the_predictions(lib, rng, dtype):
    if dtype in ("float16", "bfloat16") and dtype not in lib.dtypes:
        pytest.skip(f"{lib} has no {dtype}")
    logits = rng.standard_normal((5, 3)).astype(np.float32)
    targets = one_hot([0, 2, 1, 1, 0], 3).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    loss, gradient = lib.call(xent.value_and_grad(xent.cross_entropy), logits, targets)

    assert (loss.dtype, gradient.dtype) == (np.float32, np.float32)
    assert not loss_is_off(loss, logits, targets.astype(np.float64), flushes=lib.flushes)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_predictions_that_are_not_floating_are_refused_with_the_cast_to_write(lib, dtype):
    with pytest.raises(TypeError, match=rf"`predictions` must be real floating, got {dtype}.*Pass \w+\.(astype|to)\("):
        lib.apply(xent.sparse_cross_entropy, np.zeros((3, 5), dtype), np.zeros(3, np.int64))


def test_complex_targets_are_refused(lib):
    with pytest.raises(TypeError, match="`targets` must be real"):
        lib.apply(xent.cross_entropy, zeros(3, 5), np.zeros((3, 5), np.complex64))


LOGITS, LABELS = zeros(3, 2), np.asarray([0, 1, 0])


@pytest.mark.parametrize(
    ("predictions", "labels", "remedy"),
    [
        (LOGITS.tolist(), LABELS, r"`predictions` must be an array, got list\. Pass numpy\.asarray\(predictions\)"),
        (LOGITS, LABELS.tolist(), r"`labels` must be an array, got list\. Pass numpy\.asarray\(labels\)"),
        (LOGITS, tuple(LABELS), r"`labels` must be an array, got tuple\. Pass numpy\.asarray\(labels\)"),
        (LOGITS, 1, r"`labels` must be an array, got int\. Pass an array of"),
        (LOGITS, None, r"`labels` must be an array, got NoneType"),
        (LOGITS.astype(object), LABELS, r"`predictions` must have a numeric dtype, got object\[3, 2\] on numpy"),
        (LOGITS, LABELS.astype(object), r"`labels` must have a numeric dtype, got object\[3\] on numpy"),
        (
            np.ma.masked_array(LOGITS),
            LABELS,
            r"got numpy\.MaskedArray\. Pass numpy\.ma\.filled\(predictions, -numpy\.inf\)",
        ),
    ],
    ids=["list", "list of labels", "tuple", "int", "None", "object", "object labels", "masked"],
)
def test_what_is_no_array_is_refused_with_the_conversion_to_write(predictions, labels, remedy):
    with pytest.raises(TypeError, match=remedy):
        xent.sparse_cross_entropy(predictions, labels)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_a_matrix_is_refused():
    with pytest.raises(TypeError, match=r"got numpy\.matrix\. Pass numpy\.asarray"):
        xent.sparse_cross_entropy(np.matrix(LOGITS), LABELS)


def test_a_data_frame_is_refused_with_the_conversion_to_write():
    pandas = pytest.importorskip("pandas")

    with pytest.raises(TypeError, match=r"got pandas\.DataFrame\. Pass predictions\.to_numpy\(\)"):
        xent.sparse_cross_entropy(pandas.DataFrame(LOGITS), LABELS)


@pytest.mark.variants("dask", "dask-split")
@pytest.mark.parametrize("masked", ["predictions", "labels", "targets", "sample_weight", "class_weight"])
def test_a_lazy_masked_array_is_refused(lib, masked):
    told = {"predictions": LOGITS, "labels": LABELS, "targets": one_hot(LABELS, 2), "sample_weight": np.ones(3)}
    told = {name: lib.asarray(value, classes=-1) for name, value in {**told, "class_weight": np.ones(2)}.items()}
    function, target = (xent.cross_entropy, "targets") if masked == "targets" else (xent.sparse_cross_entropy, "labels")
    weights = {masked: None} if masked.endswith("weight") else {}

    for masks in (
        lambda a: lib.da.ma.masked_greater(a, 9),
        lambda a: a.map_blocks(np.ma.masked_greater, 9, meta=a._meta),
    ):
        now = {**told, masked: masks(told[masked])}
        with pytest.raises(TypeError, match=f"`{masked}` must be an array, got .*MaskedArray.*dask.array.ma|numpy.ma"):
            lib.numpy(function(now["predictions"], now[target], **{name: now[name] for name in weights}))


# -------------------- several libraries


@pytest.mark.variants(but=("numpy", "numpy-generic", "dask", "dask-split"))
def test_predictions_and_labels_of_two_libraries_are_refused_and_both_named(lib):
    logits = lib.asarray(LOGITS)

    with pytest.raises(TypeError, match=r"must be of the library of `predictions` \(\w+\), got int64\[3\] on numpy"):
        xent.sparse_cross_entropy(logits, LABELS)


@pytest.mark.variants(but=("numpy", "numpy-generic"))
def test_numpys_predictions_and_another_librarys_labels_are_refused_and_both_named(lib):
    labels = lib.asarray(LABELS)

    with pytest.raises(TypeError, match=r"must be of the library of `predictions` \(numpy\), got int\d+\[3\] on \w+"):
        xent.sparse_cross_entropy(LOGITS, labels)


@pytest.mark.variants(but=("numpy", "numpy-generic", "dask", "dask-split"))
@pytest.mark.parametrize("name", ["sample_weight", "class_weight"])
def test_weights_of_another_library_are_refused_and_both_named(lib, name):
    weight = np.ones(3 if name == "sample_weight" else 2, np.float32)

    with pytest.raises(TypeError, match=rf"`{name}` must be of the library of `predictions` \(\w+\), got float32"):
        xent.sparse_cross_entropy(lib.asarray(LOGITS), lib.asarray(LABELS), **{name: weight})


@pytest.mark.variants("array-api-strict")
def test_two_devices_are_refused_and_both_named(lib):
    labels = lib.xp.asarray(LABELS, device=lib.xp.Device("device1"))

    with pytest.raises(TypeError, match=r"on the device of `predictions` \(cpu\).*device1"):
        xent.sparse_cross_entropy(lib.asarray(LOGITS), labels)


@pytest.mark.variants("dask", "dask-split")
@pytest.mark.parametrize("name", ["labels", "sample_weight", "class_weight"])
def test_dask_takes_numpys_arrays_beside_its_own(lib, rng, name):
    logits = rng.standard_normal((7, 5)).astype(np.float32)
    arrays = {"labels": rng.integers(0, 5, 7), "sample_weight": rng.random(7), "class_weight": rng.random(5)}
    whole = lib.call(
        xent.sparse_cross_entropy, logits, arrays["labels"], **{n: arrays[n] for n in arrays if n != "labels"}
    )
    told = {n: value if n == name else lib.asarray(value) for n, value in arrays.items()}
    with lib.strictly():
        loss = xent.sparse_cross_entropy(lib.asarray(logits, classes=-1), told.pop("labels"), **told)

    assert isinstance(loss, lib.array_type)
    assert same_bits(lib.numpy(loss), whole)


@pytest.mark.variants("dask", "dask-split")
def test_dask_takes_numpys_targets_beside_its_own(lib, rng):
    logits, targets = (rng.random((7, 5)).astype(np.float32) for _ in range(2))
    with lib.strictly():
        loss = xent.cross_entropy(lib.asarray(logits, classes=-1), targets)

    assert not loss_is_off(lib.numpy(loss), logits, targets)


@pytest.mark.variants("dask", "dask-split")
def test_labels_and_weights_cut_otherwise_are_cut_as_the_predictions_rows(lib, rng):
    logits, labels, weight = rng.standard_normal((7, 5)).astype(np.float32), rng.integers(0, 5, 7), rng.random(7)
    expected = lib.call(xent.sparse_cross_entropy, logits, labels, sample_weight=weight)
    told = lib.da.from_array(labels, chunks=2), lib.da.from_array(weight, chunks=5)
    with lib.strictly():
        loss = xent.sparse_cross_entropy(lib.asarray(logits, classes=-1), told[0], sample_weight=told[1])

    assert loss.chunks == lib.asarray(labels).chunks
    assert same_bits(lib.numpy(loss), expected)


def test_class_weight_may_be_a_list_of_numbers(lib):
    loss = lib.call(xent.sparse_cross_entropy, zeros(3, 2), np.asarray([0, 1, 0]), class_weight=[1.0, 3])

    assert near(loss, [log(2), 3 * log(2), log(2)])
