"""Small calls: the whole call in one step beside the generic schedule, and beside torch and optax.

The counting model: the generic schedule makes a record of the call, masks of bad labels, and a tile, some twenty NumPy
operations at any size, and twenty more for weights and a mean; a whole call makes none of them in Python. So it saves a
constant number of microseconds, which is negligible once the exponentials take longer.

The plan of a call is made once. Then ``numpy.schedule.run`` and ``generic.schedule.run`` execute it in turns, on the
same arrays, and their results must be the same bits. Beside the peers the whole public call is measured. Times are of
the processor, of all threads of the process.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import measure
import numpy as np
from measure import Report

import xent
from xent.backends.generic import schedule as generic
from xent.contract.problem import Weights, weights_of
from xent.dispatch import settings

SHAPES = ((8, 100), (8, 10), (128, 100), (1024, 1000))
PEER_SHAPE = 8, 100
LOSS, GRADIENT = xent.sparse_cross_entropy, xent.value_and_grad(xent.sparse_cross_entropy)
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "loss": (LOSS, {}),
    "mean": (LOSS, {"reduction": "mean"}),
    "smoothed": (LOSS, {"label_smoothing": 0.1}),
    "mean, a label ignored": (LOSS, {"reduction": "mean", "ignore_index": 0}),
    "weighted": (LOSS, {"sample_weight": None}),
    "weighted mean": (LOSS, {"reduction": "mean", "sample_weight": None}),
    "loss and gradient": (GRADIENT, {}),
    "mean and gradient": (GRADIENT, {"reduction": "mean"}),
    "weighted mean and gradient": (GRADIENT, {"reduction": "mean", "sample_weight": None}),
    "row_statistics": (xent.row_statistics, {}),
}
"""The calls by name; a weight of None stands for one of random numbers."""
PROMISED_MICROSECONDS = {"loss": 4.0, "mean": 4.5, "mean and gradient": 6.0}
PROMISED_RATIO = 1.5
"""A weighted loss over a plain one."""


def arguments(shape: tuple[int, int], name: str) -> tuple[Any, Any, dict[str, Any]]:
    """Logits, labels and keywords of a call."""
    rng = np.random.default_rng(8)
    logits, labels = rng.standard_normal(shape, dtype=np.float32), rng.integers(0, shape[1], shape[0])
    weights = rng.random(shape[0], dtype=np.float32)
    return logits, labels, {key: weights if value is None else value for key, value in CALLS[name][1].items()}


def kernels() -> list[str]:
    """The names of xent's own kernel for NumPy and, if it is installed, that of xent-numba."""
    specs = {kernel for plugin in xent.plugins() for kernel in plugin.kernels}
    return ["numpy", *(["numba"] if "numba (sparse)" in specs else [])]


def same_bits(a: Any, b: Any) -> bool:
    """Whether two results, or two tuples of results, have the same bits."""
    pairs = zip(a, b, strict=True) if isinstance(a, tuple) else ((a, b),)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def ways_of(kernel: str, name: str, shape: tuple[int, int]) -> dict[str, Callable[[], Any]]:
    """The two ways of a call, below dispatch."""
    function, (logits, labels, keywords) = CALLS[name][0], arguments(shape, name)
    settings.forget_plans()
    with xent.using(kernel=kernel):
        function(logits, labels, **keywords)
        (plan,) = set(settings.current().plans.values())
    weights: Weights = weights_of(keywords.get("sample_weight"))
    ways = {"whole": plan.run, "generic": generic.run}
    return {way: functools.partial(run, plan, logits, labels, weights) for way, run in ways.items()}


