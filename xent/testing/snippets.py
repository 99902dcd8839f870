"""A call as code that a reader can run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..contract.specs import KernelSpec
from .calls import Call, labels_form
from .memory import ArrayLibrary

WRITTEN_OUT = 60
"""The most logits that are written out; of a larger case the name is given."""


def snippet(spec: KernelSpec, library: ArrayLibrary, *calls: Call) -> str:
    """Code that makes the calls and prints what comes back."""
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
    rows, target = call.case, "labels" if op == "sparse" else "targets"
    yield from arrays_of(call, target)
    if call.cuts:
        yield from code_of_spans(call, target)
        return
    for name in ("logits", "targets") if op == "dense" else ("logits",):
        block = f"to_block({name}, {call.outer})" if call.outer else name
        form = "plain" if name == "targets" and (call.apart or call.form == "one row repeated") else call.form
        yield f'{name} = lay({block}, "{form}", library).array'
    if op == "sparse":
        yield f'labels = lay(labels, "{labels_form(call.form)}", library).array'
    arguments = ["logits", target] + ([repr(rows.on), repr(rows.off)] if op == "sparse" else [])
    threads = f"threads={call.threads}"
    if call.method == "gradient":
        yield f"partial = kernel.partial({', '.join(arguments)}, {threads})"
        arguments.append("partial")
    if call.method in ("gradient", "loss_and_gradient"):
        arguments.append(f"library.asarray({literal(call.scales)})")
    if call.method == "statistics":
        arguments = ["logits", "labels", "library.asarray(label_logit)"]
    if call.fill:
        block = f"to_block(memory, {call.outer})" if call.outer and call.method != "loss" else "memory"
        yield f'out = lay({block}, "{call.fill}", library).array'
        threads += ", out=out"
    yield f"print(kernel.{call.method}({', '.join(arguments)}, {threads}))"


def code_of_spans(call: Call, target: str) -> Iterator[str]:
    """The lines of a call that asks about spans of the classes, one after the other."""
    rows, spans = call.case, f"for a, b in {call.spans}"
    block, soft = ("logits[:, a:b]", "targets[:, a:b]")
    if call.outer:
        block, soft = (f"to_block({one}, {call.outer})" for one in (block, soft))
    told = f"labels - a, {rows.on!r}, {rows.off!r}" if target == "labels" else soft
    yield f"parts = [kernel.partial({block}, {told}, threads=1) {spans}]"
    yield "partial = xent.merge(*parts)"
    yield "print(partial, xent.finish(partial))"
    if call.method == "gradient":
        asked = f"kernel.gradient({block}, {told}, partial, {literal(call.scales)}, threads=1)"
        yield f"print([{asked} {spans}])"
    if call.method == "statistics":
        yield f"print([kernel.statistics({block}, labels - a, label_logit, threads=1) {spans}])"


def arrays_of(call: Call, target: str) -> Iterator[str]:
    """The lines that make the arrays of a case."""
    rows = call.case
    source = rows.source or (rows.base.source if rows.base is not None else "")
    if rows.logits.size <= WRITTEN_OUT or not source:
        yield f"logits = {literal(rows.logits)}"
        yield f"{target} = {literal(getattr(rows, target))}"
    else:
        yield f"rows = {source}" + (f".rows({rows.cut[0]}, {rows.cut[1]})" if rows.cut else "")
        yield f"logits, {target} = rows.logits, rows.{target}"
    if call.method == "statistics":
        yield "label_logit = np.take_along_axis(logits, (labels % logits.shape[1])[:, None], axis=1)[:, 0]"
    if call.fill:
        alike = "logits" if call.method != "loss" else literal(call.scales)
        yield f"memory = np.full_like({alike}, nan)"


def literal(array: np.ndarray[Any, Any]) -> str:
    """An array as an expression that makes it, to the bit but for the payload of a NaN."""
    if array.size == 0:
        return f'np.zeros({array.shape}, "{array.dtype.name}")'
    with np.errstate(all="ignore"):  # a signalling NaN is one like any other
        values = array if array.dtype.kind == "i" else array.astype(np.float64)
    return f'np.array({values.tolist()!r}, "{array.dtype.name}")'
