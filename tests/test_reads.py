"""How servers are asked: each file once, many at the same time, and again where a server is busy."""

import io
import random
import threading
import time
from collections import Counter

import fsspec
import numpy as np
import pytest
import zarr
from fsspec.implementations.memory import MemoryFileSystem

import xent
from xent.evaluation.engine.schedulers import threads_of
from xent.evaluation.evaluations import evaluate
from xent.evaluation.sources import ranges, servers, unopened
from xent.evaluation.sources.messages import ReadError
from xent.evaluation.sources.opening import open_source
from xent.evaluation.sources.storage import check_unchanged, open_file, read_range, remembering, status

ROWS, CLASSES, FILES = 320, 5, 32
LOGITS = np.random.default_rng(0).standard_normal((ROWS, CLASSES)).astype(np.float32)
LABELS = np.arange(ROWS) % CLASSES
EXPECTED = evaluate(LOGITS, LABELS)


class Counted(MemoryFileSystem):
    """Files in memory that tell what was asked for, how much at once, and that are busy now and then."""

    protocol = "counted"
    store, pseudo_dirs = {}, [""]
    asked, lock = Counter(), threading.Lock()
    under_way = most = 0
    seconds, busy, random = 0.0, 0.0, random.Random(0)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("counted://", "memory://", 1))

    def answer(self, method, path, *arguments, **options):
        with self.lock:
            Counted.asked[method, path.rpartition("/")[2]] += 1
            Counted.under_way += 1
            Counted.most = max(self.most, self.under_way)
            is_busy = self.random.random() < self.busy
        try:
            time.sleep(self.seconds)
            if is_busy:
                raise OSError(16, "Please reduce your request rate")
            return getattr(super(), method)(path, *arguments, **options)
        finally:
            with self.lock:
                Counted.under_way -= 1

    def info(self, path, **options):
        return self.answer("info", path, **options)

    def ls(self, path, **options):
        return self.answer("ls", path, **options)

    def find(self, path, **options):
        return self.answer("find", path, **options)

    def cat_file(self, path, *arguments, **options):
        return self.answer("cat_file", path, *arguments, **options)


def of_method(method):
    return {name: count for (asked, name), count in Counted.asked.items() if asked == method}


@pytest.fixture(scope="module")
def stored():
    """The set in some formats; the base of its URLs."""
    fsspec.register_implementation("counted", Counted, clobber=True)
    system, step = fsspec.filesystem("counted"), ROWS // FILES
    for i in range(FILES):
        system.pipe(f"/set/parts/{i}.npy", npy_bytes(LOGITS[i * step : (i + 1) * step]))
    system.pipe("/set/x.npy", npy_bytes(LOGITS))
    system.pipe("/set/y.npy", npy_bytes(LABELS))
    for name, shards in (("x", None), ("sharded", (80, CLASSES))):
        zarr.create_array(f"counted://set/{name}.zarr", data=LOGITS, chunks=(20, CLASSES), shards=shards)
    return "counted://set"


@pytest.fixture(autouse=True)
def fresh(stored, monkeypatch):
    """No server has been asked, and none is slow or busy; requests are repeated at once."""
    monkeypatch.setattr(servers, "WAITS", (0.0,) * 6)
    monkeypatch.setattr(ranges, "KEPT", ranges.Kept())
    for name, value in {"seconds": 0.0, "busy": 0.0, "most": 0, "random": random.Random(0)}.items():
        monkeypatch.setattr(Counted, name, value)
    Counted.asked.clear()


