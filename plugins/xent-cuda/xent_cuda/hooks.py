"""The plugin's hook for xent. Imports no CuPy: the first call on a CuPy array does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import xent

from .plan import MAX_CLASSES

METHODS = frozenset({"partial", "loss", "gradient", "loss_and_gradient"})
DTYPES = frozenset({"float16", "bfloat16", "float32", "float64"})
MIN_CAPABILITY = 80


def check(problem: Any) -> bool | str:
    """Whether the kernels can serve, else the reason; called once for each new kind of call."""
    from . import device

    try:
        capability = device.properties(int(problem.device.partition(":")[2] or 0)).capability
    except Exception as error:  # CuPy's, of any kind: no driver, no such GPU, no CuPy
        return f"CuPy finds no GPU: {type(error).__name__}: {error}"
    if capability < MIN_CAPABILITY:
        least = MIN_CAPABILITY / 10
        return f"the GPU has compute capability {capability / 10}, and {least} is the least that is served"
    return True


def check_ffi(problem: Any) -> bool | str:
    """Whether the kernels can serve JAX, else the reason."""
    if problem.array != "jax":  # declined by its array already: JAX is not imported for the reason
        return True
    from . import ffi

    return ffi.check() or check(problem)


def guard(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether a row has no more classes than a kernel can count."""
    return not shape or shape[-1] <= MAX_CLASSES


@xent.hookimpl
def xent_register_kernels(api: int) -> Iterator[xent.KernelSpec]:
    for op, methods in (("sparse", METHODS | {"statistics"}), ("dense", METHODS)):
        yield xent.KernelSpec(
            name="cuda",
            op=op,
            load=f"xent_cuda.kernels:{op}",
            arrays=frozenset({"cupy"}),
            devices=frozenset({"cuda"}),
            dtypes=DTYPES,
            methods=methods,
            contiguous=True,
            in_place=True,
            priority=100,
            check=check,
            guard=guard,
        )
        yield xent.KernelSpec(
            name="cuda-ffi",
            op=op,
            load=f"xent_cuda.ffi:{op}",
            arrays=frozenset({"jax"}),
            devices=frozenset({"gpu", "traced"}),
            dtypes=DTYPES,
            methods=frozenset({"ffi_target"}),
            priority=110,  # above that of xent-numba, which serves what is traced too
            check=check_ffi,
            guard=guard,
        )
