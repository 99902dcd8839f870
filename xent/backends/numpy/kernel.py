"""The fold on NumPy arrays, in place on one block that fits the cache.

The numbers are those of ``numerics/fold.py`` in fewer passes: the maximum is found once, and its own term is set to 0
instead of selected away; sums are taken in float64 in one pass; few classes are laid out class by class, so that every
operation runs along the rows. The generic fold takes the rows that hold NaN or have an infinite maximum.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...arrays import Array
from ...numerics import fold, gradient
from ...numerics import statistics as numbers
from ...numerics.fold import Partial
from ...numerics.probabilities import ProbabilitySums
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


class ShiftedLogits(NamedTuple):
    """Maximum and shifted logits of one block. The caller may overwrite ``shifted``."""

    logits: Array  # (rows, classes), in the compute dtype
    max: Array  # (rows,)
    shifted: Array  # (rows, classes): x_j − m
    argmax: Any  # the index of each row's first maximum; None if classes are few
    nonfinite: Array | None  # the rows with NaN or an infinite maximum; None if no row has


def shift(block: Array) -> ShiftedLogits:
    """The maximum of each row, and every logit less the maximum of its row."""
    logits = wide(block)
    argmax, top = highest(logits)
    finite = np.isfinite(top)
    nonfinite = None if finite.all() else ~finite
    return ShiftedLogits(logits, top, logits - top[:, None], argmax, nonfinite)


def highest(values: Array) -> tuple[Any, Array]:
    """The index of each row's first maximum, None if classes are few; and the maximum of each row."""
    if values.shape[1] <= FEW_CLASSES:
        return None, values.max(axis=1)
    first = values.argmax(axis=1)
    argmax = np.arange(len(first)), first
    return argmax, values[argmax]


def sum_exp_rest(block: ShiftedLogits) -> tuple[Array, Array]:
    """Σ exp over all classes but the first maximum, (rows,) in float64, and the exponentials, 0 at that maximum.

    Overwrites ``block.shifted``.
    """
    if block.argmax is not None:
        exps = np.exp(block.shifted, out=block.shifted)
        exps[block.argmax] = 0
        return row_sums(exps), exps
    hits = block.shifted == 0
    exps = np.exp(block.shifted, out=block.shifted)
    ties = np.add.reduce(hits, axis=1, dtype=np.int16)
    exps -= hits  # subtle: exactly 0 at every maximum; a second one adds its 1 below
    return row_sums(exps) + (ties - 1), exps


def labels_inside(labels: Array, classes: int) -> tuple[Array | None, Array]:
    """Which labels are among the classes, None if all are; and labels with 0 in the place of the others."""
    inside = labels.view(np.uint64) < classes  # a negative label is a very large one
    return (None, labels) if inside.all() else (inside, np.where(inside, labels, 0))


def replace_rows(fields: tuple[Array, ...], rows: Array, values: tuple[Array, ...]) -> None:
    """Writes the values of some rows into the fields."""
    for field, value in zip(fields, values, strict=True):
        field[rows] = value


