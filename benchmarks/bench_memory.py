"""The memory of a gradient: new, used again, or the caller's, compared with its peers and with copies of as many bytes.

The counting model, for N rows of C float32 logits: a loss with its gradient reads 4 N C bytes and writes as many. In
new memory the system writes 4 N C zeros first, page by page, and an array that is let go gives its pages back. Memory
that is used again (``xent/backends/numpy/recycling.py``) or given as ``out=`` has its pages; logits that are
overwritten are in the cache when their gradient is written.

The mean loss and its gradient by xent-numba where it is installed, on all cores; the peers are those of
``bench_numba.py``. Processor time of all threads is hardly changed by other work on the machine, but counts threads
that wait busily, as OpenMP's do; wall time is what a user waits. ``numpy.copyto`` runs on one core.
"""

from __future__ import annotations

import functools
import os
import sys
import time

import bench_numba
import measure
import numpy as np
from measure import Call, Report, Rounds

import xent

SHAPES = ((512, 32000), (65536, 100), (1_000_000, 10), (65536, 1000), (2048, 32000), (256, 262144))
QUICK_SHAPES = ((20, 100),)
OURS, NEW, OUT, OVER = "xent", "xent, XENT_RECYCLE_BYTES=0", "xent, out=", "xent, out= the logits"
COPY, NEW_COPY = "numpy.copyto", "numpy.copyto into new memory"


def calls(shape: tuple[int, int], quick: bool) -> dict[str, Call]:
    """The contenders."""
    data = bench_numba.make_data(shape, bench_numba.GRADIENT)
    logits, labels = data
    there, over = np.zeros_like(logits), np.array(logits)
    function = xent.value_and_grad(functools.partial(xent.sparse_cross_entropy, reduction="mean", kind="logits"))

    def in_new_memory() -> None:
        os.environ["XENT_RECYCLE_BYTES"] = "0"
        try:
            function(logits, labels)
        finally:
            del os.environ["XENT_RECYCLE_BYTES"]

    peers = {
        contender.name: contender.setup(data, bench_numba.GRADIENT)
        for contender in bench_numba.CONTENDERS
        if contender.name in bench_numba.PEERS and measure.is_installed(contender.module) and not quick
    }
    return {
        OURS: lambda: function(logits, labels),
        NEW: in_new_memory,
        OUT: lambda: function(logits, labels, out=there),
        OVER: lambda: function(over, labels, out=over),
        COPY: lambda: np.copyto(there, logits),
        NEW_COPY: lambda: np.copyto(np.empty_like(logits), logits),
        **peers,
    }


def seconds_of(contenders: dict[str, Call], rounds: int) -> dict[str, Rounds]:
    """Processor and wall seconds of each call, in turns, after one that counts for nothing."""
    clocks = {"processor": time.process_time, "wall": time.perf_counter}
    found: dict[str, Rounds] = {clock: {name: [] for name in contenders} for clock in clocks}
    for number in range(rounds + 1):
        for name, call in contenders.items():
            starts = {clock: read() for clock, read in clocks.items()}
            call()
            if number:
                for clock, read in clocks.items():
                    found[clock][name].append(read() - starts[clock])
    return found


def main(quick: bool = False) -> str:
    """The page of results."""
    peers = ("numba", "torch", "jax", "optax", "tensorflow-cpu")
    report = Report("memory", "The memory of a gradient on NumPy", peers)
    report.add("Median (and quartiles) of calls in turns.")
    pages, best = [], []
    for shape in QUICK_SHAPES if quick else SHAPES:
        print(shape, file=sys.stderr)
        found = seconds_of(calls(shape, quick), 2 if quick else 9)
        lines = [
            (name, *(measure.quartiles(found[clock][name]).show(1e-3) for clock in found)) for name in found["wall"]
        ]
        pages += [f"## {shape}", measure.table(("", "processor time, ms", "wall time, ms"), lines)]
        report.add(**{f"{shape[0]}x{shape[1]}": found})
        for clock, seconds in found.items() if not quick else ():
            peer = bench_numba.best_peer(seconds)
            ratios = (measure.ratio(seconds[peer], seconds[name]).show() for name in (NEW, OURS, OUT, OVER))
            best.append((f"{shape}, {clock}", peer, *ratios))
    if best:
        report.add("## The best peer's time / that of", measure.table(("", "best peer", NEW, OURS, OUT, OVER), best))
    report.add(*pages)
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main, one_core=False)
