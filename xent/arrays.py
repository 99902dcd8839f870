"""Which library an array belongs to, and what that library can do with its memory.

The set of libraries is open: an array of a library that is not named here is served through its own
``__array_namespace__``. No array library is imported here; a library that made an array is already imported.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

Array = Any
"""An array of any library, inside: the array API has no static type to offer."""


class AnyArray(Protocol):
    """What the arrays of every library have in common, for type checkers."""

    @property
    def shape(self) -> Any: ...
    @property
    def ndim(self) -> int: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def T(self) -> Any: ...  # the arrays' own name, which a product lacks: it is no array


ArrayT = TypeVar("ArrayT", bound=AnyArray)
"""The type of the caller's arrays: a function returns what it was handed."""

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    FieldT = TypeVarWithDefault("FieldT", bound=AnyArray, default=Any)
else:
    FieldT = TypeVar("FieldT")
"""The type of the arrays in a tuple; a tuple that does not say it may hold any."""

COMPAT = {
    "numpy": "numpy",
    "cupy": "array_api_compat.cupy",
    "torch": "array_api_compat.torch",
    "dask": "array_api_compat.dask.array",
    "jax": "jax.numpy",
}
ALIASES = {"jaxlib": "jax"}
SHARING_WORK = 10**4
"""How many steps NumPy may take to tell whether two interleaved views share an element."""
namespaces: dict[type, Any] = {}
"""The namespaces of the types seen so far, of the libraries whose types have only one."""


def library(array: Array) -> str:
    """Root module of the array's type: "numpy", "torch", "jax", ... or one that xent does not know."""
    root = type(array).__module__.partition(".")[0]
    if root in COMPAT or root in ALIASES:
        return ALIASES.get(root, root)
    if is_product(array):
        return library(array.anchor)
    for base in type(array).__mro__[1:]:  # a subclass of a torch Parameter, of numpy's arrays or of its scalars
        name = base.__module__.partition(".")[0]
        if name in ("torch", "jax", "jaxlib") or (name == "numpy" and base.__name__ in ("ndarray", "generic")):
            return ALIASES.get(name, name)
    return root


def is_product(value: Any) -> bool:
    """Whether the value is a :class:`xent.Linear`: logits that are a product, and never whole."""
    return type(value).__module__ == "xent.linear" and hasattr(value, "classifier")


def namespace(array: Array) -> Any:
    """The array API namespace of one array."""
    cached = namespaces.get(type(array))
    if cached is not None:
        return cached
    known = COMPAT.get(library(array))
    if known == "array_api_compat.torch":
        import array_api_compat.torch as torch_namespace  # a statement: TorchDynamo traces no import_module

        return namespaces.setdefault(type(array), torch_namespace)
    if known is not None:
        return namespaces.setdefault(type(array), importlib.import_module(known))
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    compat = importlib.import_module("array_api_compat")
    return compat.array_namespace(array)


def is_array(value: Any) -> bool:
    """Whether the value is an array of a library that speaks the array API, on its own or through array-api-compat."""
    return (library(value) in COMPAT and hasattr(value, "dtype")) or hasattr(value, "__array_namespace__")


def is_traced(array: Array) -> bool:
    """Whether the array is a JAX tracer: it has a shape and a dtype but no values yet."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(array, jax.core.Tracer)


def is_compiling() -> bool:
    """Whether TorchDynamo is tracing the caller (a constant inside the trace)."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_compiling()


def dtype_name(dtype: Any) -> str:
    """A dtype's plain name, "float32", whatever the library."""
    return getattr(dtype, "name", None) or str(dtype).rpartition(".")[2]


def device(array: Array) -> str:
    """The device as "kind" or "kind:index": "cpu", "cuda:0", "traced" for a JAX tracer."""
    array = array.anchor if is_product(array) else array
    root = library(array)
    if root == "torch":
        index = array.device.index
        return array.device.type if index is None else f"{array.device.type}:{index}"
    if root == "cupy":
        return f"cuda:{array.device.id}"
    if root == "jax":
        if is_traced(array):
            return "traced"
        first = min(array.devices(), key=lambda device: device.id)
        return "cpu" if first.platform == "cpu" else f"{first.platform}:{first.id}"
    if root == "dask":
        return device(array._meta) if is_array(array._meta) else "cpu"
    name = str(getattr(array, "device", "cpu"))
    return "cpu" if "cpu" in name.lower() else name


def describe(value: Any) -> str:
    """A value for a message: ``float32[32, 10] on cupy``, never the contents of an array."""
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        return f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}".removeprefix("builtins.")
    shape = ", ".join(str(n) for n in value.shape)
    return f"{dtype_name(value.dtype)}[{shape}] on {library(value)}"


