"""What the comparisons share: a case, and how far the two answers may lie apart.

A case is one function of the peer beside ours. It is run on every dtype, on arrays of NumPy, torch and JAX, for its
value, and on those of torch and JAX for its gradient in each of its arguments. The bounds are first-order sums of the
textbook's roundings (``tests/peers.py``), once in the dtype that the peer computes in and once in ours; those added
here state their multiples. What is not finite must be met exactly.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import peers as textbook
import pytest
from expected import far
from golden_cases import named_dtype

from xent.testing.budget import Budget, compute_dtype, smallest

labels, targets, rows, FUNCTION = textbook.labels, textbook.targets, textbook.rows, textbook.FUNCTION
DTYPES = ("float16", "bfloat16", "float32", "float64")
HALVES = {"float16": "float32", "bfloat16": "float32"}
LIBRARIES = ("numpy", "torch", "jax")
MEASURED = ("tensorflow", "keras")  # held in half precision to their float32 answer and their own error

Arrays = SimpleNamespace
Bound = Callable[[Arrays, float], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One function of the peer, and ours."""

    name: str
    theirs: Callable[[Any, Arrays], Any]  # of the peer and its own arrays
    ours: Callable[[Arrays], Any]
    bound: Bound
    gradients: dict[str, Bound] = dataclasses.field(default_factory=dict)  # by the name of what they are taken in
    inputs: dict[str, Any] = dataclasses.field(default_factory=dict)  # the keywords of textbook.inputs
    dtypes: tuple[str, ...] = DTYPES
    computed: dict[str, str] = dataclasses.field(default_factory=dict)  # what the peer computes in, where not the dtype
    ours_off: dict[tuple[str, str], float] = dataclasses.field(default_factory=dict)  # our bound times so much there

    def __str__(self) -> str:
        return self.name


class NumPy(textbook.Peer):
    """NumPy beside the peers that have arrays of their own."""

    def load(self) -> None:
        pass


def library(name: str) -> Any:
    """An array library as tests/peers.py has them: JAX comes with optax there."""
    return NumPy() if name == "numpy" else textbook.peer_named({"jax": "optax"}.get(name, name))


def dtype_of(array: Any) -> str:
    return str(getattr(array.dtype, "name", array.dtype)).rpartition(".")[2]


def answer(on: Any, function: Callable, arrays: Arrays, at: str | None) -> tuple[np.ndarray, str]:
    """What the function returns, or the gradient of its sum in the argument ``at``, and the dtype it came in."""
    with on.precision(arrays.x.dtype):
        own = textbook.converted(arrays, on.asarray)
        if at is None:
            result = function(own)
        else:
            result = on.gradient(lambda value: function(SimpleNamespace(**{**vars(own), at: value})), getattr(own, at))
        # subtle: NumPy cannot ask TensorFlow for a single bfloat16.
        plain = result.numpy() if on.name in ("tensorflow", "keras") else on.numpy(result)
        return np.asarray(plain).astype(np.float64), dtype_of(result)


def unit_roundoff(dtype: Any) -> float:
    return float(ml_dtypes.finfo(dtype).eps) / 2


def allowed(case: Case, bound: Bound, arrays: Arrays, dtype: str, on: str, theirs: np.ndarray) -> np.ndarray:
    """The peer's bound and ours, the roundings to what is returned, and what underflow may drop."""
    narrow = named_dtype(dtype)
    with np.errstate(all="ignore"):
        error = bound(arrays, unit_roundoff(named_dtype(case.computed.get(dtype, dtype))))
        error = error + case.ours_off.get((on, dtype), 1) * bound(arrays, unit_roundoff(compute_dtype(narrow)))
        error = error + arrays.classes * smallest(narrow, flushes=True) + 2 * unit_roundoff(narrow) * np.abs(theirs)
    return np.broadcast_to(np.nan_to_num(error), theirs.shape)


def in_half(
    case: Case, bound: Bound, arrays: Arrays, dtype: str, on: str, theirs: np.ndarray, exact: np.ndarray
) -> np.ndarray:
    """How far from its float32 answer the peer is off at most, our own bound, and the rounding of the result."""
    narrow = named_dtype(dtype)
    with np.errstate(all="ignore"):
        error = case.ours_off.get((on, dtype), 1) * bound(arrays, unit_roundoff("float32"))
        off = np.max(np.nan_to_num(np.abs(theirs - exact), posinf=0.0), initial=0.0)
        error = (
            2 * error
            + off
            + arrays.classes * smallest(narrow, flushes=True)
            + 2 * unit_roundoff(narrow) * np.abs(exact)
        )
    return np.broadcast_to(np.nan_to_num(error), exact.shape)


