"""How a command ends: the exit codes, and one line on stderr in the place of a traceback.

0 done, 1 a kernel or a plugin is not sound, or a stated gate failed, 2 usage, or inputs or an environment that do not
fit, 3 bad data, 4 a package or a scheduler is missing, 130 interrupted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

UNSOUND, BAD_INPUT, BAD_DATA, UNAVAILABLE, INTERRUPTED = 1, 2, 3, 4, 130


@contextmanager
def input_checked() -> Iterator[None]:
    """End with exit code 2 where the inputs, as far as their headers tell, cannot be evaluated."""
    from xent.evaluation.sources import ReadError

    try:
        yield
    except ReadError:
        raise
    except (TypeError, ValueError, OSError) as error:
        fail(error, BAD_INPUT)


@contextmanager
def environment_checked() -> Iterator[None]:
    """End with exit code 2 where a call is refused and the environment asks for something of xent.

    The inputs have been checked by then: without such a variable a refusal is a fault of xent's own, and is not hidden.
    """
    from xent.errors import LabelError
    from xent.settings import VARIABLES

    try:
        yield
    except ValueError as error:
        asked = ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ)
        if isinstance(error, LabelError) or not asked:
            raise
        fail(f"{error}\nThe environment sets {asked}.", BAD_INPUT)


@contextmanager
def told_plainly() -> Iterator[None]:
    """End with one line and an exit code where the fault lies outside: bad data, a missing package, an interruption."""
    try:
        from xent.errors import LabelError
        from xent.evaluation.sources import ReadError

        yield
    except (LabelError, ReadError) as error:
        fail(error, BAD_DATA)
    except (ModuleNotFoundError, ConnectionError) as error:
        fail(error, UNAVAILABLE)
    except KeyboardInterrupt:
        fail("interrupted; nothing was written.", INTERRUPTED)


def fail(error: object, code: int) -> NoReturn:
    """Write one line to stderr and exit."""
    *lines, last = str(error).splitlines() or [""]
    told = [*(f"{line.strip().rstrip('.')}." for line in lines), last]
    click.echo(f"xent: {' '.join(told).removeprefix('xent: ')}", err=True)
    raise SystemExit(code)
