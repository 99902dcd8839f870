"""Random calls: shapes, dtypes, layouts, options and values, strange ones more often than the world has them.

What a compiler sees of a call (shapes, dtypes, options) is drawn from ``structure``, all else from ``values``: the same
structure with other values needs nothing compiled anew.
"""

import math
from typing import Any

import numpy as np

import xent

from .calls import LOSSES, Call, dtype_named

inf, nan = np.inf, np.nan
Rng = np.random.Generator
FUNCTIONS = {
    "sparse": 0.32,
    "dense": 0.19,
    "binary": 0.12,
    "statistics": 0.11,
    "partial": 0.09,
    "logsumexp": 0.05,
    "log_softmax": 0.05,
    "softmax": 0.04,
    "one_hot": 0.03,
}
DTYPES = {"float32": 0.45, "float64": 0.25, "float16": 0.15, "bfloat16": 0.15}
LAYOUTS = ("F", "reversed", "broadcast", "misaligned", "read-only", "strided", "inner")
LABELS = tuple(f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "u"))
ROWS = {
    "plain": 0.34,
    "ties": 0.1,
    "equal": 0.06,
    "equal but one": 0.06,
    "offset": 0.1,
    "confident": 0.08,
    "masked": 0.08,
    "infinite": 0.04,
    "nan": 0.03,
    "subnormal": 0.03,
    "huge": 0.04,
    "underflow": 0.04,
}
SMALL_SHAPES = ((5, 7), (3, 33), (2, 3, 4), (1, 1), (0, 3), (6,))
"""The shapes of calls that are compiled."""


def one_of(rng: Rng, weights: dict[str, float]) -> str:
    names = list(weights)
    odds = np.fromiter(weights.values(), float)
    return names[int(np.searchsorted(np.cumsum(odds), rng.random() * odds.sum(), side="right"))]


