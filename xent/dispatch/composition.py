"""The plan of a problem: which kernel, under which schedule, and how schedules nest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .. import checks
from ..contract.plan import Decision, Plan, Verdict, resolve
from ..contract.problem import Problem
from ..contract.specs import AtLeast, BackendSpec, KernelSpec
from . import eligibility, selection, settings
from .registry import annotate_error, registry

GENERIC = BackendSpec(name=eligibility.GENERIC, load="xent.backends.generic:run", takes_out=True)
"""The schedule for the arrays of libraries that no other is for."""
PRODUCTS = {
    "numpy": BackendSpec(name=eligibility.GENERIC, load="xent.backends.numpy.linear:run"),
    "torch": BackendSpec(name="torch", load="xent.backends.torch.linear:run", inner="view"),
    "jax": BackendSpec(name="jax", load="xent.backends.jax.linear:run"),
    "cupy": BackendSpec(name="cupy", load="xent.backends.cupy:run_product"),
    "dask": BackendSpec(name="dask", load="xent.backends.dask.linear:run", inner="chunks"),
}
"""The schedules of products by library; the generic one serves all others, eager ones that a plugin schedules too."""
GENERIC_PRODUCTS = BackendSpec(name=eligibility.GENERIC, load="xent.backends.generic.linear:run")
GRAPH_ELEMENTS = 1 << 15
"""The least predictions for which a compiled graph of torch's is quicker with a kernel than by itself."""


def compose(problem: Problem, user: settings.Settings) -> Plan:
    """The plan of a problem: the one place that knows how schedules nest."""
    backend = backend_of(problem, user)
    problem = replace(problem, views=problem.views or backend.views)
    if backend.inner == "chunks" or (backend.inner and problem.views):
        checks.known_chunks(problem)
        inner = compose(problem.of_chunks() if backend.inner == "chunks" else problem.seen_as(problem.views[0]), user)
        decision = Decision(problem, backend.name, inner.kernel, (), inner.decision)
        return Plan(
            problem,
            run_of(backend),
            inner.kernel,
            inner.load,
            inner=inner,
            forced=inner.forced,
            owner=inner.owner,
            decision=decision,
            takes_out=backend.takes_out and inner.takes_out,
        )
    kernels = registry.kernels
    candidates = selection.candidates(problem, user)
    if registry.kernels is not kernels:  # a check or a policy broke, and all kernels of its plugin are gone
        return compose(problem, user)
    selection.refuse(problem, user, [verdict for _, verdict in candidates])
    plan: Plan | None = None
    in_turn = until_unguarded([spec for spec, verdict in candidates if not verdict.reasons], problem)
    for spec in reversed(in_turn):
        declined = in_turn[: in_turn.index(spec)]  # this plan is followed if the guards of all these decline
        verdicts = tuple(verdict_of(problem, candidate, verdict, spec, declined) for candidate, verdict in candidates)
        plan = Plan(
            problem,
            run_of(backend),
            spec.name,
            spec.load,
            block_elements=spec.block_elements,
            methods=spec.methods,
            layouts=spec.layouts,
            guard=guard_of(spec, problem),
            otherwise=plan,
            forced=user.kernel == spec.name,
            owner=spec.owner,
            decision=Decision(problem, backend.name, spec.name, verdicts),
            in_place=spec.in_place,
            takes_out=backend.takes_out,
        )
    assert plan is not None  # generic is always eligible, or refuse has raised
    return plan


def verdict_of(
    problem: Problem, spec: KernelSpec, verdict: Verdict, chosen: KernelSpec, declined: list[KernelSpec]
) -> Verdict:
    """The verdict on one candidate, once a kernel is chosen and the guards of some have declined the call."""
    reasons = guard_reason(problem, spec) if spec in declined else ()
    return replace(verdict, chosen=spec is chosen, reasons=verdict.reasons + reasons)


def guard_of(spec: KernelSpec, problem: Problem) -> Callable[[tuple[int, ...], tuple[int, ...]], bool] | None:
    """The guard of a kernel for the calls of a problem; in a graph of torch's it declines what is too small."""
    guard = spec.guard_of(problem.dtype, problem.ndim, problem.axis)
    return AtLeast(GRAPH_ELEMENTS, guard) if problem.is_in_torch_graph and spec.name != eligibility.GENERIC else guard


def guard_reason(problem: Problem, spec: KernelSpec) -> tuple[str, ...]:
    """The reason of a kernel whose guard has declined the shape and strides of a call."""
    reasons = {"contiguous": "the classes of a row do not lie side by side"} if spec.contiguous else {}
    if problem.is_in_torch_graph:
        reasons |= {"size": f"of fewer than {GRAPH_ELEMENTS} predictions a compiled graph is quicker by itself"}
    reasons |= {"guard": "declines the shape of this call"} if spec.guard is not None else {}
    return (", or ".join(f"{what}: {why}" for what, why in reasons.items()),)


def until_unguarded(specs: list[KernelSpec], problem: Problem) -> list[KernelSpec]:
    """The kernels that are asked in turn: every guarded one, up to the first that takes every call."""
    last = next((index for index, spec in enumerate(specs) if guard_of(spec, problem) is None), len(specs))
    return specs[: last + 1]


def backend_of(problem: Problem, user: settings.Settings) -> BackendSpec:
    """The schedule for the arrays of the problem; a plugin's goes before xent's, generic serves the rest."""
    if problem.is_product:
        return PRODUCTS.get(problem.array, GENERIC_PRODUCTS)
    specs = [spec for spec in registry.backends if problem.array in spec.arrays]
    own = [spec for spec in specs if spec.owner.startswith("xent.")]
    foreign = [spec for spec in specs if spec not in own and not eligibility.is_disabled(spec, user)]
    return (foreign or own or [GENERIC])[0]


def run_of(backend: BackendSpec) -> Callable[..., Any]:
    """The function of a backend; an error while it is imported names its plugin."""
    try:
        run: Callable[..., Any] = resolve(backend.load)
    except Exception as error:
        annotate_error("backend", backend.name, backend.owner, error)
        raise
    return run
