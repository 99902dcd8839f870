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

An exponential an element, or two, takes less than half of that time on an H200. The ceilings are measured in the same
run on 4 GiB: a copy within the GPU, a kernel that only reads, and memset. The scale of the gradient is one number.

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
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gpu
import measure
import numpy as np
from gpu import COPY, READ, WRITE, Contender, Samples
from measure import Report, Spread

from xent_cuda.plan import BYTES, LABEL, SOFT, Device, Launch, Shape, plan, variants

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # before JAX is loaded: it would take the memory of all

LOSS, BOTH, GRADIENT, STATISTICS = "loss", "loss_and_gradient", "gradient", "statistics"
WORDS = {LOSS: "loss", BOTH: "loss and gradient", GRADIENT: "gradient of given numbers", STATISTICS: "statistics"}
CEILING_OF = {LOSS: READ, STATISTICS: READ, BOTH: COPY, GRADIENT: COPY}
BYTES_OF_ROW = {LOSS: 12, BOTH: 12, GRADIENT: 20, STATISTICS: 44}

# Milliseconds on an H200, whose memory is taken to be read at 4.4 TB/s and copied at 4.3.
PREDICTED = {
    Shape(4096, 128256, "bfloat16"): {LOSS: 0.271, BOTH: 0.556},
    Shape(32768, 32000, "bfloat16"): {LOSS: 0.56, BOTH: 1.11},
    Shape(1_000_000, 1000, "float32"): {LOSS: 1.03, BOTH: 2.07},
    Shape(16_000_000, 10, "float32"): {LOSS: 0.25, BOTH: 0.456},
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
CHILDREN, CHILD_SECONDS = 8, 90
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
    "small one is still in the L2 cache. It waits for the GPU within a call, which its times hold. JAX is timed by the "
    "host's clock, launches included."
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
        """Says what went wrong, or was left out."""
        print(text, file=sys.stderr, flush=True)
        self.notes.append(text)

    def ceiling(self, name: str) -> float:
        """Bytes per second at best; NaN where it was not measured."""
        rates = [gpu.moved_bytes(one) / statistics.median(s) for one, s in self.ceilings.items() if one.startswith(name)]
        return max(rates, default=float("nan"))

    def lasts(self, variant: str, dtype: str) -> bool:
        """Whether a variant came back from the look at its numbers."""
        return not any(look["died"] for look in self.looks if (look["variant"], look["dtype"]) == (variant, dtype))


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
        targets = seen(targets.div_(targets.sum(1, keepdim=True)))
    return Inputs(x, y, seen(x), seen(y), seen(label_logit), targets)


def seen(tensor: Any) -> Any:
    """The memory of a tensor as CuPy sees it."""
    import cupy
    import torch

    if tensor.dtype is torch.bfloat16:
        return cupy.from_dlpack(tensor.view(torch.int16)).view(dtype_of("bfloat16"))
    return cupy.from_dlpack(tensor)


def dtype_of(name: str) -> np.dtype[Any]:
    """A dtype by its name, bfloat16 among them."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def sets(shape: Shape) -> list[Inputs]:
    """Two sets of arrays, or as many as the L2 cache cannot hold."""
    size = shape.rows * shape.classes * BYTES[shape.dtype]
    return [draw(shape) for _ in range(max(2, -(-FLUSH_BYTES // size)))]


def host(array: Any) -> Any:
    """An array of whatever library as one of NumPy's, in float64."""
    if type(array).__module__.startswith("torch"):
        return array.detach().double().cpu().numpy()
    if hasattr(array, "get"):  # CuPy's
        is_brain = array.dtype.name == "bfloat16"
        array = array.view(np.uint16).get().view(array.dtype) if is_brain else array.get()
    return np.asarray(array).astype(np.float64)


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

    return (kernels.Dense if shape.kind == SOFT else kernels.Sparse)(machine, variant)


def share_of(shape: Shape) -> Any:
    """The scale of every row of a mean: one number, broadcast."""
    import cupy

    return cupy.broadcast_to(cupy.full((1,), 1 / shape.rows, np.float32), (shape.rows,))


def ours(shape: Shape, found: Found, every_variant: bool = True) -> Iterator[Contender]:
    """The planned variant, under the name of xent alone, and the others that can serve."""
    from xent_cuda.machine import Gpu

    share, able = share_of(shape), variants(shape, found.device)
    for variant in able if every_variant else able[:1]:
        if found.lasts(variant, shape.dtype):
            name = OURS if variant == able[0] else f"{OURS}, {variant}"
            yield Contender(name, called(kernel_of(shape, Gpu(), variant), shape, share))
        else:
            found.note(f"{titled(shape)}, {worded(shape)}: the variant {variant} is not timed: it did not come back.")


def public(shape: Shape) -> Iterator[Contender]:
    """The functions that users call."""
    import xent

    function, name = xent.sparse_cross_entropy, "xent.sparse_cross_entropy"
    if shape.method == BOTH:
        function, name = functools.partial(xent.value_and_grad(function), reduction="mean"), "xent.value_and_grad"
    yield Contender(f"{name}, CuPy", lambda given: function(given.logits, given.labels))
    yield Contender(f"{name}, torch", lambda given: function(given.x, given.y))


def register() -> None:
    """Registers the kernels, where no installed distribution has."""
    import xent
    import xent_cuda.hooks

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
        return given._replace(x=given.x.clone().requires_grad_())

    return Contender(LIGER, loss_and_gradient, cloned) if shape.method == BOTH else Contender(LIGER, loss)


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
        given = Inputs(None, None, *(bring(one)[..., skip:] for one in plain[:1]), *map(bring, plain[1:]))
        given = given._replace(targets=given.targets[:, skip:])
        scale = np.linspace(0.5, 1.5, rows, dtype=plain[2].dtype)
        for kind, method in LOOKED_FOR:
            shape = Shape(rows, classes, dtype, kind, method, not skip or rows == 1)
            if variant not in variants(shape, machine.device(given.logits)):
                continue
            checks += 1
            kernel = kernel_of(shape, machine, variant)
            if method == GRADIENT:
                given = given._replace(partial=kernel.partial(given.logits, given.labels, 1.0, 0.0, threads=1))
            result = called(kernel, shape, bring(scale))(given)
            off = worst(result, reference(plain, skip, kind, scale), shape)
            if not off <= 1:
                wrong.append(f"{titled(shape)}, {worded(shape)}{', misaligned' * skip}: {off:.3g} of what is allowed")
    return {"variant": variant, "dtype": dtype, "checks": checks, "wrong": wrong, "died": ""}


def example(rows: int, classes: int, skip: int, dtype: str) -> tuple[Any, ...]:
    """Logits and targets, of which the first ``skip`` columns are not looked at, labels, and the logit of each."""
    rng = np.random.default_rng(rows)
    wide = np.float64 if dtype == "float64" else np.float32
    logits = (rng.standard_normal((rows, skip + classes)) * 3).astype(dtype_of(dtype))
    targets = rng.random((rows, skip + classes)).astype(wide)
    labels = rng.integers(0, classes, rows)
    return logits, labels, logits[np.arange(rows), skip + labels].astype(wide), targets


def reference(plain: tuple[Any, ...], skip: int, kind: int, scale: Any) -> dict[str, Any]:
    """What the methods should return, in float64."""
    x, t = (one[:, skip:].astype(np.float64) for one in (plain[0], plain[3]))
    label = plain[1][:, None]
    if kind != SOFT:
        t = np.zeros_like(x)
        np.put_along_axis(t, label, 1.0, axis=1)
    below = x.max(axis=1, keepdims=True) - x
    power = np.exp(-below)
    total, at_label = power.sum(axis=1, keepdims=True), np.take_along_axis(x, label, axis=1)
    before = (x > at_label) | ((x == at_label) & (np.arange(x.shape[1]) < label))
    return {
        "loss": (t * (below + np.log(total))).sum(axis=1),
        "slope": (t.sum(axis=1, keepdims=True) * power / total - t) * scale.astype(np.float64)[:, None],
        "label_rank": before.sum(axis=1),
        "sum_squares": (power**2).sum(axis=1),
        "spread": (below * power).sum(axis=1),
    }


def worst(result: Any, expected: dict[str, Any], shape: Shape) -> float:
    """The largest error of what a method returned, over what is allowed: some units of the last place of each dtype."""
    wide = EPSILON["float64" if shape.dtype == "float64" else "float32"]
    if shape.method == STATISTICS:
        names = ("label_rank", "sum_squares", "spread")
        pairs = [(getattr(result, name), expected[name], 16 * wide, 0.0) for name in names]
    else:
        parts = {LOSS: ("loss",), BOTH: ("loss", "slope"), GRADIENT: ("slope",)}[shape.method]
        allowed = {"loss": (16 * wide, 16 * wide), "slope": (2 * EPSILON[shape.dtype], 32 * wide)}
        results = result if shape.method == BOTH else (result,)
        pairs = [(one, expected[part], *allowed[part]) for one, part in zip(results, parts, strict=True)]
    return max(float(np.max(np.abs(host(one) - ref) / (rtol * np.abs(ref) + atol + 1e-300))) for one, ref, rtol, atol in pairs)
