"""How the benchmarks measure: contenders in turns, medians and quartiles, memory in a separate process.

A time is the median of rounds in which every contender runs once. Each round begins with the next contender, so that a
slow minute of the machine affects all of them. A ratio is the median of the ratios of each round. Quartiles are in
brackets. What is measured, and its counting model, is in each ``bench_*.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import gc
import importlib.metadata
import importlib.util
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "XENT_THREADS": "1",
}
ONE_CORE = (
    "One thread each: the process is bound to one core before any library is loaded (sched_setaffinity), and "
    + ", ".join(f"`{name}={value}`" for name, value in ONE_THREAD.items())
    + "."
)
HOW = "Times: median (and quartiles) of interleaved rounds. Ratios: those of each round's own ratios."
SAMPLE_SECONDS = 0.005
Call = Callable[[], object]
Clock = Callable[[], float]
Rounds = dict[str, list[float]]  # seconds per call, round by round


class Quartiles(NamedTuple):
    """A median and its quartiles."""

    low: float
    median: float
    high: float

    def show(self, unit: float = 1.0, digits: int = 3) -> str:
        low, median, high = (format_number(value / unit, digits) for value in self)
        return f"{median} ({low} to {high})"


def format_number(value: float, digits: int = 3) -> str:
    """The number in decimal notation without an exponent, with this many digits."""
    integer_digits = len(str(int(abs(value))))
    if abs(value) < 1:
        return f"{value:.{digits}f}"
    return f"{value:.{max(0, digits - integer_digits)}f}"


def quartiles(values: Iterable[float]) -> Quartiles:
    """The median of the values and their quartiles."""
    values = sorted(values)
    if len(values) == 1:
        return Quartiles(*values * 3)
    return Quartiles(*statistics.quantiles(values, n=4, method="inclusive"))


def interleave(
    contenders: dict[str, Call],
    rounds: int,
    sample_seconds: float = SAMPLE_SECONDS,
    clock: Clock = time.perf_counter,
) -> Rounds:
    """Seconds per call of each contender, round by round, by the clock.

    A call too short for the clock is repeated until a sample lasts ``sample_seconds``.
    """
    return interleave_clocks(contenders, rounds, (clock,), sample_seconds)[0]


def interleave_clocks(
    contenders: dict[str, Call], rounds: int, clocks: tuple[Clock, ...], sample_seconds: float = SAMPLE_SECONDS
) -> list[Rounds]:
    """The same by each of several clocks: ``time.process_time`` adds the seconds of all threads of the process.

    Each round has an order of its own, so that no contender always finds the memory as the same other left it.
    """
    names, repeats, order = list(contenders), {}, random.Random(0)
    for name, call in contenders.items():
        call()  # imports, compiles, plans
        (once,) = sample(call, 1, (time.perf_counter,))
        repeats[name] = max(1, round(sample_seconds / max(once, 1e-9)))
    seconds: list[Rounds] = [{name: [] for name in names} for _ in clocks]
    gc.collect()
    gc.freeze()  # the collections before each sample skip the objects of the libraries
    for _ in range(rounds):
        for name in order.sample(names, len(names)):
            gc.collect()
            for by_clock, value in zip(seconds, sample(contenders[name], repeats[name], clocks), strict=True):
                by_clock[name].append(value)
    gc.unfreeze()
    return seconds


def sample(call: Call, repeats: int, clocks: tuple[Clock, ...]) -> list[float]:
    """Seconds per call by each clock, without garbage collection."""
    gc.disable()
    try:
        starts = [clock() for clock in clocks]
        for _ in range(repeats):
            call()
        return [(clock() - start) / repeats for clock, start in zip(clocks, starts, strict=True)]
    finally:
        gc.enable()


def ratio(numerators: list[float], denominators: list[float]) -> Quartiles:
    """The ratio of the two times in each round."""
    return quartiles(a / b for a, b in zip(numerators, denominators, strict=True))


def difference(minuends: list[float], subtrahends: list[float]) -> Quartiles:
    """The difference of the two times in each round."""
    return quartiles(a - b for a, b in zip(minuends, subtrahends, strict=True))


# ---------------------------------------------------------------------------------------------------------------------
# Memory


def status_bytes(field: str) -> int:
    """A size field of this process's /proc/self/status, in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024


