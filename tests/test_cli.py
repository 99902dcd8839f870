"""The command line: what it prints where, and its exit codes."""

import gc
import importlib
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings

import dask
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import toy_kernels
import zarr
from click.testing import CliRunner

import xent
from xent.cli import main
from xent.cli.commands.installation import LIBRARIES
from xent.cli.doctor import Diagnosis, Finding
from xent.cli.exits import OPTIONS, errors_reported, raised
from xent.cli.options import spare_blas_threads
from xent.cli.parameters import ByteSize
from xent.dispatch.registry import PluginRecord, registry
from xent.dispatch.settings import scopes
from xent.errors import Interrupted
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.evaluations import evaluate
from xent.evaluation.options import Options, Outputs
from xent.evaluation.outputs import WriteError
from xent.evaluation.report.terminal import progress_bar


@pytest.fixture
def files(tmp_path, monkeypatch):
    """x.npy and y.npy in the working directory."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(4)
    np.save("x.npy", rng.normal(size=(123, 7)).astype(np.float32))
    np.save("y.npy", rng.integers(0, 7, 123))
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_evaluate_prints_a_table_on_stdout(files):
    result = run("evaluate", "x.npy", "y.npy")

    assert result.exit_code == 0, result.stderr
    assert "123 × 7  float32" in result.stdout
    for word in ("loss", "nats", "bits", "perplexity", "accuracy", "95 % interval", "123 of 123 rows counted", "GB/s"):
        assert word in result.stdout


def test_the_table_is_plain_text_without_rich(files, monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "rich", None)
    result = run("evaluate", "x.npy", "y.npy")
    heads = [line.split()[0] for line in result.stdout.splitlines()[2:6]]

    assert result.exit_code == 0, result.stderr
    assert heads == ["loss", "bits", "perplexity", "accuracy"] and "┃" not in result.stdout


def test_json_is_one_document_with_a_schema_version(files):
    result = run("evaluate", "x.npy", "y.npy", "--json", "--chunk-bytes", "1KiB", "--scheduler", "sync")
    document = json.loads(result.stdout)
    expected = evaluate("x.npy", "y.npy")

    assert document["schema_version"] == 1
    facts = {"path": str(files / "x.npy"), "shape": [123, 7], "dtype": "float32", "bytes": 123 * 7 * 4}
    assert document["inputs"]["predictions"] == facts
    assert document["metrics"]["loss"] == {"value": expected.mean_loss, "stderr": expected.standard_error, "n": 123}
    assert {"loss", "bits", "perplexity", "accuracy", "brier", "entropy", "confidence"} == set(document["metrics"])
    assert document["counts"]["rows"] == document["counts"]["counted"] == 123
    assert document["options"]["scheduler"] == "sync" and document["options"]["chunks"] == 4
    assert document["timing"]["bytes"] == 123 * 7 * 4 and document["timing"]["wall_seconds"] > 0


@pytest.fixture
def more_files(files):
    """Also another model's predictions, clusters, and slices with a name that rich would take for markup."""
    np.save("b.npy", np.load("x.npy") * 0.5)
    np.save("clusters.npy", np.arange(123) // 5)
    np.save("slices.npy", np.array(["[red]", "plain"])[np.arange(123) % 2])
    return files


def test_every_option_of_an_evaluation_reaches_it(more_files):
    keys = ("--clusters", "clusters.npy", "--slices", "slices.npy")
    options = ("--by-class", "--top-k", 2, "--top-k", 3, "--bins", 4, "--predicted-bytes", 77)
    document = json.loads(run("evaluate", "x.npy", "y.npy", *keys, *options, "--json").stdout)
    options = {"by_class": True, "top_k": (2, 3), "bins": 4, "predicted_bytes": 77}
    expected = evaluate("x.npy", "y.npy", clusters="clusters.npy", slices="slices.npy", **options)

    assert document["metrics"]["loss"]["stderr"] == expected.standard_error and document["counts"]["clusters"] == 25
    assert document["metrics"]["top-3 accuracy"]["value"] == expected.top_k_accuracy[3]
    assert document["slices"]["[red]"]["mean_loss"] == expected.slices["[red]"].mean_loss
    assert len(document["classes"]) == 7 and len(document["calibration"]["bins"]) <= 4
    assert document["bits_per_byte"] == expected.bits_per_byte and document["prior"]["skill"] == expected.skill


def test_a_table_shows_classes_and_slices_by_their_own_names(more_files):
    text = run("evaluate", "x.npy", "y.npy", "--slices", "slices.npy", "--by-class").stdout

    assert "[red]" in text and "plain" in text and "class" in text


def test_of_many_slices_the_table_shows_the_first_and_says_so(files):
    np.save("many.npy", np.arange(123))
    text = run("evaluate", "x.npy", "y.npy", "--slices", "many.npy").stdout

    assert "The first 20 of 123; the JSON document has them all." in text


def test_compare_prints_the_difference_and_its_error(more_files):
    result = run("compare", "x.npy", "b.npy", "y.npy", "--clusters", "clusters.npy", "--slices", "slices.npy")

    assert result.exit_code == 0, result.stderr
    for word in ("A − B", "95 % interval", "25 clusters", "A is better in", "[red]"):
        assert word in result.stdout


def test_compare_writes_json(more_files):
    document = json.loads(run("compare", "x.npy", "b.npy", "y.npy", "--json").stdout)
    expected = xent.compare("x.npy", "b.npy", "y.npy")

    assert document["difference"]["value"] == expected.mean_difference
    assert document["a"]["metrics"]["loss"]["value"] == expected.a.mean_loss
    assert document["inputs"]["b"]["path"].endswith("b.npy") and document["difference"]["better"] == expected.better


def test_sets_that_cannot_be_compared_are_a_usage_error(files):
    np.save("b.npy", np.zeros((123, 6), "f4"))
    result = run("compare", "x.npy", "b.npy", "y.npy")

    assert result.exit_code == 2 and "`b` must have the shape of a, (123, 7)" in result.stderr


def test_inspect_prints_the_plan_without_reading(files):
    result = run("inspect", "x.npy", "--chunk-bytes", "1KiB")

    assert result.exit_code == 0, result.stderr
    for word in ("123 rows", "7 classes", "float32", "4 chunks", "peak"):
        assert word in result.stdout


def test_inspect_writes_json(files):
    document = json.loads(run("inspect", "x.npy", "--json", "--chunk-bytes", "1KiB").stdout)

    assert (document["shape"], document["dtype"], document["chunks"]) == ([123, 7], "float32", 4)
    assert document["projected_peak_bytes"] > 0


def test_json_never_holds_a_bare_nan_or_infinity(files):
    predictions = np.load("x.npy")
    predictions[5] = np.nan
    np.save("x.npy", predictions)
    result = run("evaluate", "x.npy", "y.npy", "--json")
    document = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"bare {name}"))

    assert document["metrics"]["loss"]["value"] == "nan" and document["loss_interval_95"] == ["nan", "nan"]
    assert document["counts"]["nan_rows"] == 1 and document["counts"]["first_nan"] == 5


