"""Preconditions of slices of the classes, and of the partials that are made of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .array_shapes import expect, shape_of_rows
from .array_types import array, same_placement
from .axes import axis, class_axis
from .call_options import label_smoothing
from .plain_values import describe_type, is_count, number_remedy, shown


def slice_of_classes(function: str, logits: Any, labels: Any, targets: Any, options: Any) -> None:
    """A slice has one kind of target, and a place among all classes."""
    first, every = options.first_class, options.num_classes
    if (labels is None) == (targets is None):
        got = "neither" if labels is None else "both"
        raise ValueError(f"{function}: one of `labels` and `targets` must be given, got {got}. Pass one of them.")
    for name, value, least in (("first_class", first, 0), ("num_classes", every, 1)):
        if value is not None and not is_count(value, least):
            remedy = number_remedy("int", name, value, "Pass a number of classes")
            raise ValueError(f"{function}: `{name}` must be an int ≥ {least}, got {shown(value)}. {remedy}.")
    # the first slice has nothing that tells it from a whole row
    if every is None and label_smoothing(function, options.label_smoothing):
        raise ValueError(
            f"{function}: `num_classes` must be given where targets are smoothed, got None. "
            "Pass the number of classes of all slices."
        )
    shape, index = tuple(getattr(logits, "shape", ())), axis(function, options.axis)
    if every is not None and -len(shape) <= index < len(shape) and first + shape[index] > every:
        count, end = shape[index], first + shape[index]
        raise ValueError(
            f"{function}: `num_classes` must be at least {end} for {count} classes from {first} on, got {every}. "
            "Pass the number of classes of all slices."
        )


def partials(function: str, partials: Iterable[Any], name: str = "partial") -> None:
    """Partials are xent's, of one library and of the same rows."""
    first = None
    for partial in partials:
        if not hasattr(partial, "sum_exp_rest"):
            got = describe_type(partial)
            raise TypeError(f"{function}: `{name}` must be a xent.Partial, got {got}. Call xent.partial.")
        first = first or partial
        same_placement(function, first.max, name, partial.max)
        if tuple(partial.max.shape) != tuple(first.max.shape):
            raise ValueError(
                f"{function}: `{name}` must be of the rows of the first, {tuple(first.max.shape)}, "
                f"got {tuple(partial.max.shape)}. Take every slice of the classes from the same rows."
            )


def merged(function: str, logits: Any, whole: Any, scale: Any, options: Any) -> None:
    """A merged partial, and the scale of each row, are of the rows of these logits."""
    partials(function, (whole,), "whole")
    shape = tuple(getattr(logits, "shape", ()))
    rows = shape_of_rows(shape, class_axis(function, options.axis, len(shape)))
    for name, value in (("whole", whole.max), ("scale", scale)):
        if value is not None:
            array(function, name, value, logits)
            same_placement(function, logits, name, value, "logits")
            expect(function, name, value, rows, f"logits {shape} without their classes")
