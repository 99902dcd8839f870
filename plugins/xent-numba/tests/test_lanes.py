"""The vectors and the functions on them, beside NumPy and extended precision."""

import ml_dtypes
import numpy as np
import pytest
from numba import njit
from xent_numba import exponential, memory, totals

inf, nan = np.inf, np.nan
BIAS = {np.float32: exponential.SINGLE_BIAS, np.float64: exponential.DOUBLE_BIAS}


@njit
def exp_of(x, out):
    step = memory.width(x.dtype) * x.itemsize
    for start in range(0, x.size * x.itemsize, step):
        memory.store(
            out.dtype,
            out.ctypes.data + start,
            exponential.biased_exp(memory.load(x.dtype, x.ctypes.data + start)),
        )


@njit
def log1p_of(x, out):
    for start in range(0, x.size * x.itemsize, 64):
        value = exponential.log1p(memory.load(x.dtype, x.ctypes.data + start))
        memory.store(out.dtype, out.ctypes.data + start, value)


@njit
def copied(x, out):
    """Widened as it is read, narrowed as it is written."""
    step = memory.width(x.dtype)
    for start in range(0, x.size, step):
        value = memory.load(x.dtype, x.ctypes.data + start * x.itemsize)
        memory.store(out.dtype, out.ctypes.data + start * out.itemsize, value)


@njit
def summed(x):
    total = totals.zero_total()
    for start in range(0, x.size * x.itemsize, 64):
        total = totals.add_lanes(total, memory.load(x.dtype, x.ctypes.data + start))
    return totals.reduce_total(total, x.dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_the_exponential_is_within_an_ulp_down_to_the_smallest_subnormal(dtype):
    rng = np.random.default_rng(0)
    least = np.log(np.finfo(dtype).smallest_subnormal)
    x = np.concatenate([rng.uniform(least, 0, 1 << 16), -(10.0 ** rng.uniform(-30, 0, 1 << 16))]).astype(dtype)
    out = np.empty_like(x)
    exp_of(x, out)
    exact = np.exp(x.astype(np.longdouble)) * np.longdouble(2) ** BIAS[dtype]

    assert np.max(np.abs(out / exact - 1)) <= np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_the_exponential_of_zero_is_one_of_nan_is_nan_and_of_minus_infinity_less_than_any_number(dtype):
    x = np.resize(np.asarray([0.0, -0.0, nan, -inf, -1e30], dtype), 16)
    out = np.empty_like(x)
    exp_of(x, out)
    values = out[:5].astype(np.longdouble) / np.longdouble(2) ** BIAS[dtype]

    assert values[0] == values[1] == 1 and np.isnan(values[2])
    assert np.all((values[3:] > 0) & (values[3:] < np.longdouble(np.finfo(dtype).smallest_subnormal) * 1e-6))


def test_the_logarithm_keeps_its_digits_down_to_the_smallest_rest():
    rng = np.random.default_rng(1)
    r = np.concatenate([10.0 ** rng.uniform(-300, 12, 4096), rng.uniform(0, 3, 4096), [0, 1, nan, -1, 5e-324, 0, 0, 0]])
    out = np.empty_like(r)
    log1p_of(r, out)
    normal = np.isfinite(r) & (r > 1e-300)

    assert np.max(np.abs(out[normal] / np.log1p(r[normal]) - 1)) < 1e-11
    assert out[8192] == 0 and np.isnan(out[8194]) and np.isnan(out[8195]) and out[8196] == 5e-324


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_sixteen_bits_are_widened_and_rounded_as_numpy_does(dtype):
    memory = np.int16 if dtype is np.float16 else np.uint16
    every = np.arange(1 << 16, dtype=np.uint16).view(memory)
    wide = np.empty(1 << 16, np.float32)
    copied(every, wide)
    drawn = np.random.default_rng(2).standard_normal(1 << 16).astype(np.float32)
    drawn[:6] = [inf, -inf, nan, 0.0, -0.0, 1e-7]
    narrow = np.empty(1 << 16, memory)
    copied(drawn, narrow)

    assert np.array_equal(wide, every.view(dtype).astype(np.float32), equal_nan=True)
    assert np.array_equal(narrow.view(dtype).astype(np.float32), drawn.astype(dtype).astype(np.float32), equal_nan=True)


def test_sums_of_float64_keep_what_is_rounded_off():
    x = np.resize(np.asarray([1e16, 1.0, -1e16, 1.0]), 1 << 12)

    assert summed(x) == 1 << 11


@pytest.mark.parametrize("value", [inf, nan], ids=str)
def test_a_sum_with_an_infinity_is_infinite_and_one_with_nan_is_nan(value):
    x = np.zeros(64)
    x[13] = value

    assert np.array_equal(summed(x), value, equal_nan=True)
