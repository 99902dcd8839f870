r"""Hidden states that are stored in place of logits, and the classifier that makes logits of them.

.. math:: x_{nc} = \mathrm{cap}\Bigl(\sum_d h_{nd} w_{cd} + b_c\Bigr)

The logits are those of :class:`xent.Linear`, a tile at a time: no task has them whole. The classifier is opened as
every input is, and read once in a process: of a file in C order on a local disk that is a map of its pages.
"""

from __future__ import annotations

import math
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import xent
from xent import checks
from xent.backends.generic import products
from xent.evaluation.sources.in_memory import to_numpy
from xent.evaluation.sources.messages import refusal
from xent.evaluation.sources.opening import open_source
from xent.evaluation.sources.source import Part, Source, read_rows, read_rows_and_nulls
from xent.evaluation.sources.topk import TopKSource

READING = threading.Lock()
NOT_HIDDEN = "Pass what the last layer of the model reads, a row of numbers for each label."


class Head(NamedTuple):
    """What makes logits of hidden states, as the arguments of :func:`xent.evaluate` say it; None for what is not."""

    classifier: Any = None
    bias: Any = None
    softcap: float | None = None
    suffix: str = ""  # of the names of the arguments: "_b" of set B's own

    def name(self, field: str) -> str:
        """What messages call a field."""
        return f"{field}{self.suffix}"

    def check_has_classifier(self) -> None:
        """Raise ValueError where a bias or a softcap is given without a classifier."""
        for operand in ("bias", "softcap"):
            if self.classifier is None and getattr(self, operand) is not None:
                rule = f"be left out where no `{self.name('classifier')}` is given"
                raise ValueError(refusal(self.name(operand), rule, "one", f"Pass `{self.name('classifier')}` too."))