def npy_bytes(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("few", [FILES, 1])
@pytest.mark.parametrize("name", ["parts", "parts/*.npy"])
def test_a_small_shard_is_one_request_and_a_listing_tells_of_all(stored, name, few, monkeypatch):
    monkeypatch.setattr(unopened, "FEW", few)  # tasks open their own where shards are more
    made = evaluate(f"{stored}/{name}", LABELS, chunk_bytes=CLASSES * 4 * 50)

    assert made == EXPECTED
    assert of_method("cat_file") == {f"{i}.npy": 1 for i in range(FILES)}
    assert not any(file.endswith(".npy") for file in of_method("info"))
    assert sum(of_method("ls").values()) + sum(of_method("find").values()) <= 2


def test_a_file_that_is_not_small_is_asked_for_by_ranges_and_once_whether_it_changed(stored, monkeypatch):
    monkeypatch.setattr(ranges, "SMALL_BYTES", 0)
    source = open_source(f"{stored}/x.npy", "predictions")
    part = source.parts([0, 100, ROWS])[1][0]
    Counted.asked.clear()
    read = part.read(0, 100)

    assert np.array_equal(read, LOGITS[:100])
    assert dict(Counted.asked) == {("info", "x.npy"): 1, ("cat_file", "x.npy"): 1}


def test_small_files_are_kept_up_to_a_limit_and_the_oldest_goes_first(stored, monkeypatch):
    size = len(npy_bytes(LOGITS[:10]))
    monkeypatch.setattr(ranges, "KEPT_BYTES", 3 * size)
    stamps = {i: status(f"{stored}/parts/{i}.npy").stamp for i in range(4)}
    for i in (0, 1, 2, 0, 3, 0, 2, 3, 1):
        read_range(f"{stored}/parts/{i}.npy", 0, size, stamps[i])

    assert of_method("cat_file") == {"0.npy": 1, "1.npy": 2, "2.npy": 1, "3.npy": 1} and ranges.KEPT.size == 3 * size


@pytest.mark.parametrize("name", ["x.zarr", "sharded.zarr"])
def test_a_zarr_array_is_listed_once_and_each_chunk_is_one_request(stored, name):
    made = evaluate(f"{stored}/{name}", LABELS, chunk_bytes=CLASSES * 4 * 40)
    chunks, files = of_method("cat_file"), {"x.zarr": 16, "sharded.zarr": 4}[name]
    of_metadata = {file: count for file, count in chunks.items() if not file.isdigit()}

    assert made == EXPECTED
    assert sum(of_method("find").values()) == 1 and set(of_method("info")) <= {"zarr.json", name}
    assert of_metadata == {"zarr.json": 1, ".zarray": 1, ".zattrs": 1}  # zarr asks for both versions at once
    if name == "x.zarr":
        assert sum(chunks.values()) - sum(of_metadata.values()) == files


@pytest.mark.parametrize("flaw", ["lost", "empty", "too large"])
def test_a_chunk_at_a_url_that_is_not_as_it_must_be_is_named(stored, flaw):
    system = fsspec.filesystem("counted")
    zarr.create_array(f"{stored}/{flaw}.zarr", data=LOGITS, chunks=(20, CLASSES), overwrite=True)
    source = open_source(f"{stored}/{flaw}.zarr", "predictions")
    source.check_complete()
    chunk = f"/set/{flaw}.zarr/c/3/0"
    system.rm(chunk) if flaw == "lost" else system.pipe(chunk, b"" if flaw == "empty" else bytes(2**18))
    said = {"lost": "is not there", "empty": "is empty", "too large": "has more than 65986 bytes, and a chunk that"}

    with pytest.raises(ReadError, match=rf"rows 60 to 80 of .*\.zarr could not be read .*/c/3/0 {said[flaw]}"):
        source.read(60, 80)


def test_the_shards_of_a_chunk_are_asked_for_at_the_same_time(stored, monkeypatch):
    monkeypatch.setattr(ranges, "SMALL_BYTES", 0)
    source = open_source(f"{stored}/parts", "predictions")
    monkeypatch.setattr(Counted, "seconds", 0.01)
    Counted.most = 0
    read = source.read(0, ROWS)

    assert np.array_equal(read, LOGITS) and Counted.most > 8


def test_a_large_range_is_asked_for_in_pieces_at_the_same_time(stored, monkeypatch):
    monkeypatch.setattr(ranges, "SMALL_BYTES", 0)
    source = open_source(f"{stored}/x.npy", "predictions")
    monkeypatch.setattr(ranges, "PIECE_BYTES", 1000)
    monkeypatch.setattr(Counted, "seconds", 0.01)
    Counted.most = 0
    read = source.read(10, 310)

    assert np.array_equal(read, LOGITS[10:310]) and of_method("cat_file")["x.npy"] == 1 + 6 and Counted.most > 3


def test_a_chunk_is_read_while_another_is_worked_on(stored, monkeypatch):
    monkeypatch.setattr(ranges, "SMALL_BYTES", 0)
    monkeypatch.setattr(Counted, "seconds", 0.01)
    with xent.using(threads=1):
        made = evaluate(f"{stored}/x.npy", LABELS, chunk_bytes=CLASSES * 4 * 40, scheduler="threads")

        assert made == EXPECTED and Counted.most == 2 == threads_of("threads", is_remote=True) == 2 * threads_of(None)


@pytest.mark.parametrize("name", ["parts", "parts/*.npy", "x.npy", "x.zarr", "sharded.zarr"])
def test_a_server_that_is_busy_for_three_requests_in_ten_leaves_the_same_bits(stored, monkeypatch, name):
    monkeypatch.setattr(Counted, "busy", 0.3)

    assert evaluate(f"{stored}/{name}", f"{stored}/y.npy", chunk_bytes=CLASSES * 4 * 50) == EXPECTED


def test_a_server_that_stays_busy_is_an_error_after_the_last_wait(stored, monkeypatch):
    monkeypatch.setattr(Counted, "busy", 1.0)

    with pytest.raises(ReadError, match=r"x\.npy could not be opened .*reduce your request rate.* It is too busy"):
        status(f"{stored}/x.npy")
    assert of_method("info") == {"x.npy": 7}


def test_waits_double_and_no_two_clients_wait_as_long(monkeypatch):
    monkeypatch.setattr(servers, "WAITS", (0.1, 0.2, 0.4))
    first, second = [*servers.waits()], [*servers.waits()]

    assert first != second and first[-1] is None
    assert all(wait / 2 <= given <= wait * 1.5 for wait, given in zip(servers.WAITS, first, strict=False))


@pytest.mark.parametrize("error", [PermissionError("Forbidden"), ConnectionRefusedError(111, "refused")])
def test_what_will_not_change_is_not_asked_again(error):
    asked = []

    def ask():
        asked.append(error)
        raise error

    with pytest.raises(ReadError, match="could not be opened"):
        servers.asked("counted://set/x.npy", ask)
    assert len(asked) == 1


def test_what_is_told_is_told_for_one_reading_alone(stored):
    system = fsspec.filesystem("counted")
    system.pipe("/set/changing.npy", npy_bytes(LOGITS))
    with remembering():
        first = status(f"{stored}/changing.npy")
        system.pipe("/set/changing.npy", npy_bytes(LOGITS[:10]))
        again = status(f"{stored}/changing.npy")

    assert again == first and status(f"{stored}/changing.npy").size != first.size
    with pytest.raises(ReadError, match=r"changing\.npy has changed since it was opened"):
        check_unchanged(f"{stored}/changing.npy", first.stamp)


class Object(io.BytesIO):
    """A file of s3fs, which knows what it asks for."""

    details = None

    def __init__(self, data, **options):
        super().__init__(data)
        self.options, self.read_kw = options, {"RequestPayer": None}

    def read(self, size):
        if self.read_kw["IfMatch"] != '"tag"':
            raise type("FileExpired", (OSError,), {})(16, "the file has expired")
        assert self.details["ETag"] == self.read_kw["IfMatch"] and self.read_kw["RequestPayer"] is None
        return super().read(size)


def test_an_object_is_asked_for_by_its_tag_and_by_nothing_else(monkeypatch):
    opened = []

    class Bucket:
        protocol = ("s3", "s3a")

        def open(self, path, mode, **options):
            opened.append((path, options["size"]))
            return Object(b"0123456789")

    for module in (ranges, servers):
        monkeypatch.setattr(module, "filesystem", lambda url: (Bucket(), url.removeprefix("s3://")))
    monkeypatch.setattr(ranges, "SMALL_BYTES", 0)
    told = (10, '"tag"')

    assert read_range("s3://b/x", 2, 5, told) == b"234" and opened == [("b/x", 10)]
    with remembering():
        check_unchanged("s3://b/x", told)
        with open_file("s3://b/x") as file:
            assert file.read() == b"0123456789"
    with pytest.raises(ReadError, match=r"s3://b/x has changed since it was opened\. Run it again"):
        read_range("s3://b/x", 2, 5, (10, '"another"'))
