r"""The kernels of xent-cuda beside their peers and the ceilings of the GPU's memory.

The counting model, for N rows of C logits of b bytes, labels in int64, soft targets and the rows' numbers in float32:

| pass | bytes that must move | ceiling |
|---|---|---|
| loss | b N C read, 12 N | read |
| loss and gradient | b N C read, b N C written, 12 N | copy |
| gradient of given numbers | b N C read, b N C written, 20 N | copy |
| statistics | b N C read, 44 N | read |
| loss of soft targets | (b + 4) N C read, 4 N | read |
| loss and gradient of soft targets | (b + 4) N C read, b N C written, 4 N | copy |

Exponentials, one an element and two with the gradient, 16 a clock on each of 132 multiprocessors, take about half of
the time that the bytes take for bfloat16, and a quarter for float32. The ceilings are measured in the same run, on
4 GiB: a copy within the GPU, a kernel that only reads, and memset. The scale of the gradient is one number.

``PREDICTED`` was written before any of it ran on a GPU, so that it can be wrong: ``--predict`` prints it beside the
plans it was made from, and measures nothing. Logits are normal with standard deviation 3, labels uniform, soft targets
uniform and scaled to 1; losses are of each row, gradients are those of the mean. torch makes the arrays; CuPy and JAX
see the same memory, JAX with labels in int32.

Run it with xent and xent_cuda on ``PYTHONPATH``. It ends with exit code 4 where there is no GPU.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gpu
import measure
import numpy as np
from gpu import COPY, READ, Contender, Samples
from measure import Report, Spread
from xent_cuda.plan import BYTES, LABEL, SOFT, Device, Launch, Shape, plan, variants

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # before JAX is loaded: it would take the memory of all

LOSS, BOTH, GRADIENT, STATISTICS = "loss", "loss_and_gradient", "gradient", "statistics"
WORDS = {LOSS: "loss", BOTH: "loss and gradient", GRADIENT: "gradient of given numbers", STATISTICS: "statistics"}
CEILING_OF = {LOSS: READ, STATISTICS: READ, BOTH: COPY, GRADIENT: COPY}
BYTES_OF_ROW = {LOSS: 12, BOTH: 12, GRADIENT: 20, STATISTICS: 44}

# Milliseconds on an H200, whose memory is taken to be read at 4.4 TB/s and copied at 4.3.
PREDICTED = {
    Shape(4096, 128256, "bfloat16"): {LOSS: 0.265, BOTH: 0.550},
    Shape(32768, 32000, "bfloat16"): {LOSS: 0.53, BOTH: 1.08},
    Shape(1_000_000, 1000, "float32"): {LOSS: 1.01, BOTH: 2.05},
    Shape(16_000_000, 10, "float32"): {LOSS: 0.25, BOTH: 0.45},
    Shape(8, 128256, "bfloat16"): {LOSS: 0.012, BOTH: 0.016},
    Shape(16384, 4096, "float32"): {LOSS: 0.070, BOTH: 0.138},
}
SUPPOSED = {READ: 4.4e12, COPY: 4.3e12}
SHAPES = (*PREDICTED,)
SOFT_SHAPES = tuple(shape._replace(kind=SOFT) for shape in SHAPES[1:3])
SMALL = Shape(64, 1000, "float32")
# What is asked for: of the ceiling at least, by shape; and times as fast as a peer, in loss and gradient.
SHARES = {
    SHAPES[0]: {LOSS: 0.90, BOTH: 0.88},
    SHAPES[1]: {LOSS: 0.90, BOTH: 0.90},
    SHAPES[2]: {LOSS: 0.90, BOTH: 0.90},
    SHAPES[3]: {LOSS: 0.80, BOTH: 0.80},
}
OURS, EAGER, COMPILED, LIGER, JAX, EXPRESSIONS = (
    "xent",
    "torch eager",
    "torch.compile",
    "Liger",
    "JAX jit, host's clock",
    "CuPy expressions",
)
FASTER = {EAGER: 3.0, COMPILED: 1.5, LIGER: 1.2}
PREDICTED_RATIOS = {EAGER: (3.0, 4.0), COMPILED: (1.5, 2.0), LIGER: (1.2, 1.7)}

FLUSH_BYTES = 512 << 20
"""Logits of all input sets together, at least: several times the L2 cache."""
SMALL_CALLS, SMALL_ROUNDS = 200, 9
LOOKED_AT = ((5, 1), (300, 10), (37, 1000), (64, 4099), (8, 50257), (3, 128256))
LOOKED_FOR = ((LABEL, LOSS), (LABEL, BOTH), (LABEL, GRADIENT), (LABEL, STATISTICS), (SOFT, LOSS), (SOFT, BOTH))
EPSILON = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 2**-23, "float64": 2**-52}
VARIANTS = ("tile", "lanes", "warp", "block", "cluster", "split")
CHILDREN, CHILD_SECONDS = 12, 90
DISTRIBUTIONS = ("cupy-cuda13x", "cupy-cuda12x", "torch", "triton", "liger-kernel", "jax", "jaxlib", "ml-dtypes")
NO_GPU = 4
HOW = (
    f"Times: median (and quartiles) of {gpu.ROUNDS} interleaved rounds of {gpu.REPEATS} calls, between two events of "
    f"CUDA, calls of more than {gpu.SAMPLE_SECONDS / gpu.REPEATS * 1e3:.0f} ms fewer times. Ratios: those of each "
    "round's own medians. TB/s and shares are of the bytes that must move, whatever a contender moves; the share of a "
    "loss is of the read ceiling, that of a loss and gradient of the copy ceiling."
)
ASIDE = (
    "Liger writes its gradient over the logits: each call gets a clone that is made before the clock starts, and a "
    "small one is still in the L2 cache. It waits for the GPU within a call, and its times include that. JAX is timed "
    "by the host's clock, launches included."
)


class Inputs(NamedTuple):
    """One set of arrays: torch's, and the same memory as CuPy sees it."""

    x: Any
    y: Any
    logits: Any  # (rows, classes)
    labels: Any  # (rows,) int64
    label_logit: Any  # (rows,)
    targets: Any = None  # (rows, classes), soft
    partial: Any = None  # the fold's numbers, where a gradient alone is asked for


