"""HTML as a tree of elements, so that no text is ever mistaken for markup; and tables as such elements.

Leaves out the content of a page (``page.py``) and its style: ``report.css`` of what a page and a notebook show, and
``page.css`` of a page alone.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from importlib.resources import files
from itertools import pairwise
from typing import Any
from xml.etree.ElementTree import Element, tostring

from xent.evaluation.report.tables import Row, Table
from xent.evaluation.report.wording import format_short_estimate, format_value
from xent.text import visible

REFERENCE = re.compile(r"(^#|url\(#)([^)]+)")
"""How an attribute names another element: its whole value, or in url()."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def tag(name: str, /, *children: str | Element | None, **attributes: str) -> Element:
    """An element; None is no child, and ``class_`` and ``aria_label`` are class and aria-label.

    Examples
    --------
    >>> tostring(tag("p", "1 < 2", tag("b", "!"), class_="odd"), encoding="unicode", method="html")
    '<p class="odd">1 &lt; 2<b>!</b></p>'
    """
    html_attributes = {key.rstrip("_").replace("_", "-"): visible(value) for key, value in attributes.items()}
    element, last = Element(name, html_attributes), None
    for child in children:
        if isinstance(child, Element):
            element.append(child)
            last = child
        elif child is not None and last is None:
            element.text = (element.text or "") + visible(child)
        elif child is not None and last is not None:
            last.tail = (last.tail or "") + visible(child)
    return element


def html_document(title: str, *content: Element | None) -> str:
    """A whole page as text, which requests nothing of any server and runs nothing."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),  # a browser requests one otherwise
        tag("title", title),
        style_element("report.css", "page.css"),
    )
    html = tag("html", head, tag("body", tag("main", *content, class_="sections"), class_="xent-report"), lang="en")
    return "<!DOCTYPE html>\n" + tostring(html, encoding="unicode", method="html")


def html_fragment(*content: Element | None) -> str:
    """A part of a page that others have written, as text, with a style of its own that holds in it alone.

    Its ids begin with a digest of it, so that no two fragments of one page share one.
    """
    inner = tag("div", *content, class_="sections")
    digest = hashlib.sha256(tostring(inner)).hexdigest()[:8]
    for element in inner.iter():
        for name, value in element.attrib.items():
            if name in ("id", "aria-labelledby"):
                element.set(name, f"x{digest}-{value}")
            else:
                element.set(name, REFERENCE.sub(rf"\1x{digest}-\2", value))
    fragment = tag("div", style_element("report.css"), inner, class_="xent-report")
    return tostring(fragment, encoding="unicode", method="html")


def style_element(*names: str) -> Element:
    """The style sheets of these names, as one."""
    style, folder = Element("style"), files("xent.evaluation.report")
    style.text = "".join(folder.joinpath(name).read_text("utf-8") for name in names)  # not escaped in HTML
    return style


def table_element(caption: str, table: Table, note: str = "") -> Element:
    """A table, each number with its full value; the note stands below the caption."""
    heads = [tag("th", column_head(name), scope="col", class_=css_class(kind)) for name, kind in table.columns.items()]
    rows = [tag("tr", *row_cells(table, row)) for row in table.rows]
    return scrolling_table(caption, note, tag("thead", tag("tr", *heads)), tag("tbody", *rows))


def facts_element(caption: str, facts: Mapping[str, Any]) -> Element:
    """A table of names and their values."""
    rows = [
        tag("tr", tag("th", name.replace("_", " "), scope="row"), tag("td", format_value(value)))
        for name, value in facts.items()
    ]
    return scrolling_table(caption, "", tag("tbody", *rows))


def scrolling_table(caption: str, note: str, *parts: Element) -> Element:
    """A table that scrolls by itself if it is wider than the page."""
    note_element = tag("span", note, class_="note") if note else None
    table = tag("table", tag("caption", caption, note_element), *parts)
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=caption)


def row_cells(table: Table, row: Row) -> list[Element]:
    """The cells of a row; a number before its standard error has as many digits as the error allows."""
    texts = [format_value(value) for value in row]
    for (i, _), (j, name) in pairwise(enumerate(table.columns)):
        if name.startswith("standard_error") and row[i] is not None and row[j] is not None:
            texts[i], texts[j] = format_short_estimate(row[i], row[j])
    contents = [
        text if isinstance(value, str | None) else number_element(value, text)
        for value, text in zip(row, texts, strict=True)
    ]
    (key, key_kind), *others = zip(contents, table.columns.values(), strict=True)
    cells = [tag("td", content, class_=css_class(kind)) for content, kind in others]
    return [tag("th", key, scope="row", class_=css_class(key_kind)), *cells]


def number_element(value: float, text: str) -> Element:
    """A number as text, with its full value for programs; one that is not finite stands out."""
    return tag("data", text, value=repr(value), **({} if math.isfinite(value) else {"class_": "odd"}))


def column_head(column: str) -> str:
    """The head of a column for a reader."""
    return column.replace("standard", "std.").replace("_nats", " (nats)").replace("_", " ")


def css_class(kind: type) -> str:
    """The class of the cells of a column of this type."""
    return "text" if kind is str else "number"
