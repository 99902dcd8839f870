r"""A set of hidden states in place of logits: a language model of words, trained along the gradient of a product.

The model predicts a word of Python's standard library from the three before it. Each of the three places has an
embedding of its own; the logits are those of :class:`xent.Linear`:

.. math:: h = \tanh\Bigl(\sum_{k=1}^{3} E_k[w_{t-k}]\Bigr), \qquad x_c = h \cdot W_c + b_c

Nine files of ten train it by Adagrad [1]_ along xent's own gradient, every tenth is held out. What is written is what
a large model would write: the hidden states, and its head. The loss is checked against the textbook's formula in
float64 on logits that are whole, a batch of rows at a time.
Leaves out everything that would make it a good model, spaces and line breaks among it.

.. [1] Duchi, Hazan & Singer, "Adaptive subgradient methods for online learning and stochastic optimization", JMLR 12,
   2011.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

import xent
from xent.demo.protocol import agreement, unused_paths
from xent.demo.stdlib import HELD_OUT, library_texts
from xent.optional import require

FILES, CLASSES, FEATURES = 120, 4096, 32
ROWS = 8192  # of the held-out words, at most
PLACES = 3  # words before the one that is predicted
STEPS, BATCH, STEP = 300, 256, 0.3
CHECKED_ROWS = 512  # whose logits are whole at a time
WORD = re.compile(rb"[A-Za-z_]+|[0-9]+|[^\sA-Za-z_0-9]")
HALF_ULP = 2.0**-24  # what rounding to float32 moves a number by, relative to it

Floats = NDArray[np.float32]
Words = NDArray[np.int64]


class Model(NamedTuple):
    """Embeddings (places, classes, features), of the nearest place first, and a head: (classes, features), (classes,).

    All are float32.
    """

    embeddings: Floats
    classifier: Floats
    bias: Floats

    def hidden(self, words: Words, rows: Words) -> Floats:
        """The hidden states (rows, features) from which words[rows] are predicted."""
        places = enumerate(self.embeddings, start=1)
        states: Floats = np.tanh(sum(embedding[words[rows - place]] for place, embedding in places))
        return states


@dataclass(frozen=True)
class HiddenDemo:
    """The paths of the set, and its loss from whole logits.

    ``whole_loss`` is that of the formula in float64, in nats; ``bound`` is the largest difference of it and the loss of
    a product in float32; ``files`` counts those that trained the model and those that were held out.
    """

    dtype: ClassVar[str] = "float32"
    slices: ClassVar[None] = None

    predictions: Path
    labels: Path
    head: dict[str, str]
    rows: int
    classes: int
    files: tuple[int, int]
    steps: int
    whole_loss: float
    bound: float
    wall_seconds: float

    def description(self) -> str:
        """How the set was made, in lines for a reader."""
        trained, held_out = self.files
        hidden_bytes, logits_bytes = (4 * self.rows * width for width in (FEATURES, self.classes))
        return (
            f"Trained a model of words on {trained:,} files of the standard library of Python "
            f"{platform.python_version()}, in {self.steps} steps along xent's gradient,\n"
            f"and wrote its float32 hidden states at {self.rows:,} words of {held_out:,} held-out files "
            f"in {self.wall_seconds:.1f} s:\n"
            f"{self.predictions}, {self.labels.name}, and the classifier of {self.classes:,} words with its bias in "
            f"{HEAD}\n"
            f"{hidden_bytes / 1e6:.1f} MB in place of {logits_bytes / 1e6:.1f} MB of logits: "
            f"{logits_bytes / hidden_bytes:.0f} times smaller. The same evaluation of files that are kept:\n"
            f"xent evaluate {self.predictions.name} {self.labels.name} "
            + " ".join(f"--{option} {HEAD}#{tensor}" for option, tensor in TENSORS.items())
            + "\n"
        )

    def cross_check(self, mean_loss: float) -> tuple[bool, str]:
        """Whether `mean_loss`, in nats, is that of whole logits within float32, and a sentence that says so."""
        agrees, clause = agreement(mean_loss, self.whole_loss, self.bound)
        verdict = (
            f"Cross-check: the logits made whole, in float64, cost {self.whole_loss:.7f} nats;\n"
            f"{clause} that products in float32 allow."
        )
        return agrees, verdict


HEAD = "head.safetensors"
TENSORS = {"classifier": "lm_head.weight", "bias": "lm_head.bias"}


def make(
    directory: str | os.PathLike[str], *, files: int = FILES, classes: int = CLASSES, steps: int = STEPS
) -> HiddenDemo:
    """Train the model and write ``hidden.npy`` (rows, 32) float32, ``labels.npy`` (rows,) and ``head.safetensors``.

    Parameters
    ----------
    directory : path
        Where they go; made if it is missing.
    files : int
        Take only the first so many files of the library.
    classes : int
        The most frequent words are classes of their own, all others one more.
    steps : int
        Of Adagrad, each over 256 words.

    Raises
    ------
    FileExistsError
        If one of them exists; nothing is overwritten.
    FileNotFoundError
        If this Python has no library of source files.
    ModuleNotFoundError
        If threadpoolctl is not installed.
    """
    start = time.perf_counter()
    hidden, labels, head = unused_paths(directory, "hidden.npy", "labels.npy", HEAD)
    threads = require("threadpoolctl", "demo", "the demo of hidden states", caller="demo")
    texts = [WORD.findall(text) for text in library_texts(files)]
    train = [word for number, text in enumerate(texts) if number % HELD_OUT for word in text]
    test = [word for text in texts[::HELD_OUT] for word in text]
    number_of = numbers(train, classes)
    answers = np.asarray([number_of.get(word, 0) for word in test])
    rows = np.arange(PLACES, len(answers))[:ROWS]
    with threads.threadpool_limits(1):  # matrices so small are slower on several threads, and sums must not vary
        model = trained(np.asarray([number_of.get(word, 0) for word in train]), classes, steps)
        states = model.hidden(answers, rows)
        loss, bound = whole_loss(states, model, answers[rows])
    hidden.parent.mkdir(parents=True, exist_ok=True)
    np.save(hidden, states)
    np.save(labels, answers[rows].astype(np.uint16))
    write_head(head, model)
    count = len(texts) - len(texts[::HELD_OUT]), len(texts[::HELD_OUT])
    tensors = {option: f"{head}#{tensor}" for option, tensor in TENSORS.items()}
    seconds = time.perf_counter() - start
    return HiddenDemo(hidden, labels, tensors, len(rows), classes, count, steps, loss, bound, seconds)


def numbers(words: list[bytes], classes: int) -> dict[bytes, int]:
    """The class of each of the most frequent words, from 1; of equally frequent ones that of the alphabet's first."""
    frequent = sorted(Counter(words).items(), key=lambda item: (-item[1], item[0]))
    return {word: number for number, (word, _) in enumerate(frequent[: classes - 1], start=1)}


