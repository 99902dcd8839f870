"""torch, as it is registered. Nothing here imports torch; the schedule is in ``schedule.py``."""

from __future__ import annotations

from collections.abc import Iterator

from ...contract.hooks import hookimpl
from ...contract.specs import BackendSpec


@hookimpl
def xent_register_backends() -> Iterator[BackendSpec]:
    yield BackendSpec(
        name="torch",
        load="xent.backends.torch.schedule:run",
        arrays=frozenset({"torch"}),
        inner="view",
        takes_out=True,
    )
