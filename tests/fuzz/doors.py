"""The doors that a call can be made through: each is a library, a kernel, and a way of calling.

A door returns the outputs of the call as NumPy arrays, by name. Doors whose outputs must be the same to the bit say so
by a key in common; docs/semantics.md has the promises.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from libraries import VARIANTS, Library, Missing

import xent
from xent.dispatch.registry import registry

from . import layouts
from .calls import ARRAYS, LOSSES, Call

FUNCTIONS: dict[str, Callable] = {
    "sparse": xent.sparse_cross_entropy,
    "dense": xent.cross_entropy,
    "binary": xent.binary_cross_entropy,
    "statistics": xent.row_statistics,
    "softmax": xent.softmax,
    "log_softmax": xent.log_softmax,
    "logsumexp": xent.logsumexp,
    "one_hot": xent.one_hot,
}
GRADIENTS = {name: xent.value_and_grad(FUNCTIONS[name]) for name in LOSSES}
Outputs = dict[str, np.ndarray]


@functools.cache
def library(variant: str) -> Library | None:
    """A library of tests/libraries.py; None where it is not installed."""
    try:
        return VARIANTS[variant](variant)
    except (ImportError, Missing):
        return None


@dataclass(frozen=True)
class Door:
    """One way of making a call.

    Attributes
    ----------
    name : str
    variant : str
        The library, by its name in tests/libraries.py.
    method : "value", "gradient", or the name of one of the ways below
    kernel : str or None
        Forced; None leaves it to xent.
    threads : int
    share : float
        How often it is taken, of the calls that it serves.
    """

    name: str
    variant: str
    method: str = "value"
    kernel: str | None = None
    threads: int = 1
    share: float = 1.0

    @property
    def lib(self) -> Library | None:
        return library(self.variant)

    @property
    def flushes(self) -> bool:
        return self.lib.flushes

    def serves(self, call: Call) -> bool:
        """Whether the call can be made here."""
        lib = self.lib
        if lib is None or (call.refused and self.method in ("row by row", "slices", "autograd", *TRACED)):
            return False
        if call.predictions is not None and not call.refused and call.predictions.dtype.name not in lib.dtypes:
            return False
        if (
            self.kernel
            and self.kernel != "generic"
            and (call.kind != "logits" or call.function in ("binary", "one_hot"))
        ):
            return False
        if call.function == "one_hot" and (self.kernel or self.method != "value"):
            return False
        if lib.name == "array-api-strict" and not serves_strict(call):
            return False
        if lib.flushes and has_subnormals(call):
            return False
        return WAYS[self.method].serves(call)

    def outputs(self, call: Call) -> Outputs:
        """The call's outputs, as NumPy arrays; or whatever it raises."""
        with self.settings(call):
            return WAYS[self.method].run(self, call)

    @contextlib.contextmanager
    def settings(self, call: Call) -> Iterator[None]:
        told: dict[str, Any] = {"threads": self.threads}
        if self.kernel is not None:
            told["kernel"] = self.kernel
        if call.validate != "auto":
            told["validate"] = call.validate
        with xent.using(**told):
            yield

    def raises_labels(self, call: Call) -> bool:
        """Whether a bad label raises at this door; else its row is NaN."""
        return self.lib.raises_labels and call.validate != "never" and self.method not in TRACED

    def bits(self, call: Call, output: str) -> tuple | None:
        """The key that outputs have in common which must be the same to the bit; None where that is not promised."""
        if self.method == "few classes":
            return None  # whose class weights are added in another order
        if self.method in ("torch.func", "vmap"):
            return None  # the expressions of every library, not a kernel
        if self.method == "autograd" and output == "gradient" and self.kernel != "numpy" and has_plugins():
            return None  # a kernel's gradient may differ from that of its loss_and_gradient: docs/semantics.md
        kernel = self.kernel or "its choice"
        is_plain = call.is_contiguous
        if self.variant in ("jax", "jax-jit"):
            return None if self.method in TRACED and output == "gradient" else ("jax", output)
        if self.variant in ("numpy", "torch", "dask") and is_plain and self.method != "slices":
            if self.variant == "dask" and call.reduction != "none":
                return None
            return ("memory", kernel, output)
        return (self.variant, kernel, output)


