"""xent.compat.keras without Keras: every array library gives one answer, lazily where it is lazy.

That the answers are Keras': compat_tests/test_keras.py.
"""

import copy
import importlib
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from expected import near, same

import xent
from xent.compat import keras
from xent.compat.keras import registration

X = np.float32([[0.3, -1.2, 2.0], [1.0, 0.0, -3.0], [2.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
P = np.float32([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.5, 0.5, 1.0], [0.25, 0.5, 0.25]])
T = np.float32([[0.0, 0.25, 0.75], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
Y = np.asarray([2, -1, 0, 1])
WEIGHTS = [1.0, 3.0, 0.5, 2.0]
W = np.float32(WEIGHTS)

CALLS = {
    "targets": (lambda p, t: keras.categorical_crossentropy(t, p, label_smoothing=0.1), P, T),
    "targets from logits": (lambda x, t: keras.categorical_crossentropy(t, x, True, axis=0), X, T),
    "labels": (lambda p, y: keras.sparse_categorical_crossentropy(y, p, ignore_class=-1), P, Y),
    "labels from logits": (lambda x, y: keras.sparse_categorical_crossentropy(y, x, True, ignore_class=-1), X, Y),
    "yes or no": (lambda p, t: keras.binary_crossentropy(t, p), P, T),
    "yes or no from logits": (lambda x, t: keras.binary_crossentropy(t, x, True, label_smoothing=0.2, axis=0), X, T),
    "focal": (lambda x, t: keras.categorical_focal_crossentropy(t, x, [0.1, 0.2, 0.3], from_logits=True), X, T),
    "binary focal": (lambda x, t: keras.binary_focal_crossentropy(t, x, True, from_logits=True), X, T),
    "generalised": (lambda p, y: keras.categorical_generalized_cross_entropy(y, p, 0.5), P, Y),
    "ops": (lambda p, t: keras.ops.binary_crossentropy(t, p), P, T),
    "Keras 1": (lambda p, t: keras.keras1_categorical_crossentropy(p, t), P, T),
    "an object": (lambda p, t: keras.CategoricalCrossentropy()(t, p, WEIGHTS), P, T),
    "an object with ignored labels": (
        lambda x, y: keras.SparseCategoricalCrossentropy(True, -1, "mean_with_sample_weight")(y, x, WEIGHTS),
        X,
        Y,
    ),
    "an object without a reduction": (lambda x, t: keras.BinaryFocalCrossentropy(reduction=None)(t, x), P, T),
}


@pytest.mark.variants(but=("jax",))  # as jax-jit, and slower
@pytest.mark.parametrize("name", CALLS)
def test_every_library_gives_numpys_answer_and_dask_computes_nothing_before_it_is_asked(lib, name):
    call, predictions, targets = CALLS[name]
    expected, result = call(predictions, targets), lib.call(call, predictions, targets)

    assert result.dtype == expected.dtype == np.float32 and near(result, expected, ulps=16)


@pytest.mark.variants("dask", "dask-split")
@pytest.mark.parametrize("name", CALLS)
def test_what_is_lazy_stays_lazy(lib, name):
    call, predictions, targets = CALLS[name]

    assert isinstance(lib.apply(call, predictions, targets), lib.array_type)


@pytest.mark.variants("dask")
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight", "sum", "none"])
def test_a_number_of_rows_that_is_not_known_is_counted_when_it_is_computed(lib, reduction):
    x, y = lib.asarray(X), lib.asarray(np.maximum(Y, 0))
    kept = x[:, 2] < 1.5
    loss = keras.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    expected = loss(np.maximum(Y, 0)[X[:, 2] < 1.5], X[X[:, 2] < 1.5])

    assert near(lib.to_numpy(loss(y[kept], x[kept])), expected, ulps=16)


@pytest.mark.variants("dask")
@pytest.mark.parametrize("name", ["targets", "labels", "labels from logits", "focal", "binary focal", "generalised"])
def test_every_function_takes_rows_whose_number_is_not_known(lib, name):
    call, predictions, targets = CALLS[name]
    x, kept = lib.asarray(predictions), predictions[:, 2] < 1.5
    result = call(x[x[:, 2] < 1.5], lib.asarray(targets)[x[:, 2] < 1.5])

    assert near(lib.to_numpy(result), call(predictions[kept], targets[kept]), ulps=16)


@pytest.mark.variants("torch", "jax", "dask")
@pytest.mark.parametrize("name", CALLS)
def test_numpys_targets_go_with_every_librarys_predictions(lib, name):
    call, predictions, targets = CALLS[name]

    assert near(lib.to_numpy(call(lib.asarray(predictions), targets)), call(predictions, targets), ulps=16)


@pytest.mark.variants("torch", "jax")
def test_a_factor_may_be_a_number_of_numpy_and_weights_numpys_array(lib):
    loss = keras.CategoricalFocalCrossentropy(alpha=np.float32(0.25), reduction="sum")

    assert near(lib.to_numpy(loss(T, lib.asarray(P), W)), loss(T, P, W), ulps=16)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch makes an instance of its own Function
@pytest.mark.parametrize("name", CALLS)
def test_torch_compiles_it_as_one_graph(name):
    torch = pytest.importorskip("torch")
    call, predictions, targets = CALLS[name]
    predictions, targets = torch.from_numpy(predictions.copy()), torch.from_numpy(targets.copy())
    result = torch.compile(call, backend="eager", fullgraph=True)(predictions, targets)

    assert near(result.numpy(), call(predictions, targets).numpy(), ulps=16)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_what_is_not_finite_gives_no_warning(gamma):
    x = np.float32([[0, np.inf, -np.inf], [np.nan, 1, 0], [-np.inf] * 3])
    for from_logits in (False, True):
        keras.categorical_focal_crossentropy(T[:3], x, gamma=gamma, from_logits=from_logits)
        keras.binary_focal_crossentropy(T[:3], x, gamma=gamma, from_logits=from_logits)

    assert keras.CategoricalCrossentropy()(T, np.full((4, 3), 1e300)).dtype == np.float32


def test_a_hard_example_of_the_binary_focal_loss_costs_what_it_costs():
    x = np.float32([[-20.0], [-100.0], [100.0]])

    assert same(keras.binary_focal_crossentropy(np.ones((3, 1)), x, from_logits=True), np.float32([20, 100, 0]))


def test_an_object_has_its_arguments_as_attributes():
    loss = keras.BinaryFocalCrossentropy(gamma=3.0, from_logits=True, axis=0)

    assert (loss.gamma, loss.from_logits, loss.axis, loss.label_smoothing) == (3.0, True, 0, 0.0)


def test_predictions_may_be_read_only_and_stay_as_they_are():
    for call, predictions, targets in CALLS.values():
        copy = predictions.copy()
        copy.flags.writeable = False
        call(copy, targets)

        assert same(copy, predictions)


def test_an_ignored_row_costs_0_whatever_it_holds():
    p = np.where((Y == -1)[:, None], np.nan, P)

    assert same(keras.sparse_categorical_crossentropy(Y, p, ignore_class=-1)[1], 0.0)
    assert np.isfinite(keras.SparseCategoricalCrossentropy(ignore_class=-1)(Y, p))


@pytest.mark.parametrize("ignored", [None, -1])
@pytest.mark.parametrize(
    ("labels", "axis"), [(Y[:1], -1), (Y[:, None, None], -1), (Y[:3], 1), (Y[0], -1), (Y, 0)], ids=str
)
def test_labels_that_are_not_one_for_each_row_are_refused(labels, axis, ignored):
    words = r"the labels must have shape \(\d,\), got \(.*\) for predictions \(4, 3\)\. Pass one label for each row"
    with pytest.raises(ValueError, match=words):
        keras.sparse_categorical_crossentropy(labels, P, ignore_class=ignored, axis=axis)


@pytest.mark.variants("numpy", "array-api-strict", "torch", "jax", "dask")
def test_what_does_not_broadcast_is_a_value_error(lib):
    loss = keras.CategoricalCrossentropy()
    calls = {
        r"Loss: `sample_weight` must broadcast with shape \(4,\), got \(3,\)\. Reshape it": (loss, P, T, P[:3, 0]),
        r"crossentropy: the targets must broadcast with shape \(4, 3\), got \(2, 3\)": (
            keras.categorical_focal_crossentropy,
            P,
            T[:2],
        ),
        r"crossentropy: `alpha` must broadcast with shape \(4, 3\), got \(2,\)": (
            keras.categorical_focal_crossentropy,
            P,
            T,
            P[0, :2],
        ),
    }
    for words, (call, *arrays) in calls.items():
        with pytest.raises(ValueError, match=words):
            lib.apply(lambda p, t, *more, call=call: call(t, p, *more), *arrays)


@pytest.mark.parametrize("function", [keras.categorical_focal_crossentropy, keras.CategoricalFocalCrossentropy])
def test_a_softmax_over_one_class_is_warned_about(function):
    with pytest.warns(UserWarning, match=r"one class is always sure, got axis 0 of \(1, 3\)\. Is it a sigmoid\?"):
        if function is keras.CategoricalFocalCrossentropy:
            function(from_logits=True, axis=0)(T[:1], P[:1])
        else:
            function(T[:1], P[:1], from_logits=True, axis=0)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_functions_keep_the_dtype_of_the_predictions_and_objects_have_their_own(dtype):
    for name, (call, predictions, targets) in CALLS.items():
        result = call(predictions.astype(dtype), targets)

        assert result.dtype == (np.float32 if "object" in name else dtype), name


def test_an_object_can_be_made_again_from_its_configuration():
    loss = keras.SparseCategoricalCrossentropy(ignore_class=-1, reduction="sum", axis=1)
    again = type(loss).from_config(loss.get_config())

    assert again.get_config() == loss.get_config() == {
        "name": "sparse_categorical_crossentropy",
        "reduction": "sum",
        "from_logits": False,
        "ignore_class": -1,
        "axis": 1,
    }  # fmt: skip


def test_bad_input_gives_an_error_that_says_what_to_pass():
    with pytest.raises(xent.LabelError, match=r"must lie in \[0, 3\), got 1 outside"):
        keras.sparse_categorical_crossentropy(Y, P)
    with pytest.raises(ValueError, match=r"must have the same shape as the predictions, \(4, 3\), got \(4,\)"):
        keras.categorical_crossentropy(Y, P)
    with pytest.raises(TypeError, match="binary_crossentropy: the predictions must be real floating, got int64"):
        keras.binary_crossentropy(T, np.zeros((4, 3), int))
    for function in (keras.categorical_crossentropy, keras.categorical_focal_crossentropy):
        with pytest.raises(IndexError, match=r"must have a class axis, got a 0-d array\. Pass shape \(C,\)"):
            function(T[0, 0], P[0, 0])
    with pytest.raises(ValueError, match="the labels must have shape"):
        keras.sparse_categorical_crossentropy(Y[0], P[0, 0])
    with pytest.raises(ValueError, match="`axis` must be an integer, got True"):
        keras.categorical_crossentropy(T, P, axis=True)
    with pytest.raises(ValueError, match=r"CategoricalCrossentropy: `reduction` must be one of .*, got 'median'"):
        keras.CategoricalCrossentropy(reduction="median")
    with pytest.raises(ValueError, match=r"`q` must lie in \(0, 1\), got 1.0"):
        keras.CategoricalGeneralizedCrossEntropy(q=1.0)
    with pytest.warns(SyntaxWarning, match="one class only"):
        keras.categorical_crossentropy(T[:, :1], P[:, :1])


# -------------------- TensorFlow's tensors, as in keras.Model.fit

TENSORS = {
    "targets": (lambda p, t: keras.categorical_crossentropy(t, p, label_smoothing=0.1), P, T),
    "targets from logits": (lambda x, t: keras.categorical_crossentropy(t, x, True, axis=0), X, T),
    "labels": (lambda p, y: keras.sparse_categorical_crossentropy(y, p, ignore_class=-1), P, Y),
    "labels from logits": (lambda x, y: keras.sparse_categorical_crossentropy(y, x, True, ignore_class=-1), X, Y),
    "yes or no": (lambda p, t: keras.binary_crossentropy(t, p), P, T),
    "yes or no from logits": (lambda x, t: keras.binary_crossentropy(t, x, True, 0.2, axis=0), X, T),
    "over all": (lambda x, t: keras.binary_crossentropy(t, x, True, axis=None), X, T),
    "an object": (lambda p, t: keras.CategoricalCrossentropy()(t, p, W), P, T),
    "a sum": (lambda p, t: keras.CategoricalCrossentropy(reduction="sum")(t, p), P, T),
    "rows": (lambda p, t: keras.BinaryCrossentropy(reduction=None)(t, p, W[:, None]), P, T),
    "an object with ignored labels": (lambda x, y: keras.SparseCategoricalCrossentropy(True, -1)(y, x), X, Y),
    "the same, weighed": (lambda x, y: keras.SparseCategoricalCrossentropy(True, -1)(y, x, W), X, Y),
    "the same over its weights": (
        lambda x, y: keras.SparseCategoricalCrossentropy(True, -1, "mean_with_sample_weight")(y, x, W),
        X,
        Y,
    ),
}


@pytest.fixture(scope="module")
def tensorflow():
    return pytest.importorskip("tensorflow")


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("name", TENSORS)
def test_tensors_have_numpys_losses_and_torchs_gradient(tensorflow, name, in_graph):
    call, predictions, targets = TENSORS[name]
    torch = pytest.importorskip("torch")
    x = torch.tensor(predictions, requires_grad=True)
    call(x, torch.tensor(targets)).sum().backward()

    def value_and_gradient(x, t):
        with tensorflow.GradientTape() as tape:
            tape.watch(x)
            value = call(x, t)
        return value, tape.gradient(value, x)

    rows_unknown = [tensorflow.TensorSpec((None, *array.shape[1:]), array.dtype) for array in (predictions, targets)]
    traced = tensorflow.function(value_and_gradient, input_signature=rows_unknown)
    of_tensors = traced if in_graph else value_and_gradient
    value, gradient = of_tensors(tensorflow.constant(predictions), tensorflow.constant(targets))

    assert value.dtype == gradient.dtype == "float32"
    assert near(value.numpy(), call(predictions, targets), ulps=16)
    assert near(gradient.numpy(), x.grad.numpy(), ulps=64)


def test_settings_hold_where_tensorflow_calls_python_back(tensorflow):
    def loss(x):
        return keras.sparse_categorical_crossentropy(np.asarray([2, 1, 0, 1]), x, True)

    with xent.using(trace=True) as decisions:
        tensorflow.function(loss)(tensorflow.constant(X))

    assert {decision.kernel for decision in decisions} == {"numpy"}


@pytest.mark.parametrize("at", [0, 3])
def test_an_infinite_logit_of_a_tensor_is_nan_as_in_tensorflow(tensorflow, at):
    x = tensorflow.constant(np.float32([[0, 1, 2], [np.inf, 0, 1]]))
    with tensorflow.GradientTape() as tape:
        tape.watch(x)
        rows = keras.sparse_categorical_crossentropy(np.asarray([0, 1]), x, True)

    assert np.isnan(rows[1]) and np.isfinite(rows[0])
    assert np.isnan(tape.gradient(rows, x)[1]).all()


@pytest.mark.parametrize("jit", [False, True])
def test_what_is_wrong_with_tensors_is_said(tensorflow, jit):
    x, bad = tensorflow.constant(X), np.asarray([2, 1, 0, 3])
    loss = tensorflow.function(lambda x: keras.sparse_categorical_crossentropy(bad, x, True), jit_compile=jit)
    with pytest.raises(tensorflow.errors.InvalidArgumentError, match="PyFunc" if jit else r"\[0, 3\), got 1 outside"):
        loss(x)
    with pytest.raises(TypeError, match=r"TensorFlow tensor"):
        keras.binary_focal_crossentropy(T, x)


# -------------------- where Keras is imported: here a Keras of the test's own, for the real one takes seconds


class KerasLoss:
    """Keras' base as far as it matters here: it has a dtype that cannot be set."""

    dtype = property(lambda loss: "of Keras")


@pytest.fixture
def imported(monkeypatch):
    """What is registered with a Keras that is imported."""
    registered = {}

    def register(package):
        return lambda value: registered.setdefault(f"{package}>{value.__name__}", value)

    losses, saving = SimpleNamespace(Loss=KerasLoss), SimpleNamespace(register_keras_serializable=register)
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(losses=losses, saving=saving))
    monkeypatch.setattr(registration, "made", {})
    return registered


def test_without_keras_an_object_is_of_the_public_class(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace())  # it is being imported

    assert type(keras.CategoricalCrossentropy()) is keras.CategoricalCrossentropy


@pytest.mark.parametrize("name", [name for name in keras.__all__ if name[0].isupper()])
def test_where_keras_is_imported_an_object_is_keras_loss_too_and_registered(imported, name):
    cls = getattr(keras, name)
    loss = cls(name="mine", dtype="float64")

    assert isinstance(loss, cls) and isinstance(loss, KerasLoss) and loss.dtype == "float64"
    assert imported == {f"xent>{name}": type(loss)} and type(loss) is type(cls())
    assert type(loss).from_config(loss.get_config()).get_config() == loss.get_config()
    for each in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss)):
        assert type(each) is type(loss) and each.get_config() == loss.get_config() and each.dtype == "float64"


def test_a_pickle_of_where_keras_is_imported_is_read_where_it_is_not(imported, monkeypatch):
    pickled = pickle.dumps(keras.BinaryCrossentropy(label_smoothing=0.1))
    monkeypatch.delitem(sys.modules, "keras")

    assert type(pickle.loads(pickled)) is keras.BinaryCrossentropy
    assert pickle.loads(pickled).label_smoothing == 0.1


def test_an_object_of_both_gives_the_loss_of_the_public_class(imported):
    both = keras.SparseCategoricalCrossentropy(True, -1)(Y, X, WEIGHTS)
    sys.modules.pop("keras")

    assert both == keras.SparseCategoricalCrossentropy(True, -1)(Y, X, WEIGHTS)


def test_a_users_own_subclass_stays_as_it_is(imported):
    class Mine(keras.CategoricalCrossentropy):
        pass

    assert type(Mine()) is Mine and not imported


def test_classes_and_functions_are_registered_where_keras_is_there_first(imported):
    importlib.reload(keras)
    names = [name for name in keras.__all__ if name not in ("ops", "keras1_categorical_crossentropy")]

    assert sorted(imported) == sorted(f"xent>{name}" for name in names)
    assert imported["xent>binary_crossentropy"] is keras.binary_crossentropy
