"""The loss of a product, whose logits are never whole, over the bare product of the same operands.

The counting model, for N rows, D features and C classes: a loss takes N D C multiplications and additions, its gradient
in one operand as many again. ``numpy.matmul`` into memory that is there takes them and makes the logits, from which
nothing is computed yet. Peers make the logits; torch's own function takes them in chunks of rows if it is told so.

Times on one core are those of the processor. Hidden states are normal, and logits have the standard deviation 2.
"""

from __future__ import annotations

import functools
import sys
import time
import tracemalloc
from typing import Any, NamedTuple

import measure
import numpy as np
from measure import Call, Report

import xent

BARE = "numpy.matmul"
LOSS, BOTH, FROZEN, STATISTICS = "loss", "loss and all gradients", "loss and gradient of hidden", "row_statistics"
CAP, NARROW = "loss, softcap 30", "loss, bfloat16"
SHAPES = [(2048, 512, 32768), (1024, 512, 131072), (1024, 2048, 65536), (8192, 64, 8192)]
PEER_SHAPES = [(4096, 512, 131072), (1024, 2048, 65536)]
QUICK_SHAPES, QUICK_PEER_SHAPES = [(40, 8, 50)], [(33, 8, 70)]
ASKED = {LOSS: 1.05, BOTH: 3.05, FROZEN: 2.05, STATISTICS: 1.10, CAP: 1.08, NARROW: 1.08}
ASKED_FEW_FEATURES = {LOSS: 1.10}
PEERS_ASKED = {LOSS: 1.3, BOTH: 1.15}
LOSS_MEBIBYTES, GRADIENT_SHARE = 6, 0.6
Shape = tuple[int, int, int]


class Data(NamedTuple):
    """The operands of a shape."""

    hidden: np.ndarray  # (rows, features)
    classifier: np.ndarray  # (classes, features)
    labels: np.ndarray  # (rows,)


def make_data(shape: Shape) -> Data:
    rows, features, classes = shape
    rng = np.random.default_rng(rows)
    hidden, classifier = (rng.standard_normal((size, features), dtype=np.float32) for size in (rows, classes))
    classifier *= 2 / features**0.5
    return Data(hidden, classifier, rng.integers(0, classes, rows))


# -------------------- over the bare product


def own_calls(data: Data) -> dict[str, Call]:
    """The bare product, and xent's functions of the same operands."""
    hidden, classifier, labels = data
    logits = np.empty((len(hidden), len(classifier)), np.float32)
    both = xent.value_and_grad(xent.linear_cross_entropy)
    frozen = xent.value_and_grad(xent.linear_cross_entropy, of="hidden")
    calls: dict[str, Call] = {
        BARE: lambda: np.matmul(hidden, classifier.T, out=logits),
        LOSS: lambda: xent.linear_cross_entropy(hidden, classifier, labels),
        BOTH: lambda: both(hidden, classifier, labels),
        FROZEN: lambda: frozen(hidden, classifier, labels),
        STATISTICS: lambda: xent.row_statistics(xent.Linear(hidden, classifier), labels),
        CAP: lambda: xent.linear_cross_entropy(hidden, classifier, labels, softcap=30),
    }
    if measure.is_installed("ml_dtypes"):
        import ml_dtypes

        narrow = [one.astype(ml_dtypes.bfloat16) for one in (hidden, classifier)]
        calls[NARROW] = lambda: xent.linear_cross_entropy(*narrow, labels)
    return calls


