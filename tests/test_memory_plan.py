"""The memory that is said before a run: what is taken is no more, whatever grows with classes, slices and clusters."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import xent
from xent.cli import main
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.engine.memory import table_bytes, waiting_states
from xent.evaluation.options import Keys, Options

ROWS = 100_000
PEAK = """
import sys
from xent.cli import main
try:
    main(sys.argv[1:])
finally:  # getrusage would tell the peak of the process that this one was forked from
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print("peak", int(line.split()[1]) * 1024, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set of many rows, one of many classes, and a key for each row."""
    folder, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(3)
    np.save(folder / "x.npy", rng.standard_normal((ROWS, 3)).astype(np.float32))
    np.save(folder / "y.npy", rng.integers(0, 3, ROWS))
    np.save(folder / "keys.npy", np.arange(ROWS))
    np.save(folder / "names.npy", np.arange(ROWS).astype("<U20"))
    np.save(folder / "wide.npy", rng.standard_normal((40, 50_000)).astype(np.float32))
    np.save(folder / "labels.npy", rng.integers(0, 50_000, 40))
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak of a process is told by Linux")
@pytest.mark.parametrize(
    "arguments",
    [
        ("x.npy", "y.npy", "--auc"),
        ("x.npy", "y.npy", "--clusters", "keys.npy", "--slices", "names.npy", "--chunk-bytes", "100kB", "--json"),
        ("wide.npy", "labels.npy", "--by-class", "--classwise", "--confusion", "--chunk-bytes", "400kB"),
    ],
    ids=["rows", "keys", "classes"],
)
def test_a_run_takes_no_more_than_is_said(folder, arguments):
    command = [sys.executable, "-c", PEAK, "evaluate", *arguments]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stderr
    most, peak = re.search(r"take up to ([\d,]+) MB", said)[1], re.search(r"peak (\d+)", said)[1]

    assert int(peak) < float(most.replace(",", "")) * 1e6, said


def planned(**options):
    keys = Keys(options.pop("slices", None), options.pop("clusters", None))
    return plan(np.zeros((1000, 50)), np.zeros(1000, int), Options(chunk_bytes=40_000, **options), keys=keys)


def test_what_grows_with_classes_slices_and_clusters_is_in_the_plan():
    none, many = table_bytes(planned(), 2), np.arange(1000)
    few, text = np.zeros(1000, np.int8), np.full(1000, "x" * 100)
    tables = {
        "few": table_bytes(planned(slices=few), 2),
        "many": table_bytes(planned(slices=many), 2),
        "text": table_bytes(planned(slices=text), 2),
        "both": table_bytes(planned(slices=many, clusters=many), 2),
    }

    assert none < tables["few"] < tables["many"] < tables["text"] < tables["both"]
    assert tables["many"] > none + 1000 * 1000  # a thousand slices of a kilobyte
    assert none < table_bytes(planned(confusion=True), 2)
    assert none < table_bytes(planned(auc=True), 2) < table_bytes(planned(auc=True), 8)
    assert none < table_bytes(planned(by_class=True), 2) < table_bytes(planned(classwise=True), 2)
    assert table_bytes(planned(classwise=True), 2) < table_bytes(planned(classwise=True), 8)


def test_tables_that_no_memory_holds_are_refused_before_the_work():
    message = (
        r"`bins` must have tables that fit .* got 65,536 for each of 5,000,000 classes with .*Pass fewer, or leave"
    )
    predictions, labels = np.broadcast_to(np.float32(0), (2, 5_000_000)), np.zeros(2, int)
    with pytest.raises(ValueError, match=message):
        plan(predictions, labels, Options(classwise=True, bins=2**16))

    assert plan(predictions, labels, Options(bins=2**16)).tasks and plan(predictions, labels, Options(classwise=True))


def test_the_command_names_the_options_of_tables_that_do_not_fit(folder, monkeypatch):
    arguments = ["evaluate", str(folder / "x.npy"), str(folder / "y.npy"), "-q", "--classwise", "--bins"]
    monkeypatch.setattr("xent.evaluation.engine.memory.machine_bytes", lambda: 10_000)
    (refused, done) = (CliRunner().invoke(main, [*arguments, bins]) for bins in ("105", "104"))

    assert refused.exit_code == 2 and refused.stderr.count("\n") == 1 and done.exit_code == 0
    assert (
        "`--bins` must have tables that fit into memory" in refused.stderr and "leave out --classwise" in refused.stderr
    )


def test_no_more_states_wait_than_there_are_chunks():
    assert [waiting_states(tasks, 2) for tasks in (1, 3, 16, 17, 300)] == [1, 3, 16, 17, 50]


def test_the_tables_of_keys_are_said_apart(folder):
    from xent.evaluation.report.terminal import format_plan

    pass_of_keys = plan(folder / "x.npy", folder / "y.npy", keys=Keys(folder / "keys.npy"))

    assert re.search(r"MB \(\d+ MB of it for tables, if every row has a slice", format_plan(pass_of_keys, "threads"))
    assert "for tables" not in format_plan(plan(folder / "x.npy", folder / "y.npy"), "threads")


def test_a_k_larger_than_all_classes_is_every_row():
    found = xent.evaluate(2 * np.eye(3), np.arange(3), top_k=(1, 10**12, 10**30))

    assert found.top_k_accuracy[10**12] == found.top_k_accuracy[10**30] == 1.0


def test_more_bins_than_any_memory_holds_are_refused():
    with pytest.raises(ValueError, match=r"`bins` must be at most 65,536, got 1,000,000,000,000\. The default is 15"):
        xent.evaluate(np.eye(3), np.arange(3), bins=10**12)
