"""Outputs at URLs: every option alike, each whole or not there."""

import json

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from click.testing import CliRunner
from fsspec.implementations.memory import MemoryFileSystem

import xent
from xent.cli import main
from xent.evaluation.evaluations import evaluate, merge_parts
from xent.evaluation.outputs import WriteError

ROWS, CLASSES = 60, 5
LOGITS = np.random.default_rng(0).standard_normal((ROWS, CLASSES)).astype(np.float32)
LABELS = np.arange(ROWS) % CLASSES
OUTPUTS = [
    ("--html", "r.html"),
    ("--tables", "tables"),
    ("--per-example", "l.npy"),
    ("--per-example", "l.parquet"),
    ("--per-example", "l.zarr"),
    ("--state", "state"),
    ("--state-out", "p.json"),
    ("--junit", "j.xml"),
    ("--lm-eval", "h.json"),
    ("--model-index", "m.yaml"),
    ("--openmetrics", "o.txt"),
]


class Shelf(MemoryFileSystem):
    """Files in memory that tell in which order they are written, and of which some cannot be."""

    protocol = "shelf"
    store, pseudo_dirs = {}, [""]
    written, refused = [], ""

    def __init__(self, token="none", **options):
        super().__init__(**options)
        self.token = token

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("shelf://", "memory://", 1))

    def _open(self, path, mode="rb", **options):
        if "w" in mode or "x" in mode:
            if self.refused and self.refused in path:
                raise PermissionError(f"{self.token} may not write")
            Shelf.written.append(path)
        return super()._open(path, mode, **options)

    def pipe_file(self, path, value, mode="overwrite", **options):
        with self.open(path, "wb") as file:
            file.write(value)


