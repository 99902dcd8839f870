"""Keras' own tests of the cross entropies, of its losses, metrics and operations, run on the functions of xent.compat.

A process has one backend of Keras, so this is a program: it runs on that of KERAS_BACKEND, and prints as JSON, for each
test by its name, how it failed; nothing where it passed.
"""

import contextlib
import inspect
import io
import json
import types
import unittest
from collections.abc import Iterator

from keras.src.losses import losses, losses_test
from keras.src.metrics import probabilistic_metrics, probabilistic_metrics_test
from keras.src.ops import nn, nn_test

from xent.compat import keras as ours

OPERATIONS = ("binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy")
LOSSES = [name for name in ours.__all__ if hasattr(losses, name)]


def point_at_ours() -> None:
    """Replaces the functions that Keras' tests see."""
    losses_test.losses = types.SimpleNamespace(**vars(losses) | {name: getattr(ours, name) for name in LOSSES})
    nn_test.knn = types.SimpleNamespace(**vars(nn) | {name: getattr(ours.ops, name) for name in OPERATIONS})
    for name in OPERATIONS:
        setattr(probabilistic_metrics, name, getattr(ours, name))


def tests() -> Iterator[unittest.TestCase]:
    """Every test of a class that is named after a cross entropy, and of the operations every test that is."""
    for module in (losses_test, probabilistic_metrics_test, nn_test):
        for case in vars(module).values():
            if not inspect.isclass(case) or not issubclass(case, unittest.TestCase):
                continue
            for name in unittest.defaultTestLoader.getTestCaseNames(case):
                if "crossentropy" in f"{case.__name__}.{name}".lower().replace("_", ""):
                    yield case(name)


def failures() -> dict[str, str]:
    """The last line of each test's failure, by the module, the class and the name of the test."""
    found = {}
    for test in tests():
        result = unittest.TestResult()
        with contextlib.redirect_stdout(io.StringIO()):  # a bar of progress
            test.run(result)
        lines = [text.strip().splitlines()[-1] for _, text in (*result.errors, *result.failures)]
        found[".".join(test.id().split(".")[-3:])] = "; ".join(lines)
    return found


if __name__ == "__main__":
    point_at_ours()
    print(json.dumps(failures()))
