"""Labels that are names of classes, and names that stand in place of numbers in every result."""

import json
import re

import dask.array as da
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from click.testing import CliRunner
from sklearn.metrics import accuracy_score, log_loss

import xent
from xent.cli.commands import main
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.options import Options
from xent.evaluation.report.tables import evaluation_tables

ROWS = 123
NAMES = ["dog", "ant", "cöw"]  # not in the order of the alphabet
LOGITS = np.random.default_rng(0).standard_normal((ROWS, 3))
NUMBERS = np.random.default_rng(1).integers(0, 3, ROWS)
TEXT = np.asarray(NAMES)[NUMBERS]
EXPECTED = xent.evaluate(LOGITS, NUMBERS, by_class=True, top_k=2)


def evaluated(labels, names=NAMES, **options):
    return xent.evaluate(LOGITS, labels, class_names=names, by_class=True, top_k=2, **options)


def in_files(folder):
    """The labels in every format that holds text, by the path to pass."""
    np.save(folder / "y.npy", TEXT)
    np.savez_compressed(folder / "y.npz", y=TEXT)
    with h5py.File(folder / "y.h5", "w") as file:
        file.create_dataset("y", data=[name.encode() for name in TEXT], dtype=h5py.string_dtype())
    zarr.create_array(folder / "y.zarr", data=TEXT.astype(np.dtypes.StringDType()), chunks=(50,))
    table = pa.table({"y": TEXT, "category": pa.array(TEXT).dictionary_encode()})
    pq.write_table(table, folder / "y.parquet", row_group_size=50)
    with pa.ipc.new_file(folder / "y.arrow", table.schema) as writer:
        writer.write_table(table, 50)
    names = ["y.npy", "y.npz#y", "y.h5#y", "y.zarr", "y.parquet#y", "y.parquet#category", "y.arrow#category"]
    return [f"{folder}/{name}" for name in names]


def polars():
    return pytest.importorskip("polars", reason="polars is not installed")


IN_HAND = {
    "array": lambda: TEXT,
    "objects": lambda: TEXT.astype(object),
    "StringDType": lambda: TEXT.astype(np.dtypes.StringDType()),
    "pandas": lambda: pd.Series(TEXT),
    "a categorical of pandas": lambda: pd.Series(pd.Categorical(TEXT, categories=sorted(NAMES))),
    "a categorical of polars": lambda: polars().Series(TEXT, dtype=polars().Categorical),
    "an array of Arrow": lambda: pa.array(TEXT).dictionary_encode(),
    "dask": lambda: da.from_array(TEXT, chunks=20),
}


@pytest.mark.parametrize("make", IN_HAND.values(), ids=IN_HAND)
def test_labels_in_hand_are_looked_up_among_the_names(make):
    found = evaluated(make(), chunk_bytes=700)
    p = xent.softmax(LOGITS)

    assert found.metrics == EXPECTED.metrics and found.reliability == EXPECTED.reliability
    # scikit-learn takes the columns in the order of the sorted names
    assert found.mean_loss == pytest.approx(log_loss(TEXT, p[:, np.argsort(NAMES)], labels=sorted(NAMES)), rel=1e-13)
    assert found.accuracy == accuracy_score(TEXT, np.asarray(NAMES)[LOGITS.argmax(axis=1)])


def test_labels_in_files_are_looked_up_among_the_names(tmp_path):
    for path in in_files(tmp_path):
        assert evaluated(path, chunk_bytes=700) == evaluated(TEXT), path


def test_the_names_stand_in_place_of_the_numbers():
    found = evaluated(TEXT)
    worst = [(row, NAMES[label], NAMES[top], loss) for row, label, top, loss in EXPECTED.worst]

    assert [*found.classes] == NAMES and [*found.classes.values()] == [*EXPECTED.classes.values()]
    assert [*map(tuple, found.worst)] == worst
    assert evaluated(NUMBERS) == found  # numbers need no names, and are shown by them
    assert evaluation_tables(found)["worst"].columns["label"] is str


def test_a_stream_has_names():
    blocks = ((LOGITS[i : i + 50], TEXT[i : i + 50]) for i in range(0, ROWS, 50))
    found = xent.evaluate(blocks, class_names=iter(NAMES), by_class=True, top_k=2)

    assert found.metrics == EXPECTED.metrics and [*found.classes] == NAMES


