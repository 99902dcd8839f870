"""The kernels on the twin, as specs that the conformance kit can look at, each call by the variant that is planned."""

import numpy as np
from processor import Processor
from xent_cuda import kernels
from xent_cuda.plan import Device

import xent
from xent.testing import ArrayLibrary
from xent.testing.memory import FORMS

DEVICE = Device(multiprocessors=4, shared_bytes=20 << 10, shared_bytes_per_multiprocessor=24 << 10)
"""A small GPU: 8 rows are many, a kilobyte of a row is much."""
LIBRARY = ArrayLibrary("numpy", np.asarray, np.asarray, (*FORMS, "reversed"), is_mutable=True, flushes=True)
"""NumPy's arrays as CuPy's would be: in the forms that those have, and float32 with its subnormals flushed."""
METHODS = frozenset({"partial", "loss", "gradient", "loss_and_gradient"})

processor = Processor(DEVICE)
sparse, dense = kernels.CudaSparse(processor), kernels.CudaDense(processor)


def spec(op: str, dtype: str) -> xent.KernelSpec:
    """The kernel for an op, declared for one dtype."""
    return xent.KernelSpec(
        name="twin",
        op=op,
        load=f"twins:{op}",
        dtypes=frozenset({dtype}),
        methods=METHODS | ({"statistics"} if op == "sparse" else set()),
        priority=1000,
    )
