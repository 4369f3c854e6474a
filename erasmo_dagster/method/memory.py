"""Giving memory back between the stages that need gigabytes of it."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress


def release_memory() -> None:
    """Free what is unreachable and return it to the operating system.

    Models are part of reference cycles, and glibc keeps the many blocks that a training allocated: without this a
    gigabyte or two stays resident after it.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)