def test_ignored_labels_may_be_several(files):
    labels = np.load("y.npy")
    result = run("evaluate", "x.npy", "y.npy", "--ignore-index", 1, "--ignore-index", 2, "--json")

    assert json.loads(result.stdout)["counts"]["ignored"] == np.isin(labels, [1, 2]).sum()


def test_the_remarks_are_printed_below_the_table(files):
    predictions, labels = np.load("x.npy"), np.load("y.npy")
    labels[7], predictions[9], predictions[11, labels[11]] = 77, np.nan, -np.inf
    np.save("x.npy", predictions)
    np.save("y.npy", labels)
    result = run("evaluate", "x.npy", "y.npy", "--on-bad-label", "skip")

    assert "122 of 123 rows counted (0 ignored, 1 of a bad label)" in result.stdout
    assert "The first bad label is in row 7." in result.stdout
    assert "1 rows are NaN, the first is row 9" in result.stdout
    assert "1 rows give their label probability 0, the first is row 11" in result.stdout


def test_with_nan_and_infinite_rows_the_mean_is_said_once_to_be_nan(files):
    predictions, labels = np.load("x.npy"), np.load("y.npy")
    predictions[9], predictions[11, labels[11]] = np.nan, -np.inf
    np.save("x.npy", predictions)
    result = run("evaluate", "x.npy", "y.npy")

    assert "so is the mean" in result.stdout and "the mean is infinite" not in result.stdout


def test_an_infinite_mean_is_said_where_no_row_is_nan(files):
    predictions, labels = np.load("x.npy"), np.load("y.npy")
    predictions[11, labels[11]] = -np.inf
    np.save("x.npy", predictions)

    assert "the first is row 11; the mean is infinite." in run("evaluate", "x.npy", "y.npy").stdout


# ---------------------------------------------------------------------------------------------------------------------
# Exit codes


def test_inputs_that_do_not_fit_exit_with_2_and_one_line(files):
    result = run("evaluate", "x.npy", "nope.npy")

    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("xent: evaluate: `labels` must be the path of") and result.stderr.count("\n") == 1


def test_labels_that_are_no_integers_exit_with_2(files):
    np.save("y.npy", np.zeros(123))
    result = run("evaluate", "x.npy", "y.npy")

    assert result.exit_code == 2 and "`labels` must be integers, got float64[123]" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["--kind", "odds"], ["--chunk-bytes", "lots"], ["--ignore-index", "x"], ["--scheduler", "process"]]
)
def test_usage_that_is_wrong_exits_with_2(files, arguments):
    result = run("evaluate", "x.npy", "y.npy", *arguments)

    assert result.exit_code == 2 and arguments[1] in result.stderr


def test_bad_labels_exit_with_3_and_one_line(files):
    labels = np.load("y.npy")
    labels[[8, 100]] = -1
    np.save("y.npy", labels)
    result = run("evaluate", "x.npy", "y.npy", "-q")

    assert result.exit_code == 3 and result.stdout == "" and result.stderr.count("\n") == 1
    assert "got 2 that do not, the first -1 in row 8" in result.stderr


def test_the_advice_on_bad_labels_names_options_that_work(files):
    labels = np.load("y.npy")
    labels[8] = -1
    np.save("y.npy", labels)
    advice = run("evaluate", "x.npy", "y.npy").stderr

    for option in (["--on-bad-label", "skip"], ["--ignore-index", "-1"]):
        assert " ".join(option) in advice
        assert run("evaluate", "x.npy", "y.npy", *option).exit_code == 0
    assert "on_bad_label" not in advice and "ignore_index" not in advice


@pytest.fixture
def environment(monkeypatch):
    """A function that sets a variable, which the next call reads; undone after the test."""
    monkeypatch.setattr(scopes, "default", None)
    return monkeypatch.setenv


@pytest.mark.parametrize(
    ("variable", "value"),
    [("XENT_VALIDATE", "foo"), ("XENT_THREADS", "0"), ("XENT_KERNEL", "nope"), ("XENT_KERNEL", "foreign")],
)
def test_an_environment_that_cannot_be_exits_with_2_and_one_line(files, environment, variable, value):
    environment(variable, value)
    result = run("evaluate", "x.npy", "y.npy", "--kind", "probabilities", "-q")

    assert result.exit_code == 2 and result.stdout == "" and result.stderr.count("\n") == 1
    assert result.stderr.endswith(f"The environment sets {variable}={value}.\n")


def test_a_fault_of_its_own_leaves_its_traceback_and_exits_with_70(files, environment, monkeypatch):
    for name in [name for name in os.environ if name.startswith("XENT_")]:
        monkeypatch.delenv(name)

    def faulty(*_, **__):
        raise ValueError("operands could not be broadcast")

    monkeypatch.setattr("xent.evaluation.engine.evaluate_pass.Pass.run", faulty)

    result = run("evaluate", "x.npy", "y.npy")

    assert result.exit_code == 70 and "Traceback" in result.stderr
    assert result.stderr.endswith("ValueError: operands could not be broadcast\n")


def test_a_truncated_file_exits_with_3_and_names_it(files):
    (files / "x.npy").write_bytes((files / "x.npy").read_bytes()[:-1])
    result = run("evaluate", "x.npy", "y.npy")

    assert result.exit_code == 3 and "x.npy is truncated" in result.stderr


