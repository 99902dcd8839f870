"""The command ``xent``: evaluate, compare, inspect, demo, explain, doctor, plugins."""

import sys

from .. import distribution

if not hasattr(sys.modules["xent"], "PUBLIC"):
    print(f"xent: {distribution.conflict()}", file=sys.stderr)
    raise SystemExit(4)

try:
    from .commands import main
except KeyboardInterrupt:  # as it is imported: nothing is to be said of it
    raise SystemExit(130) from None
except ModuleNotFoundError as error:
    if error.name != "click":
        raise
    print(f"xent: the command line needs click, which is not installed. {distribution.install('cli')}", file=sys.stderr)
    raise SystemExit(4) from None

__all__ = ["main"]
