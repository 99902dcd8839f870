"""torch.nn.functional's cross entropies on any array, and torch.nn's modules of them, with torch's own answers.

``input`` is (C,), (N, C) or (N, C, d1, ...): the class axis is 1, or 0 where there is no other. A target of the shape
of the input holds probabilities, any other labels. The result has torch's dtype, half precision too, and
autograd through these functions is autograd through xent's. The modules are subclasses of torch's, made where one is
asked for: the functions need no torch. torch's answers to infinities cost one more pass over the logits, and a mask of
their size. Where torch and xent disagree:

| case | xent | torch, and here |
|---|---|---|
| probabilities and ``weight`` | a factor on the whole row | a factor on each class; the mean is over the rows |
| smoothing and ``weight`` | a factor on the whole smoothed row | a factor on each class of the smoothed target |
| ``label_smoothing`` < 0 | ValueError | as 0 |
| a +inf logit | 0 at it, +inf elsewhere | NaN loss and gradient |
| −inf logit at target probability 0 | contributes 0 | NaN loss, finite gradient |
| weight 0 and a loss of +inf | 0 | NaN |
| ``nll_loss``, NaN beside the label | NaN | not read |
| probability 0 or 1 of the other answer | +inf | 100; the p (1 − p) of both derivatives is at least 1e-12 |
| (C,) logits, a label of shape (1,) | ValueError | the one label |
| binary, infinite logits | the limit, 0 or +inf | NaN at +inf for a yes, at −inf always; finite gradient |
| float16, bfloat16 | float32 | the input's dtype; of binary logits the target's |

Not followed:

| case | torch | here |
|---|---|---|
| NaN or an infinity in a row that is ignored or of weight 0 | its gradient is NaN | 0 |
| tiny losses | 0 | to full relative accuracy |
| float16 and bfloat16 inside | rounded on a CPU, overflows at C = 1e5; float32 on a GPU | float32 |
| labels out of range on a GPU | an assertion that loses the GPU | the row is NaN |
| probabilities outside [0, 1], on Dask, JAX or a GPU, under torch.func or compiled | RuntimeError, or as above | NaN |
| labels of other integer dtypes, weights of other floating ones, binary targets of integers | RuntimeError | taken |
| uint8 label 156 with smoothing and ``ignore_index`` −100 | ignored | counted |
| ``label_smoothing`` 1 and −inf at the label | NaN | +inf |
| zero classes, of no rows, of ignored labels or of probabilities | 0 or NaN | an IndexError, as for labels |
| class weights of shape (1, C), for images | taken | RuntimeError: weights have shape (C,) |
| (C,) logits, a label of shape (1,), smoothed | RuntimeError | the one label |
| ``linear_cross_entropy``, ``LinearCrossEntropyLoss`` | a layer and its loss in one | not here: xent has no such loss |
| mean where the weights of the labels sum to 0 | NaN or ±inf, its gradient NaN | NaN, 0 |
| a NaN among the class weights, on Dask | NaN for its labels | NaN for all |
| the class weights' derivative, from labels or of binary losses | RuntimeError | computed |
| ``nll_loss`` on Dask | O(N) | a pass over the classes |
| gradient of a binary target, p at 0 or 1 | infinite | ±100 |
| the words of errors, and the first of several | torch's | xent's words, which say what to pass; the type is torch's |
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .functions import binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy, nll_loss

if TYPE_CHECKING:  # what __getattr__ loads, for type checkers and editors
    from .modules import BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, NLLLoss

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "NLLLoss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "nll_loss",
]
MODULES = {
    "BCELoss": "binary_cross_entropy",
    "BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
    "CrossEntropyLoss": "cross_entropy",
    "NLLLoss": "nll_loss",
}
"""The function of each class. The classes are torch's modules: torch is imported where one of them is asked for."""


if not TYPE_CHECKING:  # a name that is not there is an error for type checkers, too

    def __getattr__(name: str) -> Any:
        if name not in MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            value = getattr(importlib.import_module(f"{__name__}.modules"), name)
        except ModuleNotFoundError as error:
            remedy = f"Install torch, or call {__name__}.{MODULES[name]}, which needs none."
            message = f"{__name__}.{name} is a module of torch, which is not installed. {remedy}"
            raise ModuleNotFoundError(message, name=error.name) from error
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return [*__all__]