class SparseNumpy:
    """The fold over labels; the methods are those of the kernel contract."""

    def partial(self, logits: Array, labels: Array, on: float, off: float, *, threads: int) -> Partial:
        return self.partial_and_exps(shift(logits), logits, (labels, on, off))[0]

    def partial_and_exps(
        self, block: ShiftedLogits, logits: Array, targets: tuple[Array, float, float]
    ) -> tuple[Partial, Array]:
        """The partial, and the exponentials of :func:`sum_exp_rest`."""
        labels, on, off = targets
        gap, mass = self.gap_and_mass(block, *labels_inside(labels, block.logits.shape[1]))
        if (on, off) != (1.0, 0.0):
            gap, mass = self.smoothed(block, gap, mass, on, off)
        rest, exps = sum_exp_rest(block)
        partial = Partial(block.max, rest.astype(gap.dtype, copy=False), gap, mass)
        if block.nonfinite is not None:
            rows = block.nonfinite
            replace_rows(partial, rows, fold.partial_sparse(np, logits[rows], labels[rows], on, off))
        return partial, exps

    @staticmethod
    def gap_and_mass(block: ShiftedLogits, inside: Array | None, safe: Array) -> tuple[Array, Array]:
        """target_gap and target_sum of the labels, without smoothing: 0 and 0 where a label is outside."""
        gap = block.max - block.logits[np.arange(len(safe)), safe]
        mass = np.ones_like(gap)
        if inside is not None:
            gap[~inside] = mass[~inside] = 0
        return gap, mass

    @staticmethod
    def smoothed(block: ShiftedLogits, gap: Array, mass: Array, on: float, off: float) -> tuple[Array, Array]:
        """target_gap and target_sum of the two-valued target, from those of the label alone."""
        smooth = on * gap if on != 0.0 else np.zeros_like(gap)  # subtle: 0 · inf is NaN
        if off != 0.0:
            smooth = smooth - off / fold.SHRINK * row_sums(block.shifted * fold.SHRINK)
        return smooth.astype(gap.dtype, copy=False), (on * mass + off * block.logits.shape[1]).astype(gap.dtype)

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
        block = shift(logits)
        partial, exps = self.partial_and_exps(block, logits, (labels, on, off))
        if block.argmax is not None:
            exps[block.argmax] = 1
        else:
            exps += block.logits == block.max[:, None]
        g = self.residual(block.logits, exps, logits, (labels, on, off), partial, scale, out)
        loss, (inside, _) = fold.finish(np, partial), labels_inside(labels, logits.shape[1])
        return loss if inside is None else np.where(inside, loss, np.asarray(np.nan, loss.dtype)), g

    @staticmethod
    def residual(
        x: Array,
        exps: Array,
        logits: Array,
        targets: tuple[Array, float, float],
        partial: Partial,
        scale: Array,
        out: Array | None,
    ) -> Array:
        """The gradient, from the exponentials of the logits ``x`` in the compute dtype; overwrites them."""
        labels, on, off = targets
        inside, safe = labels_inside(labels, x.shape[1])
        if inside is None:
            picked = np.arange(len(safe)), safe
            at_label = label_entry(x, exps, picked, on + off, partial, scale)
        else:
            rows = np.flatnonzero(inside)
            picked, of_rows = (rows, safe[rows]), Partial(*(field[rows] for field in partial))
            at_label = label_entry(x, exps, picked, on + off, of_rows, scale[rows])
        factor = (partial.target_sum / (1 + partial.sum_exp_rest) * scale)[:, None]
        g = np.multiply(exps, factor, out=out if out is not None and out.dtype == exps.dtype else exps)
        if off != 0.0:
            g -= (off * scale)[:, None]
            at_max_smoothed(x, g, off, partial, scale)
        g[picked] = at_label
        return finished(out, g, logits, partial, scale, gradient.gradient_sparse, labels, on, off)

    def statistics(self, logits: Array, labels: Array, label_logit: Array, *, threads: int) -> Statistics:
        block = shift(logits)
        gap, mass = self.gap_and_mass(block, *labels_inside(labels, block.logits.shape[1]))
        rank = label_rank(block.logits, labels, label_logit.astype(block.logits.dtype, copy=False))
        terms = np.maximum(block.shifted, FAR)  # subtle: −inf · 0 is NaN; beyond FAR the exponential is 0 anyway
        rest, exps = sum_exp_rest(block)
        dtype = gap.dtype
        terms *= exps
        spread = 0.0 - row_sums(terms)
        np.multiply(exps, exps, out=exps)
        squares = row_sums(exps) + 1 + self.other_maxima(block)
        partial = Partial(block.max, rest.astype(dtype, copy=False), gap, mass)
        statistics = Statistics(partial, rank, squares.astype(dtype, copy=False), spread.astype(dtype, copy=False))
        if block.nonfinite is not None:
            rows = block.nonfinite
            replacement = numbers.statistics(np, logits[rows], labels[rows], label_logit[rows])
            replace_rows(partial, rows, replacement.partial)
            replace_rows(statistics[1:], rows, replacement[1:])
        return statistics

    def probability_sums(self, p: Array, labels: Array, *, threads: int) -> ProbabilitySums:
        p = wide(p)
        label_p, _ = fold.gather(np, p, labels)
        terms = np.log(p)
        terms *= p
        if p.size and not p.min() > 0:  # quicker than to look for each
            terms[p == 0] = 0
        entropy = 0.0 - row_sums(terms)
        squares = row_sums(np.multiply(p, p, out=terms))
        entropy, squares = (sums.astype(p.dtype, copy=False) for sums in (entropy, squares))
        ranks = label_rank(p, labels, label_p)
        return ProbabilitySums(row_sums(p), highest(p)[1], squares, entropy, label_p, ranks)

    @staticmethod
    def other_maxima(block: ShiftedLogits) -> Any:
        """How many classes tie with the first maximum and had their exponentials set to 0 with it."""
        if block.argmax is not None:
            return 0
        return np.add.reduce(block.logits == block.max[:, None], axis=1, dtype=np.int16) - 1


