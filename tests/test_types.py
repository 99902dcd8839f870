"""The types that users see: what mypy and Pyright say of a program of right and wrong calls."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import xent

PROGRAM = Path(__file__).parent / "typed" / "calls.py"
PACKAGES = Path(xent.__file__).parents[1]


def wrong_lines():
    """The lines that say of themselves that they are wrong."""
    return {number for number, line in enumerate(PROGRAM.read_text("utf-8").splitlines(), 1) if "# wrong: " in line}


def command(module, *arguments, folder):
    """What a type checker prints, run far from this project's own settings."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGES)}
    if Path(sysconfig.get_path("purelib")) != PACKAGES:  # which mypy finds by itself, and refuses to be told of
        environment["MYPYPATH"] = str(PACKAGES)
    run = [sys.executable, "-m", module, *arguments, str(PROGRAM)]
    return subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, timeout=300).stdout


def by_mypy(folder):
    """The lines with an error."""
    lines = command("mypy", "--strict", "--no-error-summary", "--cache-dir", str(folder), folder=folder).splitlines()
    return {int(line.split(":")[1]) for line in lines if f"{PROGRAM.name}:" in line and ": error:" in line}


def by_pyright(folder):
    """The lines with an error; basedpyright is Pyright in a wheel, here with Pyright's own defaults."""
    (folder / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "standard", "extraPaths": [str(PACKAGES)]})
    )
    found = json.loads(command("basedpyright", "--outputjson", "--project", str(folder), folder=folder))
    errors = [one for one in found["generalDiagnostics"] if one["severity"] == "error"]
    return {error["range"]["start"]["line"] + 1 for error in errors}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "checker"), [("mypy", by_mypy), ("basedpyright", by_pyright)], ids=["mypy", "pyright"]
)
def test_every_wrong_call_is_an_error_and_no_right_one(tmp_path, module, checker):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")

    assert len(wrong_lines()) > 25
    assert checker(tmp_path) == wrong_lines()


def test_type_checkers_are_told_every_public_name():
    tree = ast.parse(Path(xent.__file__).read_text("utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1]
    told = {alias.asname: node.module for node in imports for alias in node.names}

    assert told == xent.PUBLIC
