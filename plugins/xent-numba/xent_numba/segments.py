r"""What is asked of one segment: a run of classes of one row, contiguous in memory and small enough for the cache.

Each function here is one pass over the segment. The first reads it from memory; while it takes the exponentials it
finds the largest logit of the segment *ahead*, so that no pass waits for memory: the exponentials hide the next read.
The others find the segment in the cache.

Of every sum the lanes add CHUNK numbers in the computing dtype, then go to a total that is wider (float32) or keeps
what is rounded off (float64): equal terms repeat the same rounding, and few of them stay within the error budget. A
segment has at least as many classes as a vector has lanes; what is left over
after the full vectors is read as the segment's last vector, of which only the lanes not yet seen count.

``x``, ``kept``, ``targets`` and ``out`` are the dtypes of memory whose addresses are beside them. Which segments there
are is in ``rows.py``.
"""

from __future__ import annotations

from numba import njit, types
from numba.extending import overload

from .exponential import biased_exp, least_biased, one_over_bias
from .lanes import above, choose, counted, differs, equal, fill, fma, highest, larger, last, reaches
from .memory import element, load, prefetch, size, store, width
from .totals import add_to, nothing, sum_of

CHUNK, TARGET_CHUNK = 16, 4  # targets repeat one number more often than exponentials do
PREFETCH = 4096  # bytes


@njit
def peak_of(x, start, count):
    """The largest logit of a segment; of no meaning where one is NaN, which the sum of the exponentials will tell."""
    step = width(x) * size(x)
    end = start + count * size(x)
    top = load(x, end - step)
    second = top
    at = start
    while at + 2 * step <= end:
        top = larger(load(x, at), top)
        second = larger(load(x, at + step), second)
        at += 2 * step
    if at + step <= end:
        top = larger(load(x, at), top)
    return highest(larger(top, second))


