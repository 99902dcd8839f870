"""Which class was predicted for which label, and the scores that follow, beside scikit-learn's."""

import json
import math
import re
from collections import Counter

import dask.array as da
import numpy as np
import pytest
import sklearn.metrics
from click.testing import CliRunner
from pages import read

import xent
from xent.cli.commands import main
from xent.evaluation.sources.topk import TopK

ROWS, CLASSES = 507, 7
RNG = np.random.default_rng(11)
LABELS = RNG.integers(0, CLASSES, ROWS)
# multiples of a half: many rows have several highest logits
LOGITS = np.round(2 * (RNG.normal(size=(ROWS, CLASSES)) + 1.5 * np.eye(CLASSES)[LABELS])) / 2
PREDICTED = LOGITS.argmax(axis=1)
WEIGHTS = RNG.random(ROWS) * 3
RARE = np.where(LABELS == 6, 0, LABELS)  # class 6 is predicted, and no label


def confusion(logits=LOGITS, labels=LABELS, **options):
    return xent.evaluate(logits, labels, confusion=True, **options).confusion


@pytest.mark.parametrize("labels", [LABELS, RARE], ids=["all", "rare"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_every_score_is_scikit_learns(labels, weights):
    found = confusion(labels=labels, weights=weights)
    each = {"y_true": labels, "y_pred": PREDICTED, "sample_weight": weights}
    by_class = sklearn.metrics.precision_recall_fscore_support(**each, zero_division=np.nan)
    scores = np.asarray(list(found.classes.values()))

    np.testing.assert_allclose(scores[:, 2:].T, by_class[:3], rtol=1e-14)
    for mean in ("macro", "micro", "weighted"):
        expected = sklearn.metrics.precision_recall_fscore_support(**each, average=mean, zero_division=0)
        np.testing.assert_allclose(getattr(found, mean), expected[:3], rtol=1e-14)
    assert found.kappa == pytest.approx(
        sklearn.metrics.cohen_kappa_score(labels, PREDICTED, sample_weight=weights), rel=1e-13
    )
    assert found.mcc == pytest.approx(sklearn.metrics.matthews_corrcoef(**each), rel=1e-13)
    recalls = [scores.recall for scores in found.classes.values() if scores.label_rows]
    assert found.balanced_accuracy == pytest.approx(np.mean(recalls), rel=1e-15)


def test_the_balanced_accuracy_is_scikit_learns():
    assert confusion().balanced_accuracy == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(LABELS, PREDICTED), rel=1e-15
    )


def test_the_cells_count_each_pair_and_what_it_weighs():
    found = confusion(weights=WEIGHTS)
    pairs = Counter(zip(LABELS.tolist(), PREDICTED.tolist(), strict=True))

    assert {(cell.label, cell.predicted): cell.rows for cell in found.cells} == pairs
    for cell in found.cells:
        of_pair = (cell.label == LABELS) & (cell.predicted == PREDICTED)
        assert cell.weight == math.fsum(WEIGHTS[of_pair])
    assert {cell.weight for cell in confusion().cells} == {None}


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_no_chunking_shows(weights):
    whole = xent.evaluate(LOGITS, LABELS, confusion=True, weights=weights)
    cut = xent.evaluate(LOGITS, LABELS, confusion=True, weights=weights, chunk_bytes=777)

    assert cut == whole and cut.run.chunks > 30


def test_what_is_right_is_the_accuracy():
    found = xent.evaluate(LOGITS, LABELS, confusion=True)

    assert sum(cell.rows for cell in found.confusion.cells if cell.label == cell.predicted) == np.sum(
        PREDICTED == LABELS
    )
    assert found.confusion.micro.recall == found.accuracy


def test_a_row_without_a_highest_class_is_predicted_as_none():
    spoilt = LOGITS.copy()
    spoilt[3, 2], spoilt[5] = np.nan, -np.inf
    found = confusion(spoilt)
    none = [cell for cell in found.cells if cell.predicted is None]

    assert sum(cell.rows for cell in none) == 2 and {cell.label for cell in none} == {*LABELS[[3, 5]].tolist()}
    assert None not in found.classes and found.classes[int(LABELS[3])].label_rows == np.sum(LABELS[3] == LABELS)
    assert sum(scores.predicted_rows for scores in found.classes.values()) == ROWS - 2
    kept = np.delete(np.arange(ROWS), [3, 5])
    right = np.sum(PREDICTED[kept] == LABELS[kept])
    assert found.micro == pytest.approx((right / (ROWS - 2), right / ROWS, 2 * right / (2 * ROWS - 2)), rel=1e-15)


def test_rows_that_do_not_count_are_in_no_cell():
    labels = LABELS.copy()
    labels[7], labels[9] = -100, 99
    found = confusion(labels=labels, ignore_index=-100, on_bad_label="skip", weights=np.arange(ROWS) != 11)

    assert sum(cell.rows for cell in found.cells) == ROWS - 3


def test_the_first_of_equal_predictions_is_the_predicted_class():
    found = confusion(np.zeros((2, 3)), np.asarray([0, 2]))

    assert [(cell.label, cell.predicted, cell.rows) for cell in found.cells] == [(0, 0, 1), (2, 0, 1)]


def test_a_score_of_nothing_over_nothing_is_nan_and_counts_as_nothing_in_a_mean():
    found = confusion(2 * np.eye(3)[[0, 0, 1]], np.asarray([0, 2, 1]))

    assert math.isnan(found.classes[2].precision) and found.classes[2].recall == found.classes[2].f1 == 0
    assert found.macro.precision == (0.5 + 1) / 3
    alone = confusion(2 * np.eye(3)[[0, 0]], np.asarray([0, 0]))
    assert math.isnan(alone.kappa) and math.isnan(alone.mcc) and alone.macro.f1 == 1
    nothing = confusion(np.zeros((0, 3)), np.zeros(0, int))
    assert nothing.cells == () and math.isnan(nothing.macro.f1) and math.isnan(nothing.weighted.f1)


def test_a_correlation_may_be_negative():
    wrong = confusion(2 * np.eye(2)[[1, 1, 0, 0]], np.asarray([0, 0, 1, 1]))

    assert wrong.mcc == wrong.kappa == -1
    chance = confusion(2 * np.eye(2)[[0, 1, 0, 1]], np.asarray([0, 0, 1, 1]))
    assert (str(chance.mcc), str(chance.kappa)) == ("0.0", "0.0")


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(lambda: (scipy_softmax(), LABELS, {"kind": "probabilities"}), id="probabilities"),
        pytest.param(lambda: (da.from_array(LOGITS, chunks=(100, CLASSES)), LABELS, {}), id="Dask"),
        pytest.param(lambda: (iter([(LOGITS[:99], LABELS[:99]), (LOGITS[99:], LABELS[99:])]), None, {}), id="stream"),
        pytest.param(lambda: (LOGITS, np.eye(CLASSES)[LABELS], {}), id="one-hot labels"),
        pytest.param(lambda: (LOGITS @ np.linalg.inv(HEAD).T, LABELS, {"classifier": HEAD}), id="hidden"),
        pytest.param(lambda: (TopK(*largest(CLASSES), CLASSES, "error"), LABELS, {}), id="top-k"),
    ],
)
def test_every_sort_of_set_has_the_same_confusion(given):
    predictions, labels, options = given()

    assert confusion(predictions, labels, **options) == confusion()


