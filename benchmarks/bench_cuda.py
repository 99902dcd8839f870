r"""The kernels of xent-cuda, compared with their peers and with the ceilings of the GPU's memory bandwidth.

The counting model, for N rows of C logits of b bytes, labels in int64, soft targets and the results of rows in float32:

| pass | bytes that must move | ceiling |
|---|---|---|
| loss | b N C read, 12 N | read |
| loss and gradient | b N C read, b N C written, 12 N | copy |
| gradient of given numbers | b N C read, b N C written, 20 N | copy |
| statistics | b N C read, 44 N | read |
| loss of soft targets | (b + 4) N C read, 4 N | read |
| loss and gradient of soft targets | (b + 4) N C read, b N C written, 4 N | copy |

The exponentials are one per element, two with the gradient. At 16 per clock on each of 132 multiprocessors they take
about half of the time that the bytes take for bfloat16, and a quarter for float32. The ceilings are measured in the
same run, on 4 GiB: a copy within the GPU, a kernel that only reads, and memset. The gradient scale is one number.

``PREDICTED`` was written before the kernels ran on a GPU, so that it can be wrong. ``--predict`` prints the predictions
with the plans they were made from, and measures nothing. Logits are normal with standard deviation 3, labels uniform,
soft targets uniform and scaled to sum to 1. Losses are not reduced, gradients are those of the mean. torch makes the
arrays; CuPy and JAX share their memory, except that JAX gets its labels in int32.

Run it with xent and xent_cuda on ``PYTHONPATH``. The exit code is 4 if there is no GPU.
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
from measure import Quartiles, Report
from xent_cuda.plan import BYTES, LABEL, SOFT, Device, Launch, Shape, plan, variants

# Before JAX is loaded, which would reserve most of the memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

LOSS, BOTH, GRADIENT, STATISTICS = "loss", "loss_and_gradient", "gradient", "statistics"
PASS_NAMES = {LOSS: "loss", BOTH: "loss and gradient", GRADIENT: "gradient of given numbers", STATISTICS: "statistics"}
CEILING_OF = {LOSS: READ, STATISTICS: READ, BOTH: COPY, GRADIENT: COPY}
BYTES_OF_ROW = {LOSS: 12, BOTH: 12, GRADIENT: 20, STATISTICS: 44}

# Milliseconds on an H200; the assumed bandwidth is 4.4 TB/s for reads and 4.3 TB/s for copies.
PREDICTED = {
    Shape(4096, 128256, "bfloat16"): {LOSS: 0.265, BOTH: 0.550},
    Shape(32768, 32000, "bfloat16"): {LOSS: 0.53, BOTH: 1.08},
    Shape(1_000_000, 1000, "float32"): {LOSS: 1.01, BOTH: 2.05},
    Shape(16_000_000, 10, "float32"): {LOSS: 0.25, BOTH: 0.45},
    Shape(8, 128256, "bfloat16"): {LOSS: 0.012, BOTH: 0.016},
    Shape(16384, 4096, "float32"): {LOSS: 0.070, BOTH: 0.138},
}
ASSUMED_BANDWIDTH = {READ: 4.4e12, COPY: 4.3e12}
SHAPES = (*PREDICTED,)
SOFT_SHAPES = tuple(shape._replace(kind=SOFT) for shape in SHAPES[1:3])
SMALL = Shape(64, 1000, "float32")
# Promises: the least fraction of the ceiling, by shape and pass; the least speedup over a peer, in loss and gradient.
MIN_FRACTION = {
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
MIN_SPEEDUP = {EAGER: 3.0, COMPILED: 1.5, LIGER: 1.2}
PREDICTED_RATIOS = {EAGER: (3.0, 4.0), COMPILED: (1.5, 2.0), LIGER: (1.2, 1.7)}

FLUSH_BYTES = 512 << 20
"""The least total size of the logits of all input sets: several times the L2 cache."""
SMALL_CALLS, SMALL_ROUNDS = 200, 9
CHECKED_SHAPES = ((5, 1), (300, 10), (37, 1000), (64, 4099), (8, 50257), (3, 128256))
CHECKED_PASSES = ((LABEL, LOSS), (LABEL, BOTH), (LABEL, GRADIENT), (LABEL, STATISTICS), (SOFT, LOSS), (SOFT, BOTH))
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
CAVEATS = (
    "Liger writes its gradient over the logits: each call gets a clone that is made before the clock starts, and a "
    "small one is still in the L2 cache. It waits for the GPU within a call, and its times include that. JAX is timed "
    "by the host's clock, launches included."
)


class Inputs(NamedTuple):
    """One set of arrays: torch's logits and labels, and CuPy arrays, the first two on the same memory."""

    x: Any  # (rows, classes), torch
    y: Any  # (rows,) int64, torch
    logits: Any  # (rows, classes), the memory of x
    labels: Any  # (rows,) int64, the memory of y
    label_logit: Any  # (rows,)
    targets: Any = None  # (rows, classes), soft
    partial: Any = None  # the xent.Partial from which a gradient alone is computed


