"""Tests that need a GPU: its numbers are the twin's; its streams, its memory.

Run by ``make test-gpu``, in this order: correctness before speed.
"""

import importlib
import itertools
import shutil

import ml_dtypes
import numpy as np
import pytest
import registered  # noqa: F401  # makes the kernels known where they are not installed
from xent_cuda import device, kernels
from xent_cuda.plan import LABEL, SMOOTHED, SOFT, Shape, variants

import xent

cupy = pytest.importorskip("cupy", reason="cupy is not installed")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="cupy.cuda.is_available() is False: this takes a GPU"),
]
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
SHAPES = [(5, 1), (300, 10), (70, 100), (37, 1000), (64, 4099), (8, 50257), (3, 128256)]
ALIGNMENTS = [(0, 0), (1, 0), (3, 5)]
"""Elements that the first row begins after 16 bytes, and that lie between rows."""
LOSS_ERROR = {2: 2e-6, 4: 2e-6, 8: 1e-13}
GRADIENT_ERROR = {"float16": 6e-4, "bfloat16": 4e-3, "float32": 1e-6, "float64": 1e-14}
sparse_with_grad = xent.value_and_grad(xent.sparse_cross_entropy)


def poisoned(shape, dtype, offset=0):
    """Memory full of NaN, which begins some elements after 16 bytes."""
    dtype = np.dtype(dtype)
    memory = cupy.full(int(np.prod(shape)) * dtype.itemsize + 64, 0xFF, cupy.uint8)
    first = offset * dtype.itemsize
    return memory[first : first + int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)


def laid(values, offset=0, apart=0):
    """An array of CuPy's with these values, rows so many elements apart, NaN between them."""
    (rows, classes), dtype = values.shape, values.dtype
    memory = np.full(rows * (classes + apart) * dtype.itemsize + 64, 0xFF, np.uint8)
    first, last = offset * dtype.itemsize, (offset + rows * (classes + apart)) * dtype.itemsize
    memory[first:last].view(dtype).reshape(rows, -1)[:, :classes] = values
    return cupy.asarray(memory)[first:last].view(dtype).reshape(rows, -1)[:, :classes]


def example(rng, dtype, rows, classes):
    """Logits, labels, soft targets, scales."""
    wide = np.float64 if dtype == np.float64 else np.float32
    soft, scale = rng.random((rows, classes)).astype(wide), rng.standard_normal(rows).astype(wide)
    return (rng.standard_normal((rows, classes)) * 4).astype(dtype), rng.integers(0, classes, rows), soft, scale


def reference(logits, targets):
    """Losses and gradients in float64, of targets (rows, classes)."""
    x = logits.astype(np.float64)
    gaps = x.max(axis=1, keepdims=True) - x
    exps = np.exp(-gaps)
    total, mass = exps.sum(axis=1, keepdims=True), targets.sum(axis=1, keepdims=True)
    return (targets * gaps).sum(axis=1) + (mass * np.log(total))[:, 0], mass * exps / total - targets


def targets_of(kind, labels, soft):
    """The targets (rows, classes) in float64, and the arguments of a kernel for them."""
    if kind == SOFT:
        return soft.astype(np.float64), (cupy.asarray(soft),)
    on, off = (1.0, 0.0) if kind == LABEL else (0.9, 0.1 / soft.shape[1])
    hit = np.arange(soft.shape[1]) == labels[:, None]
    return on * hit + off, (cupy.asarray(labels), on, off)


