r"""The gradient of a loss in the operands of a product.

.. math:: \mathrm dh_n = \sum_c g_{nc} w_c, \qquad \mathrm dw_c = \sum_n g_{nc} h_n, \qquad
          \mathrm db_c = \sum_n g_{nc}

with the gradient g in the logits, whose tiles need the partial of their whole rows first. A panel of rows keeps its
logits until that is known, and its gradient is made tile by tile from them: three products for all operands, two for
one, and memory for :func:`panel_rows` × C numbers, half of the gradient of the classifier. Where the partial is known
before, nothing is kept, and each tile is multiplied again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...arrays import Array
from ...linear import LinearGradient
from ...numerics.fold import Partial, wide_dtype
from .blocks import ClassSpan, joined
from .products import LEAST, TiledProduct
from .tiles import ProductCall

STRIP, STRIP_ROWS = 4, 512
"""The most spans of classes whose gradient is made at once, and the most rows of a tile that is made again."""
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
    make = xp.empty if product.rows else xp.zeros
    return GradientSums(
        xp.empty(rows, dtype=product.hidden.dtype, device=device) if "hidden" in of else None,
        make(shape, dtype=product.dtype, device=device) if "classifier" in of else None,
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


class Memory(NamedTuple):
    """Memory that every tile uses again; None where the library cannot write a product into it."""

    logits: list[Array] | None  # for each span (height · width,)
    slope: Array  # for the gradient of the logits of one strip (height · width,)
    of_hidden: Array | None  # for what one strip adds to the gradient of the hidden states (height, depth)
    of_classifier: Array | None  # the same of the classifier (width, depth)


def memory_of(call: ProductCall, rows: int, strips: list[Strip], spans: int) -> Memory:
    """Memory for tiles of so many rows, and the logits of so many spans of classes."""
    product, height = call.product, call.product.height(rows)
    widest = max(strip.width for strip in strips)

    def empty(*shape: int) -> Array:
        return call.xp.empty(shape, dtype=product.dtype, device=getattr(product.hidden, "device", None))

    slope = empty(height * widest)
    if not product.writes:
        return Memory(None, slope, None, None)
    logits = [empty(height * width_of(span)) for strip in strips for span in strip.spans][:spans]
    return Memory(logits, slope, empty(height, product.depth), empty(widest, product.depth))


class PanelTile(NamedTuple):
    """A tile of rows while its gradient is made."""

    rows: slice
    hidden: Array  # (height, depth)
    whole: Partial
    scale: Array
    total: Array  # (height, depth): the gradient of the hidden states, added up


def place_of(memory: Memory, number: int, hidden: Array, span: ClassSpan) -> Array | None:
    """The memory of a span for the logits of a tile, (height, width)."""
    if memory.logits is None:
        return None
    rows, width = int(hidden.shape[0]), width_of(span)
    return memory.logits[number][: rows * width].reshape(rows, width)


def loss_and_gradient(call: ProductCall, scale: Array) -> tuple[Array, LinearGradient[Array]]:
    """The losses of the rows and the gradient, from the scale of each row: panel by panel."""
    sums, losses, product, strips = sums_of(call), [], call.product, strips_of(call.product)
    height, spans = min(product.rows, panel_rows(product.depth)), product.spans()
    memory = memory_of(call, height, strips, len(spans))
    for rows in call.row_tiles(max(height, 1)):
        hidden, tiles, parts = product.hidden_tile(rows), [], []
        for number, span in enumerate(spans):
            out = place_of(memory, number, hidden, span)
            tiles.append(product.logits(hidden, product.classifier_tile(span), span, out))
            parts.append(call.fold(tiles[-1], rows, span))
        loss, whole = call.finished(parts)
        losses.append(loss)
        tile = PanelTile(rows, hidden, whole, scale[rows], call.xp.zeros_like(hidden))
        for number, strip in reversed([*enumerate(strips)]):  # the last are in the cache still
            slope = slope_like(call.xp, memory, tile, strip)
            for span, x in zip(strip.spans, tiles[number * STRIP :], strict=False):
                write_slope(call, tile, strip, span, x, slope)
            add_strip(call, sums, memory, tile, strip, slope)
        put_hidden(call.xp, sums, tile)
    loss = joined(call.xp, losses) if losses else scale
    return loss, gradient_of(call, sums)


def gradient(call: ProductCall, whole: Partial, scale: Array) -> LinearGradient[Array]:
    """The gradient from the partial and the scale of each row: every tile is multiplied again, and none is kept."""
    sums, product, strips = sums_of(call), call.product, strips_of(call.product)
    height = min(product.rows, STRIP_ROWS)
    memory = memory_of(call, height, [max(strips, key=lambda strip: strip.width), *strips], 1)
    for rows in call.row_tiles(max(height, 1)):
        hidden = product.hidden_tile(rows)
        of_rows = Partial(*(field[rows] for field in whole))
        tile = PanelTile(rows, hidden, of_rows, scale[rows], call.xp.zeros_like(hidden))
        for strip in strips:
            slope = slope_like(call.xp, memory, tile, strip)
            for span in strip.spans:
                out = place_of(memory, 0, hidden, span)
                x = product.logits(hidden, product.classifier_tile(span), span, out)
                write_slope(call, tile, strip, span, x, slope)
            add_strip(call, sums, memory, tile, strip, slope)
        put_hidden(call.xp, sums, tile)
    return gradient_of(call, sums)


def put_hidden(xp: Any, sums: GradientSums, tile: PanelTile) -> None:
    """Writes the gradient of the hidden states of a tile that is done."""
    if sums.hidden is not None:
        rows, depth = tile.rows.stop - tile.rows.start, sums.hidden.shape[1]
        sums.hidden[tile.rows, :] = xp.astype(tile.total[:rows, :depth], sums.hidden.dtype, copy=False)


def add_strip(
    call: ProductCall, sums: GradientSums, memory: Memory, tile: PanelTile, strip: Strip, slope: Array
) -> None:
    """Adds what a strip of a tile says to the sums."""
    product, (first, last) = call.product, strip.whole
    if sums.hidden is not None:
        total = tile.total
        out = None if memory.of_hidden is None else memory.of_hidden[: total.shape[0], :]
        total += product.multiply(slope, product.classifier_tile(strip.whole), out)
    if sums.classifier is not None:
        add_classifier(product, sums.classifier[first:last, :], memory, tile, slope)
    if sums.bias is not None:
        sums.bias[first:last] += call.xp.sum(slope[:, : last - first], axis=0, dtype=sums.bias.dtype)


def add_classifier(product: TiledProduct, place: Array, memory: Memory, tile: PanelTile, slope: Array) -> None:
    """Adds what a tile says of its classes at their place; the first rows are written there."""
    is_first, shape = tile.rows.start == 0, (int(slope.shape[1]), product.depth)
    if is_first and product.writes and tuple(place.shape) == shape:
        product.multiply(slope.T, tile.hidden, place)
        return
    out = None if memory.of_classifier is None else memory.of_classifier[: shape[0], :]
    added = product.multiply(slope.T, tile.hidden, out)[: place.shape[0], : place.shape[1]]
    if is_first:
        place[...] = added
    else:
        place += added


def slope_like(xp: Any, memory: Memory, tile: PanelTile, strip: Strip) -> Array:
    """Memory for the gradient of the logits of a tile and a strip, (height, width)."""
    height = int(tile.hidden.shape[0])
    return xp.reshape(memory.slope[: height * strip.width], (height, strip.width))


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
            Partial(*(field[part] for field in tile.whole)),
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
