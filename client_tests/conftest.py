"""Real clients: programs of other packages that train or score with xent in the place of their own loss.

Which versions they are is said at the top of a run, and at its end how much of a processor a step took with either
loss: a measurement, that no test depends on.
"""

from importlib.metadata import PackageNotFoundError, version

import pytest

CLIENTS = ("transformers", "torch", "flax", "optax", "jax", "keras", "tensorflow_cpu", "scikit-learn", "xent-numba")
steps = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[steps] = []


def pytest_report_header() -> str:
    versions = []
    for name in CLIENTS:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"{name} missing")
    return "clients: " + ", ".join(versions)


@pytest.fixture
def measured(request):
    """measured(what, ours, theirs): two medians of seconds of a processor, for the end of the run."""

    def note(what: str, ours: float, theirs: float) -> None:
        times = f"{ours * 1e3:.3g} ms with xent, {theirs * 1e3:.3g} without: {theirs / ours:.2f} times as fast"
        request.config.stash[steps].append(f"{what}: {times}")

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[steps]:
        terminalreporter.section("processor time of a training step, all threads, median")
        for line in config.stash[steps]:
            terminalreporter.write_line(line)