def trained(words: Words, classes: int, steps: int) -> Model:
    """The model after so many steps of Adagrad, from words as frequent as they are after any three others."""
    rng = np.random.default_rng(18)
    frequency = (np.bincount(words, minlength=classes) + 1) / (len(words) + classes)
    model = Model(
        rng.standard_normal((PLACES, classes, FEATURES), np.float32) * np.float32(0.3),
        rng.standard_normal((classes, FEATURES), np.float32) * np.float32(0.1),
        np.log(frequency).astype(np.float32),
    )
    squares = [np.full_like(parameter, 1e-8) for parameter in model]
    loss_and_gradient = xent.value_and_grad(xent.linear_cross_entropy)
    for step in range(steps):
        rows = rng.integers(PLACES, len(words), BATCH)
        h = model.hidden(words, rows)
        result = loss_and_gradient(h, model.classifier, words[rows], bias=model.bias, reduction="mean")
        slope: Any = result[1]  # of every operand: none is None
        of_embeddings = np.zeros_like(model.embeddings)
        for place, gradient in enumerate(of_embeddings, start=1):
            np.add.at(gradient, words[rows - place], slope.hidden * (1 - h**2))
        rate = np.float32(STEP * (1 - step / steps))
        gradients = of_embeddings, slope.classifier, slope.bias
        for parameter, square, gradient in zip(model, squares, gradients, strict=True):
            square += gradient**2
            parameter -= rate * gradient / np.sqrt(square)
    return model


def whole_loss(hidden: Floats, model: Model, labels: Words) -> tuple[float, float]:
    """The mean loss by the textbook's formula in float64, and what float32 products may differ from it by."""
    losses, sizes = np.empty(len(labels)), np.empty(len(labels))
    wide, bias = model.classifier.astype(np.float64), model.bias.astype(np.float64)
    for start in range(0, len(labels), CHECKED_ROWS):
        rows = slice(start, start + CHECKED_ROWS)
        h = hidden[rows].astype(np.float64)
        logits = h @ wide.T + bias  # (rows, classes), far too small to overflow
        losses[rows] = np.log(np.exp(logits).sum(axis=1)) - logits[range(len(h)), labels[rows]]
        sizes[rows] = (np.abs(h) @ np.abs(wide).T + np.abs(bias)).max(axis=1)
    # A sum of n terms in float32 is off by less than n HALF_ULP times that of their magnitudes: here of a product for
    # each feature and the bias. That moves the label's logit, the log-sum-exp, and in xent's own steps 2 ulp of the
    # largest logit; xent promises the rest to 4 ulp of the loss, and an ulp is at most 2 HALF_ULP of its number.
    loss = float(losses.mean())
    return loss, HALF_ULP * ((2 * (FEATURES + 1) + 2 * 2) * float(sizes.mean()) + 2 * 4 * loss)


def write_head(path: Path, model: Model) -> None:
    """Write the classifier and the bias as a safetensors file: a header of where each tensor is, then the bytes."""
    header: dict[str, Any] = {}
    data = b""
    for option, tensor in TENSORS.items():
        array: Floats = getattr(model, option)
        end = len(data) + array.nbytes
        header[tensor] = {"dtype": "F32", "shape": array.shape, "data_offsets": [len(data), end]}
        data += array.astype("<f4").tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
