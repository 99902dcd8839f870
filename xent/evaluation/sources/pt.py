"""Tensors that ``torch.save`` wrote, alone or in dicts and lists, in .pt and .pth files.

torch itself opens the file, maps it, and makes nothing of it but tensors and plain containers (``weights_only``); a
file that holds anything else is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xent.evaluation.sources.in_memory import to_numpy
from xent.evaluation.sources.messages import MalformedError, ReadError, reader_error, reading, refusal, select_array
from xent.evaluation.sources.npy import named_dtype
from xent.evaluation.sources.source import FileSource
from xent.evaluation.sources.storage import Stamp, check_unchanged, is_url, open_file, status
from xent.optional import require

ZIP_MAGIC = b"PK\x03\x04"
SAVE = "torch.save({'logits': logits, 'labels': labels}, path)"
DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "bool"),
    *("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64"),
)
MOST_DEPTH = 16


@dataclass(frozen=True, eq=False)
class TorchSource(FileSource):
    """A tensor of a file that torch maps."""

    name: str

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """A copy of the rows."""
        check_unchanged(self.file, self.stamp)
        with reading(self.path, start, stop):
            rows = to_numpy(saved_tensors(self.file, self.stamp)[self.name][start:stop])
            return np.array(rows, self.dtype, order="C")


def open_torch(path: str, name: str, argument: str) -> TorchSource:
    """A tensor of a .pt file, of which nothing but the pickle of its shapes has been read."""
    torch = require("torch", "torch", "a .pt file")
    if is_url(path):
        remedy = "Download it, or save it as safetensors."
        raise ValueError(refusal(argument, "lie on a local disk where it is a .pt file", path, remedy))
    stamp = status(path).stamp
    with open_file(path) as file:
        if file.read(4) != ZIP_MAGIC:
            rule, remedy = "be written by torch 1.6 or later", "Write it again: torch.save(torch.load(path), path)."
            raise MalformedError(refusal(argument, rule, f"{path}, which is no zip archive", remedy))
    try:
        tensors = saved_tensors(path, stamp)
    except Exception as error:  # torch raises whatever its parts do
        if "weights_only" in str(error) or "Unsupported" in str(error):
            rule, got = "hold nothing but tensors", f"{path}, which would run code where it is opened"
            raise TypeError(refusal(argument, rule, got, f"Save its tensors alone: {SAVE}.")) from error
        raise reader_error(path, argument, first_line(error), known=True, what="a .pt file") from error
    key = select_array(tensors, name, path, argument)
    shown, tensor = f"{path}#{key}" if key else path, tensors[key]
    code = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout != torch.strided or code not in DTYPES:
        what = f"a {str(tensor.layout).removeprefix('torch.')} tensor of {code} in {shown}"
        rule, remedy = "be a dense tensor of a dtype that NumPy has", "Save its to_dense() and to(torch.float32)."
        raise TypeError(refusal(argument, rule, what, remedy))
    dtype = named_dtype(code)
    return TorchSource(shown, tuple(tensor.shape), dtype, path, stamp, key)


@lru_cache(maxsize=8)
def saved_tensors(path: str, stamp: Stamp) -> dict[str, Any]:
    """The tensors of the file as it was at `stamp`, mapped, by their names; the name of a tensor alone is empty."""
    torch = require("torch", "torch", "a .pt file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how the file was written
        held = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    return dict(named(held, torch.Tensor))


def named(held: Any, kind: type, name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The tensors in dicts and lists, each with the keys that lead to it, joined by slashes."""
    if isinstance(held, kind):
        yield name, held.detach()  # type: ignore[attr-defined]  # it is a tensor
    if depth > MOST_DEPTH:
        raise ReadError("its tensors are nested too deeply")
    items = held.items() if isinstance(held, Mapping) else enumerate(held) if isinstance(held, list | tuple) else ()
    for key, value in items:
        yield from named(value, kind, f"{name}/{key}" if name else str(key), depth + 1)


def first_line(error: Exception) -> Exception:
    """An error of the first line that torch says, which tells what it does not like; it says much more."""
    return ValueError(str(error).partition("\n")[0].rstrip("."))
