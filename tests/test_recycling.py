"""Memory for large gradients on NumPy: used again when the last array on it is gone, and never before."""

import gc
import threading

import numpy as np
import pytest

import xent
from xent.backends.numpy import recycling

SIZE = 300 * 100 * 4  # too large for a small call, which makes its gradient in one step
both = xent.value_and_grad(xent.sparse_cross_entropy)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Gradients of some kilobytes are large here."""
    monkeypatch.setattr(recycling, "LEAST_BYTES", 1 << 12)
    monkeypatch.delenv("XENT_RECYCLE_BYTES", raising=False)
    recycling.kept.clear()
    yield
    recycling.kept.clear()


@pytest.fixture
def arrays(rng):
    return rng.standard_normal((300, 100)).astype(np.float32), rng.integers(0, 100, 300)


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_once_its_array_is_gone(arrays):
    first = both(*arrays)[1]
    place, expected = address(first), first.copy()
    del first
    again = both(*arrays)[1]

    assert address(again) == place and np.array_equal(again, expected) and again.flags.writeable
    assert again.shape == (300, 100) and again.dtype == np.float32 and again.flags.c_contiguous


VIEWS = {
    "a slice": lambda array: array[3:5, ::7],
    "a transposed view": lambda array: array.T,
    "other bits": lambda array: array.view(np.uint8),
    "a flat view": lambda array: array.reshape(-1)[1:],
    "a buffer": memoryview,
    "a subclass": lambda array: array.view(np.matrix)[0],
    "another library's": lambda array: pytest.importorskip("torch").from_numpy(array)[1:],
    "by DLPack": lambda array: np.from_dlpack(array)[2:],
}


@pytest.mark.parametrize("view", VIEWS)
def test_memory_is_not_used_while_there_is_a_view_of_it(arrays, view):
    gradient = both(*arrays)[1]
    seen = VIEWS[view](gradient)
    before, place = bytes(np.asarray(seen)), address(gradient)
    del gradient
    gc.collect()
    other = both(arrays[0][::-1].copy(), arrays[1])[1]

    assert address(other) != place and bytes(np.asarray(seen)) == before
    del seen, other
    gc.collect()
    assert SIZE in recycling.kept


def test_no_more_is_kept_than_is_said_and_the_last_longest(arrays, monkeypatch):
    x, y = arrays
    monkeypatch.setenv("XENT_RECYCLE_BYTES", str(2 * SIZE))
    for rows in (300, 170, 200):
        both(x[:rows], y[:rows])

    assert list(recycling.kept) == [170 * 400, 200 * 400]


@pytest.mark.parametrize("text", ["0", str(SIZE - 1)])
def test_nothing_is_kept_where_it_is_switched_off_or_too_large(arrays, monkeypatch, text):
    monkeypatch.setenv("XENT_RECYCLE_BYTES", text)
    gradient = both(*arrays)[1]
    assert gradient.base is None
    del gradient

    assert not recycling.kept


def test_what_is_no_number_of_bytes_keeps_nothing_and_says_so(arrays, monkeypatch):
    monkeypatch.setenv("XENT_RECYCLE_BYTES", "1GB")
    with pytest.warns(xent.PluginWarning, match="XENT_RECYCLE_BYTES='1GB' is no number of bytes"):
        both(*arrays)

    assert not recycling.kept


def test_small_gradients_have_memory_of_their_own(arrays, monkeypatch):
    monkeypatch.setattr(recycling, "LEAST_BYTES", SIZE + 1)
    both(*arrays)

    assert not recycling.kept


def test_a_call_that_fails_gives_its_memory_back(arrays):
    x, y = arrays
    with pytest.raises(xent.LabelError):
        both(x, np.where(y == y[0], 100, y))
    gc.collect()

    assert list(recycling.kept) == [SIZE]


def test_what_is_kept_is_given_up_where_there_is_no_memory_left(arrays, monkeypatch):
    x, y = arrays
    both(x, y)
    new, failures = np.empty, iter([True, False, False])

    def empty(*arguments, **keywords):
        if arguments[:1] == (200 * 400,) and next(failures):
            raise MemoryError
        return new(*arguments, **keywords)

    monkeypatch.setattr(np, "empty", empty)
    gradient = both(x[:200], y[:200])[1]

    assert gradient.shape == (200, 100) and not recycling.kept


def test_the_gradient_of_a_classifier_is_made_in_memory_that_is_kept_and_in_none_that_is_held(rng):
    def call():
        return of_product(hidden, classifier, labels)[1].classifier

    of_product = xent.value_and_grad(xent.linear_cross_entropy)
    hidden, classifier = (rng.standard_normal((rows, 24)).astype(np.float32) for rows in (40, 700))
    labels = rng.integers(0, 700, 40)
    first = call()
    expected, address = first.copy(), first.ctypes.data
    held = call()
    del first
    again = call()

    assert again.ctypes.data == address != held.ctypes.data
    assert np.array_equal(again, expected) and np.array_equal(held, expected)

    del again, held
    assert classifier.nbytes in recycling.kept


def test_threads_that_call_at_once_share_no_memory(rng):
    x, y = rng.standard_normal((8, 300, 100)).astype(np.float32), rng.integers(0, 100, 300)
    expected, wrong = [both(one, y)[1].copy() for one in x], []

    def work(number):
        for _ in range(30):
            gradient = both(x[number], y)[1]
            if not np.array_equal(gradient, expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == [] and sum(recycling.kept) <= recycling.MOST_BYTES