HEAD = np.eye(CLASSES)[::-1] * 2.0  # powers of two: no product is rounded


def scipy_softmax():
    p = np.exp2(LOGITS * 2)
    return p / p.sum(axis=1, keepdims=True)


def largest(k):
    order = np.argsort(-LOGITS, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(LOGITS - np.logaddexp.reduce(LOGITS, axis=1)[:, None], order, axis=1)


def test_a_class_beyond_the_ids_is_predicted_where_it_comes_first():
    quarter = np.log(np.full((2, 2), 0.25))
    sets = TopK(np.asarray([[1, 2], [0, 3]]), quarter, 4, "uniform")
    found = confusion(sets, np.asarray([1, 3]))

    assert [(cell.label, cell.predicted) for cell in found.cells] == [(1, 0), (3, 0)]
    assert found.micro.recall == xent.evaluate(sets, np.asarray([1, 3])).accuracy == 0


def test_names_stand_in_place_of_numbers():
    names = [f"class {c}" for c in range(CLASSES)]
    found = confusion(class_names=names)

    assert list(found.classes) == names and found.cells[0][:2] == ("class 0", "class 0")


def test_classes_in_several_chunks_are_refused_with_a_remedy():
    cut = da.from_array(LOGITS, chunks=(100, 3))
    with pytest.raises(ValueError, match=r"in one piece.*rechunk\(\{1: -1\}\).*leave out confusion"):
        confusion(cut)

    assert confusion(cut.rechunk({1: -1})) == confusion()


def test_the_terminal_has_the_square_of_few_classes():
    found = str(xent.evaluate(np.asarray([[2.0, 0], [2.0, 0], [0, 2.0]]), np.asarray([0, 1, 1]), confusion=True))

    assert ["label", "as 0", "as 1"] in cells_of(found)
    assert ["0", "1", "0"] in cells_of(found) and ["1", "1", "1"] in cells_of(found)


def cells_of(text):
    """The cells of the lines of the tables in a text."""
    return [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in text.splitlines()]


def test_every_output_has_the_scores(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    np.save(tmp_path / "x.npy", LOGITS)
    np.save(tmp_path / "y.npy", LABELS)
    arguments = ["evaluate", str(tmp_path / "x.npy"), str(tmp_path / "y.npy"), "--confusion", "-q"]
    table = CliRunner().invoke(main, [*arguments, "--tables", str(tmp_path / "tables")])
    document = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)["confusion"]
    expected = confusion()

    assert "macro average" in table.stdout and f"Cohen's kappa {expected.kappa:.4f}" in table.stdout
    errors = Counter((y, c) for y, c in zip(LABELS.tolist(), PREDICTED.tolist(), strict=True) if y != c)
    (label, predicted), count = min(errors.items(), key=lambda item: (-item[1], item[0]))
    assert f"Most often mistaken: {label} as {predicted} ({count})" in table.stdout
    assert document["kappa"] == expected.kappa and document["macro"]["f1"] == expected.macro.f1
    assert document["classes"]["3"]["recall"] == expected.classes[3].recall
    assert sum(cell["rows"] for cell in document["cells"]) == ROWS
    scores, cells, metrics = (
        pyarrow.parquet.read_table(tmp_path / "tables" / f"{name}.parquet").to_pydict()
        for name in ("scores", "confusion", "metrics")
    )
    assert scores["f1"] == [one.f1 for one in expected.classes.values()]
    assert sum(cells["rows"]) == ROWS and cells["rows"] == sorted(cells["rows"], reverse=True)
    assert dict(zip(metrics["metric"], metrics["value"], strict=True))["macro F1"] == expected.macro.f1


def test_the_page_has_the_scores_and_the_square_of_few_classes():
    pytest.importorskip("matplotlib")
    spoilt = LOGITS.copy()
    spoilt[3] = np.nan
    page = xent.evaluate(spoilt, LABELS, confusion=True)._repr_html_()
    kept = np.delete(np.arange(ROWS), 3)
    expected = sklearn.metrics.confusion_matrix(LABELS[kept], PREDICTED[kept])
    square = [
        [int(cell.text) for cell in row[1:]]
        for row in read(f"<html>{page}</html>").table("Rows by label and predicted class")
    ]

    assert "The scores of all 7 classes" in page and "Matthews correlation" in page
    assert [row[:-1] for row in square] == expected.tolist()
    assert [row[-1] for row in square] == [int(LABELS[3] == c) for c in range(CLASSES)]
    many = xent.evaluate(2 * np.eye(21), np.arange(21), confusion=True)
    assert "Rows by label" in page and "Rows by label" not in many._repr_html_()
    assert "Confusion" not in xent.evaluate(LOGITS, LABELS)._repr_html_()


def test_a_class_has_a_recall_and_no_accuracy():
    found = xent.evaluate(LOGITS, LABELS, by_class=True)
    document = found.to_dict()["classes"]["2"]

    assert found.classes[2].recall == np.mean(PREDICTED[LABELS == 2] == 2) == document["recall"]
    assert "accuracy" not in document and "recall" in str(found)
