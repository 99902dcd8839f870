"""Faults, made for real: killed processes, broken files. The numbers are the same, or the error is clear."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import faults
import numpy as np
import pytest
import zarr

import xent
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.engine.tasks import chunk_state
from xent.evaluation.evaluations import compare, evaluate
from xent.evaluation.options import Options
from xent.evaluation.sources.messages import ReadError
from xent.evaluation.sources.opening import open_source
from xent.evaluation.sources.source import Source

ROWS, CLASSES, ROW_BYTES = 1000, 7, 28


@pytest.fixture(scope="module")
def logits():
    return (3 * np.random.default_rng(5).normal(size=(ROWS, CLASSES))).astype(np.float32)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(6).integers(0, CLASSES, ROWS)


@pytest.fixture
def folder(tmp_path, logits, labels, monkeypatch):
    """x.npy, x.zarr of 20 rows a chunk and 60 a shard, and y.npy, in the working directory."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", logits)
    np.save("y.npy", labels)
    stored = zarr.create_array("x.zarr", shape=logits.shape, dtype="f4", chunks=(20, CLASSES), shards=(60, CLASSES))
    stored[:] = logits
    return tmp_path


# ---------------------------------------------------------------------------------------------------------------------
# Processes that are killed


@pytest.fixture(scope="module")
def distributed():
    return pytest.importorskip("distributed", reason="distributed is not installed")


def killing(victims):
    """A progress function that kills the processes, once, as soon as the first chunk is done."""
    left = list(victims)

    def progress(rows):
        while left:
            os.kill(left.pop(), signal.SIGKILL)

    return progress, left


def test_a_worker_that_is_killed_in_the_middle_leaves_the_same_bits(folder, logits, labels, distributed):
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        distributed.Client(cluster) as client,
    ):
        (pid, _) = client.run(os.getpid).values()
        progress, left = killing([pid])
        made = evaluate("x.npy", "y.npy", chunk_bytes=2 * ROW_BYTES, scheduler=client, progress=progress)

        assert pid not in client.run(os.getpid).values() and not left
    assert made == evaluate(logits, labels)


def started(*arguments):
    """A process of this Python."""
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def cluster(folder, distributed):
    """A scheduler and a worker, each a process of its own, and the file that tells where the scheduler is."""
    told = ("--scheduler-file", "scheduler.json")
    scheduler = started("-m", "distributed.cli.dask_scheduler", *told, "--port", "0", "--no-dashboard")
    deadline = time.monotonic() + 60
    while not Path("scheduler.json").exists():
        assert time.monotonic() < deadline, "the scheduler did not start"
        time.sleep(0.05)
    worker = started("-m", "distributed.cli.dask_worker", *told, "--nthreads", "1", "--no-dashboard", "--no-nanny")
    yield scheduler
    for process in (worker, scheduler):
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_scheduler_that_is_killed_is_an_error_and_the_next_run_goes_on_where_it_was(cluster, logits, labels):
    call = {"chunk_bytes": 2 * ROW_BYTES, "state": "kept"}
    progress, _ = killing([cluster.pid])
    with pytest.raises(ConnectionError, match=r"the cluster did not finish .* with a state directory it goes on"):
        evaluate("x.npy", "y.npy", scheduler="scheduler.json", progress=progress, **call)
    kept = len(list(Path("kept").glob("rows-*.json")))

    assert 0 < kept < ROWS // 2
    assert evaluate("x.npy", "y.npy", **call) == evaluate(logits, labels)


def test_a_run_that_is_killed_goes_on_where_it_was(folder, logits, labels):
    code = "import xent, sys; xent.evaluate('x.npy', 'y.npy', chunk_bytes=28, state='kept', per_example='loss.npy')"
    run = started("-c", code)
    deadline = time.monotonic() + 60
    while len(list(Path("kept").glob("rows-*.json"))) < 20:
        assert time.monotonic() < deadline and run.poll() is None, "no chunk was kept"
        time.sleep(0.002)
    run.kill()
    run.wait()
    kept = {path: path.stat().st_mtime_ns for path in Path("kept").glob("rows-*.json")}
    assert len(kept) < ROWS and not Path("loss.npy").exists()

    made = evaluate("x.npy", "y.npy", chunk_bytes=ROW_BYTES, state="kept", per_example="loss.npy")

    assert made == evaluate(logits, labels)
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())  # not computed again
    np.testing.assert_array_equal(np.load("loss.npy"), losses_of(logits, labels))
    assert sorted(os.listdir(".")) == ["kept", "loss.npy", "x.npy", "x.zarr", "y.npy"]


