"""``merge`` under its public path; it is defined in ``statistics/state.py``."""

from __future__ import annotations

from xent.evaluation.statistics.state import merge

__all__ = ["merge"]
