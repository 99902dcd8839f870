"""The remedy of a message, followed: what it says to pass is evaluated and passed, until the call gives its number."""

import re
import sys

import numpy as np
import pytest
from expected import near

import xent

LOGITS, LABELS = np.asarray([[0.0, 1.0, 2.0], [3.0, 0.0, 0.5]], np.float32), np.asarray([2, 0])
ONE_HOT = np.eye(3, dtype=np.float32)[LABELS]
LOSS = np.log(np.exp(LOGITS.astype(np.float64)).sum(-1)) - LOGITS[[0, 1], LABELS]
LIBRARIES = ("numpy", "torch", "jax", "dask", "array_api_strict")
NAMES = ("predictions", "labels", "targets")


def follow(function, **arguments):
    """What the call returns once every remedy is followed, and how many there were."""
    for step in range(6):
        named = {name: value for name, value in arguments.items() if name not in NAMES}
        try:
            return function(*(arguments[name] for name in NAMES if name in arguments), **named), step
        except (TypeError, ValueError) as error:
            message = str(error)
        name = re.search("`(\\w+)` must", message)[1]
        remedy = re.search(r" Pass (.+)\.$", message)[1]
        expression, *weights = re.split(", and sample_weight=", re.split(", or |, all ", remedy)[0])
        known = {**{library: sys.modules.get(library) for library in LIBRARIES}, **arguments}
        arguments[name] = eval(expression, known)  # xent's own words
        if weights:
            arguments["sample_weight"] = eval(weights[0], known)
    raise AssertionError(message)


def of(library, values):
    """NumPy's values as an array of the library."""
    module = pytest.importorskip(library)
    return module.asarray(values) if library != "torch" else module.from_numpy(values.copy())


def is_right(loss, expected=LOSS):
    return near(np.asarray(loss).astype(np.float32), expected, ulps=4)


def losses(**arguments):
    function = xent.cross_entropy if "targets" in arguments else xent.sparse_cross_entropy
    return follow(function, **arguments)


BESIDE = ["numpy", "torch", "jax.numpy", "array_api_strict"]


@pytest.mark.parametrize("library", BESIDE)
@pytest.mark.parametrize("make", [list, tuple, "pandas", "polars"], ids=str)
def test_labels_that_are_no_array_are_made_one_of_the_librarys(library, make):
    labels = make(LABELS.tolist()) if callable(make) else pytest.importorskip(make).Series(LABELS.tolist())
    loss, steps = losses(predictions=of(library, LOGITS), labels=labels)

    assert steps == 1 and is_right(loss)


def test_labels_in_objects_are_cast_to_integers():
    loss, steps = losses(predictions=LOGITS, labels=LABELS.astype(object))

    assert steps == 1 and is_right(loss)


@pytest.mark.parametrize("library", BESIDE)
def test_predictions_that_are_no_array_are_made_one_of_the_labels_library(library):
    loss, steps = losses(predictions=LOGITS.tolist(), labels=of(library, LABELS))

    assert steps == 1 and is_right(loss)


@pytest.mark.parametrize("library", BESIDE)
@pytest.mark.parametrize("name", ["sample_weight", "targets"])
def test_weights_and_targets_in_lists_are_made_arrays_of_the_librarys(library, name):
    told = {"targets": of(library, ONE_HOT), "sample_weight": of(library, np.ones(2, np.float32))}
    told[name] = np.asarray(told[name]).tolist()
    loss, steps = losses(predictions=of(library, LOGITS), **told)

    assert steps == 1 and is_right(loss)


def test_a_lazy_frame_is_made_a_lazy_array():
    pandas, frames = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
    predictions = frames.from_pandas(pandas.DataFrame(LOGITS), npartitions=2)
    labels = frames.from_pandas(pandas.Series(LABELS), npartitions=2)
    loss, steps = losses(predictions=predictions, labels=labels)

    assert steps == 2 and type(loss).__module__.startswith("dask.array") and is_right(loss)


