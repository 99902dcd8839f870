"""The conformance of a kernel: every promise, on every combination of library and dtype that it declares.

Needs no pytest; ``parametrization.py`` and ``plugin.py`` are for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace

from .. import checks
from ..contract.specs import KernelSpec
from ..errors import PluginWarning
from .kernel_under_test import KernelUnderTest
from .memory import ArrayLibrary
from .promises import ONCE, PROMISES, QUICK
from .registration import Deviation, hooks_of, kernels_under_test, plugin_statements, registered
from .reports import Failure, NotRun, Report, Result, described

KEPT_FAILURES = 3
"""The number of failures of one promise that a result has; all are counted."""


def check_kernel(
    spec: KernelSpec,
    *,
    checks: str | Iterable[str] | None = None,
    quick: bool = False,
    library: ArrayLibrary | None = None,
    hooks: str = "",
) -> Report:
    """A report on which promises a kernel keeps, and which it breaks.

    The cases are generated from the declaration: every combination of library, dtype, layout and method must be
    selected and right within the error budget, and what is not declared must be declined with a reason. If nothing of
    a kernel can be tried, the report's ``ok`` is False.

    Parameters
    ----------
    spec : KernelSpec
        Registered, or not: then it is registered during the check.
    checks : str or iterable of str, optional
        Names of promises, of ``xent.testing.PROMISES``; all by default.
    quick : bool, optional
        Only the few promises that ``xent doctor`` tries.
    library : ArrayLibrary, optional
        How arrays are made, for a library that xent does not know.
    hooks : str, optional
        "package.module" of the plugin's hooks; by default that of the installed plugin's entry point.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        If a check is unknown, a field of the spec is invalid, or another kernel of that name and op is registered.
    TypeError
        If ``spec`` is no KernelSpec.

    Notes
    -----
    Deterministic: the same kernel gets the same cases. A kernel is called with the labels, scales and targets of the
    contract; all else that a user of a loss can pass is handled by the core.

    Examples
    --------
    >>> import xent.testing
    >>> from xent.testing import check_kernel, registered_specs
    >>> (spec,) = (spec for spec in registered_specs("numpy") if spec.op == "sparse")
    >>> report = check_kernel(spec, checks=["tiny_losses"])
    >>> report.ok
    True
    """
    names = names_of(checks, quick)
    results: dict[str, Result] = {}
    with registered(spec) as known:
        kernels, skipped = kernels_under_test(known, library, hooks or hooks_of(known))
        for number, kernel in enumerate(kernels):
            for name in names:
                if number == 0 or PROMISES[name] not in ONCE:
                    result = result_of(kernel, name)
                    results[name] = joined(results[name], result) if name in results else result
        statements = list(plugin_statements(known))
    deviations = {item.check: item.reason for item in statements if isinstance(item, Deviation)}
    for name in deviations.keys() - PROMISES.keys():
        unknown = Failure("xent_conformance", f"declares a deviation from {name!r}, which is no promise")
        results[name] = Result(name, 0, 1, (unknown,))
    if "selected" in names and not kernels:
        nothing = Failure("what it declares", f"nothing of it can be tried here: {'; '.join(skipped) or 'it is empty'}")
        results["selected"] = Result("selected", 0, 1, (nothing,))
    final = (with_deviation(result, deviations.get(name, "")) for name, result in results.items())
    return Report(known, tuple(final), tuple(skipped))


def names_of(requested: str | Iterable[str] | None, quick: bool) -> list[str]:
    """The names of the promises to try."""
    if requested is None:
        return [name for name, promise in PROMISES.items() if not quick or promise in QUICK]
    names = [requested] if isinstance(requested, str) else list(requested)
    for name in names:
        checks.choice("check_kernel", "checks", name, tuple(PROMISES))
    return names


def result_of(kernel: KernelUnderTest, name: str) -> Result:
    """The result of a promise on a kernel in one dtype of one library."""
    cases, broken, failures = 0, 0, list[Failure]()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PluginWarning)  # the report has what it would say
            for outcome in PROMISES[name](kernel):
                cases += 1
                if outcome is not None:
                    broken += 1
                    failures = worst([*failures, outcome])
    except NotRun as reason:
        if not cases:
            return Result(name, 0, not_run=str(reason))
    except (Exception, SystemExit) as error:  # the kernel, or the import of its module, may raise anything
        failure = Failure(kernel.spec.name, described(error))
        cases, broken, failures = cases + 1, broken + 1, [failure, *failures][:KEPT_FAILURES]
    if not cases:
        return Result(name, 0, not_run="the kernel would be handed none of its cases")
    return Result(name, cases, broken, tuple(kernel.with_snippet(failure) for failure in failures))


def worst(failures: list[Failure]) -> list[Failure]:
    """The failures that a result keeps, the worst first."""
    return sorted(failures, key=lambda failure: -failure.excess)[:KEPT_FAILURES]


def joined(a: Result, b: Result) -> Result:
    """Two results of one promise, in two dtypes or libraries, as one."""
    if a.not_run and not b.not_run:
        return b
    if b.not_run:
        return a
    return Result(a.check, a.cases + b.cases, a.broken + b.broken, tuple(worst([*a.failures, *b.failures])))


def with_deviation(result: Result, reason: str) -> Result:
    """The result with its promise's sentence and the reason of a declared deviation, which must occur."""
    if result.check not in PROMISES:
        return result
    result = replace(result, sentence=(PROMISES[result.check].__doc__ or "").partition("\n")[0])
    if not reason or result.not_run:
        return result
    if result.failures:
        return replace(result, deviation=reason)
    untrue = Failure(result.check, f"is declared as a deviation ({reason}), and was kept. Take the Deviation out.")
    return replace(result, broken=1, failures=(untrue,))
