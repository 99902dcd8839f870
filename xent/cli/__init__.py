"""The command ``xent``: evaluate, compare, inspect, demo, explain, doctor, plugins."""

from .commands import main

__all__ = ["main"]
