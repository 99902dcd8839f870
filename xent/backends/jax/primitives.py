"""A kernel's targets of XLA's foreign function interface as primitives of JAX, which are mapped, sharded and lowered.

A target computes whole rows of logits. The generic expression (``whole_rows.py``, ``autodiff.py``) stands for it
wherever it cannot be: on other platforms, and in an exported program, whose reader may not have the plugin. Leaves out
derivatives (``fused.py``).

Imports JAX at its top; it is itself imported only for a call on JAX arrays.
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
from ...numerics import fold, gradient
from . import autodiff, whole_rows


def widened(array: Array) -> Array:
    """The array in the dtype in which it is computed."""
    wide = fold.compute_dtype(jnp, array.dtype)
    return array if array.dtype == wide else array.astype(wide)


def loss(x: Array, targets: Array, on: float, off: float) -> list[Array]:
    return [autodiff.loss(x, targets, on, off)]


def loss_and_gradient(x: Array, targets: Array, scale: Array, on: float, off: float) -> list[Array]:
    losses, slope = autodiff.loss_and_residual(x, targets, on, off)
    return [losses, gradient.scaled(whole_rows.xp, slope, scale)]


def partial(x: Array, targets: Array, on: float, off: float) -> list[Array]:
    return [*whole_rows.partial(x, targets, on, off)]


def statistics(x: Array, labels: Array, label_logit: Array) -> list[Array]:
    fields, label_rank, *sums = whole_rows.statistics(x, labels, label_logit)
    return [*fields, label_rank.astype(np.int32), *sums]


EXPRESSIONS: dict[str, Callable[..., list[Array]]] = {
    "loss": loss,
    "loss_and_gradient": loss_and_gradient,
    "partial": partial,
    "statistics": statistics,
}
"""What the targets of each method compute, of logits (rows, classes) in the dtype in which they are computed."""


def expression(method: str, logits: Array, targets: Array, *numbers: Array, **options: float) -> list[Array]:
    """What the target of a method computes, of arrays (*batch, classes) and (*batch,)."""
    batch, classes = logits.shape[:-1], logits.shape[-1]
    x = widened(jnp.reshape(logits, (-1, classes)))
    t = jnp.reshape(targets, (-1, classes) if targets.ndim == logits.ndim else (-1,))
    results = EXPRESSIONS[method](x, t, *(jnp.reshape(values, (-1,)) for values in numbers), **options)
    return [
        jnp.reshape(values, batch) if values.ndim == 1 else jnp.reshape(values, logits.shape).astype(logits.dtype)
        for values in results
    ]


def simplest(method: str, logits: Array, targets: Array, *numbers: Array, **options: float) -> list[Array]:
    """Any expression whose results have the shapes, dtypes and shardings of a target's."""
    of_rows = widened(jax.lax.reduce_max(logits, axes=(logits.ndim - 1,)))
    if method == "statistics":
        return [*[of_rows] * 4, targets.astype(np.int32), of_rows, of_rows]
    return {"loss": [of_rows], "loss_and_gradient": [of_rows, logits], "partial": [of_rows] * 4}[method]


@functools.cache
def primitive_of(kernel: Any, method: str) -> Primitive:
    """The primitive for the targets of one method of a kernel.

    Its arguments are arrays (*batch, classes) and (*batch,). The batch may be mapped and sharded, the classes may not:
    the partitioner gathers them.
    """
    call = Primitive(f"xent_{method}")
    call.multiple_results = True

    @call.def_abstract_eval
    def _(*inputs: Any, **options: float) -> list[Any]:
        return list(jax.make_jaxpr(functools.partial(simplest, method, **options))(*inputs).out_avals)

    call.def_impl(lambda *arrays, **options: jitted(call, tuple(options.items()))(*arrays))
    batching.primitive_batchers[call] = functools.partial(mapped, call)
    stand_in: Callable[..., Any] = mlir.lower_fun(functools.partial(expression, method), multiple_results=True)
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
    logits, arrays = inputs[0], [*inputs[1:], *outputs]
    wide = np.float64 if logits.dtype == np.float64 else np.float32
    gradient = [array for array in outputs if array.ndim == logits.ndim]
    labels = [array for array in arrays if np.issubdtype(array.dtype, np.integer)]
    # subtle: an array of float64 may be there without x64, and what JAX makes of it is float32
    others = [array for array in arrays if not any(array is one for one in (*gradient, *labels))]
    is_static = all(isinstance(size, int) and size > 0 for size in logits.shape)
    return (
        is_static
        and logits.shape[-1] <= np.iinfo(np.int32).max  # a rank is int32
        and all(array.dtype == wide for array in others)
        and all(array.dtype in (np.int32, np.int64) for array in labels)
        and all(array.dtype == logits.dtype for array in gradient)
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