def views(array: Array) -> tuple[str, ...]:
    """The libraries that can read this array's memory without a copy; for a Dask array the library of its chunks."""
    root = library(array)
    operands = array.operands if is_product(array) else (array,)
    array = array.anchor if is_product(array) else array
    if root == "dask":
        return (library(array._meta),) if is_array(array._meta) else ()
    if root != "torch":
        return ()
    if any(dtype_name(one.dtype) == "bfloat16" for one in operands) and not is_importable("ml_dtypes"):
        return ()
    if array.device.type == "cpu":
        return ("numpy",)
    return ("cupy",) if array.device.type == "cuda" and is_importable("cupy") else ()


def memory(array: Array) -> Any:
    """A NumPy array at the place of this array; None if its library does not show its memory.

    Of a torch tensor or a CuPy array it has the address, the shape and the strides, and is not to be read.
    """
    import numpy  # a statement, for it is quick: every call with ``out`` comes here

    if isinstance(array, numpy.ndarray):
        return array
    root = library(array)
    try:
        if root == "torch":
            if array.is_neg():  # it holds the opposites of its numbers
                return None
            size = array.element_size()
            return numpy.asarray(Place(array.data_ptr(), array.shape, [n * size for n in array.stride()], size))
        if root == "cupy":
            return numpy.asarray(Place(array.data.ptr, array.shape, array.strides, array.itemsize))
        return numpy.from_dlpack(array)
    except (AttributeError, TypeError, RuntimeError, BufferError, ValueError):  # a tensor without values, say
        return None


class Place:
    """Where an array is, for ``numpy.asarray``."""

    def __init__(self, address: int, shape: Any, strides: Any, itemsize: int):
        self.__array_interface__ = {
            "data": (address, False),
            "shape": tuple(shape),
            "strides": tuple(strides),
            "typestr": f"|V{itemsize}",
            "version": 3,
        }


def is_same_memory(a: Any, b: Any) -> bool:
    """Whether two arrays of :func:`memory`, of one shape and dtype, have each element at the same place."""
    if a is b:
        return True
    steps = [(m, n) for m, n, size in zip(a.strides, b.strides, a.shape, strict=True) if size > 1]
    addresses = [array.__array_interface__["data"][0] for array in (a, b)]
    return addresses[0] == addresses[1] and all(m == n for m, n in steps)


def share_memory(a: Any, b: Any) -> bool:
    """Whether two arrays of :func:`memory` have a byte in common; True where it would take long to tell."""
    import numpy

    if not numpy.may_share_memory(a, b):
        return False
    try:
        return bool(numpy.shares_memory(a, b, max_work=SHARING_WORK))  # type: ignore[arg-type]  # of NumPy's stubs
    except numpy.exceptions.TooHardError:
        return True


def may_overlap_itself(array: Any) -> bool:
    """Whether the strides of an array of :func:`memory` may bring two of its elements to one place."""
    if array.flags.c_contiguous:
        return False
    extent = array.itemsize
    for stride, size in sorted((abs(stride), size) for stride, size in zip(array.strides, array.shape, strict=True)):
        if size > 1 and stride < extent:
            return True
        extent += stride * (size - 1)
    return False


def added_at(xp: Any, places: Array, values: Array, length: int) -> Array:
    """Zeros (rows, length) to which the values (rows, k) are added at their places (rows, k), one after the other.

    With the derivatives of the library, where it has any.
    """
    rows, root, device = values.shape[0], library(values), getattr(values, "device", None)
    if root == "torch":
        return values.new_zeros((rows, length)).scatter_add(1, places, values)
    if root == "jax":
        return xp.zeros((rows, length), dtype=values.dtype).at[xp.arange(rows)[:, None], places].add(values)
    sums, numbers = xp.zeros((rows, length), dtype=values.dtype, device=device), xp.arange(length, device=device)
    if root == "numpy":
        places = places + length * xp.arange(rows)[:, None]
        xp.add.at(xp.reshape(sums, (-1,)), xp.reshape(places, (-1,)), xp.reshape(values, (-1,)))
        return sums
    for column in range(places.shape[1]):
        if root == "cupy":
            sums[xp.arange(rows), places[:, column]] += values[:, column]
        else:  # the array API has no assignment at places
            sums = sums + xp.where(places[:, column, None] == numbers, values[:, column, None], 0.0)
    return sums


def is_importable(module: str) -> bool:
    """Whether the module is installed; it is not imported."""
    return module in sys.modules or importlib.util.find_spec(module) is not None


def without_fp_warnings() -> contextlib.AbstractContextManager[Any]:
    """A context without NumPy's floating-point warnings: −inf, +inf and NaN are ordinary values here."""
    numpy = sys.modules.get("numpy")
    return contextlib.nullcontext() if numpy is None or is_compiling() else numpy.errstate(all="ignore")
