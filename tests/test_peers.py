"""Where docs/semantics.md says that TensorFlow, Keras, torch, optax, scikit-learn and SciPy are right, they agree.

The list below is one entry for each promise: its words, our call, the bound of the textbook's error (peers.py),
and each peer's call for the same thing. Every (promise, peer, dtype) is one comparison and one test, ours on NumPy
arrays, and again on the peer's own where xent takes them. A peer that ``XENT_REQUIRE_PEERS`` names and that is missing
is a failure, another is skipped; a peer with fewer than fifteen comparisons made is a failure too.

Where they disagree: test_disagreements.py.
"""

import dataclasses
import functools
import itertools
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import peers
import pytest
from expected import far
from golden_cases import named_dtype
from peers import PEERS, Bound, Peer, gradient_of, labels, loss_of, peer_named, smoothed, targets

import xent
from xent.testing.budget import Budget, compute_dtype, smallest

FEWEST = 15  # comparisons for each peer
sparse, dense, binary = xent.sparse_cross_entropy, xent.cross_entropy, xent.binary_cross_entropy
Call = Callable[[Peer, SimpleNamespace], Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """One peer's answer beside ours."""

    peer: str
    promise: str
    theirs: Call
    ours: Call
    bound: Bound
    dtype: str
    computed: str  # what the peer computes in
    inputs: dict[str, Any] = dataclasses.field(default_factory=dict)  # keywords of peers.inputs
    ours_on: tuple[str, ...] = ("NumPy",)  # the arrays that ours is called on: NumPy's, the peer's own

    def __str__(self) -> str:
        return f"{self.peer}: {self.promise}, {self.dtype}"


COMPARISONS: list[Comparison] = []


def promise(
    words: str,
    ours: Call,
    bound: Bound,
    *,
    dtypes: tuple[str, ...] = ("float32",),
    computed: str = "",
    ours_on: tuple[str, ...] = ("NumPy", "own"),
    inputs: dict[str, Any] | None = None,
    **theirs: Call,
) -> None:
    """Add the comparisons of one promise; the keywords besides are the peers' calls."""
    for dtype in dtypes:
        for peer, call in theirs.items():
            on = tuple(name for name in ours_on if name == "NumPy" or PEERS[peer].own_arrays)
            if on:
                COMPARISONS.append(
                    Comparison(peer, words, call, ours, bound, dtype, computed or dtype, inputs or {}, on)
                )


def gradient(loss: Callable, *arrays: Any, **keywords: Any) -> Any:
    return xent.value_and_grad(loss)(*arrays, **keywords)[1]


BOTH = ("float32", "float64")
HALVES = ("float16", "bfloat16")

# -------------------- changes to the random inputs


def masked(a: SimpleNamespace) -> None:
    """−inf at every third class, but not at the label."""
    hidden = (np.arange(a.classes) % 3 == 1) & (np.arange(a.classes) != a.y[:, None])
    a.x[hidden] = -np.inf


def masked_label(a: SimpleNamespace) -> None:
    a.x[np.arange(len(a.y)), a.y] = -np.inf


def a_row_of_nan(a: SimpleNamespace) -> None:
    a.x[3, 2] = np.nan


def infinite_beside_the_label(a: SimpleNamespace) -> None:
    a.x[np.arange(len(a.y)), (a.y + 1) % a.classes] = np.inf


def infinite_logits(a: SimpleNamespace) -> None:
    a.x[0, 1] = a.x[1, 2] = a.x[1, 3] = np.inf
    a.x[2] = -np.inf
    a.x[3, :4] = -np.inf


def some_ignored(a: SimpleNamespace) -> None:
    a.y[::4] = -100


def all_ignored(a: SimpleNamespace) -> None:
    a.y[:] = -100


def ignored_hold_nan(a: SimpleNamespace) -> None:
    some_ignored(a)
    a.x[::4] = np.nan


def bytes_for_labels(a: SimpleNamespace) -> None:
    a.y = a.y.astype(np.uint8)


def some_out_of_range(a: SimpleNamespace) -> None:
    a.y[::4], a.y[1::4] = -1, a.classes


def one_class(a: SimpleNamespace) -> None:
    a.y[:] = 0


def row_weight(a: SimpleNamespace) -> np.ndarray:
    return a.w


def label_weight(a: SimpleNamespace) -> np.ndarray:
    return np.where(a.y < 0, 0, a.c[np.maximum(a.y, 0)])


def counted(a: SimpleNamespace) -> np.ndarray:
    return a.y >= 0


def heavy(a: SimpleNamespace) -> np.ndarray:
    """Whether each row's weight is over 1: a mask."""
    return a.w > 1


# -------------------- labels, from logits

promise(
    "the loss of labels, row by row",
    lambda p, a: sparse(a.x, a.y),
    loss_of(labels, unshifted=True),
    dtypes=BOTH,
    tensorflow=lambda p, a: p.nn.sparse_softmax_cross_entropy_with_logits(a.y, a.x),
    keras=lambda p, a: p.ops.sparse_categorical_crossentropy(a.y, a.x, from_logits=True),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, reduction="none"),
    optax=lambda p, a: p.optax.softmax_cross_entropy_with_integer_labels(a.x, a.y),
    sklearn=lambda p, a: p.loss.HalfMultinomialLoss(n_classes=7).loss(a.y.astype(a.x.dtype), a.x),
    scipy=lambda p, a: p.special.logsumexp(a.x, axis=-1) - a.x[np.arange(23), a.y],
)
promise(
    "the gradient of labels, row by row",
    lambda p, a: gradient(sparse, a.x, a.y),
    gradient_of(labels),
    dtypes=BOTH,
    tensorflow=lambda p, a: p.gradient(lambda x: p.nn.sparse_softmax_cross_entropy_with_logits(a.y, x), a.x),
    keras=lambda p, a: p.gradient(lambda x: p.ops.sparse_categorical_crossentropy(a.y, x, from_logits=True), a.x),
    torch=lambda p, a: p.gradient(lambda x: p.F.cross_entropy(x, a.y, reduction="none"), a.x),
    optax=lambda p, a: p.gradient(lambda x: p.optax.softmax_cross_entropy_with_integer_labels(x, a.y), a.x),
    sklearn=lambda p, a: p.loss.HalfMultinomialLoss(n_classes=7).gradient(a.y.astype(a.x.dtype), a.x),
    scipy=lambda p, a: p.special.softmax(a.x, axis=-1) - np.eye(7, dtype=a.x.dtype)[a.y],
)
promise(
    "a common offset of 1e6 changes no loss of labels",
    lambda p, a: sparse(a.x, a.y),
    loss_of(labels),
    inputs={"offset": 1e6},
    tensorflow=lambda p, a: p.nn.sparse_softmax_cross_entropy_with_logits(a.y, a.x),
    keras=lambda p, a: p.ops.sparse_categorical_crossentropy(a.y, a.x, from_logits=True),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, reduction="none"),
    scipy=lambda p, a: -p.special.log_softmax(a.x, axis=-1)[np.arange(23), a.y],
)
promise(
    "a gap of hundreds between logits costs that much",
    lambda p, a: sparse(a.x, a.y),
    loss_of(labels, unshifted=True),
    inputs={"scale": 300.0},
    tensorflow=lambda p, a: p.nn.sparse_softmax_cross_entropy_with_logits(a.y, a.x),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, reduction="none"),
    optax=lambda p, a: p.optax.softmax_cross_entropy_with_integer_labels(a.x, a.y),
)
promise(
    "many classes change nothing",
    lambda p, a: sparse(a.x, a.y),
    loss_of(labels, unshifted=True),
    inputs={"shape": (5, 4099)},
    tensorflow=lambda p, a: p.nn.sparse_softmax_cross_entropy_with_logits(a.y, a.x),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, reduction="none"),
    optax=lambda p, a: p.optax.softmax_cross_entropy_with_integer_labels(a.x, a.y),
)
promise(
    "one class costs 0",
    lambda p, a: sparse(a.x, a.y),
    peers.exactly,
    inputs={"shape": (5, 1), "change": one_class},
    tensorflow=lambda p, a: p.nn.sparse_softmax_cross_entropy_with_logits(a.y, a.x),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, reduction="none"),
    optax=lambda p, a: p.optax.softmax_cross_entropy_with_integer_labels(a.x, a.y),
)
promise(
    "no rows give no losses",
    lambda p, a: sparse(a.x, a.y),
    peers.exactly,
    inputs={"shape": (0, 7)},
    tensorflow=lambda p, a: p.nn.sparse_softmax_cross_entropy_with_logits(a.y, a.x),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, reduction="none"),
    optax=lambda p, a: p.optax.softmax_cross_entropy_with_integer_labels(a.x, a.y),
)
promise(
    "a batch of sequences has a loss for each token",
    lambda p, a: sparse(a.x, a.y),
    loss_of(labels, unshifted=True),
    inputs={"shape": (3, 5, 7)},
    tensorflow=lambda p, a: p.nn.sparse_softmax_cross_entropy_with_logits(a.y, a.x),
    keras=lambda p, a: p.ops.sparse_categorical_crossentropy(a.y, a.x, from_logits=True),
    torch=lambda p, a: p.F.cross_entropy(a.x.movedim(-1, 1), a.y, reduction="none"),
    optax=lambda p, a: p.optax.softmax_cross_entropy_with_integer_labels(a.x, a.y),
)
promise(
    "the loss of labels along a class axis in the middle",
    lambda p, a: sparse(a.x, a.y, axis=1),
    loss_of(labels, unshifted=True),
    inputs={"shape": (2, 7, 3, 5), "axis": 1},
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, reduction="none"),
    optax=lambda p, a: p.optax.softmax_cross_entropy_with_integer_labels(a.x, a.y, axis=1),
    scipy=lambda p, a: -np.take_along_axis(p.special.log_softmax(a.x, axis=1), a.y[:, None], 1)[:, 0],
)
promise(
    "the gradient of labels along a class axis in the middle",
    lambda p, a: gradient(sparse, a.x, a.y, axis=1, reduction="mean"),
    gradient_of(labels, reduction="mean"),
    inputs={"shape": (2, 7, 3, 5), "axis": 1},
    torch=lambda p, a: p.gradient(lambda x: p.F.cross_entropy(x, a.y), a.x),
    optax=lambda p, a: p.gradient(
        lambda x: p.optax.softmax_cross_entropy_with_integer_labels(x, a.y, axis=1).mean(), a.x
    ),
)
promise(
    "labels may be of one byte",
    lambda p, a: sparse(a.x, a.y),
    loss_of(labels, unshifted=True),
    inputs={"change": bytes_for_labels},
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, reduction="none"),
    optax=lambda p, a: p.optax.softmax_cross_entropy_with_integer_labels(a.x, a.y),
)
promise(
    "the sum over labels",
    lambda p, a: sparse(a.x, a.y, reduction="sum"),
    loss_of(labels, reduction="sum", unshifted=True),
    dtypes=BOTH,
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, reduction="sum"),
    optax=lambda p, a: p.optax.softmax_cross_entropy_with_integer_labels(a.x, a.y).sum(),
)
promise(
    "the sum over labels",
    lambda p, a: sparse(a.x, a.y, reduction="sum"),
    loss_of(labels, reduction="sum"),
    tensorflow=lambda p, a: p.v1.losses.sparse_softmax_cross_entropy(a.y, a.x, reduction="weighted_sum"),
    keras=lambda p, a: p.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")(a.y, a.x),
)
promise(
    "the mean over labels",
    lambda p, a: sparse(a.x, a.y, reduction="mean"),
    loss_of(labels, reduction="mean", unshifted=True),
    tensorflow=lambda p, a: p.v1.losses.sparse_softmax_cross_entropy(a.y, a.x),
    keras=lambda p, a: p.losses.SparseCategoricalCrossentropy(from_logits=True)(a.y, a.x),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y),
    optax=lambda p, a: p.optax.softmax_cross_entropy_with_integer_labels(a.x, a.y).mean(),
)
promise(
    "the mean weighs rows by sample weight, and divides by the weights",
    lambda p, a: sparse(a.x, a.y, sample_weight=a.w, reduction="mean"),
    loss_of(labels, reduction="mean", weight=row_weight),
    tensorflow=lambda p, a: p.v1.losses.sparse_softmax_cross_entropy(a.y, a.x, a.w, reduction="weighted_mean"),
    keras=lambda p, a: p.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")(
        a.y, a.x, a.w
    ),
    scipy=lambda p, a: np.average(-p.special.log_softmax(a.x, axis=-1)[np.arange(23), a.y], weights=a.w),
)
promise(
    "a mean may divide by the number of rows instead",
    lambda p, a: sparse(a.x, a.y, sample_weight=a.w, reduction=xent.Mean("all")),
    # Rows' weights sum to between N/2 and 3N/2, so dividing by N is the mean's bound times 3/2 at most.
    lambda a, u: 1.5 * loss_of(labels, reduction="mean", weight=row_weight)(a, u),
    tensorflow=lambda p, a: p.v1.losses.sparse_softmax_cross_entropy(
        a.y, a.x, a.w, reduction="weighted_sum_over_batch_size"
    ),
    keras=lambda p, a: p.losses.SparseCategoricalCrossentropy(from_logits=True)(a.y, a.x, a.w),
)
promise(
    "each row's loss is multiplied by its sample weight",
    lambda p, a: sparse(a.x, a.y, sample_weight=a.w),
    loss_of(labels, weight=row_weight, unshifted=True),
    tensorflow=lambda p, a: p.v1.losses.sparse_softmax_cross_entropy(a.y, a.x, a.w, reduction="none"),
    keras=lambda p, a: p.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)(a.y, a.x, a.w),
    sklearn=lambda p, a: p.loss.HalfMultinomialLoss(n_classes=7).loss(a.y.astype(a.x.dtype), a.x, a.w),
)
promise(
    "each row's gradient is multiplied by its sample weight",
    lambda p, a: gradient(sparse, a.x, a.y, sample_weight=a.w),
    gradient_of(labels, weight=row_weight),
    tensorflow=lambda p, a: p.gradient(
        lambda x: p.v1.losses.sparse_softmax_cross_entropy(a.y, x, a.w, reduction="none"), a.x
    ),
    sklearn=lambda p, a: p.loss.HalfMultinomialLoss(n_classes=7).gradient(a.y.astype(a.x.dtype), a.x, a.w),
)
promise(
    "a row whose sample weight is False is not counted",
    lambda p, a: sparse(a.x, a.y, sample_weight=a.w > 1, reduction="sum"),
    loss_of(labels, reduction="sum", weight=heavy, unshifted=True),
    tensorflow=lambda p, a: p.v1.losses.sparse_softmax_cross_entropy(
        a.y, a.x, p.tf.cast(a.w > 1, a.x.dtype), reduction="weighted_sum"
    ),
    keras=lambda p, a: p.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")(
        a.y, a.x, p.tf.cast(a.w > 1, a.x.dtype)
    ),
    optax=lambda p, a: p.optax.softmax_cross_entropy_with_integer_labels(a.x, a.y, where=(a.w > 1)[:, None]).sum(),
)

