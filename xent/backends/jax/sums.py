"""Sums over the classes of whole rows, in an order of their own, for which XLA needs no array of the rows' size.

Terms are made block by block and added as a balanced tree of blocks: one loop, which XLA makes vector code of, whatever
the terms select. Its own reductions add in an order that the shape, the processor and the version decide, and on a CPU
take no selection without an array of all terms (JAX 0.10.2). A term is a function of one class of each row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...arrays import Array

COLUMNS = 128
"""The most classes that are taken column by column, in one loop over the rows."""
BLOCKS = 32
"""The most blocks of more classes, which one loop adds."""
LANES = 16
"""A block has a multiple of so many classes, the float32 numbers of the widest vectors."""


def blocks(array: Array, nothing: Any = 0.0) -> list[Array]:
    """The array (rows, classes) in blocks (rows, width), each class once, and ``nothing`` where there is none."""
    classes = array.shape[-1]
    width = 1 if classes <= COLUMNS else LANES * -(-classes // (LANES * BLOCKS))
    starts = [min(start, classes - width) for start in range(0, classes, width)]
    *before, last = (array[:, start : start + width] for start in starts)
    # subtle: the last block begins early, to be as wide as the others, and shares classes with the one before
    shared = len(starts) * width - classes
    return [*before, last if shared == 0 else jnp.where(jnp.arange(width) < shared, nothing, last)]


def add(parts: Sequence[Array]) -> Array:
    """The sum of blocks (rows, width) and over their classes, (rows,)."""
    total = tree(parts)
    return total[:, 0] if total.shape[-1] == 1 else add(blocks(held(total)))


def tree(parts: Sequence[Array]) -> Array:
    """The sum of arrays of one shape, neighbours first."""
    while len(parts) > 1:
        pairs = [a + b for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts = [*pairs, *parts[2 * len(pairs) :]]
    return parts[0]


def held(values: Array) -> Array:
    """The values, which XLA keeps in memory instead of computing them again for each number that is made of them."""
    # subtle: the larger of a value and −inf. A window is the cheapest operation that XLA fuses with nothing before it,
    # and its barriers are gone before it fuses
    lowest: Any = np.asarray(-math.inf, values.dtype)[()]
    ones, none = (1,) * values.ndim, ((0, 0),) * values.ndim
    windows = jax.lax.reduce_window(values[..., None], lowest, jax.lax.max, (*ones, 2), (*ones, 1), (*none, (0, 1)))
    return windows[..., 0]
