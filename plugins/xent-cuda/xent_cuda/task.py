"""The argument of every kernel: one structure, passed by value."""

from __future__ import annotations

import numpy as np

ROWS = ("max", "rest", "gap", "mass", "loss", "label_logit", "rank", "squares", "spread")
POINTERS = ("logits", "gradient", "labels", "targets", "scale", *ROWS, "maxima", "accumulators")
STRIDES = ("logits_stride", "gradient_stride", "labels_stride", "targets_stride", "scale_stride")
SIZES = ("rows", "classes", "parts", "cached")

TASK = np.dtype(
    [(name, np.uint64) for name in POINTERS]
    + [(name, np.int64) for name in STRIDES + SIZES]
    + [("on", np.float64), ("off", np.float64)]
)
"""``Task`` of xent.cu: the same fields in the same order. A pointer that a call does not need is null."""

ACCUMULATOR_BYTES = 56
"""The largest ``Accumulator`` of xent.cu: three sums of two doubles, two counts."""
