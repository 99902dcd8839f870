"""One call of a kernel's method on one case: how it is made, what comes back as NumPy's arrays, how it is told.

Leaves out what is right (``verdicts.py``).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from .. import arrays
from ..numerics import fold
from ..numerics import statistics as numbers
from ..numerics.fold import Partial
from ..numerics.statistics import Statistics
from .budget import compute_dtype
from .edges import Case
from .memory import ArrayLibrary, Laid, lay

Array = np.ndarray[Any, Any]
LABEL_FORMS = ("every other row", "reversed", "read-only")
"""The forms of the logits that labels take too; they are int64 of this machine, and lie in order, in all others."""


class Violation(Exception):
    """Something that a kernel must not do, in words."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a kernel.

    Parameters
    ----------
    method : str
        Of the kernel.
    case : Case
    form : str
        How the logits lie in memory, and soft targets unless they are ``apart``; labels too where they can.
    apart : bool
        Whether soft targets lie plainly, whatever the form of the logits.
    outer : int
        0 for a block (rows, classes); else (outer, classes, rows / outer), the rows in C order.
    threads : int
    scale : array, shape (rows,), optional
        Of a gradient; ones by default.
    fill : str
        The form of memory for the result that is handed over; empty for none.
    poison : float
        What stands around and between the arrays.
    cuts : tuple of int
        Where the classes are cut, for a kernel that is asked about a span at a time.
    """

    method: str
    case: Case
    form: str = "plain"
    apart: bool = False
    outer: int = 0
    threads: int = 1
    scale: Array | None = None
    fill: str = ""
    poison: float = np.nan
    cuts: tuple[int, ...] = ()

    def __str__(self) -> str:
        rows, classes = self.case.logits.shape
        shape = f"{rows}, {classes}" if not self.outer else f"{self.outer}, {classes}, {rows // self.outer}"
        notes = [f"{self.method} of {self.case}, {self.case.logits.dtype.name}[{shape}]"]
        notes += [self.form] if self.form != "plain" else []
        notes += [f"out {self.fill}"] if self.fill else []
        notes += [f"{self.threads} threads"] if self.threads != 1 else []
        notes += [f"classes cut at {', '.join(map(str, self.cuts))}"] if self.cuts else []
        return ", ".join(notes)

    @property
    def scales(self) -> Array:
        """The scale of every row, in the dtype that is computed in."""
        ones = np.ones(len(self.case.labels))
        return (ones if self.scale is None else self.scale).astype(compute_dtype(self.case.logits.dtype))

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The classes of each part that the kernel is asked about."""
        return list(itertools.pairwise((0, *self.cuts, self.case.logits.shape[1])))

    def rows(self, start: int, stop: int) -> Call:
        """The same of some of the rows, side by side."""
        scale = None if self.scale is None else self.scale[start:stop]
        return replace(self, case=self.case.rows(start, stop), scale=scale, outer=min(self.outer, 1))


@dataclass(frozen=True)
class Answer:
    """What a kernel answered, as NumPy's arrays by rows; None where the method has no such part."""

    partial: Partial | None = None
    loss: Array | None = None
    gradient: Array | None = None
    statistics: Statistics | None = None

    def fields(self) -> tuple[Array, ...]:
        """Every array of it."""
        flat = [*(self.partial or ()), self.loss, self.gradient]
        if self.statistics is not None:
            flat += [*self.statistics.partial, *self.statistics[1:]]
        return tuple(one for one in flat if one is not None)

    def bits(self, start: int = 0, stop: int | None = None) -> list[bytes]:
        """Every bit of some of its rows; one NaN is as good as another."""
        return [one_nan(one[start:stop]).tobytes() for one in self.fields()]


@dataclass(frozen=True)
class Bench:
    """Where calls are made: a kernel, the op it is for, and the library of its arrays."""

    kernel: Any
    op: str
    library: ArrayLibrary

    def answer(self, call: Call) -> Answer:
        """The answer to a call.

        Raises Violation where its shape, its dtype or its place is wrong, or where memory was written that must not be.
        """
        with arrays.quiet():
            return _Made(self, call).answer()


