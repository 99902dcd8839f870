"""The user's settings of dispatch: the environment, and ``xent.using``.

The environment is read at the first call, not at import: ``XENT_PREFER``, ``XENT_DISABLE``, ``XENT_KERNEL``,
``XENT_THREADS``, ``XENT_VALIDATE``, ``XENT_TRACE``, ``XENT_PLUGINS`` and ``XENT_PLUGIN_ERRORS``. A context goes
before it. ``XENT_RECYCLE_BYTES`` is read where it is used (``backends/numpy/recycling.py``).
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import checks, errors
from ..checks import Validate

if TYPE_CHECKING:
    from ..contract.plan import Decision

VARIABLES = tuple(
    f"XENT_{name}"
    for name in (
        "PREFER",
        "DISABLE",
        "KERNEL",
        "THREADS",
        "VALIDATE",
        "TRACE",
        "PLUGINS",
        "PLUGIN_ERRORS",
        "RECYCLE_BYTES",
    )
)
TRUE, FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Settings:
    """The user's settings that a plan depends on."""

    prefer: tuple[str, ...] = ()
    disable: frozenset[str] = frozenset()
    kernel: str | None = None
    threads: int | None = None
    validate: str = "auto"
    gradient_in_forward: bool = False


@dataclass(slots=True)
class State:
    """The settings in force, the plans made under them, and the list that collects decisions, or None."""

    settings: Settings
    plans: dict[Any, Any]
    sink: Any = None


@dataclass(slots=True)
class Scopes:
    """Where the state in force is kept. ``entered`` is set by the first ``using`` and never cleared, so that a process
    that never enters one reads no ContextVar. ``generation`` counts how often the plans were forgotten."""

    entered: bool = False
    default: State | None = None
    generation: int = 0
    caches: dict[Settings, dict[Any, Any]] = field(default_factory=dict)


scopes = Scopes()
scope: contextvars.ContextVar[State | None] = contextvars.ContextVar("xent", default=None)


def current() -> State:
    """The state in force in this thread or task."""
    inner = scope.get() if scopes.entered else None
    return inner or scopes.default or read_environment()


def plans_under(settings: Settings) -> dict[Any, Any]:
    """The plans made under these settings; equal settings share them."""
    return scopes.caches.setdefault(settings, {})


def forget_plans() -> None:
    """Clears every plan, for the kernels, or which of them may be chosen, have changed."""
    scopes.generation += 1
    for plans in list(scopes.caches.values()):
        plans.clear()


