"""Short vectors for Numba: 64 bytes of float32 or float64 lanes that LLVM keeps in registers.

Numba leaves it to LLVM's loop vectorizer whether a loop becomes vector code, and to fast-math flags whether a sum may
be reordered; the same flags drop NaN and infinities, and the order of a sum changes with the processor. Here a value of
type ``Lanes`` *is* a vector. The order of every addition is written in the source, no flag is needed, and a processor
of another width gives the same bits.

Leaves out memory (``memory.py``), sums over many vectors (``totals.py``) and the mathematics (``exponential.py``).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model

I1, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 16, 32, 64))
ELEMENTS = {
    types.boolean: I1,
    types.uint16: I16,
    types.int16: ir.HalfType(),
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
}


class Lanes(types.Type):
    """The type of a vector: ``count`` lanes of one dtype."""

    def __init__(self, dtype: types.Type, count: int):
        self.dtype, self.count = dtype, count
        super().__init__(name=f"Lanes({dtype}, {count})")


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    """A vector is one LLVM value."""

    def __init__(self, manager: Any, lanes: Lanes):
        super().__init__(manager, lanes, vector(lanes))


SINGLE, DOUBLE = Lanes(types.float32, 16), Lanes(types.float64, 8)
WIDE = {types.float64: DOUBLE, types.float32: SINGLE, types.int16: SINGLE, types.uint16: SINGLE}
"""The lanes in which memory of a dtype is computed."""
Pair = types.UniTuple(DOUBLE, 2)


def vector(lanes: Lanes, element: Any = None) -> ir.VectorType:
    return ir.VectorType(element or ELEMENTS[lanes.dtype], lanes.count)


def mask_of(lanes: Lanes) -> Lanes:
    return Lanes(types.boolean, lanes.count)


def constant(kind: ir.VectorType, value: Any) -> ir.Constant:
    """The same value in every lane, or a list of them."""
    return ir.Constant(kind, value if isinstance(value, list) else [value] * kind.count)


def splat(builder: Any, value: Any, count: int) -> Any:
    kind = ir.VectorType(value.type, count)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
    return builder.shuffle_vector(first, first, constant(ir.VectorType(I32, count), 0))


def take_lanes(builder: Any, value: Any, lanes: list[int]) -> Any:
    """A shorter vector of some of the lanes, by index."""
    return builder.shuffle_vector(value, value, constant(ir.VectorType(I32, len(lanes)), lanes))


def halves(builder: Any, value: Any) -> tuple[Any, Any]:
    count = value.type.count // 2
    return take_lanes(builder, value, list(range(count))), take_lanes(builder, value, list(range(count, 2 * count)))


def joined(builder: Any, vectors: list[Any]) -> Any:
    """One vector of the lanes of several, in their order."""
    while len(vectors) > 1:
        order = constant(ir.VectorType(I32, 2 * vectors[0].type.count), list(range(2 * vectors[0].type.count)))
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [builder.shuffle_vector(first, second, order) for first, second in pairs]
    return vectors[0]


def call_intrinsic(builder: Any, name: str, *arguments: Any) -> Any:
    """An LLVM intrinsic on vectors of one type, such as llvm.fma."""
    kind = arguments[0].type
    suffix = f"v{kind.count}" + {"float": "f32", "double": "f64"}[str(kind.element)]
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [argument.type for argument in arguments]), f"llvm.{name}.{suffix}"
    )
    return builder.call(function, arguments)


# -------------------- arithmetic


@intrinsic
def fill(context: Any, like: Any, value: Any) -> Any:
    """A number in every lane, in the lanes that ``like`` is computed in: the dtype of memory, or other lanes."""
    lanes = like if isinstance(like, Lanes) else WIDE[like.dtype]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return splat(builder, context.cast(builder, arguments[1], value, lanes.dtype), lanes.count)

    return lanes(like, value), codegen


def lanewise(instruction: Callable[..., Any]) -> Any:
    """An intrinsic from lanes of one type to lanes of that type."""

    @intrinsic
    def apply(context: Any, first: Any, second: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return instruction(builder, *arguments)

        return first(first, second), codegen

    return apply


def add_operator(symbol: Any, instruction: Any) -> None:
    """Overloads one of Python's operators for lanes."""

    @overload(symbol)
    def overloaded(first, second):  # without annotations: Numba compares signatures
        if isinstance(first, Lanes) and first == second:
            return lambda first, second: instruction(first, second)
        return None


