"""Preconditions of a call as a whole: its arrays and keywords, its loss, its kernel and its plugin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import arrays, errors
from ..arrays import Array, describe
from .array_types import array, labels_dtype, predictions_dtype, real_dtype, same_placement
from .axes import class_axis
from .call_options import KINDS, WEIGHTS, reduction
from .plain_values import choice, describe_type, is_real, quoted
from .products import product

WITHOUT_TARGETS = ("logsumexp", "softmax", "log_softmax")


def metadata(function: str, op: str, predictions: Any, targets: Any, options: Any, weights: Any) -> None:
    """Types, dtypes, placements and keywords, once per kind of call and before any work."""
    if arrays.is_product(predictions):
        product(function, op, predictions, options)
    else:
        array(function, "predictions", predictions, targets)
        predictions_dtype(function, predictions, targets)
    if targets is not None or function not in WITHOUT_TARGETS:
        name = "labels" if op == "sparse" else "targets"
        array(function, name, targets, predictions)
        if op == "sparse":
            labels_dtype(function, targets, predictions)
        else:
            real_dtype(function, "targets", targets)
        if weights.ids is not None:
            same_placement(function, predictions, "targets.ids", weights.ids)
        same_placement(function, predictions, name, targets)
    if op != "binary":
        class_axis(function, options.axis, predictions.ndim)
    choice(function, "kind", options.kind, KINDS)
    reduction(function, options.reduction)
    for name, value in zip(WEIGHTS, weights[:3], strict=True):
        weight(function, name, value, predictions)


def weight(function: str, name: str, value: Any, predictions: Array) -> None:
    """A weight is an array beside the predictions; class_weight may be a list of numbers, pos_weight a number."""
    if value is None or (name == "pos_weight" and is_real(value)):
        return
    if name == "class_weight" and not hasattr(value, "dtype"):
        if not isinstance(value, list | tuple) or not all(is_real(number) for number in value):
            raise TypeError(
                f"{function}: `class_weight` must be an array or a list of numbers, got {describe_type(value)}. "
                "Pass one number for each class."
            )
        return
    array(function, name, value, predictions)
    same_placement(function, predictions, name, value)
    real_dtype(function, name, value)


def positional(function: str, given: tuple[Any, ...], names: Iterable[str]) -> None:
    """The arrays of a call are all there, and no more."""
    expected = tuple(names)
    if len(given) != len(expected):
        raise TypeError(
            f"{function}: {', '.join(f'`{name}`' for name in expected)} must be given by position, got "
            f"{len(given)} arguments. Pass {len(expected)}, and all else by keyword."
        )


def keywords(function: str, names: Iterable[str], known: tuple[str, ...]) -> None:
    """Every keyword is one of the function's."""
    for name in names:
        if name not in known:
            raise TypeError(
                f"{function}: `{name}` must be a keyword of it, got an unknown one. Choose from {', '.join(known)}."
            )


def known_loss(caller: str, function: Any, known: Iterable[Any]) -> None:
    """The loss is one of xent's."""
    if not any(function is loss for loss in known):
        names = quoted(loss.__name__ for loss in known)
        raise TypeError(
            f"{caller}: `loss` must be {names} of xent, or a functools.partial of one, got {function!r}. Pass one."
        )


def no_positional(caller: str, arguments: tuple[Any, ...]) -> None:
    """A functools.partial of a loss binds keywords only."""
    if arguments:
        raise TypeError(
            f"{caller}: `loss` must bind keywords only, got {len(arguments)} positional. Pass them in the call."
        )


def next_plan(plan: Any, predictions: Array) -> Any:
    """The plan to follow when a guard declines the call; raises NotServed for a forced kernel."""
    if plan.otherwise is None:
        raise errors.NotServed(
            f"{plan.problem.function}: `kernel` must be one that serves this call, got {plan.kernel!r}, whose guard "
            f"declines {describe(predictions)}. Choose another, or leave it to xent."
        )
    return plan.otherwise


def plugin(name: Any, options_of: Any, value: Any) -> None:
    """A plugin has a name of its own, and hooks."""
    if not isinstance(name, str) or not name or name.startswith("xent."):
        raise ValueError(f"register: `name` must be a name that does not begin with xent., got {name!r}. Use another.")
    if not any(options_of(value, attribute) for attribute in dir(value)):
        got = describe_type(value)
        raise ValueError(f"register: `plugin` must have hooks, got {got}. Mark them with xent.hookimpl.")
