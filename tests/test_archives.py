"""Files of named arrays: the headers of .npz and safetensors files are believed in nothing."""

import json
import struct
import tracemalloc
import zipfile

import formats
import ml_dtypes
import numpy as np
import pytest

from xent.evaluation.evaluations import evaluate
from xent.evaluation.sources import archives
from xent.evaluation.sources.messages import MalformedError, ReadError
from xent.evaluation.sources.opening import open_source


@pytest.fixture
def logits():
    return formats.some_logits()


@pytest.fixture
def labels():
    return formats.some_labels()


def write(path, header, data=b"", *, length=None):
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def tensor(**changes):
    return {"x": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], **changes}}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_tensors_of_every_float_give_the_same_bits(tmp_path, labels, dtype):
    logits = formats.some_logits(dtype)
    formats.write_safetensors(tmp_path / "xy.safetensors", logits=logits, labels=labels.astype(np.uint8))
    made = evaluate(f"{tmp_path}/xy.safetensors#logits", f"{tmp_path}/xy.safetensors#labels", chunk_bytes=100)

    assert made == evaluate(logits, labels)


@pytest.mark.parametrize(
    ("header", "error", "message"),
    [
        ([1, 2], ValueError, "its header is no object"),
        (b"{", ValueError, r"must be a safetensors file .*Expecting property name"),
        (b"\xff\xfe{}", ValueError, "codec can't decode"),
        (b'{"x": {"dtype": "F32"}, "x": {}}', ValueError, "a name comes twice"),
        (b"[" * 100_000, ValueError, "recursion"),
        ({}, ValueError, r"must name one array .* which holds none"),
        ({"x": None}, ValueError, "x has TypeError"),
        ({"x": {"dtype": "F32", "shape": [2, 3]}}, ValueError, "x has KeyError: 'data_offsets'"),
        (tensor(shape=[2, -3]), ValueError, "a size or an offset that is no natural number"),
        (tensor(shape=[2, True]), ValueError, "a size or an offset that is no natural number"),
        (tensor(shape=[2, 3.0]), ValueError, "a size or an offset that is no natural number"),
        (tensor(data_offsets=[-24, 0]), ValueError, "a size or an offset that is no natural number"),
        (tensor(data_offsets=[0]), ValueError, "x has ValueError: not enough values"),
        (tensor(data_offsets=[0, 20]), ValueError, r"x has 20 bytes for F32\[2, 3\]"),
        (tensor(shape=[2**62, 3]), ValueError, "x has 24 bytes for"),
        (tensor(data_offsets=[24, 48]), ReadError, r"is truncated: its header promises \d+ bytes and it has \d+"),
        (tensor(dtype="F8_E4M3"), TypeError, r"must be one of F64, F32, .* got F8_E4M3 in .*x\.safetensors#x"),
        (tensor(dtype=["F32"]), TypeError, r"must be one of F64"),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path, header, error, message):
    write(tmp_path / "x.safetensors", header, bytes(24))

    with pytest.raises(error, match=message):
        open_source(tmp_path / "x.safetensors", "predictions")


@pytest.mark.parametrize(
    ("length", "error", "message"),
    [
        (2**63, ValueError, "a header of 9223372036854775808 bytes"),
        (10**8 + 1, ValueError, "a header of 100000001 bytes in a file of"),
        (10**8, ReadError, "is truncated: its header promises 100000008 bytes"),
    ],
)
def test_a_header_longer_than_its_file_is_not_read(tmp_path, length, error, message):
    write(tmp_path / "x.safetensors", tensor(), bytes(24), length=length)

    with pytest.raises(error, match=message):
        open_source(tmp_path / "x.safetensors", "predictions")


def test_a_stored_array_is_mapped_and_a_compressed_one_is_one_chunk(tmp_path, logits):
    np.savez(tmp_path / "stored.npz", logits)
    np.savez_compressed(tmp_path / "packed.npz", logits)
    stored, packed = (open_source(tmp_path / name, "predictions") for name in ("stored.npz", "packed.npz"))

    assert not stored.read(3, 9).flags.owndata and not stored.read(3, 9).flags.writeable
    assert len(stored.bounds(100)) > 2 and packed.bounds(100) == [0, len(logits)]


def test_a_compressed_array_that_is_too_large_is_refused_with_the_remedy(tmp_path, logits, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", logits)
    monkeypatch.setattr(archives, "COMPRESSED_BYTES", logits.nbytes - 1)

    with pytest.raises(ValueError, match=rf"at most {logits.nbytes - 1} bytes .* got {logits.nbytes} in .*numpy\.save"):
        open_source(tmp_path / "x.npz", "predictions")


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_a_header_that_says_it_is_long_is_not_unpacked(tmp_path, suffix):
    head, length = b"\x93NUMPY\x02\x00", 2**26
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", head + length.to_bytes(4, "little") + b" " * length)
    (tmp_path / "x.npy").write_bytes(head + length.to_bytes(4, "little") + b" " * length)
    tracemalloc.start()

    with pytest.raises(MalformedError, match=rf"x\.{suffix}.* \(its header has {length} bytes\)"):
        open_source(tmp_path / f"x.{suffix}", "predictions")
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_a_header_that_promises_more_than_is_compressed_is_corrupt(tmp_path, logits):
    np.save(tmp_path / "x.npy", logits)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", (tmp_path / "x.npy").read_bytes()[:-14])
    source = open_source(tmp_path / "x.npz", "predictions")

    with pytest.raises(ReadError, match=r"x\.npz#x is corrupt: its array and its header differ in size"):
        source.read(0, 10)


def test_a_header_that_promises_less_than_is_compressed_is_corrupt(tmp_path, logits):
    np.save(tmp_path / "x.npy", logits)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", (tmp_path / "x.npy").read_bytes() + b"!")
    source = open_source(tmp_path / "x.npz", "predictions")

    with pytest.raises(ReadError, match=r"x\.npz#x is corrupt: its array and its header differ in size"):
        source.read(0, 10)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_columns_one_after_the_other_are_read_by_rows(tmp_path, logits, labels, save):
    save(tmp_path / "x.npz", np.asfortranarray(logits))

    assert evaluate(tmp_path / "x.npz", labels, chunk_bytes=100) == evaluate(logits, labels)


def test_corrupt_bytes_of_a_compressed_array_are_named_by_file_and_rows(tmp_path, logits):
    np.savez_compressed(tmp_path / "x.npz", x=logits)
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "x.npz").write_bytes(data)
    source = open_source(tmp_path / "x.npz", "predictions")

    with pytest.raises(ReadError, match=r"rows 0 to 10 of .*x\.npz#x could not be read"):
        source.read(0, 10)


def test_a_directory_that_leads_astray_is_corrupt(tmp_path, logits):
    np.savez(tmp_path / "x.npz", x=logits)
    data = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(b"PK\x05\x05" + data[4:])

    with pytest.raises(ReadError, match="the file's directory leads astray"):
        open_source(tmp_path / "x.npz", "predictions")


def test_a_stored_header_that_promises_more_than_its_entry_is_truncated(tmp_path, logits):
    np.save(tmp_path / "x.npy", logits)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", (tmp_path / "x.npy").read_bytes()[:-14])
        archive.writestr("y.npy", bytes(1000))

    with pytest.raises(ReadError, match=r"x\.npz#x is truncated: its header promises"):
        open_source(f"{tmp_path}/x.npz#x", "predictions")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_objects_in_an_npz_file_are_never_unpickled(tmp_path, save):
    class Bomb:
        def __reduce__(self):
            return exec, ("raise SystemExit('unpickled')",)

    save(tmp_path / "x.npz", x=np.asarray([Bomb()], object))

    with pytest.raises(TypeError, match="must hold no Python objects"):
        open_source(tmp_path / "x.npz", "predictions")


def test_an_npz_file_with_a_password_is_an_error(tmp_path, logits):
    np.savez(tmp_path / "x.npz", x=logits)
    data = bytearray((tmp_path / "x.npz").read_bytes())
    for flags in (6, data.rindex(b"PK\x01\x02") + 8):
        data[flags] |= 1
    (tmp_path / "x.npz").write_bytes(data)

    with pytest.raises(ReadError, match=r"x\.npz#x is truncated or corrupt .*password"):
        open_source(tmp_path / "x.npz", "predictions")
