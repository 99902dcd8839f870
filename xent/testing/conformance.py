"""The conformance of a kernel: every promise, on every combination of library and dtype that it declares.

Needs no pytest; ``parametrization.py`` and ``plugin.py`` bring it there.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from .. import checks, declarations
from ..errors import PluginWarning
from ..hookspecs import hookimpl
from ..kernels import KernelSpec
from ..registry import GROUP, registry
from .conduct import CONDUCT, many_elements
from .declaration import DECLARATION, DTYPES, declaration, import_light, plan_pickles
from .edges import Case, named_dtype
from .memory import ArrayLibrary, array_library
from .promises import NUMBERS, Promise, infinities, masked_tiles, not_numbers, strange_labels, ties, tiny_losses
from .subject import Failure, NotRun, Outcome, Subject

DEVICES = {"numpy": "cpu", "torch": "cpu", "jax": "cpu", "array_api_strict": "cpu", "cupy": "cuda"}
"""Where the arrays are that the kit makes."""
QUICK = (declaration, tiny_losses, ties, infinities, not_numbers, masked_tiles, strange_labels)
"""The promises of a quick look, beside that what is declared is selected."""
FEW = 3
"""Failures of one promise that are kept; all are counted."""


def extra_cases(subject: Subject) -> Iterator[Outcome]:
    """The cases that the plugin itself adds are right."""
    added = [one for one in told_by_plugin(subject.spec) if isinstance(one, Case)]
    mine = [one for one in added if one.logits.dtype.name == subject.dtype]
    if not mine:
        raise NotRun("its plugin adds none in xent_conformance")
    yield from subject.judged(subject.in_every_way(mine))


PROMISES: dict[str, Promise] = {one.__name__: one for one in (*DECLARATION, *NUMBERS, extra_cases, *CONDUCT)}
"""Every promise by its name, in the order in which they are looked at."""
ONCE = {one.__name__ for one in (declaration, import_light, plan_pickles, many_elements)}
"""Those that no dtype changes."""


@dataclass(frozen=True)
class Deviation:
    """A promise that a kernel is known not to keep, as its plugin says in ``xent_conformance``.

    It must be broken: a deviation that does not occur is a failure of its own.

    Parameters
    ----------
    check : str
        The name of the promise.
    reason : str
    """

    check: str
    reason: str


@dataclass(frozen=True)
class Result:
    """What became of one promise.

    Attributes
    ----------
    check : str
        Its name.
    cases : int
        How many were tried.
    broken : int
        In how many it was not kept.
    failures : tuple of Failure
        The worst of them.
    not_run : str
        Why there was no case; empty where there were some.
    deviation : str
        The reason that the plugin gives for not keeping it.
    """

    check: str
    cases: int
    broken: int = 0
    failures: tuple[Failure, ...] = ()
    not_run: str = ""
    deviation: str = ""

    @property
    def ok(self) -> bool:
        return not self.failures or bool(self.deviation)

    def __str__(self) -> str:
        if self.not_run:
            return f"  not run  {self.check:<20} {self.not_run}"
        if not self.failures:
            return f"  kept     {self.check:<20} {self.cases} cases"
        if self.deviation:
            return f"  deviates {self.check:<20} as its plugin says: {self.deviation}"
        head = f"  BROKEN   {self.check:<20} in {self.broken} of {self.cases} cases. {promise_of(self.check)}"
        told = [f"    {failure}" for failure in self.failures]
        code = self.failures[0].snippet.splitlines()
        return "\n".join([head, *told, *([""] if code else []), *(f"        {line}" for line in code)])


@dataclass(frozen=True)
class Report:
    """What became of every promise; ``str()`` of it is a table, with code that shows the worst case of each failure.

    Attributes
    ----------
    spec : KernelSpec
    results : tuple of Result
    skipped : tuple of str
        What is declared and cannot be tried here, and why.
    """

    spec: KernelSpec
    results: tuple[Result, ...]
    skipped: tuple[str, ...] = ()

    @property
    def cases(self) -> int:
        """How many cases were tried."""
        return sum(one.cases for one in self.results)

    @property
    def selected(self) -> int:
        """How many combinations of what is declared the kernel served."""
        return sum(one.cases - one.broken for one in self.results if one.check == "selected")

    @property
    def ok(self) -> bool:
        """Whether every promise that was looked at was kept, and there was one to look at."""
        return self.cases > 0 and all(one.ok for one in self.results)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The worst failures of every promise."""
        return tuple(failure for one in self.results if not one.ok for failure in one.failures)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        results = [
            {
                "check": one.check,
                "ok": one.ok,
                "cases": one.cases,
                "broken": one.broken,
                "not_run": one.not_run,
                "deviation": one.deviation,
                "failures": [{"where": f.where, "what": f.what, "snippet": f.snippet} for f in one.failures],
            }
            for one in self.results
        ]
        return {
            "kernel": self.spec.name,
            "op": self.spec.op,
            "ok": self.ok,
            "cases": self.cases,
            "skipped": list(self.skipped),
            "results": results,
        }

    def __str__(self) -> str:
        kept = sum(one.ok and not one.not_run for one in self.results)
        broken, idle = sum(not one.ok for one in self.results), sum(bool(one.not_run) for one in self.results)
        counts = f"{kept} promises kept, {broken} broken, {idle} not run; {self.cases} cases"
        head = f"{self.spec.name} ({self.spec.op}): {counts}"
        if not self.cases:
            head += "\n  NOTHING of what it declares could be tried"
        return "\n".join([head, *map(str, self.results), *(f"  not here {one}" for one in self.skipped)])


