"""The fold on NumPy arrays, in place on one block that fits the cache.

The numbers are those of ``numerics/fold.py``; what is spared are the passes: the maximum is found once and its own term
scattered away instead of selected, sums go to float64 in one pass, and few classes are laid out class by class, so that
every operation runs along the rows. A row that holds NaN or an infinite maximum is handed to the generic fold.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...arrays import Array
from ...numerics import fold, gradient
from ...numerics import statistics as numbers
from ...numerics.fold import Partial
from ...numerics.statistics import Statistics

FEW_CLASSES = 48
FAR = -1e4
FLOAT64 = np.dtype(np.float64)
# subtle: glibc gives a freed array of a tile's size back to the system, and the next one is faulted in page by page:
# half the time of row_statistics. It stops once it has seen a larger one freed: this one, whose pages nobody touches.
np.empty(1 << 22, np.uint8)
HALF_BITS = np.int32(0x8FFFE000 - 2**32)  # the sign, and what a float16 has of a float32's exponent and significand
EXPONENT_SHIFT, HALF_OVERFLOW = np.float32(2.0**112), np.float32(65536)


def wide(block: Array) -> Array:
    """The block in the compute dtype and in the one layout for its number of classes: by class where they are few.

    So the order of every sum depends on the number of classes alone, not on strides and not on the other rows.
    """
    if block.shape[1] > FEW_CLASSES:
        return contiguous(block)
    return contiguous(block.T).T


def contiguous(block: Array) -> Array:
    """The block in C order and in the compute dtype; itself where it is both already.

    The 16-bit dtypes are widened by moving their bits, at a sixth of what NumPy's own conversion takes: a float16 is a
    float32 whose exponent is off by 112, but for infinities and NaN.
    """
    if block.dtype.itemsize != 2 or not block.dtype.isnative:
        return np.ascontiguousarray(block, dtype=np.float64 if block.dtype.itemsize == 8 else np.float32)
    block = np.ascontiguousarray(block)
    if block.dtype != np.float16:  # bfloat16: the upper half of a float32
        bits = block.view(np.uint16).astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    shifted = block.view(np.int16).astype(np.int32)  # the sign fills the upper half
    shifted <<= 13
    shifted &= HALF_BITS
    values = shifted.view(np.float32)
    values *= EXPONENT_SHIFT
    if values.size and (values.max() >= HALF_OVERFLOW or values.min() <= -HALF_OVERFLOW):
        return block.astype(np.float32)
    return values


def row_sums(terms: Array) -> Array:
    """Sums over the classes in float64: NumPy's own along rows of float32, else the balanced tree."""
    if terms.shape[1] > FEW_CLASSES and terms.dtype.char == "f":
        return np.add.reduce(terms, 1, FLOAT64)
    return fold.total(np, terms)


class Look(NamedTuple):
    """What of a block does not depend on the targets. ``below`` may be overwritten by who asked for it."""

    logits: Array  # (rows, classes), in the compute dtype
    max: Array  # (rows,)
    below: Array  # (rows, classes): x_j − m
    at: Any  # the index of each row's first maximum, or None where classes are few
    odd: Array | None  # rows with NaN or an infinite maximum, or None


def look(block: Array) -> Look:
    """The maximum of each row and every logit's distance from it."""
    logits = wide(block)
    if logits.shape[1] <= FEW_CLASSES:
        at, highest = None, logits.max(axis=1)
    else:
        first = logits.argmax(axis=1)
        at = np.arange(len(first)), first
        highest = logits[at]
    usual = np.isfinite(highest)
    odd = None if usual.all() else ~usual
    return Look(logits, highest, logits - highest[:, None], at, odd)


def sum_exp_rest(view: Look) -> tuple[Array, Array]:
    """Σ exp over all classes but the first maximum, (rows,) in float64, and the exponentials with that one taken out.

    Overwrites ``view.below``.
    """
    if view.at is not None:
        exps = np.exp(view.below, out=view.below)
        exps[view.at] = 0
        return row_sums(exps), exps
    hits = view.below == 0
    exps = np.exp(view.below, out=view.below)
    ties = np.add.reduce(hits, axis=1, dtype=np.int16)
    exps -= hits  # subtle: exactly 0 at every maximum; a second one adds its 1 below
    return row_sums(exps) + (ties - 1), exps


def inside(labels: Array, classes: int) -> tuple[Array | None, Array]:
    """Which labels are among the classes (None: all), and labels that can be gathered with."""
    among = (labels >= 0) & (labels < classes)
    return (None, labels) if among.all() else (among, np.where(among, labels, 0))


def replace_rows(numbers: tuple[Array, ...], rows: Array, again: tuple[Array, ...]) -> None:
    """Puts the numbers of some rows, taken again, in their place."""
    for field, value in zip(numbers, again, strict=True):
        field[rows] = value


