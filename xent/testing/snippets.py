"""A call as code that a reader can run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..contract.specs import KernelSpec
from .calls import OVER_THE_LOGITS, Call, labels_form, targets_form
from .memory import ArrayLibrary

WRITTEN_OUT = 60
"""The most logits that are written out; a larger case is made by its ``source``."""


def snippet(spec: KernelSpec, library: ArrayLibrary, *calls: Call) -> str:
    """Code that makes the calls and prints their results."""
    lines = ["import numpy as np", "from numpy import inf, nan"]
    if calls[0].case.logits.dtype.name == "bfloat16":
        lines.append("import ml_dtypes")
    lines += ["import xent"] if any(call.cuts for call in calls) else []
    lines += ["from xent.testing import array_library, case, lay, load, odd_neighbours, to_block", ""]
    lines.append(f'kernel, library = load("{spec.load}"), array_library("{library.name}")')
    for call in calls:
        lines += code_of(call, spec.op)
    return "\n".join(lines)


def code_of(call: Call, op: str) -> Iterator[str]:
    """The lines of one call."""
    case, target = call.case, "labels" if op == "sparse" else "targets"
    yield from code_of_arrays(call, target)
    if call.cuts:
        yield from code_of_spans(call, target)
        return
    for name in ("logits", "targets") if op == "dense" else ("logits",):
        block = f"to_block({name}, {call.outer})" if call.outer else name
        form = targets_form(call) if name == "targets" else call.form
        yield f'{name} = lay({block}, "{form}", library).array'
    if op == "sparse":
        yield f'labels = lay(labels, "{labels_form(call.form)}", library).array'
    arguments = ["logits", target] + ([repr(case.on), repr(case.off)] if op == "sparse" else [])
    threads = f"threads={call.threads}"
    if call.method == "gradient":
        yield f"partial = kernel.partial({', '.join(arguments)}, {threads})"
        arguments.append("partial")
    if call.method in ("gradient", "loss_and_gradient"):
        arguments.append(f"library.asarray({literal(call.scales)})")
    if call.method == "statistics":
        arguments = ["logits", "labels", "library.asarray(label_logit)"]
    if call.fill == OVER_THE_LOGITS:
        threads += ", out=logits"
    elif call.fill:
        block = f"to_block(memory, {call.outer})" if call.outer and call.method != "loss" else "memory"
        yield f'out = lay({block}, "{call.fill}", library).array'
        threads += ", out=out"
    yield f"print(kernel.{call.method}({', '.join(arguments)}, {threads}))"


def code_of_spans(call: Call, target: str) -> Iterator[str]:
    """The lines of a call that is made on spans of the classes, one after the other."""
    case, spans = call.case, f"for a, b in {call.spans}"
    block, soft = ("logits[:, a:b]", "targets[:, a:b]")
    if call.outer:
        block, soft = f"to_block({block}, {call.outer})", f"to_block({soft}, {call.outer})"
    targets = f"labels - a, {case.on!r}, {case.off!r}" if target == "labels" else soft
    yield f"parts = [kernel.partial({block}, {targets}, threads=1) {spans}]"
    yield "partial = xent.merge(*parts)"
    yield "print(partial, xent.finish(partial))"
    if call.method == "gradient":
        gradient = f"kernel.gradient({block}, {targets}, partial, {literal(call.scales)}, threads=1)"
        yield f"print([{gradient} {spans}])"
    if call.method == "statistics":
        yield f"print([kernel.statistics({block}, labels - a, label_logit, threads=1) {spans}])"


def code_of_arrays(call: Call, target: str) -> Iterator[str]:
    """The lines that make the arrays of a call."""
    case = call.case
    source = case.source or (case.base.source if case.base is not None else "")
    if case.logits.size <= WRITTEN_OUT or not source:
        yield f"logits = {literal(case.logits)}"
        yield f"{target} = {literal(getattr(case, target))}"
    else:
        yield f"rows = {source}" + (f".rows({case.cut[0]}, {case.cut[1]})" if case.cut else "")
        yield f"logits, {target} = rows.logits, rows.{target}"
    if call.method == "statistics":
        yield "label_logit = np.take_along_axis(logits, (labels % logits.shape[1])[:, None], axis=1)[:, 0]"
    if call.fill and call.fill != OVER_THE_LOGITS:
        like = "logits" if call.method != "loss" else literal(call.scales)
        yield f"memory = np.full_like({like}, nan)"


def literal(array: np.ndarray[Any, Any]) -> str:
    """An expression that makes the array, with the same bits except the payload of a NaN."""
    if array.size == 0:
        return f'np.zeros({array.shape}, "{array.dtype.name}")'
    with np.errstate(all="ignore"):  # the cast of a signalling NaN warns
        values = array if array.dtype.kind == "i" else array.astype(np.float64)
    return f'np.array({values.tolist()!r}, "{array.dtype.name}")'
