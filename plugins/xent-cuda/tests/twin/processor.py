"""The twin: a processor in the GPU's place, which runs the same kernels, compiled by g++ (see cuda.hpp).

Instances are compiled at their first launch and cached in a folder under a hash of their source. Arrays are NumPy's, or
CuPy's in the host's memory.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import os
import pathlib
import subprocess
import tempfile
import threading
from typing import Any

import numpy as np
from xent_cuda import device as gpu
from xent_cuda import plan
from xent_cuda.plan import Device, Launch

HERE = pathlib.Path(__file__).parent
# subtle: without -fno-gnu-unique two libraries would share their variables, and run each other's kernels
FLAGS = ("-std=c++17", "-O1", "-ffp-contract=off", "-fno-strict-aliasing", "-fno-gnu-unique", "-U_FORTIFY_SOURCE")
FLAGS += ("-shared", "-fPIC", "-w")
WATCHED = (*FLAGS, "-fsanitize=thread")
"""With these, threads that meet in shared memory without a barrier between are found."""
SANITIZED = (*FLAGS, "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "--param", "asan-stack=0")
"""With these, what is read or written beside an array is found: in a :func:`sanitized_environment`."""
SCHEDULES = (0, 1, 2, 7)
"""Round-robin, greedy from either end, shuffled."""
H200 = Device()
one_at_a_time = threading.Lock()


def sanitized_environment() -> dict[str, str]:
    """What a process that loads a sanitized library needs in its environment."""
    paths = (
        subprocess.run(
            ["g++", f"-print-file-name={name}.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan", "libubsan")
    )
    return {"LD_PRELOAD": " ".join(paths), "ASAN_OPTIONS": "detect_leaks=0"}


UNKNOWN = 1
OUTCOMES = {
    2: "stands still: a barrier that not all threads come to",
    3: "has a broken cluster",
    4: "writes after the end of its shared memory",
    5: "has a race: two threads use a place in shared memory with no barrier between",
    6: "reads a place in shared memory that was not written",
    7: "uses a block of its cluster that need not be there",
}


def folder() -> pathlib.Path:
    """The folder of compiled libraries."""
    path = os.environ.get("XENT_TWIN_FOLDER") or pathlib.Path(tempfile.gettempdir()) / f"xent-twin-{os.getuid()}"
    pathlib.Path(path).mkdir(parents=True, exist_ok=True)
    return pathlib.Path(path)


def compiled(kernels: tuple[str, ...], text: str, flags: tuple[str, ...] = FLAGS) -> ctypes.CDLL:
    """A library with these instances."""
    body = '#include "cuda.hpp"\n' + text
    body += "".join(f'\nstatic host::Known<&{name}> known{i}("{name}");' for i, name in enumerate(kernels))
    key = hashlib.sha256((body + (HERE / "cuda.hpp").read_text() + repr(flags)).encode()).hexdigest()[:24]
    library = folder() / f"{key}.so"
    with open(library.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be compiling it
        if not library.exists():
            compile_to(library, body, flags)
    loaded = ctypes.CDLL(str(library))
    loaded.twin_launch.argtypes = [ctypes.c_char_p, ctypes.c_void_p, *[ctypes.c_uint] * 5]
    return loaded


def compile_to(library: pathlib.Path, body: str, flags: tuple[str, ...]) -> None:
    """Makes a library of a source text."""
    with tempfile.TemporaryDirectory(dir=folder()) as directory:
        source, compiled, linked = (pathlib.Path(directory) / name for name in ("twin.cpp", "twin.o", "twin.so"))
        source.write_text(body)
        linking = [flag for flag in flags if flag != "-fsanitize=thread"]  # cuda.hpp has what that library has
        for command in (
            [*flags, f"-I{HERE}", "-c", str(source), "-o", str(compiled)],
            [*linking, str(compiled), "-o", str(linked)],
        ):
            result = subprocess.run(["g++", *command], capture_output=True, text=True, check=False)
            if result.returncode:
                raise RuntimeError(f"g++ fails:\n{result.stderr[:4000]}")
        os.replace(linked, library)


VARIANTS = ("tile", "lanes", "warp", "block", "cluster", "split")
KINDS = (plan.LABEL, plan.SMOOTHED, plan.SOFT)


def instances(dtype: str, variants: tuple[str, ...] = VARIANTS, kinds: tuple[int, ...] = KINDS) -> tuple[str, ...]:
    """Every instance of a C type that a plan of these variants may name, for these kinds of targets."""
    from_partial, gradient = plan.FROM_PARTIAL | plan.GRADIENT, plan.GRADIENT
    folds = [(kind, mode) for kind in kinds for mode in (0, gradient)]
    folds += [(plan.LABEL, plan.STATISTICS)] if plan.LABEL in kinds else []
    gradients = [(kind, from_partial) for kind in kinds]
    parts = (plan.MAXIMA, plan.SUMS, plan.MERGE, plan.MERGE | gradient)
    of: dict[str, list[str]] = {
        "tile": [f"tile<{dtype}, {kind}, {mode}, 128>" for kind, mode in folds + gradients if kind != plan.SOFT],
        "lanes": [f"fold<{dtype}, {kind}, {mode}, 8, 128>" for kind, mode in folds + gradients],
        "warp": [f"fold<{dtype}, {kind}, {mode}, 32, 128>" for kind, mode in folds + gradients],
        "block": [f"fold<{dtype}, {kind}, {mode}, {n}, {n}>" for n in (128, 256) for kind, mode in folds + gradients]
        + [f"fold<{dtype}, {kind}, {mode}, 512, 512>" for kind, mode in folds],
        "cluster": [f"fold_in_cluster<{dtype}, {kind}, {mode}, 256, {k}>" for k in (2, 4, 8) for kind, mode in folds],
        "split": [f"fold<{dtype}, {kind}, {mode}, 256, 256>" for kind in kinds for mode in parts],
    }
    return tuple(name for variant in variants for name in of[variant])


class Processor:
    """Takes the place of ``xent_cuda.device.Gpu``.

    Parameters
    ----------
    device : Device
        The properties that plans depend on.
    schedule : int
    text : str
        The source, xent_cuda's by default.
    variants, kinds : tuples
        Those of which instances are compiled.
    flags : tuple of str
        Of the compiler.
    blocks : int, optional
        The most blocks that are launched, but for the parts of one row: the others' rows are left to these.
    """

    def __init__(
        self,
        device: Device = H200,
        schedule: int = 0,
        text: str | None = None,
        *,
        variants: tuple[str, ...] = VARIANTS,
        kinds: tuple[int, ...] = KINDS,
        flags: tuple[str, ...] = FLAGS,
        blocks: int | None = None,
    ) -> None:
        self.device, self.schedule, self.text = device, schedule, text
        self.variants, self.kinds, self.flags, self.blocks = variants, kinds, flags, blocks
        self.libraries: dict[str, ctypes.CDLL] = {}
        self.launched: list[Launch] = []

    def properties(self, array: Any) -> Device:
        return self.device

    def on(self, array: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

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

    def library(self, dtype: str) -> ctypes.CDLL:
        """The instances of a C type, compiled."""
        if dtype not in self.libraries:
            names = instances(dtype, self.variants, self.kinds)
            self.libraries[dtype] = compiled(names, self.text or gpu.source(), self.flags)
        return self.libraries[dtype]

    def launch(self, launch: Launch, task: Any, like: Any) -> None:
        if self.blocks is not None:
            parts = int(task["parts"][0])
            launch = launch._replace(blocks=min(launch.blocks, max(self.blocks // parts, 1) * parts))
        self.launched.append(launch)
        shape = (launch.blocks, launch.threads, launch.shared_bytes, launch.cluster, self.schedule)
        library = self.library(launch.kernel.partition("<")[2].partition(",")[0])
        with one_at_a_time:  # the fibers are of the whole process
            outcome = library.twin_launch(launch.kernel.encode(), task.ctypes.data, *shape)
        if outcome == UNKNOWN:
            raise LookupError(f"{launch.kernel} is not compiled")
        if outcome:
            raise RuntimeError(f"{launch.kernel} {OUTCOMES[outcome]}")