@functools.cache
def theirs_of(
    case: Case, peer: str, dtype: str, at: str | None, seed: int, widened: bool = False
) -> tuple[Arrays, np.ndarray, str]:
    """The inputs of both sides, in float32 if widened, and the peer's answer."""
    on = textbook.peer_named(peer)
    rng = np.random.default_rng([seed, zlib.crc32(f"{case.name} {dtype}".encode())])
    arrays = textbook.inputs(rng, dtype=dtype, **case.inputs)
    if widened:
        half = {
            name: value for name, value in vars(arrays).items() if getattr(value, "dtype", None) == named_dtype(dtype)
        }
        arrays = Arrays(**{**vars(arrays), **{name: value.astype(np.float32) for name, value in half.items()}})
    return arrays, *answer(on, lambda own: case.theirs(on, own), arrays, at)


def outcome(case: Case, peer: str, dtype: str, on: str, at: str | None = None, seed: int = 0) -> str:
    """How ours differs from the peer's, empty where it does not."""
    arrays, theirs, their_dtype = theirs_of(case, peer, dtype, at, seed)
    ours, our_dtype = answer(library(on), case.ours, arrays, at)
    if our_dtype != their_dtype:
        return f"{our_dtype}, the peer's is {their_dtype}"
    bound = case.gradients[at] if at else case.bound
    if dtype in HALVES and peer in MEASURED:
        exact = theirs_of(case, peer, dtype, at, seed, widened=True)[1]
        error = in_half(case, bound, arrays, dtype, on, theirs, exact)
        return far(ours, exact, Budget(error, np.zeros(error.shape)), 1)
    within = allowed(case, bound, arrays, dtype, on, theirs)
    return far(ours, theirs, Budget(within, np.zeros(within.shape)), 1)


def values(cases: list[Case]) -> list[Any]:
    """Every value to compare: (case, dtype, library)."""
    every = [(case, dtype, on) for case in cases for dtype in case.dtypes for on in LIBRARIES]
    return [pytest.param(*value, id=", ".join(map(str, value))) for value in every]


def gradients(cases: list[Case]) -> list[Any]:
    """Every gradient to compare: (case, dtype, library, argument)."""
    every = [
        (case, dtype, on, at)
        for case in cases
        for dtype in case.dtypes
        for on in LIBRARIES[1:]
        for at in case.gradients
    ]
    return [pytest.param(*value, id=", ".join(map(str, value))) for value in every]


# -------------------- bounds


def p_minus_t(arrays: Arrays, u: float) -> np.ndarray:
    """Of (Σt) p − t and (1 − Σt) p, which are added to p − t."""
    book, t = textbook.Textbook(rows(arrays, "x"), u), targets(arrays)
    p = book.p * (1 + 2 * t.sum(axis=-1, keepdims=True))
    return np.moveaxis(p * (book.error + (arrays.classes + FUNCTION + 4) * u) + 8 * u * t, -1, arrays.axis)


def binary_target(arrays: Arrays, u: float) -> np.ndarray:
    """Of −x, taken as a difference of two losses."""
    return 2 * textbook.binary(arrays, u)


def from_clipped(of: Callable[[Arrays], np.ndarray], renormalised: bool) -> Bound:
    """Of −t / p, and of Σt beside it where p / Σp is taken: 2 C + 4 functions, each to FUNCTION units."""

    def bound(arrays: Arrays, u: float) -> np.ndarray:
        p, t = rows(arrays, "p"), of(arrays)
        beside = t.sum(axis=-1, keepdims=True) * np.ones_like(p) if renormalised else 0.0
        error = (2 * arrays.classes + 4 * FUNCTION) * u * (t / p + beside)
        return np.moveaxis(error, -1, arrays.axis)

    return bound


def normalised_clipped(arrays: Arrays, u: float) -> np.ndarray:
    """Of labels from clipped probabilities: of log p, and of a softmax of it."""
    return textbook.from_probabilities(labels, renormalised=True)(arrays, u)


def binary_slope(arrays: Arrays, u: float) -> np.ndarray:
    """Of (1 − z) / (1 − p) − z / p, 2 FUNCTION units each, with what 1 − p is rounded by."""
    p, z = arrays.p.astype(np.float64), arrays.z.astype(np.float64)
    return 2 * FUNCTION * u * (z / p + (1 - z) / (1 - p)) / (p * (1 - p))