class Timing(NamedTuple):
    """The seconds of every contender for one pass at one shape."""

    shape: Shape  # its method is the pass
    planned: str  # the variant that the plan chooses, timed as "xent"
    is_of_peers: bool
    seconds: dict[str, Samples]

    @property
    def title(self) -> str:
        return f"{shape_name(self.shape)}, {pass_name(self.shape)}"


@dataclass
class Measurements:
    """All measurements so far, as plain data."""

    gpu: dict[str, Any] = field(default_factory=dict)
    device: Device = field(default_factory=Device)
    ceilings: dict[str, list[float]] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)  # the results of check_variant
    timings: list[Timing] = field(default_factory=list)
    small: dict[str, list[float]] = field(default_factory=dict)
    instances: list[tuple[str, int, int, int]] = field(default_factory=list)  # name, threads, registers, local bytes
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Prints and keeps a note of a failure or an omission; a repeated note is ignored."""
        if text not in self.notes:
            print(text, file=sys.stderr, flush=True)
            self.notes.append(text)

    def ceiling(self, name: str) -> float:
        """The highest bandwidth in bytes per second; NaN if it was not measured."""
        rates = [
            gpu.moved_bytes(call) / statistics.median(seconds)
            for call, seconds in self.ceilings.items()
            if call.startswith(name)
        ]
        return max(rates, default=float("nan"))

    def has_crashed(self, variant: str, dtype: str) -> bool:
        """Whether a variant crashed in its correctness check; such a variant is not launched again."""
        errors = (check["died"] for check in self.checks if (check["variant"], check["dtype"]) == (variant, dtype))
        return any(re.search(r"^nothing|^exit code|CUDA_ERROR|cudaError", text) for text in errors)


def shape_name(shape: Shape) -> str:
    return f"{shape.rows}x{shape.classes} {shape.dtype}"


def pass_name(shape: Shape) -> str:
    return PASS_NAMES[shape.method] + (" of soft targets" if shape.kind == SOFT else "")


def least_bytes(shape: Shape) -> int:
    """The bytes that a pass must move."""
    elements, is_soft = shape.rows * shape.classes, shape.kind == SOFT
    bytes_per_element = BYTES[shape.dtype] * (2 if CEILING_OF[shape.method] == COPY else 1) + (4 if is_soft else 0)
    return elements * bytes_per_element + shape.rows * (4 if is_soft else BYTES_OF_ROW[shape.method])


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
        targets = gpu.as_cupy(targets.div_(targets.sum(1, keepdim=True)))
    return Inputs(x, y, gpu.as_cupy(x), gpu.as_cupy(y), gpu.as_cupy(label_logit), targets)


def draw_sets(shape: Shape) -> list[Inputs]:
    """At least two sets of arrays, whose logits together have ``FLUSH_BYTES``."""
    size = shape.rows * shape.classes * BYTES[shape.dtype]
    return [draw(shape) for _ in range(max(2, -(-FLUSH_BYTES // size)))]


# -------------------- contenders of xent


def method_call(kernel: Any, shape: Shape, scale: Any) -> Callable[[Inputs], Any]:
    """A function that calls the kernel's method for the pass."""

    def targets(inputs: Inputs) -> tuple[Any, ...]:
        return (inputs.targets,) if shape.kind == SOFT else (inputs.labels, 1.0, 0.0)

    calls: dict[str, Callable[[Inputs], Any]] = {
        LOSS: lambda inputs: kernel.loss(inputs.logits, *targets(inputs), threads=1),
        BOTH: lambda inputs: kernel.loss_and_gradient(inputs.logits, *targets(inputs), scale, threads=1),
        GRADIENT: lambda inputs: kernel.gradient(inputs.logits, *targets(inputs), inputs.partial, scale, threads=1),
        STATISTICS: lambda inputs: kernel.statistics(inputs.logits, inputs.labels, inputs.label_logit, threads=1),
    }
    return calls[shape.method]


def kernel_of(shape: Shape, machine: Any, variant: str = "") -> Any:
    """The kernel for the shape's kind of targets, with the named variant or, by default, the planned one."""
    from xent_cuda import kernels

    return (kernels.CudaDense if shape.kind == SOFT else kernels.CudaSparse)(machine, variant)


def mean_scale(shape: Shape) -> Any:
    """The gradient scale of a mean: one number, broadcast to the rows."""
    import cupy

    return cupy.broadcast_to(cupy.full((1,), 1 / shape.rows, np.float32), (shape.rows,))


