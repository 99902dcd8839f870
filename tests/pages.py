"""Prediction sets for the tests of pages, and an HTML page read back as a tree."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np

from xent.evaluation.engine.compare_pass import plan_pair
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.options import Keys, Options
from xent.evaluation.report.run import run_of

VOID = {"meta", "link", "br", "hr", "img", "input"}
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"&'",
    "$x_1$ costs $5",
    "]]>",
    "日本語のスライス",
    "éàü — ünïcode",
    "العربية",
    "🎈",
    "@0000",
    "</title></style></svg>",
    "x" * 300,
)


@dataclass
class Element:
    name: str
    attributes: dict[str, str]
    children: list = field(default_factory=list)

    def iter(self, name=None):
        """This element and its descendants in the page's order, those of one name if it is given."""
        if name in (None, self.name):
            yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.iter(name)

    @property
    def text(self):
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def only(self, name, **attributes):
        """The only element of that name with these attributes."""
        (element,) = (
            element
            for element in self.iter(name)
            if all(element.attributes.get(key.rstrip("_")) == value for key, value in attributes.items())
        )
        return element

    def table(self, caption):
        """The rows of the table with this caption, each cell as its element."""
        (table,) = (table for table in self.iter("table") if next(table.iter("caption")).children[0] == caption)
        body = table.only("tbody")
        return [[cell for cell in row.children if isinstance(cell, Element)] for row in body.iter("tr")]


class Reader(HTMLParser):
    """A parser that refuses a tag that is not closed in its place."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.stack = [self.root]

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} is repeated"
        element = Element(tag, dict(attrs))
        self.stack[-1].children.append(element)
        if tag not in VOID:
            self.stack.append(element)

    def handle_endtag(self, tag):
        assert self.stack.pop().name == tag, f"{tag} is closed where another is open"

    def handle_data(self, data):
        self.stack[-1].children.append(data)


def read(text):
    """The html element of a page."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.stack == [reader.root], "an element is not closed"
    return reader.root.only("html")


def value_of(cell):
    """The number that a cell holds, or its text."""
    data = next(cell.iter("data"), None)
    return cell.text if data is None else float(data.attributes["value"])


def random_set(rows=507, classes=7, seed=2):
    """Logits and labels."""
    random = np.random.default_rng(seed)
    return 3 * random.normal(size=(rows, classes)), random.integers(0, classes, rows)


def evaluated(logits, labels, *, slices=None, clusters=None, fit_temperature=False, **options):
    """An evaluation, and the run that it is said to be of."""
    keys = Keys(slices, clusters)
    planned = plan(logits, labels, Options(**options), keys=keys, fit_temperature=fit_temperature)
    return planned.run(scheduler="sync"), run_of(planned, "threads", 2.0)


def compared(a, b, labels, *, slices=None, clusters=None, **options):
    """A comparison, and the run that it is said to be of."""
    planned = plan_pair(a, b, labels, Options(**options), keys=Keys(slices, clusters))
    return planned.run(scheduler="sync"), run_of(planned, "threads", 2.0)


def hostile_slices(rows):
    """The hostile names, in turn."""
    return np.asarray(HOSTILE)[np.arange(rows) % len(HOSTILE)]