add_operator(operator.add, lanewise(lambda builder, a, b: builder.fadd(a, b)))
add_operator(operator.sub, lanewise(lambda builder, a, b: builder.fsub(a, b)))
add_operator(operator.mul, lanewise(lambda builder, a, b: builder.fmul(a, b)))
add_operator(operator.truediv, lanewise(lambda builder, a, b: builder.fdiv(a, b)))

# subtle: both are one instruction on x86; they differ in which operand is the result where one is NaN
larger = lanewise(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
"""The larger of two; the second where either is NaN."""
at_least = lanewise(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), b, a))
"""The first, but no less than the second; NaN where the first is."""


@intrinsic
def fma(context: Any, a: Any, b: Any, c: Any) -> Any:
    """a · b + c, rounded once."""
    return a(a, b, c), lambda context, builder, signature, arguments: call_intrinsic(builder, "fma", *arguments)


def polynomial(*coefficients: float) -> Any:
    """An intrinsic for a polynomial in Horner's form; the highest power's coefficient comes first."""

    @intrinsic
    def horner(context: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value = constant(vector(x), float(coefficients[0]))
            for coefficient in coefficients[1:]:
                value = call_intrinsic(builder, "fma", value, arguments[0], constant(vector(x), float(coefficient)))
            return value

        return x(x), codegen

    return horner


@intrinsic
def scale_by_power(context: Any, x: Any, power: Any) -> Any:
    """x · 2ⁿ, where n plus the bias of an exponent is in the low bits of ``power``; NaN where x is."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits, digits = (I32, 23) if x.dtype is types.float32 else (I64, 52)
        kind = ir.VectorType(bits, x.count)
        scale = builder.shl(builder.bitcast(arguments[1], kind), constant(kind, digits))
        # subtle: adding to the exponent instead would make numbers of NaN whose low bits are set, as R's NA is
        return builder.fmul(arguments[0], builder.bitcast(scale, vector(x)))

    return x(x, power), codegen


@intrinsic
def split_exponent(context: Any, x: Any) -> Any:
    """Lanes as (n, y) with x = 2ⁿ · y and y in [√½, √2); some finite numbers where x is not positive and normal."""
    bits, digits, half_root = (I32, 23, 0x3F3504F3) if x.dtype is types.float32 else (I64, 52, 0x3FE6A09E00000000)
    pair = types.UniTuple(x, 2)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.VectorType(bits, x.count)
        root = constant(kind, half_root)
        shifted = builder.sub(builder.bitcast(arguments[0], kind), root)
        power = builder.ashr(shifted, constant(kind, digits))
        rest = builder.add(builder.and_(shifted, constant(kind, (1 << digits) - 1)), root)
        parts = builder.sitofp(power, vector(x)), builder.bitcast(rest, vector(x))
        return context.make_tuple(builder, pair, parts)

    return pair(x), codegen


# -------------------- masks


def comparison(symbol: str, ordered: bool = True) -> Any:
    """An intrinsic from two vectors to a mask."""

    @intrinsic
    def compare(context: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            compared = builder.fcmp_ordered if ordered else builder.fcmp_unordered
            return compared(symbol, *arguments)

        return mask_of(a)(a, b), codegen

    return compare


equal, greater, greater_equal = comparison("=="), comparison(">"), comparison(">=")
not_equal = comparison("!=", ordered=False)
"""True where either is NaN, too."""
logical_and = lanewise(lambda builder, a, b: builder.and_(a, b))


@intrinsic
def where(context: Any, mask: Any, yes: Any, no: Any) -> Any:
    """Lane by lane, ``yes`` where the mask is set, else ``no``."""
    return yes(mask, yes, no), lambda context, builder, signature, arguments: builder.select(*arguments)


@intrinsic
def last_lanes(context: Any, like: Any, count: Any) -> Any:
    """The mask of the last ``count`` lanes."""
    lanes = WIDE[like.dtype]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.VectorType(I32, lanes.count)
        first = builder.sub(I32(lanes.count), builder.trunc(arguments[1], I32))
        return builder.icmp_signed(">=", constant(kind, list(range(lanes.count))), splat(builder, first, lanes.count))

    return mask_of(lanes)(like, types.int64), codegen


@intrinsic
def count_lanes(context: Any, mask: Any) -> Any:
    """How many lanes of a mask are set."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], ir.IntType(mask.count))
        return builder.zext(builder.ctpop(bits), I64)

    return types.int64(mask), codegen


@intrinsic
def max_lane(context: Any, x: Any) -> Any:
    """The largest lane that is a number; NaN if none is."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = arguments[0]
        while value.type.count > 1:
            low, high = halves(builder, value)
            value = builder.select(builder.fcmp_ordered(">", low, high), low, high)
        return builder.extract_element(value, I32(0))

    return x.dtype(x), codegen
