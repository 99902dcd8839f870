"""A kernel and its plugin in the registry, and the declared combinations that can be tried on this machine."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..contract.hooks import hookimpl
from ..contract.plan import warn_once
from ..contract.specs import KernelSpec
from ..dispatch import declarations
from ..dispatch.registry import GROUP, registry
from .edge_cases import DTYPES, Case, named_dtype
from .kernel_under_test import KernelUnderTest
from .memory import ArrayLibrary, array_library


@dataclass(frozen=True)
class Deviation:
    """A promise that a kernel does not keep, as its plugin declares in ``xent_conformance``.

    It must be broken: if the kernel keeps the promise, that is a failure.

    Parameters
    ----------
    check : str
        The name of the promise.
    reason : str
    """

    check: str
    reason: str


def plugin_statements(spec: KernelSpec) -> Iterator[Case | Deviation]:
    """The cases and deviations of every plugin's ``xent_conformance`` for a kernel; a hook that fails is warned of."""
    hook = registry.manager.hook.xent_conformance
    plugins = [implementation.plugin for implementation in hook.get_hookimpls()]
    for implementation in reversed(hook.get_hookimpls()):
        others = [plugin for plugin in plugins if plugin is not implementation.plugin]
        try:
            (statements,) = registry.manager.subset_hook_caller("xent_conformance", others)(spec=spec) or [None]
            statements = list(statements or ())
            wrong = [statement for statement in statements if not isinstance(statement, Case | Deviation)]
            if wrong:
                raise TypeError(f"xent_conformance must give Case and Deviation, got {wrong[0]!r}")
        except Exception as error:  # a plugin's hook may raise anything
            what = f"{type(error).__name__}: {error}"
            warn_once(f"plugin {implementation.plugin_name!r} says nothing of kernel {spec.name!r}: {what}.")
        else:
            yield from statements


@dataclass(frozen=True)
class OneKernel:
    """A plugin that registers one kernel."""

    spec: KernelSpec = field(hash=False)

    @hookimpl
    def xent_register_kernels(self) -> list[KernelSpec]:
        return [self.spec]


@contextlib.contextmanager
def registered(spec: KernelSpec) -> Iterator[KernelSpec]:
    """The spec as the registry has it; if it is not registered, it is for the duration of the context."""
    spec = declarations.checked(spec, KernelSpec)
    registry.load()
    known = next((kernel for kernel in registry.kernels if (kernel.op, kernel.name) == (spec.op, spec.name)), None)
    if known is not None and known != spec:
        raise ValueError(
            f"check_kernel: `spec` must be the registered kernel {spec.name!r} ({spec.op}) of {known.owner}, or have a "
            f"name of its own, got another. Rename it, or set XENT_DISABLE={known.owner}."
        )
    if known is not None:
        yield known
        return
    plugin = f"{spec.name} under test"
    registry.add(OneKernel(spec), plugin)
    try:
        yield next((kernel for kernel in registry.kernels if kernel.owner == plugin), spec)
    finally:
        if registry.manager.has_plugin(plugin):
            registry.remove(plugin)
        registry.records.pop(plugin, None)


def registered_specs(name: str) -> list[KernelSpec]:
    """The registered kernels of that name, one for each op."""
    registry.load()
    return [spec for spec in registry.kernels if spec.name == name]


def hooks_of(spec: KernelSpec) -> str:
    """The module with the hooks of an installed plugin's kernel, from its entry point; empty if there is none."""
    entries = importlib.metadata.entry_points(group=GROUP)
    return next((entry.value for entry in entries if entry.name == spec.owner), "")


def kernels_under_test(
    spec: KernelSpec, library: ArrayLibrary | None, hooks: str
) -> tuple[list[KernelUnderTest], list[str]]:
    """The kernel in every declared library and dtype that can be tried on this machine, and why others cannot.

    A library that is passed is tried alone.
    """
    libraries, kernels, skipped = list[ArrayLibrary](), list[KernelUnderTest](), list[str]()
    for name in [library.name] if library else sorted(spec.arrays - {"*"}) or ["numpy"]:
        try:
            candidate = library or array_library(name)
        except (ImportError, RuntimeError, LookupError) as error:
            skipped.append(f"{name}: {error}")
            continue
        if {candidate.device, "*"} & spec.devices:
            libraries.append(candidate)
        else:
            skipped.append(f"{name} on {', '.join(sorted(spec.devices))}: its arrays are made on {candidate.device}")
    for candidate in libraries:
        unknown = sorted(spec.dtypes - {*DTYPES, "*"})
        skipped += [f"{dtype} on {candidate.name}: the kit knows no such dtype" for dtype in unknown]
        for dtype in (dtype for dtype in DTYPES if dtype in spec.dtypes or "*" in spec.dtypes):
            try:
                if not candidate.keeps(named_dtype(dtype)):
                    raise TypeError(f"its arrays are not of {dtype}")
            except Exception as error:  # a library may refuse a dtype in its own way
                skipped.append(f"{dtype} on {candidate.name}: {type(error).__name__}: {error}")
            else:
                kernels.append(KernelUnderTest(spec, candidate, dtype, hooks))
    return kernels, skipped
