r"""The definition, as a textbook writes it: an independent reference for tests.

.. math:: \ell = \sum_j t_j \Bigl(\log \sum_i e^{x_i} - x_j\Bigr), \qquad
          \frac{\partial \ell}{\partial x_j} = \Bigl(\sum_i t_i\Bigr) p_j - t_j

Everything here is shaped (rows, classes), takes the array namespace ``xp`` first, and computes in float64, or in the
widest floating dtype that the namespace has. It follows the library's edge rules, by selection, and shares no line with
the code under test: no fold, no merge, no :math:`\log(1 + r)`.

It leaves out the relative accuracy of tiny losses (the loss of a row whose label holds all but :math:`10^{-20}` is 0
here), the gradient's accuracy at a confident maximum, speed, memory, weights, ignored rows and reductions. Nothing is
checked.
"""

import math
from typing import Any

Array = Any
Namespace = Any


def widened(xp: Namespace, array: Array) -> Array:
    """The array in float64, or in the widest floating dtype where the namespace has no float64."""
    dtypes = xp.__array_namespace_info__().dtypes(kind="real floating")
    return xp.astype(array, dtypes.get("float64", dtypes["float32"]))


def class_numbers(xp: Namespace, labels: Array, classes: int) -> Array:
    """The numbers of the classes, shape (1, classes), in the labels' dtype."""
    return xp.arange(classes, dtype=labels.dtype)[None, :]


def nan_where(xp: Namespace, condition: Array, array: Array) -> Array:
    """The array, NaN where the condition holds."""
    return xp.where(condition, xp.full_like(array, math.nan), array)


# -------------------- targets


def one_hot(xp: Namespace, labels: Array, classes: int) -> Array:
    """1 at each row's label and 0 elsewhere, shape (rows, classes); all 0 where the label lies outside [0, classes).

    ``labels`` (rows,) must be of an integer dtype that holds ``classes``.
    """
    return widened(xp, class_numbers(xp, labels, classes) == labels[:, None])


def smooth(xp: Namespace, targets: Array, label_smoothing: float) -> Array:
    """``(1 - a) t + a / C``, shape (rows, classes)."""
    classes = targets.shape[-1]
    return (1 - label_smoothing) * widened(xp, targets) + label_smoothing / classes


def sparse_targets(xp: Namespace, labels: Array, classes: int, label_smoothing: float = 0.0) -> Array:
    """The targets that labels stand for, shape (rows, classes); NaN in a row whose label lies outside [0, classes)."""
    targets = smooth(xp, one_hot(xp, labels, classes), label_smoothing)
    inside = (labels >= 0) & (labels < classes)  # (rows,)
    return nan_where(xp, ~inside[:, None], targets)


# -------------------- logits


def is_undefined(xp: Namespace, logits: Array) -> Array:
    """Where a row has no softmax: it holds a NaN, two or more +inf, or nothing but -inf. Shape (rows, 1)."""
    x = widened(xp, logits)
    has_nan = xp.any(xp.isnan(x), axis=-1, keepdims=True)
    two_infinite = xp.sum(xp.astype(x == math.inf, xp.int32), axis=-1, keepdims=True) > 1
    return has_nan | two_infinite | xp.all(x == -math.inf, axis=-1, keepdims=True)


def shifted(xp: Namespace, x: Array) -> Array:
    """``x - max x``, shape (rows, classes): 0 at the maxima, infinite ones too."""
    highest = xp.max(x, axis=-1, keepdims=True)  # (rows, 1)
    is_highest = x == highest
    # subtle: selected before the subtraction, because inf - inf is NaN.
    return xp.where(is_highest, xp.zeros_like(x), x) - xp.where(is_highest, xp.zeros_like(x), highest)


def log_softmax(xp: Namespace, logits: Array) -> Array:
    """``x - log sum exp x``, shape (rows, classes), in the limit: 0 at one +inf logit, -inf elsewhere in its row."""
    x = widened(xp, logits)
    shift = shifted(xp, x)
    log_p = shift - xp.log(xp.sum(xp.exp(shift), axis=-1, keepdims=True))
    return nan_where(xp, is_undefined(xp, x), log_p)


def softmax(xp: Namespace, logits: Array) -> Array:
    """``exp x / sum exp x``, shape (rows, classes)."""
    return xp.exp(log_softmax(xp, logits))


def logsumexp(xp: Namespace, logits: Array) -> Array:
    """``log sum exp x``, shape (rows,): +inf where a logit is +inf, however many are, and -inf where all are -inf."""
    x = widened(xp, logits)
    return xp.max(x, axis=-1) + xp.log(xp.sum(xp.exp(shifted(xp, x)), axis=-1))


def cross_entropy(xp: Namespace, logits: Array, targets: Array) -> Array:
    """``sum t (log sum exp x - x)``, shape (rows,), in nats; a class with target 0 contributes 0 whatever its logit."""
    return log_probabilities_loss(xp, log_softmax(xp, logits), targets)