def test_a_comparison_has_names():
    found = xent.compare(LOGITS, LOGITS / 2, TEXT, class_names=NAMES)

    assert found.mean_difference == xent.compare(LOGITS, LOGITS / 2, NUMBERS).mean_difference
    assert {example.label for example in found.b.worst} <= {*NAMES}


FILES = {
    "lines": "dog\nant\ncöw\n",
    "lines of Windows": "\ufeffdog\r\nant\r\ncöw\r\n",
    "a list": '["dog", "ant", "cöw"]',
    "names to numbers": '{"ant": 1, "cöw": 2, "dog": 0}',
    "numbers to names": '{"2": "cöw", "0": "dog", "1": "ant"}',
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_names_may_be_in_a_file(tmp_path, text):
    (tmp_path / "names").write_bytes(text.encode())

    assert evaluated(TEXT, tmp_path / "names") == evaluated(TEXT)


@pytest.mark.parametrize("names", [{"ant": 1, "cöw": 2, "dog": 0}, {2: "cöw", 0: "dog", 1: "ant"}, pd.Index(NAMES)])
def test_names_may_be_a_mapping_either_way_or_an_index(names):
    assert evaluated(TEXT, names) == evaluated(TEXT)


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [(["p_dog", "p_ant", "p_cöw"], "p_*"), (["dog p", "ant p", "cöw p"], "* p"), (NAMES, "[dac]*")],
)
def test_names_may_be_those_of_the_columns(tmp_path, columns, chosen):
    for i, rows in enumerate((slice(0, 60), slice(60, ROWS))):
        table = {name: LOGITS[rows, c] for c, name in enumerate(columns)}
        pq.write_table(pa.table({**table, "y": TEXT[rows]}), tmp_path / f"{i}.parquet")
    found = xent.evaluate(f"{tmp_path}#{chosen}", f"{tmp_path}#y", class_names="columns", by_class=True, top_k=2)

    assert found == evaluated(TEXT)


# ---------------------------------------------------------------------------------------------------------------------
# True and false, and numbers that are names


def test_true_and_false_are_one_and_zero():
    labels = NUMBERS == 2
    expected = xent.evaluate(LOGITS[:, :2], labels.astype(int), by_class=True)

    assert xent.evaluate(LOGITS[:, :2], labels, by_class=True) == expected
    found = xent.evaluate(LOGITS[:, :2], labels, by_class=True, class_names=["no", "yes"])
    assert [*found.classes] == ["no", "yes"] and found.metrics == expected.metrics


def test_true_and_false_are_names_where_the_classes_are_called_so(tmp_path):
    labels = NUMBERS == 2
    table = pa.table({"p_True": LOGITS[:, 0], "p_False": LOGITS[:, 1], "y": labels})
    pq.write_table(table, tmp_path / "x.parquet")
    path = tmp_path / "x.parquet"
    expected = xent.evaluate(LOGITS[:, :2], (~labels).astype(int))

    assert xent.evaluate(f"{path}#p_*", f"{path}#y", class_names="columns").metrics == expected.metrics
    assert xent.evaluate(LOGITS[:, :2], labels, class_names={True: 0, False: 1}).metrics == expected.metrics


def test_integers_are_names_where_every_name_is_an_integer():
    labels = np.asarray([7, 1, 3])[NUMBERS]
    labels[5] = 2
    found = evaluated(labels, [7, 1, 3], ignore_index=2)  # the class of number 2 is not ignored
    marked = np.where(np.arange(ROWS) == 5, -100, NUMBERS)

    assert found.metrics == evaluated(marked, ignore_index=-100).metrics and [*found.classes] == ["7", "1", "3"]
    with pytest.raises(xent.LabelError, match=r"the 3 classes \(7, 1, 3\), got 1 that are not, the first 2 in"):
        evaluated(labels, [7, 1, 3])


# ---------------------------------------------------------------------------------------------------------------------
# Labels that are no names