def serves_strict(call: Call) -> bool:
    """Whether array-api-strict has every dtype of the call."""
    floats = ("float32", "float64", "bool", *(f"{s}int{b}" for s in ("", "u") for b in (8, 16, 32, 64)))
    return all(array.dtype.name in floats for array in call.arrays().values())


def has_subnormals(call: Call) -> bool:
    """Whether a number matters that a library may take for 0: one that is a probability, a target or a weight."""
    for name, array in call.arrays().items():
        if array.dtype.kind in "iub" or (name == "predictions" and call.kind == "logits"):
            continue
        magnitude = np.abs(array.astype(np.float64))
        # float16's subnormals are normal numbers of float32, and float64's are none of anybody's
        if np.any((magnitude > 0) & (magnitude < 1e-37)):
            return True
    return False


# -------------------- arguments


def positional(call: Call) -> list[tuple[str, Any]]:
    arrays = [("predictions", call.predictions), ("targets", call.targets)]
    return [(name, array) for name, array in arrays if array is not None]


def keywords(call: Call) -> dict[str, Any]:
    """The keywords that a function takes."""
    return {name: value for name, value in call.options.items() if name not in ("num_classes", "cuts", "order")}


def arguments(lib: Library, call: Call) -> tuple[list[Any], dict[str, Any]]:
    """The library's own arrays, lying as the call says."""
    axis = -1 if call.refused == "axis" else call.options.get("axis", -1)
    rank = call.predictions.ndim if call.predictions is not None else -1

    def own(name: str, array: np.ndarray) -> Any:
        has_classes = call.function != "binary" and (array.ndim == rank or name == "class_weight")
        classes = (0 if name == "class_weight" else axis) if has_classes else None
        return placed(lib, array, call.layouts.get(name, "C"), classes)

    told = [own(name, array) for name, array in positional(call)]
    if call.function == "one_hot":
        told.append(call.options["num_classes"])
    named = {
        name: own(name, value) if name in ARRAYS and isinstance(value, np.ndarray) else value
        for name, value in keywords(call).items()
    }
    return told, named


def placed(lib: Library, array: np.ndarray, layout: str, classes: int | None) -> Any:
    """The library's own array of these values, lying in the layout if the library has it."""
    if lib.name.startswith("numpy"):
        return layouts.of_numpy(array, layout)
    own = lib.asarray(array, classes=classes)
    if lib.name == "torch":
        return layouts.of_torch(own, layout)
    if lib.name == "array-api-strict":
        return layouts.of_standard(lib.xp, own, layout)
    return own


# -------------------- ways


@dataclass(frozen=True)
class Way:
    serves: Callable[[Call], bool]
    run: Callable[[Door, Call], Outputs]


def named_outputs(call: Call, result: Any) -> Outputs:
    """The results of a function by their names."""
    if hasattr(result, "_fields"):
        return dict(zip(result._fields, result, strict=True))
    if isinstance(result, tuple):
        return dict(zip(("loss", "gradient"), result, strict=True))
    return {"loss" if call.function in LOSSES else call.function: result}


def with_wide_floats(lib: Library, call: Call) -> Any:
    """Where JAX computes in 64 bits: where an array has them."""
    if not lib.name.startswith("jax"):
        return contextlib.nullcontext()
    return lib.jax.enable_x64(any(array.dtype == np.float64 for array in call.arrays().values()))


def value(door: Door, call: Call) -> Outputs:
    return through(door, call, FUNCTIONS[call.function])


def gradient(door: Door, call: Call) -> Outputs:
    return through(door, call, GRADIENTS[call.function])


