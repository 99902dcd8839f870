"""JAX, as it is registered; the schedule is in ``schedule.py``, and nothing here imports JAX."""

from __future__ import annotations

from collections.abc import Iterator

from ...contract.hooks import hookimpl
from ...contract.specs import BackendSpec


@hookimpl
def xent_register_backends() -> Iterator[BackendSpec]:
    yield BackendSpec(name="jax", load="xent.backends.jax.schedule:run", arrays=frozenset({"jax"}))
