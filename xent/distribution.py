"""The distribution that this package is installed from. Its name is not the package's: `xent` is another project's."""

from __future__ import annotations

import importlib.metadata
import os.path
import sys

NAME = "xent-array"
OTHER = "xent"
FOLDER_OF_OTHER = "games"
"""A folder of the other project's package, which has the name of ours."""


def version() -> str:
    """The version of the distribution.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        If the package was not installed but found in a source folder.
    """
    return importlib.metadata.version(NAME)


def install(extra: str) -> str:
    """The sentence that says how to install what an extra brings."""
    return f"Install it with: pip install '{NAME}[{extra}]'"


def conflict() -> str:
    """What is wrong where the other project's distribution put its files among ours; empty if nothing is."""
    remedy = f"Remove both and install ours again: pip uninstall --yes {OTHER} {NAME}; pip install {NAME}"
    folder = os.path.dirname(__file__)
    if not hasattr(sys.modules["xent"], "PUBLIC"):
        return f"{folder}: the distribution {OTHER}, another project, replaced the first file of {NAME}. {remedy}"
    if os.path.exists(os.path.join(folder, FOLDER_OF_OTHER)):
        return f"{folder}: the files of the distribution {OTHER}, another project, lie among those of {NAME}. {remedy}"
    return ""
