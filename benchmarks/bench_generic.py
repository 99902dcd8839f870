r"""The default path on NumPy arrays, beside its peers: the loss of labels, and the loss with its gradient.

The counting model, for N rows of C float32 logits:

| pass | bytes that must move | exponentials |
|---|---|---|
| loss | 4 N C read (and O(N)) | N C |
| loss and gradient | 4 N C read, 4 N C written | N C, where the block is still in the cache |

So NumPy cannot beat the larger of two floors, both measured in the same run: ``numpy.copyto``, which reads and writes
the predictions once, and a bare pass of ``numpy.exp`` and a sum over blocks of 64k elements in the cache. A compiler
with its own exponential can beat the second. SciPy's ``log_softmax`` and a gather make five passes through memory.

Logits are normal with standard deviation 3, labels uniform; float32, int64. Losses are not reduced, gradients are those
of the mean. Every contender starts from arrays of its own library, and ends when its result is there.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import measure
import numpy as np
from measure import Call, Report, Rounds, Spread

import xent

SHAPES = [(65536, 1000), (2048, 32000), (256, 262144), (1_000_000, 10), (8, 100)]
QUICK_SHAPES = [(200, 10), (8, 100)]
SMALL = 1 << 16  # elements, below which memory is not measured
BLOCK = 1 << 16
OURS, SCIPY, HAND, TORCH = "xent", "SciPy log_softmax + gather", "hand-written NumPy", "torch eager"
COPY, EXPONENTIALS = "floor: numpy.copyto", "floor: numpy.exp + sum"
PASSES = ("loss", "loss and gradient")
Shape = tuple[int, int]
Line = dict[str, Any]
# What this path promises: how many times faster than SciPy, by shape; slower than the hand-written, at most.
FASTER_THAN_SCIPY = {(65536, 1000): 1.7, (2048, 32000): 1.5, (1_000_000, 10): 1.0}
HAND_WRITTEN_AT_MOST = 1.5


def arrays(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (rows, classes) and labels (rows,)."""
    rng = np.random.default_rng(rows)
    logits = rng.standard_normal((rows, classes), dtype=np.float32)
    logits *= 3
    return logits, rng.integers(0, classes, rows)


class Contender(NamedTuple):
    """What is timed: ``setup(logits, labels)`` makes the call, and needs the module."""

    name: str
    passes: tuple[str, ...]
    module: str
    setup: Callable[[np.ndarray, np.ndarray, str], Call]
    shapes: Callable[[int, int], bool] = lambda rows, classes: True


def ours(logits: np.ndarray, labels: np.ndarray, what: str) -> Call:
    if what == "loss":
        return lambda: xent.sparse_cross_entropy(logits, labels)
    with_gradient = xent.value_and_grad(functools.partial(xent.sparse_cross_entropy, reduction="mean"))
    return lambda: with_gradient(logits, labels)


def with_scipy(logits: np.ndarray, labels: np.ndarray, what: str) -> Call:
    from scipy.special import log_softmax

    every = np.arange(len(labels))

    def loss() -> Any:
        return -log_softmax(logits, axis=1)[every, labels]

    def loss_and_gradient() -> Any:
        log_p = log_softmax(logits, axis=1)
        value = -log_p[every, labels].mean()
        gradient = np.exp(log_p, out=log_p)
        gradient[every, labels] -= 1
        gradient /= len(labels)
        return value, gradient

    return loss if what == "loss" else loss_and_gradient


def by_hand(logits: np.ndarray, labels: np.ndarray, what: str) -> Call:
    x, y = logits, labels

    def loss() -> Any:
        m = x.max(1, keepdims=True)
        return np.log(np.exp(x - m).sum(1)) - (x[np.arange(len(x)), y] - m[:, 0])

    return loss


def with_sklearn(logits: np.ndarray, labels: np.ndarray, what: str) -> Call:
    from scipy.special import softmax
    from sklearn.metrics import log_loss

    probabilities, every = softmax(logits, axis=1), np.arange(logits.shape[1])
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return lambda: log_loss(labels, probabilities, labels=every)


