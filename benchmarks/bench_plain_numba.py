"""The short way of plain calls on NumPy arrays, compared with the generic schedule, for both CPU kernels.

A plain call has labels, two axes and no option but a reduction. The counting model: the generic schedule makes a record
of the call, masks of bad labels, and a tile, some twenty NumPy operations at any size; the short way makes none of
them. So it saves a constant number of microseconds, which is negligible once the exponentials take longer.

The plan of a call is made once. Then ``numpy.schedule.run`` and ``generic.schedule.run`` execute it in turns, on the
same arrays, and their results must be the same bits.
"""

from __future__ import annotations

import functools
from typing import Any

import measure
import numpy as np
from measure import Report

import xent
from xent.backends.generic import schedule as generic
from xent.contract.problem import NO_WEIGHTS
from xent.dispatch import settings

SHAPES = ((8, 100), (128, 100), (1024, 1000))
FUNCTIONS = {"loss": xent.sparse_cross_entropy, "loss and gradient": xent.value_and_grad(xent.sparse_cross_entropy)}


def kernels() -> list[str]:
    """The names of xent's own kernel for NumPy and, if it is installed, that of xent-numba."""
    specs = {kernel for plugin in xent.plugins() for kernel in plugin.kernels}
    return ["numpy", *(["numba"] if "numba (sparse)" in specs else [])]


def same_bits(a: Any, b: Any) -> bool:
    """Whether two results, or two tuples of results, have the same bits."""
    pairs = zip(a, b, strict=True) if isinstance(a, tuple) else ((a, b),)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def main(quick: bool = False) -> str:
    """The page of results."""
    report = Report("plain_numba", "The short way of plain calls", ("numba",))
    report.add(measure.ONE_CORE, measure.HOW)
    sizes = {"rounds": 2, "sample_seconds": 0} if quick else {"rounds": 51, "sample_seconds": 0.02}
    rows, rng = [], np.random.default_rng(8)
    for shape in SHAPES:
        logits, labels = rng.standard_normal(shape, dtype=np.float32), rng.integers(0, shape[1], shape[0])
        for kernel in kernels():
            for name, function in FUNCTIONS.items():
                if kernel == "numpy" and name != "loss":  # this kernel has no short way for it
                    continue
                settings.forget_plans()
                with xent.using(kernel=kernel):
                    function(logits, labels)
                    (plan,) = settings.current().plans.values()
                ways = {
                    "short": functools.partial(plan.run, plan, logits, labels, NO_WEIGHTS),
                    "generic": functools.partial(generic.run, plan, logits, labels, NO_WEIGHTS),
                }
                assert same_bits(ways["short"](), ways["generic"]())
                seconds = measure.interleave(ways, **sizes)
                case = f"{shape} {kernel}, {name}"
                report.add(**{case: {"seconds": seconds}})
                times = (measure.quartiles(seconds[way]).show(1e-6) for way in ways)
                rows.append((case, *times, measure.ratio(seconds["generic"], seconds["short"]).show()))
    report.add("## Times", measure.table(("µs", "short way", "generic schedule", "generic / short"), rows))
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main)
