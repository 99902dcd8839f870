"""What every test may ask for: the array libraries, one after the other, and random numbers whose seed is printed.

``--backend NAME`` runs the tests that ask for ``lib`` on one library, ``--seed N`` again on the same random numbers.
``--kernel NAME``, of ``xent.testing.plugin``, forces a kernel; here it leaves out the tests that ask for neither
``lib`` nor ``forced``. A library that is asked for by name, here or in ``XENT_REQUIRE_BACKENDS``, and is not installed
is a failure; another is skipped, and the reason said. Without a GPU there are no tests on CuPy's arrays.

``--check`` runs the tests of ``make check``: without the files in ``OUTER``, the variants in ``OUTER_VARIANTS`` and the
tests that are marked ``slow``. A test among them that takes more than ``CPU_LIMIT`` seconds of a processor fails.
"""

import functools
import gc
import importlib
import importlib.metadata
import importlib.util
import os
import re
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from libraries import BACKENDS, VARIANTS, Library, Missing, backend_of

# A first call imports, compiles and plans; the seed of a failure is printed by Hypothesis itself.
hypothesis.settings.register_profile("xent", deadline=None, print_blob=True, database=None)
hypothesis.settings.load_profile("xent")

OUTER = {
    "test_benchmarks": "each benchmark in a process of its own",
    "test_compat_keras": "imports TensorFlow",
    "test_compat_tensorflow": "imports TensorFlow",
    "test_conformance": "the kit on kernels that are wrong in one thing each",
    "test_disagreements": "imports every peer",
    "test_documentation": "every example of every page",
    "test_examples": "each example in a process of its own",
    "test_faults": "kills processes and clusters",
    "test_formats": "every format, on every scheduler",
    "test_golden": "the semantics' rows to their last digits",
    "test_hostile_files": "damages every format, in processes of their own",
    "test_peers": "imports every peer",
}
"""The test files that ``make check`` leaves to ``make test``, and why."""
OUTER_VARIANTS = ("dask-split", "jax", "jax-jit", "cupy")
"""The variants that ``make check`` leaves to ``make test``."""
NO_VARIANT = "none"  # the parameter of a test none of whose variants is selected, until it is deselected
USES_KERNELS = re.compile(r"def \w+\([^)]*\b(lib|forced)\b")
"""In a file where a test or a fixture asks for what a kernel can be forced on."""
CPU_LIMIT = 2.0
"""The most seconds of a processor that a test of ``make check`` may take, those of its child processes included."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("xent")
    group.addoption(
        "--backend", action="append", choices=BACKENDS, default=[], help="an array library to test on; repeatable"
    )
    group.addoption(
        "--seed", type=int, default=None, help="the seed of the random numbers, as an earlier run printed it"
    )
    group.addoption("--check", action="store_true", help="the quick tests only, as `make check` runs them")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "variants(*names, but=()): run on these variants of libraries.py, or on all but some"
    )
    required(config)  # a misspelt name is an error at once
    refuse_plugins(config)
    worker = getattr(config, "workerinput", None)  # pytest-xdist's processes share one seed
    if worker is not None:
        config.option.seed = worker["xent_seed"]
    elif config.option.seed is None:
        config.option.seed = int.from_bytes(os.urandom(4), "little")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["xent_seed"] = node.config.option.seed


def pytest_report_header(config: pytest.Config) -> str:
    return f"xent: --seed={config.option.seed}"


def required(config: pytest.Config) -> set[str]:
    """The backends that must be there."""
    named = {name.strip() for name in os.environ.get("XENT_REQUIRE_BACKENDS", "").split(",")} - {""}
    if not named <= set(BACKENDS):
        raise pytest.UsageError(f"XENT_REQUIRE_BACKENDS names {named - set(BACKENDS)}; there are {', '.join(BACKENDS)}")
    return {*config.option.backend, *named}


def refuse_plugins(config: pytest.Config) -> None:
    """Stops a run that plugins would take part in, though nobody said so: tests of the selection count kernels."""
    installed = sorted(entry.name for entry in importlib.metadata.entry_points(group="xent"))
    if installed and not config.option.kernel and "XENT_PLUGINS" not in os.environ:
        raise pytest.UsageError(
            f"xent's own tests run without plugins, and {', '.join(installed)} is installed here. Uninstall it, or use "
            "make check and make test, which keep plugins out of their environment; --kernel NAME tests a plugin's "
            "kernel, and XENT_PLUGINS set to anything says that plugins may be there"
        )


@functools.cache
def has_gpu() -> bool:
    """Whether CuPy can compute."""
    return importlib.util.find_spec("cupy") is not None and importlib.import_module("cupy").cuda.is_available()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out, before it is imported, a file of which no test would be selected."""
    if not collection_path.match("test_*.py"):
        return None
    if config.option.kernel and not USES_KERNELS.search(collection_path.read_text()):
        return True
    return True if config.option.check and collection_path.stem in OUTER else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that asks for ``lib`` runs on every variant of every library, for ``forced`` on xent's kernels."""
    if "forced" in metafunc.fixturenames:
        asked = metafunc.config.option.kernel
        metafunc.parametrize("forced", [asked] if asked else ["numpy", "generic"])
    if "lib" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("variants")
    named, but = (mark.args, mark.kwargs.get("but", ())) if mark else ((), ())
    assert set(named) | set(but) <= set(VARIANTS), f"{metafunc.definition.name}: no such variant"
    chosen = [name for name in named or VARIANTS if name not in but and is_selected(name, metafunc.config)]
    values = [pytest.param(name, marks=pytest.mark.gpu if name == "cupy" else ()) for name in chosen or [NO_VARIANT]]
    metafunc.parametrize("lib", values, indirect=True, scope="session")


