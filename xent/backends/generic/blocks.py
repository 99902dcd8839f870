"""One concrete array in blocks that fit the cache, whatever its rank, strides and class axis.

A tile is a run of consecutive rows with all their classes, cut from the array by plain indexing. A block is a tile, or
a span of its classes if a single row is larger than a block; a kernel takes it as (rows, classes). Spans depend on the
number of classes alone, so a row's numbers do not depend on its neighbours. Rows are counted flat, in C order.

Leaves out weights, ignored rows and reductions (``schedule.py``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from ... import arrays
from ...arrays import Array
from ...contract.plan import Plan
from ...numerics import fold, listed
from ...numerics import statistics as numbers
from ...numerics.fold import Partial
from ...numerics.statistics import Statistics

BLOCK_ELEMENTS = 1 << 16
DEVICE_BLOCK_ELEMENTS = 1 << 24
CONVERTED_ELEMENTS = 1 << 18
"""The most soft targets that are widened or smoothed at once for a kernel that takes blocks of any size."""
ClassSpan = tuple[int, int]
"""The first class of a block and the one after its last."""


class RowTile(NamedTuple):
    """A run of rows, counted flat, and the key that cuts it from an array of the predictions' shape."""

    rows: slice
    key: tuple[Any, ...]


class Tiling(NamedTuple):
    """How arrays of the predictions' shape are cut into blocks."""

    xp: Any
    axis: int
    shape: tuple[int, ...]
    batch: tuple[int, ...]
    rows: int
    classes: int
    layout: Literal["rows", "middle", "strided"]
    """"rows": the array is (rows, classes) itself; "middle": one block (outer, classes, inner); "strided": the rest."""
    limit: int
    """The most elements of a block."""
    own_limit: int
    """The most elements of a block for xent's own expressions on this device."""
    has_views: bool
    """Whether a block of an array made like the predictions can be written to."""

    def in_blocks(self, elements: int | None = None) -> Tiling:
        """The same array in blocks of at most so many elements, by default of xent's own size."""
        layout: Any = "strided" if self.layout == "middle" else self.layout
        limit = min(self.limit, elements or self.own_limit)
        return self._replace(layout=layout, has_views=layout == "rows", limit=limit)

    def in_whole_rows(self) -> Tiling:
        """The same, with at least one whole row in each block."""
        return self if self.limit >= self.classes else self._replace(limit=self.classes)

    def in_copies(self, at_once: bool) -> Tiling:
        """The same with blocks that are put into an array after they are made; those of a kernel that tiles by itself,
        which has all ``at_once``, in whole rows of xent's own size.
        """
        return (self.in_blocks().in_whole_rows() if at_once else self)._replace(has_views=False)

    def tiles(self) -> Iterator[RowTile]:
        """Every row once, in order; one tile without rows if there are none."""
        if self.rows * self.classes <= self.limit or not self.batch:
            yield RowTile(slice(0, self.rows), (slice(None),) * len(self.shape))
            return
        batch = self.batch
        inner = [math.prod(batch[index + 1 :]) for index in range(len(batch))]  # rows under each batch axis
        split = next((i for i, rows in enumerate(inner) if rows * self.classes <= self.limit), len(inner) - 1)
        step = max(1, self.limit // max(1, inner[split] * self.classes))
        rows_per_outer, tail = math.prod(batch[split:]), tuple(slice(None) for _ in batch[split + 1 :])
        for number, outer in enumerate(itertools.product(*(range(size) for size in batch[:split]))):
            first = number * rows_per_outer
            for start in range(0, batch[split], step):
                stop = min(start + step, batch[split])
                index = (*outer, slice(start, stop), *tail)
                index = (*index[: self.axis], slice(None), *index[self.axis :])
                yield RowTile(slice(first + start * inner[split], first + stop * inner[split]), index)

    def spans(self) -> list[ClassSpan]:
        """The classes of a row: one span if they fit into a block, else spans of equal size."""
        if self.classes <= self.limit:
            return [(0, self.classes)]
        parts = -(-self.classes // self.limit)
        edges = [self.classes * part // parts for part in range(parts + 1)]
        return list(itertools.pairwise(edges))

    def block(self, array: Array, tile: RowTile, span: ClassSpan) -> Array:
        """One block of an array of the predictions' shape, (rows, classes); a view where strides allow.

        (outer, classes, inner) in the layout "middle".
        """
        if self.layout == "rows":
            return array[tile.rows, :] if span == (0, self.classes) else array[tile.rows, span[0] : span[1]]
        if self.layout == "middle":
            # subtle: all three sizes are said, for -1 has no meaning in an empty array
            inner = math.prod(self.shape[self.axis + 1 :])
            return self.xp.reshape(array, (math.prod(self.shape[: self.axis]), self.classes, inner))
        index = (*tile.key[: self.axis], slice(*span), *tile.key[self.axis + 1 :])
        return self.xp.reshape(self.xp.moveaxis(array[index], self.class_axis(tile), -1), (-1, span[1] - span[0]))

    def view(self, array: Array, tile: RowTile, span: ClassSpan) -> Array | None:
        """The block of an array made like the predictions, if it can be written to; else None."""
        return self.block(array, tile, span) if self.has_views else None

    def class_axis(self, tile: RowTile) -> int:
        """The class axis of a tile, whose leading batch axes are indexed away."""
        return sum(isinstance(part, slice) for part in tile.key[: self.axis])

    def put(self, array: Array, tile: RowTile, span: ClassSpan, block: Array) -> None:
        """Writes one block into an array, at the place that :meth:`block` reads."""
        if self.layout == "middle":
            array[...] = self.xp.reshape(block, self.shape)
            return
        index = (*tile.key[: self.axis], slice(*span), *tile.key[self.axis + 1 :])
        axis = self.class_axis(tile)
        lengths = [
            len(range(*part.indices(size)))
            for part, size in zip(index, self.shape, strict=True)
            if isinstance(part, slice)
        ]
        shape = (*lengths[:axis], *lengths[axis + 1 :], span[1] - span[0])
        array[index] = self.xp.moveaxis(self.xp.reshape(block, shape), -1, axis)


def tiling_of(xp: Any, plan: Plan, array: Array) -> Tiling:
    """The blocks of one array, by the wishes of the plan's kernel.

    A kernel without a limit of its own gets the whole array, if that takes no copy, and tiles by itself.
    """
    shape, axis = tuple(array.shape), plan.problem.axis
    ndim, classes, batch = len(shape), shape[axis], (*shape[:axis], *shape[axis + 1 :])
    rows = batch[0] if ndim == 2 else math.prod(batch)
    own_limit = limit = BLOCK_ELEMENTS if plan.problem.device == "cpu" else DEVICE_BLOCK_ELEMENTS
    is_flat, at_once, layout = ndim == 2 and axis == 1, False, "strided"
    if plan.block_elements is None:
        is_middle = axis < ndim - 1 and "middle" in plan.layouts and is_contiguous(array)
        # two axes can be turned around and stay a view, whatever the strides
        at_once = ndim == 2 or is_middle or (axis == ndim - 1 and is_contiguous(array))
        layout = "middle" if is_middle else layout
        limit = max(classes, rows * classes) if at_once else max(own_limit, classes)
    elif plan.kernel != "generic":
        limit = plan.block_elements
    layout = "rows" if is_flat else layout
    return Tiling(xp, axis, shape, batch, rows, classes, layout, limit, own_limit, is_flat or at_once)  # type: ignore[arg-type]


def may_fill(plan: Plan, logits: Array, out: Array) -> bool:
    """Whether the plan's kernel may be given an array of the caller's for its gradient: strided as logits that it
    takes, aligned and in this machine's byte order, and none of the logits' memory unless it is made for that.
    """
    flags, strides = getattr(out, "flags", None), tuple(getattr(out, "strides", None) or ())
    if not getattr(flags, "aligned", True) or not getattr(out.dtype, "isnative", True):
        return False
    if not plan.in_place and arrays.is_same_memory(arrays.memory(out), arrays.memory(logits)):
        return False
    if plan.guard is not None and not plan.guard(tuple(out.shape), strides):
        return False
    return out.ndim == 2 or is_contiguous(out)


def is_contiguous(array: Array) -> bool:
    """Whether flattening takes no copy; True if the library does not say."""
    if hasattr(array, "is_contiguous"):
        return bool(array.is_contiguous())
    return bool(getattr(getattr(array, "flags", None), "c_contiguous", True))


class LabelTargets(NamedTuple):
    """Targets as labels (rows,), wide; t_j = on · [j = label] + off."""

    labels: Array
    on: float
    off: float

    def block(self, xp: Any, tiling: Tiling, tile: RowTile, span: ClassSpan) -> tuple[Any, ...]:
        """The arguments of a kernel for the targets of one block."""
        labels = self.labels[tile.rows]
        return (labels - span[0] if span[0] else labels), self.on, self.off


class SoftTargets(NamedTuple):
    """Dense targets in the shape of the predictions, and how they are smoothed: on · t + off."""

    targets: Array
    on: float
    off: float
    dtype: Any

    def block(self, xp: Any, tiling: Tiling, tile: RowTile, span: ClassSpan) -> tuple[Any, ...]:
        """The arguments of a kernel for the targets of one block."""
        block = xp.astype(tiling.block(self.targets, tile, span), self.dtype, copy=False)
        return (block if self.off == 0.0 else self.on * block + self.off,)


class ListedTargets(NamedTuple):
    """Soft targets of a few classes for each row, which are scattered block by block, and how they are smoothed."""

    ids: Array  # (rows, k), wide, counted from the first class
    weights: Array  # (rows, k), in the compute dtype
    on: float
    off: float
    tail: Array | None = None  # (rows,): the target of all other classes together

    def block(self, xp: Any, tiling: Tiling, tile: RowTile, span: ClassSpan) -> tuple[Any, ...]:
        """The arguments of a kernel for the targets of one block; those of a :class:`TailFold` if there is a tail."""
        ids, weights, classes = self.ids[tile.rows, :] - span[0], self.weights[tile.rows, :], span[1] - span[0]
        block = listed.scattered(xp, ids, weights, classes)
        if self.tail is None:
            return (block if self.off == 0.0 else self.on * block + self.off,)
        tail = self.tail[tile.rows]
        # the spans are added up, and the tail is one class of all of them
        return block, listed.is_listed(xp, ids, classes, block.dtype), tail if span[0] == 0 else xp.zeros_like(tail)

    def take(self, xp: Any, rows: Array) -> ListedTargets:
        """The targets of some of the rows."""
        ids, weights = (xp.take(array, rows, axis=0) for array in (self.ids, self.weights))
        return self._replace(
            ids=ids, weights=weights, tail=None if self.tail is None else xp.take(self.tail, rows, axis=0)
        )


class TailFold:
    """A kernel for soft targets whose other classes are one: it is called for the listed classes, and for the others.

    Its partial has two columns (``numerics/listed.py``).
    """

    def __init__(self, kernel: Any):
        self.kernel = kernel

    def partial(self, logits: Array, targets: Array, is_listed: Array, tail: Array, *, threads: int) -> Partial:
        xp = arrays.namespace(logits)
        inside, outside = listed.masked(xp, logits, is_listed)
        head = self.kernel.partial(inside, targets, threads=threads)
        rest = self.kernel.partial(outside, xp.zeros_like(targets), threads=threads)
        return listed.both(xp, head, rest._replace(target_sum=tail))

    def gradient(
        self,
        logits: Array,
        targets: Array,
        is_listed: Array,
        tail: Array,
        partial: Partial,
        scale: Array,
        *,
        threads: int,
        out: Array | None = None,
    ) -> Array:
        xp = arrays.namespace(logits)
        _, others = listed.columns(partial)
        targets = targets + listed.tail_targets(xp, logits, is_listed, others)
        gradient: Array = self.kernel.gradient(
            logits, targets, listed.whole_of(xp, partial), scale, threads=threads, out=out
        )
        return gradient


class KernelCall(NamedTuple):
    """One call below the public functions: its plan, its kernel and its arrays."""

    xp: Any
    plan: Plan
    kernel: Any
    methods: frozenset[str]
    tiling: Tiling
    logits: Array
    targets: LabelTargets | SoftTargets | ListedTargets
    out: Array | None = None
    """The caller's array for the gradient, which may be the logits; None for a new one."""

    def arguments(self, tile: RowTile, span: ClassSpan) -> tuple[Any, ...]:
        """The logits and targets of one block, as a kernel's method takes them."""
        block = self.tiling.block(self.logits, tile, span)
        return (block, *self.targets.block(self.xp, self.tiling, tile, span))

    @property
    def threads(self) -> int:
        return self.plan.problem.threads


def joined(xp: Any, parts: list[Array]) -> Array:
    """The rows of all tiles, of which there is at least one, in one array (rows,)."""
    return parts[0] if len(parts) == 1 else xp.concat(parts)


def partial_of_tile(call: KernelCall, tile: RowTile, spans: list[ClassSpan]) -> Partial:
    """The partial of the rows of one tile, over all classes."""
    parts = [call.kernel.partial(*call.arguments(tile, span), threads=call.threads) for span in spans]
    whole: Partial = fold.merge_tree(call.xp, parts)
    return whole


def loss_of_tile(call: KernelCall, tile: RowTile, spans: list[ClassSpan]) -> Array:
    """The losses of the rows of one tile."""
    if "loss" in call.methods and len(spans) == 1:
        return call.kernel.loss(*call.arguments(tile, spans[0]), threads=call.threads)
    return listed.finish(call.xp, partial_of_tile(call, tile, spans))


def loss(call: KernelCall) -> Array:
    """The loss of every row (rows,), before weights."""
    spans = call.tiling.spans()
    return joined(call.xp, [loss_of_tile(call, tile, spans) for tile in call.tiling.tiles()])


def partial(call: KernelCall) -> Partial:
    """The partial of every row."""
    spans = call.tiling.spans()
    parts = [partial_of_tile(call, tile, spans) for tile in call.tiling.tiles()]
    return Partial(*(joined(call.xp, [part[field] for part in parts]) for field in range(4)))


def loss_and_partial(call: KernelCall) -> tuple[Array, Partial]:
    """The loss of every row, with the bits of :func:`loss` if the kernel has both in one, and the partial."""
    spans = call.tiling.spans()
    losses, parts = [], []
    for tile in call.tiling.tiles():
        if "loss_and_partial" in call.methods and len(spans) == 1:
            loss, part = call.kernel.loss_and_partial(*call.arguments(tile, spans[0]), threads=call.threads)
        else:
            part = partial_of_tile(call, tile, spans)
            loss = listed.finish(call.xp, part)
        losses.append(loss)
        parts.append(part)
    return joined(call.xp, losses), Partial(*(joined(call.xp, [part[field] for part in parts]) for field in range(4)))


def write_gradient(
    call: KernelCall, tile: RowTile, spans: list[ClassSpan], whole: Partial, scale: Array, out: Array
) -> None:
    """Writes the gradient of one tile, from the partial of its rows."""
    for span in spans:
        view = call.tiling.view(out, tile, span)
        arguments = call.arguments(tile, span)
        block = call.kernel.gradient(*arguments, whole, scale, threads=call.threads, out=view)
        if block is not view:
            call.tiling.put(out, tile, span, block)


def gradient(call: KernelCall, whole: Partial, scale: Array) -> Array:
    """The gradient (the predictions' shape and dtype), from the partial and the scale of every row."""
    out = call.xp.empty_like(call.logits)
    spans = call.tiling.spans()
    for tile in call.tiling.tiles():
        rows = Partial(*(field[tile.rows, ...] for field in whole))
        write_gradient(call, tile, spans, rows, scale[tile.rows], out)
    return out


def loss_and_gradient(call: KernelCall, scale: Array) -> tuple[Array, Array]:
    """The losses of the rows and the gradient, tile by tile: one read and one write of the predictions' size."""
    out = call.xp.empty_like(call.logits) if call.out is None else call.out
    spans = call.tiling.spans()
    losses = []
    for tile in call.tiling.tiles():
        scale_of_tile = scale[tile.rows]
        if "loss_and_gradient" in call.methods and len(spans) == 1:
            view = call.tiling.view(out, tile, spans[0])
            arguments = call.arguments(tile, spans[0])
            loss, block = call.kernel.loss_and_gradient(*arguments, scale_of_tile, threads=call.threads, out=view)
            if block is not view:
                call.tiling.put(out, tile, spans[0], block)
        else:
            whole = partial_of_tile(call, tile, spans)
            loss = listed.finish(call.xp, whole)
            write_gradient(call, tile, spans, whole, scale_of_tile, out)
        losses.append(loss)
    return joined(call.xp, losses), out


def logits_at_labels(call: KernelCall) -> Array:
    """The logit of each row's label (rows,); of some class if the label is bad."""
    assert isinstance(call.targets, LabelTargets)
    xp, labels, axis = call.xp, call.targets.labels, call.tiling.axis
    safe = xp.where((labels >= 0) & (labels < call.tiling.classes), labels, xp.zeros_like(labels))
    index = xp.expand_dims(xp.reshape(safe, call.tiling.batch), axis=axis)
    return xp.reshape(xp.take_along_axis(call.logits, index, axis=axis), (-1,))


def statistics(call: KernelCall, label_logits: Array | None = None) -> Statistics:
    """The statistics of every row.

    ``label_logits`` (rows,) is given if the label may be among classes that are not in this array.
    """
    xp, spans, parts = call.xp, call.tiling.spans(), []
    label_logits = logits_at_labels(call) if label_logits is None else label_logits
    for tile in call.tiling.tiles():
        label_logit = label_logits[tile.rows]
        pieces = []
        for span in spans:
            block, labels, _, _ = call.arguments(tile, span)
            pieces.append(call.kernel.statistics(block, labels, label_logit, threads=call.threads))
        parts.append(fold.merge_tree(xp, pieces, numbers.merge_statistics))
    partials = Partial(*(joined(xp, [part.partial[field] for part in parts]) for field in range(4)))
    ranks = joined(xp, [part.label_rank for part in parts])
    squares = joined(xp, [part.sum_squares for part in parts])
    return Statistics(partials, ranks, squares, joined(xp, [part.spread for part in parts]))


def map_blocks(call: KernelCall, function: Any, whole: Partial, dtype: Any) -> Array:
    """function(xp, block, partial of its rows) of every block, in the predictions' shape."""
    out = call.xp.empty_like(call.logits, dtype=dtype)
    tiling = call.tiling.in_blocks()
    spans = tiling.spans()
    for tile in tiling.tiles():
        rows = Partial(*(field[tile.rows, ...] for field in whole))
        for span in spans:
            tiling.put(out, tile, span, function(call.xp, tiling.block(call.logits, tile, span), rows))
    return out


def class_weight_of_targets(xp: Any, tiling: Tiling, soft: Array, class_weight: Array) -> Array:
    """Σ t_c w_c of every row (rows,), in the dtype of ``class_weight``, from targets before smoothing."""
    targets, tiling = SoftTargets(soft, 1.0, 0.0, class_weight.dtype), tiling.in_blocks()
    rows = []
    for tile in tiling.tiles():
        (block,) = targets.block(xp, tiling, tile, (0, tiling.classes))
        rows.append(xp.astype(fold.total(xp, block * class_weight), class_weight.dtype, copy=False))
    return joined(xp, rows)
