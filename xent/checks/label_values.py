"""The values of labels, where they can be read: LabelError, and where the first bad one is."""

from __future__ import annotations

from .. import arrays, errors
from ..arrays import Array
from .plain_values import show


def labels(function: str, bad: Array, labels: Array, classes: int, name: str = "labels") -> None:
    """Raises LabelError where ``bad`` (the labels' shape, on the host) has a true element.

    ``name`` is "labels", or "ids" of soft targets of a few classes.
    """
    xp = arrays.namespace(bad)
    hits = xp.astype(xp.reshape(bad, (-1,)), xp.int32)
    count = int(xp.sum(hits))
    if count == 0:
        return
    flat = int(xp.argmax(hits))
    value = int(xp.reshape(labels, (-1,))[flat])
    position = unravel(flat, tuple(bad.shape))
    where = f"outside; the first, at position {show(position)}, is {value}"
    raise label_error(function, classes, where, (count, position, value), name)


def label_error(
    function: str, classes: int, where: str, first: tuple[int, tuple[int, ...], int | str | None], name: str = "labels"
) -> errors.LabelError:
    """The error for labels out of range; ``first`` is their count, the position of the first one and its value."""
    if name == "ids":
        return errors.LabelError(
            f"{function}: `targets.ids` must lie in [0, {classes}) where their weight is not 0, got {first[0]} "
            f"{where}. Mend them, or give them weight 0.",
            *first,
        )
    return errors.LabelError(
        f"{function}: `labels` must lie in [0, {classes}), got {first[0]} {where}. "
        + ("For one number a row, and labels 0 and 1, call binary_cross_entropy. " if classes == 1 else "")
        + "Mend them, name them in ignore_index, or give them sample_weight 0.",
        *first,
    )


def labels_of_chunk(
    function: str,
    error: errors.LabelError,
    classes: int,
    chunk: tuple[int, ...],
    first: tuple[float, ...],
    name: str = "labels",
) -> errors.LabelError:
    """The error of one chunk with the position in the whole array; in the chunk if ``first`` is not known (NaN)."""
    count, position, value = error.count, error.position, error.value
    first = (*first, 0) if name == "ids" else first
    if any(start != start for start in first):
        place = f"row {show(position)} of chunk {show(chunk)}"
    else:
        position = tuple(index + int(start) for index, start in zip(position, first, strict=True))
        place = f"position {show(position)}"
    where = f"outside in one chunk; the first, at {place}, is {value}"
    return label_error(function, classes, where, (count, position, value), name)


def unravel(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The index of the flat position in an array of the shape, C order."""
    index: list[int] = []
    for size in reversed(shape):
        flat, last = divmod(flat, size)
        index.insert(0, last)
    return tuple(index)
