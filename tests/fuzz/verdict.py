"""What a call's doors returned, held to the exact answer and to one another."""

from typing import Any, NamedTuple

import numpy as np

import xent
from xent.errors import NotServed
from xent.testing.budget import limits

from .answers import Answer, Arithmetic, Number, answer_of
from .calls import Call
from .doors import Door, Outputs
from .exact_numbers import wide


class Fault(NamedTuple):
    """Something that is not as promised.

    Attributes
    ----------
    door : str
    other : str
        The door that returned other bits; empty unless that is the fault.
    what : str
        Of one kind of fault the same: "loss: over its budget".
    found : str
        The numbers.
    """

    door: str
    other: str
    what: str
    found: str


def faults(call: Call, doors: list[Door]) -> tuple[list[Fault], int]:
    """The faults of a call at these doors, and how many of them it was made through."""
    found: list[Fault] = []
    bits: dict[Any, tuple[str, np.ndarray]] = {}
    made = 0
    for door in doors:
        try:
            outputs = door.outputs(call)
        except NotServed:
            continue
        except Exception as error:
            made += 1
            found += raised(call, door, error)
            continue
        made += 1
        if call.refused:
            found.append(Fault(door.name, "", "not refused", f"`{call.refused}` is taken"))
            continue
        found += [*wrong_numbers(call, door, outputs), *other_bits(call, door, outputs, bits)]
    return found, made


def raised(call: Call, door: Door, error: Exception) -> list[Fault]:
    if call.refused and isinstance(error, (TypeError, ValueError)) and f": `{call.refused}` must " in str(error):
        return []
    if isinstance(error, xent.LabelError) and door.raises_labels(call) and answer(call, door).has_bad_label:
        return []
    what = f"raises {type(error).__name__}"
    return [Fault(door.name, "", what, f"{type(error).__name__}: {error}"[:2000])]


def answer(call: Call, door: Door) -> Answer:
    # XLA's logarithms of probabilities are tens of ulps off near 1
    return answer_of(call, Arithmetic(door.flushes, 64 if door.variant.startswith("jax") else 4))


def wrong_numbers(call: Call, door: Door, outputs: Outputs) -> list[Fault]:
    """Every output that is not the exact one within its budget."""
    exact = answer(call, door)
    if exact.has_bad_label and door.raises_labels(call):
        return [Fault(door.name, "", "no LabelError", "a bad label does not raise")]
    found = []
    for name, output in outputs.items():
        fault = wrong_number(output, exact.numbers[name], door)
        if fault:
            found.append(Fault(door.name, "", f"{name}: {fault[0]}", fault[1]))
    return found


def wrong_number(output: np.ndarray, number: Number, door: Door) -> tuple[str, str] | None:
    """What is wrong with an output, and the numbers; None if nothing is."""
    if not hasattr(output, "dtype"):
        return "no array", f"{type(output).__name__}"
    if output.shape != number.exact.shape:
        return "shape", f"{output.shape}, expected {number.exact.shape}"
    narrow_rank = door.variant.startswith("jax") and output.dtype == np.int32
    if output.dtype != number.dtype and not narrow_rank:
        return "dtype", f"{output.dtype}, expected {number.dtype}"
    if number.is_loss and np.any(np.signbit(output) & (output == 0)):
        return "minus zero", "−0.0"
    with np.errstate(all="ignore"):
        actual, exact = output.astype(wide), number.exact
        # what the dtype cannot hold may be its largest number or infinite
        too_large = np.isfinite(exact) & (np.abs(exact) + np.nan_to_num(number.allowed) > 0.99 * largest(output.dtype))
        is_finite = np.isfinite(exact)
        off = np.abs(actual - exact)
        over = is_finite & ~(off <= number.allowed)
        same = (actual == exact) | (np.isnan(actual) & np.isnan(exact))
        over |= ~is_finite & ~same
        over &= ~np.isnan(number.allowed) & ~too_large
        beyond = np.where(np.isfinite(off), off - number.allowed, np.inf)
    if not over.any():
        return None
    excess = np.where(over, beyond, -1.0)
    at = np.unravel_index(int(np.argmax(excess)), excess.shape)
    kind = "over its budget"
    if np.isfinite(exact[at]) != np.isfinite(actual[at]) or not np.isfinite(exact[at]):
        kind = f"{spoken(actual[at])} for {spoken(exact[at])}"
    ratio = float(off[at] / number.allowed[at]) if number.allowed[at] else float("inf")
    where = tuple(int(one) for one in at)
    return kind, (
        f"{int(over.sum())} of {over.size}, worst at {where}: {float(actual[at])!r} for {float(exact[at])!r}, "
        f"{float(off[at]):.4g} off, {float(number.allowed[at]):.4g} allowed ({ratio:.4g} times)"
    )


def largest(dtype: np.dtype) -> float:
    return float(np.iinfo(dtype).max if dtype.kind in "iu" else limits(dtype).max)


def spoken(value: Any) -> str:
    """NaN, an infinity, or a number."""
    return "a number" if np.isfinite(value) else str(float(value))


def other_bits(call: Call, door: Door, outputs: Outputs, bits: dict[Any, tuple[str, np.ndarray]]) -> list[Fault]:
    """Every output that has not the bits that another door has returned."""
    found = []
    for name, output in outputs.items():
        key = door.bits(call, name)
        if key is None:
            continue
        other, before = bits.setdefault(key, (door.name, output))
        if before.shape == output.shape and not same_bits(before, output):
            differ = ~((before == output) | (np.isnan(before) & np.isnan(output)))
            at = np.unravel_index(int(np.argmax(differ)), differ.shape)
            numbers = f"{int(differ.sum())} of {differ.size}: {float(output[at])!r}, at {other} {float(before[at])!r}"
            found.append(Fault(door.name, other, f"{name}: other bits", numbers))
    return found


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal to the bit; NaN to NaN of any payload, and 0 to −0.0 of a gradient."""
    return a.dtype == b.dtype and bool(np.all((a == b) | (np.isnan(a) & np.isnan(b))))
