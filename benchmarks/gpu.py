"""How long calls take on a GPU, how fast its memory is at best, and which GPU it is.

A time is that between two events of CUDA around one call. A call too short to hide the work of the host is measured
behind a kernel that holds the GPU back until the host has sent a whole sample: so events tell what the GPU does. What
waits for the GPU by itself, or keeps to a stream of its own, is timed by the host's clock instead, and says so.

Contenders take turns as in ``measure.py``; each call gets other arrays than the last, so that none is in the L2 cache.
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
"""A sample of calls that take so long is cut short, down to one call."""
HOLD_AT_MOST = 0.02
CEILING_BYTES = 4 << 30
READERS = ((8, 256), (4, 512), (16, 128), (2, 1024), (0, 256))
"""Launches of ``read``: blocks of a multiprocessor, 0 for as many as read 64 bytes a thread, and threads of a block."""
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
  if (seen == 0x12345u) *out = seen;  // so that nothing that was read may be left out
}
"""
Samples = list[list[float]]  # seconds of each call, round by round


def as_given(given: Any) -> Any:
    return given


class Contender(NamedTuple):
    """What is timed: ``call(prepare(arrays))``, of which ``prepare`` is done before the clock starts."""

    name: str
    call: Callable[[Any], object]
    prepare: Callable[[Any], Any] = as_given
    on_host: bool = False
    """Whether the host's clock is read: then the call waits for its own work."""


class Pace(NamedTuple):
    """How many calls make a sample, and for how long the GPU is held back while the host sends them."""

    repeats: int
    hold_seconds: float


@functools.cache
def kernel(name: str) -> Any:
    """``hold`` or ``read``, compiled."""
    import cupy

    return cupy.RawKernel(SOURCE, name)


def synchronize() -> None:
    """Waits until the GPU has nothing to do. CuPy's error where it does not answer any more."""
    import cupy

    cupy.cuda.Device().synchronize()


def free() -> None:
    """Gives back the memory that nobody holds."""
    import cupy
    import torch

    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    torch.cuda.empty_cache()


# -------------------- arrays


def dtype_of(name: str) -> np.dtype[Any]:
    """A dtype by its name, bfloat16 among them."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def seen(tensor: Any) -> Any:
    """The memory of a tensor as CuPy sees it."""
    import cupy
    import torch

    if tensor.dtype is torch.bfloat16:
        return cupy.from_dlpack(tensor.view(torch.int16)).view(dtype_of("bfloat16"))
    return cupy.from_dlpack(tensor)


def bring(array: np.ndarray[Any, Any]) -> Any:
    """An array of NumPy on the GPU, as one of CuPy's."""
    import cupy

    is_brain = array.dtype.name == "bfloat16"
    return cupy.asarray(array.view(np.uint16)).view(array.dtype) if is_brain else cupy.asarray(array)


def host(array: Any) -> Any:
    """An array of whatever library as one of NumPy's, in float64."""
    library = type(array).__module__.partition(".")[0]
    if library == "torch":
        return array.detach().double().cpu().numpy()
    if library == "cupy":
        is_brain = array.dtype.name == "bfloat16"
        array = array.view(np.uint16).get().view(array.dtype) if is_brain else array.get()
    return np.asarray(array).astype(np.float64)


# -------------------- time


def interleave(contenders: list[Contender], sets: list[Any], rounds: int = ROUNDS) -> dict[str, Samples]:
    """Seconds of each call of each contender, round by round, each round beginning with another one."""
    turns = itertools.cycle(sets)
    found: dict[str, Samples] = {one.name: [] for one in contenders}
    paces = {one.name: pace(one, turns) for one in contenders}
    for turn in range(rounds):
        start = turn % max(1, len(contenders))
        for one in contenders[start:] + contenders[:start]:
            found[one.name].append(sample(one, turns, paces[one.name]))
    return found


def pace(contender: Contender, turns: Iterator[Any]) -> Pace:
    """The pace for a contender, which is warmed up."""
    for _ in range(3):
        given = contender.prepare(next(turns))
        synchronize()
        begin = time.perf_counter()
        contender.call(given)
        host = time.perf_counter() - begin
        synchronize()
        whole = time.perf_counter() - begin
    repeats = min(REPEATS, max(1, int(SAMPLE_SECONDS / whole)))
    return Pace(repeats, min(HOLD_AT_MOST, 2 * repeats * host + 1e-4))


def sample(contender: Contender, turns: Iterator[Any], pace: Pace) -> list[float]:
    """Seconds of each of some calls, with no garbage collected meanwhile."""
    gc.disable()
    try:
        timed = sample_of_host if contender.on_host else sample_of_events
        return timed(contender, turns, pace)
    finally:
        gc.enable()


def sample_of_events(contender: Contender, turns: Iterator[Any], pace: Pace) -> list[float]:
    import cupy

    events = [(cupy.cuda.Event(), cupy.cuda.Event()) for _ in range(pace.repeats)]
    kernel("hold")((1,), (1,), (np.int64(pace.hold_seconds * 1e9),))
    for begin, end in events:
        given = contender.prepare(next(turns))
        begin.record()
        contender.call(given)
        end.record()
    synchronize()
    return [cupy.cuda.get_elapsed_time(begin, end) * 1e-3 for begin, end in events]


def sample_of_host(contender: Contender, turns: Iterator[Any], pace: Pace) -> list[float]:
    seconds = []
    for _ in range(pace.repeats):
        given = contender.prepare(next(turns))
        synchronize()
        begin = time.perf_counter()
        contender.call(given)
        seconds.append(time.perf_counter() - begin)
    return seconds


# -------------------- ceilings


def ceilings(processors: int) -> dict[str, list[float]]:
    """Seconds of copying, of filling and of reading 4 GiB, this in several launch shapes, and of doing nothing."""
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
        Contender(NOTHING, as_given),  # what two events take by themselves
    ]
    found = interleave(contenders, [None])
    return {name: list(itertools.chain(*samples)) for name, samples in found.items()}


def moved_bytes(name: str) -> int:
    """Bytes read and written by one of the ceilings' calls."""
    return {COPY: 2 * CEILING_BYTES, NOTHING: 0}.get(name, CEILING_BYTES)


# -------------------- which GPU


def why_not(needs_torch: bool = True) -> str:
    """Why nothing can be measured here; empty if it can."""
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
    """What the numbers depend on of the GPU, its driver and CUDA."""
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
    """13000 as 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}"


def driver() -> str:
    """The driver's own version; empty where nvidia-smi does not tell."""
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
