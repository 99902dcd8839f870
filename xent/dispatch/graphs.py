"""A call that TorchDynamo traces: one node of its graph, whose Python runs once, as the graph is made.

TorchDynamo guards all that it traces, and asks its guards at every call; into this node it does not look. What the node
computes with FakeTensors is traced by AOT autograd. Plans are not kept: one is made for each graph.

It is itself imported as TorchDynamo traces a call, for it loads torch's compiler.
"""

from __future__ import annotations

from typing import Any

from .. import checks
from ..arrays import Array
from ..backends.torch import compiled, product_operator, schedule
from ..contract.problem import Options, Route, Weights, weights_of
from ..numerics.reduction import Mean
from . import calls, settings
from .composition import compose
from .registry import registry

# subtle: not in the node, where a plugin's modules would make FakeTensors of their constants
registry.load()
product_operator.eager = calls.apply


@compiled.as_node
def node(
    predictions: Array,
    targets: Array | None,
    sample: Any,
    classes: Any,
    positive: Any,
    ids: Any,
    function: str,
    op: str,
    method: str,
    tail: str,
    reduction: Any,
    *options: Any,
) -> Any:
    """The result of a call: of tensors, and of what TorchDynamo knows as constants.

    A mean is given as its denominator and its value for no rows; ``options`` are the others, in their order.
    """
    reduction = Mean(*map(compiled.known, reduction)) if isinstance(reduction, tuple) else reduction
    axis, kind, *others = map(compiled.known, options)
    told = checks.options(function, Options(axis, kind, reduction, *others))
    sample, classes, positive = map(schedule.tensor_of_numbers, (sample, classes, positive))
    weights = weights_of(sample, classes, positive, ids=ids)
    state = settings.current()
    route = Route(function, op, method, tail=tail)
    problem = calls.problem_of(state, route, predictions, targets, told, weights, in_graph=True)
    checks.shapes(problem, predictions, targets)
    checks.weight_shapes(problem, predictions, weights)
    return compiled.in_graph(compose(problem, state.settings), predictions, targets, weights)


def product(route: Route, predictions: Any, targets: Any, options: Any, weights: Weights) -> Any:
    """The result of a call on a product, or of `gradient`: an operator where it does, else outside of the graph."""
    told = route, predictions, targets, options, weights
    if not schedule.transforms_are_active() and product_operator.is_taken(*told):
        return product_operator.in_graph(*told[1:])
    return compiled.apart(calls.apply, *told)
