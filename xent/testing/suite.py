"""The tests that ``pytest -p xent.testing.plugin --kernel NAME`` runs if no others are named: every promise."""

from __future__ import annotations

from typing import Any

from .parametrization import KernelConformance


class TestConformance(KernelConformance):
    """Every promise, on the kernels registered under the name ``--kernel``."""

    def pytest_generate_tests(self, metafunc: Any) -> None:
        type(self).kernels = metafunc.config.option.kernel
        super().pytest_generate_tests(metafunc)
