"""What a test expects: equality to the bit, and closeness by the error budget, against the reference."""

from types import SimpleNamespace

import array_api_compat.numpy as xp
import numpy as np

from xent.testing import reference
from xent.testing.budget import Budget, compute_dtype, gradient_budget, k_of, loss_budget
from xent.testing.exact import exact as exact


def same(actual, expected) -> bool:
    """Equal in shape and value, NaN to NaN; 0 and −0.0 are equal."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    return actual.shape == expected.shape and np.array_equal(actual, expected, equal_nan=True)


def same_bits(actual, expected) -> bool:
    """Equal in shape, dtype and every bit."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    return actual.shape == expected.shape and actual.dtype == expected.dtype and actual.tobytes() == expected.tobytes()


def near(actual, expected, *, ulps: int = 4) -> bool:
    """Equal in shape, and in value within so many ulp of what the answer's dtype has; infinities and NaN alike."""
    actual, expected = np.asarray(actual), np.asarray(expected, np.float64)
    with np.errstate(invalid="ignore"):
        close = np.abs(actual.astype(np.float64) - expected) <= ulps * np.spacing(np.abs(expected).astype(actual.dtype))
        close |= (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    return actual.shape == expected.shape and bool(np.all(close))


def one_hot(labels, classes: int) -> np.ndarray:
    """The dense targets of labels, in float64."""
    return (np.arange(classes) == np.asarray(labels)[..., None]).astype(np.float64)


def smooth(targets, label_smoothing: float) -> np.ndarray:
    return (1 - label_smoothing) * np.asarray(targets, np.float64) + label_smoothing / np.shape(targets)[-1]


class Extended:
    """NumPy's namespace for the reference, with ``longdouble`` where it asks for float64: an answer in float64 is not
    held to one that was rounded as often.
    """

    def __getattr__(self, name: str):
        return getattr(xp, name)

    def __array_namespace_info__(self) -> SimpleNamespace:
        return SimpleNamespace(dtypes=lambda **_: dict.fromkeys(("float32", "float64"), np.longdouble))


def loss_allowed(x, targets) -> np.ndarray:
    """How far the losses of rows of logits may be from the exact ones."""
    return loss_budget(x, targets).allowed(k_of["loss"])


def gradient_allowed(x, targets, *, is_sparse: bool) -> np.ndarray:
    """How far the gradients of the losses of rows of logits may be from the exact ones."""
    return gradient_budget(x, targets, is_sparse=is_sparse).allowed(k_of["gradient"])


def far(actual, expected, budget: Budget, k: float) -> str:
    """Empty where everything is within k of its budget and equal where it is not finite; else what is worst."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    wide = actual.astype(np.float64)
    with np.errstate(invalid="ignore"):
        over = np.where(np.isfinite(expected), np.abs(wide - expected) - budget.allowed(k), 0.0)
    wrong = np.isfinite(expected) != np.isfinite(wide)
    wrong |= ~np.isfinite(expected) & ~((wide == expected) | (np.isnan(wide) & np.isnan(expected)))
    over = np.where(wrong | np.isnan(over), np.inf, over)
    if not np.any(over > 0):
        return ""
    at = np.unravel_index(np.argmax(over), over.shape)
    return (
        f"{int(np.sum(over > 0))} of {over.size}, worst at {at}: {wide[at]!r} for {expected[at]!r}, {over[at]:.3g} over"
    )


def loss_is_off(actual, logits, targets, *, weight=1.0, flushes: bool = False) -> str:
    """How losses (rows,) differ from the reference's times the weight, beyond the budget; empty where they do not.

    ``targets`` are dense and smoothed.
    """
    exact = reference.cross_entropy(Extended(), logits, np.asarray(targets, np.float64))
    budget = loss_budget(logits, targets, flushes=flushes)
    weight = np.broadcast_to(np.asarray(weight, np.float64), exact.shape)
    scaled = Budget(*(part * np.abs(weight) for part in budget))
    with np.errstate(invalid="ignore"):
        expected = np.where(weight == 0, 0.0, exact * weight)
    rounding = np.spacing(np.abs(expected).astype(compute_dtype(logits.dtype)))  # of the product itself
    return far(
        actual, expected, scaled._replace(constant=scaled.constant + np.where(weight == 1, 0, rounding)), k_of["loss"]
    )


def gradient_is_off(actual, logits, targets, *, share=1.0, is_sparse: bool = False, flushes: bool = False) -> str:
    """How gradients (rows, classes) differ from the reference's times the row's share; empty where they do not."""
    exact = reference.gradient(Extended(), logits, np.asarray(targets, np.float64))
    budget = gradient_budget(logits, targets, is_sparse=is_sparse, flushes=flushes)
    share = np.broadcast_to(np.asarray(share, np.float64), exact.shape[:1])[:, None]
    with np.errstate(invalid="ignore"):
        expected = np.where(share == 0, 0.0, exact * share)
        rounding = 2 * np.finfo(compute_dtype(logits.dtype)).eps * np.abs(expected)  # of the share and of the product
    scaled = Budget(*(part * np.abs(share) for part in budget))
    return far(
        actual,
        expected,
        scaled._replace(constant=scaled.constant + np.where(share == 1, 0, rounding)),
        k_of["gradient"],
    )
