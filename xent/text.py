"""Text that may be printed: no control characters, no secrets of a URL."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

HIDDEN: ContextVar[tuple[str, ...]] = ContextVar("hidden", default=())
"""Texts that no message shows."""


@contextmanager
def hidden_text(secrets: Iterable[str]) -> Iterator[None]:
    """Show three dots in the place of these texts in the messages that are made in the with block."""
    token = HIDDEN.set((*HIDDEN.get(), *sorted(secrets, key=len, reverse=True)))
    try:
        yield
    finally:
        HIDDEN.reset(token)


def visible(text: str) -> str:
    """The text with escapes in place of invisible characters: control and direction characters, lone surrogates."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


URL = re.compile(r"""[\w.+-]+://(?:\S*@)?[^\s'"<>]+?(?=[,;.:)\]]*(?:[\s'"<>]|$))""")
"""A URL in a message, without the punctuation that follows it; whatever stands before an @ may be a password."""
USER = re.compile("://[^/?#]*@")
ODD_USER = re.compile("://[^/?#:]*:.*@")
"""A user name and a password with characters that should have been encoded, or a port and an @ in the path."""


def shown_path(path: str) -> str:
    """A path as it may be printed: a URL without its user name, its password, its query and its parameters."""
    if "://" not in path:
        return path
    address, mark, rest = re.sub(ODD_USER, "://…@", re.sub(USER, "://", path)), "", ""
    if found := re.search("[?;]", address):
        address, mark, rest = address[: found.start()], f"{found[0]}…", address[found.end() :]
    _, sign, name = rest.rpartition("#")
    return f"{address}{mark}{sign}{name if sign else ''}"


def shown_text(message: str) -> str:
    """A message as it may be printed: each URL in it as by :func:`shown_path`, and nothing that is hidden."""
    for secret in HIDDEN.get():
        message = message.replace(secret, "…")
    return URL.sub(lambda match: shown_path(match[0]), message)
