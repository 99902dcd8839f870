"""The kernels by xent's contract, beyond the tests that xent runs on every kernel."""

import _thread
import functools
import threading
import time

import ml_dtypes
import numpy as np
import pytest
from expected import exact, gradient_allowed, loss_allowed, loss_is_off, same_bits
from xent_numba import blocks, kernels
from xent_numba.fields import SEGMENT
from xent_numba.threads import Workers, run_in_threads

import xent
from xent.kernels import Partial

DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
SHAPES = [(41, 5), (7, 123), (300, 1000), (3, 70_001), (1, 200_003)]
every_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
without_fp_warnings = np.errstate(all="ignore")
smoothed_cross_entropy = functools.partial(xent.sparse_cross_entropy, label_smoothing=0.1)


def drawn(shape, dtype=np.float32, seed=0):
    """Logits, labels and soft targets."""
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal(shape) * 3).astype(dtype)
    logits[::3, 0] = 40  # some rows are confident, some are not
    wide = np.float64 if dtype == np.float64 else np.float32
    targets = rng.random(shape).astype(wide)
    return logits, rng.integers(0, shape[1], shape[0]), targets


def numbers(x, y, t, threads):
    """All that the kernels compute."""
    s, d, scale = kernels.sparse, kernels.dense, np.full(len(x), 0.3, t.dtype)
    results = []
    for kernel, targets in ((s, (y, 1.0, 0.0)), (s, (y, 0.9, 0.1 / x.shape[1])), (d, (t,))):
        partial = kernel.partial(x, *targets, threads=threads)
        results += [*partial, kernel.loss(x, *targets, threads=threads)]
        results += [kernel.gradient(x, *targets, partial, scale, threads=threads)]
        results += [*kernel.loss_and_gradient(x, *targets, scale, threads=threads)]
    results += s.statistics(x, y, x[np.arange(len(x)), y], threads=threads)[1:]
    return results


@without_fp_warnings
@every_shape
@every_dtype
def test_no_bit_depends_on_the_number_of_threads(shape, dtype, monkeypatch):
    monkeypatch.setattr(blocks, "THREAD_ELEMENTS", 1)  # however small the work
    arrays = drawn(shape, dtype)
    expected = numbers(*arrays, 1)
    different = [
        (threads, at)
        for threads in (2, 3, 7)
        for at, (first, second) in enumerate(zip(expected, numbers(*arrays, threads), strict=True))
        if not same_bits(first, second)
    ]

    assert different == []


@pytest.mark.parametrize("shape", [(1, 65), (7, 123), (3, 1000)], ids=str)
@every_dtype
def test_a_small_call_goes_a_shorter_way_to_the_same_bits(shape, dtype, monkeypatch):
    x, y, _ = drawn(shape, dtype)
    short = kernels.sparse.loss(x, y, 1.0, 0.0, threads=2)
    monkeypatch.setattr(blocks, "THREAD_ELEMENTS", 1)

    assert same_bits(short, kernels.sparse.loss(x, y, 1.0, 0.0, threads=2))


@without_fp_warnings
@pytest.mark.parametrize("classes", [1, 2, 3, 5, 8, 10, 16, 31, 100, 128])
@every_dtype
def test_few_classes_no_bit_of_a_row_depends_on_the_rows_beside_it(classes, dtype):
    arrays = drawn((37, classes), dtype)
    arrays[0][5, -1], arrays[0][11] = np.nan, -np.inf
    whole = numbers(*arrays, 1)
    for first, stop in ((0, 1), (20, 21), (36, 37), (0, 16), (3, 19), (7, 37), (30, 37), (4, 13)):
        part = numbers(*(array[first:stop] for array in arrays), 1)

        assert all(same_bits(a[first:stop], b) for a, b in zip(whole, part, strict=True)), (first, stop)


