"""Preconditions of one plain value (a number, a flag, a name, one of several words), and how a message shows it."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Iterable
from typing import Any

from .. import arrays
from ..arrays import describe


def is_real(value: Any) -> bool:
    """Whether the value is a plain number, Python's or NumPy's, those of ml_dtypes among them."""
    is_number = isinstance(value, numbers.Real) or type(value).__module__ == "ml_dtypes"
    return is_number and not isinstance(value, bool)


def is_count(value: Any, least: int = 1) -> bool:
    """Whether the value is a whole number, Python's or NumPy's, not under the least."""
    return not isinstance(value, bool) and isinstance(value, numbers.Integral) and int(value) >= least


def integer(value: Any) -> int:
    """The value as an int; raises TypeError for what is none, a bool among it."""
    index: Any = None if isinstance(value, bool) else value
    return operator.index(index)


def flag(function: str, name: str, value: Any) -> bool:
    """A flag is a bool, Python's or NumPy's."""
    if isinstance(value, bool) or (type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_")):
        return bool(value)
    raise TypeError(f"{function}: `{name}` must be True or False, got {shown(value)}. Pass one of the two.")


def choice(function: str, name: str, value: Any, choices: tuple[str, ...]) -> None:
    """A keyword has one of its values."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{function}: `{name}` must be {quoted(choices)}, got {value!r}. Choose one of them.")


def number(function: str, name: str, value: Any) -> None:
    """A value is a plain number; a bool is one too."""
    if not isinstance(value, numbers.Number) and not is_real(value):
        remedy = number_remedy("float", name, value, "Pass a number")
        raise TypeError(f"{function}: `{name}` must be a number, got {shown(value)}. {remedy}.")


def classes(function: str, value: Any) -> None:
    """A number of classes is at least one."""
    if not is_count(value):
        remedy = number_remedy("int", "num_classes", value, "Pass the number of classes")
        raise ValueError(f"{function}: `num_classes` must be an int ≥ 1, got {shown(value)}. {remedy}.")


def name(function: str, argument: str, value: Any) -> str | None:
    """A name is a string."""
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{function}: `{argument}` must be a name, got {value!r}. See xent.plugins().")
    return value


def names(function: str, argument: str, value: Any) -> tuple[str, ...] | None:
    """Names are a string, or several."""
    if value is None:
        return None
    several = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (None,)
    if not all(isinstance(name, str) for name in several):
        raise ValueError(f"{function}: `{argument}` must be a name or several, got {value!r}. See xent.plugins().")
    return several


def shown(value: Any) -> str:
    """A value for a message: an array without its contents, all else as Python writes it."""
    is_array = hasattr(value, "shape") and hasattr(value, "dtype") and not is_real(value)
    return describe(value) if is_array else repr(value)


def quoted(choices: Iterable[str]) -> str:
    """The choices as a message shows them: "a", "b" or "c"."""
    *most, last = (f'"{choice}"' for choice in choices)
    return f"{', '.join(most)} or {last}"


def describe_type(value: Any) -> str:
    """A type for a message: ``list``, ``pandas.DataFrame``."""
    root = type(value).__module__.partition(".")[0]
    return type(value).__name__ if root == "builtins" else f"{root}.{type(value).__name__}"


def show(position: tuple[int, ...]) -> str:
    """A position for a message: 3, or (0, 2)."""
    return str(position[0]) if len(position) == 1 else str(position)


def number_remedy(call: str, name: str, value: Any, otherwise: str) -> str:
    """What to write for a number: ``call(name)`` where the value is one in an array without axes."""
    return f"Pass {call}({name})" if getattr(value, "shape", None) == () and not arrays.is_traced(value) else otherwise
