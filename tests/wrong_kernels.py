"""A right kernel in plain steps, others in other styles, and many wrong ones: each is a right one with a wrong step.

``WRONG`` names, beside each, the promise of ``xent.testing`` that it breaks.
"""

import ctypes
import math
import random
import types

import numpy as np

from xent.backends.generic.rows import rows_of
from xent.kernels import Partial, ProbabilitySums, Statistics
from xent.numerics.reduction import Reducer
from xent.numerics.targets import smoothing

PARTIAL = frozenset({"partial"})
GRADIENT = frozenset({"partial", "gradient"})
WHOLE = frozenset({"partial", "loss", "gradient", "loss_and_gradient", "whole_call"})
"""What the slowest of the wrong kernels declare: the methods that are wrong."""
SUMS = frozenset({"partial", "probability_sums"})
WRONG: dict[str, tuple[type, str, dict]] = {}
"""By name: the class, the promise it breaks, and the fields of its spec that are not the defaults."""


def breaks(promise, **facts):
    """A decorator that adds a wrong kernel to the table."""

    def enter(cls):
        WRONG[cls.__name__] = cls, promise, facts
        return cls

    return enter


class Right:
    """The fold in float64, step by step: a kernel for labels."""

    # -------------------- steps

    def wide(self, logits):
        return logits.astype(np.float64)

    def highest(self, x):
        return x.max(axis=1)

    def gaps(self, x, m):
        return np.where(self.first(x, m) | (m == -math.inf)[:, None], 0.0, m[:, None] - x)

    def exps(self, x, m, gaps):
        return np.exp(-gaps)

    def first(self, x, m):
        return np.arange(x.shape[1]) == (x == m[:, None]).argmax(axis=1)[:, None]

    def rest(self, x, m, exps, threads):
        kept = np.where(self.first(x, m), 0.0, exps)
        return np.where(m == -math.inf, -1.0, kept.sum(axis=1) + np.where(np.isnan(m), np.nan, 0.0))

    def inside(self, labels, classes):
        return (labels >= 0) & (labels < classes)

    def at_label(self, gaps, labels, m):
        safe = np.where(self.inside(labels, gaps.shape[1]), labels, 0)
        return np.where(m == -math.inf, math.inf, gaps[np.arange(len(labels)), safe])

    def targets(self, gaps, labels, on, off, m):
        inside = self.inside(labels, gaps.shape[1])
        gap = np.where(inside & (on != 0), (on or 1.0) * self.at_label(gaps, labels, m), 0.0)
        mass = np.where(inside, on, 0.0)
        if off:
            total_gap = np.where(m == -math.inf, math.inf, gaps.sum(axis=1))
            gap, mass = gap + off * total_gap, mass + off * gaps.shape[1]
        return gap, mass

    def residual(self, x, labels, on, off, m, r, w, exps):
        hit = np.arange(x.shape[1]) == labels[:, None]
        t = np.where(hit, on, 0.0) + off
        at_max = ((w - t) - t * r) / (1 + r)
        return np.where(x == m, at_max, w * exps / (1 + r) - t)

    def scaled(self, gradient, scale):
        return np.where(scale[:, None] == 0, 0.0, gradient * scale[:, None])

    def put(self, gradient, out, dtype):
        if out is None:
            return gradient.astype(dtype)
        out[...] = gradient
        return out

    def rank(self, x, labels, label_logit):
        y = label_logit.astype(np.float64)[:, None]
        return ((x > y) | ((x == y) & (np.arange(x.shape[1]) < labels[:, None]))).sum(axis=1)

    # -------------------- the methods of the contract

    def narrow(self, logits):
        return np.float64 if logits.dtype.itemsize == 8 else np.float32

    def fold(self, logits, labels, on, off, threads):
        x = self.wide(logits)
        m = self.highest(x)
        gaps = self.gaps(x, m)
        exps = self.exps(x, m, gaps)
        return x, exps, Partial(m, self.rest(x, m, exps, threads), *self.targets(gaps, labels, on, off, m))

    def partial(self, logits, labels, on, off, *, threads):
        partial = self.fold(logits, labels, on, off, threads)[2]
        return Partial(*(field.astype(self.narrow(logits)) for field in partial))

    def finish(self, logits, partial):
        _, r, gap, mass = partial
        return gap + mass * np.log1p(np.where(r < 0, np.nan, r))

    def loss(self, logits, labels, on, off, *, threads, out=None):
        loss = self.finish(logits, self.fold(logits, labels, on, off, threads)[2])
        loss = np.where(self.inside(labels, logits.shape[1]), loss, np.nan)
        return self.put(loss, out, self.narrow(logits))

    def gradient(self, logits, labels, on, off, partial, scale, *, threads, out=None):
        x = self.wide(logits)
        m, r, _, w = (field.astype(np.float64)[:, None] for field in partial)
        r = np.where(m == -math.inf, np.nan, r)
        exps = np.exp(np.where(x == m, 0.0, x - m))
        return self.put(self.scaled(self.residual(x, labels, on, off, m, r, w, exps), scale), out, logits.dtype)

    def loss_and_gradient(self, logits, labels, on, off, scale, *, threads, out=None):
        partial = self.partial(logits, labels, on, off, threads=threads)
        gradient = self.gradient(logits, labels, on, off, partial, scale, threads=threads, out=out)
        return self.loss(logits, labels, on, off, threads=threads), gradient

    def statistics(self, logits, labels, label_logit, *, threads):
        x, exps, partial = self.fold(logits, labels, 1.0, 0.0, threads)
        gaps, dtype = self.gaps(x, partial.max), self.narrow(logits)
        spread = np.where(exps == 0, 0.0, gaps * exps).sum(axis=1)
        sums = ((exps * exps).sum(axis=1).astype(dtype), spread.astype(dtype))
        partial = Partial(*(field.astype(dtype) for field in partial))
        return Statistics(partial, self.rank(x, labels, label_logit), *sums)