def test_a_dataset_of_xarray_is_asked_for_one_of_its_variables():
    xarray = pytest.importorskip("xarray")
    loss, steps = follow(
        lambda predictions, labels, name=None: xent.sparse_cross_entropy(predictions, labels),
        predictions=xarray.Dataset({"logits": (("row", "class"), LOGITS)}),
        labels=LABELS,
        name="logits",
    )

    assert steps == 1 and is_right(loss)


def test_a_frame_of_objects_takes_one_remedy_after_the_other():
    pandas = pytest.importorskip("pandas")
    loss, steps = losses(
        predictions=pandas.DataFrame(LOGITS.astype(object)), labels=pandas.DataFrame({"label": LABELS})
    )

    assert steps == 4 and is_right(loss)


@pytest.mark.parametrize("library", BESIDE)
@pytest.mark.parametrize(
    ("name", "dtype"), [("labels", np.float32), ("labels", bool), ("predictions", np.int32)], ids=str
)
def test_a_cast_is_written_as_the_library_writes_it(library, name, dtype):
    told = {"predictions": np.round(LOGITS), "labels": np.asarray([1, 0])}
    expected = xent.sparse_cross_entropy(told["predictions"], told["labels"])
    told[name] = told[name].astype(dtype)
    loss, steps = losses(**{argument: of(library, value) for argument, value in told.items()})

    assert steps == 1 and is_right(loss, expected)


def test_complex_numbers_keep_their_real_parts():
    loss, steps = losses(predictions=LOGITS + 0j, targets=ONE_HOT + 0j)

    assert steps == 2 and is_right(loss)


def masks(masked, how):
    """A masked array, or a lazy one."""
    if how == "eager":
        return masked
    array = pytest.importorskip("dask.array").from_array(masked, chunks=-1)
    return array if how == "known" else array.map_blocks(lambda chunk: chunk, meta=np.empty(0, masked.dtype))


@pytest.mark.parametrize("how", ["eager", "known"])
def test_the_mask_of_labels_becomes_a_weight(how):
    labels = np.ma.masked_array([2, 7], mask=[False, True])
    predictions = LOGITS if how == "eager" else masks(LOGITS, "known")
    loss, steps = losses(predictions=predictions, labels=masks(labels, how))

    assert steps == 1 and near(np.asarray(loss), [LOSS[0], 0], ulps=4)


@pytest.mark.parametrize("how", ["eager", "known"])
def test_a_masked_class_is_left_out(how):
    predictions = np.ma.masked_array(LOGITS, mask=[[True, False, False], [False, False, False]])
    loss, steps = losses(predictions=masks(predictions, how), labels=LABELS)

    assert steps == 1 and near(np.asarray(loss), [np.log1p(np.exp(-1.0)), LOSS[1]], ulps=4)


def test_a_chunk_that_is_masked_only_when_it_is_computed_is_refused_with_its_argument():
    predictions = masks(np.ma.masked_array(LOGITS, mask=LOGITS == 0), "unknown")

    with pytest.raises(TypeError, match=r"`predictions` must be an array, got numpy\.MaskedArray"):
        xent.sparse_cross_entropy(predictions, LABELS).compute()


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state:UserWarning")
@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr", "to_mkldnn"])
def test_a_sparse_tensor_is_made_dense_after_a_plan_for_a_dense_one_too(layout):
    torch = pytest.importorskip("torch")
    logits, labels = torch.tensor(LOGITS), torch.tensor(LABELS)
    expected = xent.sparse_cross_entropy(logits, labels)
    loss, steps = losses(predictions=getattr(logits, layout)(), labels=labels)

    assert steps == 1 and torch.equal(loss, expected)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("layout", ["strided", "jagged"])
def test_the_rows_of_nested_tensors_are_put_into_one(layout):
    torch = pytest.importorskip("torch")

    def nested(values):
        return torch.nested.nested_tensor([torch.tensor(one) for one in values], layout=getattr(torch, layout))

    xent.sparse_cross_entropy(torch.tensor(LOGITS)[None], torch.tensor(LABELS)[None])
    loss, steps = losses(predictions=nested([LOGITS, LOGITS[:1]]), labels=nested([LABELS, LABELS[:1]]))

    assert steps == 2 and near(loss.numpy(), [*LOSS, LOSS[0]], ulps=4)


