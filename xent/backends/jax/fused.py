"""A kernel's targets of XLA's foreign function interface, as functions that JAX maps, shards and differentiates.

A target computes whole rows of logits (rows, classes). It is called by a primitive of our own, which the generic
expression (``autodiff.py``) stands for wherever a target cannot: on other platforms, in an exported program, whose
reader may not have the plugin, and in derivatives beyond the first.

Imports JAX at its top, as ``autodiff.py`` does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.extend.mlir import ir
from jax.interpreters import batching, mlir

from ...arrays import Array
from ...contract.plan import Plan, resolve
from ...numerics import fold, gradient
from ..generic.traced import FusedPieces
from . import autodiff


def expression(logits: Array, targets: Array, *scale: Array, on: float, off: float) -> list[Array]:
    """What a target computes, of arrays (*batch, classes) and (*batch,): losses; the gradient if there is a scale."""
    classes = logits.shape[-1]
    x = widened(jnp.reshape(logits, (-1, classes)))
    t = jnp.reshape(targets, (-1, classes) if targets.ndim == logits.ndim else (-1,))
    if not scale:
        return [jnp.reshape(autodiff.loss(x, t, on, off), logits.shape[:-1])]
    losses, slope = autodiff.loss_and_residual(x, t, on, off)
    slope = gradient.scaled(autodiff.xp, slope, jnp.reshape(scale[0], (-1,)))
    return [jnp.reshape(losses, logits.shape[:-1]), jnp.reshape(slope, logits.shape).astype(logits.dtype)]


def simplest(logits: Array, targets: Array, *scale: Array, on: float, off: float) -> list[Array]:
    """Any expression whose results have the shapes, dtypes and shardings of a target's."""
    of_rows = widened(jax.lax.reduce_max(logits, axes=(logits.ndim - 1,)))
    return [of_rows, logits] if scale else [of_rows]


def widened(array: Array) -> Array:
    """The array in the dtype in which it is computed."""
    wide = fold.compute_dtype(jnp, array.dtype)
    return array if array.dtype == wide else array.astype(wide)


@functools.cache
def primitive_of(kernel: Any, method: str) -> Primitive:
    """The primitive for the targets of one method of a kernel, "loss" or "loss_and_gradient".

    Its arguments are arrays (*batch, classes) and (*batch,). The batch may be mapped and sharded, the classes may not:
    the partitioner gathers them.
    """
    call = Primitive(f"xent_{method}")
    call.multiple_results = True

    @call.def_abstract_eval
    def _(*inputs: Any, **options: float) -> list[Any]:
        return list(jax.make_jaxpr(functools.partial(simplest, **options))(*inputs).out_avals)

    call.def_impl(lambda *arrays, **options: jitted(call, tuple(options.items()))(*arrays))
    batching.primitive_batchers[call] = functools.partial(mapped, call)
    stand_in: Callable[..., Any] = mlir.lower_fun(expression, multiple_results=True)
    mlir.register_lowering(call, stand_in)

    def on_platform(context: Any, *operands: Any, **options: float) -> Any:
        logits = context.avals_in[0]
        if context.module_context.lowering_parameters.for_export or not fits_target(
            context.avals_in, context.avals_out
        ):
            return stand_in(context, *operands, **options)
        attributes = {name: np.float64(value) for name, value in options.items()}
        name = target_name(kernel, method, logits.dtype.name)
        rule: Callable[..., Any] = jax.ffi.ffi_lowering(name, extra_attributes=sharding_rule(context))
        return rule(context, *operands, **attributes)

    mlir.register_lowering(call, on_platform, platform=getattr(kernel, "ffi_platform", "cpu"))
    return call


def fits_target(inputs: Sequence[Any], outputs: Sequence[Any]) -> bool:
    """Whether arrays of these shapes and dtypes are what a target takes and writes; it looks at no dtype itself."""
    logits, targets, *scale = inputs
    wide = np.float64 if logits.dtype == np.float64 else np.float32
    # subtle: an array of float64 may be there without x64, and what JAX makes of it is float32
    floats = [*scale, outputs[0], *([targets] if targets.ndim == logits.ndim else [])]
    labels = [targets.dtype] if targets.ndim < logits.ndim else []
    is_static = all(isinstance(size, int) and size > 0 for size in logits.shape)
    return (
        is_static
        and all(array.dtype == wide for array in floats)
        and all(dtype in (np.int32, np.int64) for dtype in labels)
        and all(array.dtype == logits.dtype for array in outputs[1:])
    )