@pytest.mark.parametrize("how", ["array", "dask", "file", "stream"])
def test_a_label_that_is_no_name_is_named_with_its_row(tmp_path, how):
    labels = TEXT.copy()
    labels[[77, 99]] = ["dgo", "ox"]
    np.save(tmp_path / "y.npy", labels)
    given = {"dask": da.from_array(labels, chunks=40), "file": tmp_path / "y.npy"}.get(how, labels)
    message = r"must be among the 3 classes \('dog', 'ant', 'cöw'\), got 2 that are not, the first 'dgo' in row 77"
    with pytest.raises(xent.LabelError, match=message) as caught:
        if how == "stream":
            xent.evaluate(iter([(LOGITS[:70], labels[:70]), (LOGITS[70:], labels[70:])]), class_names=NAMES)
        evaluated(given, chunk_bytes=700)

    assert (caught.value.value, caught.value.position, caught.value.count) == ("dgo", (77,), 2)
    found = evaluated(given, chunk_bytes=700, on_bad_label="skip")
    assert (found.bad_labels, found.first_bad_label, found.counted) == (2, 77, ROWS - 2)


def test_a_name_can_be_ignored():
    labels = np.where(np.arange(ROWS) % 7 == 0, "?", TEXT)
    marked = np.where(np.arange(ROWS) % 7 == 0, -100, NUMBERS)
    cut = da.from_array(LOGITS, chunks=(50, 2))

    assert evaluated(labels, ignore_index="?") == evaluated(marked, ignore_index=-100)
    assert evaluated(labels, ignore_index=("?", "none", -1)).ignored == 18
    found, expected = (
        xent.evaluate(cut, y, class_names=NAMES, ignore_index=i) for y, i in ((labels, "?"), (marked, -100))
    )
    assert found == expected


def test_a_null_among_labels_of_text_is_lost_alone(tmp_path):
    labels = TEXT.tolist()
    labels[40] = None
    pq.write_table(pa.table({"y": labels}), tmp_path / "y.parquet")
    found = evaluated(f"{tmp_path}/y.parquet#y", on_error="skip")

    assert (found.unread_rows, found.first_unread, found.counted) == (1, 40, ROWS - 1)


