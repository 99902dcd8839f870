"""One prediction set in every format, for the tests of sources."""

import json
import struct

import h5py
import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import zarr

ROWS, CLASSES = 507, 7
SAFE_NAMES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64", "int64": "I64", "uint8": "U8"}


def some_logits(dtype=np.float16):
    return (5 * np.random.default_rng(2).normal(size=(ROWS, CLASSES))).astype(dtype)


def some_labels():
    return np.random.default_rng(3).integers(0, CLASSES, ROWS)


def bfloat16_logits():
    return some_logits(ml_dtypes.bfloat16)


def write_safetensors(path, **arrays):
    """As the safetensors library writes them."""
    header, data = {"__metadata__": {"format": "np"}}, b""
    for name, array in arrays.items():
        raw = array.tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": SAFE_NAMES[array.dtype.name], "shape": [*array.shape], "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def list_table(logits, labels, kind="fixed"):
    """A table of a column of lists and a column of labels."""
    flat = pa.array(logits.ravel())
    if kind == "fixed":
        column = pa.FixedSizeListArray.from_arrays(flat, logits.shape[1])
    else:
        array = pa.LargeListArray if kind == "large" else pa.ListArray
        edges = pa.array(np.arange(0, logits.size + 1, logits.shape[1]), pa.int64() if kind == "large" else pa.int32())
        column = array.from_arrays(edges, flat)
    return pa.table({"logits": column, "label": labels})


def wide_table(logits, labels):
    """A table of a plain column for each class, in an order that is not that of the classes, and one of labels."""
    order = sorted(range(logits.shape[1]), key=str, reverse=True)
    return pa.table({**{f"p_{i}": logits[:, i] for i in order}, "label": labels})


def write_arrow(path, table, *, stream=False, rows=60, compression=None):
    """An Arrow file, or a stream, in batches that are not all alike."""
    options = pa.ipc.IpcWriteOptions(compression=compression)
    opened = pa.ipc.new_stream if stream else pa.ipc.new_file
    with opened(str(path), table.schema, options=options) as writer:
        writer.write_table(table.slice(0, 13))
        writer.write_table(table.slice(13), max_chunksize=rows)


def write_all(folder, logits, labels):
    """Every format in a folder; the paths of predictions, each with those of their labels."""
    np.save(folder / "x.npy", logits)
    np.save(folder / "y.npy", labels)
    logits.tofile(folder / "x.bin")
    labels.tofile(folder / "y.bin")
    np.savez(folder / "xy.npz", logits=logits, labels=labels)
    np.savez_compressed(folder / "packed.npz", logits=logits, labels=labels)
    write_safetensors(folder / "xy.safetensors", logits=logits, labels=labels)
    for kind in ("fixed", "variable", "large"):
        pq.write_table(list_table(logits, labels, kind), folder / f"{kind}.parquet", row_group_size=60)
    pq.write_table(wide_table(logits, labels), folder / "wide.parquet", row_group_size=60)
    write_arrow(folder / "xy.arrow", list_table(logits, labels))
    write_arrow(folder / "packed.arrow", list_table(logits, labels, "variable"), compression="lz4")
    write_arrow(folder / "stream.arrow", list_table(logits, labels, "variable"), stream=True)
    pyarrow.feather.write_feather(wide_table(logits, labels), folder / "wide.feather", chunksize=60)
    with h5py.File(folder / "xy.h5", "w") as file:
        file.create_dataset("run/logits", data=logits, chunks=(60, 3), compression="gzip")
        file.create_dataset("run/labels", data=labels)
    group = zarr.create_group(folder / "xy.zarr")
    group.create_array("logits", data=logits, chunks=(20, 3), shards=(60, 9))
    group.create_array("labels", data=labels, chunks=(33,))
    rows, classes = logits.shape
    return {
        "npy": ("x.npy", "y.npy"),
        "raw": (f"x.bin#{logits.dtype},{rows},{classes}", f"y.bin#int64,{rows}"),
        "npz": ("xy.npz#logits", "xy.npz#labels"),
        "compressed npz": ("packed.npz#logits", "packed.npz#labels.npy"),
        "safetensors": ("xy.safetensors#logits", "xy.safetensors#labels"),
        "parquet of lists of fixed size": ("fixed.parquet#logits", "fixed.parquet#label"),
        "parquet of lists": ("variable.parquet#logits", "variable.parquet#label"),
        "parquet of large lists": ("large.parquet#logits", "large.parquet#label"),
        "parquet of columns": ("wide.parquet#p_*", "wide.parquet#label"),
        "arrow": ("xy.arrow#logits", "xy.arrow#label"),
        "compressed arrow": ("packed.arrow#logits", "packed.arrow#label"),
        "arrow stream": ("stream.arrow#logits", "stream.arrow#label"),
        "feather of columns": ("wide.feather#p_*", "wide.feather#label"),
        "hdf5": ("xy.h5#run/logits", "xy.h5#/run/labels"),
        "zarr": ("xy.zarr#logits", "xy.zarr/labels"),
    }


NAMES = [
    "npy",
    "raw",
    "npz",
    "compressed npz",
    "safetensors",
    "parquet of lists of fixed size",
    "parquet of lists",
    "parquet of large lists",
    "parquet of columns",
    "arrow",
    "compressed arrow",
    "arrow stream",
    "feather of columns",
    "hdf5",
    "zarr",
]
