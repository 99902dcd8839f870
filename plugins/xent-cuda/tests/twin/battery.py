"""Trials of the kernels on the twin: every variant, kind of targets and method, at the edges of the code.

A trial is small, and stands for one edge: one class, fewer classes than a granule, more granules than are loaded at
once or cached, a part of a row without classes, more rows than blocks. Its rows are some of every edge of the numbers.
They are in memory that ends where the array ends, aligned or not, with NaN between them. Results are compared with
exact values by xent's own verdicts.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from processor import SCHEDULES, VARIANTS, Processor
from xent_cuda import kernels, plan
from xent_cuda.plan import BYTES, GRANULE, SCRATCH_BYTES, Device

from xent.testing import Answer, ArrayLibrary, Bench, Call, Case, case_of
from xent.testing.budget import limits
from xent.testing.calls import Violation
from xent.testing.comparison import faults
from xent.testing.edge_cases import named_dtype, normal

Array = np.ndarray[Any, Any]
inf, nan = np.inf, np.nan
KERNELS = {"sparse": kernels.CudaSparse, "dense": kernels.CudaDense}

# -------------------- rows

EDGES = 26


@functools.cache
def edges(dtype: str, classes: int) -> tuple[Case, Array]:
    """A row of every edge, and the scales of their gradients."""
    kind, middle, last = named_dtype(dtype), classes // 2, classes - 1
    x = np.round(normal(EDGES, classes) * 8) / 8  # few values, so that the exact answer is quick
    y = np.arange(EDGES) * 5 % classes
    scale = np.resize([1.0, -0.5, 3.0, 1.0, 1e-3], EDGES)
    far, gap = (3e4, 10.0) if dtype == "float16" else (1e6, 20.0)
    largest = float(limits(kind).max)
    depth, is_low = 1 - 2 * float(limits(kind).eps), np.arange(classes) < min(2, middle)

    x[1] -= gap  # confident
    x[1, middle], y[1] = 4.0, middle
    x[2, : (classes + 1) // 2] = -inf  # the first block of classes masked
    x[3, last] = nan
    x[4, 0], y[4] = inf, 0
    x[5, [0, last]] = inf
    x[6] = -inf
    x[7] = 0.5
    x[8, [0, last]], y[8] = 12.0, last
    y[9:12] = -1, classes, 1 << 62
    x[12, last], y[12] = 13.0, last  # the label is at the maximum
    x[13] = -np.abs(x[13]) - 1
    x[13, ::2] = -0.0
    x[14] = -np.abs(x[14]) - 1
    x[14, middle], x[14, 0] = -0.0, 0.0
    x[15] += far
    x[16], x[17] = largest * np.where(is_low, depth, 1.0), -largest * np.where(is_low, 1.0, depth)
    x[18, 0], scale[18] = nan, 0.0
    x[19, middle], y[19] = -inf, middle
    x[20] = np.where(np.arange(classes) % 3, -1.0, 1.0) * largest / (16 * classes)  # and the sum of all gaps is finite
    x[21, :last], y[21] = -inf, last
    scale[22] = 0.0
    x[23] -= 2 * gap  # confident in the last class, which shares its granule with the next row's, or with none
    x[23, last], y[23] = 0.0, last
    x[24, last], y[24] = inf, 0
    x[25] += 100.0  # of which a bfloat16 has still a digit after the point
    return case_of(f"{classes} classes of every edge", x, kind, y), scale


KINDS = {
    "labels": ("sparse", ("partial", "loss", "gradient", "loss_and_gradient", "statistics")),
    "smoothed": ("sparse", ("partial", "loss", "gradient", "loss_and_gradient")),
    "all smoothed": ("sparse", ("loss",)),
    "soft": ("dense", ("partial", "loss", "gradient", "loss_and_gradient")),
}
"""Kinds of targets: the kernel for each, and its methods."""
CODES = {"labels": plan.LABEL, "smoothed": plan.SMOOTHED, "soft": plan.SOFT}
LACKING = {"tile": ("soft",), "cluster": ("gradient",), "split": ("gradient", "statistics")}
"""The kinds and methods that plan.py gives to other variants."""


@functools.lru_cache(maxsize=64)
def some_edges(dtype: str, rows: int, classes: int, first: int, kind: str) -> tuple[Case, Array]:
    """So many rows from one edge on, over and over where there are more than edges, with targets of a kind."""
    every, scale = edges(dtype, classes)
    taken = (first + np.arange(rows)) % EDGES
    on, off = {"smoothed": (0.9, 0.1 / classes), "all smoothed": (0.0, 1 / classes)}.get(kind, (1.0, 0.0))
    case = Case(every.name, every.logits[taken], every.labels[taken], every.targets[taken], on, off)
    return case, scale[taken]


# -------------------- memory


class Placement(NamedTuple):
    """A block's position in memory."""

    skip: int  # elements from an aligned address to its first row
    apart: int  # elements between its rows


