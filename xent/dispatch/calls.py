"""One call from the public function to its backend: the plan, found by its key or made, and followed.

A plan that is known is found by its key, without reading an array. Making one takes tens of microseconds, once for each
kind of call.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import replace
from numbers import Number
from typing import Any

from numpy import ndarray

from .. import arrays, checks
from ..arrays import Array
from ..contract.plan import Decision
from ..contract.problem import NO_WEIGHTS, Options, Problem, Route, Weights, weights_of
from ..linear import Linear
from ..numerics.reduction import Mean
from ..sparse_targets import SparseTargets
from . import dimensions, settings
from .composition import compose
from .dimensions import unwrap
from .keys import key_of, learn_placement
from .registry import PATIENCE_SECONDS, annotate_error, patient, registry
from .settings import scope, scopes

PLANS_AT_MOST = 1024
PLAIN = (Options(axis=-1), Options(axis=1))
lock = threading.RLock()


def apply(
    route: Route,
    predictions: Array,
    targets: Array | None,
    options: Any,
    weights: Weights = NO_WEIGHTS,
    out: Array | None = None,
) -> Any:
    """The result of a call, by its plan; ``options`` is an Options, or a tuple that is equal to one.

    ``out`` is the array for its gradient, or None for a new one.
    """
    if type(predictions) is not ndarray and arrays.is_compiling():
        if out is not None:
            checks.no_output_in_graph(route.function, out)
        return in_torch_graph(route, predictions, targets, options, weights)
    state = scope.get() if scopes.entered else scopes.default
    if state is None:
        state = settings.current()
    try:
        plan = state.plans.get(key_of(route, predictions, targets, options, weights))
    except (AttributeError, TypeError):  # not an array, or an option that is not hashable: plan_and_call says which
        plan = None
    if plan is None:
        return plan_and_call(state, route, predictions, targets, Options(*options), weights, out)
    checks.shapes(plan.problem, predictions, targets)
    if weights is not NO_WEIGHTS:
        checks.weight_shapes(plan.problem, predictions, weights)
    if out is not None:
        checks.output(plan, predictions, targets, weights, out)
    if plan.guard is not None:
        plan = plan.for_call(predictions, set_aside=registry.quarantine)
    if state.sink is not None:
        state.sink.append(plan.decision)
    try:
        if out is None:
            return plan.run(plan, predictions, targets, weights)
        return plan.run(plan, predictions, targets, weights, out)
    except Exception as error:
        annotate_error("kernel", plan.kernel, plan.owner, error)
        for backend in registry.backends:
            if plan.decision is not None and backend.name == plan.decision.backend:
                annotate_error("backend", backend.name, backend.owner, error)
        raise


def apply_to_product(
    route: Route, operands: tuple[Any, ...], softcap: Any, labels: Array, options: Any, weights: Weights
) -> Any:
    """The result of a call on the product of hidden states, a classifier and a bias or None."""
    hidden, classifier, bias = operands
    return apply(route, Linear(hidden, classifier, bias=bias, softcap=softcap), labels, options, weights)


def plan_and_call(
    state: settings.State, route: Route, predictions: Any, targets: Any, options: Options, weights: Weights, out: Any
) -> Any:
    """The result of a call that has no plan yet: makes the plan, then makes the call again."""
    if type(targets) is SparseTargets:
        route, targets, weights = few_classes(route, targets, weights)
        return apply(route, predictions, targets, options, weights, out)
    if dimensions.is_named(predictions):
        named = dimensions.Dimensions(route, predictions, options)
        others, options = named.arguments(route, targets, weights), options._replace(axis=named.axis)
        out = None if out is None else named.array("out", out, predictions.dims)
        result = apply(route, predictions.data, others[0], options, others[1], out)
        return result if route.method == "partial" else named.named(result)
    arguments = [unwrap(value) for value in (predictions, targets, *weights)]
    predictions, targets, weights = arguments[0], arguments[1], weights_of(*arguments[2:])
    original, options = options, checks.options(route.function, options)
    problem = problem_of(state, route, predictions, targets, options, weights)
    checks.shapes(problem, predictions, targets)
    checks.weight_shapes(problem, predictions, weights)
    for value in arguments:
        learn_placement(value)
    key = key_of(route, predictions, targets, options, weights)
    with patient(lock, PATIENCE_SECONDS):
        if key not in state.plans:
            generation = scopes.generation
            plan = compose(problem, state.settings)
            if scopes.generation != generation:  # a plugin was registered, or set aside, meanwhile
                plan = compose(problem, state.settings)
            if len(state.plans) >= PLANS_AT_MOST:
                state.plans.clear()
            state.plans[key] = plan
        if has_a_key(original):  # the caller's spelling finds the plan, too
            state.plans[key_of(route, predictions, targets, original, weights)] = state.plans[key]
    return apply(route, predictions, targets, options, weights, out)


def few_classes(route: Route, targets: SparseTargets[Any], weights: Weights) -> tuple[Route, Array, Weights]:
    """The call with the weights of the targets in their place, and their ids beside the other weights."""
    checks.takes_sparse_targets(route.function, route.op)
    route = with_tail(route, "none" if targets.tail is None else "class")
    return route, targets.columns, weights_of(*weights[:4], targets.ids)


@functools.cache
def with_tail(route: Route, tail: str) -> Route:
    """The route of a call with such targets; always one object, as plans ask for."""
    return replace(route, tail=tail)


def in_torch_graph(route: Route, predictions: Array, targets: Array | None, options: Any, weights: Weights) -> Any:
    """The result of a call that TorchDynamo traces: one node of its graph, of arguments that a graph may hold.

    What is done here is guarded, and the guards are asked at every call: the node does all else.
    """
    from . import graphs  # a statement: TorchDynamo traces no import_module

    if arrays.is_product(predictions) or route.method == "gradient":
        return graphs.product(route, predictions, targets, options, weights)
    ids, tail = None, ""
    if type(targets) is SparseTargets:
        checks.takes_sparse_targets(route.function, route.op)
        ids, tail = targets.ids, "none" if targets.tail is None else "class"
        targets = targets.columns
    axis, kind, reduction, ignore_index, label_smoothing, *others = options
    if ignore_index is not None or type(label_smoothing) is not float:
        checks.known_in_graph(route.function, ignore_index, label_smoothing)
    if type(reduction) is Mean:
        reduction = reduction.denominator, reduction.empty
    given = (None, None, None) if weights is NO_WEIGHTS else weights[:3]
    names = route.function, route.op, route.method
    told = reduction, axis, kind, ignore_index, label_smoothing, *others
    return graphs.node(predictions, targets, *given, ids, *names, tail, *told)


def has_a_key(options: Options) -> bool:
    """Whether the options, as the caller spelled them, are numbers: no array and no iterator."""
    ignored = options.ignore_index if type(options.ignore_index) is tuple else (options.ignore_index,)
    return all(
        value is None or isinstance(value, Number) for value in (options.axis, options.label_smoothing, *ignored)
    )


def facts_of(route: Route, library: str, predictions: Any, targets: Any, options: Options, **facts: Any) -> Problem:
    """The problem of a call whose metadata are checked."""
    function, op, ndim = route.function, route.op, predictions.ndim
    return Problem(
        tail=route.tail,
        function=function,
        op=op,
        method=route.method,
        array=library,
        dtype=arrays.dtype_name(predictions.dtype),
        ndim=ndim,
        axis=ndim - 1 if op == "binary" else checks.class_axis(function, options.axis, ndim),
        target_array=library if targets is None else arrays.library(targets),
        target_dtype="" if targets is None else arrays.dtype_name(targets.dtype),
        options=options,
        **facts,
    )


def problem_of(
    state: settings.State,
    route: Route,
    predictions: Any,
    targets: Any,
    options: Options,
    weights: Weights,
    *,
    in_graph: bool = False,
) -> Problem:
    """The facts of a call, checked; ``in_graph`` for one in a graph of torch.compile's."""
    checks.metadata(route.function, route.op, predictions, targets, options, weights)
    if route.tail == "class":
        checks.tail(route.function, route.method, predictions, options, weights)
    registry.load()
    is_product = arrays.is_product(predictions)
    is_plain = weights is NO_WEIGHTS and route.op == "sparse" and route.method in ("loss", "loss_and_gradient")
    return facts_of(
        route,
        arrays.library(predictions),
        predictions,
        targets,
        options,
        device="traced" if in_graph else arrays.device(predictions),
        differentiated=any(getattr(value, "requires_grad", False) for value in (predictions, targets, *weights)),
        validate=state.settings.validate,
        threads=state.settings.threads or settings.affinity(),
        gradient_in_forward=state.settings.gradient_in_forward,
        views=tuple(view for view in arrays.views(predictions) if view == "numpy" or not in_graph),
        sample_weight_dtype="" if weights.sample is None else arrays.dtype_name(weights.sample.dtype),
        is_product=is_product,
        of=of_operands(route, predictions) if is_product else (),
        is_plain=is_plain and not is_product and predictions.ndim == 2 and options._replace(reduction="none") in PLAIN,
    )


