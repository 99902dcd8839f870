"""Every promise of xent's contract, by the conformance kit."""

from xent.testing import KernelConformance


class TestNumba(KernelConformance):
    kernels = "numba"