@functools.cache
def target_name(kernel: Any, method: str, dtype: str) -> str:
    """The name of a kernel's target, which the partitioners now know to be one of rows."""
    name: str = kernel.ffi_target(method, dtype)
    jax.ffi.register_ffi_target_as_batch_partitionable(name)
    return name


@functools.lru_cache(maxsize=256)
def jitted(call: Primitive, options: tuple[tuple[str, float], ...]) -> Callable[..., Any]:
    """The primitive outside a trace."""
    function: Callable[..., Any] = jax.jit(lambda *arrays: call.bind(*arrays, **dict(options)))
    return function


def mapped(call: Primitive, arrays: Sequence[Array], axes: Sequence[int | None], **options: float) -> tuple[Any, Any]:
    """The primitive under ``vmap``: one more axis of the batch, in front."""
    size = next(array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None)
    moved = [
        jnp.broadcast_to(array, (size, *array.shape)) if axis is None else jnp.moveaxis(array, axis, 0)
        for array, axis in zip(arrays, axes, strict=True)
    ]
    results = call.bind(*moved, **options)
    return results, [0] * len(results)


def sharding_rule(context: Any) -> dict[str, Any]:
    """What the partitioners are told: each axis of the batch goes its own way, the classes are needed whole."""
    logits = context.avals_in[0]
    letters = "ijklmnopqrstuvwxyz"[: logits.ndim]

    def axes(avals: Sequence[Any]) -> str:
        return ", ".join("[" + ", ".join(letters[: aval.ndim]) + "]" for aval in avals)

    batch_axes = ir.StringAttr.get(str(logits.ndim - 1))
    attributes = {"mhlo.frontend_attributes": ir.DictAttr.get({"num_batch_dims": batch_axes})}
    if jax.config.jax_use_shardy_partitioner:
        sizes = ", ".join(f"{letter}={size}" for letter, size in zip(letters, logits.shape, strict=True))
        rule = f"({axes(context.avals_in)})->({axes(context.avals_out)}) {{{sizes}}}"
        rule = f"#sdy.op_sharding_rule<{rule} need_replication={{{letters[-1]}}}, custom>"
        attributes["sdy.sharding_rule"] = ir.Attribute.parse(rule)
    return attributes


@functools.cache
def pieces_of(load: str) -> FusedPieces:
    """The functions of whole rows that the kernel at "package.module:name" computes, with their derivatives."""
    loss_call, both_call = (primitive_of(resolve(load), method) for method in ("loss", "loss_and_gradient"))

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
            targets
            if targets.ndim == 2
            else gradient.two_valued(autodiff.xp, targets, logits.shape[-1], on, off, logits.dtype)
        )
        of_slope = autodiff.residual_change(safe, soft, changes[:2])
        return (value, slope), (
            change_of_loss(logits, targets, counted, slope, changes),
            gradient.scaled(autodiff.xp, of_slope, counted),
        )

    both.defjvp(both_jvp, symbolic_zeros=True)

    def loss_and_gradient(logits: Array, targets: Array, scale: Array, on: float, off: float) -> tuple[Array, Array]:
        constants = map(jax.lax.stop_gradient, (logits, targets, scale))
        losses, gradient = both(*constants, on, off)
        return losses, gradient

    return FusedPieces(loss, loss_and_gradient)


def change_of_loss(logits: Array, targets: Array, counted: Array, slope: Array, changes: Any) -> Array:
    """The change of the losses, from the slope in the logits and the changes of logits and targets."""
    safe = jnp.where(counted[:, None] == 0, 0.0, logits)
    of_targets = changes[1] if targets.ndim == 2 else np.zeros((), jax.dtypes.float0)
    return autodiff.loss_change(safe, targets, lambda: slope, (changes[0], of_targets))


def kernel_of(plan: Plan) -> str | None:
    """The kernel of a plan, as "package.module:name"; None if it has no targets, and the generic expression serves."""
    return plan.load if "ffi_target" in plan.methods else None
