"""Loops whose object code an earlier process kept, which run without Numba: importing it takes 0.7 s of the processor.

They are those of an evaluation, in the cache's folder, under a key of all that their code depends on. The code is the
one that Numba made, so that the bits are, too. What is damaged or of another machine is not loaded.
Leaves out making the code (``compiled.py``).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

LOOPS = frozenset(
    {
        "rows.fold_with_statistics",
        "rows.finish_partial",
        "rows.finish_statistics",
        "column_statistics.statistics",
        "probabilities.row_sums",
        "probabilities.column_sums",
        "grids.gather_rows",
    }
)
"""The loops that are kept, for labels."""
DIGEST_BYTES = 32
keepalive: list[Any] = []
"""The engines whose memory holds the code."""


@functools.cache
def fingerprint() -> str:
    """Hexadecimal digits that change whenever a source of this package does."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def key() -> str:
    """Hexadecimal digits of all that object code depends on: sources, versions, settings of Numba, and processor."""
    import llvmlite.binding

    settings = sorted(
        item for item in os.environ.items() if item[0].startswith("NUMBA_") and item[0] != "NUMBA_CACHE_DIR"
    )
    versions = [importlib.metadata.version(name) for name in ("numba", "llvmlite", "numpy")]
    processor = llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features().flatten()
    return hashlib.sha256(repr((fingerprint(), sys.version, versions, settings, processor)).encode()).hexdigest()[:40]


def folders() -> Iterator[Path]:
    """The folders in which code may be kept: that of NUMBA_CACHE_DIR, or else the package's own and the user's."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        yield Path(chosen, "xent_numba")
        return
    yield Path(__file__).parent / "__pycache__" / "kept"
    with suppress(RuntimeError):  # a user without a home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "xent_numba")


def some_are_kept() -> bool:
    """Whether there is code that this process may load."""
    with suppress(Exception):  # without Numba or llvmlite there is none
        return any(folder.is_dir() and (folder / key()).is_dir() for folder in folders())
    return False


def symbol_of(name: str, dtype: str) -> str:
    """The symbol of a loop's function."""
    return f"xent_numba.{name}.{dtype}"


def save(name: str, dtype: str, code: bytes) -> None:
    """Keep the object code of a loop in the first folder that can be written."""
    for folder in folders():
        target = folder / key() / f"{name}-{dtype}.o"
        beside = target.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            target.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(hashlib.sha256(code).digest() + code)
            beside.replace(target)
            return


def is_kept(name: str, dtype: str) -> bool:
    """Whether there is a file of a loop's code."""
    return any((folder / key() / f"{name}-{dtype}.o").exists() for folder in folders())


def load(name: str, dtype: str) -> Callable[..., None] | None:
    """A loop from its object code, called as Numba's own; None if it was not kept, or is damaged."""
    for folder in folders():
        try:
            kept = (folder / key() / f"{name}-{dtype}.o").read_bytes()
        except OSError:
            continue
        digest, code = kept[:DIGEST_BYTES], kept[DIGEST_BYTES:]
        if hashlib.sha256(code).digest() == digest:
            return callable_of(address_of(code, symbol_of(name, dtype)))
    return None


def address_of(code: bytes, symbol: str) -> int:
    """The address of a function of object code, linked into this process."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    keepalive.append(engine)
    return int(engine.get_function_address(symbol))


def callable_of(address: int) -> Callable[..., None]:
    """A function of Numba's calling convention without a result, which Python calls without the interpreter's lock.

    Its arguments are pointers to what it returns and raises, and then the fields of each array, and numbers.
    """
    function = ctypes.CFUNCTYPE(ctypes.c_int32)(address)

    def call(*arguments: Any) -> None:
        returned, raised = ctypes.c_void_p(), ctypes.c_void_p()
        fields: list[Any] = [ctypes.byref(returned), ctypes.byref(raised)]
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                data = argument.__array_interface__["data"][0]
                numbers = (0, 0, argument.size, argument.itemsize, data, *argument.shape, *argument.strides)
                fields += map(ctypes.c_int64, numbers)
            else:
                fields.append(ctypes.c_int64(argument))
        if function(*fields):
            raise MemoryError("a loop of xent-numba could not allocate its buffers")

    return call
