"""XLA's foreign function interface, as far as the targets use it: call frames by address, threads, errors, atomics.

The offsets are those of ``xla/ffi/api/c_api.h`` (API 0.x, 64 bits), to whose structs fields are only appended within a
major version; ``ffi.check`` declines another one. Everything is an address, int64, as in ``memory.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .lanes import I32, I64
from .memory import keep_alive, load_int64, store_int64

MAJOR, MINOR = 0, 1  # of the API these offsets are those of
API, CONTEXT, ARGUMENTS, RESULTS, ATTRIBUTES = 16, 24, 72, 112, 160  # in a call frame
ERROR_CREATE, SCHEDULE, NUM_THREADS = 48, 136, 144  # in the table of functions
DATA, RANK, DIMENSIONS = 24, 32, 40  # in a buffer
S32, S64 = 4, 5  # dtypes of labels
METADATA_EXTENSION, RESOURCE_EXHAUSTED, HUGE_PAGES = 1, 8, 14
HUGE_BYTES = (
    1 << 22
)  # outputs from here on are asked for in huge pages: first touches of small ones cost more than the loops
OUT_OF_MEMORY = np.frombuffer(b"xent-numba: out of memory\0", np.uint8)


@intrinsic
def load_int32(context: Any, address: Any) -> Any:
    """The int32 at an address, as int64."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(builder.inttoptr(arguments[0], I32.as_pointer()), align=1)
        return builder.sext(value, I64)

    return types.int64(types.int64), codegen


@intrinsic
def store_int32(context: Any, address: Any, value: Any) -> Any:
    """Writes one int32 to an address."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], I32.as_pointer())
        builder.store(builder.trunc(arguments[1], I32), pointer, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def load_double(context: Any, address: Any) -> Any:
    """The float64 at an address."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], ir.DoubleType().as_pointer()), align=1)

    return types.float64(types.int64), codegen


@intrinsic
def atomic_add(context: Any, address: Any, value: Any) -> Any:
    """Adds to the int64 at an address, as one step for all threads; the number before."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], I64.as_pointer())
        return builder.atomic_rmw("add", pointer, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def as_pointer(context: Any, address: Any) -> Any:
    """An address as the pointer that ``numba.carray`` takes."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), codegen


@intrinsic
def call_address(context: Any, function: Any, argument: Any) -> Any:
    """function(argument) of a C function at an address, that takes and returns an address."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(I64, [I64]).as_pointer()
        return builder.call(builder.inttoptr(arguments[0], kind), [arguments[1]])

    return types.int64(types.int64, types.int64), codegen


def c_function(name: str, result: Any, *parameters: Any) -> Callable[..., Any]:
    """A function of the C library for compiled code; its arguments and its result are int64 there."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, parameters), name)
        passed = zip(arguments, parameters, strict=True)
        value = builder.call(function, [builder.trunc(a, kind) if kind != I64 else a for a, kind in passed])
        if isinstance(result, ir.VoidType):
            return I64(0)
        return value if result == I64 else builder.sext(value, I64)

    signature = types.int64(*[types.int64] * len(parameters))
    forms = {
        0: lambda context: (signature, codegen),
        1: lambda context, first: (signature, codegen),
        3: lambda context, first, second, third: (signature, codegen),
    }
    return intrinsic(forms[len(parameters)])


malloc = c_function("malloc", I64, I64)
free = c_function("free", ir.VoidType(), I64)
sched_yield = c_function("sched_yield", I32)
madvise = c_function("madvise", I32, I64, I64, I32)


