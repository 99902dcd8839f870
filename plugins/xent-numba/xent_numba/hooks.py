"""The plugin's hook for xent. Imports no Numba: the first call that needs it does."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import xent

from . import kept

METHODS = frozenset({"partial", "loss", "loss_and_partial", "gradient", "loss_and_gradient"})
DTYPES = frozenset({"float16", "bfloat16", "float32", "float64"})


@functools.cache
def numba_fails() -> str:
    """Why Numba cannot be used; empty if it can."""
    try:
        import numba
    except Exception as error:  # Numba raises ImportError; others if NumPy is too new for it
        return f"Numba cannot be imported: {error}"
    return "Numba compiles nothing: NUMBA_DISABLE_JIT is set" if numba.config.DISABLE_JIT else ""


def check(problem: Any) -> bool | str:
    """Whether the kernels can serve, else the reason; called once for each new kind of call."""
    if problem.method == "statistics" and kept.some_are_kept():  # they need no Numba
        return True
    return numba_fails() or True


def check_ffi(problem: Any) -> bool | str:
    """Whether the kernels can serve JAX, else the reason."""
    if problem.array != "jax":  # declined by its array already: neither Numba nor JAX is imported for the reason
        return True
    if numba_fails():
        return numba_fails()
    from . import ffi

    return ffi.check() or True


@xent.hookimpl
def xent_register_kernels(api: int) -> Iterator[xent.KernelSpec]:
    for op, methods in (("sparse", METHODS | {"statistics", "probability_sums", "whole_call"}), ("dense", METHODS)):
        yield xent.KernelSpec(
            name="numba",
            op=op,
            load=f"xent_numba.kernels:{op}",
            arrays=frozenset({"numpy"}),
            devices=frozenset({"cpu", "traced"}),
            dtypes=DTYPES,
            layouts=frozenset({"last", "middle"}),
            methods=methods,
            priority=100,
            in_place=True,
            check=check,
        )
        yield xent.KernelSpec(
            name="numba-ffi",
            op=op,
            load=f"xent_numba.ffi:{op}",
            arrays=frozenset({"jax"}),
            devices=frozenset({"cpu", "traced"}),
            dtypes=DTYPES,
            layouts=frozenset({"last"}),
            methods=frozenset({"ffi_target", "partial", *(["statistics"] if op == "sparse" else [])}),
            priority=100,
            check=check_ffi,
        )
