"""``xent.evaluate`` on a file, compared with a loop over chunks in NumPy and SciPy.

The counting model, for a file of N rows of C float32 logits: 4 N C bytes are read from the page cache, and N C
exponentials are taken. Besides the loss, xent computes the rank of the label, the entropy and Σ p² from the same read:
three more passes over a block in the cache, and no more exponentials. The loop computes the loss and the accuracy.

Both read chunks of 64 MiB. The memory is the growth of a separate process, mapped pages included. The floor is a pass
of ``numpy.copyto`` over the same chunks.
"""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import measure
import numpy as np
from measure import Report

import xent

ROWS, CLASSES = 400_000, 1000
QUICK_ROWS, QUICK_CLASSES = 4000, 100
CHUNK_BYTES = 64 * 2**20
THREADS = (1, 2)


def write(folder: Path, rows: int, classes: int) -> int:
    """Writes predictions.npy (rows, classes) float32 and labels.npy (rows,) int64; the bytes of the predictions."""
    rng = np.random.default_rng(rows)
    predictions = np.lib.format.open_memmap(folder / "predictions.npy", "w+", np.float32, (rows, classes))
    for start in range(0, rows, 10_000):
        block = predictions[start : start + 10_000]
        rng.standard_normal(out=block, dtype=np.float32)
        block *= 3
    predictions.flush()
    np.save(folder / "labels.npy", rng.integers(0, classes, rows))
    return predictions.nbytes


def with_xent(folder: Path, threads: int) -> float:
    """The mean loss, from xent.evaluate."""
    import dask

    with dask.config.set(num_workers=threads):
        evaluation = xent.evaluate(folder / "predictions.npy", folder / "labels.npy", chunk_bytes=CHUNK_BYTES)
    return evaluation.mean_loss


def chunks(folder: Path) -> Iterator[tuple[int, int]]:
    """The start and the stop row of each chunk."""
    rows, classes = np.load(folder / "predictions.npy", mmap_mode="r").shape
    step = max(1, CHUNK_BYTES // (4 * classes))
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


def mean_over_chunks(
    sum_chunk: Callable[[Path, tuple[int, int]], tuple[float, int]], folder: Path, threads: int
) -> float:
    """The mean over all rows, from the sum and the number of rows of each chunk."""
    with ThreadPoolExecutor(threads) as pool:
        sums = list(pool.map(functools.partial(sum_chunk, folder), chunks(folder)))
    return sum(total for total, _ in sums) / sum(rows for _, rows in sums)


def sum_chunk_with_scipy(folder: Path, rows: tuple[int, int]) -> tuple[float, int]:
    """The summed loss of the rows, and their number; the correct predictions are also counted."""
    from scipy.special import log_softmax

    logits = np.load(folder / "predictions.npy", mmap_mode="r")[slice(*rows)]
    labels = np.load(folder / "labels.npy", mmap_mode="r")[slice(*rows)]
    loss = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    np.count_nonzero(logits.argmax(axis=1) == labels)
    return float(loss.sum(dtype=np.float64)), len(labels)


def copy_chunk(folder: Path, rows: tuple[int, int]) -> tuple[float, int]:
    """A copy of the rows, as a chunk that sums to zero."""
    logits = np.load(folder / "predictions.npy", mmap_mode="r")[slice(*rows)]
    np.copyto(np.empty(logits.shape, logits.dtype), logits)
    return 0.0, len(logits)


CONTENDERS: dict[str, Callable[[Path, int], float]] = {
    "xent.evaluate": with_xent,
    "np.load and SciPy by chunks": functools.partial(mean_over_chunks, sum_chunk_with_scipy),
    "floor: numpy.copyto by chunks": functools.partial(mean_over_chunks, copy_chunk),
}


def child(folder: str, name: str, threads: str) -> int | None:
    """The peak memory of a contender, measured in this child process."""
    return measure.peak_growth_bytes(functools.partial(CONTENDERS[name], Path(folder), int(threads)))


def main(quick: bool = False) -> str:
    """The page of results."""
    with tempfile.TemporaryDirectory() as root:
        folder, shape = Path(root), (QUICK_ROWS, QUICK_CLASSES) if quick else (ROWS, CLASSES)
        size = write(folder, *shape)
        contenders = {
            (name, threads): functools.partial(call, folder, threads)
            for name, call in CONTENDERS.items()
            for threads in THREADS
        }
        losses = [call() for (name, _), call in contenders.items() if not name.startswith("floor")]
        if not np.allclose(losses, losses[0], rtol=1e-5):
            raise AssertionError(f"the mean losses differ: {losses}")
        seconds = measure.interleave(contenders, 2 if quick else 7, 0)
        memory = {}
        for name, threads in contenders:
            print(f"memory of {name}, threads: {threads}", file=sys.stderr)
            is_measured = not quick or (name, threads) == ("xent.evaluate", 1)
            memory[name, threads] = measure.run_child(__file__, folder, name, threads) if is_measured else None
    report = Report("evaluate", "An evaluation of a .npy file", ("scipy", "dask"))
    report.add(f"{size / 1e9:.2f} GB, shape {shape}, float32, in the page cache; chunks of 64 MiB.", measure.HOW)
    rows = []
    for (name, threads), values in seconds.items():
        times, extra_bytes = measure.quartiles(values), memory[name, threads]
        ratio = measure.ratio(values, seconds["xent.evaluate", threads])
        rate = f"{size / times.median / 1e9:.2f}"
        extra_megabytes = "" if extra_bytes is None else f"{extra_bytes / 1e6:.0f}"
        rows.append((name, threads, times.show(), rate, ratio.show(), extra_megabytes))
        report.add(**{f"{name}, threads: {threads}": {"seconds": values, "extra_bytes": extra_bytes}})
    columns = ("", "threads", "time, s", "GB/s", "time / xent's", "extra memory, MB")
    report.add(measure.table(columns, rows), bytes=size)
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main, child, one_core=False)
