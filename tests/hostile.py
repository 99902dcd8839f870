"""Files that are damaged on purpose, of every format that is read, and what must come of each.

A case is made of its seed alone: a small set in one format, a file of it damaged in one way, and a command that reads
it. The command must end within a time and a memory, by exit code 0, 2 or 3, and unless that is 0 with one line that
names the set; a file that is truncated has its numbers or none. Cases run in a process of their own, so that one that
crashes or hangs is found too.

``python tests/hostile.py --seed 5 --seconds 300`` tries one seed after the other and prints those that fail;
``--count 1 --seed 17 --keep`` makes one again.
"""

import argparse
import csv
import functools
import gzip
import json
import os
import queue
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import formats
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

ROWS, CLASSES = 66, 5
CASE_SECONDS = 30
CASE_BYTES = 300 * 2**20
"""By how much one case may raise the peak of the process."""
ADDRESS_BYTES = 8 * 2**30
PLAIN = ("-q", "--json", "--scheduler", "sync")
BESIDE = ("more.h5",)
"""What a virtual dataset is made of."""
MARKS = (
    *(b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PAR1", b"ARROW1", b"\xff\xff\xff\xff", b"\x93NUMPY"),
    *(b"TREE", b"SNOD", b"HEAP", b"OHDR", b"\x89HDF", b"{", b"}", b"\n", b"\0\0\0\0\0\0\0\0"),
)
"""Bytes with which a part of a file begins."""
LIES = (0, 1, 2, 255, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 60)
WORDS = (
    None,
    True,
    -1,
    0,
    2.5,
    10**9,
    10**14,
    2**64,
    "",
    "../../../etc/passwd",
    "\x1b[31mred\n<b>",
    "pickle",
    [],
    {},
    [0],
)
NAMES = (
    "../../x",
    "a\nb",
    "\x1b[31mred",
    "<script>alert(1)</script>",
    "x" * 3000,
    "a#b",
    "*",
    "\u202egnp",
    "é\ud800"[:1],
)


@dataclass(frozen=True)
class Case:
    """A command on a damaged set in a folder; ``damage`` says what was done to which file.

    Where it ``must_fail`` the exit code is 3. Where there is a ``whole`` set, in another folder, a command that ends
    well has the numbers of that.
    """

    seed: int
    format: str
    damage: str
    arguments: list[str]
    must_fail: bool = False
    whole: Path | None = None
    folder: Path = Path()


def make(seed: int, folder: Path, only: str = "") -> Case:
    """The case of this seed, its files in a folder that is empty; `only` is a part of the format's name."""
    rng = random.Random(seed)
    whole, paths = whole_sets(folder.parent, rng.choice(["float16", "float32"]))
    name = rng.choice([name for name in paths if only in name])
    predictions, labels = paths[name]
    for file in {"whole.npy", "labels.npy", *BESIDE, *(path.partition("#")[0].split("/")[0] for path in paths[name])}:
        (shutil.copytree if (whole / file).is_dir() else shutil.copy)(whole / file, folder / file)
    roles = ["predictions", "predictions", "labels", "slices", "clusters"]
    role = rng.choice(roles[3:] if "text" in name else roles)
    damaged = predictions if role == "predictions" else labels
    files = files_of(folder / damaged.partition("#")[0])
    files += [folder / file for file in BESIDE if damaged == "virtual.h5#x"]
    damage, must_fail = (replace if rng.random() < 0.07 else damage_one)(rng, files)
    given = {
        "predictions": str(folder / "whole.npy"),
        "labels": str(folder / "labels.npy"),
        role: str(folder / damaged),
    }
    arguments = [given["predictions"], given["labels"], *PLAIN]
    arguments += [word for key in ("slices", "clusters") if key in given for word in (f"--{key}", given[key])]
    arguments += rng.choice([[], ["--chunk-bytes", "100"], ["--on-error", "skip"], ["--on-bad-label", "skip"]])
    arguments += rng.choice([[], [], ["--html", str(folder / "o.html")], ["--state", str(folder / "state")]])
    arguments = ["evaluate", *arguments]
    if role == "predictions" and rng.random() < 0.2:
        arguments = rng.choice([["inspect", given[role]], ["compare", str(folder / "whole.npy"), *arguments[1:]]])
    is_strict = arguments[0] != "inspect" and "skip" not in arguments
    must_fail &= is_strict and not (name in ("raw", *WITHOUT_END) and damage.startswith("truncated"))
    must_fail &= name not in WITHOUT_END or "out of the set" not in damage  # where any text is a table of one column
    is_cut = is_strict and damage.startswith("truncated") and arguments[0] == "evaluate" and name not in WITHOUT_END
    return Case(
        seed,
        name,
        f"{damage}, as {role}",
        arguments,
        must_fail,
        whole if is_cut and not {"--html", "--state"} & {*arguments} else None,
        folder,
    )


@functools.cache
def whole_sets(folder: Path, dtype: str) -> tuple[Path, dict[str, tuple[str, str]]]:
    """A folder with a set in every format, and the paths of predictions and labels in it."""
    values, whole = np.random.default_rng(0), folder / dtype
    whole.mkdir()
    logits = values.standard_normal((ROWS, CLASSES)).astype(dtype)
    paths = formats.write_all(whole, logits, values.integers(0, CLASSES, ROWS))
    np.save(whole / "whole.npy", logits)
    np.save(whole / "labels.npy", np.arange(ROWS) % CLASSES)
    return whole, paths | write_more(whole, logits, values.integers(1, CLASSES, ROWS))


def write_more(folder: Path, logits: np.ndarray, labels: np.ndarray) -> dict[str, tuple[str, str]]:
    """Other layouts, and text; the paths of each, the second that of labels or of text."""
    text = np.array(["de", "größer", "", "x" * 50, "en"])[labels]
    np.save(folder / "text.npy", text)
    np.savez_compressed(folder / "text.npz", text=text, bytes=np.strings.encode(text, "utf-8"))
    table = pa.table({"text": text.tolist(), "kind": pa.array(text.tolist()).dictionary_encode()})
    pq.write_table(table, folder / "text.parquet", row_group_size=20)
    formats.write_arrow(folder / "text.arrow", table)
    lists = [None if i == 7 else row for i, row in enumerate(logits.tolist())]
    nulls = pa.table({"x": pa.array(lists, pa.list_(pa.from_numpy_dtype(logits.dtype))), "y": labels})
    formats.write_arrow(folder / "nulls.arrow", nulls)
    with h5py.File(folder / "more.h5", "w") as file:
        file["text"], file["x"], file["link"] = text.tolist(), logits, h5py.SoftLink("/deep/er/x")
        file.create_dataset("deep/er/x", data=logits, chunks=(10, 2), fletcher32=True, shuffle=True)
        file.create_dataset("y", data=labels, chunks=(20,), compression="lzf")
    layout = h5py.VirtualLayout(logits.shape, logits.dtype)
    layout[:40], layout[40:] = (
        h5py.VirtualSource("more.h5", "x", logits.shape)[part] for part in (np.s_[:40], np.s_[40:])
    )
    with h5py.File(folder / "virtual.h5", "w", libver="latest") as file:
        file.create_virtual_dataset("x", layout)
        file.create_dataset("y", data=labels, chunks=(20,), maxshape=(None,))
    for name, data in (("x", logits), ("y", labels)):
        zarr.create_array(folder / f"{name}2.zarr", data=data, chunks=(20,) * data.ndim, zarr_format=2)
        zarr.create_array(
            folder / f"{name}3.zarr", data=data, chunks=(20,) * data.ndim, compressors=zarr.codecs.GzipCodec()
        )
    zarr.create_array(folder / "text.zarr", shape=text.shape, dtype=str, chunks=(20,))[:] = text.astype("T")
    write_text(folder, logits, labels, text)
    with zarr.storage.ZipStore(folder / "xy.zarr.zip", mode="w") as store:
        group = zarr.create_group(store)
        for name, data in (("x", logits), ("y", labels)):
            group.create_array(name, data=data, chunks=(20,) * data.ndim)
    with h5py.File(folder / "packed.nc", "w") as file:
        file["x"], file["y"] = np.round(logits * 1000).astype("i2"), labels.astype("i1")
        file["x"].attrs.update({"scale_factor": np.array([0.001]), "_FillValue": np.array([-32768], "i2")})
        file["y"].attrs["missing_value"] = np.array([99], "i1")
    for place, rows in (("lang=de/year=9", slice(0, 40)), ("lang=en/year=10", slice(40, None))):
        (folder / "hive" / place).mkdir(parents=True)
        part = pa.table({"x": logits[rows].tolist(), "y": labels[rows]})
        pq.write_table(part, folder / "hive" / place / "0.parquet", row_group_size=20)
    return {
        "text in npy": ("whole.npy", "text.npy"),
        "text in npz": ("whole.npy", "text.npz#text"),
        "bytes in npz, text": ("whole.npy", "text.npz#bytes"),
        "text in parquet": ("whole.npy", "text.parquet#text"),
        "text in arrow": ("whole.npy", "text.arrow#text"),
        "text of a dictionary": ("whole.npy", "text.arrow#kind"),
        "text in hdf5": ("whole.npy", "more.h5#text"),
        "text in zarr": ("whole.npy", "text.zarr"),
        "hdf5 without chunks": ("more.h5#x", "more.h5#y"),
        "hdf5 by a link": ("more.h5#link", "more.h5#y"),
        "virtual hdf5": ("virtual.h5#x", "virtual.h5#y"),
        "zarr 2": ("x2.zarr", "y2.zarr"),
        "zarr by gzip": ("x3.zarr", "y3.zarr"),
        "zarr in zip": ("xy.zarr.zip#x", "xy.zarr.zip#y"),
        "packed netcdf": ("packed.nc#x", "packed.nc#y"),
        "hive": ("hive#x", "hive#y"),
        "text of a hive key": ("whole.npy", "hive#lang"),
        "csv": ("xy.csv#x_*", "xy.csv#y"),
        "csv by gzip": ("xy.csv.gz#x_*", "xy.csv.gz#y"),
        "text in csv": ("whole.npy", "xy.csv#text"),
        "json lines": ("xy.jsonl#x", "xy.jsonl#y"),
        "text in json lines": ("whole.npy", "xy.jsonl#text"),
        "answers": ("answers.jsonl#logprobs", "answers.jsonl#tokens"),
    }


WITHOUT_END = ("csv", "text in csv", "json lines", "text in json lines", "answers")
"""Formats of which a part is whole too, if it ends where a row does."""


def write_text(folder: Path, logits: np.ndarray, labels: np.ndarray, text: np.ndarray) -> None:
    """A set as CSV, and as JSON lines, and the answers of a server."""
    rows = [*zip(logits.tolist(), labels.tolist(), text.tolist(), strict=True)]
    with (folder / "xy.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [[*(f"x_{i}" for i in range(CLASSES)), "y", "text"], *([*x, y, t] for x, y, t in rows)]
        )
    (folder / "xy.csv.gz").write_bytes(gzip.compress((folder / "xy.csv").read_bytes(), mtime=0))
    lines = [json.dumps({"x": x, "y": y, "text": t}) for x, y, t in rows]
    (folder / "xy.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")
    log_p = (logits - np.log(np.exp(logits.astype(float)).sum(axis=1, keepdims=True))).tolist()
    tokens = [f"token_id:{i}" for i in range(CLASSES)]
    places = [
        {"token": tokens[y], "logprob": row[y], "top_logprobs": [*map(entry, tokens, row)]}
        for row, y in zip(log_p, labels.tolist(), strict=True)
    ]
    answers = [{"choices": [{"logprobs": {"content": places[i : i + 11]}}]} for i in range(0, ROWS, 11)]
    (folder / "answers.jsonl").write_text("\n".join([*map(json.dumps, answers), ""]), encoding="utf-8")


def entry(token: str, value: float) -> dict[str, Any]:
    """A log-probability as a server says it."""
    return {"token": token, "logprob": value}


def files_of(path: Path) -> list[Path]:
    """The file itself, or all of a folder; of a path in one its folder's."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def damage_one(rng: random.Random, files: list[Path]) -> tuple[str, bool]:
    """What was done to one of the files, and whether it can no longer be read."""
    file = rng.choice(files)
    data = bytearray(file.read_bytes())
    ways = [truncate, truncate, flip, flip, flip, lie, lie, splice, blank]
    if file.suffix in (".json", ".safetensors") or file.name in (".zarray", ".zattrs"):
        ways += [rewrite] * 5
    if data.startswith(b"\x93NUMPY"):
        ways += [rewrite_npy] * 4
    way = rng.choice(ways)
    whole = bytes(data)
    said = way(rng, data)
    file.write_bytes(data)
    # what follows the last byte that is needed may be lost
    must_fail = way is truncate and len(data) < len(whole) // 2 and file.suffix not in (".json", "")
    return f"{said} in {file.name}", must_fail


def replace(rng: random.Random, files: list[Path]) -> tuple[str, bool]:
    """Something else in a file's place, and whether it can no longer be read."""
    file = rng.choice(files)
    kind = rng.choice(["pipe", "link to itself", "link out of the set", "folder", "nothing", "device"])
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind != "nothing":
        file.symlink_to({"link to itself": file, "device": "/dev/zero"}.get(kind, "/etc/passwd"))
    # attributes may be lost, and what is not there is a fault of the command
    return f"{file.name} is a {kind}", kind not in ("nothing", "folder") and file.suffix != ".json" and file.name[
        0
    ] != "."


def places(data: bytearray) -> list[int]:
    """The offsets at which parts of a file begin, and those near its ends."""
    found = [0, 1, 4, 6, 8, 10, 16, len(data) - 1, len(data) - 4, len(data) - 8, len(data) - 12]
    for mark in MARKS:
        at = data.find(mark)
        while at >= 0 and len(found) < 2000:
            found += [at, at + len(mark)]
            at = data.find(mark, at + 1)
    return [at for at in found if 0 <= at < len(data)] or [0]


def somewhere(rng: random.Random, data: bytearray) -> int:
    """An offset, mostly near where a part of the file begins."""
    if not data:
        return 0
    near = rng.choice(places(data)) + rng.randrange(64) if rng.random() < 0.8 else rng.randrange(len(data))
    return min(near, len(data) - 1)


def truncate(rng: random.Random, data: bytearray) -> str:
    at = rng.choice(places(data)) if rng.random() < 0.7 else rng.randrange(len(data) + 1)
    del data[at:]
    return f"truncated to {at} bytes"


def flip(rng: random.Random, data: bytearray) -> str:
    said = []
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        if data:
            at, bit = somewhere(rng, data), rng.randrange(8)
            data[at] ^= 1 << bit
            said.append(f"{at}.{bit}")
    return f"bits {' '.join(said)} flipped"


def lie(rng: random.Random, data: bytearray) -> str:
    size, value, at = rng.choice([1, 2, 4, 8]), rng.choice(LIES), somewhere(rng, data)
    data[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")[: len(data) - at]
    return f"{size} bytes at {at} are {value}"


def splice(rng: random.Random, data: bytearray) -> str:
    start, at, size = somewhere(rng, data), somewhere(rng, data), rng.choice([1, 8, 64, 500])
    data[at : at + rng.choice([0, size])] = data[start : start + size]
    return f"{size} bytes of {start} written at {at}"


def blank(rng: random.Random, data: bytearray) -> str:
    at, size = somewhere(rng, data), rng.choice([4, 16, 100])
    data[at : at + size] = bytes(min(size, len(data) - at))
    return f"{size} bytes at {at} are 0"


def rewrite(rng: random.Random, data: bytearray) -> str:
    """Another value somewhere in JSON, with the length before it where safetensors has one."""
    is_safe = not data.startswith(b"{") and data[8:9] == b"{"
    start, stop = (8, 8 + int.from_bytes(data[:8], "little")) if is_safe else (0, len(data))
    try:
        document = json.loads(data[start:stop])
    except ValueError:
        document = None
    if not document or not isinstance(document, dict):
        return flip(rng, data)
    inside, path = document, []
    while True:
        key = rng.choice([*inside] if isinstance(inside, dict) else [*range(len(inside))])
        path.append(key)
        if not isinstance(inside[key], dict | list) or not inside[key] or rng.random() < 0.2:
            break
        inside = inside[key]
    value = rng.choice(WORDS)
    if rng.random() < 0.15 and isinstance(inside, dict):
        inside[rng.choice(NAMES)] = inside.pop(key)
    else:
        inside[key] = value
    text = json.dumps(document).encode()
    data[start:stop] = text
    if is_safe:
        data[:8] = len(text).to_bytes(8, "little")
    return f"{path} is {value!r}"


def rewrite_npy(rng: random.Random, data: bytearray) -> str:
    """Another shape, dtype or text in the header of a .npy file."""
    stop = 10 + int.from_bytes(data[8:10], "little")
    sizes = [
        rng.choice([-1, 0, 1, 7, ROWS, 10**6, 10**14, 2**63, 2**70]) for _ in range(rng.choice([0, 1, 2, 2, 3, 33]))
    ]
    codes = [
        "<f4",
        ">f8",
        "<i8",
        "|O",
        "<U1",
        "|S5",
        "<U100000000",
        "<c8",
        "|V4",
        "<M8[s]",
        "[('a','<f4')]",
        "\x1b",
        "<f3",
    ]
    order, code = rng.choice(["True", "False", "2"]), rng.choice(codes)
    descr, shape = code if code[0] == "[" else repr(code), ", ".join(map(str, sizes))
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': ({shape},)}}"
    text = (
        rng.choice([text, text, text, text[:-1], "(" * 5000, "-" * 200 + "1", text + "#" * 9000, "{'a':" * 90]) + "\n"
    )
    data[6:stop] = b"\x01\0" + len(text).to_bytes(2, "little") + text.encode()
    return f"header {text[:100]!r}"


# ---------------------------------------------------------------------------------------------------------------------
# What must come of it


def numbers(stdout: str) -> dict[str, Any]:
    """A JSON document without what differs from run to run."""
    document = json.loads(stdout)
    return {key: value for key, value in document.items() if key not in ("inputs", "timing", "options", "environment")}


def flaw_of(case: Case, exit_code: int, stdout: str, stderr: str) -> str:
    """What is wrong with how a command ended; nothing if it ended as it must."""
    if exit_code not in (0, 2, 3):
        return f"exit code {exit_code}: {stderr[-1500:]}"
    if exit_code == 0:
        if case.must_fail:
            return "it passed"
        if case.arguments[0] == "evaluate":
            counts = json.loads(stdout)["counts"]
            left_out = counts["ignored"] + counts["bad_labels"] + counts["beyond_rows"] + counts["unread_rows"]
            if counts["counted"] + left_out != counts["rows"]:
                return f"rows are lost: {counts}"
        return ""
    if case.must_fail and exit_code != 3:
        return f"exit code 2: {stderr}"
    if stdout or stderr.count("\n") != 1 or not stderr.startswith("xent: ") or not stderr[:-1].isprintable():
        return f"not one line on stderr alone: {stderr!r}"
    if str(case.folder) not in stderr and " in row " not in stderr:
        return f"no file is named: {stderr}"
    return ""


def try_cases(seeds: range, folder: Path, *, only: str = "", keep: bool = False) -> None:
    """Try some cases in this process, and write a line of JSON for each: that it begins, and what was wrong."""
    from click.testing import CliRunner

    from xent.cli import main

    def invoke(arguments: list[str]) -> Any:
        return CliRunner().invoke(main, arguments)

    whole, paths = whole_sets(folder, "float32")
    for name, (predictions, labels) in paths.items():  # so that imports are no part of a case
        given = [predictions, "labels.npy", "--slices", labels] if "text" in name else [predictions, labels]
        made = invoke(["evaluate", *(str(whole / word) if word[0] != "-" else word for word in given), *PLAIN])
        if made.exit_code:
            raise RuntimeError(made.stderr)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, resource.RLIM_INFINITY))
    for seed in seeds:
        place = folder / str(seed)
        place.mkdir()
        case = make(seed, place, only)
        say(seed=seed, case=f"{case.format}: {case.damage}: {' '.join(case.arguments)}")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = invoke(case.arguments)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        flaw = flaw_of(case, result.exit_code, result.stdout, result.stderr)
        if not flaw and grown > CASE_BYTES:
            flaw = f"it took {grown / 2**20:.0f} MiB"
        if not flaw and case.whole and result.exit_code == 0:
            whole_result = invoke([word.replace(str(place), str(case.whole)) for word in case.arguments])
            if numbers(whole_result.stdout) != numbers(result.stdout):
                flaw = "other numbers than those of the whole set"
        say(seed=seed, flaw=flaw, code=result.exit_code)
        if not keep:
            shutil.rmtree(place)


