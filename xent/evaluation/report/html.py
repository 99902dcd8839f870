"""HTML as a tree of elements, so that no text is ever mistaken for markup; and tables of sheets.

Leaves out what is on a page (``page.py``) and how it looks (``page.css``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.resources import files
from itertools import pairwise
from typing import Any
from xml.etree.ElementTree import Element, tostring

from xent.evaluation.report.tables import Sheet
from xent.evaluation.report.wording import with_error
from xent.text import visible

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
NONE = "–"
LONGEST = 9
"""The digits before or after the point beyond which a number with an error is written with an exponent."""


def tag(name: str, /, *children: str | Element | None, **attributes: str) -> Element:
    """An element; None is no child, and ``class_`` and ``aria_label`` are class and aria-label.

    Examples
    --------
    >>> tostring(tag("p", "1 < 2", tag("b", "!"), class_="odd"), encoding="unicode", method="html")
    '<p class="odd">1 &lt; 2<b>!</b></p>'
    """
    named = {key.rstrip("_").replace("_", "-"): visible(value) for key, value in attributes.items()}
    element, last = Element(name, named), None
    for child in children:
        if isinstance(child, Element):
            element.append(child)
            last = child
        elif child is not None and last is None:
            element.text = (element.text or "") + visible(child)
        elif child is not None and last is not None:
            last.tail = (last.tail or "") + visible(child)
    return element


def html_of(title: str, *content: Element | None) -> str:
    """A whole page, which asks nothing of any server and runs nothing."""
    style = Element("style")
    style.text = files("xent.evaluation.report").joinpath("page.css").read_text("utf-8")  # not escaped in HTML
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),  # a browser asks for one otherwise
        tag("title", title),
        style,
    )
    page = tag("html", head, tag("body", tag("main", *content)), lang="en")
    return "<!DOCTYPE html>\n" + tostring(page, encoding="unicode", method="html")


def table(caption: str, sheet: Sheet, note: str = "") -> Element:
    """A sheet as a table, each number with its full value; the note stands below the caption."""
    heads = [tag("th", head_of(name), scope="col", class_=align(kind)) for name, kind in sheet.columns.items()]
    rows = [tag("tr", *cells(sheet, row)) for row in sheet.rows]
    return framed(caption, note, tag("thead", tag("tr", *heads)), tag("tbody", *rows))


def facts(caption: str, pairs: Mapping[str, Any]) -> Element:
    """A table of names and what they are."""
    rows = [tag("tr", tag("th", name, scope="row"), tag("td", told(value))) for name, value in pairs.items()]
    return framed(caption, "", tag("tbody", *rows))


def framed(caption: str, note: str, *parts: Element) -> Element:
    """A table that scrolls by itself where it is wider than the page."""
    below = tag("span", note, class_="note") if note else None
    inner = tag("table", tag("caption", caption, below), *parts)
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def cells(sheet: Sheet, row: tuple[Any, ...]) -> list[Element]:
    """The cells of a row; a number before its standard error has as many digits as that allows."""
    written = [told(value) for value in row]
    for (i, _), (j, name) in pairwise(enumerate(sheet.columns)):
        if name.startswith("standard_error") and row[i] is not None and row[j] is not None:
            written[i], written[j] = measured(row[i], row[j])
    found = []
    for place, (value, text, kind) in enumerate(zip(row, written, sheet.columns.values(), strict=True)):
        content = text if isinstance(value, str | None) else number(value, text)
        if place:
            found.append(tag("td", content, class_=align(kind)))
        else:
            found.append(tag("th", content, scope="row", class_=align(kind)))
    return found


def number(value: float, text: str) -> Element:
    """A number as it is written, with its full value for programs; one that is not finite stands out."""
    return tag("data", text, value=repr(value), **({} if math.isfinite(value) else {"class_": "odd"}))


def told(value: Any) -> str:
    """How a value is written by itself."""
    if value is None or value == ():
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(told, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else str(value)


def measured(value: float, error: float) -> tuple[str, str]:
    """A number and its error as they are written; a very large or small one with an exponent."""
    is_long = abs(value) >= 10**LONGEST or 0 < error < 10**-LONGEST
    if math.isfinite(value) and is_long:
        return f"{value:.6g}", f"± {error:.2g}"
    return with_error(value, error)


def head_of(column: str) -> str:
    """A column's name for a reader."""
    return column.replace("standard", "std.").replace("_nats", " (nats)").replace("_", " ")


def align(kind: type) -> str:
    return "text" if kind is str else "number"