@without_fp_warnings
@pytest.mark.parametrize("classes", [1, 3, 10, 16, 100, 128])
@every_dtype
def test_few_classes_gradients_may_overwrite_the_logits(classes, dtype):
    x, y, t = drawn((37, classes), dtype)
    x[5, -1], x[11], x[17, 0] = np.nan, -np.inf, np.inf
    scale = np.linspace(0, 1, 37).astype(t.dtype)
    for kernel, targets in ((kernels.sparse, (y, 0.9, 0.1 / classes)), (kernels.dense, (t,))):
        expected, out = kernel.loss_and_gradient(x, *targets, scale, threads=1), x.copy()
        loss, slope = kernel.loss_and_gradient(out, *targets, scale, threads=1, out=out)

        assert slope is out and same_bits(slope, expected[1]) and same_bits(loss, expected[0])


@without_fp_warnings
@every_shape
@every_dtype
def test_the_gradient_is_the_same_to_the_bit_with_its_loss_and_from_a_partial(shape, dtype):
    results = numbers(*drawn(shape, dtype), 1)

    assert all(same_bits(results[at], results[at + 2]) for at in (5, 13, 21))
    assert all(same_bits(results[at], results[at + 2]) for at in (4, 12, 20))


@without_fp_warnings
@every_dtype
def test_many_threads_may_call_at_once(dtype):
    calls = [drawn((97, 1000), dtype, seed) for seed in range(16)]
    expected = [numbers(*arrays, 1) for arrays in calls]
    results = [None] * len(calls)

    def call(at):
        results[at] = numbers(*calls[at], 2)

    threads = [threading.Thread(target=call, args=(at,)) for at in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for pair in zip(expected, results, strict=True):
        assert all(same_bits(first, second) for first, second in zip(*pair, strict=True))


# -------------------- the contract


@without_fp_warnings
@every_shape
def test_a_label_that_is_no_class_is_nan_in_a_loss_and_leaves_a_partial_alone(shape):
    x, y, _ = drawn(shape)
    for bad in (-1, shape[1], 2**62, -(2**62)):
        y[0] = bad
        partial = kernels.sparse.partial(x, y, 1.0, 0.0, threads=1)
        loss = kernels.sparse.loss(x, y, 1.0, 0.0, threads=1)
        both, _ = kernels.sparse.loss_and_gradient(x, y, 1.0, 0.0, np.ones(len(x), np.float32), threads=1)

        assert partial.target_gap[0] == partial.target_sum[0] == 0
        assert np.isnan(loss[0]) and np.isnan(both[0])
        assert not np.isnan(loss[1:]).any()


@without_fp_warnings
@every_shape
@every_dtype
def test_a_row_of_scale_zero_has_a_gradient_of_exactly_zero_whatever_it_holds(shape, dtype):
    x, y, t = drawn(shape, dtype)
    x[0, ::2] = np.nan
    scale = np.ones(len(x), t.dtype)
    scale[0] = 0
    for kernel, targets in ((kernels.sparse, (y, 1.0, 0.0)), (kernels.dense, (t,))):
        partial = kernel.partial(x, *targets, threads=1)
        gradients = (
            kernel.gradient(x, *targets, partial, scale, threads=1),
            kernel.loss_and_gradient(x, *targets, scale, threads=1)[1],
        )

        for gradient in gradients:
            assert np.all(gradient[0] == 0) and not np.isnan(gradient[1:].astype(np.float32)).any()


@without_fp_warnings
@every_dtype
@pytest.mark.parametrize("shape", [(37, 7), (37, 1000)], ids=str)
def test_nan_and_infinities_stay_in_their_rows(dtype, shape):
    x, y, t = drawn(shape, dtype)
    clean = numbers(x, y, t, 1)
    nonfinite = x.copy()
    nonfinite[5, -1], nonfinite[11, 0], nonfinite[17], nonfinite[23, 3] = np.nan, np.inf, -np.inf, -np.inf
    others = np.setdiff1d(np.arange(37), [5, 11, 17, 23])

    assert all(same_bits(a[others], b[others]) for a, b in zip(clean, numbers(nonfinite, y, t, 1), strict=True))


def layouts(x):
    """The same rows in memory of other kinds."""
    wide = np.zeros((x.shape[0], 2 * x.shape[1]), x.dtype)
    wide[:, ::2] = x
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:]
    raw[:] = np.ascontiguousarray(x).view(np.uint8).reshape(-1)
    yield "strided", wide[:, ::2]
    yield "Fortran", np.asfortranarray(x)
    yield "reversed", np.ascontiguousarray(x[::-1])[::-1]
    yield "reversed classes", np.ascontiguousarray(x[:, ::-1])[:, ::-1]
    yield "misaligned", raw.view(x.dtype).reshape(x.shape)
    if x.dtype.kind == "f":
        yield "swapped bytes", x.astype(x.dtype.newbyteorder())


