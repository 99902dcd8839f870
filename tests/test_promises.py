"""docs/semantics.md and docs/promises.md cannot go stale: every row and every promise names tests, each test is there,
and what is not kept yet is expected to fail.
"""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "semantics.md"
PROMISES = ROOT / "docs" / "promises.md"
NAMED = re.compile(r"`((?:[\w-]+/)*\w+\.py)::(\w+)`")
NOT_KEPT, NOT_BUILT = "**Not kept yet**", "**Not built yet**"
REASON = "not kept yet: docs/semantics.md"


def rows(text):
    """The rows of the tables, without their heads."""
    tables = re.findall(r"^\|.*\|\n\|[-:| ]+\|\n((?:\|.*\|\n?)+)", text, re.MULTILINE)
    return [row for table in tables for row in table.splitlines()]


@functools.cache
def named_in(path):
    """The name of each test of a file, and whether it is expected to fail as what is not kept yet."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return {node.name: any(REASON in ast.unparse(mark) for mark in node.decorator_list) for node in functions}


def missing(text):
    """Each test that a text names and that is not there."""
    return [
        f"{path}::{name}"
        for path, name in NAMED.findall(text)
        if not (ROOT / path).exists() or name not in named_in(path)
    ]


def faults(row):
    """What is wrong with a row: it names no test, or calls that kept which is expected to fail, or the other way."""
    kept, marker, other = row.partition(NOT_KEPT)
    if not NAMED.findall(row) and NOT_BUILT not in row:
        yield "names no test"
    yield from (f"{name} fails" for path, name in NAMED.findall(kept) if named_in(path)[name])
    if marker and not any(named_in(path)[name] for path, name in NAMED.findall(other)):
        yield "no test is expected to fail"


@pytest.mark.parametrize("page", [PAGE, PROMISES], ids=lambda page: page.stem)
def test_every_test_that_a_page_names_is_there(page):
    assert missing(page.read_text(encoding="utf-8")) == []


def test_every_promise_names_what_shows_it_and_each_file_is_there():
    text = PROMISES.read_text(encoding="utf-8")
    promises = re.findall(r"^## \d\. (.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    files = re.findall(r"`((?:xent|tests|benchmarks|plugins)/[\w./-]+\.\w+)`", text)

    assert len(promises) == 7
    assert [promise.partition("\n")[0] for promise in promises if not NAMED.search(promise)] == []
    assert [path for path in files if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("row", rows(PAGE.read_text(encoding="utf-8")), ids=lambda row: row.split("|")[1].strip()[:40])
def test_every_row_is_held_by_tests_and_says_where_it_is_not(row):
    assert list(faults(row)) == []


def test_whatever_is_not_kept_yet_is_said_in_a_row():
    said = {
        name for row in rows(PAGE.read_text(encoding="utf-8")) for _, name in NAMED.findall(row.partition(NOT_KEPT)[2])
    }
    failing = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name, fails in named_in(path.relative_to(ROOT).as_posix()).items()
        if fails
    }

    assert failing - said == set()


def test_every_test_of_the_semantics_is_named_by_a_row():
    named = {name for _, name in NAMED.findall(PAGE.read_text(encoding="utf-8"))}
    there = {
        name
        for path in (ROOT / "tests").rglob("test_semantics_*.py")
        for name in named_in(path.relative_to(ROOT).as_posix())
    }

    assert there - named == set()


def test_a_row_of_a_promise_that_nothing_holds_would_be_seen():
    here = "tests/test_promises.py"
    text = f"| case | held by |\n|---|---|\n| one | nothing |\n| two | `{here}::test_that_is_not_there` |\n"

    assert len(rows(text)) == 2
    assert list(faults(rows(text)[0])) == ["names no test"]
    assert missing(text) == [f"{here}::test_that_is_not_there"]
    assert list(faults(f"| three | {NOT_KEPT}: `{here}::test_every_test_that_a_page_names_is_there` |")) == [
        "no test is expected to fail"
    ]
