"""The result of parts that independent jobs have made: how a run is kept beside its sums, and what merged ones become.

Leaves out the files (``engine/parts.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from typing import Any

import xent
from xent.evaluation.engine.compare_pass import SETS, Comparison, Pair, comparison, options_of
from xent.evaluation.engine.evaluate_pass import Planned
from xent.evaluation.engine.kinds import check_kind_of_rows
from xent.evaluation.engine.memory import largest_chunk
from xent.evaluation.engine.pairwise_pass import PairwiseComparison, SeveralSets, pairwise
from xent.evaluation.engine.parts import Merged, merge_files
from xent.evaluation.options import Options
from xent.evaluation.report.gates import Known
from xent.evaluation.report.run import Run
from xent.evaluation.sources.messages import ReadError
from xent.evaluation.statistics.evaluation import Evaluation
from xent.evaluation.statistics.metrics import finish
from xent.evaluation.statistics.state import State

KINDS: Mapping[str, type[Any]] = {"evaluate": State, "compare": Pair, "compare_all": SeveralSets}
"""The sums that each command makes."""


def write_part(planned: Planned, run: Run, sums: Any) -> None:
    """Write the sums of a pass to the file of its part, if it has one; WriteError if that cannot be written."""
    if planned.part is None:
        return
    shared = {
        "command": planned.command,
        "xent": xent.__version__,
        "rows": run.set_rows,
        "classes": run.classes,
        "inputs": run.inputs,
        "options": asdict(run.options),
        "class_names": list(planned.names),
        "unstored_chunks": dict(planned.unstored_chunks),
        "chunks": [len(planned.all_bounds) - 1, largest_chunk(planned.all_bounds)],
    }
    own = {"scheduler": run.scheduler, "environment": run.environment, "wall_seconds": run.wall_seconds}
    planned.part.save((planned.bounds[0], planned.bounds[-1]), shared, own, sums)


def merged(
    paths: Iterable[Any], *, partial: bool, check: Callable[[Known], None] | None = None
) -> tuple[Evaluation | Comparison | PairwiseComparison, Run]:
    """The result of the parts in these files, and the run that one over all their rows would have been.

    `check` is called with what is known of it when the first part has been read. The errors are those of
    :func:`xent.merge_parts`.
    """

    def check_shared(shared: Mapping[str, Any]) -> None:
        if check is not None:
            with whole_parts():
                known = known_of(shared, partial=partial)
            check(known)

    found = merge_files(paths, KINDS, partial=partial, check=check_shared)
    with whole_parts():
        run, names = run_of_parts(found), tuple(found.shared["class_names"])
    options = run.options if run.ranges is None else replace(run.options, predicted_bytes=None)
    unstored = found.shared["unstored_chunks"]
    if isinstance(found.state, State):
        check_kind_of_rows(found.state, options)
        return replace(finish(found.state, options, names, run.set_rows), unstored_chunks=unstored), run
    for name, state in zip(SETS, found.state.sets, strict=False):
        check_kind_of_rows(state, options_of(options, name), name)
    result = (comparison if isinstance(found.state, Pair) else pairwise)(found.state, options, names, run.set_rows)
    return replace(result, unstored_chunks=unstored), run


@contextmanager
def whole_parts() -> Iterator[None]:
    """Raise ReadError for an error of facts that are not there, or of another type, in the with block."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ReadError(f"evaluate: the parts are corrupt ({error!r}). Make them anew.") from error


def known_of(shared: Mapping[str, Any], *, partial: bool) -> Known:
    """What is known of a result before its parts are merged."""
    rows = None if partial else int(shared["rows"])
    return Known(shared["command"], options_of_parts(shared), shared["inputs"], rows, shared["classes"])


def options_of_parts(shared: Mapping[str, Any]) -> Options:
    """The options of the parts of a set."""
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in shared["options"].items()
    }
    return Options(**{each.name: given[each.name] for each in fields(Options)})


def run_of_parts(found: Merged) -> Run:
    """The run of all parts together: of a fact in which they differ each value is told."""
    shared, own = found.shared, found.own
    chunks, chunk_rows = shared["chunks"]
    covered = sum(stop - start for start, stop in found.ranges)
    ordered = [name for each in own for name in each["environment"]]
    return Run(
        inputs={name: facts for name, (facts, _) in shared["inputs"].items()},
        options=options_of_parts(shared),
        set_rows=shared["rows"],
        classes=shared["classes"],
        scheduler=told(each["scheduler"] for each in own),
        chunks=chunks,
        chunk_rows=chunk_rows,
        fit_temperature=False if shared["command"] == "evaluate" else None,
        environment={
            name: told(each["environment"].get(name, "none") for each in own) for name in dict.fromkeys(ordered)
        },
        wall_seconds=sum(each["wall_seconds"] for each in own),
        ranges=None if covered == shared["rows"] else tuple(found.ranges),
    )


def told(values: Iterable[str]) -> str:
    """A value on which parts agree, or each of them."""
    return ", ".join(dict.fromkeys(values))
