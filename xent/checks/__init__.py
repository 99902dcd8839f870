"""Every precondition and every message.

``function: `argument` must rule, got value. Remedy.`` Metadata is checked once per kind of call, shapes on every call,
labels by their values where they can be read; all before any result is returned.
"""

from .array_shapes import (
    chunk,
    fixed_classes,
    known_chunks,
    known_classes,
    known_rows,
    same_chunks,
    shapes,
    weight_shapes,
)
from .array_types import FLOATS, array, array_api, labels_dtype, no_product, unfit_dtype
from .axes import class_axis, coordinates, dimensions, named_axis, new_dimension
from .call_options import KINDS, VALIDATE, WEIGHTS, Kind, Validate, denominator, empty, known_in_graph, options
from .calls import keywords, known_loss, metadata, next_plan, no_positional, plugin, positional
from .class_slices import merged, partials, slice_of_classes
from .few_classes import sparse_targets, tail, takes_sparse_targets
from .gradient_output import no_output_in_graph, output
from .label_values import labels, labels_of_chunk
from .plain_values import choice, classes, describe_type, flag, integer, is_count, is_real, name, names, number, quoted
from .products import OPERANDS, has_bias, has_operands, of_operands, operands, softcap

__all__ = [
    "FLOATS",
    "KINDS",
    "OPERANDS",
    "VALIDATE",
    "WEIGHTS",
    "Kind",
    "Validate",
    "array",
    "array_api",
    "choice",
    "chunk",
    "class_axis",
    "classes",
    "coordinates",
    "denominator",
    "describe_type",
    "dimensions",
    "empty",
    "fixed_classes",
    "flag",
    "has_bias",
    "has_operands",
    "integer",
    "is_count",
    "is_real",
    "keywords",
    "known_chunks",
    "known_classes",
    "known_in_graph",
    "known_loss",
    "known_rows",
    "labels",
    "labels_dtype",
    "labels_of_chunk",
    "merged",
    "metadata",
    "name",
    "named_axis",
    "names",
    "new_dimension",
    "next_plan",
    "no_output_in_graph",
    "no_positional",
    "no_product",
    "number",
    "of_operands",
    "operands",
    "options",
    "output",
    "partials",
    "plugin",
    "positional",
    "quoted",
    "same_chunks",
    "shapes",
    "slice_of_classes",
    "softcap",
    "sparse_targets",
    "tail",
    "takes_sparse_targets",
    "unfit_dtype",
    "weight_shapes",
]
