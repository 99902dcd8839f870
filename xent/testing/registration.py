"""A kernel and its plugin as the registry has them, and what of its declaration can be tried here."""

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
from .declaration import DTYPES
from .edges import Case, named_dtype
from .memory import ArrayLibrary, array_library
from .subject import Subject


@dataclass(frozen=True)
class Deviation:
    """A promise that a kernel is known not to keep, as its plugin says in ``xent_conformance``.

    It must be broken: a deviation that does not occur is a failure of its own.

    Parameters
    ----------
    check : str
        The name of the promise.
    reason : str
    """

    check: str
    reason: str


def told_by_plugins(spec: KernelSpec) -> Iterator[Case | Deviation]:
    """What the plugins' ``xent_conformance`` say of a kernel; one that fails is warned of, and left out."""
    hook = registry.manager.hook.xent_conformance
    everyone = [one.plugin for one in hook.get_hookimpls()]
    for one in reversed(hook.get_hookimpls()):
        others = [plugin for plugin in everyone if plugin is not one.plugin]
        try:
            (told,) = registry.manager.subset_hook_caller("xent_conformance", others)(spec=spec) or [None]
            items = list(told or ())
            wrong = [item for item in items if not isinstance(item, Case | Deviation)]
            if wrong:
                raise TypeError(f"xent_conformance must give Case and Deviation, got {wrong[0]!r}")
        except Exception as error:  # a plugin's hook may raise anything
            what = f"{type(error).__name__}: {error}"
            warn_once(f"plugin {one.plugin_name!r} says nothing of kernel {spec.name!r}: {what}.")
        else:
            yield from items


@dataclass(frozen=True)
class Carrier:
    """A plugin of one kernel."""

    spec: KernelSpec = field(hash=False)

    @hookimpl
    def xent_register_kernels(self) -> list[KernelSpec]:
        return [self.spec]


@contextlib.contextmanager
def registered(spec: KernelSpec) -> Iterator[KernelSpec]:
    """The spec as the registry has it; registered meanwhile where it is not."""
    spec = declarations.checked(spec, KernelSpec)
    registry.load()
    found = next((one for one in registry.kernels if (one.op, one.name) == (spec.op, spec.name)), None)
    if found is not None and found != spec:
        raise ValueError(
            f"check_kernel: `spec` must be the registered kernel {spec.name!r} ({spec.op}) of {found.owner}, or have a "
            f"name of its own, got another. Rename it, or set XENT_DISABLE={found.owner}."
        )
    if found is not None:
        yield found
        return
    name = f"{spec.name} under test"
    registry.add(Carrier(spec), name)
    try:
        yield next((one for one in registry.kernels if one.owner == name), spec)
    finally:
        if registry.manager.has_plugin(name):
            registry.remove(name)
        registry.records.pop(name, None)


def registered_specs(name: str) -> list[KernelSpec]:
    """The registered kernels of that name, one for each op."""
    registry.load()
    return [one for one in registry.kernels if one.name == name]


def hooks_of(spec: KernelSpec) -> str:
    """The module with the hooks of an installed plugin's kernel, as its entry point has it; else empty."""
    entries = importlib.metadata.entry_points(group=GROUP)
    return next((entry.value for entry in entries if entry.name == spec.owner), "")


def subjects_of(spec: KernelSpec, given: ArrayLibrary | None, hooks: str) -> tuple[list[Subject], list[str]]:
    """The kernel in every declared library and dtype that is at hand, and why others are not."""
    skipped, subjects = [], []
    libraries = []
    for name in [given.name] if given else sorted(spec.arrays - {"*"}) or ["numpy"]:
        try:
            library = given or array_library(name)
        except (ImportError, RuntimeError, LookupError) as error:
            skipped.append(f"{name}: {error}")
            continue
        if {library.device, "*"} & spec.devices:
            libraries.append(library)
        else:
            skipped.append(f"{name} on {', '.join(sorted(spec.devices))}: its arrays are made on {library.device}")
    for library in libraries:
        skipped += [
            f"{one} on {library.name}: the kit knows no such dtype" for one in sorted(spec.dtypes - {*DTYPES, "*"})
        ]
        for dtype in (one for one in DTYPES if one in spec.dtypes or "*" in spec.dtypes):
            subject = Subject(spec, library, dtype, hooks)
            try:
                if not library.keeps(named_dtype(dtype)):
                    raise TypeError(f"its arrays are not of {dtype}")
            except Exception as error:  # a library may refuse a dtype in its own way
                skipped.append(f"{dtype} on {library.name}: {type(error).__name__}: {error}")
            else:
                subjects.append(subject)
    return subjects, skipped
