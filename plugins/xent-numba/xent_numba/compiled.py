"""Machine code for the loops: one signature for each dtype, compiled at its first use and cached on disk.

By default Numba compiles anew for every combination of layout and flags of the arrays, and its cache on disk checks the
text of one file. Here an array of any strides is one type, and the cache checks all sources of this package.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numba
from llvmlite import binding
from numba import types
from numba.core import caching

from . import column_gradients, column_statistics, columns, grids, kept, probabilities, row_gradients, rows
from .kept import fingerprint
from .object_code import object_code
from .threads import run_uninterrupted

FLAGS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
MEMORY = {"float16": types.int16, "bfloat16": types.uint16, "float32": types.float32, "float64": types.float64}
lock = threading.RLock()


def array_type(dtype: types.Type, dimensions: int = 1, *, written: bool = False) -> types.Array:
    """The type of arrays of any strides and alignment."""
    return types.Array(dtype, dimensions, "A", readonly=not written, aligned=False)


def signatures(dtype: str, soft: bool) -> dict[Callable[..., Any], tuple[types.Type, ...]]:
    """The types of every loop's arguments for logits of a dtype, with soft targets or with labels."""
    memory = MEMORY[dtype]
    wide = types.float64 if dtype == "float64" else types.float32
    index, real = types.int64, types.float64
    block, grid = array_type(memory, 2), array_type(memory, 3)
    block_out, grid_out = array_type(memory, 2, written=True), array_type(memory, 3, written=True)
    table, scales, labels = array_type(real, 2, written=True), array_type(wide), array_type(index)
    values, ranks = array_type(wide, written=True), array_type(index, written=True)
    bounds = (index, index)
    targets = (array_type(wide, 2) if soft else labels, real, real)
    grid_targets = (array_type(wide, 3) if soft else labels, real, real)
    loops = {
        rows.fold: (block, *targets, *bounds, table),
        row_gradients.gradient: (block, *targets, array_type(real, 2), scales, *bounds, block_out),
        row_gradients.fold_and_gradient: (block, *targets, scales, *bounds, table, block_out),
        columns.loss: (grid, *grid_targets, *bounds, values),
        columns.loss_and_partial: (grid, *grid_targets, *bounds, values, values, values, values, values),
        column_gradients.gradient: (grid, *grid_targets, types.UniTuple(scales, 3), scales, *bounds, grid_out),
        column_gradients.loss_and_gradient: (grid, *grid_targets, scales, *bounds, values, grid_out),
    }
    if soft:
        return loops
    partials = array_type(wide, 2, written=True)
    return loops | {
        rows.fold_with_statistics: (block, labels, scales, *bounds, table),
        rows.finish_loss: (table, index, *bounds, values),
        rows.finish_partial: (table, index, *bounds, table),
        rows.finish_statistics: (table, index, *bounds, ranks, values, values),
        column_statistics.statistics: (grid, labels, scales, *bounds, partials, ranks, values, values),
        probabilities.row_sums: (block, labels, *bounds, table, values),
        probabilities.column_sums: (grid, labels, *bounds, table, values),
        grids.gather_rows: (grid, *bounds, block_out),
        grids.scatter_rows: (block, *bounds, grid_out),
    }


class SourceStamp:
    """A locator whose entries are valid for these sources."""

    def get_source_stamp(self) -> str:
        return fingerprint()


class EnvironmentLocator(SourceStamp, caching.UserProvidedCacheLocator):
    """The folder that NUMBA_CACHE_DIR names."""


class PackageLocator(SourceStamp, caching.InTreeCacheLocator):
    """The package's own folder, if it can be written."""


class UserLocator(SourceStamp, caching.UserWideCacheLocator):
    """The user's cache folder."""


class LoopCacheImpl(caching.CompileResultCacheImpl):
    _locator_classes = (EnvironmentLocator, PackageLocator, UserLocator)


