"""Which kernel is chosen: the user's preference, the site's policy, priority, then the name.

Leaves out which kernels are eligible (``eligibility.py``) and how the plan of the chosen one is made
(``composition.py``).
"""

from __future__ import annotations

import time

from ..contract.plan import Verdict, warn_once
from ..contract.problem import Problem
from ..contract.specs import KernelSpec
from ..errors import NotServed
from . import settings
from .eligibility import GENERIC, why_not
from .registry import registry


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