@pytest.fixture(autouse=True)
def shelf(tmp_path, monkeypatch):
    """A file system of fsspec's that is empty, and a set in the current folder."""
    fsspec.register_implementation("shelf", Shelf, clobber=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("xent.evaluation.sources.servers.WAITS", ())
    np.save("x.npy", LOGITS)
    np.save("y.npy", LABELS)
    Shelf.store.clear()
    Shelf.pseudo_dirs[:] = [""]
    monkeypatch.setattr(Shelf, "written", [])
    return fsspec.filesystem("shelf")


def run(*arguments, code=0):
    needed = {"--junit": ["--fail-if", "accuracy>1"]}
    options = needed.get(next((each for each in arguments if each in needed), ""), [])
    made = CliRunner().invoke(main, ["evaluate", "x.npy", "y.npy", "-q", *map(str, arguments), *options])

    assert made.exit_code == code, made.output
    return made.stderr


def content(file):
    """What is in a file without what tells when it was made."""
    if str(file).endswith(".npy"):
        return np.load(file).tobytes()
    if str(file).endswith(".parquet"):
        return pq.read_table(file).to_pydict()
    return None


@pytest.mark.parametrize(("option", "name"), OUTPUTS)
def test_every_output_is_written_to_a_url_as_to_a_disk(shelf, tmp_path, option, name):
    run(option, name)
    run(option, f"shelf://out/{name}")
    shelf.get(f"/out/{name}", str(tmp_path / "back" / name), recursive=True)
    local = sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*"))
    back = tmp_path / "back" / name

    assert sorted(path.relative_to(back) for path in back.rglob("*")) == local
    for path in [tmp_path / name, *(tmp_path / name / each for each in local)]:
        copy = back / path.relative_to(tmp_path / name)
        assert path.is_dir() == copy.is_dir()
        if path.is_file():
            assert content(path) == content(copy) and abs(len(path.read_bytes()) - len(copy.read_bytes())) < 64
    if name.endswith(".zarr"):
        assert np.array_equal(zarr.open_array(back)[:], zarr.open_array(tmp_path / name)[:])


@pytest.mark.parametrize(("option", "name"), [each for each in OUTPUTS if each[0] != "--state"])
def test_what_is_there_is_replaced_only_where_that_is_allowed(shelf, option, name):
    url = f"shelf://out/{name}"
    run(option, url)
    before = dict(Shelf.store)
    refused = run(option, url, code=2)

    assert f"`{option}` must be a new file, got shelf://out/{name}, which is there" in refused
    assert {path: id(file) for path, file in Shelf.store.items()} == {path: id(file) for path, file in before.items()}
    run(option, url, "--overwrite")
    assert Shelf.store.keys() == before.keys()


@pytest.mark.parametrize(("option", "name"), OUTPUTS)
def test_a_server_that_refuses_an_output_is_named_without_a_secret(shelf, monkeypatch, option, name):
    monkeypatch.setattr(Shelf, "refused", "/out/")
    said = run(option, f"shelf://out/{name}", "--storage-option", "token=hidden-token", code=2)

    assert said.count("\n") <= 3 and "shelf://out/" in said and "could not be written" in said
    assert "Pass credentials that may write it in `--storage-option`" in said and "hidden-token" not in said
    assert not Shelf.store


def test_the_result_is_not_lost_with_its_output(shelf, monkeypatch):
    monkeypatch.setattr(Shelf, "refused", "/out/")
    with pytest.raises(WriteError, match=r"shelf://out/l\.npy could not be written") as refused:
        evaluate("x.npy", "y.npy", per_example="shelf://out/l.npy")

    assert refused.value.result == evaluate("x.npy", "y.npy")


def test_no_input_at_a_url_is_replaced(shelf):
    shelf.put("x.npy", "/out/x.npy")
    for path in ("shelf://out/x.npy", "shelf:///out/x.npy"):
        with pytest.raises(ValueError, match=r"`per_example` must be another path than the inputs, got shelf:/"):
            evaluate("shelf://out/x.npy", "y.npy", per_example=path, overwrite=True)


def test_the_file_that_names_the_others_of_a_folder_is_written_last(shelf):
    run("--per-example", "shelf://out/l.zarr")
    run("--tables", "shelf://out/tables")

    assert [path for path in Shelf.written if "l.zarr" in path][-1] == "/out/l.zarr/zarr.json"
    assert Shelf.written[-1] == "/out/tables/metrics.parquet"


def test_a_folder_of_other_files_is_not_overwritten(shelf):
    shelf.pipe("/out/tables/other.txt", b"")
    shelf.pipe("/out/l.zarr/zarr.json", b'{"node_type": "group"}')

    assert "be a folder of nothing but these tables" in run("--tables", "shelf://out/tables", "--overwrite", code=2)
    assert "or a Zarr array that may be" in run("--per-example", "shelf://out/l.zarr", "--overwrite", code=2)
    assert not Shelf.written[2:]


def test_a_run_goes_on_where_its_state_at_a_url_ends(shelf, monkeypatch):
    options = {"state": "shelf://out/state", "chunk_bytes": CLASSES * 4 * 20}
    expected = evaluate("x.npy", "y.npy", **options)
    shelf.rm("/out/state/rows-20-40.json")
    Shelf.written.clear()

    assert evaluate("x.npy", "y.npy", **options) == expected == evaluate("x.npy", "y.npy")
    assert Shelf.written == ["/out/state/rows-20-40.json"]
    with pytest.raises(ValueError, match=r"got shelf://out/state, whose options have changed since"):
        evaluate("x.npy", "y.npy", top_k=(2,), **options)
    shelf.pipe("/out/state/rows-0-20.json", b"{}")
    with pytest.raises(xent.evaluation.sources.ReadError, match=r"state/rows-0-20\.json is corrupt"):
        evaluate("x.npy", "y.npy", **options)
    with pytest.raises(ValueError, match=r"`state` must be on a disk where `per_example` is given"):
        evaluate("x.npy", "y.npy", per_example="l.npy", **options)


def test_a_state_at_a_url_is_of_nothing_else(shelf):
    shelf.pipe("/out/state/other.txt", b"")
    with pytest.raises(ValueError, match=r"must be a new directory, .* got shelf://out/state, which holds other"):
        evaluate("x.npy", "y.npy", state="shelf://out/state")


def test_parts_at_urls_are_merged_with_a_glob_too(shelf):
    for rows, name in (((0, 20), "a"), ((20, None), "b")):
        evaluate("x.npy", "y.npy", rows=rows, state_out=f"shelf://out/{name}.json")
    expected = evaluate("x.npy", "y.npy")
    made = CliRunner().invoke(main, ["merge", "shelf://out/*.json", "--json", "--storage-option", "token=a-token"])

    assert merge_parts(["shelf://out/*.json"]) == merge_parts(["shelf://out/b.json", "shelf://out/a.json"]) == expected
    assert json.loads(made.stdout)["metrics"]["loss"]["value"] == expected.mean_loss
    with pytest.raises(FileNotFoundError, match=r"`parts` must be files that are there, got shelf://out/c\.json"):
        merge_parts(["shelf://out/c.json"])


def test_a_bucket_that_is_not_there_is_told_before_any_work(monkeypatch):
    class Bucket:
        protocol = ("s3", "s3a")

        def exists(self, path):
            return path != "nope"

    monkeypatch.setattr("xent.evaluation.sources.objects.filesystem", lambda url: (Bucket(), url.removeprefix("s3://")))
    monkeypatch.setattr("xent.evaluation.engine.tasks.measure_rows", None)
    with pytest.raises(
        FileNotFoundError, match=r"`per_example` must lie in a bucket that is there, got s3://nope/l\.npy"
    ):
        evaluate("x.npy", "y.npy", per_example="s3://nope/l.npy")