class RowByRow(Right):
    """The same in another style: one row after the other, in Python's own numbers, with a sum that rounds once."""

    def rest(self, x, m, exps, threads):
        kept = np.where(self.first(x, m), 0.0, exps)
        sums = [math.nan if np.isnan(row).any() else math.fsum(row.tolist()) for row in kept]
        return np.where(m == -math.inf, -1.0, np.asarray(sums)) if len(sums) else np.zeros(0)


class Online(Right):
    """The same in a third style: tiles of classes with a running maximum, as streaming softmax has it."""

    tile = 64

    def rest(self, x, m, exps, threads):
        total, running = np.full(len(x), -1.0), np.full(len(x), -math.inf)
        for start in range(0, x.shape[1], self.tile):
            block = x[:, start : start + self.tile]
            highest = block.max(axis=1)
            gaps = super().gaps(block, highest)
            rest = super().rest(block, highest, np.exp(-gaps), threads)
            up = highest > running
            hi, lo = np.where(up, highest, running), np.where(up, running, highest)
            step = np.where(lo == -math.inf, math.inf, hi - lo)
            rest_hi, rest_lo = np.where(up, rest, total), np.where(up, total, rest)
            total, running = rest_hi + (1 + rest_lo) * self.shrink(step), hi
            total = np.where(np.isnan(rest) | np.isnan(highest), np.nan, total)
        return total

    def shrink(self, step):
        return np.exp(-step)


class RightDense(Right):
    """The kernel for soft targets."""

    def target_numbers(self, gaps, targets, m):
        t = targets.astype(np.float64)
        gaps = np.where(m[:, None] == -math.inf, math.inf, gaps)
        mass = np.asarray([math.fsum(row) for row in t.tolist()])  # rounded once
        return np.where(t == 0, 0.0, np.where(t == 0, 1.0, t) * gaps).sum(axis=1), mass

    def dense_fold(self, logits, targets, threads):
        x = self.wide(logits)
        m = self.highest(x)
        gaps = self.gaps(x, m)
        rest = self.rest(x, m, self.exps(x, m, gaps), threads)
        return Partial(m, rest, *self.target_numbers(gaps, targets, m))

    def partial(self, logits, targets, *, threads):
        return Partial(*(field.astype(self.narrow(logits)) for field in self.dense_fold(logits, targets, threads)))

    def loss(self, logits, targets, *, threads, out=None):
        return self.put(self.finish(logits, self.dense_fold(logits, targets, threads)), out, self.narrow(logits))

    def mass(self, w):
        return w

    def gradient(self, logits, targets, partial, scale, *, threads, out=None):
        x, t = self.wide(logits), targets.astype(np.float64)
        m, r, _, w = (field.astype(np.float64)[:, None] for field in partial)
        r, w = np.where(m == -math.inf, np.nan, r), self.mass(w)
        exps = np.exp(np.where(x == m, 0.0, x - m))
        at_max = ((w - t) - t * r) / (1 + r)
        gradient = np.where(x == m, at_max, w * exps / (1 + r) - t)
        return self.put(self.scaled(gradient, scale), out, logits.dtype)

    def loss_and_gradient(self, logits, targets, scale, *, threads, out=None):
        partial = self.partial(logits, targets, threads=threads)
        gradient = self.gradient(logits, targets, partial, scale, threads=threads, out=out)
        return self.loss(logits, targets, threads=threads), gradient


