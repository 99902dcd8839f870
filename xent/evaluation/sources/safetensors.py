"""safetensors files: a header of names, dtypes and offsets, then the arrays, which are mapped or read by ranges.

Every length and offset is checked against the file's size before it is used.
"""

from __future__ import annotations

import json
import math
from typing import Any

from xent.evaluation.sources.messages import MalformedError, refusal, select_array
from xent.evaluation.sources.npy import MappedSource, check_size, named_dtype
from xent.evaluation.sources.storage import open_file, status

HEADER_BYTES = 100_000_000  # the limit of safetensors itself
SAFE_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "bfloat16",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
}


def open_safetensors(path: str, name: str, argument: str) -> MappedSource:
    """One tensor of a safetensors file, of which the header has been read."""
    stamp = status(path).stamp
    tensors, data = safetensors_header(path, stamp[0], argument)
    name = select_array(tensors, name, path, argument)
    try:
        entry = tensors[name]
        shape, (start, stop) = entry["shape"], entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, start, stop)):
            raise ValueError("a size or an offset that is no natural number")
        code = str(entry["dtype"])
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedError(malformed(path, argument, f"{name} has {type(error).__name__}: {error}")) from error
    if code not in SAFE_DTYPES:
        rule, remedy = f"be one of {', '.join(SAFE_DTYPES)}", "Save it as one of them."
        raise TypeError(refusal(argument, rule, f"{code} in {path}#{name}", remedy))
    dtype = named_dtype(SAFE_DTYPES[code])
    if stop - start != math.prod(shape) * dtype.itemsize:
        raise MalformedError(malformed(path, argument, f"{name} has {stop - start} bytes for {code}{shape}"))
    check_size(path, data + max(stop, last_byte(tensors)), stamp[0])
    return MappedSource(f"{path}#{name}", tuple(shape), dtype, path, stamp, data + start, "C")


def safetensors_header(path: str, size: int, argument: str) -> tuple[dict[str, Any], int]:
    """The header's entry of each tensor, and the offset in the file at which its own offsets begin."""
    with open_file(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > HEADER_BYTES:
            raise MalformedError(malformed(path, argument, f"a header of {length} bytes in a file of {size}"))
        check_size(path, 8 + length, size)
        text = file.read(length)
    try:
        header = json.loads(text.decode(), object_pairs_hook=without_repeats)
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
    except (ValueError, RecursionError) as error:
        raise MalformedError(malformed(path, argument, error)) from error
    header.pop("__metadata__", None)
    return header, 8 + length


def last_byte(tensors: dict[str, Any]) -> int:
    """The offset at which the last tensor ends; entries that are malformed are passed over."""
    ends = [entry.get("data_offsets") for entry in tensors.values() if isinstance(entry, dict)]
    return max((end[-1] for end in ends if isinstance(end, list) and end and type(end[-1]) is int), default=0)


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs as a dict; ValueError if a key is there twice, which readers resolve differently."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name comes twice")
    return dict(pairs)


def malformed(path: str, argument: str, error: object) -> str:
    """The message of a safetensors file with a malformed header."""
    return refusal(argument, "be a safetensors file where its name says so", f"{path} ({error})", "Write it again.")
