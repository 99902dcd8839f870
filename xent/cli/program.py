"""The command ``xent`` itself, without its commands."""

from __future__ import annotations

import sys
from typing import Any

import click

from xent import distribution
from xent.cli.exits import errors_reported


class Program(click.Group):
    """The commands; how they end, whichever runs, is said in ``exits.py``."""

    def main(self, *arguments: Any, **settings: Any) -> Any:
        with errors_reported():
            return super().main(*arguments, **settings)

    # subtle: click gives the errors of a closed stdout an exit code of its own, so they may not reach its main

    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        with errors_reported():  # --help is printed here
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        with errors_reported():
            return super().invoke(ctx)


@click.group(name="xent", cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=distribution.NAME)
def main() -> None:
    """Cross entropy on any array."""
    if hasattr(sys.stdout, "reconfigure"):  # the terminal's encoding may lack a character of a name
        sys.stdout.reconfigure(errors="backslashreplace")
