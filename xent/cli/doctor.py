"""Whether this installation is sound: versions, GPUs, plugins, and every kernel imported and tested quickly.

The diagnosis is plain data; nothing is repaired. A library is imported only to list its GPUs.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import textwrap
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .. import arrays, distribution
from ..contract.plan import resolve
from ..contract.specs import KernelSpec
from ..dispatch import settings
from ..dispatch.registry import PluginRecord, plugins, registry
from ..errors import is_interrupt, summary

NEEDED = (distribution.NAME, "numpy", "array-api-compat", "pluggy")
OPTIONAL = ("dask", "distributed", "zarr", "torch", "jax", "cupy", "cupy-cuda12x", "cupy-cuda13x", "numba", "ml_dtypes")
COMMAND_LINE = ("click", "rich")
Line = tuple[tuple[str, ...], str]
"""The cells of a line, and a remark that is written below it; empty if there is none."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of importing and testing one kernel.

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
    """The facts of an installation.

    ``conflict`` says what is wrong where another project's files lie among xent's; empty if none do. ``gpus`` has the
    names or the error of each library, ``variables`` are XENT_*.
    """

    versions: dict[str, str]
    processors: int
    variables: dict[str, str]
    gpus: dict[str, str]
    plugins: tuple[PluginRecord, ...]
    kernels: tuple[Finding, ...]
    conflict: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether xent's files are its own, no plugin is broken, and no kernel wrong or impossible to import."""
        kernels_are_sound = all(finding.verdict in ("sound", "cannot run here") for finding in self.kernels)
        return not self.conflict and kernels_are_sound and all(record.status != "broken" for record in self.plugins)

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as plain data, for JSON."""
        return {
            "is_sound": self.is_sound,
            "conflict": self.conflict,
            "versions": self.versions,
            "processors": self.processors,
            "variables": self.variables,
            "gpus": self.gpus,
            "plugins": [record.to_dict() for record in self.plugins],
            "kernels": [finding.to_dict() for finding in self.kernels],
        }

    def __str__(self) -> str:
        facts = [*self.versions.items(), ("processors", str(self.processors)), *self.variables.items()]
        facts += [(f"GPUs of {library}", names) for library, names in self.gpus.items()]
        fact_lines: list[Line] = [(fact, "") for fact in facts]
        sections = fact_lines, plugin_lines(self.plugins), kernel_lines(self.kernels)
        columns = ("\n".join(format_columns(lines)) for lines in sections)
        return "\n\n".join(filter(None, (self.conflict, *columns)))


def diagnose() -> Diagnosis:
    """The facts of this installation; each kernel is imported and tested."""
    registry.load()
    kernels = tuple(examine(spec) for spec in tuple(registry.kernels))
    return Diagnosis(
        versions=versions(),
        processors=settings.affinity(),
        variables={name: os.environ[name] for name in settings.VARIABLES if name in os.environ},
        gpus=gpus(),
        plugins=tuple(plugins()),  # last: a test may have set a plugin aside
        kernels=kernels,
        conflict=distribution.conflict(),
    )


def versions() -> dict[str, str]:
    """The versions of Python, of the platform, and of each distribution in the lists above that is installed."""
    result = {"python": platform.python_version(), "platform": platform.platform()}
    for name in NEEDED + OPTIONAL + COMMAND_LINE:
        with suppress(importlib.metadata.PackageNotFoundError):
            result[name] = importlib.metadata.version(name)
    return result


def gpus() -> dict[str, str]:
    """The GPUs that each installed library sees: their names, "none", or the error of asking for them."""
    result = {}
    for library, devices in DEVICES.items():
        if arrays.is_importable(library):
            try:
                result[library] = ", ".join(devices()) or "none"
            except Exception as error:  # a driver may be broken in any way
                result[library] = summary(error)
    return result


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

    return [device.device_kind for device in jax.devices() if device.platform != "cpu"]


DEVICES = {"cupy": cupy_devices, "torch": torch_devices, "jax": jax_devices}
"""The function that lists a library's GPUs."""


def examine(spec: KernelSpec) -> Finding:
    """Import a kernel and test it."""
    start, error = time.perf_counter(), ""
    try:
        resolve(spec.load)
    except BaseException as raised:  # a plugin's import may raise anything
        if is_interrupt(raised):
            raise
        error = summary(raised)
    seconds = time.perf_counter() - start
    result = {"verdict": "cannot be imported", "reason": error} if error else run_quick_test(spec)
    return Finding(spec.name, spec.op, spec.owner, registry.records[spec.owner].origin, seconds, **result)


def run_quick_test(spec: KernelSpec) -> dict[str, Any]:
    """The fields of a finding that the quick test of the kernel gives."""
    from xent import testing  # here, for `xent plugins` does not need it

    report = testing.check_kernel(spec, quick=True)
    if report.ok:
        verdict, reason = "sound", ""
    elif report.skipped and not report.cases:  # subtle: such a report is not ok
        verdict, reason = "cannot run here", "\n".join(report.skipped)
    else:
        broken = (
            f"{result.check}, {result.broken} of {result.cases} cases: {result.failures[0]}"
            for result in report.results
            if not result.ok
        )
        verdict, reason = "WRONG", "\n".join(broken)
    return {"verdict": verdict, "reason": reason, "cases": report.cases, "report": report.to_dict()}


def plugin_lines(records: Iterable[PluginRecord]) -> list[Line]:
    """A line for each plugin, with the traceback of a broken one below it."""
    return [
        ((record.name, record.origin, record.status, ", ".join(record.kernels + record.hooks)), record.error)
        for record in records
    ]


def kernel_lines(findings: Iterable[Finding]) -> list[Line]:
    """A line for each kernel, with the reason below it if it is not sound."""
    return [
        (
            (
                f"{finding.kernel} ({finding.op})",
                finding.owner,
                finding.origin,
                f"imported in {finding.load_seconds * 1e3:.1f} ms",
                f"{finding.verdict}, {finding.cases} cases" if finding.verdict == "sound" else finding.verdict,
            ),
            finding.reason,
        )
        for finding in findings
    ]


def format_columns(lines: list[Line]) -> Iterator[str]:
    """The lines with their cells in columns, each followed by its remark, indented."""
    widths = [max(map(len, column)) for column in zip(*(cells for cells, _ in lines), strict=True)]
    for cells, remark in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        if remark:
            yield textwrap.indent(remark.rstrip(), "    ")
