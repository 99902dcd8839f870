"""Products in which 0 · ±∞ is 0, and the costs of binary predictions made of them, with derivatives of any order.

Imports JAX at its top; it is itself imported only for a call on JAX arrays.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ...arrays import Array
from ...numerics import binary, tangents
from .whole_rows import xp

# subtle: 0 · ±∞ = 0 is no product of JAX's, but as linear in each factor as one, and a rule of custom_jvp may say only
# what is linear in the changes: so it is a primitive, and is its own derivative
product_p = Primitive("xent_product")
multiply = functools.partial(binary.product, xp)
product_p.def_impl(multiply)
product_p.def_abstract_eval(lambda a, b: a)
ad.defbilinear(product_p, lambda change, a, b: product(change, b), lambda change, a, b: product(a, change))
mlir.register_lowering(product_p, mlir.lower_fun(multiply, multiple_results=False))


def product(a: Array, b: Array) -> Array:
    """a · b of one shape, where 0 · ±∞ is 0, in every derivative too."""
    product: Array = product_p.bind(a, b)
    return product


def product_batched(arrays: tuple[Array, Array], axes: tuple[int | None, int | None]) -> tuple[Array, int]:
    """The product under ``vmap``, and its axis there."""
    size = next(array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None)
    a, b = (batching.bdim_at_front(array, axis, size) for array, axis in zip(arrays, axes, strict=True))
    return product(a, b), 0


batching.primitive_batchers[product_p] = product_batched


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def costs(predictions: Array, kind: str) -> tuple[Array, Array]:
    return binary.costs(xp, predictions, kind)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def slopes(predictions: Array, kind: str) -> tuple[Array, Array]:
    return binary.slopes(xp, predictions, kind)


@costs.defjvp
def costs_jvp(kind: str, primals: Any, changes: Any) -> tuple[Any, Any]:
    yes, no = slopes(*primals, kind)
    return costs(*primals, kind), (product(yes, changes[0]), product(no, changes[0]))


@slopes.defjvp
def slopes_jvp(kind: str, primals: Any, changes: Any) -> tuple[Any, Any]:
    own = slopes(*primals, kind)
    yes, no = tangents.binary(xp, own, kind)
    return own, (product(yes, changes[0]), product(no, changes[0]))
