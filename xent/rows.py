"""The rows' own numbers: the statistics of each row, and the fold itself for callers who hold only some classes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, overload

from . import arrays, checks
from .arrays import AnyArray, Array, ArrayT
from .checks import Kind
from .contract.problem import Options, Route, weights_of
from .dispatch import calls, dimensions
from .linear import Linear, LinearGradient
from .numerics import fold
from .numerics.fold import Partial
from .numerics.statistics import RowStatistics
from .sparse_targets import SparseTargets

STATISTICS = Route("row_statistics", "sparse", "statistics")
PARTIAL_SPARSE, PARTIAL_DENSE = (Route("partial", op, "partial") for op in ("sparse", "dense"))
GRADIENT_SPARSE, GRADIENT_DENSE = (Route("gradient", op, "gradient") for op in ("sparse", "dense"))


def row_statistics(
    predictions: ArrayT | Linear[ArrayT],
    labels: AnyArray,
    /,
    *,
    axis: int | str = -1,
    kind: Kind = "logits",
    ignore_index: int | Iterable[int] | None = None,
) -> RowStatistics[ArrayT]:
    r"""Loss, confidence, rank and entropy of each row, from one pass over the predictions.

    .. math:: \ell = -\log p_y, \quad \max_j p_j, \quad \#\{j : x_j > x_y\}, \quad H = -\sum_j p_j \log p_j,
              \quad \sum_j p_j^2

    Parameters
    ----------
    predictions : array, shape (\*batch, C), real floating
    labels : array, shape (\*batch,), any integer dtype, in ``[0, C)``
    axis, kind, ignore_index
        As in :func:`sparse_cross_entropy`.

    Returns
    -------
    RowStatistics
        ``loss, lse, label_probability, top_probability, label_rank, entropy, sum_p_squared``, each (\*batch,). An equal
        logit of a smaller class counts in ``label_rank``, so that a constant predictor is not right everywhere; the
        rank is −1 if there is none (a row of NaN or of −inf, an ignored row, a bad label).

    Raises
    ------
    LabelError, TypeError, ValueError
        As in :func:`sparse_cross_entropy`.

    Examples
    --------
    >>> import numpy as np, xent
    >>> statistics = xent.row_statistics(np.asarray([[2.0, 1.0, 0.0]]), np.asarray([1]))
    >>> int(statistics.label_rank[0])
    1
    """
    options = Options(axis, kind, "none", ignore_index)
    return calls.apply(STATISTICS, predictions, labels, options)


def partial(
    logits: ArrayT | Linear[ArrayT],
    /,
    *,
    labels: AnyArray | None = None,
    targets: AnyArray | SparseTargets[Any] | None = None,
    axis: int = -1,
    first_class: int = 0,
    num_classes: int | None = None,
    label_smoothing: float = 0.0,
) -> Partial[ArrayT]:
    r"""The fold's numbers of each row over this slice of the classes, to be merged with those of the others.

    .. math:: m = \max_j x_j, \quad r = \sum_{j \ne \mathrm{argmax}} e^{x_j - m}, \quad d = \sum_j t_j (m - x_j),
              \quad w = \sum_j t_j

    Parameters
    ----------
    logits : array, shape (\*batch, classes), real floating
        A slice of the classes.
    labels : array, shape (\*batch,), integer, optional
        Labels among all classes; one that is not in this slice adds nothing here. Whether a label is in any slice is
        not checked: where it is not, the merged ``target_sum`` is 0.
    targets : array, shape of the logits, or :class:`SparseTargets` without a tail, optional
        Soft targets of this slice instead of labels; ids are counted among all classes, as labels are.
    axis : int, default -1
    first_class : int, default 0
        The global index of the first class of the slice.
    num_classes : int, optional
        The global number of classes, which smoothing needs. By default that of the slice.
    label_smoothing : float in [0, 1], default 0

    Returns
    -------
    Partial
        ``max, sum_exp_rest, target_gap, target_sum``, each (\*batch,): plain numbers, through which no gradient flows;
        arrays without names, of an xarray.DataArray too.

    Raises
    ------
    TypeError, ValueError
        As in :func:`sparse_cross_entropy`; and unless exactly one of ``labels`` and ``targets`` is given, and the slice
        lies in ``num_classes``.

    Examples
    --------
    Two halves of the classes, merged.

    >>> import numpy as np, xent
    >>> logits, labels = np.zeros((1, 4)), np.asarray([2])
    >>> left = xent.partial(logits[:, :2], labels=labels, num_classes=4)
    >>> right = xent.partial(logits[:, 2:], labels=labels, first_class=2, num_classes=4)
    >>> float(xent.finish(xent.merge(left, right))[0])
    1.3862943611198906
    """
    options = Options(axis, "logits", "none", None, label_smoothing, first_class, num_classes)
    checks.slice_of_classes("partial", logits, labels, targets, options)
    if targets is not None:
        return calls.apply(PARTIAL_DENSE, logits, targets, options)
    return calls.apply(PARTIAL_SPARSE, logits, labels, options)


def merge(first: Partial[ArrayT], /, *others: Partial[ArrayT]) -> Partial[ArrayT]:
    """The partial of all classes together, from those of disjoint sets of them, in any order.

    Four numbers for each row do not tell of which classes they are: that no class is in two partials, and that all were
    taken with the same ``num_classes``, is not checked.

    Parameters
    ----------
    first, *others : Partial
        Of the same rows.

    Returns
    -------
    Partial
        Merged as a balanced tree.

    Raises
    ------
    TypeError, ValueError
        If an argument is no Partial, or they are of several libraries, devices or numbers of rows.

    Examples
    --------
    See :func:`partial`.
    """
    checks.partials("merge", (first, *others))
    if arrays.library(first.max) == "dask":  # block by block, as in finish
        xp, axes = arrays.namespace(first.max), tuple(range(first.max.ndim))
        parts: list[Partial[Any]] = [first, *others]
        inputs = [part for partial in parts for field in partial for part in (field, axes)]
        return Partial(
            *(
                xp.blockwise(merge_block, axes, *inputs, number=number, dtype=field.dtype, meta=field._meta)
                for number, field in enumerate(parts[0])
            )
        )
    with arrays.without_fp_warnings():
        return fold.merge_tree(arrays.namespace(first.max), [first, *others])


def merge_block(*fields: Array, number: int) -> Array:
    """One field of the merged partials of one block of lazy ones."""
    return merge(*(Partial(*fields[start : start + 4]) for start in range(0, len(fields), 4)))[number]


def finish(partial: Partial[ArrayT], /) -> ArrayT:
    r"""The loss of each row, in nats, once all classes are merged.

    .. math:: \ell = d + w \log(1 + r)

    Parameters
    ----------
    partial : Partial

    Returns
    -------
    array, the shape of the fields
        NaN where no class holds a target.

    Raises
    ------
    TypeError
        If it is no Partial.

    Examples
    --------
    See :func:`partial`.
    """
    checks.partials("finish", (partial,))
    fields: Partial[Any] = partial
    xp = arrays.namespace(fields.max)
    if arrays.library(fields.max) == "dask":  # block by block: NumPy is to warn of no NaN when it is computed either
        return xp.map_blocks(finish_block, *fields, dtype=fields.max.dtype, meta=fields.max._meta)
    with arrays.without_fp_warnings():
        # −1 is the sum of no classes, of which the loss is NaN
        rest = xp.where(fields.target_sum == 0, -1.0, fields.sum_exp_rest)
        return fold.finish(xp, fields._replace(sum_exp_rest=rest))


def finish_block(*fields: Array) -> Array:
    """The losses of the rows of one block of lazy partials."""
    return finish(Partial(*fields))


@overload
def gradient(
    logits: Linear[ArrayT],
    whole: Partial[ArrayT],
    /,
    *,
    labels: AnyArray | None = ...,
    targets: AnyArray | SparseTargets[Any] | None = ...,
    axis: int = ...,
    first_class: int = ...,
    num_classes: int | None = ...,
    label_smoothing: float = ...,
    scale: AnyArray | None = ...,
) -> LinearGradient[ArrayT]: ...


@overload
def gradient(
    logits: ArrayT,
    whole: Partial[ArrayT],
    /,
    *,
    labels: AnyArray | None = ...,
    targets: AnyArray | SparseTargets[Any] | None = ...,
    axis: int = ...,
    first_class: int = ...,
    num_classes: int | None = ...,
    label_smoothing: float = ...,
    scale: AnyArray | None = ...,
) -> ArrayT: ...


def gradient(
    logits: Any,
    whole: Partial[Any],
    /,
    *,
    labels: AnyArray | None = None,
    targets: AnyArray | SparseTargets[Any] | None = None,
    axis: int = -1,
    first_class: int = 0,
    num_classes: int | None = None,
    label_smoothing: float = 0.0,
    scale: AnyArray | None = None,
) -> Any:
    r"""The gradient of the loss in this slice of the classes, from the merged partial of all of them.

    .. math:: \frac{\partial \ell}{\partial x_j} = s \Bigl(w\, \frac{e^{x_j - m}}{1 + r} - t_j\Bigr)

    Parameters
    ----------
    logits : array, shape (\*batch, classes), real floating, or :class:`Linear`
        A slice of the classes.
    whole : Partial
        That of all classes, from :func:`merge`. Its ``target_sum`` is the w of the formula, and may be any number: that
        of a loss with c · lse² beside it is larger by 2 c lse. Its ``target_gap`` is not looked at.
    labels, targets, axis, first_class, num_classes, label_smoothing
        As in :func:`partial` of this slice.
    scale : array, shape (\*batch,), real, optional
        The factor s of each row's gradient: its weight, over the denominator of a mean. A row of scale 0 has gradient
        0, whatever it holds. By default 1.

    Returns
    -------
    array, the shape and the dtype of the logits
        Plain numbers. Of a :class:`Linear` a :class:`LinearGradient`: in the hidden states what this slice adds to
        their gradient, to be summed over all slices; in its classes and their biases the gradient itself.

    Raises
    ------
    TypeError, ValueError
        As in :func:`partial`; and unless ``whole`` is a Partial, and it and ``scale`` are of the rows of the logits.

    Examples
    --------
    The second of two halves of the classes.

    >>> import numpy as np, xent
    >>> logits, labels = np.zeros((1, 4)), np.asarray([2])
    >>> left = xent.partial(logits[:, :2], labels=labels, num_classes=4)
    >>> right = xent.partial(logits[:, 2:], labels=labels, first_class=2, num_classes=4)
    >>> xent.gradient(logits[:, 2:], xent.merge(left, right), labels=labels, first_class=2, num_classes=4).tolist()
    [[-0.75, 0.25]]
    """
    options = Options(axis, "logits", "none", None, label_smoothing, first_class, num_classes)
    checks.slice_of_classes("gradient", logits, labels, targets, options)
    checks.merged("gradient", dimensions.unwrap(logits), whole, scale, options)
    weights = weights_of(scale, whole=whole)
    if targets is not None:
        return calls.apply(GRADIENT_DENSE, logits, targets, options, weights)
    return calls.apply(GRADIENT_SPARSE, logits, labels, options, weights)