def peak_growth_bytes(call: Call) -> int | None:
    """Peak growth of the process during a call, its result included; None on systems other than Linux.

    The call runs once before the measurement, and free memory is returned to the system in between.
    """
    # subtle: getrusage's ru_maxrss never falls, and a child's starts at its parent's; VmHWM can be reset
    call()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = status_bytes("VmRSS")
        result = call()
        after = status_bytes("VmHWM")
    except OSError:
        return None
    del result
    return after - before


def run_child(script: str, *arguments: object, every_core: bool = False) -> Any:
    """The last line that ``python script --child arguments...`` prints, parsed as JSON; None if the process fails.

    On every core of the machine, with the threads that each library takes by itself, if that is asked for.
    """
    command = [sys.executable, script, "--child", *map(str, arguments)]
    environment, own_cores = dict(os.environ), None
    if every_core and hasattr(os, "sched_setaffinity"):  # a child has its parent's cores
        own_cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        environment = {name: value for name, value in environment.items() if name not in ONE_THREAD}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if own_cores is not None:
        os.sched_setaffinity(0, own_cores)
    if done.returncode:
        print(f"{Path(script).name} --child {' '.join(map(str, arguments))} failed:\n{done.stderr}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------------------------------------------------------------
# The machine and the report


def on_one_core() -> None:
    """Restarts the script bound to one core, with one thread in every library, unless it already runs this way."""
    if os.environ.get("XENT_BENCH_ONE_CORE") == "1":
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ.update(ONE_THREAD, XENT_BENCH_ONE_CORE="1", TF_CPP_MIN_LOG_LEVEL="3")
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def threads() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_installed(module: str) -> bool:
    """Whether the module can be found; the check does not import it."""
    return importlib.util.find_spec(module) is not None


def version_of(distribution: str) -> str | None:
    """The version of an installed distribution; None if it is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(distribution)
    return None


def processor() -> str:
    """The model name of the processor and its vector extension."""
    with contextlib.suppress(OSError, TypeError):
        text = Path("/proc/cpuinfo").read_text()
        name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)[1]
        vector = "AVX-512" if re.search(r"\bavx512f\b", text) else "AVX2" if re.search(r"\bavx2\b", text) else ""
        return f"{name} with {vector}" if vector else name
    return platform.processor() or platform.machine()


def machine(distributions: Iterable[str]) -> dict[str, Any]:
    """Date, hardware and versions, on which the numbers depend."""
    names = ("numpy", "array-api-compat", "pluggy", *distributions)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_bytes": pages,
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: version for name in names if (version := version_of(name))},
    }


def describe(facts: dict[str, Any]) -> str:
    """The machine in a sentence."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    memory = f"{facts['memory_bytes'] / 2**30:.0f} GiB" if facts["memory_bytes"] else "memory unknown"
    return (
        f"{facts['date']}, {facts['processor']}, {facts['cores']} cores, {memory}, {facts['system']}, "
        f"Python {facts['python']}, {versions}."
    )


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; the first column is aligned left, the others right."""
    columns = list(columns)
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def promise_table(rows: Iterable[tuple[str, str, Quartiles, bool]]) -> str:
    """A table of promises: name, limit, measured value, and whether the limit is met."""
    cells = [(name, limit, measured.show(), "yes" if met else "**no**") for name, limit, measured, met in rows]
    return table(("promise", "asked", "measured", "kept"), cells)


class Report:
    """A page of results and the numbers behind it."""

    def __init__(self, name: str, title: str, distributions: Iterable[str] = ()) -> None:
        self.name, facts = name, machine(distributions)
        self.parts = [f"# {title}", describe(facts)]
        self.numbers: dict[str, Any] = {"machine": facts}

    def add(self, *parts: str, **numbers: Any) -> None:
        """Appends paragraphs to the page, and numbers to the JSON document."""
        self.parts += parts
        self.numbers |= numbers

    def write(self, quick: bool) -> str:
        """The page, written to ``results/`` with its numbers unless this is a quick run."""
        page = "\n\n".join(self.parts) + "\n"
        if not quick:
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{self.name}.md").write_text(page)
            (RESULTS / f"{self.name}.json").write_text(json.dumps(self.numbers, indent=1) + "\n")
        return page


def command_line(main: Callable[..., str], child: Callable[..., Any] | None = None, one_core: bool = True) -> None:
    """Runs a benchmark: in full, with ``--quick`` (tiny sizes, no results written), or one ``--child`` part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="tiny sizes; nothing is written")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if one_core:
        on_one_core()
    if options.child:
        print(json.dumps(child(*options.child)))
    else:
        print(main(quick=options.quick))
