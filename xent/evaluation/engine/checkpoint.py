"""The states of finished chunks, kept in a directory, so that an interrupted run goes on where it was.

A state is a JSON file: text and integers, which cannot run anything when they are read. It is written under another
name and renamed, so that it is there whole or not at all. The directory's manifest names the inputs, the options and
the chunks of its states; any other run is refused. At a URL a state is one request, and so whole too.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import posixpath
import types
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from xent.evaluation.outputs import Destination, WriteError, check_folder, output_text, written
from xent.evaluation.sources.messages import ReadError, refusal
from xent.evaluation.sources.objects import read_whole, write_whole
from xent.evaluation.sources.source import Source
from xent.evaluation.sources.storage import is_url, join, listed
from xent.evaluation.sources.storage_options import CURRENT, StorageOptions, storage_options_set

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

MANIFEST = "manifest.json"
MODULES = (
    "xent.evaluation.statistics.state",
    "xent.evaluation.statistics.exact_sums",
    "xent.evaluation.engine.compare_pass",
    "xent.evaluation.engine.pairwise_pass",
    "xent.evaluation.statistics.classwise",
    "xent.evaluation.statistics.cluster_losses",
    "xent.evaluation.statistics.cluster_sums",
    "xent.evaluation.statistics.grid_sums",
    "xent.evaluation.statistics.key_spans",
    "xent.evaluation.statistics.score_counts",
)


@dataclass(frozen=True)
class Store:
    """A directory of the states of finished chunks, on a disk or at a URL with the options of its file system."""

    directory: str
    options: StorageOptions | None = field(default_factory=CURRENT.get, repr=False)

    @property
    def is_remote(self) -> bool:
        """Whether it is at a URL."""
        return is_url(self.directory)

    def path(self, start: int, stop: int) -> str:
        """The file of the state of rows start to stop."""
        return join(self.directory, name_of(start, stop))

    def rows_kept(self, bounds: Sequence[int]) -> int:
        """The rows of the chunks between these bounds whose states are kept."""
        names = self.names()
        return sum(stop - start for start, stop in pairwise(bounds) if name_of(start, stop) in names)

    def names(self) -> set[str]:
        """The names of its files."""
        with storage_options_set(self.options):
            paths = listed(self.directory) if self.is_remote else os.listdir(self.directory)
        return {posixpath.basename(path) for path in paths}

    def text(self, path: str) -> str | None:
        """The text of a file, None if it is not there; ValueError if it is no file."""
        if not self.is_remote:
            if not os.path.lexists(path):
                return None
            if not os.path.isfile(path):  # reading a pipe may never end
                raise ValueError("it is no file")
            return Path(path).read_text("utf-8")
        with storage_options_set(self.options):
            try:
                return read_whole(path).decode()
            except FileNotFoundError:
                return None

    def write(self, path: str, text: str) -> None:
        """Write a file that is there whole or not at all."""
        with storage_options_set(self.options), written(Destination(path) if self.is_remote else Path(path)):
            if self.is_remote:
                write_whole(path, text.encode())
                return
            scratch = Path(path).with_name(f".{os.path.basename(path)}.{uuid.uuid4().hex}")
            try:
                scratch.write_text(text, "utf-8")
                scratch.replace(path)
            finally:
                scratch.unlink(missing_ok=True)

    def load(self, start: int, stop: int, kind: type[Any], losses: str | None = None) -> Any:
        """The state of these rows, of the class ``kind``; None if it is not kept.

        ``losses`` is the digest of the losses of these rows that are on the disk, if there are to be any.

        Raises
        ------
        ReadError
            If the file is not what :meth:`save` wrote for these rows.
        """
        path = self.path(start, stop)
        try:
            text = self.text(path)
            if text is None:
                return None
            part = json.loads(text)
            if part.pop("sha256") != digest(json.dumps(part).encode()):
                raise ValueError("its checksum is another")
            state = from_plain(part["state"])
            if part["rows"] != [start, stop] or not has_type(state, kind) or state.rows != stop - start:
                raise ValueError("it holds no state of these rows")
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, OSError) as error:
            raise ReadError(
                f"evaluate: {path} is corrupt ({error}). Delete it, and its rows are read again."
            ) from error
        if part["losses"] != losses:
            got = f"{path} was kept with other losses of its rows than are in its folder"
            raise ReadError(f"evaluate: {got}. Delete it, and its rows are read again.")
        return state

    def save(self, start: int, stop: int, state: Any, losses: str | None = None) -> None:
        """Keep the state of these rows, and the digest of their losses if there are any."""
        part = {"rows": [start, stop], "losses": losses, "state": to_plain(state)}
        self.write(self.path(start, stop), json.dumps(part | {"sha256": digest(json.dumps(part).encode())}))

    def has_parts(self) -> bool:
        """Whether a state is kept."""
        return any(name.startswith("rows-") and name.endswith(".json") for name in self.names())


def name_of(start: int, stop: int) -> str:
    """The name of the file of the state of rows start to stop."""
    return f"rows-{start}-{stop}.json"


def fingerprints_of(argument: str, sources: Mapping[str, Source]) -> dict[str, Any]:
    """The fingerprint of each source; ValueError, which names the argument of the state, where one has none."""
    fingerprints = {name: source.fingerprint() for name, source in sources.items()}
    for name, fingerprint in fingerprints.items():
        if fingerprint is None:
            got, remedy = f"{sources[name]} as `{name}`", "Save it as a file, and pass its path."
            raise ValueError(refusal(argument, "be of files alone, whose change is seen", got, remedy))
    return fingerprints


def digest(data: bytes) -> str:
    """The SHA-256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


