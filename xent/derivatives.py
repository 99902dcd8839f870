"""Loss and gradient together, without autodiff, and the explanation of a call."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, overload

from . import checks, losses
from .arrays import AnyArray, Array, ArrayT
from .contract.plan import Decision
from .contract.problem import Options, Route, Weights, weights_of
from .dispatch import calls, dimensions
from .linear import Linear, LinearGradient
from .sparse_targets import SparseTargets

P = ParamSpec("P")
LossT = TypeVar("LossT", covariant=True)


class WithGradient(Protocol[P, LossT]):
    """What :func:`value_and_grad` returns: it takes what the loss takes, or that with ``out`` beside it."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> tuple[LossT, LossT]: ...

    @overload
    def __call__(
        self, predictions: ArrayT, targets: AnyArray | SparseTargets[Any], /, *, out: ArrayT, **keywords: Any
    ) -> tuple[ArrayT, ArrayT]: ...


class WithLinearGradient(Protocol):
    """What :func:`value_and_grad` of :func:`linear_cross_entropy` returns: it takes what the loss takes."""

    def __call__(
        self, hidden: ArrayT, classifier: ArrayT, labels: AnyArray, /, **keywords: Any
    ) -> tuple[ArrayT, LinearGradient[ArrayT]]: ...


class WithOperandGradient(Protocol):
    """What :func:`value_and_grad` returns where operands are named: it takes a :class:`Linear` for predictions."""

    def __call__(
        self, predictions: Linear[ArrayT], targets: AnyArray | SparseTargets[Any], /, **keywords: Any
    ) -> tuple[ArrayT, LinearGradient[ArrayT]]: ...


Operand = Literal["hidden", "classifier", "bias"]
"""What the gradient of a product may be asked for in."""
FUNCTIONS: list[Any] = [*losses.ROUTES]
ARRAYS = {loss: 3 if loss is losses.linear_cross_entropy else 2 for loss in FUNCTIONS}
"""How many arrays each loss takes before its keywords."""
NAMES = {loss: tuple(inspect.signature(loss).parameters)[: ARRAYS[loss]] for loss in FUNCTIONS}
KEYWORDS = {loss: tuple(inspect.signature(loss).parameters)[ARRAYS[loss] :] for loss in FUNCTIONS}
OUT = inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="Array | None")
SIGNATURES = {
    loss: signature.replace(
        parameters=[*signature.parameters.values(), *([OUT] if ARRAYS[loss] == 2 else [])],
        return_annotation="tuple[Array, Array]" if ARRAYS[loss] == 2 else "tuple[Array, LinearGradient]",
    )
    for loss, signature in zip(FUNCTIONS, map(inspect.signature, FUNCTIONS), strict=True)
}
GRADIENTS = {
    (loss, of): Route(route.function, route.op, "loss_and_gradient", of)
    for loss, route in losses.ROUTES.items()
    for count in range(4)
    for of in itertools.combinations(checks.OPERANDS, count)
}
"""The routes of each loss with its gradient, by the operands of a product that it is asked for in; none are all."""
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


