"""The loss of a batch of logits and labels, in NumPy: row by row, as a mean, and with weights and ignored rows."""

import math

import numpy as np

import xent

logits = np.asarray([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, -50.0, -50.0]], dtype=np.float32)
labels = np.asarray([0, 2, 0])

loss = xent.sparse_cross_entropy(logits, labels)  # (3,), nats
print("each row:", loss)
assert math.isclose(loss[1], math.log(3), rel_tol=1e-6)  # uniform over three classes
assert math.isclose(loss[2], 2 * math.exp(-50), rel_tol=1e-6)  # tiny, and not 0

mean = xent.sparse_cross_entropy(logits, labels, reduction="mean")
print("mean:", float(mean), "perplexity:", math.exp(mean))
assert math.isclose(mean, loss.mean(), rel_tol=1e-6)

padded = np.asarray([0, 2, -100])
mean_of_two = xent.sparse_cross_entropy(logits, padded, ignore_index=-100, reduction="mean")
print("mean of the first two:", float(mean_of_two))
assert math.isclose(mean_of_two, loss[:2].mean(), rel_tol=1e-6)

weighted = xent.sparse_cross_entropy(logits, labels, sample_weight=np.asarray([3.0, 1.0, 0.0]), reduction="mean")
print("weighted 3 to 1:", float(weighted))
assert math.isclose(weighted, (3 * loss[0] + loss[1]) / 4, rel_tol=1e-6)

soft = xent.cross_entropy(logits, xent.one_hot(labels, 3, on_value=0.9, off_value=0.05))
smoothed = xent.sparse_cross_entropy(logits, labels, label_smoothing=0.15)  # the same targets without a one-hot array
print("smoothed:", smoothed)
assert np.allclose(soft, smoothed, rtol=1e-6)
