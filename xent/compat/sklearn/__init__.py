"""scikit-learn's scores of probabilities, on any array: names, signatures, defaults, answers, warnings and errors.

An array keeps its library and its dtype, as in scikit-learn under ``array_api_dispatch=True``; without it scikit-learn
converts other libraries' arrays to float64 on the host. Concrete arrays give a float, Dask arrays a lazy 0-d array: a
call computes no chunk, values are checked in the tasks, and the mean is over all rows, never a mean of the chunks'
means. Where scikit-learn and xent disagree:

| case | xent | scikit-learn, and here |
|---|---|---|
| probability 0 or 1 | +inf or 0 | clipped to [ε, 1 − ε], ε that of the dtype: 36.0, 15.9 or 6.9 for a wrong one |
| labels | integers in [0, C) | any type that sorts; the columns follow their order |
| ``labels`` in another order | | sorted, with a warning |
| lists, data frames | TypeError | taken |
| weights that sum to 0, not all 0 | ±inf or NaN | ZeroDivisionError |
| probabilities outside [0, 1], NaN, nothing at all | computed | ValueError |
| rows that do not sum to 1 | computed | UserWarning, and computed |
| result | 0-d array | float |
| all weights 0 | NaN | ValueError |

Not followed:

| case | scikit-learn | here |
|---|---|---|
| Dask | computed at once, as NumPy | lazy; ``labels`` and ``pos_label`` are found by a pass over ``y_true`` alone |
| all weights 0, or a weight of NaN, on Dask | ValueError | NaN |
| weights that sum to 0, on Dask | ZeroDivisionError | ±inf or NaN |
| ``labels`` as a Dask array | taken | ValueError: they are read when the function is called |
| an ``xarray.DataArray`` | NumPy's array of it | the array inside, lazy if it is Dask's |
| a collection of dask.dataframe | computed | an error, or computed |
| strings for weights | TypeError | the numbers in them |
| lists of lists of one label | TypeError | taken as labels |
| labels that mix strings and numbers | ValueError | converted as NumPy does |
| float16, bfloat16 | rounded in it; bfloat16 refused without dispatch | float32 inside |
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .arguments import InvalidParameterError
from .functions import brier_score_loss, d2_log_loss_score, log_loss

if TYPE_CHECKING:  # what __getattr__ loads, for type checkers and editors
    from .scorers import d2_log_loss_scorer, neg_brier_score_scorer, neg_log_loss_scorer

__all__ = [
    "brier_score_loss",
    "d2_log_loss_score",
    "d2_log_loss_scorer",
    "get_scorer",
    "log_loss",
    "neg_brier_score_scorer",
    "neg_log_loss_scorer",
]
SCORERS = {
    "d2_log_loss_score": "d2_log_loss_scorer",
    "neg_brier_score": "neg_brier_score_scorer",
    "neg_log_loss": "neg_log_loss_scorer",
}
"""The scorers by scikit-learn's names of them. scikit-learn is imported where one of them is asked for."""


def get_scorer(scoring: str) -> Any:
    """``sklearn.metrics.get_scorer`` of these scores: the scorer of this name.

    Parameters
    ----------
    scoring : "neg_log_loss", "neg_brier_score" or "d2_log_loss_score"

    Returns
    -------
    callable
        ``scorer(estimator, X, y)`` -> float, higher for a better estimator.

    Raises
    ------
    ValueError
        If there is no such scorer here.
    ModuleNotFoundError
        If scikit-learn is not installed.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from xent.compat.sklearn import get_scorer
    >>> model = DummyClassifier().fit([[0], [0]], [0, 1])
    >>> get_scorer("neg_log_loss")(model, [[0], [0]], [0, 1])
    -0.6931471805599453
    """
    if scoring not in SCORERS:
        names = ", ".join(map(repr, SCORERS))
        raise InvalidParameterError(
            f"get_scorer: `scoring` must be one of {names}, got {scoring!r}. sklearn.metrics.get_scorer has the others."
        )
    return scorer(SCORERS[scoring])


def scorer(name: str) -> Any:
    """The scorer of this name in ``scorers.py``, which is imported."""
    try:
        return getattr(importlib.import_module(f"{__name__}.scorers"), name)
    except ModuleNotFoundError as error:
        message = f"{__name__}.{name} is an object of scikit-learn, which is not installed. Install scikit-learn."
        raise ModuleNotFoundError(message, name=error.name) from error


if not TYPE_CHECKING:  # a name that is not there is an error for type checkers, too

    def __getattr__(name: str) -> Any:
        if name not in SCORERS.values():
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault(name, scorer(name))


def __dir__() -> list[str]:
    return [*__all__]
