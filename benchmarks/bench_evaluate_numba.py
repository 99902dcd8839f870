"""``xent evaluate`` with the fused kernels: every statistic, beside the bare read, and beside scikit-learn.

The set is the demo's: the held-out bytes of Python's standard library, some 3.1 million rows of 256 float16 logits,
1.6 GB, as .npy and as sharded Zarr, in the page cache. The counting model: a row is 512 bytes, 256 exponentials, and
some 40 numbers that are added exactly. The floors are a pass that copies the .npy chunks, and one that reads and
decodes the Zarr chunks and computes nothing, on as many threads.

scikit-learn's ``log_loss`` is given what fits: the first rows as float32 probabilities, beside whose labels it makes an
array of as many numbers; and, for who has logits, after SciPy's softmax. Memory is the growth of a process of its own.
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
    """Makes predictions.zarr and .npy (rows, 256) float16, labels.npy, and the probabilities; the logits' bytes."""
    made = demo.make(folder, files=files)
    import zarr

    stored = zarr.open_array(made.predictions, mode="r")
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
    """The mean loss, with every statistic beside it."""
    with xent.using(threads=threads):
        return xent.evaluate(folder / name, folder / "labels.npy", chunk_bytes=CHUNK_BYTES).mean_loss


def each_chunk(read: Callable[[int, int], object], rows: int, threads: int) -> None:
    """Calls `read` with the bounds of every chunk."""
    step = CHUNK_BYTES // 512
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda start: read(start, min(start + step, rows)), range(0, rows, step)))


def copied(folder: Path, threads: int) -> None:
    """A pass over the .npy file that computes nothing."""
    x = np.load(folder / "predictions.npy", mmap_mode="r")
    each_chunk(lambda start, stop: np.copyto(np.empty((stop - start, 256), x.dtype), x[start:stop]), len(x), threads)


def decoded(folder: Path, threads: int) -> None:
    """A pass over the Zarr array that computes nothing."""
    import zarr

    x = zarr.open_array(folder / "predictions.zarr", mode="r")
    each_chunk(lambda start, stop: x[start:stop], x.shape[0], threads)


def probabilities_with_xent(folder: Path) -> float:
    """The mean loss of the probabilities, with every statistic beside it."""
    return xent.evaluate(folder / "p.npy", folder / "y.npy", kind="probabilities").mean_loss


def probabilities_with_sklearn(folder: Path) -> float:
    """The mean loss alone."""
    from sklearn.metrics import log_loss

    return float(log_loss(np.load(folder / "y.npy"), np.load(folder / "p.npy"), labels=np.arange(256)))


def logits_with_xent(folder: Path) -> float:
    """The mean loss of the logits, with every statistic beside it."""
    return xent.evaluate(folder / "x.npy", folder / "y.npy").mean_loss


def logits_with_sklearn(folder: Path) -> float:
    """The mean loss alone, of SciPy's softmax."""
    from scipy.special import softmax
    from sklearn.metrics import log_loss

    p = softmax(np.load(folder / "x.npy").astype(np.float32), axis=1)
    return float(log_loss(np.load(folder / "y.npy"), p, labels=np.arange(256)))


FILES = {
    "xent.evaluate of .npy": functools.partial(with_xent, "predictions.npy"),
    "floor: numpy.copyto of .npy": copied,
    "xent.evaluate of Zarr": functools.partial(with_xent, "predictions.zarr"),
    "floor: reading and decoding Zarr": decoded,
}
BESIDE_SKLEARN = {
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
    """The memory that one contender takes, in a process of its own."""
    return measure.peak_above(functools.partial(BESIDE_SKLEARN[kind][name], Path(folder)))


def beside_sklearn(report: Report, folder: Path, kind: str, rounds: int) -> None:
    """Time and memory of one kind of prediction, beside scikit-learn."""
    calls = {name: functools.partial(call, folder) for name, call in BESIDE_SKLEARN[kind].items()}
    losses = [call() for call in calls.values()]
    if not np.allclose(losses, losses[0], rtol=1e-3):  # scikit-learn clips probabilities at 1.2e-7
        raise AssertionError(f"the mean losses differ: {losses}")
    seconds = measure.interleave(calls, rounds, 0)
    memory = {name: measure.in_a_process(__file__, folder, kind, name) for name in calls}
    rows, lines = len(np.load(folder / "y.npy", mmap_mode="r")), []
    for name, values in seconds.items():
        times = measure.ratio(values, seconds["xent.evaluate"])
        grown, least = memory[name], memory["xent.evaluate"]
        more = f"{grown / least:.1f}" if grown and least else ""
        lines.append((name, measure.spread(values).show(), times.show(), f"{(grown or 0) / 1e6:,.0f}", more))
        report.add(**{f"{name}, {kind}": {"seconds": values, "extra_bytes": grown}})
    report.add(f"{rows:,} rows of 256 {kind}, all cores:")
    report.add(measure.table(("", "time, s", "time / xent's", "extra memory, MB", "memory / xent's"), lines))


def main(quick: bool = False) -> str:
    """The page of results."""
    rounds = 2 if quick else 7
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        size = write(folder, QUICK_FILES if quick else None)
        calls = {(name, n): functools.partial(call, folder, n) for name, call in FILES.items() for n in THREADS}
        seconds = measure.interleave(calls, rounds, 0)
        report = Report(
            "evaluate_numba", "An evaluation with the fused kernels", ("dask", "zarr", "numba", "scikit-learn")
        )
        report.add(f"{size / 1e9:.2f} GB of float16, in chunks of 64 MiB; {demo.kernel()}.", measure.HOW)
        lines = []
        for (name, threads), values in seconds.items():
            found = measure.spread(values)
            floor = "floor: numpy.copyto of .npy" if ".npy" in name else "floor: reading and decoding Zarr"
            over = measure.ratio(values, seconds[floor, threads])
            lines.append((name, threads, found.show(), f"{size / found.median / 1e9:.2f}", over.show()))
            report.add(**{f"{name}, threads: {threads}": values})
        report.add(measure.table(("", "threads", "time, s", "GB/s", "time / its floor's"), lines))
        for kind in BESIDE_SKLEARN:
            beside_sklearn(report, folder, kind, 1 if quick else 5)
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main, child, one_core=False)
