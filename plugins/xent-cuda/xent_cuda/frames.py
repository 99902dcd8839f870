"""XLA's foreign function interface, as far as the targets use it: the structures of a call frame, in ctypes.

They are those of ``xla/ffi/api/c_api.h`` (API 0.x, 64 bits), to which fields are only appended within a major version;
``ffi.check`` declines another one.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

MAJOR, MINOR = 0, 1  # of the API that these structures are of
METADATA_EXTENSION, INTERNAL = 1, 13
DTYPES = {4: np.int32, 5: np.int64, 10: np.float16, 11: np.float32, 12: np.float64, 16: ml_dtypes.bfloat16}
"""The dtypes of labels and floats, by their numbers in a buffer."""

Handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
"""What XLA calls with a call frame, and every function of its table: null, or an error, for an address."""


class Header(ctypes.Structure):
    """What every structure begins with."""

    _fields_ = (("struct_size", ctypes.c_size_t), ("extension", ctypes.c_void_p))


class Extension(ctypes.Structure):
    _fields_ = (("struct_size", ctypes.c_size_t), ("type", ctypes.c_int32), ("next", ctypes.c_void_p))


class Metadata(ctypes.Structure):
    """What a target answers when it is registered: the version of the API, no traits, no state."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("version", Header),
        ("major", ctypes.c_int32),
        ("minor", ctypes.c_int32),
        ("traits", ctypes.c_uint32),
        ("state", ctypes.c_int64),
    )


class MetadataExtension(ctypes.Structure):
    _fields_ = (("base", Extension), ("metadata", ctypes.POINTER(Metadata)))


class Span(ctypes.Structure):
    _fields_ = (("text", ctypes.POINTER(ctypes.c_char)), ("size", ctypes.c_size_t))


class Scalar(ctypes.Structure):
    _fields_ = (("dtype", ctypes.c_int32), ("value", ctypes.POINTER(ctypes.c_double)))


class Buffer(ctypes.Structure):
    _fields_ = (
        *Header._fields_,
        ("dtype", ctypes.c_int32),
        ("data", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
        ("sizes", ctypes.POINTER(ctypes.c_int64)),
    )


class Buffers(ctypes.Structure):
    """Arguments or results."""

    _fields_ = (
        *Header._fields_,
        ("count", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("buffers", ctypes.POINTER(ctypes.POINTER(Buffer))),
    )


class Attributes(ctypes.Structure):
    _fields_ = (
        *Header._fields_,
        ("count", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("names", ctypes.POINTER(ctypes.POINTER(Span))),
        ("values", ctypes.POINTER(ctypes.POINTER(Scalar))),
    )


class Api(ctypes.Structure):
    """The table of functions, as far as the two that are asked."""

    _fields_ = (
        *Header._fields_,
        ("version", Header),
        ("major", ctypes.c_int32),
        ("minor", ctypes.c_int32),
        ("internal", ctypes.c_void_p),
        ("error_create", Handler),
        *((name, ctypes.c_void_p) for name in ("error_message", "error_destroy", "handler_register")),
        ("stream_get", Handler),
        *((f"unused_{index}", ctypes.c_void_p) for index in range(12)),
        ("device_ordinal_get", Handler),
    )


class CallFrame(ctypes.Structure):
    _fields_ = (
        *Header._fields_,
        ("api", ctypes.POINTER(Api)),
        ("context", ctypes.c_void_p),
        ("stage", ctypes.c_int32),
        ("arguments", Buffers),
        ("results", Buffers),
        ("attributes", Attributes),
    )


class ErrorRequest(ctypes.Structure):
    _fields_ = (*Header._fields_, ("message", ctypes.c_char_p), ("code", ctypes.c_int32))


class StreamRequest(ctypes.Structure):
    _fields_ = (*Header._fields_, ("context", ctypes.c_void_p), ("stream", ctypes.c_void_p))


class OrdinalRequest(ctypes.Structure):
    _fields_ = (*Header._fields_, ("context", ctypes.c_void_p), ("ordinal", ctypes.c_int32))


class Memory(NamedTuple):
    """A contiguous array: where it is, its shape and its dtype."""

    address: int
    shape: tuple[int, ...]
    dtype: Any

    @property
    def size(self) -> int:
        return math.prod(self.shape) * int(self.dtype.itemsize)


def memories(table: Buffers) -> Iterator[Memory]:
    """The arrays of the arguments or of the results."""
    for index in range(table.count):
        buffer = table.buffers[index].contents
        yield Memory(buffer.data or 0, tuple(buffer.sizes[: buffer.rank]), np.dtype(DTYPES[buffer.dtype]))


def numbers(table: Attributes) -> dict[str, float]:
    """The attributes, which are scalars of float64, by name."""
    spans = [table.names[index].contents for index in range(table.count)]
    return {span.text[: span.size].decode(): table.values[i].contents.value[0] for i, span in enumerate(spans)}


def answers_metadata(frame: CallFrame) -> bool:
    """Whether the call only asks for the version of the API, which is then answered."""
    if not frame.extension or Extension.from_address(frame.extension).type != METADATA_EXTENSION:
        return False
    metadata = MetadataExtension.from_address(frame.extension).metadata.contents
    metadata.major, metadata.minor, metadata.traits, metadata.state = MAJOR, MINOR, 0, 0
    return True


def asked(frame: CallFrame, function: str, request: Any) -> Any:
    """The request, answered by a function of the table; RuntimeError if it gives an error."""
    request.struct_size, request.context = ctypes.sizeof(request), frame.context
    if getattr(frame.api.contents, function)(ctypes.addressof(request)):
        raise RuntimeError(f"XLA does not answer {function}")
    return request


def stream(frame: CallFrame) -> tuple[int, int]:
    """The ordinal of the GPU that the call is on, and the address of its stream; 0 is the default one."""
    if frame.api.contents.struct_size < ctypes.sizeof(Api):
        raise RuntimeError("XLA's table of functions has no device_ordinal_get: this jaxlib is too old")
    ordinal = asked(frame, "device_ordinal_get", OrdinalRequest()).ordinal
    return ordinal, asked(frame, "stream_get", StreamRequest()).stream or 0


def error(frame: CallFrame, message: str) -> int:
    """An error for XLA, which raises it in the caller."""
    request = ErrorRequest(ctypes.sizeof(ErrorRequest), None, message.encode(), INTERNAL)
    return int(frame.api.contents.error_create(ctypes.addressof(request)) or 0)