REFUSED = {
    "text without names": (lambda: xent.evaluate(LOGITS, TEXT), TypeError, "got <U3.*Pass `class_names`, the name of"),
    "too few": (
        lambda: evaluated(TEXT, NAMES[:2]),
        ValueError,
        r"must be 3, .* got 2 \('dog', 'ant'\)",
    ),
    "twice": (lambda: evaluated(TEXT, ["dog", "ant", "dog"]), ValueError, "different names, got 'dog' twice"),
    "a gap": (
        lambda: evaluated(TEXT, {"dog": 0, "ant": 1, "cöw": 3}),
        ValueError,
        "3 without the number 2",
    ),
    "no list": (lambda: evaluated(TEXT, 3), TypeError, "must be the name of each class: a list.*got int"),
    "nothing there": (lambda: evaluated(TEXT, "names.txt"), FileNotFoundError, "names.txt, where nothing is"),
    "no columns": (lambda: evaluated(TEXT, "columns"), ValueError, "no columns of a table, got 'columns' of float64"),
    "text ignored among numbers": (lambda: evaluated(NUMBERS, ignore_index="dog"), TypeError, "'dog' for int64"),
    "truths of three": (
        lambda: xent.evaluate(LOGITS, NUMBERS > 1),
        TypeError,
        r"of two classes, got bool\[123\]",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_a_name_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "make", [pd.Series, lambda labels: pd.Series(pd.Categorical(labels))], ids=["text", "categories"]
)
def test_the_remedy_of_a_missing_label_is_one_to_follow(make):
    labels = make([None if i == 40 else name for i, name in enumerate(TEXT.tolist())])
    with pytest.raises(TypeError, match=r"be all integers, or all text, got object.*Pass") as caught:
        evaluated(labels)
    said, ignored = str(caught.value).split(" Pass ")[1].split(" of a Series, and ignore_index=")
    found = evaluated(eval(said), ignore_index=eval(ignored.split(",")[0]))

    assert (found.ignored, found.counted) == (1, ROWS - 1)


def test_the_remedy_of_masked_labels_is_one_to_follow():
    labels = np.ma.masked_array(NUMBERS, mask=np.arange(ROWS) < 5)
    with pytest.raises(TypeError, match=r"MaskedArray\. Pass") as caught:
        evaluated(labels)
    said, ignored = str(caught.value).split(" Pass ")[1].removesuffix(".").split(", and ignore_index=")

    assert evaluated(eval(said), ignore_index=int(ignored)).ignored == 5


def test_a_file_of_names_that_cannot_be_read_is_bad_data(tmp_path):
    for name, text, message in (("x.json", b'["dog", ', "is no JSON"), ("x.txt", b"d\xff", "is no text in UTF-8")):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(OSError, match=message):
            evaluated(TEXT, tmp_path / name)


# ---------------------------------------------------------------------------------------------------------------------
# The command line, states, and pages


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    np.save(folder / "x.npy", LOGITS)
    np.save(folder / "y.npy", TEXT)
    (folder / "names.txt").write_text("\n".join(NAMES), encoding="utf-8")
    table = {f"p_{name}": LOGITS[:, c] for c, name in enumerate(NAMES)}
    pq.write_table(pa.table({**table, "y": TEXT}), folder / "x.parquet")
    return folder


def command(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_line_shows_names_everywhere(folder, tmp_path):
    arguments = ["evaluate", folder / "x.npy", folder / "y.npy", "--class-names", folder / "names.txt", "--by-class"]
    result = command(*arguments, "--json", "--html", tmp_path / "x.html", "--tables", tmp_path / "tables", "-q")
    document, page = json.loads(result.stdout), (tmp_path / "x.html").read_text(encoding="utf-8")

    assert [*document["classes"]] == NAMES and document["worst"][0]["label"] == evaluated(TEXT).worst[0].label
    assert document["inputs"]["labels"]["dtype"] == "<U3"
    assert pq.read_table(tmp_path / "tables" / "classes.parquet")["class"].to_pylist() == NAMES
    assert pq.read_table(tmp_path / "tables" / "worst.parquet")["predicted"].to_pylist()[0] in NAMES
    assert page.count("cöw") > 2 and "cöw" in command(*arguments).stdout


def test_the_remedy_of_text_among_columns_is_one_to_follow(folder):
    arguments = ["evaluate", f"{folder}/x.parquet#p_*", f"{folder}/x.parquet#y"]
    refused = command(*arguments)
    followed = command(*arguments, "--class-names", "columns", "--json", "-q")

    assert refused.exit_code == 2
    assert "Pass --class-names columns if the classes are ('dog', 'ant', 'cöw')" in refused.stderr
    assert json.loads(followed.stdout)["metrics"]["loss"]["value"] == EXPECTED.mean_loss


def test_a_bad_name_exits_with_bad_data_and_a_remedy_to_follow(folder, tmp_path):
    np.save(tmp_path / "y.npy", np.where(np.arange(ROWS) == 7, "?", TEXT))
    arguments = [
        "evaluate",
        folder / "x.npy",
        tmp_path / "y.npy",
        "--class-names",
        folder / "names.txt",
        "--json",
        "-q",
    ]
    refused = command(*arguments)
    followed = command(*arguments, "--ignore-index", "?")

    assert refused.exit_code == 3 and "--ignore-index '?' if that marks rows to ignore" in refused.stderr
    assert json.loads(followed.stdout)["counts"]["ignored"] == 1


def test_a_state_knows_the_names_of_its_labels(folder, tmp_path):
    files = folder / "x.npy", folder / "y.npy"
    some = {"state": tmp_path / "state", "chunk_bytes": 700, "by_class": True, "top_k": 2}

    assert xent.evaluate(*files, class_names=NAMES, **some) == evaluated(TEXT)
    assert xent.evaluate(*files, class_names=NAMES, **some) == evaluated(TEXT)
    with pytest.raises(ValueError, match="whose labels have changed since"):
        xent.evaluate(*files, class_names=NAMES[::-1], **some)


def test_a_chunk_that_cannot_be_read_loses_the_rows_of_a_stored_piece_alone(folder, tmp_path):
    for i, start in enumerate(range(0, ROWS, 50)):
        np.save(tmp_path / f"{i}.npy", TEXT[start : start + 50])
    planned = plan(folder / "x.npy", tmp_path, Options(on_error="skip"), class_names=NAMES)
    (tmp_path / "1.npy").write_bytes(b"")
    found = planned.run()

    assert (found.unread_rows, found.first_unread, found.counted) == (50, 50, ROWS - 50)


def test_names_without_an_order_or_without_a_name_are_refused():
    for names, message in ((set(NAMES), "a list in their order"), (["dog", None, "cöw"], "got None for class 1")):
        with pytest.raises(TypeError, match=message):
            evaluated(TEXT, names)


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "csv", "jsonl"])
def test_a_null_among_labels_that_are_true_or_false_is_lost_alone(tmp_path, suffix):
    truth = [None if row == 3 else bool(number) for row, number in enumerate(NUMBERS)]
    table, path = pa.table({"y": pa.array(truth), "w": [row != 5 for row in range(ROWS)]}), tmp_path / f"y.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
    elif suffix == "arrow":
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    elif suffix == "csv":
        path.write_text("y,w\n" + "".join(f"{'' if y is None else y},{row != 5}\n" for row, y in enumerate(truth)))
    else:
        path.write_text("".join(json.dumps({"y": y, "w": row != 5}) + "\n" for row, y in enumerate(truth)))
    found = xent.evaluate(LOGITS[:, 0], f"{path}#y", binary=True, on_error="skip", weights=f"{path}#w")
    kept = [row for row in range(ROWS) if row not in (3, 5)]

    assert found.counted == ROWS - 2
    assert found.mean_loss == xent.evaluate(LOGITS[kept, 0], NUMBERS[kept] > 0, binary=True).mean_loss