def names(text: str) -> tuple[str, ...]:
    """The names of a comma-separated list."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def switch(environment: Mapping[str, str], variable: str) -> bool:
    """A variable that is on or off; anything else is off, with a warning that names it."""
    text = environment.get(variable, "").strip().lower()
    if text not in TRUE | FALSE:
        warnings.warn(
            f"xent: {variable}={text!r} is neither on nor off; taken as off.", errors.PluginWarning, stacklevel=2
        )
    return text in TRUE


def threads_of(text: str | None) -> int | None:
    """The number of threads that the text gives."""
    if text is None or text.strip() == "":
        return None
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(
            f"xent: `XENT_THREADS` must be a positive integer, got {text!r}. Set it to a number of threads."
        )
    return int(text)


def read_environment(environment: Mapping[str, str] | None = None) -> State:
    """The state of the environment, taken as the default from now on; called again to take it anew."""
    environment = os.environ if environment is None else environment
    validate = environment.get("XENT_VALIDATE", "auto")
    checks.choice("xent", "XENT_VALIDATE", validate, checks.VALIDATE)
    settings = Settings(
        prefer=names(environment.get("XENT_PREFER", "")),
        disable=frozenset(names(environment.get("XENT_DISABLE", ""))),
        kernel=environment.get("XENT_KERNEL") or None,
        threads=threads_of(environment.get("XENT_THREADS")),
        validate=validate,
    )
    sink = Printer() if switch(environment, "XENT_TRACE") else None
    scopes.default = State(settings, plans_under(settings), sink)
    return scopes.default


class Printer:
    """A list of decisions that writes each new one to stderr (``XENT_TRACE=1``)."""

    def __init__(self) -> None:
        self.seen: set[Any] = set()

    def append(self, decision: Any) -> None:
        if decision not in self.seen:
            self.seen.add(decision)
            print(decision, file=sys.stderr)


def affinity() -> int:
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class using(contextlib.ContextDecorator):  # lower case: it reads as a keyword
    """A context, or a decorator, in which calls are dispatched otherwise.

    Contexts nest; what an inner one does not name, it takes from outside. It holds for the thread, or the task, that
    enters it; Dask graphs keep what held when they were built.

    Parameters
    ----------
    prefer : str or iterable of str, optional
        Kernels to take first where they are eligible; one warning with the reason where one is not.
    disable : str or iterable of str, optional
        Kernels, or plugins by their name, not to take; "*" is everything that is not xent's own.
    kernel : str, optional
        The one kernel to take; a call that it cannot serve raises with the reason of every candidate.
    threads : int, optional
        How many threads a kernel may use; by default ``XENT_THREADS``, else every processor it may run on.
    validate : "auto", "always" or "never", optional
        Whether labels outside ``[0, C)`` raise: on the host and in Dask tasks (auto), everywhere, at the price of a
        synchronisation (always), or never: then the row's loss and gradient are NaN.
    gradient_in_forward : bool, optional
        Whether a loss of torch's that is reduced to one number makes its gradient in the forward pass: the predictions
        are read once, and an array of their size is held until the backward pass. Not in compiled graphs.
    trace : bool, optional
        Whether the context yields a list that collects the :class:`Decision` of every call inside.

    Raises
    ------
    ValueError
        If ``threads`` is not a positive integer, or ``validate`` is unknown.
    TypeError
        If ``gradient_in_forward`` is neither True nor False.

    Examples
    --------
    >>> import numpy as np, xent
    >>> with xent.using(kernel="generic", trace=True) as decisions:
    ...     loss = xent.sparse_cross_entropy(np.zeros((1, 4)), np.asarray([2]))
    >>> decisions[0].kernel
    'generic'
    """

    def __init__(
        self,
        *,
        prefer: str | Iterable[str] | None = None,
        disable: str | Iterable[str] | None = None,
        kernel: str | None = None,
        threads: int | None = None,
        validate: Validate | None = None,
        gradient_in_forward: bool | None = None,
        trace: bool = False,
    ) -> None:
        if validate is not None:
            checks.choice("using", "validate", validate, checks.VALIDATE)
        if threads is not None and not checks.is_count(threads):
            raise ValueError(f"using: `threads` must be a positive integer, got {threads!r}. Pass a number of threads.")
        self.changes: dict[str, Any] = {
            "prefer": checks.names("using", "prefer", prefer),
            "disable": None if disable is None else frozenset(checks.names("using", "disable", disable) or ()),
            "kernel": checks.name("using", "kernel", kernel),
            "threads": None if threads is None else int(threads),
            "validate": validate,
            "gradient_in_forward": None
            if gradient_in_forward is None
            else checks.flag("using", "gradient_in_forward", gradient_in_forward),
        }
        self.trace = trace
        self.tokens: list[contextvars.Token[State | None]] = []

    def _recreate_cm(self) -> using:  # a decorated function may run in many threads at once: each call its own context
        return using(**self.changes, trace=self.trace)

    def __enter__(self) -> list[Decision]:
        outer = current()
        settings = replace(outer.settings, **{name: value for name, value in self.changes.items() if value is not None})
        decisions: list[Decision] = []
        state = State(settings, plans_under(settings), decisions if self.trace else outer.sink)
        scopes.entered = True
        self.tokens.append(scope.set(state))
        return decisions

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        scope.reset(self.tokens.pop())