def say(**facts: Any) -> None:
    """Write a line of JSON."""
    print(json.dumps(facts), flush=True)


def run(
    first: int, count: int, *, seconds: float = 1e9, only: str = "", keep: str | None = None
) -> tuple[dict[int, str], dict[int, int]]:
    """The flaws of the cases from seed `first` on, by their seeds, and how often each exit code came."""
    flaws: dict[int, str] = {}
    codes: dict[int, int] = {}
    end, seed = time.monotonic() + seconds, first
    with tempfile.TemporaryDirectory(prefix="xent-hostile-") as scratch:
        # beside this file are the modules that it imports, which Python's safe path leaves out
        paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        while seed < first + count and time.monotonic() < end:
            folder = Path(keep or scratch) / f"from-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, __file__, "--child", str(folder), *(("--keep", keep) if keep else ())]
            command += ["--seed", str(seed), "--count", str(first + count - seed), "--only", only]
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
            ) as process:
                seed = listen(process, seed, end, flaws, codes)
                process.kill()
    return flaws, codes


def listen(process: subprocess.Popen, seed: int, end: float, flaws: dict[int, str], codes: dict[int, int]) -> int:
    """The seed after the last one that a process has tried; what it said of each is added to flaws and codes."""
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=forward, args=(process.stdout, lines), daemon=True).start()
    running = ""
    while time.monotonic() < end:
        try:
            line = lines.get(timeout=CASE_SECONDS if running else 10 * CASE_SECONDS)
        except queue.Empty:
            flaws[seed] = f"{running}: it did not end"
            return seed + 1
        if not line:
            if (code := process.wait()) == 0:
                return seed
            crash = f"it crashed, {code}: {process.stderr.read()[-1500:]}"
            if not running:
                raise RuntimeError(crash)
            flaws[seed] = f"{running}: {crash}"
            return seed + 1
        said = json.loads(line)
        if "case" in said:
            running, seed = said["case"], said["seed"]
            continue
        codes[said["code"]] = codes.get(said["code"], 0) + 1
        if said["flaw"]:
            flaws[said["seed"]] = f"{running}: {said['flaw']}"
        seed = said["seed"] + 1
    return seed


def forward(stream: Any, lines: queue.Queue[str]) -> None:
    """Put each line of a stream into a queue, and an empty one at its end."""
    for line in stream:
        lines.put(line)
    lines.put("")


def main() -> None:
    """Try cases until the time or the seeds are at an end; exit with 1 if one of them fails."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--count", type=int, default=10**9, help="so many seeds")
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--only", default="", help="formats that have this in their name")
    parser.add_argument("--keep", help="leave the files in this folder")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        try_cases(
            range(options.seed, options.seed + options.count),
            Path(options.child),
            only=options.only,
            keep=bool(options.keep),
        )
        return
    flaws, codes = run(options.seed, options.count, seconds=options.seconds, only=options.only, keep=options.keep)
    for seed, flaw in flaws.items():
        print(f"seed {seed}: {flaw}\n")
    print(f"{sum(codes.values())} cases from seed {options.seed} on, exit codes {codes}; {len(flaws)} failed")
    sys.exit(bool(flaws))


if __name__ == "__main__":
    main()
