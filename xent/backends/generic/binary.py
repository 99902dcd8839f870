"""Binary targets: every element is a row of its own. One expression over whole arrays, for eager and traced calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ... import checks
from ...arrays import Array
from ...contract.problem import Problem, Weights
from ...numerics import binary, fold, targets
from ...numerics.reduction import Reducer, pairwise_sum
from ...numerics.targets import NO_ROWS, Rows


class BinaryFunctions(NamedTuple):
    """The functions that a library may bring with its own derivatives; by default those of ``numerics/binary.py``."""

    costs: Callable[[Any, Array, str], tuple[Array, Array]] = binary.costs
    """(xp, predictions, kind) to the costs of a certain yes and a certain no, elementwise."""
    slopes: Callable[[Any, Array, str], tuple[Array, Array]] = binary.slopes
    """The derivatives of the costs."""
    product: Callable[[Any, Array, Array], Array] = binary.weighted
    """(xp, mass, value) to mass · value, where 0 · ±∞ is 0, in its derivatives too."""
    add: Callable[[Any, Array], Array] = pairwise_sum
    """(xp, values) to their sum, 0-d, wide."""
    constant: Callable[[Array], Array] = lambda values: values
    """The same numbers, not to be differentiated."""


EAGER = BinaryFunctions()


class Elements(NamedTuple):
    """The elements of one call, in the compute dtype."""

    predictions: Array
    masses: tuple[Array, Array]  # of yes and of no, the positive weight included
    rows: Rows


def elements_of(xp: Any, problem: Problem, predictions: Array, labels: Any, weights: Weights) -> Elements:
    """The elements of one call; an ignored one is masked, so that no derivative of any order meets what it holds."""
    dtype = fold.compute_dtype(xp, predictions.dtype)
    x, t, rows = xp.astype(predictions, dtype, copy=False), xp.astype(labels, dtype, copy=False), NO_ROWS
    if weights.sample is not None:
        weight, ignored = targets.sample(xp, weights.sample, dtype)
        rows = Rows(ignored, None, weight)
        x = xp.where(xp.reshape(ignored, x.shape), 0.5 if problem.options.kind == "probabilities" else -1.0, x)
    positive = 1.0 if weights.positive is None else weights.positive
    positive = float(positive) if checks.is_real(positive) else xp.astype(positive, dtype, copy=False)
    return Elements(x, (t * positive, 1 - t), rows)


def run_binary(
    xp: Any, functions: BinaryFunctions, problem: Problem, predictions: Array, labels: Any, weights: Weights
) -> Any:
    """The result of one call: the losses or their reduction, with the gradient if the method asks for it."""
    kind, reducer = problem.options.kind, Reducer(problem.options.reduction, functions.add)
    elements = elements_of(xp, problem, predictions, labels, weights)
    x, masses, rows = elements
    loss = xp.reshape(weighted_sum(xp, functions, masses, functions.costs(xp, x, kind)), (-1,))
    value = reducer.reduce(xp, loss, rows)
    value = xp.reshape(value, x.shape) if reducer.reduction == "none" else value
    if problem.method == "loss":
        return value
    scale = reducer.scale(xp, rows, functions.constant(loss))
    gradient = gradient_of_elements(xp, functions, kind, elements, scale, predictions.dtype)
    return functions.constant(value), functions.constant(gradient)


def gradient_of_elements(
    xp: Any, functions: BinaryFunctions, kind: str, elements: Elements, scale: Array, dtype: Any
) -> Array:
    """The gradient in the predictions, times the scale (rows,) of each."""
    gradient = weighted_sum(xp, functions, elements.masses, functions.slopes(xp, elements.predictions, kind))
    scale = xp.reshape(scale, gradient.shape)
    return xp.astype(xp.where(scale == 0, 0.0, gradient * scale), dtype, copy=False)


def binary_gradient(
    xp: Any, problem: Problem, predictions: Array, labels: Any, weights: Weights, cotangent: Array
) -> Array:
    """The gradient of a call in its predictions, times the cotangent of its value."""
    elements = elements_of(xp, problem, predictions, labels, weights)
    like = xp.reshape(elements.predictions, (-1,))
    scale = Reducer(problem.options.reduction).scale(xp, elements.rows, like) * xp.reshape(cotangent, (-1,))
    return gradient_of_elements(xp, EAGER, problem.options.kind, elements, scale, predictions.dtype)


def weighted_sum(
    xp: Any, functions: BinaryFunctions, masses: tuple[Array, Array], values: tuple[Array, Array]
) -> Array:
    """mass · value of yes and of no, added: 0 where a mass is 0 and its value infinite, NaN where a value is."""
    yes, no = (functions.product(xp, mass, value) for mass, value in zip(masses, values, strict=True))
    return yes + no
