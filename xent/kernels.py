"""What a plugin imports: the declaration of a kernel, of a backend, and the plan that selection hands down.

Leaves out how a kernel is chosen (``selection.py``) and how its numbers are put to use (``backends/``).
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from . import checks, errors
from .hookspecs import API_VERSION
from .numerics.fold import Partial
from .numerics.statistics import Statistics
from .problem import Options, Problem, Weights

__all__ = ["API_VERSION", "BackendSpec", "Decision", "KernelSpec", "Options", "Partial", "Plan", "Problem"]
__all__ += ["Statistics", "Verdict", "Weights"]

ANY = frozenset({"*"})
ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSpec:
    """A kernel as it is declared: what it can do, and where its code is.

    Parameters
    ----------
    name : str
        Unique among the kernels of its op.
    op : "sparse" or "dense"
    load : str
        "package.module:name" of the object that has the methods; imported when it is first chosen.
    api : int
        The version of the contract it was written for.
    arrays : frozenset of str
        Root modules of the array types it takes ("numpy", "cupy", ...); "*" is any.
    devices, dtypes : frozenset of str
        Kinds of device ("cpu", "cuda"), dtypes of the logits; "*" is any.
    layouts : frozenset of "last" and "middle"
        "middle" also takes blocks (outer, classes, inner).
    methods : frozenset of str
        Which of partial, loss, gradient, loss_and_gradient, statistics the object has.
    priority : int
        Larger goes first; xent's own are negative.
    opt_in : bool
        Only taken when preferred or forced.
    deterministic : bool
        The same bits run after run.
    block_elements : int or None
        The most elements per block it wants to be handed; None for everything at once.
    contiguous : bool
        The classes of a row must lie side by side in memory; a call on others goes to the next kernel.
    check : callable(problem) -> True or str
        Further conditions on the frozen facts; a string is the reason to decline.
    guard : callable(shape, strides) -> bool
        A cheap look at each call; False passes it to the next kernel. A function of a module, so that plans pickle.
    """

    name: str
    op: Literal["sparse", "dense"]
    load: str
    api: int = API_VERSION
    arrays: frozenset[str] = frozenset({"numpy"})
    devices: frozenset[str] = frozenset({"cpu"})
    dtypes: frozenset[str] = frozenset({"float32", "float64"})
    layouts: frozenset[str] = frozenset({"last"})
    methods: frozenset[str] = frozenset({"partial"})
    priority: int = 0
    opt_in: bool = False
    deterministic: bool = True
    block_elements: int | None = None
    check: Callable[[Problem], bool | str] | None = None
    guard: Callable[[tuple[int, ...], tuple[int, ...]], bool] | None = None
    owner: str = field(default="", compare=False)  # the plugin that brought it; filled in by the registry
    contiguous: bool = False

    def guard_of(self, dtype: str, ndim: int, axis: int) -> Callable[[tuple[int, ...], tuple[int, ...]], bool] | None:
        """What looks at each call on predictions of that dtype, rank and class axis: the guard, and ``contiguous``."""
        # in an array of more axes a class axis that is not the last is brought there by a copy, block by block
        if not self.contiguous or (ndim > 2 and axis < ndim - 1):
            return self.guard
        return SideBySide(axis, ITEM_BYTES.get(dtype, 0), self.guard)


@dataclass(frozen=True, slots=True)
class SideBySide:
    """A guard: the classes of a row lie side by side, and another guard, where there is one, says yes too."""

    axis: int
    item_bytes: int
    also: Callable[[tuple[int, ...], tuple[int, ...]], bool] | None = None

    def __call__(self, shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
        if strides and min(shape) > 0 and shape[self.axis] > 1 and strides[self.axis] != self.item_bytes:
            return False
        return self.also is None or self.also(shape, strides)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """A schedule as it is declared: how the arrays of some libraries are brought to a kernel.

    Parameters
    ----------
    name : str
    load : str
        "package.module:name" of ``run(plan, predictions, targets, weights)``.
    arrays : frozenset of str
        Root modules of the array types it schedules.
    inner : "chunks", "view" or ""
        Whether it needs a plan for its chunks, for the same memory seen by another library, or none: ``plan.inner``,
        which is called as ``run`` is, without its first argument.
    views : tuple of str
        The libraries of its chunks, or those that see the same memory, by their root modules; the first is taken.
        Needed where xent cannot look into the arrays itself, as it can into those of Dask and torch.
    """

    name: str
    load: str
    api: int = API_VERSION
    arrays: frozenset[str] = frozenset()
    inner: Literal["", "chunks", "view"] = ""
    views: tuple[str, ...] = ()
    owner: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One candidate's line in a decision: chosen, or why not, and the wall time that asking it took."""

    kernel: str
    owner: str
    chosen: bool
    reasons: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Decision:
    """Which kernel serves a problem, and the reason against every other one.

    Attributes
    ----------
    problem : Problem
    backend : str
        The schedule.
    kernel : str
        The winner.
    verdicts : tuple of Verdict
        Every candidate, in the order in which they were considered.
    inner : Decision or None
        The decision for the chunks, or for the other view of the memory; the kernel that computes is its.
    """

    problem: Problem
    backend: str
    kernel: str
    verdicts: tuple[Verdict, ...]
    inner: Decision | None = None

    def to_dict(self) -> dict[str, Any]:
        """The decision as plain data, for JSON."""
        rows = [asdict(one) | {"reasons": list(one.reasons)} for one in self.verdicts]
        inner = self.inner.to_dict() if self.inner else None
        return {
            "problem": str(self.problem),
            "backend": self.backend,
            "kernel": self.kernel,
            "verdicts": rows,
            "inner": inner,
        }

    def __str__(self) -> str:
        lines = [f"{self.problem} -> {self.kernel} (schedule: {self.backend})"]
        width = max((len(one.kernel) for one in self.verdicts), default=0)
        for one in self.verdicts:
            reason = "; ".join(one.reasons) or ("chosen" if one.chosen else "eligible, comes later")
            name = f"{'*' if one.chosen else ' '} {one.kernel:<{width}}"
            lines.append(f"  {name}  {reason}  ({one.owner})  {one.seconds * 1e6:.1f} µs")
        if self.inner is not None:
            lines += ["  " + line for line in str(self.inner).splitlines()]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Plan:
    """How one kind of call is carried out: composed by selection, followed by a backend; it pickles small."""

    problem: Problem
    run: Callable[..., Any]
    """The backend's ``run(plan, predictions, targets, weights)``, a function of a module."""
    kernel: str
    load: str
    block_elements: int | None = None
    methods: frozenset[str] = frozenset()
    layouts: frozenset[str] = frozenset({"last"})
    guard: Callable[[tuple[int, ...], tuple[int, ...]], bool] | None = None
    otherwise: Plan | None = None
    """Followed where the guard says no."""
    inner: Plan | None = None
    forced: bool = False
    owner: str = ""
    decision: Decision | None = field(default=None, compare=False, repr=False)

    def __call__(self, predictions: Any, targets: Any, weights: Weights) -> Any:
        plan = self if self.guard is None else self.for_call(predictions)
        return plan.run(plan, predictions, targets, weights)

    def for_call(
        self,
        predictions: Any,
        strides: tuple[int, ...] | None = None,
        set_aside: Callable[[str, Exception], Any] | None = None,
    ) -> Plan:
        """This plan, or the first after it whose guard lets the call pass; a guard that breaks does not.

        ``strides`` are in bytes, and the array's own where they are not given; ``set_aside(owner, error)`` is told of
        a guard that breaks. Raises ValueError where the guard of a forced kernel says no.
        """
        plan, shape = self, tuple(predictions.shape)
        strides = tuple(getattr(predictions, "strides", None) or ()) if strides is None else strides
        while plan.guard is not None:
            try:
                if plan.guard(shape, strides):
                    break
            except Exception as error:  # a plugin's guard may raise anything
                if set_aside is not None:
                    set_aside(plan.owner, error)
            plan = checks.another(plan, predictions)
        return plan

    def resolve_kernel(self) -> Any:
        """The object with the kernel's methods; the generic one, with a warning, where a worker lacks it."""
        try:
            return resolve(self.load)
        except (Exception, SystemExit) as error:  # a library that is missing is an OSError, a wrong name another
            if self.forced:
                raise
            what = f"{type(error).__name__}: {error}"
            warn_once(
                f"kernel {self.kernel!r} of {self.owner} cannot be imported here ({what}); generic takes its place."
            )
            return resolve(f"xent.backends.generic:{self.problem.op}")


@functools.lru_cache(maxsize=256)
def resolve(load: str) -> Any:
    """The object that "package.module:name" names."""
    module, _, name = load.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


@functools.lru_cache(maxsize=1024)
def warn_once(message: str) -> None:
    """A PluginWarning, the first time its text comes up in this process."""
    warnings.warn(f"xent: {message}", errors.PluginWarning, stacklevel=2)
