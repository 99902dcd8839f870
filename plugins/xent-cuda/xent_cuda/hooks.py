"""What xent asks of this package. Imports no CuPy: that is left to the first call on one of its arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import xent

from .plan import CLASSES_AT_MOST

METHODS = frozenset({"partial", "loss", "gradient", "loss_and_gradient"})
DTYPES = frozenset({"float16", "bfloat16", "float32", "float64"})
CAPABILITY = 80


def check(problem: Any) -> bool | str:
    """Whether the kernels can serve; asked once for each new kind of call."""
    from . import machine

    try:
        found = machine.numbers(int(problem.device.partition(":")[2] or 0)).capability
    except Exception as error:  # CuPy's, of whatever kind: no driver, no such GPU, no CuPy
        return f"CuPy finds no GPU: {type(error).__name__}: {error}"
    if found < CAPABILITY:
        return f"the GPU has compute capability {found / 10}, and {CAPABILITY / 10} is the least that is served"
    return True


def guard(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether there are not more classes in a row than a kernel counts."""
    return not shape or shape[-1] <= CLASSES_AT_MOST


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
            priority=100,
            check=check,
            guard=guard,
        )
