r"""The kernels of xent-numba beside their peers and their floors, on every core.

The counting model, for N rows of C logits of b bytes:

| pass | bytes that must move | exponentials |
|---|---|---|
| loss | b N C read (and O(N)) | N C |
| loss and gradient | b N C read, b N C written | N C |
| loss of soft targets | (b + 4) N C read | N C |

Three floors are measured in the same run: the bare sum of exponentials (``floor.cpp``, one thread, beside xent on one
thread), the bare read of the logits on all cores, and ``numpy.copyto`` of the logits, which reads and writes them once
into memory that is there already: beside it the kernel writes its gradient into such memory too. Against the peers it
is the public call that is measured, and each allocates its gradient as it does.

Logits are normal with standard deviation 3, labels uniform, soft targets uniform and scaled to 1; losses are not
reduced, gradients are those of the mean. Every contender starts from arrays of its own library, on all cores.
"""

from __future__ import annotations

import contextvars
import ctypes
import functools
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import measure
import numpy as np
from measure import Call, Report, Rounds, Spread

import xent

SHAPES = [(65536, 1000), (2048, 32000), (256, 262144), (1_000_000, 10)]
SMALL_SHAPE = (8, 100)
QUICK_SHAPES = [(200, 100), (300, 10)]
LOSS, GRADIENT, HALF, SOFT = "loss", "loss and gradient", "float16 loss", "loss of soft targets"
PASSES = (LOSS, GRADIENT, HALF, SOFT)
SMALL_PASSES = (LOSS, GRADIENT)
OURS, ALONE, IN_PLACE, WITHOUT = "xent", "xent, one thread", "xent, gradient in place", "xent without the plugin"
COPY, EXPONENTIALS = "floor: numpy.copyto", "floor: sum of exponentials, one thread"
READ = "floor: bare read, all cores"
TORCH = "torch eager"
PEERS = (TORCH, "torch.compile", "JAX jit, optax", "TensorFlow")
FIT_ELEMENTS = (10**4, 10**5, 10**6, 10**7, 10**8, 10**9)
Shape = tuple[int, int]
Line = dict[str, Any]
# What is asked for, by pass and shape: xent over the floor at most, the best peer over xent at least.
FLOOR_AT_MOST = {(LOSS, EXPONENTIALS): 1.3, (GRADIENT, COPY): 1.6}
FASTER = {LOSS: (2.2, 1.8), GRADIENT: (4.5, 2.5), HALF: (3.5, 3.5), SOFT: (1.8, 1.5)}  # many classes, few


class Data(NamedTuple):
    """What a pass is about."""

    logits: np.ndarray
    told: np.ndarray  # labels, or soft targets


def data(shape: Shape, what: str) -> Data:
    rng = np.random.default_rng(shape[0])
    logits = rng.standard_normal(shape, dtype=np.float32)
    logits *= 3
    if what == HALF:
        logits = logits.astype(np.float16)
    if what != SOFT:
        return Data(logits, rng.integers(0, shape[1], shape[0]))
    targets = rng.random(shape, dtype=np.float32)
    targets /= targets.sum(axis=1, keepdims=True)
    return Data(logits, targets)


# -------------------- contenders


def ours(given: Data, what: str, **settings: Any) -> Call:
    function = xent.cross_entropy if what == SOFT else xent.sparse_cross_entropy
    if what == GRADIENT:
        function = xent.value_and_grad(functools.partial(function, reduction="mean"))

    context = contextvars.copy_context()  # entered once, and not at every call
    context.run(xent.using(**settings).__enter__)
    return lambda: context.run(function, *given)


def in_place(given: Data, what: str) -> Call:
    from xent_numba.kernels import sparse

    out, rows = np.zeros_like(given.logits), len(given.told)
    share = np.full(rows, 1 / rows, np.float32)
    threads = measure.threads()
    return lambda: sparse.loss_and_gradient(*given, 1.0, 0.0, share, threads=threads, out=out)


