"""What a plugin may declare: every field of a KernelSpec and of a BackendSpec, checked when it is registered.

Leaves out whether a name is taken already (``registry.py``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .. import checks
from ..contract.specs import API_VERSION, BackendSpec

SETS = ("arrays", "devices", "dtypes", "layouts", "methods")
SERVED = range(max(1, API_VERSION - 1), API_VERSION + 1)
METHODS = (
    "partial",
    "loss",
    "loss_and_partial",
    "gradient",
    "loss_and_gradient",
    "statistics",
    "probability_sums",
    "whole_call",
)
FFI, FFI_FURTHER = frozenset({"ffi_target"}), frozenset({"partial", "statistics"})
"""What a kernel that JAX takes declares, and the methods that it may have targets for besides."""
INSPECTED = frozenset({"dask", "torch"})
"""The libraries whose chunks or memory ``arrays.views`` can inspect."""

Rule = tuple[str, Callable[[Any], bool]]


def one_of(*choices: str) -> Rule:
    return checks.quoted(choices), lambda value: value in choices


def are_names(value: Any, kind: type[Any] = frozenset) -> bool:
    return isinstance(value, kind) and len(value) > 0 and all(isinstance(name, str) for name in value)


def as_names(value: Any) -> Any:
    """A frozenset of the names in a list, a tuple or a set; anything else as it is."""
    return frozenset(value) if any(are_names(value, kind) for kind in (list, tuple, set)) else value


def are_words(value: Any, word: str) -> bool:
    """Whether these are names that calls may have, each "*" or matched by the regular expression."""
    return are_names(value) and all(name == "*" or re.fullmatch(word, name) for name in value)


ALIASES = "np|cp|jnp|tf|pytorch"
"""What libraries are called in programs; their arrays' types are of modules of other names."""
SWITCH: Rule = ("True or False", lambda value: isinstance(value, bool))
FUNCTION: Rule = ("a function or None", lambda value: value is None or callable(value))
RULES: dict[str, Rule] = {
    "name": ("a name", lambda value: isinstance(value, str) and value != ""),
    "load": ('"package.module:name"', lambda value: isinstance(value, str) and all(value.partition(":"))),
    "api": (" or ".join(map(str, SERVED)), lambda value: value in SERVED),
    "op": one_of("sparse", "dense"),
    "arrays": (
        'a frozenset of root modules such as "numpy" and "torch", or "*"',
        lambda value: are_words(value, rf"(?!({ALIASES})$)[A-Za-z_]\w*"),
    ),
    "devices": (
        'a frozenset of kinds of device such as "cpu" and "cuda", or "*"',
        lambda value: are_words(value, "[a-z][a-z_]*"),
    ),
    "dtypes": (
        f"a frozenset of any of {checks.quoted((*sorted(checks.FLOATS), '*'))}",
        lambda value: are_words(value, "|".join(checks.FLOATS)),
    ),
    "layouts": ('a frozenset of "last" and "middle"', lambda value: are_names(value) and value <= {"last", "middle"}),
    "methods": (
        f'a frozenset of "partial" and any of {checks.quoted(METHODS[1:])}, or of "ffi_target" and any of '
        f"{checks.quoted(sorted(FFI_FURTHER))}",
        lambda value: are_names(value) and ({"partial"} <= value <= {*METHODS} or FFI <= value <= FFI | FFI_FURTHER),
    ),
    "priority": ("an int", lambda value: isinstance(value, int)),
    "opt_in": SWITCH,
    "deterministic": SWITCH,
    "contiguous": SWITCH,
    "in_place": SWITCH,
    "takes_out": SWITCH,
    "block_elements": ("an int ≥ 1 or None", lambda value: value is None or checks.is_count(value)),
    "check": FUNCTION,
    "guard": FUNCTION,
    "inner": one_of("", "chunks", "view"),
    "views": ("a tuple of names", lambda value: value == () or are_names(value, tuple)),
}


def checked(spec: Any, kind: type[Any]) -> Any:
    """The declaration, with a frozenset in the place of each list, tuple or set of names.

    Raises TypeError if it is of another class, ValueError if a field has no meaning for this class.
    """
    if not isinstance(spec, kind):
        raise TypeError(f"expected a {kind.__name__}, got {checks.describe_type(spec)}")
    spec = replace(spec, **{field: as_names(getattr(spec, field)) for field in SETS if hasattr(spec, field)})
    for field, (rule, holds) in RULES.items():
        if hasattr(spec, field) and not holds(getattr(spec, field)):
            refuse(spec, field, rule)
    if isinstance(spec, BackendSpec):
        if spec.inner and not spec.views and not spec.arrays <= INSPECTED:
            refuse(spec, "views", f'given where `inner` is "{spec.inner}"')
        if not spec.arrays.isdisjoint(spec.views):
            refuse(spec, "views", "libraries other than those of `arrays`")
    return spec


def refuse(spec: Any, field: str, rule: str) -> None:
    """Raises for one field of a declaration."""
    got = getattr(spec, field)
    raise ValueError(f"{title(spec)}: `{field}` must be {rule}, got {got!r}. See xent.{type(spec).__name__}.")


def title(spec: Any) -> str:
    """What is declared, for a message."""
    return f"{type(spec).__name__.removesuffix('Spec').lower()} {spec.name!r}"
