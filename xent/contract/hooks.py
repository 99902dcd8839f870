"""The whole contract between xent and a plugin, on one screen.

A plugin is a module with some of these hooks, published under the entry-point group ``xent``. All hooks run on the slow
path, once per process or once per new kind of call; no hook ever gets an array. A hook may take any subset of the
arguments, so that new ones can be added without breaking anybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from .problem import Problem
    from .specs import BackendSpec, KernelSpec

hookspec = pluggy.HookspecMarker("xent")
hookimpl = pluggy.HookimplMarker("xent")


@hookspec(historic=True)
def xent_register_kernels(api: int) -> Iterable[KernelSpec]:  # type: ignore[empty-body]  # a hook has no body
    """The kernels of a plugin; None if it has none here. No numba, cupy or torch at the top of its module."""


@hookspec(historic=True)
def xent_register_backends(api: int) -> Iterable[BackendSpec]:  # type: ignore[empty-body]  # a hook has no body
    """The schedules that a plugin brings for array libraries of its own; None if it has none for this machine."""


@hookspec(firstresult=True)
def xent_order_kernels(problem: Problem, candidates: tuple[str, ...]) -> Iterable[str] | None:
    """A site's policy: the names of the eligible kernels, best first, or None to leave them as they are."""


@hookspec
def xent_conformance(spec: KernelSpec) -> Any:
    """Extra cases and known deviations of a kernel, for the conformance kit."""
