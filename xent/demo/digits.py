r"""A small prediction set whose every step can be followed: handwritten digits, and a regression trained with xent.

The model is softmax regression, logits W x + b, fitted to scikit-learn's 1,797 images of 8 × 8 pixels by descent with
momentum along xent's own gradient of

.. math:: \frac1n \sum_i \ell_i + \frac{\lambda}{2 n} \lVert W \rVert^2

Row i belongs to fold i mod 5, and its logits are those of the model that was trained without that fold. The images
come from 13 writers [1]_ whom the folds share, so the accuracy is that of known hands. Nothing is downloaded and
nothing is drawn at random.

.. [1] Alpaydin & Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import xent
from xent.demo.protocol import agreement, unused_paths
from xent.optional import require

FOLDS = 5
L2, STEP, MOMENTUM, STEPS = 1.0, 0.5, 0.9, 200
QUARTERS = ("1st quarter, least ink", "2nd quarter", "3rd quarter", "4th quarter, most ink")
HALF_ULP = 2.0**-24  # what rounding to float32 moves a number by, relative to it

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DigitsDemo:
    """The paths of the set, and its loss as scikit-learn computes it.

    ``peer_loss`` is log_loss of the float64 probabilities, in nats; ``bound`` is the largest difference of it and the
    loss of the float32 logits.
    """

    predictions: Path
    labels: Path
    slices: Path
    rows: int
    peer_loss: float
    bound: float
    wall_seconds: float

    dtype: ClassVar[str] = "float32"
    classes: ClassVar[int] = 10
    head: ClassVar[dict[str, str]] = {}  # the predictions are logits

    def description(self) -> str:
        """How the set was made, in lines for a reader."""
        return (
            f"Trained softmax regressions on scikit-learn's {self.rows:,} handwritten digits, in {STEPS} steps along "
            "xent's gradient each,\n"
            f"and wrote the float32 logits of every digit by that of {FOLDS} models that had not seen it "
            f"in {self.wall_seconds:.1f} s:\n"
            f"{self.predictions}, {self.labels.name}, and its quarter by ink in {self.slices.name}\n"
        )

    def cross_check(self, mean_loss: float) -> tuple[bool, str]:
        """Whether `mean_loss`, in nats, is scikit-learn's within float32, and a sentence that says so."""
        agrees, clause = agreement(mean_loss, self.peer_loss, self.bound)
        verdict = (
            f"Cross-check: scikit-learn's log_loss of the float64 probabilities is {self.peer_loss:.9f} nats;\n"
            f"{clause} that float32 logits allow."
        )
        return agrees, verdict


def make(directory: str | os.PathLike[str]) -> DigitsDemo:
    """Train the models and write ``predictions.npy`` (rows, 10) float32, ``labels.npy`` (rows,) and ``slices.npy``.

    Parameters
    ----------
    directory : path
        Where they go; made if it is missing.

    Raises
    ------
    FileExistsError
        If one of them exists; nothing is overwritten.
    ModuleNotFoundError
        If scikit-learn is not installed.
    """
    predictions, labels, slices = unused_paths(directory, "predictions.npy", "labels.npy", "slices.npy")
    require("sklearn", "demo", "the demo of digits", caller="demo")
    threads = require("threadpoolctl", "demo", "the demo of digits", caller="demo")  # scikit-learn depends on it
    from sklearn.datasets import load_digits
    from sklearn.metrics import log_loss

    start = time.perf_counter()
    images, digits = load_digits(return_X_y=True)  # (rows, 64) of 0 to 16, (rows,)
    with threads.threadpool_limits(1):  # matrices so small are slower on several threads, and sums must not vary
        logits = held_out_logits(images / 16, digits)
    predictions.parent.mkdir(parents=True, exist_ok=True)
    np.save(predictions, logits.astype(np.float32))
    np.save(labels, digits.astype(np.uint8))
    np.save(slices, quarters(images.sum(axis=1)))
    loss = float(log_loss(digits, probabilities(logits), labels=range(10)))
    bound = float32_bound(logits, loss)
    return DigitsDemo(predictions, labels, slices, len(digits), loss, bound, time.perf_counter() - start)


def held_out_logits(x: Floats, y: NDArray[Any]) -> Floats:
    """The logits (rows, 10) of every row, by the model that was trained on the other folds."""
    logits = np.empty((len(x), 10))
    for fold in range(FOLDS):
        held_out = np.arange(len(x)) % FOLDS == fold
        weights, bias = train(x[~held_out], y[~held_out])
        logits[held_out] = x[held_out] @ weights.T + bias
    return logits


def train(x: Floats, y: NDArray[Any]) -> tuple[Floats, Floats]:
    """Weights (10, features) and bias (10,) after `STEPS` steps from zero, each over all rows."""
    loss_and_gradient = xent.value_and_grad(xent.sparse_cross_entropy)
    values = np.zeros((10, x.shape[1])), np.zeros(10)
    speeds = np.zeros_like(values[0]), np.zeros_like(values[1])
    for _ in range(STEPS):
        weights, bias = values
        _, slope = loss_and_gradient(x @ weights.T + bias, y, reduction="mean")  # slope (rows, 10)
        gradients = slope.T @ x + L2 / len(x) * weights, slope.sum(axis=0)
        for value, speed, gradient in zip(values, speeds, gradients, strict=True):
            speed *= MOMENTUM
            speed -= STEP * gradient
            value += speed
    return values


def quarters(ink: Floats) -> NDArray[np.str_]:
    """The quarter of each image by its ink, in words."""
    edges = np.quantile(ink, [0.25, 0.5, 0.75])
    return np.asarray(QUARTERS)[np.searchsorted(edges, ink)]


def probabilities(logits: Floats) -> Floats:
    """The softmax as the textbook writes it: these logits are far too small to overflow."""
    exponentials = np.exp(logits)
    softmax: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
    return softmax


def float32_bound(logits: Floats, loss: float) -> float:
    """The largest change of the mean loss when the logits are rounded to float32 and evaluated in it."""
    # With M the row's largest magnitude: rounding moves the label's logit and the log-sum-exp by HALF_ULP M each, and
    # xent promises the rest to 4 ulp of the loss and, for the subtractions, Σ |g_j| ≤ 2 ulp of M; an ulp is at most
    # 2 HALF_ULP of its number.
    largest = float(np.abs(logits).max(axis=1).mean())
    return HALF_ULP * ((2 + 2 * 2) * largest + 2 * 4 * loss)
