"""The peers' own tests of these functions, as their wheels ship them, pointed at xent.compat.

scikit-learn's: every test of ``sklearn.metrics.tests`` that calls one of the three scores or is parametrised over it,
with the scores replaced, and of the parameters those that concern them. torch's: the samples of its operator database,
on every dtype that it lists, beside torch's own answer, and its checks of both derivatives by finite differences; those
of its modules, contiguous and not, and the calls that it refuses. Keras': every test of a cross entropy among its
losses, metrics and operations, on each of its backends. optax': every test of a class that calls one of the functions.

A test that cannot apply is listed with its reason, and must fail still. TensorFlow's and JAX's wheels have no tests.
"""

import functools
import importlib
import inspect
import json
import os
import subprocess
import sys
import types
import unittest
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cupy
import pytest
import sklearn.metrics
import torch

from xent.compat import optax as compat_optax
from xent.compat import sklearn as scores
from xent.compat import torch as losses

# -------------------- scikit-learn

OURS = {name: getattr(scores, name) for name in ("log_loss", "brier_score_loss", "d2_log_loss_score")}
THEIRS = {getattr(sklearn.metrics, name): ours for name, ours in OURS.items()}
NAMES = {*OURS, "unnormalized_log_loss"}  # the last is test_common's own, of log_loss
CANNOT = {"cupy": "CuPy computes on a GPU only, and there is none here"}
"""Of their parameters those that cannot apply here, and the reason."""


def replaced(value: Any) -> Any:
    """The value with scikit-learn's scores in it replaced by ours."""
    if isinstance(value, functools.partial):
        return functools.partial(replaced(value.func), *value.args, **value.keywords)
    if isinstance(value, types.FunctionType):
        return THEIRS.get(value, value)
    return value


def concerns(parameters: Any) -> bool:
    """Whether a set of parameters names one of the scores, or holds it."""
    values = getattr(parameters, "values", parameters)
    for value in values if isinstance(values, tuple | list) else (values,):
        function = value.func if isinstance(value, functools.partial) else value
        if isinstance(function, types.FunctionType) and function in THEIRS:
            return True
        if isinstance(value, str) and value in NAMES:
            return True
    return False


def pointed_at_us(parameters: Any) -> Any:
    """The parameters with our scores; one that cannot apply here must fail."""
    if isinstance(parameters, tuple) and str(parameters[0]) in CANNOT and not cupy.cuda.is_available():
        return pytest.param(*parameters, marks=pytest.mark.xfail(reason=CANNOT[parameters[0]], strict=True))
    if hasattr(parameters, "values") and hasattr(parameters, "marks"):
        return pytest.param(*map(replaced, parameters.values), marks=parameters.marks, id=parameters.id)
    return tuple(map(replaced, parameters)) if isinstance(parameters, tuple) else replaced(parameters)


def ours_of(test: Callable[..., None], module: types.ModuleType) -> Callable[..., None] | None:
    """The test with our scores for its globals and parameters; None where it concerns none of them."""
    tables = {name: table for name, table in vars(module).items() if isinstance(table, dict) and "log_loss" in table}
    held = {**vars(module), **OURS}
    held |= {name: {key: replaced(metric) for key, metric in table.items()} for name, table in tables.items()}
    called = not OURS.keys().isdisjoint(test.__code__.co_names)
    marks = [pytest.mark.filterwarnings("default").mark]  # as scikit-learn runs them
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "parametrize":
            names, values, *rest = (mark.args[0], list(mark.args[1]), *mark.args[2:])
            chosen = [one for one in values if concerns(one)]
            called = called or bool(chosen)
            mark = pytest.mark.parametrize(names, [*map(pointed_at_us, chosen or values)], *rest, **mark.kwargs).mark
        marks.append(mark)
    if not called:
        return None
    copy = types.FunctionType(test.__code__, held, test.__name__, test.__defaults__, test.__closure__)
    copy.pytestmark = marks
    return copy


