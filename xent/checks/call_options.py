"""Preconditions of the options of a loss: kind, reduction, mean, smoothing and ignored labels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, get_args

from .axes import axis
from .plain_values import integer, is_real, number_remedy, quoted, shown

Kind = Literal["logits", "probabilities", "log_probabilities"]
KINDS: tuple[Kind, ...] = get_args(Kind)
REDUCTIONS = ("none", "sum", "mean")
DENOMINATORS = ("weights", "counted", "all")
WEIGHTS = ("sample_weight", "class_weight", "pos_weight")
Validate = Literal["auto", "always", "never"]
VALIDATE: tuple[Validate, ...] = get_args(Validate)


def options(function: str, options: Any) -> Any:
    """The options in one spelling each: ints, a float, and a tuple of the ignored labels, or None.

    An iterator is read once. Leaves out ``kind`` and ``reduction``, and whether the predictions have the axis.
    """
    classes = options.num_classes
    return options._replace(
        axis=axis(function, options.axis),
        ignore_index=ignore_index(function, options.ignore_index) or None,
        label_smoothing=label_smoothing(function, options.label_smoothing),
        first_class=int(options.first_class),
        num_classes=None if classes is None else int(classes),
    )


def reduction(function: str, value: Any) -> None:
    """The reduction is known; a Mean has checked itself."""
    is_mean = hasattr(value, "denominator") and hasattr(value, "empty")  # an int has a denominator, too
    if (isinstance(value, str) and value in REDUCTIONS) or (is_mean and not isinstance(value, type)):
        return
    raise ValueError(
        f"{function}: `reduction` must be {quoted(REDUCTIONS)}, or a xent.Mean, got {shown(value)}. Choose one."
    )


def denominator(value: Any) -> None:
    """The denominator of a mean is known by name, or is a positive number."""
    if isinstance(value, str) and value in DENOMINATORS:
        return
    if is_real(value) and 0 < value < math.inf:
        return
    remedy = number_remedy("float", "denominator", value, "Choose one")
    if hasattr(value, "shape") and not is_real(value):
        remedy += ', or divide the result of reduction="sum" by it'
    raise ValueError(
        f"Mean: `denominator` must be {quoted(DENOMINATORS)}, or a positive number, got {shown(value)}. {remedy}."
    )


def empty(value: Any) -> float:
    """The value of an empty mean is a number; −0.0 and every NaN have one spelling, as they are equal options."""
    if not is_real(value):
        remedy = number_remedy("float", "empty", value, "Pass 0.0, say")
        raise ValueError(f"Mean: `empty` must be a number, got {shown(value)}. {remedy}.")
    return float(value) + 0.0 if value == value else math.nan


def label_smoothing(function: str, value: Any) -> float:
    """Smoothing moves a share of the target, between none and all of it."""
    if not is_real(value) or not 0 <= value <= 1:  # an int may be larger than any float
        remedy = number_remedy("float", "label_smoothing", value, "Pass a share of 1")
        raise ValueError(f"{function}: `label_smoothing` must lie in [0, 1], got {shown(value)}. {remedy}.")
    return float(value)


def known_in_graph(function: str, ignore_index: Any, label_smoothing: Any) -> None:
    """The options are known while TorchDynamo traces: NumPy's numbers are tensors there, whose values are not."""
    ignored = ignore_index if isinstance(ignore_index, list | tuple) else (ignore_index,)
    named = (("label_smoothing", label_smoothing), *(("ignore_index", label) for label in ignored))
    for name, value in named:
        if hasattr(value, "shape"):
            raise TypeError(
                f"{function}: `{name}` must be a number of Python under torch.compile, got one of NumPy. "
                "Call its .item() outside of the compiled function."
            )


def ignore_index(function: str, value: Any) -> tuple[int, ...]:
    """The ignored labels as a tuple of ints, from an int, an iterable of ints, or None."""
    if value is None:
        return ()
    try:
        several = isinstance(value, Iterable) and not isinstance(value, str) and getattr(value, "shape", None) != ()
        return tuple(integer(label) for label in (value if several else (value,)))
    except TypeError:
        raise ValueError(
            f"{function}: `ignore_index` must be an int, an iterable of ints or None, got {shown(value)}. Pass labels."
        ) from None
