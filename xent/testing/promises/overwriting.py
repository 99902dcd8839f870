"""The arrays that a gradient is written into: the ``out`` of the public functions, and the logits themselves."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ...dispatch import settings
from ...errors import LabelError, NotServed
from ..calls import OVER_THE_LOGITS, Array, Call, one_nan, to_block
from ..edge_cases import Case, cases, odd_neighbours
from ..kernel_under_test import KernelUnderTest, Promise
from ..memory import PoisonedArray, lay
from ..reports import Failure, NotRun, Outcome
from .declaration import public_functions
from .memory_use import UNWRITABLE, cases_of_every_kind

Function = Callable[..., Any]


def in_place(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """Where ``in_place`` is declared, a gradient over the logits themselves has the bits of one in its own memory."""
    if not kernel.spec.in_place:
        raise NotRun("it does not declare in_place: its gradients are copied over the logits, block by block")
    methods = [method for method in kernel.methods if method in ("gradient", "loss_and_gradient")]
    wide = [odd_neighbours(kernel.dtype, 9, classes) for classes in (130, 3000)]
    far = [case for case in cases("wide_gaps", kernel.dtype) if case.logits.size < 10**5]
    group = [*cases_of_every_kind(kernel), *wide, *far, *cases("masked_tiles", kernel.dtype)]
    forms = [form for form in kernel.library.forms if form not in UNWRITABLE]
    for case, form, method in itertools.product(smoothed_too(kernel, group), forms, methods):
        scale = np.resize([1.0, 0.0, 2.0], len(case.labels))
        for outer in kernel.outers_of(case):
            for call in kernel.in_blocks(Call(method, case, form=form, outer=outer, scale=scale, threads=2)):
                if kernel.accepts(call):
                    yield overwriting_outcome(kernel, call)


def smoothed_too(kernel: KernelUnderTest, group: list[Case]) -> list[Case]:
    """The cases, and those with labels once more with smoothing, where the kernel serves that."""
    if kernel.op == "dense" or not kernel.serves_smoothing:
        return group
    return [*group, *(replace(case, on=0.9, off=0.1 / case.logits.shape[1]) for case in group)]


def overwriting_outcome(kernel: KernelUnderTest, call: Call) -> Outcome:
    """A failure if a call has other bits where its gradient is written over its logits."""
    over = replace(call, fill=OVER_THE_LOGITS)
    answers = [kernel.answer(one) for one in (call, over)]
    failed = next((answer for answer in answers if isinstance(answer, Failure)), None)
    if failed is not None:
        return failed
    expected, found = (answer.bits() for answer in answers)  # type: ignore[union-attr]  # none is a failure
    return None if expected == found else Failure(str(over), f"other bits than {call}", calls=(call, over))


def gradient_out(kernel: KernelUnderTest) -> Iterator[Outcome]:
    """``value_and_grad(..., out=)`` has the bits of a new gradient; what cannot be filled is refused and unchanged."""
    functions = [(name, function) for name, method, function in public_functions(kernel) if "gradient" in method]
    if not functions:
        raise NotRun("it has no gradient")
    if kernel.library.name == "jax":
        yield refusal_outcome(kernel, "an array of JAX", *functions[0], lambda logits: logits)
        return
    for (name, function), outer in itertools.product(functions, (0, 2)):
        for options in ({}, {"reduction": "mean", "label_smoothing": 0.1}):
            yield from filling_outcomes(kernel, name, function, outer, options)
    for name, function in functions:
        refused = dict(REFUSED)
        for form in {"read-only", "one row repeated"} & {*kernel.library.forms}:
            refused[form] = functools.partial(laid, kernel, form)
        for what, make in refused.items():
            yield refusal_outcome(kernel, what, name, function, make)
        if kernel.op == "sparse" and kernel.library.device == "cpu":
            yield bad_label_outcome(kernel, name, function)


def writable_forms(kernel: KernelUnderTest) -> list[str]:
    """The forms of memory that an array of the caller's may have."""
    unwritable = {*UNWRITABLE} - {"misaligned"}
    return [form for form in kernel.library.forms if form not in unwritable]


