r"""The gradient of a loss in the operands of a product.

.. math:: \mathrm dh_n = \sum_c g_{nc} w_c, \qquad \mathrm dw_c = \sum_n g_{nc} h_n, \qquad
          \mathrm db_c = \sum_n g_{nc}

with the gradient g in the logits, whose tiles need the partial of their whole rows first. A panel of rows keeps its
logits until that is known, and its gradient is made tile by tile from them: three products for all operands, two for
one, and memory for :meth:`panel_rows` × C numbers, half of the gradient of the classifier. Where the partial is known
before, nothing is kept, and each tile is multiplied again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...arrays import Array
from ...linear import LinearGradient
from ...numerics.fold import Partial, wide_dtype
from .blocks import ClassSpan, joined
from .products import LEAST, ROWS
from .tiles import ProductCall

PANEL_LEAST, PANEL_MOST = 128, 1024
"""The rows of a panel: of fewer, adding to the gradient of the classifier takes longer than to multiply it."""


def panel_rows(depth: int) -> int:
    """The rows of a panel: half as many as there are features, so that it takes half of the classifier's memory."""
    return min(PANEL_MOST, max(PANEL_LEAST, depth // 2))


class Sums(NamedTuple):
    """The gradient while it is added up, in the compute dtype; None for an operand that it is not asked for in."""

    hidden: Array | None  # (rows, D), in the dtype of the hidden states, as its rows are done
    classifier: Array | None  # (C, D)
    bias: Array | None  # (C,), wide


def sums_of(call: ProductCall) -> Sums:
    """The sums of no rows."""
    xp, product, of = call.xp, call.product, call.call.plan.problem.of
    device = getattr(product.classifier, "device", None)
    shape, rows = tuple(product.classifier.shape), (product.rows, int(product.hidden.shape[1]))
    return Sums(
        xp.empty(rows, dtype=product.hidden.dtype, device=device) if "hidden" in of else None,
        xp.zeros(shape, dtype=product.dtype, device=device) if "classifier" in of else None,
        xp.zeros(shape[:1], dtype=wide_dtype(xp), device=device) if "bias" in of else None,
    )


class Tile(NamedTuple):
    """A tile of rows while its gradient is made, and memory that every span of classes uses again."""

    rows: slice
    hidden: Array  # (height, depth)
    whole: Partial
    scale: Array
    slope: Array | None  # memory for the gradient of the logits; None if they are overwritten
    total: Array  # (height, depth): the gradient of the hidden states, added up
    of_hidden: Array | None  # memory for what one span adds to it
    of_classifier: Array | None  # the same of the classifier


def memory(call: ProductCall, rows: int, columns: int) -> Array | None:
    """Memory for a product; None if the library cannot write into it."""
    xp, product = call.xp, call.product
    return xp.empty((rows, columns), dtype=product.dtype) if product.writes else None


def loss_and_gradient(call: ProductCall, scale: Array) -> tuple[Array, LinearGradient[Array]]:
    """The losses of the rows and the gradient, from the scale of each row: panel by panel."""
    sums, losses = sums_of(call), []
    for rows in call.row_tiles(panel_rows(call.product.depth)):
        hidden = call.product.hidden_tile(rows)
        tiles, parts = [], []
        kept = call.memory_of_panel(hidden)
        for number, span in enumerate(call.product.spans()):
            out = None if kept is None else kept[number]
            x = call.product.logits(hidden, call.product.classifier_tile(span), span, out)
            parts.append(call.fold(x, rows, span))
            tiles.append((span, x))
        loss, whole = call.finished(parts)
        losses.append(loss)
        tile = tile_of(call, rows, hidden, whole, scale)
        for span, x in reversed(tiles):  # the last are in the cache still
            add_tile(call, sums, tile, span, x, call.product.classifier_tile(span))
        put_hidden(call.xp, sums, tile)
    loss = joined(call.xp, losses) if losses else scale
    return loss, gradient_of(call, sums)


def gradient(call: ProductCall, whole: Partial, scale: Array) -> LinearGradient[Array]:
    """The gradient from the partial and the scale of each row: every tile is multiplied again, and none is kept."""
    sums = sums_of(call)
    for rows in call.row_tiles(ROWS):
        hidden = call.product.hidden_tile(rows)
        tile = tile_of(call, rows, hidden, Partial(*(field[rows] for field in whole)), scale)
        kept = call.memory(hidden)
        for span in call.product.spans():
            classifier = call.product.classifier_tile(span)
            x = call.product.logits(hidden, classifier, span, call.within(kept, hidden, span))
            add_tile(call, sums, tile, span, x, classifier)
        put_hidden(call.xp, sums, tile)
    return gradient_of(call, sums)


def tile_of(call: ProductCall, rows: slice, hidden: Array, whole: Partial, scale: Array) -> Tile:
    """A tile of rows, with the memory that its gradient takes."""
    product, height = call.product, int(hidden.shape[0])
    width = max(max(LEAST, last - first) for first, last in product.spans())
    overwrites = call.call.plan.in_place and product.softcap is None
    return Tile(
        rows,
        hidden,
        whole,
        scale[rows],
        None if overwrites else call.xp.empty((height * width,), dtype=product.dtype),
        call.xp.zeros_like(hidden),
        memory(call, height, product.depth),
        memory(call, width, product.depth),
    )


def put_hidden(xp: Any, sums: Sums, tile: Tile) -> None:
    """Writes the gradient of the hidden states of a tile that is done."""
    if sums.hidden is not None:
        rows, depth = tile.rows.stop - tile.rows.start, sums.hidden.shape[1]
        sums.hidden[tile.rows, :] = xp.astype(tile.total[:rows, :depth], sums.hidden.dtype, copy=False)


def add_tile(call: ProductCall, sums: Sums, tile: Tile, span: ClassSpan, x: Array, classifier: Array) -> None:
    """Adds what a tile of logits says to the sums."""
    xp, product, width = call.xp, call.product, span[1] - span[0]
    slope = slope_of(call, tile, span, x)
    if sums.hidden is not None:
        total = tile.total
        total += product.multiply(slope, classifier, tile.of_hidden)
    if sums.classifier is not None:
        out = None if tile.of_classifier is None else tile.of_classifier[: slope.shape[1], :]
        added = product.multiply(slope.T, tile.hidden, out)
        sums.classifier[span[0] : span[1], :] += added[:width, : sums.classifier.shape[1]]
    if sums.bias is not None:
        sums.bias[span[0] : span[1]] += xp.sum(slope[:, :width], axis=0, dtype=sums.bias.dtype)


def slope_of(call: ProductCall, tile: Tile, span: ClassSpan, x: Array) -> Array:
    """The gradient in a tile of logits before its softcap, (height, width), with zeros for the rows and classes that
    are none.
    """
    xp, rows, width = call.xp, tile.rows.stop - tile.rows.start, span[1] - span[0]
    height, columns = (int(size) for size in x.shape)
    slope = x if tile.slope is None else xp.reshape(tile.slope[: height * columns], (height, columns))
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


def gradient_of(call: ProductCall, sums: Sums) -> LinearGradient[Array]:
    """The gradient, each in the dtype of its operand; the hidden states flat."""
    xp, linear = call.xp, call.call.logits
    classifier, bias = sums.classifier, sums.bias
    return LinearGradient(
        sums.hidden,
        None if classifier is None else xp.astype(classifier, linear.classifier.dtype, copy=False),
        None if bias is None else xp.astype(bias, linear.bias.dtype, copy=False),
    )
