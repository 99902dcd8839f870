"""The golden cases held to the error budget of ``xent.testing.budget``."""

import numpy as np
from golden_cases import Case

from xent.testing.budget import Budget, distance, gradient_budget, k_of, loss_budget, lse_budget


def budget_of(case: Case, kind: str, *, flushes: bool = False) -> Budget:
    """The budget of a golden case's "loss", "lse" or "gradient", the last at the case's columns only."""
    if kind == "loss":
        return loss_budget(case.logits, case.dense_targets, flushes=flushes)
    if kind == "lse":
        return lse_budget(case.logits, flushes=flushes)
    is_sparse = case.is_sparse and case.label_smoothing == 0
    whole = gradient_budget(case.logits, case.dense_targets, is_sparse=is_sparse, flushes=flushes)
    return Budget(*(np.take_along_axis(part, case.columns, axis=-1) for part in whole))


def needed(actual: np.ndarray, case: Case, kind: str, *, flushes: bool = False) -> np.ndarray:
    """The k that each of the answers would need: 0 where it needs none.

    ``actual`` is (rows,); for a gradient (rows, classes), whole.
    """
    if kind == "gradient":
        actual = np.take_along_axis(np.asarray(actual), case.columns, axis=-1)
    error = distance(actual, getattr(case, kind + "_hi"), getattr(case, kind + "_lo"))
    budget = budget_of(case, kind, flushes=flushes)
    return np.maximum(error - budget.constant, 0.0) / budget.unit


def within_budget(actual: np.ndarray, case: Case, *, kind: str, k: float | None = None, flushes: bool = False) -> None:
    """Assert that every answer of a golden case is within its budget; if not, show the worst.

    Parameters
    ----------
    actual : array, shape (rows,), or (rows, classes) for a gradient
    kind : "loss", "lse" or "gradient"
    k : 4, for gradients 8, unless given
    flushes : the library takes subnormal numbers for 0
    """
    actual, k = np.asarray(actual), k_of[kind] if k is None else k
    shape = case.logits.shape if kind == "gradient" else case.logits.shape[:1]
    assert actual.shape == shape, f"{case}: the {kind} must have shape {shape}, got {actual.shape}"
    over = needed(actual, case, kind, flushes=flushes)
    assert np.all(over <= k), report(actual, case, kind, k, over, budget_of(case, kind, flushes=flushes))


def report(actual: np.ndarray, case: Case, kind: str, k: float, over: np.ndarray, budget: Budget) -> str:
    """The worst answer, its error and its budget, in ulp of its scale and as they are."""
    worst = np.unravel_index(np.argmax(over), over.shape)
    at, place = worst, f"row {worst[0]}"
    if kind == "gradient":
        column = int(case.columns[worst])
        at, place = (worst[0], column), f"{place}, class {column}"
    exact, unit, allowed = getattr(case, kind + "_hi")[worst], budget.unit[worst], budget.allowed(k)[worst]
    error = distance(actual[at], exact, getattr(case, kind + "_lo")[worst])
    return (
        f"{case}: the {kind} is over its budget in {int(np.sum(over > k))} of {over.size} places, worst at {place}: "
        f"got {float(actual[at])!r}, exact {float(exact)!r}; "
        f"error {error / unit:.4g} ulp ({error:.4g}), budget {allowed / unit:.4g} ulp ({allowed:.4g}); "
        f"this needs k = {over[worst]:.4g}, k is {k:g}"
    )