class _Made:
    """A call in the making: every array that is handed over, so that it can be looked at again afterwards."""

    def __init__(self, bench: Bench, call: Call):
        self.bench, self.call, self.case, self.library = bench, call, call.case, bench.library
        self.wide = compute_dtype(self.case.logits.dtype)
        self.inputs: list[Laid] = []

    def laid(self, values: Array, form: str) -> Any:
        """The values as the library's array in memory of that form, to be looked at again."""
        self.inputs.append(lay(values, form, self.library, self.call.poison))
        return self.inputs[-1].array

    def block(self, rows: Array, form: str) -> Any:
        """Rows (rows, classes) as a block."""
        return self.laid(to_block(rows, self.call.outer), form)

    def arguments(self, start: int, stop: int) -> list[Any]:
        """The logits and the targets of some of the classes."""
        block = self.block(self.case.logits[:, start:stop], self.call.form)
        if self.bench.op == "dense":
            form = "plain" if self.call.apart or self.call.form == "one row repeated" else self.call.form
            return [block, self.block(self.case.targets[:, start:stop], form)]
        with np.errstate(over="ignore"):
            labels = self.case.labels - start if start else self.case.labels
        return [block, self.laid(labels, labels_form(self.call.form)), self.case.on, self.case.off]

    def ask(self, method: str, arguments: list[Any], **keywords: Any) -> Any:
        return getattr(self.bench.kernel, method)(*arguments, threads=self.call.threads, **keywords)

    def answer(self) -> Answer:
        self.handed_over = parts = [self.arguments(*span) for span in self.call.spans]
        found: Answer = getattr(self, self.call.method)(parts)
        for one in self.inputs:
            if not same_bytes(self.library.to_numpy(one.base), one.before):
                raise Violation("an input was written to")
        return found

    def partial(self, parts: list[list[Any]]) -> Answer:
        return Answer(partial=self.merged([self.ask("partial", one) for one in parts]))

    def merged(self, partials: list[Any]) -> Partial:
        """The partial of all classes, as NumPy's arrays."""
        for partial in partials:
            if not isinstance(partial, tuple) or len(partial) != len(Partial._fields):
                raise Violation(f"`partial` must return an xent.Partial, got {type(partial).__name__}")
        plain = [Partial(*(self.rows_of(one, "partial") for one in partial)) for partial in partials]
        whole: Partial = fold.merge_tree(xp, plain)
        return whole

    def loss(self, parts: list[list[Any]]) -> Answer:
        (arguments,) = parts
        out = self.out(self.wide, self.case.labels.shape)
        return Answer(loss=self.rows_of(self.filled(self.ask("loss", arguments, **out), out), "loss"))

    def gradient(self, parts: list[list[Any]]) -> Answer:
        whole = self.merged([self.ask("partial", one) for one in parts])
        partial = Partial(*(self.laid(one, "plain") for one in whole))
        scale = self.laid(self.call.scales, "plain")
        slopes = []
        for arguments, (start, stop) in zip(parts, self.call.spans, strict=True):
            out = self.out(self.case.logits.dtype, (len(self.case.labels), stop - start))
            block = self.ask("gradient", [*arguments, partial, scale], **out)
            slopes.append(self.block_of(self.filled(block, out), stop - start))
        return Answer(partial=whole, gradient=np.concatenate(slopes, axis=1))

    def loss_and_gradient(self, parts: list[list[Any]]) -> Answer:
        (arguments,) = parts
        scale = self.laid(self.call.scales, "plain")
        out = self.out(self.case.logits.dtype, self.case.logits.shape)
        loss, block = self.ask("loss_and_gradient", [*arguments, scale], **out)
        gradient = self.block_of(self.filled(block, out), self.case.logits.shape[1])
        return Answer(loss=self.rows_of(loss, "loss"), gradient=gradient)

    def statistics(self, parts: list[list[Any]]) -> Answer:
        label_logit = self.laid(label_logits(self.case), "plain")
        found = [self.ask("statistics", [logits, labels, label_logit]) for logits, labels, *_ in parts]
        plain = []
        for partial, ranks, squares, spread in found:
            ranks = self.library.to_numpy(ranks)
            if ranks.dtype.kind not in "iu" or ranks.shape != self.case.labels.shape:
                raise Violation(f"label_rank must be integers {list(self.case.labels.shape)}, got {ranks.dtype.name}")
            ranks = ranks.astype(np.int64)
            sums = (self.rows_of(one, "statistics") for one in (squares, spread))
            plain.append(Statistics(self.merged([partial]), ranks, *sums))
        whole: Statistics = fold.merge_tree(xp, plain, numbers.merge_statistics)
        return Answer(statistics=whole)

    def out(self, dtype: Any, shape: tuple[int, ...]) -> dict[str, Any]:
        """The keyword that hands over memory full of poison, where the call wants that."""
        if not self.call.fill:
            return {}
        values = np.full(shape, np.nan, dtype)
        block = values if len(shape) == 1 else to_block(values, self.call.outer)
        self.handed = lay(block, self.call.fill, self.library)
        return {"out": self.handed.array}

    def filled(self, returned: Any, out: dict[str, Any]) -> Any:
        """What was returned; raises where it is not what was handed over, or something beside that was written."""
        if not out:
            return returned
        if returned is not out["out"]:
            raise Violation("`out` was given, and something else was returned")
        after, beside = self.library.to_numpy(self.handed.base), self.handed.beside
        if not same_bytes(after[beside], self.handed.before[beside]):
            raise Violation("memory beside `out` was written to")
        return returned

    def rows_of(self, found: Any, what: str) -> Array:
        """Numbers of the rows, checked."""
        values = self.library.to_numpy(found)
        return self.checked(values, what, self.case.labels.shape, self.wide)

    def block_of(self, found: Any, classes: int) -> Array:
        """A gradient's block as (rows, classes), checked."""
        rows, outer = len(self.case.labels), self.call.outer
        shape = (outer, classes, rows // outer) if outer else (rows, classes)
        values = self.checked(self.library.to_numpy(found), "gradient", shape, self.case.logits.dtype)
        return np.swapaxes(values, 1, 2).reshape(rows, classes) if outer else np.array(values)

    def checked(self, values: Array, what: str, shape: tuple[int, ...], dtype: Any) -> Array:
        if values.shape != shape or values.dtype.newbyteorder("=") != dtype:
            wanted, got = (f"{kind.name}{list(size)}" for kind, size in ((dtype, shape), (values.dtype, values.shape)))
            raise Violation(f"{what} must be {wanted}, got {got}")
        return values


class Rewritten(_Made):
    """A call that is made twice in the same memory, with other values the second time."""

    def again(self, case: Case) -> Answer:
        """The second answer; the values are those of a case of the same shape."""
        with arrays.quiet():
            self.answer()
            for name in ("logits", "labels", "targets"):
                for one in self.inputs:
                    given = getattr(self.case, name)
                    if one.array.shape == given.shape and same_bytes(self.library.to_numpy(one.array), given):
                        one.array[...] = self.library.asarray(np.array(getattr(case, name)))
            self.case = case
            found: Answer = getattr(self, self.call.method)(self.handed_over)
        return found


def to_block(rows: Array, outer: int) -> Array:
    """Rows (rows, classes) as a block, (outer, classes, rows / outer) where ``outer`` is not 0."""
    return np.swapaxes(rows.reshape(outer, -1, rows.shape[1]), 1, 2) if outer else rows


def labels_form(form: str) -> str:
    """How the labels lie beside logits of a form."""
    return form if form in LABEL_FORMS else "plain"


def one_nan(array: Array) -> Array:
    """A copy with every NaN the same."""
    array, is_nan = np.array(array), array != array
    if is_nan.any():
        array[is_nan] = np.nan
    return array


def same_bytes(a: Array, b: Array) -> bool:
    return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def label_logits(case: Case) -> Array:
    """The logit of each row's label, in the dtype of the logits; of class 0 where it is none of them."""
    safe = np.where((case.labels >= 0) & (case.labels < case.logits.shape[1]), case.labels, 0)
    return np.take_along_axis(case.logits, safe[:, None], axis=1)[:, 0]
