"""Short vectors for Numba: 64 bytes of float32 or float64 lanes that LLVM keeps in registers.

Numba leaves it to LLVM's loop vectorizer whether a loop becomes vector code, and to fast-math flags whether a sum may
be reordered; the same flags drop NaN and infinities, and the order of a sum changes with the processor. Here a value of
type ``Lanes`` *is* a vector. The order of every addition is written in the source, no flag is needed, and a processor
of another width gives the same bits.

Memory is named by its address in bytes and by the dtype of what lies there, which for float16 is int16 and for bfloat16
uint16, since Numba has no arrays of those. The 16-bit kinds are widened as they are read and rounded to nearest even as
they are written. No function here or in the loops takes an array: Numba would count its references at every call.
Leaves out bounds: an address is trusted. Leaves out the mathematics (``exponential.py``).
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
"""What memory of a dtype is computed in."""
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


def pick(builder: Any, value: Any, lanes: list[int]) -> Any:
    """The named lanes of a vector, as a shorter one."""
    return builder.shuffle_vector(value, value, constant(ir.VectorType(I32, len(lanes)), lanes))


def halves(builder: Any, value: Any) -> tuple[Any, Any]:
    count = value.type.count // 2
    return pick(builder, value, list(range(count))), pick(builder, value, list(range(count, 2 * count)))


def call(builder: Any, name: str, *arguments: Any) -> Any:
    """An LLVM intrinsic on vectors of one type, such as llvm.fma."""
    kind = arguments[0].type
    suffix = f"v{kind.count}" + {"float": "f32", "double": "f64"}[str(kind.element)]
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [one.type for one in arguments]), f"llvm.{name}.{suffix}"
    )
    return builder.call(function, arguments)


# -------------------- memory


def widened(builder: Any, dtype: types.Type, value: Any, kind: Any) -> Any:
    """What was read from memory of a dtype, in the kind that is computed in."""
    if dtype is types.int16:
        return builder.fpext(value, kind)
    if dtype is not types.uint16:
        return value
    bits = ir.VectorType(I32, kind.count) if isinstance(kind, ir.VectorType) else I32
    shift = constant(bits, 16) if isinstance(kind, ir.VectorType) else bits(16)
    return builder.bitcast(builder.shl(builder.zext(value, bits), shift), kind)


def narrowed(builder: Any, dtype: types.Type, value: Any) -> Any:
    """A vector as memory of a dtype takes it, rounded to nearest even."""
    if dtype is types.int16:
        return builder.fptrunc(value, ir.VectorType(ir.HalfType(), value.type.count))
    if dtype is not types.uint16:
        return value
    wide = ir.VectorType(I32, value.type.count)
    bits = builder.bitcast(value, wide)
    odd = builder.and_(builder.lshr(bits, constant(wide, 16)), constant(wide, 1))
    rounded = builder.add(builder.add(bits, constant(wide, 0x7FFF)), odd)
    quiet = builder.or_(bits, constant(wide, 0x400000))  # rounding could carry a NaN into an infinity
    kept = builder.select(builder.fcmp_unordered("uno", value, value), quiet, rounded)
    return builder.trunc(builder.lshr(kept, constant(wide, 16)), ir.VectorType(I16, value.type.count))


@intrinsic
def load(context: Any, memory: Any, address: Any) -> Any:
    """The lanes at an address, of any alignment."""
    lanes = WIDE[memory.dtype]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[1], vector(lanes, ELEMENTS[memory.dtype]).as_pointer())
        return widened(builder, memory.dtype, builder.load(place, align=1), vector(lanes))

    return lanes(memory, types.int64), codegen


@intrinsic
def store(context: Any, memory: Any, address: Any, value: Any) -> Any:
    """Writes lanes to an address, of any alignment."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        narrow = narrowed(builder, memory.dtype, arguments[2])
        builder.store(narrow, builder.inttoptr(arguments[1], narrow.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(memory, types.int64, value), codegen


@intrinsic
def prefetch(context: Any, address: Any) -> Any:
    """Asks for the cache line at an address, which may lie anywhere; nothing waits for it."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [builder.inttoptr(arguments[0], pointer), I32(0), I32(3), I32(1)])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def element(context: Any, memory: Any, address: Any) -> Any:
    """The one number at an address, widened."""
    wide = WIDE[memory.dtype].dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[1], ELEMENTS[memory.dtype].as_pointer())
        return widened(builder, memory.dtype, builder.load(place, align=1), ELEMENTS[wide])

    return wide(memory, types.int64), codegen


@intrinsic
def put(context: Any, memory: Any, address: Any, value: Any) -> Any:
    """Writes one number (float64) to an address, rounded to the computing dtype and then to the memory's."""
    wide = WIDE[memory.dtype].dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = context.cast(builder, arguments[2], types.float64, wide)
        narrow = narrowed(builder, memory.dtype, splat(builder, number, 2))
        place = builder.inttoptr(arguments[1], narrow.type.element.as_pointer())
        builder.store(builder.extract_element(narrow, I32(0)), place, align=1)
        return context.get_dummy_value()

    return types.void(memory, types.int64, types.float64), codegen


@intrinsic
def rounded_to(context: Any, memory: Any, value: Any) -> Any:
    """A float64 rounded to the dtype that this memory is computed in, as float64."""
    wide = WIDE[memory.dtype].dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        narrow = context.cast(builder, arguments[1], types.float64, wide)
        return context.cast(builder, narrow, wide, types.float64)

    return types.float64(memory, types.float64), codegen


@intrinsic
def gather(context: Any, memory: Any, table: Any, offset: Any) -> Any:
    """Lane by lane, the number at an address plus an offset; the addresses, int64, are at the address ``table``."""
    lanes = WIDE[memory.dtype]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        narrow = ELEMENTS[memory.dtype]
        starts = builder.inttoptr(arguments[1], I64.as_pointer())
        value = ir.Constant(vector(lanes, narrow), ir.Undefined)
        for lane in range(lanes.count):
            place = builder.add(builder.load(builder.gep(starts, [I64(lane)])), arguments[2])
            number = builder.load(builder.inttoptr(place, narrow.as_pointer()), align=1)
            value = builder.insert_element(value, number, I32(lane))
        return widened(builder, memory.dtype, value, vector(lanes))

    return lanes(memory, types.int64, types.int64), codegen


@intrinsic
def scatter(context: Any, memory: Any, table: Any, offset: Any, value: Any, count: Any) -> Any:
    """Writes each of the first ``count`` lanes to its address plus an offset."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        narrow = narrowed(builder, memory.dtype, arguments[3])
        starts = builder.inttoptr(arguments[1], I64.as_pointer())

        def write(lane: int) -> None:
            place = builder.add(builder.load(builder.gep(starts, [I64(lane)])), arguments[2])
            number = builder.extract_element(narrow, I32(lane))
            builder.store(number, builder.inttoptr(place, narrow.type.element.as_pointer()), align=1)

        is_full = builder.icmp_signed(">=", arguments[4], I64(value.count))
        with builder.if_else(is_full, likely=True) as (full, some):
            with full:
                for lane in range(value.count):
                    write(lane)
            with some:
                for lane in range(value.count):
                    with builder.if_then(builder.icmp_signed("<", I64(lane), arguments[4])):
                        write(lane)
        return context.get_dummy_value()

    return types.void(memory, types.int64, types.int64, value, types.int64), codegen


# -------------------- arithmetic


@intrinsic
def fill(context: Any, like: Any, value: Any) -> Any:
    """A number in every lane: of the lanes that an array's memory, or other lanes, are computed in."""
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


def operated(symbol: Any, instruction: Any) -> None:
    """Gives lanes one of Python's operators."""

    @overload(symbol)
    def overloaded(first, second):  # without annotations: Numba compares signatures
        if isinstance(first, Lanes) and first == second:
            return lambda first, second: instruction(first, second)
        return None


operated(operator.add, lanewise(lambda builder, a, b: builder.fadd(a, b)))
operated(operator.sub, lanewise(lambda builder, a, b: builder.fsub(a, b)))
operated(operator.mul, lanewise(lambda builder, a, b: builder.fmul(a, b)))
operated(operator.truediv, lanewise(lambda builder, a, b: builder.fdiv(a, b)))

# subtle: both are one instruction on x86, and each says which operand a NaN leaves
larger = lanewise(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
"""The larger of two; the second where either is NaN."""
at_least = lanewise(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), b, a))
"""The first, but no less than the second; NaN where the first is."""


@intrinsic
def fma(context: Any, a: Any, b: Any, c: Any) -> Any:
    """a · b + c, rounded once."""
    return a(a, b, c), lambda context, builder, signature, arguments: call(builder, "fma", *arguments)


def polynomial(*coefficients: float) -> Any:
    """An intrinsic for a polynomial in Horner's form; the highest power's coefficient comes first."""

    @intrinsic
    def horner(context: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value = constant(vector(x), float(coefficients[0]))
            for coefficient in coefficients[1:]:
                value = call(builder, "fma", value, arguments[0], constant(vector(x), float(coefficient)))
            return value

        return x(x), codegen

    return horner


@intrinsic
def raised(context: Any, x: Any, power: Any) -> Any:
    """x · 2ⁿ, where n and the bias of an exponent stand in the low bits of ``power``; NaN where x is."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits, digits = (I32, 23) if x.dtype is types.float32 else (I64, 52)
        kind = ir.VectorType(bits, x.count)
        scale = builder.shl(builder.bitcast(arguments[1], kind), constant(kind, digits))
        # subtle: adding to the exponent instead would make numbers of NaN whose low bits are set, as R's NA is
        return builder.fmul(arguments[0], builder.bitcast(scale, vector(x)))

    return x(x, power), codegen


@intrinsic
def split(context: Any, x: Any) -> Any:
    """float64 lanes as (n, y) with x = 2ⁿ · y and y in [√½, √2); x must be positive and normal."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.VectorType(I64, x.count)
        root = constant(kind, 0x3FE6A09E00000000)
        shifted = builder.sub(builder.bitcast(arguments[0], kind), root)
        power = builder.ashr(shifted, constant(kind, 52))
        rest = builder.add(builder.and_(shifted, constant(kind, (1 << 52) - 1)), root)
        parts = builder.sitofp(power, vector(x)), builder.bitcast(rest, vector(x))
        return context.make_tuple(builder, Pair, parts)

    return Pair(x), codegen


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


equal, above, reaches = comparison("=="), comparison(">"), comparison(">=")
both = lanewise(lambda builder, a, b: builder.and_(a, b))
"""The lanes that are set in both of two masks."""
differs = comparison("!=", ordered=False)


@intrinsic
def choose(context: Any, mask: Any, yes: Any, no: Any) -> Any:
    """Lane by lane, ``yes`` where the mask is set, else ``no``."""
    return yes(mask, yes, no), lambda context, builder, signature, arguments: builder.select(*arguments)


@intrinsic
def last(context: Any, like: Any, count: Any) -> Any:
    """The mask of the last ``count`` lanes."""
    lanes = WIDE[like.dtype]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.VectorType(I32, lanes.count)
        first = builder.sub(I32(lanes.count), builder.trunc(arguments[1], I32))
        return builder.icmp_signed(">=", constant(kind, list(range(lanes.count))), splat(builder, first, lanes.count))

    return mask_of(lanes)(like, types.int64), codegen


@intrinsic
def counted(context: Any, mask: Any) -> Any:
    """How many lanes of a mask are set."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], ir.IntType(mask.count))
        return builder.zext(builder.ctpop(bits), I64)

    return types.int64(mask), codegen


# -------------------- across lanes


@intrinsic
def highest(context: Any, x: Any) -> Any:
    """The largest lane; NaN counts for nothing unless all are."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = arguments[0]
        while value.type.count > 1:
            low, high = halves(builder, value)
            value = builder.select(builder.fcmp_ordered(">", low, high), low, high)
        return builder.extract_element(value, I32(0))

    return x.dtype(x), codegen


@intrinsic
def nothing(context: Any) -> Any:
    """The total of no lanes at all. A total is a pair of float64 vectors that lanes are added to."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zero = constant(vector(DOUBLE), 0.0)
        return context.make_tuple(builder, Pair, (zero, zero))

    return Pair(), codegen


def two_sum(builder: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """a + b rounded, and what the rounding lost (Knuth); nothing where the sum is infinite."""
    total = builder.fadd(a, b)
    other = builder.fsub(total, a)
    lost = builder.fadd(builder.fsub(a, builder.fsub(total, other)), builder.fsub(b, other))
    finite = builder.fcmp_ordered("ord", lost, lost)
    return total, builder.select(finite, lost, constant(lost.type, 0.0))


@intrinsic
def add_to(context: Any, total: Any, x: Any) -> Any:
    """A total with lanes added: float32 lanes in float64, half of them each; float64 lanes with what is rounded off."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, second = cgutils.unpack_tuple(builder, arguments[0], 2)
        if x.dtype is types.float32:
            low, high = (builder.fpext(half, vector(DOUBLE)) for half in halves(builder, arguments[1]))
            sums = builder.fadd(first, low), builder.fadd(second, high)
        else:
            whole, lost = two_sum(builder, first, arguments[1])
            sums = whole, builder.fadd(second, lost)
        return context.make_tuple(builder, Pair, sums)

    return Pair(total, x), codegen


@intrinsic
def sum_of(context: Any, total: Any, like: Any) -> Any:
    """The sum over all lanes of a total, float64; compensated where the lanes were float64."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, second = cgutils.unpack_tuple(builder, arguments[0], 2)
        if WIDE[like.dtype] is SINGLE:
            first = builder.fadd(first, second)
            while first.type.count > 1:
                first = builder.fadd(*halves(builder, first))
            return builder.extract_element(first, I32(0))
        while first.type.count > 1:
            first, lost = two_sum(builder, *halves(builder, first))
            second = builder.fadd(builder.fadd(*halves(builder, second)), lost)
        return builder.extract_element(builder.fadd(first, second), I32(0))

    return types.float64(total, like), codegen


@intrinsic
def store_total(context: Any, total: Any, like: Any, address: Any) -> Any:
    """Writes the total of each lane to float64 memory: 16 numbers where the lanes were float32, 8 where float64."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, second = cgutils.unpack_tuple(builder, arguments[0], 2)
        single = WIDE[like.dtype] is SINGLE
        for index, value in enumerate((first, second) if single else (builder.fadd(first, second),)):
            place = builder.add(arguments[2], I64(64 * index))
            builder.store(value, builder.inttoptr(place, value.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(total, like, types.int64), codegen


@intrinsic
def width(context: Any, memory: Any) -> Any:
    """How many numbers of this memory make one vector."""
    return types.int64(memory), lambda context, builder, signature, arguments: I64(WIDE[memory.dtype].count)


@intrinsic
def size(context: Any, memory: Any) -> Any:
    """The bytes of one number of this memory."""
    return types.int64(memory), lambda context, builder, signature, arguments: I64(memory.dtype.bitwidth // 8)


@intrinsic
def integer(context: Any, address: Any) -> Any:
    """The int64 at an address."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], I64.as_pointer()), align=1)

    return types.int64(types.int64), codegen


@intrinsic
def put_integer(context: Any, address: Any, value: Any) -> Any:
    """Writes one int64 to an address."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], builder.inttoptr(arguments[0], I64.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def load_doubles(context: Any, memory: Any, address: Any) -> Any:
    """As many float64 numbers as this memory's lanes, rounded to them."""
    lanes = WIDE[memory.dtype]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = vector(lanes, ELEMENTS[types.float64])
        value = builder.load(builder.inttoptr(arguments[1], kind.as_pointer()), align=1)
        return builder.fptrunc(value, vector(lanes)) if lanes is SINGLE else value

    return lanes(memory, types.int64), codegen


@intrinsic
def keep_alive(context: Any, array: Any) -> Any:
    """Nothing; but an array of which only the address is used would be freed before this call, and not after."""
    return types.void(array), lambda context, builder, signature, arguments: context.get_dummy_value()
