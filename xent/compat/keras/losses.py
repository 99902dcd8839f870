"""``keras.losses``' classes: a function with its keywords and its reduction."""

from __future__ import annotations

from typing import Any

from ..operands import array_namespace, as_array, as_arrays, dtype_of_name, without_fp_warnings
from . import tensors
from .arguments import class_indices
from .focal import binary_focal_crossentropy, categorical_focal_crossentropy, categorical_generalized_cross_entropy
from .functions import binary_crossentropy, categorical_crossentropy, sparse_categorical_crossentropy
from .reductions import same_rank, weigh_and_reduce
from .registration import with_keras_base

Array = Any
FLOATX = "float32"
REDUCTIONS = ("sum_over_batch_size", "sum", None, "none", "mean", "mean_with_sample_weight")


class Loss:
    """A loss function with its keywords and its reduction: the base of the classes below.

    Parameters
    ----------
    reduction : "sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", "none" or None
        "mean" is another name of the first: the sum of the weighted losses, divided by their number.
    name : str
    dtype : str, default "float32"
        The dtype that predictions, targets and weights are cast to, labels included.

    Notes
    -----
    Where Keras is imported an object is an instance of ``keras.losses.Loss`` too (``registration.py``).
    """

    def __new__(cls, *arguments: Any, **keywords: Any) -> Loss:
        is_ours = cls.__module__ == __name__  # a subclass of a user's is as the user made it
        loss: Loss = object.__new__(with_keras_base(cls) if is_ours else cls)
        return loss

    def __init__(self, function: Any, reduction: str | None, name: str, dtype: str | None, **options: Any) -> None:
        if reduction not in REDUCTIONS:
            choices = ", ".join(map(repr, REDUCTIONS))
            raise ValueError(
                f"{type(self).__name__}: `reduction` must be one of {choices}, got {reduction!r}. Choose one."
            )
        self.function, self.reduction, self.name, self._dtype = function, reduction, name, dtype or FLOATX
        self.options = options
        vars(self).update(options)  # Keras' attributes

    @property
    def dtype(self) -> str:
        """The dtype of the computation."""
        return self._dtype

    @without_fp_warnings
    def __call__(self, y_true: Array, y_pred: Array, sample_weight: Any = None) -> Array:
        """The losses of the rows, weighted and reduced.

        Parameters
        ----------
        y_true, y_pred : array
            As in the function.
        sample_weight : array or number, optional
            Of a shape that broadcasts over the losses.

        Returns
        -------
        array, shape () or that of the losses, of the ``dtype`` of this object

        Raises
        ------
        LabelError, TypeError, ValueError
            As the function.
        """
        if tensors.is_tensor(y_pred):
            y_true, y_pred = (tensors.cast(values, self.dtype) for values in (y_true, y_pred))
            values = self.call(y_true, y_pred)
            mask = tensors.is_counted(y_true, self.options.get("ignore_class"), values)
            return tensors.weighed_and_reduced(values, sample_weight, mask, self.reduction)
        y_true, y_pred = as_arrays(y_true, y_pred)
        xp = array_namespace(y_pred)
        dtype = dtype_of_name(xp, self.dtype)
        y_true, y_pred = same_rank(*(xp.astype(array, dtype, copy=False) for array in (y_true, y_pred)))
        values, mask = self.call(y_true, y_pred), self.mask(y_true, y_pred)
        if sample_weight is not None:
            sample_weight = xp.astype(as_array(sample_weight, values), dtype)
        if mask is not None:
            mask = xp.astype(mask, dtype)
        return weigh_and_reduce(values, sample_weight, mask, self.reduction)

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """The losses of the rows."""
        return self.function(y_true, y_pred, **self.options)

    def mask(self, y_true: Array, y_pred: Array) -> Array | None:
        """Whether each row counts; None if all rows count."""
        return None

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this object again, the dtype apart."""
        return {"name": self.name, "reduction": self.reduction, **self.options}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        """The object of a configuration."""
        return cls(**config)


class CategoricalCrossentropy(Loss):
    """``keras.losses.CategoricalCrossentropy``: :func:`categorical_crossentropy`, reduced as :class:`Loss` says.

    Examples
    --------
    >>> from xent.compat import keras
    >>> float(keras.CategoricalCrossentropy()([[0, 1], [1, 0]], [[0.5, 0.5], [0.5, 0.5]], sample_weight=[1, 3]))
    1.3862943649291992
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_crossentropy",
        dtype: str | None = None,
    ) -> None:
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(categorical_crossentropy, reduction, name, dtype, **options)


class CategoricalFocalCrossentropy(Loss):
    """``keras.losses.CategoricalFocalCrossentropy``: :func:`categorical_focal_crossentropy`, reduced."""

    def __init__(
        self,
        alpha: Any = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_focal_crossentropy",
        dtype: str | None = None,
    ) -> None:
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(categorical_focal_crossentropy, reduction, name, dtype, alpha=alpha, gamma=gamma, **options)


class SparseCategoricalCrossentropy(Loss):
    """``keras.losses.SparseCategoricalCrossentropy``: :func:`sparse_categorical_crossentropy`, reduced.

    The means are over the rows that ``ignore_class`` leaves.
    """

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str = "sparse_categorical_crossentropy",
        dtype: str | None = None,
    ) -> None:
        options = {"from_logits": from_logits, "ignore_class": ignore_class, "axis": axis}
        super().__init__(sparse_categorical_crossentropy, reduction, name, dtype, **options)

    def mask(self, y_true: Array, y_pred: Array) -> Array | None:
        """Whether each row's label is not the ignored one."""
        ignored, axis = self.options["ignore_class"], self.options["axis"]
        return None if ignored is None else class_indices(y_true, y_pred, axis) != ignored


class BinaryCrossentropy(Loss):
    """``keras.losses.BinaryCrossentropy``: :func:`binary_crossentropy`, reduced."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: Any = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_crossentropy",
        dtype: str | None = None,
    ) -> None:
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(binary_crossentropy, reduction, name, dtype, **options)


class BinaryFocalCrossentropy(Loss):
    """``keras.losses.BinaryFocalCrossentropy``: :func:`binary_focal_crossentropy`, reduced."""

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: Any = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_focal_crossentropy",
        dtype: str | None = None,
    ) -> None:
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        options |= {"apply_class_balancing": apply_class_balancing, "alpha": alpha, "gamma": gamma}
        super().__init__(binary_focal_crossentropy, reduction, name, dtype, **options)


class CategoricalGeneralizedCrossEntropy(Loss):
    """``keras.losses.CategoricalGeneralizedCrossEntropy``: :func:`categorical_generalized_cross_entropy`, reduced."""

    def __init__(
        self,
        q: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_generalized_cross_entropy",
        dtype: str | None = None,
    ) -> None:
        if not 0 < q < 1:
            raise ValueError(
                f"CategoricalGeneralizedCrossEntropy: `q` must lie in (0, 1), got {q!r}. Choose between them."
            )
        super().__init__(categorical_generalized_cross_entropy, reduction, name, dtype, q=q)
