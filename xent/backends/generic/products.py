"""The product of hidden states and a classifier, tile by tile, in the same bits whatever is beside a row.

Leaves out what is made of a tile of logits (``tiles.py``, ``panels.py``).
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from ... import arrays
from ...arrays import Array
from ...numerics import fold
from .blocks import ClassSpan
from .threads import one_blas_thread

ROWS, CLASSES = 1024, 512
"""The most rows and classes that are multiplied at once: matmul's full speed, and a tile that stays in the cache."""
FEW_FEATURES = 256
"""Of fewer, twice as many classes are multiplied at once: a product of few features takes no longer than the calls."""
LABELS = 128
"""The most rows whose labels' logits are multiplied at once: each row by the classes of all of them."""
LEAST = 16
"""The least rows, classes and features that are multiplied: of fewer, zeros are added, for BLAS takes another way."""
STEADY = 1 << 20
"""A product of so many multiplications is made the one way of large ones; a tile of fewer gets rows of zeros."""


@contextlib.contextmanager
def multiplying() -> Iterator[None]:
    """Inside the with block BLAS takes one thread: it adds in another order by several; and nothing warns of numbers.

    So a row has its bits by any number of threads, and a busy machine stops none of them.
    """
    with one_blas_thread(), arrays.without_fp_warnings():
        yield


