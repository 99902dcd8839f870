"""The schedule for JAX arrays: one expression (``generic/traced.py``), compiled alone or in the caller's trace.

Labels are read where they can be: on the host, outside a trace. Leaves out the derivatives (``autodiff.py``).

Imports JAX at its top; it is itself imported only for a call on JAX arrays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import checks
from ...arrays import Array
from ...contract.plan import Plan
from ...contract.problem import Problem, Weights
from ..generic import few_classes, traced
from ..generic.rows import rows_of, rows_of_ids, without_bad_ids
from ..generic.schedule import listed_targets
from . import fused
from .autodiff import PIECES
from .whole_rows import xp


def run(plan: Plan, predictions: Array, targets: Array | None, weights: Weights) -> Any:
    """The result of one call."""
    problem, inputs = plan.problem, (predictions, targets, *weights)
    if problem.op != "binary":
        checks.fixed_classes(problem.function, predictions, problem.axis)
    if problem.raises and not any(isinstance(value, jax.core.Tracer) for value in inputs):
        check_labels(problem, predictions.shape[problem.axis], targets, weights)
    if isinstance(weights.classes, list | tuple):
        weights = weights._replace(classes=jnp.asarray(weights.classes))
    return compiled(problem, fused.kernel_of(plan))(predictions, targets, weights)


@functools.lru_cache(maxsize=1024)
def compiled(problem: Problem, kernel: str | None) -> Callable[..., Any]:
    """The call as a function that XLA compiles once for every shape; the kernel is "package.module:name"."""
    pieces = PIECES if kernel is None else PIECES._replace(fused=fused.pieces_of(kernel))

    def run_whole(predictions: Array, targets: Array | None, weights: Weights) -> Any:
        # subtle: XLA would compute with constants as it compiles, in another order, and fuse what makes the arrays with
        # what reads them: other bits. One barrier for each, for one around all would give a constant a derivative
        arrays = jax.tree.map(jax.lax.optimization_barrier, (predictions, targets, weights))
        run = few_classes.run if problem.tail else traced.run
        return run(xp, pieces, problem, *arrays)

    jitted: Callable[..., Any] = jax.jit(run_whole)
    return jitted


def check_labels(problem: Problem, classes: int, targets: Array | None, weights: Weights) -> None:
    """Raises LabelError if a label is bad, or the id of a listed class, before anything is computed."""
    if targets is None or problem.method in ("partial", "gradient") or not (problem.op == "sparse" or problem.tail):
        return
    sample = None if weights.sample is None else np.asarray(weights.sample)
    host = np.asarray(weights.ids if problem.tail else targets)
    if host.size == 0 or (host.min() >= 0 and host.max() < classes):
        return
    if problem.tail:
        few = listed_targets(np, problem, np.asarray(targets), host, np.float32)
        without_bad_ids(np, problem, rows_of_ids(np, problem, few, classes, sample, None), few, classes, host)
        return
    wide = traced.targets_of(np, problem, host, None)
    rows = rows_of(np, problem, wide, classes, bool, sample, None)
    assert rows.bad is not None  # there are labels
    checks.labels(problem.function, rows.bad.reshape(host.shape), host, classes)
