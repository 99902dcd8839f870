"""Options of the file systems behind URLs, and what is said of a server that is not there, or refuses."""

import contextvars
import io
import json
import pickle
import re

import fsspec
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from click.testing import CliRunner
from fsspec.implementations.memory import MemoryFileSystem

from xent.cli import main
from xent.evaluation.evaluations import compare, evaluate
from xent.evaluation.sources.messages import ReadError, remedy_of_server
from xent.evaluation.sources.opening import open_source
from xent.evaluation.sources.storage_options import options_in_texts, options_of, storage_options_set

TOKEN = "hidden-token"
ROWS, CLASSES = 60, 5
LOGITS = np.random.default_rng(0).standard_normal((ROWS, CLASSES)).astype(np.float32)
LABELS = np.arange(ROWS) % CLASSES
EXPECTED = evaluate(LOGITS, LABELS)
SETS = ("x.npy", "x.zarr", "x.parquet#p", "parts", "parts/*.npy", "x.bin#float32,60,5")
DENIED = r"could not be opened \(PermissionError: .*\)\. Pass credentials that may read it in `storage_options`"


class Vault(MemoryFileSystem):
    """Files in memory behind a token, of which the error of another one tells."""

    protocol = "vault"
    store, pseudo_dirs = {}, [""]

    def __init__(self, token="none", **options):
        super().__init__(**options)
        self.token = token

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("vault://", "memory://", 1))

    def check(self):
        if self.token != TOKEN:
            raise PermissionError(f"the token {self.token} is not that of the vault")

    def info(self, path, **options):
        self.check()
        return super().info(path, **options)

    def ls(self, path, **options):
        self.check()
        return super().ls(path, **options)

    def exists(self, path, **options):
        self.check()
        return super().exists(path, **options)

    def _open(self, path, *arguments, **options):
        self.check()
        return super()._open(path, *arguments, **options)

    def cat_file(self, path, *arguments, **options):
        self.check()
        return super().cat_file(path, *arguments, **options)


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    """Requests that fail are repeated at once, and files are read by ranges, however small."""
    monkeypatch.setattr("xent.evaluation.sources.servers.WAITS", (0.0,))
    monkeypatch.setattr("xent.evaluation.sources.ranges.SMALL_BYTES", 0)


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    """The set in some formats, in the vault; the base of its URLs."""
    folder = tmp_path_factory.mktemp("vault")
    (folder / "parts").mkdir()
    np.save(folder / "x.npy", LOGITS)
    np.save(folder / "y.npy", LABELS)
    (folder / "x.bin").write_bytes(LOGITS.tobytes())
    for i in range(3):
        np.save(folder / "parts" / f"{i}.npy", LOGITS[i * 20 : i * 20 + 20])
    zarr.create_array(folder / "x.zarr", data=LOGITS, chunks=(20, CLASSES))
    np.savez(folder / "x.npz", x=LOGITS)
    with h5py.File(folder / "x.h5", "w") as file:
        file["x"] = LOGITS
    np.savetxt(folder / "x.csv", LOGITS, delimiter=",", header="p0,p1,p2,p3,p4", comments="")
    facts = json.dumps({"x": {"dtype": "F32", "shape": LOGITS.shape, "data_offsets": [0, LOGITS.nbytes]}}).encode()
    (folder / "x.safetensors").write_bytes(len(facts).to_bytes(8, "little") + facts + LOGITS.tobytes())
    (folder / "names.txt").write_text("a\nb\nc\nd\ne\n", "utf-8")
    column = pa.FixedSizeListArray.from_arrays(pa.array(LOGITS.ravel()), CLASSES)
    pq.write_table(pa.table({"p": column}), folder / "x.parquet")
    fsspec.register_implementation("vault", Vault, clobber=True)
    fsspec.filesystem("vault", token=TOKEN).put(f"{folder}/", "/set/", recursive=True)
    return "vault://set"


@pytest.mark.parametrize("name", SETS)
def test_options_open_every_format_and_go_with_the_tasks(vault, name):
    options = {"token": TOKEN}

    assert evaluate(f"{vault}/{name}", f"{vault}/y.npy", storage_options=options, chunk_bytes=400) == EXPECTED
    with storage_options_set(options):
        source = open_source(f"{vault}/{name}", "predictions")
        part = pickle.dumps(source.parts([0, 40, ROWS])[1][1])
    read = contextvars.Context().run(lambda: pickle.loads(part).read(0, 20))  # as in a process that knows nothing
    assert np.array_equal(read, LOGITS[40:])


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("options", [None, {"token": "another-token"}, {"memory": {"token": TOKEN}}])
def test_a_server_that_refuses_is_an_error_that_names_the_url_and_the_remedy(vault, name, options):
    with pytest.raises(ReadError, match=f"vault:///?set/.* {DENIED}") as refused:
        evaluate(f"{vault}/{name}", LABELS, storage_options=options)

    assert "another-token" not in str(refused.value)


