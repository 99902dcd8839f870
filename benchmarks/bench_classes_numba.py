r"""The loops of xent-numba by the number of classes, on one thread, into memory that is there.

The counting model, for a row of C logits of b bytes: b C bytes are read, for a gradient as many are written, and C
exponentials are taken. ``numpy.copyto`` of the logits, which reads and writes them once, is the floor of the gradient.

Up to ``FEW_CLASSES`` classes rows lie side by side; above, they are taken one after the other. Where both serve (from
16 classes on, as many as a vector has lanes), the other loops are measured too: the limit is where they cross.

Times are those of the processor, not of the wall, so that other work on the machine counts less.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import measure
import numpy as np
from measure import Report

FEW, MANY = (1, 2, 5, 10, 16, 32, 64, 100, 128), (144, 200, 1000, 32000)
ELEMENTS = 1 << 21
COPY, ROWS, SIDE_BY_SIDE = "numpy.copyto", "along rows", "side by side"
LOSS, BOTH = "loss", "loss and gradient"
OTHERS = [("float64", 0.0), ("float16", 0.0), ("float32", 0.1), ("float32, soft targets", 0.0)]
"""The dtypes and label smoothings at 10 and 100 classes, beside float32."""


def calls(classes: int, elements: int, dtype: str = "float32", smoothing: float = 0.0) -> dict[str, Callable[[], Any]]:
    """A loss, and a loss and its gradient, and a copy of the logits."""
    from xent_numba.kernels import dense, sparse

    rows, rng, name = max(16, elements // classes // 16 * 16), np.random.default_rng(classes), dtype.split(",")[0]
    logits = (3 * rng.standard_normal((rows, classes), dtype=np.float32)).astype(name)
    wide = np.float64 if name == "float64" else np.float32
    scale, slope, losses = np.full(rows, 1 / rows, wide), np.zeros_like(logits), np.empty(rows, wide)
    kernel: Any = sparse
    arguments: tuple[Any, ...] = rng.integers(0, classes, rows), 1 - smoothing, smoothing / classes
    if dtype != name:
        kernel, arguments = dense, (rng.random((rows, classes)).astype(wide),)
    return {
        LOSS: functools.partial(kernel.loss, logits, *arguments, threads=1, out=losses),
        BOTH: functools.partial(kernel.loss_and_gradient, logits, *arguments, scale, threads=1, out=slope),
        COPY: functools.partial(np.copyto, slope, logits),
    }


def with_limit(limit: int, call: Callable[[], Any]) -> Callable[[], Any]:
    """The call by the loops that a limit chooses."""
    from xent_numba import blocks

    def limited() -> Any:
        before, blocks.FEW_CLASSES = blocks.FEW_CLASSES, limit
        try:
            return call()
        finally:
            blocks.FEW_CLASSES = before

    return limited


def nanoseconds(seconds: list[float], rows: int) -> str:
    """The median of a row's time."""
    return measure.quartiles(seconds).show(1e-9 * rows)


def main(quick: bool = False) -> str:
    """The page of results."""
    report = Report("classes_numba", "xent-numba by the number of classes, one thread", ("numba", "llvmlite"))
    report.add(
        measure.ONE_CORE, "Nanoseconds of the processor for a row: median (and quartiles) of interleaved rounds."
    )
    elements, sizes = (1 << 12, (2, 0.0)) if quick else (ELEMENTS, (7, 0.0))
    clock = time.thread_time
    rows: list[tuple[Any, ...]] = []
    crossing: list[tuple[Any, ...]] = []
    for classes in (*FEW, *MANY):
        contenders, count = calls(classes, elements), max(16, elements // classes // 16 * 16)
        if 16 <= classes <= 200:
            contenders |= {f"{name}, {ROWS}": with_limit(0, contenders[name]) for name in (LOSS, BOTH)}
            contenders |= {f"{name}, {SIDE_BY_SIDE}": with_limit(classes, contenders[name]) for name in (LOSS, BOTH)}
        seconds = measure.interleave(contenders, *sizes, clock=clock)
        report.add(**{f"{classes}": seconds})
        times = [nanoseconds(seconds[name], count) for name in (LOSS, BOTH, COPY)]
        rows.append((classes, *times, measure.ratio(seconds[BOTH], seconds[COPY]).show()))
        if f"{LOSS}, {ROWS}" in seconds:
            ways = [f"{name}, {way}" for name in (LOSS, BOTH) for way in (SIDE_BY_SIDE, ROWS)]
            crossing.append((classes, *(nanoseconds(seconds[way], count) for way in ways)))
    others = []
    for classes in (10, 100):
        for dtype, smoothing in OTHERS:
            name = f"{classes}, {dtype}" + (", smoothed" if smoothing else "")
            count = max(16, elements // classes // 16 * 16)
            seconds = measure.interleave(calls(classes, elements, dtype, smoothing), *sizes, clock=clock)
            report.add(**{name: seconds})
            others.append((name, *(nanoseconds(seconds[key], count) for key in (LOSS, BOTH, COPY))))
    report.add("## float32, labels", measure.table(("classes", LOSS, BOTH, COPY, f"{BOTH} / copy"), rows))
    ways = [f"{name}, {way}" for name in (LOSS, BOTH) for way in (SIDE_BY_SIDE, ROWS)]
    report.add("## Rows side by side, and one after the other", measure.table(("classes", *ways), crossing))
    report.add("## Other dtypes, smoothing, soft targets", measure.table(("classes", LOSS, BOTH, COPY), others))
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main)