class Timing(NamedTuple):
    """The seconds of every contender of one pass at one shape."""

    shape: Shape  # its method is the pass
    planned: str  # the variant behind "xent"
    is_of_peers: bool
    seconds: dict[str, Samples]

    @property
    def title(self) -> str:
        return f"{titled(self.shape)}, {worded(self.shape)}"


@dataclass
class Found:
    """Everything that was measured so far, as plain data."""

    gpu: dict[str, Any] = field(default_factory=dict)
    device: Device = field(default_factory=Device)
    ceilings: dict[str, list[float]] = field(default_factory=dict)
    looks: list[dict[str, Any]] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    small: dict[str, list[float]] = field(default_factory=dict)
    instances: list[tuple[str, int, int, int]] = field(default_factory=list)  # name, threads, registers, local bytes
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Says what went wrong, or was left out; once."""
        if text not in self.notes:
            print(text, file=sys.stderr, flush=True)
            self.notes.append(text)

    def ceiling(self, name: str) -> float:
        """Bytes per second at best; NaN where it was not measured."""
        rates = [
            gpu.moved_bytes(one) / statistics.median(s) for one, s in self.ceilings.items() if one.startswith(name)
        ]
        return max(rates, default=float("nan"))

    def breaks(self, variant: str, dtype: str) -> bool:
        """Whether a variant took the GPU with it when its numbers were looked at; then it is not launched again."""
        died = (look["died"] for look in self.looks if (look["variant"], look["dtype"]) == (variant, dtype))
        return any(re.search(r"^nothing|^exit code|CUDA_ERROR|cudaError", text) for text in died)


def titled(shape: Shape) -> str:
    return f"{shape.rows}x{shape.classes} {shape.dtype}"


def worded(shape: Shape) -> str:
    return WORDS[shape.method] + (" of soft targets" if shape.kind == SOFT else "")


def least_bytes(shape: Shape) -> int:
    """The bytes that a pass must move."""
    elements, is_soft = shape.rows * shape.classes, shape.kind == SOFT
    of_element = BYTES[shape.dtype] * (2 if CEILING_OF[shape.method] == COPY else 1) + (4 if is_soft else 0)
    return elements * of_element + shape.rows * (4 if is_soft else BYTES_OF_ROW[shape.method])


# -------------------- arrays


def draw(shape: Shape) -> Inputs:
    """Random arrays on the GPU."""
    import torch

    x = torch.randn(shape.rows, shape.classes, device="cuda").mul_(3).to(getattr(torch, shape.dtype))
    y = torch.randint(0, shape.classes, (shape.rows,), device="cuda")
    label_logit = x.gather(1, y[:, None])[:, 0].to(torch.float32)
    targets = None
    if shape.kind == SOFT:
        targets = torch.rand(shape.rows, shape.classes, device="cuda")
        targets = gpu.seen(targets.div_(targets.sum(1, keepdim=True)))
    return Inputs(x, y, gpu.seen(x), gpu.seen(y), gpu.seen(label_logit), targets)


def sets(shape: Shape) -> list[Inputs]:
    """Two sets of arrays, or as many as the L2 cache cannot hold."""
    size = shape.rows * shape.classes * BYTES[shape.dtype]
    return [draw(shape) for _ in range(max(2, -(-FLUSH_BYTES // size)))]


# -------------------- ours


def called(kernel: Any, shape: Shape, scale: Any) -> Callable[[Inputs], Any]:
    """A call of a kernel's method."""

    def told(given: Inputs) -> tuple[Any, ...]:
        return (given.targets,) if shape.kind == SOFT else (given.labels, 1.0, 0.0)

    calls: dict[str, Callable[[Inputs], Any]] = {
        LOSS: lambda given: kernel.loss(given.logits, *told(given), threads=1),
        BOTH: lambda given: kernel.loss_and_gradient(given.logits, *told(given), scale, threads=1),
        GRADIENT: lambda given: kernel.gradient(given.logits, *told(given), given.partial, scale, threads=1),
        STATISTICS: lambda given: kernel.statistics(given.logits, given.labels, given.label_logit, threads=1),
    }
    return calls[shape.method]