# -------------------- class weights, ignored rows

promise(
    "each row's loss is multiplied by its label's class weight",
    lambda p, a: sparse(a.x, a.y, class_weight=a.c),
    loss_of(labels, weight=label_weight),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, a.c, reduction="none"),
)
promise(
    "the mean over labels divides by the class weights",
    lambda p, a: sparse(a.x, a.y, class_weight=a.c, reduction="mean"),
    loss_of(labels, reduction="mean", weight=label_weight),
    dtypes=BOTH,
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, a.c),
)
promise(
    "the gradient of the mean over labels divides by the class weights",
    lambda p, a: gradient(sparse, a.x, a.y, class_weight=a.c, reduction="mean"),
    gradient_of(labels, reduction="mean", weight=label_weight),
    torch=lambda p, a: p.gradient(lambda x: p.F.cross_entropy(x, a.y, a.c), a.x),
)
promise(
    "ignored rows cost 0",
    lambda p, a: sparse(a.x, a.y, ignore_index=-100),
    loss_of(labels),
    inputs={"change": some_ignored},
    keras=lambda p, a: p.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100, reduction="none")(
        a.y, a.x
    ),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, reduction="none"),
)
promise(
    "the mean does not count ignored rows",
    lambda p, a: sparse(a.x, a.y, ignore_index=-100, reduction="mean"),
    loss_of(labels, reduction="mean", weight=counted),
    inputs={"change": some_ignored},
    keras=lambda p, a: p.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100)(a.y, a.x),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y),
)
promise(
    "the mean counts neither ignored rows nor their class weights",
    lambda p, a: sparse(a.x, a.y, ignore_index=-100, class_weight=a.c, reduction="mean"),
    loss_of(labels, reduction="mean", weight=label_weight),
    inputs={"change": some_ignored},
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, a.c),
)
promise(
    "the gradient of ignored rows is 0 where they hold numbers",
    lambda p, a: gradient(sparse, a.x, a.y, ignore_index=-100, reduction="mean"),
    gradient_of(labels, reduction="mean", weight=counted),
    inputs={"change": some_ignored},
    torch=lambda p, a: p.gradient(lambda x: p.F.cross_entropy(x, a.y), a.x),
)
promise(
    "ignored rows cost 0 where they hold NaN",
    lambda p, a: sparse(a.x, a.y, ignore_index=-100),
    lambda a, u: loss_of(labels)(SimpleNamespace(**{**vars(a), "x": np.nan_to_num(a.x)}), u),
    inputs={"change": ignored_hold_nan},
    keras=lambda p, a: p.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100, reduction="none")(
        a.y, a.x
    ),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, reduction="none"),
)
promise(
    "the gradient of ignored rows is 0 where they hold NaN",
    lambda p, a: gradient(sparse, a.x, a.y, ignore_index=-100),
    lambda a, u: gradient_of(labels)(SimpleNamespace(**{**vars(a), "x": np.nan_to_num(a.x)}), u),
    inputs={"change": ignored_hold_nan},
    keras=lambda p, a: p.gradient(
        lambda x: p.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100, reduction="none")(a.y, x),
        a.x,
    ),
)
promise(
    "the mean of nothing is NaN",
    lambda p, a: sparse(a.x, a.y, ignore_index=-100, reduction="mean"),
    peers.exactly,
    inputs={"change": all_ignored},
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y),
)
promise(
    "the gradient of the mean of nothing is 0",
    lambda p, a: gradient(sparse, a.x, a.y, ignore_index=-100, reduction="mean"),
    peers.exactly,
    inputs={"change": all_ignored},
    torch=lambda p, a: p.gradient(lambda x: p.F.cross_entropy(x, a.y), a.x),
)

