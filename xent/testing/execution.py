"""How a call is made: its arguments in memory, the kernel's methods called on them, the results checked.

Leaves out which numbers are right (``comparison.py``).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from .. import arrays
from ..contract.plan import resolve
from ..numerics import fold
from ..numerics.fold import Partial
from ..numerics.statistics import Statistics, merge_statistics
from .budget import compute_dtype
from .calls import (
    OVER_THE_LOGITS,
    Answer,
    Call,
    Violation,
    from_block,
    label_logits,
    labels_form,
    targets_form,
    to_block,
)
from .edge_cases import Case
from .memory import ArrayLibrary, PoisonedArray, lay

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Bench:
    """A kernel, the op it is for, and the library of its arrays: all that it takes to make calls."""

    kernel: Any
    op: str
    library: ArrayLibrary

    def answer(self, call: Call) -> Answer:
        """The answer to a call.

        Raises Violation if a result has a wrong type, shape, dtype or memory, or if the kernel wrote to an input or
        beside ``out``.
        """
        with arrays.without_fp_warnings():
            return Execution(self, call).answer()


@dataclass(frozen=True)
class FfiKernel:
    """A kernel of FFI targets as one with methods, each called through JAX as xent's schedule calls it."""

    kernel: Any

    def loss(self, logits: Any, targets: Any, on: float = 1.0, off: float = 0.0, *, threads: int) -> Any:
        return self.call("loss", logits, targets, on=on, off=off)[0]

    def loss_and_gradient(self, logits: Any, targets: Any, *rest: Any, threads: int) -> tuple[Any, Any]:
        *options, scale = rest
        on, off = options or (1.0, 0.0)
        loss, gradient = self.call("loss_and_gradient", logits, targets, scale, on=on, off=off)
        return loss, gradient

    def partial(self, logits: Any, targets: Any, on: float = 1.0, off: float = 0.0, *, threads: int) -> Partial:
        return Partial(*self.call("partial", logits, targets, on=on, off=off))

    def statistics(self, logits: Any, labels: Any, label_logit: Any, *, threads: int) -> Statistics:
        *fields, label_rank, squares, spread = self.call("statistics", logits, labels, label_logit)
        return Statistics(Partial(*fields), label_rank, squares, spread)

    def call(self, method: str, *arrays: Any, **options: float) -> Any:
        primitives = importlib.import_module("xent.backends.jax.primitives")
        return primitives.primitive_of(self.kernel, method).bind(*arrays, **options)


def load(name: str) -> Any:
    """The kernel at "package.module:name" as an object with methods; one of FFI targets is called through JAX."""
    kernel = resolve(name)
    return FfiKernel(kernel) if hasattr(kernel, "ffi_target") else kernel


def answer_in_reused_memory(bench: Bench, call: Call, case: Case) -> Answer:
    """The answer to a second call, in the memory of the first and with the values of a case of the same shape."""
    with arrays.without_fp_warnings():
        execution = Execution(bench, call)
        execution.answer()
        for name in ("logits", "labels", "targets"):
            before = getattr(call.case, name)
            for memory in execution.inputs:
                if memory.array.shape == before.shape and same_bytes(bench.library.to_numpy(memory.array), before):
                    memory.array[...] = bench.library.asarray(np.array(getattr(case, name)))
        execution.case = case
        return ANSWERS[call.method](execution)


