"""The GPU, as CuPy has it: its numbers, its memory, and launches on its current stream.

Nothing here waits for the GPU, makes a stream, or takes memory but from CuPy's pool. An instance of a kernel is
compiled when it is first launched, and kept by CuPy on disk.
"""

from __future__ import annotations

import functools
import importlib.resources
import threading
from typing import Any

import numpy as np

from .plan import Device, Launch

Array = Any
# subtle: without -fmad=false the same expression may be rounded otherwise in another instance, and a row's bits differ
OPTIONS = ("-std=c++17", "-fmad=false")
WITHOUT_ASKING = 48 << 10
"""Bytes of shared memory that a block may have without opting in."""
lock = threading.Lock()


@functools.cache
def source() -> str:
    """The text of all kernels."""
    return importlib.resources.files("xent_cuda").joinpath("xent.cu").read_text(encoding="utf-8")


@functools.cache
def numbers(index: int) -> Device:
    """The numbers of a GPU. CuPy's own error where there is none."""
    import cupy

    device = cupy.cuda.Device(index)
    of = device.attributes
    return Device(
        int(device.compute_capability),
        of["MultiProcessorCount"],
        of["MaxSharedMemoryPerBlockOptin"],
        of["MaxSharedMemoryPerMultiprocessor"],
    )


@functools.cache
def function(kernel: str, index: int, opts_in: bool) -> Any:
    """A kernel, ready to be launched on a GPU, which is the current one."""
    import cupy

    module = cupy.RawModule(code=source(), options=OPTIONS, name_expressions=(kernel,))
    found = module.get_function(kernel)
    if opts_in:
        found.max_dynamic_shared_size_bytes = numbers(index).shared_bytes
    return found


class Gpu:
    """How kernels get memory, and are launched."""

    def device(self, array: Array) -> Device:
        """The numbers of the GPU that has an array."""
        return numbers(array.device.id)

    def address(self, array: Array) -> int:
        return int(array.data.ptr)

    def on(self, array: Array) -> Any:
        """A context in which CuPy's work goes to the GPU that has an array."""
        return array.device

    def empty(self, shape: tuple[int, ...], dtype: Any, like: Array) -> Array:
        """Memory for an array, where another is."""
        import cupy

        with like.device:
            return cupy.empty(shape, dtype)

    def contiguous(self, array: Array, dtype: Any) -> Array:
        """The same values side by side, in a dtype; a copy where they are not."""
        import cupy

        with array.device:
            return cupy.ascontiguousarray(array, dtype)

    def launch(self, launch: Launch, task: np.ndarray[Any, Any], like: Array) -> None:
        """Launches a kernel on the GPU that has an array, on its current stream."""
        with like.device:
            with lock:
                kernel = function(launch.kernel, like.device.id, launch.shared_bytes > WITHOUT_ASKING)
            kernel((launch.blocks,), (launch.threads,), (task,), shared_mem=launch.shared_bytes)
