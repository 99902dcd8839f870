"""What is tried of the kernels on the twin: every variant, kind of targets and method, at the edges of the code.

A shape is small, and stands for one edge: a class, fewer than a granule has, more than are loaded at once, more than
are kept, a part of a row without any, more rows than blocks. Its rows are a few of every edge of the numbers. They lie
in memory that ends where the array ends, aligned or not, NaN between them. What comes back is held against exact
values by xent's own verdicts.
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
from xent_cuda.plan import BYTES, DESK_BYTES, GRANULE, Device

from xent.testing import Answer, ArrayLibrary, Bench, Call, Case, case_of
from xent.testing.budget import limits
from xent.testing.calls import Violation
from xent.testing.comparison import faults
from xent.testing.edge_cases import named_dtype, normal

Array = np.ndarray[Any, Any]
inf, nan = np.inf, np.nan
KERNELS = {"sparse": kernels.Sparse, "dense": kernels.Dense}

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
"""Kinds of targets: which kernel is told of them, and what it can do with them."""
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


class Place(NamedTuple):
    """Where a block lies."""

    skip: int  # elements that its first row begins after 16 bytes
    apart: int  # elements between its rows


PLACES = (
    (Place(0, 0),),
    (Place(3, 0), Place(1, 0)),
    (Place(3, 5), Place(0, 3)),
    (Place(0, 1), Place(1, 0)),
    (Place(0, 0), Place(1, 0)),
)
"""Of the logits, of the targets if there are any and of the gradient, in turn."""
PACKED = (0, 1, 4)  # of them, those whose rows lie side by side


class Memory:
    """Arrays in memory of their own, which ends where the array ends; what is not theirs is NaN and must stay so."""

    def __init__(self, places: tuple[Place, ...]) -> None:
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


# -------------------- shapes


def small_gpu(room: int, kept: int) -> Device:
    """A GPU whose blocks keep so many granules beside others, and so many alone."""
    return Device(
        processors=4,
        shared_bytes=DESK_BYTES + kept * GRANULE,
        shared_bytes_of_all=plan.ROWS_AT_ONCE * (1024 + DESK_BYTES + room * GRANULE),
    )


TINY, SMALL, H200 = small_gpu(16, 40), small_gpu(256, 1088), Device()


class Shape(NamedTuple):
    """Some rows, and how they are folded."""

    variant: str
    rows: int
    classes: int
    device: Device = SMALL
    places: tuple[int, ...] = (0, 1, 2)  # of PLACES
    blocks: int = 1  # at once; the rows of the others are left to these
    part_bytes: int = plan.PART_BYTES


def shapes(dtype: str) -> list[Shape]:
    """Every shape that is tried. V is the classes of a granule."""
    V = GRANULE // BYTES[dtype]
    tiles = [Shape("tile", 131, classes, places=PACKED) for classes in (1, 33)]
    tiles.append(Shape("tile", 300, 3, places=PACKED, blocks=2))
    lanes = [Shape("lanes", 37, classes) for classes in (1, 3, 15 * V + 1)]
    warps = [
        Shape("warp", 9, 3),
        Shape("warp", 11, 33 * V + 5),  # more granules than lanes
        Shape("warp", 5, min(1024, 129 * V), places=(2, 3)),  # more than they load at once
    ]
    blocks = [
        Shape("block", 5, 1),
        Shape("block", 9, 3 * V + 1, blocks=2),
        Shape("block", 5, 131 * V + 3, blocks=2),
        Shape("block", 4, 45 * V + 3, TINY, places=(0, 2), part_bytes=64),  # more than are kept
        Shape("block", 2, 520 * V + 1, H200, places=(3,)),  # more than 128 threads load at once
        Shape("block", 2, 1030 * V + 1, H200, places=(1,)),  # the same of 256
    ]
    clusters = [
        Shape("cluster", 3, V, TINY, places=(1,)),  # the second part is empty
        Shape("cluster", 5, 20 * V + 1, TINY, places=(0, 2)),
        Shape("cluster", 3, 45 * V + 1, TINY, places=(1, 3)),
        Shape("cluster", 2, 100 * V + 1, TINY, places=(2,)),
        Shape("cluster", 2, 340 * V + 1, TINY, places=(0, 3)),
    ]
    splits = [
        Shape("split", 4, 1, places=(1,)),
        Shape("split", 4, V, places=(1,)),
        Shape("split", 3, 20 * V + 1, part_bytes=64),
        Shape("split", 4, 530 * V + 3, places=(1, 2)),
    ]
    return [*tiles, *lanes, *warps, *blocks, *clusters, *splits]


# -------------------- the battery


class Battery:
    """Everything that is tried of one dtype.

    Parameters
    ----------
    dtype : str
    processor : Processor
        On which: with its source, flags and schedule.
    variants, kinds : tuple of str
    places : int
        In how many places in memory each shape is tried at most.

    Attributes
    ----------
    calls : int
        How many were looked at.
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
        for number, shape in enumerate(shapes(self.dtype)):
            lacking = LACKING.get(shape.variant, ())
            for place, kind in itertools.product(shape.places[: self.places], self.kinds):
                op, methods = KINDS[kind]
                case, scale = some_edges(self.dtype, shape.rows, shape.classes, 7 * number, kind)
                for method in methods:
                    if shape.variant in self.variants and kind not in lacking and method not in lacking:
                        call = Call(method, case, scale=scale, fill="plain" if "gradient" in method else "")
                        for fault in self.faults_of(shape, place, op, call):
                            yield f"{shape.variant}, {kind}, place {place}: {call}: {fault}"

    def faults_of(self, shape: Shape, place: int, op: str, call: Call) -> Iterator[str]:
        """What is wrong with the answer to a call, and to the same in place."""
        memory = Memory(PLACES[place])
        try:
            answer = self.answer(shape, op, call, memory)
            yield from (fault.what for fault in faults(call, answer, op, flushes=True))
            if call.fill and shape.variant != "split":
                yield from self.in_place(shape, place, op, call, answer)
        except (Violation, RuntimeError) as error:
            yield str(error)
        if not memory.is_sound():
            yield "memory beside an array was written to"

    def kernel(self, shape: Shape, op: str) -> Any:
        """The kernel on this processor, by the variant of a shape."""
        self.processor.numbers, self.processor.blocks = shape.device, shape.blocks
        return KERNELS[op](self.processor, shape.variant)

    def answer(self, shape: Shape, op: str, call: Call, memory: Memory) -> Answer:
        """The answer to a call."""
        self.calls += 1
        with mock.patch.object(plan, "PART_BYTES", shape.part_bytes):
            found = Bench(self.kernel(shape, op), op, memory.library()).answer(call)
        self.launched |= {launch.kernel for launch in self.processor.launched}
        self.processor.launched.clear()
        return found

    def in_place(self, shape: Shape, place: int, op: str, call: Call, answer: Answer) -> Iterator[str]:
        """What is other than in the answer where the gradient is written over the logits."""
        memory, case, kernel = Memory(PLACES[place]), call.case, self.kernel(shape, op)
        logits, scale, loss = memory.asarray(case.logits), memory.asarray(call.scales), answer.loss
        told = [memory.asarray(one) if isinstance(one, np.ndarray) else one for one in case.target_arguments(op)]
        with mock.patch.object(plan, "PART_BYTES", shape.part_bytes):
            if call.method == "gradient":
                found = kernel.gradient(logits, *told, answer.partial, scale, threads=1, donate=True)
            else:
                loss, found = kernel.loss_and_gradient(logits, *told, scale, threads=1, donate=True)
        if found is not logits:
            yield "the gradient in place is returned in another array"
        if Answer(loss=loss, gradient=found).bits() != Answer(loss=answer.loss, gradient=answer.gradient).bits():
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
                for number, variant in enumerate(one for one in able if one in self.variants):
                    place = (1 + number) % len(PLACES) if variant != "tile" else 1
                    call = Call(method, case, scale=scale, fill="plain" if "gradient" in method else "")
                    shape = Shape(variant, rows, classes, device, blocks=4)
                    self.processor.schedule = SCHEDULES[self.calls % len(SCHEDULES)]
                    where = f"{call} by {variant} in place {place}"
                    try:
                        answer = self.answer(shape, op, call, Memory(PLACES[place]))
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
