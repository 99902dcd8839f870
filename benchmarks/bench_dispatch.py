"""What a call costs beside its kernel: finding the plan, checking the shapes, handing the arrays down.

The counting model of a call whose plan is known: one tuple, one hash of it (types, dtypes, options), one look-up, one
comparison of shapes; no hook, no loop over kernels. So the number of plugins must not matter.

Dispatch is the whole call less ``plan.run`` on the same arrays, in turns, (8, 100) float32. Beside it stands the same
call on a plan whose ``run`` does nothing, less nothing: the same quantity without the noise of a kernel. A miss, once
per kind of call, makes the plan anew.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import measure
import numpy as np
from measure import Report, Rounds, Spread

import xent
from xent.contract.problem import NO_WEIGHTS
from xent.dispatch import settings

ROWS, CLASSES = 8, 100
PLUGINS = (0, 1, 5, 20)  # on NumPy; on the others the least and the most
PROMISED_MICROSECONDS = {"numpy": 1.0, "torch": 2.0, "jax": 2.0}


class Dummy:
    """A plugin of two kernels that serve the arrays of no library."""

    def __init__(self, number: int) -> None:
        self.number = number

    @xent.hookimpl
    def xent_register_kernels(self) -> Iterator[xent.KernelSpec]:
        for op in ("sparse", "dense"):
            yield xent.KernelSpec(
                name=f"dummy-{self.number}", op=op, load="nowhere:kernel", arrays=frozenset({"nowhere"}), priority=50
            )


def arrays(library: str) -> tuple[Any, Any]:
    """Logits (8, 100) float32 and labels (8,) of the library, or None where it is not installed."""
    rng = np.random.default_rng(8)
    logits, labels = rng.standard_normal((ROWS, CLASSES), dtype=np.float32), rng.integers(0, CLASSES, ROWS)
    if library == "torch":
        return tuple(importlib.import_module("torch").from_numpy(one) for one in (logits, labels))
    if library == "jax":
        return tuple(importlib.import_module("jax.numpy").asarray(one) for one in (logits, labels))
    return logits, labels


def nothing(plan: Any, predictions: Any, targets: Any, weights: Any) -> None:
    """A ``run`` that does nothing."""


def plan_of(call: Callable[[], object]) -> tuple[Any, Any]:
    """The key and the plan of a call, made anew."""
    settings.forget_plans()
    call()
    ((key, plan),) = settings.current().plans.items()
    return key, plan


def rounds_of(library: str, quick: bool) -> dict[str, Rounds]:
    """Seconds of a call and of its parts, round by round."""
    logits, labels = arrays(library)
    whole = functools.partial(xent.sparse_cross_entropy, logits, labels)
    key, plan = plan_of(whole)
    sizes = {"rounds": 2, "sample_seconds": 0} if quick else {"rounds": 101, "sample_seconds": 0.01}
    direct = functools.partial(plan.run, plan, logits, labels, NO_WEIGHTS)
    hit = measure.interleave({"whole": whole, "kernel": direct}, **sizes)
    plans, empty = settings.current().plans, dataclasses.replace(plan, run=nothing)
    plans[key] = empty
    idle = functools.partial(empty.run, empty, logits, labels, NO_WEIGHTS)
    bare = measure.interleave({"whole": whole, "kernel": idle}, **sizes)

    def anew() -> None:
        settings.forget_plans()
        whole()

    miss = measure.interleave({"whole": anew, "kernel": direct}, **sizes)
    return {"hit": hit, "hit, kernel of nothing": bare, "miss": miss}


def main(quick: bool = False) -> str:
    """The page of results."""
    report = Report("dispatch", "Dispatch: a call less its kernel", ("torch", "jax"))
    report.add(measure.ONE_CORE, measure.HOW)
    libraries = [name for name in PROMISED_MICROSECONDS if measure.is_installed(name)]
    rows, promises = [], []
    for plugins in PLUGINS:
        for number in range(plugins):
            xent.register(Dummy(number), f"dummy-{number}")
        for library in libraries if plugins in (min(PLUGINS), max(PLUGINS)) else ("numpy",):
            print(f"{library}, {plugins} plugins", file=sys.stderr)
            seconds = rounds_of(library, quick)
            found = {name: measure.difference(one["whole"], one["kernel"]) for name, one in seconds.items()}
            kernel = measure.spread(seconds["hit"]["kernel"])
            report.add(**{f"{library}, {plugins} plugins": {"seconds": seconds, "dispatch": found}})
            rows.append((f"{library}, {plugins} plugins", *(one.show(1e-6) for one in (kernel, *found.values()))))
            for what in ("hit", "hit, kernel of nothing"):
                promises.append(promise(library, plugins, what, found[what]))
    report.add("## Promises", measure.targets(promises))
    columns = ("µs", "the kernel alone", "dispatch, plan known", "the same, kernel of nothing", "plan made anew")
    report.add(f"## ({ROWS}, {CLASSES}) float32", measure.table(columns, rows))
    return report.write(quick)


def promise(library: str, plugins: int, what: str, found: Spread) -> tuple[str, str, Spread, bool]:
    """One line of what is asked for."""
    limit = PROMISED_MICROSECONDS[library]
    microseconds = Spread(*(value * 1e6 for value in found))
    return f"{library}, {plugins} plugins, {what}, µs", f"≤ {limit:g}", microseconds, microseconds.median <= limit


if __name__ == "__main__":
    measure.command_line(main)