def with_torch(logits: np.ndarray, labels: np.ndarray, what: str, compiled: bool = False) -> Call:
    import torch

    torch.set_num_threads(1)
    x, y = torch.from_numpy(logits), torch.from_numpy(labels)
    cross_entropy: Any = torch.nn.functional.cross_entropy
    if compiled:
        torch.compiler.reset()  # subtle: it gives up on a function after eight shapes
        cross_entropy = torch.compile(cross_entropy, dynamic=False)
    if what == "loss":
        return lambda: cross_entropy(x, y, reduction="none")
    x = x.clone().requires_grad_()

    def loss_and_gradient() -> Any:
        x.grad = None
        value = cross_entropy(x, y)
        value.backward()
        return value, x.grad

    return loss_and_gradient


def with_jax(logits: np.ndarray, labels: np.ndarray, what: str) -> Call:
    import jax
    import optax

    x, y = jax.numpy.asarray(logits), jax.numpy.asarray(labels)
    loss = optax.softmax_cross_entropy_with_integer_labels
    function = jax.jit(loss if what == "loss" else jax.value_and_grad(lambda x, y: loss(x, y).mean()))
    return lambda: jax.block_until_ready(function(x, y))


def with_tensorflow(logits: np.ndarray, labels: np.ndarray, what: str) -> Call:
    import tensorflow as tf

    x, y = tf.constant(logits), tf.constant(labels)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits
    if what == "loss":
        return lambda: loss(labels=y, logits=x).numpy()

    def loss_and_gradient() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_mean(loss(labels=y, logits=x))
        return value.numpy(), tape.gradient(value, x).numpy()

    return loss_and_gradient


def copying(logits: np.ndarray, labels: np.ndarray, what: str) -> Call:
    out = np.empty_like(logits)
    return lambda: np.copyto(out, logits)


def exponentials(logits: np.ndarray, labels: np.ndarray, what: str) -> Call:
    flat, scratch = logits.reshape(-1), np.empty(BLOCK, np.float32)

    def every_block() -> None:
        for start in range(0, len(flat), BLOCK):
            block = flat[start : start + BLOCK]
            np.exp(block, out=scratch[: len(block)]).sum()

    return every_block


CONTENDERS = [
    Contender(OURS, PASSES, "xent", ours),
    Contender(SCIPY, PASSES, "scipy", with_scipy),
    Contender(HAND, ("loss",), "numpy", by_hand, lambda rows, classes: rows * classes < SMALL),
    # It makes a one-hot of int64 and copies in float64: at more classes it takes tens of gigabytes.
    Contender("scikit-learn log_loss, of probabilities", ("loss",), "sklearn", with_sklearn, lambda rows, c: c <= 100),
    Contender(TORCH, PASSES, "torch", with_torch),
    Contender("torch.compile", PASSES, "torch", functools.partial(with_torch, compiled=True)),
    Contender("JAX jit, optax", PASSES, "optax", with_jax),
    Contender("TensorFlow", PASSES, "tensorflow", with_tensorflow),
    Contender(COPY, PASSES, "numpy", copying),
    Contender(EXPONENTIALS, PASSES, "numpy", exponentials),
]
SLOW_TO_START = ("torch.compile", "TensorFlow")
BY_NAME = {one.name: one for one in CONTENDERS}


def mean_loss(result: Any) -> float | None:
    """The mean loss in what a contender returns; None for a floor."""
    value = result[0] if isinstance(result, tuple) else result
    return None if value is None else float(np.mean(np.asarray(value.detach() if hasattr(value, "detach") else value)))


def entered(what: str, shape: Shape, quick: bool) -> Iterator[Contender]:
    """Who takes part."""
    for one in CONTENDERS:
        wanted = what in one.passes and one.shapes(*shape) and not (quick and one.name in SLOW_TO_START)
        if wanted and measure.is_installed(one.module):
            yield one


def agreeing(calls: dict[str, Call]) -> dict[str, Call]:
    """The same calls, once it is seen that all compute the same loss; to 1 %, for scikit-learn clips probabilities."""
    found = {name: mean_loss(call()) for name, call in calls.items()}
    expected = found[OURS]
    for name, value in found.items():
        if value is not None and not abs(value - expected) <= 1e-2 * abs(expected):
            raise AssertionError(f"{name} computes {value}, xent {expected}: not the same thing")
    return calls