def label_rank(logits: Array, labels: Array, label_logit: Array) -> Array:
    """How many classes of the block come before the label: #(x_j > x_y) + #(x_j = x_y, j < y)."""
    level = label_logit[:, None]
    rank = np.add.reduce(logits > level, axis=1, dtype=np.int32)
    rows, classes = np.divmod(np.flatnonzero(logits == level), logits.shape[1])
    before = classes < labels[rows]
    return (rank + np.bincount(rows[before], minlength=len(labels))).astype(np.int64, copy=False)


def label_entry(x: Array, exps: Array, picked: Any, at: float, partial: Partial, scale: Array) -> Array:
    """The gradient at the label of the picked rows, in the form that does not cancel at the maximum.

    ``partial`` and ``scale`` are those of the picked rows.
    """
    highest, rest, _, mass = partial
    at_max = ((mass - at) - at * rest) / (1 + rest)
    elsewhere = mass * exps[picked] / (1 + rest) - at
    return np.where(x[picked] == highest, at_max, elsewhere) * scale


def at_max_smoothed(x: Array, g: Array, off: float, partial: Partial, scale: Array) -> None:
    """Writes the gradient of the smoothed target at each row's maximum, in the form that does not cancel."""
    rows, columns = np.nonzero(x == partial.max[:, None])
    rest = partial.sum_exp_rest[rows]
    g[rows, columns] = ((partial.target_sum[rows] - off) - off * rest) / (1 + rest) * scale[rows]


def finished(
    out: Array | None, g: Array, logits: Array, partial: Partial, scale: Array, expression: Any, *targets: Any
) -> Array:
    """The gradient in the dtype of the logits, and in ``out`` if it is an array.

    Rows that are not finite are replaced by those of the generic ``expression``; rows of scale 0 are exactly 0.
    """
    finite = np.isfinite(partial.max + partial.sum_exp_rest)
    if not finite.all():
        nonfinite = ~finite
        arguments = [value[nonfinite] if hasattr(value, "shape") else value for value in targets]
        rows = Partial(*(field[nonfinite] for field in partial))
        g[nonfinite] = expression(np, logits[nonfinite], *arguments, rows, scale[nonfinite])
    if not scale.all():
        g[scale == 0] = 0
    if logits.dtype == np.float16:
        g = round_subnormal_halves(g)
    if out is None:
        return g.astype(logits.dtype, copy=False)
    if g is not out:
        np.copyto(out, g, casting="same_kind")
    return out


def round_subnormal_halves(g: Array) -> Array:
    """float32 values, of which those below float16's normal numbers are rounded to float16, to nearest even.

    NumPy's own rounding of them reports each underflow, at fifty times the cost.
    """
    return np.where(np.abs(g) < 2.0**-14, (g + np.float32(0.75)) - np.float32(0.75), g)


class DenseNumpy:
    """The fold over soft targets; the methods are those of the kernel contract."""

    def partial(self, logits: Array, targets: Array, *, threads: int) -> Partial:
        block, targets = shift(logits), wide(targets)
        gap = -row_sums(targets * block.shifted)
        mass = row_sums(targets)
        rest, _ = sum_exp_rest(block)
        dtype = block.logits.dtype
        gap += 0.0  # subtle: −0.0 never leaves here
        partial = Partial(block.max, *(field.astype(dtype, copy=False) for field in (rest, gap, mass)))
        rows = np.isnan(partial.target_gap)  # 0 · inf: a masked class, to be selected away
        if block.nonfinite is not None:
            rows |= block.nonfinite
        if rows.any():
            replace_rows(partial, rows, fold.partial_dense(np, logits[rows], targets[rows]))
        return partial

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
        return finished(out, g, logits, partial, scale, gradient.gradient_dense, targets)


sparse, dense = SparseNumpy(), DenseNumpy()