def xent_contenders(shape: Shape, measured: Measurements, every_variant: bool = True) -> Iterator[Contender]:
    """The planned variant, named "xent", and the other variants that support the shape."""
    from xent_cuda.device import Gpu

    scale, supported = mean_scale(shape), variants(shape, measured.device)
    for variant in supported if every_variant else supported[:1]:
        if measured.has_crashed(variant, shape.dtype):
            measured.note(
                f"{shape_name(shape)}, {pass_name(shape)}: {variant} is not timed, because it crashed before."
            )
        else:
            name = OURS if variant == supported[0] else f"{OURS}, {variant}"
            yield Contender(name, method_call(kernel_of(shape, Gpu(), variant), shape, scale))


def public_contenders(shape: Shape, inputs: Inputs, measured: Measurements) -> Iterator[Contender]:
    """The public functions, on CuPy arrays and on torch tensors."""
    import xent

    function, name = xent.sparse_cross_entropy, "xent.sparse_cross_entropy"
    if shape.method == BOTH:
        function, name = functools.partial(xent.value_and_grad(function), reduction="mean"), "xent.value_and_grad"
    calls: dict[str, Callable[[Inputs], Any]] = {
        f"{name}, CuPy": lambda inputs: function(inputs.logits, inputs.labels),
        f"{name}, torch": lambda inputs: function(inputs.x, inputs.y),
    }
    for name, arguments in zip(calls, ((inputs.logits, inputs.labels), (inputs.x, inputs.y)), strict=True):
        decision = xent.explain(xent.sparse_cross_entropy, *arguments)
        if decision.kernel != "cuda":
            verdicts = (decision.inner or decision).verdicts
            reasons = [reason for verdict in verdicts if verdict.kernel == "cuda" for reason in verdict.reasons]
            measured.note(f"{name} is served by {decision.kernel}, not cuda: {'; '.join(reasons) or 'not registered'}")
    return itertools.starmap(Contender, calls.items())


def register() -> None:
    """Registers the kernels unless an installed distribution has registered them."""
    import xent_cuda.hooks

    import xent

    if not any("cuda (sparse)" in plugin.kernels for plugin in xent.plugins()):
        xent.register(xent_cuda.hooks, "xent-cuda")


# -------------------- peers


def with_torch(shape: Shape, compiled: bool = False) -> Contender:
    import torch

    cross_entropy: Any = torch.nn.functional.cross_entropy
    if compiled:
        torch.compiler.reset()  # subtle: torch.compile stops compiling a function after eight shapes
        cross_entropy = torch.compile(cross_entropy, dynamic=False)

    def loss_and_gradient(inputs: Inputs) -> Any:
        x = inputs.x.detach().requires_grad_()
        value = cross_entropy(x, inputs.y)
        value.backward()
        return value, x.grad

    def loss(inputs: Inputs) -> Any:
        return cross_entropy(inputs.x, inputs.y, reduction="none")

    return Contender(COMPILED if compiled else EAGER, loss_and_gradient if shape.method == BOTH else loss)


def with_liger(shape: Shape) -> Contender:
    from liger_kernel.ops.cross_entropy import LigerCrossEntropyFunction as Liger

    def loss(inputs: Inputs, reduction: str = "none") -> Any:
        return Liger.apply(inputs.x, inputs.y, None, -100, 0.0, 0.0, reduction, None, False)[0]

    def loss_and_gradient(inputs: Inputs) -> Any:
        value = loss(inputs, "mean")
        value.backward()
        return value, inputs.x.grad

    def clone_logits(inputs: Inputs) -> Inputs:
        return inputs._replace(x=inputs.x.clone().requires_grad_(shape.method == BOTH))

    return Contender(LIGER, loss_and_gradient if shape.method == BOTH else loss, clone_logits)


def with_jax(shape: Shape) -> Contender:
    import jax
    from jax import numpy as jnp

    def loss(x: Any, y: Any) -> Any:
        x = x.astype(jnp.float32)
        return jax.nn.logsumexp(x, axis=1) - jnp.take_along_axis(x, y[:, None], axis=1)[:, 0]

    function = jax.jit(jax.value_and_grad(lambda x, y: loss(x, y).mean()) if shape.method == BOTH else loss)
    return Contender(
        JAX,
        lambda inputs: jax.block_until_ready(function(*inputs)),
        lambda inputs: tuple(jax.dlpack.from_dlpack(tensor) for tensor in (inputs.x, inputs.y.int())),
        on_host=True,
    )


def with_cupy(shape: Shape) -> Contender:
    import cupy

    row_index = cupy.arange(shape.rows)

    def expressions(inputs: Inputs) -> Any:
        x = inputs.logits.astype(np.float32, copy=False)
        highest = x.max(axis=1, keepdims=True)
        exps = cupy.exp(x - highest)
        total = exps.sum(axis=1, keepdims=True)
        loss = (cupy.log(total) + highest)[:, 0] - x[row_index, inputs.labels]
        if shape.method == LOSS:
            return loss
        gradient = exps
        gradient /= total
        gradient[row_index, inputs.labels] -= 1
        gradient /= shape.rows
        return loss, gradient.astype(inputs.logits.dtype, copy=False)

    return Contender(EXPRESSIONS, expressions)


