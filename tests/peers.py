r"""The six peers: how each is called here, the inputs of both sides, and how far off a peer may be.

The libraries that we compare ourselves with compute the textbook formula in the dtype of their inputs,

.. math:: \log p_j = (x_j - m) - \log \sum_i e^{x_i - m}

and its error is the sum of its roundings. With the unit roundoff u, gap g = m - x and S the sum, to the first order:

| step | error |
|---|---|
| x - m | u g |
| exp | relative 8 u (4 ulp, the worst of libm, SLEEF, Eigen and XLA), and that of its argument |
| the sum of C terms, added one after the other | relative C u |
| log S | relative 8 u, and the relative error of S: Σ p g u + 8 u + C u |
| their difference | u \|log p\| |

All bounds below are made of these. They are for what a peer computes in, to which the rounding to what it returns is
added, and the same bound for ours, which our own budget (budget.py) never exceeds by more than the additions spared.
"""

import contextlib
import functools
import importlib
import os
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from golden_cases import named_dtype

# -------------------- the peers


class Missing(Exception):
    """The peer cannot be had here, and why."""


class Peer:
    """One peer: its modules as attributes, its own arrays, its gradient."""

    name = ""
    own_arrays = False  # xent takes its arrays
    flushes = False  # subnormal numbers are taken for 0

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a peer's own import deprecates is not ours to mend
            self.load()

    def load(self) -> None:
        raise NotImplementedError

    def asarray(self, array: np.ndarray) -> Any:
        return array

    def numpy(self, result: Any) -> Any:
        return np.asarray(result)

    def call(self, function: Callable, arrays: SimpleNamespace) -> Any:
        """The result of ``function(peer, arrays)``."""
        return function(self, arrays)

    def precision(self, dtype: np.dtype) -> contextlib.AbstractContextManager:
        """Where arrays of this dtype are made and computed with."""
        return contextlib.nullcontext()

    def gradient(self, loss: Callable, at: Any) -> Any:
        """The gradient of the sum of what ``loss`` returns."""
        raise NotImplementedError


class TensorFlow(Peer):
    name = "tensorflow"
    flushes = True  # Eigen's threads set the processor so

    def load(self) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its C++ log goes to stderr, before any logger is set up
        self.tf = importlib.import_module("tensorflow")
        self.nn, self.v1 = self.tf.nn, self.tf.compat.v1

    def asarray(self, array: np.ndarray) -> Any:
        return self.tf.constant(array)

    def gradient(self, loss: Callable, at: Any) -> Any:
        with self.tf.GradientTape() as tape:
            tape.watch(at)
            value = loss(at)
        return tape.gradient(value, at)


class Keras(TensorFlow):
    """Keras on TensorFlow, its default."""

    name = "keras"

    def load(self) -> None:
        super().load()
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # read once, by Keras' import
        keras = importlib.import_module("keras")
        if keras.backend.backend() != "tensorflow":
            raise Missing(f"Keras runs on {keras.backend.backend()} here; compared is Keras on TensorFlow")
        self.ops, self.losses, self.metrics = keras.ops, keras.losses, keras.metrics


class Torch(Peer):
    name = "torch"
    own_arrays = True

    def load(self) -> None:
        self.torch = importlib.import_module("torch")
        self.F = self.torch.nn.functional

    def asarray(self, array: np.ndarray) -> Any:
        array = np.array(array)
        if array.dtype == ml_dtypes.bfloat16:
            return self.torch.from_numpy(array.view(np.int16)).view(self.torch.bfloat16)
        return self.torch.from_numpy(array)

    def numpy(self, result: Any) -> Any:
        result = self.torch.as_tensor(result).detach()
        return result.double().numpy() if result.dtype == self.torch.bfloat16 else result.numpy()

    def gradient(self, loss: Callable, at: Any) -> Any:
        at = at.detach().clone().requires_grad_()
        return self.torch.autograd.grad(loss(at).sum(), at)[0]

    def hessian(self, loss: Callable, at: Any) -> Any:
        return self.torch.autograd.functional.hessian(lambda x: loss(x).sum(), at)