@pytest.mark.parametrize(("module", "extra"), [("dask", "dask"), ("zarr", "zarr")])
def test_a_missing_package_exits_with_4_and_names_the_extra(files, monkeypatch, module, extra):
    (files / "x.zarr").mkdir()
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    result = run("evaluate", "x.zarr" if module == "zarr" else "x.npy", "y.npy")

    assert result.exit_code == 4 and result.stderr.count("\n") == 1
    assert f"needs {module}, which is not installed" in result.stderr and f"'xent-array[{extra}]'" in result.stderr


def test_a_scheduler_that_does_not_answer_exits_with_4(files, monkeypatch):
    pytest.importorskip("distributed", reason="distributed is not installed")
    monkeypatch.setattr("xent.evaluation.engine.clusters.CONNECT_SECONDS", 0.5)
    result = run("evaluate", "x.npy", "y.npy", "--scheduler", "tcp://127.0.0.1:9")

    assert result.exit_code == 4 and "tcp://127.0.0.1:9" in result.stderr


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("tcp://u:SECRET@127.0.0.1:1", "tcp://127.0.0.1:1 (its address is malformed)"),
        ("tcp://127.0.0.1:1?token=SECRET", "tcp://127.0.0.1:1?… (its address is malformed)"),
        ("tls://tok:SECRET@h", "tls://h (its address is malformed)"),
        ("tls://SECRET@127.0.0.1:1", "tls://127.0.0.1:1 (TLS expects"),
    ],
)
@pytest.mark.parametrize("is_in_file", [False, True], ids=["address", "file"])
def test_a_scheduler_that_cannot_be_is_one_line_without_its_secret(files, monkeypatch, address, shown, is_in_file):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    statuses = []  # of each client as it is let go: one that is open by then waits for a loop that has ended
    gc.collect()  # those of other tests
    let_go = distributed.Client.__del__
    monkeypatch.setattr(distributed.Client, "__del__", lambda self: (statuses.append(self.status), let_go(self))[0])
    (files / "s.json").write_text(json.dumps({"address": address}))
    result = run("evaluate", "x.npy", "y.npy", "-q", "--scheduler", "s.json" if is_in_file else address)
    exit_code, text = result.exit_code, result.stderr
    del result
    gc.collect()

    assert exit_code == 4 and text.count("\n") == 1 and "SECRET" not in text
    assert "s.json (" in text if is_in_file else f"got {shown}" in text
    assert statuses == ["closed"]


@pytest.mark.slow
def test_without_the_option_the_scheduler_is_the_one_of_dasks_environment(files):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    cluster = {"n_workers": 1, "processes": False, "protocol": "tcp://", "dashboard_address": "127.0.0.1:0"}
    code = "from xent.cli import main\nmain(['evaluate', 'x.npy', 'y.npy', '--json'])"
    with distributed.LocalCluster(**cluster) as local:
        address = local.scheduler_address
        result = in_a_new_process(code, DASK_SCHEDULER_ADDRESS=address.removeprefix("tcp://"))
        ran = {key[0] for key, *_ in local.scheduler.transition_log if isinstance(key, tuple)}

    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["options"]["scheduler"] == address and "xent-chunk" in ran


@pytest.mark.slow
def test_the_option_goes_before_dasks_environment(files):
    code = "from xent.cli import main\nmain(['evaluate', 'x.npy', 'y.npy', '--json', '--scheduler', 'sync'])"
    result = in_a_new_process(code, DASK_SCHEDULER_ADDRESS="tcp://127.0.0.1:9")

    assert result.returncode == 0 and json.loads(result.stdout)["options"]["scheduler"] == "sync"


def test_an_interruption_exits_with_130_and_one_line(files, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("xent.evaluation.engine.evaluate_pass.Pass.run", interrupted)
    result = run("evaluate", "x.npy", "y.npy", "-q")

    assert result.exit_code == 130 and result.stderr.startswith("xent: interrupted; nothing was written. With --state ")
    assert result.stderr.count("\n") == 1


def test_what_an_interrupted_run_has_done_is_reported_and_continued(files, monkeypatch):
    plain = run("evaluate", "x.npy", "y.npy", "--json", "-q", "--chunk-bytes", "280")  # ten rows of a chunk

    def interrupted(self, *_, **__):
        chunks, _ = self.work().graph()
        for key in [key for key in chunks if key[0] == "xent-chunk"][:4]:
            dask.get(chunks, key)
        raise KeyboardInterrupt

    command = ("evaluate", "x.npy", "y.npy", "--json", "--chunk-bytes", "280", "--state", "kept")
    with monkeypatch.context() as patch:
        patch.setattr("xent.evaluation.engine.evaluate_pass.Pass.run", interrupted)
        stopped = run(*command)
    resumed = run(*command)

    assert stopped.exit_code == 130 and "40 of 123 rows are done and kept in" in stopped.stderr
    assert resumed.exit_code == 0 and "40 of 123 rows are done" in resumed.stderr
    assert json.loads(resumed.stdout)["metrics"] == json.loads(plain.stdout)["metrics"]


@pytest.mark.slow
def test_outputs_are_written_beside_what_is_printed(files):
    outputs = ("--html", "r.html", "--tables", "tables", "--per-example", "loss.parquet")
    result = run("evaluate", "x.npy", "y.npy", "--json", "--by-class", *outputs)
    again = run("evaluate", "x.npy", "y.npy", *outputs)
    compared = run("compare", "x.npy", "x.npy", "y.npy", "--html", "c.html", "--tables", "ab", "-q")

    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["counts"]["rows"] == 123
    assert sorted(os.listdir()) == ["ab", "c.html", "loss.parquet", "r.html", "tables", "x.npy", "y.npy"]
    assert "difference.parquet" in os.listdir("ab") and "classes.parquet" in os.listdir("tables")
    assert (files / "r.html").read_text().startswith("<!DOCTYPE html>")
    assert again.exit_code == 2 and "`--tables` must be a new file" in again.stderr
    assert run("evaluate", "x.npy", "y.npy", *outputs, "--overwrite").exit_code == 0
    assert compared.exit_code == 0, compared.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "x.npy", "y.npy", "--slices", "keys.html#int64,123", "--html", "keys.html"),
        ("compare", "x.npy", "b.html#float32,123,7", "y.npy", "--html", "b.html"),
        ("evaluate", "x.npy", "y.npy", "--slices", "in/counts.parquet", "--tables", "in"),
        ("evaluate", "x.npy", "y.npy", "--slices", "in/counts.parquet", "--tables", "link"),
    ],
)
def test_an_input_is_never_an_output(files, arguments):
    np.arange(123).tofile("keys.html")
    np.load("x.npy").tofile("b.html")
    os.mkdir("in")
    os.symlink("in", "link")
    pyarrow.parquet.write_table(pyarrow.table({"slice": np.arange(123)}), "in/counts.parquet")
    result = run(*arguments, "--overwrite", "-q")

    assert result.exit_code == 2, result.stderr
    assert f"`{arguments[-2]}` must be another path than the inputs" in result.stderr


