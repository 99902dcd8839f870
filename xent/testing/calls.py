"""A call of a kernel's method on a case, and its answer as NumPy's arrays.

Leaves out how a call is made (``execution.py``) and which answers are right (``comparison.py``).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..numerics.fold import Partial
from ..numerics.statistics import Statistics
from .budget import compute_dtype
from .edge_cases import Case

Array = np.ndarray[Any, Any]
OVER_THE_LOGITS = "the logits"
"""The ``fill`` of a call whose ``out`` are its logits."""
LABEL_FORMS = ("every other row", "reversed", "read-only")
"""The forms of the logits that labels take too; with all others they are contiguous int64 of this machine."""


class Violation(Exception):
    """Something that a kernel must not do, in words."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a kernel's method.

    Parameters
    ----------
    method : str
        The name of the kernel's method.
    case : Case
    form : str
        The form in memory of the logits; of soft targets too unless ``apart``, and of labels if it is in LABEL_FORMS.
    apart : bool
        Whether soft targets have the form "plain", whatever the form of the logits.
    outer : int
        0 for a block (rows, classes); else (outer, classes, rows / outer), the rows in C order.
    threads : int
    scale : array, shape (rows,), optional
        The factors of the gradient's rows; ones by default.
    fill : str
        The form in memory of the array that is passed as ``out``, or :data:`OVER_THE_LOGITS`; empty for none.
    poison : float
        The value around and between the arrays.
    cuts : tuple of int
        Where the classes are cut into spans, each of which is a call of its own.
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
        """The scale of every row, in the compute dtype."""
        ones = np.ones(len(self.case.labels))
        return (ones if self.scale is None else self.scale).astype(compute_dtype(self.case.logits.dtype))

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The range of classes of each call of the method."""
        return list(itertools.pairwise((0, *self.cuts, self.case.logits.shape[1])))

    def rows(self, start: int, stop: int) -> Call:
        """The same call on some of the rows, side by side."""
        scale = None if self.scale is None else self.scale[start:stop]
        return replace(self, case=self.case.rows(start, stop), scale=scale, outer=min(self.outer, 1))


@dataclass(frozen=True)
class Answer:
    """A kernel's answer to a call, as NumPy's arrays by rows; a field is None if the method has no such result."""

    partial: Partial | None = None
    loss: Array | None = None
    gradient: Array | None = None
    statistics: Statistics | None = None

    def fields(self) -> tuple[Array, ...]:
        """Every array of the answer."""
        flat = [*(self.partial or ()), self.loss, self.gradient]
        if self.statistics is not None:
            flat += [*self.statistics.partial, *self.statistics[1:]]
        return tuple(array for array in flat if array is not None)

    def bits(self, start: int = 0, stop: int | None = None) -> list[bytes]:
        """Every bit of a range of its rows, with every NaN replaced by the same one."""
        return [one_nan(array[start:stop]).tobytes() for array in self.fields()]


def one_nan(array: Array) -> Array:
    """A copy with the same bits for every NaN."""
    array, is_nan = np.array(array), array != array
    if is_nan.any():
        array[is_nan] = np.nan
    return array


def to_block(rows: Array, outer: int) -> Array:
    """Rows (rows, classes) as a block: (outer, classes, rows / outer), or unchanged if ``outer`` is 0."""
    return np.swapaxes(rows.reshape(outer, -1, rows.shape[1]), 1, 2) if outer else rows


def from_block(block: Array, outer: int) -> Array:
    """The rows (rows, classes) of a block that :func:`to_block` made."""
    return np.swapaxes(block, 1, 2).reshape(-1, block.shape[1]) if outer else block


def labels_form(form: str) -> str:
    """The form in memory of labels beside logits of a form."""
    return form if form in LABEL_FORMS else "plain"


def targets_form(call: Call) -> str:
    """The form in memory of a call's soft targets."""
    return "plain" if call.apart or call.form == "one row repeated" else call.form


def label_logits(case: Case) -> Array:
    """The logit of each row's label, in the dtype of the logits; that of class 0 if the label is outside."""
    inside = (case.labels >= 0) & (case.labels < case.logits.shape[1])
    return np.take_along_axis(case.logits, np.where(inside, case.labels, 0)[:, None], axis=1)[:, 0]
