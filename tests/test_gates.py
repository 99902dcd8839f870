"""Gates: which numbers they name, when they fail, and how that is told."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

import xent
from xent.cli.commands import main
from xent.evaluation.report.gates import better, numbers_of

ALL = (
    "--confusion",
    "--auc",
    "--classwise",
    "--calibration",
    "--by-class",
    "--top-k",
    2,
    "--slices",
    "s.npy",
    "--clusters",
    "c.npy",
)
KEYS = {"slices": "s.npy", "clusters": "c.npy"}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two models, labels, slices (one with a dot in its name) and clusters in the working directory."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(11)
    labels = rng.integers(0, 4, 123)
    logits = rng.normal(size=(123, 4)) + 2 * np.eye(4)[labels]
    np.save("x.npy", logits.astype(np.float32))
    np.save("worse.npy", (logits * 0.5 + rng.normal(size=(123, 4))).astype(np.float32))
    np.save("y.npy", labels)
    np.save("s.npy", np.array(["de", "v1.0", "<5"])[np.arange(123) % 3])
    np.save("c.npy", np.arange(123) // 5)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments), "-q"])


def gated(*conditions, command=("evaluate", "x.npy", "y.npy"), options=()):
    return run(*command, *options, *(part for each in conditions for part in ("--fail-if", each)))


def spoiled(row=3):
    """The predictions with a NaN."""
    x = np.load("x.npy")
    x[row] = np.nan
    np.save("x.npy", x)


def test_every_number_of_a_document_is_a_gate_by_its_name(files):
    document = json.loads(run("evaluate", "x.npy", "y.npy", *ALL, "--fit-temperature", "--json").stdout)
    numbers = numbers_of(document)
    names = [".".join(name) for name in numbers]
    result = gated(*(f"{name}>1e300" for name in names), options=(*ALL, "--fit-temperature"))

    assert result.exit_code == 0, result.stderr
    assert numbers["accuracy",] == document["metrics"]["accuracy"]["value"]
    assert numbers["slices", "v1.0", "accuracy"] == document["slices"]["v1.0"]["accuracy"]
    assert numbers["confusion", "classes", "2", "f1"] == document["confusion"]["classes"]["2"]["f1"]
    assert numbers["temperature",] == document["temperature"]["value"]
    assert numbers["loss_interval_95", "1"] == document["loss_interval_95"][1]


def test_every_number_of_a_comparison_is_a_gate_by_its_name(files):
    command = ("compare", "x.npy", "worse.npy", "y.npy", "--slices", "s.npy", "--clusters", "c.npy")
    numbers = numbers_of(json.loads(run(*command, "--json").stdout))
    result = gated(*(f"{'.'.join(name)}>1e300" for name in numbers), command=command)

    assert result.exit_code == 0, result.stderr
    assert {("difference",), ("difference", "p_value"), ("slices", "de", "mean_difference"), ("b", "brier")} <= {
        *numbers
    }


@pytest.mark.parametrize(
    ("sign", "at", "under", "over"), [("<", 0, 1, 0), ("<=", 1, 1, 0), (">", 0, 0, 1), (">=", 1, 0, 1)]
)
def test_a_condition_fails_where_it_holds(files, sign, at, under, over):
    accuracy = xent.evaluate("x.npy", "y.npy").accuracy
    below, above = np.nextafter(accuracy, 0), np.nextafter(accuracy, 1)  # limits of which the value is over and under
    codes = [gated(f"accuracy {sign} {float(limit)!r}").exit_code for limit in (accuracy, above, below)]

    assert codes == [at, under, over]


def test_all_gates_are_asked_and_shown_and_the_result_is_printed(files):
    result = gated("loss>100", "accuracy<0.99", "brier>1e-9", options=("--json",))

    assert result.exit_code == 1 and json.loads(result.stdout)["metrics"]
    lines = result.stderr.splitlines()
    starts = ("passed: loss>100: loss is", "failed: accuracy<0.99: accuracy is", "failed: brier>1e-9: brier is")
    for line, start in zip(lines, starts, strict=False):
        assert line.startswith(f"xent: gate {start} ")
    assert lines[3:] == ["xent: 2 of 3 gates failed."]


@pytest.mark.parametrize("condition", ["loss>1e9", "loss<-1e9", "loss>=1e9", "loss<=-1e9"])
def test_a_number_that_is_nan_fails_every_gate(files, condition):
    spoiled()

    assert gated(condition).exit_code == 1


def test_a_star_is_a_gate_on_every_slice_and_one_without_rows_fails(files):
    accuracies = {name: each.accuracy for name, each in xent.evaluate("x.npy", "y.npy", **KEYS).slices.items()}
    (worst, lowest), (_, second), _ = sorted(accuracies.items(), key=lambda each: each[1])
    options = ("--slices", "s.npy")
    result = gated(f"slices.*.accuracy<{(lowest + second) / 2}", options=options)
    missing = gated("slices.fr.accuracy<0.1", options=options)

    assert result.exit_code == 1 and "1 of 3 gates failed" in result.stderr
    assert f"slices.{worst}.accuracy is {lowest:.9g}" in result.stderr
    assert (
        missing.exit_code == 1
        and "there is no slices.fr.accuracy; the nearest are slices.de.accuracy" in missing.stderr
    )


@pytest.mark.parametrize(
    ("condition", "named"),
    [
        ("acuracy<0.5", "'acuracy'. The nearest are accuracy"),
        ("top-5 accuracy<0.5", "'top-5 accuracy'. The nearest are"),
        ("slices.de.accuracy<0.5", "'slices.de.accuracy'"),
        ("confusion.kappa<0.5", "'confusion.kappa'"),
        ("classes.0.recall<0.5", "'classes.0.recall'"),
        ("accuracy", "be a condition"),
        ("accuracy<nan", "be a condition"),
        ("accuracy<high", "be a condition"),
        ("accuracy==0.5", "be a condition"),
        ("<0.5", "be a condition"),
        ("", "be a condition"),
    ],
)
def test_a_condition_that_can_be_none_is_refused_before_the_run(files, condition, named):
    spoiled()
    result = gated(condition, options=("--strict-kind", "--html", "page.html"))

    assert result.exit_code == 2 and named in result.stderr and result.stdout == ""
    assert result.stderr.count("\n") == 1 and not (files / "page.html").exists()


def baseline(*options, predictions="x.npy"):
    with open("before.json", "w", encoding="utf-8") as file:
        file.write(run("evaluate", predictions, "y.npy", *options, "--json").stdout)
    return "before.json"


def test_the_same_run_is_no_worse_than_itself(files):
    result = run("evaluate", "x.npy", "y.npy", *ALL, "--fail-if-worse", baseline(*ALL))

    assert result.exit_code == 0, result.stderr
    assert "gate passed: accuracy worse than in before.json: " in result.stderr


def test_a_worse_model_fails_in_each_number_that_has_a_better_side_and_a_better_one_in_none(files):
    options = ("--slices", "s.npy", "--junit", "g.xml", "--overwrite")
    worse = run("evaluate", "worse.npy", "y.npy", *options, "--fail-if-worse", baseline("--slices", "s.npy"))
    failed = failures()
    baseline("--slices", "s.npy", predictions="worse.npy")
    improved = run("evaluate", "x.npy", "y.npy", *options, "--fail-if-worse", "before.json")
    passed = {case.get("name").removesuffix(" worse than in before.json") for case in cases()}

    named = {"loss", "accuracy", "brier", "prior.skill"}
    named |= {
        f"slices.{name}.{number}" for name in ("de", "v1.0", "<5") for number in ("mean_loss", "accuracy", "brier")
    }
    assert worse.exit_code == 1 and named <= {each.removesuffix(" worse than in before.json") for each in failed}
    assert passed == named | {"calibration.error", "calibration.confidence.brier"}
    assert improved.exit_code == ("calibration.error worse than in before.json" in failures())


@pytest.mark.parametrize(("factor", "code"), [(0.999, 1), (1.001, 0)])
@pytest.mark.parametrize("is_share", [False, True])
def test_worse_by_less_than_the_tolerance_is_fine(files, factor, code, is_share):
    before, now = xent.evaluate("x.npy", "y.npy"), xent.evaluate("worse.npy", "y.npy")
    document = {"schema_version": 1, "metrics": {"loss": {"value": before.mean_loss}}}
    (files / "before.json").write_text(json.dumps(document))
    slack = (now.mean_loss - before.mean_loss) * factor
    by = f"{slack / before.mean_loss * 100}%" if is_share else slack
    result = run("evaluate", "worse.npy", "y.npy", "--fail-if-worse", "before.json", "--by", by)

    assert result.exit_code == code


def test_a_number_that_the_run_lacks_or_that_is_nan_fails(files):
    lacks = run("evaluate", "x.npy", "y.npy", "--fail-if-worse", baseline("--slices", "s.npy", "--auc"))
    baseline()
    spoiled()
    is_nan = run("evaluate", "x.npy", "y.npy", "--fail-if-worse", "before.json", "--by", 1e9)

    assert lacks.exit_code == 1 and "slices.de.accuracy worse than in before.json: this run has no such" in lacks.stderr
    assert is_nan.exit_code == 1 and "loss worse than in before.json: nan is not within" in is_nan.stderr


@pytest.mark.parametrize(("now", "code"), [("finite", 0), ("infinite", 0)])
def test_an_infinite_loss_before_is_worse_than_no_other(files, now, code):
    document = {"schema_version": 1, "metrics": {"loss": {"value": "inf"}}}
    (files / "before.json").write_text(json.dumps(document))
    if now == "infinite":
        x = np.load("x.npy")
        x[0, np.load("y.npy")[0]] = -np.inf
        np.save("x.npy", x)

    assert run("evaluate", "x.npy", "y.npy", "--fail-if-worse", "before.json", "--by", "0%").exit_code == code


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (None, "where no file is"),
        ("{", "which is no JSON"),
        ("[]", "which is another document"),
        ('{"schema_version": 2, "metrics": {}}', "which is another document"),
        ('{"schema_version": 1, "difference": {"value": 1}}', "which is of a comparison"),
        ('{"schema_version": 1, "metrics": {}}', "which has no numbers"),
    ],
)
def test_a_baseline_of_another_kind_is_refused_before_the_run(files, text, named):
    if text is not None:
        (files / "before.json").write_text(text)
    result = run("evaluate", "x.npy", "y.npy", "--fail-if-worse", "before.json")

    assert result.exit_code == 2 and named in result.stderr and result.stdout == ""


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--by", 1), "--by goes with --fail-if-worse"),
        (("--junit", "g.xml"), "--junit goes with"),
        (("--fail-if", "loss>1", "--junit", "g.txt"), "`--junit` must be the path of a .xml file"),
        (("--fail-if-worse", "before.json", "--by", "-1"), "`--by` must be a number from 0"),
        (("--fail-if-worse", "before.json", "--by", "some"), "`--by` must be a number from 0"),
    ],
)
def test_options_on_gates_that_do_not_fit_are_refused(files, options, named):
    baseline()
    result = run("evaluate", "x.npy", "y.npy", *options)

    assert result.exit_code == 2 and named in result.stderr and result.stdout == ""


def cases():
    return ElementTree.parse("g.xml").getroot().findall("testsuite/testcase")


def failures():
    return {case.get("name"): case.find("failure").text for case in cases() if case.find("failure") is not None}


def test_junit_has_a_test_for_each_gate_with_its_failure(files):
    result = gated("loss>100", "slices.<5.accuracy<0.999", options=("--slices", "s.npy", "--junit", "g.xml"))
    suite = ElementTree.parse("g.xml").getroot().find("testsuite")

    assert result.exit_code == 1
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("xent evaluate", "2", "1")
    assert [case.get("name") for case in cases()] == ["loss>100", "slices.<5.accuracy<0.999"]
    assert failures()["slices.<5.accuracy<0.999"].startswith("slices.<5.accuracy<0.999: slices.<5.accuracy is 0.")
    assert run("evaluate", "x.npy", "y.npy", "--fail-if", "loss>1", "--junit", "g.xml").exit_code == 2  # it is there


def test_every_score_has_a_better_side(files):
    numbers = numbers_of(json.loads(run("evaluate", "x.npy", "y.npy", *ALL, "--json").stdout))
    neither = {name for name in numbers if not better(name) and name[0] not in ("counts", "loss_interval_95")}

    errors = {"n", "stderr", "standard_error", "degrees_of_freedom", "recall_error", "accuracy_error"}
    counts = {"counted", "label_rows", "predicted_rows", "positives", "negatives"}
    bounds = {"auc_bound", "average_precision_bound", "ks_bound", "bound"}
    others = {"bits", "perplexity", "entropy", "confidence", "p_value", "adjusted_p_value"}
    of_calibration = {"debiased_error", "noise_floor", "noise_deviation", "reliability", "resolution", "uncertainty"}
    of_calibration |= {"within_variance", "within_covariance", "within_bins"}
    of_calibration |= {f"debiased_{name}" for name in ("reliability", "resolution", "uncertainty")}
    assert {name[-1] for name in neither} == errors | counts | bounds | others | of_calibration | {"loss"}
    assert {name for name in neither if name[-1] == "loss"} == {("prior", "loss")}
    assert [better(("loss",)), better(("prior", "skill")), better(("top-2 accuracy",))] == [-1, 1, 1]


def parts(*cut, command=("evaluate", "x.npy", "y.npy")):
    """The files of the parts between these rows."""
    files = [f"part-{start}.json" for start in cut[:-1]]
    for start, stop, file in zip(cut, cut[1:], files, strict=False):
        assert run(*command, "--rows", f"{start}:{stop}", "--state-out", file).exit_code == 0
    return files


@pytest.mark.parametrize(
    ("command", "name", "nearest"),
    [
        (("evaluate", "x.npy", "y.npy"), "acuracy", "accuracy"),
        (("evaluate", "x.npy", "y.npy"), "slices.de.accuracy", "accuracy"),
        (("compare", "x.npy", "worse.npy", "y.npy"), "b.acuracy", "b.accuracy"),
        (("compare", "x.npy", "worse.npy", "x.npy", "y.npy"), "pairs.a-d.p_value", "pairs.a-c.p_value"),
    ],
)
def test_merge_refuses_a_name_before_it_merges(files, command, name, nearest):
    first, second = parts(0, 50, 123, command=command)
    (files / second).write_text("{}")  # the first alone has been read when the name is refused
    result = CliRunner().invoke(main, ["merge", first, second, "--fail-if", f"{name}<0.5"])

    assert result.exit_code == 2 and result.stdout == ""
    assert f"`--fail-if` must name numbers that this run has, got '{name}'. The nearest are" in result.stderr
    assert nearest in result.stderr


def test_merge_asks_gates_on_what_merged_parts_have(files):
    both = parts(0, 50, 123, command=("evaluate", "x.npy", "y.npy", "--slices", "s.npy", "--confusion"))
    gates = ("--fail-if", "slices.*.accuracy<0", "--fail-if", "confusion.kappa<2")
    result = CliRunner().invoke(main, ["merge", *both, *gates])

    assert result.exit_code == 1
    assert "gate passed: slices.*.accuracy<0: slices.de" in result.stderr
    assert "gate failed: confusion.kappa<2" in result.stderr


def test_a_gate_on_what_only_evaluations_have_is_refused_of_parts_of_a_comparison(files):
    first, second = parts(0, 50, 123, command=("compare", "x.npy", "worse.npy", "y.npy"))
    (files / second).write_text("{}")
    result = CliRunner().invoke(main, ["merge", first, second, "--fail-if-worse", baseline()])

    assert result.exit_code == 2
    assert "--fail-if-worse is of parts of an evaluation, and these are of a comparison." in result.stderr


def other_set(rows=None, classes=None, labels=None, options=()):
    """The baseline of a set that differs, in before.json."""
    x, y = np.load("x.npy"), np.load("y.npy")
    x = x if classes is None else np.pad(x, ((0, 0), (0, classes - x.shape[1])))
    np.save("other.npy", x[:rows])
    np.save("labels.npy", (y if labels is None else labels(y))[:rows])
    Path("before.json").write_text(run("evaluate", "other.npy", "labels.npy", *options, "--json").stdout)
    return "before.json"


@pytest.mark.parametrize(
    ("differs", "got"),
    [
        ({"rows": 100}, "which has rows 100, here 123"),
        ({"classes": 6}, "which has classes 6, here 4"),
        ({"options": ("--bins", 10)}, "which has bins 10, here 15"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "merge"])
def test_a_baseline_of_another_size_is_refused_before_the_work(files, differs, got, command):
    before = other_set(**differs)
    if command == "merge":
        first, second = parts(0, 50, 123)
        (files / second).write_text("{}")
        result = CliRunner().invoke(main, ["merge", first, second, "--fail-if-worse", before])
    else:
        y = np.load("y.npy")
        y[0] = 77  # a bad label, which the pass would find
        np.save("y.npy", y)
        result = run("evaluate", "x.npy", "y.npy", "--fail-if-worse", before)

    assert result.exit_code == 2 and result.stdout == ""
    rule = "`--fail-if-worse` must be of the same rows, classes and labels as this run, got before.json, "
    assert rule + got in result.stderr
    assert "Make one of this set with: xent evaluate … --json > baseline.json" in result.stderr


def ignored(y):
    return np.where(np.arange(len(y)) < 7, -100, y)


@pytest.mark.parametrize(
    ("differs", "got"),
    [
        ({"labels": lambda y: (y + (np.arange(len(y)) == 5)) % 4}, "which has other shares of the labels"),
        ({"labels": ignored, "options": ("--ignore-index", -100)}, "which has ignored rows 7, here 0"),
        ({"options": ("--weights", "v.npy")}, "which has other weights of the rows"),
    ],
)
def test_a_baseline_of_other_labels_is_refused_when_they_are_known(files, differs, got):
    np.save("v.npy", np.full(123, 2.0))
    result = run("evaluate", "x.npy", "y.npy", "--fail-if-worse", other_set(**differs))

    assert result.exit_code == 2 and got in result.stderr
    assert "accuracy" in result.stdout and "gate" not in result.stderr


def test_rows_that_one_model_alone_lacks_are_of_the_same_set(files):
    """Fewer rows count, for what depends on the model, so that the shares of labels differ too."""
    y = np.load("y.npy")
    ids = np.argsort(-np.load("x.npy"), axis=1)[:, :2]
    np.save("ids.npy", ids)
    np.save("top.npy", np.full((123, 2), np.log(0.4)))
    options = ("--ids", "ids.npy", "--classes", 4, "--kind", "log_probabilities", "--tail")
    (files / "before.json").write_text(run("evaluate", "top.npy", "y.npy", *options, "skip", "--json").stdout)
    counts = json.loads((files / "before.json").read_text())["counts"]
    result = run("evaluate", "x.npy", "y.npy", "--fail-if-worse", "before.json", "--by", 10)

    assert 0 < counts["beyond_rows"] == (ids != y[:, None]).all(axis=1).sum()
    assert "gate passed: loss worse than in before.json" in result.stderr


def test_a_document_tells_the_size_of_its_set(files):
    whole = json.loads(run("evaluate", "x.npy", "y.npy", "--json").stdout)
    some = json.loads(run("evaluate", "x.npy", "y.npy", "--rows", "0:50", "--json").stdout)
    blocks = xent.evaluate((np.zeros((rows, 2)), np.zeros(rows, int)) for rows in (3, 2))

    assert whole["set"] == some["set"] == {"rows": 123, "classes": 4}
    assert blocks.to_dict()["set"] == {"rows": 5, "classes": 2}
    assert xent.evaluate([]).to_dict()["set"] == {"rows": 0, "classes": None}
