"""The peers' signatures on any array: one module for each peer, and in its docstring where it differs from xent."""