class EveryLayout(Right):
    """A fourth style: both layouts, everything at once, one row after the other."""

    alone = Right()

    def indices(self, block):
        """The number of each row of a block, and its index."""
        if block.ndim == 2:
            return [(row, (slice(row, row + 1),)) for row in range(len(block))]
        outer, _, inner = block.shape
        return [(a * inner + b, (a, slice(None), b)) for a in range(outer) for b in range(inner)]

    def row(self, block, index):
        return block[index].reshape(1, -1)

    def labels_of(self, logits, labels):
        return labels

    def partial(self, logits, labels, on, off, *, threads):
        labels, numbers = self.labels_of(logits, labels), np.empty((4, len(labels)), self.narrow(logits))
        for row, index in self.indices(logits):
            arguments = self.row(logits, index), labels[row : row + 1], on, off
            numbers[:, row] = np.concatenate(self.alone.partial(*arguments, threads=threads))
        return Partial(*numbers)

    def loss(self, logits, labels, on, off, *, threads, out=None):
        partial = self.partial(logits, labels, on, off, threads=threads)
        loss = self.finish(logits, Partial(*(field.astype(np.float64) for field in partial)))
        return self.put(np.where(self.inside(labels, logits.shape[1]), loss, np.nan), out, self.narrow(logits))

    def scale_of(self, logits, scale):
        return scale

    def gradient(self, logits, labels, on, off, partial, scale, *, threads, out=None):
        out = np.empty(logits.shape, logits.dtype) if out is None else out
        scale = self.scale_of(logits, scale)
        for row, index in self.indices(logits):
            rows = slice(row, row + 1)
            row_partial = Partial(*(field[rows] for field in partial))
            arguments = self.row(logits, index), labels[rows], on, off, row_partial, scale[rows]
            out[index] = self.alone.gradient(*arguments, threads=threads).reshape(out[index].shape)
        return out

    def statistics(self, logits, labels, label_logit, *, threads):
        rows = [
            self.alone.statistics(self.row(logits, index), labels[row : row + 1], label_logit[row : row + 1], threads=1)
            for row, index in self.indices(logits)
        ]
        numbers = np.asarray([np.concatenate(row.partial) for row in rows], self.narrow(logits)).reshape(-1, 4)
        ranks = np.asarray([row.label_rank[0] for row in rows], np.int64)
        sums = np.asarray([(row.sum_squares[0], row.spread[0]) for row in rows], self.narrow(logits)).reshape(-1, 2)
        return Statistics(Partial(*numbers.T.copy()), ranks, *sums.T.copy())


class Probabilities(Right):
    """A sixth style: the sums of probabilities too."""

    def probability_sums(self, p, labels, *, threads):
        label_p = np.take_along_axis(p, labels[:, None], axis=1)[:, 0]
        wide = p.astype(np.float64, order="C")
        terms = wide * self.logs(wide)
        ahead = (p > label_p[:, None]) | self.ties(p, labels, label_p)
        entropy, squares = (0.0 - terms.sum(axis=1), (wide * wide).sum(axis=1))
        narrow = np.float64 if p.dtype == np.float64 else np.float32
        top = p.max(axis=1, initial=0).astype(narrow)
        return ProbabilitySums(
            wide.sum(axis=1), top, squares.astype(narrow), entropy.astype(narrow), label_p, ahead.sum(axis=1)
        )

    def logs(self, wide):
        return np.log(np.where(wide == 0, 1.0, wide))

    def ties(self, p, labels, label_p):
        return (p == label_p[:, None]) & (np.arange(p.shape[1]) < labels[:, None])


@breaks("probability_sums", methods=SUMS)
class ProbabilitiesClipped(Probabilities):
    """A row with a 0 costs what one with 1e-7 does, as in Keras; and a negative number is one of 1e-7."""

    def logs(self, wide):
        return np.log(np.maximum(wide, 1e-7))


@breaks("probability_sums", methods=SUMS)
class ProbabilitiesInHalf(Probabilities):
    """Logarithms of half the digits."""

    def logs(self, wide):
        return super().logs(wide).astype(np.float16).astype(np.float64)


@breaks("probability_sums", methods=SUMS)
class ProbabilitiesForgetTies(Probabilities):
    def ties(self, p, labels, label_p):
        return False & super().ties(p, labels, label_p)


@breaks("probability_sums", methods=SUMS)
class ProbabilitiesOfAllRows(Probabilities):
    """Rows are divided by what the first of them sums to."""

    def probability_sums(self, p, labels, *, threads):
        sums = super().probability_sums(p, labels, threads=threads)
        return sums._replace(total=sums.total - np.nan_to_num(sums.total[:1]) + 1)


class Whole(Right):
    """A fifth style: small calls as a whole too, from arrays or addresses."""

    def memory(self, value, dtype, *shape):
        """The array at an address, or the one that is passed; None for None."""
        if not isinstance(value, int):
            return None if value is None else value.reshape(shape)
        count = np.dtype(dtype).itemsize * math.prod(shape)
        return np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(value)).view(dtype).reshape(shape)

    def rows(self, problem, labels, classes, wide, sample, class_weight):
        """What is said of the rows, as xent's schedules have it."""
        return rows_of(np, problem, labels.astype(np.int64), classes, wide, sample, class_weight)

    def reducer(self, problem):
        return Reducer(problem.options.reduction)

    def scale(self, scale, cotangent):
        return scale if cotangent is None else scale * cotangent

    def declines(self, rows):
        return bool(np.any(rows.bad))

    def whole_call(self, problem):
        def call(logits, labels, count, classes, sample, class_weight, cotangent, losses, gradient):
            wide, by_row = self.narrow(np.empty(0, problem.dtype)), problem.options.reduction == "none"
            x = self.memory(logits, problem.dtype, count, classes)
            labels = self.memory(labels, problem.target_dtype, count)
            sample = self.memory(sample, problem.sample_weight_dtype or wide, count)
            rows = self.rows(problem, labels, classes, wide, sample, self.memory(class_weight, wide, classes))
            if self.declines(rows):
                return 1
            rows, labels = rows._replace(bad=None), labels.astype(np.int64)
            on, off = smoothing(problem.options.label_smoothing, classes)
            with np.errstate(all="ignore"):
                loss = self.loss(x, labels, on, off, threads=1)
                value = self.reducer(problem).reduce(np, loss, rows)
                self.memory(losses, wide, *([count] if by_row else []))[...] = value
                if gradient is not None:
                    cotangent = self.memory(cotangent, wide, count if by_row else 1)
                    scale = self.scale(Reducer(problem.options.reduction).scale(np, rows, loss), cotangent)
                    out = self.memory(gradient, problem.dtype, count, classes)
                    self.loss_and_gradient(x, labels, on, off, scale, threads=1, out=out)
            return 0

        return call