def gradient(xp: Namespace, logits: Array, targets: Array) -> Array:
    """``(sum t) p - t``, shape (rows, classes): the derivative of each row's loss by its logits."""
    t = widened(xp, targets)
    return xp.sum(t, axis=-1, keepdims=True) * softmax(xp, logits) - t


# -------------------- probabilities and log-probabilities


def log_probabilities_loss(xp: Namespace, log_probabilities: Array, targets: Array) -> Array:
    """``-sum t log p`` of log p, shape (rows,); a class with target 0 contributes 0, a NaN in the row gives NaN."""
    log_p, t = widened(xp, log_probabilities), widened(xp, targets)
    cost = 0 - xp.where(t == 0, xp.zeros_like(log_p), log_p)  # subtle: 0 - 0 is 0, where -0 would give a loss of -0
    return nan_where(xp, xp.any(xp.isnan(log_p), axis=-1), xp.sum(t * cost, axis=-1))


def log_probabilities_gradient(xp: Namespace, log_probabilities: Array, targets: Array) -> Array:
    """``-t``, shape (rows, classes), NaN in a row that holds a NaN."""
    has_nan = xp.any(xp.isnan(widened(xp, log_probabilities)), axis=-1, keepdims=True)
    return nan_where(xp, has_nan, 0 - widened(xp, targets))


def probabilities_loss(xp: Namespace, probabilities: Array, targets: Array) -> Array:
    """``-sum t log p`` of p, shape (rows,): not clipped, not normalised, so p = 0 under a target costs +inf."""
    p = widened(xp, probabilities)
    log_p = xp.log(xp.where(p == 0, xp.ones_like(p), p))
    return log_probabilities_loss(xp, xp.where(p == 0, xp.full_like(p, -math.inf), log_p), targets)


def probabilities_gradient(xp: Namespace, probabilities: Array, targets: Array) -> Array:
    """``-t / p``, shape (rows, classes): 0 where t is 0, -inf where p alone is; NaN in a row that holds a NaN."""
    p, t = widened(xp, probabilities), widened(xp, targets)
    gradient = (0 - t) / xp.where(p == 0, xp.ones_like(p), p)
    gradient_at_zero = xp.where(t == 0, xp.zeros_like(p), xp.full_like(p, -math.inf))
    has_nan = xp.any(xp.isnan(p), axis=-1, keepdims=True)
    return nan_where(xp, has_nan, xp.where(p == 0, gradient_at_zero, gradient))


# -------------------- binary


def two_classes(xp: Namespace, logits: Array, targets: Array, pos_weight: float) -> tuple[Array, Array]:
    """The binary problem in two classes: logits (0, x) and targets (1 - z, pos_weight z), both (rows, 2)."""
    x, z = widened(xp, logits), widened(xp, targets)
    return xp.stack([xp.zeros_like(x), x], axis=-1), xp.stack([1 - z, pos_weight * z], axis=-1)


def binary_cross_entropy(xp: Namespace, logits: Array, targets: Array, pos_weight: float = 1.0) -> Array:
    """``pos_weight z log(1 + exp(-x)) + (1 - z) log(1 + exp(x))``, shape (rows,), the limit at an infinite logit."""
    return cross_entropy(xp, *two_classes(xp, logits, targets, pos_weight))


def binary_gradient(xp: Namespace, logits: Array, targets: Array, pos_weight: float = 1.0) -> Array:
    """``(1 - z + pos_weight z) sigmoid(x) - pos_weight z``, shape (rows,)."""
    return gradient(xp, *two_classes(xp, logits, targets, pos_weight))[:, 1]


# -------------------- statistics


def label_rank(xp: Namespace, logits: Array, labels: Array) -> Array:
    """The number of classes before the label, shape (rows,): of a higher logit, or of an equal one and a lower number.

    0 is a hit. -1 where the row has no softmax or the label lies outside [0, classes).
    """
    x = widened(xp, logits)
    classes = x.shape[-1]
    number = class_numbers(xp, labels, classes)
    is_label = number == labels[:, None]
    label_logit = xp.max(xp.where(is_label, x, xp.full_like(x, -math.inf)), axis=-1, keepdims=True)  # (rows, 1)
    before = (x > label_logit) | ((x == label_logit) & (number < labels[:, None]))
    rank = xp.sum(xp.astype(before, labels.dtype), axis=-1)
    has_rank = xp.any(is_label, axis=-1) & ~is_undefined(xp, x)[:, 0]
    return xp.where(has_rank, rank, -xp.ones_like(rank))


def entropy(xp: Namespace, logits: Array) -> Array:
    """``-sum p log p``, shape (rows,), in nats; a class of probability 0 contributes 0."""
    log_p = log_softmax(xp, logits)
    return log_probabilities_loss(xp, log_p, xp.exp(log_p))


def sum_p_squared(xp: Namespace, logits: Array) -> Array:
    """``sum p**2``, shape (rows,): 1 for a row that is certain, 1 / C for a uniform one."""
    p = softmax(xp, logits)
    return xp.sum(p * p, axis=-1)
