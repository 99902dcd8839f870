"""A failing call made as small as it stays failing: by simple steps, the first that helps taken each time."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .calls import Call
from .doors import door_named
from .verdict import Fault, faults

TRIES = 400


def shrink(call: Call, fault: Fault) -> tuple[Call, Fault]:
    """The smallest call found with a fault of the same kind at the same doors, and that fault."""
    tries = 0
    while tries < TRIES:
        for smaller in steps(call):
            tries += 1
            found = same_fault(smaller, fault)
            if found is not None:
                call, fault = smaller, found
                break
            if tries >= TRIES:
                break
        else:
            break
    return call, fault


def same_fault(call: Call, fault: Fault) -> Fault | None:
    """A fault of the same kind at the same doors, if the call has it."""
    doors = [door_named(name) for name in dict.fromkeys((fault.other, fault.door)) if name]
    try:
        if not all(door.serves(call) for door in doors):
            return None
        found, _ = faults(call, doors)
    except Exception:  # a step may make a call that is none
        return None
    alike = (one for one in found if (one.door, one.what) == (fault.door, fault.what))
    return next(alike, None)


def steps(call: Call) -> Iterator[Call]:
    """Smaller calls, the much smaller first."""
    yield from without_options(call)
    if call.layouts:
        yield call.replace(layouts={})
        for name in call.layouts:
            yield call.replace(layouts={key: value for key, value in call.layouts.items() if key != name})
    if call.validate != "auto":
        yield call.replace(validate="auto")
    if call.predictions is None:
        return
    for axis in range(call.predictions.ndim):
        size = call.predictions.shape[axis]
        for kept in parts(size):
            yield from without_entries(call, axis, kept)
    yield from simpler_values(call)


def without_options(call: Call) -> Iterator[Call]:
    for name in call.options:
        if name not in ("num_classes", "cuts", "order", "axis", "kind"):
            yield call.without(name)
    if len(call.options.get("cuts", ())) > 1:
        cuts = call.options["cuts"]
        yield call.replace(options=call.options | {"cuts": cuts[1:], "order": tuple(range(len(cuts)))})
        yield call.replace(options=call.options | {"cuts": cuts[:1], "order": (0, 1)})
    order = tuple(sorted(call.options.get("order", ())))
    if order != call.options.get("order", ()):
        yield call.replace(options=call.options | {"order": order})


def parts(size: int) -> Iterator[np.ndarray]:
    """What may be kept of an axis: halves, then all but a few, then all but one."""
    every = np.arange(size)
    if size > 1:
        yield every[: size // 2]
        yield every[size // 2 :]
    if size > 8:
        for start in range(0, size, max(1, size // 8)):
            yield np.delete(every, slice(start, start + size // 8))
    if 1 < size <= 16:
        for one in every:
            yield np.delete(every, one)


def without_entries(call: Call, axis: int, kept: np.ndarray) -> Iterator[Call]:
    """The call with some entries of an axis; of the class axis, labels count the classes that are left."""
    options: dict[str, Any] = dict(call.options)
    is_classes = call.function != "binary" and axis == call.axis
    predictions, targets = np.take(call.predictions, kept, axis=axis), call.targets
    if targets is not None:
        if targets.ndim == call.predictions.ndim:
            targets = np.take(targets, kept, axis=axis)
        elif is_classes:
            place = {int(old): new for new, old in enumerate(kept)}
            size = call.predictions.shape[axis]
            moved = [place.get(int(y), 0) if 0 <= int(y) < size else int(y) for y in targets.reshape(-1)]
            targets = np.asarray(moved, targets.dtype).reshape(targets.shape)
        else:
            targets = np.take(targets, kept, axis=axis - (axis > call.axis))
    for name in ("sample_weight", "class_weight", "pos_weight"):
        value = options.get(name)
        if isinstance(value, np.ndarray) and value.ndim:
            if name == "sample_weight" and not is_classes:
                along = axis if call.function == "binary" else axis - (axis > call.axis)
                options[name] = np.take(value, kept, axis=along)
            elif axis == call.predictions.ndim - 1 if name == "pos_weight" else name == "class_weight" and is_classes:
                options[name] = value[kept]
        elif isinstance(value, list) and name == "class_weight" and is_classes:
            options[name] = [value[one] for one in kept]
    if "cuts" in options and is_classes:
        cuts = sorted({int(np.searchsorted(kept, cut)) for cut in options["cuts"]} - {0, len(kept)})
        options |= {"cuts": tuple(cuts), "order": tuple(range(len(cuts) + 1))}
    yield call.replace(predictions=predictions, targets=targets, options=options)


def simpler_values(call: Call) -> Iterator[Call]:
    """The same call with rounder numbers."""
    x = call.predictions
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        for rounded in (np.round(wide), np.asarray([float(f"{v:.2g}") for v in wide.reshape(-1)]).reshape(x.shape)):
            simpler = rounded.astype(x.dtype)
            if simpler.tobytes() != x.tobytes():
                yield call.replace(predictions=simpler)
    if call.has_labels and call.targets.dtype != np.int64:
        labels = call.targets.astype(np.int64)
        yield call.replace(targets=labels)
    for name in ("sample_weight", "class_weight"):
        value = call.options.get(name)
        if isinstance(value, np.ndarray) and value.dtype != bool:
            simpler = np.sign(value).astype(value.dtype)
            if simpler.tobytes() != value.tobytes():
                yield call.replace(options=call.options | {name: simpler})
