"""What every demo has: predictions and labels, a description of them, and another way to their loss.

Leaves out the demos themselves.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import xent


class Demo(Protocol):
    """A prediction set and its loss by another way."""

    @property
    def predictions(self) -> Any:
        """Logits (rows, classes), or with a `head` hidden states (rows, features): a path, or a Dask array."""

    @property
    def labels(self) -> Any:
        """Labels (rows,): a path, or a Dask array."""

    @property
    def head(self) -> Mapping[str, Any]:
        """Where the classifier and the bias of hidden states are, by the names of the options; empty for logits."""

    @property
    def slices(self) -> Path | None:
        """The slice of each row; None if there are no slices."""

    @property
    def dtype(self) -> str:
        """The dtype of the predictions."""

    @property
    def classes(self) -> int:
        """The number of classes."""

    def description(self) -> str:
        """How the set was made, in lines for a reader."""

    def cross_check(self, mean_loss: float) -> tuple[bool, str]:
        """Whether `mean_loss`, in nats, is that of the other way within rounding, and a sentence that says so."""


def kernel(demo: Demo | None = None) -> str:
    """The kernel that computes the demo's chunks here, and its plugin; without a demo, those of the demo stdlib."""
    dtype, classes = ("float16", 256) if demo is None else (demo.dtype, demo.classes)
    predictions: Any = np.zeros((1, classes), dtype)
    if demo is not None and demo.head:
        predictions = xent.Linear(np.zeros((1, 1), dtype), predictions.T)
    with xent.using(trace=True) as decisions:
        xent.row_statistics(predictions, np.zeros(1, np.uint8))
    (chosen,) = (verdict for verdict in decisions[0].verdicts if verdict.chosen)
    return f"kernel {chosen.kernel} of {chosen.owner}"


def unused_paths(directory: str | os.PathLike[str], *names: str) -> list[Path]:
    """The paths of these names in the directory.

    Raises
    ------
    FileExistsError
        If one of them exists; nothing is overwritten.
    """
    target = Path(directory)
    paths = [target / name for name in names]
    for path in paths:
        if path.exists():
            raise FileExistsError(
                f"demo: `--keep` must be a directory without {path.name}, got {target}. Choose another one."
            )
    return paths


def agreement(mean_loss: float, expected: float, bound: float) -> tuple[bool, str]:
    """Whether two losses agree within the bound, and a clause that says so."""
    difference = abs(mean_loss - expected)
    agrees = difference <= bound
    return agrees, f"the difference {difference:.1e} is {'within' if agrees else 'OUTSIDE'} the {bound:.1e}"
