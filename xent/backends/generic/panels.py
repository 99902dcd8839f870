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
from .products import LEAST, ROWS, TiledProduct
from .tiles import ProductCall

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


class Memory(NamedTuple):
    """Memory that every tile uses again; None where the library cannot write a product into it."""

    logits: list[Array] | None  # for each span (height · width,)
    slope: Array | None  # for the gradient of the logits of one span; None if they are overwritten
    of_hidden: Array | None  # for what one span adds to the gradient of the hidden states (height, depth)
    of_classifier: Array | None  # the same of the classifier (width, depth)


def memory_of(call: ProductCall, rows: int, spans: int) -> Memory:
    """Memory for tiles of so many rows, and the logits of so many spans of classes."""
    xp, product = call.xp, call.product
    height, widths = product.height(rows), [max(LEAST, last - first) for first, last in product.spans()]
    overwrites = call.call.plan.in_place and product.softcap is None

    def empty(*shape: int) -> Array:
        return xp.empty(shape, dtype=product.dtype, device=getattr(product.hidden, "device", None))

    slope = None if overwrites else empty(height * max(widths))
    if not product.writes:
        return Memory(None, slope, None, None)
    widest = widths if spans > 1 else [max(widths)]
    logits = [empty(height * width) for width in widest]
    return Memory(logits, slope, empty(height, product.depth), empty(max(widths), product.depth))


class PanelTile(NamedTuple):
    """A tile of rows while its gradient is made."""

    rows: slice
    hidden: Array  # (height, depth)
    whole: Partial
    scale: Array
    total: Array  # (height, depth): the gradient of the hidden states, added up


def place_of(memory: list[Array] | None, number: int, hidden: Array, span: ClassSpan) -> Array | None:
    """The memory of a span for the logits of a tile, (height, width)."""
    if memory is None:
        return None
    rows, width = int(hidden.shape[0]), max(LEAST, span[1] - span[0])
    return memory[number][: rows * width].reshape(rows, width)


def loss_and_gradient(call: ProductCall, scale: Array) -> tuple[Array, LinearGradient[Array]]:
    """The losses of the rows and the gradient, from the scale of each row: panel by panel."""
    sums, losses, product, spans = sums_of(call), [], call.product, call.product.spans()
    height = min(product.rows, panel_rows(product.depth))
    memory = memory_of(call, height, len(spans))
    for rows in call.row_tiles(max(height, 1)):
        hidden, tiles, parts = product.hidden_tile(rows), [], []
        for number, span in enumerate(spans):
            out = place_of(memory.logits, number, hidden, span)
            tiles.append(product.logits(hidden, product.classifier_tile(span), span, out))
            parts.append(call.fold(tiles[-1], rows, span))
        loss, whole = call.finished(parts)
        losses.append(loss)
        tile = PanelTile(rows, hidden, whole, scale[rows], call.xp.zeros_like(hidden))
        for span, x in zip(reversed(spans), reversed(tiles), strict=True):  # the last are in the cache still
            add_tile(call, sums, memory, tile, span, x, product.classifier_tile(span))
        put_hidden(call.xp, sums, tile)
    loss = joined(call.xp, losses) if losses else scale
    return loss, gradient_of(call, sums)


def gradient(call: ProductCall, whole: Partial, scale: Array) -> LinearGradient[Array]:
    """The gradient from the partial and the scale of each row: every tile is multiplied again, and none is kept."""
    sums, product = sums_of(call), call.product
    height = min(product.rows, ROWS)
    memory = memory_of(call, height, 1)
    for rows in call.row_tiles(max(height, 1)):
        hidden = product.hidden_tile(rows)
        of_rows = Partial(*(field[rows] for field in whole))
        tile = PanelTile(rows, hidden, of_rows, scale[rows], call.xp.zeros_like(hidden))
        for span in product.spans():
            classifier = product.classifier_tile(span)
            x = product.logits(hidden, classifier, span, place_of(memory.logits, 0, hidden, span))
            add_tile(call, sums, memory, tile, span, x, classifier)
        put_hidden(call.xp, sums, tile)
    return gradient_of(call, sums)


def put_hidden(xp: Any, sums: GradientSums, tile: PanelTile) -> None:
    """Writes the gradient of the hidden states of a tile that is done."""
    if sums.hidden is not None:
        rows, depth = tile.rows.stop - tile.rows.start, sums.hidden.shape[1]
        sums.hidden[tile.rows, :] = xp.astype(tile.total[:rows, :depth], sums.hidden.dtype, copy=False)


def add_tile(
    call: ProductCall, sums: GradientSums, memory: Memory, tile: PanelTile, span: ClassSpan, x: Array, classifier: Array
) -> None:
    """Adds what a tile of logits says to the sums."""
    product, width = call.product, span[1] - span[0]
    slope = slope_of(call, memory, tile, span, x)
    if sums.hidden is not None:
        total = tile.total
        out = None if memory.of_hidden is None else memory.of_hidden[: total.shape[0], :]
        total += product.multiply(slope, classifier, out)
    if sums.classifier is not None:
        add_classifier(product, sums.classifier[span[0] : span[1], :], memory, tile, slope)
    if sums.bias is not None:
        sums.bias[span[0] : span[1]] += call.xp.sum(slope[:, :width], axis=0, dtype=sums.bias.dtype)


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


def slope_of(call: ProductCall, memory: Memory, tile: PanelTile, span: ClassSpan, x: Array) -> Array:
    """The gradient in a tile of logits before its softcap, (height, width), with zeros for the rows and classes that
    are none.
    """
    xp, rows, width = call.xp, tile.rows.stop - tile.rows.start, span[1] - span[0]
    height, columns = (int(size) for size in x.shape)
    slope = x if memory.slope is None else xp.reshape(memory.slope[: height * columns], (height, columns))
    for part in call.parts(rows, width):
        out = slope[part, :width]
        block = call.call.kernel.gradient(
            *call.arguments(x, tile.rows, part, span),
            Partial(*(field[part] for field in tile.whole)),
            tile.scale[part],
            threads=call.call.threads,
            out=out,
        )
        if block is not out:
            slope[part, :width] = block
    slope[rows:, :] = 0.0
    slope[:, width:] = 0.0
    return call.product.uncap(slope, x, span)


def gradient_of(call: ProductCall, sums: GradientSums) -> LinearGradient[Array]:
    """The gradient, each in the dtype of its operand; the hidden states flat."""
    xp, linear = call.xp, call.call.logits
    classifier, bias = sums.classifier, sums.bias
    return LinearGradient(
        sums.hidden,
        None if classifier is None else xp.astype(classifier, linear.classifier.dtype, copy=False),
        None if bias is None else xp.astype(bias, linear.bias.dtype, copy=False),
    )
