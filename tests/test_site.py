"""The pages of docs/ as a site: all of them can be found, every link leads somewhere, and what they show was run.

``make docs`` builds it, with warnings as errors; here is what needs no Sphinx.
"""

import ast
import importlib
import importlib.util
import inspect
import json
import os
import re
import runpy
from pathlib import Path

import pytest

import xent
from xent import compat, testing

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PROJECT = "https://github.com/xent-array/xent"
RUNNER = runpy.run_path(str(DOCS / "run_examples.py"))
PAGES = sorted([*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")])
READMES = [ROOT / "README.md", *sorted(ROOT.glob("plugins/*/README.md"))]
EVERYWHERE = [*PAGES, *READMES, ROOT / "CONTRIBUTING.md"]


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def text_of(page):
    """A page's Markdown."""
    text = page.read_text("utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


# -------------------- navigation and links


def entries(page, text):
    """The pages that the tables of contents of a page name."""
    blocks = re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names = [line for block in blocks for line in block.splitlines() if line and not line.startswith(":")]
    return [next(page.parent.glob(f"{name}.*"), page.parent / name) for name in names]


def navigation():
    """Every page that can be reached from the first one, in the order of the tables of contents."""
    found, waiting = [], [DOCS / "index.md"]
    while waiting:
        page = waiting.pop(0)
        found.append(page)
        waiting += entries(page, text_of(page))
    return found


def test_every_page_is_in_the_navigation_once():
    assert sorted(navigation()) == PAGES


def anchors(page):
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#{1,4} (.*)$", without_code(text_of(page)), re.MULTILINE)
    plain = [re.sub(r"`|\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def dead_links(page, text):
    """The links of a page that lead to no file of the project, or to no heading of a page."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        path, _, anchor = link.partition("#")
        if path.startswith(PROJECT):
            inside = re.fullmatch(rf"{PROJECT}/(?:blob|raw|tree)/main/(.*)", path)
            target = ROOT / inside[1] if inside else ROOT
        elif "://" in path:
            continue
        else:
            target = page.parent / path if path else page
        is_page = anchor and target.suffix in {".md", ".ipynb"}
        if not target.exists() or (is_page and anchor not in anchors(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", EVERYWHERE, ids=name_of)
def test_every_link_leads_to_a_file_and_its_heading(page):
    assert dead_links(page, text_of(page)) == []


def test_a_link_that_leads_nowhere_is_seen():
    there = f"[a](semantics.md) [b](semantics.md#numbers) [c]({PROJECT}/blob/main/docs/semantics.md) [d](https://e.f/g)"
    dead = [f"{PROJECT}/blob/main/docs/none.md", "none.md", "semantics.md#none", "#none"]
    text = there + " ".join(f"[x]({link})" for link in dead)

    assert dead_links(DOCS / "index.md", there) == []
    assert dead_links(DOCS / "index.md", text) == dead


@pytest.mark.parametrize("page", READMES, ids=name_of)
def test_a_readme_links_by_urls_alone_for_the_package_index_shows_it_too(page):
    assert [link for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)) if not link.startswith("https://")] == []


# -------------------- the reference


def documented(page):
    """The objects that a page of the reference documents by name."""
    return set(re.findall(r"^\.\. (?:auto\w+|py:\w+):: ([\w.]+)$", page.read_text("utf-8"), re.MULTILINE))


def test_the_reference_has_every_public_name():
    found = {name for page in (DOCS / "reference").glob("*.md") for name in documented(page)}

    assert {name.removeprefix("xent.") for name in found if re.fullmatch(r"xent\.\w+", name)} >= set(xent.__all__)
    assert "xent.testing" in found and testing.__all__
    assert {f"xent.compat.{peer}" for peer in compat.__all__} <= found


@pytest.mark.parametrize("peer", compat.__all__)
def test_the_reference_names_what_a_peers_module_loads_late_and_the_modules_in_it(peer):
    module = importlib.import_module(f"xent.compat.{peer}")
    named = documented(DOCS / "reference" / f"compat_{peer}.md")
    apart = [name for name in module.__all__ if inspect.ismodule(vars(module).get(name)) or name not in vars(module)]

    assert [name for name in apart if f"xent.compat.{peer}.{name}" not in named] == []


def test_every_name_that_the_reference_documents_is_there():
    for page in (DOCS / "reference").glob("*.md"):
        for name in documented(page):
            if not name.startswith("xent.compat."):  # a module, whose import may need the peer
                parts = name.split(".")
                module = importlib.import_module(".".join(parts[:-1])) if len(parts) > 2 else xent
                assert hasattr(module, parts[-1]) or importlib.util.find_spec(name), name


# -------------------- what is shown was run


def missing_of(source):
    """The libraries that the code of a page imports and that are not installed."""
    nodes = [node for block in source for node in ast.walk(ast.parse(block))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    optional = {name.partition(".")[0] for name in names} & {"torch", "jax", "zarr", "pyarrow", "sklearn", "matplotlib"}
    required = set(os.environ.get("XENT_REQUIRE_BACKENDS", "").split(","))
    return sorted(name for name in optional - required if importlib.util.find_spec(name) is None)


def python_of(page):
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text("utf-8"))["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNER["PAGES"], ids=name_of)
def test_a_page_shows_what_its_examples_print(page):
    if missing := missing_of(python_of(page)):
        pytest.skip(f"not installed: {', '.join(missing)}")
    text = page.read_text("utf-8")

    assert RUNNER["ran"](text) == text, "run python docs/run_examples.py"


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNER["NOTEBOOKS"], ids=name_of)
def test_a_notebook_shows_what_its_cells_print(page, monkeypatch):
    if missing := missing_of(python_of(page)):
        pytest.skip(f"not installed: {', '.join(missing)}")
    monkeypatch.setenv("MPLBACKEND", "agg")
    text, shown = page.read_text("utf-8"), RUNNER["shown"]

    assert shown(RUNNER["ran_notebook"](text)) == shown(text), "run python docs/run_examples.py"
    assert len(shown(text)) > 3


@pytest.mark.parametrize("page", RUNNER["NOTEBOOKS"], ids=name_of)
def test_a_notebook_was_run_from_top_to_bottom_and_names_no_machine(page):
    text = page.read_text("utf-8")
    counts = [cell["execution_count"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]

    assert counts == list(range(1, len(counts) + 1))
    assert re.findall(r"/(?:home|root|tmp|usr|Users|work)/", text) == []


WRONG = """\
```python
print(1 + 1)
```

```text
3
```

```console
$ xent explain --dtype float64
nothing
$ echo $?
4
```
"""


def test_an_output_that_is_wrong_is_seen_and_written_anew():
    text = RUNNER["ran"](WRONG)

    assert "```text\n2\n```" in text and "schedule: numpy" in text and text.endswith("$ echo $?\n0\n```\n")


def test_an_output_is_the_same_in_every_folder_and_at_every_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    speed = "0.1 s, 1.25 GB/s, 1,797 rows/s."

    assert RUNNER["steady"](f"{tmp_path}/x.npy  1,797 rows\n{speed}") == (
        "x.npy  1,797 rows\n... s, ... GB/s, ... rows/s."
    )


# -------------------- where it is built


@pytest.mark.skipif(not (ROOT / ".ci").is_dir(), reason="the forges' files are not beside the tests")
@pytest.mark.parametrize("file", [".github/workflows/ci.yml", ".gitlab-ci.yml"])
def test_a_forge_builds_the_site(file):
    assert "make docs\n" in (ROOT / file).read_text("utf-8")


def test_a_warning_stops_the_build():
    recipe = (ROOT / "Makefile").read_text("utf-8").split("\ndocs:")[1].split("\n\n")[0]

    assert " -W " in recipe and "$(DOCS_ENVIRONMENT)" in recipe


# -------------------- docstrings that a site can be made of

FUNCTIONS = [name for name in xent.__all__ if inspect.isfunction(getattr(xent, name))]


def parameters_described(documentation):
    """The names of the parameters that a numpydoc docstring describes, in their order."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-+$|\Z)", documentation, re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^(\S.*)$", section[1] if section else "", re.MULTILINE)
    return [name.strip().lstrip("*") for head in heads for name in head.partition(" : ")[0].split(",")]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_of_a_function_is_described_in_a_line_of_its_section(name):
    function = getattr(xent, name)
    described = parameters_described(inspect.cleandoc(function.__doc__))

    assert sorted(described) == sorted(inspect.signature(function).parameters)


def test_names_that_go_on_in_the_next_line_are_seen():
    assert parameters_described("A.\n\nParameters\n----------\na, b,\nc\n    D.\n\nReturns\n-------\nd\n") == [
        "a",
        "b",
        "",
        "c",
    ]
