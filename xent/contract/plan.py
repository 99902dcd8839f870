"""How one kind of call is carried out, and why: the plan that a backend follows, and the decision behind it.

Leaves out how a kernel is chosen (``dispatch/``) and how its numbers are put to use (``backends/``).
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .. import checks, errors
from .problem import Problem, Weights


@dataclass(frozen=True, slots=True)
class Verdict:
    """One candidate of a decision: whether it is chosen, the reasons against it, and the wall time of judging it."""

    kernel: str
    owner: str
    chosen: bool
    reasons: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Decision:
    """Which kernel serves a problem, and the reason against every other one.

    Attributes
    ----------
    problem : Problem
    backend : str
        The schedule.
    kernel : str
        The winner.
    verdicts : tuple of Verdict
        Every candidate, in the order in which they were considered.
    inner : Decision or None
        The decision for the chunks, or for the other view of the memory; the kernel that computes is its.
    """

    problem: Problem
    backend: str
    kernel: str
    verdicts: tuple[Verdict, ...]
    inner: Decision | None = None

    def to_dict(self) -> dict[str, Any]:
        """The decision as plain data, for JSON."""
        rows = [asdict(verdict) | {"reasons": list(verdict.reasons)} for verdict in self.verdicts]
        inner = self.inner.to_dict() if self.inner else None
        return {
            "problem": str(self.problem),
            "backend": self.backend,
            "kernel": self.kernel,
            "verdicts": rows,
            "inner": inner,
        }

    def __str__(self) -> str:
        lines = [f"{self.problem} -> {self.kernel} (schedule: {self.backend})"]
        width = max((len(verdict.kernel) for verdict in self.verdicts), default=0)
        for verdict in self.verdicts:
            reason = "; ".join(verdict.reasons) or ("chosen" if verdict.chosen else "eligible, comes later")
            name = f"{'*' if verdict.chosen else ' '} {verdict.kernel:<{width}}"
            lines.append(f"  {name}  {reason}  ({verdict.owner})  {verdict.seconds * 1e6:.1f} µs")
        if self.inner is not None:
            lines += ["  " + line for line in str(self.inner).splitlines()]
        return "\n".join(lines)


class Prepared:
    """What the schedule of a plan makes of it at its first call; no part of the plan's value, and not pickled."""

    __slots__ = ("prepared",)
    prepared: Any

    def prepare(self, make: Callable[[Any], Any]) -> Any:
        """make(self), made once in this process."""
        try:
            return self.prepared
        except AttributeError:
            object.__setattr__(self, "prepared", make(self))
            return self.prepared


@dataclass(frozen=True, slots=True)
class Plan(Prepared):
    """The plan of one kind of call: made by ``dispatch/composition.py``, followed by a backend. It pickles small."""

    problem: Problem
    run: Callable[..., Any]
    """The backend's ``run(plan, predictions, targets, weights)``, with ``out`` too if ``takes_out``; of a module."""
    kernel: str
    load: str
    block_elements: int | None = None
    methods: frozenset[str] = frozenset()
    layouts: frozenset[str] = frozenset({"last"})
    guard: Callable[[tuple[int, ...], tuple[int, ...]], bool] | None = None
    otherwise: Plan | None = None
    """The plan to follow if the guard declines."""
    inner: Plan | None = None
    forced: bool = False
    owner: str = ""
    decision: Decision | None = field(default=None, compare=False, repr=False)
    in_place: bool = False
    takes_out: bool = False

    def __call__(self, predictions: Any, targets: Any, weights: Weights) -> Any:
        plan = self if self.guard is None else self.for_call(predictions)
        return plan.run(plan, predictions, targets, weights)

    def for_call(
        self,
        predictions: Any,
        strides: tuple[int, ...] | None = None,
        set_aside: Callable[[str, BaseException], Any] | None = None,
    ) -> Plan:
        """This plan, or the first after it whose guard lets the call pass; a guard that breaks does not.

        ``strides`` are in bytes, by default the array's own; ``set_aside(owner, error)`` is called for
        a guard that breaks. Raises ValueError where the guard of a forced kernel says no.
        """
        plan, shape = self, tuple(predictions.shape)
        strides = tuple(getattr(predictions, "strides", None) or ()) if strides is None else strides
        while plan.guard is not None:
            try:
                if plan.guard(shape, strides):
                    break
            except BaseException as error:  # a plugin's guard may raise anything
                if errors.is_interrupt(error):
                    raise
                if set_aside is not None:
                    set_aside(plan.owner, error)
            plan = checks.next_plan(plan, predictions)
        return plan

    def with_kernel(self) -> tuple[Plan, Any]:
        """This plan, and the object with its kernel's methods.

        If this process cannot import that, the plan with the generic kernel in its place, with a warning; a forced
        kernel's error is raised.
        """
        try:
            return self, resolve(self.load)
        except BaseException as error:  # a library that is missing is an OSError, a wrong name another
            if self.forced or errors.is_interrupt(error):
                raise
            warn_once(
                f"kernel {self.kernel!r} of {self.owner} cannot be imported here ({errors.summary(error)}); generic "
                "takes its place."
            )
        spec = resolve("xent.backends.generic:KERNELS")[self.problem.op]
        plan = replace(
            self,
            kernel=spec.name,
            load=spec.load,
            block_elements=spec.block_elements,
            methods=spec.methods,
            layouts=spec.layouts,
            in_place=spec.in_place,
        )
        return plan, resolve(plan.load)


@functools.lru_cache(maxsize=256)
def resolve(load: str) -> Any:
    """The object that "package.module:name" names."""
    module, _, name = load.partition(":")
    value: Any = importlib.import_module(module)
    for part in name.split("."):
        value = getattr(value, part)
    return value


@functools.lru_cache(maxsize=1024)
def warn_once(message: str) -> None:
    """Warns with a PluginWarning, once for each message in a process."""
    warnings.warn(f"xent: {message}", errors.PluginWarning, stacklevel=2)
