"""The GPU through CuPy: its properties, its memory, and launches on its current stream.

Nothing here waits for the GPU or makes a stream, and all memory is from CuPy's pool. An instance of a kernel is
compiled at its first launch and cached on disk by CuPy.
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
DEFAULT_SHARED_BYTES = 48 << 10
"""Bytes of shared memory that a block may have without opting in."""
lock = threading.Lock()


@functools.cache
def source() -> str:
    """The text of all kernels."""
    return importlib.resources.files("xent_cuda").joinpath("xent.cu").read_text(encoding="utf-8")


@functools.cache
def properties(index: int) -> Device:
    """The properties of a GPU. CuPy's own error if there is none."""
    import cupy

    device = cupy.cuda.Device(index)
    attributes = device.attributes
    return Device(
        int(device.compute_capability),
        attributes["MultiProcessorCount"],
        attributes["MaxSharedMemoryPerBlockOptin"],
        attributes["MaxSharedMemoryPerMultiprocessor"],
    )


@functools.cache
def compiled(kernel: str, index: int, opts_in: bool) -> Any:
    """A kernel, ready to be launched on a GPU, which must be the current one."""
    import cupy

    module = cupy.RawModule(code=source(), options=OPTIONS, name_expressions=(kernel,))
    function = module.get_function(kernel)
    if opts_in:
        function.max_dynamic_shared_size_bytes = properties(index).shared_bytes
    return function


class Gpu:
    """Memory and launches on the GPU of an array."""

    def properties(self, array: Array) -> Device:
        """The properties of an array's GPU."""
        return properties(array.device.id)

    def address(self, array: Array) -> int:
        return int(array.data.ptr)

    def on(self, array: Array) -> Any:
        """A context in which CuPy works on an array's GPU."""
        return array.device

    def empty(self, shape: tuple[int, ...], dtype: Any, like: Array) -> Array:
        """A new array on the GPU of another."""
        import cupy

        with like.device:
            return cupy.empty(shape, dtype)

    def contiguous(self, array: Array, dtype: Any) -> Array:
        """The same values, contiguous and in a dtype; a copy if they are not."""
        import cupy

        with array.device:
            return cupy.ascontiguousarray(array, dtype)

    def launch(self, launch: Launch, task: np.ndarray[Any, Any], like: Array) -> None:
        """Launches a kernel on the GPU of an array, on its current stream."""
        with like.device:
            with lock:
                kernel = compiled(launch.kernel, like.device.id, launch.shared_bytes > DEFAULT_SHARED_BYTES)
            kernel((launch.blocks,), (launch.threads,), (task,), shared_mem=launch.shared_bytes)
