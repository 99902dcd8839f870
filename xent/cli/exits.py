"""How a command ends: its exit code, and one line on stderr in place of a traceback.

0 done, 1 a kernel or a plugin is not sound, or a stated gate failed, 2 usage, inputs or an environment that do not fit,
or an output that cannot be written, 3 bad data, 4 a package, a server or a scheduler is missing, 70 a fault of xent's
own, with its traceback, 130 interrupted, 141 the reader of stdout has closed it, 143 terminated.
"""

from __future__ import annotations

import _thread
import os
import re
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import click

from xent.errors import Interrupted

UNSOUND, BAD_INPUT, BAD_DATA, UNAVAILABLE, FAULT = 1, 2, 3, 4, 70
INTERRUPTED, BROKEN_PIPE, TERMINATED = 130, 141, 143
OPTIONS = "|".join(
    (
        *(
            "classifier",
            "bias",
            "softcap",
            "classifier_b",
            "bias_b",
            "softcap_b",
            "kind",
            "kind_b",
            "axis",
            "binary",
            "strict_kind",
            "slices",
            "cross",
            "clusters",
            "weights",
            "mask",
            "class_names",
            "ignore_index",
            "on_bad_label",
            "on_error",
            "top_k",
            "bins",
            "calibration",
            "by_class",
            "classwise",
            "confusion",
            "auc",
            "tail",
        ),
        *(
            "predicted_bytes",
            "per_example",
            "state",
            "state_out",
            "rows",
            "partial",
            "fit_temperature",
            "chunk_bytes",
            "scheduler",
            "allow_outside",
            "zeros_ok",
            "check_shards",
            "storage_options",
        ),
    )
)
"""The arguments of an evaluation that are options of the command line."""
ARGUMENT = re.compile(rf"`({OPTIONS})`|\b({OPTIONS})=(?:True\b|(\d+\b)|('[^']*'))")
"""How a message names such an argument: alone in backquotes, or with a value."""


class Terminated(Interrupted):
    """The process was asked to end (SIGTERM)."""


INTERRUPTIONS = {signal.SIGINT: Interrupted, signal.SIGTERM: Terminated}
raised: list[Interrupted] = []
"""The interruption of this process; empty if there was none."""


@contextmanager
def input_checked() -> Iterator[None]:
    """Exit with code 2 if the inputs cannot be evaluated, as far as their headers say."""
    from xent.errors import KindError
    from xent.evaluation.sources.messages import ReadError

    try:
        yield
    except (ReadError, KindError, BrokenPipeError):  # KindError: of parts that are merged
        raise
    except (TypeError, ValueError, OSError) as error:
        fail(error, BAD_INPUT)


@contextmanager
def environment_checked() -> Iterator[None]:
    """Exit with code 2 if a call is refused and a variable of the environment sets an option of xent.

    The inputs have been checked by then: without such a variable a refusal is a fault of xent's own, and is not hidden.
    """
    from xent.dispatch.settings import VARIABLES
    from xent.errors import KindError, LabelError

    try:
        yield
    except ValueError as error:
        variables = ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ)
        if isinstance(error, KindError | LabelError) or not variables:
            raise
        fail(f"{error}\nThe environment sets {variables}.", BAD_INPUT)


@contextmanager
def errors_reported() -> Iterator[None]:
    """Exit with one line and a code if the fault lies outside: bad data, a missing package, an interruption.

    A fault of xent's own leaves its traceback, and has an exit code of its own.
    """
    try:
        with signals_interrupt():
            yield
            if sys.stdout:  # None if it was closed before the start
                sys.stdout.flush()
    except BrokenPipeError:
        exit_silently()
    except (Interrupted, KeyboardInterrupt) as error:
        fail(f"{interruption_name(error)}; nothing was written.", interruption_code(error))
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        for interruption in raised:  # it has become another error on its way
            fail(f"{interruption_name(interruption)}; nothing was written.", interruption_code(interruption))
        code = exit_code_of(error)
        if code != FAULT:
            fail(error, code)
        traceback.print_exc()
        raise SystemExit(FAULT) from error


