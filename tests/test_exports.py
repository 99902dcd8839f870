"""The forms of other programs: lm-evaluation-harness, the Hub's model index, OpenMetrics; each read as they read it."""

import json
import math
import re

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import xent
from xent.cli import main
from xent.evaluation.report.measures import file_name
from xent.evaluation.report.model_index import yaml_scalar
from xent.text import visible

ODD = 'v"1.0\\ü\n: #'
"""A slice whose name has every character that a form writes in another way."""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """An evaluation with everything that has a number, of files in a folder."""
    folder = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(11)
    labels = rng.integers(0, 4, 123)
    np.save(folder / "net-7.npy", (rng.normal(size=(123, 4)) + 2 * np.eye(4)[labels]).astype(np.float32))
    np.save(folder / "digits.npy", labels)
    wanted = {"by_class": True, "top_k": 2, "confusion": True, "auc": True, "predicted_bytes": 500}
    wanted |= {"calibration": True, "classwise": True}
    slices = np.array(["de", "0", ODD])[np.arange(123) % 3]
    return xent.evaluate(folder / "net-7.npy", folder / "digits.npy", slices=slices, **wanted)


@pytest.fixture(scope="module")
def broken():
    """An evaluation whose loss is NaN, of arrays without a name."""
    return xent.evaluate(np.full((3, 2), np.nan), np.array([0, 1, 1]))


LINE = re.compile(r'(xent\w*)\{((?:\w+="(?:[^"\\\n]|\\.)*",?)*)\} (NaN|[+-]Inf|-?[\d.]+(?:e[+-]\d+)?)')
LABEL = re.compile(r'(\w+)="((?:[^"\\\n]|\\.)*)"')


def parsed(text):
    """The families and the samples of an OpenMetrics text, by the rules of the format; an error if it breaks one."""
    assert text.endswith("# EOF\n")
    families, samples = {}, {}
    for line in text.removesuffix("# EOF\n").splitlines():
        if match := re.fullmatch(r"# (TYPE|UNIT|HELP) (\w+) (.+)", line):
            keyword, name, rest = match.groups()
            if keyword == "TYPE":
                assert name not in families  # all that is of a family is together
                families[name] = {}
            assert name == [*families][-1]
            assert keyword not in families[name]
            families[name][keyword] = rest
            continue
        match = LINE.fullmatch(line)
        assert match, line
        kind = families[[*families][-1]]["TYPE"]
        assert match[1] == [*families][-1] + ("_info" if kind == "info" else "")
        unescaped = {
            name: re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], value)
            for name, value in LABEL.findall(match[2])
        }
        key = match[1], tuple(sorted((name, value) for name, value in unescaped.items()))
        assert key not in samples
        samples[key] = float(match[3])
    for name, facts in families.items():
        assert "UNIT" not in facts or name.endswith(f"_{facts['UNIT']}")
    return families, samples


def gauge(samples, name, **labels):
    return samples[name, tuple(sorted({"model": "net-7", "dataset": "digits", **labels}.items()))]


def test_the_harness_finds_its_metrics_with_their_errors(report):
    found = json.loads(report.to_lm_eval())
    digits = found["results"]["digits"]

    assert (digits["acc,none"], digits["acc_stderr,none"]) == (report.accuracy, report.metrics["accuracy"].stderr)
    assert (digits["brier_score,none"], digits["perplexity,none"]) == (report.brier, report.perplexity)
    assert (digits["mcc,none"], digits["macro_f1,none"]) == (report.confusion.mcc, report.confusion.macro.f1)
    assert digits["bits_per_byte,none"] == report.bits_per_byte
    assert digits["macro_f1_stderr,none"] == "N/A"
    assert found["n-samples"]["digits"] == {"original": 123, "effective": 123}
    assert found["model_name"] == "net-7"


def test_the_harness_is_told_which_side_is_better(report):
    better = json.loads(report.to_lm_eval())["higher_is_better"]["digits"]

    assert [better[name] for name in ("acc", "top_2_accuracy", "mcc", "macro_auc", "prior_skill")] == [True] * 5
    assert [better[name] for name in ("loss", "bits", "perplexity", "bits_per_byte", "brier_score")] == [False] * 5
    assert better["entropy"] is better["confidence"] is None


def test_slices_are_the_tasks_of_a_group_for_the_harness(report):
    found = json.loads(report.to_lm_eval())
    tasks = found["group_subtasks"]["digits"]

    assert tasks == ["digits_0", "digits_de", f"digits_{ODD}"]
    assert found["results"]["digits_de"]["acc,none"] == report.slices["de"].accuracy
    assert found["results"]["digits_de"]["loss_stderr,none"] == report.slices["de"].standard_error
    assert found["results"]["digits_de"]["acc_stderr,none"] == report.slices["de"].accuracy_error
    assert found["results"]["digits_de"]["alias"] == "de"
    assert found["groups"] == {"digits": found["results"]["digits"]}
    assert {*found["results"]} == {*found["versions"]} == {*found["n-shot"]} == {*found["configs"]}


