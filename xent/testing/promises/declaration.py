"""The declaration of a kernel: it serves all that it declares, and nothing else; it can be pickled, and runs lazily."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ... import arrays
from ...contract.plan import resolve
from ...contract.problem import NO_WEIGHTS
from ...derivatives import value_and_grad
from ...dispatch import composition, eligibility, settings
from ...errors import NotServed
from ...rows import row_statistics
from ..calls import Answer, Call, from_block, to_block
from ..comparison import faults
from ..edge_cases import DTYPES, Case, named_dtype
from ..kernel_under_test import LOSSES, KernelUnderTest, Promise
from ..memory import array_library
from ..reports import Failure, NotRun, Outcome

HEAVY = ("cupy", "dask", "jax", "keras", "numba", "pandas", "scipy", "sklearn", "tensorflow", "torch", "triton")
"""Libraries that the import of a plugin's hooks must not load."""
PLAN_BYTES = 10_000
IMPORT = """
import json, pkgutil, sys
from xent.dispatch.registry import registry
registry.load()
before = set(sys.modules)
registry.add(pkgutil.resolve_name(sys.argv[1]), "under test")
print(json.dumps(sorted(set(sys.argv[2:]) & set(sys.modules) - before)))
"""
PARAMETERS = {
    "sparse": ("logits", "labels", "on", "off"),
    "dense": ("logits", "targets"),
    "gradient": ("partial", "scale"),
    "loss_and_gradient": ("scale",),
}
"""The parameters of every method of an op, and those that a method has besides."""
OWN_PARAMETERS = {"statistics": ("logits", "labels", "label_logit"), "probability_sums": ("p", "labels")}
"""The parameters of the methods that have others than their op's."""


