"""What ``import xent`` costs, and what it brings along.

The counting model: the package is one module with a table of names, so importing it reads one file. The first name that
is used brings the core: NumPy, pluggy and array-api-compat; never a library that is optional.

Each time is that of an import statement in a fresh process, whose start is not counted, with byte code already compiled
and files in the page cache; the processes take turns.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable

import measure
from measure import Report, Rounds, Spread

PROMISED_MILLISECONDS = 50
ROUNDS = 25
COMPAT, CORE, IMPORT, LOSS, EVERY = (
    "import array_api_compat",
    "import array_api_compat, numpy",
    "import xent",
    "import xent; xent.sparse_cross_entropy",
    "import xent; [getattr(xent, name) for name in xent.__all__]",
)
STATEMENTS = (COMPAT, CORE, IMPORT, LOSS, EVERY)
OPTIONAL = (
    *("array_api_strict", "click", "cupy", "dask", "distributed", "jax", "keras", "ml_dtypes", "numba", "optax"),
    *("pandas", "rich", "scipy", "sklearn", "tensorflow", "torch", "xarray", "zarr"),
)
CHILD = """
import json, sys, time
begin = time.perf_counter()
exec({statement!r})
seconds = time.perf_counter() - begin
print(json.dumps([seconds, len(sys.modules), sorted(set({optional!r}) & set(sys.modules))]))
"""


def once(statement: str) -> tuple[float, int, list[str]]:
    """Seconds of the statement in a fresh process, the number of modules then there, and the optional ones of them."""
    code = CHILD.format(statement=statement, optional=OPTIONAL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout))


def measured(statements: Iterable[str], rounds: int) -> tuple[Rounds, dict[str, tuple[int, list[str]]]]:
    """Seconds of each statement, round by round, and what was there after it."""
    seconds, found = {statement: [] for statement in statements}, {}
    for _ in range(rounds):
        for statement, values in seconds.items():
            taken, *found[statement] = once(statement)
            values.append(taken)
    return seconds, found


def main(quick: bool = False) -> str:
    """The page of results."""
    measured(STATEMENTS, 1)  # byte code and page cache
    seconds, found = measured(STATEMENTS, 2 if quick else ROUNDS)
    report = Report("import", "The import")
    report.add(measure.HOW)
    promises = []
    for longer, shorter in ((IMPORT, COMPAT), (LOSS, CORE)):
        over = Spread(*(value * 1e3 for value in measure.difference(seconds[longer], seconds[shorter])))
        met = over.median <= PROMISED_MILLISECONDS
        promises.append((f"`{longer}` over `{shorter}`, ms", f"≤ {PROMISED_MILLISECONDS}", over, met))
    loaded = {statement: found[statement][1] for statement in (IMPORT, LOSS, EVERY)}
    count = float(max(len(names) for names in loaded.values()))
    promises.append(("optional libraries loaded by any of them", "0", Spread(count, count, count), count == 0))
    report.add("## Promises", measure.targets(promises))
    rows = [
        (f"`{one}`", measure.spread(seconds[one]).show(1e-3), found[one][0], ", ".join(found[one][1]) or "none")
        for one in STATEMENTS
    ]
    columns = ("in a fresh process", "time, ms", "modules then loaded", "optional libraries among them")
    report.add("## Times", measure.table(columns, rows))
    report.add(statements={one: {"seconds": seconds[one], "optional": found[one][1]} for one in STATEMENTS})
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main)
