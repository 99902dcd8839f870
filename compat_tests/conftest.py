"""The comparisons of xent.compat with the peers themselves: which versions they are of is said at the top of a run."""

import os
from importlib.metadata import PackageNotFoundError, version

import pytest

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # read once, by SciPy's import: scikit-learn's tests ask for it

PEERS = ("tensorflow_cpu", "keras", "torch", "jax", "optax", "scikit-learn", "dask")


def pytest_report_header() -> str:
    versions = []
    for name in PEERS:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"{name} missing")
    return "peers: " + ", ".join(versions)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "thread_unsafe: scikit-learn's own, met in its tests")