def filling_outcomes(
    kernel: KernelUnderTest, name: str, function: Function, outer: int, options: dict[str, Any]
) -> Iterator[Outcome]:
    """A failure for each form of memory in which a gradient has other bits, of the caller's or of the logits."""
    library, axis = kernel.library, 1 if outer else -1
    logits, targets = arguments_of(kernel, outer)

    def call(memory: PoisonedArray, out: PoisonedArray | None) -> list[bytes]:
        result = function(
            memory.array, library.asarray(targets), axis=axis, **options, **({"out": out.array} if out else {})
        )
        assert out is None or result[1] is out.array, "something else than `out` was returned"
        return [one_nan(array).tobytes() for array in library.copies(result)]

    for form, over in itertools.product(writable_forms(kernel), (False, True)):
        plain = lay(logits, "plain", library)
        out = lay(logits if over else np.full_like(logits, np.nan), form, library)
        where = f"{name}, out {form}{', the logits' if over else ''}{', class axis in the middle' if outer else ''}"
        try:
            with settings.using(kernel=kernel.spec.name):
                expected, found = call(plain, None), call(out if over else plain, out)
        except NotServed:  # a guard may decline the logits' form
            continue
        except Exception as error:  # a kernel may raise anything
            yield Failure(where, f"{type(error).__name__}: {error}")
            continue
        if found != expected:
            yield Failure(where, "other bits than without out")
        elif library.is_mutable and wrote_beside(kernel, out):
            yield Failure(where, "memory beside `out` was written to")
        else:
            yield None


def wrote_beside(kernel: KernelUnderTest, memory: PoisonedArray) -> bool:
    """Whether memory beside an array has changed."""
    now = kernel.library.to_numpy(memory.base)
    return bool(now[memory.beside].tobytes() != memory.before[memory.beside].tobytes())


def arguments_of(kernel: KernelUnderTest, outer: int) -> tuple[Array, Array]:
    """Logits and targets of a public call as NumPy's, a row of NaN and one with an infinite logit among them."""
    case = kernel.example
    logits, targets = np.array(case.logits), np.array(case.target_arguments(kernel.op)[0])
    logits[1], logits[2, 0] = np.nan, np.inf
    if not outer:
        return logits, targets
    return to_block(logits, outer), targets.reshape(outer, -1) if kernel.op == "sparse" else to_block(targets, outer)


def laid(kernel: KernelUnderTest, form: str, logits: Any) -> Any:
    """The logits again, in memory of that form."""
    return lay(kernel.library.to_numpy(logits), form, kernel.library).array


def one_short(logits: Any) -> Any:
    return logits[:-1, :]


def as_labels(logits: Any) -> Any:
    return logits != logits


def of_another_library(logits: Any) -> Any:
    return [logits]


def half_over(logits: Any) -> Any:
    """The logits' own memory, one row further on, in the shape of all but the last."""
    return logits[1:, :]


REFUSED: dict[str, Callable[[Any], Any]] = {
    "an array of another shape": one_short,
    "an array of another dtype": as_labels,
    "no array": of_another_library,
    "the logits' memory, a row further on": half_over,
}
"""What cannot be ``out``, made of the logits. The last is out for all rows of the logits but their last."""


def refusal_outcome(
    kernel: KernelUnderTest, what: str, name: str, function: Function, make: Callable[[Any], Any]
) -> Outcome:
    """A failure if what cannot be filled is not refused by its name, or anything is written before it is."""
    where, (values, targets) = f"{name}, out {what}", arguments_of(kernel, 0)
    logits, told = kernel.library.asarray(np.array(values)), kernel.library.asarray(targets)
    out = make(logits)
    if make is half_over:
        logits, told = logits[:-1, :], told[:-1]
    before = [array.tobytes() for array in kernel.library.copies((logits,))]
    try:
        with settings.using(kernel=kernel.spec.name):
            function(logits, told, out=out)
    except (TypeError, ValueError) as error:
        if "`out` must" not in str(error):
            return Failure(where, f"is refused, but not by its name: {error}")
        same = before == [array.tobytes() for array in kernel.library.copies((logits,))]
        return None if same else Failure(where, "is refused when the logits are overwritten in part")
    return Failure(where, "is not refused")


def bad_label_outcome(kernel: KernelUnderTest, name: str, function: Function) -> Outcome:
    """A failure if a bad label in the last row does not raise before the logits are overwritten."""
    where, (values, targets) = f"{name} with a bad label, out the logits", arguments_of(kernel, 0)
    targets[-1] = values.shape[1]
    logits, told = kernel.library.asarray(np.array(values)), kernel.library.asarray(targets)
    try:
        with settings.using(kernel=kernel.spec.name):
            function(logits, told, out=logits)
    except LabelError:
        same = kernel.library.copies(logits)[0].tobytes() == values.tobytes()
        return None if same else Failure(where, "the logits are overwritten in part")
    return Failure(where, "raises no LabelError")


OVERWRITING: tuple[Promise, ...] = (in_place, gradient_out)