# -------------------- label smoothing

promise(
    "smoothed labels",
    lambda p, a: sparse(a.x, a.y, label_smoothing=0.1),
    loss_of(smoothed(labels, 0.1)),
    dtypes=BOTH,
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, reduction="none", label_smoothing=0.1),
    optax=lambda p, a: p.optax.softmax_cross_entropy(
        a.x, p.optax.smooth_labels(p.jnp.eye(7, dtype=a.x.dtype)[a.y], 0.1)
    ),
)
promise(
    "the gradient of the mean over smoothed labels",
    lambda p, a: gradient(sparse, a.x, a.y, label_smoothing=0.1, reduction="mean"),
    gradient_of(smoothed(labels, 0.1), reduction="mean"),
    torch=lambda p, a: p.gradient(lambda x: p.F.cross_entropy(x, a.y, label_smoothing=0.1), a.x),
)
promise(
    "smoothed labels of which some are ignored",
    lambda p, a: sparse(a.x, a.y, label_smoothing=0.1, ignore_index=-100, reduction="mean"),
    loss_of(smoothed(labels, 0.1), reduction="mean", weight=counted),
    inputs={"change": some_ignored},
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, label_smoothing=0.1),
)
promise(
    "smoothed targets",
    lambda p, a: dense(a.x, a.t, label_smoothing=0.1),
    loss_of(smoothed(targets, 0.1)),
    tensorflow=lambda p, a: p.v1.losses.softmax_cross_entropy(a.t, a.x, label_smoothing=0.1, reduction="none"),
    keras=lambda p, a: p.losses.categorical_crossentropy(a.t, a.x, from_logits=True, label_smoothing=0.1),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.t, reduction="none", label_smoothing=0.1),
    optax=lambda p, a: p.optax.softmax_cross_entropy(a.x, p.optax.smooth_labels(a.t, 0.1)),
)
promise(
    "the gradient of smoothed targets",
    lambda p, a: gradient(dense, a.x, a.t, label_smoothing=0.1),
    gradient_of(smoothed(targets, 0.1)),
    keras=lambda p, a: p.gradient(
        lambda x: p.losses.categorical_crossentropy(a.t, x, from_logits=True, label_smoothing=0.1), a.x
    ),
    torch=lambda p, a: p.gradient(lambda x: p.F.cross_entropy(x, a.t, reduction="none", label_smoothing=0.1), a.x),
)
promise(
    "a smoothing of 1 leaves the uniform target",
    lambda p, a: dense(a.x, a.t, label_smoothing=1.0),
    loss_of(smoothed(targets, 1.0)),
    keras=lambda p, a: p.losses.categorical_crossentropy(a.t, a.x, from_logits=True, label_smoothing=1.0),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.t, reduction="none", label_smoothing=1.0),
)

# -------------------- soft targets

