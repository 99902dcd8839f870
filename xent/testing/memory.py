"""Arrays of any library, in every form of memory that a kernel may meet, with poison around and between."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
MARGIN = 67
"""Elements of poison before and after every array, at least, and between its rows in the form "rows apart"."""
LINE = 64
"""Bytes of a cache line, to which the first element of a NumPy array is aligned, but for "one element on"."""
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
        Whether a kernel can be passed ``out``.
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
        """Whether its arrays can be of the dtype; JAX makes float64 into float32 unless its x64 flag is set."""
        return bool(self.to_numpy(self.asarray(np.zeros(1, dtype))).dtype == dtype)

    def copies(self, result: Any) -> list[Array]:
        """The array that a call returned, or each array of a tuple, as copies of NumPy's."""
        return [np.array(self.to_numpy(array)) for array in (result if isinstance(result, tuple) else (result,))]


def array_library(name: str) -> ArrayLibrary:
    """The library of that name.

    Raises ImportError if it is not installed, RuntimeError with the reason if it cannot compute on this machine, and
    LookupError if the kit does not know it.
    """
    if name == "numpy":
        return ArrayLibrary(name, np.asarray, np.asarray, NUMPY_FORMS, is_mutable=True)
    if name == "torch":
        views = importlib.import_module("xent.backends.torch.views")
        return ArrayLibrary(
            name, views.tensor_of, lambda tensor: views.array_of(tensor.detach().cpu()), FORMS, is_mutable=True
        )
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
class PoisonedArray:
    """An array in memory of its own, with poison around it.

    Attributes
    ----------
    array : array
        The argument for a kernel.
    base : array
        The whole memory, poison included; the array itself if arrays of its library are immutable.
    before : NumPy array
        The values of the whole memory at first.
    beside : NumPy array, bool
        True at the elements of the whole memory that are not the array's.
    """

    array: Any
    base: Any
    before: Array
    view: Callable[[Any], Any]
    """The view of the array's elements in any array of the memory's shape."""

    @functools.cached_property
    def beside(self) -> Array:
        beside = np.ones(self.before.shape, bool)
        self.view(beside)[...] = False
        return beside


def lay(
    values: Array, form: str = "plain", library: ArrayLibrary | None = None, poison: float = math.nan
) -> PoisonedArray:
    """The values in memory of the given form, of NumPy unless a library is given, with poison around and between.

    The last axis but one counts as the rows, the last as the classes; of one axis the forms are about that one.
    """
    asarray, to_numpy = (np.asarray, np.asarray) if library is None else (library.asarray, library.to_numpy)
    if library is not None and not library.is_mutable:
        array = asarray(np.array(values))
        return PoisonedArray(array, array, np.array(to_numpy(array)), lambda memory: memory)
    dtype, shape = values.dtype, values.shape
    if form == "byte-swapped" and dtype.kind in "fi":
        dtype = dtype.newbyteorder()
    room = room_of(shape, form)
    memory, start = allocate(math.prod(room), dtype, form)
    memory[...] = poison if dtype.kind not in "iub" else 3
    base, view = asarray(memory), functools.partial(view_in, start=start, room=room, shape=shape, form=form)
    array = view(base)
    if form == "one row repeated":
        array[...] = asarray(np.ascontiguousarray(values[..., :1, :] if len(shape) > 1 else values[:1]))
        array = np.broadcast_to(array, shape)
    else:
        array[...] = asarray(np.ascontiguousarray(values))
    if form == "read-only":
        array.flags.writeable = False
    return PoisonedArray(array, base, np.array(to_numpy(base)), view)


def room_of(shape: tuple[int, ...], form: str) -> tuple[int, ...]:
    """The shape of the memory that an array of the form is a view into."""
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


def allocate(size: int, dtype: Any, form: str) -> tuple[Array, int]:
    """Memory for that many elements between margins, and the index of the first: a cache line's start, or one on."""
    memory: Array = np.empty(size + 2 * MARGIN + LINE, dtype)
    if form == "misaligned":
        return np.empty(memory.nbytes + 1, np.uint8)[1:].view(dtype), MARGIN
    start = MARGIN + -(memory.ctypes.data // dtype.itemsize + MARGIN) % (LINE // dtype.itemsize)
    return memory, start + (form == "one element on")


def view_in(base: Any, start: int, room: tuple[int, ...], shape: tuple[int, ...], form: str) -> Any:
    """The view of the form that begins at ``start`` in the memory."""
    view = base[start : start + math.prod(room)].reshape(room)
    if form == "Fortran order":
        return view.T if len(room) > 1 else view
    if form == "every other row":
        return view[..., ::2, :] if len(room) > 1 else view[::2]
    if form == "every other class":
        return view[..., ::2]
    if form == "rows apart":
        return view[..., : shape[-1]]
    return view[(slice(None, None, -1),) * len(room)] if form == "reversed" else view
