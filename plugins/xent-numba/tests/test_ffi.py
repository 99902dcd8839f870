"""The kernels as JAX calls them: through XLA's foreign function interface, compiled or not."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import xent
from xent.kernels import why_no_targets
from xent.testing import check_kernel, load, parametrize_with_checks

jax = pytest.importorskip("jax")
jnp = jax.numpy

KERNEL = "numba-ffi"


@parametrize_with_checks(KERNEL)
def test_a_promise_is_kept(spec, check):
    if check == "equal_terms":
        pytest.skip("XLA would compile a program for each of 299 widths, and the loops are those that numba is held to")
    # a target takes seconds to compile: other dtypes are tried in the tests below, and their loops under NumPy
    narrow = replace(spec, name=f"{KERNEL} float32", dtypes=frozenset({"float32"}))
    report = check_kernel(narrow, checks=[check], quick=True)
    if report.results and report.results[0].not_run:
        pytest.skip(report.results[0].not_run)
    assert report.ok, str(report)


def batch(rows, classes, dtype="float32", seed=0):
    """Logits, labels and soft targets, NumPy's."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, classes)).astype(dtype) * 3
    return x, rng.integers(0, classes, rows), rng.random((rows, classes)).astype("float32")


def served(function, *arguments, **options):
    """The result, and the kernels that computed it."""
    with xent.using(trace=True) as decisions:
        result = function(*arguments, **options)
    return result, [decision.kernel for decision in decisions]


@pytest.mark.parametrize(
    "shape", [(1, 1), (7, 10), (70, 64), (33, 65), (5, 700), (3, 70_000), (1, 140_000), (300, 1000)]
)
@pytest.mark.parametrize("jit", [False, True])
def test_the_bits_are_those_of_the_kernel_for_numpy(shape, jit):
    x, labels, soft = batch(*shape)
    compiled = jax.jit if jit else lambda function: function
    for loss, targets in ((xent.sparse_cross_entropy, labels), (xent.cross_entropy, soft)):
        both = xent.value_and_grad(loss)
        values, kernels = served(compiled(loss), jnp.asarray(x), jnp.asarray(targets))
        assert kernels == [KERNEL]
        assert np.array_equal(values, loss(x, targets))
        values, slopes = compiled(both)(jnp.asarray(x), jnp.asarray(targets))
        expected_values, expected_slopes = both(x, targets)
        assert np.array_equal(values, expected_values)
        assert np.array_equal(slopes, expected_slopes)


def test_autodiff_takes_the_fused_gradient():
    x, labels, _ = batch(40, 300)

    def mean(logits):
        return xent.sparse_cross_entropy(logits, jnp.asarray(labels), reduction="mean")

    slopes, kernels = served(jax.jit(jax.grad(mean)), jnp.asarray(x))

    text = jax.jit(jax.grad(mean)).lower(jnp.asarray(x)).as_text()
    assert kernels == [KERNEL]
    assert text.count("xent_numba_sparse_loss_and_gradient_float32") == 1
    assert "xent_numba_sparse_loss_float32" not in text  # one read serves both
    assert np.allclose(slopes, xent.value_and_grad(xent.sparse_cross_entropy)(x, labels, reduction="mean")[1])


def test_a_row_of_weight_zero_has_no_part_in_any_derivative_whatever_it_holds():
    x, labels, _ = batch(6, 30)
    x[2] = np.nan
    weight = jnp.asarray([1.0, 1, 0, 1, 1, 1])

    def total(logits):
        return xent.sparse_cross_entropy(logits, jnp.asarray(labels), sample_weight=weight, reduction="sum")

    slopes = jax.grad(total)(jnp.asarray(x))
    second = jax.jvp(jax.grad(total), (jnp.asarray(x),), (jnp.ones((6, 30)),))[1]

    assert np.all(slopes[2] == 0) and np.isfinite(slopes).all()
    assert np.all(second[2] == 0) and np.isfinite(second).all()


