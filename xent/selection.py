"""The plan of a call: its key, the cache, and how schedules nest.

The key is made of types, dtypes, devices, rank and options; no array is read. A miss is dear (tens of microseconds) and
happens once per kind of call; a hit is a look-up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from numpy import ndarray

from . import arrays, checks, eligibility, settings
from .arrays import Array
from .backends import torch
from .contract.plan import Decision, Plan, Verdict, resolve
from .contract.problem import NO_WEIGHTS, Options, Problem, Route, Weights, weights_of
from .contract.specs import BackendSpec, KernelSpec
from .errors import LabelError
from .registry import registry
from .settings import scope, scopes

PLANS_AT_MOST = 1024
PLAIN = (Options(axis=-1), Options(axis=1))
lock = threading.RLock()
homes: dict[type, Callable[[Array], Any]] = {}
"""For the array types whose device or state is part of a plan's key: what tells one from another."""


def torch_home(tensor: Array) -> Any:
    return tensor.device, tensor.requires_grad


def jax_home(array: Array) -> Any:
    return array.sharding


def cupy_home(array: Array) -> Any:
    return array.device.id  # subtle: cupy.cuda.Device is not hashable


def dask_home(array: Array) -> Any:
    home = HOMES.get(arrays.library(array._meta))  # what its chunks are, and where
    return type(array._meta), home and home(array._meta)


def device_home(array: Array) -> Any:
    return str(array.device)  # of a library that xent has never heard of


HOMES = {"torch": torch_home, "jax": jax_home, "cupy": cupy_home, "dask": dask_home}


def identity(array: Any) -> tuple[Any, ...]:
    """What a plan depends on in one array: its type, its dtype and where it is."""
    kind = type(array)
    home = homes.get(kind)
    return (kind, array.dtype) if home is None else (kind, array.dtype, home(array))


def key_of(route: Route, predictions: Any, targets: Any, options: Any, weights: Weights) -> Any:
    """The key of a call's plan; plain numbers among the weights count by their type alone."""
    given = (predictions, targets, *(() if weights is NO_WEIGHTS else weights))
    key: tuple[Any, ...] = (route, options, predictions.ndim)
    for array in given:
        key += (type(array), array.dtype) if hasattr(array, "dtype") else (type(array),)
    where = tuple((home := homes.get(type(array))) and home(array) for array in given)
    return key + where if any(type(array) in homes for array in given) else key


def apply(route: Route, predictions: Array, targets: Array | None, options: Any, weights: Weights = NO_WEIGHTS) -> Any:
    """Finds the plan of a call and follows it; ``options`` is an Options, or a tuple that is equal to one."""
    kind, other = type(predictions), type(targets)
    if kind is not ndarray and arrays.is_compiling():
        return torch.compiled(route, predictions, targets, Options(*options), weights)
    state = scope.get() if scopes.entered else scopes.default
    if state is None:
        state = settings.current()
    try:
        if weights is NO_WEIGHTS and targets is not None:  # key_of, written out for speed
            key: Any = (route, options, predictions.ndim, kind, predictions.dtype, other, targets.dtype)
            home, there = homes.get(kind), homes.get(other)
            if home is not None or there is not None:
                key += (home and home(predictions), there and there(targets))
        else:
            key = key_of(route, predictions, targets, options, weights)
        plan = state.plans.get(key)
    except (AttributeError, TypeError):  # not an array, or an option that is not hashable: the slow path says which
        plan = None
    if plan is None:
        return miss(state, route, predictions, targets, Options(*options), weights)
    shape = predictions.shape
    if not plan.problem.is_plain or targets.shape != shape[:1] or shape[1] == 0:  # type: ignore[union-attr]  # plain has labels
        checks.shapes(plan.problem, predictions, targets)
    if weights is not NO_WEIGHTS:
        checks.weight_shapes(plan.problem, predictions, weights)
    if plan.guard is not None:
        plan = plan.for_call(predictions, set_aside=registry.quarantine)
    if state.sink is not None:
        state.sink.append(plan.decision)
    try:
        return plan.run(plan, predictions, targets, weights)
    except Exception as error:
        blame("kernel", plan.kernel, plan.owner, error)
        for backend in registry.backends:
            if plan.decision is not None and backend.name == plan.decision.backend:
                blame("backend", backend.name, backend.owner, error)
        raise