def collected() -> Iterator[tuple[str, Callable[..., None]]]:
    """Their tests, pointed at us, each with a name for this module."""
    for name in ("test_classification", "test_common"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(f"sklearn.metrics.tests.{name}")
        for key, test in vars(module).items():
            copy = ours_of(test, module) if key.startswith("test_") and inspect.isfunction(test) else None
            if copy is not None:
                yield f"{key}_of_{name}", copy


globals().update(collected())


def test_many_of_scikit_learn_s_tests_are_run() -> None:
    here = [
        name for name in vars(sys.modules[__name__]) if name.endswith(("_of_test_classification", "_of_test_common"))
    ]

    assert len(here) >= 30, here


# -------------------- torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.common_modules import module_db

FUNCTIONS = {"cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"}
OPERATORS = {one.name.removeprefix("nn.functional."): one for one in op_db}
OPERATORS = {name: one for name, one in OPERATORS.items() if name in FUNCTIONS}
SAMPLES = [
    pytest.param(name, dtype, id=f"{name}, {dtype}")
    for name, operator in sorted(OPERATORS.items())
    for dtype in sorted(operator.dtypes, key=str)
]


def samples(name: str, dtype: torch.dtype) -> list[Any]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [*OPERATORS[name].sample_inputs("cpu", dtype, requires_grad=True)]


def test_torch_has_samples_of_every_function() -> None:
    assert OPERATORS.keys() == FUNCTIONS
    assert all(operator.error_inputs_func is None for operator in OPERATORS.values())


def needing_gradients(sample: Any) -> list[torch.Tensor]:
    return [one for one in (sample.input, *sample.args) if isinstance(one, torch.Tensor) and one.requires_grad]


def answers(function: Callable[..., Any], sample: Any, dtype: torch.dtype) -> list[torch.Tensor]:
    """The value and every gradient of its sum, with floating tensors in the dtype."""

    def in_dtype(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        return value.detach().to(dtype).requires_grad_(value.requires_grad)

    cast = sample.transform(in_dtype)
    value = function(cast.input, *cast.args, **cast.kwargs)
    return [value, *torch.autograd.grad(value.sum(), needing_gradients(cast))]


@pytest.mark.parametrize(("name", "dtype"), SAMPLES)
def test_torch_s_samples_have_torch_s_answers(name: str, dtype: torch.dtype) -> None:
    """In half precision to what torch itself is off there, and 8 units of rounding of the largest number besides."""
    for sample in samples(name, dtype):
        theirs, ours = (answers(f, sample, dtype) for f in (OPERATORS[name].op, getattr(losses, name)))
        if dtype.itemsize > 2:
            torch.testing.assert_close(ours, theirs, equal_nan=True)
            continue
        for their, our, exact in zip(theirs, ours, answers(OPERATORS[name].op, sample, torch.float64), strict=True):
            assert our.dtype == their.dtype
            scale = torch.nan_to_num(exact).abs().amax().clamp(min=1.0)
            allowed = (their - exact).abs() + 8 * torch.finfo(dtype).eps * scale
            assert torch.all(((our - exact).abs() <= allowed) | (our.isnan() & their.isnan()))


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_torch_s_samples_have_the_derivatives_of_their_values(name: str) -> None:
    for sample in samples(name, torch.float64):

        def value(*arrays: torch.Tensor, sample: Any = sample) -> torch.Tensor:
            return getattr(losses, name)(*arrays, **sample.kwargs)

        arrays = (sample.input, *sample.args)
        assert torch.autograd.gradcheck(value, arrays)
        assert torch.autograd.gradgradcheck(value, arrays)


# -------------------- torch's modules

MODULES = {info.module_cls.__name__: info for info in module_db}
OUR_MODULES = ("BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "NLLLoss")
TAKEN = {"NLLLoss": "weights of another dtype are taken; what is left is that there are no classes, an IndexError"}
"""Of the modules whose calls torch refuses, those that are refused otherwise here, and the reason."""


def stepped(value: Any) -> Any:
    """A tensor of the same values that is not contiguous; any other value as it is."""
    if not isinstance(value, torch.Tensor) or value.ndim == 0:
        return value
    return torch.repeat_interleave(value.detach(), 2, dim=-1)[..., ::2].requires_grad_(value.requires_grad)


def module_answers(name: str, sample: Any, layout: Callable[[Any], Any]) -> list[torch.Tensor]:
    """The module's value and every gradient of its product with a cotangent of the layout."""
    constructor, forward = sample.constructor_input, sample.forward_input
    weights = {key: layout(value) for key, value in constructor.kwargs.items()}
    arrays = [layout(value) for value in forward.args]
    value = MODULES[name].module_cls(*map(layout, constructor.args), **weights)(*arrays, **forward.kwargs)
    needing = [array for array in arrays if isinstance(array, torch.Tensor) and array.requires_grad]
    cotangent = layout(torch.linspace(1, 2, value.numel(), dtype=value.dtype).reshape(value.shape))
    return [value, *(torch.autograd.grad(value, needing, cotangent) if needing else [])]


def point_modules_at_us(patch: pytest.MonkeyPatch) -> None:
    functions = {**vars(torch.nn.functional), **{key: getattr(losses, key) for key in losses.__all__}}
    patch.setattr(torch.nn.modules.loss, "F", types.SimpleNamespace(**functions))


def module_samples(name: str, dtype: torch.dtype, kind: str = "module_inputs_func") -> list[Any]:
    torch.manual_seed(0)
    make = getattr(MODULES[name], kind)
    return make(MODULES[name], device="cpu", dtype=dtype, requires_grad=True, training=True) if make else []


@pytest.mark.parametrize("layout", [lambda value: value, stepped], ids=["contiguous", "stepped"])
@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, dtype) for name in OUR_MODULES for dtype in MODULES[name].dtypes if dtype.itemsize > 2],
    ids=str,
)
def test_torch_s_modules_have_torch_s_answers(
    monkeypatch: pytest.MonkeyPatch, name: str, dtype: torch.dtype, layout: Callable[[Any], Any]
) -> None:
    samples = module_samples(name, dtype)
    theirs = [module_answers(name, sample, layout) for sample in samples]
    point_modules_at_us(monkeypatch)

    assert samples
    for sample, their in zip(samples, theirs, strict=True):
        torch.testing.assert_close(module_answers(name, sample, layout), their, equal_nan=True)


