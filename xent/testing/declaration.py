"""What a kernel declares, held against what is so: it serves all of that, and nothing else; it travels, and waits."""

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

from .. import arrays
from ..contract.plan import resolve
from ..contract.problem import NO_WEIGHTS
from ..derivatives import value_and_grad
from ..dispatch import composition, eligibility, settings
from ..errors import NotServed
from ..rows import row_statistics
from .calls import Answer, Call, to_block
from .edges import Case, named_dtype
from .memory import array_library
from .promises import Promise
from .subject import LOSSES, Failure, NotRun, Outcome, Subject
from .verdicts import faults

Array = np.ndarray[Any, Any]
DTYPES = ("float16", "bfloat16", "float32", "float64")
HEAVY = ("cupy", "dask", "jax", "keras", "numba", "pandas", "scipy", "sklearn", "tensorflow", "torch", "triton")
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


def declaration(subject: Subject) -> Iterator[Outcome]:
    """``load`` names an object with every declared method; ``check`` and ``guard`` answer, whatever they are asked."""
    spec, where = subject.spec, f"kernel {subject.spec.name!r}"
    try:
        kernel = resolve(spec.load)
    except (Exception, SystemExit) as error:  # the import of a module may raise anything
        yield Failure(where, f"load={spec.load!r} cannot be had: {type(error).__name__}: {error}")
        return
    for method in sorted(spec.methods):
        told = PARAMETERS[spec.op] if method != "statistics" else ("logits", "labels", "label_logit")
        arguments = [*told, *PARAMETERS.get(method, ())]
        keywords = ["threads", *(["out"] if method in ("loss", "gradient", "loss_and_gradient") else [])]
        yield takes(kernel, method, arguments, keywords)
    if spec.guard is not None:
        yield guarded(subject)
    if spec.check is not None:
        for dtype in DTYPES:
            yield answers_check(subject, dtype)


def takes(kernel: Any, method: str, arguments: list[str], keywords: list[str]) -> Outcome:
    """Whether a method is there and takes what it is called with."""
    found = getattr(kernel, method, None)
    form = f"{method}({', '.join(arguments)}, *, {', '.join(keywords)})"
    if not callable(found):
        return Failure(form, "is declared, and the object that `load` names has no such method")
    try:
        inspect.signature(found).bind(*arguments, **dict.fromkeys(keywords))
    except TypeError as error:
        return Failure(form, f"cannot be called so: {error}")
    except ValueError:  # a function that does not tell its signature
        return None
    return None


def guarded(subject: Subject) -> Outcome:
    """Whether the guard answers with a truth and pickles."""
    guard = subject.spec.guard
    assert guard is not None
    try:
        answer = guard((6, 7), (28, 4))
        pickle.dumps(guard)
    except Exception as error:  # a plugin's guard may raise anything
        return Failure("guard((6, 7), (28, 4))", f"{type(error).__name__}: {error}. Write a function of a module.")
    return None if isinstance(answer, (bool, np.bool_)) else Failure("guard", f"must return a bool, got {answer!r}")


def answers_check(subject: Subject, dtype: str) -> Outcome:
    """Whether the check answers True or a reason about a call in this dtype."""
    spec, where = subject.spec, f"check of a call in {dtype}"
    assert spec.check is not None
    problem = subject.problem(dtype=dtype)
    try:
        answer = spec.check(problem)
    except Exception as error:  # a plugin's check may raise anything
        return Failure(where, f"{type(error).__name__}: {error}")
    told = answer is True or isinstance(answer, str)
    return None if told else Failure(where, f"gave {answer!r}: neither True nor a reason")


def public_calls(subject: Subject) -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """The public functions that the kernel is for: what to call them, the method each asks for, the function."""
    loss = LOSSES[subject.op]
    yield loss.__name__, "loss", loss
    if subject.spec.methods & {"gradient", "loss_and_gradient"}:
        yield f"value_and_grad({loss.__name__})", "loss_and_gradient", value_and_grad(loss)
    if "statistics" in subject.spec.methods:
        yield "row_statistics", "statistics", row_statistics


