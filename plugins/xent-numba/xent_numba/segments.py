r"""Passes over one segment: a run of classes of one row, contiguous in memory and small enough for the cache.

``sum_exp`` reads the segment from memory. While it takes the exponentials it finds the largest logit of the *next*
segment, so that no pass waits for memory: the exponentials hide the next read. The other passes find the segment in
the cache.

Of every sum the lanes add CHUNK numbers in the computing dtype, SHORT_CHUNK where one may be a maximum, then go to a
total that is wider (float32) or keeps what is rounded off (float64): equal terms repeat the same rounding, and few of
them stay within the error budget. A segment has at least as many classes as a vector has lanes. The classes after the
full vectors are read as the segment's last vector, of which only the lanes not yet seen count.

``x``, ``buffer``, ``targets`` and ``out`` are dtypes of memory; the argument after each is its address. A buffer holds
the exponentials of a segment in the computing dtype. ``rows.py`` says how a row is cut into segments.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import njit, types

from .by_type import by_type
from .exponential import biased_exp, one_over_bias, smallest_biased
from .lanes import count_lanes, equal, fill, fma, greater, greater_equal, larger, last_lanes, max_lane, not_equal, where
from .memory import itemsize, load, load_scalar, prefetch, store, width
from .totals import add_lanes, reduce_total, zero_total

CHUNK = 8
SHORT_CHUNK = 4  # of targets, which repeat one number, and beside a maximum, which takes the digits of what is added
PREFETCH = 4096  # bytes
SHRINK = 2.0**-32  # of terms whose sum may be infinite where none of them is; a power of two keeps every digit


@njit
def max_of(x, start, count):
    """The largest logit of a segment. It is any number if a logit is NaN; the sum of the exponentials is NaN then."""
    step = width(x) * itemsize(x)
    end = start + count * itemsize(x)
    top = load(x, end - step)
    second = top
    at = start
    while at + 2 * step <= end:
        top = larger(load(x, at), top)
        second = larger(load(x, at + step), second)
        at += 2 * step
    if at + step <= end:
        top = larger(load(x, at), top)
    return max_lane(larger(top, second))


@njit
def sum_exp(x, start, count, reference, next_start, next_count, split_maximum, buffer, address):
    """(Σ e^(x − reference), the same without logits that equal the reference, the largest logit of the next segment).

    The sums are biased as ``biased_exp`` is. The second sum is −1 if ``split_maximum`` is None. The exponentials are
    written to ``buffer``, from ``address`` on, unless it is None.
    """
    step = width(x) * itemsize(x)
    end, full = start + count * itemsize(x), start + count // width(x) * step
    level, zero = fill(x, reference), fill(x, 0.0)
    total, rest = zero_total(), zero_total()
    next_at, next_last = next_start, next_start + (next_count - width(x)) * itemsize(x)
    top = load(x, next_last)
    at = start
    while at < full:
        stop = min(full, at + SHORT_CHUNK * step)
        lanes, others = zero, zero
        while at < stop:
            logits = load(x, at)
            exps = biased_exp(logits - level)
            lanes = lanes + exps
            if split_maximum is not None:
                others = others + where(not_equal(logits, level), exps, zero)
            if buffer is not None:
                store(buffer, address, exps)
                address += 64
            top = larger(load(x, next_at), top)
            # subtle: a load that misses holds up everything behind it; a prefetch does not
            prefetch(next_at + PREFETCH)
            next_at = min(next_at + step, next_last)
            at += step
        total = add_lanes(total, lanes)
        if split_maximum is not None:
            rest = add_lanes(rest, others)
    if at < end:
        left = (end - at) // itemsize(x)
        logits = load(x, end - step)
        exps = biased_exp(logits - level)
        if buffer is not None:
            store(buffer, address - 64 + left * (64 // width(x)), exps)
        exps = where(last_lanes(x, left), exps, zero)
        total = add_lanes(total, exps)
        if split_maximum is not None:
            rest = add_lanes(rest, where(not_equal(logits, level), exps, zero))
    while next_at < next_last:
        top = larger(load(x, next_at), top)
        next_at += step
    if split_maximum is not None:
        return reduce_total(total, x), reduce_total(rest, x), max_lane(top)
    else:
        return reduce_total(total, x), -1.0, max_lane(top)


@njit
def sum_not_equal(buffer, start, count, top):
    """The sum over the exponentials in a buffer that are not ``top``, in the order of ``sum_exp``."""
    step = width(buffer) * itemsize(buffer)
    end, full = start + count * itemsize(buffer), start + count // width(buffer) * step
    level, zero = fill(buffer, top), fill(buffer, 0.0)
    total = zero_total()
    at = start
    while at < full:
        stop = min(full, at + SHORT_CHUNK * step)
        lanes = zero
        while at < stop:
            exps = load(buffer, at)
            lanes = lanes + where(not_equal(exps, level), exps, zero)
            at += step
        total = add_lanes(total, lanes)
    if at < end:
        exps = where(last_lanes(buffer, (end - at) // itemsize(buffer)), load(buffer, end - step), zero)
        total = add_lanes(total, where(not_equal(exps, level), exps, zero))
    return reduce_total(total, buffer)


@njit
def sum_gaps(x, start, count, peak):
    """2⁻³² Σ (peak − x), +inf where a logit is −inf: the sum itself may be infinite where no gap is."""
    step = width(x) * itemsize(x)
    end, full = start + count * itemsize(x), start + count // width(x) * step
    level, zero, shrink = fill(x, peak), fill(x, 0.0), fill(x, SHRINK)
    total = zero_total()
    at = start
    while at < full:
        stop = min(full, at + SHORT_CHUNK * step)
        lanes = zero
        while at < stop:
            lanes = lanes + (level - load(x, at)) * shrink
            at += step
        total = add_lanes(total, lanes)
    if at < end:
        gaps = (level - load(x, end - step)) * shrink
        total = add_lanes(total, where(last_lanes(x, (end - at) // itemsize(x)), gaps, zero))
    return reduce_total(total, x)


@njit
def sum_target_gaps(x, start, count, peak, targets, targets_address):
    """(Σ t (peak − x) over t ≠ 0, Σ t) with soft targets t."""
    step, targets_step = width(x) * itemsize(x), width(x) * itemsize(targets)
    end, full = start + count * itemsize(x), start + count // width(x) * step
    level, zero = fill(x, peak), fill(x, 0.0)
    gap, mass = zero_total(), zero_total()
    at, targets_end = start, targets_address + count * itemsize(targets)
    while at < full:
        stop = min(full, at + SHORT_CHUNK * step)
        gaps, masses = zero, zero
        while at < stop:
            t = load(targets, targets_address)
            prefetch(targets_address + PREFETCH)
            # subtle: select, never multiply: a −inf logit with target 0 costs nothing, and 0 · inf is NaN
            gaps = gaps + where(equal(t, zero), zero, t * (level - load(x, at)))
            masses = masses + t
            at += step
            targets_address += targets_step
        gap, mass = add_lanes(gap, gaps), add_lanes(mass, masses)
    if at < end:
        t = where(last_lanes(x, (end - at) // itemsize(x)), load(targets, targets_end - targets_step), zero)
        gap = add_lanes(gap, where(equal(t, zero), zero, t * (level - load(x, end - step))))
        mass = add_lanes(mass, t)
    return reduce_total(gap, x), reduce_total(mass, x)


@njit
def moments_of(x, start, count, peak, buffer, address):
    """(Σ e², Σ (peak − x) e) over the exponentials e = e^(x − peak) in a buffer, both unbiased."""
    step = width(x) * itemsize(x)
    end, full = start + count * itemsize(x), start + count // width(x) * step
    level, zero, far = fill(x, peak), fill(x, 0.0), fill(x, 1e4)
    squares, spread = zero_total(), zero_total()
    at, address_end = start, address + count * itemsize(buffer)
    while at < full:
        stop = min(full, at + CHUNK * step)
        squared, spreads = zero, zero
        while at < stop:
            exps = load(buffer, address)
            gap = level - load(x, at)
            squared = fma(exps, exps, squared)
            # subtle: 0 · inf is NaN; beyond 1e4 the exponential is 0 in every dtype
            spreads = spreads + where(greater(gap, far), zero, gap * exps)
            at += step
            address += 64
        squares, spread = add_lanes(squares, squared), add_lanes(spread, spreads)
    if at < end:
        exps = where(last_lanes(x, (end - at) // itemsize(x)), load(buffer, address_end - 64), zero)
        gap = level - load(x, end - step)
        squares = add_lanes(squares, exps * exps)
        spread = add_lanes(spread, where(greater(gap, far), zero, gap * exps))
    unbias = one_over_bias(x)
    return reduce_total(squares, x) * unbias * unbias, reduce_total(spread, x) * unbias


@njit
def count_ranked_before(x, start, count, level, label):
    """How many logits of a segment rank before the label's: larger ones, and equal ones of a smaller index."""
    step = width(x) * itemsize(x)
    end, full = start + count * itemsize(x), start + count // width(x) * step
    levels, label = fill(x, level), max(-1, min(label, count))
    rank, index = 0, 0
    at = start
    while at < full:
        logits = load(x, at)
        if index + width(x) <= label:
            rank += count_lanes(greater_equal(logits, levels))
        else:
            rank += count_lanes(greater(logits, levels))
            for lane in range(index, min(label, index + width(x))):
                rank += load_scalar(x, start + lane * itemsize(x)) == level
        at += step
        index += width(x)
    while at < end:
        logit = load_scalar(x, at)
        rank += logit > level or (logit == level and index < label)
        at += itemsize(x)
        index += 1
    return rank


