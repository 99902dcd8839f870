"""Every promise of xent's contract, by the conformance kit, on a GPU; test_twin.py has them on a processor."""

import pytest
import registered  # noqa: F401  # makes the kernels known where they are not installed

from xent.testing import KernelConformance

cupy = pytest.importorskip("cupy", reason="cupy is not installed")


@pytest.mark.gpu
@pytest.mark.skipif(not cupy.cuda.is_available(), reason="cupy.cuda.is_available() is False: this takes a GPU")
class TestCuda(KernelConformance):
    kernels = "cuda"
