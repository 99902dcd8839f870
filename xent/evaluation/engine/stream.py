"""A stream of blocks: predictions that are evaluated as a model makes them, and never stored.

The blocks are evaluated one after the other, in the calling thread, by a kernel with all its threads. The numbers are
the same bits as those of the same rows in one array.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from xent.evaluation.engine.kinds import check_kind_of_rows
from xent.evaluation.engine.labels import LABEL_REMEDY, check_labels
from xent.evaluation.engine.prediction_sets import PredictionSet, open_set
from xent.evaluation.engine.tasks import Job, chunk_state, run_chunks, unreadable_state
from xent.evaluation.engine.weights import check_weights
from xent.evaluation.engine.work import Progress
from xent.evaluation.options import Keys, Options, Outputs, Rows
from xent.evaluation.sources.hidden_states import Head
from xent.evaluation.sources.messages import refusal
from xent.evaluation.sources.opening import open_source, unstored_of
from xent.evaluation.sources.source import Source, read_rows
from xent.evaluation.statistics.cluster_sums import KEPT, ClustersApart
from xent.evaluation.statistics.evaluation import Evaluation
from xent.evaluation.statistics.metrics import finish
from xent.evaluation.statistics.state import State, merge
from xent.optional import require

PAIRS = "be an iterable of pairs (predictions, labels), or of mappings of these names, where no labels are given"
NAMES = ("predictions", "labels", *Keys._fields)


@dataclass
class Stream:
    """A stream of blocks of predictions (rows, C) and labels (rows,), and what has been read of it.

    Attributes
    ----------
    blocks : iterable
        Of pairs, or of mappings of "predictions", "labels" and the keys of their rows.
    options : Options
    class_names : Any
        As :func:`xent.evaluate` takes them.
    head : Head
        What makes logits of blocks of hidden states.
    inputs : mapping of str to mapping
        The facts of the predictions, the labels and the keys so far, as :meth:`Source.facts` has them.
    chunks, chunk_rows : int
        The blocks so far, and the rows of the largest.
    rows : int
        The rows so far.
    classes : int or None
        Those of the blocks; None before the first.
    """

    blocks: Iterable[Any]
    options: Options
    class_names: Any = None
    head: Head = field(default_factory=Head)
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    chunks: int = 0
    chunk_rows: int = 0
    rows: int = 0
    classes: int | None = None

    def run(self, progress: Progress | None = None) -> Evaluation:
        """The numbers of all blocks.

        The errors are those of :func:`xent.evaluate`, raised at the block that they are in; labels out of range too.
        """
        state, unstored, options = State(), dict[str, int](), self.options
        class_names, names = self.class_names, tuple[str, ...]()
        head = read_whole(self.head, options)
        for block in self.blocks:
            given = open_block(block, state.rows, self.classes, options, class_names, head)
            sources, names = given.sources, given.names
            predictions, labels = sources["predictions"], sources["labels"]
            class_names = names or None  # an iterator can be read once
            unstored = merge(unstored, unstored_of(sources, zeros_ok=options.zeros_ok))
            self.count(sources, state.rows)
            rows, self.classes = predictions.shape
            job = Job(chunk_state, unreadable_state, options, 0, self.classes, given.ignored, threads=None)
            parts = [None if (source := sources.get(name)) is None else computed(source) for name in NAMES]
            first_row = state.rows
            state = merged(state, run_chunks(job, [first_row, first_row + rows], *parts))
            check_labels(state, options, predictions, labels, LABEL_REMEDY, first_row)
            check_weights(state, options)
            check_kind_of_rows(state, replace(options, strict_kind=False))  # which is of all blocks
            if progress is not None:
                progress(rows)
            del block, given, sources, predictions, labels, parts  # before the next block is made
        check_kind_of_rows(state, options)
        return replace(finish(state, options, names), unstored_chunks=unstored)

    def count(self, sources: Mapping[str, Source], first_row: int) -> None:
        """Add the facts of a block that begins at this row; ValueError if it has other keys than those before it."""
        if self.chunks and sources.keys() != self.inputs.keys():
            rule, got = (
                f"have {' and '.join(self.inputs)} in every block",
                f"{' and '.join(sources)} at row {first_row}",
            )
            raise ValueError(refusal("predictions", rule, got, "Make them alike."))
        self.chunks += 1
        self.rows += sources["predictions"].shape[0]
        self.chunk_rows = max(self.chunk_rows, sources["predictions"].shape[0])
        for name, source in sources.items():
            facts, before = source.facts(), self.inputs.get(name)
            if before is not None:
                facts["shape"][0] += before["shape"][0]
                facts["bytes"] += before["bytes"]
            self.inputs[name] = facts


def check_stream(
    blocks: Any, keys: Keys, outputs: Outputs, *, scheduler: Any, fit_temperature: bool, rows: Rows | None
) -> None:
    """Raise TypeError unless the blocks are an iterable, ValueError for an argument that needs stored rows."""
    if not isinstance(blocks, Iterable) or isinstance(blocks, str | bytes) or hasattr(blocks, "shape"):
        raise TypeError("evaluate: `labels` must be given, got None. Pass the labels of these predictions.")
    for name, key in keys._asdict().items():
        if key is not None:
            remedy = f'Yield {{"predictions": …, "labels": …, "{name}": …}} of each block.'
            raise ValueError(refusal(name, "be in the blocks of a stream", "an argument beside them", remedy))
    needs_stored_rows = {
        "per_example": outputs.per_example is not None,
        "state": outputs.state is not None,
        "state_out": outputs.state_out is not None,
        "rows": rows is not None,
        "scheduler": scheduler is not None,
        "fit_temperature": fit_temperature,
    }
    for name, is_given in needs_stored_rows.items():
        if is_given:
            rule = f"be stored, or in hand, where `{name}` is given"
            raise ValueError(refusal("predictions", rule, "an iterable of blocks", f"Leave out {name}."))


def read_whole(head: Head, options: Options) -> Head:
    """The head with its classifier and bias in hand, so that no block reads them again."""
    operands: dict[str, Any] = {}
    for field_name in ("classifier", "bias"):
        if (given := getattr(head, field_name)) is not None:
            source = open_source(given, head.name(field_name), options.allow_outside)
            operands[field_name] = read_rows(computed(source), 0, source.shape[0]) if source.shape else source
    return head._replace(**operands)


def computed(block: Source) -> Any:
    """The rows of a block, computed if they are Dask's."""
    graph, (part,) = block.parts([0, block.shape[0]])
    if not graph and not isinstance(part, tuple):
        return part
    get = require("dask.base", "dask", "a block of Dask").get_scheduler() or require("dask", "dask", "a block").get
    key = f"xent-block-{uuid.uuid4().hex}"  # subtle: a cluster takes equal keys for the same task
    return get({**graph, key: part}, key)


