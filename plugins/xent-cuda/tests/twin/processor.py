"""The twin: a processor in the GPU's place, which runs the same kernels as compiled by g++ (see cuda.hpp).

Instances are compiled when they are first launched, and kept in a folder by what they were made of. NumPy's arrays are
taken, and CuPy's whose memory is the host's.
"""

import ctypes
import hashlib
import os
import pathlib
import subprocess
import tempfile
import threading
from typing import Any

import numpy as np
from xent_cuda import machine, plan
from xent_cuda.plan import Device, Launch

HERE = pathlib.Path(__file__).parent
FLAGS = ("-std=c++17", "-O1", "-ffp-contract=off", "-fno-strict-aliasing", "-shared", "-fPIC", "-w")
SCHEDULES = (0, 1, 2, 7)
"""Round-robin, greedy from either end, shuffled."""
one_at_a_time = threading.Lock()
OUTCOMES = {1: "is not compiled", 2: "stands still: a barrier that not all threads come to", 3: "has a broken cluster"}


def folder() -> pathlib.Path:
    """Where what was compiled is kept."""
    made = os.environ.get("XENT_TWIN_FOLDER") or pathlib.Path(tempfile.gettempdir()) / f"xent-twin-{os.getuid()}"
    pathlib.Path(made).mkdir(parents=True, exist_ok=True)
    return pathlib.Path(made)


def compiled(kernels: tuple[str, ...], text: str, flags: tuple[str, ...] = FLAGS) -> ctypes.CDLL:
    """A library with these instances."""
    body = '#include "cuda.hpp"\n' + text
    body += "".join(f'\nstatic host::Known<&{name}> known{i}("{name}");' for i, name in enumerate(kernels))
    key = hashlib.sha256((body + (HERE / "cuda.hpp").read_text() + repr(flags)).encode()).hexdigest()[:24]
    library = folder() / f"{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder()) as there:
            made = pathlib.Path(there) / "twin"
            made.with_suffix(".cpp").write_text(body)
            command = ["g++", *flags, f"-I{HERE}", str(made.with_suffix(".cpp")), "-o", str(made)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                raise RuntimeError(f"g++ fails on {kernels}:\n{result.stderr[:4000]}")
            os.replace(made, library)  # whole or not at all, whoever else compiles it
    loaded = ctypes.CDLL(str(library))
    loaded.twin_launch.argtypes = [ctypes.c_char_p, ctypes.c_void_p, *[ctypes.c_uint] * 5]
    return loaded


def instances(dtype: str) -> tuple[str, ...]:
    """Every instance of a C type that a plan may name."""
    label, smoothed, soft = plan.LABEL, plan.SMOOTHED, plan.SOFT
    given, slope = plan.GIVEN | plan.SLOPE, plan.SLOPE
    methods = [(kind, mode) for kind in (label, smoothed, soft) for mode in (0, slope, given)] + [
        (label, plan.STATISTICS)
    ]
    launches = [
        (kind, mode)
        for kind in (label, smoothed, soft)
        for mode in (plan.TOPS, plan.SUMS, plan.JOIN, plan.JOIN | slope)
    ]
    names = [f"tile<{dtype}, {kind}, {mode}, {plan.TILE_ROWS}>" for kind, mode in methods if kind != soft]
    for row, block in ((8, 128), (32, 128), (128, 128), (256, 256), (512, 512)):
        names += [f"fold<{dtype}, {kind}, {mode}, {row}, {block}>" for kind, mode in methods]
    names += [f"fold<{dtype}, {kind}, {mode}, 256, 256>" for kind, mode in launches]
    for size in (2, 4, 8):
        names += [
            f"fold_in_cluster<{dtype}, {kind}, {mode}, 256, {size}>" for kind, mode in methods if not mode & plan.GIVEN
        ]
    return tuple(names)


class Processor:
    """Takes the place of ``xent_cuda.machine.Gpu``."""

    def __init__(self, device: Device = Device(), schedule: int = 0, text: str | None = None) -> None:
        self.numbers, self.schedule, self.text = device, schedule, text
        self.libraries: dict[str, ctypes.CDLL] = {}
        self.launched: list[Launch] = []

    def device(self, array: Any) -> Device:
        return self.numbers

    def address(self, array: Any) -> int:
        return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)

    def empty(self, shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
        """Memory full of NaN."""
        if isinstance(like, np.ndarray):
            array = np.empty(shape, dtype)
        else:
            import cupy

            array = cupy.empty(shape, dtype)
        ctypes.memset(self.address(array), 0xFF, array.nbytes)
        return array

    def contiguous(self, array: Any, dtype: Any) -> Any:
        if isinstance(array, np.ndarray):
            return np.ascontiguousarray(array, dtype)
        import cupy

        return cupy.ascontiguousarray(array, dtype)

    def library(self, kernel: str) -> ctypes.CDLL:
        """What was compiled with the kernel: it and all others of its dtype."""
        dtype = kernel.partition("<")[2].partition(",")[0]
        if dtype not in self.libraries:
            self.libraries[dtype] = compiled(instances(dtype), self.text or machine.source())
        return self.libraries[dtype]

    def launch(self, launch: Launch, task: Any, like: Any) -> None:
        self.launched.append(launch)
        shape = (launch.blocks, launch.threads, launch.shared_bytes, launch.cluster, self.schedule)
        with one_at_a_time:  # the fibers are of the whole process
            outcome = self.library(launch.kernel).twin_launch(launch.kernel.encode(), task.ctypes.data, *shape)
        if outcome:
            raise RuntimeError(f"{launch.kernel} {OUTCOMES[outcome]}")
