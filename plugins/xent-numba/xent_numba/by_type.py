"""Functions of compiled code whose body depends on the types of their arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from numba.extending import overload


def by_type(choose: Callable[..., Any]) -> Callable[..., Any]:
    """A function for compiled code: ``choose`` gets the types of the arguments and returns the body for them."""

    @functools.wraps(choose)
    def function(*arguments: Any) -> Any:
        raise NotImplementedError("only compiled code calls this")

    overload(function, jit_options={"forceinline": True})(choose)
    return function
