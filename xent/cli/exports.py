"""The options on results in the forms of other programs, and the files that they name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from xent.evaluation.outputs import Target
    from xent.evaluation.report.result import EvaluationReport

FORMS = ("lm_eval", "model_index", "openmetrics")


def export_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options on the forms of other programs."""
    for option in (
        click.option(
            "--task-type",
            metavar="TYPE",
            help="With --model-index: the Hub's type of the task, such as image-classification.  [default: other]",
        ),
        click.option(
            "--dataset-name",
            metavar="NAME",
            help="What these forms call the set.  [default: the name of the file of LABELS]",
        ),
        click.option(
            "--model-name",
            metavar="NAME",
            help="What these forms call the model.  [default: the name of the file of PREDICTIONS]",
        ),
        click.option(
            "--openmetrics",
            type=click.Path(),
            metavar="FILE.prom",
            help="Write the numbers as OpenMetrics text, for Prometheus and dashboards.",
        ),
        click.option(
            "--model-index",
            type=click.Path(),
            metavar="FILE.yaml",
            help="Write the results as the model-index of a model card on the Hugging Face Hub; a .md file is a card.",
        ),
        click.option(
            "--lm-eval",
            type=click.Path(),
            metavar="FILE.json",
            help="Write the results as lm-evaluation-harness does.",
        ),
    ):
        command = option(command)
    return command


@dataclass(frozen=True)
class Exports:
    """The files in the forms of other programs, by form, and what they call the model, the set and the task."""

    files: dict[str, Target] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @classmethod
    def checked(cls, given: Mapping[str, str | None], *, overwrite: bool) -> Exports:
        """The files and names in the values of :func:`export_options`; an error if one cannot be."""
        from xent.evaluation.outputs import output_path
        from xent.evaluation.report.measures import LM_EVAL, MODEL_INDEX, OPENMETRICS, Names

        values = {name: value for name, value in given.items() if value is not None}
        files = {
            form: output_path(option_of(form), values.pop(form), suffixes, overwrite=overwrite)
            for form, suffixes in zip(FORMS, (LM_EVAL, MODEL_INDEX, OPENMETRICS), strict=True)
            if form in values
        }
        for name in values:
            forms = FORMS if name != "task_type" else ("model_index",)
            if not files.keys() & {*forms}:
                raise click.UsageError(f"{option_of(name)} goes with {' or '.join(map(option_of, forms))}.")
        Names(**values)
        return cls(files, values)

    def writers(self, result: EvaluationReport, *, overwrite: bool) -> list[Callable[[], None]]:
        """Functions of which each writes a file of a result."""

        def writer(form: str, path: Target) -> Callable[[], None]:
            names: dict[str, Any] = {
                name: text for name, text in self.names.items() if name != "task_type" or form == "model_index"
            }
            return lambda: getattr(result, f"to_{form}")(path, overwrite=overwrite, **names)

        return [writer(form, path) for form, path in self.files.items()]


def option_of(name: str) -> str:
    """The option of the name of an argument."""
    return f"--{name.replace('_', '-')}"
