"""The command ``xent``: evaluate, compare, inspect, demo, explain, doctor, plugins."""

try:
    from .commands import main
except KeyboardInterrupt:  # as it is imported: nothing is to be said of it
    raise SystemExit(130) from None

__all__ = ["main"]
