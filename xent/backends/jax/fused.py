"""The functions of whole rows that a kernel computes for JAX, as JAX differentiates them.

The kernel's targets are called by primitives (``primitives.py``). Of a loss the first derivative is the kernel's own,
from the read that makes the loss; all others, and those of other numbers, are the generic expression's.

Imports JAX at its top, as ``autodiff.py`` does.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...arrays import Array
from ...contract.plan import Plan, resolve
from ...numerics import fold, gradient, tangents
from ...numerics.fold import Partial
from ...numerics.statistics import RowStatistics, Statistics, finish_statistics
from ...numerics.targets import NO_ROWS
from ..generic.traced import FusedPieces, statistics_of_rows
from . import autodiff
from .primitives import primitive_of, widened
from .whole_rows import xp


@functools.cache
def pieces_of(load: str) -> FusedPieces:
    """The functions of whole rows that the kernel at "package.module:name" computes, with their derivatives."""
    kernel = resolve(load)
    loss_call, both_call = primitive_of(kernel, "loss"), primitive_of(kernel, "loss_and_gradient")
    partial_call, statistics_call = primitive_of(kernel, "partial"), primitive_of(kernel, "statistics")

    @functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
    def loss(logits: Array, targets: Array, counted: Array, on: float, off: float) -> Array:
        return loss_call.bind(logits, targets, on=on, off=off)[0]

    def loss_jvp(on: float, off: float, primals: Any, changes: Any) -> tuple[Array, Array]:
        logits, targets, counted = primals
        value, slope = both(widened(logits), targets, counted, on, off)
        return value, change_of_loss(logits, targets, counted, slope, changes)

    loss.defjvp(loss_jvp, symbolic_zeros=True)

    @functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
    def both(logits: Array, targets: Array, scale: Array, on: float, off: float) -> tuple[Array, Array]:
        value, slope = both_call.bind(logits, targets, scale, on=on, off=off)
        return value, slope

    def both_jvp(on: float, off: float, primals: Any, changes: Any) -> tuple[Any, Any]:
        logits, targets, counted = primals
        value, slope = both(*primals, on, off)
        safe = jnp.where(counted[:, None] == 0, 0.0, logits)
        soft = (
            targets if targets.ndim == 2 else gradient.two_valued(xp, targets, logits.shape[-1], on, off, logits.dtype)
        )
        of_slope = autodiff.residual_change(safe, soft, changes[:2])
        return (value, slope), (
            change_of_loss(logits, targets, counted, slope, changes),
            gradient.scaled(xp, of_slope, counted),
        )

    both.defjvp(both_jvp, symbolic_zeros=True)

    def loss_and_gradient(logits: Array, targets: Array, scale: Array, on: float, off: float) -> tuple[Array, Array]:
        constants = map(jax.lax.stop_gradient, (logits, targets, scale))
        losses, gradient = both(*constants, on, off)
        return losses, gradient

    def partial(logits: Array, targets: Array, on: float, off: float) -> Partial:
        return Partial(*partial_call.bind(*map(jax.lax.stop_gradient, (logits, targets)), on=on, off=off))

    @jax.custom_jvp
    def logsumexp(logits: Array) -> Array:
        labels = jnp.full(logits.shape[:1], -1, np.int32)
        return fold.log_partition(xp, Partial(*partial_call.bind(logits, labels, on=1.0, off=0.0)))

    @logsumexp.defjvp
    def logsumexp_jvp(primals: Any, changes: Any) -> tuple[Array, Array]:
        x, change = widened(primals[0]), widened(changes[0])
        return logsumexp(*primals), tangents.along(xp, autodiff.softmax(x), change)[:, 0]

    @jax.custom_jvp
    def statistics(logits: Array, labels: Array, counted: Array) -> RowStatistics:
        label_logit = widened(fold.gather(xp, logits, labels)[0])
        *fields, label_rank, squares, spread = statistics_call.bind(logits, labels, label_logit)
        whole = Statistics(Partial(*fields), label_rank.astype(labels.dtype), squares, spread)
        return finish_statistics(xp, whole, NO_ROWS)

    @statistics.defjvp
    def statistics_jvp(primals: Any, changes: Any) -> tuple[Any, Any]:
        _, labels, counted = primals

        def expression(logits: Array) -> RowStatistics:
            return statistics_of_rows(xp, autodiff.PIECES, widened(logits), labels, counted == 0, "logits")

        return statistics(*primals), jax.jvp(expression, primals[:1], changes[:1])[1]

    return FusedPieces(loss, loss_and_gradient, partial, logsumexp, statistics)


def change_of_loss(logits: Array, targets: Array, counted: Array, slope: Array, changes: Any) -> Array:
    """The change of the losses, from the slope in the logits and the changes of logits and targets."""
    safe = jnp.where(counted[:, None] == 0, 0.0, logits)
    of_targets = changes[1] if targets.ndim == 2 else np.zeros((), jax.dtypes.float0)
    return autodiff.loss_change(safe, targets, lambda: slope, (changes[0], of_targets))


def kernel_of(plan: Plan) -> str | None:
    """The kernel of a plan, as "package.module:name"; None if it has no targets, and the generic expression serves."""
    return plan.load if "ffi_target" in plan.methods else None
