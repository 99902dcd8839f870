"""What xent.compat.torch, optax and sklearn share: how what they are given is told apart, looked at and laid out."""

from __future__ import annotations

import sys
from typing import Any

from array_api_compat import array_namespace, device, is_dask_array, is_jax_array, is_lazy_array, is_torch_array

Array = Any


def fits(array: Array, shape: tuple[int, ...]) -> bool:
    """Whether the array has the shape; a size that Dask does not know, NaN, fits any."""
    sizes = tuple(array.shape)
    return len(sizes) == len(shape) and all(a == b or a != a or b != b for a, b in zip(sizes, shape, strict=True))


def is_integer(array: Array) -> bool:
    """Whether the array holds integers or bools, by name: NumPy's isdtype knows no bfloat16."""
    return "int" in str(array.dtype) or "bool" in str(array.dtype)


def wide_dtype(xp: Any, array: Array) -> Any:
    """float32 for half precision, else the array's own."""
    return xp.float32 if getattr(array.dtype, "itemsize", 4) == 2 else array.dtype


def is_readable(array: Array) -> bool:
    """Whether the values can be looked at for nothing: on the host, neither lazy nor under a transform of torch's."""
    if is_lazy_array(array) or "cpu" not in str(device(array)).lower():
        return False
    torch = sys.modules.get("torch")
    if torch is None or not is_torch_array(array):
        return True
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is None


def beside(array: Array) -> dict[str, Any]:
    """Where to put a new array: Dask and JAX have no place of their own to name."""
    return {} if is_dask_array(array) or is_jax_array(array) else {"device": device(array)}


def expanded(array: Array, axis: int) -> Array:
    """The array with one axis more; Dask's expand_dims cannot where it knows no number of rows."""
    return array[(*[slice(None)] * axis, None, ...)]


def wide_labels(labels: Array, classes: int) -> Array:
    """The labels in the library's own integers: int8 may not hold the classes."""
    xp = array_namespace(labels)
    return xp.astype(labels, xp.asarray(classes).dtype, copy=False)


def is_label(labels: Array, classes: int, axis: int) -> Array:
    """Which class is the label of its row: none where it is out of range."""
    xp, wide = array_namespace(labels), wide_labels(labels, classes)
    every = xp.arange(classes, dtype=wide.dtype, **beside(labels))
    return expanded(wide, axis) == xp.reshape(every, (classes, *[1] * (labels.ndim - axis)))
