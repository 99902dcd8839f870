"""Files that are damaged on purpose: each ends in one line that names it, in bounded time and memory.

``tests/hostile.py`` makes them from seeds; ``XENT_HOSTILE_SECONDS`` gives it more time than these tests have.
"""

import os
import random

import formats
import h5py
import hostile
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from xent.cli import main

SECONDS = float(os.environ.get("XENT_HOSTILE_SECONDS", 0))
FIRST = int(os.environ.get("XENT_HOSTILE_SEED", 0))


@pytest.mark.slow
def test_every_damaged_set_ends_in_one_line_that_names_it():
    flaws, codes = hostile.run(FIRST, 10**9 if SECONDS else 250, seconds=SECONDS or 1e9)

    assert not flaws, "\n\n".join(f"seed {seed}: {flaw}" for seed, flaw in flaws.items())
    assert codes[3] > codes.get(2, 0) and codes[0]


def test_the_seeds_are_of_every_format_and_every_damage(tmp_path):
    for seed in range(250):
        (tmp_path / str(seed)).mkdir()
    cases = [hostile.make(seed, tmp_path / str(seed)) for seed in range(250)]
    said = " ".join(case.damage for case in cases)

    assert {case.format for case in cases} == {*hostile.whole_sets(tmp_path, "float32")[1]}
    for word in ("truncated", "flipped", "written at", "bytes at", "header", "a pipe", "a device", "out of the set"):
        assert word in said
    assert sum(case.must_fail for case in cases) > 10
    (tmp_path / "again").mkdir()
    again = hostile.make(7, tmp_path / "again")
    assert (again.damage, again.format) == (cases[7].damage, cases[7].format)


def test_what_ends_otherwise_is_called_a_flaw(tmp_path):
    case = hostile.Case(0, "npy", "none", ["evaluate", "x.npy", "y.npy"], folder=tmp_path)
    line = f"xent: evaluate: {tmp_path}/x.npy is truncated.\n"
    lost = '{"counts": {"rows": 3, "counted": 1, "ignored": 0, "bad_labels": 0, "beyond_rows": 0, "unread_rows": 1}}'

    assert hostile.flaw_of(case, 3, "", line) == ""
    for code, stdout, stderr in (
        (70, "", "Traceback"),
        (139, "", ""),
        (3, "1", line),
        (3, "", line + line),
        (3, "", "xent: evaluate: it is truncated.\n"),
        (3, "", line.replace("x.npy", "\x1b[31m")),
        (0, lost, ""),
    ):
        assert hostile.flaw_of(case, code, stdout, stderr)


def test_a_process_that_crashes_or_hangs_is_told_and_the_next_seed_is_tried(monkeypatch, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import json, os, sys, time\n"
        "seed = int(sys.argv[sys.argv.index('--seed') + 1])\n"
        "for seed in range(seed, 4):\n"
        "    print(json.dumps({'seed': seed, 'case': 'a case'}), flush=True)\n"
        "    if seed == 1: os.abort()\n"
        "    if seed == 2: time.sleep(60)\n"
        "    print(json.dumps({'seed': seed, 'flaw': '', 'code': 3}), flush=True)\n"
    )
    monkeypatch.setattr(hostile, "__file__", str(program))
    monkeypatch.setattr(hostile, "CASE_SECONDS", 1)
    flaws, codes = hostile.run(0, 4)

    assert codes == {3: 2} and sorted(flaws) == [1, 2]
    assert "a case: it crashed, -6" in flaws[1] and flaws[2] == "a case: it did not end"


@pytest.mark.parametrize("way", [hostile.truncate, hostile.flip, hostile.lie, hostile.splice, hostile.blank])
def test_a_damage_changes_the_bytes_and_is_the_same_for_a_seed(way):
    data = [bytearray(b"PK\x03\x04" + bytes(range(200))) for _ in range(2)]
    said = [way(random.Random(3), each) for each in data]

    assert data[0] == data[1] != bytearray(b"PK\x03\x04" + bytes(range(200))) and said[0] == said[1]


NAMES = ["../../x", "a\nb", "\x1b[31mred", "<script>alert(1)</script>", "x" * 3000, "a#b", "\u202egnp", "..", "é" * 200]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_a_stranger_chose_is_shown_and_never_followed(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logits, labels = np.eye(4, dtype="f4"), np.arange(4)
    np.save("y.npy", labels)
    np.savez("s.npz", **{name: logits, "other": labels})
    table = pa.table({name: pa.array(logits.tolist(), pa.list_(pa.float32())), "other": labels})
    pq.write_table(table, "s.parquet")
    pa.feather.write_feather(table, "s.feather")
    formats.write_safetensors(tmp_path / "s.safetensors", **{name: logits, "other": labels})
    if "/" not in name and name != "..":  # which HDF5 takes for a way through its groups
        with h5py.File("s.h5", "w") as file:
            file[name], file["other"] = logits, labels
    for suffix in ("npz", "parquet", "feather", "safetensors", "h5"):
        if os.path.exists(f"s.{suffix}"):
            unnamed = CliRunner().invoke(main, ["evaluate", f"s.{suffix}", "y.npy"])

            assert unnamed.exit_code == 2 and unnamed.stderr.count("\n") == 1 and unnamed.stderr[:-1].isprintable()
    np.savez("s.npz", name=logits)
    np.save("names.npy", np.array([name[:300]] * 4))
    made = CliRunner().invoke(main, ["evaluate", "s.npz", "y.npy", "--slices", "names.npy", "--html", "o.html"])

    assert made.exit_code == 0 and made.stdout.replace("\n", "").isprintable()
    assert "<script>" not in (tmp_path / "o.html").read_text("utf-8")