def test_tables_at_a_link_are_in_the_folder_to_which_it_leads(files):
    os.mkdir("folder")
    os.symlink("folder", "link")
    result = run("evaluate", "x.npy", "y.npy", "--tables", "link", "--overwrite", "-q")

    assert result.exit_code == 0 and os.path.islink("link") and "metrics.parquet" in os.listdir("folder")
    assert sorted(os.listdir()) == ["folder", "link", "x.npy", "y.npy"]


@pytest.mark.parametrize("option", ["--html", "--tables"])
def test_an_output_that_cannot_be_written_exits_with_2_and_one_line_after_the_result(files, option, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: True)
    path = "/proc/out.html" if option == "--html" else "/proc/out"  # where root cannot write either
    result = run("evaluate", "x.npy", "y.npy", option, path, "-q")

    assert result.exit_code == 2 and "123 of 123 rows counted" in result.stdout
    assert result.stderr == f"xent: evaluate: {path} could not be written (No such file or directory).\n"


def test_a_disk_that_is_full_in_the_run_exits_with_2_and_one_line(files, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "kept")

    monkeypatch.setattr("xent.evaluation.engine.checkpoint.Store.write", full)
    result = run("evaluate", "x.npy", "y.npy", "-q", "--state", "kept")
    monkeypatch.undo()
    monkeypatch.setattr("xent.evaluation.engine.tasks.write_losses", full)
    os.chdir(files)
    again = run("evaluate", "x.npy", "y.npy", "-q", "--per-example", "loss.npy")

    for each in (result, again):
        assert each.exit_code == 2 and each.stderr == "xent: [Errno 28] No space left on device: 'kept'\n"


OUTPUT_OPTIONS = {"--per-example": "out.npy", "--html": "out.html", "--tables": "tables"}


@pytest.mark.parametrize("broken", [*OUTPUT_OPTIONS, "all"])
@pytest.mark.parametrize("form", ["--json", "-q"])
def test_an_output_that_fails_after_the_pass_costs_neither_the_numbers_nor_the_other_outputs(
    files, monkeypatch, broken, form
):
    def fail(draft, target, *, overwrite):
        if broken == "all" or target.name == OUTPUT_OPTIONS[broken]:
            raise OSError(28, "No space left on device")
        draft.replace(target)

    for module in ("engine.row_losses", "outputs", "report.parquet"):
        monkeypatch.setattr(f"xent.evaluation.{module}.move", fail)
    result = run("evaluate", "x.npy", "y.npy", form, "-q", *(part for pair in OUTPUT_OPTIONS.items() for part in pair))
    lost = set(OUTPUT_OPTIONS.values()) if broken == "all" else {OUTPUT_OPTIONS[broken]}

    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
    assert all(f"{name} could not be written (No space left on device)" in result.stderr for name in lost)
    assert set(os.listdir()) == {"x.npy", "y.npy", *OUTPUT_OPTIONS.values()} - lost
    if form == "--json":
        assert json.loads(result.stdout)["metrics"]["loss"]["value"] == evaluate("x.npy", "y.npy").mean_loss
    else:
        assert "123 of 123 rows counted" in result.stdout


def test_an_output_that_fails_after_the_pass_hands_the_numbers_to_python(files, monkeypatch):
    def fail(*_, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xent.evaluation.engine.row_losses.move", fail)
    with pytest.raises(WriteError, match=r"loss\.npy could not be written") as raised:
        evaluate("x.npy", "y.npy", per_example="loss.npy", fit_temperature=True)

    assert raised.value.result == evaluate("x.npy", "y.npy", fit_temperature=True)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
@pytest.mark.parametrize("form", ["--json", "-q"])
def test_numbers_that_stdout_does_not_take_are_on_stderr(files, form):
    code = f"from xent.cli import main\nmain(['evaluate', 'x.npy', 'y.npy', '-q', '{form}', '--html', 'page.html'])"
    with open("/dev/full", "w") as full:
        result = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)

    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "stdout could not be written (No space left on device); the numbers are above." in result.stderr
    assert '"brier"' in result.stderr or ("brier" in result.stderr and os.path.exists("page.html"))


def test_an_output_that_another_run_has_made_meanwhile_is_not_replaced(files):
    planned = plan("x.npy", "y.npy", outputs=Outputs("loss.npy"))
    (files / "loss.npy").write_bytes(b"of another run")
    with pytest.raises(WriteError, match=r"loss\.npy could not be written \(it is there now, and was not before"):
        planned.run()

    assert (files / "loss.npy").read_bytes() == b"of another run"


def test_a_part_of_a_state_that_is_corrupt_exits_with_3_and_one_line(files):
    assert run("evaluate", "x.npy", "y.npy", "-q", "--state", "kept").exit_code == 0
    (part,) = (files / "kept").glob("rows-*.json")
    part.write_bytes(b"\xff")
    result = run("evaluate", "x.npy", "y.npy", "-q", "--state", "kept")

    assert result.exit_code == 3 and result.stderr.startswith(f"xent: evaluate: {part} is corrupt (")
    assert len(result.stderr.splitlines()) == 1 and result.stdout == ""


