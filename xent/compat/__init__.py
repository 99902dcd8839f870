"""The peers' signatures on any array: one module for each peer, and in its docstring where it differs from xent."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["dask_ml", "keras", "optax", "sklearn", "tensorflow", "torch"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return [*__all__]