class Execution:
    """One call while it is made: the arrays that are passed to the kernel, and the checks of what it returns."""

    def __init__(self, bench: Bench, call: Call):
        self.bench, self.call, self.case, self.library = bench, call, call.case, bench.library
        self.compute_dtype = compute_dtype(self.case.logits.dtype)
        self.inputs: list[PoisonedArray] = []
        self.out: PoisonedArray | None = None
        self.arguments = [self.arguments_of(start, stop) for start, stop in call.spans]

    def arguments_of(self, start: int, stop: int) -> list[Any]:
        """The logits and the targets of a span of the classes."""
        logits = self.argument(to_block(self.case.logits[:, start:stop], self.call.outer), self.call.form)
        if self.bench.op == "dense":
            targets = to_block(self.case.targets[:, start:stop], self.call.outer)
            return [logits, self.argument(targets, targets_form(self.call))]
        with np.errstate(over="ignore"):
            labels = self.case.labels - start if start else self.case.labels
        return [logits, self.argument(labels, labels_form(self.call.form)), self.case.on, self.case.off]

    def argument(self, values: Array, form: str = "plain") -> Any:
        """The values as an array of the library in memory of that form; :meth:`answer` checks that it is unchanged."""
        self.inputs.append(lay(values, form, self.library, self.call.poison))
        return self.inputs[-1].array

    def call_method(self, method: str, arguments: list[Any], **keywords: Any) -> Any:
        return getattr(self.bench.kernel, method)(*arguments, threads=self.call.threads, **keywords)

    def answer(self) -> Answer:
        """The answer to the call. Raises Violation if an input was written to."""
        answer = ANSWERS[self.call.method](self)
        for memory in self.inputs:
            if not same_bytes(self.library.to_numpy(memory.base), memory.before):
                raise Violation("an input was written to")
        return answer

    def answer_partial(self) -> Answer:
        return Answer(partial=self.partial_of_all_classes())

    def answer_loss(self) -> Answer:
        (arguments,) = self.arguments
        out = self.new_out(self.compute_dtype, self.case.labels.shape)
        loss = self.checked_out(self.call_method("loss", arguments, **out))
        return Answer(loss=self.rows_of(loss, "loss"))

    def answer_loss_and_partial(self) -> Answer:
        (arguments,) = self.arguments
        loss, partial = self.call_method("loss_and_partial", arguments)
        return Answer(partial=self.merged([partial]), loss=self.rows_of(loss, "loss"))

    def answer_gradient(self) -> Answer:
        whole = self.partial_of_all_classes()
        partial = Partial(*(self.argument(field) for field in whole))
        scale = self.argument(self.call.scales)
        spans = []
        for arguments, (start, stop) in zip(self.arguments, self.call.spans, strict=True):
            out = self.new_out(self.case.logits.dtype, (len(self.case.labels), stop - start), arguments[0])
            block = self.call_method("gradient", [*arguments, partial, scale], **out)
            spans.append(self.gradient_of(self.checked_out(block), stop - start))
        return Answer(partial=whole, gradient=np.concatenate(spans, axis=1))

    def answer_loss_and_gradient(self) -> Answer:
        (arguments,) = self.arguments
        scale = self.argument(self.call.scales)
        out = self.new_out(self.case.logits.dtype, self.case.logits.shape, arguments[0])
        loss, block = self.call_method("loss_and_gradient", [*arguments, scale], **out)
        gradient = self.gradient_of(self.checked_out(block), self.case.logits.shape[1])
        return Answer(loss=self.rows_of(loss, "loss"), gradient=gradient)

    def answer_statistics(self) -> Answer:
        label_logit = self.argument(label_logits(self.case))
        results = [
            self.call_method("statistics", [logits, labels, label_logit]) for logits, labels, *_ in self.arguments
        ]
        spans = []
        for partial, ranks, squares, spread in results:
            ranks = self.library.to_numpy(ranks)
            if ranks.dtype.kind not in "iu" or ranks.shape != self.case.labels.shape:
                raise Violation(f"label_rank must be integers {list(self.case.labels.shape)}, got {ranks.dtype.name}")
            sums = (self.rows_of(field, "statistics") for field in (squares, spread))
            spans.append(Statistics(self.merged([partial]), ranks.astype(np.int64), *sums))
        statistics: Statistics = fold.merge_tree(xp, spans, merge_statistics)
        return Answer(statistics=statistics)

    def partial_of_all_classes(self) -> Partial:
        return self.merged([self.call_method("partial", arguments) for arguments in self.arguments])

    def merged(self, partials: list[Any]) -> Partial:
        """Partials of spans of the classes as NumPy's arrays, checked and merged into one."""
        for partial in partials:
            if not isinstance(partial, tuple) or len(partial) != len(Partial._fields):
                raise Violation(f"`partial` must return an xent.Partial, got {type(partial).__name__}")
        spans = [Partial(*(self.rows_of(field, "partial") for field in partial)) for partial in partials]
        whole: Partial = fold.merge_tree(xp, spans)
        return whole

    def new_out(self, dtype: Any, shape: tuple[int, ...], logits: Any = None) -> dict[str, Any]:
        """The keyword ``out`` with an array full of NaN, or with the logits; empty if the call has none."""
        if not self.call.fill:
            return {}
        if self.call.fill == OVER_THE_LOGITS:
            (self.out,) = (memory for memory in self.inputs if memory.array is logits)
            self.inputs = [memory for memory in self.inputs if memory is not self.out]  # they may be written to now
            return {"out": logits}
        values = np.full(shape, np.nan, dtype)
        block = values if len(shape) == 1 else to_block(values, self.call.outer)
        self.out = lay(block, self.call.fill, self.library)
        return {"out": self.out.array}

    def checked_out(self, returned: Any) -> Any:
        """The returned array. Raises Violation if it is not the ``out`` of this call, or memory beside that changed."""
        if self.out is None:
            return returned
        if returned is not self.out.array:
            raise Violation("`out` was given, and something else was returned")
        beside = self.out.beside
        if not same_bytes(self.library.to_numpy(self.out.base)[beside], self.out.before[beside]):
            raise Violation("memory beside `out` was written to")
        return returned

    def rows_of(self, result: Any, what: str) -> Array:
        """A result (rows,) as NumPy's, checked."""
        return checked(self.library.to_numpy(result), what, self.case.labels.shape, self.compute_dtype)

    def gradient_of(self, block: Any, classes: int) -> Array:
        """A gradient's block as NumPy's (rows, classes), checked."""
        rows, outer = len(self.case.labels), self.call.outer
        shape = (outer, classes, rows // outer) if outer else (rows, classes)
        values = checked(self.library.to_numpy(block), "gradient", shape, self.case.logits.dtype)
        return from_block(values, outer) if outer else np.array(values)


ANSWERS: dict[str, Callable[[Execution], Answer]] = {
    "partial": Execution.answer_partial,
    "loss": Execution.answer_loss,
    "gradient": Execution.answer_gradient,
    "loss_and_partial": Execution.answer_loss_and_partial,
    "loss_and_gradient": Execution.answer_loss_and_gradient,
    "statistics": Execution.answer_statistics,
}
"""How each method of a kernel is called, by its name."""


def checked(values: Array, what: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """The values. Raises Violation if their shape or dtype is another."""
    if values.shape != shape or values.dtype.newbyteorder("=") != dtype:
        expected, got = (f"{kind.name}{list(size)}" for kind, size in ((dtype, shape), (values.dtype, values.shape)))
        raise Violation(f"{what} must be {expected}, got {got}")
    return values


def same_bytes(a: Array, b: Array) -> bool:
    return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