def test_log_probabilities_of_some_classes_are_evaluated(files):
    np.save("p.npy", np.log(np.full((123, 2), 0.25, np.float32)))
    np.save("ids.npy", np.tile([3, 5], (123, 1)))
    command = ("evaluate", "p.npy", "y.npy", "--ids", "ids.npy", "--classes", "7", "--json", "-q")
    uniform, skipped = (json.loads(run(*command, "--tail", tail).stdout) for tail in ("uniform", "skip"))
    inside = np.isin(np.load("y.npy"), [3, 5])

    assert run(*command).exit_code == 3 and "among the ids of their rows" in run(*command).stderr
    assert "Pass --tail skip to leave such rows out, or --tail uniform if" in run(*command).stderr
    inputs = uniform["inputs"]["predictions"]
    assert (inputs["classes"], inputs["tail"], inputs["ids"]["path"]) == (7, "uniform", str(files / "ids.npy"))
    assert skipped["counts"]["beyond_rows"] == np.count_nonzero(~inside)
    assert skipped["metrics"]["loss"]["value"] == pytest.approx(np.log(4))
    assert uniform["metrics"]["loss"]["value"] == pytest.approx(np.where(inside, np.log(4), np.log(10)).mean())
    assert run("evaluate", "p.npy", "y.npy", "--ids", "ids.npy").exit_code == 2


def test_rows_that_cannot_be_read_are_counted_where_that_is_asked_for(files):
    stored = zarr.create_array("x.zarr", shape=(123, 7), dtype="f4", chunks=(10, 7))
    stored[:] = np.load("x.npy")
    (files / "x.zarr" / "c" / "2" / "0").write_bytes(b"?")
    stopped, skipped = run("evaluate", "x.zarr", "y.npy"), run("evaluate", "x.zarr", "y.npy", "--on-error", "skip")

    assert stopped.exit_code == 3 and "rows 0 to 123 of" in stopped.stderr
    assert skipped.exit_code == 0 and "10 rows could not be read, the first is row 20." in skipped.stdout


def test_json_has_the_inputs_and_the_options(more_files):
    command = ("evaluate", "x.npy", "y.npy", "--slices", "slices.npy", "--clusters", "clusters.npy", "--json", "-q")
    plain, fitted = (json.loads(run(*command, *more).stdout) for more in ([], ["--fit-temperature"]))

    assert [*plain["inputs"]] == ["predictions", "labels", "slices", "clusters"]
    facts = {"path": str(more_files / "clusters.npy"), "shape": [123], "dtype": "int64", "bytes": 123 * 8}
    assert plain["inputs"]["clusters"] == facts
    assert not plain["options"]["fit_temperature"] and fitted["options"]["fit_temperature"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--per-example", "loss.csv"), "evaluate: `--per-example` must be the path of a .npy or .parquet or .zarr"),
        (("--slices", "x.npy"), "evaluate: `--slices` must have shape (123,)"),
        (("--state", "."), "evaluate: `--state` must be a new directory"),
    ],
)
def test_a_message_calls_an_option_by_its_name(files, arguments, message):
    result = run("evaluate", "x.npy", "y.npy", "-q", *arguments)

    assert result.exit_code == 2 and message in result.stderr


@pytest.mark.parametrize("name", ["evaluate", "compare"])
def test_messages_know_every_argument_that_is_an_option(name):
    options = {each.name for each in main.commands[name].params}
    arguments = options & {*inspect.signature(getattr(xent, name)).parameters}

    assert arguments - {"predictions", "labels", "overwrite"} <= {*OPTIONS.split("|")}


def arrays_of_a_zip(folder):
    np.savez(folder / "set.npz", logits=np.zeros((4, 3), np.float32), labels=np.zeros(4, np.int64))
    return "set.npz"


def arrays_of_hdf5(folder):
    with pytest.importorskip("h5py").File(folder / "set.h5", "w") as file:
        file["logits"], file["labels"] = np.zeros((4, 3), np.float32), np.zeros(4, np.int64)
    return "set.h5"


def arrays_of_a_group(folder):
    group = pytest.importorskip("zarr").open_group(folder / "set.zarr", mode="w")
    group["logits"], group["labels"] = np.zeros((4, 3), np.float32), np.zeros(4, np.int64)
    return "set.zarr"


def columns_of_a_table(folder):
    columns = {f"logits{i}": np.zeros(4, np.float32) for i in range(3)} | {"labels": np.zeros(4, np.int64)}
    pytest.importorskip("pyarrow.parquet").write_table(
        pytest.importorskip("pyarrow").table(columns), folder / "set.parquet"
    )
    return "set.parquet"


@pytest.mark.parametrize("write", [arrays_of_a_zip, arrays_of_hdf5, arrays_of_a_group, columns_of_a_table])
def test_inspect_of_what_holds_several_arrays_lists_them_by_the_names_to_pass(files, write):
    name = write(files)
    document = json.loads(run("inspect", name, "--json").stdout)
    text = run("inspect", name).stdout
    pattern = "*" if name == "set.parquet" else ""

    assert {array["name"].rpartition("#")[2]: (array["shape"], array["dtype"]) for array in document["arrays"]} == {
        f"logits{pattern}": ([4, 3], "float32"),
        "labels": ([4], "int64"),
    }
    for array in document["arrays"]:
        assert array["name"] in text and json.loads(run("inspect", array["name"], "--json").stdout)["shape"][0] == 4
    refused = run("evaluate", name, "labels.npy")
    assert refused.exit_code == 2 and f"{name}#" in refused.stderr


def test_an_array_without_rows_cannot_be_inspected(files):
    np.save("scalar.npy", np.float32(1))
    result = run("inspect", "scalar.npy")

    assert result.exit_code == 2 and "`predictions` must have rows, got float32[]" in result.stderr


def test_inspect_has_the_threads_of_an_evaluation(files, environment):
    environment("XENT_THREADS", "1")

    assert json.loads(run("inspect", "x.npy", "--json").stdout)["threads"] == 1


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"address": ""}'])
def test_a_file_that_names_no_scheduler_exits_with_4_and_one_line(files, text):
    (files / "s.json").write_text(text)
    result = run("evaluate", "x.npy", "y.npy", "-q", "--scheduler", "s.json")

    assert result.exit_code == 4 and result.stderr.count("\n") == 1
    assert "`--scheduler` must be the file of a running scheduler" in result.stderr


@pytest.mark.parametrize("names", [["a", "b\xff"], [b"a", b"\xff"], ["a", "\ud800"], [False, True]])
def test_slices_of_any_name_are_kept_and_continued(files, names):
    np.save("slices.npy", np.asarray(names)[np.arange(123) % 2])
    command = ("evaluate", "x.npy", "y.npy", "-q", "--json", "--slices", "slices.npy", "--state", "kept")
    first, again = run(*command), run(*command)

    assert first.exit_code == again.exit_code == 0, first.stderr
    assert json.loads(first.stdout)["slices"] == json.loads(again.stdout)["slices"]


