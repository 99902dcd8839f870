"""The states of finished chunks, kept in a directory, so that an interrupted run goes on where it was.

A state is a JSON file: text and integers, which cannot run anything when they are read. It is written under another
name and renamed, so that it is there whole or not at all. The directory's manifest names the inputs, the options and
the chunks of its states; any other run is refused.
"""

from __future__ import annotations

import importlib
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xent.evaluation.sources.messages import ReadError, refusal

MANIFEST = "manifest.json"
MODULES = (
    "xent.evaluation.statistics.state",
    "xent.evaluation.statistics.exact_sums",
    "xent.evaluation.engine.compare_pass",
    "xent.evaluation.statistics.classwise",
)


@dataclass(frozen=True)
class Store:
    """A directory of the states of finished chunks."""

    directory: str

    def path(self, start: int, stop: int) -> Path:
        """The file of the state of rows start to stop."""
        return Path(self.directory, f"rows-{start}-{stop}.json")

    def load(self, start: int, stop: int) -> Any:
        """The state of these rows, None if it is not kept."""
        path = self.path(start, stop)
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            return None
        try:
            state = from_plain(json.loads(text))
            if not is_dataclass(state):
                raise ValueError("it holds no state")
            return state
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReadError(
                f"evaluate: {path} is corrupt ({error}). Delete it, and its rows are read again."
            ) from error

    def save(self, start: int, stop: int, state: Any) -> None:
        """Keep the state of these rows."""
        write_whole(self.path(start, stop), json.dumps(to_plain(state)))


def open_store(directory: str | os.PathLike[str], facts: dict[str, Any]) -> Store:
    """The store in a directory, made if it is missing.

    Raises
    ------
    ValueError
        If its states are of other inputs, options or chunks than `facts`, or something else is in the directory.
    """
    if not os.fspath(directory):
        raise ValueError(refusal("state", "be a directory", "an empty path", "A dot is the current folder."))
    folder = Path(os.path.abspath(directory))
    run = json.loads(json.dumps(facts))
    manifest = folder / MANIFEST
    if manifest.exists():
        try:
            kept = json.loads(manifest.read_text("utf-8"))
        except ValueError:
            kept = {}
        changed = sorted(key for key in run.keys() | kept.keys() if run.get(key) != kept.get(key))
        if changed:
            got = f"{folder}, whose {' and '.join(changed)} have changed since"
            raise ValueError(refusal("state", "be a directory of this very run", got, "Delete it, or choose another."))
    elif folder.exists() and any(folder.iterdir()):
        rule = "be a new directory, or one of an earlier run"
        raise ValueError(refusal("state", rule, f"{folder}, which holds other files", "Choose another one."))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(manifest, json.dumps(run, indent=2))
    return Store(str(folder))


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    scratch.write_text(text, "utf-8")
    scratch.replace(path)


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
        return np.asarray(inside[1], np.int64).reshape(inside[0])
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
