"""Fused CPU kernels for xent, in Numba: installed, they are used; nothing needs to be imported from here."""
