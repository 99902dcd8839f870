"""A call on a product, tile by tile: a kernel is handed each tile of logits while it is in the cache.

Leaves out how a tile is multiplied (``products.py``), the gradients (``panels.py``) and weights (``linear.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ... import arrays
from ...arrays import Array
from ...numerics import fold, listed
from ...numerics import statistics as numbers
from ...numerics.fold import Partial
from ...numerics.statistics import Statistics
from .blocks import ClassSpan, KernelCall, LabelTargets, ListedTargets, RowTile, SoftTargets, Tiling, joined
from .products import LEAST, ROWS, TiledProduct
from .threads import in_threads

FEWEST_ROWS = 128
"""The fewest rows of a tile that is made smaller for all threads to have one."""


class ProductCall(NamedTuple):
    """One call: the kernel that takes the tiles and the targets of the rows, and the product that makes the tiles."""

    call: KernelCall
    product: TiledProduct
    threads: int = 1
    """Those of xent's own that share the tiles; the kernel and BLAS take one then."""
    empty: Callable[[tuple[int, ...], Any], Array] | None = None
    """Returns new memory of a shape and dtype, where the library has a better way than its own ``empty``."""

    @property
    def xp(self) -> Any:
        return self.call.xp

    def new(self, *shape: int) -> Array:
        """New memory in the compute dtype, on the device of the product."""
        if self.empty is not None:
            return self.empty(shape, self.product.dtype)
        return self.xp.empty(shape, dtype=self.product.dtype, device=getattr(self.product.hidden, "device", None))

    def row_tiles(self, rows: int = ROWS) -> Iterator[slice]:
        """The rows in order, at most so many at once."""
        count = self.product.rows
        return (slice(first, min(first + rows, count)) for first in range(0, count, rows))

    def parts(self, rows: int, width: int) -> Iterator[slice]:
        """The rows of a tile in parts that fit the blocks of the kernel; one without rows if there are none."""
        limit = self.call.tiling.limit
        step = max(1, limit // max(1, width))
        return (slice(first, min(first + step, rows)) for first in range(0, max(rows, 1), step))

    def arguments(self, x: Array, tile: slice, part: slice, span: ClassSpan) -> tuple[Any, ...]:
        """The logits and targets of a part of the tile ``x``, which begins at a row of its own."""
        rows = slice(tile.start + part.start, tile.start + part.stop)
        key = RowTile(rows, (rows, slice(None)))
        block = x[part, : span[1] - span[0]]
        return (block, *self.call.targets.block(self.xp, self.call.tiling, key, span))

    def fold(self, x: Array, tile: slice, span: ClassSpan, method: str = "partial", *more: Any) -> Any:
        """What a method of the kernel says of a tile of logits, its arrays joined; ``more`` are (rows,)."""
        function, rows = getattr(self.call.kernel, method), tile.stop - tile.start
        results = [
            function(
                *self.arguments(x, tile, part, span)[: 2 if method == "statistics" else None],
                *(value[part, ...] for value in more),
                threads=self.call.threads,
            )
            for part in self.parts(rows, span[1] - span[0])
        ]
        return results[0] if len(results) == 1 else concatenated(self.xp, results)

    def tiles_of_rows(self, hidden: Array) -> Iterator[tuple[ClassSpan, Array]]:
        """The logits (height, width) of a tile of rows and each span of classes, in the memory of the one before."""
        memory = self.memory(hidden)
        for span in self.product.spans():
            out = self.within(memory, hidden, span)
            yield span, self.product.logits(hidden, self.product.classifier_tile(span), span, out)

    def partials_of_tile(self, hidden: Array, tile: slice) -> Iterator[Partial]:
        """The partial of the rows of a tile over each span of classes."""
        return (self.fold(x, tile, span) for span, x in self.tiles_of_rows(hidden))

    def memory(self, hidden: Array) -> Array | None:
        """Memory for the widest tile of so many rows; None if the library cannot multiply into it."""
        if not self.product.writes:
            return None
        width = max(max(LEAST, last - first) for first, last in self.product.spans())
        return self.xp.empty((hidden.shape[0] * width,), dtype=self.product.dtype)

    def within(self, memory: Array | None, hidden: Array, span: ClassSpan) -> Array | None:
        """The first elements of the memory, as a tile of these classes."""
        if memory is None:
            return None
        rows, width = int(hidden.shape[0]), max(LEAST, span[1] - span[0])
        return self.xp.reshape(memory[: rows * width], (rows, width))

    def logits_at_labels(self, hidden: Array, tile: slice) -> Array:
        """The logit of each row's label, with the bits that it has in its tile; −inf if the label is in none."""
        assert isinstance(self.call.targets, LabelTargets)
        xp, labels, spans = self.xp, self.call.targets.labels[tile], self.product.spans()
        inside = (labels >= 0) & (labels < self.product.classes)
        if len(spans) == 1:
            x = self.product.logits(hidden, self.product.classifier_tile(spans[0]), spans[0])
            at_label = fold.gather(xp, x[: tile.stop - tile.start, : spans[0][1]], labels)[0]
        else:
            at_label = self.product.at_labels(hidden, labels)
        return xp.where(inside, at_label, -math.inf)

    def statistics_of_tile(self, hidden: Array, tile: slice, label_logits: Array | None = None) -> Statistics:
        """The statistics of the rows of a tile; ``label_logits`` (rows,) are given where a label may be elsewhere."""
        if label_logits is None:
            label_logits = self.logits_at_labels(hidden, tile)
        parts = (self.fold(x, tile, span, "statistics", label_logits) for span, x in self.tiles_of_rows(hidden))
        whole: Statistics = fold.merge_tree(self.xp, parts, numbers.merge_statistics)
        return whole

    def finished(self, parts: Iterable[Partial]) -> tuple[Array, Partial]:
        """The losses of rows and their partial, from the partials of every span of classes."""
        whole: Partial = fold.merge_tree(self.xp, parts)
        return listed.finish(self.xp, whole), whole

    def of_rows(self, function: Callable[[Array, slice], Any]) -> list[Any]:
        """function(hidden, tile) of every tile of rows; of one without rows if there are none."""
        rows = min(ROWS, max(FEWEST_ROWS, -(-self.product.rows // self.threads)))
        tiles = list(self.row_tiles(rows)) or [slice(0, 0)]
        return list(self.shared(lambda tile: function(self.product.hidden_tile(tile), tile), tiles))

    def shared(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        """work(item) of every item in order, by the threads of the call; by one, each when it is asked for."""

        def quietly(item: Any) -> Any:
            with arrays.without_fp_warnings():  # each thread has warnings of its own
                return work(item)

        return in_threads(quietly, items, self.threads) if self.threads > 1 else map(work, items)

    def take(self, rows: Array) -> ProductCall:
        """The call for some of the rows."""
        targets: Any = self.call.targets
        if isinstance(targets, LabelTargets):
            targets = targets._replace(labels=self.xp.take(targets.labels, rows))
        elif isinstance(targets, ListedTargets):
            targets = targets.take(self.xp, rows)
        else:
            targets = TargetsOfRows(targets, rows)
        return self._replace(call=self.call._replace(targets=targets), product=self.product._replace(chosen=rows))


class TargetsOfRows(NamedTuple):
    """Soft targets of some of the rows, which are taken block by block."""

    soft: SoftTargets
    rows: Array

    def block(self, xp: Any, tiling: Tiling, tile: RowTile, span: ClassSpan) -> tuple[Any, ...]:
        """The arguments of a kernel for the targets of one block."""
        columns = self.soft.targets[:, span[0] : span[1]]
        block = self.soft._replace(targets=xp.take(columns, self.rows[tile.rows], axis=0))
        rows = slice(0, int(block.targets.shape[0]))
        return block.block(xp, tiling, RowTile(rows, (rows, slice(None))), (0, span[1] - span[0]))


class Chosen(NamedTuple):
    """Some rows of a call, and the way back: operations whose shapes no library needs the data for, but the count."""

    xp: Any
    rows: Array  # the chosen rows, in order
    place: Array  # (all rows,) where each row is among the chosen ones and, after them, the others

    def spread(self, values: Array, nothing: float = 0.0) -> Array:
        """Values of the chosen rows, (chosen, ...), in their places among all, and ``nothing`` in the others."""
        missing = int(self.place.shape[0]) - int(self.rows.shape[0])
        device = getattr(values, "device", None)
        rest = self.xp.full((missing, *values.shape[1:]), nothing, dtype=values.dtype, device=device)
        return self.xp.take(self.xp.concat([values, rest]), self.place, axis=0)


def chosen_rows(xp: Any, left_out: Array) -> Chosen:
    """The rows that are not left out; ``left_out`` (rows,) is bool."""
    numbers = xp.astype(left_out, xp.int8)
    order, count = xp.argsort(numbers, stable=True), int(xp.sum(xp.astype(~left_out, xp.int64)))
    return Chosen(xp, order[:count], xp.argsort(order, stable=True))


def concatenated(xp: Any, results: list[Any]) -> Any:
    """The arrays of several results, field by field, joined along the rows."""
    if not isinstance(results[0], tuple):
        return joined(xp, results)
    return type(results[0])(*(concatenated(xp, list(fields)) for fields in zip(*results, strict=True)))
