"""More than two sets: every two are as xent.compare has them, in one pass, with p-values corrected for all pairs."""

import json
from itertools import combinations, pairwise

import dask.array
import numpy as np
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from pages import HOSTILE, read
from statsmodels.stats.multitest import multipletests

import xent
from xent.cli.commands import main
from xent.evaluation.report.gates import numbers_of
from xent.evaluation.sources import TopK

ROWS, CLASSES = 123, 4
FILES = ("x.npy", "w.npy", "z.npy")
KEYS = {"slices": "s.npy", "clusters": "c.npy"}
OPTIONS = ("--slices", "s.npy", "--clusters", "c.npy")
SHARED = ("mean_difference", "standard_error", "confidence_interval", "degrees_of_freedom", "p_value", "better")
SHARED += ("worse", "ties", "counted", "clusters", "mcnemar", "rows_needed")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Three models, labels, slices, clusters and weights in the working directory."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(11)
    labels = rng.integers(0, CLASSES, ROWS)
    logits = rng.normal(size=(ROWS, CLASSES)) + 2 * np.eye(CLASSES)[labels]
    for name, share, noise in zip(FILES, (1, 0.5, 0.97), (0, 1, 0.2), strict=True):
        np.save(name, (share * logits + noise * rng.normal(size=logits.shape)).astype(np.float32))
    np.save("y.npy", labels)
    np.save("s.npy", np.array(["de", "v1.0", "<5"])[np.arange(ROWS) % 3])
    np.save("c.npy", np.arange(ROWS) // 5)
    np.save("v.npy", rng.choice([0.0, 0.5, 3.0], ROWS))
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments), "-q"])


def document(report):
    """The document but for its times."""
    return json.loads(report.to_json()) | {"timing": None}


