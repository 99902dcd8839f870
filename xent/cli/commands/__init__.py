"""The commands: ``xent evaluate``, ``compare``, ``merge``, ``inspect``, ``index``, ``demo``, ``doctor`` and more.

Results go to stdout, progress and messages to stderr; ``exits.py`` has the exit codes. NumPy and Dask are imported when
a command runs, not for ``--help``.
"""

from xent.cli.commands.comparison import compare
from xent.cli.commands.demonstration import demo
from xent.cli.commands.evaluation import evaluate
from xent.cli.commands.indexes import index
from xent.cli.commands.inspection import inspect
from xent.cli.commands.installation import doctor, explain, plugins
from xent.cli.commands.parts import merge
from xent.cli.program import main

__all__ = ["main"]

for command in (evaluate, compare, merge, inspect, index, demo, explain, doctor, plugins):
    main.add_command(command)
