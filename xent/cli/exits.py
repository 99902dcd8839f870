"""How a command ends: the exit codes, and one line on stderr in the place of a traceback.

0 done, 1 a kernel or a plugin is not sound, or a stated gate failed, 2 usage, inputs or an environment that do not fit,
or an output that cannot be written, 3 bad data, 4 a package or a scheduler is missing, 70 a fault of xent's own, with
its traceback, 130 interrupted, 141 nobody reads stdout any more, 143 terminated.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import click

UNSOUND, BAD_INPUT, BAD_DATA, UNAVAILABLE, FAULT = 1, 2, 3, 4, 70
INTERRUPTED, UNREAD, TERMINATED = 130, 141, 143
OPTIONS = "|".join(
    (
        *("kind", "slices", "clusters", "ignore_index", "on_bad_label", "on_error", "top_k", "bins", "tail"),
        *("predicted_bytes", "per_example", "state", "chunk_bytes", "scheduler"),
    )
)
"""The arguments of an evaluation that are options of the command line."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM)."""


@contextmanager
def input_checked() -> Iterator[None]:
    """End with exit code 2 where the inputs, as far as their headers tell, cannot be evaluated."""
    from xent.evaluation.sources.source import ReadError

    try:
        yield
    except (ReadError, BrokenPipeError):
        raise
    except (TypeError, ValueError, OSError) as error:
        fail(error, BAD_INPUT)


@contextmanager
def environment_checked() -> Iterator[None]:
    """End with exit code 2 where a call is refused and the environment asks for something of xent.

    The inputs have been checked by then: without such a variable a refusal is a fault of xent's own, and is not hidden.
    """
    from xent.dispatch.settings import VARIABLES
    from xent.errors import LabelError

    try:
        yield
    except ValueError as error:
        asked = ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ)
        if isinstance(error, LabelError) or not asked:
            raise
        fail(f"{error}\nThe environment sets {asked}.", BAD_INPUT)


@contextmanager
def told_plainly() -> Iterator[None]:
    """End with one line and an exit code where the fault lies outside: bad data, a missing package, an interruption.

    A fault of xent's own leaves its traceback, and has an exit code of its own.
    """
    try:
        from xent.errors import LabelError
        from xent.evaluation.sources.source import ReadError

        with terminable():
            yield
            if sys.stdout:  # None where it was closed before the start
                sys.stdout.flush()
    except (LabelError, ReadError) as error:
        fail(error, BAD_DATA)
    except BrokenPipeError:
        unread()
    except (ModuleNotFoundError, ConnectionError) as error:
        fail(error, UNAVAILABLE)
    except OSError as error:  # an output, a scratch file or a state that cannot be written
        fail(error, BAD_INPUT)
    except KeyboardInterrupt as error:
        fail(f"{stopped(error)}; nothing was written.", code_of(error))
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        traceback.print_exc()
        raise SystemExit(FAULT) from error


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM is an interruption inside the with block, which clears away what is half done; a second one kills."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def stopped(error: KeyboardInterrupt) -> str:
    """What a message calls it."""
    return "terminated" if isinstance(error, Terminated) else "interrupted"


def code_of(error: KeyboardInterrupt) -> int:
    """The exit code of an interruption: 128 and the number of the signal, as shells count."""
    return TERMINATED if isinstance(error, Terminated) else INTERRUPTED


def unread() -> NoReturn:
    """Exit without a word, as other tools do, where what reads stdout has gone."""
    with suppress(OSError, ValueError):  # what stands in for stdout may have no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(UNREAD)


def fail(error: object, code: int) -> NoReturn:
    """Write one line to stderr and exit."""
    from xent.text import shown_text, visible

    *lines, last = in_options(shown_text(str(error))).splitlines() or [""]
    told = [*(f"{line.strip().rstrip('.')}." for line in lines), last]
    click.echo(visible(f"xent: {' '.join(told).removeprefix('xent: ')}"), err=True)
    raise SystemExit(code)


def in_options(message: str) -> str:
    """The message of an evaluation with its arguments as options: `per_example` is `--per-example`."""
    if not message.startswith(("evaluate: ", "compare: ")):
        return message
    named = re.compile(rf"`({OPTIONS})`|\b({OPTIONS})='(\w+)'")

    def option(found: re.Match[str]) -> str:
        name = f"--{(found[1] or found[2]).replace('_', '-')}"
        return f"`{name}`" if found[1] else f"{name} {found[3]}"

    return named.sub(option, message)
