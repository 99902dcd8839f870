"""The golden cases: inputs, and what mpmath says of them.

``tests/golden/make.py`` writes ``tests/golden/cases.json``; this module reads it. A case's arrays are made anew from
the recipe in the file, by integer draws and correctly rounded operations only, and must have the checksum that the file
holds. Values longer than a double come as two, ``hi + lo``.
"""

import hashlib
import json
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from xent.testing.budget import compute_dtype

path = Path(__file__).parent / "golden" / "cases.json"

# The bit generator's raw words never change between versions of NumPy; its distributions may.
deviation = 37837.0  # of the sum of four uniform 16-bit integers


@dataclass(frozen=True, eq=False)
class Case:
    """One block of rows. Exactly one of ``labels`` and ``targets`` is there; the arrays are read-only."""

    name: str
    logits: np.ndarray  # (rows, classes), in the input's dtype; bfloat16 is ml_dtypes'
    labels: np.ndarray | None  # (rows,) int64
    targets: np.ndarray | None  # (rows, classes), in the dtype that the library computes in
    label_smoothing: float
    loss_hi: np.ndarray  # (rows,) float64
    loss_lo: np.ndarray
    lse_hi: np.ndarray  # (rows,)
    lse_lo: np.ndarray
    columns: np.ndarray  # (rows, few) int64: the classes whose gradient is known
    gradient_hi: np.ndarray  # (rows, few)
    gradient_lo: np.ndarray

    def __str__(self) -> str:
        return self.name

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the logits and of their gradient."""
        return self.logits.dtype

    @property
    def classes(self) -> int:
        return self.logits.shape[-1]

    @property
    def is_sparse(self) -> bool:
        return self.labels is not None

    @cached_property
    def dense_targets(self) -> np.ndarray:
        """The targets in float64, smoothing included, labels written out."""
        if self.labels is None:
            targets = self.targets.astype(np.float64)
        else:
            targets = (np.arange(self.classes) == self.labels[:, None]).astype(np.float64)
        return (1 - self.label_smoothing) * targets + self.label_smoothing / self.classes


def named_dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


# -------------------- from recipe to array


def draw(seed: int, rows: int, classes: int) -> np.ndarray:
    """(rows, classes, 4) integers in [0, 65536), the same on every machine and version."""
    words = np.random.PCG64(seed).random_raw(rows * classes)
    return words.astype("<u8").view("<u2").reshape(rows, classes, 4).astype(np.int64)


def make_logits(recipe: dict[str, Any], dtype: np.dtype) -> np.ndarray:
    """Written out ("values"), or bell-shaped around ``offset``, then ``places`` set and every n-th class masked."""
    if "values" in recipe:
        return np.asarray([[float(value) for value in row] for row in recipe["values"]], np.float64).astype(dtype)
    rows, classes = recipe["rows"], recipe["classes"]
    logits = np.zeros((rows, classes))
    if recipe["spread"]:
        bell = draw(recipe["seed"], rows, classes).sum(axis=-1) - 2 * 65535
        logits = bell / deviation * recipe["spread"]
    logits = logits + recipe.get("offset", 0.0)
    for row, column, value in recipe.get("places", ()):
        logits[row, column] = value
    if "masked_every" in recipe:
        logits[:, 1 :: recipe["masked_every"]] = -np.inf
    return logits.astype(dtype)


def make_targets(recipe: dict[str, Any], rows: int, classes: int, dtype: np.dtype) -> np.ndarray:
    """Written out ("values"), two-valued ("labels", "on", "off"), or drawn and scaled to a sum, every n-th class 0."""
    if "values" in recipe:
        return np.asarray([[float(value) for value in row] for row in recipe["values"]], np.float64).astype(dtype)
    if "labels" in recipe:
        at_label = np.arange(classes) == np.asarray(recipe["labels"])[:, None]
        return np.where(at_label, recipe["on"], recipe["off"]).astype(dtype)
    drawn = draw(recipe["seed"], rows, classes)[..., 0]
    if "zero_every" in recipe:
        drawn[:, :: recipe["zero_every"]] = 0
    return (drawn / drawn.sum(axis=-1, keepdims=True) * recipe["sum"]).astype(dtype)


def make_inputs(entry: dict[str, Any]) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Logits, labels, targets of one entry of the file; labels or targets is None."""
    logits = make_logits(entry["logits"], named_dtype(entry["dtype"]))
    if "labels" in entry:
        return logits, np.asarray(entry["labels"], np.int64), None
    return logits, None, make_targets(entry["targets"], *logits.shape, compute_dtype(logits.dtype))


def checksum(*arrays: np.ndarray | None) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of the arrays' bytes, little endian."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is not None:
            digest.update(array.tobytes())
    return digest.hexdigest()[:16]


# -------------------- from text to numbers


def hi_and_lo(text: Any) -> tuple[np.ndarray, np.ndarray]:
    """Decimal strings, nested in lists, as two float64 arrays whose sum is the value to twice a double's digits."""
    texts = np.asarray(text, dtype=object)
    hi = texts.astype(np.float64)
    rest = [
        float(Fraction(t) - Fraction(h)) if np.isfinite(h) else 0.0 for t, h in zip(texts.flat, hi.flat, strict=True)
    ]
    return hi, np.asarray(rest, np.float64).reshape(hi.shape)


def case_of(entry: dict[str, Any]) -> Case:
    logits, labels, targets = make_inputs(entry)
    if checksum(logits, labels, targets) != entry["checksum"]:
        raise ValueError(
            f"case {entry['name']!r}: the recipe gives other arrays here than where the golden values were made"
        )
    values = [
        *hi_and_lo(entry["loss"]),
        *hi_and_lo(entry["lse"]),
        np.asarray(entry["columns"], np.int64),
        *hi_and_lo(entry["gradient"]),
    ]
    for array in (logits, labels, targets, *values):
        if array is not None:
            array.flags.writeable = False
    return Case(entry["name"], logits, labels, targets, entry.get("label_smoothing", 0.0), *values)


@cache
def entries() -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))


@cache
def case_at(position: int) -> Case:
    return case_of(entries()[position])


def is_of_equal_terms(entry: dict[str, Any]) -> bool:
    return entry["name"].startswith("equal-terms")


def cases(*, most_classes: int = 1 << 62) -> list[Case]:
    """The cases, in the file's order, but for rows of equal terms and those of more than ``most_classes`` classes."""
    found = (i for i, entry in enumerate(entries()) if not is_of_equal_terms(entry))
    return [case_at(i) for i in found if entries()[i]["classes"] <= most_classes]


def cases_of_equal_terms() -> list[Case]:
    """Rows of equal terms under one other, of every class count from 2 to 300."""
    return [case_at(i) for i, entry in enumerate(entries()) if is_of_equal_terms(entry)]


def case_named(name: str) -> Case:
    """The case of that name."""
    return next(case_at(i) for i, entry in enumerate(entries()) if entry["name"] == name)
