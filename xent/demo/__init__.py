"""Prediction sets made on the spot whose loss is known another way: ``xent demo`` evaluates them, and checks the loss.

``digits`` has logits of a softmax regression that was trained with xent, checked against scikit-learn's loss;
``stdlib`` those of a language model of bytes, checked against its own probabilities; ``vocabulary`` those of Zipf's law
over 128,256 classes, stored in no file, checked against the closed form. ``hidden`` has hidden states of a language
model of words in place of its logits, and the head that makes them, checked against logits that are whole.
"""

from __future__ import annotations

import importlib
from typing import Any

from xent.demo.protocol import Demo, kernel

__all__ = ["Demo", "kernel", "make"]


def make(directory: Any, *, name: str = "stdlib", **sizes: Any) -> Demo:
    """The prediction set of the demo `name`, written to `directory`; `sizes` are keywords of that module's ``make``."""
    demo: Demo = importlib.import_module(f"xent.demo.{name}").make(directory, **sizes)
    return demo
