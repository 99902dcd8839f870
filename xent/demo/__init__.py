"""Prediction sets made on the spot whose loss is known another way: what ``xent demo`` evaluates, and checks.

``digits`` are logits of a softmax regression that was trained with xent, held against scikit-learn's loss;
``stdlib`` those of a language model of bytes, held against its own probabilities; ``vocabulary`` those of Zipf's law
over 128,256 classes, which no file holds, against the closed form.
"""

from __future__ import annotations

import importlib
from typing import Any

from xent.demo.made import Demo, kernel

__all__ = ["DEMOS", "Demo", "kernel", "make"]

DEMOS = ("digits", "stdlib", "vocabulary")


def make(directory: Any, *, name: str = "stdlib", **sizes: Any) -> Demo:
    """What the demo `name` makes in `directory`; `sizes` are the keywords of its own ``make``."""
    made: Demo = importlib.import_module(f"xent.demo.{name}").make(directory, **sizes)
    return made
