r"""A prediction set of any size whose loss is known: Zipf's law [1]_ over the vocabulary of Llama 3 [2]_.

In row i class j has the rank (j + b i) mod C, from 0, and the logit of rank r is −s log(1 + r) plus a constant of the
row, which must not matter. The labels' ranks follow the law too, along a sequence of low discrepancy [3]_, so that the
mean loss is close to the entropy. A row whose label has rank r costs exactly

.. math:: \ell = s \log(1 + r) + \log H, \qquad H = \sum_{k=1}^{C} k^{-s}

The tasks of a Dask array generate the logits, in chunks along the classes too, and drop them after the row's
statistics: nothing is stored, and the graph holds nothing but numbers. No task has a whole row.

.. [1] Zipf, "Human behavior and the principle of least effort", 1949.
.. [2] Grattafiori et al., "The Llama 3 herd of models", 2024, arXiv:2407.21783, section 3.2: 128,000 tokens; with the
   256 special ones of its tokenizer there are 128,256.
.. [3] Niederreiter, "Random number generation and quasi-Monte Carlo methods", 1992, chapter 3: multiples of the golden
   ratio, modulo 1.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from xent.demo.protocol import agreement
from xent.optional import require

CLASSES = 128_256
ROWS = 32_768
CHUNK_ROWS, CLASS_CHUNKS = 128, 8
SHIFT = 50_021  # b, by which the law moves along the classes with each row
OFFSET = 1000.0  # the constant of the even rows; that of the odd ones is its negative
GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)  # its fraction, times 2^64

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class VocabularyDemo:
    """Dask arrays (rows, classes) and (rows,), of which nothing is computed yet, and the mean loss.

    ``closed_form`` is that loss in nats; ``bound`` is the largest difference of it and the loss of the float32 logits.
    """

    predictions: Any
    labels: Any
    closed_form: float
    bound: float

    dtype: ClassVar[str] = "float32"
    slices: ClassVar[None] = None
    head: ClassVar[dict[str, str]] = {}  # the predictions are logits

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.predictions.shape[1])

    def description(self) -> str:
        """What the set is, in lines for a reader."""
        rows, classes = self.predictions.shape
        by_row, by_class = self.predictions.chunksize
        return (
            f"Zipf's law over {classes:,} classes in {rows:,} rows, offset by ±{OFFSET:g}: "
            f"{self.predictions.nbytes / 1e9:.3g} GB of float32 logits that are stored nowhere;\n"
            f"tasks generate those of {by_row:,} rows and {by_class:,} classes as they are needed.\n"
        )

    def cross_check(self, mean_loss: float) -> tuple[bool, str]:
        """Whether `mean_loss`, in nats, is the closed form within float32, and a sentence that says so."""
        agrees, clause = agreement(mean_loss, self.closed_form, self.bound)
        verdict = (
            f"Cross-check: the mean loss is {mean_loss:.9f} nats, in closed form {self.closed_form:.9f};\n"
            f"{clause} that rounding the logits to float32 allows."
        )
        return agrees, verdict


@dataclass(frozen=True)
class Zipf:
    """The law: C classes and the exponent s. It is sent to the tasks, which make their tables themselves."""

    classes: int
    exponent: float = 1.0

    def logits(self, rows: range, classes: range) -> NDArray[np.float32]:
        """The logits of some rows and some classes."""
        logit_of_rank, _ = rank_tables(self)
        block = np.empty((len(rows), len(classes)), np.float32)
        for row, out in zip(rows, block, strict=True):
            rank = (classes.start + SHIFT * row) % self.classes  # of the first class; the others follow, modulo C
            offset = -OFFSET if row % 2 else OFFSET
            head = min(len(classes), self.classes - rank)
            out[:head] = logit_of_rank[rank : rank + head] + offset
            out[head:] = logit_of_rank[: len(classes) - head] + offset
        return block

    def ranks(self, rows: range) -> Integers:
        """The rank of each row's label, (rows,): the inverse of the law at the fractions (½ + i φ) mod 1."""
        steps = np.arange(rows.start, rows.stop, dtype=np.uint64) * GOLDEN_RATIO + np.uint64(1 << 63)  # modulo 2^64
        fractions = (steps >> np.uint64(11)) * 2.0**-53
        _, cumulated = rank_tables(self)
        return np.minimum(np.searchsorted(cumulated, fractions, side="right"), self.classes - 1).astype(np.int64)

    def labels(self, rows: range) -> Integers:
        """The label of each row, (rows,)."""
        return (self.ranks(rows) - SHIFT * np.arange(rows.start, rows.stop)) % self.classes

    def log_partition(self) -> float:
        """The logarithm of H, of a correctly rounded sum."""
        return math.log(math.fsum(k**-self.exponent for k in range(1, self.classes + 1)))

    def mean_loss(self, rows: range) -> float:
        """The mean of s log(1 + r) + log H, in nats."""
        return self.exponent * math.fsum(np.log1p(self.ranks(rows))) / len(rows) + self.log_partition()

    def bound(self) -> float:
        """The largest change of that mean when the logits are rounded to float32 and evaluated in it."""
        # Half an ulp of the largest logit for the label's, as much for the log-sum-exp. Beyond that xent promises 4 ulp
        # of the loss: logits this far from 0 are within a factor of 2 of each other, so their differences are exact.
        largest = self.exponent * math.log(self.classes)  # magnitude of a logit without its row's constant
        highest_loss = largest + self.log_partition()
        return float(np.spacing(np.float32(OFFSET + largest)) + 4 * np.spacing(np.float32(highest_loss)))


