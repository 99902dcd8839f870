r"""The kernels of xent-numba, compared with their peers and their floors, on every core.

The counting model, for N rows of C logits of b bytes:

| pass | bytes that must move | exponentials |
|---|---|---|
| loss | b N C read (and O(N)) | N C |
| loss and gradient | b N C read, b N C written | N C |
| loss of soft targets | (b + 4) N C read | N C |

Three floors are measured in the same run: the bare sum of exponentials (``floor.cpp``, one thread, compared with xent
on one thread), the bare read of the logits on all cores, and ``numpy.copyto`` of the logits, which reads and writes
them once, into allocated memory; for this comparison xent writes its gradient into allocated memory too (``out=``).
That call is compared with the peers as well, which all make their gradients.

Logits are normal with standard deviation 3, labels uniform, soft targets uniform and scaled to sum to 1. Losses are not
reduced, gradients are those of the mean. Every contender starts from arrays of its own library, on all cores.
"""

from __future__ import annotations

import contextvars
import ctypes
import functools
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import measure
import numpy as np
from measure import Call, Quartiles, Report, Rounds

import xent

SHAPES = [(65536, 1000), (2048, 32000), (256, 262144), (1_000_000, 10)]
MORE_SHAPES = [(512, 32000), (65536, 100)]
SMALL_SHAPE = (8, 100)
QUICK_SHAPES = [(200, 100), (300, 10)]
LOSS, GRADIENT, HALF, SOFT = "loss", "loss and gradient", "float16 loss", "loss of soft targets"
PASSES = (LOSS, GRADIENT, HALF, SOFT)
SMALL_PASSES = (LOSS, GRADIENT)
OURS, ALONE, IN_PLACE, WITHOUT = "xent", "xent, one thread", "xent, out=", "xent without the plugin"
OVER = "xent, out= the logits"
COPY, EXPONENTIALS = "floor: numpy.copyto", "floor: sum of exponentials, one thread"
READ = "floor: bare read, all cores"
TORCH = "torch eager"
PEERS = (TORCH, "torch.compile", "JAX jit, optax", "TensorFlow")
FIT_ELEMENTS = (10**4, 10**5, 10**6, 10**7, 10**8, 10**9)
Shape = tuple[int, int]
Line = dict[str, Any]
# Promises by pass: the largest ratio of xent to the floor, and the least ratio of the best peer to xent.
MAX_FLOOR_RATIO = {(LOSS, EXPONENTIALS): 1.3, (GRADIENT, COPY): 1.25}
MANY, FEW = {LOSS: 2, GRADIENT: 3, IN_PLACE: 4.5, HALF: 3.5, SOFT: 1.8}, {HALF: 3.5, SOFT: 1.5}
MIN_SPEEDUP = {
    (512, 32000): {**MANY, LOSS: 1.5},
    (65536, 100): {LOSS: 1, GRADIENT: 1.3, IN_PLACE: 2},
    (65536, 1000): {**MANY, LOSS: 1.7},
    (1_000_000, 10): {**FEW, LOSS: 1.5, GRADIENT: 2.5, IN_PLACE: 3},
    (8, 100): {LOSS: 1, GRADIENT: 3},
}
"""By shape; of all others it is MANY."""


class Data(NamedTuple):
    """The arrays of a pass."""

    logits: np.ndarray  # (rows, classes)
    targets: np.ndarray  # labels (rows,), or soft targets (rows, classes)


def make_data(shape: Shape, pass_name: str) -> Data:
    rng = np.random.default_rng(shape[0])
    logits = rng.standard_normal(shape, dtype=np.float32)
    logits *= 3
    if pass_name == HALF:
        logits = logits.astype(np.float16)
    if pass_name != SOFT:
        return Data(logits, rng.integers(0, shape[1], shape[0]))
    targets = rng.random(shape, dtype=np.float32)
    targets /= targets.sum(axis=1, keepdims=True)
    return Data(logits, targets)


# -------------------- contenders


def with_xent(data: Data, pass_name: str, **settings: Any) -> Call:
    function = xent.cross_entropy if pass_name == SOFT else xent.sparse_cross_entropy
    if pass_name == GRADIENT:
        function = xent.value_and_grad(functools.partial(function, reduction="mean"))

    context = contextvars.copy_context()  # entered once, and not at every call
    context.run(xent.using(**settings).__enter__)
    return lambda: context.run(function, *data)