promise(
    "the loss of soft targets, row by row",
    lambda p, a: dense(a.x, a.t),
    loss_of(targets),
    dtypes=BOTH,
    tensorflow=lambda p, a: p.nn.softmax_cross_entropy_with_logits(a.t, a.x),
    keras=lambda p, a: p.ops.categorical_crossentropy(a.t, a.x, from_logits=True),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.t, reduction="none"),
    optax=lambda p, a: p.optax.softmax_cross_entropy(a.x, a.t),
    scipy=lambda p, a: -(a.t * p.special.log_softmax(a.x, axis=-1)).sum(-1),
)
promise(
    "the loss of float16 and bfloat16 logits, computed in float32",
    lambda p, a: dense(a.x, a.t),
    loss_of(targets),
    dtypes=HALVES,
    computed="float32",
    tensorflow=lambda p, a: p.nn.softmax_cross_entropy_with_logits(a.t, a.x),
)
promise(
    "the loss of float16 and bfloat16 logits, computed in their own dtype",
    lambda p, a: sparse(a.x, a.y),
    loss_of(labels, unshifted=True),
    dtypes=HALVES,
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, reduction="none"),
    optax=lambda p, a: p.optax.softmax_cross_entropy_with_integer_labels(a.x, a.y),
)
promise(
    "the loss of float16 logits by labels, computed in float32",
    lambda p, a: sparse(a.x, a.y),
    loss_of(labels),
    dtypes=("float16",),
    computed="float32",
    tensorflow=lambda p, a: p.nn.sparse_softmax_cross_entropy_with_logits(a.y, a.x),
)
promise(
    "the gradient of float16 and bfloat16 logits",
    lambda p, a: gradient(dense, a.x, a.t),
    gradient_of(targets),
    dtypes=HALVES,
    tensorflow=lambda p, a: p.gradient(lambda x: p.nn.softmax_cross_entropy_with_logits(a.t, x), a.x),
    torch=lambda p, a: p.gradient(lambda x: p.F.cross_entropy(x, a.t, reduction="none"), a.x),
    optax=lambda p, a: p.gradient(lambda x: p.optax.softmax_cross_entropy(x, a.t), a.x),
)
promise(
    "the gradient of soft targets, row by row",
    lambda p, a: gradient(dense, a.x, a.t),
    # TensorFlow takes the sum of the targets for 1: it is off by as much as their own rounding.
    lambda a, u: gradient_of(targets)(a, u) + np.abs(targets(a).sum(-1, keepdims=True) - 1),
    dtypes=BOTH,
    tensorflow=lambda p, a: p.gradient(lambda x: p.nn.softmax_cross_entropy_with_logits(a.t, x), a.x),
    keras=lambda p, a: p.gradient(lambda x: p.ops.categorical_crossentropy(a.t, x, from_logits=True), a.x),
    torch=lambda p, a: p.gradient(lambda x: p.F.cross_entropy(x, a.t, reduction="none"), a.x),
    optax=lambda p, a: p.gradient(lambda x: p.optax.softmax_cross_entropy(x, a.t), a.x),
    scipy=lambda p, a: p.special.softmax(a.x, axis=-1) * a.t.sum(-1, keepdims=True) - a.t,
)
promise(
    "soft targets along a class axis in the middle",
    lambda p, a: dense(a.x, a.t, axis=1),
    loss_of(targets),
    inputs={"shape": (2, 7, 3, 5), "axis": 1},
    tensorflow=lambda p, a: p.nn.softmax_cross_entropy_with_logits(a.t, a.x, axis=1),
    keras=lambda p, a: p.ops.categorical_crossentropy(a.t, a.x, from_logits=True, axis=1),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.t, reduction="none"),
    optax=lambda p, a: p.optax.softmax_cross_entropy(a.x, a.t, axis=1),
    scipy=lambda p, a: -(a.t * p.special.log_softmax(a.x, axis=1)).sum(1),
)
promise(
    "soft targets along the first axis",
    lambda p, a: dense(a.x, a.t, axis=0),
    loss_of(targets),
    inputs={"shape": (7, 23), "axis": 0},
    tensorflow=lambda p, a: p.nn.softmax_cross_entropy_with_logits(a.t, a.x, axis=0),
    keras=lambda p, a: p.ops.categorical_crossentropy(a.t, a.x, from_logits=True, axis=0),
    optax=lambda p, a: p.optax.softmax_cross_entropy(a.x, a.t, axis=0),
)
promise(
    "targets that sum to 3 cost three times their mean",
    lambda p, a: dense(a.x, a.t),
    loss_of(targets),
    inputs={"target_sum": 3.0},
    tensorflow=lambda p, a: p.nn.softmax_cross_entropy_with_logits(a.t, a.x),
    keras=lambda p, a: p.ops.categorical_crossentropy(a.t, a.x, from_logits=True),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.t, reduction="none"),
    optax=lambda p, a: p.optax.softmax_cross_entropy(a.x, a.t),
)
promise(
    "the gradient of targets that sum to 3",
    lambda p, a: gradient(dense, a.x, a.t),
    gradient_of(targets),
    dtypes=BOTH,
    inputs={"target_sum": 3.0},
    torch=lambda p, a: p.gradient(lambda x: p.F.cross_entropy(x, a.t, reduction="none"), a.x),
    optax=lambda p, a: p.gradient(lambda x: p.optax.softmax_cross_entropy(x, a.t), a.x),
)
promise(
    "a common offset of 1e6 changes no loss of soft targets",
    lambda p, a: dense(a.x, a.t),
    loss_of(targets),
    inputs={"offset": 1e6},
    tensorflow=lambda p, a: p.nn.softmax_cross_entropy_with_logits(a.t, a.x),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.t, reduction="none"),
    optax=lambda p, a: p.optax.softmax_cross_entropy(a.x, a.t),
)
promise(
    "soft targets reduce to a sum",
    lambda p, a: dense(a.x, a.t, reduction="sum"),
    loss_of(targets, reduction="sum"),
    keras=lambda p, a: p.losses.CategoricalCrossentropy(from_logits=True, reduction="sum")(a.t, a.x),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.t, reduction="sum"),
    optax=lambda p, a: p.optax.softmax_cross_entropy(a.x, a.t).sum(),
)
promise(
    "soft targets reduce to a mean by sample weights",
    lambda p, a: dense(a.x, a.t, sample_weight=a.w, reduction="mean"),
    loss_of(targets, reduction="mean", weight=row_weight),
    tensorflow=lambda p, a: p.v1.losses.softmax_cross_entropy(a.t, a.x, a.w, reduction="weighted_mean"),
    keras=lambda p, a: p.losses.CategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")(
        a.t, a.x, a.w
    ),
)

# -------------------- infinities and NaN