def compare(shape: Shape, what: str, quick: bool) -> tuple[list[Line], Rounds]:
    """One line for each contender at one shape, and the seconds of each round."""
    contenders = list(entered(what, shape, quick))
    logits, labels = arrays(*shape)
    calls = agreeing({one.name: one.setup(logits, labels, what) for one in contenders})
    rounds = 3 if quick else 41 if logits.size < SMALL else 7
    seconds = measure.interleave(calls, rounds, 1e-4 if quick else measure.SAMPLE_SECONDS)
    lines = []
    for name in calls:
        extra = memory(name, shape, what, quick)
        lines.append(
            {
                "contender": name,
                "seconds": measure.spread(seconds[name]),
                "times_xent": measure.ratio(seconds[name], seconds[OURS]),
                "times_copy": measure.ratio(seconds[name], seconds[COPY]),
                "times_exponentials": measure.ratio(seconds[name], seconds[EXPONENTIALS]),
                "extra_bytes": extra,
                "extra_in_predictions": None if extra is None else extra / logits.nbytes,
            }
        )
    return lines, seconds


def memory(name: str, shape: Shape, what: str, quick: bool) -> int | None:
    """Peak memory above the inputs, from a process of its own; None where it is not worth one."""
    left_out = name in (COPY, EXPONENTIALS, "torch.compile")  # a floor, or half a minute of compiling
    if left_out or (quick and name != OURS) or (not quick and shape[0] * shape[1] < SMALL):
        return None
    return measure.in_a_process(__file__, name, what, *shape)


def child(name: str, what: str, rows: str, classes: str) -> int | None:
    """The same, in that process."""
    return measure.peak_above(BY_NAME[name].setup(*arrays(int(rows), int(classes)), what))


def show(lines: list[Line]) -> str:
    """The lines as a table."""
    unit, symbol = (1e-3, "ms") if lines[0]["seconds"].median > 1e-3 else (1e-6, "µs")
    columns = ("", f"time, {symbol}", "time / xent's", "/ copy", "/ exponentials", "extra memory, MB", "/ predictions")
    rows = []
    for line in lines:
        extra = line["extra_bytes"]
        rows.append(
            (
                line["contender"],
                line["seconds"].show(unit),
                line["times_xent"].show(),
                measure.plain(line["times_copy"].median),
                measure.plain(line["times_exponentials"].median),
                "" if extra is None else f"{extra / 1e6:.1f}",
                "" if extra is None else f"{line['extra_in_predictions']:.2f}",
            )
        )
    return measure.table(columns, rows)


def promises(results: dict[tuple[Shape, str], list[Line]]) -> Iterator[tuple[str, str, Spread, bool]]:
    """What is asked of this path beside what was found."""
    for (shape, what), lines in results.items():
        found = {line["contender"]: line for line in lines}
        if what == "loss" and shape in FASTER_THAN_SCIPY and SCIPY in found:
            asked, times = FASTER_THAN_SCIPY[shape], found[SCIPY]["times_xent"]
            yield f"SciPy's time / xent's at {shape}", f"≥ {asked}", times, times.median >= asked
        if what == "loss" and HAND in found:
            times = Spread(*(1 / value for value in reversed(found[HAND]["times_xent"])))
            asked = f"≤ {HAND_WRITTEN_AT_MOST}"
            yield f"xent's time / the hand-written at {shape}", asked, times, times.median <= HAND_WRITTEN_AT_MOST
        extra = found[OURS]["extra_in_predictions"]
        if extra is not None:
            output = what != "loss"  # the gradient itself is of the predictions' size
            rest = extra - output
            name = f"extra memory / predictions at {shape}, {what}" + (", the gradient apart" if output else "")
            if shape[0] * shape[1] >= SMALL:  # O(rows) is a share of them where classes are few
                yield name, "< 1", Spread(rest, rest, rest), rest < 1


def main(quick: bool = False) -> str:
    """The page of results."""
    peers = ("scipy", "scikit-learn", "torch", "jax", "optax", "tensorflow-cpu")
    report = Report("generic", "The default path on NumPy, float32", peers)
    report.add(measure.ONE_CORE, measure.HOW)
    results = {}
    for shape in QUICK_SHAPES if quick else SHAPES:
        for what in PASSES:
            print(f"{shape}, {what}", file=sys.stderr)
            lines, seconds = compare(shape, what, quick)
            results[shape, what] = lines
            report.add(**{f"{shape[0]}x{shape[1]}, {what}": {"lines": lines, "seconds": seconds}})
    report.add("## Promises", measure.targets(promises(results)))
    for (shape, what), lines in results.items():
        report.add(f"## {shape}, {what}", show(lines))
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main, child)
