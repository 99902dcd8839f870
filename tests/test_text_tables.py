"""CSV and JSON lines: their numbers beside scikit-learn's, their columns, and lines that are no rows."""

import csv
import gzip
import io
import json
import re

import cloudpickle
import numpy as np
import pytest
from click.testing import CliRunner
from scipy.special import softmax
from sklearn.metrics import log_loss

from xent.cli import main
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.evaluations import evaluate
from xent.evaluation.options import Options
from xent.evaluation.sources import lines, text_tables
from xent.evaluation.sources.messages import MalformedError, ReadError, SeveralArrays
from xent.evaluation.sources.opening import open_source

ROWS, CLASSES = 507, 7


@pytest.fixture
def logits():
    return 5 * np.random.default_rng(2).normal(size=(ROWS, CLASSES))


@pytest.fixture
def labels():
    return np.random.default_rng(3).integers(0, CLASSES, ROWS)


@pytest.fixture
def loss(logits, labels):
    return log_loss(labels, softmax(logits, axis=1), labels=range(CLASSES))


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of some lines, and several states of a decompressor."""
    monkeypatch.setattr(lines, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(lines, "PIECE_LINES", 1)
    monkeypatch.setattr(lines, "STATES_APART", 5000)
    lines.line_index.cache_clear()


def delimited(logits, labels, delimiter=",", ends="\r\n", notes=None):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=ends)
    writer.writerow(["note", *(f"p_{i}" for i in range(CLASSES)), "label", "lang"])
    for i, (row, label) in enumerate(zip(logits.tolist(), labels.tolist(), strict=True)):
        note = notes[i] if notes else f"row {i}"
        writer.writerow([note, *map(repr, row), label, ["de", "größer"][label % 2]])
    return stream.getvalue().encode()


def json_lines(logits, labels):
    rows = zip(logits.tolist(), labels.tolist(), strict=True)
    return b"".join(
        json.dumps({"id": i, "logits": row, "label": label, "lang": ["de", "größer"][label % 2]}).encode() + b"\n"
        for i, (row, label) in enumerate(rows)
    )


def write(folder, name, data):
    path = folder / name
    path.write_bytes(
        gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :]) if name[-3:] == ".gz" else data
    )
    return path


KINDS = [".csv", ".tsv", ".csv.gz", ".jsonl", ".ndjson", ".jsonl.gz"]


def written(folder, suffix, logits, labels):
    """The paths of predictions and of labels, and of slices."""
    is_json = "json" in suffix
    text = json_lines(logits, labels) if is_json else delimited(logits, labels, "\t" if "tsv" in suffix else ",")
    path = write(folder, f"x{suffix}", text)
    return f"{path}#{'logits' if is_json else 'p_*'}", f"{path}#label", f"{path}#lang"


@pytest.mark.parametrize("suffix", KINDS)
def test_the_loss_is_that_of_scikit_learn(tmp_path, suffix, logits, labels, loss):
    predictions, truth, slices = written(tmp_path, suffix, logits, labels)
    made = evaluate(predictions, truth, slices=slices)

    assert made.mean_loss == pytest.approx(loss, rel=1e-12)
    assert made == evaluate(logits, labels, slices=np.array(["de", "größer"])[labels % 2])


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl", ".jsonl.gz"])
@pytest.mark.parametrize("chunk_bytes", [1, 56 * 61])
def test_any_rows_are_read_from_any_pieces(tmp_path, suffix, logits, labels, chunk_bytes, small_pieces):
    predictions, truth, slices = written(tmp_path, suffix, logits, labels)
    source = open_source(predictions, "predictions")

    assert len(lines.line_index(source.file, source.stamp, quoted="csv" in suffix).offsets) > 50
    for start, stop in ((0, 1), (59, 61), (3, 400), (506, 507), (0, ROWS)):
        np.testing.assert_array_equal(source.read(start, stop), logits[start:stop])
    if chunk_bytes > 1:
        made = evaluate(predictions, truth, slices=slices, clusters=truth, chunk_bytes=chunk_bytes)
        assert made == evaluate(logits, labels, slices=np.array(["de", "größer"])[labels % 2], clusters=labels)


def test_a_gzipped_file_is_read_on_from_near_the_rows(tmp_path, logits, labels, small_pieces, monkeypatch):
    source = open_source(written(tmp_path, ".csv.gz", logits, labels)[0], "predictions")
    read, inflated = [], lines.Inflated.more
    monkeypatch.setattr(lines.Inflated, "more", lambda text: read.append(text) or inflated(text))
    source.read(500, 507)

    assert len(lines.line_index(source.file, source.stamp, quoted=True).states) > 1 and len(read) <= 3


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl"])
def test_no_graph_holds_data(tmp_path, suffix, logits, labels):
    planned = plan(*written(tmp_path, suffix, logits, labels)[:2], Options(chunk_bytes=56 * 10))

    assert len(cloudpickle.dumps(planned.work().graph()[0])) <= 10_000 + 500 * planned.tasks


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\n\n", "\r\n\r\n"])
def test_lines_may_end_otherwise_and_be_blank_or_have_no_end(tmp_path, logits, labels, loss, ends):
    for data in (delimited(logits, labels, ends=ends), delimited(logits, labels, ends=ends).rstrip(b"\r\n")):
        path = write(tmp_path, "x.csv", data)

        assert evaluate(f"{path}#p_*", f"{path}#label").mean_loss == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("note", ["one, two", "two\nlines", 'said "so"\r\n\r\nonce', '"', "#", ""])
def test_fields_may_be_quoted_and_hold_line_feeds(tmp_path, logits, labels, loss, note, small_pieces):
    path = write(tmp_path, "x.csv", delimited(logits, labels, notes=[note, "plain"] * ROWS))

    assert evaluate(f"{path}#p_*", f"{path}#label").mean_loss == pytest.approx(loss, rel=1e-12)


def test_a_quotation_mark_that_is_never_closed_is_one_of_the_text(tmp_path):
    path = write(tmp_path, "x.csv", b'p_0,p_1,note\n0,1,5" pipe\n2,3,none\n')

    np.testing.assert_array_equal(open_source(f"{path}#p_*", "predictions").read(0, 2), [[0, 1], [2, 3]])


def test_quotation_marks_within_fields_are_refused_by_line(tmp_path):
    path = write(tmp_path, "x.csv", b'p_0,p_1,note\n0,1,5" pipe\n2,3,7" pipe\n4,5,none\n')

    with pytest.raises(
        ReadError, match=r"line 2 of .*x\.csv#p_\*, row 0, .*its quotation marks enclose no whole fields"
    ):
        evaluate(f"{path}#p_*", np.zeros(2, int))


def test_what_pandas_and_numpy_write_is_read(tmp_path, logits, labels):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(logits)
    frame.to_csv(tmp_path / "index.csv")
    frame.to_csv(tmp_path / "plain.csv", index=False)
    frame.assign(label=labels).to_json(tmp_path / "x.jsonl", orient="records", lines=True, double_precision=15)
    np.savetxt(tmp_path / "bare.csv", logits, delimiter=",", fmt="%.17g")
    np.savetxt(tmp_path / "y.csv", labels, fmt="%d")

    for path in ("index.csv#*", "plain.csv#*", "bare.csv"):
        assert evaluate(tmp_path / path, tmp_path / "y.csv") == evaluate(logits, labels), path
    made = evaluate(f"{tmp_path}/x.jsonl#*,!label", f"{tmp_path}/x.jsonl#label")
    assert made.mean_loss == pytest.approx(evaluate(logits, labels).mean_loss, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("0,1,2\n0.5,1,1\n", 1),
        ("0,1\n0.5,0.25\n", 1),
        ("0,1\n1,0\n", 2),
        ("1,2,3\n4,5,6\n", 2),
        ("a,b\n1,2\n", 1),
        ("0\n1\n", 2),
    ],
)
def test_a_first_line_of_numbers_is_a_row_unless_it_counts_the_columns(tmp_path, text, rows):
    assert open_source(f"{write(tmp_path, 'x.csv', text.encode())}#*", "predictions").shape[0] == rows


def test_numbers_that_are_not_finite_are_numbers_and_empty_ones_are_null(tmp_path):
    path = write(tmp_path, "x.csv", b"p_0,p_1\nnan,1\ninf,-inf\n1e400,2\nNA,1\n,1\n")
    source = open_source(f"{path}#p_*", "predictions")

    np.testing.assert_array_equal(source.read(0, 3), [[np.nan, 1], [np.inf, -np.inf], [np.inf, 2]])
    for row in (3, 4):
        with pytest.raises(ReadError, match=rf"row {row} is null"):
            source.read(row, row + 1)


def test_columns_are_named_where_there_are_several(tmp_path, logits, labels):
    path = write(tmp_path, "x.csv", delimited(logits, labels))

    with pytest.raises(SeveralArrays, match=r"must name one array of its file.*note, p_0, .*Pass .*x\.csv#"):
        open_source(path, "predictions")
    with pytest.raises(ValueError, match=r"must name one array.*got 'q_\*' of"):
        open_source(f"{path}#q_*", "predictions")
    with pytest.raises(TypeError, match=r"must be columns of one type of number.*got note of type string"):
        open_source(f"{path}#note", "predictions")


FLAWS = {
    ".csv": [
        (lambda line: line.replace(b",", b"", 1), r"Expected 10 columns, got 9"),
        (lambda line: re.sub(rb"^([^,]*),[^,]*", rb"\1,spam", line), r"invalid value 'spam'"),
        (lambda line: line + b",1", r"Expected 10 columns, got 11"),
    ],
    ".jsonl": [
        (lambda line: line[:-1], r"JSON parse error"),
        (lambda line: line.replace(b"[", b"{", 1), r"JSON parse error"),
        (lambda line: b"spam", r"JSON parse error"),
        (lambda line: re.sub(rb'"logits": \[', b'"logits": ["spam", ', line), r"JSON parse error"),
    ],
}


@pytest.mark.parametrize(("suffix", "spoil", "message"), [(s, *flaw) for s, flaws in FLAWS.items() for flaw in flaws])
def test_a_line_that_is_no_row_is_named_and_lost_alone(tmp_path, suffix, spoil, message, logits, labels, small_pieces):
    predictions, _, _ = written(tmp_path, suffix, logits, labels)
    path = tmp_path / f"x{suffix}"
    every = path.read_bytes().splitlines()
    row = 250
    at = row + (suffix == ".csv")
    every[at] = spoil(every[at])
    path.write_bytes(b"\n".join(every))

    with pytest.raises(ReadError, match=rf"line {at + 1} of .*x{suffix}#.*, row {row}, could not be read .*{message}"):
        evaluate(predictions, labels)
    made, kept = evaluate(predictions, labels, on_error="skip"), np.delete(np.arange(ROWS), row)
    assert (made.unread_rows, made.first_unread) == (1, row)
    assert made.mean_loss == evaluate(logits[kept], labels[kept]).mean_loss


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_many_lines_that_are_no_rows_are_lost_in_one_reading(tmp_path, suffix, logits, labels, monkeypatch):
    predictions, _, _ = written(tmp_path, suffix, logits, labels)
    path = tmp_path / f"x{suffix}"
    every = path.read_bytes().splitlines()
    for row in range(1, ROWS, 2):
        every[row + (suffix == ".csv")] = b"spam"
    path.write_bytes(b"\n".join([*every, b""]))
    calls, read = [], lines.row_places
    source = open_source(predictions, "predictions")
    monkeypatch.setattr(lines, "row_places", lambda *given, **named: calls.append(1) or read(*given, **named))
    made = evaluate(source, labels, on_error="skip")

    assert (made.unread_rows, made.first_unread, len(calls)) == (ROWS // 2, 1, 1)
    assert made.mean_loss == evaluate(logits[::2], labels[::2]).mean_loss


def test_a_list_of_another_length_and_a_field_that_is_not_there_are_named(tmp_path):
    path = write(tmp_path, "x.jsonl", b'{"x": [1, 2.5]}\n{"x": [1]}\n{"y": 1}\n{"x": [1, null]}\n')

    for row, flaw in ((1, "is a list of 1 where others have 2"), (2, "is null"), (3, "holds a null")):
        with pytest.raises(ReadError, match=rf"row {row} {flaw}"):
            open_source(f"{path}#x", "predictions").read(row, row + 1)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.csv", b"", r"must be a table of text where its name says so, got .*x\.csv \(it has no lines\)"),
        ("x.jsonl", b"\n\n", r"it has no lines"),
        ("x.csv", b"a,b\r1,2\r3,4", r"its lines end in a carriage return alone"),
        ("x.jsonl", b'{"x": 1}\n\n{"x": "a"}\n', r"line 3 of .*x\.jsonl, row 1, could not be read \(JSON parse error"),
        ("x.jsonl", b'{"x": \n', r"line 1 of .*x\.jsonl, row 0, could not be read \(JSON parse error"),
        ("x.csv.gz", b"", r"it has no lines"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, name, data, message):
    with pytest.raises(ReadError, match=message):
        open_source(f"{write(tmp_path, name, data)}#x", "predictions")


@pytest.mark.parametrize("number", ["0.5", "0,5"])
@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_another_delimiter_is_named_with_what_to_write(tmp_path, delimiter, number):
    path = tmp_path / "x.csv"
    rows = [delimiter.join(("p_0", "p_1", "label")), *[delimiter.join((number, "0", "1"))] * 20]
    path.write_text("\n".join(rows))

    with pytest.raises(MalformedError, match="between its fields, not a comma") as refused:
        evaluate(f"{path}#p_*", f"{path}#label")
    expression = re.search(r"Write it again: (.*)\.$", str(refused.value))[1]
    eval(expression, {"pandas": pytest.importorskip("pandas"), "path": path})  # xent's own words

    assert evaluate(f"{path}#p_*", f"{path}#label").mean_loss == pytest.approx(np.log1p(np.exp(0.5)))


def test_a_column_of_text_may_hold_semicolons(tmp_path):
    (tmp_path / "x.csv").write_text("label\na;b\na;c\n")

    assert open_source(tmp_path / "x.csv", "labels").read(0, 2).tolist() == ["a;b", "a;c"]


def test_one_array_of_json_is_named_with_what_to_write(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps([{"logits": [0.5, 0.0], "label": 1}] * 3, indent=1))

    with pytest.raises(MalformedError, match="one JSON array, not an object in each line") as refused:
        evaluate(f"{path}#logits", f"{path}#label")
    expression = re.search(r"Write it again: (.*)\.$", str(refused.value))[1]
    eval(expression, {"pandas": pytest.importorskip("pandas"), "path": path})  # xent's own words

    assert evaluate(f"{path}#logits", f"{path}#label").mean_loss == pytest.approx(np.log1p(np.exp(0.5)))


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
def test_text_in_utf_16_is_named(tmp_path, name):
    (tmp_path / name).write_text('{"p": 1}\n{"p": 2}\n', "utf-16")

    with pytest.raises(MalformedError, match="is text in UTF-16"):
        open_source(f"{tmp_path / name}#p", "labels")


def test_a_header_alone_is_a_set_of_no_rows(tmp_path):
    (tmp_path / "x.csv").write_text("p_0,p_1,label\n")

    assert evaluate(f"{tmp_path}/x.csv#p_*", f"{tmp_path}/x.csv#label").rows == 0


def test_a_line_without_an_end_is_refused_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST_LINE", 2000)
    monkeypatch.setattr(lines, "BLOCK_BYTES", 1000)
    path = write(tmp_path, "x.csv", b"p_0,p_1\n1,2\n" + b"7" * 9000)

    with pytest.raises(
        MalformedError, match=r"x\.csv has a line of more than 2,000 bytes, line 3\. Is it a file of text"
    ):
        open_source(path, "predictions")


@pytest.mark.parametrize("query", ["", "?signature=1.5"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv.gz", ".jsonl"])
def test_lines_at_a_url_are_read(tmp_path, suffix, query, logits, labels, loss, small_pieces):
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    names = [path.partition("#")[2] for path in written(tmp_path, suffix, logits, labels)]
    fsspec.filesystem("memory").pipe(f"/lines/x{suffix}{query}", (tmp_path / f"x{suffix}").read_bytes())
    predictions, truth, _ = (f"memory://lines/x{suffix}{query}#{name}" for name in names)

    # subtle: all who open a file of fsspec's memory share one position in it, as those of no server do
    made = evaluate(predictions, truth, chunk_bytes=56 * 100, scheduler="sync")

    assert made.mean_loss == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[: len(data) // 2], r"x\.csv\.gz is truncated: its compressed data has no end"),
        (lambda data: data[:-6] + b"\0" * 6, r"x\.csv\.gz is corrupt, or no gzipped file"),
        (lambda data: b"p_0,p_1\n1,2\n", r"x\.csv\.gz is corrupt, or no gzipped file"),
    ],
)
def test_a_damaged_gzipped_file_is_named(tmp_path, logits, labels, spoil, message):
    path = tmp_path / "x.csv.gz"
    path.write_bytes(spoil(gzip.compress(delimited(logits, labels))))

    with pytest.raises(ReadError, match=message):
        open_source(f"{path}#p_*", "predictions")


def test_the_command_line_ends_in_one_line_and_the_code_of_bad_data(tmp_path):
    write(tmp_path, "x.csv", b"p_0,p_1,label\n1,2,0\n1,spam,1\n")
    made = CliRunner().invoke(main, ["evaluate", f"{tmp_path}/x.csv#p_*", f"{tmp_path}/x.csv#label", "-q"])

    assert made.exit_code == 3 and made.stderr.count("\n") == 1
    assert re.search(r"line 3 of .*x\.csv#p_\*, row 1, could not be read \(.*invalid value 'spam'\)", made.stderr)


def test_integers_are_numbers_as_predictions_and_classes_as_labels(tmp_path):
    path = write(tmp_path, "x.csv", b"p_0,p_1,label\n1,0,1\n0,1,0\n")
    predictions, labels = open_source(f"{path}#p_*", "predictions"), open_source(f"{path}#label", "labels")

    assert (predictions.dtype, labels.dtype) == (np.float64, np.int64)
    path.write_bytes(path.read_bytes() + b"0.5,1.5,0\n")
    assert open_source(f"{path}#p_*", "predictions").read(2, 3).tolist() == [[0.5, 1.5]]


def test_types_that_change_after_the_first_lines_are_named_by_line(tmp_path):
    path = write(tmp_path, "x.csv", b"y\n" + b"1\n" * text_tables.HEAD_ROWS + b"spam\n")

    with pytest.raises(
        ReadError, match=rf"line {text_tables.HEAD_ROWS + 2} of .* row {text_tables.HEAD_ROWS}, .*'spam'"
    ):
        open_source(path, "labels").read(0, text_tables.HEAD_ROWS + 1)
