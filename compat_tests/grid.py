"""What the comparisons with torch, optax and scikit-learn share: bounds of weighed losses, and edges met exactly.

The grid's cases and their tolerance, the first-order sum of the textbook's roundings, are those of ``cases``. An edge
is one call with values at which a peer has an answer of its own: the answers must agree, value and gradient, but for
64 units of rounding of the larger of the two and 1, and infinities and NaN are met exactly. An edge that xent.compat
does not follow is held to disagree, so that it cannot outlive its reason.
"""

import dataclasses
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from cases import Bound, dtype_of, library, textbook, unit_roundoff
from golden_cases import named_dtype

inf, nan = np.inf, np.nan
UNITS = 64  # of rounding, at an edge: a peer's C + 2 FUNCTION for a few classes

# -------------------- bounds of the grid


def class_weight(arrays: SimpleNamespace) -> np.ndarray:
    """The weight of each row's label; 0 where the label is ignored."""
    return np.where(arrays.y < 0, 0, arrays.c[np.maximum(arrays.y, 0)]).astype(np.float64)


def weighed(of: Callable) -> Callable:
    """Targets times the weights of their classes."""
    return lambda arrays: of(arrays) * arrays.c.astype(np.float64)


def reduction_bound(bound: Callable, denominator: Callable, reduction: str) -> Bound:
    """The bound of a sum over rows, or of that over a weight of its own: 2 N units of its size more."""

    def bound_of_reduction(arrays: SimpleNamespace, u: float) -> np.ndarray:
        error = bound(arrays, u)
        if reduction != "mean":
            return error
        return error / denominator(arrays) * (1 + 2 * arrays.y.size)

    return bound_of_reduction


# -------------------- edges


@dataclasses.dataclass(frozen=True, eq=False)
class Edge:
    """A call with a special value: ``call(functions, *arrays)``, differentiated in the first array."""

    name: str
    call: Callable[..., Any]
    arrays: tuple[Any, ...]
    dtype: str = "float32"
    on: tuple[str, ...] = ("numpy", "torch", "jax")  # the libraries that ours is called on
    gradient: bool = True

    def __str__(self) -> str:
        return self.name

    def own(self, on: Any) -> list[Any]:
        arrays = (np.asarray(array) for array in self.arrays)
        return [
            on.asarray(array.astype(named_dtype(self.dtype)) if array.dtype.kind == "f" else array) for array in arrays
        ]


@functools.cache
def answers(edge: Edge, functions: Any, on: Any, gradient: bool) -> list[np.ndarray]:
    """The value and, if asked for, the gradient of its sum."""
    with on.precision(named_dtype(edge.dtype)), np.errstate(all="raise", under="ignore"):
        first, *rest = edge.own(on)
        results = [edge.call(functions, first, *rest)]
        if gradient:
            results.append(on.gradient(lambda x: edge.call(functions, x, *rest), first))
        return [np.asarray(on.numpy(array)).astype(np.float64) for array in results]


def agrees(theirs: np.ndarray, ours: np.ndarray, u: float) -> bool:
    """Whether the two are the same but for UNITS of rounding."""
    if theirs.shape != ours.shape:
        return False
    known = np.isfinite(theirs) & np.isfinite(ours)
    with np.errstate(invalid="ignore"):
        off = np.abs(theirs - ours) <= UNITS * u * np.maximum(1, np.abs(theirs))
    return bool(np.all(np.where(known, off, (theirs == ours) | (np.isnan(theirs) & np.isnan(ours)))))


def compared(edge: Edge, peer: str, theirs: Any, ours: Any, on: str) -> list[bool]:
    """Whether the peer's answers and ours on a library agree: the value, and the gradient where there is one."""
    gradient = edge.gradient and on != "numpy"
    expected = answers(edge, theirs, textbook.peer_named(peer), gradient)
    results = answers(edge, ours, library(on), gradient)
    return [agrees(*both, unit_roundoff(named_dtype(edge.dtype))) for both in zip(expected, results, strict=True)]


__all__ = ["dtype_of", "inf", "library", "nan", "textbook"]