def selected(subject: Subject) -> Iterator[Outcome]:
    """Every declared combination of library, dtype, layout and method is served, by this kernel, and right."""
    case = subject.example
    for name, method, function in public_calls(subject):
        for outer, place in ((0, "last"), (2, "in the middle")):
            where = f"{name} of {subject.dtype} on {subject.library.name}, class axis {place}"
            yield served(subject, case, function, method, outer, where)


def served(subject: Subject, case: Case, function: Callable[..., Any], method: str, outer: int, where: str) -> Outcome:
    """Whether one public call is served by this kernel, and right."""
    batch = (outer, -1) if outer else (-1,)
    shaped = (
        one.reshape(batch) if one.ndim == 1 else to_block(one, outer) for one in (case.logits, case.told(subject.op)[0])
    )
    logits, target = (subject.library.asarray(np.array(one)) for one in shaped)
    try:
        with settings.using(kernel=subject.spec.name, trace=True) as decisions:
            found = function(logits, target, axis=1 if outer else -1)
    except NotServed as error:
        if outer and ("middle" not in subject.spec.layouts or subject.spec.guard is not None):
            return None  # what is not declared may be declined, and a guard sees the shape of the call
        return Failure(where, f"is declared, and declined: {error}")
    except Exception as error:  # a kernel may raise anything
        return Failure(where, f"{type(error).__name__}: {error}")
    if [one.kernel for one in decisions] != [subject.spec.name]:
        return Failure(where, f"was computed by {decisions[0].kernel if decisions else 'nobody'}")
    parts = plain(subject, found)
    gradient = None
    if method == "loss_and_gradient":
        gradient = np.swapaxes(parts[1], 1, 2).reshape(case.logits.shape) if outer else parts[1]
    wrong = list(
        faults(
            Call(method, case),
            Answer(loss=parts[0].reshape(-1), gradient=gradient),
            subject.op,
            subject.library.flushes,
        )
    )
    return Failure(where, wrong[0].what, wrong[0].excess) if wrong else None


def plain(subject: Subject, found: Any) -> list[Array]:
    """What a public function returned, as NumPy's arrays."""
    return [np.array(subject.library.to_numpy(one)) for one in (found if isinstance(found, tuple) else (found,))]


def declined(subject: Subject) -> Iterator[Outcome]:
    """What is not declared is declined, with a reason."""
    spec = subject.spec
    if spec.name == eligibility.GENERIC:
        raise NotRun("it is the one that serves what no other does")
    for dtype in DTYPES:
        if not {dtype, "*"} & spec.dtypes:
            with contextlib.suppress(ImportError):  # of ml_dtypes
                if subject.library.keeps(named_dtype(dtype)):
                    yield refused(subject, f"a call in {dtype}", dtype=dtype)
    for method, needs in (("statistics", {"statistics"}), ("loss_and_gradient", {"gradient", "loss_and_gradient"})):
        if not spec.methods & needs:
            yield refused(subject, f"a call for {method}", method=method)
    if not {"array_api_strict", "*"} & spec.arrays and arrays.is_importable("array_api_strict"):
        other = array_library("array_api_strict")
        yield refused(subject, "an array of array_api_strict", library=other, dtype="float32")
    yield refused(subject, "probabilities, which have no fold", kind="probabilities")


def refused(subject: Subject, where: str, **facts: Any) -> Outcome:
    """Whether such a call is declined."""
    reasons = subject.reasons(subject.problem(**facts))
    return None if reasons and all(reasons) else Failure(where, "is not declared, and not declined")


def ignored_rows(subject: Subject) -> Iterator[Outcome]:
    """An ignored row is exactly 0 in loss and gradient of the public functions, though it holds NaN."""
    base = subject.example
    x = np.array(base.logits)
    x[2] = np.nan
    case = Case("one row of NaN that is ignored", x, base.labels, base.targets)
    weight = np.where(np.arange(len(x)) == 2, 0.0, 1.0).astype("float32")
    logits, target = subject.arguments(case)
    for name, method, function in public_calls(subject):
        if method == "statistics":
            continue
        with settings.using(kernel=subject.spec.name):
            try:
                found = function(logits, target, sample_weight=subject.library.asarray(weight))
            except NotServed as error:
                raise NotRun(str(error).replace("\n", " ")) from None
        parts = plain(subject, found)
        clean = all(np.all(part[2] == 0) and not np.isnan(part.astype(np.float64)).any() for part in parts)
        yield (
            None
            if clean
            else Failure(f"{name} with weight 0 in row 2, of NaN", f"row 2 is {[part[2] for part in parts]}")
        )


