"""A call that can be made through many doors: a function, its arrays as NumPy's, its options, how the arrays lie.

A call is written to a file and read again without a change, NaN and infinities included.
"""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import xent

LOSSES = ("sparse", "dense", "binary")
FUNCTIONS = (*LOSSES, "statistics", "softmax", "log_softmax", "logsumexp", "one_hot", "partial")
ARRAYS = ("sample_weight", "class_weight", "pos_weight")
"""The options that may be arrays."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call.

    Attributes
    ----------
    function : one of FUNCTIONS
    predictions : array, the class axis at ``options["axis"]``; None for one_hot
    targets : array, labels or dense targets; None for softmax and its companions
    options : dict
        Keywords as they are given, those that are not given left out. Of "partial" besides: ``cuts``, where the classes
        are cut, and ``order``, in which the slices are merged.
    layouts : dict
        By the name of an array how it lies in memory; "C" where nothing is said.
    validate : "auto", "always" or "never"
    refused : str
        The argument that is wrong on purpose: every door must raise, and name it. Empty where none is.
    """

    function: str
    predictions: Any
    targets: Any
    options: dict[str, Any] = field(default_factory=dict)
    layouts: dict[str, str] = field(default_factory=dict)
    validate: str = "auto"
    refused: str = ""

    @property
    def axis(self) -> int:
        """The class axis, counted from the front; the last one where that is refused."""
        return (
            -1 % self.predictions.ndim
            if self.refused == "axis"
            else self.options.get("axis", -1) % self.predictions.ndim
        )

    @property
    def kind(self) -> str:
        return self.options.get("kind", "logits")

    @property
    def reduction(self) -> Any:
        return self.options.get("reduction", "none")

    @property
    def classes(self) -> int:
        return self.predictions.shape[self.axis]

    @property
    def has_labels(self) -> bool:
        """Whether the targets are labels."""
        return self.targets is not None and self.function != "binary" and not self.is_dense

    @property
    def is_dense(self) -> bool:
        """Whether the targets are one for each class."""
        return self.function == "dense" or (self.function == "partial" and self.targets.ndim == self.predictions.ndim)

    @property
    def is_contiguous(self) -> bool:
        """Whether every array lies in C order, the class axis last."""
        lies_so = all(layout in ("C", "read-only") for layout in self.layouts.values())
        return lies_so and (self.function in ("binary", "one_hot") or self.axis == self.predictions.ndim - 1)

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by its name."""
        every = {"predictions": self.predictions, "targets": self.targets, **self.options}
        return {name: value for name, value in every.items() if isinstance(value, np.ndarray)}

    def replace(self, **changes: Any) -> "Call":
        return dataclasses.replace(self, **changes)

    def without(self, name: str) -> "Call":
        """The same call with an option left out."""
        return self.replace(options={key: value for key, value in self.options.items() if key != name})


def dtype_named(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def to_plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, np.ndarray):
        values = value if value.dtype.kind in "iub" else value.astype(np.float64)
        return {"dtype": value.dtype.name, "shape": list(value.shape), "values": values.reshape(-1).tolist()}
    if isinstance(value, xent.Mean):
        return {"Mean": [value.denominator, value.empty]}
    if isinstance(value, tuple):
        return {"tuple": list(value)}
    return value


def from_plain(value: Any) -> Any:
    """The value that :func:`to_plain` took."""
    if not isinstance(value, dict):
        return value
    if "Mean" in value:
        return xent.Mean(*value["Mean"])
    if "tuple" in value:
        return tuple(value["tuple"])
    dtype = dtype_named(value["dtype"])
    values = np.asarray(value["values"], dtype if dtype.kind in "iub" else np.float64)
    return values.astype(dtype).reshape(value["shape"])


def text_of(call: Call, **facts: Any) -> str:
    """A call as a file has it, beside what else is known of it."""
    fields = {one.name: getattr(call, one.name) for one in dataclasses.fields(call)}
    fields["options"] = {name: to_plain(value) for name, value in call.options.items()}
    plain = {name: to_plain(value) for name, value in fields.items()}
    return json.dumps({**facts, "call": plain}, indent=1) + "\n"


def read(path: Path) -> tuple[Call, dict[str, Any]]:
    """The call of a file, and what else is known of it."""
    facts = json.loads(path.read_text(encoding="utf-8"))
    plain = facts.pop("call")
    options = {name: from_plain(value) for name, value in plain.pop("options").items()}
    arrays = {name: from_plain(plain.pop(name)) for name in ("predictions", "targets")}
    return Call(**arrays, options=options, **plain), facts


def keep(folder: Path, call: Call, fault: Any) -> Path:
    """Writes a failing call into the folder; its name says the function, the door, and which of many it is."""
    doors = [name for name in (fault.other, fault.door) if name]
    text = text_of(call, doors=doors, fault=fault.what, found=fault.found)
    name = re.sub(r"[^a-z0-9]+", "-", f"{call.function} {fault.door}")
    path = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