class Optax(Peer):
    name = "optax"
    own_arrays = False
    flushes = True  # XLA sets the processor so

    def load(self) -> None:
        self.optax, self.jax = importlib.import_module("optax"), importlib.import_module("jax")
        self.nn, self.jnp = self.jax.nn, self.jax.numpy

    def asarray(self, array: np.ndarray) -> Any:
        return self.jnp.asarray(np.array(array))

    def call(self, function: Callable, arrays: SimpleNamespace) -> Any:
        """The same as one program: compiling it takes half the time of compiling its operations one by one."""
        constants = {name: value for name, value in vars(arrays).items() if not hasattr(value, "dtype")}
        traced = {name: value for name, value in vars(arrays).items() if name not in constants}
        return self.jax.jit(lambda traced: function(self, SimpleNamespace(**constants, **traced)))(traced)

    def precision(self, dtype: np.dtype) -> contextlib.AbstractContextManager:
        return self.jax.enable_x64(dtype == np.float64)

    def gradient(self, loss: Callable, at: Any) -> Any:
        return self.jax.grad(lambda x: loss(x).sum())(at)

    def hessian(self, loss: Callable, at: Any) -> Any:
        return self.jax.hessian(lambda x: loss(x).sum())(at)


class ScikitLearn(Peer):
    name = "sklearn"

    def load(self) -> None:
        self.metrics = importlib.import_module("sklearn.metrics")
        self.preprocessing = importlib.import_module("sklearn.preprocessing")
        self.loss = importlib.import_module("sklearn._loss")


class SciPy(Peer):
    name = "scipy"

    def load(self) -> None:
        self.special, self.stats = importlib.import_module("scipy.special"), importlib.import_module("scipy.stats")


PEERS = {peer.name: peer for peer in (TensorFlow, Keras, Torch, Optax, ScikitLearn, SciPy)}


def required() -> set[str]:
    """The peers that must be there: ``XENT_REQUIRE_PEERS`` names them, with commas between."""
    named = os.environ.get("XENT_REQUIRE_PEERS", "").split(",")
    return {name.strip() for name in named if name.strip()}


@functools.cache
def loaded(name: str) -> Peer | str:
    """The peer, or why there is none."""
    try:
        return PEERS[name]()
    except (ImportError, Missing) as error:
        return f"{name} cannot be had: {error}"


def peer_named(name: str) -> Peer:
    """The peer; without it the test is skipped, or fails where the peer is required."""
    peer = loaded(name)
    if isinstance(peer, str):
        (pytest.fail if name in required() else pytest.skip)(peer)
    return peer


# -------------------- the inputs of both sides


