"""The tables of an evaluation as Parquet files: typed, complete, and there whole or not at all."""

import math
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pages import evaluated, hostile_slices, random_set

from xent.evaluation.report import parquet
from xent.evaluation.report.parquet import NAMES, tables_path, write_tables
from xent.evaluation.report.running import report_of
from xent.evaluation.report.tables import evaluation_tables

ROWS = 507
SHARES = ("confidence", "accuracy", "accuracy_low", "accuracy_high")
ASKED_FOR = {"confusion": True, "auc": True, "calibration": True, "classwise": True}
SCHEMAS = {
    "metrics": {"metric": "string", "value": "double", "standard_error": "double", "unit": "string", "rows": "int64"},
    "counts": {"what": "string", "count": "int64", "first_row": "int64"},
    "classes": {
        "class": "int64",
        "mean_loss_nats": "double",
        "standard_error_nats": "double",
        "degrees_of_freedom": "int64",
        "recall": "double",
        "recall_error": "double",
        "rows": "int64",
    },
    "slices": {
        "slice": "string",
        "mean_loss_nats": "double",
        "standard_error_nats": "double",
        "degrees_of_freedom": "int64",
        "accuracy": "double",
        "accuracy_error": "double",
        "rows": "int64",
        **dict.fromkeys(("brier", "p_value", "adjusted_p_value", "calibration_error", "noise_floor"), "double"),
    },
    "scores": {
        "class": "int64",
        **dict.fromkeys(("precision", "recall", "f1"), "double"),
        **dict.fromkeys(("rows", "predicted_rows"), "int64"),
    },
    "confusion": dict.fromkeys(("label", "predicted", "rows"), "int64"),
    "ranking": {
        **dict.fromkeys(("class", "positives", "negatives"), "int64"),
        **dict.fromkeys(("auc", "average_precision", "ks"), "double"),
        **dict.fromkeys(("auc_bound", "average_precision_bound", "ks_bound"), "double"),
    },
    "gains": {"class": "int64", **dict.fromkeys(("share", "captured", "lift"), "double")},
    "reliability": {"low": "double", "high": "double", "rows": "int64", **dict.fromkeys(SHARES, "double")},
    "equal_mass": dict.fromkeys(("low", "high", "share", *SHARES), "double"),
    "calibration": {
        "class": "int64",
        **dict.fromkeys(("error", "debiased_error", "noise_floor"), "double"),
        **dict.fromkeys(("reliability", "resolution", "uncertainty"), "double"),
    },
    "histogram": {"low_nats": "double", "high_nats": "double", "rows": "int64"},
    "positions": {"first_row": "int64", "stop_row": "int64", "rows": "int64", "mean_loss_nats": "double"},
    "worst": {"row": "int64", "label": "int64", "predicted": "int64", "loss_nats": "double"},
    "worst_clusters": {"cluster": "int64", "mean_loss_nats": "double", "perplexity": "double", "weight": "double"},
}