def exit_code_of(error: Exception) -> int:
    """The exit code for an error: bad data, something that is not there, an output, or a fault of xent's own."""
    from xent.errors import KindError, LabelError
    from xent.evaluation.sources.messages import InputError, ReadError, ServerError

    if isinstance(error, ModuleNotFoundError | ServerError):
        return UNAVAILABLE
    if isinstance(error, KindError | LabelError | ReadError):
        return BAD_DATA
    if isinstance(error, ConnectionError):
        return UNAVAILABLE
    # OSError: an output, a scratch file or a state that cannot be written
    return BAD_INPUT if isinstance(error, OSError | InputError) else FAULT


def interrupt(number: int, _: object) -> NoReturn:
    """The handler of a signal that raises its interruption; a second signal kills."""
    for each in INTERRUPTIONS:
        signal.signal(each, signal.SIG_DFL)
    raised[:] = [INTERRUPTIONS[signal.Signals(number)]()]
    raise raised[0]


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Make SIGINT and SIGTERM raise inside the with block, so that drafts are removed; a second one kills.

    It kills until the process has ended, which waits for the threads that are still at work.
    """
    is_inside = signal.getsignal(signal.SIGTERM) is interrupt or raised
    if is_inside or threading.current_thread() is not threading.main_thread():
        yield
        return
    before, hook = {signal.SIGTERM: signal.getsignal(signal.SIGTERM)}, sys.unraisablehook
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it is ignored in the background of a shell
        before[signal.SIGINT] = signal.default_int_handler

    def raise_again(unraisable: Any) -> None:
        """In a weak reference's callback or a __del__ an exception is ignored, an interruption must not be."""
        if unraisable.exc_value not in raised:
            hook(unraisable)
            return
        number = next(each for each, kind in INTERRUPTIONS.items() if kind is unraisable.exc_type)
        signal.signal(number, interrupt)
        _thread.start_new_thread(raise_soon, (number,))

    sys.unraisablehook = raise_again
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            if signal.getsignal(number) is interrupt:
                signal.signal(number, handler or signal.SIG_DFL)


def raise_soon(number: int) -> None:
    """Send this process a signal when its main thread has left what it is in."""
    time.sleep(0.001)
    os.kill(os.getpid(), number)


def interruption_name(error: BaseException) -> str:
    """The word for an interruption in a message."""
    return "terminated" if isinstance(error, Terminated) else "interrupted"


def interruption_code(error: BaseException) -> int:
    """The exit code of an interruption: 128 and the number of the signal, as shells count."""
    return TERMINATED if isinstance(error, Terminated) else INTERRUPTED


def exit_silently() -> NoReturn:
    """Exit without a message, as other tools do when the reader of stdout has closed it."""
    drop_stdout()
    raise SystemExit(BROKEN_PIPE)


def drop_stdout() -> None:
    """Send what stdout still holds nowhere, for the interpreter would try to write it once more at its end."""
    with suppress(OSError, ValueError):  # what replaces stdout may have no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(message: object) -> None:
    """Write one line to stderr."""
    from xent.text import shown_text, visible

    *lines, last = with_option_names(shown_text(str(message))).splitlines() or [""]
    sentences = [*(f"{line.strip().rstrip('.')}." for line in lines), last]
    click.echo(visible(f"xent: {' '.join(sentences).removeprefix('xent: ')}"), err=True)


def fail(error: object, code: int) -> NoReturn:
    """Write one line to stderr and exit."""
    say(error)
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:  # a full disk, or a pipe that is closed
        drop_stdout()
    raise SystemExit(code)


def with_option_names(message: str) -> str:
    """The message of an evaluation with its arguments as options: `per_example` is `--per-example`."""
    if not message.startswith(("evaluate: ", "compare: ")):
        return message

    def option(match: re.Match[str]) -> str:
        name = f"--{(match[1] or match[2]).replace('_', '-').replace('storage-options', 'storage-option')}"
        if match[1]:
            return f"`{name}`"
        value = match[3] or (match[4] or "")[1:-1]
        return f"{name} {shlex.quote(value)}" if value else name

    return ARGUMENT.sub(option, message)
