"""Trains with ``Model.fit`` on the backend of KERAS_BACKEND, and prints as JSON the losses of the epochs of each case.

Twice: with Keras' own loss, and with that of the same name and signature in ``xent.compat.keras``.
"""

import json
import sys
import tempfile
import warnings

import keras
import numpy as np

from xent.compat import keras as compat

ROWS, WIDTH, CLASSES = 90, 20, 7
rng = np.random.default_rng(0)
x = rng.standard_normal((ROWS, WIDTH)).astype("float32")
labels = rng.integers(0, CLASSES, ROWS)
soft = rng.dirichlet(np.ones(CLASSES), ROWS).astype("float32")
yes = (rng.random((ROWS, CLASSES)) < 0.3).astype("float32")
weight = rng.random(ROWS).astype("float32")
out_of_range = np.where(np.arange(ROWS) == 5, CLASSES, labels)


def function_of(losses, y_true, y_pred):
    return losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)


def rows_of(losses):
    """The function, as Keras takes it."""

    def rows(y_true, y_pred):
        return function_of(losses, y_true, y_pred)

    return rows


CASES = {
    "labels": lambda of: (of.SparseCategoricalCrossentropy(from_logits=True), labels, {}),
    "function": lambda of: (rows_of(of), labels, {}),
    "ignored": lambda of: (of.SparseCategoricalCrossentropy(from_logits=True, ignore_class=3), labels, {}),
    "soft": lambda of: (of.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1), soft, {}),
    "yes": lambda of: (of.BinaryCrossentropy(from_logits=True), yes, {}),
    "probabilities": lambda of: (of.SparseCategoricalCrossentropy(), labels, {}),
    "weights": lambda of: (rows_of(of), labels, {"sample_weight": weight}),
    "weighed rows": lambda of: (of.SparseCategoricalCrossentropy(from_logits=True), labels, {"sample_weight": weight}),
    "weighed classes": lambda of: (
        of.SparseCategoricalCrossentropy(from_logits=True),
        labels,
        {"class_weight": {c: c + 1.0 for c in range(CLASSES)}},
    ),
    "saved": lambda of: (of.SparseCategoricalCrossentropy(from_logits=True, ignore_class=3), labels, {}),
    "bad label": lambda of: (of.SparseCategoricalCrossentropy(from_logits=True), out_of_range, {}),
    "bad shape": lambda of: (of.CategoricalCrossentropy(from_logits=True), soft[:, :-1], {}),
}


def saved_and_loaded(model):
    """The model, from the file that it was saved in."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.keras")
        return keras.models.load_model(f"{folder}/model.keras")


def fitted(case, losses):
    """The losses of the epochs, or the error in one line; those of a model that is saved before the first."""
    keras.utils.set_random_seed(0)
    loss, targets, options = CASES[case](losses)
    activation = "softmax" if case == "probabilities" else None
    layers = [keras.layers.Dense(16, activation="relu"), keras.layers.Dense(CLASSES, activation=activation)]
    model = keras.Sequential([keras.layers.Input((WIDTH,)), *layers])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
    if case == "saved":
        model = saved_and_loaded(model)
    try:
        history = model.fit(x, targets, epochs=10, batch_size=32, shuffle=False, verbose=0, **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return history.history["loss"]


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of Keras and TensorFlow, when they are imported
    names = sys.argv[1:] or CASES
    print(json.dumps({case: [fitted(case, losses) for losses in (keras.losses, compat)] for case in names}))
