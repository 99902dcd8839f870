"""docs/architecture.md is true: its pictures are those of the imports, and what it names is there."""

import ast
import re
import runpy
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
DRAWING = runpy.run_path(str(ROOT / "docs" / "import_picture.py"))
PACKAGES = DRAWING["DRAWN"]


@pytest.fixture
def copy(tmp_path):
    """The package and its contracts, to be changed."""
    shutil.copytree(ROOT / "xent", tmp_path / "xent", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def add(root, path, line):
    """Adds a line to a module."""
    with (root / path).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")


def test_the_pictures_are_those_of_the_imports():
    text = PAGE.read_text(encoding="utf-8")

    assert [package for package in PACKAGES if not DRAWING["marked"](package).search(text)] == []
    assert DRAWING["drawn_page"](text) == text, "run python docs/import_picture.py"


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("xent/text.py", "import xent.errors"),
        ("xent/text.py", "def late():\n    from . import errors"),
        ("xent/text.py", "from xent import errors"),
        ("xent/evaluation/sources/npy.py", "from ..statistics.state import merge"),
        ("xent/backends/cupy.py", "if TYPE_CHECKING:\n    from .torch import schedule"),
    ],
)
def test_an_import_that_is_added_changes_the_picture(copy, path, line):
    text = PAGE.read_text(encoding="utf-8")

    assert DRAWING["drawn_page"](text, copy) == text
    add(copy, path, line)
    assert DRAWING["drawn_page"](text, copy) != text


def test_an_import_upwards_and_a_circle_are_counted_and_drawn(copy):
    add(copy, "xent/checks/axes.py", "import xent.contract.problem")
    picture = DRAWING["draw"]("xent", copy)

    assert "1 upwards" in DRAWING["counts"](picture) and "2 rooms in a circle" in DRAWING["counts"](picture)
    assert "    checks -. upward .-> contract\n" in DRAWING["markdown"](picture)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_picture_has_every_room_of_its_package(package):
    folder = ROOT / Path(*package.split("."))
    there = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}

    assert set(DRAWING["draw"](package).rooms) == there - {"__init__"}


@pytest.mark.parametrize(
    ("package", "heading"), [("xent", "picture"), ("xent.evaluation", "Evaluation"), ("xent.backends", "Backends")]
)
def test_every_room_is_described_and_lies_where_the_page_says(package, heading):
    (section,) = re.findall(rf"^## [^\n]*{heading}$(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (table,) = re.findall(r"^\| room \| what it holds .*?(?=\n\n|\n\Z|\Z)", section, re.MULTILINE | re.DOTALL)
    cells = [name for row in table.splitlines() for name in re.findall(r"`([\w.]+/?)`", row.split("|")[1])]
    folder = ROOT / Path(*package.split("."))

    assert {name.removesuffix("/").removesuffix(".py") for name in cells} == set(DRAWING["draw"](package).rooms)
    assert [name for name in cells if not (folder / name).exists()] == []


# -------------------- what the pages name

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def files_of_the_project():
    """Every file and folder, as /path and /path/, without what is hidden or made."""
    found = set()
    for folder in ("xent", "tests", "docs", "benchmarks", "plugins", "examples", "compat_tests", "client_tests"):
        for path in (ROOT / folder, *(ROOT / folder).rglob("*")):
            found.add(f"/{path.relative_to(ROOT).as_posix()}{'/' if path.is_dir() else ''}")
    return found


def names_without_a_file(text, files):
    """The names of files and folders in a text that no path of the project ends with."""
    names = set(re.findall(r"`([\w./-]+(?:\.py|/))`", text))
    return sorted(name for name in names if not any(path.endswith(f"/{name}") for path in files))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_a_page_names_is_there(page):
    assert names_without_a_file(page.read_text(encoding="utf-8"), files_of_the_project()) == []


def test_a_name_of_a_file_that_was_moved_is_seen():
    assert names_without_a_file(
        "`backends/tensors.py`, `fold.py`, `dispatch/`, `selection/`", files_of_the_project()
    ) == [
        "backends/tensors.py",
        "selection/",
    ]


# -------------------- functions that the page names


def definitions(path):
    """Every name that a module defines, and those of its classes as Class.name."""
    found = set()

    def add(body, prefix):
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(f"{prefix}{node.name}")
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found.update(f"{prefix}{target.id}" for target in targets if isinstance(target, ast.Name))
            if isinstance(node, ast.ClassDef):
                add(node.body, f"{prefix}{node.name}.")

    add(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return found


def undefined(text):
    """Each ``file.py:function`` of a text that the package does not define."""
    named = set(re.findall(r"`([\w/]+\.py):([\w.]+)`", text))
    files = {path for path, _ in named if (ROOT / "xent" / path).exists()}
    there = {path: definitions(ROOT / "xent" / path) for path in files}
    return sorted(f"{path}:{name}" for path, name in named if name not in there.get(path, ()))


def test_every_function_that_the_page_names_is_defined_in_the_file_it_names():
    assert undefined(PAGE.read_text(encoding="utf-8")) == []


def test_a_name_that_is_not_defined_is_seen():
    text = "`numerics/fold.py:merge` `numerics/fold.py:Partial.max` `numerics/fold.py:mrege` `fold.py:merge`"

    assert undefined(text) == ["fold.py:merge", "numerics/fold.py:mrege"]


def test_every_life_is_told_in_ten_lines():
    lives = re.findall(r"^### (?:On|Of) (.*?)$(.*?)(?=^##|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)

    assert {name: len(re.findall(r"^\d+\. ", life, re.MULTILINE)) for name, life in lives} == {
        "NumPy": 10,
        "torch: eager, autograd, compiled": 10,
        "Dask": 10,
        "a product": 10,
        "an evaluation": 10,
        "a plugin": 10,
    }
