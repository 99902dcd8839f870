r"""Logits that are a product and never whole: hidden states, the classifier, and what is done to their product.

.. math:: x_{nc} = \mathrm{cap}\Bigl(\sum_d h_{nd} w_{cd} + b_c\Bigr), \qquad
          \mathrm{cap}(z) = s \tanh(z / s) \text{ with a softcap } s, \text{ else } z

Leaves out how they are multiplied, tile by tile (``backends/generic/products.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn

from . import arrays, checks, pytrees
from .arrays import Array, ArrayT, FieldT


class Linear(Generic[ArrayT]):
    r"""Logits ``hidden @ classifier.T + bias`` that are never whole: multiplied tile by tile where they are read.

    It is taken wherever logits are, with the classes along the last axis: by :func:`sparse_cross_entropy`,
    :func:`cross_entropy`, :func:`row_statistics`, :func:`partial`, :func:`logsumexp`, :func:`value_and_grad` and
    :func:`explain`. It holds its operands and computes nothing by itself: it has no elements and no arithmetic. For
    JAX it is a pytree of its operands, which ``jax.jit`` and ``jax.grad`` take and return.

    Parameters
    ----------
    hidden : array, shape (\*batch, D), real floating
        The hidden states of the rows. A temperature divides them: ``hidden / T``.
    classifier : array, shape (C, D), real floating
        One row for each class, of any strides: the transpose of a (D, C) array will do.
    bias : array, shape (C,), real floating, optional
        Added to the product. A class whose bias is −inf is masked: its logit is −inf, with a softcap too, and its row
        of the classifier is not looked at.
    softcap : number > 0, optional
        Logits z, the bias included, become softcap · tanh(z / softcap). The dtype of the logits holds it.

    Attributes
    ----------
    shape : tuple of int
        (\*batch, C).
    ndim : int
    dtype : dtype
        That of the logits: float64 if an operand is, else float32. Narrower operands are widened tile by tile, and
        nothing is rounded to their dtype.

    Raises
    ------
    TypeError
        If an operand is no real floating array, or they are of several libraries or devices.
        Where it is used as an array: by arithmetic, indices, comparisons, or ``numpy.asarray``.
    ValueError
        If shapes do not fit, there are no classes, or the softcap is no positive number of the logits' dtype.

    Examples
    --------
    >>> import numpy as np, xent
    >>> logits = xent.Linear(np.asarray([[1.0, 2.0]]), np.asarray([[0.0, 0.0], [2.0, -1.0]]))
    >>> logits.shape, float(xent.sparse_cross_entropy(logits, np.asarray([1]))[0])
    ((1, 2), 0.6931471805599453)
    """

    __slots__ = ("bias", "classifier", "hidden", "softcap")

    def __init__(
        self, hidden: ArrayT, classifier: ArrayT, /, *, bias: ArrayT | None = None, softcap: float | None = None
    ) -> None:
        checks.operands("Linear", {"hidden": hidden, "classifier": classifier, "bias": bias})
        self.hidden, self.classifier, self.bias = hidden, classifier, bias
        self.softcap = checks.softcap("Linear", softcap, arrays.dtype_name(self.dtype))
        pytrees.register(Linear, ("hidden", "classifier", "bias"), constant="softcap")

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.hidden.shape[:-1], self.classifier.shape[0])

    @property
    def dtype(self) -> Any:
        return logits_dtype(self.operands)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def operands(self) -> tuple[Array, ...]:
        """The arrays that are there."""
        operands = self.hidden, self.classifier, self.bias
        return operands if self.bias is not None else operands[:2]

    @property
    def anchor(self) -> Array:
        """The operand whose library and device are those of the logits: a lazy one, else the hidden states."""
        return next((one for one in self.operands if arrays.library(one) == "dask"), self.hidden)

    @property
    def device(self) -> Any:
        return getattr(self.anchor, "device", None)

    @property
    def requires_grad(self) -> bool:
        """Whether torch may ask for a gradient in an operand."""
        return any(getattr(one, "requires_grad", False) for one in self.operands)

    def of(self, hidden: Array, classifier: Array, bias: Array | None) -> Linear[Any]:
        """The same product of other operands, which are taken as they are."""
        other: Linear[Any] = object.__new__(Linear)
        other.hidden, other.classifier, other.bias, other.softcap = hidden, classifier, bias, self.softcap
        return other

    if not TYPE_CHECKING:  # for which it has none of these

        def is_no_array(self, *_: Any, **__: Any) -> NoReturn:
            """TypeError, with the array of all logits to write."""
            checks.no_product("Linear", "logits", self)

        __array__ = __array_ufunc__ = __len__ = __getitem__ = __bool__ = __int__ = __float__ = is_no_array
        __lt__ = __le__ = __gt__ = __ge__ = __neg__ = __pow__ = __matmul__ = __rmatmul__ = is_no_array
        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = is_no_array

    def __repr__(self) -> str:
        bias = "" if self.bias is None else f", bias={arrays.describe(self.bias)}"
        softcap = "" if self.softcap is None else f", softcap={self.softcap}"
        return f"Linear({arrays.describe(self.hidden)}, {arrays.describe(self.classifier)}{bias}{softcap})"


class LinearGradient(NamedTuple, Generic[FieldT]):
    """The gradient in the operands of a :class:`Linear`.

    Attributes
    ----------
    hidden : array, shape (\\*batch, D), or None
        In the dtype of the hidden states, as the others are in that of their operand.
    classifier : array, shape (C, D), or None
    bias : array, shape (C,), or None
        None, as each of them is, if it was not asked for or is not there.
    """

    hidden: FieldT | None
    classifier: FieldT | None
    bias: FieldT | None


def logits_dtype(operands: tuple[Array, ...]) -> Any:
    """The dtype of the logits: float64 if one of the operands has it, else float32."""
    for one in operands:
        if arrays.dtype_name(one.dtype) == "float64":
            return one.dtype
    for one in operands:
        if arrays.dtype_name(one.dtype) == "float32":
            return one.dtype
    xp = arrays.namespace(operands[0])
    return xp.zeros((), dtype=xp.float32).dtype  # subtle: JAX's and NumPy's float32 is a type, and no dtype
