"""What belongs to a set: nothing outside of it is read, but in folders that its owner allows.

A path that the user names is his choice, wherever it leads. What a file or a folder names by itself (a symbolic link in
a folder, a part of an HDF5 dataset) belongs to the set only where it lies in the set's own folder.
Leaves out what the formats name.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence

from xent.evaluation.sources.messages import MalformedError, refusal


def check_inside(path: str, folders: Iterable[str], argument: str, what: str) -> str:
    """The real path of a file that a set names; MalformedError, without a look into it, if it is in no such folder.

    `folders` are real paths; `what` says what the file is to the set.
    """
    real = os.path.realpath(path)
    if not any(real == folder or real.startswith(os.path.join(folder, "")) for folder in folders):
        remedy = f"If you trust the set, pass allow_outside={os.path.dirname(real)!r}; else name that file itself."
        raise MalformedError(refusal(argument, "lie in files of its own", f"{what}, {real}", remedy))
    return real


def check_regular(path: str, mode: int) -> None:
    """Raise MalformedError for a pipe, a device or a socket, which may never end."""
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(mode), "a device")
        raise MalformedError(f"evaluate: {path} is {kind}, which cannot be read in parts. Save it as a file first.")


def check_tree(folder: str, folders: Sequence[str], argument: str) -> None:
    """Raise MalformedError for a pipe or a device in a folder, however deep, or a link that leads out of `folders`."""
    pending, seen = [folder], set[str]()
    while pending:
        real = check_inside(pending[-1], folders, argument, f"the link {pending.pop()}")
        if real in seen:
            continue
        seen.add(real)
        with os.scandir(real) as entries:
            for entry in entries:
                if entry.is_symlink():
                    check_inside(entry.path, folders, argument, f"the link {entry.path}")
                    if not os.path.exists(entry.path):  # it leads nowhere, or to itself
                        continue
                if entry.is_dir():
                    pending.append(entry.path)
                elif not entry.is_file():
                    check_regular(entry.path, entry.stat().st_mode)
