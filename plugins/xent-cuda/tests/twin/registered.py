"""A plugin of pytest that makes xent-cuda known where it is in a folder and not installed: ``pytest -p registered``."""

import importlib.metadata

from xent_cuda import hooks

import xent

if not any(entry.name == "xent-cuda" for entry in importlib.metadata.entry_points(group="xent")):
    xent.register(hooks, "xent-cuda")
