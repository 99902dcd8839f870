"""The rows of an array of any number of dimensions, in C order, with the classes last.

Nothing is copied but what a task reads: a task takes a rectangle of the array, or a few that follow each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from xent.evaluation.sources.hidden_states import LinearSource
from xent.evaluation.sources.in_memory import ArraySource, DaskSource, is_on_a_gpu
from xent.evaluation.sources.messages import MalformedError, refusal
from xent.evaluation.sources.shards import ShardedSource, joined
from xent.evaluation.sources.source import MOST_CHUNKS, MOST_ROWS, Part, Source, nearest_multiple
from xent.evaluation.sources.topk import TopKSource

Index = tuple[int | slice, ...]


def flat(source: Source, axis: int | None) -> Source:
    """The source as rows, (rows, classes) with the classes along `axis`, (rows,) for None; itself if it is that.

    Raises
    ------
    ValueError
        If the classes are in several files.
    """
    if len(source.shape) == (1 if axis is None else 2) and axis in (None, 1):
        return source
    if isinstance(source, ShardedSource):
        if axis == 0:
            rule, remedy = "have every class of a row in one file", "Save them with the classes along another axis."
            raise ValueError(refusal("axis", rule, f"0 of {source}", remedy))
        return joined(source.path, [flat(shard, axis) for shard in source.shards])
    if isinstance(source, TopKSource):
        ids, values = (flat(each, len(each.shape) - 1) for each in (source.ids, source.values))
        return replace(source, shape=(values.shape[0], source.shape[-1]), ids=ids, values=values)
    if isinstance(source, LinearSource):
        hidden = flat(source.hidden, axis)
        return replace(source, shape=(hidden.shape[0], source.classifier.shape[0]), hidden=hidden)
    dims = row_sizes(source.shape, axis)
    shape = (math.prod(dims),) if axis is None else (math.prod(dims), source.shape[axis])
    if isinstance(source, DaskSource):
        order = [*(i for i in range(len(source.shape)) if i != axis), *(() if axis is None else (axis,))]
        array = source.array.transpose(order).reshape(shape, merge_chunks=False)
        return DaskSource(None, shape, source.dtype, array)
    return FlatSource(source.path, shape, source.dtype, source, axis)


def row_sizes(shape: Sequence[int], axis: int | None) -> tuple[int, ...]:
    """The sizes of the axes that are not that of the classes."""
    return tuple(size for number, size in enumerate(shape) if number != axis)


@dataclass(frozen=True, eq=False)
class FlatSource(Source):
    """The rows of ``source``, whose classes are along ``axis``; without classes for None."""

    source: Source
    axis: int | None

    @property
    def shown_shape(self) -> tuple[int, ...]:
        return self.source.shown_shape

    @property
    def dims(self) -> tuple[int, ...]:
        """The sizes of the axes of rows, which is the shape of the labels."""
        return row_sizes(self.source.shape, self.axis)

    def axis_of(self, level: int) -> int:
        """The axis of the array that is the axis `level` of the rows."""
        return level + (self.axis is not None and level >= self.axis)

    def bounds(self, chunk_bytes: int) -> list[int]:
        dims, rows = self.dims, self.shape[0]
        most = max(1, min(chunk_bytes // max(1, self.row_bytes), MOST_ROWS))
        inner = math.prod(dims[1:])
        if not rows or (self.axis != 0 and inner <= most):
            step = max(1, most // max(1, inner)) * max(1, self.source.row_bytes)
            return [bound * inner for bound in self.source.bounds(min(chunk_bytes, step))]
        level = 0  # the first axis of which one index is not too much
        while inner > most:
            level, inner = level + 1, inner // dims[level + 1]
        piece = self.source.piece(self.axis_of(level))
        starts = range(0, dims[level] * inner, max(1, most // inner // piece) * piece * inner)
        outer = range(0, rows, dims[level] * inner)
        if len(starts) * len(outer) > MOST_CHUNKS:
            message = f"{self} would be read in more chunks than the {MOST_CHUNKS:,} of a run"
            raise MalformedError(f"evaluate: {message}. Ask for larger chunks, or cut it into several sets.")
        return [*(first + start for first in outer for start in starts), rows]

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        if not isinstance(self.source, ArraySource):
            return super().parts(bounds)
        classes = self.shape[1:]
        return {}, [FlatPart(tuple(self.views(start, stop)), classes) for start, stop in pairwise(bounds)]

    def views(self, start: int, stop: int) -> Iterator[Any]:
        """The rectangles in which these rows are, with the classes last."""
        for index in rectangles(self.dims, start, stop):
            block = self.source.take(self.with_classes(index))
            if self.axis is not None:
                taken = sum(isinstance(each, int) for each in index[: self.axis])
                xp = array_namespace(block) if is_on_a_gpu(block) else np
                block = xp.moveaxis(block, self.axis - taken, -1)
            yield block

    def with_classes(self, index: Index) -> Index:
        """The index of some rows, with every class."""
        if self.axis is None or len(index) <= self.axis:
            return index
        return (*index[: self.axis], slice(None), *index[self.axis :])

    def for_tasks(self) -> Source:
        return replace(self, source=self.source.for_tasks())

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return np.ascontiguousarray(rows_of(tuple(self.views(start, stop)), self.shape[1:]))

    def read_with_nulls(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        if not self.source.has_nulls:
            return self.read(start, stop), None
        inner = math.prod(self.dims[1:])
        first, last = start // inner, -(-stop // inner)
        block, is_null = self.source.read_with_nulls(first, last)
        if self.axis is not None:
            block = np.moveaxis(block, self.axis, -1)
        wanted = slice(start - first * inner, stop - first * inner)
        rows = np.ascontiguousarray(block.reshape(-1, *self.shape[1:])[wanted])
        return rows, None if is_null is None else np.repeat(is_null, inner)[wanted]

    def edge(self, start: int, stop: int) -> int | None:
        dims = self.dims
        inner = math.prod(dims[1:])
        if self.axis != 0:
            edge = self.source.edge(start // inner, -(-stop // inner))
            if edge is not None and start < edge * inner < stop:
                return edge * inner
        if len(dims) < 2 or not 1 < (piece := self.source.piece(self.axis_of(1))) < dims[1]:
            return None
        if (edge := nearest_multiple(inner, start, stop)) is not None:
            return edge
        first = start // inner * inner
        edge = nearest_multiple(piece * math.prod(dims[2:]), start - first, stop - first)
        return None if edge is None else first + edge

    def files(self) -> list[str]:
        return self.source.files()

    def fingerprint(self) -> Any:
        return self.source.fingerprint()

    def check_complete(self, *, zeros_ok: bool = False) -> int:
        return self.source.check_complete(zeros_ok=zeros_ok)


@dataclass(frozen=True)
class FlatPart(Part):
    """The rows of a chunk of an array in memory, in views with the classes last."""

    views: tuple[Any, ...]
    classes: tuple[int, ...]

    def read(self, start: int, stop: int) -> Any:
        return rows_of(self.views, self.classes)[start:stop]

    def edge(self, start: int, stop: int) -> int | None:
        return None


def rows_of(views: tuple[Any, ...], classes: tuple[int, ...]) -> Any:
    """The rows of some blocks, one after the other; a single one is not copied if it is contiguous."""
    if len(views) == 1:
        return views[0].reshape(-1, *classes)
    xp = array_namespace(views[0]) if is_on_a_gpu(views[0]) else np
    return xp.concat([view.reshape(-1, *classes) for view in views], axis=0)


def rectangles(dims: Sequence[int], start: int, stop: int) -> Iterator[Index]:
    """The rows from start to stop of an array of these sizes, in C order, as rectangles that follow each other.

    Examples
    --------
    >>> [*rectangles((3, 4), 2, 10)]
    [(0, slice(2, 4, None)), (slice(1, 2, None),), (2, slice(0, 2, None))]
    """
    inner = math.prod(dims[1:])
    if inner == 1 or not inner:
        yield (slice(start, stop) if inner else slice(0, dims[0]),)
        return
    if start == stop:
        yield (slice(0, 0),)
        return
    first, last = -(-start // inner), stop // inner  # the indices that are wanted whole
    if first > last:
        yield from ((last, *rest) for rest in rectangles(dims[1:], start - last * inner, stop - last * inner))
        return
    if start < first * inner:
        yield from ((first - 1, *rest) for rest in rectangles(dims[1:], start - (first - 1) * inner, inner))
    if first < last:
        yield (slice(first, last),)
    if last * inner < stop:
        yield from ((last, *rest) for rest in rectangles(dims[1:], 0, stop - last * inner))
