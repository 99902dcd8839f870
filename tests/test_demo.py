"""The demos: sets made on the spot, with another way to the loss of each; ranges where Python's libraries differ."""

import json
import math
import pickle
import subprocess
import sys

import mpmath
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss

import xent
from xent.cli import main
from xent.demo import digits, kernel, make, vocabulary
from xent.demo.stdlib import interpolated, library_texts, model
from xent.demo.vocabulary import Zipf
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.evaluations import evaluate

# ---------------------------------------------------------------------------------------------------------------------
# The standard library


@pytest.fixture(scope="module")
def stdlib_demo(tmp_path_factory):
    return make(tmp_path_factory.mktemp("demo") / "new", files=60)


def test_the_demo_writes_what_a_language_model_writes(stdlib_demo):
    stored, labels = zarr.open_array(stdlib_demo.predictions, mode="r"), np.load(stdlib_demo.labels)

    assert stored.shape == (stdlib_demo.rows, 256) and stored.dtype == np.float16 and stored.shards is not None
    assert labels.shape == (stdlib_demo.rows,) and labels.dtype == np.uint8
    assert stdlib_demo.files == (54, 6)


def test_the_predictions_are_distributions(stdlib_demo):
    p = np.exp(zarr.open_array(stdlib_demo.predictions, mode="r")[:500].astype(float))

    assert np.isfinite(p).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=0.01)


@pytest.mark.slow
def test_the_evaluation_is_the_models_own_number(stdlib_demo):
    result = evaluate(stdlib_demo.predictions, stdlib_demo.labels)
    agrees, verdict = stdlib_demo.cross_check(result.mean_loss)

    assert agrees and "within" in verdict
    assert abs(result.mean_loss - stdlib_demo.model_loss) < 0.001
    assert 2 < result.bits < 5 and 0.2 < result.accuracy < 0.8


def test_a_wrong_number_does_not_pass_the_cross_check(stdlib_demo):
    agrees, verdict = stdlib_demo.cross_check(stdlib_demo.model_loss + 0.01)

    assert not agrees and "OUTSIDE" in verdict


def test_the_description_says_what_was_done(stdlib_demo):
    text = stdlib_demo.description()

    assert "54 files" in text and f"{stdlib_demo.rows:,} bytes of 6 held-out files" in text


@pytest.mark.slow
def test_the_demo_is_the_same_every_time(stdlib_demo, tmp_path):
    again = make(tmp_path, files=60)

    assert again.model_loss == stdlib_demo.model_loss
    assert np.load(again.labels).tobytes() == np.load(stdlib_demo.labels).tobytes()


def test_nothing_is_overwritten(stdlib_demo):
    before = np.load(stdlib_demo.labels)

    with pytest.raises(FileExistsError, match=r"must be a directory without predictions\.zarr"):
        make(stdlib_demo.predictions.parent, files=60)
    np.testing.assert_array_equal(np.load(stdlib_demo.labels), before)


def test_the_kernel_that_computed_is_named():
    with xent.using(kernel="generic"):
        assert kernel() == "kernel generic of xent.generic"


def test_a_python_without_source_files_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))

    with pytest.raises(FileNotFoundError, match="must have source files"):
        library_texts()


def test_the_mixture_is_the_one_worked_by_hand():
    lower = np.full(4, 0.25)
    counts = np.asarray([[3, 1, 0, 0], [0, 0, 0, 0]])
    # u = 2 different bytes followed 4 times: (n + 2 / 4) / 6, and the lower order alone where nothing was seen
    expected = [[3.5 / 6, 1.5 / 6, 0.5 / 6, 0.5 / 6], [0.25] * 4]

    np.testing.assert_allclose(interpolated(counts, lower), expected, rtol=1e-15)


@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_the_model_counts_every_three_bytes_whatever_the_batch(monkeypatch, batch):
    train = np.frombuffer(b"abracadabra abracadabra", np.uint8)
    contexts = np.unique(train[:-2].astype(np.int32) * 256 + train[1:-1])
    whole = model(train, contexts)
    monkeypatch.setattr("xent.demo.stdlib.BATCH_BYTES", batch)

    np.testing.assert_array_equal(model(train, contexts), whole)
    np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-12)
    after_br = whole[np.flatnonzero(contexts == ord("b") * 256 + ord("r"))[0]]
    assert after_br.argmax() == ord("a") and math.isclose(after_br[ord("a")], (4 + model_lower(train)) / 5)


def model_lower(train):
    """p(a | r) as the module's equation has it: a follows r 4 times, of 4, and 1 byte of its own."""
    first = (np.bincount(train, minlength=256) + 1) / (len(train) + 256)
    return (4 + first[ord("a")]) / 5