def is_selected(variant: str, config: pytest.Config) -> bool:
    """Whether tests run on a variant; one that forces a kernel of its own cannot have another forced."""
    backends, kernel, check = config.option.backend, config.option.kernel, config.option.check
    return (
        (not backends or backend_of(variant) in backends)
        and not (kernel and VARIANTS[variant].kernel)
        and not (check and variant in OUTER_VARIANTS)
        and (variant != "cupy" or "cupy" in backends or has_gpu())
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collects without the garbage collector, which takes a third of the time of it and finds nothing."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()  # nor does it look again at all these tests as they run
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what was not asked for."""
    kernel, check = config.option.kernel, config.option.check

    shared = set() if config.option.backend else cases_of_the_other_way(items)

    def is_requested(item: pytest.Item) -> bool:
        variant = variant_of(item)
        if variant == NO_VARIANT or item in shared:
            return False
        if kernel and variant is None and "forced" not in getattr(item, "fixturenames", ()):
            return False
        return not (check and any(not mark.args or variant in mark.args for mark in item.iter_markers("slow")))

    left_out = [item for item in items if not is_requested(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if is_requested(item)]


def variant_of(item: pytest.Item) -> str | None:
    """The variant that a test runs on; None if it asks for none."""
    return item.callspec.params.get("lib") if hasattr(item, "callspec") else None


def cases_of_the_other_way(items: list[pytest.Item]) -> set[pytest.Item]:
    """The cases that JAX takes only once, where a test has several: every third under jit and the others eagerly.

    XLA compiles each anew, which would be half of the time of all tests; ``--backend jax`` runs every case both ways.
    """
    by_test: dict[tuple[Path, str], dict[str, list[pytest.Item]]] = {}
    for item in items:
        variant = variant_of(item)
        if variant in ("jax", "jax-jit"):
            by_variant = by_test.setdefault((item.path, item.originalname), {"jax": [], "jax-jit": []})
            by_variant[variant].append(item)
    left = set()
    for by_variant in by_test.values():
        eager, jitted = by_variant["jax"], by_variant["jax-jit"]
        if len(eager) == len(jitted) > 1:
            left |= {*eager[::3], *(item for index, item in enumerate(jitted) if index % 3)}
    return left


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test of ``make check`` is quick; processor time is measured, because it hardly depends on what else runs."""
    before = processor_seconds()
    result = yield
    spent = processor_seconds() - before
    if item.config.option.check and spent > CPU_LIMIT:
        pytest.fail(
            f"took {spent:.1f} s of a processor, and a test of make check may take {CPU_LIMIT:g}: mark it slow",
            pytrace=False,
        )
    return result


def processor_seconds() -> float:
    """What this process and the children it waited for have taken."""
    return sum(os.times()[:4])


@functools.cache
def library(variant: str) -> Library:
    return VARIANTS[variant](variant)


@pytest.fixture(scope="session")
def lib(request: pytest.FixtureRequest) -> Library:
    """One library, as tests/libraries.py describes it."""
    backend = backend_of(request.param)
    try:
        return library(request.param)
    except ImportError as error:
        if backend in required(request.config):
            pytest.fail(f"{backend} is required, and cannot be imported: {error}")
        pytest.skip(f"{backend} is not installed")
    except Missing as error:
        pytest.skip(str(error))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers: others for each test, and the same again under the same ``--seed``."""
    return np.random.default_rng([request.config.option.seed, zlib.crc32(request.node.name.encode())])
