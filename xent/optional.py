"""Packages that are needed for some formats and outputs only."""

from __future__ import annotations

import importlib
from typing import Any

from . import distribution


def require(module: str, extra: str, purpose: str, *, caller: str = "evaluate") -> Any:
    """The module, imported.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed; the message names the caller, the purpose, and the extra to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        message = f"{caller}: {purpose} needs {module}, which is not installed. {distribution.install(extra)}"
        raise ModuleNotFoundError(message, name=module) from error
