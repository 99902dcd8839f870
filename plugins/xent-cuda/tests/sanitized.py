"""Every variant once, on a GPU, for compute-sanitizer to watch: ``make sanitize-gpu``."""

import itertools
import pathlib
import sys

import numpy as np
from xent_cuda import kernels
from xent_cuda.plan import LABEL, SOFT, Shape, variants

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from test_gpu import ALIGNMENTS, cupy, example, laid, targets_of

SHAPES = [(5, 1), (130, 10), (9, 100), (7, 1000), (3, 4099), (2, 70001)]
DTYPES = [np.float16, np.float32, np.float64]


def main() -> None:
    """Launches every variant on every shape and dtype, rows aligned and not."""
    rng, gpu, launched = np.random.default_rng(0), kernels.Gpu(), 0
    for dtype, (rows, classes), (offset, apart) in itertools.product(DTYPES, SHAPES, ALIGNMENTS):
        logits, labels, soft, scale = example(rng, dtype, rows, classes)
        x, scales = laid(logits, offset, apart), cupy.asarray(scale)
        for kind, method in itertools.product((LABEL, SOFT), ("loss_and_gradient", "partial")):
            targets = targets_of(kind, labels, soft)[1]
            shape = Shape(rows, classes, np.dtype(dtype).name, kind, method, not apart)
            for variant in variants(shape, gpu.properties(x)):
                kernel = (kernels.CudaDense if kind == SOFT else kernels.CudaSparse)(gpu, variant)
                getattr(kernel, method)(x, *targets, *((scales,) if method == "loss_and_gradient" else ()), threads=1)
                launched += 1
    cupy.cuda.Device().synchronize()
    print(f"{launched} calls")


if __name__ == "__main__":
    main()
