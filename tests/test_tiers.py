"""What ``make check`` runs, what it leaves to ``make test``, and what stops a run before it begins."""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from libraries import VARIANTS
from test_promises import NAMED, PAGE, rows

TESTS = Path(__file__).parent
SEMANTICS = sorted(str(path) for path in TESTS.glob("test_semantics_*.py"))
QUICK = {"numpy", "numpy-generic", "torch", "dask", "array-api-strict"}
LARGE = "test_labels_reach_every_row_of_more_than_two_to_the_31_logits"  # seconds by its nature


def run(*arguments, paths=(), **environment) -> subprocess.CompletedProcess:
    """A run of pytest with xent's options, without what the run that this test is in was told."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("XENT_", "PYTEST_"))}
    search = os.pathsep.join([*map(str, paths), *filter(None, sys.path)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *map(str, arguments)]
    return subprocess.run(
        command, env={**plain, "PYTHONPATH": search, **environment}, cwd=TESTS.parent, capture_output=True, text=True
    )


def collected(*arguments) -> dict[str, set[str]]:
    """The variants that each test function would run on; None where it asks for no library."""
    lines = run("--collect-only", *arguments).stdout.splitlines()
    found = defaultdict(set)
    by_length = "|".join(sorted(VARIANTS, key=len, reverse=True))
    for line in lines:
        match = re.match(rf".*::(\w+)(?:\[({by_length})(?:-|\]))?", line)
        if match:
            found[match[1]].add(match[2])
    return found


@pytest.mark.slow
def test_every_promise_is_in_make_check_on_every_library_that_is_there():
    named = [(row, NAMED.findall(row)) for row in rows(PAGE.read_text(encoding="utf-8"))]
    held_by = [(row, {name for _, name in tests}) for row, tests in named]
    files = {TESTS.parent / path for _, tests in named for path, _ in tests} | set(map(Path, SEMANTICS))
    every, quick = collected(*SEMANTICS), collected("--check", *sorted(files))
    less = {name: variants & QUICK - quick.get(name, set()) for name, variants in every.items()}
    not_held = [row for row, names in held_by if names and names.isdisjoint(quick)]

    assert {name for name, variants in less.items() if variants} == {LARGE}
    assert len(held_by) > 50 and not_held == []


@pytest.mark.slow
def test_without_a_gpu_there_are_no_tests_on_cupy_unless_it_is_asked_for_by_name():
    has_gpu = importlib.util.find_spec("cupy") and importlib.import_module("cupy").cuda.is_available()
    every, named = collected(SEMANTICS[0]), collected("--backend", "cupy", SEMANTICS[0])

    assert any("cupy" in variants for variants in every.values()) == bool(has_gpu)
    assert named.keys() == every.keys() and set().union(*named.values()) == {"cupy"}


@pytest.mark.slow
def test_with_a_kernel_only_the_files_that_use_one_are_read():
    lines = run(
        "--collect-only", "--kernel", "numpy", "--backend", "numpy", TESTS / "test_exact.py", SEMANTICS[0]
    ).stdout

    assert SEMANTICS[0].rpartition("/")[2] in lines and "test_exact" not in lines


@pytest.mark.slow
def test_a_test_of_make_check_that_takes_long_fails_unless_it_is_marked(tmp_path):
    (tmp_path / "test_long.py").write_text("""
import os, pytest

def test_quick():
    pass

@pytest.mark.slow
def test_marked():
    raise AssertionError("make check runs it")

@pytest.mark.slow("torch")
def test_marked_on_another_library():
    pass

def test_not_marked(monkeypatch):
    import conftest
    monkeypatch.setattr(conftest, "CPU_LIMIT", 0.01)
    begin = sum(os.times()[:4])
    while sum(os.times()[:4]) < begin + 0.1:
        pass
""")
    options = "-c", TESTS.parent / "pyproject.toml", "-p", "conftest", "--check"
    done = run(*options, tmp_path / "test_long.py", paths=[TESTS])

    assert "1 failed, 2 passed, 1 deselected" in done.stdout
    assert re.search(r"took 0\.\d s of a processor, .* mark it slow", done.stdout)


@pytest.fixture
def plugin(tmp_path) -> Path:
    """A folder with an installed plugin in it, which nobody imports."""
    information = tmp_path / "xent_other-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: xent-other\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[xent]\nother = xent_other\n")
    return tmp_path


@pytest.mark.slow
def test_a_run_with_plugins_installed_stops_with_a_sentence(plugin):
    arguments = "--collect-only", TESTS / "test_exact.py"
    stopped, allowed = run(*arguments, paths=[plugin]), run(*arguments, paths=[plugin], XENT_PLUGINS="none")

    assert stopped.returncode == pytest.ExitCode.USAGE_ERROR
    assert "xent's own tests run without plugins, and other is installed here." in stopped.stderr
    assert allowed.returncode == 0, allowed.stderr
