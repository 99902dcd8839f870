"""Memory as compiled code takes it from Python: a NumPy array, the address of its first element, or None for none.

For small calls: this takes some tens of nanoseconds, where NumPy tells an address in a thousand. Only the address
arrives; the caller knows the dtype, and that the elements lie side by side.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import NativeValue, intrinsic, models, register_model, unbox

from .lanes import I64

DATA = 4  # the field of Numba's array struct: meminfo, parent, nitems, itemsize, data, shape and strides
MOST_AXES = 64  # of a NumPy array


class MemoryType(types.Type):
    """The type of memory by its address; 0 is none."""

    def __init__(self) -> None:
        super().__init__("xent_numba.Memory")


memory_type = MemoryType()


@register_model(MemoryType)
class MemoryModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any):
        super().__init__(manager, kind, I64)


@unbox(MemoryType)
def unbox_memory(kind: Any, value: Any, c: Any) -> NativeValue:
    """The address of an argument; an error if it is neither an array nor an int nor None."""
    builder = c.builder
    address, is_error = (cgutils.alloca_once_value(builder, zero) for zero in (I64(0), cgutils.false_bit))
    struct = cgutils.alloca_once(builder, ir.LiteralStructType([I64] * (5 + 2 * MOST_AXES)))
    is_none = cgutils.is_null(builder, builder.sub(*(builder.ptrtoint(p, I64) for p in (value, c.pyapi.borrow_none()))))
    with builder.if_then(builder.not_(is_none)):
        failed = c.pyapi.nrt_adapt_ndarray_from_python(value, builder.bitcast(struct, cgutils.voidptr_t))
        with builder.if_else(cgutils.is_not_null(builder, failed)) as (is_other, is_array):
            with is_other:
                builder.store(c.pyapi.long_as_longlong(value), address)
                builder.store(c.pyapi.c_api_error(), is_error)
            with is_array:
                builder.store(builder.load(cgutils.gep_inbounds(builder, struct, 0, DATA)), address)
                owner = builder.load(cgutils.gep_inbounds(builder, struct, 0, 0))  # the caller keeps the array
                pointer = builder.inttoptr(owner, cgutils.voidptr_t)
                c.context.nrt.decref(builder, types.MemInfoPointer(types.voidptr), pointer)
    return NativeValue(builder.load(address), is_error=builder.load(is_error))


@intrinsic
def address_of(context: Any, memory: Any) -> Any:
    """The address of some memory, int64; 0 if there is none."""
    return types.int64(memory), lambda context, builder, signature, arguments: arguments[0]