def test_without_slices_there_is_no_group(broken):
    found = json.loads(broken.to_lm_eval())

    assert "groups" not in found
    assert found["group_subtasks"] == {"dataset": []}


def test_what_json_lacks_is_text_for_the_harness_and_an_unknown_error_is_its_own_word(broken):
    found = json.loads(broken.to_lm_eval(), parse_constant=pytest.fail)["results"]["dataset"]

    assert (found["loss,none"], found["loss_stderr,none"]) == ("nan", "N/A")


def test_the_hub_finds_its_metrics(report):
    (index,) = yaml.safe_load(report.to_model_index(task_type="image-classification"))["model-index"]
    whole = index["results"][0]
    metrics = {(each["type"], *each.get("args", {}).values()): each for each in whole["metrics"]}

    assert index["name"] == "net-7"
    assert whole["task"] == {"type": "image-classification"}
    assert whole["dataset"] == {"name": "digits", "type": "digits"}
    assert metrics["accuracy",]["value"] == report.accuracy
    assert metrics["top_k_accuracy", 2]["value"] == report.top_k_accuracy[2]
    assert metrics["f1", "macro"]["value"] == report.confusion.macro.f1
    assert metrics["matthews_correlation",]["value"] == report.confusion.mcc
    assert metrics["roc_auc", "weighted"]["value"] == report.ranking.weighted_auc
    assert metrics["loss",] == {"type": "loss", "value": report.mean_loss, "name": "loss (nats)"}
    assert len(metrics) == len(whole["metrics"])  # none is there twice


def test_slices_are_configurations_for_the_hub(report):
    (index,) = yaml.safe_load(report.to_model_index(dataset_name="mnist"))["model-index"]
    slices = {each["dataset"].get("config"): each for each in index["results"]}

    assert [*slices] == [None, "0", "de", ODD.replace("\n", "\\n")]
    assert slices["de"]["dataset"] == {"name": "mnist (de)", "type": "mnist", "config": "de"}
    assert {each["type"]: each["value"] for each in slices["de"]["metrics"]} == {
        "loss": report.slices["de"].mean_loss,
        "accuracy": report.slices["de"].accuracy,
        "brier_score": report.slices["de"].brier,
        "calibration_error": report.slices["de"].calibration_error,
    }


@pytest.mark.parametrize("value", [1e-7, 1e300, 5e-324, 1.5e-9, 0.1, 3, "nan", "no: #", "1e3", "\x85\u2028é😀\x7f\t"])
def test_a_scalar_is_what_it_is_to_a_reader_of_yaml(value):
    assert yaml.safe_load(yaml_scalar(value)) == (visible(value) if isinstance(value, str) else value)


def test_what_the_hub_cannot_hold_is_text(broken):
    (index,) = yaml.safe_load(broken.to_model_index())["model-index"]

    assert index["name"] == "model"
    assert index["results"][0]["metrics"][0]["value"] == "nan"


def test_a_card_has_the_index_in_its_head(report, tmp_path):
    report.to_model_index(tmp_path / "README.md")
    report.to_model_index(tmp_path / "index.yaml")
    index = (tmp_path / "index.yaml").read_text("utf-8")

    assert (tmp_path / "README.md").read_text("utf-8") == f"---\n{index}---\n"
    assert index == report.to_model_index()


def test_a_dashboard_finds_every_number_once(report):
    _, samples = parsed(report.to_openmetrics())

    assert gauge(samples, "xent_loss_nats") == report.mean_loss
    assert gauge(samples, "xent_loss_stderr_nats") == report.standard_error
    assert gauge(samples, "xent_loss_bits") == report.bits
    assert gauge(samples, "xent_loss_interval_95_nats", bound="upper") == report.confidence_interval[1]
    assert gauge(samples, "xent_top_2_accuracy") == report.top_k_accuracy[2]
    assert gauge(samples, "xent_counted_rows") == 123
    assert gauge(samples, "xent_macro_f1") == report.confusion.macro.f1
    assert gauge(samples, "xent_slice_accuracy", slice=ODD) == report.slices[ODD].accuracy
    assert gauge(samples, "xent_slice_mean_loss_stderr_nats", slice="de") == report.slices["de"].standard_error
    assert gauge(samples, "xent_slice_accuracy_stderr", slice="de") == report.slices["de"].accuracy_error
    assert gauge(samples, "xent_slice_accuracy", slice="0") == report.slices["0"].accuracy
    assert gauge(samples, "xent_class_recall", **{"class": "3"}) == report.classes[3].recall
    assert gauge(samples, "xent_class_calibration_classwise_error", **{"class": "3"}) > 0
    assert not any("classes" in name for name, _ in samples)
    assert gauge(samples, "xent_class_f1", **{"class": "3"}) == report.confusion.classes[3].f1
    assert gauge(samples, "xent_predictions_bytes") == 123 * 4 * 4
    assert gauge(samples, "xent_evaluation_info", kind="logits", version=xent.__version__) == 1


