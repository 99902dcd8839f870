"""Whole calls of labels in one step of compiled code: labels checked, rows weighted and reduced, the loss or both.

The losses and gradients are those of the loops; every other step is that of xent's ``numerics`` in the same order, so
that the bits are those of a call in many steps. A call of a kind is a row of numbers, the *facts*, made once; and one
function for each dtype of the logits.

Leaves out large calls, which threads share, and labels that are bad: xent's schedules make these in many steps.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types

from xent import Mean
from xent.kernels import Problem

from .blocks import THREAD_ELEMENTS
from .compiled import FLAGS, compile_cached, named_for
from .frames import array_at, labels_at, load_double
from .memory import load_int64
from .operands import address_of, memory_type
from .threads import run_uninterrupted
from .whole_rows import MEMORY, OF_ROWS, WIDE

LABEL_BYTES, WEIGHT, REDUCTION, IGNORED, SMOOTHING, DENOMINATOR, EMPTY, LABELS = range(0, 8 * 8, 8)
"""The fields of the facts, from their address on: the ignored labels are the last, IGNORED of them."""
NONE, SUM, WEIGHTS, COUNTED, ALL, NUMBER = range(6)
REDUCTIONS, MEANS = {"none": NONE, "sum": SUM}, {"weights": WEIGHTS, "counted": COUNTED, "all": ALL}
WEIGHT_DTYPES = ("", "float32", "float64", "bool")
LABEL_DTYPES = {"int64": 8, "int32": 4}
LIMIT = 2 * THREAD_ELEMENTS
"""The elements from which on threads share a call."""
SERVED, BAD_LABEL, TOO_LARGE = range(3)


def facts_of(problem: Problem) -> Any:
    """The facts of a kind of call, int64; None if a whole call does not serve it."""
    options, reduction = problem.options, problem.options.reduction
    mean = Mean() if reduction == "mean" else reduction if isinstance(reduction, Mean) else None
    is_served = problem.target_dtype in LABEL_DTYPES and problem.sample_weight_dtype in WEIGHT_DTYPES
    is_served &= problem.method in ("loss", "loss_and_gradient")
    if not is_served or (mean is None and reduction not in REDUCTIONS):
        return None
    kind = REDUCTIONS[reduction] if mean is None else MEANS.get(mean.denominator, NUMBER)
    held = np.iinfo(problem.target_dtype)
    ignored = [label for label in options.ignore_index or () if held.min <= label <= held.max]
    denominator = mean.denominator if kind == NUMBER else 1.0
    numbers = np.array([options.label_smoothing, denominator, np.nan if mean is None else mean.empty], np.float64)
    weight = WEIGHT_DTYPES.index(problem.sample_weight_dtype)
    integers = LABEL_DTYPES[problem.target_dtype], weight, kind, len(ignored)
    return np.concatenate([np.array(integers), numbers.view(np.int64), np.array(ignored, np.int64)])


@njit(**FLAGS)
def is_ignored(label, facts):
    """Whether a label is among those that are ignored."""
    found = False
    for index in range(load_int64(facts + IGNORED)):
        found |= label == load_int64(facts + LABELS + 8 * index)
    return found


@njit(**FLAGS)
def put_sample_weights(weights, counted, address, kind):
    """Writes the sample weights; a row of weight 0 in its own dtype is not counted."""
    count = len(weights)
    if kind == 1:
        singles = array_at(address, count, np.float32)
        for row in range(count):
            weights[row], counted[row] = singles[row], singles[row] != 0
    elif kind == 2:
        doubles = array_at(address, count, np.float64)
        for row in range(count):
            weights[row], counted[row] = doubles[row], doubles[row] != 0
    else:
        flags = array_at(address, count, np.uint8)
        for row in range(count):
            weights[row], counted[row] = flags[row] != 0, flags[row] != 0


@njit(**FLAGS)
def multiply_class_weights(weights, counted, class_weights, labels):
    """Multiplies the weights by those of the labels' classes; a row of class weight 0 is not counted."""
    for row in range(len(weights)):
        if 0 <= labels[row] < len(class_weights):
            weights[row] *= class_weights[labels[row]]
            counted[row] &= class_weights[labels[row]] != 0


@njit(**FLAGS)
def total(values):
    """The sum of float64 values as a balanced tree, in the order of xent's ``fold.total``; overwrites them."""
    count, odd, has_odd = len(values), 0.0, False
    if count < 2:
        return values[0] + 0.0 if count == 1 else 0.0
    while count > 1:
        half = count // 2
        if count % 2:
            odd = odd + values[2 * half] if has_odd else values[2 * half]
            has_odd = True
        for index in range(half):
            values[index] += values[half + index]
        count = half
    return values[0] + odd if has_odd else values[0]


@njit(**FLAGS)
def total_weight(weights, counted):
    """The sum of the weights of the counted rows."""
    values = np.empty(len(weights))
    for row in range(len(weights)):
        values[row] = np.float64(weights[row]) if counted[row] else 0.0
    return total(values)


@njit(**FLAGS)
def denominator_of(facts, weights, counted, is_weighted, has_ignored):
    """The denominator of a mean, and whether it is wide: a float64 sum, else a number beside the weights' dtype."""
    reduction, rows = load_int64(facts + REDUCTION), len(weights)
    if reduction == WEIGHTS and is_weighted:
        return total_weight(weights, counted), True
    if reduction in (WEIGHTS, COUNTED) and (is_weighted or has_ignored):
        values = np.empty(rows)
        for row in range(rows):
            values[row] = 1.0 if counted[row] else 0.0
        return total(values), True
    return load_double(facts + DENOMINATOR) if reduction == NUMBER else np.float64(rows), False


