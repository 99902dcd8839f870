"""Files of torch.save: their numbers beside scikit-learn's, the names of tensors, and what is refused unopened."""

import io
import pickle
import random
import zipfile

import hostile
import numpy as np
import pytest
from click.testing import CliRunner
from scipy.special import softmax
from sklearn.metrics import log_loss

from xent.cli import main
from xent.evaluation.evaluations import evaluate
from xent.evaluation.sources.messages import ReadError, SeveralArrays
from xent.evaluation.sources.opening import open_source

torch = pytest.importorskip("torch", reason="torch is not installed")

ROWS, CLASSES = 123, 7


@pytest.fixture
def logits():
    return torch.from_numpy(5 * np.random.default_rng(2).normal(size=(ROWS, CLASSES)))


@pytest.fixture
def labels():
    return torch.from_numpy(np.random.default_rng(3).integers(0, CLASSES, ROWS))


def test_the_loss_is_that_of_scikit_learn(tmp_path, logits, labels):
    torch.save(logits, tmp_path / "x.pt")
    torch.save({"epoch": 3, "labels": labels, "deep": [logits, "text"]}, tmp_path / "xy.pth")
    expected = log_loss(labels.numpy(), softmax(logits.numpy(), axis=1), labels=range(CLASSES))

    for path in ("x.pt", "xy.pth#deep/0"):
        made = evaluate(f"{tmp_path}/{path}", f"{tmp_path}/xy.pth#labels", chunk_bytes=56 * 10)

        assert made.mean_loss == pytest.approx(expected, rel=1e-12)
        assert made == evaluate(logits.numpy(), labels.numpy())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("layout", ["rows", "columns", "a part", "a parameter"])
def test_a_tensor_of_any_layout_gives_the_same_bits_as_in_hand(tmp_path, logits, labels, dtype, layout):
    made = logits.to(getattr(torch, dtype))
    made = {
        "rows": made,
        "columns": made.T.contiguous().T,
        "a part": torch.cat([made, made])[ROWS:],
        "a parameter": torch.nn.Parameter(made),
    }[layout]
    torch.save(made, tmp_path / "x.pt")

    assert evaluate(tmp_path / "x.pt", labels) == evaluate(made.detach(), labels)


class Spy:
    """An object that would be made where the file was unpickled."""

    def __reduce__(self):
        return exec, ("import sys; sys.unpickled = True",)


def saved(value, **options):
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def refused(folder, data, message, error, name="x.pt"):
    path = folder / name.partition("#")[0]
    path.write_bytes(data)
    with pytest.raises(error, match=message) as raised:
        open_source(f"{folder}/{name}", "predictions")
    assert str(raised.value).count("\n") == 0
    return raised.value


def test_what_would_run_code_is_refused_and_not_run(tmp_path, logits, monkeypatch):
    import sys

    monkeypatch.setattr(sys, "unpickled", False, raising=False)
    rule = r"must hold nothing but tensors, got .*x\.pt, which would run code.*Save its tensors alone: torch\.save\(\{"
    refused(tmp_path, saved({"logits": logits, "spy": Spy()}), rule, TypeError)
    refused(tmp_path, saved(torch.nn.Linear(2, 2)), rule, TypeError)

    assert not sys.unpickled
    pickle.loads(pickle.dumps(Spy()))
    assert sys.unpickled


def test_names_are_asked_for_and_told(tmp_path, logits, labels):
    data = saved({"logits": logits, "labels": labels})
    refused(tmp_path, data, r"must name one array .*which holds logits, labels\. Pass .*x\.pt#logits", SeveralArrays)
    refused(tmp_path, data, r"got 'spam' of .*x\.pt, which holds logits, labels", ValueError, "x.pt#spam")
    refused(tmp_path, saved({"epoch": 3}), r"which holds none", ValueError)


def test_what_numpy_cannot_hold_is_refused(tmp_path, logits):
    sparse = logits.to_sparse()
    refused(
        tmp_path,
        saved(sparse),
        r"must be a dense tensor of a dtype that NumPy has, got a sparse_coo .*to_dense",
        TypeError,
    )
    refused(tmp_path, saved(logits.to(torch.complex64)), r"got a strided tensor of complex64", TypeError)
    eighth = saved(logits.to(torch.float32).to(torch.float8_e4m3fn))
    refused(tmp_path, eighth, r"got a strided tensor of float8_e4m3fn .*float32", TypeError)


def test_files_of_old_and_other_writers_and_urls_are_refused(tmp_path, logits):
    old = saved(logits, _use_new_zipfile_serialization=False)
    refused(tmp_path, old, r"must be written by torch 1\.6 or later, got .*Write it again: torch\.save", ValueError)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as other:
        other.writestr("spam", "eggs")
    refused(tmp_path, archive.getvalue(), r"x\.pt is truncated or corrupt \(", ReadError)
    with pytest.raises(
        ValueError, match=r"must lie on a local disk where it is a \.pt file, got memory://x\.pt\. Download"
    ):
        fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
        fsspec.filesystem("memory").pipe("/x.pt", saved(logits))
        open_source("memory://x.pt", "predictions")


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.1])
def test_a_truncated_file_ends_in_one_line_and_the_code_of_bad_data(tmp_path, logits, labels, kept):
    data = saved(logits)
    (tmp_path / "x.pt").write_bytes(data[: int(kept * len(data))])
    np.save(tmp_path / "y.npy", labels.numpy())
    made = CliRunner().invoke(main, ["evaluate", f"{tmp_path}/x.pt", f"{tmp_path}/y.npy", "-q"])

    assert made.exit_code == 3 and made.stderr.count("\n") == 1 and "x.pt is truncated or corrupt" in made.stderr


def test_a_file_that_is_damaged_anywhere_ends_in_one_line(tmp_path, logits, labels):
    whole, codes = saved({"x": logits.float(), "y": labels}), set()
    for seed in range(60):
        path = tmp_path / f"{seed}.pt"
        path.write_bytes(whole)
        hostile.damage_one(random.Random(seed), [path])
        made = CliRunner().invoke(main, ["evaluate", f"{path}#x", f"{path}#y", "-q", "--scheduler", "sync"])
        codes.add(made.exit_code)

        assert made.exit_code in (0, 2, 3), (seed, made.stderr)
        assert made.exit_code == 0 or (made.stderr.count("\n") == 1 and made.stderr.startswith("xent: ")), seed
        assert made.exit_code == 0 or str(path) in made.stderr or " in row " in made.stderr, made.stderr
    assert {0, 3} <= codes


def test_a_file_that_changes_after_it_was_opened_is_not_read(tmp_path, logits):
    import os

    torch.save(logits, tmp_path / "x.pt")
    source = open_source(tmp_path / "x.pt", "predictions")
    os.utime(tmp_path / "x.pt", ns=(0, 0))

    with pytest.raises(ReadError, match=r"x\.pt has changed since it was opened"):
        source.read(0, 10)