def import_light(subject: Subject) -> Iterator[Outcome]:
    """Importing the hooks and asking for the specs loads no heavy library."""
    if not subject.hooks:
        raise NotRun("no entry point brings it; pass hooks= with the name of the module of its hooks")
    path = os.pathsep.join(one for one in sys.path if one)
    environment = {**os.environ, "PYTHONPATH": path, "XENT_PLUGINS": "none", "XENT_PLUGIN_ERRORS": "raise"}
    command = [sys.executable, "-c", IMPORT, subject.hooks, *HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        yield Failure(f"import {subject.hooks}", done.stderr.strip().rpartition("\n")[2])
        return
    loaded = json.loads(done.stdout)
    yield Failure(f"import {subject.hooks}", f"loads {', '.join(loaded)}") if loaded else None


def plan_pickles(subject: Subject) -> Iterator[Outcome]:
    """The plan of a call pickles small, and what comes out of the pickle gives the same bits."""
    case, name = subject.example, subject.spec.name
    with settings.using(kernel=name):
        plan = composition.compose(subject.problem(), settings.current().settings)
    try:
        data = pickle.dumps(plan)
    except Exception as error:  # whatever a guard or a check drags along
        yield Failure("the plan of a call", f"does not pickle: {error}")
        return
    if len(data) > PLAN_BYTES:
        yield Failure("the plan of a call", f"has {len(data)} bytes as a pickle, {PLAN_BYTES} allowed")
    here, there = (plain(subject, one(*subject.arguments(case), NO_WEIGHTS))[0] for one in (plan, pickle.loads(data)))
    yield None if here.tobytes() == there.tobytes() else Failure("a plan from a pickle", "gives other bits")


def lazy_on_dask(subject: Subject) -> Iterator[Outcome]:
    """On Dask nothing is computed before it is asked for, and then each row is the same bits as without."""
    if subject.library.name not in ("numpy", "cupy"):
        raise NotRun(f"Dask has no chunks of {subject.library.name}")
    try:
        dask, da = importlib.import_module("dask"), importlib.import_module("dask.array")
    except ImportError as error:
        raise NotRun(f"Dask cannot be imported: {error}") from None
    rows, classes = subject.example.logits.shape
    case, step = subject.ordinary(3 * rows, classes), 3 * rows
    chunks = (rows, classes) if subject.spec.guard is not None else (rows - 1, classes)
    if subject.spec.guard is not None:  # which lets blocks of this shape pass, and others perhaps not
        step = rows
    parts = [subject.arguments(case.rows(first, first + step)) for first in range(0, 3 * rows, step)]
    chunked = [da.from_array(one, chunks=chunks[: one.ndim]) for one in subject.arguments(case)]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was computed while the graph was built")

    for name, method, function in public_calls(subject):
        if method == "statistics":
            continue
        with settings.using(kernel=subject.spec.name):
            eager = [
                np.concatenate(one) for one in zip(*(plain(subject, function(*part)) for part in parts), strict=True)
            ]
            try:
                with dask.config.set(scheduler=refuse):
                    lazy = function(*chunked)
            except AssertionError as error:
                yield Failure(f"{name} on Dask", str(error))
                continue
            with dask.config.set(scheduler="threads"):
                computed = dask.compute(lazy)[0]
        pairs = zip(eager, plain(subject, computed), strict=True)
        same = all(a.tobytes() == b.tobytes() for a, b in pairs)
        yield None if same or not subject.spec.deterministic else Failure(f"{name} on Dask", "other bits than without")


DECLARATION: tuple[Promise, ...] = (
    declaration,
    selected,
    declined,
    ignored_rows,
    import_light,
    plan_pickles,
    lazy_on_dask,
)
