"""The kernels on the twin, as specs that the conformance kit can look at: by the best variant, and by each of them."""

import functools

from processor import Processor
from xent_cuda import kernels
from xent_cuda.plan import Device

DEVICE = Device(processors=4, shared_bytes=20 << 10, shared_bytes_of_all=24 << 10)
"""A small GPU: 8 rows are many, a kilobyte of a row is much."""
VARIANTS = ("", "tile", "lanes", "warp", "block", "cluster", "split")


@functools.cache
def kernel(op: str, variant: str, schedule: int = 0):
    made = {"sparse": kernels.Sparse, "dense": kernels.Dense}[op]
    return made(Processor(DEVICE, schedule), variant)