@contextmanager
def held(store: Store | None) -> Iterator[None]:
    """Have the directory for this run alone in the with block; WriteError if another run has it.

    There are no locks at a URL: two runs of one manifest write the same states.
    """
    if store is None or store.is_remote or fcntl is None:
        yield
        return
    folder = os.open(store.directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it is let go if the process is killed
        except BlockingIOError as error:
            rule, got = "be a directory that no other run is using", store.directory
            raise WriteError(refusal("state", rule, got, "Wait for that run, or choose another one.")) from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(folder)


def open_store(directory: str | os.PathLike[str], facts: dict[str, Any]) -> Store:
    """The store in a directory, made if it is missing.

    Raises
    ------
    ValueError
        If its states are of other inputs, options or chunks than `facts`, or something else is in the directory.
    """
    folder = output_text("state", directory)
    folder = folder.rstrip("/") if is_url(folder) else os.path.abspath(folder)
    store, run = Store(folder), json.loads(json.dumps(facts))
    manifest = join(folder, MANIFEST)
    if store.is_remote:
        check_folder("state", Destination(folder))
    elif os.path.lexists(folder) and not os.path.isdir(folder):
        raise ValueError(refusal("state", "be a directory", f"{folder}, which is none", "Choose another one."))
    elif os.path.lexists(manifest) and not os.path.isfile(manifest):
        rule, got = "be a directory of an earlier run", f"{folder}, whose {MANIFEST} is no file"
        raise ValueError(refusal("state", rule, got, "Delete it, or choose another one."))
    try:
        text = store.text(manifest)
    except UnicodeDecodeError:
        text = ""
    if text is not None:
        try:
            kept = json.loads(text)
            kept = kept if isinstance(kept, dict) else {}
        except (ValueError, RecursionError):
            kept = {}
        changed = sorted(key for key in run.keys() | kept.keys() if run.get(key) != kept.get(key))
        if changed:
            got = f"{folder}, whose {' and '.join(changed)} have changed since"
            raise ValueError(refusal("state", "be a directory of this very run", got, "Delete it, or choose another."))
    elif (store.is_remote or os.path.exists(folder)) and store.names():
        rule = "be a new directory, or one of an earlier run"
        raise ValueError(refusal("state", rule, f"{folder}, which holds other files", "Choose another one."))
    else:
        if not store.is_remote:
            with written(Path(folder)):
                os.makedirs(folder, exist_ok=True)
        store.write(manifest, json.dumps(run, indent=2))
    return store


def to_plain(value: Any) -> Any:
    """A state as JSON can hold it: a record by its class's name and its fields, a mapping by its pairs."""
    if isinstance(value, Mapping):
        return {"": [[to_plain(key), to_plain(item)] for key, item in value.items()]}
    if is_dataclass(value):
        return {type(value).__name__: [to_plain(getattr(value, field.name)) for field in fields(value)]}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {type(value).__name__: [to_plain(item) for item in value]}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, np.generic):
        return to_plain(value.item())
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, np.ndarray):
        return {"array": [list(value.shape), value.ravel().tolist()]}
    return value


def from_plain(plain: Any) -> Any:
    """The state that :func:`to_plain` turned into this."""
    if isinstance(plain, list):
        return tuple(from_plain(item) for item in plain)
    if not isinstance(plain, dict):
        return plain
    ((name, inside),) = plain.items()
    if name == "float":
        return float.fromhex(inside)
    if name == "bytes":
        return bytes.fromhex(inside)
    if name == "array":
        kind = object if any(abs(number) >= 2**63 for number in inside[1]) else np.int64
        return np.asarray(inside[1], kind).reshape(inside[0])
    if name == "":
        return {from_plain(key): from_plain(item) for key, item in inside}
    return record_class(name)(*map(from_plain, inside))


def record_class(name: str) -> Any:
    """The class of that name, if it is one of those in a state; else ValueError."""
    for module in MODULES:
        value = getattr(importlib.import_module(module), name, None)
        if isinstance(value, type) and value.__module__ == module:
            return value
    raise ValueError(f"a state has no {name}")


def has_type(value: Any, hint: Any) -> bool:
    """Whether a value of a state is of a type, down to its fields and items."""
    origin, inside = get_origin(hint), get_args(hint)
    if hint is Any:  # the key of a slice or a cluster
        return isinstance(value, int | str | bytes | float | tuple)
    if origin is types.UnionType:
        return any(has_type(value, each) for each in inside)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            has_type(key, inside[0]) and has_type(item, inside[1]) for key, item in value.items()
        )
    if origin is tuple:
        return isinstance(value, tuple) and all(has_type(item, inside[0]) for item in value)
    if type(value) is not (origin or hint):
        return False
    hints = get_type_hints(hint) if is_dataclass(hint) or hasattr(hint, "_fields") else {}
    return all(has_type(getattr(value, name), each) for name, each in hints.items())