def address_of_task(function: Callable[..., Any]) -> Callable[..., Any]:
    """For compiled code: the address of ``function(int64)`` as a C function.

    The C function is a part of the module that asks for its address, which so stays right in a cache on disk.
    """

    @intrinsic
    def address(context: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            inner = types.void(types.int64)
            result = context.compile_subroutine(builder, function, inner)
            kind = ir.FunctionType(ir.VoidType(), [I64])
            task = ir.Function(builder.module, kind, builder.module.get_unique_name("xent_task"))
            task.linkage = "internal"
            body = ir.IRBuilder(task.append_basic_block("entry"))
            context.call_internal_no_propagate(body, result.fndesc, inner, task.args)
            body.ret_void()
            return builder.ptrtoint(task, I64)

        return types.int64(), codegen

    return address


class Buffer(NamedTuple):
    """An array (*batch, classes), or (*batch,) of which only the address is used."""

    address: int
    rows: int
    classes: int


@njit
def buffer_of(table, index):
    """One of the buffers of a table of arguments or results."""
    buffer = load_int64(table + 8 * index)
    rank, dimensions, rows = load_int64(buffer + RANK), load_int64(buffer + DIMENSIONS), 1
    for axis in range(rank - 1):
        rows *= load_int64(dimensions + 8 * axis)
    return Buffer(load_int64(buffer + DATA), rows, load_int64(dimensions + 8 * (rank - 1)))


@njit
def argument(frame, index):
    """One of the arguments."""
    return buffer_of(load_int64(frame + ARGUMENTS), index)


@njit
def result(frame, index):
    """One of the results."""
    return buffer_of(load_int64(frame + RESULTS), index)


@njit
def item_bytes_of_labels(frame, index):
    """The bytes of one label of an argument: 8 of int64, 4 of int32."""
    buffer = load_int64(load_int64(frame + ARGUMENTS) + 8 * index)
    return 8 if load_int32(buffer + 16) == S64 else 4


@njit
def attribute_address(frame, index):
    """The address of one of the attributes, a scalar; they are in the order of their names."""
    return load_int64(load_int64(load_int64(frame + ATTRIBUTES) + 8 * index) + 8)


@njit
def answers_metadata(frame):
    """Whether the call only asked for the version of the API, which is then answered."""
    extension = load_int64(frame + 8)
    if extension == 0 or load_int32(extension + 8) != METADATA_EXTENSION:
        return False
    metadata = load_int64(extension + 24)
    store_int32(metadata + 24, MAJOR)
    store_int32(metadata + 28, MINOR)
    store_int32(metadata + 32, 0)  # no traits
    store_int64(metadata + 40, 0)  # no state
    return True


@njit
def number_of_threads(frame):
    """The threads of XLA's pool; 1 if it has none."""
    answer, request = np.ones(1, np.int64), np.zeros(4, np.int64)
    request[0], request[2], request[3] = 32, load_int64(frame + CONTEXT), answer.ctypes.data
    failed = call_address(load_int64(load_int64(frame + API) + NUM_THREADS), request.ctypes.data)
    threads = 1 if failed != 0 else answer[0]
    keep_alive(request)
    keep_alive(answer)
    return threads


@njit
def schedule(frame, task, block):
    """Has XLA's pool call task(block) some time; False if it will not."""
    request = np.zeros(5, np.int64)
    request[0], request[2], request[3], request[4] = 40, load_int64(frame + CONTEXT), task, block
    failed = call_address(load_int64(load_int64(frame + API) + SCHEDULE), request.ctypes.data)
    keep_alive(request)
    return failed == 0


@njit
def out_of_memory(frame):
    """An error for XLA, which raises it in the caller."""
    request = np.zeros(4, np.int64)
    request[0], request[2], request[3] = 32, OUT_OF_MEMORY.ctypes.data, RESOURCE_EXHAUSTED
    error = call_address(load_int64(load_int64(frame + API) + ERROR_CREATE), request.ctypes.data)
    keep_alive(request)
    return error


@njit
def array_at(address, shape, dtype):
    """An array in memory that is there."""
    return carray(as_pointer(address), shape, dtype)


@njit
def labels_at(address, item_bytes, count):
    """Labels in memory that is there, int64, from items of 8 or 4 bytes."""
    if item_bytes == 8:
        return array_at(address, count, np.int64)
    labels = np.empty(count, np.int64)
    for row in range(count):
        labels[row] = load_int32(address + 4 * row)
    return labels


IS_LINUX = sys.platform == "linux"


@njit
def ask_for_huge_pages(address, count):
    """Asks for huge pages for the whole pages of new memory, if it is large."""
    if IS_LINUX and count >= HUGE_BYTES:
        start = (address + 4095) // 4096 * 4096
        madvise(start, (address + count) // 4096 * 4096 - start, HUGE_PAGES)
