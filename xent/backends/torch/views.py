"""The memory of torch's tensors as NumPy or CuPy sees it, without a copy, and results as tensors again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from ...arrays import Array
from ...contract.plan import Plan


class Unreadable(Exception):
    """The tensor has no memory that can be read."""


def is_readable(tensor: Array) -> bool:
    """Whether the tensor has values of its own: not inside a vmap over gradients."""
    try:
        tensor.data_ptr()
    except RuntimeError:
        return False
    return True


def array_of(tensor: Array) -> Array:
    """The memory of a tensor as a NumPy array."""
    try:
        return (tensor.detach() if tensor.requires_grad else tensor).numpy()
    except (RuntimeError, TypeError) as error:
        if tensor.dtype is not torch.bfloat16:
            raise Unreadable from error
    import ml_dtypes

    try:
        return tensor.detach().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    except (RuntimeError, TypeError) as error:
        raise Unreadable from error


def tensor_of(array: Array) -> Array:
    """A tensor on the memory of a NumPy array."""
    try:
        return torch.from_numpy(array)
    except TypeError:
        return torch.from_numpy(array.view("uint16")).view(torch.bfloat16)


class View(NamedTuple):
    """The library that reads the memory of the tensors, and the plan that it follows."""

    plan: Plan
    library: str

    def see(self, value: Any) -> Any:
        """The memory of a tensor as an array; anything else as it is."""
        if not isinstance(value, torch.Tensor):
            return value
        if self.library == "numpy":
            return array_of(value)
        value = value.detach()
        if self.library == "cupy":
            import cupy

            return cupy.from_dlpack(value)
        return value

    def wrap(self, value: Any) -> Any:
        """An array, or a tuple of them, as tensors on the same memory."""
        if isinstance(value, tuple):
            items = [self.wrap(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        if self.library == "numpy":
            return tensor_of(value)
        return value if self.library == "torch" else torch.from_dlpack(value)


def view_of(plan: Plan, predictions: Array) -> View:
    """The plan's view of its tensors: the inner plan that serves this call, or torch itself."""
    inner = plan.inner
    if inner is None:
        return View(plan, "torch")
    if inner.guard is not None:
        size = predictions.element_size()
        inner = inner.for_call(predictions, tuple(stride * size for stride in predictions.stride()))
    return View(inner, inner.problem.array)


class StreamHandle:
    """A stream by its address, with the protocol that torch's own streams have since 2.10."""

    def __init__(self, address: int):
        self.address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


@contextlib.contextmanager
def on_stream(view: View, predictions: Array) -> Iterator[None]:
    """A context in which CuPy's work on the tensors goes to torch's stream; the tensors are to be seen inside it.

    It does nothing for other libraries."""
    if view.library != "cupy":
        yield
        return
    import cupy

    ours = torch.cuda.current_stream(predictions.device)
    if hasattr(cupy.cuda.Stream, "from_external"):
        theirs = cupy.cuda.Stream.from_external(
            ours if hasattr(ours, "__cuda_stream__") else StreamHandle(ours.cuda_stream)
        )
    else:  # CuPy 13
        theirs = cupy.cuda.ExternalStream(ours.cuda_stream, predictions.device.index)
    with cupy.cuda.Device(predictions.device.index), theirs:
        yield
