"""The demo: a real prediction set, made from the standard library; ranges, because libraries differ."""

import math

import numpy as np
import pytest
import zarr

import xent
from xent.demo import interpolated, kernel, library_texts, make, model
from xent.evaluation.onepass import evaluate


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("demo") / "new", files=60)


def test_the_demo_writes_what_a_language_model_writes(made):
    stored, labels = zarr.open_array(made.predictions, mode="r"), np.load(made.labels)

    assert stored.shape == (made.rows, 256) and stored.dtype == np.float16 and stored.shards is not None
    assert labels.shape == (made.rows,) and labels.dtype == np.uint8
    assert made.files == (54, 6)


def test_the_predictions_are_distributions(made):
    p = np.exp(zarr.open_array(made.predictions, mode="r")[:500].astype(float))

    assert np.isfinite(p).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=0.01)


def test_the_evaluation_is_the_models_own_number(made):
    result = evaluate(made.predictions, made.labels)
    agrees, verdict = made.cross_check(result.mean_loss)

    assert agrees and "within" in verdict
    assert abs(result.mean_loss - made.model_loss) < 0.001
    assert 2 < result.bits < 5 and 0.2 < result.accuracy < 0.8


def test_a_wrong_number_does_not_pass_the_cross_check(made):
    agrees, verdict = made.cross_check(made.model_loss + 0.01)

    assert not agrees and "OUTSIDE" in verdict


def test_the_story_tells_what_was_done(made):
    assert "54 files" in made.story() and f"{made.rows:,} bytes of 6 held-out files" in made.story()


def test_the_demo_is_the_same_every_time(made, tmp_path):
    again = make(tmp_path, files=60)

    assert again.model_loss == made.model_loss
    assert np.load(again.labels).tobytes() == np.load(made.labels).tobytes()


def test_nothing_is_overwritten(made):
    before = np.load(made.labels)

    with pytest.raises(FileExistsError, match=r"must be a directory without predictions\.zarr"):
        make(made.predictions.parent, files=60)
    np.testing.assert_array_equal(np.load(made.labels), before)


def test_the_kernel_that_computed_is_named():
    with xent.using(kernel="generic"):
        assert kernel() == "kernel generic of xent.generic"


def test_a_python_without_source_files_is_told_so(tmp_path, monkeypatch):
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
    monkeypatch.setattr("xent.demo.BATCH_BYTES", batch)

    np.testing.assert_array_equal(model(train, contexts), whole)
    np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-12)
    after_br = whole[np.flatnonzero(contexts == ord("b") * 256 + ord("r"))[0]]
    assert after_br.argmax() == ord("a") and math.isclose(after_br[ord("a")], (4 + model_lower(train)) / 5)


def model_lower(train):
    """p(a | r) as the module's equation has it: a follows r 4 times, of 4, and 1 byte of its own."""
    first = (np.bincount(train, minlength=256) + 1) / (len(train) + 256)
    return (4 + first[ord("a")]) / 5
