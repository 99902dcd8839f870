"""The whole path of a call on CuPy's arrays, with a processor in the GPU's place; test_gpu.py needs a GPU."""

import contextlib
import ctypes
import functools
import importlib
import pickle
import re
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import processor
import pytest
import registered  # noqa: F401  # makes the kernels known where they are not installed
from xent_cuda import device, hooks, kernels
from xent_cuda.plan import MAX_CLASSES, Device, Launch
from xent_cuda.task import ACCUMULATOR_BYTES, TASK

import xent
from xent.contract.problem import Options, Problem
from xent.dispatch import composition, settings
from xent.numerics.targets import NO_ROWS

cupy = pytest.importorskip("cupy", reason="cupy is not installed")
host = importlib.import_module("host")
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
sparse_with_grad = xent.value_and_grad(xent.sparse_cross_entropy)


@pytest.fixture
def twin(monkeypatch):
    """The plugin, registered, on a processor with an H200's properties."""
    twin = processor.Processor(Device())
    monkeypatch.setattr(device, "properties", lambda index: twin.device)
    monkeypatch.setattr(kernels.sparse, "gpu", twin)
    monkeypatch.setattr(kernels.dense, "gpu", twin)
    one_number = "xent.backends.generic.schedule.one_number"
    monkeypatch.setattr(one_number, lambda xp, value, dtype, device: host.put(np.full(1, value, dtype)))
    monkeypatch.setattr("xent.backends.cupy.gpu_of", lambda array: contextlib.nullcontext())
    before = cupy.cuda.get_allocator()
    cupy.cuda.set_allocator(host.allocate)
    yield twin
    cupy.cuda.set_allocator(before)


def example(rng, dtype=np.float32, rows=9, classes=33):
    return (rng.standard_normal((rows, classes)) * 3).astype(dtype), rng.integers(0, classes, rows)


def reference(logits, labels):
    """Losses and gradients in float64."""
    x = logits.astype(np.float64)
    gradient = np.exp(x - x.max(axis=1, keepdims=True))
    gradient /= gradient.sum(axis=1, keepdims=True)
    loss = -np.log(np.take_along_axis(gradient, labels[:, None], 1)[:, 0])
    np.put_along_axis(gradient, labels[:, None], np.take_along_axis(gradient, labels[:, None], 1) - 1, 1)
    return loss, gradient


def test_xent_and_the_kernels_agree_on_the_structure_of_a_call(tmp_path):
    fields = ", ".join(f"offsetof(Task<float>, {name})" for name in TASK.names)
    text = f'#include "cuda.hpp"\n#include <cstddef>\n{device.source()}\n'
    text += f"const size_t at[] = {{{fields}, sizeof(Task<float>), sizeof(Task<bf16>), sizeof(Accumulator<3>)}};\n"
    text += 'extern "C" size_t number(int i) { return at[i]; }\n'
    source = tmp_path / "numbers.cpp"
    source.write_text(text)
    library = tmp_path / "numbers.so"
    command = ["g++", *processor.FLAGS, f"-I{processor.HERE}", str(source), "-o", str(library)]
    subprocess.run(command, check=True, capture_output=True)
    number = ctypes.CDLL(str(library)).number
    number.restype = ctypes.c_size_t
    offsets = [TASK.fields[name][1] for name in TASK.names]

    assert [number(i) for i in range(len(offsets))] == offsets
    assert [number(len(offsets) + i) for i in range(3)] == [TASK.itemsize, TASK.itemsize, ACCUMULATOR_BYTES]


# -------------------- what is chosen, and why not


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", [xent.sparse_cross_entropy, xent.cross_entropy])
def test_it_is_chosen_for_arrays_of_cupy(twin, rng, dtype, function):
    logits, labels = example(rng, dtype)
    targets = labels if function is xent.sparse_cross_entropy else np.zeros(logits.shape, np.float32)
    decision = xent.explain(function, host.put(logits), host.put(targets))

    assert (decision.backend, decision.kernel) == ("cupy", "cuda")


def reasons(logits, labels):
    decision = xent.explain(xent.sparse_cross_entropy, logits, labels)
    return decision.kernel, next(verdict.reasons for verdict in decision.verdicts if verdict.kernel == "cuda")


