"""Any array API library, known or not: the walk in blocks, and what every other backend builds on."""

from .schedule import dense, run, sparse, xent_register_kernels

__all__ = ["dense", "run", "sparse", "xent_register_kernels"]
