"""What the peers' modules share: what an array is, how it reaches another library, its dtype, its shape, its NaN.

It uses NumPy, array-api-compat and nothing else. A module beside it has the names and the quirks of one peer.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import array_api_compat
import numpy as np

Array = Any
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
ArrayT = TypeVar("ArrayT", bound=Any)
"""The type of the predictions: a function returns what it was handed."""
CONVERSIONS = {
    "list": "Pass numpy.asarray(...) of it",
    "tuple": "Pass numpy.asarray(...) of it",
    "pandas": "Pass its .to_numpy()",
    "polars": "Pass its .to_numpy()",
    "matrix": "Pass numpy.asarray(...) of it",
    "MaskedArray": "Pass its .data, and the mask as sample_weight=~mask",
}
"""How to make an array of what is none, by the name of its type or of its library."""

# -------------------- the caller's context


def is_compiling() -> bool:
    """Whether TorchDynamo is tracing the caller."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_compiling()


def without_fp_warnings(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function without NumPy's floating-point warnings: −inf, +inf and NaN are ordinary values here."""

    @functools.wraps(function)
    def wrapped(*args: Arguments.args, **keywords: Arguments.kwargs) -> Result:
        with contextlib.nullcontext() if is_compiling() else np.errstate(all="ignore"):  # Dynamo traces no errstate
            return function(*args, **keywords)

    return wrapped


# -------------------- what an array is

# The questions of array-api-compat. In a graph of torch's the answer is known: it keeps answers in functools.lru_cache,
# which TorchDynamo warns of.


def array_namespace(array: Any) -> Any:
    """The namespace of the array's library."""
    if is_compiling():
        import array_api_compat.torch as torch_namespace  # a statement: TorchDynamo traces no import_module

        return torch_namespace
    return array_api_compat.array_namespace(array)


def device(array: Array) -> Any:
    """The device of the array."""
    return array.device if is_compiling() else array_api_compat.device(array)


def is_array_api_obj(value: Any) -> bool:
    """Whether the value is an array of any library."""
    return hasattr(value, "shape") if is_compiling() else bool(array_api_compat.is_array_api_obj(value))


def is_numpy_array(value: Any) -> bool:
    """Whether the value is NumPy's."""
    return isinstance(value, np.ndarray) if is_compiling() else bool(array_api_compat.is_numpy_array(value))


def is_torch_array(value: Any) -> bool:
    """Whether the value is torch's."""
    return hasattr(value, "requires_grad") if is_compiling() else bool(array_api_compat.is_torch_array(value))


def is_jax_array(value: Any) -> bool:
    """Whether the value is JAX's."""
    return not is_compiling() and bool(array_api_compat.is_jax_array(value))


def is_dask_array(value: Any) -> bool:
    """Whether the value is Dask's."""
    return not is_compiling() and bool(array_api_compat.is_dask_array(value))


def is_lazy_array(value: Any) -> bool:
    """Whether the values are computed later."""
    return is_compiling() or bool(array_api_compat.is_lazy_array(value))


def unwrap(value: Any) -> Any:
    """The array inside an xarray DataArray; any other value as it is."""
    # subtle: in this order, because Dynamo traces the module of no list
    return value.data if hasattr(value, "dims") and type(value).__module__.startswith("xarray.") else value


def require_array(function: str, name: str, value: Any) -> None:
    """Raises TypeError unless the value is an array of numbers, without a mask of its own."""
    kind, root = type(value).__name__, type(value).__module__.partition(".")[0]
    if kind in ("matrix", "MaskedArray") or not is_array_api_obj(value):
        remedy = CONVERSIONS.get(kind) or CONVERSIONS.get(root) or "Pass an array of NumPy, CuPy, Dask, torch or JAX"
        full = kind if root == "builtins" else f"{root}.{kind}"
        raise TypeError(f"{function}: `{name}` must be an array, got {full}. {remedy}.")
    if getattr(value.dtype, "kind", None) == "O":
        raise TypeError(
            f"{function}: `{name}` must have a numeric dtype, got {describe(value)}. Pass {name}.astype(float)."
        )


def describe(array: Array) -> str:
    """The array in a message: ``float32[32, 10] on cupy``, without its values."""
    return f"{dtype_name(array.dtype)}[{', '.join(map(str, array.shape))}] on {library(array)}"


def library(array: Array) -> str:
    """The name of the array's library in a message."""
    return str(array_namespace(array).__name__).removeprefix("array_api_compat.").partition(".")[0]


def is_readable(array: Array) -> bool:
    """Whether reading the values costs nothing: they are on the host, neither lazy nor under a transform of torch's."""
    if is_lazy_array(array) or "cpu" not in str(device(array)).lower():
        return False
    torch = sys.modules.get("torch")
    if torch is None or not is_torch_array(array):
        return True
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is None


def stop_gradient(array: Array) -> Array:
    """The array as a constant to autodiff; itself in a library without autodiff."""
    if is_torch_array(array):
        return array.detach()
    return sys.modules["jax"].lax.stop_gradient(array) if is_jax_array(array) else array


# -------------------- dtypes


def dtype_name(dtype: Any) -> str:
    """The plain name of a dtype, "float32", in every library."""
    return getattr(dtype, "name", None) or str(dtype).rpartition(".")[2]


def dtype_of_name(xp: Any, name: Any) -> Any:
    """The library's dtype of this name; a dtype as it is. NumPy's own names leave out bfloat16."""
    return (getattr(xp, name, None) or np.dtype(name)) if isinstance(name, str) else name


def is_integer(array: Array) -> bool:
    """Whether the array holds integers or bools, by name: NumPy's isdtype knows no bfloat16."""
    name = str(array.dtype)
    return "int" in name or "bool" in name


def wide_dtype(xp: Any, array: Array) -> Any:
    """float32 for half precision, else the dtype of the array."""
    half = getattr(array.dtype, "itemsize", 4) == 2 and not is_integer(array)
    return xp.float32 if half else array.dtype


def widen(array: Array) -> Array:
    """The array in float32 if it is of half precision, else as it is."""
    xp = array_namespace(array)
    dtype = wide_dtype(xp, array)
    return array if dtype == array.dtype else xp.astype(array, dtype)


def cast_like(array: Array, like: Array) -> Array:
    """The array in the dtype of ``like``."""
    return array_namespace(array).astype(array, like.dtype, copy=False)


def widen_labels(labels: Array, classes: int) -> Array:
    """The labels in the library's default integer dtype: int8 may not hold the number of classes."""
    xp = array_namespace(labels)
    return xp.astype(labels, xp.asarray(classes).dtype, copy=False)


# -------------------- from one library to another


def device_keyword(like: Array) -> dict[str, Any]:
    """The keyword that puts a new array on the device of ``like``; none for NumPy, Dask and JAX, which need none."""
    without = isinstance(like, np.ndarray) or is_dask_array(like) or is_jax_array(like)
    return {} if without else {"device": device(like)}


def scalar_like(value: float, like: Array) -> Array:
    """The number as an array of the dtype of ``like``: to NumPy's ``where``, a bfloat16 and a number make a float64."""
    return array_namespace(like).asarray(value, dtype=like.dtype, **device_keyword(like))


def transfer(array: Array, like: Array) -> Array:
    """NumPy's array in the library and on the device of ``like``."""
    array = np.asarray(array)
    if is_torch_array(like):  # which reads writeable, contiguous memory in the machine's byte order only
        dtype = array.dtype.newbyteorder("=") if array.dtype.name != "bfloat16" else np.float32
        array = array.astype(dtype, order="C", copy=not array.flags.carray)
    return array_namespace(like).asarray(array, **device_keyword(like))


def beside(value: Any, like: Array) -> Any:
    """NumPy's array in the library of ``like``; any other value, and NumPy's array beside Dask's, as it is."""
    if not is_numpy_array(value) or is_numpy_array(like) or is_dask_array(like):
        return value
    return transfer(value, like)


def as_arrays(targets: Any, predictions: Any) -> tuple[Array, Array]:
    """Both as arrays of one library: lists become NumPy's arrays, or arrays of the other argument's library."""
    targets, predictions = unwrap(targets), unwrap(predictions)
    if not is_array_api_obj(predictions):
        predictions = as_array(predictions, targets) if is_array_api_obj(targets) else from_python(predictions)
    return as_array(targets, predictions), predictions


def as_array(value: Any, like: Array) -> Array:
    """The value as an array of the library of ``like``, from lists, data frames and NumPy's arrays."""
    xp, value = array_namespace(like), unwrap(value)
    if isinstance(value, list | tuple | int | float) and is_compiling():  # where NumPy's arrays are torch's
        return xp.asarray(value, **device_keyword(like))
    if not is_array_api_obj(value):
        value = from_python(value)
    elif not is_numpy_array(value) or isinstance(value, np.ma.MaskedArray):
        if array_namespace(value) is not xp:
            raise TypeError(
                f"xent.compat: arrays must be of one library, got {type(value)} beside {type(like)}. "
                "Nothing is moved between libraries but what NumPy holds beside predictions: convert one of the two."
            )
        return value
    if is_numpy_array(like):
        return value
    return transfer(saturated(value, like) if is_jax_array(like) else value, like)


def from_python(value: Any) -> Array:
    """NumPy's array of a list, a number or a data frame: float32 for Python's floats, else the dtype of the value."""
    types = leaf_types(value)
    if any(kind.__module__.partition(".")[0] in ("tensorflow", "keras") for kind in types):
        raise TypeError(
            "xent.compat: an array must not be a TensorFlow tensor, got one. "
            "No gradient would flow back into it: pass its .numpy()."
        )
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 and types <= {bool, int, float} else array


def leaf_types(value: Any) -> set[type]:
    """The types of the values in nested lists and tuples."""
    if isinstance(value, list | tuple):
        return set().union(*map(leaf_types, value))
    return {type(value)}


def saturated(array: Array, like: Array) -> Array:
    """NumPy's array within the range of JAX's integers: JAX cuts off the upper bits, which makes a bad label good."""
    array = np.asarray(array)
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 8:
        return array
    range_of_jax = np.iinfo(array_namespace(like).asarray(0).dtype)
    return np.clip(array, max(int(range_of_jax.min), np.iinfo(array.dtype).min), int(range_of_jax.max))


# -------------------- shapes


def has_shape(array: Array, shape: tuple[int, ...]) -> bool:
    """Whether the array has the shape; a size that Dask does not know, NaN, fits any."""
    sizes = tuple(array.shape)
    return len(sizes) == len(shape) and all(a == b or a != a or b != b for a, b in zip(sizes, shape, strict=True))


def fit_together(*arrays: Array) -> bool:
    """Whether the shapes broadcast to one; a size that Dask does not know, NaN, fits any."""
    sizes_by_axis = itertools.zip_longest(*(reversed(tuple(array.shape)) for array in arrays), fillvalue=1)
    return all(len({size for size in sizes if size == size} - {1}) < 2 for sizes in sizes_by_axis)


def expand_dims(array: Array, axis: int) -> Array:
    """The array with one more axis, counted from the front; Dask's own function refuses an unknown number of rows."""
    return array[(*[slice(None)] * axis, None, ...)]


def is_label(labels: Array, classes: int, axis: int) -> Array:
    """Whether each class, along ``axis``, is the label of its row; none is where the label is out of range."""
    xp, labels = array_namespace(labels), widen_labels(labels, classes)
    indices = xp.arange(classes, dtype=labels.dtype, **device_keyword(labels))
    return expand_dims(labels, axis) == xp.reshape(indices, (classes, *[1] * (labels.ndim - axis)))


# -------------------- NaN


def nan_where(xp: Any, condition: Array, like: Array) -> Array:
    """NaN where the condition holds, else 0: a constant of the dtype of ``like``."""
    zeros = xp.zeros_like(like)
    if is_jax_array(like):  # subtle: jax_debug_nans refuses a constant of NaN, be it selected away
        return xp.sqrt(xp.where(condition, -1.0, zeros))
    return xp.where(condition, math.nan, zeros)


def nan_where_invalid(xp: Any, losses: Array, invalid: Array, *, gradient: bool) -> Array:
    """The losses, NaN where they are invalid; so is their gradient there, or else it is as it was."""
    if gradient:
        return losses * (1 + nan_where(xp, invalid, losses))
    return losses + nan_where(xp, invalid, losses)
