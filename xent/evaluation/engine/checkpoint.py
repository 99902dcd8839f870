"""The states of finished chunks, kept in a directory, so that an interrupted run goes on where it was.

A state is a JSON file: text and integers, which cannot run anything when they are read. It is written under another
name and renamed, so that it is there whole or not at all. The directory's manifest names the inputs, the options and
the chunks of its states; any other run is refused.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import types
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from xent.evaluation.outputs import WriteError, local_path, written
from xent.evaluation.sources.messages import ReadError, refusal
from xent.evaluation.sources.source import Source

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
    "xent.evaluation.statistics.cluster_sums",
    "xent.evaluation.statistics.key_spans",
    "xent.evaluation.statistics.score_counts",
)


@dataclass(frozen=True)
class Store:
    """A directory of the states of finished chunks."""

    directory: str

    def path(self, start: int, stop: int) -> Path:
        """The file of the state of rows start to stop."""
        return Path(self.directory, f"rows-{start}-{stop}.json")

    def load(self, start: int, stop: int, kind: type[Any], losses: str | None = None) -> Any:
        """The state of these rows, of the class ``kind``; None if it is not kept.

        ``losses`` is the digest of the losses of these rows that are on the disk, if there are to be any.

        Raises
        ------
        ReadError
            If the file is not what :meth:`save` wrote for these rows.
        """
        path = self.path(start, stop)
        if not os.path.lexists(path):
            return None
        try:
            if not path.is_file():
                raise ValueError("it is no file")
            part = json.loads(path.read_text("utf-8"))
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
        write_whole(self.path(start, stop), json.dumps(part | {"sha256": digest(json.dumps(part).encode())}))

    def has_parts(self) -> bool:
        """Whether a state is kept."""
        return next(Path(self.directory).glob("rows-*.json"), None) is not None


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
    """Have the directory for this run alone in the with block; WriteError if another run has it."""
    if store is None or fcntl is None:
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
    folder = Path(os.path.abspath(local_path("state", directory)))
    run = json.loads(json.dumps(facts))
    manifest = folder / MANIFEST
    if os.path.lexists(folder) and not folder.is_dir():
        raise ValueError(refusal("state", "be a directory", f"{folder}, which is none", "Choose another one."))
    if os.path.lexists(manifest):
        if not manifest.is_file():  # reading a pipe may never end
            rule, got = "be a directory of an earlier run", f"{folder}, whose {MANIFEST} is no file"
            raise ValueError(refusal("state", rule, got, "Delete it, or choose another one."))
        try:
            kept = json.loads(manifest.read_text("utf-8"))
            kept = kept if isinstance(kept, dict) else {}
        except (ValueError, RecursionError):
            kept = {}
        changed = sorted(key for key in run.keys() | kept.keys() if run.get(key) != kept.get(key))
        if changed:
            got = f"{folder}, whose {' and '.join(changed)} have changed since"
            raise ValueError(refusal("state", "be a directory of this very run", got, "Delete it, or choose another."))
    elif folder.exists() and any(folder.iterdir()):
        rule = "be a new directory, or one of an earlier run"
        raise ValueError(refusal("state", rule, f"{folder}, which holds other files", "Choose another one."))
    else:
        with written(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_whole(manifest, json.dumps(run, indent=2))
    return Store(str(folder))


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with written(path):
        try:
            scratch.write_text(text, "utf-8")
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)


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
