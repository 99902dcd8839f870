"""Imports run one way: the contracts of pyproject.toml hold, and each of them breaks when it should.

The contracts are checked on a copy of the package under test, so the negative controls can spoil it.
"""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"

# What plugins, examples and compat may import: the package, and the page a plugin is written from.
PUBLIC_MODULES = {"xent", "xent.kernels", "xent.testing"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the package under test, beside the contracts."""
    spec = importlib.util.find_spec("xent")
    assert spec is not None and spec.origin is not None
    shutil.copytree(Path(spec.origin).parent, tmp_path / "xent", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The verdict of import-linter on the project in this folder."""
    command = [sys.executable, "-c", LINT, "--no-cache", "--no-logo", *arguments]
    plain = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=project, env=plain, capture_output=True, text=True, timeout=120)


def spoil(project: Path, module: str, line: str) -> None:
    """Add one import to a module, after making the module if it is not there."""
    path = project / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(f"{before}\n{line}\n", encoding="utf-8")


def test_every_contract_on_imports_is_kept(project: Path) -> None:
    verdict = lint(project)

    assert verdict.returncode == 0, verdict.stdout + verdict.stderr


@pytest.mark.parametrize(
    ("contract", "module", "line"),
    [
        pytest.param("layers", "xent.numerics.fold", "import xent.dispatch.calls", id="an-upward-import"),
        pytest.param("layers", "xent.errors", "def late():\n    import xent.losses", id="an-upward-import-later"),
        pytest.param("layers", "xent.utilities", "", id="a-room-in-no-layer"),
        pytest.param("layers", "xent.contract.plan", "from ..numerics import fold", id="a-plan-that-knows-the-fold"),
        pytest.param("layers", "xent.demo.protocol", "import xent.cli.exits", id="a-demo-that-knows-the-command"),
        pytest.param(
            "backends", "xent.backends.numpy.schedule", "from .. import dask", id="a-backend-that-knows-another"
        ),
        pytest.param(
            "backends", "xent.backends.generic.blocks", "from ..jax import hooks", id="generic-knows-a-library"
        ),
        pytest.param("backends", "xent.backends.tensors", "", id="a-backend-in-no-folder"),
        pytest.param(
            "evaluation", "xent.evaluation.engine.tasks", "from ..report import html", id="a-task-that-reports"
        ),
        pytest.param("evaluation", "xent.evaluation.sources.npy", "from .. import outputs", id="a-source-that-writes"),
        pytest.param(
            "evaluation", "xent.evaluation.outputs", "from .statistics import state", id="an-output-that-sums"
        ),
        pytest.param("evaluation", "xent.evaluation.options", "from . import sources", id="options-that-read"),
        pytest.param(
            "kit", "xent.testing.comparison", "from .promises import accuracy", id="a-comparison-that-knows-promises"
        ),
        pytest.param("facade", "xent.dispatch.calls", "import xent", id="the-facade-from-below"),
        pytest.param("compat", "xent.compat.torch", "import xent.checks", id="compat-that-knows-internals"),
        pytest.param(
            "compat", "xent.compat.torch.losses", "from ... import arrays", id="compat-that-knows-them-relatively"
        ),
        pytest.param(
            "compat",
            "xent.compat.optax",
            "def late():\n    from ..dispatch.calls import unwrap",
            id="compat-that-knows-them-later",
        ),
        pytest.param("numerics", "xent.numerics.fold", "import numpy", id="an-array-library-in-the-mathematics"),
        pytest.param("numerics", "xent.numerics", "from pluggy import HookspecMarker", id="pluggy-in-the-mathematics"),
        pytest.param("witness", "xent.testing.reference", "from . import fold", id="a-witness-that-asks-the-fold"),
        pytest.param("independence", "xent.losses", "import xent.testing.reference", id="a-loss-by-the-reference"),
        pytest.param("libraries", "xent.dispatch.calls", "import torch.nn", id="a-library-outside-its-backend"),
        pytest.param("libraries", "xent.backends.generic.schedule", "import cupy", id="a-library-in-another-backend"),
    ],
)
def test_a_contract_breaks_when_its_import_is_added(project: Path, contract: str, module: str, line: str) -> None:
    spoil(project, module, line)
    verdict = lint(project, "--contract", contract)

    assert verdict.returncode == 1 and "BROKEN" in verdict.stdout, verdict.stdout + verdict.stderr


def imports_of_internals(source: str, package: str = "") -> Iterator[str]:
    """Each module or name of xent, outside its public ones, that this source text in this package imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            # subtle: "from xent import losses" and "import xent.losses" are the same import.
            names = [module]
            names += [f"xent.{alias.name}" for alias in node.names if module == "xent" and is_module(alias.name)]
            names += [f"xent.{alias.name}" for alias in node.names if module == "xent" and alias.name[0] == "_"]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "xent" and not is_public(name))


def is_module(name: str) -> bool:
    """Whether the package under test has a module of this name."""
    return importlib.util.find_spec(f"xent.{name}") is not None


def is_public(name: str) -> bool:
    """Whether users may import this module."""
    return name in PUBLIC_MODULES or f"{name}.".startswith("xent.compat.")


def package_of(path: Path) -> str:
    """The dotted name of the package that holds this file; empty for a script."""
    folders: list[str] = []
    while (path.parent / "__init__.py").exists():
        path = path.parent
        folders.insert(0, path.name)
    return ".".join(folders)


def written_as_users_do() -> list[Path]:
    """Every file that is to use public names only."""
    compat = ROOT / "xent" / "compat"
    places = compat, ROOT / "examples", *(ROOT / "plugins").glob("*")
    # the tests of xent-cuda hold kernels in a GPU's place against the kit's own cases, one by one
    return sorted(path for place in places for path in place.rglob("*.py") if "xent-cuda/tests" not in path.as_posix())


def test_plugins_examples_and_compat_use_public_names_only() -> None:
    internals = {
        str(path.relative_to(ROOT)): names
        for path in written_as_users_do()
        if (names := list(imports_of_internals(path.read_text(encoding="utf-8"), package_of(path))))
    }

    assert not internals


@pytest.mark.parametrize(
    ("source", "internals"),
    [
        ("import xent", []),
        ("from xent import sparse_cross_entropy", []),
        ("from xent.kernels import KernelSpec, Partial", []),
        ("import xent.numerics.fold", ["xent.numerics.fold"]),
        ("from xent.numerics.fold import merge", ["xent.numerics.fold"]),
        ("from xent import numerics", ["xent.numerics"]),
        ("def late():\n    from xent.numerics import fold", ["xent.numerics"]),
        ("import xentropy", []),
        ("from . import tensorflow", []),
        ("from .operands import unwrap", []),
        ("from ..kernels import KernelSpec", []),
        ("from .. import sparse_cross_entropy", []),
        ("from .. import arrays, checks", ["xent.arrays", "xent.checks"]),
        ("from ..dispatch.calls import unwrap", ["xent.dispatch.calls"]),
        ("def late():\n    from ..numerics import fold", ["xent.numerics"]),
    ],
)
def test_an_import_of_internals_is_seen_in_every_spelling(source: str, internals: list[str]) -> None:
    assert list(imports_of_internals(source, package="xent.compat")) == internals


def test_a_file_is_in_the_package_of_its_folders() -> None:
    assert package_of(ROOT / "xent" / "compat" / "torch.py") == "xent.compat"
    assert package_of(Path(__file__)) == ""