PEERS: dict[str, Callable[[Shape], Contender]] = {
    EAGER: with_torch,
    COMPILED: functools.partial(with_torch, compiled=True),
    LIGER: with_liger,
    JAX: with_jax,
    EXPRESSIONS: with_cupy,
}


# -------------------- correctness


def check_variant(
    machine: Any, variant: str, dtype: str, to_device: Callable[[Any], Any] = np.asarray
) -> dict[str, Any]:
    """The number of checks of a variant against float64 on small arrays, and the errors as text."""
    wrong, checks = [], 0
    for (rows, classes), skip in itertools.product(CHECKED_SHAPES, (0, 1)):
        on_host = example(rows, classes, skip, dtype)
        inputs = drop_columns(Inputs(*(None if array is None else to_device(array) for array in on_host)), skip)
        on_host, scale = drop_columns(on_host, skip), np.linspace(0.5, 1.5, rows, dtype=on_host.label_logit.dtype)
        for kind, method in CHECKED_PASSES:
            shape = Shape(rows, classes, dtype, kind, method, not skip or rows == 1)
            if variant not in variants(shape, machine.properties(inputs.logits)):
                continue
            checks += 1
            kernel = kernel_of(shape, machine, variant)
            if method == GRADIENT:
                inputs = inputs._replace(partial=kernel.partial(inputs.logits, inputs.labels, 1.0, 0.0, threads=1))
            result = method_call(kernel, shape, to_device(scale))(inputs)
            error = largest_error(result, reference(on_host, kind, scale), shape)
            if not error <= 1:
                wrong.append(
                    f"{shape_name(shape)}, {pass_name(shape)}{', misaligned' * skip}: {error:.3g} of what is allowed"
                )
    return {"variant": variant, "dtype": dtype, "checks": checks, "wrong": wrong, "died": ""}


def example(rows: int, classes: int, skip: int, dtype: str) -> Inputs:
    """NumPy arrays; logits and soft targets have ``skip`` more columns, which ``drop_columns`` removes."""
    rng = np.random.default_rng(rows)
    wide = np.float64 if dtype == "float64" else np.float32
    logits = (rng.standard_normal((rows, skip + classes)) * 3).astype(gpu.dtype_of(dtype))
    labels, targets = rng.integers(0, classes, rows), rng.random((rows, skip + classes)).astype(wide)
    return Inputs(None, None, logits, labels, logits[np.arange(rows), skip + labels].astype(wide), targets)


def drop_columns(inputs: Inputs, skip: int) -> Inputs:
    """The arrays without their first columns, so that rows are not aligned."""
    return inputs._replace(logits=inputs.logits[:, skip:], targets=inputs.targets[:, skip:])


def reference(inputs: Inputs, kind: int, scale: Any) -> dict[str, Any]:
    """The expected results of the methods, or numbers derived from them, in float64."""
    from xent.testing import reference as formulas

    x, labels = inputs.logits.astype(np.float64), inputs.labels
    t = inputs.targets if kind == SOFT else formulas.sparse_targets(np, labels, x.shape[1])
    return {
        "loss": formulas.cross_entropy(np, x, t),
        "slope": formulas.gradient(np, x, t) * scale.astype(np.float64)[:, None],
        "rank": formulas.label_rank(np, x, labels),
        "sum_p_squared": formulas.sum_p_squared(np, x),
        "entropy": formulas.entropy(np, x),
    }


def largest_error(result: Any, expected: dict[str, Any], shape: Shape) -> float:
    """The largest ratio of error to allowed error, which is a few units in the last place of each dtype."""
    wide = EPSILON["float64" if shape.dtype == "float64" else "float32"]
    allowed = dict.fromkeys(expected, (16 * wide, 16 * wide))
    allowed |= {"slope": (2 * EPSILON[shape.dtype], 32 * wide), "rank": (0.0, 0.5)}
    if shape.method == STATISTICS:
        rest, squares, spread = (gpu.to_numpy(array) for array in (result.partial.sum_exp_rest, *result[2:]))
        entropy = np.log1p(rest) + spread / (1 + rest)
        values = {
            "rank": gpu.to_numpy(result.label_rank),
            "sum_p_squared": squares / (1 + rest) ** 2,
            "entropy": entropy,
        }
    elif shape.method == BOTH:
        values = {"loss": gpu.to_numpy(result[0]), "slope": gpu.to_numpy(result[1])}
    else:
        values = {"loss" if shape.method == LOSS else "slope": gpu.to_numpy(result)}
    errors = {name: np.abs(value - expected[name]) for name, value in values.items()}
    return max(
        float(np.max(error / (allowed[name][0] * np.abs(expected[name]) + allowed[name][1])))
        for name, error in errors.items()
    )


