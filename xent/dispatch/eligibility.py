"""Which kernels may serve a problem, and every reason against the others.

One predicate, :func:`why_not`, both decides and explains. A plugin whose own check breaks is set aside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..contract.problem import Problem
from ..contract.specs import BackendSpec, KernelSpec
from ..errors import summary
from . import settings
from .registry import registry

GENERIC = "generic"
FFI_TARGETS = {
    "loss": "ffi_target",
    "loss_and_gradient": "ffi_target",
    "partial": "partial",
    "logsumexp": "partial",
    "statistics": "statistics",
}
"""What a kernel that JAX takes declares where a call of a method is served by one of its targets."""


def why_not(spec: KernelSpec, problem: Problem, user: settings.Settings) -> Iterator[str]:
    """Every reason against a kernel, cheap ones first; none means that it is eligible."""
    kind, problem = problem.options.kind, problem.as_seen_by_kernel
    if spec.name == GENERIC:
        if user.kernel not in (None, GENERIC):
            yield f"forced: kernel={user.kernel!r}"
        return
    if user.kernel is not None and user.kernel != spec.name:
        yield f"forced: kernel={user.kernel!r}"
    if user.kernel != spec.name and is_disabled(spec, user):
        yield "disabled by the user"
    if spec.opt_in and spec.name not in (*user.prefer, user.kernel):
        yield "opt-in: only where it is preferred or forced"
    if not problem.uses_fold:
        what = "binary targets" if problem.op == "binary" else problem.options.kind
        yield f"kind: {what} have no partition function, so no kernel takes part"
    device = problem.device.partition(":")[0]
    facts = (
        ("array", problem.array, spec.arrays),
        ("device", device, spec.devices),
        ("dtype", problem.dtype, spec.dtypes),
    )
    for name, fact, allowed in facts:
        if fact not in allowed and "*" not in allowed:
            yield f"{name}: {fact} is not among {', '.join(sorted(allowed))}"
    if problem.is_product:
        if problem.array == "jax":
            yield "method: JAX multiplies the tiles of a product, and folds them, by itself"
        elif problem.method != "statistics" and "partial" not in spec.methods:
            yield "method: it has no partial, which the tiles of a product need"
        elif problem.method in ("loss_and_gradient", "gradient") and "gradient" not in spec.methods:
            yield "method: it has no gradient from a partial, which the tiles of a product need"
        elif problem.method == "statistics" and "statistics" not in spec.methods:
            yield "method: it has no statistics"
    elif "ffi_target" in spec.methods:
        if FFI_TARGETS.get(problem.method, "") not in spec.methods:
            yield f"method: it has no FFI target for {problem.method}"
        if problem.method == "statistics" and kind != "logits":
            yield f"kind: an FFI target takes no {kind}"
    elif problem.is_in_torch_graph:
        if problem.method not in ("loss", "loss_and_gradient"):
            yield f"method: a compiled graph computes {problem.method} by itself"
        if not spec.methods >= {"loss", "loss_and_gradient"}:
            yield "method: a compiled graph calls loss and loss_and_gradient"
        if spec.block_elements is not None:
            yield "block_elements: a compiled graph hands over whole arrays"
    elif problem.array == "jax":
        yield "method: JAX takes a kernel by its FFI targets, and it has none"
    elif problem.method == "statistics" and kind == "probabilities":
        if "probability_sums" not in spec.methods:
            yield "method: it has no sums of probabilities"
    elif problem.method == "statistics" and "statistics" not in spec.methods:
        yield "method: it has no statistics"
    elif problem.method == "gradient" and "gradient" not in spec.methods:
        yield "method: it has no gradient from a partial"
    elif problem.method == "loss_and_gradient" and not spec.methods & {"gradient", "loss_and_gradient"}:
        yield "method: it has no gradient"
    if spec.check is not None:
        yield from reasons_of_check(spec, problem)


def is_disabled(spec: KernelSpec | BackendSpec, user: settings.Settings) -> bool:
    """Whether the user has disabled it, by its name, its plugin's, or with everything from outside."""
    foreign = not spec.owner.startswith("xent.")
    return spec.name in user.disable or spec.owner in user.disable or (foreign and "*" in user.disable)


def reasons_of_check(spec: KernelSpec, problem: Problem) -> Iterator[str]:
    """The reasons of the kernel's own check; a plugin whose check raises is set aside."""
    assert spec.check is not None
    answer: Any = None
    with registry.asked(spec.owner, f"check of kernel {spec.name!r} ({spec.op})") as errors:
        answer = spec.check(problem)
        if answer is not True and not isinstance(answer, str):
            raise TypeError(f"check of kernel {spec.name!r} must return True or a reason, got {answer!r}")
    if errors:
        yield f"check: {summary(errors[0])}"
    elif answer is not True:
        yield f"check: {answer}"