@pytest.mark.parametrize("command", ["evaluate", "compare", "inspect"])
def test_every_command_takes_them_and_refuses_in_one_line(vault, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    np.save("y.npy", LABELS)
    arguments = [command, *[f"{vault}/parts"] * (1 + (command == "compare")), *["y.npy"] * (command != "inspect")]
    made = CliRunner().invoke(main, [*arguments, "--json", "--storage-option", f"vault.token={TOKEN}"])
    refused = CliRunner().invoke(main, [*arguments, "--storage-option", "token=another-token"])

    assert made.exit_code == 0 and json.loads(made.stdout) and TOKEN not in made.output
    assert refused.exit_code == 3 and refused.stderr.count("\n") == 1 and "vault://set/parts" in refused.stderr
    assert "Pass credentials that may read it in `--storage-option`" in refused.stderr
    assert "another-token" not in refused.output


def test_options_are_in_no_state_and_no_document(vault, tmp_path):
    options = {"token": TOKEN}
    found = evaluate(f"{vault}/x.npy", f"{vault}/y.npy", storage_options=options, state=tmp_path / "s")
    kept = {file.name: file.read_text("utf-8") for file in (tmp_path / "s").iterdir()}

    assert "manifest.json" in kept and not any(TOKEN in text for text in kept.values())
    assert TOKEN not in found.to_json() and TOKEN not in found.page() and TOKEN not in repr(found)


def test_two_sets_have_options_of_their_own_protocols(vault):
    options = {"vault": {"token": TOKEN}, "memory": {}}
    fsspec.filesystem("memory").pipe("/other.npy", npy_bytes(LOGITS / 2))

    assert compare(f"{vault}/x.npy", "memory://other.npy", LABELS, storage_options=options).a == EXPECTED


def npy_bytes(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("options", "url", "expected"),
    [
        (None, "s3://b/x", {}),
        ({"anon": True}, "s3://b/x", {"s3": {"anon": True}}),
        ({"anon": True}, "zip://x.npy::s3://b/x.zip", {"s3": {"anon": True}}),
        ({"client_kwargs": {"verify": False}}, "s3://b/x", {"s3": {"client_kwargs": {"verify": False}}}),
        ({"s3": {"anon": True}, "http": {"encoded": True}}, "s3://b/x", {"s3": {"anon": True}}),
        ({"s3": {"anon": True}}, "https://h/x", {}),
        ({"s3": {"key": "a"}, "key": "b", "secret": "c"}, "s3://b/x", {"s3": {"key": "a", "secret": "c"}}),
    ],
)
def test_an_option_holds_for_its_protocol_or_where_the_bytes_are(options, url, expected):
    with storage_options_set(options):
        assert options_of(url) == expected
    assert options_of(url) == {}


def test_options_are_written_as_names_and_values():
    texts = ["anon=true", "port=22", "key=a=b", 'password="12"', "s3.client_kwargs.region_name=eu", "s3.anon=false"]
    expected = {"anon": True, "port": 22, "key": "a=b", "password": "12"}

    assert options_in_texts(texts) == expected | {"s3": {"client_kwargs": {"region_name": "eu"}, "anon": False}}


@pytest.mark.parametrize("text", ["anon", "=true", "", ".anon=true", "s3.=x"])
def test_what_is_no_option_is_refused(text, tmp_path):
    made = CliRunner().invoke(main, ["inspect", str(tmp_path), "--storage-option", text])

    assert made.exit_code == 2 and "`--storage-option` must be name=value" in made.stderr
    assert made.stderr.count("\n") == 1


def test_options_that_are_no_mapping_are_refused():
    for options in ("anon", [("anon", True)], {1: 2}):
        with pytest.raises(TypeError, match=r"evaluate: `storage_options` must be a mapping of names to values, got"):
            evaluate(LOGITS, LABELS, storage_options=options)


# -------------------- what is said of a server


def of_package(module, name, message="it failed", base=Exception, cause=None, **facts):
    """An error as another package raises it."""
    error = type(name, (base,), {"__module__": module})(*([message] if isinstance(message, str) else message))
    for fact, value in facts.items():
        setattr(error, fact, value)
    error.__cause__ = cause
    return error


def of_s3(code, status):
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return of_package("botocore.exceptions", "ClientError", response=answer)


SERVER_ERRORS = [
    (of_package("botocore.exceptions", "NoCredentialsError"), "credentials"),
    (of_package("google.auth.exceptions", "DefaultCredentialsError"), "credentials"),
    (of_package("azure.core.exceptions", "ClientAuthenticationError", status_code=401), "credentials"),
    (PermissionError("Forbidden"), "credentials"),
    (of_package("aiohttp.client_exceptions", "ClientResponseError", status=403), "credentials"),
    (of_package("builtins", "OSError", (22, "Bad Request"), OSError, of_s3("ExpiredToken", 400)), "credentials"),
    (
        of_package("builtins", "OSError", (16, "Please reduce your request rate"), OSError, of_s3("SlowDown", 503)),
        "busy",
    ),
    (of_package("aiohttp.client_exceptions", "ClientResponseError", status=429), "busy"),
    (of_package("botocore.exceptions", "EndpointConnectionError"), "address"),
    (of_package("aiohttp.client_exceptions", "ClientConnectorError"), "address"),
    (ConnectionRefusedError(111, "Connection refused"), "address"),
    (TimeoutError(), "address"),
    (TypeError("S3FileSystem() got an unexpected keyword argument"), "`storage_options`, which are those of its"),
    (of_s3("InternalError", 500), "Try again"),
]


@pytest.mark.parametrize(("error", "remedy"), SERVER_ERRORS)
def test_the_remedy_is_that_of_the_cause(error, remedy):
    assert remedy in remedy_of_server(error)


@pytest.mark.parametrize("method", ["info", "ls", "exists", "_open", "cat_file"])
@pytest.mark.parametrize("error", [SERVER_ERRORS[0][0], SERVER_ERRORS[6][0]])
@pytest.mark.parametrize("name", ["x.npy", "x.zarr", "x.parquet#p", "parts", "parts/*.npy"])
def test_a_server_that_fails_at_any_request_is_one_line_with_its_url(vault, monkeypatch, tmp_path, method, error, name):
    asked = []

    def fails(self, path, *arguments, **options):
        asked.append(path)
        raise error

    np.save(tmp_path / "y.npy", LABELS)
    monkeypatch.setattr(Vault, method, fails)
    arguments = ["evaluate", f"{vault}/{name}", str(tmp_path / "y.npy"), "-q", "--storage-option", f"token={TOKEN}"]
    made = CliRunner().invoke(main, arguments)

    assert made.exit_code == (4 if asked else 0), made.output
    if asked:
        assert made.stderr.count("\n") == 1 and re.search("vault:///?set/", made.stderr), made.stderr
        assert str(error) in made.stderr and remedy_of_server(error).partition("`")[0].rstrip(".") in made.stderr


@pytest.mark.parametrize("answers", [0, 1])
@pytest.mark.parametrize(
    "name", ["x.npy", "x.npz", "x.h5", "x.csv#p*", "x.safetensors", "parts", "x.parquet#p", "zip", "names"]
)
def test_a_server_that_fails_while_it_is_read_is_one_line_with_its_url(vault, monkeypatch, tmp_path, name, answers):
    error, asked, opened = SERVER_ERRORS[6][0], [], Vault._open

    class Failing(io.BufferedReader):
        """A file of which only so many reads are answered."""

        left, size = answers, property(lambda self: len(self.raw.getbuffer()))

        def read(self, *arguments):
            if not self.left:
                asked.append(name)
                raise error
            self.left -= 1
            return super().read(*arguments)

        def readinto(self, buffer):
            data = self.read(len(buffer))
            buffer[: len(data)] = data
            return len(data)

    monkeypatch.setattr(Vault, "_open", lambda *arguments, **options: Failing(opened(*arguments, **options)))
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", LOGITS)
    np.save("y.npy", LABELS)
    sets = {"zip": ["zip://x.npy::vault://set/x.npz"], "names": ["x.npy", "--class-names", f"{vault}/names.txt"]}
    predictions, *options = sets.get(name, [f"{vault}/{name}"])
    arguments = ["evaluate", predictions, "y.npy", *options, "-q", "--storage-option", f"token={TOKEN}"]
    made = CliRunner().invoke(main, arguments)

    assert made.exit_code == (4 if asked else 0), made.output
    if asked:
        assert made.stderr.count("\n") == 1 and re.search("vault:///?set/", made.stderr), made.stderr
        assert "(OSError: [Errno 16] Please reduce your request rate)" in made.stderr and "too busy" in made.stderr