def mebibytes(call: Call) -> float:
    """The most memory of NumPy's arrays during a call, what it returns included."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def over_the_product(report: Report, shape: Shape, quick: bool) -> None:
    """Adds the times of one shape, and the memory."""
    calls = own_calls(make_data(shape))
    seconds = measure.interleave(calls, 3 if quick else 7, clock=time.process_time)
    asked = ASKED if shape[1] >= 512 else ASKED_FEW_FEATURES
    lines = []
    for name, values in seconds.items():
        ratio, limit = measure.ratio(values, seconds[BARE]), asked.get(name)
        told = "" if limit is None else f"≤ {limit}" if ratio.median <= limit else f"**≤ {limit}**"
        lines.append((name, f"{measure.quartiles(values).show(1e-3)} ms", ratio.show(), told))
    report.add(f"## rows, features, classes: {shape}", measure.table(("", "time", "over the product", "asked"), lines))
    rows, features, classes = shape
    results, of_classifier = (rows + classes) * features * 4 / 2**20, classes * features * 4 / 2**20
    extra = mebibytes(calls[BOTH]) - results
    memory = [
        (LOSS, f"{mebibytes(calls[LOSS]):.1f} MiB", f"≤ {LOSS_MEBIBYTES} MiB"),
        (BOTH, f"{extra:.1f} MiB, {extra / of_classifier:.2f} of the classifier's gradient", f"≤ {GRADIENT_SHARE}"),
    ]
    report.add(measure.table(("extra memory", "measured", "asked"), memory), **{str(shape): seconds})


# -------------------- both cores


def both_cores(report: Report, quick: bool) -> None:
    """Adds the times on every core that the process may have, by the clock, over the bare product on as many."""
    lines, asked = [], {LOSS: 1.05}
    for shape in QUICK_SHAPES if quick else SHAPES:
        print("both cores", shape, file=sys.stderr)
        seconds = measure.run_child(__file__, *shape, 3 if quick else 5, every_core=True)
        for name in () if seconds is None else (LOSS, BOTH, FROZEN, STATISTICS):
            ratio, limit = measure.ratio(seconds[name], seconds[BARE]), asked.get(name)
            limit = 1.1 if limit and shape[1] < 512 else limit
            told = "" if limit is None else f"≤ {limit}" if ratio.median <= limit else f"**≤ {limit}**"
            lines.append((shape, name, f"{measure.quartiles(seconds[name]).show(1e-3)} ms", ratio.show(), told))
        report.add(**{f"both cores: {shape}": seconds})
    report.add("## Both cores, by the clock", measure.table(("shape", "", "time", "over the product", "asked"), lines))


def child(rows: str, features: str, classes: str, rounds: str) -> dict[str, list[float]]:
    """The times by the clock, with as many threads as there are cores."""
    calls = own_calls(make_data((int(rows), int(features), int(classes))))
    wanted = {name: calls[name] for name in (BARE, LOSS, BOTH, FROZEN, STATISTICS)}
    return measure.interleave(wanted, int(rounds))


# -------------------- beside the peers


def with_torch(data: Data, name: str, compiled: bool = False, options: dict[str, Any] | None = None) -> Call:
    """torch's function of the product, by default as it is; or its loss of the logits, eager or compiled."""
    import torch

    hidden, classifier, labels = (torch.from_numpy(one) for one in data)
    functional = torch.nn.functional
    if options is None:
        function: Any = lambda h, w: functional.cross_entropy(h @ w.T, labels)  # noqa: E731
        function = torch.compile(function) if compiled else function
    else:
        told = {"options": torch.nn.LinearCrossEntropyOptions(**options)} if options else {}
        function = lambda h, w: functional.linear_cross_entropy(h, w, labels, **told)  # noqa: E731
    if name == LOSS:

        def loss() -> Any:
            with torch.no_grad():
                return function(hidden, classifier)

        return loss
    leaves = [one.clone().requires_grad_() for one in (hidden, classifier)]
    return lambda: torch.autograd.grad(function(*leaves), leaves)


def with_jax(data: Data, name: str) -> Call:
    import jax

    hidden, classifier, labels = map(jax.numpy.asarray, data)

    def loss(hidden: Any, classifier: Any) -> Any:
        logits = hidden @ classifier.T
        at_label = jax.numpy.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
        return (jax.nn.logsumexp(logits, axis=-1) - at_label).mean()

    function = jax.jit(loss if name == LOSS else jax.grad(loss, (0, 1)))
    return lambda: jax.block_until_ready(function(hidden, classifier))


def with_xent(data: Data, name: str) -> Call:
    if name == LOSS:
        return lambda: xent.linear_cross_entropy(*data, reduction="mean")
    both = xent.value_and_grad(xent.linear_cross_entropy)
    return lambda: both(*data, reduction="mean")