promise(
    "logits of −inf beside the label cost nothing",
    lambda p, a: sparse(a.x, a.y),
    loss_of(labels, unshifted=True),
    inputs={"change": masked},
    tensorflow=lambda p, a: p.nn.sparse_softmax_cross_entropy_with_logits(a.y, a.x),
    keras=lambda p, a: p.ops.sparse_categorical_crossentropy(a.y, a.x, from_logits=True),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, reduction="none"),
    optax=lambda p, a: p.optax.softmax_cross_entropy_with_integer_labels(a.x, a.y),
    scipy=lambda p, a: -p.special.log_softmax(a.x, axis=-1)[np.arange(23), a.y],
)
promise(
    "logits of −inf beside a one-hot target cost nothing",
    lambda p, a: dense(a.x, xent.one_hot(a.y, 7)),
    loss_of(labels),
    inputs={"change": masked},
    optax=lambda p, a: p.optax.safe_softmax_cross_entropy(a.x, p.nn.one_hot(a.y, 7)),
)
promise(
    "the gradient beside logits of −inf",
    lambda p, a: gradient(sparse, a.x, a.y),
    gradient_of(labels),
    inputs={"change": masked},
    tensorflow=lambda p, a: p.gradient(lambda x: p.nn.sparse_softmax_cross_entropy_with_logits(a.y, x), a.x),
    torch=lambda p, a: p.gradient(lambda x: p.F.cross_entropy(x, a.y, reduction="none"), a.x),
    optax=lambda p, a: p.gradient(lambda x: p.optax.softmax_cross_entropy_with_integer_labels(x, a.y), a.x),
)
promise(
    "a logit of −inf at the label costs +inf",
    lambda p, a: sparse(a.x, a.y),
    peers.exactly,
    inputs={"change": masked_label},
    tensorflow=lambda p, a: p.nn.sparse_softmax_cross_entropy_with_logits(a.y, a.x),
    keras=lambda p, a: p.ops.sparse_categorical_crossentropy(a.y, a.x, from_logits=True),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, reduction="none"),
    optax=lambda p, a: p.optax.softmax_cross_entropy_with_integer_labels(a.x, a.y),
    scipy=lambda p, a: -p.special.log_softmax(a.x, axis=-1)[np.arange(23), a.y],
)
promise(
    "the gradient is finite where the label's logit is −inf",
    lambda p, a: gradient(sparse, a.x, a.y),
    gradient_of(labels),
    inputs={"change": masked_label},
    tensorflow=lambda p, a: p.gradient(lambda x: p.nn.sparse_softmax_cross_entropy_with_logits(a.y, x), a.x),
    torch=lambda p, a: p.gradient(lambda x: p.F.cross_entropy(x, a.y, reduction="none"), a.x),
    optax=lambda p, a: p.gradient(lambda x: p.optax.softmax_cross_entropy_with_integer_labels(x, a.y), a.x),
)
promise(
    "smoothing spreads to a logit of −inf and costs +inf",
    lambda p, a: sparse(a.x, a.y, label_smoothing=0.1),
    peers.exactly,
    inputs={"change": masked_label},
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, reduction="none", label_smoothing=0.1),
)
promise(
    "a logit of +inf beside the label costs +inf",
    lambda p, a: sparse(a.x, a.y),
    peers.exactly,
    inputs={"change": infinite_beside_the_label},
    optax=lambda p, a: p.optax.softmax_cross_entropy_with_integer_labels(a.x, a.y),
)
promise(
    "NaN stays in its row",
    lambda p, a: sparse(a.x, a.y),
    lambda a, u: loss_of(labels, unshifted=True)(SimpleNamespace(**{**vars(a), "x": np.nan_to_num(a.x)}), u),
    inputs={"change": a_row_of_nan},
    tensorflow=lambda p, a: p.nn.sparse_softmax_cross_entropy_with_logits(a.y, a.x),
    torch=lambda p, a: p.F.cross_entropy(a.x, a.y, reduction="none"),
    optax=lambda p, a: p.optax.softmax_cross_entropy_with_integer_labels(a.x, a.y),
    scipy=lambda p, a: -p.special.log_softmax(a.x, axis=-1)[np.arange(23), a.y],
)
promise(
    "the log-sum-exp of infinite logits",
    lambda p, a: xent.logsumexp(a.x),
    peers.lse,
    dtypes=BOTH,
    inputs={"change": infinite_logits},
    tensorflow=lambda p, a: p.tf.reduce_logsumexp(a.x, axis=-1),
    torch=lambda p, a: p.torch.logsumexp(a.x, -1),
    optax=lambda p, a: p.nn.logsumexp(a.x, axis=-1),
    scipy=lambda p, a: p.special.logsumexp(a.x, axis=-1),
)
promise(
    "a tiny log-sum-exp keeps its digits",
    lambda p, a: xent.logsumexp(a.x * 0 - 40 * xent.one_hot(a.y, 2, dtype=a.x.dtype)),
    # log1p(exp(−40)): the exponential, the logarithm, and the conditioning of the one in its argument.
    lambda a, u: np.asarray((2 * peers.FUNCTION + 40) * u * np.exp(-40.0)),
    dtypes=("float64",),
    inputs={"shape": (5, 2)},
    scipy=lambda p, a: p.special.logsumexp(a.x * 0 - 40 * np.eye(2)[a.y], axis=-1),
)

# -------------------- from probabilities and log-probabilities

by_labels, by_targets = peers.from_probabilities(labels), peers.from_probabilities(targets)

promise(
    "the loss of labels from probabilities",
    lambda p, a: sparse(a.p, a.y, kind="probabilities"),
    peers.from_probabilities(labels, renormalised=True),
    keras=lambda p, a: p.ops.sparse_categorical_crossentropy(a.y, a.p),
)
promise(
    "the loss of labels from probabilities",
    lambda p, a: sparse(a.p, a.y, kind="probabilities"),
    by_labels,
    dtypes=BOTH,
    torch=lambda p, a: p.F.nll_loss(a.p.log(), a.y, reduction="none"),
    scipy=lambda p, a: -p.special.xlogy(np.eye(7, dtype=a.p.dtype)[a.y], a.p).sum(-1),
)
promise(
    "the loss of a label is minus the log-probability of one draw",
    lambda p, a: sparse(a.p, a.y, kind="probabilities"),
    by_labels,
    dtypes=("float64",),
    scipy=lambda p, a: [-p.stats.multinomial.logpmf(t, 1, row) for t, row in zip(np.eye(7)[a.y], a.p, strict=True)],
)
promise(
    "the mean over labels from probabilities",
    lambda p, a: sparse(a.p, a.y, kind="probabilities", reduction="mean"),
    peers.from_probabilities(labels, reduction="mean"),
    dtypes=BOTH,
    sklearn=lambda p, a: p.metrics.log_loss(a.y, a.p, labels=np.arange(7)),
)
promise(
    "the sum over labels from probabilities",
    lambda p, a: sparse(a.p, a.y, kind="probabilities", reduction="sum"),
    peers.from_probabilities(labels, reduction="sum"),
    dtypes=BOTH,
    sklearn=lambda p, a: p.metrics.log_loss(a.y, a.p, labels=np.arange(7), normalize=False),
)
promise(
    "the mean over labels from probabilities weighs rows",
    lambda p, a: sparse(a.p, a.y, kind="probabilities", reduction="mean", sample_weight=a.w),
    peers.from_probabilities(labels, reduction="mean", weight=row_weight),
    dtypes=BOTH,
    sklearn=lambda p, a: p.metrics.log_loss(a.y, a.p, labels=np.arange(7), sample_weight=a.w),
)
promise(
    "the sum over labels from probabilities weighs rows",
    lambda p, a: sparse(a.p, a.y, kind="probabilities", reduction="sum", sample_weight=a.w),
    peers.from_probabilities(labels, reduction="sum", weight=row_weight),
    sklearn=lambda p, a: p.metrics.log_loss(a.y, a.p, labels=np.arange(7), sample_weight=a.w, normalize=False),
)
promise(
    "a one-hot of integers is a target like any",
    lambda p, a: dense(a.p, np.eye(7, dtype=np.int64)[a.y], kind="probabilities", reduction="mean"),
    peers.from_probabilities(labels, reduction="mean"),
    sklearn=lambda p, a: p.metrics.log_loss(np.eye(7, dtype=np.int64)[a.y], a.p),
)
promise(
    "the loss of soft targets from probabilities",
    lambda p, a: dense(a.p, a.t, kind="probabilities"),
    peers.from_probabilities(targets, renormalised=True),
    keras=lambda p, a: p.ops.categorical_crossentropy(a.t, a.p),
)
promise(
    "the loss of soft targets from probabilities",
    lambda p, a: dense(a.p, a.t, kind="probabilities"),
    by_targets,
    dtypes=BOTH,
    scipy=lambda p, a: -p.special.xlogy(a.t, a.p).sum(-1),
)
promise(
    "the loss of soft targets is their divergence and their entropy",
    lambda p, a: dense(a.p, a.t, kind="probabilities"),
    # t log(t / p) and −t log t, at most log 100 each, in float64.
    peers.units(2 * np.log(100) * (peers.FUNCTION + 12)),
    dtypes=("float64",),
    scipy=lambda p, a: (p.special.rel_entr(a.t, a.p) + p.special.entr(a.t)).sum(-1),
)
promise(
    "the loss of labels from log-probabilities",
    lambda p, a: sparse(a.log_p, a.y, kind="log_probabilities"),
    peers.from_log_probabilities(labels),
    dtypes=BOTH,
    torch=lambda p, a: p.F.nll_loss(a.log_p, a.y, reduction="none"),
)
promise(
    "the mean over labels from log-probabilities by class weight",
    lambda p, a: sparse(a.log_p, a.y, kind="log_probabilities", class_weight=a.c, reduction="mean"),
    peers.from_log_probabilities(labels, reduction="mean", weight=label_weight),
    torch=lambda p, a: p.F.nll_loss(a.log_p, a.y, a.c),
)
promise(
    "the gradient of labels from log-probabilities",
    lambda p, a: gradient(sparse, a.log_p, a.y, kind="log_probabilities"),
    peers.exactly,
    torch=lambda p, a: p.gradient(lambda x: p.F.nll_loss(x, a.y, reduction="none"), a.log_p),
)
promise(
    "the gradient of labels from probabilities",
    lambda p, a: gradient(sparse, a.p, a.y, kind="probabilities"),
    lambda a, u: 4 * u * labels(a) / peers.rows(a, "p"),
    torch=lambda p, a: p.gradient(lambda x: p.F.nll_loss(x.log(), a.y, reduction="none"), a.p),
)
promise(
    "the loss of soft targets from log-probabilities",
    lambda p, a: dense(a.log_p, a.t, kind="log_probabilities"),
    # The entropy that optax subtracts, log 100 at most, and that is added again.
    lambda a, u: peers.from_log_probabilities(targets)(a, u) + np.log(100) * (peers.FUNCTION + 20) * u,
    optax=lambda p, a: p.optax.kl_divergence(a.log_p, a.t) - (a.t * p.jnp.log(a.t)).sum(-1),
)