class SparseNumpy:
    """The fold over labels; the methods are those of the kernel contract."""

    def partial(self, logits: Array, labels: Array, on: float, off: float, *, threads: int) -> Partial:
        return self.folded(look(logits), logits, (labels, on, off))[0]

    def folded(self, view: Look, logits: Array, target: tuple[Array, float, float]) -> tuple[Partial, Array]:
        """The partial, and the exponentials of :func:`sum_exp_rest`."""
        labels, on, off = target
        among, safe = inside(labels, logits.shape[1])
        gap = view.max - view.logits[np.arange(len(safe)), safe]
        here = np.ones_like(gap)
        if among is not None:
            gap[~among] = here[~among] = 0
        if (on, off) != (1.0, 0.0):
            gap, here = self.smoothed(view, gap, here, on, off)
        rest, exps = sum_exp_rest(view)
        found = Partial(view.max, rest.astype(gap.dtype, copy=False), gap, here)
        if view.odd is not None:
            rows = view.odd
            replace_rows(found, rows, fold.partial_sparse(np, logits[rows], labels[rows], on, off))
        return found, exps

    @staticmethod
    def smoothed(view: Look, gap: Array, here: Array, on: float, off: float) -> tuple[Array, Array]:
        """target_gap and target_sum of the two-valued target, from those of the label alone."""
        spread = on * gap if on != 0.0 else np.zeros_like(gap)  # subtle: 0 · inf is NaN
        if off != 0.0:
            spread = spread - off * row_sums(view.below)
        return spread.astype(gap.dtype, copy=False), (on * here + off * view.logits.shape[1]).astype(gap.dtype)

    def gradient(
        self,
        logits: Array,
        labels: Array,
        on: float,
        off: float,
        partial: Partial,
        scale: Array,
        *,
        threads: int,
        out: Array | None = None,
    ) -> Array:
        x = wide(logits)
        exps = np.subtract(x, partial.max[:, None])
        np.exp(exps, out=exps)
        return self.residual(x, exps, logits, (labels, on, off), partial, scale, out)

    def loss_and_gradient(
        self,
        logits: Array,
        labels: Array,
        on: float,
        off: float,
        scale: Array,
        *,
        threads: int,
        out: Array | None = None,
    ) -> tuple[Array, Array]:
        """Both from one set of exponentials."""
        view = look(logits)
        found, exps = self.folded(view, logits, (labels, on, off))
        if view.at is not None:
            exps[view.at] = 1
        else:
            exps += view.logits == view.max[:, None]
        slope = self.residual(view.logits, exps, logits, (labels, on, off), found, scale, out)
        inside = (labels >= 0) & (labels < logits.shape[1])
        return np.where(inside, fold.finish(np, found), np.asarray(np.nan, found.max.dtype)), slope

    @staticmethod
    def residual(
        x: Array,
        exps: Array,
        logits: Array,
        target: tuple[Array, float, float],
        partial: Partial,
        scale: Array,
        out: Array | None,
    ) -> Array:
        """The gradient, from the exponentials of the logits ``x`` in the compute dtype; overwrites them."""
        labels, on, off = target
        among, safe = inside(labels, x.shape[1])
        rows = np.arange(len(safe)) if among is None else np.flatnonzero(among)
        picked = rows, safe[rows]
        at_label = label_entry(x, exps, picked, on + off, partial, scale)
        share = (partial.target_sum / (1 + partial.sum_exp_rest) * scale)[:, None]
        g = np.multiply(exps, share, out=out if out is not None and out.dtype == exps.dtype else exps)
        if off != 0.0:
            g -= (off * scale)[:, None]
            at_max_smoothed(x, g, off, partial, scale)
        g[picked] = at_label
        return settle(out, g, logits, partial, scale, gradient.gradient_sparse, labels, on, off)

    def statistics(self, logits: Array, labels: Array, label_logit: Array, *, threads: int) -> Statistics:
        view = look(logits)
        among, safe = inside(labels, logits.shape[1])
        gap = view.max - view.logits[np.arange(len(safe)), safe]
        here = np.ones_like(gap)
        if among is not None:
            gap[~among] = here[~among] = 0
        rank = label_rank(view.logits, labels, label_logit.astype(view.logits.dtype, copy=False))
        distance = np.maximum(view.below, FAR)  # subtle: −inf · 0 is NaN; beyond FAR the exponential is 0 anyway
        rest, exps = sum_exp_rest(view)
        dtype = gap.dtype
        distance *= exps
        spread = 0.0 - row_sums(distance)
        np.multiply(exps, exps, out=exps)
        squares = row_sums(exps) + 1 + self.other_maxima(view)
        partial = Partial(view.max, rest.astype(dtype, copy=False), gap, here)
        found = Statistics(partial, rank, squares.astype(dtype, copy=False), spread.astype(dtype, copy=False))
        if view.odd is not None:
            rows = view.odd
            again = numbers.statistics(np, logits[rows], labels[rows], label_logit[rows])
            replace_rows(partial, rows, again.partial)
            replace_rows(found[1:], rows, again[1:])
        return found

    @staticmethod
    def other_maxima(view: Look) -> Any:
        """How many classes tie with the first maximum, where their exponentials were taken out with it."""
        if view.at is not None:
            return 0
        return np.add.reduce(view.logits == view.max[:, None], axis=1, dtype=np.int16) - 1


