"""A plugin of pytest: ``pytest -p xent.testing.plugin --kernel NAME`` runs tests on one kernel.

If folders or files are named, on the command line or as ``testpaths``, those tests run with the kernel forced: a test
whose call it does not serve is skipped with its reasons, and a run in which it served no call fails. If none are named,
every promise of the conformance kit is a test (``suite.py``).
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from ..dispatch import settings
from ..errors import NotServed
from .parametrization import specs_of

SERVED = "xent_served"
"""The property of a test's report that says whether the kernel served one of its calls."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("xent").addoption(
        "--kernel", default=None, help="the kernel to run the tests on, as xent.using(kernel=) forces it"
    )


def pytest_configure(config: pytest.Config) -> None:
    kernel = config.option.kernel
    if not kernel:
        return
    try:
        specs_of(kernel)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(Served(kernel), "xent-served")
    if config.args_source is pytest.Config.ArgsSource.INVOCATION_DIR:
        config.args = [str(Path(__file__).with_name("suite.py"))]


class Served:
    """Forces the kernel in every test, and counts the tests in which it served."""

    def __init__(self, kernel: str):
        self.kernel = kernel
        self.tests = self.served = 0
        self.decisions: list[Any] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Runs one test and its fixtures with the kernel forced; tests of the conformance kit force it themselves."""
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if {"spec", "check"} <= set(parameters):
            item.user_properties.append((SERVED, True))
            return (yield)
        with settings.using(kernel=self.kernel, trace=True) as self.decisions:
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """A test that the kernel does not serve is skipped, with the reason against it."""
        report = yield
        if call.when == "call" and SERVED not in dict(item.user_properties):
            served = any(decision.kernel == self.kernel for decision in self.decisions)
            report.user_properties.append((SERVED, served))
        if call.excinfo is not None and isinstance(call.excinfo.value, NotServed):
            lines = str(call.excinfo.value).splitlines()
            reason = next((line.strip() for line in lines if line.startswith(f"  {self.kernel}: ")), lines[0])
            report.outcome, report.longrepr = "skipped", (str(item.path), item.location[1] or 0, f"Skipped: {reason}")
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.tests += 1
            self.served += dict(report.user_properties).get(SERVED) is True

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fails a run in which the kernel served no call."""
        if self.tests and not self.served and session.exitstatus == 0 and not hasattr(session.config, "workerinput"):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        failure = "" if self.served or not self.tests else ": a run that tries nothing is a failure"
        summary = f"xent: kernel {self.kernel!r} served in {self.served} of {self.tests} tests{failure}"
        terminalreporter.write_line(summary)
