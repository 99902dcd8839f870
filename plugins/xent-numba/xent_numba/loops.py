"""The loops by their names: from kept object code where there is some, else by Numba, which is imported then."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from . import kept
from .threads import run_uninterrupted

loops: dict[tuple[str, str, bool], Callable[..., None]] = {}


def loop_of(name: str, dtype: str, soft: bool = False) -> Callable[..., None]:
    """The loop of a name such as "rows.fold" as machine code, for logits of a dtype, and soft targets or labels.

    It is called like the Python function, and releases the interpreter's lock.
    """
    key = name, dtype, soft
    loop = loops.get(key)
    if loop is None:
        run_uninterrupted(lambda: find(*key))  # else an interrupt may leave a lock of Numba's or LLVM's held
        loop = loops[key]
    return loop


def find(name: str, dtype: str, soft: bool) -> None:
    """Adds a loop to those that are known."""
    loop = kept.load(name, dtype) if name in kept.LOOPS and not soft else None
    if loop is None:
        module, _, function = name.partition(".")
        compiled = importlib.import_module(".compiled", __package__).compiled
        loop = compiled(getattr(importlib.import_module(f".{module}", __package__), function), dtype, soft)
    loops.setdefault((name, dtype, soft), loop)
