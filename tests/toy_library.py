"""An array library of a few lines that xent has never heard of: NumPy under another name."""

import numpy as np


class Shy:
    """An array library of thirty lines that xent has never heard of: NumPy under another name."""

    def __init__(self, array):
        self.array = np.asarray(array)

    shape = property(lambda self: self.array.shape)
    ndim = property(lambda self: self.array.ndim)
    dtype = property(lambda self: self.array.dtype)
    device = "cpu"

    def __array_namespace__(self, api_version=None):
        return ShyNamespace()

    def __getitem__(self, index):
        plain = tuple(unshy(one) for one in index) if isinstance(index, tuple) else unshy(index)
        return Shy(self.array[plain])

    def __setitem__(self, index, value):
        self.array[index] = unshy(value)

    def __bool__(self):
        return bool(self.array)

    def __neg__(self):
        return Shy(-self.array)

    def __invert__(self):
        return Shy(~self.array)


def unshy(value):
    return value.array if isinstance(value, Shy) else value


def operator_of(name):
    return lambda self, other: Shy(getattr(np, name)(self.array, unshy(other)))


def reflected_of(name):
    return lambda self, other: Shy(getattr(np, name)(unshy(other), self.array))


OPERATORS = {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "and": "logical_and"}
OPERATORS |= {"or": "logical_or", "lt": "less", "gt": "greater", "ge": "greater_equal", "le": "less_equal"}
OPERATORS |= {"eq": "equal", "ne": "not_equal"}
for dunder, ufunc in OPERATORS.items():
    setattr(Shy, f"__{dunder}__", operator_of(ufunc))
    if dunder in ("add", "sub", "mul", "truediv", "and", "or"):
        setattr(Shy, f"__r{dunder}__", reflected_of(ufunc))


class ShyNamespace:
    def __getattr__(self, name):
        found = getattr(np, name)
        if isinstance(found, type) or name == "__array_namespace_info__" or not callable(found):
            return found

        def wrapped(*arguments, **keywords):
            lists = [[unshy(one) for one in value] if isinstance(value, list) else unshy(value) for value in arguments]
            return Shy(found(*lists, **keywords))

        return wrapped
