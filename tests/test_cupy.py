"""CuPy: what is decided about its arrays, wherever CuPy is installed; and on a GPU what only a GPU can show.

Without a GPU the arrays are genuine ``cupy.ndarray``s in host memory: CuPy tells their type, dtype, device and strides
as it would on a GPU, and cannot compute with them. What the functions return is tested where there is a GPU, by every
test that runs on the variant ``cupy``.
"""

import contextlib
import ctypes
import importlib

import numpy as np
import pytest
import toy_kernels
from expected import same_bits

import xent
from xent import arrays
from xent.contract.problem import NO_WEIGHTS, Options
from xent.dispatch import keys

cupy = pytest.importorskip("cupy", reason="cupy is not installed")
HAS_GPU = cupy.cuda.is_available()
on_a_gpu = pytest.mark.skipif(not HAS_GPU, reason="cupy.cuda.is_available() is False: computing with CuPy takes a GPU")
sparse_with_grad = xent.value_and_grad(xent.sparse_cross_entropy)


class HostMemory:
    """A piece of host memory that CuPy takes for a GPU's."""

    def __init__(self, size: int) -> None:
        self.buffer = ctypes.create_string_buffer(size + 512)
        self.address = -(-ctypes.addressof(self.buffer) // 512) * 512

    @classmethod
    def allocate(cls, size: int, device: int = 0):
        """The same as a pointer of CuPy's."""
        memory = cls(max(size, 1))
        return cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(memory.address, size, memory, device), 0)


@pytest.fixture(autouse=True)
def host_memory():
    """CuPy's arrays are in host memory where there is no GPU."""
    if HAS_GPU:
        yield
        return
    before = cupy.cuda.get_allocator()
    cupy.cuda.set_allocator(HostMemory.allocate)
    yield
    cupy.cuda.set_allocator(before)


def example(dtype="float32", classes=7):
    return cupy.empty((5, classes), dtype), cupy.empty((5,), "int64")


def elsewhere(array):
    """An array like this one, on another GPU."""
    return cupy.ndarray(array.shape, array.dtype, HostMemory.allocate(array.nbytes, device=1))


def plan_key(predictions, labels):
    return keys.key_of(selection_route(), predictions, labels, Options(), NO_WEIGHTS)


def selection_route():
    return importlib.import_module("xent.losses").SPARSE


# -------------------- what an array is


def test_an_array_is_of_cupy_on_its_gpu():
    logits, _ = example()

    assert arrays.library(logits) == "cupy"
    assert arrays.device(logits) == "cuda:0"
    assert arrays.namespace(logits).__name__ == "array_api_compat.cupy"
    assert arrays.is_array(logits)
    assert arrays.describe(logits) == "float32[5, 7] on cupy"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_array_api_serves_it_and_no_kernel_of_another_library_does(dtype):
    decision = xent.explain(xent.sparse_cross_entropy, *example(dtype))

    assert (decision.backend, decision.kernel) == ("cupy", "generic")
    assert (decision.problem.array, decision.problem.device, decision.problem.dtype) == ("cupy", "cuda:0", dtype)
    reasons = {one.kernel: one.reasons for one in decision.verdicts}
    assert "array: cupy is not among numpy" in reasons["numpy"]
    assert "device: cuda is not among cpu" in reasons["numpy"]


def test_the_dtype_that_cupy_borrows_for_bfloat16_is_known_by_name():
    bfloat16 = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed").bfloat16
    decision = xent.explain(xent.sparse_cross_entropy, *example(bfloat16))

    assert decision.problem.dtype == "bfloat16"


def test_a_plugins_kernel_for_gpus_is_taken_and_one_for_hosts_is_not():
    gpu = toy_kernels.spec("on-gpu", arrays=frozenset({"cupy"}), devices=frozenset({"cuda"}))
    host = toy_kernels.spec("on-host", arrays=frozenset({"cupy"}), priority=10)
    xent.register(toy_kernels.Plugin(gpu, host), "toy")
    try:
        decision = xent.explain(xent.sparse_cross_entropy, *example())
    finally:
        xent.unregister("toy")

    assert decision.kernel == "on-gpu"
    assert {one.kernel: one.reasons for one in decision.verdicts}["on-host"] == ("device: cuda is not among cpu",)


def test_a_label_is_looked_at_only_where_validation_is_asked_for():
    assert not xent.explain(xent.sparse_cross_entropy, *example()).problem.raises
    with xent.using(validate="always"):
        assert xent.explain(xent.sparse_cross_entropy, *example()).problem.raises


# -------------------- the key of a plan


@pytest.fixture
def placements():
    """CuPy as it is once a call has been made: its arrays' device is part of a key."""
    before = dict(keys.placements)
    keys.placements[cupy.ndarray] = keys.PLACEMENTS["cupy"]
    yield
    keys.placements.clear()
    keys.placements.update(before)


