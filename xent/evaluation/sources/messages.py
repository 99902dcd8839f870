"""The errors of inputs that cannot be read or evaluated, and their messages.

A message names the argument or the file, and the rows if they are known. What a URL keeps secret is in none of them.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from xent.evaluation.formats import listed
from xent.text import shown_text

INPUTS = f"the path of a set in {listed()}"
SHOWN_NAMES = 10
NETWORKS = ("aiohttp", "botocore", "google", "azure", "requests", "urllib3")
"""Packages whose errors are those of a server."""
NO_ACCESS = re.compile("Credential|Authentication|AccessDenied|AccessKey|Signature|Token|Forbidden|Unauthorized")
NO_SERVER = re.compile("Connect|Timeout|NameResolution|Disconnected")
BUSY = frozenset(("429", "503", "SlowDown", "Throttling", "RequestLimitExceeded", f"errno {errno.EBUSY}"))
"""What a server answers that has too many requests."""
BRIEF = BUSY | {"500", "502", "504", "InternalError", "RequestTimeout"}
"""What a server answers that may answer well the next time."""
HUNG_UP = re.compile("Disconnected|Timeout|IncompleteRead|Payload|ProtocolError|ConnectionReset|ConnectionClosed")


class ReadError(OSError):
    """A file is missing, truncated, corrupt, or has changed."""

    def __init__(self, message: str) -> None:
        super().__init__(shown_text(message))


class SeveralArrays(ValueError):
    """A file or a group holds several arrays and none is named: ``path``, their ``names``, whether it is a table."""

    def __init__(self, message: str, path: str, names: Collection[str], *, are_columns: bool = False) -> None:
        super().__init__(message)
        self.path, self.names, self.are_columns = path, tuple(names), are_columns


class InputError(ValueError):
    """A task has found that its inputs cannot be evaluated at all: no row of them is skipped for it."""


class MalformedError(ReadError, ValueError):
    """A file is not of its format, is no file at all, or leads out of its set; none of its rows is read."""


class ServerError(ReadError, ConnectionError):
    """A server does not answer, or not as it must."""


def refusal(argument: str, rule: str, got: object, remedy: str) -> str:
    """The message of an input that cannot be evaluated."""
    return shown_text(f"evaluate: `{argument}` must {rule}, got {got}. {remedy}")


def select_array(names: Collection[str], name: str, path: str, argument: str, *, are_columns: bool = False) -> str:
    """The name of an array of a file: the one that is asked for, or that of the only one; else ValueError.

    The arrays are columns of a table if `are_columns`: a pattern may stand for several then.
    """
    if name in names:
        return name
    if not name and len(names) == 1:
        return next(iter(names))
    shown = [*names][:SHOWN_NAMES] + ["…"] * (len(names) > SHOWN_NAMES)
    got = f"{name!r} of {path}, which holds {', '.join(shown) or 'none'}"
    remedy = "Write it again"
    if shown:
        alike = get_close_matches(name or argument, names, 1, 0.5) or shown
        remedy = f"Pass {path}#{name_to_pass(names) if are_columns else alike[0]}"
    message = refusal(argument, "name one array of its file after a #", got, f"{remedy}.")
    raise ValueError(message) if name or not names else SeveralArrays(message, path, names, are_columns=are_columns)


def name_to_pass(names: Collection[str]) -> str:
    """A name to try: the pattern of the first columns that are numbered, else the first name."""
    first = next(iter(names))
    stem = first.rstrip("0123456789")
    several = [name for name in names if name.startswith(stem) and name[len(stem) :].isdigit()]
    return f"{stem}*" if len(several) > 1 else first


def reader_error(path: str, argument: str, error: Exception, *, known: bool, what: str) -> Exception:
    """The error of a file that its reader refuses: a ReadError if its first bytes are those of its format (`known`)."""
    if is_of_a_network(error):
        return ServerError(f"evaluate: {path} could not be read ({shown_error(error)}). {remedy_of_server(error)}")
    if known:
        return ReadError(f"evaluate: {path} is truncated or corrupt ({error}). Copy or write it again.")
    return MalformedError(refusal(argument, f"be {what} where its name says so", f"{path} ({error})", "Rename it."))


@contextmanager
def reading(path: str, start: int, stop: int) -> Iterator[None]:
    """Raise ReadError, which names the file and the rows, for whatever a reader or a codec raises in the with block."""
    try:
        yield
    except ModuleNotFoundError:
        raise
    except Exception as error:
        if isinstance(error, ReadError) and not isinstance(error, ServerError):
            raise
        what = f"{type(error).__name__}: {str(error).removeprefix('evaluate: ')}"
        message = f"evaluate: rows {start} to {stop} of {path} could not be read ({what.rstrip('.')})."
        if isinstance(error, ServerError) or not is_of_a_network(error):  # the first has its remedy already
            raise (type(error) if isinstance(error, ServerError) else ReadError)(message) from error
        raise ServerError(f"{message} {remedy_of_server(error)}") from error


def is_of_a_network(error: BaseException | None) -> bool:
    """Whether an error is that of a connection or a server, or was caused by one."""
    network = ConnectionError | TimeoutError
    return any(isinstance(cause, network) or is_of_a_package(cause) for cause in causes_of(error))


def causes_of(error: BaseException | None) -> list[BaseException]:
    """An error, its cause, or the error that was being handled, the cause of that, and so on."""
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return causes


def shown_error(error: BaseException) -> str:
    """An error as a message shows it: of one that stands for that of a server, such as "no zip file", the server's."""
    of_server = (cause for cause in causes_of(error) if isinstance(cause, OSError) or is_of_a_package(cause))
    shown = next(of_server, error) if is_of_a_network(error) else error
    return f"{type(shown).__name__}: {shown}"