def test_missing_labels_of_true_and_false_are_evaluated_as_the_remedy_says():
    labels = pd.Series(NUMBERS > 0, dtype="boolean").where(np.arange(ROWS) != 3)
    with pytest.raises(TypeError, match="must be all integers, or all text") as refused:
        xent.evaluate(LOGITS[:, 0], labels, binary=True)
    expression = re.search(r"Pass (.*) of a Series, and ignore_index=-100", str(refused.value))[1]
    found = xent.evaluate(LOGITS[:, 0], eval(expression, {"labels": labels}), binary=True, ignore_index=-100)

    kept = np.delete(np.arange(ROWS), 3)
    assert found.mean_loss == xent.evaluate(LOGITS[kept, 0], NUMBERS[kept] > 0, binary=True).mean_loss


def test_a_folder_is_no_file_of_names(tmp_path):
    with pytest.raises(ValueError, match=r"`class_names` must be .*, got the folder .*\. Name a file in it"):
        evaluated(TEXT, tmp_path)


def test_names_in_bytes_are_text():
    assert evaluated(TEXT, np.char.encode(NAMES, "utf-8")).mean_loss == EXPECTED.mean_loss


def test_blank_lines_at_the_end_of_a_file_are_no_names(tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n\n", "utf-8")

    assert evaluated(TEXT, tmp_path / "names.txt").mean_loss == EXPECTED.mean_loss


def test_labels_with_missing_numbers_are_evaluated_as_the_remedy_says():
    labels = pd.Series(NUMBERS).astype("Int64").where(np.arange(ROWS) != 3)
    with pytest.raises(TypeError, match="must be integers") as refused:
        xent.evaluate(LOGITS, labels)
    expression = re.search(r"Save (.*), and pass ignore_index=-100", str(refused.value))[1]
    found = xent.evaluate(LOGITS, eval(expression, {"numpy": np, "labels": labels}), ignore_index=-100)

    assert found.counted == ROWS - 1


@pytest.mark.parametrize("argument", ["predictions", "labels", "weights"])
def test_what_is_under_a_mask_is_never_taken(argument):
    arguments = {"predictions": LOGITS, "labels": NUMBERS, "weights": np.ones(ROWS)}
    mask = np.zeros(arguments[argument].shape, bool)
    mask[3] = True
    arguments[argument] = np.ma.MaskedArray(arguments[argument], mask)
    with pytest.raises(TypeError, match="MaskedArray") as refused:
        xent.evaluate(**arguments)
    expression = re.search(r"Pass (.*?\))(, and ignore_index=-100)?\.$", str(refused.value))
    arguments[argument] = eval(expression[1], {"numpy": np, **arguments})
    found = xent.evaluate(**arguments, ignore_index=-100 if expression[2] else None)

    assert found.nan_rows == 1 if argument == "predictions" else found.counted == ROWS - 1
