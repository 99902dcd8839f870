"""Which variant of a kernel folds a block, and its launches: from a shape, a dtype and a GPU's properties alone.

| variant | a row is folded by | where |
|---|---|---|
| tile | one thread, through a tile of rows in shared memory | up to 64 classes, labels, adjacent rows |
| lanes | 8 lanes of a warp | rows up to 256 bytes |
| warp | a warp | up to 1024 classes |
| block | a block | rows of which three fit in shared memory, and those that no other variant takes |
| cluster | 2, 4 or 8 blocks with distributed shared memory | larger rows, compute capability 9.0 and later |
| split | blocks of three launches, or two without | large rows, fewer of them than multiprocessors |

All of them give the same bits. The limits were reasoned out, not measured: see benchmarks/predictions_cuda.md of xent.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

C_TYPES = {"float16": "f16", "bfloat16": "bf16", "float32": "float", "float64": "double"}
BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}

LABEL, SMOOTHED, SOFT = 0, 1, 2
"""Kinds of targets, as in xent.cu."""
GRADIENT, STATISTICS, FROM_PARTIAL, MAXIMA, SUMS, MERGE = 1, 2, 4, 8, 16, 32
"""Modes, as in xent.cu."""
METHODS = {
    "partial": 0,
    "loss": 0,
    "gradient": FROM_PARTIAL | GRADIENT,
    "loss_and_gradient": GRADIENT,
    "statistics": STATISTICS,
}

GRANULE = 16
SCRATCH_BYTES = 3072
TILE_ROWS, TILE_CLASSES, TILE_BYTES = 128, 64, 48 << 10
BANKS, BANK_BYTES, MAX_CONFLICTS = 32, 4, 4
WARP_CLASSES, LANES_BYTES, WARP_BLOCK = 1024, 256, 128
BLOCK_THREADS = 256
SMALL_ROW_BYTES = 16 << 10
ROWS_AT_ONCE = 3
"""Blocks of a multiprocessor with a row each in its shared memory: one loads while others compute."""
PART_BYTES, MAX_PARTS = 16 << 10, 64
MAX_BLOCKS = (1 << 31) - 1 - MAX_PARTS
MAX_CLASSES = 1 << 30
CLUSTER_CAPABILITY = 90


@dataclass(frozen=True)
class Device:
    """The properties of a GPU that a plan depends on; an H200's by default.

    Parameters
    ----------
    capability : int
        90 for compute capability 9.0.
    multiprocessors : int
        Multiprocessors.
    shared_bytes : int
        Shared memory that one block may have.
    shared_bytes_per_multiprocessor : int
        Shared memory of all its blocks.
    """

    capability: int = 90
    multiprocessors: int = 132
    shared_bytes: int = 232448
    shared_bytes_per_multiprocessor: int = 233472


class Launch(NamedTuple):
    """One launch: the instance of a template by its name, and its shape."""

    kernel: str
    blocks: int
    threads: int
    shared_bytes: int
    cluster: int = 1


@dataclass(frozen=True)
class LaunchPlan:
    """The launches of a call, in order.

    Attributes
    ----------
    variant : str
    launches : tuple of Launch
    parts : int
        How many parts a row is folded in.
    cached : int
        Granules of 16 bytes of each part that stay in shared memory.
    """

    variant: str
    launches: tuple[Launch, ...]
    parts: int = 1
    cached: int = 0


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


class Shape(NamedTuple):
    """What a plan depends on besides the GPU."""

    rows: int
    classes: int
    dtype: str
    kind: int = LABEL
    method: str = "loss"
    is_packed: bool = True
    """Whether rows are adjacent in memory, those of the gradient too."""
    is_in_place: bool = False
    """Whether the gradient is written over the logits."""

    @property
    def row_bytes(self) -> int:
        return self.classes * BYTES[self.dtype]

    @property
    def mode(self) -> int:
        return METHODS[self.method]

    def kernel(self, template: str, *geometry: int, mode: int | None = None) -> str:
        """The name of an instance."""
        numbers = (self.kind, self.mode if mode is None else mode, *geometry)
        return f"{template}<{C_TYPES[self.dtype]}, {', '.join(map(str, numbers))}>"

    def granules(self, parts: int = 1) -> int:
        """The most granules that a part of a row may touch, at any alignment."""
        per_granule = GRANULE // BYTES[self.dtype]
        return ceil_div(ceil_div(self.classes, parts), per_granule) + 1


@functools.lru_cache(maxsize=1024)
def plan(shape: Shape, device: Device, variant: str = "") -> LaunchPlan:
    """The launches of a call by the best variant, or by the named one; no launches if there are no rows.

    ValueError if the named variant cannot serve.
    """
    if shape.rows == 0:
        return LaunchPlan("nothing", ())
    names = variants(shape, device)
    if variant and variant not in names:
        raise ValueError(f"plan: `variant` must be one of {', '.join(names)} for {shape}, got {variant!r}.")
    return PLANNERS[variant or names[0]](shape, device)


def variants(shape: Shape, device: Device) -> list[str]:
    """The variants that can serve, the best first."""
    names = []
    if shape.classes <= TILE_CLASSES and shape.is_packed and shape.kind != SOFT and tile_bytes(shape) <= TILE_BYTES:
        names.append("tile")
    if shape.classes <= WARP_CLASSES:
        names += ["lanes", "warp"] if shape.row_bytes <= LANES_BYTES else ["warp"]
    if names[:1] == ["tile"] and bank_conflicts(shape) > MAX_CONFLICTS:
        names.append(names.pop(0))
    small = [*names]
    # a gradient from a partial caches nothing, and parts of its rows need nothing of each other
    if shape.method not in ("gradient", "statistics") and not shape.is_in_place:
        names.append("split")
    if shape.method != "gradient" and device.capability >= CLUSTER_CAPABILITY:
        names.append("cluster")
    names.append("block")
    if small:
        return names
    preferred = "block"
    if "split" in names and parts_of(shape, device) > 1:
        preferred = "split"
    elif "cluster" in names and shape.row_bytes > resident_granules(device) * GRANULE:
        preferred = "cluster"
    return [preferred, *(name for name in names if name != preferred)]


def resident_granules(device: Device) -> int:
    """Granules that a block may cache beside ROWS_AT_ONCE - 1 others; the system takes 1 KiB of each."""
    return (device.shared_bytes_per_multiprocessor // ROWS_AT_ONCE - 1024 - SCRATCH_BYTES) // GRANULE


def parts_of(shape: Shape, device: Device) -> int:
    """How many parts rows are folded in, so that every multiprocessor has work; 1 if there are enough rows."""
    if shape.rows >= device.multiprocessors:
        return 1
    parts = ceil_div(4 * device.multiprocessors, shape.rows)
    return max(1, min(parts, shape.row_bytes // PART_BYTES, MAX_PARTS))


def bank_conflicts(shape: Shape) -> int:
    """How many threads access one bank of shared memory when each reads a row of a tile."""
    return math.gcd(shape.row_bytes // BANK_BYTES, BANKS) if shape.row_bytes % BANK_BYTES == 0 else 1


def tile_bytes(shape: Shape) -> int:
    """The size of a tile at any alignment."""
    return TILE_ROWS * shape.row_bytes + GRANULE


def tile(shape: Shape) -> LaunchPlan:
    blocks = min(ceil_div(shape.rows, TILE_ROWS), MAX_BLOCKS)
    return LaunchPlan("tile", (Launch(shape.kernel("tile", TILE_ROWS), blocks, TILE_ROWS, tile_bytes(shape)),))


def team(shape: Shape, lanes: int) -> LaunchPlan:
    """Some lanes of a warp, or a warp, for each row."""
    rows = WARP_BLOCK // lanes  # of a block
    cached = 0 if shape.mode & FROM_PARTIAL else shape.granules()
    launch = Launch(
        shape.kernel("fold", lanes, WARP_BLOCK),
        min(ceil_div(shape.rows, rows), MAX_BLOCKS),
        WARP_BLOCK,
        rows * cached * GRANULE,
    )
    return LaunchPlan("lanes" if lanes < 32 else "warp", (launch,), cached=cached)


def block(shape: Shape, device: Device) -> LaunchPlan:
    """A block for each row; for each part of one if the gradient is from a partial."""
    parts = parts_of(shape, device) if shape.mode & FROM_PARTIAL else 1
    threads = BLOCK_THREADS if shape.row_bytes > SMALL_ROW_BYTES else BLOCK_THREADS // 2
    cached = 0 if shape.mode & FROM_PARTIAL else min(shape.granules(), (device.shared_bytes - SCRATCH_BYTES) // GRANULE)
    if cached > resident_granules(device):
        # alone on its multiprocessor; granules that are not cached are read again, from the L2 cache
        threads = 2 * BLOCK_THREADS
    launch = Launch(
        shape.kernel("fold", threads, threads),
        grid_blocks(shape.rows, parts),
        threads,
        SCRATCH_BYTES + cached * GRANULE,
    )
    return LaunchPlan("block", (launch,), parts=parts, cached=cached)


def cluster(shape: Shape, device: Device) -> LaunchPlan:
    """Two, four or eight blocks for each row: as few as can cache all of it."""
    size = next((k for k in (2, 4, 8) if shape.granules(k) <= resident_granules(device)), 8)
    cached = min(shape.granules(size), (device.shared_bytes - SCRATCH_BYTES) // GRANULE)
    launch = Launch(
        shape.kernel("fold_in_cluster", BLOCK_THREADS, size),
        grid_blocks(shape.rows, size),
        BLOCK_THREADS,
        SCRATCH_BYTES + cached * GRANULE,
        size,
    )
    return LaunchPlan("cluster", (launch,), parts=size, cached=cached)


def split(shape: Shape, device: Device) -> LaunchPlan:
    """Rows in parts, by three launches that communicate through memory: maxima, sums, results."""
    parts = max(2, parts_of(shape, device))
    count, threads = grid_blocks(shape.rows, parts), BLOCK_THREADS
    names = (shape.kernel("fold", threads, threads, mode=mode) for mode in (MAXIMA, SUMS, MERGE | shape.mode))
    return LaunchPlan("split", tuple(Launch(name, count, threads, SCRATCH_BYTES) for name in names), parts=parts)


def grid_blocks(rows: int, parts: int) -> int:
    """How many blocks a grid has: one for each part of each row, up to the limit; beyond it blocks loop over rows."""
    return min(rows * parts, MAX_BLOCKS // parts * parts)


PLANNERS = {
    "tile": lambda shape, device: tile(shape),
    "lanes": lambda shape, device: team(shape, 8),
    "warp": lambda shape, device: team(shape, 32),
    "block": block,
    "cluster": cluster,
    "split": split,
}
