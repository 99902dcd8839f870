"""Every golden case, within the error budget, on every library: losses, log-sum-exps and gradients.

Every library takes every case. JAX, which compiles each shape anew, takes the rows of all the cases of one width, dtype
and kind at once, eagerly for the loss and the log-sum-exp, under jit for the gradient with the loss beside it.
"""

import functools
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from budget import needed, within_budget
from golden_cases import Case, cases, cases_of_equal_terms
from libraries import Library

import xent

CASES = cases()
LARGE = 1 << 17  # classes: the same few recipes as at 1000 classes, at the cost of a second each
GRADIENT = {loss: xent.value_and_grad(loss) for loss in (xent.sparse_cross_entropy, xent.cross_entropy)}
every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_plain_case = pytest.mark.parametrize(
    "case", [case for case in CASES if case.is_sparse and case.label_smoothing == 0], ids=str
)


@pytest.fixture
def told(lib, case: Case):
    """The arguments of a case, where the library has its dtype."""
    if case.dtype.name not in lib.dtypes:
        pytest.skip(f"{lib} has no {case.dtype}")
    return arguments(case)


def arguments(case: Case):
    return case.logits, case.labels if case.is_sparse else case.targets


def function_of(case: Case):
    return xent.sparse_cross_entropy if case.is_sparse else xent.cross_entropy


def kind_of(case: Case):
    """What two cases have in common whose rows can be those of one call."""
    return case.dtype, case.classes, case.is_sparse, case.label_smoothing


def call(lib: Library, function: Callable, logits, targets, label_smoothing: float):
    if function is xent.logsumexp:
        return lib.call(function, logits)
    return lib.call(function, logits, targets, label_smoothing=label_smoothing)


@functools.cache
def results_of_kind(lib: Library, function: Callable, kind: tuple):
    """For every case of a kind, by name, the function's results on its rows; from one call for all of them."""
    alike = [case for case in CASES if kind_of(case) == kind]
    result = call(lib, function, *map(np.concatenate, zip(*map(arguments, alike), strict=True)), kind[-1])
    ends = np.cumsum([len(case.logits) for case in alike])
    return {
        case.name: tuple(array[end - len(case.logits) : end] for array in result)
        if isinstance(result, tuple)
        else result[end - len(case.logits) : end]
        for case, end in zip(alike, ends, strict=True)
    }


def result_of(lib: Library, function: Callable, case: Case):
    """What the function returns for a case, in a call of its own where that compiles nothing."""
    if lib.compiles:
        return results_of_kind(lib, function, kind_of(case))[case.name]
    return call(lib, function, *arguments(case), case.label_smoothing)


@every_case
@pytest.mark.variants(but=("jax-jit",))
def test_losses_are_within_their_budget(lib, case, told):
    within_budget(result_of(lib, function_of(case), case), case, kind="loss", flushes=lib.flushes)


@every_case
@pytest.mark.variants(but=("jax",))
def test_gradients_and_the_losses_beside_them_are_within_their_budget(lib, case, told):
    loss, gradient = result_of(lib, GRADIENT[function_of(case)], case)

    within_budget(loss, case, kind="loss", flushes=lib.flushes)
    within_budget(gradient, case, kind="gradient", flushes=lib.flushes)


@every_plain_case
@pytest.mark.variants(but=("jax-jit",))
def test_log_sum_exps_are_within_their_budget(lib, case, told):
    within_budget(result_of(lib, xent.logsumexp, case), case, kind="lse", flushes=lib.flushes)


@every_case
@pytest.mark.variants("numpy", "numpy-generic", "torch")
def test_losses_along_a_leading_class_axis_are_within_their_budget(lib, case, told):
    target = told[1] if case.is_sparse else np.ascontiguousarray(told[1].T)
    logits = np.ascontiguousarray(told[0].T)
    loss = lib.call(function_of(case), logits, target, axis=0, label_smoothing=case.label_smoothing)

    within_budget(loss, case, kind="loss", flushes=lib.flushes)


@every_case
@pytest.mark.variants("numpy", "numpy-generic")
def test_gradients_along_a_leading_class_axis_are_within_their_budget(lib, case, told):
    target = told[1] if case.is_sparse else np.ascontiguousarray(told[1].T)
    logits = np.ascontiguousarray(told[0].T)
    function = xent.value_and_grad(function_of(case))
    _, gradient = lib.call(function, logits, target, axis=0, label_smoothing=case.label_smoothing)

    within_budget(gradient.T, case, kind="gradient", flushes=lib.flushes)


@every_plain_case
@pytest.mark.variants("numpy", "numpy-generic")
def test_losses_of_row_statistics_are_within_their_budget(lib, case, told):
    found = lib.call(xent.row_statistics, *told)

    within_budget(found.loss, case, kind="loss", flushes=lib.flushes)
    within_budget(found.lse, case, kind="lse", flushes=lib.flushes)


def as_wide_as(classes: int, logits: np.ndarray) -> np.ndarray:
    """The rows with as many masked classes behind their own as make up the number."""
    return np.pad(logits, ((0, 0), (0, classes - logits.shape[1])), constant_values=-np.inf)


@pytest.mark.variants(but=("dask", "dask-split"))
def test_rows_of_equal_terms_are_within_their_budget_at_every_class_count_to_300(lib):
    # A library that compiles gets one shape: the rows of all counts, each with masked classes behind its own.
    for case in cases_of_equal_terms():
        if case.dtype.name not in lib.dtypes:
            continue
        logits = as_wide_as(300, case.logits) if lib.compiles else case.logits
        alone = lib.call(xent.sparse_cross_entropy, logits, case.labels)
        loss, gradient = lib.call(GRADIENT[xent.sparse_cross_entropy], logits, case.labels)

        within_budget(alone, case, kind="loss", flushes=lib.flushes)
        within_budget(loss, case, kind="loss", flushes=lib.flushes)
        within_budget(gradient[:, : case.classes], case, kind="gradient", flushes=lib.flushes)


def test_there_is_a_golden_case_of_every_dtype_and_of_very_many_classes():
    dtypes = {"float16", "bfloat16", "float32", "float64"}

    assert {case.dtype.name for case in CASES} == dtypes
    assert {case.dtype.name for case in CASES if case.classes > LARGE} == dtypes
    assert np.dtype(ml_dtypes.bfloat16).name == "bfloat16"


@pytest.mark.parametrize("shift", [16, -16])
def test_a_loss_sixteen_ulp_off_is_over_its_budget(shift):
    case = next(case for case in CASES if case.name == "gap-80-to-110-label-below-float32")
    loss = xent.sparse_cross_entropy(case.logits, case.labels)
    off = loss + shift * np.spacing(loss)

    assert np.all(needed(off, case, "loss") > 4)
