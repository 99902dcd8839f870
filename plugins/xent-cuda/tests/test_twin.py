"""The kernels on a processor, which runs every one of their threads: their results, and their memory accesses."""

import functools
import itertools
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import twins
from battery import Battery
from processor import (
    HERE,
    OUTCOMES,
    SCHEDULES,
    VARIANTS,
    WATCHED,
    Processor,
    compiled,
    instances,
    sanitized_environment,
)
from xent_cuda import device, kernels
from xent_cuda.plan import C_TYPES, LABEL, Launch
from xent_cuda.task import TASK

from xent.testing import PROMISES, check_kernel

DTYPES = ("float16", "bfloat16", "float32", "float64")
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_variant = pytest.mark.parametrize("variant", VARIANTS)


@pytest.fixture(scope="session", autouse=True)
def everything_is_compiled():
    """The instances of every dtype, two dtypes at once: tests that need the same would wait for each other."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda dtype: compiled(instances(C_TYPES[dtype]), device.source()), DTYPES))


# -------------------- what is computed

ELSEWHERE = {
    "import_light": "test_conformance.py: the specs of the twin are no plugin's",
    "lazy_on_dask": "test_cupy_arrays.py: chunks of CuPy's arrays (1 s)",
    "threads": "nowhere: the kernels take no notice of how many threads a caller may use (15 s)",
    "concurrent_callers": "test_cupy_arrays.py: calls take turns on the twin, which has one set of fibers (65 s)",
    "deterministic": "the same bits under every schedule, below: each schedule runs the same way each time (2 s)",
    "many_rows": "the battery, below: blocks that take further rows (8 s)",
    "many_elements": "test_gpu.py: 2**31 logits take the twin a quarter of an hour",
    "in_place": "the battery, below",
    "extra_memory": "test_gpu.py (65 s)",
}
"""Promises that are not looked at on the twin, and where they are; what they would take of each dtype."""
SLOW = {"every_width": 5, "many_classes": 5, "row_locality": 9}
"""Seconds of a dtype for which these are looked at in one alone."""
CHECKS = [name for name in PROMISES if name not in ELSEWHERE]


@pytest.mark.parametrize("op", ["sparse", "dense"])
@every_dtype
def test_every_promise_of_the_contract_is_kept(op, dtype):
    checks = [name for name in CHECKS if name not in SLOW or dtype == "bfloat16"]
    report = check_kernel(twins.spec(op, dtype), checks=checks, library=twins.LIBRARY)

    assert report.ok, str(report)


@every_dtype
def test_a_row_has_the_same_bits_by_every_variant_and_method_wherever_it_lies(dtype):
    assert list(Battery(dtype, Processor()).other_bits()) == []


@functools.cache
def looked_at(dtype, variant):
    """A battery that has run, and its faults; every variant and every dtype meets every schedule."""
    schedule = SCHEDULES[(DTYPES.index(dtype) + VARIANTS.index(variant)) % len(SCHEDULES)]
    battery = Battery(dtype, Processor(schedule=schedule), (variant,))
    return battery, list(battery.faults())


@every_dtype
@every_variant
def test_the_battery_finds_nothing(dtype, variant):
    assert looked_at(dtype, variant)[1] == []


@every_variant
def test_the_battery_launches_every_instance_that_a_plan_may_name(variant):
    assert looked_at("bfloat16", variant)[0].launched == set(instances("bf16", (variant,)))


# -------------------- what is done to memory


@every_variant
def test_threads_meet_in_shared_memory_only_with_a_barrier_between(variant):
    processor = Processor(variants=(variant,), kinds=(LABEL,), flags=WATCHED)

    assert list(Battery("bfloat16", processor, (variant,), ("labels",), places=1).faults()) == []


SANITIZE = """
from battery import Battery
from processor import SANITIZED, Processor
processor = Processor(variants=("lanes",), kinds=(0, 2), flags=SANITIZED)
for fault in Battery("bfloat16", processor, ("lanes",), ("labels", "soft")).faults():
    print(fault)
