"""The benchmarks run, on sizes too small to say anything: what they measure is theirs, that they can is tested here."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
ROWS = {
    "bench_generic": (
        "| xent | ",
        "| SciPy log_softmax + gather | ",
        "| hand-written NumPy | ",
        "| floor: numpy.copyto | ",
        "| floor: numpy.exp + sum | ",
        "| xent's time / the hand-written at (8, 100) | ≤ 1.5 | ",
    ),
    "bench_dispatch": (
        *(f"| numpy, {plugins} plugins | " for plugins in (0, 1, 5, 20)),
        "| numpy, 20 plugins, hit, µs | ≤ 1 | ",
    ),
    "bench_plugins": (
        "| scan of 300 distributions, ms | ≤ 30 | ",
        *(f"| 300 distributions more, {plugins} plugins | " for plugins in (0, 1, 20)),
    ),
    "bench_plain_numba": ("| (8, 100) numpy, loss | ", "| (1024, 1000) numpy, loss | "),
    "bench_memory": ("| xent | ", "| xent, XENT_RECYCLE_BYTES=0 | ", "| xent, out= the logits | ", "| numpy.copyto | "),
    "bench_torch": (
        "| F.cross_entropy, compiled, backward | ",
        "| xent, compiled, generic | ",
        "| xent, gradient_in_forward, backward | ",
    ),
    "bench_linear": (
        "| loss and all gradients | ",
        "| torch linear_cross_entropy, 256 rows | ",
        "| confident, xent | ",
    ),
    "bench_jit": ("| JAX jit, optax | ", "| JAX jit, xent without a plugin | "),
    "bench_import": ("| `import xent` | ", "| optional libraries loaded by any of them | 0 | 0.000"),
    "bench_evaluate_numba": (
        "| xent.evaluate of .npy | 2 | ",
        "| floor: reading and decoding Zarr | 1 | ",
        "| sklearn.metrics.log_loss | ",
    ),
    "bench_evaluate_peers": (
        "| xent, fixed-size list | ",
        "| NumPy loop | ",
        "| xent / scikit-learn log_loss, 256 classes | ≤ 0.083",
    ),
    "bench_scale": ("| x16.zarr | processes:2 | ", "| x32.npy | threads | ", "the same bits"),
    "bench_chunks": ("| 100 | sync | ", "| 100 | threads | ", "| 100 | processes:2 | "),
    "bench_reads": ("| small files | ", "| Zarr, of the bare read | ≤ 1.2 | ", "the same bits"),
    "bench_evaluate": ("| xent.evaluate | 1 | ", "| xent.evaluate | 2 | ", "| np.load and SciPy by chunks | 1 | "),
}


def page(name: str) -> str:
    """What a benchmark prints on tiny sizes."""
    paths = os.pathsep.join(filter(None, (str(BENCHMARKS), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, timeout=300)

    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_benchmark_is_tried_here_or_with_its_plugin():
    assert sorted(path.stem for path in BENCHMARKS.glob("bench_*.py")) == sorted(
        [*ROWS, "bench_cuda", "bench_numba", "bench_classes_numba"]
    )


def kept() -> dict[str, int]:
    """The results that are kept, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in (BENCHMARKS / "results").glob("*")}


MARKS = {
    "bench_torch": pytest.mark.slow,
    "bench_reads": pytest.mark.skipif(
        not (find_spec("s3fs") and find_spec("moto")), reason="s3fs or moto is not installed, which only it needs"
    ),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in ROWS])
def test_a_benchmark_runs_has_its_rows_and_keeps_no_trial(name):
    before = kept()
    found = page(name)

    assert [row for row in ROWS[name] if row not in found] == []
    assert kept() == before
