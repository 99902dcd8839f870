"""Contiguous rows brought side by side in registers: blocks of some classes of a vector's rows, transposed.

A block has one row for each lane, and as many classes as the power of two says that is its *size*: at most as many as
there are lanes. In a tile each class is a vector, one row to a lane. Rows are cut into blocks of one size, and the last
block overlaps the one before it, so that nothing beside a row is read or written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from .lanes import ELEMENTS, I32, I64, WIDE, constant, joined, take_lanes, vector
from .memory import itemsize, narrowed, widened, width


def transposed(builder: Any, vectors: list[Any]) -> list[Any]:
    """n vectors of which each run of n lanes is a column of n × n matrices, from those where it is a row."""
    lanes, step = vectors[0].type.count, len(vectors) // 2
    kind = ir.VectorType(I32, lanes)
    while step:  # exchange the off-diagonal quarters of each matrix, then of each quarter
        low = constant(kind, [lane + (lanes - step if lane & step else 0) for lane in range(lanes)])
        high = constant(kind, [lane + (lanes if lane & step else step) for lane in range(lanes)])
        for index in range(len(vectors)):
            if not index & step:
                pair = vectors[index], vectors[index + step]
                vectors[index] = builder.shuffle_vector(*pair, low)
                vectors[index + step] = builder.shuffle_vector(*pair, high)
        step //= 2
    return vectors


def addresses_of(builder: Any, addresses: Any, offset: Any, count: int) -> list[Any]:
    """The addresses of the rows plus an offset; they are int64 in memory."""
    starts = builder.inttoptr(addresses, I64.as_pointer())
    return [builder.add(builder.load(builder.gep(starts, [I64(row)])), offset) for row in range(count)]


def by_size(lanes: Any, builder: Any, size: Any, write: Callable[[int], None]) -> None:
    """Calls write(size) for the size that is found when the code runs."""
    each = 2
    while each <= lanes.count:
        with builder.if_then(builder.icmp_signed("==", size, I64(each))):
            write(each)
        each *= 2


@intrinsic
def load_block(context: Any, memory: Any, addresses: Any, offset: Any, size: Any, tile: Any) -> Any:
    """Fills ``size`` vectors of a tile from the rows at some addresses plus an offset."""
    lanes = WIDE[memory.dtype]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, addresses, offset, size, tile = arguments

        def write(size: int) -> None:
            kind = ir.VectorType(ELEMENTS[memory.dtype], size).as_pointer()
            starts = addresses_of(builder, addresses, offset, lanes.count)
            rows = [builder.load(builder.inttoptr(start, kind), align=1) for start in starts]
            vectors = [joined(builder, rows[index::size]) for index in range(size)]
            vectors = [widened(builder, memory.dtype, value, vector(lanes)) for value in vectors]
            for index, value in enumerate(transposed(builder, vectors)):
                address = builder.add(tile, I64(64 * index))
                builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=64)

        by_size(lanes, builder, size, write)
        return context.get_dummy_value()

    return types.void(memory, *[types.int64] * 4), codegen


@intrinsic
def store_block(context: Any, memory: Any, addresses: Any, offset: Any, size: Any, tile: Any) -> Any:
    """Writes ``size`` vectors of a tile to the rows at some addresses plus an offset."""
    lanes = WIDE[memory.dtype]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, addresses, offset, size, tile = arguments

        def write(size: int) -> None:
            places = [builder.add(tile, I64(64 * index)) for index in range(size)]
            kind = vector(lanes).as_pointer()
            vectors = [builder.load(builder.inttoptr(place, kind), align=64) for place in places]
            vectors = [narrowed(builder, memory.dtype, value) for value in transposed(builder, vectors)]
            for row, start in enumerate(addresses_of(builder, addresses, offset, lanes.count)):
                first = row // size * size
                value = take_lanes(builder, vectors[row % size], list(range(first, first + size)))
                builder.store(value, builder.inttoptr(start, value.type.as_pointer()), align=1)

        by_size(lanes, builder, size, write)
        return context.get_dummy_value()

    return types.void(memory, *[types.int64] * 4), codegen


@njit(forceinline=True)
def size_of_blocks(x, classes):
    """The largest size for rows of two classes or more."""
    size = width(x)
    while size > classes:
        size //= 2
    return size


def over_blocks(name: str, move: Callable[..., None]) -> Any:
    """loop(x, addresses, classes, tile), which moves each block of a vector's rows between memory and the tile.

    The classes of the rows are contiguous, and two or more.
    """

    def loop(x, addresses, classes, tile):
        size, index = size_of_blocks(x, classes), 0
        while index < classes:
            begin = min(index, classes - size)
            move(x, addresses, begin * itemsize(x), size, tile + begin * 64)
            index += size

    loop.__qualname__ = name  # subtle: the symbols of two loops of one name and signature could be exchanged on disk
    return njit(forceinline=True)(loop)


load_rows, store_rows = over_blocks("load_rows", load_block), over_blocks("store_rows", store_block)
