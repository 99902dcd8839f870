"""Fused CUDA kernels for xent, on CuPy's arrays: installed, they are used; nothing needs to be imported from here."""
