"""Whether this installation is sound: versions, GPUs, plugins, and every kernel imported and tested quickly.

What is found is plain data; nothing is repaired. A library is imported only to be asked for its GPUs.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .. import arrays
from ..contract.plan import resolve
from ..contract.specs import KernelSpec
from ..dispatch import settings
from ..dispatch.registry import PluginRecord, plugins, registry

NEEDED = ("xent", "numpy", "array-api-compat", "pluggy")
OPTIONAL = ("dask", "distributed", "zarr", "torch", "jax", "cupy", "cupy-cuda12x", "cupy-cuda13x", "numba", "ml_dtypes")
COMMAND_LINE = ("click", "rich")
Row = tuple[tuple[str, ...], str]
"""A line of several columns, and what is to be said of it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one kernel.

    Attributes
    ----------
    kernel, op, owner, origin : str
        Its name, its op, its plugin, and the plugin's distribution.
    load_seconds : float
        The wall time of importing it.
    verdict : "sound", "WRONG", "cannot be imported" or "cannot run here"
    reason : str
        Empty for a sound kernel; for a wrong one a line for each promise it breaks.
    cases : int
        How many cases it was tested on.
    report : dict or None
        What :func:`xent.testing.check_kernel` reports, as plain data.
    """

    kernel: str
    op: str
    owner: str
    origin: str
    load_seconds: float
    verdict: str
    reason: str = ""
    cases: int = 0
    report: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain data, for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found of an installation; ``gpus`` says in words what each library sees, ``variables`` are XENT_*."""

    versions: dict[str, str]
    processors: int
    variables: dict[str, str]
    gpus: dict[str, str]
    plugins: tuple[PluginRecord, ...]
    kernels: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether no plugin is broken, and no kernel wrong or impossible to import."""
        kernels = all(one.verdict in ("sound", "cannot run here") for one in self.kernels)
        return kernels and all(one.status != "broken" for one in self.plugins)

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as plain data, for JSON."""
        return {
            "is_sound": self.is_sound,
            "versions": self.versions,
            "processors": self.processors,
            "variables": self.variables,
            "gpus": self.gpus,
            "plugins": [one.to_dict() for one in self.plugins],
            "kernels": [one.to_dict() for one in self.kernels],
        }

    def __str__(self) -> str:
        facts = [*self.versions.items(), ("processors", str(self.processors)), *self.variables.items()]
        facts += [(f"GPUs of {library}", told) for library, told in self.gpus.items()]
        heads: list[Row] = [(fact, "") for fact in facts]
        sections = heads, plugin_rows(self.plugins), kernel_rows(self.kernels)
        return "\n\n".join("\n".join(aligned(rows)) for rows in sections)


def diagnose() -> Diagnosis:
    """Everything that is known of this installation; each kernel is imported and tested."""
    registry.load()
    kernels = tuple(examine(spec) for spec in tuple(registry.kernels))
    return Diagnosis(
        versions=versions(),
        processors=settings.affinity(),
        variables={name: os.environ[name] for name in settings.VARIABLES if name in os.environ},
        gpus=gpus(),
        plugins=tuple(plugins()),  # last: a test may have set a plugin aside
        kernels=kernels,
    )


def versions() -> dict[str, str]:
    """The versions of Python, of the platform, and of what is installed of the distributions that matter here."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in NEEDED + OPTIONAL + COMMAND_LINE:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def gpus() -> dict[str, str]:
    """What each installed library that knows GPUs sees of them, in words."""
    return {library: seen_by(look) for library, look in LOOKS.items() if arrays.is_importable(library)}


def seen_by(look: Callable[[], list[str]]) -> str:
    """The devices' names, or the error."""
    try:
        return ", ".join(look()) or "none"
    except Exception as error:  # a driver may be broken in any way
        return in_words(error)


def cupy_devices() -> list[str]:
    import cupy

    count = cupy.cuda.runtime.getDeviceCount() if cupy.cuda.is_available() else 0
    return [cupy.cuda.runtime.getDeviceProperties(index)["name"].decode() for index in range(count)]


def torch_devices() -> list[str]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.get_device_name(index) for index in range(count)]


def jax_devices() -> list[str]:
    import jax

    return [one.device_kind for one in jax.devices() if one.platform != "cpu"]


LOOKS = {"cupy": cupy_devices, "torch": torch_devices, "jax": jax_devices}


def examine(spec: KernelSpec) -> Finding:
    """A kernel, imported and tested."""
    error, seconds = imported(spec)
    found = {"verdict": "cannot be imported", "reason": error} if error else tested(spec)
    return Finding(spec.name, spec.op, spec.owner, registry.records[spec.owner].origin, seconds, **found)


def imported(spec: KernelSpec) -> tuple[str, float]:
    """Why the kernel cannot be imported, empty where it can, and the wall time it took to know."""
    start, error = time.perf_counter(), ""
    try:
        resolve(spec.load)
    except (Exception, SystemExit) as raised:  # a plugin's import may raise anything
        error = in_words(raised)
    return error, time.perf_counter() - start


def tested(spec: KernelSpec) -> dict[str, Any]:
    """The part of a finding that the quick test of the kernel gives."""
    from xent import testing  # not to list plugins, which needs none of it

    report = testing.check_kernel(spec, quick=True)
    if report.ok:
        verdict, reason = "sound", ""
    elif report.skipped and not report.cases:  # subtle: such a report is not ok
        verdict, reason = "cannot run here", "\n".join(report.skipped)
    else:
        broken = [one for one in report.results if not one.ok]
        worst = (f"{one.check}, {one.broken} of {one.cases} cases: {one.failures[0]}" for one in broken)
        verdict, reason = "WRONG", "\n".join(worst)
    return {"verdict": verdict, "reason": reason, "cases": report.cases, "report": report.to_dict()}


def in_words(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def plugin_rows(records: Iterable[PluginRecord]) -> list[Row]:
    """A row for each plugin, with the traceback of a broken one."""
    return [((one.name, one.origin, one.status, ", ".join(one.kernels + one.hooks)), one.error) for one in records]


def kernel_rows(findings: Iterable[Finding]) -> list[Row]:
    """A row for each kernel, with the reason where it is not sound."""
    return [
        (
            (
                f"{one.kernel} ({one.op})",
                one.owner,
                one.origin,
                f"imported in {one.load_seconds * 1e3:.1f} ms",
                f"{one.verdict}, {one.cases} cases" if one.verdict == "sound" else one.verdict,
            ),
            one.reason,
        )
        for one in findings
    ]


def aligned(rows: list[Row]) -> Iterator[str]:
    """The rows in columns, each with what is to be said of it indented below."""
    widths = [max(map(len, column)) for column in zip(*(cells for cells, _ in rows), strict=True)]
    for cells, remark in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        if remark:
            yield textwrap.indent(remark.rstrip(), "    ")
