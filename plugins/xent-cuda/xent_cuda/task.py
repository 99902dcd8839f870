"""What a kernel is told of a call: one structure, handed over by value."""

from __future__ import annotations

import numpy as np

ROWS = ("max", "rest", "gap", "mass", "loss", "label_logit", "rank", "squares", "spread")
POINTERS = ("logits", "slope", "labels", "targets", "scale", *ROWS, "tops", "tallies")
STRIDES = ("logits_stride", "slope_stride", "labels_stride", "targets_stride", "scale_stride")
SIZES = ("rows", "classes", "parts", "kept")

TASK = np.dtype(
    [(name, np.uint64) for name in POINTERS]
    + [(name, np.int64) for name in STRIDES + SIZES]
    + [("on", np.float64), ("off", np.float64)]
)
"""``Task`` of xent.cu: the same fields in the same order; a null pointer where something is not asked for."""

TALLY_BYTES = 56
"""The largest ``Tally`` of xent.cu: three sums of two doubles, two counts."""
