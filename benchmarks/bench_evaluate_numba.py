"""``xent.evaluate`` with the fused kernels and every statistic, compared with a bare read and with scikit-learn.

The data are those of the demo: the held-out bytes of Python's standard library, some 3.1 million rows of 256 float16
logits, 1.6 GB, as .npy and as sharded Zarr, in the page cache. The counting model: a row is 512 bytes, 256
exponentials, and some 40 numbers that are added exactly. The floors are a pass that copies the .npy chunks, and one
that reads and decodes the Zarr chunks, on the same number of threads.

scikit-learn's ``log_loss`` gets as many rows as fit into memory, because it makes a one-hot array of the labels: as
float32 probabilities, and as logits after SciPy's softmax. Memory is the growth of a separate process.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import measure
import numpy as np
from measure import Report

import xent
from xent import demo

CHUNK_BYTES = 64 * 2**20
SKLEARN_ROWS = 1_000_000
QUICK_FILES = 4
THREADS = (1, 2)


def write(folder: Path, files: int | None) -> int:
    """Writes predictions.zarr and .npy (rows, 256) float16, labels.npy, and the first rows as x.npy, p.npy and y.npy.

    Returns the bytes of the logits.
    """
    data = demo.make(folder, files=files)
    import zarr

    stored = zarr.open_array(data.predictions, mode="r")
    plain = np.lib.format.open_memmap(folder / "predictions.npy", "w+", np.float16, stored.shape)
    for start in range(0, len(plain), 2**17):
        plain[start : start + 2**17] = stored[start : start + 2**17]
    rows = min(SKLEARN_ROWS, len(plain))
    logits = plain[:rows].astype(np.float32)
    np.save(folder / "x.npy", plain[:rows])
    np.save(folder / "p.npy", xent.softmax(logits))
    np.save(folder / "y.npy", np.load(folder / "labels.npy", mmap_mode="r")[:rows].astype(np.int64))
    return plain.nbytes


def with_xent(name: str, folder: Path, threads: int) -> float:
    """The mean loss of a file; every other statistic is computed too."""
    with xent.using(threads=threads):
        return xent.evaluate(folder / name, folder / "labels.npy", chunk_bytes=CHUNK_BYTES).mean_loss


def for_each_chunk(read: Callable[[int, int], object], rows: int, threads: int) -> None:
    """Calls `read` with the start and stop row of every chunk."""
    step = CHUNK_BYTES // 512
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda start: read(start, min(start + step, rows)), range(0, rows, step)))


def copy_npy(folder: Path, threads: int) -> None:
    """Copies the chunks of the .npy file."""
    x = np.load(folder / "predictions.npy", mmap_mode="r")
    for_each_chunk(
        lambda start, stop: np.copyto(np.empty((stop - start, 256), x.dtype), x[start:stop]), len(x), threads
    )


def read_zarr(folder: Path, threads: int) -> None:
    """Reads and decodes the chunks of the Zarr array."""
    import zarr

    x = zarr.open_array(folder / "predictions.zarr", mode="r")
    for_each_chunk(lambda start, stop: x[start:stop], x.shape[0], threads)


def probabilities_with_xent(folder: Path) -> float:
    """The mean loss of the probabilities; every other statistic is computed too."""
    return xent.evaluate(folder / "p.npy", folder / "y.npy", kind="probabilities").mean_loss


def probabilities_with_sklearn(folder: Path) -> float:
    """The mean loss of the probabilities, and no other statistic."""
    from sklearn.metrics import log_loss

    return float(log_loss(np.load(folder / "y.npy"), np.load(folder / "p.npy"), labels=np.arange(256)))


def logits_with_xent(folder: Path) -> float:
    """The mean loss of the logits; every other statistic is computed too."""
    return xent.evaluate(folder / "x.npy", folder / "y.npy").mean_loss


def logits_with_sklearn(folder: Path) -> float:
    """The mean loss of SciPy's softmax of the logits, and no other statistic."""
    from scipy.special import softmax
    from sklearn.metrics import log_loss

    p = softmax(np.load(folder / "x.npy").astype(np.float32), axis=1)
    return float(log_loss(np.load(folder / "y.npy"), p, labels=np.arange(256)))


