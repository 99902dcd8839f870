"""Tests that need a process of their own: the first call, the cache on disk, other processors, no Numba."""

import itertools
import os
import pickle
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import dask.array as da
import faults
import numpy as np
import pytest

import xent


def run(code, given="", **environment):
    """What a fresh process prints."""
    command, variables = [sys.executable, "-c", code], {**os.environ, **environment}
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=variables, timeout=300)

    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


FORKED = """
import multiprocessing, numpy as np, xent
from xent_numba import blocks

blocks.THREAD_ELEMENTS = 1
x, y = np.random.default_rng(0).standard_normal((50, 1000)).astype("float32"), np.arange(50)

def child(queue):
    queue.put(xent.sparse_cross_entropy(x, y).tobytes())

with xent.using(threads=2):
    expected = xent.sparse_cross_entropy(x, y).tobytes()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    print(queue.get(timeout=60) == expected)
    process.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes are forked")
def test_a_forked_process_has_threads_of_its_own():
    assert run(FORKED) == "True"


TWO_DASK_THREADS = """
import dask.array as da, numpy as np, xent
x = np.random.default_rng(0).standard_normal((4000, 300)).astype("float32")
y = np.arange(4000) % 300
lazy = xent.sparse_cross_entropy(da.from_array(x, chunks=(100, 300)), da.from_array(y, chunks=100))
print(np.array_equal(lazy.compute(scheduler="threads", num_workers=8), xent.sparse_cross_entropy(x, y)))
"""


@pytest.mark.parametrize("layer", ["workqueue", "default"])
def test_dasks_threads_may_call_at_once_whatever_numbas_threading_layer(layer):
    assert run(TWO_DASK_THREADS, NUMBA_THREADING_LAYER=layer) == "True"


def test_registering_imports_no_numba():
    assert run("import sys, xent; xent.plugins(); print('numba' in sys.modules)") == "False"


COUNT = """
import numba.core.compiler as compiler, numpy as np
made, make = [], compiler.compile_extra
compiler.compile_extra = lambda *a, **k: made.append(1) or make(*a, **k)
"""
COUNT_COMPILED = f"""{COUNT}
import xent
for classes in (10, 100):
    xent.sparse_cross_entropy(np.zeros((2, classes), "float32"), np.zeros(2, int))
print(len(made))
"""
COUNT_ONE_LOOP = f"""{COUNT}
from xent_numba import compiled, rows
compiled.compiled(rows.finish_loss, "float32")
print(len(made))
"""
"""A call compiles for a quarter of a minute, and this loop for two seconds."""
FIRST_CALLS = f"""{COUNT}
import threading, xent
x, y = np.arange(16 * 500, dtype="float32").reshape(16, 500) % 7, np.arange(16)
start, results = threading.Barrier(16), []
def call():
    start.wait()
    results.append(xent.sparse_cross_entropy(x, y).tobytes())
