"""Preconditions of ``out``, the array that a gradient goes into."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from .. import arrays
from ..arrays import Array, describe
from .array_shapes import expect
from .array_types import array, same_placement
from .call_options import WEIGHTS
from .plain_values import describe_type, shown

WITHOUT_OUT = {
    "dask": "Leave it out, and store the gradient that is returned: dask.array.store(gradient, out).",
    "jax": "Leave it out; jax.jit with donate_argnums=0 gives the memory of the predictions to the gradient.",
}
"""What to write instead of ``out``, by library."""


def output(plan: Any, predictions: Array, targets: Array | None, weights: Any, out: Any) -> None:
    """The array for a gradient can take it: like the predictions, and in memory of its own or all of theirs."""
    function, root = plan.problem.function, plan.problem.array
    if plan.problem.is_product:
        raise TypeError(
            f"{function}: `out` must be None for a xent.Linear, which has several gradients, got {shown(out)}. "
            "Leave it out, and take the gradients that are returned."
        )
    if not plan.takes_out:
        raise TypeError(
            f"{function}: `out` must be None on {root}, whose arrays are not written to, got {shown(out)}. "
            f"{WITHOUT_OUT.get(root, 'Leave it out, and take the gradient that is returned.')}"
        )
    if isinstance(out, list | tuple | dict):
        raise TypeError(
            f"{function}: `out` must be one array, for there is one gradient, got {describe_type(out)}. Pass the array."
        )
    if type(out) is not type(predictions) or root != "numpy":
        array(function, "out", out, predictions)
        same_placement(function, predictions, "out", out)
    if out.dtype != predictions.dtype:
        name = arrays.dtype_name(predictions.dtype)
        order = " in another byte order" if arrays.dtype_name(out.dtype) == name else ""
        raise TypeError(
            f"{function}: `out` must have the dtype of `predictions` ({name}), got {describe(out)}{order}. "
            "Pass an array like the predictions."
        )
    if out.shape != predictions.shape:
        expect(function, "out", out, tuple(predictions.shape), "that of the predictions")
    if getattr(out, "requires_grad", False) and sys.modules["torch"].is_grad_enabled():
        raise ValueError(
            f"{function}: `out` must require no gradient where torch records them, got {describe(out)} that does. "
            "Pass out.detach(), which is the same memory, or call under torch.no_grad()."
        )
    output_memory(function, predictions, (("targets", targets), *zip(WEIGHTS, weights[:3], strict=True)), out)


def output_memory(function: str, predictions: Array, others: Iterable[tuple[str, Any]], out: Array) -> None:
    """The memory of the array for a gradient can be written to, each element in a place of its own."""
    place = arrays.memory(out)
    if place is None:
        raise TypeError(
            f"{function}: `out` must be an array whose memory can be seen, got {describe(out)}. "
            "Leave it out, and assign the gradient that is returned: out[...] = gradient."
        )
    if not place.flags.writeable:
        raise ValueError(f"{function}: `out` must be writable, got {describe(out)} that is read-only. Pass a copy.")
    if 0 in place.shape:
        return
    if arrays.may_overlap_itself(place):
        raise ValueError(
            f"{function}: `out` must have a place of its own for each element, got {describe(out)} whose strides may "
            "bring two to one place. Pass a copy."
        )
    ours = arrays.memory(predictions)
    is_shared = ours is not None and ours is not place and arrays.share_memory(place, ours)
    if is_shared and not arrays.is_same_memory(place, ours):
        raise ValueError(
            f"{function}: `out` must share no memory with `predictions`, or be the same memory element for element, "
            f"got {describe(out)} that overlaps them. Pass the predictions themselves, or an array of its own."
        )
    for name, value in others:
        other = None if value is None or not hasattr(value, "shape") else arrays.memory(value)
        if other is not None and arrays.share_memory(place, other):
            name = "labels" if name == "targets" and function == "sparse_cross_entropy" else name
            raise ValueError(
                f"{function}: `out` must share no memory with `{name}`, got {describe(out)} that does. "
                "Pass an array of its own, or the predictions themselves."
            )


def no_output_in_graph(function: str, out: Any) -> None:
    """A call that a framework traces or transforms has no array for its gradient."""
    if out is not None:
        raise TypeError(
            f"{function}: `out` must be None where torch traces or transforms the call, got {shown(out)}. "
            "Leave it out: the compiler plans the memory."
        )
