"""Keras' own base for the classes of this package, and their registration for saved models, where Keras is imported.

The classes need no Keras. Where it is there, an object of one is an instance of ``keras.losses.Loss`` too, of a class
that inherits from both: ``Model.fit`` then hands it the weights of the rows, and a saved model names it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

PACKAGE = "xent"
"""What stands before the names in a saved model: xent>CategoricalCrossentropy."""
made: dict[tuple[type, type], type] = {}
"""The classes that inherit from Keras' too, by ours and Keras'."""


def with_keras_base(cls: type) -> type:
    """The class that also inherits from ``keras.losses.Loss``; the class itself where Keras is not imported."""
    keras: Any = sys.modules.get("keras")
    base = getattr(getattr(keras, "losses", None), "Loss", None)  # None while Keras is being imported
    if base is None or issubclass(cls, base):
        return cls
    if (cls, base) not in made:
        own = {name: getattr(cls, name) for name in ("__doc__", "__module__", "__qualname__")}
        both = type(cls.__name__, (cls, base), {**own, "__reduce__": reduced})
        made[cls, base] = keras.saving.register_keras_serializable(PACKAGE)(both)
    return made[cls, base]


def reduced(loss: Any) -> tuple[Any, ...]:
    """What a pickle holds of an object of such a class: the public class, and its arguments."""
    return restored, (type(loss).__bases__[0], {**loss.get_config(), "dtype": loss.dtype})


def restored(cls: type, arguments: dict[str, Any]) -> Any:
    """The object of a pickle, an instance of Keras' base where Keras is imported now."""
    return cls(**arguments)


def register(classes: Iterable[type], functions: Iterable[Callable[..., Any]]) -> None:
    """Register the classes and the functions by which a saved model names its loss, if Keras is imported."""
    register_function = getattr(getattr(sys.modules.get("keras"), "saving", None), "register_keras_serializable", None)
    if register_function is None:
        return
    for cls in classes:
        with_keras_base(cls)
    for function in functions:
        register_function(PACKAGE)(function)
