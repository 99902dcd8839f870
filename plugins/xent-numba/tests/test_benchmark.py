"""The benchmark runs to its end; on sizes too small for its numbers to mean anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
ROWS = (
    "| xent | ",
    "| xent, one thread | ",
    "| xent, out= | ",
    "| torch eager | ",
    "| floor: numpy.copyto | ",
    "## Growth",
    "## A training step",
)


def test_it_runs_has_its_rows_and_keeps_no_trial():
    pytest.importorskip("torch", reason="the peers of the benchmark are not installed")
    paths = os.pathsep.join(filter(None, (str(BENCHMARKS), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, str(BENCHMARKS / "bench_numba.py"), "--quick"]
    results = BENCHMARKS / "results"
    before = {path.name: path.stat().st_mtime_ns for path in results.glob("*")}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, timeout=200)

    assert done.returncode == 0, done.stderr
    assert [row for row in ROWS if row not in done.stdout] == []
    assert {path.name: path.stat().st_mtime_ns for path in results.glob("*")} == before