class LoopCache(caching.FunctionCache):
    """Numba's cache of one compilation of a function, in files of its own.

    Numba keeps all compilations of a function under one index. Two processes that compile at once then may give the
    number of one compilation to the code of another, which is found by the index and is wrong code. With damaged files
    or a full disk nothing is loaded or saved, and nothing raised.
    """

    _impl_class = LoopCacheImpl

    def __init__(self, function: Callable[..., Any], name: str):
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = caching.IndexDataCacheFile(self._cache_path, f"{self._impl.filename_base}-{name}", stamp)

    def _index_key(self, signature: Any, codegen: Any) -> Any:
        """The key in the index: not of what a function closes over, loops among it, which have no name that lasts."""
        return signature, codegen.magic_tuple()

    def load_overload(self, *arguments: Any) -> Any:
        try:
            return super().load_overload(*arguments)
        except Exception:  # a pickle may fail in any way
            return None

    def save_overload(self, *arguments: Any) -> None:
        with contextlib.suppress(Exception):  # the index on disk may be damaged, too
            super().save_overload(*arguments)


@functools.cache
def cache_of(function: Callable[..., Any], name: str = "") -> LoopCache | None:
    """The cache of a function compiled under that name; None if no folder can be written."""
    try:
        return LoopCache(function, name)
    except RuntimeError:
        return None


compiled_loops: dict[tuple[Callable[..., Any], str, bool], Callable[..., None]] = {}
dispatchers: dict[tuple[Callable[..., Any], str, bool], Any] = {}


def compiled(function: Callable[..., Any], dtype: str, soft: bool = False) -> Callable[..., None]:
    """A loop as machine code: called like the Python function, it releases the interpreter's lock."""
    key = function, dtype, soft
    loop = compiled_loops.get(key)
    if loop is None:
        run_uninterrupted(lambda: compile_loop(*key))  # else an interrupt may leave a lock of Numba's or LLVM's held
        loop = compiled_loops[key]
    return loop


def compile_loop(function: Callable[..., Any], dtype: str, soft: bool) -> None:
    """Adds a loop to those that are compiled, unless it is there already."""
    key = function, dtype, soft
    with lock:
        if key not in compiled_loops:
            name = f"{dtype}-{'soft' if soft else 'labels'}"
            dispatchers[key], compiled_loops[key] = compile_cached(function, signatures(dtype, soft)[function], name)
            if not soft:
                keep(function, dtype)


def keep(function: Callable[..., Any], dtype: str) -> None:
    """Keep the object code of a loop for processes without Numba, if it is one of an evaluation and not kept yet."""
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
    # subtle: a processor without instructions for float16 calls functions of Numba's
    is_native = dtype != "float16" or binding.get_host_cpu_features().get("f16c", False)
    if name in kept.LOOPS and is_native and not kept.is_kept(name, dtype):
        with contextlib.suppress(Exception):  # it may be in parts of Numba that are not public
            (result,) = dispatchers[function, dtype, False].overloads.values()
            code = object_code(result, kept.symbol_of(name, dtype))
            if code is not None:
                kept.save(name, dtype, code)


def compile_cached(
    function: Callable[..., Any],
    signature: tuple[types.Type, ...],
    name: str,
    made_by: Callable[..., Any] | None = None,
) -> tuple[Any, Callable[..., Any]]:
    """A function compiled for one signature, as other compiled code calls it and as Python does; cached on disk.

    ``made_by`` is the function of a module that made it, if it is not one itself.
    """
    dispatcher = numba.njit(**FLAGS)(function)
    cache = cache_of(made_by or function, name)
    if cache is not None:
        dispatcher._cache = cache
    entry = dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher, entry


def part_of(target: str) -> Callable[[Callable[..., Any]], Any]:
    """A decorator for a function made for one target, compiled under a name of its own.

    subtle: Numba tells functions of one name and one signature apart by a number that counts in each process. Two that
    were cached by two processes may have the same one, and a process that loads both would run one for the other.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        return numba.njit(**FLAGS)(named_for(target, function))

    return compiled


def named_for(target: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself, whose symbol now has the target's name in it."""
    function.__qualname__ = f"{target}.{function.__name__}"
    return function


def in_compiled_code(function: Callable[..., Any], dtype: str, soft: bool = False) -> Any:
    """The same loop as other compiled code calls it: its machine code is linked, not made again."""
    compiled(function, dtype, soft)
    return dispatchers[function, dtype, soft]


def warm(dtypes: Iterable[str]) -> None:
    """Compiles every loop for logits of these dtypes, and caches those that are not on disk yet."""
    for dtype in dtypes:
        for soft in (False, True):
            for function in signatures(dtype, soft):
                compiled(function, dtype, soft)