def with_torch(given: Data, what: str, compiled: bool = False) -> Call:
    import torch

    x, y = (torch.from_numpy(one) for one in given)
    cross_entropy: Any = torch.nn.functional.cross_entropy
    if compiled:
        torch.compiler.reset()  # subtle: it gives up on a function after eight shapes
        cross_entropy = torch.compile(cross_entropy, dynamic=False)
    if what != GRADIENT:
        return lambda: cross_entropy(x, y, reduction="none")
    x = x.clone().requires_grad_()

    def loss_and_gradient() -> Any:
        x.grad = None
        value = cross_entropy(x, y)
        value.backward()
        return value, x.grad

    return loss_and_gradient


def with_jax(given: Data, what: str) -> Call:
    import jax
    import optax

    x, y = (jax.numpy.asarray(one) for one in given)
    loss = optax.softmax_cross_entropy if what == SOFT else optax.softmax_cross_entropy_with_integer_labels
    function = jax.jit(jax.value_and_grad(lambda x, y: loss(x, y).mean()) if what == GRADIENT else loss)
    return lambda: jax.block_until_ready(function(x, y))


def with_tensorflow(given: Data, what: str) -> Call:
    import tensorflow as tf

    x, y = (tf.constant(one) for one in given)
    nn = tf.nn
    loss = nn.softmax_cross_entropy_with_logits if what == SOFT else nn.sparse_softmax_cross_entropy_with_logits
    if what != GRADIENT:
        return lambda: loss(labels=y, logits=x).numpy()

    def loss_and_gradient() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_mean(loss(labels=y, logits=x))
        return value.numpy(), tape.gradient(value, x).numpy()

    return loss_and_gradient


def copying(given: Data, what: str) -> Call:
    out = np.zeros_like(given.logits)
    return lambda: np.copyto(out, given.logits)


@functools.cache
def floor_program() -> Any:
    """``floor.cpp``, built for this machine."""
    built = Path(tempfile.mkdtemp()) / "floor.so"
    source = Path(__file__).with_name("floor.cpp")
    subprocess.run(["g++", "-O3", "-march=native", "-shared", "-fPIC", "-o", built, source], check=True)
    return ctypes.CDLL(str(built))


def exponentials(given: Data, what: str) -> Call:
    rows, classes = given.logits.shape
    out = np.empty(rows, np.float32)
    arguments = given.logits.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p)
    sizes = ctypes.c_int64(rows), ctypes.c_int64(classes)
    return lambda: floor_program().sum_exp(*arguments, *sizes)


def reading(given: Data, what: str) -> Call:
    logits, threads = given.logits, measure.threads()
    pool, found = ThreadPoolExecutor(threads), np.empty(threads, np.int32)
    share = logits.nbytes // threads

    def read(thread: int) -> None:
        start, out = logits.ctypes.data + thread * share, found.ctypes.data + 4 * thread
        floor_program().read(ctypes.c_void_p(start), ctypes.c_void_p(out), ctypes.c_int64(share))

    return lambda: list(pool.map(read, range(threads)))


class Contender(NamedTuple):
    """What is timed: ``setup(data, pass)`` makes the call, and needs the module."""

    name: str
    passes: tuple[str, ...]
    module: str
    setup: Callable[[Data, str], Call]


CONTENDERS = [
    Contender(OURS, PASSES, "xent_numba", ours),
    Contender(ALONE, (LOSS,), "xent_numba", functools.partial(ours, threads=1)),
    Contender(IN_PLACE, (GRADIENT,), "xent_numba", in_place),
    Contender(WITHOUT, PASSES, "xent", functools.partial(ours, kernel="numpy")),
    Contender(TORCH, PASSES, "torch", with_torch),
    Contender("torch.compile", PASSES, "torch", functools.partial(with_torch, compiled=True)),
    Contender("JAX jit, optax", PASSES, "optax", with_jax),
    Contender("TensorFlow", (LOSS, GRADIENT, SOFT), "tensorflow", with_tensorflow),
    Contender(COPY, (GRADIENT,), "numpy", copying),
    Contender(EXPONENTIALS, (LOSS,), "numpy", exponentials),
    Contender(READ, (LOSS, HALF), "numpy", reading),
]
SLOW_TO_START = ("torch.compile", "TensorFlow")
FLOORS = (COPY, EXPONENTIALS, READ)