# -------------------- yes or no

promise(
    "the loss of yes or no, element by element",
    lambda p, a: binary(a.x, a.z),
    peers.binary,
    dtypes=BOTH,
    tensorflow=lambda p, a: p.nn.sigmoid_cross_entropy_with_logits(a.z, a.x),
    keras=lambda p, a: p.ops.binary_crossentropy(a.z, a.x, from_logits=True),
    torch=lambda p, a: p.F.binary_cross_entropy_with_logits(a.x, a.z, reduction="none"),
    optax=lambda p, a: p.optax.sigmoid_binary_cross_entropy(a.x, a.z),
    sklearn=lambda p, a: p.loss.HalfBinomialLoss().loss(a.z.ravel(), a.x.ravel()).reshape(a.x.shape),
    scipy=lambda p, a: -a.z * p.special.log_expit(a.x) - (1 - a.z) * p.special.log_expit(-a.x),
)
promise(
    "the gradient of yes or no",
    lambda p, a: gradient(binary, a.x, a.z),
    peers.binary_gradient,
    dtypes=BOTH,
    tensorflow=lambda p, a: p.gradient(lambda x: p.nn.sigmoid_cross_entropy_with_logits(a.z, x), a.x),
    keras=lambda p, a: p.gradient(lambda x: p.ops.binary_crossentropy(a.z, x, from_logits=True), a.x),
    torch=lambda p, a: p.gradient(lambda x: p.F.binary_cross_entropy_with_logits(x, a.z, reduction="none"), a.x),
    optax=lambda p, a: p.gradient(lambda x: p.optax.sigmoid_binary_cross_entropy(x, a.z), a.x),
    sklearn=lambda p, a: p.loss.HalfBinomialLoss().gradient(a.z.ravel(), a.x.ravel()).reshape(a.x.shape),
    scipy=lambda p, a: p.special.expit(a.x) - a.z,
)
promise(
    "a yes may weigh more",
    lambda p, a: binary(a.x, a.z, pos_weight=3.0),
    functools.partial(peers.binary, c=3.0),
    tensorflow=lambda p, a: p.nn.weighted_cross_entropy_with_logits(a.z, a.x, 3.0),
    torch=lambda p, a: p.F.binary_cross_entropy_with_logits(a.x, a.z, reduction="none", pos_weight=p.torch.tensor(3.0)),
)
promise(
    "the gradient where a yes weighs more",
    lambda p, a: gradient(binary, a.x, a.z, pos_weight=3.0),
    functools.partial(peers.binary_gradient, c=3.0),
    tensorflow=lambda p, a: p.gradient(lambda x: p.nn.weighted_cross_entropy_with_logits(a.z, x, 3.0), a.x),
    torch=lambda p, a: p.gradient(
        lambda x: p.F.binary_cross_entropy_with_logits(x, a.z, reduction="none", pos_weight=p.torch.tensor(3.0)), a.x
    ),
)
promise(
    "a yes may weigh more for some labels than for others",
    lambda p, a: binary(a.x, a.z, pos_weight=a.c),
    functools.partial(peers.binary, c=1.5),
    tensorflow=lambda p, a: p.nn.weighted_cross_entropy_with_logits(a.z, a.x, a.c),
    torch=lambda p, a: p.F.binary_cross_entropy_with_logits(a.x, a.z, reduction="none", pos_weight=a.c),
)
promise(
    "yes or no from probabilities",
    lambda p, a: binary(a.p, a.z, kind="probabilities"),
    peers.binary_from_probabilities,
    tensorflow=lambda p, a: p.v1.losses.log_loss(a.z, a.p, epsilon=0.0, reduction="none"),
    keras=lambda p, a: p.ops.binary_crossentropy(a.z, a.p),
    torch=lambda p, a: p.F.binary_cross_entropy(a.p, a.z, reduction="none"),
    scipy=lambda p, a: -p.special.xlogy(a.z, a.p) - p.special.xlog1py(1 - a.z, -a.p),
)
promise(
    "a yes or a no from its probability",
    lambda p, a: binary(a.q, a.n, kind="probabilities"),
    lambda a, u: u * 20 * (peers.FUNCTION + 6),  # of 1 − q, and of logarithms of 1 / 20 at least
    dtypes=("float64",),
    scipy=lambda p, a: -p.stats.bernoulli.logpmf(a.n, a.q),
)
promise(
    "the mean of yes or no from probabilities",
    lambda p, a: binary(a.q, a.n, kind="probabilities", reduction="mean"),
    lambda a, u: np.asarray(u * 20 * (peers.FUNCTION + 6 + 2 * a.n.size)),
    dtypes=BOTH,
    sklearn=lambda p, a: p.metrics.log_loss(a.n, a.q, labels=[0, 1]),
)
promise(
    "the sum of yes or no",
    lambda p, a: binary(a.x, a.z, reduction="sum"),
    peers.binary_reduced("sum"),
    keras=lambda p, a: p.ops.sum(p.ops.binary_crossentropy(a.z, a.x, from_logits=True)),
    torch=lambda p, a: p.F.binary_cross_entropy_with_logits(a.x, a.z, reduction="sum"),
    optax=lambda p, a: p.optax.sigmoid_binary_cross_entropy(a.x, a.z).sum(),
)
promise(
    "the mean of yes or no",
    lambda p, a: binary(a.x, a.z, reduction="mean"),
    peers.binary_reduced("mean"),
    tensorflow=lambda p, a: p.v1.losses.sigmoid_cross_entropy(a.z, a.x),
    keras=lambda p, a: p.losses.BinaryCrossentropy(from_logits=True)(a.z, a.x),
    torch=lambda p, a: p.F.binary_cross_entropy_with_logits(a.x, a.z),
    optax=lambda p, a: p.optax.sigmoid_binary_cross_entropy(a.x, a.z).mean(),
)

# -------------------- normalisation, one-hot, and the statistics of a row

