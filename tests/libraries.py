"""The array libraries, as the tests see them: one object each, all with the same few methods.

A test is written once, on NumPy arrays: ``lib.call(function, *arrays, **keywords)`` hands them to the function as the
library's own and brings back what it returns. Every library is held to its strictest: NumPy's arrays cannot be written,
array-api-strict allows no boolean indexing and no data-dependent shape, Dask raises on whatever computes before it is
asked to, JAX runs eagerly and under ``jax.jit``.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

import xent
from xent.dispatch import settings

ARRAYS = ("sample_weight", "class_weight", "pos_weight", "labels", "targets", "bias", "scale")
"""The keywords that arrays come in by."""


class Missing(Exception):
    """The library cannot be had here, and why."""


class Library:
    """NumPy, with arrays that cannot be written; and what the others say otherwise."""

    lazy = False  # results are computed later, by ``numpy``
    flushes = False  # subnormal numbers are taken for 0
    raises_labels = True  # a bad label raises; else its row is NaN
    slow = False  # a call costs milliseconds, whatever its size
    compiles = False  # each shape of its arguments is compiled anew
    kernel: str | None = None  # forced
    dtypes = frozenset({"float16", "bfloat16", "float32", "float64"})

    def __init__(self, name: str) -> None:
        self.name = name
        self.array_type = self.load()

    def __repr__(self) -> str:
        return self.name

    def load(self) -> type:
        """The type of the library's arrays."""
        return np.ndarray

    def asarray(self, array: Any, *, classes: int | None = None) -> Any:
        """The library's own array with these values; ``classes`` is its class axis, if it has one."""
        copy = np.array(array)
        copy.flags.writeable = False
        return copy

    def to_numpy(self, array: Any) -> np.ndarray:
        return np.asarray(array)

    def numpy(self, result: Any) -> Any:
        """What a function returned, a tuple field by field, as NumPy arrays; computes what is lazy."""
        if result is None:
            return None
        if isinstance(result, tuple):
            values = (self.numpy(one) for one in result)
            return type(result)(*values) if hasattr(result, "_fields") else tuple(values)
        return self.to_numpy(result)

    def arguments(self, arrays: tuple, keywords: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The library's own arrays in the place of NumPy's; all else as it is."""
        axis = keywords.get("axis", -1)
        ranks = [np.ndim(array) for array in arrays]
        told = [
            self.asarray(array, classes=axis if rank == ranks[0] else None) if isinstance(array, np.ndarray) else array
            for array, rank in zip(arrays, ranks, strict=True)
        ]
        named = dict(keywords)
        for name in ARRAYS:
            if isinstance(named.get(name), np.ndarray):
                along = {"class_weight": 0, "targets": axis}.get(name)
                named[name] = self.asarray(named[name], classes=along)
        return told, named

    @contextlib.contextmanager
    def strictly(self) -> Iterator[None]:
        """Where calls are made: with the forced kernel, and with whatever the library can forbid forbidden."""
        with xent.using(kernel=self.kernel) if self.kernel else contextlib.nullcontext():
            yield

    def run(self, function: Callable, told: list[Any], named: dict[str, Any]) -> Any:
        return function(*told, **named)

    def apply(self, function: Callable, /, *arrays: Any, **keywords: Any) -> Any:
        """What the function returns on these arrays, as it is."""
        told, named = self.arguments(arrays, keywords)
        with self.strictly():
            return self.run(function, told, named)

    def call(self, function: Callable, /, *arrays: Any, **keywords: Any) -> Any:
        """The same as NumPy arrays, computed."""
        return self.numpy(self.apply(function, *arrays, **keywords))


class Generic(Library):
    """NumPy on the generic kernel, which serves the libraries that xent has never heard of."""

    kernel = "generic"


class Strict(Library):
    """array-api-strict, without anything that an accelerator or a lazy library could not do."""

    slow = True
    dtypes = frozenset({"float32", "float64"})

    def load(self) -> type:
        self.xp = importlib.import_module("array_api_strict")
        return type(self.xp.zeros(1))

    def asarray(self, array: Any, *, classes: int | None = None) -> Any:
        return self.xp.asarray(np.array(array))

    @contextlib.contextmanager
    def strictly(self) -> Iterator[None]:
        flags = self.xp.ArrayAPIStrictFlags(boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=())
        with super().strictly(), flags:
            yield


def uneven(size: int) -> tuple[int, ...]:
    """A size cut into up to three parts, no two alike where that can be."""
    return (size,) if size < 2 else (1, size - 1) if size < 4 else (1, size // 2, size - 1 - size // 2)


class Dask(Library):
    """Dask, cut unevenly over the rows, or over the classes too; building a graph must compute nothing."""

    lazy = slow = True

    def load(self) -> type:
        self.dask, self.da = importlib.import_module("dask"), importlib.import_module("dask.array")
        return self.da.Array

    def asarray(self, array: Any, *, classes: int | None = None) -> Any:
        array = super().asarray(array)
        chunks = [(size,) for size in array.shape]
        along = None if classes is None or array.ndim == 0 else classes % array.ndim
        rows = next((axis for axis in range(array.ndim) if axis != along), None)
        for axis in (rows, along if self.name.endswith("-split") else None):
            if axis is not None:
                chunks[axis] = uneven(array.shape[axis])
        return self.da.from_array(array, chunks=tuple(chunks))

    @contextlib.contextmanager
    def strictly(self) -> Iterator[None]:
        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("something was computed while the graph was built")

        with super().strictly(), self.dask.config.set(scheduler=refuse):
            yield

    def to_numpy(self, array: Any) -> np.ndarray:
        with self.dask.config.set(scheduler="synchronous"):
            value = array.compute()

        assert value.dtype == array.dtype, f"{self}: said to be {array.dtype}, is {value.dtype}"
        assert value.shape == array.shape or any(np.isnan(size) for size in array.shape)
        return np.asarray(value)

    def numpy(self, result: Any) -> Any:
        if isinstance(result, tuple) and all(isinstance(one, self.array_type) for one in result):
            with self.dask.config.set(scheduler="synchronous"):
                values = self.dask.compute(*result)  # one pass for all of them
            return type(result)(*values) if hasattr(result, "_fields") else values
        return super().numpy(result)


class Torch(Library):
    """torch, eagerly, on the CPU."""

    def load(self) -> type:
        self.torch = importlib.import_module("torch")
        return self.torch.Tensor

    def asarray(self, array: Any, *, classes: int | None = None) -> Any:
        array = np.array(array)
        if array.dtype == ml_dtypes.bfloat16:
            return self.torch.from_numpy(array.view(np.int16)).view(self.torch.bfloat16)
        return self.torch.from_numpy(array)

    def to_numpy(self, array: Any) -> np.ndarray:
        array = array.detach()
        if array.dtype == self.torch.bfloat16:
            return array.view(self.torch.int16).numpy().view(ml_dtypes.bfloat16)
        return array.numpy()


class Jax(Library):
    """JAX, on the CPU; in 64 bits only where an argument has them."""

    slow = compiles = True
    flushes = True  # XLA sets the processor so

    def load(self) -> type:
        self.jax = importlib.import_module("jax")
        return self.jax.Array

    def asarray(self, array: Any, *, classes: int | None = None) -> Any:
        return self.jax.numpy.asarray(np.array(array))

    def apply(self, function: Callable, /, *arrays: Any, **keywords: Any) -> Any:
        every = (*arrays, *keywords.values())
        with self.jax.enable_x64(any(getattr(one, "dtype", None) == np.float64 for one in every)):
            return super().apply(function, *arrays, **keywords)


class JaxJit(Jax):
    """JAX inside ``jax.jit``, where no value can be looked at."""

    raises_labels = False

    def load(self) -> type:
        self.compiled: dict[Any, Callable] = {}
        return super().load()

    def run(self, function: Callable, told: list[Any], named: dict[str, Any]) -> Any:
        keys = [str(index) for index in range(len(told))]
        every = {**dict(zip(keys, told, strict=True)), **named}
        traced = {key: value for key, value in every.items() if isinstance(value, self.array_type)}
        fixed = {key: value for key, value in every.items() if key not in traced}

        def under_jit(traced: dict[str, Any]) -> Any:
            values = traced | fixed
            return function(*(values[key] for key in keys), **{name: values[name] for name in named})

        # What was compiled serves again where everything that a trace sees is the same: it is most of the time.
        key = function, tuple(every), repr(fixed), settings.current().settings
        return self.compiled.setdefault(key, self.jax.jit(under_jit))(traced)


class Cupy(Library):
    """CuPy, where there is a GPU to compute on."""

    dtypes = frozenset({"float16", "float32", "float64"})
    raises_labels = False
    flushes = True  # CuPy compiles everything so

    def load(self) -> type:
        self.cupy = importlib.import_module("cupy")
        if not self.cupy.cuda.is_available():
            raise Missing("cupy.cuda.is_available() is False: computing with CuPy takes a GPU")
        return self.cupy.ndarray

    def asarray(self, array: Any, *, classes: int | None = None) -> Any:
        return self.cupy.asarray(np.array(array))

    def to_numpy(self, array: Any) -> np.ndarray:
        return self.cupy.asnumpy(array)


VARIANTS: dict[str, type[Library]] = {
    "numpy": Library,
    "numpy-generic": Generic,
    "array-api-strict": Strict,
    "dask": Dask,
    "dask-split": Dask,
    "torch": Torch,
    "jax": Jax,
    "jax-jit": JaxJit,
    "cupy": Cupy,
}
BACKENDS = ("numpy", "array-api-strict", "dask", "torch", "jax", "cupy")
"""What ``--backend`` and ``XENT_REQUIRE_BACKENDS`` may name."""


def backend_of(variant: str) -> str:
    """The backend of a variant: "jax" of "jax-jit"."""
    return next(name for name in BACKENDS if variant == name or variant.startswith(name + "-"))
