"""The command ``xent``: evaluate, compare, demo, explain, plugins, doctor."""

from .commands import main

__all__ = ["main"]