def declaration(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """``load`` names an object with every declared method; ``check`` and ``guard`` answer, whatever they are asked."""
    spec, where = kernel.spec, f"kernel {kernel.spec.name!r}"
    try:
        implementation = resolve(spec.load)
    except (Exception, SystemExit) as error:  # the import of a module may raise anything
        yield Failure(where, f"load={spec.load!r} cannot be had: {type(error).__name__}: {error}")
        return
    methods = spec.methods - {"ffi_target", "whole_call"}
    if kernel.is_ffi:  # its other methods are targets
        methods = frozenset()
        yield signature_outcome(implementation, "ffi_target", ["method", "dtype"], [])
    if "whole_call" in spec.methods:
        yield signature_outcome(implementation, "whole_call", ["problem"], [])
    for method in sorted(methods):
        parameters = [*OWN_PARAMETERS.get(method, PARAMETERS[spec.op]), *PARAMETERS.get(method, ())]
        keywords = ["threads", *(["out"] if method in ("loss", "gradient", "loss_and_gradient") else [])]
        yield signature_outcome(implementation, method, parameters, keywords)
    if spec.guard is not None:
        yield guard_outcome(spec.guard)
    if spec.check is not None:
        for dtype in DTYPES:
            yield check_outcome(kernel, spec.check, dtype)


def signature_outcome(implementation: Any, method: str, parameters: list[str], keywords: list[str]) -> Outcome:
    """A failure if the method does not exist or does not take the arguments that the core passes."""
    function = getattr(implementation, method, None)
    form = f"{method}({', '.join([*parameters, *(['*', *keywords] if keywords else [])])})"
    if not callable(function):
        return Failure(form, "is declared, and the object that `load` names has no such method")
    try:
        inspect.signature(function).bind(*parameters, **dict.fromkeys(keywords))
    except TypeError as error:
        return Failure(form, f"cannot be called so: {error}")
    except ValueError:  # a function without a signature
        return None
    return None


def guard_outcome(guard: Callable[..., Any]) -> Outcome:
    """A failure if the guard does not return a bool or does not pickle."""
    try:
        answer = guard((6, 7), (28, 4))
        pickle.dumps(guard)
    except Exception as error:  # a plugin's guard may raise anything
        return Failure("guard((6, 7), (28, 4))", f"{type(error).__name__}: {error}. Write a function of a module.")
    return None if isinstance(answer, (bool, np.bool_)) else Failure("guard", f"must return a bool, got {answer!r}")


def check_outcome(kernel: KernelUnderTest, check: Callable[..., Any], dtype: str) -> Outcome:
    """A failure if the check of a call in this dtype returns neither True nor a reason."""
    where, problem = f"check of a call in {dtype}", kernel.problem(dtype=dtype)
    try:
        answer = check(problem)
    except Exception as error:  # a plugin's check may raise anything
        return Failure(where, f"{type(error).__name__}: {error}")
    if answer is True or isinstance(answer, str):
        return None
    return Failure(where, f"gave {answer!r}: neither True nor a reason")


def public_functions(kernel: KernelUnderTest) -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """The public functions that the kernel serves: the name of each, the method it calls, the function."""
    loss = LOSSES[kernel.op]
    yield loss.__name__, "loss", loss
    if {"gradient", "loss_and_gradient"} & {*kernel.methods}:
        yield f"value_and_grad({loss.__name__})", "loss_and_gradient", value_and_grad(loss)
    if "statistics" in kernel.spec.methods:
        yield "row_statistics", "statistics", row_statistics


def selected(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """Every declared combination of library, dtype, layout and method is served, by this kernel, and right."""
    for name, method, function in public_functions(kernel):
        for outer, place in ((0, "last"), (2, "in the middle")):
            where = f"{name} of {kernel.dtype} on {kernel.library.name}, class axis {place}"
            yield selection_outcome(kernel, function, method, outer, where)


def selection_outcome(
    kernel: KernelUnderTest, function: Callable[..., Any], method: str, outer: int, where: str
) -> Outcome:
    """A failure if a call of a public function is not served by this kernel, or its result is wrong."""
    case, spec = kernel.example, kernel.spec
    logits, targets = case.logits, case.target_arguments(kernel.op)[0]
    if outer:
        logits = to_block(logits, outer)
        targets = targets.reshape(outer, -1) if kernel.op == "sparse" else to_block(targets, outer)
    try:
        with settings.using(kernel=spec.name, trace=True) as decisions:
            result = function(
                *(kernel.library.asarray(np.array(array)) for array in (logits, targets)), axis=1 if outer else -1
            )
    except NotServed as error:
        if outer and ("middle" not in spec.layouts or spec.guard is not None):
            return None  # what is not declared may be declined, and a guard sees the shape of the call
        return Failure(where, f"is declared, and declined: {error}")
    except Exception as error:  # a kernel may raise anything
        return Failure(where, f"{type(error).__name__}: {error}")
    if [decision.kernel for decision in decisions] != [spec.name]:
        return Failure(where, f"was computed by {decisions[0].kernel if decisions else 'nobody'}")
    values = kernel.library.copies(result)
    gradient = from_block(values[1], outer) if method == "loss_and_gradient" else None
    answer = Answer(loss=values[0].reshape(-1), gradient=gradient)
    fault = next(faults(Call(method, case), answer, kernel.op, kernel.library.flushes), None)
    return None if fault is None else Failure(where, fault.what, fault.excess)


def declined(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """What is not declared is declined, with a reason."""
    spec = kernel.spec
    if spec.name == eligibility.GENERIC:
        raise NotRun("it is the one that serves what no other does")
    for dtype in DTYPES:
        if not {dtype, "*"} & spec.dtypes:
            with contextlib.suppress(ImportError):  # of ml_dtypes
                if kernel.library.keeps(named_dtype(dtype)):
                    yield refusal_outcome(kernel, f"a call in {dtype}", dtype=dtype)
    for method, needs in (("statistics", {"statistics"}), ("loss_and_gradient", {"gradient", "loss_and_gradient"})):
        if not needs & {*kernel.methods}:
            yield refusal_outcome(kernel, f"a call for {method}", method=method)
    if not {"array_api_strict", "*"} & spec.arrays and arrays.is_importable("array_api_strict"):
        other = array_library("array_api_strict")
        yield refusal_outcome(kernel, "an array of array_api_strict", library=other, dtype="float32")
    yield refusal_outcome(kernel, "probabilities, which have no fold", kind="probabilities")


def refusal_outcome(kernel: KernelUnderTest, where: str, **facts: Any) -> Outcome:
    """A failure if dispatch would choose the kernel for such a call, or gives no reason against it."""
    reasons = kernel.reasons_against(kernel.problem(**facts))
    return None if reasons and all(reasons) else Failure(where, "is not declared, and not declined")


def ignored_rows(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """An ignored row is exactly 0 in loss and gradient of the public functions, though it holds NaN."""
    base = kernel.example
    x = np.array(base.logits)
    x[2] = np.nan
    case = Case("one row of NaN that is ignored", x, base.labels, base.targets)
    weight = np.where(np.arange(len(x)) == 2, 0.0, 1.0).astype("float32")
    logits, targets = kernel.public_arguments(case)
    for name, method, function in public_functions(kernel):
        if method == "statistics":
            continue
        with settings.using(kernel=kernel.spec.name):
            try:
                result = function(logits, targets, sample_weight=kernel.library.asarray(weight))
            except NotServed as error:
                raise NotRun(str(error).replace("\n", " ")) from None
        values = kernel.library.copies(result)
        is_clean = all(np.all(value[2] == 0) and not np.isnan(value.astype(np.float64)).any() for value in values)
        where = f"{name} with weight 0 in row 2, of NaN"
        yield None if is_clean else Failure(where, f"row 2 is {[value[2] for value in values]}")


def import_light(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """Importing the hooks and asking for the specs loads no heavy library."""
    if not kernel.hooks:
        raise NotRun("no entry point brings it; pass hooks= with the name of the module of its hooks")
    path = os.pathsep.join(folder for folder in sys.path if folder)
    environment = {**os.environ, "PYTHONPATH": path, "XENT_PLUGINS": "none", "XENT_PLUGIN_ERRORS": "raise"}
    command = [sys.executable, "-c", IMPORT, kernel.hooks, *HEAVY]
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    if process.returncode:
        yield Failure(f"import {kernel.hooks}", process.stderr.strip().rpartition("\n")[2])
        return
    loaded = json.loads(process.stdout)
    yield Failure(f"import {kernel.hooks}", f"loads {', '.join(loaded)}") if loaded else None


def plan_pickles(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """The plan of a call pickles small, and what comes out of the pickle gives the same bits."""
    with settings.using(kernel=kernel.spec.name):
        plan = composition.compose(kernel.problem(), settings.current().settings)
    try:
        data = pickle.dumps(plan)
    except Exception as error:  # a guard or a check may hold anything
        yield Failure("the plan of a call", f"does not pickle: {error}")
        return
    if len(data) > PLAN_BYTES:
        yield Failure("the plan of a call", f"has {len(data)} bytes as a pickle, {PLAN_BYTES} allowed")
    arguments = kernel.public_arguments(kernel.example)
    loss, unpickled = (kernel.library.copies(run(*arguments, NO_WEIGHTS))[0] for run in (plan, pickle.loads(data)))
    same = loss.tobytes() == unpickled.tobytes()
    yield None if same else Failure("a plan from a pickle", "gives other bits")


def lazy_on_dask(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """On Dask nothing is computed before it is asked for, and then each row is the same bits as without."""
    if kernel.library.name not in ("numpy", "cupy"):
        raise NotRun(f"Dask has no chunks of {kernel.library.name}")
    try:
        dask, da = importlib.import_module("dask"), importlib.import_module("dask.array")
    except ImportError as error:
        raise NotRun(f"Dask cannot be imported: {error}") from None
    rows, classes = kernel.example.logits.shape
    case, step, chunk_rows = kernel.ordinary_case(3 * rows, classes), 3 * rows, rows - 1
    if kernel.spec.guard is not None:  # it accepts blocks of this shape, and maybe no others
        step = chunk_rows = rows
    parts = [kernel.public_arguments(case.rows(first, first + step)) for first in range(0, 3 * rows, step)]
    chunked = [
        da.from_array(array, chunks=(chunk_rows, classes)[: array.ndim]) for array in kernel.public_arguments(case)
    ]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was computed while the graph was built")

    for name, method, function in public_functions(kernel):
        if method == "statistics":
            continue
        with settings.using(kernel=kernel.spec.name):
            results = [kernel.library.copies(function(*part)) for part in parts]
            try:
                with dask.config.set(scheduler=refuse):
                    lazy = function(*chunked)
            except AssertionError as error:
                yield Failure(f"{name} on Dask", str(error))
                continue
            with dask.config.set(scheduler="threads"):
                computed = kernel.library.copies(dask.compute(lazy)[0])
        eager = [np.concatenate(values) for values in zip(*results, strict=True)]
        same = all(a.tobytes() == b.tobytes() for a, b in zip(eager, computed, strict=True))
        yield None if same or not kernel.spec.deterministic else Failure(f"{name} on Dask", "other bits than without")


DECLARATION: tuple[Promise, ...] = (
    declaration,
    selected,
    declined,
    ignored_rows,
    import_light,
    plan_pickles,
    lazy_on_dask,
)
