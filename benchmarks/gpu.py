"""Times of calls on a GPU, the ceilings of its memory bandwidth, and its properties.

A time is the interval between two CUDA events around one call. Before each sample a kernel keeps the GPU busy until the
host has submitted all calls of the sample, so that the events measure the GPU and not the host. A contender that waits
for the GPU itself, or uses its own stream, sets ``on_host`` and is timed by the clock of the host.

Contenders take turns as in ``measure.py``. Consecutive calls get different arrays, so that none is in the L2 cache.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

ROUNDS, REPEATS = 5, 6
SAMPLE_SECONDS = 0.09
"""The longest sample: slower calls are repeated fewer times, at least once."""
MAX_HOLD_SECONDS = 0.02
CEILING_BYTES = 4 << 30
READERS = ((8, 256), (4, 512), (16, 128), (2, 1024), (0, 256))
"""Launches of ``read``: blocks per multiprocessor (0: as many as give each thread 64 bytes) and threads per block."""
COPY, READ, WRITE, NOTHING = "copy", "read", "write", "nothing"
SOURCE = r"""
extern "C" __global__ void hold(long long nanoseconds) {
  long long start, now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
  do asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)); while (now - start < nanoseconds);
}

extern "C" __global__ void read(const uint4* from, long long count, unsigned* out) {
  unsigned seen = 0;
  long long step = (long long)gridDim.x * blockDim.x, i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  for (; i + 3 * step < count; i += 4 * step) {
    uint4 value[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) value[k] = __ldcg(from + i + k * step);
#pragma unroll
    for (int k = 0; k < 4; ++k) seen ^= value[k].x ^ value[k].y ^ value[k].z ^ value[k].w;
  }
  for (; i < count; i += step) {
    uint4 value = __ldcg(from + i);
    seen ^= value.x ^ value.y ^ value.z ^ value.w;
  }
  if (seen == 0x12345u) *out = seen;  // keeps the compiler from removing the reads
}
"""
Samples = list[list[float]]  # seconds of each call, round by round


def identity(arrays: Any) -> Any:
    return arrays


class Contender(NamedTuple):
    """What is timed: ``call(prepare(arrays))``; ``prepare`` runs before the clock starts."""

    name: str
    call: Callable[[Any], object]
    prepare: Callable[[Any], Any] = identity
    on_host: bool = False
    """Whether the clock of the host is used; the call must then wait for the GPU itself."""


class Pace(NamedTuple):
    """The number of calls in a sample, and how long the GPU is kept busy while the host submits them."""

    repeats: int
    hold_seconds: float


@functools.cache
def kernel(name: str) -> Any:
    """``hold`` or ``read``, compiled."""
    import cupy

    return cupy.RawKernel(SOURCE, name)


def synchronize() -> None:
    """Waits until the GPU is idle; raises CuPy's error if the GPU no longer responds."""
    import cupy

    cupy.cuda.Device().synchronize()


def free() -> None:
    """Returns unused memory of the pools of CuPy and torch to the GPU."""
    import cupy
    import torch

    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    torch.cuda.empty_cache()


# -------------------- arrays


