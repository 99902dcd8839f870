"""The conformance of a kernel: every promise, on every combination of library and dtype that it declares.

Needs no pytest; ``parametrization.py`` and ``plugin.py`` bring it there.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace

from .. import checks
from ..contract.specs import KernelSpec
from ..errors import PluginWarning
from .bits import BITS
from .conduct import CONDUCT, many_elements
from .declaration import DECLARATION, declaration, import_light, plan_pickles
from .edges import Case
from .memory import ArrayLibrary
from .promises import NUMBERS, Promise, infinities, masked_tiles, not_numbers, strange_labels, ties, tiny_losses
from .registration import Deviation, hooks_of, registered, subjects_of, told_by_plugins
from .reports import Report, Result
from .subject import Failure, NotRun, Outcome, Subject

QUICK = (declaration, tiny_losses, ties, infinities, not_numbers, masked_tiles, strange_labels)
"""The promises of a quick look, beside that what is declared is selected."""
FEW = 3
"""Failures of one promise that are kept; all are counted."""


def extra_cases(subject: Subject) -> Iterator[Outcome]:
    """The cases that the plugin itself adds are right."""
    added = [one for one in told_by_plugins(subject.spec) if isinstance(one, Case)]
    mine = [one for one in added if one.logits.dtype.name == subject.dtype]
    if not mine:
        raise NotRun("its plugin adds none in xent_conformance")
    yield from subject.judged(subject.in_every_way(mine))


PROMISES: dict[str, Promise] = {one.__name__: one for one in (*DECLARATION, *NUMBERS, extra_cases, *CONDUCT, *BITS)}
"""Every promise by its name, in the order in which they are looked at."""
ONCE = {one.__name__ for one in (declaration, import_light, plan_pickles, many_elements)}
"""Those that no dtype changes."""


def promise_of(check: str) -> str:
    """The sentence that a check holds a kernel to."""
    return (PROMISES[check].__doc__ or "").partition("\n")[0] if check in PROMISES else ""


def check_kernel(
    spec: KernelSpec,
    *,
    checks: str | Iterable[str] | None = None,
    quick: bool = False,
    library: ArrayLibrary | None = None,
    hooks: str = "",
) -> Report:
    """What a kernel keeps of what is promised of every kernel, and what it breaks.

    The cases are generated from the declaration: every combination of library, dtype, layout and method must be
    selected and right within the error budget, what is not declared must be declined with a reason. A kernel of which
    nothing can be tried is not a good one: ``ok`` is False.

    Parameters
    ----------
    spec : KernelSpec
        Registered already, or not: then it is while it is looked at.
    checks : str or iterable of str, optional
        Names of promises, of ``xent.testing.PROMISES``; all by default.
    quick : bool, optional
        A few promises only, as ``xent doctor`` looks at them.
    library : ArrayLibrary, optional
        How arrays are made, for a library that xent knows nothing of.
    hooks : str, optional
        "package.module" of the plugin's hooks; found by itself where the plugin is installed.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        If a check is unknown, a field of the spec means nothing, or another kernel of that name and op is registered.
    TypeError
        If ``spec`` is no KernelSpec.

    Notes
    -----
    Deterministic: the same kernel gets the same cases. The labels, scales and targets that a kernel is called with are
    those of the contract; what the user of a loss can pass beside is the core's work.

    Examples
    --------
    >>> import xent.testing
    >>> from xent.testing import check_kernel, registered_specs
    >>> (spec,) = (one for one in registered_specs("numpy") if one.op == "sparse")
    >>> report = check_kernel(spec, checks=["tiny_losses"])
    >>> report.ok
    True
    """
    wanted = names_of(checks, quick)
    results: dict[str, Result] = {}
    with registered(spec) as known:
        subjects, skipped = subjects_of(known, library, hooks or hooks_of(known))
        for number, subject in enumerate(subjects):
            for name in wanted:
                if number == 0 or name not in ONCE:
                    results[name] = joined(results.get(name), looked_at(subject, name))
        deviations = {one.check: one.reason for one in told_by_plugins(known) if isinstance(one, Deviation)}
    for name in deviations.keys() - PROMISES.keys():
        unknown = Failure("xent_conformance", f"declares a deviation from {name!r}, which is no promise")
        results[name] = Result(name, 0, 1, (unknown,))
    if "selected" in wanted and not subjects:
        nothing = Failure("what it declares", f"nothing of it can be tried here: {'; '.join(skipped) or 'it is empty'}")
        results["selected"] = Result("selected", 0, 1, (nothing,))
    found = (judged(one, deviations.get(one.check, "")) for one in results.values())
    return Report(known, tuple(found), tuple(skipped))


def names_of(asked: str | Iterable[str] | None, quick: bool) -> list[str]:
    """The names of the promises to look at."""
    if asked is None:
        return [one for one in PROMISES if not quick or one == "selected" or PROMISES[one] in QUICK]
    names = [asked] if isinstance(asked, str) else list(asked)
    for name in names:
        checks.choice("check_kernel", "checks", name, tuple(PROMISES))
    return names


def looked_at(subject: Subject, name: str) -> Result:
    """What becomes of a promise on one subject."""
    cases, broken, failures = 0, 0, list[Failure]()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PluginWarning)  # what it would tell is in the report
            for outcome in PROMISES[name](subject):
                cases += 1
                if outcome is not None:
                    broken += 1
                    failures = sorted([*failures, outcome], key=lambda one: -one.excess)[:FEW]
    except NotRun as reason:
        if not cases:
            return Result(name, 0, not_run=str(reason))
    except (Exception, SystemExit) as error:  # whatever the kernel, or its module's import, raises on the way
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} ({last.filename.rpartition('/')[2]}:{last.lineno})"
        cases, broken, failures = cases + 1, broken + 1, [Failure(subject.spec.name, what), *failures][:FEW]
    if not cases:
        return Result(name, 0, not_run="the kernel would be handed none of its cases")
    return Result(name, cases, broken, tuple(failures))


def joined(a: Result | None, b: Result) -> Result:
    """Two results of one promise, on two subjects, as one."""
    if a is None or (a.not_run and not b.not_run):
        return b
    if b.not_run:
        return a
    worst = sorted([*a.failures, *b.failures], key=lambda one: -one.excess)[:FEW]
    return Result(a.check, a.cases + b.cases, a.broken + b.broken, tuple(worst))


def judged(result: Result, deviation: str) -> Result:
    """The result in the light of a declared deviation, which must occur."""
    result = replace(result, sentence=promise_of(result.check))
    if not deviation or result.not_run or result.check not in PROMISES:
        return result
    if result.failures:
        return replace(result, deviation=deviation)
    untrue = Failure(result.check, f"is declared as a deviation ({deviation}), and was kept. Take the Deviation out.")
    return replace(result, broken=1, failures=(untrue,))