def test_a_key_can_be_hashed_though_a_device_of_cupy_cannot(placements):
    logits, labels = example()
    with pytest.raises(TypeError, match="unhashable"):
        hash(logits.device)

    assert hash(plan_key(logits, labels)) == hash(plan_key(*example()))


def test_every_gpu_has_plans_of_its_own(placements):
    logits, labels = example()
    there = elsewhere(logits)

    assert arrays.device(there) == "cuda:1"
    assert plan_key(logits, labels) == plan_key(*example())
    assert plan_key(logits, labels) != plan_key(there, labels)


@pytest.mark.skipif(HAS_GPU, reason="this is what happens where nothing can be computed")
def test_a_call_without_a_gpu_gets_as_far_as_the_arithmetic():
    with xent.using(trace=True) as decisions, pytest.raises(cupy.cuda.runtime.CUDARuntimeError):
        xent.sparse_cross_entropy(*example())

    assert [one.kernel for one in decisions] == ["generic"]
    assert keys.placements[cupy.ndarray] is keys.PLACEMENTS["cupy"]


# -------------------- what is refused, before any arithmetic


def test_arrays_of_two_libraries_are_refused_and_both_named():
    logits, labels = example()
    for predictions, told, options in (
        (logits, np.zeros(5, np.int64), {}),
        (np.zeros((5, 7)), labels, {}),
        (logits, labels, {"sample_weight": np.ones(5)}),
        (logits, labels, {"class_weight": np.ones(7)}),
    ):
        with pytest.raises(
            TypeError, match=r"must be of the library of `predictions` \((cupy|numpy)\), got .* on (numpy|cupy)"
        ):
            xent.sparse_cross_entropy(predictions, told, **options)


def test_arrays_on_two_gpus_are_refused_and_both_named():
    logits, labels = example()
    with pytest.raises(TypeError, match=r"on the device of `predictions` \(cuda:0\), got int64\[5\] on cupy on cuda:1"):
        xent.sparse_cross_entropy(logits, elsewhere(labels))


def test_what_does_not_fit_never_reaches_the_gpu():
    logits, labels = example()
    with pytest.raises(ValueError, match=r"`labels` must have shape \(5,\)"):
        xent.sparse_cross_entropy(logits, labels[:4])
    with pytest.raises(TypeError, match="`predictions` must be real floating, got int64"):
        xent.sparse_cross_entropy(cupy.empty((5, 7), "int64"), labels)
    with pytest.raises(TypeError, match=r"`labels` must be integers, got float32\[5\] on cupy"):
        xent.sparse_cross_entropy(logits, cupy.empty((5,), "float32"))


# -------------------- Dask arrays of CuPy's


def dask_of(array, chunks):
    """A Dask array whose chunks are CuPy's."""
    da = importlib.import_module("dask.array")
    host = da.zeros(array.shape, chunks=chunks, dtype=array.dtype)
    meta = cupy.empty((0,) * array.ndim, array.dtype)
    return da.map_blocks(cupy.asarray, host, dtype=array.dtype, meta=meta)


@pytest.fixture
def chunked():
    pytest.importorskip("dask", reason="dask is not installed")
    logits, labels = example()
    return dask_of(logits, (2, 7)), dask_of(labels, 2)


def test_chunks_of_cupy_are_planned_as_cupy(chunked):
    decision = xent.explain(xent.sparse_cross_entropy, *chunked)

    assert (decision.backend, decision.inner.backend, decision.inner.kernel) == ("dask", "cupy", "generic")
    assert (decision.inner.problem.array, decision.inner.problem.device) == ("cupy", "cuda:0")
    assert decision.inner.problem.threads == 1


@pytest.mark.parametrize("classes", [7, 3], ids=["whole", "cut"])
def test_a_graph_over_chunks_of_cupy_is_built_without_a_gpu_and_says_that_they_are_cupys(chunked, classes):
    logits, labels = chunked
    logits = logits.rechunk({1: classes})
    results = [
        xent.sparse_cross_entropy(logits, labels),
        *sparse_with_grad(logits, labels, reduction="mean", class_weight=[1.0] * 7)[1:],
        *xent.row_statistics(logits, labels),
        xent.cross_entropy(logits, logits),
        xent.softmax(logits),
        xent.logsumexp(logits),
    ]

    assert all(isinstance(one._meta, cupy.ndarray) for one in results)


def test_chunks_of_cupy_and_of_numpy_have_plans_of_their_own(chunked):
    da = importlib.import_module("dask.array")
    logits, labels = chunked
    host = da.zeros((5, 7), chunks=(2, 7), dtype=np.float32), da.zeros(5, chunks=2, dtype=np.int64)
    with xent.using(trace=True) as decisions:
        xent.sparse_cross_entropy(*host)
        xent.sparse_cross_entropy(logits, labels)
        xent.sparse_cross_entropy(*host)

    assert [one.kernel for one in decisions] == ["numpy", "generic", "numpy"]