@without_fp_warnings
@every_dtype
@pytest.mark.parametrize("shape", [(19, 7), (19, 64), (19, 129), (19, 1003)], ids=str)
def test_memory_of_any_kind_is_read_right_and_nothing_is_written_to_it(dtype, shape):
    x, y, t = drawn(shape, dtype)
    x.flags.writeable = y.flags.writeable = t.flags.writeable = False
    expected = numbers(x, y, t, 2)
    for name, other in layouts(x):
        before = other.tobytes()
        other.flags.writeable = False
        results = numbers(other, y, t, 2)

        assert other.tobytes() == before, name
        for first, second in zip(expected, results, strict=True):
            assert np.array_equal(first, second.astype(first.dtype), equal_nan=True), name


@without_fp_warnings
@pytest.mark.parametrize("classes", [7, 1000])
def test_out_is_filled_and_returned_whatever_it_held(classes):
    x, y, _ = drawn((23, classes))
    scale = np.ones(23, np.float32)
    expected = kernels.sparse.loss_and_gradient(x, y, 1.0, 0.0, scale, threads=1)
    partial = kernels.sparse.partial(x, y, 1.0, 0.0, threads=1)
    for out in (np.full_like(x, np.nan), np.full((classes, 23), np.nan, np.float32).T):
        loss, slope = kernels.sparse.loss_and_gradient(x, y, 1.0, 0.0, scale, threads=1, out=out)

        assert slope is out and same_bits(slope, expected[1]) and same_bits(loss, expected[0])
        assert kernels.sparse.gradient(x, y, 1.0, 0.0, partial, scale, threads=1, out=out) is out
        assert same_bits(out, expected[1])


def test_nothing_is_read_or_written_beside_a_block():
    """Guards of NaN around every row, and of a known pattern around the output."""
    for classes in (1, 2, 3, 5, 8, 11, 15, 16, 17, 64, 100, 128, 129, 143, 144, 145, 1003):
        padded = np.full((21, classes + 64), np.nan, np.float32)
        x, y, _ = drawn((19, classes))
        padded[1:-1, 32:-32] = x
        out = np.full((21, classes + 64), 7.0, np.float32)
        inside = np.s_[1:-1, 32:-32]
        scale = np.ones(19, np.float32)
        loss, slope = kernels.sparse.loss_and_gradient(padded[inside], y, 1.0, 0.0, scale, threads=1, out=out[inside])
        expected = kernels.sparse.loss_and_gradient(x, y, 1.0, 0.0, scale, threads=1)
        out_of = np.ones_like(out, bool)
        out_of[inside] = False

        assert same_bits(loss, expected[0]) and same_bits(np.ascontiguousarray(slope), expected[1])
        assert np.all(out[out_of] == 7)


def test_images_keep_their_class_axis_without_a_copy():
    for classes in (5, 70, 140):
        x = np.random.default_rng(3).standard_normal((3, classes, 9, 11)).astype(np.float32)
        y = np.random.default_rng(4).integers(0, classes, (3, 9, 11))
        loss, slope = xent.value_and_grad(xent.sparse_cross_entropy)(x, y, axis=1)
        flat = np.moveaxis(x, 1, -1).reshape(-1, classes)
        expected = xent.value_and_grad(xent.sparse_cross_entropy)(np.ascontiguousarray(flat), y.reshape(-1))

        assert same_bits(loss.reshape(-1), expected[0])
        assert same_bits(np.moveaxis(slope, 1, -1).reshape(-1, classes), expected[1])


