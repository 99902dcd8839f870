"""The farm: calls drawn one after the other from a seed, each through some of its doors, until the time is over.

Call i of a seed is the same in every run, whatever the number of processes.
"""

import collections
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .calls import Call, keep
from .doors import Door, doors, library
from .drawing import draw
from .shrinking import shrink
from .verdict import Fault, faults

CASES = Path(__file__).with_name("cases")
COMPILED_SHARE, STRUCTURES = 0.02, 30
KEPT_OF_A_KIND = 2
OWN_FAULTS = 20


@dataclass
class Tally:
    """What was done and found."""

    calls: int = 0
    cases: int = 0
    faults: collections.Counter = field(default_factory=collections.Counter)
    kept: list[tuple[Path | None, Call, Fault]] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.calls += other.calls
        self.cases += other.cases
        self.faults += other.faults
        self.kept += other.kept


def call_number(seed: int, number: int, compiled_share: float = COMPILED_SHARE) -> tuple[Call, list[Door]]:
    """Call i of a seed, and the doors that it is made through."""
    rng = np.random.default_rng([seed, number])
    is_compiled = rng.random() < compiled_share
    structure = np.random.default_rng([seed, int(rng.integers(STRUCTURES)), 0]) if is_compiled else rng
    call = draw(structure, rng, is_small=is_compiled)
    taken = [door for door in doors(is_compiled) if rng.random() < door.share]
    return call, [door for door in taken if door.serves(call)]


def run(
    seed: int,
    *,
    seconds: float = float("inf"),
    calls: int = sys.maxsize,
    start: int = 0,
    step: int = 1,
    compiled_share: float = COMPILED_SHARE,
    through: Callable[[Door], bool] = lambda door: True,
    stops: bool = False,
    shrinks: bool = True,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Tally:
    """Draws and judges calls ``start, start + step, ...`` until the time or their number is over.

    ``stops`` ends it at the first call with a fault; ``shrinks`` makes the first of each kind of fault small. They go
    into the folder, if there is one.
    """
    own_faults = 0
    tally, kinds = Tally(), collections.Counter[tuple[str, str]]()
    begun = told = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(start, start + calls * step, step):
            if time.monotonic() - begun >= seconds:
                break
            try:
                call, every = call_number(seed, number, compiled_share)
                found, made = faults(call, [door for door in every if through(door)])
            except Exception as error:  # a fault of the farm's own in a few calls ends no run of hours
                tally.faults["the farm", f"call {number}", f"raises {type(error).__name__}"] += 1
                own_faults += 1
                if own_faults > OWN_FAULTS:
                    raise
                say(f"call {number}: " + traceback.format_exc())
                continue
            tally.calls += 1
            tally.cases += made
            for fault in found:
                tally.faults[call.function, fault.door, fault.what] += 1
                kinds[call.function, fault.what] += 1
                if kinds[call.function, fault.what] <= KEPT_OF_A_KIND:
                    small, same = shrink(call, fault) if shrinks else (call, fault)
                    path = keep(folder, small, same) if folder else None
                    tally.kept.append((path, small, same))
                    say(f"call {number}: {call.function} at {same.door}: {same.what}: {same.found} {path or ''}")
            if found and stops:
                break
            if time.monotonic() - told > 60:
                told = time.monotonic()
                say(f"{tally.cases} cases of {tally.calls} calls, {tally.faults.total()} faults")
    return tally


def say(line: str) -> None:
    print(line, flush=True)


def work(seed: int, worker: int, workers: int, seconds: float, folder: str) -> Tally:
    """What one process of several does: every ``workers``-th call."""
    torch = library("torch")
    if torch is not None:
        torch.torch.set_num_threads(1)
    return run(seed, seconds=seconds, start=worker, step=workers, folder=Path(folder), say=say)
