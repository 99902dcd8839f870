r"""The fold over classes: the one idea of xent.

Walk the classes of one row of logits :math:`x` with targets :math:`t` and keep four numbers, a :class:`Partial`:

.. math::
    m = \max_j x_j, \quad
    r = \sum_{j \ne \mathrm{first\ argmax}} e^{x_j - m}, \quad
    d = \sum_j t_j (m - x_j), \quad
    w = \sum_j t_j
    \qquad\Rightarrow\qquad \ell = d + w \log(1 + r)

Every term is non-negative, so nothing cancels and the loss keeps its relative accuracy down to the smallest numbers.
Two partials of disjoint classes merge into the partial of their union, in any order.

Leaves out weights, ignored rows and the reduction, which act on the numbers of a row, and probabilities, which have no
partition function. Targets are taken to be non-negative; that is not checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Generic, NamedTuple

from ..arrays import Array, FieldT


class Partial(NamedTuple, Generic[FieldT]):
    """The fold's four numbers for each row over some of the classes.

    Attributes
    ----------
    max : array, shape (rows,)
        The largest logit; −inf for no classes.
    sum_exp_rest : array, shape (rows,)
        :math:`\\sum e^{x_j - m}` over every class but the first one at the maximum; −1 for no classes.
    target_gap : array, shape (rows,)
        :math:`\\sum t_j (m - x_j)`: what the target lies under the maximum.
    target_sum : array, shape (rows,)
        :math:`\\sum t_j`; for labels 1 where the label is among these classes, else 0.
    """

    max: FieldT
    sum_exp_rest: FieldT
    target_gap: FieldT
    target_sum: FieldT


wide_dtypes: dict[str, Any] = {}


def wide_dtype(xp: Any) -> Any:
    """The dtype sums are taken in: float64 where the library has it, else float32."""
    name = getattr(xp, "__name__", "")
    if name in wide_dtypes:
        return wide_dtypes[name]
    dtype = xp.__array_namespace_info__().dtypes(kind="real floating").get("float64", xp.float32)
    if name and not name.startswith("jax"):  # JAX has float64 or not by a flag that may change
        wide_dtypes[name] = dtype
    return dtype


def compute_dtype(xp: Any, dtype: Any) -> Any:
    """The dtype of the fold's numbers: float64 for float64, float32 for everything narrower."""
    # subtle: a NumPy dtype of the other byte order is not equal to float64
    is_wide = dtype == xp.float64 or (getattr(dtype, "kind", "") == "f" and dtype.itemsize == 8)
    return xp.float64 if is_wide else xp.float32


def total(xp: Any, terms: Array) -> Array:
    """Sum over the last axis as a balanced tree, (..., n) to (...), in :func:`wide_dtype` after three levels.

    Halving adds whole slices, so every row is added in the same order whatever the layout and the neighbours, where a
    library's own sum runs naively down a strided axis (NumPy) or by the shape of the array (torch).
    """
    if terms.shape[-1] == 1:
        return terms[..., 0] + 0.0  # subtle: a new array, for a view would be of the caller's targets
    wide, odd, level = wide_dtype(xp), None, 0
    while terms.shape[-1] > 1:
        half = terms.shape[-1] // 2
        if terms.shape[-1] % 2:
            last = terms[..., 2 * half]
            odd = last if odd is None else odd + last
        terms = terms[..., :half] + terms[..., half : 2 * half]
        level += 1
        if level == 3:  # no more than eight float32 terms are added before they are widened
            terms = xp.astype(terms, wide, copy=False)
            odd = odd if odd is None else xp.astype(odd, wide, copy=False)
    if terms.shape[-1] == 0:
        return xp.sum(terms, axis=-1, dtype=terms.dtype)  # on the device of the terms
    return terms[..., 0] if odd is None else terms[..., 0] + odd


SHRINK = 2.0**-32
"""What is summed without overflow is a power of two of the terms, so that no digit is lost."""


def share_of_total(xp: Any, terms: Array, share: float) -> Array:
    """share · Σ terms over the last axis, in the dtype of the terms: finite where only the sum alone is not."""
    return share / SHRINK * xp.astype(total(xp, terms * SHRINK), terms.dtype, copy=False)


class ShiftedBlock(NamedTuple):
    """One block of logits, widened, with the gap between each class and the maximum."""

    logits: Array  # (rows, classes), in the compute dtype
    max: Array  # (rows,)
    gap: Array  # (rows, classes): m − x_j, 0 at the first maximum, +inf where x_j is −inf
    sum_exp_rest: Array  # (rows,)


def shifted_block(xp: Any, logits: Array) -> ShiftedBlock:
    """The part of a partial that does not depend on the targets; logits (rows, classes)."""
    logits = xp.astype(logits, compute_dtype(xp, logits.dtype), copy=False)
    highest = xp.max(logits, axis=-1)  # (rows,)
    classes = xp.arange(logits.shape[-1], device=getattr(logits, "device", None))
    first = classes == xp.argmax(logits, axis=-1)[:, None]  # (rows, classes)
    gap = xp.where(first, 0.0, highest[:, None] - xp.where(first, 0.0, logits))  # subtle: ∞ − ∞ is not taken
    gap = xp.where(logits == -math.inf, math.inf, gap)
    rest = total(xp, xp.where(first, 0.0, xp.exp(-gap)))
    rest = xp.astype(rest, logits.dtype, copy=False)
    rest = xp.where(highest == -math.inf, -1.0, rest)
    # subtle: a lone NaN is its own maximum, and the rest beside it is clean
    return ShiftedBlock(logits, highest, gap, xp.where(xp.isnan(highest), highest, rest))