def merged(state: State, block: State) -> State:
    """The state of the rows of both; ValueError where rows of a cluster lie apart, which are not there again."""
    try:
        together: State = merge(state, block)
    except ClustersApart:
        rule = f"have the rows of each beside each other in a stream, where they are more than {KEPT:,}"
        got = f"one in the block at row {state.rows} that was complete"
        remedy = "Yield the rows in the order of the clusters, or save them and evaluate the files."
        raise ValueError(refusal("clusters", rule, got, remedy)) from None
    return together


def open_block(
    block: Any, first_row: int, classes: int | None, options: Options, class_names: Any, head: Head
) -> PredictionSet:
    """The predictions, labels and keys of a block; TypeError or ValueError if it is none, or unlike those before it."""
    if isinstance(block, tuple | list) and len(block) == 2:
        block = {"predictions": block[0], "labels": block[1]}
    if not (isinstance(block, Mapping) and {"predictions", "labels"} <= block.keys() <= {*NAMES}):
        of = f" of {', '.join(map(str, block))}" if isinstance(block, Mapping) else ""
        remedy = f"Yield pairs, or mappings of {', '.join(NAMES)}."
        raise TypeError(refusal("predictions", PAIRS, f"{type(block).__name__}{of} at row {first_row}", remedy))
    keys = Keys(**{name: block.get(name) for name in Keys._fields})
    wanted: dict[str, Any] = {"keys": keys, "class_names": class_names, "heads": {"predictions": head}}
    given = open_set({"predictions": block["predictions"]}, block["labels"], options, **wanted)
    predictions = given.sources["predictions"]
    if classes not in (None, predictions.shape[1]):
        rule = f"have as many classes in every block, {classes}"
        raise ValueError(refusal("predictions", rule, f"{predictions} at row {first_row}", "Make them alike."))
    return given
