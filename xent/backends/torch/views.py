"""The memory of torch's tensors as NumPy or CuPy sees it, without a copy, and results as tensors again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ...arrays import Array
from ...contract.plan import Plan
from ...contract.problem import NO_WEIGHTS, Weights

Run = Callable[..., Any]


class Unreadable(Exception):
    """The tensor has no memory that can be read."""


def is_readable(tensor: Array) -> bool:
    """Whether the tensor has values of its own, and not their opposites: not inside a vmap over gradients."""
    try:
        tensor.data_ptr()
    except RuntimeError:
        return False
    return not tensor.is_neg()


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


class HostView:
    """The memory of tensors on the CPU as NumPy's arrays."""

    array_of = staticmethod(array_of)
    """The memory of a tensor as an array."""

    def see(self, value: Any) -> Any:
        """The memory of a tensor, or of each in a tuple, as an array; anything else as it is."""
        if isinstance(value, tuple):
            return map_tuple(self.see, value)
        return self.array_of(value) if isinstance(value, torch.Tensor) else value

    tensor_of = staticmethod(tensor_of)
    """A tensor on the memory of an array."""

    def wrap(self, value: Any) -> Any:
        """An array, or a tuple of them, as tensors on the same memory; None stays None."""
        if value is None:
            return None
        return map_tuple(self.wrap, value) if isinstance(value, tuple) else self.tensor_of(value)

    def on_stream(self, tensor: Array) -> contextlib.AbstractContextManager[Any]:
        """A context in which the view's library works in the order of torch's work."""
        return NO_CONTEXT

    def call(
        self,
        run: Run,
        plan: Plan,
        predictions: Array,
        targets: Array | None,
        weights: Weights,
        out: Array | None = None,
    ) -> Any:
        """The result of a plan's ``run`` on the memory of the tensors, as tensors."""
        if weights is not NO_WEIGHTS:
            weights = Weights(*map(self.see, weights))
        array_of = self.array_of
        seen = (array_of(predictions), None if targets is None else array_of(targets), weights)
        result = run(plan, *seen) if out is None else run(plan, *seen, array_of(out))
        return self.wrap(result) if isinstance(result, tuple) else self.tensor_of(result)


class GpuView(HostView):
    """The memory of tensors on a GPU as CuPy's arrays, which are to be seen on torch's stream."""

    @staticmethod
    def array_of(tensor: Array) -> Any:
        import cupy

        return cupy.from_dlpack(tensor.detach())

    tensor_of = staticmethod(torch.from_dlpack)

    @contextlib.contextmanager
    def on_stream(self, tensor: Array) -> Iterator[None]:
        import cupy

        index, ours = tensor.device.index, torch.cuda.current_stream(tensor.device)
        if hasattr(cupy.cuda.Stream, "from_external"):
            has_protocol = hasattr(ours, "__cuda_stream__")
            theirs = cupy.cuda.Stream.from_external(ours if has_protocol else StreamHandle(ours.cuda_stream))
        else:  # CuPy 13
            theirs = cupy.cuda.ExternalStream(ours.cuda_stream, index)
        with cupy.cuda.Device(index), theirs:
            yield

    def call(self, run: Run, plan: Plan, predictions: Array, *rest: Any) -> Any:
        with self.on_stream(predictions):
            return super().call(run, plan, predictions, *rest)


class TensorView(HostView):
    """Tensors as they are, without autograd: no other library sees their memory."""

    array_of = staticmethod(torch.Tensor.detach)

    @staticmethod
    def tensor_of(array: Array) -> Array:
        return array

    def on_stream(self, tensor: Array) -> contextlib.AbstractContextManager[Any]:
        context: contextlib.AbstractContextManager[Any] = torch.no_grad()
        return context

    def call(self, run: Run, plan: Plan, *arguments: Any) -> Any:
        with torch.no_grad():
            return super().call(run, plan, *arguments)


class StreamHandle:
    """A stream by its address, with the protocol that torch's own streams have since 2.10."""

    def __init__(self, address: int):
        self.address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


def map_tuple(function: Callable[[Any], Any], values: tuple[Any, ...]) -> Any:
    """The function of every item, in a tuple of the same type."""
    items = [function(value) for value in values]
    return type(values)(*items) if hasattr(values, "_fields") else tuple(items)


NO_CONTEXT = contextlib.nullcontext()
VIEWS = {"numpy": HostView(), "cupy": GpuView(), "torch": TensorView()}
"""The view of each library that a plan may compute with; its own plan has torch compute itself."""


def inner_plan(plan: Plan, predictions: Array) -> Plan:
    """The inner plan that serves this call; without one, the plan itself."""
    inner = plan.inner
    if inner is None:
        return plan
    if inner.guard is None:
        return inner
    if inner.problem.is_product:
        return inner.for_call(predictions)
    size = predictions.element_size()
    return inner.for_call(predictions, tuple(stride * size for stride in predictions.stride()))
