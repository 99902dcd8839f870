"""The kernels on the twin, as specs that the conformance kit can look at, each call by the variant that is planned."""

import importlib

import numpy as np
from processor import Processor
from xent_cuda import ffi, kernels
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
        in_place=True,
        priority=1000,
    )


class HostProcessor(Processor):
    """The twin beside CuPy's arrays of which none is on a GPU: it casts them itself."""

    def contiguous(self, array, dtype):
        if isinstance(array, np.ndarray) or array.dtype == dtype:
            return super().contiguous(array, dtype)
        import host  # which imports CuPy

        return host.put(host.seen(array).astype(dtype))


class TargetsOfXla:
    """The targets of ``xent_cuda.ffi``, called by XLA on a processor, with the twin in the GPU's place."""

    def __init__(self, op: str) -> None:
        self.op = op

    def ffi_target(self, method: str, dtype: str) -> str:
        kernel = {"sparse": kernels.CudaSparse, "dense": kernels.CudaDense}[self.op](HostProcessor(DEVICE))
        name = f"twin_{self.op}_{method}_{dtype}"
        jax = importlib.import_module("jax")
        ffi.register_target(jax.ffi, name, "cpu", lambda: ffi.made(ffi.handler_of(kernel, method)))
        return name


xla_sparse, xla_dense = TargetsOfXla("sparse"), TargetsOfXla("dense")