def test_second_derivatives_are_those_of_the_generic_expression():
    x, labels, _ = batch(3, 5)

    def total(logits):
        return jnp.sum(xent.sparse_cross_entropy(logits, jnp.asarray(labels)) ** 2)

    hessian = jax.hessian(total)(jnp.asarray(x))
    with xent.using(kernel="generic"):
        assert np.allclose(hessian, jax.hessian(total)(jnp.asarray(x)), rtol=1e-5, atol=1e-5)


def test_a_batch_may_be_mapped():
    x, labels, _ = batch(12, 33)
    x, labels = jnp.asarray(x.reshape(4, 3, 33)), jnp.asarray(labels.reshape(4, 3))
    mapped = jax.vmap(xent.sparse_cross_entropy)(x, labels)
    inner = jax.vmap(jax.vmap(xent.sparse_cross_entropy), in_axes=(1, 1), out_axes=1)(x, labels)
    shared = jax.vmap(xent.sparse_cross_entropy, in_axes=(0, None))(x, labels[0])

    assert np.array_equal(mapped, xent.sparse_cross_entropy(x, labels))
    assert np.array_equal(inner, mapped)
    assert np.array_equal(shared[0], mapped[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_read_as_it_is(dtype):
    x, labels, _ = batch(9, 200)
    narrow = jnp.asarray(x).astype(dtype)
    (values, slopes), kernels = served(xent.value_and_grad(xent.sparse_cross_entropy), narrow, jnp.asarray(labels))
    text = jax.jit(xent.sparse_cross_entropy).lower(narrow, jnp.asarray(labels)).as_text()

    assert kernels == [KERNEL]
    assert f"xent_numba_sparse_loss_{dtype}" in text
    assert values.dtype == "float32" and slopes.dtype == dtype
    assert np.array_equal(values, xent.sparse_cross_entropy(narrow.astype("float32"), jnp.asarray(labels)))


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64:UserWarning")  # of JAX, without a plugin too
def test_float64_without_x64_is_computed_as_jax_does():
    x, labels, _ = batch(5, 29, "float64")
    with jax.enable_x64(True):
        wide = jnp.asarray(x)
    values, slopes = xent.value_and_grad(xent.sparse_cross_entropy)(wide, jnp.asarray(labels))
    with xent.using(kernel="generic"):
        expected = xent.sparse_cross_entropy(wide, jnp.asarray(labels))

    assert wide.dtype == "float64"
    assert values.dtype == expected.dtype and np.allclose(values, expected, rtol=1e-6)
    assert np.allclose(slopes, xent.value_and_grad(xent.sparse_cross_entropy)(x, labels)[1], atol=1e-6)


@pytest.mark.parametrize("shape", [(2,), (7, 10), (33, 65)])
def test_float64_with_x64_has_the_bits_of_the_kernel_for_numpy(shape):
    x = np.random.default_rng(0).standard_normal(shape)
    labels = np.zeros(shape[:-1], np.int64)
    with jax.enable_x64(True):
        values, kernels = served(jax.jit(xent.sparse_cross_entropy), jnp.asarray(x), jnp.asarray(labels))

    assert kernels == [KERNEL] and values.dtype == "float64"
    assert np.array_equal(values, xent.sparse_cross_entropy(x, labels))


def test_what_is_exported_needs_no_plugin():
    x, labels, _ = batch(4, 50)
    exported = jax.export.export(jax.jit(xent.sparse_cross_entropy))(jnp.asarray(x), jnp.asarray(labels))

    assert "xent_numba" not in exported.mlir_module()
    assert np.allclose(exported.call(jnp.asarray(x), jnp.asarray(labels)), xent.sparse_cross_entropy(x, labels))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (xent.softmax, "it has no FFI target for softmax"),
        (lambda x: xent.row_statistics(x, jnp.zeros(4, int), kind="log_probabilities"), "takes no log_probabilities"),
    ],
    ids=["softmax", "log_probabilities"],
)
def test_what_a_target_cannot_do_is_declined_with_the_reason(function, reason):
    with xent.using(trace=True) as decisions:
        function(jnp.asarray(batch(4, 50)[0]))

    (decision,) = decisions
    assert decision.kernel == "generic"
    assert reason in "; ".join(next(verdict.reasons for verdict in decision.verdicts if verdict.kernel == KERNEL))


