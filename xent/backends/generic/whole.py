"""A product as an expression over whole arrays, logits among them, for what is differentiated again or transformed."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ...arrays import Array
from ...linear import LinearGradient
from ...numerics import fold


class WholeProduct(NamedTuple):
    """The operands of a product in the compute dtype, masked at the input: flat hidden states."""

    xp: Any
    hidden: Array  # (rows, D): 0 in ignored rows
    classifier: Array  # (C, D): 0 for masked classes
    bias: Array | None
    masked: Array | None  # (C,)
    softcap: float | None

    def logits(self) -> Array:
        """The logits (rows, C)."""
        xp = self.xp
        x = self.hidden @ self.classifier.T
        x = x if self.bias is None else x + self.bias
        if self.softcap is not None:
            x = x if self.masked is None else xp.where(self.masked, 0.0, x)  # of no branch a derivative of NaN
            x = self.softcap * xp.tanh(x / self.softcap)
        return x if self.masked is None else xp.where(self.masked, -math.inf, x)

    def uncapped(self, slope: Array, logits: Array) -> Array:
        """The gradient before the softcap, from that after it: 0 of a masked class."""
        if self.softcap is not None:
            share = logits / self.softcap
            slope = slope * (1 - share) * (1 + share)
        return slope if self.masked is None else self.xp.where(self.masked, 0.0, slope)


def whole_product(xp: Any, linear: Any, ignored: Array | None) -> WholeProduct:
    """The product of a :class:`xent.Linear`; ``ignored`` (rows,) is None if no row is."""
    dtype = fold.compute_dtype(xp, linear.dtype)
    hidden = xp.astype(xp.reshape(linear.hidden, (-1, linear.hidden.shape[-1])), dtype, copy=False)
    classifier = xp.astype(linear.classifier, dtype, copy=False)
    bias = None if linear.bias is None else xp.astype(linear.bias, dtype, copy=False)
    if ignored is not None:
        hidden = xp.where(ignored[:, None], 0.0, hidden)
    masked = None if bias is None else bias == -math.inf
    if masked is not None:
        classifier = xp.where(masked[:, None], 0.0, classifier)
    return WholeProduct(xp, hidden, classifier, bias, masked, linear.softcap)


def gradient(whole: WholeProduct, linear: Any, slope: Array, of: tuple[str, ...]) -> LinearGradient[Array]:
    """The gradient in the operands, from that in the logits before the softcap (rows, C)."""
    xp = whole.xp
    hidden = classifier = bias = None
    if "hidden" in of:
        hidden = xp.reshape(xp.astype(slope @ whole.classifier, linear.hidden.dtype, copy=False), linear.hidden.shape)
    if "classifier" in of:
        classifier = xp.astype(slope.T @ whole.hidden, linear.classifier.dtype, copy=False)
    if "bias" in of:
        bias = xp.astype(xp.sum(slope, axis=0), linear.bias.dtype, copy=False)
    return LinearGradient(hidden, classifier, bias)