def test_classes_that_do_not_lie_side_by_side_are_declined_with_the_reason(twin, rng):
    logits, labels = example(rng)
    wide = host.put(np.repeat(logits, 2, axis=1))

    assert reasons(wide[:, ::2], host.put(labels))[0] == "generic"
    assert "contiguous: the classes of a row do not lie side by side" in reasons(wide[:, ::2], host.put(labels))[1][0]
    assert reasons(host.put(logits.T.copy()).T, host.put(labels))[0] == "generic"
    assert reasons(wide[:, 3:36], host.put(labels))[0] == "cuda"


def test_an_old_gpu_is_declined_with_its_capability(twin, rng):
    twin.device = Device(capability=75)
    logits, labels = example(rng)

    assert reasons(host.put(logits), host.put(labels)) == (
        "generic",
        ("check: the GPU has compute capability 7.5, and 8.0 is the least that is served",),
    )


def test_without_a_gpu_the_reason_is_what_cupy_says(twin, rng, monkeypatch):
    if cupy.cuda.is_available():
        pytest.skip("there is a GPU here")
    monkeypatch.undo()
    device.properties.cache_clear()
    before = cupy.cuda.get_allocator()
    cupy.cuda.set_allocator(host.allocate)
    logits, labels = example(rng)
    kernel, why = reasons(host.put(logits), host.put(labels))
    cupy.cuda.set_allocator(before)

    assert kernel == "generic" and why[0].startswith("check: CuPy finds no GPU: CUDARuntimeError: ")


def test_more_classes_than_are_counted_are_declined(twin):
    assert hooks.guard((2 * MAX_CLASSES, MAX_CLASSES), ())
    assert not hooks.guard((2, MAX_CLASSES + 1), ())


def test_arrays_of_two_gpus_are_refused(twin, rng):
    logits, labels = example(rng)
    with pytest.raises(TypeError, match=r"on the device of `predictions` \(cuda:0\), got int64\[9\] on cupy on cuda:1"):
        xent.sparse_cross_entropy(host.put(logits), host.put(labels, device=1))


# -------------------- what is computed


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 10, 33, 1000, 5001])
def test_a_call_on_arrays_of_cupy_is_right(twin, rng, dtype, classes):
    logits, labels = example(rng, dtype, classes=classes)
    x, y = host.put(logits), host.put(labels)
    loss, gradient = sparse_with_grad(x, y)
    expected = reference(logits, labels)
    wide = np.float64 if dtype == np.float64 else np.float32

    assert isinstance(loss, cupy.ndarray) and isinstance(gradient, cupy.ndarray)
    assert (loss.dtype, gradient.dtype, gradient.shape) == (wide, logits.dtype, logits.shape)
    assert np.allclose(host.seen(loss), expected[0], rtol=1e-5, atol=1e-5)
    assert np.allclose(host.seen(gradient).astype(np.float64), expected[1], atol=4e-3 if logits.itemsize == 2 else 1e-6)
    assert host.seen(xent.sparse_cross_entropy(x, y)).tobytes() == host.seen(loss).tobytes()
    assert host.seen(x).tobytes() == logits.tobytes()
    assert twin.launched


def test_the_gradient_of_a_mean_has_every_rows_share(twin, rng, monkeypatch):
    logits, labels = example(rng)
    reduced = "xent.backends.generic.schedule.reduced"
    monkeypatch.setattr(reduced, lambda call, loss, rows: loss)  # a sum is CuPy's own
    _, gradient = sparse_with_grad(host.put(logits), host.put(labels), reduction="mean")
    _, seventh = sparse_with_grad(host.put(logits), host.put(labels), reduction=xent.Mean(7))

    assert np.allclose(host.seen(gradient), reference(logits, labels)[1] / 9, atol=1e-7)
    assert np.allclose(host.seen(seventh), reference(logits, labels)[1] / 7, atol=1e-7)


def test_a_bad_label_is_nan_in_its_row_alone(twin, rng):
    logits, labels = example(rng)
    labels[[2, 5]] = [-1, 33]
    loss, gradient = sparse_with_grad(host.put(logits), host.put(labels))
    bad = np.isin(np.arange(9), [2, 5])

    assert (np.isnan(host.seen(loss)) == bad).all()
    assert (np.isnan(host.seen(gradient)).all(axis=1) == bad).all() and not np.isnan(host.seen(gradient)[~bad]).any()