@pytest.mark.parametrize("name", OUR_MODULES)
def test_what_torch_s_modules_refuse_is_refused_with_their_type_of_error(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    point_modules_at_us(monkeypatch)
    for refused in module_samples(name, torch.float32, "module_error_inputs_func"):
        with pytest.raises(Exception) as caught:
            module_answers(name, refused.module_error_input, lambda value: value)

        assert isinstance(caught.value, refused.error_type) != (name in TAKEN), caught.value


# -------------------- Keras

SAVED = "keras.saving does not know the class"
SYMBOLIC = "Keras' symbolic tensors are none that xent.compat takes"
UNLIKE_KERAS = {
    **{f"losses_test.{name}Test.test_config": SAVED for name in (
        "BinaryCrossentropy", "BinaryFocalCrossentropy", "CategoricalCrossentropy", "CategoricalFocalCrossentropy",
        "CategoricalGeneralizedCrossEntropy", "SparseCategoricalCrossentropy",
    )},
    **{f"nn_test.NNOpsStaticShapeTest.test_{name}": SYMBOLIC for name in (
        "binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy",
    )},
    "probabilistic_metrics_test.SparseCategoricalCrossentropyTest.test_ignore_class_weighted": (
        "an array bears no mask for the metric"
    ),
}  # fmt: skip
"""The tests of Keras that cannot pass, and the reason: rows of "Not followed" in the module."""
SERVED = {
    f"losses_test.SparseCategoricalCrossentropyTest.test_{name}_segmentation_different_axis": (
        "the class axis elsewhere is served"
    )
    for name in ("binary", "multi_class")
}


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax", "tensorflow"])
def test_keras_own_tests_pass_but_for_what_is_not_followed(backend: str) -> None:
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    program = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("keras_suite.py"))]
    run = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    results = json.loads(run.stdout.splitlines()[-1])
    failed = {name: words for name, words in results.items() if words}

    assert len(results) >= 75
    assert failed.keys() == (UNLIKE_KERAS | (SERVED if backend in ("jax", "tensorflow") else {})).keys(), failed


# -------------------- optax


@pytest.mark.filterwarnings("default")
def test_optax_s_own_tests_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("optax.losses._classification_test")
    for name in compat_optax.__all__:
        monkeypatch.setattr(module._classification, name, getattr(compat_optax, name))
    suite = unittest.TestSuite(
        unittest.defaultTestLoader.loadTestsFromTestCase(case)
        for case in vars(module).values()
        if inspect.isclass(case)
        and issubclass(case, unittest.TestCase)
        and any(f"_classification.{name}" in inspect.getsource(case) for name in compat_optax.__all__)
    )
    result = unittest.TestResult()
    suite.run(result)

    assert result.testsRun >= 60
    assert result.wasSuccessful(), [*result.errors, *result.failures]
