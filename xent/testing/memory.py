"""Arrays as they may lie in memory, between poison: the same values in every form that a kernel may be handed."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
MARGIN = 67
"""Elements of poison before and after every array, at least, and between its rows where they stand apart."""
LINE = 64
"""Bytes to a multiple of which the first element of a NumPy array is brought, but for those that lie one element on."""
FORMS = ("plain", "one element on", "rows apart", "every other class", "every other row", "Fortran order")
NUMPY_FORMS = (*FORMS, "reversed", "misaligned", "read-only", "byte-swapped", "one row repeated")


@dataclass(frozen=True)
class ArrayLibrary:
    """How the arrays of a library are made of NumPy's, and the other way.

    Parameters
    ----------
    name : str
        Root module of the array type.
    asarray, to_numpy : callable
    forms : tuple of str
        Of :data:`NUMPY_FORMS`, those that its arrays can take.
    is_mutable : bool
        Whether a kernel can be handed ``out``.
    device : str
        The kind of device that its arrays are on.
    flushes : bool
        Whether it takes subnormal numbers for 0.
    """

    name: str
    asarray: Callable[[Array], Any]
    to_numpy: Callable[[Any], Array]
    forms: tuple[str, ...] = ("plain",)
    is_mutable: bool = False
    device: str = "cpu"
    flushes: bool = False

    def keeps(self, dtype: Any) -> bool:
        """Whether its arrays have the dtype; JAX takes float64 for float32 unless it is told otherwise."""
        return bool(self.to_numpy(self.asarray(np.zeros(1, dtype))).dtype == dtype)


def torch_array(array: Array) -> Any:
    """A torch tensor on the CPU with these values."""
    torch = importlib.import_module("torch")
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def of_torch(tensor: Any) -> Array:
    """The values of a torch tensor, wherever it is."""
    torch, tensor = importlib.import_module("torch"), tensor.detach().cpu()
    if tensor.dtype != torch.bfloat16:
        return np.asarray(tensor.numpy())
    return np.asarray(tensor.view(torch.int16).numpy().view(importlib.import_module("ml_dtypes").bfloat16))


def array_library(name: str) -> ArrayLibrary:
    """What is known of a library. ImportError where it is not installed, RuntimeError with the reason where it cannot
    compute here, LookupError where nothing is known of it."""
    if name == "numpy":
        return ArrayLibrary(name, np.asarray, np.asarray, NUMPY_FORMS, is_mutable=True)
    if name == "torch":
        importlib.import_module("torch")
        return ArrayLibrary(name, torch_array, of_torch, FORMS, is_mutable=True)
    if name == "cupy":
        cupy = importlib.import_module("cupy")
        if not cupy.cuda.is_available():
            raise RuntimeError("CuPy finds no GPU here")
        return ArrayLibrary(
            name, cupy.asarray, cupy.asnumpy, (*FORMS, "reversed"), is_mutable=True, device="cuda", flushes=True
        )
    if name == "jax":
        return ArrayLibrary(name, importlib.import_module("jax.numpy").asarray, np.asarray, flushes=True)
    if name == "array_api_strict":
        return ArrayLibrary(name, importlib.import_module(name).asarray, np.asarray)
    raise LookupError(f"nothing is known of {name}; pass library=ArrayLibrary({name!r}, asarray, to_numpy)")


@dataclass(frozen=True)
class Laid:
    """An array in memory of its own.

    Attributes
    ----------
    array : array
        What a kernel is handed.
    base : array
        The whole memory, poison and all; the array itself where the library's cannot be written to.
    before : NumPy array
        What the whole memory held at first.
    beside : NumPy array, bool
        Which elements of the whole memory are not the array's.
    """

    array: Any
    base: Any
    before: Array
    beside: Array


def lay(values: Array, form: str = "plain", library: ArrayLibrary | None = None, poison: float = math.nan) -> Laid:
    """These values in memory of the given form, of NumPy unless a library is given, with poison around and between.

    The last axis but one counts as the rows, the last as the classes; of one axis the forms are about that one.
    """
    asarray, to_numpy = (np.asarray, np.asarray) if library is None else (library.asarray, library.to_numpy)
    if library is not None and not library.is_mutable:
        array = asarray(np.array(values))
        return Laid(array, array, np.array(to_numpy(array)), np.zeros(values.shape, bool))
    dtype, shape = values.dtype, values.shape
    if form == "byte-swapped" and dtype.kind in "fi":
        dtype = dtype.newbyteorder()
    room = room_of(shape, form)
    memory, start = allocated(math.prod(room), dtype, form)
    memory[...] = poison if dtype.kind not in "iub" else 3
    base, beside = asarray(memory), np.ones(memory.shape, bool)
    inner = cut(base, start, room, shape, form)
    cut(beside, start, room, shape, form)[...] = False
    if form == "one row repeated":
        inner[...] = asarray(np.ascontiguousarray(values[..., :1, :] if len(shape) > 1 else values[:1]))
        inner = np.broadcast_to(inner, shape)
    else:
        inner[...] = asarray(np.ascontiguousarray(values))
    if form == "read-only":
        inner.flags.writeable = False
    return Laid(inner, base, np.array(to_numpy(base)), beside)


def room_of(shape: tuple[int, ...], form: str) -> tuple[int, ...]:
    """The shape of the memory that an array of the form is cut from."""
    room = list(shape)
    if form == "every other row":
        room[max(-2, -len(room))] *= 2
    if form == "every other class":
        room[-1] *= 2
    if form == "rows apart":
        room[-1] += MARGIN
    if form == "one row repeated":
        room[max(-2, -len(room))] = 1
    return tuple(room[::-1] if form == "Fortran order" else room)


def allocated(size: int, dtype: Any, form: str) -> tuple[Array, int]:
    """Memory for so many elements between margins, and where they begin: at the start of a cache line, or one on."""
    memory: Array = np.empty(size + 2 * MARGIN + LINE, dtype)
    if form == "misaligned":
        return np.empty(memory.nbytes + 1, np.uint8)[1:].view(dtype), MARGIN
    start = MARGIN + -(memory.ctypes.data // dtype.itemsize + MARGIN) % (LINE // dtype.itemsize)
    return memory, start + (form == "one element on")


def cut(base: Any, start: int, room: tuple[int, ...], shape: tuple[int, ...], form: str) -> Any:
    """The array of the form that begins there in the memory."""
    inner = base[start : start + math.prod(room)].reshape(room)
    if form == "Fortran order":
        return inner.T if len(room) > 1 else inner
    if form == "every other row":
        return inner[..., ::2, :] if len(room) > 1 else inner[::2]
    if form == "every other class":
        return inner[..., ::2]
    if form == "rows apart":
        return inner[..., : shape[-1]]
    return inner[(slice(None, None, -1),) * len(room)] if form == "reversed" else inner
