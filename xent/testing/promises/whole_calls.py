"""Whole calls: what a kernel computes of a small call in one step has the bits of the same call in many steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import array_api_compat.numpy as xp
import numpy as np

from ...contract.problem import Options, Problem, Route, Weights, weights_of
from ...dispatch import composition, settings
from ...dispatch.calls import problem_of
from ...errors import LabelError
from ...numerics.reduction import Mean, Reducer
from ...numerics.targets import NO_ROWS
from ..calls import Array, Call, one_nan
from ..edge_cases import odd_neighbours
from ..kernel_under_test import KernelUnderTest, Promise
from ..reports import Failure, NotRun, Outcome

SHAPES = ((8, 100), (1, 64), (7, 3), (33, 65), (0, 5), (13, 1), (2, 700))
REDUCTIONS = ("none", "mean", "sum", Mean("counted", empty=0.5), Mean("all"), Mean(7.3, empty=2.0))
IGNORED = (None, (-100,), (1, -100, 2**40))
SMOOTHINGS = (0.0, 0.1, 1.0)
LABELS = ("int64", "int32")
LOSS = Route("sparse_cross_entropy", "sparse", "loss")


class Arguments(NamedTuple):
    """The arrays of a whole call besides its results, None for none, in the order in which they are passed."""

    logits: Array
    labels: Array
    sample_weight: Array | None = None
    class_weight: Array | None = None
    cotangent: Array | None = None


@dataclass
class WholeCall:
    """A kind of call that a kernel serves whole, on one set of arrays."""

    function: Callable[..., int]
    problem: Problem
    arguments: Arguments

    def __str__(self) -> str:
        x, labels, sample, classes, cotangent = self.arguments
        options = self.problem.options._asdict().items()
        notes = [f"{name}={value!r}" for name, value in options if value != getattr(Options(), name)]
        given = {"sample_weight": sample, "class_weight": classes, "cotangent": cotangent}
        notes += [f"{name} of {value.dtype.name}" for name, value in given.items() if value is not None]
        what = f"whole_call: {self.problem.method} of {x.dtype.name}{list(x.shape)}, labels of {labels.dtype.name}"
        return ", ".join([what, *notes])

    def answer(self, by_address: bool) -> tuple[Array, ...] | None:
        """The losses, or their reduction, and the gradient if there is one; None where the call is declined."""
        x, labels, *rest = self.arguments
        wide = np.float64 if x.dtype == np.float64 else np.float32
        results: list[Array] = [np.full(labels.shape if self.problem.options.reduction == "none" else (), np.nan, wide)]
        if self.problem.method == "loss_and_gradient":
            results.append(np.full(x.shape, np.nan).astype(x.dtype))

        def memory(array: Array | None) -> Any:
            return array.ctypes.data if by_address and array is not None else array

        outputs = [memory(array) for array in (*results, None)[:2]]
        status = self.function(memory(x), memory(labels), *x.shape, *map(memory, rest), *outputs)
        return None if status else tuple(results)


def whole_calls(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """`whole_call` has the bits of the same call in many steps, by array and by address, and declines a bad label."""
    if "whole_call" not in kernel.spec.methods:
        raise NotRun("it declares no whole_call")
    if not kernel.spec.deterministic:
        raise NotRun("it is declared deterministic=False")
    methods = ("loss", "loss_and_gradient") if {"gradient", "loss_and_gradient"} & kernel.spec.methods else ("loss",)
    shapes, smoothings, labels = itertools.cycle(SHAPES), itertools.cycle(SMOOTHINGS), itertools.cycle(LABELS)
    for method, reduction, ignored, weighting in itertools.product(methods, REDUCTIONS, IGNORED, WEIGHTINGS):
        options = Options(reduction=reduction, ignore_index=ignored, label_smoothing=next(smoothings))
        call, weights = call_of(kernel, method, options, weighting, next(labels), *next(shapes))
        if call is not None:
            yield from outcomes_of(call, expected(kernel, call, weights))
    yield from of_sums(kernel)
    for reduction in ("none", "mean") if "loss_and_gradient" in methods else ():
        yield from of_cotangents(kernel, Options(reduction=reduction))


def call_of(
    kernel: KernelUnderTest, method: str, options: Options, weighting: str, labels_dtype: str, rows: int, classes: int
) -> tuple[WholeCall | None, Weights]:
    """A call, or None if the kernel does not serve its kind; and its weights. Rows are of all kinds if not reduced."""
    rng, by_row = np.random.default_rng([rows, classes]), options.reduction == "none"
    case = odd_neighbours(kernel.dtype, rows, classes) if by_row else kernel.ordinary_case(rows, classes)
    x, labels = np.array(case.logits), rng.integers(0, classes, rows).astype(labels_dtype)
    sample, class_weight = WEIGHTINGS[weighting](rng, rows, classes)
    labels[2:3] = -100  # one row is ignored, by its label or by its weight, or bad
    if sample is not None and options.ignore_index is None:
        sample[2:3] = 0
    wide = np.float64 if kernel.dtype == "float64" else np.float32
    weights = weights_of(sample, None if class_weight is None else class_weight.astype(wide))
    problem = problem_of(settings.current(), replace(LOSS, method=method), x, labels, options, weights)
    function = kernel.bench.kernel.whole_call(problem)
    call = WholeCall(function, problem, Arguments(x, labels, weights.sample, weights.classes))
    return (None if function is None else call), weights


def sample_weights(rng: np.random.Generator, rows: int, dtype: str) -> Array:
    """Sample weights of which one is 0 and, in float64, one is 0 in float32 only."""
    weights = rng.random(rows)
    weights[3:4] = 0
    weights[4:5] = 1e-60
    return weights > 0.5 if dtype == "bool" else weights.astype(dtype)


def class_weights(rng: np.random.Generator, classes: int) -> Array:
    """Class weights of which a third is 0."""
    return np.where(np.arange(classes) % 3 == 1, 0.0, rng.random(classes))


WEIGHTINGS: dict[str, Callable[[np.random.Generator, int, int], tuple[Array | None, Array | None]]] = {
    "none": lambda rng, rows, classes: (None, None),
    "float32": lambda rng, rows, classes: (sample_weights(rng, rows, "float32"), None),
    "float64": lambda rng, rows, classes: (sample_weights(rng, rows, "float64"), None),
    "bool": lambda rng, rows, classes: (sample_weights(rng, rows, "bool"), None),
    "zeros": lambda rng, rows, classes: (np.zeros(rows), None),
    "classes": lambda rng, rows, classes: (None, class_weights(rng, classes)),
    "both": lambda rng, rows, classes: (sample_weights(rng, rows, "float32"), class_weights(rng, classes)),
}
"""By name: (sample weights, class weights) of random numbers, a number of rows and one of classes."""


def expected(kernel: KernelUnderTest, call: WholeCall, weights: Weights) -> tuple[Array, ...] | None:
    """The answer in many steps; None if a label is bad."""
    with settings.using(kernel=kernel.spec.name):
        plan = composition.compose(call.problem, settings.current().settings)
    try:
        result = replace(plan, methods=plan.methods - {"whole_call"})(*call.arguments[:2], weights)
    except LabelError:
        return None
    return result if isinstance(result, tuple) else (result,)


def outcomes_of(call: WholeCall, right: tuple[Array, ...] | None) -> Iterator[Outcome]:
    """The outcome of a call by array, and that by address, beside the answer in many steps."""
    before = [None if array is None else array.tobytes() for array in call.arguments]
    for by_address in (False, True):
        answer, where = call.answer(by_address), f"{call}{', by address' * by_address}"
        if by_address and answer is None:
            continue
        if right is None or answer is None:
            kept = (right is None) == (answer is None)
            yield None if kept else Failure(where, "a bad label is served" if right is None else "is declined")
            continue
        same = all(one_nan(a).tobytes() == one_nan(b).tobytes() for a, b in zip(answer, right, strict=True))
        yield None if same else Failure(where, f"gives {answer[0]!r}, and in many steps {right[0]!r}")
    after = [None if array is None else array.tobytes() for array in call.arguments]
    yield None if before == after else Failure(str(call), "an input was written to")


def of_sums(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """The outcomes of sums of equal losses whose weights cancel, so that it shows in which order they are taken."""
    for rows in (*range(2, 18), 33, 100):
        case, rng = kernel.ordinary_case(rows, 5), np.random.default_rng(rows)
        x, labels = np.repeat(case.logits[:1], rows, axis=0), np.zeros(rows, np.int64)
        cancelling = np.resize([2.0**60, -(2.0**60), 1.0, 3.0], rows // 4 * 4)
        sample = rng.permutation(np.append(cancelling, np.ones(rows % 4)))
        weights = weights_of(sample)
        problem = problem_of(settings.current(), LOSS, x, labels, Options(reduction="sum"), weights)
        function = kernel.bench.kernel.whole_call(problem)
        if function is not None:
            call = WholeCall(function, problem, Arguments(x, labels, sample))
            yield from outcomes_of(call, expected(kernel, call, weights))


def of_cotangents(kernel: KernelUnderTest, options: Options) -> Iterator[Outcome]:
    """The outcomes of a gradient times cotangents: that of scales which are multiplied before."""
    case = odd_neighbours(kernel.dtype, 9, 65)
    case = replace(case, labels=np.arange(9))
    call, _ = call_of(kernel, "loss_and_gradient", options, "none", "int64", 9, 65)
    if call is None:
        return
    wide = np.float64 if kernel.dtype == "float64" else np.float32
    cotangent = np.linspace(0.3, 1.9, 9 if options.reduction == "none" else 1).astype(wide)
    scale = Reducer(options.reduction).scale(xp, NO_ROWS, np.ones(9, wide)) * cotangent
    method = "loss_and_gradient" if "loss_and_gradient" in kernel.methods else "gradient"
    right = kernel.answer(Call(method, case, scale=scale))
    if isinstance(right, Failure):
        yield right
        return
    call.arguments = Arguments(np.array(case.logits), case.labels, cotangent=cotangent)
    for by_address in (False, True):
        answer = call.answer(by_address)
        if by_address and answer is None:
            continue
        same = answer is not None and one_nan(answer[1]).tobytes() == one_nan(right.fields()[-1]).tobytes()
        yield None if same else Failure(str(call), "the gradient has other bits than by scales times the cotangent")


WHOLE_CALLS: tuple[Promise, ...] = (whole_calls,)