print("through")
"""
READ = """
import sys
import numpy as np
from processor import SANITIZED, compiled
text = "struct Task { const float* x; float* y; i64 at; };"
text = "typedef long long i64;" + text + "__global__ void read(Task task) { *task.y = task.x[task.at]; }"
x, y = np.zeros(5, np.float32), np.zeros(1, np.float32)
task = np.asarray([x.ctypes.data, y.ctypes.data, int(sys.argv[1])])
print(compiled(("read",), text, SANITIZED).twin_launch(b"read", task.ctypes.data, 1, 1, 0, 1, 0))
"""


def of_script(script, *arguments, **environment):
    """What comes of a script in a process of its own, which finds the twin."""
    path = {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | path | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_nothing_beside_an_array_is_touched():
    result = of_script(SANITIZE, **sanitized_environment())

    assert (result.stdout, result.returncode) == ("through\n", 0), result.stderr[-3000:]


@pytest.mark.parametrize(("at", "is_found"), [("0", False), ("4", False), ("5", True), ("-1", True)])
def test_what_is_read_beside_an_array_is_found(at, is_found):
    result = of_script(READ, at, **sanitized_environment())

    assert ("heap-buffer-overflow" in result.stderr) == is_found
    assert (result.stdout == "0\n") != is_found


# -------------------- what the twin itself notices

START = "int i = threadIdx.x; s[i] = 0.f; cluster_sync(); s[i] = 1.f; "
READ_FAR, READ_NEAR = "task.out[i] = s[63 - i]; ", "task.out[i] = s[i ^ 1]; "
TO_PEER = "*in_peer(s + threadIdx.x, 1 - cluster_rank()) = 2.f; "
WRONG = {
    "a barrier that half of the threads come to": ("if (threadIdx.x < 32) __syncthreads();", "stands still"),
    "a shuffle that one lane stays away from": ("if (threadIdx.x) __shfl_xor_sync(~0u, 1.f, 1);", "stands still"),
    "a barrier where others shuffle": (
        "if (threadIdx.x & 1) __syncwarp(); else __shfl_xor_sync(~0u, 1.f, 2);",
        "stands still",
    ),
    "a write after the end of shared memory": ("s[64] = 1.f;", "writes after the end"),
    "a read without a barrier": (START + READ_FAR, "has a race"),
    "a read with a barrier of its warp alone": (START + "__syncwarp();" + READ_FAR, "has a race"),
    "a read with a shuffle for a barrier": (START + "__shfl_xor_sync(~0u, 1.f, 1);" + READ_NEAR, "has a race"),
    "a write without a barrier": (START + "__syncthreads();" + READ_FAR + "s[i] = 2.f;", "has a race"),
    "a write to a peer with a barrier of its block alone": (START + "__syncthreads();" + TO_PEER, "has a race"),
    "a read of what was not written": ("task.out[0] = s[threadIdx.x];", "was not written"),
    "a peer that is gone": ("if (blockIdx.x) task.out[0] = *in_peer(s, 0);", "need not be there"),
    "a peer that may not have begun": (TO_PEER, "need not be there"),
}
RIGHT = {
    "a barrier of the block": START + "__syncthreads();" + READ_FAR + "__syncthreads(); s[i] = 2.f;",
    "a barrier of each warp": START + "__syncwarp();" + READ_NEAR + "__syncwarp(); s[i] = 2.f;",
    "a barrier of the cluster": START + "cluster_sync();" + TO_PEER + "cluster_sync();" + READ_FAR,
}
BODIES = {name: body for name, (body, _) in WRONG.items()} | RIGHT


@functools.cache
def small_kernels():
    """A library with a kernel of each body, two floats of shared memory for each of its threads' pairs."""
    text = "struct Task { float* out; };\nfloat* shared() { SHARED_MEMORY(memory); return (float*)memory; }\n"
    for number, body in enumerate(BODIES.values()):
        text += f"__global__ void k{number}(Task task) {{ float* s = shared(); {body} }}\n"
    names = tuple(f"k{number}" for number in range(len(BODIES)))
    return compiled(names, text, WATCHED)


def outcome_of(name, schedule):
    """What the twin says of one of them, launched as a cluster of two blocks of two warps, a float for each thread."""
    out = np.zeros(64, np.float32)
    task, kernel = np.asarray([out.ctypes.data]), f"k{list(BODIES).index(name)}"
    return small_kernels().twin_launch(kernel.encode(), task.ctypes.data, 2, 64, 256, 2, schedule)


@pytest.mark.parametrize("name", WRONG)
def test_what_no_gpu_forgives_is_reported(name):
    assert WRONG[name][1] in OUTCOMES[outcome_of(name, schedule=1)]


@pytest.mark.parametrize(("name", "schedule"), list(itertools.product(RIGHT, SCHEDULES)))
def test_what_is_right_is_not_reported(name, schedule):
    assert outcome_of(name, schedule) == 0


def test_a_kernel_that_stands_still_is_an_error():
    begin = "    T* x = task.logits + row * task.logits_stride;\n"
    text = device.source().replace(begin, "    if (!has_row) break;  // before the shuffles\n" + begin)
    kernel = kernels.CudaSparse(Processor(text=text, variants=("lanes",)), "lanes")

    with pytest.raises(RuntimeError, match="stands still: a barrier that not all threads come to"):
        kernel.loss(np.zeros((1, 9), np.float32), np.zeros(1, np.int64), threads=1)


def test_an_instance_that_is_not_compiled_is_an_error():
    launch = Launch("fold<bf16, 0, 0, 8, 128>", blocks=1, threads=128, shared_bytes=0)
    processor = Processor(variants=("tile",))

    with pytest.raises(LookupError, match="fold<bf16, 0, 0, 8, 128> is not compiled"):
        processor.launch(launch, np.zeros(1, TASK), None)


MISALIGNED = """
import numpy as np
from processor import compiled
text = "struct Task { char* at; }; __global__ void read(Task task) { load16(task.at + 8); }"
memory = np.zeros(4, np.complex128)
compiled(("read",), text).twin_launch(b"read", np.asarray([memory.ctypes.data]).ctypes.data, 1, 1, 0, 1, 0)
"""


def test_an_access_of_16_bytes_that_is_not_aligned_ends_the_process():
    result = of_script(MISALIGNED)

    assert (result.returncode, result.stderr) == (-signal.SIGABRT, "twin: an access of 16 bytes is not aligned\n")
