"""The frozen facts of one call, from which kernels declare their eligibility and plans are made.

No array is in it. Everything here is hashable and pickles small.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One public function, as dispatch sees it. Routes are compared by identity, which is quick to hash."""

    function: str
    op: str
    method: str
    of: tuple[str, ...] = ()
    """The operands of a product that the gradient is asked for in; none are all."""
    tail: str = ""
    """As that of :class:`Problem`."""


class Options(NamedTuple):
    """The options of a call as the caller gave them; a part of the key of a plan.

    An axis that is the name of a dimension is a number from where the predictions are taken out of their DataArray.
    """

    axis: int | str = -1
    kind: str = "logits"
    reduction: Any = "none"
    ignore_index: Any = None
    label_smoothing: float = 0.0
    first_class: int = 0  # where the predictions are a slice of the classes
    num_classes: int | None = None


class Weights(NamedTuple):
    """The weights of a call: arrays, or None for 1 everywhere."""

    sample: Any = None
    classes: Any = None
    positive: Any = None
    whole: Any = None
    """The merged partial of a gradient, whose scale is ``sample``."""
    ids: Any = None
    """The ids of a :class:`xent.SparseTargets`, whose weights are the targets."""


NO_WEIGHTS = Weights()


def weights_of(
    sample: Any = None, classes: Any = None, positive: Any = None, whole: Any = None, ids: Any = None
) -> Weights:
    """The weights of a call; NO_WEIGHTS itself if there are none."""
    if sample is None and classes is None and positive is None and whole is None and ids is None:
        return NO_WEIGHTS
    return Weights(sample, classes, positive, whole, ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The facts of one call.

    Attributes
    ----------
    function : str
        The public function called.
    op : "sparse", "dense" or "binary"
        What the target is; logsumexp and softmax are "sparse" without labels.
    method : str
        "loss", "loss_and_gradient", "gradient", "statistics", "partial", "softmax", "log_softmax", "logsumexp".
    array, target_array : str
        Root module of the array types: "numpy", "torch", ...
    dtype, target_dtype : str
        "float32", "bfloat16", ...
    device : str
        "cpu", "cuda:0", "traced".
    ndim, axis : int
        Rank of the predictions; the class axis, counted from the front.
    layout : "last" or "middle"
        Whether the class axis is the last one.
    options : Options
        As the caller gave them.
    differentiated : bool
        Whether a derivative may be asked for (torch).
    validate : "auto", "always" or "never"
    threads : int
        How many threads a kernel may use.
    gradient_in_forward : bool
        Whether a loss that torch differentiates makes its gradient in the forward pass.
    views : tuple of str
        Libraries that can read the same memory without a copy; for a chunked array the library of its chunks.
    sample_weight_dtype : str
        Empty without sample weights.
    is_plain : bool
        Whether it is a loss, or one with its gradient, of logits (rows, C) and labels, without weights and without
        options but a reduction.
    is_product : bool
        Whether the predictions are a :class:`xent.Linear`, whose tiles a kernel is handed.
    of : tuple of str
        The operands of a product that the gradient is asked for in: "hidden", "classifier", "bias".
    tail : str
        Empty but for a :class:`xent.SparseTargets`, whose weights (\\*batch, k) stand where targets do: "none", or
        "class" where the last of them is the target of all classes that are not listed.
    """

    function: str
    op: str
    method: str
    array: str
    dtype: str
    device: str
    ndim: int
    axis: int
    target_array: str
    target_dtype: str
    options: Options
    differentiated: bool = False
    validate: str = "auto"
    threads: int = 1
    gradient_in_forward: bool = False
    views: tuple[str, ...] = ()
    sample_weight_dtype: str = ""
    is_plain: bool = False
    is_product: bool = False
    of: tuple[str, ...] = ()
    tail: str = ""

    @property
    def layout(self) -> str:
        return "last" if self.axis == self.ndim - 1 else "middle"

    @property
    def uses_fold(self) -> bool:
        """Whether a kernel takes part; probabilities and binary targets have no partition function."""
        return self.op != "binary" and self.options.kind == "logits"

    @property
    def is_in_torch_graph(self) -> bool:
        """Whether it is of a call in a graph of torch.compile's, as a kernel for another view of the memory sees it."""
        return self.device == "traced" and self.array == "numpy"

    @property
    def as_seen_by_kernel(self) -> Problem:
        """The problem as a kernel sees it: tiles of a product; whole rows for statistics of probabilities, which are
        those of their logarithms.
        """
        if self.is_product:
            return replace(self, ndim=2, axis=1)
        if self.method != "statistics" or self.options.kind == "logits":
            return self
        dtype = "float64" if self.dtype == "float64" else "float32"
        return replace(self, dtype=dtype, ndim=2, axis=1, options=self.options._replace(kind="logits"))

    @property
    def raises(self) -> bool:
        """Whether a bad label raises; else its row is NaN."""
        return self.validate == "always" or (self.validate == "auto" and self.device == "cpu")

    def seen_as(self, library: str) -> Problem:
        """The same problem on the same memory, as another library sees it."""
        return replace(self, array=library, target_array=library, views=(), differentiated=False)

    def of_chunks(self) -> Problem:
        """The problem of one chunk: a concrete array, reduction "none", one thread."""
        options = self.options._replace(reduction="none")
        return replace(self, array=self.views[0], target_array=self.views[0], views=(), options=options, threads=1)

    def __str__(self) -> str:
        return f"{self.op} {self.method} on {self.array}/{self.device}/{self.dtype}, class axis {self.layout}"
