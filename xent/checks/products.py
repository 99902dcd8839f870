"""Preconditions of a product that stands for logits, of its operands, and of gradients in them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any

from .. import arrays
from ..arrays import describe
from .array_shapes import expect
from .array_types import FLOATS, array, cast, no_product, same_placement
from .axes import class_axis
from .plain_values import is_real, number_remedy, quoted, shown

OPERANDS = ("hidden", "classifier", "bias")
NORMAL = {
    "float32": (2.0**-126, 2.0**128 - 2.0**104),
    "float64": (sys.float_info.min, sys.float_info.max),
}
"""The least and the largest positive number with all digits of each dtype of logits."""


def operands(function: str, operands: dict[str, Any]) -> None:
    """The operands of a product are floating arrays of one library and fit: (*batch, D), (C, D) and (C,) or None."""
    hidden, classifier, bias = operands.values()
    given = {name: value for name, value in operands.items() if value is not None or name != "bias"}
    if arrays.is_product(hidden):
        raise TypeError(
            f"{function}: `hidden` must be an array, got a xent.Linear. Call sparse_cross_entropy, which takes it."
        )
    for name, value in given.items():
        array(function, name, value, hidden)
        if arrays.dtype_name(value.dtype) not in FLOATS:
            remedy = cast(name, value, "float32")
            raise TypeError(f"{function}: `{name}` must be real floating, got {describe(value)}. Pass {remedy}.")
    libraries = {name: arrays.library(value) for name, value in given.items()}
    lazy = next((name for name, library in libraries.items() if library == "dask"), "hidden")
    for name, value in given.items():
        same_placement(function, given[lazy], name, value, lazy)
    if hidden.ndim == 0:
        raise ValueError(f"{function}: `hidden` must have an axis of features, got a 0-d array. Pass (*batch, D).")
    depth, shape = hidden.shape[-1], tuple(classifier.shape)
    if len(shape) != 2 or shape[1] != depth:
        is_turned = len(shape) == 2 and shape[0] == depth
        remedy = "Pass classifier.T." if is_turned else f"Pass one row of {depth} numbers for each class."
        raise ValueError(
            f"{function}: `classifier` must have shape (C, {depth}) (the hidden states are "
            f"{tuple(hidden.shape)}), got {shape}. {remedy}"
        )
    if shape[0] == 0:
        raise ValueError(f"{function}: `classifier` must have at least one class, got shape {shape}. Pass C ≥ 1.")
    if bias is not None and tuple(bias.shape) != shape[:1]:
        expect(function, "bias", bias, shape[:1], "one for each class")


def of_operands(function: str, of: Any) -> tuple[str, ...]:
    """The operands that a gradient is asked for in, in their order; none for all that are there."""
    if of is None:
        return ()
    names = (of,) if isinstance(of, str) else tuple(of) if isinstance(of, Iterable) else ()
    if not names or any(name not in OPERANDS for name in names):
        raise ValueError(f"{function}: `of` must be {quoted(OPERANDS)}, or several, got {of!r}. Choose from them.")
    return tuple(name for name in OPERANDS if name in names)


def has_operands(function: str, of: Any, predictions: Any) -> None:
    """The gradient is asked for in operands of predictions that have them."""
    if of is not None and not arrays.is_product(predictions):
        raise TypeError(
            f"{function}: `of` must be None unless the predictions are a xent.Linear, got {of!r} for "
            f"{shown(predictions)}. Leave it out, or call linear_cross_entropy."
        )
    has_bias(function, of, getattr(predictions, "bias", None))


def has_bias(function: str, of: Any, bias: Any) -> None:
    """The gradient is asked for in the bias where there is one."""
    if of is not None and "bias" in of and bias is None:
        raise ValueError(f'{function}: `of` must name operands that are there, got "bias" without one. Leave it out.')


def softcap(function: str, value: Any, dtype: str) -> float | None:
    """A softcap is a positive number that the dtype of the logits holds with all digits, or None."""
    if value is None:
        return None
    if not is_real(value) or not 0 < value < math.inf:
        remedy = number_remedy("float", "softcap", value, "Leave it out for logits without a cap")
        raise ValueError(f"{function}: `softcap` must be a positive number, got {shown(value)}. {remedy}.")
    least, most = NORMAL[dtype]
    if not least <= value <= most:
        raise ValueError(
            f"{function}: `softcap` must lie in [{least:.3g}, {most:.3g}] for {dtype} logits, got {shown(value)}. "
            "Leave it out for logits without a cap."
        )
    return float(value)


def product(function: str, op: str, product: Any, options: Any) -> None:
    """What takes logits of any kind takes a product too, where it makes no array of their shape."""
    if function in ("softmax", "log_softmax"):
        no_product(function, "logits", product)
    if op == "binary":
        raise TypeError(
            f"{function}: `predictions` must be an array, got a xent.Linear, whose classes exclude each other. "
            "Pass hidden @ classifier.T."
        )
    if options.kind != "logits":
        raise ValueError(f'{function}: `kind` must be "logits" for a xent.Linear, got {options.kind!r}. Leave it out.')
    if class_axis(function, options.axis, product.ndim) != product.ndim - 1:
        raise ValueError(
            f"{function}: `axis` must be the last for a xent.Linear, got {options.axis}. "
            "Leave it out: the classes are the rows of the classifier."
        )
