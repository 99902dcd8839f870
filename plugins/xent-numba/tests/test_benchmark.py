"""The benchmarks run to their ends; on sizes too small for their numbers to mean anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
ROWS = {
    "bench_numba": (
        "| xent | ",
        "| xent, one thread | ",
        "| xent, out= | ",
        "| torch eager | ",
        "| floor: numpy.copyto | ",
        "## Growth",
        "## A training step",
    ),
    "bench_classes_numba": ("| 10 | ", "| 32000 | ", "| 100, float16 | ", "| 10, float32, smoothed | "),
}


@pytest.mark.parametrize("name", ROWS)
def test_it_runs_has_its_rows_and_keeps_no_trial(name):
    if name == "bench_numba":
        pytest.importorskip("torch", reason="the peers of the benchmark are not installed")
    paths = os.pathsep.join(filter(None, (str(BENCHMARKS), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick"]
    results = BENCHMARKS / "results"
    before = {path.name: path.stat().st_mtime_ns for path in results.glob("*")}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, timeout=200)

    assert done.returncode == 0, done.stderr
    assert [row for row in ROWS[name] if row not in done.stdout] == []
    assert {path.name: path.stat().st_mtime_ns for path in results.glob("*")} == before
