r"""A real prediction set from what every machine has: a model of bytes, trained on Python's own standard library.

The model predicts the next byte from the two before it. Three orders are interpolated as Witten and Bell [1]_ do, each
backing off to the next shorter one in proportion to the number u of different bytes that followed its context:

.. math:: p(b \mid c) = \frac{n(c, b) + u(c)\, p(b \mid c')}{n(c) + u(c)}

Nine files of ten train it, every tenth is held out. Its logits for the held-out bytes have the form of a language
model's: one row of 256 float16 numbers for each byte, 1.6 GB for a whole library.
Leaves out everything that would make it a good model: xz does better on the same files.

.. [1] Witten & Bell, "The zero-frequency problem: estimating the probabilities of novel events in adaptive text
   compression", IEEE Trans. Information Theory 37(4), 1991.
"""

from __future__ import annotations

import math
import os
import platform
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from xent.demo.protocol import agreement, unused_paths
from xent.optional import require

HELD_OUT = 10  # every tenth file
LEAST_BYTES = 200  # shorter files are nearly all __init__.py
BATCH_BYTES = 2**22
CHUNK_ROWS, SHARD_ROWS = 8192, 65536
HALF_ULP = 2.0**-11  # what rounding to float16 moves a number by, relative to it


@dataclass(frozen=True)
class StdlibDemo:
    """The paths of the set, and the model's own loss before its logits are rounded to float16.

    ``model_loss`` is the mean of −log p over the held-out bytes, in nats, from float64 probabilities; ``files`` counts
    those that trained the model and those that were held out.
    """

    dtype: ClassVar[str] = "float16"
    classes: ClassVar[int] = 256
    slices: ClassVar[Path | None] = None
    head: ClassVar[dict[str, str]] = {}  # the predictions are logits

    predictions: Path
    labels: Path
    rows: int
    files: tuple[int, int]
    train_bytes: int
    model_loss: float
    wall_seconds: float

    def description(self) -> str:
        """How the set was made, in lines for a reader."""
        trained, held_out = self.files
        return (
            f"Trained an order-3 model of bytes on {trained:,} files of the standard library of Python "
            f"{platform.python_version()} ({self.train_bytes / 1e6:.1f} MB)\n"
            f"and wrote its float16 logits for the {self.rows:,} bytes of {held_out:,} held-out files "
            f"in {self.wall_seconds:.1f} s: {self.predictions}, {self.labels.name}\n"
        )

    def cross_check(self, mean_loss: float) -> tuple[bool, str]:
        """Whether `mean_loss`, in nats, is the model's own within rounding to float16, and a sentence that says so."""
        # Rounding moves a logit log p by at most HALF_ULP |log p|: the label's by HALF_ULP times the row's loss, and
        # the log-sum-exp by HALF_ULP times an entropy, which is never above log 256.
        bound = HALF_ULP * (self.model_loss + math.log(256))
        agrees, clause = agreement(mean_loss, self.model_loss, bound)
        verdict = (
            f"{mean_loss / math.log(2):.4f} bits per byte.\n"
            f"Cross-check: from its float64 probabilities the model's own loss is {self.model_loss:.6f} nats;\n"
            f"{clause} that rounding the logits to float16 allows."
        )
        return agrees, verdict


