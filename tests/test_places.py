"""Files at URLs: in fsspec's memory, and on a web server that is asked for ranges."""

import http.server
import pickle
import re
import shutil
import threading
from collections import Counter
from functools import partial
from pathlib import Path

import cloudpickle
import formats
import fsspec
import numpy as np
import pytest
from click.testing import CliRunner
from formats import CLASSES, ROWS

from xent.cli import main
from xent.evaluation.engine.evaluate_pass import plan
from xent.evaluation.evaluations import evaluate
from xent.evaluation.options import Options
from xent.evaluation.sources.messages import ReadError, ServerError, refusal
from xent.evaluation.sources.opening import open_source
from xent.evaluation.sources.source import Source
from xent.evaluation.sources.storage import natural_order
from xent.text import shown_text

REMOTE = [name for name in formats.NAMES if "arrow" not in name and "feather" not in name]


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    """Requests that fail are repeated at once."""
    monkeypatch.setattr("xent.evaluation.sources.servers.WAITS", (0.0,))


@pytest.fixture
def no_small_files(monkeypatch):
    """Files are read by ranges, however small."""
    monkeypatch.setattr("xent.evaluation.sources.ranges.SMALL_BYTES", 0)


@pytest.fixture(scope="module")
def logits():
    return formats.some_logits()


@pytest.fixture(scope="module")
def labels():
    return formats.some_labels()


@pytest.fixture(scope="module")
def local(tmp_path_factory, logits, labels):
    """The set in every format in a folder, and the paths in it."""
    folder = tmp_path_factory.mktemp("set")
    return folder, formats.write_all(folder, logits, labels)


@pytest.fixture
def memory(local):
    """The same in fsspec's memory; the base of its URLs."""
    system = fsspec.filesystem("memory")
    system.put(f"{local[0]}/", "/set/", recursive=True)
    yield "memory://set"
    system.rm("/set", recursive=True)


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves ranges of files, as real servers do and http.server does not."""

    def __init__(self, *arguments, seen, **options):
        self.seen = seen
        super().__init__(*arguments, **options)

    def do_GET(self):
        file = Path(self.translate_path(self.path))
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked or not file.is_file():
            return super().do_GET()
        whole = file.read_bytes()
        start = int(asked[1]) if asked[1] else len(whole) - int(asked[2])
        data = whole[start : int(asked[2]) + 1] if asked[1] and asked[2] else whole[start:]
        self.seen[file.name] += len(data)
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{len(whole)}")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Whole(http.server.SimpleHTTPRequestHandler):
    """Serves whole files only."""

    def log_message(self, *_):
        pass


def serve(folder, handler):
    """A server in a thread."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture(scope="module")
def web(local):
    """The same on a web server; the base of its URLs, and how many bytes of each file it has sent."""
    seen = Counter()
    server, base = serve(local[0], partial(Ranges, seen=seen))
    yield base, seen
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", REMOTE)
def test_a_file_in_memory_gives_the_same_bits(memory, local, logits, labels, name):
    predictions, truth = local[1][name]
    made = evaluate(f"{memory}/{predictions}", f"{memory}/{truth}", chunk_bytes=14 * 61)

    assert made == evaluate(logits, labels)


@pytest.mark.parametrize("name", REMOTE)
def test_a_file_on_a_web_server_gives_the_same_bits(web, local, logits, labels, name):
    predictions, truth = local[1][name]
    made = evaluate(f"{web[0]}/{predictions}", f"{web[0]}/{truth}", chunk_bytes=14 * 200)

    assert made == evaluate(logits, labels)


@pytest.mark.usefixtures("no_small_files")
@pytest.mark.parametrize("name", ["npy", "raw", "npz", "safetensors"])
def test_a_task_asks_for_its_own_range(web, local, name):
    base, seen = web
    path = local[1][name][0]
    source = open_source(f"{base}/{path}", "predictions")
    seen.clear()
    source.read(100, 200)

    assert seen == {path.partition("#")[0]: 100 * CLASSES * 2}


