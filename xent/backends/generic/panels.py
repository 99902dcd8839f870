r"""The gradient of a loss in the operands of a product.

.. math:: \mathrm dh_n = \sum_c g_{nc} w_c, \qquad \mathrm dw_c = \sum_n g_{nc} h_n, \qquad
          \mathrm db_c = \sum_n g_{nc}

with the gradient g in the logits, whose tiles need the partial of their whole rows first. A panel of rows keeps its
logits until that is known, and its gradient is made tile by tile from them: three products for all operands, two for
one, and memory for :func:`panel_rows` × C numbers, half of the gradient of the classifier. Where the partial is known
before, nothing is kept, and each tile is multiplied again.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from ...arrays import Array
from ...linear import LinearGradient
from ...numerics.fold import Partial, wide_dtype
from .blocks import ClassSpan, joined
from .products import LEAST, TiledProduct
from .tiles import ProductCall

STRIP, STRIP_ROWS = 4, 512
"""The most spans of classes whose gradient is made at once, and the most rows of a tile that is made again."""
GROUPS = 8
"""The most groups of strips that are worked on at once."""
PANEL_LEAST, PANEL_MOST = 128, 1024
"""The rows of a panel: of fewer, adding to the gradient of the classifier takes longer than to multiply it."""


def panel_rows(depth: int) -> int:
    """The rows of a panel: half as many as there are features, so that it takes half of the classifier's memory."""
    return min(PANEL_MOST, max(PANEL_LEAST, depth // 2))


class GradientSums(NamedTuple):
    """The gradient while it is added up; None for an operand that it is not asked for in."""

    hidden: Array | None  # (rows, D), in the dtype of the hidden states, as its rows are done
    classifier: Array | None  # (C, D), in the compute dtype
    bias: Array | None  # (C,), wide


def sums_of(call: ProductCall) -> GradientSums:
    """The sums, before any row; what no row is added to is 0."""
    xp, product, of = call.xp, call.product, call.call.plan.problem.of
    device = getattr(product.classifier, "device", None)
    shape, rows = tuple(product.classifier.shape), (product.rows, int(product.hidden.shape[1]))
    classifier = None
    if "classifier" in of:
        classifier = call.new(*shape) if product.rows else xp.zeros(shape, dtype=product.dtype, device=device)
    return GradientSums(
        xp.empty(rows, dtype=product.hidden.dtype, device=device) if "hidden" in of else None,
        classifier,
        xp.zeros(shape[:1], dtype=wide_dtype(xp), device=device) if "bias" in of else None,
    )


class Strip(NamedTuple):
    """Spans of classes side by side, whose gradient is made at once: it is quicker to multiply many classes where the
    gradient is added up, and few where logits are made.
    """

    spans: list[ClassSpan]

    @property
    def whole(self) -> ClassSpan:
        """All their classes."""
        return self.spans[0][0], self.spans[-1][1]

    def halves(self) -> list[Strip]:
        """Its first spans and its last."""
        return [Strip(self.spans[at : at + STRIP // 2]) for at in range(0, len(self.spans), STRIP // 2)]

    @property
    def width(self) -> int:
        """The classes, zeros included."""
        return width_of(self.whole)


def width_of(span: ClassSpan) -> int:
    """The columns of a tile of these classes, zeros included."""
    return max(LEAST, span[1] - span[0])


def strips_of(product: TiledProduct) -> list[Strip]:
    """All classes."""
    spans = product.spans()
    return [Strip(spans[at : at + STRIP]) for at in range(0, len(spans), STRIP)]


class Buffers(NamedTuple):
    """Memory that every strip uses again; None where the library cannot write a product into it."""

    slope: Array  # for the gradient of the logits of one strip (height · width,)
    logits: Array | None  # for the logits of one span (height · width,); None where they are kept
    added: Array | None  # for what is added to a gradient of an operand: (height or width of half a strip, depth)


class Memory(NamedTuple):
    """Memory that every tile of rows uses again."""

    logits: list[Array] | None  # for each span that is kept (height · width,); None where nothing is written into it
    buffers: list[Buffers]  # for each thread: it takes one out and puts it back


def memory_of(call: ProductCall, rows: int, kept: list[ClassSpan]) -> Memory:
    """Memory for tiles of so many rows, and the logits of the spans that are kept."""
    product, height = call.product, call.product.height(rows)
    widest = max(strip.width for strip in strips_of(product))
    if not product.writes:
        return Memory(None, [Buffers(call.new(height * widest), None, None)])
    widest_span = max(map(width_of, product.spans()))
    width_of_halves = max(half.width for strip in strips_of(product) for half in strip.halves())
    buffers = [
        Buffers(
            call.new(height * widest),
            None if kept else call.new(height * widest_span),
            call.new(max(height, width_of_halves), product.depth),
        )
        for _ in range(call.threads)
    ]
    ends = list(itertools.accumulate((height * width_of(span) for span in kept), initial=0))
    logits = call.new(ends[-1])
    return Memory([logits[start:end] for start, end in itertools.pairwise(ends)], buffers)


class PanelTile(NamedTuple):
    """A tile of rows while its gradient is made."""

    rows: slice
    hidden: Array  # (height, depth)
    whole: Partial
    scale: Array


def place_of(memory: Array | None, hidden: Array, span: ClassSpan) -> Array | None:
    """Memory for the logits of a tile (height, width), at the beginning of what is given."""
    if memory is None:
        return None
    rows, width = int(hidden.shape[0]), width_of(span)
    return memory[: rows * width].reshape(rows, width)


def loss_and_gradient(call: ProductCall, scale: Array) -> tuple[Array, LinearGradient[Array]]:
    """The losses of the rows and the gradient, from the scale of each row: panel by panel."""
    sums, losses, product, spans = sums_of(call), [], call.product, call.product.spans()
    height = min(product.rows, panel_rows(product.depth))
    memory = memory_of(call, height, spans)
    for rows in call.row_tiles(max(height, 1)):
        hidden = product.hidden_tile(rows)
        tiles: dict[ClassSpan, Array] = {}

        def folded(number: int, rows: slice = rows, hidden: Array = hidden, tiles: Any = tiles) -> Partial:
            span = spans[number]
            out = place_of(memory.logits[number] if memory.logits else None, hidden, span)
            tiles[span] = product.logits(hidden, product.classifier_tile(span), span, out)
            return call.fold(tiles[span], rows, span)  # type: ignore[no-any-return]

        loss, whole = call.finished(call.shared(folded, range(len(spans))))
        losses.append(loss)
        tile = PanelTile(rows, hidden, whole, scale[rows])
        add_tile(call, sums, memory, tile, lambda span, _, tiles=tiles: tiles[span])  # type: ignore[misc]
    loss = joined(call.xp, losses) if losses else scale
    return loss, gradient_of(call, sums)


def gradient(call: ProductCall, whole: Partial, scale: Array) -> LinearGradient[Array]:
    """The gradient from the partial and the scale of each row: every tile is multiplied again, and none is kept."""
    sums, product = sums_of(call), call.product
    height = min(product.rows, STRIP_ROWS)
    memory = memory_of(call, height, [])
    for rows in call.row_tiles(max(height, 1)):
        hidden = product.hidden_tile(rows)

        def logits(span: ClassSpan, buffers: Buffers, hidden: Array = hidden) -> Array:
            out = place_of(buffers.logits, hidden, span)
            return product.logits(hidden, product.classifier_tile(span), span, out)

        of_rows = Partial(*(field[rows, ...] for field in whole))
        add_tile(call, sums, memory, PanelTile(rows, hidden, of_rows, scale[rows]), logits)
    return gradient_of(call, sums)


def add_tile(
    call: ProductCall,
    sums: GradientSums,
    memory: Memory,
    tile: PanelTile,
    logits: Callable[[ClassSpan, Buffers], Array],
) -> None:
    """Adds what a tile of rows says to the sums; ``logits`` are those of each span.

    Each group of strips has a total of its own for the hidden states, so that the order in which they are added does
    not depend on the threads.
    """
    strips = strips_of(call.product)
    edges = [len(strips) * part // min(GROUPS, len(strips)) for part in range(min(GROUPS, len(strips)) + 1)]

    def add_group(group: tuple[int, int]) -> Array | None:
        buffers, total = memory.buffers.pop(), None
        for strip in reversed(strips[slice(*group)]):  # the last are in the cache still
            slope = slope_like(call.xp, buffers, tile, strip)
            for span in strip.spans:
                write_slope(call, tile, strip, span, logits(span, buffers), slope)
            total = add_strip(call, sums, buffers, tile, strip, slope, total)
        memory.buffers.append(buffers)
        return total

    whole = functools.reduce(with_total, call.shared(add_group, itertools.pairwise(edges)))
    if sums.hidden is not None:
        rows, depth = tile.rows.stop - tile.rows.start, sums.hidden.shape[1]
        sums.hidden[tile.rows, :] = call.xp.astype(whole[:rows, :depth], sums.hidden.dtype, copy=False)


def with_total(total: Array | None, other: Array | None) -> Array | None:
    """A total and that of the next group of strips, in the memory of the first; None if there are none."""
    if total is not None:
        total += other
    return total


def add_strip(
    call: ProductCall,
    sums: GradientSums,
    buffers: Buffers,
    tile: PanelTile,
    strip: Strip,
    slope: Array,
    total: Array | None,
) -> Array | None:
    """Adds what a strip of a tile says to the sums; returns the total (height, depth) for the hidden states, if any."""
    product, (first, last) = call.product, strip.whole
    if sums.classifier is not None:
        add_classifier(product, sums.classifier, buffers, tile, strip, slope)
    if sums.bias is not None:
        sums.bias[first:last] += call.xp.sum(slope[:, : last - first], axis=0, dtype=sums.bias.dtype)
    if sums.hidden is None:
        return None
    classifier = product.classifier_tile(strip.whole)
    if total is None:
        return product.multiply(slope, classifier)
    out = None if buffers.added is None else buffers.added[: slope.shape[0], :]
    total += product.multiply(slope, classifier, out)
    return total


def add_classifier(
    product: TiledProduct, classifier: Array, buffers: Buffers, tile: PanelTile, strip: Strip, slope: Array
) -> None:
    """Adds what a strip of a tile says to the gradient of the classifier (C, D); the first rows are written there.

    Half a strip at once takes no longer than a whole one, and half the memory.
    """
    is_first, start = tile.rows.start == 0, strip.whole[0]
    for half in strip.halves():
        (first, last), width = half.whole, half.width
        place, columns = classifier[first:last, :], slope[:, first - start : first - start + width]
        if is_first and product.writes and tuple(place.shape) == (width, product.depth):
            product.multiply(columns.T, tile.hidden, place)
            continue
        out = None if buffers.added is None else buffers.added[:width, :]
        added = product.multiply(columns.T, tile.hidden, out)[: place.shape[0], : place.shape[1]]
        if is_first:
            place[...] = added
        else:
            place += added


def slope_like(xp: Any, buffers: Buffers, tile: PanelTile, strip: Strip) -> Array:
    """Memory for the gradient of the logits of a tile and a strip, (height, width)."""
    height = int(tile.hidden.shape[0])
    return xp.reshape(buffers.slope[: height * strip.width], (height, strip.width))


def write_slope(call: ProductCall, tile: PanelTile, strip: Strip, span: ClassSpan, x: Array, slope: Array) -> None:
    """Writes the gradient in a tile of logits before its softcap into its columns of a strip's, with zeros for the rows
    and classes that are none.
    """
    first, rows, width = span[0] - strip.whole[0], tile.rows.stop - tile.rows.start, span[1] - span[0]
    columns = slope[:, first : first + int(x.shape[1])]
    for part in call.parts(rows, width):
        out = columns[part, :width]
        block = call.call.kernel.gradient(
            *call.arguments(x, tile.rows, part, span),
            Partial(*(field[part, ...] for field in tile.whole)),
            tile.scale[part],
            threads=call.call.threads,
            out=out,
        )
        if block is not out:
            columns[part, :width] = block
    columns[rows:, :] = 0.0
    columns[:, width:] = 0.0
    uncapped = call.product.uncap(columns, x, span)
    if uncapped is not columns:
        columns[...] = uncapped


def gradient_of(call: ProductCall, sums: GradientSums) -> LinearGradient[Array]:
    """The gradient, each in the dtype of its operand; the hidden states flat."""
    xp, linear = call.xp, call.call.logits
    classifier, bias = sums.classifier, sums.bias
    return LinearGradient(
        sums.hidden,
        None if classifier is None else xp.astype(classifier, linear.classifier.dtype, copy=False),
        None if bias is None else xp.astype(bias, linear.bias.dtype, copy=False),
    )