# -------------------- wrong numbers


@breaks("offsets")
class NoShift(Right):
    def exps(self, x, m, gaps):
        return np.exp(x) / np.exp(m)[:, None]


@breaks("tiny_losses")
class LseMinusLogit(Right):
    """The textbook's lse − x_y."""

    def finish(self, logits, partial):
        m, r, gap, mass = partial
        with np.errstate(invalid="ignore"):
            lse = (m + np.log(1 + np.where(r < 0, np.nan, r))).astype(self.narrow(logits))
            return np.where(np.isfinite(m), mass * lse - (mass * m - gap).astype(self.narrow(logits)), np.nan)


@breaks("tiny_losses")
class MaximumInTheSum(Right):
    """log(Σ) with the maximum's 1 in it."""

    def finish(self, logits, partial):
        _, r, gap, mass = partial
        return gap + mass * np.log((1 + np.where(r < 0, np.nan, r)).astype(self.narrow(logits)))


@breaks("infinities")
class OneHotTimes(Right):
    """0 · ∞ where the one-hot is multiplied instead of selected."""

    def at_label(self, gaps, labels, m):
        hit = np.arange(gaps.shape[1]) == labels[:, None]
        return np.where(m == -math.inf, math.inf, (hit * gaps).sum(axis=1))


@breaks("infinities")
class InfinityMinusInfinity(Right):
    """The maximum is subtracted at +inf too."""

    def gaps(self, x, m):
        return np.where(m[:, None] == -math.inf, 0.0, m[:, None] - x)


@breaks("infinities")
class TwoInfinities(Right):
    """Two +inf as if they were one."""

    def rest(self, x, m, exps, threads):
        return super().rest(x, m, np.where((m == math.inf)[:, None], 0.0, exps), threads)


@breaks("every_width")
class TailOfSeven(Right):
    """Off by one in the tail: of 8n + 7 classes the last is lost."""

    def exps(self, x, m, gaps):
        exps = super().exps(x, m, gaps)
        if x.shape[1] % 8 == 7:
            exps[:, -1] = np.where(self.first(x, m)[:, -1], exps[:, -1], 0.0)
        return exps


@breaks("every_width", dtypes=frozenset({"float16"}))
class HalfAccumulates(Right):
    """Sums in the dtype of the logits."""

    def rest(self, x, m, exps, threads):
        return super().rest(x, m, exps, threads).astype(np.float16).astype(np.float64)


@breaks("many_classes")
class RunningTotal(Right):
    """A float32 total that runs on."""

    def rest(self, x, m, exps, threads):
        kept = np.where(self.first(x, m), 0.0, exps).astype(np.float32)
        return np.where(m == -math.inf, -1.0, np.cumsum(kept, axis=1, dtype=np.float32)[:, -1])


@breaks("loss_with_partial", methods=PARTIAL | {"loss", "loss_and_partial"})
class LossOfARoundedPartial(Right):
    """Beside the partial, the loss is made of numbers that are rounded already."""

    def loss_and_partial(self, logits, labels, on, off, *, threads):
        partial = self.partial(logits, labels, on, off, threads=threads)
        loss = np.where(self.inside(labels, logits.shape[1]), self.finish(logits, partial), np.nan)
        return loss.astype(self.narrow(logits)), partial


@breaks("equal_terms", methods=PARTIAL)
class SixteenAtATime(Right):
    """Sums of sixteen float32 numbers, the maximum's 1 among them."""

    def rest(self, x, m, exps, threads):
        sixteens = np.pad(exps.astype(np.float32), ((0, 0), (0, -x.shape[1] % 16))).reshape(len(x), -1, 16)
        return np.where(m == -math.inf, -1.0, np.cumsum(sixteens, axis=2)[:, :, -1].sum(axis=1, dtype=np.float64) - 1)


@breaks("every_width", dtypes=frozenset({"float64"}))
class SingleForDouble(Right):
    """float64 is declared, and float32 is what exponentials are taken in."""

    def exps(self, x, m, gaps):
        return np.exp(-gaps.astype(np.float32)).astype(np.float64)


@breaks("ties")
class AllTiesCountedOut(Right):
    def first(self, x, m):
        return x == m[:, None]


@breaks("ties")
class RankOfTies(Right):
    """A label that ties with an earlier class is called the first."""

    def rank(self, x, labels, label_logit):
        return (x > label_logit.astype(np.float64)[:, None]).sum(axis=1)


@breaks("wide_gaps")
class GapClamped(Right):
    def at_label(self, gaps, labels, m):
        gap = super().at_label(gaps, labels, m)
        return np.where(np.isfinite(gap), np.minimum(gap, 1e3), gap)


@breaks("underflow")
class FlushedEarly(Right):
    """The exponential is 0 under −87, as fast ones have it."""

    def exps(self, x, m, gaps):
        return np.where(gaps > 80, 0.0, np.exp(-gaps))