def gather(xp: Any, values: Array, labels: Array) -> tuple[Array, Array]:
    """Each row's value at its label, (rows, classes) to (rows,), and whether the label is among these classes."""
    inside = (labels >= 0) & (labels < values.shape[-1])
    safe = xp.where(inside, labels, xp.zeros_like(labels))
    return xp.take_along_axis(values, safe[:, None], axis=-1)[:, 0], inside


def partial_sparse(xp: Any, logits: Array, labels: Array, on: float = 1.0, off: float = 0.0) -> Partial:
    """The partial of one block whose target is ``on`` at the label and ``off`` besides: t_j = on · [j = label] + off.

    Parameters
    ----------
    logits : array, shape (rows, classes)
    labels : array, shape (rows,), signed integer
        One outside ``[0, classes)`` is not among these classes.
    """
    block = shifted_block(xp, logits)
    at_label, inside = gather(xp, block.gap, labels)
    mass = xp.astype(inside, block.max.dtype)
    gap, everywhere = xp.where(inside, at_label, 0.0), None if off == 0.0 else share_of_total(xp, block.gap, off)
    of_targets = smoothed(xp, gap, mass, everywhere, logits.shape[-1], on, off)
    return Partial(block.max, block.sum_exp_rest, *of_targets)


def smoothed(
    xp: Any, gap: Array, mass: Array, everywhere: Array | None, classes: int, on: float, off: float
) -> tuple[Array, Array]:
    """target_gap and target_sum of the two-valued target, from those of the label alone.

    ``everywhere`` is off · Σ (m − x_j) over the classes; None if ``off`` is 0.
    """
    if everywhere is None:
        return (gap, mass) if on == 1.0 else (on * gap, on * mass)
    # subtle: at on = 0 the label's term is dropped, for 0 · inf is NaN
    gap = everywhere if on == 0.0 else xp.where(mass == 0, everywhere, on * gap + everywhere)
    return gap, on * mass + off * classes


def partial_dense(xp: Any, logits: Array, targets: Array) -> Partial:
    """The partial of one block with soft targets (rows, classes) in the compute dtype."""
    block = shifted_block(xp, logits)
    # subtle: select, never multiply: a −inf logit with target 0 costs nothing, and 0 · inf is NaN
    gaps = targets * xp.where(targets == 0, 0.0, block.gap)
    gap, mass = (xp.astype(total(xp, terms), block.max.dtype, copy=False) for terms in (gaps, targets))
    return Partial(block.max, block.sum_exp_rest, gap, mass)


def step_between(xp: Any, a: Partial, b: Partial) -> tuple[Array, Array]:
    """Which rows have their maximum in ``b``, and the distance of the two maxima."""
    swap = (b.max > a.max) | xp.isnan(b.max)  # a NaN is the maximum of both, whichever side it is on
    high, low = xp.where(swap, b.max, a.max), xp.where(swap, a.max, b.max)
    # subtle: +inf where the lower block is empty or masked; two +inf stay NaN, as they should
    is_masked = low == -math.inf
    return swap, xp.where(is_masked, math.inf, high - xp.where(is_masked, 0.0, low))


def ordered(xp: Any, swap: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """The value of the block with the higher maximum, then the other's."""
    return xp.where(swap, b, a), xp.where(swap, a, b)


def merge(xp: Any, a: Partial, b: Partial) -> Partial:
    """The partial of two disjoint sets of classes, from theirs. Associative and commutative."""
    swap, step = step_between(xp, a, b)
    rest_hi, rest_lo = ordered(xp, swap, a.sum_exp_rest, b.sum_exp_rest)
    gap_hi, gap_lo = ordered(xp, swap, a.target_gap, b.target_gap)
    sum_hi, sum_lo = ordered(xp, swap, a.target_sum, b.target_sum)
    return Partial(
        xp.where(swap, b.max, a.max),
        rest_hi + (1 + rest_lo) * xp.exp(-step),
        gap_hi + gap_lo + sum_lo * xp.where(sum_lo == 0, 0.0, step),
        sum_hi + sum_lo,
    )


def merge_tree(xp: Any, parts: Iterable[Any], merge: Any = merge) -> Any:
    """All parts merged pairwise as a balanced tree: a running float32 total would lose a digit in 60 merges.

    Two neighbours are merged as soon as there are both, so that of n parts, which may be made meanwhile, no more than
    log₂ n + 1 are kept.
    """
    left: list[Any] = []  # each is of half as many parts as the one before it, or fewer
    for count, part in enumerate(parts, 1):
        while count % 2 == 0:
            part, count = merge(xp, left.pop(), part), count // 2
        left.append(part)
    while len(left) > 1:
        last = left.pop()
        left.append(merge(xp, left.pop(), last))
    return left[0]


def log1p_rest(xp: Any, partial: Partial) -> Array:
    """log(1 + r) of each row; NaN if every logit is −inf."""
    # subtle: the logarithm makes the NaN, for jax_debug_nans refuses one that is selected away
    return xp.log1p(xp.where(partial.sum_exp_rest < 0, -2.0, partial.sum_exp_rest))


def finish(xp: Any, partial: Partial) -> Array:
    """The loss of each row, in nats: d + w · log1p(r)."""
    return partial.target_gap + partial.target_sum * log1p_rest(xp, partial)


def log_partition(xp: Any, partial: Partial) -> Array:
    """log Σ exp x_j of each row: m + log1p(r); ±inf where m is."""
    return xp.where(xp.isinf(partial.max), partial.max, partial.max + log1p_rest(xp, partial))