def promise_of(check: str) -> str:
    """The sentence that a check holds a kernel to."""
    return (PROMISES[check].__doc__ or "").partition("\n")[0]


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
        deviations = {one.check: one.reason for one in told_by_plugin(known) if isinstance(one, Deviation)}
    if "selected" in wanted and not subjects:
        nothing = Failure("what it declares", f"nothing of it can be tried here: {'; '.join(skipped) or 'it is empty'}")
        results["selected"] = Result("selected", 0, 1, (nothing,))
    return Report(known, tuple(judged(one, deviations.get(one.check, "")) for one in results.values()), tuple(skipped))


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
    if not deviation or result.not_run:
        return result
    if result.failures:
        return replace(result, deviation=deviation)
    untrue = Failure(result.check, f"is declared as a deviation ({deviation}), and was kept. Take the Deviation out.")
    return replace(result, broken=1, failures=(untrue,))


# -------------------- the kernel and its plugin


@functools.lru_cache(maxsize=64)
def told_by_plugin(spec: KernelSpec) -> tuple[Any, ...]:
    """What every plugin's ``xent_conformance`` says of the kernel."""
    return tuple(one for many in registry.manager.hook.xent_conformance(spec=spec) for one in many or ())


@dataclass(frozen=True)
class Carrier:
    """A plugin of one kernel."""

    spec: KernelSpec = field(hash=False)

    @hookimpl
    def xent_register_kernels(self) -> list[KernelSpec]:
        return [self.spec]


@contextlib.contextmanager
def registered(spec: KernelSpec) -> Iterator[KernelSpec]:
    """The spec as the registry has it; registered meanwhile where it is not."""
    spec = declarations.checked(spec, KernelSpec)
    registry.load()
    found = next((one for one in registry.kernels if (one.op, one.name) == (spec.op, spec.name)), None)
    if found is not None and found != spec:
        raise ValueError(
            f"check_kernel: `spec` must be the registered kernel {spec.name!r} ({spec.op}) of {found.owner}, or have a "
            f"name of its own, got another. Rename it, or set XENT_DISABLE={found.owner}."
        )
    if found is not None:
        yield found
        return
    name = f"{spec.name} under test"
    registry.add(Carrier(spec), name)
    try:
        yield next((one for one in registry.kernels if one.owner == name), spec)
    finally:
        if registry.manager.has_plugin(name):
            registry.remove(name)
        registry.records.pop(name, None)
        told_by_plugin.cache_clear()


def registered_specs(name: str) -> list[KernelSpec]:
    """The registered kernels of that name, one for each op."""
    registry.load()
    return [one for one in registry.kernels if one.name == name]


def hooks_of(spec: KernelSpec) -> str:
    """The module with the hooks of an installed plugin's kernel, as its entry point has it; else empty."""
    entries = importlib.metadata.entry_points(group=GROUP)
    return next((entry.value for entry in entries if entry.name == spec.owner), "")


def subjects_of(spec: KernelSpec, given: ArrayLibrary | None, hooks: str) -> tuple[list[Subject], list[str]]:
    """The kernel in every declared library and dtype that is at hand, and why others are not."""
    skipped, subjects = [], []
    libraries = []
    for name in [given.name] if given else sorted(spec.arrays - {"*"}) or ["numpy"]:
        device = DEVICES.get(name, "cpu")
        if device not in spec.devices and "*" not in spec.devices:
            skipped.append(f"{name} on {', '.join(sorted(spec.devices))}: the kit makes its arrays on {device}")
            continue
        try:
            libraries.append(given or array_library(name))
        except (ImportError, RuntimeError, LookupError) as error:
            skipped.append(f"{name}: {error}")
    for library in libraries:
        for dtype in (one for one in DTYPES if one in spec.dtypes or "*" in spec.dtypes):
            subject = Subject(spec, library, dtype, hooks)
            try:
                named_dtype(dtype)
                subject.arguments(subject.example())
            except Exception as error:  # a library may refuse a dtype in its own way
                skipped.append(f"{dtype} on {library.name}: {type(error).__name__}: {error}")
            else:
                subjects.append(subject)
    return subjects, skipped