@pytest.mark.parametrize("library", BESIDE)
def test_a_number_in_an_array_is_taken_out_of_it(library):
    two, half = of(library, np.asarray(2)), of(library, np.asarray(0.5, np.float32))
    predictions, labels = of(library, LOGITS), of(library, LABELS)
    mean = follow(xent.Mean, denominator=two)
    smoothed = follow(xent.sparse_cross_entropy, predictions=predictions, labels=labels, label_smoothing=half)
    every = follow(
        lambda labels, num_classes: xent.one_hot(labels, num_classes),
        labels=LABELS,
        num_classes=of(library, np.asarray(3)),
    )

    assert mean == (xent.Mean(2), 1)
    assert smoothed[1] == 1 and near(
        np.asarray(smoothed[0]), xent.sparse_cross_entropy(LOGITS, LABELS, label_smoothing=0.5), ulps=4
    )
    assert every[1] == 1 and np.array_equal(every[0], ONE_HOT)


def test_numbers_of_numpy_and_ml_dtypes_are_numbers():
    ml_dtypes = pytest.importorskip("ml_dtypes")

    for kind in (int, np.int64, np.uint8, np.float16, np.float32, ml_dtypes.bfloat16):
        mean = xent.sparse_cross_entropy(LOGITS, LABELS, reduction=xent.Mean(kind(2)))
        yes = xent.binary_cross_entropy(LOGITS, ONE_HOT, pos_weight=kind(2))

        assert near(mean, LOSS.sum() / 2, ulps=8)
        assert np.array_equal(yes, xent.binary_cross_entropy(LOGITS, ONE_HOT, pos_weight=2.0))


def test_a_mean_over_a_number_that_is_traced_is_a_sum_divided_by_it():
    jax = pytest.importorskip("jax")

    def mean(count):
        with pytest.raises(ValueError, match=re.escape('divide the result of reduction="sum" by it')):
            xent.Mean(count)
        return xent.sparse_cross_entropy(jax.numpy.asarray(LOGITS), jax.numpy.asarray(LABELS), reduction="sum") / count

    assert near(np.asarray(jax.jit(mean)(2)), LOSS.sum() / 2, ulps=8)


@pytest.mark.parametrize("dtype", ["int4", "uint4", "int2", "uint2"])
@pytest.mark.parametrize("library", ["numpy", "jax.numpy"])
def test_labels_of_less_than_a_byte_are_labels(library, dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    predictions, labels = of(library, LOGITS[:, :2]), of(library, np.asarray([1, 0]).astype(getattr(ml_dtypes, dtype)))
    loss = xent.sparse_cross_entropy(predictions, labels, ignore_index=-100)
    expected = xent.sparse_cross_entropy(LOGITS[:, :2], np.asarray([1, 0]))

    assert is_right(loss, expected)
    assert np.array_equal(np.asarray(xent.one_hot(labels, 2)), np.eye(2)[[1, 0]])
    if dtype.startswith("int"):
        with pytest.raises(xent.LabelError, match="the first, at position 1, is -1"):
            xent.row_statistics(predictions, of(library, np.asarray([1, -1]).astype(getattr(ml_dtypes, dtype))))


def test_a_library_of_an_older_array_api_is_refused_by_its_version():
    strict = pytest.importorskip("array_api_strict")
    logits, labels = strict.asarray(LOGITS), strict.asarray(LABELS)

    with strict.ArrayAPIStrictFlags(api_version="2024.12"):
        assert near(np.asarray(xent.softmax(logits)).sum(-1), [1, 1])
    for call in (lambda: xent.logsumexp(logits), lambda: xent.one_hot(labels, 3)):
        refusal = pytest.raises(TypeError, match=r"2024\.12 .* with 2023\.12")
        with strict.ArrayAPIStrictFlags(api_version="2023.12"), refusal:
            call()