def mean_of(bound: Bound, size: Callable[[Arrays], np.ndarray]) -> Bound:
    """Of the mean over the last axis, C additions of so large terms."""

    def reduced(arrays: Arrays, u: float) -> np.ndarray:
        error = bound(arrays, u) + (arrays.classes + 2) * u * size(arrays)
        return np.broadcast_to(error, arrays.x.shape).mean(axis=-1)

    return reduced


def share_of(bound: Bound) -> Bound:
    """Of the gradient of a mean over the last axis."""
    return lambda arrays, u: bound(arrays, u) / arrays.classes


class Focal:
    """The focal loss of rows of probabilities: its terms' sizes, and what an error in p is multiplied by."""

    def __init__(self, p: np.ndarray, t: np.ndarray, gamma: float) -> None:
        cost = -np.log(p)
        self.term = t * (1 - p) ** gamma * cost
        self.slope = t * (gamma * (1 - p) ** (gamma - 1) * cost + (1 - p) ** gamma / p)
        self.curve = self.slope * (1 / p + (gamma + 1) / (1 - p))


def focal(of: Callable[[Arrays], np.ndarray], gamma: float, from_logits: bool) -> tuple[Bound, Bound]:
    """Of the categorical focal loss, and of its gradient: 4 FUNCTION + 2 C units in each term."""

    def parts(arrays: Arrays, u: float) -> tuple[np.ndarray, np.ndarray, Focal, float]:
        book = textbook.Textbook(rows(arrays, "x"), u)
        p = book.p if from_logits else rows(arrays, "p")
        p = p / p.sum(axis=-1, keepdims=True)
        off = p * ((book.error if from_logits else 0.0) + (arrays.classes + 4) * u) + u
        return p, off, Focal(p, of(arrays), gamma), (4 * FUNCTION + 2 * arrays.classes) * u

    def loss(arrays: Arrays, u: float) -> np.ndarray:
        _, off, sizes, units = parts(arrays, u)
        return (sizes.slope * off + sizes.term * units).sum(axis=-1)

    def gradient(arrays: Arrays, u: float) -> np.ndarray:
        p, off, sizes, units = parts(arrays, u)
        error = sizes.slope * units + sizes.curve * off
        error = error + (p * error + sizes.slope * off).sum(axis=-1, keepdims=True)
        scale = p if from_logits else 1 / rows(arrays, "p").sum(axis=-1, keepdims=True)
        return np.moveaxis(2 * scale * error, -1, arrays.axis)

    return loss, gradient


def binary_focal(gamma: float, from_logits: bool) -> tuple[Bound, Bound]:
    """Of the binary focal loss and of its gradient, element by element: 8 FUNCTION units in each term."""

    def parts(arrays: Arrays, u: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        x, z = arrays.x.astype(np.float64), arrays.z.astype(np.float64)
        p = 1 / (1 + np.exp(-x)) if from_logits else arrays.p.astype(np.float64)
        off = u * (p * (1 - p) * (np.abs(x) + FUNCTION) if from_logits else p) + u
        rest = 1 - (z * p + (1 - z) * (1 - p))
        cost, slope = -z * np.log(p) - (1 - z) * np.log1p(-p), z / p + (1 - z) / (1 - p)
        first = gamma * rest ** (gamma - 1) * cost + rest**gamma * slope
        second = first * (2 * gamma + 1) / (p * (1 - p) * np.maximum(rest, 1e-3))
        return p, off, rest**gamma * cost, np.stack([first, second])

    def loss(arrays: Arrays, u: float) -> np.ndarray:
        _, off, value, (first, _) = parts(arrays, u)
        return 8 * FUNCTION * u * value + 4 * first * off

    def gradient(arrays: Arrays, u: float) -> np.ndarray:
        p, off, _, (first, second) = parts(arrays, u)
        return (p * (1 - p) if from_logits else 1) * (8 * FUNCTION * u * first + 4 * second * off)

    return loss, gradient


def generalised(q: float) -> tuple[Bound, Bound]:
    """Of (1 − p^q) / q and of −p^(q − 1): FUNCTION + C units of each."""

    def loss(arrays: Arrays, u: float) -> np.ndarray:
        at_label = (rows(arrays, "p") * labels(arrays)).sum(axis=-1)
        return (FUNCTION + arrays.classes) * u * (1 + at_label**q) / q

    def gradient(arrays: Arrays, u: float) -> np.ndarray:
        return (FUNCTION + arrays.classes) * u * labels(arrays) * rows(arrays, "p") ** (q - 1)

    return loss, gradient
