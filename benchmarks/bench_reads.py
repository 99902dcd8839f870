"""Sets on a server that takes 30 ms a request and sends 100 MB/s: small files, a large one, Zarr; and a busy server.

The server is moto's S3 on this machine, a process of its own that shares its cores. Beside each evaluation stands the
bare read: s3fs's ``cat_file`` of the same objects from 16 threads, without a listing and without arithmetic. Every run
begins without connections, listings and kept files.

Counting model: as many GET requests as files, pieces of 8 MiB or chunks, a LIST for a thousand of them, and a HEAD for
a file that is named alone; requests that follow each other take 30 ms each, those at the same time together.

It needs ``pip install s3fs "moto[server]"``, which do not go with the constraints of the other benchmarks
(python-dateutil), and so is none of ``make bench``.
"""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measure
import numpy as np
from measure import Report

import xent

LATENCY, LINK, BUSY = 0.03, 1e8, 0.3
SETS = {"small files": "small", "small files, by a glob": "small/*.npy", "one .npy": "x.npy", "Zarr": "x.zarr"}
PIECE_BYTES = 2**23
LIMIT_SMALL, LIMIT_RATIO = 3.0, 1.2


class Bucket:
    """A bucket of the server at a port."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.options = {"key": "key", "secret": "secret", "endpoint_url": self.url}

    def settings(self, **settings: float) -> dict[str, int]:
        """Sets the latency and the share of busy answers; what was asked for since the last time."""
        asked = urllib.request.Request(f"{self.url}/__settings", json.dumps(settings).encode(), method="POST")
        with urllib.request.urlopen(asked) as answer:
            return json.load(answer)

    def system(self) -> Any:
        """A file system without connections and listings."""
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        return s3fs.S3FileSystem(**self.options, skip_instance_cache=True)

    def fill(self, files: int, rows: int, large_rows: int, classes: int) -> None:
        """Writes `files` small files of `rows` rows each, and a large set as .npy and as Zarr; labels of both."""
        import zarr

        system, random = self.system(), np.random.default_rng(0)
        system.mkdir("sets")
        for i in range(files):
            system.pipe_file(f"sets/small/{i}.npy", npy(random.standard_normal((rows, classes), np.float32)))
        large = random.standard_normal((large_rows, classes), np.float32)
        system.pipe_file("sets/x.npy", npy(large))
        for name, count in (("small-labels", files * rows), ("labels", large_rows)):
            system.pipe_file(f"sets/{name}.npy", npy(random.integers(0, classes, count)))
        options = {"chunks": (max(1, large_rows // 32), classes), "storage_options": self.options}
        zarr.create_array("s3://sets/x.zarr", data=large, **options)

    def pieces(self, name: str) -> list[tuple[str, int, int]]:
        """The objects of a set in pieces of 8 MiB: the path, the first byte and the last."""
        found = self.system().find(f"sets/{name.partition('/')[0]}", detail=True)
        sizes = {path: info["size"] for path, info in found.items()}
        return [
            (path, start, min(start + PIECE_BYTES, size))
            for path, size in sizes.items()
            for start in range(0, size, PIECE_BYTES)
        ]

    def evaluate(self, name: str) -> xent.Evaluation:
        """The evaluation of a set."""
        from xent.evaluation.sources import ranges

        self.system()
        ranges.KEPT = ranges.Kept()
        labels = "small-labels" if name.startswith("small") else "labels"
        return xent.evaluate(f"s3://sets/{name}", f"s3://sets/{labels}.npy", storage_options=self.options)

    def bare_read(self, pieces: list[tuple[str, int, int]]) -> int:
        """The bytes of some pieces, read from 16 threads."""
        system = self.system()
        with ThreadPoolExecutor(16) as pool:
            return sum(pool.map(lambda piece: len(system.cat_file(piece[0], start=piece[1], end=piece[2])), pieces))


def npy(array: Any) -> bytes:
    """A .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@contextmanager
