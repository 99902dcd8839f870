"""The kernels, as xent calls them: every method of its contract, for labels and for soft targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xent.kernels import Partial, Statistics

from .machine import Gpu
from .plan import CLASSES_AT_MOST, LABEL, SMOOTHED, SOFT, Plan, Shape, plan
from .task import TALLY_BYTES, TASK

Array = Any


def is_side_by_side(array: Array) -> bool:
    """Whether the classes of a row lie side by side."""
    return bool(array.size == 0 or array.shape[1] == 1 or array.strides[1] == array.itemsize)


def row_stride(array: Array) -> int:
    """Elements from one row to the next."""
    return int(array.strides[0]) // int(array.itemsize)


@dataclass
class Call:
    """One call: the block, its targets, and what is asked of it."""

    machine: Any
    variant: str
    logits: Array  # (rows, classes)
    told: Array  # labels (rows,) or targets (rows, classes)
    kind: int
    on: float = 1.0
    off: float = 0.0
    task: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(1, TASK))
    held: list[Array] = field(default_factory=list)
    """What the task points at: alive until it is launched."""

    def __post_init__(self) -> None:
        self.wide = np.dtype(np.float64 if self.logits.dtype.name == "float64" else np.float32)
        self.rows, self.classes = self.logits.shape
        if self.classes > CLASSES_AT_MOST:
            raise ValueError(f"xent-cuda: `logits` must have at most {CLASSES_AT_MOST} classes, got {self.classes}.")
        self.passed = self.logits
        self.is_whole = is_side_by_side(self.logits)
        if not self.is_whole:
            self.logits = self.machine.contiguous(self.logits, self.logits.dtype)
        self.put("logits", self.logits, "logits_stride")
        if self.kind != SOFT:
            labels = self.told if self.told.dtype == np.int64 else self.machine.contiguous(self.told, np.int64)
            self.put("labels", labels, "labels_stride")
        else:
            targets = self.told
            if targets.dtype != self.wide or not is_side_by_side(targets):
                targets = self.machine.contiguous(targets, self.wide)
            self.put("targets", targets, "targets_stride")
        self.task["rows"], self.task["classes"] = self.rows, self.classes
        self.task["on"], self.task["off"] = self.on, self.off

    def put(self, name: str, array: Array, stride: str = "") -> Array:
        """Tells the kernel where an array is."""
        self.held.append(array)
        self.task[name] = self.machine.address(array)
        if stride:
            self.task[stride] = row_stride(array)
        return array

    def of_rows(self, *names: str, dtype: Any = None) -> list[Array]:
        """New arrays (rows,) for the kernel to fill."""
        memory = self.machine.empty((len(names), self.rows), dtype or self.wide, self.logits)
        return [self.put(name, one) for name, one in zip(names, memory, strict=True)]

    def given(self, name: str, array: Array) -> None:
        """Tells the kernel of numbers (rows,) that it reads."""
        self.put(name, self.machine.contiguous(array, self.wide))

    def scaled(self, scale: Array) -> None:
        """Tells the kernel of the scale of every row; one number for all may be broadcast."""
        if tuple(scale.shape) != (self.rows,):
            raise ValueError(f"xent-cuda: `scale` must have shape {(self.rows,)}, got {tuple(scale.shape)}.")
        if scale.dtype != self.wide:
            scale = self.machine.contiguous(scale, self.wide)
        self.put("scale", scale, "scale_stride")

    def gradient(self, out: Array | None, donate: bool) -> tuple[Array, Array]:
        """The array to return, and the one that the kernel fills: another where the first is no place for rows."""
        if donate:
            if out is not None:
                raise ValueError(
                    "xent-cuda: `out` must not be given beside donate=True: donated logits are the output."
                )
            if not self.is_whole:
                raise ValueError("xent-cuda: donated logits must have their classes side by side in memory.")
            out = self.logits
        elif out is not None and tuple(out.shape) != tuple(self.logits.shape):
            raise ValueError(f"xent-cuda: `out` must have shape {self.logits.shape}, got {tuple(out.shape)}.")
        elif out is not None and overlap(self.machine, out, self.passed):
            raise ValueError(
                "xent-cuda: `out` must not share memory with `logits`. Pass donate=True to write over them."
            )
        if out is None:
            out = self.machine.empty(self.logits.shape, self.logits.dtype, self.logits)
        if self.rows > 1 and self.classes and abs(row_stride(out)) < self.classes and is_side_by_side(out):
            raise ValueError("xent-cuda: the gradient must have memory of its own for every row. Pass a copy.")
        fits = is_side_by_side(out) and out.dtype == self.logits.dtype
        filled = out if fits else self.machine.empty(self.logits.shape, self.logits.dtype, self.logits)
        self.put("slope", filled, "slope_stride")
        return out, filled

    def copied(self, filled: Array, out: Array) -> None:
        """Brings what was filled to where it is asked for, on the GPU that has both."""
        if filled is not out:
            with self.machine.on(out):
                out[...] = filled

    def run(self, method: str, *, is_in_place: bool = False) -> None:
        """Launches what the method takes."""
        strides = [int(self.task[name][0]) for name in ("logits_stride", "slope_stride")]
        is_packed = strides[0] == self.classes and (not self.task["slope"][0] or strides[1] == self.classes)
        shape = Shape(
            self.rows, self.classes, self.logits.dtype.name, self.kind, method, is_packed or self.rows == 1, is_in_place
        )
        chosen: Plan = plan(shape, self.machine.device(self.logits), self.variant)
        self.task["parts"], self.task["kept"] = chosen.parts, chosen.kept
        if chosen.variant == "split":
            several = self.rows * chosen.parts
            self.put("tops", self.machine.empty((several,), self.wide, self.logits))
            self.put("tallies", self.machine.empty((several * TALLY_BYTES // 8,), np.float64, self.logits))
        for launch in chosen.launches:
            self.machine.launch(launch, self.task, self.logits)


def bounds(machine: Any, array: Array) -> tuple[int, int]:
    """The first byte of an array, and the first after it."""
    first = machine.address(array)
    reach = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    return first + sum(min(one, 0) for one in reach), first + sum(max(one, 0) for one in reach) + array.itemsize


def overlap(machine: Any, a: Array, b: Array) -> bool:
    """Whether two arrays may share memory."""
    (first, last), (begin, end) = bounds(machine, a), bounds(machine, b)
    return a.size > 0 and b.size > 0 and first < end and begin < last


class Methods:
    """The methods for one kind of call; ``begun`` makes it of what a method is told of the targets.

    ``variant`` names one of plan.py's; the best is taken where it is empty.
    """

    def __init__(self, machine: Any, variant: str = ""):
        self.machine, self.variant = machine, variant

    def begun(self, logits: Array, *told: Any) -> Call:
        raise NotImplementedError

    def partial(self, logits: Array, *told: Any, threads: int) -> Partial:
        call = self.begun(logits, *told)
        fields = call.of_rows("max", "rest", "gap", "mass")
        call.run("partial")
        return Partial(*fields)

    def loss(self, logits: Array, *told: Any, threads: int, out: Array | None = None) -> Array:
        call = self.begun(logits, *told)
        if out is not None and out.dtype == call.wide and out.strides[0] == out.itemsize:
            call.put("loss", out)
            call.run("loss")
            return out
        (loss,) = call.of_rows("loss")
        call.run("loss")
        if out is None:
            return loss
        call.copied(loss, out)
        return out

    def gradient(
        self, logits: Array, *told: Any, threads: int, out: Array | None = None, donate: bool = False
    ) -> Array:
        *target, partial, scale = told
        call = self.begun(logits, *target)
        for name, values in zip(("max", "rest", "gap", "mass"), partial, strict=True):
            call.given(name, values)
        call.scaled(scale)
        out, filled = call.gradient(out, donate)
        call.run("gradient", is_in_place=donate)
        call.copied(filled, out)
        return out

    def loss_and_gradient(
        self, logits: Array, *told: Any, threads: int, out: Array | None = None, donate: bool = False
    ) -> tuple[Array, Array]:
        *target, scale = told
        call = self.begun(logits, *target)
        call.scaled(scale)
        (loss,) = call.of_rows("loss")
        out, filled = call.gradient(out, donate)
        call.run("loss_and_gradient", is_in_place=donate)
        call.copied(filled, out)
        return loss, out


class Sparse(Methods):
    """The kernel for labels."""

    def begun(self, logits: Array, labels: Array, on: float = 1.0, off: float = 0.0) -> Call:
        return Call(self.machine, self.variant, logits, labels, LABEL if (on, off) == (1.0, 0.0) else SMOOTHED, on, off)

    def statistics(self, logits: Array, labels: Array, label_logit: Array, *, threads: int) -> Statistics:
        call = self.begun(logits, labels)
        call.given("label_logit", label_logit)
        fields = call.of_rows("max", "rest", "gap", "mass")
        (rank,) = call.of_rows("rank", dtype=np.int64)
        squares, spread = call.of_rows("squares", "spread")
        call.run("statistics")
        return Statistics(Partial(*fields), rank, squares, spread)


class Dense(Methods):
    """The kernel for soft targets."""

    def begun(self, logits: Array, targets: Array) -> Call:
        return Call(self.machine, self.variant, logits, targets, SOFT)


sparse, dense = Sparse(Gpu()), Dense(Gpu())
