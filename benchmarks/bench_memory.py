"""The memory of a gradient: new, used again, or the caller's, compared with copies of as many bytes.

The counting model, for N rows of C float32 logits: a loss with its gradient reads 4 N C bytes and writes as many. In
new memory the system writes 4 N C zeros first, page by page, and an array that is let go gives its pages back. Memory
that is used again (``xent/backends/numpy/recycling.py``) or given as ``out=`` has its pages; logits that are
overwritten are in the cache when their gradient is written.

Processor time of all threads, which other work on the machine hardly changes; the mean loss and its gradient by
xent-numba where it is installed.
"""

from __future__ import annotations

import functools
import os
import time

import measure
import numpy as np
from measure import Call, Report, Rounds

import xent

SHAPES = ((512, 32000), (65536, 100), (1_000_000, 10), (65536, 1000), (2048, 32000), (256, 262144))
QUICK_SHAPES = ((20, 100),)
OURS, NEW, OUT, OVER = "xent", "xent, XENT_RECYCLE_BYTES=0", "xent, out=", "xent, out= the logits"
COPY, NEW_COPY = "numpy.copyto", "numpy.copyto into new memory"


def calls(rows: int, classes: int) -> dict[str, Call]:
    """The contenders."""
    rng = np.random.default_rng(classes)
    logits, labels = rng.standard_normal((rows, classes), dtype=np.float32), rng.integers(0, classes, rows)
    there, over = np.zeros_like(logits), np.array(logits)
    function = xent.value_and_grad(functools.partial(xent.sparse_cross_entropy, reduction="mean", kind="logits"))

    def in_new_memory() -> None:
        os.environ["XENT_RECYCLE_BYTES"] = "0"
        try:
            function(logits, labels)
        finally:
            del os.environ["XENT_RECYCLE_BYTES"]

    return {
        OURS: lambda: function(logits, labels),
        NEW: in_new_memory,
        OUT: lambda: function(logits, labels, out=there),
        OVER: lambda: function(over, labels, out=over),
        COPY: lambda: np.copyto(there, logits),
        NEW_COPY: lambda: np.copyto(np.empty_like(logits), logits),
    }


def processor_seconds(contenders: dict[str, Call], rounds: int) -> Rounds:
    """Processor seconds of each call, in turns, after one that counts for nothing."""
    found: Rounds = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, call in contenders.items():
            start = time.process_time()
            call()
            if number:
                found[name].append(time.process_time() - start)
    return found


def main(quick: bool = False) -> str:
    """The page of results."""
    report = Report("memory", "The memory of a gradient on NumPy", ("numba",))
    report.add("Processor time of all threads: median (and quartiles) of calls in turns.")
    for rows, classes in QUICK_SHAPES if quick else SHAPES:
        seconds = processor_seconds(calls(rows, classes), 2 if quick else 15)
        lines = [
            (name, measure.quartiles(times).show(1e-3), measure.ratio(times, seconds[OURS]).show())
            for name, times in seconds.items()
        ]
        report.add(f"## {(rows, classes)}", measure.table(("", "time, ms", "time / xent's"), lines))
        report.add(**{f"{rows}x{classes}": seconds})
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main, one_core=False)
