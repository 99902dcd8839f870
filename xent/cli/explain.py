"""A question to :func:`xent.explain` in words: the library, dtype and shape of the arrays in place of arrays.

Small arrays are made for it, whose values nobody reads. Leaves out weights, and the GPUs of torch and JAX.
"""

from __future__ import annotations

import importlib
from contextlib import nullcontext
from typing import Any

import xent

from .. import arrays

DTYPES = ("bool", "bfloat16", *(f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)))


class Unavailable(ModuleNotFoundError):
    """The library is not installed, or it cannot make such an array here."""


def ask(
    function: str,
    *,
    array: str,
    dtype: str,
    shape: str,
    gradient: bool,
    target_dtype: str | None = None,
    **options: Any,
) -> xent.Decision:
    """The decision for a call of a loss, or of a loss with its gradient, on such arrays.

    The shape is lengths with commas between them. Without ``target_dtype`` labels are int64, and other targets of the
    dtype of the predictions.

    Raises
    ------
    Unavailable
        If the library is not installed, or cannot make such an array here.
    TypeError, ValueError
        If the shape is none, or the library has no such dtype, and as :func:`xent.explain` does.
    """
    loss, sizes = getattr(xent, function), lengths(shape)
    rest = sizes
    if function == "sparse_cross_entropy":
        axis = options.get("axis", -1)
        rest = tuple(size for index, size in enumerate(sizes) if index not in (axis, axis + len(sizes)))
        target_dtype = target_dtype or "int64"
    predictions, targets = blank(array, dtype, sizes), blank(array, target_dtype or dtype, rest)
    return xent.explain(xent.value_and_grad(loss) if gradient else loss, predictions, targets, **options)


def lengths(shape: str) -> tuple[int, ...]:
    """The lengths of the axes."""
    sizes = shape.split(",")
    if not all(size.strip().isdecimal() for size in sizes):
        raise ValueError(f"explain: `shape` must be lengths of axes, got {shape}. Pass such as 4,10.")
    return tuple(map(int, sizes))


def blank(library: str, dtype: str, shape: tuple[int, ...]) -> Any:
    """An array of the library; its values are whatever is there."""
    try:
        return empty(library, dtype, shape)
    except (ImportError, MemoryError, RuntimeError) as error:  # RuntimeError: CuPy without a GPU
        raise Unavailable(f"explain: no {dtype} array of {library} can be made here: {error}") from error


def empty(library: str, dtype: str, shape: tuple[int, ...]) -> Any:
    """An array made as its library makes it."""
    if library == "dask":
        chunk = empty("numpy", dtype, shape)
        return importlib.import_module("dask.array").from_array(chunk, name=False)  # name: do not hash it
    xp = importlib.import_module(arrays.COMPAT.get(library, library))
    borrows = dtype == "bfloat16" and library in ("numpy", "cupy")
    dtypes = importlib.import_module("ml_dtypes") if borrows else xp
    if dtype not in DTYPES or not hasattr(dtypes, dtype):
        raise ValueError(f"explain: `dtype` must be one of {library}, got {dtype}. Choose another.")
    with sixty_four_bits() if library == "jax" else nullcontext():
        return xp.empty(shape, dtype=getattr(dtypes, dtype))


def sixty_four_bits() -> Any:
    """Where JAX makes the arrays of 64 bits that it is asked for."""
    jax = importlib.import_module("jax")
    return jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64()
