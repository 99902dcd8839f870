"""The targets that JAX calls, as far as a processor goes: nothing here has run on a GPU.

XLA itself calls them, on a processor, with the twin in the GPU's place; what only a GPU has, its stream and its
ordinal, is asked of a table of functions made by hand; and programs are lowered for CUDA, which takes none.
"""

import contextlib
import ctypes
import importlib
import os
import pathlib
import subprocess
import sys
import types

import ml_dtypes
import numpy as np
import processor
import pytest
import registered  # noqa: F401  # makes the kernels known where they are not installed
from xent_cuda import ffi, frames, hooks, kernels

import xent
from xent.kernels import why_no_targets
from xent.testing import check_kernel, registered_specs

jax = pytest.importorskip("jax", reason="jax is not installed")
cupy = pytest.importorskip("cupy", reason="cupy is not installed")
jnp = jax.numpy
twins = importlib.import_module("twins")
host = importlib.import_module("host")
SHAPES = [(1, 1), (300, 10), (7, 100), (3, 1025), (2, 9000)]  # every variant but clusters


def batch(rows, classes, dtype="float32"):
    """Logits, labels and soft targets, NumPy's."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((rows, classes)) * 3).astype(dtype)
    return x, rng.integers(0, classes, rows), rng.random((rows, classes)).astype("float32")


class Twins:
    """A plugin of the targets on a processor."""

    @xent.hookimpl
    def xent_register_kernels(self, api):
        for op in ("sparse", "dense"):
            yield xent.KernelSpec(
                name="xla-twin",
                op=op,
                load=f"twins:xla_{op}",
                arrays={"jax"},
                devices={"cpu", "traced"},
                dtypes=hooks.DTYPES,
                methods={"ffi_target"},
                opt_in=True,
            )


@contextlib.contextmanager
def called_by_xla():
    """A context in which XLA calls the kernels on a processor."""
    with contextlib.suppress(ValueError):  # registered by an earlier test
        xent.register(Twins(), "xla-twins")
    with pytest.MonkeyPatch.context() as patch, xent.using(kernel="xla-twin"):
        patch.setattr(frames, "stream", lambda frame: (0, 0))
        patch.setattr(ffi, "current", lambda ordinal, stream: contextlib.nullcontext())
        before = cupy.cuda.get_allocator()
        cupy.cuda.set_allocator(host.allocate)
        yield
        cupy.cuda.set_allocator(before)


@pytest.fixture
def on_xla():
    with called_by_xla():
        yield


# -------------------- called by XLA, with the twin in the GPU's place


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bits_are_those_of_the_kernels(on_xla, shape):
    x, labels, soft = batch(*shape)
    scale = np.ones(shape[0], np.float32)
    for loss, kernel, targets in (
        (xent.sparse_cross_entropy, twins.sparse, (labels, 1.0, 0.0)),
        (xent.cross_entropy, twins.dense, (soft,)),
    ):
        values = jax.jit(loss)(jnp.asarray(x), jnp.asarray(targets[0]))
        both = jax.jit(xent.value_and_grad(loss))(jnp.asarray(x), jnp.asarray(targets[0]))
        expected, slopes = kernel.loss_and_gradient(x, *targets, scale, threads=1)

        assert np.array_equal(values, kernel.loss(x, *targets, threads=1))
        assert np.array_equal(both[0], expected) and np.array_equal(both[1], slopes)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_read_as_it_is(on_xla, dtype):
    x, labels, _ = batch(5, 100)
    narrow = x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    both = xent.value_and_grad(xent.sparse_cross_entropy)(jnp.asarray(narrow), jnp.asarray(labels))
    expected = twins.sparse.loss_and_gradient(narrow, labels, 1.0, 0.0, np.ones(5, np.float32), threads=1)

    assert both[1].dtype == dtype
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(both, expected, strict=True))


def test_labels_smoothing_scales_and_ignored_rows_reach_the_kernel(on_xla):
    x, labels, _ = batch(6, 40)
    x[2] = np.nan
    options = {"label_smoothing": 0.1, "ignore_index": 99, "reduction": "mean"}
    labels[2] = 99
    weight = np.arange(6, dtype=np.float32)
    arrays = [jnp.asarray(array) for array in (x, labels)]
    ours = xent.value_and_grad(xent.sparse_cross_entropy)(*arrays, sample_weight=jnp.asarray(weight), **options)
    with xent.using(kernel="generic"):
        theirs = xent.value_and_grad(xent.sparse_cross_entropy)(x, labels, sample_weight=weight, **options)

    assert np.allclose(ours[0], theirs[0], rtol=1e-6) and np.allclose(ours[1], theirs[1], atol=1e-7)
    assert np.all(ours[1][2] == 0)


def test_autodiff_and_vmap_take_the_targets(on_xla):
    x, labels, _ = batch(8, 40)
    grid, of_grid = jnp.asarray(x.reshape(4, 2, 40)), jnp.asarray(labels.reshape(4, 2))
    slope = jax.jit(jax.grad(lambda x: xent.sparse_cross_entropy(x, of_grid, reduction="mean")))(grid)
    expected = twins.sparse.loss_and_gradient(x, labels, 1.0, 0.0, np.full(8, 0.125, np.float32), threads=1)

    assert np.array_equal(slope.reshape(8, 40), expected[1])
    assert np.array_equal(jax.vmap(xent.sparse_cross_entropy)(grid, of_grid).reshape(-1), expected[0])


def test_a_label_outside_is_nan_in_a_trace(on_xla):
    x, labels, _ = batch(5, 40)
    labels[[1, 3]] = 40, -1

    assert np.isnan(jax.jit(xent.sparse_cross_entropy)(jnp.asarray(x), jnp.asarray(labels))).tolist() == [
        False,
        True,
        False,
        True,
        False,
    ]


SHARDED = """
import contextlib
import jax, jax.numpy as jnp, numpy as np, test_ffi, twins, xent
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
with test_ffi.called_by_xla():
    mesh = Mesh(np.array(jax.devices()), ("rows",))
    x, labels, _ = test_ffi.batch(12, 9000)
    expected = twins.sparse.loss_and_gradient(x, labels, 1.0, 0.0, np.ones(12, np.float32), threads=1)
    rows = jax.device_put(x, NamedSharding(mesh, P("rows", None)))
    both = jax.jit(xent.value_and_grad(xent.sparse_cross_entropy))
    losses, slopes = both(rows, jnp.asarray(labels))
    assert "all-gather" not in both.lower(rows, jnp.asarray(labels)).compile().as_text()
    assert slopes.sharding.spec == P("rows", None), slopes.sharding
    assert np.array_equal(losses, expected[0]) and np.array_equal(slopes, expected[1])
    print("sharded")