def test_rows_apart_from_each_other_give_the_bits_of_rows_side_by_side(twin, rng):
    logits, labels = example(rng, classes=1001)
    wide = np.full((9, 1013), np.nan, np.float32)
    wide[:, 5:1006] = logits
    near, far = host.put(logits), host.put(wide)[:, 5:1006]
    results = [sparse_with_grad(x, host.put(labels)) for x in (near, far)]

    assert far.strides == (1013 * 4, 4)
    assert all(host.seen(a).tobytes() == host.seen(b).tobytes() for a, b in zip(*results, strict=True))


def test_no_rows_are_no_launch(twin):
    logits, labels = host.put(np.empty((0, 7), np.float32)), host.put(np.empty(0, np.int64))
    loss, gradient = sparse_with_grad(logits, labels)

    assert (loss.shape, gradient.shape) == ((0,), (0, 7)) and not twin.launched


def test_requested_validation_goes_the_long_way(twin, rng, monkeypatch):
    logits, labels = example(rng)
    schedule = importlib.import_module("xent.backends.generic.schedule")
    monkeypatch.setattr(schedule, "rows_of_call", lambda *_: "the labels are read")
    monkeypatch.setattr(schedule, "RUN", {"loss": lambda call, rows: rows})
    with xent.using(validate="always"):
        assert xent.sparse_cross_entropy(host.put(logits), host.put(labels)) == "the labels are read"
    assert xent.sparse_cross_entropy(host.put(logits), host.put(labels), ignore_index=3) == "the labels are read"
    assert xent.sparse_cross_entropy(host.put(logits), host.put(labels)) is NO_ROWS


# -------------------- the methods of the kernel itself


def test_every_method_takes_arrays_of_cupy_and_returns_them(twin, rng):
    logits, labels = example(rng, classes=200)
    x, y, scale = host.put(logits), host.put(labels), host.put(np.ones(9, np.float32))
    partial = kernels.sparse.partial(x, y, 1.0, 0.0, threads=1)
    gradient = kernels.sparse.gradient(x, y, 1.0, 0.0, partial, scale, threads=1)
    statistics = kernels.sparse.statistics(x, y, host.put(logits[np.arange(9), labels]), threads=1)
    soft = host.put(rng.random((9, 200)).astype(np.float32))
    loss, _ = kernels.dense.loss_and_gradient(x, soft, scale, threads=1)

    arrays = (*partial, gradient, *statistics.partial, *statistics[1:], loss)

    assert all(isinstance(array, cupy.ndarray) for array in arrays)
    assert np.allclose(host.seen(gradient), reference(logits, labels)[1], atol=1e-6)
    assert (host.seen(partial.max) == logits.max(axis=1)).all()
    assert (host.seen(statistics.label_rank) == (logits > logits[np.arange(9), labels][:, None]).sum(axis=1)).all()


@pytest.mark.parametrize("classes", [10, 200, 5001])
def test_a_gradient_is_written_over_the_logits_where_they_are_out(twin, rng, classes):
    logits, labels = example(rng, classes=classes)
    arguments = host.put(labels), 1.0, 0.0, host.put(np.ones(9, np.float32))
    loss, apart = kernels.sparse.loss_and_gradient(host.put(logits), *arguments, threads=1)
    x = host.put(logits)
    again, gradient = kernels.sparse.loss_and_gradient(x, *arguments, threads=1, out=x.view())

    assert gradient.data.ptr == x.data.ptr
    assert host.seen(x).tobytes() == host.seen(apart).tobytes()
    assert host.seen(again).tobytes() == host.seen(loss).tobytes()


