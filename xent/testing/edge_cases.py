"""The cases that kernels are tried on: a few rows of every edge, generated from a name and a dtype.

A case has labels and soft targets, so that it serves both ops. In turn, a row's soft targets are the one-hot of the
label, a distribution with zeros in it, and numbers that sum to 2.5. Targets of a masked class are 0, except in cases
that say otherwise.
"""

from __future__ import annotations

import functools
import itertools
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .budget import compute_dtype, limits
from .exact import Exact, exact

Array = np.ndarray[Any, Any]
inf, nan = math.inf, math.nan
DTYPES = ("float16", "bfloat16", "float32", "float64")
"""The dtypes in which cases can be made."""
WIDTHS = (
    *(1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 97, 127, 128, 129, 255, 256, 507),
    *(512, 1024, 1025, 2048, 4096),
)
EQUAL_WIDTHS = range(2, 301)


@dataclass(frozen=True, eq=False)
class Case:
    """Some rows of logits, with labels and soft targets.

    Parameters
    ----------
    name : str
    logits : array, shape (rows, classes)
        NumPy's, in the dtype under test; bfloat16 is ml_dtypes'.
    labels : array, shape (rows,), int64
        One outside [0, classes) is the label of none of these classes.
    targets : array, shape (rows, classes)
        For kernels of soft targets, in the compute dtype.
    on, off : float
        For labels: the target is ``on`` + ``off`` at the label, ``off`` at the other classes.
    cut : (int, int), optional
        The range of rows that this case is of ``base``.
    base : Case, optional
        The case that this one is cut from; its exact numbers are computed once for all cuts.
    source : str
        Code that makes the case; empty if there is none shorter than its numbers.
    """

    name: str
    logits: Array
    labels: Array
    targets: Array
    on: float = 1.0
    off: float = 0.0
    cut: tuple[int, int] | None = None
    base: Case | None = None
    source: str = ""

    def __str__(self) -> str:
        return self.name if self.cut is None else f"{self.name}, rows {self.cut[0]} to {self.cut[1] - 1}"

    def target_arguments(self, op: str) -> tuple[Any, ...]:
        """The arguments of a kernel's methods that stand for the targets: labels, on and off, or soft targets."""
        return (self.labels, self.on, self.off) if op == "sparse" else (self.targets,)

    told = target_arguments
    """The name of ``target_arguments`` in tests of plugins for xent 0.1.0."""

    def dense(self, op: str) -> Array:
        """Dense targets in float64, smoothing included; NaN in a row whose label is none of the classes."""
        if op == "dense":
            return self.targets.astype(np.float64)
        classes = self.logits.shape[1]
        inside = (self.labels >= 0) & (self.labels < classes)
        hit = np.arange(classes) == self.labels[:, None]
        return np.where(inside[:, None], np.where(hit, self.on + self.off, self.off), nan)

    @functools.cached_property
    def exact_by_op(self) -> dict[str, Exact]:
        return {}

    @functools.cached_property
    def expected(self) -> dict[Any, Any]:
        """What ``comparison.py`` keeps of this case."""
        return {}

    def exact(self, op: str) -> Exact:
        """The exact numbers of every row, computed once."""
        if self.base is not None and self.cut is not None:
            whole = self.base.exact(op)
            return Exact(*(tuple(part[slice(*self.cut)] for part in pair) for pair in whole))  # type: ignore[arg-type]
        if op not in self.exact_by_op:
            self.exact_by_op[op] = exact(self.logits, self.dense(op))
        return self.exact_by_op[op]

    def rows(self, start: int, stop: int) -> Case:
        """Some of its rows."""
        chosen, first = slice(start, stop), self.cut[0] if self.cut else 0
        logits, labels, targets = self.logits[chosen], self.labels[chosen], self.targets[chosen]
        cut, base = (first + start, first + stop), self.base or self
        return replace(self, cut=cut, base=base, logits=logits, labels=labels, targets=targets)


