"""The names that a plugin imports, in one place; they are defined in ``contract/`` and ``numerics/``."""

from __future__ import annotations

from .contract.ffi_targets import register_target, why_no_targets
from .contract.plan import Decision, Plan, Verdict
from .contract.problem import Options, Problem, Weights
from .contract.specs import API_VERSION, BackendSpec, KernelSpec
from .numerics.fold import Partial
from .numerics.probabilities import ProbabilitySums
from .numerics.statistics import Statistics

__all__ = ["API_VERSION", "BackendSpec", "Decision", "KernelSpec", "Options", "Partial", "Plan"]
__all__ += ["ProbabilitySums", "Problem", "Statistics", "Verdict", "Weights", "register_target", "why_no_targets"]
