"""Schedule for torch arrays."""
