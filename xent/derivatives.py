"""Loss and gradient together, without autodiff, and the explanation of a call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from . import checks, losses
from .arrays import AnyArray, Array, ArrayT
from .contract.plan import Decision
from .contract.problem import Options, Route, Weights, weights_of
from .dispatch import calls, dimensions

P = ParamSpec("P")
LossT = TypeVar("LossT", covariant=True)


class WithGradient(Protocol[P, LossT]):
    """What :func:`value_and_grad` returns: it takes what the loss takes, or that with ``out`` beside it."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> tuple[LossT, LossT]: ...

    @overload
    def __call__(
        self, predictions: ArrayT, targets: AnyArray, /, *, out: ArrayT, **keywords: Any
    ) -> tuple[ArrayT, ArrayT]: ...


GRADIENTS = {loss: Route(route.function, route.op, "loss_and_gradient") for loss, route in losses.ROUTES.items()}
FUNCTIONS: list[Any] = [*losses.ROUTES]
KEYWORDS = {loss: tuple(inspect.signature(loss).parameters)[2:] for loss in FUNCTIONS}
OUT = inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="Array | None")
SIGNATURES = {
    loss: signature.replace(parameters=[*signature.parameters.values(), OUT], return_annotation="tuple[Array, Array]")
    for loss, signature in zip(FUNCTIONS, map(inspect.signature, FUNCTIONS), strict=True)
}
DEFAULTS = {**Options._field_defaults, **dict.fromkeys(checks.WEIGHTS)}
COMPILED = "_torchdynamo_orig_callable"
"""Where torch.compile leaves the function that it was given."""


def unbind(caller: str, function: Any) -> tuple[Any, dict[str, Any]]:
    """The function inside any functools.partial, and the keywords that they have bound."""
    bound: dict[str, Any] = {}
    while isinstance(function, functools.partial):
        checks.no_positional(caller, function.args)
        bound = {**function.keywords, **bound}
        function = function.func
    return function, bound


def unpack(caller: str, loss: Any) -> tuple[Callable[..., Array], dict[str, Any]]:
    """The loss function, and the keywords that a functools.partial of it has bound."""
    function, bound = unbind(caller, loss)
    checks.known_loss(caller, function, losses.ROUTES)
    return function, bound


def options_and_weights(function: Callable[..., Array], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], Weights]:
    """The keywords of a loss as a tuple that is equal to an Options, and as weights."""
    checks.keywords(function.__name__, keywords, KEYWORDS[function])
    values = {**DEFAULTS, **keywords}
    # in single steps: they are quick, and TorchDynamo traces no itemgetter
    axis, kind, reduction = values["axis"], values["kind"], values["reduction"]
    options = axis, kind, reduction, values["ignore_index"], values["label_smoothing"], 0, None
    return options, weights_of(values["sample_weight"], values["class_weight"], values["pos_weight"])