def kernel_of(shape: Shape, machine: Any, variant: str = "") -> Any:
    """The kernel for the targets at hand, by the best variant or by the one that is named."""
    from xent_cuda import kernels

    return (kernels.CudaDense if shape.kind == SOFT else kernels.CudaSparse)(machine, variant)


def share_of(shape: Shape) -> Any:
    """The scale of every row of a mean: one number, broadcast."""
    import cupy

    return cupy.broadcast_to(cupy.full((1,), 1 / shape.rows, np.float32), (shape.rows,))


def ours(shape: Shape, found: Found, every_variant: bool = True) -> Iterator[Contender]:
    """The planned variant, under the name of xent alone, and the others that can serve."""
    from xent_cuda.device import Gpu

    share, able = share_of(shape), variants(shape, found.device)
    for variant in able if every_variant else able[:1]:
        if found.breaks(variant, shape.dtype):
            found.note(f"{titled(shape)}, {worded(shape)}: {variant} is not timed, for it broke before.")
        else:
            name = OURS if variant == able[0] else f"{OURS}, {variant}"
            yield Contender(name, called(kernel_of(shape, Gpu(), variant), shape, share))


def public(shape: Shape, given: Inputs, found: Found) -> Iterator[Contender]:
    """The functions that users call, on CuPy's arrays and on torch's."""
    import xent

    function, name = xent.sparse_cross_entropy, "xent.sparse_cross_entropy"
    if shape.method == BOTH:
        function, name = functools.partial(xent.value_and_grad(function), reduction="mean"), "xent.value_and_grad"
    calls: dict[str, Callable[[Inputs], Any]] = {
        f"{name}, CuPy": lambda given: function(given.logits, given.labels),
        f"{name}, torch": lambda given: function(given.x, given.y),
    }
    for name, told in zip(calls, ((given.logits, given.labels), (given.x, given.y)), strict=True):
        chosen = xent.explain(xent.sparse_cross_entropy, *told)
        if chosen.kernel != "cuda":
            judged = (chosen.inner or chosen).verdicts
            reasons = [reason for one in judged if one.kernel == "cuda" for reason in one.reasons]
            found.note(f"{name} is served by {chosen.kernel}, not cuda: {'; '.join(reasons) or 'not registered'}")
    return itertools.starmap(Contender, calls.items())


def register() -> None:
    """Registers the kernels, where no installed distribution has."""
    import xent_cuda.hooks

    import xent

    if not any("cuda (sparse)" in one.kernels for one in xent.plugins()):
        xent.register(xent_cuda.hooks, "xent-cuda")


# -------------------- peers


def with_torch(shape: Shape, compiled: bool = False) -> Contender:
    import torch

    cross_entropy: Any = torch.nn.functional.cross_entropy
    if compiled:
        torch.compiler.reset()  # subtle: it gives up on a function after eight shapes
        cross_entropy = torch.compile(cross_entropy, dynamic=False)

    def loss_and_gradient(given: Inputs) -> Any:
        x = given.x.detach().requires_grad_()
        value = cross_entropy(x, given.y)
        value.backward()
        return value, x.grad

    def loss(given: Inputs) -> Any:
        return cross_entropy(given.x, given.y, reduction="none")

    return Contender(COMPILED if compiled else EAGER, loss_and_gradient if shape.method == BOTH else loss)


def with_liger(shape: Shape) -> Contender:
    from liger_kernel.ops.cross_entropy import LigerCrossEntropyFunction as Liger

    def loss(given: Inputs, reduction: str = "none") -> Any:
        return Liger.apply(given.x, given.y, None, -100, 0.0, 0.0, reduction, None, False)[0]

    def loss_and_gradient(given: Inputs) -> Any:
        value = loss(given, "mean")
        value.backward()
        return value, given.x.grad

    def cloned(given: Inputs) -> Inputs:
        return given._replace(x=given.x.clone().requires_grad_(shape.method == BOTH))

    return Contender(LIGER, loss_and_gradient if shape.method == BOTH else loss, cloned)