def make(directory: str | os.PathLike[str], *, files: int | None = None) -> StdlibDemo:
    """Train the model and write ``predictions.zarr`` (rows, 256) float16 and ``labels.npy`` (rows,) uint8.

    Parameters
    ----------
    directory : path
        Where they go; made if it is missing.
    files : int, optional
        Take only the first so many files of the library.

    Raises
    ------
    FileExistsError
        If either of them exists; nothing is overwritten.
    FileNotFoundError
        If this Python has no library of source files.
    """
    start = time.perf_counter()
    predictions, labels = unused_paths(directory, "predictions.zarr", "labels.npy")
    texts = library_texts(files)
    train = np.frombuffer(b"".join(text for i, text in enumerate(texts) if i % HELD_OUT), np.uint8)
    test = np.frombuffer(b"".join(texts[::HELD_OUT]), np.uint8)
    context = test[:-2].astype(np.int32) * 256 + test[1:-1]  # (rows,)
    answer = test[2:]  # (rows,)
    contexts, row_of = np.unique(context, return_inverse=True)
    probability = model(train, contexts)  # (contexts, 256)
    predictions.parent.mkdir(parents=True, exist_ok=True)
    write_predictions(predictions, np.log(probability).astype(np.float16), row_of)
    np.save(labels, answer)
    loss = -float(np.log(probability[row_of, answer]).mean())
    count = (len(texts) - len(texts[::HELD_OUT]), len(texts[::HELD_OUT]))
    return StdlibDemo(predictions, labels, len(answer), count, len(train), loss, time.perf_counter() - start)


def library_texts(limit: int | None = None) -> list[bytes]:
    """The standard library's source files, in the order of their paths, without those of installed packages."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = [path for path in root.rglob("*.py") if not {"site-packages", "dist-packages"} & set(path.parts)]
    texts: list[bytes] = []
    for path in sorted(paths, key=lambda path: path.relative_to(root).as_posix()):
        if limit is not None and len(texts) >= limit:
            break
        text = path.read_bytes()
        if len(text) > LEAST_BYTES:
            texts.append(text)
    if len(texts) < 2:
        rule = f"must have source files, got {len(texts)} in {root}"
        raise FileNotFoundError(f"demo: the standard library {rule}. Use a Python that has them.")
    return texts


def model(train: NDArray[np.uint8], contexts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Probabilities of the next byte, shape (contexts, 256), for contexts 256 · first + second in increasing order."""
    row_of = np.full(65536, len(contexts), np.int64)  # contexts that are not asked for share one last row
    row_of[contexts] = np.arange(len(contexts))
    ones = np.bincount(train, minlength=256)
    twos, threes = np.zeros(65536, np.int64), np.zeros((len(contexts) + 1) * 256, np.int64)
    for start in range(0, len(train), BATCH_BYTES):
        piece = train[start : start + BATCH_BYTES + 2].astype(np.int64)
        twos += np.bincount(piece[:-1][:BATCH_BYTES] * 256 + piece[1:][:BATCH_BYTES], minlength=65536)
        threes += np.bincount(row_of[piece[:-2] * 256 + piece[1:-1]] * 256 + piece[2:], minlength=len(threes))
    first = (ones + 1) / (ones + 1).sum()  # (256,); no byte is impossible
    second = interpolated(twos.reshape(256, 256), first)
    return interpolated(threes.reshape(-1, 256)[:-1], second[contexts % 256])


def interpolated(counts: NDArray[np.integer], lower: NDArray[np.float64]) -> NDArray[np.float64]:
    """Witten and Bell's mixture of counts (contexts, 256) with the next shorter order's probabilities.

    A context without counts has the latter alone.
    """
    seen = counts.sum(axis=1, keepdims=True)
    kinds = np.count_nonzero(counts, axis=1, keepdims=True)
    return np.where(seen > 0, (counts + kinds * lower) / np.maximum(seen + kinds, 1), lower)


def write_predictions(path: Path, logits: NDArray[np.float16], row_of: NDArray[Any]) -> None:
    """Write logits[row_of], shape (rows, 256), as a sharded Zarr version 3 array, a shard at a time."""
    rows = len(row_of)
    zarr = require("zarr", "zarr", "the demo", caller="demo")
    chunks, shards = (CHUNK_ROWS, 256), (SHARD_ROWS, 256)
    array = zarr.create_array(path, shape=(rows, 256), dtype="float16", chunks=chunks, shards=shards, overwrite=False)
    for start in range(0, rows, SHARD_ROWS):
        array[start : start + SHARD_ROWS] = logits[row_of[start : start + SHARD_ROWS]]