def label_rank(logits: Array, labels: Array, label_logit: Array) -> Array:
    """How many classes of the block come before the label: #(x_j > x_y) + #(x_j = x_y, j < y)."""
    level = label_logit[:, None]
    rank = np.add.reduce(logits > level, axis=1, dtype=np.int32)
    rows, classes = np.divmod(np.flatnonzero(logits == level), logits.shape[1])
    before = classes < labels[rows]
    return (rank + np.bincount(rows[before], minlength=len(labels))).astype(np.int64, copy=False)


def label_entry(x: Array, exps: Array, picked: Any, at: float, partial: Partial, scale: Array) -> Array:
    """The gradient at the label of the picked rows, in the form that does not cancel at the maximum."""
    rows = picked[0]
    highest, rest, mass = partial.max[rows], partial.sum_exp_rest[rows], partial.target_sum[rows]
    at_max = ((mass - at) - at * rest) / (1 + rest)
    elsewhere = mass * exps[picked] / (1 + rest) - at
    return np.where(x[picked] == highest, at_max, elsewhere) * scale[rows]


def at_max_smoothed(x: Array, g: Array, off: float, partial: Partial, scale: Array) -> None:
    """Writes the gradient of the smoothed target at each row's maximum, in the form that does not cancel."""
    rows, columns = np.nonzero(x == partial.max[:, None])
    rest = partial.sum_exp_rest[rows]
    g[rows, columns] = ((partial.target_sum[rows] - off) - off * rest) / (1 + rest) * scale[rows]


def settle(
    out: Array | None, g: Array, logits: Array, partial: Partial, scale: Array, again: Any, *targets: Any
) -> Array:
    """The gradient in the dtype of the logits and in ``out``; zero and odd rows put right."""
    odd = ~(np.isfinite(partial.max) & np.isfinite(partial.sum_exp_rest))
    if odd.any():
        told = [one[odd] if hasattr(one, "shape") else one for one in targets]
        g[odd] = again(np, logits[odd], *told, Partial(*(field[odd] for field in partial)), scale[odd])
    nothing = scale == 0
    if nothing.any():
        g[nothing] = 0
    if logits.dtype == np.float16:
        g = halves(g)
    if out is None:
        return g.astype(logits.dtype, copy=False)
    if g is not out:
        np.copyto(out, g, casting="same_kind")
    return out


def halves(g: Array) -> Array:
    """float32 values rounded to what float16 holds below its normal numbers, to nearest even: NumPy's own rounding of
    them reports each underflow, at fifty times the cost."""
    return np.where(np.abs(g) < 2.0**-14, (g + np.float32(0.75)) - np.float32(0.75), g)


class DenseNumpy:
    """The fold over soft targets; the methods are those of the kernel contract."""

    def partial(self, logits: Array, targets: Array, *, threads: int) -> Partial:
        view, targets = look(logits), wide(targets)
        gap = -row_sums(targets * view.below)
        mass = row_sums(targets)
        rest, _ = sum_exp_rest(view)
        dtype = view.logits.dtype
        gap += 0.0  # subtle: −0.0 never leaves here
        found = Partial(view.max, *(one.astype(dtype, copy=False) for one in (rest, gap, mass)))
        again = np.isnan(found.target_gap)  # 0 · inf: a masked class, to be selected away
        if view.odd is not None:
            again |= view.odd
        if again.any():
            replace_rows(found, again, fold.partial_dense(np, logits[again], targets[again]))
        return found

    def gradient(
        self, logits: Array, targets: Array, partial: Partial, scale: Array, *, threads: int, out: Array | None = None
    ) -> Array:
        x, targets = wide(logits), wide(targets)
        g = np.subtract(x, partial.max[:, None])
        np.exp(g, out=g)
        g *= (partial.target_sum / (1 + partial.sum_exp_rest))[:, None]
        g -= targets
        rows, columns = np.nonzero(x == partial.max[:, None])
        t, rest = targets[rows, columns], partial.sum_exp_rest[rows]
        g[rows, columns] = ((partial.target_sum[rows] - t) - t * rest) / (1 + rest)
        g *= scale[:, None]
        return settle(out, g, logits, partial, scale, gradient.gradient_dense, targets)


sparse, dense = SparseNumpy(), DenseNumpy()
