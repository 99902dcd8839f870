"""What finding the plugins costs, once per process, where many distributions are installed.

The counting model: every distribution on ``sys.path`` is one ``entry_points.txt`` that is opened, or found missing;
every plugin of xent is one import more. So the time grows with what is installed, and hardly with xent.

Each time is that of ``registry.load()`` in a fresh process, with the modules of xent and NumPy imported already and all
files in the page cache; the processes take turns. The distributions are made for it: a folder with METADATA, an entry
point of another program in every third, one of xent in as many as are plugins. They come on top of those installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import measure
from measure import Report, Rounds, Spread

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
    """Writes so many distributions, the first of them with a plugin each."""
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


def once(folder: Path) -> tuple[float, int]:
    """Seconds of the load in a fresh process that sees the folder, and how many plugins are then known."""
    paths = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-W", "error", "-c", CHILD]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": paths})
    return tuple(json.loads(done.stdout))


def measured(folders: dict[str, Path], rounds: int) -> tuple[Rounds, dict[str, int]]:
    """Seconds of each load, round by round, and how many plugins it found."""
    seconds, found = {name: [] for name in folders}, {}
    for _ in range(rounds):
        for name, folder in folders.items():
            taken, found[name] = once(folder)
            seconds[name].append(taken)
    return seconds, found


def main(quick: bool = False) -> str:
    """The page of results."""
    with tempfile.TemporaryDirectory(prefix="xent-bench-") as root:
        bare, *full = folders = {
            f"{distributions} distributions more, {plugins} plugins": Path(root, f"{distributions}-{plugins}")
            for distributions, plugins in ((0, 0), *((DISTRIBUTIONS, plugins) for plugins in PLUGINS))
        }
        for folder in folders.values():
            install(folder, *map(int, folder.name.split("-")))
        measured(folders, 1)  # byte code and page cache
        seconds, found = measured(folders, 2 if quick else ROUNDS)
    own = found[bare]
    assert [found[name] - own for name in full] == [*PLUGINS]
    report = Report("plugins", "Finding the plugins")
    report.add(measure.HOW)
    scan = Spread(*(value * 1e3 for value in measure.difference(seconds[full[0]], seconds[bare])))
    met = scan.median <= PROMISED_MILLISECONDS
    promise = (f"scan of {DISTRIBUTIONS} distributions, ms", f"≤ {PROMISED_MILLISECONDS}", scan, met)
    report.add("## Promises", measure.targets([promise]))
    over = {name: measure.difference(seconds[name], seconds[bare]).show(1e-3) for name in folders}
    rows = [(name, measure.spread(seconds[name]).show(1e-3), over[name]) for name in folders]
    report.add("## Times", measure.table(("ms", "`registry.load()`", "over the first"), rows))
    report.add(seconds=seconds)
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main)