# ---------------------------------------------------------------------------------------------------------------------
# Digits


@pytest.fixture(scope="module")
def digits_demo(tmp_path_factory):
    return make(tmp_path_factory.mktemp("digits") / "new", name="digits")


def test_the_digits_are_files_of_logits_labels_and_quarters(digits_demo):
    paths = digits_demo.predictions, digits_demo.labels, digits_demo.slices
    logits, labels, slices = map(np.load, paths)
    images, truth = load_digits(return_X_y=True)

    assert logits.shape == (1797, 10) and logits.dtype == np.float32
    np.testing.assert_array_equal(labels, truth)
    assert (
        images.sum(axis=1)[slices == digits.QUARTERS[0]].max() < images.sum(axis=1)[slices == digits.QUARTERS[1]].min()
    )
    assert all(400 < np.count_nonzero(slices == quarter) < 500 for quarter in digits.QUARTERS)


def test_the_loss_of_the_digits_is_the_one_scikit_learn_finds(digits_demo):
    result = evaluate(digits_demo.predictions, digits_demo.labels, slices=digits_demo.slices)
    wide = np.load(digits_demo.predictions).astype(np.float64)
    peer = log_loss(np.load(digits_demo.labels), digits.probabilities(wide))  # of the rounded logits
    agrees, verdict = digits_demo.cross_check(result.mean_loss)

    assert agrees and "within" in verdict and "scikit-learn" in verdict
    assert abs(peer - digits_demo.peer_loss) <= digits_demo.bound
    assert result.accuracy > 0.93
    assert list(result.slices) == list(digits.QUARTERS)


def test_a_wrong_loss_of_the_digits_does_not_pass(digits_demo):
    for wrong in (digits_demo.peer_loss + 1e-5, digits_demo.peer_loss - 1e-5, math.nan):
        agrees, verdict = digits_demo.cross_check(wrong)

        assert not agrees and "OUTSIDE" in verdict


def test_the_digits_are_the_same_bits_every_time(digits_demo, tmp_path):
    again = make(tmp_path, name="digits")

    assert (again.peer_loss, again.bound) == (digits_demo.peer_loss, digits_demo.bound)
    for name in ("predictions", "labels", "slices"):
        assert getattr(again, name).read_bytes() == getattr(digits_demo, name).read_bytes()


def test_no_digit_is_predicted_by_a_model_that_has_seen_it(monkeypatch):
    monkeypatch.setattr("xent.demo.digits.STEPS", 5)
    images, truth = load_digits(return_X_y=True)
    fold = np.arange(len(truth)) % 5 == 3
    whole = digits.held_out_logits(images, truth)
    changed = digits.held_out_logits(images, np.where(fold, 0, truth))

    np.testing.assert_array_equal(changed[fold], whole[fold])
    assert (changed[~fold] != whole[~fold]).all(axis=1).all()


def test_the_description_of_the_digits_says_what_was_done(digits_demo):
    text = digits_demo.description()

    assert "1,797 handwritten digits" in text and "predictions.npy, labels.npy" in text


def test_no_digits_are_overwritten(tmp_path):
    (tmp_path / "slices.npy").write_text("mine")

    with pytest.raises(FileExistsError, match=r"must be a directory without slices\.npy"):
        make(tmp_path, name="digits")
    assert [path.name for path in tmp_path.iterdir()] == ["slices.npy"]


def test_without_scikit_learn_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)

    with pytest.raises(ModuleNotFoundError, match=r"^demo: the demo of digits needs sklearn,.*xent-array\[demo\]"):
        make(tmp_path / "new", name="digits")
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------------------------------------------------------------
# Hidden states


@pytest.fixture(scope="module")
def hidden_demo(tmp_path_factory):
    return make(tmp_path_factory.mktemp("hidden") / "new", name="hidden", files=20, classes=507, steps=60)


