"""What every demo makes: predictions and labels, the story of how, and another way to their loss.

Leaves out the demos themselves.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import xent


class Demo(Protocol):
    """A prediction set that was just made."""

    @property
    def predictions(self) -> Any:
        """Logits (rows, classes): a path, or a Dask array."""

    @property
    def labels(self) -> Any:
        """Labels (rows,): the same."""

    @property
    def slices(self) -> Path | None:
        """The slice of each row, where there are slices."""

    @property
    def dtype(self) -> str:
        """The dtype of the predictions."""

    @property
    def classes(self) -> int:
        """How many there are."""

    def description(self) -> str:
        """What was done, for a reader."""

    def cross_check(self, mean_loss: float) -> tuple[bool, str]:
        """Whether `mean_loss`, in nats, is what another way gives but for rounding, and a sentence on it."""


def kernel(demo: Demo | None = None) -> str:
    """The kernel that takes the demo's chunks here, and the plugin it comes from; without a demo, that of stdlib."""
    dtype, classes = ("float16", 256) if demo is None else (demo.dtype, demo.classes)
    with xent.using(trace=True) as decisions:
        xent.row_statistics(np.zeros((1, classes), dtype), np.zeros(1, np.uint8))
    (chosen,) = (one for one in decisions[0].verdicts if one.chosen)
    return f"kernel {chosen.kernel} of {chosen.owner}"


def unused(directory: str | os.PathLike[str], *names: str) -> list[Path]:
    """The paths of these names in the directory.

    Raises
    ------
    FileExistsError
        If one is there already; nothing is overwritten.
    """
    target = Path(directory)
    paths = [target / name for name in names]
    for path in paths:
        if path.exists():
            raise FileExistsError(
                f"demo: `--keep` must be a directory without {path.name}, got {target}. Choose another one."
            )
    return paths


def compared(mean_loss: float, expected: float, bound: float) -> tuple[bool, str]:
    """Whether two losses agree within the bound, and the words for it."""
    difference = abs(mean_loss - expected)
    agrees = difference <= bound
    return agrees, f"the difference {difference:.1e} is {'within' if agrees else 'OUTSIDE'} the {bound:.1e}"
