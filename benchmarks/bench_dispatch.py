"""The overhead of a call: finding the plan, checking the shapes, passing the arrays to the kernel.

The counting model of a call whose plan is known: one tuple, one hash of it (types, dtypes, options), one look-up, one
comparison of shapes; no hook, no loop over kernels. So the number of plugins must not matter.

Dispatch is the time of the whole call minus that of ``plan.run`` on the same arrays, measured in turns at (8, 100)
float32. A second column has the same difference for a plan whose ``run`` does nothing, which is free of the noise of a
kernel. A miss, once per kind of call, makes the plan again.
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
from measure import Quartiles, Report, Rounds

import xent
from xent.contract.problem import NO_WEIGHTS
from xent.dispatch import settings

ROWS, CLASSES = 8, 100
PLUGINS = (0, 1, 5, 20)  # on NumPy; other libraries are measured with the least and the most
PROMISED_MICROSECONDS = {"numpy": 1.0, "torch": 2.0, "jax": 2.0}


class Dummy:
    """A plugin with two kernels that support no array library."""

    def __init__(self, number: int) -> None:
        self.number = number

    @xent.hookimpl
    def xent_register_kernels(self) -> Iterator[xent.KernelSpec]:
        for op in ("sparse", "dense"):
            yield xent.KernelSpec(
                name=f"dummy-{self.number}", op=op, load="nowhere:kernel", arrays=frozenset({"nowhere"}), priority=50
            )


def arrays(library: str) -> tuple[Any, Any]:
    """Logits (8, 100) float32 and labels (8,) of the library, which must be installed."""
    rng = np.random.default_rng(8)
    logits, labels = rng.standard_normal((ROWS, CLASSES), dtype=np.float32), rng.integers(0, CLASSES, ROWS)
    if library == "torch":
        return tuple(importlib.import_module("torch").from_numpy(array) for array in (logits, labels))
    if library == "jax":
        return tuple(importlib.import_module("jax.numpy").asarray(array) for array in (logits, labels))
    return logits, labels


def empty_run(plan: Any, predictions: Any, targets: Any, weights: Any) -> None:
    """A ``run`` that does nothing."""


def plan_of(call: Callable[[], object]) -> tuple[Any, Any]:
    """The key and the plan of a call, from an empty cache."""
    settings.forget_plans()
    call()
    ((key, plan),) = settings.current().plans.items()
    return key, plan


def rounds_of(library: str, quick: bool) -> dict[str, Rounds]:
    """Seconds of a call and of its kernel, round by round, with a known plan, an empty kernel, and a new plan."""
    logits, labels = arrays(library)
    call = functools.partial(xent.sparse_cross_entropy, logits, labels)
    key, plan = plan_of(call)
    sizes = {"rounds": 2, "sample_seconds": 0} if quick else {"rounds": 101, "sample_seconds": 0.01}
    direct = functools.partial(plan.run, plan, logits, labels, NO_WEIGHTS)
    hit = measure.interleave({"whole": call, "kernel": direct}, **sizes)
    plans, empty_plan = settings.current().plans, dataclasses.replace(plan, run=empty_run)
    plans[key] = empty_plan
    empty_kernel = functools.partial(empty_plan.run, empty_plan, logits, labels, NO_WEIGHTS)
    empty_hit = measure.interleave({"whole": call, "kernel": empty_kernel}, **sizes)

    def call_without_plan() -> None:
        settings.forget_plans()
        call()

    miss = measure.interleave({"whole": call_without_plan, "kernel": direct}, **sizes)
    return {"hit": hit, "hit, kernel of nothing": empty_hit, "miss": miss}


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
            dispatch = {case: measure.difference(rounds["whole"], rounds["kernel"]) for case, rounds in seconds.items()}
            kernel = measure.quartiles(seconds["hit"]["kernel"])
            report.add(**{f"{library}, {plugins} plugins": {"seconds": seconds, "dispatch": dispatch}})
            rows.append(
                (f"{library}, {plugins} plugins", *(times.show(1e-6) for times in (kernel, *dispatch.values())))
            )
            for case in ("hit", "hit, kernel of nothing"):
                promises.append(promise(library, plugins, case, dispatch[case]))
    report.add("## Promises", measure.promise_table(promises))
    columns = ("µs", "the kernel alone", "dispatch, plan known", "the same, kernel of nothing", "plan made anew")
    report.add(f"## ({ROWS}, {CLASSES}) float32", measure.table(columns, rows))
    return report.write(quick)


def promise(library: str, plugins: int, case: str, seconds: Quartiles) -> tuple[str, str, Quartiles, bool]:
    """One row of the table of promises."""
    limit = PROMISED_MICROSECONDS[library]
    microseconds = Quartiles(*(value * 1e6 for value in seconds))
    return f"{library}, {plugins} plugins, {case}, µs", f"≤ {limit:g}", microseconds, microseconds.median <= limit


if __name__ == "__main__":
    measure.command_line(main)