@pytest.mark.parametrize("has_rich", [True, False])
def test_a_name_is_printed_with_what_cannot_be_seen_escaped(files, monkeypatch, has_rich):
    if not has_rich:
        for module in [name for name in sys.modules if name.split(".")[0] == "rich"]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, "rich", None)
    np.save("slices.npy", np.asarray(["\x1b[31mred", "\ud800\u202e"])[np.arange(123) % 2])
    result = run("evaluate", "x.npy", "y.npy", "-q", "--slices", "slices.npy")
    refused = run("evaluate", "\x1b[31m.npy", "y.npy", "-q")

    assert result.exit_code == 0, result.stderr
    assert r"\x1b[31mred" in result.stdout and r"\ud800\u202e" in result.stdout
    assert refused.exit_code == 2 and r"\x1b[31m.npy" in refused.stderr
    assert "\x1b[31m" not in result.stdout + refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_the_table_is_printed_in_any_encoding(files, encoding):
    np.save("slices.npy", np.asarray(["é", "中"])[np.arange(123) % 2])
    code = "from xent.cli import main\nmain(['evaluate', 'x.npy', 'y.npy', '-q', '--slices', 'slices.npy'])"
    result = in_a_new_process(code, PYTHONIOENCODING=encoding)

    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "command",
    [
        "evaluate x.npy y.npy -q",
        "evaluate x.npy y.npy -q --json",
        "compare x.npy x.npy y.npy -q",
        "compare x.npy x.npy y.npy -q --json",
        "inspect x.npy",
        "inspect x.npy --json",
        pytest.param("demo digits -q", marks=pytest.mark.slow),
        "doctor",
        "explain",
        "explain --json",
        "plugins",
        "--help",
        "--version",
        "evaluate --help",
    ],
)
@pytest.mark.parametrize("buffer", [-1, 1], ids=["at-the-end", "line-by-line"])
def test_where_stdout_is_closed_every_command_ends_with_141_and_says_nothing(
    files, diagnosis, command, buffer, capsys, monkeypatch
):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", buffering=buffer) as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        with pytest.raises(SystemExit) as ended:
            main(command.split())
    said = capsys.readouterr().err

    assert ended.value.code == 141 and "Error" not in said and "Broken" not in said


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--json", "-q"])
def test_a_pipe_that_is_closed_is_no_error(files, option):
    command = [sys.executable, "-c", "from xent.cli import main\nmain()", "evaluate", "x.npy", "y.npy", "-q", option]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        stderr = process.stderr.read()

    assert (process.returncode, stderr) == (141, "")


SIGNALS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]


@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
def test_an_interrupt_that_python_would_ignore_is_raised_all_the_same(capsys, number, code, word):
    class Closing:
        def __del__(self):
            signal.raise_signal(number)

    with pytest.raises(SystemExit) as ended, errors_reported():
        closing = Closing()
        del closing
        time.sleep(5)

    assert ended.value.code == code and capsys.readouterr().err == f"xent: {word}; nothing was written.\n"


@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
def test_an_interrupt_that_became_another_error_is_an_interrupt(capsys, number, code, word):
    with pytest.raises(SystemExit) as ended, errors_reported():
        try:
            signal.raise_signal(number)
        except Interrupted as error:
            raise RuntimeError("as an import makes of it") from error

    assert ended.value.code == code and capsys.readouterr().err == f"xent: {word}; nothing was written.\n"


@pytest.fixture(autouse=True)
def handlers():
    """The signals' handlers as they were: after an interrupt a second one kills until the process has ended."""
    before = {number: signal.getsignal(number) for number, _, _ in SIGNALS}
    yield
    raised.clear()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.slow
def test_a_run_that_is_terminated_clears_away_and_exits_with_143(files):
    code = """
import os, signal
from xent.evaluation.engine import evaluate_pass

def terminated(*_, **__):
    print(*[name for name in os.listdir() if name.startswith(".loss")], flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

evaluate_pass.chunk_state = terminated
from xent.cli import main
main(["evaluate", "x.npy", "y.npy", "-q", "--scheduler", "sync", "--per-example", "loss.npy"])
"""
    result = in_a_new_process(code)

    assert result.returncode == 143 and result.stderr.startswith("xent: terminated; nothing was written.")
    assert result.stdout.startswith(".loss.npy.") and sorted(os.listdir()) == ["x.npy", "y.npy"]


def test_the_bar_counts_rows_that_are_kept_once(files, monkeypatch):
    evaluate("x.npy", "y.npy", state="kept", chunk_bytes=280)
    planned, terminal = plan("x.npy", "y.npy", Options(chunk_bytes=280), outputs=Outputs(state="kept")), io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar(planned) as progress:
        planned.run(progress=progress)
    counted = {int(rows) for rows in re.findall(r"(\d+) of 123 rows", terminal.getvalue())}

    assert planned.kept_rows == 123 and max(counted) == 123


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_no_temperature_is_best_where_the_loss_is_not_finite(files, value):
    logits, labels = np.load("x.npy"), np.load("y.npy")
    logits[0, labels[0]] = value
    np.save("x.npy", logits)
    result = run("evaluate", "x.npy", "y.npy", "-q", "--fit-temperature")

    assert "No temperature is best: the mean loss is not finite." in result.stdout


def test_the_plan_and_its_memory_are_printed_before_the_run(files):
    assert run("evaluate", "x.npy", "y.npy", "-q").stderr == ""
    for scheduler, memory in (
        ("sync", r"1 threads take up to 300 MB"),
        ("threads", r"\d+ threads take up to 300 MB"),
    ):
        text = run("evaluate", "x.npy", "y.npy", "--scheduler", scheduler, "--chunk-bytes", "1KiB").stderr
        assert re.fullmatch(rf"3.44e-06 GB in 4 chunks of up to 0.000961 MiB; {memory}\.\n", text), text