def test_chunks_of_cupy_with_labels_of_the_host_are_refused(chunked):
    logits, _ = chunked
    for told in (np.zeros(5, np.int64), importlib.import_module("dask.array").zeros(5, chunks=2, dtype=np.int64)):
        with pytest.raises(TypeError, match=r"on the device of `predictions` \(cuda:0\), got .* on cpu"):
            xent.sparse_cross_entropy(logits, told)


# -------------------- on a GPU


@pytest.mark.gpu
@on_a_gpu
def test_nothing_waits_for_the_gpu_unless_labels_are_to_be_checked(rng):
    logits, labels = (
        cupy.asarray(rng.standard_normal((64, 100)).astype(np.float32)),
        cupy.asarray(rng.integers(0, 100, 64)),
    )
    for _ in range(2):  # compiled, and planned
        sparse_with_grad(logits, labels, ignore_index=3)
    busy, done = cupy.asarray(rng.standard_normal((8192, 8192)).astype(np.float32)), cupy.cuda.Event()
    busy @ busy
    cupy.cuda.Device().synchronize()
    for _ in range(100):
        busy @ busy
    sparse_with_grad(logits, labels, ignore_index=3)
    done.record()

    assert not done.done
    with xent.using(validate="always"):
        xent.sparse_cross_entropy(logits, labels)
    assert done.done


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("classes", [7, 3], ids=["whole", "cut"])
def test_chunks_of_cupy_are_computed_on_the_gpu_and_stay_there(rng, classes):
    dask = pytest.importorskip("dask", reason="dask is not installed")
    da = importlib.import_module("dask.array")
    logits, labels = rng.standard_normal((23, 7)).astype(np.float32), rng.integers(0, 7, 23)
    x = da.from_array(logits, chunks=(9, classes)).map_blocks(cupy.asarray, meta=cupy.empty((0, 0), "float32"))
    y = da.from_array(labels, chunks=9).map_blocks(cupy.asarray, meta=cupy.empty((0,), "int64"))
    options = {"reduction": "mean", "class_weight": [1.0, 2, 3, 4, 5, 6, 7], "ignore_index": 2}
    loss, gradient = dask.compute(*sparse_with_grad(x, y, **options), scheduler="synchronous")
    expected = sparse_with_grad(logits, labels, **options)

    assert isinstance(gradient, cupy.ndarray)
    assert np.allclose(cupy.asnumpy(loss), expected[0], rtol=2e-6)
    assert np.allclose(cupy.asnumpy(gradient), expected[1], rtol=4e-6, atol=1e-8)


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("classes", [7, 3], ids=["whole", "cut"])
def test_an_evaluation_of_chunks_of_cupy_is_that_of_the_host(rng, classes):
    logits, labels = rng.normal(size=(103, 7)).astype("float32"), rng.integers(0, 7, 103)
    lazy = dask_of(cupy.asarray(logits), (20, classes))
    found, expected = xent.evaluate(lazy, labels), xent.evaluate(logits, labels)

    assert found.accuracy == expected.accuracy
    assert found.mean_loss == pytest.approx(expected.mean_loss, rel=1e-6)
    assert [one.row for one in found.worst] == [one.row for one in expected.worst]


@on_a_gpu
def test_a_row_has_the_same_bits_whatever_its_neighbours(rng):
    logits, labels = rng.standard_normal((507, 123)).astype(np.float32), rng.integers(0, 123, 507)
    whole = sparse_with_grad(cupy.asarray(logits), cupy.asarray(labels))
    alone = sparse_with_grad(cupy.asarray(logits[400:401]), cupy.asarray(labels[400:401]))

    assert all(same_bits(cupy.asnumpy(a[400:401]), cupy.asnumpy(b)) for a, b in zip(whole, alone, strict=True))


def test_a_product_is_multiplied_on_the_gpu_that_has_its_hidden_states(monkeypatch):
    from xent.backends import cupy as backend

    hidden, classifier, labels = cupy.empty((5, 3), "float32"), cupy.empty((7, 3), "float32"), example()[1]
    decision = xent.explain(xent.linear_cross_entropy, hidden, classifier, labels)
    used = []
    monkeypatch.setattr(backend, "gpu_of", lambda array: used.append(array) or contextlib.nullcontext())
    monkeypatch.setattr(backend.linear, "run", lambda plan, product, *others: product)
    product = xent.sparse_cross_entropy(xent.Linear(hidden, classifier), labels)

    assert decision.backend == "cupy" and product.classifier is classifier
    assert len(used) == 1 and used[0] is hidden