class TiledProduct(NamedTuple):
    """The operands of a product, flat, and how they are multiplied.

    BLAS adds a logit's terms in an order of its own where a product is small: of one row, few classes, few
    multiplications. Rows of zeros make each product large enough, so a row has the bits that it has in any batch.
    Columns of zeros are cut off again before anything is made of them.
    """

    xp: Any
    hidden: Array  # (rows, D)
    classifier: Array  # (C, D)
    bias: Array | None  # (C,), in the compute dtype
    masked: Array | None  # (C,) bool: the classes whose bias is −inf; None if there are none
    softcap: float | None
    dtype: Any
    writes: bool
    """Whether a product can be written into an array that is there."""
    chosen: Array | None = None
    """Which rows of ``hidden`` are multiplied; None for all."""

    @property
    def rows(self) -> int:
        return int((self.hidden if self.chosen is None else self.chosen).shape[0])

    @property
    def classes(self) -> int:
        return int(self.classifier.shape[0])

    @property
    def depth(self) -> int:
        """The features, zeros included."""
        return max(LEAST, int(self.hidden.shape[1]))

    def spans(self) -> list[ClassSpan]:
        """The classes of a tile: spans of equal size, by the number of classes and features alone."""
        parts = -(-self.classes // (CLASSES if self.depth >= FEW_FEATURES else 2 * CLASSES))
        edges = [self.classes * part // parts for part in range(parts + 1)]
        return list(itertools.pairwise(edges))

    def height(self, rows: int) -> int:
        """The rows of a tile of so many, zeros included."""
        narrowest = max(LEAST, min(last - first for first, last in self.spans()))
        return max(rows, LEAST, min(ROWS, STEADY // (narrowest * self.depth) + 1))

    def hidden_tile(self, rows: slice) -> Array:
        """The hidden states of some rows, (height, depth), in the compute dtype."""
        tile = self.hidden[rows, :] if self.chosen is None else self.xp.take(self.hidden, self.chosen[rows], axis=0)
        return padded(self.xp, tile, (self.height(int(tile.shape[0])), self.depth), self.dtype)

    def classifier_tile(self, span: ClassSpan) -> Array:
        """The rows of some classes, (width, depth), in the compute dtype: 0 for a masked class."""
        first, last = span
        tile = self.classifier[first:last, :]
        if self.masked is not None and self.masks(span):
            tile = self.xp.where(self.masked[first:last, None], self.xp.zeros((), dtype=tile.dtype), tile)
        return padded(self.xp, tile, (max(LEAST, last - first), self.depth), self.dtype)

    def multiply(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """a @ b, written into ``out`` where the library can."""
        return self.xp.matmul(a, b, out=out) if self.writes and out is not None else self.xp.matmul(a, b)

    def logits(self, hidden: Array, classifier: Array, span: ClassSpan, out: Array | None = None) -> Array:
        """The logits of a tile, (height, width), of which the rows and columns of zeros mean nothing."""
        xp, x = self.xp, self.multiply(hidden, classifier.T, out)
        if self.bias is not None:
            x += self.of_tile(self.bias, span, x)
        if self.softcap is not None:
            x /= self.softcap
            x = xp.tanh(x, out=x) if self.writes else xp.tanh(x)
            x *= self.softcap
        if self.masks(span):  # without a softcap too: 0 times an infinite hidden state is NaN
            x[...] = xp.where(self.of_tile(self.masked, span, x), -math.inf, x)
        return x

    def masks(self, span: ClassSpan) -> bool:
        """Whether a class of the tile is masked."""
        masked = self.masked
        return masked is not None and bool(self.xp.any(masked[span[0] : span[1]]))

    def of_tile(self, values: Array, span: ClassSpan, tile: Array) -> Array:
        """The values of the classes of a tile (height, width), (width,), with zeros beyond them."""
        values = values[span[0] : span[1]]
        missing = int(tile.shape[1]) - (span[1] - span[0])
        if not missing:
            return values
        zeros = self.xp.zeros((missing,), dtype=values.dtype, device=getattr(values, "device", None))
        return self.xp.concat([values, zeros])

    def uncap(self, slope: Array, x: Array, span: ClassSpan) -> Array:
        """The gradient before the softcap, from that after it and the capped logits: 0 of a masked class."""
        if self.softcap is not None:
            share = x / self.softcap
            slope = slope * ((1 - share) * (1 + share))
        if not self.masks(span):
            return slope
        return self.xp.where(self.of_tile(self.masked, span, slope), 0.0, slope)

    def at_labels(self, hidden: Array, labels: Array) -> Array:
        """The logit of each row's label, (rows,), with the bits that it has in its tile; ``hidden`` is a tile.

        A label outside is taken as the first class.
        """
        xp, count = self.xp, int(labels.shape[0])
        if count == 0:
            return xp.zeros((0,), dtype=self.dtype)
        if count > LABELS:
            starts = range(0, count, LABELS)
            return xp.concat([self.at_labels(hidden[at : at + LABELS, :], labels[at : at + LABELS]) for at in starts])
        hidden = padded(xp, hidden, (max(LEAST, int(hidden.shape[0])), self.depth), self.dtype)
        safe = xp.where((labels >= 0) & (labels < self.classes), labels, xp.zeros_like(labels))
        chosen = self._replace(
            classifier=xp.take(self.classifier, safe, axis=0),
            bias=None if self.bias is None else xp.take(self.bias, safe),
            masked=None if self.masked is None else xp.take(self.masked, safe),
        )
        width = max(count, STEADY // (int(hidden.shape[0]) * self.depth) + 1)
        tile = padded(xp, chosen.classifier_tile((0, count)), (width, self.depth), self.dtype)
        logits = chosen.logits(hidden, tile, (0, count))[:count, :count]
        return fold.gather(xp, logits, xp.arange(count, device=getattr(logits, "device", None)))[0]


def padded(xp: Any, array: Array, shape: tuple[int, int], dtype: Any) -> Array:
    """The array in the dtype, with zeros after its rows and columns up to the shape."""
    if tuple(array.shape) == shape:
        return xp.astype(array, dtype, copy=False)
    out = xp.zeros(shape, dtype=dtype, device=getattr(array, "device", None))
    out[: array.shape[0], : array.shape[1]] = xp.astype(array, dtype, copy=False)
    return out


def product_of(xp: Any, linear: Any) -> TiledProduct:
    """The product of a :class:`xent.Linear`, its operands flat."""
    hidden, dtype = linear.hidden, fold.compute_dtype(xp, linear.dtype)
    rows, depth = math.prod(hidden.shape[:-1]), hidden.shape[-1]
    bias = None if linear.bias is None else xp.astype(linear.bias, dtype, copy=False)
    masked = None if bias is None else bias == -math.inf
    if masked is not None and not xp.any(masked):
        masked = None
    writes = arrays.library(hidden) in ("numpy", "cupy")
    return TiledProduct(
        xp, xp.reshape(hidden, (rows, depth)), linear.classifier, bias, masked, linear.softcap, dtype, writes
    )


def whole_logits(linear: Any) -> Array:
    """The logits (*batch, C) of a product of eager arrays, in the bits that their tiles have."""
    product = product_of(arrays.namespace(linear.hidden), linear)
    xp, spans = product.xp, product.spans()
    out = xp.empty((product.rows, product.classes), dtype=product.dtype)
    with multiplying():
        for start in range(0, product.rows, ROWS):
            rows = slice(start, min(start + ROWS, product.rows))
            hidden = product.hidden_tile(rows)
            for first, last in spans:
                logits = product.logits(hidden, product.classifier_tile((first, last)), (first, last))
                out[rows, first:last] = logits[: rows.stop - start, : last - first]
    return xp.reshape(out, linear.shape)
