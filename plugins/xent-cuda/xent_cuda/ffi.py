"""The kernels as targets of XLA's foreign function interface: what JAX calls on a GPU, compiled or not.

A target is a function of Python's behind a C function: it reads the call frame, sees XLA's memory as CuPy's arrays,
plans and launches on XLA's own stream, and waits for nothing. It has never run on a GPU; tests/test_ffi.py has XLA call
it on a processor, with the twin in the GPU's place.

Leaves out the layout of XLA's structures (``frames.py``) and all that JAX does with a target (xent's ``backends/jax``).
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any

from xent.kernels import register_target, why_no_targets

from . import frames, kernels

Array = Any


def array_of(memory: frames.Memory, ordinal: int) -> Array:
    """The array as CuPy sees it: XLA's memory, not CuPy's."""
    import cupy

    owner = cupy.cuda.UnownedMemory(memory.address, max(memory.size, 1), None, ordinal)
    return cupy.ndarray(memory.shape, memory.dtype, cupy.cuda.MemoryPointer(owner, 0))


@contextlib.contextmanager
def current(ordinal: int, stream: int) -> Any:
    """A context in which CuPy works on a GPU and on a stream of XLA's."""
    import cupy

    with cupy.cuda.Device(ordinal), cupy.cuda.ExternalStream(stream, ordinal):
        yield


def rows_of(array: Array, classes: int) -> Array:
    """An array (*batch, classes) as (rows, classes)."""
    return array.reshape((-1, classes))


def launch(kernel: kernels.CudaKernel, method: str, frame: frames.CallFrame) -> None:
    """Launches a method of a kernel on what a call frame holds."""
    ordinal, stream = frames.stream(frame)
    with current(ordinal, stream):
        logits, targets, *scale = (array_of(memory, ordinal) for memory in frames.memories(frame.arguments))
        losses, *gradient = (array_of(memory, ordinal) for memory in frames.memories(frame.results))
        classes = logits.shape[-1]
        if targets.ndim == logits.ndim:
            call = kernel.call(rows_of(logits, classes), rows_of(targets, classes))
        else:
            attributes = frames.numbers(frame.attributes)
            call = kernel.call(rows_of(logits, classes), targets.reshape(-1), attributes["on"], attributes["off"])
        call.bind("loss", losses.reshape(-1))
        for numbers, slope in zip(scale, gradient, strict=True):
            call.bind_scale(numbers.reshape(-1))
            call.bind("gradient", rows_of(slope, classes), "gradient_stride")
        call.run(method)


def handler_of(kernel: kernels.CudaKernel, method: str) -> Callable[[int], int]:
    """What XLA calls with the address of a call frame: 0, or the address of an error."""

    def handler(address: int) -> int:
        frame = frames.CallFrame.from_address(address)
        if frames.answers_metadata(frame):
            return 0
        try:
            launch(kernel, method, frame)
        except BaseException as error:  # nothing may be raised into XLA, which raises it in the caller
            return frames.error(frame, f"xent-cuda: {type(error).__name__}: {error}")
        return 0

    return handler


def check() -> str:
    """Why there can be no targets; empty if there can."""
    import jax

    reason = why_no_targets(jax.ffi, frames.MAJOR)
    if reason:
        return reason
    return "" if jax.default_backend() == "gpu" else f"JAX computes on {jax.default_backend()}, not on a GPU"


def made(handler: Callable[[int], int]) -> tuple[int, Any]:
    """The address of a C function that calls a handler, and what keeps it alive."""
    function = frames.Handler(handler)
    return ctypes.cast(function, ctypes.c_void_p).value or 0, function


class Kernel:
    """The kernel for labels or for soft targets, as xent's schedule for JAX calls it."""

    ffi_platform = "cuda"

    def __init__(self, op: str, kernel: kernels.CudaKernel) -> None:
        self.op, self.kernel = op, kernel

    def ffi_target(self, method: str, dtype: str) -> str:
        """The name of the target for a method, "loss" or "loss_and_gradient", and a dtype of the logits."""
        import jax

        name = f"xent_cuda_{self.op}_{method}_{dtype}"
        return register_target(jax.ffi, name, "CUDA", lambda: made(handler_of(self.kernel, method)))


sparse, dense = Kernel("sparse", kernels.sparse), Kernel("dense", kernels.dense)
