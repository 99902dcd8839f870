"""Losses that a compiler has in a program of its own, compared with the same compiler's own losses, on all cores.

The counting model, for N rows of C logits in float32:

| pass | bytes that must move | exponentials |
|---|---|---|
| loss | 4 N C read (and O(N)) | N C |
| loss and gradient | 4 N C read, 4 N C written into fresh memory | N C |
| row statistics, logsumexp | 4 N C read (and O(N)) | N C |
| softmax | 4 N C read, 4 N C written into fresh memory | N C |

What is compiled is the loss of every row, the mean with its gradient as a training step asks for it, and the other
numbers of rows. Logits are normal with standard deviation 3, labels uniform. Contenders are lines of ``CONTENDERS``,
each compared with the peer of its pass: optax, or plain expressions of ``jax.nn``. Times are those of a clock, and of
the processor in all threads, which other work on the machine changes less.
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
LOSS, GRADIENT, STATISTICS, LOGSUMEXP, SOFTMAX = PASSES = (
    "loss",
    "loss and gradient",
    "row statistics",
    "logsumexp",
    "softmax",
)
OPTAX, PLAIN = "JAX jit, optax", "JAX jit, jax.nn"
PEERS = {LOSS: OPTAX, GRADIENT: OPTAX, STATISTICS: PLAIN, LOGSUMEXP: PLAIN, SOFTMAX: PLAIN}
GENERIC, FUSED = "JAX jit, xent without a plugin", "JAX jit, xent-numba"
OTHER_SHAPES = [(512, 32000), (65536, 100), (1_000_000, 10), (8, 100)]
"""The shapes of the passes that are no losses."""
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


def with_jax(data: Data, pass_name: str, functions: dict[str, Callable[..., Any]]) -> Call:
    """The function of a pass under ``jax.jit``."""
    import jax

    x, y = (jax.numpy.asarray(array) for array in data)
    function = functions[LOSS if pass_name == GRADIENT else pass_name]

    def of_rows(x: Any, y: Any) -> Any:  # a function of its own: jax.jit keeps one program of each
        return function(x, y)

    mean_and_gradient = jax.value_and_grad(lambda x, y: of_rows(x, y).mean())
    compiled = jax.jit(mean_and_gradient if pass_name == GRADIENT else of_rows)
    return lambda: jax.block_until_ready(compiled(x, y))


def with_optax(data: Data, pass_name: str) -> Call:
    import optax

    return with_jax(data, pass_name, {LOSS: optax.softmax_cross_entropy_with_integer_labels})


def with_jax_nn(data: Data, pass_name: str) -> Call:
    import jax
    from jax import nn
    from jax import numpy as jnp

    def row_statistics(x: Any, y: Any) -> tuple[Any, ...]:
        log_p, lse = nn.log_softmax(x), nn.logsumexp(x, axis=-1)
        p, at_label = jnp.exp(log_p), jnp.take_along_axis(x, y[:, None], axis=-1)
        loss = lse - at_label[:, 0]
        before = (x > at_label) | ((x == at_label) & (jnp.arange(x.shape[-1]) < y[:, None]))
        entropy, squares = -jnp.sum(p * log_p, axis=-1), jnp.sum(p * p, axis=-1)
        return loss, lse, jnp.exp(-loss), jnp.max(p, axis=-1), jnp.sum(before, axis=-1), entropy, squares

    functions = {
        STATISTICS: row_statistics,
        LOGSUMEXP: lambda x, y: nn.logsumexp(x, axis=-1),
        SOFTMAX: lambda x, y: jax.nn.softmax(x),
    }
    return with_jax(data, pass_name, functions)


FUNCTIONS = {
    LOSS: xent.sparse_cross_entropy,
    STATISTICS: xent.row_statistics,
    LOGSUMEXP: lambda x, y: xent.logsumexp(x),
    SOFTMAX: lambda x, y: xent.softmax(x),
}


def with_xent(data: Data, pass_name: str, kernel: str) -> Call:
    context = contextvars.copy_context()  # the kernel is chosen where the call is traced
    context.run(xent.using(kernel=kernel).__enter__)
    return functools.partial(context.run, with_jax(data, pass_name, FUNCTIONS))


class Contender(NamedTuple):
    """What is timed: ``setup(data, pass_name)`` returns the call; it needs the module."""

    name: str
    module: str
    setup: Callable[[Data, str], Call]
    passes: tuple[str, ...] = PASSES


CONTENDERS = [
    Contender(OPTAX, "optax", with_optax, (LOSS, GRADIENT)),
    Contender(PLAIN, "jax", with_jax_nn, (STATISTICS, LOGSUMEXP, SOFTMAX)),
    Contender(GENERIC, "jax", functools.partial(with_xent, kernel="generic")),
    Contender(
        FUSED, "xent_numba", functools.partial(with_xent, kernel="numba-ffi"), (LOSS, GRADIENT, STATISTICS, LOGSUMEXP)
    ),
]


def mean_of(result: Any) -> float:
    """The mean of the first array in the result of a contender."""
    value = result[0] if isinstance(result, tuple | list) else result
    return float(np.mean(np.asarray(value), dtype=np.float64))


def compare(shape: Shape, pass_name: str, quick: bool) -> tuple[Rounds, Rounds]:
    """The seconds of each contender by the clock, round by round, and those of the processor."""
    data, calls = make_data(shape), {}
    for contender in CONTENDERS:
        if measure.is_installed(contender.module) and pass_name in contender.passes:
            calls[contender.name] = contender.setup(data, pass_name)
    means = {name: mean_of(call()) for name, call in calls.items()}
    expected = means[GENERIC]
    if not all(abs(mean - expected) <= 1e-4 * abs(expected) for mean in means.values()):
        raise AssertionError(f"contenders compute other numbers at {shape}, {pass_name}: {means}")
    clocks = time.perf_counter, time.process_time
    rounds, sample_seconds = (3, 1e-4) if quick else (7, 0.01)
    seconds, processor_seconds = measure.interleave_clocks(calls, rounds, clocks, sample_seconds)
    return seconds, processor_seconds


# -------------------- the page


def line(name: str, peer: str, seconds: Rounds, processor_seconds: Rounds, target: float | None) -> tuple[str, ...]:
    """The times of a contender, and those of its peer over them."""
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
        for pass_name in PASSES if quick or shape in OTHER_SHAPES else (LOSS, GRADIENT):
            print(f"{shape}, {pass_name}", file=sys.stderr)
            seconds, processor_seconds = compare(shape, pass_name, quick)
            lines = [
                line(name, PEERS[pass_name], seconds, processor_seconds, target_of(name, pass_name, shape))
                for name in seconds
            ]
            report.add(f"## {shape}, {pass_name}", measure.table(columns, lines))
            numbers = {"seconds": seconds, "processor_seconds": processor_seconds}
            report.add(**{f"{shape[0]}x{shape[1]}, {pass_name}": numbers})
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main, one_core=False)
