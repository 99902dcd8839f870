"""Evaluations of data sets larger than memory: time, memory, and the same bits.

The data set: every byte of Python's own standard library, predicted from the two bytes before it by the demo's order-3
model, trained without the file (ten folds): some 31 million rows of 256 classes, 16 GB in float16 and 32 GB in float32.
It is stored as .npy and as sharded Zarr, and evaluated by ``xent evaluate`` in a separate process, on threads and on a
cluster of two processes. The peak is that of the whole process tree, sampled 50 times per second, mapped pages
included. The page cache is not cleared between the runs; what does not fit into it is read from the disk.

Counting model: a row of 256 float16 numbers is 512 bytes and 256 exponentials. What a chunk costs beside its rows is in
``bench_chunks.py``.
Needs 50 GB of disk. The kernels are those of the plugins that are installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import measure
import numpy as np
from measure import Report

import xent
from xent import demo
from xent.demo import stdlib

FOLDS = 10
CHUNK_ROWS, SHARD_ROWS = 8192, 65536
QUICK_FILES = 4
RUNS = tuple(
    (f"x{bits}.{form}", how) for bits in (16, 32) for form in ("npy", "zarr") for how in ("threads", "processes:2")
)
QUICK_RUNS = (("x16.npy", "threads"), ("x16.zarr", "processes:2"), ("x32.npy", "threads"))
SAMPLES_PER_SECOND = 50
ROWS = (10**5, 10**6, 10**7, 3 * 10**7)
METRICS = ("loss", "accuracy", "brier", "entropy", "confidence")


def folds(files: int | None) -> list[list[bytes]]:
    """The texts of the library's files in ten folds; each fold has every tenth file."""
    texts = stdlib.library_texts(files)
    return [texts[fold::FOLDS] for fold in range(FOLDS)]


def write(folder: Path, files: int | None) -> int:
    """Writes x16.npy, x32.npy, x16.zarr, x32.zarr (rows, 256) and labels.npy (rows,); returns the number of rows."""
    import zarr

    parts = [[np.frombuffer(text, np.uint8) for text in part] for part in folds(files)]
    rows = sum(len(text) - 2 for part in parts for text in part)
    shape = (rows, 256)
    labels = np.lib.format.open_memmap(folder / "labels.npy", "w+", np.uint8, (rows,))
    arrays: dict[str, Any] = {}
    for dtype in ("float16", "float32"):
        name = f"x{dtype[-2:]}"
        arrays[f"{name}.npy"] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
        options = {"chunks": (CHUNK_ROWS, 256), "shards": (SHARD_ROWS, 256)}
        arrays[f"{name}.zarr"] = zarr.create_array(folder / f"{name}.zarr", shape=shape, dtype=dtype, **options)
    start = 0
    pending: list[np.ndarray[Any, Any]] = []
    for fold, part in enumerate(parts):
        train = np.concatenate([text for other, texts in enumerate(parts) if other != fold for text in texts])
        table = np.log(stdlib.model(train, np.arange(65536))).astype(np.float16)  # (contexts, 256)
        for text in part:
            context = text[:-2].astype(np.int32) * 256 + text[1:-1]
            labels[start : start + len(context)] = text[2:]
            pending.append(table[context])
            start += len(context)
            if sum(map(len, pending)) >= SHARD_ROWS:
                flush(arrays, pending, start, is_last=False)
    flush(arrays, pending, start, is_last=True)
    return rows


def flush(arrays: dict[str, Any], pending: list[np.ndarray[Any, Any]], stop: int, *, is_last: bool) -> None:
    """Writes the pending rows, which end at row `stop`, in whole shards."""
    block = np.concatenate(pending)
    first = stop - len(block)
    count = len(block) if is_last else len(block) // SHARD_ROWS * SHARD_ROWS
    for array in arrays.values():
        array[first : first + count] = block[:count]
    pending[:] = [block[count:]]


