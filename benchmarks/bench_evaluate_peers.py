"""``xent evaluate`` of probabilities with every statistic, beside programs that make loss, accuracy and ECE alone.

The counting model: what is read once is 943 MB, 920,661 rows of 256 float32 (80 MB, 5,000,000 of 4), from the page
cache; xent takes a logarithm of each number, for the entropies, and adds some 40 numbers of a row exactly, where the
others take one logarithm of a row and add floats. Each contender is a whole process with one thread, its start
included, as a user has it: user and system seconds by the kernel's account, which other work on the machine changes
less than the clock. xent-numba's loops are compiled before. DuckDB and Polars are left out where they are not
installed; each has the fastest query of those tried.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure
import numpy as np
from measure import ONE_THREAD, Report

SIZES = ((920_661, 256), (5_000_000, 4))
QUICK_SIZES = ((3_000, 256),)
GROUP_ROWS = 65_536
SKLEARN_ROWS = 300_000
PROMISES = {
    ("NumPy loop", 256): 1.5,
    ("DuckDB, columns", 256): 0.8,
    ("DuckDB, fixed-size list", 256): 0.7,
    ("DuckDB, columns", 4): 1.0,
    ("Polars, columns", 256): 0.8,
    ("Polars, fixed-size list", 256): 0.7,
    ("Polars, columns", 4): 1.0,
    ("scikit-learn log_loss", 256): 1 / 12,
}
"""The largest ratios of xent's time and a peer's that are asked for."""

NUMPY = """
import numpy as np
p, y = np.load("p.npy", mmap_mode="r"), np.load("y.npy")
loss = hits = 0
bins = np.zeros((3, 15))
for start in range(0, len(y), 65536):
    q, label = np.asarray(p[start : start + 65536]), y[start : start + 65536]
    row = np.arange(len(label))
    top = q.argmax(1)
    confidence, right = q[row, top], top == label
    loss -= np.log(q[row, label].astype(float)).sum()
    hits += right.sum()
    index = np.minimum((confidence * 15).astype(int), 14)
    for at, weights in enumerate((None, right, confidence)):
        bins[at] += np.bincount(index, weights, 15)
print(loss / len(y), hits / len(y), abs(bins[1] - bins[2]).sum() / len(y))
"""
DUCKDB = """
import duckdb
connection = duckdb.connect()
connection.execute("SET threads = 1")
query = '''
WITH numbers AS (SELECT {top} AS top, {at_label} AS q FROM '{file}'),
bins AS (
    SELECT least(CAST(floor(top * 15) AS int), 14) AS bin, count(*) AS n, sum(CAST(q >= top AS int)) AS hits,
    sum(top) AS confidence, sum(-ln(q)) AS loss FROM numbers GROUP BY 1
)
SELECT sum(loss) / sum(n), sum(hits) / sum(n), sum(abs(hits - confidence)) / sum(n) FROM bins
'''
print(*connection.execute(query).fetchone())
"""
POLARS = """
import polars as pl
numbers = pl.scan_parquet("{file}").select(top={top}, q={at_label})
bins = (
    numbers.group_by((pl.col("top") * 15).floor().cast(int).clip(0, 14).alias("bin"))
    .agg(
        n=pl.len(), hits=(pl.col("q") >= pl.col("top")).sum(), confidence=pl.col("top").cast(float).sum(),
        loss=-pl.col("q").cast(float).log().sum(),
    )
    .collect(engine="streaming")
)
rows = bins["n"].sum()
print(bins["loss"].sum() / rows, bins["hits"].sum() / rows, (bins["hits"] - bins["confidence"]).abs().sum() / rows)
"""
SKLEARN = """
import numpy as np
from sklearn.metrics import log_loss
p = np.load("p.npy", mmap_mode="r")[:{rows}]
print(log_loss(np.load("y.npy")[:{rows}], p, labels=np.arange(p.shape[1])))
"""


def write(folder: Path, rows: int, classes: int) -> None:
    """Write p.npy and y.npy, and the same as plain columns and as a fixed-size list of Parquet files."""
    import pyarrow
    import pyarrow.parquet

    rng = np.random.default_rng(0)
    p = (rng.random((rows, classes), dtype=np.float32) + np.float32(1e-3)) ** 4
    p /= p.sum(axis=1, keepdims=True)
    labels = rng.integers(0, classes, rows)
    np.save(folder / "p.npy", p)
    np.save(folder / "y.npy", labels)
    columns = {f"p{index}": p[:, index] for index in range(classes)}
    lists = {"p": pyarrow.FixedSizeListArray.from_arrays(p.reshape(-1), classes)}
    for name, held in (("columns", columns), ("list", lists)):
        table = pyarrow.table({**held, "label": labels})
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet", row_group_size=GROUP_ROWS)


def contenders(rows: int, classes: int) -> dict[str, tuple[list[str], str | None]]:
    """The arguments of Python of each contender, and the contender of xent that reads the same, None for itself."""
    names = [f"p{index}" for index in range(classes)]

    def with_xent(predictions: str, labels: str, *options: str) -> tuple[list[str], None]:
        return ["-m", "xent", "evaluate", predictions, labels, "--kind", "probabilities", "-q", *options], None

    def program(text: str, beside: str, **fields: str | int) -> tuple[list[str], str]:
        return ["-c", text.format(**fields) if fields else text], beside

    found: dict[str, tuple[list[str], str | None]] = {
        "xent, .npy": with_xent("p.npy", "y.npy"),
        "xent, columns": with_xent("columns.parquet#" + ",".join(names), "columns.parquet#label"),
        "xent, fixed-size list": with_xent("list.parquet#p", "list.parquet#label"),
        "NumPy loop": program(NUMPY, "xent, .npy"),
    }
    if measure.is_installed("sklearn"):
        part = min(rows, SKLEARN_ROWS)
        found[f"xent, .npy, {part:,} rows"] = with_xent("p.npy", "y.npy", "--rows", f"0:{part}")
        found["scikit-learn log_loss"] = program(SKLEARN, f"xent, .npy, {part:,} rows", rows=part)
    if measure.is_installed("duckdb"):
        cases = " ".join(f"WHEN {index} THEN {name}" for index, name in enumerate(names))
        at_label = f"CASE label {cases} END"
        columns = {"top": f"greatest({','.join(names)})", "at_label": at_label, "file": "columns.parquet"}
        lists = {"top": "list_max(CAST(p AS float[]))", "at_label": "p[CAST(label + 1 AS int)]", "file": "list.parquet"}
        found["DuckDB, columns"] = program(DUCKDB, "xent, columns", **columns)
        found["DuckDB, fixed-size list"] = program(DUCKDB, "xent, fixed-size list", **lists)
    if measure.is_installed("polars"):
        terms = ", ".join(f"pl.col('{name}') * (pl.col('label') == {index})" for index, name in enumerate(names))
        columns = {"top": f"pl.max_horizontal({names})", "at_label": f"pl.sum_horizontal({terms})"}
        lists = {"top": "pl.col('p').arr.max()", "at_label": "pl.col('p').arr.get(pl.col('label'))"}
        found["Polars, columns"] = program(POLARS, "xent, columns", file="columns.parquet", **columns)
        found["Polars, fixed-size list"] = program(POLARS, "xent, fixed-size list", file="list.parquet", **lists)
    return found


LAUNCHER = """
import os, sys
child = os.posix_spawn(sys.executable, [sys.executable, *sys.argv[1:]], os.environ)
_, status, usage = os.wait4(child, 0)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""subtle: a process's peak begins at that of the one which started it, so a small one starts it."""


