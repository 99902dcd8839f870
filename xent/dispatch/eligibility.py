"""Which kernels may serve a problem, in which order, and every reason against the others.

One predicate, :func:`why_not`, both decides and explains. A plugin whose own check breaks is set aside.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from ..contract.plan import Verdict, warn_once
from ..contract.problem import Problem
from ..contract.specs import BackendSpec, KernelSpec
from ..errors import NotServed
from . import settings
from .registry import registry

GENERIC = "generic"


def why_not(spec: KernelSpec, problem: Problem, user: settings.Settings) -> Iterator[str]:
    """Every reason against a kernel, cheap ones first; none means that it is eligible."""
    problem = problem.as_seen_by_kernel
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
    if problem.method == "statistics" and "statistics" not in spec.methods:
        yield "method: it has no statistics"
    if problem.method == "loss_and_gradient" and not spec.methods & {"gradient", "loss_and_gradient"}:
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
    try:
        answer = spec.check(problem)
        if answer is not True and not isinstance(answer, str):
            raise TypeError(f"check of kernel {spec.name!r} must return True or a reason, got {answer!r}")
    except Exception as error:  # a plugin's check may raise anything
        registry.quarantine(spec.owner, error)
        yield f"check: {type(error).__name__}: {error}"
    else:
        if answer is not True:
            yield f"check: {answer}"


def judge(spec: KernelSpec, problem: Problem, user: settings.Settings) -> Verdict:
    """The verdict on one kernel before any is chosen, with the wall time of reaching it."""
    start = time.perf_counter()
    reasons = tuple(why_not(spec, problem, user))
    return Verdict(spec.name, spec.owner, False, reasons, time.perf_counter() - start)


def candidates(problem: Problem, user: settings.Settings) -> list[tuple[KernelSpec, Verdict]]:
    """Every kernel for the problem's op with its verdict; the eligible ones first, best first."""
    specs = [spec for spec in registry.kernels if spec.op == ("dense" if problem.op == "binary" else problem.op)]
    preference = {name: index for index, name in enumerate(user.prefer)}
    specs.sort(key=lambda spec: (preference.get(spec.name, len(preference)), -spec.priority, spec.name))
    judged = [(spec, judge(spec, problem, user)) for spec in specs]
    eligible = [spec for spec, verdict in judged if not verdict.reasons and spec.name != GENERIC]
    if len(eligible) > 1:
        eligible = site_order(problem, eligible, preference)
        warn_of_tie(eligible, preference)
    ranks = {spec.name: index for index, spec in enumerate(eligible)}
    judged.sort(key=lambda pair: (bool(pair[1].reasons), pair[0].name == GENERIC, ranks.get(pair[0].name, 0)))
    return judged


def site_order(problem: Problem, eligible: list[KernelSpec], preference: dict[str, int]) -> list[KernelSpec]:
    """The eligible kernels in the order of the site's policy; the user's preference goes first."""
    order = registry.ask_site(problem, tuple(spec.name for spec in eligible))
    if not order:
        return eligible
    ranks = {name: index for index, name in enumerate(order)}
    worst = len(preference), len(ranks)
    return sorted(eligible, key=lambda spec: (preference.get(spec.name, worst[0]), ranks.get(spec.name, worst[1])))


def warn_of_tie(eligible: list[KernelSpec], preference: dict[str, int]) -> None:
    """Warns once if the names decided between the kernels of two third parties."""
    first, second = eligible[:2]
    foreign = not (first.owner.startswith("xent.") or second.owner.startswith("xent."))
    if foreign and first.priority == second.priority and not {first.name, second.name} & set(preference):
        warn_once(
            f"kernels {first.name!r} of {registry.records[first.owner].title} and {second.name!r} of "
            f"{registry.records[second.owner].title} have the same priority; {first.name!r} is taken, by name. "
            f"XENT_PREFER={first.name} or XENT_PREFER={second.name} settles it."
        )


def refuse(problem: Problem, user: settings.Settings, verdicts: list[Verdict]) -> None:
    """Raises, with every reason, if the forced kernel cannot serve; warns if a preferred one cannot."""
    reasons = {verdict.kernel: "; ".join(verdict.reasons) for verdict in verdicts if verdict.reasons}
    served = {verdict.kernel for verdict in verdicts if not verdict.reasons}
    if user.kernel is not None and user.kernel not in served:
        lines = "\n".join(f"  {name}: {why}" for name, why in reasons.items())
        known = "cannot serve this call" if user.kernel in reasons else "is not registered"
        raise NotServed(
            f"{problem.function}: `kernel` must be one that serves {problem}, got {user.kernel!r}, which {known}.\n"
            f"{lines}\nChoose another, or leave it to xent."
        )
    for name in user.prefer:
        if name not in served:
            warn_once(f"preferred kernel {name!r} is not used for {problem}: {reasons.get(name, 'not registered')}.")