def case_of(
    name: str, logits: Any, dtype: Any, labels: Any = None, *, targets: Any = None, on: float = 1.0, off: float = 0.0
) -> Case:
    """A case; by default with random labels, and with targets as the module's docstring describes them."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    x = np.asarray(logits, np.float64).astype(dtype)
    rows, classes = x.shape
    y = np.asarray(rng.integers(0, classes, rows) if labels is None else labels, np.int64)
    if targets is None:
        hit = np.arange(classes) == y[:, None]
        drawn = np.where(rng.random((rows, classes)) < 0.3, 0.0, rng.random((rows, classes)))
        drawn = np.where((x == -inf) | np.isnan(x), 0.0, drawn)
        drawn /= np.maximum(drawn.sum(axis=1, keepdims=True), 1e-3)
        kind = np.arange(rows)[:, None] % 3
        targets = np.where(kind == 0, hit, np.where(kind == 1, drawn, 2.5 * drawn))
    return Case(name, x, y, np.asarray(targets).astype(compute_dtype(dtype)), on, off)


def normal(rows: int, classes: int, deviation: float = 3.0) -> Array:
    """Logits (rows, classes) of a normal distribution, the same at every call."""
    return np.random.default_rng([rows, classes]).standard_normal((rows, classes)) * deviation


def every_width(dtype: Any) -> Iterator[Case]:
    for classes in WIDTHS:
        yield case_of(f"{classes} classes", normal(6, classes), dtype)


def many_rows(dtype: Any) -> Iterator[Case]:
    for rows, classes in ((129, 5), (257, 33), (1025, 3), (4099, 7), (70_001, 2)):
        few = np.resize(normal(12, classes), (rows, classes))  # the same few rows, so that the exact answer is quick
        targets = np.resize(np.abs(normal(12, classes, 0.3)), (rows, classes))
        yield case_of(f"{rows} rows of {classes}", few, dtype, np.arange(rows) % classes, targets=targets)


def many_classes(dtype: Any) -> Iterator[Case]:
    x = np.round(normal(3, 40_001) * 8) / 8  # few values, so that the exact answer is quick
    yield case_of("40001 classes", x, dtype)
    edges = np.resize(x[0], (6, 40_001))
    edges[0], edges[1] = -inf, -inf
    edges[0, 39_000] = 1.0
    edges[2, 7] = edges[4, 7] = edges[4, 40_000] = inf
    edges[3, 40_000] = nan
    edges[5, :32_768] = -inf
    yield case_of("infinities among 40001", edges, dtype, [39_000, 1, 7, 0, 7, 40_000])
    equal = np.full((2, 70_001), 0.5)
    equal[1, 70_000] = 0.75  # whose number is 4464 in 16 bits
    labels, targets = [0, 70_000], np.full((2, 70_001), 1e-5)
    yield case_of("70001 logits, equal but for one", equal, dtype, labels, targets=targets)
    for size in (0.3, 0.7):  # equal terms repeat the same rounding
        equal = np.zeros((3, 20_011))
        equal[:, 1:] = -size
        yield case_of(f"20010 logits {size} under one", equal, dtype, [0, 7, 20_010])


def equal_terms(dtype: Any) -> Iterator[Case]:
    # where they add up to little more than the largest term, the rounding of their sum costs the loss the most
    rests = np.asarray([1.005, 1.02, 1.05, 1.1, 0.5, np.inf])
    for classes in EQUAL_WIDTHS:
        gaps = np.log(np.maximum((classes - 1) / rests, 1.0))
        labels = np.where(np.arange(len(rests)) % 2, classes - 1, 0)
        is_label = np.arange(classes) == labels[:, None]
        targets = np.where(is_label, 0.9, 0.1 / classes)
        name = f"{classes - 1} equal logits under one"
        yield case_of(name, np.where(is_label, 0.0, -gaps[:, None]), dtype, labels, targets=targets)


def tiny_losses(dtype: Any) -> Iterator[Case]:
    deepest = 11.0 if dtype == np.float16 else 700.0 if dtype == np.float64 else 80.0
    gaps = np.asarray([1.0, 5.0, 9.0, 10.5, 20.0, 40.0, 80.0, 200.0, 700.0])
    gaps = gaps[gaps <= max(deepest, 80.0)]
    yield case_of("confident in two classes", np.stack([np.zeros_like(gaps), -gaps], 1), dtype, np.zeros(len(gaps)))
    yield case_of("confident in the second", np.stack([-gaps, np.zeros_like(gaps)], 1), dtype, np.ones(len(gaps)))
    for classes in (3, 9, 70, 300):
        x = normal(len(gaps), classes, 0.5) - gaps[:, None]
        x[:, classes // 2] = 0.0
        yield case_of(f"confident in {classes} classes", x, dtype, np.full(len(gaps), classes // 2))


def offsets(dtype: Any) -> Iterator[Case]:
    sizes = (1e3, 3e4) if dtype == np.float16 else (1e3, 1e6, 1e30) if dtype != np.float64 else (1e6, 1e15, 1e300)
    for size, sign in itertools.product(sizes, (1.0, -1.0)):
        step = float(np.spacing(np.asarray(size, np.float32 if dtype != np.float64 else np.float64)))
        x = np.round(normal(4, 13)) * max(step, 0.5) if size < 1e20 else normal(4, 13)
        yield case_of(f"around {sign * size:g}", x + sign * size, dtype)


def ties(dtype: Any) -> Iterator[Case]:
    for classes in (2, 5, 8, 17, 70):
        x = np.round(normal(6, classes, 0.6))
        x[::2] = 0.0
        yield case_of(f"ties among {classes}", x, dtype)


def wide_gaps(dtype: Any) -> Iterator[Case]:
    largest = 6e4 if dtype == np.float16 else 3e38 if dtype != np.float64 else 1e308
    for size in (30.0, 103.0, 150.0, 745.0, 1e4, largest / 4):
        x = np.zeros((6, 11))
        x[:, ::2] = -min(size, largest / 4)
        x[3:, 5] = min(size, largest / 4)
        yield case_of(f"gaps of {size:g}", x, dtype, [0, 1, 5, 0, 5, 6])


def underflow(dtype: Any) -> Iterator[Case]:
    deep = 708.0 if dtype == np.float64 else 87.0
    gaps = deep + np.linspace(-3, 38 if dtype == np.float64 else 17, 12)
    yield case_of("exponentials that underflow", np.stack([0 * gaps, -gaps, -gaps], 1), dtype, np.zeros(12))
    smallest = float(limits(dtype).smallest_subnormal)
    yield case_of("subnormal logits", np.asarray([[0, 1, 2, 3], [5, -5, 0, 1]]) * smallest, dtype, [3, 1])


def infinities(dtype: Any) -> Iterator[Case]:
    values = (-inf, -1.0, 0.0, 2.0, inf)
    for classes in (2, 3):
        rows = np.asarray(list(itertools.product(values, repeat=classes)))
        for label in range(classes):
            hit = np.broadcast_to(np.arange(classes) == label, rows.shape)
            name = f"every row of {classes} edge values, label {label}"
            yield case_of(name, rows, dtype, np.full(len(rows), label), targets=hit)
    for classes in (9, 64, 100, 1030):
        x = normal(9, classes)
        x[:, ::3] = -inf
        x[3:6, classes // 2] = inf
        x[5, 1] = inf
        x[6:, classes // 2 :] = -inf
        yield case_of(f"infinities among {classes}", x, dtype)
        yield case_of(f"mass on them among {classes}", x, dtype, targets=np.full(x.shape, 1.0 / classes))


def not_numbers(dtype: Any) -> Iterator[Case]:
    for classes in (2, 7, 16, 33, 100, 1030):
        x = normal(7, classes)
        x[1, 0] = x[3, classes - 1] = x[5, classes // 2] = nan
        x[5, 0] = inf
        x[3, : classes - 1] = -inf
        case = case_of(f"NaN among {classes}", x, dtype)
        if classes == 33:  # a payload that a shift or a truncation would turn into infinity
            bits = case.logits.view(f"u{case.logits.dtype.itemsize}")
            bits[1, 0] = np.asarray(inf, dtype).view(bits.dtype) + bits.dtype.type(1)
        yield case


def masked_tiles(dtype: Any) -> Iterator[Case]:
    for classes, masked in ((9, 8), (64, 32), (65, 64), (300, 256), (1030, 1024), (5000, 4999)):
        x = normal(4, classes)
        x[:, :masked] = -inf
        x[1] = x[1, ::-1]
        yield case_of(f"{masked} of {classes} masked", x, dtype, [0, 0, classes - 1, masked // 2])
    for classes in (1, 3, 17, 100):
        nothing = np.full((3, classes), -inf)
        yield case_of(f"all of {classes} masked", nothing, dtype, targets=np.zeros((3, classes)))
        yield case_of(f"mass on all of {classes} masked", nothing, dtype, targets=np.full((3, classes), 0.5))


def strange_labels(dtype: Any) -> Iterator[Case]:
    for classes in (1, 5, 16, 33, 100, 1025):
        labels = [-1, classes, 0, -100, classes + 1, 1 << 31, -(1 << 31), 1 << 32, 1 << 62, (1 << 63) - 1, -(1 << 63)]
        labels += [classes - 1, (1 << 32) + 1, -classes, 255, 1 << 40]
        yield case_of(f"labels outside {classes}", normal(len(labels), classes), dtype, labels)


def smoothed(dtype: Any) -> Iterator[Case]:
    for classes, smoothing in itertools.product((2, 7, 64, 65, 300), (0.1, 0.5, 1.0)):
        x = normal(6, classes)
        x[3, 1] = -inf
        name = f"smoothed by {smoothing} over {classes}"
        yield case_of(name, x, dtype, on=1 - smoothing, off=smoothing / classes)
    yield case_of("three quarters of a target over 7", normal(6, 7), dtype, [-1, 7, 0, 6, 0, 3], on=0.75)
    for classes in (2, 7, 64, 65, 300):
        x, labels = normal(5, classes), np.arange(5) % classes
        x[np.arange(5), labels] = -inf
        yield case_of(
            f"all of it smoothed over {classes}, −inf at the label", x, dtype, labels, on=0.0, off=1 / classes
        )
    for group in (infinities, not_numbers, masked_tiles, strange_labels, offsets, ties):
        for case in list(group(dtype))[-3:]:
            off = 0.1 / case.logits.shape[1]
            yield replace(case, name=f"{case.name}, smoothed", on=0.9, off=off)


def soft_targets(dtype: Any) -> Iterator[Case]:
    for classes in (2, 9, 64, 65, 300):
        x = normal(5, classes)
        targets = np.abs(normal(5, classes, 0.4))
        targets[1] = 0.7  # repeated numbers
        targets[2] = 0.0
        targets[3, ::2] = 1e-30
        targets[4] = 1e-6
        targets[4, 0] = 1e3
        yield case_of(f"soft targets over {classes}", x, dtype, targets=targets)


def random_rows(dtype: Any) -> Iterator[Case]:
    rng = np.random.default_rng(20261121)
    for number in range(25):
        rows, classes = int(rng.integers(1, 9)), int(rng.integers(1, 200))
        deviation, offset = 10.0 ** rng.uniform(-3, 2), rng.choice([0.0, 0.0, 10.0, -1000.0])
        x = rng.standard_normal((rows, classes)) * deviation + offset
        x[rng.random(x.shape) < rng.choice([0.0, 0.0, 0.2])] = -inf
        yield case_of(f"random rows {number}", x, dtype)


def odd_neighbours(dtype: str, rows: int, classes: int, seed: int = 0) -> Case:
    """Rows with many kinds of neighbours: ordinary, confident, masked, NaN, infinite."""
    x = np.random.default_rng([rows, classes, seed]).standard_normal((rows, classes)) * 3
    x[::5] -= 30 * (np.arange(classes) != classes // 2)
    x[1::7, 0] = nan
    x[2::7, : classes // 2] = -inf
    x[3::11, classes - 1] = inf
    case = case_of(f"{rows} rows with odd neighbours", x, named_dtype(dtype))
    return replace(case, source=f'odd_neighbours("{dtype}", {rows}, {classes}, {seed})')


GROUPS: dict[str, Callable[[Any], Iterator[Case]]] = {
    "every_width": every_width,
    "many_rows": many_rows,
    "many_classes": many_classes,
    "equal_terms": equal_terms,
    "tiny_losses": tiny_losses,
    "offsets": offsets,
    "ties": ties,
    "wide_gaps": wide_gaps,
    "underflow": underflow,
    "infinities": infinities,
    "not_numbers": not_numbers,
    "masked_tiles": masked_tiles,
    "strange_labels": strange_labels,
    "smoothed": smoothed,
    "soft_targets": soft_targets,
    "random_rows": random_rows,
}
OP_OF_GROUP = {"strange_labels": "sparse", "smoothed": "sparse", "soft_targets": "dense"}
"""The op of the groups that are for one op only."""


@functools.lru_cache(maxsize=64)
def cases(group: str, dtype: str) -> tuple[Case, ...]:
    """The cases of a group in a dtype; their arrays are read-only."""
    generated = GROUPS[group](named_dtype(dtype))
    group_cases = tuple(replace(case, source=f'case("{dtype}", "{case.name}")') for case in generated)
    for case in group_cases:
        for array in (case.logits, case.labels, case.targets):
            array.flags.writeable = False
    return group_cases


def case(dtype: str, name: str) -> Case:
    """The case of that name."""
    return next(found for group in GROUPS for found in cases(group, dtype) if found.name == name)


def named_dtype(name: str) -> Any:
    """NumPy's dtype of that name; bfloat16 is that of ml_dtypes, which raises ImportError if it is not installed."""
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)