def blame(part: str, name: str, owner: str, error: Exception) -> None:
    """Notes on an error that a part of a plugin was at work; the call is never tried again without it."""
    record = registry.records.get(owner)
    if record is not None and record.distribution != "xent" and not isinstance(error, LabelError):
        error.add_note(
            f"xent: raised while {part} {name!r} of {record.title} was at work; XENT_DISABLE={name} goes around it."
        )


def miss(
    state: settings.State, route: Route, predictions: Any, targets: Any, options: Options, weights: Weights
) -> Any:
    """Makes the plan of a call that has none, then makes the call again."""
    arguments = [unwrap(one) for one in (predictions, targets, *weights)]
    predictions, targets, weights = arguments[0], arguments[1], weights_of(*arguments[2:])
    asked, options = options, with_ignored(route, options)
    problem = problem_of(state, route, predictions, targets, options, weights)
    checks.shapes(problem, predictions, targets)
    checks.weight_shapes(problem, predictions, weights)
    for one in arguments:
        library = arrays.library(one)
        unknown = library not in arrays.COMPAT and hasattr(one, "device")
        home = HOMES.get(library, device_home if unknown else None)
        if home is not None and not arrays.is_traced(one):
            homes[type(one)] = home
    key = key_of(route, predictions, targets, options, weights)
    with lock:
        if key not in state.plans:
            plan = compose(problem, state.settings)
            if len(state.plans) >= PLANS_AT_MOST:
                state.plans.clear()
            state.plans[key] = plan
        if type(asked.ignore_index) is int:  # which is how it is mostly given
            state.plans[key_of(route, predictions, targets, asked, weights)] = state.plans[key]
    return apply(route, predictions, targets, options, weights)


def with_ignored(route: Route, options: Options) -> Options:
    """The options with the ignored labels as a tuple, or None: an iterator is read once."""
    return options._replace(ignore_index=checks.ignore_index(route.function, options.ignore_index) or None)


def unwrap(value: Any) -> Any:
    """The array inside an xarray DataArray; anything else as it is."""
    return value.data if type(value).__module__.startswith("xarray.") and hasattr(value, "dims") else value


def problem_of(
    state: settings.State, route: Route, predictions: Any, targets: Any, options: Any, weights: Any
) -> Problem:
    """The facts of a call, checked."""
    function, op, method = route.function, route.op, route.method
    checks.metadata(function, op, predictions, targets, options, weights)
    registry.load()
    library = arrays.library(predictions)
    return Problem(
        function=function,
        op=op,
        method=method,
        array=library,
        dtype=arrays.dtype_name(predictions.dtype),
        device=arrays.device(predictions),
        ndim=predictions.ndim,
        axis=predictions.ndim - 1 if op == "binary" else checks.class_axis(function, options.axis, predictions.ndim),
        target_array=library if targets is None else arrays.library(targets),
        target_dtype="" if targets is None else arrays.dtype_name(targets.dtype),
        options=options,
        differentiated=any(getattr(one, "requires_grad", False) for one in (predictions, targets, *weights)),
        validate=state.settings.validate,
        threads=state.settings.threads or settings.affinity(),
        views=arrays.views(predictions),
        is_plain=op == "sparse"
        and method in ("loss", "loss_and_gradient")
        and predictions.ndim == 2
        and options._replace(reduction="none") in PLAIN,
    )