def mean_loss(result: Any) -> float:
    """The mean loss in what a contender returns."""
    value = result[0] if isinstance(result, tuple | list) else result
    return float(np.mean(np.asarray(value.detach() if hasattr(value, "detach") else value), dtype=np.float64))


def compare(shape: Shape, what: str, quick: bool) -> tuple[list[Line], Rounds]:
    """One line for each contender at one shape, and the seconds of each round."""
    given, calls = data(shape, what), {}
    for one in CONTENDERS:
        if what in one.passes and measure.is_installed(one.module) and not (quick and one.name in SLOW_TO_START):
            calls[one.name] = one.setup(given, what)
    expected = mean_loss(calls[OURS]())
    for name, call in calls.items():
        if name not in FLOORS and not abs(mean_loss(call()) - expected) <= 1e-2 * abs(expected):
            raise AssertionError(f"{name} computes another loss than xent at {shape}, {what}")
    seconds = measure.interleave(calls, 3 if quick else 9, 1e-4 if quick else measure.SAMPLE_SECONDS)
    lines = [
        {
            "contender": name,
            "seconds": measure.spread(rounds),
            "times_xent": measure.ratio(rounds, seconds[OURS]),
        }
        for name, rounds in seconds.items()
    ]
    return lines, seconds


def best_peer(seconds: Rounds) -> str:
    """The peer with the shortest median."""
    return min((name for name in PEERS if name in seconds), key=lambda name: measure.spread(seconds[name]).median)


def promises(rounds: dict[tuple[Shape, str], Rounds]) -> Iterator[tuple[str, str, Spread, bool]]:
    """What is asked for beside what was found."""
    for (shape, what), seconds in rounds.items():
        if shape == SMALL_SHAPE:
            found = measure.ratio(seconds[OURS], seconds[WITHOUT])
            yield f"xent / {WITHOUT}, {what}, {shape}", "≤ 1", found, found.median <= 1
            continue
        few = shape[1] <= 64
        for (on, floor), most in FLOOR_AT_MOST.items():
            if on == what and floor in seconds:
                name = ALONE if floor == EXPONENTIALS else IN_PLACE
                found = measure.ratio(seconds[name], seconds[floor])
                asked = "reported" if few else f"≤ {most}"
                yield f"{name} / {floor}, {what}, {shape}", asked, found, few or found.median <= most
        peer = TORCH if what == HALF else best_peer(seconds)
        found, least = measure.ratio(seconds[peer], seconds[OURS]), FASTER[what][few]
        yield f"{peer} / xent, {what}, {shape}", f"≥ {least}", found, found.median >= least
        if IN_PLACE in seconds:
            found = measure.ratio(seconds[peer], seconds[IN_PLACE])
            yield f"{peer} / {IN_PLACE}, {shape}", f"≥ {least}", found, found.median >= least
        if READ in seconds:
            yield f"xent / {READ}, {what}, {shape}", "reported", measure.ratio(seconds[OURS], seconds[READ]), True


def show(lines: list[Line]) -> str:
    """The lines as a table."""
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
    return [(size, measure.spread(seconds[str(size)]).median) for size in sizes]


def show_growth(found: list[tuple[int, float]]) -> tuple[str, str]:
    """A straight line through the seconds, by least squares of relative errors, in words; and the table beside it."""
    sizes, seconds = np.asarray(found).T
    weighted = np.stack([np.ones_like(sizes), sizes], axis=1) / seconds[:, None]
    (start, rate), *_ = np.linalg.lstsq(weighted, np.ones_like(sizes), rcond=None)
    line = start + rate * sizes
    misfit = float(np.exp(np.max(np.abs(np.log(seconds / line)))))
    rows = [
        (f"{size:.0e}", measure.plain(took * 1e3), measure.plain(fit * 1e3), f"{took / size * 1e9:.3f}")
        for size, took, fit in zip(sizes, seconds, line, strict=True)
    ]
    text = (
        f"A loss at 1000 classes takes {start * 1e6:.0f} µs and {rate * 1e9:.3f} ns an element; no size is further "
        f"from that line than a factor {misfit:.2f}. The smallest run on one thread."
    )
    return text, measure.table(("elements", "time, ms", "line, ms", "ns an element"), rows)


