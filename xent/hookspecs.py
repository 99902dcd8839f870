"""The hooks under their public path; they are defined in ``contract/hooks.py``."""

from __future__ import annotations

from .contract.hooks import (
    hookimpl,
    hookspec,
    xent_conformance,
    xent_order_kernels,
    xent_register_backends,
    xent_register_kernels,
)
from .contract.specs import API_VERSION

__all__ = ["API_VERSION", "hookimpl", "hookspec"]
__all__ += ["xent_conformance", "xent_order_kernels", "xent_register_backends", "xent_register_kernels"]
