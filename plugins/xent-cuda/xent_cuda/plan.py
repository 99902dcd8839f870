"""Which variant of a kernel folds a block, and how it is launched: from a shape, a dtype and a GPU's numbers alone.

| variant | a row is folded by | where |
|---|---|---|
| tile | one thread, through a tile of rows in shared memory | up to 64 classes, labels, rows side by side |
| lanes | 8 lanes of a warp | rows up to 256 bytes |
| warp | a warp | up to 1024 classes |
| block | a block | rows that fit beside two others in shared memory, and whatever nothing else serves |
| cluster | 2, 4 or 8 blocks that see each other's memory | larger rows, compute capability 9.0 and later |
| split | blocks of three launches, or two without | large rows, fewer of them than multiprocessors |

All of them give the same bits. The limits were reasoned out, not measured: see benchmarks/predictions_cuda.md of xent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

C_TYPES = {"float16": "f16", "bfloat16": "bf16", "float32": "float", "float64": "double"}
BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}

LABEL, SMOOTHED, SOFT = 0, 1, 2
"""Kinds of targets, as in xent.cu."""
SLOPE, STATISTICS, GIVEN, TOPS, SUMS, JOIN = 1, 2, 4, 8, 16, 32
"""Modes, as in xent.cu."""
METHODS = {"partial": 0, "loss": 0, "gradient": GIVEN | SLOPE, "loss_and_gradient": SLOPE, "statistics": STATISTICS}

GRANULE = 16
DESK_BYTES = 3072
TILE_ROWS, TILE_CLASSES, TILE_BYTES = 128, 64, 48 << 10
BANKS, BANK_BYTES, CONFLICTS_AT_MOST = 32, 4, 4
WARP_CLASSES, LANES_BYTES, WARP_BLOCK = 1024, 256, 128
BLOCK_THREADS = 256
SMALL_ROW_BYTES = 16 << 10
ROWS_AT_ONCE = 3
"""Blocks of a multiprocessor that have a row each in its shared memory: one loads while others compute."""
PART_BYTES, PARTS_AT_MOST = 16 << 10, 64
BLOCKS_AT_MOST = (1 << 31) - 1 - PARTS_AT_MOST
CLASSES_AT_MOST = 1 << 30
CAPABILITY_OF_CLUSTERS = 90


@dataclass(frozen=True)
class Device:
    """What a plan asks of a GPU; an H200's numbers by default.

    Parameters
    ----------
    capability : int
        90 for compute capability 9.0.
    processors : int
        Multiprocessors.
    shared_bytes : int
        Shared memory that one block may have.
    shared_bytes_of_all : int
        That the blocks of a multiprocessor share.
    """

    capability: int = 90
    processors: int = 132
    shared_bytes: int = 232448
    shared_bytes_of_all: int = 233472


class Launch(NamedTuple):
    """One launch: the instance of a template by its name, and its shape."""

    kernel: str
    blocks: int
    threads: int
    shared_bytes: int
    cluster: int = 1


@dataclass(frozen=True)
class Plan:
    """The launches of a call, in order.

    Attributes
    ----------
    variant : str
    launches : tuple of Launch
    parts : int
        In how many parts a row is folded.
    kept : int
        Granules of 16 bytes of each part that stay in shared memory.
    """

    variant: str
    launches: tuple[Launch, ...]
    parts: int = 1
    kept: int = 0


def ceil_of(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


class Shape(NamedTuple):
    """What a plan depends on, the GPU aside."""

    rows: int
    classes: int
    dtype: str
    kind: int = LABEL
    method: str = "loss"
    is_packed: bool = True
    """Whether rows lie side by side, those of the gradient too."""
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
        """The most granules that a part of a row may touch, wherever it begins."""
        per_granule = GRANULE // BYTES[self.dtype]
        return ceil_of(ceil_of(self.classes, parts), per_granule) + 1


def plan(shape: Shape, device: Device, variant: str = "") -> Plan:
    """The launches of a call by the best variant, or the one that is named; none where there are no rows.

    ValueError where the variant that is named cannot serve.
    """
    if shape.rows == 0:
        return Plan("nothing", ())
    able = variants(shape, device)
    if variant and variant not in able:
        raise ValueError(f"plan: `variant` must be one of {', '.join(able)} for {shape}, got {variant!r}.")
    return MADE[variant or able[0]](shape, device)


def variants(shape: Shape, device: Device) -> list[str]:
    """The variants that can serve, the best first."""
    able = []
    if shape.classes <= TILE_CLASSES and shape.is_packed and shape.kind != SOFT and tile_bytes(shape) <= TILE_BYTES:
        able.append("tile")
    if shape.classes <= WARP_CLASSES:
        able += ["lanes", "warp"] if shape.row_bytes <= LANES_BYTES else ["warp"]
    if able[:1] == ["tile"] and conflicts(shape) > CONFLICTS_AT_MOST:
        able.append(able.pop(0))
    small = [*able]
    # a gradient of given numbers keeps nothing, and parts of its rows need nothing of each other
    if shape.method not in ("gradient", "statistics") and not shape.is_in_place:
        able.append("split")
    if shape.method != "gradient" and device.capability >= CAPABILITY_OF_CLUSTERS:
        able.append("cluster")
    able.append("block")
    if small:
        return able
    preferred = "block"
    if "split" in able and parts_of(shape, device) > 1:
        preferred = "split"
    elif "cluster" in able and shape.row_bytes > room(device) * GRANULE:
        preferred = "cluster"
    return [preferred, *(one for one in able if one != preferred)]


def room(device: Device) -> int:
    """Granules that a block may keep beside others on its multiprocessor; each block costs 1 KiB of the system's."""
    return (device.shared_bytes_of_all // ROWS_AT_ONCE - 1024 - DESK_BYTES) // GRANULE


def parts_of(shape: Shape, device: Device) -> int:
    """In how many parts rows are folded, so that every multiprocessor has work: one where there are rows enough."""
    if shape.rows >= device.processors:
        return 1
    wanted = ceil_of(4 * device.processors, shape.rows)
    return max(1, min(wanted, shape.row_bytes // PART_BYTES, PARTS_AT_MOST))


def conflicts(shape: Shape) -> int:
    """How many threads meet in one bank of shared memory where each reads a row of a tile."""
    return math.gcd(shape.row_bytes // BANK_BYTES, BANKS) if shape.row_bytes % BANK_BYTES == 0 else 1


def tile_bytes(shape: Shape) -> int:
    """A tile, wherever in 16 bytes it begins."""
    return TILE_ROWS * shape.row_bytes + GRANULE


def tile(shape: Shape) -> Plan:
    blocks = min(ceil_of(shape.rows, TILE_ROWS), BLOCKS_AT_MOST)
    return Plan("tile", (Launch(shape.kernel("tile", TILE_ROWS), blocks, TILE_ROWS, tile_bytes(shape)),))


def team(shape: Shape, lanes: int) -> Plan:
    """Some lanes of a warp, or a warp, for each row."""
    rows = WARP_BLOCK // lanes  # of a block
    kept = 0 if shape.mode & GIVEN else shape.granules()
    launch = Launch(
        shape.kernel("fold", lanes, WARP_BLOCK),
        min(ceil_of(shape.rows, rows), BLOCKS_AT_MOST),
        WARP_BLOCK,
        rows * kept * GRANULE,
    )
    return Plan("lanes" if lanes < 32 else "warp", (launch,), kept=kept)


def block(shape: Shape, device: Device) -> Plan:
    """A block for each row, or each part of one where the fold's numbers are given."""
    parts = parts_of(shape, device) if shape.mode & GIVEN else 1
    threads = BLOCK_THREADS if shape.row_bytes > SMALL_ROW_BYTES else BLOCK_THREADS // 2
    kept = 0 if shape.mode & GIVEN else min(shape.granules(), (device.shared_bytes - DESK_BYTES) // GRANULE)
    if kept > room(device):
        threads = 2 * BLOCK_THREADS  # alone on its multiprocessor; what is not kept is read again, from the L2 cache
    launch = Launch(
        shape.kernel("fold", threads, threads), in_parts(shape.rows, parts), threads, DESK_BYTES + kept * GRANULE
    )
    return Plan("block", (launch,), parts=parts, kept=kept)


def cluster(shape: Shape, device: Device) -> Plan:
    """Two, four or eight blocks for each row: as few as keep all of it."""
    size = next((k for k in (2, 4, 8) if shape.granules(k) <= room(device)), 8)
    kept = min(shape.granules(size), (device.shared_bytes - DESK_BYTES) // GRANULE)
    launch = Launch(
        shape.kernel("fold_in_cluster", BLOCK_THREADS, size),
        in_parts(shape.rows, size),
        BLOCK_THREADS,
        DESK_BYTES + kept * GRANULE,
        size,
    )
    return Plan("cluster", (launch,), parts=size, kept=kept)


def split(shape: Shape, device: Device) -> Plan:
    """Rows in parts: their maxima, then their sums, then what is made of both; the launches hand them on in memory."""
    parts = max(2, parts_of(shape, device))
    count, threads = in_parts(shape.rows, parts), BLOCK_THREADS
    names = (shape.kernel("fold", threads, threads, mode=mode) for mode in (TOPS, SUMS, JOIN | shape.mode))
    return Plan("split", tuple(Launch(name, count, threads, DESK_BYTES) for name in names), parts=parts)


def in_parts(rows: int, parts: int) -> int:
    """A block for each part of each row, as far as a grid goes: blocks take further rows in turn."""
    return min(rows * parts, BLOCKS_AT_MOST // parts * parts)


MADE = {
    "tile": lambda shape, device: tile(shape),
    "lanes": lambda shape, device: team(shape, 8),
    "warp": lambda shape, device: team(shape, 32),
    "block": block,
    "cluster": cluster,
    "split": split,
}