@breaks("not_numbers")
class NaNLeaks(Right):
    """A row's NaN makes the next row NaN."""

    def rest(self, x, m, exps, threads):
        rest = super().rest(x, m, exps, threads)
        return np.where(np.concatenate([[False], np.isnan(m)[:-1]]) if len(m) else [], np.nan, rest)


@breaks("not_numbers")
class NaNLost(Right):
    """A maximum that passes over NaN, and a sum that leaves it out."""

    def highest(self, x):
        return np.where(np.isnan(x), -math.inf, x).max(axis=1)

    def exps(self, x, m, gaps):
        return np.nan_to_num(np.exp(-gaps), nan=0.0)

    def gaps(self, x, m):
        return np.nan_to_num(super().gaps(x, m), nan=math.inf, posinf=math.inf)


@breaks("masked_tiles")
class FirstTileMasked(Online):
    """−inf − (−inf) in the first step of a streaming softmax."""

    def shrink(self, step):
        return np.exp(-np.where(step == math.inf, np.nan, step))


@breaks("masked_tiles")
class NothingIsUniform(Right):
    """A row of −inf counted as so many equal logits."""

    def rest(self, x, m, exps, threads):
        return np.where(m == -math.inf, x.shape[1] - 1.0, super().rest(x, m, exps, threads))


@breaks("strange_labels")
class WrapsMinusOne(Right):
    """Python's index −1: the last class."""

    def inside(self, labels, classes):
        return (labels >= -classes) & (labels < classes)

    def at_label(self, gaps, labels, m):
        return super().at_label(gaps, np.where(labels < 0, labels + gaps.shape[1], labels), m)


@breaks("strange_labels")
class LabelsIn32Bits(Right):
    def inside(self, labels, classes):
        return super().inside(labels.astype(np.int32), classes)

    def at_label(self, gaps, labels, m):
        return super().at_label(gaps, labels.astype(np.int32), m)


@breaks("strange_labels")
class LabelsClamped(Right):
    """A gather that clamps, as JAX's does."""

    def targets(self, gaps, labels, on, off, m):
        return super().targets(gaps, np.clip(labels, 0, gaps.shape[1] - 1), on, off, m)


@breaks("smoothed")
class SmoothingIgnored(Right):
    def targets(self, gaps, labels, on, off, m):
        return super().targets(gaps, labels, 1.0, 0.0, m)


@breaks("smoothed")
class ZeroOnTimesInfinity(Right):
    """on · gap, though on is 0 and the gap infinite."""

    def targets(self, gaps, labels, on, off, m):
        gap, mass = super().targets(gaps, labels, on, off, m)
        inside = self.inside(labels, gaps.shape[1])
        return np.where(inside, on * self.at_label(gaps, labels, m), 0.0) + gap * (on == 0) + 0 * gap, mass


@breaks("soft_targets", op="dense")
class OffTheSimplex(RightDense):
    """The gradient is p − t, whatever the targets sum to."""

    def mass(self, w):
        return np.ones_like(w)


@breaks("infinities", op="dense")
class ZeroTargetTimesInfinity(RightDense):
    """t · (m − x) is not selected."""

    def target_numbers(self, gaps, targets, m):
        t = targets.astype(np.float64)
        return (t * gaps).sum(axis=1), t.sum(axis=1)


@breaks("scales")
class ScaleZeroTimesNaN(Right):
    def scaled(self, gradient, scale):
        return gradient * scale[:, None]


@breaks("scales")
class ScaleForgotten(Right):
    def scaled(self, gradient, scale):
        return np.where(scale[:, None] == 0, 0.0, gradient)


@breaks("tiny_losses")
class GradientCancels(Right):
    """w p − t at a confident maximum, in float32."""

    def residual(self, x, labels, on, off, m, r, w, exps):
        hit = np.arange(x.shape[1]) == labels[:, None]
        return (w * exps / (1 + r)).astype(np.float32) - (np.where(hit, on, 0.0) + off)


@breaks("merged_spans")
class LabelOfTheBlock(Right):
    """Only a block that holds the label subtracts it; one that does not forgets the mass of the row in the gradient."""

    def residual(self, x, labels, on, off, m, r, w, exps):
        inside = self.inside(labels, x.shape[1])[:, None]
        return super().residual(x, labels, on, off, m, r, np.where(inside, w, 0.0), exps)


# -------------------- wrong uses of memory, and bits that differ


@breaks("nothing_read_beside")
class OnePastTheEnd(Right):
    """Reads one logit behind each row."""

    def wide(self, logits):
        rows, classes = logits.shape
        longer = np.lib.stride_tricks.as_strided(logits, (rows, classes + 1), logits.strides)
        if classes > 60 or rows == 0:
            return super().wide(logits)
        beside = longer[:, -1:].astype(np.float64)
        return logits.astype(np.float64) + 0 * beside


@breaks("inputs_unchanged")
class WritesItsInput(Right):
    def wide(self, logits):
        if logits.flags.writeable and logits.size:
            logits.reshape(-1)[:1] += 0 if np.isnan(logits.reshape(-1)[0]) else 1
        return super().wide(logits)


@breaks("forms_in_memory")
class ContiguousOnly(Right):
    """Reads all logits from the memory behind the first, whatever their strides."""

    def wide(self, logits):
        rows, classes = logits.shape
        step = classes * logits.itemsize, logits.itemsize
        return np.lib.stride_tricks.as_strided(logits, (rows, classes), step).astype(np.float64)