def test_units_are_told_to_a_dashboard(report):
    families, _ = parsed(report.to_openmetrics())

    assert families["xent_slice_mean_loss_nats"] == {"TYPE": "gauge", "UNIT": "nats", "HELP": "Mean loss of a slice."}
    assert families["xent_accuracy"] == {"TYPE": "gauge", "HELP": "Accuracy."}
    assert families["xent_evaluation_seconds"]["UNIT"] == "seconds"


def test_numbers_that_are_none_are_the_words_of_the_format():
    infinite = xent.evaluate(np.array([[-np.inf, 0.0], [0.0, 0.0]]), np.array([0, 0]))
    text = infinite.to_openmetrics(model_name="a", dataset_name="b")

    assert 'xent_loss_nats{model="a",dataset="b"} +Inf\n' in text
    assert 'xent_loss_stderr_nats{model="a",dataset="b"} NaN\n' in text
    assert math.isinf(parsed(text)[1]["xent_loss_nats", (("dataset", "b"), ("model", "a"))])


@pytest.mark.parametrize("form", ["to_lm_eval", "to_model_index", "to_openmetrics"])
def test_a_name_is_a_text_and_a_file_is_of_the_form(report, form, tmp_path):
    with pytest.raises(ValueError, match="`model_name` must be a text that is not empty, got ' '"):
        getattr(report, form)(model_name=" ")
    with pytest.raises(ValueError, match="Its suffix says the format"):
        getattr(report, form)(tmp_path / "result.xml")
    assert "another name" in getattr(report, form)(model_name="another name")


def test_a_url_tells_no_secret_in_a_name():
    assert file_name({"path": "s3://key:secret@lake/runs/net.zarr?sig=abc#logits"}, "model") == "net"
    assert file_name({"path": "runs/net/*.npy"}, "model") == "net"
    assert file_name({"path": None}, "model") == "model"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Predictions, labels and slices in the working directory."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(7)
    np.save("x.npy", rng.normal(size=(51, 3)))
    np.save("y.npy", rng.integers(0, 3, 51))
    return tmp_path


ALL_FORMS = ("--lm-eval", "r.json", "--model-index", "m.yaml", "--openmetrics", "x.prom")


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_the_command_writes_what_the_methods_do(files):
    named = ("--model-name", "net", "--dataset-name", "set", "--task-type", "tabular-classification")
    done = run("evaluate", "x.npy", "y.npy", "-q", *ALL_FORMS, *named)
    found = xent.evaluate("x.npy", "y.npy")

    def without_times(text):
        return re.sub(r"(seconds\S*:? \"?)[\d.e-]+", r"\1", text)

    assert done.exit_code == 0, done.stderr
    assert "accuracy" in done.stdout
    names = {"model_name": "net", "dataset_name": "set"}
    for file, text in (
        ("r.json", found.to_lm_eval(**names) + "\n"),
        ("m.yaml", found.to_model_index(**names, task_type="tabular-classification")),
        ("x.prom", found.to_openmetrics(**names)),
    ):
        written = without_times((files / file).read_text("utf-8")).replace('seconds{model="net",dataset="set"} ', "")
        assert [*map(str.split, written.splitlines())][:40] == [*map(str.split, without_times(text).splitlines())][:40]


def test_merged_parts_are_written_in_the_forms_too(files):
    for rows, part in (("0:20", "a.json"), ("20:", "b.json")):
        run("evaluate", "x.npy", "y.npy", "-q", "--rows", rows, "--state-out", part)
    done = run("merge", "a.json", "b.json", *ALL_FORMS)

    assert done.exit_code == 0, done.stderr
    index = yaml.safe_load((files / "m.yaml").read_text("utf-8"))["model-index"][0]
    assert index["results"][0]["metrics"][0]["value"] == xent.evaluate("x.npy", "y.npy").mean_loss


def test_parts_of_a_comparison_have_none_of_the_forms(files):
    run("compare", "x.npy", "x.npy", "y.npy", "-q", "--state-out", "a.json")
    done = run("merge", "a.json", "--openmetrics", "x.prom")

    assert done.exit_code == 2
    assert "--openmetrics is of parts of an evaluation, and these are of a comparison." in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lm-eval", "r.txt"), "`--lm-eval` must be the path of a .json file, got r.txt"),
        (("--model-index", "none/m.yaml"), "`--model-index` must lie in a folder that is there"),
        (("--openmetrics", "y.prom"), "`--openmetrics` must be a new file"),
        (("--model-name", "net"), "--model-name goes with --lm-eval or --model-index or --openmetrics."),
        (("--lm-eval", "r.json", "--task-type", "other"), "--task-type goes with --model-index."),
        (("--lm-eval", "r.json", "--model-name", ""), "`model_name` must be a text that is not empty"),
    ],
)
def test_a_file_or_a_name_that_cannot_be_is_refused_before_any_work(files, options, message):
    (files / "y.prom").write_text("there")
    done = run("evaluate", "x.npy", "nowhere.npy", *options)

    assert done.exit_code == 2
    assert message in done.stderr
    assert (files / "y.prom").read_text() == "there"
