"""What every test may ask for: the array libraries, one after the other, and random numbers whose seed is printed.

``--backend NAME`` runs the tests that ask for ``lib`` on one library, ``--seed N`` again on the same random numbers.
``--kernel NAME``, of ``xent.testing.plugin``, forces a kernel; here it leaves out the tests that ask for neither
``lib`` nor ``forced``. A library that is asked for by name, here or in ``XENT_REQUIRE_BACKENDS``, and is not installed
is a failure; another is skipped, and the reason said.
"""

import functools
import os
import zlib
from typing import Any

import hypothesis
import numpy as np
import pytest
from libraries import BACKENDS, VARIANTS, Library, Missing, backend_of

# A first call imports, compiles and plans; the seed of a failure is printed by Hypothesis itself.
hypothesis.settings.register_profile("xent", deadline=None, print_blob=True, database=None)
hypothesis.settings.load_profile("xent")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("xent")
    group.addoption(
        "--backend", action="append", choices=BACKENDS, default=[], help="an array library to test on; repeatable"
    )
    group.addoption(
        "--seed", type=int, default=None, help="the seed of the random numbers, as an earlier run printed it"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "variants(*names, but=()): run on these variants of libraries.py, or on all but some"
    )
    required(config)  # a misspelt name is an error at once
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
    chosen = [one for one in named or VARIANTS if one not in but]
    values = [pytest.param(one, marks=pytest.mark.gpu if one == "cupy" else ()) for one in chosen]
    metafunc.parametrize("lib", values, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what was not asked for; a variant that forces a kernel of its own cannot have another forced."""
    asked, kernel = config.option.backend, config.option.kernel

    def is_asked(item: pytest.Item) -> bool:
        variant = getattr(item, "callspec", None) and item.callspec.params.get("lib")
        if variant is None:
            return not kernel or "forced" in getattr(item, "fixturenames", ())
        return (not asked or backend_of(variant) in asked) and not (kernel and VARIANTS[variant].kernel)

    left_out = [item for item in items if not is_asked(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if is_asked(item)]


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
