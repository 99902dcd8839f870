"""Text that may be printed: no control characters, no secrets of a URL."""

from __future__ import annotations

import re


def visible(text: str) -> str:
    """The text with escapes in place of invisible characters: control and direction characters, lone surrogates."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


URL = re.compile(r"""[\w.+-]+://[^\s'"<>]+?(?=[,;.:)\]]*(?:[\s'"<>]|$))""")
"""A URL in a message, without the punctuation that follows it."""


def shown_path(path: str) -> str:
    """A path as it may be printed: a URL without its user name, its password and its query."""
    if "://" not in path:
        return path
    address, query, rest = re.sub("://[^/?#]*@", "://", path).partition("?")
    _, mark, name = rest.rpartition("#")
    return f"{address}{query and '?…'}{mark}{name if mark else ''}"


def shown_text(message: str) -> str:
    """A message as it may be printed: each URL in it as by :func:`shown_path`."""
    return URL.sub(lambda match: shown_path(match[0]), message)
