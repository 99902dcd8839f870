"""Objects that hold arrays, as JAX's trees: ``jax.jit`` and ``jax.grad`` take and return them."""

from __future__ import annotations

import sys
import threading
from typing import Any

from . import arrays

registered: set[type] = set()
"""The types that JAX's trees know."""
registering = threading.Lock()


def register(kind: type, fields: tuple[str, ...], constant: str = "") -> None:
    """Have JAX take an object of this type for a tree of its fields, if JAX is imported.

    ``constant`` is the name of a field that is no array, and the same in every trace.
    """
    if arrays.is_compiling() or kind in registered:
        return
    tree: Any = getattr(sys.modules.get("jax"), "tree_util", None)  # None while JAX is being imported
    with registering:
        if tree is not None and kind not in registered:

            def flattened(whole: Any) -> tuple[list[tuple[Any, Any]], Any]:
                children = [(tree.GetAttrKey(name), getattr(whole, name)) for name in fields]
                return children, getattr(whole, constant) if constant else None

            def put_together(told: Any, children: Any) -> Any:
                whole: Any = object.__new__(kind)  # subtle: unchecked, for a tree may hold anything
                for name, value in zip(fields, children, strict=True):
                    setattr(whole, name, value)
                if constant:
                    setattr(whole, constant, told)
                return whole

            tree.register_pytree_with_keys(kind, flattened, put_together)
            registered.add(kind)
