"""The loops of an evaluation from object code that was kept: the same bits as by Numba, and without it."""

import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from expected import same_bits
from xent_numba import compiled, kept, loops, object_code
from xent_numba.fields import SEGMENT
from xent_numba.kernels import sparse

DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
LOOPS = sorted(kept.LOOPS)


def function_of(name):
    module, _, function = name.partition(".")
    return getattr(getattr(compiled, module), function)


@pytest.fixture
def keep(monkeypatch, tmp_path):
    """Keeps every loop for logits of a dtype in an empty folder."""
    monkeypatch.setattr(kept, "folders", lambda: [tmp_path])
    monkeypatch.setattr(loops, "loops", {})

    def keep(dtype):
        for name in LOOPS:
            compiled.compiled(function_of(name), dtype)
            compiled.keep(function_of(name), dtype)
        return sorted(path.stem for path in tmp_path.glob("*/*.o"))

    return keep


def blocks(dtype):
    """Logits of few and many classes, of more than a segment, and of classes that are not contiguous; and labels."""
    rng = np.random.default_rng(0)
    for shape in ((37, 5), (9, 300), (2, 2 * SEGMENT + 17), (300, 9)):
        x = (rng.standard_normal(shape) * 3).astype(dtype)
        x = x.T if shape == (300, 9) else x
        x[0, 1], x[1, 2] = np.nan, -np.inf
        yield x, rng.integers(0, x.shape[1], len(x))


def numbers(dtype):
    """All that the loops compute."""
    for x, y in blocks(dtype):
        partial, *statistics = sparse.statistics(x, y, x[np.arange(len(y)), y], threads=1)
        yield from (*partial, *statistics)
        with np.errstate(invalid="ignore"):
            yield from sparse.probability_sums(np.abs(x), y, threads=1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kept_code_has_the_bits_of_numbas(keep, dtype, monkeypatch):
    expected = [*numbers(DTYPES[dtype])]
    assert keep(dtype) == [f"{name}-{dtype}" for name in LOOPS]
    monkeypatch.setattr(loops, "loops", {})
    monkeypatch.setattr(compiled, "compiled", lambda *_: pytest.fail("Numba's code would run"))

    assert all(same_bits(*pair) for pair in zip(numbers(DTYPES[dtype]), expected, strict=True))
    assert {name for name, _, _ in loops.loops} == kept.LOOPS


def test_code_that_is_damaged_or_of_other_sources_is_not_loaded(keep, tmp_path, monkeypatch):
    keep("float32")
    (path,) = tmp_path.glob("*/rows.finish_partial-float32.o")
    code = path.read_bytes()

    assert kept.load("rows.finish_partial", "float32") is not None
    for damaged in (b"", code[:-1], code[:1000] + b"?" + code[1001:]):
        path.write_bytes(damaged)
        assert kept.load("rows.finish_partial", "float32") is None
    path.write_bytes(code)
    assert kept.some_are_kept()
    monkeypatch.setattr(kept, "key", lambda: "other")
    assert not kept.some_are_kept()
    assert kept.load("rows.finish_partial", "float32") is None


def test_code_that_calls_what_only_numba_has_is_not_kept(keep, monkeypatch):
    monkeypatch.setattr(object_code, "KNOWN", frozenset({"free"}))

    assert "probabilities.column_sums-float32" not in keep("float32")  # it takes memory
    assert kept.load("probabilities.column_sums", "float32") is None


REFUSED = """
import sys
class Finder:
    def find_spec(name, *_):
        if name == "numba":
            sys.exit("Numba is imported")
sys.meta_path.insert(0, Finder)
"""
ROW_STATISTICS = """
import hashlib, numpy as np, xent
rng, digest = np.random.default_rng(0), hashlib.sha256()
for classes in (5, 300):
    p, y = rng.random((40, classes)).astype("float32"), rng.integers(0, classes, 40)
    for kind in ("logits", "probabilities"):
        for field in xent.row_statistics(p, y, kind=kind):
            digest.update(field.tobytes())
"""


def test_a_process_has_the_statistics_of_rows_without_numba(keep, tmp_path):
    keep("float32")
    (tmp_path / "xent_numba").mkdir()
    (tmp_path / kept.key()).rename(tmp_path / "xent_numba" / kept.key())
    code = f"{REFUSED}{ROW_STATISTICS}print(digest.hexdigest())"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "XENT_KERNEL": "numba"}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    here = {}
    exec(ROW_STATISTICS, here)

    assert told.stdout.strip() == here["digest"].hexdigest(), told.stderr