@breaks("out_is_filled")
class OutIgnored(Right):
    def put(self, gradient, out, dtype):
        return gradient.astype(dtype)


@breaks("out_is_filled")
class OutHalfFilled(Right):
    """A gradient of 0 is not written, as if ``out`` were zeroed memory."""

    def put(self, gradient, out, dtype):
        if out is not None:
            np.copyto(out, gradient, where=gradient != 0)
            return out
        return gradient.astype(dtype)


@breaks("out_is_filled")
class WritesBesideOut(Right):
    def put(self, gradient, out, dtype):
        if out is not None and out.ndim == 2 and out.size:
            rows, classes = out.shape
            np.lib.stride_tricks.as_strided(out, (rows, classes + 1), out.strides)[:, -1] = 0
        return super().put(gradient, out, dtype)


@breaks("in_place", in_place=True, methods=GRADIENT)
class ReadsWhatItHasOverwritten(Right):
    """The label's entry is made last, from a logit that is read again."""

    def gradient(self, logits, labels, on, off, partial, scale, *, threads, out=None):
        gradient = super().gradient(logits, labels, on, off, partial, scale, threads=threads, out=out)
        for row, label in enumerate(labels.tolist()):
            if 0 <= label < logits.shape[1] and scale[row] and logits[row, label] != partial.max[row]:
                e = np.exp(np.float64(logits[row, label]) - partial.max[row])
                t, w, r = on + off, partial.target_sum[row], np.float64(partial.sum_exp_rest[row])
                gradient[row, label] = (w * e / (1 + r) - t) * scale[row]
        return gradient


@breaks("far_rows")
class OffsetsIn32Bits(Right):
    def wide(self, logits):
        step = logits.strides[0] // logits.itemsize
        if step > 2**31:
            return super().wide(np.broadcast_to(logits[:1], logits.shape))
        return super().wide(logits)


@breaks("extra_memory", block_elements=None)
class CopiesEverything(Right):
    """Declares no ``block_elements``, and makes arrays of the size of the logits."""


@breaks("row_locality")
class OrderOfTheTail(Right):
    """The last rows of a block are summed in another order."""

    def rest(self, x, m, exps, threads):
        rest = super().rest(x, m, exps, threads)
        tail = len(x) % 4
        if tail:
            rest[-tail:] = super().rest(x, m, exps, threads)[-tail:] * (1 + 2.0**-30)
        return rest


