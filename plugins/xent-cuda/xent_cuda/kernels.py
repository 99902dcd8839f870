"""The kernels, as xent calls them: every method of its contract, for labels and for soft targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xent.kernels import Partial, Statistics

from .device import Gpu
from .plan import LABEL, MAX_CLASSES, SMOOTHED, SOFT, Shape, plan
from .task import ACCUMULATOR_BYTES, TASK

Array = Any


def has_contiguous_rows(array: Array) -> bool:
    """Whether the classes of a row are contiguous."""
    return bool(array.size == 0 or array.shape[1] == 1 or array.strides[1] == array.itemsize)


def row_stride(array: Array) -> int:
    """Elements from one row to the next."""
    return int(array.strides[0]) // int(array.itemsize)


@dataclass
class CudaCall:
    """One call of a kernel: its block and targets, and the ``Task`` that the launches get."""

    gpu: Any
    variant: str
    logits: Array  # (rows, classes)
    targets: Array  # labels (rows,) or soft targets (rows, classes)
    kind: int
    on: float = 1.0
    off: float = 0.0
    task: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(1, TASK))
    bound: list[Array] = field(default_factory=list)
    """The arrays that the task points to: alive until it is launched."""
    is_in_place: bool = False
    """Whether the gradient is written over the logits."""

    def __post_init__(self) -> None:
        self.wide = np.dtype(np.float64 if self.logits.dtype.name == "float64" else np.float32)
        self.rows, self.classes = self.logits.shape
        if self.classes > MAX_CLASSES:
            raise ValueError(f"xent-cuda: `logits` must have at most {MAX_CLASSES} classes, got {self.classes}.")
        self.original_logits = self.logits
        self.is_original = has_contiguous_rows(self.logits)
        if not self.is_original:
            self.logits = self.gpu.contiguous(self.logits, self.logits.dtype)
        self.bind("logits", self.logits, "logits_stride")
        targets = self.targets
        if self.kind != SOFT:
            if targets.dtype != np.int64:
                targets = self.gpu.contiguous(targets, np.int64)
            self.bind("labels", targets, "labels_stride")
        else:
            if targets.dtype != self.wide or not has_contiguous_rows(targets):
                targets = self.gpu.contiguous(targets, self.wide)
            self.bind("targets", targets, "targets_stride")
        self.task["rows"], self.task["classes"] = self.rows, self.classes
        self.task["on"], self.task["off"] = self.on, self.off

    def bind(self, name: str, array: Array, stride: str = "") -> Array:
        """Sets a pointer of the task, and the stride that belongs to it; returns the array."""
        self.bound.append(array)
        self.task[name] = self.gpu.address(array)
        if stride:
            self.task[stride] = row_stride(array)
        return array

    def bind_results(self, *names: str, dtype: Any = None) -> list[Array]:
        """New arrays (rows,) for the kernel to fill."""
        memory = self.gpu.empty((len(names), self.rows), dtype or self.wide, self.logits)
        return [self.bind(name, array) for name, array in zip(names, memory, strict=True)]

    def bind_rows(self, name: str, array: Array) -> None:
        """Binds numbers (rows,) that the kernel reads."""
        self.bind(name, self.gpu.contiguous(array, self.wide))

    def bind_scale(self, scale: Array) -> None:
        """Binds the scale of every row; it may be one number, broadcast."""
        if tuple(scale.shape) != (self.rows,):
            raise ValueError(f"xent-cuda: `scale` must have shape {(self.rows,)}, got {tuple(scale.shape)}.")
        if scale.dtype != self.wide:
            scale = self.gpu.contiguous(scale, self.wide)
        self.bind("scale", scale, "scale_stride")

    def bind_gradient(self, out: Array | None) -> tuple[Array, Array]:
        """The array to return, and the one that the kernel fills: a new one if its layout or dtype does not fit."""
        if out is not None and tuple(out.shape) != tuple(self.logits.shape):
            raise ValueError(f"xent-cuda: `out` must have shape {self.logits.shape}, got {tuple(out.shape)}.")
        if out is not None and overlap(self.gpu, out, self.original_logits):
            if not is_same(self.gpu, out, self.original_logits):
                raise ValueError("xent-cuda: `out` must share no memory with `logits`, or be the logits themselves.")
            self.is_in_place = self.is_original
        if out is None:
            out = self.gpu.empty(self.logits.shape, self.logits.dtype, self.logits)
        if self.rows > 1 and self.classes and abs(row_stride(out)) < self.classes and has_contiguous_rows(out):
            raise ValueError("xent-cuda: the gradient must have memory of its own for every row. Pass a copy.")
        fits = has_contiguous_rows(out) and out.dtype == self.logits.dtype
        filled = out if fits else self.gpu.empty(self.logits.shape, self.logits.dtype, self.logits)
        self.bind("gradient", filled, "gradient_stride")
        return out, filled

    def copy_back(self, filled: Array, out: Array) -> None:
        """Copies the filled array to ``out``, unless it is the same, on their GPU."""
        if filled is not out:
            with self.gpu.on(out):
                out[...] = filled

    def run(self, method: str) -> None:
        """Launches the kernels of a method."""
        strides = [int(self.task[name][0]) for name in ("logits_stride", "gradient_stride")]
        is_packed = strides[0] == self.classes and (not self.task["gradient"][0] or strides[1] == self.classes)
        shape = Shape(
            self.rows,
            self.classes,
            self.logits.dtype.name,
            self.kind,
            method,
            is_packed or self.rows == 1,
            self.is_in_place,
        )
        planned = plan(shape, self.gpu.properties(self.logits), self.variant)
        self.task["parts"], self.task["cached"] = planned.parts, planned.cached
        if planned.variant == "split":
            parts = self.rows * planned.parts
            self.bind("maxima", self.gpu.empty((parts,), self.wide, self.logits))
            self.bind("accumulators", self.gpu.empty((parts * ACCUMULATOR_BYTES // 8,), np.float64, self.logits))
        for launch in planned.launches:
            self.gpu.launch(launch, self.task, self.logits)


def bounds(gpu: Any, array: Array) -> tuple[int, int]:
    """The addresses of an array's first byte, and of the first byte after it."""
    first = gpu.address(array)
    extents = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    below, above = sum(min(extent, 0) for extent in extents), sum(max(extent, 0) for extent in extents)
    return first + below, first + above + array.itemsize


