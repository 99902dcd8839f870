"""The options of the file systems behind URLs: credentials, endpoints, anonymous access.

They hold for the calls of a context, and go with a source to the tasks that read it. No message shows what is secret
in them. Leaves out what a file system does with them, which is that of fsspec's packages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any

from xent.evaluation.sources.messages import refusal
from xent.optional import require
from xent.text import hidden_text

StorageOptions = Mapping[str, Any]
CURRENT: ContextVar[StorageOptions | None] = ContextVar("storage_options", default=None)
SECRET = re.compile("key|secret|token|pass|cred|auth|sas|sig|cookie|header|user|connection_string", re.IGNORECASE)
LEAST_HIDDEN = 4
"""The length of the shortest text that is hidden: a shorter one is part of too many words."""


@contextmanager
def storage_options_set(options: StorageOptions | None) -> Iterator[None]:
    """Open URLs with these options in the with block; None is without any.

    Raises
    ------
    TypeError
        Unless they are a mapping of names to values.
    """
    if options is not None and not (isinstance(options, Mapping) and all(isinstance(name, str) for name in options)):
        remedy = "Pass {'anon': True} where anyone may read, for instance."
        raise TypeError(refusal("storage_options", "be a mapping of names to values", type(options).__name__, remedy))
    with hidden_text(secrets_of(options or {})):
        token = CURRENT.set(options or None)
        try:
            yield
        finally:
            CURRENT.reset(token)


def secrets_of(options: StorageOptions, is_secret: bool = False) -> Iterator[str]:
    """The texts among the values that the names of options say to be secret."""
    for name, value in options.items():
        hides = is_secret or bool(SECRET.search(str(name)))
        if isinstance(value, Mapping):
            yield from secrets_of(value, hides)
        elif hides and isinstance(value, str) and len(value) >= LEAST_HIDDEN:
            yield value


def options_of(url: str) -> dict[str, Any]:
    """The keywords of ``fsspec.core.url_to_fs``: the options of each link of a URL, by its protocol.

    An option that names a protocol, as ``{"s3": {...}}``, holds for that one; another for the last link of a chain,
    where the bytes are.
    """
    current = CURRENT.get() or {}
    of_protocol = {
        name: dict(value) for name, value in current.items() if isinstance(value, Mapping) and is_protocol(name)
    }
    links = [link.partition("://")[0] for link in url.split("::")]
    keywords = {name: of_protocol[name] for name in links if name in of_protocol}
    others = {name: value for name, value in current.items() if name not in of_protocol}
    if others:
        keywords[links[-1]] = {**others, **keywords.get(links[-1], {})}
    return keywords


def is_protocol(name: str) -> bool:
    """Whether fsspec knows a protocol of this name."""
    registry = require("fsspec.registry", "remote", "storage options")
    return name in registry.known_implementations or name in registry.registry


def reading_threads(count: int) -> ThreadPoolExecutor:
    """Threads that open URLs with the options of this one, and hide the same."""
    return ThreadPoolExecutor(count, initializer=enter, initargs=(copy_context(),))


def enter(context: Context) -> None:
    """Give this thread the values of the variables of a context."""
    for variable, value in context.items():
        variable.set(value)


def options_in_texts(texts: Iterable[str]) -> dict[str, Any]:
    """The options that ``name=value`` says, of which a value is JSON where it is, and ``a.b=value`` that of b in a.

    Raises
    ------
    ValueError
        If a text has no name or no value. The message shows none of it.

    Examples
    --------
    >>> options_in_texts(["anon=true", "client_kwargs.region_name=eu-west-1"])
    {'anon': True, 'client_kwargs': {'region_name': 'eu-west-1'}}
    """
    options: dict[str, Any] = {}
    for text in texts:
        path, is_pair, value = text.partition("=")
        *folders, name = path.split(".")
        place = options
        for folder in folders:
            place = place.setdefault(folder, {})
            is_pair = is_pair if isinstance(place, dict) else ""
        if not (is_pair and all((*folders, name))):
            got = f"{path}, which has none" if path and not is_pair else "another form"
            raise ValueError(refusal("storage_options", "be name=value", got, "Write anon=true, for instance."))
        try:
            place[name] = json.loads(value)
        except ValueError:
            place[name] = value
    return options
