"""Peak extra memory on NumPy: O(rows) and one block for a loss, the gradient itself beside it, and nothing of the size
of the predictions.
"""

import tracemalloc

import numpy as np
import pytest

import xent

BLOCK = 1 << 16  # elements
SHAPES = {
    "rows": ((2048, 2048), -1),
    "columns": ((2048, 2048), 0),
    "images": ((16, 64, 64, 64), 1),
    "last of four": ((64, 16, 16, 256), -1),
    "one row": ((1, 1 << 22), -1),
    "few classes": ((1 << 16, 64), -1),
}
LARGE = {"rows": ((4096, 4096), -1), "columns": ((4096, 4096), 0), "images": ((64, 64, 64, 64), 1)}


def drawn(shape, axis):
    """Logits, labels, and the class axis."""
    rng = np.random.default_rng(3)
    logits = rng.standard_normal(shape, dtype=np.float32)
    return logits, rng.integers(0, shape[axis], np.delete(shape, axis)), axis


@pytest.fixture(scope="module", params=SHAPES, ids=list(SHAPES))
def arrays(request):
    """16 MiB of logits."""
    return drawn(*SHAPES[request.param])


@pytest.fixture(scope="module", params=LARGE, ids=list(LARGE))
def large(request):
    """64 MiB of logits."""
    return drawn(*LARGE[request.param])


def peak_of(function, *told, axis, **keywords):
    """The most bytes held at once beyond those before the call, and what the call returned."""
    batch = 1 if axis == 0 else 0
    few = [one[:, :1] if batch and one.ndim == told[0].ndim else one[:1] for one in told]
    function(*few, axis=axis, **keywords)  # makes the plan and imports what it needs
    tracemalloc.start()  # counts what is allocated from here on, and nothing from before
    try:
        result = function(*told, axis=axis, **keywords)
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


def rows_of(logits, axis):
    return logits.size // logits.shape[axis]


def allowed(logits, axis):
    """Eight float32 blocks, and four float64 numbers for each row."""
    return 8 * 4 * BLOCK + 4 * 8 * rows_of(logits, axis)


def test_a_loss_of_labels_takes_one_block_and_a_few_numbers_for_each_row_of_sixteen_million_logits(large):
    logits, labels, axis = large
    peak, _ = peak_of(xent.sparse_cross_entropy, logits, labels, axis=axis)

    assert peak <= allowed(logits, axis)


def test_a_loss_of_soft_targets_takes_one_block_and_a_few_numbers_for_each_row_of_sixteen_million_logits(large):
    logits, _, axis = large
    peak, _ = peak_of(xent.cross_entropy, logits, logits, axis=axis)

    assert peak <= allowed(logits, axis)


def test_a_gradient_takes_itself_and_one_block_of_sixteen_million_logits(large):
    logits, labels, axis = large
    peak, (_, gradient) = peak_of(xent.value_and_grad(xent.sparse_cross_entropy), logits, labels, axis=axis)

    assert peak <= gradient.nbytes + allowed(logits, axis)


@pytest.mark.parametrize("kernel", ["numpy", "generic"])
def test_a_loss_of_labels_takes_one_block_and_a_few_numbers_for_each_row(arrays, kernel):
    logits, labels, axis = arrays
    with xent.using(kernel=kernel, threads=1):
        peak, _ = peak_of(xent.sparse_cross_entropy, logits, labels, axis=axis)

    assert peak <= allowed(logits, axis)


@pytest.mark.parametrize("kernel", ["numpy", "generic"])
def test_smoothing_builds_no_one_hot(arrays, kernel):
    logits, labels, axis = arrays
    with xent.using(kernel=kernel, threads=1):
        peak, _ = peak_of(xent.sparse_cross_entropy, logits, labels, axis=axis, label_smoothing=0.1)

    assert peak <= allowed(logits, axis)


@pytest.mark.parametrize("kernel", ["numpy", "generic"])
def test_a_loss_of_soft_targets_takes_one_block_and_a_few_numbers_for_each_row(arrays, kernel):
    logits, _, axis = arrays
    with xent.using(kernel=kernel, threads=1):
        peak, _ = peak_of(xent.cross_entropy, logits, logits, axis=axis)

    assert peak <= allowed(logits, axis)


def test_targets_of_another_dtype_are_widened_block_by_block(arrays):
    logits, _, axis = arrays
    targets = (logits > 1).astype(np.uint8)
    peak, _ = peak_of(xent.cross_entropy, logits, targets, axis=axis)

    assert peak <= allowed(logits, axis)


def test_narrow_logits_are_widened_block_by_block(arrays):
    logits, labels, axis = arrays
    peak, _ = peak_of(xent.sparse_cross_entropy, logits.astype(np.float16), labels, axis=axis)

    assert peak <= allowed(logits, axis)


@pytest.mark.parametrize("kernel", ["numpy", "generic"])
def test_a_gradient_of_labels_takes_itself_and_one_block(arrays, kernel):
    logits, labels, axis = arrays
    with xent.using(kernel=kernel, threads=1):
        peak, (_, gradient) = peak_of(xent.value_and_grad(xent.sparse_cross_entropy), logits, labels, axis=axis)

    assert peak <= gradient.nbytes + allowed(logits, axis)


@pytest.mark.parametrize("is_over", [False, True], ids=["its own", "over"])
@pytest.mark.parametrize("kernel", ["numpy", "generic"])
def test_a_gradient_into_memory_that_is_there_takes_one_block(arrays, kernel, is_over):
    logits, labels, axis = arrays
    predictions, function = np.array(logits), xent.value_and_grad(xent.sparse_cross_entropy)
    memory = predictions if is_over else np.empty_like(logits)

    def into_memory(x, y, axis):
        return function(x, y, axis=axis, out=memory[tuple(map(slice, x.shape))])

    with xent.using(kernel=kernel, threads=1):
        peak, _ = peak_of(into_memory, predictions, labels, axis=axis)

    assert peak <= allowed(logits, axis)


@pytest.mark.parametrize("kernel", ["numpy", "generic"])
def test_a_gradient_of_soft_targets_takes_itself_and_one_block(arrays, kernel):
    logits, _, axis = arrays
    with xent.using(kernel=kernel, threads=1):
        peak, (_, gradient) = peak_of(xent.value_and_grad(xent.cross_entropy), logits, logits, axis=axis)

    assert peak <= gradient.nbytes + allowed(logits, axis)


@pytest.mark.parametrize("name", ["log_softmax", "softmax"])
def test_a_softmax_takes_itself_and_one_block(arrays, name):
    logits, _, axis = arrays
    peak, found = peak_of(getattr(xent, name), logits, axis=axis)

    assert peak <= found.nbytes + allowed(logits, axis)


def test_row_statistics_take_one_block_and_a_few_numbers_for_each_row(arrays):
    logits, labels, axis = arrays
    peak, _ = peak_of(xent.row_statistics, logits, labels, axis=axis)

    assert peak <= allowed(logits, axis) + 8 * 8 * rows_of(logits, axis)


def test_a_loss_that_builds_an_array_of_the_predictions_size_is_found_out(arrays):
    """The negative control: the textbook's formula is over what is allowed."""
    logits, labels, axis = arrays

    def textbook(logits, labels, *, axis):
        shifted = logits - logits.max(axis=axis, keepdims=True)
        return np.log(np.exp(shifted).sum(axis=axis))

    peak, _ = peak_of(textbook, logits, labels, axis=axis)

    assert peak > allowed(logits, axis)
