"""Small calls through the public functions, which are one step of compiled code."""

import dask.array as da
import numpy as np
import pytest

import xent

ROW = np.asarray([3.0, 2.0, 1.0], "f4")
on_numba = xent.using(kernel="numba")


@on_numba
@pytest.mark.parametrize("weights", [[1e300, 1.0, 1e-300], np.asarray([1e300, 1.0, 1e-300])], ids=["list", "array"])
def test_class_weights_that_float32_rounds_to_infinity_or_nothing_warn_of_nothing(weights):
    with np.errstate(all="raise"):
        losses = xent.sparse_cross_entropy(np.zeros((3, 3), "f4"), np.arange(3), class_weight=weights)

    np.testing.assert_allclose(losses, [np.inf, np.log(3), 0.0], rtol=1e-6)


@on_numba
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_the_label_and_the_weight_of_one_row_may_be_numbers_of_numpy(reduction):
    call, options = xent.value_and_grad(xent.sparse_cross_entropy), {"reduction": reduction}
    of_numbers = call(ROW, np.int64(1), sample_weight=np.float32(0.5), **options)
    of_arrays = call(ROW, np.asarray(1), sample_weight=np.asarray(0.5, "f4"), **options)

    assert [array.tobytes() for array in of_numbers] == [array.tobytes() for array in of_arrays]


@on_numba
@pytest.mark.parametrize("argument", ["sample_weight", "class_weight", "cotangent"])
def test_memory_that_holds_the_opposites_of_its_numbers_is_not_taken_for_them(argument):
    torch = pytest.importorskip("torch")
    logits, labels = torch.tensor(ROW).repeat(2, 1).requires_grad_(), torch.tensor([0, 2])
    given = {"sample_weight": torch.ones(2), "class_weight": torch.ones(3), "cotangent": torch.tensor(1.0)}

    def results(cotangent, **weights):
        value = xent.sparse_cross_entropy(logits, labels, reduction="sum", **weights)
        return value, torch.autograd.grad(value, logits, cotangent)[0]

    expected = results(**given)
    torch.testing.assert_close(results(**given | {argument: torch._neg_view(-given[argument])}), expected)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("reduction", ["mean", xent.Mean("counted", empty=7.0), xent.Mean(7.0)], ids=str)
def test_small_chunks_of_a_mean_have_the_gradient_of_the_whole(reduction, rows):
    logits, labels = np.asarray([[1.0, 2.0, 0.0], [500.0, 0.0, 1.0]], np.float32), np.asarray([0, 2])
    weight = np.asarray([1.0, 0.5, 2.0])
    lazy = da.from_array(logits, chunks=(rows, 3)), da.from_array(labels, chunks=rows)

    of_whole = xent.value_and_grad(xent.sparse_cross_entropy)(logits, labels, reduction=reduction, class_weight=weight)
    of_chunks = xent.value_and_grad(xent.sparse_cross_entropy)(*lazy, reduction=reduction, class_weight=weight)

    assert np.array_equal(of_chunks[1].compute(scheduler="sync"), of_whole[1])
    assert float(of_chunks[0]) == float(of_whole[0])
