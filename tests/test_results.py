"""What a result of xent.evaluate or xent.compare can do: print, show itself in a notebook, and save itself."""

import dataclasses
import gc
import io
import json
import pickle
import re
import sys
import weakref

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from pages import Reader, random_set

import xent
from xent.cli import main
from xent.evaluation.report.parquet import NAMES, PAIR_NAMES

LOGITS, LABELS = random_set(rows=123)
OTHER = LOGITS + np.random.default_rng(5).normal(size=LOGITS.shape)
TIMES = ("timing", "environment")


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, array in (("x.npy", LOGITS), ("b.npy", OTHER), ("y.npy", LABELS)):
        np.save(name, array)
    return tmp_path


@pytest.fixture(scope="module")
def single():
    return xent.evaluate(LOGITS, LABELS, slices=LABELS % 2)


@pytest.fixture(scope="module")
def pair():
    return xent.compare(LOGITS, OTHER, LABELS, slices=LABELS % 3)


@pytest.fixture(scope="module")
def shown(single, pair):
    """What a notebook is given, by the name of the result."""
    return {"single": single._repr_html_(), "pair": pair._repr_html_()}


def fragment(html):
    """The element that a notebook is given."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.stack == [reader.root]
    (element,) = reader.root.children
    return element


def without_times(text):
    """The text of a result without its last line, which is how fast it was."""
    return text.rstrip().splitlines()[:-1]


COMMANDS = {
    "evaluate": (("x.npy", "y.npy", "--by-class"), lambda: xent.evaluate("x.npy", "y.npy", by_class=True)),
    "compare": (("x.npy", "b.npy", "y.npy"), lambda: xent.compare("x.npy", "b.npy", "y.npy")),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_print_writes_what_the_command_writes(files, command):
    arguments, call = COMMANDS[command]
    written = CliRunner().invoke(main, [command, *arguments, "-q"]).stdout

    assert without_times(str(call())) == without_times(written) and "GB/s" in str(call()).splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_document_is_the_commands(files, command):
    arguments, call = COMMANDS[command]
    document = json.loads(CliRunner().invoke(main, [command, *arguments, "-q", "--json"]).stdout)
    ours = json.loads(call().to_json())

    assert {key: value for key, value in ours.items() if key != "timing"} == {
        key: value for key, value in document.items() if key != "timing"
    }
    assert ours["timing"].keys() == document["timing"].keys()


def test_a_repr_is_one_short_line(single, pair):
    for result in (single, pair, pair.a):
        assert "\n" not in repr(result) and len(repr(result)) < 120
    assert repr(single).startswith(f"Evaluation(mean_loss={single.mean_loss:.6g}, ")
    assert repr(pair).startswith(f"Comparison(mean_difference={pair.mean_difference:.6g}, ")


def test_each_set_of_a_comparison_shows_itself(pair):
    alone = xent.evaluate(OTHER, LABELS, slices=LABELS % 3)

    assert without_times(str(pair.b))[1:12] == without_times(str(alone))[1:12]
    assert pair.b.to_dict()["inputs"] == alone.to_dict()["inputs"]
    assert pair.b == dataclasses.replace(alone, slices={})  # those of a comparison are of the differences


def test_a_comparisons_own_kind_of_b_is_said_of_b():
    p = xent.softmax(OTHER)
    pair = xent.compare(LOGITS, p, LABELS, kind_b="probabilities")

    assert [side.to_dict()["options"]["kind"] for side in (pair.a, pair.b)] == ["logits", "probabilities"]


def test_a_document_holds_floats_that_json_writes_as_text():
    found = xent.evaluate(np.full((3, 2), np.nan), np.zeros(3, int))

    assert np.isnan(found.to_dict()["metrics"]["loss"]["value"])
    assert json.loads(found.to_json())["metrics"]["loss"]["value"] == "nan"


def test_a_stream_of_blocks_says_what_it_read():
    blocks = ((LOGITS[i : i + 50], LABELS[i : i + 50]) for i in range(0, 123, 50))
    found, whole = xent.evaluate(blocks), xent.evaluate(LOGITS, LABELS)
    inputs = found.to_dict()["inputs"]

    assert inputs == whole.to_dict()["inputs"] and found.to_dict()["options"]["chunks"] == 3
    assert found.run.chunk_bytes == LOGITS[:50].nbytes and found.metrics == whole.metrics
    assert str(found).splitlines()[0].startswith("array  123 × 7  float64")
    assert "no block" in str(xent.evaluate(iter(()))).splitlines()[0]
    assert "no block" in xent.evaluate(iter(()))._repr_html_()


def test_a_result_keeps_no_array_alive():
    logits = LOGITS.copy()
    gone = weakref.ref(logits)
    found = xent.evaluate(logits, LABELS), xent.compare(logits, logits, LABELS)
    del logits
    gc.collect()

    assert gone() is None and found


@pytest.mark.parametrize("which", ["single", "pair"])
def test_a_result_can_be_pickled_and_prints_as_before(which, request):
    result = request.getfixturevalue(which)
    copy = pickle.loads(pickle.dumps(result))

    assert copy == result and str(copy) == str(result) and copy.to_json() == result.to_json()


# In a notebook


@pytest.mark.parametrize("which", ["single", "pair"])
def test_a_notebook_is_shown_a_table_with_plots_whose_style_is_their_own(which, shown):
    html = fragment(shown[which])
    style = html.only("style").text
    rules = [line for line in style.splitlines() if line and line[0] not in " }@"]

    assert len([*html.iter("svg")]) >= 3 and [*html.iter("table")]
    assert rules and all(rule.startswith(".xent-report") for rule in rules)
    assert html.attributes["class"] == "xent-report" and not [*html.iter("script")]


def test_two_results_in_one_notebook_share_no_id(shown):
    ids = {}
    for name, text in shown.items():
        elements = [*fragment(text).iter()]
        ids[name] = {each.attributes["id"] for each in elements if "id" in each.attributes}
        values = [value for each in elements for value in each.attributes.values()]
        named = {value for each in elements for key, value in each.attributes.items() if key == "aria-labelledby"}
        named |= {name for value in values for name in re.findall(r"(?:^#|url\(#)([^)]+)", value)}
        assert named and named <= ids[name]

    assert not ids["single"] & ids["pair"]


def test_a_result_that_is_shown_again_has_the_same_text(single, shown):
    assert single._repr_html_() == shown["single"]


def test_without_matplotlib_a_notebook_is_shown_the_numbers(single, pair, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    for result in (single, pair):
        html = fragment(result._repr_html_())
        assert [*html.iter("table")] and not [*html.iter("svg")]
        assert "xent-array[report]" in html.text


def test_a_result_is_printed_in_any_encoding(single, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))

    print(single)
    assert "+---" in str(single) and str(single).isascii()


# Files


@pytest.mark.parametrize("which, names", [("single", NAMES), ("pair", PAIR_NAMES)])
def test_tables_are_written_for_python_too(which, names, request, tmp_path):
    result = request.getfixturevalue(which)
    result.to_parquet(tmp_path / "tables")
    tables = {file.stem: pq.read_table(file).to_pylist() for file in (tmp_path / "tables").iterdir()}

    assert set(tables) <= set(names) and len(tables) >= 7
    assert ({row["metric"]: row for row in tables["metrics"]}["loss"]).get("rows") == 123
    if which == "pair":
        (difference,) = tables["difference"]
        assert difference["mean_difference_nats"] == result.mean_difference and difference["better"] == result.better
        assert [row["mean_difference_nats"] for row in tables["slices"]] == [
            each.mean_difference for each in result.slices.values()
        ]
        assert tables["counts_b"][0] == {"what": "rows", "count": 123, "first_row": None}


@pytest.mark.parametrize("method, name", [("to_json", "r.json"), ("to_html", "r.html"), ("to_parquet", "tables")])
def test_a_file_that_is_there_is_replaced_only_where_that_is_said(method, name, tmp_path, pair):
    save = getattr(pair, method)

    assert save(tmp_path / name) is None
    with pytest.raises(FileExistsError, match=r"must be a new file"):
        save(tmp_path / name)
    save(tmp_path / name, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    with pytest.raises((ValueError, FileNotFoundError)):
        save(tmp_path / "none" / name)
    if method != "to_json":  # which gives the text then
        with pytest.raises(TypeError, match=r"must be a path, got None\. Name one"):
            save(None)


def test_a_file_of_json_is_the_document(tmp_path, single):
    single.to_json(tmp_path / "r.json")

    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(single.to_json())
    with pytest.raises(ValueError, match=r"`path` must be the path of a \.json file"):
        single.to_json(tmp_path / "r.txt")


def test_the_result_of_an_evaluation_that_could_not_write_shows_itself_too(files, monkeypatch):
    def fail(*_, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xent.evaluation.engine.row_losses.move", fail)
    with pytest.raises(OSError, match=r"loss\.npy could not be written") as raised:
        xent.evaluate("x.npy", "y.npy", per_example="loss.npy")

    assert "123 of 123 rows counted" in str(raised.value.result)
