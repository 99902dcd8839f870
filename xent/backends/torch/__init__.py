"""torch: the memory as another library sees it, inside torch's autograd; torch.compile and torch.func."""

from .hooks import xent_register_backends

__all__ = ["xent_register_backends"]
