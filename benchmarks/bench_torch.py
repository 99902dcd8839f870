"""The mean loss on torch, and with its backward pass: compiled and eager, beside ``F.cross_entropy``.

The counting model, for N rows of C float32 logits: a loss reads 4 N C bytes, a backward pass reads them again and
writes as many; ``gradient_in_forward`` reads them once. A compiled call takes xent-numba's kernel where it is installed
and the call is not small, else what inductor makes of xent's expression, which is measured beside it ("generic").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import measure
import torch
from measure import Call, Report

import xent

SHAPES = ((512, 32000), (65536, 100), (65536, 1000), (2048, 32000), (1_000_000, 10), (8, 100))
QUICK_SHAPES = ((20, 30),)
PEER, OURS = "F.cross_entropy", "xent"


def mean(logits: torch.Tensor, labels: torch.Tensor) -> Any:
    """The loss that is measured."""
    return xent.sparse_cross_entropy(logits, labels, reduction="mean", kind="logits")


def losses(backend: str) -> dict[str, Callable[..., Any]]:
    """The compiled losses, and the eager ones."""

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(logits: torch.Tensor, labels: torch.Tensor) -> Any:
            return function(logits, labels)

        call.__code__ = call.__code__.replace()  # graphs are kept by code, and each contender has its own
        return torch.compile(call, fullgraph=True, backend=backend)

    return {
        f"{PEER}, compiled": compiled(torch.nn.functional.cross_entropy),
        f"{OURS}, compiled": compiled(mean),
        f"{OURS}, compiled, generic": compiled(mean),
        PEER: torch.nn.functional.cross_entropy,
        OURS: mean,
    }


def calls(shape: tuple[int, int], backend: str) -> dict[str, Call]:
    """The contenders: the loss alone, and with its backward pass."""
    torch.manual_seed(0)
    logits, labels = torch.randn(shape), torch.randint(0, shape[1], shape[:1])
    leaf = logits.clone().requires_grad_()

    def backward(function: Callable[..., Any]) -> None:
        leaf.grad = None
        function(leaf, labels).backward()

    def backward_of_held() -> None:
        with xent.using(gradient_in_forward=True):
            backward(mean)

    found: dict[str, Call] = {}
    for name, function in losses(backend).items():
        with xent.using(kernel="generic" if "generic" in name else None):  # a graph keeps the kernel it was made with
            function(logits, labels)
            function(leaf, labels)
        found[name] = lambda function=function: function(logits, labels)  # type: ignore[misc]
        found[f"{name}, backward"] = lambda function=function: backward(function)  # type: ignore[misc]
    return found | {f"{OURS}, gradient_in_forward, backward": backward_of_held}


def main(quick: bool = False) -> str:
    """The page of results."""
    report = Report("torch", "Losses on torch", ("torch", "numba"))
    report.add(measure.HOW)
    for shape in QUICK_SHAPES if quick else SHAPES:
        torch.compiler.reset()
        seconds = measure.interleave(calls(shape, "eager" if quick else "inductor"), 2 if quick else 15)
        lines = []
        for name, times in seconds.items():
            words = [part for part in name.split(", ") if part in ("compiled", "backward")]
            peer = seconds[", ".join([PEER, *words])]
            lines.append((name, measure.quartiles(times).show(1e-3), measure.ratio(peer, times).show()))
        columns = ("", "time, ms", "F.cross_entropy's / this one's")
        report.add(f"## {shape}", measure.table(columns, lines))
        report.add(**{f"{shape[0]}x{shape[1]}": seconds})
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main, one_core=False)
