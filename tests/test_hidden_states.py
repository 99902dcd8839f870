"""A set of hidden states and a classifier: the numbers of its logits, which are never stored."""

import itertools
import json
import pickle

import formats
import numpy as np
import pytest
from click.testing import CliRunner

import xent
from xent.cli import main
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.sources.hidden_states import Head, LinearRows, Whole

ROWS, FEATURES, CLASSES = 123, 7, 37
RNG = np.random.default_rng(18)
HIDDEN = RNG.standard_normal((ROWS, FEATURES)).astype(np.float16)
CLASSIFIER = RNG.standard_normal((CLASSES, FEATURES)).astype(np.float16)
BIAS = RNG.standard_normal(CLASSES).astype(np.float32)
LABELS = (HIDDEN.astype(np.float32) @ CLASSIFIER.T.astype(np.float32) + RNG.gumbel(size=(ROWS, CLASSES))).argmax(1)
LABELS[::11] = -100
GROUPS = np.arange(ROWS) // 10


def logits(softcap=None, bias=None):
    """The logits in float32."""
    x = HIDDEN.astype(np.float32) @ CLASSIFIER.astype(np.float32).T
    x = x if bias is None else x + bias
    return x if softcap is None else softcap * np.tanh(x / np.float32(softcap))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The set in files of several formats, which is the working directory."""
    np.save(tmp_path / "h.npy", HIDDEN)
    np.save(tmp_path / "w.npy", CLASSIFIER)
    np.save(tmp_path / "turned.npy", np.ascontiguousarray(CLASSIFIER.T))
    np.save(tmp_path / "y.npy", LABELS)
    np.save(tmp_path / "x.npy", logits(30, BIAS))
    formats.write_safetensors(tmp_path / "head.safetensors", **{"lm_head.weight": CLASSIFIER, "bias": BIAS})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def numbers(evaluation):
    """The numbers of an evaluation by their names, as plain data."""
    document = evaluation.to_dict()
    return {name: document[name] for name in document.keys() - {"timing", "inputs", "options", "environment"}}


def assert_near(found, expected, path=""):
    """The two documents agree: floats closely, all else exactly."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), path
        for name in expected:
            assert_near(found[name], expected[name], f"{path}/{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), path
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_near(one, other, f"{path}/{number}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=2e-5, abs=2e-6, nan_ok=True), path
    else:
        assert found == expected, path


@pytest.mark.parametrize(("softcap", "bias"), [(None, None), (30, None), (None, BIAS), (2.5, BIAS)])
def test_every_number_is_that_of_the_whole_logits(softcap, bias):
    wanted = {
        "top_k": (1, 3),
        "by_class": True,
        "classwise": True,
        "confusion": True,
        "auc": True,
        "ignore_index": -100,
    }
    wanted |= {"clusters": GROUPS, "slices": GROUPS % 3, "predicted_bytes": 999}
    found = xent.evaluate(HIDDEN, LABELS, classifier=CLASSIFIER, bias=bias, softcap=softcap, **wanted)

    assert_near(numbers(found), numbers(xent.evaluate(logits(softcap, bias), LABELS, **wanted)))


def test_the_loss_is_scikit_learns(folder):
    metrics = pytest.importorskip("sklearn.metrics")
    x, kept = logits(30, BIAS).astype(np.float64), LABELS != -100
    p = np.exp(x - x.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    found = xent.evaluate(
        "h.npy",
        "y.npy",
        classifier="head.safetensors#lm_head.weight",
        bias="head.safetensors#bias",
        softcap=30,
        ignore_index=-100,
    )

    assert found.mean_loss == pytest.approx(metrics.log_loss(LABELS[kept], p[kept], labels=range(CLASSES)), rel=1e-6)


def test_the_temperature_is_that_of_the_whole_logits():
    options = {"fit_temperature": True, "ignore_index": -100}
    found = xent.evaluate(HIDDEN, LABELS, classifier=CLASSIFIER, bias=BIAS, softcap=8, **options).temperature
    expected = xent.evaluate(logits(8, BIAS), LABELS, **options).temperature

    assert found.value == pytest.approx(expected.value, rel=1e-3)
    assert found.mean_loss == pytest.approx(expected.mean_loss, rel=1e-5)


def test_labels_that_are_distributions_go_with_hidden_states():
    targets = np.exp(logits()) / np.exp(logits()).sum(1, keepdims=True)
    found = xent.evaluate(HIDDEN, targets, classifier=CLASSIFIER)

    assert_near(numbers(found), numbers(xent.evaluate(logits(), targets)))


@pytest.mark.parametrize(
    "how", [{"chunk_bytes": 100}, {"chunk_bytes": 1000, "scheduler": "sync"}, {"dask": 17}], ids=str
)
def test_the_same_bits_for_any_chunks(how):
    wanted = {"classifier": CLASSIFIER, "bias": BIAS, "softcap": 9, "classwise": True, "ignore_index": -100}
    how, hidden = dict(how), HIDDEN
    if rows := how.pop("dask", None):
        hidden = pytest.importorskip("dask.array").from_array(HIDDEN, chunks=(rows, 3))
        wanted["classifier"] = pytest.importorskip("dask.array").from_array(CLASSIFIER, chunks=(9, 2))
    once = xent.evaluate(HIDDEN, LABELS, **{**wanted, "classifier": CLASSIFIER})

    assert numbers(xent.evaluate(hidden, LABELS, **wanted, **how)) == numbers(once)


def test_a_linear_is_a_set_and_so_are_blocks():
    once = numbers(xent.evaluate(HIDDEN, LABELS, classifier=CLASSIFIER, softcap=4, ignore_index=-100))
    linear = xent.Linear(HIDDEN, CLASSIFIER, softcap=4)
    blocks = ((HIDDEN[start : start + 50], LABELS[start : start + 50]) for start in range(0, ROWS, 50))

    assert numbers(xent.evaluate(linear, LABELS, ignore_index=-100)) == once
    streamed = numbers(xent.evaluate(blocks, classifier=CLASSIFIER, softcap=4, ignore_index=-100))
    assert {**streamed, "positions": once["positions"]} == once  # which a stream does not know beforehand


def test_features_along_another_axis():
    hidden, labels = HIDDEN[:120].reshape(4, 30, FEATURES), LABELS[:120].reshape(4, 30)
    once = numbers(xent.evaluate(hidden, labels, classifier=CLASSIFIER, ignore_index=-100))
    turned = np.ascontiguousarray(np.moveaxis(hidden, -1, 1))

    assert numbers(xent.evaluate(turned, labels, axis=1, classifier=CLASSIFIER, ignore_index=-100)) == once
    assert numbers(xent.evaluate(HIDDEN[:120], LABELS[:120], classifier=CLASSIFIER, ignore_index=-100)) == once


def test_a_comparison_has_a_classifier_for_each_side():
    half, options = CLASSIFIER / np.float16(2), {"ignore_index": -100}
    of_b = {"classifier_b": half, "bias_b": BIAS}
    two_heads = xent.compare(HIDDEN, HIDDEN, LABELS, classifier=CLASSIFIER, softcap=5, **of_b, **options)
    shared = xent.compare(HIDDEN, HIDDEN / np.float16(2), LABELS, classifier=CLASSIFIER, **options)
    beside = xent.compare(logits(), HIDDEN, LABELS, classifier_b=CLASSIFIER, **options)

    expected = xent.compare(logits(5), logits() / 2 + BIAS, LABELS, **options)
    assert_near(numbers(two_heads), numbers(expected))
    assert_near(numbers(shared), numbers(xent.compare(logits(), logits() / 2, LABELS, **options)))
    assert abs(beside.mean_difference) < 1e-6


WRONG = {
    "turned": ({"classifier": CLASSIFIER.T}, r"`classifier` must have shape \(classes, 7\).* Save classifier.T\."),
    "features": ({"classifier": CLASSIFIER[:, :3]}, "Pass one row of 7 numbers for each class"),
    "no classes": ({"classifier": CLASSIFIER[:0]}, "at least one class"),
    "integers": ({"classifier": np.ones((CLASSES, FEATURES), int)}, "`classifier` must be float16"),
    "bias": ({"classifier": CLASSIFIER, "bias": BIAS[1:]}, r"`bias` must have shape \(37,\)"),
    "only bias": ({"bias": BIAS}, "`bias` must be left out where no `classifier` is given.* Pass `classifier` too"),
    "softcap": ({"classifier": CLASSIFIER, "softcap": 0}, "`softcap` must be a positive number"),
    "kind": ({"classifier": CLASSIFIER, "kind": "probabilities"}, "`kind` must be 'logits' where `classifier`"),
    "binary": ({"classifier": CLASSIFIER, "binary": True}, "`binary` must be left out where `classifier`"),
    "labels": ({"classifier": CLASSIFIER, "labels": LABELS[1:]}, r"`labels` must have shape \(123,\)"),
    "no features": (
        {"predictions": HIDDEN[:, 0], "classifier": CLASSIFIER},
        "`predictions` must be hidden states .* Pass what the last layer of the model reads",
    ),
    "the classifier first": (
        {"predictions": CLASSIFIER, "classifier": HIDDEN},
        r"`labels` must have shape \(37,\), .* for logits \(37, 123\) of float16\[37, 7\] .*Pass a label for each row",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_before_any_work(case, monkeypatch):
    arguments, message = WRONG[case]
    monkeypatch.setattr(Whole, "array", property(lambda _: pytest.fail("the classifier was read")))
    with pytest.raises((TypeError, ValueError), match=message):
        xent.evaluate(**{"predictions": HIDDEN, "labels": LABELS, **arguments})


def test_a_classifier_of_b_alone_is_asked_for_with_its_bias():
    with pytest.raises(ValueError, match="`bias_b` must be left out where no `classifier_b` is given"):
        xent.compare(HIDDEN, HIDDEN, LABELS, classifier=CLASSIFIER, bias_b=BIAS)
    with pytest.raises(ValueError, match=r"`kind_b` must be 'logits'.* Pass that set as a, .*`classifier_b`"):
        xent.compare(HIDDEN, logits(), LABELS, classifier=CLASSIFIER, kind_b="probabilities")
    with pytest.raises(
        ValueError, match=r"shape of a, \(123, 7\), got logits \(123, 37\).* Pass `classifier` for a too"
    ):
        xent.compare(HIDDEN, HIDDEN, LABELS, classifier_b=CLASSIFIER)


@pytest.mark.parametrize(
    ("option", "name", "advised"),
    [
        ("--classifier", "", "lm_head.weight"),
        ("--classifier", "#lm_head.weights", "lm_head.weight"),
        ("--bias", "", "bias"),
    ],
)
def test_the_tensor_that_was_meant_is_advised(folder, option, name, advised):
    given = {"--classifier": "w.npy", option: f"head.safetensors{name}"}
    refused = run("evaluate", "h.npy", "y.npy", *itertools.chain(*given.items()))
    assert refused.exit_code == 2 and refused.stderr.rstrip().endswith(f"head.safetensors#{advised}.")


def test_a_classifier_in_a_file_is_mapped_once_and_not_sent(folder):
    planned = plan("h.npy", "y.npy", head=Head("w.npy"))
    graph, parts = planned.predictions.parts([0, 50, ROWS])
    (key,) = graph
    whole = graph[key][0](*graph[key][1:])
    sent = pickle.dumps(whole)
    assert whole.held is None

    assert len(parts) == 2 and all(part[2] == key for part in parts)
    assert whole.array is whole.array and np.array_equal(whole.array, CLASSIFIER)
    base = whole.array
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert pickle.dumps(whole) == sent
    assert np.array_equal(pickle.loads(sent).array, CLASSIFIER)


def test_a_classifier_that_cannot_be_read_is_an_error_and_no_row_to_leave_out(folder):
    planned = plan("h.npy", "y.npy", xent.evaluation.options.Options(on_error="skip"), head=Head("w.npy"))
    np.save(folder / "w.npy", CLASSIFIER[:5])
    with pytest.raises(xent.evaluation.sources.ReadError, match=r"w\.npy"):
        planned.run(scheduler="sync")


def test_a_state_knows_the_classifier(folder):
    head = {"classifier": "w.npy", "softcap": 3, "ignore_index": -100}
    once = xent.evaluate("h.npy", "y.npy", state="state", **head)

    assert numbers(xent.evaluate("h.npy", "y.npy", state="state", **head)) == numbers(once)
    with pytest.raises(ValueError, match="predictions have changed since"):
        xent.evaluate("h.npy", "y.npy", state="state", **head | {"softcap": 4})
    np.save("w.npy", CLASSIFIER[::-1])
    with pytest.raises(ValueError, match="predictions have changed since"):
        xent.evaluate("h.npy", "y.npy", state="state", **head)


def test_the_memory_that_is_said_has_the_classifier(folder):
    planned = plan("h.npy", "y.npy", head=Head("w.npy"))

    assert planned.shared_bytes(1) > CLASSIFIER.nbytes and plan("x.npy", "y.npy").shared_bytes(1) == 0
    assert planned.shared_bytes(3) - planned.shared_bytes(2) == planned.shared_bytes(2) - planned.shared_bytes(1) > 0


def test_logits_are_multiplied_where_they_are_asked_for():
    rows = LinearRows(HIDDEN, Whole(CLASSIFIER, CLASSES), None, None)

    assert rows.shape == (ROWS, CLASSES) and np.asarray(rows[5]).shape == (CLASSES,)
    assert np.allclose(rows, logits(), rtol=1e-5, atol=1e-5)


def test_whole_logits_of_a_row_have_the_bits_that_they_have_beside_others(rng):
    hidden, classifier = (rng.standard_normal((rows, 301)).astype(np.float32) for rows in (67, 41))
    rows = LinearRows(hidden, Whole(classifier, 41), None, None)
    together = np.asarray(rows)

    assert all(np.array_equal(np.asarray(rows[row : row + 1])[0], together[row]) for row in range(67))
    assert np.array_equal(np.asarray(rows[5:8]), together[5:8]) and np.array_equal(np.asarray(rows[5]), together[5])


def run(*arguments):
    return CliRunner().invoke(main, list(arguments))


def test_the_command_takes_a_classifier(folder):
    head = ["--classifier", "head.safetensors#lm_head.weight", "--bias", "head.safetensors#bias", "--softcap", "30"]
    options = ["--ignore-index", "-100", "--json", "-q"]
    found = json.loads(run("evaluate", "h.npy", "y.npy", *head, *options).stdout)
    pair = run("compare", "x.npy", "h.npy", "y.npy", "--classifier-b", *head[1:2], "--bias-b", head[3], *options)
    own = run("compare", "h.npy", "h.npy", "y.npy", *head, "--classifier-b", "w.npy", "--softcap-b", "2", *options)

    assert found["metrics"]["loss"]["value"] == pytest.approx(
        xent.evaluate("x.npy", "y.npy", ignore_index=-100).mean_loss, rel=1e-6
    )
    assert found["inputs"]["predictions"]["classifier"]["shape"] == [CLASSES, FEATURES]
    assert pair.exit_code == own.exit_code == 0, pair.output + own.output
    refused = run("evaluate", "h.npy", "y.npy", "--classifier", "turned.npy")
    assert refused.exit_code == 2 and "`--classifier` must have shape (classes, 7)" in refused.stderr


def test_what_is_shown_names_the_classifier(folder):
    head = {"classifier": "w.npy", "bias": "head.safetensors#bias", "softcap": 30}
    found = xent.evaluate("h.npy", "y.npy", ignore_index=-100, **head)
    pair = xent.compare("h.npy", "h.npy", "y.npy", classifier="w.npy", classifier_b="w.npy", ignore_index=-100)
    found.to_html("page.html")
    page = (folder / "page.html").read_text("utf-8")

    assert "classifier of predictions" in page and "bias of predictions" in page and f"{folder}/w.npy" in page
    assert f"{folder}/h.npy with {folder}/w.npy" in "".join(str(found).split("\n"))
    assert str(pair).count(" with ") == 2  # long paths are folded


def test_inspect_shows_what_the_logits_would_take(folder):
    head = ["--classifier", "w.npy", "--softcap", "30"]
    text = run("inspect", "h.npy", *head).stdout
    facts = json.loads(run("inspect", "h.npy", *head, "--json").stdout)

    assert "123 rows of 37 classes, of 7 features, float16" in text and "10.6 times as much" in text
    assert (facts["rows"], facts["classes"], facts["shape"]) == (ROWS, CLASSES, [ROWS, FEATURES])
    assert (facts["bytes"], facts["logits_bytes"]) == (HIDDEN.nbytes, ROWS * CLASSES * 4)
    assert facts["classifier"]["bytes"] == CLASSIFIER.nbytes and facts["softcap"] == 30
    plain = json.loads(run("inspect", "h.npy", "--json").stdout)
    assert facts["projected_peak_bytes"] > plain["projected_peak_bytes"]