def tensor_of(path, name):
    """A float32 tensor of a safetensors file, read as the format is described."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    facts = json.loads(data[8:start])[name]
    first, last = facts["data_offsets"]
    return np.frombuffer(data[start + first : start + last], "<f4").reshape(facts["shape"])


def test_the_evaluation_of_hidden_states_is_that_of_their_whole_logits(hidden_demo):
    hidden, labels = np.load(hidden_demo.predictions), np.load(hidden_demo.labels)
    head = hidden_demo.predictions.with_name("head.safetensors")
    weight, bias = (tensor_of(head, name) for name in ("lm_head.weight", "lm_head.bias"))
    logits = hidden @ weight.T + bias
    found = evaluate(hidden_demo.predictions, hidden_demo.labels, top_k=(1, 3), **hidden_demo.head)
    whole = evaluate(logits, labels, top_k=(1, 3))

    assert hidden.shape == (hidden_demo.rows, 32) and weight.shape == (507, 32) and hidden.dtype == np.float32
    for name in ("mean_loss", "accuracy", "brier", "entropy", "confidence", "calibration_error"):
        assert getattr(found, name) == pytest.approx(getattr(whole, name), rel=1e-5)
    agrees, verdict = hidden_demo.cross_check(found.mean_loss)
    assert agrees and "made whole, in float64" in verdict and "within" in verdict
    assert hidden_demo.cross_check(whole.mean_loss)[0]


def test_another_loss_of_the_hidden_states_does_not_pass(hidden_demo):
    without_bias = {"classifier": hidden_demo.head["classifier"]}
    wrong = evaluate(hidden_demo.predictions, hidden_demo.labels, **without_bias).mean_loss
    for loss in (wrong, hidden_demo.whole_loss + 1e-4, math.nan):
        agrees, verdict = hidden_demo.cross_check(loss)

        assert not agrees and "OUTSIDE" in verdict


def test_the_model_of_words_has_learnt_more_than_how_frequent_they_are(hidden_demo):
    labels = np.load(hidden_demo.labels)
    shares = np.bincount(labels, minlength=507) / len(labels)  # which no model knows
    entropy = -np.sum(shares[shares > 0] * np.log(shares[shares > 0]))

    assert hidden_demo.whole_loss < entropy - 0.1


def test_the_hidden_states_are_the_same_bits_every_time(hidden_demo, tmp_path):
    again = make(tmp_path, name="hidden", files=20, classes=507, steps=60)

    for name in ("hidden.npy", "labels.npy", "head.safetensors"):
        assert (tmp_path / name).read_bytes() == hidden_demo.predictions.with_name(name).read_bytes()
    assert again.whole_loss == hidden_demo.whole_loss


def test_the_description_of_the_hidden_states_says_how_much_smaller_they_are(hidden_demo):
    text = hidden_demo.description()

    assert "18 files" in text and "of 2 held-out files" in text and "in 60 steps" in text
    assert f"{hidden_demo.rows * 507 * 4 / 1e6:.1f} MB of logits: 16 times smaller" in text


def test_the_command_of_the_description_is_one_that_runs(hidden_demo, monkeypatch):
    monkeypatch.chdir(hidden_demo.predictions.parent)
    command = hidden_demo.description().splitlines()[-1].split()
    result = CliRunner().invoke(main, [*command[1:], "--json", "-q"])

    assert command[0] == "xent" and result.exit_code == 0, result.stderr
    assert hidden_demo.cross_check(json.loads(result.stdout)["metrics"]["loss"]["value"])[0]


def test_no_hidden_states_are_overwritten(hidden_demo):
    with pytest.raises(FileExistsError, match=r"must be a directory without hidden\.npy"):
        make(hidden_demo.predictions.parent, name="hidden")


# ---------------------------------------------------------------------------------------------------------------------
# A vocabulary

ROWS, CLASSES = 123, 507


def vocabulary_demo(**sizes):
    """A small vocabulary."""
    return make(None, name="vocabulary", **{"rows": ROWS, "classes": CLASSES, "chunk_rows": 50, **sizes})


def evaluation_of(**sizes):
    """The evaluation of a small vocabulary."""
    small = vocabulary_demo(**sizes)
    return evaluate(small.predictions, small.labels)


@pytest.mark.parametrize("exponent", [1.0, 1.5])
def test_the_closed_form_is_the_mean_of_what_the_definition_gives(exponent):
    mpmath.mp.dps = 50
    zipf = Zipf(7, exponent)
    labels, losses = zipf.labels(range(11)).tolist(), []
    for row, label in enumerate(labels):
        logits = [-exponent * mpmath.log(1 + (j + vocabulary.SHIFT * row) % 7) for j in range(7)]
        losses.append(mpmath.log(mpmath.fsum(map(mpmath.exp, logits))) - logits[label])

    assert abs(zipf.mean_loss(range(11)) - mpmath.fsum(losses) / 11) < 1e-15


def test_every_row_is_the_law_shifted_and_offset():
    logits = vocabulary_demo().predictions.compute()
    offsets = np.where(np.arange(ROWS) % 2, -1000, 1000)[:, None]
    ranks = (np.arange(CLASSES) + 50_021 * np.arange(ROWS)[:, None]) % CLASSES

    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, (offsets - np.log(1.0 + ranks)).astype(np.float32))
    np.testing.assert_array_equal(np.sort(ranks, axis=1), np.broadcast_to(np.arange(CLASSES), ranks.shape))


def test_the_labels_follow_the_law():
    zipf = Zipf(CLASSES)
    ranks, labels = zipf.ranks(range(10_000)), zipf.labels(range(10_000))
    law = 1 / np.arange(1, CLASSES + 1) / math.fsum(1 / k for k in range(1, CLASSES + 1))

    np.testing.assert_array_equal((labels + 50_021 * np.arange(10_000)) % CLASSES, ranks)
    # a sequence of low discrepancy: every share is right to a few rows, where chance would miss by a hundred
    assert np.abs(np.cumsum(np.bincount(ranks, minlength=CLASSES)) - 10_000 * np.cumsum(law)).max() < 5
    assert abs(zipf.mean_loss(range(10_000)) + law @ np.log(law)) < 0.001


def test_every_row_costs_what_the_closed_form_says():
    small, zipf = vocabulary_demo(), Zipf(CLASSES)
    losses = np.asarray(xent.sparse_cross_entropy(small.predictions, small.labels))

    assert np.abs(losses - np.log1p(zipf.ranks(range(ROWS))) - zipf.log_partition()).max() <= small.bound


def test_the_evaluation_is_the_closed_form():
    small = vocabulary_demo()
    agrees, verdict = small.cross_check(evaluate(small.predictions, small.labels).mean_loss)

    assert agrees and "in closed form" in verdict and "within" in verdict


def test_a_wrong_loss_of_a_vocabulary_does_not_pass():
    small = vocabulary_demo()
    for wrong in (small.closed_form + 1e-4, small.closed_form - 1e-4, math.nan, math.inf):
        agrees, verdict = small.cross_check(wrong)

        assert not agrees and "OUTSIDE" in verdict


@pytest.mark.slow
@pytest.mark.parametrize("chunk_rows", [1, 7, 122, 1000])
def test_a_vocabulary_has_the_same_bits_for_any_row_chunks(chunk_rows):
    assert evaluation_of(chunk_rows=chunk_rows) == evaluation_of()


@pytest.mark.parametrize("class_chunks", [1, 2, 7, 100])
def test_a_vocabulary_costs_the_same_but_for_the_budget_however_its_classes_are_cut(class_chunks):
    difference = abs(evaluation_of(class_chunks=class_chunks).mean_loss - evaluation_of().mean_loss)

    assert difference <= 2 * 4 * np.spacing(np.float32(16))  # no row costs 16 nats; 4 ulp for either way


def test_no_task_has_a_whole_row(monkeypatch):
    calls, logits = [], Zipf.logits
    monkeypatch.setattr(Zipf, "logits", lambda law, *ranges: calls.append(ranges) or logits(law, *ranges))
    evaluation_of(chunk_rows=40, class_chunks=4)
    once = [(range(i, min(i + 40, ROWS)), j * CLASSES // 4) for i in range(0, ROWS, 40) for j in range(4)]

    assert max(len(classes) for _, classes in calls) == 127
    assert sorted(((rows, classes.start) for rows, classes in calls), key=str) == sorted(once, key=str)


def test_the_graph_of_a_vocabulary_holds_nothing_but_numbers():
    small = vocabulary_demo(rows=2000, chunk_rows=20, classes=100_000)
    graph, _ = plan(small.predictions, small.labels).work().graph()

    assert len(pickle.dumps(graph)) <= 10_000 + 500 * len(graph)


def test_the_description_of_a_vocabulary_says_what_it_is():
    assert "over 507 classes in 123 rows" in vocabulary_demo().description()
    assert "50 rows and 64 classes" in vocabulary_demo().description()


MEASURE = """
import resource, sys
import dask
import xent
from xent.cli import main
from xent.demo import make

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def run(rows):
    demo = make(None, name="vocabulary", rows=rows, chunk_rows=16)
    xent.evaluate(demo.predictions, demo.labels)
    return demo.predictions.nbytes

with dask.config.set(num_workers=2):
    run(1)
    before = peak()
    print(run(1000), peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no resource module to measure with")
def test_a_vocabulary_is_evaluated_in_the_memory_of_its_chunks():
    result = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, timeout=100)

    assert result.returncode == 0, result.stderr
    generated, grown = map(int, result.stdout.split())
    assert grown < 2 * 2 * 16 * vocabulary.CLASSES * 4 + 50e6 < generated / 4


# ---------------------------------------------------------------------------------------------------------------------
# All of them


def test_the_kernel_of_each_demo_is_named(stdlib_demo, digits_demo, hidden_demo):
    demos = None, stdlib_demo, digits_demo, hidden_demo, vocabulary_demo()
    with xent.using(kernel="generic"):
        assert {kernel(demo) for demo in demos} == {"kernel generic of xent.generic"}
