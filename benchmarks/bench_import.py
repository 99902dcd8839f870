"""The time of ``import xent``, and the modules that it loads.

The counting model: the package is one module with a table of names, so importing it reads one file. The first use of a
public name loads the core: NumPy, pluggy and array-api-compat, and no optional library.

Each time is that of an import statement in a fresh process, without the start of the process, with compiled byte code
and with all files in the page cache. The processes take turns.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable

import measure
from measure import Quartiles, Report, Rounds

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


def time_statement(statement: str) -> tuple[float, int, list[str]]:
    """Seconds of the statement in a fresh process, and the number of loaded modules and the optional ones of them."""
    code = CHILD.format(statement=statement, optional=OPTIONAL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout))


def time_rounds(statements: Iterable[str], rounds: int) -> tuple[Rounds, dict[str, tuple[int, list[str]]]]:
    """Seconds of each statement, round by round, and the number of modules and optional libraries after it."""
    seconds, loaded = {statement: [] for statement in statements}, {}
    for _ in range(rounds):
        for statement, values in seconds.items():
            elapsed, *loaded[statement] = time_statement(statement)
            values.append(elapsed)
    return seconds, loaded


def main(quick: bool = False) -> str:
    """The page of results."""
    time_rounds(STATEMENTS, 1)  # compiles byte code and fills the page cache
    seconds, loaded = time_rounds(STATEMENTS, 2 if quick else ROUNDS)
    report = Report("import", "The import")
    report.add(measure.HOW)
    promises = []
    for longer, shorter in ((IMPORT, COMPAT), (LOSS, CORE)):
        difference = Quartiles(*(value * 1e3 for value in measure.difference(seconds[longer], seconds[shorter])))
        met = difference.median <= PROMISED_MILLISECONDS
        promises.append((f"`{longer}` over `{shorter}`, ms", f"≤ {PROMISED_MILLISECONDS}", difference, met))
    count = float(max(len(loaded[statement][1]) for statement in (IMPORT, LOSS, EVERY)))
    promises.append(("optional libraries loaded by any of them", "0", Quartiles(count, count, count), count == 0))
    report.add("## Promises", measure.promise_table(promises))
    rows = [
        (f"`{statement}`", measure.quartiles(seconds[statement]).show(1e-3), modules, ", ".join(optional) or "none")
        for statement, (modules, optional) in loaded.items()
    ]
    columns = ("in a fresh process", "time, ms", "modules then loaded", "optional libraries among them")
    report.add("## Times", measure.table(columns, rows))
    numbers = {name: {"seconds": seconds[name], "optional": loaded[name][1]} for name in STATEMENTS}
    report.add(statements=numbers)
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main)
