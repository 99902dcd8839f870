"""A kernel under test in one dtype of one library: calls are made of it, and told where they go wrong."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..contract.plan import resolve
from ..contract.problem import NO_WEIGHTS, Options, Problem, Route
from ..contract.specs import KernelSpec
from ..dispatch import eligibility, selection, settings
from ..losses import cross_entropy, sparse_cross_entropy
from .calls import Answer, Bench, Call, Violation, to_block
from .edges import Case, case_of, named_dtype
from .memory import ArrayLibrary, lay
from .snippets import snippet
from .verdicts import Fault, faults

Array = np.ndarray[Any, Any]
LOSSES = {"sparse": sparse_cross_entropy, "dense": cross_entropy}


class NotRun(Exception):
    """A promise that cannot be looked at here, and why."""


@dataclass(frozen=True)
class Failure:
    """One promise broken.

    Attributes
    ----------
    where : str
        The call.
    what : str
        What came, what is right, how far apart.
    excess : float
        By how many times the budget it is off; inf where that is not a matter of digits.
    snippet : str
        Code that shows it.
    """

    where: str
    what: str
    excess: float = np.inf
    snippet: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


Outcome = Failure | None
"""What comes of one case: nothing, where all is well."""


@dataclass(frozen=True)
class Subject:
    """A kernel under test."""

    spec: KernelSpec
    library: ArrayLibrary
    dtype: str
    hooks: str = ""
    """The module with the plugin's hooks; empty where it is not known."""

    @cached_property
    def bench(self) -> Bench:
        return Bench(resolve(self.spec.load), self.spec.op, self.library)

    @property
    def op(self) -> str:
        return self.spec.op

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The declared methods, the simplest first; a gradient needs the partial, so it is there too."""
        every = ("partial", "loss", "gradient", "loss_and_gradient", "statistics")
        return tuple(one for one in every if one in self.spec.methods)

    @cached_property
    def outers(self) -> tuple[int, ...]:
        """The layouts, as calls have them."""
        return (0, 1, 2, 3) if "middle" in self.spec.layouts else (0,)

    @cached_property
    def example(self) -> Case:
        """Some ordinary rows, of the first shape that the guard lets pass."""
        for rows, classes in ((6, 7), (6, 8), (6, 64), (6, 1024), (128, 64), (128, 4096), (1024, 128)):
            case = self.ordinary(rows, classes)
            if self.passes(case.logits):
                return case
        raise NotRun("its guard lets no ordinary shape pass")

    def passes(self, block: Array, form: str = "plain") -> bool:
        """Whether the guard, where there is one, lets a block pass; one that breaks does not: `declaration` tells."""
        guard = self.spec.guard_of(self.dtype, block.ndim, 1)
        if guard is None:
            return True
        array = lay(block, form, self.library).array
        try:
            return bool(guard(tuple(array.shape), tuple(getattr(array, "strides", ()) or ())))
        except Exception:  # a plugin's guard may raise anything
            return False

    def ordinary(self, rows: int, classes: int) -> Case:
        """So many ordinary rows."""
        x = np.random.default_rng([rows, classes]).standard_normal((rows, classes)) * 3
        return case_of(f"{rows} ordinary rows", x, named_dtype(self.dtype))

    def arguments(self, case: Case) -> tuple[Any, Any]:
        """The case as a user of the library would pass it."""
        return self.library.asarray(np.array(case.logits)), self.library.asarray(np.array(case.told(self.op)[0]))

    def problem(
        self, method: str = "loss", dtype: str = "", library: ArrayLibrary | None = None, **options: Any
    ) -> Problem:
        """The facts of a call on ordinary rows, in this dtype and library unless others are named."""
        other = replace(self, dtype=dtype or self.dtype, library=library or self.library)
        route = Route(LOSSES[self.op].__name__, self.op, method)
        logits, target = other.arguments(other.ordinary(*self.example.logits.shape))
        return selection.problem_of(settings.current(), route, logits, target, Options(**options), NO_WEIGHTS)

    def reasons(self, problem: Problem) -> list[str]:
        """Every reason against the kernel, from the predicate that selection uses."""
        return list(eligibility.why_not(self.spec, problem, settings.Settings(kernel=self.spec.name)))

    @cached_property
    def smooths(self) -> bool:
        """Whether it takes smoothed targets."""
        return not self.reasons(self.problem(label_smoothing=0.1))

    def in_its_blocks(self, call: Call) -> Iterator[Call]:
        """The call, or its rows in turns where the kernel is never handed so many elements."""
        rows, classes = call.case.logits.shape
        step = rows if self.spec.block_elements is None else max(1, self.spec.block_elements // classes)
        if rows <= step:
            yield call
            return
        for first in range(0, rows, step):
            yield call.rows(first, min(first + step, rows))

    def admits(self, call: Call) -> bool:
        """Whether the kernel would be handed such a block: its guard, and what it serves."""
        if (call.case.on, call.case.off) != (1.0, 0.0) and (call.method == "statistics" or not self.smooths):
            return False
        return self.passes(to_block(call.case.logits, call.outer), call.form)

    def outers_of(self, case: Case) -> tuple[int, ...]:
        """The layouts in which the rows of a case can lie."""
        return tuple(one for one in self.outers if not one or len(case.labels) % one == 0)

    def failure(self, call: Call, what: str, excess: float = np.inf) -> Failure:
        return Failure(str(call), what, excess, snippet(self.spec, self.library, call))

    def answered(self, call: Call) -> Answer | Failure:
        """The answer to a call, or what went wrong on the way to it."""
        try:
            return self.bench.answer(call)
        except Violation as violation:
            return self.failure(call, str(violation))
        except Exception as error:  # a kernel may raise anything
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
            return self.failure(call, f"{type(error).__name__}: {error} ({place})")

    def faults(self, call: Call) -> list[Fault] | Failure:
        """What is wrong with the answer to a call."""
        answer = self.answered(call)
        return answer if isinstance(answer, Failure) else list(faults(call, answer, self.op, self.library.flushes))

    def judged(self, calls: Iterable[Call]) -> Iterator[Outcome]:
        """What comes of each call that the kernel would be handed; what is wrong is shown on one row, if that does."""
        for call in (part for whole in calls for part in self.in_its_blocks(whole)):
            if not self.admits(call):
                continue
            found = self.faults(call)
            if isinstance(found, Failure):
                yield found
            elif not found:
                yield None
            else:
                fault = max(found, key=lambda one: one.excess)
                alone = call.rows(fault.row, fault.row + 1)
                again = self.faults(alone)
                if isinstance(again, list) and again:
                    call, fault = alone, max(again, key=lambda one: one.excess)
                yield self.failure(call, fault.what, fault.excess)

    def in_every_way(self, cases: Iterable[Case]) -> Iterator[Call]:
        """Each case by every method in every layout."""
        for case in cases:
            for method in self.methods:
                for outer in self.outers_of(case):
                    yield Call(method, case, outer=outer)
