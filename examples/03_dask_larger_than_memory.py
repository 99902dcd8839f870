"""The mean loss of logits that need not fit into memory: a Dask array whose chunks are made, folded and freed.

The default is 4 GB of logits, in a few seconds; ``python 03_dask_larger_than_memory.py 50_000_000`` makes 200 GB.
"""

import math
import resource
import sys

import dask
import dask.array as da
import numpy as np

import xent

ROWS, CLASSES, CHUNK_ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, 1000, 10_000
SCALE = 2.0


def normal_logits(numbers: np.ndarray) -> np.ndarray:
    """Logits (rows, classes) for row numbers (rows, 1)."""
    rng = np.random.default_rng(int(numbers[0, 0]))
    table = rng.standard_normal(CLASSES * 64, dtype=np.float32)  # every row is another window of these numbers
    starts = rng.integers(0, CLASSES * 63, len(numbers))
    return SCALE * np.lib.stride_tricks.sliding_window_view(table, CLASSES)[starts]


def memory_bytes() -> int:
    """The peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


numbers = da.arange(ROWS, chunks=CHUNK_ROWS)[:, None]
logits = numbers.map_blocks(normal_logits, dtype=np.float32, chunks=(numbers.chunks[0], (CLASSES,)))
labels = da.arange(ROWS, chunks=CHUNK_ROWS) % CLASSES

before = memory_bytes()
lazy = xent.sparse_cross_entropy(logits, labels, reduction="mean")  # a task graph; nothing is computed yet
with dask.config.set(scheduler="threads", num_workers=2):
    mean = float(lazy.compute())
growth = memory_bytes() - before

expected = math.log(CLASSES) + SCALE**2 / 2  # log Σ exp of many normal logits; the label's logit is 0 on average
print(f"{logits.nbytes / 1e9:.1f} GB of logits, {logits.numblocks[0]} chunks: {mean:.3f} nats, near {expected:.3f}")
print(f"memory grew by {growth / 1e6:.0f} MB")
assert abs(mean - expected) < 0.05
assert growth < logits.nbytes / 8
