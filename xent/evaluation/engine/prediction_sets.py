"""A prediction set, opened: predictions (rows, classes), one or two, labels (rows,), and the names of the classes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, repeat
from types import MappingProxyType
from typing import Any, NamedTuple

import xent
from xent.evaluation.engine.named_dimensions import in_order
from xent.evaluation.options import Keys, Options
from xent.evaluation.sources.class_names import class_names_of, ignored_numbers, numbered
from xent.evaluation.sources.flat_rows import flat, row_sizes
from xent.evaluation.sources.hidden_states import Head, linear_source
from xent.evaluation.sources.messages import refusal
from xent.evaluation.sources.opening import check_pair, open_keys, open_source
from xent.evaluation.sources.repeated_rows import of_rows
from xent.evaluation.sources.slice_columns import SliceColumns, slice_source
from xent.evaluation.sources.source import Source
from xent.evaluation.sources.topk import TopKSource
from xent.evaluation.sources.two_classes import two_classes


class PredictionSet(NamedTuple):
    """What is read, and what is known of its classes.

    Attributes
    ----------
    sources : mapping of str to Source
        By the names of the arguments: predictions, or a and b, labels, slices and clusters; rows in C order.
    names : tuple of str
        Of the classes; empty if they have none.
    ignored : tuple of int
        The labels of rows to leave out, as numbers.
    """

    sources: Mapping[str, Source]
    names: tuple[str, ...]
    ignored: tuple[int, ...]


def open_set(
    predictions: Mapping[str, Any],
    labels: Any,
    options: Options,
    *,
    keys: Keys = Keys(),  # noqa: B008  # it cannot be changed
    class_names: Any = None,
    heads: Mapping[str, Head] = MappingProxyType({}),
) -> PredictionSet:
    """The set of predictions, by the names of the arguments, and labels; only headers are read.

    Predictions that have one of the `heads`, by the same names, are hidden states.

    Raises
    ------
    FileNotFoundError, ModuleNotFoundError, ReadError, TypeError, ValueError
        If a source cannot be opened, or they do not fit.
    """
    allowed = options.allow_outside
    predictions, labels, keys = in_order(predictions, labels, keys, options.axis)
    opened = {
        name: open_predictions(name, given, heads.get(name, Head()), options) for name, given in predictions.items()
    }
    truth = open_source(labels, "labels", allowed)
    first = next(iter(opened.values()))
    for name, other in [*opened.items()][1:]:
        if len(first.shape) == len(other.shape) > 1 and first.shape != other.shape:  # else the labels would be blamed
            rule, remedy = f"have the shape of a, {first.shape}", "Compare sets of the same rows."
            if other.shown_shape == first.shape:
                remedy = "Pass `classifier` for a too: these are hidden states of the same shape."
            raise ValueError(refusal(name, rule, other, remedy))
    batch = first.shape[:1]
    is_float = truth.dtype.kind == "f" or truth.dtype.name == "bfloat16"
    is_soft = is_float if options.binary else len(first.shape) > 1 and truth.shape == first.shape
    if options.binary:
        batch = truth.shape
        kinds = chain([options.kind], repeat(options.of_b().kind))
        opened = {
            name: two_classes(numbers_of_class_1(source, name, truth, options.axis), kind)
            for (name, source), kind in zip(opened.items(), kinds, strict=False)
        }
        truth = flat(truth, None)
        truth = two_classes(truth, "probabilities") if is_soft else truth
    elif len(first.shape) > 1:
        axis = checked_axis(options.axis, first)
        batch = row_sizes(first.shape, axis)
        if not is_soft:
            check_batch(first, truth, batch)
        opened = {name: flat(source, axis) for name, source in opened.items()}
        truth = flat(truth, axis if is_soft else None) if is_soft or truth.shape == batch else truth
    first = next(iter(opened.values()))
    names: tuple[str, ...] = ()
    if len(first.shape) == 2:
        names = class_names_of(class_names, first)
        truth = truth if is_soft else numbered(truth, first, names, options.ignore_index)
    for source in opened.values():
        if is_soft:
            check_soft(source, truth, options)
        check_pair(source, truth)
    several = keys.slices if isinstance(keys.slices, SliceColumns) else None
    given = (keys if several is None else keys._replace(slices=None))._asdict()
    others = open_keys(batch, {name: key for name, key in given.items() if key is not None}, allowed)
    others = {name: of_rows(source, batch) for name, source in others.items()}
    if several is not None:
        own = [open_keys(batch, {"slices": key}, allowed)["slices"] for key in several.columns.values()]
        columns = dict(zip(several.columns, (of_rows(source, batch) for source in own), strict=True))
        others["slices"] = slice_source(columns, several.crosses)
    return PredictionSet({**opened, "labels": truth, **others}, names, ignored_numbers(truth, options.ignore_index))


def open_predictions(name: str, given: Any, head: Head, options: Options) -> Source:
    """The source of predictions, of logits that `head` makes of hidden states among them."""
    head.check_has_classifier()
    if isinstance(given, xent.Linear):
        if head.classifier is not None:
            rule, remedy = "be left out where the predictions are a xent.Linear", "It has one of its own."
            raise ValueError(refusal(head.name("classifier"), rule, "one", remedy))
        given, head = given.hidden, Head(given.classifier, given.bias, given.softcap)
    source = open_source(given, name, options.allow_outside)
    if head.classifier is None:
        return source
    is_b = name == "b"
    if (kind := options.of_b().kind if is_b else options.kind) != "logits":
        rule = f"be 'logits' where `{head.name('classifier')}` is given"
        remedy = "Leave it out: hidden states and a classifier make logits."
        if is_b and not head.suffix:
            remedy = "Pass that set as a, and the hidden states as b with `classifier_b`."
        raise ValueError(refusal("kind_b" if is_b and options.kind_b else "kind", rule, repr(kind), remedy))
    if options.binary:
        rule = f"be left out where `{head.name('classifier')}` is given"
        raise ValueError(
            refusal("binary", rule, True, "Save the classifier of both classes, of class 0 a row of zeros.")
        )
    return linear_source(source, name, head, checked_axis(options.axis, source), options.allow_outside)


def prediction_bytes(predictions: Source, labels: Source, options: Options) -> int:
    """The bytes of predictions in a task: fewer where its labels are distributions, so that both fit."""
    if len(labels.shape) == 1:
        return options.chunk_bytes
    both = predictions.row_bytes + labels.row_bytes
    return max(1, options.chunk_bytes * predictions.row_bytes // max(1, both))


def check_soft(predictions: Source, labels: Source, options: Options) -> None:
    """Raise TypeError or ValueError where labels that are distributions do not go with the predictions or options."""
    if labels.dtype.kind not in "biuf" and labels.dtype.name != "bfloat16":
        raise TypeError(
            refusal("labels", "be real numbers where each is a distribution", labels, "Save them as floats.")
        )
    if not predictions.has_whole_rows:
        rule = "have every class of a row in one piece where labels are distributions"
        raise ValueError(refusal("predictions", rule, predictions, "Pass labels.argmax(-1) of the labels."))
    for name, is_given in (("ignore_index", options.ignore_index), ("classwise", options.classwise)):
        if is_given:
            rule, remedy = (
                "be left out where labels are distributions",
                "Give a row that is to be ignored the weight 0.",
            )
            raise ValueError(
                refusal(name, rule, labels, remedy if name == "ignore_index" else f"Leave out {name}=True.")
            )


def numbers_of_class_1(predictions: Source, name: str, labels: Source, axis: int) -> Source:
    """The predictions as (rows,), one for each label; ValueError if they have another shape than the labels."""
    shape = predictions.shape
    if isinstance(predictions, TopKSource) or not shape:
        rule = "be an array of one number a row where `binary` is given"
        raise ValueError(refusal(name, rule, predictions, "Leave out binary=True."))
    axis = checked_axis(axis, predictions)
    if shape != labels.shape and (shape[axis] != 1 or row_sizes(shape, axis) != labels.shape):
        remedy = "Pass a label for each prediction."
        if shape[axis] > 1 and row_sizes(shape, axis) == labels.shape:
            remedy = f"Leave out binary=True: there are {shape[axis]} classes."
        raise ValueError(refusal("labels", f"have shape {shape}", f"{labels} for {predictions}", remedy))
    if predictions.dtype.kind not in "fV":
        rule, remedy = "be float16, bfloat16, float32 or float64", "Save predictions.astype(numpy.float32)."
        raise TypeError(refusal(name, rule, predictions, remedy))
    return flat(predictions, None)


def checked_axis(axis: int, predictions: Source) -> int:
    """The number of the class axis, from 0; ValueError if there is none."""
    ndim = len(predictions.shape)
    if not -ndim <= axis < ndim:
        rule, remedy = f"lie in [{-ndim}, {ndim})", "The classes are along it."
        raise ValueError(refusal("axis", rule, f"{axis} for {predictions}", remedy))
    return axis % ndim


def check_batch(predictions: Source, labels: Source, batch: tuple[int, ...]) -> None:
    """Raise ValueError where predictions of more than two dimensions, or of another axis, and labels do not fit."""
    shape = predictions.shape
    if labels.shape == batch or (len(shape) == 2 and batch == shape[:1] and labels.shape != shape[1:]):
        return
    axes = [axis for axis in range(len(shape)) if row_sizes(predictions.shown_shape, axis) == labels.shape]
    remedy = "Pass a label for each row, in the shape of the predictions without the classes."
    if axes:
        remedy = f"Pass axis={axes[0]} if the classes are along that axis."
    raise ValueError(refusal("labels", f"have shape {batch}", f"{labels} for {predictions}", remedy))