def in_place(data: Data, pass_name: str, over: bool = False) -> Call:
    """The public call with memory for its gradient, its own or that of logits which it overwrites."""
    logits = np.array(data.logits) if over else data.logits
    out = logits if over else np.zeros_like(logits)
    function = xent.value_and_grad(functools.partial(xent.sparse_cross_entropy, reduction="mean", kind="logits"))
    return lambda: function(logits, data.targets, out=out)


def with_torch(data: Data, pass_name: str, compiled: bool = False) -> Call:
    import torch

    x, y = (torch.from_numpy(array) for array in data)
    cross_entropy: Any = torch.nn.functional.cross_entropy
    if compiled:
        torch.compiler.reset()  # subtle: torch.compile stops compiling a function after eight shapes
        cross_entropy = torch.compile(cross_entropy, dynamic=False)
    if pass_name != GRADIENT:
        return lambda: cross_entropy(x, y, reduction="none")
    x = x.clone().requires_grad_()

    def loss_and_gradient() -> Any:
        x.grad = None
        value = cross_entropy(x, y)
        value.backward()
        return value, x.grad

    return loss_and_gradient


def with_jax(data: Data, pass_name: str) -> Call:
    import jax
    import optax

    x, y = (jax.numpy.asarray(array) for array in data)
    loss = optax.softmax_cross_entropy if pass_name == SOFT else optax.softmax_cross_entropy_with_integer_labels
    function = jax.jit(jax.value_and_grad(lambda x, y: loss(x, y).mean()) if pass_name == GRADIENT else loss)
    return lambda: jax.block_until_ready(function(x, y))


def with_tensorflow(data: Data, pass_name: str) -> Call:
    import tensorflow as tf

    x, y = (tf.constant(array) for array in data)
    nn = tf.nn
    loss = nn.softmax_cross_entropy_with_logits if pass_name == SOFT else nn.sparse_softmax_cross_entropy_with_logits
    if pass_name != GRADIENT:
        return lambda: loss(labels=y, logits=x).numpy()

    def loss_and_gradient() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_mean(loss(labels=y, logits=x))
        return value.numpy(), tape.gradient(value, x).numpy()

    return loss_and_gradient


def copy_floor(data: Data, pass_name: str) -> Call:
    out = np.zeros_like(data.logits)
    return lambda: np.copyto(out, data.logits)


@functools.cache
def floor_program() -> Any:
    """``floor.cpp``, compiled for this machine."""
    library = Path(tempfile.mkdtemp()) / "floor.so"
    source = Path(__file__).with_name("floor.cpp")
    subprocess.run(["g++", "-O3", "-march=native", "-shared", "-fPIC", "-o", library, source], check=True)
    return ctypes.CDLL(str(library))


def exponentials_floor(data: Data, pass_name: str) -> Call:
    rows, classes = data.logits.shape
    out = np.empty(rows, np.float32)
    arguments = data.logits.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p)
    sizes = ctypes.c_int64(rows), ctypes.c_int64(classes)
    return lambda: floor_program().sum_exp(*arguments, *sizes)


def read_floor(data: Data, pass_name: str) -> Call:
    logits, threads = data.logits, measure.threads()
    pool, results = ThreadPoolExecutor(threads), np.empty(threads, np.int32)
    bytes_per_thread = logits.nbytes // threads

    def read(thread: int) -> None:
        start, out = logits.ctypes.data + thread * bytes_per_thread, results.ctypes.data + 4 * thread
        floor_program().read(ctypes.c_void_p(start), ctypes.c_void_p(out), ctypes.c_int64(bytes_per_thread))

    return lambda: list(pool.map(read, range(threads)))


class Contender(NamedTuple):
    """What is timed: ``setup(data, pass_name)`` returns the call; it needs the module."""

    name: str
    passes: tuple[str, ...]
    module: str
    setup: Callable[[Data, str], Call]