def dtype_of(name: str) -> np.dtype[Any]:
    """The NumPy dtype of this name; bfloat16 is that of ml_dtypes."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def as_cupy(tensor: Any) -> Any:
    """A CuPy array on the memory of a torch tensor."""
    import cupy
    import torch

    if tensor.dtype is torch.bfloat16:
        return cupy.from_dlpack(tensor.view(torch.int16)).view(dtype_of("bfloat16"))
    return cupy.from_dlpack(tensor)


def to_gpu(array: np.ndarray[Any, Any]) -> Any:
    """A CuPy copy of a NumPy array."""
    import cupy

    is_bfloat16 = array.dtype.name == "bfloat16"
    return cupy.asarray(array.view(np.uint16)).view(array.dtype) if is_bfloat16 else cupy.asarray(array)


def to_numpy(array: Any) -> Any:
    """A NumPy copy, in float64, of an array of any library."""
    library = type(array).__module__.partition(".")[0]
    if library == "torch":
        return array.detach().double().cpu().numpy()
    if library == "cupy":
        is_bfloat16 = array.dtype.name == "bfloat16"
        array = array.view(np.uint16).get().view(array.dtype) if is_bfloat16 else array.get()
    return np.asarray(array).astype(np.float64)


# -------------------- time


def interleave(contenders: list[Contender], sets: list[Any], rounds: int = ROUNDS) -> dict[str, Samples]:
    """Seconds of each call of each contender, round by round; each round begins with the next contender."""
    inputs = itertools.cycle(sets)
    samples: dict[str, Samples] = {contender.name: [] for contender in contenders}
    paces = {contender.name: pace(contender, inputs) for contender in contenders}
    for turn in range(rounds):
        start = turn % max(1, len(contenders))
        for contender in contenders[start:] + contenders[:start]:
            samples[contender.name].append(sample(contender, inputs, paces[contender.name]))
    return samples


def pace(contender: Contender, inputs: Iterator[Any]) -> Pace:
    """The pace for a contender, measured after two warm-up calls."""
    for _ in range(3):
        prepared = contender.prepare(next(inputs))
        synchronize()
        start = time.perf_counter()
        contender.call(prepared)
        host_seconds = time.perf_counter() - start
        synchronize()
        total_seconds = time.perf_counter() - start
    repeats = min(REPEATS, max(1, int(SAMPLE_SECONDS / total_seconds)))
    return Pace(repeats, min(MAX_HOLD_SECONDS, 2 * repeats * host_seconds + 1e-4))


def sample(contender: Contender, inputs: Iterator[Any], pace: Pace) -> list[float]:
    """Seconds of each call of a sample, without garbage collection."""
    gc.disable()
    try:
        take_sample = sample_by_host_clock if contender.on_host else sample_by_events
        return take_sample(contender, inputs, pace)
    finally:
        gc.enable()


def sample_by_events(contender: Contender, inputs: Iterator[Any], pace: Pace) -> list[float]:
    import cupy

    events = [(cupy.cuda.Event(), cupy.cuda.Event()) for _ in range(pace.repeats)]
    kernel("hold")((1,), (1,), (np.int64(pace.hold_seconds * 1e9),))
    for start, end in events:
        prepared = contender.prepare(next(inputs))
        start.record()
        contender.call(prepared)
        end.record()
    synchronize()
    return [cupy.cuda.get_elapsed_time(start, end) * 1e-3 for start, end in events]


def sample_by_host_clock(contender: Contender, inputs: Iterator[Any], pace: Pace) -> list[float]:
    seconds = []
    for _ in range(pace.repeats):
        prepared = contender.prepare(next(inputs))
        synchronize()
        start = time.perf_counter()
        contender.call(prepared)
        seconds.append(time.perf_counter() - start)
    return seconds


# -------------------- ceilings


def ceilings(processors: int) -> dict[str, list[float]]:
    """Seconds of a copy, a fill, and reads of 4 GiB with several launch shapes, and of an empty call."""
    import cupy

    size, granules = CEILING_BYTES, CEILING_BYTES // 16
    source, target, out = cupy.empty(size, np.uint8), cupy.empty(size, np.uint8), cupy.zeros(1, np.uint32)
    source.data.memset_async(0x5A, size)

    def reader(per_processor: int, threads: int) -> Contender:
        blocks = per_processor * processors or granules // (4 * threads)
        arguments = (source, np.int64(granules), out)
        return Contender(f"{READ}, {blocks} x {threads}", lambda _: kernel("read")((blocks,), (threads,), arguments))

    contenders = [
        Contender(COPY, lambda _: target.data.copy_from_device_async(source.data, size)),
        Contender(WRITE, lambda _: target.data.memset_async(0xA5, size)),
        *(reader(*shape) for shape in READERS),
        Contender(NOTHING, identity),  # the overhead of two events
    ]
    seconds = interleave(contenders, [None])
    return {name: list(itertools.chain(*samples)) for name, samples in seconds.items()}


def moved_bytes(name: str) -> int:
    """Bytes that a ceiling's call reads and writes."""
    return {COPY: 2 * CEILING_BYTES, NOTHING: 0}.get(name, CEILING_BYTES)


# -------------------- which GPU


def why_not(needs_torch: bool = True) -> str:
    """The reason why the GPU cannot be measured; empty if it can."""
    try:
        import cupy

        if not cupy.cuda.is_available():
            return "CuPy finds no GPU"
        if needs_torch:
            import torch

            return "" if torch.cuda.is_available() else "torch, which makes the arrays, finds no GPU"
    except ImportError as error:
        return f"{error.name or error} cannot be imported"
    return ""


def facts() -> dict[str, Any]:
    """The properties of the GPU, its driver and CUDA, on which the numbers depend."""
    import cupy

    device, runtime = cupy.cuda.Device(), cupy.cuda.runtime
    return {
        "gpu": runtime.getDeviceProperties(device.id)["name"].decode(),
        "capability": device.compute_capability,
        "processors": device.attributes["MultiProcessorCount"],
        "l2_bytes": device.attributes["L2CacheSize"],
        "memory_bytes": device.mem_info[1],
        "driver": driver(),
        "cuda_of_driver": version(runtime.driverGetVersion()),
        "cuda_runtime": version(runtime.runtimeGetVersion()),
    }


def version(number: int) -> str:
    """CUDA's version number as text: 13000 is 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}"


def driver() -> str:
    """The version of the driver; empty if nvidia-smi does not report it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError, IndexError):
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    return ""


def describe(facts: dict[str, Any]) -> str:
    """The GPU in a sentence."""
    capability = ".".join(str(facts["capability"]))
    return (
        f"{facts['gpu']}, compute capability {capability}, {facts['processors']} multiprocessors, "
        f"{facts['memory_bytes'] / 2**30:.0f} GiB, L2 cache of {facts['l2_bytes'] / 2**20:.0f} MiB, driver "
        f"{facts['driver'] or 'unknown'} for CUDA {facts['cuda_of_driver']}, CUDA runtime {facts['cuda_runtime']}."
    )
