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
"""Elements of poison before and after every array, and between its rows where they stand apart."""
FORMS = ("plain", "rows apart", "every other class", "every other row", "Fortran order")
NUMPY_FORMS = (*FORMS, "reversed", "misaligned", "read-only", "byte-swapped")


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
    """

    name: str
    asarray: Callable[[Array], Any]
    to_numpy: Callable[[Any], Array]
    forms: tuple[str, ...] = ("plain",)
    is_mutable: bool = False


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
        return ArrayLibrary(name, cupy.asarray, cupy.asnumpy, (*FORMS, "reversed"), is_mutable=True)
    if name == "jax":
        return ArrayLibrary(name, importlib.import_module("jax.numpy").asarray, np.asarray)
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
    """

    array: Any
    base: Any
    before: Array


def lay(values: Array, form: str = "plain", library: ArrayLibrary | None = None, poison: float = math.nan) -> Laid:
    """These values in memory of the given form, of NumPy unless a library is given, with poison around and between.

    The last axis but one counts as the rows, the last as the classes; of one axis the forms are about that one.
    """
    asarray, to_numpy = (np.array, np.asarray) if library is None else (library.asarray, library.to_numpy)
    if library is not None and not library.is_mutable:
        array = asarray(values)
        return Laid(array, array, values)
    shape, dtype = values.shape, values.dtype
    filler = poison if dtype.kind not in "iub" else 3
    if form == "byte-swapped" and dtype.kind in "fi":
        dtype = dtype.newbyteorder()
    step = {"every other row": (-2, 2), "every other class": (-1, 2), "rows apart": (-1, 1)}.get(form)
    axis = 0 if step is None else max(step[0], -len(shape))
    room = list(shape) if shape else [1]
    if step is not None:
        room[axis] = room[axis] * step[1] + (MARGIN if form == "rows apart" else 0)
    if form == "Fortran order":
        room = room[::-1]
    size = math.prod(room)
    memory = np.full(size + 2 * MARGIN, filler, dtype)
    if form == "misaligned":
        memory = np.full(memory.nbytes + 1, 0, np.uint8)[1:].view(dtype)
        memory[...] = filler
    base = asarray(memory)
    inner = base[MARGIN : MARGIN + size].reshape(tuple(room))
    if form == "Fortran order" and len(room) > 1:
        inner = inner.T
    if step is not None:
        cut = [slice(None)] * len(room)
        cut[axis] = slice(0, shape[axis] * step[1], step[1])
        inner = inner[tuple(cut)]
    if form == "reversed":
        inner = inner[(slice(None, None, -1),) * len(room)]
    inner[...] = asarray(np.ascontiguousarray(values))
    if form == "read-only":
        inner.flags.writeable = False
    return Laid(inner, base, np.array(to_numpy(base)))


def inside(shape: tuple[int, ...], form: str) -> Array:
    """Which elements of the whole memory of :func:`lay` belong to the array: bool, of one dimension."""
    return np.asarray(lay(np.ones(shape, np.uint8), form).base == 1)