def evaluate(folder: Path, name: str, scheduler: str) -> dict[str, Any]:
    """The JSON document and the plan of ``xent evaluate``, with the seconds and the peak memory of its processes."""
    command = [sys.executable, "-m", "xent", "evaluate", name, "labels.npy", "--json", "--scheduler", scheduler]
    started = time.perf_counter()
    run = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = Peak(run.pid)
    out, text = run.communicate()
    seconds = time.perf_counter() - started
    if run.returncode:
        raise RuntimeError(text)
    return {"document": json.loads(out), "seconds": seconds, "peak": peak.stop(), "plan": text.strip()}


class Peak:
    """The peak memory of a process and its children together, sampled in a thread."""

    def __init__(self, pid: int) -> None:
        self.pid, self.largest, self.is_over = pid, 0, False
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()

    def sample(self) -> None:
        import psutil

        root = psutil.Process(self.pid)
        while not self.is_over:
            total = 0
            try:
                for process in [root, *root.children(recursive=True)]:
                    total += process.memory_info().rss
            except psutil.NoSuchProcess:
                pass
            self.largest = max(self.largest, total)
            time.sleep(1 / SAMPLES_PER_SECOND)

    def stop(self) -> int:
        self.is_over = True
        self.thread.join()
        return self.largest


def evaluate_all(report: Report, folder: Path, runs: tuple[tuple[str, str], ...]) -> None:
    """Adds the evaluation of each set on each scheduler, which must give the same bits per dtype."""
    lines, numbers = [], {}
    for name, scheduler in runs:
        print(f"{name} on {scheduler}", file=sys.stderr)
        result = evaluate(folder, name, scheduler)
        document, peak = result["document"], result["peak"]
        size, wall = document["timing"]["bytes"], document["timing"]["wall_seconds"]
        numbers.setdefault(name[:3], []).append(
            {k: v for k, v in document.items() if k not in ("timing", "inputs", "options")}
        )
        loss = document["metrics"]["loss"]
        cells = (
            f"{size / 1e9:.1f}",
            f"{wall:.1f}",
            f"{size / wall / 1e9:.2f}",
            f"{peak / 1e6:,.0f}",
            f"{loss['value']:.9f} ± {loss['stderr']:.2g}",
        )
        lines.append((name, scheduler, *cells))
        report.add(**{f"{name} on {scheduler}": {"seconds": wall, "bytes": size, "peak": peak, "loss": loss}})
    for name, documents in numbers.items():
        if any(document != documents[0] for document in documents):
            raise AssertionError(f"the numbers of {name} are not the same bits")
    columns = ("", "scheduler", "GB", "seconds", "GB/s", "peak, MB", "loss, nats")
    report.add(measure.table(columns, lines))
    report.add("Within a dtype every number of every document is the same bits.")


def rows_and_time(report: Report, folder: Path, rounds: int) -> None:
    """Adds the time as a function of the number of rows."""
    predictions = np.load(folder / "x16.npy", mmap_mode="r")
    labels = np.load(folder / "labels.npy", mmap_mode="r")
    counts = [rows for rows in ROWS if rows <= len(predictions)] or [len(predictions)]
    calls = {f"{rows}": lambda rows=rows: xent.evaluate(predictions[:rows], labels[:rows]) for rows in counts}
    seconds = measure.interleave(calls, rounds, 0)
    lines = []
    for rows in counts:
        values = seconds[f"{rows}"]
        times = measure.quartiles(values)
        lines.append((f"{rows:.0e}", times.show(), f"{times.median / rows * 1e9:.0f}"))
        report.add(**{f"{rows} rows": values})
    report.add(measure.table(("rows of 256 float16", "time, s", "ns / row"), lines))


def main(quick: bool = False) -> str:
    """The page of results."""
    report = Report("scale", "Sets larger than memory", ("dask", "distributed", "zarr", "numba"))
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        rows = write(folder, QUICK_FILES if quick else None)
        ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        report.add(
            f"{rows:,} rows of 256 classes; memory of the machine {ram / 1e9:.0f} GB; {demo.kernel()}.", rows=rows
        )
        evaluate_all(report, folder, QUICK_RUNS if quick else RUNS)
        rows_and_time(report, folder, 1 if quick else 3)
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main, None, one_core=False)