def test_a_parquet_task_asks_for_no_more_than_its_row_groups(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    logits = np.random.default_rng(1).normal(size=(20_000, 10)).astype(np.float32)
    table = formats.list_table(logits, np.zeros(20_000, int))
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2000, use_dictionary=False)
    seen = Counter()
    server, base = serve(tmp_path, partial(Ranges, seen=seen))
    source = open_source(f"{base}/x.parquet#logits", "predictions")
    seen.clear()
    made = source.read(4000, 6000)
    server.shutdown()
    server.server_close()

    np.testing.assert_array_equal(made, logits[4000:6000])
    assert isinstance(table, pa.Table) and seen["x.parquet"] < 2 * 2000 * 40 + 2 * 2**16


def test_no_graph_of_urls_holds_data(web, local):
    for name in REMOTE:
        planned = plan(*(f"{web[0]}/{path}" for path in local[1][name]), Options(chunk_bytes=14))

        assert len(cloudpickle.dumps(planned.work().graph()[0])) <= 10_000 + 500 * planned.tasks


@pytest.mark.usefixtures("no_small_files")
def test_a_server_that_sends_no_ranges_is_an_error_before_any_work(tmp_path):
    written = formats.write_all(tmp_path, formats.some_logits(), formats.some_labels())
    server, base = serve(tmp_path, Whole)
    for name in ("npy", "raw", "npz", "safetensors", "parquet of columns", "hdf5"):
        with pytest.raises(ReadError, match=r"could not be read in parts \(its server sends files whole.* Download it"):
            open_source(f"{base}/{written[name][0]}", "predictions")
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("url", ["memory://nope/x.npy", "memory://nope", "memory://nope/x.parquet#a"])
def test_a_url_at_which_nothing_is_is_named(url):
    with pytest.raises(
        FileNotFoundError, match=r"evaluate: `labels` must be the path of .* got memory://nope.*, where"
    ):
        open_source(url, "labels")


def test_the_query_of_a_url_is_not_part_of_its_name(web, logits):
    source = open_source(f"{web[0]}/xy.npz?token=a.b/c#logits", "predictions")

    np.testing.assert_array_equal(source.read(0, ROWS), logits)


def test_a_web_page_that_is_not_there_is_named(web):
    with pytest.raises(FileNotFoundError, match=r"got http://127\.0\.0\.1:\d+/nope\.npy, where nothing is"):
        open_source(f"{web[0]}/nope.npy", "predictions")


@pytest.mark.usefixtures("no_small_files")
def test_a_file_at_a_url_that_changes_after_it_was_opened_is_not_read(memory):
    source = open_source(f"{memory}/x.npy", "predictions")
    fsspec.filesystem("memory").pipe("/set/x.npy", b"other")

    with pytest.raises(ReadError, match=r"x\.npy has changed since it was opened"):
        source.read(0, 10)


@pytest.mark.usefixtures("no_small_files")
def test_a_file_at_a_url_that_is_gone_is_named(memory):
    source = open_source(f"{memory}/x.npy", "predictions")
    fsspec.filesystem("memory").rm("/set/x.npy")

    with pytest.raises(ReadError, match=r"x\.npy could not be opened"):
        source.read(0, 10)


@pytest.mark.usefixtures("no_small_files")
def test_an_answer_that_is_too_short_is_named_by_file(memory, monkeypatch):
    source = open_source(f"{memory}/x.npy", "predictions")
    monkeypatch.setattr("xent.evaluation.sources.storage.check_unchanged", lambda *_: None)
    fsspec.filesystem("memory").pipe("/set/x.npy", fsspec.filesystem("memory").cat("/set/x.npy")[:-100])

    with pytest.raises(ReadError, match=r"x\.npy is truncated: it ended 100 bytes before byte"):
        source.read(ROWS - 10, ROWS)