PLACES = (
    (Placement(0, 0),),
    (Placement(3, 0), Placement(1, 0)),
    (Placement(3, 5), Placement(0, 3)),
    (Placement(0, 1), Placement(1, 0)),
    (Placement(0, 0), Placement(1, 0)),
)
"""Of the logits, of the targets if there are any and of the gradient, in turn."""
PACKED = (0, 1, 4)  # of them, those whose rows lie side by side


class Memory:
    """Arrays in memory of their own, which ends where the array ends; what is not theirs is NaN and must stay so."""

    def __init__(self, places: tuple[Placement, ...]) -> None:
        self.places, self.blocks = places, 0
        self.made: list[tuple[Array, Array]] = []

    def asarray(self, values: Array) -> Array:
        skip, apart = 0, 0
        if values.ndim == 2:
            skip, apart = self.places[self.blocks % len(self.places)]
            self.blocks += 1
        rows, classes = values.shape if values.ndim == 2 else (1, len(values))
        size = values.dtype.itemsize
        whole = np.empty(skip + (rows - 1) * (classes + apart) + classes, values.dtype)
        assert whole.ctypes.data % GRANULE == 0
        whole.view(np.uint8)[...] = 0xFF
        strides = ((classes + apart) * size, size)[-values.ndim :]
        array = np.lib.stride_tricks.as_strided(whole[skip:], values.shape, strides)
        array[...] = values
        self.made.append((whole, array))
        return array

    def is_sound(self) -> bool:
        """Whether nothing was written beside an array."""
        for whole, array in self.made:
            before = array.copy()
            array.view(np.uint8)[...] = 0xFF
            if not (whole.view(np.uint8) == 0xFF).all():
                return False
            array[...] = before
        return True

    def library(self) -> ArrayLibrary:
        return ArrayLibrary("numpy", self.asarray, np.asarray, flushes=True)


# -------------------- trials


def small_gpu(room: int, cached: int) -> Device:
    """A GPU whose blocks keep so many granules beside others, and so many alone."""
    return Device(
        multiprocessors=4,
        shared_bytes=SCRATCH_BYTES + cached * GRANULE,
        shared_bytes_per_multiprocessor=plan.ROWS_AT_ONCE * (1024 + SCRATCH_BYTES + room * GRANULE),
    )


TINY, SMALL, H200 = small_gpu(16, 40), small_gpu(256, 1088), Device()


class Trial(NamedTuple):
    """Some rows, and how they are folded."""

    variant: str
    rows: int
    classes: int
    device: Device = SMALL
    places: tuple[int, ...] = (0, 1, 2)  # of PLACES
    blocks: int = 1  # at once; the rows of the others are left to these
    part_bytes: int = plan.PART_BYTES


