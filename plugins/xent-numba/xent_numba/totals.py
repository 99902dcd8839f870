"""Totals: sums over many vectors, in more digits than their lanes have.

A total is a pair of float64 vectors. float32 lanes are added to it in float64, half of them each; float64 lanes to the
first, and their rounding errors to the second.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lanes import DOUBLE, I32, SINGLE, WIDE, Pair, constant, halves, joined, vector


@intrinsic
def zero_total(context: Any) -> Any:
    """The total of no lanes."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zero = constant(vector(DOUBLE), 0.0)
        return context.make_tuple(builder, Pair, (zero, zero))

    return Pair(), codegen


def two_sum(builder: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """a + b rounded, and its rounding error (Knuth); 0 for the error where the sum is infinite."""
    total = builder.fadd(a, b)
    other = builder.fsub(total, a)
    error = builder.fadd(builder.fsub(a, builder.fsub(total, other)), builder.fsub(b, other))
    finite = builder.fcmp_ordered("ord", error, error)
    return total, builder.select(finite, error, constant(error.type, 0.0))


@intrinsic
def add_lanes(context: Any, total: Any, x: Any) -> Any:
    """A total plus lanes: half of float32 lanes to each vector; float64 lanes to the first, errors to the second."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, second = cgutils.unpack_tuple(builder, arguments[0], 2)
        if x.dtype is types.float32:
            low, high = (builder.fpext(half, vector(DOUBLE)) for half in halves(builder, arguments[1]))
            sums = builder.fadd(first, low), builder.fadd(second, high)
        else:
            whole, error = two_sum(builder, first, arguments[1])
            sums = whole, builder.fadd(second, error)
        return context.make_tuple(builder, Pair, sums)

    return Pair(total, x), codegen


@intrinsic
def reduce_total(context: Any, total: Any, like: Any) -> Any:
    """The sum over all lanes of a total, float64; compensated where the lanes were float64."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, second = cgutils.unpack_tuple(builder, arguments[0], 2)
        if WIDE[like.dtype] is SINGLE:
            first = builder.fadd(first, second)
            while first.type.count > 1:
                first = builder.fadd(*halves(builder, first))
            return builder.extract_element(first, I32(0))
        while first.type.count > 1:
            first, error = two_sum(builder, *halves(builder, first))
            second = builder.fadd(builder.fadd(*halves(builder, second)), error)
        return builder.extract_element(builder.fadd(first, second), I32(0))

    return types.float64(total, like), codegen


# -------------------- the numbers of a vector's rows, float64


@intrinsic
def by_row(context: Any, total: Any, like: Any) -> Any:
    """The total of each lane. Of float32 lanes each vector has half of the rows; of float64 lanes the first has all."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, second = cgutils.unpack_tuple(builder, arguments[0], 2)
        if WIDE[like.dtype] is DOUBLE:
            first, second = builder.fadd(first, second), constant(vector(DOUBLE), 0.0)
        return context.make_tuple(builder, Pair, (first, second))

    return Pair(total, like), codegen


@intrinsic
def widened_rows(context: Any, x: Any) -> Any:
    """Lanes as float64 numbers of the rows."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if x.dtype is types.float32:
            numbers = [builder.fpext(half, vector(DOUBLE)) for half in halves(builder, arguments[0])]
        else:
            numbers = [arguments[0], constant(vector(DOUBLE), 0.0)]
        return context.make_tuple(builder, Pair, numbers)

    return Pair(x), codegen


@intrinsic
def rounded_rows(context: Any, numbers: Any, like: Any) -> Any:
    """The float64 numbers of the rows as lanes."""
    lanes = WIDE[like.dtype]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pair = cgutils.unpack_tuple(builder, arguments[0], 2)
        if lanes is DOUBLE:
            return pair[0]
        return joined(builder, [builder.fptrunc(number, ir.VectorType(ir.FloatType(), 8)) for number in pair])

    return lanes(numbers, like), codegen