@njit(**FLAGS)
def scales_of(weights, counted, reduction, denominator, is_wide):
    """The factor of each row's gradient."""
    scales = np.empty(len(weights), weights.dtype)
    for row in range(len(weights)):
        if not counted[row]:
            scales[row] = 0.0
        elif reduction < WEIGHTS:
            scales[row] = weights[row]
        elif is_wide:
            scales[row] = np.float64(weights[row]) / denominator
        else:
            scales[row] = weights[row] / weights.dtype.type(denominator)
    return scales


@njit(**FLAGS)
def multiply_cotangents(scales, cotangents):
    """Multiplies each row's factor by its cotangent, or by the only one."""
    for row in range(len(scales)):
        scales[row] *= cotangents[row if len(cotangents) > 1 else 0]


def function_of(method: str, dtype: str) -> Callable[..., int]:
    """The function of whole calls of a method for logits of a dtype, to be compiled."""
    target = target_of(method, dtype)
    memory, wide, writes_gradient = MEMORY[dtype], WIDE[dtype], method == "loss_and_gradient"
    compute = OF_ROWS[method](target, dtype, False)

    def whole_call(facts, logits, labels, rows, classes, sample_weight, class_weight, cotangent, losses, gradient):
        if rows * classes >= LIMIT:
            return TOO_LARGE
        facts, reduction = address_of(facts), load_int64(address_of(facts) + REDUCTION)
        x = array_at(address_of(logits), (rows, classes), memory)
        targets = labels_at(address_of(labels), load_int64(facts + LABEL_BYTES), rows)
        # what is said of the rows
        weights, counted = np.empty(rows, wide), np.empty(rows, np.bool_)
        for row in range(rows):
            weights[row], counted[row] = 1.0, True
        is_weighted = address_of(sample_weight) != 0 or address_of(class_weight) != 0
        has_ignored = load_int64(facts + IGNORED) > 0
        if address_of(sample_weight) != 0:
            put_sample_weights(weights, counted, address_of(sample_weight), load_int64(facts + WEIGHT))
        for row in range(rows):
            counted[row] &= not (has_ignored and is_ignored(targets[row], facts))
            if counted[row] and not 0 <= targets[row] < classes:
                return BAD_LABEL
        if address_of(class_weight) != 0:
            class_weights = array_at(address_of(class_weight), classes, wide)
            multiply_class_weights(weights, counted, class_weights, targets)
        denominator, is_wide = denominator_of(facts, weights, counted, is_weighted, has_ignored)
        # losses and gradient
        smoothing, values = load_double(facts + SMOOTHING), np.empty(rows, wide)
        on, off = 1.0 - smoothing, smoothing / classes
        if writes_gradient:
            scales = scales_of(weights, counted, reduction, denominator, is_wide)
            if address_of(cotangent) != 0:
                count = rows if reduction == NONE else 1
                multiply_cotangents(scales, array_at(address_of(cotangent), count, wide))
            out = array_at(address_of(gradient), (rows, classes), memory)
            compute(x, targets, on, off, scales, (values, out))
        else:
            compute(x, targets, on, off, None, (values,))
        if address_of(losses) == 0:
            return SERVED
        # weighted and reduced
        results = array_at(address_of(losses), rows if reduction == NONE else 1, wide)
        terms, is_empty = np.empty(rows), True
        for row in range(rows):
            value = values[row] * weights[row] if counted[row] else wide(0.0)
            terms[row] = value
            is_empty &= not counted[row]
            if reduction == NONE:
                results[row] = value
        if reduction == NONE:
            return SERVED
        value = total(terms)
        if reduction >= WEIGHTS:
            value = load_double(facts + EMPTY) if is_empty else value / denominator
        results[0] = value
        return SERVED

    return named_for(target, whole_call)


def target_of(method: str, dtype: str) -> str:
    """The name of the function of a method and a dtype."""
    return f"xent_numba_whole_{method}_{dtype}"


SIGNATURE = (memory_type, memory_type, memory_type, types.int64, types.int64, *[memory_type] * 5)
lock = threading.Lock()
entries: dict[tuple[str, str], Callable[..., int]] = {}


def compiled_whole_call(method: str, dtype: str) -> Callable[..., int]:
    """The function of whole calls of a method, as machine code; its first argument are the facts."""
    if (method, dtype) not in entries:
        run_uninterrupted(lambda: compile_whole_call(method, dtype))
    return entries[method, dtype]


def compile_whole_call(method: str, dtype: str) -> None:
    """Compiles the function of a method, unless it is there already."""
    with lock:
        if (method, dtype) not in entries:
            function, name = function_of(method, dtype), target_of(method, dtype)
            _, entries[method, dtype] = compile_cached(function, SIGNATURE, name, made_by=function_of)


def whole_call(problem: Problem) -> Callable[..., int] | None:
    """The whole call of a kind, as the contract of kernels has it; None if it is not served."""
    facts = facts_of(problem)
    return None if facts is None else functools.partial(compiled_whole_call(problem.method, problem.dtype), facts)