# ---------------------------------------------------------------------------------------------------------------------
# The other commands


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("64MiB", 2**26), ("1.5 GB", 1_500_000_000), ("2k", None), ("10kB", 10_000), ("0", None)],
)
def test_a_size_is_a_number_of_bytes_with_or_without_a_unit(text, size):
    if size is None:
        with pytest.raises(Exception, match="must be a number of bytes such as 64MiB"):
            ByteSize().convert(text, None, None)
    else:
        assert ByteSize().convert(text, None, None) == size


@pytest.mark.slow
def test_demo_makes_a_set_evaluates_it_and_checks_the_number(tmp_path):
    result = run("demo", "--files", 40, "--keep", tmp_path / "kept")

    assert result.exit_code == 0, result.stderr
    for words in ("36 files of the standard library", "perplexity", "bits per byte", "Cross-check", "is within the"):
        assert words in result.stdout
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["labels.npy", "predictions.zarr"]


@pytest.mark.slow
def test_demo_writes_nothing_but_json_on_stdout_when_asked_for_it():
    result = run("demo", "--files", 20, "--json")

    assert json.loads(result.stdout)["inputs"]["predictions"]["shape"][1] == 256
    assert "Cross-check" in result.stderr


def test_demo_does_not_overwrite(tmp_path):
    (tmp_path / "labels.npy").write_text("mine")
    result = run("demo", "--files", 20, "--keep", tmp_path)

    assert result.exit_code == 2 and "without labels.npy" in result.stderr
    assert (tmp_path / "labels.npy").read_text() == "mine"


def test_plugins_are_listed_with_their_errors(monkeypatch):
    whole = PluginRecord("numba", "xent-numba", "1.0", "active", ("numba (sparse)",), ("xent_register_kernels",))
    broken = PluginRecord("odd", "odd-kernels", "0.2", "broken", error="Traceback:\n  File\nImportError: no odd\n")
    monkeypatch.setattr("xent.plugins", lambda: [whole, broken])

    assert [record["name"] for record in json.loads(run("plugins", "--json").stdout)] == ["numba", "odd"]
    assert run("plugins").stdout.splitlines() == [
        "numba  xent-numba 1.0   active  numba (sparse), xent_register_kernels",
        "odd    odd-kernels 0.2  broken",
        "    Traceback:",
        "      File",
        "    ImportError: no odd",
    ]


def test_plugins_shows_the_traceback_of_a_plugin_that_broke():
    class Broken:
        @xent.hookimpl
        def xent_register_kernels(self, api):
            raise RuntimeError("no compiler here")

    with pytest.warns(xent.PluginWarning, match="no compiler here"):
        xent.register(Broken(), "broken-one")
    try:
        text = run("plugins").stdout
    finally:
        registry.records.pop("broken-one")

    assert "broken-one" in text and "    Traceback (most recent call last):" in text
    assert "    RuntimeError: no compiler here" in text


def test_explain_says_which_kernel_would_serve_and_why_not_another():
    first, numpy, generic = run("explain").stdout.splitlines()

    assert first == "sparse loss on numpy/cpu/float32, class axis last -> numpy (schedule: numpy)"
    assert numpy.split()[:3] == ["*", "numpy", "chosen"] and generic.split()[:2] == ["generic", "eligible,"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["cross_entropy"], "dense loss on numpy/cpu/float32, class axis last"),
        (["cross_entropy", "--target-dtype", "int8"], "dense loss on numpy/cpu/float32, class axis last"),
        (["binary_cross_entropy"], "binary loss on numpy/cpu/float32, class axis last"),
        (["--gradient"], "sparse loss_and_gradient on numpy/cpu/float32, class axis last"),
        (["--dtype", "float64"], "sparse loss on numpy/cpu/float64, class axis last"),
        (["--shape", "2,3,4", "--axis", "1"], "sparse loss on numpy/cpu/float32, class axis middle"),
        (["--shape", "2, 3,4", "--axis", "-3"], "sparse loss on numpy/cpu/float32, class axis middle"),
    ],
)
def test_explain_makes_the_call_that_is_described(arguments, problem):
    result = run("explain", *arguments, "--json")

    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["problem"] == problem


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_explain_makes_the_arrays_of_a_library(library, dtype):
    pytest.importorskip(library, reason=f"{library} is not installed")
    result = run("explain", "--array", library, "--dtype", dtype)

    if library == "array_api_strict" and dtype == "bfloat16":
        assert result.exit_code == 2 and "`dtype` must be one of array_api_strict, got bfloat16" in result.stderr
    elif library == "cupy" and not importlib.import_module("cupy").cuda.is_available():
        assert result.exit_code == 4 and f"explain: no {dtype} array of cupy can be made here: " in result.stderr
    else:
        assert result.exit_code == 0 and f" on {library}/" in result.stdout and f"/{dtype}," in result.stdout


def test_explain_shows_the_decision_for_the_chunks_of_a_dask_array():
    document = json.loads(run("explain", "--array", "dask", "--json").stdout)

    assert document["backend"] == "dask" and document["inner"]["backend"] == "numpy"


@pytest.mark.parametrize(
    ("arguments", "kernel"),
    [
        (["--kernel", "generic"], "generic"),
        (["--disable", "numpy"], "generic"),
        (["--disable", "nobody", "--disable", "numpy"], "generic"),
        (["--kind", "probabilities"], "generic"),
        (["--prefer", "plain", "--prefer", "smooth"], "plain"),
        (["--prefer", "smooth", "--prefer", "plain"], "smooth"),
        (["--prefer", "plain", "--prefer", "smooth", "--label-smoothing", "0.5"], "smooth"),
    ],
)
def test_explain_follows_the_kernel_that_the_user_chooses(arguments, kernel):
    plain = toy_kernels.spec("plain", opt_in=True, check=lambda problem: not problem.options.label_smoothing or "no")
    xent.register(toy_kernels.Plugin(plain, toy_kernels.spec("smooth", opt_in=True)), "toy")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", xent.PluginWarning)  # a preferred kernel that cannot serve is warned of
            result = run("explain", *arguments, "--json")
    finally:
        xent.unregister("toy")

    assert json.loads(result.stdout)["kernel"] == kernel


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--axis", "2"], "sparse_cross_entropy: `axis` must lie in [-2, 2)"),
        (["--kernel", "nope"], "`kernel` must be one that serves"),
        (["--label-smoothing", "2"], "`label_smoothing` must lie in [0, 1], got 2.0"),
        (["--dtype", "int32"], "`predictions` must be real floating, got int32[4, 10] on numpy"),
        (["--target-dtype", "float32"], "`labels` must be integers"),
        (["--dtype", "float31"], "explain: `dtype` must be one of numpy, got float31"),
        (["--shape", "4,ten"], "explain: `shape` must be lengths of axes, got 4,ten"),
        (["binary_cross_entropy", "--axis", "0"], "binary_cross_entropy: `axis` must be a keyword of it"),
        (["softmax"], "softmax"),
    ],
)
def test_a_call_that_cannot_be_explained_exits_with_2_and_the_message_of_xent(arguments, message):
    result = run("explain", *arguments)

    assert result.exit_code == 2 and result.stdout == "" and message in result.stderr


