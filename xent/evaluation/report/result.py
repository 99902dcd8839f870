"""Results that show and save themselves, as the command line shows and saves them.

Leaves out how each form is made: ``terminal.py``, ``page.py``, ``json_document.py``, ``parquet.py``, ``lm_eval.py``,
``model_index.py``, ``openmetrics.py``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, overload

from xent.evaluation.engine.compare_pass import Comparison
from xent.evaluation.engine.pairwise_pass import PairwiseComparison
from xent.evaluation.outputs import output_path, write_text
from xent.evaluation.report.json_document import (
    comparison_document,
    evaluation_document,
    pairwise_document,
    to_json,
)
from xent.evaluation.report.lm_eval import lm_eval_results
from xent.evaluation.report.measures import LM_EVAL, MODEL_INDEX, OPENMETRICS, Names
from xent.evaluation.report.model_index import model_index_yaml
from xent.evaluation.report.openmetrics import openmetrics_text
from xent.evaluation.report.page import (
    comparison_fragment,
    comparison_page,
    evaluation_fragment,
    evaluation_page,
    page_path,
)
from xent.evaluation.report.pairwise import (
    pairwise_fragment,
    pairwise_page,
    pairwise_tables,
    pairwise_text,
)
from xent.evaluation.report.parquet import tables_path, write_tables
from xent.evaluation.report.run import Run
from xent.evaluation.report.tables import Table, comparison_tables, evaluation_tables
from xent.evaluation.report.terminal import comparison_text, evaluation_text
from xent.evaluation.statistics.evaluation import Evaluation


def kept(text: str, path: Any, suffixes: tuple[str, ...], *, overwrite: bool) -> str | None:
    """The text; None where it is written to the file of a path."""
    if path is None:
        return text
    target = output_path("path", path, suffixes, overwrite=overwrite)
    write_text(target, text if text.endswith("\n") else f"{text}\n", overwrite=overwrite)
    return None


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
        return kept(to_json(self.to_dict()), path, (".json",), overwrite=overwrite)

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

    @overload
    def to_lm_eval(
        self,
        path: None = None,
        *,
        model_name: str | None = None,
        dataset_name: str | None = None,
        overwrite: bool = False,
    ) -> str: ...
    @overload
    def to_lm_eval(
        self,
        path: str | os.PathLike[str],
        *,
        model_name: str | None = None,
        dataset_name: str | None = None,
        overwrite: bool = False,
    ) -> None: ...
    def to_lm_eval(
        self,
        path: Any = None,
        *,
        model_name: str | None = None,
        dataset_name: str | None = None,
        overwrite: bool = False,
    ) -> str | None:
        """The results as lm-evaluation-harness writes them: as text, or None where the .json file of a path is written.

        The set is a task, and where there are slices a group with a task for each. Metrics that the harness has too
        bear its names: ``acc,none``, ``acc_stderr,none``, ``brier_score,none``, ``perplexity,none``.

        Parameters
        ----------
        path : path, optional
        model_name, dataset_name : str, optional
            What the model and the set are called: by default the names of the files of predictions and labels.
        overwrite : bool
            Whether the file may be there already.

        Raises
        ------
        FileExistsError, FileNotFoundError, PermissionError, ValueError, WriteError
            As :meth:`to_json`; ValueError too if a name is empty.
        """
        text = to_json(lm_eval_results(self.to_dict(), Names(model_name, dataset_name)))
        return kept(text, path, LM_EVAL, overwrite=overwrite)

    @overload
    def to_model_index(
        self,
        path: None = None,
        *,
        model_name: str | None = None,
        dataset_name: str | None = None,
        task_type: str | None = None,
        overwrite: bool = False,
    ) -> str: ...
    @overload
    def to_model_index(
        self,
        path: str | os.PathLike[str],
        *,
        model_name: str | None = None,
        dataset_name: str | None = None,
        task_type: str | None = None,
        overwrite: bool = False,
    ) -> None: ...
    def to_model_index(
        self,
        path: Any = None,
        *,
        model_name: str | None = None,
        dataset_name: str | None = None,
        task_type: str | None = None,
        overwrite: bool = False,
    ) -> str | None:
        """The results as the ``model-index`` of a card of the Hugging Face Hub: as YAML, or None where it is written.

        A .yaml or .yml file is for the head of a card that is there; a .md file is a card of nothing but its head. Each
        slice is a configuration of the set. The form has no place for standard errors.

        Parameters
        ----------
        task_type : str, optional
            What the Hub calls the task, such as "image-classification"; "other" by default.
        path, model_name, dataset_name, overwrite
            As in :meth:`to_lm_eval`, which has the errors too. On the Hub the name of a set is its id.
        """
        text = model_index_yaml(self.to_dict(), Names(model_name, dataset_name, task_type))
        is_card = path is not None and os.fspath(path).endswith(".md")
        return kept(f"---\n{text}---\n" if is_card else text, path, MODEL_INDEX, overwrite=overwrite)

    @overload
    def to_openmetrics(
        self,
        path: None = None,
        *,
        model_name: str | None = None,
        dataset_name: str | None = None,
        overwrite: bool = False,
    ) -> str: ...
    @overload
    def to_openmetrics(
        self,
        path: str | os.PathLike[str],
        *,
        model_name: str | None = None,
        dataset_name: str | None = None,
        overwrite: bool = False,
    ) -> None: ...
    def to_openmetrics(
        self,
        path: Any = None,
        *,
        model_name: str | None = None,
        dataset_name: str | None = None,
        overwrite: bool = False,
    ) -> str | None:
        """The numbers as OpenMetrics text for Prometheus and dashboards, or None where a .prom or .txt file is written.

        Each number is a gauge, such as ``xent_loss_nats`` and ``xent_slice_accuracy``, with the model and the set as
        labels. Parameters and errors are those of :meth:`to_lm_eval`.
        """
        text = openmetrics_text(self.to_dict(), Names(model_name, dataset_name))
        return kept(text, path, OPENMETRICS, overwrite=overwrite)

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


@dataclass(frozen=True, repr=False)
class PairwiseReport(Report, PairwiseComparison):
    """A :class:`PairwiseComparison` that shows and saves itself; ``run`` is how it came about."""

    sets: Mapping[str, EvaluationReport]
    run: Run = field(kw_only=True, compare=False)

    def to_text(self) -> str:
        return pairwise_text(self, self.run)

    def to_dict(self) -> dict[str, Any]:
        return pairwise_document(self, self.run)

    def tables(self) -> dict[str, Table]:
        return pairwise_tables(self)

    def page(self) -> str:
        return pairwise_page(self, self.run)

    def _repr_html_(self) -> str:
        return pairwise_fragment(self, self.run)


AnyReport = EvaluationReport | ComparisonReport | PairwiseReport


def sets_of(report: AnyReport) -> dict[str, EvaluationReport]:
    """The sets that a result is of, by the names of their arguments."""
    if isinstance(report, EvaluationReport):
        return {"predictions": report}
    return {"a": report.a, "b": report.b} if isinstance(report, ComparisonReport) else {**report.sets}
