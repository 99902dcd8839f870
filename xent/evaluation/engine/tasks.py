"""What a task does: it reads the rows of its chunk and returns their state.

A chunk that cannot be read is an error that names the file and the rows. With ``on_error="skip"`` it is cut at the
edges of what is stored instead, so that the same rows are lost for any chunking.
"""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

import xent
from xent.checks import Kind
from xent.dispatch.settings import current
from xent.evaluation.engine.byte_counts import row_bytes
from xent.evaluation.engine.checkpoint import Store
from xent.evaluation.engine.class_values import predicted_classes, probabilities_of, scores_of
from xent.evaluation.engine.kinds import counter_of_probabilities
from xent.evaluation.engine.labels import ignored_and_bad, outside_top_k
from xent.evaluation.engine.row_losses import digest_of_losses, write_losses
from xent.evaluation.engine.soft_labels import Targets, of_targets, targets_of
from xent.evaluation.engine.weights import row_weights
from xent.evaluation.options import Options
from xent.evaluation.sources.hidden_states import LinearRows
from xent.evaluation.sources.in_memory import DaskSource, StatisticsSource, is_on_a_gpu, to_numpy
from xent.evaluation.sources.messages import ReadError
from xent.evaluation.sources.source import Source, read_rows, read_rows_and_nulls
from xent.evaluation.sources.topk import TopKRows
from xent.evaluation.statistics.blocks import state_of
from xent.evaluation.statistics.classwise import classwise_of
from xent.evaluation.statistics.score_counts import score_counts
from xent.evaluation.statistics.state import State, Tally, merge, merge_all

SCALED_ELEMENTS = 2**20


def kernel_preferences() -> dict[str, Any]:
    """The options on kernels of ``xent.using`` and of the environment, to be set again in the process of a task."""
    settings = current().settings
    return {"prefer": settings.prefer or None, "disable": settings.disable or None, "kernel": settings.kernel}


@dataclass(frozen=True)
class Job:
    """The part of a pass that all its tasks share.

    Attributes
    ----------
    measure : callable
        ``measure(job, first_row, *arrays)`` is the state of some rows, the first being row `first_row` of the set.
    skip : callable
        ``skip(first_row, rows)`` is the state of rows that could not be read.
    options : Options
    rows, classes : int
        Of the whole set.
    ignored : tuple of int
        The labels of rows to leave out.
    inverse_temperature : float
        Logits are multiplied by it.
    store : Store or None
        The store of finished states.
    losses : str or None
        The scratch file into which the loss of each row is written.
    most_apart : int
        How many clusters may be kept whose rows lie apart; 0 until it is known that some do.
    preferences : mapping
        The :func:`kernel_preferences` of the process that planned the pass.
    threads : int or None
        How many a kernel may use; None is as many as outside of a task.
    """

    measure: Callable[..., Any]
    skip: Callable[[int, int], Any]
    options: Options
    rows: int
    classes: int
    ignored: tuple[int, ...] = ()
    inverse_temperature: float = 1.0
    store: Store | None = None
    losses: str | None = None
    threads: int | None = 1
    most_apart: int = 0
    preferences: Mapping[str, Any] = field(default_factory=kernel_preferences)


def run_chunks(job: Job, bounds: Sequence[int], *parts: Any, tell: Callable[[int], None] | None = None) -> Any:
    """The merged state of chunks that begin at `bounds`; each part is of all their rows, or None.

    ``tell`` is called with the rows of each chunk when it is done.
    """
    state = None
    for start, stop in pairwise(bounds):
        state = merge(state, run_chunk(job, bounds[0], start, stop, parts))
        if tell is not None:
            tell(stop - start)
    return state


def run_chunk(job: Job, first_row: int, start: int, stop: int, parts: tuple[Any, ...]) -> Any:
    """The state of rows start to stop, loaded from the store or saved there; the parts begin at `first_row`."""
    if job.store is None:
        return measure_rows(job, first_row, start - first_row, stop - first_row, parts)
    losses = digest_of_losses(job.losses, start, stop) if job.losses else None
    state = job.store.load(start, stop, type(job.skip(start, 0)), losses)
    if state is None:
        state = measure_rows(job, first_row, start - first_row, stop - first_row, parts)
        if not state.unreadable.count:  # the next run is to try again
            losses = digest_of_losses(job.losses, start, stop) if job.losses else None
            job.store.save(start, stop, state, losses)
    return state