promise(
    "the log-sum-exp",
    lambda p, a: xent.logsumexp(a.x),
    peers.lse,
    dtypes=BOTH,
    tensorflow=lambda p, a: p.tf.reduce_logsumexp(a.x, axis=-1),
    keras=lambda p, a: p.ops.logsumexp(a.x, axis=-1),
    torch=lambda p, a: p.torch.logsumexp(a.x, -1),
    optax=lambda p, a: p.nn.logsumexp(a.x, axis=-1),
    scipy=lambda p, a: p.special.logsumexp(a.x, axis=-1),
)
promise(
    "the log-sum-exp keeps its axis when asked",
    lambda p, a: xent.logsumexp(a.x, axis=1, keepdims=True),
    lambda a, u: peers.lse(a, u)[:, None],
    inputs={"shape": (2, 7, 3, 5), "axis": 1},
    torch=lambda p, a: p.torch.logsumexp(a.x, 1, keepdim=True),
    scipy=lambda p, a: p.special.logsumexp(a.x, axis=1, keepdims=True),
)
promise(
    "log_softmax",
    lambda p, a: xent.log_softmax(a.x),
    peers.log_softmax,
    dtypes=BOTH,
    tensorflow=lambda p, a: p.nn.log_softmax(a.x),
    keras=lambda p, a: p.ops.log_softmax(a.x),
    torch=lambda p, a: p.F.log_softmax(a.x, -1),
    optax=lambda p, a: p.nn.log_softmax(a.x),
    scipy=lambda p, a: p.special.log_softmax(a.x, axis=-1),
)
promise(
    "softmax",
    lambda p, a: xent.softmax(a.x),
    peers.softmax,
    dtypes=BOTH,
    tensorflow=lambda p, a: p.nn.softmax(a.x),
    keras=lambda p, a: p.ops.softmax(a.x),
    torch=lambda p, a: p.F.softmax(a.x, -1),
    optax=lambda p, a: p.nn.softmax(a.x),
    sklearn=lambda p, a: p.loss.HalfMultinomialLoss(n_classes=7).link.inverse(a.x),
    scipy=lambda p, a: p.special.softmax(a.x, axis=-1),
)
promise(
    "softmax along a class axis in the middle",
    lambda p, a: xent.softmax(a.x, axis=1),
    peers.softmax,
    inputs={"shape": (2, 7, 3, 5), "axis": 1},
    tensorflow=lambda p, a: p.nn.softmax(a.x, axis=1),
    keras=lambda p, a: p.ops.softmax(a.x, axis=1),
    torch=lambda p, a: p.F.softmax(a.x, 1),
    optax=lambda p, a: p.nn.softmax(a.x, axis=1),
    scipy=lambda p, a: p.special.softmax(a.x, axis=1),
)
promise(
    "one_hot",
    lambda p, a: xent.one_hot(a.y, 7),
    peers.exactly,
    tensorflow=lambda p, a: p.tf.one_hot(a.y, 7),
    keras=lambda p, a: p.ops.one_hot(a.y, 7),
    torch=lambda p, a: p.F.one_hot(a.y, 7),
    optax=lambda p, a: p.nn.one_hot(a.y, 7),
    sklearn=lambda p, a: p.preprocessing.label_binarize(a.y, classes=np.arange(7)),
)
promise(
    "one_hot is off everywhere for a label that is none",
    lambda p, a: xent.one_hot(a.y, 7),
    peers.exactly,
    inputs={"change": some_out_of_range},
    tensorflow=lambda p, a: p.tf.one_hot(a.y, 7),
    optax=lambda p, a: p.nn.one_hot(a.y, 7),
)
promise(
    "one_hot with values and an axis of one's own",
    lambda p, a: xent.one_hot(a.y, 7, on_value=0.9, off_value=0.025, axis=1),
    peers.exactly,
    inputs={"shape": (3, 5, 7)},
    tensorflow=lambda p, a: p.tf.one_hot(a.y, 7, on_value=0.9, off_value=0.025, axis=1),
)
promise(
    "the probability of the label",
    lambda p, a: xent.row_statistics(a.x, a.y).label_probability,
    lambda a, u: (labels(a) * peers.softmax(a, u)).sum(-1),
    torch=lambda p, a: p.F.softmax(a.x, -1).gather(-1, a.y[:, None])[:, 0],
    scipy=lambda p, a: p.special.softmax(a.x, axis=-1)[np.arange(23), a.y],
)
promise(
    "the largest probability",
    lambda p, a: xent.row_statistics(a.x, a.y).top_probability,
    lambda a, u: peers.softmax(a, u).max(-1),
    torch=lambda p, a: p.F.softmax(a.x, -1).max(-1).values,
    scipy=lambda p, a: p.special.softmax(a.x, axis=-1).max(-1),
)
promise(
    "the entropy of each row",
    lambda p, a: xent.row_statistics(a.p, a.y, kind="probabilities").entropy,
    # −Σ p log p ≤ log 7 < 2, normalised once more, and each logarithm at most log 1000 < 8.
    peers.units(8 * (2 * 7 + peers.FUNCTION + 12)),
    dtypes=("float64",),
    scipy=lambda p, a: p.stats.entropy(a.p, axis=-1),
)
promise(
    "a label's rank is the number of logits above it",
    lambda p, a: xent.row_statistics(a.x, a.y).label_rank,
    peers.exactly,
    scipy=lambda p, a: 7 - p.stats.rankdata(a.x, axis=-1)[np.arange(23), a.y],
)
for k in (1, 3):
    promise(
        f"a label is in the top {k} if fewer than {k} logits are above it",
        lambda p, a, k=k: np.asarray(xent.row_statistics(a.x, a.y).label_rank) < k,
        peers.exactly,
        ours_on=("NumPy",),
        tensorflow=lambda p, a, k=k: p.tf.math.in_top_k(a.y, a.x, k),
        keras=lambda p, a, k=k: p.metrics.sparse_top_k_categorical_accuracy(a.y, a.x, k=k),
    )
    promise(
        f"the number of labels in the top {k}",
        lambda p, a, k=k: np.sum(xent.row_statistics(a.x, a.y).label_rank < k),
        peers.exactly,
        sklearn=lambda p, a, k=k: p.metrics.top_k_accuracy_score(a.y, a.x, k=k, labels=np.arange(7), normalize=False),
    )
promise(
    "the weighted accuracy",
    lambda p, a: np.average(xent.row_statistics(a.x, a.y).label_rank == 0, weights=a.w),
    lambda a, u: np.asarray(2 * (a.w.size + 2) * u),
    dtypes=("float64",),
    sklearn=lambda p, a: p.metrics.accuracy_score(a.y, a.x.argmax(-1), sample_weight=a.w),
)
promise(
    "the Brier score",
    lambda p, a: brier(xent.row_statistics(a.p, a.y, kind="probabilities")).mean(),
    # Σ (p − t)² ≤ 2 of seven terms, and the mean over 23 rows.
    peers.units(2 * (7 + 4 + 23)),
    dtypes=("float64",),
    sklearn=lambda p, a: p.metrics.brier_score_loss(a.y, a.p, labels=np.arange(7)),
)
promise(
    "the weighted Brier score",
    lambda p, a: np.average(brier(xent.row_statistics(a.p, a.y, kind="probabilities")), weights=a.w),
    peers.units(2 * (7 + 4 + 2 * 23)),
    dtypes=("float64",),
    sklearn=lambda p, a: p.metrics.brier_score_loss(a.y, a.p, labels=np.arange(7), sample_weight=a.w),
)
promise(
    "the Brier score of yes or no",
    lambda p, a: brier(xent.row_statistics(np.stack([1 - a.q, a.q], -1), a.n, kind="probabilities")).mean() / 2,
    peers.units(2 * (2 + 4 + 23)),
    dtypes=("float64",),
    sklearn=lambda p, a: p.metrics.brier_score_loss(a.n, a.q, labels=[0, 1]),
)


def brier(of: Any) -> Any:
    """Σ (p − t)² of each row, from its statistics."""
    return 1 - 2 * of.label_probability + of.sum_p_squared