@functools.lru_cache(maxsize=4)
def rank_tables(zipf: Zipf) -> tuple[Floats, Floats]:
    """The logit of each rank, and the probability of all ranks up to it."""
    logits = -zipf.exponent * np.log(np.arange(1, zipf.classes + 1, dtype=np.float64))
    cumulated = np.cumsum(np.exp(logits))
    return logits, cumulated / cumulated[-1]


@dataclass(frozen=True)
class ChunkGrid:
    """The chunks of an array (rows, classes): `chunk_rows` rows in each, `class_chunks` of them along the classes."""

    rows: int
    classes: int
    chunk_rows: int
    class_chunks: int

    def rows_of(self, index: int) -> range:
        """The rows of a chunk."""
        return range(self.rows)[index * self.chunk_rows : (index + 1) * self.chunk_rows]

    def classes_of(self, index: int) -> range:
        """The classes of a chunk."""
        return range(self.classes * index // self.class_chunks, self.classes * (index + 1) // self.class_chunks)

    def sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The lengths of all chunks along the rows and along the classes, in Dask's form."""
        row_chunks = -(-self.rows // self.chunk_rows)
        rows, classes = map(self.rows_of, range(row_chunks)), map(self.classes_of, range(self.class_chunks))
        return tuple(map(len, rows)), tuple(map(len, classes))


def logits_of_chunk(zipf: Zipf, grid: ChunkGrid, block_id: tuple[int, int]) -> NDArray[np.float32]:
    """The logits of one chunk."""
    return zipf.logits(grid.rows_of(block_id[0]), grid.classes_of(block_id[1]))


def labels_of_chunk(zipf: Zipf, grid: ChunkGrid, block_id: tuple[int]) -> Integers:
    """The labels of the rows of one chunk."""
    return zipf.labels(grid.rows_of(block_id[0]))


def make(
    directory: Any = None,
    *,
    rows: int = ROWS,
    classes: int = CLASSES,
    chunk_rows: int = CHUNK_ROWS,
    class_chunks: int = CLASS_CHUNKS,
) -> VocabularyDemo:
    """Describe the predictions (rows, classes) float32 and the labels (rows,) int64 as Dask arrays.

    Parameters
    ----------
    directory : ignored
        Other demos write there; this one writes nothing.
    rows, classes, chunk_rows : int
        Positive; not checked.
    class_chunks : int
        The number of chunks along the classes, in ``[1, classes]``; not checked.

    Raises
    ------
    ModuleNotFoundError
        If Dask is not installed.

    Notes
    -----
    The label's rank can be counted only once its logit is known, which lies in one chunk of several, so each chunk is
    used twice: a row's chunks are in memory together, `chunk_rows` × `classes` × 4 bytes for each thread.
    """
    array = require("dask.array", "dask", "the demo of a vocabulary", caller="demo")
    zipf, grid = Zipf(classes), ChunkGrid(rows, classes, chunk_rows, class_chunks)
    by_row, by_class = grid.sizes()
    predictions = array.map_blocks(
        functools.partial(logits_of_chunk, zipf, grid), chunks=(by_row, by_class), meta=np.empty((0, 0), np.float32)
    )
    labels = array.map_blocks(
        functools.partial(labels_of_chunk, zipf, grid), chunks=(by_row,), meta=np.empty(0, np.int64)
    )
    return VocabularyDemo(predictions, labels, zipf.mean_loss(range(rows)), zipf.bound())