def test_an_error_in_one_range_reaches_the_caller():
    def work(first, stop):
        if first > 0:
            raise ArithmeticError("broken")

    with pytest.raises(ArithmeticError, match="broken"):
        run_in_threads(work, 100, 2)


def test_every_range_is_worked_on_once():
    for count in (0, 1, 5, 100, 1001):
        for threads in (1, 2, 5):
            done = []
            run_in_threads(lambda first, stop, done=done: done.extend(range(first, stop)), count, threads)

            assert sorted(done) == list(range(count))


@without_fp_warnings
def test_segments_merge_as_the_fold_does():
    x, y, _ = drawn((4, 3 * SEGMENT + 17))
    x[1, :SEGMENT] = -np.inf
    whole = kernels.sparse.partial(x, y, 1.0, 0.0, threads=1)
    halves = [
        kernels.sparse.partial(np.ascontiguousarray(x[:, a:b]), y - a, 1.0, 0.0, threads=1)
        for a, b in ((0, 50_000), (50_000, x.shape[1]))
    ]
    merged = xent.merge(*(Partial(*half) for half in halves))

    assert same_bits(whole.max, merged.max)
    assert np.allclose(xent.finish(whole), xent.finish(merged), rtol=3e-7, atol=0)


# -------------------- what once went wrong


@without_fp_warnings
@pytest.mark.parametrize("classes", [10, 100, 70_001])
def test_no_label_however_far_outside_is_looked_for(classes):
    x, y, _ = drawn((6, classes))
    for far in (-(2**63), 2**63 - 1):
        y[2] = far
        statistics = xent.row_statistics(x, y, ignore_index=far)

        assert statistics.label_rank[2] == -1 and statistics.loss[2] == 0


@without_fp_warnings
@pytest.mark.parametrize("classes", [10, 100, 1000])
@pytest.mark.parametrize(
    ("integer", "bits"),
    [(np.uint32, 0x7FC00001), (np.uint32, 0xFFC00101), (np.uint64, 0x7FF00000000007A2)],
    ids=["low", "negative", "R's NA"],
)
def test_every_nan_is_one_whatever_its_bits(classes, integer, bits):
    x = np.zeros((3, classes), np.float32 if integer is np.uint32 else np.float64)
    x.view(integer)[1, 5] = bits
    loss, slope = xent.value_and_grad(xent.sparse_cross_entropy)(x, np.zeros(3, np.int64))

    assert np.isnan(loss).tolist() == [False, True, False]
    assert np.isnan(slope).all(axis=1).tolist() == [False, True, False]
    assert xent.row_statistics(x, np.zeros(3, np.int64)).label_rank.tolist() == [0, -1, 0]


def test_a_thread_that_cannot_be_started_leaves_nothing_undone(monkeypatch):
    start, started = _thread.start_new_thread, []

    def refuse_the_second(*arguments):
        started.append(arguments)
        if len(started) > 1:
            raise RuntimeError("can't start new thread")
        start(*arguments)

    monkeypatch.setattr("xent_numba.threads.workers", Workers())
    monkeypatch.setattr("_thread.start_new_thread", refuse_the_second)
    done = np.zeros(1000, int)

    def work(first, stop):
        time.sleep(0.002)
        done[first:stop] += 1

    run_in_threads(work, 1000, 6)

    assert len(started) == 2 and np.all(done == 1)


def test_a_rows_logarithm_does_not_depend_on_the_rows_after_it():
    x = np.tile(np.asarray([0, -0.9046562314033508], np.float32), (9, 1))
    loss = xent.sparse_cross_entropy(x, np.zeros(9, np.int64))

    assert np.unique(loss.view(np.uint32)).size == 1


