"""Every precondition and every message.

``function: `argument` must rule, got value. Remedy.`` Metadata is checked once per kind of call, shapes on every call,
labels by their values where they can be read; all before any result is returned.
"""

from __future__ import annotations

import math
import numbers
import operator
import sys
from collections.abc import Iterable
from typing import Any, Literal, NoReturn, get_args

from . import arrays, errors
from .arrays import Array, describe

Kind = Literal["logits", "probabilities", "log_probabilities"]
KINDS: tuple[Kind, ...] = get_args(Kind)
REDUCTIONS = ("none", "sum", "mean")
DENOMINATORS = ("weights", "counted", "all")
Validate = Literal["auto", "always", "never"]
VALIDATE: tuple[Validate, ...] = get_args(Validate)
OPERANDS = ("hidden", "classifier", "bias")
WEIGHTS = ("sample_weight", "class_weight", "pos_weight")
WITHOUT_OUT = {
    "dask": "Leave it out, and store the gradient that is returned: dask.array.store(gradient, out).",
    "jax": "Leave it out; jax.jit with donate_argnums=0 gives the memory of the predictions to the gradient.",
}
"""What to write instead of ``out``, by library."""
WITHOUT_TARGETS = ("logsumexp", "softmax", "log_softmax")
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
NORMAL = {
    "float32": (2.0**-126, 2.0**128 - 2.0**104),
    "float64": (sys.float_info.min, sys.float_info.max),
}
"""The least and the largest positive number with all digits of each dtype of logits."""
INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (2, 4, 8, 16, 32, 64))
NUMBER_CLASSES = "Number the classes: numpy.unique(labels, return_inverse=True)[1] does so in their order."
ARRAY_API = "2024.12"
"""The first version of the array API that has all that xent asks of a library."""


def quoted(choices: Iterable[str]) -> str:
    """The choices as a message shows them: "a", "b" or "c"."""
    *most, last = (f'"{choice}"' for choice in choices)
    return f"{', '.join(most)} or {last}"


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


def describe_type(value: Any) -> str:
    """A type for a message: ``list``, ``pandas.DataFrame``."""
    root = type(value).__module__.partition(".")[0]
    return type(value).__name__ if root == "builtins" else f"{root}.{type(value).__name__}"


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


def is_real(value: Any) -> bool:
    """Whether the value is a plain number, Python's or NumPy's, those of ml_dtypes among them."""
    is_number = isinstance(value, numbers.Real) or type(value).__module__ == "ml_dtypes"
    return is_number and not isinstance(value, bool)


def is_count(value: Any, least: int = 1) -> bool:
    """Whether the value is a whole number, Python's or NumPy's, not under the least."""
    return not isinstance(value, bool) and isinstance(value, numbers.Integral) and int(value) >= least


def integer(value: Any) -> int:
    """The value as an int; raises TypeError for what is none, a bool among it."""
    index: Any = None if isinstance(value, bool) else value
    return operator.index(index)