def overlap(gpu: Any, a: Array, b: Array) -> bool:
    """Whether two arrays may share memory."""
    (first, last), (begin, end) = bounds(gpu, a), bounds(gpu, b)
    return a.size > 0 and b.size > 0 and first < end and begin < last


def is_same(gpu: Any, a: Array, b: Array) -> bool:
    """Whether two arrays of one shape have each element at the same place."""
    steps = [(m, n) for m, n, size in zip(a.strides, b.strides, a.shape, strict=True) if size > 1]
    return a.dtype == b.dtype and gpu.address(a) == gpu.address(b) and all(m == n for m, n in steps)


class CudaKernel:
    """The methods of xent's contract for one kind of targets.

    ``variant`` is one of plan.py's; if it is empty, the best is taken.
    """

    def __init__(self, gpu: Any, variant: str = ""):
        self.gpu, self.variant = gpu, variant

    def call(self, logits: Array, *targets: Any) -> CudaCall:
        """A call with the logits and targets of a method."""
        raise NotImplementedError

    def partial(self, logits: Array, *targets: Any, threads: int) -> Partial:
        call = self.call(logits, *targets)
        fields = call.bind_results("max", "rest", "gap", "mass")
        call.run("partial")
        return Partial(*fields)

    def loss(self, logits: Array, *targets: Any, threads: int, out: Array | None = None) -> Array:
        call = self.call(logits, *targets)
        if out is not None and out.dtype == call.wide and out.strides[0] == out.itemsize:
            call.bind("loss", out)
            call.run("loss")
            return out
        (loss,) = call.bind_results("loss")
        call.run("loss")
        if out is None:
            return loss
        call.copy_back(loss, out)
        return out

    def gradient(self, logits: Array, *arguments: Any, threads: int, out: Array | None = None) -> Array:
        *targets, partial, scale = arguments
        call = self.call(logits, *targets)
        for name, values in zip(("max", "rest", "gap", "mass"), partial, strict=True):
            call.bind_rows(name, values)
        call.bind_scale(scale)
        out, filled = call.bind_gradient(out)
        call.run("gradient")
        call.copy_back(filled, out)
        return out

    def loss_and_gradient(
        self, logits: Array, *arguments: Any, threads: int, out: Array | None = None
    ) -> tuple[Array, Array]:
        *targets, scale = arguments
        call = self.call(logits, *targets)
        call.bind_scale(scale)
        (loss,) = call.bind_results("loss")
        out, filled = call.bind_gradient(out)
        call.run("loss_and_gradient")
        call.copy_back(filled, out)
        return loss, out


class CudaSparse(CudaKernel):
    """The kernel for labels."""

    def call(self, logits: Array, labels: Array, on: float = 1.0, off: float = 0.0) -> CudaCall:
        kind = LABEL if (on, off) == (1.0, 0.0) else SMOOTHED
        return CudaCall(self.gpu, self.variant, logits, labels, kind, on, off)

    def statistics(self, logits: Array, labels: Array, label_logit: Array, *, threads: int) -> Statistics:
        call = self.call(logits, labels)
        call.bind_rows("label_logit", label_logit)
        fields = call.bind_results("max", "rest", "gap", "mass")
        (rank,) = call.bind_results("rank", dtype=np.int64)
        squares, spread = call.bind_results("squares", "spread")
        call.run("statistics")
        return Statistics(Partial(*fields), rank, squares, spread)


class CudaDense(CudaKernel):
    """The kernel for soft targets."""

    def call(self, logits: Array, targets: Array) -> CudaCall:
        return CudaCall(self.gpu, self.variant, logits, targets, SOFT)


sparse, dense = CudaSparse(Gpu()), CudaDense(Gpu())
