"""torch.nn's modules of the four losses: torch's own classes, which compute by the functions of this package.

They are subclasses: arguments, buffers, ``state_dict``, devices and ``repr`` are torch's, and what asks for an instance
of torch's class takes one of these. ``torch.compile`` takes them too; ``torch.jit.script`` does not.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from . import functions

Tensor = Any


class NotScripted:
    """A module that ``torch.jit.script`` is told not to compile."""

    def __prepare_scriptable__(self) -> NoReturn:  # which torch.jit.script calls first
        name = type(self).__name__
        remedy = f"Use torch.compile, which takes it, or torch.nn.{name}."
        raise RuntimeError(f"{name}: torch.jit.script compiles none of xent's functions. {remedy}")


class CrossEntropyLoss(NotScripted, torch.nn.CrossEntropyLoss):
    """``torch.nn.CrossEntropyLoss``, by :func:`xent.compat.torch.cross_entropy`.

    Parameters
    ----------
    weight : tensor, shape (C,), optional
        A buffer: it follows the module to another device and dtype, and is in its ``state_dict``.
    size_average, ignore_index, reduce, reduction, label_smoothing
        As in :func:`xent.compat.torch.cross_entropy`.

    Examples
    --------
    >>> import torch
    >>> from xent.compat.torch import CrossEntropyLoss
    >>> criterion = CrossEntropyLoss()
    >>> criterion(torch.zeros(2, 4), torch.tensor([2, 0]))
    tensor(1.3863)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of logits and labels, or probabilities."""
        return functions.cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(NotScripted, torch.nn.NLLLoss):
    """``torch.nn.NLLLoss``, by :func:`xent.compat.torch.nll_loss`.

    Parameters
    ----------
    weight : tensor, shape (C,), optional
        A buffer.
    size_average, ignore_index, reduce, reduction
        As in :func:`xent.compat.torch.nll_loss`.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of log-probabilities and labels."""
        return functions.nll_loss(
            input, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction
        )


class BCELoss(NotScripted, torch.nn.BCELoss):
    """``torch.nn.BCELoss``, by :func:`xent.compat.torch.binary_cross_entropy`.

    Parameters
    ----------
    weight : tensor that broadcasts to the input, optional
        A buffer.
    size_average, reduce, reduction
        As in :func:`xent.compat.torch.binary_cross_entropy`.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of probabilities and targets in [0, 1]."""
        return functions.binary_cross_entropy(input, target, weight=self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(NotScripted, torch.nn.BCEWithLogitsLoss):
    """``torch.nn.BCEWithLogitsLoss``, by :func:`xent.compat.torch.binary_cross_entropy_with_logits`.

    Parameters
    ----------
    weight, pos_weight : tensors that broadcast to the input, optional
        Buffers.
    size_average, reduce, reduction
        As in :func:`xent.compat.torch.binary_cross_entropy_with_logits`.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of logits and targets in [0, 1]."""
        return functions.binary_cross_entropy_with_logits(
            input, target, weight=self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )
