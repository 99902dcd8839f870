"""The conformance of kernels as tests of pytest, one for each promise; one that cannot be tried is skipped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..contract.specs import KernelSpec
from .conformance import check_kernel
from .promises import PROMISES
from .registration import registered_specs


def specs_of(kernels: str | Iterable[KernelSpec]) -> list[KernelSpec]:
    """The specs, or those registered under a name. Raises ValueError if there are none."""
    specs = registered_specs(kernels) if isinstance(kernels, str) else list(kernels)
    if not specs:
        raise ValueError(
            f"KernelConformance: `kernels` must name a registered kernel, got {kernels!r}. Is its plugin installed? "
            "`xent plugins` lists them."
        )
    return specs


def parameters(kernels: str | Iterable[KernelSpec]) -> tuple[list[tuple[KernelSpec, str]], list[str]]:
    """Every pair of a kernel and a promise, and the tests' ids."""
    pairs = [(spec, check) for spec in specs_of(kernels) for check in PROMISES]
    return pairs, [f"{spec.name}-{spec.op}-{check}" for spec, check in pairs]


def parametrize_with_checks(kernels: str | Iterable[KernelSpec]) -> Any:
    """A decorator for a test that takes ``spec`` and ``check``: it runs for every kernel and every promise.

    Parameters
    ----------
    kernels : str or iterable of KernelSpec
        The name of a registered kernel, or specs.

    Raises
    ------
    ValueError
        If no kernel of that name is registered.

    Examples
    --------
    >>> from xent.testing import check_kernel, parametrize_with_checks
    >>> @parametrize_with_checks("numpy")
    ... def test_my_kernel(spec, check):
    ...     report = check_kernel(spec, checks=[check])
    ...     assert report.ok or report.results[0].not_run, str(report)
    """
    import pytest

    pairs, ids = parameters(kernels)
    return pytest.mark.parametrize(("spec", "check"), pairs, ids=ids)


class KernelConformance:
    """A test class to subclass: every promise, on the kernels that ``kernels`` names or lists.

    Examples
    --------
    >>> class TestMine(KernelConformance):
    ...     kernels = "numpy"
    """

    kernels: str | Iterable[KernelSpec] = ()

    def pytest_generate_tests(self, metafunc: Any) -> None:
        if {"spec", "check"} <= set(metafunc.fixturenames):
            pairs, ids = parameters(self.kernels)
            metafunc.parametrize(("spec", "check"), pairs, ids=ids)

    def test_a_promise_is_kept(self, spec: KernelSpec, check: str) -> None:
        """Fails with the report; skips with the reason if the promise cannot be tried."""
        import pytest

        report = check_kernel(spec, checks=[check])
        if not report.results:
            pytest.skip(f"{spec.name}: {'; '.join(report.skipped)}")
        (result,) = report.results
        if result.not_run:
            pytest.skip(f"{spec.name}: {result.not_run}")
        if result.deviation and result.failures:
            pytest.xfail(result.deviation)
        if not report.ok:
            pytest.fail(str(report), pytrace=False)
