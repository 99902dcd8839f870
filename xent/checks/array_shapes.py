"""Preconditions of shapes: that arrays fit, and that the sizes of lazy and symbolic ones are known."""

from __future__ import annotations

from typing import Any

from ..arrays import Array
from .plain_values import show


def expect(
    function: str, name: str, value: Any, shape: tuple[Any, ...], reason: str, whole: tuple[Any, ...] = ()
) -> None:
    """The value has the shape; a Dask dimension of unknown size (NaN) fits any. Says how to mend what is common.

    ``whole`` is the shape of the predictions where the value is of their rows.
    """
    got = tuple(value.shape)
    if len(got) == len(shape) and all(a == b or a != a or b != b for a, b in zip(got, shape, strict=True)):
        return
    remedy = f"Pass {name} of shape {shape}."
    if got == (*shape, 1):
        remedy = f"Pass {name}[{', '.join([':'] * len(shape) + ['0'])}]." if shape else f"Pass {name}[0]."
    elif got and got == tuple(whole):
        remedy = "For targets of the predictions' shape call cross_entropy"
        remedy += ", for yes-or-no targets binary_cross_entropy." if len(got) == 1 else "."
    elif name == "labels" and got in (
        others := {shape_of_rows(tuple(whole), axis): axis for axis in range(len(whole))}
    ):
        remedy = f"Pass axis={others[got]}, if that is the axis of the classes."
    elif got == (1, *shape):
        remedy = f"Pass {name}[0]."
    elif name == "labels" and len(got) == len(shape) + 1:
        remedy = "For targets of the predictions' shape call cross_entropy."
    elif name == "targets" and len(got) == len(shape) - 1 and function == "cross_entropy":
        remedy = "For labels call sparse_cross_entropy."
    raise ValueError(f"{function}: `{name}` must have shape {shape} ({reason}), got {got}. {remedy}")


def shape_of_rows(shape: tuple[Any, ...], axis: int) -> tuple[Any, ...]:
    """The shape of one number for each row: the predictions' without the class axis."""
    return shape[:axis] if axis + 1 == len(shape) else shape[:axis] + shape[axis + 1 :]


def shapes(problem: Any, predictions: Array, targets: Array | None) -> None:
    """Predictions and targets fit, on every call: no kernel ever sees arrays that do not."""
    shape, axis, op = predictions.shape, problem.axis, problem.op
    if op == "sparse":
        rows = shape_of_rows(shape, axis)
        if targets is not None and targets.shape != rows:
            reason = f"predictions {tuple(shape)} without axis {axis}"
            expect(problem.function, "labels", targets, tuple(rows), reason, tuple(shape))
    elif problem.tail:
        assert targets is not None
        few_rows(problem.function, tuple(targets.shape[:-1]), tuple(shape_of_rows(shape, axis)))
    elif targets is not None and targets.shape != shape:
        expect(problem.function, "targets", targets, tuple(shape), "that of the predictions")
    if op != "binary" and shape[axis] == 0:
        raise ValueError(
            f"{problem.function}: `predictions` must have at least one class, got shape {tuple(shape)}. Pass C ≥ 1."
        )


def few_rows(function: str, got: tuple[Any, ...], rows: tuple[Any, ...]) -> None:
    """Soft targets of a few classes are of the rows of the predictions; a size that is not known (NaN) fits any."""
    if len(got) != len(rows) or any(a != b and a == a and b == b for a, b in zip(got, rows, strict=True)):
        raise ValueError(
            f"{function}: `targets` must be of the rows of the predictions, {rows}, got {got}. "
            "Make the SparseTargets of ids, weights and a tail of these rows."
        )


def weight_shapes(problem: Any, predictions: Array, weights: Any) -> None:
    """The weights fit the rows or the classes, on every call that has any."""
    shape, axis, (sample, classes, positive) = predictions.shape, problem.axis, weights[:3]
    if sample is not None:
        is_binary = problem.op == "binary"
        rows, reason = (
            (shape, "that of the predictions") if is_binary else (shape_of_rows(shape, axis), "one for each row")
        )
        if sample.shape != rows:
            expect(problem.function, "sample_weight", sample, tuple(rows), reason)
    if classes is not None and hasattr(classes, "shape"):
        if classes.shape != shape[axis : axis + 1]:
            expect(problem.function, "class_weight", classes, (shape[axis],), "one for each class")
    elif classes is not None and len(classes) != shape[axis]:
        raise ValueError(
            f"{problem.function}: `class_weight` must have {shape[axis]} numbers (one for each class), "
            f"got {len(classes)}. Pass one for each class."
        )
    if positive is not None and getattr(positive, "shape", ()) not in ((), shape[-1:]):
        raise ValueError(
            f"{problem.function}: `pos_weight` must be a number or have shape {tuple(shape[-1:])}, "
            f"got {tuple(positive.shape)}. Pass one for each output."
        )


def known_classes(function: str, predictions: Array, axis: int) -> None:
    """The number of classes is known; the number of rows need not be."""
    if predictions.shape[axis] != predictions.shape[axis]:
        raise ValueError(
            f"{function}: `predictions` must have a known number of classes, got shape {tuple(predictions.shape)}. "
            "Call predictions.compute_chunk_sizes() first."
        )


def known_rows(function: str, name: str, value: Array) -> None:
    """The number of rows of an operand is known."""
    if value.shape[0] != value.shape[0]:
        raise ValueError(
            f"{function}: `{name}` must have a known number of rows, got shape {tuple(value.shape)}. "
            f"Call {name}.compute_chunk_sizes() first."
        )


def fixed_classes(function: str, predictions: Array, axis: int) -> None:
    """The number of classes is a number, and not a symbol of ``jax.export``; those of the rows may be symbols."""
    if not isinstance(predictions.shape[axis], int):
        shape = ", ".join(map(str, predictions.shape))
        raise ValueError(
            f"{function}: `predictions` must have a fixed number of classes, got shape ({shape}). "
            "Write the classes of the symbolic shape as a number; the rows may be symbols."
        )


def known_chunks(problem: Any) -> None:
    """The chunks of a lazy array are arrays."""
    if not problem.views:
        raise TypeError(
            f"{problem.function}: `predictions` must have chunks of an array library, got {problem.array} of others. "
            "Convert each chunk, to a NumPy array for instance."
        )


def same_chunks(function: str, name: str, got: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    """Two arrays of which one has unknown rows are cut into as many chunks; their lengths are checked in each task."""
    if len(got) == len(expected):
        return
    raise ValueError(
        f"{function}: `{name}` must have {len(expected)} chunks, as the predictions have where the number of rows is "
        f"not known, got {len(got)}. Pass a Dask array cut like the predictions, "
        "or call compute_chunk_sizes() of both first."
    )


def chunk(function: str, name: str, value: Array, shape: tuple[int, ...], index: tuple[int, ...]) -> None:
    """One chunk has the shape that the predictions' chunk asks for; only where sizes are unknown may it not."""
    if tuple(value.shape) != tuple(shape):
        raise ValueError(
            f"{function}: `{name}` must have shape {tuple(shape)} in chunk {show(index)}, as the predictions there, "
            f"got {tuple(value.shape)}. Cut both into the same rows."
        )
