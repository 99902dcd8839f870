"""Reports of passes that are run, of streams, and of parts that are merged.

Leaves out what a report is (``result.py``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any, overload

from xent.evaluation.engine.compare_pass import Comparison, PairPass
from xent.evaluation.engine.evaluate_pass import Pass, Planned
from xent.evaluation.engine.labels import LABEL_REMEDY
from xent.evaluation.engine.pairwise_pass import PairwiseComparison, PairwisePass
from xent.evaluation.engine.scheduler_choice import chosen
from xent.evaluation.engine.stream import Stream
from xent.evaluation.engine.work import Progress
from xent.evaluation.outputs import WriteError
from xent.evaluation.report.gates import Known
from xent.evaluation.report.merging import merged, write_part
from xent.evaluation.report.result import AnyReport, ComparisonReport, EvaluationReport, PairwiseReport
from xent.evaluation.report.run import Run, run_of, run_of_stream
from xent.evaluation.statistics.evaluation import Evaluation


@overload
def report_of(result: Evaluation, run: Run) -> EvaluationReport: ...
@overload
def report_of(result: Comparison, run: Run) -> ComparisonReport: ...
@overload
def report_of(result: PairwiseComparison, run: Run) -> PairwiseReport: ...
@overload
def report_of(result: Evaluation | Comparison | PairwiseComparison, run: Run) -> AnyReport: ...
def report_of(result: Evaluation | Comparison | PairwiseComparison, run: Run) -> AnyReport:
    """The result of a run as one that shows and saves itself."""
    numbers: dict[str, Any] = {each.name: getattr(result, each.name) for each in fields(result)}
    if isinstance(result, Evaluation):
        return EvaluationReport(**numbers, run=run)
    if isinstance(result, PairwiseComparison):
        numbers["sets"] = {name: report_of(each, run.side(name)) for name, each in result.sets.items()}
        return PairwiseReport(**numbers, run=run)
    numbers |= {name: report_of(numbers[name], run.side(name)) for name in "ab"}
    return ComparisonReport(**numbers, run=run)


@overload
def run_pass(
    planned: Pass, *, scheduler: Any = None, progress: Progress | None = None, label_remedy: str = LABEL_REMEDY
) -> EvaluationReport: ...
@overload
def run_pass(
    planned: PairPass, *, scheduler: Any = None, progress: Progress | None = None, label_remedy: str = LABEL_REMEDY
) -> ComparisonReport: ...
@overload
def run_pass(
    planned: PairwisePass, *, scheduler: Any = None, progress: Progress | None = None, label_remedy: str = LABEL_REMEDY
) -> PairwiseReport: ...
@overload
def run_pass(
    planned: Planned, *, scheduler: Any = None, progress: Progress | None = None, label_remedy: str = LABEL_REMEDY
) -> AnyReport: ...
def run_pass(
    planned: Any,
    *,
    scheduler: Any = None,
    progress: Progress | None = None,
    label_remedy: str = LABEL_REMEDY,
) -> AnyReport:
    """The report of a pass, which is run; parameters and errors are those of its ``run``."""
    start, scheduler = time.perf_counter(), chosen(scheduler)

    def keep(sums: Any) -> None:
        write_part(planned, run_of(planned, scheduler, time.perf_counter() - start), sums)

    result: Evaluation | Comparison | PairwiseComparison
    try:
        result = planned.run(scheduler=scheduler, progress=progress, label_remedy=label_remedy, keep=keep)
    except WriteError as error:  # of which the result is there
        if error.result is not None:
            error.result = report_of(error.result, run_of(planned, scheduler, time.perf_counter() - start))
        raise
    return report_of(result, run_of(planned, scheduler, time.perf_counter() - start))


def merged_report(paths: Iterable[Any], *, partial: bool, check: Callable[[Known], None] | None = None) -> AnyReport:
    """The report of the parts in these files; `check` is called with what is known of it before they are merged."""
    result, run = merged(paths, partial=partial, check=check)
    return report_of(result, run)


def run_stream(stream: Stream, progress: Progress | None) -> EvaluationReport:
    """The report of a stream, which is evaluated."""
    start = time.perf_counter()
    evaluation = stream.run(progress)
    return report_of(evaluation, run_of_stream(stream, time.perf_counter() - start))
