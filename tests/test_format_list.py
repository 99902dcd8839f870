"""One list of the formats: what opens them, help, messages and pages name the same."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from xent.cli import main
from xent.evaluation.evaluations import evaluate
from xent.evaluation.formats import FORMATS, SUFFIXES, listed
from xent.evaluation.sources.messages import MalformedError
from xent.evaluation.sources.opening import OPENERS, open_source

PAGES = Path(__file__).parents[1]


def test_every_suffix_has_an_opener_and_is_listed_once():
    assert sorted(SUFFIXES) == sorted({*OPENERS, ".zarr"}) and len({*SUFFIXES}) == len(SUFFIXES)


def test_the_page_has_a_row_for_each_format():
    page = (PAGES / "docs" / "evaluation.md").read_text("utf-8")

    for form in FORMATS:
        assert f"\n| {form.name} ({', '.join(form.suffixes)}) | {form.naming} |\n" in page, form.name


def test_docstrings_and_the_first_page_name_each_format():
    for text in (evaluate.__doc__, (PAGES / "README.md").read_text("utf-8")):
        assert [form.name for form in FORMATS if form.name not in text] == []


@pytest.mark.parametrize("command", ["evaluate", "compare", "inspect"])
def test_help_lists_each_suffix(command):
    told = CliRunner().invoke(main, [command, "--help"]).stdout

    assert [suffix for suffix in SUFFIXES if suffix not in told] == []


def test_a_file_of_no_known_suffix_is_refused_with_the_list(tmp_path):
    (tmp_path / "x.xlsx").write_bytes(b"spam")

    with pytest.raises(
        MalformedError, match=r"must be the path of a set in .*x\.xlsx\. Give it the suffix of its format \(\.npy"
    ) as error:
        open_source(tmp_path / "x.xlsx", "predictions")
    assert listed() in str(error.value)
    np.save(tmp_path / "y.npy", np.zeros((3, 2)))
    (tmp_path / "y.npy").rename(tmp_path / "y.dat")
    assert open_source(tmp_path / "y.dat", "predictions").shape == (3, 2)
