"""Files at URLs that are written: each whole, in one request, or in parts of which the server makes one at the end.

Leaves out where they are written and when (``evaluation/outputs.py``), and what is in them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xent.evaluation.sources.servers import asked, filesystem, protocols_of
from xent.evaluation.sources.storage import status

WRITTEN = "written"
BUCKETS = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs", "adl", "oss"))
"""The protocols of stores of objects, which lie in a bucket."""


def is_there(url: str) -> bool:
    """Whether a file or a folder is at a URL."""
    try:
        status(url)
    except FileNotFoundError:
        return False
    return True


def read_whole(url: str) -> bytes:
    """The bytes of the file at a URL; FileNotFoundError if there is none."""
    system, path = filesystem(url)
    data: bytes = asked(url, lambda: system.cat_file(path))
    return data


def write_whole(url: str, data: bytes) -> None:
    """Write a file, which replaces one that is there; ReadError, which names the URL, if its server refuses."""
    system, path = filesystem(url)
    make_folders(system, path)
    asked(url, lambda: system.pipe_file(path, data), done=WRITTEN)


def upload(file: Path, url: str) -> None:
    """Write the contents of a local file as :func:`write_whole` does, a piece at a time."""
    system, path = filesystem(url)
    make_folders(system, path)
    asked(url, lambda: system.put_file(str(file), path), done=WRITTEN)


def delete(url: str) -> None:
    """Delete the file at a URL, if it is there."""
    system, path = filesystem(url)
    try:
        asked(url, lambda: system.rm_file(path), done=WRITTEN)
    except FileNotFoundError:
        return


def make_folders(system: Any, path: str) -> None:
    """Make the folders of a path, on a file system that has folders; stores of objects know names alone."""
    if not BUCKETS.intersection(protocols_of(system)):
        system.makedirs(system._parent(path), exist_ok=True)


def check_bucket(url: str) -> None:
    """Raise FileNotFoundError if a store of objects says that it has no bucket of this name."""
    system, path = filesystem(url)
    bucket = path.partition("/")[0]
    if BUCKETS.intersection(protocols_of(system)):
        try:
            there = system.exists(bucket)
        except Exception:  # who may write into a bucket need not be allowed to look at it
            return
        if not there:
            raise FileNotFoundError(bucket)
