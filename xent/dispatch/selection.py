"""The plan of a call: its key, the cache, and how schedules nest.

The key is made of types, dtypes, devices, rank and options; no array is read. A miss is dear (tens of microseconds) and
happens once per kind of call; a hit is a look-up.
"""

from __future__ import annotations

import threading
from typing import Any

from numpy import ndarray

from .. import arrays, checks
from ..arrays import Array
from ..backends.torch import hooks
from ..contract.plan import Decision
from ..contract.problem import NO_WEIGHTS, Options, Problem, Route, Weights, weights_of
from . import settings
from .composition import compose
from .keys import HOMES, device_home, homes, key_of
from .registry import blame, registry
from .settings import scope, scopes

PLANS_AT_MOST = 1024
PLAIN = (Options(axis=-1), Options(axis=1))
lock = threading.RLock()


def identity(array: Any) -> tuple[Any, ...]:
    """What a plan depends on in one array: its type, its dtype and where it is."""
    kind = type(array)
    home = homes.get(kind)
    return (kind, array.dtype) if home is None else (kind, array.dtype, home(array))


def apply(route: Route, predictions: Array, targets: Array | None, options: Any, weights: Weights = NO_WEIGHTS) -> Any:
    """Finds the plan of a call and follows it; ``options`` is an Options, or a tuple that is equal to one."""
    kind, other = type(predictions), type(targets)
    if kind is not ndarray and arrays.is_compiling():
        return hooks.compiled(route, predictions, targets, Options(*options), weights)
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
        is_plain=weights is NO_WEIGHTS
        and op == "sparse"
        and method in ("loss", "loss_and_gradient")
        and predictions.ndim == 2
        and options._replace(reduction="none") in PLAIN,
    )


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
