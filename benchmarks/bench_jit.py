"""Losses that a compiler has in a program of its own, compared with the same compiler's own losses, on all cores.

The counting model, for N rows of C logits in float32:

| pass | bytes that must move | exponentials |
|---|---|---|
| loss | 4 N C read (and O(N)) | N C |
| loss and gradient | 4 N C read, 4 N C written into fresh memory | N C |

What is compiled is the loss of every row, and the mean with its gradient as a training step asks for it. Logits are
normal with standard deviation 3, labels uniform. Contenders are lines of ``CONTENDERS``, each compared with the peer of
its library. Times are those of a clock, and of the processor in all threads, which other work on the machine changes
less.
"""

from __future__ import annotations

import contextvars
import functools
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import measure
import numpy as np
from measure import Call, Report, Rounds

import xent

SHAPES = [(512, 32000), (65536, 100), (65536, 1000), (2048, 32000), (1_000_000, 10), (8, 100), (256, 262144)]
QUICK_SHAPES = [(200, 130), (300, 10)]
LOSS, GRADIENT = PASSES = "loss", "loss and gradient"
OPTAX, GENERIC, FUSED = "JAX jit, optax", "JAX jit, xent without a plugin", "JAX jit, xent-numba"
Shape = tuple[int, int]
# The least ratio of the peer's time to the contender's, by shape.
TARGETS = {
    (GENERIC, LOSS): (0.75, 0.5, 1.0, 0.75, 1.5, 0.7),
    (GENERIC, GRADIENT): (0.85, 0.4, 1.0, 0.75, 0.9, 0.7),
    (FUSED, LOSS): (2.2, 2.5, 5.0, 2.2, 2.2, 1.8, 4.0),
    (FUSED, GRADIENT): (2.2, 1.2, 2.8, 2.5, 2.0, 3.0, 4.0),
}


def target_of(name: str, pass_name: str, shape: Shape) -> float | None:
    """The least ratio that is asked of a contender; None if nothing is."""
    return dict(zip(SHAPES, TARGETS.get((name, pass_name), ()), strict=False)).get(shape)


class Data(NamedTuple):
    """The arrays of a shape."""

    logits: np.ndarray  # (rows, classes)
    labels: np.ndarray  # (rows,)


def make_data(shape: Shape) -> Data:
    rng = np.random.default_rng(shape[0])
    logits = rng.standard_normal(shape, dtype=np.float32)
    logits *= 3
    return Data(logits, rng.integers(0, shape[1], shape[0]).astype(np.int32))


# -------------------- contenders


def with_jax(data: Data, pass_name: str, loss: Callable[..., Any]) -> Call:
    """The loss under ``jax.jit``."""
    import jax

    x, y = (jax.numpy.asarray(array) for array in data)

    def of_rows(x: Any, y: Any) -> Any:  # a function of its own: jax.jit keeps one program of each
        return loss(x, y)

    function = jax.jit(jax.value_and_grad(lambda x, y: of_rows(x, y).mean()) if pass_name == GRADIENT else of_rows)
    return lambda: jax.block_until_ready(function(x, y))


def with_optax(data: Data, pass_name: str) -> Call:
    import optax

    return with_jax(data, pass_name, optax.softmax_cross_entropy_with_integer_labels)


def with_xent(data: Data, pass_name: str, compiled: Callable[..., Call], kernel: str) -> Call:
    context = contextvars.copy_context()  # the kernel is chosen where the call is traced
    context.run(xent.using(kernel=kernel).__enter__)
    return functools.partial(context.run, compiled(data, pass_name, xent.sparse_cross_entropy))


class Contender(NamedTuple):
    """What is timed: ``setup(data, pass_name)`` returns the call; it needs the module, and is compared with a peer."""

    name: str
    module: str
    peer: str
    setup: Callable[[Data, str], Call]


CONTENDERS = [
    Contender(OPTAX, "optax", OPTAX, with_optax),
    Contender(GENERIC, "jax", OPTAX, functools.partial(with_xent, compiled=with_jax, kernel="generic")),
    Contender(FUSED, "xent_numba", OPTAX, functools.partial(with_xent, compiled=with_jax, kernel="numba-ffi")),
]


def mean_loss(result: Any) -> float:
    """The mean loss in the result of a contender."""
    value = result[0] if isinstance(result, tuple | list) else result
    return float(np.mean(np.asarray(value.detach() if hasattr(value, "detach") else value), dtype=np.float64))


def compare(shape: Shape, pass_name: str, quick: bool) -> tuple[Rounds, Rounds]:
    """The seconds of each contender by the clock, round by round, and those of the processor."""
    data, calls = make_data(shape), {}
    for contender in CONTENDERS:
        if measure.is_installed(contender.module):
            calls[contender.name] = contender.setup(data, pass_name)
    losses = {name: mean_loss(call()) for name, call in calls.items()}
    expected = losses[GENERIC]
    if not all(abs(loss - expected) <= 1e-4 * abs(expected) for loss in losses.values()):
        raise AssertionError(f"contenders compute other losses at {shape}, {pass_name}: {losses}")
    clocks = time.perf_counter, time.process_time
    rounds, sample_seconds = (3, 1e-4) if quick else (7, 0.01)
    seconds, processor_seconds = measure.interleave_clocks(calls, rounds, clocks, sample_seconds)
    return seconds, processor_seconds


# -------------------- the page


def line(contender: Contender, seconds: Rounds, processor_seconds: Rounds, target: float | None) -> tuple[str, ...]:
    """The times of a contender, and those of its peer over them."""
    name, peer = contender.name, contender.peer
    times = [by_clock[name] for by_clock in (seconds, processor_seconds)]
    unit = 1e-6 if measure.quartiles(seconds[name]).median < 1e-3 else 1e-3
    shown = [f"{measure.quartiles(values).show(unit)} {'µs' if unit == 1e-6 else 'ms'}" for values in times]
    if name == peer:
        return (name, *shown, "", "", "")
    by_clock = measure.ratio(seconds[peer], seconds[name])
    by_processor = measure.ratio(processor_seconds[peer], processor_seconds[name])
    asked = "" if target is None else f"≥ {target}" if by_clock.median >= target else f"**≥ {target}**"
    return (name, *shown, by_clock.show(), by_processor.show(), asked)


def main(quick: bool = False) -> str:
    """The page of results."""
    report = Report("jit", "Losses in compiled programs, all cores", ("numba", "jax", "jaxlib", "optax"))
    report.add(
        f"{measure.threads()} threads for every contender.",
        measure.HOW,
        "A ratio is the peer's time over the contender's. "
        "What is asked of it by the clock is in bold where it is missed.",
    )
    columns = "", "time", "processor time", "peer / it", "by processor time", "asked"
    for shape in QUICK_SHAPES if quick else SHAPES:
        for pass_name in PASSES:
            print(f"{shape}, {pass_name}", file=sys.stderr)
            seconds, processor_seconds = compare(shape, pass_name, quick)
            lines = [
                line(contender, seconds, processor_seconds, target_of(contender.name, pass_name, shape))
                for contender in CONTENDERS
                if contender.name in seconds
            ]
            report.add(f"## {shape}, {pass_name}", measure.table(columns, lines))
            numbers = {"seconds": seconds, "processor_seconds": processor_seconds}
            report.add(**{f"{shape[0]}x{shape[1]}, {pass_name}": numbers})
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main, one_core=False)