@njit
def without_bias(buffer, exps):
    """Biased exponentials without their bias.

    They are exactly 0 where they would be under the smallest subnormal: products of subnormals are slow.
    """
    zero = fill(buffer, 0.0)
    exps = where(greater_equal(exps, fill(buffer, smallest_biased(buffer))), exps, zero)
    return exps * fill(buffer, one_over_bias(buffer))


@njit
def unbiased(buffer, address):
    """The exponentials at an address without their bias."""
    return without_bias(buffer, load(buffer, address))


@njit
def write_scaled(buffer, address, count, factor, out, out_address):
    """Writes factor · e for the exponentials e in a buffer: the gradient of a label's row, but for the label itself."""
    step = width(buffer) * itemsize(out)
    times = fill(buffer, factor)
    end = out_address + count * itemsize(out)
    while out_address + step <= end:
        store(out, out_address, unbiased(buffer, address) * times)
        out_address += step
        address += 64
    back = (out_address + step - end) // itemsize(out)
    if back < width(buffer):
        store(out, end - step, unbiased(buffer, address - back * itemsize(buffer)) * times)


class Factors(NamedTuple):
    """What turns a row's exponentials into its gradient."""

    softmax: float  # the gradient is softmax · e − scale · t
    minus_scale: float
    top: float  # the exponential of the row's maximum, unbiased; NaN if exponentials are relative to another number
    mass: float
    rest: float
    row_scale: float  # scale / (1 + rest)


