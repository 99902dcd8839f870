"""The examples run as a reader runs them, each by itself; they are short, in order, and use public names only."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xent
from xent import testing

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
OPTIONAL = ("torch", "jax", "dask", "cupy")
LINES = 60
PUBLIC = {"xent.testing": testing.__all__}
"""What may be imported from a module of xent by name; all else is said as xent.name."""


def imported(tree: ast.Module) -> set[str]:
    """The root modules that a script imports."""
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names}


def not_public(source: str) -> list[str]:
    """What a script takes from xent that is not a public name."""
    tree, found = ast.parse(source), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [
                one.name for one in node.names if one.name.startswith("xent.") or (one.name == "xent" and one.asname)
            ]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "xent":
            public = PUBLIC.get(node.module, ())
            found += [f"{node.module}.{one.name}" for one in node.names if one.name not in public]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "xent":
            found += [] if node.attr in xent.__all__ else [f"xent.{node.attr}"]
    return found


def test_the_examples_are_numbered_in_reading_order():
    numbers = [re.match(r"(\d\d)_[a-z_]+\.py$", path.name) for path in EXAMPLES]

    assert [match and int(match[1]) for match in numbers] == list(range(1, len(EXAMPLES) + 1))
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_prints_its_result_and_asserts_it(path):
    needed = imported(ast.parse(path.read_text())) & set(OPTIONAL)
    missing = sorted(name for name in needed if importlib.util.find_spec(name) is None)
    required = os.environ.get("XENT_REQUIRE_BACKENDS", "").split(",")
    if missing and not set(missing) & set(required):
        pytest.skip(f"not installed: {', '.join(missing)}")
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_one_idea_in_public_names(path):
    source = path.read_text()
    tree = ast.parse(source)

    assert len(source.splitlines()) < LINES
    assert ast.get_docstring(tree)
    assert any(isinstance(node, ast.Assert) for node in ast.walk(tree))  # processes begin under a guard
    assert not_public(source) == []


@pytest.mark.parametrize(
    "source",
    [
        "import xent.dispatch.calls",
        "from xent import fold",
        "from xent.numerics import fold",
        "from xent.testing import fold",
        "import xent\nxent.dispatch.calls.apply",
    ],
)
def test_a_name_that_is_not_public_would_be_seen(source):
    assert not_public(source) != []
