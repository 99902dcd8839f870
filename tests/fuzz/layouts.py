"""Arrays of every library, lying in memory in every way that the library has."""

from typing import Any

import numpy as np


def of_numpy(array: np.ndarray, layout: str) -> np.ndarray:
    """An array of these values that lies so."""
    if layout == "F":
        return array.copy(order="F")
    if layout == "reversed":
        everywhere = (slice(None, None, -1),) * array.ndim
        return array[everywhere].copy()[everywhere]
    if layout == "broadcast" and array.ndim and len(array) and same_rows(array):
        return np.broadcast_to(array[:1], array.shape)
    if layout == "misaligned":
        buffer = np.empty(array.nbytes + 1, np.uint8)[1:]
        view = buffer.view(array.dtype).reshape(array.shape)
        view[...] = array
        return view
    if layout == "strided" and array.ndim:
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if layout == "inner" and array.ndim:
        outer = np.zeros([size + 2 for size in array.shape], array.dtype)
        inner = outer[(slice(1, -1),) * array.ndim]
        inner[...] = array
        return inner
    copy = array.copy()
    copy.flags.writeable = layout != "read-only"
    return copy


def same_rows(array: np.ndarray) -> bool:
    """Whether all along the first axis are the same, so that the array may be a broadcast one."""
    return array[:1].tobytes() * len(array) == array.tobytes()


def of_torch(tensor: Any, layout: str) -> Any:
    """The same for a tensor; what torch does not have is left in C order."""
    if layout == "F":
        axes = tuple(reversed(range(tensor.ndim)))
        return tensor.permute(axes).contiguous().permute(axes)
    if layout == "broadcast" and tensor.ndim and len(tensor):
        rows = tensor[:1].expand(tensor.shape)
        return rows if bool(((rows == tensor) | ((rows != rows) & (tensor != tensor))).all()) else tensor
    if layout == "strided" and tensor.ndim:
        return tensor.repeat_interleave(2, dim=-1)[..., ::2]
    if layout == "inner" and tensor.ndim:
        outer = tensor.new_zeros([size + 2 for size in tensor.shape])
        inner = outer[(slice(1, -1),) * tensor.ndim]
        inner[...] = tensor
        return inner
    return tensor


def of_standard(xp: Any, array: Any, layout: str) -> Any:
    """The same for an array of the array API standard."""
    if layout == "F":
        axes = tuple(reversed(range(array.ndim)))
        flat = xp.permute_dims(array, axes)
        return xp.permute_dims(xp.asarray(flat, copy=True), axes)
    if layout in ("reversed", "strided") and array.ndim:
        return xp.flip(xp.flip(array, axis=-1), axis=-1)
    return array
