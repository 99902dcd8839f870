"""Whether promises are kept: the outcome of each case, the result of each promise, the report on all of them."""

from __future__ import annotations

import math
import traceback
from dataclasses import dataclass, field
from typing import Any

from ..contract.specs import KernelSpec


class NotRun(Exception):
    """The reason why a promise cannot be tried on a kernel."""


@dataclass(frozen=True)
class Failure:
    """A case in which a promise is broken.

    Attributes
    ----------
    where : str
        The call.
    what : str
        The answer, the right one, and how far apart they are; or an error.
    excess : float
        The error as a multiple of the budget; inf if it is not one of rounding.
    snippet : str
        Code that shows it.
    calls : tuple of Call
        The calls that the snippet is written from; empty if there are none, and in a report.
    """

    where: str
    what: str
    excess: float = math.inf
    snippet: str = ""
    calls: tuple[Any, ...] = field(default=(), repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


Outcome = Failure | None
"""The outcome of one case: None if the promise is kept."""


def described(error: BaseException) -> str:
    """An error in one line: its type, its message, the file and line that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename.rpartition('/')[2]}:{last.lineno})"


@dataclass(frozen=True)
class Result:
    """Whether one promise was kept.

    Attributes
    ----------
    check : str
        The promise's name.
    cases : int
        The number of cases tried.
    broken : int
        The number of cases in which it was not kept.
    failures : tuple of Failure
        The worst of these.
    not_run : str
        Why there was no case; empty if there were some.
    deviation : str
        The plugin's reason for not keeping it.
    sentence : str
        The promise in words.
    """

    check: str
    cases: int
    broken: int = 0
    failures: tuple[Failure, ...] = ()
    not_run: str = ""
    deviation: str = ""
    sentence: str = ""

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
        head = f"  BROKEN   {self.check:<20} in {self.broken} of {self.cases} cases. {self.sentence}"
        failures = [f"    {failure}" for failure in self.failures]
        code = self.failures[0].snippet.splitlines()
        return "\n".join([head, *failures, *([""] if code else []), *(f"        {line}" for line in code)])


@dataclass(frozen=True)
class Report:
    """The results of every promise; ``str()`` of it is a table, with code that shows the worst case of each failure.

    Attributes
    ----------
    spec : KernelSpec
    results : tuple of Result
    skipped : tuple of str
        Each declared combination that cannot be tried on this machine, and why.
    """

    spec: KernelSpec
    results: tuple[Result, ...]
    skipped: tuple[str, ...] = ()

    @property
    def cases(self) -> int:
        """The number of cases tried."""
        return sum(result.cases for result in self.results)

    @property
    def selected(self) -> int:
        """The number of declared combinations that the kernel served."""
        return sum(result.cases - result.broken for result in self.results if result.check == "selected")

    @property
    def ok(self) -> bool:
        """Whether there were cases, and every promise that was tried was kept."""
        return self.cases > 0 and all(result.ok for result in self.results)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The worst failures of every promise."""
        return tuple(failure for result in self.results if not result.ok for failure in result.failures)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        results = [
            {
                "check": result.check,
                "ok": result.ok,
                "cases": result.cases,
                "broken": result.broken,
                "not_run": result.not_run,
                "deviation": result.deviation,
                "failures": [{"where": f.where, "what": f.what, "snippet": f.snippet} for f in result.failures],
            }
            for result in self.results
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
        broken = sum(not result.ok for result in self.results)
        not_run = sum(bool(result.not_run) for result in self.results)
        kept = sum(result.ok and not result.not_run for result in self.results)
        counts = f"{kept} promises kept, {broken} broken, {not_run} not run; {self.cases} cases"
        head = f"{self.spec.name} ({self.spec.op}): {counts}"
        if not self.cases:
            head += "\n  NOTHING of what it declares could be tried"
        return "\n".join([head, *map(str, self.results), *(f"  not here {reason}" for reason in self.skipped)])