@njit
def sum_exp(x, start, count, reference, ahead, ahead_count, careful, kept, place):
    """(Σ e^(x − reference), the same without the logits that equal it or NaN, the largest logit of the segment ahead).

    The sums are biased as ``biased_exp`` is. The second is −1 where ``careful`` is None, and ``kept`` (of the computing
    dtype, from the address ``place`` on) receives the exponentials where it is not None.
    """
    step = width(x) * size(x)
    end, full = start + count * size(x), start + count // width(x) * step
    level, zero = fill(x, reference), fill(x, 0.0)
    total, rest = nothing(), nothing()
    look, look_last = ahead, ahead + (ahead_count - width(x)) * size(x)
    top = load(x, look_last)
    at = start
    while at < full:
        stop = min(full, at + CHUNK * step)
        lanes, others = zero, zero
        while at < stop:
            logits = load(x, at)
            exps = biased_exp(logits - level)
            lanes = lanes + exps
            if careful is not None:
                others = others + choose(differs(logits, level), exps, zero)
            if kept is not None:
                store(kept, place, exps)
                place += 64
            top = larger(load(x, look), top)
            # subtle: a load that misses holds up everything behind it; a prefetch does not
            prefetch(look + PREFETCH)
            look = min(look + step, look_last)
            at += step
        total = add_to(total, lanes)
        if careful is not None:
            rest = add_to(rest, others)
    if at < end:
        left = (end - at) // size(x)
        logits = load(x, end - step)
        exps = biased_exp(logits - level)
        if kept is not None:
            store(kept, place - 64 + left * (64 // width(x)), exps)
        exps = choose(last(x, left), exps, zero)
        total = add_to(total, exps)
        if careful is not None:
            rest = add_to(rest, choose(differs(logits, level), exps, zero))
    while look < look_last:
        top = larger(load(x, look), top)
        look += step
    if careful is not None:
        return sum_of(total, x), sum_of(rest, x), highest(top)
    else:
        return sum_of(total, x), -1.0, highest(top)


@njit
def sum_unlike(kept, start, count, top):
    """The sum over kept exponentials that are not ``top``."""
    step = width(kept) * size(kept)
    end, full = start + count * size(kept), start + count // width(kept) * step
    level, zero = fill(kept, top), fill(kept, 0.0)
    total = nothing()
    at = start
    while at < full:
        stop = min(full, at + CHUNK * step)
        lanes = zero
        while at < stop:
            exps = load(kept, at)
            lanes = lanes + choose(differs(exps, level), exps, zero)
            at += step
        total = add_to(total, lanes)
    if at < end:
        exps = choose(last(kept, (end - at) // size(kept)), load(kept, end - step), zero)
        total = add_to(total, choose(differs(exps, level), exps, zero))
    return sum_of(total, kept)


@njit
def distance_of(x, start, count, peak):
    """Σ (peak − x), +inf where a logit is −inf."""
    step = width(x) * size(x)
    end, full = start + count * size(x), start + count // width(x) * step
    level, zero = fill(x, peak), fill(x, 0.0)
    total = nothing()
    at = start
    while at < full:
        stop = min(full, at + TARGET_CHUNK * step)
        lanes = zero
        while at < stop:
            lanes = lanes + (level - load(x, at))
            at += step
        total = add_to(total, lanes)
    if at < end:
        total = add_to(total, choose(last(x, (end - at) // size(x)), level - load(x, end - step), zero))
    return sum_of(total, x)


@njit
def target_gap_of(x, start, count, peak, targets, told):
    """(Σ t (peak − x) over t ≠ 0, Σ t), with the targets from the address ``told`` on."""
    step, told_step = width(x) * size(x), width(x) * size(targets)
    end, full = start + count * size(x), start + count // width(x) * step
    level, zero = fill(x, peak), fill(x, 0.0)
    gap, mass = nothing(), nothing()
    at, told_end = start, told + count * size(targets)
    while at < full:
        stop = min(full, at + TARGET_CHUNK * step)
        gaps, masses = zero, zero
        while at < stop:
            t = load(targets, told)
            prefetch(told + PREFETCH)
            # subtle: select, never multiply: a −inf logit with target 0 costs nothing, and 0 · inf is NaN
            gaps = gaps + choose(equal(t, zero), zero, t * (level - load(x, at)))
            masses = masses + t
            at += step
            told += told_step
        gap, mass = add_to(gap, gaps), add_to(mass, masses)
    if at < end:
        t = choose(last(x, (end - at) // size(x)), load(targets, told_end - told_step), zero)
        gap = add_to(gap, choose(equal(t, zero), zero, t * (level - load(x, end - step))))
        mass = add_to(mass, t)
    return sum_of(gap, x), sum_of(mass, x)


@njit
def moments_of(x, start, count, peak, kept, place):
    """(Σ e², Σ (peak − x) e) over kept exponentials e = e^(x − peak), both unbiased."""
    step = width(x) * size(x)
    end, full = start + count * size(x), start + count // width(x) * step
    level, zero, far = fill(x, peak), fill(x, 0.0), fill(x, 1e4)
    squares, spread = nothing(), nothing()
    at, place_end = start, place + count * size(kept)
    while at < full:
        stop = min(full, at + CHUNK * step)
        squared, spreads = zero, zero
        while at < stop:
            exps = load(kept, place)
            below = level - load(x, at)
            squared = fma(exps, exps, squared)
            # subtle: 0 · inf is NaN; beyond 1e4 the exponential is 0 in every dtype
            spreads = spreads + choose(above(below, far), zero, below * exps)
            at += step
            place += 64
        squares, spread = add_to(squares, squared), add_to(spread, spreads)
    if at < end:
        exps = choose(last(x, (end - at) // size(x)), load(kept, place_end - 64), zero)
        below = level - load(x, end - step)
        squares = add_to(squares, exps * exps)
        spread = add_to(spread, choose(above(below, far), zero, below * exps))
    unbias = one_over_bias(x)
    return sum_of(squares, x) * unbias * unbias, sum_of(spread, x) * unbias


@njit
def count_before(x, start, count, level, label):
    """How many logits of a segment come before the label's: larger ones, and equal ones of a smaller index."""
    step = width(x) * size(x)
    end, full = start + count * size(x), start + count // width(x) * step
    levels, label = fill(x, level), max(-1, min(label, count))
    found, index = 0, 0
    at = start
    while at < full:
        logits = load(x, at)
        if index + width(x) <= label:
            found += counted(reaches(logits, levels))
        else:
            found += counted(above(logits, levels))
            for lane in range(index, min(label, index + width(x))):
                found += element(x, start + lane * size(x)) == level
        at += step
        index += width(x)
    while at < end:
        logit = element(x, at)
        found += logit > level or (logit == level and index < label)
        at += size(x)
        index += 1
    return found


@njit
def unbiased(kept, place):
    """The exponentials at an address without their bias; exactly 0 where they are under the smallest subnormal, for
    processors take their time over products that are.
    """
    exps, zero = load(kept, place), fill(kept, 0.0)
    return choose(reaches(exps, fill(kept, least_biased(kept))), exps, zero) * fill(kept, one_over_bias(kept))


@njit
def write_scaled(kept, place, count, factor, out, to):
    """Writes factor · kept to the address ``to`` on: the gradient of a label's row, but for the label itself."""
    step = width(kept) * size(out)
    times = fill(kept, factor)
    end = to + count * size(out)
    while to + step <= end:
        store(out, to, unbiased(kept, place) * times)
        to += step
        place += 64
    back = (to + step - end) // size(out)
    if back < width(kept):
        store(out, end - step, unbiased(kept, place - back * size(kept)) * times)


def targets_at(kept, targets, place):
    """The targets of one vector: the same number everywhere, or those at an address."""
    raise NotImplementedError("only compiled code calls this")


@overload(targets_at)
def overloaded_targets_at(kept, targets, place):
    if isinstance(targets, types.DType):
        return lambda kept, targets, place: load(targets, place)
    return lambda kept, targets, place: fill(kept, targets)


@njit
def write_residual(kept, place, count, numbers, targets, told, out, to):
    """The same with a target t at every class: factor · kept − scale · t, and where kept is ``top`` the form that does
    not cancel, ((mass − t) − t · rest) · share. ``numbers`` are (factor, −scale, top, mass, rest, share), ``top``
    without the bias; ``targets`` is one number, or the memory, like kept's, from the address ``told`` on.
    """
    factor, minus_scale, top = fill(kept, numbers[0]), fill(kept, numbers[1]), fill(kept, numbers[2])
    mass, rest, share = fill(kept, numbers[3]), fill(kept, numbers[4]), fill(kept, numbers[5])
    step = width(kept) * size(out)
    end = to + count * size(out)
    while to < end:
        if to + step > end:  # the last vector again, but for its last lanes the same numbers
            back = (to + step - end) // size(out)
            to, place, told = end - step, place - back * size(kept), told - back * size(kept)
        t, exps = targets_at(kept, targets, told), unbiased(kept, place)
        residual = fma(exps, factor, minus_scale * t)
        store(out, to, choose(equal(exps, top), ((mass - t) - t * rest) * share, residual))
        to += step
        place += 64
        told += 64


@njit
def write_zeros(out, to, count):
    """0 for every class of a segment."""
    step, zero = width(out) * size(out), fill(out, 0.0)
    last_vector = to + count * size(out) - step
    while to < last_vector:
        store(out, to, zero)
        to += step
    store(out, last_vector, zero)