def with_jax(shape: Shape) -> Contender:
    import jax
    from jax import numpy as jnp

    def loss(x: Any, y: Any) -> Any:
        x = x.astype(jnp.float32)
        return jax.nn.logsumexp(x, axis=1) - jnp.take_along_axis(x, y[:, None], axis=1)[:, 0]

    function = jax.jit(jax.value_and_grad(lambda x, y: loss(x, y).mean()) if shape.method == BOTH else loss)
    return Contender(
        JAX,
        lambda given: jax.block_until_ready(function(*given)),
        lambda given: tuple(jax.dlpack.from_dlpack(one) for one in (given.x, given.y.int())),
        on_host=True,
    )


def with_cupy(shape: Shape) -> Contender:
    import cupy

    every = cupy.arange(shape.rows)

    def expressions(given: Inputs) -> Any:
        x = given.logits.astype(np.float32, copy=False)
        top = x.max(axis=1, keepdims=True)
        power = cupy.exp(x - top)
        total = power.sum(axis=1, keepdims=True)
        loss = (cupy.log(total) + top)[:, 0] - x[every, given.labels]
        if shape.method == LOSS:
            return loss
        power /= total
        power[every, given.labels] -= 1
        power /= shape.rows
        return loss, power.astype(given.logits.dtype, copy=False)

    return Contender(EXPRESSIONS, expressions)


PEERS: dict[str, Callable[[Shape], Contender]] = {
    EAGER: with_torch,
    COMPILED: functools.partial(with_torch, compiled=True),
    LIGER: with_liger,
    JAX: with_jax,
    EXPRESSIONS: with_cupy,
}


# -------------------- a look at the numbers


def look(machine: Any, variant: str, dtype: str, bring: Callable[[Any], Any] = np.asarray) -> dict[str, Any]:
    """A variant beside float64, on small arrays that ``bring`` puts where the machine is; what was wrong, in words."""
    wrong, checks = [], 0
    for (rows, classes), skip in itertools.product(LOOKED_AT, (0, 1)):
        plain = example(rows, classes, skip, dtype)
        given = without(Inputs(*(None if one is None else bring(one) for one in plain)), skip)
        plain, scale = without(plain, skip), np.linspace(0.5, 1.5, rows, dtype=plain.label_logit.dtype)
        for kind, method in LOOKED_FOR:
            shape = Shape(rows, classes, dtype, kind, method, not skip or rows == 1)
            if variant not in variants(shape, machine.properties(given.logits)):
                continue
            checks += 1
            kernel = kernel_of(shape, machine, variant)
            if method == GRADIENT:
                given = given._replace(partial=kernel.partial(given.logits, given.labels, 1.0, 0.0, threads=1))
            result = called(kernel, shape, bring(scale))(given)
            off = worst(result, reference(plain, kind, scale), shape)
            if not off <= 1:
                wrong.append(f"{titled(shape)}, {worded(shape)}{', misaligned' * skip}: {off:.3g} of what is allowed")
    return {"variant": variant, "dtype": dtype, "checks": checks, "wrong": wrong, "died": ""}


def example(rows: int, classes: int, skip: int, dtype: str) -> Inputs:
    """Arrays of NumPy; logits and soft targets (rows, skip + classes), of which the first columns are to be cut off."""
    rng = np.random.default_rng(rows)
    wide = np.float64 if dtype == "float64" else np.float32
    logits = (rng.standard_normal((rows, skip + classes)) * 3).astype(gpu.dtype_of(dtype))
    labels, targets = rng.integers(0, classes, rows), rng.random((rows, skip + classes)).astype(wide)
    return Inputs(None, None, logits, labels, logits[np.arange(rows), skip + labels].astype(wide), targets)


def without(given: Inputs, skip: int) -> Inputs:
    """The arrays without their first columns: rows that begin at any address."""
    return given._replace(logits=given.logits[:, skip:], targets=given.targets[:, skip:])


def reference(plain: Inputs, kind: int, scale: Any) -> dict[str, Any]:
    """What the methods should return, or what follows from that, in float64."""
    from xent.testing import reference as of

    x, labels = plain.logits.astype(np.float64), plain.labels
    t = plain.targets if kind == SOFT else of.sparse_targets(np, labels, x.shape[1])
    return {
        "loss": of.cross_entropy(np, x, t),
        "slope": of.gradient(np, x, t) * scale.astype(np.float64)[:, None],
        "rank": of.label_rank(np, x, labels),
        "sum_p_squared": of.sum_p_squared(np, x),
        "entropy": of.entropy(np, x),
    }