def child(variant: str, dtype: str) -> dict[str, Any]:
    """The check of a variant on the GPU; every array that a kernel must fill holds NaN before the call."""
    from xent_cuda.device import Gpu

    class Poisoned(Gpu):
        def empty(self, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
            array = super().empty(shape, dtype, like)
            array.data.memset_async(0xFF, array.nbytes)
            return array

    return check_variant(Poisoned(), variant, dtype, gpu.to_gpu)


def check_in_process(task: tuple[str, str]) -> dict[str, Any]:
    """The check of a variant in a child process: after a crash its process cannot use the GPU."""
    variant, dtype = task
    command = [sys.executable, __file__, "--child", *task]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_SECONDS, check=True)
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result
    except subprocess.TimeoutExpired:
        message = f"nothing within {CHILD_SECONDS} seconds"
    except subprocess.CalledProcessError as error:
        print(error.stderr[-2000:], file=sys.stderr)
        message = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
    return {"variant": variant, "dtype": dtype, "checks": 0, "wrong": [], "died": message}


# -------------------- sections


class Section(NamedTuple):
    """A part of the run, with an estimate of its duration."""

    name: str
    seconds: float
    run: Callable[[Measurements], None]


def sections() -> list[Section]:
    """The sections, in the order in which they run."""
    return [
        Section("ceilings", 10, measure_ceilings),
        Section("correctness", 45, check_all),
        *(Section(f"{shape_name(shape)}, xent", 15, functools.partial(time_ours, shape)) for shape in SHAPES),
        *(
            Section(f"{shape_name(shape)}, soft targets", 15, functools.partial(time_soft, shape))
            for shape in SOFT_SHAPES
        ),
        *(Section(f"{shape_name(shape)}, peers", 40, functools.partial(time_peers, shape)) for shape in SHAPES),
        Section("a small call", 10, time_small),
        Section("instances", 5, read_instances),
    ]


def measure_ceilings(measured: Measurements) -> None:
    measured.ceilings = gpu.ceilings(measured.device.multiprocessors)


def check_all(measured: Measurements) -> None:
    """Checks every variant in every dtype, in parallel processes because compilation takes most of the time."""
    with ThreadPoolExecutor(CHILDREN) as pool:
        measured.checks = list(pool.map(check_in_process, itertools.product(VARIANTS, EPSILON)))
    for check in measured.checks:
        if check["died"]:
            measured.note(f"{check['variant']}, {check['dtype']}: died: {check['died']}")
        for text in check["wrong"]:
            measured.note(f"{check['variant']}: wrong numbers: {text}")


def time_ours(shape: Shape, measured: Measurements) -> None:
    arrays = draw_sets(shape)
    for method in (LOSS, BOTH, GRADIENT, STATISTICS):
        case, is_public = shape._replace(method=method), method in (LOSS, BOTH)
        contenders = [*xent_contenders(case, measured, every_variant=is_public)]
        if is_public and any(contender.name == OURS for contender in contenders):
            contenders += public_contenders(case, arrays[0], measured)
        if method == GRADIENT:
            arrays = [inputs._replace(partial=partial_of(case, inputs)) for inputs in arrays]
        time_pass(case, contenders, arrays, measured)


def partial_of(shape: Shape, inputs: Inputs) -> Any:
    from xent_cuda.device import Gpu

    return kernel_of(shape, Gpu()).partial(inputs.logits, inputs.labels, 1.0, 0.0, threads=1)


def time_soft(shape: Shape, measured: Measurements) -> None:
    arrays = draw_sets(shape)
    for method in (LOSS, BOTH):
        case = shape._replace(method=method)
        time_pass(case, [*xent_contenders(case, measured, every_variant=False)], arrays, measured)


def time_peers(shape: Shape, measured: Measurements) -> None:
    arrays = draw_sets(shape)
    for method in (LOSS, BOTH):
        case = shape._replace(method=method)
        contenders = [*xent_contenders(case, measured, every_variant=False)]
        for name, setup in PEERS.items():
            try:
                contenders.append(setup(case))
            except Exception as error:  # a library may be missing, or raise any error of its own
                measured.note(f"{name} is not measured: {type(error).__name__}: {error}")
        time_pass(case, contenders, arrays, measured, is_of_peers=True)


def time_pass(
    shape: Shape, contenders: list[Contender], arrays: list[Inputs], measured: Measurements, is_of_peers: bool = False
) -> None:
    """Times the contenders that compute the same numbers."""
    if agreeing := agreeing_contenders(contenders, arrays[0], measured, f"{shape_name(shape)}, {pass_name(shape)}"):
        planned = variants(shape, measured.device)[0]
        measured.timings.append(Timing(shape, planned, is_of_peers, gpu.interleave(agreeing, arrays)))


