"""Machine code for the loops: one signature for each dtype, compiled when it is first asked for and kept on disk.

Left alone, Numba compiles anew for every combination of layout and flags of the arrays, and its cache on disk looks at
one file's text. Here an array of any strides is one type, and what was compiled holds for the sources of this package.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numba
from numba import types
from numba.core import caching

from . import columns, grids, rows, slopes

FLAGS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
MEMORY = {"float16": types.int16, "bfloat16": types.uint16, "float32": types.float32, "float64": types.float64}
lock = threading.RLock()


def array(dtype: types.Type, dimensions: int = 1, *, written: bool = False) -> types.Array:
    """An array of any strides and alignment."""
    return types.Array(dtype, dimensions, "A", readonly=not written, aligned=False)


def signatures(dtype: str, soft: bool) -> dict[Callable[..., Any], tuple[types.Type, ...]]:
    """The types of every loop's arguments for logits of a dtype, with soft targets or with labels."""
    memory = MEMORY[dtype]
    wide = types.float64 if dtype == "float64" else types.float32
    index, real = types.int64, types.float64
    block, grid = array(memory, 2), array(memory, 3)
    block_out, grid_out = array(memory, 2, written=True), array(memory, 3, written=True)
    table, values, scales = array(real, 2, written=True), array(wide, written=True), array(wide)
    ranks, some = array(index, written=True), (index, index)
    target = (array(wide, 2) if soft else array(index), real, real)
    grid_target = (array(wide, 3) if soft else array(index), real, real)
    found = {
        rows.fold: (block, *target, *some, table),
        slopes.gradient: (block, *target, array(real, 2), scales, *some, block_out),
        slopes.fold_and_gradient: (block, *target, scales, *some, table, block_out),
        columns.loss: (grid, *grid_target, *some, values),
        columns.partial: (grid, *grid_target, *some, values, values, values, values),
        columns.gradient: (grid, *grid_target, types.UniTuple(scales, 3), scales, *some, grid_out),
        columns.loss_and_gradient: (grid, *grid_target, scales, *some, values, grid_out),
    }
    if soft:
        return found
    return found | {
        rows.fold_with_statistics: (block, array(index), scales, *some, table),
        rows.finish_loss: (table, index, *some, values),
        rows.finish_partial: (table, index, *some, table),
        rows.finish_statistics: (table, index, *some, ranks, values, values),
        columns.statistics: (grid, array(index), scales, *some, array(wide, 2, written=True), ranks, values, values),
        grids.bring_rows: (grid, *some, block_out),
        grids.put_rows: (block, *some, grid_out),
    }


@functools.cache
def fingerprint() -> str:
    """Hexadecimal digits that change whenever a source of this package does."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class Stamped:
    """A place on disk whose entries hold for these sources."""

    def get_source_stamp(self) -> str:
        return fingerprint()


class Provided(Stamped, caching.UserProvidedCacheLocator):
    """Where NUMBA_CACHE_DIR says."""


class InTree(Stamped, caching.InTreeCacheLocator):
    """Beside the package, where that can be written."""


class UserWide(Stamped, caching.UserWideCacheLocator):
    """In the user's own cache."""


class Stored(caching.CompileResultCacheImpl):
    _locator_classes = (Provided, InTree, UserWide)


class Cache(caching.FunctionCache):
    """Numba's own, but for files that are damaged and disks that are full: then it is compiled, and not kept."""

    _impl_class = Stored

    def load_overload(self, *arguments: Any) -> Any:
        try:
            return super().load_overload(*arguments)
        except Exception:  # a pickle may fail in any way
            return None

    def save_overload(self, *arguments: Any) -> None:
        with contextlib.suppress(Exception):  # the index that is there may be damaged, too
            super().save_overload(*arguments)


@functools.cache
def cache_of(function: Callable[..., Any]) -> Cache | None:
    """Where a loop's machine code is kept; None where nothing can be written."""
    try:
        return Cache(function)
    except RuntimeError:
        return None


compiled_loops: dict[tuple[Callable[..., Any], str, bool], Callable[..., None]] = {}


def compiled(function: Callable[..., Any], dtype: str, soft: bool = False) -> Callable[..., None]:
    """A loop as machine code: called like the Python function, it lets other threads run meanwhile."""
    key = function, dtype, soft
    found = compiled_loops.get(key)
    if found is None:
        with lock:
            if key not in compiled_loops:
                dispatcher = numba.njit(**FLAGS)(function)
                cache = cache_of(function)
                if cache is not None:
                    dispatcher._cache = cache
                compiled_loops[key] = dispatcher.compile(signatures(dtype, soft)[function])
            found = compiled_loops[key]
    return found


def warm(dtypes: Iterable[str]) -> None:
    """Compiles every loop for logits of these dtypes, and keeps what is not on disk yet."""
    for dtype in dtypes:
        for soft in (False, True):
            for function in signatures(dtype, soft):
                compiled(function, dtype, soft)
