r"""The default path on NumPy arrays, compared with its peers: the loss of labels, and the loss with its gradient.

The counting model, for N rows of C float32 logits:

| pass | bytes that must move | exponentials |
|---|---|---|
| loss | 4 N C read (and O(N)) | N C |
| loss and gradient | 4 N C read, 4 N C written | N C, if the block is still in the cache |

So NumPy cannot beat the larger of two floors, both measured in the same run: ``numpy.copyto``, which reads and writes
the predictions once, and a bare pass of ``numpy.exp`` and a sum over blocks of 64k elements in the cache. A compiler
with its own exponential can beat the second. SciPy's ``log_softmax`` and a gather make five passes through memory.

Logits are normal with standard deviation 3 in float32, labels uniform in int64. Losses are not reduced, gradients are
those of the mean. Every contender starts from arrays of its own library, and waits until its result is computed.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import measure
import numpy as np
from measure import Call, Quartiles, Report, Rounds

import xent

SHAPES = [(65536, 1000), (2048, 32000), (256, 262144), (1_000_000, 10), (8, 100)]
QUICK_SHAPES = [(200, 10), (8, 100)]
SMALL = 1 << 16  # elements; memory is not measured below this size
BLOCK = 1 << 16
OURS, SCIPY, HAND, TORCH = "xent", "SciPy log_softmax + gather", "hand-written NumPy", "torch eager"
COPY, EXPONENTIALS = "floor: numpy.copyto", "floor: numpy.exp + sum"
PASSES = ("loss", "loss and gradient")
Shape = tuple[int, int]
Line = dict[str, Any]
# Promises: the least speedup over SciPy by shape, and the largest ratio to the time of the hand-written loss.
MIN_SCIPY_SPEEDUP = {(65536, 1000): 1.7, (2048, 32000): 1.5, (1_000_000, 10): 1.0}
MAX_HAND_WRITTEN_RATIO = 1.5


def arrays(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (rows, classes) and labels (rows,)."""
    rng = np.random.default_rng(rows)
    logits = rng.standard_normal((rows, classes), dtype=np.float32)
    logits *= 3
    return logits, rng.integers(0, classes, rows)


class Contender(NamedTuple):
    """What is timed: ``setup(logits, labels, pass_name)`` returns the call; it needs the module."""

    name: str
    passes: tuple[str, ...]
    module: str
    setup: Callable[[np.ndarray, np.ndarray, str], Call]
    shapes: Callable[[int, int], bool] = lambda rows, classes: True


def with_xent(logits: np.ndarray, labels: np.ndarray, pass_name: str) -> Call:
    if pass_name == "loss":
        return lambda: xent.sparse_cross_entropy(logits, labels)
    with_gradient = xent.value_and_grad(functools.partial(xent.sparse_cross_entropy, reduction="mean"))
    return lambda: with_gradient(logits, labels)


def with_scipy(logits: np.ndarray, labels: np.ndarray, pass_name: str) -> Call:
    from scipy.special import log_softmax

    row_index = np.arange(len(labels))

    def loss() -> Any:
        return -log_softmax(logits, axis=1)[row_index, labels]

    def loss_and_gradient() -> Any:
        log_p = log_softmax(logits, axis=1)
        value = -log_p[row_index, labels].mean()
        gradient = np.exp(log_p, out=log_p)
        gradient[row_index, labels] -= 1
        gradient /= len(labels)
        return value, gradient

    return loss if pass_name == "loss" else loss_and_gradient


def by_hand(logits: np.ndarray, labels: np.ndarray, pass_name: str) -> Call:
    x, y = logits, labels

    def loss() -> Any:
        m = x.max(1, keepdims=True)
        return np.log(np.exp(x - m).sum(1)) - (x[np.arange(len(x)), y] - m[:, 0])

    return loss


def with_sklearn(logits: np.ndarray, labels: np.ndarray, pass_name: str) -> Call:
    from scipy.special import softmax
    from sklearn.metrics import log_loss

    probabilities, classes = softmax(logits, axis=1), np.arange(logits.shape[1])
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return lambda: log_loss(labels, probabilities, labels=classes)


