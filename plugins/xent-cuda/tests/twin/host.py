"""Genuine arrays of CuPy's in the host's memory, for tests without a driver or a GPU.

Their type, dtype, device and strides are as on a GPU; CuPy computes nothing with them. Each piece of memory ends where
its array ends, and is NaN at first.
"""

import ctypes

import cupy
import numpy as np

libc = ctypes.CDLL(None)
libc.aligned_alloc.restype = ctypes.c_void_p
libc.aligned_alloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]


class Memory:
    """Some bytes of the host's, which CuPy takes for a GPU's."""

    def __init__(self, size: int) -> None:
        self.address = libc.aligned_alloc(16, size)
        ctypes.memset(self.address, 0xFF, size)

    def __del__(self) -> None:
        libc.free(self.address)


def allocate(size: int, device: int = 0) -> cupy.cuda.MemoryPointer:
    """An allocator for ``cupy.cuda.set_allocator``."""
    memory = Memory(max(size, 1))
    return cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(memory.address, max(size, 1), memory, device), 0)


def seen(array: cupy.ndarray) -> np.ndarray:
    """The memory of an array of CuPy's as one of NumPy's."""
    if array.size == 0:
        return np.empty(array.shape, array.dtype)
    lowest = sum(min(0, (n - 1) * stride) for n, stride in zip(array.shape, array.strides, strict=True))
    reach = sum(abs((n - 1) * stride) for n, stride in zip(array.shape, array.strides, strict=True)) + array.itemsize
    raw = np.frombuffer((ctypes.c_char * reach).from_address(array.data.ptr + lowest), np.uint8)
    return np.ndarray(array.shape, array.dtype, raw, -lowest, array.strides)


def put(array: np.ndarray, device: int = 0) -> cupy.ndarray:
    """An array of CuPy's with these values."""
    array = np.asarray(array)
    copy = cupy.ndarray(array.shape, array.dtype, allocate(array.nbytes, device))
    seen(copy)[...] = array
    return copy
