"""What a chunk costs beside its rows: sets of one row of one class a chunk, by the number of chunks.

Each run is a process of its own, whose processor time is told with that of its children (a scheduler and two workers),
less that of a run of one chunk, which has the imports and the start of the cluster. The peak is that of the whole
process tree, sampled 50 times per second.

Counting model: a chunk reads a row of two mapped files, makes a state of some two hundred calls of NumPy, and merges
it; sync is that loop without threads, and what the others take more is their scheduler's. Neither that nor the peak may
grow with the number of chunks, but for the row at which each begins.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import measure
import numpy as np
from bench_scale import Peak
from measure import Report

COUNTS = {
    "sync": (1000, 10_000),
    "threads": (1000, 10_000, 30_000),
    "processes:2": (1000, 10_000),
}
PROGRAM = """
import sys, xent
if __name__ == "__main__":
    found = xent.evaluate("x.npy", "y.npy", chunk_bytes=int(sys.argv[2]), scheduler=sys.argv[1])
    assert found.run.chunks == int(sys.argv[3]), found.run.chunks
"""


class Cost(NamedTuple):
    """Processor seconds and peak bytes of a process and its children."""

    seconds: float
    peak: int


def cost(folder: Path, scheduler: str, rows: int, chunk_bytes: int, chunks: int) -> Cost:
    """What an evaluation of so many rows of a float32 takes."""
    np.save(folder / "x.npy", np.zeros((rows, 1), np.float32))
    np.save(folder / "y.npy", np.zeros(rows, np.uint8))
    (folder / "run.py").write_text(PROGRAM)
    command = [sys.executable, "run.py", scheduler, str(chunk_bytes), str(chunks)]
    run = subprocess.Popen(command, cwd=folder)
    peak = Peak(run.pid)
    _, status, used = os.wait4(run.pid, 0)
    largest = peak.stop()
    run.returncode = os.waitstatus_to_exitcode(status)
    if run.returncode:
        raise RuntimeError(f"{command} ended with {run.returncode}")
    return Cost(used.ru_utime + used.ru_stime, largest)


def main(quick: bool = False) -> str:
    """The page of results."""
    report = Report("chunks", "What a chunk costs", ("dask", "distributed"))
    lines = []
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        fixed = {scheduler: cost(folder, scheduler, 1, 4, 1) for scheduler in COUNTS}
        for count in (100,) if quick else sorted({count for counts in COUNTS.values() for count in counts}):
            for scheduler in (name for name, counts in COUNTS.items() if quick or count in counts):
                own = cost(folder, scheduler, count, 4, count)
                extra = (own.seconds - fixed[scheduler].seconds) / count * 1e3
                lines.append((f"{count:,}", scheduler, f"{own.seconds:.1f}", f"{extra:.2f}", f"{own.peak / 1e6:,.0f}"))
                report.add(**{f"{count} chunks on {scheduler}": own._asdict()})
                print(lines[-1], file=sys.stderr)
    report.add(**{f"one chunk on {scheduler}": each._asdict() for scheduler, each in fixed.items()})
    columns = ("chunks", "scheduler", "CPU seconds", "CPU ms / chunk", "peak, MB")
    report.add(measure.table(columns, lines))
    text = ", ".join(f"{each.seconds:.1f} s and {each.peak / 1e6:,.0f} MB on {name}" for name, each in fixed.items())
    report.add(f"One chunk takes {text}, all processes together; that is taken off for the milliseconds.")
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main, None, one_core=False)