def worst(result: Any, expected: dict[str, Any], shape: Shape) -> float:
    """The largest error of what a method returned, over what is allowed: some units of the last place of each dtype."""
    wide = EPSILON["float64" if shape.dtype == "float64" else "float32"]
    allowed = dict.fromkeys(expected, (16 * wide, 16 * wide))
    allowed |= {"slope": (2 * EPSILON[shape.dtype], 32 * wide), "rank": (0.0, 0.5)}
    if shape.method == STATISTICS:
        rest, squares, spread = (gpu.host(one) for one in (result.partial.sum_exp_rest, *result[2:]))
        entropy = np.log1p(rest) + spread / (1 + rest)
        found = {"rank": gpu.host(result.label_rank), "sum_p_squared": squares / (1 + rest) ** 2, "entropy": entropy}
    elif shape.method == BOTH:
        found = {"loss": gpu.host(result[0]), "slope": gpu.host(result[1])}
    else:
        found = {"loss" if shape.method == LOSS else "slope": gpu.host(result)}
    errors = {name: np.abs(one - expected[name]) for name, one in found.items()}
    return max(
        float(np.max(error / (allowed[name][0] * np.abs(expected[name]) + allowed[name][1])))
        for name, error in errors.items()
    )


def child(variant: str, dtype: str) -> dict[str, Any]:
    """The look at a variant on the GPU, where every array that a kernel is to fill holds NaN before."""
    from xent_cuda.device import Gpu

    class Poisoned(Gpu):
        def empty(self, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
            array = super().empty(shape, dtype, like)
            array.data.memset_async(0xFF, array.nbytes)
            return array

    return look(Poisoned(), variant, dtype, gpu.bring)


def look_in_a_process(task: tuple[str, str]) -> dict[str, Any]:
    """The look of a child: a kernel that breaks takes the GPU from its own process alone."""
    variant, dtype = task
    command = [sys.executable, __file__, "--child", *task]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_SECONDS, check=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found
    except subprocess.TimeoutExpired:
        died = f"nothing within {CHILD_SECONDS} seconds"
    except subprocess.CalledProcessError as error:
        print(error.stderr[-2000:], file=sys.stderr)
        died = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
    return {"variant": variant, "dtype": dtype, "checks": 0, "wrong": [], "died": died}


# -------------------- sections


class Section(NamedTuple):
    """A part of the run, and about how long it takes."""

    name: str
    seconds: float
    run: Callable[[Found], None]


def sections() -> list[Section]:
    """What is measured, in order."""
    return [
        Section("ceilings", 10, measure_ceilings),
        Section("correctness", 45, look_at_all),
        *(Section(f"{titled(shape)}, xent", 15, functools.partial(time_ours, shape)) for shape in SHAPES),
        *(Section(f"{titled(shape)}, soft targets", 15, functools.partial(time_soft, shape)) for shape in SOFT_SHAPES),
        *(Section(f"{titled(shape)}, peers", 40, functools.partial(time_peers, shape)) for shape in SHAPES),
        Section("a small call", 10, time_small),
        Section("instances", 5, read_instances),
    ]


def measure_ceilings(found: Found) -> None:
    found.ceilings = gpu.ceilings(found.device.multiprocessors)


def look_at_all(found: Found) -> None:
    """Every variant in every dtype, side by side: most of the time is the compiler's."""
    with ThreadPoolExecutor(CHILDREN) as pool:
        found.looks = list(pool.map(look_in_a_process, itertools.product(VARIANTS, EPSILON)))
    for one in found.looks:
        if one["died"]:
            found.note(f"{one['variant']}, {one['dtype']}: died: {one['died']}")
        for text in one["wrong"]:
            found.note(f"{one['variant']}: wrong numbers: {text}")


def time_ours(shape: Shape, found: Found) -> None:
    arrays = sets(shape)
    for method in (LOSS, BOTH, GRADIENT, STATISTICS):
        of, is_public = shape._replace(method=method), method in (LOSS, BOTH)
        contenders = [*ours(of, found, every_variant=is_public)]
        if is_public and any(one.name == OURS for one in contenders):
            contenders += public(of, arrays[0], found)
        if method == GRADIENT:
            arrays = [one._replace(partial=partial_of(of, one)) for one in arrays]
        time_pass(of, contenders, arrays, found)


def partial_of(shape: Shape, given: Inputs) -> Any:
    from xent_cuda.device import Gpu

    return kernel_of(shape, Gpu()).partial(given.logits, given.labels, 1.0, 0.0, threads=1)


def time_soft(shape: Shape, found: Found) -> None:
    arrays = sets(shape)
    for method in (LOSS, BOTH):
        time_pass(of := shape._replace(method=method), [*ours(of, found, every_variant=False)], arrays, found)


def time_peers(shape: Shape, found: Found) -> None:
    arrays = sets(shape)
    for method in (LOSS, BOTH):
        of = shape._replace(method=method)
        contenders = [*ours(of, found, every_variant=False)]
        for name, setup in PEERS.items():
            try:
                contenders.append(setup(of))
            except Exception as error:  # whatever a library raises that is not there
                found.note(f"{name} is not measured: {type(error).__name__}: {error}")
        time_pass(of, contenders, arrays, found, is_of_peers=True)


def time_pass(
    shape: Shape, contenders: list[Contender], arrays: list[Inputs], found: Found, is_of_peers: bool = False
) -> None:
    """Times those that compute the same numbers."""
    if good := believed(contenders, arrays[0], found, f"{titled(shape)}, {worded(shape)}"):
        planned = variants(shape, found.device)[0]
        found.timings.append(Timing(shape, planned, is_of_peers, gpu.interleave(good, arrays)))


def believed(contenders: list[Contender], given: Inputs, found: Found, where: str) -> list[Contender]:
    """The contenders that run, and compute what the first does."""
    expected, good = None, []
    for one in contenders:
        try:
            result = outcome(one.call(one.prepare(given)))
        except Exception as error:  # whatever a library raises
            found.note(f"{where}: {one.name}: {type(error).__name__}: {str(error)[:300]}")
            continue
        expected = result if expected is None else expected
        if all(np.abs(a - b).max() <= 2e-2 * np.abs(b).max() for a, b in zip(result, expected, strict=True)):
            good.append(one)
        else:
            found.note(f"{where}: {one.name} is not timed: it computes other numbers than {contenders[0].name}.")
    return good


def outcome(result: Any) -> list[Any]:
    """What two results are compared by: the mean loss, and the gradient of the last row."""
    if hasattr(result, "sum_squares"):
        return [np.atleast_1d(gpu.host(result.sum_squares.mean()))]
    parts = result if isinstance(result, tuple | list) else (result,)
    return [gpu.host(one[-1]) if one.ndim == 2 else np.atleast_1d(gpu.host(one.mean())) for one in parts]


def time_small(found: Found) -> None:
    """Host and GPU together: a batch of calls one after the other, then a wait."""
    given = draw(SMALL)
    calls: dict[str, measure.Call] = {}
    for method in (LOSS, BOTH):
        of = SMALL._replace(method=method)
        contenders = [*ours(of, found, every_variant=False), *public(of, given, found), with_torch(of)]
        for one in believed(contenders, given, found, f"{titled(of)}, {worded(of)}"):
            calls[f"{one.name}, {worded(of)}"] = functools.partial(batch, one.call, given)
    seconds = measure.interleave(calls, SMALL_ROUNDS, sample_seconds=0)
    found.small = {name: [one / SMALL_CALLS for one in rounds] for name, rounds in seconds.items()}


def batch(call: Callable[[Inputs], object], given: Inputs) -> None:
    for _ in range(SMALL_CALLS):
        call(given)
    gpu.synchronize()


def read_instances(found: Found) -> None:
    """What the compiler made of every kernel that was timed."""
    from xent_cuda import device

    for launch in launches_of(found):
        kernel = device.compiled(launch.kernel, 0, launch.shared_bytes > device.DEFAULT_SHARED_BYTES)
        found.instances.append((launch.kernel, launch.threads, kernel.num_regs, kernel.local_size_bytes))


def launches_of(found: Found) -> list[Launch]:
    """One launch of each instance."""
    known: dict[str, Launch] = {}
    for timing in found.timings:
        for name in timing.seconds:
            variant = timing.planned if name == OURS else name.removeprefix(f"{OURS}, ")
            if variant in VARIANTS:
                known |= {one.kernel: one for one in plan(timing.shape, found.device, variant).launches}
    return [known[name] for name in sorted(known)]


# -------------------- the page


def spread_of(samples: Samples) -> Spread:
    return measure.spread(itertools.chain(*samples))


def ratio(timing: Timing, above: str, below: str = OURS) -> Spread:
    """How many times longer the one takes, round by round."""
    rounds = ([statistics.median(one) for one in timing.seconds[name]] for name in (above, below))
    return measure.ratio(*rounds)


def share(timing: Timing, found: Found, name: str = OURS) -> Spread:
    """The rate at which the bytes that must move are moved, over the ceiling."""
    low, median, high = spread_of(timing.seconds[name])
    best = least_bytes(timing.shape) / found.ceiling(CEILING_OF[timing.shape.method])
    return Spread(best / high, best / median, best / low)


def timing_of(found: Found, shape: Shape, method: str, is_of_peers: bool) -> Timing | None:
    """The timing that has ours at a shape and pass, if it was measured."""
    key = (shape._replace(method=method), is_of_peers)
    every = (one for one in found.timings if (one.shape, one.is_of_peers) == key and OURS in one.seconds)
    return next(every, None)


def targets(found: Found) -> Iterator[tuple[str, str, Spread, bool]]:
    """What is asked for beside what was found."""
    for shape, asked in SHARES.items():
        for method, least in asked.items():
            timing = timing_of(found, shape, method, is_of_peers=False)
            if timing and found.ceilings:
                reached = share(timing, found)
                what = f"share of the {CEILING_OF[method]} ceiling, {timing.title}"
                yield what, f"≥ {least}", reached, reached.median >= least
    for shape, (peer, least) in itertools.product(SHAPES, FASTER.items()):
        timing = timing_of(found, shape, BOTH, is_of_peers=True)
        if timing and peer in timing.seconds:
            times = ratio(timing, peer)
            promise = f"≥ {least}" if shape in SHARES else "reported"
            yield f"{peer} / xent, {timing.title}", promise, times, shape not in SHARES or times.median >= least


def predictions(found: Found) -> Iterator[tuple[str, ...]]:
    """What was predicted beside what was found, and how far it was off."""
    for shape, method in itertools.product(SHAPES, (LOSS, BOTH)):
        timing = timing_of(found, shape, method, is_of_peers=False)
        if timing:
            predicted, took = PREDICTED[shape][method], spread_of(timing.seconds[OURS])
            off = f"{took.median * 1e3 / predicted - 1:+.0%}"
            yield f"xent, {timing.title}, ms", f"{predicted}", took.show(1e-3), off
    for shape, (peer, (low, high)) in itertools.product(SHAPES, PREDICTED_RATIOS.items()):
        timing = timing_of(found, shape, BOTH, is_of_peers=True)
        if timing and peer in timing.seconds:
            times = ratio(timing, peer)
            nearest = min(max(times.median, low), high)
            off = "within" if nearest == times.median else f"{times.median / nearest - 1:+.0%}"
            yield f"{peer} / xent, {timing.title}", f"{low} to {high}", times.show(), off


def choices(found: Found) -> Iterator[tuple[str, ...]]:
    """The planned variant beside the quickest."""
    for timing in found.timings:
        medians = {name: spread_of(samples).median for name, samples in timing.seconds.items()}
        mine = {name: one for name, one in medians.items() if name.removeprefix(f"{OURS}, ") in (OURS, *VARIANTS)}
        if OURS in mine and len(mine) > 1:
            best = min(mine, key=mine.__getitem__)
            quickest = timing.planned if best == OURS else best.removeprefix(f"{OURS}, ")
            yield timing.title, timing.planned, quickest, measure.plain(mine[OURS] / mine[best])


def show_ceilings(found: Found) -> str:
    rows = []
    for name, seconds in found.ceilings.items():
        took, size = measure.spread(seconds), gpu.moved_bytes(name)
        rows.append((name, f"{size / 1e9:.2f}", took.show(1e-3), measure.plain(size / took.median / 1e12)))
    return measure.table(("4 GiB", "GB moved", "ms", "TB/s"), rows)


def show_looks(found: Found) -> str:
    rows = []
    for variant, dtype in itertools.product(VARIANTS, EPSILON):
        for one in (look for look in found.looks if (look["variant"], look["dtype"]) == (variant, dtype)):
            rows.append((f"{variant}, {dtype}", one["checks"], "died" if one["died"] else len(one["wrong"])))
    return measure.table(("variant and dtype", "results looked at", "wrong"), rows)


def show_timing(timing: Timing, found: Found) -> list[str]:
    """A heading, a sentence and a table."""
    shape, size = timing.shape, least_bytes(timing.shape)
    ceiling, has_ceiling = CEILING_OF[shape.method], bool(found.ceilings)
    rows = []
    for name, samples in timing.seconds.items():
        took = spread_of(samples)
        reached = f"{share(timing, found, name).median:.1%}" if has_ceiling else ""
        over = ratio(timing, name).show() if OURS in timing.seconds else ""
        calls = sum(map(len, samples))
        rows.append((name, calls, took.show(1e-3), measure.plain(size / took.median / 1e12), reached, over))
    text = f"`{timing.planned}` is planned; {size / 1e9:.3g} GB must move."
    if has_ceiling:
        text += f" That takes {size / found.ceiling(ceiling) * 1e3:.3g} ms at the {ceiling} ceiling."
    if predicted := PREDICTED.get(shape._replace(method=LOSS), {}).get(shape.method):
        text += f" Predicted: {predicted} ms."
    heading = f"## {timing.title}{', beside peers' * timing.is_of_peers}"
    return [heading, text, measure.table(("", "calls", "ms", "TB/s", f"of {ceiling}", "time / xent's"), rows)]


def summary(found: Found) -> list[str]:
    """What was asked, what was predicted, which variant was the quickest, and what is missing."""
    columns = ("shape and pass", "planned", "quickest", "time of the planned / quickest")
    return [
        "## Ceilings",
        show_ceilings(found),
        "## Variants",
        measure.table(columns, choices(found)),
        "## Predictions",
        measure.table(("", "predicted", "measured", "off by"), predictions(found)),
        "## Promises",
        measure.targets(targets(found)),
        "## Left out, or gone wrong",
        "\n".join(f"- {note}" for note in found.notes) or "Nothing.",
    ]


def report(found: Found) -> Report:
    """The page of what was found so far, and the numbers behind it."""
    made = Report("cuda", f"xent-cuda on one {found.gpu['gpu']}", DISTRIBUTIONS)
    made.add(gpu.describe(found.gpu), HOW, ASIDE, *summary(found), "## Correctness", show_looks(found))
    for timing in found.timings:
        made.add(*show_timing(timing, found))
    micro = [(name, measure.spread(seconds).show(1e-6)) for name, seconds in found.small.items()]
    made.add(f"## A small call: {titled(SMALL)}, host and GPU", measure.table(("", "µs a call"), micro))
    made.add("## Instances", measure.table(("", "threads", "registers", "local bytes"), found.instances))
    timings = [one._asdict() | {"shape": one.shape._asdict()} for one in found.timings]
    made.add(gpu=found.gpu, ceilings=found.ceilings, looks=found.looks, timings=timings, small=found.small)
    made.add(instances=found.instances, notes=found.notes)
    return made


def write(found: Found) -> None:
    """Keeps the page and its numbers under ``results/``, and in the folder ``$OUT`` if there is one."""
    report(found).write(quick=False)
    if folder := os.environ.get("OUT"):
        for ending in ("md", "json"):
            shutil.copy(measure.RESULTS / f"cuda.{ending}", folder)


# -------------------- the command


def predicted_page() -> str:
    """The plans for an H200, and how long they should take."""
    columns = ("shape and pass", "variant", "launches", "others", "GB", "floor, ms", "predicted, ms", "share")
    rows = (predicted_row(shape._replace(method=method)) for shape in SHAPES for method in (LOSS, BOTH))
    ratios = ((name, f"{low} to {high}") for name, (low, high) in PREDICTED_RATIOS.items())
    parts = (
        "# What the kernels of xent-cuda should take on an H200",
        f"Nothing here is measured. Plans for {Device()}. Floors: the bytes that must move, read at "
        f"{SUPPOSED[READ] / 1e12} TB/s in a loss, copied at {SUPPOSED[COPY] / 1e12} TB/s in a loss and gradient.",
        measure.table(columns, rows),
        "Loss and gradient of peers:",
        measure.table(("", "time / xent's"), ratios),
    )
    return "\n\n".join(parts)


def predicted_row(shape: Shape) -> tuple[str, ...]:
    """The plan for one pass, its floor, and the prediction."""
    variant, *others = variants(shape, Device())
    launches = "; ".join(map(show_launch, plan(shape, Device()).launches))
    size, predicted = least_bytes(shape), PREDICTED[shape._replace(method=LOSS)][shape.method]
    floor = size / SUPPOSED[CEILING_OF[shape.method]] * 1e3
    numbers = (f"{size / 1e9:.3g}", f"{floor:.3g}", f"{predicted}", f"{floor / predicted:.2f}")
    return f"{titled(shape)}, {worded(shape)}", variant, launches, ", ".join(others), *numbers


def show_launch(launch: Launch) -> str:
    """A launch: the instance, blocks, threads, and its shared memory."""
    return f"`{launch.kernel}` {launch.blocks} x {launch.threads}, {launch.shared_bytes / 1024:.1f} KiB"


def run_all(found: Found, todo: list[Section], seconds: float, started: float) -> None:
    """Runs the sections that the time suffices for, and writes the page after each."""
    for section in todo:
        spent = time.perf_counter() - started
        if seconds - spent < section.seconds:
            found.note(
                f"{section.name}: skipped: it takes about {section.seconds} s, {seconds - spent:.0f} s are left."
            )
            continue
        print(f"{spent:5.0f} s  {section.name}", file=sys.stderr, flush=True)
        try:
            section.run(found)
        except Exception as error:  # the others go on
            traceback.print_exc()
            found.note(f"{section.name}: stopped by {type(error).__name__}: {str(error)[:300]}")
        write(found)
        try:
            gpu.synchronize()
            gpu.free()
        except Exception as error:  # a kernel that broke takes the GPU from the whole process
            found.note(f"The GPU does not answer any more after {section.name}, nothing follows it: {error}")
            break
    write(found)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures the kernels of xent-cuda on the GPU of this machine.")
    parser.add_argument("--seconds", type=float, default=540, help="sections that do not fit in it are skipped")
    parser.add_argument("--predict", action="store_true", help="prints the plans and the predictions; measures nothing")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if not told.seconds > 0:
        parser.error(f"--seconds must be positive, got {told.seconds}")
    return told


def main() -> int:
    """The exit code: 1 where something went wrong or was left out, 4 where there is no GPU."""
    told, started = arguments(), time.perf_counter()
    if told.predict:
        print(predicted_page())
        return 0
    if reason := gpu.why_not(needs_torch=not told.child):
        print(f"bench_cuda: {reason}: run it on a machine with a GPU, or with --predict.", file=sys.stderr)
        return NO_GPU
    if told.child:
        print(json.dumps(child(*told.child)))
        return 0
    from xent_cuda import device

    found = Found(gpu=gpu.facts(), device=device.properties(0))
    register()
    run_all(found, sections(), told.seconds, started)
    print(*summary(found), sep="\n\n")
    return 1 if found.notes else 0


if __name__ == "__main__":
    sys.exit(main())