@dataclass(frozen=True, eq=False)
class LinearSource(Source):
    """Logits (*batch, C), of which the ``hidden`` states (*batch, D), the ``classifier`` and the ``bias`` are stored.

    The features are along ``axis`` of the hidden states, and the classes along that of the logits.
    """

    hidden: Source
    classifier: Source
    bias: Source | None
    softcap: float | None
    token: str = field(default_factory=lambda: uuid.uuid4().hex, init=False, repr=False)
    """Its own: a cluster takes equal keys for the same task."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row as it is stored."""
        return self.hidden.row_bytes

    @property
    def logits_bytes(self) -> int:
        """Bytes that the logits of all rows would take."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def shown_shape(self) -> tuple[int, ...]:
        return self.hidden.shown_shape

    @property
    def shown_dtype(self) -> str:
        return self.hidden.shown_dtype

    @property
    def has_nulls(self) -> bool:
        return self.hidden.has_nulls

    @property
    def stored(self) -> list[Source]:
        """The sources that are there."""
        return [source for source in (self.hidden, self.classifier, self.bias) if source is not None]

    def bounds(self, chunk_bytes: int) -> list[int]:
        """The rows at which chunks begin: of so many bytes of logits, for these are the work, or a tile's rows."""
        rows = max(products.ROWS, chunk_bytes // max(1, self.shape[-1] * self.dtype.itemsize))
        return self.hidden.bounds(min(chunk_bytes, rows * max(1, self.hidden.row_bytes)))

    def parts(self, bounds: list[int]) -> tuple[dict[Any, Any], list[Any]]:
        graph, parts = self.hidden.parts(bounds)
        keys: list[str | None] = []
        for name, source in (("classifier", self.classifier), ("bias", self.bias)):
            if source is None:
                keys.append(None)
                continue
            own, (part,) = source.parts([0, source.shape[0]])
            keys.append(f"xent-{name}-{self.token}")
            graph = {**graph, **own, keys[-1]: (Whole, part, source.shape[0])}
        return graph, [(LinearPart, part, *keys, self.softcap) for part in parts]

    def fingerprint(self) -> Any:
        prints = [source.fingerprint() for source in self.stored]
        return None if None in prints else [*prints, self.softcap]

    def facts(self) -> dict[str, Any]:
        head: dict[str, Any] = {"classifier": self.classifier.facts()}
        if self.bias is not None:
            head["bias"] = self.bias.facts()
        if self.softcap is not None:
            head["softcap"] = self.softcap
        size = {"bytes": self.shape[0] * self.row_bytes, "logits_bytes": self.logits_bytes}
        return {**self.hidden.facts(), **size, "classes": self.shape[-1], **head}

    def files(self) -> list[str]:
        return [file for source in self.stored for file in source.files()]

    def check_complete(self, *, zeros_ok: bool = False) -> int:
        return sum(source.check_complete(zeros_ok=zeros_ok) for source in self.stored)

    def memory(self, threads: int) -> int:
        """The operands that all tasks share, and of each thread a tile of each operand and four of logits."""
        shared = sum(source.shape[0] * source.row_bytes for source in self.stored[1:])
        features, classes = self.classifier.shape[1], min(products.CLASSES, self.shape[-1])
        tile = (products.ROWS + classes) * features + 4 * products.ROWS * classes
        return shared + threads * tile * self.dtype.itemsize

    def __str__(self) -> str:
        return f"logits {self.shape} of {self.hidden} with the classifier {self.classifier}"


@dataclass(frozen=True)
class LinearPart(Part):
    """The rows of a chunk; ``hidden`` is what :func:`read_rows` takes."""

    hidden: Any
    classifier: Whole
    bias: Whole | None
    softcap: float | None

    def read(self, start: int, stop: int) -> LinearRows:
        return self.rows_of(read_rows(self.hidden, start, stop))

    def read_with_nulls(self, start: int, stop: int) -> tuple[LinearRows, NDArray[np.bool_] | None]:
        hidden, is_null = read_rows_and_nulls(self.hidden, start, stop)
        return self.rows_of(hidden), is_null

    def rows_of(self, hidden: Any) -> LinearRows:
        """The rows of these hidden states."""
        return LinearRows(to_numpy(hidden), self.classifier, self.bias, self.softcap)

    def edge(self, start: int, stop: int) -> int | None:
        return self.hidden.edge(start, stop) if isinstance(self.hidden, Part) else None


class Whole:
    """An array that all tasks share: read when it is first asked for, once in a process, and never pickled if read."""

    held: Any

    def __init__(self, part: Any, rows: int) -> None:
        self.part, self.rows, self.held = part, rows, None

    def __reduce__(self) -> tuple[Any, ...]:
        return Whole, (self.part, self.rows)

    @property
    def array(self) -> Any:
        with READING:
            if self.held is None:
                self.held = to_numpy(read_rows(self.part, 0, self.rows))
            return self.held


@dataclass(frozen=True)
class LinearRows:
    """Some rows of logits, which are multiplied where they are asked for: ``numpy.asarray`` of it makes them whole.

    Logits are divided by the temperature 1 / ``inverse_temperature``.
    """

    hidden: NDArray[Any]
    classifier: Whole
    bias: Whole | None
    softcap: float | None
    inverse_temperature: float = 1.0

    @property
    def linear(self) -> Any:
        """The logits as a :class:`xent.Linear`."""
        bias = None if self.bias is None else self.bias.array
        linear: Any = xent.Linear(self.hidden, self.classifier.array, bias=bias, softcap=self.softcap)
        if self.inverse_temperature == 1:
            return linear
        # s tanh(z / s) / T is (s / T) tanh((z / T) / (s / T))
        scale = np.dtype(linear.dtype).type(self.inverse_temperature)
        hidden = self.hidden.astype(linear.dtype) * scale
        bias = None if bias is None else bias.astype(linear.dtype) * scale
        softcap = None if self.softcap is None else self.softcap * self.inverse_temperature
        return xent.Linear(hidden, self.classifier.array, bias=bias, softcap=softcap)

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.hidden.shape[:-1], self.classifier.rows)

    def __getitem__(self, rows: Any) -> LinearRows:
        return replace(self, hidden=self.hidden[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        logits: NDArray[Any] = products.whole_logits(self.linear)
        return logits if dtype is None else logits.astype(dtype, copy=False)


def linear_source(hidden: Source, name: str, head: Head, axis: int, allowed: Sequence[str]) -> LinearSource:
    """The logits of hidden states, whose features are along `axis`; only headers are read.

    `name` is what messages call the hidden states.

    Raises
    ------
    TypeError, ValueError
        If the operands are no real floating arrays, or do not fit.
    """
    own = head.name("classifier"), head.name("bias")
    if isinstance(hidden, TopKSource) or len(hidden.shape) < 2:
        remedy = f"Leave out `{own[0]}`: they are logits." if isinstance(hidden, TopKSource) else NOT_HIDDEN
        raise ValueError(refusal(name, f"be hidden states (rows, features) where `{own[0]}` is given", hidden, remedy))
    classifier = open_source(head.classifier, own[0], allowed)
    bias = None if head.bias is None else open_source(head.bias, own[1], allowed)
    for argument, source in zip((name, *own), (hidden, classifier, bias), strict=False):
        if source is not None and source.dtype.name not in checks.FLOATS:
            rule, remedy = "be float16, bfloat16, float32 or float64", "Save it as numpy.float32."
            raise TypeError(refusal(argument, rule, source, remedy))
    features, shape = hidden.shape[axis], classifier.shape
    if len(shape) != 2 or shape[1] != features:
        rule = f"have shape (classes, {features}), as the hidden states have {features} features"
        is_turned = len(shape) == 2 and shape[0] == features
        remedy = "Save classifier.T." if is_turned else f"Pass one row of {features} numbers for each class."
        raise ValueError(refusal(own[0], rule, classifier, remedy))
    if not shape[0]:
        raise ValueError(refusal(own[0], "have at least one class", classifier, "Save one row for each class."))
    if bias is not None and bias.shape != shape[:1]:
        raise ValueError(refusal(own[1], f"have shape ({shape[0]},)", bias, "Save one number for each class."))
    dtype = np.dtype(np.float64 if "float64" in {hidden.dtype.name, classifier.dtype.name} else np.float32)
    if bias is not None and bias.dtype.name == "float64":
        dtype = np.dtype(np.float64)
    logits = (*hidden.shape[:axis], shape[0], *hidden.shape[axis + 1 :])
    softcap = checks.softcap("evaluate", head.softcap, dtype.name)
    return LinearSource(hidden.path, logits, dtype, hidden, classifier, bias, softcap)