def losses_of(logits, labels):
    return xent.row_statistics(logits, labels).loss


def test_processes_of_this_machine_leave_the_same_bits_and_tell_their_progress(folder, logits, labels, distributed):
    told = []
    with socket.socket() as dashboard:
        with suppress(OSError):  # another cluster has it already
            dashboard.bind(("", 8787))
            dashboard.listen()
        made = evaluate("x.npy", "y.npy", chunk_bytes=4000, scheduler="processes:2", progress=told.append)

    assert made == evaluate(logits, labels)
    assert sorted(told) == [ROWS % 142, *[142] * 7]


# ---------------------------------------------------------------------------------------------------------------------
# Faults at random moments: a few of each kind of faults.py


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("calls", 10),
        ("interrupts", 2),
        ("terminations", 1),
        ("kills", 1),
        ("full-disks", 3),
        ("two-runs", 3),
        ("changed-inputs", 3),
    ],
)
def test_a_fault_at_any_moment_leaves_the_same_bits_or_one_line(kind, count):
    count = int(os.environ.get("XENT_FAULTS", count))
    done = subprocess.run(
        [sys.executable, faults.__file__, kind, "--count", str(count)], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"'as it should': {count}" in done.stdout


def test_an_interrupt_of_an_evaluation_is_raised_when_its_tasks_have_ended(folder, monkeypatch):
    at_work, ended = threading.Event(), []

    def slow(job, *arguments, **keywords):
        at_work.set()
        time.sleep(0.2)
        ended.append(threading.current_thread())
        return chunk_state(job, *arguments, **keywords)

    monkeypatch.setattr("xent.evaluation.engine.evaluate_pass.chunk_state", slow)
    planned = plan("x.npy", "y.npy", Options(chunk_bytes=10 * ROW_BYTES))
    signal_it = threading.Thread(target=lambda: at_work.wait() and os.kill(os.getpid(), signal.SIGINT))
    signal_it.start()
    with xent.using(threads=2), pytest.raises(KeyboardInterrupt):
        planned.run()
    signal_it.join()

    assert 0 < len(ended) <= 4 and threading.main_thread() not in ended
    still = len(ended)
    time.sleep(0.3)
    assert len(ended) == still


def test_two_evaluations_at_once_tell_each_its_own_progress(folder):
    told = [[], []]

    def evaluate_one(which):
        evaluate("x.npy", "y.npy", chunk_bytes=(10, 100)[which] * ROW_BYTES, progress=told[which].append)

    threads = [threading.Thread(target=evaluate_one, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [set(rows) for rows in told] == [{10}, {100}] and [sum(rows) for rows in told] == [ROWS, ROWS]


# ---------------------------------------------------------------------------------------------------------------------
# Tasks that fail


class Flaky(Source):
    """Rows that cannot be read the first time; ``flag`` is a file that is there once they were tried."""

    def __init__(self, source, flag):
        super().__init__(source.path, source.shape, source.dtype)
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "flag", flag)

    def read(self, start, stop):
        if start == 0 and not os.path.exists(self.flag):
            Path(self.flag).touch()
            raise ReadError(f"evaluate: rows {start} to {stop} of {self.path} could not be read (once).")
        return self.source.read(start, stop)


def test_a_task_that_fails_once_is_run_again_by_a_cluster(folder, logits, labels, distributed):
    flaky = Flaky(open_source("x.npy", "predictions"), str(folder / "tried"))
    with (
        distributed.LocalCluster(1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        distributed.Client(cluster) as client,
    ):
        assert evaluate(flaky, "y.npy", chunk_bytes=2800, scheduler=client) == evaluate(logits, labels)
    assert (folder / "tried").exists()


def test_a_task_that_fails_on_threads_is_an_error_that_names_its_rows(folder):
    flaky = Flaky(open_source("x.npy", "predictions"), str(folder / "tried"))

    with pytest.raises(ReadError, match=r"rows 0 to 100 of .*x\.npy could not be read"):
        evaluate(flaky, "y.npy", chunk_bytes=2800)


def test_a_fault_of_a_task_on_a_cluster_is_the_error_it_is_on_threads(folder, distributed):
    (folder / "x.zarr" / "c" / "3" / "0").write_bytes(b"")
    with pytest.raises(ReadError, match=r"rows 180 to 240 of .*x\.zarr could not be read"):
        evaluate("x.zarr", "y.npy", chunk_bytes=60 * ROW_BYTES, scheduler="processes:1")


# ---------------------------------------------------------------------------------------------------------------------
# Rows that cannot be read


def truncate(path, keep=None):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 if keep is None else keep])


@pytest.mark.parametrize("chunk_bytes", [1, 60 * ROW_BYTES, 150 * ROW_BYTES, 10**6])
def test_rows_that_cannot_be_read_are_counted_and_are_the_same_for_any_chunks(folder, logits, labels, chunk_bytes):
    truncate(folder / "x.zarr" / "c" / "2" / "0", keep=0)  # a shard of no bytes: rows 120 to 180
    corrupt = folder / "x.zarr" / "c" / "5" / "0"  # in a shard, its first chunk: rows 300 to 320
    corrupt.write_bytes(b"\xff" * 40 + corrupt.read_bytes()[40:])
    lost = np.zeros(ROWS, bool)
    lost[120:180] = lost[300:320] = True
    made = evaluate("x.zarr", "y.npy", on_error="skip", chunk_bytes=chunk_bytes, by_class=True, per_example="loss.npy")
    rest = evaluate(logits[~lost], labels[~lost], by_class=True)

    assert (made.unread_rows, made.first_unread, made.counted, made.rows) == (80, 120, ROWS - 80, ROWS)
    assert (made.mean_loss, made.standard_error, made.classes) == (rest.mean_loss, rest.standard_error, rest.classes)
    np.testing.assert_array_equal(np.isnan(np.load("loss.npy")), lost)


def test_a_chunk_that_a_shard_lacks_is_refused_before_any_work(folder, logits):
    stored = zarr.create_array("y.zarr", shape=logits.shape, dtype="f4", chunks=(20, CLASSES), shards=(60, CLASSES))
    stored[:130] = logits[:130]
    stored[180:] = logits[180:]

    with pytest.raises(ReadError, match=r"is incomplete: 2 of its 3 chunks in .*c/2/0 were never written"):
        evaluate("y.zarr", "y.npy")


def test_a_chunk_that_is_lost_in_the_run_is_an_error_that_names_it(folder):
    def progress(rows):
        shutil.rmtree(folder / "x.zarr" / "c", ignore_errors=True)

    with pytest.raises(ReadError, match=r"rows \d+ to \d+ of .*x\.zarr could not be read .*/0 is not there"):
        evaluate("x.zarr", "y.npy", chunk_bytes=60 * ROW_BYTES, scheduler="sync", progress=progress)


def test_a_truncated_shard_is_an_error_that_names_it_and_its_rows(folder):
    truncate(folder / "x.zarr" / "c" / "2" / "0")

    with pytest.raises(ReadError, match=r"rows 120 to 180 of .*x\.zarr could not be read"):
        evaluate("x.zarr", "y.npy", chunk_bytes=60 * ROW_BYTES)


def test_a_comparison_leaves_out_the_rows_that_either_set_lacks(folder, logits, labels):
    truncate(folder / "x.zarr" / "c" / "2" / "0", keep=0)
    lost = np.zeros(ROWS, bool)
    lost[120:180] = True
    made = compare("x.npy", "x.zarr", "y.npy", on_error="skip", chunk_bytes=10**6)

    assert (made.counted, made.a.unread_rows, made.b.unread_rows, made.ties) == (ROWS - 60, 60, 60, ROWS - 60)
    assert made.a.mean_loss == made.b.mean_loss == evaluate(logits[~lost], labels[~lost]).mean_loss


def test_what_is_stored_in_one_piece_is_lost_in_one_piece(folder):
    class Broken(Flaky):
        def read(self, start, stop):
            raise ReadError("evaluate: no.")

    made = evaluate(Broken(open_source("x.npy", "predictions"), ""), "y.npy", on_error="skip", chunk_bytes=2800)

    assert (made.unread_rows, made.first_unread, made.counted) == (ROWS, 0, 0) and np.isnan(made.mean_loss)