def test_a_gradient_is_not_written_over_the_logits_by_mistake(twin, rng):
    logits, labels = example(rng)
    x, arguments = host.put(logits), (host.put(labels), 1.0, 0.0, host.put(np.ones(9, np.float32)))
    with pytest.raises(ValueError, match="`out` must share no memory with `logits`, or be the logits themselves"):
        kernels.sparse.loss_and_gradient(x, *arguments, threads=1, out=x[::-1])
    wide = cupy.broadcast_to(x[:1], (9, 33))
    for what in ({"out": x.T[:9, :9]}, {"out": wide}, {}):
        shares = arguments[-1] if what else arguments[-1][:1]
        with pytest.raises(ValueError, match=r"memory of its own for every row|must have shape \(9"):
            kernels.sparse.loss_and_gradient(wide, *arguments[:-1], shares, threads=1, **what)

    assert host.seen(x).tobytes() == logits.tobytes()


# -------------------- how a kernel is compiled


def test_an_instance_is_compiled_once_whoever_asks_first(monkeypatch):
    made, launched, barrier = [], [], threading.Barrier(16)

    class Function:
        def __call__(self, *arguments, **keywords):
            launched.append((arguments, keywords))

    class Module:
        def __init__(self, code, options, name_expressions):
            made.append((code, options, name_expressions))

        def get_function(self, name):
            return Function()

    class OnAGpu:
        device = contextlib.nullcontext()

    OnAGpu.device.id = 0
    monkeypatch.setattr(cupy, "RawModule", Module)
    monkeypatch.setattr(device, "properties", lambda index: Device())
    device.compiled.cache_clear()
    launch = Launch("fold<float, 0, 0, 32, 128>", 7, 128, 60000)
    task = np.zeros(1, TASK)

    def ask(_):
        barrier.wait()
        device.Gpu().launch(launch, task, OnAGpu)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(16)))
    kernel = device.compiled(launch.kernel, 0, True)
    device.compiled.cache_clear()

    assert made == [(device.source(), device.OPTIONS, (launch.kernel,))]
    assert launched == [(((7,), (128,), (task,)), {"shared_mem": 60000})] * 16
    assert kernel.max_dynamic_shared_size_bytes == Device().shared_bytes


# -------------------- Dask and torch


def test_chunks_of_cupy_are_computed_by_it_and_only_on_request(twin, rng):
    dask, da = (pytest.importorskip(name, reason="dask is not installed") for name in ("dask", "dask.array"))
    logits, labels = example(rng, rows=10)

    def chunked(array, chunks):
        meta = cupy.empty((0,) * array.ndim, array.dtype)
        return da.map_blocks(host.put, da.from_array(array, chunks=chunks), dtype=array.dtype, meta=meta)

    loss = xent.sparse_cross_entropy(chunked(logits, (4, 33)), chunked(labels, 4))
    before = len(twin.launched)
    blocks = dask.compute(*loss.to_delayed().ravel(), scheduler="synchronous")

    assert before == 0 and len(twin.launched) == 3
    assert all(isinstance(block, cupy.ndarray) for block in blocks)
    assert np.allclose(np.concatenate([host.seen(block) for block in blocks]), reference(logits, labels)[0], rtol=1e-5)


@functools.cache
def torch_problem(**facts):
    return Problem(
        function="sparse_cross_entropy",
        op="sparse",
        method="loss_and_gradient",
        array="torch",
        dtype="bfloat16",
        device="cuda:0",
        ndim=2,
        axis=1,
        target_array="torch",
        target_dtype="int64",
        options=Options(),
        views=("cupy",),
        is_plain=True,
        **facts,
    )


def test_a_tensor_on_a_gpu_is_served_by_it_through_the_view_of_cupy(twin):
    pytest.importorskip("torch", reason="torch is not installed")
    plan = composition.compose(torch_problem(), settings.current().settings)
    inner = pickle.loads(pickle.dumps(plan)).inner

    assert (plan.decision.backend, plan.kernel, inner.problem.array) == ("torch", "cuda", "cupy")
    assert inner.run is importlib.import_module("xent.backends.cupy").run and inner.problem.is_plain
    assert inner.for_call(np.empty((4, 6)), strides=(12, 2)).kernel == "cuda"
    assert inner.for_call(np.empty((4, 6)), strides=(2, 8)).kernel == "generic"


def test_every_word_of_the_source_is_plain_c(tmp_path):
    """It includes no header and names no platform: NVRTC gets nothing but this text."""
    assert not re.search(r"^\s*#\s*include", device.source(), re.M)
    assert device.source().isascii()