def arrays_of(function: Any, given: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """The predictions and the targets of a call, and its other keywords."""
    checks.positional(function.__name__, given, NAMES[function])
    if ARRAYS[function] == 2:
        return given[0], given[1], keywords
    hidden, classifier, labels = given
    others = dict(keywords)
    bias, softcap = others.pop("bias", None), others.pop("softcap", None)
    return Linear(hidden, classifier, bias=bias, softcap=softcap), labels, others


@overload
def value_and_grad(  # type: ignore[overload-overlap]  # a functools.partial is a callable of anything
    loss: functools.partial[LossT], *, of: None = None
) -> WithGradient[..., LossT]: ...


@overload
def value_and_grad(  # type: ignore[overload-overlap]  # the same
    loss: functools.partial[ArrayT], *, of: Operand | Sequence[Operand]
) -> Callable[..., tuple[ArrayT, LinearGradient[ArrayT]]]: ...


@overload
def value_and_grad(
    loss: Callable[Concatenate[Any, Any, Any, ...], Any], *, of: Operand | Sequence[Operand] | None = None
) -> WithLinearGradient: ...


@overload
def value_and_grad(loss: Callable[P, LossT], *, of: Operand | Sequence[Operand]) -> WithOperandGradient: ...


@overload
def value_and_grad(loss: Callable[P, LossT], *, of: None = None) -> WithGradient[P, LossT]: ...


def value_and_grad(loss: Callable[..., Any], *, of: Operand | Sequence[Operand] | None = None) -> Any:
    r"""A function that returns the loss and its gradient in the predictions, from one read of them.

    .. math:: \frac{\partial \ell}{\partial x_j} = \Bigl(\sum_k t_k\Bigr) p_j - t_j

    for logits, −t / p for probabilities, −t for log-probabilities; times the row's weight, over the denominator of a
    mean.

    Parameters
    ----------
    loss : callable
        :func:`cross_entropy`, :func:`sparse_cross_entropy`, :func:`linear_cross_entropy` or
        :func:`binary_cross_entropy`, or a functools.partial of one that binds keywords.
    of : "hidden", "classifier", "bias" or several, optional
        The operands of :func:`linear_cross_entropy`, or of another loss of a :class:`Linear`, that the gradient is
        taken in; all that are there by default. What is not asked for is not computed: two products of three for a
        classifier that is not trained.

    Returns
    -------
    callable
        ``f(predictions, targets, *, out=None, **keywords) -> (loss, gradient)`` with the keywords of the loss. The
        gradient has the shape and the dtype of the predictions; with reduction "none" each row has its own loss's
        gradient. It is written into ``out``, which is then what is returned: an array like the predictions, of any
        strides, that shares no memory with the other arguments, or the predictions themselves, to overwrite them.
        The gradient of :func:`linear_cross_entropy`, or of a :class:`Linear`, is a :class:`LinearGradient`: with
        reduction "none" that of the sum of the rows' losses in classifier and bias. It has no ``out``.

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

    The gradient in the hidden states alone:

    >>> hidden, classifier = np.asarray([[1.0, 2.0]]), np.asarray([[0.0, 0.0], [2.0, -1.0]])
    >>> step = xent.value_and_grad(xent.linear_cross_entropy, of="hidden")
    >>> _, gradient = step(hidden, classifier, np.asarray([1]))
    >>> gradient.hidden.tolist(), gradient.classifier
    ([[-1.0, 0.5]], None)
    """
    function, bound = unpack("value_and_grad", loss)
    route = GRADIENTS[function, checks.of_operands("value_and_grad", of)]

    if ARRAYS[function] == 3:
        return named(function, loss, route, of_linear(route, of, bound))

    @functools.wraps(function)
    def with_gradient(
        predictions: Array, targets: Array, /, *, out: Array | None = None, **keywords: Any
    ) -> tuple[Array, Any]:
        if of is not None:
            checks.has_operands("value_and_grad", of, predictions)
        options, weights = options_and_weights(function, {**bound, **keywords})
        place = out if out is None or dimensions.is_named(predictions) else dimensions.unwrap(out)
        result = calls.apply(route, predictions, targets, options, weights, place)
        return result if out is None else (result[0], out)

    return named(function, loss, route, with_gradient)


def of_linear(route: Route, of: Any, bound: dict[str, Any]) -> Callable[..., Any]:
    """The loss of hidden states and a classifier with its gradient, by its route."""
    function = losses.linear_cross_entropy

    @functools.wraps(function)
    def with_gradient(
        hidden: Array, classifier: Array, labels: Array, /, **keywords: Any
    ) -> tuple[Array, LinearGradient[Array]]:
        others = {**bound, **keywords}
        bias, softcap = others.pop("bias", None), others.pop("softcap", None)
        checks.has_bias("value_and_grad", of, bias)
        options, weights = options_and_weights(function, others)
        result: tuple[Array, LinearGradient[Array]] = calls.apply_to_product(
            route, (hidden, classifier, bias), softcap, labels, options, weights
        )
        return result

    return with_gradient


def named(function: Any, loss: Any, route: Route, with_gradient: Any) -> Any:
    """The function that value_and_grad returns, with its signature, and where explain finds what it is of."""
    with_gradient.__signature__ = SIGNATURES[function]  # else that of the loss
    with_gradient.gradient_of, with_gradient.route = loss, route
    return with_gradient


def explain(loss: Callable[..., Any], /, *arrays: Any, **options: Any) -> Decision:
    """The decision for a call: every candidate kernel, the winner, and the reason for each other; nothing is computed.

    Parameters
    ----------
    loss : callable
        As in :func:`value_and_grad`, or what that returns: then the decision is for the loss with its gradient. If it
        is ``torch.compile`` of one of them, the decision is for the call in a compiled graph.
    *arrays : array
        What the loss takes before its keywords: predictions and targets, or hidden states, a classifier and labels.
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
    function, bound = unpack("explain", getattr(outer, "gradient_of", outer))
    route = getattr(outer, "route", losses.ROUTES[function])
    keywords = {**bound, **late, **options}
    out = keywords.pop("out", None) if hasattr(outer, "route") else None
    predictions, targets, keywords = arrays_of(function, arrays, keywords)
    requested, weights = options_and_weights(function, keywords)
    return calls.explain(route, predictions, targets, Options(*requested), weights, out, in_graph=in_graph)
