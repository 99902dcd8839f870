"""What ``pip install "xent-array[all]"`` brings: each format, option and demo, once, in an environment of nothing else.

``make test-install`` makes that environment, with pytest beside it. The numbers are NumPy's own, by the definition.
"""

import functools
import http.server
import json
import subprocess
import sysconfig
import threading
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

ROWS, CLASSES = 60, 5
LOGITS = np.random.default_rng(0).standard_normal((ROWS, CLASSES)).astype(np.float32)
LABELS = np.arange(ROWS) % CLASSES
XENT = Path(sysconfig.get_path("scripts")) / "xent"


def mean_loss(logits, labels=LABELS):
    """The mean cross entropy, by its definition in float64."""
    wide = logits.astype(np.float64)
    return float(np.mean(np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(labels)), labels]))


def xent(*arguments, code=0):
    """What the installed command writes to stdout."""
    done = subprocess.run([XENT, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout


def evaluated(*arguments):
    """The mean loss of an evaluation."""
    return json.loads(xent("evaluate", *arguments, "--json", "-q"))["metrics"]["loss"]["value"]


def npy(folder):
    np.save(folder / "x.npy", LOGITS)
    return folder / "x.npy"


def npz(folder):
    np.savez(folder / "x.npz", logits=LOGITS)
    return f"{folder / 'x.npz'}#logits"


def raw(folder):
    LOGITS.tofile(folder / "x.bin")
    return f"{folder / 'x.bin'}#float32,{ROWS},{CLASSES}"


def safetensors(folder):
    entry = {"dtype": "F32", "shape": [ROWS, CLASSES], "data_offsets": [0, LOGITS.nbytes]}
    header = json.dumps({"logits": entry}).encode()
    (folder / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + LOGITS.tobytes())
    return f"{folder / 'x.safetensors'}#logits"


def zarr(folder):
    import zarr

    zarr.save_array(str(folder / "x.zarr"), LOGITS)
    return folder / "x.zarr"


def hdf5(folder):
    import h5py

    with h5py.File(folder / "x.h5", "w") as file:
        file["logits"] = LOGITS
    return f"{folder / 'x.h5'}#logits"


def table():
    import pyarrow

    return pyarrow.table({f"p_{index}": LOGITS[:, index] for index in range(CLASSES)})


def parquet(folder):
    import pyarrow.parquet

    pyarrow.parquet.write_table(table(), folder / "x.parquet")
    return f"{folder / 'x.parquet'}#p_*"


def feather(folder):
    import pyarrow.feather

    pyarrow.feather.write_feather(table(), folder / "x.feather")
    return f"{folder / 'x.feather'}#p_*"


def csv(folder):
    import pyarrow.csv

    pyarrow.csv.write_csv(table(), folder / "x.csv")
    return f"{folder / 'x.csv'}#p_*"


def json_lines(folder):
    lines = [json.dumps({"logits": row}) for row in LOGITS.astype(float).tolist()]
    (folder / "x.jsonl").write_text("\n".join(lines))
    return f"{folder / 'x.jsonl'}#logits"


def zipped_zarr(folder):
    import zarr

    with zarr.storage.ZipStore(folder / "x.zarr.zip", mode="w") as store:
        zarr.create_array(store, data=LOGITS)
    return str(folder / "x.zarr.zip")


def netcdf(folder):
    import h5py

    with h5py.File(folder / "x.nc", "w") as file:
        file["logits"] = LOGITS
    return f"{folder / 'x.nc'}#logits"


FORMATS = npy, npz, raw, safetensors, zarr, hdf5, parquet, feather, csv, json_lines, zipped_zarr, netcdf


@pytest.fixture
def labels(tmp_path):
    np.save(tmp_path / "labels.npy", LABELS)
    return tmp_path / "labels.npy"


class InRanges(http.server.SimpleHTTPRequestHandler):
    """Sends the range of bytes that is asked for, as servers of files do and Python's own does not."""

    def do_GET(self):
        content = Path(self.translate_path(self.path)).read_bytes()
        first, last = (int(end) for end in self.headers["Range"].removeprefix("bytes=").split("-"))
        part = content[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def end_headers(self):
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()


@pytest.fixture
def server(tmp_path):
    """The URL of a server for the folder."""
    handler = functools.partial(InRanges, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()


def test_the_environment_has_no_package_that_an_extra_does_not_bring():
    names = {distribution.name for distribution in metadata.distributions()}

    assert not names & {"torch", "jax", "tensorflow", "tensorflow-cpu", "cupy-cuda13x", "hypothesis", "statsmodels"}


@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_every_format_is_read(tmp_path, labels, write):
    assert evaluated(write(tmp_path), labels) == pytest.approx(mean_loss(LOGITS), rel=1e-6)


def test_bfloat16_is_read(tmp_path, labels):
    import ml_dtypes

    halved = LOGITS.astype(ml_dtypes.bfloat16)
    halved.tofile(tmp_path / "x.bin")

    found = evaluated(f"{tmp_path / 'x.bin'}#bfloat16,{ROWS},{CLASSES}", labels)
    assert found == pytest.approx(mean_loss(halved), rel=1e-6)


def test_a_url_is_read(tmp_path, labels, server):
    assert evaluated(f"{server}/{npy(tmp_path).name}", labels) == pytest.approx(mean_loss(LOGITS), rel=1e-6)


@pytest.mark.parametrize("scheduler", ["sync", "processes:2"])
def test_every_kind_of_scheduler_serves(tmp_path, labels, scheduler):
    found = evaluated(npy(tmp_path), labels, "--scheduler", scheduler)

    assert found == pytest.approx(mean_loss(LOGITS), rel=1e-6)


def test_every_output_is_written(tmp_path, labels):
    page, tables = tmp_path / "page.html", tmp_path / "tables"
    evaluated(npy(tmp_path), labels, "--by-class", "--html", page, "--tables", tables)

    assert "<svg" in page.read_text("utf-8") and any(tables.glob("*.parquet"))
    for number, name in enumerate(("losses.npy", "losses.parquet", "losses.zarr")):
        evaluated(npy(tmp_path), labels, "--per-example", tmp_path / name)
        assert (tmp_path / name).exists(), number


DEMOS = ("digits",), ("stdlib", "--files", 20), ("vocabulary", "--rows", 8)


@pytest.mark.parametrize("command", DEMOS, ids=lambda command: command[0])
def test_every_demo_runs(command):
    assert "loss" in xent("demo", *command, "-q")


def test_the_doctor_finds_the_installation_sound(monkeypatch):
    monkeypatch.setenv("XENT_PLUGINS", "none")  # xent-numba would compile every loop of a new environment, for minutes
    assert "xent-array" in xent("doctor")
