"""Packages that are needed for some formats and outputs only."""

from __future__ import annotations

import importlib
from typing import Any


def require(module: str, extra: str, what: str) -> Any:
    """The module, or a ModuleNotFoundError that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        message = (
            f"evaluate: {what} needs {module}, which is not installed. Install it with: pip install 'xent[{extra}]'"
        )
        raise ModuleNotFoundError(message, name=module) from error
