"""What a plugin declares: its kernels, and its schedules for array libraries of its own.

Leaves out the check of each field (``dispatch/declarations.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from .problem import Problem

API_VERSION = 1
"""The version of this contract; xent serves plugins of the current and the previous one."""


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
        Which of partial, loss, loss_and_partial, gradient, loss_and_gradient, statistics, probability_sums, whole_call
        the object has; for JAX
        "ffi_target", and any of partial and statistics that it has targets for besides loss and loss_and_gradient.
    priority : int
        Larger goes first; xent's own are negative.
    opt_in : bool
        Only taken when preferred or forced.
    deterministic : bool
        The same bits run after run.
    block_elements : int or None
        The most elements of a block; None if the kernel takes the whole array at once and tiles by itself.
    contiguous : bool
        The classes of a row must lie side by side in memory; a call on others goes to the next kernel.
    in_place : bool
        The ``out`` of its gradients may be the logits themselves, element for element; it is never else in their
        memory. Where this is not declared, xent has the gradient made block by block and copies it over them.
    check : callable(problem) -> True or str
        Further conditions on the frozen facts; a string is the reason to decline.
    guard : callable(shape, strides) -> bool
        A cheap test of each call; False passes it to the next kernel. A function of a module, so that plans pickle.
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
    in_place: bool = False

    def guard_of(self, dtype: str, ndim: int, axis: int) -> Callable[[tuple[int, ...], tuple[int, ...]], bool] | None:
        """The guard for that dtype, rank and class axis, ``contiguous`` included; None if every call is accepted."""
        # an array of more axes, whose class axis is not the last, is copied block by block with the classes last
        if not self.contiguous or (ndim > 2 and axis < ndim - 1):
            return self.guard
        return SideBySide(axis, ITEM_BYTES.get(dtype, 0), self.guard)


@dataclass(frozen=True, slots=True)
class SideBySide:
    """A guard that accepts rows whose classes lie side by side, if another guard, given or None, accepts them too."""

    axis: int
    item_bytes: int
    also: Callable[[tuple[int, ...], tuple[int, ...]], bool] | None = None

    def __call__(self, shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
        if strides and min(shape) > 0 and shape[self.axis] > 1 and strides[self.axis] != self.item_bytes:
            return False
        return self.also is None or self.also(shape, strides)


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A guard that accepts at least so many predictions, if another guard, given or None, accepts them too."""

    elements: int
    also: Callable[[tuple[int, ...], tuple[int, ...]], bool] | None = None

    def __call__(self, shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
        return math.prod(shape) >= self.elements and (self.also is None or self.also(shape, strides))


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
        Needed for arrays that xent cannot inspect itself, as it can those of Dask and torch.
    takes_out : bool
        ``run`` takes a fifth argument, ``out``: an array for the gradient, which may be the predictions themselves.
        A call with ``out`` is refused where this is not declared.
    """

    name: str
    load: str
    api: int = API_VERSION
    arrays: frozenset[str] = frozenset()
    inner: Literal["", "chunks", "view"] = ""
    views: tuple[str, ...] = ()
    owner: str = field(default="", compare=False)
    takes_out: bool = False
