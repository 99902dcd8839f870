"""The walk over one concrete array in blocks that fit the cache, whatever its rank, strides and class axis.

A tile is a run of consecutive rows with all their classes, cut from the array by plain indexing; a block is a tile, or
a span of its classes where a single row is larger than a block, as a kernel takes it: (rows, classes). Spans depend on
the number of classes alone, so a row's numbers do not depend on its neighbours. Rows are counted flat, in C order.

Leaves out weights, ignored rows and reductions (``schedule.py``).
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from ... import arrays
from ...arrays import Array
from ...contract.plan import Plan
from ...numerics import fold
from ...numerics import statistics as numbers
from ...numerics.fold import Partial
from ...numerics.statistics import Statistics

BLOCK_ELEMENTS = 1 << 16
DEVICE_BLOCK_ELEMENTS = 1 << 24
CONVERTED_ELEMENTS = 1 << 18
"""The most soft targets that are widened or smoothed at once for a kernel that takes blocks of any size."""
Span = tuple[int, int]


class Labels(NamedTuple):
    """Targets as labels (rows,), wide; t_j = on · [j = label] + off."""

    values: Array
    on: float
    off: float

    def block(self, xp: Any, walk: Walk, tile: Tile, span: Span) -> tuple[Any, ...]:
        """What a kernel is told of the targets of one block."""
        labels = self.values[tile.rows]
        return (labels - span[0] if span[0] else labels), self.on, self.off


class Soft(NamedTuple):
    """Dense targets in the shape of the predictions, to be smoothed."""

    values: Array
    on: float
    off: float
    dtype: Any

    def block(self, xp: Any, walk: Walk, tile: Tile, span: Span) -> tuple[Any, ...]:
        """What a kernel is told of the targets of one block."""
        block = xp.astype(walk.block(self.values, tile, span), self.dtype, copy=False)
        return (block if self.off == 0.0 else self.on * block + self.off,)


class Tile(NamedTuple):
    """A run of rows, flat, and the index that cuts it from an array of the predictions' shape."""

    rows: slice
    cut: tuple[Any, ...]


