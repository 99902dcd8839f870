"""What became of each promise of a kernel, for a reader and as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..contract.specs import KernelSpec
from .subject import Failure


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