"""


def test_rows_may_be_sharded_and_each_device_plans_for_its_own():
    folders = [str(pathlib.Path(__file__).parent), str(processor.HERE), *sys.path]
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=3"}
    done = subprocess.run(
        [sys.executable, "-c", SHARDED],
        env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, folders))},
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.stdout.strip() == "sharded", done.stderr


@pytest.mark.parametrize("check", ["tiny_losses", "infinities", "masked_tiles"])
@pytest.mark.parametrize("op", ["sparse", "dense"])
def test_a_promise_is_kept(on_xla, op, check):
    spec = next(spec for spec in registered_specs("xla-twin") if spec.op == op)
    report = check_kernel(spec, checks=[check], quick=True)

    assert report.results and not report.results[0].not_run
    assert report.ok, str(report)


def test_an_error_of_the_kernel_is_raised_in_the_caller(on_xla, monkeypatch):
    def fails(*arguments):
        raise LookupError("no such instance")

    monkeypatch.setattr(kernels.CudaCall, "run", fails)
    with pytest.raises(Exception, match="xent-cuda: LookupError: no such instance"):
        jax.block_until_ready(jax.jit(xent.sparse_cross_entropy)(jnp.zeros((3, 41)), jnp.zeros(3, int)))


# -------------------- lowered for CUDA


@pytest.fixture
def on_cuda(monkeypatch):
    """Has xent take this machine for one with a GPU, while it traces."""
    monkeypatch.setattr(ffi, "check", lambda: "")
    monkeypatch.setattr(hooks, "check", lambda problem: True)
    with xent.using(kernel="cuda-ffi"):
        yield


def lowered(function, *arrays, platform="cuda"):
    return jax.jit(function).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()


def test_a_program_for_cuda_calls_the_targets_and_others_the_generic_expression(on_cuda):
    x, labels, soft = (jnp.asarray(array) for array in batch(33, 130))
    loss = lowered(xent.sparse_cross_entropy, x, labels)
    slope = lowered(jax.grad(lambda x: xent.sparse_cross_entropy(x, labels, reduction="mean")), x)
    of_soft = lowered(xent.cross_entropy, x.astype("bfloat16"), soft)

    assert loss.count("@xent_cuda_sparse_loss_float32") == 1 and "exponential" not in loss
    assert "off = 0.000000e+00 : f64, on = 1.000000e+00 : f64" in loss
    assert slope.count("@xent_cuda_sparse_loss_and_gradient_float32") == 1  # one read
    assert of_soft.count("@xent_cuda_dense_loss_bfloat16") == 1
    assert "xent_cuda" not in lowered(xent.sparse_cross_entropy, x, labels, platform="cpu")


# -------------------- what is chosen, and why not


def test_without_a_gpu_jax_is_told_so():
    decision = xent.explain(xent.sparse_cross_entropy, jnp.zeros((2, 3)), jnp.zeros(2, int))
    verdict = next(verdict for verdict in decision.verdicts if verdict.kernel == "cuda-ffi")

    assert decision.kernel == "generic"
    assert any("cpu" in reason for reason in verdict.reasons)
    assert ffi.check() == "JAX computes on cpu, not on a GPU"


def test_another_version_of_the_interface_is_declined(monkeypatch, tmp_path):
    header = tmp_path / "xla" / "ffi" / "api" / "c_api.h"
    header.parent.mkdir(parents=True)
    header.write_text("#define XLA_FFI_API_MAJOR 7\n")
    monkeypatch.setattr(jax.ffi, "include_dir", lambda: str(tmp_path))
    why_no_targets.cache_clear()
    try:
        assert ffi.check() == "XLA's foreign function interface has version 7, not 0"
    finally:
        why_no_targets.cache_clear()


# -------------------- call frames made by hand


def table(**functions):
    """XLA's table with these functions, each called with a request's address, and what keeps them alive."""
    api, kept = frames.Api(struct_size=ctypes.sizeof(frames.Api)), []
    for name, function in functions.items():
        kept.append(frames.Handler(function))
        setattr(api, name, kept[-1])
    return api, kept


def call_frame(api):
    return frames.CallFrame(ctypes.sizeof(frames.CallFrame), None, ctypes.pointer(api), 0xC0)


def test_the_offsets_are_those_of_the_header():
    api = frames.Api

    assert (api.error_create.offset, api.stream_get.offset, api.device_ordinal_get.offset) == (48, 80, 184)
    fields = (frames.CallFrame.context, frames.CallFrame.arguments, frames.CallFrame.results)
    assert [field.offset for field in fields] == [24, 40, 80] and frames.CallFrame.attributes.offset == 120
    assert [getattr(frames.Buffer, name).offset for name in ("dtype", "data", "rank", "sizes")] == [16, 24, 32, 40]
    assert [getattr(frames.Metadata, name).offset for name in ("major", "minor", "traits", "state")] == [24, 28, 32, 40]


def test_the_stream_and_the_gpu_are_asked_of_xla():
    def stream(address):
        request = frames.StreamRequest.from_address(address)
        assert (request.struct_size, request.context) == (32, 0xC0)
        request.stream = 0xABC
        return 0

    def ordinal(address):
        frames.OrdinalRequest.from_address(address).ordinal = 3
        return 0

    api, kept = table(stream_get=stream, device_ordinal_get=ordinal)

    assert frames.stream(call_frame(api)) == (3, 0xABC)
    assert len(kept) == 2


def test_what_xla_does_not_answer_is_an_error():
    api, kept = table(stream_get=lambda address: 0xE0, device_ordinal_get=lambda address: 0)
    with pytest.raises(RuntimeError, match="does not answer stream_get"):
        frames.stream(call_frame(api))
    api.struct_size -= 8
    with pytest.raises(RuntimeError, match="too old"):
        frames.stream(call_frame(api))
    assert len(kept) == 2


def test_an_error_is_made_by_xla_of_its_message():
    seen = []

    def create(address):
        request = frames.ErrorRequest.from_address(address)
        seen.append((request.message, request.code))
        return 0xE0

    api, kept = table(error_create=create)

    assert frames.error(call_frame(api), "xent-cuda: no") == 0xE0
    assert seen == [(b"xent-cuda: no", 13)] and len(kept) == 1


def test_launches_are_on_the_gpu_and_the_stream_of_the_call(monkeypatch):
    entered = []

    class Context:
        def __init__(self, *arguments):
            self.arguments = arguments

        def __enter__(self):
            entered.append(self.arguments)

        def __exit__(self, *error):
            entered.append(None)

    monkeypatch.setattr(cupy, "cuda", types.SimpleNamespace(Device=Context, ExternalStream=Context))
    with ffi.current(3, 0xABC):
        assert entered == [(3,), (0xABC, 3)]
    assert entered[2:] == [None, None]