def agreeing_contenders(
    contenders: list[Contender], inputs: Inputs, measured: Measurements, case: str
) -> list[Contender]:
    """The contenders that run without an error and agree with the first one."""
    expected, agreeing = None, []
    for contender in contenders:
        try:
            result = compared_numbers(contender.call(contender.prepare(inputs)))
        except Exception as error:  # a library may raise any error of its own
            measured.note(f"{case}: {contender.name}: {type(error).__name__}: {str(error)[:300]}")
            continue
        expected = result if expected is None else expected
        if all(np.abs(a - b).max() <= 2e-2 * np.abs(b).max() for a, b in zip(result, expected, strict=True)):
            agreeing.append(contender)
        else:
            measured.note(
                f"{case}: {contender.name} is not timed: it computes other numbers than {contenders[0].name}."
            )
    return agreeing


def compared_numbers(result: Any) -> list[Any]:
    """The numbers by which results are compared: the mean loss, and the gradient of the last row."""
    if hasattr(result, "sum_squares"):
        return [np.atleast_1d(gpu.to_numpy(result.sum_squares.mean()))]
    parts = result if isinstance(result, tuple | list) else (result,)
    return [gpu.to_numpy(part[-1]) if part.ndim == 2 else np.atleast_1d(gpu.to_numpy(part.mean())) for part in parts]


def time_small(measured: Measurements) -> None:
    """Times host and GPU together: a batch of calls in sequence, then one synchronization."""
    inputs = draw(SMALL)
    calls: dict[str, measure.Call] = {}
    for method in (LOSS, BOTH):
        case = SMALL._replace(method=method)
        contenders = [
            *xent_contenders(case, measured, every_variant=False),
            *public_contenders(case, inputs, measured),
            with_torch(case),
        ]
        for contender in agreeing_contenders(contenders, inputs, measured, f"{shape_name(case)}, {pass_name(case)}"):
            calls[f"{contender.name}, {pass_name(case)}"] = functools.partial(batch, contender.call, inputs)
    seconds = measure.interleave(calls, SMALL_ROUNDS, sample_seconds=0)
    measured.small = {
        name: [batch_seconds / SMALL_CALLS for batch_seconds in rounds] for name, rounds in seconds.items()
    }


def batch(call: Callable[[Inputs], object], inputs: Inputs) -> None:
    for _ in range(SMALL_CALLS):
        call(inputs)
    gpu.synchronize()


def read_instances(measured: Measurements) -> None:
    """Reads the registers and local memory of every kernel that was timed."""
    from xent_cuda import device

    for launch in launches_of(measured):
        kernel = device.compiled(launch.kernel, 0, launch.shared_bytes > device.DEFAULT_SHARED_BYTES)
        measured.instances.append((launch.kernel, launch.threads, kernel.num_regs, kernel.local_size_bytes))


def launches_of(measured: Measurements) -> list[Launch]:
    """One launch of each instance of a kernel that was timed."""
    known: dict[str, Launch] = {}
    for timing in measured.timings:
        for name in timing.seconds:
            variant = timing.planned if name == OURS else name.removeprefix(f"{OURS}, ")
            if variant in VARIANTS:
                known |= {launch.kernel: launch for launch in plan(timing.shape, measured.device, variant).launches}
    return [known[name] for name in sorted(known)]


# -------------------- the page


def quartiles_of(samples: Samples) -> Quartiles:
    return measure.quartiles(itertools.chain(*samples))


def ratio(timing: Timing, numerator: str, denominator: str = OURS) -> Quartiles:
    """The ratio of the two contenders' medians in each round."""
    rounds = ([statistics.median(samples) for samples in timing.seconds[name]] for name in (numerator, denominator))
    return measure.ratio(*rounds)


def fraction_of_ceiling(timing: Timing, measured: Measurements, name: str = OURS) -> Quartiles:
    """The bytes that must move per second, as a fraction of the ceiling."""
    low, median, high = quartiles_of(timing.seconds[name])
    ideal = least_bytes(timing.shape) / measured.ceiling(CEILING_OF[timing.shape.method])  # seconds
    return Quartiles(ideal / high, ideal / median, ideal / low)


def timing_of(measured: Measurements, shape: Shape, method: str, is_of_peers: bool) -> Timing | None:
    """The timing of xent for a shape and pass; None if it was not measured."""
    key = (shape._replace(method=method), is_of_peers)
    matches = (
        timing for timing in measured.timings if (timing.shape, timing.is_of_peers) == key and OURS in timing.seconds
    )
    return next(matches, None)


def promises(measured: Measurements) -> Iterator[tuple[str, str, Quartiles, bool]]:
    """Each promise: its name, limit, measured value, and whether it is kept."""
    for shape, minimums in MIN_FRACTION.items():
        for method, minimum in minimums.items():
            timing = timing_of(measured, shape, method, is_of_peers=False)
            if timing and measured.ceilings:
                reached = fraction_of_ceiling(timing, measured)
                name = f"share of the {CEILING_OF[method]} ceiling, {timing.title}"
                yield name, f"≥ {minimum}", reached, reached.median >= minimum
    for shape, (peer, minimum) in itertools.product(SHAPES, MIN_SPEEDUP.items()):
        timing = timing_of(measured, shape, BOTH, is_of_peers=True)
        if timing and peer in timing.seconds:
            speedup = ratio(timing, peer)
            limit = f"≥ {minimum}" if shape in MIN_FRACTION else "reported"
            met = shape not in MIN_FRACTION or speedup.median >= minimum
            yield f"{peer} / xent, {timing.title}", limit, speedup, met


