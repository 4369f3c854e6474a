"""One thread where sums must add up in one order: numeric libraries on several add in the order that these end in."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import Any

# How many modules were loaded when the libraries were looked for, and what was found. Looking takes some milliseconds
# and is asked for at every small step of a fit; a library comes with a module, so none is missed.
_known: tuple[int, Any] | None = None


def one_thread(user_api: str | None = None) -> AbstractContextManager[Any]:
    """A context in which the libraries of ``user_api`` (blas or openmp, None for both) run on one thread."""
    global _known
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    if _known is None or _known[0] != len(sys.modules):
        _known = len(sys.modules), ThreadpoolController()
    limited: AbstractContextManager[Any] = _known[1].limit(limits=1, user_api=user_api)
    return limited