def compose(problem: Problem, user: settings.Settings) -> Plan:
    """The plan of a problem: the one place that knows how schedules nest."""
    backend = backend_of(problem, user)
    problem = replace(problem, views=problem.views or backend.views)
    if backend.inner == "chunks" or (backend.inner and problem.views):
        checks.known_chunks(problem)
        inner = compose(problem.of_chunks() if backend.inner == "chunks" else problem.seen_as(problem.views[0]), user)
        decision = Decision(problem, backend.name, inner.kernel, (), inner.decision)
        return Plan(
            problem,
            run_of(backend),
            inner.kernel,
            inner.load,
            inner=inner,
            forced=inner.forced,
            owner=inner.owner,
            decision=decision,
        )
    there = registry.kernels
    judged = eligibility.candidates(problem, user)
    if registry.kernels is not there:  # a check or a policy broke, and its plugin went with all its kernels
        return compose(problem, user)
    eligibility.refuse(problem, user, [verdict for _, verdict in judged])
    plan: Plan | None = None
    followed = until_unguarded([spec for spec, verdict in judged if not verdict.reasons], problem)
    for spec in reversed(followed):
        passed = followed[: followed.index(spec)]  # this plan is come to where the guards of these say no
        verdicts = tuple(verdict_of(one, verdict, spec, passed) for one, verdict in judged)
        plan = Plan(
            problem,
            run_of(backend),
            spec.name,
            spec.load,
            block_elements=spec.block_elements,
            methods=spec.methods,
            layouts=spec.layouts,
            guard=spec.guard_of(problem.dtype, problem.ndim, problem.axis),
            otherwise=plan,
            forced=user.kernel == spec.name,
            owner=spec.owner,
            decision=Decision(problem, backend.name, spec.name, verdicts),
        )
    assert plan is not None  # generic is always eligible, or refuse has raised
    return plan


def verdict_of(spec: KernelSpec, verdict: Verdict, chosen: KernelSpec, passed: list[KernelSpec]) -> Verdict:
    """The verdict on a candidate where another, or itself, is chosen, and the guards of some have said no."""
    return replace(verdict, chosen=spec is chosen, reasons=verdict.reasons + (declined(spec) if spec in passed else ()))


def declined(spec: KernelSpec) -> tuple[str, ...]:
    """The reason of a kernel that has looked at the shape and strides of a call."""
    reasons = {"contiguous": "the classes of a row do not lie side by side"} if spec.contiguous else {}
    reasons |= {"guard": "declines the shape of this call"} if spec.guard is not None else {}
    return (", or ".join(f"{what}: {why}" for what, why in reasons.items()),)


def until_unguarded(specs: list[KernelSpec], problem: Problem) -> list[KernelSpec]:
    """The kernels that a call may come to: every guarded one, up to the first that takes whatever it is given."""
    facts = problem.dtype, problem.ndim, problem.axis
    last = next((index for index, spec in enumerate(specs) if spec.guard_of(*facts) is None), len(specs))
    return specs[: last + 1]


def backend_of(problem: Problem, user: settings.Settings) -> BackendSpec:
    """The schedule for the arrays of the problem; a plugin's goes before xent's, generic serves the rest."""
    found = [spec for spec in registry.backends if problem.array in spec.arrays]
    own = [spec for spec in found if spec.owner.startswith("xent.")]
    foreign = [spec for spec in found if spec not in own and not eligibility.not_wanted(spec, user)]
    return (foreign or own or [BackendSpec(name=eligibility.GENERIC, load="xent.backends.generic:run")])[0]


def run_of(backend: BackendSpec) -> Callable[..., Any]:
    """The function that a backend is; an error while it is imported names its plugin."""
    try:
        run: Callable[..., Any] = resolve(backend.load)
    except Exception as error:
        blame("backend", backend.name, backend.owner, error)
        raise
    return run


def explain(route: Route, predictions: Any, targets: Any, options: Options, weights: Weights) -> Decision:
    """The decision for a call, made anew; nothing is computed and no plan is kept."""
    predictions, targets, options = unwrap(predictions), unwrap(targets), with_ignored(route, options)
    weights, state = weights_of(*(unwrap(one) for one in weights)), settings.current()
    problem = problem_of(state, route, predictions, targets, options, weights)
    checks.shapes(problem, predictions, targets)
    checks.weight_shapes(problem, predictions, weights)
    plan = compose(problem, state.settings)
    if plan.guard is not None:
        plan = plan.for_call(predictions)
    assert plan.decision is not None
    return plan.decision