def inputs(
    rng: np.random.Generator,
    *,
    dtype: str = "float32",
    shape: tuple[int, ...] = (23, 7),
    axis: int = -1,
    scale: float = 3.0,
    offset: float = 0.0,
    target_sum: float = 1.0,
    change: Callable[[SimpleNamespace], None] | None = None,
) -> SimpleNamespace:
    """Random arrays of one dtype: rows of logits, and their targets, weights and probabilities.

    ``x`` logits, ``p`` probabilities and ``log_p`` their logarithms (both wide of 0 and 1), ``y`` labels, ``t`` targets
    that sum to ``target_sum``, ``w`` weights of rows, ``c`` of classes, ``z`` targets in [0, 1] of the shape of ``x``,
    ``q`` a probability and ``n`` a yes or no for each row. ``change`` may then change them in place.
    """
    d = named_dtype(dtype)
    classes = shape[axis]
    batch = tuple(size for index, size in enumerate(shape) if index != axis % len(shape))

    def cast(values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(values, dtype=d)

    soft = rng.random(shape) + 0.05
    flat = np.exp(rng.standard_normal(shape))
    p = flat / flat.sum(axis=axis, keepdims=True)
    arrays = SimpleNamespace(
        x=cast(rng.standard_normal(shape) * scale + offset),
        p=cast(p),
        log_p=cast(np.log(p)),
        y=rng.integers(0, classes, batch),
        t=cast(soft / soft.sum(axis=axis, keepdims=True) * target_sum),
        w=cast(rng.random(batch) + 0.5),
        c=cast(rng.random(classes) + 0.5),
        z=cast(rng.random(shape)),
        q=cast(rng.random(batch) * 0.9 + 0.05),
        n=rng.integers(0, 2, batch),
        axis=axis,
        classes=classes,
    )
    if change is not None:
        change(arrays)
    return arrays


def converted(arrays: SimpleNamespace, asarray: Callable[[np.ndarray], Any]) -> SimpleNamespace:
    """The same inputs, every array converted by ``asarray``."""
    return SimpleNamespace(
        **{name: asarray(value) if isinstance(value, np.ndarray) else value for name, value in vars(arrays).items()}
    )


# -------------------- how far off the textbook is: bounds, each (arrays, unit roundoff) -> array

Bound = Callable[[SimpleNamespace, float], np.ndarray]
Of = Callable[[SimpleNamespace], np.ndarray]  # the targets or weights that a bound reads from the arrays

FUNCTION = 8  # units in an exponential or a logarithm


def labels(arrays: SimpleNamespace) -> np.ndarray:
    """The labels as dense targets, classes last; no class where a label is none."""
    return (np.arange(arrays.classes) == arrays.y[..., None]).astype(np.float64)


def targets(arrays: SimpleNamespace) -> np.ndarray:
    return np.moveaxis(arrays.t.astype(np.float64), arrays.axis, -1)


def smoothed(of: Of, label_smoothing: float) -> Of:
    return lambda arrays: (1 - label_smoothing) * of(arrays) + label_smoothing / arrays.classes


def rows(arrays: SimpleNamespace, name: str) -> np.ndarray:
    """The array of that name in float64, classes last."""
    return np.moveaxis(getattr(arrays, name).astype(np.float64), arrays.axis, -1)


class Textbook:
    """The textbook's steps on rows of logits, each value with the bound of its error."""

    def __init__(self, x: np.ndarray, u: float) -> None:
        highest = x.max(axis=-1, keepdims=True)
        with np.errstate(invalid="ignore"):
            # subtle: infinities and NaN must be met exactly, so their rows need no bound.
            gap = np.where(np.isfinite(x) & np.isfinite(highest), highest - x, 0.0)
            exponential = np.where(x == -np.inf, 0.0, np.exp(-gap))
        total = np.maximum(exponential.sum(axis=-1, keepdims=True), 1.0)  # 0 only where all are −inf
        self.p = exponential / total
        self.minus_log_p = gap + np.log(total)
        relative = ((self.p * gap).sum(axis=-1, keepdims=True) + FUNCTION + x.shape[-1]) * u  # of the sum
        self.log_total_error = relative + FUNCTION * u * np.log(total)
        self.error = self.log_total_error + u * (gap + self.minus_log_p)  # of log p, and relative of p
        self.lse = np.where(np.isfinite(highest), highest, 0.0) + np.log(total)
        self.unshifted_error = 2 * u * np.abs(self.lse)  # more, if x is subtracted from the finished lse


def reduced(reduction: str, error: np.ndarray, value: np.ndarray, weight: np.ndarray, u: float) -> np.ndarray:
    """The bound of the reduction of N rows' losses: of the additions too, one after the other."""
    error, value = error * weight + 2 * u * weight * value, value * weight
    if reduction == "none":
        return error
    summed = error.sum() + (error.size + 2) * u * value.sum()
    if reduction == "sum":
        return summed
    return (summed + (error.size + 2) * u * value.sum()) / weight.sum()  # and those of the weights


def gradient_scale(reduction: str, weight: np.ndarray) -> np.ndarray:
    """The factor of each row in the gradient of the reduction."""
    return weight / weight.sum() if reduction == "mean" else weight


def weights(arrays: SimpleNamespace, weight: Of | None) -> np.ndarray:
    batch = arrays.y.shape
    return np.ones(batch) if weight is None else np.broadcast_to(weight(arrays).astype(np.float64), batch)


def loss_of(of: Of, *, reduction: str = "none", weight: Of | None = None, unshifted: bool = False) -> Bound:
    """Of losses from logits, with C products and additions, and three roundings of each smoothed target."""

    def bound(arrays: SimpleNamespace, u: float) -> np.ndarray:
        book, t = Textbook(rows(arrays, "x"), u), of(arrays)
        entry = book.error + (book.unshifted_error if unshifted else 0)
        error = (t * (entry + (arrays.classes + 6) * u * book.minus_log_p)).sum(axis=-1)
        return reduced(reduction, error, (t * book.minus_log_p).sum(axis=-1), weights(arrays, weight), u)

    return bound


def gradient_of(of: Of, *, reduction: str = "none", weight: Of | None = None) -> Bound:
    """Of (Σt) p − t, times the row's factor."""

    def bound(arrays: SimpleNamespace, u: float) -> np.ndarray:
        book, t, w = Textbook(rows(arrays, "x"), u), of(arrays), weights(arrays, weight)
        total = t.sum(axis=-1, keepdims=True)
        error = total * book.p * (book.error + (arrays.classes + FUNCTION + 4) * u) + 4 * u * t
        error = error + (w.size + 4) * u * (total * book.p + t)  # of the factor
        return np.moveaxis(error * gradient_scale(reduction, w)[..., None], -1, arrays.axis)

    return bound


def from_probabilities(
    of: Of, *, reduction: str = "none", weight: Of | None = None, renormalised: bool = False
) -> Bound:
    """Of losses from probabilities: logarithms, products, additions; where renormalised, of p / Σp and of a softmax."""

    def bound(arrays: SimpleNamespace, u: float) -> np.ndarray:
        p, t = rows(arrays, "p"), of(arrays)
        minus_log_p = -np.log(p)
        error = (t * (FUNCTION + arrays.classes + 6) * u * minus_log_p).sum(axis=-1)
        if renormalised:
            off_one = np.abs(p.sum(axis=-1, keepdims=True) - 1) + (arrays.classes + 2) * u
            entry = 2 * off_one + Textbook(-minus_log_p, u).error + FUNCTION * u * minus_log_p
            error = error + (t * entry).sum(axis=-1)
        return reduced(reduction, error, (t * minus_log_p).sum(axis=-1), weights(arrays, weight), u)

    return bound


def from_log_probabilities(of: Of, *, reduction: str = "none", weight: Of | None = None) -> Bound:
    """Of losses from log-probabilities: products and additions."""

    def bound(arrays: SimpleNamespace, u: float) -> np.ndarray:
        value = (of(arrays) * -rows(arrays, "log_p")).sum(axis=-1)
        return reduced(reduction, (arrays.classes + 6) * u * value, value, weights(arrays, weight), u)

    return bound


def lse(arrays: SimpleNamespace, u: float) -> np.ndarray:
    book = Textbook(rows(arrays, "x"), u)
    return (book.log_total_error + book.unshifted_error)[..., 0]


def log_softmax(arrays: SimpleNamespace, u: float) -> np.ndarray:
    return np.moveaxis(Textbook(rows(arrays, "x"), u).error, -1, arrays.axis)


def softmax(arrays: SimpleNamespace, u: float) -> np.ndarray:
    book = Textbook(rows(arrays, "x"), u)
    return np.moveaxis(book.p * (book.error + (FUNCTION + 2) * u), -1, arrays.axis)


def binary(arrays: SimpleNamespace, u: float, c: float = 1.0) -> np.ndarray:
    """Of (1 − z) x + (1 + (c − 1) z) (log1p exp −|x| + max(−x, 0)): six roundings of x, three functions at most."""
    return (1 + c) * u * (6 * np.abs(arrays.x.astype(np.float64)) + 3 * FUNCTION)


def binary_gradient(arrays: SimpleNamespace, u: float, c: float = 1.0) -> np.ndarray:
    """Of σ(x) (1 + (c − 1) z) − c z: up to six terms of at most 1 + c, each with its exponential's own error."""
    return (1 + c) * u * (np.abs(arrays.x.astype(np.float64)) + 6 * FUNCTION)


def binary_from_probabilities(arrays: SimpleNamespace, u: float) -> np.ndarray:
    """Of −z log p − (1 − z) log(1 − p); 1 − p is rounded by u at most, and p too where it comes from 1 − (1 − p)."""
    p, z = arrays.p.astype(np.float64), arrays.z.astype(np.float64)
    size = -z * np.log(p) - (1 - z) * np.log1p(-p)
    return u * ((FUNCTION + 6) * size + 1 / (1 - p) + 1 / p)


def binary_reduced(reduction: str) -> Bound:
    def bound(arrays: SimpleNamespace, u: float) -> np.ndarray:
        size = np.abs(arrays.x.astype(np.float64)) + np.log(2)
        return reduced(reduction, binary(arrays, u), size, np.ones(size.shape), u)

    return bound


def units(count: float) -> Bound:
    """So many units of 1, for any arrays: of a few roundings of numbers that are no larger."""
    return lambda arrays, u: np.asarray(count * u)


def exactly(arrays: SimpleNamespace, u: float) -> np.ndarray:
    """Of what is counted or copied, not computed."""
    return np.asarray(0.0)