def written(tmp_path, logits, labels, **options):
    """An evaluation, and its tables by their names."""
    evaluation, run = evaluated(logits, labels, **options)
    report_of(evaluation, run).to_parquet(tmp_path / "tables")
    return evaluation, {file.stem: pq.read_table(file) for file in (tmp_path / "tables").iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    logits, labels = random_set()
    slices = hostile_slices(ROWS)
    folder, keys = tmp_path_factory.mktemp("whole"), {"slices": slices, "clusters": np.arange(ROWS) // 5}
    return written(folder, logits, labels, by_class=True, top_k=(3,), **keys, **ASKED_FOR)


def rows_of(table):
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def test_there_is_a_table_of_each_name(whole):
    assert set(whole[1]) == set(NAMES) == set(SCHEMAS)


@pytest.mark.parametrize("name", NAMES)
def test_columns_are_typed_and_bear_their_units(whole, name):
    schema = whole[1][name].schema

    assert {field.name: str(field.type) for field in schema} == SCHEMAS[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_set_without_rows_has_tables_of_the_same_types(tmp_path, name):
    _, tables = written(tmp_path, np.zeros((0, 4)), np.zeros(0, int), **ASKED_FOR)

    if name in ("classes", "slices", "calibration", "worst_clusters"):
        assert name not in tables
    else:
        assert {field.name: str(field.type) for field in tables[name].schema} == SCHEMAS[name]


@pytest.mark.parametrize("name", ["reliability", "histogram", "positions", "worst"])
def test_rows_are_those_of_the_evaluation(whole, name):
    evaluation, tables = whole

    assert rows_of(tables[name]) == [tuple(row) for row in getattr(evaluation, name)]


@pytest.mark.parametrize("name", ["classes", "slices"])
def test_groups_are_those_of_the_evaluation(whole, name):
    evaluation, tables = whole

    assert rows_of(tables[name]) == [
        (key, mean, error, degrees, right, right_error, counted, *chances[1:])
        for key, (counted, mean, error, right, degrees, right_error, *chances) in getattr(evaluation, name).items()
    ]


def test_metrics_are_those_of_the_evaluation(whole):
    evaluation, tables = whole
    rows = {name: rest for name, *rest in rows_of(tables["metrics"])}

    for name, metric in evaluation.metrics.items():
        value, error, _, n = rows[name]
        assert (value, error, n) == (metric.value, metric.stderr, metric.n)
    assert rows["calibration error"] == [evaluation.calibration_error, None, "", ROWS]
    assert rows["prior loss"] == [evaluation.prior_loss, None, "nats", ROWS]
    assert "bits per byte" not in rows and "temperature" not in rows


def test_metrics_that_are_asked_for_are_there(tmp_path):
    logits, labels = random_set()
    evaluation, tables = written(tmp_path, logits, labels, fit_temperature=True, classwise=True, predicted_bytes=99)
    rows = {name: value for name, value, *_ in rows_of(tables["metrics"])}

    assert rows["temperature"] == evaluation.temperature.value
    assert rows["loss at the temperature"] == evaluation.temperature.mean_loss
    assert rows["calibration error at the temperature"] == evaluation.temperature.calibration_error
    assert rows["classwise calibration error"] == evaluation.classwise_calibration_error
    assert rows["bits per byte"] == evaluation.bits_per_byte


def test_counts_say_the_first_row_or_that_it_is_not_known(tmp_path):
    logits, labels = random_set()
    labels[4], labels[9] = -1, 99
    logits[12] = np.nan
    _, tables = written(
        tmp_path, logits, labels, ignore_index=(-1,), on_bad_label="skip", clusters=np.arange(ROWS) // 50
    )
    rows = {what: (count, first) for what, count, first in rows_of(tables["counts"])}

    assert (rows["rows"], rows["counted"], rows["ignored"]) == ((ROWS, None), (ROWS - 2, None), (1, None))
    assert (rows["of a bad label"], rows["counted, loss NaN"]) == ((1, 9), (1, 12))
    assert rows["clusters"] == (11, None)


def test_what_is_not_finite_stays_so(tmp_path):
    logits, labels = random_set()
    logits[3] = np.nan
    logits[8, labels[8]] = -1e6
    _, tables = written(tmp_path, logits, labels)

    assert math.isnan(tables["metrics"]["value"][0].as_py())
    assert math.isnan(tables["positions"]["mean_loss_nats"][0].as_py())
    assert tables["histogram"]["high_nats"][-1].as_py() == math.inf
    assert tables["positions"]["mean_loss_nats"].null_count == 0


def test_a_class_that_is_not_known_is_null(tmp_path):
    da = pytest.importorskip("dask.array")
    logits, labels = random_set()
    _, tables = written(tmp_path, da.from_array(logits, chunks=(100, 3)), labels)

    assert tables["worst"]["predicted"].to_pylist() == [None] * 10


@pytest.mark.parametrize(
    "slices, expected",
    [
        (np.asarray([-5, 2**40]), [-5, 2**40]),
        (np.asarray(["b", "a"]), ["a", "b"]),
        (np.asarray([b"a", b"\xff"]), ["\\xff", "a"]),
        (np.asarray([False, True]), ["False", "True"]),
        (np.asarray(["\ud800", "é"]), ["é", "\\ud800"]),
    ],
)
def test_names_of_slices_are_whole_numbers_or_text(tmp_path, slices, expected):
    logits, labels = random_set(rows=20)
    _, tables = written(tmp_path, logits, labels, slices=slices[np.arange(20) % 2])

    assert tables["slices"]["slice"].to_pylist() == expected
    assert tables["slices"].schema.field("slice").type == (pa.int64() if expected[0] == -5 else pa.string())


def test_a_folder_of_tables_is_replaced_whole(tmp_path):
    logits, labels = random_set()
    written(tmp_path, logits, labels, by_class=True, **ASKED_FOR)

    with pytest.raises(FileExistsError, match="`tables` must be a new file"):
        tables_path(tmp_path / "tables")
    report_of(*evaluated(logits, labels)).to_parquet(tmp_path / "tables", overwrite=True)

    assert "classes.parquet" not in [file.name for file in (tmp_path / "tables").iterdir()]
    assert [file.name for file in tmp_path.iterdir()] == ["tables"]


def test_what_is_not_a_folder_of_tables_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("")
    (tmp_path / "thesis" / "metrics.parquet").write_text("")
    (tmp_path / "notes").write_text("")

    for name, holds in (("thesis", "chapter.tex"), ("notes", "a file")):
        with pytest.raises(ValueError, match=rf"`--tables` must be a folder of nothing but.*{holds}"):
            tables_path(tmp_path / name, overwrite=True, argument="--tables")


def test_tables_that_fail_leave_those_that_are_there(tmp_path, monkeypatch):
    logits, labels = random_set()
    evaluation, before = written(tmp_path, logits, labels)

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(parquet, "write_table", fail)
    with pytest.raises(OSError, match="the disk is full"):
        write_tables(evaluation_tables(evaluation), tmp_path / "tables")

    assert [file.name for file in tmp_path.iterdir()] == ["tables"]
    assert {file.stem for file in (tmp_path / "tables").iterdir()} == set(before)


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)

    with pytest.raises(ModuleNotFoundError, match=r"a Parquet table needs pyarrow.parquet.*xent-array\[parquet\]"):
        tables_path(tmp_path / "tables")