def trials(dtype: str) -> list[Trial]:
    """Every trial. V is the classes of a granule."""
    V = GRANULE // BYTES[dtype]
    tiles = [Trial("tile", 131, classes, places=PACKED) for classes in (1, 33)]
    tiles.append(Trial("tile", 300, 3, places=PACKED, blocks=2))
    lanes = [Trial("lanes", 37, classes) for classes in (1, 3, 15 * V + 1)]
    warps = [
        Trial("warp", 9, 3),
        Trial("warp", 11, 33 * V + 5),  # more granules than lanes
        Trial("warp", 5, min(1024, 129 * V), places=(2, 3)),  # more than they load at once
    ]
    blocks = [
        Trial("block", 5, 1),
        Trial("block", 9, 3 * V + 1, blocks=2),
        Trial("block", 5, 131 * V + 3, blocks=2),
        Trial("block", 4, 45 * V + 3, TINY, places=(0, 2), part_bytes=64),  # more than are cached
        Trial("block", 2, 520 * V + 1, H200, places=(3,)),  # more than 128 threads load at once
        Trial("block", 2, 1030 * V + 1, H200, places=(1,)),  # the same of 256
    ]
    clusters = [
        Trial("cluster", 3, V, TINY, places=(1,)),  # the second part is empty
        Trial("cluster", 5, 20 * V + 1, TINY, places=(0, 2)),
        Trial("cluster", 3, 45 * V + 1, TINY, places=(1, 3)),
        Trial("cluster", 2, 100 * V + 1, TINY, places=(2,)),
        Trial("cluster", 2, 340 * V + 1, TINY, places=(0, 3)),
    ]
    splits = [
        Trial("split", 4, 1, places=(1,)),
        Trial("split", 4, V, places=(1,)),
        Trial("split", 3, 20 * V + 1, part_bytes=64),
        Trial("split", 4, 530 * V + 3, places=(1, 2)),
    ]
    return [*tiles, *lanes, *warps, *blocks, *clusters, *splits]


# -------------------- the battery