def through(door: Door, call: Call, function: Callable) -> Outputs:
    """The function on the library's arrays; what it was handed is not written."""
    lib = door.lib
    with with_wide_floats(lib, call):
        told, named = arguments(lib, call)
        with lib.strictly():
            result = lib.run(function, told, named)
        outputs = named_outputs(call, lib.numpy(result))
    if lib.name == "numpy":
        check_unwritten(call, told, named)
    return outputs


def few_classes(door: Door, call: Call) -> Outputs:
    """The soft targets as those of a few classes, which are all, the last one first."""
    lib, classes = door.lib, call.classes
    weights = np.ascontiguousarray(np.moveaxis(call.targets, call.axis, -1)[..., ::-1])
    ids = np.broadcast_to(np.arange(classes)[::-1], weights.shape)
    with with_wide_floats(lib, call):
        (predictions, _), named = arguments(lib, call)
        targets = xent.SparseTargets(*(placed(lib, one, "C", -1) for one in (ids, weights)))
        with lib.strictly():
            result = GRADIENTS["dense"](predictions, targets, **named)
        return named_outputs(call, lib.numpy(result))


class Written(AssertionError):
    """An input was written."""


def check_unwritten(call: Call, told: list[Any], named: dict[str, Any]) -> None:
    """The arrays have the values that the call has."""
    given = [array for _, array in positional(call)]
    pairs = [*zip(told, given, strict=False), *((named[name], call.options[name]) for name in named if name in ARRAYS)]
    for own, original in pairs:
        if isinstance(original, np.ndarray) and np.ascontiguousarray(own).tobytes() != original.tobytes():
            raise Written("an input was written")


def row_by_row(door: Door, call: Call) -> Outputs:
    """Every row in a call of its own."""
    rows = call.targets.size if call.has_labels else call.predictions.size // call.classes
    found = [value_or_gradient(door, row_of(call, number)) for number in range(rows)]
    last = call.predictions.shape[:-1]
    return {
        name: np.concatenate([one[name] for one in found]).reshape(
            call.predictions.shape if name in ("gradient", "softmax", "log_softmax") else last
        )
        for name in found[0]
    }


def value_or_gradient(door: Door, call: Call) -> Outputs:
    return gradient(door, call) if call.function in LOSSES else value(door, call)


def row_of(call: Call, number: int) -> Call:
    """One row of a call whose class axis is the last."""
    x = call.predictions.reshape(-1, call.classes)[number : number + 1]
    targets, options = call.targets, dict(call.options)
    if targets is not None:
        targets = targets.reshape(-1, *(() if call.has_labels else (call.classes,)))[number : number + 1]
    if options.get("sample_weight") is not None:
        options["sample_weight"] = options["sample_weight"].reshape(-1)[number : number + 1]
    return call.replace(predictions=x, targets=targets, options=options | {"axis": -1}, layouts={})


def has_rows(call: Call) -> bool:
    return (
        call.function in ("sparse", "dense", "statistics", "softmax", "log_softmax", "logsumexp")
        and call.is_contiguous
        and call.reduction == "none"
        and 0 < call.predictions.size // call.classes <= 20
    )


def slices(door: Door, call: Call) -> Outputs:
    """Slices of the classes, each its own partial, merged in some order."""
    with with_wide_floats(door.lib, call):
        return merged_slices(door.lib, call)


