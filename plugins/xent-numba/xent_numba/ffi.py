"""The kernels as targets of XLA's foreign function interface: what JAX calls on a processor, compiled or not.

A target is the machine code of the loops behind a C function made by Numba: no interpreter, no lock, no copy.

Leaves out that function (``handlers.py``) and all that JAX does with a target (xent's ``backends/jax``).
"""

from __future__ import annotations

import functools
from typing import Any

from numba import types
from numba.core import ccallback

from xent.kernels import register_target, why_no_targets

from .compiled import FLAGS, cache_of
from .frames import MAJOR
from .handlers import handler_of
from .threads import run_uninterrupted


def check() -> str:
    """Why there can be no targets; empty if there can."""
    import jax

    return why_no_targets(jax.ffi, MAJOR)


def compile_target(name: str, method: str, dtype: str, soft: bool) -> tuple[int, Any]:
    """The address of a target's C function, and what keeps it alive; compiled, or found on disk."""
    handler = handler_of(name, method, dtype, soft)
    compiled = ccallback.CFunc(handler, ((types.int64,), types.int64), {}, dict(FLAGS))
    cache = cache_of(handler_of, name)
    if cache is not None:
        compiled._cache = cache
    compiled.compile()
    return compiled.address, compiled


class Kernel:
    """The kernel for labels or for soft targets, as xent's schedule for JAX calls it."""

    def __init__(self, op: str):
        self.op = op

    def ffi_target(self, method: str, dtype: str) -> str:
        """The name of the target for a method and a dtype of the logits."""
        import jax

        name, soft = f"xent_numba_{self.op}_{method}_{dtype}", self.op == "dense"
        make = functools.partial(compile_target, name, method, dtype, soft)
        run_uninterrupted(lambda: register_target(jax.ffi, name, "cpu", make))
        return name


sparse, dense = Kernel("sparse"), Kernel("dense")
