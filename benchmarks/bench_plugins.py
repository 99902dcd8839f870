"""The time to find the plugins, once per process, when many distributions are installed.

The counting model: for every distribution on ``sys.path`` one ``entry_points.txt`` is opened or found missing, and
every plugin of xent is one import more. So the time grows with the number of distributions, and hardly with xent.

Each time is that of ``registry.load()`` in a fresh process, with the modules of xent and NumPy already imported and all
files in the page cache. The processes take turns. The distributions are generated, in addition to the installed ones:
each is a folder with METADATA; the first are plugins of xent, and of the others every third has an entry point of
another program.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import measure
from measure import Quartiles, Report, Rounds

PROMISED_MILLISECONDS = 30
ROUNDS = 25
DISTRIBUTIONS = 300
PLUGINS = (0, 1, 20)
PLUGIN = """
import xent

@xent.hookimpl
def xent_register_kernels():
    yield xent.KernelSpec(name=__name__, op="sparse", load="nowhere:kernel", arrays=frozenset({"nowhere"}))
"""
CHILD = """
import json, time
import xent.losses
from xent.backends import dask, generic, jax, numpy, torch
from xent.dispatch.registry import registry
begin = time.perf_counter()
registry.load()
seconds = time.perf_counter() - begin
print(json.dumps([seconds, len(registry.records)]))
"""


def install(folder: Path, distributions: int, plugins: int) -> None:
    """Writes this number of distributions; each of the first ones has a plugin."""
    for number in range(distributions):
        name = f"made-{number}"
        info = folder / f"made_{number}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        if number < plugins:
            (folder / f"made_{number}.py").write_text(PLUGIN)
            (info / "entry_points.txt").write_text(f"[xent]\n{name} = made_{number}\n")
        elif number % 3 == 0:
            (info / "entry_points.txt").write_text(f"[console_scripts]\n{name} = made_{number}:main\n")


def time_load(folder: Path) -> tuple[float, int]:
    """Seconds of the load in a fresh process with the folder on its path, and the number of plugins found."""
    paths = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-W", "error", "-c", CHILD]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": paths})
    return tuple(json.loads(done.stdout))


def time_rounds(folders: dict[str, Path], rounds: int) -> tuple[Rounds, dict[str, int]]:
    """Seconds of each load, round by round, and the number of plugins found."""
    seconds, plugin_counts = {name: [] for name in folders}, {}
    for _ in range(rounds):
        for name, folder in folders.items():
            elapsed, plugin_counts[name] = time_load(folder)
            seconds[name].append(elapsed)
    return seconds, plugin_counts


def main(quick: bool = False) -> str:
    """The page of results."""
    with tempfile.TemporaryDirectory(prefix="xent-bench-") as root:
        bare, *full = folders = {
            f"{distributions} distributions more, {plugins} plugins": Path(root, f"{distributions}-{plugins}")
            for distributions, plugins in ((0, 0), *((DISTRIBUTIONS, plugins) for plugins in PLUGINS))
        }
        for folder in folders.values():
            install(folder, *map(int, folder.name.split("-")))
        time_rounds(folders, 1)  # compiles byte code and fills the page cache
        seconds, plugin_counts = time_rounds(folders, 2 if quick else ROUNDS)
    installed = plugin_counts[bare]
    assert [plugin_counts[name] - installed for name in full] == [*PLUGINS]
    report = Report("plugins", "Finding the plugins")
    report.add(measure.HOW)
    scan = Quartiles(*(value * 1e3 for value in measure.difference(seconds[full[0]], seconds[bare])))
    met = scan.median <= PROMISED_MILLISECONDS
    promise = (f"scan of {DISTRIBUTIONS} distributions, ms", f"≤ {PROMISED_MILLISECONDS}", scan, met)
    report.add("## Promises", measure.promise_table([promise]))
    differences = {name: measure.difference(seconds[name], seconds[bare]).show(1e-3) for name in folders}
    rows = [(name, measure.quartiles(seconds[name]).show(1e-3), differences[name]) for name in folders]
    report.add("## Times", measure.table(("ms", "`registry.load()`", "over the first"), rows))
    report.add(seconds=seconds)
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main)