# -------------------- through the autodiff of the library whose arrays they are

promise(
    "autodiff gives the gradient of labels",
    lambda p, a: p.gradient(lambda x: sparse(x, a.y), a.x),
    gradient_of(labels),
    dtypes=BOTH,
    ours_on=("own",),
    torch=lambda p, a: p.gradient(lambda x: p.F.cross_entropy(x, a.y, reduction="none"), a.x),
    optax=lambda p, a: p.gradient(lambda x: p.optax.softmax_cross_entropy_with_integer_labels(x, a.y), a.x),
)
promise(
    "autodiff gives the gradient of the mean over labels that are not ignored, by class weight",
    lambda p, a: p.gradient(lambda x: sparse(x, a.y, ignore_index=-100, class_weight=a.c, reduction="mean"), a.x),
    gradient_of(labels, reduction="mean", weight=label_weight),
    inputs={"change": some_ignored},
    ours_on=("own",),
    torch=lambda p, a: p.gradient(lambda x: p.F.cross_entropy(x, a.y, a.c), a.x),
)
promise(
    "autodiff gives the gradient of targets that sum to 3",
    lambda p, a: p.gradient(lambda x: dense(x, a.t), a.x),
    gradient_of(targets),
    inputs={"target_sum": 3.0},
    ours_on=("own",),
    torch=lambda p, a: p.gradient(lambda x: p.F.cross_entropy(x, a.t, reduction="none"), a.x),
    optax=lambda p, a: p.gradient(lambda x: p.optax.softmax_cross_entropy(x, a.t), a.x),
)
promise(
    "autodiff gives the gradient in the targets",
    lambda p, a: p.gradient(lambda t: dense(a.x, t), a.t),
    peers.log_softmax,
    ours_on=("own",),
    torch=lambda p, a: p.gradient(lambda t: p.F.cross_entropy(a.x, t, reduction="none"), a.t),
    optax=lambda p, a: p.gradient(lambda t: p.optax.softmax_cross_entropy(a.x, t), a.t),
)
promise(
    "autodiff gives the gradient of yes or no",
    lambda p, a: p.gradient(lambda x: binary(x, a.z), a.x),
    peers.binary_gradient,
    ours_on=("own",),
    torch=lambda p, a: p.gradient(lambda x: p.F.binary_cross_entropy_with_logits(x, a.z, reduction="none"), a.x),
    optax=lambda p, a: p.gradient(lambda x: p.optax.sigmoid_binary_cross_entropy(x, a.z), a.x),
)
promise(
    "autodiff gives the second derivative of labels",
    lambda p, a: p.hessian(lambda x: sparse(x, a.y), a.x),
    # p ([i = j] − p): a difference of two products, each with the error of its p twice.
    lambda a, u: np.asarray(4 * (peers.softmax(a, u).max() + u)),
    inputs={"shape": (2, 3)},
    ours_on=("own",),
    torch=lambda p, a: p.hessian(lambda x: p.F.cross_entropy(x, a.y, reduction="none"), a.x),
    optax=lambda p, a: p.hessian(lambda x: p.optax.softmax_cross_entropy_with_integer_labels(x, a.y), a.x),
)

# -------------------- the tests


def unit_roundoff(dtype: np.dtype) -> float:
    return float(ml_dtypes.finfo(dtype).eps) / 2


def allowed(comparison: Comparison, arrays: SimpleNamespace, theirs: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """The peer's bound and ours, the roundings to the dtype of the results, and the effect of underflow."""
    dtype = named_dtype(comparison.dtype)
    computed = (named_dtype(comparison.computed), compute_dtype(dtype))  # by the peer, by us
    bound = sum(comparison.bound(arrays, unit_roundoff(dtype)) for dtype in computed)
    if comparison.bound is peers.exactly:
        return np.broadcast_to(bound, ours.shape)
    bound = bound + arrays.classes * smallest(dtype, flushes=PEERS[comparison.peer].flushes)
    if dtype != compute_dtype(dtype):
        bound = bound + unit_roundoff(dtype) * (np.abs(theirs) + np.abs(ours.astype(np.float64)))
    return np.broadcast_to(np.nan_to_num(bound), ours.shape)


@functools.cache
def answer_of_peer(comparison: Comparison, seed: int) -> tuple[SimpleNamespace, SimpleNamespace, np.ndarray]:
    """The inputs as NumPy's arrays and as the peer's own, and the peer's answer; computed once in a process."""
    peer = peer_named(comparison.peer)
    rng = np.random.default_rng([seed, zlib.crc32(str(comparison).encode())])
    arrays = peers.inputs(rng, dtype=comparison.dtype, **comparison.inputs)
    with peer.precision(arrays.x.dtype):
        own = peers.converted(arrays, peer.asarray)
        return arrays, own, peer.numpy(peer.call(comparison.theirs, own)).astype(np.float64)


@functools.cache
def outcome(comparison: Comparison, ours_on: str, seed: int) -> str:
    """How the two differ, empty where they agree; computed once in a process."""
    peer = peer_named(comparison.peer)
    arrays, own, theirs = answer_of_peer(comparison, seed)
    with peer.precision(arrays.x.dtype):
        ours = comparison.ours(peer, own if ours_on == "own" else arrays)
        ours = peer.numpy(ours) if ours_on == "own" else np.asarray(ours)
    within = allowed(comparison, arrays, theirs, ours)
    return far(ours, theirs, Budget(within, np.zeros(within.shape)), 1)


EVERY = [
    pytest.param(comparison, on, id=f"{comparison}, ours on {'NumPy' if on == 'NumPy' else 'its own'} arrays")
    for comparison in COMPARISONS
    for on in comparison.ours_on
]


@pytest.mark.parametrize(("comparison", "ours_on"), EVERY)
def test_a_peer_agrees(comparison, ours_on, request):
    assert not outcome(comparison, ours_on, request.config.option.seed)


def agreements(name: str, seed: int) -> int:
    """The number of comparisons in which the peer agrees; counts no further than FEWEST."""
    comparisons = (comparison for comparison in COMPARISONS if comparison.peer == name)
    agreeing = (comparison for comparison in comparisons if not outcome(comparison, comparison.ours_on[0], seed))
    return sum(1 for _ in itertools.islice(agreeing, FEWEST))


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_is_compared_in_fifteen_ways_at_least(name, request):
    peer_named(name)

    assert agreements(name, request.config.option.seed) >= FEWEST


def test_a_peer_that_is_compared_in_too_few_ways_is_found_out(monkeypatch, request):
    peer_named("scipy")
    others = [comparison for comparison in COMPARISONS if comparison.peer != "scipy"]
    few = [comparison for comparison in COMPARISONS if comparison.peer == "scipy"][:3]
    monkeypatch.setitem(globals(), "COMPARISONS", others + few)

    assert agreements("scipy", request.config.option.seed) < FEWEST


def test_a_disagreement_is_found_out(request):
    peer_named("scipy")
    true = next(comparison for comparison in COMPARISONS if comparison.peer == "scipy")
    false = dataclasses.replace(true, ours=lambda p, a: true.ours(p, a) * np.float32(1 + 1e-5))

    assert outcome(false, "NumPy", request.config.option.seed)


def test_a_required_peer_that_is_missing_fails(monkeypatch):
    monkeypatch.setattr(peers, "loaded", lambda name: f"{name} cannot be had: not installed")
    monkeypatch.setenv("XENT_REQUIRE_PEERS", "torch, scipy")

    with pytest.raises(pytest.fail.Exception, match="scipy cannot be had"):
        peers.peer_named("scipy")
    with pytest.raises(pytest.skip.Exception, match="keras cannot be had"):
        peers.peer_named("keras")
