"""Sequences: keys of a document for all of its tokens, and masks."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import xent
from xent.cli import main
from xent.evaluation.sources import TopK
from xent.evaluation.sources.messages import MalformedError

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


def documents():
    """Losses of rows, their documents, and weights."""
    keys = np.array(["a", "b", "ü", "d e"])[np.arange(91) // 23]
    return LOGITS.reshape(91, CLASSES), LABELS.ravel(), keys, RNG.integers(0, 4, 91) * 0.7


@pytest.mark.parametrize("weighted", [False, True])
def test_the_losses_of_clusters_are_the_means_of_each(monkeypatch, weighted):
    logits, labels, keys, weights = documents()
    options = {"weights": weights} if weighted else {}
    losses, own = xent.sparse_cross_entropy(logits, labels).astype(float), weights if weighted else np.ones(91)
    groups = {key: np.flatnonzero(keys == key) for key in ("a", "b", "d e", "ü")}
    means = {key: np.average(losses[rows], weights=own[rows]) for key, rows in groups.items()}
    whole = xent.evaluate(logits, labels, clusters=keys, **options)
    found = whole.cluster_losses

    assert found.mean_loss == pytest.approx(np.mean([*means.values()]), rel=1e-14)
    assert found.standard_error == pytest.approx(np.std([*means.values()], ddof=1) / 2, rel=1e-12)
    assert found.perplexity == pytest.approx(np.exp(found.mean_loss), rel=1e-14)
    order = sorted(means, key=lambda key: -means[key])
    assert [each.cluster for each in found.worst] == order
    assert [each[1:] for each in found.worst] == [
        pytest.approx((own[groups[key]].sum(), means[key], np.exp(means[key])), rel=1e-13) for key in order
    ]
    assert sum(each.clusters for each in found.histogram) == 4
    monkeypatch.setattr("xent.evaluation.statistics.cluster_sums.KEPT", 1)
    assert xent.evaluate(logits, labels, clusters=keys, chunk_bytes=99, **options) == whole


def test_a_loss_that_is_no_number_is_told_of_its_cluster():
    logits, labels, keys, _ = documents()
    logits = logits.copy()
    logits[50, labels[50]] = -np.inf
    found = xent.evaluate(logits, labels, clusters=keys).cluster_losses

    assert np.isnan(found.mean_loss) and found.worst[0].cluster == "ü" and np.isnan(found.worst[0].mean_loss)
    assert sum(each.clusters for each in found.histogram) == 3
    assert xent.evaluate(logits, labels).cluster_losses is None


def test_the_losses_of_clusters_are_in_everything_that_is_shown(tmp_path):
    logits, labels, keys, _ = documents()
    found = xent.evaluate(logits, labels, clusters=keys)
    losses = found.cluster_losses
    document = json.loads(found.to_json())["cluster_losses"]

    assert (document["mean_loss"], document["perplexity"]) == (losses.mean_loss, losses.perplexity)
    assert document["worst"][0] == losses.worst[0]._asdict()
    assert f"a perplexity of {losses.perplexity:.6g}" in str(found)
    found.to_html(tmp_path / "page.html")
    assert "Worst clusters" in (tmp_path / "page.html").read_text()
    found.to_parquet(tmp_path / "tables")
    table = pq.read_table(tmp_path / "tables" / "worst_clusters.parquet").to_pylist()
    assert [row["cluster"] for row in table] == [each.cluster for each in losses.worst]


BYTES = RNG.integers(0, 9, (BATCH, TOKENS))


@pytest.mark.parametrize("weighted", [False, True])
def test_bits_per_byte_are_of_slices_too_where_the_bytes_of_rows_are_known(tmp_path, weighted):
    weights = RNG.integers(0, 4, LABELS.shape) * 0.7 if weighted else np.ones(LABELS.shape)
    keys = {"slices": KEYS["slices"], "mask": MASK, "weights": weights if weighted else None}
    found = xent.evaluate(LOGITS, LABELS, predicted_bytes=BYTES, **keys)
    bits = xent.sparse_cross_entropy(LOGITS, LABELS).astype(float) / np.log(2) * weights * MASK

    assert found.bits_per_byte == pytest.approx(bits.sum() / (BYTES * weights * MASK).sum(), rel=1e-13)
    for name, group in found.slices.items():
        own = np.asarray(KEYS["slices"] == name)
        assert group.bits_per_byte == pytest.approx(bits[own].sum() / (BYTES * weights * MASK)[own].sum(), rel=1e-13)
    assert xent.evaluate(LOGITS, LABELS, predicted_bytes=BYTES, chunk_bytes=60, **keys) == found
    np.save(tmp_path / "x.npy", LOGITS)
    np.save(tmp_path / "y.npy", LABELS)
    np.save(tmp_path / "bytes.npy", BYTES)
    stored = xent.evaluate(tmp_path / "x.npy", tmp_path / "y.npy", predicted_bytes=tmp_path / "bytes.npy", **keys)
    assert stored == found
    if not weighted:
        whole = xent.evaluate(LOGITS, LABELS, predicted_bytes=int((BYTES * MASK).sum()), mask=MASK)
        assert found.bits_per_byte == pytest.approx(whole.bits_per_byte, rel=1e-15)


def test_bits_per_byte_of_slices_are_in_everything_that_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, array in {"x": LOGITS, "y": LABELS, "b": BYTES, "s": KEYS["slices"]}.items():
        np.save(f"{name}.npy", array)
    command = ["evaluate", "x.npy", "y.npy", "--slices", "s.npy", "--predicted-bytes", "b.npy", "-q"]
    command += ["--fail-if", "slices.de.bits_per_byte>99", "--fail-if", "bits_per_byte>99"]
    plain = CliRunner().invoke(main, command, catch_exceptions=False)
    document = json.loads(CliRunner().invoke(main, [*command, "--json"], catch_exceptions=False).stdout)
    found = xent.evaluate(LOGITS, LABELS, slices=KEYS["slices"], predicted_bytes=BYTES)

    assert plain.exit_code == 0 and "bits/byte" in plain.stdout
    for name, group in found.slices.items():
        assert document["slices"][name]["bits_per_byte"] == group.bits_per_byte
        assert f"{group.bits_per_byte:.4f}" in plain.stdout
    found.to_parquet("tables")
    assert pq.read_table("tables/slices.parquet")["bits_per_byte"].to_pylist() == [
        each.bits_per_byte for each in found.slices.values()
    ]
    failed = CliRunner().invoke(main, ["evaluate", "x.npy", "y.npy", "--fail-if", "bits_per_byte>1"])
    assert failed.exit_code == 2
    assert CliRunner().invoke(main, ["evaluate", "x.npy", "y.npy", "--predicted-bytes", "0"]).exit_code == 2
    assert CliRunner().invoke(main, ["evaluate", "x.npy", "y.npy", "--predicted-bytes", "9", "-q"]).exit_code == 0


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            BYTES.astype(float),
            TypeError,
            r"`predicted_bytes` must be integers of shape \(13, 7\), the bytes of each row",
        ),
        (BYTES[:, 0], TypeError, r"`predicted_bytes` must be integers of shape \(13, 7\)"),
        (BYTES - 9, MalformedError, r"`predicted_bytes` must be at least 0, got -\d in row 0"),
        ([3, 4], TypeError, r"`predicted_bytes` must be a whole number, at least 1, got \[3, 4\]"),
    ],
)
def test_bytes_that_are_none_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        xent.evaluate(LOGITS, LABELS, predicted_bytes=given)