PEERS = {
    "torch eager": ("torch", with_torch),
    "torch.compile": ("torch", functools.partial(with_torch, compiled=True)),
    "torch linear_cross_entropy": ("torch", functools.partial(with_torch, options={})),
    "torch linear_cross_entropy, 256 rows": (
        "torch",
        functools.partial(with_torch, options={"batch_chunk_size": 256}),
    ),
    "JAX jit": ("jax", with_jax),
}


def beside_peers(report: Report, shape: Shape, name: str) -> None:
    """Adds the times of the peers of one shape, and what the best of them takes for xent's."""
    data = make_data(shape)
    calls = {"xent": with_xent(data, name)}
    calls |= {peer: setup(data, name) for peer, (module, setup) in PEERS.items() if measure.is_installed(module)}
    seconds = measure.interleave(calls, 3, clock=time.process_time)  # rounds of minutes
    ratios = {peer: measure.ratio(values, seconds["xent"]) for peer, values in seconds.items()}
    best = min((ratio.median for peer, ratio in ratios.items() if peer != "xent"), default=float("nan"))
    lines = [(peer, f"{measure.quartiles(seconds[peer]).show(1e-3)} ms", ratios[peer].show()) for peer in seconds]
    report.add(f"## {name}: {shape}", measure.table(("", "time", "over xent's"), lines))
    report.add(f"The best peer takes {best:.2f} of xent's time; asked ≥ {PEERS_ASKED[name]}.")
    report.add(**{f"{name}: {shape}": seconds})


# -------------------- digits


def digits(report: Report, quick: bool) -> None:
    """Adds the errors of losses and gradients at rows of three confidences, against float64."""
    rows, features, classes = (6, 32, 50) if quick else (48, 512, 131072)
    lines = []
    for title, gain in (("unsure", 0.0), ("usual", 0.5), ("confident", 2.0)):
        data = make_data((rows, features, classes))
        # the label's logit is so much larger than the others
        hidden = data.hidden * 0.5 + gain * data.classifier[data.labels] * features**0.5 / 2
        data = data._replace(hidden=hidden.astype(np.float32))
        wide = [one.astype(np.float64) for one in data[:2]]
        expected, gradient = xent.value_and_grad(xent.linear_cross_entropy)(*wide, data.labels)
        loss, found = xent.value_and_grad(xent.linear_cross_entropy)(*data)
        errors = [(f"{title}, xent", loss, found.hidden, found.classifier)]
        if measure.is_installed("torch"):
            errors.append((f"{title}, torch eager", *torch_answers(data)))
        for name, *values in errors:
            of_loss = np.max(np.abs(values[0] / expected - 1))
            shares = [
                np.max(np.abs(one - other)) / np.max(np.abs(other))
                for one, other in zip(values[1:], (gradient.hidden, gradient.classifier), strict=True)
            ]
            lines.append((name, f"{np.median(expected):.2g}", *(f"{error:.1e}" for error in (of_loss, *shares))))
    columns = "rows", "median loss", "relative error of a loss", "gradient of hidden, of the largest", "of classifier"
    report.add(f"## Digits, against float64: {(rows, features, classes)}", measure.table(columns, lines))


def torch_answers(data: Data) -> tuple[np.ndarray, ...]:
    import torch

    hidden, classifier = (torch.from_numpy(one).requires_grad_() for one in data[:2])
    loss = torch.nn.functional.cross_entropy(hidden @ classifier.T, torch.from_numpy(data.labels), reduction="none")
    gradients = torch.autograd.grad(loss.sum(), (hidden, classifier))
    return loss.detach().numpy(), *(one.numpy() for one in gradients)


def main(quick: bool = False) -> str:
    """The page of results."""
    report = Report("linear", "Losses of products", ("numba", "torch", "jax", "jaxlib"))
    report.add(measure.ONE_CORE, measure.HOW, "Processor time. What is asked is in bold where it is missed.")
    for shape in QUICK_SHAPES if quick else SHAPES:
        print(shape, file=sys.stderr)
        over_the_product(report, shape, quick)
    both_cores(report, quick)
    for shape in QUICK_PEER_SHAPES if quick else PEER_SHAPES:
        for name in (LOSS, BOTH):
            print(shape, name, file=sys.stderr)
            beside_peers(report, shape, name)
    digits(report, quick)
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main, child)