@by_type
def load_targets(buffer, targets, address):
    """The targets of one vector: the same number everywhere, or those at an address."""
    if isinstance(targets, types.DType):
        return lambda buffer, targets, address: load(targets, address)
    return lambda buffer, targets, address: fill(buffer, targets)


@njit
def write_residual(buffer, address, count, factors, targets, targets_address, out, out_address):
    """Writes softmax · e − scale · t; at the maximum ((mass − t) − t · rest) · row_scale, which does not cancel.

    ``targets`` is one number for every class, or the dtype of soft targets; that is the buffer's.
    """
    factor, minus_scale, top = (
        fill(buffer, factors.softmax),
        fill(buffer, factors.minus_scale),
        fill(buffer, factors.top),
    )
    mass, rest, row_scale = fill(buffer, factors.mass), fill(buffer, factors.rest), fill(buffer, factors.row_scale)
    step = width(buffer) * itemsize(out)
    end = out_address + count * itemsize(out)
    while out_address < end:
        if out_address + step > end:  # the last vector again, but for its last lanes the same numbers
            back = (out_address + step - end) // itemsize(out)
            out_address, address = end - step, address - back * itemsize(buffer)
            targets_address -= back * itemsize(buffer)
        t, exps = load_targets(buffer, targets, targets_address), unbiased(buffer, address)
        residual = fma(exps, factor, minus_scale * t)
        store(out, out_address, where(equal(exps, top), ((mass - t) - t * rest) * row_scale, residual))
        out_address += step
        address += 64
        targets_address += 64


@njit
def write_zeros(out, out_address, count):
    """Writes 0 for every class of a segment."""
    step, zero = width(out) * itemsize(out), fill(out, 0.0)
    last_vector = out_address + count * itemsize(out) - step
    while out_address < last_vector:
        store(out, out_address, zero)
        out_address += step
    store(out, last_vector, zero)
