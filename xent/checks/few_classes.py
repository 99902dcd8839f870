"""Preconditions of soft targets of a few classes: ids, weights and a tail."""

from __future__ import annotations

from typing import Any

from .. import arrays
from ..arrays import describe
from .array_shapes import expect
from .array_types import INTEGERS, array, cast, real_dtype, same_placement
from .plain_values import shown


def sparse_targets(function: str, ids: Any, weights: Any, tail: Any) -> None:
    """The ids, weights and tail of soft targets of a few classes are integers and real, of one library, and fit."""
    given = {"ids": ids, "weights": weights} | ({} if tail is None else {"tail": tail})
    for name, value in given.items():
        array(function, name, value, weights if name == "ids" else ids)
    if arrays.dtype_name(ids.dtype) not in INTEGERS:
        remedy = (
            "Pass the ids before the weights"
            if arrays.dtype_name(weights.dtype) in INTEGERS
            else "Pass " + cast("ids", ids, "int64")
        )
        raise TypeError(f"{function}: `ids` must be integers, got {describe(ids)}. {remedy}.")
    lazy = next((name for name, value in given.items() if arrays.library(value) == "dask"), "ids")
    for name, value in given.items():
        if name != "ids":
            real_dtype(function, name, value)
        same_placement(function, given[lazy], name, value, lazy)
    if ids.ndim == 0:
        raise ValueError(f"{function}: `ids` must have shape (*batch, k), got a 0-d array. Pass ids[None].")
    expect(function, "weights", weights, tuple(ids.shape), "that of the ids")
    if tail is not None:
        expect(function, "tail", tail, tuple(ids.shape[:-1]), "one for each row")


def takes_sparse_targets(function: str, op: str) -> None:
    """The call is of soft targets."""
    if op != "dense":
        name = "labels" if op == "sparse" else "targets"
        raise TypeError(
            f"{function}: `{name}` must be an array, got a xent.SparseTargets. Call cross_entropy, which takes it."
        )


def tail(function: str, method: str, predictions: Any, options: Any, weights: Any) -> None:
    """A tail is in a call that has a place for it."""
    if method in ("partial", "gradient"):
        raise ValueError(
            f"{function}: `targets` must have no tail for a slice of the classes, got one. "
            "Call cross_entropy on all classes, or leave the tail out."
        )
    if options.kind != "logits":
        raise ValueError(
            f'{function}: `kind` must be "logits" for targets with a tail, got {options.kind!r}. '
            "Pass logits, or log-probabilities as logits."
        )
    for name, value in (("class_weight", weights.classes), ("label_smoothing", options.label_smoothing or None)):
        if value is not None:
            raise ValueError(
                f"{function}: `{name}` must be left out for targets with a tail, which is several classes, "
                f"got {shown(value)}. Put it into the weights of the targets."
            )
