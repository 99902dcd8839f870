"""What every kernel for JAX needs of XLA's foreign function interface: whether it is the known one, and registration.

Leaves out what a target computes, which is the plugin's. Imports no JAX: it is handed ``jax.ffi``.
"""

from __future__ import annotations

import ctypes
import functools
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

lock = threading.Lock()
registered: dict[str, Any] = {}
"""What is behind each target, by its name: XLA holds addresses only."""


@functools.cache
def why_no_targets(ffi: Any, major: int) -> str:
    """Why no target can be that reads call frames of this major version of the interface; empty if one can.

    Parameters
    ----------
    ffi : module
        ``jax.ffi``.
    major : int
        ``XLA_FFI_API_MAJOR`` of the ``xla/ffi/api/c_api.h`` that the target was written for.
    """
    if sys.maxsize < 2**32 or sys.platform == "win32":
        return "XLA's call frames are read on 64-bit Linux and macOS only"
    header = Path(ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    found = re.search(r"#define XLA_FFI_API_MAJOR (\d+)", header.read_text()) if header.is_file() else None
    if found is None or int(found[1]) != major:
        return f"XLA's foreign function interface has version {found[1] if found else 'unknown'}, not {major}"
    return ""


def register_target(ffi: Any, name: str, platform: str, make: Callable[[], tuple[int, Any]]) -> str:
    """The name of a target, which is registered with JAX if it is not yet.

    Parameters
    ----------
    ffi : module
        ``jax.ffi``.
    name : str
    platform : str
        "cpu" or "CUDA".
    make : callable() -> (int, object)
        Called where the target is new: the address of its C function, and what must live as long as that.
    """
    with lock:
        if name not in registered:
            address, kept = make()
            capsule = ffi.pycapsule(ctypes.c_void_p(address))
            ffi.register_ffi_target(name, capsule, platform=platform, api_version=1)
            registered[name] = kept
    return name
