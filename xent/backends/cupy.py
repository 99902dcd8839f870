"""Schedule for cupy arrays."""