def of_operands(route: Route, product: Any) -> tuple[str, ...]:
    """The operands of a product that a gradient is asked for in, of those that are there."""
    if route.method not in ("loss_and_gradient", "gradient"):
        return ()
    there = checks.OPERANDS[: len(product.operands)]
    return tuple(name for name in there if not route.of or name in route.of)


def explain(
    route: Route,
    predictions: Any,
    targets: Any,
    options: Options,
    weights: Weights,
    out: Any = None,
    *,
    in_graph: bool = False,
) -> Decision:
    """The decision for a call, made anew; nothing is computed and no plan is kept."""
    if type(targets) is SparseTargets:
        route, targets, weights = few_classes(route, targets, weights)
    if dimensions.is_named(predictions):
        named = dimensions.Dimensions(route, predictions, options)
        targets, weights = named.arguments(route, targets, weights)
        options, out = options._replace(axis=named.axis), named.array("out", out, predictions.dims)
    predictions, targets, options = unwrap(predictions), unwrap(targets), checks.options(route.function, options)
    weights, state = weights_of(*(unwrap(weight) for weight in weights)), settings.current()
    problem = problem_of(state, route, predictions, targets, options, weights, in_graph=in_graph)
    checks.shapes(problem, predictions, targets)
    checks.weight_shapes(problem, predictions, weights)
    plan = compose(problem, state.settings)
    if out is not None:
        checks.output(plan, predictions, targets, weights, unwrap(out))
    if plan.guard is not None:
        plan = plan.for_call(predictions)
    assert plan.decision is not None
    if plan.inner is None or problem.array != "torch":
        return plan.decision
    from ..backends.torch.views import inner_plan

    inner = inner_plan(plan, predictions)
    return replace(plan.decision, kernel=inner.kernel, inner=inner.decision)
