"""Zarr's store at a URL: a chunk is one request, of which the answer says what is wrong with it.

Leaves out what the chunks mean (``zarr.py``), and archives on a local disk (``zarr_zip.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from xent.evaluation.sources.messages import is_transient
from xent.evaluation.sources.servers import asked, filesystem, waits
from xent.evaluation.sources.storage import Stamp, join, told_of
from xent.evaluation.sources.storage_options import options_of
from xent.optional import require

METADATA_BYTES = 2**26
"""The most bytes of what describes an array, or a group with all of its arrays."""


@cache
def store_class() -> Any:
    """The class of stores that check what they get; made when zarr is there."""
    import asyncio  # with zarr, and not for every command

    base: Any = require("zarr", "zarr", "a Zarr array").storage.WrapperStore
    range_request = require("zarr.abc.store", "zarr", "a Zarr array").RangeByteRequest

    class CheckedStore(base):
        """A store whose chunks are ``most`` bytes at most, and all there if ``is_complete``.

        Nothing is checked, as of metadata, while ``root`` is None.
        """

        root: str | None = None
        most: int | None = None
        is_complete = False

        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            # subtle: s3fs asks for the size of what it is to send whole
            most = METADATA_BYTES if self.root is None else self.most
            wanted = range_request(0, most + 1) if byte_range is None and most is not None else byte_range
            for wait in waits():
                try:
                    value = await self._store.get(key, prototype, wanted)
                    break
                except Exception as error:
                    if wait is None or not is_transient(error):
                        raise
                await asyncio.sleep(wait)
            if self.root is None:
                if value is not None and len(value) > METADATA_BYTES:
                    raise ValueError(f"its {key} has more than {METADATA_BYTES:,} bytes")
                return value
            # subtle: zarr reads both a chunk that is not there and an empty one as the fill value
            if value is None and self.is_complete:
                raise ValueError(f"{join(self.root, key)} is not there")
            if value is not None and not len(value):
                raise ValueError(f"{join(self.root, key)} is empty")
            if byte_range is None and most is not None and value is not None and len(value) > most:
                raise ValueError(f"{join(self.root, key)} has more than {most} bytes, and a chunk that at most")
            return value

    return CheckedStore


def open_store(path: str) -> Any:
    """zarr's store at a URL, which checks nothing yet."""
    zarr = require("zarr", "zarr", "a Zarr array")
    return store_class()(zarr.storage.FsspecStore.from_url(path, storage_options=options_of(path), read_only=True))


def files_below(path: str) -> Iterator[tuple[str, Stamp]]:
    """The files in a folder at a URL, however deep, with their stamps, by one listing of all."""
    system, remote_path = filesystem(path)
    system.invalidate_cache(remote_path)
    infos = asked(path, lambda: system.find(remote_path, detail=True))
    for name, info in infos.items():
        file = join(path, name.removeprefix(remote_path).lstrip("/"))
        yield file, told_of(file, info, {}).stamp