def flag(function: str, name: str, value: Any) -> bool:
    """A flag is a bool, Python's or NumPy's."""
    if isinstance(value, bool) or (type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_")):
        return bool(value)
    raise TypeError(f"{function}: `{name}` must be True or False, got {shown(value)}. Pass one of the two.")


def shown(value: Any) -> str:
    """A value for a message: an array without its contents, all else as Python writes it."""
    is_array = hasattr(value, "shape") and hasattr(value, "dtype") and not is_real(value)
    return describe(value) if is_array else repr(value)


def number_remedy(call: str, name: str, value: Any, otherwise: str) -> str:
    """What to write for a number: ``call(name)`` where the value is one in an array without axes."""
    return f"Pass {call}({name})" if getattr(value, "shape", None) == () and not arrays.is_traced(value) else otherwise


def options(function: str, options: Any) -> Any:
    """The options in one spelling each: ints, a float, and a tuple of the ignored labels, or None.

    An iterator is read once. Leaves out ``kind`` and ``reduction``, and whether the predictions have the axis.
    """
    classes = options.num_classes
    return options._replace(
        axis=axis(function, options.axis),
        ignore_index=ignore_index(function, options.ignore_index) or None,
        label_smoothing=label_smoothing(function, options.label_smoothing),
        first_class=int(options.first_class),
        num_classes=None if classes is None else int(classes),
    )


def axis(function: str, value: Any) -> int:
    """The class axis is an integer."""
    try:
        return integer(value)
    except TypeError:
        otherwise = "Pass the one class axis"
        if isinstance(value, str):
            otherwise += " by its number; a name is that of a dimension of an xarray.DataArray"
        raise ValueError(
            f"{function}: `axis` must be an integer, got {shown(value)}. "
            f"{number_remedy('int', 'axis', value, otherwise)}."
        ) from None


def class_axis(function: str, value: Any, ndim: int, of: str = "predictions") -> int:
    """The class axis counted from the front."""
    index = axis(function, value)
    if ndim == 0:
        raise ValueError(f"{function}: `predictions` must have a class axis, got a 0-d array. Pass shape (*batch, C).")
    if not -ndim <= index < ndim:
        raise ValueError(
            f"{function}: `axis` must lie in [{-ndim}, {ndim}) for {of} of rank {ndim}, got {index}. "
            f"Pass the class axis of the {of.removeprefix('the ')}."
        )
    return index % ndim


def named_axis(function: str, value: Any, dims: tuple[Any, ...]) -> int:
    """The class axis counted from the front, by its number or by the name of a dimension."""
    if not isinstance(value, str):
        return class_axis(function, value, len(dims))
    if value not in dims:
        raise ValueError(
            f"{function}: `axis` must be a dimension of the predictions, {tuple(dims)}, got {value!r}. "
            "Pass one of them."
        )
    return dims.index(value)


def new_dimension(function: str, value: str, dims: tuple[Any, ...]) -> None:
    """The name of a dimension that is made is a new one."""
    if value in dims:
        raise ValueError(
            f"{function}: `axis` must be a new dimension, got {value!r} of {tuple(dims)}. Pass another name."
        )


def dimensions(function: str, name: str, value: Any, dims: tuple[Any, ...]) -> None:
    """The dimensions of a named array are these, in any order."""
    if len(value.dims) != len(dims) or set(value.dims) != set(dims):
        raise ValueError(
            f"{function}: `{name}` must have the dimensions {tuple(dims)}, in any order, got {tuple(value.dims)}. "
            f"Rename them, or pass {name}.data for their order alone."
        )


def coordinates(function: str, name: str, dim: Any, ours: Any, theirs: Any) -> None:
    """The coordinates along a dimension are those of the predictions, where both have any."""
    if ours is not None and theirs is not None and not ours.equals(theirs):
        raise ValueError(
            f"{function}: `{name}` must have the coordinates of `predictions` along {dim!r}, got others. "
            f"Call xarray.align(predictions, {name}, exclude=[...]) first, or pass {name}.data for their order alone."
        )


def next_plan(plan: Any, predictions: Array) -> Any:
    """The plan to follow when a guard declines the call; raises NotServed for a forced kernel."""
    if plan.otherwise is None:
        raise errors.NotServed(
            f"{plan.problem.function}: `kernel` must be one that serves this call, got {plan.kernel!r}, whose guard "
            f"declines {describe(predictions)}. Choose another, or leave it to xent."
        )
    return plan.otherwise


def choice(function: str, name: str, value: Any, choices: tuple[str, ...]) -> None:
    """A keyword has one of its values."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{function}: `{name}` must be {quoted(choices)}, got {value!r}. Choose one of them.")


def reduction(function: str, value: Any) -> None:
    """The reduction is known; a Mean has checked itself."""
    is_mean = hasattr(value, "denominator") and hasattr(value, "empty")  # an int has a denominator, too
    if (isinstance(value, str) and value in REDUCTIONS) or (is_mean and not isinstance(value, type)):
        return
    raise ValueError(
        f"{function}: `reduction` must be {quoted(REDUCTIONS)}, or a xent.Mean, got {shown(value)}. Choose one."
    )


def denominator(value: Any) -> None:
    """The denominator of a mean is known by name, or is a positive number."""
    if isinstance(value, str) and value in DENOMINATORS:
        return
    if is_real(value) and 0 < value < math.inf:
        return
    remedy = number_remedy("float", "denominator", value, "Choose one")
    if hasattr(value, "shape") and not is_real(value):
        remedy += ', or divide the result of reduction="sum" by it'
    raise ValueError(
        f"Mean: `denominator` must be {quoted(DENOMINATORS)}, or a positive number, got {shown(value)}. {remedy}."
    )


def empty(value: Any) -> float:
    """The value of an empty mean is a number; −0.0 and every NaN have one spelling, as they are equal options."""
    if not is_real(value):
        remedy = number_remedy("float", "empty", value, "Pass 0.0, say")
        raise ValueError(f"Mean: `empty` must be a number, got {shown(value)}. {remedy}.")
    return float(value) + 0.0 if value == value else math.nan


def label_smoothing(function: str, value: Any) -> float:
    """Smoothing moves a share of the target, between none and all of it."""
    if not is_real(value) or not 0 <= value <= 1:  # an int may be larger than any float
        remedy = number_remedy("float", "label_smoothing", value, "Pass a share of 1")
        raise ValueError(f"{function}: `label_smoothing` must lie in [0, 1], got {shown(value)}. {remedy}.")
    return float(value)


def known_in_graph(function: str, ignore_index: Any, label_smoothing: Any) -> None:
    """The options are known while TorchDynamo traces: NumPy's numbers are tensors there, whose values are not."""
    ignored = ignore_index if isinstance(ignore_index, list | tuple) else (ignore_index,)
    named = (("label_smoothing", label_smoothing), *(("ignore_index", label) for label in ignored))
    for name, value in named:
        if hasattr(value, "shape"):
            raise TypeError(
                f"{function}: `{name}` must be a number of Python under torch.compile, got one of NumPy. "
                "Call its .item() outside of the compiled function."
            )


def ignore_index(function: str, value: Any) -> tuple[int, ...]:
    """The ignored labels as a tuple of ints, from an int, an iterable of ints, or None."""
    if value is None:
        return ()
    try:
        several = isinstance(value, Iterable) and not isinstance(value, str) and getattr(value, "shape", None) != ()
        return tuple(integer(label) for label in (value if several else (value,)))
    except TypeError:
        raise ValueError(
            f"{function}: `ignore_index` must be an int, an iterable of ints or None, got {shown(value)}. Pass labels."
        ) from None


def expect(
    function: str, name: str, value: Any, shape: tuple[Any, ...], reason: str, whole: tuple[Any, ...] = ()
) -> None:
    """The value has the shape; a Dask dimension of unknown size (NaN) fits any. Says how to mend what is common.

    ``whole`` is the shape of the predictions where the value is of their rows.
    """
    got = tuple(value.shape)
    if len(got) == len(shape) and all(a == b or a != a or b != b for a, b in zip(got, shape, strict=True)):
        return
    remedy = f"Pass {name} of shape {shape}."
    if got == (*shape, 1):
        remedy = f"Pass {name}[{', '.join([':'] * len(shape) + ['0'])}]." if shape else f"Pass {name}[0]."
    elif got and got == tuple(whole):
        remedy = "For targets of the predictions' shape call cross_entropy"
        remedy += ", for yes-or-no targets binary_cross_entropy." if len(got) == 1 else "."
    elif name == "labels" and got in (
        others := {shape_of_rows(tuple(whole), axis): axis for axis in range(len(whole))}
    ):
        remedy = f"Pass axis={others[got]}, if that is the axis of the classes."
    elif got == (1, *shape):
        remedy = f"Pass {name}[0]."
    elif name == "labels" and len(got) == len(shape) + 1:
        remedy = "For targets of the predictions' shape call cross_entropy."
    elif name == "targets" and len(got) == len(shape) - 1 and function == "cross_entropy":
        remedy = "For labels call sparse_cross_entropy."
    raise ValueError(f"{function}: `{name}` must have shape {shape} ({reason}), got {got}. {remedy}")


def shape_of_rows(shape: tuple[Any, ...], axis: int) -> tuple[Any, ...]:
    """The shape of one number for each row: the predictions' without the class axis."""
    return shape[:axis] if axis + 1 == len(shape) else shape[:axis] + shape[axis + 1 :]


def shapes(problem: Any, predictions: Array, targets: Array | None) -> None:
    """Predictions and targets fit, on every call: no kernel ever sees arrays that do not."""
    shape, axis, op = predictions.shape, problem.axis, problem.op
    if op == "sparse":
        rows = shape_of_rows(shape, axis)
        if targets is not None and targets.shape != rows:
            reason = f"predictions {tuple(shape)} without axis {axis}"
            expect(problem.function, "labels", targets, tuple(rows), reason, tuple(shape))
    elif targets is not None and targets.shape != shape:
        expect(problem.function, "targets", targets, tuple(shape), "that of the predictions")
    if op != "binary" and shape[axis] == 0:
        raise ValueError(
            f"{problem.function}: `predictions` must have at least one class, got shape {tuple(shape)}. Pass C ≥ 1."
        )


def weight_shapes(problem: Any, predictions: Array, weights: Any) -> None:
    """The weights fit the rows or the classes, on every call that has any."""
    shape, axis, (sample, classes, positive) = predictions.shape, problem.axis, weights[:3]
    if sample is not None:
        is_binary = problem.op == "binary"
        rows, reason = (
            (shape, "that of the predictions") if is_binary else (shape_of_rows(shape, axis), "one for each row")
        )
        if sample.shape != rows:
            expect(problem.function, "sample_weight", sample, tuple(rows), reason)
    if classes is not None and hasattr(classes, "shape"):
        if classes.shape != shape[axis : axis + 1]:
            expect(problem.function, "class_weight", classes, (shape[axis],), "one for each class")
    elif classes is not None and len(classes) != shape[axis]:
        raise ValueError(
            f"{problem.function}: `class_weight` must have {shape[axis]} numbers (one for each class), "
            f"got {len(classes)}. Pass one for each class."
        )
    if positive is not None and getattr(positive, "shape", ()) not in ((), shape[-1:]):
        raise ValueError(
            f"{problem.function}: `pos_weight` must be a number or have shape {tuple(shape[-1:])}, "
            f"got {tuple(positive.shape)}. Pass one for each output."
        )


def output(plan: Any, predictions: Array, targets: Array | None, weights: Any, out: Any) -> None:
    """The array for a gradient can take it: like the predictions, and in memory of its own or all of theirs."""
    function, root = plan.problem.function, plan.problem.array
    if plan.problem.is_product:
        raise TypeError(
            f"{function}: `out` must be None for a xent.Linear, which has several gradients, got {shown(out)}. "
            "Leave it out, and take the gradients that are returned."
        )
    if not plan.takes_out:
        raise TypeError(
            f"{function}: `out` must be None on {root}, whose arrays are not written to, got {shown(out)}. "
            f"{WITHOUT_OUT.get(root, 'Leave it out, and take the gradient that is returned.')}"
        )
    if isinstance(out, list | tuple | dict):
        raise TypeError(
            f"{function}: `out` must be one array, for there is one gradient, got {describe_type(out)}. Pass the array."
        )
    if type(out) is not type(predictions) or root != "numpy":
        array(function, "out", out, predictions)
        same_placement(function, predictions, "out", out)
    if out.dtype != predictions.dtype:
        name = arrays.dtype_name(predictions.dtype)
        order = " in another byte order" if arrays.dtype_name(out.dtype) == name else ""
        raise TypeError(
            f"{function}: `out` must have the dtype of `predictions` ({name}), got {describe(out)}{order}. "
            "Pass an array like the predictions."
        )
    if out.shape != predictions.shape:
        expect(function, "out", out, tuple(predictions.shape), "that of the predictions")
    if getattr(out, "requires_grad", False) and sys.modules["torch"].is_grad_enabled():
        raise ValueError(
            f"{function}: `out` must require no gradient where torch records them, got {describe(out)} that does. "
            "Pass out.detach(), which is the same memory, or call under torch.no_grad()."
        )
    output_memory(function, predictions, (("targets", targets), *zip(WEIGHTS, weights[:3], strict=True)), out)


def output_memory(function: str, predictions: Array, others: Iterable[tuple[str, Any]], out: Array) -> None:
    """The memory of the array for a gradient can be written to, each element in a place of its own."""
    place = arrays.memory(out)
    if place is None:
        raise TypeError(
            f"{function}: `out` must be an array whose memory can be seen, got {describe(out)}. "
            "Leave it out, and assign the gradient that is returned: out[...] = gradient."
        )
    if not place.flags.writeable:
        raise ValueError(f"{function}: `out` must be writable, got {describe(out)} that is read-only. Pass a copy.")
    if 0 in place.shape:
        return
    if arrays.may_overlap_itself(place):
        raise ValueError(
            f"{function}: `out` must have a place of its own for each element, got {describe(out)} whose strides may "
            "bring two to one place. Pass a copy."
        )
    ours = arrays.memory(predictions)
    is_shared = ours is not None and ours is not place and arrays.share_memory(place, ours)
    if is_shared and not arrays.is_same_memory(place, ours):
        raise ValueError(
            f"{function}: `out` must share no memory with `predictions`, or be the same memory element for element, "
            f"got {describe(out)} that overlaps them. Pass the predictions themselves, or an array of its own."
        )
    for name, value in others:
        other = None if value is None or not hasattr(value, "shape") else arrays.memory(value)
        if other is not None and arrays.share_memory(place, other):
            name = "labels" if name == "targets" and function == "sparse_cross_entropy" else name
            raise ValueError(
                f"{function}: `out` must share no memory with `{name}`, got {describe(out)} that does. "
                "Pass an array of its own, or the predictions themselves."
            )


def no_output_in_graph(function: str, out: Any) -> None:
    """A call that a framework traces or transforms has no array for its gradient."""
    if out is not None:
        raise TypeError(
            f"{function}: `out` must be None where torch traces or transforms the call, got {shown(out)}. "
            "Leave it out: the compiler plans the memory."
        )


def metadata(function: str, op: str, predictions: Any, targets: Any, options: Any, weights: Any) -> None:
    """Types, dtypes, placements and keywords, once per kind of call and before any work."""
    if arrays.is_product(predictions):
        product(function, op, predictions, options)
    else:
        array(function, "predictions", predictions, targets)
        predictions_dtype(function, predictions, targets)
    if targets is not None or function not in WITHOUT_TARGETS:
        name = "labels" if op == "sparse" else "targets"
        array(function, name, targets, predictions)
        if op == "sparse":
            labels_dtype(function, targets, predictions)
        else:
            real_dtype(function, "targets", targets)
        same_placement(function, predictions, name, targets)
    if op != "binary":
        class_axis(function, options.axis, predictions.ndim)
    choice(function, "kind", options.kind, KINDS)
    reduction(function, options.reduction)
    for name, value in zip(WEIGHTS, weights[:3], strict=True):
        weight(function, name, value, predictions)


def operands(function: str, operands: dict[str, Any]) -> None:
    """The operands of a product are floating arrays of one library and fit: (*batch, D), (C, D) and (C,) or None."""
    hidden, classifier, bias = operands.values()
    given = {name: value for name, value in operands.items() if value is not None or name != "bias"}
    if arrays.is_product(hidden):
        raise TypeError(
            f"{function}: `hidden` must be an array, got a xent.Linear. Call sparse_cross_entropy, which takes it."
        )
    for name, value in given.items():
        array(function, name, value, hidden)
        if arrays.dtype_name(value.dtype) not in FLOATS:
            remedy = cast(name, value, "float32")
            raise TypeError(f"{function}: `{name}` must be real floating, got {describe(value)}. Pass {remedy}.")
    libraries = {name: arrays.library(value) for name, value in given.items()}
    lazy = next((name for name, library in libraries.items() if library == "dask"), "hidden")
    for name, value in given.items():
        same_placement(function, given[lazy], name, value, lazy)
    if hidden.ndim == 0:
        raise ValueError(f"{function}: `hidden` must have an axis of features, got a 0-d array. Pass (*batch, D).")
    depth, shape = hidden.shape[-1], tuple(classifier.shape)
    if len(shape) != 2 or shape[1] != depth:
        is_turned = len(shape) == 2 and shape[0] == depth
        remedy = "Pass classifier.T." if is_turned else f"Pass one row of {depth} numbers for each class."
        raise ValueError(
            f"{function}: `classifier` must have shape (C, {depth}) (the hidden states are "
            f"{tuple(hidden.shape)}), got {shape}. {remedy}"
        )
    if shape[0] == 0:
        raise ValueError(f"{function}: `classifier` must have at least one class, got shape {shape}. Pass C ≥ 1.")
    if bias is not None and tuple(bias.shape) != shape[:1]:
        expect(function, "bias", bias, shape[:1], "one for each class")


def of_operands(function: str, of: Any) -> tuple[str, ...]:
    """The operands that a gradient is asked for in, in their order; none for all that are there."""
    if of is None:
        return ()
    names = (of,) if isinstance(of, str) else tuple(of) if isinstance(of, Iterable) else ()
    if not names or any(name not in OPERANDS for name in names):
        raise ValueError(f"{function}: `of` must be {quoted(OPERANDS)}, or several, got {of!r}. Choose from them.")
    return tuple(name for name in OPERANDS if name in names)


def has_operands(function: str, of: Any, predictions: Any) -> None:
    """The gradient is asked for in operands of predictions that have them."""
    if of is not None and not arrays.is_product(predictions):
        raise TypeError(
            f"{function}: `of` must be None unless the predictions are a xent.Linear, got {of!r} for "
            f"{shown(predictions)}. Leave it out, or call linear_cross_entropy."
        )
    has_bias(function, of, getattr(predictions, "bias", None))


def has_bias(function: str, of: Any, bias: Any) -> None:
    """The gradient is asked for in the bias where there is one."""
    if of is not None and "bias" in of and bias is None:
        raise ValueError(f'{function}: `of` must name operands that are there, got "bias" without one. Leave it out.')


def positional(function: str, given: tuple[Any, ...], names: Iterable[str]) -> None:
    """The arrays of a call are all there, and no more."""
    expected = tuple(names)
    if len(given) != len(expected):
        raise TypeError(
            f"{function}: {', '.join(f'`{name}`' for name in expected)} must be given by position, got "
            f"{len(given)} arguments. Pass {len(expected)}, and all else by keyword."
        )


def softcap(function: str, value: Any, dtype: str) -> float | None:
    """A softcap is a positive number that the dtype of the logits holds with all digits, or None."""
    if value is None:
        return None
    if not is_real(value) or not 0 < value < math.inf:
        remedy = number_remedy("float", "softcap", value, "Leave it out for logits without a cap")
        raise ValueError(f"{function}: `softcap` must be a positive number, got {shown(value)}. {remedy}.")
    least, most = NORMAL[dtype]
    if not least <= value <= most:
        raise ValueError(
            f"{function}: `softcap` must lie in [{least:.3g}, {most:.3g}] for {dtype} logits, got {shown(value)}. "
            "Leave it out for logits without a cap."
        )
    return float(value)


def product(function: str, op: str, product: Any, options: Any) -> None:
    """What takes logits of any kind takes a product too, where it makes no array of their shape."""
    if function in ("softmax", "log_softmax"):
        no_product(function, "logits", product)
    if op == "binary":
        raise TypeError(
            f"{function}: `predictions` must be an array, got a xent.Linear, whose classes exclude each other. "
            "Pass hidden @ classifier.T."
        )
    if options.kind != "logits":
        raise ValueError(f'{function}: `kind` must be "logits" for a xent.Linear, got {options.kind!r}. Leave it out.')
    if class_axis(function, options.axis, product.ndim) != product.ndim - 1:
        raise ValueError(
            f"{function}: `axis` must be the last for a xent.Linear, got {options.axis}. "
            "Leave it out: the classes are the rows of the classifier."
        )


def no_product(function: str, name: str, product: Any) -> NoReturn:
    """A product is where an array must be: its logits are never whole."""
    bias = "" if product.bias is None else " + bias"
    whole = f"hidden @ classifier.T{bias}"
    whole = whole if product.softcap is None else f"{product.softcap} * tanh(({whole}) / {product.softcap})"
    raise TypeError(
        f"{function}: `{name}` must be an array, got a xent.Linear, whose logits are never whole. Pass {whole}."
    )


def weight(function: str, name: str, value: Any, predictions: Array) -> None:
    """A weight is an array beside the predictions; class_weight may be a list of numbers, pos_weight a number."""
    if value is None or (name == "pos_weight" and is_real(value)):
        return
    if name == "class_weight" and not hasattr(value, "dtype"):
        if not isinstance(value, list | tuple) or not all(is_real(number) for number in value):
            raise TypeError(
                f"{function}: `class_weight` must be an array or a list of numbers, got {describe_type(value)}. "
                "Pass one number for each class."
            )
        return
    array(function, name, value, predictions)
    same_placement(function, predictions, name, value)
    real_dtype(function, name, value)


def labels(function: str, bad: Array, labels: Array, classes: int) -> None:
    """Raises LabelError where ``bad`` (the labels' shape, on the host) has a true element."""
    xp = arrays.namespace(bad)
    hits = xp.astype(xp.reshape(bad, (-1,)), xp.int32)
    count = int(xp.sum(hits))
    if count == 0:
        return
    flat = int(xp.argmax(hits))
    value = int(xp.reshape(labels, (-1,))[flat])
    position = unravel(flat, tuple(bad.shape))
    where = f"outside; the first, at position {show(position)}, is {value}"
    raise label_error(function, classes, where, (count, position, value))


def label_error(
    function: str, classes: int, where: str, first: tuple[int, tuple[int, ...], int | str | None]
) -> errors.LabelError:
    """The error for labels out of range; ``first`` is their count, the position of the first one and its value."""
    return errors.LabelError(
        f"{function}: `labels` must lie in [0, {classes}), got {first[0]} {where}. "
        + ("For one number a row, and labels 0 and 1, call binary_cross_entropy. " if classes == 1 else "")
        + "Mend them, name them in ignore_index, or give them sample_weight 0.",
        *first,
    )


def labels_of_chunk(
    function: str, error: errors.LabelError, classes: int, chunk: tuple[int, ...], first: tuple[float, ...]
) -> errors.LabelError:
    """The error of one chunk with the position in the whole array; in the chunk if ``first`` is not known (NaN)."""
    count, position, value = error.count, error.position, error.value
    if any(start != start for start in first):
        place = f"row {show(position)} of chunk {show(chunk)}"
    else:
        position = tuple(index + int(start) for index, start in zip(position, first, strict=True))
        place = f"position {show(position)}"
    where = f"outside in one chunk; the first, at {place}, is {value}"
    return label_error(function, classes, where, (count, position, value))


def known_classes(function: str, predictions: Array, axis: int) -> None:
    """The number of classes is known; the number of rows need not be."""
    if predictions.shape[axis] != predictions.shape[axis]:
        raise ValueError(
            f"{function}: `predictions` must have a known number of classes, got shape {tuple(predictions.shape)}. "
            "Call predictions.compute_chunk_sizes() first."
        )


def known_rows(function: str, name: str, value: Array) -> None:
    """The number of rows of an operand is known."""
    if value.shape[0] != value.shape[0]:
        raise ValueError(
            f"{function}: `{name}` must have a known number of rows, got shape {tuple(value.shape)}. "
            f"Call {name}.compute_chunk_sizes() first."
        )


def fixed_classes(function: str, predictions: Array, axis: int) -> None:
    """The number of classes is a number, and not a symbol of ``jax.export``; those of the rows may be symbols."""
    if not isinstance(predictions.shape[axis], int):
        shape = ", ".join(map(str, predictions.shape))
        raise ValueError(
            f"{function}: `predictions` must have a fixed number of classes, got shape ({shape}). "
            "Write the classes of the symbolic shape as a number; the rows may be symbols."
        )


def known_chunks(problem: Any) -> None:
    """The chunks of a lazy array are arrays."""
    if not problem.views:
        raise TypeError(
            f"{problem.function}: `predictions` must have chunks of an array library, got {problem.array} of others. "
            "Convert each chunk, to a NumPy array for instance."
        )


def same_chunks(function: str, name: str, got: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    """Two arrays of which one has unknown rows are cut into as many chunks; their lengths are checked in each task."""
    if len(got) == len(expected):
        return
    raise ValueError(
        f"{function}: `{name}` must have {len(expected)} chunks, as the predictions have where the number of rows is "
        f"not known, got {len(got)}. Pass a Dask array cut like the predictions, "
        "or call compute_chunk_sizes() of both first."
    )


def chunk(function: str, name: str, value: Array, shape: tuple[int, ...], index: tuple[int, ...]) -> None:
    """One chunk has the shape that the predictions' chunk asks for; only where sizes are unknown may it not."""
    if tuple(value.shape) != tuple(shape):
        raise ValueError(
            f"{function}: `{name}` must have shape {tuple(shape)} in chunk {show(index)}, as the predictions there, "
            f"got {tuple(value.shape)}. Cut both into the same rows."
        )


def show(position: tuple[int, ...]) -> str:
    """A position for a message: 3, or (0, 2)."""
    return str(position[0]) if len(position) == 1 else str(position)


def unravel(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The index of the flat position in an array of the shape, C order."""
    index: list[int] = []
    for size in reversed(shape):
        flat, last = divmod(flat, size)
        index.insert(0, last)
    return tuple(index)


def known_loss(caller: str, function: Any, known: Iterable[Any]) -> None:
    """The loss is one of xent's."""
    if not any(function is loss for loss in known):
        names = quoted(loss.__name__ for loss in known)
        raise TypeError(
            f"{caller}: `loss` must be {names} of xent, or a functools.partial of one, got {function!r}. Pass one."
        )


def no_positional(caller: str, arguments: tuple[Any, ...]) -> None:
    """A functools.partial of a loss binds keywords only."""
    if arguments:
        raise TypeError(
            f"{caller}: `loss` must bind keywords only, got {len(arguments)} positional. Pass them in the call."
        )


def keywords(function: str, names: Iterable[str], known: tuple[str, ...]) -> None:
    """Every keyword is one of the function's."""
    for name in names:
        if name not in known:
            raise TypeError(
                f"{function}: `{name}` must be a keyword of it, got an unknown one. Choose from {', '.join(known)}."
            )


def slice_of_classes(function: str, logits: Any, labels: Any, targets: Any, options: Any) -> None:
    """A slice has one kind of target, and a place among all classes."""
    first, every = options.first_class, options.num_classes
    if (labels is None) == (targets is None):
        got = "neither" if labels is None else "both"
        raise ValueError(f"{function}: one of `labels` and `targets` must be given, got {got}. Pass one of them.")
    for name, value, least in (("first_class", first, 0), ("num_classes", every, 1)):
        if value is not None and not is_count(value, least):
            remedy = number_remedy("int", name, value, "Pass a number of classes")
            raise ValueError(f"{function}: `{name}` must be an int ≥ {least}, got {shown(value)}. {remedy}.")
    # the first slice has nothing that tells it from a whole row
    if every is None and label_smoothing(function, options.label_smoothing):
        raise ValueError(
            f"{function}: `num_classes` must be given where targets are smoothed, got None. "
            "Pass the number of classes of all slices."
        )
    shape, index = tuple(getattr(logits, "shape", ())), axis(function, options.axis)
    if every is not None and -len(shape) <= index < len(shape) and first + shape[index] > every:
        count, end = shape[index], first + shape[index]
        raise ValueError(
            f"{function}: `num_classes` must be at least {end} for {count} classes from {first} on, got {every}. "
            "Pass the number of classes of all slices."
        )


def classes(function: str, value: Any) -> None:
    """A number of classes is at least one."""
    if not is_count(value):
        remedy = number_remedy("int", "num_classes", value, "Pass the number of classes")
        raise ValueError(f"{function}: `num_classes` must be an int ≥ 1, got {shown(value)}. {remedy}.")


def number(function: str, name: str, value: Any) -> None:
    """A value is a plain number; a bool is one too."""
    if not isinstance(value, numbers.Number) and not is_real(value):
        remedy = number_remedy("float", name, value, "Pass a number")
        raise TypeError(f"{function}: `{name}` must be a number, got {shown(value)}. {remedy}.")


def unfit_dtype(function: str, labels: Array, dtype: Any) -> TypeError:
    """The error of a dtype that is none of the labels' library, or does not hold the values."""
    library = arrays.library(labels)
    return TypeError(
        f"{function}: `dtype` must be a dtype of {library} that holds the values, got {dtype!r}. "
        "Leave it out for float32."
    )


def name(function: str, argument: str, value: Any) -> str | None:
    """A name is a string."""
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{function}: `{argument}` must be a name, got {value!r}. See xent.plugins().")
    return value


def names(function: str, argument: str, value: Any) -> tuple[str, ...] | None:
    """Names are a string, or several."""
    if value is None:
        return None
    several = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (None,)
    if not all(isinstance(name, str) for name in several):
        raise ValueError(f"{function}: `{argument}` must be a name or several, got {value!r}. See xent.plugins().")
    return several


def partials(function: str, partials: Iterable[Any], name: str = "partial") -> None:
    """Partials are xent's, of one library and of the same rows."""
    first = None
    for partial in partials:
        if not hasattr(partial, "sum_exp_rest"):
            got = describe_type(partial)
            raise TypeError(f"{function}: `{name}` must be a xent.Partial, got {got}. Call xent.partial.")
        first = first or partial
        same_placement(function, first.max, name, partial.max)
        if tuple(partial.max.shape) != tuple(first.max.shape):
            raise ValueError(
                f"{function}: `{name}` must be of the rows of the first, {tuple(first.max.shape)}, "
                f"got {tuple(partial.max.shape)}. Take every slice of the classes from the same rows."
            )


def merged(function: str, logits: Any, whole: Any, scale: Any, options: Any) -> None:
    """A merged partial, and the scale of each row, are of the rows of these logits."""
    partials(function, (whole,), "whole")
    shape = tuple(getattr(logits, "shape", ()))
    rows = shape_of_rows(shape, class_axis(function, options.axis, len(shape)))
    for name, value in (("whole", whole.max), ("scale", scale)):
        if value is not None:
            array(function, name, value, logits)
            same_placement(function, logits, name, value, "logits")
            expect(function, name, value, rows, f"logits {shape} without their classes")


def plugin(name: Any, options_of: Any, value: Any) -> None:
    """A plugin has a name of its own, and hooks."""
    if not isinstance(name, str) or not name or name.startswith("xent."):
        raise ValueError(f"register: `name` must be a name that does not begin with xent., got {name!r}. Use another.")
    if not any(options_of(value, attribute) for attribute in dir(value)):
        got = describe_type(value)
        raise ValueError(f"register: `plugin` must have hooks, got {got}. Mark them with xent.hookimpl.")