def choice(rng: Rng, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def draw(structure: Rng, values: Rng, *, is_small: bool = False) -> Call:
    """A random call; a small one is of few shapes, and of no layout but C."""
    function = one_of(structure, FUNCTIONS)
    if function == "one_hot":
        return draw_one_hot(structure, values, is_small)
    dtype = dtype_named(one_of(structure, DTYPES))
    shape, axis = draw_shape(structure, is_small, function == "binary")
    options: dict[str, Any] = {}
    if function != "binary" and (axis != len(shape) - 1 or structure.random() < 0.2):
        options["axis"] = axis - len(shape) if structure.random() < 0.5 else axis
    layouts = {} if is_small else draw_layouts(structure)
    kind = "logits"
    if function in ("sparse", "dense", "binary", "statistics") and structure.random() < 0.2:
        kind = options["kind"] = choice(structure, ("probabilities", "log_probabilities"))
    make = draw_logits if kind == "logits" else draw_probabilities
    if function == "binary":
        predictions = make(
            values, math.prod(shape[:-1]), math.prod(shape[-1:]), dtype, kind == "log_probabilities"
        ).reshape(shape)
    else:
        batch = shape[:axis] + shape[axis + 1 :]
        flat = make(values, math.prod(batch), shape[axis], dtype, kind == "log_probabilities")
        predictions = np.moveaxis(flat.reshape(*batch, shape[axis]), -1, axis)
    if layouts.get("predictions") == "broadcast" and predictions.ndim:
        predictions = np.broadcast_to(predictions[:1], predictions.shape)
    predictions = np.array(predictions, order="C")
    validate = one_of(structure, {"auto": 0.8, "always": 0.1, "never": 0.1})
    targets = None
    if function in ("sparse", "statistics"):
        targets = draw_labels(structure, values, predictions, axis, options, may_be_bad=True, is_small=is_small)
    elif function == "partial":
        targets = draw_slices(structure, values, predictions, axis, options)
    elif function == "dense":
        targets = draw_targets(structure, values, predictions.shape, axis, dtype)
    elif function == "binary":
        targets = draw_binary_targets(structure, values, shape)
    if function in ("sparse", "dense", "binary"):
        draw_weights(structure, values, function, shape, axis, options)
    if function in ("sparse", "dense", "partial") and structure.random() < 0.3:
        options["label_smoothing"] = choice(structure, (0.1, 1.0, 1e-6, float(structure.random())))
    call = Call(function, predictions, targets, options, layouts, validate)
    is_spoilt = not is_small and predictions.ndim > 0 and structure.random() < 0.04
    return spoil(structure, call) if is_spoilt else call


def draw_shape(rng: Rng, is_small: bool, is_binary: bool) -> tuple[tuple[int, ...], int]:
    """A shape and its class axis."""
    if is_small:
        shape = choice(rng, SMALL_SHAPES)
        axes = [axis for axis, size in enumerate(shape) if size]
        return shape, axes[-1] if rng.random() < 0.7 else choice(rng, axes)
    low, high = choice(rng, [(1, 5)] * 30 + [(6, 70)] * 45 + [(71, 600)] * 21 + [(601, 5000)] * 4)
    classes = 70_001 if rng.random() < 0.001 else int(rng.integers(low, high + 1))
    batch: list[int] = []
    for _ in range(choice(rng, [0] * 2 + [1] * 12 + [2] * 4 + [3] * 2)):
        room = max(2, 8_000 // (classes * int(np.prod(batch or [1])) or 1))
        batch.append(0 if rng.random() < 0.04 else min(room, choice(rng, (1, 2, 3, 4, 5, 7, 9, 16, 31, 130))))
    axis = len(batch) if rng.random() < 0.7 else int(rng.integers(len(batch) + 1))
    if is_binary and rng.random() < 0.05:
        return (), 0
    return (*batch[:axis], classes, *batch[axis:]), axis


def draw_layouts(rng: Rng) -> dict[str, str]:
    """How the arrays lie; most of them as they do everywhere."""
    names = ("predictions", "targets", "sample_weight", "class_weight", "pos_weight")
    return {name: choice(rng, LAYOUTS) for name in names if rng.random() < 0.22}


def draw_logits(rng: Rng, rows: int, classes: int, dtype: np.dtype, _: bool) -> np.ndarray:
    """Logits (rows, classes), each row of a kind of its own."""
    info = limits(dtype)
    x = rng.standard_normal((rows, classes)) * 10 ** rng.uniform(-3, 2.3, (rows, 1))
    for row in range(min(rows, 40)):
        x[row] = draw_row(rng, one_of(rng, ROWS), x[row], info)
    if rng.random() < 0.06:
        x = np.sort(x, axis=-1) if rng.random() < 0.5 else -np.sort(-x, axis=-1)
    x = np.where(np.isfinite(x), np.clip(x, -float(info.max), float(info.max)), x)
    return x.astype(dtype)


def limits(dtype: np.dtype) -> Any:
    import ml_dtypes

    return np.finfo(dtype) if dtype.kind == "f" else ml_dtypes.finfo(dtype)


def draw_row(rng: Rng, kind: str, x: np.ndarray, info: Any) -> np.ndarray:
    """One row of a kind; ``x`` is a plain one."""
    n = len(x)
    if n == 0:
        return x
    at = int(rng.integers(n))
    if kind == "ties":
        return rng.integers(-2, 3, n) * 2.0 ** rng.integers(-3, 4)
    if kind == "equal":
        return np.full(n, rng.standard_normal() * 10 ** rng.uniform(-3, 4))
    if kind == "equal but one":
        x = np.full(n, -(10 ** rng.uniform(-2, 2)))
        x[at] = 0
        return x
    if kind == "offset":
        return x + choice(rng, (-1, 1)) * 10 ** rng.uniform(1, 7)
    if kind == "confident":
        x[at] = x.max() + 10 ** rng.uniform(0, 2.1)
        return x
    if kind == "masked":
        masked = rng.random(n) < choice(rng, (0.1, 0.5, 0.95, 1.1))
        return np.where(masked, -inf, x)
    if kind == "infinite":
        x = np.where(rng.random(n) < 0.1, -inf, x)
        x[rng.integers(n, size=int(rng.integers(1, 3)))] = inf
        return x
    if kind == "nan":
        x = np.where(rng.random(n) < 0.2, choice(rng, (-inf, inf, 0.0)), x)
        x[at] = nan
        return x
    if kind == "subnormal":
        return rng.standard_normal(n) * float(info.smallest_normal) * 10 ** rng.uniform(-2, 1)
    if kind == "huge":
        return rng.uniform(-1, 0.2, n) * float(info.max) * 10 ** rng.uniform(-3, 0)
    if kind == "underflow":
        low = 700 if info.bits == 64 else 80
        x = -rng.uniform(low, low * 1.1 + 30, n)
        x[at] = 0
        return x
    return x


def draw_probabilities(rng: Rng, rows: int, classes: int, dtype: np.dtype, log: bool) -> np.ndarray:
    """Probabilities (rows, classes), not all of which sum to 1, or their logarithms."""
    p = rng.random((rows, classes)) ** 10 ** rng.uniform(-1, 1, (rows, 1))
    p = np.where(rng.random((rows, 1)) < 0.7, p / np.maximum(p.sum(axis=-1, keepdims=True), 1e-30), p)
    kinds = rng.random((rows, 1))
    p = np.where((kinds < 0.2) & (rng.random(p.shape) < 0.3), 0.0, p)
    p = np.where((kinds > 0.2) & (kinds < 0.3), (rng.random(p.shape) < 0.5).astype(float), p)
    p = np.where((kinds > 0.3) & (kinds < 0.4), 1 - 10 ** rng.uniform(-12, -1, p.shape), p)
    p = np.where((kinds > 0.95) & (rng.random(p.shape) < 0.2), nan, p)
    smallest = float(limits(dtype).smallest_normal)
    p = np.where(p < smallest, np.where(p == 0, 0.0, smallest), p)
    if log:
        with np.errstate(divide="ignore"):
            return np.log(p).astype(dtype)
    return p.astype(dtype)


def draw_labels(
    structure: Rng, values: Rng, predictions: np.ndarray, axis: int, options: dict, *, may_be_bad: bool, is_small: bool
) -> np.ndarray:
    """Labels of some integer dtype; with ignored ones, which the options then name, and bad ones."""
    shape, classes = predictions.shape[:axis] + predictions.shape[axis + 1 :], predictions.shape[axis]
    fits = [name for name in LABELS if np.iinfo(name).max >= classes - 1]
    dtype = np.dtype(choice(structure, fits))
    labels = values.integers(0, classes, shape)
    if values.random() < 0.3:
        with np.errstate(all="ignore"):
            at_max = np.nan_to_num(predictions.astype(np.float64), nan=0.0).argmax(axis=axis)
        labels = np.where(values.random(shape) < 0.5, at_max, labels)
    strange: list[int] = []
    if may_be_bad and structure.random() < 0.3:
        ignored = choice(structure, (-100, -1, 0, classes - 1, 255, (-100, 0), (1, 2, -5)))
        options["ignore_index"] = ignored
        strange += ignored if isinstance(ignored, tuple) else [ignored]
    if may_be_bad and structure.random() < 0.08:
        strange += [-1, classes, classes + 3]
        strange += [] if is_small else [int(np.iinfo(dtype).max), int(np.iinfo(dtype).min)]
    strange = [one for one in strange if np.iinfo(dtype).min <= one <= np.iinfo(dtype).max]
    labels = labels.astype(dtype)
    if strange:
        these = np.asarray(strange, dtype)[values.integers(0, len(strange), shape)]
        labels = np.where(values.random(shape) < 0.3, these, labels)
    return np.asarray(labels, dtype)


def draw_slices(structure: Rng, values: Rng, predictions: np.ndarray, axis: int, options: dict) -> np.ndarray:
    """The targets of slices of the classes, and where they are cut."""
    classes = predictions.shape[axis]
    number = int(structure.integers(1, min(classes, 5) + 1))
    cuts = np.sort(structure.choice(np.arange(1, classes), number - 1, replace=False)) if classes > 1 else []
    options["cuts"] = tuple(int(cut) for cut in cuts)
    options["order"] = tuple(int(one) for one in structure.permutation(len(cuts) + 1))
    if structure.random() < 0.4:
        return draw_targets(structure, values, predictions.shape, axis, predictions.dtype)
    return draw_labels(structure, values, predictions, axis, {}, may_be_bad=False, is_small=False)


def draw_targets(structure: Rng, values: Rng, shape: tuple[int, ...], axis: int, dtype: np.dtype) -> np.ndarray:
    """Dense targets, not all of which sum to 1."""
    name = choice(structure, ("float32", "float32", "float64", "float16", dtype.name, "bool", "int64"))
    t = values.random(shape) ** 10 ** values.uniform(-1, 1)
    form = values.random()
    if name in ("bool", "int64") or form < 0.2:
        t = (t == t.max(axis=axis, keepdims=True)).astype(float) if t.size else t
        t = t * (values.random(shape) < 0.95)
    elif form < 0.5:
        t = np.where(values.random(shape) < 0.4, 0.0, t)
    if 0.3 < form < 0.8 and name not in ("bool", "int64"):
        t = t / np.maximum(t.sum(axis=axis, keepdims=True), 1e-30)
    return np.array(t.astype(dtype_named(name)), order="C")


def draw_binary_targets(structure: Rng, values: Rng, shape: tuple[int, ...]) -> np.ndarray:
    name = choice(structure, ("float32", "float64", "float16", "bool", "int32"))
    z = np.where(values.random(shape) < 0.6, values.random(shape) < 0.5, values.random(shape))
    return np.asarray(z > 0.5 if name == "bool" else np.round(z) if name == "int32" else z).astype(name)


def draw_weights(
    structure: Rng, values: Rng, function: str, shape: tuple[int, ...], axis: int, options: dict[str, Any]
) -> None:
    """Reduction and weights, into the options."""
    if structure.random() < 0.5:
        means = [xent.Mean(*one) for one in (("counted",), ("all",), (3.5,), ("weights", 0.0), ("counted", 7.0))]
        options["reduction"] = choice(structure, ("sum", "sum", "mean", "mean", *means))
    batch = shape if function == "binary" else shape[:axis] + shape[axis + 1 :]
    if structure.random() < 0.35:
        options["sample_weight"] = draw_weight(structure, values, batch)
    if function == "binary":
        if structure.random() < 0.4:
            form = structure.random()
            plain = float(choice(structure, (2.0, 0.5, 0.0, 1.0, 3.25)))
            last = shape[-1:] if form < 0.5 else ()
            options["pos_weight"] = plain if form < 0.3 else draw_weight(structure, values, last, no_bool=True)
    elif structure.random() < 0.3:
        weight = draw_weight(structure, values, (shape[axis],), no_bool=True)
        options["class_weight"] = weight.tolist() if structure.random() < 0.2 and weight.size < 100 else weight


def draw_weight(structure: Rng, values: Rng, shape: tuple[int, ...], *, no_bool: bool = False) -> np.ndarray:
    """Weights that float32 has exactly, 0 often among them."""
    name = choice(structure, ("float32", "float32", "float64", "int32", *(() if no_bool else ("bool",))))
    weight = np.asarray(values.random(shape) * 2.0 ** values.integers(-3, 4), np.float32)
    weight = np.where(values.random(shape) < 0.15, 0.0, np.where(values.random(shape) < 0.3, 1.0, weight))
    return np.asarray(np.ceil(weight) if name == "int32" else weight > 0.4 if name == "bool" else weight).astype(name)


def draw_one_hot(structure: Rng, values: Rng, is_small: bool) -> Call:
    shape = choice(structure, ((5,), (2, 3), (), (0,), (2, 0, 3)))
    classes = int(structure.integers(1, 8 if is_small else 300))
    fits = [name for name in LABELS if not is_small or name not in ("int64", "uint64")]
    dtype = np.dtype(choice(structure, fits))
    labels = values.integers(max(-3, np.iinfo(dtype).min), min(classes + 3, np.iinfo(dtype).max), shape, dtype=dtype)
    options: dict[str, Any] = {"num_classes": classes}
    if structure.random() < 0.5:
        options["axis"] = int(structure.integers(-len(shape) - 1, len(shape) + 1))
    if structure.random() < 0.3:
        options |= {"on_value": 0.75, "off_value": choice(structure, (-2.0, 0.125))}
    return Call("one_hot", None, np.asarray(labels), options, {} if is_small else draw_layouts(structure))


def spoil(structure: Rng, call: Call) -> Call:
    """The same call with one argument that must be refused by its name."""
    wrong: list[tuple[str, Any]] = [("predictions", np.int64), ("predictions", bool), ("predictions", np.complex64)]
    if call.function != "binary":
        wrong += [("axis", value) for value in (7, -9, -1.0, 0.0, True, "1")]
    if call.function in LOSSES:
        wrong += [("reduction", value) for value in (5, 0, True, False, "avg", "Mean")]
        wrong += [("sample_weight", np.ones(3 + call.predictions.size, np.float32))]
    if call.function in (*LOSSES, "statistics"):
        wrong += [("kind", value) for value in ("logit", 1, True, "")]
    if call.function in ("sparse", "dense", "partial"):
        wrong += [("label_smoothing", value) for value in (1.5, -0.1, nan, inf, "0.1")]
    if call.function in ("sparse", "dense"):
        wrong += [("class_weight", np.ones(call.classes + 1, np.float32)), ("class_weight", [1.0] * (call.classes + 2))]
    if call.function in ("sparse", "statistics"):
        wrong += [("ignore_index", value) for value in (1.5, "a", (0, 1.5), "0")]
    if call.has_labels:
        wrong += [("labels", np.float32), ("labels", bool)]
    name, value = choice(structure, wrong)
    call = call.replace(refused=name)
    if name == "predictions":
        with np.errstate(all="ignore"):
            return call.replace(predictions=np.zeros(call.predictions.shape, value))
    if name == "labels":
        return call.replace(targets=np.zeros(call.targets.shape, value))
    return call.replace(options=call.options | {name: value})