def with_torch(logits: np.ndarray, labels: np.ndarray, pass_name: str, compiled: bool = False) -> Call:
    import torch

    torch.set_num_threads(1)
    x, y = torch.from_numpy(logits), torch.from_numpy(labels)
    cross_entropy: Any = torch.nn.functional.cross_entropy
    if compiled:
        torch.compiler.reset()  # subtle: torch.compile stops compiling a function after eight shapes
        cross_entropy = torch.compile(cross_entropy, dynamic=False)
    if pass_name == "loss":
        return lambda: cross_entropy(x, y, reduction="none")
    x = x.clone().requires_grad_()

    def loss_and_gradient() -> Any:
        x.grad = None
        value = cross_entropy(x, y)
        value.backward()
        return value, x.grad

    return loss_and_gradient


def with_jax(logits: np.ndarray, labels: np.ndarray, pass_name: str) -> Call:
    import jax
    import optax

    x, y = jax.numpy.asarray(logits), jax.numpy.asarray(labels)
    loss = optax.softmax_cross_entropy_with_integer_labels
    function = jax.jit(loss if pass_name == "loss" else jax.value_and_grad(lambda x, y: loss(x, y).mean()))
    return lambda: jax.block_until_ready(function(x, y))


def with_tensorflow(logits: np.ndarray, labels: np.ndarray, pass_name: str) -> Call:
    import tensorflow as tf

    x, y = tf.constant(logits), tf.constant(labels)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits
    if pass_name == "loss":
        return lambda: loss(labels=y, logits=x).numpy()

    def loss_and_gradient() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_mean(loss(labels=y, logits=x))
        return value.numpy(), tape.gradient(value, x).numpy()

    return loss_and_gradient


def copy_floor(logits: np.ndarray, labels: np.ndarray, pass_name: str) -> Call:
    out = np.empty_like(logits)
    return lambda: np.copyto(out, logits)


def exponentials_floor(logits: np.ndarray, labels: np.ndarray, pass_name: str) -> Call:
    flat, scratch = logits.reshape(-1), np.empty(BLOCK, np.float32)

    def sum_blocks() -> None:
        for start in range(0, len(flat), BLOCK):
            block = flat[start : start + BLOCK]
            np.exp(block, out=scratch[: len(block)]).sum()

    return sum_blocks


CONTENDERS = [
    Contender(OURS, PASSES, "xent", with_xent),
    Contender(SCIPY, PASSES, "scipy", with_scipy),
    Contender(HAND, ("loss",), "numpy", by_hand, lambda rows, classes: rows * classes < SMALL),
    # scikit-learn makes a one-hot array in int64 and copies in float64, tens of gigabytes for more classes.
    Contender("scikit-learn log_loss, of probabilities", ("loss",), "sklearn", with_sklearn, lambda rows, c: c <= 100),
    Contender(TORCH, PASSES, "torch", with_torch),
    Contender("torch.compile", PASSES, "torch", functools.partial(with_torch, compiled=True)),
    Contender("JAX jit, optax", PASSES, "optax", with_jax),
    Contender("TensorFlow", PASSES, "tensorflow", with_tensorflow),
    Contender(COPY, PASSES, "numpy", copy_floor),
    Contender(EXPONENTIALS, PASSES, "numpy", exponentials_floor),
]
SLOW_TO_START = ("torch.compile", "TensorFlow")
BY_NAME = {contender.name: contender for contender in CONTENDERS}


def mean_loss(result: Any) -> float | None:
    """The mean loss in the result of a contender; None for a floor."""
    value = result[0] if isinstance(result, tuple) else result
    return None if value is None else float(np.mean(np.asarray(value.detach() if hasattr(value, "detach") else value)))


def eligible_contenders(pass_name: str, shape: Shape, quick: bool) -> Iterator[Contender]:
    """The contenders that have this pass and shape and whose module is installed."""
    for contender in CONTENDERS:
        applies = pass_name in contender.passes and contender.shapes(*shape)
        is_skipped = quick and contender.name in SLOW_TO_START
        if applies and not is_skipped and measure.is_installed(contender.module):
            yield contender


def check_agreement(calls: dict[str, Call]) -> None:
    """Raises if the mean losses differ by more than 1 %; scikit-learn clips probabilities, so they are not closer."""
    losses = {name: mean_loss(call()) for name, call in calls.items()}
    expected = losses[OURS]
    for name, value in losses.items():
        if value is not None and not abs(value - expected) <= 1e-2 * abs(expected):
            raise AssertionError(f"{name} computes {value}, xent {expected}: not the same thing")


