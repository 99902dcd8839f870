"""Loads and stores: memory by its address in bytes and its dtype.

The dtype is int16 for float16 and uint16 for bfloat16, since Numba has no arrays of those; both are widened when
read and rounded to nearest even when written. No function here or in the loops takes an array: Numba would count its
references at every call. Bounds are not checked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lanes import ELEMENTS, I16, I32, I64, WIDE, constant, splat, vector


def widened(builder: Any, dtype: types.Type, value: Any, kind: Any) -> Any:
    """A value from memory of a dtype, in the LLVM type ``kind`` in which it is computed."""
    if dtype is types.int16:
        return builder.fpext(value, kind)
    if dtype is not types.uint16:
        return value
    bits = ir.VectorType(I32, kind.count) if isinstance(kind, ir.VectorType) else I32
    shift = constant(bits, 16) if isinstance(kind, ir.VectorType) else bits(16)
    return builder.bitcast(builder.shl(builder.zext(value, bits), shift), kind)


def narrowed(builder: Any, dtype: types.Type, value: Any) -> Any:
    """A vector in the dtype of memory, rounded to nearest even."""
    if dtype is types.int16:
        return builder.fptrunc(value, ir.VectorType(ir.HalfType(), value.type.count))
    if dtype is not types.uint16:
        return value
    wide = ir.VectorType(I32, value.type.count)
    bits = builder.bitcast(value, wide)
    odd = builder.and_(builder.lshr(bits, constant(wide, 16)), constant(wide, 1))
    rounded = builder.add(builder.add(bits, constant(wide, 0x7FFF)), odd)
    quiet = builder.or_(bits, constant(wide, 0x400000))  # rounding could turn a NaN into an infinity
    narrow = builder.select(builder.fcmp_unordered("uno", value, value), quiet, rounded)
    return builder.trunc(builder.lshr(narrow, constant(wide, 16)), ir.VectorType(I16, value.type.count))


@intrinsic
def width(context: Any, memory: Any) -> Any:
    """How many numbers of this memory make one vector."""
    return types.int64(memory), lambda context, builder, signature, arguments: I64(WIDE[memory.dtype].count)


@intrinsic
def itemsize(context: Any, memory: Any) -> Any:
    """The bytes of one number of this memory."""
    return types.int64(memory), lambda context, builder, signature, arguments: I64(memory.dtype.bitwidth // 8)


@intrinsic
def load(context: Any, memory: Any, address: Any) -> Any:
    """The lanes at an address, of any alignment."""
    lanes = WIDE[memory.dtype]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[1], vector(lanes, ELEMENTS[memory.dtype]).as_pointer())
        return widened(builder, memory.dtype, builder.load(pointer, align=1), vector(lanes))

    return lanes(memory, types.int64), codegen


@intrinsic
def store(context: Any, memory: Any, address: Any, value: Any) -> Any:
    """Writes lanes to an address, of any alignment."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        narrow = narrowed(builder, memory.dtype, arguments[2])
        builder.store(narrow, builder.inttoptr(arguments[1], narrow.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(memory, types.int64, value), codegen


def prefetcher(to_write: int) -> Any:
    """An intrinsic that prefetches the cache line at an address, which may be any number."""

    @intrinsic
    def fetch(context: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            builder.call(function, [builder.inttoptr(arguments[0], pointer), I32(to_write), I32(3), I32(1)])
            return context.get_dummy_value()

        return types.void(types.int64), codegen

    return fetch


prefetch, prefetch_to_write = prefetcher(0), prefetcher(1)


@intrinsic
def load_scalar(context: Any, memory: Any, address: Any) -> Any:
    """The number at an address, widened."""
    wide = WIDE[memory.dtype].dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[1], ELEMENTS[memory.dtype].as_pointer())
        return widened(builder, memory.dtype, builder.load(pointer, align=1), ELEMENTS[wide])

    return wide(memory, types.int64), codegen


@intrinsic
def store_scalar(context: Any, memory: Any, address: Any, value: Any) -> Any:
    """Writes one number (float64) to an address, rounded to the computing dtype and then to the memory's."""
    wide = WIDE[memory.dtype].dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = context.cast(builder, arguments[2], types.float64, wide)
        narrow = narrowed(builder, memory.dtype, splat(builder, number, 2))
        pointer = builder.inttoptr(arguments[1], narrow.type.element.as_pointer())
        builder.store(builder.extract_element(narrow, I32(0)), pointer, align=1)
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
def gather(context: Any, memory: Any, addresses: Any, offset: Any) -> Any:
    """Lane by lane, the number at an address plus an offset. The lanes' addresses, int64, are at ``addresses``."""
    lanes = WIDE[memory.dtype]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        narrow = ELEMENTS[memory.dtype]
        starts = builder.inttoptr(arguments[1], I64.as_pointer())
        value = ir.Constant(vector(lanes, narrow), ir.Undefined)
        for lane in range(lanes.count):
            address = builder.add(builder.load(builder.gep(starts, [I64(lane)])), arguments[2])
            number = builder.load(builder.inttoptr(address, narrow.as_pointer()), align=1)
            value = builder.insert_element(value, number, I32(lane))
        return widened(builder, memory.dtype, value, vector(lanes))

    return lanes(memory, types.int64, types.int64), codegen


@intrinsic
def scatter(context: Any, memory: Any, addresses: Any, offset: Any, value: Any) -> Any:
    """Writes each lane to its address plus an offset."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        narrow = narrowed(builder, memory.dtype, arguments[3])
        starts = builder.inttoptr(arguments[1], I64.as_pointer())
        for lane in range(value.count):
            address = builder.add(builder.load(builder.gep(starts, [I64(lane)])), arguments[2])
            number = builder.extract_element(narrow, I32(lane))
            builder.store(number, builder.inttoptr(address, narrow.type.element.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(memory, types.int64, types.int64, value), codegen


def places_in_tile(builder: Any, tile: Any, classes: Any, lanes: Any) -> list[Any]:
    """Pointers to one class of each row of a tile; the classes are numbers in lanes."""
    kind = ir.VectorType(I32, lanes.count)
    first = constant(kind, [lane * lanes.dtype.bitwidth // 8 for lane in range(lanes.count)])
    offsets = builder.add(builder.mul(builder.fptosi(classes, kind), constant(kind, 64)), first)
    addresses = [
        builder.add(tile, builder.sext(builder.extract_element(offsets, I32(lane)), I64)) for lane in range(lanes.count)
    ]
    return [builder.inttoptr(address, ELEMENTS[lanes.dtype].as_pointer()) for address in addresses]


@intrinsic
def load_from_tile(context: Any, tile: Any, classes: Any) -> Any:
    """One class of each row of a tile; the classes are numbers in lanes."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = ir.Constant(vector(classes), ir.Undefined)
        for lane, place in enumerate(places_in_tile(builder, *arguments, classes)):
            value = builder.insert_element(value, builder.load(place), I32(lane))
        return value

    return classes(types.int64, classes), codegen


@intrinsic
def store_to_tile(context: Any, tile: Any, classes: Any, value: Any) -> Any:
    """Writes one class of each row of a tile; the classes are numbers in lanes."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for lane, place in enumerate(places_in_tile(builder, *arguments[:2], classes)):
            builder.store(builder.extract_element(arguments[2], I32(lane)), place)
        return context.get_dummy_value()

    return types.void(types.int64, classes, classes), codegen


@intrinsic
def load_int64(context: Any, address: Any) -> Any:
    """The int64 at an address."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], I64.as_pointer()), align=1)

    return types.int64(types.int64), codegen


@intrinsic
def store_int64(context: Any, address: Any, value: Any) -> Any:
    """Writes one int64 to an address."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], builder.inttoptr(arguments[0], I64.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def load_int64_lanes(context: Any, like: Any, address: Any) -> Any:
    """int64 numbers at an address, rounded to the lanes of this memory."""
    lanes = WIDE[like.dtype]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.VectorType(I64, lanes.count)
        value = builder.load(builder.inttoptr(arguments[1], kind.as_pointer()), align=1)
        return builder.sitofp(value, vector(lanes))

    return lanes(like, types.int64), codegen


@intrinsic
def keep_alive(context: Any, array: Any) -> Any:
    """Does nothing. An array of which only the address is used would be freed before this call otherwise."""
    return types.void(array), lambda context, builder, signature, arguments: context.get_dummy_value()
