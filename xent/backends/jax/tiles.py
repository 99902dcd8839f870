"""The logits of a product, tile by tile: a scan over tiles of classes of one width, and the classes left over.

Leaves out what is differentiated (``backwards.py``) and the rows' own numbers (``linear.py``).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...arrays import Array
from ...numerics import fold, listed
from ...numerics.fold import Partial
from .whole_rows import partial, where, xp

TILE_ELEMENTS, LEAST_CLASSES = 1 << 22, 128
"""A tile has at most so many logits, and at least so many classes."""


class Operands(NamedTuple):
    """The operands of a product, flat: what a tile is made of."""

    hidden: Array  # (rows, D)
    classifier: Array  # (C, D)
    bias: Array | None


class Constants(NamedTuple):
    """What is known when a call is traced."""

    on: float
    off: float
    softcap: float | None


class Listed(NamedTuple):
    """Targets of a few classes of each row, and of all its others together."""

    ids: Array  # (rows, k)
    weights: Array  # (rows, k), not smoothed
    tail: Array | None  # (rows,); None if the others have target 0


class ClassTile(NamedTuple):
    """A tile of classes: its rows of the classifier, its logits and its targets."""

    classifier: Array  # (width, D), 0 for a masked class
    logits: Array  # (rows, width)
    targets: Array  # labels counted from its first class (rows,), or targets (rows, width)
    masked: Array | None  # (width,)
    is_listed: Array | None = None  # (rows, width), if there is a tail


def multiply(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def tile_of(operands: Operands, targets: Any, first: Any, width: int, settings: Constants) -> ClassTile:
    """The tile of so many classes, from the first on; ``targets`` are labels, soft targets or :class:`Listed`."""
    dtype, softcap = compute_dtype(operands), settings.softcap
    classifier = jax.lax.dynamic_slice_in_dim(operands.classifier, first, width).astype(dtype)
    masked = bias = None
    if operands.bias is not None:
        bias = jax.lax.dynamic_slice_in_dim(operands.bias, first, width).astype(dtype)
        masked = bias == -math.inf
        classifier = where(masked[:, None], 0.0, classifier)
    logits = multiply(operands.hidden.astype(dtype), classifier.T)
    logits = logits if bias is None else logits + bias
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    logits = logits if masked is None else where(masked, -math.inf, logits)
    if isinstance(targets, Listed):
        ids = targets.ids - first
        soft = listed.scattered(xp, ids, targets.weights, width)
        soft = soft if settings.off == 0.0 else settings.on * soft + settings.off
        is_listed = None if targets.tail is None else listed.is_listed(xp, ids, width, dtype)
        return ClassTile(classifier, logits, soft, masked, is_listed)
    if targets.ndim == 1:
        return ClassTile(classifier, logits, targets - first, masked)
    return ClassTile(classifier, logits, jax.lax.dynamic_slice_in_dim(targets, first, width, axis=1), masked)


def compute_dtype(operands: Operands) -> Any:
    """The dtype of the logits: float64 if one of the operands has it, else float32."""
    return jnp.float64 if any(one is not None and one.dtype == jnp.float64 for one in operands) else jnp.float32


def width_of(operands: Operands) -> int:
    """The classes of a tile."""
    rows, classes = operands.hidden.shape[0], int(operands.classifier.shape[0])
    least = TILE_ELEMENTS // rows if isinstance(rows, int) and rows else 2048
    return min(classes, max(LEAST_CLASSES, least))


def map_tiles(function: Callable[[Any, int], Any], operands: Operands) -> tuple[Any, Any]:
    """function(first class, width) of every tile: stacked for those of one width, and that of the classes left over.

    Each is None where there is none. No class is in two tiles, and no tile has a class that is none.
    """
    classes, width = int(operands.classifier.shape[0]), width_of(operands)
    count, left = divmod(classes, width)
    _, stacked = jax.lax.scan(lambda _, first: (None, function(first, width)), None, width * jnp.arange(count))
    return stacked, function(count * width, left) if left else None


def merged(stacked: Any, last: Any, merge: Callable[[Any, Any], Any]) -> Any:
    """The results of all tiles merged as a balanced tree, whose halves are merged at once."""
    odd = last
    while (count := jax.tree.leaves(stacked)[0].shape[0]) > 1:
        half = count // 2
        if count % 2:
            alone = jax.tree.map(lambda values: values[-1], stacked)
            odd = alone if odd is None else merge(alone, odd)
        a, b = (jax.tree.map(lambda values, part=part: values[part], stacked) for part in halves(half))
        stacked = merge(a, b)
    one = jax.tree.map(lambda values: values[0], stacked)
    return one if odd is None else merge(one, odd)


def halves(half: int) -> tuple[slice, slice]:
    return slice(0, 2 * half, 2), slice(1, 2 * half, 2)


def fold_tiles(operands: Operands, targets: Any, settings: Constants) -> Partial:
    """The partial of every row over all classes."""

    def of_tile(first: Any, width: int) -> Partial:
        tile = tile_of(operands, targets, first, width, settings)
        if tile.is_listed is None:
            return partial(tile.logits, tile.targets, settings.on, settings.off)
        logits, outside = listed.masked(xp, tile.logits, tile.is_listed)
        others = partial(outside, jnp.zeros_like(outside), settings.on, settings.off)
        tail = where(first == 0, targets.tail, 0.0)  # the tiles are added up, and the tail is one class of all
        head = partial(logits, tile.targets, settings.on, settings.off)
        return listed.both(xp, head, others._replace(target_sum=tail))

    whole: Partial = merged(*map_tiles(of_tile, operands), functools.partial(fold.merge, xp))
    return whole