def compare(shape: Shape, pass_name: str, quick: bool) -> tuple[list[Line], Rounds]:
    """One line per contender for one shape and pass, and the seconds of each round."""
    contenders = list(eligible_contenders(pass_name, shape, quick))
    logits, labels = arrays(*shape)
    calls = {contender.name: contender.setup(logits, labels, pass_name) for contender in contenders}
    check_agreement(calls)
    rounds = 3 if quick else 41 if logits.size < SMALL else 7
    seconds = measure.interleave(calls, rounds, 1e-4 if quick else measure.SAMPLE_SECONDS)
    lines = []
    for name in calls:
        extra = memory(name, shape, pass_name, quick)
        lines.append(
            {
                "contender": name,
                "seconds": measure.quartiles(seconds[name]),
                "times_xent": measure.ratio(seconds[name], seconds[OURS]),
                "times_copy": measure.ratio(seconds[name], seconds[COPY]),
                "times_exponentials": measure.ratio(seconds[name], seconds[EXPONENTIALS]),
                "extra_bytes": extra,
                "extra_in_predictions": None if extra is None else extra / logits.nbytes,
            }
        )
    return lines, seconds


def memory(name: str, shape: Shape, pass_name: str, quick: bool) -> int | None:
    """Peak memory above the inputs, from a separate process; None if it is not measured."""
    is_excluded = name in (COPY, EXPONENTIALS, "torch.compile")  # a floor, or half a minute of compilation
    if is_excluded or (quick and name != OURS) or (not quick and shape[0] * shape[1] < SMALL):
        return None
    return measure.run_child(__file__, name, pass_name, *shape)


def child(name: str, pass_name: str, rows: str, classes: str) -> int | None:
    """Peak memory above the inputs, measured in this child process."""
    return measure.peak_growth_bytes(BY_NAME[name].setup(*arrays(int(rows), int(classes)), pass_name))


def show(lines: list[Line]) -> str:
    """The table of the lines."""
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
                measure.format_number(line["times_copy"].median),
                measure.format_number(line["times_exponentials"].median),
                "" if extra is None else f"{extra / 1e6:.1f}",
                "" if extra is None else f"{line['extra_in_predictions']:.2f}",
            )
        )
    return measure.table(columns, rows)


def promises(results: dict[tuple[Shape, str], list[Line]]) -> Iterator[tuple[str, str, Quartiles, bool]]:
    """Each promise: its name, limit, measured value, and whether it is kept."""
    for (shape, pass_name), lines in results.items():
        by_name = {line["contender"]: line for line in lines}
        if pass_name == "loss" and shape in MIN_SCIPY_SPEEDUP and SCIPY in by_name:
            minimum, ratio = MIN_SCIPY_SPEEDUP[shape], by_name[SCIPY]["times_xent"]
            yield f"SciPy's time / xent's at {shape}", f"≥ {minimum}", ratio, ratio.median >= minimum
        if pass_name == "loss" and HAND in by_name:
            ratio = Quartiles(*(1 / value for value in reversed(by_name[HAND]["times_xent"])))
            limit = f"≤ {MAX_HAND_WRITTEN_RATIO}"
            yield f"xent's time / the hand-written at {shape}", limit, ratio, ratio.median <= MAX_HAND_WRITTEN_RATIO
        extra = by_name[OURS]["extra_in_predictions"]
        if extra is not None:
            has_gradient = pass_name != "loss"  # the gradient has the size of the predictions
            rest = extra - has_gradient
            name = f"extra memory / predictions at {shape}, {pass_name}" + (
                ", the gradient apart" if has_gradient else ""
            )
            if shape[0] * shape[1] >= SMALL:  # in a small array O(rows) is a large fraction of the predictions
                yield name, "< 1", Quartiles(rest, rest, rest), rest < 1


def main(quick: bool = False) -> str:
    """The page of results."""
    peers = ("scipy", "scikit-learn", "torch", "jax", "optax", "tensorflow-cpu")
    report = Report("generic", "The default path on NumPy, float32", peers)
    report.add(measure.ONE_CORE, measure.HOW)
    results = {}
    for shape in QUICK_SHAPES if quick else SHAPES:
        for pass_name in PASSES:
            print(f"{shape}, {pass_name}", file=sys.stderr)
            lines, seconds = compare(shape, pass_name, quick)
            results[shape, pass_name] = lines
            report.add(**{f"{shape[0]}x{shape[1]}, {pass_name}": {"lines": lines, "seconds": seconds}})
    report.add("## Promises", measure.promise_table(promises(results)))
    for (shape, pass_name), lines in results.items():
        report.add(f"## {shape}, {pass_name}", show(lines))
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main, child)