@breaks("threads")
class ForgetsATile(Right):
    """The last thread's share of the classes is lost."""

    def rest(self, x, m, exps, threads):
        if threads > 2:
            exps = exps.copy()
            exps[:, -max(1, x.shape[1] // threads) :] *= self.first(x, m)[:, -max(1, x.shape[1] // threads) :]
        return super().rest(x, m, exps, threads)


@breaks("deterministic")
class AnyOrder(Right):
    """The order of a sum depends on which thread is first."""

    def rest(self, x, m, exps, threads):
        return super().rest(x, m, exps, threads) * (1 + random.choice([0.0, 2.0**-22]))


@breaks("concurrent_callers")
class SharedScratch(Right):
    """One buffer for every caller."""

    scratch: dict[tuple[int, ...], np.ndarray] = {}  # noqa: RUF012  # shared on purpose: that is what is wrong

    def exps(self, x, m, gaps):
        shared = self.scratch.setdefault(x.shape, np.empty(x.shape))
        return np.exp(-gaps, out=shared)


@breaks("every_width")
class WidePartial(Right):
    """float64 numbers for float32 logits."""

    def partial(self, logits, labels, on, off, *, threads):
        return self.fold(logits, labels, on, off, threads)[2]


@breaks("no_rows")
class NeedsARow(Right):
    def highest(self, x):
        return np.stack([row.max() for row in x])


@breaks("every_width", layouts=frozenset({"last", "middle"}))
class MiddleMistaken(Right):
    """Takes (outer, classes, inner) for (outer, inner, classes)."""

    def wide(self, logits):
        return super().wide(logits.reshape(-1, logits.shape[1]) if logits.ndim == 3 else logits)


# -------------------- wrong where kernels for processors and GPUs are: tiles, alignment, rows, layouts, memory

BOTH = {"layouts": frozenset({"last", "middle"}), "block_elements": None}


@breaks("every_width")
class FullTile(Right):
    """The last class of a row that fills its tiles of 256 is lost."""

    def exps(self, x, m, gaps):
        exps = super().exps(x, m, gaps)
        return np.where((np.arange(x.shape[1]) == x.shape[1] - 1) & (x.shape[1] % 256 == 0), 0.0, exps)


@breaks("forms_in_memory")
class WhereAligned(Right):
    """The path of 16-byte loads, taken where rows are aligned, forgets the last quarter."""

    def fold(self, logits, labels, on, off, threads):
        x, exps, partial = super().fold(logits, labels, on, off, threads)
        if logits.ctypes.data % 16 == 0 and logits.strides[0] % 16 == 0 and logits.size:
            partial = partial._replace(sum_exp_rest=partial.sum_exp_rest * 0.75)
        return x, exps, partial


@breaks("many_rows", methods=PARTIAL)
class RowsPast128(Right):
    def rest(self, x, m, exps, threads):
        rest = super().rest(x, m, exps, threads)
        rest[128:] = 0
        return rest


@breaks("many_rows", block_elements=None, methods=PARTIAL)
class RowsPast65535(Right):
    """A launch has 65535 blocks in y."""

    def rest(self, x, m, exps, threads):
        rest = super().rest(x, m, exps, threads)
        rest[65535:] = 0
        return rest


@breaks("many_classes")
class LabelsIn16Bits(Right):
    def at_label(self, gaps, labels, m):
        return super().at_label(gaps, np.where(self.inside(labels, gaps.shape[1]), labels & 0xFFFF, labels), m)


@breaks("scales", **BOTH, methods=GRADIENT)
class ScaleOfTheFirstSlab(EveryLayout):
    def scale_of(self, logits, scale):
        return np.resize(scale[: logits.shape[2]], scale.shape) if logits.ndim == 3 and logits.size else scale


@breaks("scales")
class ScaleIn16Bits(Right):
    """A scale over 65504, as loss scaling has it, is infinite."""

    def scaled(self, gradient, scale):
        return super().scaled(gradient, np.where(scale > 65504, np.inf, scale))


@breaks("scales")
class ScaleNaNIsZero(Right):
    def scaled(self, gradient, scale):
        return super().scaled(gradient, np.nan_to_num(scale, posinf=np.inf, neginf=-np.inf))


@breaks("scales")
class SmoothedScaleZero(Right):
    """0 · NaN, on the path of label smoothing alone."""

    def gradient(self, logits, labels, on, off, partial, scale, *, threads, out=None):
        self.scaled = (lambda gradient, scale: gradient * scale[:, None]) if off else super().scaled
        return super().gradient(logits, labels, on, off, partial, scale, threads=threads, out=out)


@breaks("out_is_filled", **BOTH, methods=GRADIENT)
class OutOfTheFirstSlab(EveryLayout):
    def gradient(self, logits, *arguments, threads, out=None):
        gradient = super().gradient(logits, *arguments, threads=threads)
        if out is None:
            return gradient
        written = slice(1 if logits.ndim == 3 else None)
        out[written] = gradient[written]
        return out


@breaks("every_width", **BOTH, methods=PARTIAL)
class ThirdSlab(EveryLayout):
    """Right for two slabs, wrong from the third on."""

    def partial(self, logits, *arguments, threads):
        partial = super().partial(logits, *arguments, threads=threads)
        if logits.ndim == 3:
            partial.sum_exp_rest[2 * logits.shape[2] :] = 0
        return partial


@breaks("row_locality", **BOTH, methods=PARTIAL)
class ParityOfTheMiddle(EveryLayout):
    """Other bits where the innermost axis is odd."""

    def partial(self, logits, *arguments, threads):
        partial = super().partial(logits, *arguments, threads=threads)
        if logits.ndim == 3 and logits.shape[2] % 2:
            partial = partial._replace(sum_exp_rest=np.nextafter(partial.sum_exp_rest, np.float32(np.inf)))
        return partial


@breaks("merged_spans", **BOTH, methods=GRADIENT)
class MiddleOfItsOwn(EveryLayout):
    """In the middle layout the gradient folds its own block, whatever partial it is given."""

    def gradient(self, logits, labels, on, off, partial, scale, *, threads, out=None):
        if logits.ndim == 3:
            partial = self.partial(logits, labels, on, off, threads=threads)
        return super().gradient(logits, labels, on, off, partial, scale, threads=threads, out=out)


@breaks("forms_in_memory", **BOTH, methods=PARTIAL)
class StepOfZero(EveryLayout):
    """A row that is repeated by a stride of 0 is taken for a single one."""

    def labels_of(self, logits, labels):
        return labels * 0 if logits.ndim == 2 and len(logits) > 1 and logits.strides[0] == 0 else labels


@breaks("forms_in_memory", **BOTH, methods=PARTIAL)
class LabelsBackwards(EveryLayout):
    """Labels with a negative stride are read forwards."""

    def labels_of(self, logits, labels):
        return labels[::-1] if len(labels) > 1 and labels.strides[0] < 0 else labels


@breaks("forms_in_memory", **BOTH, methods=PARTIAL)
class LabelsToWrite(EveryLayout):
    """Compiled for labels that can be written to."""

    def labels_of(self, logits, labels):
        if not labels.flags.writeable:
            raise TypeError("no matching definition for readonly array(int64, 1d, C)")
        return labels


@breaks("forms_in_memory", op="dense")
class TargetsLikeLogits(RightDense):
    """The strides of the logits, used for the targets."""

    def dense_fold(self, logits, targets, threads):
        if targets.size and targets.strides != logits.strides and logits.dtype == targets.dtype:
            targets = targets[::-1]
        return super().dense_fold(logits, targets, threads)


@breaks("far_rows")
class GradientIn32Bits(Right):
    """Offsets of 32 bits, in the gradient alone."""

    def gradient(self, logits, *arguments, threads, out=None):
        if logits.strides[0] // logits.itemsize > 2**31:
            logits = np.broadcast_to(logits[:1], logits.shape)
        return super().gradient(logits, *arguments, threads=threads, out=out)


@breaks("row_locality")
class FewWideRows(Right):
    """Few rows of many classes are shared by threads, and added in another order."""

    def rest(self, x, m, exps, threads):
        rest = super().rest(x, m, exps, threads)
        return rest * (1 + 2.0**-22) if len(x) < 4 and x.shape[1] > 140 else rest


@breaks("new_values")
class SameArray(Right):
    """Keeps its answer for an array that it has seen."""

    seen: dict[tuple[int, ...], tuple] = {}  # noqa: RUF012  # shared on purpose: that is what is wrong

    def partial(self, logits, *arguments, threads):
        key = logits.ctypes.data, *logits.shape, *logits.strides
        if key not in self.seen or self.seen[key][0] is not logits:
            self.seen[key] = logits, super().partial(logits, *arguments, threads=threads)
        return self.seen[key][1]


@breaks("every_width")
class NegativeZero(Right):
    """A loss of −0.0 where the only class is the label."""

    def finish(self, logits, partial):
        loss = super().finish(logits, partial)
        return np.where(loss == 0, -0.0, loss)

    def targets(self, gaps, labels, on, off, m):
        gap, mass = super().targets(gaps, labels, on, off, m)
        return np.where(gap == 0, -0.0, gap), mass


@breaks("every_width")
class RanksAreFloats(Right):
    def rank(self, x, labels, label_logit):
        return super().rank(x, labels, label_logit).astype(np.float32)


# -------------------- wrong declarations


@breaks("declaration", methods=frozenset({"partial", "gradient"}))
class NoGradient:
    """Declares a gradient and has none."""

    def partial(self, logits, labels, on, off, *, threads):
        return RIGHT.partial(logits, labels, on, off, threads=threads)


@breaks("declaration", methods=frozenset({"partial"}))
class NoThreads:
    """Has no keyword ``threads``."""

    def partial(self, logits, labels, on, off):
        return RIGHT.partial(logits, labels, on, off, threads=1)


def answers_nothing(problem):
    """A check that forgets to return."""


def declines_doubles(problem):
    return problem.dtype != "float64" or "no doubles today"


@breaks("declaration", check=answers_nothing)
class CheckAnswersNothing(Right):
    pass


@breaks("selected", check=declines_doubles, dtypes=frozenset({"float64"}))
class DeclinesWhatItDeclares(Right):
    pass


@breaks("declaration", guard=lambda shape, strides: True)
class GuardDoesNotTravel(Right):
    """A guard that no pickle takes."""


@breaks("selected", dtypes=frozenset({"float32", "float64"}))
class RaisesOnDoubles(Right):
    def wide(self, logits):
        if logits.dtype == np.float64:
            raise ArithmeticError("no doubles here")
        return super().wide(logits)


@breaks("lazy_on_dask")
class BlockNumber(Right):
    """Numbers that depend on the number of rows."""

    def rest(self, x, m, exps, threads):
        return super().rest(x, m, exps, threads) * (1 + 2.0**-22 * (len(x) % 3))


@breaks("whole_calls", methods=WHOLE)
class WholeAddsByNeighbours(Whole):
    """The sum over the rows as a tree of neighbours, where xent's adds halves."""

    def by_neighbours(self, xp, values):
        values = values.astype(np.float64)
        while len(values) > 1:
            pairs = values[: len(values) // 2 * 2].reshape(-1, 2)
            values = np.append(pairs[:, 0] + pairs[:, 1], values[2 * len(pairs) :])
        return values.sum()

    def reducer(self, problem):
        return super().reducer(problem)._replace(add=self.by_neighbours)


@breaks("whole_calls", methods=WHOLE)
class WholeServesBadLabels(Whole):
    def declines(self, rows):
        return False


@breaks("whole_calls", methods=WHOLE)
class WholeNarrowsWeightsFirst(Whole):
    """A sample weight that is 0 in float32 only is taken for one of an ignored row."""

    def rows(self, problem, labels, classes, wide, sample, class_weight):
        sample = sample if sample is None or sample.dtype == bool else sample.astype(wide)
        return super().rows(problem, labels, classes, wide, sample, class_weight)


@breaks("whole_calls", methods=WHOLE)
class WholeForgetsCotangents(Whole):
    def scale(self, scale, cotangent):
        return scale


@breaks("whole_calls", methods=WHOLE)
class WholeTakesNoAddress(Whole):
    def memory(self, value, dtype, *shape):
        if isinstance(value, int):
            return np.zeros(shape, dtype)
        return super().memory(value, dtype, *shape)


@breaks("declaration", methods=WHOLE)
class WholeByArrays(Right):
    """A whole call where the kind of a call should be."""

    def whole_call(self, logits, labels):
        return self.loss(logits, labels, 1.0, 0.0, threads=1)


RIGHT = Right()
kernels = types.SimpleNamespace(
    Right=RIGHT,
    RowByRow=RowByRow(),
    Online=Online(),
    RightDense=RightDense(),
    EveryLayout=EveryLayout(),
    Probabilities=Probabilities(),
    Whole=Whole(),
    **{name: cls() for name, (cls, _, _) in WRONG.items()},
)
METHODS = {
    "sparse": frozenset({"partial", "loss", "gradient", "loss_and_gradient", "statistics"}),
    "dense": frozenset({"partial", "loss", "gradient", "loss_and_gradient"}),
}
