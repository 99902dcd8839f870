"""The file systems of fsspec behind URLs, and what they are asked: again where a server is busy, or hangs up.

Leaves out what they are asked for (``storage.py``, ``ranges.py``), and their options (``storage_options.py``).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from xent.evaluation.sources.messages import (
    MalformedError,
    ReadError,
    ServerError,
    causes_of,
    facts_of_server,
    is_of_a_network,
    is_transient,
    remedy_of_server,
    shown_error,
)
from xent.evaluation.sources.storage_options import options_of
from xent.optional import require
from xent.text import shown_path, shown_text

Answer = TypeVar("Answer")

WAITS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds between the attempts of a request, each half as long to half as long again."""
NOTHING_THERE = frozenset(("404", "410", "NoSuchBucket", "NoSuchKey"))


def filesystem(path: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it."""
    core = require("fsspec.core", "remote", f"the URL {shown_path(path)}")
    if any(link.startswith("reference:") for link in path.split("::")):
        message = f"{path} is a list of references, which may name any file. Pass the paths of the files themselves"
        raise MalformedError(f"evaluate: {message}.")
    try:
        system, remote_path = core.url_to_fs(path, **options_of(path))
    except ImportError as error:  # s3fs for s3://, gcsfs for gs://
        message = f"evaluate: {path} needs a package that is not installed ({error})."
        raise ModuleNotFoundError(shown_text(message)) from error
    except FileNotFoundError:
        raise
    except ValueError as error:
        raise ValueError(
            shown_text(f"evaluate: {path} is not a URL that fsspec knows ({error}). Correct it.")
        ) from error
    except Exception as error:  # an archive inside which the path lies
        raise (ServerError if is_of_a_network(error) else ReadError)(unreachable(path, error)) from error
    check_system(system, path)
    return system, remote_path


def check_system(system: Any, path: str) -> None:
    """Raise MalformedError for local files behind a cache of fsspec, which would follow their links out of the set."""
    while system is not None:
        if "file" in protocols_of(system):
            raise MalformedError(f"evaluate: {path} is a local path, written as a URL. Pass it without its protocols.")
        system = getattr(system, "fs", None)


def protocols_of(system: Any) -> tuple[str, ...]:
    """The protocols of a file system."""
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


def asked(path: str, ask: Callable[[], Answer], *, done: str = "opened") -> Answer:
    """What ``ask`` returns, which asks the server of a URL; it is called again where the server is busy, or hangs up.

    Raises
    ------
    FileNotFoundError
        If the server says that nothing is there.
    ServerError, ReadError
        For whatever else a file system of fsspec raises, and a server that stays busy: it names the URL, says that
        it could not be ``done``, and why.
    """
    for wait in waits():
        try:
            return ask()
        except (ReadError, ModuleNotFoundError, ValueError):
            raise
        except Exception as error:
            if type(error).__name__ == "FileExpired":  # s3fs's, of an object with another tag
                raise ReadError(changed(path)) from error
            # fsspec says FileNotFoundError of an HTTP server that fails in any way
            cause = error.__cause__ if isinstance(error, FileNotFoundError) else error
            if cause is None or not (cause is error or is_of_a_network(cause)) or is_of_nothing(cause):
                raise
            if wait is None or not is_transient(error):
                raise (ServerError if is_of_a_network(error) else ReadError)(unreachable(path, cause, done)) from error
        time.sleep(wait)
    raise AssertionError  # the last wait is None


def waits() -> Iterator[float | None]:
    """Seconds to wait after each attempt of a request; None after the last."""
    yield from (wait * random.uniform(0.5, 1.5) for wait in WAITS)
    yield None


def is_of_nothing(error: BaseException) -> bool:
    """Whether a server's answer says that nothing is there."""
    return any(facts_of_server(cause) & NOTHING_THERE for cause in causes_of(error))


def changed(path: str) -> str:
    """The message of a file that is another one than was opened."""
    return f"evaluate: {path} has changed since it was opened. Run it again."


def unreachable(path: str, error: BaseException, done: str = "opened") -> str:
    """The message of a URL whose file system raises this error."""
    remedy = remedy_of_server(error)
    if done != "opened":
        remedy = remedy.replace("may read it", "may write it").replace("anon where anyone may", "write it elsewhere")
    return f"evaluate: {path} could not be {done} ({shown_error(error)}). {remedy}"