def measure_rows(job: Job, first_row: int, start: int, stop: int, parts: tuple[Any, ...]) -> Any:
    """The state of rows start to stop of parts that begin at `first_row` of the set."""
    blocks, unread = [], None
    for part in parts:
        try:
            if job.options.on_error != "skip":
                blocks.append(read_rows(part, start, stop))
                continue
            block, is_null = read_rows_and_nulls(part, start, stop)
            blocks.append(block)
            if is_null is not None:
                unread = is_null if unread is None else unread | is_null
        except ReadError:
            if job.options.on_error != "skip":
                raise
            middle = part.edge(start, stop)
            if middle is not None:
                first_half = measure_rows(job, first_row, start, middle, parts)
                return merge(first_half, measure_rows(job, first_row, middle, stop, parts))
            if job.losses:
                write_losses(job.losses, first_row + start, np.nan, stop - start)
            return job.skip(first_row + start, stop - start)
    return job.measure(job, first_row + start, *blocks, unread=unread)


def chunk_state(
    job: Job,
    first_row: int,
    predictions: Any,
    labels: Any,
    slices: Any = None,
    clusters: Any = None,
    weights: Any = None,
    mask: Any = None,
    predicted_bytes: Any = None,
    *,
    unread: NDArray[np.bool_] | None = None,
) -> State:
    """The state of some rows: predictions (rows, C), or their statistics, and labels (rows,).

    `unread` marks the rows that could not be read, whose numbers are any.
    """
    targets = targets_of(labels)
    given, labels = labels, to_numpy(labels) if targets is None else targets.labels
    unread, ignored, bad = rows_left_out(job, labels, unread, mask)
    weights, bad_weight = row_weights(weights, unread, ignored, bad)
    if job.inverse_temperature != 1:
        unscaled = replace(job, options=replace(job.options, kind="logits"), inverse_temperature=1.0)
        width = predictions.hidden.shape[1] if isinstance(predictions, LinearRows) else job.classes
        step = max(1, SCALED_ELEMENTS // max(1, width))
        blocks = [slice(start, start + step) for start in range(0, len(labels), step)]
        state: State = merge_all(
            chunk_state(
                unscaled,
                first_row + rows.start,
                scaled_logits(job, predictions[rows]),
                given[rows],
                weights=None if weights is None else weights[rows],
                mask=~ignored[rows],
                unread=unread[rows],
            )
            for rows in blocks
        )
        return state
    outside = outside_top_k(predictions, labels) & ~(unread | ignored | bad)
    statistics = statistics_of(job, predictions, labels, unread | ignored)
    if targets is not None:
        statistics = with_targets(job, statistics, predictions, targets)
    if job.losses:
        flawed = unread | ignored | bad | outside | (False if bad_weight is None else bad_weight)
        losses = np.where(flawed, np.nan, statistics.loss)
        write_losses(job.losses, first_row, losses, len(labels))
    classwise = None
    if job.options.classwise:
        probabilities = probabilities_of(job.options.kind, predictions, statistics.lse)
        counted = ~(unread | ignored | bad | (False if bad_weight is None else bad_weight))
        classwise = classwise_of(probabilities, labels, counted, job.classes, job.options.bins, weights)
    counts = None
    if job.options.auc:
        scores = scores_of(job.options.kind, predictions, statistics.lse)
        counted = ~(unread | ignored | bad | (False if bad_weight is None else bad_weight))
        counts = score_counts(scores, labels, counted, job.classes, weights)
    return state_of(
        statistics,
        labels,
        job.options,
        first_row=first_row,
        all_rows=job.rows,
        ignored=ignored,
        bad=bad,
        outside_top_k=outside,
        unread=unread,
        slices=to_numpy(slices),
        clusters=to_numpy(clusters),
        classwise=classwise,
        like_probabilities=counter_of_probabilities(job.options, predictions, statistics),
        predicted=predicted_classes(predictions),
        weights=weights,
        bad_weight=bad_weight,
        target_entropy=None if targets is None else targets.entropy,
        score_counts=counts,
        most_apart=job.most_apart,
        predicted_bytes=row_bytes(predicted_bytes, first_row, unread | ignored),
    )


def rows_left_out(
    job: Job, labels: NDArray[Any], unread: NDArray[np.bool_] | None, mask: Any = None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """The rows that could not be read, those that are ignored, and those of a bad label; no row is two of them.

    A row where the mask is false or 0 is ignored, whatever its label is.
    """
    ignored, bad = ignored_and_bad(job.ignored, job.classes, labels)
    if mask is not None:
        ignored |= to_numpy(mask) == 0
        bad &= ~ignored
    if unread is None:
        return np.zeros(labels.shape, bool), ignored, bad
    return unread, ignored & ~unread, bad & ~unread


def scaled_logits(job: Job, predictions: Any) -> Any:
    """The logits of a block, multiplied by the inverse temperature."""
    if isinstance(predictions, LinearRows):
        return replace(predictions, inverse_temperature=job.inverse_temperature)
    logits: NDArray[Any] = to_numpy(predictions).astype(np.result_type(predictions.dtype, np.float32), copy=False)
    if job.options.kind == "probabilities":
        with np.errstate(divide="ignore"):
            logits = np.log(logits)
    logits = logits * logits.dtype.type(job.inverse_temperature)
    return logits


def unreadable_state(first_row: int, rows: int) -> State:
    """The state of rows that could not be read."""
    return State(rows=rows, unreadable=Tally(rows, first_row) if rows else Tally())


def statistics_of(job: Job, predictions: Any, labels: NDArray[Any], left_out: NDArray[np.bool_]) -> xent.RowStatistics:
    """The statistics of some rows, as NumPy arrays; of those that are left out they mean nothing."""
    if isinstance(predictions, TopKRows):
        predictions.check(left_out)
        return predictions.statistics(labels)
    if isinstance(predictions, LinearRows):
        predictions = predictions.linear
    if not isinstance(predictions, xent.RowStatistics):
        if is_on_a_gpu(predictions):
            labels = array_namespace(predictions).asarray(labels, device=predictions.device)
        with xent.using(**job.preferences, threads=job.threads, validate="never"):
            ignored = job.ignored or None
            predictions = xent.row_statistics(predictions, labels, kind=job.options.kind, ignore_index=ignored)
    return xent.RowStatistics(*map(to_numpy, predictions))


def with_targets(job: Job, statistics: xent.RowStatistics, predictions: Any, targets: Targets) -> xent.RowStatistics:
    """The statistics of rows whose labels are distributions, of those with the labels of the targets."""
    probabilities = probabilities_of(job.options.kind, predictions, statistics.lse)
    with xent.using(**job.preferences, threads=job.threads):
        whole = predictions.linear if isinstance(predictions, LinearRows) else to_numpy(predictions)
        return of_targets(statistics, whole, targets, job.options.kind, probabilities)


def cut_statistics(
    predictions: Source, labels: Source, bounds: list[int], kind: Kind, ignored: tuple[int, ...]
) -> Source:
    """The statistics of predictions whose classes lie in several chunks; other predictions as they are."""
    if not isinstance(predictions, DaskSource) or predictions.has_whole_rows or len(bounds) < 2:
        return predictions
    dask_array = importlib.import_module("dask.array")
    graph, parts = labels.parts(bounds)
    name, sizes = f"xent-labels-{uuid.uuid4().hex}", [stop - start for start, stop in pairwise(bounds)]
    graph |= {(name, i): (read_rows, part, 0, size) for i, (part, size) in enumerate(zip(parts, sizes, strict=True))}
    lazy = dask_array.Array(graph, name, (tuple(sizes),), labels.dtype.newbyteorder("="))
    array = predictions.rows(bounds)
    if array.chunks[0] != tuple(sizes):
        array = array.rechunk({0: tuple(sizes)})
    meta = array._meta
    if is_on_a_gpu(meta):
        xp = array_namespace(meta)
        lazy = lazy.map_blocks(xp.asarray, dtype=lazy.dtype, meta=xp.empty((0,), dtype=lazy.dtype))
    with xent.using(validate="never"):
        statistics = xent.row_statistics(array, lazy, kind=kind, ignore_index=ignored or None)
    return StatisticsSource(predictions.path, predictions.shape, predictions.dtype, tuple(statistics))
