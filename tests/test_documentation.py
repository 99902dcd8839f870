"""What the documentation shows is so: docstrings and the README are run, and no public function goes undescribed."""

import contextlib
import dataclasses
import doctest
import importlib
import inspect
import io
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xent
from xent.contract import hooks
from xent.dispatch import settings
from xent.testing import PROMISES

ROOT = Path(__file__).parent.parent
MODULES = sorted(found.name for found in pkgutil.walk_packages(xent.__path__, "xent."))
FUNCTIONS = [name for name in xent.__all__ if inspect.isfunction(getattr(xent, name))]
CLASSES = [name for name in xent.__all__ if inspect.isclass(getattr(xent, name))]
README = ROOT / "README.md"
PLUGINS, EVALUATION, LIBRARIES = (ROOT / "docs" / f"{page}.md" for page in ("plugins", "evaluation", "libraries"))
HOOKS = [name for name in vars(hooks) if name.startswith("xent_")]


def module(name):
    """The module; a skip where a library is missing that nobody asked for."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "xent" or missing in os.environ.get("XENT_REQUIRE_BACKENDS", "").split(","):
            raise
        pytest.skip(f"{name} needs {missing}, which is not installed")


def sections(documentation):
    """The numpydoc sections of a docstring."""
    return set(re.findall(r"^([A-Z][A-Za-z ]+)\n-+$", inspect.cleandoc(documentation), re.MULTILINE))


def python_blocks(text):
    """The blocks of Markdown that are marked as Python."""
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_block(block, names):
    """Runs a block: as a doctest where it has prompts, else as a script."""
    if ">>>" not in block:
        exec(compile(block, "README.md", "exec"), names)
        return
    report = io.StringIO()
    test = doctest.DocTestParser().get_doctest(block, names, "README.md", "README.md", 0)
    result = doctest.DocTestRunner().run(test, out=report.write, clear_globs=False)
    names.update(test.globs)

    assert result.failed == 0, report.getvalue()


@pytest.mark.parametrize("name", ["xent", *MODULES])
def test_the_examples_of_a_modules_docstrings_are_right(name):
    report = io.StringIO()
    with contextlib.redirect_stdout(report):
        failed, _ = doctest.testmod(module(name))

    assert failed == 0, report.getvalue()


def test_the_examples_of_the_public_functions_are_among_those_that_run():
    finder, tried = doctest.DocTestFinder(exclude_empty=True), set()
    public = ("losses", "derivatives", "rows", "normalisation", "dispatch.settings", "dispatch.registry")
    for name in (*public, "evaluation.evaluations"):
        found = finder.find(importlib.import_module(f"xent.{name}"))
        tried |= {test.name.rpartition(".")[2] for test in found if test.examples}

    assert {"sparse_cross_entropy", "value_and_grad", "partial", "softmax", "using", "plugins", "evaluate"} <= tried


@pytest.mark.parametrize("page", [README, PLUGINS, EVALUATION, LIBRARIES], ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for block in python_blocks(page.read_text()):
        run_block(block, names)


@pytest.mark.slow
def test_the_command_of_the_readme_prints_what_is_shown(tmp_path):
    block = re.search(r"^```\n(\$ xent demo .*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)[1]
    *commands, table = block.split("\n", 2)
    for command in commands:
        run = [sys.executable, "-m", "xent", *command.removeprefix("$ xent ").split()]
        environment = {**os.environ, "COLUMNS": "120", "PYTHONUTF8": "1"}
        done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr

    assert table in done.stdout
    assert len(README.read_text("utf-8").split()) < 900


# -------------------- the page for plugins


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_described_with_its_exact_arguments(hook):
    arguments = ", ".join(inspect.signature(getattr(hooks, hook)).parameters)

    assert f"\n### `{hook}({arguments})`\n" in PLUGINS.read_text()


def test_no_hook_is_described_that_is_not_there():
    assert set(re.findall(r"^### `(\w+)\(", PLUGINS.read_text(), re.MULTILINE)) == set(HOOKS)


@pytest.mark.parametrize("kind", [xent.KernelSpec, xent.BackendSpec])
def test_every_field_of_a_declaration_is_described(kind):
    tables = re.findall(r"^\| field .*?(?=\n\n)", PLUGINS.read_text(), re.MULTILINE | re.DOTALL)
    described = [set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|[^|]*\|", one, re.MULTILINE)))) for one in tables]

    assert {field.name for field in dataclasses.fields(kind)} - {"owner"} in described


def test_the_promises_are_described_in_their_own_words():
    names = {"__name__": "promise_table", "__file__": str(PLUGINS.with_name("promise_table.py"))}
    exec(PLUGINS.with_name("promise_table.py").read_text(), names)

    assert names["table"]() in PLUGINS.read_text() and all(PROMISES[name].__doc__ for name in PROMISES)


def test_every_variable_of_the_environment_is_described():
    assert [name for name in settings.VARIABLES if name not in PLUGINS.read_text()] == []


def test_a_block_of_the_readme_that_is_wrong_would_be_seen():
    (script, session) = python_blocks("```python\nassert 1 == 2\n```\n\n```python\n>>> 1 + 1\n3\n```\n")

    for block in (script, session):
        with pytest.raises(AssertionError):
            run_block(block, {})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_says_what_it_takes_what_it_returns_and_shows_it(name):
    function = getattr(xent, name)
    found = sections(function.__doc__)

    returns_nothing = inspect.signature(function).return_annotation in (None, "None")
    wanted = set() if returns_nothing else {"Returns", "Examples"}
    if inspect.signature(function).parameters and wanted:
        wanted.add("Parameters")

    assert function.__doc__.partition("\n")[0].endswith((".", ":"))
    assert wanted <= found


@pytest.mark.parametrize("name", CLASSES)
def test_a_public_class_says_what_it_is(name):
    assert inspect.cleandoc(getattr(xent, name).__doc__ or "").partition("\n")[0]