class Walk:
    """How one array is cut into blocks."""

    def __init__(self, xp: Any, plan: Plan, array: Array):
        self.xp, self.axis = xp, plan.problem.axis
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.classes = self.shape[self.axis]
        self.batch = [size for index, size in enumerate(self.shape) if index != self.axis]
        self.flat = len(self.shape) == 2 and self.axis == 1
        self.middle = self.axis < len(self.shape) - 1 and "middle" in plan.layouts and is_contiguous(array)
        is_last = self.axis == len(self.shape) - 1 and is_contiguous(array)
        # two axes can be turned around and stay a view, whatever the strides
        at_once = plan.block_elements is None and (len(self.shape) == 2 or self.middle or is_last)
        self.middle &= at_once
        self.has_views = self.flat or at_once
        self.limit = self.limit_of(plan, at_once)

    def limit_of(self, plan: Plan, at_once: bool) -> int:
        """The most elements of a block; a kernel that walks by itself gets everything where that takes no copy."""
        self.ours = BLOCK_ELEMENTS if plan.problem.device == "cpu" else DEVICE_BLOCK_ELEMENTS
        if at_once:
            return max(1, int(math.prod(self.shape)))
        if plan.block_elements is None:  # whole rows: how it cuts them is its own affair, on a tile as on everything
            return max(self.ours, self.classes)
        return self.ours if plan.kernel == "generic" else plan.block_elements

    def in_blocks(self, elements: int | None = None) -> Walk:
        """The walk over the same array in blocks of our own size, or of so many elements, whatever the kernel wants."""
        walk = copy.copy(self)
        walk.middle, walk.has_views, walk.limit = False, self.flat, min(self.limit, elements or self.ours)
        return walk

    def tiles(self) -> Iterator[Tile]:
        """Every row once, in order."""
        if not self.batch:
            yield Tile(slice(0, 1), (slice(None),))
            return
        inner = [math.prod(self.batch[index + 1 :]) for index in range(len(self.batch))]  # rows under each batch axis
        split = next((i for i, rows in enumerate(inner) if rows * self.classes <= self.limit), len(inner) - 1)
        step = max(1, self.limit // max(1, inner[split] * self.classes))
        tail = tuple(slice(None) for _ in self.batch[split + 1 :])
        for outer in itertools.product(*(range(size) for size in self.batch[:split])):
            first = math.prod(self.batch[split:]) * flat_index(outer, self.batch[:split])
            for start in range(0, self.batch[split], step):
                stop = min(start + step, self.batch[split])
                index = (*outer, slice(start, stop), *tail)
                index = (*index[: self.axis], slice(None), *index[self.axis :])
                yield Tile(slice(first + start * inner[split], first + stop * inner[split]), index)

    def spans(self) -> list[Span]:
        """The classes of a row, whole where they fit, else in equal parts."""
        parts = max(1, -(-self.classes // self.limit))
        edges = [self.classes * part // parts for part in range(parts + 1)]
        return list(itertools.pairwise(edges))

    def block(self, array: Array, tile: Tile, span: Span) -> Array:
        """One block of an array of the predictions' shape; a view where strides allow.

        (rows, classes); (outer, classes, inner) for a kernel that takes everything with the class axis in the middle.
        """
        if self.middle:
            three = (math.prod(self.shape[: self.axis]), self.classes, -1)
            return self.xp.reshape(array, three)
        if self.flat:
            return array[tile.rows, :] if span == (0, self.classes) else array[tile.rows, span[0] : span[1]]
        index = (*tile.cut[: self.axis], slice(*span), *tile.cut[self.axis + 1 :])
        return self.xp.reshape(self.xp.moveaxis(array[index], self.class_axis(tile), -1), (-1, span[1] - span[0]))

    def view(self, array: Array, tile: Tile, span: Span) -> Array | None:
        """What :meth:`block` takes of an array made like the predictions, where it can be written to; else None."""
        return self.block(array, tile, span) if self.has_views else None

    def class_axis(self, tile: Tile) -> int:
        """Where the class axis is in a tile, whose leading batch axes are indexed away."""
        return sum(isinstance(one, slice) for one in tile.cut[: self.axis])

    def put(self, array: Array, tile: Tile, span: Span, block: Array) -> None:
        """Writes one block to where :meth:`block` takes it from."""
        if self.middle:
            array[...] = self.xp.reshape(block, self.shape)
            return
        index = (*tile.cut[: self.axis], slice(*span), *tile.cut[self.axis + 1 :])
        axis = self.class_axis(tile)
        sizes = [n for one, n in zip(tile.cut, self.shape, strict=True) if isinstance(one, slice)]
        lengths = [
            len(range(*one.indices(n))) for one, n in zip(index, self.shape, strict=True) if isinstance(one, slice)
        ]
        del sizes[axis]
        shape = (*lengths[:axis], *lengths[axis + 1 :], span[1] - span[0])
        array[index] = self.xp.moveaxis(self.xp.reshape(block, shape), -1, axis)


def flat_index(index: tuple[int, ...], shape: list[int]) -> int:
    """The flat position of an index, C order."""
    flat = 0
    for one, size in zip(index, shape, strict=True):
        flat = flat * size + one
    return flat


def is_contiguous(array: Array) -> bool:
    """Whether flattening takes no copy; True where the library does not tell."""
    if hasattr(array, "is_contiguous"):
        return bool(array.is_contiguous())
    return bool(getattr(getattr(array, "flags", None), "c_contiguous", True))


class Work(NamedTuple):
    """One call below the public functions: the plan, its kernel, and the arrays it is about."""

    xp: Any
    plan: Plan
    kernel: Any
    methods: frozenset[str]
    walk: Walk
    logits: Array
    targets: Labels | Soft

    def arguments(self, tile: Tile, span: Span) -> tuple[Any, ...]:
        """The logits and targets of one block, as a kernel's method takes them."""
        block = self.walk.block(self.logits, tile, span)
        return (block, *self.targets.block(self.xp, self.walk, tile, span))

    @property
    def threads(self) -> int:
        return self.plan.problem.threads


def quietly(walk: Any) -> Any:
    """A walk during which NumPy does not warn of infinities and NaN, which are ordinary values here."""

    @functools.wraps(walk)
    def quiet(*arguments: Any) -> Any:
        with arrays.quiet():
            return walk(*arguments)

    return quiet


def joined(xp: Any, parts: list[Array], dtype: Any) -> Array:
    """The rows of all tiles in one array (rows,)."""
    if not parts:
        return xp.zeros((0,), dtype=dtype)
    return parts[0] if len(parts) == 1 else xp.concat(parts)


def tile_partial(work: Work, tile: Tile, spans: list[Span]) -> Partial:
    """The partial of the rows of one tile, over all classes."""
    parts = [work.kernel.partial(*work.arguments(tile, span), threads=work.threads) for span in spans]
    whole: Partial = fold.merge_tree(work.xp, parts)
    return whole


def tile_loss(work: Work, tile: Tile, spans: list[Span]) -> Array:
    """The losses of the rows of one tile."""
    if "loss" in work.methods and len(spans) == 1:
        return work.kernel.loss(*work.arguments(tile, spans[0]), threads=work.threads)
    return fold.finish(work.xp, tile_partial(work, tile, spans))


@quietly
def loss(work: Work, dtype: Any) -> Array:
    """The loss of every row (rows,), before weights."""
    spans = work.walk.spans()
    return joined(work.xp, [tile_loss(work, tile, spans) for tile in work.walk.tiles()], dtype)


@quietly
def partial(work: Work, dtype: Any) -> Partial:
    """The partial of every row."""
    spans = work.walk.spans()
    parts = [tile_partial(work, tile, spans) for tile in work.walk.tiles()]
    return Partial(*(joined(work.xp, [part[field] for part in parts], dtype) for field in range(4)))


def write_gradient(work: Work, tile: Tile, spans: list[Span], whole: Partial, scale: Array, out: Array) -> None:
    """The gradient of one tile, from the partial of its rows."""
    for span in spans:
        arguments = work.arguments(tile, span)
        into = work.walk.view(out, tile, span)
        block = work.kernel.gradient(*arguments, whole, scale, threads=work.threads, out=into)
        if block is not into:
            work.walk.put(out, tile, span, block)


@quietly
def gradient(work: Work, whole: Partial, scale: Array) -> Array:
    """The gradient (the predictions' shape and dtype), from the partial and the scale of every row."""
    out = work.xp.empty_like(work.logits)
    spans = work.walk.spans()
    for tile in work.walk.tiles():
        rows = Partial(*(field[tile.rows] for field in whole))
        write_gradient(work, tile, spans, rows, scale[tile.rows], out)
    return out


@quietly
def loss_and_gradient(work: Work, scale: Array) -> tuple[Array, Array]:
    """The losses of the rows and the gradient, tile by tile: one read and one write of the predictions' size."""
    out = work.xp.empty_like(work.logits)
    spans = work.walk.spans()
    losses = []
    for tile in work.walk.tiles():
        share = scale[tile.rows]
        if "loss_and_gradient" in work.methods and len(spans) == 1:
            into = work.walk.view(out, tile, spans[0])
            one, block = work.kernel.loss_and_gradient(
                *work.arguments(tile, spans[0]), share, threads=work.threads, out=into
            )
            if block is not into:
                work.walk.put(out, tile, spans[0], block)
        else:
            whole = tile_partial(work, tile, spans)
            one = fold.finish(work.xp, whole)
            write_gradient(work, tile, spans, whole, share, out)
        losses.append(one)
    return joined(work.xp, losses, scale.dtype), out


def logits_at_labels(work: Work) -> Array:
    """The logit of each row's label (rows,); of some class where the label is bad."""
    xp, labels, axis = work.xp, work.targets.values, work.walk.axis
    safe = xp.where((labels >= 0) & (labels < work.walk.classes), labels, xp.zeros_like(labels))
    index = xp.expand_dims(xp.reshape(safe, tuple(work.walk.batch)), axis=axis)
    return xp.reshape(xp.take_along_axis(work.logits, index, axis=axis), (-1,))


@quietly
def statistics(work: Work, dtype: Any, label_logits: Array | None = None) -> Statistics:
    """The statistics of every row; ``label_logits`` (rows,) where the label may be among classes that are elsewhere."""
    xp, spans, parts = work.xp, work.walk.spans(), []
    label_logits = logits_at_labels(work) if label_logits is None else label_logits
    for tile in work.walk.tiles():
        label_logit = label_logits[tile.rows]
        pieces = []
        for span in spans:
            block, labels, _, _ = work.arguments(tile, span)
            pieces.append(work.kernel.statistics(block, labels, label_logit, threads=work.threads))
        parts.append(fold.merge_tree(xp, pieces, numbers.merge_statistics))
    partials = Partial(*(joined(xp, [part.partial[field] for part in parts], dtype) for field in range(4)))
    ranks = joined(xp, [part.label_rank for part in parts], xp.int64)
    squares = joined(xp, [part.sum_squares for part in parts], dtype)
    return Statistics(partials, ranks, squares, joined(xp, [part.spread for part in parts], dtype))


@quietly
def map_blocks(work: Work, function: Any, whole: Partial, dtype: Any) -> Array:
    """function(xp, block, partial of its rows) of every block, in the predictions' shape."""
    out = work.xp.empty_like(work.logits, dtype=dtype)
    walk = work.walk.in_blocks()
    spans = walk.spans()
    for tile in walk.tiles():
        rows = Partial(*(field[tile.rows] for field in whole))
        for span in spans:
            walk.put(out, tile, span, function(work.xp, walk.block(work.logits, tile, span), rows))
    return out


def class_weight_of_rows(work: Work, class_weight: Array) -> Array:
    """Σ t_c w_c of every row from the unsmoothed targets; for labels the weight of the label's class."""
    xp = work.xp
    if isinstance(work.targets, Labels):
        classes = work.walk.classes
        labels = work.targets.values
        safe = xp.where((labels >= 0) & (labels < classes), labels, 0)
        return xp.take(class_weight, safe)
    unsmoothed, walk = targets_only(work), work.walk.in_blocks()
    rows = []
    for tile in walk.tiles():
        (block,) = unsmoothed.block(xp, walk, tile, (0, walk.classes))
        rows.append(xp.astype(fold.total(xp, block * class_weight), class_weight.dtype, copy=False))
    return joined(xp, rows, class_weight.dtype)


def targets_only(work: Work) -> Soft:
    """The soft targets of a call as they were before smoothing."""
    assert isinstance(work.targets, Soft)
    return work.targets._replace(on=1.0, off=0.0)
