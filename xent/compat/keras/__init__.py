r"""Keras' cross entropies on any array: the functions and classes of ``keras.losses``, and ``keras.ops``' three.

Names, signatures, defaults and answers are those of Keras 3.15 with ``floatx`` float32 and ``epsilon`` 1e-7. Its four
backends answer differently; kept is TensorFlow's answer, the default's, on every library:

| case | numpy, torch, jax | tensorflow, and here |
|---|---|---|
| sparse, from probabilities | p / Σp, then clipped | clipped, then p / Σp |
| gradient of soft targets from logits | (Σt) p − t | p − t |
| label out of range | numpy, jax: −0.0; torch: IndexError, and 0 for −100 | an error |
| sparse, −inf logit beside the label | numpy, jax: NaN | contributes 0 |
| binary, from logits | numpy: clips the probability | as ``tf.nn`` |
| sparse, class axis not the last | torch: served; numpy, jax: an error | an error; here served |

Where Keras and xent disagree:

| case | xent | Keras, and here |
|---|---|---|
| probabilities | as they are; 0 costs +inf | clipped to [1e-7, 1 − 1e-7], with gradient 0 outside |
| probabilities of soft targets | need not sum to 1 | p / Σp, then clipped |
| float16, bfloat16 | float32 | functions: the dtype of ``y_pred``; there 1 − 1e-7 is 1 |
| binary, half precision, p = 1 for a yes | 0 | NaN: 0 · log 0 |
| float64 | float64 | functions: float64; classes: float32 |
| ``y_true`` | any real; labels are integers | cast to the dtype of ``y_pred``, labels to integers |
| ``y_true`` of the classes | | cast to float32 first: labels above 2²⁴ are other labels |
| ``label_smoothing`` | in [0, 1]; a / C | any number; divided by the size of the last axis, whatever ``axis`` is |
| categorical focal, from logits | | the probabilities are clipped too, so that no loss is over 16.2 α |
| binary focal, from logits | | nothing is clipped; infinite logits cost what they cost in ``tf.nn`` |
| generalised, label out of range | LabelError | 1 / q, as if its probability were 0 |
| mean | Σ w ℓ / Σ w | Σ w ℓ / N; ``mean_with_sample_weight`` is xent's, but one number w is itself the divisor |
| mean of no counted rows | NaN | 0; an empty array where there are no rows at all |
| ``sample_weight`` of other shapes | ValueError | broadcast over the losses; (N, 1) makes (N,) losses (N, 1) |
| ``sample_weight`` 0 | the row is ignored | 0 times its loss: NaN if that is not finite |
| labels (N, 1) | ValueError | squeezed |
| lists, pandas | TypeError | taken: Python's own floats as float32, all else in its dtype |
| NumPy's targets and weights beside other predictions | TypeError | moved to their library and device |

From logits, see also :mod:`xent.compat.tensorflow`, which is called. Not followed, besides what is missing:

| case | Keras | here |
|---|---|---|
| tiny losses | 0 | to full relative accuracy |
| ``_keras_mask``, ``_keras_logits`` of given predictions, replicas of a strategy | read | not read |
| ``ignore_class`` and weights in ``keras.metrics`` | a mask on the result | arrays bear none: rows count, as 0 |
| TensorFlow's tensors: sparse, categorical, binary | taken | taken, as by ``Model.fit``: computed by NumPy, not XLA |
| TensorFlow's tensors: all others; symbolic ones | taken | TypeError: no gradient would come back |
| an object that is made before Keras is imported | a ``Loss`` | none: ``fit`` weighs its result, no model saves it |
| zero classes | 0; labels: an error | ValueError |
| errors | ValueError; of TensorFlow's kernels InvalidArgumentError | ValueError; TypeError for a dtype; xent's words |
| ``set_floatx``, ``set_epsilon`` | obeyed | not known here; classes take ``dtype=`` |
| configuration of the sparse class | forgets ``axis`` | has it |
| trees of predictions | served | not known |
| labels with a fraction | compared with ``ignore_class``, then cut | cut, then compared |
| ``ops``, target of another dtype than the output | an error | taken |
| integer ``y_pred`` of the functions, the generalised apart | an error, or by backend | TypeError |
| labels beside float16 | compared with ``ignore_class`` in float16, where 2049 is 2048 | as integers |
| ``ignore_class``, one row broadcast over more weights | their mean | divided by the one row |
| ``alpha``, an array of float64 | the loss is float64 | it has the dtype of ``y_pred`` |
| focal, γ under 1, gradient where p is rounded to a certain right answer | NaN | torch: 0 for γ = 0; else NaN, later |
| lists as predictions of labels | AttributeError | taken |
"""

from __future__ import annotations

from . import ops, registration
from .focal import binary_focal_crossentropy, categorical_focal_crossentropy, categorical_generalized_cross_entropy
from .functions import (
    binary_crossentropy,
    categorical_crossentropy,
    keras1_categorical_crossentropy,
    sparse_categorical_crossentropy,
)
from .losses import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    CategoricalGeneralizedCrossEntropy,
    SparseCategoricalCrossentropy,
)

__all__ = [
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "CategoricalGeneralizedCrossEntropy",
    "SparseCategoricalCrossentropy",
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_generalized_cross_entropy",
    "keras1_categorical_crossentropy",
    "ops",
    "sparse_categorical_crossentropy",
]

registration.register(
    (
        BinaryCrossentropy,
        BinaryFocalCrossentropy,
        CategoricalCrossentropy,
        CategoricalFocalCrossentropy,
        CategoricalGeneralizedCrossEntropy,
        SparseCategoricalCrossentropy,
    ),
    (
        binary_crossentropy,
        binary_focal_crossentropy,
        categorical_crossentropy,
        categorical_focal_crossentropy,
        categorical_generalized_cross_entropy,
        sparse_categorical_crossentropy,
    ),
)


def __dir__() -> list[str]:
    return [*__all__]
