"""``xent explain``, ``doctor`` and ``plugins``: what is installed, and which of it serves a call."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from typing import Any

import click

from xent.checks import KINDS
from xent.cli.exits import UNSOUND, environment_checked, input_checked

LOSSES = ("sparse_cross_entropy", "cross_entropy", "binary_cross_entropy")
LIBRARIES = ("numpy", "torch", "dask", "jax", "cupy", "array_api_strict")


@click.command()
@click.argument("function", type=click.Choice(LOSSES), default=LOSSES[0])
@click.option(
    "--array", type=click.Choice(LIBRARIES), default="numpy", show_default=True, help="Library of the arrays."
)
@click.option("--dtype", default="float32", show_default=True, help="Dtype of the predictions.")
@click.option("--shape", default="4,10", show_default=True, help="Shape of the predictions.")
@click.option("--target-dtype", help="Dtype of the targets.  [default: int64 for labels, else that of the predictions]")
@click.option("--axis", type=int, help="The class axis.")
@click.option("--kind", type=click.Choice(KINDS), help="What the predictions are.")
@click.option("--label-smoothing", type=float, help="Share of the target that is spread over all classes.")
@click.option("--gradient", is_flag=True, help="Ask for the loss with its gradient (value_and_grad).")
@click.option("--kernel", help="Force this kernel.")
@click.option("--prefer", multiple=True, help="Prefer this kernel; may be given several times.")
@click.option("--disable", multiple=True, help="Leave out this kernel or plugin; may be given several times.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON document instead of lines.")
def explain(as_json: bool, kernel: str | None, prefer: tuple[str, ...], disable: tuple[str, ...], **call: Any) -> None:
    """Which kernel would serve a call of FUNCTION, and why not another; nothing is computed.

    FUNCTION is sparse_cross_entropy where it is not named. It takes its own defaults for what is left out.
    """
    with input_checked():
        import xent
        from xent.cli.explain import explain_call

        call = {name: value for name, value in call.items() if value is not None}
        with xent.using(kernel=kernel, prefer=prefer or None, disable=disable or None):
            decision = explain_call(**call)
    click.echo(json.dumps(decision.to_dict(), indent=2) if as_json else decision)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Write a JSON document instead of lines.")
def doctor(as_json: bool) -> None:
    """Say whether this installation is sound: versions, GPUs, plugins, and a quick test of every kernel."""
    with environment_checked(), redirect_stdout(sys.stderr):  # a plugin may print
        from xent.cli.doctor import diagnose

        diagnosis = diagnose()
    click.echo(json.dumps(diagnosis.to_dict(), indent=2) if as_json else diagnosis)
    if not diagnosis.is_sound:
        raise SystemExit(UNSOUND)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Write a JSON list instead of lines.")
def plugins(as_json: bool) -> None:
    """The kernels and hooks that are installed, and what is wrong with those that did not load."""
    import xent
    from xent.cli.doctor import format_columns, plugin_lines

    with environment_checked(), redirect_stdout(sys.stderr):  # a plugin may print
        records = xent.plugins()
    if as_json:
        click.echo(json.dumps([record.to_dict() for record in records], indent=2))
        return
    for line in format_columns(plugin_lines(records)):
        click.echo(line)