def predictions(measured: Measurements) -> Iterator[tuple[str, ...]]:
    """Each prediction: its name, the predicted and the measured value, and the relative error."""
    for shape, method in itertools.product(SHAPES, (LOSS, BOTH)):
        timing = timing_of(measured, shape, method, is_of_peers=False)
        if timing:
            predicted, seconds = PREDICTED[shape][method], quartiles_of(timing.seconds[OURS])
            error = f"{seconds.median * 1e3 / predicted - 1:+.0%}"
            yield f"xent, {timing.title}, ms", f"{predicted}", seconds.show(1e-3), error
    for shape, (peer, (low, high)) in itertools.product(SHAPES, PREDICTED_RATIOS.items()):
        timing = timing_of(measured, shape, BOTH, is_of_peers=True)
        if timing and peer in timing.seconds:
            speedup = ratio(timing, peer)
            nearest = min(max(speedup.median, low), high)
            error = "within" if nearest == speedup.median else f"{speedup.median / nearest - 1:+.0%}"
            yield f"{peer} / xent, {timing.title}", f"{low} to {high}", speedup.show(), error


def variant_choices(measured: Measurements) -> Iterator[tuple[str, ...]]:
    """The planned and the fastest variant of each timing, and the ratio of their times."""
    for timing in measured.timings:
        medians = {name: quartiles_of(samples).median for name, samples in timing.seconds.items()}
        own = {name: median for name, median in medians.items() if name.removeprefix(f"{OURS}, ") in (OURS, *VARIANTS)}
        if OURS in own and len(own) > 1:
            best = min(own, key=own.__getitem__)
            fastest = timing.planned if best == OURS else best.removeprefix(f"{OURS}, ")
            yield (
                timing.title,
                timing.planned,
                fastest,
                measure.format_number(own[OURS] / own[best]),
            )


def show_ceilings(measured: Measurements) -> str:
    rows = []
    for name, seconds in measured.ceilings.items():
        times, size = measure.quartiles(seconds), gpu.moved_bytes(name)
        rows.append((name, f"{size / 1e9:.2f}", times.show(1e-3), measure.format_number(size / times.median / 1e12)))
    return measure.table(("4 GiB", "GB moved", "ms", "TB/s"), rows)


def show_checks(measured: Measurements) -> str:
    rows = []
    for variant, dtype in itertools.product(VARIANTS, EPSILON):
        for check in (check for check in measured.checks if (check["variant"], check["dtype"]) == (variant, dtype)):
            rows.append((f"{variant}, {dtype}", check["checks"], "died" if check["died"] else len(check["wrong"])))
    return measure.table(("variant and dtype", "results looked at", "wrong"), rows)


def show_timing(timing: Timing, measured: Measurements) -> list[str]:
    """The heading, a sentence and the table of one timing."""
    shape, size = timing.shape, least_bytes(timing.shape)
    ceiling, has_ceiling = CEILING_OF[shape.method], bool(measured.ceilings)
    rows = []
    for name, samples in timing.seconds.items():
        times = quartiles_of(samples)
        reached = f"{fraction_of_ceiling(timing, measured, name).median:.1%}" if has_ceiling else ""
        slowdown = ratio(timing, name).show() if OURS in timing.seconds else ""
        calls = sum(map(len, samples))
        bandwidth = measure.format_number(size / times.median / 1e12)
        rows.append((name, calls, times.show(1e-3), bandwidth, reached, slowdown))
    text = f"`{timing.planned}` is planned; {size / 1e9:.3g} GB must move."
    if has_ceiling:
        text += f" That takes {size / measured.ceiling(ceiling) * 1e3:.3g} ms at the {ceiling} ceiling."
    if predicted := PREDICTED.get(shape._replace(method=LOSS), {}).get(shape.method):
        text += f" Predicted: {predicted} ms."
    heading = f"## {timing.title}{', beside peers' * timing.is_of_peers}"
    return [heading, text, measure.table(("", "calls", "ms", "TB/s", f"of {ceiling}", "time / xent's"), rows)]


def summary(measured: Measurements) -> list[str]:
    """Ceilings, variants, predictions, promises and notes."""
    columns = ("shape and pass", "planned", "quickest", "time of the planned / quickest")
    return [
        "## Ceilings",
        show_ceilings(measured),
        "## Variants",
        measure.table(columns, variant_choices(measured)),
        "## Predictions",
        measure.table(("", "predicted", "measured", "off by"), predictions(measured)),
        "## Promises",
        measure.promise_table(promises(measured)),
        "## Left out, or gone wrong",
        "\n".join(f"- {note}" for note in measured.notes) or "Nothing.",
    ]