# -------------------- the numbers of rows


@pytest.mark.parametrize("shape", [(1, 1), (70, 64), (33, 129), (5, 700), (3, 70_000), (1, 140_000)])
def test_the_numbers_of_rows_have_the_bits_of_the_kernel_for_numpy(shape):
    x, labels, soft = batch(*shape)
    at_label = x[np.arange(len(x)), labels]
    calls = [
        ("sparse", "partial", (x, labels, 0.9, 0.01)),
        ("dense", "partial", (x, soft)),
        ("sparse", "statistics", (x, labels, at_label)),
    ]
    for op, method, arguments in calls:
        ours, theirs = (
            jax.tree.leaves(getattr(load(f"xent_numba.{module}:{op}"), method)(*arguments, threads=1))
            for module in ("ffi", "kernels")
        )

        assert all(map(np.array_equal, ours, theirs)), method


NUMBERS = {
    "row_statistics": xent.row_statistics,
    "logsumexp": lambda x, labels: xent.logsumexp(x),
    "partial": lambda x, labels: xent.partial(x, labels=labels, num_classes=x.shape[-1] + 3, first_class=1),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_numbers_of_rows_are_those_of_numpy_in_jit_and_outside(name, dtype):
    x, labels, _ = batch(9, 300, dtype="float32")
    narrow = jnp.asarray(x).astype(dtype)
    x = np.asarray(narrow.astype("float32"))
    for function in (NUMBERS[name], jax.jit(NUMBERS[name])):
        found, kernels = served(function, narrow, jnp.asarray(labels))
        expected = NUMBERS[name](x, labels)

        assert kernels == [KERNEL]
        for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert np.allclose(ours, theirs, rtol=1e-6, atol=0)
    text = jax.jit(NUMBERS[name]).lower(narrow, jnp.asarray(labels)).as_text()
    assert f"xent_numba_sparse_{'statistics' if name == 'row_statistics' else 'partial'}_{dtype}" in text
    assert "exponential" not in text or name == "row_statistics"


@pytest.mark.parametrize("name", ["row_statistics", "logsumexp"])
def test_the_derivatives_of_the_numbers_of_rows_are_those_of_the_generic_expression(name):
    x, labels, _ = batch(4, 7)
    x, labels = jnp.asarray(x), jnp.asarray(labels)

    def total(x):
        found = jax.tree.leaves(NUMBERS[name](x, labels))
        return sum(jnp.sum(jnp.sin(values)) for values in found if jnp.issubdtype(values.dtype, jnp.floating))

    derivatives = jax.grad(total), lambda x: jax.jvp(total, (x,), (jnp.ones_like(x),))[1], jax.hessian(total)
    found = [derivative(x) for derivative in derivatives]
    with xent.using(kernel="generic"):
        expected = [derivative(x) for derivative in derivatives]

    for ours, theirs in zip(found, expected, strict=True):
        assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert np.any(found[0] != 0)


def test_a_differentiated_number_of_a_row_has_the_bits_that_it_has_alone():
    x, labels, _ = batch(6, 130)
    for function in (lambda x: xent.row_statistics(x, jnp.asarray(labels)).entropy, xent.logsumexp):
        alone, along = function(jnp.asarray(x)), jax.vjp(function, jnp.asarray(x))[0]

        assert np.array_equal(alone, along)


def test_the_statistics_of_ignored_rows_and_bad_labels_are_marked_and_have_no_slope():
    x, labels, _ = batch(5, 20)
    x[1], labels[1], labels[3] = np.nan, -100, 20

    def statistics(x):
        return xent.row_statistics(x, jnp.asarray(labels), ignore_index=-100)

    with xent.using(validate="never"):
        found, kernels = served(jax.jit(statistics), jnp.asarray(x))
        slope = jax.grad(lambda x: jnp.nansum(statistics(x).loss))(jnp.asarray(x))

    assert kernels == [KERNEL]
    assert found.loss[1] == 0 and np.isnan(found.loss[3])
    assert found.label_rank[1] == found.label_rank[3] == -1
    assert np.all(slope[1] == 0) and np.any(slope[0] != 0)


def test_the_numbers_of_mapped_and_exported_rows_are_the_same():
    x, labels, _ = batch(12, 33)
    x, labels = jnp.asarray(x.reshape(4, 3, 33)), jnp.asarray(labels.reshape(4, 3))
    for name, function in NUMBERS.items():
        expected = jax.tree.leaves(function(x, labels))
        mapped = jax.tree.leaves(jax.vmap(function)(x, labels))
        exported = jax.export.export(jax.jit(function))(x, labels)

        assert all(map(np.array_equal, mapped, expected)), name
        assert "xent_numba" not in exported.mlir_module()
        for ours, theirs in zip(jax.tree.leaves(exported.call(x, labels)), expected, strict=True):
            assert np.allclose(ours, theirs, rtol=1e-6, atol=0), name


def run(code, **environment):
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SHARDED = """
import jax, jax.numpy as jnp, numpy as np, xent
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
mesh = Mesh(np.array(jax.devices()), ("rows",))
x = jnp.asarray(np.random.default_rng(0).standard_normal((32, 300)), jnp.float32)
y = jnp.arange(32) * 7
both = jax.jit(jax.value_and_grad(lambda x: xent.sparse_cross_entropy(x, y, reduction="mean")))
expected = jax.grad(lambda x: xent.sparse_cross_entropy(x, y, reduction="mean"))(x)
by_rows = jax.device_put(x, NamedSharding(mesh, P("rows", None)))
loss = jax.jit(lambda x: xent.sparse_cross_entropy(x, y))
assert "all-gather" not in loss.lower(by_rows).compile().as_text()  # the rows stay where they are
assert loss(by_rows).sharding.spec == P("rows"), loss(by_rows).sharding
assert np.array_equal(both(by_rows)[1], expected)
by_classes = jax.device_put(x, NamedSharding(mesh, P(None, "rows")))
assert np.array_equal(loss(by_classes), xent.sparse_cross_entropy(x, y))
rows = P("rows")
mapped = jax.shard_map(xent.sparse_cross_entropy, mesh=mesh, in_specs=(rows, rows), out_specs=rows)
assert np.array_equal(jax.jit(mapped)(x, y), xent.sparse_cross_entropy(x, y))
assert np.array_equal(jax.grad(lambda x: mapped(x, y).mean())(x), expected)
over = jax.pmap(xent.sparse_cross_entropy)(x.reshape(4, 8, 300), y.reshape(4, 8))
assert np.array_equal(over.reshape(-1), xent.sparse_cross_entropy(x, y))
statistics = jax.jit(lambda x: (*xent.row_statistics(x, y), xent.logsumexp(x)))
assert "all-gather" not in statistics.lower(by_rows).compile().as_text()
for found, expected in zip(statistics(by_rows), statistics(x), strict=True):
    assert found.sharding.spec == P("rows") and np.array_equal(found, expected)
print(xent.explain(xent.sparse_cross_entropy, x, y).kernel)
"""


@pytest.mark.parametrize("shardy", ["true", "false"])
def test_rows_may_be_sharded(shardy):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_USE_SHARDY_PARTITIONER": shardy}

    assert run(SHARDED, **flags) == KERNEL


def test_another_version_of_the_interface_is_declined(monkeypatch, tmp_path):
    from xent_numba import ffi

    header = tmp_path / "xla" / "ffi" / "api" / "c_api.h"
    header.parent.mkdir(parents=True)
    header.write_text("#define XLA_FFI_API_MAJOR 7\n")
    monkeypatch.setattr(jax.ffi, "include_dir", lambda: str(tmp_path))
    why_no_targets.cache_clear()
    try:
        assert ffi.check() == "XLA's foreign function interface has version 7, not 0"
    finally:
        why_no_targets.cache_clear()
