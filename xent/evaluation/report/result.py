"""Results that show and save themselves, as the command line shows and saves them.

Leaves out how each form is made: ``terminal.py``, ``page.py``, ``json_document.py``, ``parquet.py``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, overload

from xent.evaluation.engine.compare_pass import Comparison, PairPass
from xent.evaluation.engine.evaluate_pass import Pass
from xent.evaluation.engine.labels import LABEL_REMEDY
from xent.evaluation.engine.scheduler_choice import chosen
from xent.evaluation.engine.schedulers import Progress
from xent.evaluation.engine.stream import Stream
from xent.evaluation.outputs import WriteError, output_path, write_text
from xent.evaluation.report.json_document import comparison_document, evaluation_document, to_json
from xent.evaluation.report.merging import merged, write_part
from xent.evaluation.report.page import (
    comparison_fragment,
    comparison_page,
    evaluation_fragment,
    evaluation_page,
    page_path,
)
from xent.evaluation.report.parquet import tables_path, write_tables
from xent.evaluation.report.run import Run, run_of, run_of_stream
from xent.evaluation.report.tables import Table, comparison_tables, evaluation_tables
from xent.evaluation.report.terminal import comparison_text, evaluation_text
from xent.evaluation.statistics.evaluation import Evaluation


class Report:
    """A result that shows and saves itself: ``print`` writes what the command line does, a notebook shows its plots.

    An output that is there already is refused without `overwrite`; each is written under another name and then renamed.

    Examples
    --------
    >>> import numpy as np, xent
    >>> found = xent.evaluate(np.zeros((3, 4)), np.asarray([0, 1, 2]))
    >>> found
    Evaluation(mean_loss=1.38629, standard_error=0, accuracy=0.333333, counted=3, rows=3)
    >>> str(found).splitlines()[0].split("  ")[:3]
    ['array', '3 × 4', 'float64']
    >>> found.to_dict()["metrics"]["accuracy"]["n"]
    3
    """

    run: Run

    def to_text(self) -> str:
        """The page of text that the command line writes."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of the command line, as plain data: numbers that are not finite are floats still."""
        raise NotImplementedError

    def tables(self) -> dict[str, Table]:
        """The tables of the command line, by their names."""
        raise NotImplementedError

    def page(self) -> str:
        """The page of the command line, as HTML text."""
        raise NotImplementedError

    @overload
    def to_json(self, path: None = None, *, overwrite: bool = False) -> str: ...
    @overload
    def to_json(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None: ...
    def to_json(self, path: Any = None, *, overwrite: bool = False) -> str | None:
        """The JSON document as text, or None where it is written to the .json file of a path.

        Numbers that JSON cannot hold are the strings "nan", "inf" and "-inf".

        Raises
        ------
        FileExistsError, FileNotFoundError, PermissionError, ValueError
            If the file is there and may not be overwritten, its folder is not there, or it is not named .json.
        WriteError
            If it cannot be written.
        """
        text = to_json(self.to_dict())
        if path is None:
            return text
        write_text(output_path("path", path, (".json",), overwrite=overwrite), text + "\n", overwrite=overwrite)
        return None

    def to_html(self, path: Any, *, overwrite: bool = False) -> None:
        """Write the page with its plots to a .html file: it needs no other file, and asks nothing of any server.

        Raises
        ------
        FileExistsError, FileNotFoundError, PermissionError, ValueError, WriteError
            As :meth:`to_json`.
        ModuleNotFoundError
            If matplotlib is not installed.
        """
        target = page_path(path, overwrite=overwrite, argument="path")
        write_text(target, self.page(), overwrite=overwrite)

    def to_parquet(self, folder: Any, *, overwrite: bool = False) -> None:
        """Write the tables to a folder, a Parquet file for each; only a folder of such tables is overwritten.

        Raises
        ------
        FileExistsError, FileNotFoundError, PermissionError, ValueError, WriteError
            As :meth:`to_json`.
        ModuleNotFoundError
            If pyarrow is not installed.
        """
        target = tables_path(folder, overwrite=overwrite, argument="folder")
        write_tables(self.tables(), target, overwrite=overwrite)

    def __str__(self) -> str:
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        return self.to_text().encode(encoding, "backslashreplace").decode(encoding)


@dataclass(frozen=True, repr=False)
class EvaluationReport(Report, Evaluation):
    """An :class:`Evaluation` that shows and saves itself; ``run`` is how it came about."""

    run: Run = field(kw_only=True, compare=False)

    def to_text(self) -> str:
        return evaluation_text(self, self.run)

    def to_dict(self) -> dict[str, Any]:
        return evaluation_document(self, self.run)

    def tables(self) -> dict[str, Table]:
        return evaluation_tables(self)

    def page(self) -> str:
        return evaluation_page(self, self.run)

    def _repr_html_(self) -> str:
        return evaluation_fragment(self, self.run)


@dataclass(frozen=True, repr=False)
class ComparisonReport(Report, Comparison):
    """A :class:`Comparison` that shows and saves itself; ``run`` is how it came about."""

    a: EvaluationReport
    b: EvaluationReport
    run: Run = field(kw_only=True, compare=False)

    def to_text(self) -> str:
        return comparison_text(self, self.run)

    def to_dict(self) -> dict[str, Any]:
        return comparison_document(self, self.run)

    def tables(self) -> dict[str, Table]:
        return comparison_tables(self)

    def page(self) -> str:
        return comparison_page(self, self.run)

    def _repr_html_(self) -> str:
        return comparison_fragment(self, self.run)


@overload
def report_of(result: Evaluation, run: Run) -> EvaluationReport: ...
@overload
def report_of(result: Comparison, run: Run) -> ComparisonReport: ...
@overload
def report_of(result: Evaluation | Comparison, run: Run) -> EvaluationReport | ComparisonReport: ...
def report_of(result: Evaluation | Comparison, run: Run) -> EvaluationReport | ComparisonReport:
    """The result of a run as one that shows and saves itself."""
    numbers: dict[str, Any] = {each.name: getattr(result, each.name) for each in fields(result)}
    if isinstance(result, Evaluation):
        return EvaluationReport(**numbers, run=run)
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
def run_pass(
    planned: Pass | PairPass,
    *,
    scheduler: Any = None,
    progress: Progress | None = None,
    label_remedy: str = LABEL_REMEDY,
) -> EvaluationReport | ComparisonReport:
    """The report of a pass, which is run; parameters and errors are those of its ``run``."""
    start, scheduler = time.perf_counter(), chosen(scheduler)

    def keep(sums: Any) -> None:
        write_part(planned, run_of(planned, scheduler, time.perf_counter() - start), sums)

    try:
        result = planned.run(scheduler=scheduler, progress=progress, label_remedy=label_remedy, keep=keep)
    except WriteError as error:  # of which the result is there
        if error.result is not None:
            error.result = report_of(error.result, run_of(planned, scheduler, time.perf_counter() - start))
        raise
    return report_of(result, run_of(planned, scheduler, time.perf_counter() - start))


def merged_report(paths: Iterable[Any], *, partial: bool) -> EvaluationReport | ComparisonReport:
    """The report of the parts in these files."""
    result, run = merged(paths, partial=partial)
    return report_of(result, run)


def run_stream(stream: Stream, progress: Progress | None) -> EvaluationReport:
    """The report of a stream, which is evaluated."""
    start = time.perf_counter()
    evaluation = stream.run(progress)
    return report_of(evaluation, run_of_stream(stream, time.perf_counter() - start))
