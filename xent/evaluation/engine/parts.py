"""Parts of an evaluation: the sums of some rows of a set, each kept in a file by a job of its own, and merged later.

A part is a JSON file, of text and integers as the states of ``checkpoint.py``. It names the inputs, the options and the
version that it is of, and its rows, so that only parts of one set, and each row once, are merged.
Leaves out the numbers that follow from the merged sums.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xent.evaluation.engine.checkpoint import digest, fingerprints_of, from_plain, has_type, to_plain
from xent.evaluation.options import Outputs
from xent.evaluation.outputs import Target, check_no_input, output_path, output_text, write_text
from xent.evaluation.sources.messages import ReadError, ServerError, refusal
from xent.evaluation.sources.objects import read_whole
from xent.evaluation.sources.source import Source
from xent.evaluation.sources.storage import is_glob, is_url, matches
from xent.evaluation.statistics.cluster_sums import ClustersApart, TooManyClusters
from xent.evaluation.statistics.state import merge

FORMAT, VERSION = "part of a xent evaluation", 1
Range = tuple[int, int]


@dataclass(frozen=True)
class PartFile:
    """The path of a part, whether it may be there already, and the fingerprints of what is read."""

    target: Target
    overwrite: bool
    fingerprints: Mapping[str, Any]

    def save(self, rows: Range, shared: Mapping[str, Any], own: Mapping[str, Any], state: Any) -> None:
        """Write the part of these rows; WriteError if it cannot be written.

        ``shared`` are the facts, as JSON can hold them, in which all parts of a set agree, its inputs by name among
        them; ``own`` are other facts.
        """
        inputs = {name: [facts, self.fingerprints[name]] for name, facts in shared["inputs"].items()}
        shared = {**shared, "inputs": inputs}
        part = {"format": FORMAT, "version": VERSION, "rows": list(rows), "shared": shared, "own": own}
        part = json.loads(json.dumps(part | {"state": to_plain(state)}))
        whole = part | {"sha256": digest(json.dumps(part).encode())}
        write_text(self.target, json.dumps(whole), overwrite=self.overwrite)


@dataclass(frozen=True)
class Part:
    """The sums of some rows: those of one file, or of several that have been merged, and the facts of each."""

    path: str
    rows: Range
    shared: Mapping[str, Any]
    own: Mapping[str, Any]
    state: Any


@dataclass(frozen=True)
class Merged:
    """What parts become: their sums, the ranges of rows that they have, what they share, and the facts of each."""

    state: Any
    ranges: list[Range]
    shared: Mapping[str, Any]
    own: list[Mapping[str, Any]]


def part_file(outputs: Outputs, sources: Mapping[str, Source]) -> PartFile | None:
    """The file of a part of a pass that reads the sources, None if none is asked for; errors of :func:`output_path`."""
    if outputs.state_out is None:
        return None
    target = output_path("state_out", outputs.state_out, (".json",), overwrite=outputs.overwrite)
    check_no_input("state_out", target, sources.values())
    return PartFile(target, outputs.overwrite, fingerprints_of("state_out", sources))


def read_part(path: Any, kinds: Mapping[str, type[Any]]) -> Part:
    """The part in a file, whose sums are of one of the `kinds`, by the command that made them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ReadError
        If it is none, is truncated, or has been changed.
    """
    name = output_text("parts", path)
    try:
        part = json.loads(text_of(name))
        if not isinstance(part, dict) or part.get("format") != FORMAT:
            raise ValueError("it is something else")
        if part["version"] != VERSION:
            raise ValueError(f"it is of version {part['version']} of the format, not {VERSION}")
        if part.pop("sha256") != digest(json.dumps(part).encode()):
            raise ValueError("its checksum is another")
        (start, stop), shared = part["rows"], part["shared"]
        state = from_plain(part["state"])
        if not has_type(state, kinds[shared["command"]]) or state.rows != stop - start:
            raise ValueError("it holds no sums of these rows")
        return Part(name, (start, stop), shared, part["own"], state)
    except FileNotFoundError as error:
        remedy = "Wait for the job that makes it."
        raise FileNotFoundError(refusal("parts", "be files that are there", name, remedy)) from error
    except ServerError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, OSError) as error:
        remedy = "Make it with state_out=, and merge it as it was written."
        raise ReadError(f"evaluate: {name} is no whole part of an evaluation ({error}). {remedy}") from error


def text_of(name: str) -> str:
    """The text of the file at a path or a URL; FileNotFoundError if nothing is there."""
    if is_url(name):
        return read_whole(name).decode()
    if os.path.lexists(name) and not os.path.isfile(name):  # reading a pipe may never end
        raise ValueError("it is no file")
    return Path(name).read_text("utf-8")


def each_path(paths: Iterable[Any]) -> Iterator[Any]:
    """The paths, with those that a glob stands for; a glob of nothing stands for itself, which is not there."""
    for path in paths:
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        yield from (isinstance(text, str) and is_glob(text) and matches(text)) or [path]


def merge_files(
    paths: Iterable[Any],
    kinds: Mapping[str, type[Any]],
    *,
    partial: bool,
    check: Callable[[Mapping[str, Any]], None] = lambda shared: None,
) -> Merged:
    """What the parts in these files become; one is in memory at a time.

    `check` is called with the facts in which all parts agree before the second is read.

    Raises
    ------
    ValueError
        If there is none, they are of different sets, options or versions, or have a row twice; or, unless `partial`,
        if rows are missing.
    FileNotFoundError, ReadError
        As :func:`read_part`.
    """
    first, state, ranges, own = None, None, list[tuple[int, int, str]](), list[Mapping[str, Any]]()
    for path in each_path(paths):
        part = read_part(path, kinds)
        if first is None:
            first = part
            check(part.shared)
        check_same(first, part)
        try:
            state = merge(state, part.state)
        except (ClustersApart, TooManyClusters):
            rule = "have the rows of each cluster beside each other, where clusters are many"
            got = f"{part.path}, with rows of a cluster that is in another part too"
            raise ValueError(
                refusal("parts", rule, got, "Evaluate the set in one run, or sort it by cluster.")
            ) from None
        ranges.append((*part.rows, part.path))
        own.append(part.own)
    if first is None:
        raise ValueError(refusal("parts", "be the files of one part or more", "none", "Name them."))
    found = sorted(each for each in ranges if each[0] < each[1])
    check_apart(found)
    rows = int(first.shared["rows"])
    gaps = gaps_between([each[:2] for each in found], rows)
    if gaps and not partial:
        shown = " and ".join(f"{start}:{stop}" for start, stop in gaps)
        remedy = "Make parts of those, or pass partial=True for the numbers of the rows that are there."
        raise ValueError(refusal("parts", f"have all {rows:,} rows of the set", f"none with rows {shown}", remedy))
    return Merged(state, gaps_between(gaps, rows), first.shared, own)


def check_same(first: Part, part: Part) -> None:
    """Raise ValueError unless two parts are of one command, set, options and version."""
    changed = sorted(key for key in first.shared.keys() | part.shared.keys() if differ(first.shared, part.shared, key))
    if not changed:
        return
    shown = []
    for key in changed:
        mine, theirs = ({**facts} if isinstance(facts := each.shared.get(key), dict) else {} for each in (first, part))
        names = [name for name in sorted(mine.keys() | theirs.keys()) if differ(mine, theirs, name)]
        shown.append(f"{key} ({', '.join(names)})" if names else key)
    got = f"{part.path}, whose {' and '.join(shown)} are not those of {first.path}"
    raise ValueError(refusal("parts", "be of one set, with the same options", got, "Leave it out, or make it anew."))


def differ(mine: Mapping[str, Any], theirs: Mapping[str, Any], key: str) -> bool:
    """Whether two mappings have different values of a key."""
    return bool(mine.get(key) != theirs.get(key))


def check_apart(ranges: list[tuple[int, int, str]]) -> None:
    """Raise ValueError if two of some ranges of rows, which are in order, have a row in common."""
    furthest = (0, 0, "")
    for each in ranges:
        if each[0] < furthest[1]:
            got = f"rows {each[0]}:{min(each[1], furthest[1])} in {furthest[2]} and in {each[2]}"
            raise ValueError(refusal("parts", "have each row once", got, "Leave one of the two out."))
        furthest = max(furthest, each, key=lambda one: one[1])


def gaps_between(ranges: Iterable[Range], rows: int) -> list[Range]:
    """The rows of a set of so many that are in none of some ranges, which are in order and apart."""
    gaps, end = [], 0
    for start, stop in [*ranges, (rows, rows)]:
        if end < start:
            gaps.append((end, start))
        end = stop
    return gaps