def peers(name: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The same call by others, where they have it."""
    logits, labels, keywords = arguments(PEER_SHAPE, name)
    reduction, weight = keywords.get("reduction", "none"), keywords.get("sample_weight")
    has_gradient = CALLS[name][0] is GRADIENT
    if CALLS[name][0] is xent.row_statistics:
        return
    if measure.is_installed("torch"):
        torch = importlib.import_module("torch")
        x, y = torch.from_numpy(logits), torch.from_numpy(labels)
        options = {
            "label_smoothing": keywords.get("label_smoothing", 0.0),
            "ignore_index": keywords.get("ignore_index", -100),
        }

        def with_torch() -> Any:
            leaf = x.detach().requires_grad_() if has_gradient else x
            loss = torch.nn.functional.cross_entropy(
                leaf, y, reduction="none" if weight is not None else reduction, **options
            )
            if weight is not None:
                w = torch.from_numpy(weight)
                loss = loss * w if reduction == "none" else (loss * w).sum() / w.sum()
            if has_gradient:
                loss.sum().backward() if loss.ndim else loss.backward()
            return loss

        yield "F.cross_entropy", with_torch
        if not has_gradient:
            w = {} if weight is None else {"sample_weight": torch.from_numpy(weight)}
            yield "xent on torch", functools.partial(LOSS, x, y, **{**keywords, **w})
    if measure.is_installed("optax") and "ignore_index" not in keywords and "label_smoothing" not in keywords:
        jax, optax = importlib.import_module("jax"), importlib.import_module("optax")
        arrays = [jax.numpy.asarray(array) for array in (logits, labels, *([] if weight is None else [weight]))]

        def loss_of(x: Any, y: Any, w: Any = 1.0) -> Any:
            loss = optax.softmax_cross_entropy_with_integer_labels(x, y) * w
            return loss if reduction == "none" else loss.mean() if weight is None else loss.sum() / w.sum()

        if has_gradient:
            compiled = jax.jit(jax.value_and_grad(lambda *given: loss_of(*given).sum()))
        else:
            compiled = jax.jit(loss_of)
        yield "optax, jitted", lambda: jax.block_until_ready(compiled(*arrays))


def contenders(name: str) -> dict[str, Callable[[], Any]]:
    """The public call, by the kernel that xent chooses, and those of others."""
    logits, labels, keywords = arguments(PEER_SHAPE, name)
    return {"xent": functools.partial(CALLS[name][0], logits, labels, **keywords), **dict(peers(name))}


def main(quick: bool = False) -> str:
    """The page of results."""
    report = Report("plain_numba", "Small calls", ("numba", "torch", "jax", "optax"))
    report.add(measure.ONE_CORE, measure.HOW, "Times are of the processor, of all threads of the process.")
    sizes = {"rounds": 2, "sample_seconds": 0} if quick else {"rounds": 31, "sample_seconds": 0.01}
    interleave = functools.partial(measure.interleave, clock=time.process_time, **sizes)
    names = ("loss", "mean and gradient") if quick else tuple(CALLS)
    report.add(f"## Beside others, {PEER_SHAPE} float32", *beside_others(report, interleave, names))
    rows = []
    for shape in SHAPES:
        for kernel in kernels():
            for name in names:
                if name == "row_statistics":  # it has no whole call
                    continue
                ways = ways_of(kernel, name, shape)
                assert same_bits(ways["whole"](), ways["generic"]())
                seconds = interleave(ways)
                case = f"{shape} {kernel}, {name}"
                report.add(**{case: {"seconds": seconds}})
                times = (measure.quartiles(seconds[way]).show(1e-6) for way in ways)
                rows.append((case, *times, measure.ratio(seconds["generic"], seconds["whole"]).show()))
    columns = "µs", "whole call", "generic schedule", "generic / whole"
    report.add("## The whole call and the generic schedule, below dispatch", measure.table(columns, rows))
    return report.write(quick)


def beside_others(report: Report, interleave: Callable[..., measure.Rounds], names: tuple[str, ...]) -> Iterator[str]:
    """The tables of public calls: every contender's time, and what is promised."""
    whose = ("xent", "xent on torch", "F.cross_entropy", "optax, jitted")
    rows, promises, plain = [], [], None
    for name in names:
        seconds = interleave(contenders(name))
        report.add(**{f"beside others, {name}": {"seconds": seconds}})
        times = {who: measure.quartiles(values) for who, values in seconds.items()}
        rows.append((name, *(times[who].show(1e-6) if who in times else "" for who in whose)))
        plain = times["xent"] if plain is None else plain
        if name in PROMISED_MICROSECONDS:
            limit, found = PROMISED_MICROSECONDS[name], measure.Quartiles(*(value * 1e6 for value in times["xent"]))
            promises.append((f"{name}, µs", f"≤ {limit:g}", found, found.median <= limit))
        if name == "weighted":
            found = measure.Quartiles(*(value / plain.median for value in times["xent"]))
            promises.append((f"{name} / loss", f"≤ {PROMISED_RATIO}", found, found.median <= PROMISED_RATIO))
    yield measure.table(("µs", *whose), rows)
    if "numba" in kernels():
        yield measure.promise_table(promises)


if __name__ == "__main__":
    measure.command_line(main)