def server() -> Iterator[Bucket]:
    """An empty server in the with block."""
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py"))]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert running.stdout is not None
        yield Bucket(int(running.stdout.readline()))
    finally:
        running.terminate()
        running.wait()


def counted(bucket: Bucket, call: Callable[[], Any]) -> tuple[Any, str]:
    """What a call returns, and its requests."""
    bucket.settings()
    result = call()
    return result, ", ".join(f"{count} {method}" for method, count in sorted(bucket.settings().items()))


def read_all(report: Report, bucket: Bucket, rounds: int) -> dict[str, xent.Evaluation]:
    """Adds the requests and the time of each set beside its bare read; the results."""
    bucket.settings(latency=LATENCY, link=LINK, busy=0.0)
    expected, lines, promises = {}, [], []
    for shown, name in SETS.items():
        expected[name], requests = counted(bucket, lambda name=name: bucket.evaluate(name))
        pieces = bucket.pieces(name)
        calls = {
            "xent": lambda name=name: bucket.evaluate(name),
            "bare": lambda pieces=pieces: bucket.bare_read(pieces),
        }
        wall = measure.interleave(calls, rounds, 0)
        xent_seconds, bare = measure.quartiles(wall["xent"]), measure.quartiles(wall["bare"])
        ratio = measure.ratio(wall["xent"], wall["bare"])
        lines.append((shown, requests, xent_seconds.show(), bare.show(), ratio.show()))
        report.add(**{name: {"requests": requests, "xent": wall["xent"], "bare": wall["bare"]}})
        if name == "small":
            promises.append((f"{shown}, s", f"≤ {LIMIT_SMALL}", xent_seconds, xent_seconds.median <= LIMIT_SMALL))
        if name == "x.zarr":
            promises.append((f"{shown}, of the bare read", f"≤ {LIMIT_RATIO}", ratio, ratio.median <= LIMIT_RATIO))
    report.add(measure.table(("", "requests", "xent.evaluate, s", "bare read, s", "ratio"), lines))
    report.add(measure.promise_table(promises))
    return expected


def read_busy(report: Report, bucket: Bucket, expected: dict[str, xent.Evaluation]) -> None:
    """Adds the requests and the time where three of ten requests meet a busy server; the numbers must be the same."""
    bucket.settings(latency=LATENCY, link=LINK, busy=BUSY)
    lines = []
    for shown, name in SETS.items():
        started = time.perf_counter()
        found, requests = counted(bucket, lambda name=name: bucket.evaluate(name))
        seconds = time.perf_counter() - started
        if found != expected[name]:
            raise AssertionError(f"{name} has other numbers where the server is busy")
        lines.append((shown, requests, f"{seconds:.3g}"))
        report.add(**{f"{name}, busy": {"requests": requests, "seconds": seconds}})
    report.add("Three of ten requests answered by 503, the same bits, measured once:")
    report.add(measure.table(("", "requests", "xent.evaluate, s"), lines))


def main(quick: bool = False) -> str:
    """The page of results."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of clients that are left behind
    report = Report("reads", "Sets on a server", ("fsspec", "s3fs", "moto", "zarr", "dask"))
    with server() as bucket:
        sizes = (20, 10, 320, 10) if quick else (400, 100, 640_000, 100)
        bucket.fill(*sizes)
        files, rows, large_rows, classes = sizes
        large = large_rows * classes * 4 / 1e6
        report.add(
            f"{files} .npy files of {rows} rows of {classes} float32, and a set of {large:.3g} MB as one "
            f".npy and as Zarr of 32 chunks; {LATENCY * 1e3:.0f} ms a request, "
            f"{LINK / 1e6:.0f} MB/s in all."
        )
        expected = read_all(report, bucket, 1 if quick else 3)
        read_busy(report, bucket, expected)
    return report.write(quick)


if __name__ == "__main__":
    measure.command_line(main, None, one_core=False)
