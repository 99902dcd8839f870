"""``xent inspect``."""

from __future__ import annotations

from typing import Any

import click

from xent.cli.exits import input_checked
from xent.cli.options import axis_option, head_options, outside_option, shards_option, storage_option
from xent.cli.parameters import ByteSize
from xent.evaluation.formats import help_text


@click.command(epilog=help_text())
@click.argument("predictions")
@head_options
@click.option("--chunk-bytes", type=ByteSize(), default="64MiB", show_default=True, help="Bytes in a task.")
@axis_option
@outside_option
@storage_option
@shards_option
@click.option("--json", "as_json", is_flag=True, help="Write a JSON document instead of lines.")
def inspect(
    predictions: str,
    *,
    classifier: str | None,
    bias: str | None,
    softcap: float | None,
    chunk_bytes: int,
    axis: int,
    allow_outside: tuple[str, ...],
    as_json: bool,
) -> None:
    """What PREDICTIONS are and how they would be read: shape, dtype, chunks, projected memory; from headers alone.

    Of a file or a group that holds several arrays: the name to pass for each, its shape and its dtype.
    """
    with input_checked():
        from xent.evaluation.engine.prediction_sets import checked_axis, open_predictions
        from xent.evaluation.options import Options, folders_of
        from xent.evaluation.report import json_document, terminal
        from xent.evaluation.sources.flat_rows import flat
        from xent.evaluation.sources.hidden_states import Head
        from xent.evaluation.sources.messages import SeveralArrays
        from xent.evaluation.sources.opening import open_source

        allowed = folders_of(allow_outside)

        def opened(path: str) -> Any:
            try:
                return open_source(path, "predictions", allowed)
            except TypeError as error:
                try:
                    return open_source(path, "labels", allowed)  # text
                except TypeError:
                    raise error from None

        try:
            head = Head(classifier, bias, softcap)
            options = Options(axis=axis, chunk_bytes=chunk_bytes, allow_outside=allowed)
            is_plain = head == Head()
            source = opened(predictions) if is_plain else open_predictions("predictions", predictions, head, options)
            if len(source.shape) > 1:
                source = flat(source, checked_axis(axis, source))
            facts = json_document.inspection(source, chunk_bytes)
            text = terminal.format_inspection(facts)
        except SeveralArrays as held:
            facts = json_document.contents(held, opened)
            text = terminal.format_contents(facts)
    click.echo(json_document.to_json(facts) if as_json else text)
