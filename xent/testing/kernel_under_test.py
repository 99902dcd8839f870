"""A kernel under test, in one dtype of one library: it answers calls, and what is wrong with an answer is a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..contract.problem import NO_WEIGHTS, Options, Problem, Route
from ..contract.specs import KernelSpec
from ..dispatch import eligibility, settings
from ..dispatch.calls import problem_of
from ..losses import cross_entropy, sparse_cross_entropy
from .calls import Answer, Call, Violation, to_block
from .comparison import Fault, faults
from .edge_cases import Case, case_of, named_dtype
from .execution import Bench, load
from .memory import ArrayLibrary, lay
from .reports import Failure, NotRun, Outcome, described
from .snippets import snippet

Array = np.ndarray[Any, Any]
LOSSES: dict[str, Callable[..., Any]] = {"sparse": sparse_cross_entropy, "dense": cross_entropy}
METHODS = ("partial", "loss", "loss_and_partial", "gradient", "loss_and_gradient", "statistics")
FFI_METHODS = frozenset({"loss", "loss_and_gradient"})


@dataclass(frozen=True)
class KernelUnderTest:
    """A kernel in one dtype of one library.

    Attributes
    ----------
    spec : KernelSpec
    library : ArrayLibrary
    dtype : str
    hooks : str
        The module with the plugin's hooks; empty if it is not known.
    """

    spec: KernelSpec
    library: ArrayLibrary
    dtype: str
    hooks: str = ""

    # -------------------- what it declares

    @cached_property
    def bench(self) -> Bench:
        return Bench(load(self.spec.load), self.spec.op, self.library)

    @property
    def is_ffi(self) -> bool:
        """Whether JAX calls it, by its FFI targets."""
        return "ffi_target" in self.spec.methods

    @property
    def op(self) -> str:
        return self.spec.op

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The declared methods, the simplest first; a gradient needs the partial, so it is declared too."""
        declared = self.spec.methods | FFI_METHODS if self.is_ffi else self.spec.methods
        return tuple(method for method in METHODS if method in declared)

    @cached_property
    def outers(self) -> tuple[int, ...]:
        """The values of ``Call.outer`` in the declared layouts."""
        return (0, 1, 2, 3) if "middle" in self.spec.layouts else (0,)

    def outers_of(self, case: Case) -> tuple[int, ...]:
        """The values of ``Call.outer`` that divide the rows of a case."""
        return tuple(outer for outer in self.outers if not outer or len(case.labels) % outer == 0)

    @cached_property
    def serves_smoothing(self) -> bool:
        """Whether it serves label smoothing."""
        return not self.reasons_against(self.problem(label_smoothing=0.1))

    def passes_guard(self, block: Array, form: str = "plain") -> bool:
        """Whether the guard accepts a block; False if it raises, which is a failure of the promise ``declaration``."""
        guard = self.spec.guard_of(self.dtype, block.ndim, 1)
        if guard is None:
            return True
        array = lay(block, form, self.library).array
        try:
            return bool(guard(tuple(array.shape), tuple(getattr(array, "strides", ()) or ())))
        except Exception:  # a plugin's guard may raise anything
            return False

    def accepts(self, call: Call) -> bool:
        """Whether dispatch would make such a call: the guard accepts the block, and its targets are served.

        JAX without x64 has no labels of 64 bits, so that no kernel of its can meet them.
        """
        labels = call.case.labels
        if (
            self.is_ffi
            and self.op == "sparse"
            and np.any(self.library.to_numpy(self.library.asarray(labels)) != labels)
        ):
            return False
        if (call.case.on, call.case.off) != (1.0, 0.0) and (call.method == "statistics" or not self.serves_smoothing):
            return False
        return self.passes_guard(to_block(call.case.logits, call.outer), call.form)

    def in_blocks(self, call: Call) -> Iterator[Call]:
        """The call, or calls on blocks of its rows that have no more elements than ``block_elements``."""
        rows, classes = call.case.logits.shape
        step = rows if self.spec.block_elements is None else max(1, self.spec.block_elements // classes)
        if rows <= step:
            yield call
            return
        for first in range(0, rows, step):
            yield call.rows(first, min(first + step, rows))

    # -------------------- calls of the public functions

    @cached_property
    def example(self) -> Case:
        """Some ordinary rows, of the first shape that the guard accepts."""
        for rows, classes in ((6, 7), (6, 8), (6, 64), (6, 1024), (128, 64), (128, 4096), (1024, 128)):
            case = self.ordinary_case(rows, classes)
            if self.passes_guard(case.logits):
                return case
        raise NotRun("its guard lets no ordinary shape pass")

    def ordinary_case(self, rows: int, classes: int) -> Case:
        x = np.random.default_rng([rows, classes]).standard_normal((rows, classes)) * 3
        return case_of(f"{rows} ordinary rows", x, named_dtype(self.dtype))

    def public_arguments(self, case: Case) -> tuple[Any, Any]:
        """The logits and targets of a case, as a user of the library passes them."""
        return tuple(
            self.library.asarray(np.array(array)) for array in (case.logits, case.target_arguments(self.op)[0])
        )

    def problem(
        self, method: str = "loss", dtype: str = "", library: ArrayLibrary | None = None, **options: Any
    ) -> Problem:
        """The facts of a call on ordinary rows, by default in this dtype and library."""
        other = replace(self, dtype=dtype or self.dtype, library=library or self.library)
        route = Route(LOSSES[self.op].__name__, self.op, method)
        logits, targets = other.public_arguments(other.ordinary_case(*self.example.logits.shape))
        return problem_of(settings.current(), route, logits, targets, Options(**options), NO_WEIGHTS)

    def reasons_against(self, problem: Problem) -> list[str]:
        """Every reason for which dispatch would not choose this kernel."""
        return list(eligibility.why_not(self.spec, problem, settings.Settings(kernel=self.spec.name)))

    # -------------------- calls of the kernel

    def answer(self, call: Call) -> Answer | Failure:
        """The answer to a call, or a failure if it raises or violates the contract."""
        try:
            return self.bench.answer(call)
        except Violation as violation:
            return self.failure(call, str(violation))
        except Exception as error:  # a kernel may raise anything
            return self.failure(call, described(error))

    def faults(self, call: Call) -> list[Fault] | Failure:
        """Every error in the answer to a call, or a failure if there is no answer."""
        answer = self.answer(call)
        return answer if isinstance(answer, Failure) else list(faults(call, answer, self.op, self.library.flushes))

    def failure(self, call: Call, what: str, excess: float = np.inf) -> Failure:
        return Failure(str(call), what, excess, calls=(call,))

    def with_snippet(self, failure: Failure) -> Failure:
        """The failure with code that shows it, if it has calls; writing it takes longer than a call."""
        if not failure.calls:
            return failure
        return replace(failure, snippet=snippet(self.spec, self.library, *failure.calls), calls=())

    def outcome(self, call: Call) -> Outcome:
        """The outcome of a call; an error is shown on its row alone, if it occurs there too."""
        found = self.faults(call)
        if isinstance(found, Failure):
            return found
        if not found:
            return None
        worst = max(found, key=lambda fault: fault.excess)
        row = call.rows(worst.row, worst.row + 1)
        found = self.faults(row)
        if isinstance(found, list) and found:
            call, worst = row, max(found, key=lambda fault: fault.excess)
        return self.failure(call, worst.what, worst.excess)

    def outcomes(self, calls: Iterable[Call]) -> Iterator[Outcome]:
        """The outcome of each call that dispatch would make, block by block."""
        for whole in calls:
            for call in self.in_blocks(whole):
                if self.accepts(call):
                    yield self.outcome(call)

    def calls_on(self, cases: Iterable[Case]) -> Iterator[Call]:
        """Calls of every method on every case in every layout."""
        for case in cases:
            for method in self.methods:
                for outer in self.outers_of(case):
                    yield Call(method, case, outer=outer)


Promise = Callable[[KernelUnderTest], Iterator[Outcome]]
"""A promise of every kernel: it generates an outcome for each case that it tries."""
