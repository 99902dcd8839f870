"""The peers' own tests of these functions, as their wheels ship them, pointed at xent.compat.

scikit-learn's: every test of ``sklearn.metrics.tests`` that calls one of the three scores or is parametrised over it,
with the scores replaced, and of the parameters those that concern them. torch's: the samples of its operator database,
on every dtype that it lists, beside torch's own answer, and its checks of both derivatives by finite differences.

A test that cannot apply is listed with its reason, and must fail still.
"""

import functools
import importlib
import inspect
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import cupy
import pytest
import sklearn.metrics
import torch

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