@pytest.mark.parametrize("keys", [{}, {**KEYS, "clusters": "y.npy"}, {**KEYS, "weights": "v.npy", "ignore_index": 2}])
def test_each_pair_is_as_two_sets_alone(files, keys):
    found = xent.compare_all(FILES, "y.npy", chunk_bytes=400, **keys)

    assert [*found.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    for pair, (a, b) in zip(found.pairs, combinations(FILES, 2), strict=True):
        alone, difference = xent.compare(a, b, "y.npy", **keys), found.pairs[pair]
        assert {name: getattr(difference, name) for name in SHARED} == {name: getattr(alone, name) for name in SHARED}
        for key, group in alone.slices.items():
            assert difference.slices[key]._replace(adjusted_p_value=group.adjusted_p_value) == group
        assert found.sets[pair[0]] == alone.a and found.sets[pair[1]] == alone.b
    assert found.counted == alone.counted and found.rows == ROWS and found.clusters == alone.clusters


def test_p_values_are_corrected_for_all_pairs_and_slices(files):
    found = xent.compare_all(FILES, "y.npy", **KEYS)
    pairs = found.pairs.values()
    slices = [group for each in pairs for group in each.slices.values()]

    def holm(p_values):
        return pytest.approx(multipletests(p_values, method="holm")[1], rel=1e-12)

    assert [each.adjusted_p_value for each in pairs] == holm([each.p_value for each in pairs])
    assert [each.adjusted_mcnemar_p_value for each in pairs] == holm([each.mcnemar.p_value for each in pairs])
    assert [group.adjusted_p_value for group in slices] == holm([group.p_value for group in slices])
    assert len(slices) == 9


def test_a_row_counts_where_it_counts_in_all_sets(files):
    x, y = np.load("x.npy").astype(np.float64), np.load("y.npy")
    log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    sets = []
    for k in (2, 1):
        ids = np.argsort(-log_p, axis=1)[:, :k]
        sets.append(TopK(ids, np.take_along_axis(log_p, ids, axis=1), CLASSES, tail="skip"))
    found = xent.compare_all([log_p, *sets], y, kind="log_probabilities")
    right = int((log_p.argmax(axis=1) == y).sum())

    assert found.counted == right < ROWS
    assert {each.counted for each in (*found.pairs.values(), *found.sets.values())} == {right}


def test_labels_are_read_once_for_all_pairs(files):
    reads = []

    def block(part):
        reads.append(len(part))
        return part

    labels = dask.array.from_array(np.load("y.npy"), chunks=41)
    sets = [dask.array.from_array(np.load(name), chunks=(41, -1)) for name in FILES]
    xent.compare_all(sets, labels.map_blocks(block, meta=np.empty(0, np.int64)), scheduler="sync")

    assert reads == [41, 41, 41]


def test_the_second_set_is_not_the_only_other_one(files):
    p = [np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in map(np.load, FILES)]
    of_class_1 = [x[:, 1] / (x[:, 0] + x[:, 1]) for x in p]
    labels = np.load("y.npy") % 2
    found = xent.compare_all(of_class_1, labels, binary=True, kind="probabilities")

    for name, own in zip("abc", of_class_1, strict=True):
        assert found.sets[name] == xent.evaluate(own, labels, binary=True, kind="probabilities")


def test_hidden_states_share_a_classifier(files):
    rng = np.random.default_rng(3)
    hidden, head, y = rng.normal(size=(3, ROWS, 5)), rng.normal(size=(CLASSES, 5)), np.load("y.npy")
    found = xent.compare_all([*hidden], y, classifier=head)

    assert found.sets["c"].mean_loss == pytest.approx(xent.evaluate(hidden[2] @ head.T, y).mean_loss, rel=1e-12)


@pytest.mark.parametrize("cut", [(0, 123), (0, 40, 40, 123)])
def test_parts_merge_to_the_document_of_one_run(files, cut):
    whole = xent.compare_all(FILES, "y.npy", chunk_bytes=400, **KEYS)
    parts = []
    for rows in pairwise(cut):
        parts.append(f"part-{len(parts)}.json")
        xent.compare_all(FILES, "y.npy", chunk_bytes=400, **KEYS, rows=rows, state_out=parts[-1])
    merged = xent.merge_parts(parts[::-1])

    assert document(merged) == document(whole)
    assert str(merged).splitlines()[:-1] == str(whole).splitlines()[:-1]


def test_parts_of_three_sets_and_of_two_are_not_of_one_run(files):
    xent.compare_all(FILES, "y.npy", rows=(0, 40), state_out="p.json")
    xent.compare("x.npy", "w.npy", "y.npy", rows=(40, None), state_out="q.json")
    with pytest.raises(ValueError, match=r"q\.json, whose command and inputs \(c\) are not those of p\.json"):
        xent.merge_parts(["p.json", "q.json"])


def test_a_run_goes_on_where_it_was(files):
    call = {"chunk_bytes": 400, **KEYS, "state": "kept"}
    first = xent.compare_all(FILES, "y.npy", **call)
    progress = []
    again = xent.compare_all(FILES, "y.npy", **call, progress=progress.append)

    assert document(again) == document(first) and sum(progress) == ROWS
    assert len([*(files / "kept").glob("rows-*.json")]) > 3


def test_the_command_has_a_table_a_document_a_page_and_tables(files):
    outputs = ("--html", "page.html", "--tables", "tables", "--json")
    done = run("compare", *FILES, "y.npy", *OPTIONS, *outputs)
    found = xent.compare_all(FILES, "y.npy", **KEYS)

    assert done.exit_code == 0, done.stderr
    assert {**json.loads(done.stdout), "timing": None, "options": None} == {**document(found), "options": None}
    pairs = pyarrow.parquet.read_table("tables/pairs.parquet").to_pylist()
    assert [each["mean_difference_nats"] for each in pairs] == [each.mean_difference for each in found.pairs.values()]
    assert [each["adjusted_p_value"] for each in pairs] == [each.adjusted_p_value for each in found.pairs.values()]
    assert pyarrow.parquet.read_table("tables/slices.parquet").num_rows == 9
    page = read((files / "page.html").read_text("utf-8"))
    assert [row[0].text + row[1].text for row in page.table("Every two sets")] == ["ab", "ac", "bc"]
    verdict = "Shown to be better, at 5 % for all pairs together: A than B and C; C than B."
    assert page.only("p", class_="verdict").text == verdict
    assert run("compare", *FILES, "y.npy", *outputs, "--overwrite").exit_code == 0


def test_the_table_of_the_terminal_shows_every_pair_and_what_stands_out(files):
    done = run("compare", *FILES, "y.npy", *OPTIONS)

    assert done.exit_code == 0, done.stderr
    for text in ("A − B", "A − C", "B − C", "Holm p", "needed", "25 clusters taken as independent"):
        assert text in done.stdout
    assert "p-values are corrected for 3 pairs, those of slices for 9 tests, by Holm's steps" in done.stdout


def test_names_of_slices_cannot_break_a_page():
    rng = np.random.default_rng(0)
    slices = np.asarray(HOSTILE)[np.arange(60) % len(HOSTILE)]
    found = xent.compare_all([*rng.normal(size=(3, 60, 3))], rng.integers(0, 3, 60), slices=slices)
    html = read(found.page())

    assert {row[0].text for row in html.table("Slices")} == {*HOSTILE}
    assert not [*html.iter("script")] and str(found)


def test_every_number_is_a_gate_by_its_name(files):
    numbers = numbers_of(json.loads(run("compare", *FILES, "y.npy", *OPTIONS, "--json").stdout))
    gates = (part for name in numbers for part in ("--fail-if", f"{'.'.join(name)}>1e300"))
    done = run("compare", *FILES, "y.npy", *OPTIONS, *gates)

    assert done.exit_code == 0, done.stderr
    assert {("pairs", "a-c", "adjusted_p_value"), ("c", "accuracy"), ("pairs", "b-c")} <= {*numbers}
    assert run("compare", *FILES, "y.npy", "--fail-if", "pairs.b-c<0.1").exit_code == 0
    assert run("compare", *FILES, "y.npy", "--fail-if", "pairs.b-c>0.1").exit_code == 1
    wrong = run("compare", *FILES, "nowhere.npy", "--fail-if", "pairs.a-d>0")
    assert wrong.exit_code == 2


def test_a_gate_on_a_set_that_is_not_there_is_refused_before_the_run(files):
    done = run("compare", *FILES, "y.npy", "--fail-if", "pairs.a-d>0")

    assert done.exit_code == 2
    assert "must name numbers that this run has, got 'pairs.a-d'. The nearest are" in done.stderr


def test_an_edge_case_can_be_compared():
    bad = np.full((5, 3), np.nan)
    certain = np.zeros((5, 3))
    certain[:, 0] = -np.inf
    for rows in (0, 1, 5):
        sets = [each[:rows] for each in (bad, certain, np.zeros((5, 3)))]
        found = xent.compare_all(sets, np.zeros(rows, int), slices=np.arange(rows) % 2)
        assert "No " in str(found) and read(found.page()) and json.loads(found.to_json())


@pytest.mark.parametrize(
    ("sets", "error", "message"),
    [
        ("x.npy", TypeError, r"`sets` must be prediction sets, got 'x\.npy'\. Pass a list of them"),
        (np.zeros((3, 5, 2)), TypeError, "`sets` must be prediction sets"),
        ([], ValueError, r"`sets` must be two to 26 prediction sets, got 0\. Pass another one"),
        (["x.npy"], ValueError, "must be two to 26 prediction sets, got 1"),
        (["x.npy"] * 27, ValueError, "got 27. Compare those first that matter most"),
        (["x.npy", "w.npy", np.zeros((9, 4))], ValueError, r"`c` must have the shape of a, \(123, 4\)"),
    ],
)
def test_what_cannot_be_compared_is_refused(files, sets, error, message):
    with pytest.raises(error, match=message):
        xent.compare_all(sets, "y.npy")


@pytest.mark.parametrize("option", [("--kind-b", "logits"), ("--classifier-b", "x.npy"), ("--softcap-b", 3)])
def test_options_of_b_alone_go_with_two_sets(files, option):
    done = run("compare", *FILES, "y.npy", *option)

    assert done.exit_code == 2 and f"{option[0]} goes with two sets, and here are 3." in done.stderr
    assert run("compare", "x.npy", "y.npy").exit_code == 2