def child(what: str, rows: str, classes: str) -> int | None:
    """Bytes above those before one call of ours, in a process of its own."""
    return measure.peak_above(ours(data((int(rows), int(classes)), what), what))


def memory(shape: Shape, what: str) -> tuple[str, str, str, str]:
    """Peak extra memory of one call, the gradient apart, in MB, in bytes a row, and over that of the predictions."""
    extra = measure.in_a_process(__file__, what, *shape)
    size = math.prod(shape) * (2 if what == HALF else 4)
    if extra is None:
        return f"{shape}, {what}", "", "", ""
    extra -= size if what == GRADIENT else 0
    return f"{shape}, {what}", f"{extra / 1e6:.1f}", f"{extra / shape[0]:.0f}", f"{extra / size:.3f}"


# -------------------- a training step


def training(quick: bool) -> tuple[list[Line], Rounds]:
    """A step of a model of the next token, but for the optimizer, with torch's loss and with xent's in its place."""
    import torch

    vocabulary, width, tokens = (100, 8, 16) if quick else (32_000, 64, 1024)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(vocabulary, width), torch.nn.Linear(width, vocabulary))
    given, following = torch.randint(0, vocabulary, (2, tokens))

    def step(loss: Callable[..., Any]) -> Any:
        model.zero_grad()
        value = loss(model(given), following)
        value.backward()
        return value

    def xents(logits: Any, labels: Any, kernel: str) -> Any:
        with xent.using(kernel=kernel):
            return xent.sparse_cross_entropy(logits, labels, reduction="mean")

    losses = {
        OURS: functools.partial(xents, kernel="numba"),
        WITHOUT: functools.partial(xents, kernel="numpy"),
        TORCH: torch.nn.functional.cross_entropy,
        "the model alone, its logits summed": lambda logits, _: logits.sum(),
    }
    seconds = measure.interleave(
        {name: functools.partial(step, loss) for name, loss in losses.items()}, 3 if quick else 9
    )
    lines = [
        {"contender": name, "seconds": measure.spread(rounds), "times_xent": measure.ratio(rounds, seconds[OURS])}
        for name, rounds in seconds.items()
    ]
    return lines, seconds


# -------------------- the page


def plot(rounds: dict[tuple[Shape, str], Rounds], path: Path) -> None:
    """Bars of time over xent's, by pass and shape; lower than the line is faster than xent."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), layout="constrained")
    panels = figure.subplots(2, 2, sharey=False)
    colours = dict(zip((*PEERS, WITHOUT), ("#c44e52", "#dd8452", "#4c72b0", "#937860", "#8c8c8c"), strict=True))
    for panel, what in zip(panels.flat, PASSES, strict=True):
        shapes = [shape for shape, passed in rounds if passed == what and shape != SMALL_SHAPE]
        names = [name for name in colours if name in rounds[shapes[0], what]]
        for index, name in enumerate(names):
            found = [rounds[shape, what] for shape in shapes]
            heights = [measure.ratio(seconds[name], seconds[OURS]).median for seconds in found]
            at = [place + (index - len(names) / 2 + 0.5) * 0.8 / len(names) for place in range(len(shapes))]
            bars = panel.bar(at, heights, 0.8 / len(names), color=colours[name], label=name)
            panel.bar_label(bars, fmt="%.1f", fontsize=6)
        panel.axhline(1, color="black", linewidth=1)
        panel.set_title(what, fontsize=10)
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
    for shape in [*(QUICK_SHAPES if quick else SHAPES), SMALL_SHAPE]:
        for what in SMALL_PASSES if shape == SMALL_SHAPE else PASSES:
            print(f"{shape}, {what}", file=sys.stderr)
            lines, rounds[shape, what] = compare(shape, what, quick)
            pages += [f"## {shape}, {what}", show(lines)]
            report.add(**{f"{shape[0]}x{shape[1]}, {what}": {"lines": lines, "seconds": rounds[shape, what]}})
    report.add("## Promises", measure.targets(promises(rounds)))
    found = growth(quick)
    report.add("## Growth", *show_growth(found), growth=found)
    shapes = [] if quick else SHAPES
    extra = [memory(shape, what) for shape in shapes for what in PASSES]
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