def report(measured: Measurements) -> Report:
    """The page of all measurements so far, and its numbers."""
    page = Report("cuda", f"xent-cuda on one {measured.gpu['gpu']}", DISTRIBUTIONS)
    page.add(gpu.describe(measured.gpu), HOW, CAVEATS, *summary(measured), "## Correctness", show_checks(measured))
    for timing in measured.timings:
        page.add(*show_timing(timing, measured))
    micro = [(name, measure.quartiles(seconds).show(1e-6)) for name, seconds in measured.small.items()]
    page.add(f"## A small call: {shape_name(SMALL)}, host and GPU", measure.table(("", "µs a call"), micro))
    page.add("## Instances", measure.table(("", "threads", "registers", "local bytes"), measured.instances))
    timings = [timing._asdict() | {"shape": timing.shape._asdict()} for timing in measured.timings]
    page.add(gpu=measured.gpu, ceilings=measured.ceilings, looks=measured.checks, timings=timings, small=measured.small)
    page.add(instances=measured.instances, notes=measured.notes)
    return page


def write(measured: Measurements) -> None:
    """Writes the page and its numbers to ``results/``, and to the folder ``$OUT`` if it is set."""
    report(measured).write(quick=False)
    if folder := os.environ.get("OUT"):
        for ending in ("md", "json"):
            shutil.copy(measure.RESULTS / f"cuda.{ending}", folder)


# -------------------- the command


def predicted_page() -> str:
    """The page of the plans for an H200 and their predicted times."""
    columns = ("shape and pass", "variant", "launches", "others", "GB", "floor, ms", "predicted, ms", "share")
    rows = (predicted_row(shape._replace(method=method)) for shape in SHAPES for method in (LOSS, BOTH))
    ratios = ((name, f"{low} to {high}") for name, (low, high) in PREDICTED_RATIOS.items())
    parts = (
        "# What the kernels of xent-cuda should take on an H200",
        f"Nothing here is measured. Plans for {Device()}. Floors: the bytes that must move, read at "
        f"{ASSUMED_BANDWIDTH[READ] / 1e12} TB/s in a loss, copied at {ASSUMED_BANDWIDTH[COPY] / 1e12} TB/s in a "
        "loss and gradient.",
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
    floor = size / ASSUMED_BANDWIDTH[CEILING_OF[shape.method]] * 1e3
    numbers = (f"{size / 1e9:.3g}", f"{floor:.3g}", f"{predicted}", f"{floor / predicted:.2f}")
    return f"{shape_name(shape)}, {pass_name(shape)}", variant, launches, ", ".join(others), *numbers


def show_launch(launch: Launch) -> str:
    """A launch: the instance, blocks, threads, and its shared memory."""
    return f"`{launch.kernel}` {launch.blocks} x {launch.threads}, {launch.shared_bytes / 1024:.1f} KiB"


def run_all(measured: Measurements, planned: list[Section], seconds: float, started: float) -> None:
    """Runs the sections for which enough time is left, and writes the page after each."""
    for section in planned:
        spent = time.perf_counter() - started
        if seconds - spent < section.seconds:
            measured.note(
                f"{section.name}: skipped: it takes about {section.seconds} s, {seconds - spent:.0f} s are left."
            )
            continue
        print(f"{spent:5.0f} s  {section.name}", file=sys.stderr, flush=True)
        try:
            section.run(measured)
        except Exception as error:  # the other sections still run
            traceback.print_exc()
            measured.note(f"{section.name}: stopped by {type(error).__name__}: {str(error)[:300]}")
        write(measured)
        try:
            gpu.synchronize()
            gpu.free()
        except Exception as error:  # after a crash of a kernel the process cannot use the GPU
            measured.note(f"The GPU does not answer any more after {section.name}, nothing follows it: {error}")
            break
    write(measured)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures the kernels of xent-cuda on the GPU of this machine.")
    parser.add_argument("--seconds", type=float, default=540, help="sections that do not fit in it are skipped")
    parser.add_argument("--predict", action="store_true", help="prints the plans and the predictions; measures nothing")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.seconds > 0:
        parser.error(f"--seconds must be positive, got {options.seconds}")
    return options


def main() -> int:
    """The exit code: 1 if a section failed or was skipped, 4 if there is no GPU."""
    options, started = parse_options(), time.perf_counter()
    if options.predict:
        print(predicted_page())
        return 0
    if reason := gpu.why_not(needs_torch=not options.child):
        print(f"bench_cuda: {reason}: run it on a machine with a GPU, or with --predict.", file=sys.stderr)
        return NO_GPU
    if options.child:
        print(json.dumps(child(*options.child)))
        return 0
    from xent_cuda import device

    measured = Measurements(gpu=gpu.facts(), device=device.properties(0))
    register()
    run_all(measured, sections(), options.seconds, started)
    print(*summary(measured), sep="\n\n")
    return 1 if measured.notes else 0


if __name__ == "__main__":
    sys.exit(main())