def test_a_small_call_does_not_wait_for_a_large_one():
    finished, release = threading.Event(), threading.Event()

    def large(first, stop):
        release.wait(30)

    other = threading.Thread(target=run_in_threads, args=(large, 8, 2))
    other.start()
    run_in_threads(lambda first, stop: None, 8, 2)
    finished.set()
    still_at_work = other.is_alive()
    release.set()
    other.join()

    assert still_at_work and finished.is_set()


@without_fp_warnings
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("classes", [18, 64, 1000])
def test_soft_targets_that_repeat_one_number_keep_their_budget(dtype, classes):
    for t in np.random.default_rng(5).uniform(1.78, 2, 200).astype(dtype):
        x, targets = np.zeros((1, classes), dtype), np.full((1, classes), t, dtype)

        assert not loss_is_off(xent.cross_entropy(x, targets), x, targets)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("classes", [140, 181, 300])
def test_equal_terms_beside_two_maxima_keep_the_budget(dtype, classes):
    gap = np.random.default_rng(1).uniform(5, 6, 4000).astype(dtype)
    x = np.repeat(-gap[:, None], classes, 1)
    x[:, :2] = 0
    loss = xent.sparse_cross_entropy(x, np.zeros(4000, np.int64))
    expected = np.log(2 + (classes - 2) * np.exp(-gap.astype(np.longdouble)))
    one_hot = np.zeros((1, classes))
    one_hot[0, 0] = 1
    worst = int(np.argmax(np.abs(loss - expected)))
    allowed = loss_allowed(x[worst : worst + 1], one_hot)

    assert abs(loss[worst] - expected[worst]) <= allowed[0]


@without_fp_warnings
@pytest.mark.parametrize("classes", [98_304, 98_305])
def test_a_row_with_masked_segments_keeps_the_digits_of_its_smoothed_gradient(classes):
    x = np.full((1, classes), -np.inf)
    x[0, :100] = 0
    _, slope = xent.value_and_grad(xent.sparse_cross_entropy)(x, np.zeros(1, np.int64), label_smoothing=0.1)
    expected = 1 / 100 - 0.1 / classes

    assert abs(slope[0, 1] - expected) <= 8 * np.spacing(0.01)


def hard_rows(classes, rng):
    """Logits whose roundings repeat, and rows of which one class has nearly all of the probability."""
    x = np.repeat(-rng.uniform(0.01, [[6.0], [6.0], [3.0], [30.0], [30.0], [3.0]], (6, 1)), classes, 1)
    x[np.arange(6), rng.integers(0, classes, 6)] = 0
    x[2, : classes // 2] = 0
    x[5] = rng.standard_normal(classes) * 3
    return x


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_every_number_of_few_classes_keeps_the_budget(dtype):
    rng = np.random.default_rng(6)
    for classes in (*range(1, 34), *range(40, 300, 23)):
        x = hard_rows(classes, rng).astype(dtype)
        labels = np.where(np.arange(6) % 2, rng.integers(0, classes, 6), x.argmax(1))
        one_hot = (np.arange(classes) == labels[:, None]).astype(float)
        soft = np.repeat(rng.uniform(0, 2, (6, 1)), classes, 1).astype(dtype)
        for targets, loss, arguments in (
            (one_hot, xent.sparse_cross_entropy, (x, labels)),
            (0.9 * one_hot + 0.1 / classes, smoothed_cross_entropy, (x, labels)),
            (soft, xent.cross_entropy, (x, soft)),
        ):
            value, slope = xent.value_and_grad(loss)(*arguments)
            expected, is_sparse = exact(x, targets.astype(np.float64)), targets is one_hot
            within = loss_allowed(x, targets)
            within_slope = gradient_allowed(x, targets, is_sparse=is_sparse)

            assert np.all(np.abs((value - expected.loss[0]) - expected.loss[1]) <= within), classes
            assert np.all(np.abs((slope - expected.gradient[0]) - expected.gradient[1]) <= within_slope), classes
