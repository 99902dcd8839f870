"""Preconditions of what an array is: its type, its dtype, its library and its device."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from .. import arrays
from ..arrays import Array, describe
from .plain_values import describe_type

FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (2, 4, 8, 16, 32, 64))
NUMBER_CLASSES = "Number the classes: numpy.unique(labels, return_inverse=True)[1] does so in their order."
ARRAY_API = "2024.12"
"""The first version of the array API that has all that xent asks of a library."""


def array(function: str, name: str, value: Any, beside: Any = None) -> None:
    """The value is an array that xent computes with, and not something that only resembles one.

    ``beside`` is another argument of the call, whose library the remedy is written for.
    """
    if arrays.is_product(value):
        no_product(function, name, value)
    held = value._meta if arrays.library(value) == "dask" else value  # of the chunks
    is_frame = held is not value and hasattr(value, "to_dask_array")  # of dask.dataframe
    is_special = type(held).__name__ in ("matrix", "MaskedArray") or isinstance(held, list | tuple) or is_frame
    if is_special or not arrays.is_array(value):
        remedy = conversion(function, name, value, held, beside)
        what = describe_type(value) if held is value else f"{describe_type(value)} of {describe_type(held)}"
        raise TypeError(f"{function}: `{name}` must be an array, got {what}. Pass {remedy}.")
    if arrays.library(value) == "torch":
        dense_tensor(function, name, value)
    if arrays.dtype_name(value.dtype) == "object":
        dtype = '"int64"' if name == "labels" else "float"
        remedy = f"Pass {name}.astype({dtype})."
        if name == "labels" and value.size and isinstance(value.reshape(-1)[0], str):
            remedy = NUMBER_CLASSES
        raise TypeError(f"{function}: `{name}` must have a numeric dtype, got {describe(value)}. {remedy}")


def array_api(function: str, name: str, value: Array) -> None:
    """The library of an array that xent computes with in array API terms keeps to a version that has all of them."""
    library = arrays.library(value)
    if library in arrays.COMPAT:
        return
    version = getattr(arrays.namespace(value), "__array_api_version__", ARRAY_API)
    if version < ARRAY_API:
        raise TypeError(
            f"{function}: `{name}` must be of a library with version {ARRAY_API} of the array API or a later one, "
            f"got {describe(value)} with {version}. Use a later version of {library}."
        )


def dense_tensor(function: str, name: str, tensor: Any) -> None:
    """A torch tensor has its elements side by side, one number each."""
    torch = sys.modules["torch"]
    if tensor.is_nested:
        kind, remedy = "nested", f"torch.cat({name}.unbind()), all rows in one"
    elif tensor.layout is not torch.strided:
        kind, remedy = "sparse", f"{name}.to_dense()"
    elif tensor.is_quantized:
        kind, remedy = "quantized", f"{name}.dequantize()"
    else:
        return
    raise TypeError(f"{function}: `{name}` must be a dense tensor, got a {kind} one. Pass {remedy}.")


def no_product(function: str, name: str, product: Any) -> NoReturn:
    """A product is where an array must be: its logits are never whole."""
    bias = "" if product.bias is None else " + bias"
    whole = f"hidden @ classifier.T{bias}"
    whole = whole if product.softcap is None else f"{product.softcap} * tanh(({whole}) / {product.softcap})"
    raise TypeError(
        f"{function}: `{name}` must be an array, got a xent.Linear, whose logits are never whole. Pass {whole}."
    )


def conversion(function: str, name: str, value: Any, held: Any, beside: Any) -> str:
    """What to write for a value that is no array: an expression, for the library of the argument beside it."""
    if type(held).__name__ == "MaskedArray":
        ma = "numpy.ma" if held is value else "dask.array.ma"
        if name == "labels" or (function == "binary_cross_entropy" and name in ("predictions", "targets")):
            return f"{ma}.getdata({name}), and sample_weight=~{ma}.getmaskarray({name})"
        if name == "predictions":
            return f"{ma}.filled(predictions, -numpy.inf), or filled with 0 if they are probabilities"
        return f"{ma}.filled({name}, 0)"
    root = type(value).__module__.partition(".")[0]
    if held is not value and hasattr(value, "to_dask_array"):
        return f"{name}.to_dask_array(lengths=True)"
    if held is not value:
        return f"{name}.map_blocks(numpy.asarray)"
    if root == "xarray" and hasattr(value, "data_vars"):
        return f"{name}[name]"
    if root == "xarray" and hasattr(value, "dims"):
        return f"{name}.data"
    is_frame, is_sequence = root in ("pandas", "polars"), isinstance(value, list | tuple)
    if not (is_frame or is_sequence or type(value).__name__ == "matrix"):
        return "an array of NumPy, CuPy, Dask, torch or JAX"
    library, told = arrays.library(beside), f"{name}.to_numpy()" if is_frame else name
    if beside is None or not arrays.is_array(beside) or library in ("numpy", "dask"):
        return told if is_frame else f"numpy.asarray({told})"
    if library == "torch":
        device = "" if name == "predictions" or beside.device.type == "cpu" else ", device=predictions.device"
        return f"torch.tensor({told}{device})"
    return f"{'jax.numpy' if library == 'jax' else library}.asarray({told})"


def cast(name: str, value: Array, dtype: str) -> str:
    """The expression that casts an array to the dtype, as its library writes it."""
    library = arrays.library(value)
    if library == "torch":
        return f"{name}.to(torch.{dtype})"
    if library == "jax" and dtype == "int64":
        return f"{name}.astype(int)"  # int64 is not to be had without x64
    if library in arrays.COMPAT:
        return f'{name}.astype("{dtype}")'
    return f"{library}.astype({name}, {library}.{dtype})"


def predictions_dtype(function: str, predictions: Array, targets: Any = None) -> None:
    """Predictions are real and floating."""
    name = arrays.dtype_name(predictions.dtype)
    if name not in FLOATS:
        remedy = "predictions.real" if name.startswith("complex") else cast("predictions", predictions, "float32")
        if hasattr(targets, "dtype") and arrays.dtype_name(targets.dtype) in FLOATS:
            remedy = f"the predictions first, then the labels or targets; or, of predictions, {remedy}"
        raise TypeError(f"{function}: `predictions` must be real floating, got {describe(predictions)}. Pass {remedy}.")


def labels_dtype(function: str, labels: Array, predictions: Any = None) -> None:
    """Labels are integers: a float label above 2²⁴ is another label, and a bool is a mask."""
    name = arrays.dtype_name(labels.dtype)
    if name not in INTEGERS:
        remedy = f"Pass {cast('labels', labels, 'int64')}."
        if name in FLOATS and predictions is not None and labels.ndim == predictions.ndim:
            remedy = "For one-hot or soft targets call cross_entropy."
        elif name in FLOATS:
            remedy = f"If one is NaN, first give it a number that ignore_index names. {remedy}"
        elif name.startswith(("str", "bytes", "object")):
            remedy = NUMBER_CLASSES
        raise TypeError(f"{function}: `labels` must be integers, got {describe(labels)}. {remedy}")


def real_dtype(function: str, name: str, value: Array) -> None:
    """Soft targets and weights are real: floats, integers or bools."""
    dtype = arrays.dtype_name(value.dtype)
    if dtype not in FLOATS and dtype not in INTEGERS and dtype != "bool":
        remedy = f"{name}.real" if dtype.startswith("complex") else cast(name, value, "float32")
        raise TypeError(f"{function}: `{name}` must be real, got {describe(value)}. Pass {remedy}.")


def unfit_dtype(function: str, labels: Array, dtype: Any) -> TypeError:
    """The error of a dtype that is none of the labels' library, or does not hold the values."""
    library = arrays.library(labels)
    return TypeError(
        f"{function}: `dtype` must be a dtype of {library} that holds the values, got {dtype!r}. "
        "Leave it out for float32."
    )


def same_placement(function: str, predictions: Array, name: str, value: Array, of: str = "predictions") -> None:
    """Both arrays are of one library and on one device; only NumPy's arrays may accompany Dask's.

    ``of`` is the name of the first.
    """
    ours, theirs = arrays.library(predictions), arrays.library(value)
    if ours != theirs and not (ours == "dask" and theirs == "numpy"):
        raise TypeError(
            f"{function}: `{name}` must be of the library of `{of}` ({ours}), got {describe(value)}. "
            "Nothing is moved between libraries: convert one of the two."
        )
    device, other = arrays.device(predictions), arrays.device(value)
    if device != other and "traced" not in (device, other):
        raise TypeError(
            f"{function}: `{name}` must be on the device of `{of}` ({device}), got {describe(value)} "
            f"on {other}. "
            "Nothing is moved between devices: move one of the two."
        )