def value_and_grad(loss: Callable[P, LossT]) -> WithGradient[P, LossT]:
    r"""A function that returns the loss and its gradient in the predictions, from one read of them.

    .. math:: \frac{\partial \ell}{\partial x_j} = \Bigl(\sum_k t_k\Bigr) p_j - t_j

    for logits, −t / p for probabilities, −t for log-probabilities; times the row's weight, over the denominator of a
    mean.

    Parameters
    ----------
    loss : callable
        :func:`cross_entropy`, :func:`sparse_cross_entropy` or :func:`binary_cross_entropy`, or a functools.partial of
        one that binds keywords.

    Returns
    -------
    callable
        ``f(predictions, targets, *, out=None, **keywords) -> (loss, gradient)`` with the keywords of the loss. The
        gradient has the shape and the dtype of the predictions; with reduction "none" each row has its own loss's
        gradient. It is written into ``out``, which is then what is returned: an array like the predictions, of any
        strides, that shares no memory with the other arguments, or the predictions themselves, to overwrite them.

    Raises
    ------
    TypeError
        If ``loss`` is none of these; from the callable also if ``out`` is no such array, or of a library whose arrays
        are not written to (Dask, JAX).
    ValueError
        From the callable, if ``out`` is of another shape, read-only, in the memory of another argument, or of the
        predictions but not element for element.

    Notes
    -----
    No autodiff takes part: the result is plain numbers, on torch and JAX too. Everything is checked before the first
    write, the labels too where they are on the host: an error of these leaves ``out`` as it was. Labels on a GPU are
    read for that with ``using(validate="always")`` only; else a bad one makes its row NaN, in ``out`` as well.

    Examples
    --------
    >>> import numpy as np, xent
    >>> loss, gradient = xent.value_and_grad(xent.sparse_cross_entropy)(np.zeros((1, 4)), np.asarray([2]))
    >>> gradient.tolist()
    [[0.25, 0.25, -0.75, 0.25]]

    The gradient in the place of the logits:

    >>> logits = np.zeros((1, 4))
    >>> _, gradient = xent.value_and_grad(xent.sparse_cross_entropy)(logits, np.asarray([2]), out=logits)
    >>> gradient is logits, logits.tolist()
    (True, [[0.25, 0.25, -0.75, 0.25]])
    """
    function, bound = unpack("value_and_grad", loss)
    route = GRADIENTS[function]

    @functools.wraps(function)
    def with_gradient(
        predictions: Array, targets: Array, /, *, out: Array | None = None, **keywords: Any
    ) -> tuple[Array, Array]:
        options, weights = options_and_weights(function, {**bound, **keywords})
        place = out if out is None or dimensions.is_named(predictions) else dimensions.unwrap(out)
        result = calls.apply(route, predictions, targets, options, weights, place)
        return result if out is None else (result[0], out)

    with_gradient.__signature__ = SIGNATURES[function]  # type: ignore[attr-defined]  # else that of the loss
    with_gradient.gradient_of = loss  # type: ignore[attr-defined]  # where explain finds it
    return cast("WithGradient[P, LossT]", with_gradient)


def explain(loss: Callable[..., Array], predictions: Array, targets: Array, /, **options: Any) -> Decision:
    """The decision for a call: every candidate kernel, the winner, and the reason for each other; nothing is computed.

    Parameters
    ----------
    loss : callable
        As in :func:`value_and_grad`, or what that returns: then the decision is for the loss with its gradient. If it
        is ``torch.compile`` of one of them, the decision is for the call in a compiled graph.
    predictions, targets : array
        As in the loss.
    **options
        The keywords of the loss, and ``out`` of what :func:`value_and_grad` returns.

    Returns
    -------
    Decision
        ``str()`` of it is a table; ``to_dict()`` is plain data.

    Raises
    ------
    TypeError, ValueError
        As the call itself would, labels apart.

    Examples
    --------
    >>> import numpy as np, xent
    >>> xent.explain(xent.sparse_cross_entropy, np.zeros((1, 4), np.int64), np.asarray([2]))
    Traceback (most recent call last):
    ...
    TypeError: sparse_cross_entropy: `predictions` must be real floating, got int64[1, 4] on numpy. \
Pass predictions.astype("float32").
    """
    outer, late = unbind("explain", loss)
    in_graph = hasattr(outer, COMPILED)
    if in_graph:
        outer, early = unbind("explain", getattr(outer, COMPILED))
        late = {**early, **late}
    routes = GRADIENTS if hasattr(outer, "gradient_of") else losses.ROUTES
    function, bound = unpack("explain", getattr(outer, "gradient_of", outer))
    keywords = {**bound, **late, **options}
    out = keywords.pop("out", None) if routes is GRADIENTS else None
    requested, weights = options_and_weights(function, keywords)
    return calls.explain(routes[function], predictions, targets, Options(*requested), weights, out, in_graph=in_graph)
