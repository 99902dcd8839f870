"""The shards of a Zarr array, each a file of several chunks, and the index in each of what was written.

Leaves out the chunks themselves, and the arrays (``zarr.py``).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xent.evaluation.sources import zarr_zip
from xent.evaluation.sources.ranges import request
from xent.evaluation.sources.storage import Stamp, is_url, open_file
from xent.optional import require

NEVER_WRITTEN = 2**64 - 1  # the length of such a chunk in the index of its shard


def chunk_grid(array: Any) -> list[int]:
    """How many chunks, or shards, there are along each axis."""
    stored = getattr(array, "shards", None) or array.chunks
    return [-(-size // step) for size, step in zip(array.shape, stored, strict=True)]


def sharding_of(array: Any) -> Any:
    """The configuration of an array's shards; None if it has none, or their index another encoding than zarr's own."""
    codecs = array.metadata.to_dict().get("codecs") or ()
    sharding = next((codec["configuration"] for codec in codecs if codec.get("name") == "sharding_indexed"), None)
    is_usual = sharding is not None and [codec["name"] for codec in sharding["index_codecs"]] == ["bytes", "crc32c"]
    return sharding if is_usual else None


def chunks_never_written(
    array: Any, sharding: Any, file: str, stamp: Stamp, index_in_grid: tuple[int, ...]
) -> tuple[str, int, int] | None:
    """The shard, how many chunks it lacks, and of how many; None if it has all, or its index cannot be read."""
    checksum = require("google_crc32c", "zarr", "a sharded Zarr array").value
    inner, outer = tuple(sharding["chunk_shape"]), array.shards
    size = 16 * math.prod(size // step for size, step in zip(outer, inner, strict=True))
    start = 0 if sharding.get("index_location") == "start" else max(0, stamp[0] - size - 4)
    if is_url(file):
        data = request(file, start, min(start + size + 4, stamp[0]), stamp)
    else:
        place = zarr_zip.split(file)
        with zarr_zip.open_entry(*place) if place else open_file(file) as shard:
            shard.seek(start)
            data = shard.read(size + 4)
    if len(data) < size + 4 or data[size:] != checksum(data[:size]).to_bytes(4, "little"):
        return None  # the shard is truncated or corrupt: reading it says so
    index = np.frombuffer(data[:size], "<u8")
    lengths = [min(step, length - i * step) for i, step, length in zip(index_in_grid, outer, array.shape, strict=True)]
    expected = math.prod(-(-length // step) for length, step in zip(lengths, inner, strict=True))
    written = int(np.count_nonzero(index[1::2] != NEVER_WRITTEN))
    return (file, expected - written, expected) if written < expected else None