def run(arguments: list[str], folder: Path) -> tuple[float, int]:
    """The seconds of the processor and the peak memory in bytes of a process of Python."""
    environment = {**os.environ, **ONE_THREAD, "POLARS_MAX_THREADS": "1"}
    command = [sys.executable, "-S", "-c", LAUNCHER, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)[:200]} failed:\n{done.stderr[-2000:]}")
    seconds, peak = done.stdout.split()[-2:]
    return float(seconds), int(peak)


def main(quick: bool = False) -> str:
    """The page of results."""
    rounds, report = 1 if quick else 3, Report("evaluate_peers", "An evaluation beside its peers", PEERS)
    report.add(
        f"Processor seconds, user and system, of whole processes with one thread each: median (and quartiles) of "
        f"{rounds} interleaved rounds. Ratios: those of each round's own ratios. xent makes all its statistics, the "
        "others loss, accuracy and ECE, scikit-learn the loss alone.",
    )
    promises: list[Any] = []
    for rows, classes in QUICK_SIZES if quick else SIZES:
        with tempfile.TemporaryDirectory() as root:
            folder, found, order = Path(root), contenders(rows, classes), random.Random(0)
            write(folder, rows, classes)
            run(found["xent, .npy"][0], folder)  # compiles
            seconds: dict[str, list[float]] = {name: [] for name in found}
            peaks = dict.fromkeys(found, 0)
            for _ in range(rounds):
                for name in order.sample(list(found), len(found)):
                    used, peak = run(found[name][0], folder)
                    seconds[name].append(used)
                    peaks[name] = max(peaks[name], peak)
        lines = []
        for name, (_, beside) in found.items():
            ratio = measure.ratio(seconds[beside], seconds[name]) if beside else None
            shown = ratio.show() if ratio else ""
            lines.append((name, measure.quartiles(seconds[name]).show(), shown, f"{peaks[name] / 1e6:,.0f}"))
            if ratio and (name, classes) in PROMISES:
                limit = PROMISES[name, classes]
                promises.append((f"xent / {name}, {classes} classes", f"≤ {limit:.3g}", ratio, ratio.median <= limit))
            report.add(**{f"{name}, {rows} × {classes}": {"seconds": seconds[name], "peak_bytes": peaks[name]}})
        report.add(f"## {rows:,} × {classes} float32 probabilities")
        report.add(measure.table(("", "processor time, s", "xent's / its own", "peak memory, MB"), lines))
    report.add("## Promises", measure.promise_table(promises))
    return report.write(quick)


PEERS = ("pyarrow", "numba", "scikit-learn", "duckdb", "polars")

if __name__ == "__main__":
    measure.command_line(main, one_core=False)
