"""Where the tasks of a pass run, where a caller does not say: as Dask itself decides, in the same order.

Leaves out how they are run there (``schedulers.py``).
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Iterator
from typing import Any

from xent.optional import require

SYNONYMS = {
    "synchronous": "sync",
    "single-threaded": "sync",
    "threading": "threads",
    "multiprocessing": "processes",
    "dask.distributed": "distributed",
}
"""Dask's other names for its schedulers."""


def configured(name: str) -> Any:
    """A value of Dask's configuration, None where it has none.

    Dask takes 0.1 s to import, and is left alone where nothing can have configured it.
    """
    if "dask" not in sys.modules and not may_be_configured():
        return None
    return require("dask", "dask", "an evaluation").config.get(name, None)


def may_be_configured() -> bool:
    """Whether a variable of the environment is Dask's, or there is a folder of its configuration."""
    return any(name.startswith("DASK_") for name in os.environ) or any(map(os.path.exists, folders()))


def folders() -> Iterator[str]:
    """The folders of Dask's configuration, where no variable names others."""
    yield "/etc/dask"
    for prefix in (sys.prefix, *site.PREFIXES):
        yield os.path.join(prefix, "etc", "dask")
    yield os.path.join(os.path.expanduser("~"), ".config", "dask")


def chosen(scheduler: Any) -> Any:
    """The scheduler that is named; for None that of Dask's configuration, else "threads".

    An active Client is there as "dask.distributed".

    Raises
    ------
    ValueError
        If the active Client is named and there is none.
    """
    if scheduler is None:
        scheduler = configured("scheduler") or "threads"
    if not isinstance(scheduler, str):
        return scheduler
    name = SYNONYMS.get(scheduler.lower(), scheduler)
    if name != "distributed":
        return name
    if (client := active_client()) is None:
        rule, remedy = "be one that runs, got 'distributed' and no Client is active", "Make a distributed.Client first"
        raise ValueError(f"evaluate: `scheduler` must {rule}. {remedy}, or leave it out for threads.")
    return client


def active_client() -> Any:
    """The Client that Dask would use; None if there is none, or it belongs to an event loop."""
    library = sys.modules.get("distributed")  # without the module there is no client
    if library is None:
        return None
    try:
        client = library.Client.current()
    except ValueError:
        return None
    return None if client.asynchronous else client
