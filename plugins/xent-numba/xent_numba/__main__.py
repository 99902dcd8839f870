"""``python -m xent_numba``: compiles every loop ahead of the first call, for an image or a cluster's nodes."""

from __future__ import annotations

import argparse
import time


def main() -> None:
    """Compiles for the dtypes named, by default for all, and says where the machine code is kept."""
    parser = argparse.ArgumentParser(prog="python -m xent_numba", description=main.__doc__)
    choices = ("float16", "bfloat16", "float32", "float64")
    parser.add_argument("dtypes", nargs="*", metavar="dtype", help=", ".join(choices))
    dtypes = parser.parse_args().dtypes or choices
    unknown = [dtype for dtype in dtypes if dtype not in choices]
    if unknown:
        parser.error(f"`dtype` must be one of {', '.join(choices)}, got {unknown[0]}.")

    from .hooks import numba_fails

    if numba_fails():
        parser.error(f"{numba_fails()}.")

    from . import compiled, rows, whole_calls

    begin = time.perf_counter()
    compiled.warm(dtypes)
    for dtype in dtypes:
        for method in ("loss", "loss_and_gradient"):
            whole_calls.compiled_whole_call(method, dtype)
    cache = compiled.cache_of(rows.fold)
    folder = cache.cache_path if cache else "memory only: no folder for it can be written; set NUMBA_CACHE_DIR"
    print(f"{', '.join(dtypes)}: compiled in {time.perf_counter() - begin:.1f} s, kept in {folder}")


if __name__ == "__main__":
    main()