CONTENDERS = [
    Contender(OURS, PASSES, "xent_numba", with_xent),
    Contender(ALONE, (LOSS,), "xent_numba", functools.partial(with_xent, threads=1)),
    Contender(IN_PLACE, (GRADIENT,), "xent_numba", in_place),
    Contender(OVER, (GRADIENT,), "xent_numba", functools.partial(in_place, over=True)),
    Contender(WITHOUT, PASSES, "xent", functools.partial(with_xent, kernel="numpy")),
    Contender(TORCH, PASSES, "torch", with_torch),
    Contender("torch.compile", PASSES, "torch", functools.partial(with_torch, compiled=True)),
    Contender("JAX jit, optax", PASSES, "optax", with_jax),
    Contender("TensorFlow", (LOSS, GRADIENT, SOFT), "tensorflow", with_tensorflow),
    Contender(COPY, (GRADIENT,), "numpy", copy_floor),
    Contender(EXPONENTIALS, (LOSS,), "numpy", exponentials_floor),
    Contender(READ, (LOSS, HALF), "numpy", read_floor),
]
SLOW_TO_START = ("torch.compile", "TensorFlow")
FLOORS = (COPY, EXPONENTIALS, READ)


def mean_loss(result: Any) -> float:
    """The mean loss in the result of a contender."""
    value = result[0] if isinstance(result, tuple | list) else result
    return float(np.mean(np.asarray(value.detach() if hasattr(value, "detach") else value), dtype=np.float64))


def compare(shape: Shape, pass_name: str, quick: bool) -> tuple[list[Line], Rounds]:
    """One line per contender for one shape and pass, and the seconds of each round."""
    data, calls = make_data(shape, pass_name), {}
    for contender in CONTENDERS:
        is_skipped = quick and contender.name in SLOW_TO_START
        if pass_name in contender.passes and measure.is_installed(contender.module) and not is_skipped:
            calls[contender.name] = contender.setup(data, pass_name)
    expected = mean_loss(calls[OURS]())
    for name, call in calls.items():
        if name not in FLOORS and not abs(mean_loss(call()) - expected) <= 1e-2 * abs(expected):
            raise AssertionError(f"{name} computes another loss than xent at {shape}, {pass_name}")
    seconds = measure.interleave(calls, 3 if quick else 9, 1e-4 if quick else measure.SAMPLE_SECONDS)
    lines = [
        {
            "contender": name,
            "seconds": measure.quartiles(rounds),
            "times_xent": measure.ratio(rounds, seconds[OURS]),
        }
        for name, rounds in seconds.items()
    ]
    return lines, seconds


def best_peer(seconds: Rounds) -> str:
    """The peer with the shortest median."""
    return min((name for name in PEERS if name in seconds), key=lambda name: measure.quartiles(seconds[name]).median)


def promises(rounds: dict[tuple[Shape, str], Rounds]) -> Iterator[tuple[str, str, Quartiles, bool]]:
    """Each promise: its name, limit, measured value, and whether it is kept."""
    for (shape, pass_name), seconds in rounds.items():
        if shape == SMALL_SHAPE:
            ratio = measure.ratio(seconds[OURS], seconds[WITHOUT])
            yield f"xent / {WITHOUT}, {pass_name}, {shape}", "≤ 1", ratio, ratio.median <= 1
        has_few_classes = shape[1] <= 64
        for (floor_pass, floor), maximum in MAX_FLOOR_RATIO.items():
            if floor_pass == pass_name and floor in seconds:
                name = ALONE if floor == EXPONENTIALS else IN_PLACE
                ratio = measure.ratio(seconds[name], seconds[floor])
                limit, met = f"≤ {maximum}", ratio.median <= maximum
                if has_few_classes or shape in ((65536, 100), SMALL_SHAPE):
                    limit, met = "reported", True
                yield f"{name} / {floor}, {pass_name}, {shape}", limit, ratio, met
        peer, least = TORCH if pass_name == HALF else best_peer(seconds), MIN_SPEEDUP.get(shape, MANY)
        for name, minimum in ((OURS, least[pass_name]), (IN_PLACE, least.get(IN_PLACE))):
            if name in seconds and minimum is not None:
                ratio = measure.ratio(seconds[peer], seconds[name])
                yield f"{peer} / {name}, {pass_name}, {shape}", f"≥ {minimum}", ratio, ratio.median >= minimum
        if READ in seconds:
            yield f"xent / {READ}, {pass_name}, {shape}", "reported", measure.ratio(seconds[OURS], seconds[READ]), True


