"""A call of :func:`xent.explain` from the library, dtype and shape of its arrays, in place of the arrays.

Empty arrays are made for it; their values are never read. Leaves out weights, and the GPUs of torch and JAX.
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


def explain_call(
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

    The shape is lengths with commas between them. Without ``target_dtype`` labels are int64, and other targets have the
    dtype of the predictions.

    Raises
    ------
    Unavailable
        If the library is not installed, or cannot make such an array here.
    TypeError, ValueError
        If the shape cannot be read, or the library has no such dtype, and as :func:`xent.explain` does.
    """
    loss = getattr(xent, function)
    targets_shape = predictions_shape = parse_shape(shape)
    if function == "sparse_cross_entropy":
        axis, ndim = options.get("axis", -1), len(predictions_shape)
        targets_shape = tuple(n for i, n in enumerate(predictions_shape) if i not in (axis, axis + ndim))
        target_dtype = target_dtype or "int64"
    predictions = make_array(array, dtype, predictions_shape)
    targets = make_array(array, target_dtype or dtype, targets_shape)
    return xent.explain(xent.value_and_grad(loss) if gradient else loss, predictions, targets, **options)


def parse_shape(shape: str) -> tuple[int, ...]:
    """The lengths of the axes, from a text such as ``4,10``."""
    sizes = shape.split(",")
    if not all(size.strip().isdecimal() for size in sizes):
        raise ValueError(f"explain: `shape` must be lengths of axes, got {shape}. Pass such as 4,10.")
    return tuple(map(int, sizes))


def make_array(library: str, dtype: str, shape: tuple[int, ...]) -> Any:
    """An empty array of the library, or Unavailable if this machine cannot make one."""
    try:
        return empty_array(library, dtype, shape)
    except (ImportError, MemoryError, RuntimeError) as error:  # RuntimeError: CuPy without a GPU
        raise Unavailable(f"explain: no {dtype} array of {library} can be made here: {error}") from error


def empty_array(library: str, dtype: str, shape: tuple[int, ...]) -> Any:
    """An array without values that were set, by the library's own ``empty``."""
    if library == "dask":
        chunk = empty_array("numpy", dtype, shape)
        return importlib.import_module("dask.array").from_array(chunk, name=False)  # name: do not hash it
    xp = importlib.import_module(arrays.COMPAT.get(library, library))
    has_no_bfloat16 = library in ("numpy", "cupy")
    dtypes = importlib.import_module("ml_dtypes") if dtype == "bfloat16" and has_no_bfloat16 else xp
    if dtype not in DTYPES or not hasattr(dtypes, dtype):
        raise ValueError(f"explain: `dtype` must be one of {library}, got {dtype}. Choose another.")
    with jax_x64() if library == "jax" else nullcontext():
        return xp.empty(shape, dtype=getattr(dtypes, dtype))


def jax_x64() -> Any:
    """A context in which JAX makes arrays of 64 bits; otherwise it makes them of 32."""
    jax = importlib.import_module("jax")
    return jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64()
