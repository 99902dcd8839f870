"""Sequences: keys of a document for all of its tokens, and masks."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import xent
from xent.cli import main
from xent.evaluation.sources import TopK

BATCH, TOKENS, CLASSES = 13, 7, 5
RNG = np.random.default_rng(9)
LOGITS = RNG.standard_normal((BATCH, TOKENS, CLASSES)).astype(np.float32)
LABELS, MASK = RNG.integers(0, CLASSES, (BATCH, TOKENS)), RNG.random((BATCH, TOKENS)) < 0.7
KEYS = {
    "slices": np.array(["de", "en"])[RNG.integers(0, 2, BATCH)],
    "clusters": np.arange(BATCH) // 2,
    "weights": RNG.integers(0, 3, BATCH) * 0.5,
    "mask": RNG.random(BATCH) < 0.8,
}
OPTIONS = {"top_k": 2, "by_class": True, "bins": 5, "confusion": True, "auc": True, "fit_temperature": True}


def repeated(key):
    return np.repeat(key[:, None], TOKENS, axis=1)


@pytest.mark.parametrize("name", KEYS)
def test_a_key_of_a_sequence_is_that_of_each_of_its_tokens(name):
    whole = xent.evaluate(LOGITS, LABELS, **{name: repeated(KEYS[name])})

    assert xent.evaluate(LOGITS, LABELS, chunk_bytes=60, **{name: KEYS[name]}) == whole


@pytest.mark.parametrize("form", ["npy", "zarr", "dask", "shards", "xarray"])
def test_keys_of_sequences_may_be_of_any_sort(tmp_path, form):
    whole = xent.evaluate(LOGITS, LABELS, **{name: repeated(key) for name, key in KEYS.items()})
    predictions, labels, keys = LOGITS, LABELS, {**KEYS}
    if form == "npy":
        for name, key in KEYS.items():
            np.save(tmp_path / f"{name}.npy", key)
            keys[name] = tmp_path / f"{name}.npy"
    elif form == "zarr":
        zarr = pytest.importorskip("zarr", reason="zarr is not installed")
        for name in ("clusters", "mask", "weights"):
            zarr.save(tmp_path / f"{name}.zarr", KEYS[name])
            keys[name] = tmp_path / f"{name}.zarr"
    elif form == "dask":
        da = pytest.importorskip("dask.array", reason="dask is not installed")
        predictions = da.from_array(LOGITS, chunks=(4, 3, CLASSES))
        keys = {name: da.from_array(key, chunks=5) for name, key in KEYS.items()}
    elif form == "shards":
        for name, key in KEYS.items():
            for number, part in enumerate(np.array_split(key, 3)):
                np.save(tmp_path / f"{name}-{number}.npy", part)
            keys[name] = f"{tmp_path}/{name}-*.npy"
    else:
        xarray = pytest.importorskip("xarray", reason="xarray is not installed")
        predictions = xarray.DataArray(LOGITS.transpose(1, 0, 2), dims=("token", "document", "class"))
        labels = xarray.DataArray(LABELS, dims=("document", "token"))
        predictions = predictions.transpose("document", "token", "class")
        keys = {name: xarray.DataArray(key, dims="document") for name, key in KEYS.items()}

    for chunk_bytes in (60, 10**6):
        found = xent.evaluate(predictions, labels, chunk_bytes=chunk_bytes, **keys)
        assert found.metrics == whole.metrics and found.slices == whole.slices and found.clusters == whole.clusters


def test_a_key_may_be_of_the_first_dimensions_of_the_labels():
    predictions, labels = LOGITS.reshape(BATCH, TOKENS, 1, CLASSES), LABELS.reshape(BATCH, TOKENS, 1)
    mean = xent.evaluate(predictions, labels, clusters=np.arange(BATCH * TOKENS).reshape(BATCH, TOKENS)).standard_error

    assert (
        mean == xent.evaluate(LOGITS, LABELS, clusters=np.arange(BATCH * TOKENS).reshape(BATCH, TOKENS)).standard_error
    )


def test_a_mask_ignores_rows_whatever_they_hold():
    broken, bad = LOGITS.copy(), LABELS.copy()
    broken[~MASK], bad[~MASK] = np.nan, 99
    kept = xent.evaluate(LOGITS[MASK], LABELS[MASK], **OPTIONS)

    for mask in (MASK, MASK.astype(np.int64), MASK.astype(np.uint8) * 3):
        found = xent.evaluate(broken, bad, mask=mask, chunk_bytes=100, **OPTIONS)
        assert (found.metrics, found.classes, found.confusion) == (kept.metrics, kept.classes, kept.confusion)
        assert (found.ranking, found.temperature) == (kept.ranking, kept.temperature)
        assert (found.ignored, found.counted, found.bad_labels) == ((~MASK).sum(), MASK.sum(), 0)
        assert found.total_weight is None
    weighted = xent.evaluate(broken, bad, mask=MASK, weights=RNG.random(MASK.shape), ignore_index=0)
    assert weighted.ignored == (~MASK | (LABELS == 0)).sum() and np.isfinite(weighted.mean_loss)


def test_a_comparison_takes_a_mask():
    broken = LOGITS.copy()
    broken[~MASK] = np.nan
    found, kept = (
        xent.compare(broken, -LOGITS, LABELS, mask=MASK),
        xent.compare(LOGITS[MASK], -LOGITS[MASK], LABELS[MASK]),
    )

    assert (found.mean_difference, found.standard_error, found.mcnemar) == (
        kept.mean_difference,
        kept.standard_error,
        kept.mcnemar,
    )
    assert (
        xent.compare_all([broken, -LOGITS], LABELS, mask=MASK).pairs["a", "b"].mean_difference == kept.mean_difference
    )


def test_a_masked_row_of_a_top_k_set_is_not_looked_at():
    ids, values = np.tile(np.arange(3), (4, 1)), np.log(np.full((4, 3), 0.3))
    ids[2], values[2] = 1, 5.0  # a number twice, and no probabilities
    found = xent.evaluate(TopK(ids, values, 9), np.zeros(4, int), mask=np.arange(4) != 2, kind="log_probabilities")

    assert found.counted == 3 and found.mean_loss == pytest.approx(-np.log(0.3))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"mask": np.ones((BATCH, TOKENS))}, TypeError, r"`mask` must be true and false, or 1 and 0, .*astype\(bool\)"),
        (
            {"mask": np.ones(TOKENS, bool)},
            ValueError,
            r"`mask` must have shape \(13, 7\), .* or \(13,\), one for each seq",
        ),
        ({"clusters": np.array(3)}, ValueError, r"`clusters` must have shape \(13, 7\)"),
    ],
)
def test_keys_that_fit_no_sequence_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        xent.evaluate(LOGITS, LABELS, **given)


def test_the_command_takes_a_mask_and_keys_of_sequences(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, array in {"x": LOGITS, "y": LABELS, "m": MASK, "c": KEYS["clusters"]}.items():
        np.save(f"{name}.npy", array)
    command = ["evaluate", "x.npy", "y.npy", "--mask", "m.npy", "--clusters", "c.npy", "--json", "-q"]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    document = json.loads(result.stdout)

    expected = xent.evaluate(LOGITS, LABELS, mask=MASK, clusters=KEYS["clusters"])
    assert document["metrics"]["loss"]["stderr"] == expected.standard_error
    assert document["counts"]["ignored"] == (~MASK).sum() and document["inputs"]["mask"]["shape"] == [BATCH, TOKENS]
    both = CliRunner().invoke(main, ["compare", "x.npy", "x.npy", "y.npy", "--mask", "m.npy", "--json", "-q"])
    assert json.loads(both.stdout)["difference"]["n"] == MASK.sum()
