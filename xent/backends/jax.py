"""Schedule for jax arrays."""