FILES = {
    "xent.evaluate of .npy": functools.partial(with_xent, "predictions.npy"),
    "floor: numpy.copyto of .npy": copy_npy,
    "xent.evaluate of Zarr": functools.partial(with_xent, "predictions.zarr"),
    "floor: reading and decoding Zarr": read_zarr,
}
SKLEARN_COMPARISONS = {
    "float32 probabilities": {
        "xent.evaluate": probabilities_with_xent,
        "sklearn.metrics.log_loss": probabilities_with_sklearn,
    },
    "float16 logits": {
        "xent.evaluate": logits_with_xent,
        "SciPy's softmax, sklearn.metrics.log_loss": logits_with_sklearn,
    },
}


def child(folder: str, kind: str, name: str) -> int | None:
    """The peak memory of a contender, measured in this child process."""
    return measure.peak_growth_bytes(functools.partial(SKLEARN_COMPARISONS[kind][name], Path(folder)))


def compare_with_sklearn(report: Report, folder: Path, kind: str, rounds: int) -> None:
    """Adds a table of time and memory for one kind of prediction, compared with scikit-learn."""
    calls = {name: functools.partial(call, folder) for name, call in SKLEARN_COMPARISONS[kind].items()}
    losses = [call() for call in calls.values()]
    if not np.allclose(losses, losses[0], rtol=1e-3):  # scikit-learn clips probabilities at 1.2e-7
        raise AssertionError(f"the mean losses differ: {losses}")
    seconds = measure.interleave(calls, rounds, 0)
    memory = {name: measure.run_child(__file__, folder, kind, name) for name in calls}
    rows, lines = len(np.load(folder / "y.npy", mmap_mode="r")), []
    for name, values in seconds.items():
        ratio = measure.ratio(values, seconds["xent.evaluate"])
        extra_bytes, own_bytes = memory[name], memory["xent.evaluate"]
        memory_ratio = f"{extra_bytes / own_bytes:.1f}" if extra_bytes and own_bytes else ""
        extra_megabytes = f"{(extra_bytes or 0) / 1e6:,.0f}"
        lines.append((name, measure.quartiles(values).show(), ratio.show(), extra_megabytes, memory_ratio))
        report.add(**{f"{name}, {kind}": {"seconds": values, "extra_bytes": extra_bytes}})
    report.add(f"{rows:,} rows of 256 {kind}, all cores:")
    report.add(measure.table(("", "time, s", "time / xent's", "extra memory, MB", "memory / xent's"), lines))


def main(quick: bool = False) -> str:
    """The page of results."""
    rounds = 2 if quick else 7
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        size = write(folder, QUICK_FILES if quick else None)
        calls = {(name, n): functools.partial(call, folder, n) for name, call in FILES.items() for n in THREADS}
        seconds = measure.interleave(calls, rounds, 0)
        report = Report(
            "evaluate_numba", "An evaluation with the fused kernels", ("dask", "zarr", "numba", "scikit-learn")
        )
        report.add(f"{size / 1e9:.2f} GB of float16, in chunks of 64 MiB; {demo.kernel()}.", measure.HOW)
        lines = []
        for (name, threads), values in seconds.items():
            times = measure.quartiles(values)
            floor = "floor: numpy.copyto of .npy" if ".npy" in name else "floor: reading and decoding Zarr"
            ratio = measure.ratio(values, seconds[floor, threads])
            lines.append((name, threads, times.show(), f"{size / times.median / 1e9:.2f}", ratio.show()))
            report.add(**{f"{name}, threads: {threads}": values})
        report.add(measure.table(("", "threads", "time, s", "GB/s", "time / its floor's"), lines))
        for kind in SKLEARN_COMPARISONS:
            compare_with_sklearn(report, folder, kind, 1 if quick else 5)
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main, child, one_core=False)