# -------------------- every variant, every dtype, every alignment


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "classes"), SHAPES)
def test_every_variant_is_right_wherever_a_row_begins_and_all_give_the_same_bits(rng, dtype, rows, classes):
    logits, labels, soft, scale = example(rng, dtype, rows, classes)
    gpu, name = kernels.Gpu(), np.dtype(dtype).name
    for kind in (LABEL, SMOOTHED, SOFT):
        targets, arguments = targets_of(kind, labels, soft)
        loss, gradient = reference(logits, targets)
        bits = set()
        for offset, apart in ALIGNMENTS:
            x = laid(logits, offset, apart)
            shape = Shape(rows, classes, name, kind, "loss_and_gradient", not apart)
            for variant in variants(shape, gpu.properties(x)):
                kernel = (kernels.CudaDense if kind == SOFT else kernels.CudaSparse)(gpu, variant)
                for other in (0, 1):
                    out = poisoned((rows, classes), dtype, other)
                    found = kernel.loss_and_gradient(x, *arguments, cupy.asarray(scale), threads=1, out=out)
                    losses, gradients = (cupy.asnumpy(array) for array in found)
                    where = f"{variant}, {kind}, {offset}, {apart}, {other}"
                    limit = LOSS_ERROR[x.itemsize] * (1 + np.abs(loss))
                    wrong = np.abs(gradients.astype(np.float64) - gradient * scale[:, None])

                    assert (np.abs(losses - loss) <= limit).all(), where
                    size = np.maximum(np.maximum(np.abs(gradient), targets), 0.1) * np.abs(scale)[:, None]
                    assert (wrong <= 2 * GRADIENT_ERROR[name] * size).all(), where
                    bits.add((losses.tobytes(), gradients.tobytes()))
                partial = kernel.partial(x, *arguments, threads=1)
                again = type(kernel)(gpu).gradient(x, *arguments, partial, cupy.asarray(scale), threads=1)

                assert np.allclose(cupy.asnumpy(again).astype(np.float64), gradients.astype(np.float64), atol=4e-3)
        assert len(bits) == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gpu_gives_the_twins_numbers(rng, dtype):
    """But for the last digits of exponentials and logarithms, which are the GPU's own."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: the twin is compiled by it")
    processor = importlib.import_module("processor")
    logits, labels, _, scale = example(rng, dtype, 9, 777)
    x, y, scales = (cupy.asarray(array) for array in (logits, labels, scale))
    on_gpu = kernels.sparse.loss_and_gradient(x, y, 1.0, 0.0, scales, threads=1)
    twin = kernels.CudaSparse(processor.Processor(variants=("warp",)))
    on_twin = twin.loss_and_gradient(logits, labels, 1.0, 0.0, scale, threads=1)

    assert np.allclose(cupy.asnumpy(on_gpu[0]), on_twin[0], rtol=1e-6)
    assert np.allclose(cupy.asnumpy(on_gpu[1]).astype(np.float64), on_twin[1].astype(np.float64), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_labels_of_every_integer_type_are_taken(rng, dtype):
    logits, labels, *_ = example(rng, np.float32, 50, 100)
    loss = xent.sparse_cross_entropy(cupy.asarray(logits), cupy.asarray(labels.astype(dtype)))

    assert np.allclose(cupy.asnumpy(loss), xent.sparse_cross_entropy(logits, labels), rtol=2e-6)


def test_more_than_two_to_the_thirty_one_elements_are_found(rng):
    rows, classes = 2_200_000, 1000
    logits = cupy.zeros((rows, classes), cupy.float16)
    logits[-1] = cupy.asarray(rng.standard_normal(classes).astype(np.float16))
    last = cupy.asnumpy(logits[-1:]).astype(np.float32)
    loss, gradient = sparse_with_grad(logits, cupy.full(rows, 7, cupy.int64))
    expected = sparse_with_grad(last, np.asarray([7]))

    assert float(loss[0]) == pytest.approx(np.log(classes), rel=1e-6)
    assert float(loss[-1]) == pytest.approx(float(expected[0][0]), rel=1e-6)
    assert np.allclose(cupy.asnumpy(gradient[-1]).astype(np.float32), expected[1][0], atol=6e-4)


# -------------------- streams, graphs, memory


def test_work_goes_to_the_current_stream_and_nothing_waits(rng):
    logits, labels, *_ = (cupy.asarray(array) for array in example(rng, np.float32, 512, 4096))
    expected = sparse_with_grad(logits, labels)
    busy = cupy.asarray(rng.standard_normal((8192, 8192)).astype(np.float32))
    busy @ busy
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with stream:
        for _ in range(50):
            busy @ busy
        found = sparse_with_grad(logits, labels)
        assert not stream.done
    stream.synchronize()

    assert all((a == b).all() for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(("rows", "classes"), [(1000, 10), (512, 1000), (512, 32000), (256, 128256), (4, 128256)])
def test_a_graph_of_the_call_gives_the_numbers_of_new_logits(rng, rows, classes):
    logits, labels, _, scale = (cupy.asarray(array) for array in example(rng, np.float32, rows, classes))
    logits = logits.astype(np.float16)
    arguments = labels, 1.0, 0.0, scale
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        kernels.sparse.loss_and_gradient(logits, *arguments, threads=1)  # compiled
        stream.synchronize()
        stream.begin_capture()
        captured = kernels.sparse.loss_and_gradient(logits, *arguments, threads=1)
        graph = stream.end_capture()
        logits *= 0.5
        graph.launch()
        expected = kernels.sparse.loss_and_gradient(logits, *arguments, threads=1)
        stream.synchronize()

    assert all((a == b).all() for a, b in zip(captured, expected, strict=True))


def test_memory_comes_from_cupys_pool_and_is_that_of_the_results(rng):
    logits, labels, _, scale = (cupy.asarray(array) for array in example(rng, np.float32, 64, 128256))
    kernels.sparse.loss_and_gradient(logits, labels, 1.0, 0.0, scale, threads=1)
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    free, before = cupy.cuda.runtime.memGetInfo()[0], pool.used_bytes()
    loss, gradient = kernels.sparse.loss_and_gradient(logits, labels, 1.0, 0.0, scale, threads=1)
    taken = pool.used_bytes() - before

    assert loss.nbytes + gradient.nbytes <= taken <= loss.nbytes + gradient.nbytes + (1 << 20)
    assert free - cupy.cuda.runtime.memGetInfo()[0] <= taken + (64 << 20)


def test_runs_give_the_same_bits(rng):
    logits, labels, _, scale = (cupy.asarray(array) for array in example(rng, np.float32, 99, 70001))
    expected, *results = (
        kernels.sparse.loss_and_gradient(logits, labels, 1.0, 0.0, scale, threads=1) for _ in range(20)
    )

    assert all((a == b).all() for result in results for a, b in zip(result, expected, strict=True))


@pytest.mark.parametrize("classes", [10, 1000, 32000, 128256])
def test_logits_are_overwritten_where_they_are_out(rng, classes):
    logits, labels, _, scale = (cupy.asarray(array) for array in example(rng, np.float32, 40, classes))
    apart = kernels.sparse.loss_and_gradient(logits, labels, 1.0, 0.0, scale, threads=1)
    over = logits.copy()
    found = kernels.sparse.loss_and_gradient(over, labels, 1.0, 0.0, scale, threads=1, out=over)

    assert found[1] is over
    assert all((a == b).all() for a, b in zip(found, apart, strict=True))


# -------------------- torch, and sets larger than the pool


def test_a_tensor_is_read_where_it_is_and_the_gradient_is_a_tensor_on_its_gpu(rng):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    logits, labels, *_ = example(rng, np.float32, 64, 5000)
    x, y = torch.from_numpy(logits).cuda().to(torch.bfloat16), torch.from_numpy(labels).cuda()
    before = torch.cuda.memory_allocated()
    with xent.using(kernel="cuda", trace=True) as decisions:
        loss, gradient = sparse_with_grad(x, y, reduction="mean")
    taken = torch.cuda.memory_allocated() - before
    wide = x.double().requires_grad_()
    expected = torch.nn.functional.cross_entropy(wide, y)
    expected.backward()

    assert decisions[0].backend == "torch" and decisions[0].kernel == "cuda"
    assert taken == 0  # the gradient is in CuPy's memory, and there is no copy
    assert gradient.device == x.device and gradient.dtype == torch.bfloat16
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(gradient.double(), wide.grad, atol=4e-3 / 64)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_tensor_is_differentiated_on_torchs_own_stream(rng, reduction):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    logits, labels, *_ = example(rng, np.float32, 300, 5000)
    y, stream = torch.from_numpy(labels).cuda(), torch.cuda.Stream()
    with torch.cuda.stream(stream):
        x = (torch.from_numpy(logits).cuda() * 2).requires_grad_()  # the kernel must wait for this
        with xent.using(kernel="cuda"):
            loss = xent.sparse_cross_entropy(x, y, reduction=reduction)
            (loss.sum() * 3).backward()
        found = x.grad * 1
    stream.synchronize()
    wide = (torch.from_numpy(logits).cuda() * 2).double().requires_grad_()
    (torch.nn.functional.cross_entropy(wide, y, reduction=reduction).sum() * 3).backward()

    assert torch.allclose(found.double(), wide.grad, atol=3e-6)


def test_a_set_larger_than_the_pool_is_evaluated_chunk_by_chunk():
    da = pytest.importorskip("dask.array", reason="dask is not installed")
    rows, classes, chunk = 400_000, 1000, 20_000
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    limit = pool.get_limit()
    pool.set_limit(size=pool.used_bytes() + (512 << 20))  # the set has 1.6 GB

    def made(block_info=None):
        first = block_info[None]["array-location"][0][0]
        return cupy.random.RandomState(first).standard_normal((chunk, classes), dtype=np.float32)

    try:
        meta = cupy.empty((0, 0), np.float32)
        logits = da.map_blocks(made, chunks=((chunk,) * (rows // chunk), (classes,)), dtype=np.float32, meta=meta)
        labels = da.map_blocks(
            cupy.asarray, da.zeros(rows, chunks=chunk, dtype=np.int64), dtype=np.int64, meta=cupy.empty((0,), np.int64)
        )
        with xent.using(kernel="cuda"):
            loss = xent.sparse_cross_entropy(logits, labels, reduction="mean")
        found = float(loss.compute(scheduler="synchronous"))
    finally:
        pool.set_limit(size=limit)

    # E log Σ exp of normal logits is near log C + 1/2, and the label's logit is 0 in the mean
    assert found == pytest.approx(np.log(classes) + 0.5, abs=0.01)


def test_what_is_compiled_spills_nothing_that_is_not_double(monkeypatch):
    found, compiled = {}, device.compiled

    def recorded(*arguments):
        return found.setdefault(arguments[0], compiled(*arguments))

    monkeypatch.setattr(device, "compiled", recorded)
    for dtype, classes in itertools.product(DTYPES[:3], (10, 100, 1000, 30000)):
        sparse_with_grad(cupy.zeros((200, classes), dtype), cupy.zeros(200, cupy.int64))

    assert len(found) >= 10
    assert {name: kernel.attributes["local_size_bytes"] for name, kernel in found.items()} == dict.fromkeys(found, 0)


def test_jax_on_the_gpu_takes_the_targets_and_their_numbers_are_the_kernels():
    jax = pytest.importorskip("jax", reason="jax is not installed")
    if jax.default_backend() != "gpu":
        pytest.skip(f"JAX computes on {jax.default_backend()}")
    for rows, classes in SHAPES:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((rows, classes)).astype(np.float32)
        labels = rng.integers(0, classes, rows)
        arrays = jax.numpy.asarray(x), jax.numpy.asarray(labels)
        with xent.using(kernel="cuda-ffi"):
            compiled = jax.jit(sparse_with_grad)
            assert "xent_cuda_sparse_loss_and_gradient_float32" in compiled.lower(*arrays).as_text()
            ours = compiled(*arrays)
        with xent.using(kernel="cuda"):
            theirs = sparse_with_grad(cupy.asarray(x), cupy.asarray(labels))

        assert all(np.array_equal(a, b.get()) for a, b in zip(ours, theirs, strict=True))
