"""How Sphinx makes the pages of this folder into the site in build/docs: ``make docs``.

The site asks nothing of any other server: formulas are MathML, the pictures of the imports are drawn here.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.util import logging

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS))

import import_picture  # noqa: E402  # from this folder

project = "xent"
author = "xent developers"
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_click",
    "sphinx_copybutton",
]
default_role = "code"
smartquotes = False  # "logits" is a value
exclude_patterns = ["_static"]

html_theme = "furo"
html_title = "xent"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_math_renderer = "mathml"
html_theme_options = {
    "source_repository": "https://github.com/xent-array/xent/",
    "source_branch": "main",
    "source_directory": "docs/",
    "light_css_variables": {"color-brand-primary": "#1f5fa8", "color-brand-content": "#1f5fa8"},
    "dark_css_variables": {"color-brand-primary": "#7fb4f0", "color-brand-content": "#7fb4f0"},
}
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True

myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

autodoc_mock_imports = ["keras", "tensorflow", "torch"]  # gigabytes, of which classes are derived
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

REPOSITORY = "https://github.com/xent-array/xent/blob/main"
SHOWN = {".md", ".ipynb", ".png"}
LINK = re.compile(r"(!?)(\[[^\]]*\])\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")
TESTS = re.compile(r"`(tests/\w+\.py)::(\w+)`(?:, )?")
JOINER = "\u200b"
PICTURE = re.compile(r"<!-- imports of ([\w.]+) -->\n```mermaid\n.*?\n```\n", re.DOTALL)


def link_to_the_repository(docname: str, text: str) -> str:
    """The text with links to files that are no pages made links to the repository."""
    folder = (DOCS / docname).parent

    def link(match: re.Match[str]) -> str:
        path = (folder / match[3]).resolve()
        if match[1] or (path.is_relative_to(DOCS) and path.suffix in SHOWN):
            return match[0]
        return f"{match[2]}({REPOSITORY}/{path.relative_to(ROOT).as_posix()}{match[4] or ''})"

    return LINK.sub(link, text)


def number_the_tests(line: str) -> str:
    """A row of a table with the tests that it names as numbers, which link to them."""
    numbers = iter(range(1, 1000))
    return TESTS.sub(lambda test: f"[{next(numbers)}]({REPOSITORY}/{test[1]}#:~:text=def%20{test[2]}) ", line)


def draw_the_imports(text: str) -> str:
    """The text with its pictures of imports as SVG."""
    return PICTURE.sub(lambda match: f"{import_picture.svg(import_picture.draw(match[1]))}\n", text)


def prepare(app: Any, docname: str, source: list[str]) -> None:
    """What a page says in the repository, as the site says it."""
    text = draw_the_imports(link_to_the_repository(docname, source[0]))
    source[0] = "\n".join(number_the_tests(line) if line.startswith("|") else line for line in text.split("\n"))


def as_list_table(rows: list[str]) -> list[str]:
    """The lines of a Markdown table as a table of reStructuredText."""
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip())[1:-1]] for row in rows]
    lines = ["", ".. list-table::", "   :header-rows: 1", ""]
    for row in cells[:1] + cells[2:]:
        lines += [f"   {'*' if number == 0 else ' '} - {cell}".rstrip() for number, cell in enumerate(row)]
    return [*lines, ""]


def prepare_docstring(app: Any, what: str, name: str, item: object, options: Any, lines: list[str]) -> None:
    """Tables of docstrings are Markdown, which reads well in an editor; references are a numbered list."""
    found: list[str] = []
    table: list[str] = []
    for line in [*lines, ""]:
        line = re.sub(r"(?<![\\`])\(\*(?=\w)", r"(\\*", line)  # a shape (*batch, C) is no emphasis
        # names with spaces between them would be taken for a type and a name
        line = re.sub(r"^:(?:ivar|vartype) [^:]+:", lambda names: names[0].replace(", ", f",{JOINER}"), line)
        line = re.sub(r"(\[\d\])_", r"\1", re.sub(r"^\.\. \[(\d)\]", r"\1.", line))
        if line.startswith("|"):
            table.append(line)
            continue
        found += as_list_table(table) if table else []
        table = []
        found.append(line)
    lines[:] = found


def without_constructor(
    app: Any, what: str, name: str, item: Any, options: Any, signature: str | None, annotation: str | None
) -> tuple[str, str | None] | None:
    """No signature for a class of results, which nobody makes."""
    is_result = what == "class" and (name.endswith(("Report", "Evaluation", "Comparison", "Decision", "Problem")))
    return ("", None) if is_result else None


def as_mathml(writer: Any, node: nodes.math | nodes.math_block) -> None:
    """A formula as the browser's own mathematics; one that cannot be read stops the build."""
    is_block = isinstance(node, nodes.math_block)
    writer.body.append(latex2mathml.tex2mathml(node.astext(), as_block=is_block))
    raise nodes.SkipNode


def tidy(app: Any, doctree: nodes.document) -> None:
    """The two hyphens between a name and its description are a dash, names have spaces between them, fields a name."""
    for field in [field for field in doctree.findall(nodes.field_name) if field.astext() == "Variables"]:
        field[:] = [nodes.Text("Attributes")]
    for node in [node for node in doctree.findall(nodes.Text) if node.startswith(" -- ") or JOINER in node]:
        node.parent.replace(node, nodes.Text(re.sub("^ -- ", " – ", node).replace(JOINER, " ")))


def find_what_is_missing(app: Any, env: Any) -> None:
    """A public name that the reference lacks is a warning: a module whose import fails is left out in silence."""
    import xent
    from xent import compat, testing

    modules = [xent, testing, *(importlib.import_module(f"xent.compat.{peer}") for peer in compat.__all__)]
    known = env.domaindata["py"]["objects"]
    for module in modules:
        missing = [name for name in module.__all__ if f"{module.__name__}.{name}" not in known]
        if missing:
            logging.getLogger(__name__).warning("the reference of %s lacks %s", module.__name__, ", ".join(missing))


def setup(app: Any) -> None:
    app.connect("source-read", prepare)
    app.connect("autodoc-process-docstring", prepare_docstring)
    app.connect("autodoc-process-signature", without_constructor)
    app.connect("doctree-read", tidy)
    app.connect("env-check-consistency", find_what_is_missing)
    app.add_html_math_renderer("mathml", (as_mathml, None), (as_mathml, None))