threads = [threading.Thread(target=call) for _ in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(results), len(set(results)), xent.explain(xent.sparse_cross_entropy, x, y).kernel, len(made))
"""


@pytest.fixture(scope="module")
def first_calls(tmp_path_factory):
    """A folder that sixteen threads have filled by their first call, and what they print."""
    folder = tmp_path_factory.mktemp("cache")
    return folder, run(FIRST_CALLS, NUMBA_CACHE_DIR=str(folder)).split()


@pytest.fixture
def cache(first_calls, tmp_path):
    """A copy of what a process has compiled, to be damaged."""
    return shutil.copytree(first_calls[0], tmp_path / "cache")


def test_the_first_call_from_sixteen_threads_at_once_is_as_good_as_from_one(first_calls):
    *told, compiled = first_calls[1]

    assert told == ["16", "1", "numba"] and int(compiled) > 0


def test_a_second_process_compiles_nothing(cache):
    assert int(run(COUNT_COMPILED, NUMBA_CACHE_DIR=str(cache))) == 0


def test_what_was_compiled_for_other_sources_is_made_anew(cache):
    changed = "from xent_numba import compiled as c\nc.fingerprint = lambda: 'other'\n" + COUNT_ONE_LOOP

    assert int(run(COUNT_ONE_LOOP, NUMBA_CACHE_DIR=str(cache))) == 0
    assert int(run(changed, NUMBA_CACHE_DIR=str(cache))) > 0


def test_where_nothing_can_be_kept_it_compiles_and_serves(tmp_path):
    (tmp_path / "file").write_text("")
    nowhere = "import xent_numba.compiled as c\nc.LoopCacheImpl._locator_classes = (c.EnvironmentLocator,)\n"
    code = nowhere + COUNT_ONE_LOOP + "print(c.cache_of(c.rows.finish_loss))"
    compiled, cache = run(code, NUMBA_CACHE_DIR=str(tmp_path / "file")).split()

    assert int(compiled) > 0 and cache == "None"


BITS = """
import hashlib, numpy as np, xent
digest = hashlib.sha256()
for classes in (7, 1003):
    rng = np.random.default_rng(classes)
    x, y = (rng.standard_normal((33, classes)) * 4).astype("float32"), rng.integers(0, classes, 33)
    x[0, y[0]] = 30
    for array in xent.value_and_grad(xent.sparse_cross_entropy)(x, y):
        digest.update(array.tobytes())
print(digest.hexdigest())
"""
AVX2 = "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt,+sse4.2,+ssse3,+xsave"


def has_avx2():
    return platform.machine() == "x86_64" and " avx2 " in Path("/proc/cpuinfo").read_text()


@pytest.mark.skipif(not has_avx2(), reason="the bits of AVX2 can only be made on a processor that has it")
def test_a_processor_of_another_width_gives_the_same_bits(tmp_path):
    other = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": AVX2, "NUMBA_CACHE_DIR": str(tmp_path)}

    assert run(BITS, **other) == run(BITS)


WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None
import numpy as np, xent
decision = xent.explain(xent.sparse_cross_entropy, np.zeros((2, 3), "float32"), np.zeros(2, int))
print(decision.kernel, [verdict.reasons for verdict in decision.verdicts if verdict.kernel == "numba"])
"""


def test_where_numba_cannot_be_imported_it_declines_with_the_reason():
    assert run(WITHOUT_NUMBA).startswith("numpy [('check: Numba cannot be imported")


DAMAGE = [("nbi", b""), ("nbi", b"no pickle"), ("nbc", b""), ("nbc", b"no pickle")]