class Battery:
    """All trials of one dtype.

    Parameters
    ----------
    dtype : str
    processor : Processor
        Runs the kernels, with its own source, flags and schedule.
    variants, kinds : tuple of str
    places : int
        The most places in memory for each trial.

    Attributes
    ----------
    calls : int
        How many calls were made.
    launched : set of str
        The instances that were launched.
    """

    def __init__(
        self,
        dtype: str,
        processor: Processor,
        variants: tuple[str, ...] = VARIANTS,
        kinds: tuple[str, ...] = tuple(KINDS),
        places: int = len(PLACES),
    ) -> None:
        self.dtype, self.processor, self.variants, self.kinds, self.places = dtype, processor, variants, kinds, places
        self.calls, self.launched = 0, set[str]()

    def faults(self) -> Iterator[str]:
        """What is wrong."""
        for number, trial in enumerate(trials(self.dtype)):
            lacking = LACKING.get(trial.variant, ())
            for place, kind in itertools.product(trial.places[: self.places], self.kinds):
                op, methods = KINDS[kind]
                case, scale = some_edges(self.dtype, trial.rows, trial.classes, 7 * number, kind)
                for method in methods:
                    if trial.variant in self.variants and kind not in lacking and method not in lacking:
                        call = Call(method, case, scale=scale, fill="plain" if "gradient" in method else "")
                        for fault in self.faults_of(trial, place, op, call):
                            yield f"{trial.variant}, {kind}, place {place}: {call}: {fault}"

    def faults_of(self, trial: Trial, place: int, op: str, call: Call) -> Iterator[str]:
        """What is wrong with the answer to a call, and to the same in place."""
        memory = Memory(PLACES[place])
        try:
            answer = self.answer(trial, op, call, memory)
            yield from (fault.what for fault in faults(call, answer, op, flushes=True))
            if call.fill and trial.variant != "split":
                yield from self.in_place(trial, place, op, call, answer)
        except (Violation, RuntimeError) as error:
            yield str(error)
        if not memory.is_sound():
            yield "memory beside an array was written to"

    def kernel(self, trial: Trial, op: str) -> Any:
        """The kernel on this processor, by a trial's variant."""
        self.processor.device, self.processor.blocks = trial.device, trial.blocks
        return KERNELS[op](self.processor, trial.variant)

    def answer(self, trial: Trial, op: str, call: Call, memory: Memory) -> Answer:
        """The answer to a call."""
        self.calls += 1
        with mock.patch.object(plan, "PART_BYTES", trial.part_bytes):
            answer = Bench(self.kernel(trial, op), op, memory.library()).answer(call)
        self.launched |= {launch.kernel for launch in self.processor.launched}
        self.processor.launched.clear()
        return answer

    def in_place(self, trial: Trial, place: int, op: str, call: Call, answer: Answer) -> Iterator[str]:
        """What differs from the answer if the gradient is written over the logits."""
        memory, case, kernel = Memory(PLACES[place]), call.case, self.kernel(trial, op)
        logits, scale, loss = memory.asarray(case.logits), memory.asarray(call.scales), answer.loss
        arguments = case.target_arguments(op)
        targets = [memory.asarray(part) if isinstance(part, np.ndarray) else part for part in arguments]
        with mock.patch.object(plan, "PART_BYTES", trial.part_bytes):
            if call.method == "gradient":
                gradient = kernel.gradient(logits, *targets, answer.partial, scale, threads=1, out=logits)
            else:
                loss, gradient = kernel.loss_and_gradient(logits, *targets, scale, threads=1, out=logits)
        if gradient is not logits:
            yield "the gradient in place is returned in another array"
        if Answer(loss=loss, gradient=gradient).bits() != Answer(loss=answer.loss, gradient=answer.gradient).bits():
            yield "in place there are other bits"
        if not memory.is_sound():
            yield "memory beside an array was written to in place"

    def other_bits(self) -> Iterator[str]:
        """Rows that have other bits by another variant or method, in another place or under another schedule."""
        V = GRANULE // BYTES[self.dtype]
        sizes = ((12, 10, SMALL), (3, 1, SMALL), (4, 15 * V + 1, SMALL), (4, 100 * V + 1, TINY))
        kinds = [kind for kind in self.kinds if kind in CODES]
        for (rows, classes, device), kind in itertools.product(sizes, kinds):
            op, methods = KINDS[kind]
            case, scale = some_edges(self.dtype, rows, classes, 12, kind)
            seen: dict[str, tuple[str, list[bytes]]] = {}
            for method in methods:
                able = plan.variants(plan.Shape(rows, classes, self.dtype, CODES[kind], method), device)
                for number, variant in enumerate(name for name in able if name in self.variants):
                    place = (1 + number) % len(PLACES) if variant != "tile" else 1
                    call = Call(method, case, scale=scale, fill="plain" if "gradient" in method else "")
                    trial = Trial(variant, rows, classes, device, blocks=4)
                    self.processor.schedule = SCHEDULES[self.calls % len(SCHEDULES)]
                    where = f"{call} by {variant} in place {place}"
                    try:
                        answer = self.answer(trial, op, call, Memory(PLACES[place]))
                    except (Violation, RuntimeError) as error:
                        yield f"{where}, {kind}: {error}"
                        continue
                    for name, field in named_fields(method, answer):
                        bits = Answer(loss=field).bits()
                        first, others = seen.setdefault(name, (where, bits))
                        if bits != others:
                            yield f"{where}, {kind}: {name} has other bits than in {first}"


def named_fields(method: str, answer: Answer) -> Iterator[tuple[str, Array]]:
    """The arrays of an answer under names that are the same where the numbers must be."""
    if answer.loss is not None:
        yield "loss", answer.loss
    if answer.gradient is not None:
        yield f"gradient of {method}", answer.gradient  # of a label that is none they differ
    partial = answer.partial if answer.statistics is None else answer.statistics.partial
    yield from zip(partial._fields, partial, strict=True) if partial is not None else ()
    if answer.statistics is not None:
        yield from zip(answer.statistics._fields[1:], answer.statistics[1:], strict=True)