def merged_slices(lib: Library, call: Call) -> Outputs:
    options, axis = call.options, call.axis
    bounds = [0, *options["cuts"], call.classes]
    parts = []
    shared = {name: options[name] for name in ("axis", "label_smoothing") if name in options}
    lying = {name: call.layouts.get(name, "C") for name in ("predictions", "targets")}
    for first, last in itertools.pairwise(bounds):
        index = tuple(slice(first, last) if one == axis else slice(None) for one in range(call.predictions.ndim))
        x = placed(lib, call.predictions[index], lying["predictions"], axis)
        told = {"first_class": first, "num_classes": call.classes}
        if call.is_dense:
            told["targets"] = placed(lib, call.targets[index], lying["targets"], axis)
        else:
            told["labels"] = placed(lib, call.targets, lying["targets"], None)
        with lib.strictly():
            parts.append(xent.partial(x, **told, **shared))
    parts = [parts[number] for number in options["order"]]
    with lib.strictly():
        merged = xent.merge(*parts)
        loss = xent.finish(merged)
    loss, (highest, rest, *_) = lib.numpy(loss), lib.numpy(tuple(merged))
    with np.errstate(all="ignore"):
        beyond = np.log1p(np.where(rest < 0, np.nan, rest).astype(np.longdouble))
        lse = np.where(np.isinf(highest), highest, highest.astype(np.longdouble) + beyond)
    return {"loss": loss, "lse": lse.astype(highest.dtype)}


def by_autograd(door: Door, call: Call) -> Outputs:
    """torch's own backward pass from the sum of the losses."""
    told, named = arguments(door.lib, call)
    leaf = told[0].requires_grad_()
    loss = FUNCTIONS[call.function](leaf, told[1], **named)
    if not loss.requires_grad:
        raise AssertionError("the loss of a tensor that requires a gradient does not")
    loss.sum().backward()
    return {"loss": door.lib.numpy(loss), "gradient": door.lib.numpy(leaf.grad)}


def by_torch_func(door: Door, call: Call) -> Outputs:
    torch = door.lib.torch
    told, named = arguments(door.lib, call)
    slope = torch.func.grad(lambda x: FUNCTIONS[call.function](x, told[1], **named).sum())(told[0])
    return {"gradient": door.lib.numpy(slope)}


def by_jax_grad(door: Door, call: Call) -> Outputs:
    """jax.value_and_grad of the sum of the losses; under jax.jit on "jax-jit"."""
    lib = door.lib
    with with_wide_floats(lib, call):
        told, named = arguments(lib, call)
        loss, slope = lib.run(summed_gradient(call.function, lib.jax), told, named)
        return {"loss": lib.numpy(loss), "gradient": lib.numpy(slope)}


@functools.cache
def summed_gradient(function: str, jax: Any) -> Callable:
    def with_sum(x: Any, t: Any, **named: Any) -> Any:
        loss = FUNCTIONS[function](x, t, **named)
        return loss.sum(), loss

    def loss_and_gradient(x: Any, t: Any, **named: Any) -> Any:
        slope, loss = jax.grad(with_sum, has_aux=True)(x, t, **named)
        return loss, slope

    return loss_and_gradient


def by_vmap(door: Door, call: Call) -> Outputs:
    """Every row in a call of its own, all of them at once, by the library's vmap."""
    lib = door.lib
    with with_wide_floats(lib, call):
        told, named = arguments(lib, call)
        vmap = lib.jax.vmap if lib.name.startswith("jax") else lib.torch.func.vmap
        loss = vmap(functools.partial(FUNCTIONS[call.function], **named | {"axis": -1}))(*told)
        return {"loss": lib.numpy(loss)}


def can_be_mapped(call: Call) -> bool:
    return (
        call.function in ("sparse", "dense")
        and call.predictions.ndim == 2
        and len(call.predictions) > 0  # torch cannot reshape no examples to as many rows as there are
        and call.axis == 1
        and call.reduction == "none"
        and "sample_weight" not in call.options
    )


def any_call(call: Call) -> bool:
    return call.function != "partial"


def is_loss(call: Call) -> bool:
    return call.function in LOSSES


