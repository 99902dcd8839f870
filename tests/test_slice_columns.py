"""Slices by several columns and their crosses: each is what evaluating its rows alone gives."""

import json
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import scipy.stats
import statsmodels.stats.multitest
from click.testing import CliRunner

import xent
from xent.cli.commands import main
from xent.evaluation.evaluations import merge_parts

ROWS = 123
RNG = np.random.default_rng(4)
LOGITS, LABELS = RNG.normal(size=(ROWS, 3)), RNG.integers(0, 3, ROWS)
LANGUAGE, YEAR = RNG.choice(["de", "en", "日本"], ROWS), RNG.choice([1999, 2024], ROWS)
CLUSTERS, WEIGHTS = np.arange(ROWS) // 4, RNG.random(ROWS) + 0.5
SLICES, CROSS = {"language": LANGUAGE, "year": YEAR}, [("language", "year")]
MASKS = {f"language={name}": name == LANGUAGE for name in np.unique(LANGUAGE)}
MASKS |= {f"year={year}": year == YEAR for year in np.unique(YEAR)}
MASKS |= {f"{a}, {b}": MASKS[a] & MASKS[b] for a in [*MASKS][:3] for b in [*MASKS][3:]}


@pytest.mark.parametrize("clusters", [None, CLUSTERS], ids=["rows", "clusters"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_a_slice_is_what_its_rows_alone_are(clusters, weights):
    found = xent.evaluate(LOGITS, LABELS, slices=SLICES, cross=CROSS, clusters=clusters, weights=weights).slices

    assert {*found} == {*MASKS} and len(found) == 11
    for name, rows in MASKS.items():
        keys = (None if each is None else each[rows] for each in (clusters, weights))
        alone = xent.evaluate(LOGITS[rows], LABELS[rows], **dict(zip(("clusters", "weights"), keys, strict=True)))
        assert found[name].counted == rows.sum()
        assert (found[name].mean_loss, found[name].accuracy) == (alone.mean_loss, alone.accuracy)
        assert found[name].standard_error == pytest.approx(alone.standard_error, rel=1e-13)
        assert found[name].degrees_of_freedom == alone.degrees_of_freedom


def test_no_chunking_shows_and_all_else_is_as_without():
    found = xent.evaluate(LOGITS, LABELS, slices=SLICES, cross=CROSS, clusters=CLUSTERS)
    cut = xent.evaluate(LOGITS, LABELS, slices=SLICES, cross=CROSS, clusters=CLUSTERS, chunk_bytes=100)
    one = xent.evaluate(LOGITS, LABELS, slices=LANGUAGE, clusters=CLUSTERS)

    assert cut == found and cut.run.chunks > 20
    assert found.metrics == one.metrics
    for name in [*MASKS][:3]:  # but that more are tested
        alone = one.slices[name.removeprefix("language=")]
        assert found.slices[name] == alone._replace(adjusted_p_value=found.slices[name].adjusted_p_value)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays = {"x": LOGITS, "y": LABELS, "l": LANGUAGE, "t": YEAR, "c": CLUSTERS}
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
    return ("--slices", "language=l.npy", "--slices", "year=t.npy", "--cross", "language,year")


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_files_are_sliced_on_the_command_line_as_arrays_are(files):
    document = json.loads(run("evaluate", "x.npy", "y.npy", *files, "--clusters", "c.npy", "--json").stdout)
    expected = xent.evaluate(LOGITS, LABELS, slices=SLICES, cross=CROSS, clusters=CLUSTERS).slices

    assert document["slices"] == {name: group._asdict() for name, group in expected.items()}
    shown = document["inputs"]["slices"]["path"].replace(f"{Path.cwd()}/", "")
    assert shown == "language=l.npy, year=t.npy, language × year"


def test_parts_become_the_slices_of_the_whole(files):
    parts = ["0.json", "1.json"]
    for path, rows in zip(parts, ("0:50", "50:"), strict=True):
        assert run("evaluate", "x.npy", "y.npy", *files, "--rows", rows, "--state-out", path).exit_code == 0

    whole = xent.evaluate("x.npy", "y.npy", slices={"language": "l.npy", "year": "t.npy"}, cross=CROSS)
    assert merge_parts(parts[::-1]).slices == whole.slices
    assert run("evaluate", "x.npy", "y.npy", *files[:4], "--rows", "50:", "--state-out", "2.json").exit_code == 0
    other = run("merge", "0.json", "2.json")  # without the cross
    assert other.exit_code == 2 and "inputs" in other.stderr


def test_a_state_is_of_its_slices_and_crosses(files):
    first = run("evaluate", "x.npy", "y.npy", *files, "--state", "state", "--json")
    again = run("evaluate", "x.npy", "y.npy", *files, "--state", "state", "--json")
    other = run("evaluate", "x.npy", "y.npy", *files[:4], "--state", "state")

    assert json.loads(first.stdout)["slices"] == json.loads(again.stdout)["slices"]
    assert other.exit_code == 2 and "slices" in other.stderr


def test_a_gate_may_be_on_a_cross(files):
    lost = run("evaluate", "x.npy", "y.npy", *files, "--fail-if", "slices.language=de, year=1999.accuracy<2")

    assert lost.exit_code == 1 and "slices.language=de, year=1999.accuracy is" in lost.stderr


def test_a_comparison_has_the_slices_of_each_column_and_cross():
    found = xent.compare(LOGITS, LOGITS / 2, LABELS, slices=SLICES, cross=CROSS, clusters=CLUSTERS).slices

    assert {*found} == {*MASKS}
    for name, rows in MASKS.items():
        alone = xent.compare(LOGITS[rows], LOGITS[rows] / 2, LABELS[rows], clusters=CLUSTERS[rows])
        assert found[name].mean_difference == alone.mean_difference
        assert found[name].p_value == pytest.approx(alone.p_value, rel=1e-11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slices": {"a,b": YEAR}}, "`slices` must have names of letters"),
        ({"slices": {}}, "`slices` must have a column"),
        (
            {"slices": SLICES, "cross": [("language", "month")]},
            "`cross` must be of two or more of the columns language",
        ),
        ({"slices": SLICES, "cross": [("year", "year")]}, "`cross` must be of two or more"),
        ({"slices": SLICES, "cross": ["year,language", "language,year"]}, "`cross` must have each cross once"),
        ({"slices": SLICES, "cross": [("year",)]}, "`cross` must be of two or more"),
        ({"slices": YEAR, "cross": CROSS}, "`cross` must be left out unless slices have names"),
        ({"slices": {"a": da.from_array(YEAR), "b": YEAR}}, "`slices` must be files or arrays in hand"),
        ({"slices": {"a": YEAR[:5]}}, "`slices` must have shape"),
        ({"slices": {"a": WEIGHTS}}, "`slices` must be integers or text"),
    ],
)
def test_what_cannot_be_slices_is_refused_before_any_work(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        xent.evaluate(LOGITS, LABELS, **options)


@pytest.mark.parametrize("on_error", ["error", "skip"])
def test_a_key_that_reads_as_a_cross_is_refused_where_there_is_one(files, on_error):
    np.save("l.npy", np.where(np.arange(ROWS) == ROWS - 1, "de, year=1999", LANGUAGE))
    arguments = ("x.npy", "y.npy", *files[:4], "-q", "--on-error", on_error)
    refused = run("evaluate", *arguments, *files[4:])

    assert refused.exit_code == 2 and "`--slices` must have no key with ', year=' in it" in refused.stderr
    assert "in language" in refused.stderr and "leave `--cross` out" in refused.stderr
    assert run("evaluate", *arguments).exit_code == 0


@pytest.mark.parametrize("texts", [("l.npy", "t.npy"), ("a=l.npy", "a=t.npy"), ("a=l.npy", "t.npy")])
def test_several_slices_on_the_command_line_have_a_name_each(files, texts):
    refused = run("evaluate", "x.npy", "y.npy", "--slices", texts[0], "--slices", texts[1])

    assert refused.exit_code == 2 and "have a name of their own" in refused.stderr


def test_a_cross_may_be_written_as_names():
    for cross in ("language,year", ("language", "year"), ["language,year"]):
        assert xent.evaluate(LOGITS, LABELS, slices=SLICES, cross=cross).slices.keys() == MASKS.keys()


# What stands out

SHIFTED = LOGITS * np.where(LANGUAGE == "en", 3.0, 1.0)[:, None]


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_the_brier_score_and_the_calibration_of_a_slice_are_those_of_its_rows_alone(weights):
    found = xent.evaluate(SHIFTED, LABELS, slices=SLICES, cross=CROSS, weights=weights, calibration=True, bins=4).slices

    for name, rows in MASKS.items():
        own = None if weights is None else weights[rows]
        alone = xent.evaluate(SHIFTED[rows], LABELS[rows], weights=own, bins=4)
        numbers = (found[name].brier, found[name].calibration_error, found[name].noise_floor)
        assert numbers == (alone.brier, alone.calibration.error, alone.calibration.noise_floor)


def test_the_p_value_of_a_slice_is_welchs_beside_all_other_rows():
    loss = np.asarray(xent.sparse_cross_entropy(SHIFTED, LABELS))
    found = xent.evaluate(SHIFTED, LABELS, slices=SLICES, cross=CROSS).slices
    expected = []
    for rows in (MASKS[name] for name in found):
        test = scipy.stats.ttest_ind(loss[rows], loss[~rows], equal_var=False)
        degrees = int(test.df)  # whole ones, as everywhere
        expected.append(2 * scipy.stats.t.sf(abs(test.statistic), degrees))

    assert [each.p_value for each in found.values()] == pytest.approx(expected, rel=1e-9)
    adjusted = statsmodels.stats.multitest.multipletests(expected, method="holm")[1]
    assert [each.adjusted_p_value for each in found.values()] == pytest.approx(adjusted, rel=1e-9)


def test_with_clusters_the_p_value_is_never_under_that_of_clusters_in_one_slice():
    domain = CLUSTERS % 3  # a cluster lies in one slice
    whole = xent.evaluate(SHIFTED, LABELS, slices=domain, clusters=CLUSTERS)
    for key, each in whole.slices.items():
        rows = domain == key
        sides = [xent.evaluate(SHIFTED[side], LABELS[side], clusters=CLUSTERS[side]) for side in (rows, ~rows)]
        errors, degrees = ([getattr(side, name) for side in sides] for name in ("standard_error", "degrees_of_freedom"))
        variance = errors[0] ** 2 + errors[1] ** 2
        welch = int(variance**2 / sum(e**4 / d for e, d in zip(errors, degrees, strict=True)))
        t = (sides[0].mean_loss - sides[1].mean_loss) / np.sqrt(variance)
        bound = (each.mean_loss - whole.mean_loss) / (each.standard_error + whole.standard_error)
        assert each.p_value == pytest.approx(2 * scipy.stats.t.sf(abs(bound), degrees[0]), rel=1e-9)
        assert each.p_value >= 2 * scipy.stats.t.sf(abs(t), welch)


def test_the_table_has_what_stands_out_first(files):
    np.save("x.npy", SHIFTED)
    command = ["evaluate", "x.npy", "y.npy", *files, "--calibration", "-q"]
    text = CliRunner(env={"COLUMNS": "200"}).invoke(main, command).stdout
    slices = xent.evaluate(SHIFTED, LABELS, slices=SLICES, cross=CROSS).slices
    order = sorted(slices, key=lambda name: slices[name].p_value)

    places = [text.index(f"│ {name} ") for name in order]
    assert places == sorted(places)
    assert "Holm p" in text and "cal. error" in text


def test_a_slice_of_all_rows_or_of_one_has_no_p_value():
    assert np.isnan(xent.evaluate(LOGITS, LABELS, slices=np.zeros(ROWS, int)).slices[0].p_value)
    assert np.isnan(xent.evaluate(LOGITS, LABELS, slices=np.arange(ROWS) == 5).slices[True].p_value)


def test_bytes_of_rows_are_by_slice_of_each_column_too():
    sizes = RNG.integers(1, 9, ROWS)
    found = xent.evaluate(LOGITS, LABELS, slices=SLICES, cross=CROSS, predicted_bytes=sizes).slices
    for name, rows in MASKS.items():
        alone = xent.evaluate(LOGITS[rows], LABELS[rows], predicted_bytes=sizes[rows])
        assert found[name].bits_per_byte == pytest.approx(alone.bits_per_byte, rel=1e-13)
