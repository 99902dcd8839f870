"""How a result came about: what was read, with which options, where it ran and how fast.

The facts are plain data, so that a result keeps no array alive and may be kept itself.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from xent import distribution
from xent.dispatch.settings import affinity
from xent.evaluation.engine.compare_pass import SETS, options_of
from xent.evaluation.engine.evaluate_pass import Pass
from xent.evaluation.engine.memory import largest_chunk

if TYPE_CHECKING:
    from xent.evaluation.engine.evaluate_pass import Planned
    from xent.evaluation.engine.stream import Stream
    from xent.evaluation.options import Options

PACKAGES = (distribution.NAME, "numpy", "dask", "distributed", "zarr", "pyarrow", "h5py")
PREDICTIONS = ("predictions", *SETS)


@dataclass(frozen=True)
class Run:
    """A pass that is done.

    Attributes
    ----------
    inputs : mapping of str to mapping
        The path, or None for an array in hand, the shape, the dtype and the bytes of each argument that was read.
    options : Options
    set_rows : int
        The rows of the set.
    classes : int or None
        The classes of the set; None of a stream without a block.
    scheduler : str
        Where it ran.
    chunks, chunk_rows : int
        How many chunks there were, and the rows of the largest.
    fit_temperature : bool or None
        Whether a temperature was asked for; None of a comparison.
    environment : mapping of str to str
        The machine, and the versions of the packages that computed.
    wall_seconds : float
        Of parts that were merged: of all of them, one after the other.
    ranges : tuple of pairs of int, or None
        The ranges of rows that were read, where these are not all.
    """

    inputs: Mapping[str, Mapping[str, Any]]
    options: Options
    set_rows: int
    classes: int | None
    scheduler: str
    chunks: int
    chunk_rows: int
    fit_temperature: bool | None
    environment: Mapping[str, str]
    wall_seconds: float
    ranges: tuple[tuple[int, int], ...] | None = None

    @property
    def rows(self) -> int:
        """The rows that were read."""
        return self.set_rows if self.ranges is None else sum(stop - start for start, stop in self.ranges)

    @property
    def bytes(self) -> int:
        """The bytes of the predictions that were read."""
        whole = sum(facts["bytes"] for facts in self.predictions)
        return int(whole if self.ranges is None else whole * self.rows // max(1, self.set_rows))

    @property
    def predictions(self) -> list[Mapping[str, Any]]:
        """The facts of the predictions: of one set or of several; of none where a stream had no block."""
        return [facts for name, facts in self.inputs.items() if name in PREDICTIONS]

    @property
    def read(self) -> dict[str, Mapping[str, Any]]:
        """The facts of all that was read, by name: of hidden states the classifier and the bias too."""
        facts: dict[str, Mapping[str, Any]] = {}
        for name, own in self.inputs.items():
            facts |= {
                name: own,
                **{f"{field} of {name}": own[field] for field in ("classifier", "bias") if field in own},
            }
        return facts

    @property
    def chunk_bytes(self) -> int:
        """The bytes of predictions in the largest chunk."""
        return self.chunk_rows * self.bytes // self.rows if self.rows else 0

    @property
    def gigabytes_per_second(self) -> float:
        """The bytes of the predictions that were read over the time, in gigabytes a second."""
        return self.bytes / self.wall_seconds / 1e9

    def side(self, name: str) -> Run:
        """The run of set "a", "b" or another of a comparison, as if it had been evaluated by itself."""
        keys = {key: facts for key, facts in self.inputs.items() if key not in PREDICTIONS}
        options = replace(options_of(self.options, name), kind_b=None)
        return replace(self, inputs={"predictions": self.inputs[name], **keys}, options=options)

    def to_dict(self) -> dict[str, Any]:
        """The inputs, the size of the set, the options and the environment, for a JSON document."""
        options = {"scheduler": self.scheduler, "chunk_bytes": self.chunk_bytes, "chunks": self.chunks}
        if self.fit_temperature is not None:
            options["fit_temperature"] = self.fit_temperature
        if self.ranges is not None:
            options["rows"] = [list(each) for each in self.ranges]
        return {
            "inputs": {name: dict(facts) for name, facts in self.inputs.items()},
            "set": {"rows": self.set_rows, "classes": self.classes},
            "options": asdict(self.options) | options,
            "environment": dict(self.environment),
        }

    def timing(self) -> dict[str, float]:
        """Seconds, bytes of predictions, and gigabytes per second."""
        speed = self.gigabytes_per_second
        return {"wall_seconds": self.wall_seconds, "bytes": self.bytes, "gigabytes_per_second": speed}


def run_of(planned: Planned, scheduler: Any, wall_seconds: float) -> Run:
    """The run of a pass over stored rows."""
    return Run(
        inputs={name: source.facts() for name, source in planned.sources.items()},
        options=planned.options,
        set_rows=planned.job.rows,
        classes=planned.job.classes,
        scheduler=scheduler_name(scheduler),
        chunks=planned.tasks,
        chunk_rows=largest_chunk(planned.bounds),
        fit_temperature=planned.fits_temperature if isinstance(planned, Pass) else None,
        environment=environment(),
        wall_seconds=wall_seconds,
        ranges=None if planned.rows == planned.job.rows else ((planned.bounds[0], planned.bounds[-1]),),
    )


def run_of_stream(stream: Stream, wall_seconds: float) -> Run:
    """The run of a stream of blocks, which is in the calling thread."""
    return Run(
        inputs=stream.inputs,
        options=stream.options,
        set_rows=stream.rows,
        classes=stream.classes,
        scheduler="sync",
        chunks=stream.chunks,
        chunk_rows=stream.chunk_rows,
        fit_temperature=False,
        environment=environment(),
        wall_seconds=wall_seconds,
    )


def scheduler_name(scheduler: Any) -> str:
    """Where tasks run, in a word: the address of the scheduler of a Client, the name of a function."""
    if isinstance(scheduler, str | os.PathLike):
        return os.fspath(scheduler)
    name = getattr(scheduler, "__qualname__", type(scheduler).__name__)
    return str(getattr(getattr(scheduler, "scheduler", None), "address", name))


def environment() -> dict[str, str]:
    """The machine, and the versions of the packages that computed."""
    return {**versions(), "processors": str(affinity())}


@cache
def versions() -> dict[str, str]:
    """The versions of Python, the system and the packages, read once: it takes as long as a small evaluation."""
    facts = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            facts[name] = metadata.version(name)
    return facts