def test_damaged_files_of_the_cache_are_compiled_around(cache):
    """Of each loop the index or the code is damaged, in one way or another."""
    indices = sorted(cache.rglob("*.nbi"))
    for index, (suffix, content) in zip(indices, itertools.cycle(DAMAGE), strict=False):
        for path in cache.rglob(f"{index.stem}*.{suffix}"):
            path.write_bytes(content)

    assert len(indices) >= len(DAMAGE)
    assert int(run(COUNT_COMPILED, NUMBA_CACHE_DIR=str(cache))) > 0


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("calls", 20), ("many-interrupts", 2)])
def test_after_interrupts_at_any_moment_the_next_call_works_and_the_process_ends(kind, count):
    done = subprocess.run(
        [sys.executable, faults.__file__, kind, "--count", str(count)], capture_output=True, text=True, timeout=300
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"'as it should': {count}" in done.stdout


INTERRUPTED_COMPILATION = """
import signal, threading, time
import numpy as np, xent, xent_numba.compiled as c
x, y = np.zeros((2, 5), "float32"), np.zeros(2, int)
xent.explain(xent.sparse_cross_entropy, x, y)  # all is imported
signal.signal(signal.SIGALRM, signal.default_int_handler)
cache_of, begun = c.cache_of, []

def slow(function, name):
    begun.append(threading.current_thread() is threading.main_thread())
    if len(begun) == 1:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(0.1)  # an interrupt of the thread that compiles would end it
    return cache_of(function, name)

c.cache_of = slow
try:
    xent.sparse_cross_entropy(x, y)
except KeyboardInterrupt:
    print("interrupted", len(begun) > 0, any(begun))
print(xent.sparse_cross_entropy(x, y))
"""


def test_an_interrupt_never_reaches_numba_as_it_compiles():
    assert run(INTERRUPTED_COMPILATION).splitlines() == ["interrupted True False", "[1.609438 1.609438]"]


WITHOUT_JIT = """
import numpy as np, xent
x, y = np.zeros((3, 4), "float32"), np.arange(3)
loss, gradient = xent.value_and_grad(xent.sparse_cross_entropy)(x, y)
decision = xent.explain(xent.sparse_cross_entropy, x, y)
reasons = [one.reasons for one in decision.verdicts if one.kernel == "numba"]
print(float(loss[0]) == float(np.log(np.float32(4))), decision.kernel, reasons)
"""


def test_where_numba_compiles_nothing_the_kernels_decline_with_that_reason():
    told = run(WITHOUT_JIT, NUMBA_DISABLE_JIT="1")

    assert told == "True numpy [('check: Numba compiles nothing: NUMBA_DISABLE_JIT is set',)]"


SENT = """
import pickle, sys
lazy = pickle.loads(bytes.fromhex(sys.stdin.read()))
print(lazy.compute(scheduler="synchronous").tobytes().hex())
"""


def test_a_worker_on_which_numba_compiles_nothing_takes_the_generic_kernel():
    x, y = np.arange(12, dtype="float32").reshape(3, 4) % 5, np.arange(3)
    with xent.using(kernel="generic"):
        expected = xent.sparse_cross_entropy(x, y)
    arrays = da.from_array(x), da.from_array(y)
    lazy = xent.sparse_cross_entropy(*arrays)

    assert xent.explain(xent.sparse_cross_entropy, *arrays).kernel == "numba"
    assert run(SENT, given=pickle.dumps(lazy).hex(), NUMBA_DISABLE_JIT="1") == expected.tobytes().hex()


def test_warming_says_in_one_sentence_that_numba_compiles_nothing():
    command = [sys.executable, "-m", "xent_numba", "float32"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NUMBA_DISABLE_JIT": "1"})

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("error: Numba compiles nothing: NUMBA_DISABLE_JIT is set.\n")


def test_processes_that_compile_at_once_leave_each_loop_its_own_code(tmp_path):
    """Files are named by what is compiled, for two processes may count alike."""
    loops = "c.rows.finish_loss, c.grids.gather_rows, c.grids.scatter_rows"
    code = f"import xent_numba.compiled as c\nfor loop in ({loops}): c.compiled(loop, 'float16')"
    run(code, NUMBA_CACHE_DIR=str(tmp_path))
    indices = [path.stem for path in tmp_path.rglob("*.nbi")]

    assert len(indices) == 3 and all("float16" in index for index in indices)
    assert len(list(tmp_path.rglob("*.nbc"))) == len(indices)


COMPILE_A_TARGET = "import xent_numba.ffi as f; f.sparse.ffi_target('loss', '{dtype}')"
CALL_BOTH_TARGETS = """
import jax, jax.numpy as jnp, xent
from xent_numba import ffi
for dtype in ("bfloat16", "float16"):
    x, y = jnp.asarray([[0.0, 1.0, 2.0]], dtype), jnp.asarray([0])
    print(xent.explain(xent.sparse_cross_entropy, x, y).kernel, xent.sparse_cross_entropy(x, y))
    print(ffi.compile_target(f"xent_numba_sparse_loss_{dtype}", "loss", dtype, False)[1].cache_hits)
"""


def test_another_process_finds_the_targets_that_two_have_compiled_and_they_stay_apart(tmp_path):
    pytest.importorskip("jax", reason="the targets are JAX's")
    environment = {"NUMBA_CACHE_DIR": str(tmp_path)}
    for dtype in ("bfloat16", "float16"):
        run(COMPILE_A_TARGET.format(dtype=dtype), **environment)

    assert run(CALL_BOTH_TARGETS, **environment).splitlines() == ["numba-ffi [2.407606]", "1"] * 2