WAYS = {
    "value": Way(any_call, value),
    "gradient": Way(is_loss, gradient),
    "few classes": Way(lambda call: call.function == "dense" and not call.refused, few_classes),
    "again": Way(any_call, lambda door, call: value_or_gradient(door, call)),
    "row by row": Way(has_rows, row_by_row),
    "slices": Way(lambda call: call.function == "partial", slices),
    "autograd": Way(is_loss, by_autograd),
    "torch.func": Way(is_loss, by_torch_func),
    "jax.grad": Way(is_loss, by_jax_grad),
    "vmap": Way(can_be_mapped, by_vmap),
}
TRACED = ("jax.grad", "torch.func", "vmap")
"""The ways in which nothing can raise for the value of a label."""


def kernels() -> list[str]:
    """The kernels that can be forced on NumPy's arrays: xent's own, and those of the plugins that are installed."""
    registry.load()
    names = {spec.name for spec in registry.kernels if "numpy" in spec.arrays or "*" in spec.arrays}
    return ["generic", *sorted(names - {"generic"})]


def has_plugins() -> bool:
    return set(kernels()) > {"generic", "numpy"}


@functools.cache
def doors(compiled: bool) -> tuple[Door, ...]:
    """Every door; with those that compile each shape anew, or without."""
    if compiled:
        ways = [(variant, method) for variant in ("jax", "jax-jit") for method in ("value", "gradient", "jax.grad")]
        through = (Door(f"{variant} {method}", variant, method) for variant, method in ways)
        others = (Door(f"jax {method}", "jax", method) for method in ("slices", "vmap", "few classes"))
        return Door("numpy", "numpy"), *through, *others
    every = [
        Door("numpy", "numpy"),
        Door("numpy gradient", "numpy", "gradient"),
        Door("numpy again", "numpy", "again", share=0.5),
        Door("numpy two threads", "numpy", "again", threads=2, share=0.3),
        Door("numpy row by row", "numpy", "row by row", share=0.4),
        Door("numpy slices", "numpy", "slices"),
        *(Door(f"{name} few classes", name, "few classes", share=0.3) for name in ("numpy", "torch", "cupy")),
        *(Door(f"{name} few classes", name, "few classes", share=0.1) for name in ("array-api-strict", "dask-split")),
        Door("torch", "torch", share=0.7),
        Door("torch gradient", "torch", "gradient", share=0.7),
        Door("torch autograd", "torch", "autograd", share=0.7),
        Door("torch.func", "torch", "torch.func", share=0.15),
        Door("torch vmap", "torch", "vmap", share=0.15),
        Door("torch slices", "torch", "slices", share=0.7),
        Door("array-api-strict", "array-api-strict", share=0.25),
        Door("array-api-strict gradient", "array-api-strict", "gradient", share=0.2),
        Door("array-api-strict slices", "array-api-strict", "slices", share=0.3),
        Door("dask", "dask", share=0.1),
        Door("dask gradient", "dask", "gradient", share=0.1),
        Door("dask slices", "dask", "slices", share=0.1),
        Door("dask-split", "dask-split", share=0.1),
        Door("dask-split gradient", "dask-split", "gradient", share=0.1),
        Door("cupy", "cupy"),
        Door("cupy gradient", "cupy", "gradient"),
        Door("cupy slices", "cupy", "slices"),
    ]
    for kernel in kernels():
        every += [
            Door(f"kernel {kernel}", "numpy", kernel=kernel),
            Door(f"kernel {kernel} gradient", "numpy", "gradient", kernel=kernel),
            Door(f"kernel {kernel} slices", "numpy", "slices", kernel=kernel),
            Door(f"kernel {kernel} row by row", "numpy", "row by row", kernel=kernel, share=0.2),
            Door(f"kernel {kernel} two threads", "numpy", "again", kernel=kernel, threads=2, share=0.2),
        ]
        if kernel != "generic":
            every.append(Door(f"torch autograd {kernel}", "torch", "autograd", kernel=kernel, share=0.4))
    return tuple(every)


def door_named(name: str) -> Door | None:
    """The door of this name; None where its kernel is not installed."""
    return next((door for door in (*doors(False), *doors(True)) if door.name == name), None)