def test_explaining_for_a_library_that_is_not_installed_exits_with_4_and_one_line(monkeypatch):
    for name in [name for name in sys.modules if name == "array_api_compat.torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run("explain", "--array", "torch")

    assert result.exit_code == 4 and result.stdout == "" and result.stderr.count("\n") == 1
    assert result.stderr.startswith("xent: explain: no float32 array of torch can be made here: ")


def test_explain_follows_the_environment(environment):
    environment("XENT_KERNEL", "generic")

    assert "-> generic" in run("explain").stdout


@pytest.fixture
def diagnosis(monkeypatch):
    """The fields of the diagnosis that the command prints; a test may change them."""
    fields = {"versions": {"numpy": "2.0"}, "processors": 2, "variables": {}, "gpus": {}, "plugins": (), "kernels": ()}
    monkeypatch.setattr("xent.cli.doctor.diagnose", lambda: Diagnosis(**fields))
    return fields


def test_doctor_prints_what_it_finds_and_exits_with_0_where_all_is_sound(diagnosis):
    diagnosis["kernels"] = (Finding("numpy", "sparse", "xent.numpy", "xent 1.0", 0.0012, "sound", cases=40),)
    result = run("doctor")

    assert result.exit_code == 0 and result.stderr == ""
    assert "numpy       2.0\nprocessors  2" in result.stdout
    assert "numpy (sparse)  xent.numpy  xent 1.0  imported in 1.2 ms  sound, 40 cases\n" in result.stdout


@pytest.mark.parametrize("verdict", ["WRONG", "cannot be imported"])
@pytest.mark.parametrize("option", [[], ["--json"]])
def test_doctor_exits_with_1_where_a_kernel_is_not_sound(diagnosis, verdict, option):
    diagnosis["kernels"] = (Finding("numba", "sparse", "numba", "xent-numba 1.0", 0.5, verdict, "why"),)
    result = run("doctor", *option)

    assert result.exit_code == 1 and verdict in result.stdout and "why" in result.stdout


def test_doctor_exits_with_1_where_a_plugin_is_broken(diagnosis):
    diagnosis["plugins"] = (PluginRecord("odd", "odd-kernels", "0.2", "broken", error="Traceback:\nImportError: no\n"),)
    result = run("doctor")

    assert (
        result.exit_code == 1 and "odd  odd-kernels 0.2  broken\n    Traceback:\n    ImportError: no" in result.stdout
    )


def test_doctor_writes_one_json_document(diagnosis):
    document = json.loads(run("doctor", "--json").stdout)

    assert document["is_sound"] is True and document["versions"] == {"numpy": "2.0"}


def test_an_interrupted_doctor_exits_with_130_and_not_as_if_a_kernel_were_not_sound(monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("xent.cli.doctor.diagnose", interrupted)

    assert run("doctor").exit_code == 130


def test_doctor_names_the_variable_that_cannot_be():
    result = in_a_new_process("from xent.cli import main\nmain(['doctor'])", XENT_VALIDATE="foo")

    assert result.returncode == 2 and result.stderr.endswith("The environment sets XENT_VALIDATE=foo.\n")


def in_a_new_process(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=os.environ | environment
    )


def test_help_imports_neither_numpy_nor_dask():
    code = (
        "import sys\nfrom xent.cli import main\n"
        "try:\n    main(['evaluate', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'dask', 'zarr', 'rich', 'torch', 'jax'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) if heavy else 0)"
    )
    result = in_a_new_process(code)

    assert result.returncode == 0, result.stderr
    assert "PREDICTIONS" in result.stdout


def test_a_command_line_without_click_says_what_to_install():
    result = in_a_new_process("import sys\nsys.modules['click'] = None\nimport xent.cli")

    assert result.returncode == 4 and result.stderr.count("\n") == 1 and "'xent-array[cli]'" in result.stderr


@pytest.mark.slow
def test_the_command_runs_as_a_program(files):
    code = "from xent.cli import main\nmain(['evaluate', 'x.npy', 'y.npy', '--json', '-q'])"
    result = in_a_new_process(code)

    assert result.returncode == 0 and result.stderr == ""
    assert json.loads(result.stdout)["counts"]["rows"] == 123


@pytest.mark.parametrize("dtype", ["zeros", "__name__", "float8"])
def test_a_name_that_is_no_dtype_is_a_usage_error(dtype):
    result = run("explain", "--dtype", dtype)

    assert result.exit_code == 2 and f"`dtype` must be one of numpy, got {dtype}" in result.stderr


def test_what_a_plugin_prints_does_not_spoil_json(tmp_path):
    (tmp_path / "talks.py").write_text(
        "print('hello')\nimport xent\n@xent.hookimpl\ndef xent_register_kernels():\n    return []"
    )
    info = tmp_path / "talks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: talks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[xent]\ntalks = talks\n")
    path = os.pathsep.join([str(tmp_path), *(entry for entry in sys.path if entry)])
    command = [sys.executable, "-m", "xent", "plugins", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, timeout=60)

    assert "talks" in [record["name"] for record in json.loads(done.stdout)] and "hello" in done.stderr


@pytest.mark.parametrize("classifier", [None, "head.npy"])
@pytest.mark.parametrize("is_imported", [False, True])
def test_openblas_starts_no_threads_where_nothing_is_multiplied(classifier, is_imported, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "8")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    if not is_imported:
        monkeypatch.delitem(sys.modules, "numpy")

    assert spare_blas_threads(None, None, classifier) == classifier
    assert os.environ.get("OPENBLAS_NUM_THREADS") == (None if classifier or is_imported else "1")
