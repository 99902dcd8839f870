"""What a user gets by installing and importing xent, before any call."""

import importlib.metadata
import importlib.resources
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import xent

# Light parts of the core dependency that importing xent may load; they load no array library themselves.
ALLOWED = {"xent", "array_api_compat"}

# Runs in a process of its own. Whoever scans the installed distributions is stopped there.
PROBE = """
import importlib.metadata, sys
def scan(*arguments, **options):
    raise RuntimeError("scanned the installed distributions")
importlib.metadata.Distribution.discover = importlib.metadata.entry_points = scan
before = set(sys.modules)
import {module}
after = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(after - set(sys.stdlib_module_names)))
"""


def loaded_by(module: str, *path: Path) -> set[str]:
    """The packages outside the standard library that importing this module loads."""
    search = os.pathsep.join([*map(str, path), *filter(None, sys.path)])
    command = [sys.executable, "-c", PROBE.format(module=module)]
    options = {"env": {**os.environ, "PYTHONPATH": search}, "capture_output": True, "text": True, "timeout": 60}
    probe = subprocess.run(command, **options)
    if probe.returncode:
        raise ImportError(probe.stderr)
    return set(probe.stdout.split())


def test_importing_xent_loads_no_array_library() -> None:
    loaded = loaded_by("xent")

    assert loaded <= ALLOWED


def test_what_importing_xent_may_load_loads_no_array_library_either() -> None:
    loaded = loaded_by("array_api_compat")

    assert loaded == {"array_api_compat"}


def test_the_check_sees_a_package_that_loads_an_array_library(tmp_path: Path) -> None:
    (tmp_path / "eager.py").write_text("import numpy.linalg\n")
    loaded = loaded_by("eager", tmp_path)

    assert loaded - ALLOWED == {"eager", "numpy"}


@pytest.mark.parametrize("scan", ["entry_points(group='xent')", "version('numpy')", "distributions()"])
def test_the_check_sees_a_package_that_scans_for_plugins(tmp_path: Path, scan: str) -> None:
    (tmp_path / "curious.py").write_text(f"import importlib.metadata\nlist(importlib.metadata.{scan})\n")

    with pytest.raises(ImportError, match="scanned the installed distributions"):
        loaded_by("curious", tmp_path)


def test_every_public_name_resolves() -> None:
    # The version is the distribution's: a source folder that was never installed has none.
    missing = [name for name in xent.__all__ if name != "__version__" and not hasattr(xent, name)]

    assert not missing


def test_public_names_are_listed_once_and_by_dir() -> None:
    assert len(set(xent.__all__)) == len(xent.__all__)
    assert set(xent.__all__) <= set(dir(xent))


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_loss"):
        xent.no_such_loss


def test_no_module_hides_a_public_function_of_its_name() -> None:
    hidden = {module.name for module in pkgutil.iter_modules(xent.__path__)} & set(xent.__all__)

    assert not hidden


def test_the_type_annotations_are_shipped() -> None:
    assert importlib.resources.files("xent").joinpath("py.typed").is_file()


# -------------------- the name that it is installed by

ROOT = Path(__file__).parents[1]
TEXT = {".py", ".md", ".toml", ".yml", ".txt", ".html", ".cff", ".css", ""}
OTHER_NAMES = re.compile(
    r"""xent\\?\[ | \bxent\s*[<>=!~]=\s*[0-9] | pip\ (install|uninstall)[^\n`#]*["'\s]xent(?=["'`\s]|$) """
    r"""| metadata\.\w+\(["']xent["']\) | \bxent-[0-9]""",
    re.VERBOSE,
)
SPEAKS_OF_IT = {"xent/distribution.py", "tests/test_package.py"}


def other_names(text: str) -> list[str]:
    """Where a text asks for a distribution by the package's name."""
    return [match[0] for match in OTHER_NAMES.finditer(text)]


@pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="the project's texts are not beside the tests")
def test_every_requirement_message_and_page_says_the_name_of_the_distribution() -> None:
    folders = ("xent", "plugins", "docs", "examples", "benchmarks", "tests", "constraints")
    folders += ("compat_tests", "install_tests", "reports")
    files = [path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith(".")]
    files += [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    texts = [path for path in files if path.suffix in TEXT and str(path.relative_to(ROOT)) not in SPEAKS_OF_IT]
    wrong = {str(path.relative_to(ROOT)): names for path in texts if (names := other_names(path.read_text("utf-8")))}

    assert len(texts) > 200 and wrong == {}


@pytest.mark.parametrize(
    "text",
    ["pip install 'xent[cli]'", 'dependencies = ["xent>=0.1.0"]', "pip install xent", 'metadata.version("xent")'],
)
def test_a_text_that_names_another_distribution_is_found(text: str) -> None:
    assert other_names(text)
    assert not other_names(text.replace("xent", "xent-array"))


in_a_checkout = pytest.mark.skipif(not (ROOT / ".ci").is_dir(), reason="the forges' files are not beside the tests")


@in_a_checkout
def test_pre_commit_runs_the_commands_of_make_lint() -> None:
    recipe = (ROOT / "Makefile").read_text("utf-8").split("\nlint:")[1].split("\n\n")[0].splitlines()[1:]
    commands = [
        line.strip().replace("$(BIN)", ".venv/bin").replace("$(ON_SOURCE)", "env PYTHONPATH=.") for line in recipe
    ]
    hooks = re.findall(r"entry: ([^,]+),", (ROOT / ".pre-commit-config.yaml").read_text("utf-8"))

    assert hooks == commands and len(hooks) > 3


@in_a_checkout
@pytest.mark.parametrize("file", [".github/workflows/ci.yml", ".gitlab-ci.yml"])
def test_a_forge_runs_what_is_run_everywhere(file: str) -> None:
    assert ".ci/run\n" in (ROOT / file).read_text("utf-8")


@in_a_checkout
def test_the_citation_is_of_this_version() -> None:
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)

    assert version and f"\nversion: {version[1]}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def run_beside_the_other_project(tmp_path: Path, first_file: str | None, *command: str) -> subprocess.CompletedProcess:
    """A command on a copy of the package, among which the other project's files lie."""
    package = tmp_path / "xent"
    shutil.copytree(Path(xent.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "games").mkdir()
    if first_file is not None:
        (package / "__init__.py").write_text(first_file)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "XENT_PLUGINS": "none"}
    return subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
    )


def test_importing_xent_says_that_another_projects_files_lie_among_its_own(tmp_path: Path) -> None:
    done = run_beside_the_other_project(tmp_path, None, "-c", "import xent; xent.cross_entropy")

    assert done.returncode == 0 and done.stderr.count("UserWarning") == 1
    assert "another project, lie among those of xent-array" in done.stderr and "pip uninstall" in done.stderr


def test_doctor_finds_an_installation_unsound_that_another_projects_files_lie_in(tmp_path: Path) -> None:
    kernels_are_sound = "from xent.cli import doctor, main; doctor.run_quick_test = lambda spec: {'verdict': 'sound'}"
    code = f"{kernels_are_sound}; doctor.DEVICES.clear(); main(['doctor'])"
    done = run_beside_the_other_project(tmp_path, None, "-W", "ignore", "-c", code)

    assert done.returncode == 1 and "another project, lie among those of xent-array" in done.stdout.splitlines()[0]


def test_the_command_says_so_where_another_project_has_replaced_the_first_file(tmp_path: Path) -> None:
    done = run_beside_the_other_project(tmp_path, "", "-m", "xent", "doctor")

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("xent: ") and "replaced the first file of xent-array" in done.stderr


installed = pytest.mark.skipif(
    os.environ.get("XENT_TEST_INSTALLED") != "1",
    reason="XENT_TEST_INSTALLED is not set: a source folder may be under test",
)


@installed
def test_the_package_under_test_is_the_installed_one() -> None:
    assert Path(xent.__file__).is_relative_to(sysconfig.get_path("purelib"))


@installed
def test_a_child_process_finds_the_installed_package_too() -> None:
    child = subprocess.run(
        [sys.executable, "-c", "import xent; print(xent.__file__)"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )

    assert child.stdout.strip() == xent.__file__


@installed
def test_the_version_is_that_of_the_distribution() -> None:
    assert xent.__version__ == importlib.metadata.version("xent-array")


@installed
def test_the_wheel_ships_the_package_and_its_licence_alone() -> None:
    files = importlib.metadata.files("xent-array") or []
    places = {file.parts[0] for file in files if file.parts[0] != ".."}
    licences = [file for file in files if file.name == "LICENSE"]

    assert places == {"xent", f"xent_array-{importlib.metadata.version('xent-array')}.dist-info"}
    assert len(licences) == 1


def relative_links(page: str) -> list[str]:
    """The targets of a page's links and pictures that are no URL."""
    return [target for target in re.findall(r"\]\(([^)\s]+)", page) if not target.startswith("https://")]


@installed
def test_the_page_of_the_package_index_links_to_urls_alone() -> None:
    described = importlib.metadata.metadata("xent-array")

    assert relative_links("![a](b.png) [c](https://d)") == ["b.png"]
    assert relative_links(str(described.get_payload())) == []
    assert {url.partition(",")[0] for url in described.get_all("Project-URL")} >= {"Documentation", "Source", "Issues"}


@installed
def test_dask_lists_the_command_line_under_our_name() -> None:
    (entry,) = importlib.metadata.entry_points(group="dask_cli", name="xent")
    command = entry.load()

    # subtle: Dask takes the command's own name, not the entry point's.
    assert command.name == "xent"
