"""A kernel for xent: what it can do. Copy the folder, rename it, and put your own loop into ``kernel.py``."""

from __future__ import annotations

from collections.abc import Iterator

import xent


@xent.hookimpl
def xent_register_kernels(api: int) -> Iterator[xent.KernelSpec]:
    """What the kernel can do. Heavy imports (numba, cupy, torch) belong in the module of ``load``."""
    yield xent.KernelSpec(
        name="template",
        op="sparse",
        load="xent_template.kernel:kernel",
        arrays=frozenset({"numpy"}),
        devices=frozenset({"cpu"}),
        dtypes=frozenset({"float32", "float64"}),
        methods=frozenset({"partial", "gradient"}),
        block_elements=1
        << 16,  # its temporary arrays for a block fit the cache; without this a block is the whole array
        opt_in=True,  # used only on request; remove this line once it is faster than the other kernels
    )