def show(lines: list[Line]) -> str:
    """The table of the lines."""
    unit, symbol = (1e-3, "ms") if lines[0]["seconds"].median > 1e-3 else (1e-6, "µs")
    rows = [(line["contender"], line["seconds"].show(unit), line["times_xent"].show()) for line in lines]
    return measure.table(("", f"time, {symbol}", "time / xent's"), rows)


# -------------------- growth and memory


def growth(quick: bool) -> list[tuple[int, float]]:
    """Seconds of a loss by the number of elements, at 1000 classes."""
    sizes = FIT_ELEMENTS[:2] if quick else FIT_ELEMENTS
    logits = np.empty((max(sizes) // 1000, 1000), np.float32)
    logits[:] = np.random.default_rng(0).standard_normal((1, 1000)) * 3
    labels = np.zeros(len(logits), np.int64)
    calls = {
        str(size): functools.partial(xent.sparse_cross_entropy, logits[: size // 1000], labels[: size // 1000])
        for size in sizes
    }
    with xent.using(kernel="numba"):
        seconds = measure.interleave(calls, 3 if quick else 5)
    return [(size, measure.quartiles(seconds[str(size)]).median) for size in sizes]


def show_growth(times: list[tuple[int, float]]) -> tuple[str, str]:
    """A sentence on the straight line through the seconds, by least squares of relative errors, and the table."""
    sizes, seconds = np.asarray(times).T
    weighted = np.stack([np.ones_like(sizes), sizes], axis=1) / seconds[:, None]
    (start, rate), *_ = np.linalg.lstsq(weighted, np.ones_like(sizes), rcond=None)
    line = start + rate * sizes
    misfit = float(np.exp(np.max(np.abs(np.log(seconds / line)))))
    rows = [
        (f"{size:.0e}", measure.format_number(time * 1e3), measure.format_number(fit * 1e3), f"{time / size * 1e9:.3f}")
        for size, time, fit in zip(sizes, seconds, line, strict=True)
    ]
    text = (
        f"A loss at 1000 classes takes {start * 1e6:.0f} µs and {rate * 1e9:.3f} ns an element; no size is further "
        f"from that line than a factor {misfit:.2f}. The smallest run on one thread."
    )
    return text, measure.table(("elements", "time, ms", "line, ms", "ns an element"), rows)


def child(pass_name: str, rows: str, classes: str) -> int | None:
    """Peak growth of memory in one call of xent, measured in this child process, where no memory is used again."""
    os.environ["XENT_RECYCLE_BYTES"] = "0"
    return measure.peak_growth_bytes(with_xent(make_data((int(rows), int(classes)), pass_name), pass_name))


def memory(shape: Shape, pass_name: str) -> tuple[str, str, str, str]:
    """Peak extra memory of one call without the gradient: in MB, in bytes per row, and relative to the predictions."""
    extra = measure.run_child(__file__, pass_name, *shape)
    size = math.prod(shape) * (2 if pass_name == HALF else 4)
    if extra is None:
        return f"{shape}, {pass_name}", "", "", ""
    extra -= size if pass_name == GRADIENT else 0
    return f"{shape}, {pass_name}", f"{extra / 1e6:.1f}", f"{extra / shape[0]:.0f}", f"{extra / size:.3f}"


# -------------------- a training step


def training(quick: bool) -> tuple[list[Line], Rounds]:
    """Lines and seconds of a next-token model's training step without optimizer, for the losses of torch and xent."""
    import torch

    vocabulary, width, tokens = (100, 8, 16) if quick else (32_000, 64, 1024)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(vocabulary, width), torch.nn.Linear(width, vocabulary))
    inputs, next_tokens = torch.randint(0, vocabulary, (2, tokens))

    def step(loss: Callable[..., Any]) -> Any:
        model.zero_grad()
        value = loss(model(inputs), next_tokens)
        value.backward()
        return value

    def xent_loss(logits: Any, labels: Any, kernel: str) -> Any:
        with xent.using(kernel=kernel):
            return xent.sparse_cross_entropy(logits, labels, reduction="mean")

    losses = {
        OURS: functools.partial(xent_loss, kernel="numba"),
        WITHOUT: functools.partial(xent_loss, kernel="numpy"),
        TORCH: torch.nn.functional.cross_entropy,
        "the model alone, its logits summed": lambda logits, _: logits.sum(),
    }
    seconds = measure.interleave(
        {name: functools.partial(step, loss) for name, loss in losses.items()}, 3 if quick else 9
    )
    lines = [
        {"contender": name, "seconds": measure.quartiles(rounds), "times_xent": measure.ratio(rounds, seconds[OURS])}
        for name, rounds in seconds.items()
    ]
    return lines, seconds


# -------------------- the page


def plot(rounds: dict[tuple[Shape, str], Rounds], path: Path) -> None:
    """Draws bars of the ratio of each time to that of xent, by pass and shape."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), layout="constrained")
    panels = figure.subplots(2, 2, sharey=False)
    colours = dict(zip((*PEERS, WITHOUT), ("#c44e52", "#dd8452", "#4c72b0", "#937860", "#8c8c8c"), strict=True))
    for panel, pass_name in zip(panels.flat, PASSES, strict=True):
        shapes = [shape for shape, key in rounds if key == pass_name and shape in SHAPES]
        names = [name for name in colours if name in rounds[shapes[0], pass_name]]
        for index, name in enumerate(names):
            by_shape = [rounds[shape, pass_name] for shape in shapes]
            heights = [measure.ratio(seconds[name], seconds[OURS]).median for seconds in by_shape]
            offset = (index - len(names) / 2 + 0.5) * 0.8 / len(names)
            positions = [group + offset for group in range(len(shapes))]
            bars = panel.bar(positions, heights, 0.8 / len(names), color=colours[name], label=name)
            panel.bar_label(bars, fmt="%.1f", fontsize=6)
        panel.axhline(1, color="black", linewidth=1)
        panel.set_title(pass_name, fontsize=10)
        panel.set_xticks(range(len(shapes)), [f"{rows} × {classes}" for rows, classes in shapes], fontsize=8)
        panel.tick_params(axis="y", labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_ylabel("time / xent's")
    panels[1, 0].set_ylabel("time / xent's")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle("Time of others over that of xent with xent-numba, all cores (the line is xent)", fontsize=11)
    figure.savefig(path, dpi=110)


def main(quick: bool = False) -> str:
    """The page of results."""
    peers = ("numba", "llvmlite", "torch", "jax", "optax", "tensorflow-cpu")
    report = Report("numba", "xent-numba on NumPy arrays, all cores", peers)
    report.add(f"{measure.threads()} threads for every contender but those that say one.", measure.HOW)
    rounds: dict[tuple[Shape, str], Rounds] = {}
    pages = []
    for shape in [*(QUICK_SHAPES if quick else (*SHAPES, *MORE_SHAPES)), SMALL_SHAPE]:
        for pass_name in SMALL_PASSES if shape in (*MORE_SHAPES, SMALL_SHAPE) else PASSES:
            print(f"{shape}, {pass_name}", file=sys.stderr)
            lines, rounds[shape, pass_name] = compare(shape, pass_name, quick)
            pages += [f"## {shape}, {pass_name}", show(lines)]
            report.add(**{f"{shape[0]}x{shape[1]}, {pass_name}": {"lines": lines, "seconds": rounds[shape, pass_name]}})
    report.add("## Promises", measure.promise_table(promises(rounds)))
    times = growth(quick)
    report.add("## Growth", *show_growth(times), growth=times)
    shapes = [] if quick else SHAPES
    extra = [memory(shape, pass_name) for shape in shapes for pass_name in PASSES]
    columns = ("", "extra memory, MB", "bytes a row", "/ predictions")
    report.add("## Memory beside the arguments and the gradient", measure.table(columns, extra))
    lines, seconds = training(quick)
    report.add(
        "## A training step of Embedding(32000, 64) and Linear(64, 32000), 1024 tokens",
        show(lines),
        training={"lines": lines, "seconds": seconds},
    )
    report.add(*pages)
    if not quick:
        plot(rounds, measure.RESULTS / "numba.png")
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main, child, one_core=False)
