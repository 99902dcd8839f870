"""Any array API library, known or not: the walk in blocks, and what every other backend builds on."""

from .schedule import KERNELS, dense, run, sparse, xent_register_kernels

__all__ = ["KERNELS", "dense", "run", "sparse", "xent_register_kernels"]
