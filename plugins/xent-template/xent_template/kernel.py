"""The kernel itself, imported at its first call."""

from __future__ import annotations

from typing import Any

import numpy as np

import xent


class Kernel:
    """The fold over labels in NumPy, a whole block at once in float64."""

    def partial(self, logits: Any, labels: Any, on: float, off: float, *, threads: int) -> xent.Partial:
        """The fold's four numbers of each row."""
        x, rows = logits.astype(np.float64), np.arange(len(labels))
        first = x.argmax(axis=1)  # (rows,), of a NaN if the row has one
        highest = x[rows, first]
        masked = highest == -np.inf
        gaps = np.where(masked, 0.0, highest)[:, None] - x  # (rows, classes), all ≥ 0
        gaps[rows, first] = np.where(masked, np.inf, 0.0)  # subtle: +inf − (+inf) would be NaN
        exps = np.exp(-gaps)
        exps[rows, first] = 0.0  # the maximum is counted out, so that a tiny loss keeps its digits
        rest = np.where(masked, -1.0, exps.sum(axis=1) + np.where(np.isnan(highest), np.nan, 0.0))
        inside = (labels >= 0) & (labels < x.shape[1])  # a label outside is not among these classes
        at_label = gaps[rows, np.where(inside, labels, 0)]
        gap = np.where(inside & (on != 0.0), (on or 1.0) * at_label, 0.0)  # subtle: 0 · inf is NaN
        mass = np.where(inside, on, 0.0)
        if off != 0.0:
            gap, mass = gap + off * gaps.sum(axis=1), mass + off * x.shape[1]
        wide = np.float64 if logits.dtype.itemsize == 8 else np.float32
        return xent.Partial(*(field.astype(wide) for field in (highest, rest, gap, mass)))

    def gradient(
        self,
        logits: Any,
        labels: Any,
        on: float,
        off: float,
        partial: xent.Partial,
        scale: Any,
        *,
        threads: int,
        out: Any = None,
    ) -> Any:
        """Softmax minus target, times each row's scale; exactly 0 where that is 0, whatever the row holds."""
        x = logits.astype(np.float64)
        highest, rest, _, mass = (field.astype(np.float64)[:, None] for field in partial)
        rest = np.where(highest == -np.inf, np.nan, rest)
        target = np.where(np.arange(x.shape[1]) == labels[:, None], on, 0.0) + off
        at_highest = ((mass - target) - target * rest) / (1 + rest)  # no two close numbers are subtracted
        elsewhere = mass * np.exp(np.where(x == highest, 0.0, x - highest)) / (1 + rest) - target
        slope = np.where(scale[:, None] == 0, 0.0, scale[:, None] * np.where(x == highest, at_highest, elsewhere))
        if out is None:
            return slope.astype(logits.dtype)
        out[...] = slope
        return out


kernel = Kernel()
