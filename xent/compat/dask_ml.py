"""dask_ml.metrics.log_loss, on any array.

dask-ml takes the mean of its chunks' means, which is another number where chunks are of unequal length, and needs
``labels`` where a chunk holds one label only; with scikit-learn ≥ 1.5 it raises. Here the signature is kept, and the
answer is that of :func:`xent.compat.sklearn.log_loss`: the mean over all rows, lazy for Dask arrays.

| case | dask-ml | here |
|---|---|---|
| ``eps`` | passed on to scikit-learn, which no longer takes it | probabilities are clipped to [eps, 1 − eps] |
| rows that do not sum to 1 | renormalised, by the scikit-learn of its day | UserWarning, and computed |
"""

from __future__ import annotations

from typing import Any

from .sklearn.arguments import invalid_parameter
from .sklearn.scores import mean_log_loss

__all__ = ["log_loss"]


def log_loss(
    y_true: Any,
    y_pred: Any,
    eps: float = 1e-15,
    normalize: bool = True,
    sample_weight: Any = None,
    labels: Any = None,
) -> Any:
    r"""``dask_ml.metrics.log_loss``: the mean cross entropy of probabilities, in nats.

    .. math:: -\frac{1}{\sum_n w_n} \sum_n w_n \log \operatorname{clip}(p_{n y_n}, \varepsilon, 1 - \varepsilon)

    Parameters
    ----------
    y_true, y_pred, normalize, sample_weight, labels
        As in :func:`xent.compat.sklearn.log_loss`, ``y_pred`` being its ``y_proba``.
    eps : float, default 1e-15
        At 0 nothing is clipped, and a certain mistake costs +inf.

    Returns
    -------
    float
        A lazy 0-d array if ``y_true`` or ``y_pred`` is a Dask array.

    Raises
    ------
    ValueError, ZeroDivisionError, TypeError
        As in :func:`xent.compat.sklearn.log_loss`; and for an ``eps`` that is no number.

    References
    ----------
    .. [1] https://ml.dask.org/modules/generated/dask_ml.metrics.log_loss.html

    Examples
    --------
    >>> import dask.array as da
    >>> from xent.compat.dask_ml import log_loss
    >>> loss = log_loss(da.asarray([0, 1, 1], chunks=(1, 2)), da.full((3, 2), 0.5))
    >>> float(loss.compute())
    0.6931471805599453
    """
    if not isinstance(eps, int | float):
        raise invalid_parameter("log_loss", "eps", "a number", eps)
    return mean_log_loss("log_loss", y_true, y_pred, normalize, sample_weight, labels, eps)


def __dir__() -> list[str]:
    return [*__all__]