class Failing(http.server.BaseHTTPRequestHandler):
    """Answers nothing, or with an error; each request is one of a method that it may answer."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments, directory, status):
        self.status = status
        super().__init__(*arguments)

    def answer(self):
        if self.status:
            self.send_error(self.status)
        self.close_connection = True

    do_GET = do_HEAD = answer

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("status", "reason"), [(None, "ServerDisconnectedError"), (500, "500"), (403, "403"), (503, "503")]
)
@pytest.mark.parametrize("name", ["x.npy", "x.zarr", "x.parquet", "x.h5", "*.npy"])
def test_a_server_that_fails_is_an_error_of_the_server_that_says_why(tmp_path, status, reason, name):
    server, base = serve(tmp_path, partial(Failing, status=status))
    result = CliRunner().invoke(main, ["evaluate", f"{base}/{name}", "y.npy"])
    server.shutdown()
    server.server_close()

    assert result.exit_code == 4 and result.stderr.count("\n") == 1, result.stderr
    assert f"{base}/{name}" in result.stderr and reason in result.stderr


@pytest.mark.usefixtures("no_small_files")
def test_a_server_that_hangs_up_in_the_run_is_an_error_of_the_server_that_names_the_rows(local, labels):
    server, base = serve(local[0], partial(Ranges, seen=Counter()))
    planned = plan(f"{base}/x.npy", labels, Options(chunk_bytes=14 * 100))
    server.shutdown()
    server.server_close()

    with pytest.raises(ServerError, match=r"x\.npy could not be (read|opened) \(Client"):
        planned.run()


@pytest.mark.parametrize("url", ["zip://{0}::{1}/x.zip", "zip://{0}::file://{1}/x.zip"])
def test_a_file_in_a_zip_archive_gives_the_same_bits(local, tmp_path, logits, labels, url):
    shutil.make_archive(str(tmp_path / "x"), "zip", local[0])
    for name in ("x.npy", "xy.zarr#logits"):
        path, mark, array = name.partition("#")

        assert evaluate(f"{url.format(path, tmp_path)}{mark}{array}", labels) == evaluate(logits, labels)
    with pytest.raises(FileNotFoundError, match=r"got zip://nope\.npy::.*x\.zip, where nothing is"):
        open_source(url.format("nope.npy", tmp_path), "predictions")
    (tmp_path / "x.zip").write_bytes(b"no archive")
    with pytest.raises(ReadError, match=r"zip://x\.npy::.*x\.zip could not be opened \(BadZipFile"):
        open_source(url.format("x.npy", tmp_path), "predictions")


def test_a_request_that_fails_is_named_by_file_and_rows(memory, monkeypatch):
    source = open_source(f"{memory}/x.npy", "predictions")

    def fails(*_):
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr("xent.evaluation.sources.npy.read_range", fails)

    with pytest.raises(ReadError, match=r"rows 100 to 200 of .*x\.npy could not be read \(ConnectionResetError: reset"):
        source.read(100, 200)


def test_a_zarr_array_at_a_url_that_lacks_a_chunk_is_refused_before_any_work(memory, labels):
    fsspec.filesystem("memory").rm("/set/xy.zarr/logits/c/3/0")

    with pytest.raises(ReadError, match=r"logits is incomplete: 1 of its 9 chunk files are missing"):
        plan(f"{memory}/xy.zarr#logits", labels)


def test_columns_that_are_spread_over_a_file_at_a_url_are_refused(memory, logits):
    with fsspec.open("memory://set/f.npy", "wb") as file:
        np.save(file, np.asfortranarray(logits))

    with pytest.raises(ValueError, match=r"must be stored by rows \(in C order\) at a URL, got .*f\.npy\. Download it"):
        open_source("memory://set/f.npy", "predictions")


@pytest.mark.parametrize("pattern", ["memory://set/parts/*.npy", "memory://set/parts"])
def test_shards_at_a_url_are_listed_in_natural_order(memory, logits, labels, pattern):
    for i, rows in enumerate(np.array_split(logits, 11)):
        with fsspec.open(f"memory://set/parts/part-{i}.npy", "wb") as file:
            np.save(file, rows)

    assert evaluate(pattern, labels) == evaluate(logits, labels)


def test_a_url_needs_fsspec(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)

    with pytest.raises(
        ModuleNotFoundError, match=r"the URL memory://x\.npy needs fsspec\.core, .*'xent-array\[remote\]'"
    ):
        open_source("memory://x.npy", "predictions")


def test_a_url_whose_package_is_not_installed_is_told_of_it():
    with pytest.raises(ModuleNotFoundError, match=r"s3://b/x\.npy needs a package that is not installed \(.*s3fs"):
        open_source("s3://b/x.npy", "predictions")


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match=r"evaluate: nope://x\.npy is not a URL that fsspec knows"):
        open_source("nope://x.npy", "predictions")


def test_a_file_url_is_a_local_path(local, logits):
    source = open_source(f"file://{local[0]}/x.npy", "predictions")

    assert source.path == f"{local[0]}/x.npy" and source.shape == logits.shape


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("https://me:secret@host/x.npy?X-Signature=abc", "https://host/x.npy?…"),
        ("https://host/x.npz?token=abc#logits", "https://host/x.npz?…#logits"),
        ("https://me:p@ss@host/x.npy", "https://host/x.npy"),
        ("s3://bucket/x.zarr", "s3://bucket/x.zarr"),
        ("/data/a@b?c.npy", "/data/a@b?c.npy"),
        (None, None),
    ],
)
def test_what_a_url_keeps_secret_is_not_shown(path, shown):
    assert Source(path, (3, 2), np.dtype("f4")).shown == shown


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("got http://me:secret@h/x.npy?sig=secret, where nothing is.", "got http://h/x.npy?…, where nothing is."),
        ("404, url='http://h/a?sig=secret' (http://h/b?sig=secret).", "404, url='http://h/a?…' (http://h/b?…)."),
        ("Pass http://h/x.npz?sig=secret#logits.", "Pass http://h/x.npz?…#logits."),
        ("simplecache::s3://k:secret@h/x and 3 > 2 ? 1 : 0", "simplecache::s3://h/x and 3 > 2 ? 1 : 0"),
    ],
)
def test_what_a_url_keeps_secret_is_in_no_message(message, shown):
    assert (
        shown_text(message) == str(ReadError(message)) == str(pickle.loads(pickle.dumps(ReadError(message)))) == shown
    )
    assert shown in refusal("labels", "be", message, "")


@pytest.mark.parametrize("name", ["nope.npy", "nope.zarr", "nope.parquet#a", "y.npy#a", "nope/*.npy"])
def test_what_the_url_of_a_file_keeps_secret_is_not_told(web, name):
    path, mark, array = name.partition("#")
    url = f"{web[0].replace('://', '://me:SECRET@')}/{path}?sig=SECRET{mark}{array}"
    with pytest.raises((OSError, ValueError)) as raised:
        open_source(url, "predictions")

    assert path in str(raised.value) and "SECRET" not in str(raised.value)


PASSWORDS = ["pa/ss", "pa'ss", "pa<ss", 'pa"ss', "pa@ss", "pa;ss", "pa?ss", "pa#ss", "pa:ss", "pa)ss", "pa ss"]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize(
    "url",
    [
        "http://me:{}@127.0.0.1:9/x.npy",
        "nope://me:{}@h/x.npz#a",
        "http://me:{}@127.0.0.1:9/*.npy",
    ],
)
def test_a_password_that_should_have_been_encoded_is_in_no_message(password, url):
    with pytest.raises((OSError, ValueError)) as raised:
        open_source(url.format(password), "predictions")

    assert str(raised.value).startswith("evaluate: ") and "me:" not in str(raised.value)
    assert not any(part in str(raised.value).replace("passed", "") for part in ("pa/", "pa'", "pa<", "ss@", "pa "))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x.npy;token=SECRET", "http://127.0.0.1:9/a;token=SECRET/x.npz#a"])
def test_parameters_of_a_url_are_in_no_message(url):
    with pytest.raises(OSError, match=r"evaluate: http://127\.0\.0\.1:9/(x\.npy|a);… could not be opened") as raised:
        open_source(url, "predictions")

    assert "SECRET" not in str(raised.value)


def test_an_array_is_shown_without_what_its_url_keeps_secret():
    assert (
        str(Source("https://me:SECRET@h/x.npy?sig=SECRET", (3,), np.dtype("f4"))) == "float32[3] in https://h/x.npy?…"
    )


@pytest.mark.parametrize("url", ["nope://me:SECRET@h/x.npy?sig=SECRET", "s3://me:SECRET@b/x.npy?sig=SECRET"])
def test_a_protocol_that_cannot_be_is_named_without_secrets(url):
    with pytest.raises((ValueError, ModuleNotFoundError), match="evaluate: ") as raised:
        open_source(url, "predictions")

    assert "SECRET" not in str(raised.value)


def test_people_count_the_parts():
    names = ["part-10", "part-2", "part-1", "other", "part-2-b", "10", "9"]

    assert sorted(names, key=natural_order) == ["9", "10", "other", "part-1", "part-2", "part-2-b", "part-10"]