def is_of_a_package(error: BaseException) -> bool:
    """Whether the type of an error is one of a package that asks servers."""
    return type(error).__module__.startswith(NETWORKS)


def remedy_of_server(error: BaseException) -> str:
    """What to do about a server that is not there, or refuses: by the type, the status or the code of its error."""
    causes = causes_of(error)
    facts = {fact for cause in causes for fact in facts_of_server(cause)}
    words = facts | {type(cause).__name__ for cause in causes}
    is_denied = any(isinstance(cause, PermissionError) for cause in causes)
    if is_denied or facts & {"401", "403"} or any(map(NO_ACCESS.search, words)):
        return "Pass credentials that may read it in `storage_options`, or anon where anyone may."
    if facts & BUSY:
        return "It is too busy: try again later, or with fewer threads."
    is_absent = any(isinstance(cause, ConnectionError | TimeoutError) for cause in causes)
    if is_absent or any(map(NO_SERVER.search, words)):
        return "Check the address, and that the server answers."
    if any(isinstance(cause, TypeError) for cause in causes):
        return "Check the `storage_options`, which are those of its file system."
    return "Try again, or download it."


def is_transient(error: BaseException) -> bool:
    """Whether a request is worth another try: the server is busy, failed, or hung up."""
    causes = causes_of(error)
    hung_up = any(HUNG_UP.search(type(cause).__name__) for cause in causes if is_of_a_network(cause))
    return hung_up or any(facts_of_server(cause) & BRIEF for cause in causes)


def facts_of_server(error: BaseException) -> set[str]:
    """The status and the code that a server's answer had, by the attributes of the packages that ask it."""
    response: Any = getattr(error, "response", None)
    answer = response if isinstance(response, Mapping) else {}
    given = (
        next((getattr(error, name) for name in ("status", "status_code", "code") if hasattr(error, name)), None),
        answer.get("Error", {}).get("Code"),
        answer.get("ResponseMetadata", {}).get("HTTPStatusCode"),
        f"errno {error.errno}" if isinstance(error, OSError) else None,
    )
    return {str(fact) for fact in given if isinstance(fact, int | str)}
