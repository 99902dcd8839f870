"""The tests that ``pytest -p xent.testing.plugin --kernel NAME`` runs where no others are named: every promise."""

from __future__ import annotations

from typing import Any

from .parametrization import KernelConformance


class TestConformance(KernelConformance):
    """Every promise of the kernels of the name that ``--kernel`` gives."""

    def pytest_generate_tests(self, metafunc: Any) -> None:
        type(self).kernels = metafunc.config.option.kernel
        super().pytest_generate_tests(metafunc)
